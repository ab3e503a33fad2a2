//! What is counted while everybody judges world after world.

use std::collections::BTreeMap;
use std::time::Duration;

use anbiq_watch::{Channel, Config};

use crate::baseline::{Method, Reference, components, scores};
use crate::compose::{Campaign, Class, HOUR, Stream};
use crate::contest::{Ablation, CampaignRow, ClassRow, CurveRow, DelayRow, LinkRow, Plan, Standings, World};
use crate::score::{Curve, Linking, Share};
use crate::verdict::{Said, verdicts};

/// Hours after which a stream is looked at, to see when a campaign is first found.
const LOOKS: [f64; 7] = [2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 96.0];

/// Everything that is counted on the way.
#[derive(Default)]
pub(crate) struct Tally {
    accounts: u64,
    exchanges: u64,
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

impl Tally {
    /// Lets everybody judge one world.
    pub(crate) fn take(
        &mut self,
        plan: &Plan,
        world: &World,
        stream: &Stream,
        reference: &Reference,
        thresholds: &BTreeMap<Method, f64>,
    ) -> Duration {
        let (said, spent) = verdicts(stream, stream.end(), &Config::default());
        self.accounts += stream.parties.len() as u64;
        self.exchanges += stream.rows.len() as u64;
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
        if !plan.brief {
            self.delay(stream, &said);
        }
        if world.ablated && !plan.brief {
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
        let (theirs, _) = components(stream);
        for (method, groups) in [(Method::Anbiq, groups(said)), (Method::Linkage, theirs)] {
            self.linking.entry((method, world.name.to_owned())).or_default().add(&joined(stream, &groups));
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
            let end = (hours * HOUR) as i64;
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
            entry(&mut self.delays, campaign).push(delay);
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
        count.linking.add(&joined(stream, &groups(said)));
    }

    pub(crate) fn standings(self, plan: &Plan, composed_from: String) -> Standings {
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
            rate: self.exchanges as f64 / self.spent.as_secs_f64().max(1e-9),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

/// What is counted of `campaign`; campaigns keep the order in which they first came.
fn entry<'a, T: Default>(campaigns: &'a mut Vec<(Campaign, T)>, campaign: &Campaign) -> &'a mut T {
    let place = campaigns.iter().position(|(known, _)| known == campaign).unwrap_or_else(|| {
        campaigns.push((campaign.clone(), T::default()));
        campaigns.len() - 1
    });
    &mut campaigns[place].1
}

/// The group that each account was put into.
fn groups(said: &[Said]) -> Vec<usize> {
    said.iter().map(|said| said.group).collect()
}

/// How well `groups` are the operators.
fn joined(stream: &Stream, groups: &[usize]) -> Linking {
    let operators: Vec<usize> = stream.parties.iter().map(|party| party.operator).collect();
    Linking::of(groups, &operators, |place| stream.parties[place].exchanges > 0)
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
    let end = (hours * HOUR) as i64;
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
