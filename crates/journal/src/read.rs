use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use anbiq_domain::{Digest, Entry, Exchange, JournalId, Timestamp};

use crate::disk::{Disk, ReadAt, RealDisk, Stretch};
use crate::format::{
    ENTRY_START, FRAME_HEADER, Header, MAGIC, checkpoints_path, end_of_segments, read_frame_header, segment_name,
};
use crate::sealed::{Leaves, List, Retained, SealedFile, damaged};
use crate::tree::Tree;
use crate::{Checkpoint, JournalError, Place, PublicKey, checkpoint, tree};

/// Reads a journal, also while it is being written.
#[derive(Debug, Clone)]
pub struct Reader {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    header: Header,
}

/// One record of a journal.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Its number, counted from 0.
    pub index: u64,
    /// The bytes that are hashed.
    pub payload: Vec<u8>,
    /// What they say.
    pub entry: Entry,
    /// [`tree::leaf_hash`] of the payload.
    pub leaf: Digest,
    /// Number of its segment, sealed or not.
    pub segment: u32,
    /// Where in the segment its frame begins; in a sealed file its row.
    pub offset: u64,
}

/// A place between two records, from which reading can go on later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Bookmark {
    /// Records before it, those that were deleted included.
    pub index: u64,
    /// The segment that it is in, sealed or not.
    pub segment: u32,
    /// Where in the segment, in bytes; 0 for its beginning.
    pub offset: u64,
}

/// The unfinished end of a file: what a crash leaves of a write that nobody was told had succeeded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Torn {
    /// Name of the file.
    pub file: String,
    /// Where the whole part ends.
    pub offset: u64,
    /// How many bytes follow it.
    pub bytes: u64,
    /// What they are not.
    pub why: &'static str,
}

impl Reader {
    /// Opens the journal in `dir` for reading; no lock is taken.
    pub fn open(dir: &Path) -> Result<Self, JournalError> {
        Self::open_on(Arc::new(RealDisk), dir)
    }

    pub(crate) fn open_on(disk: Arc<dyn Disk>, dir: &Path) -> Result<Self, JournalError> {
        let header = Header::read(&*disk, dir)?;
        Ok(Self { disk, dir: dir.to_owned(), header })
    }

    /// The journal's id.
    pub fn id(&self) -> &JournalId {
        &self.header.id
    }

    /// The key that its checkpoints are signed with.
    pub fn public_key(&self) -> PublicKey {
        self.header.public_key
    }

    /// When the journal was created.
    pub fn created(&self) -> Timestamp {
        self.header.created
    }

    /// The records in order, sealed or not, one (of sealed files some thousand) in memory at a time. They begin after
    /// those that were deleted, see [`Entries::before`]. A torn tail ends them, see [`Entries::torn`]; damage is an error
    /// after which nothing comes.
    pub fn entries(&self) -> Result<Entries, JournalError> {
        Ok(Entries { frames: Frames::open(&self.disk, &self.dir, &self.header, Part::Kept)? })
    }

    /// The same from `bookmark` on, at whatever cost that part of the journal has: what is before is not read again, except in a
    /// sealed file that the bookmark is in.
    ///
    /// # Errors
    ///
    /// As [`Reader::entries`]; also where the journal does not reach as far, or records after the bookmark were deleted.
    pub fn entries_from(&self, bookmark: Bookmark) -> Result<Entries, JournalError> {
        let mut frames = Frames::open(&self.disk, &self.dir, &self.header, Part::Kept)?;
        frames.go_to(bookmark)?;
        Ok(Entries { frames })
    }

    /// The sealed files, oldest first.
    pub fn sealed(&self) -> Result<Vec<SealedFile>, JournalError> {
        Ok(self.list()?.files)
    }

    /// What was deleted, and what is kept of it; `None` where nothing was.
    pub fn retained(&self) -> Result<Option<Retained>, JournalError> {
        Ok(self.list()?.retained)
    }

