//! What is looked at before anything is trained: samples as the student will see them, whether each shows it how to stop, and
//! whether its teacher stops with the same token.
//!
//! A student whose loss never counts the token that ends an answer, or whose teacher ends with another one, answers without
//! end, and nobody sees it in the loss.

use std::fmt::Write as _;
use std::path::Path;

use anbiq_domain::{Answer, Finish, Message, Prompt, Role, Seeded};
use anbiq_lm::{Codec, score};
use serde::{Deserialize, Serialize};

use crate::DistillError;
use crate::capture::Sample;
use crate::data::{Document, Lines};
use crate::evaluate::Teacher;
use crate::recipe::Recipe;
use crate::report::grouped;
use crate::train::{Member, Set};

/// Samples that are shown.
const SHOWN: usize = 8;

/// Ends of answers that a teacher's weights are asked about.
const ASKED: usize = 32;

/// Below this mean probability the teacher does not end its answers with the student's token, above the other it surely does.
const NEVER: f64 = 0.01;
const RARELY: f64 = 0.2;

/// The file in the student's folder.
const FILE: &str = "preflight.txt";

/// What was found before training.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Preflight {
    /// Samples that are learnt from.
    pub samples: u64,
    /// So many of them end with the token that ends an answer, and the loss counts it; the others were cut off and kept.
    pub ended: u64,
    /// Samples that are left out, since they do not fit the student's context.
    pub too_long: u64,
    /// The token that ends an answer.
    pub end_token: String,
    /// What the student's chat template writes after an answer, where that is a token of its own.
    pub template_end: Option<String>,
    /// How likely the teacher finds the student's end token where its answers ended, where that is known.
    pub teacher_end: Option<TeacherEnd>,
    /// What may go wrong.
    pub warnings: Vec<String>,
    /// Samples as the student sees them, drawn by the recipe's seed.
    pub shown: Vec<Shown>,
}

/// How likely a teacher finds the student's end token where its own answers ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TeacherEnd {
    /// Mean of the probabilities; at most so much, where it named other tokens only.
    pub mean: f64,
    /// Answers.
    pub answers: u64,
    /// The token that it finds likeliest there most often, if that is another one.
    pub rather: Option<String>,
    /// Is that a token that ends something, and not a word with which it would go on?
    pub ends_otherwise: bool,
    /// By its weights? Otherwise by what its server told.
    pub by_weights: bool,
}

/// A sample as the student sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// Its number among all, from 1.
    pub number: u64,
    /// What it is given: the loss does not count it.
    pub given: String,
    /// The tokens that the loss counts; none where there is no answer yet.
    pub learnt: Vec<String>,
}

/// Looks at what is to be learnt from. `teacher` is the teacher's weights, where they are at hand and have the student's tokens.
pub(crate) fn look(
    recipe: &Recipe,
    codec: &Codec,
    samples: &[Sample],
    set: &Set,
    teacher: Option<&Teacher>,
) -> Result<Preflight, DistillError> {
    let end = codec.eos.first().copied();
    let mut found = Preflight {
        samples: set.len() as u64,
        ended: ended(codec, samples, set)?,
        too_long: set.too_long,
        end_token: end.map_or_else(String::new, |end| spelt(codec, end)),
        template_end: template_end(codec, set.from.iter().map(|&from| (&samples[from].prompt, &samples[from].answer)))?,
        ..Preflight::default()
    };
    found.shown = shown(recipe.seed, codec, set);
    if found.too_long > 0 {
        found.warnings.push(format!(
            "{} of {} answers do not fit the student's context of {} tokens and are left out: raise `context` in `[student]`, or keep \
             them cut with `keep_truncated`",
            grouped(found.too_long),
            grouped(found.too_long + found.samples),
            codec.context
        ));
    }
    if found.ended == 0 && found.samples > 0 {
        found.warnings.push("no sample ends: the student does not learn when to stop".to_owned());
    }
    let told = teacher_told(codec, set)?;
    let learns = recipe.train.kl_weight > 0.0 && told.is_some() || recipe.train.on_policy.is_some();
    let asked = || teacher.map(|teacher| by_weights(codec, teacher, set, recipe.threads())).transpose();
    found.teacher_end = told.map_or_else(asked, |told| Ok(Some(told)))?;
    if let Some(teacher_end) = &found.teacher_end {
        let TeacherEnd { mean, rather, ends_otherwise, .. } = teacher_end;
        let rather = rather.as_deref().map_or_else(String::new, |rather| format!(" (rather `{rather}`)"));
        let end = &found.end_token;
        let what = if *ends_otherwise {
            "the teacher ends its answers with another token"
        } else {
            "the teacher goes on where these answers end"
        };
        let says = format!("{what}: `{end}` has a probability of {mean:.4}{rather}");
        if *mean < NEVER && *ends_otherwise && learns {
            let hint = format!(
                "name the teacher's token as `eos_token` in tokenizer_config.json of the student's folder, or set `kl_weight = 0` and leave \
                 out `[train.on_policy]`: a student that is pulled away from `{end}` never stops"
            );
            return Err(DistillError::Unready { code: "end_token_unlikely", problem: says, hint });
        }
        if *mean < RARELY {
            found.warnings.push(says);
        }
    }
    Ok(found)
}

