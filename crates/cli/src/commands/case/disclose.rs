//! Which records of the journal a dossier opens.
//!
//! It rests on the exchanges of the operators that it speaks about: those of a campaign, and those a verdict points
//! at. Where the journal holds their texts under seal, they are opened with the accounts' keys. The texts of everybody else
//! stay closed; of them a trace names only differences of log-probabilities.

use std::collections::{BTreeMap, BTreeSet};

use anbiq_domain::{AccountId, CoinKey, Entry, Exchange, Keyed, OperatorId, Terms, Texts};
use anbiq_evidence::Disclosed;
use anbiq_journal::{Checkpoint, Reader, TextKeys, tree};
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
    /// The texts that were under seal, by the place of their record.
    pub(super) texts: Vec<(u64, Texts)>,
    /// Accounts whose texts stay closed, and why.
    pub(super) closed: Vec<Closed>,
    /// Exchanges by account and hour, for the timeline.
    pub(super) hours: BTreeMap<(i64, AccountId), u64>,
}

/// Texts that could not be opened.
#[derive(Debug)]
pub(super) struct Closed {
    pub(super) account: AccountId,
    pub(super) exchanges: u64,
    /// Why, in words.
    pub(super) why: String,
}

impl Closed {
    pub(super) fn in_words(&self) -> String {
        format!(
            "the sealed texts of {} exchanges of account `{}` stay closed: {}",
            self.exchanges, self.account, self.why
        )
    }
}

pub(super) fn open(site: &Site, reader: &Reader, found: &Found) -> anyhow::Result<Opened> {
    let spoken_of = accounts(found);
    let checkpoint = reader
        .last_checkpoint()?
        .context("the journal has no signed checkpoint\nhint: stop the gateway once, which seals the journal")?;
    let (mut leaves, mut kept, mut epochs) = (Vec::new(), Vec::new(), BTreeSet::new());
    let (mut terms, mut entries, mut hours) = (Vec::new(), Vec::new(), BTreeMap::new());
    let mut seals = Seals::new(site);
    let records = reader.entries()?;
    let before = records.before().clone();
    for record in records.take(usize::try_from(checkpoint.size.saturating_sub(before.size()))?) {
        let record = record?;
        leaves.push(record.leaf);
        if let Entry::Exchange(exchange) = &record.entry {
            let hour = exchange.at.milliseconds().div_euclid(HOUR);
            *hours.entry((hour, exchange.account.clone())).or_insert(0) += 1;
        }
        if let Entry::CoinsCommitted { epoch, .. } = &record.entry {
            seals.epoch = Some(epoch.epoch);
        }
        if is_opened(&record.entry, &spoken_of) {
            kept.push((record.index, record.payload));
            match record.entry {
                Entry::Exchange(mut exchange) => {
                    epochs.extend(exchange.draws.twinning.map(|twinning| twinning.epoch));
                    epochs.extend(seals.open(record.index, &mut exchange));
                }
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
    let closed = seals.closed(&entries);
    Ok(Opened { checkpoint, records, coins, terms, entries, texts: seals.texts, closed, hours })
}

/// Opens what is under seal, as far as the keys are there.
struct Seals {
    keys: TextKeys,
    /// The epoch whose coin salts the commitments at this place of the journal.
    epoch: Option<u32>,
    texts: Vec<(u64, Texts)>,
    /// Exchanges that stay closed, by account, key and what is wrong.
    closed: BTreeMap<(AccountId, Keyed), (u64, String)>,
}

impl Seals {
    fn new(site: &Site) -> Self {
        Self { keys: site.text_keys(), epoch: None, texts: Vec::new(), closed: BTreeMap::new() }
    }

    /// Opens the texts of `exchange` and says by which epoch's coin they can be checked; `None` where none were opened.
    fn open(&mut self, index: u64, exchange: &mut Exchange) -> Option<u32> {
        let key = exchange.sealed.as_ref()?.key;
        let epoch = exchange.draws.twinning.map(|twinning| twinning.epoch).or(self.epoch);
        let opened = self.keys.open(exchange).map_err(|error| error.to_string());
        match (opened, epoch, exchange.texts.take()) {
            (Ok(()), Some(epoch), Some(texts)) => {
                self.texts.push((index, texts));
                Some(epoch)
            }
            (opened, ..) => {
                let why = opened.err().unwrap_or_else(|| "no coin that salts their commitments is known".to_owned());
                let (count, _) = self.closed.entry((exchange.account.clone(), key)).or_insert((0, why));
                *count += 1;
                None
            }
        }
    }

    /// What stayed closed; where the journal says that a key was destroyed, when that was.
    fn closed(&self, entries: &[Entry]) -> Vec<Closed> {
        let forgotten = |wanted: &(AccountId, Keyed)| {
            entries.iter().find_map(|entry| match entry {
                Entry::TextsForgotten { at, account, key } if (account, key) == (&wanted.0, &wanted.1) => Some(*at),
                _ => None,
            })
        };
        let closed = |(whose, (exchanges, why)): (&(AccountId, Keyed), &(u64, String))| Closed {
            account: whose.0.clone(),
            exchanges: *exchanges,
            why: forgotten(whose).map_or_else(|| why.clone(), |at| format!("their key was destroyed at {at}")),
        };
        self.closed.iter().map(closed).collect()
    }
}

pub(super) const HOUR: i64 = 3_600_000;

/// The accounts of the operators that the dossier speaks about.
fn accounts(found: &Found) -> BTreeSet<AccountId> {
    let mut operators: BTreeSet<&OperatorId> = found.watch.campaigns().map(|(operator, _)| &operator.id).collect();
    for trace in found.traces().map(|(_, trace)| trace).filter(|trace| trace.verdict.strength > Strength::NotShown) {
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
        | Entry::CanariesDrawn { .. }
        | Entry::TermsIssued { .. }
        | Entry::PricesSet { .. }
        | Entry::GrantRevoked { .. }
        | Entry::TwinsStopped { .. }
        | Entry::Closed { .. } => true,
    }
}
