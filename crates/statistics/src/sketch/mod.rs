//! Sketches of prompts: enough to compare, too little to read.
//!
//! A sketch costs some microseconds for a usual prompt, so the gateway can make one for every request. Whoever does
//! not hold the key can neither read a sketch nor test a guess against it.

mod lexemes;

use anbiq_domain::{KeyedHasher, MINHASHES, Message, Prompt, Role, Sketch, flags};

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
        let last = normalise(prompt.last_text());
        let words: Vec<&str> = words(&last).collect();
        let opening = words[..words.len().min(OPENING)].join(" ");
        Sketch {
            exact: self.whole.hash("anbiq sketch exact", canonical(prompt, &last).as_bytes()),
            opening: self.whole.hash("anbiq sketch opening", opening.as_bytes()),
            minhash: self.minhash(&words),
            words: u32::try_from(words.len()).unwrap_or(u32::MAX),
            flags: flags_of(prompt, &last),
        }
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

/// Every message's role and evened-out text, unambiguously one after the other. `last` is the last one's text.
fn canonical(prompt: &Prompt, last: &str) -> String {
    let mut text = String::with_capacity(last.len() + 16);
    let mut role = Role::User;
    if let Prompt::Chat(messages) = prompt
        && let Some((end, before)) = messages.split_last()
    {
        for message in before {
            push_message(&mut text, message.role, &normalise(&message.content));
        }
        role = end.role;
    }
    push_message(&mut text, role, last);
    text
}

fn push_message(text: &mut String, role: Role, content: &str) {
    // A normalised text has no control characters, so these two cannot occur in it.
    text.push_str(role.as_str());
    text.push('\u{1}');
    text.push_str(content);
    text.push('\u{2}');
}

/// Lower case; every run of white space and control characters one space; none at the ends.
fn normalise(text: &str) -> String {
    let mut normal = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_whitespace() || character.is_control() {
            if !normal.is_empty() && !normal.ends_with(' ') {
                normal.push(' ');
            }
        } else if character.is_ascii() {
            normal.push(character.to_ascii_lowercase());
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
    let mut rest = text.char_indices().peekable();
    std::iter::from_fn(move || {
        loop {
            let (start, first) = rest.next()?;
            if stands_alone(first) {
                return Some((start, first.len_utf8()));
            }
            if !in_word(first) {
                continue;
            }
            let mut end = start + first.len_utf8();
            while let Some(&(at, next)) = rest.peek() {
                if stands_alone(next) || !in_word(next) {
                    break;
                }
                end = at + next.len_utf8();
                rest.next();
            }
            return Some((start, end - start));
        }
    })
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

fn flags_of(prompt: &Prompt, last: &str) -> u32 {
    let mut bits = lexemes::flags_in(last);
    if let Prompt::Chat(messages) = prompt {
        let is_system = |message: &&Message| message.role == Role::System && !message.content.trim().is_empty();
        for message in messages.iter().filter(is_system) {
            bits |= flags::SYSTEM | lexemes::flags_in(&normalise(&message.content));
        }
        if messages.iter().filter(|message| message.role != Role::System).count() > 1 {
            bits |= flags::MULTI_TURN;
        }
    }
    bits
}

#[cfg(test)]
mod tests;