/// What can be looked at before there is an answer: prompts with the template applied, and what that writes after an answer.
pub(crate) fn look_ahead(codec: &Codec, prompts: &Path) -> Result<Preflight, DistillError> {
    let documents: Vec<Document> = Lines::<Document>::open(prompts)?.take(SHOWN).collect::<Result<_, _>>()?;
    let answer = Answer::new("An answer.", Finish::Stop);
    let prompts: Vec<Prompt> = documents.iter().map(Document::prompt).collect();
    let mut found = Preflight {
        end_token: codec.eos.first().map_or_else(String::new, |&end| spelt(codec, end)),
        template_end: template_end(codec, prompts.iter().map(|prompt| (prompt, &answer)))?,
        ..Preflight::default()
    };
    for (prompt, number) in prompts.iter().zip(1..) {
        let given = codec.encode_prompt(prompt)?;
        found.shown.push(Shown { number, given: text(codec, &given), learnt: Vec::new() });
    }
    Ok(found)
}

/// Samples whose end token the loss counts.
///
/// # Errors
///
/// A sample whose answer came to its end does not end with that token inside the loss.
fn ended(codec: &Codec, samples: &[Sample], set: &Set) -> Result<u64, DistillError> {
    let mut ended = 0;
    for (number, (example, &from)) in set.members().iter().zip(&set.from).enumerate() {
        let ends = example.targets() > 0 && example.tokens.last().is_some_and(|last| codec.eos.contains(last));
        let cut = set.cut_short.binary_search(&number).is_ok();
        if samples[from].answer.finish == Finish::Stop && !cut && !ends {
            let (problem, hint) = (
                format!(
                    "sample {} has no token that ends its answer inside the loss: its student would not stop",
                    number + 1
                ),
                "name the token that ends an answer as `eos_token` in tokenizer_config.json of the student's folder"
                    .to_owned(),
            );
            return Err(DistillError::Unready { code: "stop_token_missing", problem, hint });
        }
        ended += u64::from(ends);
    }
    Ok(ended)
}

/// The token that the chat template writes after an answer, by the first conversation that tells.
///
/// # Errors
///
/// It is none of those that end the student's answers: the loss would count another token than the one that the template
/// shows the student after every earlier answer.
fn template_end<'set>(
    codec: &Codec,
    mut talks: impl Iterator<Item = (&'set Prompt, &'set Answer)>,
) -> Result<Option<String>, DistillError> {
    let Some(token) = talks.by_ref().take(SHOWN).find_map(|(prompt, answer)| written_after(codec, prompt, answer))
    else {
        return Ok(None);
    };
    let name = spelt(codec, token);
    if codec.eos.contains(&token) {
        return Ok(Some(name));
    }
    let end = codec.eos.first().map_or_else(String::new, |&end| spelt(codec, end));
    Err(DistillError::Unready {
        code: "stop_token_differs",
        problem: format!(
            "the student's chat template ends an answer with `{name}`, which is not inside the loss: `{end}` is, and neither stops for the \
             other"
        ),
        hint: format!("set `eos_token` to `{name}` in tokenizer_config.json of the student's folder"),
    })
}

