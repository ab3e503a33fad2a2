//! How a server scores text that it did not write itself.
//!
//! Two ways are known. vLLM, SGLang and llama-cpp-python repeat the text of a completion with its log-probabilities (`echo`), for which somebody has
//! to put a conversation in the model's form. vLLM also gives the log-probabilities of a conversation's prompt (`prompt_logprobs`), which it
//! puts in form itself; what it knows of an answer is then what follows the prompt that it had without the answer. Which of them a server has
//! is found by asking it once.

use std::collections::HashMap;

use anbiq_domain::{Finish, Message, Prompt, Role};
use anbiq_model::template::ChatTemplate;
use anbiq_model::{Fault, ModelError, ScoreRequest, Scored};
use anbiq_openai::{ChatMessage, CompletionLogprobs, CompletionRequest};
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};

use crate::client::{Client, ClientError, ErrorKind};
use crate::upstream::to_model_error;

/// Texts scored at the same time.
const SCORED_AT_ONCE: usize = 8;

/// How a server scores given text.
#[derive(Debug, Clone)]
pub enum Scoring {
    /// It repeats a text with its log-probabilities (`echo`).
    Echo(Form),
    /// It gives the log-probabilities of a conversation's prompt (`prompt_logprobs`) and puts conversations in form itself. The token that
    /// ends an answer is not scored.
    Conversation,
    /// In whichever of these ways it is seen to do it, when it is asked first; with this form, if there is one, by `echo` before the other.
    Asked(Option<Form>),
}

/// How the model of a server writes a conversation.
#[derive(Debug, Clone, Default)]
pub struct Form {
    /// Puts conversations in form; without one only plain texts can be scored.
    pub template: Option<ChatTemplate>,
    /// The text of the token that ends a turn; scored after an answer that the model ended.
    pub end_of_turn: String,
}

/// `scoring`, or how the server does it.
pub(crate) async fn found(client: &Client, model: &str, scoring: &Scoring) -> Result<Scoring, ModelError> {
    let Scoring::Asked(form) = scoring else { return Ok(scoring.clone()) };
    if let Some(form) = form
        && repeats(client, model).await?
    {
        return Ok(Scoring::Echo(form.clone()));
    }
    if reads_conversations(client, model).await? {
        return Ok(Scoring::Conversation);
    }
    Err(unsupported(match form {
        Some(_) => "the server gives no log-probabilities of given text, neither by `echo` nor by `prompt_logprobs`",
        None => {
            "the server gives no log-probabilities of a conversation (`prompt_logprobs`), and to ask it for those of a text (`echo`) the \
             model's chat template must be known"
        }
    }))
}

async fn repeats(client: &Client, model: &str) -> Result<bool, ModelError> {
    let text = "The cat sat on the mat.";
    let answer = client.completions(&echo_of(model, text), &[]).await;
    let Some(answer) = unless_refused(answer)? else { return Ok(false) };
    let choice = answer.choices.into_iter().next();
    // The first token of a text has nothing before it.
    let scored = |logprobs: &CompletionLogprobs| logprobs.token_logprobs.iter().flatten().count() > 1;
    Ok(choice.is_some_and(|choice| choice.text.starts_with(text) && choice.logprobs.as_ref().is_some_and(scored)))
}

async fn reads_conversations(client: &Client, model: &str) -> Result<bool, ModelError> {
    let messages = [Message::new(Role::User, "Say yes."), Message::new(Role::Assistant, "Yes, yes.")];
    let answer = client.post("/chat/completions", &continued(model, &messages), &[]).await;
    Ok(unless_refused(answer)?.is_some_and(|(answer, _)| prompt_logprobs(&answer).is_ok_and(|rows| rows.len() > 1)))
}

/// `None` where the server will never do this. A key or a model that it does not know is another matter.
fn unless_refused<T>(answer: Result<T, ClientError>) -> Result<Option<T>, ModelError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if error.kind == ErrorKind::Malformed => Ok(None),
        Err(error) if error.kind == ErrorKind::Refused && matches!(error.status, Some(400 | 404 | 405 | 422 | 501)) => {
            Ok(None)
        }
        Err(error) => Err(to_model_error(error)),
    }
}

