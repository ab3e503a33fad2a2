//! The one task that changes budgets. It takes all changes that wait, makes one transaction of them and only then
//! answers: a disk needs as long to sync one change as two hundred.
//!
//! Where the books are a file and nobody else writes at the moment, a reservation does not wait for the task either: it takes
//! less time than to hand it over. Neither does it wait for the disk, since what a power cut makes the file forget can be made
//! good: a reservation goes down with the gateway that made it, and a charge stands in the journal. What ends a reservation
//! waits for whoever changes the file next, a few milliseconds at most, and shares that transaction: so that whoever has the
//! end of an answer finds the rest of what was held, and two changes cost hardly more than one.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::AnyPool;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

use crate::backend::Backend;
use crate::connection::{Connection, failed, now};
use crate::reserve::{Booked, Booking, Finish, Reserve};
use crate::{LedgerError, PATIENCE};

/// Changes that may wait. When there are more, a caller waits for its place in the queue.
const QUEUE: usize = 4096;

/// Most changes of one transaction.
const BATCH: usize = 256;

/// Changes after which the write-ahead log is folded into the file: each is about four pages of it. More of them would make
/// the disk busy for so long that the journal has to wait.
const UNFOLDED: usize = 250;

/// The longest that the end of a reservation waits for another change to go along with.
const LINGER: Duration = Duration::from_millis(5);

/// Most ends of reservations that another change takes along.
const ALONG: usize = 32;

/// How often somebody else's change is looked at before one is handed over: some microseconds, less than it takes.
const LOOKS: usize = 200;

/// Longest time for one transaction. The database ends its own waits sooner; this is for one that went silent.
const LONGEST: Duration = Duration::from_secs(60);

/// A change of budgets; it happens as a whole or not at all.
#[derive(Debug)]
pub(crate) enum Change {
    Reserve(Reserve),
    Finish(Finish),
    MakeGood(Booked),
    AllCharged(Booking),
}

/// The queue in front of the task. Clones share it; the task ends with the last of them, or when it is closed.
#[derive(Clone)]
pub(crate) struct Writer {
    queue: mpsc::Sender<Message>,
    /// The books, where they are a file.
    here: Option<Arc<Here>>,
}

enum Message {
    Change(Waiting),
    /// An end of a reservation waits for company.
    Linger,
    /// Tell when everything is made that waits.
    Flush(oneshot::Sender<()>),
    /// The write-ahead log is long.
    Fold,
    Close(oneshot::Sender<()>),
}

/// Which way a reservation is paid, how many charges were made good, how many journals are new; zero for other changes. Or why
/// it is refused.
type Outcome = Result<usize, LedgerError>;

/// A change, and who waits for it.
struct Waiting {
    change: Change,
    answer: oneshot::Sender<Outcome>,
}

impl Writer {
    /// Starts the task: in a thread of its own where it has the `files` to itself, which are one file opened twice, else over
    /// `pool`.
    pub(crate) fn start(
        pool: AnyPool,
        backend: Backend,
        files: Option<[rusqlite::Connection; 2]>,
    ) -> Result<Self, LedgerError> {
        let (queue, waiting) = mpsc::channel(QUEUE);
        let Some([file, folder]) = files else {
            tokio::spawn(Task { books: Books::Pooled { pool, backend } }.run(waiting));
            return Ok(Self { queue, here: None });
        };
        // It waits for nothing but its queue and the clock.
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(LedgerError::Thread)?;
        let log = PathBuf::from([file.path().unwrap_or_default(), "-wal"].concat());
        let here = Arc::new(Here { file: Mutex::new(File::new(file)?), ends: Mutex::default() });
        let task = Task { books: Books::Here { here: Arc::clone(&here), folder: Mutex::new(folder), log } };
        let named = std::thread::Builder::new().name("ledger".to_owned());
        named.spawn(move || runtime.block_on(task.run(waiting))).map_err(LedgerError::Thread)?;
        Ok(Self { queue, here: Some(here) })
    }

    /// Makes `change`; where the books are no file it is on disk when this returns. The task gives every change an answer in
    /// bounded time.
    ///
    /// # Errors
    ///
    /// What the change is refused for; `ledger_busy` where the queue stays full, or the database fails. A change that
    /// the database failed was not made, unless the connection was lost in the very moment of the commit.
    pub(crate) async fn make(&self, change: Change) -> Outcome {
        if !change.is_long()
            && let Some(outcome) = self.make_at_once(&change)
        {
            return outcome;
        }
        let (answer, answered) = oneshot::channel();
        self.hand_over(Message::Change(Waiting { change, answer })).await?;
        answered.await.unwrap_or_else(|_| Err(sqlx::Error::WorkerCrashed.into()))
    }

