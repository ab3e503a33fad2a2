//! The verb from a journal's entries to a report.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod acquittal;
mod canary;
mod probe;
mod support;
mod trace;
