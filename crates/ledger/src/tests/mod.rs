use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

use anbiq_domain::{
    AccountId, Conditions, Digest, ExchangeId, Grant, GrantId, GrantState, JournalId, Money, Permission, PlanId,
    PriceList, Seeded, Terms, TermsId, TermsRef, TextPolicy, Timestamp,
};
use futures::future::join_all;
use sqlx::{AnyPool, Executor};
use tempfile::TempDir;

use crate::backend::Backend;
use crate::schema::{self, VERSION};
use crate::{
    Booking, Budget, Cost, Holder, Ledger, LedgerError, Measure, NewAccount, NewKey, Page, Plan, Reserve, Scope,
    Scopes, TwinPlan, Unit, User, Way, Who, to_json,
};

const NOW: Timestamp = Timestamp::from_milliseconds(1_800_000_000_000);
const MINUTE: i64 = 60_000;

/// The version whose step made tables of their own of budgets and reservations.
const BUDGETS: i64 = 3;

/// The key of ledgers that older versions left.
const OLD_KEY: &str = "sk-anbiq-000000000001-111111111111111111111111111111111111111111111111";

fn later(milliseconds: i64) -> Timestamp {
    NOW.plus_milliseconds(milliseconds)
}

fn nanos(nanos: i64) -> Money {
    Money::from_nanos(nanos)
}

fn acme() -> AccountId {
    AccountId::new("acme").unwrap()
}

fn plan() -> Plan {
    Plan {
        text_policy: TextPolicy::Twinned,
        twin: TwinPlan { share: 0.25, first: 3, ..TwinPlan::default() },
        ..Plan::new(PlanId::new("standard").unwrap())
    }
}

/// Reserves for `acme`, without a key.
async fn reserve(
    ledger: &Ledger,
    amount: Money,
    grant: Option<(GrantId, u64)>,
    at: Timestamp,
    ttl_ms: i64,
) -> Result<ExchangeId, LedgerError> {
    let (grant, completion_tokens) = grant.map_or((None, 0), |(grant, tokens)| (Some(grant), tokens));
    let most = Cost { money: amount, tokens: completion_tokens, completion_tokens };
    let exchange = exchange();
    let reserve = Reserve { exchange, account: acme(), key: None, ways: vec![Way { grant, most }], at, ttl_ms };
    ledger.reserve(reserve).await.map(|_| exchange)
}

/// A fresh exchange.
fn exchange() -> ExchangeId {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    ExchangeId::fresh(NOW, &mut Seeded::new(NUMBER.fetch_add(1, Ordering::Relaxed)))
}

/// Charges what the journal has in some entry.
async fn settle(ledger: &Ledger, exchange: ExchangeId, actual: Cost) -> Result<(), LedgerError> {
    ledger.settle(exchange, actual, entry(7)).await
}

fn entry(entry: u64) -> Booking {
    Booking { journal: JournalId::new("journal").unwrap(), entry }
}

fn cost(nanos: i64, completion_tokens: u64) -> Cost {
    Cost { money: Money::from_nanos(nanos), tokens: completion_tokens, completion_tokens }
}

fn terms(version: u32) -> Terms {
    Terms::new(TermsId::new("teacher-terms").unwrap(), version, "teacher", Permission::GrantRequired, "Do not.")
}

fn grant(id: &str, volume: Option<u64>, expires: Option<Timestamp>) -> Grant {
    Grant {
        id: GrantId::new(id).unwrap(),
        account: acme(),
        terms: terms(1).reference(),
        purpose: "a small model for the shop".to_owned(),
        conditions: Conditions { max_output_tokens: volume, ..Conditions::default() },
        given: NOW,
        expires,
    }
}

/// Where a ledger of a test is kept: every test runs on both databases.
enum Place {
    /// In a file of this folder.
    Sqlite(TempDir),
    /// On a server, in a schema of its own, so that tests do not meet.
    Postgres { server: String, schema: String },
}

impl Place {
    fn sqlite() -> Self {
        Self::Sqlite(tempfile::tempdir().unwrap())
    }

    /// `None`, and it is said once, where `ANBIQ_TEST_POSTGRES` names no server.
    async fn postgres() -> Option<Self> {
        let Ok(server) = std::env::var("ANBIQ_TEST_POSTGRES") else {
            static SAID: Once = Once::new();
            // Printed past the capture of the test runner, which would hide it.
            let said = "SKIPPED the ledger's tests on PostgreSQL: ANBIQ_TEST_POSTGRES may hold the URL of a server\n";
            SAID.call_once(|| std::io::stderr().write_all(said.as_bytes()).unwrap());
            return None;
        };
        let mut random = [0; 8];
        getrandom::fill(&mut random).unwrap();
        let place = Self::Postgres { server, schema: format!("anbiq_test_{}", hex::encode(random)) };
        place.administer("CREATE SCHEMA").await;
        Some(place)
    }

