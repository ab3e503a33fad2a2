//! Content cells: groups of prompts that are made alike, whatever their fillers.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, VecDeque};

use anbiq_domain::{Keyed, MINHASHES, Sketch};
use anbiq_statistics::sketch::agreeing;
use serde::{Deserialize, Serialize};

use crate::profile::Profile;

/// Minimum hashes that agree from which two prompts fall into one cell: an estimated Jaccard index of a quarter.
const ALIKE: usize = MINHASHES / 4;
/// Leaders that are looked at of those with one minimum hash, the latest ones; common word pairs would otherwise bring everybody
/// together.
const BAND: usize = 16;
/// Prompts that founded a cell or joined one by likeness, the latest ones: others are compared with them.
const LEADERS: usize = 20_000;
const _: () = assert!(LEADERS <= u16::MAX as usize, "a chain's step must fit into its number");
/// Openings whose cells are remembered, the latest ones.
const OPENINGS: usize = 4 * LEADERS;

/// The cells of all sampled prompts of all accounts, numbered anew.
#[derive(Debug)]
pub(crate) struct Cells {
    /// For every account, in order: the cell of each of its sketches, in order.
    pub(crate) of: Vec<Vec<usize>>,
    /// Number of cells.
    pub(crate) count: usize,
    /// The same with one number, that of all cells, for those that hold a single prompt of all.
    ///
    /// What nobody else ever asked is common to nobody: that two accounts differ in it says as little as that two people never spoke
    /// one sentence. How much of an account is of that kind does say something, so it counts as one kind.
    pub(crate) kinds: Vec<Vec<usize>>,
}

impl Cells {
    /// The cells of the samples of `profiles`, in the order in which they are met.
    pub(crate) fn of(profiles: &[Profile]) -> Self {
        let mut numbers: HashMap<u32, usize> = HashMap::new();
        let mut number = |cell: u32| {
            let next = numbers.len();
            *numbers.entry(cell).or_insert(next)
        };
        let of: Vec<Vec<usize>> =
            profiles.iter().map(|profile| profile.sketches().map(|asked| number(asked.cell)).collect()).collect();
        let count = numbers.len();
        let mut held = vec![0_u32; count];
        of.iter().flatten().for_each(|cell| held[*cell] += 1);
        let kind = |cell: &usize| if held[*cell] > 1 { *cell } else { count };
        let kinds = of.iter().map(|cells| cells.iter().map(kind).collect()).collect();
        Self { of, count, kinds }
    }

    /// Counts of each account's kinds, sorted.
    pub(crate) fn rows(&self) -> Vec<Vec<(usize, u32)>> {
        self.kinds.iter().map(|kinds| tally(kinds.iter().copied())).collect()
    }
}

/// Counts equal items, sorted.
pub(crate) fn tally(cells: impl Iterator<Item = usize>) -> Vec<(usize, u32)> {
    let mut counts = BTreeMap::new();
    for cell in cells {
        *counts.entry(cell).or_insert(0_u32) += 1;
    }
    counts.into_iter().collect()
}

/// Sorts prompts into cells as they come: prompts with an equal opening share one, and so do prompts alike.
///
/// One pass in the order of the stream (leader clustering), so the result is the same every time. What is remembered is bounded:
/// of a kind of prompt that nobody used for long, the next one founds a cell of its own.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(from = "Memory", into = "Memory")]
pub(crate) struct Finder {
    openings: HashMap<Keyed, u32>,
    /// The openings, the oldest first.
    order: VecDeque<Keyed>,
    /// The oldest first, each with its cell.
    leaders: VecDeque<(Sketch, u32)>,
    /// For each leader and each of its minimum hashes, how far before it the next older one stands that has the same; 0 where
    /// there is none. So the leaders that share one are a chain, from the latest on, and need no list of their own.
    back: VecDeque<[u16; MINHASHES]>,
    /// By place and minimum hash the number of the latest leader that has it.
    latest: HashMap<(u8, u32), u64>,
    /// Leaders that were forgotten: the number of the first that is left.
    gone: u64,
    count: u32,
}

