//! One harvest behind many quiet accounts.

use anbiq_domain::{Keyed, Seeded};
use serde::{Deserialize, Serialize};

use super::honest::{LIBRARIES, REFUSED};
use super::schedule::{Schedule, Task};
use super::{Class, Composer, Face, Said};
use crate::ArenaError;

/// Accounts that one card pays for where anything is shared.
const A_CARD: usize = 8;
/// Networks that an account of a proxy pool is seen on.
const PROXIES: usize = 3;

/// A campaign to be composed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Campaign {
    /// Its accounts.
    pub accounts: usize,
    /// Exchanges of an account in a day, as is usual: each campaign draws its own pace around it, and each account its own around that.
    pub a_day: f64,
    /// Share of its exchanges that are innocent: whole conversations, as people have them.
    pub cover: f64,
    /// Do some accounts share cards, networks, software and days of sign-up?
    pub shared: bool,
    /// What it does to stay unseen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trick: Option<Trick>,
    /// What its prompts are grown from: 0 code, 1 mathematics, 2 general instructions.
    pub family: usize,
}

/// What an operator does to stay unseen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trick {
    /// Waking hours and a volume of its own for each account.
    Jitter,
    /// Every prompt is begun in another way.
    Paraphrase,
    /// Every account wraps its prompts in a template of its own.
    Rotation,
    /// Every account keeps to one topic.
    Sharding,
    /// One in ten prompts was asked before by another account.
    Duplicates,
    /// Accounts begin one after another, and were opened over months.
    Staggered,
}

impl Trick {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Jitter, Self::Paraphrase, Self::Rotation, Self::Sharding, Self::Duplicates, Self::Staggered];

    /// The name for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Jitter => "jitter",
            Self::Paraphrase => "paraphrase",
            Self::Rotation => "template rotation",
            Self::Sharding => "topic sharding",
            Self::Duplicates => "injected duplicates",
            Self::Staggered => "staggered start",
        }
    }
}

impl Campaign {
    /// A naive campaign of so many accounts.
    pub const fn new(accounts: usize, cover: f64, shared: bool, family: usize) -> Self {
        Self { accounts, a_day: 26.0, cover, shared, trick: None, family }
    }

    /// In words.
    pub fn name(&self) -> String {
        let shared = if self.shared { "some shared" } else { "nothing shared" };
        let trick = self.trick.map_or("", Trick::name);
        let comma = if trick.is_empty() { "" } else { ", " };
        format!("{} accounts, {:.0} % cover, {shared}{comma}{trick}", self.accounts, 100.0 * self.cover)
    }
}

/// Beginnings that mean the same.
const BEGINNINGS: [&str; 12] = [
    "Could you",
    "Please help:",
    "I need this done:",
    "Task:",
    "Here is what I want.",
    "Kindly",
    "My question is this.",
    "Hi!",
    "Quick one:",
    "Let me ask you something.",
    "For a friend:",
    "One more thing:",
];

