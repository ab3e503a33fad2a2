//! A whole gateway on loopback: a real ledger, a real journal, and a model that does as it is told.

#![allow(dead_code, clippy::unwrap_used, reason = "each test file uses its own part of this, and a test may fail")]
#![allow(clippy::needless_pass_by_value, reason = "`json!` is written where it is used")]

pub(crate) mod teacher;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anbiq_desk::{Administrator, Record};
use anbiq_domain::{
    AccountId, Clock, CoinKey, Conditions, Entry, Exchange, Finish, Grant, GrantId, JournalId, KeyId, ManualClock,
    Money, Permission, PlanId, PriceList, Prompt, Terms, TermsId, TextPolicy, Timestamp, Usage,
};
use anbiq_journal::{Journal, Options, Reader, SigningKey, TextKeys};
use anbiq_ledger::{BudgetState, Ledger, NewAccount, Plan};
use anbiq_model::{
    Abilities, Alternative, Event, Fault, Generation, Model, ModelError, Request, ScoreRequest, Scored, TokenLogprob,
};
use anbiq_serve::{Config, Gateway, GatewayParts, Secrets, ServeError};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;

pub(crate) const NOW: Timestamp = Timestamp::from_milliseconds(1_770_000_000_000);
pub(crate) const SKETCH_KEY: [u8; 32] = [9; 32];

pub(crate) fn coin() -> CoinKey {
    CoinKey::from_bytes([7; 32])
}

/// What a [`Mock`] does at one step.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Do(Event),
    Fail(ModelError),
    /// Waits until the test opens the gate once more.
    Gate,
    /// Waits for ever.
    Hang,
}

/// What a [`Mock`] does for a request.
pub(crate) type Script = dyn Fn(&Request) -> Vec<Step> + Send + Sync;

/// A model that does as it is told and counts what becomes of its work.
pub(crate) struct Mock {
    pub(crate) abilities: Abilities,
    pub(crate) script: Box<Script>,
    pub(crate) gate: Arc<Semaphore>,
    pub(crate) asked: AtomicUsize,
    pub(crate) cancelled: Arc<AtomicUsize>,
}

impl fmt::Debug for Mock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mock")
    }
}

impl Default for Mock {
    fn default() -> Self {
        Self::new(answers)
    }
}

impl Mock {
    pub(crate) fn new(script: impl Fn(&Request) -> Vec<Step> + Send + Sync + 'static) -> Self {
        Self {
            abilities: Abilities { several: true, logprobs: Some(20), ..Abilities::default() },
            script: Box::new(script),
            gate: Arc::new(Semaphore::new(0)),
            asked: AtomicUsize::new(0),
            cancelled: Arc::default(),
        }
    }
}

/// The usual script: draw `i` says "draw i" and repeats the prompt, a word at a time, all draws in turn.
pub(crate) fn answers(request: &Request) -> Vec<Step> {
    let texts: Vec<Vec<String>> = (0..request.n).map(|index| words(&said(index, request.prompt.last_text()))).collect();
    let mut steps = Vec::new();
    for place in 0..texts.iter().map(Vec::len).max().unwrap_or(0) {
        for (index, words) in (0..).zip(&texts) {
            if let Some(word) = words.get(place) {
                steps.push(Step::Do(text(index, word, request.logprobs)));
            }
        }
    }
    for (index, words) in (0..).zip(&texts) {
        steps.push(Step::Do(finished(index, words.len() as u64)));
    }
    let total = texts.iter().map(|words| words.len() as u64).sum();
    steps.push(Step::Do(usage(words(request.prompt.last_text()).len() as u64, total)));
    steps
}

/// What draw `index` of the usual script says.
pub(crate) fn said(index: u32, prompt: &str) -> String {
    format!("draw {index}: {prompt}")
}

pub(crate) fn words(text: &str) -> Vec<String> {
    text.split_inclusive(' ').map(str::to_owned).collect()
}

pub(crate) fn text(index: u32, text: &str, logprobs: Option<u8>) -> Event {
    let token = |alternatives: u8| TokenLogprob {
        token: text.to_owned(),
        bytes: text.as_bytes().to_vec(),
        logprob: -0.5,
        top: (0..alternatives)
            .map(|rank| Alternative {
                token: format!("t{rank}"),
                bytes: format!("t{rank}").into_bytes(),
                logprob: if rank == 0 { -0.5 } else { f32::NEG_INFINITY },
            })
            .collect(),
    };
    Event::Text { index, text: text.to_owned(), logprobs: logprobs.map(token).into_iter().collect() }
}

pub(crate) fn finished(index: u32, tokens: u64) -> Event {
    Event::Finished { index, finish: Finish::Stop, tokens }
}

