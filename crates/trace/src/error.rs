use anbiq_domain::{AccountId, OperatorId};
use anbiq_model::ModelError;

use crate::Mismatch;

/// A trace that came to no report.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The journal holds no twins of this teacher at all.
    #[error(
        "the journal holds no twinned exchanges of this teacher: only answers that were served while twinning was on can \
         be traced; raise the plan's `twin_share` or `twin_first` for what comes"
    )]
    NoTwins,
    /// There are twins, but all were drawn in the other mode.
    #[error(
        "no exchange was twinned in the mode `{wanted}`, but {others} were in the other: what they show rests on something \
         else, so it is a trace of its own"
    )]
    OtherMode {
        /// The mode that was asked for.
        wanted: &'static str,
        /// Exchanges of the other mode.
        others: u64,
    },
    /// There are twins, but only commitments to them.
    #[error(
        "{twinned} exchanges were twinned, but the journal keeps commitments only, not the texts: set the accounts' text \
         policy to `twinned` for what comes, or run the trace where the texts are kept"
    )]
    NoTexts {
        /// How many.
        twinned: u64,
    },
    /// There are too few pairs to show anything.
    #[error(
        "{found} pairs can be tested, at least {needed} are needed: with fewer not even a perfect result is evidence"
    )]
    TooFew {
        /// Pairs with different texts that every model scored.
        found: usize,
        /// The protocol's minimum.
        needed: usize,
    },
    /// The operators are not apart.
    #[error("account `{account}` belongs to both `{first}` and `{second}`: an account has one operator")]
    SharedAccount {
        /// The account.
        account: AccountId,
        /// One operator.
        first: OperatorId,
        /// The other.
        second: OperatorId,
    },
    /// A calibration student is not comparable with the suspect.
    #[error("the calibration student `{student}` cannot be compared with: {what}")]
    Calibration {
        /// Which.
        student: String,
        /// Why not.
        what: String,
    },
    /// A server whose answers do not count.
    #[error("nothing that the server of `{model}` answers counts: {why}")]
    Server {
        /// The model that it is said to be.
        model: String,
        /// Why not.
        why: String,
    },
    /// Canaries that cannot be drawn or tested so.
    #[error("these canaries cannot be: {what}")]
    Canaries {
        /// Why not.
        what: String,
    },
    /// A model cannot score given text.
    #[error(
        "model `{model}` gives no log-probabilities of given text, which the twin test needs: use its weights, or an \
         endpoint that scores prompts"
    )]
    ScoringUnsupported {
        /// Which.
        model: String,
    },
    /// Something is not as it was planned.
    #[error("this is not what was planned: `{}` is {} in the plan, and now {}", .0.at, .0.recorded, .0.recomputed)]
    NotAsPlanned(Mismatch),
    /// A model failed for good.
    #[error("model `{model}` failed to score: {source}")]
    Model {
        /// Which.
        model: String,
        /// How.
        source: ModelError,
    },
    /// A model did not answer.
    #[error("model `{model}` did not answer: {source}")]
    Unanswered {
        /// Which.
        model: String,
        /// How.
        source: ModelError,
    },
    /// A model answered with another number of scores than it was asked for.
    #[error("model `{model}` gave {given} scores for {asked} completions")]
    ScoreCount {
        /// Which.
        model: String,
        /// Scores it gave.
        given: usize,
        /// Scores it was asked for.
        asked: usize,
    },
}

impl TraceError {
    /// A stable name of what happened.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NoTwins => "no_twins",
            Self::OtherMode { .. } => "other_twin_mode",
            Self::NoTexts { .. } => "no_texts",
            Self::TooFew { .. } => "too_few_twins",
            Self::SharedAccount { .. } => "shared_account",
            Self::Calibration { .. } => "calibration_differs",
            Self::Server { .. } => "server_differs",
            Self::Canaries { .. } => "canaries_wrong",
            Self::ScoringUnsupported { .. } => "scoring_unsupported",
            Self::NotAsPlanned(_) => "not_as_planned",
            Self::Model { source, .. } | Self::Unanswered { source, .. } => source.code,
            Self::ScoreCount { .. } => "score_count",
        }
    }

    /// Is another try of use?
    pub const fn retryable(&self) -> bool {
        matches!(self, Self::Model { source, .. } | Self::Unanswered { source, .. } if source.retryable())
    }
}
