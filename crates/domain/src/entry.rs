use serde::{Deserialize, Serialize};

use crate::{
    AccountId, Administration, Digest, EpochCommitment, Exchange, Grant, GrantId, JournalId, Keyed, Money, PlanId,
    PriceList, Terms, TermsRef, Timestamp, TwinMode, Twins,
};

/// One record of the journal. Everything that `watch`, `trace` and a dossier's reader need to know stands here;
/// none of them ever asks the ledger.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "snake_case")]
pub enum Entry {
    /// A gateway began to write.
    Opened {
        /// Which journal.
        journal: JournalId,
        /// When.
        at: Timestamp,
        /// Name and version of the software.
        software: String,
        /// Whether the times below are real.
        clock: ClockKind,
    },
    /// The coins of an epoch are fixed from here on.
    CoinsCommitted {
        /// When.
        at: Timestamp,
        /// Epoch and commitment.
        #[serde(flatten)]
        epoch: EpochCommitment,
    },
    /// Canaries were drawn: which version of each is served is fixed from here on.
    CanariesDrawn {
        /// When.
        at: Timestamp,
        /// What was drawn.
        #[serde(flatten)]
        drawn: CanariesDrawn,
    },
    /// A teacher's terms were issued.
    TermsIssued {
        /// When.
        at: Timestamp,
        /// All of them.
        terms: Terms,
    },
    /// A teacher's prices were set.
    PricesSet {
        /// When.
        at: Timestamp,
        /// Of which model.
        model: String,
        /// To what.
        prices: PriceList,
    },
    /// An account was opened.
    AccountOpened {
        /// When.
        at: Timestamp,
        /// Which.
        account: AccountId,
        /// On which plan.
        plan: PlanId,
        /// Keyed hash of the means of payment, where the provider knows it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        payment: Option<Keyed>,
    },
    /// An account accepted terms.
    TermsAccepted {
        /// When.
        at: Timestamp,
        /// Who.
        account: AccountId,
        /// What.
        terms: TermsRef,
    },
    /// The key of an account's sealed texts was destroyed; nobody can read them from here on.
    TextsForgotten {
        /// When.
        at: Timestamp,
        /// Whose.
        account: AccountId,
        /// Which key, as [`crate::SealedTexts::key`] names it.
        key: Keyed,
    },
    /// A grant was asked for: it permits nothing yet.
    GrantAsked {
        /// As it is asked for; `given` is when.
        grant: Grant,
    },
    /// A grant that was asked for was refused.
    GrantRefused {
        /// When.
        at: Timestamp,
        /// Which.
        grant: GrantId,
        /// Why.
        reason: String,
    },
    /// A grant was given, whether or not it was asked for.
    GrantGiven {
        /// All of it.
        grant: Grant,
    },
    /// A grant was taken back.
    GrantRevoked {
        /// When.
        at: Timestamp,
        /// Which.
        grant: GrantId,
    },
    /// A request was answered.
    Exchange(Box<Exchange>),
    /// Twins of an exchange ended after its answer.
    TwinsDrawn(Box<Twins>),
    /// The day's money for twins is spent: no further ones are drawn before the next day (UTC).
    TwinsStopped {
        /// When.
        at: Timestamp,
        /// Of which mode.
        mode: TwinMode,
        /// The money of a day.
        limit: Money,
    },
    /// A request was refused before any model saw it.
    Refused(Refusal),
    /// An administrator changed something.
    Administered(Administration),
    /// The gateway stopped writing in good order.
    Closed {
        /// When.
        at: Timestamp,
    },
}

impl Entry {
    /// When it happened.
    pub fn at(&self) -> Timestamp {
        match self {
            Self::Opened { at, .. }
            | Self::CoinsCommitted { at, .. }
            | Self::CanariesDrawn { at, .. }
            | Self::TermsIssued { at, .. }
            | Self::PricesSet { at, .. }
            | Self::AccountOpened { at, .. }
            | Self::TermsAccepted { at, .. }
            | Self::GrantRefused { at, .. }
            | Self::TextsForgotten { at, .. }
            | Self::GrantRevoked { at, .. }
            | Self::TwinsStopped { at, .. }
            | Self::Closed { at } => *at,
            Self::GrantAsked { grant } | Self::GrantGiven { grant } => grant.given,
            Self::Exchange(exchange) => exchange.at,
            Self::TwinsDrawn(twins) => twins.at,
            Self::Refused(refusal) => refusal.at,
            Self::Administered(administration) => administration.at,
        }
    }
}

/// What the journal says of canaries before any is served. It names neither secrets nor whom they are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanariesDrawn {
    /// SHA-256 of the canonical JSON of the signed draw.
    pub draw: Digest,
    /// Fits the key that draws, and says nothing of it.
    pub key: Digest,
    /// How many canaries.
    pub canaries: u64,
    /// How many versions there are of each.
    pub candidates: u32,
}

/// Whether a journal's times are real.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClockKind {
    /// The operating system's clock.
    System,
    /// Simulated: the times were given by the traffic generator.
    Simulated,
}

/// A request that was refused before any model saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// When.
    pub at: Timestamp,
    /// Whose.
    pub account: AccountId,
    /// Stable code of the error.
    pub code: String,
}
