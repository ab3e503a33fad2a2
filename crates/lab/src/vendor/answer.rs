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

/// Words that depend on the request alone. Prompts have a token for every four bytes of their text, and eight more.
pub(super) fn words(request: &ChatRequest, said: Digest, config: VendorConfig) -> (String, Usage) {
    let mut random = Seeded::new(u64::from_le_bytes(said.as_bytes()[..8].try_into().unwrap_or_default()));
    let most = request.max_tokens.map_or(usize::MAX, |most| most as usize);
    let drawn = config.shortest + random.below(config.longest.saturating_sub(config.shortest) + 1);
    let length = drawn.min(most);
    let mut text = String::with_capacity(length * 6);
    for place in 0..length {
        text.push_str(if place == 0 { "word" } else { " word" });
        text.push(char::from(b'a' + random.below(26) as u8));
    }
    let texts = request.messages.iter().filter_map(|message| message.content.clone()?.into_text().ok());
    let bytes: usize = texts.map(|text| text.len()).sum();
    let count = if config.can.several { u64::from(request.n.unwrap_or(1)) } else { 1 };
    (text, Usage::new(bytes as u64 / 4 + 8, length as u64 * count))
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
    pub(super) text: &'a str,
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
        response["choices"][0]["token_ids"] = self.text.split(' ').map(str::len).collect();
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
        let count = if self.can.several { self.request.n.unwrap_or(1) } else { 1 };
        ChatResponse {
            id: "chatcmpl-vendor".to_owned(),
            object: "chat.completion".to_owned(),
            created: 0,
            model: self.request.model.clone(),
            choices: (0..count).map(|index| self.choice(index)).collect(),
            usage: Some(self.usage),
            system_fingerprint: None,
        }
    }

    fn choice(&self, index: u32) -> ChatChoice {
        let content = Some(self.text.to_owned());
        let message = ReplyMessage { role: Role::Assistant, content, refusal: None, tool_calls: None };
        ChatChoice { index, message, logprobs: self.logprobs(), finish_reason: Some(self.finish()) }
    }

    fn finish(&self) -> FinishReason {
        let cut_off = self.request.max_tokens.is_some_and(|most| u64::from(most) == self.usage.completion_tokens);
        if cut_off { FinishReason::Length } else { FinishReason::Stop }
    }

    fn logprobs(&self) -> Option<ChatLogprobs> {
        self.can.logprobs.filter(|_| self.request.logprobs == Some(true))?;
        let top = |text: &str| ChatTopLogprob { token: text.to_owned(), logprob: -0.5, bytes: Some(text.into()) };
        let token = |(place, word): (usize, &str)| {
            let text = if place == 0 { word.to_owned() } else { format!(" {word}") };
            let others = (0..self.request.top_logprobs.unwrap_or(0))
                .map(|rank| if rank == 0 { top(&text) } else { top(&format!("{text}{rank}")) });
            let bytes = Some(text.clone().into_bytes());
            ChatTokenLogprob { top_logprobs: others.collect(), token: text.clone(), logprob: -0.5, bytes }
        };
        Some(ChatLogprobs { content: Some(self.text.split(' ').enumerate().map(token).collect()), refusal: None })
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
        let delta = Delta { content: Some(self.text.to_owned()), ..Delta::default() };
        let choice = ChatChunkChoice { index: 0, delta, logprobs: None, finish_reason: Some(self.finish()) };
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
