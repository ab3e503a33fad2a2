//! Charges that a crash took away, and that the journal brings back.

use std::collections::BTreeSet;

use anbiq_domain::{KeyId, OperatorId, Window};
use futures::{FutureExt as _, StreamExt as _};

use super::*;
use crate::{Booked, BudgetUse};

on_every_database![
    what_the_journal_charged_is_made_good_once,
    a_journal_that_is_new_owes_nothing,
    what_was_let_go_is_there_for_whoever_comes_next,
    closing_charges_what_waits,
];

const HOUR: i64 = 60 * MINUTE;

fn journal() -> JournalId {
    entry(0).journal
}

fn asking(exchange: ExchangeId, key: &KeyId, most: i64) -> Reserve {
    let grant = Some(GrantId::new("g").unwrap());
    let ways = vec![Way { grant, most: cost(most, 10) }];
    Reserve { exchange, account: acme(), key: Some(key.clone()), ways, at: NOW, ttl_ms: HOUR }
}

fn booked(exchange: ExchangeId, key: &KeyId, actual: Cost, number: u64) -> Booked {
    let grant = Some(GrantId::new("g").unwrap());
    Booked { exchange, account: acme(), key: key.clone(), grant, at: NOW, actual, booking: entry(number) }
}

/// A ledger in which everything counts for budgets of a key, an account and an operator, and for a grant.
async fn furnished(place: &Place) -> (Ledger, KeyId) {
    let ledger = place.fresh().await;
    ledger.set_budget(&acme(), nanos(1_000_000)).await.unwrap();
    ledger.give_grant(&grant("g", Some(1_000_000), None)).await.unwrap();
    let operator = OperatorId::new("group").unwrap();
    ledger.set_operator(&acme(), Some(&operator), NOW).await.unwrap();
    let (key, _) = ledger.issue_key(&acme(), None, NOW).await.unwrap();
    for holder in [Holder::Key(key.clone()), Holder::Account(acme()), Holder::Operator(operator)] {
        let limit = Measure::Money(nanos(1_000_000));
        ledger.put_budget(&Budget { holder, window: Window::Day, limit }).await.unwrap();
    }
    (ledger, key)
}

/// Spent and reserved of every budget, and what of the grant is used.
async fn standing(ledger: &Ledger) -> (Vec<(i64, i64)>, u64) {
    let uses = ledger.budgets(None, NOW, &Page::default()).await.unwrap();
    let count = |measure: Measure| measure.count().unwrap();
    let standing = |one: &BudgetUse| (count(one.spent), count(one.reserved));
    let used = ledger.grant_of(&acme(), &terms(1).id, NOW).await.unwrap().unwrap().2;
    (uses.iter().map(standing).collect(), used)
}

/// Begins to settle all of `exchanges`, as a gateway does before it lets an answer go, and waits for none.
fn begin_to_settle(ledger: &Ledger, exchanges: Vec<ExchangeId>, actual: Cost) -> Vec<tokio::task::JoinHandle<()>> {
    let settle = |exchange| {
        let ledger = ledger.clone();
        let mut settling = Box::pin(async move { ledger.settle(exchange, actual, entry(7)).await.unwrap() });
        assert!(settling.as_mut().now_or_never().is_none(), "it waits for company");
        tokio::spawn(settling)
    };
    exchanges.into_iter().map(settle).collect()
}

async fn what_was_let_go_is_there_for_whoever_comes_next(place: &Place) {
    let ledger = place.fresh().await;
    // So few that the next change takes all of them along, and more than it takes.
    for count in [1, 3, 100] {
        ledger.set_budget(&acme(), nanos(100)).await.unwrap();
        let most = nanos(100 / count);
        let held = (0..count).map(|_| reserve(&ledger, most, None, NOW, MINUTE));
        let held: Vec<ExchangeId> = join_all(held).await.into_iter().map(Result::unwrap).collect();
        let settling = begin_to_settle(&ledger, held, Cost::default());
        let all = reserve(&ledger, nanos(100), None, NOW, MINUTE).await.unwrap();
        ledger.release(all).await.unwrap();
        for settled in settling {
            settled.await.unwrap();
        }
        let state = ledger.budget(&acme()).await.unwrap().unwrap();
        assert_eq!((state.spent, state.reserved), (nanos(0), nanos(0)));
    }
}

