//! Accounts that share nothing but what they ask for.
//!
//! One kind of evidence links nobody and accuses nobody. But accounts that each look like a harvest are rare, and where many of them
//! ask from one distribution a person should look.

use std::collections::BTreeSet;

use crate::block::Candidates;
use crate::campaign::Desk;
use crate::cluster::groups;
use crate::gather::thin;
use crate::grants::Grants;
use crate::parallel::map;
use crate::report::Archetype;

/// Suspects up to which every two are compared.
const EVERYBODY: usize = 600;
/// Accounts of each half by which a group is tried.
const HALF: usize = 24;
/// Share of the nats that a group needs which a pair must show to bring two accounts together.
const PAIR: f64 = 1.0 / 3.0;

impl Desk<'_> {
    /// Groups of accounts that ask alike, each of them like a harvest, outside of the operators in `linked` that are large enough to be
    /// judged themselves. Nothing else links them.
    pub(crate) fn alike(&self, linked: &[Vec<usize>], candidates: &Candidates) -> Vec<Vec<usize>> {
        let judged: BTreeSet<usize> =
            linked.iter().filter(|group| group.len() >= self.config.min_accounts).flatten().copied().collect();
        let threads = self.config.threads();
        let free = (0..self.profiles.len()).filter(|one| self.profiles[*one].exchanges > 0 && !judged.contains(one));
        let free: Vec<usize> = free.collect();
        // Whoever has a grant for all that it does is no suspect, and asks like those who have none.
        let granted = |one: &usize| {
            let profile = &self.profiles[*one];
            profile.granted_exchanges > 0 && Grants::of(&[profile], self.world).explain()
        };
        let suspicious = map(threads, &free, |one| !granted(one) && self.like_a_harvest(&[*one]));
        let suspects: Vec<usize> = free.into_iter().zip(suspicious).filter(|one| one.1).map(|one| one.0).collect();
        if suspects.len() < self.config.min_accounts {
            return Vec::new();
        }
        // The prior odds that two suspects are of one operator.
        let needed = (suspects.len() as f64).ln() + self.config.margin;
        let all = suspects.len() <= EVERYBODY;
        let pairs: Vec<(usize, usize)> = if all {
            (0..suspects.len()).flat_map(|a| (a + 1..suspects.len()).map(move |b| (a, b))).collect()
        } else {
            let mut places = vec![None; self.profiles.len()];
            suspects.iter().enumerate().for_each(|(place, one)| places[*one] = Some(place));
            candidates.pairs.iter().filter_map(|(a, b)| Some((places[*a]?, places[*b]?))).collect()
        };
        let edges = map(threads, &pairs, |&(a, b)| {
            let nats = self.linker.prompts(&[suspects[a]], &[suspects[b]]);
            (a, b, nats - PAIR * needed)
        });
        let edges: Vec<_> = edges.into_iter().filter(|edge| all || edge.2 > 0.0).collect();
        let found = groups(suspects.len(), &edges, 0.0);
        let named = found.into_iter().map(|group| group.into_iter().map(|place| suspects[place]).collect());
        named.filter(|group: &Vec<usize>| self.asks_alike(group, needed)).collect()
    }

    fn like_a_harvest(&self, group: &[usize]) -> bool {
        self.archetype(group, false) == Archetype::Harvest
    }

    fn asks_alike(&self, group: &[usize], needed: f64) -> bool {
        if group.len() < self.config.min_accounts || !self.like_a_harvest(group) {
            return false;
        }
        let half = |odd: usize| -> Vec<usize> {
            let half: Vec<usize> = group.iter().copied().skip(odd).step_by(2).collect();
            thin(&half, HALF).collect()
        };
        self.linker.prompts(&half(0), &half(1)) > needed
    }
}
