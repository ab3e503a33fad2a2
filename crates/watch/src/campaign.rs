//! From entries to a report: operators, each with its members, its purpose and what follows for it.

use std::collections::BTreeSet;

use anbiq_domain::{Digest, Money, OperatorId};

use crate::alarm::{Alarm, Verdict};
use crate::alike::{Oddity, oddities};
use crate::cells::Cells;
use crate::cluster::groups;
use crate::fit::{logistic, tidy};
use crate::gather::{Group, Tie, peers};
use crate::link::{Evidence, Linker};
use crate::lockstep::Steps;
use crate::parallel::map;
use crate::profile::Profile;
use crate::purpose::{Weighed, judge, weigh};
use crate::report::{Account, Channel, Edge, Member, Operator, Purpose, Reason, Report, Standing, Survival};
use crate::standing::{Breach, in_step, unlinked};
use crate::world::{State, World};
use crate::{Config, Seen};

/// Version of the report's shape.
const FORMAT: u32 = 1;
/// Accounts of a large operator that are looked at to see what holds it together.
const SAMPLE: usize = 200;
/// Times that all is fitted again once operators are known roughly: the first time shows more of them.
const REFITS: usize = 2;
/// Accounts of one operator that speak for it in the population.
const SPEAKERS: usize = 2;
/// Finds operators and campaigns in what was `seen`: a journal's entries, or rows of other systems' logs.
///
/// The same entries and configuration give the same report. They are read once; what is kept is bounded for each account.
pub fn analyze(seen: impl Iterator<Item = impl Into<Seen>>, config: &Config) -> Report {
    let mut state = State::new(config.clone());
    seen.for_each(|seen| state.take(seen));
    state.report()
}

/// What follows from `world`, whose accounts are in order.
pub(crate) fn report(world: &World, config: &Config) -> Report {
    let cells = Cells::of(&world.profiles);
    let desk = Desk::open(world, &world.profiles, &cells, config);
    let found = desk.operators();
    let steps = desk.in_step(&found);
    let verdict = config.alarms.as_ref().map(|alarms| Verdict::of(world, &found, alarms));
    let mut operators = map(config.threads(), &found, |group| desk.operator(group, &steps));
    for (place, operator) in operators.iter_mut().enumerate() {
        if operator.accounts.len() > 1 || operator.standing != Standing::Unremarkable {
            let alarm = |verdict: &Verdict| verdict.alarm(world, &found[place].accounts, place, &operator.standing);
            operator.alarm = verdict.as_ref().map(alarm);
        }
        finish(operator);
    }
    operators.sort_by(|a, b| rank(a).cmp(&rank(b)).then(b.exchanges.cmp(&a.exchanges)).then(a.id.cmp(&b.id)));
    let unlisted = keep_listed(&mut operators, config);
    Report {
        format: FORMAT,
        simulated: world.simulated,
        notes: notes(world),
        first: world.first,
        last: world.last,
        accounts: world.profiles.len() as u64,
        exchanges: world.profiles.iter().map(|profile| profile.exchanges).sum(),
        imported: world.imported,
        refusals: world.refusals,
        looks: world.looks.taken,
        threshold: tidy(desk.threshold),
        operators,
        unlisted,
        config: config.clone(),
    }
}

fn notes(world: &World) -> Vec<String> {
    let mut notes = Vec::new();
    if world.simulated {
        notes.push(
            "The clock was simulated and the traffic composed: figures show what the method does, not what happened."
                .into(),
        );
    }
    if world.imported > 0 {
        notes.push(format!(
            "{} exchanges rest on imported logs: nobody committed to them and nothing of them can be proved. Whether an \
             account held a grant or accepted terms is not known from them.",
            world.imported
        ));
    }
    if world.unsketched > 0 {
        notes
            .push(format!("{} of them came without prompts: nothing is said of what those ask for.", world.unsketched));
    }
    notes.push(
        "Weights rest partly on stated priors; a certainty is a statement of this model, not a measured frequency."
            .into(),
    );
    notes
}

fn rank(operator: &Operator) -> (u8, bool) {
    let standing = match operator.standing {
        Standing::Campaign(_) => 0,
        Standing::Review { .. } => 1,
        Standing::WithinGrant { .. } => 2,
        Standing::Unremarkable => 3,
    };
    (standing, operator.accounts.len() == 1)
}

fn keep_listed(operators: &mut Vec<Operator>, config: &Config) -> u64 {
    let before = operators.len();
    let mut singles = 0;
    operators.retain(|operator| {
        let single = operator.accounts.len() == 1 && operator.standing == Standing::Unremarkable;
        singles += usize::from(single);
        !single || singles <= config.listed_singles
    });
    (before - operators.len()) as u64
}