/// The scores of all `requests`, in their order. `scoring` was found.
pub(crate) async fn score(
    client: &Client,
    model: &str,
    scoring: &Scoring,
    requests: &[ScoreRequest],
) -> Result<Vec<Scored>, ModelError> {
    match scoring {
        Scoring::Echo(form) => {
            let scores = requests.iter().map(|request| echoed(client, model, form, request).boxed());
            stream::iter(scores.collect::<Vec<_>>()).buffered(SCORED_AT_ONCE).try_collect().await
        }
        Scoring::Conversation => conversations(client, model, requests).await,
        Scoring::Asked(_) => Err(unsupported("the server was not asked how it scores given text")),
    }
}

async fn echoed(client: &Client, model: &str, form: &Form, request: &ScoreRequest) -> Result<Scored, ModelError> {
    let before = match (&request.prompt, &form.template) {
        (Prompt::Text(text), _) => text.clone(),
        (Prompt::Chat(messages), Some(template)) => template
            .render(messages, true)
            .map_err(|why| ModelError::new(Fault::Request, why.code(), why.to_string()))?,
        (Prompt::Chat(_), None) => {
            return Err(unsupported("scoring a conversation needs the model's chat template"));
        }
    };
    let mut whole = [before.as_str(), &request.answer.text].concat();
    if request.answer.finish == Finish::Stop {
        whole.push_str(&form.end_of_turn);
    }
    let completion = client.completions(&echo_of(model, &whole), &[]).await.map_err(to_model_error)?;
    let logprobs = completion.choices.into_iter().next().and_then(|choice| choice.logprobs);
    let logprobs = logprobs.ok_or_else(|| unsupported("the server gives no log-probabilities of a prompt"))?;
    cut_echo(&logprobs, &before, &whole)
}

fn echo_of(model: &str, text: &str) -> CompletionRequest {
    CompletionRequest {
        // Some servers refuse to write nothing; what is written after the echo is cut off again.
        max_tokens: Some(1),
        temperature: Some(0.0),
        logprobs: Some(1),
        echo: Some(true),
        ..CompletionRequest::new(model, text)
    }
}

/// The log-probabilities of what follows `before` in an echo of `whole`.
///
/// A token that begins in `before` and reaches beyond it counts to the answer: it holds some of it.
fn cut_echo(echo: &CompletionLogprobs, before: &str, whole: &str) -> Result<Scored, ModelError> {
    let rows = echo.tokens.len();
    if rows == 0 || echo.token_logprobs.len() != rows || echo.text_offset.len() != rows {
        return Err(unsupported("the server does not say which token stands where in a prompt"));
    }
    // Some servers show the token that begins every text, and count its name as text.
    let shown_start = !whole.starts_with(echo.tokens[0].as_str());
    let shift =
        if shown_start && rows > 1 { echo.text_offset[1] - echo.text_offset[0].min(echo.text_offset[1]) } else { 0 };
    let (begin, end) = (before.chars().count() as u64 + shift, whole.chars().count() as u64 + shift);
    let mut scored = Scored { logprobs: Vec::new(), greedy: Vec::new() };
    for row in usize::from(shown_start)..rows {
        let stops = echo.text_offset.get(row + 1).copied().unwrap_or(u64::MAX);
        // Nothing precedes the first token of a text, so it has no log-probability.
        if let (true, Some(logprob)) = (stops > begin && echo.text_offset[row] < end, echo.token_logprobs[row]) {
            let best = echo.top_logprobs.as_ref().and_then(|tops| tops.get(row)?.as_ref());
            let best = best.map(|tops| tops.values().fold(f32::NEG_INFINITY, |best, one| best.max(*one)));
            scored.logprobs.push(logprob);
            scored.greedy.extend(best.map(|best| logprob >= best));
        }
    }
    if scored.greedy.len() != scored.logprobs.len() {
        scored.greedy.clear();
    }
    Ok(scored)
}