    /// A ledger as an older version left it: with an account, a grant, a key, and a reservation of each kind.
    async fn at_version(&self, version: i64) {
        let pool = AnyPool::connect(&self.url()).await.unwrap();
        schema::bring_to(&pool, self.backend(), version).await.unwrap();
        let (plan, terms) = (to_json("plan", &plan()).unwrap(), to_json("terms", &terms(1)).unwrap());
        let grant = to_json("grant", &grant("g", Some(50), None)).unwrap();
        let secret = OLD_KEY.rsplit('-').next().unwrap();
        let hash = Digest::of_parts(&[&[0; 32], secret.as_bytes()]);
        let reservation = |id: &str, state: &str| {
            format!(
                "INSERT INTO reservations VALUES ('{id}', 'acme', 40, 'g', 7, {}, '{state}')",
                later(MINUTE).milliseconds()
            )
        };
        for sql in [
            format!("INSERT INTO settings VALUES ('pepper', '{}')", "0".repeat(64)),
            format!("INSERT INTO plans VALUES ('standard', '{plan}')"),
            format!("INSERT INTO terms VALUES ('teacher-terms', 1, 'teacher', 1, '{terms}')"),
            "INSERT INTO accounts (id, plan, opened, budget, spent, reserved) VALUES ('acme', 'standard', 1, 100, 5, 40)".to_owned(),
            format!("INSERT INTO api_keys (id, account, hash, issued) VALUES ('000000000001', 'acme', '{hash}', 1)"),
            "INSERT INTO acceptances VALUES ('acme', 'teacher-terms', 1, 1)".to_owned(),
            format!("INSERT INTO grants (id, account, terms, body, given, volume, used, reserved) VALUES ('g', 'acme', 'teacher-terms', '{grant}', 1, 50, 2, 7)"),
            reservation("held", "held"),
            reservation("expired", "expired"),
            reservation("settled", "settled"),
        ] {
            pool.execute(sqlx::AssertSqlSafe(sql)).await.unwrap();
        }
        pool.close().await;
    }

    /// Begins anew.
    async fn empty(&self) {
        match self {
            Self::Sqlite(dir) => {
                for file in std::fs::read_dir(dir.path()).unwrap() {
                    std::fs::remove_file(file.unwrap().path()).unwrap();
                }
            }
            Self::Postgres { .. } => {
                self.administer("DROP SCHEMA").await;
                self.administer("CREATE SCHEMA").await;
            }
        }
    }

    fn backend(&self) -> Backend {
        if matches!(self, Self::Sqlite(_)) { Backend::Sqlite } else { Backend::Postgres }
    }

    fn url(&self) -> String {
        sqlx::any::install_default_drivers();
        match self {
            Self::Sqlite(dir) => format!("sqlite:{}/the ledger %231%3F.db?mode=rwc", dir.path().display()),
            Self::Postgres { server, schema } => {
                let separator = if server.contains('?') { "&" } else { "?" };
                format!("{server}{separator}options[search_path]={schema}")
            }
        }
    }

    async fn open(&self) -> Ledger {
        self.try_open().await.unwrap()
    }

    async fn try_open(&self) -> Result<Ledger, LedgerError> {
        match self {
            Self::Sqlite(dir) => Ledger::open_file(&dir.path().join("the ledger #1?.db")).await,
            Self::Postgres { .. } => Ledger::open(&self.url()).await,
        }
    }

    /// A ledger with a plan, terms and an account.
    async fn fresh(&self) -> Ledger {
        let ledger = self.open().await;
        ledger.put_plan(&plan()).await.unwrap();
        ledger.put_terms(&terms(1), NOW).await.unwrap();
        let account = NewAccount { id: acme(), plan: plan().id, payment: Some("card 1".to_owned()), opened: NOW };
        ledger.open_account(&account).await.unwrap();
        ledger
    }

