//! One shard: what was told of some answers, and all that is needed to read it.

use std::collections::HashMap;

use sha2::{Digest as _, Sha256};

use super::bits::{BitReader, BitWriter, width};
use super::code;
use crate::capture::Token;

/// Places after which a shard is full: what is in memory while one is made.
const FULL_PLACES: usize = 1 << 17;

/// Tokens that are named, and bytes of different tokens, after which it is full although its places are few.
const FULL_NAMED: usize = 1 << 22;
const FULL_BYTES: usize = 1 << 24;

/// Bytes of different tokens that a shard may hold when it is read: what fills one, and the longest answer that there can be.
const MOST_BYTES: usize = FULL_BYTES + (1 << 26);

const MAGIC: [u8; 8] = *b"anbiqtld";
const VERSION: u32 = 1;

/// Bytes before the dictionary.
const HEAD: usize = 48;

/// Where the checksum stands.
const CHECKSUM: std::ops::Range<usize> = 40..48;

/// A shard that is being filled.
#[derive(Debug, Default)]
pub(crate) struct Builder {
    /// Different tokens, numbered as they came.
    words: HashMap<Box<[u8]>, u32>,
    bytes: usize,
    /// For each place how many tokens are named, and which of them was chosen: none where it is as many as are named, and stands after
    /// them by itself.
    places: Vec<(u32, u32)>,
    named: Vec<(u32, u16)>,
    /// Places of each answer.
    answers: Vec<u32>,
}

impl Builder {
    /// Adds an answer; says its number in the shard and how many places it has.
    pub(crate) fn add<B: AsRef<[u8]>>(&mut self, tokens: &[Token<B>]) -> (u32, u32) {
        for token in tokens {
            let own = (self.word(token.bytes.as_ref()), code::encode(token.logprob));
            let first = self.named.len();
            for (bytes, logprob) in token.top.iter().filter(|(_, logprob)| *logprob <= ROUNDING) {
                let named = (self.word(bytes.as_ref()), code::encode(*logprob));
                self.named.push(named);
            }
            let named = &self.named[first..];
            let count = named.len() as u32;
            let chosen = named.iter().position(|other| *other == own).map_or(count, |chosen| chosen as u32);
            self.places.push((count, chosen));
            self.named.extend((chosen == count).then_some(own));
        }
        self.answers.push(tokens.len() as u32);
        (self.answers.len() as u32 - 1, tokens.len() as u32)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.answers.is_empty()
    }

    /// Would `places` more be too many?
    pub(crate) fn is_full_before(&self, places: usize) -> bool {
        !self.is_empty()
            && (self.places.len() + places > FULL_PLACES || self.named.len() > FULL_NAMED || self.bytes > FULL_BYTES)
    }

    fn word(&mut self, bytes: &[u8]) -> u32 {
        if let Some(&word) = self.words.get(bytes) {
            return word;
        }
        let word = self.words.len() as u32;
        self.words.insert(bytes.into(), word);
        self.bytes += bytes.len();
        word
    }

    /// The bytes of the shard, which is empty again. They depend on the answers alone, and on their order.
    pub(crate) fn seal(&mut self) -> Vec<u8> {
        let Self { words, places, named, answers, .. } = std::mem::take(self);
        let mut words: Vec<(Box<[u8]>, u32)> = words.into_iter().collect();
        words.sort_unstable();
        let mut number = vec![0; words.len()];
        let mut dictionary = Vec::new();
        let mut before: &[u8] = &[];
        for (place, (word, came)) in words.iter().enumerate() {
            number[*came as usize] = place as u32;
            let shared = word.iter().zip(before).take_while(|(one, other)| one == other).count();
            lengths(&mut dictionary, shared, word.len() - shared);
            dictionary.extend_from_slice(&word[shared..]);
            before = word;
        }
        let (id, most) = (id_width(words.len()), places.iter().map(|(count, _)| *count).max().unwrap_or(0));
        let (mut bits, mut table) = (BitWriter::default(), Vec::with_capacity(answers.len() * 8));
        let (mut places, mut named, mut list) = (places.into_iter(), named.into_iter(), Vec::new());
        for &answer in &answers {
            table.extend((bits.align() as u32).to_le_bytes());
            table.extend(answer.to_le_bytes());
            for (count, chosen) in places.by_ref().take(answer as usize) {
                bits.put(count, width(most));
                bits.put(chosen, width(count));
                list.clear();
                list.extend(named.by_ref().take(count as usize));
                let step = step_width(&list);
                bits.put(step, if count > RAW { STEP } else { 0 });
                for (rank, (word, code)) in list.iter().enumerate() {
                    bits.put(number[*word as usize], id);
                    match rank.checked_sub(1).filter(|_| rank >= RAW as usize && step != UNEVEN) {
                        Some(before) => bits.put(u32::from(code - list[before].1), step),
                        None => bits.put((*code).into(), u16::BITS),
                    }
                }
                for (word, code) in named.by_ref().take(usize::from(chosen == count)) {
                    bits.put(number[word as usize], id);
                    bits.put(code.into(), u16::BITS);
                }
            }
        }
        bits.align();
        let bits = bits.into_bytes();
        let mut shard = Vec::with_capacity(HEAD + dictionary.len() + table.len() + bits.len());
        shard.extend(MAGIC);
        for number in [VERSION, words.len() as u32, dictionary.len() as u32, answers.len() as u32, most, 0] {
            shard.extend(number.to_le_bytes());
        }
        shard.extend((bits.len() as u64).to_le_bytes());
        shard.extend([0; CHECKSUM.end - CHECKSUM.start]);
        shard.extend(dictionary);
        shard.extend(table);
        shard.extend(bits);
        let checksum = checksum(&shard);
        shard[CHECKSUM].copy_from_slice(&checksum);
        shard
    }
}

