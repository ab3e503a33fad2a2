//! Several servers of one model, as one model.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anbiq_domain::Seeded;
use anbiq_model::{
    Abilities, EmbedRequest, Embedded, Event, Fault, Generation, Model, ModelError, Request, ScoreRequest, Scored,
    Server,
};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};
use tokio::time::Instant;

/// A server among several of one model.
#[derive(Debug, Clone)]
pub struct Member {
    /// The model, as this server has it.
    pub model: Arc<dyn Model>,
    /// Its share of the requests among those of equal priority; at least 1.
    pub weight: u32,
    /// Servers of the lowest number are asked, the others only where none of those answers.
    pub priority: u32,
}

/// When to try again, and when to leave a server alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolConfig {
    /// Most tries of one request, the first among them.
    pub tries: u32,
    /// Longest pause before the servers are asked a second time; it doubles each time. Half of it is left to chance, so
    /// that those who failed together do not come back together. A server that says how long to wait is given that long,
    /// and by the same chance a little more.
    pub pause: Duration,
    /// A longer pause than this is not made: the error goes to whoever asked, who knows better whether to wait.
    pub longest_pause: Duration,
    /// A server that failed so many times in a row rests.
    pub failures: u32,
    /// How long it rests. It is asked all the same where every other one rests too.
    pub rest: Duration,
    /// Seed of that chance; of several gateways in front of the same servers each has its own.
    pub seed: u64,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            tries: 3,
            pause: Duration::from_millis(200),
            longest_pause: Duration::from_secs(2),
            failures: 3,
            rest: Duration::from_secs(10),
            seed: 0,
        }
    }
}

/// Several servers of one model, as one model.
///
/// A request that fails before any part of its answer came is tried again, first with another server. Once a part was
/// passed on there is no second try: another answer could not go on where the first one stopped.
#[derive(Clone)]
pub struct Pool {
    name: String,
    members: Vec<Member>,
    config: PoolConfig,
    states: States,
    chance: Arc<Mutex<Seeded>>,
    /// Who is asked first, where that is settled.
    settled: Option<usize>,
}

#[derive(Debug, Clone)]
struct States(Arc<Mutex<Vec<State>>>);

/// What is remembered of a server.
#[derive(Debug, Clone, Copy, Default)]
struct State {
    /// Failures in a row.
    failures: u32,
    /// Until when it is left alone.
    rests: Option<Instant>,
    /// How much it lags behind its share.
    owed: i64,
    /// What it was asked and how that ended, for whoever operates it.
    requests: u64,
    retries: u64,
    failed: u64,
}

impl Pool {
    /// The model `name`, which every one of `members` has.
    ///
    /// # Errors
    /// There is no member, one has no weight, or no try is allowed.
    pub fn new(name: impl Into<String>, members: Vec<Member>, config: PoolConfig) -> Result<Self, ModelError> {
        let name = name.into();
        if members.is_empty() || members.iter().any(|member| member.weight == 0) || config.tries == 0 {
            let message = format!("the model `{name}` needs a server, weights of at least 1, and at least one try");
            return Err(ModelError::new(Fault::Setup, "pool_invalid", message));
        }
        let states = States(Arc::new(Mutex::new(vec![State::default(); members.len()])));
        let chance = Arc::new(Mutex::new(Seeded::new(config.seed).fork(&format!("pauses of {name}"))));
        Ok(Self { name, members, config, states, chance, settled: None })
    }

    /// How long to wait before the servers are asked again, the last of which said `asked`.
    fn wait(&self, pause: Duration, asked: Option<Duration>) -> Duration {
        let chance = self.chance.lock().unwrap_or_else(PoisonError::into_inner).unit();
        let half = pause / 2;
        (half + half.mul_f64(chance)).max(asked.map_or(Duration::ZERO, |asked| asked + half.mul_f64(chance)))
    }

    /// Asks one server and waits for the first part of its answer.
    async fn begin(&self, index: usize, request: Request) -> Result<Generation, ModelError> {
        let Some(member) = self.members.get(index) else { return Err(cut_off()) };
        let mut generation = member.model.generate(request).await?;
        let first = generation.recv().await.unwrap_or_else(|| Err(cut_off()))?;
        let (states, config) = (self.states.clone(), self.config);
        Ok(Generation::lazy(stream::once(async { Ok(first) }).chain(generation).inspect(move |event| match event {
            Ok(Event::Usage(_)) => states.answered(index),
            Ok(_) => {}
            Err(error) => states.failed(index, error, config),
        })))
    }
}

#[async_trait::async_trait]
impl Model for Pool {
    fn name(&self) -> &str {
        &self.name
    }

    /// What all of them can do.
    fn abilities(&self) -> Abilities {
        let all = self.members.iter().map(|member| member.model.abilities());
        all.reduce(Abilities::and).unwrap_or_default()
    }

    async fn generate(&self, request: Request) -> Result<Generation, ModelError> {
        self.try_members(|index| self.begin(index, request.clone()).boxed()).await
    }

    async fn score(&self, requests: &[ScoreRequest]) -> Result<Vec<Scored>, ModelError> {
        let index = self.states.choose(&self.members, &vec![false; self.members.len()]);
        let Some(member) = self.members.get(index) else { return Err(cut_off()) };
        member.model.score(requests).await
    }

