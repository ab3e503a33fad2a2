use std::path::Path;
use std::sync::Arc;

use serde::Serialize;

use anbiq_domain::{Digest, JournalId};

use crate::disk::{Disk, RealDisk};
use crate::format::Header;
use crate::read::{Checkpoints, End, Frame, Frames, Part, Torn};
use crate::sealed::{List, Retained};
use crate::tree::{self, Tree};
use crate::{Checkpoint, JournalError, PublicKey};

/// What a journal was found to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Which journal.
    pub id: JournalId,
    /// The key that signed its checkpoints.
    pub public_key: PublicKey,
    /// How many records it holds, those that were deleted among them.
    pub size: u64,
    /// Root of the tree over all of them.
    pub root: Digest,
    /// In how many segments it was written, sealed or not.
    pub segments: u32,
    /// How many of them are sealed files now.
    pub sealed: u64,
    /// What was deleted, under which signed root; the records after it were checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retained: Option<Retained>,
    /// How many checkpoints were checked.
    pub checkpoints: u64,
    /// How many records at the end no checkpoint covers yet: only checksums protect them.
    pub unsigned: u64,
    /// The end of the last segment, if it is not whole.
    pub torn: Option<Torn>,
    /// The end of the checkpoints, if it is not whole.
    pub torn_checkpoint: Option<Torn>,
}

impl Report {
    /// Is every byte whole and covered by a signature?
    pub const fn is_sealed(&self) -> bool {
        self.unsigned == 0 && self.torn.is_none() && self.torn_checkpoint.is_none()
    }
}

/// Reads the whole journal in `dir`, computes the tree anew and checks every checksum, every entry, every checkpoint's
/// signature and root.
///
/// `expected` is the key that must have signed it; without one the journal's own word is taken for who signed.
pub fn verify(dir: &Path, expected: Option<&PublicKey>) -> Result<Report, JournalError> {
    verify_on(&(Arc::new(RealDisk) as Arc<dyn Disk>), dir, expected)
}

pub(crate) fn verify_on(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    expected: Option<&PublicKey>,
) -> Result<Report, JournalError> {
    let header = Header::read(&**disk, dir)?;
    if let Some(expected) = expected.filter(|key| **key != header.public_key) {
        return Err(JournalError::WrongKey { expected: expected.to_string(), found: header.public_key.to_string() });
    }
    let scan = scan(disk, dir, &header, Part::Kept, |frame| frame.entry().map(drop))?;
    Ok(Report {
        id: header.id,
        public_key: header.public_key,
        size: scan.tree.size(),
        root: scan.tree.root(),
        segments: scan.segments,
        sealed: scan.list.files.len() as u64,
        checkpoints: scan.checkpoints,
        unsigned: scan.unsigned(),
        retained: scan.list.retained,
        torn: scan.torn,
        torn_checkpoint: scan.torn_checkpoint,
    })
}

/// The state of a journal after reading all of it.
pub(crate) struct Scan {
    pub(crate) tree: Tree,
    pub(crate) list: List,
    pub(crate) segments: u32,
    pub(crate) end: Option<End>,
    pub(crate) torn: Option<Torn>,
    pub(crate) checkpoints: u64,
    pub(crate) checkpoints_end: u64,
    /// Where the last checkpoint begins.
    pub(crate) checkpoints_last: u64,
    pub(crate) last_checkpoint: Option<Checkpoint>,
    pub(crate) torn_checkpoint: Option<Torn>,
}

impl Scan {
    /// How many records neither a checkpoint nor the signed list of sealed files covers.
    fn unsigned(&self) -> u64 {
        let signed = self.last_checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.size);
        self.tree.size() - signed.max(self.list.tree().size())
    }
}

/// Reads everything once, records and checkpoints side by side.
pub(crate) fn scan(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    header: &Header,
    part: Part,
    mut visit: impl FnMut(&Frame) -> Result<(), JournalError>,
) -> Result<Scan, JournalError> {
    // The checkpoints first: of a journal that is being written, one that is newer than the records we see would look
    // like a loss.
    let mut checkpoints = Checkpoints::open(&**disk, dir, header)?;
    let mut frames = Frames::open(disk, dir, header, part)?;
    let mut tree = frames.start.clone();
    let mut last_checkpoint = None;
    let mut next = checkpoints.next().transpose()?;
    loop {
        while let Some(checkpoint) = next.take_if(|checkpoint| checkpoint.size <= tree.size()) {
            // One that ends among records that are not read is checked for its signature only.
            if checkpoint.size == tree.size() && checkpoint.root != tree.root() {
                let what = "the records it covers are not those that were signed".to_owned();
                return Err(JournalError::BadCheckpoint { number: checkpoints.number - 1, what });
            }
            last_checkpoint = Some(checkpoint);
            next = checkpoints.next().transpose()?;
        }
        let Some(frame) = frames.next().transpose()? else { break };
        tree.push(tree::leaf_hash(&frame.payload));
        visit(&frame)?;
    }
    if let Some(checkpoint) = next {
        let what = format!("it covers {} records, but only {} are whole", checkpoint.size, tree.size());
        return Err(JournalError::BadCheckpoint { number: checkpoints.number - 1, what });
    }
    Ok(Scan {
        tree,
        segments: frames.segments,
        end: frames.end(),
        list: frames.list,
        torn: frames.torn,
        checkpoints: checkpoints.number,
        checkpoints_end: checkpoints.offset,
        checkpoints_last: checkpoints.last,
        last_checkpoint,
        torn_checkpoint: checkpoints.torn,
    })
}
