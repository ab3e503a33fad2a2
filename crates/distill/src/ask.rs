//! Asking a teacher: as fast as it lets us, never beyond the ceiling, and never twice for the same answer.
//!
//! Two files: the capture itself, one [`Row`] a line, and beside it a log of what was sent, on disk before it is sent. A
//! program that is killed leaves answers that were perhaps paid for and never arrived; the log makes them count against
//! the ceiling for ever, at the most that they can have cost.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anbiq_domain::{Answer, Digest, Finish, Money, PriceClass, PriceList, Prompt, Seeded, Usage};
use anbiq_model::{Event, Fault, Model, ModelError, Request, Sampling};
use anbiq_openai::{ChatMessage, ChatRequest, ChatTokenLogprob, FinishReason};
use anbiq_upstream::{Client, ClientError, ErrorKind};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep_until, timeout};

use crate::DistillError;
use crate::capture::{Row, Token};
use crate::data::{Asked, Document, Lines};
use crate::progress::Progress;
use crate::recipe::AskPart;

/// Where the answers come from.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "a run has one of them")]
pub enum Endpoint {
    /// A server that speaks the OpenAI dialect.
    Http {
        /// How to reach it.
        client: Client,
        /// The name that it knows the teacher by.
        model: String,
    },
    /// Any other model: one in this process.
    Model(Arc<dyn Model>),
}

/// What asking came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asking {
    /// Answers that were to be had.
    pub requests: u64,
    /// Answers that were there already.
    pub reused: u64,
    /// Answers that came now.
    pub answered: u64,
    /// Requests that the teacher will not answer.
    pub refused: u64,
    /// Further tries after one that failed.
    pub retries: u64,
    /// What was spent on this file, over all runs.
    pub cost: Money,
    /// The most that was spent besides on answers that never arrived.
    pub lost: Money,
    /// Why it stopped before the end, if it did.
    pub stopped: Option<String>,
}

/// What asking must keep to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// What the answers cost.
    pub(crate) prices: PriceList,
    pub(crate) class: PriceClass,
    /// The most completion tokens that the teacher's terms or grant allow.
    pub(crate) tokens: Option<u64>,
    pub(crate) seed: u64,
}

/// Tries of one request before the run ends.
const TRIES: u32 = 8;

/// What every request says: a gateway that sells distillation knows what it is for, and one that forbids it too.
const PURPOSE: (&str, &str) = ("x-anbiq-purpose", "distillation");

/// One answer to be had.
#[derive(Debug, Clone)]
struct Wanted {
    id: Digest,
    prompt: Prompt,
    seed: u64,
    /// The most that it can cost.
    most: Money,
    tries: u32,
    /// When it may be tried again.
    not_before: Instant,
}

