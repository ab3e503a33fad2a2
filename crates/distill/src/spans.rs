//! What a teacher tells of an answer in its own tokens, carried over to those of a student that cuts the answer differently.
//!
//! The method is the byte-prefix marginalisation of Wang et al. (*Cross-Tokenizer On-Policy Distillation via Byte-Prefix
//! Marginalization*, arXiv 2607.22334, 2026), here for the likeliest tokens that a server tells: what a token of the teacher has of
//! probability goes to the longest token of the student with which its bytes begin, and the student's own token of the text has
//! the probability of its bytes along the text, by the chain rule, where it covers several of the teacher's. All that cannot be
//! told goes to the class of all other tokens. Where a student's token begins inside of one of the teacher's, what the teacher named
//! there is possible still if it goes on with the bytes that have come (the covers of Phan et al., *Exact Byte-Level Probabilities
//! from Tokenized Language Models*, arXiv 2410.09303, 2024, as far as they lie along the text). What was named need not be all of that: such a
//! place is left out where more than a hundredth may be missing.
//!
//! Bytes of an answer alone are compared: what begins a text, or a prompt, in either vocabulary does not matter.

use std::collections::HashMap;

use anbiq_lm::Codec;
use anbiq_lm::score::Likeliest;

use crate::capture::{Mapped, Token};

/// How much of what is possible inside a token may be unknown.
const UNKNOWN: f64 = 0.01;

/// Carries over probabilities to the tokens of one student.
#[derive(Debug)]
pub(crate) struct Carrier<'codec> {
    codec: &'codec Codec,
    /// The token of some bytes, and how many bytes the longest has.
    tokens: HashMap<&'codec [u8], u32>,
    longest: usize,
}

/// The teacher's tokens of an answer: where each begins, and which of them says that it ended.
struct Told<'told, B> {
    tokens: &'told [Token<B>],
    begins: Vec<usize>,
    text: Vec<u8>,
    end: Option<&'told Token<B>>,
}

impl<'codec> Carrier<'codec> {
    pub(crate) fn new(codec: &'codec Codec) -> Self {
        let tokenizer = &codec.tokenizer;
        // Of tokens with the same bytes the first one counts; special ones stand for no bytes.
        let ids = (0..tokenizer.size() as u32).rev().filter(|&id| !tokenizer.is_special(id));
        let tokens: HashMap<&[u8], u32> =
            ids.map(|id| (tokenizer.bytes(id), id)).filter(|(bytes, _)| !bytes.is_empty()).collect();
        let longest = tokens.keys().map(|bytes| bytes.len()).max().unwrap_or(0);
        Self { codec, tokens, longest }
    }

    /// What the teacher `told` of an answer, at each of the student's `targets`, the tokens of the same answer; `None` where the
    /// two are not of the same bytes.
    pub(crate) fn carry<B: AsRef<[u8]>>(&self, told: &[Token<B>], targets: &[u32]) -> Option<Mapped> {
        let codec = self.codec;
        let eos = codec.eos.first().copied();
        let body = targets.strip_suffix(codec.eos.get(..1).unwrap_or_default()).unwrap_or(targets);
        let mut ends = Vec::with_capacity(body.len());
        let mut text = Vec::new();
        for (place, &token) in body.iter().enumerate() {
            let tokenizer = &codec.tokenizer;
            text.extend_from_slice(if place == 0 { tokenizer.first_bytes(token) } else { tokenizer.bytes(token) });
            ends.push(text.len());
        }
        let told = Told::of(told, text)?;
        let mut mapped = Mapped { places: Vec::with_capacity(targets.len()), told: 0.0, found: 0.0 };
        let mut begin = 0;
        for (&token, &end) in body.iter().zip(&ends) {
            let (place, whole) = self.place(&told, token, begin, end, eos);
            mapped.told += whole;
            mapped.found += place.iter().map(|(_, logprob)| f64::from(*logprob).exp()).sum::<f64>();
            mapped.places.push(place);
            begin = end;
        }
        if body.len() < targets.len() {
            let place = told.end.map_or_else(Likeliest::new, |end| self.last(end, &told, eos));
            let sum: f64 = place.iter().map(|(_, logprob)| f64::from(*logprob).exp()).sum();
            mapped.told += told.end.map_or(0.0, |end| named(end).map(|(_, probability)| probability).sum());
            mapped.found += sum;
            mapped.places.push(place);
        }
        Some(mapped)
    }

