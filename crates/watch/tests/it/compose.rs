//! Composed traffic: honest accounts of several kinds and one operator who deals out a list.
//!
//! All prompts come from the same few moulds with the same fillers, so no vocabulary tells anybody apart.

use std::collections::BTreeSet;

use anbiq_domain::{
    AccountId, Client, ClockKind, Conditions, Digest, Draws, Entry, Exchange, ExchangeId, Grant, GrantId, JournalId,
    KeyId, Keyed, Message, Money, Outcome, Permission, PlanId, Prompt, RequestFacts, Role, Seeded, Terms, TermsId,
    TermsRef, Timestamp, Usage,
};
use anbiq_statistics::sketch::Sketcher;

pub(crate) const HOUR: i64 = 3_600_000;
pub(crate) const DAY: i64 = 24 * HOUR;
/// 2026-04-22T00:00:00Z
const START: i64 = 1_776_816_000_000;

const ANIMALS: [&str; 16] = [
    "fox", "owl", "horse", "cat", "dog", "hare", "bear", "wolf", "mouse", "duck", "goat", "crow", "frog", "bee",
    "deer", "lamb",
];
const PLACES: [&str; 14] = [
    "in the forest",
    "by the sea",
    "on a hill",
    "in an old town",
    "near the mill",
    "in the desert",
    "under a bridge",
    "on an island",
    "at the market",
    "in a garden",
    "by the river",
    "in a castle",
    "at school",
    "on a ship",
];
const THINGS: [&str; 16] = [
    "lamp", "key", "drum", "boat", "hat", "ring", "map", "book", "bell", "stone", "coat", "cup", "rope", "kite",
    "cart", "door",
];
const MOODS: [&str; 14] = [
    "happy", "brave", "tired", "clever", "old", "small", "quiet", "proud", "lost", "poor", "kind", "young", "angry",
    "lucky",
];
const NUMBERS: [&str; 20] = [
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
    "twenty",
];

/// Moulds by kind of task: `@a` animal, `@p` place, `@t` thing, `@m` mood, `@n` number.
const MOULDS: [&[&str]; 6] = [
    &[
        "write a story about a @m @a @p with a @t",
        "tell me a tale of a @a who finds a @t @p",
        "make up a story in which a @m @a loses a @t",
    ],
    &["describe a @m @a and its @t @p", "what does a @t @p look like to a @m @a", "describe the @t that a @a keeps @p"],
    &["what is @n plus @n times @n", "how much is @n minus @n plus @n", "calculate @n times @n minus @n"],
    &["write a letter to a @m @a about a @t", "write a note that says the @t is @p for the @m one"],
    &["explain to a @m child why a @a needs a @t", "explain how a @t works to people @p"],
    &["give me @n names for a @m @a @p", "list @n things a @a does with a @t"],
];
const TALK: [&str; 8] = [
    "hello how are you",
    "thanks that was nice",
    "tell me more about it",
    "what shall i cook with @n @ts",
    "why is my @a so @m",
    "good morning i am @m today",
    "can you say that again but shorter",
    "what do you think of a @t @p",
];

fn fill(mould: &str, random: &mut Seeded) -> String {
    let mut text = String::new();
    let mut rest = mould;
    while let Some(at) = rest.find('@') {
        text.push_str(&rest[..at]);
        let words: &[&str] = match &rest[at + 1..at + 2] {
            "a" => &ANIMALS,
            "p" => &PLACES,
            "t" => &THINGS,
            "m" => &MOODS,
            _ => &NUMBERS,
        };
        text.push_str(random.pick(words).unwrap());
        rest = &rest[at + 2..];
    }
    text + rest
}

fn task(kind: usize, random: &mut Seeded) -> String {
    let mould = *random.pick(MOULDS[kind]).unwrap();
    fill(mould, random)
}

