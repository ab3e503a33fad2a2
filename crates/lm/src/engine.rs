use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anbiq_domain::{Finish, Usage};
use anbiq_model::{Alternative, Event, Fault, Generation, ModelError, Sampling, Shape, TokenLogprob};
use anbiq_watermark::Mark;
use tokio::sync::mpsc;

use crate::codec::Codec;
use crate::decode::{Cache, Decoder, Row, Workspace};
use crate::sampler::{Assembler, Sampler, Scratch, log_probabilities};

/// Events that may wait for a slow reader before its completions pause.
const EVENTS: usize = 64;

/// Prompt tokens that a step takes at most beside the completions under way: few enough that these do not stutter.
const PROMPT_ROWS: usize = 128;

/// How long a worker without work sleeps at most before it looks again.
const NAP: Duration = Duration::from_millis(500);

/// How long a worker whose readers are all behind sleeps before it tries them again.
const PAUSE: Duration = Duration::from_millis(2);

/// What an engine may take on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Worker threads.
    pub(crate) threads: usize,
    /// Completions that one worker runs side by side.
    pub(crate) max_batch: usize,
    /// Requests that may wait.
    pub(crate) queue: usize,
    /// Bytes of keys and values that one worker holds at most.
    pub(crate) cache_bytes: usize,
    /// How long a reader may leave its events lying.
    pub(crate) stall: Duration,
}

/// A request, its prompt already in tokens.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) prompt: Vec<u32>,
    /// Does the answer begin a text of its own, as a turn of a conversation does?
    pub(crate) fresh: bool,
    pub(crate) n: u32,
    pub(crate) max_tokens: usize,
    pub(crate) sampling: Sampling,
    pub(crate) shape: Shape,
    pub(crate) seed: u64,
    pub(crate) stop: Vec<String>,
    pub(crate) logprobs: Option<u8>,
    pub(crate) mark: Option<Arc<Mark>>,
}

/// Worker threads that answer requests in continuous batches (Yu et al. 2022): a request joins and leaves a running
/// batch between any two tokens.
///
/// What a request gets depends on its prompt, settings and seed alone, not on what is answered beside it or by which
/// worker; see [`Decoder`].
pub(crate) struct Engine {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

struct Shared {
    decoder: Decoder,
    codec: Arc<Codec>,
    limits: Limits,
    state: Mutex<State>,
    wake: Condvar,
}

struct State {
    queue: VecDeque<Waiting>,
    /// Completions that each worker runs.
    rows: Vec<usize>,
    alive: usize,
    closed: bool,
}

struct Waiting {
    job: Job,
    events: mpsc::Sender<Result<Event, ModelError>>,
}

impl Engine {
    /// Starts the workers.
    ///
    /// # Errors
    ///
    /// The operating system gives no thread.
    pub(crate) fn start(decoder: Decoder, codec: Arc<Codec>, limits: Limits) -> std::io::Result<Self> {
        let rows = vec![0; limits.threads];
        let state = State { queue: VecDeque::new(), rows, alive: limits.threads, closed: false };
        let shared = Arc::new(Shared { decoder, codec, limits, state: Mutex::new(state), wake: Condvar::new() });
        let mut engine = Self { shared, workers: Vec::with_capacity(limits.threads) };
        for index in 0..limits.threads {
            let shared = Arc::clone(&engine.shared);
            let work = move || {
                let _leaving = Leaving(Arc::clone(&shared));
                Worker::new(&shared, index).run();
            };
            engine.workers.push(std::thread::Builder::new().name(format!("decode-{index}")).spawn(work)?);
        }
        Ok(engine)
    }

