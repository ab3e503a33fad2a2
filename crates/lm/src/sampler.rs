use std::collections::HashMap;
use std::sync::Arc;

use anbiq_domain::Seeded;
use anbiq_model::{Sampling, Shape};
use anbiq_watermark::{Mark, Marker};

use crate::kernel::exponentials;

/// Draws the tokens of one completion.
#[derive(Debug, Clone)]
pub(crate) struct Sampler {
    temperature: f32,
    top_p: f32,
    shape: Shape,
    /// The tokens of the prompt, where they matter, and how often the completion has each token so far.
    said: HashMap<u32, u32>,
    random: Seeded,
    marker: Option<Marker>,
}

/// Room that draws need, shared by all completions of a worker.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    logits: Vec<f32>,
    weights: Vec<f32>,
    order: Vec<u32>,
}

impl Sampler {
    /// The draws of completion `index` of a request with this `seed`, after `prompt`: streams of different indices are
    /// independent.
    pub(crate) fn new(sampling: &Sampling, shape: &Shape, prompt: &[u32], seed: u64, index: u32) -> Self {
        let random = Seeded::new(seed).fork(&format!("completion {index}"));
        let penal = shape.repetition_penalty != 1.0;
        let said = if penal { prompt.iter().map(|token| (*token, 0)).collect() } else { HashMap::new() };
        Self {
            temperature: sampling.temperature,
            top_p: sampling.top_p,
            shape: shape.clone(),
            said,
            random,
            marker: None,
        }
    }

    /// Under a watermark, where there is one.
    pub(crate) fn marked(self, mark: Option<Arc<Mark>>) -> Self {
        Self { marker: mark.map(Marker::new), ..self }
    }

    /// Draws a token from `logits`, one for each token of the vocabulary, and remembers it.
    ///
    /// Penalties and biases are put on the logits, see [`Shape`], and so is what a watermark favours, see [`Marker`]. Temperature 0 takes the likeliest, of equals the first.
    /// Otherwise the logits are divided by the temperature, the `top_k` likeliest tokens are kept, of these the likeliest
    /// that together hold `top_p` (Holtzman et al. 2020), of these those that have `min_p` of the likeliest one's
    /// probability; and one of them is drawn with exactly one random number.
    pub(crate) fn draw(&mut self, logits: &[f32], scratch: &mut Scratch) -> u32 {
        let token = if self.bends() || self.marker.is_some() {
            let mut bent = std::mem::take(&mut scratch.logits);
            bent.clear();
            bent.extend_from_slice(logits);
            self.bend(&mut bent);
            let token = self.pick(&bent, scratch);
            scratch.logits = bent;
            *self.said.entry(token).or_default() += 1;
            token
        } else {
            self.pick(logits, scratch)
        };
        if let Some(marker) = &mut self.marker {
            marker.push(token);
        }
        token
    }

    fn bends(&self) -> bool {
        let Shape { repetition_penalty, frequency_penalty, presence_penalty, logit_bias, .. } = &self.shape;
        *repetition_penalty != 1.0 || *frequency_penalty != 0.0 || *presence_penalty != 0.0 || !logit_bias.is_empty()
    }

    /// Puts penalties, biases and the favours of a watermark on `logits`.
    fn bend(&self, logits: &mut [f32]) {
        let Shape { repetition_penalty, frequency_penalty, presence_penalty, logit_bias, .. } = &self.shape;
        for (token, count) in &self.said {
            let Some(logit) = logits.get_mut(*token as usize) else { continue };
            *logit = if *logit > 0.0 { *logit / repetition_penalty } else { *logit * repetition_penalty };
            if *count > 0 {
                *logit -= frequency_penalty * *count as f32 + presence_penalty;
            }
        }
        for (token, bias) in logit_bias {
            if let Some(logit) = logits.get_mut(*token as usize) {
                *logit += bias;
            }
        }
        if let Some(marker) = &self.marker {
            marker.raise(logits);
        }
    }

