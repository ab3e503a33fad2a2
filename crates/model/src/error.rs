/// Who is to blame when a model does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The request cannot be answered as it is; sending it again is useless.
    Request,
    /// The model or its server failed; another try may succeed.
    Model,
    /// Too much is asked of it now; a later try will succeed.
    Busy,
    /// This program is set up wrongly: a missing file, a bad key, an unknown host.
    Setup,
}

/// A model that does not answer.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct ModelError {
    /// Who is to blame.
    pub fault: Fault,
    /// A stable name of what happened, such as `context_length_exceeded`.
    pub code: &'static str,
    /// What happened, for a person.
    pub message: String,
    /// After how many milliseconds to try again, where the server said so.
    pub retry_after_ms: Option<u64>,
}

impl ModelError {
    /// An error without a time to wait for.
    pub fn new(fault: Fault, code: &'static str, message: impl Into<String>) -> Self {
        Self { fault, code, message: message.into(), retry_after_ms: None }
    }

    /// Is another try of use?
    pub const fn retryable(&self) -> bool {
        matches!(self.fault, Fault::Model | Fault::Busy)
    }
}