pub(crate) fn usage(prompt_tokens: u64, completion_tokens: u64) -> Event {
    Event::Usage(Usage { prompt_tokens, completion_tokens, ..Usage::default() })
}

/// A model under the name of one of the house's teachers.
#[derive(Debug)]
struct Named(&'static str, Arc<Mock>);

#[async_trait::async_trait]
impl Model for Named {
    fn name(&self) -> &str {
        self.0
    }

    fn abilities(&self) -> Abilities {
        self.1.abilities
    }

    /// The script is for all draws at once.
    fn together(&self) -> bool {
        true
    }

    async fn generate(&self, request: Request) -> Result<Generation, ModelError> {
        self.1.asked.fetch_add(1, Ordering::SeqCst);
        let steps = (self.1.script)(&request);
        if let Some(Step::Fail(error)) = steps.first() {
            return Err(error.clone());
        }
        let (sender, receiver) = mpsc::channel(4);
        let (gate, cancelled) = (Arc::clone(&self.1.gate), Arc::clone(&self.1.cancelled));
        tokio::spawn(async move {
            for step in steps {
                let event = match step {
                    Step::Do(event) => Ok(event),
                    Step::Fail(error) => Err(error),
                    Step::Gate | Step::Hang => {
                        let wait = async {
                            if matches!(step, Step::Hang) {
                                std::future::pending::<()>().await;
                            }
                            gate.acquire().await.unwrap().forget();
                        };
                        tokio::select! {
                            () = wait => continue,
                            () = sender.closed() => {
                                cancelled.fetch_add(1, Ordering::SeqCst);
                                return;
                            }
                        }
                    }
                };
                if sender.send(event).await.is_err() {
                    cancelled.fetch_add(1, Ordering::SeqCst);
                    return;
                }
            }
        });
        Ok(receiver.into())
    }

    async fn score(&self, _requests: &[ScoreRequest]) -> Result<Vec<Scored>, ModelError> {
        Err(ModelError::new(Fault::Setup, "scoring_unsupported", "a mock scores nothing"))
    }
}

/// How a house is furnished.
pub(crate) struct Setup {
    pub(crate) config: Config,
    pub(crate) plan: Plan,
    pub(crate) mock: Mock,
    /// In place of the mock, as the teacher `open`.
    pub(crate) teacher: Option<Arc<dyn Model>>,
    pub(crate) journal: Options,
    /// Besides those of [`MODELS`]; each at the price of those.
    pub(crate) more: Vec<Arc<dyn Model>>,
}

impl Default for Setup {
    fn default() -> Self {
        let plan = Plan {
            text_policy: TextPolicy::Plain,
            max_logprobs: Some(5),
            max_tokens: 100,
            ..Plan::new(PlanId::new("standard").unwrap())
        };
        Self {
            config: Config::default(),
            plan,
            mock: Mock::default(),
            teacher: None,
            journal: Options::default(),
            more: Vec::new(),
        }
    }
}

/// A gateway at work, with one account `acme` that has a key.
pub(crate) struct House {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) ledger: Ledger,
    pub(crate) journal: Journal,
    pub(crate) admin: Administrator,
    pub(crate) gateway: Gateway,
    pub(crate) mock: Arc<Mock>,
    pub(crate) clock: ManualClock,
    pub(crate) key: String,
    pub(crate) key_id: KeyId,
    pub(crate) base: String,
    pub(crate) admin_base: String,
    client: Client<HttpConnector, Full<Bytes>>,
    shutdown: Option<oneshot::Sender<()>>,
    running: JoinHandle<Result<(), ServeError>>,
}

pub(crate) fn acme() -> AccountId {
    AccountId::new("acme").unwrap()
}

/// `open` has no terms; `closed` has, and needs a grant for distillation.
pub(crate) const MODELS: [&str; 2] = ["closed", "open"];

pub(crate) fn terms() -> Terms {
    Terms::new(TermsId::new("closed-terms").unwrap(), 1, "closed", Permission::GrantRequired, "Be good.")
}

pub(crate) fn grant(expires: Option<Timestamp>, volume: Option<u64>) -> Grant {
    Grant {
        id: GrantId::new("grant-1").unwrap(),
        account: acme(),
        terms: terms().reference(),
        purpose: "a small student".into(),
        conditions: Conditions { max_output_tokens: volume, ..Conditions::default() },
        given: NOW,
        expires,
    }
}

/// The keys of sealed texts of the house in `folder`.
pub(crate) fn text_keys(folder: &std::path::Path) -> TextKeys {
    TextKeys::new(folder.join("secrets/texts"))
}

impl House {
    pub(crate) async fn new() -> Self {
        Self::furnished(Setup::default()).await
    }