    fn pick(&mut self, logits: &[f32], scratch: &mut Scratch) -> u32 {
        if self.temperature <= 0.0 {
            return likeliest(logits);
        }
        scratch.weights.clear();
        scratch.weights.extend(logits.iter().map(|&logit| logit / self.temperature));
        exponentials(&mut scratch.weights);
        let mut mass = sum(&scratch.weights);
        if !mass.is_finite() || mass <= 0.0 {
            return likeliest(logits);
        }
        let unit = self.random.unit();
        if self.top_p < 1.0 || self.shape.top_k > 0 {
            let kept = self.keep_likeliest(scratch);
            let won = self.race(scratch.order.iter().copied(), &scratch.weights, unit);
            return won.unwrap_or_else(|| pick_ordered(scratch, unit * kept));
        }
        if self.shape.min_p > 0.0 {
            let least = self.shape.min_p * scratch.weights.iter().copied().fold(0.0, f32::max);
            for weight in scratch.weights.iter_mut().filter(|weight| **weight < least) {
                *weight = 0.0;
            }
            mass = sum(&scratch.weights);
        }
        let won = self.race(0..scratch.weights.len() as u32, &scratch.weights, unit);
        won.or_else(|| pick(&scratch.weights, unit * mass)).unwrap_or_else(|| likeliest(logits))
    }

    /// Which of `tokens` a watermark takes; `None` where it leaves that to `unit`.
    fn race(&self, tokens: impl Iterator<Item = u32>, weights: &[f32], unit: f64) -> Option<u32> {
        // Which half the number is in is a fair coin.
        self.marker.as_ref()?.race(tokens.map(|token| (token, weights[token as usize])), unit < 0.5)
    }

    /// Leaves in `scratch.order` the tokens that may be drawn, likeliest first and always at least one, and gives what they
    /// weigh together.
    fn keep_likeliest(&self, scratch: &mut Scratch) -> f64 {
        let Scratch { weights, order, .. } = scratch;
        let weight = |token: u32| weights[token as usize];
        order.clear();
        order.extend((0..weights.len() as u32).filter(|&token| weight(token) > 0.0));
        order.sort_unstable_by(|&a, &b| weight(b).total_cmp(&weight(a)).then(a.cmp(&b)));
        if self.shape.top_k > 0 {
            order.truncate(self.shape.top_k as usize);
        }
        let mass = |order: &[u32]| order.iter().map(|&token| f64::from(weight(token))).sum::<f64>();
        let mut kept = mass(order);
        if self.top_p < 1.0 {
            let enough = f64::from(self.top_p.max(0.0)) * kept;
            let mut held = 0.0;
            let within = order.iter().take_while(|&&token| {
                let more = held < enough;
                held += if more { f64::from(weight(token)) } else { 0.0 };
                more
            });
            let size = within.count().max(1);
            order.truncate(size);
            kept = mass(order);
        }
        if self.shape.min_p > 0.0 {
            let least = self.shape.min_p * order.first().map_or(0.0, |&token| weight(token));
            let size = order.partition_point(|&token| weight(token) >= least).max(1);
            order.truncate(size);
            kept = mass(order);
        }
        kept
    }
}

/// Natural logarithms of the probabilities at temperature 1, before any cut: of `token`, and of the `top` likeliest
/// tokens, likeliest first.
pub(crate) fn log_probabilities(logits: &[f32], token: u32, top: usize) -> (f32, Vec<(u32, f32)>) {
    let mut weights = logits.to_vec();
    let (highest, _) = exponentials(&mut weights);
    let log_mass = highest + sum(&weights).ln() as f32;
    let log_probability = |token: u32| logits.get(token as usize).map_or(f32::NEG_INFINITY, |logit| logit - log_mass);
    let likelier = |a: &u32, b: &u32| {
        let (first, second) = (logits[*a as usize], logits[*b as usize]);
        second.total_cmp(&first).then(a.cmp(b))
    };
    let mut order: Vec<u32> = (0..logits.len() as u32).collect();
    let top = top.min(order.len());
    if top > 0 && top < order.len() {
        order.select_nth_unstable_by(top - 1, likelier);
    }
    order.truncate(top);
    order.sort_unstable_by(likelier);
    (log_probability(token), order.into_iter().map(|token| (token, log_probability(token))).collect())
}

fn likeliest(logits: &[f32]) -> u32 {
    let first = (0, f32::NEG_INFINITY);
    let better =
        |best: (usize, f32), (place, &logit): (usize, &f32)| if logit > best.1 { (place, logit) } else { best };
    logits.iter().enumerate().fold(first, better).0 as u32
}

fn sum(weights: &[f32]) -> f64 {
    weights.iter().map(|&weight| f64::from(weight)).sum()
}