    /// The place at which the student's `token` stands, from byte `begin` to `end` of the text; and how much was told there.
    fn place<B: AsRef<[u8]>>(
        &self,
        told: &Told<'_, B>,
        token: u32,
        begin: usize,
        end: usize,
        eos: Option<u32>,
    ) -> (Likeliest, f64) {
        let own = told.at(begin);
        let come = &told.text[told.begins[own]..begin];
        // What is named there and goes on with the bytes that have come; the teacher's own token always does.
        let (mut known, mut possible) = (0.0, 0.0);
        let mut counted: Vec<(u32, f64)> = Vec::new();
        let mut is_told = false;
        for (bytes, probability) in named(&told.tokens[own]) {
            known += probability;
            if !bytes.starts_with(come) {
                continue;
            }
            possible += probability;
            if bytes == told.tokens[own].bytes.as_ref() && !std::mem::replace(&mut is_told, true) {
                continue;
            }
            let rest = &bytes[come.len()..];
            let first = if told.is_end(bytes) && come.is_empty() { eos } else { self.first(rest) };
            if let Some(first) = first {
                counted.push((first, probability));
            }
        }
        let own_probability = f64::from(told.tokens[own].logprob).exp();
        if !is_told {
            known += own_probability;
            possible += own_probability;
        }
        let unknown = (1.0 - known).max(0.0);
        if !come.is_empty() && unknown > UNKNOWN * possible {
            return (Likeliest::new(), 0.0);
        }
        let whole = if come.is_empty() { known.max(1.0) } else { possible };
        if let Some(along) = told.along(own, end, own_probability) {
            counted.push((token, along));
        }
        counted.sort_by_key(|(token, _)| *token);
        counted.dedup_by(|later, first| {
            let same = later.0 == first.0;
            first.1 += if same { later.1 } else { 0.0 };
            same
        });
        let mut place: Likeliest = counted
            .into_iter()
            .filter(|(_, probability)| *probability > 0.0)
            .map(|(token, probability)| (token, ((probability / whole).ln() as f32).min(0.0)))
            .collect();
        place.sort_by(|one, two| two.1.total_cmp(&one.1).then(one.0.cmp(&two.0)));
        (place, if come.is_empty() { known.min(1.0) } else { 1.0 })
    }

    /// The place at which the answer ended.
    fn last<B: AsRef<[u8]>>(&self, end: &Token<B>, told: &Told<'_, B>, eos: Option<u32>) -> Likeliest {
        let mut place = Likeliest::new();
        for (bytes, probability) in named(end) {
            let token = if told.is_end(bytes) { eos } else { self.first(bytes) };
            match token.map(|token| (token, place.iter_mut().find(|(other, _)| *other == token))) {
                Some((_, Some((_, logprob)))) => {
                    *logprob = ((f64::from(*logprob).exp() + probability).ln() as f32).min(0.0);
                }
                Some((token, None)) => place.push((token, (probability.ln() as f32).min(0.0))),
                None => {}
            }
        }
        place
    }

    /// The longest token of the student with which `bytes` begin.
    fn first(&self, bytes: &[u8]) -> Option<u32> {
        let lengths = (1..=bytes.len().min(self.longest)).rev();
        lengths.filter_map(|length| self.tokens.get(&bytes[..length])).next().copied()
    }
}

impl<'told, B: AsRef<[u8]>> Told<'told, B> {
    /// `None` where the tokens are not of the bytes of `text`, followed by one token at most that ends it.
    fn of(tokens: &'told [Token<B>], text: Vec<u8>) -> Option<Self> {
        let (mut begins, mut at) = (Vec::with_capacity(tokens.len()), 0);
        for token in tokens {
            if at == text.len() {
                break;
            }
            let bytes = token.bytes.as_ref();
            if bytes.is_empty() || !text[at..].starts_with(bytes) {
                return None;
            }
            begins.push(at);
            at += bytes.len();
        }
        let (body, rest) = tokens.split_at(begins.len());
        (at == text.len() && rest.len() <= 1).then(|| Self { tokens: body, begins, text, end: rest.first() })
    }

    /// The token in which the byte `at` stands.
    fn at(&self, at: usize) -> usize {
        self.begins.partition_point(|&begin| begin <= at) - 1
    }

    /// Is it the token with which the teacher ends an answer?
    fn is_end(&self, bytes: &[u8]) -> bool {
        self.end.is_some_and(|end| end.bytes.as_ref() == bytes)
    }

