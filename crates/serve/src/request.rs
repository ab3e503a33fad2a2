//! From a request's body to what a model is asked.

use anbiq_domain::{Message, Prompt, RequestFacts, Route};
use anbiq_model::{Abilities, EmbedRequest, Request, Sampling};
use anbiq_openai::{
    ChatMessage, ChatRequest, CompletionPrompt, CompletionRequest, EmbeddingRequest, ResponseRequest, Stop,
    StreamOptions,
};
use serde_json::{Map, Value};

use crate::answer::Form;
use crate::rejection::Rejection;
use crate::{embedding, fields, responses};

/// A request that makes sense; whether it is allowed is another question.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) route: Route,
    /// How it is answered.
    pub(crate) form: Form,
    pub(crate) model: String,
    pub(crate) prompt: Prompt,
    pub(crate) n: u32,
    /// Absent where the largest the plan allows is meant.
    pub(crate) max_tokens: Option<u32>,
    pub(crate) sampling: Sampling,
    pub(crate) stop: Vec<String>,
    pub(crate) logprobs: Option<u8>,
    pub(crate) stream: bool,
    pub(crate) include_usage: bool,
    /// Fields that are handed on to a model that knows what to do with them.
    pub(crate) dialect: Map<String, Value>,
    /// What is asked for where that is vectors; `prompt` has its texts too.
    pub(crate) embedding: Option<EmbedRequest>,
}

/// Most messages of a conversation.
const MESSAGES: usize = 4096;

/// Most stop strings, and the longest, in bytes.
const STOPS: (usize, usize) = (4, 1024);

impl Asked {
    /// Reads the body of a request to `route`.
    pub(crate) fn parse(route: Route, body: &[u8]) -> Result<Self, Rejection> {
        match route {
            Route::Chat => Self::chat(ChatRequest::parse(body)?),
            Route::Completions => Self::completion(CompletionRequest::parse(body)?),
            Route::Embeddings => embedding::asked(EmbeddingRequest::parse(body)?),
            Route::Responses => responses::asked(ResponseRequest::parse(body)?),
        }
    }

    /// What a model with `abilities` is asked for, with `max_tokens` and the number of draws decided.
    pub(crate) fn to_model(&self, abilities: Abilities, max_tokens: u32, draws: u32) -> Request {
        Request {
            prompt: self.prompt.clone(),
            n: draws,
            max_tokens,
            sampling: self.sampling,
            stop: self.stop.clone(),
            logprobs: self.logprobs,
            whole: !self.stream,
            dialect: fields::known_to(abilities, &self.dialect),
        }
    }

    /// What the journal keeps of it, whatever the policy.
    pub(crate) fn facts(&self, max_tokens: u32) -> RequestFacts {
        RequestFacts {
            route: self.route,
            stream: self.stream,
            temperature: self.sampling.temperature,
            top_p: self.sampling.top_p,
            max_tokens,
            n: self.n,
            logprobs: self.logprobs,
            messages: match &self.prompt {
                Prompt::Chat(messages) => u32::try_from(messages.len()).unwrap_or(u32::MAX),
                Prompt::Text(_) => self.embedding.as_ref().map_or(1, |asked| asked.inputs.len() as u32),
            },
            tools: self.dialect.get("tools").and_then(Value::as_array).map_or(0, |tools| tools.len() as u64),
            structured: self.dialect.contains_key("response_format"),
            named: None,
        }
    }

    /// Can the model do that?
    pub(crate) fn check(&self, abilities: Abilities) -> Result<(), Rejection> {
        if self.n > 1 && !abilities.several {
            return Err(Rejection::unsupported("n", "this model gives one answer at a time"));
        }
        if self.embedding.is_some() && !abilities.embeddings {
            return Err(Rejection::unsupported("model", "this model gives no embeddings"));
        }
        fields::check(abilities, &self.dialect)?;
        if let Prompt::Chat(messages) = &self.prompt {
            check_messages(abilities, messages)?;
        }
        match (self.logprobs, abilities.logprobs) {
            (None, _) => Ok(()),
            (Some(_), None) => Err(Rejection::unsupported("logprobs", "this model gives no log-probabilities")),
            (Some(asked), Some(most)) if asked > most => Err(Rejection::value(
                self.logprobs_field(),
                format!("this model gives at most {most} alternatives a token, not {asked}"),
            )),
            _ => Ok(()),
        }
    }

