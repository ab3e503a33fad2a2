//! Sealed files: closed segments as Parquet, and the signed list of them.
//!
//! `sealed.list` is the truth about what is sealed and what was deleted. A file counts from the moment that the list
//! names it, and is read only if its digest is the one that the list names. Whatever else lies in the folder under such
//! a name is left over from a crash, and so is a segment that the list has passed.

use std::collections::VecDeque;
use std::io::{self, BufReader, Read as _, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parquet::column::reader::ColumnReader;
use parquet::data_type::ByteArray;
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::reader::{ChunkReader, FileReader as _, Length, SerializedFileReader};
use parquet::file::writer::SerializedFileWriter;
use serde::{Deserialize, Serialize};

use anbiq_domain::{Digest, DigestBuilder, JournalId, Timestamp};

use crate::columns::{self, Row};
use crate::disk::{Disk, DiskFile, ReadAt, RealDisk, Stretch, append_all, read_whole, replace};
use crate::format::{segment_name, segment_number};
use crate::read::Segment;
use crate::tree::{self, Tree};
use crate::{Checkpoint, JournalError, PublicKey, SigningKey, checkpoint};

/// Rows of one group at most; a query skips whole groups.
pub(crate) const GROUP_ROWS: usize = 4096;

/// Bytes of the leaves of one group at most, besides the last: what a reader holds in memory.
pub(crate) const GROUP_BYTES: usize = 8 << 20;

/// Longest list that is read.
const LONGEST_LIST: u64 = 256 << 20;

/// A closed segment as a Parquet file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealedFile {
    /// Number of the segment that it was.
    pub segment: u32,
    /// Index of its first record.
    pub first: u64,
    /// How many records it holds.
    pub count: u64,
    /// Its size.
    pub bytes: u64,
    /// Of all its bytes.
    pub digest: Digest,
    /// When its last record happened.
    pub newest: Timestamp,
    /// Root of the tree up to its last record.
    pub root: Digest,
    /// Peaks of that tree, see [`Tree::peaks`].
    peaks: Vec<Digest>,
}

/// What was deleted, and what is kept of it: enough for every root and for every proof about later records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retained {
    /// When files were deleted last.
    pub at: Timestamp,
    /// The first record that is still there; all before it were deleted.
    pub from: u64,
    /// Number of the segment that it is in.
    pub segment: u32,
    /// Root of the tree over the deleted records.
    pub root: Digest,
    /// Peaks of that tree.
    peaks: Vec<Digest>,
    /// How many files were deleted so far.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The signed note over that root.
    pub checkpoint: String,
}

/// Which sealed files are kept; what is not set is no limit.
///
/// What goes is gone for every reader: accounts that were opened, terms that were accepted and coins that were committed
/// in a deleted file are no longer known from the journal. Keep as long as a gateway runs without a restart, which is one
/// epoch of coins, and as long as a case may reach back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Keep {
    /// Files whose last record is older than this are deleted, in milliseconds.
    pub age_ms: Option<u64>,
    /// The oldest files are deleted until no more than this is left, in bytes.
    pub bytes: Option<u64>,
}

/// `sealed.list`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct List {
    journal: JournalId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) retained: Option<Retained>,
    pub(crate) files: Vec<SealedFile>,
}

impl SealedFile {
    /// Its name: segment, first record and number of records.
    pub fn name(&self) -> String {
        format!("{:08}-{:012}-{:08}.parquet", self.segment, self.first, self.count)
    }

    /// The index after its last record.
    pub const fn end(&self) -> u64 {
        self.first + self.count
    }

    fn tree(&self) -> Option<Tree> {
        Tree::resume(self.end(), self.peaks.clone()).filter(|tree| tree.root() == self.root)
    }
}

impl Retained {
    fn tree(&self) -> Option<Tree> {
        Tree::resume(self.from, self.peaks.clone()).filter(|tree| tree.root() == self.root)
    }
}

