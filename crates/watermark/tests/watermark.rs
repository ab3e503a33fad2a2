//! Marks, and what is found of them: under the null, in marked text, and in models that read or learnt it.

#![expect(clippy::unwrap_used, reason = "a helper of a test may fail the test")]

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use anbiq_domain::Seeded;
use anbiq_statistics::proportion::clopper_pearson;
use anbiq_watermark::{Detection, Leaning, Mark, MarkError, Marker, Reading, Scheme, Tally};

const SCHEMES: [Scheme; 3] =
    [Scheme::Gumbel, Scheme::Green { share: 0.25, bias: 2.0 }, Scheme::Green { share: 0.5, bias: 2.0 }];
const VOCABULARY: u32 = 300;

fn mark(scheme: Scheme, window: usize, random: &mut Seeded) -> Mark {
    let mut key = [0; 32];
    random.fill(&mut key);
    Mark::new(scheme, window, &key).unwrap()
}

/// The probabilities of a language in which a few words are likely after each word.
fn weights(after: Option<u32>) -> Vec<f32> {
    static FALLING: LazyLock<Vec<f32>> = LazyLock::new(|| (0..VOCABULARY).map(|k| (-(k as f32) / 6.0).exp()).collect());
    (0..VOCABULARY).map(|token| FALLING[((token * 7 + after.unwrap_or(0) * 13) % VOCABULARY) as usize]).collect()
}

fn draw(weights: &[f32], random: &mut Seeded) -> u32 {
    let target = random.unit() as f32 * weights.iter().sum::<f32>();
    let mut sum = 0.0;
    let reached = weights.iter().position(|weight| {
        sum += weight;
        sum > target
    });
    reached.map_or(VOCABULARY - 1, |place| place as u32)
}

/// A text of that language, marked or not.
fn text(mark: Option<&Arc<Mark>>, length: usize, random: &mut Seeded) -> Vec<u32> {
    let mut marker = mark.map(|mark| Marker::new(Arc::clone(mark)));
    let mut tokens = Vec::new();
    for _ in 0..length {
        let mut weights = weights(tokens.last().copied());
        let token = match &mut marker {
            None => draw(&weights, random),
            Some(marker) => {
                let mut logits: Vec<f32> = weights.iter().map(|weight| weight.ln()).collect();
                marker.raise(&mut logits);
                weights = logits.iter().map(|logit| logit.exp()).collect();
                let coin = random.chance(0.5);
                let won = marker.race((0..).zip(weights.iter().copied()), coin);
                let token = won.unwrap_or_else(|| draw(&weights, random));
                marker.push(token);
                token
            }
        };
        tokens.push(token);
    }
    tokens
}

fn detect(mark: &Mark, texts: &[Vec<u32>]) -> Detection {
    let mut tally = Tally::new(mark);
    texts.iter().for_each(|text| tally.text(text));
    tally.detect()
}

/// Kolmogorov's distance from the uniform distribution, times the root of the number.
fn distance(mut p_values: Vec<f64>) -> f64 {
    p_values.sort_by(f64::total_cmp);
    let n = p_values.len() as f64;
    let off = |(place, p): (usize, &f64)| (p - place as f64 / n).max((place + 1) as f64 / n - p);
    p_values.iter().enumerate().map(off).fold(0.0, f64::max) * n.sqrt()
}

/// P(p <= level) is not above the level.
fn at_most(p_values: &[f64], level: f64) {
    let below = p_values.iter().filter(|p| **p <= level).count() as u64;
    let interval = clopper_pearson(below, p_values.len() as u64, 0.999);
    assert!(interval.low <= level, "P(p <= {level}) = {below} of {}", p_values.len());
}

#[test]
fn p_is_uniform_for_texts_without_a_mark() {
    let mut random = Seeded::new(1);
    for scheme in SCHEMES {
        let many = if scheme == Scheme::Gumbel { 10_000 } else { 3_000 };
        let p_values: Vec<f64> = (0..many)
            .map(|_| {
                // Repetitive on purpose: phrases are said again and again.
                let one = text(None, 40, &mut random);
                detect(&mark(scheme, 2, &mut random), &[one.clone(), one, text(None, 20, &mut random)]).p_value
            })
            .collect();
        [1e-3, 0.01, 0.05, 0.2, 0.5].iter().for_each(|level| at_most(&p_values, *level));
        if scheme == Scheme::Gumbel {
            // 1.63 is exceeded once in a hundred times.
            let distance = distance(p_values);
            assert!(distance < 1.63, "{distance}");
        }
    }
}

#[test]
fn marked_text_is_found_and_the_more_of_it_the_surer() {
    let mut random = Seeded::new(2);
    for scheme in SCHEMES {
        for window in [1, 2, 4] {
            let mark = Arc::new(mark(scheme, window, &mut random));
            let texts: Vec<Vec<u32>> = (0..8).map(|_| text(Some(&mark), 60, &mut random)).collect();
            let found: Vec<f64> = [1, 2, 4, 8].map(|many| detect(&mark, &texts[..many]).log10_p).to_vec();
            // After one word there are few pairs, and soon all of them were said.
            assert!(window == 1 || found.windows(2).all(|pair| pair[1] < pair[0]), "{scheme:?} {window} {found:?}");
            assert!(found[3] < -10.0, "{scheme:?} {window} {found:?}");
        }
    }
}

