//! From exchanges to operators to campaigns.
//!
//! A harvest that is spread over many accounts is quiet in each of them, so nothing is judged account by account.
//! Three questions are asked and never mixed:
//!
//! 1. **Who belongs together?** Every pair of accounts gets a log-likelihood ratio, a sum of [`Channel`]s, each
//!    weighted by how rare the shared thing is and each capped, so that no channel can link two accounts alone.
//!    Accounts are then grouped so that the evidence inside groups is largest.
//! 2. **What is the operator doing?** The pooled stream of each operator is compared with honest *archetypes*
//!    (chat, applications, evaluation, labelling), never with the population: a customer may be unlike all others
//!    and honest. What fits nothing is sent to review and not accused.
//!
//! A firm with three linked accounts is an operator and no campaign; a harvest under a grant is a customer.
//!
//! 3. **Since when?** From one look at the stream to the next it is bet that an operator's accounts are not used honestly; an alarm
//!    is valid whenever one looks ([`Alarms`]), and only a campaign with an alarm is at the stage *act*.
//!
//! [`analyze`] is pure: the same entries and the same [`Config`] give the same [`Report`], to the byte, however many threads there
//! are. It reads the entries once, in their order, and keeps a bounded profile of each account ([`State`]), about 2 KB when it is
//! written down; what follows from the profiles is worked out on all cores. Rows of other systems' logs ([`Seen::Imported`]) are
//! read likewise; the report counts them and says so.
//!
//! Accounts that share nothing but what they ask for are never linked: prompts are one kind of evidence. Where many accounts ask from
//! one distribution, more alike than people or programs do, and as a whole like no honest customer, they are put before a person
//! together, unless many applications ask the same. So are accounts that keep one rate, evenly and round the clock, though what they ask is no
//! application's, and accounts that talk when people sleep and ask for one thing besides.
//!
//! # What it cannot see
//!
//! `anbiq lab watch` measures it. An application of few moulds that runs day and night over several accounts and never sees one input
//! twice is told from a harvest by how varied its prompts are and how long the answers; where neither says much, it is sent to review.
//! Accounts that are openly one customer's, nearly all paid for by one means, are sent to review at most. A harvest whose accounts
//! share no payment, network or client is sent to review at most. Where nine tenths of it are innocent conversations as well, what is
//! left to see is that its accounts know no night; if they keep people's hours, mostly nothing is. Accounts of fewer than thirty
//! exchanges are not judged one by one, and those of fewer than about ten stay invisible unless payment or network gives them away.
//! Weights are in nats and rest partly on stated priors ([`Config`]), so a certainty is a statement of this model and
//! not a measured frequency.

mod alarm;
mod alike;
mod besides;
mod block;
mod bound;
mod campaign;
mod cells;
mod cluster;
mod config;
mod fit;
mod gather;
mod grants;
mod habits;
mod handover;
mod indicators;
mod link;
mod lockstep;
mod parallel;
mod pivot;
mod profile;
mod purpose;
mod render;
mod report;
mod seen;
#[cfg(test)]
mod shortcut_tests;
mod standing;
mod world;

pub use alarm::{Alarm, Alarms, Excuse, Leak, Stage};
pub use campaign::analyze;
pub use config::Config;
pub use indicators::indicators;
pub use render::render_text;
pub use report::{
    Account, Archetype, Bucket, Campaign, Channel, Edge, Fit, Member, Operator, Purpose, Reason, Report, Standing,
    Survival,
};
pub use seen::Seen;
pub use world::State;
