//! The money and the volume: what is spent, what is lost, and what requests under way may still cost.

use std::collections::HashMap;

use anbiq_domain::{Money, Usage};

use super::Limits;
use super::ledger::Past;
use super::want::{Short, Want, short};
use crate::recipe::AskPart;

/// Everything that counts against the ceiling and the volume.
///
/// Invariant: `spent + lost + held <= ceiling`, and the same of tokens, at every moment. What a request can cost at most
/// is held before it is sent, so however much of what is under way is charged, the ceiling is not passed.
#[derive(Debug)]
pub(crate) struct Purse {
    ceiling: Money,
    volume: u64,
    /// The most completion tokens of a row's request.
    pub(crate) max_tokens: u64,
    pub(crate) spent: Money,
    /// So much of it for other things than rows.
    pub(crate) extra: Money,
    pub(crate) lost: Money,
    held: Money,
    used: u64,
    held_tokens: u64,
    /// What was sent without an answer and without the word that it costs nothing, by request.
    pub(crate) open: HashMap<Short, Vec<Money>>,
}

/// May a request be sent?
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Held {
    Yes,
    /// What is under way may leave enough.
    NotNow,
    Never(String),
}

impl Purse {
    /// With what was spent on `rows` before, with how many tokens, and with what the ledger says of the `past`.
    pub(crate) fn new(part: &AskPart, limits: Limits, rows: Money, used: u64, past: Past) -> Self {
        let Past { open, extra } = past;
        let max_tokens = u64::from(part.max_tokens);
        let tries = open.values().map(|tries| tries.len() as u64).sum::<u64>();
        Self {
            ceiling: part.ceiling,
            volume: limits.tokens.unwrap_or(u64::MAX),
            max_tokens,
            spent: rows + extra,
            extra,
            lost: open.values().flatten().copied().sum(),
            held: Money::ZERO,
            used: used + tries * max_tokens,
            held_tokens: 0,
            open,
        }
    }

    /// Tries that were perhaps paid for and brought nothing.
    pub(crate) fn lost_tries(&self) -> u64 {
        self.open.values().map(|tries| tries.len() as u64).sum()
    }

    /// Holds the most that a request can cost, and the most completion tokens that it can take, if there is so much.
    pub(crate) fn hold(&mut self, most: Money, tokens: u64) -> Held {
        let certain = self.spent + self.lost;
        if certain + self.held + most <= self.ceiling && self.used + self.held_tokens + tokens <= self.volume {
            self.held += most;
            self.held_tokens += tokens;
            return Held::Yes;
        }
        if self.held > Money::ZERO || self.held_tokens > 0 {
            return Held::NotNow;
        }
        Held::Never(if certain + most > self.ceiling {
            format!("the ceiling of ${} does not hold another answer: ${certain} are spent", self.ceiling)
        } else {
            format!("the volume of {} completion tokens does not hold another answer", self.volume)
        })
    }

    /// It was not answered and costs nothing.
    pub(crate) fn release(&mut self, most: Money) {
        self.held = self.held - most;
        self.held_tokens -= self.max_tokens;
    }

    /// Something other than a row was paid for.
    pub(crate) fn pay_extra(&mut self, most: Money, tokens: u64, cost: Money, used: u64) {
        self.pay(most, tokens, cost, used);
        self.extra += cost;
    }

    fn pay(&mut self, most: Money, tokens: u64, cost: Money, used: u64) {
        self.held = self.held - most;
        self.held_tokens -= tokens;
        self.spent += cost;
        self.used += used;
    }

    /// All that counts against the ceiling and is certain, in nano-dollars.
    pub(crate) fn counted(&self) -> i64 {
        (self.spent + self.lost).nanos()
    }

    /// It was answered. Where the server says that the answer is one that it had given before, all earlier tries of the
    /// same request were one and the same.
    pub(crate) fn settle(&mut self, want: &Want, cost: Money, usage: Usage, replayed: bool) {
        self.pay(want.most, self.max_tokens, cost, usage.completion_tokens);
        if replayed {
            for most in self.open.remove(&short(&want.id)).into_iter().flatten() {
                self.lost = self.lost - most;
                self.used -= self.max_tokens;
            }
        }
    }

    /// Perhaps it was answered and the answer lost: it stays counted, at the most that it can have cost.
    pub(crate) fn lose(&mut self, want: &Want) {
        self.release(want.most);
        self.lost += want.most;
        self.used += self.max_tokens;
        self.open.entry(short(&want.id)).or_default().push(want.most);
    }
}
