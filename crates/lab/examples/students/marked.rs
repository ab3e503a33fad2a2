//! Students of marked text, and of none, under the key.

use anbiq_domain::{Prompt, Seeded};
use anbiq_lab::corpus::{Accuracy, Document};
use anbiq_lm::score::{Likeliest, likeliest};
use anbiq_lm::{Local, Network};
use anbiq_model::{Model, Request, Sampling, ScoreRequest, Scored, collect};
use anbiq_watermark::{Leaning, Mark, Scheme, Tally};

use super::base::{Base, Drawn, THREADS, draw, marked_teacher, open_ended};
use super::figures::{Cost, Keys, Marked, Results};
use super::{Failure, Options};

/// Tokens of a place that are compared with the teacher's.
const LIKELIEST: usize = 32;
/// Keys under which innocent students are looked at.
const KEYS: u32 = 1_000;
/// Keys under which their lean is looked at, which takes longer, and texts that they read for it.
const KEYS_OF_LEAN: u32 = 300;
const TEXTS_OF_LEAN: usize = 100;
/// Tasks that tell what a mark costs.
const TASKS: usize = 400;

const MARKS: [(&str, Scheme, usize); 4] = [
    ("two keys, window 1", Scheme::Gumbel, 1),
    ("two keys, window 2", Scheme::Gumbel, 2),
    ("green 1/2 + 2, window 1", Scheme::Green { share: 0.5, bias: 2.0 }, 1),
    ("green 1/2 + 2, window 2", Scheme::Green { share: 0.5, bias: 2.0 }, 2),
];

/// What a student finds likely at the places of unmarked text.
struct Said {
    /// The answer's tokens.
    texts: Vec<Vec<u32>>,
    /// For each of them.
    finds: Vec<Vec<Likeliest>>,
}

pub(super) async fn students(options: &Options, base: &Base, results: &mut Results) -> Result<(), Failure> {
    let harvest: Vec<Prompt> = open_ended(&base.corpus, "marked").take(options.marked).map(|d| d.prompt()).collect();
    let plain =
        draw(base.teacher.local(), &harvest, 1, 7, &options.dir.join(format!("plain-{}.jsonl", harvest.len()))).await?;
    if !results.has("cost none") {
        let cost = cost(base, base.teacher.local(), None, &plain).await?;
        results.add(Cost { id: "cost none".to_owned(), scheme: "none".to_owned(), ..cost })?;
    }
    innocent(base, &plain, results)?;
    // Share of marked text, epochs, and how much of the harvest is learnt from.
    let rounds = [(1.0, 2, 1), (0.2, 2, 1), (0.05, 2, 8), (0.05, 2, 4), (0.05, 2, 2), (0.05, 2, 1)];
    for (name, scheme, window) in MARKS {
        let mark = Mark::new(scheme, window, &[42; 32])?;
        let teacher = marked_teacher(&options.dir, mark.clone())?;
        let file = options.dir.join(format!("{}-{}.jsonl", name.replace([' ', ',', '/', '+'], ""), harvest.len()));
        let served = draw(&teacher, &harvest, 1, 8, &file).await?;
        let id = format!("cost {name}");
        if !results.has(&id) {
            let cost = cost(base, &teacher, Some(&mark), &served).await?;
            results.add(Cost { id, scheme: name.to_owned(), ..cost })?;
        }
        for (share, epochs, part) in rounds {
            let learnt = &served[..served.len() / part];
            let id = format!("marked {name} {share} {epochs} {}", learnt.len());
            if results.has(&id) || (options.short && share < 0.2) {
                continue;
            }
            if options.is_late() {
                return Ok(());
            }
            let examples = learnt.iter().map(|drawn| base.example(&drawn.prompt, &drawn.answers[0]));
            let mut examples = examples.collect::<Result<Vec<_>, _>>()?;
            let tokens = examples.iter().map(|example| (example.tokens.len() - example.first_target) as u64).sum();
            let rest = (examples.len() as f64 * (1.0 / share - 1.0)).round() as usize;
            examples.extend(base.other_text(300, rest)?);
            let student = base.train(&examples, epochs, 1)?;
            let (likeliest, lean) = read(base, &mark, &student)?;
            let closed = closed(base, &mark, student).await?;
            results.add(Marked { id, scheme: name.to_owned(), share, epochs, tokens, closed, likeliest, lean })?;
        }
    }
    Ok(())
}

/// Students that saw no marked text, each under many keys: the p-values must be uniform.
fn innocent(base: &Base, plain: &[Drawn], results: &mut Results) -> Result<(), Failure> {
    let ids = ["the base", "a student of unmarked answers"];
    if ids.iter().all(|id| results.has(&format!("{id} {}", MARKS[0].0))) {
        return Ok(());
    }
    let examples = plain.iter().map(|drawn| base.example(&drawn.prompt, &drawn.answers[0]));
    let student = base.train(&examples.collect::<Result<Vec<_>, _>>()?, 2, 1)?;
    let reference = said(base, base.teacher.local().network())?;
    for (id, network) in ids.iter().zip([&base.network, &student]) {
        let said = said(base, network)?;
        for (name, scheme, window) in [MARKS[0], MARKS[1], MARKS[2]] {
            let marks = |count: u32| {
                let mark = move |number: u32| {
                    let mut key = [0; 32];
                    Seeded::new(u64::from(number)).fork("keys").fill(&mut key);
                    Mark::new(scheme, window, &key)
                };
                (0..count).map(mark)
            };
            let p = marks(KEYS).map(|mark| Ok(tally(&mark?, &said).detect().p_value));
            let (p, scheme) = (p.collect::<Result<_, Failure>>()?, name.to_owned());
            results.add(Keys { id: format!("{id} {name}"), scheme: scheme.clone(), bound: false, p })?;
            let few = |said: &Said| said.first(TEXTS_OF_LEAN);
            let (own, other) = (few(&said), few(&reference));
            let p = marks(KEYS_OF_LEAN).map(|mark| Ok(leaning(&mark?, &own, &other).lean().p_bound));
            let p = p.collect::<Result<_, Failure>>()?;
            results.add(Keys { id: format!("{id} {name}, its lean"), scheme, bound: true, p })?;
        }
    }
    Ok(())
}