/// Asks `endpoint` for every answer that `part` wants and that `source` does not hold yet. In the end `source` holds them
/// in the order of the prompts: equal answers give equal bytes, however often the work was interrupted.
pub(crate) async fn ask(
    source: &Path,
    teacher: &str,
    part: &AskPart,
    limits: Limits,
    endpoint: &Endpoint,
    progress: &dyn Progress,
) -> Result<Asking, DistillError> {
    let wanted = wanted(teacher, part, limits)?;
    let order: HashMap<Digest, usize> = wanted.iter().enumerate().map(|(place, wanted)| (wanted.id, place)).collect();
    let mut files = Files::open(source)?;
    let mut purse = Purse::new(part, limits, &files);
    let mut asking = Asking { requests: wanted.len() as u64, ..Asking::default() };
    progress.stage("asking the teacher", Some(wanted.len() as u64));
    let (there, missing): (Vec<Wanted>, Vec<Wanted>) =
        wanted.into_iter().partition(|wanted| files.answered.contains_key(&wanted.id));
    asking.reused = there.len() as u64;
    progress.advance(asking.reused);

    let mut waiting: VecDeque<Wanted> = missing.into();
    let mut window = Window::new(part.concurrency);
    let mut random = Seeded::new(limits.seed).fork("waiting between tries");
    let mut under_way = FuturesUnordered::new();
    let mut pause: Option<Instant> = None;
    let mut failure: Option<DistillError> = None;
    let mut unsynced = false;
    loop {
        let now = Instant::now();
        pause = pause.filter(|end| *end > now);
        while failure.is_none() && asking.stopped.is_none() && pause.is_none() && under_way.len() < window.size() {
            let Some(place) = waiting.iter().position(|wanted| wanted.not_before <= now) else { break };
            match purse.hold(waiting[place].most, u64::from(part.max_tokens)) {
                Held::Yes => {}
                Held::NotNow => break,
                Held::Never(why) => {
                    asking.stopped = Some(why);
                    break;
                }
            }
            let Some(next) = waiting.remove(place) else { break };
            files.log(&Sent { id: next.id, most: Some(next.most) })?;
            // It is not sent before it is polled, below.
            under_way.push(one(endpoint, part, next));
            unsynced = true;
        }
        if std::mem::take(&mut unsynced) {
            files.sync_log()?;
        }
        let goes_on = failure.is_none() && asking.stopped.is_none() && under_way.len() < window.size();
        let soonest = || waiting.iter().map(|wanted| wanted.not_before).filter(|end| *end > now).min();
        let finished = match pause.or_else(|| soonest().filter(|_| goes_on)) {
            Some(end) => tokio::select! {
                biased;
                Some(finished) = under_way.next() => Some(finished),
                () = sleep_until(end) => None,
            },
            None => match under_way.next().await {
                Some(finished) => Some(finished),
                None => break,
            },
        };
        let Some((mut wanted, outcome)) = finished else { continue };
        match outcome {
            Ok(row) => {
                let cost = limits.prices.cost(row.usage, limits.class);
                purse.settle(wanted.most, u64::from(part.max_tokens), cost, row.usage.completion_tokens);
                files.keep(&wanted.id, &row)?;
                window.grow();
                asking.answered += 1;
                progress.advance(1);
            }
            Err(bad) => {
                if bad.charged {
                    // Perhaps it was answered and the answer lost: it stays counted.
                    purse.lose(wanted.most, u64::from(part.max_tokens));
                } else {
                    purse.release(wanted.most, u64::from(part.max_tokens));
                    files.log(&Sent { id: wanted.id, most: None })?;
                }
                wanted.tries += 1;
                match bad.remedy {
                    Remedy::Retry { after_ms } if wanted.tries < TRIES => {
                        asking.retries += 1;
                        let wait = after_ms.unwrap_or_else(|| backoff(wanted.tries, &mut random));
                        wanted.not_before = Instant::now() + Duration::from_millis(wait);
                        if bad.busy {
                            // One who is asked to slow down slows everything down, not this request alone.
                            window.shrink();
                            pause = pause.max(Some(wanted.not_before));
                        }
                        waiting.push_front(wanted);
                    }
                    Remedy::Skip => {
                        asking.refused += 1;
                        progress.note(&bad.error.to_string());
                        progress.advance(1);
                    }
                    Remedy::Retry { .. } | Remedy::Stop => {
                        failure.get_or_insert(DistillError::Teacher(bad.error));
                    }
                }
            }
        }
    }
    files.finish(&order)?;
    asking.cost = purse.spent;
    asking.lost = purse.lost;
    if let Some(why) = &asking.stopped {
        progress.note(why);
    }
    failure.map_or(Ok(asking), Err)
}

/// Every answer that is to be had, in the order of the prompts.
fn wanted(teacher: &str, part: &AskPart, limits: Limits) -> Result<Vec<Wanted>, DistillError> {
    let seeds = Seeded::new(limits.seed).fork("answers");
    let (now, mut all) = (Instant::now(), Vec::new());
    let mut seen = HashSet::new();
    for document in Lines::<Document>::open(&part.prompts)? {
        let prompt = document?.prompt();
        for sample in 0..part.answers {
            let id = request_id(teacher, part, &prompt, sample);
            if seen.insert(id) {
                let most = limits.prices.cost(most_usage(&prompt, part.max_tokens), limits.class);
                let seed = seeds.fork(&id.to_string()).bits();
                all.push(Wanted { id, prompt: prompt.clone(), seed, most, tries: 0, not_before: now });
            }
        }
    }
    Ok(all)
}

