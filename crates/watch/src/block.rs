//! Which pairs are worth examining.

use std::ops::Range;

use crate::link::{Linker, rarity};
use crate::parallel::map;

/// Accounts whose partners are looked for together: they share a place to add up in.
const TOGETHER: usize = 256;

/// Pairs worth examining.
#[derive(Debug)]
pub(crate) struct Candidates {
    /// `a < b`.
    pub(crate) pairs: Vec<(usize, usize)>,
    /// Are they all there are?
    pub(crate) all: bool,
}

/// Accounts that something brings together, block after block.
#[derive(Debug, Default)]
struct Blocks {
    /// Where the members of each block begin, and one more.
    starts: Vec<u32>,
    members: Vec<u32>,
    /// What it weighs to share the block.
    nats: Vec<f64>,
}

impl Linker<'_> {
    /// Pairs worth examining: all of them where they are few.
    pub(crate) fn candidates(&self) -> Candidates {
        let count = self.profiles.len();
        if count <= self.config.all_pairs_up_to {
            let pairs = (0..count).flat_map(|a| (a + 1..count).map(move |b| (a, b))).collect();
            return Candidates { pairs, all: true };
        }
        let blocks = self.blocks();
        // The blocks of each account with its place in them, in the order of the blocks.
        let mut ends = vec![0_u32; count + 1];
        blocks.members.iter().for_each(|one| ends[*one as usize + 1] += 1);
        (0..count).for_each(|one| ends[one + 1] += ends[one]);
        let (starts, mut next) = (ends.clone(), ends);
        let mut places = vec![(0_u32, 0_u32); blocks.members.len()];
        for block in 0..blocks.nats.len() {
            for (place, one) in (0_u32..).zip(blocks.of(block)) {
                let next = &mut next[*one as usize];
                places[*next as usize] = (block as u32, place);
                *next += 1;
            }
        }
        let mut reliefs: Vec<(u32, u32)> =
            self.reliefs.pairs().flat_map(|(a, b)| [(a as u32, b as u32), (b as u32, a as u32)]).collect();
        reliefs.sort_unstable();
        let relieved = rarity(count, 2.0);
        let pieces: Vec<Range<usize>> =
            (0..count).step_by(TOGETHER).map(|from| from..(from + TOGETHER).min(count)).collect();
        let found = map(self.config.threads(), &pieces, |piece| {
            let mut sums = Sums { of: vec![0.0; count], last: vec![u32::MAX; count], met: Vec::new() };
            let mut pairs = Vec::new();
            for one in piece.clone() {
                let whom = one as u32;
                for (block, place) in &places[starts[one] as usize..starts[one + 1] as usize] {
                    let (members, place) = (blocks.of(*block as usize), *place as usize);
                    let nats = blocks.nats[*block as usize];
                    // The next ones of the block and those before; the last ones with the first.
                    for step in 1..=self.config.block_partners.min(members.len() / 2) {
                        sums.add(whom, members[(place + step) % members.len()], nats);
                        sums.add(whom, members[(place + members.len() - step) % members.len()], nats);
                    }
                }
                let from = reliefs.partition_point(|pair| pair.0 < whom);
                for (_, other) in reliefs[from..].iter().take_while(|pair| pair.0 == whom) {
                    sums.add(whom, *other, relieved);
                }
                for other in sums.best(self.config.partners) {
                    pairs.push((whom.min(*other), whom.max(*other)));
                }
                sums.met.clear();
            }
            pairs
        });
        let mut pairs: Vec<(u32, u32)> = found.into_iter().flatten().collect();
        pairs.sort_unstable();
        pairs.dedup();
        Candidates { pairs: pairs.into_iter().map(|(a, b)| (a as usize, b as usize)).collect(), all: false }
    }

    /// What two accounts may share, kind after kind, weighed by how few share it: a block that holds a tenth of all accounts tells nobody
    /// apart. Those that were opened one after another, and those that went over to a new model so, are brought together as well.
    fn blocks(&self) -> Blocks {
        let count = self.profiles.len();
        let mut blocks = Blocks { starts: vec![0], ..Blocks::default() };
        let mut add = |members: &mut dyn Iterator<Item = u32>, weight: &dyn Fn(usize) -> Option<f64>| {
            let before = blocks.members.len();
            blocks.members.extend(members);
            match weight(blocks.members.len() - before) {
                Some(nats) => {
                    blocks.starts.push(blocks.members.len() as u32);
                    blocks.nats.push(nats);
                }
                None => blocks.members.truncate(before),
            }
        };
        let rare = |members: usize| (members > 1 && members <= count / 10).then(|| rarity(count, members as f64));
        let mut kind = |mut keys: Vec<((u64, u64), u32)>| {
            keys.sort_unstable();
            keys.chunk_by(|a, b| a.0 == b.0).for_each(|keys| add(&mut keys.iter().map(|key| key.1), &rare));
        };
        let all = || (0_u32..).zip(self.profiles);
        kind(all().filter_map(|(place, one)| Some(((one.payment?.0, 0), place))).collect());
        kind(all().flat_map(|(place, one)| one.networks.keys().map(move |key| ((key.0, 0), place))).collect());
        let programs = all().flat_map(|(place, one)| {
            let settings = move |agent: u64| one.settings.keys().map(move |settings| ((agent, *settings), place));
            one.agents.keys().flat_map(move |agent| settings(agent.0))
        });
        kind(programs.collect());
        let cells = (0_u32..).zip(&self.rows);
        kind(cells.flat_map(|(place, row)| row.iter().map(move |(cell, _)| ((*cell as u64, 0), place))).collect());
        let mut by_opening: Vec<u32> = all().filter(|(_, one)| one.opened.is_some()).map(|(place, _)| place).collect();
        by_opening.sort_by_key(|place| (self.profiles[*place as usize].opened, *place));
        let near = |_| Some(rarity(count, 10.0));
        add(&mut by_opening.into_iter(), &near);
        self.pivots.in_order().into_iter().for_each(|order| add(&mut order.into_iter(), &near));
        blocks
    }
}

impl Blocks {
    fn of(&self, block: usize) -> &[u32] {
        &self.members[self.starts[block] as usize..self.starts[block + 1] as usize]
    }
}

/// What one account after another shares with others.
struct Sums {
    of: Vec<f64>,
    /// For whom each sum was begun last.
    last: Vec<u32>,
    /// With whom the account at hand shares anything.
    met: Vec<u32>,
}

impl Sums {
    fn add(&mut self, one: u32, other: u32, nats: f64) {
        let place = other as usize;
        if std::mem::replace(&mut self.last[place], one) != one {
            self.of[place] = 0.0;
            self.met.push(other);
        }
        self.of[place] += nats;
    }

    /// The `most` with whom the account at hand shares most.
    fn best(&mut self, most: usize) -> &[u32] {
        let Self { of, met, .. } = self;
        if met.len() > most {
            let order = |a: &u32, b: &u32| of[*b as usize].total_cmp(&of[*a as usize]).then(a.cmp(b));
            met.select_nth_unstable_by(most, order);
            met.truncate(most);
        }
        met
    }
}
