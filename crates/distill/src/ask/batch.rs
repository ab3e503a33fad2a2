//! Asking in batches: many requests in one file, answered within a day and for less.
//!
//! A batch is a file beside the capture before anything is sent, with its name in another (`Left`), and its price is in the
//! ledger. So a program that is killed finds out what became of it: the server's own list of batches says whether one of that
//! name was made. What a batch failed to answer was not charged and goes into the next one.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anbiq_domain::{Clock, Digest, Money, SystemClock};
use anbiq_model::{Fault, ModelError};
use anbiq_openai::{ChatRequest, ChatResponse};
use anbiq_upstream::{Batch, BatchAnswer, BatchLine, Client, ClientError, Told};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use super::disk::{Disk, replace};
use super::purse::{Held, Purse};
use super::send::{Asker, Bad, PURPOSE, from_chat, from_client};
use super::want::{Index, Maker, Short, Want, Wants, short};
use super::{Asking, Limits, TRIES};
use crate::DistillError;
use crate::data::{Lines, read_json};
use crate::progress::Progress;
use crate::recipe::BatchPart;

/// Bytes of one upload: servers take some hundred million, and the whole of it is in memory while it is sent.
const LARGEST: usize = 64 << 20;

/// The longest pause between two tries at the server.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Pages of the server's list in which a batch is sought.
const PAGES: usize = 100;

/// The ending of the file with what is known of a batch under way.
const STATE: &str = "batch.json";

/// What a batch is known by at the server.
const NAME: &str = "anbiq";

/// A capture that asks in batches.
pub(super) struct Batches<'recipe> {
    pub(super) source: &'recipe Path,
    pub(super) client: &'recipe Client,
    pub(super) model: &'recipe str,
    pub(super) asker: std::sync::Arc<Asker>,
    pub(super) settings: BatchPart,
    pub(super) limits: Limits,
    pub(super) maker: &'recipe Maker<'recipe>,
    pub(super) index: Index,
    pub(super) purse: Purse,
    pub(super) disk: Disk,
    pub(super) progress: &'recipe dyn Progress,
    pub(super) asking: Asking,
    /// How often requests failed.
    pub(super) tries: HashMap<Short, u32>,
}

/// What is known of the batch under way, beside its requests.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Left {
    /// No other batch has it.
    name: String,
    /// The server's name for it, once it is known to be made.
    id: Option<String>,
}

/// A batch under way.
struct Open {
    left: Left,
    /// Its requests without an answer, by their ids.
    wants: HashMap<String, Want>,
}

#[derive(Deserialize)]
struct Named {
    custom_id: Digest,
}

/// Whoever asks one by one while a batch of the same capture is under way pays twice for it.
pub(super) fn refuse_if_open(source: &Path) -> Result<(), DistillError> {
    let path = source.with_added_extension(STATE);
    if !path.exists() {
        return Ok(());
    }
    let problem = "a batch of this capture is under way: go on with `batch` until it has ended";
    Err(DistillError::Row { path, line: 1, problem: problem.to_owned() })
}

