//! Model over HTTP: any server that speaks the OpenAI dialect.
//!
//! [`client`] is the plain client; [`Upstream`] makes a [`Model`](anbiq_model::Model) of one model of such a server,
//! and [`Pool`] makes one of several servers of the same model.

pub mod client;
mod pool;
mod upstream;

pub use client::{ChatStream, Client, ClientConfig, ClientError, CompletionStream, ErrorKind};
pub use pool::{Member, Pool, PoolConfig};
pub use upstream::{Scoring, Upstream, UpstreamConfig};
