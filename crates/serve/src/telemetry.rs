//! Traces and metrics for a collector of OpenTelemetry, by OTLP over HTTP in JSON.
//!
//! Names are those of OpenTelemetry's conventions for generative models. What was asked and answered is never told: no
//! attribute takes a text that a customer or a model wrote. Nothing waits for the collector: what it does not take in time
//! is dropped and counted.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anbiq_domain::{AccountId, Digest, ExchangeId, Outcome, RequestFacts, Timestamp, Usage};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Uri};
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::{Mutex as Turn, mpsc};
use tokio::time::{MissedTickBehavior, timeout};

use crate::ServeError;
use crate::metrics::{SECONDS, TOKENS, operation};

/// Most spans of one message to the collector.
const BATCH: usize = 256;

/// Whom traces and metrics are told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TelemetryConfig {
    /// The collector's address, such as `http://127.0.0.1:4318`; absent for nobody. `/v1/traces` and `/v1/metrics` are
    /// put behind it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otlp: Option<String>,
    /// How often it is told.
    pub interval_ms: u64,
    /// How long it may take to answer.
    pub timeout_ms: u64,
    /// Most exchanges that wait to be told; more are dropped and counted.
    pub queue: usize,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self { otlp: None, interval_ms: 5_000, timeout_ms: 5_000, queue: 4096 }
    }
}

impl TelemetryConfig {
    /// What is wrong with it.
    pub(crate) fn problem(&self) -> Option<&'static str> {
        if self.interval_ms == 0 || self.timeout_ms == 0 || self.queue == 0 {
            return Some("`telemetry.interval_ms`, `telemetry.timeout_ms` and `telemetry.queue` are at least 1");
        }
        let address = self.otlp.as_deref()?.parse::<Uri>().ok();
        let usual = address.is_some_and(|address| {
            let authority = address.authority().map_or("@", |authority| authority.as_str());
            matches!(address.scheme_str(), Some("http" | "https"))
                && !authority.contains('@')
                && address.query().is_none()
        });
        (!usual).then_some("`telemetry.otlp` is an address such as `http://127.0.0.1:4318`, without user and query")
    }
}

/// What is told of an exchange.
#[derive(Debug)]
pub(crate) struct Told<'a> {
    pub(crate) id: ExchangeId,
    pub(crate) account: &'a AccountId,
    pub(crate) model: &'a str,
    pub(crate) facts: &'a RequestFacts,
    pub(crate) usage: Usage,
    pub(crate) outcome: &'a Outcome,
    pub(crate) at: Timestamp,
    pub(crate) took: Duration,
}

/// Tells a collector what happens.
pub(crate) struct Telemetry {
    spans: mpsc::Sender<Value>,
    /// Whoever tells takes its turn: the task of every interval, and whoever closes.
    exporter: Turn<Exporter>,
    totals: Arc<Mutex<Totals>>,
    dropped: Arc<AtomicU64>,
}

type Totals = BTreeMap<Series, Histogram>;

/// Which measurements are added up.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Series {
    metric: &'static str,
    operation: &'static str,
    model: String,
    /// The attribute that this metric has besides.
    more: Option<(&'static str, String)>,
}

#[derive(Debug)]
struct Histogram {
    bounds: &'static [f64; 14],
    counts: [u64; 15],
    sum: f64,
}

struct Exporter {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    base: String,
    patience: Duration,
    waiting: mpsc::Receiver<Value>,
    started: Timestamp,
}

impl Telemetry {
    /// Nothing where no collector is configured.
    pub(crate) fn new(config: &TelemetryConfig, started: Timestamp) -> Result<Option<Self>, ServeError> {
        let Some(base) = &config.otlp else { return Ok(None) };
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        let connector =
            HttpsConnectorBuilder::new().with_webpki_roots().https_or_http().enable_http1().wrap_connector(tcp);
        let (spans, waiting) = mpsc::channel(config.queue);
        let exporter = Exporter {
            client: Client::builder(TokioExecutor::new()).build(connector),
            base: base.trim_end_matches('/').to_owned(),
            patience: Duration::from_millis(config.timeout_ms),
            waiting,
            started,
        };
        let (totals, dropped) = (Arc::default(), Arc::default());
        Ok(Some(Self { spans, exporter: Turn::new(exporter), totals, dropped }))
    }