    /// Is `text` anywhere in the files, or else the tables?
    async fn holds(&self, ledger: &Ledger, text: &str) -> bool {
        match self {
            Self::Sqlite(dir) => std::fs::read_dir(dir.path())
                .unwrap()
                .map(|file| std::fs::read(file.unwrap().path()).unwrap())
                .any(|bytes| bytes.windows(text.len()).any(|window| window == text.as_bytes())),
            Self::Postgres { .. } => {
                let tables: Vec<(String,)> = sqlx::query_as(
                    "SELECT CAST(table_name AS TEXT) FROM information_schema.tables WHERE table_schema = current_schema()",
                )
                .fetch_all(&ledger.writers)
                .await
                .unwrap();
                assert!(tables.len() > 5);
                let mut found = false;
                for (table,) in tables {
                    let rows = format!("SELECT CAST({table} AS TEXT) FROM {table}");
                    let rows: Vec<(String,)> =
                        sqlx::query_as(sqlx::AssertSqlSafe(rows)).fetch_all(&ledger.writers).await.unwrap();
                    found |= rows.iter().any(|(row,)| row.contains(text));
                }
                found
            }
        }
    }

    /// Removes what a folder that goes out of scope would not.
    async fn clear(self) {
        if matches!(self, Self::Postgres { .. }) {
            self.administer("DROP SCHEMA").await;
        }
    }

    async fn administer(&self, what: &str) {
        let Self::Postgres { server, schema } = self else { return };
        sqlx::any::install_default_drivers();
        let pool = AnyPool::connect(server).await.unwrap();
        let end = if what.starts_with("DROP") { " CASCADE" } else { "" };
        pool.execute(sqlx::AssertSqlSafe(format!("{what} {schema}{end}"))).await.unwrap();
        pool.close().await;
    }
}

macro_rules! on_every_database {
    ($($test:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(&super::Place::sqlite()).await;
            })*
        }

        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                if let Some(place) = super::Place::postgres().await {
                    super::$test(&place).await;
                    place.clear().await;
                }
            })*
        }
    };
}

mod admin_keys;
mod budgets;
mod charges;
mod grants;
mod keys;

on_every_database![
    two_hundred_at_once_get_exactly_what_the_budget_holds,
    a_grants_volume_holds_under_concurrency,
    random_sequences_leak_nothing,
    a_crash_between_reserve_and_settle_neither_leaks_nor_charges_twice,
    what_is_settled_while_it_expires_is_given_back_once,
    one_failing_change_takes_no_other_with_it,
    what_nobody_waits_for_is_not_held,
    closing_makes_what_waits,
    programs_that_open_a_new_ledger_at_once_share_it,
    a_ledger_of_an_older_version_is_brought_forward,
    what_another_program_changes_holds_at_once,
    only_a_valid_key_opens_a_session,
    no_secret_is_stored,
    grants_end_and_are_taken_back,
    terms_and_prices_keep_their_versions,
    what_is_not_there_is_named,
];

async fn state(ledger: &Ledger) -> (i64, i64) {
    let budget = ledger.budget(&acme()).await.unwrap().unwrap();
    (budget.spent.nanos(), budget.reserved.nanos())
}

async fn two_hundred_at_once_get_exactly_what_the_budget_holds(place: &Place) {
    let ledger = place.fresh().await;
    ledger.set_budget(&acme(), nanos(1_000)).await.unwrap();
    let one = |_| {
        let ledger = ledger.clone();
        tokio::spawn(async move { reserve(&ledger, nanos(90), None, NOW, MINUTE).await })
    };
    let mut granted = 0;
    for outcome in join_all((0..200).map(one)).await {
        match outcome.unwrap() {
            Ok(_) => granted += 1,
            Err(error) => {
                assert_eq!((error.code(), error.who()), ("insufficient_budget", Who::Customer));
                assert!(error.retryable(), "nothing is spent yet, so others may let go");
            }
        }
    }
    assert_eq!((granted, state(&ledger).await), (11, (0, 990)));
}

async fn a_grants_volume_holds_under_concurrency(place: &Place) {
    let ledger = place.fresh().await;
    let volume = grant("g", Some(1_000), None);
    ledger.give_grant(&volume).await.unwrap();
    let one = |_| {
        let (ledger, id) = (ledger.clone(), volume.id.clone());
        tokio::spawn(async move { reserve(&ledger, nanos(1), Some((id, 90)), NOW, MINUTE).await })
    };
    let outcomes: Vec<_> = join_all((0..50).map(one)).await.into_iter().map(Result::unwrap).collect();
    let (granted, refused): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
    assert!(refused.into_iter().all(|outcome| outcome.unwrap_err().code() == "grant_used_up"));
    assert_eq!(granted.len(), 11);
    assert_eq!(state(&ledger).await, (0, 11), "a refused volume holds no money");
    for reservation in granted {
        settle(&ledger, reservation.unwrap(), cost(1, 90)).await.unwrap();
    }
    let (_, now, used) = ledger.grant_of(&acme(), &terms(1).id, NOW).await.unwrap().unwrap();
    assert_eq!((now, used), (GrantState::Active, 990));
    let last = reserve(&ledger, nanos(1), Some((volume.id.clone(), 10)), NOW, MINUTE).await.unwrap();
    settle(&ledger, last, cost(1, 10)).await.unwrap();
    let (_, now, used) = ledger.grant_of(&acme(), &terms(1).id, NOW).await.unwrap().unwrap();
    assert_eq!((now, used), (GrantState::UsedUp, 1_000));
}

