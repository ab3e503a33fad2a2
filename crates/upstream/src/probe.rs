//! What a server can do, found by asking it.
//!
//! Nothing is assumed from a server's name or version: each ability is asked for once, with a request of a few tokens,
//! and is there if the answer has it. A server that refuses or ignores what it was asked for has not got it.

use std::time::Duration;

use futures::StreamExt;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::client::{Client, ClientError, ErrorKind};
use crate::head::Told;

/// Most tokens that all requests of a probe take together: of prompts, and of answers.
pub const MOST_TOKENS: (u64, u64) = (REQUESTS * PROMPT_TOKENS, REQUESTS * 2 * ANSWER_TOKENS);

/// Requests of one probe, at most, those among them that broke off.
const REQUESTS: u64 = 24;

/// Requests that may break off, after which nobody knows whether they were charged.
const BROKEN: u32 = 8;

/// No prompt here is longer, in any tokenizer, with any template that is not absurd.
const PROMPT_TOKENS: u64 = 256;

/// Longest answer.
const ANSWER_TOKENS: u64 = 8;

/// Tries of a request that the server has no room for.
const TRIES: u32 = 6;

/// Longest wait between them.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// What a server can do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// Most alternatives a token of its own whose log-probabilities it gives, up to as many as were looked for: 0 for that of the token alone, `None`
    /// for none at all.
    pub logprobs: Option<u8>,
    /// It gives the bytes of those tokens.
    pub token_bytes: bool,
    /// How it gives log-probabilities of text that it did not write itself.
    pub scoring: Option<Scores>,
    /// It gives the numbers of tokens (`return_token_ids`).
    pub token_ids: bool,
    /// It gives several answers to one request (`n`).
    pub several: bool,
    /// The same seed gave the same answer and another seed another one; `None` where all three were the same, which says
    /// nothing.
    pub seeds: Option<bool>,
    /// It counts tokens.
    pub usage: bool,
    /// It counts tokens at the end of a stream (`stream_options.include_usage`).
    pub usage_in_streams: bool,
    /// A request that is sent again under its `Idempotency-Key` is given the first answer, and the head says so.
    pub replays: bool,
    /// Requests that were answered.
    pub requests: u64,
    /// Tokens of the prompts, as far as they were counted.
    pub prompt_tokens: u64,
    /// Tokens of the answers, as far as they were counted.
    pub completion_tokens: u64,
}

/// How given text is scored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scores {
    /// `/completions` repeats its prompt with log-probabilities (`echo`).
    Echo,
    /// Answers hold log-probabilities of their prompt (`prompt_logprobs`).
    PromptLogprobs,
}

/// Asks the server of `client` what it can do with `model`. `name` makes the probe's `Idempotency-Key` its own; log-probabilities of `most` alternatives a token are looked for, and
/// of fewer where it does not give so many.
///
/// # Errors
/// The server is not reached, does not know the key or the model, or has no room for a long time.
pub async fn probe(
    client: &Client,
    model: &str,
    headers: &[(String, String)],
    name: &str,
    most: u8,
) -> Result<Probe, ClientError> {
    let mut asking = Asking { client, model, headers, found: Probe::default(), broken: 0 };
    asking.logprobs(most).await?;
    asking.seeds().await?;
    asking.several().await?;
    asking.streams().await?;
    asking.scoring().await?;
    asking.token_ids().await?;
    asking.replays(name).await?;
    Ok(asking.found)
}

struct Asking<'a> {
    client: &'a Client,
    model: &'a str,
    headers: &'a [(String, String)],
    found: Probe,
    broken: u32,
}