async fn closing_charges_what_waits(place: &Place) {
    let ledger = place.fresh().await;
    let held = join_all((0..20).map(|_| reserve(&ledger, nanos(10), None, NOW, MINUTE))).await;
    let held: Vec<ExchangeId> = held.into_iter().map(Result::unwrap).collect();
    let late = reserve(&ledger, nanos(10), None, NOW, MINUTE).await.unwrap();
    let settling = begin_to_settle(&ledger, held, cost(2, 0));
    ledger.clone().close().await;
    for settled in settling {
        settled.await.unwrap();
    }
    assert_eq!(settle(&ledger, late, cost(2, 0)).await.unwrap_err().code(), "ledger_failed");
    let state = place.open().await.budget(&acme()).await.unwrap().unwrap();
    assert_eq!((state.spent, state.reserved), (nanos(40), nanos(10)));
}

async fn what_the_journal_charged_is_made_good_once(place: &Place) {
    let (ledger, key) = furnished(place).await;
    let [certain, charged, reserved, expired, unserved, forgotten] = std::array::from_fn(|_| exchange());
    for exchange in [certain, charged, reserved, expired, unserved] {
        ledger.reserve(asking(exchange, &key, 100)).await.unwrap();
    }
    ledger.settle(certain, cost(1, 1), entry(1)).await.unwrap();
    ledger.all_charged(&journal(), 2).await.unwrap();
    ledger.all_charged(&journal(), 1).await.unwrap();
    assert_eq!(ledger.charged_before(&journal()).await.unwrap(), Some(2), "it goes forward alone");
    ledger.settle(charged, cost(2, 2), entry(2)).await.unwrap();
    drop(ledger);

    let ledger = place.open().await;
    ledger.expire(later(HOUR)).await.unwrap();
    let held = BTreeSet::from_iter(ledger.held().await.unwrap());
    assert_eq!(held, BTreeSet::from([reserved, expired, unserved]), "what is charged is not held");
    for round in 0..3 {
        let mut charged_now = Vec::new();
        for (exchange, cost, number) in [
            (charged, cost(2, 2), 2),
            (reserved, cost(4, 3), 3),
            (expired, cost(8, 4), 4),
            (unserved, Cost::default(), 5),
            (forgotten, cost(16, 5), 6),
        ] {
            charged_now.push(ledger.make_good(booked(exchange, &key, cost, number)).await.unwrap());
        }
        assert_eq!(charged_now, [false, round == 0, round == 0, false, round == 0]);
        assert_eq!(standing(&ledger).await, (vec![(31, 0); 4], 15));
    }
    assert_eq!(ledger.settle(forgotten, cost(16, 5), entry(6)).await.unwrap_err().code(), "reservation_closed");
    ledger.all_charged(&journal(), 7).await.unwrap();
    let (left,): (i64,) = sqlx::query_as("SELECT COUNT(*) FROM holds").fetch_one(&ledger.writers).await.unwrap();
    assert_eq!(left, 0, "nothing is kept of what is certain");
    let stranger = Booked { account: AccountId::new("nobody").unwrap(), ..booked(exchange(), &key, cost(1, 1), 9) };
    assert_eq!(ledger.make_good(stranger).await.unwrap_err().code(), "unknown_account");
}

