//! Which pairs are worth examining.

use std::collections::{BTreeMap, HashMap};

use crate::link::{Linker, rarity};

/// Pairs worth examining.
#[derive(Debug)]
pub(crate) struct Candidates {
    /// `a < b`.
    pub(crate) pairs: Vec<(usize, usize)>,
    /// Are they all there are?
    pub(crate) all: bool,
}

impl Linker<'_> {
    /// Pairs worth examining: all of them where they are few.
    pub(crate) fn candidates(&self) -> Candidates {
        let count = self.profiles.len();
        if count <= self.config.all_pairs_up_to {
            let pairs = (0..count).flat_map(|a| (a + 1..count).map(move |b| (a, b))).collect();
            return Candidates { pairs, all: true };
        }
        let mut blocks: BTreeMap<(u8, u64, u64), Vec<u32>> = BTreeMap::new();
        for (place, profile) in (0_u32..).zip(self.profiles) {
            let mut join = |kind: u8, x: u64, y: u64| blocks.entry((kind, x, y)).or_default().push(place);
            profile.payment.iter().for_each(|payment| join(0, payment.0, 0));
            profile.networks.keys().for_each(|network| join(1, network.0, 0));
            for agent in profile.agents.keys() {
                profile.settings.keys().for_each(|settings| join(2, agent.0, *settings));
            }
            self.rows[place as usize].iter().for_each(|(cell, _)| join(3, *cell as u64, 0));
        }
        // What two accounts share, weighed by how few share it: a block that holds a tenth of all accounts tells nobody apart.
        let mut shared: Vec<HashMap<u32, f64>> = vec![HashMap::new(); count];
        for members in blocks.values().filter(|members| members.len() > 1 && members.len() <= count / 10) {
            self.pair_up(members, rarity(count, members.len() as f64), &mut shared);
        }
        let mut by_opening: Vec<u32> = (0_u32..)
            .zip(self.profiles)
            .filter(|(_, profile)| profile.opened.is_some())
            .map(|(place, _)| place)
            .collect();
        by_opening.sort_by_key(|place| (self.profiles[*place as usize].opened, *place));
        self.pair_up(&by_opening, rarity(count, 10.0), &mut shared);
        for order in self.pivots.in_order() {
            self.pair_up(&order, rarity(count, 10.0), &mut shared);
        }
        for (a, b) in self.reliefs.pairs() {
            let nats = rarity(count, 2.0);
            *shared[a].entry(b as u32).or_default() += nats;
            *shared[b].entry(a as u32).or_default() += nats;
        }
        let mut pairs = Vec::new();
        for (place, partners) in shared.iter().enumerate() {
            let mut partners: Vec<(u32, f64)> = partners.iter().map(|(other, nats)| (*other, *nats)).collect();
            partners.sort_by(|x, y| y.1.total_cmp(&x.1).then(x.0.cmp(&y.0)));
            partners.truncate(self.config.partners);
            pairs.extend(partners.iter().map(|(other, _)| (place.min(*other as usize), place.max(*other as usize))));
        }
        pairs.sort_unstable();
        pairs.dedup();
        Candidates { pairs, all: false }
    }

    /// Brings each of a block together with the next ones of it; the last ones with the first.
    fn pair_up(&self, members: &[u32], nats: f64, shared: &mut [HashMap<u32, f64>]) {
        for (place, a) in members.iter().enumerate() {
            for step in 1..=self.config.block_partners.min(members.len() / 2) {
                let b = members[(place + step) % members.len()];
                *shared[*a as usize].entry(b).or_default() += nats;
                *shared[b as usize].entry(*a).or_default() += nats;
            }
        }
    }
}
