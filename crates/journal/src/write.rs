use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc as blocking;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

use anbiq_domain::{Clock as _, Digest, Entry, JournalId, SystemClock, Timestamp};

use crate::disk::{Disk, RealDisk};
use crate::store::Store;
use crate::upkeep::{Standing, keep_house};
use crate::{Checkpoint, JournalError, Keep, MAX_ENTRY_BYTES, PublicKey, SigningKey};

/// How a journal is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// A segment that has reached this many bytes is followed by a new one.
    pub segment_bytes: u64,
    /// How many entries may wait; beyond that, appending waits, and fails with `journal_busy` after `patience`.
    pub queue: usize,
    /// After how many entries a checkpoint is signed by itself; 0 for only when asked and when closing.
    pub checkpoint_every: u64,
    /// After how long a checkpoint is signed over entries that none covers yet; `None` for by number only.
    pub checkpoint_after: Option<Duration>,
    /// When segments are closed and sealed; `None` for never.
    pub seal: Option<Seal>,
    /// Which sealed files are kept; `None` for all.
    pub keep: Option<Keep>,
    /// How long to wait for room in the queue, and again for the disk.
    pub patience: Duration,
}

/// When a segment is closed and sealed, whichever comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seal {
    /// Once it has reached this many bytes.
    pub after_bytes: u64,
    /// Once its first entry is older than this.
    pub after: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            queue: 1024,
            checkpoint_every: 1024,
            checkpoint_after: Some(Duration::from_secs(60)),
            seal: None,
            keep: None,
            patience: Duration::from_secs(30),
        }
    }
}

impl Options {
    fn segment_bytes(&self) -> u64 {
        self.seal.map_or(self.segment_bytes, |seal| self.segment_bytes.min(seal.after_bytes))
    }

    /// Is there work that comes with time?
    fn upkeep(&self) -> bool {
        self.checkpoint_after.is_some() || self.seal.is_some() || self.keep.is_some()
    }
}

/// Where an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Position {
    /// Its number in the journal, counted from 0.
    pub index: u64,
    /// [`crate::tree::leaf_hash`] of its bytes.
    pub leaf: Digest,
}

/// What was found when a journal was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovery {
    /// How many entries it holds.
    pub entries: u64,
    /// Root of the tree over them.
    pub root: Digest,
    /// How many bytes of an unfinished, never acknowledged write were cut off.
    pub truncated_bytes: u64,
    /// How many bytes of an unfinished checkpoint were cut off.
    pub truncated_checkpoint_bytes: u64,
    /// The last signed root.
    pub last_checkpoint: Option<Checkpoint>,
}

/// How far a journal has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// How many entries are durable.
    pub entries: u64,
    /// Root of the tree over them; nobody has signed it yet where the last checkpoint covers fewer.
    pub root: Digest,
    /// The last signed root.
    pub last_checkpoint: Option<Checkpoint>,
}

/// The writing end of a journal. Clones write to the same journal; it ends when the last of them is dropped or any is
/// [closed](Journal::close), each time with a checkpoint.
#[derive(Debug, Clone)]
pub struct Journal(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    id: JournalId,
    public_key: PublicKey,
    patience: Duration,
    hand: Arc<Hand>,
    /// Taken only when dropped.
    commands: Option<mpsc::Sender<Command>>,
    /// Disconnected once the writer has stopped and its lock is free.
    stopped: Mutex<blocking::Receiver<()>>,
}

/// The store, for whoever writes: the journal's own thread, or at once who has an entry while nobody else writes.
#[derive(Debug)]
struct Hand {
    /// Absent once the journal is closed.
    store: Mutex<Option<Store>>,
    /// Does the thread want it?
    wanted: AtomicBool,
    /// Did the disk take long for the last entries?
    slow: AtomicBool,
    checkpoint_every: u64,
}

/// A disk that takes longer than this is nothing to wait for in the thread that has other things to do.
const SLOW: Duration = Duration::from_micros(400);

enum Command {
    Append {
        payload: Vec<u8>,
        reply: Reply<Position>,
    },
    State(Reply<State>),
    Checkpoint(Reply<Checkpoint>),
    /// Enough entries are there that a checkpoint is due.
    Sign,
    /// The keeper says what time it is and asks how things stand.
    Look(Timestamp, Reply<Standing>),
    Close(Reply<Checkpoint>),
}

/// The way back to who asked, who may be a future or a thread.
enum Reply<T> {
    Future(oneshot::Sender<Result<T, JournalError>>),
    Thread(blocking::SyncSender<Result<T, JournalError>>),
}

impl<T> Reply<T> {
    fn send(self, answer: Result<T, JournalError>) {
        // Who asked may have left; the entry is written all the same.
        match self {
            Self::Future(sender) => drop(sender.send(answer)),
            Self::Thread(sender) => drop(sender.send(answer)),
        }
    }
}