    pub(crate) async fn furnished(setup: Setup) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open_file(&folder.path().join("ledger.db")).await.unwrap();
        let id = JournalId::new("test").unwrap();
        let journal =
            Journal::create(&folder.path().join("journal"), id, SigningKey::from_bytes([3; 32]), setup.journal);
        let journal = journal.unwrap();
        let admin = Administrator::new(ledger.clone(), Record::Journal(journal.clone()), &SKETCH_KEY);
        ledger.put_plan(&setup.plan).await.unwrap();
        let account = NewAccount { id: acme(), plan: setup.plan.id, payment: Some("card 1".into()), opened: NOW };
        admin.open_account(&account).await.unwrap();
        let dollars = Money::from_dollars;
        let prices = PriceList {
            input: dollars(1),
            output: dollars(2),
            distillation_output: Some(dollars(3)),
            ..PriceList::default()
        };
        for model in MODELS.into_iter().chain(setup.more.iter().map(|model| model.name())) {
            admin.set_prices(model, prices, NOW).await.unwrap();
        }
        admin.issue_terms(&terms(), NOW).await.unwrap();
        let (key_id, key) = ledger.issue_key(&acme(), None, NOW).await.unwrap();
        let key = key.expose().clone();
        let mock = Arc::new(setup.mock);
        let clock = ManualClock::at(NOW);
        let mut models = MODELS.map(|name| Arc::new(Named(name, Arc::clone(&mock))) as Arc<dyn Model>);
        if let Some(teacher) = setup.teacher {
            models[1] = teacher;
        }
        let parts = GatewayParts {
            config: setup.config,
            ledger: ledger.clone(),
            journal: journal.clone(),
            models: models.into_iter().chain(setup.more).collect(),
            planted: Vec::new(),
            secrets: Secrets { coin: coin(), epoch: 0, sketch_key: SKETCH_KEY, texts: Some(text_keys(folder.path())) },
            clock: Arc::new(clock.clone()) as Arc<dyn Clock>,
            spool: None,
        };
        let gateway = Gateway::open(parts).await.unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let (shutdown, told) = oneshot::channel();
        let running = tokio::spawn(anbiq_serve::run(listener, gateway.clone(), async move {
            // A test that ends without telling has no gateway any more either.
            let _ = told.await;
        }));
        let admin_listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let admin_base = format!("http://{}", admin_listener.local_addr().unwrap());
        tokio::spawn(anbiq_serve::operate(admin_listener, gateway.clone(), axum::Router::new()));
        let client = Client::builder(TokioExecutor::new()).build_http();
        let shutdown = Some(shutdown);
        Self {
            folder,
            ledger,
            journal,
            admin,
            gateway,
            mock,
            clock,
            key,
            key_id,
            base,
            admin_base,
            client,
            shutdown,
            running,
        }
    }

    /// Sends a request and reads the head of its answer.
    pub(crate) async fn open(&self, request: http::Request<Full<Bytes>>) -> http::Response<Incoming> {
        self.client.request(request).await.unwrap()
    }

    pub(crate) async fn send(&self, request: http::Request<Full<Bytes>>) -> Reply {
        let (head, body) = self.open(request).await.into_parts();
        let (body, whole) = match body.collect().await {
            Ok(body) => (body.to_bytes(), true),
            Err(_) => (Bytes::new(), false),
        };
        Reply { status: head.status, headers: head.headers, body: String::from_utf8(body.to_vec()).unwrap(), whole }
    }

    pub(crate) fn post(&self, path: &str, body: &Value, headers: &[(&str, &str)]) -> http::Request<Full<Bytes>> {
        self.post_bytes(path, &body.to_string(), headers)
    }

    pub(crate) fn post_bytes(&self, path: &str, body: &str, headers: &[(&str, &str)]) -> http::Request<Full<Bytes>> {
        let mut request = http::Request::post(format!("{}{path}", self.base));
        if !headers.iter().any(|(name, _)| *name == "authorization") {
            request = request.header("authorization", format!("Bearer {}", self.key));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Full::new(Bytes::from(body.to_owned()))).unwrap()
    }

    pub(crate) async fn chat(&self, body: &Value) -> Reply {
        self.send(self.post("/v1/chat/completions", body, &[])).await
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        let request = http::Request::get(format!("{}{path}", self.base));
        let request = request.header("authorization", format!("Bearer {}", self.key));
        self.send(request.body(Full::default()).unwrap()).await
    }

    /// Asks the listener of whoever operates the gateway, without a key.
    pub(crate) async fn admin(&self, path: &str) -> Reply {
        let request = http::Request::get(format!("{}{path}", self.admin_base)).body(Full::default());
        self.send(request.unwrap()).await
    }

    /// The lines of `/metrics` that begin with `name`.
    pub(crate) async fn metrics(&self, name: &str) -> Vec<String> {
        let text = self.admin("/metrics").await.body;
        text.lines().filter(|line| line.starts_with(name)).map(str::to_owned).collect()
    }

    pub(crate) async fn budget(&self) -> BudgetState {
        self.ledger.budget(&acme()).await.unwrap().unwrap()
    }

    /// Waits until nothing is reserved: settlement goes on after an answer.
    pub(crate) async fn settled(&self) -> BudgetState {
        loop {
            let budget = self.budget().await;
            if budget.reserved == Money::ZERO {
                return budget;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) fn journal_folder(&self) -> PathBuf {
        self.folder.path().join("journal")
    }

    pub(crate) fn entries(&self) -> Vec<Entry> {
        entries(&self.journal_folder())
    }

    pub(crate) fn exchanges(&self) -> Vec<Exchange> {
        let exchange = |entry| if let Entry::Exchange(exchange) = entry { Some(*exchange) } else { None };
        self.entries().into_iter().filter_map(exchange).collect()
    }

    /// Waits for the `count`th exchange in the journal.
    pub(crate) async fn exchange(&self, count: usize) -> Exchange {
        loop {
            if let Some(exchange) = self.exchanges().into_iter().nth(count - 1) {
                return exchange;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits for the `count`th exchange and for a twin of it that is slower than what was served, as if that had come in
    /// time.
    pub(crate) async fn with_twins(&self, count: usize) -> Exchange {
        let mut exchange = self.exchange(count).await;
        while !exchange.draws.open.is_empty() {
            let later = self.entries().into_iter().find_map(|entry| match entry {
                Entry::TwinsDrawn(twins) if twins.exchange == exchange.id => Some(*twins),
                _ => None,
            });
            let Some(later) = later else {
                tokio::time::sleep(Duration::from_millis(5)).await;
                continue;
            };
            exchange.draws.open.clear();
            exchange.usage.twin_tokens += later.tokens;
            for draw in later.draws {
                let place = usize::from(draw.index);
                exchange.draws.texts[place] = draw.commitment;
                if let (Some(texts), Some(answer)) = (&mut exchange.texts, draw.answer) {
                    texts.answers[place] = answer;
                }
            }
        }
        exchange
    }

    pub(crate) fn refusals(&self) -> Vec<String> {
        let code = |entry| if let Entry::Refused(refusal) = entry { Some(refusal.code) } else { None };
        self.entries().into_iter().filter_map(code).collect()
    }

    /// Tells the gateway to stop.
    pub(crate) fn tell(&mut self) {
        self.shutdown.take().unwrap().send(()).unwrap();
    }

    /// Waits until it has.
    pub(crate) async fn stopped(self) -> (Result<(), ServeError>, tempfile::TempDir) {
        (self.running.await.unwrap(), self.folder)
    }
}

pub(crate) fn entries(folder: &Path) -> Vec<Entry> {
    let reader = Reader::open(folder).unwrap();
    reader.entries().unwrap().map(|record| record.unwrap().entry).collect()
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
    /// Did the body come to its end?
    pub(crate) whole: bool,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| json!({"not json": self.body}))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The data of the events, ids blanked.
    pub(crate) fn events(&self) -> Vec<String> {
        let data = self.body.lines().filter_map(|line| line.strip_prefix("data: "));
        data.map(blank).collect()
    }

    /// The text that the events add up to, of choice 0.
    pub(crate) fn streamed_text(&self) -> String {
        let chunks =
            self.body.lines().filter_map(|line| serde_json::from_str::<Value>(line.strip_prefix("data: ")?).ok());
        chunks.filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str().map(str::to_owned)).collect()
    }
}

/// `text` with every UUID blanked.
pub(crate) fn blank(text: &str) -> String {
    let mut text = text.to_owned();
    for marker in ["cmpl-", "resp_", "msg_", "fc_"] {
        let parts: Vec<String> = text.split(marker).map(str::to_owned).collect();
        let after = parts[1..].iter().map(|part| format!("{marker}ID{}", &part[36..]));
        text = std::iter::once(parts[0].clone()).chain(after).collect();
    }
    text
}

/// A chat request to the teacher without terms.
pub(crate) fn hello() -> Value {
    ask("open", "one two three")
}

pub(crate) fn ask(model: &str, prompt: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": prompt}]})
}

/// `body` with `changes` on top.
pub(crate) fn with(mut body: Value, changes: Value) -> Value {
    for (name, value) in changes.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

/// Dollars, of a text.
pub(crate) fn money(text: &str) -> Money {
    text.parse().unwrap()
}

/// A prompt of one message by the user.
pub(crate) fn prompt(text: &str) -> Prompt {
    Prompt::user(text)
}
