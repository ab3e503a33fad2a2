//! What the journal has and the ledger may not have yet: exchanges on the way from their entry to their charge.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anbiq_domain::{Exchange, ExchangeId, JournalId, Outcome};
use anbiq_ledger::{Booked, Booking, Cost, Ledger, LedgerError};

use crate::exchange;
use crate::gateway::Shared;

/// How often the ledger is told how far everything is charged. After a kill no more of the charges than these last ones has to
/// be looked at again; after a power cut those since its file was last brought to disk.
const TOLD_EVERY: Duration = Duration::from_millis(50);

/// Tries to release what nothing was served for, with a longer pause after each; then it expires.
const RELEASE_TRIES: u32 = 6;

/// The pause after the first try.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// The longest pause between tries to charge what was served, which end with the gateway.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// The exchanges that are being written or charged.
#[derive(Debug, Default)]
pub(crate) struct Uncharged(Arc<Mutex<Row>>);

#[derive(Debug, Default)]
struct Row {
    /// No later entry than this one is the next.
    next: u64,
    /// How many are under way whose entries are no earlier than these.
    under_way: BTreeMap<u64, u32>,
}

/// One of them. Dropping it says that nothing is left to be charged.
#[derive(Debug)]
pub(crate) struct Charge {
    row: Arc<Mutex<Row>>,
    /// Its entry comes no earlier.
    since: u64,
}

impl Uncharged {
    /// Begins one, before its entry is written.
    pub(crate) fn begin(&self) -> Charge {
        let mut row = locked(&self.0);
        let since = row.next;
        *row.under_way.entry(since).or_default() += 1;
        Charge { row: Arc::clone(&self.0), since }
    }

    /// An entry was written.
    pub(crate) fn written(&self, entry: u64) {
        let mut row = locked(&self.0);
        row.next = row.next.max(entry + 1);
    }

    /// Ends when there is none.
    pub(crate) async fn ended(&self) {
        while !locked(&self.0).under_way.is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Every exchange before this entry is charged.
    pub(crate) fn charged_before(&self) -> u64 {
        let row = locked(&self.0);
        row.under_way.keys().next().copied().unwrap_or(row.next)
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let mut row = locked(&self.row);
        if let Some(count) = row.under_way.get_mut(&self.since) {
            *count -= 1;
            if *count == 0 {
                row.under_way.remove(&self.since);
            }
        }
    }
}

/// Nobody panics while holding it.
fn locked(row: &Mutex<Row>) -> MutexGuard<'_, Row> {
    row.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Charges an exchange, however long that takes: where the gateway ends before, the next one does it.
pub(crate) async fn settle(gateway: &Shared, exchange: ExchangeId, actual: Cost, booking: Booking) {
    let mut pause = FIRST_PAUSE;
    loop {
        match gateway.ledger.settle(exchange, actual, booking.clone()).await {
            Ok(()) => return,
            Err(error) if error.retryable() => {
                tracing::warn!(%exchange, code = error.code(), %error, "an exchange could not be charged yet");
            }
            Err(error) => {
                // The journal has the cost.
                let cost = actual.money;
                tracing::error!(%exchange, %cost, code = error.code(), %error, "an exchange could not be charged");
                return;
            }
        }
        wait(gateway, pause).await;
        pause = LONGEST_PAUSE.min(pause * 3);
    }
}

/// Waits for `pause`, or for a gateway that stops only as long as it is of use to wait between two tries.
async fn wait(gateway: &Shared, pause: Duration) {
    let mut abort = gateway.abort.subscribe();
    tokio::select! {
        () = tokio::time::sleep(pause) => {}
        () = async { tokio::join!(exchange::aborted(&mut abort), tokio::time::sleep(FIRST_PAUSE)); } => {}
    }
}

/// Lets go of what is held for an exchange; tries again while that is of use.
pub(crate) async fn release(gateway: &Shared, exchange: ExchangeId) -> Result<(), LedgerError> {
    let mut pause = FIRST_PAUSE;
    let mut tries = 1;
    loop {
        match gateway.ledger.release(exchange).await {
            Err(error) if error.retryable() && tries < RELEASE_TRIES => wait(gateway, pause).await,
            done => return done,
        }
        pause *= 3;
        tries += 1;
    }
}

/// Tells the ledger how far everything is charged, whenever that has gone on.
pub(crate) async fn keep_told(gateway: Shared) {
    let mut ticks = tokio::time::interval(TOLD_EVERY);
    let mut told = 0;
    loop {
        ticks.tick().await;
        told = tell(&gateway, told).await;
    }
}

/// Tells it unless it was `told` that already; gives what it knows then.
pub(crate) async fn tell(gateway: &Shared, told: u64) -> u64 {
    let before = gateway.uncharged.charged_before();
    if before == told {
        return told;
    }
    match gateway.ledger.all_charged(gateway.journal.id(), before).await {
        Ok(()) => before,
        Err(error) => {
            // What it does not know is looked at again when a gateway starts.
            tracing::warn!(code = error.code(), %error, "the ledger was not told what is charged");
            told
        }
    }
}

/// Charges what a journal has and a crash kept from the ledger.
#[derive(Debug)]
pub(crate) struct Recovery<'ledger> {
    ledger: &'ledger Ledger,
    journal: JournalId,
    /// From which entry on; `None` where the ledger does not know the journal.
    from: Option<u64>,
    /// What is still held for exchanges, or was until it expired.
    held: HashSet<ExchangeId>,
    charged: u64,
}

