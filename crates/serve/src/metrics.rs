//! What the gateway measures of itself, for Prometheus.
//!
//! Every label takes few values: a model of the configuration, an operation, an outcome, a stable code. What a customer
//! writes never becomes a label, and neither does an account or a key: it would grow without end, and it would show.
//!
//! Names that begin with `gen_ai_` are those of OpenTelemetry's conventions for generative models, in Prometheus' form.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anbiq_domain::{Money, Outcome, Route, TwinMode, Usage};
use anbiq_model::Server;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// The form in which metrics are given.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All that is measured.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    duration: Histograms<ExchangeLabels>,
    first_token: Histograms<ModelLabels>,
    tokens: Histograms<TokenLabels>,
    overhead: Histograms<ModelLabels>,
    append: Histogram,
    in_flight: Gauge,
    twins: Family<TwinLabels, Counter>,
    twin_tokens: Family<TwinLabels, Counter>,
    twin_dollars: Family<TwinLabels, Counter<f64, AtomicU64>>,
    twins_refused: Family<TwinRefusalLabels, Counter>,
    twins_late: Counter,
    twins_waiting: Gauge,
    refusals: Family<CodeLabels, Counter>,
    repeated: Counter,
    expired: Counter,
    untold: Counter,
    upstream: Upstream,
}

/// What is known of the servers behind the models; read when it is asked for.
#[derive(Debug, Default)]
struct Upstream {
    requests: Family<ServerLabels, Counter>,
    retries: Family<ServerLabels, Counter>,
    failures: Family<ServerLabels, Counter>,
    resting: Family<ServerLabels, Gauge>,
}

/// An exchange that ended.
#[derive(Debug)]
pub(crate) struct Ended<'a> {
    pub(crate) route: Route,
    pub(crate) model: &'a str,
    pub(crate) outcome: &'a Outcome,
    pub(crate) usage: Usage,
    /// From the arrival of the request to the moment its answer was recorded and charged.
    pub(crate) took: Duration,
    /// How much of that went by waiting for the model or for the client.
    pub(crate) waited: Duration,
}

/// Draws that were not served.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Drawn {
    /// Those that ended in good order.
    pub(crate) twins: u64,
    /// Tokens of all.
    pub(crate) tokens: u64,
    /// What they cost the provider.
    pub(crate) cost: Money,
}

