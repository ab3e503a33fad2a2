//! Journals and models that are functions of their text.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU32, Ordering};

use anbiq_domain::{
    AccountId, Answer, Client, CoinKey, Draws, Entry, EpochCommitment, Exchange, ExchangeId, Finish, KeyId, Keyed,
    Money, OperatorId, Outcome, Prompt, RequestFacts, Seeded, Sketch, Texts, Timestamp, Twinning, Usage,
};
use anbiq_model::{Abilities, Fault, Generation, Model, ModelError, Request, ScoreRequest, Scored};
use anbiq_trace::{Collected, Config, OperatorAccounts, Report, Selection, TraceError, items, run};

pub(crate) const COIN: CoinKey = CoinKey::from_bytes([9; 32]);

/// A model whose log-probability of a text is a fixed random function of it, partly the same for all models as with real ones,
/// and higher for the texts it remembers.
#[derive(Debug, Default)]
pub(crate) struct Mock {
    pub(crate) name: &'static str,
    pub(crate) remembers: HashSet<String>,
    pub(crate) by: f64,
    pub(crate) refuses: Option<&'static str>,
    pub(crate) infinite: Option<&'static str>,
    pub(crate) blind: bool,
    pub(crate) busy: AtomicU32,
}

impl Mock {
    pub(crate) fn named(name: &'static str) -> Self {
        Self { name, ..Self::default() }
    }

    /// What a model says that cannot do what it is asked.
    pub(crate) fn refusal() -> ModelError {
        ModelError::new(Fault::Request, "not_here", "only scores")
    }

    /// One that was trained on what `served` says.
    pub(crate) fn trained_on(name: &'static str, texts: impl Iterator<Item = String>, by: f64) -> Self {
        Self { remembers: texts.collect(), by, ..Self::named(name) }
    }
}

pub(crate) fn noise(of: &str, text: &str) -> f64 {
    let digest = anbiq_domain::Digest::of_parts(&[of.as_bytes(), b"\0", text.as_bytes()]);
    let mut seed = [0; 8];
    seed.copy_from_slice(&digest.as_bytes()[..8]);
    Seeded::new(u64::from_le_bytes(seed)).normal()
}

#[async_trait::async_trait]
impl Model for Mock {
    fn name(&self) -> &str {
        self.name
    }

    fn abilities(&self) -> Abilities {
        Abilities { scoring: !self.blind, ..Abilities::default() }
    }

    async fn generate(&self, _: Request) -> Result<Generation, ModelError> {
        Err(Self::refusal())
    }

    async fn score(&self, requests: &[ScoreRequest]) -> Result<Vec<Scored>, ModelError> {
        if self.busy.load(Ordering::SeqCst) > 0 {
            self.busy.fetch_sub(1, Ordering::SeqCst);
            let error = ModelError::new(Fault::Busy, "rate_limited", "later");
            return Err(ModelError { retry_after_ms: Some(1), ..error });
        }
        requests
            .iter()
            .map(|request| {
                let text = &request.answer.text;
                if self.refuses.is_some_and(|word| text.contains(word)) {
                    return Err(ModelError::new(Fault::Request, "context_length_exceeded", "too long"));
                }
                let shared = 12.0 * noise("text", text);
                let own = 4.0 * noise(self.name, text);
                let remembered = if self.remembers.contains(text) { self.by } else { 0.0 };
                let infinite = self.infinite.is_some_and(|word| text.contains(word));
                let total = if infinite { f64::NEG_INFINITY } else { shared + own + remembered - 60.0 };
                Ok(Scored { logprobs: vec![total as f32], greedy: Vec::new() })
            })
            .collect()
    }
}

pub(crate) fn account(name: &str) -> AccountId {
    AccountId::new(name).unwrap()
}

pub(crate) fn exchange(place: u32, name: &str, random: &mut Seeded) -> Exchange {
    let at = Timestamp::from_milliseconds(i64::from(place));
    let id = ExchangeId::fresh(at, random);
    let prompt = Prompt::user(format!("prompt {place}"));
    let answers: Vec<Answer> =
        ["first", "second"].map(|which| Answer::new(format!("{which} answer {place}"), Finish::Stop)).to_vec();
    let mut draws = Draws::commit(&COIN, id, &prompt, &answers);
    draws.twinning = Some(Twinning { epoch: 0, served: COIN.choose(id, 2), ..Twinning::default() });
    Exchange {
        id,
        at,
        duration_ms: 1,
        account: account(name),
        key: KeyId::new("key").unwrap(),
        model: "teacher".into(),
        terms: None,
        grant: None,
        request: RequestFacts::default(),
        client: Client { address: Keyed(0), network: Keyed(0), agent: Keyed(0) },
        sketch: Sketch { exact: Keyed(0), opening: Keyed(0), minhash: [0; 32], words: 0, flags: 0 },
        usage: Usage::default(),
        cost: Money::ZERO,
        outcome: Outcome::Completed,
        draws,
        texts: Some(Texts { prompt, answers }),
        sealed: None,
    }
}

/// 300 pairs of each of two operators (two accounts each) and 100 of an account that belongs to nobody.
pub(crate) fn exchanges(seed: u64) -> Vec<Exchange> {
    let mut random = Seeded::new(seed);
    let accounts = ["a1", "a2", "b1", "b2"];
    (0..700)
        .map(|place| exchange(place, if place % 7 == 6 { "other" } else { accounts[place as usize % 4] }, &mut random))
        .collect()
}

pub(crate) fn journal(exchanges: Vec<Exchange>) -> Vec<Entry> {
    let epoch = EpochCommitment { epoch: 0, commitment: COIN.commitment() };
    let committed = Entry::CoinsCommitted { at: Timestamp::default(), epoch };
    std::iter::once(committed)
        .chain(exchanges.into_iter().map(|exchange| Entry::Exchange(Box::new(exchange))))
        .collect()
}

pub(crate) fn selection() -> Selection {
    let operator = |name: &str, accounts: [&str; 2]| OperatorAccounts {
        operator: OperatorId::new(name).unwrap(),
        accounts: accounts.map(account).to_vec(),
    };
    Selection {
        operators: vec![operator("op-a", ["a1", "a2"]), operator("op-b", ["b1", "b2"])],
        ..Selection::default()
    }
}

pub(crate) fn collected(seed: u64) -> Collected {
    items::from_journal(journal(exchanges(seed)), &selection()).unwrap()
}

/// What was served to the accounts whose name begins with `prefix`.
pub(crate) fn served(collected: &Collected, prefix: &str) -> impl Iterator<Item = String> {
    collected
        .items
        .iter()
        .filter(move |item| item.account.as_str().starts_with(prefix))
        .map(|item| item.served().text.clone())
}

pub(crate) fn trace(
    collected: &Collected,
    suspect: &Mock,
    controls: &[&dyn Model],
    config: &Config,
) -> Result<Report, TraceError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let teacher = Mock::named("teacher");
    runtime.block_on(run(collected, suspect, &teacher, controls, config, &mut |_, _| {}))
}