    pub(crate) fn disk(&self) -> &dyn Disk {
        &*self.disk
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn list(&self) -> Result<List, JournalError> {
        List::read(&*self.disk, &self.dir, &self.header.id, &self.header.public_key)
    }

    /// The last checkpoint, its signature checked; `None` where there is none yet.
    pub fn last_checkpoint(&self) -> Result<Option<Checkpoint>, JournalError> {
        let mut last = None;
        for checkpoint in Checkpoints::open(&*self.disk, &self.dir, &self.header)? {
            last = Some(checkpoint?);
        }
        Ok(last)
    }
}

/// Iterator over the records of a journal.
#[derive(Debug)]
pub struct Entries {
    frames: Frames,
}

impl Entries {
    /// The tree of the records that were deleted: with [`crate::tree::Levels::after`] it gives the proofs of the others.
    pub fn before(&self) -> &Tree {
        &self.frames.start
    }

    /// The place after the last record that was given out.
    pub fn bookmark(&self) -> Bookmark {
        let Frames { index, next_segment, current, file, .. } = &self.frames;
        let (segment, offset) = match (file, current) {
            (Some(file), _) => (file.sealed.segment, 0),
            (None, Some(segment)) => (segment.number, segment.offset),
            (None, None) => (*next_segment, 0),
        };
        Bookmark { index: *index, segment, offset }
    }

    /// The torn tail that ended the iteration, if one did.
    pub fn torn(&self) -> Option<&Torn> {
        self.frames.torn.as_ref()
    }
}

impl Iterator for Entries {
    type Item = Result<Record, JournalError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.frames.next().map(|frame| frame?.into_record())
    }
}

/// A record whose checksum holds, not yet read as an entry.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) index: u64,
    pub(crate) payload: Vec<u8>,
    pub(crate) file: Arc<str>,
    pub(crate) segment: u32,
    pub(crate) offset: u64,
}

impl Frame {
    pub(crate) fn entry(&self) -> Result<Entry, JournalError> {
        parse(&self.payload).map_err(|error| JournalError::Damaged {
            place: Place { file: self.file.to_string(), offset: self.offset, index: self.index },
            what: format!("its checksum holds but it is not an entry: {error}"),
        })
    }

    pub(crate) fn into_record(self) -> Result<Record, JournalError> {
        let (entry, leaf) = (self.entry()?, tree::leaf_hash(&self.payload));
        Ok(Record { index: self.index, payload: self.payload, entry, leaf, segment: self.segment, offset: self.offset })
    }
}

/// An entry. Nearly all are exchanges, which say so at their beginning: these are read as what they are, which takes half as long as to
/// find out first what an entry is.
fn parse(payload: &[u8]) -> serde_json::Result<Entry> {
    if payload.starts_with(br#"{"entry":"exchange","#) {
        return serde_json::from_slice::<Box<Exchange>>(payload).map(Entry::Exchange);
    }
    serde_json::from_slice(payload)
}

/// The end of what is whole in the last segment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct End {
    pub(crate) segment: u32,
    /// How much of it is whole.
    pub(crate) length: u64,
    /// Where its last group begins; 0 where there is none. All before it was synced before it was written.
    pub(crate) group: u64,
}

/// Which part of a journal is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// Everything that was not deleted.
    Kept,
    /// The segments only.
    Unsealed,
}

/// Streams the frames of sealed files and segments.
#[derive(Debug)]
pub(crate) struct Frames {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    header: Header,
    pub(crate) list: List,
    /// The tree before the first frame.
    pub(crate) start: Tree,
    /// The number after the last segment's.
    pub(crate) segments: u32,
    next_segment: u32,
    file: Option<OpenFile>,
    current: Option<Segment>,
    index: u64,
    done: bool,
    pub(crate) torn: Option<Torn>,
}

/// A sealed file that is being read.
#[derive(Debug)]
struct OpenFile {
    sealed: SealedFile,
    name: Arc<str>,
    leaves: Leaves,
}

