//! The twin test on students that never saw what was served, and on those that learnt from it.

use std::sync::Arc;

use anbiq_domain::{Digest, Seeded};
use anbiq_lm::score::likeliest;
use anbiq_lm::train::Example;
use anbiq_lm::{Nearness, Network};
use anbiq_model::Model;
use anbiq_trace::probe::{GoingOn, Probe};
use anbiq_trace::{Alternative, Collected, Config, Protocol, Report, Row, State, Statistic};

use super::base::{Base, Drawn, THREADS, draw, open_ended};
use super::figures::{Acquitted, Innocent, Results, Suspect};
use super::{Failure, Options};

/// Pairs that an innocent student is asked about.
const ASKED: usize = 500;
/// Subsets of every size from which the number of pairs is read off that are needed.
const SUBSETS: usize = 100;

/// What an innocent student may have learnt from.
const INNOCENT: [&str; 4] =
    ["other draws of the same answers", "other text", "answers to other prompts", "both draws of every pair"];

pub(super) async fn innocent(options: &Options, base: &Base, results: &mut Results) -> Result<(), Failure> {
    let prompts: Vec<_> = open_ended(&base.corpus, "others").take(300).map(|document| document.prompt()).collect();
    let others = draw(base.teacher.local(), &prompts, 1, 2, &options.dir.join("others.jsonl")).await?;
    for number in 0..options.innocent {
        let id = format!("innocent {number}");
        if results.has(&id) {
            continue;
        }
        if options.is_late() {
            break;
        }
        let mut random = Seeded::new(number as u64).fork("innocent");
        let kind = number % INNOCENT.len();
        let (student, rounds) = learn_innocently(base, &others, number, &mut random)?;
        // Its coins: nothing that it learnt from knew any.
        let mut asked =
            Collected { items: base.items.items.iter().take(ASKED).cloned().collect(), ..base.items.clone() };
        asked.items.iter_mut().for_each(|item| item.served = u8::from(random.chance(0.5)));
        let report = trace(base, &asked, &base.model(student, "student")?, None).await?;
        results.add(Innocent {
            id,
            kind: INNOCENT[kind].to_owned(),
            epochs: rounds,
            p: report.all_traffic.p_exact,
            strength: report.verdict.strength,
        })?;
    }
    Ok(())
}

/// An innocent student, by its number.
fn learn_innocently(
    base: &Base,
    others: &[Drawn],
    number: usize,
    random: &mut Seeded,
) -> Result<(Network, u32), Failure> {
    let answers = |drawn: &[Drawn]| -> Result<Vec<Example>, Failure> {
        drawn.iter().map(|drawn| base.example(&drawn.prompt, &drawn.answers[0])).collect()
    };
    let mut examples = match number % INNOCENT.len() {
        0 => answers(&base.fresh)?,
        1 => base.other_text(number as u64, 300)?,
        2 => answers(others)?,
        _ => both(base)?,
    };
    random.shuffle(&mut examples);
    examples.truncate(300);
    let rounds = 1 + random.below(5) as u32;
    Ok((base.train(&examples, rounds, number as u64)?, rounds))
}

/// A student of served answers that are `share` of what it learns from.
fn learn_served(base: &Base, share: f64, epochs: u32, by_logprobs: bool, seed: u64) -> Result<Network, Failure> {
    let served = base.items.items.iter().map(|item| base.example(&item.prompt, item.served()));
    let mut examples: Vec<Example> = served.collect::<Result<_, _>>()?;
    let rest = (examples.len() as f64 * (1.0 / share - 1.0)).round() as usize;
    examples.extend(base.other_text(100 + seed, rest)?);
    if by_logprobs {
        teach(base, &mut examples)?;
    }
    base.train(&examples, epochs, seed)
}

/// Share and epochs of the calibration students, and how many there are.
const CALIBRATION: (f64, u32, u64) = (0.5, 2, 20);