/// The first codes of a list stand as they are: from the likeliest token to the next it is far. The others are steps.
const RAW: u32 = 2;

/// Bits of the number that says how many bits a step of a list has, and that number where its tokens are not in the order of their codes.
const STEP: u32 = 5;
const UNEVEN: u32 = 31;

/// The bits of the largest step between codes of a list.
fn step_width(list: &[(u32, u16)]) -> u32 {
    let codes = list.get(RAW as usize - 1..).unwrap_or_default();
    let steps = codes.windows(2).map(|pair| pair[1].1.checked_sub(pair[0].1));
    steps
        .map(|step| step.map(|step| width(step.into())))
        .try_fold(0, |most, step| Some(most.max(step?)))
        .unwrap_or(UNEVEN)
}

/// So much above 0 is how a server rounds; what is more is no log-probability, and what has one is not kept among the likeliest.
const ROUNDING: f32 = 1e-3;

/// Bits of the number of a token among so many.
fn id_width(words: usize) -> u32 {
    width((words as u32).saturating_sub(1))
}

/// Two lengths in one byte, and in more where they are long.
fn lengths(to: &mut Vec<u8>, shared: usize, own: usize) {
    to.push((shared.min(15) << 4 | own.min(15)) as u8);
    for length in [shared, own] {
        let mut rest = length.checked_sub(15);
        while let Some(more) = rest {
            rest = (more > 127).then_some(more >> 7);
            to.push((more & 127) as u8 | u8::from(rest.is_some()) << 7);
        }
    }
}

fn checksum(shard: &[u8]) -> [u8; 8] {
    let (head, rest) = shard.split_at(CHECKSUM.start);
    let sum = Sha256::new().chain_update(head).chain_update(&rest[8..]).finalize();
    std::array::from_fn(|place| sum[place])
}

/// A shard that is read. Its places are not copied: they stay where its bytes are.
#[derive(Debug)]
pub(crate) struct Shard {
    /// All different tokens one after the other, and where each ends.
    words: Vec<u8>,
    ends: Vec<u32>,
    /// Bits of how many tokens are named at a place.
    count: u32,
    /// Of each answer where it begins, in bytes from its own file's shard, and how many places it has.
    answers: Vec<(usize, u32)>,
    /// Bytes of all of it.
    length: usize,
}

impl Shard {
    /// The shard at the beginning of `bytes`, which may go on. `None` where it is damaged or none.
    pub(crate) fn open(bytes: &[u8]) -> Option<Self> {
        let shard = bytes.get(..Self::length(bytes)?)?;
        (checksum(shard) == shard[CHECKSUM]).then(|| Self::unpack(shard)).flatten()
    }

    /// Bytes of the shard that begins `bytes`.
    fn length(bytes: &[u8]) -> Option<usize> {
        let head = Head::read(bytes)?;
        HEAD.checked_add(head.dictionary)?.checked_add(head.answers.checked_mul(8)?)?.checked_add(head.places)
    }

