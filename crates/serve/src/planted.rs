//! Answers that the provider wrote beforehand for chosen customers: canaries.
//!
//! Nothing is made up here. A draw that the journal committed to says which prompts are answered in which words, and to whom;
//! every other request goes to its model. Such an answer is served word for word, so whether it leaves depends on what
//! was asked alone, and never on which of its versions was drawn: that is what a later test of ranks rests on.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use anbiq_domain::{Digest, Finish, OperatorId, Prompt, Usage};
use anbiq_ledger::Session;
use anbiq_model::{Abilities, Event, Fault, Generation, Model, ModelError, Request, ScoreRequest, Scored};

use crate::ServeError;
use crate::request::Asked;

/// A draw of canaries and what is served of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlantedDraw {
    /// The digest that the journal committed to.
    pub draw: Digest,
    /// The answers.
    pub answers: Vec<PlantedAnswer>,
}

/// One answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlantedAnswer {
    /// Whom it is for: an account, or an operator that accounts are declared to be of.
    pub operator: String,
    /// What is asked.
    pub prompt: String,
    /// What is answered.
    pub answer: String,
}

/// All draws that a gateway serves.
#[derive(Debug, Default)]
pub(crate) struct Planted {
    /// Answers by whom they are for and what is asked.
    answers: HashMap<(String, String), String>,
    /// Draws that no entry of the journal was seen to commit to so far.
    unseen: Mutex<BTreeSet<Digest>>,
}

impl Planted {
    pub(crate) fn new(draws: Vec<PlantedDraw>) -> Self {
        let unseen = Mutex::new(draws.iter().map(|draw| draw.draw).collect());
        let answers = draws.into_iter().flat_map(|draw| draw.answers);
        let answers = answers.map(|planted| ((planted.operator, planted.prompt), planted.answer)).collect();
        Self { answers, unseen }
    }

    /// The journal commits to `draw`.
    pub(crate) fn seen(&self, draw: Digest) {
        self.unseen.lock().unwrap_or_else(PoisonError::into_inner).remove(&draw);
    }

    /// Does the journal commit to all of them?
    pub(crate) fn check(&self) -> Result<(), ServeError> {
        match self.unseen.lock().unwrap_or_else(PoisonError::into_inner).first() {
            Some(draw) => Err(ServeError::Canaries(*draw)),
            None => Ok(()),
        }
    }

    /// In place of `model`, what answers this request in words that were fixed beforehand; `None` for almost all.
    ///
    /// A request that wants something of its answer that such words do not have (several of them, log-probabilities, an end
    /// at some string, a form) goes to its model.
    pub(crate) fn answering(
        &self,
        session: &Session,
        asked: &Asked,
        model: &Arc<dyn Model>,
        max_tokens: u32,
    ) -> Option<Arc<dyn Model>> {
        let plain = asked.n == 1
            && asked.embedding.is_none()
            && asked.logprobs.is_none()
            && asked.stop.is_empty()
            && asked.dialect.is_empty();
        if self.answers.is_empty() || !plain {
            return None;
        }
        let prompt = asked.prompt.last_text().trim();
        let account = Some(session.account.as_str());
        let names = account.into_iter().chain(session.operator.as_ref().map(OperatorId::as_str));
        let text = names.filter_map(|name| self.answers.get(&(name.to_owned(), prompt.to_owned()))).next()?;
        let written = Written { name: model.name().to_owned(), abilities: model.abilities(), text: text.clone() };
        (written.tokens() <= u64::from(max_tokens)).then(|| Arc::new(written) as Arc<dyn Model>)
    }
}

/// Says one thing.
#[derive(Debug)]
struct Written {
    name: String,
    abilities: Abilities,
    text: String,
}

/// No tokenizer is asked: a token for four letters, as English has it.
fn tokens(text: &str) -> u64 {
    (text.chars().count() as u64).div_ceil(4)
}

impl Written {
    fn tokens(&self) -> u64 {
        tokens(&self.text)
    }
}

#[async_trait::async_trait]
impl Model for Written {
    fn name(&self) -> &str {
        &self.name
    }

    fn abilities(&self) -> Abilities {
        self.abilities
    }

    async fn generate(&self, request: Request) -> Result<Generation, ModelError> {
        let read = match &request.prompt {
            Prompt::Chat(messages) => messages.iter().map(|message| tokens(&message.content)).sum(),
            Prompt::Text(text) => tokens(text),
        };
        let usage = Usage { prompt_tokens: read, completion_tokens: self.tokens(), ..Usage::default() };
        Ok(Generation::ready(vec![
            Ok(Event::Text { index: 0, text: self.text.clone(), logprobs: Vec::new() }),
            Ok(Event::Finished { index: 0, finish: Finish::Stop, tokens: self.tokens() }),
            Ok(Event::Usage(usage)),
        ]))
    }

    async fn score(&self, _: &[ScoreRequest]) -> Result<Vec<Scored>, ModelError> {
        Err(ModelError::new(Fault::Request, "only_texts", "these words were written beforehand and score nothing"))
    }
}
