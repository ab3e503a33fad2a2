//! Questions in SQL over everything that was exchanged.
//!
//! `watch` reads a stream and remembers what it judges by; this room answers what an investigator or a provider asks of the
//! whole history: who used how much, who shares what, which prompts and templates go round. Nothing here judges: what comes
//! out are counts and sums, exact ones.
//!
//! A journal's sealed files are Parquet with columns; what is not sealed yet, and the rows of imported logs, are written to
//! files of the same columns ([`Sources`]). Over all of them stands one table, and over that a few views ([`VIEWS`]).
//! [`QUERIES`] are the questions that have a name; anybody may ask others.
//!
//! A question is one text of SQL whatever runs it: [`Lake::open`] takes an [`Engine`], which is DataFusion in the process, or
//! Ballista's scheduler and executors behind a URL. They give the same rows in the same order, which a test compares. Both are
//! optional to build (features `local` and `cluster`), since they are larger than all the rest of the program.

mod error;
mod query;
#[cfg(feature = "local")]
mod tables;

#[cfg(feature = "local")]
mod answer;
#[cfg(feature = "cluster")]
mod careful;
#[cfg(feature = "cluster")]
mod cluster;
#[cfg(feature = "local")]
mod imported;
#[cfg(feature = "local")]
mod lake;

pub use error::LakeError;
pub use query::{COMMON, Kind, Parameter, QUERIES, Query, Question, VIEWS, Value, View, query};

#[cfg(feature = "local")]
pub use answer::{Answer, Cell};
#[cfg(feature = "cluster")]
pub use cluster::{Executor, Scheduler};
#[cfg(feature = "local")]
pub use lake::{Engine, Lake, Settings};
#[cfg(feature = "local")]
pub use tables::{ImportedSource, JournalSource, Sources};