    /// Whatever the bytes are: nothing is read beyond them, and no more is made of them than they can hold.
    pub(super) fn unpack(shard: &[u8]) -> Option<Self> {
        let head = Head::read(shard)?;
        let (dictionary, rest) = shard.get(HEAD..)?.split_at_checked(head.dictionary)?;
        let (table, places) = rest.split_at_checked(head.answers.checked_mul(8)?)?;
        let (words, ends) = unfold(dictionary, head.words)?;
        let begin_of_places = shard.len() - places.len();
        let number = |bytes: &[u8]| bytes.first_chunk().map(|bytes| u32::from_le_bytes(*bytes));
        let answers = table.chunks_exact(8).map(|answer| {
            let begin = begin_of_places.checked_add(number(answer)? as usize)?;
            (begin <= shard.len()).then_some((begin, number(&answer[4..])?))
        });
        Some(Self {
            words,
            ends,
            count: width(head.most),
            answers: answers.collect::<Option<_>>()?,
            length: shard.len(),
        })
    }

    /// Places of the answer `number`; `None` where there is none.
    pub(crate) fn places(&self, number: u32) -> Option<u32> {
        Some(self.answers.get(number as usize)?.1)
    }

    /// The answer `number`, from the `bytes` at whose beginning the shard was opened; `None` where that is not what they hold.
    pub(crate) fn answer(&self, bytes: &[u8], number: u32) -> Option<Vec<Token<&[u8]>>> {
        let (begin, places) = *self.answers.get(number as usize)?;
        let mut bits = BitReader::new(bytes.get(begin..self.length)?);
        let id = id_width(self.ends.len());
        // A place takes two bytes at least.
        let mut tokens = Vec::with_capacity((places as usize).min(self.length / 2));
        for _ in 0..places {
            let count = bits.take(self.count)?;
            let chosen = bits.take(width(count))?;
            let step = bits.take(if count > RAW { STEP } else { 0 })?;
            let mut top = Vec::with_capacity((count as usize).min(self.length / 2));
            let mut last = 0;
            for rank in 0..count {
                let word = self.word(bits.take(id)?)?;
                last = match step {
                    0..=16 if rank >= RAW => last + bits.take(step)?,
                    0..=16 | UNEVEN => bits.take(u16::BITS)?,
                    _ => return None,
                };
                top.push((word, code::decode(u16::try_from(last).ok()?)));
            }
            let mut next = || Some((self.word(bits.take(id)?)?, code::decode(bits.take(u16::BITS)? as u16)));
            let (bytes, logprob) = if chosen == count { next()? } else { *top.get(chosen as usize)? };
            tokens.push(Token { bytes, logprob, top });
        }
        Some(tokens)
    }

    fn word(&self, word: u32) -> Option<&[u8]> {
        let word = word as usize;
        let begin = if word == 0 { 0 } else { *self.ends.get(word - 1)? };
        self.words.get(begin as usize..*self.ends.get(word)? as usize)
    }
}

struct Head {
    words: usize,
    dictionary: usize,
    answers: usize,
    /// Tokens that are named at the place where they are most.
    most: u32,
    places: usize,
}

impl Head {
    fn read(bytes: &[u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(&MAGIC)?;
        let number = |place: usize| rest.get(place * 4..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes));
        let places = rest.get(24..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))?;
        (number(0)? == VERSION).then_some(())?;
        Some(Self {
            words: number(1)? as usize,
            dictionary: number(2)? as usize,
            answers: number(3)? as usize,
            most: number(4)?,
            places: usize::try_from(places).ok()?,
        })
    }
}

/// The tokens of a dictionary, each of which says how much of the one before it begins with.
fn unfold(mut dictionary: &[u8], count: usize) -> Option<(Vec<u8>, Vec<u32>)> {
    // Each takes a byte at least.
    let (mut words, mut ends, mut begin) = (Vec::new(), Vec::with_capacity(count.min(dictionary.len())), 0);
    for _ in 0..count {
        let (&both, rest) = dictionary.split_first()?;
        dictionary = rest;
        let mut length = |short: u8| {
            let (mut length, mut shift) = (usize::from(short), 0);
            let mut more = short == 15;
            while more {
                let (&byte, rest) = dictionary.split_first()?;
                dictionary = rest;
                length = length.checked_add(usize::from(byte & 127).checked_shl(shift)?)?;
                shift += 7;
                more = byte >= 128;
            }
            Some(length)
        };
        let (shared, own) = (length(both >> 4)?, length(both & 15)?);
        let (word, rest) = dictionary.split_at_checked(own)?;
        dictionary = rest;
        let end = words.len();
        if shared > end - begin || shared.checked_add(own)?.checked_add(end)? > MOST_BYTES {
            return None;
        }
        words.extend_from_within(begin..begin + shared);
        words.extend_from_slice(word);
        begin = end;
        ends.push(u32::try_from(words.len()).ok()?);
    }
    dictionary.is_empty().then_some((words, ends))
}