/// One composed world and who is who in it.
pub(crate) struct World {
    pub(crate) entries: Vec<Entry>,
    pub(crate) harvesters: BTreeSet<AccountId>,
    pub(crate) licensee: AccountId,
}

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Operator {
    None,
    /// Five means of payment, a pool of networks, two kinds of software.
    Sloppy,
    /// As sloppy, but all accounts of the world were opened at one moment, as after an import.
    Imported,
    /// Nothing of it shared.
    Clean,
    /// Nothing of it shared, opened over weeks, and it talks as people do; beside it monitors of unrelated people that ask
    /// at its rate, evenly and round the clock, each its own thing.
    Covered,
}

/// What an account looks like from outside.
#[derive(Clone)]
struct Face {
    account: AccountId,
    networks: Vec<String>,
    agents: Vec<String>,
    max_tokens: u32,
}

struct Composer {
    random: Seeded,
    sketcher: Sketcher,
    entries: Vec<Entry>,
}

pub(crate) fn world(seed: u64, operator: Operator) -> World {
    sized(seed, operator, 18, 40)
}

/// A world with so many people at home, and an operator of so many accounts.
pub(crate) fn sized(seed: u64, operator: Operator, honest: usize, accounts: usize) -> World {
    let mut composer = Composer { random: Seeded::new(seed), sketcher: Sketcher::new(&[9; 32]), entries: Vec::new() };
    let licensee = composer.everybody(honest);
    let harvesters = match operator {
        Operator::None => BTreeSet::new(),
        Operator::Covered => {
            composer.monitors();
            composer.covered(accounts)
        }
        kind => composer.harvest(kind != Operator::Clean, accounts),
    };
    if operator == Operator::Imported {
        for entry in &mut composer.entries {
            if let Entry::AccountOpened { at: opened, .. } = entry {
                *opened = at(-DAY);
            }
        }
    }
    composer.entries.sort_by_key(Entry::at);
    World { entries: composer.entries, harvesters, licensee }
}

fn keyed(text: &str) -> Keyed {
    let digest = Digest::of(text.as_bytes());
    Keyed(u64::from_le_bytes(digest.as_bytes()[..8].try_into().unwrap()))
}

fn at(milliseconds: i64) -> Timestamp {
    Timestamp::from_milliseconds(START + milliseconds)
}

fn terms() -> TermsRef {
    TermsRef { id: TermsId::new("house-terms").unwrap(), version: 1 }
}

impl Composer {
    /// The provider's papers and all honest accounts; returns the licensee.
    fn everybody(&mut self, honest: usize) -> AccountId {
        let journal = JournalId::new("composed").unwrap();
        let software = "composer".to_owned();
        self.entries.push(Entry::Opened { journal, at: at(-60 * DAY), software, clock: ClockKind::Simulated });
        let issued = Terms {
            id: terms().id,
            version: 1,
            teacher: "teacher".to_owned(),
            distillation: Permission::GrantRequired,
            conditions: Conditions::default(),
            expires: None,
            source: None,
            text: "Ask first.".to_owned(),
        };
        self.entries.push(Entry::TermsIssued { at: at(-60 * DAY), terms: issued });
        for number in 0..honest {
            self.chatter(&format!("home-{number}"), None, None, None);
        }
        for number in 0..12 {
            // A campus: one network, and a term that began on one day.
            let opened = -9 * DAY + self.within(DAY);
            self.chatter(&format!("campus-{number}"), None, Some("campus"), Some(opened));
        }
        for number in 0..8 {
            // A firm's seats: one card, one office, one morning of sign-ups.
            let opened = -5 * DAY + self.within(2 * HOUR);
            self.chatter(&format!("seat-{number}"), Some("firm card"), Some("office"), Some(opened));
        }
        self.application("app-tickets", &["summarise the ticket of a @m customer about a @t @p from @n days ago"], 300);
        self.application(
            "app-shop",
            &[
                "write a slogan for a @t sold @p",
                "is the review positive: the @t was @m",
                "suggest @n gifts for a @m friend with a @a",
            ],
            250,
        );
        self.key_pool();
        self.evaluation();
        self.labelling();
        self.licensee()
    }

