use std::collections::HashSet;
use std::sync::Arc;

use crate::mark::{Mark, Scheme};

/// Marks the tokens of one answer as they are drawn.
///
/// The first tokens, before there is a window, are drawn without a mark, and so is a token after a window that this answer
/// had before: its value is no longer fresh, and would make the answer repeat itself.
#[derive(Debug, Clone)]
pub struct Marker {
    mark: Arc<Mark>,
    /// The last tokens.
    recent: Vec<u32>,
    /// Windows that this answer had.
    had: HashSet<u64>,
}

impl Marker {
    /// For an answer that has no token yet.
    pub fn new(mark: Arc<Mark>) -> Self {
        Self { mark, recent: Vec::new(), had: HashSet::new() }
    }

    /// Raises the logits of green tokens, where that is the scheme.
    pub fn raise(&self, logits: &mut [f32]) {
        let Scheme::Green { bias, .. } = self.mark.scheme() else { return };
        let Some(window) = self.fresh() else { return };
        for (token, logit) in (0_u32..).zip(logits) {
            if window.value(token) == crate::Value::Green(true) {
                *logit += bias as f32;
            }
        }
    }

    /// The winner of the race among `weights`, `(token, weight)`, which need not add up to anything; `None` where this token
    /// is to be drawn without a mark. `coin`, which nobody can foresee, says which of the two keys counts.
    pub fn race(&self, weights: impl Iterator<Item = (u32, f32)>, coin: bool) -> Option<u32> {
        if self.mark.scheme() != Scheme::Gumbel {
            return None;
        }
        let window = self.fresh()?;
        let key = u64::from(coin);
        // A number of 0 would need infinite time, and is as likely as any other.
        let time = |(token, weight): (u32, f32)| {
            (-window.uniform(token, key).max(f64::MIN_POSITIVE).ln() / f64::from(weight), token)
        };
        let running = weights.filter(|(_, weight)| *weight > 0.0).map(time);
        running.min_by(|one, other| one.0.total_cmp(&other.0)).map(|(_, token)| token)
    }

    /// `token` was taken.
    pub fn push(&mut self, token: u32) {
        if let Some(window) = self.mark.after(&self.recent) {
            let id = window.id;
            self.had.insert(id);
        }
        if self.recent.len() == self.mark.window() {
            self.recent.remove(0);
        }
        self.recent.push(token);
    }

    fn fresh(&self) -> Option<crate::Window<'_>> {
        self.mark.after(&self.recent).filter(|window| !self.had.contains(&window.id))
    }
}
