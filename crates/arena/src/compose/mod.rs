//! Composed traffic: who asks what, when, and what is true of them.
//!
//! No public data joins accounts, prompts and times, so accounts of known kinds are given real prompts and the gaps of real
//! arrivals where they are at hand, and generated ones otherwise. Generators write rows; nothing here talks to anybody.

mod campaign;
mod grammar;
mod history;
mod honest;
pub(crate) mod phrases;
mod schedule;

use anbiq_domain::{
    AccountId, Client, ClockKind, Conditions, Digest, Draws, Entry, Exchange, ExchangeId, Grant, GrantId, JournalId,
    KeyId, Keyed, Message, Money, Outcome, Permission, PlanId, Refusal, RequestFacts, Role, Seeded, Sketch, Terms,
    TermsId, TermsRef, Timestamp, Usage,
};
use anbiq_lab::world::Arrivals;
use anbiq_statistics::sketch::Sketcher;
use serde::{Deserialize, Serialize};

pub use campaign::{Campaign, Trick};
use history::{Batch, Clerk};
pub use history::{History, Replay};
use phrases::Phrases;

use crate::ArenaError;
use crate::embed::{Embedding, embed};

/// Milliseconds of an hour.
pub(crate) const HOUR: f64 = 3_600_000.0;
/// Days before the traffic within which honest accounts were opened.
pub(crate) const HISTORY: f64 = 120.0;
/// 2026-03-02T00:00:00Z, a Monday.
const START: i64 = 1_772_409_600_000;
/// First prompts of an account that the baselines see: their windows.
pub(crate) const WINDOW: usize = 100;

/// What an account is: the truth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// A person who chats, from home and by telephone.
    Chat,
    /// People who chat on one network, with accounts that were opened in one week.
    Campus,
    /// An application with one template.
    Application,
    /// An application with several templates.
    Applications,
    /// An application that spreads its load over a pool of keys, day and night, and never sees an input twice.
    KeyPool,
    /// An evaluation harness.
    Harness,
    /// Batches of items with answers of a word.
    Labelling,
    /// Jobs that a timer starts, each of another customer: every quarter of an hour, every hour, round the clock.
    Timer,
    /// Agents that write code.
    Agent,
    /// Questions over retrieved passages.
    Retrieval,
    /// The seats of a firm: one card, one office, one morning of sign-ups.
    Seats,
    /// One person with several accounts, for the sake of trial credit.
    Farm,
    /// A reseller with honest customers.
    Reseller,
    /// A reseller with one harvester among its customers.
    Infested,
    /// A distiller with a grant.
    Licensed,
    /// An account of a campaign.
    Campaign,
}

impl Class {
    /// All that may not be accused.
    pub const HONEST: [Self; 13] = [
        Self::Chat,
        Self::Campus,
        Self::Application,
        Self::Applications,
        Self::KeyPool,
        Self::Harness,
        Self::Labelling,
        Self::Timer,
        Self::Agent,
        Self::Retrieval,
        Self::Seats,
        Self::Farm,
        Self::Reseller,
    ];

    /// The name for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Campus => "campus",
            Self::Application => "application, one template",
            Self::Applications => "application, several templates",
            Self::KeyPool => "application over a pool of keys",
            Self::Harness => "evaluation harness",
            Self::Labelling => "batch labelling",
            Self::Timer => "jobs on a timer",
            Self::Agent => "coding agent",
            Self::Retrieval => "retrieval",
            Self::Seats => "seats of a firm",
            Self::Farm => "several accounts of a person",
            Self::Reseller => "reseller",
            Self::Infested => "reseller with a harvester inside",
            Self::Licensed => "licensed distiller",
            Self::Campaign => "campaign",
        }
    }

    /// Neither a harvest nor a host of one.
    pub const fn is_honest(self) -> bool {
        !matches!(self, Self::Campaign | Self::Infested | Self::Licensed)
    }

    /// Honest, and unlike people who chat.
    pub const fn is_hard(self) -> bool {
        self.is_honest() && !matches!(self, Self::Chat)
    }
}

