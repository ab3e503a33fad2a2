//! Which records of the journal a dossier opens.
//!
//! It rests on the exchanges of the operators that it speaks about: those of a campaign, and those a verdict points
//! at. The texts of everybody else stay closed; of them a trace names only differences of log-probabilities.

use std::collections::{BTreeMap, BTreeSet};

use anbiq_domain::{AccountId, CoinKey, Entry, OperatorId, Terms};
use anbiq_evidence::Disclosed;
use anbiq_journal::{Checkpoint, Reader, tree};
use anbiq_trace::Strength;
use anyhow::{Context, ensure};

use super::Found;
use crate::site::Site;

/// What the journal gives to a dossier.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) checkpoint: Checkpoint,
    pub(super) records: Vec<Disclosed>,
    pub(super) coins: Vec<(u32, CoinKey)>,
    pub(super) terms: Vec<Terms>,
    pub(super) entries: Vec<Entry>,
    /// Exchanges by account and hour, for the timeline.
    pub(super) hours: BTreeMap<(i64, AccountId), u64>,
}

pub(super) fn open(site: &Site, reader: &Reader, found: &Found) -> anyhow::Result<Opened> {
    let spoken_of = accounts(found);
    let checkpoint = reader
        .last_checkpoint()?
        .context("the journal has no signed checkpoint\nhint: stop the gateway once, which seals the journal")?;
    let (mut leaves, mut kept, mut epochs) = (Vec::new(), Vec::new(), BTreeSet::new());
    let (mut terms, mut entries, mut hours) = (Vec::new(), Vec::new(), BTreeMap::new());
    let records = reader.entries()?;
    let before = records.before().clone();
    for record in records.take(usize::try_from(checkpoint.size.saturating_sub(before.size()))?) {
        let record = record?;
        leaves.push(record.leaf);
        if let Entry::Exchange(exchange) = &record.entry {
            let hour = exchange.at.milliseconds().div_euclid(HOUR);
            *hours.entry((hour, exchange.account.clone())).or_insert(0) += 1;
        }
        if is_opened(&record.entry, &spoken_of) {
            kept.push((record.index, record.payload));
            match record.entry {
                Entry::Exchange(exchange) => epochs.extend(exchange.draws.twinning.map(|twinning| twinning.epoch)),
                Entry::TwinsDrawn(twins) => epochs.extend([twins.twinning.epoch]),
                Entry::TermsIssued { terms: issued, .. } => terms.push(issued),
                entry => entries.push(entry),
            }
        }
    }
    let levels = tree::Levels::after(&before, leaves);
    ensure!(levels.root() == checkpoint.root, "the journal's checkpoint is not of this journal");
    let prove = |(index, payload)| {
        let proof = levels.inclusion_proof(index).context("a record lies beyond the checkpoint")?;
        Ok(Disclosed { index, payload, proof })
    };
    let records = kept.into_iter().map(prove).collect::<anyhow::Result<_>>()?;
    let coins = epochs.into_iter().map(|epoch| Ok((epoch, site.coin(epoch)?))).collect::<anyhow::Result<_>>()?;
    Ok(Opened { checkpoint, records, coins, terms, entries, hours })
}

pub(super) const HOUR: i64 = 3_600_000;

/// The accounts of the operators that the dossier speaks about.
fn accounts(found: &Found) -> BTreeSet<AccountId> {
    let mut operators: BTreeSet<&OperatorId> = found.watch.campaigns().map(|(operator, _)| &operator.id).collect();
    for trace in found.traces.iter().filter(|trace| trace.verdict.strength > Strength::NotShown) {
        operators.extend(&trace.verdict.points_at);
    }
    let members = found.watch.operators.iter().filter(|operator| operators.contains(&operator.id));
    members.flat_map(|operator| operator.accounts.iter().map(|member| member.account.clone())).collect()
}

fn is_opened(entry: &Entry, spoken_of: &BTreeSet<AccountId>) -> bool {
    match entry {
        Entry::Exchange(exchange) => spoken_of.contains(&exchange.account),
        Entry::TwinsDrawn(twins) => spoken_of.contains(&twins.account),
        Entry::AccountOpened { account, .. }
        | Entry::TermsAccepted { account, .. }
        | Entry::TextsForgotten { account, .. } => spoken_of.contains(account),
        Entry::GrantAsked { grant } | Entry::GrantGiven { grant } => spoken_of.contains(&grant.account),
        Entry::Refused(refusal) => spoken_of.contains(&refusal.account),
        // They say who administers, and why, not who distilled, and may name any account.
        Entry::Administered(_) | Entry::GrantRefused { .. } => false,
        Entry::Opened { .. }
        | Entry::CoinsCommitted { .. }
        | Entry::TermsIssued { .. }
        | Entry::PricesSet { .. }
        | Entry::GrantRevoked { .. }
        | Entry::TwinsStopped { .. }
        | Entry::Closed { .. } => true,
    }
}
