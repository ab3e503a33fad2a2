//! The contest: worlds, detectors, figures.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anbiq_lab::world::Arrivals;
use anbiq_watch::{Channel, Config};
use serde::{Deserialize, Serialize};

use crate::ArenaError;
use crate::baseline::{Method, Reference, components, scores, threshold};
use crate::compose::phrases::Phrases;
use crate::compose::{Campaign, Cast, Class, Stream, Trick};
use crate::score::{Curve, Linking, Share};
use crate::verdict::{Said, verdicts};

/// Hours after which a stream is looked at, to see when a campaign is first found.
const LOOKS: [f64; 7] = [2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 96.0];

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
    /// Exchanges that `watch` took in a second of one thread, making of the entries included.
    pub rate: f64,
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

/// What was gone before campaigns of one kind were found, by looking at the stream at some moments.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DelayRow {
    /// Which.
    pub campaign: Campaign,
    /// Those of them that were found.
    pub found: u64,
    /// All of them.
    pub of: u64,
    /// Hours until then: the median over those found.
    pub hours: f64,
    /// Exchanges that were harvested until then, likewise.
    pub exchanges: u64,
    /// Tokens of their answers, likewise.
    pub tokens: u64,
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
struct World {
    name: &'static str,
    cast: Cast,
    /// Are campaigns looked for at several moments?
    watched: bool,
    /// Is it run without each channel?
    ablated: bool,
}

fn worlds(plan: &Plan) -> Vec<World> {
    let (people, days) = if plan.quick { (150, 4.0) } else { (500, 5.0) };
    let small = |shared: bool| {
        let ten = (0..).zip([0.0, 0.5, 0.9, 0.95]).map(move |(place, cover)| Campaign::new(10, cover, shared, place % 3));
        ten.chain([Campaign::new(1, 0.0, shared, 0)]).collect::<Vec<_>>()
    };
    let hundred = |shared: bool, accounts: usize| {
        let covers = [0.0, 0.5, 0.9, 0.95].into_iter();
        covers.zip(0..).map(move |(cover, place)| Campaign::new(accounts, cover, shared, place % 3)).collect::<Vec<_>>()
    };
    let tricks = |accounts: usize| {
        let tricks = Trick::ALL.into_iter().zip(0..);
        tricks.map(|(trick, place)| Campaign { trick: Some(trick), ..Campaign::new(accounts, 0.0, true, place % 3) }).collect()
    };
    let world = |name, people, campaigns| World {
        name,
        cast: Cast { people, days, campaigns },
        watched: true,
        ablated: false,
    };
    if plan.quick {
        let ablated = |world| World { ablated: true, ..world };
        return vec![
            ablated(world("some shared", people, vec![Campaign::new(10, 0.0, true, 2), Campaign::new(40, 0.5, true, 0)])),
            ablated(world("nothing shared", people, vec![Campaign::new(10, 0.0, false, 2), Campaign::new(40, 0.0, false, 0)])),
        ];
    }
    let mut worlds = vec![
        world("some shared", people, small(true)),
        world("nothing shared", people, small(false)),
        World { ablated: true, ..world("some shared", people, hundred(true, 100)) },
        World { ablated: true, ..world("nothing shared", people, hundred(false, 100)) },
        world("some shared, adaptive", people, tricks(60)),
        world("some shared", people, vec![Campaign::new(1_000, 0.0, true, 0)]),
        world("nothing shared", people, vec![Campaign::new(1_000, 0.0, false, 2)]),
    ];
    if plan.large {
        let mut large = world("some shared", 2 * people, vec![Campaign::new(25_000, 0.0, true, 0)]);
        large.cast.days = 2.0;
        worlds.push(large);
    }
    worlds
}

/// Everything that is counted on the way.
#[derive(Default)]
struct Tally {
    accounts: u64,
    exchanges: u64,
    analysed: u64,
    spent: Duration,
    classes: BTreeMap<Class, ClassCount>,
    campaigns: Vec<(Campaign, CampaignCount)>,
    linking: BTreeMap<(Method, String), Linking>,
    delays: Vec<(Campaign, Vec<Option<Delay>>)>,
    ablations: BTreeMap<Option<Channel>, AblationCount>,
    curves: BTreeMap<(Method, bool), Vec<(f64, bool)>>,
}

