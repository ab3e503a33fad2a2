/// A watermark that cannot be.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum MarkError {
    /// The window is empty or too long.
    #[error("a window of {0} tokens cannot be: 1 to 8 can")]
    Window(usize),
    /// The share of green tokens is not between 0 and 1.
    #[error("a share of {0} of green tokens cannot be: it must be above 0 and below 1")]
    Share(f64),
    /// The bias is not a positive number.
    #[error("a bias of {0} nats cannot be: it must be positive, and at most 20")]
    Bias(f64),
}

impl MarkError {
    /// A stable name of what happened.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Window(_) => "watermark_window",
            Self::Share(_) => "watermark_share",
            Self::Bias(_) => "watermark_bias",
        }
    }
}