/// All that a [`Finder`] knows; the rest follows.
#[derive(Debug, Serialize, Deserialize)]
struct Memory {
    openings: Vec<(Keyed, u32)>,
    leaders: Vec<(Sketch, u32)>,
    gone: u64,
    count: u32,
}

impl From<Finder> for Memory {
    fn from(finder: Finder) -> Self {
        let openings = finder.order.iter().filter_map(|opening| Some((*opening, *finder.openings.get(opening)?)));
        Self { openings: openings.collect(), leaders: finder.leaders.into(), gone: finder.gone, count: finder.count }
    }
}

impl From<Memory> for Finder {
    fn from(Memory { openings, leaders, gone, count }: Memory) -> Self {
        let order = openings.iter().map(|opening| opening.0).collect();
        let mut finder = Self { openings: openings.into_iter().collect(), order, gone, count, ..Self::default() };
        leaders.into_iter().for_each(|(sketch, cell)| finder.lead(&sketch, cell));
        finder
    }
}

impl Finder {
    /// The cell of a prompt.
    pub(crate) fn cell(&mut self, sketch: &Sketch) -> u32 {
        if let Some(cell) = self.openings.get(&sketch.opening) {
            return *cell;
        }
        let cell = self.nearest(sketch).unwrap_or_else(|| {
            self.count = self.count.wrapping_add(1);
            self.count
        });
        if self.order.len() >= OPENINGS
            && let Some(oldest) = self.order.pop_front()
        {
            self.openings.remove(&oldest);
        }
        self.order.push_back(sketch.opening);
        self.openings.insert(sketch.opening, cell);
        if self.leaders.len() >= LEADERS {
            self.forget();
        }
        self.lead(sketch, cell);
        cell
    }

    /// The cell of the leader that is most like a prompt, the oldest among equals, if any is enough.
    ///
    /// Only those are compared that stand in two chains of the prompt: who agrees in enough places does, and most others meet it
    /// in one.
    fn nearest(&self, sketch: &Sketch) -> Option<u32> {
        let (mut met, mut often) = ([0_u8; LEADERS], Vec::new());
        let mut ends = [None; MINHASHES];
        for (key, end) in keys(sketch).zip(&mut ends) {
            *end = self.latest.get(&key).and_then(|number| usize::try_from(number.checked_sub(self.gone)?).ok());
        }
        // A step on all chains before the next one: where one leader has to come from memory, the others come along.
        for _ in 0..BAND {
            for (place, end) in ends.iter_mut().enumerate() {
                let Some(at) = *end else { continue };
                met[at] += 1;
                if met[at] == 2 {
                    often.push(at);
                }
                let back = usize::from(self.back[at][place]);
                *end = if back == 0 { None } else { at.checked_sub(back) };
            }
        }
        let agrees = |at: usize| (agreeing(sketch, &self.leaders[at].0), Reverse(at));
        let (most, Reverse(at)) = often.into_iter().map(agrees).max()?;
        (most >= ALIKE).then_some(self.leaders[at].1)
    }

    fn lead(&mut self, sketch: &Sketch, cell: u32) {
        let number = self.gone + self.leaders.len() as u64;
        let mut back = [0; MINHASHES];
        for (key, back) in keys(sketch).zip(&mut back) {
            let before = self.latest.insert(key, number);
            // One that is further back than that is forgotten.
            *back = before.and_then(|before| u16::try_from(number - before).ok()).unwrap_or(0);
        }
        self.leaders.push_back((sketch.clone(), cell));
        self.back.push_back(back);
    }

    /// Forgets the oldest leader; every chain ends where it was.
    fn forget(&mut self) {
        self.back.pop_front();
        let Some((sketch, _)) = self.leaders.pop_front() else { return };
        for key in keys(&sketch) {
            if self.latest.get(&key) == Some(&self.gone) {
                self.latest.remove(&key);
            }
        }
        self.gone += 1;
    }
}

/// One chain for each minimum hash.
fn keys(sketch: &Sketch) -> impl Iterator<Item = (u8, u32)> {
    (0_u8..).zip(sketch.minhash).take(MINHASHES)
}