/// The special token that follows `answer` where the template writes it as a turn that is over.
fn written_after(codec: &Codec, prompt: &Prompt, answer: &Answer) -> Option<u32> {
    let (Prompt::Chat(messages), Some(template)) = (prompt, &codec.template) else { return None };
    let begun = template.render(messages, true).ok()?;
    let said = [messages.as_slice(), &[Message::new(Role::Assistant, answer.text.clone())]].concat();
    let whole = template.render(&said, false).ok()?;
    let after = whole.strip_prefix(&begun)?.trim_start().strip_prefix(answer.text.trim())?.trim_start();
    let next = codec.tokenizer.encode(after, false).ok()?.first().copied()?;
    codec.tokenizer.is_special(next).then_some(next)
}

/// What the teacher's server told of the places at which its answers ended.
fn teacher_told(codec: &Codec, set: &Set) -> Result<Option<TeacherEnd>, DistillError> {
    let mut places = Vec::new();
    for member in set.members().iter().filter(|member| ends(codec, member)) {
        let last = set.told(member)?.and_then(|mut places| places.pop());
        places.extend(last.filter(|place| !place.is_empty()));
    }
    Ok(summary(codec, places.iter().map(Vec::as_slice), false))
}

/// What the teacher's weights say of such places.
fn by_weights(codec: &Codec, teacher: &Teacher, set: &Set, threads: usize) -> Result<TeacherEnd, DistillError> {
    let most = teacher.network.config.max_positions;
    let fits = |example: &&Member| ends(codec, example) && example.tokens.len() <= most && example.tokens.len() > 1;
    let sequences: Vec<(&[u32], usize)> = set
        .members()
        .iter()
        .filter(fits)
        .take(ASKED)
        .map(|example| (example.tokens.as_slice(), example.tokens.len() - 1))
        .collect();
    let said = score::judge(&teacher.network, &sequences, 1, threads)?;
    let places = said.iter().filter_map(|places| places.last()).map(Vec::as_slice);
    Ok(summary(codec, places, true).unwrap_or(TeacherEnd {
        mean: 1.0,
        answers: 0,
        rather: None,
        ends_otherwise: false,
        by_weights: true,
    }))
}

fn ends(codec: &Codec, example: &Member) -> bool {
    example.tokens.last().is_some_and(|last| codec.eos.first() == Some(last))
}

fn summary<'set>(
    codec: &Codec,
    places: impl Iterator<Item = &'set [(u32, f32)]>,
    by_weights: bool,
) -> Option<TeacherEnd> {
    let end = codec.eos.first().copied()?;
    let (mut sum, mut answers, mut rather) = (0.0, 0_u64, std::collections::BTreeMap::<u32, u64>::new());
    for place in places {
        let probability = |logprob: f32| f64::from(logprob).exp();
        let told = place.iter().find(|(token, _)| *token == end).map(|(_, logprob)| probability(*logprob));
        let mass: f64 = place.iter().map(|(_, logprob)| probability(*logprob)).sum();
        let least = place.iter().map(|(_, logprob)| probability(*logprob)).fold(1.0, f64::min);
        // What is not named is no likelier than what is, and no likelier than all that is left.
        sum += told.unwrap_or_else(|| least.min((1.0 - mass).max(0.0)));
        answers += 1;
        if let Some((token, _)) = place.iter().max_by(|one, two| one.1.total_cmp(&two.1)) {
            *rather.entry(*token).or_default() += 1;
        }
    }
    let most = rather.into_iter().max_by_key(|(token, times)| (*times, std::cmp::Reverse(*token)));
    let rather = most.map(|(token, _)| token).filter(|token| *token != end);
    (answers > 0).then(|| TeacherEnd {
        mean: sum / answers as f64,
        answers,
        rather: rather.map(|token| spelt(codec, token)),
        ends_otherwise: rather.is_some_and(|token| codec.tokenizer.is_special(token)),
        by_weights,
    })
}