type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ModelLabels {
    gen_ai_operation_name: &'static str,
    gen_ai_request_model: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ExchangeLabels {
    gen_ai_operation_name: &'static str,
    gen_ai_request_model: String,
    outcome: &'static str,
    /// The code of a failure; empty where there was none.
    error_type: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TokenLabels {
    gen_ai_operation_name: &'static str,
    gen_ai_request_model: String,
    gen_ai_token_type: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ServerLabels {
    gen_ai_request_model: String,
    /// Its address, as the configuration has it.
    server_address: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TwinLabels {
    gen_ai_operation_name: &'static str,
    gen_ai_request_model: String,
    mode: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TwinRefusalLabels {
    mode: &'static str,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabels {
    code: &'static str,
}

// The first three are the buckets that OpenTelemetry advises.
pub(crate) const SECONDS: [f64; 14] =
    [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92];
const FIRST: [f64; 16] = [0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
pub(crate) const TOKENS: [f64; 14] = [
    1.0,
    4.0,
    16.0,
    64.0,
    256.0,
    1024.0,
    4096.0,
    16384.0,
    65536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
];
const SHORT: [f64; 13] = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 10.0];

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::default(),
            duration: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            first_token: Family::new_with_constructor(|| Histogram::new(FIRST)),
            tokens: Family::new_with_constructor(|| Histogram::new(TOKENS)),
            overhead: Family::new_with_constructor(|| Histogram::new(SHORT)),
            append: Histogram::new(SHORT),
            in_flight: Gauge::default(),
            twins: Family::default(),
            twin_tokens: Family::default(),
            twin_dollars: Family::default(),
            twins_refused: Family::default(),
            twins_late: Counter::default(),
            twins_waiting: Gauge::default(),
            refusals: Family::default(),
            repeated: Counter::default(),
            expired: Counter::default(),
            untold: Counter::default(),
            upstream: Upstream::default(),
        };
        metrics.register();
        metrics
    }

    /// An exchange ended.
    pub(crate) fn ended(&self, ended: &Ended<'_>) {
        let Ended { route, model, outcome, usage, took, waited } = *ended;
        let error_type = outcome.code().unwrap_or_default().to_owned();
        let of_model = labels(route, model);
        let ModelLabels { gen_ai_operation_name, gen_ai_request_model } = of_model.clone();
        let of_exchange =
            ExchangeLabels { gen_ai_operation_name, gen_ai_request_model, outcome: outcome.as_str(), error_type };
        self.duration.get_or_create(&of_exchange).observe(took.as_secs_f64());
        for (gen_ai_token_type, tokens) in [("input", usage.prompt_tokens), ("output", usage.completion_tokens)] {
            let ModelLabels { gen_ai_operation_name, gen_ai_request_model } = of_model.clone();
            let of_tokens = TokenLabels { gen_ai_operation_name, gen_ai_request_model, gen_ai_token_type };
            if outcome.code().is_none() {
                self.tokens.get_or_create(&of_tokens).observe(tokens as f64);
            }
        }
        // Of one that was cut off it is not known how long the last wait was.
        if *outcome == Outcome::Completed {
            self.overhead.get_or_create(&of_model).observe(took.saturating_sub(waited).as_secs_f64());
        }
    }

    /// Twins were drawn, or some of their tokens were.
    pub(crate) fn twins_drawn(&self, mode: TwinMode, route: Route, model: &str, drawn: &Drawn) {
        let ModelLabels { gen_ai_operation_name, gen_ai_request_model } = labels(route, model);
        let labels = TwinLabels { gen_ai_operation_name, gen_ai_request_model, mode: mode.as_str() };
        if drawn.tokens > 0 {
            self.twin_tokens.get_or_create(&labels).inc_by(drawn.tokens);
        }
        if drawn.twins > 0 {
            self.twins.get_or_create(&labels).inc_by(drawn.twins);
        }
        if drawn.cost > Money::ZERO {
            self.twin_dollars.get_or_create(&labels).inc_by(drawn.cost.nanos() as f64 / 1e9);
        }
    }

    /// An exchange whose lot it was has no twins, or fewer.
    pub(crate) fn twin_refused(&self, mode: TwinMode, reason: &'static str) {
        self.twins_refused.get_or_create(&TwinRefusalLabels { mode: mode.as_str(), reason }).inc();
    }

    /// The answer to an exchange ended before all its draws.
    pub(crate) fn twins_late(&self) {
        self.twins_late.inc();
    }

    /// The first piece of an answer went out, so long after its request arrived.
    pub(crate) fn first_token(&self, route: Route, model: &str, after: Duration) {
        self.first_token.get_or_create(&labels(route, model)).observe(after.as_secs_f64());
    }

    /// The journal took an entry, or failed to.
    pub(crate) fn appended(&self, took: Duration) {
        self.append.observe(took.as_secs_f64());
    }

    /// A request was refused before any model saw it.
    pub(crate) fn refused(&self, code: &'static str) {
        self.refusals.get_or_create(&CodeLabels { code }).inc();
    }

    /// An answer that was kept was given again.
    pub(crate) fn repeated(&self) {
        self.repeated.inc();
    }

    /// Abandoned reservations expired.
    pub(crate) fn expired(&self, count: u64) {
        self.expired.inc_by(count);
    }

    /// So many exchanges in all were not told to the collector of traces.
    pub(crate) fn untold(&self, total: u64) {
        self.untold.inc_by(total.saturating_sub(self.untold.get()));
    }

    /// How the servers of `model` do.
    pub(crate) fn servers(&self, model: &str, servers: &[Server]) {
        let total = |family: &Family<ServerLabels, Counter>, labels: &ServerLabels, total: u64| {
            let counter = family.get_or_create(labels);
            counter.inc_by(total.saturating_sub(counter.get()));
        };
        for server in servers {
            let (gen_ai_request_model, server_address) = (model.to_owned(), server.name.clone());
            let labels = ServerLabels { gen_ai_request_model, server_address };
            total(&self.upstream.requests, &labels, server.requests);
            total(&self.upstream.retries, &labels, server.retries);
            total(&self.upstream.failures, &labels, server.failures);
            self.upstream.resting.get_or_create(&labels).set(server.resting.into());
        }
    }

    /// All metrics as text, with so many requests under way and exchanges that wait for twins.
    pub(crate) fn to_text(&self, in_flight: usize, waiting: usize) -> String {
        self.twins_waiting.set(i64::try_from(waiting).unwrap_or(i64::MAX));
        self.in_flight.set(i64::try_from(in_flight).unwrap_or(i64::MAX));
        let mut out = String::new();
        // Writing to a string does not fail.
        let _ = text::encode(&mut out, &self.registry);
        out
    }

    fn register(&mut self) {
        let Self { registry, .. } = self;
        registry.register(
            "gen_ai_server_request_duration_seconds",
            "Time from the arrival of a request to the moment its answer was recorded and charged",
            self.duration.clone(),
        );
        registry.register(
            "gen_ai_server_time_to_first_token_seconds",
            "Time from the arrival of a request to the first piece of its answer",
            self.first_token.clone(),
        );
        registry.register(
            "gen_ai_client_token_usage",
            "Tokens of an exchange that the customer sees: of its prompt and of what was served",
            self.tokens.clone(),
        );
        registry.register(
            "anbiq_overhead_seconds",
            "Time of a completed exchange in the gateway, less waiting for the model and for the client",
            self.overhead.clone(),
        );
        registry.register(
            "anbiq_journal_append_seconds",
            "Time until an entry of the journal was durable",
            self.append.clone(),
        );
        registry.register("anbiq_requests_in_flight", "Requests for text under way", self.in_flight.clone());
        registry.register(
            "anbiq_twins_drawn",
            "Draws that were not served and ended in good order",
            self.twins.clone(),
        );
        registry.register(
            "anbiq_twin_tokens",
            "Tokens of draws that were not served: what twins cost the provider",
            self.twin_tokens.clone(),
        );
        registry.register(
            "anbiq_twin_cost_dollars",
            "What twins cost the provider, at the teacher's ordinary price or that of deferred work",
            self.twin_dollars.clone(),
        );
        registry.register(
            "anbiq_twins_refused",
            "Exchanges whose lot it was to be twinned and that have no twins, or fewer, by reason",
            self.twins_refused.clone(),
        );
        registry.register(
            "anbiq_twins_late",
            "Twinned exchanges whose answer ended before all their draws",
            self.twins_late.clone(),
        );
        registry.register("anbiq_twins_waiting", "Exchanges that wait for deferred twins", self.twins_waiting.clone());
        registry.register(
            "anbiq_refusals",
            "Requests that were refused before any model saw them, by code",
            self.refusals.clone(),
        );
        registry.register(
            "anbiq_answers_repeated",
            "Requests that were given a kept answer, for their idempotency key",
            self.repeated.clone(),
        );
        registry.register(
            "anbiq_reservations_expired",
            "Reservations that nobody settled in time",
            self.expired.clone(),
        );
        registry.register(
            "anbiq_telemetry_dropped",
            "Exchanges that the collector of traces was not told of",
            self.untold.clone(),
        );
        let Upstream { requests, retries, failures, resting } = &self.upstream;
        registry.register("anbiq_upstream_requests", "Requests sent to a server", requests.clone());
        registry.register("anbiq_upstream_retries", "Second and later tries sent to a server", retries.clone());
        registry.register("anbiq_upstream_failures", "Requests that a server failed", failures.clone());
        registry.register("anbiq_upstream_resting", "1 where a server is left alone for a while", resting.clone());
    }
}

fn labels(route: Route, model: &str) -> ModelLabels {
    ModelLabels { gen_ai_operation_name: operation(route), gen_ai_request_model: model.to_owned() }
}

/// What OpenTelemetry calls a route.
pub(crate) const fn operation(route: Route) -> &'static str {
    match route {
        // The conventions count both as one operation.
        Route::Chat | Route::Responses => "chat",
        Route::Completions => "text_completion",
        Route::Embeddings => "embeddings",
    }
}