    /// Ends a reservation. Every reservation that is made after the first poll of this finds it ended.
    ///
    /// # Errors
    ///
    /// As [`Writer::make`].
    pub(crate) async fn end(&self, finish: Finish) -> Outcome {
        let (answer, answered) = oneshot::channel();
        let waiting = Waiting { change: Change::Finish(finish), answer };
        if let Some(waiting) = self.put_off(waiting) {
            self.hand_over(Message::Change(waiting)).await?;
        }
        answered.await.unwrap_or_else(|_| Err(sqlx::Error::WorkerCrashed.into()))
    }

    /// Makes everything that waits.
    ///
    /// # Errors
    ///
    /// As [`Writer::make`].
    pub(crate) async fn flush(&self) -> Result<(), LedgerError> {
        let (done, all_done) = oneshot::channel();
        self.hand_over(Message::Flush(done)).await?;
        all_done.await.map_err(|_| sqlx::Error::WorkerCrashed.into())
    }

    async fn hand_over(&self, message: Message) -> Result<(), LedgerError> {
        // At once where there is room: a future of the runtime may put off even that.
        let message = match self.queue.try_send(message) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Full(message) | TrySendError::Closed(message)) => message,
        };
        match timeout(PATIENCE, self.queue.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(sqlx::Error::PoolClosed.into()),
            Err(_) => Err(sqlx::Error::PoolTimedOut.into()),
        }
    }

    /// Leaves the end of a reservation to whoever changes the file next; gives it back where there is no file or no room.
    fn put_off(&self, waiting: Waiting) -> Option<Waiting> {
        let Some(here) = &self.here else { return Some(waiting) };
        let mut ends = locked(&here.ends);
        if ends.closed || ends.waiting.len() >= QUEUE {
            return Some(waiting);
        }
        ends.waiting.push(waiting);
        // Where the queue is full there are changes in it, and they take this along.
        ends.told = ends.told || self.queue.try_send(Message::Linger).is_ok();
        None
    }

    /// Makes `change` and some ends of reservations, if that is possible without any wait; whatever else there is to say is
    /// for the task to find out.
    fn make_at_once(&self, change: &Change) -> Option<Outcome> {
        let here = self.here.as_ref().filter(|_| !self.queue.is_closed())?;
        let look = || {
            std::hint::spin_loop();
            here.file.try_lock().ok()
        };
        let mut file = std::iter::repeat_with(look).take(LOOKS).flatten().next()?;
        let (ends, all) = here.some_ends();
        // The change comes last: what was let go is there for it.
        let changes: Vec<&Change> = ends.iter().map(|end| &end.change).chain([change]).collect();
        let Ok(mut outcomes) = file.attempt(&changes, Duration::ZERO) else {
            // One of them is at fault, or somebody else writes.
            locked(&here.ends).waiting.extend(ends);
            return None;
        };
        let outcome = outcomes.pop();
        answer(ends, outcomes);
        // Where the queue is full there are changes in it, after which this is looked at.
        if file.unfolded >= UNFOLDED && !std::mem::replace(&mut file.long, true) {
            let _ = self.queue.try_send(Message::Fold);
        }
        outcome.filter(|outcome| all || outcome.is_ok())
    }

    /// Puts `change` behind those that wait, where there is room, and waits for nothing.
    pub(crate) fn leave(&self, change: Change) {
        let _ = self.queue.try_send(Message::Change(Waiting { change, answer: oneshot::channel().0 }));
    }

    /// Makes every change that waits, and takes no more.
    pub(crate) async fn close(&self) {
        let (done, all_done) = oneshot::channel();
        // An error of either means that the task has ended.
        if self.queue.send(Message::Close(done)).await.is_ok() {
            let _ = all_done.await;
        }
    }
}

struct Task {
    books: Books,
}

/// Where budgets stand.
enum Books {
    /// In a database that others use too.
    Pooled { pool: AnyPool, backend: Backend },
    /// In a file. The second connection to it folds the write-ahead log, beside those who make changes.
    Here { here: Arc<Here>, folder: Mutex<rusqlite::Connection>, log: PathBuf },
}

/// Books in a file.
struct Here {
    file: Mutex<File>,
    ends: Mutex<Ends>,
}

/// Ends of reservations that wait for another change.
#[derive(Default)]
struct Ends {
    waiting: Vec<Waiting>,
    /// Does the task know that there are any?
    told: bool,
    /// No more are taken.
    closed: bool,
}

/// A SQLite file, open for changes in whichever thread holds it.
struct File {
    connection: rusqlite::Connection,
    /// Changes since the write-ahead log was last folded into the file.
    unfolded: usize,
    /// Was the task told that there are many?
    long: bool,
}

