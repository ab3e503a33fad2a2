//! Inputs made of the committed ones by chance, the same for the same seed.

use std::io;
use std::path::Path;

use anbiq_domain::Seeded;

use crate::targets::Target;

/// Longest input.
const LONGEST: usize = 64 << 10;

/// Most changes of one input.
const CHANGES: usize = 8;

/// Gives inputs without end: first the committed ones as they are, then changed ones.
pub(crate) struct Mutator {
    corpus: Vec<Vec<u8>>,
    words: &'static [&'static [u8]],
    chance: Seeded,
    given: usize,
}

impl Mutator {
    /// # Errors
    /// The corpus cannot be read, or there is none.
    pub(crate) fn new(target: &Target, seed: u64) -> io::Result<Self> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(target.name);
        let mut paths = std::fs::read_dir(&folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
        // The order of a folder is not the same everywhere.
        paths.sort();
        let corpus = paths.iter().map(std::fs::read).collect::<io::Result<Vec<_>>>()?;
        if corpus.is_empty() {
            return Err(io::Error::other(format!("`{}` holds no inputs", folder.display())));
        }
        Ok(Self { corpus, words: target.words, chance: Seeded::new(seed).fork(target.name), given: 0 })
    }

    pub(crate) fn next(&mut self) -> Vec<u8> {
        self.given += 1;
        if let Some(input) = self.corpus.get(self.given - 1) {
            return input.clone();
        }
        let mut input = self.one();
        for _ in 0..=self.chance.below(CHANGES) {
            self.change(&mut input);
        }
        input.truncate(LONGEST);
        input
    }

    fn one(&mut self) -> Vec<u8> {
        self.chance.pick(&self.corpus).cloned().unwrap_or_default()
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let at = self.chance.below(input.len() + 1);
        let span = at..(at + self.chance.below(32)).min(input.len());
        match self.chance.below(8) {
            0 => {
                if let Some(byte) = input.get_mut(at) {
                    *byte ^= 1 << self.chance.below(8);
                }
            }
            1 => {
                if let Some(byte) = input.get_mut(at) {
                    *byte = self.chance.bits().to_le_bytes()[0];
                }
            }
            2 => input.truncate(at),
            3 => drop(input.drain(span)),
            4 => {
                let copy = input[span].to_vec();
                let times = 1 + self.chance.below(64);
                drop(input.splice(at..at, copy.repeat(times)));
            }
            5 => {
                if let Some(word) = self.chance.pick(self.words) {
                    drop(input.splice(at..at, word.iter().copied()));
                }
            }
            6 => {
                let other = self.one();
                let from = self.chance.below(other.len() + 1);
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            _ => {
                let mut bytes = vec![0; 1 + self.chance.below(8)];
                self.chance.fill(&mut bytes);
                drop(input.splice(at..at, bytes));
            }
        }
    }
}