fn shown(seed: u64, codec: &Codec, set: &Set) -> Vec<Shown> {
    let mut numbers: Vec<usize> = (0..set.len()).collect();
    Seeded::new(seed).fork("shown").shuffle(&mut numbers);
    numbers.truncate(SHOWN);
    numbers.sort_unstable();
    let show = |number: usize| {
        let example = &set.members()[number];
        let (given, learnt) = example.tokens.split_at(example.first_target);
        let learnt = learnt.iter().map(|&token| spelt(codec, token)).collect();
        Shown { number: number as u64 + 1, given: text(codec, given), learnt }
    };
    numbers.into_iter().map(show).collect()
}

/// A token as it is written; bytes that are no character are written as numbers.
fn spelt(codec: &Codec, token: u32) -> String {
    written(codec.tokenizer.bytes(token))
}

fn text(codec: &Codec, tokens: &[u32]) -> String {
    written(&tokens.iter().flat_map(|&token| codec.tokenizer.bytes(token)).copied().collect::<Vec<u8>>())
}

fn written(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        text.push_str(&chunk.valid().replace('\n', "\\n"));
        chunk.invalid().iter().for_each(|byte| text.push_str(&format!("\\x{byte:02x}")));
    }
    text
}

/// The findings as lines of text, with at most `samples` samples: what the loss counts stands in brackets, token by token.
pub fn render_preflight(found: &Preflight, samples: usize) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write_text(&mut text, found, samples);
    text
}

fn write_text(out: &mut String, found: &Preflight, samples: usize) -> std::fmt::Result {
    let Preflight { ended, end_token, .. } = found;
    if found.samples > 0 {
        let all = if *ended == found.samples { "all".to_owned() } else { grouped(*ended) };
        writeln!(out, "samples    {}; {all} end with `{end_token}`, and the loss counts it", grouped(found.samples))?;
    } else {
        writeln!(out, "samples    no answer is there yet; each will end with `{end_token}`")?;
    }
    match &found.template_end {
        Some(end) if end == end_token => writeln!(out, "template   ends an answer with the same token")?,
        Some(end) => writeln!(out, "template   ends an answer with `{end}`, which stops the student too")?,
        None => writeln!(out, "template   does not tell which token ends an answer")?,
    }
    match &found.teacher_end {
        Some(end) if end.answers > 0 => writeln!(
            out,
            "teacher    ends with it with a probability of {:.3}, at the ends of {} answers, by {}",
            end.mean,
            grouped(end.answers),
            if end.by_weights { "its weights" } else { "what its server tells" },
        )?,
        _ => writeln!(out, "teacher    not known how it ends: nothing is told of that place")?,
    }
    for warning in &found.warnings {
        writeln!(out, "warning    {warning}")?;
    }
    for sample in found.shown.iter().take(samples) {
        writeln!(out, "\nsample {}: the loss counts what stands in [brackets]", grouped(sample.number))?;
        writeln!(out, "  {}{}", shortened(&sample.given), bracketed(&sample.learnt))?;
    }
    Ok(())
}

/// The end of a text, where it is long.
fn shortened(text: &str) -> String {
    const LONGEST: usize = 400;
    let over = text.chars().count().saturating_sub(LONGEST);
    if over == 0 {
        text.to_owned()
    } else {
        format!("({over} characters) ...{}", text.chars().skip(over).collect::<String>())
    }
}

/// Tokens in brackets; of many the first and the last.
fn bracketed(tokens: &[String]) -> String {
    const FIRST: usize = 60;
    const LAST: usize = 8;
    let written = |tokens: &[String]| tokens.iter().map(|token| format!("[{token}]")).collect::<String>();
    if tokens.is_empty() {
        return "[no answer yet]".to_owned();
    }
    let over = tokens.len().saturating_sub(FIRST + LAST);
    if over == 0 {
        return written(tokens);
    }
    format!("{} ... ({over} tokens) ... {}", written(&tokens[..FIRST]), written(&tokens[tokens.len() - LAST..]))
}

/// Writes the findings into the student's folder.
pub(crate) fn keep(out: &Path, found: &Preflight) -> Result<(), DistillError> {
    std::fs::create_dir_all(out).map_err(DistillError::write(out))?;
    let path = out.join(FILE);
    std::fs::write(&path, render_preflight(found, SHOWN)).map_err(DistillError::write(&path))
}
