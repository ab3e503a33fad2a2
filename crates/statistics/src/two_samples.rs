//! Do two sources give the same answers? Two tests that need nothing but the answers.

use std::collections::HashMap;
use std::hash::Hash;

use anbiq_domain::Seeded;

use crate::evalue::SignBets;
use crate::permutation;

/// Answers of both sources to one prompt, each a sequence of symbols.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answers<T> {
    /// Of the first source.
    pub one: Vec<Vec<T>>,
    /// Of the second.
    pub other: Vec<Vec<T>>,
}

/// The maximum mean discrepancy of two sources with the Hamming kernel (Gao et al. 2024) and its permutation p-value.
///
/// The kernel of two answers is the share of the first `length` places at which they have the same symbol; where both have
/// ended they agree. The statistic is the unbiased squared discrepancy of each prompt, added up.
///
/// H0: for every prompt the answers of both sources are draws from one distribution. Random is which of them came from
/// which source: labels are exchanged within prompts, `draws` times.
pub fn mmd<T: Eq>(prompts: &[Answers<T>], length: usize, draws: usize, random: &mut Seeded) -> (f64, f64) {
    let grams: Vec<Gram> = prompts.iter().map(|answers| Gram::of(answers, length)).collect();
    let own: Vec<Vec<bool>> =
        prompts.iter().map(|p| (0..p.one.len() + p.other.len()).map(|place| place < p.one.len()).collect()).collect();
    let statistic =
        |labels: &[Vec<bool>]| grams.iter().zip(labels).map(|(gram, labels)| gram.discrepancy(labels)).sum::<f64>();
    let observed = statistic(&own);
    let mut shuffled = own;
    let p_value = permutation::p_value(observed, draws, random, |random| {
        shuffled.iter_mut().for_each(|labels| random.shuffle(labels));
        // Sums in another order differ in their last digits; what is equal must count against the suspicion.
        statistic(&shuffled) + 1e-9
    });
    (observed, p_value)
}

/// The kernel of every two answers to a prompt.
struct Gram {
    size: usize,
    kernel: Vec<f64>,
}

impl Gram {
    fn of<T: Eq>(answers: &Answers<T>, length: usize) -> Self {
        let all: Vec<&Vec<T>> = answers.one.iter().chain(&answers.other).collect();
        let agree = |one: &Vec<T>, other: &Vec<T>| {
            let same = (0..length).filter(|&place| one.get(place) == other.get(place)).count();
            same as f64 / length.max(1) as f64
        };
        let kernel = all.iter().flat_map(|one| all.iter().map(|other| agree(one, other))).collect();
        Self { size: all.len(), kernel }
    }

    /// Mean kernel within both groups less twice that between them; 0 where a group is too small to say.
    fn discrepancy(&self, labels: &[bool]) -> f64 {
        let (mut sums, mut counts) = ([0.0; 3], [0.0_f64; 3]);
        for a in 0..self.size {
            for b in (0..self.size).filter(|&b| b != a) {
                let group = match (labels[a], labels[b]) {
                    (true, true) => 0,
                    (false, false) => 1,
                    _ => 2,
                };
                sums[group] += self.kernel[a * self.size + b];
                counts[group] += 1.0;
            }
        }
        if counts.contains(&0.0) {
            return 0.0;
        }
        sums[0] / counts[0] + sums[1] / counts[1] - 2.0 * sums[2] / counts[2]
    }
}

/// A fortune that grows where two sources differ, answer by answer, each from a small set such as one token.
///
/// H0: at every step both answers are draws from one distribution. Random is, of the two answers of a step, which came from
/// which source: given the two and all before, both ways are equally likely. The bettor learns from the steps before which
/// way is likelier, and bets on that, so the fortune is a martingale under H0 and may be looked at after every step.
#[derive(Debug, Clone)]
pub struct SourceBets<T> {
    bets: SignBets,
    counts: HashMap<(u32, T), [f64; 2]>,
}