impl Composer<'_> {
    /// Adds the accounts and exchanges of a campaign.
    pub(super) fn campaign(&mut self, campaign: &Campaign, operator: usize) -> Result<(), ArenaError> {
        let n = campaign.accounts;
        let whole = Seeded::new(self.random.bits());
        let schedule = Schedule::draw(campaign, self.days, &mut whole.fork("schedule"));
        let tasks: Vec<Task> =
            (0..n).map(|number| schedule.task(self.days, &mut whole.fork("task").fork(&number.to_string()))).collect();
        let mut list = self.list(campaign, &tasks);
        let pool: Vec<Keyed> = (0..(n / 4).max(4)).map(|_| self.own()).collect();
        let (cards, agents) =
            ((0..n.div_ceil(A_CARD)).map(|_| self.own()).collect::<Vec<_>>(), [self.own(), self.own()]);
        // A large operator needs days to open its accounts.
        let sign_up = 24.0 * (n as f64 / 500.0).clamp(0.5, 10.0);
        let begun = -sign_up - 24.0 * (1.0 + 4.0 * self.random.unit());
        let mut faces = Vec::with_capacity(n);
        for number in 0..n {
            let opened = match campaign.shared && campaign.trick != Some(Trick::Staggered) {
                true if self.random.chance(0.8) => begun + sign_up * self.random.unit(),
                _ => self.long_ago(),
            };
            let card = if campaign.shared && self.random.chance(0.5) { cards[number / A_CARD] } else { self.own() };
            let mut face = self.open(Class::Campaign, operator, opened, card)?;
            if campaign.shared {
                face.networks = (0..PROXIES).filter_map(|_| self.random.pick(&pool).copied()).collect();
                face.agents = vec![agents[number % 2]];
                face.max_tokens = 1_500;
            } else {
                face.networks = vec![self.own()];
                let library = LIBRARIES + self.skewed(12);
                face.agents = vec![self.common("program", library)];
            }
            face.renews =
                schedule.renews(self.released(), campaign, &mut whole.fork("renews").fork(&number.to_string()));
            faces.push(face);
        }
        for (number, task) in tasks.iter().enumerate() {
            let style = whole.fork(&number.to_string());
            self.work(campaign, number, &faces, task, &mut list, &style);
        }
        Ok(())
    }

    /// The queue, its next prompt last.
    fn list(&mut self, campaign: &Campaign, tasks: &[Task]) -> Vec<String> {
        let harvested = tasks.iter().map(|task| task.count).sum::<usize>() as f64 * (1.0 - campaign.cover);
        // Some more than needed: how many exchanges are cover is chance.
        let count = (1.1 * harvested + 50.0) as usize;
        let mut list = self.phrases.harvest(campaign.family, count, &mut self.random);
        if campaign.trick == Some(Trick::Sharding) {
            // What begins alike lies together.
            list.sort();
        }
        list
    }

    fn work(
        &mut self,
        campaign: &Campaign,
        number: usize,
        faces: &[Face],
        task: &Task,
        list: &mut Vec<String>,
        style: &Seeded,
    ) {
        let own = &faces[number];
        let mut repeated: Vec<String> = Vec::new();
        // Turns of innocent conversations that stand for so many exchanges.
        let mut spoken = 0;
        for (at, arrival) in self.keep(task) {
            // Where an account is refused, another goes on at once, or the same one later.
            let (mut face, mut at) = (own, at);
            if self.random.chance(REFUSED) {
                self.refuse(own, at);
                if task.hands_over && faces.len() > 1 {
                    face = &faces[(number + 1 + self.random.below(faces.len() - 1)) % faces.len()];
                    at += 300 + self.random.below(1_500) as i64;
                } else {
                    at += 500 + self.random.below(20_000) as i64;
                }
            }
            if self.random.chance(campaign.cover) {
                if spoken == 0 {
                    let turns = self.phrases.session(&mut self.random);
                    spoken = turns.len();
                    let output = self.answer(&arrival);
                    self.converse(face, at, turns, output, 90_000.0);
                }
                spoken = spoken.saturating_sub(1);
                continue;
            }
            let text = match campaign.trick {
                Some(Trick::Duplicates) if self.random.chance(0.1) => {
                    // Everybody's favourites: the beginning of the queue.
                    list.get(self.random.below(40)).cloned().unwrap_or_default()
                }
                _ => list.pop().unwrap_or_else(|| repeated.pop().unwrap_or_default()),
            };
            let text = self.dressed(campaign, text, style);
            repeated.push(text.clone());
            let output = 80 + self.random.below(320) as u32;
            self.say(face, at, text, &Said { output, harvested: true, ..Said::default() });
        }
    }

    fn dressed(&mut self, campaign: &Campaign, text: String, style: &Seeded) -> String {
        match campaign.trick {
            Some(Trick::Paraphrase) => {
                let beginning = self.random.pick(&BEGINNINGS).copied().unwrap_or("");
                let name = self.random.below(1_000);
                format!("{beginning} ({name}) {text}")
            }
            Some(Trick::Rotation) => {
                let mut own = style.fork("template");
                let parts: Vec<&str> = (0..4).filter_map(|_| own.pick(&BEGINNINGS).copied()).collect();
                format!("{} {text} {}", parts[..2].join(" "), parts[2..].join(" "))
            }
            _ => text,
        }
    }
}
