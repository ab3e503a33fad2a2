//! The contest: worlds, detectors, figures.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anbiq_domain::Entry;
use anbiq_lab::world::Arrivals;
use anbiq_watch::Channel;
use serde::{Deserialize, Serialize};

use crate::ArenaError;
use crate::baseline::{Method, Reference, threshold};
use crate::compose::phrases::Phrases;
use crate::compose::{Campaign, Cast, Class, Stream, Trick};
use crate::delay::DelayRow;
use crate::score::{Curve, Linking, Share};
use crate::tally::Tally;

/// What contest to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The first seed.
    pub seed: u64,
    /// How many seeds.
    pub seeds: u64,
    /// Fewer and smaller worlds.
    pub quick: bool,
    /// Also a campaign over 25,000 accounts.
    pub large: bool,
    /// Neither looks at several moments nor runs without each kind of evidence: the detectors alone.
    pub brief: bool,
    /// Folder with real times and texts, as `watch/*.csv` and `watch/prompts_dev.jsonl`; generated ones without it.
    pub data: Option<PathBuf>,
}

/// All that came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Standings {
    /// The first seed.
    pub seed: u64,
    /// How many.
    pub seeds: u64,
    /// What the traffic was made of, in words.
    pub composed_from: String,
    /// Accounts in all worlds.
    pub accounts: u64,
    /// Exchanges in all worlds.
    pub exchanges: u64,
    /// Share of the honest exchanges that are of hard negatives.
    pub hard: f64,
    /// Honest customers and what was said of them.
    pub classes: Vec<ClassRow>,
    /// Campaigns and whether they were found.
    pub campaigns: Vec<CampaignRow>,
    /// How well accounts were joined.
    pub linking: Vec<LinkRow>,
    /// What was gone before a campaign was found.
    pub delays: Vec<DelayRow>,
    /// What each kind of evidence is worth.
    pub ablations: Vec<Ablation>,
    /// True against false alarms.
    pub curves: Vec<CurveRow>,
    /// Exchanges that `watch` took in a second, making of the entries included.
    pub rate: f64,
    /// Cores that it had.
    pub cores: usize,
}

/// A kind of honest customer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClassRow {
    /// Which.
    pub class: Class,
    /// Exchanges of all of them.
    pub exchanges: u64,
    /// Accounts that were sent to review or accused.
    pub reviewed: Share,
    /// Accounts that were accused.
    pub accused: Share,
    /// The largest share that was sent to review or accused in one world: accounts of one world are not independent.
    pub worst: f64,
    /// Accounts that each other method flags.
    pub flagged: BTreeMap<Method, Share>,
}

/// Campaigns of one kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CampaignRow {
    /// Which.
    pub campaign: Campaign,
    /// Campaigns of which half the accounts were accused or sent to review.
    pub found: Share,
    /// Campaigns of which half the accounts were accused.
    pub accused: Share,
    /// Campaigns of which each other method flags half the accounts.
    pub flagged: BTreeMap<Method, Share>,
}

/// How well accounts were joined.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LinkRow {
    /// By whom.
    pub method: Method,
    /// In which worlds.
    pub worlds: String,
    /// How well.
    pub linking: Linking,
}

/// What remains without one kind of evidence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ablation {
    /// Without which; `None` with all.
    pub without: Option<Channel>,
    /// Campaigns with something shared that were found.
    pub shared: Share,
    /// Campaigns with nothing shared that were found.
    pub clean: Share,
    /// Campaigns of either kind that were accused.
    pub accused: Share,
    /// Honest accounts that were sent to review or accused.
    pub reviewed: Share,
    /// How well accounts were joined.
    pub linking: Linking,
}

/// True against false alarms of one method.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CurveRow {
    /// Whose.
    pub method: Method,
    /// Over accounts, or over whole operators.
    pub accounts: bool,
    /// The curve.
    pub curve: Curve,
}

/// A world of the contest.
pub(crate) struct World {
    pub(crate) name: &'static str,
    cast: Cast,
    /// Is it run without each channel?
    pub(crate) ablated: bool,
}

