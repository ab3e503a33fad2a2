//! Numbers of any width, one after the other; the lowest bit first.

/// Writes numbers.
#[derive(Debug, Default)]
pub(crate) struct BitWriter {
    bytes: Vec<u8>,
    /// Bits that do not make a byte yet.
    rest: u64,
    count: u32,
}

/// Reads numbers.
#[derive(Debug)]
pub(crate) struct BitReader<'bytes> {
    bytes: &'bytes [u8],
    /// The next bit.
    at: usize,
}

/// The bits that `number` needs; none for 0.
pub(crate) const fn width(number: u32) -> u32 {
    u32::BITS - number.leading_zeros()
}

impl BitWriter {
    /// Adds the lowest `width` bits of `number`, 32 at most.
    pub(crate) fn put(&mut self, number: u32, width: u32) {
        self.rest |= u64::from(number) << self.count;
        self.count += width;
        while self.count >= 8 {
            self.bytes.push(self.rest as u8);
            self.rest >>= 8;
            self.count -= 8;
        }
    }

    /// Fills the last byte with zeros: what comes next begins with a byte. Says where that is.
    pub(crate) fn align(&mut self) -> usize {
        self.put(0, (8 - self.count) % 8);
        self.bytes.len()
    }

    /// The bytes so far; what does not fill one is left out.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

impl<'bytes> BitReader<'bytes> {
    pub(crate) fn new(bytes: &'bytes [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The next `width` bits, 32 at most; `None` where there are not so many.
    pub(crate) fn take(&mut self, width: u32) -> Option<u32> {
        let end = self.at.checked_add(width as usize)?;
        if end > self.bytes.len().checked_mul(8)? {
            return None;
        }
        let from = self.bytes.get(self.at / 8..)?;
        let word = match from.first_chunk() {
            Some(word) => u64::from_le_bytes(*word),
            None => from.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)),
        };
        let number = word >> (self.at % 8) & ((1 << width) - 1);
        self.at = end;
        u32::try_from(number).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_put_is_taken(numbers in prop::collection::vec((any::<u32>(), 0..=32_u32, any::<bool>()), 0..60)) {
            let kept = |number: u32, width: u32| (u64::from(number) & ((1 << width) - 1)) as u32;
            let mut writer = BitWriter::default();
            let mut begins = vec![(0, 0)];
            for (place, &(number, width, aligned)) in numbers.iter().enumerate() {
                if aligned {
                    begins.push((place, writer.align()));
                }
                writer.put(kept(number, width), width);
            }
            writer.align();
            let bytes = writer.into_bytes();
            for (first, begin) in begins {
                let mut reader = BitReader::new(&bytes[begin..]);
                for (place, &(number, width, aligned)) in numbers.iter().enumerate().skip(first) {
                    if aligned && place > first {
                        break;
                    }
                    prop_assert_eq!(reader.take(width), Some(kept(number, width)));
                }
            }
        }

        #[test]
        fn nothing_is_read_beyond_the_end(bytes in prop::collection::vec(any::<u8>(), 0..20), widths in prop::collection::vec(0..=32_u32, 0..20)) {
            let (mut reader, mut left) = (BitReader::new(&bytes), bytes.len() * 8);
            for width in widths {
                let fits = width as usize <= left;
                prop_assert_eq!(reader.take(width).is_some(), fits);
                left -= if fits { width as usize } else { 0 };
            }
        }
    }
}
