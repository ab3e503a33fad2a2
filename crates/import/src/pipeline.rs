//! Rows on their way: read in one thread, sketched in the next, taken in the caller's. Their order stays.

use std::panic::resume_unwind;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use anbiq_domain::{Prompt, Sketch};
use anbiq_statistics::sketch::Sketcher;

use crate::ImportError;
use crate::found::Found;
use crate::read::{Options, Tally, read};

/// Rows that change hands together at most.
const ROWS: usize = 256;
/// Bytes of prompts from which a block is full.
const BYTES: usize = 1 << 20;
/// Blocks that wait for the next thread.
const WAITING: usize = 2;

/// Reads `files` and gives each row with the sketch of its prompt, where it has one, to `take`.
///
/// # Errors
/// A log cannot be read, or `take` fails; nothing is taken after that.
pub(crate) fn run(
    files: &[PathBuf],
    options: &Options,
    sketcher: &Sketcher,
    mut take: impl FnMut(Found, Option<Sketch>) -> Result<(), ImportError>,
) -> Result<Tally, ImportError> {
    thread::scope(|scope| {
        let (found, to_sketch) = sync_channel(WAITING);
        let (sketched, to_take) = sync_channel(WAITING);
        let reader = scope.spawn(move || read_blocks(files, options, &found));
        scope.spawn(move || sketch_blocks(sketcher, &to_sketch, &sketched));
        for (found, sketch) in to_take.into_iter().flatten() {
            take(found, sketch)?;
        }
        reader.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

/// Reads until the end, or until nobody takes any more.
fn read_blocks(files: &[PathBuf], options: &Options, to: &SyncSender<Vec<Found>>) -> Result<Tally, ImportError> {
    let (mut block, mut bytes) = (Vec::with_capacity(ROWS), 0);
    let tally = read(files, options, &mut |found| {
        bytes += found.prompt.as_ref().map_or(0, Prompt::bytes);
        block.push(found);
        if block.len() < ROWS && bytes < BYTES {
            return Ok(true);
        }
        bytes = 0;
        Ok(to.send(std::mem::replace(&mut block, Vec::with_capacity(ROWS))).is_ok())
    })?;
    // Whoever left has its own error to tell.
    let _ = to.send(block);
    Ok(tally)
}

fn sketch_blocks(sketcher: &Sketcher, blocks: &Receiver<Vec<Found>>, to: &SyncSender<Vec<(Found, Option<Sketch>)>>) {
    for block in blocks {
        let sketch = |mut found: Found| {
            let sketch = found.prompt.take().map(|prompt| sketcher.sketch(&prompt));
            (found, sketch)
        };
        if to.send(block.into_iter().map(sketch).collect()).is_err() {
            return;
        }
    }
}
