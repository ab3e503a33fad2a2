//! The one task that changes budgets. It takes all changes that wait, makes one transaction of them and only then
//! answers: a disk needs as long to sync one change as two hundred.

use std::sync::Arc;
use std::time::Duration;

use sqlx::AnyPool;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::backend::Backend;
use crate::connection::{Connection, failed};
use crate::reserve::{Finish, Holding};
use crate::{LedgerError, PATIENCE};

/// Changes that may wait. When there are more, a caller waits for its place in the queue.
const QUEUE: usize = 4096;

/// Most changes of one transaction.
const BATCH: usize = 256;

/// Longest time for one transaction. The database ends its own waits sooner; this is for one that went silent.
const LONGEST: Duration = Duration::from_secs(60);

/// A change of budgets; it happens as a whole or not at all.
#[derive(Debug)]
pub(crate) enum Change {
    Reserve(Holding),
    Finish(Finish),
}

/// The queue in front of the task. Clones share it; the task ends with the last of them, or when it is closed.
#[derive(Clone)]
pub(crate) struct Writer {
    queue: mpsc::Sender<Message>,
}

enum Message {
    Change(Waiting),
    Close(oneshot::Sender<()>),
}

/// Which way a reservation is paid, zero for other changes; or why it is refused.
type Outcome = Result<usize, LedgerError>;

/// A change, and who waits for it.
struct Waiting {
    change: Change,
    answer: oneshot::Sender<Outcome>,
}

impl Writer {
    /// Starts the task: in a thread of its own where it has the `file` to itself, else over `pool`.
    pub(crate) fn start(
        pool: AnyPool,
        backend: Backend,
        file: Option<rusqlite::Connection>,
    ) -> Result<Self, LedgerError> {
        let (queue, waiting) = mpsc::channel(QUEUE);
        let Some(file) = file else {
            tokio::spawn(Task { books: Books::Pooled { pool, backend } }.run(waiting));
            return Ok(Self { queue });
        };
        // It waits for nothing but its queue and the clock.
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(LedgerError::Thread)?;
        let task = Task { books: Books::Here { file, synced: true } };
        let named = std::thread::Builder::new().name("ledger".to_owned());
        named.spawn(move || runtime.block_on(task.run(waiting))).map_err(LedgerError::Thread)?;
        Ok(Self { queue })
    }

    /// Makes `change`, which is on disk when this returns. The task gives every change an answer in bounded time.
    ///
    /// # Errors
    ///
    /// What the change is refused for; `ledger_busy` where the queue stays full, or the database fails. A change that
    /// the database failed was not made, unless the connection was lost in the very moment of the commit.
    pub(crate) async fn make(&self, change: Change) -> Outcome {
        let (answer, answered) = oneshot::channel();
        let message = Message::Change(Waiting { change, answer });
        match timeout(PATIENCE, self.queue.send(message)).await {
            Ok(Ok(())) => answered.await.unwrap_or_else(|_| Err(sqlx::Error::WorkerCrashed.into())),
            Ok(Err(_)) => Err(sqlx::Error::PoolClosed.into()),
            Err(_) => Err(sqlx::Error::PoolTimedOut.into()),
        }
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
    /// In a file that this task has open for itself; is a commit on disk when it is made?
    Here { file: rusqlite::Connection, synced: bool },
}

impl Task {
    async fn run(mut self, mut waiting: mpsc::Receiver<Message>) {
        let mut messages = Vec::with_capacity(BATCH);
        let mut closing = Vec::new();
        while waiting.recv_many(&mut messages, BATCH).await > 0 {
            let mut batch = Vec::with_capacity(messages.len());
            for message in messages.drain(..) {
                match message {
                    Message::Change(waiting) => batch.push(waiting),
                    Message::Close(done) => {
                        waiting.close();
                        closing.push(done);
                    }
                }
            }
            if !batch.is_empty() {
                self.make(batch).await;
            }
        }
        for done in closing {
            let _ = done.send(());
        }
    }

    /// Makes all of `batch` and answers. Who does not wait for the answer any more has no part in it: what was served is
    /// owed all the same.
    async fn make(&mut self, batch: Vec<Waiting>) {
        match self.attempt(&batch).await {
            Ok(outcomes) => {
                for (waiting, outcome) in batch.into_iter().zip(outcomes) {
                    let _ = waiting.answer.send(outcome);
                }
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
    async fn attempt(&mut self, batch: &[Waiting]) -> Result<Vec<Outcome>, Failure> {
        let work = async {
            match &mut self.books {
                Books::Pooled { pool, backend } => {
                    let mut transaction = backend.begin_alone(pool).await.map_err(Failure::All)?;
                    let outcomes = apply(batch, &mut Connection::Pooled(&mut transaction)).await?;
                    transaction.commit().await.map_err(Failure::All)?;
                    Ok(outcomes)
                }
                Books::Here { file, synced } => {
                    let all = |error| Failure::All(failed(error));
                    sync(file, synced, batch.iter().any(|waiting| waiting.change.must_stay())).map_err(all)?;
                    file.execute_batch("BEGIN IMMEDIATE").map_err(all)?;
                    let applied = apply(batch, &mut Connection::Here(file)).await;
                    let done =
                        applied.and_then(|outcomes| file.execute_batch("COMMIT").map(|()| outcomes).map_err(all));
                    if done.is_err() && !file.is_autocommit() {
                        file.execute_batch("ROLLBACK").map_err(all)?;
                    }
                    done
                }
            }
        };
        timeout(LONGEST, work).await.unwrap_or(Err(Failure::All(sqlx::Error::PoolTimedOut)))
    }
}

async fn apply(batch: &[Waiting], connection: &mut Connection<'_>) -> Result<Vec<Outcome>, Failure> {
    let mut outcomes = Vec::with_capacity(batch.len());
    for waiting in batch {
        outcomes.push(waiting.change.apply(connection).await.map_err(Failure::of_change)?);
    }
    Ok(outcomes)
}

/// Whether the commits to come wait for the disk.
fn sync(file: &rusqlite::Connection, synced: &mut bool, sync: bool) -> rusqlite::Result<()> {
    if *synced != sync {
        file.execute_batch(if sync { "PRAGMA synchronous = FULL" } else { "PRAGMA synchronous = NORMAL" })?;
        *synced = sync;
    }
    Ok(())
}

impl Change {
    /// Must it be on disk before anybody builds on it? Reservations in a file need not be: the gateway that holds them goes
    /// down with the machine whose disk forgets them, and what it was about to serve with it. The end of one brings it to
    /// disk as well, since a file keeps its order.
    const fn must_stay(&self) -> bool {
        matches!(self, Self::Finish(_))
    }

    /// Makes the change within a transaction. The inner error is a refusal, which leaves nothing behind.
    async fn apply(&self, connection: &mut Connection<'_>) -> Result<Outcome, sqlx::Error> {
        match self {
            Self::Reserve(reserve) => reserve.apply(connection).await,
            Self::Finish(finish) => Ok(finish.apply(connection).await?.map(|()| 0)),
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
