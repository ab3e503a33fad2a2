use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anbiq_domain::{
    AccountId, Clock, ClockKind, CoinKey, Entry, EpochCommitment, ExchangeId, KeyedHasher, Seeded, Timestamp, TwinMode,
};
use anbiq_journal::{Journal, JournalError, Position, Reader, Record, Spool, TextKeys};
use anbiq_ledger::{Ledger, Session};
use anbiq_model::Model;
use anbiq_statistics::sketch::Sketcher;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

use crate::charges::{Recovery, Uncharged};
use crate::metrics::Metrics;
use crate::planted::{Planted, PlantedDraw};
use crate::rate::{Accounts, Taken};
use crate::rejection::Rejection;
use crate::repeats::Repeats;
use crate::telemetry::Telemetry;
use crate::twins::{Deferral, Purse};
use crate::{Config, Secrets, ServeError, routes};

/// What a gateway is made of.
#[derive(Debug)]
pub struct GatewayParts {
    /// How it serves.
    pub config: Config,
    /// Accounts, terms, budgets.
    pub ledger: Ledger,
    /// Where exchanges are recorded.
    pub journal: Journal,
    /// The teachers, each under its own name.
    pub models: Vec<Arc<dyn Model>>,
    /// Canaries, each draw of which the journal must commit to: see [`Gateway::recall`].
    pub planted: Vec<PlantedDraw>,
    /// Its keys.
    pub secrets: Secrets,
    /// Where the time comes from.
    pub clock: Arc<dyn Clock>,
    /// Where other programs leave entries for the journal while this gateway writes it.
    pub spool: Option<Spool>,
}

/// A gateway. Clones are the same gateway.
#[derive(Clone)]
pub struct Gateway(pub(crate) Shared);

/// A gateway as its parts see it.
pub(crate) type Shared = Arc<Inner>;

pub(crate) struct Inner {
    pub(crate) config: Config,
    pub(crate) ledger: Ledger,
    pub(crate) journal: Journal,
    pub(crate) models: BTreeMap<String, Arc<dyn Model>>,
    /// What is answered in words that were fixed beforehand.
    pub(crate) planted: Planted,
    pub(crate) coin: CoinKey,
    pub(crate) epoch: u32,
    pub(crate) hasher: KeyedHasher,
    pub(crate) sketcher: Sketcher,
    pub(crate) texts: Option<TextKeys>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) spool: Option<Spool>,
    pub(crate) opened: Timestamp,
    pub(crate) metrics: Metrics,
    /// Where a collector is told what happens.
    pub(crate) telemetry: Option<Telemetry>,
    /// The exchanges between their entry and their charge.
    pub(crate) uncharged: Uncharged,
    /// The requests that named themselves.
    pub(crate) repeats: Repeats,
    /// One permit for each request under way.
    pub(crate) in_flight: Arc<Semaphore>,
    /// Requests under way listen to it: true ends them.
    pub(crate) abort: watch::Sender<bool>,
    /// One permit for each twinned exchange until its slowest draw has ended.
    pub(crate) twins_under_way: Arc<Semaphore>,
    /// The day's money for twins that are drawn together, and for deferred ones.
    purses: [Arc<Purse>; 2],
    /// The exchanges that wait for deferred twins.
    pub(crate) deferral: Deferral,
    /// Keyed by the coin: nobody without its key can foresee which exchanges are twinned.
    pub(crate) twin_hasher: KeyedHasher,
    draining: AtomicBool,
    journal_works: AtomicBool,
    ids: Seeded,
    requests: AtomicU64,
    accounts: Mutex<Accounts>,
}