/// What the ledger should hold, kept by the simplest possible means.
#[derive(Default)]
struct Model {
    spent: i64,
    held: BTreeMap<usize, (i64, i64)>,
    expired: Vec<usize>,
    closed: Vec<usize>,
}

async fn random_sequences_leak_nothing(place: &Place) {
    const LIMIT: i64 = 2_000;
    let mut ledger = place.fresh().await;
    ledger.set_budget(&acme(), nanos(LIMIT)).await.unwrap();
    let mut random = Seeded::new(11);
    let (mut model, mut ids, mut now) = (Model::default(), Vec::<ExchangeId>::new(), 0);
    for step in 0..600 {
        now += random.below(20) as i64;
        match random.below(10) {
            0..=3 => {
                let (amount, ttl) = (random.below(300) as i64, random.below(200) as i64 + 1);
                let held: i64 = model.held.values().map(|(amount, _)| amount).sum();
                let outcome = reserve(&ledger, nanos(amount), None, later(now), ttl).await;
                assert_eq!(outcome.is_ok(), model.spent + held + amount <= LIMIT, "step {step}");
                if let Ok(id) = outcome {
                    model.held.insert(ids.len(), (amount, now + ttl));
                    ids.push(id);
                }
            }
            4..=6 if !ids.is_empty() => {
                let which = random.below(ids.len());
                let settles = random.chance(0.6);
                let actual = model.held.get(&which).map_or(5, |(amount, _)| random.below(*amount as usize + 1) as i64);
                let outcome = if settles {
                    settle(&ledger, ids[which], cost(actual, 0)).await
                } else {
                    ledger.release(ids[which]).await
                };
                if model.closed.contains(&which) {
                    assert_eq!(outcome.unwrap_err().code(), "reservation_closed", "step {step}");
                } else {
                    outcome.unwrap();
                    model.spent += if settles { actual } else { 0 };
                    model.held.remove(&which);
                    model.closed.push(which);
                }
            }
            7 | 8 => {
                let over: Vec<usize> =
                    model.held.iter().filter(|(_, (_, end))| *end <= now).map(|(which, _)| *which).collect();
                assert_eq!(ledger.expire(later(now)).await.unwrap(), over.len() as u64, "step {step}");
                for which in over {
                    model.held.remove(&which);
                    model.expired.push(which);
                }
            }
            _ if step % 7 == 0 => {
                ledger.close().await;
                ledger = place.open().await;
            }
            _ => {}
        }
        let held: i64 = model.held.values().map(|(amount, _)| amount).sum();
        assert_eq!(state(&ledger).await, (model.spent, held), "step {step}");
    }
    assert!(model.closed.len() > 50 && model.expired.len() > 20, "the sequence did something");
    ledger.expire(later(now + MINUTE)).await.unwrap();
    assert_eq!(state(&ledger).await, (model.spent, 0));
}

async fn a_crash_between_reserve_and_settle_neither_leaks_nor_charges_twice(place: &Place) {
    let ledger = place.fresh().await;
    ledger.set_budget(&acme(), nanos(100)).await.unwrap();
    ledger.give_grant(&grant("g", Some(50), None)).await.unwrap();
    let hold = Some((GrantId::new("g").unwrap(), 50));
    let lost = reserve(&ledger, nanos(100), hold.clone(), NOW, MINUTE).await.unwrap();
    drop(ledger);

    let ledger = place.open().await;
    assert_eq!(state(&ledger).await, (0, 100), "a reservation outlives the program");
    assert_eq!(ledger.expire(later(MINUTE - 1)).await.unwrap(), 0);
    assert_eq!(ledger.expire(later(MINUTE)).await.unwrap(), 1);
    assert_eq!(ledger.expire(later(MINUTE)).await.unwrap(), 0);
    assert_eq!(state(&ledger).await, (0, 0));
    // The answer was served after all: it is charged, once.
    settle(&ledger, lost, cost(60, 30)).await.unwrap();
    let again = settle(&ledger, lost, cost(60, 30)).await.unwrap_err();
    assert_eq!(again.code(), "reservation_closed");
    assert_eq!(state(&ledger).await, (60, 0));
    let (_, _, used) = ledger.grant_of(&acme(), &terms(1).id, NOW).await.unwrap().unwrap();
    assert_eq!(used, 30);
    let more = reserve(&ledger, nanos(10), hold, NOW, MINUTE).await.unwrap_err();
    assert_eq!(more.code(), "grant_used_up");
    // One that nobody comes back for is forgotten two days later.
    let gone = reserve(&ledger, nanos(10), None, NOW, MINUTE).await.unwrap();
    for days in [1, 3] {
        ledger.expire(later(days * 24 * 60 * MINUTE)).await.unwrap();
    }
    assert_eq!(ledger.release(gone).await.unwrap_err().code(), "reservation_closed");
}

