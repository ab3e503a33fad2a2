//! What is counted while everybody judges world after world.

use std::collections::BTreeMap;
use std::time::Duration;

use anbiq_watch::{Channel, Config};

use crate::baseline::{Method, Reference, components, scores};
use crate::compose::{Campaign, Class, Stream};
use crate::contest::{Ablation, CampaignRow, ClassRow, CurveRow, LinkRow, Plan, Standings, World};
use crate::delay::{DelayRow, Delays, delays};
use crate::score::{Curve, Linking, Share};
use crate::verdict::{Said, verdicts};

/// Everything that is counted on the way.
#[derive(Default)]
pub(crate) struct Tally {
    accounts: u64,
    exchanges: u64,
    spent: Duration,
    classes: BTreeMap<Class, ClassCount>,
    campaigns: Vec<(Campaign, CampaignCount)>,
    linking: BTreeMap<(Method, String), Linking>,
    delays: Vec<(Campaign, Vec<Delays>)>,
    ablations: BTreeMap<Option<Channel>, AblationCount>,
    curves: BTreeMap<(Method, bool), Vec<(f64, bool)>>,
}

#[derive(Default)]
struct ClassCount {
    exchanges: u64,
    accounts: u64,
    reviewed: u64,
    accused: u64,
    /// The largest share that was sent to review or accused in one world.
    worst: f64,
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
    accused: (u64, u64),
    reviewed: (u64, u64),
    linking: Linking,
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
            for ((_, campaign), delays) in stream.campaigns.iter().zip(delays(stream)) {
                entry(&mut self.delays, campaign).push(delays);
            }
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
        let mut here: BTreeMap<Class, (u64, u64)> = BTreeMap::new();
        for (party, said) in stream.parties.iter().zip(said) {
            let count = self.classes.entry(party.class).or_default();
            count.accounts += 1;
            count.exchanges += party.exchanges;
            count.reviewed += u64::from(said.found());
            count.accused += u64::from(said.accused);
            let (hits, all) = here.entry(party.class).or_default();
            (*hits, *all) = (*hits + u64::from(said.found()), *all + 1);
        }
        for (class, (hits, all)) in here {
            let count = self.classes.entry(class).or_default();
            count.worst = count.worst.max(hits as f64 / all as f64);
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

    fn ablate(&mut self, without: Option<Channel>, stream: &Stream, said: &[Said]) {
        let count = self.ablations.entry(without).or_default();
        for (operator, campaign) in stream.campaigns.iter().filter(|(_, campaign)| campaign.accounts > 1) {
            let side = if campaign.shared { &mut count.shared } else { &mut count.clean };
            side.0 += u64::from(half(stream, *operator, |place| said[place].found()));
            side.1 += 1;
            count.accused.0 += u64::from(half(stream, *operator, |place| said[place].accused));
            count.accused.1 += 1;
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
                    worst: count.worst,
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
            delays: self.delays.iter().map(|(campaign, delays)| DelayRow::of(campaign, delays)).collect(),
            ablations: self
                .ablations
                .into_iter()
                .map(|(without, count)| Ablation {
                    without,
                    shared: Share::new(count.shared.0, count.shared.1),
                    clean: Share::new(count.clean.0, count.clean.1),
                    accused: Share::new(count.accused.0, count.accused.1),
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
pub(crate) fn half_of_active(stream: &Stream, operator: usize, end: i64, so: impl Fn(usize) -> bool) -> bool {
    let mut active = vec![false; stream.parties.len()];
    stream.rows.iter().take_while(|row| row.at <= end).for_each(|row| active[row.account as usize] = true);
    let its = (0..stream.parties.len()).filter(|place| active[*place] && stream.parties[*place].operator == operator);
    let (hits, all) = its.fold((0, 0), |(hits, all), place| (hits + u64::from(so(place)), all + 1));
    all > 0 && 2 * hits >= all
}
