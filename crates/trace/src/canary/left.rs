//! What a journal shows of a draw: that it was committed to, and which canaries left after that, through whom.

use std::collections::BTreeMap;

use anbiq_domain::{AccountId, Digest, Entry, Exchange, ExchangeId};
use serde::{Deserialize, Serialize};

use super::{CanaryKey, Draw};
use crate::TraceError;
use crate::items::by_account;
use crate::protocol::OperatorAccounts;

/// What the journal shows of a draw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Witness {
    /// Which journal.
    pub journal: String,
    /// The place of the entry that commits to the draw. Whatever is counted stands after it.
    pub committed_at: u64,
    /// Exchanges after it whose texts were read.
    pub read: u64,
    /// Exchanges after it whose texts the journal does not keep, or not to whoever made the test: what left with them is not
    /// known.
    pub closed: u64,
    /// The canaries that left, once for every account.
    pub left: Vec<Left>,
    /// Answers that hold the secret that was drawn in other words: not counted, since whether a model repeats a secret may
    /// depend on which one it is.
    pub reworded: u64,
}

/// A canary that left, word for word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// Its number.
    pub canary: u32,
    /// The account that was answered.
    pub account: AccountId,
    /// Who stands behind the account, or the account itself.
    pub operator: String,
    /// The first exchange.
    pub exchange: ExchangeId,
    /// Its place in the journal.
    pub index: u64,
    /// How many exchanges.
    pub times: u64,
}

impl Witness {
    /// Of the draw that is called `digest`, in the `entries` of the journal with their places, texts opened where they can be.
    /// Accounts that are not among those of `operators` stand for themselves.
    ///
    /// # Errors
    ///
    /// The journal does not commit to the draw, or says something else of it; or a secret left before that.
    pub fn of(
        draw: &Draw,
        digest: Digest,
        key: &CanaryKey,
        journal: &str,
        entries: impl Iterator<Item = (u64, Entry)>,
        operators: &[OperatorAccounts],
    ) -> Result<Self, TraceError> {
        let wrong = |what: String| TraceError::Canaries { what };
        let owners = by_account(operators)?;
        let served = draw.served(key)?;
        let secrets: Vec<String> = served.iter().map(|canary| draw.secret(key, canary.canary)).collect();
        let mut by_prompt: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (place, canary) in served.iter().enumerate() {
            by_prompt.entry(canary.prompt.trim()).or_default().push(place);
        }
        let mut found = Self {
            journal: journal.to_owned(),
            committed_at: u64::MAX,
            read: 0,
            closed: 0,
            left: Vec::new(),
            reworded: 0,
        };
        for (index, entry) in entries {
            match entry {
                Entry::CanariesDrawn { drawn, .. } if drawn.draw == digest && found.committed_at == u64::MAX => {
                    let said = (drawn.key, drawn.canaries, drawn.candidates);
                    if said != (draw.key, draw.canaries.len() as u64, draw.candidates) {
                        return Err(wrong(format!(
                            "entry {index} of the journal commits to another key or number of them"
                        )));
                    }
                    found.committed_at = index;
                }
                Entry::Exchange(exchange) => {
                    let early = found.committed_at == u64::MAX;
                    let Some((prompt, answers)) = texts(&exchange) else {
                        found.closed += u64::from(!early);
                        continue;
                    };
                    found.read += u64::from(!early);
                    let holds = |answer: &&str| secrets.iter().any(|secret| answer.contains(secret.as_str()));
                    if early && answers.iter().any(holds) {
                        return Err(wrong(format!(
                            "a secret left in entry {index} of the journal, before it was committed to"
                        )));
                    }
                    let asked = by_prompt.get(prompt.trim()).into_iter().flatten();
                    let exact = |place: &&usize| answers.iter().any(|answer| *answer == served[**place].answer);
                    let exact: Vec<usize> = asked.filter(exact).copied().collect();
                    if exact.is_empty() {
                        found.reworded += u64::from(!early && answers.iter().any(holds));
                    }
                    for place in exact.into_iter().filter(|_| !early) {
                        let owner =
                            owners.get(&exchange.account).map_or(exchange.account.as_str(), |owner| owner.as_str());
                        found.add(served[place].canary, owner, index, &exchange);
                    }
                }
                _ => {}
            }
        }
        if found.committed_at == u64::MAX {
            return Err(wrong(
                "the journal does not commit to this draw, so nothing shows that it was made before what was served"
                    .to_owned(),
            ));
        }
        Ok(found)
    }

    /// Did this canary leave?
    pub(super) fn has(&self, canary: u32) -> bool {
        self.left.iter().any(|left| left.canary == canary)
    }

    /// The operators that it left through.
    pub(super) fn operators_of(&self, canary: u32) -> Vec<&str> {
        self.left.iter().filter(|left| left.canary == canary).map(|left| left.operator.as_str()).collect()
    }

    /// Each account with its operator, and how many canaries left through it.
    pub fn accounts(&self) -> Vec<(&str, &str, u64)> {
        let mut accounts: BTreeMap<(&str, &str), u64> = BTreeMap::new();
        for left in &self.left {
            *accounts.entry((left.account.as_str(), &left.operator)).or_default() += 1;
        }
        accounts.into_iter().map(|((account, operator), canaries)| (account, operator, canaries)).collect()
    }

    fn add(&mut self, canary: u32, operator: &str, index: u64, exchange: &Exchange) {
        match self.left.iter_mut().find(|left| (left.canary, &left.account) == (canary, &exchange.account)) {
            Some(known) => known.times += 1,
            None => self.left.push(Left {
                canary,
                account: exchange.account.clone(),
                operator: operator.to_owned(),
                exchange: exchange.id,
                index,
                times: 1,
            }),
        }
    }
}

/// What was asked, and the answers that were served; `None` where the texts are not there.
fn texts(exchange: &Exchange) -> Option<(&str, Vec<&str>)> {
    let texts = exchange.texts.as_ref()?;
    let served = |index: usize| exchange.draws.twinning.is_none_or(|twinning| usize::from(twinning.served) == index);
    let answers = texts.answers.iter().enumerate().filter(|(index, _)| served(*index));
    Some((texts.prompt.last_text(), answers.map(|(_, answer)| answer.text.as_str()).collect()))
}