/// An account and what is true of it.
#[derive(Debug, Clone)]
pub(crate) struct Party {
    pub(crate) id: AccountId,
    pub(crate) class: Class,
    /// Whose it is.
    pub(crate) operator: usize,
    pub(crate) opened: i64,
    pub(crate) payment: Keyed,
    pub(crate) exchanges: u64,
    /// What the baselines see of its prompts.
    pub(crate) window: Vec<Embedding>,
}

/// An exchange.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) at: i64,
    pub(crate) account: u32,
    pub(crate) sketch: Sketch,
    pub(crate) network: Keyed,
    pub(crate) agent: Keyed,
    pub(crate) max_tokens: u32,
    pub(crate) prompt_tokens: u32,
    pub(crate) output_tokens: u32,
    pub(crate) granted: bool,
    /// Is its answer harvested?
    pub(crate) harvested: bool,
    /// Is it of the teacher that was released on the way?
    renewed: bool,
}

/// One world.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) parties: Vec<Party>,
    /// In order of time.
    pub(crate) rows: Vec<Row>,
    /// Requests that were refused to an account for a limit of its own, in order of time.
    refused: Vec<(i64, u32)>,
    /// For each operator of a campaign: which, and what kind.
    pub(crate) campaigns: Vec<(usize, Campaign)>,
}

/// How many of whom.
#[derive(Debug, Clone)]
pub(crate) struct Cast {
    /// People who chat; all other honest kinds keep a proportion to them.
    pub(crate) people: usize,
    pub(crate) days: f64,
    pub(crate) campaigns: Vec<Campaign>,
}

/// From where and with what an account asks.
#[derive(Debug, Clone)]
struct Face {
    account: usize,
    networks: Vec<Keyed>,
    agents: Vec<Keyed>,
    max_tokens: u32,
    /// The hour in which it goes over to the new teacher, if it does.
    renews: Option<f64>,
}

/// What is said at once.
#[derive(Debug, Default)]
struct Said {
    prompt: u32,
    output: u32,
    harvested: bool,
    granted: bool,
}

/// A world under composition.
#[derive(Debug)]
struct Composer<'a> {
    random: Seeded,
    phrases: &'a Phrases,
    arrivals: &'a Arrivals,
    sketcher: Sketcher,
    days: f64,
    parties: Vec<Party>,
    rows: Vec<Row>,
    /// The conversations of the rows that are not sketched yet.
    asked: Vec<Vec<Message>>,
    /// Rows that are sketched.
    sketched: usize,
    /// Who takes rows away, where they are not kept.
    clerk: Option<Clerk>,
    refused: Vec<(i64, u32)>,
    operators: usize,
    /// Prompts of an account that are kept for the baselines.
    window: usize,
}

impl Stream {
    /// Composes a world: the same seed gives the same one.
    pub(crate) fn compose(seed: u64, cast: &Cast, phrases: &Phrases, arrivals: &Arrivals) -> Result<Self, ArenaError> {
        let mut composer = Composer::new(seed, cast.days, phrases, arrivals);
        composer.everybody(cast.people)?;
        let mut campaigns = Vec::new();
        for campaign in &cast.campaigns {
            let operator = composer.operator();
            composer.campaign(campaign, operator)?;
            campaigns.push((operator, campaign.clone()));
        }
        composer.hand_over(true);
        let Composer { parties, mut rows, mut refused, days, .. } = composer;
        refused.retain(|(at, _)| (0.0..days * 24.0 * HOUR).contains(&(*at as f64)));
        refused.sort_unstable();
        rows.retain(|row| (row.at as f64) < days * 24.0 * HOUR);
        rows.sort_by_key(|row| row.at);
        Ok(Self { parties, rows, refused, campaigns })
    }