impl Batches<'_> {
    /// Asks batch after batch until nothing is wanted that can be had. A teacher that fails for good is said in the end.
    pub(super) async fn work(&mut self) -> Result<Option<DistillError>, DistillError> {
        loop {
            let open = match self.left_over().await? {
                Some(open) => open,
                None => match self.fill().await? {
                    Some(open) => open,
                    None => return Ok(None),
                },
            };
            match self.one(open).await {
                Err(error @ DistillError::Teacher(_)) => return Ok(Some(error)),
                other => other?,
            }
        }
    }

    fn requests(&self) -> PathBuf {
        self.source.with_added_extension("batch")
    }

    fn state(&self) -> PathBuf {
        self.source.with_added_extension(STATE)
    }

    /// The batch that an earlier run left.
    async fn left_over(&mut self) -> Result<Option<Open>, DistillError> {
        if !self.requests().exists() || !self.state().exists() {
            // Without its name it was not sent.
            self.forget()?;
            return Ok(None);
        }
        let left: Left = read_json(&self.state())?;
        let mut ids = HashSet::new();
        for line in Lines::<Named>::open(&self.requests())? {
            let id = line?.custom_id;
            if self.index.place(&id).is_none() {
                let problem =
                    "it holds requests of another recipe: end that capture first, or delete both files of the batch";
                return Err(DistillError::Row { path: self.requests(), line: 1, problem: problem.to_owned() });
            }
            ids.insert(short(&id));
        }
        let (mut all, mut wants, mut unheld) = (Wants::new(self.maker)?, HashMap::new(), Vec::new());
        while let Some(want) = all.next(&self.index)? {
            if !ids.contains(&short(&want.id)) {
                continue;
            }
            // What was held when it was sent is held still; it is not lost.
            if !self.purse.reclaim(&want) {
                if self.purse.hold(want.most, self.purse.max_tokens) != Held::Yes {
                    let message = "the ceiling does not hold the batch that is under way".to_owned();
                    return Err(DistillError::Nothing(message));
                }
                unheld.push((want.id, want.most));
            }
            wants.insert(want.id.to_string(), want);
        }
        self.hold(unheld).await?;
        Ok(Some(Open { left, wants }))
    }

    /// The next batch: as many requests as it may have and as the ceiling holds.
    async fn fill(&mut self) -> Result<Option<Open>, DistillError> {
        let (mut all, mut wants, mut lines) = (Wants::new(self.maker)?, HashMap::new(), Vec::new());
        while wants.len() < self.settings.size && lines.len() < LARGEST {
            let Some(want) = all.next(&self.index)? else { break };
            if self.tries.get(&short(&want.id)).is_some_and(|tries| *tries >= TRIES) {
                continue;
            }
            match self.purse.hold(want.most, self.purse.max_tokens) {
                Held::Yes => {}
                Held::NotNow => break,
                Held::Never(why) => {
                    self.asking.stopped = Some(why);
                    break;
                }
            }
            let line = BatchLine::<ChatRequest> {
                custom_id: want.id.to_string(),
                method: "POST".to_owned(),
                url: "/v1/chat/completions".to_owned(),
                body: self.asker.chat_request(self.model, std::slice::from_ref(&want)),
            };
            // Wire types always have a JSON form.
            lines.extend(serde_json::to_vec(&line).unwrap_or_default());
            lines.push(b'\n');
            wants.insert(want.id.to_string(), want);
        }
        if wants.is_empty() {
            return Ok(None);
        }
        // The same requests may come again in a later batch, which is another one.
        let now = SystemClock.now().milliseconds().to_le_bytes();
        let left = Left { name: Digest::of_parts(&[b"anbiq batch v1\0", &now, &lines]).to_string(), id: None };
        replace(&self.requests(), |file| std::io::Write::write_all(file, &lines))?;
        self.keep(&left)?;
        self.hold(wants.values().map(|want| (want.id, want.most)).collect()).await?;
        Ok(Some(Open { left, wants }))
    }

    async fn hold(&mut self, requests: Vec<(Digest, Money)>) -> Result<(), DistillError> {
        if requests.is_empty() {
            return Ok(());
        }
        let safe = self.disk.hold(requests.into_iter().map(|(id, most)| (id, most, 1))).await?;
        if safe.await.is_err() {
            self.disk.failure().await?;
        }
        Ok(())
    }

    fn keep(&self, left: &Left) -> Result<(), DistillError> {
        replace(&self.state(), |file| Ok(serde_json::to_writer(file, left)?))
    }

    /// The name goes first: requests without one were never sent.
    fn forget(&self) -> Result<(), DistillError> {
        for path in [self.state(), self.requests()] {
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(DistillError::write(&path)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Brings a batch to its end.
    async fn one(&mut self, mut open: Open) -> Result<(), DistillError> {
        let id = self.begin(&mut open.left).await?;
        let batch = self.wait(&id).await?;
        for file in [&batch.output_file_id, &batch.error_file_id].into_iter().flatten() {
            self.read(file, &mut open.wants).await?;
        }
        // Of these the server told nothing: it did not come to them.
        for (_, want) in open.wants.drain() {
            self.missed(&want, false).await?;
        }
        // Only what is on disk may be forgotten at the server.
        self.disk.sync().await?;
        self.forget()?;
        if batch.status == "failed" {
            let why = batch.problem().unwrap_or("the server does not say why");
            return Err(teacher("batch_failed", format!("the batch `{id}` failed: {why}")));
        }
        Ok(())
    }

    /// The server's name for the batch, which is made where there is none.
    async fn begin(&mut self, left: &mut Left) -> Result<String, DistillError> {
        if let Some(id) = &left.id {
            return Ok(id.clone());
        }
        let mut failed = 0;
        let batch = loop {
            match self.found_or_made(&left.name).await {
                Ok(batch) => break batch,
                Err(error) => pause_after(error, &mut failed).await?,
            }
        };
        left.id = Some(batch.id.clone());
        self.keep(left)?;
        self.progress.note(&format!("batch `{}` is under way", batch.id));
        Ok(batch.id)
    }

    /// A connection that broke says nothing about whether a batch was made: the server's list does.
    async fn found_or_made(&self, name: &str) -> Result<Batch, ClientError> {
        let mut after = None;
        for _ in 0..PAGES {
            let page = self.client.batches(after.as_deref()).await?;
            after = page.data.last().map(|batch| batch.id.clone());
            let is_it =
                |batch: &Batch| batch.metadata.as_ref().and_then(|all| all.get(NAME)).is_some_and(|is| is == name);
            if let Some(batch) = page.data.into_iter().find(is_it) {
                return Ok(batch);
            }
            if !page.has_more || after.is_none() {
                break;
            }
        }
        let lines = std::fs::read(self.requests())
            .map_err(|error| ClientError::setup(format!("cannot read {}: {error}", self.requests().display())))?;
        let headers = [(PURPOSE.0.to_owned(), PURPOSE.1.to_owned())];
        let file = self.client.upload_batch(&lines, &headers).await?;
        self.client.create_batch(&file, &BTreeMap::from([(NAME.to_owned(), name.to_owned())]), &headers).await
    }

    /// Asks again and again until it has ended.
    async fn wait(&self, id: &str) -> Result<Batch, DistillError> {
        let (begun, longest) = (Instant::now(), Duration::from_secs(self.settings.hours * 3600));
        let most = Duration::from_millis(self.settings.poll_ms);
        let mut pause = Duration::from_secs(1).min(most);
        loop {
            match self.client.batch(id).await {
                Ok(batch) if batch.has_ended() => return Ok(batch),
                Err(error) if !error.retryable() => return Err(from_client(error).error.into()),
                _ => {}
            }
            if begun.elapsed() > longest {
                let message = format!(
                    "the batch `{id}` has not ended in {} hours; the same command waits on",
                    self.settings.hours
                );
                return Err(teacher("batch_late", message));
            }
            sleep(pause).await;
            pause = (pause * 2).min(most);
        }
    }

    /// Takes the answers of a file; those that were taken before the connection broke are known.
    async fn read(&mut self, file: &str, wants: &mut HashMap<String, Want>) -> Result<(), DistillError> {
        let mut failed = 0;
        loop {
            let error = match self.client.file(file).await {
                Err(error) => error,
                Ok(mut lines) => loop {
                    match lines.next().await {
                        Ok(Some(line)) => self.line(&line, wants).await?,
                        Ok(None) => return Ok(()),
                        Err(error) => break error,
                    }
                },
            };
            pause_after(error, &mut failed).await?;
        }
    }

    async fn line(&mut self, line: &[u8], wants: &mut HashMap<String, Want>) -> Result<(), DistillError> {
        if line.trim_ascii().is_empty() {
            return Ok(());
        }
        let answer: BatchAnswer = serde_json::from_slice(line)
            .map_err(|why| teacher("answer_malformed", format!("a line of the batch's answers is malformed: {why}")))?;
        let Some(want) = wants.remove(&answer.custom_id) else { return Ok(()) };
        match answer.response {
            Some(response) if response.status_code == 200 => {
                let told = serde_json::from_value::<ChatResponse>(response.body).ok();
                let wants = std::slice::from_ref(&want);
                let reply = told.map(|response| from_chat(wants, response, Told::default(), true));
                match reply.map(|reply| reply.map(|reply| reply.answers.into_iter().next())) {
                    Some(Ok(Some(answered))) => {
                        let cost = self.limits.prices.cost(answered.usage, self.limits.class_of(true));
                        self.purse.settle(&want, cost, answered.usage, false, 1);
                        self.disk.keep(std::iter::once((want.id, answered.line)), false, 1, Money::ZERO).await?;
                        self.index.answered(&want.id);
                        self.asking.answered += 1;
                        self.progress.advance(1);
                        Ok(())
                    }
                    // It was answered and charged, and the answer is of no use.
                    Some(Err(Bad { .. }) | Ok(None)) | None => {
                        self.purse.lose(&want, 1);
                        self.again(&want, false);
                        Ok(())
                    }
                }
            }
            response => {
                let never = response.is_some_and(|response| matches!(response.status_code, 400 | 413 | 422));
                self.missed(&want, never).await
            }
        }
    }

    /// A request was not answered and not charged.
    async fn missed(&mut self, want: &Want, never: bool) -> Result<(), DistillError> {
        self.purse.release(want.most);
        self.disk.free(&want.id, 1).await?;
        self.again(want, never);
        Ok(())
    }

    /// It goes into the next batch, unless it never will be answered.
    fn again(&mut self, want: &Want, never: bool) {
        let tries = self.tries.entry(short(&want.id)).or_default();
        *tries = if never { TRIES } else { *tries + 1 };
        if *tries >= TRIES {
            self.asking.refused += 1;
            self.progress.advance(1);
        } else {
            self.asking.retries += 1;
        }
    }
}

/// Waits before another try, longer each time; or gives the error of one that is of no use.
async fn pause_after(error: ClientError, failed: &mut u32) -> Result<(), DistillError> {
    *failed += 1;
    if !error.retryable() || *failed >= TRIES {
        return Err(from_client(error).error.into());
    }
    let told = error.retry_after_ms.map(Duration::from_millis);
    sleep(told.unwrap_or(Duration::from_millis(250) * 2_u32.pow(*failed)).min(LONGEST_PAUSE)).await;
    Ok(())
}

fn teacher(code: &'static str, message: String) -> DistillError {
    ModelError::new(Fault::Model, code, message).into()
}
