//! Whom does a model take itself for?
//!
//! A student that learnt from another model's answers may give that model's name as its own. The bank is a fixed set of
//! questions in several languages that name no vendor, the same for every model. A model's score is how often its answers
//! name what is looked for; what is asked is whether a suspect does so more often than controls. Naming is inherited from the
//! web as well, so this shows exposure at most, and is evidence that rests on controls: *moderate* at most.

mod report;

use std::collections::{BTreeMap, HashMap};

pub use report::{IdentityFinding, IdentityReport, compare, render_identity};

/// The questions: cluster, language and prompt, with tabulators in between.
const BANK: &str = include_str!("bank.tsv");

/// One question. Those of one cluster ask the same in different languages, so they are not independent of each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    /// What it asks.
    pub cluster: &'static str,
    /// In which language (BCP 47).
    pub language: &'static str,
    /// Its words.
    pub prompt: &'static str,
}

/// All questions, in their order.
pub fn bank() -> Vec<Question> {
    let question = |line: &'static str| {
        let mut fields = line.splitn(3, '\t');
        Some(Question { cluster: fields.next()?, language: fields.next()?, prompt: fields.next()? })
    };
    BANK.lines().filter(|line| !line.starts_with('#')).filter_map(question).collect()
}

/// What models answered to the bank, as which of the answers name what is looked for.
#[derive(Debug)]
pub struct Answered {
    names: Vec<String>,
    questions: HashMap<&'static str, Question>,
    models: BTreeMap<String, BTreeMap<&'static str, Named>>,
}

/// One answer.
#[derive(Debug, Clone, Copy)]
struct Named {
    question: Question,
    named: bool,
}

impl Answered {
    /// Nothing so far; `names` are the words that are looked for, such as a vendor's and its models' names.
    pub fn new(names: &[String]) -> Self {
        Self {
            names: names.iter().map(|name| name.trim().to_lowercase()).filter(|name| !name.is_empty()).collect(),
            questions: bank().into_iter().map(|question| (question.prompt, question)).collect(),
            models: BTreeMap::new(),
        }
    }

    /// Adds an answer; true if it is one to a question of the bank. Of several answers to one the first counts.
    pub fn add(&mut self, model: &str, prompt: &str, answer: &str) -> bool {
        let Some(&question) = self.questions.get(prompt.trim()) else { return false };
        let answer = answer.to_lowercase();
        let named = self.names.iter().any(|name| holds(&answer, name));
        let answers = self.models.entry(model.to_owned()).or_default();
        answers.entry(question.prompt).or_insert(Named { question, named });
        true
    }

    /// The share of a model's answers that name what is looked for, by cluster.
    fn clusters(&self, model: &str) -> Vec<f64> {
        self.shares(model, |question| question.cluster).into_values().collect()
    }

    /// The same by `part`.
    fn shares(&self, model: &str, part: impl Fn(&Question) -> &'static str) -> BTreeMap<&'static str, f64> {
        let mut counts: BTreeMap<&'static str, (f64, f64)> = BTreeMap::new();
        for answer in self.models.get(model).into_iter().flat_map(BTreeMap::values) {
            let (named, all) = counts.entry(part(&answer.question)).or_default();
            *named += f64::from(u8::from(answer.named));
            *all += 1.0;
        }
        counts.into_iter().map(|(part, (named, all))| (part, named / all)).collect()
    }

    fn count(&self, model: &str) -> usize {
        self.models.get(model).map_or(0, BTreeMap::len)
    }
}

/// Does `text` hold `name`, with no other Latin letter or digit beside it? Scripts without spaces are written around it.
fn holds(text: &str, name: &str) -> bool {
    let beside = |letter: Option<char>| letter.is_some_and(|letter| letter.is_ascii_alphanumeric());
    text.match_indices(name).any(|(start, found)| {
        !beside(text[..start].chars().next_back()) && !beside(text[start + found.len()..].chars().next())
    })
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashSet};

    use super::*;

    #[test]
    fn the_bank_is_large_in_many_languages_and_names_no_vendor() {
        let bank = bank();
        assert!(bank.len() >= 200, "{}", bank.len());
        assert_eq!(bank.iter().map(|question| question.prompt).collect::<HashSet<_>>().len(), bank.len());
        let languages: BTreeSet<&str> = bank.iter().map(|question| question.language).collect();
        assert!(languages.len() >= 8 && languages.contains("ar"), "{languages:?}");
        for question in &bank {
            let same = bank.iter().filter(|other| other.cluster == question.cluster).count();
            assert_eq!(same, languages.len(), "{}", question.cluster);
            let prompt = question.prompt.to_lowercase();
            let vendors = [
                "openai",
                "gpt",
                "anthropic",
                "claude",
                "google",
                "gemini",
                "meta",
                "llama",
                "mistral",
                "qwen",
                "deepseek",
            ];
            assert!(vendors.iter().all(|vendor| !holds(&prompt, vendor)), "{prompt}");
        }
        let arabic = bank.iter().filter(|question| question.language == "ar");
        assert!(arabic.clone().all(|q| q.prompt.chars().any(|letter| ('\u{600}'..'\u{700}').contains(&letter))));
    }

    #[test]
    fn names_are_found_as_words_of_their_own() {
        for (text, name, expected) in [
            ("i am gpt-4, made by openai.", "gpt", true),
            ("我是由openai开发的", "openai", true),
            ("an egpt is no such thing", "gpt", false),
            ("openair festivals", "openai", false),
            ("أنا نموذج من openai", "openai", true),
        ] {
            assert_eq!(holds(text, name), expected, "{text}");
        }
    }
}