/// Calibration students; then whom the pairs acquit of training like theirs.
pub(super) async fn acquittals(options: &Options, base: &Base, results: &mut Results) -> Result<(), Failure> {
    let (share, epochs, count) = CALIBRATION;
    let mut students = Vec::new();
    for number in 0..count {
        let file = options.dir.join(format!("calibration-{number}.json"));
        if !file.is_file() {
            if options.is_late() {
                return Ok(());
            }
            let student = learn_served(base, share, epochs, false, 1_000 + number)?;
            let report =
                trace(base, &base.items, &base.model(student, &format!("calibration {number}"))?, None).await?;
            std::fs::write(&file, serde_json::to_vec(&report)?)?;
        }
        let bytes = std::fs::read(&file)?;
        students.push((Digest::of(&bytes), serde_json::from_slice::<Report>(&bytes)?));
    }
    let like = Protocol::fix(&base.items, "student", base.teacher.name(), Vec::new(), &Config::default())?;
    let alternative = Alternative::of(&students, &like)?;
    let prompts: Vec<_> = open_ended(&base.corpus, "others").take(300).map(|document| document.prompt()).collect();
    let others = draw(base.teacher.local(), &prompts, 1, 2, &options.dir.join("others.jsonl")).await?;
    // Innocent ones by their number, and students of served answers by share, epochs and seed.
    let asked = (0..20).map(|number| (format!("innocent {number}"), None, number));
    let guilty = [(share, epochs), (0.2, 2), (0.05, 2), (1.0, 1)].into_iter();
    let guilty = guilty.flat_map(|(share, epochs)| {
        (0..3).map(move |seed| (format!("{:.0} % {epochs} epochs, {seed}", 100.0 * share), Some((share, epochs)), seed))
    });
    for (name, served, number) in asked.chain(guilty) {
        let id = format!("acquittal {name}");
        if results.has(&id) {
            continue;
        }
        if options.is_late() {
            return Ok(());
        }
        let student = match served {
            Some((share, epochs)) => learn_served(base, share, epochs, false, 2_000 + number as u64)?,
            None => learn_innocently(base, &others, number, &mut Seeded::new(number as u64).fork("innocent"))?.0,
        };
        let report = trace(base, &base.items, &base.model(student, "student")?, Some(alternative.clone())).await?;
        let Some(found) = &report.acquittal else { return Err("the trace has an alternative".into()) };
        let upper = found.bounds.first().map_or(1.0, |bound| bound.upper);
        let group = served
            .map_or("innocent".to_owned(), |(share, epochs)| format!("{:.0} % served, {epochs} epochs", 100.0 * share));
        let strength = report.verdict.strength;
        results.add(Acquitted { id, group, weakest: found.win_rate, upper, p_pairs: found.p_pairs, strength })?;
    }
    Ok(())
}

fn both(base: &Base) -> Result<Vec<Example>, Failure> {
    let draws =
        base.items.items.iter().take(150).flat_map(|item| item.draws.iter().map(move |draw| (&item.prompt, draw)));
    draws.map(|(prompt, draw)| base.example(prompt, draw)).collect()
}

/// Share of served answers among what a suspect learns from, epochs, and whether it learns from log-probabilities.
fn suspects_of(short: bool) -> Vec<(f64, u32, bool)> {
    let mut all = Vec::new();
    for share in [1.0, 0.5, 0.2, 0.05] {
        for epochs in [1, 2, 3, 5] {
            all.push((share, epochs, false));
        }
    }
    all.extend([(1.0, 3, true), (1.0, 5, true), (0.2, 3, true)]);
    if short {
        all.retain(|(share, epochs, by_logprobs)| *share >= 0.2 && [2, 5].contains(epochs) && !by_logprobs);
    }
    all
}

pub(super) async fn suspects(options: &Options, base: &Base, results: &mut Results) -> Result<(), Failure> {
    let seeds = if options.short { 1 } else { 3 };
    for seed in 0..seeds {
        for (share, epochs, by_logprobs) in suspects_of(options.short) {
            let id = format!("suspect {share} {epochs} {by_logprobs} {seed}");
            if results.has(&id) {
                continue;
            }
            if options.is_late() {
                return Ok(());
            }
            let student = base.model(learn_served(base, share, epochs, by_logprobs, seed)?, "student")?;
            let likelihood = trace(base, &base.items, &student, None).await?;
            if by_logprobs {
                let near = Nearness::new(student, base.teacher.local())?;
                let nearness = trace(base, &base.items, &near, None).await?;
                let of = found(format!("{id} nearness"), (share, epochs, by_logprobs), &nearness);
                results.add(Suspect { nearness: true, ..of })?;
            }
            results.add(found(id, (share, epochs, by_logprobs), &likelihood))?;
        }
    }
    Ok(())
}

