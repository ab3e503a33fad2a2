//! Sketches of prompts: enough to compare, too little to read.
//!
//! A sketch costs some microseconds for a usual prompt, so the gateway can make one for every request. Whoever does
//! not hold the key can neither read a sketch nor test a guess against it.

mod lexemes;

use anbiq_domain::{GrowingHash, KeyedHasher, MINHASHES, Message, Prompt, Role, Sketch, flags};

use crate::siphash::SipHash;

/// Only so many words enter the minimum hashes; a prompt's first 2,048 words are enough to tell it from others, and
/// the cost of a huge one stays bounded.
const HASHED_WORDS: usize = 2048;

/// Prompts with fewer words than this are compared by their single words too: they have too few pairs.
const SHORT: usize = 8;

/// How many words make the opening.
const OPENING: usize = 3;

/// Makes sketches under one key; sketches under different keys cannot be compared.
#[derive(Debug, Clone)]
pub struct Sketcher {
    whole: KeyedHasher,
    words: SipHash,
    /// For each minimum hash a multiplier (odd) and a mask.
    mixers: ([u32; MINHASHES], [u32; MINHASHES]),
}

impl Sketcher {
    /// A sketcher under `key`.
    pub fn new(key: &[u8; 32]) -> Self {
        let whole = KeyedHasher::new(key);
        let words = SipHash::new(
            whole.hash("anbiq sketch words 0", &[]).0, //
            whole.hash("anbiq sketch words 1", &[]).0,
        );
        let mut multipliers = [0; MINHASHES];
        let mut masks = [0; MINHASHES];
        for (index, (multiplier, mask)) in (0_u8..).zip(multipliers.iter_mut().zip(&mut masks)) {
            let bits = whole.hash("anbiq sketch mixer", &[index]).0;
            *multiplier = (bits as u32) | 1;
            *mask = (bits >> 32) as u32;
        }
        Self { whole, words, mixers: (multipliers, masks) }
    }

    /// The sketch of `prompt`.
    ///
    /// `exact` covers every message with its role; a bare text counts as one message of the user. Opening, minimum
    /// hashes and length are those of the last message; the flags look at the system message too, since that is where
    /// an application asks.
    pub fn sketch(&self, prompt: &Prompt) -> Sketch {
        let mut talk = Talk::begin(self);
        match prompt {
            Prompt::Text(text) => talk.sketch(Role::User, text),
            Prompt::Chat(messages) => {
                let Some((last, before)) = messages.split_last() else { return talk.sketch(Role::User, "") };
                before.iter().for_each(|message| talk.hear(message.role, &message.content));
                talk.sketch(last.role, &last.content)
            }
        }
    }

    /// The sketches of a conversation's prompts: for each message of the user that of all messages up to it, in their order. It costs
    /// no more than one pass over the texts, but for the keyed hash.
    pub fn conversation<'m>(&self, messages: &'m [Message]) -> impl Iterator<Item = Sketch> + use<'m, '_> {
        let mut talk = Talk::begin(self);
        messages.iter().filter_map(move |message| {
            if message.role == Role::User {
                return Some(talk.sketch(message.role, &message.content));
            }
            talk.hear(message.role, &message.content);
            None
        })
    }

    fn minhash(&self, words: &[&str]) -> [u32; MINHASHES] {
        let mut minima = [u32::MAX; MINHASHES];
        let hashed = &words[..words.len().min(HASHED_WORDS)];
        let mut before: Option<u64> = None;
        for word in hashed {
            let hash = self.words.hash(word.as_bytes());
            if hashed.len() < SHORT {
                self.lower(&mut minima, hash);
            }
            if let Some(before) = before {
                self.lower(&mut minima, pair(before, hash));
            }
            before = Some(hash);
        }
        minima
    }

    /// Lowers every minimum that `shingle` undercuts. The loop has no branch, so the compiler vectorises it.
    fn lower(&self, minima: &mut [u32; MINHASHES], shingle: u64) {
        let (low, high) = (shingle as u32, (shingle >> 32) as u32);
        let (multipliers, masks) = &self.mixers;
        for index in 0..MINHASHES {
            let mixed = finish(low.wrapping_mul(multipliers[index]).wrapping_add(high) ^ masks[index]);
            minima[index] = minima[index].min(mixed);
        }
    }
}

/// An estimate of the Jaccard index of two prompts' word pairs: the share of minimum hashes that agree (Broder 1997).
///
/// Its standard error is at most 0.09. Only sketches under the same key can be compared.
pub fn similarity(a: &Sketch, b: &Sketch) -> f64 {
    agreeing(a, b) as f64 / MINHASHES as f64
}

/// How many minimum hashes of two prompts agree, 0..=[`MINHASHES`].
pub fn agreeing(a: &Sketch, b: &Sketch) -> usize {
    // A sum of numbers rather than a count of those that pass: so the compiler compares several at once.
    a.minhash.iter().zip(&b.minhash).map(|(a, b)| u32::from(a == b)).sum::<u32>() as usize
}

/// What was said so far: of every message its role and evened-out text, unambiguously one after the other.
struct Talk<'s> {
    sketcher: &'s Sketcher,
    exact: GrowingHash,
    /// What system messages ask for.
    flags: u32,
    /// Messages that are not the system's.
    spoken: usize,
}