impl Journal {
    /// Makes an empty journal in `dir`, which is created where it is missing and must not hold a journal.
    pub fn create(dir: &Path, id: JournalId, signer: SigningKey, options: Options) -> Result<Self, JournalError> {
        let (public_key, disk) = (signer.public(), Arc::new(RealDisk));
        let store = Store::create(dir, id, SystemClock.now(), signer, options.segment_bytes(), disk)?;
        Self::start(store, public_key, &options)
    }

    /// Opens the journal in `dir` for writing: reads and checks all of it, and cuts off what a crash left of a write
    /// that was never acknowledged.
    ///
    /// Damage anywhere else is an error, and nothing is changed. So is another format, another signing key, and another
    /// process at work.
    pub fn open(dir: &Path, signer: SigningKey, options: Options) -> Result<(Self, Recovery), JournalError> {
        Self::open_on(dir, signer, &options, Arc::new(RealDisk))
    }

    fn open_on(
        dir: &Path,
        signer: SigningKey,
        options: &Options,
        disk: Arc<dyn Disk>,
    ) -> Result<(Self, Recovery), JournalError> {
        let public_key = signer.public();
        let (store, recovery) = Store::open(dir, signer, options.segment_bytes(), disk)?;
        Ok((Self::start(store, public_key, options)?, recovery))
    }

    /// The journal's id.
    pub fn id(&self) -> &JournalId {
        &self.0.id
    }

    /// The key that its checkpoints are signed with.
    pub fn public_key(&self) -> PublicKey {
        self.0.public_key
    }

    /// Appends `entry` and returns when it is durable. Needs a tokio runtime with its timer.
    ///
    /// All entries that wait at one time share one write and one fsync. Dropping the future does not take the entry back.
    /// Where nobody else writes and the disk is quick, the write and the fsync are made in the thread that polls this: that
    /// takes less time than to wake another thread, and to be woken by it.
    pub async fn append(&self, entry: &Entry) -> Result<Position, JournalError> {
        let payload = match self.append_at_once(encode(entry)?) {
            Ok(done) => return done,
            Err(payload) => payload,
        };
        self.ask(|reply| Command::Append { payload, reply }).await
    }

    /// [`Journal::append`] for threads that run no future.
    pub fn append_blocking(&self, entry: &Entry) -> Result<Position, JournalError> {
        let payload = match self.append_at_once(encode(entry)?) {
            Ok(done) => return done,
            Err(payload) => payload,
        };
        self.ask_blocking(|reply| Command::Append { payload, reply })
    }

    /// How far the journal has come; nothing is written.
    pub async fn state(&self) -> Result<State, JournalError> {
        self.ask(Command::State).await
    }

    /// Signs the root of everything that was appended before, and keeps the signature in the journal.
    pub async fn checkpoint(&self) -> Result<Checkpoint, JournalError> {
        self.ask(Command::Checkpoint).await
    }

    /// [`Journal::checkpoint`] for threads that run no future.
    pub fn checkpoint_blocking(&self) -> Result<Checkpoint, JournalError> {
        self.ask_blocking(Command::Checkpoint)
    }

    /// Writes what waits, signs a last checkpoint and stops; further appends, also by clones, fail with
    /// `journal_closed`. When it returns another process may open the journal.
    pub fn close(self) -> Result<Checkpoint, JournalError> {
        let checkpoint = self.ask_blocking(Command::Close)?;
        self.0.wait_until_stopped();
        Ok(checkpoint)
    }

    fn start(store: Store, public_key: PublicKey, options: &Options) -> Result<Self, JournalError> {
        let (commands, received) = mpsc::channel(options.queue.max(1));
        let (stopping, stopped) = blocking::sync_channel(0);
        let (id, options) = (store.id().clone(), *options);
        let keeper = if options.upkeep() { Some(Keeper::start(&store, &commands, &options)?) } else { None };
        let hand = Arc::new(Hand::new(store, options.checkpoint_every));
        let shared = Arc::clone(&hand);
        let spawned = std::thread::Builder::new().name(format!("journal {id}")).spawn(move || {
            let store = write(&shared, received, &options);
            // It must have stopped before the lock is free.
            drop(keeper);
            drop(store);
            drop(stopping);
        });
        spawned.map_err(|error| JournalError::io("start a thread for", Path::new(id.as_str()), error))?;
        let (commands, stopped) = (Some(commands), Mutex::new(stopped));
        Ok(Self(Arc::new(Inner { id, public_key, patience: options.patience, hand, commands, stopped })))
    }