impl List {
    /// The list of the journal `id`; empty where there is none.
    pub(crate) fn read(disk: &dyn Disk, dir: &Path, id: &JournalId, key: &PublicKey) -> Result<Self, JournalError> {
        let path = Self::path(dir);
        let bytes = match read_whole(disk, &path, LONGEST_LIST) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Self { journal: id.clone(), retained: None, files: Vec::new() });
            }
            Err(error) => return Err(JournalError::io("read", &path, error)),
        };
        Self::parse(&bytes, id, key).map_err(JournalError::BadList)
    }

    fn parse(bytes: &[u8], id: &JournalId, key: &PublicKey) -> Result<Self, &'static str> {
        let text = str::from_utf8(bytes).map_err(|_| "it is not text")?;
        let (body, signature) =
            text.strip_suffix('\n').and_then(|text| text.rsplit_once('\n')).ok_or("it has no signature")?;
        let mut signed = [0; 64];
        hex::decode_to_slice(signature, &mut signed).map_err(|_| "its last line is not a signature")?;
        if hex::encode(signed) != signature || !key.verify(signed_text(body).as_bytes(), &signed) {
            return Err("it is not as the journal's key signed it");
        }
        let list: Self = serde_json::from_str(body).map_err(|_| "it is not a list of files")?;
        if list.journal != *id {
            return Err("it is of another journal");
        }
        list.check(key)?;
        Ok(list)
    }

    /// Does one file follow the other, and is every root the root of its peaks?
    fn check(&self, key: &PublicKey) -> Result<(), &'static str> {
        let (mut segment, mut index) = (0, 0);
        if let Some(retained) = &self.retained {
            let signed =
                checkpoint::parse_and_verify(&retained.checkpoint, key).map_err(|_| "its root is not signed")?;
            let holds = signed.size == retained.from && signed.root == retained.root && signed.origin == self.journal;
            if !holds || retained.tree().is_none() {
                return Err("what it keeps of the deleted records does not fit their signed root");
            }
            (segment, index) = (retained.segment, retained.from);
        }
        for file in &self.files {
            if file.segment != segment || file.first != index || file.count == 0 || file.tree().is_none() {
                return Err("its files do not follow each other");
            }
            (segment, index) = (segment + 1, file.end());
        }
        Ok(())
    }

    fn write(&self, disk: &dyn Disk, dir: &Path, signer: &SigningKey) -> Result<(), JournalError> {
        let path = Self::path(dir);
        // Numbers, texts and lists of them always have a JSON form.
        let body = serde_json::to_string_pretty(self).unwrap_or_default();
        let signature = hex::encode(signer.sign(signed_text(&body).as_bytes()));
        let text = format!("{body}\n{signature}\n");
        replace(disk, dir, &path, text.as_bytes()).map_err(|error| JournalError::io("write", &path, error))
    }

    fn path(dir: &Path) -> PathBuf {
        dir.join("sealed.list")
    }

    /// The tree of the deleted records.
    pub(crate) fn gone(&self) -> Tree {
        self.retained.as_ref().and_then(Retained::tree).unwrap_or_default()
    }

    /// The tree up to the last sealed record.
    pub(crate) fn tree(&self) -> Tree {
        self.files.last().map_or_else(|| Some(self.gone()), SealedFile::tree).unwrap_or_default()
    }

    /// Number of the first segment that was not deleted.
    pub(crate) fn first_segment(&self) -> u32 {
        self.retained.as_ref().map_or(0, |retained| retained.segment)
    }

    /// Number of the first segment that is not sealed.
    pub(crate) fn next_segment(&self) -> u32 {
        self.files.last().map_or_else(|| self.first_segment(), |file| file.segment + 1)
    }

    /// The names in `dir` that a crash left behind: drafts, files that the list does not name, segments it has passed.
    pub(crate) fn leftovers(&self, disk: &dyn Disk, dir: &Path) -> Result<Vec<PathBuf>, JournalError> {
        let names = disk.list(dir).map_err(|error| JournalError::io("list", dir, error))?;
        let listed: Vec<String> = self.files.iter().map(SealedFile::name).collect();
        if let Some(missing) = listed.iter().find(|name| !names.contains(name)) {
            return Err(damaged(missing, 0, "the sealed file is missing"));
        }
        let is_left = |name: &&String| {
            name.ends_with(".new")
                || name.ends_with(".parquet") && !listed.contains(name)
                || segment_number(name).is_some_and(|number| number < self.next_segment())
        };
        Ok(names.iter().filter(is_left).map(|name| dir.join(name)).collect())
    }
}

fn signed_text(body: &str) -> String {
    format!("anbiq journal sealed files\n{body}")
}

/// Turns closed segments into sealed files, and deletes those.
#[derive(Debug)]
pub(crate) struct Sealer {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    id: JournalId,
    signer: SigningKey,
    list: List,
}

