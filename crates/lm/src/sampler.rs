use std::sync::Arc;

use anbiq_domain::Seeded;
use anbiq_model::Sampling;
use anbiq_watermark::{Mark, Marker};

use crate::kernel::exponentials;

/// Draws the tokens of one completion.
#[derive(Debug, Clone)]
pub(crate) struct Sampler {
    temperature: f32,
    top_p: f32,
    random: Seeded,
    marker: Option<Marker>,
}

/// Room that draws need, shared by all completions of a worker.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    weights: Vec<f32>,
    order: Vec<u32>,
}

impl Sampler {
    /// The draws of completion `index` of a request with this `seed`: streams of different indices are independent.
    pub(crate) fn new(sampling: &Sampling, seed: u64, index: u32, mark: Option<Arc<Mark>>) -> Self {
        let random = Seeded::new(seed).fork(&format!("completion {index}"));
        Self { temperature: sampling.temperature, top_p: sampling.top_p, random, marker: mark.map(Marker::new) }
    }

    /// Draws a token from `logits`, one for each token of the vocabulary.
    ///
    /// Temperature 0 takes the likeliest, of equals the first. Otherwise the logits are divided by the temperature,
    /// the likeliest tokens that together hold `top_p` are kept (Holtzman et al. 2020), and one of them is drawn with
    /// exactly one random number. A watermark has its say where it has one, see [`Marker`].
    pub(crate) fn draw(&mut self, logits: &[f32], scratch: &mut Scratch) -> u32 {
        let token = self.choose(logits, scratch);
        if let Some(marker) = &mut self.marker {
            marker.push(token);
        }
        token
    }

    fn choose(&mut self, logits: &[f32], scratch: &mut Scratch) -> u32 {
        scratch.weights.clear();
        scratch.weights.extend_from_slice(logits);
        if let Some(marker) = &self.marker {
            marker.raise(&mut scratch.weights);
        }
        if self.temperature <= 0.0 {
            return likeliest(&scratch.weights);
        }
        scratch.weights.iter_mut().for_each(|logit| *logit /= self.temperature);
        exponentials(&mut scratch.weights);
        let mass = sum(&scratch.weights);
        if !mass.is_finite() || mass <= 0.0 {
            return likeliest(logits);
        }
        let unit = self.random.unit();
        let nucleus = self.top_p < 1.0;
        let kept = if nucleus { keep_nucleus(scratch, f64::from(self.top_p.max(0.0)) * mass) } else { mass };
        let Scratch { weights, order } = scratch;
        if let Some(marker) = &self.marker {
            let weigh = |token: u32| (token, weights[token as usize]);
            // Which half the number is in is a fair coin.
            let coin = unit < 0.5;
            let won = match nucleus {
                true => marker.race(order.iter().copied().map(weigh), coin),
                false => marker.race((0..weights.len() as u32).map(weigh), coin),
            };
            if let Some(token) = won {
                return token;
            }
        }
        match nucleus {
            true => pick_nucleus(weights, order, unit * kept),
            false => pick(weights, unit * mass).unwrap_or_else(|| likeliest(logits)),
        }
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

/// Puts the likeliest tokens that together weigh `enough`, always at least one, into the order, and says what they weigh.
fn keep_nucleus(scratch: &mut Scratch, enough: f64) -> f64 {
    let weights = &scratch.weights;
    let order = &mut scratch.order;
    order.clear();
    order.extend((0..weights.len() as u32).filter(|&token| weights[token as usize] > 0.0));
    order.sort_unstable_by(|&a, &b| weights[b as usize].total_cmp(&weights[a as usize]).then(a.cmp(&b)));
    let mut kept = 0.0;
    let within = order.iter().take_while(|&&token| {
        let more = kept < enough;
        kept += if more { f64::from(weights[token as usize]) } else { 0.0 };
        more
    });
    let size = within.count().max(1);
    order.truncate(size);
    kept
}

/// As [`pick`], among the tokens of `order`.
fn pick_nucleus(weights: &[f32], order: &[u32], mut target: f64) -> u32 {
    for &token in order {
        target -= f64::from(weights[token as usize]);
        if target < 0.0 {
            return token;
        }
    }
    order.last().copied().unwrap_or_default()
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
        Sampler::new(&Sampling { temperature, top_p, seed: None }, 7, index, None)
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
                let mut sampler = Sampler::new(&sampling, u64::from(key), 0, Some(mark));
                sampler.draw(&logits, &mut Scratch::default());
                counts[sampler.draw(&logits, &mut Scratch::default()) as usize] += 1.0 / 20_000.0;
            }
            counts
        };
        for (top_p, expected) in [(1.0, [0.5, 0.25, 0.125, 0.125]), (0.7, [2.0 / 3.0, 1.0 / 3.0, 0.0, 0.0])] {
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
                let mut sampler = Sampler::new(&sampling, seed, 0, Some(Arc::clone(&mark)));
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
