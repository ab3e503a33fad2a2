use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anbiq_domain::{ClockKind, CoinKey, Money, Timestamp};
use anbiq_journal::TextKeys;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ServeError;
use crate::telemetry::TelemetryConfig;

/// How the gateway serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "ServeConfig")]
pub struct Config {
    /// Where to listen; whoever opens the listener reads it.
    pub listen: SocketAddr,
    /// Where to listen for whoever operates the gateway: `/livez`, `/readyz` and `/metrics`, without a key, and the admin
    /// API, which asks for one. Absent for nowhere; whoever opens the listener reads it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin_listen: Option<SocketAddr>,
    /// May `admin_listen` be an address that other machines reach? Probes and metrics need
    /// no key.
    pub admin_anywhere: bool,
    /// Whether times are real. With a simulated clock every request may say in the header `x-anbiq-time` when it was
    /// made, in milliseconds since 1970; with the system's clock that header means nothing.
    pub clock: ClockKind,
    /// Proxies whose `x-forwarded-for` is believed.
    pub trusted_proxies: Vec<IpAddr>,
    /// How long money stays reserved for a request that nobody settles; longer than any request takes.
    pub reservation_ttl_ms: u64,
    /// Longest time from a request to the end of its answer.
    pub request_timeout_ms: u64,
    /// Longest time that requests under way are given when the gateway stops.
    pub drain_ms: u64,
    /// A silent stream is kept open by a comment after this time.
    pub heartbeat_ms: u64,
    /// Largest request body, in bytes.
    pub max_body_bytes: usize,
    /// Most connections at a time. Where there are as many, the next ones wait in the system's queue.
    pub max_connections: u32,
    /// Longest wait for the whole head of a request, the first one and the next one of a connection.
    pub header_timeout_ms: u64,
    /// Longest wait for the whole body of a request.
    pub body_timeout_ms: u64,
    /// A connection whose client takes nothing of what is sent to it for so long is closed.
    pub write_timeout_ms: u64,
    /// Most requests under way; one more is refused and may be sent again.
    pub max_in_flight: u32,
    /// Most requests of one account under way; absent for as many as the gateway holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_in_flight_per_account: Option<u32>,
    /// How long a request that names itself by `Idempotency-Key` is remembered.
    pub idempotency: IdempotencyConfig,
    /// How twins are drawn.
    pub twin: TwinConfig,
    /// Which addresses servers of models may have: hosts, networks such as `10.0.0.0/8`, and `public` for the public
    /// internet. Absent for the public internet, and for what stands in an address as a number or as `localhost`;
    /// whoever makes the models reads it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream_allow: Option<Vec<String>>,
    /// Which collector of OpenTelemetry is told of exchanges.
    pub telemetry: TelemetryConfig,
    /// Fixes the ids of exchanges, for traffic that is to be played again; taken from the operating system where it
    /// is absent. The coins are fixed by their key alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
}

/// How long and how many requests are remembered that name themselves by the header `Idempotency-Key`.
///
/// Such a request is led to its end, and charged, even where its client leaves: it may come back for the whole answer.
/// All are remembered in memory: after a restart a repeated key is a new request, which is answered and charged anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct IdempotencyConfig {
    /// For how long, in milliseconds of the gateway's clock.
    pub ttl_ms: u64,
    /// Most of them; the oldest are forgotten first.
    pub keys: usize,
    /// Most bytes of their answers together. The oldest answers are forgotten first; their keys are still known, and
    /// are refused instead of being charged twice.
    pub bytes: usize,
}

/// How twins are drawn. For which exchanges, and in which mode, is said by the account's plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TwinConfig {
    /// Completions drawn for a twinned exchange, the served one among them, where its plan does not say.
    pub k: u8,
    /// Money a day (UTC) for twins that are drawn together with their exchange, at the teacher's ordinary price; absent for
    /// no limit. Once it is spent exchanges have no twins until the next day.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub daily_limit: Option<Money>,
    /// Most twinned exchanges under way, those among them whose answer has ended before its twin; one more has no twins.
    pub max_in_flight: u32,
    /// When and at what cost deferred twins are drawn.
    pub deferred: DeferredConfig,
}

/// When and at what cost deferred twins are drawn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DeferredConfig {
    /// From this hour (UTC) on, 0 to 23.
    pub from_hour: u8,
    /// Until this hour (UTC); at the same hour as `from_hour` for the whole day.
    pub until_hour: u8,
    /// Most exchanges a minute whose twins are drawn.
    pub per_minute: u32,
    /// Money a day (UTC) for them; absent for no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub daily_limit: Option<Money>,
    /// What they cost, in percent of the teacher's ordinary price: less where the provider has a cheaper class for work
    /// that can wait.
    pub price_percent: u32,
    /// The name under which a model is asked for them, where it is another: the same model in a cheaper class.
    pub models: BTreeMap<String, String>,
    /// Most exchanges that wait; one more has no twins.
    pub queue: usize,
    /// Most bytes of their prompts together.
    pub queue_bytes: usize,
    /// After so many hours an exchange no longer waits: the teacher may be another by then.
    pub longest_wait_hours: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080),
            admin_listen: None,
            admin_anywhere: false,
            clock: ClockKind::System,
            trusted_proxies: Vec::new(),
            reservation_ttl_ms: 600_000,
            request_timeout_ms: 120_000,
            drain_ms: 30_000,
            heartbeat_ms: 15_000,
            max_body_bytes: 4 << 20,
            max_connections: 16_384,
            header_timeout_ms: 20_000,
            body_timeout_ms: 60_000,
            write_timeout_ms: 60_000,
            max_in_flight: 1024,
            max_in_flight_per_account: None,
            idempotency: IdempotencyConfig::default(),
            twin: TwinConfig::default(),
            upstream_allow: None,
            telemetry: TelemetryConfig::default(),
            seed: None,
        }
    }
}

