//! A histogram of bounded memory and known error.

/// Buckets of one octave: a value is told from another that differs by more than one part in 128.
const DIVISIONS: u64 = 1 << DIVISION_BITS;
const DIVISION_BITS: u32 = 7;

/// Values below [`DIVISIONS`] have a bucket each; every further octave has as many buckets again.
const BUCKETS: usize = (64 - DIVISION_BITS as usize + 1) << DIVISION_BITS;

/// Counts of whole numbers, such as nanoseconds, in buckets whose width grows with the value.
///
/// Whatever is recorded, it takes about 60 kB. A percentile is never below the true one and at most 1/128 of it above;
/// count, sum and largest value are exact.
#[derive(Debug, Clone)]
pub struct Histogram {
    counts: Vec<u64>,
    count: u64,
    sum: u128,
    largest: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS], count: 0, sum: 0, largest: 0 }
    }
}

impl Histogram {
    /// Counts `value` once.
    pub fn record(&mut self, value: u64) {
        if let Some(count) = self.counts.get_mut(bucket(value)) {
            *count += 1;
        }
        self.count += 1;
        self.sum += u128::from(value);
        self.largest = self.largest.max(value);
    }

    /// Adds everything that `other` counted.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.count += other.count;
        self.sum += other.sum;
        self.largest = self.largest.max(other.largest);
    }

    /// How many values were recorded.
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// The largest value; 0 where there is none.
    pub const fn largest(&self) -> u64 {
        self.largest
    }

    /// The mean; 0 where there is none.
    pub fn mean(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.sum as f64 / self.count as f64 }
    }

    /// The smallest value that at least the share `share` of the values does not exceed; `None` where there is none.
    pub fn percentile(&self, share: f64) -> Option<u64> {
        if self.count == 0 {
            return None;
        }
        let rank = ((share * self.count as f64).ceil() as u64).clamp(1, self.count);
        let mut seen = 0;
        let at = self.counts.iter().position(|count| {
            seen += count;
            seen >= rank
        });
        Some(at.map_or(self.largest, upper_end).min(self.largest))
    }
}

fn bucket(value: u64) -> usize {
    let Some(shift) = shift(value) else { return value as usize };
    // The leading bit stands for the octave, the bits after it for the place within.
    (u64::from(shift + 1) * DIVISIONS + (value >> shift) - DIVISIONS) as usize
}

/// By how many bits the values of an octave are too long for their bucket; none where they have one of their own.
fn shift(value: u64) -> Option<u32> {
    value.checked_ilog2()?.checked_sub(DIVISION_BITS)
}

/// The largest value of a bucket.
fn upper_end(bucket: usize) -> u64 {
    let (octave, place) = (bucket as u64 / DIVISIONS, bucket as u64 % DIVISIONS);
    let Some(shift) = octave.checked_sub(1) else { return place };
    let width = 1_u64 << shift;
    (DIVISIONS + place) * width + (width - 1)
}

#[cfg(test)]
mod tests {
    use anbiq_domain::Seeded;

    use super::*;

    #[test]
    fn percentiles_of_known_data() {
        let mut histogram = Histogram::default();
        (1..=100).for_each(|value| histogram.record(value));
        // Below 128 every value has a bucket of its own.
        for (share, value) in [(0.0, 1), (0.01, 1), (0.5, 50), (0.505, 51), (0.99, 99), (0.999, 100), (1.0, 100)] {
            assert_eq!(histogram.percentile(share), Some(value), "{share}");
        }
        assert_eq!((histogram.count(), histogram.mean(), histogram.largest()), (100, 50.5, 100));
        assert_eq!(Histogram::default().percentile(0.5), None);
    }

    #[test]
    fn a_percentile_is_never_too_low_and_hardly_too_high() {
        let mut random = Seeded::new(1);
        // Of all magnitudes alike.
        let mut values: Vec<u64> = (0..5_000).map(|_| (random.unit() * 63.9).exp2() as u64).collect();
        let mut halves = [Histogram::default(), Histogram::default()];
        for (place, value) in values.iter().enumerate() {
            halves[place % 2].record(*value);
        }
        let [mut histogram, other] = halves;
        histogram.merge(&other);
        values.sort_unstable();
        for rank in 1..=values.len() {
            let truth = values[rank - 1];
            let said = histogram.percentile(rank as f64 / values.len() as f64).unwrap();
            // The share may round to the next rank.
            let most = values[rank.min(values.len() - 1)];
            assert!(said >= truth, "{said} for {truth}");
            assert!(said <= most + most / 128, "{said} for {truth}");
        }
        assert_eq!(histogram.largest(), values[values.len() - 1]);
    }

    #[test]
    fn every_value_lies_in_its_bucket() {
        let mut last = 0;
        for value in (0..64).flat_map(|bit| [(1_u64 << bit) - 1, 1 << bit, (1 << bit) + 1]).chain([u64::MAX]) {
            let at = bucket(value);
            assert!(at < BUCKETS, "{value}");
            assert!(upper_end(at) >= value, "{value}");
            assert!(at == 0 || upper_end(at - 1) < value, "{value}");
            last = last.max(at);
        }
        assert_eq!(last, BUCKETS - 1, "no memory for nothing");
    }
}
