//! Model over HTTP: any server that speaks the OpenAI dialect.
//!
//! [`client`] is the plain client; [`Upstream`] makes a [`Model`](anbiq_model::Model) of one model of such a server,
//! [`Pool`] makes one of several servers of the same model, and [`Reach`] says which
//! addresses any of them may have.

mod batch;
pub mod client;
mod dialect;
mod given;
mod head;
mod pool;
pub mod probe;
mod reach;
mod upstream;

pub use batch::{Batch, BatchAnswer, BatchLine, BatchResponse, Batches, FileLines};
pub use client::{ChatStream, Client, ClientConfig, ClientError, CompletionStream, ErrorKind};
pub use dialect::Dialect;
pub use given::{Form, Scoring};
pub use head::{Quota, Told};
pub use pool::{Member, Pool, PoolConfig};
pub use probe::{Probe, Scores};
pub use reach::{Reach, Unreachable};
pub use upstream::{Upstream, UpstreamConfig};