    fn within(&mut self, span: i64) -> i64 {
        (self.random.unit() * span as f64) as i64
    }

    fn open(&mut self, name: &str, opened: i64, payment: Option<&str>, networks: &[String], agent: &str) -> Face {
        let account = AccountId::new(name).unwrap();
        let payment = Some(payment.map_or_else(|| format!("card of {name}"), str::to_owned));
        self.entries.push(Entry::AccountOpened {
            at: at(opened),
            account: account.clone(),
            plan: PlanId::new("standard").unwrap(),
            payment: payment.as_deref().map(keyed),
        });
        let max_tokens = [128, 256, 512][self.random.below(3)];
        Face { account, networks: networks.to_vec(), agents: vec![agent.to_owned()], max_tokens }
    }

    fn say(&mut self, face: &Face, when: i64, prompt: &Prompt, output: u64, grant: Option<&GrantId>) {
        let sketch = self.sketcher.sketch(prompt);
        let words = u64::from(sketch.words);
        let usage = Usage { prompt_tokens: words + words / 3 + 4, completion_tokens: output, ..Usage::default() };
        let network = self.random.pick(&face.networks).unwrap().clone();
        let address = format!("{network} {}", self.random.below(4));
        let agent = self.random.pick(&face.agents).unwrap().clone();
        self.entries.push(Entry::Exchange(Box::new(Exchange {
            id: ExchangeId::fresh(at(when), &mut self.random),
            at: at(when),
            duration_ms: 500,
            key: KeyId::new(face.account.as_str()).unwrap(),
            account: face.account.clone(),
            model: "teacher".to_owned(),
            terms: Some(terms()),
            grant: grant.cloned(),
            request: RequestFacts {
                temperature: 1.0,
                top_p: 1.0,
                max_tokens: face.max_tokens,
                n: 1,
                messages: 1,
                ..RequestFacts::default()
            },
            client: Client { address: keyed(&address), network: keyed(&network), agent: keyed(&agent) },
            sketch,
            usage,
            cost: Money::from_nanos(2_000 * output as i64),
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
        })));
    }

    fn length(&mut self, kind: usize) -> u64 {
        if kind == 2 { 6 + self.random.below(6) as u64 } else { 40 + self.random.below(60) as u64 }
    }

    /// Somebody who talks in the evening or at noon, in conversations, about what that person likes.
    fn chatter(&mut self, name: &str, payment: Option<&str>, network: Option<&str>, opened: Option<i64>) {
        let opened = opened.unwrap_or_else(|| -30 * DAY + self.within(30 * DAY));
        let home = format!("network of {name}");
        let networks: Vec<String> = match network {
            Some(shared) if self.random.chance(0.5) => vec![shared.to_owned(), home],
            Some(shared) => vec![shared.to_owned()],
            None => vec![home],
        };
        let agent = format!("browser {}", self.random.below(4));
        let face = self.open(name, opened, payment, &networks, &agent);
        let taste: Vec<f64> = (0..=MOULDS.len()).map(|_| self.random.exponential().powi(2)).collect();
        let noon = 11 * HOUR + self.within(9 * HOUR);
        for day in 0..4 {
            for _ in 0..1 + self.random.below(3) {
                let mut when = day * DAY + noon + (self.random.normal() * 2.0 * HOUR as f64) as i64;
                let mut history = Vec::new();
                for _ in 0..1 + self.random.below(5) {
                    let kind = self.choose(&taste);
                    let text = if kind == MOULDS.len() {
                        fill(TALK[self.random.below(TALK.len())], &mut self.random)
                    } else {
                        task(kind, &mut self.random)
                    };
                    history.push(Message::new(Role::User, text));
                    let output = self.length(kind);
                    self.say(&face, when, &Prompt::Chat(history.clone()), output, None);
                    history.push(Message::new(Role::Assistant, "well"));
                    when += 30_000 + self.within(300_000);
                }
            }
        }
    }