    /// Appends `payload` and makes it durable in this thread, unless somebody else writes or waits, or the disk is slow: then
    /// it is given back.
    fn append_at_once(&self, payload: Vec<u8>) -> Result<Result<Position, JournalError>, Vec<u8>> {
        let Inner { hand, commands, .. } = &*self.0;
        let Some(commands) = commands.as_ref().filter(|commands| commands.capacity() == commands.max_capacity()) else {
            return Err(payload);
        };
        let Some((done, due)) = hand.append_one(&payload) else { return Err(payload) };
        if due {
            // Where the queue is full the next entry says it again.
            let _ = commands.try_send(Command::Sign);
        }
        Ok(done)
    }

    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, JournalError> {
        let patience = self.0.patience;
        let commands = self.0.commands.as_ref().ok_or(JournalError::Closed)?;
        let room = tokio::time::timeout(patience, commands.reserve()).await;
        let room = room.map_err(|_| JournalError::Busy(milliseconds(patience)))?.map_err(|_| JournalError::Closed)?;
        let (reply, answer) = oneshot::channel();
        room.send(command(Reply::Future(reply)));
        match tokio::time::timeout(patience, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(JournalError::Closed),
            Err(_) => Err(JournalError::TimedOut(milliseconds(patience))),
        }
    }

