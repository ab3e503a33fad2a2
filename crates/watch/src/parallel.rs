//! Work on several cores. What comes of it does not depend on how many there are.

use std::num::NonZeroUsize;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Pieces of work for each thread: more than one, so that none waits long for another.
const PIECES: usize = 16;

/// `work` on each of `items`, in their order.
pub(crate) fn map<T: Sync, R: Send>(threads: NonZeroUsize, items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let length = items.len().div_ceil(PIECES * threads.get()).max(1);
    let pieces: Vec<&[T]> = items.chunks(length).collect();
    if threads.get() == 1 || pieces.len() < 2 {
        return items.iter().map(work).collect();
    }
    let next = AtomicUsize::new(0);
    let take = || {
        let mut done = Vec::new();
        loop {
            let place = next.fetch_add(1, Ordering::Relaxed);
            let Some(piece) = pieces.get(place) else { return done };
            done.push((place, piece.iter().map(&work).collect::<Vec<R>>()));
        }
    };
    let mut done = thread::scope(|scope| {
        let others: Vec<_> = (1..threads.get()).map(|_| scope.spawn(take)).collect();
        let mut done = take();
        for other in others {
            done.extend(other.join().unwrap_or_else(|panic| resume_unwind(panic)));
        }
        done
    });
    done.sort_unstable_by_key(|(place, _)| *place);
    done.into_iter().flat_map(|(_, results)| results).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_keep_their_order() {
        let items: Vec<u64> = (0..1_000).collect();
        for threads in [1, 2, 7, 64] {
            let squares = map(NonZeroUsize::new(threads).unwrap(), &items, |item| item * item);
            assert_eq!(squares, items.iter().map(|item| item * item).collect::<Vec<_>>());
        }
        assert!(map(NonZeroUsize::MIN, &[] as &[u64], |item| *item).is_empty());
    }
}