    /// The journal that a gateway would have kept until `end`, in milliseconds since the beginning.
    pub(crate) fn entries(&self, end: i64) -> impl Iterator<Item = Entry> {
        let papers = [
            // Names of constants: always ids.
            JournalId::new("arena").ok().map(|journal| Entry::Opened {
                journal,
                at: moment(-(HISTORY * 24.0 * HOUR) as i64),
                software: "arena".into(),
                clock: ClockKind::Simulated,
            }),
            terms().map(|terms| Entry::TermsIssued { at: moment(-(HISTORY * 24.0 * HOUR) as i64), terms }),
        ];
        let opened = self.parties.iter().filter(move |party| party.opened <= end).filter_map(|party| {
            Some(Entry::AccountOpened {
                at: moment(party.opened),
                account: party.id.clone(),
                plan: PlanId::new("standard").ok()?,
                payment: Some(party.payment),
            })
        });
        let grants = self.parties.iter().filter(|party| party.class == Class::Licensed).filter_map(grant);
        papers
            .into_iter()
            .flatten()
            .chain(opened)
            .chain(grants.map(|grant| Entry::GrantGiven { grant }))
            .chain(self.events(end).map(|event| event.1))
    }

    /// The same with the moment of each, in milliseconds since the beginning; accounts are opened when they are, papers before all.
    pub(crate) fn timed_entries(&self) -> impl Iterator<Item = (i64, Entry)> {
        let mut papers: Vec<(i64, Entry)> = self.papers(self.end()).collect();
        papers.sort_by_key(|(at, _)| *at);
        let (mut papers, mut events) = (papers.into_iter().peekable(), self.events(self.end()).peekable());
        std::iter::from_fn(move || {
            let next = events.peek().map(|event| event.0);
            match papers.peek() {
                Some((at, _)) if next.is_none_or(|next| *at <= next) => papers.next(),
                _ => events.next(),
            }
        })
    }

    /// Whatever is no exchange and no refusal until `end`, with the moment of accounts; the rest comes before all.
    fn papers(&self, end: i64) -> impl Iterator<Item = (i64, Entry)> {
        let papers = self.entries(end).take_while(|entry| !matches!(entry, Entry::Exchange(_) | Entry::Refused(_)));
        papers.map(|entry| match &entry {
            Entry::AccountOpened { at, .. } => (at.milliseconds() - START, entry),
            _ => (i64::MIN, entry),
        })
    }

    /// Exchanges and refusals until `end`, in order, each with its moment.
    fn events(&self, end: i64) -> impl Iterator<Item = (i64, Entry)> {
        let reference = terms().map(|terms| terms.reference());
        let mut random = Seeded::new(0).fork("ids of exchanges");
        let (mut rows, mut refused) = (self.rows.iter().peekable(), self.refused.iter().peekable());
        std::iter::from_fn(move || {
            let row = rows.peek().map(|row| row.at);
            match refused.peek() {
                Some((at, _)) if row.is_none_or(|row| *at <= row) => {
                    let (at, account) = *refused.next()?;
                    let account = self.parties[account as usize].id.clone();
                    Some((at, Entry::Refused(Refusal { at: moment(at), account, code: "rate_limit_exceeded".into() })))
                }
                _ => {
                    let row = rows.next()?;
                    Some((row.at, self.exchange(row, reference.as_ref()?, &mut random)?))
                }
            }
        })
        .take_while(move |(at, _)| *at <= end)
    }

    fn exchange(&self, row: &Row, terms: &TermsRef, random: &mut Seeded) -> Option<Entry> {
        let party = &self.parties[row.account as usize];
        Some(Entry::Exchange(Box::new(Exchange {
            id: ExchangeId::fresh(moment(row.at), random),
            at: moment(row.at),
            duration_ms: 500,
            account: party.id.clone(),
            key: KeyId::new(party.id.as_str()).ok()?,
            model: if row.renewed { "teacher-2" } else { "teacher" }.into(),
            terms: Some(terms.clone()),
            grant: if row.granted { grant_id(party) } else { None },
            request: RequestFacts {
                temperature: 1.0,
                top_p: 1.0,
                max_tokens: row.max_tokens,
                n: 1,
                messages: 1,
                ..RequestFacts::default()
            },
            client: Client { address: row.network, network: row.network, agent: row.agent },
            sketch: row.sketch.clone(),
            usage: Usage {
                prompt_tokens: row.prompt_tokens.into(),
                completion_tokens: row.output_tokens.into(),
                ..Usage::default()
            },
            cost: Money::from_nanos(2_000 * i64::from(row.output_tokens)),
            outcome: Outcome::Completed,
            draws: Draws {
                prompt: Digest::of(b""),
                texts: Vec::new(),
                open: Vec::new(),
                fingerprints: Vec::new(),
                twinning: None,
            },
            texts: None,
            sealed: None,
        })))
    }

