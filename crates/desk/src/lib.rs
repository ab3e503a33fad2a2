//! The desk: where an installation is administered.
//!
//! [`Administrator`] makes changes, in the ledger and then in the journal. [`router`] lets people and programs make them
//! over HTTP, under `/api/v1`: whoever asks holds an admin key, which has a role and may be limited to one account.
//!
//! A request goes through this crate from top to bottom:
//!
//! 1. `operation` is the table of all operations. Routes and [`openapi`] are made from it, so they cannot differ;
//! 2. `dispatch` finds out whose request it is, whether its role and its account allow the operation, and whether
//!    everything in it is known;
//! 3. `operations` does what was asked;
//! 4. `problem` says in the form of RFC 9457 why it was not done.
//!
//! A change of a ledger by another program holds here at once: nothing is remembered from one request to the next.

mod administrator;
mod desk;
mod dispatch;
mod error;
mod fields;
mod openapi;
mod operation;
mod operations;
mod problem;
mod schema;

pub use administrator::{Administrator, Record};
pub use desk::{Desk, DeskParts, ModelFacts, Reload, ReloadError, Reloaded, Reloading};
pub use dispatch::router;
pub use error::{DeskError, Unwritten};
pub use openapi::openapi;
