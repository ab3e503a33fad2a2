//! The admin API as its users meet it: over HTTP.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]
#![allow(clippy::needless_pass_by_value, reason = "`json!` is written where it is used")]

mod api;
mod document;
mod house;
mod matrix;
