//! Which examples are learnt from together, and which thread learns from which.

use std::cmp::Reverse;

use anbiq_domain::Seeded;

use super::{Example, Pair};

/// Something that is learnt from as a whole.
pub trait Member {
    /// Its tokens.
    fn tokens(&self) -> usize;
}

impl Member for Example {
    fn tokens(&self) -> usize {
        self.tokens.len()
    }
}

impl Member for Pair {
    fn tokens(&self) -> usize {
        self.chosen.tokens.len() + self.rejected.tokens.len()
    }
}

/// Shuffles the members anew for each of `epochs` and packs them into batches of about `batch_tokens` tokens, a whole
/// number of members each.
pub fn epochs<M: Member>(members: &[M], epochs: u32, batch_tokens: usize, seed: u64) -> Vec<Vec<&M>> {
    let mut random = Seeded::new(seed).fork("epochs");
    let mut order: Vec<&M> = members.iter().collect();
    let mut batches = Vec::new();
    for _ in 0..epochs {
        random.shuffle(&mut order);
        let mut batch: Vec<&M> = Vec::new();
        let mut tokens = 0;
        for &member in &order {
            if !batch.is_empty() && tokens + member.tokens() / 2 > batch_tokens {
                batches.push(std::mem::take(&mut batch));
                tokens = 0;
            }
            tokens += member.tokens();
            batch.push(member);
        }
        batches.extend((!batch.is_empty()).then_some(batch));
    }
    batches
}

/// Distributes the members of a batch, whose rows are `lengths`, over packs of about `pack_rows` rows, evenly over the
/// threads: the longest first, each to the lightest pack (Graham 1969).
pub(super) fn balance(lengths: &[usize], threads: usize, pack_rows: usize) -> Vec<Vec<usize>> {
    let rows: usize = lengths.iter().sum();
    let count = rows.div_ceil(pack_rows).next_multiple_of(threads).min(lengths.len());
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&index| (Reverse(lengths[index]), index));
    let mut packs = vec![(0, Vec::new()); count];
    for index in order {
        if let Some(lightest) = packs.iter_mut().min_by_key(|(rows, _)| *rows) {
            lightest.0 += lengths[index];
            lightest.1.push(index);
        }
    }
    packs.into_iter().map(|(_, pack)| pack).collect()
}
