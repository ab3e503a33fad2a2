//! From journal entries to pairs of draws.

use std::collections::{HashMap, HashSet};

use anbiq_domain::{
    AccountId, Answer, CoinKey, Draws, Entry, Exchange, ExchangeId, OperatorId, Outcome, Prompt, Timestamp, commit_text,
};
use serde::{Deserialize, Serialize};

use crate::{OperatorAccounts, TraceError};

/// Which exchanges to take.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Operators and their accounts; pairs of other accounts count for all traffic only.
    pub operators: Vec<OperatorAccounts>,
    /// Only answers of this model; of every model where it is `None`.
    pub model: Option<String>,
    /// At most so many pairs, the first ones; `None` for no limit. Bounds the memory that texts take.
    pub most_items: Option<usize>,
    /// The place in the journal of the first entry that is given: more than 0 where older ones were deleted.
    pub first_index: u64,
}

/// One twinned exchange.
#[derive(Debug, Clone, PartialEq)]
pub struct TwinItem {
    /// The entry's place in the journal, from 0.
    pub index: u64,
    /// Which exchange.
    pub exchange: ExchangeId,
    /// When.
    pub at: Timestamp,
    /// Who asked.
    pub account: AccountId,
    /// Who stands behind the account, where that is known.
    pub operator: Option<OperatorId>,
    /// What was asked.
    pub prompt: Prompt,
    /// The two draws in the order of drawing.
    pub draws: [Answer; 2],
    /// Which of them the coin chose: 0 or 1.
    pub served: u8,
    /// Did the customer see the whole of it?
    pub state: State,
}

impl TwinItem {
    /// The draw that was served.
    pub fn served(&self) -> &Answer {
        &self.draws[usize::from(self.served & 1)]
    }

    /// The draw that was not.
    pub fn twin(&self) -> &Answer {
        &self.draws[usize::from(1 - (self.served & 1))]
    }

    /// Did the customer see the whole of it?
    pub fn is_complete(&self) -> bool {
        self.state == State::Complete
    }
}

/// How an exchange ended, as far as the test cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It was answered in full.
    Complete,
    /// The customer left, perhaps because of what was served. Leaving such pairs out would favour one kind of answer, so
    /// each counts as the largest difference *against* the suspicion.
    Cancelled,
}

/// The pairs of a journal, in its order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Collected {
    /// Pairs to test.
    pub items: Vec<TwinItem>,
    /// The operators asked about.
    pub operators: Vec<OperatorAccounts>,
    /// What was left out, and why.
    pub left_out: LeftOut,
}

/// Twinned exchanges that are not tested. None of the reasons depends on which draw was served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LeftOut {
    /// The journal keeps no texts of them.
    pub without_texts: u64,
    /// Both draws are the same text.
    pub equal_draws: u64,
    /// A draw calls a tool: what a student was taught to say then is not known.
    #[serde(default)]
    pub with_tools: u64,
    /// More or fewer than two draws.
    pub not_two_draws: u64,
    /// The model failed.
    pub failed: u64,
    /// No commitment to the epoch's coins stands before them in the journal.
    pub coin_not_committed: u64,
    /// Beyond the largest number of pairs.
    pub over_limit: u64,
}

impl LeftOut {
    /// All of them.
    pub const fn total(&self) -> u64 {
        self.without_texts
            + self.equal_draws
            + self.with_tools
            + self.not_two_draws
            + self.failed
            + self.coin_not_committed
            + self.over_limit
    }
}

impl Collected {
    /// Are there enough pairs for a test?
    pub(crate) fn check_enough(&self, needed: usize) -> Result<(), TraceError> {
        match self.items.len() {
            0 if self.left_out.without_texts > 0 => Err(TraceError::NoTexts { twinned: self.left_out.without_texts }),
            0 if self.left_out.total() == 0 => Err(TraceError::NoTwins),
            found if found < needed => Err(TraceError::TooFew { found, needed }),
            _ => Ok(()),
        }
    }
}