/// Both draws of a pair have one prompt: what it is alone is asked once for all that have it.
async fn conversations(client: &Client, model: &str, requests: &[ScoreRequest]) -> Result<Vec<Scored>, ModelError> {
    let mut prompts: Vec<&[Message]> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut asked = Vec::with_capacity(requests.len());
    for request in requests {
        let Prompt::Chat(messages) = &request.prompt else {
            return Err(unsupported("this server scores the answers of conversations alone"));
        };
        let place = *places.entry(request.prompt.canonical()).or_insert_with(|| {
            prompts.push(messages);
            prompts.len() - 1
        });
        asked.push((place, messages.as_slice(), request.answer.text.as_str()));
    }
    let lengths: Vec<_> = prompts.iter().map(|messages| prompt_length(client, model, messages).boxed()).collect();
    let lengths: Vec<usize> = stream::iter(lengths).buffered(SCORED_AT_ONCE).try_collect().await?;
    let scores: Vec<_> = asked
        .into_iter()
        .map(|(place, messages, answer)| follows(client, model, messages, answer, lengths[place]).boxed())
        .collect();
    stream::iter(scores).buffered(SCORED_AT_ONCE).try_collect().await
}

/// Tokens of a prompt up to where its answer begins.
async fn prompt_length(client: &Client, model: &str, messages: &[Message]) -> Result<usize, ModelError> {
    let asked = json!({ "model": model, "messages": wire(messages), "max_tokens": 1, "temperature": 0.0 });
    let (answer, _) = client.post("/chat/completions", &asked, &[]).await.map_err(to_model_error)?;
    let tokens = answer["usage"]["prompt_tokens"].as_u64();
    let tokens = tokens.ok_or_else(|| unsupported("the server does not count the tokens of a prompt"))?;
    Ok(usize::try_from(tokens).unwrap_or(usize::MAX))
}

/// The log-probabilities of what `answer` adds to a prompt of `before` tokens.
async fn follows(
    client: &Client,
    model: &str,
    messages: &[Message],
    answer: &str,
    before: usize,
) -> Result<Scored, ModelError> {
    let mut messages = messages.to_vec();
    messages.push(Message::new(Role::Assistant, answer));
    let asked = continued(model, &messages);
    let (answer, _) = client.post("/chat/completions", &asked, &[]).await.map_err(to_model_error)?;
    let rows = prompt_logprobs(&answer)?;
    let rows = rows.get(before..).unwrap_or_default();
    let mut scored = Scored { logprobs: Vec::with_capacity(rows.len()), greedy: Vec::with_capacity(rows.len()) };
    for row in rows {
        let (logprob, rank) =
            of_the_text(row).ok_or_else(|| unsupported("the server leaves out tokens of a prompt"))?;
        scored.logprobs.push(logprob);
        scored.greedy.push(rank == 1);
    }
    Ok(scored)
}

/// A conversation whose last message is unfinished, with the log-probabilities of its tokens.
fn continued(model: &str, messages: &[Message]) -> Value {
    json!({
        "model": model, "messages": wire(messages), "max_tokens": 1, "temperature": 0.0, "prompt_logprobs": 1,
        "add_generation_prompt": false, "continue_final_message": true,
    })
}

fn wire(messages: &[Message]) -> Vec<ChatMessage> {
    messages.iter().cloned().map(ChatMessage::from).collect()
}

fn prompt_logprobs(answer: &Value) -> Result<&Vec<Value>, ModelError> {
    let given = [&answer["prompt_logprobs"], &answer["choices"][0]["prompt_logprobs"]];
    let given = given.into_iter().find_map(Value::as_array);
    given.ok_or_else(|| unsupported("the server gives no log-probabilities of a prompt"))
}

/// The log-probability and the rank of the token that stands in the text: of one or two at a place, of which the other is the likeliest.
fn of_the_text(row: &Value) -> Option<(f32, u64)> {
    let tokens = row.as_object()?.values();
    let known = tokens.filter_map(|token| Some((token["logprob"].as_f64()? as f32, token["rank"].as_u64()?)));
    known.max_by_key(|(_, rank)| *rank)
}

pub(crate) fn unsupported(message: &str) -> ModelError {
    ModelError::new(Fault::Setup, "scoring_unsupported", message)
}