async fn what_is_settled_while_it_expires_is_given_back_once(place: &Place) {
    let ledger = place.fresh().await;
    let other = place.open().await;
    for round in 0..20 {
        let mut held = Vec::new();
        for _ in 0..8 {
            held.push(reserve(&ledger, nanos(10), None, NOW, 1).await.unwrap());
        }
        let settling = join_all(held.iter().map(|id| settle(&ledger, *id, cost(1, 0))));
        let (settled, expired) = tokio::join!(settling, other.expire(later(MINUTE)));
        assert!(settled.iter().all(Result::is_ok) && expired.is_ok(), "{settled:?} {expired:?}");
        assert_eq!(state(&ledger).await, (8 * (round + 1), 0));
    }
}

async fn one_failing_change_takes_no_other_with_it(place: &Place) {
    let ledger = place.fresh().await;
    // An error of the database, not a refusal, for every second of them.
    let index = "CREATE UNIQUE INDEX no_amount_twice ON holds (money)";
    sqlx::query(index).execute(&ledger.writers).await.unwrap();
    let one = |number: i64| {
        let ledger = ledger.clone();
        async move { reserve(&ledger, nanos(1 + number / 2), None, NOW, MINUTE).await }
    };
    let (held, failed): (Vec<_>, Vec<_>) = join_all((0..60).map(one)).await.into_iter().partition(Result::is_ok);
    assert_eq!((held.len(), failed.len()), (30, 30));
    for outcome in failed {
        let error = outcome.unwrap_err();
        assert_eq!((error.code(), error.who()), ("ledger_failed", Who::Database));
    }
    assert_eq!(state(&ledger).await, (0, (1..=30).sum()));
}

async fn what_nobody_waits_for_is_not_held(place: &Place) {
    let ledger = place.fresh().await;
    let mut answered = 0;
    for round in 0..40 {
        // Waited for so long and no longer: the change may be in the queue, under way or done.
        let asked = reserve(&ledger, nanos(10), None, NOW, MINUTE);
        let patience = std::time::Duration::from_micros(round * 50);
        answered += i64::from(tokio::time::timeout(patience, asked).await.is_ok());
    }
    let kept = reserve(&ledger, nanos(7), None, NOW, MINUTE).await.unwrap();
    assert_eq!(state(&ledger).await, (0, 10 * answered + 7));
    // What was served is owed, whether or not anybody waits for the answer.
    let settling = settle(&ledger, kept, cost(3, 0));
    let _ = tokio::time::timeout(std::time::Duration::ZERO, settling).await;
    ledger.close().await;
    assert_eq!(state(&place.open().await).await, (3, 10 * answered));
}

async fn closing_makes_what_waits(place: &Place) {
    let ledger = place.fresh().await;
    let one = |_| {
        let ledger = ledger.clone();
        async move { reserve(&ledger, nanos(1), None, NOW, MINUTE).await }
    };
    let (outcomes, ()) = tokio::join!(join_all((0..60).map(one)), ledger.clone().close());
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    assert_eq!(reserve(&ledger, nanos(1), None, NOW, 1).await.unwrap_err().code(), "ledger_failed");
    assert_eq!(state(&place.open().await).await, (0, 60));
}

async fn a_ledger_of_an_older_version_is_brought_forward(place: &Place) {
    // Later steps only add tables and columns, and what was written before them is read as it was.
    for version in 1..BUDGETS {
        place.at_version(version).await;
        let ledger = place.open().await;
        // What was there before goes on: the key, what was spent, what was held, and what had expired.
        assert_eq!(ledger.authenticate(OLD_KEY, NOW).await.unwrap().account, acme());
        assert_eq!(state(&ledger).await, (5, 40), "version {version}");
        let (_, now, used) = ledger.grant_of(&acme(), &terms(1).id, NOW).await.unwrap().unwrap();
        assert_eq!((now, used), (GrantState::Active, 2));
        // What was held then is under a name that no exchange has, so that it expires.
        assert_eq!(ledger.held().await.unwrap(), []);
        assert_eq!(ledger.expire(later(24 * 60 * MINUTE)).await.unwrap(), 1);
        assert_eq!(state(&ledger).await, (5, 0));
        assert_eq!(ledger.grant_of(&acme(), &terms(1).id, NOW).await.unwrap().unwrap().2, 2);
        ledger.set_budget(&acme(), nanos(100)).await.unwrap();
        let (_, fresh) = ledger.issue_key(&acme(), None, NOW).await.unwrap();
        assert!(ledger.authenticate(fresh.expose(), NOW).await.is_ok());
        ledger.close().await;
        place.empty().await;
    }
}

