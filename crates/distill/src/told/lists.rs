//! What is told of targets, in the numbers of one student's tokens.
//!
//! By place: how many tokens are named in 8 bits (255 for more, which then stand in 32), and for each its number, as wide as the
//! vocabulary needs, and the code of its log-probability ([`super::code`]). Of 20 tokens of a vocabulary of 150,000 these are 86 bytes a place.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use anbiq_lm::score::Likeliest;
use memmap2::Mmap;

use super::bits::{BitReader, BitWriter, width};
use super::code;
use super::map::map;
use crate::DistillError;

/// Bytes that are held in memory; what is more goes to a file without a name.
const HELD: usize = 1 << 25;

/// Lists of tokens, packed.
#[derive(Debug)]
pub(crate) struct Lists {
    /// Bits of the number of a token.
    id: u32,
    folder: PathBuf,
    bits: BitWriter,
    file: Option<File>,
    /// Bytes that are in the file.
    filed: u64,
    read: Option<Read>,
}

#[derive(Debug)]
enum Read {
    Held(Vec<u8>),
    Mapped(Mmap),
}

impl Lists {
    /// For a vocabulary of so many `tokens`. What does not stay in memory goes to `folder`, which is made when it is needed.
    pub(crate) fn new(tokens: usize, folder: &Path) -> Self {
        let id = width((tokens as u32).saturating_sub(1));
        Self { id, folder: folder.to_owned(), bits: BitWriter::default(), file: None, filed: 0, read: None }
    }

    /// Adds the `places` of a sequence; says where they are.
    pub(crate) fn put(&mut self, places: &[Likeliest]) -> Result<u64, DistillError> {
        let begin = self.filed + self.bits.align() as u64;
        for place in places {
            let count = place.len() as u32;
            self.bits.put(count.min(255), 8);
            if count >= 255 {
                self.bits.put(count, u32::BITS);
            }
            for &(token, logprob) in place {
                self.bits.put(token, self.id);
                self.bits.put(code::encode(logprob).into(), u16::BITS);
            }
        }
        if self.bits.align() > HELD {
            self.spill()?;
        }
        Ok(begin)
    }

    /// Nothing more is added.
    pub(crate) fn end(&mut self) -> Result<(), DistillError> {
        self.read = Some(if self.file.is_some() {
            self.spill()?;
            let mapped = self.file.take().map(|file| map(&file)).transpose();
            let mapped = mapped.map_err(DistillError::read(&self.folder))?;
            mapped.map_or_else(|| Read::Held(Vec::new()), Read::Mapped)
        } else {
            Read::Held(std::mem::take(&mut self.bits).into_bytes())
        });
        Ok(())
    }

    /// The `places` of the sequence that was put `at`.
    ///
    /// # Errors
    ///
    /// The disk gives back something else than was written.
    pub(crate) fn get(&self, at: u64, places: usize) -> Result<Vec<Likeliest>, DistillError> {
        let bytes: &[u8] = match &self.read {
            Some(Read::Held(bytes)) => bytes,
            Some(Read::Mapped(bytes)) => bytes,
            None => &[],
        };
        let read = || {
            let mut bits = BitReader::new(bytes.get(usize::try_from(at).ok()?..)?);
            (0..places).map(|_| self.place(&mut bits)).collect::<Option<Vec<Likeliest>>>()
        };
        read().ok_or_else(|| {
            let why =
                std::io::Error::new(std::io::ErrorKind::InvalidData, "it gives back something else than was written");
            DistillError::read(&self.folder)(why)
        })
    }

    fn place(&self, bits: &mut BitReader<'_>) -> Option<Likeliest> {
        let count = match bits.take(8)? {
            255 => bits.take(u32::BITS)?,
            count => count,
        };
        let mut place = Likeliest::with_capacity(count.min(255) as usize);
        for _ in 0..count {
            place.push((bits.take(self.id)?, code::decode(bits.take(u16::BITS)? as u16)));
        }
        Some(place)
    }

    /// Writes what is held to the file.
    fn spill(&mut self) -> Result<(), DistillError> {
        let bytes = std::mem::take(&mut self.bits).into_bytes();
        self.filed += bytes.len() as u64;
        let write = |file: &mut Option<File>, folder: &Path| -> std::io::Result<()> {
            if file.is_none() {
                std::fs::create_dir_all(folder)?;
                *file = Some(tempfile::tempfile_in(folder)?);
            }
            file.as_mut().map_or(Ok(()), |file| file.write_all(&bytes))
        };
        write(&mut self.file, &self.folder).map_err(DistillError::write(&self.folder))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_put_is_got(
            tokens in 1..70_000_usize,
            sequences in prop::collection::vec(prop::collection::vec(prop::collection::vec((any::<u32>(), any::<u16>()), 0..30), 0..9), 0..9),
            spilt in any::<bool>(),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let folder = dir.path().join("made");
            let mut lists = Lists::new(tokens, &folder);
            let named = |&(token, code): &(u32, u16)| (token % tokens as u32, code::decode(code));
            let sequences: Vec<Vec<Likeliest>> = sequences
                .iter()
                .map(|places| places.iter().map(|place| place.iter().map(named).collect()).collect())
                .collect();
            let mut at = Vec::new();
            for places in &sequences {
                at.push(lists.put(places).unwrap());
                if spilt {
                    lists.spill().unwrap();
                }
            }
            lists.end().unwrap();
            for (places, at) in sequences.iter().zip(at).rev() {
                prop_assert_eq!(&lists.get(at, places.len()).unwrap(), places);
            }
            // The file has no name.
            prop_assert!(!folder.exists() || std::fs::read_dir(&folder).unwrap().next().is_none());
        }
    }

    #[test]
    fn a_long_list_is_kept_too() {
        let mut lists = Lists::new(2000, Path::new("unused"));
        let long: Vec<Likeliest> =
            vec![(0..1000).map(|token| (token, code::decode(token as u16))).collect(), Vec::new()];
        let at = lists.put(&long).unwrap();
        lists.end().unwrap();
        assert_eq!(lists.get(at, 2).unwrap(), long);
    }
}