/// The first place at which the weights up to it are more than `target`; the last one of any weight where rounding
/// leaves the target out of reach.
fn pick(weights: &[f32], target: f64) -> Option<u32> {
    let mut total = 0.0;
    for (place, &weight) in weights.iter().enumerate() {
        total += f64::from(weight);
        if total > target && weight > 0.0 {
            return Some(place as u32);
        }
    }
    weights.iter().rposition(|&weight| weight > 0.0).map(|place| place as u32)
}

/// As [`pick`], among the tokens of `scratch.order`.
fn pick_ordered(scratch: &Scratch, target: f64) -> u32 {
    let mut target = target;
    for &token in &scratch.order {
        target -= f64::from(scratch.weights[token as usize]);
        if target < 0.0 {
            return token;
        }
    }
    scratch.order.last().copied().unwrap_or_default()
}

/// A piece of a completion on its way out.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Piece {
    /// What can no longer be taken back by a stop string; whole characters.
    pub(crate) text: String,
    /// Did a stop string end the completion? The text is cut before it.
    pub(crate) stopped: bool,
}

/// Bytes of tokens to text that may be sent: incomplete characters wait for their rest, and what may be the beginning
/// of a stop string waits until it is decided.
///
/// The result does not depend on how the bytes were split: it is the lossy UTF-8 of all bytes, cut before the stop
/// string that is complete first (of two complete at once, before the one that began first).
#[derive(Debug)]
pub(crate) struct Assembler {
    stop: Vec<String>,
    /// The beginning of a character.
    bytes: Vec<u8>,
    /// Text that may belong to a stop string.
    held: String,
    sent: usize,
}

impl Assembler {
    /// An empty text that ends before one of `stop`; empty stop strings are ignored.
    pub(crate) fn new(stop: &[String]) -> Self {
        let stop = stop.iter().filter(|stop| !stop.is_empty()).cloned().collect();
        Self { stop, bytes: Vec::new(), held: String::new(), sent: 0 }
    }

    /// Adds the bytes of a token.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Piece {
        self.bytes.extend_from_slice(bytes);
        self.take_characters();
        if let Some(start) = self.find_stop() {
            self.held.truncate(start);
            return Piece { text: self.send(start), stopped: true };
        }
        let safe = self.held.len() - self.longest_beginning();
        Piece { text: self.send(safe), stopped: false }
    }

    /// What is left when no more tokens come.
    pub(crate) fn finish(&mut self) -> String {
        if !self.bytes.is_empty() {
            self.bytes.clear();
            self.held.push(char::REPLACEMENT_CHARACTER);
        }
        self.send(self.held.len())
    }

    /// How many bytes of text were sent.
    pub(crate) const fn sent(&self) -> usize {
        self.sent
    }

    /// How many bytes of text there are, sent or held back.
    pub(crate) const fn length(&self) -> usize {
        self.sent + self.held.len()
    }

    fn send(&mut self, length: usize) -> String {
        let rest = self.held.split_off(length);
        self.sent += length;
        std::mem::replace(&mut self.held, rest)
    }

    /// Moves whole characters from `bytes` to `held`; what can never become a character is U+FFFD, as in
    /// [`String::from_utf8_lossy`].
    fn take_characters(&mut self) {
        let mut taken = 0;
        for chunk in self.bytes.utf8_chunks() {
            self.held.push_str(chunk.valid());
            taken += chunk.valid().len();
            let invalid = chunk.invalid();
            let at_the_end = taken + invalid.len() == self.bytes.len();
            if invalid.is_empty() || (at_the_end && may_become_character(invalid)) {
                break;
            }
            self.held.push(char::REPLACEMENT_CHARACTER);
            taken += invalid.len();
        }
        self.bytes.drain(..taken);
    }

    /// Where the stop string that is complete first begins.
    fn find_stop(&self) -> Option<usize> {
        let found = self.stop.iter().filter_map(|stop| self.held.find(stop).map(|start| (start + stop.len(), start)));
        found.min().map(|(_, start)| start)
    }

    /// Length of the longest end of the text that a stop string begins with.
    fn longest_beginning(&self) -> usize {
        let beginning = |stop: &String| {
            let lengths = (1..stop.len().min(self.held.len() + 1)).rev();
            lengths.filter(|&length| stop.is_char_boundary(length)).find(|&length| self.held.ends_with(&stop[..length]))
        };
        self.stop.iter().filter_map(beginning).max().unwrap_or(0)
    }
}

