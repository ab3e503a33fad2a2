use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use anbiq_domain::{Digest, Entry, JournalId, Timestamp};

use crate::disk::{Disk, ReadAt, RealDisk, Stretch};
use crate::format::{
    ENTRY_START, FRAME_HEADER, Header, MAGIC, checkpoints_path, end_of_segments, read_frame_header, segment_name,
};
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
    /// Number of its segment.
    pub segment: u32,
    /// Where in the segment its frame begins.
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

    /// The records in order, one in memory at a time. A torn tail ends them, see [`Entries::torn`]; damage is an error
    /// after which nothing comes.
    pub fn entries(&self) -> Result<Entries, JournalError> {
        Ok(Entries { frames: Frames::open(&self.disk, &self.dir)? })
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
    pub(crate) segment: u32,
    pub(crate) offset: u64,
}

impl Frame {
    pub(crate) fn into_record(self) -> Result<Record, JournalError> {
        let entry = serde_json::from_slice(&self.payload).map_err(|error| JournalError::Damaged {
            place: Place { file: segment_name(self.segment), offset: self.offset, index: self.index },
            what: format!("its checksum holds but it is not an entry: {error}"),
        })?;
        let leaf = tree::leaf_hash(&self.payload);
        Ok(Record { index: self.index, payload: self.payload, entry, leaf, segment: self.segment, offset: self.offset })
    }
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

/// Streams the frames of all segments.
#[derive(Debug)]
pub(crate) struct Frames {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    segments: u32,
    next_segment: u32,
    current: Option<Segment>,
    index: u64,
    done: bool,
    pub(crate) torn: Option<Torn>,
}

#[derive(Debug)]
struct Segment {
    number: u32,
    file: Arc<dyn ReadAt>,
    /// Ends where the file ended when it was opened, so that a writer at work cannot confuse us.
    reader: BufReader<Stretch>,
    length: u64,
    offset: u64,
    group: u64,
}

/// Why a frame, or the head of a segment, is not one.
struct Bad(&'static str);

impl Frames {
    pub(crate) fn open(disk: &Arc<dyn Disk>, dir: &Path) -> Result<Self, JournalError> {
        let segments = end_of_segments(&**disk, dir, 0)?;
        let (disk, dir) = (Arc::clone(disk), dir.to_owned());
        Ok(Self { disk, dir, segments, next_segment: 0, current: None, index: 0, done: false, torn: None })
    }

    /// Where a writer goes on.
    pub(crate) fn end(&self) -> Option<End> {
        let end = |segment: &Segment| End { segment: segment.number, length: segment.offset, group: segment.group };
        self.current.as_ref().map(end)
    }

    pub(crate) const fn segments(&self) -> u32 {
        self.segments
    }

    fn step(&mut self) -> Result<Option<Frame>, JournalError> {
        loop {
            if self.current.as_ref().is_none_or(|segment| segment.offset == segment.length) {
                if self.next_segment == self.segments {
                    return Ok(None);
                }
                if let Some(bad) = self.open_next()? {
                    return self.end_at(bad);
                }
                continue;
            }
            let Some(segment) = &mut self.current else { return Ok(None) };
            return match segment.frame() {
                Ok(Ok((payload, begins_group))) => {
                    let (number, offset) = (segment.number, segment.offset);
                    if begins_group {
                        segment.group = offset;
                    }
                    segment.offset += (FRAME_HEADER + payload.len()) as u64;
                    let index = self.index;
                    self.index += 1;
                    Ok(Some(Frame { index, payload, segment: number, offset }))
                }
                Ok(Err(bad)) => self.end_at(bad),
                Err(error) => Err(JournalError::io("read", &self.dir.join(segment_name(segment.number)), error)),
            };
        }
    }

    fn open_next(&mut self) -> Result<Option<Bad>, JournalError> {
        let number = self.next_segment;
        let path = self.dir.join(segment_name(number));
        let open = || -> std::io::Result<(Segment, bool)> {
            let file = self.disk.read(&path)?;
            let length = file.length()?;
            let mut reader = BufReader::with_capacity(1 << 16, Stretch::new(Arc::clone(&file), 0, length));
            let mut magic = [0; MAGIC.len()];
            let whole = length >= MAGIC.len() as u64;
            if whole {
                reader.read_exact(&mut magic)?;
            }
            let good = whole && magic == *MAGIC;
            let offset = if good { MAGIC.len() as u64 } else { 0 };
            Ok((Segment { number, file, reader, length, offset, group: 0 }, good))
        };
        let (segment, good) = open().map_err(|error| JournalError::io("read", &path, error))?;
        self.current = Some(segment);
        self.next_segment += 1;
        Ok((!good).then_some(Bad("it does not begin as a segment does")))
    }

    /// Is what begins here a torn tail or damage? Torn, if it is in the last segment and no later group follows it: the
    /// writer writes one group at a time, so whatever is followed by another group was whole once. Within one group a
    /// later record may have reached the disk before an earlier one.
    fn end_at(&mut self, Bad(why): Bad) -> Result<Option<Frame>, JournalError> {
        let Some(segment) = &mut self.current else { return Ok(None) };
        let file = segment_name(segment.number);
        let last = segment.number + 1 == self.segments;
        let followed = last
            && segment.followed_by_a_group().map_err(|error| JournalError::io("read", &self.dir.join(&file), error))?;
        if !last || followed {
            let place = Place { file, offset: segment.offset, index: self.index };
            let what = format!("{why}, and more records follow it");
            return Err(JournalError::Damaged { place, what });
        }
        self.torn = Some(Torn { file, offset: segment.offset, bytes: segment.length - segment.offset, why });
        Ok(None)
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