impl Sealer {
    pub(crate) fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        id: JournalId,
        signer: SigningKey,
    ) -> Result<Self, JournalError> {
        let list = List::read(&*disk, dir, &id, &signer.public())?;
        Ok(Self { disk, dir: dir.to_owned(), id, signer, list })
    }

    /// Seals the oldest segment, if its number is below `open`, the one that is written. `stop` is asked now and then.
    ///
    /// A crash anywhere leaves the segment, the sealed file or both: the file and its name are durable before the list
    /// names it, and the segment goes last.
    pub(crate) fn seal_next(&mut self, open: u32, stop: &dyn Fn() -> bool) -> Result<Option<SealedFile>, JournalError> {
        let number = self.list.next_segment();
        if number >= open {
            return Ok(None);
        }
        let draft = self.dir.join(format!("{number:08}.parquet.new"));
        let Some(file) = self.write_file(number, &draft, stop)? else { return Ok(None) };
        let path = self.dir.join(file.name());
        self.disk.rename(&draft, &path).map_err(|error| JournalError::io("create", &path, error))?;
        self.sync_dir()?;
        let mut list = self.list.clone();
        list.files.push(file.clone());
        list.write(&*self.disk, &self.dir, &self.signer)?;
        self.list = list;
        let segment = self.dir.join(segment_name(number));
        self.disk.remove(&segment).map_err(|error| JournalError::io("remove", &segment, error))?;
        self.sync_dir()?;
        Ok(Some(file))
    }

    /// The files that are to go; `signed` is how many records a signed checkpoint covers.
    pub(crate) fn superfluous(&self, keep: &Keep, signed: u64, now: Timestamp) -> Vec<SealedFile> {
        let mut left: u64 = self.list.files.iter().map(|file| file.bytes).sum();
        let goes = |file: &&SealedFile| {
            let age = u64::try_from(now.since(file.newest)).unwrap_or_default();
            let goes = keep.age_ms.is_some_and(|most| age > most) || keep.bytes.is_some_and(|most| left > most);
            left -= file.bytes;
            goes && file.end() <= signed
        };
        self.list.files.iter().take_while(goes).cloned().collect()
    }

    /// Deletes the files that are to go. What is kept of them is signed and durable before the first of them goes.
    pub(crate) fn prune(&mut self, keep: &Keep, signed: u64, now: Timestamp) -> Result<Vec<SealedFile>, JournalError> {
        let gone = self.superfluous(keep, signed, now);
        let Some(last) = gone.last() else { return Ok(gone) };
        let before = self.list.retained.as_ref();
        let retained = Retained {
            at: now,
            from: last.end(),
            segment: last.segment + 1,
            root: last.root,
            peaks: last.peaks.clone(),
            files: before.map_or(0, |before| before.files) + gone.len() as u64,
            bytes: before.map_or(0, |before| before.bytes) + gone.iter().map(|file| file.bytes).sum::<u64>(),
            checkpoint: Checkpoint::sign(self.id.clone(), last.end(), last.root, &self.signer).to_note(),
        };
        let files = self.list.files.iter().skip(gone.len()).cloned().collect();
        let list = List { journal: self.id.clone(), retained: Some(retained), files };
        list.write(&*self.disk, &self.dir, &self.signer)?;
        self.list = list;
        for file in &gone {
            let path = self.dir.join(file.name());
            self.disk.remove(&path).map_err(|error| JournalError::io("remove", &path, error))?;
        }
        self.sync_dir()?;
        Ok(gone)
    }

    fn write_file(
        &self,
        number: u32,
        draft: &Path,
        stop: &dyn Fn() -> bool,
    ) -> Result<Option<SealedFile>, JournalError> {
        let before = self.list.tree();
        let name = segment_name(number);
        let mut segment = Segment::open(&*self.disk, &self.dir, number)?;
        let file = self.disk.create(draft).map_err(|error| JournalError::io("create", draft, error))?;
        let mut output = Output { file, bytes: 0, hasher: DigestBuilder::default() };
        let failed = |error: ParquetError| JournalError::io("write", draft, io_error(error));
        let (schema, properties) = (columns::schema().map_err(failed)?, columns::properties().map_err(failed)?);
        let mut writer = SerializedFileWriter::new(&mut output, schema, Arc::new(properties)).map_err(failed)?;
        let (mut tree, mut newest, mut rows, mut bytes) = (before.clone(), Timestamp::default(), Vec::new(), 0);
        loop {
            let frame = segment.next_whole(tree.size())?;
            if !rows.is_empty() && (frame.is_none() || rows.len() >= GROUP_ROWS || bytes >= GROUP_BYTES) {
                if stop() {
                    return Ok(None);
                }
                columns::write(writer.next_row_group().map_err(failed)?, &rows).map_err(failed)?;
                (rows, bytes) = (Vec::new(), 0);
            }
            let Some(payload) = frame else { break };
            tree.push(tree::leaf_hash(&payload));
            bytes += payload.len();
            let index = tree.size() - 1;
            let entry = serde_json::from_slice(&payload).map_err(|error| {
                damaged(&name, index, &format!("its checksum holds but it is not an entry: {error}"))
            })?;
            let row = Row { index, payload, entry };
            newest = newest.max(row.entry.at());
            rows.push(row);
        }
        for (key, value) in self.metadata(number, &before, &tree) {
            writer.append_key_value_metadata(KeyValue::new(key.to_owned(), value));
        }
        writer.close().map_err(failed)?;
        let Output { mut file, bytes, hasher } = output;
        file.sync().map_err(|error| JournalError::io("sync", draft, error))?;
        let (first, count) = (before.size(), tree.size() - before.size());
        let (root, peaks) = (tree.root(), tree.peaks().to_vec());
        Ok(Some(SealedFile { segment: number, first, count, bytes, digest: hasher.finish(), newest, root, peaks }))
    }

    /// What makes a sealed file speak for itself.
    fn metadata(&self, number: u32, before: &Tree, after: &Tree) -> [(&'static str, String); 7] {
        let peaks: Vec<String> = before.peaks().iter().map(ToString::to_string).collect();
        let checkpoint = Checkpoint::sign(self.id.clone(), after.size(), after.root(), &self.signer);
        [
            ("anbiq.journal", self.id.to_string()),
            ("anbiq.segment", number.to_string()),
            ("anbiq.first", before.size().to_string()),
            ("anbiq.count", (after.size() - before.size()).to_string()),
            ("anbiq.peaks", peaks.join(" ")),
            ("anbiq.root", after.root().to_string()),
            ("anbiq.checkpoint", checkpoint.to_note()),
        ]
    }

    fn sync_dir(&self) -> Result<(), JournalError> {
        self.disk.sync_dir(&self.dir).map_err(|error| JournalError::io("sync", &self.dir, error))
    }
}