/// The digest of everything that an answer depends on. The address of the server is not part of it: a teacher may move.
fn request_id(teacher: &str, part: &AskPart, prompt: &Prompt, sample: u32) -> Digest {
    let settings = (teacher, &part.model, part.max_tokens, part.temperature.to_bits(), part.logprobs, sample);
    // Numbers and texts always have a JSON form.
    let settings = serde_json::to_string(&settings).unwrap_or_default();
    Digest::of_parts(&[b"anbiq request v1\0", settings.as_bytes(), b"\0", prompt.canonical().as_bytes()])
}

/// The most tokens that an exchange can take: no token is shorter than a byte, and a template adds a few a message.
pub(crate) fn most_usage(prompt: &Prompt, max_tokens: u32) -> Usage {
    let prompt_tokens = match prompt {
        Prompt::Chat(messages) => messages.iter().map(|message| message.bytes() as u64 + 16).sum::<u64>() + 32,
        Prompt::Text(text) => text.len() as u64 + 32,
    };
    Usage { prompt_tokens, completion_tokens: u64::from(max_tokens), ..Usage::default() }
}

/// Full jitter (Brooker 2015): uniform up to a limit that doubles with each try, from half a second to a minute.
fn backoff(tries: u32, random: &mut Seeded) -> u64 {
    let limit = (500_u64 << tries.min(7)).min(60_000);
    50 + random.below(usize::try_from(limit).unwrap_or(usize::MAX)) as u64
}

/// How many requests are under way: one more after each round that went well, half after a refusal (Chiu and Jain 1989).
struct Window {
    size: f64,
    most: f64,
}

impl Window {
    fn new(most: usize) -> Self {
        Self { size: (most as f64 / 4.0).max(1.0), most: most as f64 }
    }

    fn size(&self) -> usize {
        self.size as usize
    }

    fn grow(&mut self) {
        self.size = (self.size + 1.0 / self.size).min(self.most);
    }

    fn shrink(&mut self) {
        self.size = (self.size / 2.0).max(1.0);
    }
}

/// The money and the volume: what is spent, and what requests under way may still cost.
struct Purse {
    ceiling: Money,
    volume: u64,
    spent: Money,
    lost: Money,
    held: Money,
    used: u64,
    held_tokens: u64,
}

enum Held {
    Yes,
    /// What is under way may leave enough.
    NotNow,
    Never(String),
}

impl Purse {
    fn new(part: &AskPart, limits: Limits, files: &Files) -> Self {
        let cost = |usage: &Usage| limits.prices.cost(*usage, limits.class);
        Self {
            ceiling: part.ceiling,
            volume: limits.tokens.unwrap_or(u64::MAX),
            spent: files.answered.values().map(cost).sum(),
            lost: files.lost.iter().copied().sum(),
            held: Money::ZERO,
            used: files.answered.values().map(|usage| usage.completion_tokens).sum::<u64>()
                + files.lost.len() as u64 * u64::from(part.max_tokens),
            held_tokens: 0,
        }
    }

    fn hold(&mut self, most: Money, tokens: u64) -> Held {
        let certain = self.spent + self.lost;
        if certain + self.held + most <= self.ceiling && self.used + self.held_tokens + tokens <= self.volume {
            self.held += most;
            self.held_tokens += tokens;
            return Held::Yes;
        }
        if self.held > Money::ZERO || self.held_tokens > 0 {
            return Held::NotNow;
        }
        Held::Never(if certain + most > self.ceiling {
            format!("the ceiling of ${} does not hold another answer: ${certain} are spent", self.ceiling)
        } else {
            format!("the volume of {} completion tokens does not hold another answer", self.volume)
        })
    }

