use serde::{Deserialize, Serialize};

use crate::{AccountId, Answer, CoinKey, Digest, Draws, ExchangeId, Money, Timestamp, commit_text};

/// How the twins of an exchange are drawn, and so what a test of them rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TwinMode {
    /// All draws begin at the same moment, by equal requests, and a coin that was fixed before chooses the one that is
    /// served. A test rests on the coin alone: whatever the draws are, and however they differ, the coin did not see them.
    #[default]
    Together,
    /// One draw is made and served; its twins are drawn hours later. No coin chooses. A test rests on the teacher giving
    /// the same distribution of answers then as before.
    Deferred,
}

impl TwinMode {
    /// The word for it in configurations, metrics and reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Together => "together",
            Self::Deferred => "deferred",
        }
    }

    const fn is_together(&self) -> bool {
        matches!(self, Self::Together)
    }
}

/// How one of several draws was chosen to be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Twinning {
    /// The epoch of the coin key.
    pub epoch: u32,
    /// The index of the draw that was served: [`CoinKey::choose`] of the exchange and the number of draws. Of a deferred
    /// twinning it is only where the served draw is put among the others, so that whoever scores them cannot tell which it
    /// is; in the entry of the exchange itself, when there is one draw, it is 0.
    pub served: u8,
    /// How the twins are drawn.
    #[serde(default, skip_serializing_if = "TwinMode::is_together")]
    pub mode: TwinMode,
    /// Did drawing ever wait for the customer to read?
    ///
    /// Where it did not, nothing in the drawing depended on the coin, so that a pair may be left out for whatever befell
    /// its draws. Where it did, it may have been the served text that the customer was slow to take.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stalled: bool,
    /// What the twins that are known here cost the provider, at the teacher's ordinary price.
    #[serde(default, skip_serializing_if = "Money::is_zero")]
    pub cost: Money,
}

/// Twins that ended after the answer to their exchange: the journal's second record of it.
///
/// Of an exchange that was twinned together, each of these draws began at the same moment as the served one and was led to
/// its end whichever was served; the customer does not wait for them. Of one whose twinning was deferred they were drawn
/// now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Twins {
    /// Of which exchange.
    pub exchange: ExchangeId,
    /// When the last of them had ended.
    pub at: Timestamp,
    /// Whose exchange.
    pub account: AccountId,
    /// Which model.
    pub model: String,
    /// How many draws there are, the served one among them.
    pub total: u8,
    /// The coin. For an exchange that was twinned together, what its own entry says; the cost is of these draws alone.
    pub twinning: Twinning,
    /// These draws.
    pub draws: Vec<TwinDraw>,
    /// Their tokens.
    pub tokens: u64,
}

/// One draw that nobody was served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TwinDraw {
    /// Its index among the draws.
    pub index: u8,
    /// Commitment to its text, salted by the exchange and this index.
    pub commitment: Digest,
    /// The build of the model, where its server says which.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub fingerprint: String,
    /// What it says, where the account's policy keeps texts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Answer>,
}

impl TwinDraw {
    /// The draw `index` of `exchange`, which says `answer`; the text itself is kept only where `keep` says so.
    pub fn commit(
        coin: &CoinKey,
        exchange: ExchangeId,
        index: u8,
        fingerprint: String,
        answer: Answer,
        keep: bool,
    ) -> Self {
        let commitment = Draws::commit_answer(coin, exchange, index, &answer);
        Self { index, commitment, fingerprint, answer: keep.then_some(answer) }
    }
}

impl Draws {
    /// Commits to one draw.
    pub fn commit_answer(coin: &CoinKey, exchange: ExchangeId, index: u8, answer: &Answer) -> Digest {
        commit_text(&coin.salt(exchange, index), &answer.canonical())
    }
}

/// What is wrong with twins once their coin key is disclosed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TwinMismatch {
    /// The coin chooses another draw.
    #[error("the coin chooses draw {chosen}, the journal says {recorded}")]
    Choice {
        /// By the key.
        chosen: u8,
        /// In the journal.
        recorded: u8,
    },
    /// A text is not the one that was committed to; 255 is the prompt.
    #[error("text {0} is not the one that was committed to")]
    Text(u8),
}

impl Twins {
    /// Checks these twins against the disclosed coin key of their epoch; gives how many texts were checked.
    ///
    /// # Errors
    /// The first thing that does not fit.
    pub fn check(&self, coin: &CoinKey) -> Result<usize, TwinMismatch> {
        let (chosen, recorded) = (coin.choose(self.exchange, self.total), self.twinning.served);
        if chosen != recorded {
            return Err(TwinMismatch::Choice { chosen, recorded });
        }
        let mut checked = 0;
        for draw in &self.draws {
            let Some(answer) = &draw.answer else { continue };
            if Self::is_other(coin, self.exchange, draw, answer) {
                return Err(TwinMismatch::Text(draw.index));
            }
            checked += 1;
        }
        Ok(checked)
    }

    fn is_other(coin: &CoinKey, exchange: ExchangeId, draw: &TwinDraw, answer: &Answer) -> bool {
        Draws::commit_answer(coin, exchange, draw.index, answer) != draw.commitment
    }
}