async fn what_another_program_changes_holds_at_once(place: &Place) {
    let ledger = place.fresh().await;
    let other = place.open().await;
    let (id, key) = other.issue_key(&acme(), None, NOW).await.unwrap();
    let session = async || ledger.authenticate(key.expose(), NOW).await.map_err(|error| error.code());
    let price = |dollars| {
        let input = Money::from_dollars(dollars);
        PriceList { input, output: input, ..PriceList::default() }
    };

    // Each is asked before and after, so that what was remembered would show.
    assert_eq!(session().await.unwrap().accepted, []);
    other.accept_terms(&acme(), &terms(1).reference(), NOW).await.unwrap();
    assert_eq!(session().await.unwrap().accepted, [terms(1).reference()]);
    other.put_plan(&Plan { max_n: 9, ..plan() }).await.unwrap();
    assert_eq!(session().await.unwrap().plan.max_n, 9);

    for dollars in [1, 2] {
        other.put_prices("teacher", price(dollars), later(dollars)).await.unwrap();
        assert_eq!(ledger.prices("teacher").await.unwrap(), Some(price(dollars)));
    }
    assert_eq!(ledger.terms_of_teacher("teacher").await.unwrap(), Some(terms(1)));
    other.put_terms(&terms(2), later(1)).await.unwrap();
    assert_eq!(ledger.terms_of_teacher("teacher").await.unwrap(), Some(terms(2)));

    let of = async || ledger.grant_of(&acme(), &terms(1).id, NOW).await.unwrap().map(|(_, state, _)| state);
    assert_eq!(of().await, None);
    let given = grant("g", None, None);
    other.give_grant(&given).await.unwrap();
    assert_eq!(of().await, Some(GrantState::Active));
    other.revoke_grant(&given.id, NOW).await.unwrap();
    assert_eq!(of().await, Some(GrantState::Revoked));

    other.revoke_key(&id, NOW).await.unwrap();
    assert_eq!(session().await, Err("key_revoked"));
    let (_, key) = other.issue_key(&acme(), None, NOW).await.unwrap();
    assert!(ledger.authenticate(key.expose(), NOW).await.is_ok());
    other.close_account(&acme(), NOW).await.unwrap();
    assert_eq!(ledger.authenticate(key.expose(), NOW).await.unwrap_err().code(), "account_closed");
}

async fn programs_that_open_a_new_ledger_at_once_share_it(place: &Place) {
    let ledgers: Vec<Ledger> = join_all((0..6).map(|_| place.open())).await;
    ledgers[0].put_plan(&plan()).await.unwrap();
    let account = NewAccount { id: acme(), plan: plan().id, payment: None, opened: NOW };
    ledgers[1].open_account(&account).await.unwrap();
    let (_, key) = ledgers[2].issue_key(&acme(), None, NOW).await.unwrap();
    for ledger in &ledgers {
        assert_eq!(ledger.authenticate(key.expose(), NOW).await.unwrap().account, acme());
    }
}