impl Asking<'_> {
    async fn logprobs(&mut self, most: u8) -> Result<(), ClientError> {
        // Without log-probabilities first: a model that does not even answer has nothing to be asked for.
        let asked = self.chat("Say yes.", &json!({}));
        let (answer, _) = self.send("/chat/completions", &asked, &[]).await?;
        self.found.usage = answer["usage"]["completion_tokens"].is_u64();
        let fewer = [20, 5, 1, 0].into_iter().filter(|fewer| *fewer < usize::from(most));
        for most in std::iter::once(usize::from(most)).chain(fewer) {
            let asked = self.chat("Say yes.", &json!({ "logprobs": true, "top_logprobs": most }));
            let Some(answer) = self.ask("/chat/completions", &asked).await? else { continue };
            let Some(first) = answer["choices"][0]["logprobs"]["content"].get(0) else { return Ok(()) };
            if !first["logprob"].is_number() {
                return Ok(());
            }
            let given = first["top_logprobs"].as_array().map_or(0, Vec::len).min(most);
            self.found.logprobs = u8::try_from(given).ok();
            self.found.token_bytes = first["bytes"].is_array();
            return Ok(());
        }
        Ok(())
    }

    async fn seeds(&mut self) -> Result<(), ClientError> {
        let mut texts = Vec::new();
        for seed in [11, 11, 12] {
            let asked = self.chat("Write any few words.", &json!({ "seed": seed, "temperature": 1.0 }));
            let Some(answer) = self.ask("/chat/completions", &asked).await? else {
                self.found.seeds = Some(false);
                return Ok(());
            };
            texts.push(answer["choices"][0]["message"]["content"].as_str().unwrap_or_default().to_owned());
        }
        self.found.seeds = match (texts[0] == texts[1], texts[1] == texts[2]) {
            (true, true) => None,
            (same, _) => Some(same),
        };
        Ok(())
    }

    async fn several(&mut self) -> Result<(), ClientError> {
        let asked = self.chat("Say yes.", &json!({ "n": 2 }));
        let answer = self.ask("/chat/completions", &asked).await?;
        self.found.several =
            answer.is_some_and(|answer| answer["choices"].as_array().is_some_and(|all| all.len() == 2));
        Ok(())
    }

    async fn streams(&mut self) -> Result<(), ClientError> {
        let request = anbiq_openai::ChatRequest {
            model: self.model.to_owned(),
            messages: vec![anbiq_openai::ChatMessage::new(anbiq_domain::Role::User, "Say yes.")],
            max_tokens: Some(ANSWER_TOKENS as u32),
            stream_options: Some(anbiq_openai::StreamOptions { include_usage: true }),
            ..anbiq_openai::ChatRequest::default()
        };
        let mut tries = 0;
        let mut stream = loop {
            match self.client.chat_stream(&request, self.headers).await {
                Ok(stream) => break stream,
                Err(error) if refuses(&error) => return Ok(()),
                Err(error) => self.again(error, &mut tries).await?,
            }
        };
        self.found.requests += 1;
        let mut counted = None;
        while let Some(chunk) = stream.next().await {
            // A stream that breaks says nothing; what came before it does.
            let Ok(chunk) = chunk else { break };
            // Some servers count as they go: the last count is that of all.
            counted = chunk.usage.or(counted);
        }
        self.found.usage_in_streams = counted.is_some();
        match counted {
            Some(usage) => {
                self.found.prompt_tokens += usage.prompt_tokens;
                self.found.completion_tokens += usage.completion_tokens;
            }
            None => {
                self.found.requests -= 1;
                self.count(&Value::Null);
            }
        }
        Ok(())
    }

    async fn scoring(&mut self) -> Result<(), ClientError> {
        let text = "The cat sat on the mat.";
        let asked = json!({ "model": self.model, "prompt": text, "max_tokens": 1, "logprobs": 1, "echo": true });
        if let Some(answer) = self.ask("/completions", &asked).await? {
            let choice = &answer["choices"][0];
            let repeated = choice["text"].as_str().is_some_and(|given| given.starts_with(text));
            let known = choice["logprobs"]["token_logprobs"].as_array().map_or(0, |all| {
                // The first token of a text has nothing before it.
                all.iter().filter(|one| one.is_number()).count()
            });
            if repeated && known > 1 {
                self.found.scoring = Some(Scores::Echo);
                return Ok(());
            }
        }
        let asked = json!({ "model": self.model, "prompt": text, "max_tokens": 1, "prompt_logprobs": 1 });
        if let Some(answer) = self.ask("/completions", &asked).await? {
            let given = [&answer["choices"][0]["prompt_logprobs"], &answer["prompt_logprobs"]];
            if given.into_iter().filter_map(Value::as_array).any(|all| all.iter().any(Value::is_object)) {
                self.found.scoring = Some(Scores::PromptLogprobs);
            }
        }
        Ok(())
    }

    async fn token_ids(&mut self) -> Result<(), ClientError> {
        let asked = self.chat("Say yes.", &json!({ "return_token_ids": true }));
        if let Some(answer) = self.ask("/chat/completions", &asked).await? {
            self.found.token_ids = answer["choices"][0]["token_ids"].as_array().is_some_and(|ids| !ids.is_empty());
        }
        Ok(())
    }

    async fn replays(&mut self, name: &str) -> Result<(), ClientError> {
        let asked = self.chat("Say yes.", &json!({ "temperature": 1.0 }));
        let name = ("idempotency-key".to_owned(), format!("anbiq-probe-{name}"));
        for _ in 0..2 {
            match self.send("/chat/completions", &asked, std::slice::from_ref(&name)).await {
                // Where the first one broke off after it was answered, its answer is given again already.
                Ok((_, told)) => self.found.replays |= told.replayed,
                Err(error) if refuses(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn chat(&self, prompt: &str, more: &Value) -> Value {
        let mut body = json!({
            "model": self.model,
            "messages": [{ "role": "user", "content": prompt }],
            "max_tokens": ANSWER_TOKENS,
        });
        if let (Some(body), Some(more)) = (body.as_object_mut(), more.as_object()) {
            body.extend(more.clone());
        }
        body
    }

    /// The answer; `None` where the server will not give one to this.
    async fn ask(&mut self, path: &str, body: &Value) -> Result<Option<Value>, ClientError> {
        match self.send(path, body, &[]).await {
            Ok((answer, _)) => Ok(Some(answer)),
            Err(error) if refuses(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn send(
        &mut self,
        path: &str,
        body: &Value,
        more: &[(String, String)],
    ) -> Result<(Value, Told), ClientError> {
        let headers: Vec<_> = self.headers.iter().chain(more).cloned().collect();
        let mut tries = 0;
        loop {
            match self.client.post(path, body, &headers).await {
                Ok((answer, told)) => {
                    if told.replayed {
                        self.found.requests += 1;
                    } else {
                        self.count(&answer);
                    }
                    return Ok((answer, told));
                }
                Err(error) => self.again(error, &mut tries).await?,
            }
        }
    }

    /// Waits before another try, if one is of use.
    async fn again(&mut self, error: ClientError, tries: &mut u32) -> Result<(), ClientError> {
        if !error.retryable() || refuses(&error) || *tries >= TRIES || self.broken >= BROKEN {
            return Err(error);
        }
        *tries += 1;
        if error.status.is_none() {
            self.broken += 1;
            self.count(&Value::Null);
        }
        tokio::time::sleep(pause(&error, *tries)).await;
        Ok(())
    }

    fn count(&mut self, answer: &Value) {
        self.found.requests += 1;
        self.found.prompt_tokens += answer["usage"]["prompt_tokens"].as_u64().unwrap_or(PROMPT_TOKENS);
        self.found.completion_tokens += answer["usage"]["completion_tokens"].as_u64().unwrap_or(2 * ANSWER_TOKENS);
    }
}

/// Will the server never do this? A key, a model or a budget that it does not accept is another matter.
fn refuses(error: &ClientError) -> bool {
    match error.kind {
        ErrorKind::Refused => matches!(error.status, Some(400 | 404 | 405 | 415 | 422 | 501)),
        ErrorKind::Malformed => true,
        ErrorKind::Setup | ErrorKind::Connection | ErrorKind::Timeout => false,
    }
}

fn pause(error: &ClientError, tries: u32) -> Duration {
    let wait = error.retry_after_ms.map_or(Duration::from_millis(250 << tries.min(8)), Duration::from_millis);
    wait.min(LONGEST_WAIT)
}
