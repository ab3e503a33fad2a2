//! Reading on several cores: the calling thread takes what comes and deals it out by account; every other keeps the
//! profiles of its share of the accounts.
//!
//! An account's profile depends on what is said of that account, in its order, and on nothing else; so the profiles are the same
//! however many threads there are.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::panic::resume_unwind;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use anbiq_domain::{AccountId, Entry, Imported};

use crate::profile::{World, fold};
use crate::{Config, Seen};

/// What is dealt out at once: handing things over one by one would cost more than what is done with them.
const HAND: usize = 256;
/// Hands that wait for a thread; then whoever deals waits.
const WAITING: usize = 8;

/// Reads everything once, in the calling thread and in `others`.
pub(crate) fn read(seen: impl Iterator<Item = Seen>, others: NonZeroUsize, config: &Config) -> World {
    thread::scope(|scope| {
        let (mut desks, mut shares) = (Vec::new(), Vec::new());
        for _ in 0..others.get() {
            let (to, from) = sync_channel(WAITING);
            desks.push((to, Vec::with_capacity(HAND)));
            shares.push(scope.spawn(move || keep(&from, config)));
        }
        let mut world = deal(seen, desks, config);
        for share in shares {
            world.absorb(share.join().unwrap_or_else(|panic| resume_unwind(panic)));
        }
        world
    })
}

/// Deals out what is said of accounts and keeps the rest.
fn deal(
    seen: impl Iterator<Item = Seen>,
    mut desks: Vec<(SyncSender<Vec<Seen>>, Vec<Seen>)>,
    config: &Config,
) -> World {
    let (mut world, mut index) = (World::default(), HashMap::new());
    for seen in seen {
        let place = account(&seen).map(|account| (fold(account.as_str().bytes()) >> 32) as usize % desks.len());
        let Some((desk, hand)) = place.and_then(|place| desks.get_mut(place)) else {
            world.see(seen, &mut index, config);
            continue;
        };
        hand.push(seen);
        // A thread that is gone has panicked, which its end will tell.
        if hand.len() >= HAND && desk.send(std::mem::replace(hand, Vec::with_capacity(HAND))).is_err() {
            break;
        }
    }
    for (desk, hand) in desks {
        // As above.
        let _ = desk.send(hand);
    }
    world
}

fn keep(from: &Receiver<Vec<Seen>>, config: &Config) -> World {
    let (mut world, mut index) = (World::default(), HashMap::new());
    for seen in from.iter().flatten() {
        world.see(seen, &mut index, config);
    }
    world
}

/// Of whom it speaks, where it speaks of one account.
fn account(seen: &Seen) -> Option<&AccountId> {
    match seen {
        Seen::Entry(Entry::Exchange(exchange)) => Some(&exchange.account),
        Seen::Entry(Entry::AccountOpened { account, .. }) | Seen::Imported(Imported::Account { account, .. }) => {
            Some(account)
        }
        Seen::Imported(Imported::Exchange(exchange)) => Some(&exchange.account),
        Seen::Entry(_) | Seen::Imported(Imported::Refused { .. }) => None,
    }
}