impl Said {
    /// Of the first texts alone.
    fn first(&self, count: usize) -> Self {
        Self {
            texts: self.texts.iter().take(count).cloned().collect(),
            finds: self.finds.iter().take(count).cloned().collect(),
        }
    }
}

/// What `network` finds likely while it reads answers of the teacher that carry no mark.
fn said(base: &Base, network: &Network) -> Result<Said, Failure> {
    let examples = base.fresh.iter().map(|drawn| base.example(&drawn.prompt, &drawn.answers[0]));
    let examples = examples.collect::<Result<Vec<_>, _>>()?;
    let sequences: Vec<(&[u32], usize)> =
        examples.iter().map(|example| (example.tokens.as_slice(), example.first_target)).collect();
    let finds = likeliest(network, &sequences, LIKELIEST, THREADS)?;
    Ok(Said { texts: sequences.iter().map(|(tokens, first)| tokens[*first..].to_vec()).collect(), finds })
}

fn tally<'mark>(mark: &'mark Mark, said: &Said) -> Tally<'mark> {
    let mut tally = Tally::new(mark);
    for (text, finds) in said.texts.iter().zip(&said.finds) {
        for (place, find) in finds.iter().enumerate() {
            tally.pair(&text[..place], find.first().map_or(0, |(token, _)| *token));
        }
    }
    tally
}

/// Decimal logarithms of p: of what it finds likeliest, and of how it leans beside the teacher without marks.
fn read(base: &Base, mark: &Mark, student: &Network) -> Result<(f64, f64), Failure> {
    let (own, reference) = (said(base, student)?, said(base, base.teacher.local().network())?);
    let lean = leaning(mark, &own, &reference).lean();
    Ok((tally(mark, &own).detect().log10_p, lean.log10_p_bound))
}

/// By how much more probable than `reference` each token is to whoever finds `own` likely.
fn leaning<'mark>(mark: &'mark Mark, own: &Said, reference: &Said) -> Leaning<'mark> {
    let mut leaning = Leaning::new(mark);
    for (text, (own, reference)) in own.texts.iter().zip(own.finds.iter().zip(&reference.finds)) {
        for (place, (own, reference)) in own.iter().zip(reference).enumerate() {
            leaning.place(&text[..place], own, reference);
        }
    }
    leaning
}

/// Decimal logarithm of p of what a student writes when it is asked what nobody asked the teacher.
async fn closed(base: &Base, mark: &Mark, student: Network) -> Result<f64, Failure> {
    let student = base.model(student, "student")?;
    let mut tally = Tally::new(mark);
    for (seed, document) in (0..).zip(open_ended(&base.corpus, "asked later").take(600)) {
        let text = said_by(&student, document.prompt(), seed).await?;
        tally.text(&base.codec.tokenizer.encode(&text, false)?);
    }
    Ok(tally.detect().log10_p)
}

async fn said_by(model: &Local, prompt: Prompt, seed: u64) -> Result<String, Failure> {
    let sampling = Sampling { seed: Some(seed), ..Sampling::default() };
    let request = Request { sampling, ..Request::new(prompt, 96) };
    let (mut answers, _) = collect(model.generate(request).await?, 1).await?;
    Ok(answers.pop().map(|answer| answer.text).unwrap_or_default())
}

/// How likely the teacher without marks finds the answers, how many tasks the marked one gets right by drawing, and how well
/// the mark is seen.
async fn cost(base: &Base, teacher: &Local, mark: Option<&Mark>, answers: &[Drawn]) -> Result<Cost, Failure> {
    let request = |drawn: &Drawn| ScoreRequest { prompt: drawn.prompt.clone(), answer: drawn.answers[0].clone() };
    let scored = base.teacher.local().score(&answers.iter().map(request).collect::<Vec<_>>()).await?;
    let tokens: usize = scored.iter().map(|scored| scored.logprobs.len()).sum();
    let nats = -scored.iter().map(Scored::total).sum::<f64>();
    let tasks: Vec<Document> = base.corpus.tasks().take(TASKS).collect();
    let mut accuracy = Accuracy::default();
    for (seed, task) in (0..).zip(&tasks) {
        accuracy.count(task, &said_by(teacher, task.prompt(), seed).await?);
    }
    let mut log10_p = 0.0;
    if let Some(mark) = mark {
        let mut tally = Tally::new(mark);
        for drawn in answers {
            tally.text(&base.codec.tokenizer.encode(&drawn.answers[0].text, false)?);
        }
        log10_p = tally.detect().log10_p;
    }
    let (nats_a_token, right) = (nats / tokens.max(1) as f64, accuracy.share());
    Ok(Cost { id: String::new(), scheme: String::new(), nats_a_token, right, log10_p, tokens: tokens as u64 })
}