fn may_become_character(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use anbiq_watermark::{Scheme, Tally};
    use proptest::prelude::*;

    use super::*;

    fn sampler(temperature: f32, top_p: f32, index: u32) -> Sampler {
        Sampler::new(&Sampling { temperature, top_p, seed: None }, &Shape::default(), &[], 7, index)
    }

    #[test]
    fn draws_follow_the_probabilities() {
        let logits: Vec<f32> = [0.5_f32, 0.25, 0.125, 0.125].iter().map(|p| p.ln() + 3.0).collect();
        let cases: [(f32, f32, [f64; 4]); 5] = [
            (1.0, 1.0, [0.5, 0.25, 0.125, 0.125]),
            (0.5, 1.0, [0.727_272, 0.181_818, 0.045_454, 0.045_454]),
            (1.0, 0.7, [0.666_666, 0.333_333, 0.0, 0.0]),
            (1.0, 0.0, [1.0, 0.0, 0.0, 0.0]),
            (0.0, 1.0, [1.0, 0.0, 0.0, 0.0]),
        ];
        for (temperature, top_p, expected) in cases {
            let (mut sampler, mut scratch) = (sampler(temperature, top_p, 0), Scratch::default());
            let mut counts = [0_u32; 4];
            for _ in 0..20_000 {
                counts[sampler.draw(&logits, &mut scratch) as usize] += 1;
            }
            for (count, expected) in counts.iter().zip(expected) {
                assert!((f64::from(*count) / 20_000.0 - expected).abs() < 0.015, "{temperature} {top_p} {counts:?}");
            }
        }
    }

    /// The probabilities with which `sampler` draws after it has drawn `said`.
    fn distribution(sampler: &mut Sampler, said: &[u32], logits: &[f32]) -> Vec<f64> {
        for token in said {
            *sampler.said.entry(*token).or_default() += 1;
        }
        let mut bent = logits.to_vec();
        if sampler.bends() {
            sampler.bend(&mut bent);
        }
        let mut scratch = Scratch::default();
        // Leaves its weights behind.
        sampler.pick(&bent, &mut scratch);
        let mut kept = vec![0.0; logits.len()];
        if sampler.top_p < 1.0 || sampler.shape.top_k > 0 {
            for token in scratch.order {
                kept[token as usize] = f64::from(scratch.weights[token as usize]);
            }
        } else {
            kept = scratch.weights.iter().map(|weight| f64::from(*weight)).collect();
        }
        let mass: f64 = kept.iter().sum();
        kept.iter().map(|weight| weight / mass).collect()
    }

    #[test]
    fn probabilities_are_those_of_transformers() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/golden/sampling/golden.json");
        let golden: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let tokens = |name: &str| -> Vec<u32> { serde_json::from_value(golden[name].clone()).unwrap() };
        let (prompt, said) = (tokens("prompt"), tokens("said"));
        for case in golden["cases"].as_array().unwrap() {
            let mut settings = case["settings"].as_object().unwrap().clone();
            let mut number = |name: &str| settings.remove(name).and_then(|value| value.as_f64()).unwrap_or(1.0) as f32;
            let sampling = Sampling { temperature: number("temperature"), top_p: number("top_p"), seed: None };
            let shape = Shape::take(&mut settings).unwrap();
            let logits: Vec<f32> = serde_json::from_value(case["logits"].clone()).unwrap();
            let expected: Vec<f64> = serde_json::from_value(case["probabilities"].clone()).unwrap();
            let mut sampler = Sampler::new(&sampling, &shape, &prompt, 1, 0);
            let ours = distribution(&mut sampler, &said, &logits);
            for (ours, expected) in ours.iter().zip(&expected) {
                assert!((ours - expected).abs() < 2e-6, "{}: {ours} {expected}", case["settings"]);
            }
        }
    }

    proptest! {
        /// Each cut and each penalty does what its definition says, whatever the others do.
        #[test]
        fn every_cut_keeps_its_word(
            logits in prop::collection::vec(-8.0_f32..8.0, 2..30),
            said in prop::collection::vec(0_u32..30, 0..6),
            top_k in 0_u32..6,
            min_p in prop_oneof![Just(0.0_f32), 0.0_f32..1.0],
            top_p in prop_oneof![Just(1.0_f32), 0.0_f32..1.0],
            frequency_penalty in -2.0_f32..2.0,
        ) {
            let sampling = Sampling { temperature: 1.0, top_p, seed: None };
            let shape = Shape { top_k, min_p, frequency_penalty, ..Shape::default() };
            let cut = distribution(&mut Sampler::new(&sampling, &shape, &[], 1, 0), &said, &logits);
            let plain = Sampling { top_p: 1.0, ..sampling };
            let only = Shape { frequency_penalty, ..Shape::default() };
            let whole = distribution(&mut Sampler::new(&plain, &only, &[], 1, 0), &said, &logits);
            let kept: Vec<usize> = (0..cut.len()).filter(|token| cut[*token] > 0.0).collect();
            prop_assert!(!kept.is_empty());
            prop_assert!(top_k == 0 || kept.len() <= top_k as usize);
            let highest = whole.iter().copied().fold(0.0, f64::max);
            let share: f64 = kept.iter().map(|token| whole[*token]).sum();
            for token in 0..cut.len() {
                if kept.contains(&token) {
                    prop_assert!(whole[token] >= f64::from(min_p) * highest * (1.0 - 1e-5));
                    // What is kept keeps its proportions.
                    prop_assert!((cut[token] - whole[token] / share).abs() < 1e-6);
                } else if top_p == 1.0 && min_p == 0.0 && top_k == 0 {
                    prop_assert!(false, "nothing is cut");
                } else {
                    prop_assert!(kept.iter().all(|kept| whole[*kept] >= whole[token]));
                }
            }
        }
    }

    #[test]
    fn what_was_said_is_said_less_and_then_more() {
        let logits = vec![0.0, 0.0, -100.0];
        let shape = Shape { presence_penalty: 2.0, ..Shape::default() };
        let greedy = Sampling { temperature: 0.0, top_p: 1.0, seed: None };
        let mut sampler = Sampler::new(&greedy, &shape, &[], 1, 0);
        let drawn: Vec<u32> = (0..4).map(|_| sampler.draw(&logits, &mut Scratch::default())).collect();
        assert_eq!(drawn, [0, 1, 0, 0], "once each is said they are equal again");
        let shape = Shape { frequency_penalty: 0.1, ..Shape::default() };
        let mut sampler = Sampler::new(&greedy, &shape, &[], 1, 0);
        let drawn: Vec<u32> = (0..4).map(|_| sampler.draw(&logits, &mut Scratch::default())).collect();
        assert_eq!(drawn, [0, 1, 0, 1]);
        let shape = Shape { repetition_penalty: 1.5, logit_bias: vec![(2, 101.0)], ..Shape::default() };
        let mut sampler = Sampler::new(&greedy, &shape, &[2], 1, 0);
        assert_eq!(sampler.draw(&logits, &mut Scratch::default()), 0, "it was in the prompt: -150 and 101");
    }

    #[test]
    fn two_keys_leave_every_draw_its_distribution_and_the_green_list_does_not() {
        let logits: Vec<f32> = [0.5_f32, 0.25, 0.125, 0.125].iter().map(|p| p.ln()).collect();
        let shares = |scheme, top_p| {
            let mut counts = [0.0; 4];
            // Over the keys: with one key the draws after one window are few.
            for key in 0..20_000_u32 {
                let mut bytes = [0; 32];
                bytes[..4].copy_from_slice(&key.to_le_bytes());
                let mark = Arc::new(Mark::new(scheme, 1, &bytes).unwrap());
                let sampling = Sampling { temperature: 1.0, top_p, seed: None };
                let mut sampler = Sampler::new(&sampling, &Shape::default(), &[], u64::from(key), 0).marked(Some(mark));
                sampler.draw(&logits, &mut Scratch::default());
                counts[sampler.draw(&logits, &mut Scratch::default()) as usize] += 1.0 / 20_000.0;
            }
            counts
        };
        for (top_p, expected) in [(1.0, [0.5_f64, 0.25, 0.125, 0.125]), (0.7, [2.0 / 3.0, 1.0 / 3.0, 0.0, 0.0])] {
            let shares = shares(Scheme::Gumbel, top_p);
            for (share, expected) in shares.iter().zip(expected) {
                assert!((share - expected).abs() < 0.015, "{shares:?}");
            }
        }
        // A green list moves every probability towards one half, here by some hundredths.
        assert!(shares(Scheme::Green { share: 0.5, bias: 3.0 }, 1.0)[0] < 0.49);
    }

    #[test]
    fn draws_under_one_key_differ_and_are_seen() {
        let mark = Arc::new(Mark::new(Scheme::Gumbel, 2, &[5; 32]).unwrap());
        let logits: Vec<f32> = (0..50).map(|token| (token % 7) as f32 * 0.3).collect();
        let answers: Vec<Vec<u32>> = (0..4)
            .map(|seed| {
                let sampling = Sampling::default();
                let mut sampler =
                    Sampler::new(&sampling, &Shape::default(), &[], seed, 0).marked(Some(Arc::clone(&mark)));
                (0..80).map(|_| sampler.draw(&logits, &mut Scratch::default())).collect()
            })
            .collect();
        let detect = |mark: &Mark| {
            let mut tally = Tally::new(mark);
            answers.iter().for_each(|answer| tally.text(answer));
            tally.detect()
        };
        assert_ne!(answers[0], answers[1]);
        assert!(detect(&mark).p_value < 1e-30, "{:?}", detect(&mark));
        assert!(detect(&Mark::new(Scheme::Gumbel, 2, &[6; 32]).unwrap()).p_value > 1e-4);
    }

    #[test]
    fn a_seed_fixes_the_draws_and_an_index_gives_others() {
        let logits = vec![0.0; 1000];
        let draws = |index| {
            let (mut sampler, mut scratch) = (sampler(1.0, 1.0, index), Scratch::default());
            (0..20).map(|_| sampler.draw(&logits, &mut scratch)).collect::<Vec<_>>()
        };
        assert_eq!(draws(0), draws(0));
        assert_ne!(draws(0), draws(1));
    }

    #[test]
    fn logits_that_are_no_numbers_do_no_harm() {
        for logits in [vec![f32::NAN; 4], vec![f32::NEG_INFINITY; 4], vec![f32::INFINITY, 0.0]] {
            for temperature in [0.0, 1.0, 1e-30] {
                assert!((sampler(temperature, 0.9, 0).draw(&logits, &mut Scratch::default()) as usize) < logits.len());
            }
        }
    }

    #[test]
    fn log_probabilities_are_before_any_cut() {
        let logits: Vec<f32> = [0.1_f32, 0.6, 0.1, 0.2].iter().map(|p| p.ln() - 2.0).collect();
        let (own, top) = log_probabilities(&logits, 3, 3);
        assert!((own - 0.2_f32.ln()).abs() < 1e-6);
        assert_eq!(top.iter().map(|(token, _)| *token).collect::<Vec<_>>(), [1, 3, 0]);
        assert!((top[0].1 - 0.6_f32.ln()).abs() < 1e-6);
        assert_eq!(log_probabilities(&logits, 0, 9).1.len(), 4);
    }

    /// What the assembler should give, from the whole text at once.
    fn expected(bytes: &[u8], stop: &[String]) -> (String, bool) {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let stops = stop.iter().filter(|stop| !stop.is_empty());
        match stops.filter_map(|stop| text.find(stop).map(|start| (start + stop.len(), start))).min() {
            Some((_, start)) => (text[..start].to_owned(), true),
            None => (text, false),
        }
    }

    fn assembled(bytes: &[u8], cuts: &[usize], stop: &[String]) -> (String, bool) {
        let mut assembler = Assembler::new(stop);
        let mut text = String::new();
        let mut start = 0;
        for end in cuts
            .iter()
            .map(|cut| cut % (bytes.len() + 1))
            .chain([bytes.len()])
            .collect::<std::collections::BTreeSet<_>>()
        {
            let piece = assembler.push(&bytes[start..end]);
            text.push_str(&piece.text);
            if piece.stopped {
                return (text, true);
            }
            start = end;
        }
        text.push_str(&assembler.finish());
        assert_eq!(text.len(), assembler.sent());
        (text, false)
    }

    proptest! {
        #[test]
        fn text_does_not_depend_on_how_it_was_split(
            bytes in prop::collection::vec(prop_oneof![Just(b'a'), Just(b'b'), Just(b'\n'), Just(0xc3), Just(0xa9), Just(0xe2), Just(0x82), Just(0xac), Just(0xff)], 0..24),
            cuts in prop::collection::vec(0_usize..24, 0..8),
            stop in prop::collection::vec("[ab\né]{0,3}", 0..3),
        ) {
            prop_assert_eq!(assembled(&bytes, &cuts, &stop), expected(&bytes, &stop));
        }

        #[test]
        fn whole_characters_are_cut_like_text(text in "\\PC{0,20}", cuts in prop::collection::vec(0_usize..60, 0..8), stop in "\\PC{1,2}") {
            let stop = [stop];
            prop_assert_eq!(assembled(text.as_bytes(), &cuts, &stop), expected(text.as_bytes(), &stop));
        }
    }
}