    fn release(&mut self, most: Money, tokens: u64) {
        self.held = self.held - most;
        self.held_tokens -= tokens;
    }

    fn settle(&mut self, most: Money, tokens: u64, cost: Money, used: u64) {
        self.release(most, tokens);
        self.spent += cost;
        self.used += used;
    }

    /// A request under way becomes a loss, at the most that it can have cost.
    fn lose(&mut self, most: Money, tokens: u64) {
        self.release(most, tokens);
        self.lost += most;
        self.used += tokens;
    }
}

/// A line of the log beside the capture.
#[derive(Debug, Serialize, Deserialize)]
struct Sent {
    id: Digest,
    /// The most that it can cost; absent where it turned out that it was not answered and cost nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    most: Option<Money>,
}

/// The capture under way and its log.
struct Files {
    source: PathBuf,
    rows: File,
    log: File,
    answered: HashMap<Digest, Usage>,
    /// What was sent and never answered.
    lost: Vec<Money>,
}

impl Files {
    fn open(source: &Path) -> Result<Self, DistillError> {
        let mut answered = HashMap::new();
        let rows = append(source, |row: Row| {
            if let Some(id) = row.id {
                answered.insert(id, row.usage);
            }
        })?;
        // How often each request was sent without the server saying that it costs nothing, and its price.
        let mut open: HashMap<Digest, Vec<Money>> = HashMap::new();
        let log = append(&log_path(source), |sent: Sent| {
            let prices = open.entry(sent.id).or_default();
            match sent.most {
                Some(most) => prices.push(most),
                None => drop(prices.pop()),
            }
        })?;
        for id in answered.keys() {
            // One of the tries was the one that was answered.
            open.get_mut(id).map(Vec::pop);
        }
        let lost = open.into_values().flatten().collect();
        Ok(Self { source: source.to_owned(), rows, log, answered, lost })
    }

    fn log(&mut self, sent: &Sent) -> Result<(), DistillError> {
        write_line(&mut self.log, sent).map_err(DistillError::write(&log_path(&self.source)))
    }

    /// Waits for the disk: a request must not leave before its line is safe.
    fn sync_log(&mut self) -> Result<(), DistillError> {
        self.log.sync_data().map_err(DistillError::write(&log_path(&self.source)))
    }

    /// Keeps an answer. A crash of the machine may still lose it; the log then counts what it cost.
    fn keep(&mut self, id: &Digest, row: &Row) -> Result<(), DistillError> {
        write_line(&mut self.rows, row).map_err(DistillError::write(&self.source))?;
        self.answered.insert(*id, row.usage);
        Ok(())
    }

    /// Puts the rows in the order of the prompts; rows of other requests keep their order after them.
    fn finish(self, order: &HashMap<Digest, usize>) -> Result<(), DistillError> {
        self.rows.sync_all().map_err(DistillError::write(&self.source))?;
        let mut rows: Vec<(usize, Row)> = Vec::new();
        for row in Lines::<Row>::open(&self.source)? {
            let row = row?;
            let place = row.id.and_then(|id| order.get(&id).copied()).unwrap_or(usize::MAX);
            rows.push((place, row));
        }
        if rows.is_sorted_by_key(|(place, _)| *place) {
            return Ok(());
        }
        rows.sort_by_key(|(place, _)| *place);
        let new = with_suffix(&self.source, ".new");
        let write = || -> std::io::Result<()> {
            let mut file = std::io::BufWriter::new(File::create(&new)?);
            for (_, row) in &rows {
                write_line(&mut file, row)?;
            }
            file.into_inner()?.sync_all()?;
            std::fs::rename(&new, &self.source)
        };
        write().map_err(DistillError::write(&self.source))
    }
}

fn log_path(source: &Path) -> PathBuf {
    with_suffix(source, ".sent")
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn write_line(file: &mut impl Write, value: &impl Serialize) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    file.write_all(&line)
}

