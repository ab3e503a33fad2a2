//! What happens to a journal beside the writing: checkpoints when their time has come, sealing, retention.

use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use anbiq_domain::{Clock as _, SystemClock, Timestamp};
use serde::Serialize;

use crate::disk::RealDisk;
use crate::sealed::{Keep, SealedFile, Sealer};
use crate::store::Store;
use crate::{JournalError, Reader, SigningKey};

/// How often the keeper looks for work.
const EVERY: Duration = Duration::from_millis(250);

/// How long the keeper rests after something failed: a full disk does not empty itself at once.
const REST: Duration = Duration::from_secs(30);

/// What the keeper must know of the writer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Standing {
    /// Number of the segment that is written.
    pub(crate) open_segment: u32,
    /// How many records a checkpoint covers.
    pub(crate) signed: u64,
}

/// What was, or would be, deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Pruned {
    /// The first record that is left.
    pub from: u64,
    /// The files.
    pub files: Vec<SealedFile>,
}

/// Seals all that the journal in `dir` holds, the segment that was written last among it, and says which files that made.
///
/// # Errors
/// Another process writes the journal (one that runs seals by itself, see [`crate::Options`]), it is damaged, or the
/// disk fails; what was sealed before that stays sealed.
pub fn seal(dir: &Path, signer: SigningKey) -> Result<Vec<SealedFile>, JournalError> {
    let (mut store, _) = Store::open(dir, signer, u64::MAX, std::sync::Arc::new(RealDisk))?;
    store.checkpoint()?;
    store.roll();
    let mut sealer = store.sealer()?;
    let mut sealed = Vec::new();
    while let Some(file) = sealer.seal_next(store.open_segment(), &|| false)? {
        sealed.push(file);
    }
    Ok(sealed)
}

/// Deletes the sealed files of the journal in `dir` that are not to be kept, as far as a signed checkpoint covers them.
/// With `dry_run` it only says which; that needs no lock.
///
/// # Errors
/// Another process writes the journal, it is damaged, or the disk fails.
pub fn prune(dir: &Path, signer: SigningKey, keep: &Keep, dry_run: bool) -> Result<Pruned, JournalError> {
    let now = SystemClock.now();
    let files = if dry_run {
        let reader = Reader::open(dir)?;
        let signed = reader.last_checkpoint()?.map_or(0, |checkpoint| checkpoint.size);
        let disk = std::sync::Arc::new(RealDisk);
        Sealer::open(disk, dir, reader.id().clone(), signer)?.superfluous(keep, signed, now)
    } else {
        let (store, _) = Store::open(dir, signer, u64::MAX, std::sync::Arc::new(RealDisk))?;
        store.sealer()?.prune(keep, store.signed(), now)?
    };
    let before = Reader::open(dir)?.retained()?.map_or(0, |retained| retained.from);
    let from = files.last().map_or(before, SealedFile::end);
    Ok(Pruned { from, files })
}

/// The keeper's thread: until `stop` hangs up it asks the writer for its standing, which gives the writer the time of day
/// as well, and seals and deletes what is due.
pub(crate) fn keep_house(
    mut sealer: Sealer,
    keep: Option<Keep>,
    seals: bool,
    stop: &Receiver<()>,
    ask: impl Fn(Timestamp) -> Option<Standing>,
) {
    let mut rest_until = Instant::now();
    while stop.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
        let now = SystemClock.now();
        let Some(standing) = ask(now) else { continue };
        if Instant::now() < rest_until {
            continue;
        }
        let stopping = || stop.try_recv() == Err(TryRecvError::Disconnected);
        let mut work = || {
            while seals && sealer.seal_next(standing.open_segment, &stopping)?.is_some() {}
            if let Some(keep) = &keep {
                sealer.prune(keep, standing.signed, now)?;
            }
            Ok::<(), JournalError>(())
        };
        if let Err(error) = work() {
            tracing::error!(code = error.code(), %error, "the journal could not be sealed; it is written on");
            rest_until = Instant::now() + REST;
        }
    }
}