impl Gateway {
    /// Makes a gateway, and journals that it opened and which coins it will use.
    ///
    /// No exchange can be decided by a coin that the journal has not committed to, since there is no gateway before.
    ///
    /// # Errors
    /// The configuration makes no sense, two models have one name, or the journal fails.
    pub async fn open(parts: GatewayParts) -> Result<Self, ServeError> {
        parts.config.check()?;
        let mut models = BTreeMap::new();
        for model in parts.models {
            let name = model.name().to_owned();
            if models.insert(name.clone(), model).is_some() {
                return Err(ServeError::DuplicateModel(name));
            }
        }
        for (model, cheaper) in &parts.config.twin.deferred.models {
            if let Some(unknown) = [model, cheaper].into_iter().find(|name| !models.contains_key(*name)) {
                let why = format!("`twin.deferred.models` names `{unknown}`, and there is no such model");
                return Err(ServeError::Config(why));
            }
        }
        let opened = parts.clock.now();
        let ids = Seeded::new(parts.config.seed.map_or_else(random_seed, Ok)?);
        let telemetry = Telemetry::new(&parts.config.telemetry, opened)?;
        let inner = Inner {
            repeats: Repeats::new(parts.config.idempotency),
            in_flight: Arc::new(Semaphore::new(parts.config.max_in_flight as usize)),
            abort: watch::Sender::new(false),
            twins_under_way: Arc::new(Semaphore::new(parts.config.twin.max_in_flight as usize)),
            purses: [parts.config.twin.daily_limit, parts.config.twin.deferred.daily_limit].map(Purse::new),
            deferral: Deferral::new(parts.config.twin.deferred.clone()),
            twin_hasher: KeyedHasher::new(parts.secrets.coin.reveal()),
            hasher: KeyedHasher::new(&parts.secrets.sketch_key),
            sketcher: Sketcher::new(&parts.secrets.sketch_key),
            texts: parts.secrets.texts,
            coin: parts.secrets.coin,
            epoch: parts.secrets.epoch,
            config: parts.config,
            ledger: parts.ledger,
            journal: parts.journal,
            models,
            planted: Planted::new(parts.planted),
            clock: parts.clock,
            spool: parts.spool,
            opened,
            metrics: Metrics::new(),
            uncharged: Uncharged::default(),
            telemetry,
            draining: AtomicBool::new(false),
            journal_works: AtomicBool::new(true),
            ids,
            requests: AtomicU64::new(0),
            accounts: Mutex::default(),
        };
        inner.take_in().await?;
        inner.announce().await?;
        Ok(Self(Arc::new(inner)))
    }

    /// Its routes.
    pub fn router(&self) -> axum::Router {
        routes::router(Arc::clone(&self.0))
    }

    /// The routes for whoever operates it; they ask for no key.
    pub fn admin_router(&self) -> axum::Router {
        routes::admin_router(Arc::clone(&self.0))
    }

    /// Counts the exchanges that each account already has in the journal behind `reader`, so that a plan's `twin_first`
    /// and `requests_per_day` count over restarts, and what was spent on twins today; remembers the requests that named
    /// themselves; finds the exchanges that still wait for
    /// deferred twins and whose texts the journal keeps; and charges the exchanges that a crash kept from the ledger. Gives how
    /// many exchanges there are. To be called before serving: it reads the whole journal.
    ///
    /// Without it every account's count begins anew at each start, which twins more exchanges than the plan says, and what
    /// was served just before a crash is served for nothing.
    ///
    /// # Errors
    /// The journal cannot be read or does not commit to a draw of canaries, or the ledger fails.
    pub async fn recall(&self, reader: &Reader) -> Result<u64, ServeError> {
        let (mut total, now) = (0, self.0.clock.now());
        let mut recovery = Recovery::of(&self.0.ledger, reader.id()).await?;
        let mut entries = 0;
        for record in reader.entries()? {
            let Record { entry, index, .. } = record?;
            entries = index + 1;
            if let Entry::Exchange(exchange) = &entry {
                recovery.see(index, exchange).await?;
                self.0.repeats.recall(exchange, now);
            }
            self.0.deferral.recall(&entry, self.0.config.twin.k, now);
            match entry {
                Entry::Exchange(exchange) => {
                    self.0.accounts().recall(&exchange.account, exchange.at);
                    total += 1;
                    if let Some(twinning) = exchange.draws.twinning {
                        self.0.purse(twinning.mode).recall(exchange.at, twinning.cost);
                    }
                }
                Entry::TwinsDrawn(twins) => {
                    self.0.purse(twins.twinning.mode).recall(twins.at, twins.twinning.cost);
                }
                Entry::CanariesDrawn { drawn, .. } => self.0.planted.seen(drawn.draw),
                Entry::TwinsStopped { at, mode, .. } => self.0.purse(mode).recall_told(at),
                _ => {}
            }
        }
        self.0.planted.check()?;
        self.0.deferral.recalled();
        recovery.end(entries).await?;
        Ok(total)
    }
}

/// The place of a request under way; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Place {
    _all: OwnedSemaphorePermit,
    /// Whose, where the places of an account are counted.
    own: Option<(Shared, AccountId)>,
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some((gateway, account)) = &self.own {
            gateway.accounts().leave(account);
        }
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway").field("models", &self.models.keys()).finish_non_exhaustive()
    }
}

impl Inner {
    /// What is remembered of the accounts.
    pub(crate) fn accounts(&self) -> MutexGuard<'_, Accounts> {
        // Nothing is half-changed where a holder panicked: each change is one statement.
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The id of the exchange that the account's next request may become.
    ///
    /// It depends on the account's own row of requests only, so that the order in which accounts meet changes nothing.
    pub(crate) fn exchange_id(&self, at: Timestamp, account: &AccountId) -> ExchangeId {
        let number = self.accounts().try_one_more(account);
        ExchangeId::fresh(at, &mut self.ids.fork(&format!("{account} {number}")))
    }

