use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anbiq_domain::{ClockKind, CoinKey};
use anbiq_journal::TextKeys;
use serde::{Deserialize, Serialize};

use crate::ServeError;

/// How the gateway serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where to listen; whoever opens the listener reads it.
    pub listen: SocketAddr,
    /// Where to listen for whoever operates the gateway: `/livez`, `/readyz` and `/metrics`, without a key. Absent for
    /// nowhere; whoever opens the listener reads it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin_listen: Option<SocketAddr>,
    /// May `admin_listen` be an address that other machines reach? Whoever reaches it needs no key.
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
    /// Most requests under way; one more is refused and may be sent again.
    pub max_in_flight: u32,
    /// Most requests of one account under way; absent for as many as the gateway holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_in_flight_per_account: Option<u32>,
    /// How long a request that names itself by `Idempotency-Key` is remembered.
    pub idempotency: IdempotencyConfig,
    /// How twins are drawn.
    pub twin: TwinConfig,
    /// Fixes the ids of exchanges, for traffic that is to be played again; taken from the operating system where it
    /// is absent. The coins are fixed by their key alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
}

/// How long and how many requests are remembered that name themselves by the header `Idempotency-Key`.
///
/// Such a request is led to its end, and charged, even where its client leaves: it may come back for the whole answer.
/// All are remembered in memory: after a restart a repeated key is a new request, which is answered and charged anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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

/// How twins are drawn. For which exchanges is said by the account's plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TwinConfig {
    /// Completions drawn for a twinned exchange, the served one among them.
    pub k: u8,
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
            max_in_flight: 1024,
            max_in_flight_per_account: None,
            idempotency: IdempotencyConfig::default(),
            twin: TwinConfig::default(),
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
        Self { k: 2 }
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