/// Takes the twinned exchanges out of a journal's entries, which must be all of them from the first on: coins count only
/// where the journal committed to them beforehand.
///
/// # Errors
///
/// An account belongs to two operators.
pub fn from_journal(entries: impl IntoIterator<Item = Entry>, selection: &Selection) -> Result<Collected, TraceError> {
    let operators = by_account(&selection.operators)?;
    let mut collected = Collected { operators: selection.operators.clone(), ..Collected::default() };
    let mut epochs = HashSet::new();
    for (index, entry) in (selection.first_index..).zip(entries) {
        match entry {
            Entry::CoinsCommitted { epoch, .. } => {
                epochs.insert(epoch.epoch);
            }
            Entry::Exchange(exchange) if selection.model.as_ref().is_none_or(|model| *model == exchange.model) => {
                let operator = operators.get(&exchange.account).copied();
                collected.take(index, *exchange, operator, &epochs, selection.most_items.unwrap_or(usize::MAX));
            }
            _ => {}
        }
    }
    Ok(collected)
}

impl Collected {
    fn take(
        &mut self,
        index: u64,
        exchange: Exchange,
        operator: Option<&OperatorId>,
        epochs: &HashSet<u32>,
        most: usize,
    ) {
        let Some(twinning) = exchange.draws.twinning else { return };
        let left_out = &mut self.left_out;
        let state = match exchange.outcome {
            Outcome::Completed => State::Complete,
            Outcome::Cancelled => State::Cancelled,
            Outcome::Failed { .. } => return left_out.failed += 1,
        };
        if !epochs.contains(&twinning.epoch) {
            return left_out.coin_not_committed += 1;
        }
        if exchange.draws.texts.len() != 2 || twinning.served > 1 {
            return left_out.not_two_draws += 1;
        }
        let Some(texts) = exchange.texts else { return left_out.without_texts += 1 };
        let Ok(draws) = <[Answer; 2]>::try_from(texts.answers) else { return left_out.not_two_draws += 1 };
        // A cancelled draw was cut where the customer left, so two that look equal may not be.
        if state == State::Complete && draws[0] == draws[1] {
            return left_out.equal_draws += 1;
        }
        // As above: of a cancelled pair it is not known whether the other would have called one.
        if state == State::Complete && draws.iter().any(|draw| !draw.tool_calls.is_empty()) {
            return left_out.with_tools += 1;
        }
        if self.items.len() >= most {
            return left_out.over_limit += 1;
        }
        self.items.push(TwinItem {
            index,
            exchange: exchange.id,
            at: exchange.at,
            account: exchange.account,
            operator: operator.cloned(),
            prompt: texts.prompt,
            draws,
            served: twinning.served,
            state,
        });
    }
}

/// The operator of each account.
pub(crate) fn by_account(operators: &[OperatorAccounts]) -> Result<HashMap<&AccountId, &OperatorId>, TraceError> {
    let mut owners: HashMap<&AccountId, &OperatorId> = HashMap::new();
    for OperatorAccounts { operator, accounts } in operators {
        for account in accounts {
            match owners.insert(account, operator) {
                Some(first) if first != operator => {
                    let (first, second) = (first.clone(), operator.clone());
                    return Err(TraceError::SharedAccount { account: account.clone(), first, second });
                }
                _ => {}
            }
        }
    }
    Ok(owners)
}

/// What is wrong with a twinned exchange once its coin key is disclosed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CoinMismatch {
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

/// Checks a twinned exchange against its epoch's disclosed coin key: the choice, and the commitments to all texts that the
/// journal keeps. An exchange without twins passes.
///
/// # Errors
///
/// The first thing that does not fit.
pub fn check_coin(exchange: &Exchange, coin: &CoinKey) -> Result<(), CoinMismatch> {
    let Some(twinning) = exchange.draws.twinning else { return Ok(()) };
    // Never more than 255 draws are committed to.
    let chosen = coin.choose(exchange.id, exchange.draws.texts.len() as u8);
    if chosen != twinning.served {
        return Err(CoinMismatch::Choice { chosen, recorded: twinning.served });
    }
    let Some(texts) = &exchange.texts else { return Ok(()) };
    if commit_text(&coin.salt(exchange.id, Draws::PROMPT_INDEX), &texts.prompt.canonical()) != exchange.draws.prompt {
        return Err(CoinMismatch::Text(Draws::PROMPT_INDEX));
    }
    for (index, (answer, commitment)) in (0..Draws::PROMPT_INDEX).zip(texts.answers.iter().zip(&exchange.draws.texts)) {
        if commit_text(&coin.salt(exchange.id, index), &answer.canonical()) != *commitment {
            return Err(CoinMismatch::Text(index));
        }
    }
    Ok(())
}
