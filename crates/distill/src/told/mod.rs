//! What a teacher told of its answers, at some 90 bytes a token with 20 alternatives where JSON takes five times as much; read from the disk
//! as it is needed.
//!
//! While a capture is under way its rows hold their log-probabilities themselves: a row is appended in one piece, and a kill cuts off the last at most. When
//! asking ends they are *shelved* ([`shelve`]): rows then say in `told` where in a file of shards beside the capture their answers are, and the file is named by
//! its digest, `answers.jsonl.<32 hexadecimal digits>.told`. Rows of either form are read alike ([`Shelf`]), with the same numbers: those of the 16-bit
//! [`code`] are what is learnt from, shelved or not.
//!
//! # A file of shards
//!
//! Shards stand one after the other, with nothing before, between or after them. Each can be read by itself, and has about 131,072 places: a new
//! one begins where an answer would make it more, or after 4,194,304 named tokens or 16 MiB of different ones. Numbers are
//! little-endian.
//!
//! | byte | what |
//! |---|---|
//! | 0 | `anbiqtld` |
//! | 8 | version, 32 bits: 1 |
//! | 12 | `words`, 32 bits: different tokens, by their bytes |
//! | 16 | `d`, 32 bits: bytes of the dictionary |
//! | 20 | `answers`, 32 bits |
//! | 24 | `most`, 32 bits: tokens that are named at the place where they are most |
//! | 28 | 0, 32 bits |
//! | 32 | `p`, 64 bits: bytes of the places |
//! | 40 | the first 8 bytes of the SHA-256 of all other bytes of the shard |
//! | 48 | the dictionary: `d` bytes |
//! | 48 + `d` | for each answer, 32 bits each: where it begins, in bytes from the first place; how many places it has |
//! | 48 + `d` + 8 `answers` | the places: `p` bytes |
//!
//! **The dictionary** has all tokens of the shard in the order of their bytes. Each is a byte, whose upper four bits say with how many bytes of the one before
//! it begins and whose lower four how many of its own follow; then these. 15 stands for 15 and more: what is more follows, before the token's own bytes, in groups
//! of 7 bits, the lowest first, the eighth bit set in all but the last; first of what is shared, then of what is own.
//!
//! **A place** is bits, the lowest of a byte first, in numbers whose lowest bit comes first; each answer begins with a byte.
//!
//! | bits | what |
//! |---|---|
//! | as many as `most` needs | how many tokens are named |
//! | as many as that number needs | which of them was chosen, from 0; that number itself where it is none of them |
//! | 5, where more than two are named | `s`: the bits of a step from one code to the next; 31 where the codes do not rise from the second on |
//! | for each, as many as `words` - 1 needs, and 16 or `s` | its number in the dictionary; the code of its log-probability, or from the third on, where `s` is not 31, by how much it is more than that of the one before |
//! | where none of them was chosen, as many as `words` - 1 needs, and 16 | the same of the chosen one |
//!
//! A number needs as many bits as it has without leading zeros; 0 needs none. At 20 alternatives of 150,000 tokens a place has 86 bytes at most and some 76 mostly, and the
//! dictionary of a full shard takes some 5 more; that of a capture of few tokens takes more of them.
//!
//! A place keeps what a row says of it but two things: log-probabilities are rounded ([`code`]), and a token that is named with a log-probability above 0.001,
//! which is none, is not among the named ones. Whatever the bytes of a file are, what is read is an error or a place; the checksum
//! tells damage from a capture.

mod bits;
mod code;
mod file;
mod lists;
mod map;
mod shard;
mod shelve;
#[cfg(test)]
mod tests;

pub use file::{Spot, Told};

pub(crate) use file::{Found, Place, Shelf};
pub(crate) use lists::Lists;
pub(crate) use shelve::{bytes, shelve, sweep_all_but};