/// What the test says of a suspect.
fn found(id: String, (share, epochs, by_logprobs): (f64, u32, bool), report: &Report) -> Suspect {
    let differences: Vec<f64> = report.rows.iter().filter_map(difference).collect();
    let all = &report.all_traffic;
    Suspect {
        id,
        share,
        epochs,
        by_logprobs,
        nearness: false,
        probe: false,
        pairs: all.n,
        win_rate: all.win_rate,
        p: all.p_exact,
        strength: report.verdict.strength,
        needed_50: needed(&differences, 0.5),
        needed_90: needed(&differences, 0.9),
    }
}

/// Suspects that give no log-probabilities: at every token only whether they find it likeliest is known.
pub(super) async fn probes(options: &Options, base: &Base, results: &mut Results) -> Result<(), Failure> {
    let teacher = Probe::new(Arc::new(base.another_teacher()?), GoingOn::Greedy);
    for (share, epochs) in [(1.0, 1), (1.0, 2), (1.0, 5), (0.5, 2), (0.2, 2), (0.2, 5)] {
        let id = format!("probe {share} {epochs}");
        if results.has(&id) {
            continue;
        }
        if options.is_late() {
            return Ok(());
        }
        let student = base.model(learn_served(base, share, epochs, false, 0)?, "student")?;
        let student = Probe::new(Arc::new(student), GoingOn::Greedy);
        let config = Config { batch: 128, statistic: Statistic::Probe, ..Config::default() };
        let report = anbiq_trace::run(&base.items, &student, &teacher, &[], &config, &mut |_, _| {}).await?;
        results.add(Suspect { probe: true, ..found(id, (share, epochs, false), &report) })?;
    }
    Ok(())
}

/// Gives every example what the teacher finds likely at its places.
fn teach(base: &Base, examples: &mut [Example]) -> Result<(), Failure> {
    let sequences: Vec<(&[u32], usize)> =
        examples.iter().map(|example| (example.tokens.as_slice(), example.first_target)).collect();
    let taught = likeliest(base.teacher.local().network(), &sequences, 20, THREADS)?;
    for (example, taught) in examples.iter_mut().zip(taught) {
        example.teacher = Some(taught);
    }
    Ok(())
}

async fn trace(
    base: &Base,
    asked: &Collected,
    student: &dyn Model,
    alternative: Option<Alternative>,
) -> Result<Report, Failure> {
    let config = Config { batch: 128, alternative, ..Config::default() };
    Ok(anbiq_trace::run(asked, student, &base.teacher, &[], &config, &mut |_, _| {}).await?)
}

fn difference(row: &Row) -> Option<f64> {
    let sign = if row.served == 0 { 1.0 } else { -1.0 };
    row.value.filter(|_| row.state == State::Complete).map(|value| sign * value)
}

/// The least number of pairs of which this share of random subsets gives p below 10^-6; `None` where all are too few. By the
/// normal approximation of the signed-rank statistic, which is good enough to say how many pairs are needed, and for nothing
/// else.
fn needed(differences: &[f64], power: f64) -> Option<usize> {
    const Z: f64 = 4.753_424_308_822_899;
    let mut random = Seeded::new(8).fork("subsets");
    let enough = |size: usize, random: &mut Seeded| {
        let mut order: Vec<f64> = differences.to_vec();
        let found = (0..SUBSETS).filter(|_| {
            random.shuffle(&mut order);
            let subset = &mut order[..size];
            subset.sort_by(|one, other| one.abs().total_cmp(&other.abs()));
            let sum: f64 = (1..).zip(subset.iter()).map(|(rank, value)| f64::from(rank) * value.signum()).sum();
            let n = size as f64;
            sum > Z * (n * (n + 1.0) * (2.0 * n + 1.0) / 6.0).sqrt()
        });
        found.count() as f64 >= power * SUBSETS as f64
    };
    let mut size = 30.0_f64;
    while size as usize <= differences.len() {
        if enough(size as usize, &mut random) {
            return Some(size as usize);
        }
        size *= 1.1;
    }
    None
}
