//! From journal entries to pairs of draws.

use std::collections::{HashMap, HashSet};

use anbiq_domain::{
    AccountId, Answer, CoinKey, Draws, Entry, Exchange, ExchangeId, OperatorId, Outcome, Prompt, Texts, Timestamp,
    TwinMismatch, TwinMode, Twins, commit_text,
};
use serde::{Deserialize, Serialize};

use crate::{By, OperatorAccounts, TraceError};

/// Which exchanges to take.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Operators and their accounts; pairs of other accounts count for all traffic only.
    pub operators: Vec<OperatorAccounts>,
    /// Only answers of this model; of every model where it is `None`.
    pub model: Option<String>,
    /// By what pairs are parted besides.
    pub by: Vec<By>,
    /// At most so many pairs, the first ones; `None` for no limit. Bounds the memory that texts take.
    pub most_items: Option<usize>,
    /// Only exchanges that were twinned in this mode: pairs of the two modes rest on different things and are never tested
    /// together.
    pub mode: TwinMode,
    /// The place in the journal of the first entry that is given: more than 0 where older ones were deleted.
    pub first_index: u64,
}

/// One twinned exchange.
#[derive(Debug, Clone, PartialEq)]
pub struct TwinItem {
    /// The place in the journal, from 0, of the entry that says which draw was served: of the exchange, or where the twin was
    /// deferred of that twin.
    pub index: u64,
    /// Which exchange.
    pub exchange: ExchangeId,
    /// When.
    pub at: Timestamp,
    /// Who asked.
    pub account: AccountId,
    /// Who stands behind the account, where that is known.
    pub operator: Option<OperatorId>,
    /// The parts to which it belongs.
    pub slices: Vec<String>,
    /// What was asked.
    pub prompt: Prompt,
    /// When the twin was drawn.
    pub mode: TwinMode,
    /// The two draws in the order of drawing; of a deferred twinning in an order that the coin chose.
    pub draws: [Answer; 2],
    /// Which of them was served: 0 or 1.
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
    /// The customer left, perhaps because of what was served; or it kept the model waiting, and then one of the draws did not
    /// come to its end. Leaving such pairs out would favour one kind of answer, so each counts as the largest difference
    /// *against* the suspicion.
    Cancelled,
}

/// The pairs of a journal, in its order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Collected {
    /// When their twins were drawn.
    pub mode: TwinMode,
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
    /// The twin failed, or was not drawn to its end before the journal's.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub twin_missing: u64,
    /// The two draws were made by different builds of the model.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub model_changed: u64,
    /// Twinned in the other mode.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub other_mode: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
const fn is_zero(count: &u64) -> bool {
    *count == 0
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
            + self.twin_missing
            + self.model_changed
            + self.other_mode
    }
}

impl Collected {
    /// Are there enough pairs for a test?
    pub(crate) fn check_enough(&self, needed: usize) -> Result<(), TraceError> {
        match self.items.len() {
            0 if self.left_out.without_texts > 0 => Err(TraceError::NoTexts { twinned: self.left_out.without_texts }),
            0 if self.left_out.total() == 0 => Err(TraceError::NoTwins),
            0 if self.left_out.total() == self.left_out.other_mode => {
                Err(TraceError::OtherMode { wanted: self.mode.as_str(), others: self.left_out.other_mode })
            }
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
    let mut gathering = Gathering {
        selection,
        operators,
        epochs: HashSet::new(),
        waiting: HashMap::new(),
        collected: Collected { mode: selection.mode, operators: selection.operators.clone(), ..Collected::default() },
    };
    for (index, entry) in (selection.first_index..).zip(entries) {
        match entry {
            Entry::CoinsCommitted { epoch, .. } => drop(gathering.epochs.insert(epoch.epoch)),
            Entry::Exchange(exchange) if selection.model.as_ref().is_none_or(|model| *model == exchange.model) => {
                gathering.take(index, *exchange);
            }
            Entry::TwinsDrawn(twins) => gathering.complete(index, *twins),
            _ => {}
        }
    }
    Ok(gathering.end())
}

/// A journal that is being read.
struct Gathering<'a> {
    selection: &'a Selection,
    operators: HashMap<&'a AccountId, &'a OperatorId>,
    epochs: HashSet<u32>,
    /// Exchanges whose twin has not come so far. Each holds a place among the items from here on.
    waiting: HashMap<ExchangeId, Waiting>,
    collected: Collected,
}

/// An item without its twin.
struct Waiting {
    /// Both draws of it are the served one.
    item: TwinItem,
    /// The twin's index among the draws; of a deferred one that is known when it comes.
    twin: Option<u8>,
    /// Empty where it is not known.
    fingerprint: String,
    stalled: bool,
}

impl Gathering<'_> {
    fn take(&mut self, index: u64, exchange: Exchange) {
        let Some(twinning) = exchange.draws.twinning else { return };
        let Collected { items, left_out, .. } = &mut self.collected;
        if twinning.mode != self.selection.mode {
            return left_out.other_mode += 1;
        }
        let state = match exchange.outcome {
            Outcome::Completed => State::Complete,
            Outcome::Cancelled => State::Cancelled,
            Outcome::Failed { .. } if twinning.stalled => State::Cancelled,
            Outcome::Failed { .. } => return left_out.failed += 1,
        };
        if !self.epochs.contains(&twinning.epoch) {
            return left_out.coin_not_committed += 1;
        }
        let (served, drawn) = (usize::from(twinning.served), exchange.draws.texts.len());
        // Of more than two draws, the first and the second make a pair, the third and the fourth, and so on; the pair with the
        // served draw is taken. In which pair that is says nothing of which of the two it is.
        let twin = served ^ 1;
        let together = twinning.mode == TwinMode::Together;
        if served >= drawn || (together && twin >= drawn) {
            return left_out.not_two_draws += 1;
        }
        let Some(Texts { prompt, answers }) = exchange.texts else { return left_out.without_texts += 1 };
        if answers.len() != drawn {
            return left_out.not_two_draws += 1;
        }
        let builds = &exchange.draws.fingerprints;
        if together && differ(builds.get(served), builds.get(twin)) {
            return left_out.model_changed += 1;
        }
        let awaited = state == State::Complete && (!together || exchange.draws.open.contains(&(twin as u8)));
        let pair = [served & !1, served | 1].map(|place| answers.get(place).or(answers.get(served)).cloned());
        let [Some(first), Some(second)] = pair else { return left_out.not_two_draws += 1 };
        // A cancelled draw was cut where the customer left, so two that look equal may not be.
        if state == State::Complete && !awaited && first == second {
            return left_out.equal_draws += 1;
        }
        // As above: of a cancelled pair it is not known whether the other would have called one.
        if state == State::Complete && [&first, &second].iter().any(|draw| !draw.tool_calls.is_empty()) {
            return left_out.with_tools += 1;
        }
        if items.len() + self.waiting.len() >= self.selection.most_items.unwrap_or(usize::MAX) {
            return left_out.over_limit += 1;
        }
        let build = builds.get(served).map_or("", String::as_str);
        let operator = self.operators.get(&exchange.account).map(|operator| (*operator).clone());
        let item = TwinItem {
            index,
            exchange: exchange.id,
            at: exchange.at,
            account: exchange.account,
            operator,
            slices: self.selection.by.iter().map(|by| by.part(exchange.at, &exchange.model, build)).collect(),
            prompt,
            mode: twinning.mode,
            draws: [first, second],
            served: twinning.served & 1,
            state,
        };
        if !awaited {
            return items.push(item);
        }
        let fingerprint = builds.get(served).cloned().unwrap_or_default();
        let waiting = Waiting { item, twin: together.then_some(twin as u8), fingerprint, stalled: twinning.stalled };
        self.waiting.insert(exchange.id, waiting);
    }

