use anbiq_domain::{Digest, Role, Seeded};
use anbiq_openai::{
    ChatChoice, ChatChunk, ChatChunkChoice, ChatLogprobs, ChatRequest, ChatResponse, ChatTokenLogprob, ChatTopLogprob,
    Delta, FinishReason, ReplyMessage, Usage, sse,
};
use axum::Json;
use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures::stream;
use serde_json::{Value, json};

use super::{Can, VendorConfig};

/// Words that depend on the request alone: one text for each answer. Of several the first is that of the same request for one,
/// the next that of such a request whose seed is one more, and so on: vLLM counts so. Prompts have a token for every four bytes
/// of their text, and eight more.
pub(super) fn words(request: &ChatRequest, said: Digest, config: VendorConfig) -> (Vec<String>, Usage) {
    let asked = request.n.unwrap_or(1).max(1);
    let count = if config.can.several { asked } else { 1 };
    let (mut texts, mut tokens) = (Vec::new(), 0);
    for index in 0..count {
        let said = if asked > 1 { Digest::of(&json_bytes(&alone(request, index))) } else { said };
        let mut random = Seeded::new(u64::from_le_bytes(said.as_bytes()[..8].try_into().unwrap_or_default()));
        let most = request.max_tokens.map_or(usize::MAX, |most| most as usize);
        let drawn = config.shortest + random.below(config.longest.saturating_sub(config.shortest) + 1);
        let length = drawn.min(most);
        let mut text = String::with_capacity(length * 6);
        for place in 0..length {
            text.push_str(if place == 0 { "word" } else { " word" });
            text.push(char::from(b'a' + random.below(26) as u8));
        }
        tokens += length as u64;
        texts.push(text);
    }
    let said = request.messages.iter().filter_map(|message| message.content.clone()?.into_text().ok());
    let bytes: usize = said.map(|text| text.len()).sum();
    (texts, Usage::new(bytes as u64 / 4 + 8, tokens))
}

/// The request for the answer `index` of several by itself.
fn alone(request: &ChatRequest, index: u32) -> ChatRequest {
    ChatRequest { n: None, seed: request.seed.map(|seed| seed.saturating_add(i64::from(index))), ..request.clone() }
}

/// Why a vendor that can do so much will not answer.
pub(super) fn refused(request: &ChatRequest, can: Can) -> Option<&'static str> {
    match (request.logprobs, can.logprobs) {
        (Some(true), Some(most)) if request.top_logprobs.unwrap_or(0) > most => Some("too many alternatives"),
        _ => None,
    }
}

/// An answer on its way out.
pub(super) struct Said<'a> {
    pub(super) request: &'a ChatRequest,
    /// Each of its answers.
    pub(super) texts: &'a [String],
    pub(super) usage: Usage,
    pub(super) can: Can,
}