    /// An exchange ended. Does not wait.
    pub(crate) fn ended(&self, told: &Told<'_>) {
        self.add_up(told);
        if self.spans.try_send(span(told)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Exchanges that were not told, since too many waited or the collector did not take them.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Tells what has come together, every `interval`, until `stopped`. What is being told by then is told to its end:
    /// dropped in the middle it would be lost.
    pub(crate) async fn run(&self, interval: Duration, stopped: impl Future<Output = ()>) {
        let mut stopped = std::pin::pin!(stopped);
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = &mut stopped => return,
                _ = ticks.tick() => self.flush(now()).await,
            }
        }
    }

    /// Tells what has come together.
    pub(crate) async fn flush(&self, now: u128) {
        let mut exporter = self.exporter.lock().await;
        loop {
            let mut batch = Vec::new();
            while batch.len() < BATCH
                && let Ok(span) = exporter.waiting.try_recv()
            {
                batch.push(span);
            }
            let count = batch.len();
            if count == 0 {
                break;
            }
            if let Err(why) = exporter.send("/v1/traces", &traces(&batch)).await {
                self.dropped.fetch_add(count as u64, Ordering::Relaxed);
                tracing::warn!(code = "telemetry_failed", count, %why, "the collector did not take traces");
                // What waits is for the next time; a collector that is away is not asked over and over.
                break;
            }
        }
        let metrics = {
            let totals = self.totals.lock().unwrap_or_else(PoisonError::into_inner);
            metrics(&totals, exporter.started, now)
        };
        if let Some(metrics) = metrics
            && let Err(why) = exporter.send("/v1/metrics", &metrics).await
        {
            // They are totals: the next time tells all.
            tracing::warn!(code = "telemetry_failed", %why, "the collector did not take metrics");
        }
    }

    fn add_up(&self, told: &Told<'_>) {
        let operation = operation(told.facts.route);
        let series = |metric, more| Series { metric, operation, model: told.model.to_owned(), more };
        let mut totals = self.totals.lock().unwrap_or_else(PoisonError::into_inner);
        let mut observe = |series, bounds, value| {
            totals.entry(series).or_insert(Histogram { bounds, counts: [0; 15], sum: 0.0 }).observe(value);
        };
        let failure = failure(told.outcome).map(|code| ("error.type", code.to_owned()));
        observe(series("gen_ai.client.operation.duration", failure.clone()), &SECONDS, told.took.as_secs_f64());
        if failure.is_none() {
            for (kind, tokens) in [("input", told.usage.prompt_tokens), ("output", told.usage.completion_tokens)] {
                let more = Some(("gen_ai.token.type", kind.to_owned()));
                observe(series("gen_ai.client.token.usage", more), &TOKENS, tokens as f64);
            }
        }
    }
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Telemetry")
    }
}

impl Histogram {
    fn observe(&mut self, value: f64) {
        let place = self.bounds.partition_point(|bound| *bound < value);
        if let Some(count) = self.counts.get_mut(place) {
            *count += 1;
        }
        self.sum += value;
    }
}

impl Exporter {
    async fn send(&self, path: &str, message: &Value) -> Result<(), String> {
        let mut request = Request::post([self.base.as_str(), path].concat())
            .body(Full::new(Bytes::from(message.to_string())))
            .map_err(|why| why.to_string())?;
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        match timeout(self.patience, self.client.request(request)).await {
            Err(_) => Err("it did not answer in time".to_owned()),
            Ok(Err(why)) => Err(why.to_string()),
            Ok(Ok(answer)) if answer.status().is_success() => Ok(()),
            Ok(Ok(answer)) => Err(format!("it answered {}", answer.status())),
        }
    }
}

/// Nanoseconds since 1970: of a collector's clock, not of what is simulated.
pub(crate) fn now() -> u128 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_nanos())
}

/// The code of an exchange that did not end well.
fn failure(outcome: &Outcome) -> Option<&str> {
    outcome.code().or_else(|| (*outcome == Outcome::Cancelled).then(|| outcome.as_str()))
}

