//! The program as its users meet it: command line, files, exit codes.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod customers;
mod gateway;
mod journal;
mod kill;
mod refusals;
mod support;