impl<'ledger> Recovery<'ledger> {
    pub(crate) async fn of(ledger: &'ledger Ledger, journal: &JournalId) -> Result<Self, LedgerError> {
        let held = ledger.held().await?.into_iter().collect();
        let from = ledger.charged_before(journal).await?;
        Ok(Self { ledger, journal: journal.clone(), from, held, charged: 0 })
    }

    /// Looks at the exchange of entry `entry`.
    pub(crate) async fn see(&mut self, entry: u64, exchange: &Exchange) -> Result<(), LedgerError> {
        if self.from.is_none_or(|from| entry < from) && !self.held.contains(&exchange.id) {
            return Ok(());
        }
        let usage = exchange.usage;
        let failed = matches!(exchange.outcome, Outcome::Failed { .. });
        let actual = Cost { money: exchange.cost, tokens: usage.total(), completion_tokens: usage.completion_tokens };
        let booked = Booked {
            exchange: exchange.id,
            account: exchange.account.clone(),
            key: exchange.key.clone(),
            grant: exchange.grant.clone(),
            at: exchange.at,
            actual: if failed { Cost::default() } else { actual },
            booking: Booking { journal: self.journal.clone(), entry },
        };
        match self.ledger.make_good(booked).await {
            Ok(charged) => self.charged += u64::from(charged),
            // A ledger that began anew does not know all whom a journal knows.
            Err(error @ LedgerError::UnknownAccount(_)) => {
                tracing::error!(exchange = %exchange.id, code = error.code(), %error, "an exchange could not be charged");
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Everything before entry `entries` was seen.
    pub(crate) async fn end(self, entries: u64) -> Result<(), LedgerError> {
        if self.charged > 0 {
            tracing::warn!(charged = self.charged, "exchanges were charged that a crash had kept from it");
        }
        self.ledger.all_charged(&self.journal, entries).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_charged_ends_at_the_first_that_is_not() {
        let uncharged = Uncharged::default();
        assert_eq!(uncharged.charged_before(), 0);
        let first = uncharged.begin();
        let second = uncharged.begin();
        uncharged.written(1);
        assert_eq!(uncharged.charged_before(), 0, "whose entry that is nobody has said yet");
        let third = uncharged.begin();
        uncharged.written(0);
        drop(first);
        assert_eq!(uncharged.charged_before(), 0);
        drop(second);
        assert_eq!(uncharged.charged_before(), 2);
        uncharged.written(2);
        assert_eq!(uncharged.charged_before(), 2);
        drop(third);
        assert_eq!(uncharged.charged_before(), 3);
    }
}
