//! What each filter takes, in its turn and by itself.

use serde::{Deserialize, Serialize};

use super::{Curated, Filter, judge};
use crate::DistillError;
use crate::capture::Sample;
use crate::recipe::{CuratePart, EvaluatePart};

/// What the filters of a recipe take of its capture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Effects {
    /// What is left out and kept by all of them.
    pub curated: Curated,
    /// Each filter that is on, in their order.
    pub filters: Vec<Effect>,
}

/// What one filter takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effect {
    /// Its name in the recipe.
    pub filter: String,
    /// What it takes of the answers that those before it left.
    pub in_turn: u64,
    /// What it would take if it were the only one.
    pub alone: u64,
    /// The first that it takes by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub example: Option<Example>,
}

/// The beginning of a prompt and of its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Example {
    /// The last thing that was said to the teacher.
    pub prompt: String,
    /// What it answered.
    pub answer: String,
}

/// Characters of an example.
const SHOWN: usize = 60;

/// What the filters of `part` take of `samples`.
///
/// # Errors
/// As [`super::curate`].
pub(crate) fn effects(samples: &[Sample], part: &CuratePart, measured: &EvaluatePart) -> Result<Effects, DistillError> {
    let together = judge(samples, part, measured)?;
    let mut curated = Curated { answers: samples.len() as u64, ..Curated::default() };
    for reason in &together {
        match reason {
            Some(filter) => *filter.count(&mut curated) += 1,
            None => curated.kept += 1,
        }
    }
    let mut filters = Vec::new();
    for (filter, name, only) in each(part) {
        let alone = judge(samples, &only, measured)?;
        let takes = |reason: &Option<Filter>| *reason == Some(filter);
        let first = alone.iter().position(takes).map(|place| &samples[place]);
        filters.push(Effect {
            filter: name.to_owned(),
            in_turn: together.iter().filter(|reason| takes(reason)).count() as u64,
            alone: alone.iter().filter(|reason| takes(reason)).count() as u64,
            example: first.map(|sample| Example {
                prompt: beginning(sample.prompt.last_text()),
                answer: beginning(&sample.answer.text),
            }),
        });
    }
    Ok(Effects { curated, filters })
}

/// `part` without one of its filters.
pub(super) fn without(part: &CuratePart, filter: Filter) -> CuratePart {
    let part = part.clone();
    match filter {
        // Nothing turns it off.
        Filter::Empty => part,
        Filter::Truncated => CuratePart { keep_truncated: true, ..part },
        Filter::Lengths => CuratePart { least_words: None, most_words: None, ..part },
        Filter::Scripts => CuratePart { script: None, ..part },
        Filter::Languages => CuratePart { language: None, ..part },
        Filter::Refusals => CuratePart { drop_refusals: false, ..part },
        Filter::Patterns => CuratePart { matches: None, lacks: None, ..part },
        Filter::Malformed => CuratePart { json_schema: None, ..part },
        Filter::Difficulty => CuratePart { difficulty: None, ..part },
        // Without the right answers nobody knows what is hard.
        Filter::Wrong => CuratePart { expected: None, difficulty: None, ..part },
        Filter::Contaminated => CuratePart { contamination: None, ..part },
        Filter::Duplicates => CuratePart { keep_duplicates: true, ..part },
        Filter::Near => CuratePart { near_duplicates: None, ..part },
    }
}

/// The filters that are on, each with a part that has it alone.
pub(super) fn each(part: &CuratePart) -> Vec<(Filter, &'static str, CuratePart)> {
    let none = || CuratePart { keep_truncated: true, keep_duplicates: true, ..CuratePart::default() };
    let on = [
        (true, Filter::Empty, "(empty)", none()),
        (!part.keep_truncated, Filter::Truncated, "keep_truncated", CuratePart { keep_truncated: false, ..none() }),
        (
            part.least_words.is_some() || part.most_words.is_some(),
            Filter::Lengths,
            "least_words, most_words",
            CuratePart { least_words: part.least_words, most_words: part.most_words, ..none() },
        ),
        (part.script.is_some(), Filter::Scripts, "script", CuratePart { script: part.script, ..none() }),
        (part.language.is_some(), Filter::Languages, "language", CuratePart { language: part.language, ..none() }),
        (part.drop_refusals, Filter::Refusals, "drop_refusals", CuratePart { drop_refusals: true, ..none() }),
        (
            part.matches.is_some() || part.lacks.is_some(),
            Filter::Patterns,
            "matches, lacks",
            CuratePart { matches: part.matches.clone(), lacks: part.lacks.clone(), ..none() },
        ),
        (
            part.json_schema.is_some(),
            Filter::Malformed,
            "json_schema",
            CuratePart { json_schema: part.json_schema.clone(), ..none() },
        ),
        (
            part.difficulty.is_some(),
            Filter::Difficulty,
            "difficulty",
            CuratePart { difficulty: part.difficulty, expected: part.expected.clone(), ..none() },
        ),
        (part.expected.is_some(), Filter::Wrong, "expected", CuratePart { expected: part.expected.clone(), ..none() }),
        (
            part.contamination.is_some(),
            Filter::Contaminated,
            "contamination",
            CuratePart { contamination: part.contamination, ..none() },
        ),
        (!part.keep_duplicates, Filter::Duplicates, "keep_duplicates", CuratePart { keep_duplicates: false, ..none() }),
        (
            part.near_duplicates.is_some(),
            Filter::Near,
            "near_duplicates",
            CuratePart { near_duplicates: part.near_duplicates, ..none() },
        ),
    ];
    on.into_iter().filter(|(on, ..)| *on).map(|(_, filter, name, only)| (filter, name, only)).collect()
}

/// The first characters of a text, in one line.
fn beginning(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}