    async fn embed(&self, request: &EmbedRequest) -> Result<Embedded, ModelError> {
        self.try_members(|index| self.embed_by(index, request).boxed()).await
    }

    fn together(&self) -> bool {
        self.members.iter().all(|member| member.model.together())
    }

    /// The server is chosen now; where it fails a request, that request alone goes to another one.
    fn at_one_server(&self) -> Option<Arc<dyn Model>> {
        let untried = vec![false; self.members.len()];
        let settled = Some(self.states.choose(&self.members, &untried));
        Some(Arc::new(Self { settled, ..self.clone() }))
    }

    fn servers(&self) -> Vec<Server> {
        let (states, now) = (self.states.lock(), Instant::now());
        let server = |(member, state): (&Member, &State)| {
            let known = member.model.servers().into_iter().next();
            Server {
                requests: state.requests,
                retries: state.retries,
                failures: state.failed,
                resting: state.rests.is_some_and(|until| until > now),
                ..known.unwrap_or_else(|| Server::new(member.model.name()))
            }
        };
        self.members.iter().zip(states.iter()).map(server).collect()
    }
}

impl Pool {
    async fn embed_by(&self, index: usize, request: &EmbedRequest) -> Result<Embedded, ModelError> {
        let Some(member) = self.members.get(index) else { return Err(cut_off()) };
        let embedded = member.model.embed(request).await?;
        self.states.answered(index);
        Ok(embedded)
    }

    /// Asks one member, and others or the same again where it fails.
    async fn try_members<'f, T>(
        &self,
        ask: impl Fn(usize) -> BoxFuture<'f, Result<T, ModelError>> + Send + Sync,
    ) -> Result<T, ModelError> {
        let mut pause = self.config.pause;
        let mut tried = vec![false; self.members.len()];
        let mut tries = 1;
        loop {
            let settled = self.settled.filter(|_| tries == 1);
            let index = settled.unwrap_or_else(|| self.states.choose(&self.members, &tried));
            self.states.asked(index, tries > 1);
            let error = match ask(index).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            if error.fault == Fault::Request {
                return Err(error);
            }
            self.states.failed(index, &error, self.config);
            if tries >= self.config.tries {
                return Err(error);
            }
            tries += 1;
            if let Some(tried) = tried.get_mut(index) {
                *tried = true;
            }
            if tried.contains(&false) {
                continue;
            }
            let asked = error.retry_after_ms.map(Duration::from_millis);
            if !error.retryable() || pause.max(asked.unwrap_or_default()) > self.config.longest_pause {
                return Err(error);
            }
            tokio::time::sleep(self.wait(pause, asked)).await;
            pause *= 2;
            tried.fill(false);
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("name", &self.name).field("members", &self.members).finish_non_exhaustive()
    }
}

impl States {
    /// Whom to ask next, of those that were not tried yet.
    ///
    /// Those that rest are asked last: a server that may have recovered is better than none. Among those of the lowest
    /// priority each gets its share in turn, without chance.
    fn choose(&self, members: &[Member], tried: &[bool]) -> usize {
        let now = Instant::now();
        let mut states = self.lock();
        let all = || members.iter().enumerate().zip(tried).filter(|(_, tried)| !**tried).map(|(member, _)| member);
        let rests = |index: usize| states.get(index).and_then(|state| state.rests).filter(|until| *until > now);
        let awake: Vec<(usize, &Member)> = all().filter(|(index, _)| rests(*index).is_none()).collect();
        let Some(first) = awake.iter().map(|(_, member)| member.priority).min() else {
            return all().min_by_key(|(index, _)| rests(*index)).map_or(0, |(index, _)| index);
        };
        let mut total = 0;
        let mut chosen: Option<(usize, i64)> = None;
        for (index, member) in awake.into_iter().filter(|(_, member)| member.priority == first) {
            let Some(state) = states.get_mut(index) else { continue };
            state.owed += i64::from(member.weight);
            total += i64::from(member.weight);
            if chosen.is_none_or(|(_, most)| state.owed > most) {
                chosen = Some((index, state.owed));
            }
        }
        let index = chosen.map_or(0, |(index, _)| index);
        if let Some(state) = states.get_mut(index) {
            state.owed -= total;
        }
        index
    }

    fn asked(&self, index: usize, again: bool) {
        if let Some(state) = self.lock().get_mut(index) {
            state.requests += 1;
            state.retries += u64::from(again);
        }
    }

    fn answered(&self, index: usize) {
        if let Some(state) = self.lock().get_mut(index) {
            state.failures = 0;
            state.rests = None;
        }
    }

    fn failed(&self, index: usize, error: &ModelError, config: PoolConfig) {
        let mut states = self.lock();
        let Some(state) = states.get_mut(index) else { return };
        if error.fault == Fault::Request {
            return;
        }
        state.failures = state.failures.saturating_add(1);
        state.failed += 1;
        // Whoever says how long to wait is believed, within reason.
        let asked = error.retry_after_ms.map(|wait| Duration::from_millis(wait).min(config.rest));
        let worn = (state.failures >= config.failures).then_some(config.rest);
        if let Some(rest) = asked.max(worn) {
            state.rests = Some(Instant::now() + rest);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<State>> {
        // Every change is one of numbers that holds by itself.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn cut_off() -> ModelError {
    ModelError::new(Fault::Model, "answer_cut_off", "the server ended before its answer began")
}