    fn choose(&mut self, weights: &[f64]) -> usize {
        let mut left = self.random.unit() * weights.iter().sum::<f64>();
        weights
            .iter()
            .position(|weight| {
                left -= weight;
                left < 0.0
            })
            .unwrap_or(0)
    }

    fn application(&mut self, name: &str, moulds: &[&str], exchanges: usize) {
        let opened = -30 * DAY + self.within(28 * DAY);
        let face = self.open(name, opened, None, &[format!("cloud of {name}")], "sdk 1");
        for _ in 0..exchanges {
            let day = self.random.below(4) as i64 * DAY;
            let when = day + 8 * HOUR + self.within(11 * HOUR);
            let text = fill(moulds[self.random.below(moulds.len())], &mut self.random);
            let output = 15 + self.random.below(30) as u64;
            self.say(&face, when, &Prompt::user(text), output, None);
        }
    }

    /// A firm's application that runs day and night over a pool of six accounts and never sees one input twice.
    fn key_pool(&mut self) {
        let networks = ["pool cloud".to_owned()];
        let opened = -8 * DAY + self.within(DAY);
        let moulds = [
            "write a product text for the @m @t number @n @n sold @p for @a owners",
            "translate into plain words: the @m @a @p keeps @n @ts and @n more",
            "draft an answer to a @m customer whose @t broke @n days ago @p near the @a",
        ];
        for number in 0..6 {
            let name = format!("pool-{number}");
            let face = self.open(&name, opened + number * HOUR / 6, Some("pool card"), &networks, "sdk 1");
            for _ in 0..100 {
                let (when, mould) = (self.within(4 * DAY), self.random.below(moulds.len()));
                let (text, output) = (fill(moulds[mould], &mut self.random), 20 + self.random.below(40) as u64);
                self.say(&face, when, &Prompt::user(text), output, None);
            }
        }
    }

    /// Sixty fixed questions, five times over.
    fn evaluation(&mut self) {
        let opened = -20 * DAY + self.within(10 * DAY);
        let face = self.open("eval-lab", opened, None, &["lab".to_owned()], "sdk 1");
        let items: Vec<String> = (0..60).map(|number| task(number % MOULDS.len(), &mut self.random)).collect();
        for run in 0..5 {
            let begin = run * 15 * HOUR + self.within(5 * HOUR);
            for (number, item) in items.iter().enumerate() {
                let output = self.length(number % MOULDS.len());
                self.say(&face, begin + number as i64 * 20_000, &Prompt::user(item.as_str()), output, None);
            }
        }
    }

    fn labelling(&mut self) {
        let networks = ["label cloud".to_owned()];
        let opened = -12 * DAY + self.within(DAY);
        for number in 0..2 {
            let face =
                self.open(&format!("labels-{number}"), opened + number * HOUR, Some("label card"), &networks, "sdk 2");
            let begin = 2 * HOUR + self.within(40 * HOUR);
            for item in 0..400 {
                let text =
                    fill("one word only: is the @m @a with the @t @p happy or sad about @n @ts", &mut self.random);
                self.say(&face, begin + item * 25_000, &Prompt::user(text), 2, None);
            }
        }
    }

    fn licensee(&mut self) -> AccountId {
        let opened = -15 * DAY + self.within(10 * DAY);
        let face = self.open("licensee", opened, None, &["university".to_owned()], "sdk 1");
        let id = GrantId::new("grant-1").unwrap();
        let conditions = Conditions { max_output_tokens: Some(1_000_000), ..Conditions::default() };
        let grant = Grant {
            id: id.clone(),
            account: face.account.clone(),
            terms: terms(),
            purpose: "a small classifier".to_owned(),
            conditions,
            given: at(-DAY),
            expires: Some(at(30 * DAY)),
        };
        self.entries.push(Entry::GrantGiven { grant });
        for number in 0..600 {
            let kind = self.random.below(MOULDS.len());
            let (text, output) = (task(kind, &mut self.random), self.length(kind));
            // When the answer before is there, not when a timer says so.
            let late = number * number * 7_919 % 300_000;
            self.say(&face, 4 * HOUR + number * 300_000 + late, &Prompt::user(text), output, Some(&id));
        }
        face.account
    }

