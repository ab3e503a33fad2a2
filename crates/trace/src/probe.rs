//! Does a suspect of whom nothing is known but what it says go on as the served answer does?
//!
//! The test of twins for a model behind a server that gives no log-probabilities: at some places of either draw the model is given the draw
//! up to there and says, at temperature 0, what comes next. [`Probe`] is asked as a model is, so that all the rest, the coins, the operators,
//! the report, is as with log-probabilities. A server that does not go on from a given beginning agrees with neither draw, which shows nothing.

use std::sync::Arc;

use anbiq_domain::{Message, Prompt, Role};
use anbiq_model::template::ChatTemplate;
use anbiq_model::{Abilities, Fault, Generation, Model, ModelError, Request, Sampling, ScoreRequest, Scored, collect};
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};

/// Characters of what comes next that are compared.
const COMPARED: usize = 12;
/// Tokens that are asked for: enough for so many characters of most writings.
const TOKENS: u32 = 12;
/// Places that are asked about at the same time.
const AT_ONCE: usize = 16;

/// A model whose score of an answer says at how many places it would go on as the answer does.
#[derive(Debug)]
pub struct Probe {
    model: Arc<dyn Model>,
    going_on: GoingOn,
}

/// How a model is asked to go on.
#[derive(Debug)]
pub enum GoingOn {
    /// It says of a given answer which of its tokens it finds likeliest: nothing is generated.
    Greedy,
    /// It is given a text that this template makes of the conversation, and the answer up to a place, of which there are so many at most.
    Text(Box<ChatTemplate>, usize),
    /// It is given the conversation with the answer up to a place as its last message, unfinished (`continue_final_message`, as vLLM and
    /// SGLang have it; llama.cpp's server goes on by itself). So many places at most.
    Conversation(usize),
}

impl Probe {
    /// Of `model`.
    pub fn new(model: Arc<dyn Model>, going_on: GoingOn) -> Self {
        Self { model, going_on }
    }

    /// The share of what is compared in which the model goes on as `answer` does from `place` on, a byte of it.
    async fn agrees(&self, prompt: &Prompt, answer: &str, place: usize) -> Result<f32, ModelError> {
        let (given, hidden) = answer.split_at(place);
        let request = Request {
            sampling: Sampling { temperature: 0.0, ..Sampling::default() },
            whole: true,
            ..self.request(prompt, given)?
        };
        let generation = self.model.generate(request).await?;
        let (said, _) = collect(generation, 1).await?;
        // Servers differ in whether what they add begins with the space that stands between.
        let said = said.first().map_or("", |said| said.text.trim_start());
        Ok(share(said, hidden.trim_start()))
    }

    fn request(&self, prompt: &Prompt, given: &str) -> Result<Request, ModelError> {
        let messages = match (prompt, &self.going_on) {
            (Prompt::Text(text), _) => return Ok(Request::new(Prompt::Text([text, given].concat()), TOKENS)),
            (Prompt::Chat(messages), GoingOn::Text(template, _)) => {
                let before = template.render(messages, true);
                let before = before.map_err(|why| ModelError::new(Fault::Request, why.code(), why.to_string()))?;
                return Ok(Request::new(Prompt::Text(before + given), TOKENS));
            }
            (Prompt::Chat(messages), _) => messages,
        };
        if given.is_empty() {
            return Ok(Request::new(Prompt::Chat(messages.clone()), TOKENS));
        }
        let mut messages = messages.clone();
        messages.push(Message::new(Role::Assistant, given));
        let mut request = Request::new(Prompt::Chat(messages), TOKENS);
        let told: [(&str, Value); 2] =
            [("add_generation_prompt", json!(false)), ("continue_final_message", json!(true))];
        request.dialect.extend(told.map(|(name, value)| (name.to_owned(), value)));
        Ok(request)
    }
}

/// Of the first characters of `hidden`, the share with which `said` begins.
fn share(said: &str, hidden: &str) -> f32 {
    let wanted = hidden.chars().count().min(COMPARED);
    let same = said.chars().zip(hidden.chars()).take(wanted).take_while(|(one, other)| one == other).count();
    same as f32 / wanted.max(1) as f32
}

/// At most `most` places of `text` at which a word ends, or every so many characters where words are not told apart; evenly over it, the
/// beginning among them.
fn places(text: &str, most: usize) -> Vec<usize> {
    let characters: Vec<(usize, char)> = text.char_indices().collect();
    let ends = characters.windows(2).filter(|pair| !pair[0].1.is_whitespace() && pair[1].1.is_whitespace());
    let mut all: Vec<usize> = std::iter::once(0).chain(ends.map(|pair| pair[1].0)).collect();
    if all.len() * COMPARED < characters.len() {
        all = characters.iter().step_by(COMPARED).map(|(place, _)| *place).collect();
    }
    // The last word may end the text: what follows it is nothing that could be said.
    all.retain(|place| !text[*place..].trim().is_empty());
    let (count, most) = (all.len(), most.max(1));
    if count <= most { all } else { (0..most).map(|number| all[number * count / most]).collect() }
}

#[async_trait::async_trait]
impl Model for Probe {
    fn name(&self) -> &str {
        self.model.name()
    }

    fn abilities(&self) -> Abilities {
        Abilities { scoring: true, ..self.model.abilities() }
    }

    async fn generate(&self, request: Request) -> Result<Generation, ModelError> {
        self.model.generate(request).await
    }

    async fn score(&self, requests: &[ScoreRequest]) -> Result<Vec<Scored>, ModelError> {
        let most = match self.going_on {
            GoingOn::Greedy => {
                let hits = |scored: Scored| scored.greedy.into_iter().map(|hit| f32::from(u8::from(hit))).collect();
                let scored = self.model.score(requests).await?.into_iter();
                return Ok(scored.map(|scored| Scored { logprobs: hits(scored), greedy: Vec::new() }).collect());
            }
            GoingOn::Text(_, most) | GoingOn::Conversation(most) => most,
        };
        let asked = requests.iter().enumerate().flat_map(|(number, request)| {
            places(&request.answer.text, most).into_iter().map(move |place| (number, request, place))
        });
        let agrees = asked.map(|(number, request, place)| {
            let agrees = self.agrees(&request.prompt, &request.answer.text, place);
            async move { Ok::<_, ModelError>((number, agrees.await?)) }.boxed()
        });
        let found: Vec<(usize, f32)> = stream::iter(agrees.collect::<Vec<_>>()).buffered(AT_ONCE).try_collect().await?;
        let mut scores = vec![Scored { logprobs: Vec::new(), greedy: Vec::new() }; requests.len()];
        for (number, share) in found {
            scores[number].logprobs.push(share);
        }
        Ok(scores)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_where_words_end_and_spread_over_the_text() {
        let at =
            |text: &str, most| places(text, most).into_iter().map(|place| text[place..].to_owned()).collect::<Vec<_>>();
        assert_eq!(at("one two three ", 9), ["one two three ", " two three ", " three "]);
        assert_eq!(at("one two three four", 2), ["one two three four", " three four"]);
        let long: String = "的".repeat(30);
        assert_eq!(places(&long, 9), [0, 36, 72]);
        assert!(places("", 3).is_empty() && places("  ", 3).is_empty());
    }

    #[test]
    fn agreement_is_how_far_two_go_together() {
        assert_eq!(share("three of them", "three of us"), 9.0 / 11.0);
        assert_eq!(share("abcdefghijklmnop", "abcdefghijklxxxx"), 1.0);
        assert_eq!(share("", "abc"), 0.0);
        assert_eq!(share("abc", ""), 0.0);
    }
}