async fn a_journal_that_is_new_owes_nothing(place: &Place) {
    let (ledger, key) = furnished(place).await;
    assert_eq!(ledger.charged_before(&journal()).await.unwrap(), None);
    let exchange = exchange();
    ledger.reserve(asking(exchange, &key, 100)).await.unwrap();
    ledger.settle(exchange, cost(1, 1), entry(1)).await.unwrap();
    let other = JournalId::new("other").unwrap();
    ledger.all_charged(&other, 100).await.unwrap();
    assert!(!ledger.make_good(booked(exchange, &key, cost(1, 1), 1)).await.unwrap(), "one journal ends not another's");
}

/// What a power cut leaves of a SQLite file is what was written up to some moment since it was last synced. From wherever
/// that is the journal brings every charge back, once.
#[tokio::test]
async fn a_power_cut_costs_nobody_anything() {
    let place = Place::sqlite();
    let (ledger, key) = furnished(&place).await;
    ledger.all_charged(&journal(), 0).await.unwrap();
    let Place::Sqlite(dir) = &place else { unreachable!() };
    let files =
        || ["", "-wal"].map(|name| std::fs::read(dir.path().join(["the ledger #1?.db", name].concat())).unwrap());
    let synced = files()[1].len();
    let mut random = Seeded::new(3);
    // Exchanges whose entries are on disk, in the order of these.
    let mut entries: Vec<(ExchangeId, Cost)> = Vec::new();
    let mut open: Vec<(ExchangeId, Option<u64>)> = Vec::new();
    for _ in 0..120 {
        if open.is_empty() || random.chance(0.4) {
            let exchange = exchange();
            ledger.reserve(asking(exchange, &key, 100)).await.unwrap();
            open.push((exchange, None));
            continue;
        }
        let which = random.below(open.len());
        let (exchange, journalled) = open[which];
        let Some(number) = journalled else {
            open[which].1 = Some(entries.len() as u64);
            entries.push((exchange, cost(1 + random.below(90) as i64, 1 + random.below(9) as u64)));
            continue;
        };
        open.swap_remove(which);
        ledger.settle(exchange, entries[number as usize].1, entry(number)).await.unwrap();
        if random.chance(0.2) {
            let first = open.iter().filter_map(|(_, number)| *number).min();
            ledger.all_charged(&journal(), first.unwrap_or(entries.len() as u64)).await.unwrap();
        }
    }
    assert!(entries.len() > 30, "{}", entries.len());
    let (money, tokens) = entries
        .iter()
        .fold((0, 0), |(money, tokens), (_, cost)| (money + cost.money.nanos(), tokens + cost.completion_tokens));
    let [file, log] = files();
    let recovered = |cut: usize| {
        let (file, log, key, entries) = (&file, &log, &key, &entries);
        async move {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join("ledger.db"), file).unwrap();
            std::fs::write(dir.path().join("ledger.db-wal"), &log[..cut]).unwrap();
            let ledger = Ledger::open_file(&dir.path().join("ledger.db")).await.unwrap();
            let from = ledger.charged_before(&journal()).await.unwrap().unwrap();
            let held = ledger.held().await.unwrap();
            let mut good = 0;
            for (number, (exchange, cost)) in (0..).zip(entries) {
                if number >= from || held.contains(exchange) {
                    let booked = booked(*exchange, key, *cost, number);
                    good += u32::from(ledger.make_good(booked).await.unwrap());
                }
            }
            ledger.expire(later(HOUR)).await.unwrap();
            assert_eq!(standing(&ledger).await, (vec![(money, 0); 4], tokens), "cut at {cut} of {}", log.len());
            good
        }
    };
    let cuts = (0..40).map(|number| if number == 0 { synced } else { synced + random.below(log.len() - synced) });
    let good: Vec<u32> = futures::stream::iter(cuts.map(recovered)).buffered(1).collect().await;
    assert_eq!(good.iter().max(), Some(&(entries.len() as u32)), "at worst all of them");
    assert_eq!(good.iter().filter(|good| **good == 0).count(), 0, "some were under way in each");
}
