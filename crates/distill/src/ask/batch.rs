//! Asking in batches: many requests in one file, answered within a day and for less.
//!
//! A batch is a file beside the capture before anything is sent, with its name in another (`Left`), and its price is in the
//! ledger. So a program that is killed finds out what became of it: the server's own list of batches says whether one of that
//! name was made. What a batch failed to answer was not charged and goes into the next one.
//!
//! Several answers to one prompt are one line of a batch where the server gives several: the prompt is paid for once.

use std::collections::{BTreeMap, HashMap, VecDeque};
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
use super::send::{Asker, Bad, PURPOSE, Reply, from_chat, from_client};
use super::want::{Index, Maker, Request, Short, Want, Wants, short};
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
    /// Does the server give several answers to one request, as far as is known?
    pub(super) several: bool,
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
    /// Its requests without an answer, by the ids of their first answers.
    requests: HashMap<String, Request>,
}

#[derive(Deserialize)]
struct Named {
    custom_id: Digest,
    body: Several,
}

#[derive(Deserialize)]
struct Several {
    n: Option<u32>,
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
        let mut lines = HashMap::new();
        for line in Lines::<Named>::open(&self.requests())? {
            let Named { custom_id: id, body } = line?;
            if self.index.place(&id).is_none() {
                let problem =
                    "it holds requests of another recipe: end that capture first, or delete both files of the batch";
                return Err(DistillError::Row { path: self.requests(), line: 1, problem: problem.to_owned() });
            }
            lines.insert(short(&id), body.n.unwrap_or(1));
        }
        let (mut all, mut requests, mut unheld) = (Wants::new(self.maker)?, HashMap::new(), Vec::new());
        while let Some(want) = all.next(&self.index)? {
            // It is a line of its own, or one of the answers that the line of the first one asks for.
            let first = self.maker.id(&want.prompt, 0);
            let of_first = lines.get(&short(&first)).copied().filter(|answers| *answers > want.sample);
            let Some(answers) = of_first.or_else(|| lines.get(&short(&want.id)).copied()) else { continue };
            // What was held when it was sent is held still; it is not lost.
            if !self.purse.reclaim(&want) {
                if self.purse.hold(want.most, self.purse.max_tokens) != Held::Yes {
                    let message = "the ceiling does not hold the batch that is under way".to_owned();
                    return Err(DistillError::Nothing(message));
                }
                unheld.push((want.id, want.most, answers));
            }
            let id = if answers > 1 { first } else { want.id };
            requests.entry(id.to_string()).or_insert_with(|| self.line_of(want, answers));
        }
        self.hold(unheld).await?;
        Ok(Some(Open { left, requests }))
    }

    /// The request of a line that asks for `want`: all of its answers, those that are there already too, since the server numbers
    /// them all.
    fn line_of(&self, want: Want, answers: u32) -> Request {
        if answers == 1 {
            return Request::of(vec![want]);
        }
        let sample = |sample: u32| Want {
            id: self.maker.id(&want.prompt, sample),
            place: want.place - want.sample + sample,
            sample,
            ..want.clone()
        };
        Request::of((0..answers).map(sample).collect())
    }

    /// The next batch: as many requests as it may have and as the ceiling holds.
    async fn fill(&mut self) -> Result<Option<Open>, DistillError> {
        let (mut all, mut requests, mut lines) = (Wants::new(self.maker)?, HashMap::new(), Vec::new());
        let mut next: VecDeque<Request> = VecDeque::new();
        while requests.len() < self.settings.size && lines.len() < LARGEST {
            if next.is_empty() {
                next.extend(all.next_request(&self.index, self.several)?);
            }
            let Some(request) = next.pop_front() else { break };
            let tried = |want: &Want| self.tries.get(&short(&want.id)).is_some_and(|tries| *tries >= TRIES);
            if request.wants.iter().all(tried) {
                continue;
            }
            let tokens = self.purse.max_tokens * u64::from(request.count());
            match self.purse.hold(request.most(), tokens) {
                Held::Yes => {}
                Held::NotNow => break,
                // Perhaps it holds one of them.
                Held::Never(_) if request.count() > 1 => {
                    next.extend(request.apart());
                    continue;
                }
                Held::Never(why) => {
                    self.asking.stopped = Some(why);
                    break;
                }
            }
            let line = BatchLine::<ChatRequest> {
                custom_id: request.wants[0].id.to_string(),
                method: "POST".to_owned(),
                url: "/v1/chat/completions".to_owned(),
                body: self.asker.chat_request(self.model, &request.wants),
            };
            // Wire types always have a JSON form.
            lines.extend(serde_json::to_vec(&line).unwrap_or_default());
            lines.push(b'\n');
            requests.insert(line.custom_id, request);
        }
        if requests.is_empty() {
            return Ok(None);
        }
        // The same requests may come again in a later batch, which is another one.
        let now = SystemClock.now().milliseconds().to_le_bytes();
        let left = Left { name: Digest::of_parts(&[b"anbiq batch v1\0", &now, &lines]).to_string(), id: None };
        replace(&self.requests(), |file| std::io::Write::write_all(file, &lines))?;
        self.keep(&left)?;
        let held = requests
            .values()
            .flat_map(|request| request.wants.iter().map(|want| (want.id, want.most, request.count())))
            .collect();
        self.hold(held).await?;
        Ok(Some(Open { left, requests }))
    }

    async fn hold(&mut self, wants: Vec<(Digest, Money, u32)>) -> Result<(), DistillError> {
        if wants.is_empty() {
            return Ok(());
        }
        let safe = self.disk.hold(wants.into_iter()).await?;
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
            self.read(file, &mut open.requests).await?;
        }
        // Of these the server told nothing: it did not come to them.
        for (_, request) in open.requests.drain() {
            self.missed(&request, false).await?;
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
    async fn read(&mut self, file: &str, requests: &mut HashMap<String, Request>) -> Result<(), DistillError> {
        let mut failed = 0;
        loop {
            let error = match self.client.file(file).await {
                Err(error) => error,
                Ok(mut lines) => loop {
                    match lines.next().await {
                        Ok(Some(line)) => self.line(&line, requests).await?,
                        Ok(None) => return Ok(()),
                        Err(error) => break error,
                    }
                },
            };
            pause_after(error, &mut failed).await?;
        }
    }

    async fn line(&mut self, line: &[u8], requests: &mut HashMap<String, Request>) -> Result<(), DistillError> {
        if line.trim_ascii().is_empty() {
            return Ok(());
        }
        let answer: BatchAnswer = serde_json::from_slice(line)
            .map_err(|why| teacher("answer_malformed", format!("a line of the batch's answers is malformed: {why}")))?;
        let Some(request) = requests.remove(&answer.custom_id) else { return Ok(()) };
        match answer.response {
            Some(response) if response.status_code == 200 => {
                let told = serde_json::from_value::<ChatResponse>(response.body).ok();
                match told.map(|response| from_chat(&request.wants, response, Told::default(), true)) {
                    Some(Ok(reply)) => self.answered(request, reply).await,
                    // It was answered and charged, and the answer is of no use.
                    Some(Err(Bad { .. })) | None => {
                        for want in request.wants.iter().filter(|want| self.index.wants(want.place)) {
                            self.purse.lose(want, request.count());
                            again(&mut self.tries, &mut self.asking, self.progress, want, false);
                        }
                        Ok(())
                    }
                }
            }
            response => {
                let never = response.is_some_and(|response| matches!(response.status_code, 400 | 413 | 422));
                self.missed(&request, never).await
            }
        }
    }

    async fn answered(&mut self, mut request: Request, reply: Reply) -> Result<(), DistillError> {
        let (of, class) = (request.count(), self.limits.class_of(true));
        let missing = request.wants.split_off(reply.answers.len().min(request.wants.len()));
        let (mut counted, mut rows) = (Money::ZERO, Vec::new());
        for (want, answer) in request.wants.iter().zip(reply.answers) {
            let cost = self.limits.prices.cost(answer.usage, class);
            counted += cost;
            // Those that were kept before the program was killed are there.
            if self.index.answered(&want.id) {
                self.purse.settle(want, cost, answer.usage, false, of);
                rows.push((want.id, answer.line));
            }
        }
        // Each row counts the prompt that all of them share.
        let saved = counted - self.limits.prices.cost(reply.usage, class);
        self.purse.save(saved);
        self.asking.answered += rows.len() as u64;
        self.progress.advance(rows.len() as u64);
        self.disk.keep(rows.into_iter(), false, of, saved).await?;
        if !missing.is_empty() {
            self.not_several();
            for want in missing.iter().filter(|want| self.index.wants(want.place)) {
                self.purse.release(want.most);
                self.disk.free(&want.id, of).await?;
            }
        }
        Ok(())
    }

    /// The server does not give several answers to a request.
    fn not_several(&mut self) {
        if std::mem::replace(&mut self.several, false) {
            self.progress.note("the server does not give several answers to one request: each is asked for by itself");
        }
    }

    /// A request was not answered and not charged.
    async fn missed(&mut self, request: &Request, never: bool) -> Result<(), DistillError> {
        let of = request.count();
        if never && of > 1 {
            // Perhaps it is the number of answers that it does not accept.
            self.not_several();
        }
        for want in request.wants.iter().filter(|want| self.index.wants(want.place)) {
            self.purse.release(want.most);
            self.disk.free(&want.id, of).await?;
            again(&mut self.tries, &mut self.asking, self.progress, want, never && of == 1);
        }
        Ok(())
    }
}

/// An answer goes into the next batch, unless it never will be given.
fn again(tries: &mut HashMap<Short, u32>, asking: &mut Asking, progress: &dyn Progress, want: &Want, never: bool) {
    let tries = tries.entry(short(&want.id)).or_default();
    *tries = if never { TRIES } else { *tries + 1 };
    if *tries >= TRIES {
        asking.refused += 1;
        progress.advance(1);
    } else {
        asking.retries += 1;
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
