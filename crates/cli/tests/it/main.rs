//! The program as its users meet it: command line, files, exit codes.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod admin;
mod asking;
mod batch;
mod canary;
mod capture;
mod case;
mod config;
mod customers;
mod data;
mod drain;
mod evaluated;
mod full;
mod gateway;
mod import;
mod journal;
mod kill;
mod lake;
mod lineage;
mod matched;
mod preflight;
mod refusals;
mod resume;
mod served;
mod servers;
mod support;
mod terms;
mod trace;
mod watch;