/// The profiles of one moment and all that was fitted on them.
#[derive(Debug)]
pub(crate) struct Desk<'a> {
    pub(crate) world: &'a World,
    pub(crate) profiles: &'a [Profile],
    pub(crate) cells: &'a Cells,
    pub(crate) config: &'a Config,
    pub(crate) linker: Linker<'a>,
    pub(crate) threshold: f64,
    /// How each account looks by itself.
    pub(crate) oddities: Vec<Oddity>,
}

impl<'a> Desk<'a> {
    pub(crate) fn open(world: &'a World, profiles: &'a [Profile], cells: &'a Cells, config: &'a Config) -> Self {
        let oddities = oddities(world, profiles, cells, config);
        let examples: Vec<bool> =
            oddities.iter().zip(profiles).map(|(oddity, profile)| oddity.is_example(profile)).collect();
        let everybody: Vec<usize> = (0..profiles.len()).collect();
        let fitted = |reference: &[usize]| {
            let linker = Linker::fit(profiles, cells, reference, &examples, config);
            let (threshold, oddities) = (linker.threshold(), oddities.clone());
            Self { world, profiles, cells, config, linker, threshold, oddities }
        };
        let mut desk = fitted(&everybody);
        let mut crowded = BTreeSet::new();
        for _ in 0..REFITS {
            let seen = desk.crowded();
            if seen == crowded {
                break;
            }
            crowded = seen;
            // Both at once would be most of what a look needs of memory.
            drop(desk);
            let reference: Vec<usize> = everybody.iter().copied().filter(|place| !crowded.contains(place)).collect();
            desk = fitted(&reference);
        }
        desk
    }

    /// Accounts of operators beyond a few of each that speak for them.
    ///
    /// A large operator is a large part of the population that it is compared with, and what all of its accounts do looks common. So,
    /// once operators are known roughly, all is fitted again with few accounts of each.
    fn crowded(&self) -> BTreeSet<usize> {
        let groups = self.linked(&self.linker.candidates());
        groups.iter().flat_map(|group| group.iter().copied().skip(SPEAKERS)).collect()
    }

    fn operator(&self, group: &Group, steps: &Steps) -> Operator {
        let Group { accounts: group, tie } = group;
        let accounts: Vec<&Profile> = group.iter().map(|place| &self.profiles[*place]).collect();
        let members: Vec<Member> = group.iter().map(|place| self.member(*place, group)).collect();
        let sum = |of: fn(&Profile) -> u64| accounts.iter().map(|account| of(account)).sum();
        let mut cost = Money::ZERO;
        accounts.iter().for_each(|account| cost += account.cost);
        let purpose = self.purpose(group, *tie == Tie::Linked);
        let survival = self.survival(group);
        let standing = unlinked(&accounts, *tie).unwrap_or_else(|| self.standing(&accounts, &purpose, &survival));
        let unseen = standing == Standing::Unremarkable && self.breach(&accounts) != Breach::None;
        let standing = if unseen { in_step(group, steps) } else { standing };
        Operator {
            id: name(&accounts),
            certainty: tidy(members.iter().map(|member| member.certainty).sum::<f64>() / members.len().max(1) as f64),
            accounts: members,
            edges: self.edges(group),
            exchanges: sum(|account| account.exchanges),
            prompt_tokens: sum(|account| account.prompt_tokens),
            output_tokens: sum(|account| account.output_tokens),
            cost,
            twinned: sum(|account| account.twinned),
            first: accounts.iter().filter_map(|account| account.first).min().unwrap_or_default(),
            last: accounts.iter().filter_map(|account| account.last).max().unwrap_or_default(),
            standing,
            alarm: None,
            purpose,
            survival,
        }
    }

    /// What follows for the accounts of `group`, whatever pace they keep.
    pub(crate) fn standing_of(&self, Group { accounts: group, tie }: &Group) -> Standing {
        let accounts: Vec<&Profile> = group.iter().map(|place| &self.profiles[*place]).collect();
        unlinked(&accounts, *tie)
            .unwrap_or_else(|| self.standing(&accounts, &self.purpose(group, true), &self.survival(group)))
    }

    /// What the accounts of `group` are used for; `linked` if more than that is known to be common to them.
    pub(crate) fn purpose(&self, group: &[usize], linked: bool) -> Purpose {
        let accounts: Vec<&Profile> = group.iter().map(|place| &self.profiles[*place]).collect();
        let cells: Vec<&[usize]> = group.iter().map(|place| self.cells.of[*place].as_slice()).collect();
        judge(&accounts, &cells, linked, self.config)
    }

