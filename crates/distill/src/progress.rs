/// Somebody who wants to know how far the work is. Calls come from several threads and must return at once.
pub trait Progress: Send + Sync {
    /// A part of the work begins; it has `total` steps, where that is known.
    fn stage(&self, name: &str, total: Option<u64>);
    /// `steps` more are done.
    fn advance(&self, steps: u64);
    /// A step of training read `tokens` more; `loss` is what it minimised, a target.
    fn learnt(&self, tokens: u64, loss: f64);
    /// Something worth knowing.
    fn note(&self, text: &str);
}

/// Nobody wants to know.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quiet;

impl Progress for Quiet {
    fn stage(&self, _: &str, _: Option<u64>) {}
    fn advance(&self, _: u64) {}
    fn learnt(&self, _: u64, _: f64) {}
    fn note(&self, _: &str) {}
}
