/// A server behind a model, and how it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Its address, without anything secret. It comes from the configuration, so there are few.
    pub name: String,
    /// Requests sent to it, second tries among them.
    pub requests: u64,
    /// Second and later tries of a request that were sent to it.
    pub retries: u64,
    /// Requests that failed for a reason that is not in the request.
    pub failures: u64,
    /// Is it left alone for a while, since it failed or asked for it?
    pub resting: bool,
}

impl Server {
    /// A server that was not asked yet.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), requests: 0, retries: 0, failures: 0, resting: false }
    }
}
