//! What the gateway asks with every request, remembered until somebody changes it.
//!
//! Every administrative change, in whatever program, counts the ledger's generation up in its own transaction. What was
//! read is used again only after the generation was read again and is still the same; so a key that was revoked is
//! refused at once. A request reads the generation once, when its key is presented, and everything that it needs holds
//! as of then. Reads of the generation that many requests ask for at the same time are shared.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anbiq_domain::Digest;
use sqlx::AnyPool;
use tokio::time::timeout;

use crate::keys::KeyHolder;
use crate::{Ledger, LedgerError, PATIENCE, Teacher, connection};

/// Most entries of one kind. When there are more, all of that kind are forgotten.
const LARGEST: usize = 16_384;

/// Longest name that is remembered: names come from outside.
const LONGEST_NAME: usize = 256;

const GENERATION: &str = "SELECT value FROM settings WHERE name = 'generation'";

#[derive(Default)]
pub(crate) struct Cache {
    /// Reads of the generation that have begun.
    begun: AtomicU64,
    last: tokio::sync::Mutex<Read>,
    kept: Mutex<Kept>,
}

/// A read of the generation that has ended.
#[derive(Default)]
struct Read {
    /// The how manieth it was, counted from 1.
    number: u64,
    generation: i64,
}

/// What was read under one generation.
#[derive(Default)]
pub(crate) struct Kept {
    generation: i64,
    /// By public half and hash of the secret half, so that only the right key is ever found here: a wrong one takes the
    /// way to the database, as an unknown one does.
    pub(crate) keys: HashMap<(String, Digest), Arc<KeyHolder>>,
    pub(crate) teachers: HashMap<String, Arc<Teacher>>,
}

impl Ledger {
    /// The present generation: what is remembered under it is as the ledger was at some moment after this was called.
    pub(crate) async fn generation(&self) -> Result<i64, LedgerError> {
        let Some(looker) = &self.looker else { return self.cache.generation(&self.readers).await };
        // No one panics while holding it.
        let file = looker.lock().unwrap_or_else(PoisonError::into_inner);
        let text: String = file
            .prepare_cached(GENERATION)
            .and_then(|mut look| look.query_row((), |row| row.get(0)))
            .map_err(connection::failed)?;
        parse(&text)
    }

    /// The value of `key` on a shelf, where it was read under `generation`; else what `read` gives, which is never older.
    pub(crate) async fn remembered<K: Hash + Eq, V: Clone>(
        &self,
        generation: i64,
        shelf: fn(&mut Kept) -> &mut HashMap<K, V>,
        key: K,
        read: impl Future<Output = Result<V, LedgerError>>,
    ) -> Result<V, LedgerError> {
        if let Some(value) = self.cache.kept(generation, |kept| shelf(kept).get(&key).cloned()) {
            return Ok(value);
        }
        // Read after its generation, the value is never older than that.
        let value = read.await?;
        self.cache.kept(generation, |kept| {
            let shelf = shelf(kept);
            if shelf.len() >= LARGEST {
                shelf.clear();
            }
            shelf.insert(key, value.clone());
            Some(())
        });
        Ok(value)
    }

    /// As [`Ledger::remembered`], for a name that a stranger may have chosen.
    pub(crate) async fn remembered_name<V: Clone>(
        &self,
        generation: i64,
        shelf: fn(&mut Kept) -> &mut HashMap<String, V>,
        name: &str,
        read: impl Future<Output = Result<V, LedgerError>>,
    ) -> Result<V, LedgerError> {
        if name.len() > LONGEST_NAME {
            read.await
        } else {
            self.remembered(generation, shelf, name.to_owned(), read).await
        }
    }
}

impl Cache {
    /// The generation at some moment after this was called.
    ///
    /// Whoever asks while a read is under way shares the next one.
    async fn generation(&self, readers: &AnyPool) -> Result<i64, LedgerError> {
        let asked = self.begun.load(Ordering::SeqCst);
        let mut last = timeout(PATIENCE, self.last.lock()).await.map_err(|_| sqlx::Error::PoolTimedOut)?;
        if last.number > asked {
            return Ok(last.generation);
        }
        let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let (text,): (String,) = sqlx::query_as(GENERATION).fetch_one(readers).await?;
        let generation = parse(&text)?;
        *last = Read { number, generation };
        Ok(generation)
    }

    /// Uses what is kept of `generation`; nothing where a later one was seen already.
    fn kept<T>(&self, generation: i64, with: impl FnOnce(&mut Kept) -> Option<T>) -> Option<T> {
        // No one panics while holding it.
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.generation < generation {
            *kept = Kept { generation, ..Kept::default() };
        }
        if kept.generation == generation { with(&mut kept) } else { None }
    }
}

fn parse(generation: &str) -> Result<i64, LedgerError> {
    let damaged =
        |error: std::num::ParseIntError| LedgerError::Damaged { what: "generation", reason: error.to_string() };
    generation.parse().map_err(damaged)
}