    /// Puts a request in the queue.
    ///
    /// # Errors
    ///
    /// The queue is full, the request could never run, or the workers are gone.
    pub(crate) fn submit(&self, job: Job) -> Result<Generation, ModelError> {
        let limits = &self.shared.limits;
        if job.n as usize > limits.max_batch {
            let message = format!("{} completions were asked for; at most {} run together", job.n, limits.max_batch);
            return Err(ModelError::new(Fault::Request, "n_too_large", message));
        }
        if self.shared.cache_bytes(&job) > limits.cache_bytes {
            let message = "this request needs more memory for its keys and values than one worker has";
            return Err(ModelError::new(Fault::Request, "request_too_large", message));
        }
        let (events, generation) = mpsc::channel(EVENTS);
        let mut state = self.shared.lock();
        if state.closed || state.alive == 0 {
            return Err(ModelError::new(Fault::Model, "model_stopped", "the model has stopped"));
        }
        if state.queue.len() >= limits.queue {
            state.queue.retain(|waiting| !waiting.events.is_closed());
        }
        if state.queue.len() >= limits.queue {
            let message = format!("{} requests are already waiting for this model", state.queue.len());
            let error = ModelError::new(Fault::Busy, "queue_full", message);
            return Err(ModelError { retry_after_ms: Some(1000), ..error });
        }
        state.queue.push_back(Waiting { job, events });
        drop(state);
        self.shared.wake.notify_all();
        Ok(generation.into())
    }

    /// Completions under way and requests waiting.
    #[cfg(test)]
    pub(crate) fn load(&self) -> (usize, usize) {
        let state = self.shared.lock();
        (state.rows.iter().sum(), state.queue.len())
    }
}

impl Drop for Engine {
    /// Stops the workers after the token at which they are; what they were answering is cut off.
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.wake.notify_all();
        for worker in self.workers.drain(..) {
            // A worker that panicked has said so already, and its requests were cut off.
            drop(worker.join());
        }
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("limits", &self.shared.limits).finish_non_exhaustive()
    }
}

impl Shared {
    /// A worker that panics never does so while it holds the lock half-way through a change.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cache_bytes(&self, job: &Job) -> usize {
        // The last token is never fed back.
        let tokens = job.prompt.len() + job.max_tokens;
        self.decoder.cache_bytes(tokens).saturating_mul(job.n as usize)
    }
}

/// Counts a worker out when it ends, also by a panic; nobody waits for a model whose workers are gone.
struct Leaving(Arc<Shared>);

impl Drop for Leaving {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.alive -= 1;
        if state.alive == 0 {
            state.queue.clear();
        }
    }
}

struct Worker<'shared> {
    shared: &'shared Shared,
    index: usize,
    groups: Vec<Group>,
    space: Workspace,
    scratch: Scratch,
}

/// One request that is being answered.
struct Group {
    job: Job,
    events: mpsc::Sender<Result<Event, ModelError>>,
    /// Prompt tokens that the first completion's cache already holds.
    prefilled: usize,
    completions: Vec<Completion>,
    /// Events that the reader has no room for yet.
    outbox: VecDeque<Event>,
    behind_since: Option<Instant>,
    cache_bytes: usize,
    drawn: u64,
}

struct Completion {
    index: u32,
    cache: Cache,
    sampler: Sampler,
    assembler: Assembler,
    last: u32,
    drawn: usize,
    ended: bool,
    /// Tokens with the place in the text where they begin, until their text is sent.
    unsent: VecDeque<(usize, TokenLogprob)>,
}

/// Whose logits a wanted row gives.
#[derive(Clone, Copy)]
struct Place {
    group: usize,
    completion: usize,
}

impl<'shared> Worker<'shared> {
    fn new(shared: &'shared Shared, index: usize) -> Self {
        Self { shared, index, groups: Vec::new(), space: Workspace::default(), scratch: Scratch::default() }
    }

    fn run(mut self) {
        while self.admit() {
            self.flush();
            if !self.step() && !self.groups.is_empty() {
                std::thread::sleep(PAUSE);
            }
            self.flush();
        }
    }

    /// Takes requests from the queue while there is room and no other worker has less to do; sleeps while there is
    /// nothing to do at all. False when the engine is closed.
    fn admit(&mut self) -> bool {
        let limits = &self.shared.limits;
        let mut rows: usize = self.groups.iter().map(|group| group.completions.len()).sum();
        let mut bytes: usize = self.groups.iter().map(|group| group.cache_bytes).sum();
        let mut state = self.shared.lock();
        loop {
            if state.closed {
                return false;
            }
            state.rows[self.index] = rows;
            let fits = |waiting: &Waiting| {
                let needed = self.shared.cache_bytes(&waiting.job);
                rows + waiting.job.n as usize <= limits.max_batch && bytes + needed <= limits.cache_bytes
            };
            let least = state.rows.iter().all(|&others| rows <= others);
            if least && state.queue.front().is_some_and(fits) {
                let Some(waiting) = state.queue.pop_front() else { continue };
                if !waiting.events.is_closed() {
                    bytes += self.shared.cache_bytes(&waiting.job);
                    rows += waiting.job.n as usize;
                    self.groups.push(Group::new(waiting, self.shared));
                }
            } else if self.groups.is_empty() {
                let woken = self.shared.wake.wait_timeout(state, NAP);
                state = woken.unwrap_or_else(PoisonError::into_inner).0;
            } else {
                let waiting = !state.queue.is_empty();
                drop(state);
                if waiting && !least {
                    self.shared.wake.notify_all();
                }
                return true;
            }
        }
    }

