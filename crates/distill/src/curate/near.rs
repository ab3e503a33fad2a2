//! Answers that say nearly the same as an earlier one.

use std::collections::{HashMap, HashSet};

use anbiq_domain::{MINHASHES, Prompt};
use anbiq_statistics::sketch::Sketcher;

/// Minimum hashes a band: answers that share a whole band are compared. Of two answers that have four fifths of their pairs of
/// words in common less than one in a million is missed by sixteen bands of two.
const ROWS: usize = 2;

/// Finds answers of which an earlier one is nearly the same: candidates by minimum hashes (Broder 1997), in bands as
/// Leskovec, Rajaraman and Ullman describe them, and every candidate by its pairs of words themselves, so that nothing is
/// left out by an estimate.
pub(super) struct Near {
    least: f64,
    sketcher: Sketcher,
    bands: HashMap<(usize, [u32; ROWS]), Vec<u32>>,
    kept: Vec<HashSet<u64>>,
}

impl Near {
    /// Those whose Jaccard index of pairs of words is at least `least`.
    pub(super) fn new(least: f64) -> Self {
        // Nothing is kept secret here: any key does, as long as it is always the same.
        let sketcher = Sketcher::new(b"anbiq near duplicates of answers");
        Self { least, sketcher, bands: HashMap::new(), kept: Vec::new() }
    }

    /// Is there an earlier one? Otherwise `text` is one that later ones are compared with.
    pub(super) fn repeats(&mut self, text: &str) -> bool {
        let pairs = pairs(text);
        let sketch = self.sketcher.sketch(&Prompt::user(text));
        let bands: Vec<(usize, [u32; ROWS])> = (0..MINHASHES / ROWS)
            .map(|band| (band, std::array::from_fn(|row| sketch.minhash[band * ROWS + row])))
            .collect();
        let mut seen = HashSet::new();
        for band in &bands {
            for &other in self.bands.get(band).into_iter().flatten() {
                if seen.insert(other) && jaccard(&pairs, &self.kept[other as usize]) >= self.least {
                    return true;
                }
            }
        }
        let number = self.kept.len() as u32;
        for band in bands {
            self.bands.entry(band).or_default().push(number);
        }
        self.kept.push(pairs);
        false
    }
}

/// The pairs of neighbouring words, and where there are few the words themselves, each as a hash.
fn pairs(text: &str) -> HashSet<u64> {
    let words = super::words(text);
    let mut all: HashSet<u64> = words.windows(2).map(|pair| super::hash(&[&pair[0], &pair[1]])).collect();
    if words.len() < 8 {
        all.extend(words.iter().map(|word| super::hash(&[word])));
    }
    all
}

fn jaccard(a: &HashSet<u64>, b: &HashSet<u64>) -> f64 {
    let both = a.iter().filter(|one| b.contains(one)).count();
    let either = a.len() + b.len() - both;
    if either == 0 { 1.0 } else { both as f64 / either as f64 }
}

#[cfg(test)]
mod tests {
    use anbiq_domain::Seeded;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_changed_word_is_near_and_another_text_is_not() {
        let mut near = Near::new(0.8);
        let text =
            "the miller took the grey horse to the old bridge and came back with seven sacks of barley before dark";
        assert!(!near.repeats(text));
        assert!(near.repeats(&text.replace("seven", "eight")));
        assert!(near.repeats(&text.to_uppercase()), "case says nothing");
        assert!(!near.repeats("a fox ran over the field and nobody saw where it went that night"));
        assert!(!near.repeats("Yes."));
        assert!(near.repeats("yes"));
        assert!(!near.repeats("no"));
    }

    proptest! {
        /// What is found is what comparing everything with everything finds.
        #[test]
        fn bands_miss_nothing_that_is_near(seed in 0_u64..1000) {
            let mut random = Seeded::new(seed);
            let words: Vec<String> = (0..40).map(|number| format!("w{number}")).collect();
            let mut texts: Vec<Vec<usize>> = Vec::new();
            for _ in 0..30 {
                let text = match texts.is_empty() || random.chance(0.5) {
                    true => (0..25).map(|_| random.below(40)).collect(),
                    false => {
                        let mut text = texts[random.below(texts.len())].clone();
                        for _ in 0..random.below(4) {
                            let place = random.below(text.len());
                            text[place] = random.below(40);
                        }
                        text
                    }
                };
                texts.push(text);
            }
            let (mut near, mut kept) = (Near::new(0.8), Vec::<HashSet<u64>>::new());
            for text in texts {
                let text = text.iter().map(|word| words[*word].as_str()).collect::<Vec<_>>().join(" ");
                let own = pairs(&text);
                let expected = kept.iter().any(|other| jaccard(&own, other) >= 0.8);
                prop_assert_eq!(near.repeats(&text), expected);
                if !expected {
                    kept.push(own);
                }
            }
        }
    }
}
