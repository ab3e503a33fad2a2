//! One exchange as a log tells of it, before anything is hashed.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use anbiq_domain::{Money, Prompt, RequestFacts, Route, Timestamp, Usage};
use serde_json::{Map, Value};

use crate::fault::Fault;
use crate::field::{Field, Layout, text};
use crate::prompt::prompt;

/// What one row says.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) at: Timestamp,
    pub(crate) account: String,
    pub(crate) end: End,
    pub(crate) model: Option<String>,
    pub(crate) request: Option<RequestFacts>,
    pub(crate) address: Option<IpAddr>,
    pub(crate) agent: Option<String>,
    pub(crate) payment: Option<String>,
    pub(crate) opened: Option<Timestamp>,
    pub(crate) prompt: Option<Prompt>,
    pub(crate) usage: Option<Usage>,
    pub(crate) cost: Option<Money>,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Answered,
    Failed,
    Refused,
}

/// How often each field was found, and at which of its places.
#[derive(Debug, Clone)]
pub(crate) struct Seen(pub(crate) Vec<Vec<u64>>);

impl Seen {
    pub(crate) fn of(layout: &Layout) -> Self {
        // One more than there are places: what a mapping sets.
        Self(Field::ALL.iter().map(|field| vec![0; layout.places(*field).len() + 1]).collect())
    }

    fn count(&mut self, field: Field, place: usize) {
        let counts = &mut self.0[field as usize];
        let place = place.min(counts.len() - 1);
        counts[place] += 1;
    }
}

/// What a row says, looked up and counted.
struct Look<'a> {
    row: &'a Map<String, Value>,
    layout: &'a Layout,
    /// Which fields were found at which of their places.
    hits: Vec<(Field, usize)>,
}

impl<'a> Look<'a> {
    fn value(&mut self, field: Field) -> Option<Cow<'a, Value>> {
        let (value, place) = self.layout.find(field, self.row)?;
        self.hits.push((field, place));
        Some(value)
    }

    fn text(&mut self, field: Field) -> Option<String> {
        self.value(field).and_then(|value| text(&value))
    }

    fn number(&mut self, field: Field) -> Result<Option<f64>, Fault> {
        self.value(field).map(|value| number(&value)).transpose()
    }

    fn count(&mut self, field: Field) -> Result<Option<u64>, Fault> {
        let whole = |number: f64| {
            if (0.0..=9e15).contains(&number) { Ok(number.round() as u64) } else { Err(Fault::BadNumber) }
        };
        self.number(field)?.map(whole).transpose()
    }
}

/// Reads one row; `Ok(None)` where it is no request to a language model.
pub(crate) fn read(row: &Map<String, Value>, layout: &Layout, seen: &mut Seen) -> Result<Option<Found>, Fault> {
    let mut look = Look { row, layout, hits: Vec::with_capacity(16) };
    let found = read_row(&mut look)?;
    // What is wrong with a row, or what is no request, does not count as what was found.
    if found.is_some() {
        look.hits.iter().for_each(|(field, place)| seen.count(*field, *place));
    }
    Ok(found)
}