    /// An id for a request that did not become an exchange.
    pub(crate) fn request_id(&self) -> String {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        ExchangeId::fresh(self.clock.now(), &mut self.ids.fork(&format!("request {number}"))).to_string()
    }

    /// Appends to the journal and remembers whether that works.
    pub(crate) async fn record(&self, entry: &Entry) -> Result<Position, JournalError> {
        let started = Instant::now();
        let appended = self.journal.append(entry).await;
        self.metrics.appended(started.elapsed());
        self.journal_works.store(appended.is_ok(), Ordering::Relaxed);
        if let Ok(position) = &appended {
            self.uncharged.written(position.index);
        }
        appended
    }

    /// Did the last append succeed?
    pub(crate) fn journal_works(&self) -> bool {
        self.journal_works.load(Ordering::Relaxed)
    }

    /// Can the journal be written after it could not? Without this a gateway that is sent nothing while it is not ready
    /// would never find out; a checkpoint says nothing false, whenever it is made.
    pub(crate) async fn journal_works_again(&self) -> bool {
        let works = self.journal.checkpoint().await.is_ok();
        self.journal_works.store(works, Ordering::Relaxed);
        works
    }

    /// A place for one more request of the session's account, where there is one.
    pub(crate) fn place(self: &Arc<Self>, session: &Session) -> Result<Place, Rejection> {
        let all = Arc::clone(&self.in_flight).try_acquire_owned();
        let all = all.map_err(|_| Rejection::unavailable("overloaded", "too many requests are under way"))?;
        let account = &session.account;
        let most = [self.config.max_in_flight_per_account, session.plan.max_in_flight].into_iter().flatten().min();
        let own = match most {
            None => None,
            Some(most) if self.accounts().enter(account, most) => Some((Arc::clone(self), account.clone())),
            Some(most) => return Err(Rejection::too_many_under_way(most)),
        };
        Ok(Place { _all: all, own })
    }

    /// The day's money for twins of `mode`.
    pub(crate) fn purse(&self, mode: TwinMode) -> &Arc<Purse> {
        let [together, deferred] = &self.purses;
        match mode {
            TwinMode::Together => together,
            TwinMode::Deferred => deferred,
        }
    }

    /// Ends when no draw is under way whose exchange has ended.
    pub(crate) async fn twins_ended(&self) {
        // It is closed never.
        let _ = self.twins_under_way.acquire_many(self.config.twin.max_in_flight).await;
    }

    /// Takes the tokens off the account's rate that a request can use at most.
    pub(crate) fn take_tokens(
        self: &Arc<Self>,
        session: &Session,
        most: u64,
        at: Timestamp,
    ) -> Result<Taken, Rejection> {
        let Some(per_minute) = session.plan.tokens_per_minute else { return Ok(Taken::nothing()) };
        let taken = self.accounts().take_tokens(&session.account, most, per_minute, at);
        let taken = taken.map_err(Rejection::rate_limited)?;
        Ok(Taken::new(Arc::clone(self), session.account.clone(), per_minute, taken))
    }

    /// Requests for text under way.
    pub(crate) fn under_way(&self) -> usize {
        (self.config.max_in_flight as usize).saturating_sub(self.in_flight.available_permits())
    }

    /// From here on new requests are refused.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::SeqCst);
    }

    pub(crate) fn draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    /// Is the header `x-anbiq-time` believed?
    pub(crate) fn simulated(&self) -> bool {
        self.config.clock == ClockKind::Simulated
    }

    /// Takes the entries that wait in the spool into the journal.
    pub(crate) async fn take_in(&self) -> Result<(), ServeError> {
        if let Some(spool) = &self.spool {
            let taken = spool.drain(&self.journal).await?;
            if taken > 0 {
                tracing::info!(taken, "took entries of an administrator into the journal");
            }
        }
        Ok(())
    }

    async fn announce(&self) -> Result<(), ServeError> {
        self.record(&Entry::Opened {
            journal: self.journal.id().clone(),
            at: self.opened,
            software: concat!("anbiq ", env!("CARGO_PKG_VERSION")).to_owned(),
            clock: self.config.clock,
        })
        .await?;
        let epoch = EpochCommitment { epoch: self.epoch, commitment: self.coin.commitment() };
        self.record(&Entry::CoinsCommitted { at: self.opened, epoch }).await?;
        Ok(())
    }
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn random_seed() -> Result<u64, ServeError> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|_| ServeError::Random)?;
    Ok(u64::from_le_bytes(bytes))
}