    /// Twins that ended after their exchange.
    fn complete(&mut self, index: u64, twins: Twins) {
        let Some(Waiting { mut item, twin, fingerprint, stalled }) = self.waiting.remove(&twins.exchange) else {
            return;
        };
        let Collected { items, left_out, .. } = &mut self.collected;
        if !self.epochs.contains(&twins.twinning.epoch) {
            return left_out.coin_not_committed += 1;
        }
        let served = twins.twinning.served;
        if twin.is_none() {
            // Only now there are two.
            (item.index, item.served) = (index, served & 1);
        }
        let twin = twin.unwrap_or(served ^ 1);
        if twin >= twins.total {
            return left_out.not_two_draws += 1;
        }
        let Some(draw) = twins.draws.into_iter().find(|draw| draw.index == twin) else {
            if stalled {
                return items.push(against(item));
            }
            return left_out.twin_missing += 1;
        };
        let Some(answer) = draw.answer else { return left_out.without_texts += 1 };
        if differ(Some(&fingerprint), Some(&draw.fingerprint)) {
            return left_out.model_changed += 1;
        }
        if !answer.tool_calls.is_empty() {
            return left_out.with_tools += 1;
        }
        if answer == *item.served() {
            return left_out.equal_draws += 1;
        }
        let served = item.served().clone();
        item.draws = if item.served == 0 { [served, answer] } else { [answer, served] };
        items.push(item);
    }

    fn end(self) -> Collected {
        let mut collected = self.collected;
        for Waiting { item, stalled, .. } in self.waiting.into_values() {
            if stalled {
                collected.items.push(against(item));
            } else {
                collected.left_out.twin_missing += 1;
            }
        }
        collected.items.sort_by_key(|item| item.index);
        collected
    }
}

/// An item that counts against the suspicion.
fn against(item: TwinItem) -> TwinItem {
    TwinItem { state: State::Cancelled, ..item }
}

/// Do two builds of a model differ, as far as both are known?
fn differ(one: Option<&String>, other: Option<&String>) -> bool {
    let known = |build: Option<&String>| build.filter(|build| !build.is_empty()).cloned();
    known(one).zip(known(other)).is_some_and(|(one, other)| one != other)
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

/// Checks a twinned exchange against its epoch's disclosed coin key: the choice, and the commitments to all texts that the
/// journal keeps. An exchange without twins passes.
///
/// # Errors
///
/// The first thing that does not fit.
pub fn check_coin(exchange: &Exchange, coin: &CoinKey) -> Result<(), TwinMismatch> {
    let Some(twinning) = exchange.draws.twinning else { return Ok(()) };
    // Never more than 255 draws are committed to.
    let chosen = coin.choose(exchange.id, exchange.draws.texts.len() as u8);
    if chosen != twinning.served {
        return Err(TwinMismatch::Choice { chosen, recorded: twinning.served });
    }
    let Some(texts) = &exchange.texts else { return Ok(()) };
    if commit_text(&coin.salt(exchange.id, Draws::PROMPT_INDEX), &texts.prompt.canonical()) != exchange.draws.prompt {
        return Err(TwinMismatch::Text(Draws::PROMPT_INDEX));
    }
    for (index, (answer, commitment)) in (0..Draws::PROMPT_INDEX).zip(texts.answers.iter().zip(&exchange.draws.texts)) {
        if commit_text(&coin.salt(exchange.id, index), &answer.canonical()) != *commitment {
            return Err(TwinMismatch::Text(index));
        }
    }
    Ok(())
}