fn read_row(look: &mut Look<'_>) -> Result<Option<Found>, Fault> {
    let operation = look.text(Field::Operation);
    let Some(route) = operation.as_deref().map_or(Some(Route::Chat), route) else { return Ok(None) };
    let at = look.value(Field::At).ok_or(Fault::NoTime)?;
    let at = time(&at)?;
    let account = look.text(Field::Account).filter(|account| !account.is_empty()).ok_or(Fault::NoAccount)?;
    let end = look.value(Field::Status).map_or(End::Answered, |status| end(&status));
    let request = look.value(Field::Request).and_then(as_object);
    let system = look.value(Field::System);
    let asked = look.value(Field::Prompt).and_then(|asked| prompt(&asked, system.as_deref()));
    let asked = asked.or_else(|| prompt(&Value::Object(request.clone()?), system.as_deref()));
    let asked = asked.filter(|asked| !asked.last_text().is_empty() || matches!(asked, Prompt::Chat(_)));
    let facts = facts(look, route, operation.is_some(), request.as_ref(), asked.as_ref())?;
    let usage = match (look.count(Field::PromptTokens)?, look.count(Field::CompletionTokens)?) {
        (None, None) => None,
        (prompt, completion) => Some(Usage {
            prompt_tokens: prompt.unwrap_or(0),
            cached_tokens: look.count(Field::CachedTokens)?.unwrap_or(0),
            completion_tokens: completion.unwrap_or(0),
            twin_tokens: 0,
        }),
    };
    Ok(Some(Found {
        at,
        account,
        end,
        model: look.text(Field::Model).or_else(|| request.as_ref()?.get("model")?.as_str().map(str::to_owned)),
        request: facts,
        address: look.text(Field::Address).and_then(|text| address(&text)),
        agent: look.text(Field::Agent),
        payment: look.text(Field::Payment),
        opened: look.value(Field::Opened).map(|value| time(&value)).transpose()?,
        prompt: asked,
        usage,
        cost: look.number(Field::Cost)?.map(|dollars| Money::from_nanos((dollars * 1e9).round() as i64)),
    }))
}

fn as_object(value: Cow<'_, Value>) -> Option<Map<String, Value>> {
    match value.into_owned() {
        Value::Object(request) => Some(request),
        Value::String(text) => serde_json::from_str(&text).ok(),
        _ => None,
    }
}

/// What was asked for, where the log has any of the request's parameters. What a request does not say is as the
/// interfaces have it: temperature and nucleus 1, one answer, no bound.
fn facts(
    look: &mut Look<'_>,
    route: Route,
    says_route: bool,
    request: Option<&Map<String, Value>>,
    asked: Option<&Prompt>,
) -> Result<Option<RequestFacts>, Fault> {
    let inner = |keys: &[&str]| {
        let request = request?;
        let places = [Some(request), request.get("inferenceConfig").and_then(Value::as_object)];
        let places = places.into_iter().chain([request.get("generationConfig").and_then(Value::as_object)]);
        let found = places.flatten().find_map(|place| keys.iter().find_map(|key| place.get(*key)));
        found.and_then(Value::as_f64)
    };
    let temperature = look.number(Field::Temperature)?.or_else(|| inner(&["temperature"]));
    let top_p = look.number(Field::TopP)?.or_else(|| inner(&["top_p", "topP"]));
    let max_tokens = look.number(Field::MaxTokens)?.or_else(|| {
        inner(&["max_tokens", "max_completion_tokens", "maxTokens", "max_output_tokens", "maxOutputTokens"])
    });
    let n = look.number(Field::N)?.or_else(|| inner(&["n", "candidateCount"]));
    let logprobs = match look.number(Field::Logprobs)?.or_else(|| inner(&["top_logprobs"])) {
        Some(count) => Some(count as u8),
        None => request.and_then(|request| request.get("logprobs")?.as_bool()).filter(|asked| *asked).map(|_| 0),
    };
    let stream = match look.value(Field::Stream) {
        Some(value) => truth(&value),
        None => request.and_then(|request| request.get("stream")?.as_bool()),
    };
    let parameters = [temperature, top_p, max_tokens, n].iter().any(Option::is_some);
    if request.is_none() && !parameters && logprobs.is_none() && !(says_route && stream.is_some()) {
        return Ok(None);
    }
    Ok(Some(RequestFacts {
        route,
        stream: stream.unwrap_or(false),
        temperature: temperature.unwrap_or(1.0) as f32,
        top_p: top_p.unwrap_or(1.0) as f32,
        max_tokens: max_tokens.unwrap_or(0.0) as u32,
        n: n.unwrap_or(1.0) as u32,
        logprobs,
        messages: match asked {
            Some(Prompt::Chat(messages)) => u32::try_from(messages.len()).unwrap_or(u32::MAX),
            Some(Prompt::Text(_)) => 1,
            None => 0,
        },
        tools: request.and_then(|request| request.get("tools")?.as_array()).map_or(0, |tools| tools.len() as u64),
        structured: request.is_some_and(|request| request.get("response_format").is_some_and(Value::is_object)),
        named: None,
    }))
}

