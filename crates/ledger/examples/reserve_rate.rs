//! How many requests a second the ledger carries: `cargo run --release -p anbiq-ledger --example reserve_rate
//! [DIR or URL]`.
//!
//! A pair is one reservation and its settlement. The lookups are those that the gateway
//! makes for one request. A database that is named by a URL must be empty.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anbiq_domain::{
    AccountId, ExchangeId, JournalId, Money, OperatorId, Permission, PlanId, PriceList, Seeded, Terms, TermsId,
    Timestamp, Window,
};
use anbiq_ledger::{Booking, Budget, Cost, Holder, Ledger, Measure, NewAccount, Plan, Reserve, Way};

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

const NOW: Timestamp = Timestamp::from_milliseconds(1_800_000_000_000);

#[tokio::main]
async fn main() -> Outcome<()> {
    let place = std::env::args().nth(1);
    let dir = place.as_deref().map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = dir.join(format!("anbiq-reserve-rate-{}", std::process::id()));
    let url = place.filter(|place| place.contains("://"));
    let ledger = if let Some(url) = &url {
        Ledger::open(url).await?
    } else {
        std::fs::create_dir_all(&dir)?;
        Ledger::open_file(&dir.join("ledger.db")).await?
    };
    let (accounts, key) = furnish(&ledger).await?;
    let mut out = std::io::stdout();
    pairs(&ledger, &accounts, "pairs").await?;
    limit(&ledger, &accounts).await?;
    pairs(&ledger, &accounts, "pairs with four further budgets").await?;
    for callers in [1, 16, 256] {
        let rate = rate(callers, async |_| {
            let session = ledger.authenticate(&key, NOW).await?;
            ledger.teacher(&session, "teacher").await?;
            Ok(())
        });
        writeln!(out, "{callers:>5} callers: {:>9.0} lookups of a request/s", rate.await?)?;
    }
    ledger.close().await;
    if url.is_none() {
        std::fs::remove_dir_all(&dir)?;
    }
    Ok(())
}

/// Pairs so far.
static NUMBER: AtomicU64 = AtomicU64::new(0);

async fn pairs(ledger: &Ledger, accounts: &[AccountId], what: &str) -> Outcome<()> {
    let cost = |nanos| Cost { money: Money::from_nanos(nanos), tokens: 10, completion_tokens: 5 };
    for callers in [1, 16, 256] {
        let rate = rate(callers, async |caller| {
            let account = accounts[caller % accounts.len()].clone();
            let ways = vec![Way { grant: None, most: cost(100) }];
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let exchange = ExchangeId::fresh(NOW, &mut Seeded::new(number));
            ledger.reserve(Reserve { exchange, account, key: None, ways, at: NOW, ttl_ms: 60_000 }).await?;
            let booking = Booking { journal: JournalId::new("journal")?, entry: number };
            ledger.settle(exchange, cost(70), booking).await?;
            Ok(())
        });
        writeln!(std::io::stdout(), "{callers:>5} callers: {:>9.0} reserve+settle {what}/s", rate.await?)?;
    }
    Ok(())
}

/// Three budgets for each account, and one for all of them.
async fn limit(ledger: &Ledger, accounts: &[AccountId]) -> Outcome<()> {
    let operator = OperatorId::new("operator")?;
    let money = Measure::Money(Money::from_dollars(1_000_000));
    for account in accounts {
        ledger.set_operator(account, Some(&operator), NOW).await?;
        for (window, limit) in
            [(Window::Day, money), (Window::Month, money), (Window::Day, Measure::Tokens(1_000_000_000_000))]
        {
            ledger.put_budget(&Budget { holder: Holder::Account(account.clone()), window, limit }).await?;
        }
    }
    let holder = Holder::Operator(operator);
    Ok(ledger.put_budget(&Budget { holder, window: Window::Month, limit: money }).await?)
}

/// How often a second `work` is done by so many callers at once.
async fn rate(callers: usize, work: impl AsyncFn(usize) -> Outcome<()>) -> Outcome<f64> {
    let start = Instant::now();
    let one = async |caller| {
        let mut count = 0_u64;
        while start.elapsed() < Duration::from_secs(3) {
            work(caller).await?;
            count += 1;
        }
        Outcome::Ok(count)
    };
    let counts = futures::future::try_join_all((0..callers).map(one)).await?;
    Ok(counts.iter().sum::<u64>() as f64 / start.elapsed().as_secs_f64())
}

/// A plan, terms, prices, eight accounts, and a key of the first.
async fn furnish(ledger: &Ledger) -> Outcome<(Vec<AccountId>, String)> {
    let plan = Plan { max_logprobs: Some(5), ..Plan::new(PlanId::new("standard")?) };
    ledger.put_plan(&plan).await?;
    let terms =
        Terms::new(TermsId::new("teacher-terms")?, 1, "teacher", Permission::GrantRequired, &"Do not.".repeat(100));
    ledger.put_terms(&terms, NOW).await?;
    let (input, output) = (Money::from_dollars(1), Money::from_dollars(4));
    ledger.put_prices("teacher", PriceList { input, output, ..PriceList::default() }, NOW).await?;
    let mut accounts = Vec::new();
    for number in 0..8 {
        let id = AccountId::new(format!("account-{number}"))?;
        ledger.open_account(&NewAccount { id: id.clone(), plan: plan.id.clone(), payment: None, opened: NOW }).await?;
        ledger.set_budget(&id, Money::from_dollars(1_000_000)).await?;
        accounts.push(id);
    }
    let (_, key) = ledger.issue_key(&accounts[0], None, NOW).await?;
    ledger.accept_terms(&accounts[0], &terms.reference(), NOW).await?;
    Ok((accounts, key.expose().clone()))
}