    /// Quiet accounts, 25 exchanges each, about one an hour, from one list without replacement.
    fn harvest(&mut self, sloppy: bool, number_of_accounts: usize) -> BTreeSet<AccountId> {
        let mut list = BTreeSet::new();
        while list.len() < 25 * number_of_accounts {
            let kind = self.random.below(MOULDS.len());
            list.insert((task(kind, &mut self.random), kind));
        }
        let mut list: Vec<(String, usize)> = list.into_iter().collect();
        self.random.shuffle(&mut list);
        let burst = -3 * DAY + self.within(DAY);
        let mut accounts = BTreeSet::new();
        for number in 0..number_of_accounts {
            // The names say nothing.
            let name = format!("user-{:08x}", self.random.bits() as u32);
            let payment = sloppy.then(|| format!("prepaid {}", number % 5));
            let pool = |random: &mut Seeded| format!("proxy {}", random.below(30));
            let networks: Vec<String> = if sloppy {
                (0..6).map(|_| pool(&mut self.random)).collect()
            } else {
                vec![format!("network of {name}")]
            };
            let agent = if sloppy { format!("sdk {}", 3 + number % 2) } else { format!("agent of {name}") };
            let opened = burst + self.within(4 * HOUR);
            let mut face = self.open(&name, opened, payment.as_deref(), &networks, &agent);
            if sloppy {
                face.max_tokens = 400;
            }
            let mut when = DAY / 2 + self.within(2 * HOUR);
            for (text, kind) in list.drain(..25) {
                let output = self.length(kind);
                self.say(&face, when, &Prompt::user(text), output, None);
                when += (HOUR as f64 * (0.4 + 0.6 * self.random.exponential())) as i64;
            }
            accounts.insert(face.account);
        }
        accounts
    }

    /// Evenly, once an hour for four days, as a scheduler does.
    fn schedule(&mut self) -> Vec<i64> {
        let mut when = self.within(HOUR);
        let gaps = (0..95).map(|_| (HOUR as f64 * (0.7 + 0.3 * self.random.exponential())) as i64);
        gaps.map(|gap| {
            when += gap;
            when
        })
        .collect()
    }

    fn monitors(&mut self) {
        for number in 0..8 {
            let name = format!("monitor-{number}");
            let opened = -40 * DAY + self.within(38 * DAY);
            let face = self.open(&name, opened, None, &[format!("network of {name}")], "sdk 1");
            let mould = format!("{} check of service {number}: is @n below @n", ["health", "disk", "load"][number % 3]);
            for when in self.schedule() {
                let text = fill(&mould, &mut self.random);
                self.say(&face, when, &Prompt::user(text), 3, None);
            }
        }
    }

    fn covered(&mut self, number_of_accounts: usize) -> BTreeSet<AccountId> {
        let mut accounts = BTreeSet::new();
        for _ in 0..number_of_accounts {
            let name = format!("user-{:08x}", self.random.bits() as u32);
            let opened = -40 * DAY + self.within(38 * DAY);
            let agent = format!("browser {}", self.random.below(4));
            let face = self.open(&name, opened, None, &[format!("network of {name}")], &agent);
            for when in self.schedule() {
                let kind = self.random.below(MOULDS.len());
                let (mut said, output) = (Vec::new(), self.length(kind));
                if self.random.chance(0.4) {
                    said.push(Message::new(Role::User, fill(TALK[self.random.below(TALK.len())], &mut self.random)));
                    said.push(Message::new(Role::Assistant, "well"));
                }
                said.push(Message::new(Role::User, task(kind, &mut self.random)));
                self.say(&face, when, &Prompt::Chat(said), output, None);
            }
            accounts.insert(face.account);
        }
        accounts
    }
}