/// Which endpoint a log's name of an operation means; `None` for those behind which no language model stands.
fn route(operation: &str) -> Option<Route> {
    let name = operation.to_ascii_lowercase();
    let has = |parts: &[&str]| parts.iter().any(|part| name.contains(part));
    if has(&["image", "speech", "audio", "transcri", "moderation", "rerank", "execute_tool", "create_agent", "ocr"])
        || has(&["invoke_agent", "/models", "/files", "/batches", "vector_store"])
    {
        return None;
    }
    Some(if has(&["embed"]) {
        Route::Embeddings
    } else if has(&["responses"]) {
        Route::Responses
    } else if has(&["text_completion"]) || name.ends_with("/v1/completions") {
        Route::Completions
    } else {
        Route::Chat
    })
}

fn end(status: &Value) -> End {
    let text = text(status).unwrap_or_default().to_ascii_lowercase();
    match text.parse::<f64>() {
        Ok(code) if (400.0..500.0).contains(&code) => End::Refused,
        Ok(code) if code >= 500.0 => End::Failed,
        Ok(_) => End::Answered,
        Err(_) if ["fail", "error"].iter().any(|word| text.contains(word)) => End::Failed,
        Err(_) if ["refused", "rejected", "ratelimit", "rate_limit"].iter().any(|word| text.contains(word)) => {
            End::Refused
        }
        Err(_) => End::Answered,
    }
}

/// A moment: RFC 3339, the same with a blank or without a zone (then UTC), or a number since 1970 whose size tells its unit.
pub(crate) fn time(value: &Value) -> Result<Timestamp, Fault> {
    let said = text(value).ok_or(Fault::BadTime)?;
    let number = said.parse::<f64>().ok().filter(|number| number.is_finite());
    let milliseconds = match number {
        Some(seconds) if seconds.abs() < 1e11 => seconds * 1e3,
        Some(milliseconds) if milliseconds.abs() < 1e14 => milliseconds,
        Some(microseconds) if microseconds.abs() < 1e17 => microseconds / 1e3,
        Some(nanoseconds) => nanoseconds / 1e6,
        None => return written(&said).ok_or(Fault::BadTime),
    };
    Ok(Timestamp::from_milliseconds(milliseconds.floor() as i64))
}

fn written(text: &str) -> Option<Timestamp> {
    let moment = text.parse::<jiff::Timestamp>().ok().or_else(|| {
        let civil = text.strip_suffix(" UTC").unwrap_or(text).parse::<jiff::civil::DateTime>().ok()?;
        jiff::tz::TimeZone::UTC.to_timestamp(civil).ok()
    });
    moment.map(|moment| Timestamp::from_milliseconds(moment.as_millisecond()))
}

fn number(value: &Value) -> Result<f64, Fault> {
    let number = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        Value::Bool(asked) => Some(f64::from(u8::from(*asked))),
        _ => None,
    };
    number.filter(|number| number.is_finite()).ok_or(Fault::BadNumber)
}

fn truth(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(truth) => Some(*truth),
        other => match text(other)?.to_ascii_lowercase().as_str() {
            "true" | "1" | "stream" => Some(true),
            "false" | "0" | "oneshot" => Some(false),
            _ => None,
        },
    }
}

/// One address, with a port or without. A list of several says who claims to have forwarded what, which is not known.
fn address(text: &str) -> Option<IpAddr> {
    let address = text.parse::<IpAddr>().ok().or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip()));
    address.map(|address| address.to_canonical())
}