/// A segment that is being read.
#[derive(Debug)]
pub(crate) struct Segment {
    number: u32,
    name: Arc<str>,
    path: PathBuf,
    file: Arc<dyn ReadAt>,
    /// Ends where the file ended when it was opened, so that a writer at work cannot confuse us.
    reader: BufReader<Stretch>,
    length: u64,
    offset: u64,
    group: u64,
    /// Why what is at `offset` is not a frame.
    bad: Option<&'static str>,
}

/// Why a frame is not one.
struct Bad(&'static str);

impl Frames {
    pub(crate) fn open(disk: &Arc<dyn Disk>, dir: &Path, header: &Header, part: Part) -> Result<Self, JournalError> {
        let (list, segments) = listed(&**disk, dir, header)?;
        let (start, next_segment) = match part {
            Part::Kept => (list.gone(), list.first_segment()),
            Part::Unsealed => (list.tree(), list.next_segment()),
        };
        Ok(Self {
            disk: Arc::clone(disk),
            dir: dir.to_owned(),
            header: header.clone(),
            list,
            index: start.size(),
            start,
            segments,
            next_segment,
            file: None,
            current: None,
            done: false,
            torn: None,
        })
    }

    /// Where a writer goes on.
    pub(crate) fn end(&self) -> Option<End> {
        let end = |segment: &Segment| End { segment: segment.number, length: segment.offset, group: segment.group };
        self.current.as_ref().map(end)
    }

    /// Passes over all that is before `bookmark`.
    fn go_to(&mut self, bookmark: Bookmark) -> Result<(), JournalError> {
        let Bookmark { index, segment, offset } = bookmark;
        let name = segment_name(segment);
        if index < self.index || segment < self.next_segment {
            return Err(damaged(&name, index, "records that were not read yet are deleted"));
        }
        if let Some(sealed) = self.list.files.iter().find(|file| file.segment == segment) {
            (self.index, self.next_segment) = (sealed.first, segment);
            while self.index < index {
                if self.step()?.is_none() {
                    return Err(damaged(&name, index, "the journal does not reach so far"));
                }
            }
            return Ok(());
        }
        (self.index, self.next_segment) = (index, segment);
        if offset > 0 {
            let mut current = Segment::open(&*self.disk, &self.dir, segment)?;
            if offset > current.length || current.offset == 0 {
                return Err(current.damaged(index, "the journal does not reach so far"));
            }
            current.offset = offset;
            let rest = Stretch::new(Arc::clone(&current.file), offset, current.length);
            current.reader = BufReader::with_capacity(1 << 16, rest);
            self.current = Some(current);
            self.next_segment += 1;
        }
        Ok(())
    }

    fn step(&mut self) -> Result<Option<Frame>, JournalError> {
        loop {
            if let Some(frame) = self.sealed_frame()? {
                return Ok(Some(frame));
            }
            if let Some(segment) = self.current.as_mut().filter(|segment| segment.offset < segment.length) {
                let (number, offset, file) = (segment.number, segment.offset, Arc::clone(&segment.name));
                let Some(payload) = segment.next()? else { return self.end_at() };
                let index = self.index;
                self.index += 1;
                return Ok(Some(Frame { index, payload, file, segment: number, offset }));
            }
            if let Some(sealed) = self.list.files.iter().find(|file| file.segment == self.next_segment) {
                self.current = None;
                if sealed.first != self.index {
                    return Err(damaged(&sealed.name(), self.index, "it does not begin where the one before ends"));
                }
                let leaves = Leaves::open(&*self.disk, &self.dir, sealed)?;
                self.file = Some(OpenFile { sealed: sealed.clone(), name: sealed.name().into(), leaves });
                self.next_segment += 1;
            } else if self.next_segment >= self.segments {
                return Ok(None);
            } else if !self.open_next()? {
                return self.end_at();
            }
        }
    }

    fn sealed_frame(&mut self) -> Result<Option<Frame>, JournalError> {
        let Some(file) = &mut self.file else { return Ok(None) };
        let unreadable = |error: parquet::errors::ParquetError| damaged(&file.name, self.index, &error.to_string());
        match file.leaves.next().map_err(unreadable)? {
            Some(payload) => {
                let index = self.index;
                self.index += 1;
                let (segment, offset) = (file.sealed.segment, index - file.sealed.first);
                Ok(Some(Frame { index, payload, file: Arc::clone(&file.name), segment, offset }))
            }
            None if self.index == file.sealed.end() => {
                self.file = None;
                Ok(None)
            }
            None => Err(damaged(&file.name, self.index, "it holds fewer records than it says")),
        }
    }

    /// Opens the next segment; true if it begins as one does.
    fn open_next(&mut self) -> Result<bool, JournalError> {
        match Segment::open(&*self.disk, &self.dir, self.next_segment) {
            Ok(segment) => {
                let good = segment.offset > 0;
                self.current = Some(segment);
                self.next_segment += 1;
                Ok(good)
            }
            // A writer at work may have sealed it since we looked.
            Err(error @ JournalError::Io { .. }) => {
                let (list, segments) = listed(&*self.disk, &self.dir, &self.header)?;
                let sealed = list.files.iter().any(|file| file.segment == self.next_segment);
                (self.list, self.segments) = (list, segments);
                if sealed { Ok(true) } else { Err(error) }
            }
            Err(error) => Err(error),
        }
    }

    /// Is what begins here a torn tail or damage? Torn, if it is in the last segment and no later group follows it: the
    /// writer writes one group at a time, so whatever is followed by another group was whole once. Within one group a
    /// later record may have reached the disk before an earlier one.
    fn end_at(&mut self) -> Result<Option<Frame>, JournalError> {
        let Some(segment) = &self.current else { return Ok(None) };
        let why = segment.bad.unwrap_or("it does not begin as a segment does");
        let last = segment.number + 1 == self.segments;
        if !last || segment.followed_by_a_group().map_err(|error| JournalError::io("read", &segment.path, error))? {
            return Err(segment.damaged(self.index, &format!("{why}, and more records follow it")));
        }
        let file = segment.name.to_string();
        self.torn = Some(Torn { file, offset: segment.offset, bytes: segment.length - segment.offset, why });
        Ok(None)
    }
}

/// What is sealed, and the number after the last segment's.
fn listed(disk: &dyn Disk, dir: &Path, header: &Header) -> Result<(List, u32), JournalError> {
    // A writer at work may seal a segment, so that it is gone, after the list was read and before the folder is.
    let mut tries = 3;
    loop {
        let list = List::read(disk, dir, &header.id, &header.public_key)?;
        match end_of_segments(disk, dir, list.next_segment()) {
            Err(JournalError::Damaged { .. }) if tries > 0 => tries -= 1,
            end => return end.map(|end| (list, end)),
        }
    }
}

impl Iterator for Frames {
    type Item = Result<Frame, JournalError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let item = self.step().transpose();
        self.done = !matches!(item, Some(Ok(_)));
        item
    }
}

