//! Reading in one thread what another takes in.

use std::sync::mpsc::sync_channel;
use std::thread;

/// Items that change hands together.
const BLOCK: usize = 512;
/// Blocks that wait to be taken.
const WAITING: usize = 4;

/// Gives all of `items` to `take`, in their order. They are read in a thread of their own, a few blocks ahead.
///
/// # Errors
///
/// The first error among the items, or of `take`; what comes after it is not taken.
pub(super) fn each<T: Send, E: Send, F: From<E>>(
    items: impl Iterator<Item = Result<T, E>> + Send,
    mut take: impl FnMut(T) -> Result<(), F>,
) -> Result<(), F> {
    thread::scope(|scope| {
        let (sender, blocks) = sync_channel::<Vec<Result<T, E>>>(WAITING);
        scope.spawn(move || {
            let mut items = items;
            loop {
                let block: Vec<_> = items.by_ref().take(BLOCK).collect();
                // Where nobody takes any more, an error came before.
                if block.is_empty() || sender.send(block).is_err() {
                    return;
                }
            }
        });
        blocks.into_iter().flatten().try_for_each(|item| take(item?))
    })
}