impl Here {
    /// Some of the ends that wait, for a change to take along; and whether these are all.
    fn some_ends(&self) -> (Vec<Waiting>, bool) {
        let mut ends = locked(&self.ends);
        let some = ends.waiting.len().min(ALONG);
        let some = ends.waiting.drain(..some).collect();
        (some, ends.waiting.is_empty())
    }
}

impl Task {
    async fn run(self, mut waiting: mpsc::Receiver<Message>) {
        let mut messages = Vec::with_capacity(BATCH);
        let (mut flushed, mut closing) = (Vec::new(), Vec::new());
        let mut due = None;
        loop {
            let more = waiting.recv_many(&mut messages, BATCH);
            let company = match due {
                None => Ok(more.await),
                Some(due) => timeout_at(due, more).await,
            };
            if company == Ok(0) {
                break;
            }
            let mut batch = Vec::with_capacity(messages.len());
            for message in messages.drain(..) {
                match message {
                    Message::Change(waiting) => batch.push(waiting),
                    Message::Linger => due = Some(Instant::now() + LINGER),
                    Message::Flush(done) => flushed.push(done),
                    Message::Fold => {}
                    Message::Close(done) => {
                        waiting.close();
                        closing.push(done);
                    }
                }
            }
            if company.is_err() || !flushed.is_empty() || !batch.is_empty() {
                due = None;
                self.make_ends(|ends| ends.told = false).await;
            }
            if !batch.is_empty() {
                self.make(batch).await;
            }
            for done in flushed.drain(..) {
                let _ = done.send(());
            }
            self.fold();
        }
        self.make_ends(|ends| ends.closed = true).await;
        for done in closing {
            let _ = done.send(());
        }
    }

    /// Makes the ends of reservations that wait, after `then` was noted.
    async fn make_ends(&self, then: impl FnOnce(&mut Ends)) {
        let Books::Here { here, .. } = &self.books else { return };
        let mut ends = {
            let mut ends = locked(&here.ends);
            then(&mut ends);
            std::mem::take(&mut ends.waiting)
        };
        while !ends.is_empty() {
            let rest = ends.split_off(ends.len().min(BATCH));
            self.make(std::mem::replace(&mut ends, rest)).await;
        }
    }

    /// Makes all of `batch` and answers. Who does not wait for the answer any more has no part in it: what was served is
    /// owed all the same.
    async fn make(&self, batch: Vec<Waiting>) {
        match self.attempt(&batch).await {
            Ok(outcomes) => {
                answer(batch, outcomes);
            }
            Err(Failure::Change(_)) if batch.len() > 1 => {
                // One of them is at fault, and the others must not suffer for it.
                let mut rest = batch.into_iter();
                while let Some(waiting) = rest.next() {
                    let outcome = match self.attempt(std::slice::from_ref(&waiting)).await {
                        Ok(outcomes) => {
                            outcomes.into_iter().next().unwrap_or_else(|| Err(sqlx::Error::WorkerCrashed.into()))
                        }
                        Err(Failure::Change(error)) => Err(error.into()),
                        Err(Failure::All(error)) => return fail(std::iter::once(waiting).chain(rest), error),
                    };
                    let _ = waiting.answer.send(outcome);
                }
            }
            Err(Failure::Change(error) | Failure::All(error)) => fail(batch.into_iter(), error),
        }
    }

    /// Makes the changes in one transaction: all that are not refused, or none.
    async fn attempt(&self, batch: &[Waiting]) -> Result<Vec<Outcome>, Failure> {
        let changes: Vec<&Change> = batch.iter().map(|waiting| &waiting.change).collect();
        match &self.books {
            Books::Pooled { pool, backend } => {
                let work = async {
                    let mut transaction = backend.begin_alone(pool).await.map_err(Failure::All)?;
                    let outcomes = apply(&changes, &mut Connection::Pooled(&mut transaction)).await?;
                    transaction.commit().await.map_err(Failure::All)?;
                    Ok(outcomes)
                };
                timeout(LONGEST, work).await.unwrap_or(Err(Failure::All(sqlx::Error::PoolTimedOut)))
            }
            Books::Here { here, log, .. } => {
                let outcomes = locked(&here.file).attempt(&changes, PATIENCE)?;
                if changes.iter().zip(&outcomes).any(|(change, outcome)| change.must_stay(outcome)) {
                    // Who makes a change at once does not wait for the disk meanwhile.
                    sync(log).map_err(|error| Failure::All(sqlx::Error::Io(error)))?;
                }
                Ok(outcomes)
            }
        }
    }

    /// Folds the write-ahead log into the file where there is much of it: most of it while others write, and what they wrote
    /// meanwhile while nobody does, so that the log begins anew. Where others read the file that is for the next time.
    fn fold(&self) {
        let Books::Here { here, folder, .. } = &self.books else { return };
        if locked(&here.file).unfolded < UNFOLDED {
            return;
        }
        let most = fold(&locked(folder));
        let mut file = locked(&here.file);
        (file.unfolded, file.long) = (0, false);
        if let Err(error) = most.and_then(|()| fold(&file.connection)) {
            tracing::warn!(%error, "the ledger's write-ahead log could not be folded into its file");
        }
    }
}