impl<T: Eq + Hash + Clone> Default for SourceBets<T> {
    fn default() -> Self {
        Self { bets: SignBets::new(), counts: HashMap::new() }
    }
}

impl<T: Eq + Hash + Clone> SourceBets<T> {
    /// The answers of both sources to the prompt of this number; returns the natural logarithm of the fortune now.
    pub fn push(&mut self, prompt: u32, one: T, other: T) -> f64 {
        let count = |answer: &T| self.counts.get(&(prompt, answer.clone())).copied().unwrap_or_default();
        let (of_one, of_other) = (count(&one), count(&other));
        // The logarithm of how much likelier this way is than the other, by what was seen so far.
        let share = |counts: [f64; 2]| ((counts[0] + 0.5) / (counts[1] + 0.5)).ln();
        let fortune = self.bets.push(share(of_one) - share(of_other));
        self.counts.entry((prompt, one)).or_default()[0] += 1.0;
        self.counts.entry((prompt, other)).or_default()[1] += 1.0;
        fortune
    }

    /// The natural logarithm of the fortune.
    pub fn ln_fortune(&self) -> f64 {
        self.bets.ln_fortune()
    }

    /// The natural logarithm of the largest fortune so far.
    pub const fn ln_largest(&self) -> f64 {
        self.bets.ln_largest()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words of three letters, of which the first is drawn with this bias.
    fn answers(bias: f64, count: usize, random: &mut Seeded) -> Vec<Vec<u8>> {
        (0..count).map(|_| vec![u8::from(random.chance(bias)), random.below(3) as u8, random.below(2) as u8]).collect()
    }

    fn p_value(bias: f64, prompts: usize, random: &mut Seeded) -> f64 {
        let prompts: Vec<Answers<u8>> =
            (0..prompts).map(|_| Answers { one: answers(0.5, 6, random), other: answers(bias, 6, random) }).collect();
        mmd(&prompts, 3, 99, random).1
    }

    #[test]
    fn the_null_is_never_anti_conservative_and_differences_are_found() {
        let mut random = Seeded::new(1);
        let p_values: Vec<f64> = (0..2_000).map(|_| p_value(0.5, 3, &mut random)).collect();
        for level in [0.01, 0.05, 0.2, 0.5] {
            let share = p_values.iter().filter(|p| **p <= level).count() as f64 / 2000.0;
            assert!(share <= level + 4.0 * (level * (1.0 - level) / 2000.0_f64).sqrt(), "P(p <= {level}) = {share}");
        }
        assert_eq!(p_value(1.0, 10, &mut random), 0.01);
        let short = [Answers { one: vec![vec![1_u8]], other: vec![vec![2]] }];
        assert_eq!(mmd(&short, 3, 99, &mut random).1, 1.0);
    }

    #[test]
    fn the_permutations_of_a_small_case_are_all_there_are() {
        // Two answers each, of one letter: of the six ways to give labels two have the largest discrepancy.
        let prompts = [Answers { one: vec![vec![1], vec![1]], other: vec![vec![2], vec![2]] }];
        let (observed, p) = mmd(&prompts, 1, 20_000, &mut Seeded::new(2));
        assert_eq!(observed, 2.0);
        assert!((p - 1.0 / 3.0).abs() < 0.015, "{p}");
    }

    #[test]
    fn a_fortune_stays_small_under_the_null_and_grows_otherwise() {
        let mut random = Seeded::new(3);
        let reached = |bias: f64, steps: u32, random: &mut Seeded| {
            let mut bets = SourceBets::default();
            for step in 0..steps {
                bets.push(step % 2, random.chance(0.5), random.chance(bias));
            }
            bets.ln_largest()
        };
        let above = (0..2_000).filter(|_| reached(0.5, 100, &mut random) >= 20_f64.ln()).count();
        assert!(above <= 100 + 39, "{above} of 2000 at a level of 1/20");
        assert!(reached(0.9, 300, &mut random) > 1000_f64.ln());
    }
}