    /// The last moment.
    pub(crate) fn end(&self) -> i64 {
        self.rows.last().map_or(0, |row| row.at)
    }
}

fn moment(milliseconds: i64) -> Timestamp {
    Timestamp::from_milliseconds(START + milliseconds)
}

/// The teacher's terms: distillation needs a grant.
fn terms() -> Option<Terms> {
    Some(Terms::new(TermsId::new("arena-terms").ok()?, 1, "teacher", Permission::GrantRequired, "Ask first."))
}

fn grant_id(party: &Party) -> Option<GrantId> {
    GrantId::new(format!("grant-{}", party.id)).ok()
}

fn grant(party: &Party) -> Option<Grant> {
    Some(Grant {
        id: grant_id(party)?,
        account: party.id.clone(),
        terms: terms()?.reference(),
        purpose: "a small student".into(),
        conditions: Conditions { max_output_tokens: Some(100_000_000), ..Conditions::default() },
        given: moment(party.opened),
        expires: None,
    })
}

impl<'a> Composer<'a> {
    fn new(seed: u64, days: f64, phrases: &'a Phrases, arrivals: &'a Arrivals) -> Self {
        Self {
            random: Seeded::new(seed).fork("arena"),
            phrases,
            arrivals,
            sketcher: Sketcher::new(&[3; 32]),
            days,
            parties: Vec::new(),
            rows: Vec::new(),
            asked: Vec::new(),
            sketched: 0,
            clerk: None,
            refused: Vec::new(),
            operators: 0,
            window: WINDOW,
        }
    }

    /// A fresh operator.
    fn operator(&mut self) -> usize {
        self.operators += 1;
        self.operators - 1
    }

    /// Something that nobody else has.
    fn own(&mut self) -> Keyed {
        Keyed(self.random.bits())
    }

    /// A thing of `kind` that has a `number`: equal for equal numbers.
    fn common(&self, kind: &str, number: usize) -> Keyed {
        Keyed(self.random.fork(kind).fork(&number.to_string()).bits())
    }

    /// A number below `limit`, small ones more often: as programs and settings are.
    fn skewed(&mut self, limit: usize) -> usize {
        let unit = self.random.unit();
        ((unit * unit) * limit as f64) as usize
    }

    /// Opens an account; its name says nothing. `opened` is in hours after the beginning.
    fn open(&mut self, class: Class, operator: usize, opened: f64, payment: Keyed) -> Result<Face, ArenaError> {
        let id = AccountId::new(format!("user-{:012x}", self.random.bits() >> 16))?;
        let opened = (opened * HOUR) as i64;
        self.parties.push(Party { id, class, operator, opened, payment, exchanges: 0, window: Vec::new() });
        let max_tokens = [256, 512, 1024, 2048, 4096][self.skewed(5)];
        let renews = self.renews();
        Ok(Face { account: self.parties.len() - 1, networks: Vec::new(), agents: Vec::new(), max_tokens, renews })
    }

    /// When an honest account was opened, in hours after the beginning.
    fn long_ago(&mut self) -> f64 {
        -24.0 * HISTORY * self.random.unit()
    }

    /// The hour in which the new teacher is released: not on the first day.
    fn released(&self) -> f64 {
        24.0 * self.days * 0.45
    }