    /// How likely the teacher found it that the text goes on up to the byte `end`, from the beginning of its token `own`, which has
    /// `probability`; `None` where that cannot be told.
    fn along(&self, own: usize, end: usize, probability: f64) -> Option<f64> {
        let mut along = probability;
        for place in own + 1..self.tokens.len() {
            let (begin, token) = (self.begins[place], &self.tokens[place]);
            if begin >= end {
                break;
            }
            let part = &self.text[begin..end];
            let bytes = token.bytes.as_ref();
            if part.len() >= bytes.len() {
                along *= f64::from(token.logprob).exp();
                continue;
            }
            // The student's token ends inside of this one: whatever begins with the same bytes counts.
            let (mut known, mut goes_on, mut is_told) = (0.0, 0.0, false);
            for (other, probability) in named(token) {
                known += probability;
                goes_on += if other.starts_with(part) { probability } else { 0.0 };
                is_told |= other == bytes;
            }
            if !is_told {
                let own = f64::from(token.logprob).exp();
                (known, goes_on) = (known + own, goes_on + own);
            }
            if (1.0 - known).max(0.0) > UNKNOWN * goes_on {
                return None;
            }
            along *= goes_on;
        }
        Some(along)
    }
}

/// What was named at a place, with its probability.
fn named<B: AsRef<[u8]>>(token: &Token<B>) -> impl Iterator<Item = (&[u8], f64)> {
    token.top.iter().map(|(bytes, logprob)| (bytes.as_ref(), f64::from(logprob.min(0.0)).exp()))
}

#[cfg(test)]
mod tests {
    use anbiq_lm::{SPECIALS, Tokenizer};
    use proptest::prelude::*;

    use super::*;
    use crate::capture::Alphabet;

    const WORDS: [&str; 8] = ["the", " the", " then", " them", " bright", " éclat", " of", "."];

    fn codec(size: usize) -> Codec {
        let texts = ["the theme of the bright éclat then. of them, the éclat of the bright theme"; 3];
        Codec::plain(Tokenizer::train_bpe(texts, size, &SPECIALS).unwrap(), 64).unwrap()
    }

    /// The tokens of `text` by `codec`, each named beside `others` of the same vocabulary with shares of all probability.
    fn told(codec: &Codec, text: &str, others: &[u32], end: bool) -> Vec<Token> {
        let bytes = |token: u32| codec.tokenizer.bytes(token).to_vec().into();
        let mut tokens = codec.tokenizer.encode(text, false).unwrap();
        tokens.extend(codec.eos.first().filter(|_| end));
        let place = |own: u32| {
            let mut named = vec![own];
            named.extend(others.iter().filter(|other| **other != own));
            let share = -(named.len() as f32).ln();
            let top = named.iter().map(|&token| (bytes(token), share)).collect();
            Token { bytes: bytes(own), logprob: share, top }
        };
        tokens.into_iter().map(place).collect()
    }

    fn targets(codec: &Codec, text: &str, end: bool) -> Vec<u32> {
        let mut tokens = codec.tokenizer.encode(text, false).unwrap();
        tokens.extend(codec.eos.first().filter(|_| end));
        tokens
    }

