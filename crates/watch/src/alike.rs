//! Accounts that share nothing but what they ask for.
//!
//! One kind of evidence links nobody and accuses nobody. But accounts that each look like a harvest are rare, and so are those that are
//! merely strange for people who converse; where many of them ask from one distribution, and together as no honest customer does, a person
//! should look.

use std::collections::{BTreeMap, BTreeSet};

use crate::Config;
use crate::block::Candidates;
use crate::campaign::Desk;
use crate::cells::{Cells, tally};
use crate::cluster::groups;
use crate::fit::{Row, Told};
use crate::gather::{Group, Tie, thin};
use crate::grants::Grants;
use crate::link::{Evidence, POPULATION};
use crate::parallel::map;
use crate::profile::Profile;
use crate::purpose::{kinds, weigh};
use crate::report::{Archetype, Channel};
use crate::world::World;

/// Suspects up to which every two are compared.
const EVERYBODY: usize = 1_000;
/// What a pair that was not examined costs inside a group where they are more, in nats.
const UNSEEN: f64 = 0.05;
/// Accounts of each half by which a group is tried.
const HALF: usize = 24;
/// Share of the nats that a group needs which a pair must show to bring two accounts together.
const PAIR: f64 = 1.0 / 3.0;

/// Nats by which a harvest may fit an account worse than conversation does, where it is strange for one that converses: of honest people
/// it is seven, give or take one.
const STRANGE: f64 = -4.5;
/// Nats by which a harvest must fit accounts that do not talk better than any honest kind but a pool of keys, where nothing but what they ask
/// links them, several customers pay for them, and most look like a harvest by themselves.
const CLEARLY: f64 = 4.0;
/// Nats by which it must fit them better than a pool of keys where they do not.
const OVER_POOLS: f64 = 3.0;
/// Fewest accounts of a group that only has to ask what no application asks, and to look more like a harvest than like any honest use.
const MANY: usize = 20;
/// Applications that ask the same for each account of a group from which what it asks is no more than what many ask.
const USUAL: f64 = 0.1;
/// Share of the requests that go on with a conversation beyond which an account does little else.
const TALKS: f64 = 2.0 / 3.0;
/// Kinds of prompts, as the exponential of their entropy, below which an account is no person's and hides nothing among a person's
/// prompts.
pub(crate) const FEW: f64 = 10.0;
/// Nats that a pair must show where any account that converses is looked at.
const SURE: [f64; 2] = [3.0, 2.0];
/// The same where only strange ones are.
const WEAK: [f64; 3] = [1.5, 1.0, 0.5];
/// Nats by which more must speak for joining a group than chance: one account in about so many is joined wrongly.
const JOINING: f64 = 2.0;

/// What the accounts of a group ask together.
struct Pool {
    told: Told,
    /// Kinds of prompts with their counts.
    row: Vec<(usize, u32)>,
    /// Some of the accounts.
    some: Vec<usize>,
}

impl Pool {
    fn as_row(&self) -> (&Row, &Told) {
        (&self.row, &self.told)
    }
}

/// How an account looks by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Oddity {
    /// As its grant says.
    Granted,
    /// Of too few exchanges to say.
    Unjudged,
    /// As an application does, or of somebody who mostly talks.
    None,
    /// As people do who converse; a harvest may be hidden there.
    Possible,
    /// Less as people do than others.
    Strange,
    /// Like a harvest.
    Harvest,
}

impl Oddity {
    /// Is an account that looks so an example of what honest ones ask? What looks like a harvest is none, nor what does not talk and looks
    /// neither like people nor like an application, be it for want of exchanges.
    pub(crate) fn is_example(self, profile: &Profile) -> bool {
        match self {
            Self::Harvest => false,
            Self::Unjudged | Self::Strange => profile.converses(),
            Self::Granted | Self::None | Self::Possible => true,
        }
    }
}

/// How every account looks by itself.
pub(crate) fn oddities(world: &World, profiles: &[Profile], cells: &Cells, config: &Config) -> Vec<Oddity> {
    let everybody: Vec<usize> = (0..profiles.len()).collect();
    map(config.threads(), &everybody, |one| {
        let (profile, kinds) = (&profiles[*one], kinds(&cells.kinds[*one]));
        // Whoever has a grant for all that it does is no suspect, and asks like those who have none.
        if profile.granted_exchanges > 0 && Grants::of(&[profile], world).explain() {
            return Oddity::Granted;
        }
        // Whoever mostly goes on with what was said before takes part in conversations, whatever they are about.
        if profile.deep as f64 > TALKS * profile.sketched as f64 {
            return Oddity::None;
        }
        let Some(purpose) = weigh(&[profile], &[&cells.of[*one]], false, config) else { return Oddity::Unjudged };
        match purpose.archetype {
            Archetype::Harvest => Oddity::Harvest,
            // An application of some moulds, of which it could not be told what it is.
            Archetype::Chat | Archetype::Unknown if kinds < FEW => Oddity::None,
            Archetype::Chat | Archetype::Unknown if purpose.score >= STRANGE => Oddity::Strange,
            Archetype::Chat | Archetype::Unknown => Oddity::Possible,
            _ => Oddity::None,
        }
    })
}

