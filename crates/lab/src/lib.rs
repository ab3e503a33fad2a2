//! The laboratory: a generated corpus, the embedded teacher, composed traffic, red-team operators and mock servers.
//!
//! Tests, benchmarks and `anbiq demo` use it; nothing of it runs in a gateway.

pub mod corpus;
mod error;
pub mod exam;
mod listen;
pub mod load;
pub mod mock;
pub mod play;
pub mod teacher;
pub mod vendor;
pub mod world;

pub use error::LabError;
