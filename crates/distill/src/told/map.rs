//! A file as memory.
#![expect(unsafe_code, reason = "memory that is a file changes when the file does")]

use std::fs::File;
use std::io;

use memmap2::Mmap;

/// The bytes of `file`, read from the disk as they are looked at, and given back by the system when it needs the memory.
///
/// Nobody may write to the file or cut it while it is mapped: bytes would change under whoever reads them, and a read beyond the new end
/// would end the program. That holds of the files that this crate maps, and nothing else is mapped: a file of shards is renamed to its name when it is
/// whole and named by its digest, is replaced by renaming and never written to again; a set's own file has no name when it is mapped. What reads the
/// bytes takes them as those of a stranger: a disk that fails, or somebody who writes in spite of it, gives other numbers or an error.
pub(crate) fn map(file: &File) -> io::Result<Mmap> {
    // SAFETY: see above; a mapping of no bytes is made by the crate itself.
    unsafe { Mmap::map(file) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_stays_readable_when_its_name_is_gone_or_another_files() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("file"), dir.path().join("other"));
        std::fs::write(&path, b"one").unwrap();
        let one = map(&File::open(&path).unwrap()).unwrap();
        std::fs::write(&other, b"other").unwrap();
        std::fs::rename(&other, &path).unwrap();
        let two = map(&File::open(&path).unwrap()).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!((&one[..], &two[..]), (&b"one"[..], &b"other"[..]));
        std::fs::write(&path, b"").unwrap();
        assert!(map(&File::open(&path).unwrap()).unwrap().is_empty());
    }
}