impl Segment {
    /// Opens a segment; its offset is 0 where it does not begin as one does.
    pub(crate) fn open(disk: &dyn Disk, dir: &Path, number: u32) -> Result<Self, JournalError> {
        let name = segment_name(number);
        let path = dir.join(&name);
        let open = || -> std::io::Result<Self> {
            let file = disk.read(&path)?;
            let length = file.length()?;
            let mut reader = BufReader::with_capacity(1 << 16, Stretch::new(Arc::clone(&file), 0, length));
            let mut magic = [0; MAGIC.len()];
            let whole = length >= MAGIC.len() as u64;
            if whole {
                reader.read_exact(&mut magic)?;
            }
            let offset = if whole && magic == *MAGIC { MAGIC.len() as u64 } else { 0 };
            let (name, path) = (name.as_str().into(), path.clone());
            Ok(Self { number, name, path, file, reader, length, offset, group: 0, bad: None })
        };
        open().map_err(|error| JournalError::io("read", &path, error))
    }

    /// The next payload; `None` at the end, and where what comes is not whole, which `bad` then says.
    fn next(&mut self) -> Result<Option<Vec<u8>>, JournalError> {
        if self.offset == self.length {
            return Ok(None);
        }
        match self.frame().map_err(|error| JournalError::io("read", &self.path, error))? {
            Ok((payload, begins_group)) => {
                if begins_group {
                    self.group = self.offset;
                }
                self.offset += (FRAME_HEADER + payload.len()) as u64;
                Ok(Some(payload))
            }
            Err(Bad(why)) => {
                self.bad = Some(why);
                Ok(None)
            }
        }
    }