async fn only_a_valid_key_opens_a_session(place: &Place) {
    let ledger = place.fresh().await;
    ledger.accept_terms(&acme(), &terms(1).reference(), NOW).await.unwrap();
    let (id, key) = ledger.issue_key(&acme(), None, NOW).await.unwrap();
    let (old, revoked) = ledger.issue_key(&acme(), None, NOW).await.unwrap();
    ledger.revoke_key(&old, NOW).await.unwrap();
    let (_, short) = ledger.issue_key(&acme(), Some(later(MINUTE)), NOW).await.unwrap();

    let session = ledger.authenticate(key.expose(), NOW).await.unwrap();
    assert_eq!((&session.account, &session.key, &session.plan), (&acme(), &id, &plan()));
    assert_eq!(session.accepted, [terms(1).reference()]);
    assert!(ledger.authenticate(short.expose(), later(MINUTE - 1)).await.is_ok());

    let wrong_secret = format!("sk-anbiq-{id}-{}", "x".repeat(48));
    let right_secret_of_revoked = format!("sk-anbiq-{old}-{}", "x".repeat(48));
    for (presented, code) in [
        (revoked.expose().as_str(), "key_revoked"),
        (short.expose(), "key_expired"),
        (&wrong_secret, "invalid_api_key"),
        (&right_secret_of_revoked, "invalid_api_key"),
        (&format!("sk-anbiq-unknownunkno-{}", "x".repeat(48)), "invalid_api_key"),
        // The key that stands in for malformed ones must not be one.
        (&format!("sk-anbiq-{}-{}", "0".repeat(12), "0".repeat(48)), "invalid_api_key"),
        ("", "invalid_api_key"),
        ("sk-anbiq-' OR 1=1 --", "invalid_api_key"),
    ] {
        let error = ledger.authenticate(presented, later(MINUTE)).await.unwrap_err();
        assert_eq!((error.code(), error.who()), (code, Who::Customer), "{presented}");
    }
    ledger.close_account(&acme(), NOW).await.unwrap();
    assert_eq!(ledger.authenticate(key.expose(), NOW).await.unwrap_err().code(), "account_closed");
    assert_eq!(reserve(&ledger, nanos(1), None, NOW, 1).await.unwrap_err().code(), "account_closed");
}

async fn no_secret_is_stored(place: &Place) {
    let ledger = place.fresh().await;
    let (id, key) = ledger.issue_key(&acme(), None, NOW).await.unwrap();
    let secret = key.expose().rsplit('-').next().unwrap().to_owned();
    assert_eq!(secret.len(), 48);
    assert!(place.holds(&ledger, id.as_str()).await, "the scan finds what is there");
    assert!(!place.holds(&ledger, &secret).await);
    ledger.close().await;
    let ledger = place.open().await;
    assert!(place.holds(&ledger, id.as_str()).await && !place.holds(&ledger, &secret).await);
    #[cfg(unix)]
    if let Place::Sqlite(dir) = place {
        for file in std::fs::read_dir(dir.path()).unwrap() {
            let mode = std::os::unix::fs::PermissionsExt::mode(&file.unwrap().metadata().unwrap().permissions());
            assert_eq!(mode & 0o077, 0);
        }
    }
}

async fn grants_end_and_are_taken_back(place: &Place) {
    let ledger = place.fresh().await;
    let of = async |at| ledger.grant_of(&acme(), &terms(1).id, at).await.unwrap();
    let take = async |id: &str, at| {
        let hold = Some((GrantId::new(id).unwrap(), 1));
        reserve(&ledger, nanos(1), hold, at, MINUTE).await.map(|_| ()).map_err(|error| error.code())
    };
    assert_eq!(of(NOW).await, None);
    let first = grant("first", None, Some(later(MINUTE)));
    ledger.give_grant(&first).await.unwrap();
    assert_eq!(of(NOW).await, Some((first.clone(), GrantState::Active, 0)));
    assert_eq!(take("first", NOW).await, Ok(()));
    assert_eq!(of(later(MINUTE)).await, Some((first, GrantState::Expired, 0)));
    assert_eq!(take("first", later(MINUTE)).await, Err("grant_expired"));

    let second = grant("second", None, None);
    ledger.give_grant(&second).await.unwrap();
    assert_eq!(of(later(MINUTE)).await, Some((second.clone(), GrantState::Active, 0)), "the active one counts");
    ledger.revoke_grant(&second.id, NOW).await.unwrap();
    assert_eq!(take("second", NOW).await, Err("grant_revoked"));
    assert_eq!(take("none", NOW).await, Err("unknown_grant"));
    assert_eq!(ledger.give_grant(&second).await.unwrap_err().code(), "grant_exists");
    let unknown = Grant { terms: TermsRef { version: 9, ..second.terms.clone() }, ..second };
    assert_eq!(ledger.give_grant(&unknown).await.unwrap_err().code(), "unknown_terms");
}