    fn ask_blocking<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, JournalError> {
        let patience = self.0.patience;
        let commands = self.0.commands.as_ref().ok_or(JournalError::Closed)?;
        let (reply, answer) = blocking::sync_channel(1);
        let mut command = command(Reply::Thread(reply));
        let start = Instant::now();
        // tokio's own blocking send cannot time out and must not be called where a runtime is at work.
        while let Err(refused) = commands.try_send(command) {
            command = match refused {
                mpsc::error::TrySendError::Full(command) => command,
                mpsc::error::TrySendError::Closed(_) => return Err(JournalError::Closed),
            };
            if start.elapsed() >= patience {
                return Err(JournalError::Busy(milliseconds(patience)));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        match answer.recv_timeout(patience) {
            Ok(answer) => answer,
            Err(blocking::RecvTimeoutError::Disconnected) => Err(JournalError::Closed),
            Err(blocking::RecvTimeoutError::Timeout) => Err(JournalError::TimedOut(milliseconds(patience))),
        }
    }
}

impl Hand {
    fn new(store: Store, checkpoint_every: u64) -> Self {
        let (wanted, slow) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { store: Mutex::new(Some(store)), wanted, slow, checkpoint_every }
    }

    /// Appends one entry if nobody else writes or wants to and the disk is quick; says whether a checkpoint is due.
    fn append_one(&self, payload: &[u8]) -> Option<(Result<Position, JournalError>, bool)> {
        if self.wanted.load(Ordering::Relaxed) || self.slow.load(Ordering::Relaxed) {
            return None;
        }
        let mut store = self.store.try_lock().ok()?;
        let store = store.as_mut()?;
        let done = self.append(store, &[payload]).map(|positions| positions.into_iter().next());
        let done = done.and_then(|position| position.ok_or(JournalError::Closed));
        Some((done, self.is_due(store)))
    }

    /// Appends all of `payloads` or none, and remembers how long that took.
    fn append(&self, store: &mut Store, payloads: &[impl AsRef<[u8]>]) -> Result<Vec<Position>, JournalError> {
        let started = Instant::now();
        let done = store.append(payloads);
        self.slow.store(started.elapsed() > SLOW, Ordering::Relaxed);
        done
    }

    fn is_due(&self, store: &Store) -> bool {
        self.checkpoint_every > 0 && store.unsigned() >= self.checkpoint_every
    }

    /// The store, for the journal's own thread.
    fn take_up(&self) -> MutexGuard<'_, Option<Store>> {
        self.wanted.store(true, Ordering::Relaxed);
        // Nobody panics while holding it.
        let store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        self.wanted.store(false, Ordering::Relaxed);
        store
    }
}

impl Inner {
    fn wait_until_stopped(&self) {
        if let Ok(stopped) = self.stopped.lock() {
            // Nothing is ever sent: this ends when the writer has, or when patience has.
            let _ = stopped.recv_timeout(self.patience);
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        drop(self.commands.take());
        self.wait_until_stopped();
    }
}

/// The keeper's thread; dropping this ends it.
struct Keeper {
    stop: Option<blocking::SyncSender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Keeper {
    fn start(store: &Store, commands: &mpsc::Sender<Command>, options: &Options) -> Result<Self, JournalError> {
        let sealer = store.sealer()?;
        let (stop, stopped) = blocking::sync_channel(0);
        let Options { keep, seal, patience, .. } = *options;
        // It must not keep the journal open.
        let commands = commands.downgrade();
        let ask = move |now| {
            let (reply, answer) = blocking::sync_channel(1);
            // Where the queue is full the writer has better things to do.
            commands.upgrade()?.try_send(Command::Look(now, Reply::Thread(reply))).ok()?;
            answer.recv_timeout(patience).ok()?.ok()
        };
        let thread = std::thread::Builder::new()
            .name(format!("keeper {}", store.id()))
            .spawn(move || keep_house(sealer, keep, seal.is_some(), &stopped, ask));
        let thread =
            thread.map_err(|error| JournalError::io("start a thread for", Path::new(store.id().as_str()), error))?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It cannot panic; if it did, it has ended all the same.
            let _ = thread.join();
        }
    }
}

/// What JSON has instead of a number that is none.
const NULL: &[u8] = b"null";

/// The bytes of `entry`, after making sure that they can be read again: a float that is not a number could not, for it is
/// written as `null`. Reading costs more than writing, so that only those are read that hold this word anywhere.
fn encode(entry: &Entry) -> Result<Vec<u8>, JournalError> {
    let payload = serde_json::to_vec(entry).map_err(|error| JournalError::Unreadable(error.to_string()))?;
    if payload.len() > MAX_ENTRY_BYTES {
        return Err(JournalError::TooLarge { size: payload.len(), limit: MAX_ENTRY_BYTES });
    }
    if memchr::memmem::find(&payload, NULL).is_some() {
        serde_json::from_slice::<Entry>(&payload).map_err(|error| JournalError::Unreadable(error.to_string()))?;
    }
    Ok(payload)
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A group larger than this is written before more is taken from the queue.
const GROUP_BYTES: usize = 8 << 20;

/// The writer's thread: takes what waits, makes it durable in one go, answers. Gives the store back when the journal is
/// closed or nobody is left to write to it.
fn write(hand: &Hand, mut commands: mpsc::Receiver<Command>, options: &Options) -> Option<Store> {
    // Since when there are entries that no checkpoint covers: no earlier than they are first looked for.
    let mut unsigned_since = None;
    while let Some(first) = commands.blocking_recv() {
        let (mut payloads, mut replies, mut bytes) = (Vec::new(), Vec::new(), 0);
        let mut next = Some(first);
        let mut order = None;
        while let Some(command) = next.take() {
            match command {
                Command::Append { payload, reply } => {
                    bytes += payload.len();
                    payloads.push(payload);
                    replies.push(reply);
                    next = if bytes < GROUP_BYTES { commands.try_recv().ok() } else { None };
                }
                other => order = Some(other),
            }
        }
        let mut held = hand.take_up();
        // It is taken away only below.
        let Some(store) = held.as_mut() else { break };
        append(hand, store, &payloads, replies);
        if store.unsigned() > 0 {
            unsigned_since.get_or_insert_with(Instant::now);
        }
        match order {
            Some(Command::State(reply)) => reply.send(Ok(store.state())),
            Some(Command::Checkpoint(reply)) => reply.send(store.checkpoint()),
            Some(Command::Close(reply)) => {
                reply.send(store.checkpoint());
                return held.take();
            }
            Some(Command::Look(now, reply)) => {
                let old = options.checkpoint_after.zip(unsigned_since);
                if old.is_some_and(|(after, since)| since.elapsed() >= after) {
                    try_checkpoint(store);
                }
                if let Some(seal) = options.seal {
                    let age = i64::try_from(seal.after.as_millis()).unwrap_or(i64::MAX);
                    store.roll_if_before(now.plus_milliseconds(age.saturating_neg()));
                }
                reply.send(Ok(Standing { open_segment: store.open_segment(), signed: store.signed() }));
            }
            _ if hand.is_due(store) => try_checkpoint(store),
            _ => {}
        }
        if store.unsigned() == 0 {
            unsigned_since = None;
        }
    }
    let mut held = hand.take_up();
    if let Some(store) = held.as_mut() {
        try_checkpoint(store);
    }
    held.take()
}

fn append(hand: &Hand, store: &mut Store, payloads: &[Vec<u8>], replies: Vec<Reply<Position>>) {
    if payloads.is_empty() {
        return;
    }
    match hand.append(store, payloads) {
        Ok(positions) => {
            for (reply, position) in replies.into_iter().zip(positions) {
                reply.send(Ok(position));
            }
        }
        Err(error) => {
            for reply in replies {
                reply.send(Err(error.clone()));
            }
        }
    }
}

/// Nobody waits for this checkpoint, and the next one covers what it would have: a failure is only told.
fn try_checkpoint(store: &mut Store) {
    if let Err(error) = store.checkpoint() {
        tracing::warn!(%error, code = error.code(), "no checkpoint was signed");
    }
}

#[cfg(test)]
#[path = "write_tests.rs"]
mod tests;