    /// The next payload of a closed segment, all of which was durable once.
    pub(crate) fn next_whole(&mut self, index: u64) -> Result<Option<Vec<u8>>, JournalError> {
        let payload = self.next()?;
        match self.bad {
            _ if self.offset == 0 => Err(self.damaged(index, "it does not begin as a segment does")),
            Some(why) => Err(self.damaged(index, why)),
            None => Ok(payload),
        }
    }

    fn damaged(&self, index: u64, what: &str) -> JournalError {
        let place = Place { file: self.name.to_string(), offset: self.offset, index };
        JournalError::Damaged { place, what: what.to_owned() }
    }

    /// The next payload, and whether it begins a group.
    fn frame(&mut self) -> std::io::Result<Result<(Vec<u8>, bool), Bad>> {
        let left = self.length - self.offset;
        if left < FRAME_HEADER as u64 {
            return Ok(Err(Bad("the record's head is cut off")));
        }
        let mut header = [0; FRAME_HEADER];
        self.reader.read_exact(&mut header)?;
        let Some(header) = read_frame_header(header) else {
            return Ok(Err(Bad("the record's length is impossible")));
        };
        if left - (FRAME_HEADER as u64) < header.length as u64 {
            return Ok(Err(Bad("the record is cut off")));
        }
        let mut payload = vec![0; header.length];
        self.reader.read_exact(&mut payload)?;
        let whole = header.fits(&payload);
        Ok(if whole { Ok((payload, header.begins_group)) } else { Err(Bad("the record's checksum is wrong")) })
    }

    /// Is there a whole first record of a group anywhere after the bad one that begins at `offset`?
    ///
    /// Its length cannot be trusted, so every place where an entry could begin is tried.
    fn followed_by_a_group(&self) -> std::io::Result<bool> {
        const CHUNK: usize = 1 << 20;
        let mut start = self.offset + 1;
        let mut buffer = Vec::with_capacity(CHUNK);
        while start < self.length {
            buffer.clear();
            let end = self.length.min(start + CHUNK as u64);
            Stretch::new(Arc::clone(&self.file), start, end).read_to_end(&mut buffer)?;
            for position in 0..buffer.len().saturating_sub(ENTRY_START.len() - 1) {
                if !buffer[position..].starts_with(ENTRY_START) {
                    continue;
                }
                let payload = start + position as u64;
                if payload > self.offset + FRAME_HEADER as u64 && self.group_begins_before(payload)? {
                    return Ok(true);
                }
            }
            // Chunks overlap, so that no beginning falls between two.
            start += (CHUNK - ENTRY_START.len()) as u64;
        }
        Ok(false)
    }

    /// Has a whole first frame of a group its payload at `payload`?
    fn group_begins_before(&self, payload: u64) -> std::io::Result<bool> {
        let mut reader = Stretch::new(Arc::clone(&self.file), payload - FRAME_HEADER as u64, self.length);
        let mut header = [0; FRAME_HEADER];
        reader.read_exact(&mut header)?;
        let Some(header) = read_frame_header(header).filter(|header| header.begins_group) else { return Ok(false) };
        if self.length - payload < header.length as u64 {
            return Ok(false);
        }
        let mut bytes = vec![0; header.length];
        reader.read_exact(&mut bytes)?;
        Ok(header.fits(&bytes))
    }
}

