//! The words of Anbiq: ids, money, time, exchanges, journal entries, terms and grants.
//!
//! Everything here is a plain value. Nothing reads a file, opens a socket, asks the operating system for
//! the time or can fail for an outside reason; whoever needs the outside world passes it in as a [`Clock`]
//! or a [`Seeded`] generator. The verbs never know each other: they meet in these types.

mod administration;
mod coin;
mod digest;
mod entry;
mod exchange;
mod ids;
mod imported;
mod judge;
mod keyed;
mod known;
mod money;
mod random;
mod sketch;
mod terms;
mod time;
mod twins;
mod window;

pub use administration::{Administration, Hand};
pub use coin::{CoinKey, EpochCommitment, commit_bytes, commit_text};
pub use digest::{Digest, DigestBuilder, DigestError};
pub use entry::{CanariesDrawn, ClockKind, Entry, Refusal};
pub use exchange::{
    Answer, Client, Draws, Exchange, Finish, Message, Named, Outcome, Prompt, RequestFacts, Role, Route, SealedTexts,
    Texts, ToolCall, Usage,
};
pub use ids::{AccountId, ExchangeId, GrantId, IdError, JournalId, KeyId, OperatorId, PlanId, TermsId, UserId};
pub use imported::{Imported, ImportedExchange};
pub use judge::{Broken, Judgement, Reason, Ruling, Student};
pub use keyed::{GrowingHash, Keyed, KeyedHasher};
pub use known::{KnownTerms, known_terms};
pub use money::{Money, MoneyError, PriceList};
pub use random::Seeded;
pub use sketch::{MINHASHES, Sketch, flags};
pub use terms::{
    Conditions, Grant, GrantState, Keeping, Permission, PriceClass, Purpose, Source, Terms, TermsRef, TextPolicy,
};
pub use time::{Clock, ManualClock, SystemClock, Timestamp};
pub use twins::{TwinDraw, TwinMismatch, TwinMode, Twinning, Twins};
pub use window::{Window, WindowError};