    /// Sends what readers have room for, and drops what is finished, was cancelled or is not read.
    fn flush(&mut self) {
        let stall = self.shared.limits.stall;
        self.groups.retain_mut(|group| group.flush(stall));
    }

    /// One token for every completion that may go on, and some of the prompts. False if nobody could go on.
    fn step(&mut self) -> bool {
        let (rows, places) = self.plan();
        if rows.is_empty() {
            return false;
        }
        let mut caches: Vec<&mut Cache> = Vec::new();
        for group in &mut self.groups {
            caches.extend(group.completions.iter_mut().map(|completion| &mut completion.cache));
        }
        let logits = self.shared.decoder.step(&rows, &mut caches, &mut self.space);
        let vocabulary = logits.len() / places.len().max(1);
        for (place, logits) in places.iter().zip(logits.chunks_exact(vocabulary.max(1))) {
            let group = &mut self.groups[place.group];
            if group.drawn == 0 && group.prefilled == group.job.prompt.len() && place.completion == 0 {
                group.share_prompt(&self.shared.decoder);
                for completion in 0..group.completions.len() {
                    group.draw(completion, logits, &self.shared.codec, &mut self.scratch);
                }
            } else {
                group.draw(place.completion, logits, &self.shared.codec, &mut self.scratch);
            }
        }
        for group in &mut self.groups {
            group.leave();
        }
        true
    }

    /// The rows of the next step, and whose logits they give. A request whose reader is behind waits.
    fn plan(&mut self) -> (Vec<Row>, Vec<Place>) {
        let (mut rows, mut places) = (Vec::new(), Vec::new());
        let mut prompt_rows = PROMPT_ROWS;
        let mut first_cache = 0;
        for (place, group) in self.groups.iter_mut().enumerate() {
            let rest = &group.job.prompt[group.prefilled..];
            if !rest.is_empty() {
                let taken = rest.len().min(prompt_rows);
                prompt_rows -= taken;
                for (index, &token) in rest[..taken].iter().enumerate() {
                    rows.push(Row { cache: first_cache, token, wanted: index + 1 == rest.len() });
                }
                if taken == rest.len() {
                    places.push(Place { group: place, completion: 0 });
                }
                group.prefilled += taken;
            } else if group.outbox.is_empty() {
                for (index, completion) in group.completions.iter().enumerate() {
                    rows.push(Row { cache: first_cache + index, token: completion.last, wanted: true });
                    places.push(Place { group: place, completion: index });
                }
            }
            first_cache += group.completions.len();
        }
        (rows, places)
    }
}

impl Group {
    fn new(waiting: Waiting, shared: &Shared) -> Self {
        let Waiting { job, events } = waiting;
        let cache_bytes = shared.cache_bytes(&job);
        let tokens = job.prompt.len() + job.max_tokens;
        let completion = |index| Completion {
            index,
            cache: shared.decoder.cache(tokens),
            sampler: Sampler::new(&job.sampling, &job.shape, &job.prompt, job.seed, index).marked(job.mark.clone()),
            assembler: Assembler::new(&job.stop),
            last: 0,
            drawn: 0,
            ended: false,
            unsent: VecDeque::new(),
        };
        let completions = (0..job.n).map(completion).collect();
        // Whoever keeps what was answered keeps with it that it was marked, and under which key.
        let marked = job.mark.as_ref().map(|mark| Event::Fingerprint(format!("watermark {}", mark.commitment())));
        let outbox = marked.into_iter().collect();
        Self { job, events, prefilled: 0, completions, outbox, behind_since: None, cache_bytes, drawn: 0 }
    }

    /// The prompt was computed once, for the first completion; the others go on from a copy.
    fn share_prompt(&mut self, decoder: &Decoder) {
        if let [first, others @ ..] = self.completions.as_mut_slice() {
            for other in others {
                decoder.copy(&first.cache, &mut other.cache);
            }
        }
    }