    /// When somebody goes over to the new teacher: half of them do, half of those on the first day.
    fn renews(&mut self) -> Option<f64> {
        let hours = (2.5 + 1.2 * self.random.normal()).exp();
        self.random.chance(0.5).then(|| self.released() + hours)
    }

    /// `face` is refused for its rate at `at`.
    fn refuse(&mut self, face: &Face, at: i64) {
        self.refused.push((at, face.account as u32));
    }

    fn say(&mut self, face: &Face, at: i64, text: impl Into<String>, said: &Said) {
        let text = text.into();
        self.speak(face, at, &text, said);
        self.asked.push(vec![Message::new(Role::User, text)]);
        self.hand_over(false);
    }

    /// A row of `text`, which is sketched later.
    fn speak(&mut self, face: &Face, at: i64, text: &str, said: &Said) {
        let pick = |things: &[Keyed], random: &mut Seeded| random.pick(things).copied().unwrap_or(Keyed(0));
        let (network, agent) = (pick(&face.networks, &mut self.random), pick(&face.agents, &mut self.random));
        let party = &mut self.parties[face.account];
        party.exchanges += 1;
        if party.window.len() < self.window {
            party.window.push(embed(text));
        }
        self.rows.push(Row {
            at,
            account: face.account as u32,
            sketch: UNSKETCHED,
            network,
            agent,
            max_tokens: face.max_tokens,
            prompt_tokens: said.prompt,
            output_tokens: said.output.max(1),
            granted: said.granted,
            harvested: said.harvested,
            renewed: face.renews.is_some_and(|hour| at as f64 >= hour * HOUR),
        });
    }

    /// A conversation of `turns`, a turn every minute or so.
    fn converse(&mut self, face: &Face, mut at: i64, turns: Vec<String>, output: u32, span: f64) {
        let mut messages = Vec::with_capacity(2 * turns.len());
        let mut said = 0;
        for turn in turns {
            let answer = 1 + (f64::from(output) * (0.4 + 1.2 * self.random.unit())) as u32;
            self.speak(face, at, &turn, &Said { prompt: said, output: answer, ..Said::default() });
            said += answer + 20;
            messages.extend([Message::new(Role::User, turn), Message::new(Role::Assistant, ".")]);
            at += (span * (0.3 + self.random.exponential())) as i64;
        }
        self.asked.push(messages);
        self.hand_over(false);
    }

    /// Has what was asked sketched and taken away where that is due, or for the `last` time.
    fn hand_over(&mut self, last: bool) {
        if !last && self.rows.len() - self.sketched < BATCH {
            return;
        }
        let asked = std::mem::take(&mut self.asked);
        let Some(clerk) = &self.clerk else {
            sketch(&self.sketcher, &asked, &mut self.rows[self.sketched..]);
            self.sketched = self.rows.len();
            return;
        };
        let (rows, refused) = (std::mem::take(&mut self.rows), std::mem::take(&mut self.refused));
        let classes = rows.iter().map(|row| self.parties[row.account as usize].class).collect();
        // A clerk that is gone has failed, and says so itself.
        let _ = clerk.give(&self.sketcher, Batch { asked, rows, classes, refused });
    }
}

/// Rows after which prompts are sketched.
const BATCH: usize = 4_096;

/// Of a prompt that waits.
const UNSKETCHED: Sketch =
    Sketch { exact: Keyed(0), opening: Keyed(0), minhash: [0; anbiq_domain::MINHASHES], words: 0, flags: 0 };

/// Sketches the conversations `asked`, whose prompts are those of `rows`, in their order.
fn sketch(sketcher: &Sketcher, asked: &[Vec<Message>], rows: &mut [Row]) {
    let sketches = asked.iter().flat_map(|messages| sketcher.conversation(messages));
    for (row, sketch) in rows.iter_mut().zip(sketches) {
        let own = sketch.words + sketch.words / 3 + 4;
        row.prompt_tokens = own.max(row.prompt_tokens);
        row.sketch = sketch;
    }
}