/// A sealed file as it grows.
struct Output {
    file: Box<dyn DiskFile>,
    bytes: u64,
    hasher: DigestBuilder,
}

impl Write for &mut Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        append_all(&mut *self.file, bytes)?;
        self.bytes += bytes.len() as u64;
        self.hasher.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The leaves of one sealed file, a row group in memory at a time.
pub(crate) struct Leaves {
    reader: SerializedFileReader<Source>,
    next_group: usize,
    rows: VecDeque<ByteArray>,
}

impl std::fmt::Debug for Leaves {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Leaves").field("next_group", &self.next_group).finish_non_exhaustive()
    }
}

impl Leaves {
    /// Opens `file` after comparing all its bytes with its digest: no decoder sees what nobody vouches for.
    pub(crate) fn open(disk: &dyn Disk, dir: &Path, file: &SealedFile) -> Result<Self, JournalError> {
        let source = checked(disk, dir, file)?;
        Self::of(source).map_err(|error| damaged(&file.name(), file.first, &error.to_string()))
    }

    fn of(source: Source) -> parquet::errors::Result<Self> {
        Ok(Self { reader: SerializedFileReader::new(source)?, next_group: 0, rows: VecDeque::new() })
    }

    pub(crate) fn next(&mut self) -> parquet::errors::Result<Option<Vec<u8>>> {
        while self.rows.is_empty() {
            if self.next_group == self.reader.num_row_groups() {
                return Ok(None);
            }
            let group = self.reader.get_row_group(self.next_group)?;
            self.next_group += 1;
            let count = usize::try_from(group.metadata().num_rows()).unwrap_or_default();
            let ColumnReader::ByteArrayColumnReader(mut column) = group.get_column_reader(0)? else {
                return Err(ParquetError::General("its first column is not the leaf".to_owned()));
            };
            let mut rows = Vec::new();
            column.read_records(count, None, None, &mut rows)?;
            self.rows = rows.into();
        }
        Ok(self.rows.pop_front().map(|row| row.data().to_vec()))
    }

    fn metadata(&self, key: &str) -> Option<String> {
        let pairs = self.reader.metadata().file_metadata().key_value_metadata()?;
        pairs.iter().find(|pair| pair.key == key)?.value.clone()
    }
}

