//! Words in a row that a suspect's texts have in common with what was served, and with its twins.
//!
//! The test of twins for a suspect of whom there is only text: whatever it wrote, in answer to the journal's prompts or
//! not, has as much in common with a served answer as with its twin, unless it saw the served one. [`Overlap`] is asked as a
//! model is, so that all the rest, the coins, the operators, the report, is as with log-probabilities.

use std::collections::HashMap;

use anbiq_model::{Abilities, Fault, Generation, Model, ModelError, Request, ScoreRequest, Scored};

/// Fewest words in a row that count: shorter runs are the language's.
const SHORTEST: usize = 3;
/// Most words of a run that count from one place.
const LONGEST: usize = 32;

/// The texts of a suspect as a model: its score of an answer says how much of it stands in them, word for word.
#[derive(Debug)]
pub struct Overlap {
    name: String,
    words: HashMap<String, u32>,
    /// Texts by what they answer, where that is known.
    by_prompt: HashMap<String, Sorted>,
    all: Sorted,
}

/// All suffixes of texts, sorted, so that the longest beginning of a text that stands anywhere in them is found by halving.
#[derive(Debug, Default)]
struct Sorted {
    /// Numbers of words; 0 ends a text and equals nothing.
    words: Vec<u32>,
    places: Vec<usize>,
}

/// In place of a teacher that is not asked: says how many words an answer has, and finds all alike.
#[derive(Debug)]
pub struct Unasked(pub String);

impl Overlap {
    /// Of `texts`, each with the prompt that it answers.
    pub fn new<'text>(name: impl Into<String>, texts: impl Iterator<Item = (&'text str, &'text str)>) -> Self {
        let mut words: HashMap<String, u32> = HashMap::new();
        let mut by_prompt: HashMap<String, Vec<u32>> = HashMap::new();
        let mut all = Vec::new();
        for (prompt, text) in texts {
            let start = all.len();
            for word in split(text) {
                let next = words.len() as u32 + 1;
                all.push(*words.entry(word).or_insert(next));
            }
            all.push(0);
            by_prompt.entry(prompt.to_owned()).or_default().extend(&all[start..]);
        }
        let by_prompt = by_prompt.into_iter().map(|(prompt, words)| (prompt, Sorted::new(words))).collect();
        Self { name: name.into(), words, by_prompt, all: Sorted::new(all) }
    }

    /// Over all places of `answer`, the words of the longest run from there that stands in what the suspect answered to
    /// `prompt`, or anywhere in its texts where it was not asked that.
    fn common(&self, prompt: &str, answer: &str) -> usize {
        let own: Vec<u32> = split(answer).map(|word| self.words.get(&word).copied().unwrap_or(u32::MAX)).collect();
        let among = self.by_prompt.get(prompt).unwrap_or(&self.all);
        let runs = (0..own.len()).map(|place| among.longest(&own[place..own.len().min(place + LONGEST)]));
        runs.filter(|run| *run >= SHORTEST).sum()
    }
}

/// Words without case and without what stands around them.
fn split(text: &str) -> impl Iterator<Item = String> {
    let plain = |word: &str| word.trim_matches(|letter: char| !letter.is_alphanumeric()).to_lowercase();
    text.split_whitespace().map(plain).filter(|word| !word.is_empty())
}

impl Sorted {
    fn new(words: Vec<u32>) -> Self {
        let mut places: Vec<usize> = (0..words.len()).filter(|place| words[*place] != 0).collect();
        // Longer beginnings are never compared.
        let beginning = |place: usize| &words[place..words.len().min(place + LONGEST)];
        places.sort_unstable_by(|one, other| beginning(*one).cmp(beginning(*other)));
        Self { words, places }
    }

    /// Words at the beginning of `own` that stand here in a row.
    fn longest(&self, own: &[u32]) -> usize {
        let beginning = |place: usize| &self.words[place..self.words.len().min(place + LONGEST)];
        let at = self.places.partition_point(|place| beginning(*place) < own);
        let same = |place: usize| beginning(place).iter().zip(own).take_while(|(one, other)| one == other).count();
        // The one with the longest common beginning is a neighbour of where `own` would stand.
        let near = [at.checked_sub(1), Some(at)].into_iter().flatten().filter_map(|at| self.places.get(at));
        near.map(|place| same(*place)).max().unwrap_or(0)
    }
}

#[async_trait::async_trait]
impl Model for Overlap {
    fn name(&self) -> &str {
        &self.name
    }

    fn abilities(&self) -> Abilities {
        Abilities { scoring: true, ..Abilities::default() }
    }

    async fn generate(&self, _: Request) -> Result<Generation, ModelError> {
        Err(only_texts())
    }

    async fn score(&self, requests: &[ScoreRequest]) -> Result<Vec<Scored>, ModelError> {
        let scored = |request: &ScoreRequest| {
            // The prompt as whoever collected the answers wrote it: what was said last.
            let common = self.common(request.prompt.last_text(), &request.answer.text);
            Scored { logprobs: vec![common as f32], greedy: Vec::new() }
        };
        Ok(requests.iter().map(scored).collect())
    }
}

#[async_trait::async_trait]
impl Model for Unasked {
    fn name(&self) -> &str {
        &self.0
    }

    fn abilities(&self) -> Abilities {
        Abilities { scoring: true, ..Abilities::default() }
    }

    async fn generate(&self, _: Request) -> Result<Generation, ModelError> {
        Err(only_texts())
    }

    async fn score(&self, requests: &[ScoreRequest]) -> Result<Vec<Scored>, ModelError> {
        let words = |request: &ScoreRequest| vec![0.0; split(&request.answer.text).count()];
        Ok(requests.iter().map(|request| Scored { logprobs: words(request), greedy: Vec::new() }).collect())
    }
}

fn only_texts() -> ModelError {
    ModelError::new(Fault::Request, "only_texts", "there are only texts of this model: it answers nothing")
}

#[cfg(test)]
mod tests {
    use anbiq_domain::Seeded;

    use super::*;

    #[test]
    fn runs_are_those_that_a_search_by_hand_finds() {
        let mut random = Seeded::new(5);
        for _ in 0..200 {
            let mut word = |of: usize| format!("w{}", random.below(of));
            let texts: Vec<String> = (0..4).map(|_| (0..12).map(|_| word(4)).collect::<Vec<_>>().join(" ")).collect();
            let answer: Vec<String> = (0..15).map(|_| word(5)).collect();
            let overlap = Overlap::new("suspect", texts.iter().map(|text| ("asked", text.as_str())));
            let holds =
                |run: &[String]| texts.iter().any(|text| format!(" {text} ").contains(&format!(" {} ", run.join(" "))));
            let longest =
                |place: usize| (1..=answer.len() - place).take_while(|n| holds(&answer[place..place + n])).count();
            let by_hand: usize = (0..answer.len()).map(longest).filter(|run| *run >= SHORTEST).sum();
            assert_eq!(overlap.common("never asked", &answer.join(" ")), by_hand);
            assert_eq!(overlap.common("asked", &answer.join(", ").to_uppercase()), by_hand);
        }
    }

    #[test]
    fn answers_to_the_same_prompt_count_alone_where_there_are_some() {
        let texts = [("one", "a red fox ran home"), ("two", "the old mill stood still")];
        let overlap = Overlap::new("suspect", texts.into_iter());
        // From its first, second and third word: five, four and three words.
        assert_eq!(overlap.common("two", "The old mill stood still."), 12);
        assert_eq!(overlap.common("one", "The old mill stood still."), 0);
        assert_eq!(overlap.common("three", "The old mill stood still."), 12);
    }
}