async fn terms_and_prices_keep_their_versions(place: &Place) {
    let ledger = place.fresh().await;
    let id = terms(1).id;
    ledger.put_terms(&terms(1), later(5)).await.unwrap();
    let other = Terms { text: "Do.".to_owned(), ..terms(1) };
    assert_eq!(ledger.put_terms(&other, later(5)).await.unwrap_err().code(), "terms_changed");
    ledger.put_terms(&terms(2), later(6)).await.unwrap();
    assert_eq!(ledger.terms(&id, Some(1)).await.unwrap(), Some(terms(1)));
    assert_eq!(ledger.terms(&id, None).await.unwrap(), Some(terms(2)));
    assert_eq!(ledger.terms(&id, Some(3)).await.unwrap(), None);
    assert_eq!(ledger.terms_of_teacher("teacher").await.unwrap(), Some(terms(2)));
    assert_eq!(ledger.terms_of_teacher("nobody").await.unwrap(), None);

    assert_eq!(ledger.accepted(&acme(), &id).await.unwrap(), None);
    for version in [1, 2] {
        ledger.accept_terms(&acme(), &terms(version).reference(), NOW).await.unwrap();
        assert_eq!(ledger.accepted(&acme(), &id).await.unwrap(), Some(terms(version).reference()));
    }
    assert_eq!(ledger.accept_terms(&acme(), &terms(3).reference(), NOW).await.unwrap_err().code(), "unknown_terms");

    let price = |dollars| PriceList {
        input: Money::from_dollars(dollars),
        output: Money::from_dollars(4),
        ..PriceList::default()
    };
    assert_eq!(ledger.prices("teacher").await.unwrap(), None);
    ledger.put_prices("teacher", price(1), NOW).await.unwrap();
    ledger.put_prices("teacher", price(2), later(1)).await.unwrap();
    assert_eq!(ledger.prices("teacher").await.unwrap(), Some(price(2)));
}

async fn what_is_not_there_is_named(place: &Place) {
    let ledger = place.fresh().await;
    let nobody = AccountId::new("nobody").unwrap();
    let account = |id: &AccountId, plan: &str| NewAccount {
        id: id.clone(),
        plan: PlanId::new(plan).unwrap(),
        payment: None,
        opened: NOW,
    };
    let codes = [
        ledger.open_account(&account(&acme(), "standard")).await.unwrap_err(),
        ledger.open_account(&account(&nobody, "gold")).await.unwrap_err(),
        ledger.issue_key(&nobody, None, NOW).await.unwrap_err(),
        ledger
            .reserve(Reserve {
                exchange: exchange(),
                account: nobody.clone(),
                key: None,
                ways: vec![Way { grant: None, most: cost(1, 0) }],
                at: NOW,
                ttl_ms: 1,
            })
            .await
            .unwrap_err(),
        reserve(&ledger, nanos(-1), None, NOW, 1).await.unwrap_err(),
        ledger.set_budget(&nobody, nanos(1)).await.unwrap_err(),
        Ledger::open("mysql://user:secret@host/db").await.unwrap_err(),
    ]
    .map(|error| error.code());
    assert_eq!(
        codes,
        [
            "account_exists",
            "unknown_plan",
            "unknown_account",
            "unknown_account",
            "amount_out_of_range",
            "unknown_account",
            "ledger_address",
        ]
    );
    assert_eq!(ledger.account(&nobody).await.unwrap(), None);
    assert_eq!(ledger.account(&acme()).await.unwrap().unwrap().payment.as_deref(), Some("card 1"));
    assert_eq!(ledger.budget(&nobody).await.unwrap(), None);

    sqlx::query("UPDATE schema_version SET version = 99").execute(&ledger.writers).await.unwrap();
    ledger.close().await;
    let error = place.try_open().await.unwrap_err();
    assert!(matches!(error, LedgerError::Version { found: 99, known: VERSION }), "{error}");
}

#[tokio::test]
async fn a_ledger_in_memory_works() {
    // In a task of its own, as a program may open it.
    let ledger = tokio::spawn(Ledger::open("sqlite::memory:")).await.unwrap().unwrap();
    ledger.put_plan(&plan()).await.unwrap();
    let account = NewAccount { id: acme(), plan: plan().id, payment: None, opened: NOW };
    ledger.open_account(&account).await.unwrap();
    let held = reserve(&ledger, nanos(7), None, NOW, MINUTE).await.unwrap();
    settle(&ledger, held, cost(3, 0)).await.unwrap();
    assert_eq!(state(&ledger).await, (3, 0));
}

#[tokio::test]
async fn no_error_of_opening_shows_a_password() {
    for (url, code) in [
        // Nobody listens on port 1.
        ("postgres://anbiq:hunter2@127.0.0.1:1/ledger", "ledger_unreachable"),
        ("postgres://127.0.0.1:1/ledger?user=anbiq&password=hunter2", "ledger_unreachable"),
        ("postgres://anbiq:hunter2#@127.0.0.1:1/ledger", "ledger_unreachable"),
        ("mysql://anbiq:hunter2@127.0.0.1:1/ledger", "ledger_address"),
    ] {
        let error = Ledger::open(url).await.unwrap_err();
        assert_eq!(error.code(), code);
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
    }
}