    /// The same without its reasons, and `None` of too few exchanges.
    pub(crate) fn weighed(&self, group: &[usize], linked: bool) -> Option<Weighed> {
        let accounts: Vec<&Profile> = group.iter().map(|place| &self.profiles[*place]).collect();
        let cells: Vec<&[usize]> = group.iter().map(|place| self.cells.of[*place].as_slice()).collect();
        weigh(&accounts, &cells, linked, self.config)
    }

    fn member(&self, one: usize, group: &[usize]) -> Member {
        let profile = &self.profiles[one];
        let (weight, reasons) = if group.len() > 1 {
            (self.belonging(one, group, None), self.reasons(one, group))
        } else {
            (0.0, Vec::new())
        };
        Member {
            facts: account(profile),
            weight: tidy(weight),
            certainty: if group.len() > 1 { tidy(logistic(weight + self.config.margin).min(0.999)) } else { 1.0 },
            reasons,
        }
    }

    fn reasons(&self, one: usize, group: &[usize]) -> Vec<Reason> {
        let others: Vec<usize> = peers(one, group).collect();
        let evidence: Vec<Evidence> = others.iter().map(|other| self.linker.pair(one, *other)).collect();
        let mut reasons = Vec::new();
        for channel in Channel::ALL {
            let speaking: Vec<usize> = (0..others.len()).filter(|i| evidence[*i].of(channel) >= 0.25).collect();
            if speaking.is_empty() {
                continue;
            }
            let with: Vec<usize> = speaking.iter().map(|i| others[*i]).collect();
            let mean = evidence.iter().map(|evidence| evidence.of(channel)).sum::<f64>() / evidence.len() as f64;
            reasons.push(Reason { channel, words: self.words(channel, one, &with, others.len()), weight: tidy(mean) });
        }
        reasons.sort_by(|a, b| b.weight.total_cmp(&a.weight).then(a.channel.cmp(&b.channel)));
        reasons
    }

    /// Why `one` belongs to `with`, `of` being the number of accounts it was compared with.
    fn words(&self, channel: Channel, one: usize, with: &[usize], of: usize) -> String {
        let profile = &self.profiles[one];
        let others = || with.iter().map(|other| &self.profiles[*other]);
        let whom = format!("{} of {of} others", with.len());
        match channel {
            Channel::Payment => format!("pays by the same means as {whom}"),
            Channel::Network => {
                let shared =
                    |other: &Profile| profile.networks.keys().filter(|net| other.networks.contains_key(net)).count();
                let most = others().map(shared).max().unwrap_or(0);
                format!("comes from the same networks as {whom}, from up to {most} of them")
            }
            Channel::Client => format!("uses the same software and settings as {whom}"),
            Channel::SignUp => {
                let gap = |other: &Profile| profile.opened.zip(other.opened).map(|(a, b)| a.since(b).abs());
                let widest = others().filter_map(gap).max().unwrap_or(0) as f64 / 3_600_000.0;
                format!("was opened within {widest:.1} hours of {whom}")
            }
            Channel::Content => format!("draws its prompts from the same kinds as {whom}"),
            Channel::Queue => {
                let (seen, expected) = with
                    .iter()
                    .map(|other| self.linker.repeats(one, *other))
                    .fold((0.0, 0.0), |sum, pair| (sum.0 + pair.0, sum.1 + pair.1));
                format!(
                    "has {seen:.0} prompts in common with {whom} where chance would give {expected:.1}: a list is divided"
                )
            }
            Channel::HandOver => {
                let (seen, expected) = with
                    .iter()
                    .map(|other| self.linker.took_over(one, *other))
                    .fold((0.0, 0.0), |sum, pair| (sum.0 + pair.0, sum.1 + pair.1));
                format!(
                    "{seen:.0} times one of them went on within seconds where another was refused, of it and {whom}; chance would give {expected:.1}"
                )
            }
            Channel::Pivot => {
                let pivots = with.iter().filter_map(|other| self.linker.pivot(one, *other));
                let widest = pivots.max_by(|a, b| a.1.total_cmp(&b.1));
                let (model, hours) = widest.unwrap_or(("a new model", 0.0));
                format!("went over to {model} within {hours:.1} hours of {whom}")
            }
            Channel::Rhythm => {
                format!(
                    "works at the pace of {whom}: {:.1} exchanges an hour, as even over the day",
                    account(profile).per_hour
                )
            }
        }
    }

