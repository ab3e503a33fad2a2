//! Content cells: groups of prompts that are made alike, whatever their fillers.

use std::collections::{BTreeMap, HashMap};

use anbiq_domain::{Keyed, MINHASHES, Sketch};
use anbiq_statistics::sketch::similarity;

use crate::profile::Profile;

/// Estimated Jaccard index from which two prompts fall into one cell.
const ALIKE: f64 = 0.25;
/// Leaders remembered under one minimum hash; common word pairs would otherwise bring everybody together.
const BAND: usize = 16;
/// Prompts that may found a cell and be looked up; later ones only match by their opening.
const LEADERS: usize = 20_000;

/// The cells of all sampled prompts of all accounts.
#[derive(Debug)]
pub(crate) struct Cells {
    /// For every account, in order: the cell of each of its sketches, in order.
    pub(crate) of: Vec<Vec<usize>>,
    /// Number of cells.
    pub(crate) count: usize,
}

impl Cells {
    /// Sorts the samples of `profiles` into cells: prompts with an equal opening share one, and so do prompts alike.
    ///
    /// One pass in the order of accounts and times (leader clustering), so the result is the same every time.
    pub(crate) fn of(profiles: &[Profile]) -> Self {
        let mut finder = Finder::default();
        let of =
            profiles.iter().map(|profile| profile.sketches().map(|sketch| finder.cell(sketch)).collect()).collect();
        Self { of, count: finder.count }
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

#[derive(Debug, Default)]
struct Finder {
    openings: HashMap<Keyed, usize>,
    leaders: Vec<(Sketch, usize)>,
    bands: HashMap<(usize, u32), Vec<usize>>,
    count: usize,
}

impl Finder {
    fn cell(&mut self, sketch: &Sketch) -> usize {
        if let Some(cell) = self.openings.get(&sketch.opening) {
            return *cell;
        }
        let cell = self.nearest(sketch).unwrap_or_else(|| {
            self.count += 1;
            self.count - 1
        });
        self.openings.insert(sketch.opening, cell);
        self.lead(sketch, cell);
        cell
    }

    fn nearest(&self, sketch: &Sketch) -> Option<usize> {
        let mut met: Vec<usize> = keys(sketch).filter_map(|key| self.bands.get(&key)).flatten().copied().collect();
        met.sort_unstable();
        met.dedup();
        let best = met
            .into_iter()
            .map(|leader| (similarity(sketch, &self.leaders[leader].0), std::cmp::Reverse(leader)))
            .max_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)))?;
        (best.0 >= ALIKE).then(|| self.leaders[best.1.0].1)
    }

    fn lead(&mut self, sketch: &Sketch, cell: usize) {
        if self.leaders.len() >= LEADERS {
            return;
        }
        for key in keys(sketch) {
            let band = self.bands.entry(key).or_default();
            if band.len() < BAND {
                band.push(self.leaders.len());
            }
        }
        self.leaders.push((sketch.clone(), cell));
    }
}

/// One band for each minimum hash: prompts at [`ALIKE`] meet in one almost surely.
fn keys(sketch: &Sketch) -> impl Iterator<Item = (usize, u32)> {
    (0..MINHASHES).map(|band| (band, sketch.minhash[band]))
}
