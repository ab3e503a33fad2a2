//! The program as its users meet it: command line, files, exit codes.

mod gateway;
mod refusals;
mod support;