/// Opens a file of lines to append to, and shows what is in it. A last line without its end was cut off by a crash before
/// it was acknowledged: it is removed.
fn append<T: serde::de::DeserializeOwned>(path: &Path, mut show: impl FnMut(T)) -> Result<File, DistillError> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(DistillError::write(folder))?;
    }
    let mut file =
        OpenOptions::new().read(true).append(true).create(true).open(path).map_err(DistillError::write(path))?;
    let mut length = 0;
    let mut block = vec![0; 1 << 16];
    let mut whole = 0;
    loop {
        let read = file.read(&mut block).map_err(DistillError::read(path))?;
        if read == 0 {
            break;
        }
        if let Some(end) = block[..read].iter().rposition(|byte| *byte == b'\n') {
            whole = length + end as u64 + 1;
        }
        length += read as u64;
    }
    if whole < length {
        file.set_len(whole).map_err(DistillError::write(path))?;
    }
    for value in Lines::<T>::open(path)? {
        show(value?);
    }
    Ok(file)
}

/// A request without an answer.
struct Bad {
    error: ModelError,
    /// Was it perhaps answered and paid for all the same?
    charged: bool,
    /// Is too much asked of the server now?
    busy: bool,
    remedy: Remedy,
}

enum Remedy {
    Retry {
        after_ms: Option<u64>,
    },
    /// This prompt will never be answered; others may.
    Skip,
    Stop,
}

async fn one(endpoint: &Endpoint, part: &AskPart, wanted: Wanted) -> (Wanted, Result<Row, Bad>) {
    let patience = Duration::from_secs(part.timeout_seconds);
    let answer = async {
        match endpoint {
            Endpoint::Http { client, model } => ask_http(client, model, part, &wanted).await,
            Endpoint::Model(model) => ask_model(model.as_ref(), part, &wanted).await,
        }
    };
    let outcome = timeout(patience, answer).await.unwrap_or_else(|_| {
        let error = ModelError::new(Fault::Model, "timeout", format!("no answer within {} s", part.timeout_seconds));
        Err(Bad { error, charged: true, busy: false, remedy: Remedy::Retry { after_ms: None } })
    });
    (wanted, outcome)
}

async fn ask_http(client: &Client, model: &str, part: &AskPart, wanted: &Wanted) -> Result<Row, Bad> {
    let messages = match &wanted.prompt {
        Prompt::Chat(messages) => messages.clone(),
        Prompt::Text(text) => vec![anbiq_domain::Message::new(anbiq_domain::Role::User, text.clone())],
    };
    let request = ChatRequest {
        model: model.to_owned(),
        messages: messages.into_iter().map(ChatMessage::from).collect(),
        temperature: Some(part.temperature),
        max_tokens: Some(part.max_tokens),
        // Some servers read a signed number.
        seed: Some((wanted.seed >> 1) as i64),
        logprobs: part.logprobs.map(|_| true),
        top_logprobs: part.logprobs.map(u32::from),
        ..ChatRequest::default()
    };
    let purpose = [(PURPOSE.0.to_owned(), PURPOSE.1.to_owned())];
    let response = client.chat(&request, &purpose).await.map_err(from_client)?;
    let Some(choice) = response.choices.into_iter().next() else {
        return Err(malformed("the server answered without an answer"));
    };
    let finish = match choice.finish_reason {
        Some(FinishReason::Length) => Finish::Length,
        Some(FinishReason::Stop) => Finish::Stop,
        _ => return Err(malformed("the server's answer did not end")),
    };
    let logprobs = choice.logprobs.and_then(|logprobs| logprobs.content).unwrap_or_default();
    let answer = Answer::new(choice.message.content.unwrap_or_default(), finish);
    let usage = response.usage.map(|usage| Usage {
        prompt_tokens: usage.prompt_tokens,
        cached_tokens: usage.cached_tokens(),
        completion_tokens: usage.completion_tokens,
        ..Usage::default()
    });
    Ok(row(wanted, part, answer, logprobs.iter().map(to_token).collect(), usage))
}