    fn edges(&self, group: &[usize]) -> Vec<Edge> {
        let mut edges = Vec::new();
        for one in group {
            for other in peers(*one, group).filter(|other| other > one) {
                let evidence = self.linker.pair(*one, other);
                if self.weight(&evidence, None) > 0.0 {
                    edges.push((*one, other, evidence));
                }
            }
        }
        edges.sort_by(|x, y| y.2.total(None).total_cmp(&x.2.total(None)).then((x.0, x.1).cmp(&(y.0, y.1))));
        edges.truncate(self.config.listed_edges);
        let name = |place: usize| self.profiles[place].account.clone();
        edges
            .into_iter()
            .map(|(a, b, evidence)| Edge {
                a: name(a),
                b: name(b),
                llr: tidy(evidence.total(None)),
                channels: parts(&evidence),
            })
            .collect()
    }

    fn survival(&self, group: &[usize]) -> Vec<Survival> {
        if group.len() < 2 {
            return Vec::new();
        }
        // Enough accounts to see what holds; all of a small operator.
        let group: Vec<usize> = group.iter().copied().step_by(group.len().div_ceil(SAMPLE)).collect();
        let pairs: Vec<(usize, usize, Evidence)> = (0..group.len())
            .flat_map(|a| (a + 1..group.len()).map(move |b| (a, b)))
            .map(|(a, b)| (a, b, self.linker.pair(group[a], group[b])))
            .collect();
        let families: BTreeSet<&str> = Channel::ALL.iter().map(|channel| channel.family()).collect();
        let share = |accounts: usize| tidy(accounts as f64 / group.len() as f64);
        families
            .into_iter()
            .map(|family| {
                let edges: Vec<_> =
                    pairs.iter().map(|(a, b, evidence)| (*a, *b, self.weight(evidence, Some(family)))).collect();
                let pieces = groups(group.len(), &edges, 0.0);
                let whole = |piece: Vec<usize>| piece.into_iter().map(|place| group[place]).collect();
                let mut pieces = self.merge_all(pieces.into_iter().map(whole).collect(), Some(family));
                self.adopt_rest(&mut pieces, &group, Some(family));
                Survival {
                    without: family.to_owned(),
                    linked: share(pieces.iter().map(Vec::len).sum()),
                    largest: share(pieces.iter().map(Vec::len).max().unwrap_or(0)),
                }
            })
            .collect()
    }
}

/// What is only worked out for campaigns.
fn finish(operator: &mut Operator) {
    let weakest = operator.survival.iter().min_by(|a, b| a.linked.total_cmp(&b.linked)).cloned();
    let doubtful = operator.accounts.iter().filter(|member| member.certainty < 0.9).count();
    let purpose_against = operator.purpose.counter.clone();
    let Standing::Campaign(campaign) = &mut operator.standing else { return };
    campaign.leaked = operator.alarm.as_ref().and_then(Alarm::first);
    campaign.counter = purpose_against;
    if let Some(weakest) = weakest.filter(|weakest| weakest.linked < 1.0) {
        let kept = 100.0 * weakest.linked;
        campaign.counter.push(format!("without {} only {kept:.0} % of the accounts stay linked", weakest.without));
    }
    if doubtful > 0 {
        campaign.counter.push(format!("{doubtful} accounts belong with a certainty below 90 %"));
    }
}

fn parts(evidence: &Evidence) -> Vec<(Channel, f64)> {
    Channel::ALL
        .iter()
        .map(|channel| (*channel, tidy(evidence.of(*channel))))
        .filter(|(_, nats)| *nats != 0.0)
        .collect()
}

fn account(profile: &Profile) -> Account {
    let span = profile.first.zip(profile.last).map_or(0, |(first, last)| last.since(first)).max(3_600_000);
    Account {
        account: profile.account.clone(),
        opened: profile.opened,
        exchanges: profile.exchanges,
        output_tokens: profile.output_tokens,
        per_hour: tidy(profile.exchanges as f64 / span as f64 * 3_600_000.0),
    }
}

/// The account of `group` that was active first.
pub(crate) fn first_of(profiles: &[Profile], group: &[usize]) -> Option<usize> {
    group.iter().copied().min_by_key(|one| (profiles[*one].first, &profiles[*one].account))
}

/// An operator bears the name of the account that was active first.
fn name(accounts: &[&Profile]) -> OperatorId {
    let first = accounts.iter().min_by_key(|account| (account.first, &account.account));
    let digest = Digest::of(first.map_or("", |account| account.account.as_str()).as_bytes());
    let text = format!("op-{}", digest.short());
    // Letters, digits and a hyphen: always an id.
    OperatorId::new(text).unwrap_or_else(|_| unreachable!("hexadecimal digits are an id"))
}