impl<'s> Talk<'s> {
    fn begin(sketcher: &'s Sketcher) -> Self {
        Self { sketcher, exact: sketcher.whole.growing("anbiq sketch exact"), flags: 0, spoken: 0 }
    }

    /// Takes in a message of which no sketch is asked.
    fn hear(&mut self, role: Role, content: &str) {
        self.add(role, content, &normalise(content));
    }

    /// Takes in a message and gives the sketch of all of them.
    fn sketch(&mut self, role: Role, content: &str) -> Sketch {
        let last = normalise(content);
        let words: Vec<&str> = words(&last).collect();
        let opening = words[..words.len().min(OPENING)].join(" ");
        self.add(role, content, &last);
        let deep = if self.spoken > 1 { flags::MULTI_TURN } else { 0 };
        Sketch {
            exact: self.exact.value(),
            opening: self.sketcher.whole.hash("anbiq sketch opening", opening.as_bytes()),
            minhash: self.sketcher.minhash(&words),
            words: u32::try_from(words.len()).unwrap_or(u32::MAX),
            flags: self.flags | lexemes::flags_in(&last) | deep,
        }
    }

    fn add(&mut self, role: Role, content: &str, normal: &str) {
        // A normalised text has no control characters, so these two cannot occur in it.
        for part in [role.as_str(), "\u{1}", normal, "\u{2}"] {
            self.exact.add(part.as_bytes());
        }
        match role {
            Role::System if !content.trim().is_empty() => self.flags |= flags::SYSTEM | lexemes::flags_in(normal),
            Role::System => {}
            _ => self.spoken += 1,
        }
    }
}

/// Lower case; every run of white space and control characters one space; none at the ends.
fn normalise(text: &str) -> String {
    let mut normal = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        // Most texts are plain for long stretches, which are copied as they are.
        let plain = rest.bytes().position(|byte| !byte.is_ascii_graphic()).unwrap_or(rest.len());
        let begun = normal.len();
        normal.push_str(&rest[..plain]);
        normal[begun..].make_ascii_lowercase();
        let mut others = rest[plain..].chars();
        let Some(character) = others.next() else { break };
        rest = others.as_str();
        if character.is_whitespace() || character.is_control() {
            if !normal.is_empty() && !normal.ends_with(' ') {
                normal.push(' ');
            }
        } else {
            normal.extend(character.to_lowercase());
        }
    }
    normal.truncate(normal.trim_end().len());
    normal
}

/// Runs of letters and digits; in scripts that write without spaces each character is a word.
fn words(text: &str) -> impl Iterator<Item = &str> {
    word_starts(text).map(|(start, length)| &text[start..start + length])
}

/// Start and length, in bytes, of every word.
fn word_starts(text: &str) -> impl Iterator<Item = (usize, usize)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            let (first, length) = letter(text, at)?;
            let start = at;
            at += length;
            match first {
                Letter::Alone => return Some((start, length)),
                Letter::No => {}
                Letter::Within => {
                    while let Some((Letter::Within, length)) = letter(text, at) {
                        at += length;
                    }
                    return Some((start, at - start));
                }
            }
        }
    })
}

/// What a character is to words.
#[derive(Clone, Copy)]
enum Letter {
    No,
    Within,
    Alone,
}

/// What the character at byte `at` is to words, and its length in bytes; nothing at the end.
fn letter(text: &str, at: usize) -> Option<(Letter, usize)> {
    let byte = *text.as_bytes().get(at)?;
    if byte.is_ascii() {
        return Some((if byte.is_ascii_alphanumeric() { Letter::Within } else { Letter::No }, 1));
    }
    let character = text[at..].chars().next()?;
    let kind = match character {
        alone if stands_alone(alone) => Letter::Alone,
        within if in_word(within) => Letter::Within,
        _ => Letter::No,
    };
    Some((kind, character.len_utf8()))
}

/// Letters, digits and the marks that Arabic and the scripts of India put on letters.
fn in_word(character: char) -> bool {
    character.is_alphanumeric()
        || matches!(character, '\u{300}'..='\u{36f}' | '\u{64b}'..='\u{65f}' | '\u{670}' | '\u{93c}'..='\u{94d}')
}

/// Han, kana and Thai: written without spaces.
fn stands_alone(character: char) -> bool {
    matches!(character, '\u{e00}'..='\u{e7f}' | '\u{3041}'..='\u{30ff}' | '\u{3400}'..='\u{9fff}' | '\u{20000}'..='\u{3ffff}')
}

/// The hash of two words in this order.
fn pair(first: u64, second: u64) -> u64 {
    // Both are keyed already; an odd multiplier keeps the order.
    (first.rotate_left(23).wrapping_mul(0x9e37_79b9_7f4a_7c15)) ^ second
}

/// The finisher of MurmurHash3: every bit of the input moves every bit of the output.
fn finish(mut value: u32) -> u32 {
    value ^= value >> 16;
    value = value.wrapping_mul(0x85eb_ca6b);
    value ^= value >> 13;
    value = value.wrapping_mul(0xc2b2_ae35);
    value ^ (value >> 16)
}

#[cfg(test)]
mod tests;