/// Opens `file` after comparing all its bytes with its digest.
pub(crate) fn checked(disk: &dyn Disk, dir: &Path, file: &SealedFile) -> Result<Source, JournalError> {
    let path = dir.join(file.name());
    let source = Source::open(disk, &path)?;
    let mut hasher = DigestBuilder::default();
    let mut piece = vec![0; 1 << 16];
    let mut whole = Stretch::new(Arc::clone(&source.file), 0, source.length);
    loop {
        let read = whole.read(&mut piece).map_err(|error| JournalError::io("read", &path, error))?;
        if read == 0 {
            break;
        }
        hasher.update(&piece[..read]);
    }
    if source.length != file.bytes || hasher.finish() != file.digest {
        return Err(damaged(&file.name(), file.first, "its bytes are not those that were signed"));
    }
    Ok(source)
}

/// A sealed file that was checked by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileReport {
    /// Which journal it is of.
    pub journal: JournalId,
    /// Index of its first record.
    pub first: u64,
    /// How many records it holds.
    pub count: u64,
    /// Root of the tree up to its last record, signed in the file.
    pub root: Digest,
}

/// Checks the sealed file at `path` by itself: that its leaves, after the tree that it says was before them, have the
/// root that `key` signed.
///
/// # Errors
/// The file cannot be read, or is not as it was signed.
pub fn verify_file(path: &Path, key: &PublicKey) -> Result<FileReport, JournalError> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let bad = |what: &str| damaged(&name, 0, what);
    let unreadable = |error: ParquetError| bad(&error.to_string());
    let mut leaves = Leaves::of(Source::open(&RealDisk, path)?).map_err(unreadable)?;
    let note = leaves.metadata("anbiq.checkpoint").ok_or_else(|| bad("it holds no checkpoint"))?;
    let checkpoint = checkpoint::parse_and_verify(&note, key)?;
    let first = leaves.metadata("anbiq.first").and_then(|text| text.parse().ok());
    let peaks =
        leaves.metadata("anbiq.peaks").and_then(|text| text.split_whitespace().map(|peak| peak.parse().ok()).collect());
    let tree = first.zip(peaks).and_then(|(first, peaks)| Tree::resume(first, peaks));
    let mut tree = tree.ok_or_else(|| bad("it does not say what was before it"))?;
    let first = tree.size();
    while let Some(leaf) = leaves.next().map_err(unreadable)? {
        tree.push(tree::leaf_hash(&leaf));
    }
    if (tree.size(), tree.root()) != (checkpoint.size, checkpoint.root) {
        return Err(bad("its records are not those that were signed"));
    }
    Ok(FileReport { journal: checkpoint.origin, first, count: tree.size() - first, root: tree.root() })
}

pub(crate) fn damaged(file: &str, index: u64, what: &str) -> JournalError {
    JournalError::Damaged { place: crate::Place { file: file.to_owned(), offset: 0, index }, what: what.to_owned() }
}

pub(crate) fn io_error(error: ParquetError) -> io::Error {
    match error {
        ParquetError::External(source) => match source.downcast::<io::Error>() {
            Ok(error) => *error,
            Err(other) => io::Error::other(other),
        },
        other => io::Error::other(other),
    }
}

/// A file as the decoder reads it.
#[derive(Debug)]
pub(crate) struct Source {
    file: Arc<dyn ReadAt>,
    length: u64,
}

impl Source {
    fn open(disk: &dyn Disk, path: &Path) -> Result<Self, JournalError> {
        let open = || {
            let file = disk.read(path)?;
            let length = file.length()?;
            Ok(Self { file, length })
        };
        open().map_err(|error| JournalError::io("read", path, error))
    }
}

impl Length for Source {
    fn len(&self) -> u64 {
        self.length
    }
}

impl ChunkReader for Source {
    type T = BufReader<Stretch>;

    fn get_read(&self, start: u64) -> parquet::errors::Result<Self::T> {
        Ok(BufReader::new(Stretch::new(Arc::clone(&self.file), start, self.length)))
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        if self.length.saturating_sub(start) < length as u64 {
            return Err(ParquetError::EOF("it is shorter than it says".to_owned()));
        }
        let mut bytes = vec![0; length];
        Stretch::new(Arc::clone(&self.file), start, self.length).read_exact(&mut bytes)?;
        Ok(bytes.into())
    }
}