/// Streams the checkpoints of a journal, checking signatures, origin and that they grow.
#[derive(Debug)]
pub(crate) struct Checkpoints {
    path: PathBuf,
    header: Header,
    reader: BufReader<Stretch>,
    length: u64,
    pub(crate) offset: u64,
    /// Where the last whole one begins.
    pub(crate) last: u64,
    pub(crate) number: u64,
    last_size: Option<u64>,
    done: bool,
    pub(crate) torn: Option<Torn>,
}

impl Checkpoints {
    pub(crate) fn open(disk: &dyn Disk, dir: &Path, header: &Header) -> Result<Self, JournalError> {
        let path = checkpoints_path(dir);
        let open = || {
            let file = disk.read(&path)?;
            let length = file.length()?;
            Ok((BufReader::new(Stretch::new(file, 0, length)), length))
        };
        let (reader, length) = open().map_err(|error| JournalError::io("read", &path, error))?;
        Ok(Self {
            path,
            header: header.clone(),
            reader,
            length,
            offset: 0,
            last: 0,
            number: 0,
            last_size: None,
            done: false,
            torn: None,
        })
    }

    fn step(&mut self) -> Result<Option<Checkpoint>, JournalError> {
        if self.offset == self.length {
            return Ok(None);
        }
        let note = self.block().map_err(|error| JournalError::io("read", &self.path, error))?;
        let Some(note) = note else { return Ok(self.end_at("the checkpoint is cut off")) };
        let last = self.offset + note.len() as u64 == self.length;
        let text =
            note.strip_suffix(b"\n\n").map(|body| [body, b"\n"].concat()).and_then(|body| String::from_utf8(body).ok());
        let read = text.ok_or_else(|| "it is not text that ends in an empty line".to_owned());
        let read = read.and_then(|text| {
            checkpoint::parse_and_verify(&text, &self.header.public_key).map_err(|error| error.to_string())
        });
        let bad = |what: String| JournalError::BadCheckpoint { number: self.number, what };
        let checkpoint = match read {
            Ok(checkpoint) => checkpoint,
            // What is written last may have reached the disk in part, its line ends among it. Without it the records are
            // as good as before it was signed.
            Err(_) if last => return Ok(self.end_at("the last checkpoint is not whole")),
            Err(what) => return Err(bad(what)),
        };
        if checkpoint.origin != self.header.id {
            return Err(bad(format!("it is of the journal `{}`", checkpoint.origin)));
        }
        if self.last_size.is_some_and(|last| checkpoint.size <= last) {
            return Err(bad("it does not cover more than the one before".to_owned()));
        }
        self.last_size = Some(checkpoint.size);
        self.number += 1;
        self.last = self.offset;
        self.offset += note.len() as u64;
        Ok(Some(checkpoint))
    }

    fn end_at(&mut self, why: &'static str) -> Option<Checkpoint> {
        let bytes = self.length - self.offset;
        self.torn = Some(Torn { file: "checkpoints.log".to_owned(), offset: self.offset, bytes, why });
        None
    }

    /// The six lines of a note and the empty line after it, or `None` where they are cut off.
    fn block(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        const LONGEST: u64 = 4096;
        let mut block = Vec::new();
        for _ in 0..6 {
            let read = (&mut self.reader).take(LONGEST).read_until(b'\n', &mut block)?;
            if read as u64 == LONGEST {
                // No line of ours: give back what will not parse as a note.
                return Ok(Some(block));
            }
            if block.last() != Some(&b'\n') || read == 0 {
                return Ok(None);
            }
        }
        Ok(Some(block))
    }
}

impl Iterator for Checkpoints {
    type Item = Result<Checkpoint, JournalError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let item = self.step().transpose();
        self.done = !matches!(item, Some(Ok(_)));
        item
    }
}
