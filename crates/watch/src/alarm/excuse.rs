//! What an honest use does that a harvest does not, and bets against it.

use anbiq_statistics::detector::{Detector, wager};
use serde::{Deserialize, Serialize};

use crate::profile::{Asked, Observed, Profile};

/// Samples of an account from which it is known what kinds of things it asks for.
const KNOWN: usize = 8;
/// Share of a fortune that is staked on an exchange.
const STAKE: f64 = 0.5;
/// Nats that speak for an excuse from which an account is left out of the bet on its operator.
const SPARED: f64 = -1.0;

/// Something that an honest use does and a harvest does not: a bound on the expectation of a score of the next exchange, given all
/// that was before. The bounds are stated, not fitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Excuse {
    /// Chat, seats, agents with tools: at most nine in ten requests begin a conversation.
    Converses,
    /// Applications, labelling, one benchmark: of what it asked before, at least a fifth is of the kind of the next request, as where
    /// five moulds are used alike.
    FewKinds,
    /// Reading, extraction, classification, retrieval: of a request's tokens at most half are the answer's, on average.
    SendsMore,
    /// Evaluation: at most half of the prompts are new to the account.
    AsksAgain,
}

impl Excuse {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Converses, Self::FewKinds, Self::SendsMore, Self::AsksAgain];

    /// The largest expectation of its score under the null hypothesis.
    pub const fn bound(self) -> f64 {
        match self {
            Self::Converses => 0.9,
            Self::FewKinds => 0.8,
            Self::SendsMore | Self::AsksAgain => 0.5,
        }
    }

    /// In words, for people.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Converses => "converses",
            Self::FewKinds => "asks few kinds of things",
            Self::SendsMore => "sends more than it takes",
            Self::AsksAgain => "asks again what it asked",
        }
    }
}

/// How an exchange scores against each excuse, in the order of [`Excuse::ALL`]; `None` where nothing is bet on it. Whether
/// something is bet does not depend on the score.
#[derive(Debug)]
pub(crate) struct Scores([Option<f64>; Excuse::ALL.len()]);

impl Scores {
    /// Of an exchange of the account `before`; `asked` is its prompt, where it is kept.
    pub(crate) fn of(seen: &Observed<'_>, asked: Option<Asked>, before: &Profile) -> Self {
        let begins = seen.sketch.map(|_| f64::from(u8::from(!seen.deep)));
        let others = asked.filter(|_| before.sketches().count() >= KNOWN).map(|asked| {
            let other = before.sketches().filter(|earlier| earlier.cell != asked.cell).count();
            other as f64 / before.sketches().count() as f64
        });
        let tokens = seen.prompt_tokens + seen.output_tokens;
        let taken = (tokens > 0).then(|| seen.output_tokens as f64 / tokens as f64);
        let fresh = seen.sketch.and_then(|sketch| before.distinct.is_new(sketch.exact));
        Self([begins, others, taken, fresh.map(|fresh| f64::from(u8::from(fresh)))])
    }
}

/// What was bet against the honesty of an account.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Bets {
    /// Logarithms of the wagers against each excuse since the last look.
    since: [f64; Excuse::ALL.len()],
    /// The same until the last look.
    until: [f64; Excuse::ALL.len()],
    /// The state of the detector that the account carries.
    detector: f64,
    /// The operator of the account by the last look, as a number of that look; none of an account that is new since.
    pub(crate) operator: Option<u32>,
    /// Is the account left out of the bet on its operator?
    spared: bool,
}

impl Bets {
    pub(crate) fn place(&mut self, scores: &Scores) {
        for ((sum, score), excuse) in self.since.iter_mut().zip(scores.0).zip(Excuse::ALL) {
            *sum += score.map_or(0.0, |score| wager(score, excuse.bound(), STAKE));
        }
    }

    /// The logarithm of the account's e-value since the last look: that of its best excuse.
    pub(crate) fn ln_e(&self) -> f64 {
        self.since.iter().copied().fold(f64::INFINITY, f64::min)
    }

    /// What the account adds to the bet on its operator.
    pub(crate) fn share(&self) -> f64 {
        if self.spared { 0.0 } else { self.ln_e() }
    }

    /// The detector after a step of `ln_e`.
    pub(crate) fn detector(&self, ln_e: f64) -> Detector {
        let mut detector = Detector::resume(self.detector);
        detector.push(ln_e);
        detector
    }

    /// What was won against each excuse in all.
    pub(crate) fn won(&self) -> [f64; Excuse::ALL.len()] {
        std::array::from_fn(|place| self.until[place] + self.since[place])
    }

    /// A look is over: the detector stands as `detector` does, and the account is of `operator` now.
    pub(crate) fn settle(&mut self, detector: Detector, operator: Option<u32>) {
        self.until = self.won();
        self.since = Default::default();
        self.detector = detector.state();
        self.operator = operator;
        self.spared = self.until.iter().any(|won| *won < SPARED);
    }
}