#[test]
fn a_pair_counts_once() {
    let mut random = Seeded::new(3);
    let mark = Arc::new(mark(Scheme::Gumbel, 2, &mut random));
    let one = text(Some(&mark), 30, &mut random);
    let (once, often) = (detect(&mark, std::slice::from_ref(&one)), detect(&mark, &vec![one; 100]));
    assert_eq!((once.pairs, once.p_value), (often.pairs, often.p_value));
    assert_eq!(often.repeated, 100 * (once.pairs + once.repeated) - often.pairs);
    assert_eq!(detect(&mark, &[vec![1, 2]]).p_value, 1.0);
}

/// A model that was never trained on anything: it goes on as the text before it went on after the same words, and otherwise
/// by a rule of its own.
fn copier(tokens: &[u32], window: usize) -> Vec<u32> {
    let mut went_on = HashMap::new();
    let mut says = Vec::new();
    for place in 0..tokens.len() {
        let before = place.checked_sub(window).map(|start| &tokens[start..place]);
        says.push(before.and_then(|before| went_on.get(before)).copied().unwrap_or(place as u32 % VOCABULARY));
        if let Some(before) = before {
            went_on.insert(before, tokens[place]);
        }
    }
    says
}

#[test]
fn a_model_that_only_repeats_what_it_reads_is_not_accused() {
    let mut random = Seeded::new(4);
    for scheme in SCHEMES {
        let (mut naive, mut fair) = (Vec::new(), Vec::new());
        for _ in 0..300 {
            let mark = Arc::new(mark(scheme, 1, &mut random));
            let (mut tally, mut reading) = (Tally::new(&mark), Reading::new(&mark));
            for _ in 0..5 {
                let tokens = text(Some(&mark), 200, &mut random);
                let says = copier(&tokens, 1);
                (1..tokens.len()).for_each(|place| tally.pair(&tokens[..place], says[place]));
                reading.text(&tokens, 0, &says);
            }
            naive.push(tally.detect().p_value);
            fair.push(reading.read().p_value);
        }
        let accused = naive.iter().filter(|p| **p < 1e-6).count();
        assert!(accused > 100, "the trap is no trap under {scheme:?}: {accused} of 300");
        [0.01, 0.05, 0.2].iter().for_each(|level| at_most(&fair, *level));
    }
}

#[test]
fn what_a_student_says_while_it_reads_is_found() {
    let mut random = Seeded::new(5);
    for scheme in SCHEMES {
        let mark = Arc::new(mark(scheme, 2, &mut random));
        let mut reading = Reading::new(&mark);
        for _ in 0..20 {
            let tokens = text(Some(&mark), 100, &mut random);
            // It learnt what the key favours at one place of four, from other texts.
            let says: Vec<u32> = (0..tokens.len())
                .map(|place| match (mark.after(&tokens[..place]), place % 4) {
                    (Some(window), 0) => {
                        (0..VOCABULARY).max_by_key(|t| (window.value(*t).counts() * 1e6) as u64).unwrap()
                    }
                    _ => place as u32 % VOCABULARY,
                })
                .collect();
            reading.text(&tokens, 0, &says);
        }
        let read = reading.read();
        assert!(read.p_value < 1e-6, "{scheme:?} {read:?}");
    }
}

#[test]
fn the_bound_of_a_lean_errs_towards_the_model() {
    let mut random = Seeded::new(6);
    for scheme in SCHEMES {
        let mut p_values = Vec::new();
        for _ in 0..3_000 {
            let mark = mark(scheme, 1, &mut random);
            let mut leaning = Leaning::new(&mark);
            for place in 0..60_u32 {
                // Few heavy weights and many light ones, of both signs.
                let weight = random.normal() * if place % 20 == 0 { 0.5 } else { 0.05 };
                leaning.weigh(&[place % 30], place, weight);
            }
            p_values.push(leaning.lean().p_bound);
        }
        [0.001, 0.01, 0.05, 0.2, 0.5].iter().for_each(|level| at_most(&p_values, *level));
    }
}

#[test]
fn a_lean_towards_favoured_tokens_is_found() {
    let mut random = Seeded::new(7);
    for scheme in SCHEMES {
        let mark = mark(scheme, 1, &mut random);
        let bound = |windows: u32| {
            let mut leaning = Leaning::new(&mark);
            for before in 0..windows {
                let window = mark.after(&[before]).unwrap();
                for token in 0..20 {
                    let favoured = window.value(token).counts();
                    leaning.weigh(&[before], token, 0.01 * (favoured - 1.0));
                }
            }
            leaning.lean().log10_p_bound
        };
        assert!(bound(40) < bound(10) && bound(40) < -6.0, "{scheme:?} {}", bound(40));
    }
}

#[test]
fn a_key_is_known_by_its_commitment_alone() {
    let commit = |scheme, window, byte| Mark::new(scheme, window, &[byte; 32]).unwrap().commitment();
    let own = commit(Scheme::Gumbel, 2, 1);
    assert_eq!(own, commit(Scheme::Gumbel, 2, 1));
    for other in [commit(Scheme::Gumbel, 2, 2), commit(Scheme::Gumbel, 3, 1), commit(SCHEMES[1], 2, 1)] {
        assert_ne!(own, other);
    }
    let mark = Mark::new(Scheme::Gumbel, 2, &[1; 32]).unwrap();
    assert!(!format!("{mark:?}").contains("01010101"));
    let refused = |scheme, window| Mark::new(scheme, window, &[1; 32]).unwrap_err();
    assert_eq!(refused(Scheme::Gumbel, 0), MarkError::Window(0));
    assert_eq!(refused(Scheme::Green { share: 1.0, bias: 1.0 }, 1).code(), "watermark_share");
    assert_eq!(refused(Scheme::Green { share: 0.5, bias: f64::NAN }, 1).code(), "watermark_bias");
}