impl Desk<'_> {
    /// Groups of accounts that ask alike, outside of the operators in `linked` that are large enough to be judged themselves: first of
    /// those that each look like a harvest, then of others, and last of those that talk. Nothing else links them.
    pub(crate) fn alike(&self, linked: &[Vec<usize>], candidates: &Candidates) -> Vec<Group> {
        let judged: BTreeSet<usize> =
            linked.iter().filter(|group| group.len() >= self.config.min_accounts).flatten().copied().collect();
        let free = (0..self.profiles.len()).filter(|one| self.profiles[*one].exchanges > 0 && !judged.contains(one));
        let free: Vec<usize> = free.collect();
        let of =
            |least: Oddity| -> Vec<usize> { free.iter().copied().filter(|one| self.oddities[*one] >= least).collect() };
        let mut found = self.harvests_alike(&of(Oddity::Harvest), candidates);
        for (least, levels) in [(Oddity::Possible, &SURE[..]), (Oddity::Strange, &WEAK[..])] {
            let held: BTreeSet<usize> = found.iter().flatten().copied().collect();
            let rest: Vec<usize> = of(least).into_iter().filter(|one| !held.contains(one)).collect();
            found.extend(self.hidden_alike(rest, levels, candidates));
        }
        let suspects = of(Oddity::Possible);
        self.join_alike(&mut found, &suspects);
        // What has grown shows more.
        let mut found = self.joined_alike(found, suspects.len());
        found.retain(|group| !self.is_usual(group));
        let held: BTreeSet<usize> = found.iter().flatten().copied().collect();
        let besides = self.besides(&free, &held).map(|accounts| Group { accounts, tie: Tie::Besides });
        found.into_iter().map(|accounts| Group { accounts, tie: Tie::Alike }).chain(besides).collect()
    }

    fn pool(&self, group: &[usize]) -> Pool {
        let some: Vec<usize> = thin(group, HALF).collect();
        let row = pooled(some.iter().map(|one| &self.linker.rows[*one]));
        Pool { told: self.linker.told(&row), row, some }
    }

    /// Lets those of `suspects` that are in no group join the one that they ask like, where that is more than likely.
    fn join_alike(&self, found: &mut [Vec<usize>], suspects: &[usize]) {
        let held: BTreeSet<usize> = found.iter().flatten().copied().collect();
        let free: Vec<usize> = suspects.iter().copied().filter(|one| !held.contains(one)).collect();
        let pools = map(self.config.threads(), found, |group| self.pool(group));
        let joins = map(self.config.threads(), &free, |one| {
            let nats = |(group, pool): (usize, &Pool)| {
                let some = &pool.some;
                let pace = some.iter().map(|other| pace(&self.linker.pair(*one, *other))).sum::<f64>();
                let needed = self.one_more_of(found[group].len(), suspects.len());
                let content = self.linker.rows_alike(self.linker.row_of(*one), pool.as_row());
                (group, content + pace / some.len().max(1) as f64 - needed)
            };
            let best = pools.iter().enumerate().map(nats).max_by(|a, b| a.1.total_cmp(&b.1));
            best.filter(|best| best.1 > 0.0).map(|best| best.0)
        });
        for (one, group) in free.into_iter().zip(joins) {
            if let Some(group) = group {
                found[group].push(one);
            }
        }
        found.iter_mut().for_each(|group| group.sort_unstable());
    }

    /// Is what the accounts of a group ask what many ask? A template or a tool that many customers have brings those of them together that
    /// happen to look odd, and people who ask what people ask have nothing in common.
    fn is_usual(&self, group: &[usize]) -> bool {
        let pool = self.pool(group);
        if self.converse(group) {
            let people = |one: &usize| {
                self.oddities[*one] == Oddity::Possible
                    && self.profiles[*one].converses()
                    && group.binary_search(one).is_err()
            };
            let people: Vec<usize> = (0..self.profiles.len()).filter(people).collect();
            return people.len() >= POPULATION
                && self.linker.rows_alike(pool.as_row(), self.pool(&people).as_row()) > 0.0;
        }
        let needed = self.config.margin + JOINING;
        let asks = |one: &usize| self.linker.rows_alike(self.linker.row_of(*one), pool.as_row()) > needed;
        let others: Vec<usize> = (0..self.profiles.len())
            .filter(|one| self.oddities[*one] == Oddity::None && !self.profiles[*one].converses())
            .collect();
        let asking = map(self.config.threads(), &others, asks).into_iter().filter(|asks| *asks).count();
        asking as f64 >= (USUAL * group.len() as f64).max(2.0)
    }

    /// Groups among `suspects`, each of which looks like a harvest.
    fn harvests_alike(&self, suspects: &[usize], candidates: &Candidates) -> Vec<Vec<usize>> {
        // The prior odds that two suspects are of one operator.
        let needed = (suspects.len().max(1) as f64).ln() + self.config.margin;
        let all = suspects.len() <= EVERYBODY;
        let pairs = self.pairs(suspects, candidates);
        let edges = map(self.config.threads(), &pairs, |&(a, b)| {
            (a, b, self.linker.prompts(&[suspects[a]], &[suspects[b]]) - PAIR * needed)
        });
        let mut found = self.grouped(suspects, &edges, all);
        found.retain(|group| self.linker.prompts(&halves(group)[0], &halves(group)[1]) > needed);
        // Where not all pairs were examined, one group may have come apart.
        if all { found } else { self.joined_alike(found, suspects.len()) }
    }

    /// Merges `groups` of so many `suspects` that ask alike, the surest first.
    fn joined_alike(&self, mut groups: Vec<Vec<usize>>, suspects: usize) -> Vec<Vec<usize>> {
        // Both are of no honest kind, or the whole is.
        let odd = |group: &[usize]| self.of_no_honest_kind(group);
        let fits = |a: &[usize], b: &[usize]| (odd(a) && odd(b)) || odd(&[a, b].concat());
        let nats = |a: &Vec<usize>, b: &Vec<usize>| {
            let [one, two] = [a, b].map(|group| thin(group, HALF).collect::<Vec<_>>());
            let nats = self.linker.prompts(&one, &two) - self.one_more_of(a.len().max(b.len()), suspects);
            if nats > 0.0 && !fits(a, b) { f64::NEG_INFINITY } else { nats }
        };
        groups.sort_by(|a, b| b.len().cmp(&a.len()).then(a.cmp(b)));
        let pairs: Vec<(usize, usize)> =
            (0..groups.len()).flat_map(|a| (a + 1..groups.len()).map(move |b| (a, b))).collect();
        let weighed = map(self.config.threads(), &pairs, |&(a, b)| ((a, b), nats(&groups[a], &groups[b])));
        let mut known: BTreeMap<(usize, usize), f64> = weighed.into_iter().collect();
        while let Some((&(a, b), _)) = known.iter().filter(|one| *one.1 > 0.0).max_by(|x, y| x.1.total_cmp(y.1)) {
            let gone = std::mem::take(&mut groups[b]);
            groups[a].extend(gone);
            groups[a].sort_unstable();
            known.retain(|(one, two), _| *one != b && *two != b);
            let others: Vec<usize> = (0..groups.len()).filter(|one| *one != a && !groups[*one].is_empty()).collect();
            let weighed = map(self.config.threads(), &others, |&other| nats(&groups[a], &groups[other]));
            known.extend(others.iter().map(|other| (a.min(*other), a.max(*other))).zip(weighed));
        }
        groups.retain(|group| !group.is_empty());
        groups
    }

    /// Nats that must speak for it that some suspects are of a known group of so many among all: any of them is as likely to be as that has
    /// accounts among all of them.
    fn one_more_of(&self, group: usize, suspects: usize) -> f64 {
        (suspects as f64 / group.max(1) as f64).ln() + self.config.margin + JOINING
    }

    /// Groups among `suspects` that are not known to be harvests by themselves: of accounts that hide one among innocent conversations,
    /// or keep waking hours. They are sought at one of `levels` after the other, the nats that a pair must show to be held together.
    ///
    /// What one of them shows says little, so they are grouped by every other prompt of each and by their pace; and what a group rests
    /// on is that the rest of their prompts, which had no part in that, come from one distribution too.
    fn hidden_alike(&self, mut suspects: Vec<usize>, levels: &[f64], candidates: &Candidates) -> Vec<Vec<usize>> {
        let needed = (suspects.len().max(1) as f64).ln() + self.config.margin;
        let all = suspects.len() <= EVERYBODY;
        let rows = |odd: usize| -> Vec<Vec<(usize, u32)>> {
            let row = |one: &usize| tally(self.cells.kinds[*one].iter().skip(odd).step_by(2).copied());
            suspects.iter().map(row).collect()
        };
        let (seen, rest) = (rows(0), rows(1));
        let places: BTreeMap<usize, usize> = suspects.iter().enumerate().map(|(place, one)| (*one, place)).collect();
        let told = map(self.config.threads(), &seen, |row| self.linker.told(row));
        let pairs = self.pairs(&suspects, candidates);
        let nats = map(self.config.threads(), &pairs, |&(a, b)| {
            let content = self.linker.rows_alike((&seen[a], &told[a]), (&seen[b], &told[b]));
            (suspects[a], suspects[b], content + pace(&self.linker.pair(suspects[a], suspects[b])))
        });
        let confirmed = |group: &Vec<usize>| {
            let pool = |half: Vec<usize>| pooled(half.iter().filter_map(|one| rest.get(*places.get(one)?)));
            let [a, b] = halves(group).map(pool);
            self.linker.rows_alike((&a, &self.linker.told(&a)), (&b, &self.linker.told(&b))) > needed
        };
        let mut found = Vec::new();
        for level in levels {
            let places: BTreeMap<usize, usize> =
                suspects.iter().enumerate().map(|(place, one)| (*one, place)).collect();
            let left = nats.iter().filter_map(|(a, b, nats)| Some((*places.get(a)?, *places.get(b)?, nats - level)));
            let groups = self.grouped(&suspects, &left.collect::<Vec<_>>(), all);
            let confirmed: Vec<Vec<usize>> = groups.into_iter().filter(confirmed).collect();
            let held: BTreeSet<usize> = confirmed.iter().flatten().copied().collect();
            suspects.retain(|one| !held.contains(one));
            found.extend(confirmed);
        }
        found
    }

    /// Pairs of `suspects`, by place: all, or of many those that were worth examining.
    fn pairs(&self, suspects: &[usize], candidates: &Candidates) -> Vec<(usize, usize)> {
        if suspects.len() <= EVERYBODY {
            return (0..suspects.len()).flat_map(|a| (a + 1..suspects.len()).map(move |b| (a, b))).collect();
        }
        let places: BTreeMap<usize, usize> = suspects.iter().enumerate().map(|(place, one)| (*one, place)).collect();
        candidates.pairs.iter().filter_map(|(a, b)| Some((*places.get(a)?, *places.get(b)?))).collect()
    }

    /// Groups of `suspects` inside which the `edges`, by place, sum up to most, and whose use as a whole is of no honest kind.
    /// `all` says whether every two were examined.
    fn grouped(&self, suspects: &[usize], edges: &[(usize, usize, f64)], all: bool) -> Vec<Vec<usize>> {
        if suspects.len() < self.config.min_accounts {
            return Vec::new();
        }
        let found = groups(suspects.len(), edges, if all { 0.0 } else { UNSEEN });
        let named = found.into_iter().map(|group| group.into_iter().map(|place| suspects[place]).collect());
        named.filter(|group: &Vec<usize>| self.of_no_honest_kind(group)).collect()
    }

    fn of_no_honest_kind(&self, group: &[usize]) -> bool {
        if group.len() < self.config.min_accounts {
            return false;
        }
        let Some(purpose) = self.weighed(group, false) else { return false };
        if purpose.archetype != Archetype::Harvest {
            // So many that ask what no application asks are not the customers of one tool, whatever hours they keep.
            let odd = purpose.archetype == Archetype::Unknown && purpose.score > 0.0 && !self.converse(group);
            return odd && group.len() >= MANY && !self.is_usual(group);
        }
        // No application talks.
        if self.converse(group) {
            return true;
        }
        // Customers who use one template are told from a harvest by little, unless each of them looks like one by itself.
        let alone = group.iter().filter(|one| self.oddities[**one] == Oddity::Harvest).count();
        let clearly = 2 * alone > group.len() && purpose.score >= CLEARLY;
        clearly || purpose.over(Archetype::Pool) >= OVER_POOLS || (group.len() >= MANY && !self.is_usual(group))
    }

    /// Do most of some accounts converse?
    fn converse(&self, group: &[usize]) -> bool {
        2 * group.iter().filter(|one| self.profiles[**one].converses()).count() > group.len()
    }
}

/// How two accounts work, whatever they ask, in nats.
fn pace(evidence: &Evidence) -> f64 {
    [Channel::Rhythm, Channel::Pivot, Channel::HandOver].iter().map(|channel| evidence.of(*channel)).sum()
}

/// The sum of some counts, sorted.
fn pooled<'r>(rows: impl Iterator<Item = &'r Vec<(usize, u32)>>) -> Vec<(usize, u32)> {
    let mut counts = BTreeMap::new();
    rows.flatten().for_each(|(kind, count)| *counts.entry(*kind).or_default() += count);
    counts.into_iter().collect()
}

/// Every other account of a group and the rest of it, as many of each as are tried.
fn halves(group: &[usize]) -> [Vec<usize>; 2] {
    [0, 1].map(|odd| {
        let half: Vec<usize> = group.iter().copied().skip(odd).step_by(2).collect();
        thin(&half, HALF).collect()
    })
}