impl Said<'_> {
    pub(super) fn whole(&self) -> Response {
        if self.request.stream == Some(true) {
            return self.streamed();
        }
        if !self.can.token_ids || self.request.other.get("return_token_ids") != Some(&Value::Bool(true)) {
            return Json(self.response()).into_response();
        }
        // Wire types always have a JSON form.
        let mut response = serde_json::to_value(self.response()).unwrap_or_default();
        response["choices"][0]["token_ids"] =
            self.texts.iter().take(1).flat_map(|text| text.split(' ')).map(str::len).collect();
        Json(response).into_response()
    }

    /// The connection ends in the middle of the answer.
    pub(super) fn half(&self) -> Response {
        let text = json_bytes(&self.response());
        let broken = std::io::Error::other("cut on command");
        let pieces = stream::iter([Ok(text.slice(..text.len() / 2)), Err(broken)]);
        ([(header::CONTENT_TYPE, "application/json")], Body::from_stream(pieces)).into_response()
    }

    pub(super) fn response(&self) -> ChatResponse {
        ChatResponse {
            id: "chatcmpl-vendor".to_owned(),
            object: "chat.completion".to_owned(),
            created: 0,
            model: self.request.model.clone(),
            choices: (0..).zip(self.texts).map(|(index, text)| self.choice(index, text)).collect(),
            usage: Some(self.usage),
            system_fingerprint: None,
        }
    }

    fn choice(&self, index: u32, text: &str) -> ChatChoice {
        let content = Some(text.to_owned());
        let message = ReplyMessage { role: Role::Assistant, content, refusal: None, tool_calls: None };
        ChatChoice { index, message, logprobs: self.logprobs(text), finish_reason: Some(self.finish(text)) }
    }

    fn finish(&self, text: &str) -> FinishReason {
        let cut_off = self.request.max_tokens.is_some_and(|most| most as usize == text.split(' ').count());
        if cut_off { FinishReason::Length } else { FinishReason::Stop }
    }

    fn logprobs(&self, words: &str) -> Option<ChatLogprobs> {
        self.can.logprobs.filter(|_| self.request.logprobs == Some(true))?;
        let top = |text: &str| ChatTopLogprob { token: text.to_owned(), logprob: -0.5, bytes: Some(text.into()) };
        let token = |(place, word): (usize, &str)| {
            let text = if place == 0 { word.to_owned() } else { format!(" {word}") };
            let others = (0..self.request.top_logprobs.unwrap_or(0))
                .map(|rank| if rank == 0 { top(&text) } else { top(&format!("{text}{rank}")) });
            let bytes = Some(text.clone().into_bytes());
            ChatTokenLogprob { top_logprobs: others.collect(), token: text.clone(), logprob: -0.5, bytes }
        };
        Some(ChatLogprobs { content: Some(words.split(' ').enumerate().map(token).collect()), refusal: None })
    }

    fn streamed(&self) -> Response {
        let chunk = |choices, usage| ChatChunk {
            id: "chatcmpl-vendor".to_owned(),
            object: "chat.completion.chunk".to_owned(),
            created: 0,
            model: self.request.model.clone(),
            choices,
            usage,
            system_fingerprint: None,
        };
        let text = self.texts.first().map_or("", String::as_str);
        let delta = Delta { content: Some(text.to_owned()), ..Delta::default() };
        let choice = ChatChunkChoice { index: 0, delta, logprobs: None, finish_reason: Some(self.finish(text)) };
        let mut body = event(&chunk(vec![choice], None));
        if self.can.usage_in_streams && self.request.stream_options.as_ref().is_some_and(|asked| asked.include_usage) {
            body.extend(event(&chunk(Vec::new(), Some(self.usage))));
        }
        body.extend_from_slice(&sse::encode(sse::DONE));
        ([(header::CONTENT_TYPE, "text/event-stream")], body).into_response()
    }
}

/// A prompt that is given back with log-probabilities, a word a token.
pub(super) fn echoed(body: &[u8]) -> Option<Value> {
    let asked: Value = serde_json::from_slice(body).ok().filter(|asked: &Value| asked["echo"] == true)?;
    let text = asked["prompt"].as_str()?;
    let words: Vec<&str> = text.split_inclusive(' ').collect();
    let logprobs: Vec<Value> =
        (0..words.len()).map(|place| if place == 0 { Value::Null } else { json!(-1.0) }).collect();
    Some(json!({
        "id": "cmpl-vendor", "object": "text_completion", "created": 0, "model": asked["model"],
        "choices": [{
            "index": 0, "text": format!("{text} word"), "finish_reason": "length",
            "logprobs": { "tokens": words, "token_logprobs": logprobs },
        }],
        "usage": { "prompt_tokens": words.len(), "completion_tokens": 1, "total_tokens": words.len() + 1 },
    }))
}

fn event(chunk: &ChatChunk) -> Vec<u8> {
    sse::encode(&String::from_utf8_lossy(&json_bytes(chunk))).into()
}

fn json_bytes(value: &impl serde::Serialize) -> Bytes {
    // Wire types always have a JSON form.
    Bytes::from(serde_json::to_vec(value).unwrap_or_default())
}