fn text(key: &str, value: &str) -> Value {
    json!({"key": key, "value": {"stringValue": value}})
}

/// Whole numbers are text in the JSON of OTLP, which has no 64 bits.
fn whole(key: &str, value: u64) -> Value {
    json!({"key": key, "value": {"intValue": value.to_string()}})
}

fn span(told: &Told<'_>) -> Value {
    let Told { id, account, model, facts, usage, outcome, at, took } = told;
    let operation = operation(facts.route);
    let begin = u128::from(at.milliseconds().max(0).unsigned_abs()) * 1_000_000;
    let end = begin + took.as_nanos();
    let hex = Digest::of_parts(&[b"anbiq span v1\0", id.to_string().as_bytes()]).to_string();
    let mut attributes = vec![
        text("gen_ai.operation.name", operation),
        text("gen_ai.provider.name", "anbiq"),
        text("gen_ai.request.model", model),
        text("gen_ai.response.id", &id.to_string()),
        whole("gen_ai.request.max_tokens", facts.max_tokens.into()),
        whole("gen_ai.request.choice.count", facts.n.into()),
        json!({"key": "gen_ai.request.temperature", "value": {"doubleValue": facts.temperature}}),
        json!({"key": "gen_ai.request.top_p", "value": {"doubleValue": facts.top_p}}),
        whole("gen_ai.usage.input_tokens", usage.prompt_tokens),
        whole("gen_ai.usage.output_tokens", usage.completion_tokens),
        text("anbiq.account", account.as_str()),
    ];
    let failure = failure(outcome);
    attributes.extend(failure.map(|code| text("error.type", code)));
    // 0 says nothing, 2 that it failed. A client that left is no failure.
    let status = if matches!(outcome, Outcome::Failed { .. }) { json!({"code": 2}) } else { json!({}) };
    json!({
        "traceId": hex.get(..32),
        "spanId": hex.get(32..48),
        "name": format!("{operation} {model}"),
        "kind": 2,
        "startTimeUnixNano": begin.to_string(),
        "endTimeUnixNano": end.to_string(),
        "attributes": attributes,
        "status": status,
    })
}

fn resource() -> Value {
    json!({"attributes": [text("service.name", "anbiq"), text("service.version", env!("CARGO_PKG_VERSION"))]})
}

fn traces(spans: &[Value]) -> Value {
    json!({"resourceSpans": [{"resource": resource(), "scopeSpans": [{"scope": {"name": "anbiq"}, "spans": spans}]}]})
}

/// All totals; nothing where there are none.
fn metrics(totals: &Totals, started: Timestamp, now: u128) -> Option<Value> {
    let begin = (u128::from(started.milliseconds().max(0).unsigned_abs()) * 1_000_000).min(now);
    let mut points: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    for (Series { metric, operation, model, more }, Histogram { bounds, counts, sum }) in totals {
        let mut attributes = vec![
            text("gen_ai.operation.name", operation),
            text("gen_ai.provider.name", "anbiq"),
            text("gen_ai.request.model", model),
        ];
        attributes.extend(more.as_ref().map(|(key, value)| text(key, value)));
        points.entry(metric).or_default().push(json!({
            "attributes": attributes,
            "startTimeUnixNano": begin.to_string(),
            "timeUnixNano": now.to_string(),
            "count": counts.iter().sum::<u64>().to_string(),
            "sum": sum,
            "bucketCounts": counts.iter().map(u64::to_string).collect::<Vec<_>>(),
            "explicitBounds": bounds,
        }));
    }
    let metric = |(name, points): (&str, Vec<Value>)| {
        let unit = if name.ends_with("duration") { "s" } else { "{token}" };
        // 2 is cumulative.
        json!({"name": name, "unit": unit, "histogram": {"aggregationTemporality": 2, "dataPoints": points}})
    };
    let metrics: Vec<Value> = points.into_iter().map(metric).collect();
    (!metrics.is_empty()).then(|| {
        json!({"resourceMetrics": [{"resource": resource(),
            "scopeMetrics": [{"scope": {"name": "anbiq"}, "metrics": metrics}]}]})
    })
}
