//! What a comparison can come to at most, before it is worked out: most need not be.

use crate::link::{Evidence, Linker};
use crate::report::Channel;

/// Nats that what two accounts ask may come to at most: content and work queue.
const PROMPTS_AT_MOST: f64 = Channel::Content.bounds().1 + Channel::Queue.bounds().1;
/// Nats by which sums of the same numbers in another order may differ: far more than they do.
pub(crate) const SLACK: f64 = 1e-6;

impl Linker<'_> {
    /// The evidence of a pair, where it may come to more than `floor` nats in all; whoever is told nothing need not know more.
    pub(crate) fn pair_above(&self, a: usize, b: usize, floor: f64) -> Option<Evidence> {
        match self.known(a, b) {
            Some(known) => Some(known.0),
            None => {
                let evidence = self.without_prompts(a, b);
                let most = evidence.total(None) + PROMPTS_AT_MOST;
                (most + SLACK > floor).then(|| self.finish(a, b, evidence).0)
            }
        }
    }

    /// What the accounts `a` and the accounts `b` can come to at most, channel by channel: in the mean over their pairs, and as pools.
    /// What they ask counts with all that it can give, where it takes long to weigh.
    pub(crate) fn at_most(&self, a: &[usize], b: &[usize]) -> [Evidence; 2] {
        let [content, queue] = [Channel::Content, Channel::Queue].map(|channel| channel.bounds().1);
        let (mut mean, mut pairs) = (Evidence::default(), 0.0);
        for (one, two) in a.iter().flat_map(|one| b.iter().map(move |two| (*one, *two))) {
            let evidence = self.known(one, two).map_or_else(
                || {
                    let mut evidence = self.without_prompts(one, two);
                    evidence.put(Channel::Content, content);
                    evidence.put(Channel::Queue, queue);
                    evidence
                },
                |known| known.0,
            );
            mean.0.iter_mut().zip(evidence.0).for_each(|(sum, nats)| *sum += nats);
            pairs += 1.0;
        }
        mean.0.iter_mut().for_each(|sum| *sum /= f64::max(pairs, 1.0));
        let mut pooled = mean;
        pooled.put(Channel::Network, self.pooled_networks(a, b).max(mean.of(Channel::Network)));
        pooled.put(Channel::HandOver, self.reliefs.nats(a, b));
        pooled.put(Channel::Content, content);
        pooled.put(Channel::Queue, queue);
        [mean, pooled]
    }
}
