//! Model over HTTP: any server that speaks the OpenAI dialect.
//!
//! [`client`] is the plain client; [`Upstream`] makes a [`Model`](anbiq_model::Model) of one model of such a server.

pub mod client;
mod upstream;

pub use client::{ChatStream, Client, ClientConfig, ClientError, CompletionStream, ErrorKind};
pub use upstream::{Scoring, Upstream, UpstreamConfig};