    /// Draws the next token of a completion and queues what is to be said of it.
    fn draw(&mut self, completion: usize, logits: &[f32], codec: &Codec, scratch: &mut Scratch) {
        let (job, completion) = (&self.job, &mut self.completions[completion]);
        let token = completion.sampler.draw(logits, scratch);
        completion.last = token;
        completion.drawn += 1;
        self.drawn += 1;
        if codec.eos.contains(&token) {
            return self.outbox.extend(completion.finish(Finish::Stop));
        }
        if let Some(top) = job.logprobs {
            let entry = token_logprob(logits, token, top, codec);
            completion.unsent.push_back((completion.assembler.length(), entry));
        }
        let bytes = match codec.tokenizer.is_special(token) {
            true => &[],
            false if job.fresh && completion.drawn == 1 => codec.tokenizer.first_bytes(token),
            false => codec.tokenizer.bytes(token),
        };
        let piece = completion.assembler.push(bytes);
        self.outbox.extend(completion.say(piece.text));
        if piece.stopped {
            completion.unsent.clear();
            self.outbox.push_back(completion.finished(Finish::Stop));
        } else if completion.drawn >= job.max_tokens {
            self.outbox.extend(completion.finish(Finish::Length));
        }
    }

    /// Lets go of completions that have ended, and says the usage after the last.
    fn leave(&mut self) {
        let before = self.completions.len();
        self.completions.retain(|completion| !completion.ended);
        if before > 0 && self.completions.is_empty() {
            let prompt_tokens = self.job.prompt.len() as u64;
            self.outbox.push_back(Event::Usage(Usage {
                prompt_tokens,
                completion_tokens: self.drawn,
                ..Usage::default()
            }));
        }
    }

    /// Sends what the reader has room for. False when nothing remains to be done for it.
    fn flush(&mut self, stall: Duration) -> bool {
        while let Some(event) = self.outbox.pop_front() {
            match self.events.try_send(Ok(event)) {
                Ok(()) => self.behind_since = None,
                Err(mpsc::error::TrySendError::Closed(_)) => return false,
                Err(mpsc::error::TrySendError::Full(event)) => {
                    self.outbox.extend(event.ok());
                    self.outbox.rotate_right(1);
                    return self.behind_since.get_or_insert_with(Instant::now).elapsed() < stall;
                }
            }
        }
        !self.completions.is_empty() && !self.events.is_closed()
    }
}

impl Completion {
    /// The text that was added, with the tokens that begin in what is sent by now.
    fn say(&mut self, text: String) -> Option<Event> {
        let sent = self.assembler.sent();
        let mut logprobs = Vec::new();
        while self.unsent.front().is_some_and(|(start, _)| *start < sent) {
            logprobs.extend(self.unsent.pop_front().map(|(_, entry)| entry));
        }
        let silent = text.is_empty() && logprobs.is_empty();
        (!silent).then_some(Event::Text { index: self.index, text, logprobs })
    }

    /// The rest of the text and the end.
    fn finish(&mut self, finish: Finish) -> Vec<Event> {
        let text = self.assembler.finish();
        let logprobs: Vec<TokenLogprob> = self.unsent.drain(..).map(|(_, entry)| entry).collect();
        let mut events = Vec::new();
        if !text.is_empty() || !logprobs.is_empty() {
            events.push(Event::Text { index: self.index, text, logprobs });
        }
        events.push(self.finished(finish));
        events
    }

    fn finished(&mut self, finish: Finish) -> Event {
        self.ended = true;
        Event::Finished { index: self.index, finish, tokens: self.drawn as u64 }
    }
}

fn token_logprob(logits: &[f32], token: u32, top: u8, codec: &Codec) -> TokenLogprob {
    let named = |token: u32| {
        let bytes = codec.tokenizer.bytes(token).to_vec();
        (String::from_utf8_lossy(&bytes).into_owned(), bytes)
    };
    let (logprob, top) = log_probabilities(logits, token, usize::from(top));
    let alternative = |(token, logprob)| {
        let (token, bytes) = named(token);
        Alternative { token, bytes, logprob }
    };
    let (token, bytes) = named(token);
    TokenLogprob { token, bytes, logprob, top: top.into_iter().map(alternative).collect() }
}
