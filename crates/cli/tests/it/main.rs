//! The program as its users meet it: command line, files, exit codes.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod customers;
mod gateway;
mod refusals;
mod support;
mod terms;