    /// What refuses it, in the words of its endpoint.
    pub(crate) fn reword(&self, rejection: Rejection) -> Rejection {
        if self.route == Route::Responses { responses::reworded(rejection) } else { rejection }
    }

    /// The field that says how many alternatives a token are asked for.
    pub(crate) const fn logprobs_field(&self) -> &'static str {
        match self.route {
            Route::Chat | Route::Responses => "top_logprobs",
            Route::Completions | Route::Embeddings => "logprobs",
        }
    }

    fn chat(request: ChatRequest) -> Result<Self, Rejection> {
        let dialect = fields::handed_on(Route::Chat, request.other)?;
        if request.messages.is_empty() {
            return Err(Rejection::value("messages", "`messages` is empty: a conversation has at least one message"));
        }
        check_length(request.messages.len())?;
        let messages = request.messages.into_iter().enumerate().map(|(index, one)| message(index, one));
        let logprobs = match (request.logprobs.unwrap_or(false), request.top_logprobs) {
            (true, alternatives) => Some(alternatives_of("top_logprobs", alternatives.unwrap_or(0), 20)?),
            (false, None) => None,
            (false, Some(_)) => {
                return Err(Rejection::value("top_logprobs", "`top_logprobs` needs `logprobs` to be true"));
            }
        };
        let max_tokens = match (request.max_completion_tokens, request.max_tokens) {
            (Some(newer), Some(older)) if newer != older => {
                let message = "`max_tokens` and `max_completion_tokens` disagree: give one of them";
                return Err(Rejection::value("max_tokens", message));
            }
            (newer, older) => newer.or(older),
        };
        let (stream, include_usage) = streaming(request.stream, request.stream_options)?;
        Ok(Self {
            route: Route::Chat,
            form: Form::Chat,
            model: request.model,
            prompt: Prompt::Chat(messages.collect::<Result<_, _>>()?),
            n: at_least_one("n", request.n)?.unwrap_or(1),
            max_tokens: at_least_one("max_tokens", max_tokens)?,
            sampling: sampling(request.temperature, request.top_p, request.seed)?,
            stop: stop(request.stop)?,
            logprobs,
            stream,
            include_usage,
            dialect,
            embedding: None,
        })
    }

    fn completion(request: CompletionRequest) -> Result<Self, Rejection> {
        if request.echo == Some(true) {
            return Err(Rejection::unsupported("echo", "`echo` is not supported: a prompt is not given back"));
        }
        let n = at_least_one("n", request.n)?.unwrap_or(1);
        // As many as are given back: nothing is chosen among them.
        if request.other.get("best_of").is_some_and(|best_of| *best_of != n) {
            return Err(Rejection::unsupported("best_of", "`best_of` is not supported other than equal to `n`"));
        }
        let dialect = fields::handed_on(Route::Completions, request.other)?;
        let (stream, include_usage) = streaming(request.stream, request.stream_options)?;
        Ok(Self {
            route: Route::Completions,
            form: Form::Completion,
            model: request.model,
            prompt: Prompt::Text(only_text(request.prompt)?),
            n,
            // OpenAI's own default for this endpoint.
            max_tokens: Some(at_least_one("max_tokens", request.max_tokens)?.unwrap_or(16)),
            sampling: sampling(request.temperature, request.top_p, request.seed)?,
            stop: stop(request.stop)?,
            logprobs: request.logprobs.map(|asked| alternatives_of("logprobs", asked, 20)).transpose()?,
            stream,
            include_usage,
            dialect,
            embedding: None,
        })
    }
}

/// Is a conversation of so many messages short enough?
pub(crate) fn check_length(messages: usize) -> Result<(), Rejection> {
    if messages > MESSAGES {
        return Err(Rejection::value("messages", format!("`messages` has more than {MESSAGES} messages")));
    }
    Ok(())
}