/// What no one panics with who holds it.
fn locked<T>(held: &Mutex<T>) -> MutexGuard<'_, T> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Brings to disk what was committed to the write-ahead log. Where there is none, everything is in the file.
fn sync(log: &Path) -> io::Result<()> {
    match std::fs::File::open(log) {
        Ok(log) => log.sync_data(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn fold(connection: &rusqlite::Connection) -> rusqlite::Result<()> {
    connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", (), |_| Ok(()))
}

impl File {
    fn new(connection: rusqlite::Connection) -> Result<Self, sqlx::Error> {
        // Whoever makes a change at once does not fold the log as well, nor wait for the disk.
        let settings = "PRAGMA wal_autocheckpoint = 0; PRAGMA synchronous = NORMAL";
        connection.execute_batch(settings).map_err(failed)?;
        Ok(Self { connection, unfolded: 0, long: false })
    }

    /// Makes the changes in one transaction: all that are not refused, or none. Another program that writes is waited for
    /// as long as `patience`.
    fn attempt(&mut self, changes: &[&Change], patience: Duration) -> Result<Vec<Outcome>, Failure> {
        let all = |error| Failure::All(failed(error));
        self.connection.busy_timeout(patience).map_err(all)?;
        self.connection.execute_batch("BEGIN IMMEDIATE").map_err(all)?;
        let applied = now(apply(changes, &mut Connection::Here(&mut self.connection)));
        let applied = applied.unwrap_or(Err(Failure::All(sqlx::Error::WorkerCrashed)));
        let done = applied.and_then(|outcomes| self.connection.execute_batch("COMMIT").map(|()| outcomes).map_err(all));
        if done.is_err() && !self.connection.is_autocommit() {
            self.connection.execute_batch("ROLLBACK").map_err(all)?;
        }
        self.unfolded += done.as_ref().map_or(0, Vec::len);
        done
    }
}

/// Tells what came of each change.
fn answer(waiting: Vec<Waiting>, outcomes: Vec<Outcome>) {
    for (waiting, outcome) in waiting.into_iter().zip(outcomes) {
        // Who asked may have left.
        let _ = waiting.answer.send(outcome);
    }
}

async fn apply(changes: &[&Change], connection: &mut Connection<'_>) -> Result<Vec<Outcome>, Failure> {
    let mut outcomes = Vec::with_capacity(changes.len());
    for change in changes {
        outcomes.push(change.apply(connection).await.map_err(Failure::of_change)?);
    }
    Ok(outcomes)
}

impl Change {
    /// Does it take so long that it is no business of whoever has other things to do?
    const fn is_long(&self) -> bool {
        matches!(self, Self::AllCharged(_))
    }

    /// Must it be on disk before anybody builds on it? A file keeps its order: a power cut that spares a mark spares what
    /// was charged before it, and one that does not leaves the mark before. But without any mark nothing would be made good.
    const fn must_stay(&self, outcome: &Outcome) -> bool {
        matches!((self, outcome), (Self::AllCharged(_), Ok(1)))
    }

    /// Makes the change within a transaction. The inner error is a refusal, which leaves nothing behind.
    async fn apply(&self, change: &mut Connection<'_>) -> Result<Outcome, sqlx::Error> {
        match self {
            Self::Reserve(reserve) => reserve.apply(change).await,
            Self::Finish(finish) => Ok(finish.apply(change).await?.map(|()| 0)),
            Self::MakeGood(booked) => Ok(booked.apply(change).await?.map(usize::from)),
            Self::AllCharged(booking) => Ok(Ok(booking.apply(change).await.map(usize::from)?)),
        }
    }
}

/// Answers all of them that the database failed.
fn fail(batch: impl Iterator<Item = Waiting>, error: sqlx::Error) {
    let error = Arc::new(error);
    for waiting in batch {
        let _ = waiting.answer.send(Err(Arc::clone(&error).into()));
    }
}

/// Why a transaction was not made.
enum Failure {
    /// For something that may be due to the one change that was being made.
    Change(sqlx::Error),
    /// For something that every change would meet.
    All(sqlx::Error),
}

impl Failure {
    /// What the database says of a statement is about the statement, unless it says that others are in the way.
    fn of_change(error: sqlx::Error) -> Self {
        let about_it =
            matches!(error, sqlx::Error::Database(_) | sqlx::Error::Decode(_)) && !LedgerError::is_busy(&error);
        if about_it { Self::Change(error) } else { Self::All(error) }
    }
}