impl Default for IdempotencyConfig {
    fn default() -> Self {
        Self { ttl_ms: 24 * 3_600_000, keys: 10_000, bytes: 64 << 20 }
    }
}

impl Default for TwinConfig {
    fn default() -> Self {
        Self { k: 2, daily_limit: None, max_in_flight: 1024, deferred: DeferredConfig::default() }
    }
}

impl Default for DeferredConfig {
    fn default() -> Self {
        Self {
            from_hour: 0,
            until_hour: 0,
            per_minute: 30,
            daily_limit: None,
            price_percent: 100,
            models: BTreeMap::new(),
            queue: 10_000,
            queue_bytes: 64 << 20,
            longest_wait_hours: 24,
        }
    }
}

impl DeferredConfig {
    /// Is `now` within the hours?
    pub(crate) fn is_time(&self, now: Timestamp) -> bool {
        // Between 0 and 23.
        let hour = now.milliseconds().div_euclid(3_600_000).rem_euclid(24) as u8;
        match self.from_hour.cmp(&self.until_hour) {
            Ordering::Equal => true,
            Ordering::Less => (self.from_hour..self.until_hour).contains(&hour),
            Ordering::Greater => hour >= self.from_hour || hour < self.until_hour,
        }
    }

    /// Has what waits since `since` waited too long at `now`?
    pub(crate) fn is_old(&self, since: Timestamp, now: Timestamp) -> bool {
        now.since(since) > i64::from(self.longest_wait_hours) * 3_600_000
    }

    /// What deferred twins cost that would ordinarily cost `ordinary`, rounded up.
    pub(crate) fn price_of(&self, ordinary: Money) -> Money {
        let exact = i128::from(ordinary.nanos()) * i128::from(self.price_percent);
        Money::from_nanos(i64::try_from((exact + 99).div_euclid(100)).unwrap_or(i64::MAX))
    }

    fn check(&self) -> Result<(), &'static str> {
        if self.from_hour > 23 || self.until_hour > 23 {
            return Err("`twin.deferred.from_hour` and `until_hour` are between 0 and 23");
        }
        if self.per_minute == 0 || self.per_minute > 60_000 {
            return Err("`twin.deferred.per_minute` is between 1 and 60000");
        }
        if self.price_percent > 1000 {
            return Err("`twin.deferred.price_percent` is at most 1000");
        }
        Ok(())
    }
}

impl Config {
    /// Are the settings of any use together?
    ///
    /// # Errors
    /// [`ServeError::Config`] says which are not.
    pub fn check(&self) -> Result<(), ServeError> {
        let wrong = |why: &str| Err(ServeError::Config(why.to_owned()));
        if !(2..=16).contains(&self.twin.k) {
            return wrong("`twin.k` is the number of completions of a twinned exchange, between 2 and 16");
        }
        if self.twin.max_in_flight == 0 {
            return wrong("`twin.max_in_flight` is at least 1; set the shares of the plans to 0 for no twins");
        }
        if let Err(why) = self.twin.deferred.check() {
            return wrong(why);
        }
        if self.reservation_ttl_ms <= self.request_timeout_ms {
            return wrong("`reservation_ttl_ms` must be longer than `request_timeout_ms`, or budgets would not hold");
        }
        // An exchange with all its texts must fit one entry of the journal.
        if self.max_body_bytes > 8 << 20 {
            return wrong("`max_body_bytes` is at most 8388608");
        }
        if let Some(address) = self.admin_listen.filter(|address| !address.ip().is_loopback() && !self.admin_anywhere) {
            return wrong(&format!(
                "`admin_listen` is `{address}`, which other machines may reach, and it asks for no key\n\
                 hint: listen on 127.0.0.1, or set `admin_anywhere = true` where the network keeps strangers out"
            ));
        }
        if self.idempotency.keys == 0 || self.idempotency.ttl_ms == 0 {
            return wrong("`idempotency.keys` and `idempotency.ttl_ms` are at least 1");
        }
        if self.max_in_flight_per_account == Some(0) {
            return wrong("`max_in_flight_per_account` is at least 1, or absent for no limit");
        }
        if let Some(why) = self.telemetry.problem() {
            return wrong(why);
        }
        let waits = [self.header_timeout_ms, self.body_timeout_ms, self.write_timeout_ms];
        if self.max_connections == 0 || waits.contains(&0) {
            return wrong(
                "`max_connections`, `header_timeout_ms`, `body_timeout_ms` and `write_timeout_ms` are at least 1",
            );
        }
        if self.max_in_flight == 0 || self.request_timeout_ms == 0 || self.heartbeat_ms == 0 {
            return wrong("`max_in_flight`, `request_timeout_ms` and `heartbeat_ms` are at least 1");
        }
        Ok(())
    }
}

/// The gateway's secrets.
#[derive(Clone)]
pub struct Secrets {
    /// The key of this epoch's coins.
    pub coin: CoinKey,
    /// The number of the epoch within the journal, counted from 0; a new key is a new epoch.
    pub epoch: u32,
    /// The key of sketches and of hashed addresses. It must stay the same for sketches to be comparable.
    pub sketch_key: [u8; 32],
    /// The keys of the accounts' sealed texts; without them, texts that were to be sealed are not kept.
    pub texts: Option<TextKeys>,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secrets(epoch {})", self.epoch)
    }
}
