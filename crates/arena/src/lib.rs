//! The arena: composed traffic on which `watch` and what others propose are compared.
//!
//! Honest accounts of many kinds, most of the volume unlike chat, and campaigns of known size share a world; every detector reads
//! the same rows. What is true is known, so false accusations are counted for each kind of customer by itself, and what is not found
//! is counted too. All of it follows from a seed. Traffic is composed, so its figures say what a method does, not what happened.

mod baseline;
mod compose;
mod contest;
mod delay;
mod embed;
mod error;
mod page;
mod plot;
mod score;
mod table;
mod tally;
mod verdict;

pub use baseline::Method;
pub use compose::{Campaign, Class, History, Replay, Trick};
pub use contest::{Ablation, CampaignRow, ClassRow, Composed, CurveRow, LinkRow, Plan, Standings, contest};
pub use delay::{DelayRow, Gone, Spread};
pub use error::ArenaError;
pub use page::page;
pub use score::{Curve, Linking, Share};
pub use table::render_text;