async fn ask_model(model: &dyn Model, part: &AskPart, wanted: &Wanted) -> Result<Row, Bad> {
    let request = Request {
        sampling: Sampling { temperature: part.temperature, seed: Some(wanted.seed), ..Sampling::default() },
        logprobs: part.logprobs,
        ..Request::new(wanted.prompt.clone(), part.max_tokens)
    };
    let mut events = model.generate(request).await.map_err(from_model)?;
    let (mut text, mut tokens, mut end) = (String::new(), Vec::new(), None);
    while let Some(event) = events.recv().await {
        match event.map_err(from_model)? {
            Event::Text { text: more, logprobs, .. } => {
                text.push_str(&more);
                tokens.extend(logprobs.iter().map(Token::from));
            }
            Event::Finished { finish, .. } => end = Some(finish),
            Event::Fingerprint(_) => {}
            // None was offered any.
            Event::ToolCall { .. } => return Err(malformed("the model called a tool")),
            Event::Usage(usage) => {
                let finish = end.ok_or_else(|| malformed("the model's answer did not end"))?;
                return Ok(row(wanted, part, Answer::new(text, finish), tokens, Some(usage)));
            }
        }
    }
    Err(malformed("the model stopped in the middle of its answer"))
}

fn row(wanted: &Wanted, part: &AskPart, answer: Answer, tokens: Vec<Token>, usage: Option<Usage>) -> Row {
    Row {
        id: Some(wanted.id),
        exchange: None,
        prompt: Asked::Prompt(wanted.prompt.clone()),
        answers: vec![answer],
        logprobs: if tokens.is_empty() { Vec::new() } else { vec![tokens] },
        // A server that does not count is taken to have used all that was asked for.
        usage: usage.unwrap_or_else(|| most_usage(&wanted.prompt, part.max_tokens)),
    }
}

fn to_token(token: &ChatTokenLogprob) -> Token {
    let bytes = |bytes: &Option<Vec<u8>>, text: &str| bytes.clone().unwrap_or_else(|| text.as_bytes().to_vec()).into();
    let top = token.top_logprobs.iter().map(|other| (bytes(&other.bytes, &other.token), other.logprob));
    Token { bytes: bytes(&token.bytes, &token.token), logprob: token.logprob, top: top.collect() }
}

fn malformed(message: &str) -> Bad {
    let error = ModelError::new(Fault::Model, "answer_malformed", message);
    Bad { error, charged: true, busy: false, remedy: Remedy::Retry { after_ms: None } }
}

fn from_client(error: ClientError) -> Bad {
    let refused = error.kind == ErrorKind::Refused;
    let unreached = error.kind == ErrorKind::Setup || error.code.as_deref() == Some("connection_failed");
    let retry = error.retryable();
    let skip = refused && matches!(error.status, Some(400 | 413 | 422));
    let after_ms = error.retry_after_ms;
    let remedy = match (retry, skip) {
        (true, _) => Remedy::Retry { after_ms },
        (false, true) => Remedy::Skip,
        (false, false) => Remedy::Stop,
    };
    let busy = refused && matches!(error.status, Some(429 | 503 | 529));
    let fault = if retry { Fault::Model } else { Fault::Setup };
    let code = if refused { "teacher_refused" } else { "teacher_unreachable" };
    let error = ModelError { retry_after_ms: after_ms, ..ModelError::new(fault, code, error.message) };
    Bad { error, charged: !refused && !unreached, busy, remedy }
}

fn from_model(error: ModelError) -> Bad {
    let remedy = match error.fault {
        Fault::Model | Fault::Busy => Remedy::Retry { after_ms: error.retry_after_ms },
        Fault::Request => Remedy::Skip,
        Fault::Setup => Remedy::Stop,
    };
    Bad { charged: error.fault == Fault::Model, busy: error.fault == Fault::Busy, error, remedy }
}
