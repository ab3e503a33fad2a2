//! What a journal asks of the file system: few operations, so that a test can fail, tear and crash each of them.

use std::fmt::Debug;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// The operations on a folder.
pub(crate) trait Disk: Debug + Send + Sync {
    /// The folder `dir` and those above it, where they are missing.
    fn make_dir(&self, dir: &Path) -> io::Result<()>;
    /// The names in `dir`, in no order.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// The file at `path`, to be read.
    fn read(&self, path: &Path) -> io::Result<Arc<dyn ReadAt>>;
    /// An empty file at `path`, whatever was there.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// The file at `path`, to be appended to.
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Writes `bytes` over those from `offset` on; not yet durable.
    fn overwrite(&self, path: &Path, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Gives the file at `from` the name `to`, in one step, whatever had that name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Takes the file at `path` away.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in `dir` durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Keeps others from writing beside us, for as long as what is returned lives.
    fn lock(&self, path: &Path) -> Result<Box<dyn Lock>, TryLockError>;
}

/// The operations on a file that is written.
pub(crate) trait DiskFile: Debug + Send {
    /// Appends some of `bytes` and says how many.
    fn append(&mut self, bytes: &[u8]) -> io::Result<usize>;
    /// Makes everything that was appended, and the length, durable.
    fn sync(&mut self) -> io::Result<()>;
    /// Cuts the file off after `length` bytes.
    fn truncate(&mut self, length: u64) -> io::Result<()>;
}

/// A file that is read, by anybody at any place at once.
pub(crate) trait ReadAt: Debug + Send + Sync {
    /// Reads some bytes from `offset` on and says how many; 0 only at the end.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
    /// Its length at this moment.
    fn length(&self) -> io::Result<u64>;
}

/// A held lock; dropping it lets go.
pub(crate) trait Lock: Debug + Send + Sync {}

/// Appends all of `bytes`.
pub(crate) fn append_all(file: &mut dyn DiskFile, bytes: &[u8]) -> io::Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        match file.append(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => rest = rest.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Puts `bytes` at `path` so that they are there as a whole or not at all, whatever fails and when. Durable when it
/// returns; `path` and its draft lie in `dir`.
pub(crate) fn replace(disk: &dyn Disk, dir: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let draft = path.with_added_extension("new");
    let mut file = disk.create(&draft)?;
    append_all(&mut *file, bytes)?;
    file.sync()?;
    drop(file);
    disk.rename(&draft, path)?;
    disk.sync_dir(dir)
}

/// All of the file at `path`; an error where it is longer than `most`.
pub(crate) fn read_whole(disk: &dyn Disk, path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let file = disk.read(path)?;
    let mut bytes = Vec::new();
    Stretch::new(file, 0, most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(bytes) }
}

/// A stretch of a file, read from its beginning to its end.
#[derive(Debug)]
pub(crate) struct Stretch {
    file: Arc<dyn ReadAt>,
    position: u64,
    end: u64,
}

impl Stretch {
    pub(crate) fn new(file: Arc<dyn ReadAt>, position: u64, end: u64) -> Self {
        Self { file, position, end }
    }
}

impl Read for Stretch {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(self.position)).unwrap_or(usize::MAX);
        let most = buffer.len().min(left);
        if most == 0 {
            return Ok(0);
        }
        let read = self.file.read_at(self.position, &mut buffer[..most])?;
        self.position += read as u64;
        Ok(read)
    }
}

/// The operating system's file system.
#[derive(Debug)]
pub(crate) struct RealDisk;

/// An open file and its place.
#[derive(Debug)]
struct RealReader(Mutex<File>);

impl Disk for RealDisk {
    fn make_dir(&self, dir: &Path) -> io::Result<()> {
        std::fs::create_dir_all(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let names = std::fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name().into_string().ok()));
        // What is not Unicode is not ours.
        names.filter_map(Result::transpose).collect()
    }

    fn read(&self, path: &Path) -> io::Result<Arc<dyn ReadAt>> {
        Ok(Arc::new(RealReader(Mutex::new(File::open(path)?))))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        // `append` and `truncate` exclude each other when opening.
        File::create(path)?;
        self.open(path)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(OpenOptions::new().append(true).open(path)?))
    }

    fn overwrite(&self, path: &Path, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).open(path)?;
        file.seek(SeekFrom::Start(offset))?;
        file.write_all(bytes)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        // Only Unix can and must sync a folder.
        if cfg!(unix) { File::open(dir)?.sync_all() } else { Ok(()) }
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn Lock>, TryLockError> {
        let file = File::options().create(true).truncate(false).write(true).open(path);
        let file = file.map_err(TryLockError::Error)?;
        file.try_lock()?;
        Ok(Box::new(file))
    }
}

impl Lock for File {}

impl ReadAt for RealReader {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        // Every read says its place, so it does not matter where a holder that panicked left off.
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(offset))?;
        file.read(buffer)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).metadata()?.len())
    }
}

impl DiskFile for File {
    fn append(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        // The length is part of what fdatasync makes durable where it is needed to read the data back.
        self.sync_data()
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }
}