    proptest! {
        /// Whatever the two vocabularies are: every place is one of probabilities, and of the same tokens it says what was told.
        #[test]
        fn every_place_is_a_distribution(
            words in prop::collection::vec(0..WORDS.len(), 1..8),
            named in prop::collection::btree_set(5_u32..290, 0..12),
            end in any::<bool>(),
        ) {
            let text: String = words.iter().map(|&word| WORDS[word]).collect();
            let (small, large) = (codec(275), codec(300));
            let others: Vec<u32> = named.into_iter().filter(|token| !small.tokenizer.bytes(*token).is_empty()).collect();
            for (teacher, student) in [(&small, &large), (&large, &small), (&large, &large)] {
                let told = told(teacher, &text, &others, end);
                let targets = targets(student, &text, end);
                let carried = Carrier::new(student).carry(&told, &targets).unwrap();
                prop_assert_eq!(carried.places.len(), targets.len());
                for place in &carried.places {
                    let sum: f64 = place.iter().map(|(_, logprob)| f64::from(*logprob).exp()).sum();
                    prop_assert!(sum < 1.0 + 1e-4, "{sum} {place:?}");
                    let mut tokens: Vec<u32> = place.iter().map(|(token, _)| *token).collect();
                    tokens.sort_unstable();
                    tokens.dedup();
                    prop_assert_eq!(tokens.len(), place.len());
                }
            }
            let told = told(&large, &text, &others, end);
            let targets = targets(&large, &text, end);
            let plain = Alphabet::of(&large).map(&large, &told, &targets).unwrap();
            let carried = Carrier::new(&large).carry(&told, &targets).unwrap();
            for ((own, plain), carried) in targets.iter().zip(&plain.places).zip(&carried.places) {
                let find = |place: &Likeliest| place.iter().find(|(token, _)| token == own).map(|(_, logprob)| logprob.exp());
                let (plain, carried) = (find(plain).unwrap(), find(carried).unwrap());
                prop_assert!((plain - carried).abs() < 1e-5, "{plain} {carried}");
            }
        }

        /// A teacher of three tokens whose draws are independent, and a student of single bytes: what is carried over is never more
        /// than what all of the teacher's ways to go on add up to, and what is missing is what could not be told.
        #[test]
        fn no_byte_is_likelier_than_all_ways_to_it(a in 0.05..1.0_f64, b in 0.05..1.0_f64, ab in 0.05..1.0_f64, choices in prop::collection::vec(0..3_usize, 1..6)) {
            let whole = a + b + ab;
            let vocabulary = [("a", a / whole), ("b", b / whole), ("ab", ab / whole)];
            let top: Vec<_> = vocabulary.iter().map(|(text, p)| (text.as_bytes().to_vec().into(), p.ln() as f32)).collect();
            let told: Vec<Token> = choices
                .iter()
                .map(|&choice| Token { bytes: vocabulary[choice].0.as_bytes().to_vec().into(), logprob: vocabulary[choice].1.ln() as f32, top: top.clone() })
                .collect();
            let text: String = choices.iter().map(|&choice| vocabulary[choice].0).collect();
            let student = codec(256 + SPECIALS.len());
            let targets = targets(&student, &text, false);
            let carried = Carrier::new(&student).carry(&told, &targets).unwrap();
            let letter = |letter: &str| targets_of(&student, letter);
            let (p_a, p_ab) = (vocabulary[0].1, vocabulary[2].1);
            // By all sequences of tokens: a text that begins with b has drawn it; one with a has drawn a or ab.
            let starts_with_b = vocabulary[1].1;
            let (mut at, mut place) = (0, 0);
            for &choice in &choices {
                for inside in 0..vocabulary[choice].0.len() {
                    let find = |letter: u32| carried.places[place].iter().find(|(token, _)| *token == letter).map_or(0.0, |(_, logprob)| f64::from(*logprob).exp());
                    if inside == 0 {
                        prop_assert!((find(letter("a")) - (p_a + p_ab)).abs() < 1e-5 && (find(letter("b")) - starts_with_b).abs() < 1e-5);
                    } else {
                        // After an a: the rest of ab, or a drawn a and then anything.
                        let exact = (p_ab + p_a * starts_with_b) / (p_a + p_ab);
                        let told = find(letter("b"));
                        prop_assert!(told <= exact + 1e-6 && (exact - told) <= p_a / (p_a + p_ab) + 1e-6, "{told} {exact}");
                    }
                    place += 1;
                    at += 1;
                }
            }
            prop_assert_eq!(at, text.len());
        }
    }

    fn targets_of(codec: &Codec, letter: &str) -> u32 {
        targets(codec, letter, false)[0]
    }

    #[test]
    fn a_token_over_several_of_the_teachers_has_their_product() {
        let student = codec(300);
        let targets = targets(&student, "the éclat", true);
        // The teacher writes single bytes, cuts a character, and begins nothing with a token of its own.
        let told: Vec<Token> = "the éclat"
            .bytes()
            .map(|byte| Token {
                bytes: vec![byte].into(),
                logprob: 0.9_f32.ln(),
                top: vec![(vec![byte].into(), 0.9_f32.ln())],
            })
            .chain([Token {
                bytes: Bytes::Text("</s>".into()),
                logprob: 0.8_f32.ln(),
                top: vec![(Bytes::Text("</s>".into()), 0.8_f32.ln())],
            }])
            .collect();
        let carried = Carrier::new(&student).carry(&told, &targets).unwrap();
        assert!(targets.len() < told.len());
        for (token, place) in targets.iter().zip(&carried.places) {
            let [(own, logprob)] = place[..] else { panic!("{place:?}") };
            let length = student.tokenizer.bytes(*token).len();
            let expected = if student.eos.contains(token) { 0.8_f32.ln() } else { 0.9_f32.ln() * length as f32 };
            assert!(own == *token && (logprob - expected).abs() < 1e-4, "{place:?}");
        }
        // Another text is another text.
        assert_eq!(Carrier::new(&student).carry(&told[1..], &targets), None);
        assert_eq!(Carrier::new(&student).carry(&told[..3], &targets), None);
    }

    use crate::capture::Bytes;
}
