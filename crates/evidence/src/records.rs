//! The records of a dossier, each checked against the root, the coins and the texts that came with it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use anbiq_domain::{CanariesDrawn, CoinKey, Digest, Draws, Entry, Exchange, Route, Texts, TwinMode, Twins};
use anbiq_journal::{Checkpoint, tree};

use crate::dossier::Twin;

/// A line of `records.jsonl`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Row {
    pub(crate) index: u64,
    pub(crate) leaf: Digest,
    pub(crate) proof: Vec<Digest>,
    pub(crate) payload: String,
}

/// A line of `texts.jsonl`: the texts of a disclosed exchange of which the record holds them under seal.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OpenedRow {
    pub(crate) index: u64,
    pub(crate) texts: Texts,
}

/// Checks disclosed records one after the other.
pub(crate) struct Records<'a> {
    checkpoint: &'a Checkpoint,
    coins: &'a BTreeMap<u32, CoinKey>,
    /// The texts that were opened, by the place of their record.
    opened: BTreeMap<u64, Texts>,
    /// The commitments met so far.
    committed: BTreeMap<u32, Digest>,
    /// The epoch that was committed to last.
    epoch: Option<u32>,
    last: Option<u64>,
    pub(crate) twins: Vec<Twin>,
    pub(crate) texts_checked: usize,
    pub(crate) texts_opened: usize,
    pub(crate) canaries: BTreeMap<u64, CanariesDrawn>,
}

impl<'a> Records<'a> {
    pub(crate) const fn new(
        checkpoint: &'a Checkpoint,
        coins: &'a BTreeMap<u32, CoinKey>,
        opened: BTreeMap<u64, Texts>,
    ) -> Self {
        Self {
            checkpoint,
            coins,
            opened,
            committed: BTreeMap::new(),
            epoch: None,
            last: None,
            twins: Vec::new(),
            texts_checked: 0,
            texts_opened: 0,
            canaries: BTreeMap::new(),
        }
    }

    pub(crate) fn take(&mut self, line: &str) -> Result<(), String> {
        let row: Row = serde_json::from_str(line).map_err(|error| error.to_string())?;
        if self.last.is_some_and(|last| row.index <= last) {
            return Err("it is not in the journal's order".to_owned());
        }
        self.last = Some(row.index);
        if tree::leaf_hash(row.payload.as_bytes()) != row.leaf {
            return Err("its leaf is not the hash of its payload".to_owned());
        }
        let Checkpoint { size, root, .. } = self.checkpoint;
        if !tree::verify_inclusion(&row.leaf, row.index, *size, &row.proof, root) {
            return Err(format!("it is not proved to be record {} of the journal", row.index));
        }
        match serde_json::from_str(&row.payload).map_err(|error| error.to_string())? {
            Entry::CoinsCommitted { epoch, .. } => self.commitment(epoch.epoch, epoch.commitment),
            Entry::CanariesDrawn { drawn, .. } => {
                self.canaries.insert(row.index, drawn);
                Ok(())
            }
            Entry::Exchange(exchange) => self.exchange(row.index, &exchange),
            Entry::TwinsDrawn(twins) => self.twins_drawn(row.index, *twins),
            _ => Ok(()),
        }
    }

    fn commitment(&mut self, epoch: u32, commitment: Digest) -> Result<(), String> {
        if self.coins.get(&epoch).is_some_and(|key| key.commitment() != commitment) {
            return Err(format!("the revealed coin key of epoch {epoch} is not the one committed to here"));
        }
        self.epoch = Some(epoch);
        match self.committed.insert(epoch, commitment) {
            Some(other) if other != commitment => Err(format!("epoch {epoch} was committed to before, differently")),
            _ => Ok(()),
        }
    }

    /// The revealed key of an epoch that was committed to before.
    fn coin(&self, epoch: u32) -> Result<&'a CoinKey, String> {
        if !self.committed.contains_key(&epoch) {
            return Err(format!("no record before it commits to the coin of epoch {epoch}"));
        }
        self.coins.get(&epoch).ok_or_else(|| format!("the coin of epoch {epoch} is not revealed"))
    }

    fn exchange(&mut self, index: u64, exchange: &Exchange) -> Result<(), String> {
        let opened = self.opened.remove(&index);
        if let Some(texts) = &opened {
            self.opened(exchange, texts)?;
        }
        let Some(twinning) = exchange.draws.twinning else { return Ok(()) };
        let key = self.coin(twinning.epoch)?;
        let draws = u8::try_from(exchange.draws.texts.len()).map_err(|_| "it has too many draws".to_owned())?;
        let chosen = key.choose(exchange.id, draws);
        if twinning.served != chosen {
            return Err(format!("draw {} was served, but the coin chose draw {chosen}", twinning.served));
        }
        if let Some(texts) = &exchange.texts {
            let draws = Draws::commit(key, exchange.id, &texts.prompt, &texts.answers);
            if (draws.prompt, &draws.texts) != (exchange.draws.prompt, &exchange.draws.texts) {
                return Err("its texts are not those that were committed to".to_owned());
            }
            self.texts_checked += 1;
        }
        if twinning.mode == TwinMode::Deferred {
            return Ok(());
        }
        let (exchange, account) = (exchange.id, exchange.account.clone());
        self.twins.push(Twin { index, exchange, account, served: chosen });
        Ok(())
    }

    /// Texts that were under seal, against the commitments of their exchange: those are salted by the coin of its time.
    fn opened(&mut self, exchange: &Exchange, texts: &Texts) -> Result<(), String> {
        if exchange.sealed.is_none() {
            return Err("texts were opened of it that it does not hold under seal".to_owned());
        }
        let epoch = exchange.draws.twinning.map(|twinning| twinning.epoch).or(self.epoch);
        let key = self.coin(epoch.ok_or_else(|| "no record before it commits to a coin".to_owned())?)?;
        let draws = Draws::commit(key, exchange.id, &texts.prompt, &texts.answers);
        // Of embeddings the vectors are committed to as well, and only what was asked is kept.
        let same = match exchange.request.route {
            Route::Embeddings => exchange.draws.texts.starts_with(&draws.texts),
            _ => exchange.draws.texts == draws.texts,
        };
        if exchange.draws.prompt != draws.prompt || !same {
            return Err("the texts that were opened of it are not those that were committed to".to_owned());
        }
        self.texts_opened += 1;
        Ok(())
    }

    /// Every text that was opened belongs to a record.
    pub(crate) fn all_texts_were_met(&self) -> Result<(), String> {
        match self.opened.keys().next() {
            Some(index) => Err(format!("the texts of record {index} are there, but not the record")),
            None => Ok(()),
        }
    }

    /// Draws of an exchange that ended after its answer. Where they were deferred, only now there are several draws.
    fn twins_drawn(&mut self, index: u64, twins: Twins) -> Result<(), String> {
        let key = self.coin(twins.twinning.epoch)?;
        self.texts_checked += twins.check(key).map_err(|mismatch| mismatch.to_string())?;
        if twins.twinning.mode == TwinMode::Deferred {
            let Twins { exchange, account, twinning, .. } = twins;
            self.twins.push(Twin { index, exchange, account, served: twinning.served });
        }
        Ok(())
    }

    pub(crate) fn all_coins_were_committed(&self) -> Result<(), String> {
        match self.coins.keys().find(|epoch| !self.committed.contains_key(epoch)) {
            Some(epoch) => Err(format!("no disclosed record commits to the coin of epoch {epoch}")),
            None => Ok(()),
        }
    }
}