fn worlds(plan: &Plan) -> Vec<World> {
    let (people, days) = if plan.quick { (150, 4.0) } else { (500, 5.0) };
    let small = |shared: bool| {
        let ten =
            (0..).zip([0.0, 0.5, 0.9, 0.95]).map(move |(place, cover)| Campaign::new(10, cover, shared, place % 3));
        ten.chain([Campaign::new(1, 0.0, shared, 0)]).collect::<Vec<_>>()
    };
    let hundred = |shared: bool, accounts: usize| {
        let covers = [0.0, 0.5, 0.9, 0.95].into_iter();
        covers.zip(0..).map(move |(cover, place)| Campaign::new(accounts, cover, shared, place % 3)).collect::<Vec<_>>()
    };
    let tricks = |accounts: usize| {
        let tricks = Trick::ALL.into_iter().zip(0..);
        tricks
            .map(|(trick, place)| Campaign { trick: Some(trick), ..Campaign::new(accounts, 0.0, true, place % 3) })
            .collect()
    };
    // The limit: neither a pace nor anything else is common to the accounts but what they ask for, and that is hidden.
    let unseen = |accounts: usize| {
        let covers = [0.0, 0.5, 0.95].into_iter();
        let jitter = |cover| Campaign { trick: Some(Trick::Jitter), ..Campaign::new(accounts, cover, false, 0) };
        covers.map(jitter).collect()
    };
    let world = |name, people, campaigns| World { name, cast: Cast { people, days, campaigns }, ablated: false };
    let ablated = |world| World { ablated: true, ..world };
    if plan.quick {
        return vec![
            ablated(world(
                "some shared",
                people,
                vec![Campaign::new(10, 0.0, true, 2), Campaign::new(40, 0.5, true, 0)],
            )),
            ablated(world(
                "nothing shared",
                people,
                vec![Campaign::new(10, 0.0, false, 2), Campaign::new(40, 0.0, false, 0)],
            )),
        ];
    }
    let mut worlds = vec![
        world("some shared", people, small(true)),
        world("nothing shared", people, small(false)),
        ablated(world("some shared", people, hundred(true, 100))),
        ablated(world("nothing shared", people, hundred(false, 100))),
        ablated(world("some shared, adaptive", people, tricks(60))),
        world("some shared", people, vec![Campaign::new(1_000, 0.0, true, 0)]),
        world("nothing shared", people, vec![Campaign::new(1_000, 0.0, false, 2)]),
        ablated(world("nothing shared, adaptive", people, unseen(60))),
    ];
    if plan.large {
        let mut large = world("some shared", 2 * people, vec![Campaign::new(25_000, 0.0, true, 0)]);
        large.cast.days = 2.0;
        worlds.push(large);
    }
    worlds
}

/// Holds the contest. `say` is told what is going on.
///
/// # Errors
/// Real times or texts are there but cannot be read.
pub fn contest(plan: &Plan, say: &mut dyn FnMut(&str)) -> Result<Standings, ArenaError> {
    let arrivals = Arrivals::open(plan.data.as_deref())?;
    let phrases = Phrases::open(plan.data.as_deref(), plan.seed)?;
    let texts =
        if phrases.real { "real prompts (one family of three of the harvests generated)" } else { "generated prompts" };
    let composed_from = format!("{texts}; {}", arrivals.source());
    say(&composed_from);
    let people = if plan.quick { 150 } else { 400 };
    let apart = Cast { people, days: 5.0, campaigns: Vec::new() };
    let apart = Stream::compose(plan.seed ^ 0x5eed, &apart, &phrases, &arrivals)?;
    let reference = Reference::of(&apart, plan.seed);
    let thresholds: BTreeMap<Method, f64> =
        Method::BASELINES.iter().map(|method| (*method, threshold(*method, &apart, &reference))).collect();
    let mut tally = Tally::default();
    for seed in plan.seed..plan.seed + plan.seeds {
        for (place, world) in worlds(plan).iter().enumerate() {
            let stream = Stream::compose(seed << 8 | place as u64, &world.cast, &phrases, &arrivals)?;
            let spent = tally.take(plan, world, &stream, &reference, &thresholds);
            say(&format!(
                "seed {seed}, {}: {} accounts, {} exchanges, {:.1} s",
                world.name,
                stream.parties.len(),
                stream.rows.len(),
                spent.as_secs_f64()
            ));
        }
    }
    Ok(tally.standings(plan, composed_from))
}

/// A composed stream for others to read: honest accounts of every kind, and campaigns of ten and of forty accounts.
#[derive(Debug)]
pub struct Composed(Stream);

impl Composed {
    /// Composes a stream: `people` who chat, all other honest kinds in proportion, over so many `days`.
    ///
    /// # Errors
    /// Real times or texts are there but cannot be read.
    pub fn new(seed: u64, people: usize, days: f64, data: Option<&Path>) -> Result<Self, ArenaError> {
        let (arrivals, phrases) = (Arrivals::open(data)?, Phrases::open(data, seed)?);
        let campaigns = vec![Campaign::new(10, 0.0, true, 2), Campaign::new(40, 0.5, true, 0)];
        Stream::compose(seed, &Cast { people, days, campaigns }, &phrases, &arrivals).map(Self)
    }

    /// The journal that a gateway would have kept, in order.
    pub fn entries(&self) -> impl Iterator<Item = Entry> {
        self.0.timed_entries().map(|(_, entry)| entry)
    }

    /// Accounts in it.
    pub fn accounts(&self) -> usize {
        self.0.parties.len()
    }

    /// Exchanges in it.
    pub fn exchanges(&self) -> usize {
        self.0.rows.len()
    }
}
