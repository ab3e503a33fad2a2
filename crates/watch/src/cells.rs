//! Content cells: groups of prompts that are made alike, whatever their fillers.

use std::collections::{BTreeMap, HashMap, VecDeque};

use anbiq_domain::{Keyed, MINHASHES, Sketch};
use anbiq_statistics::sketch::similarity;
use serde::{Deserialize, Serialize};

use crate::profile::Profile;

/// Estimated Jaccard index from which two prompts fall into one cell.
const ALIKE: f64 = 0.25;
/// Leaders remembered under one minimum hash; common word pairs would otherwise bring everybody together.
const BAND: usize = 16;
/// Prompts that founded a cell or joined one by likeness, the latest ones: others are compared with them.
const LEADERS: usize = 20_000;
/// Openings whose cells are remembered, the latest ones.
const OPENINGS: usize = 4 * LEADERS;

/// The cells of all sampled prompts of all accounts, numbered anew.
#[derive(Debug)]
pub(crate) struct Cells {
    /// For every account, in order: the cell of each of its sketches, in order.
    pub(crate) of: Vec<Vec<usize>>,
    /// Number of cells.
    pub(crate) count: usize,
}

impl Cells {
    /// The cells of the samples of `profiles`, in the order in which they are met.
    pub(crate) fn of(profiles: &[Profile]) -> Self {
        let mut numbers: HashMap<u32, usize> = HashMap::new();
        let mut number = |cell: u32| {
            let next = numbers.len();
            *numbers.entry(cell).or_insert(next)
        };
        let of = profiles.iter().map(|profile| profile.sketches().map(|asked| number(asked.cell)).collect()).collect();
        Self { of, count: numbers.len() }
    }

    /// Counts of each account's cells, sorted by cell.
    pub(crate) fn rows(&self) -> Vec<Vec<(usize, u32)>> {
        self.of.iter().map(|cells| tally(cells.iter().copied())).collect()
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
    /// The oldest first.
    leaders: VecDeque<(Sketch, u32)>,
    /// Leaders that were forgotten: the number of the first that is left.
    gone: u64,
    /// By minimum hash the numbers of the latest leaders that have it.
    bands: HashMap<(u8, u32), VecDeque<u64>>,
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

    fn nearest(&self, sketch: &Sketch) -> Option<u32> {
        let mut met: Vec<u64> = keys(sketch).filter_map(|key| self.bands.get(&key)).flatten().copied().collect();
        met.sort_unstable();
        met.dedup();
        let leader = |number: u64| self.leaders.get(usize::try_from(number - self.gone).ok()?);
        let best = met
            .into_iter()
            .filter_map(|number| Some((similarity(sketch, &leader(number)?.0), std::cmp::Reverse(number))))
            .max_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)))?;
        (best.0 >= ALIKE).then(|| leader(best.1.0).map(|leader| leader.1)).flatten()
    }

    fn lead(&mut self, sketch: &Sketch, cell: u32) {
        let number = self.gone + self.leaders.len() as u64;
        for key in keys(sketch) {
            let band = self.bands.entry(key).or_default();
            if band.len() >= BAND {
                band.pop_front();
            }
            band.push_back(number);
        }
        self.leaders.push_back((sketch.clone(), cell));
    }

    /// Forgets the oldest leader. In a band the oldest comes first, so what is left is what a finder knows that is made anew.
    fn forget(&mut self) {
        let Some((sketch, _)) = self.leaders.pop_front() else { return };
        for key in keys(&sketch) {
            let Some(band) = self.bands.get_mut(&key) else { continue };
            if band.front() == Some(&self.gone) {
                band.pop_front();
            }
            if band.is_empty() {
                self.bands.remove(&key);
            }
        }
        self.gone += 1;
    }
}

/// One band for each minimum hash: prompts at [`ALIKE`] meet in one almost surely.
fn keys(sketch: &Sketch) -> impl Iterator<Item = (u8, u32)> {
    (0_u8..).zip(sketch.minhash).take(MINHASHES)
}
