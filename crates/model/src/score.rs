use anbiq_domain::{Answer, Prompt};

/// A completion whose probability is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScoreRequest {
    /// What it answers.
    pub prompt: Prompt,
    /// The completion. After one that ended with `Finish::Stop` the model's end-of-turn token is scored too.
    pub answer: Answer,
}

/// The probability of a completion.
#[derive(Debug, Clone, PartialEq)]
pub struct Scored {
    /// Natural logarithms of the tokens' probabilities at temperature 1, in order.
    pub logprobs: Vec<f32>,
    /// Is each of those tokens the likeliest one at its place? Empty where the model does not say.
    pub greedy: Vec<bool>,
}

impl Scored {
    /// The logarithm of the probability of the whole completion.
    pub fn total(&self) -> f64 {
        self.logprobs.iter().map(|&logprob| f64::from(logprob)).sum()
    }
}
