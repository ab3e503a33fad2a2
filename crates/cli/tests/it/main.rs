//! The program as its users meet it: command line, files, exit codes.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod admin;
mod customers;
mod gateway;
mod refusals;
mod support;
