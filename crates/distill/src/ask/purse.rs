//! The money and the volume: what is spent, what is lost, and what requests under way may still cost.

use anbiq_domain::{Money, Usage};

use super::Limits;
use super::ledger::{Past, Try};
use super::want::{Want, short};
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
    pub(crate) lost: Money,
    held: Money,
    used: u64,
    held_tokens: u64,
    /// What was sent without an answer and without the word that it costs nothing, by request; what of `spent` was for other
    /// things than rows, and what rows count that is not in it.
    pub(crate) past: Past,
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
        let max_tokens = u64::from(part.max_tokens);
        let tries = past.open.values().map(|tries| tries.len() as u64).sum::<u64>();
        Self {
            ceiling: part.ceiling,
            volume: limits.tokens.unwrap_or(u64::MAX),
            max_tokens,
            spent: rows + past.extra - past.saved,
            lost: past.open.values().flatten().map(|sent| sent.most).sum(),
            held: Money::ZERO,
            used: used + tries * max_tokens,
            held_tokens: 0,
            past,
        }
    }

    /// Tries that were perhaps paid for and brought nothing.
    pub(crate) fn lost_tries(&self) -> u64 {
        self.past.open.values().map(|tries| tries.len() as u64).sum()
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
        self.past.extra += cost;
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

    /// It was answered, by a request for `of` answers. Where the server says that the answer is one that it had given before,
    /// all earlier tries of the same request were one and the same.
    pub(crate) fn settle(&mut self, want: &Want, cost: Money, usage: Usage, replayed: bool, of: u32) {
        self.pay(want.most, self.max_tokens, cost, usage.completion_tokens);
        let id = short(&want.id);
        if let Some(open) = self.past.open.get_mut(&id).filter(|_| replayed) {
            for sent in open.extract_if(.., |sent| sent.of == of) {
                self.lost = self.lost - sent.most;
                self.used -= self.max_tokens;
            }
            if open.is_empty() {
                self.past.open.remove(&id);
            }
        }
    }

    /// So much less was charged than rows say that were just settled: they share a prompt.
    pub(crate) fn save(&mut self, saved: Money) {
        self.spent = self.spent - saved;
        self.past.saved += saved;
    }

    /// What an earlier run sent is under way still: it is held, and not lost. False where the ledger knows of nothing.
    pub(crate) fn reclaim(&mut self, want: &Want) -> bool {
        let id = short(&want.id);
        let Some(Try { most, .. }) = self.past.open.get_mut(&id).and_then(Vec::pop) else { return false };
        if self.past.open.get(&id).is_some_and(Vec::is_empty) {
            self.past.open.remove(&id);
        }
        self.lost = self.lost - most;
        self.used -= self.max_tokens;
        self.held += want.most;
        self.held_tokens += self.max_tokens;
        true
    }

    /// Perhaps it was answered and the answer lost: it stays counted, at the most that it can have cost.
    pub(crate) fn lose(&mut self, want: &Want, of: u32) {
        self.release(want.most);
        self.lost += want.most;
        self.used += self.max_tokens;
        self.past.open.entry(short(&want.id)).or_default().push(Try { most: want.most, of });
    }
}

#[cfg(test)]
mod tests {
    use anbiq_domain::{Digest, PriceClass, PriceList, Prompt};
    use proptest::prelude::*;

    use super::*;

    fn want(number: u8, most: i64) -> Want {
        Want {
            id: Digest::of(&[number]),
            place: 0,
            prompt: Prompt::user(""),
            sample: 0,
            drawn: 0.0,
            first_seed: 0,
            usage: Usage::default(),
            most: Money::from_nanos(most),
        }
    }

    proptest! {
        /// Whatever becomes of requests, what is certain and what may still come never pass the ceiling and the volume.
        #[test]
        fn the_ceiling_holds_at_every_step(
            ceiling in 0_i64..3_000,
            volume in 0_u64..900,
            steps in prop::collection::vec((0_u8..6, 0_u8..5, 1_i64..300, 0_u64..=10), 0..80),
        ) {
            let part: AskPart = toml::from_str("prompts = \"p\"\nmax_tokens = 10\nceiling = \"0\"").unwrap();
            let part = AskPart { ceiling: Money::from_nanos(ceiling), ..part };
            let (prices, class) = (PriceList::default(), PriceClass::default());
            let limits = Limits { prices, class, tokens: Some(volume), seed: 0 };
            let mut purse = Purse::new(&part, limits, Money::ZERO, 0, Past::default());
            let mut under_way: Vec<Want> = Vec::new();
            for (number, what, most, used) in steps {
                let want = want(number, most);
                if what < 2 {
                    match purse.hold(want.most, 10) {
                        Held::Yes => under_way.push(want),
                        Held::NotNow => prop_assert!(!under_way.is_empty()),
                        Held::Never(_) => prop_assert!(under_way.is_empty()),
                    }
                } else if let Some(want) = under_way.pop() {
                    let usage = Usage { completion_tokens: used, ..Usage::default() };
                    match what {
                        2 => purse.settle(&want, Money::from_nanos(want.most.nanos() / 2), usage, used > 5, 1),
                        3 => purse.lose(&want, 1),
                        _ => purse.release(want.most),
                    }
                }
                let held: i64 = under_way.iter().map(|want| want.most.nanos()).sum();
                prop_assert_eq!(held, purse.held.nanos());
                prop_assert!((purse.spent + purse.lost + purse.held).nanos() <= ceiling);
                prop_assert!(purse.used + purse.held_tokens <= volume);
                let open: i64 = purse.past.open.values().flatten().map(|sent| sent.most.nanos()).sum();
                prop_assert_eq!(open, purse.lost.nanos());
            }
        }
    }
}