/// Does every conversation's message hold only what a model with `abilities` can read?
fn check_messages(abilities: Abilities, messages: &[Message]) -> Result<(), Rejection> {
    for (index, message) in messages.iter().enumerate() {
        if !abilities.tools && !message.tool_calls.is_empty() {
            let field = format!("messages.[{index}].tool_calls");
            return Err(Rejection::unsupported(&field, "tool calls are not supported by this model"));
        }
        if let Some(kind) = message.other_kinds().next().filter(|_| !abilities.dialect) {
            let field = format!("messages.[{index}].content");
            let why = format!("content of type `{kind}` is not supported by this model: text only");
            return Err(Rejection::unsupported(&field, why));
        }
    }
    Ok(())
}

fn message(index: usize, message: ChatMessage) -> Result<Message, Rejection> {
    let message = message.into_message();
    let whole = |part: &Value| match part["type"].as_str() {
        Some("text") => part["text"].is_string(),
        kind => kind.is_some_and(|kind| !kind.is_empty()),
    };
    if message.parts.iter().all(whole) {
        return Ok(message);
    }
    let why = "a part of the content has a `type`, and a `text` where that is its type";
    Err(Rejection::value(&format!("messages.[{index}].content"), why))
}

fn only_text(prompt: CompletionPrompt) -> Result<String, Rejection> {
    let wrong = |message: &str| Err(Rejection::unsupported("prompt", message));
    match prompt {
        CompletionPrompt::Text(text) => Ok(text),
        CompletionPrompt::Texts(texts) => match <[String; 1]>::try_from(texts) {
            Ok([text]) => Ok(text),
            Err(_) => wrong("`prompt` is a string or a list of one string; send several prompts as several requests"),
        },
        CompletionPrompt::Other(_) => wrong("`prompt` as token numbers is not supported: send text"),
    }
}

pub(crate) fn sampling(temperature: Option<f32>, top_p: Option<f32>, seed: Option<i64>) -> Result<Sampling, Rejection> {
    let temperature = temperature.unwrap_or(1.0);
    if !(0.0..=2.0).contains(&temperature) {
        return Err(Rejection::value("temperature", "`temperature` is between 0 and 2"));
    }
    let top_p = top_p.unwrap_or(1.0);
    if !(0.0..=1.0).contains(&top_p) {
        return Err(Rejection::value("top_p", "`top_p` is between 0 and 1"));
    }
    Ok(Sampling { temperature, top_p, seed: seed.map(i64::cast_unsigned) })
}

fn stop(stop: Option<Stop>) -> Result<Vec<String>, Rejection> {
    let texts = stop.map(Stop::into_list).unwrap_or_default();
    if texts.len() > STOPS.0 || texts.iter().any(|text| text.is_empty() || text.len() > STOPS.1) {
        let message = format!("`stop` is at most {} strings of 1 to {} bytes", STOPS.0, STOPS.1);
        return Err(Rejection::value("stop", message));
    }
    Ok(texts)
}

fn streaming(stream: Option<bool>, options: Option<StreamOptions>) -> Result<(bool, bool), Rejection> {
    let stream = stream.unwrap_or(false);
    if options.is_some() && !stream {
        return Err(Rejection::value("stream_options", "`stream_options` needs `stream` to be true"));
    }
    Ok((stream, options.unwrap_or_default().include_usage))
}

pub(crate) fn at_least_one(name: &str, value: Option<u32>) -> Result<Option<u32>, Rejection> {
    if value == Some(0) { Err(Rejection::value(name, format!("`{name}` is at least 1"))) } else { Ok(value) }
}

pub(crate) fn alternatives_of(name: &str, asked: u32, most: u8) -> Result<u8, Rejection> {
    let fits = u8::try_from(asked).ok().filter(|asked| *asked <= most);
    fits.ok_or_else(|| Rejection::value(name, format!("`{name}` is between 0 and {most}")))
}