#[derive(Default)]
struct ClassCount {
    exchanges: u64,
    accounts: u64,
    reviewed: u64,
    accused: u64,
    flagged: BTreeMap<Method, u64>,
}

#[derive(Default)]
struct CampaignCount {
    all: u64,
    found: u64,
    accused: u64,
    flagged: BTreeMap<Method, u64>,
}

#[derive(Default)]
struct AblationCount {
    shared: (u64, u64),
    clean: (u64, u64),
    reviewed: (u64, u64),
    linking: Linking,
}

#[derive(Clone, Copy)]
struct Delay {
    hours: f64,
    exchanges: u64,
    tokens: u64,
}

/// Holds the contest. `say` is told what is going on.
///
/// # Errors
/// Real times or texts are there but cannot be read.
pub fn contest(plan: &Plan, say: &mut dyn FnMut(&str)) -> Result<Standings, ArenaError> {
    let arrivals = Arrivals::open(plan.data.as_deref())?;
    let phrases = Phrases::open(plan.data.as_deref(), plan.seed)?;
    let texts = if phrases.real { "real prompts (one family of three of the harvests generated)" } else { "generated prompts" };
    let composed_from = format!("{texts}; {}", arrivals.source());
    say(&composed_from);
    let people = if plan.quick { 150 } else { 400 };
    let apart = Cast { people, days: 5.0, campaigns: Vec::new() };
    let apart = Stream::compose(plan.seed ^ 0x5eed, &apart, &phrases, &arrivals, true)?;
    let reference = Reference::of(&apart, plan.seed);
    let thresholds: BTreeMap<Method, f64> =
        Method::BASELINES.iter().map(|method| (*method, threshold(*method, &apart, &reference))).collect();
    let mut tally = Tally::default();
    for seed in plan.seed..plan.seed + plan.seeds {
        for (place, world) in worlds(plan).iter().enumerate() {
            let stream = Stream::compose(seed << 8 | place as u64, &world.cast, &phrases, &arrivals, true)?;
            let spent = tally.take(world, &stream, &reference, &thresholds);
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

impl Tally {
    /// Lets everybody judge one world.
    fn take(
        &mut self,
        world: &World,
        stream: &Stream,
        reference: &Reference,
        thresholds: &BTreeMap<Method, f64>,
    ) -> Duration {
        let (said, spent) = verdicts(stream, stream.end(), &Config::default());
        self.accounts += stream.parties.len() as u64;
        self.exchanges += stream.rows.len() as u64;
        self.analysed += stream.rows.len() as u64;
        self.spent += spent;
        self.count(stream, &said);
        self.link(world, stream, &said);
        self.curve(Method::Anbiq, stream, &said.iter().map(|said| said.score).collect::<Vec<_>>());
        for method in Method::BASELINES {
            let scores = scores(method, stream, reference);
            let least = thresholds.get(&method).copied().unwrap_or(f64::INFINITY);
            let above = |score: &f64| if method == Method::Linkage { *score >= least } else { *score > least };
            let flags: Vec<bool> = scores.iter().map(above).collect();
            self.count_flags(method, stream, &flags);
            self.curve(method, stream, &scores);
        }
        if world.watched {
            self.delay(stream, &said);
        }
        if world.ablated {
            self.ablate(None, stream, &said);
            for channel in Channel::ALL {
                let config = Config { ignored: [channel].into(), ..Config::default() };
                let (said, _) = verdicts(stream, stream.end(), &config);
                self.ablate(Some(channel), stream, &said);
            }
        }
        spent
    }

    fn count(&mut self, stream: &Stream, said: &[Said]) {
        for (party, said) in stream.parties.iter().zip(said) {
            let count = self.classes.entry(party.class).or_default();
            count.accounts += 1;
            count.exchanges += party.exchanges;
            count.reviewed += u64::from(said.found());
            count.accused += u64::from(said.accused);
        }
        for (operator, campaign) in &stream.campaigns {
            let found = half(stream, *operator, |place| said[place].found());
            let accused = half(stream, *operator, |place| said[place].accused);
            let count = entry(&mut self.campaigns, campaign);
            count.all += 1;
            count.found += u64::from(found);
            count.accused += u64::from(accused);
        }
    }

    fn count_flags(&mut self, method: Method, stream: &Stream, flags: &[bool]) {
        for (party, flag) in stream.parties.iter().zip(flags) {
            *self.classes.entry(party.class).or_default().flagged.entry(method).or_default() += u64::from(*flag);
        }
        for (operator, campaign) in &stream.campaigns {
            let found = half(stream, *operator, |place| flags[place]);
            *entry(&mut self.campaigns, campaign).flagged.entry(method).or_default() += u64::from(found);
        }
    }

    fn link(&mut self, world: &World, stream: &Stream, said: &[Said]) {
        let operators: Vec<usize> = stream.parties.iter().map(|party| party.operator).collect();
        let ours: Vec<usize> = said.iter().map(|said| said.group).collect();
        let (theirs, _) = components(stream);
        for (method, groups) in [(Method::Anbiq, ours), (Method::Linkage, theirs)] {
            let linking = Linking::of(&groups, &operators, |place| stream.parties[place].exchanges > 0);
            self.linking.entry((method, world.name.to_owned())).or_default().add(&linking);
        }
    }

    fn curve(&mut self, method: Method, stream: &Stream, scores: &[f64]) {
        let mut operators: BTreeMap<usize, (Class, Vec<f64>)> = BTreeMap::new();
        for (party, score) in stream.parties.iter().zip(scores) {
            if matches!(party.class, Class::Infested | Class::Licensed) {
                continue;
            }
            let guilty = party.class == Class::Campaign;
            self.curves.entry((method, true)).or_default().push((*score, guilty));
            operators.entry(party.operator).or_insert((party.class, Vec::new())).1.push(*score);
        }
        for (class, mut scores) in operators.into_values() {
            // Half of the accounts must be above a threshold: their median is.
            scores.sort_by(f64::total_cmp);
            let median = scores[scores.len() / 2];
            self.curves.entry((method, false)).or_default().push((median, class == Class::Campaign));
        }
    }

    /// When each campaign is first found, by looking at the stream as it stood at several moments.
    fn delay(&mut self, stream: &Stream, whole: &[Said]) {
        let mut first: Vec<Option<f64>> = vec![None; stream.campaigns.len()];
        for hours in LOOKS.into_iter().filter(|hours| *hours < 24.0 * stream.days) {
            let end = (hours * 3_600_000.0) as i64;
            let (said, _) = verdicts(stream, end, &Config::default());
            for (found, (operator, _)) in first.iter_mut().zip(&stream.campaigns) {
                if found.is_none() && half_of_active(stream, *operator, end, |place| said[place].found()) {
                    *found = Some(hours);
                }
            }
        }
        for (found, (operator, campaign)) in first.iter_mut().zip(&stream.campaigns) {
            if found.is_none() && half(stream, *operator, |place| whole[place].found()) {
                *found = Some(24.0 * stream.days);
            }
            let delay = found.map(|hours| leaked(stream, *operator, hours));
            match self.delays.iter_mut().find(|(known, _)| known == campaign) {
                Some((_, delays)) => delays.push(delay),
                None => self.delays.push((campaign.clone(), vec![delay])),
            }
        }
    }

    fn ablate(&mut self, without: Option<Channel>, stream: &Stream, said: &[Said]) {
        let count = self.ablations.entry(without).or_default();
        for (operator, campaign) in stream.campaigns.iter().filter(|(_, campaign)| campaign.accounts > 1) {
            let side = if campaign.shared { &mut count.shared } else { &mut count.clean };
            side.0 += u64::from(half(stream, *operator, |place| said[place].found()));
            side.1 += 1;
        }
        let honest = stream.parties.iter().zip(said).filter(|(party, _)| party.class.is_honest());
        for (_, said) in honest {
            count.reviewed.0 += u64::from(said.found());
            count.reviewed.1 += 1;
        }
        let operators: Vec<usize> = stream.parties.iter().map(|party| party.operator).collect();
        let groups: Vec<usize> = said.iter().map(|said| said.group).collect();
        count.linking.add(&Linking::of(&groups, &operators, |place| stream.parties[place].exchanges > 0));
    }

    fn standings(self, plan: &Plan, composed_from: String) -> Standings {
        let honest = self.classes.iter().filter(|(class, _)| class.is_honest());
        let all: u64 = honest.clone().map(|(_, count)| count.exchanges).sum();
        let hard: u64 = honest.filter(|(class, _)| class.is_hard()).map(|(_, count)| count.exchanges).sum();
        let shares = |flagged: &BTreeMap<Method, u64>, of: u64| {
            flagged.iter().map(|(method, hits)| (*method, Share::new(*hits, of))).collect()
        };
        Standings {
            seed: plan.seed,
            seeds: plan.seeds,
            composed_from,
            accounts: self.accounts,
            exchanges: self.exchanges,
            hard: hard as f64 / all.max(1) as f64,
            classes: self
                .classes
                .into_iter()
                .filter(|(class, _)| *class != Class::Campaign)
                .map(|(class, count)| ClassRow {
                    class,
                    exchanges: count.exchanges,
                    reviewed: Share::new(count.reviewed, count.accounts),
                    accused: Share::new(count.accused, count.accounts),
                    flagged: shares(&count.flagged, count.accounts),
                })
                .collect(),
            campaigns: self
                .campaigns
                .into_iter()
                .map(|(campaign, count)| CampaignRow {
                    campaign,
                    found: Share::new(count.found, count.all),
                    accused: Share::new(count.accused, count.all),
                    flagged: shares(&count.flagged, count.all),
                })
                .collect(),
            linking: self
                .linking
                .into_iter()
                .map(|((method, worlds), linking)| LinkRow { method, worlds, linking })
                .collect(),
            delays: self.delays.into_iter().map(|(campaign, delays)| delay_row(campaign, &delays)).collect(),
            ablations: self
                .ablations
                .into_iter()
                .map(|(without, count)| Ablation {
                    without,
                    shared: Share::new(count.shared.0, count.shared.1),
                    clean: Share::new(count.clean.0, count.clean.1),
                    reviewed: Share::new(count.reviewed.0, count.reviewed.1),
                    linking: count.linking,
                })
                .collect(),
            curves: self
                .curves
                .into_iter()
                .map(|((method, accounts), scores)| CurveRow { method, accounts, curve: Curve::of(scores) })
                .collect(),
            rate: self.analysed as f64 / self.spent.as_secs_f64().max(1e-9),
        }
    }
}

fn entry<'a>(campaigns: &'a mut Vec<(Campaign, CampaignCount)>, campaign: &Campaign) -> &'a mut CampaignCount {
    let place = campaigns.iter().position(|(known, _)| known == campaign).unwrap_or_else(|| {
        campaigns.push((campaign.clone(), CampaignCount::default()));
        campaigns.len() - 1
    });
    &mut campaigns[place].1
}

/// Is it so of half of the operator's accounts?
fn half(stream: &Stream, operator: usize, so: impl Fn(usize) -> bool) -> bool {
    half_of_active(stream, operator, i64::MAX, so)
}

/// Is it so of half of the operator's accounts that were active by `end`?
fn half_of_active(stream: &Stream, operator: usize, end: i64, so: impl Fn(usize) -> bool) -> bool {
    let mut active = vec![false; stream.parties.len()];
    stream.rows.iter().take_while(|row| row.at <= end).for_each(|row| active[row.account as usize] = true);
    let its = (0..stream.parties.len()).filter(|place| active[*place] && stream.parties[*place].operator == operator);
    let (hits, all) = its.fold((0, 0), |(hits, all), place| (hits + u64::from(so(place)), all + 1));
    all > 0 && 2 * hits >= all
}

fn leaked(stream: &Stream, operator: usize, hours: f64) -> Delay {
    let end = (hours * 3_600_000.0) as i64;
    let gone = stream.rows.iter().take_while(|row| row.at <= end);
    let gone = gone.filter(|row| row.harvested && stream.parties[row.account as usize].operator == operator);
    let (exchanges, tokens) =
        gone.fold((0, 0), |(exchanges, tokens), row| (exchanges + 1, tokens + u64::from(row.output_tokens)));
    Delay { hours, exchanges, tokens }
}

fn delay_row(campaign: Campaign, delays: &[Option<Delay>]) -> DelayRow {
    let mut found: Vec<Delay> = delays.iter().copied().flatten().collect();
    found.sort_by(|a, b| a.hours.total_cmp(&b.hours).then(a.exchanges.cmp(&b.exchanges)));
    let median = found.get(found.len() / 2).copied().unwrap_or(Delay { hours: 0.0, exchanges: 0, tokens: 0 });
    DelayRow {
        campaign,
        found: found.len() as u64,
        of: delays.len() as u64,
        hours: median.hours,
        exchanges: median.exchanges,
        tokens: median.tokens,
    }
}
