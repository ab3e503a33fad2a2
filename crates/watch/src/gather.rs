//! From pairs to operators: which accounts belong together as a whole.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use crate::alike::Oddity;
use crate::block::Candidates;
use crate::bound::SLACK;
use crate::campaign::Desk;
use crate::cluster::groups;
use crate::link::Evidence;
use crate::parallel::map;

/// Families of channels that a link needs.
const SIGNALS: usize = 2;
/// What a pair that was not examined costs inside a group, in nats.
const UNSEEN: f64 = 0.25;
/// Accounts against which a member of an operator is weighed.
const PEERS: usize = 64;
/// The same in a huge operator, where means are sharp with fewer.
const FEWEST_PEERS: usize = 24;
/// Pairs that one pass over an operator may cost.
const PASS: usize = 200_000;
/// Fewest accounts of a group that is linked as a whole though none of its pairs is.
const LARGE: usize = 9;
/// Fewest accounts of a group that a lone account may join as a whole.
const ADOPTING: usize = 3;
/// Nats by which more must speak for joining a known operator than chance.
const JOINING: f64 = 1.0;
/// Accounts of a group against which each of another is weighed.
const MERGE_PEERS: usize = 16;
/// The same for a first look: groups that it shows to be far apart are not looked at again.
const FIRST_PEERS: usize = 4;
/// Groups that a group is compared with where there are many.
const NEAREST: usize = 12;
/// Nats below the threshold from which a pair brings nobody together.
const FAR: f64 = 8.0;
/// One account in so many of a large group is let go at a time.
const AT_A_TIME: usize = 20;
/// Groups up to which every two of them are compared as wholes; beyond, those that some examined pair brings together.
const ALL_GROUPS: usize = 40;

/// Examined pairs with their nats above the threshold, and whether they are all there are.
struct Examined {
    edges: Vec<(usize, usize, f64)>,
    /// All nats of each, whatever kinds of evidence speak.
    totals: Vec<f64>,
    all: bool,
}

/// Accounts that are taken for one operator.
#[derive(Debug)]
pub(crate) struct Group {
    /// By number, sorted.
    pub(crate) accounts: Vec<usize>,
    pub(crate) tie: Tie,
}

/// What makes a group of accounts one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tie {
    /// Several kinds of evidence link them, or it is one account.
    Linked,
    /// They only ask alike.
    Alike,
    /// They talk, and ask for one thing besides.
    Besides,
}

impl Desk<'_> {
    /// Nats above the threshold; never positive where fewer than [`SIGNALS`] kinds of evidence speak.
    pub(crate) fn weight(&self, evidence: &Evidence, but: Option<&str>) -> f64 {
        let weight = evidence.total(but) - self.threshold;
        if self.signals(evidence, but) { weight } else { weight.min(0.0) }
    }

    /// Whether enough kinds of evidence speak; one fewer where one is left out on purpose.
    fn signals(&self, evidence: &Evidence, but: Option<&str>) -> bool {
        let needed = if but.is_some() { SIGNALS - 1 } else { SIGNALS };
        evidence.families(self.config.channel_minimum, but) >= needed
    }

    /// All accounts with any exchange, each in exactly one operator; accounts by number, sorted.
    pub(crate) fn operators(&self) -> Vec<Group> {
        let candidates = self.linker.candidates();
        let mut linked = self.linked(&candidates);
        let alike = self.alike(&linked, &candidates);
        let moved: BTreeSet<usize> = alike.iter().flat_map(|group| &group.accounts).copied().collect();
        linked.iter_mut().for_each(|group| group.retain(|one| !moved.contains(one)));
        linked.retain(|group| group.len() > 1);
        let grouped: BTreeSet<usize> = linked.iter().flatten().copied().chain(moved).collect();
        let alone =
            (0..self.profiles.len()).filter(|place| !grouped.contains(place) && self.profiles[*place].exchanges > 0);
        let linked = linked.into_iter().chain(alone.map(|place| vec![place]));
        linked.map(|accounts| Group { accounts, tie: Tie::Linked }).chain(alike).collect()
    }

    /// The operators that `candidates` show.
    pub(crate) fn linked(&self, candidates: &Candidates) -> Vec<Vec<usize>> {
        let examined = self.examine(candidates);
        let positive = |edge: &&(usize, usize, f64)| examined.all || edge.2 > 0.0;
        let edges: Vec<_> = examined.edges.iter().filter(positive).copied().collect();
        let found = groups(self.profiles.len(), &edges, if examined.all { 0.0 } else { UNSEEN });
        let mut merged = self.merge(found, &examined, None);
        if let Some(more) = self.second_look(&merged, &examined) {
            merged = self.merge(more, &examined, None);
        }
        self.adopt(&mut merged, &examined);
        let peeled = map(self.config.threads(), &merged, |group| self.peel(group.clone()));
        peeled.into_iter().filter(|group| group.len() > 1).collect()
    }

    fn examine(&self, Candidates { pairs, all }: &Candidates) -> Examined {
        let active = |place: usize| self.profiles[place].exchanges > 0;
        let pairs: Vec<(usize, usize)> = pairs.iter().copied().filter(|(a, b)| active(*a) && active(*b)).collect();
        // What is asked of an edge below; nothing else is worked out.
        let floor = self.threshold - FAR.max(self.spare());
        let weigh = |&(a, b): &(usize, usize)| match self.linker.pair_above(a, b, floor) {
            Some(evidence) => ((a, b, self.weight(&evidence, None)), evidence.total(None)),
            None => ((a, b, f64::NEG_INFINITY), f64::NEG_INFINITY),
        };
        let (edges, totals) = map(self.config.threads(), &pairs, weigh).into_iter().unzip();
        Examined { edges, totals, all: *all }
    }

    /// Merges groups that belong together as wholes, the surest first.
    ///
    /// The pairs between two groups are many looks at one question. What is seen of prompts and pace differs from pair to pair by
    /// chance, though not independently, so `n` of them count as the square root of the smaller group's size (see [`looks`]). That all of
    /// one group were opened in the days of the other, from one network or with one program, is one coincidence however many they
    /// are, and counts once.
    fn merge(&self, found: Vec<Vec<usize>>, examined: &Examined, but: Option<&str>) -> Vec<Vec<usize>> {
        let near = (found.len() > ALL_GROUPS).then(|| neighbours(&found, examined));
        self.merge_near(found, near, but)
    }

    /// Merges groups of a few accounts of whom every pair is known.
    pub(crate) fn merge_all(&self, found: Vec<Vec<usize>>, but: Option<&str>) -> Vec<Vec<usize>> {
        self.merge_near(found, None, but)
    }

    /// `near` has the groups that are near each group; without it all are.
    fn merge_near(
        &self,
        mut found: Vec<Vec<usize>>,
        near: Option<Vec<BTreeSet<usize>>>,
        but: Option<&str>,
    ) -> Vec<Vec<usize>> {
        let everybody = |one: usize| (0..found.len()).filter(|other| *other != one).collect();
        let mut near = near.unwrap_or_else(|| (0..found.len()).map(everybody).collect());
        let pairs = (0..found.len()).flat_map(|a| near[a].iter().filter(move |b| **b > a).map(move |b| (a, *b)));
        let pairs: Vec<(usize, usize)> = pairs.collect();
        let weigh = |&(a, b): &(usize, usize)| ((a, b), self.merging(&found[a], &found[b], but));
        // Only what speaks for merging is remembered; the surest on top, and below it what is outdated.
        let merges = map(self.config.threads(), &pairs, weigh).into_iter().filter(|merge| merge.1 > 0.0);
        let mut scores: BTreeMap<(usize, usize), f64> = merges.collect();
        let mut surest: BinaryHeap<Merge> =
            scores.iter().map(|(pair, nats)| Merge { nats: *nats, pair: *pair }).collect();
        while let Some(Merge { nats, pair: (a, b) }) = surest.pop() {
            if scores.get(&(a, b)) != Some(&nats) {
                continue;
            }
            let gone = std::mem::take(&mut found[b]);
            found[a].extend(gone);
            found[a].sort_unstable();
            let moved = std::mem::take(&mut near[b]);
            for other in &moved {
                scores.remove(&(b.min(*other), b.max(*other)));
            }
            near[a].extend(moved);
            near[a].retain(|other| *other != a && !found[*other].is_empty());
            for other in near[a].clone() {
                near[other].insert(a);
                let pair = (a.min(other), a.max(other));
                let nats = self.merging(&found[a], &found[other], but);
                scores.remove(&pair);
                if nats > 0.0 {
                    scores.insert(pair, nats);
                    surest.push(Merge { nats, pair });
                }
            }
        }
        found.retain(|group| !group.is_empty());
        found
    }

    /// Among accounts that no pair of them could link, looks for large groups that do as wholes: half of such a group
    /// must be of one operator with the other half. `None` if there is none.
    fn second_look(&self, found: &[Vec<usize>], examined: &Examined) -> Option<Vec<Vec<usize>>> {
        let settled = |group: &&Vec<usize>| group.len() >= ADOPTING;
        let taken: BTreeSet<usize> = found.iter().filter(settled).flatten().copied().collect();
        let spare = self.spare();
        let left = examined.edges.iter().zip(&examined.totals);
        let left = left.filter(|((a, b, _), _)| !taken.contains(a) && !taken.contains(b));
        // What `weight` held back for want of signals counts here; the halves must show them.
        let left = left.map(|((a, b, _), total)| (*a, *b, *total - self.threshold + spare));
        let left: Vec<_> = left.filter(|edge| examined.all || edge.2 > 0.0).collect();
        let mut large = groups(self.profiles.len(), &left, if examined.all { 0.0 } else { UNSEEN });
        large.retain(|group| group.len() >= LARGE && self.halves_agree(group));
        let moved: BTreeSet<usize> = large.iter().flatten().copied().collect();
        let kept = found.iter().filter(|group| !group.iter().any(|one| moved.contains(one))).cloned();
        (!large.is_empty()).then(|| kept.chain(large.iter().cloned()).collect())
    }

    /// Nats that a pair may lack of the threshold to be one of a large group.
    fn spare(&self) -> f64 {
        self.threshold * (1.0 - 1.0 / looks(LARGE))
    }

    fn halves_agree(&self, group: &[usize]) -> bool {
        let half = |odd: usize| group.iter().copied().skip(odd).step_by(2).take(2 * MERGE_PEERS).collect::<Vec<_>>();
        self.weight(&self.linker.groups(&half(0), &half(1)), None) > 0.0
    }

    /// Lets accounts that stand alone join the group they fit best as a whole.
    fn adopt(&self, found: &mut [Vec<usize>], examined: &Examined) {
        let mut of = vec![None; self.profiles.len()];
        for (group, accounts) in found.iter().enumerate() {
            accounts.iter().for_each(|account| of[*account] = Some(group));
        }
        // The groups with which some pair of an account was examined; where all were, those are all groups.
        let mut near: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
        for (a, b, _) in &examined.edges {
            match (of[*a], of[*b]) {
                (None, Some(group)) => near.entry(*a).or_default().insert(group),
                (Some(group), None) => near.entry(*b).or_default().insert(group),
                _ => false,
            };
        }
        let near: Vec<(usize, BTreeSet<usize>)> = near.into_iter().collect();
        let joins = map(self.config.threads(), &near, |(one, groups)| {
            let groups = groups.iter().map(|group| (*group, &found[*group]));
            Some((*one, self.fits_best(*one, groups, None)?))
        });
        for (one, group) in joins.into_iter().flatten() {
            found[group].push(one);
        }
        found.iter_mut().for_each(|group| group.sort_unstable());
    }

    /// The same for the accounts of `group` that are in none of the pieces `found` of it.
    pub(crate) fn adopt_rest(&self, found: &mut [Vec<usize>], group: &[usize], but: Option<&str>) {
        let held: BTreeSet<usize> = found.iter().flatten().copied().collect();
        for one in group.iter().copied().filter(|one| !held.contains(one)) {
            if let Some(place) = self.fits_best(one, found.iter().enumerate(), but) {
                found[place].push(one);
            }
        }
    }

    /// The group that a lone account fits best as a whole, if it fits any.
    fn fits_best<'g>(
        &self,
        one: usize,
        groups: impl Iterator<Item = (usize, &'g Vec<usize>)>,
        but: Option<&str>,
    ) -> Option<usize> {
        let fits = groups.filter(|(_, group)| group.len() >= ADOPTING);
        let fits = fits.map(|(place, group)| (place, self.merging(&[one], group, but)));
        fits.max_by(|a, b| a.1.total_cmp(&b.1)).filter(|fit| fit.1 > 0.0).map(|(place, _)| place)
    }

    /// Nats by which two groups belong together: by their pairs or by their pools.
    pub(crate) fn merging(&self, a: &[usize], b: &[usize], but: Option<&str>) -> f64 {
        let (few, many) = if a.len() <= b.len() { (a, b) } else { (b, a) };
        self.as_wholes(a, b, self.joining(few, many.len()), but)
    }

    /// Nats that must speak for it that some accounts belong to a known operator of so many `accounts`. Before anything is known of it, any
    /// account is as likely to be one of them as they are many among all; but not whoever does what a grant allows it.
    fn joining(&self, some: &[usize], accounts: usize) -> f64 {
        if some.iter().all(|one| self.oddities[*one] == Oddity::Granted) {
            return self.threshold;
        }
        self.threshold.min(self.threshold - (accounts.max(1) as f64).ln() + JOINING)
    }

    /// Nats by which two groups belong together, above `threshold`: by their pairs or by their pools.
    fn as_wholes(&self, a: &[usize], b: &[usize], threshold: f64, but: Option<&str>) -> f64 {
        let few = |group: &[usize], most: usize| thin(group, most).collect::<Vec<usize>>();
        if a.len() > FIRST_PEERS && b.len() > FIRST_PEERS {
            let first = self.linker.between(&few(a, FIRST_PEERS), &few(b, FIRST_PEERS));
            let mean = self.mean(first.iter().map(|pair| &pair.0), but);
            if mean.facts + mean.habits <= 0.0 {
                return -threshold;
            }
        }
        let (a, b) = (few(a, MERGE_PEERS), few(b, MERGE_PEERS));
        let looks = looks(a.len().min(b.len()));
        let [pairs, pools] = self.linker.at_most(&a, &b);
        let facts = pairs.facts(but);
        // Most are far from belonging together, whatever they ask.
        if (facts + (pairs.total(but) - facts) * looks).max(pools.total(but)) + SLACK <= threshold {
            return -threshold;
        }
        let pairs = self.linker.between(&a, &b);
        let mean = self.mean(pairs.iter().map(|pair| &pair.0), but);
        self.excess(&mean, [1.0, looks], threshold, || self.linker.pooled(&a, &b, &pairs), but)
    }

    /// Lets go of accounts that speak against the rest of their group, the worst first: of a large group several at a time.
    fn peel(&self, mut group: Vec<usize>) -> Vec<usize> {
        while group.len() > 1 {
            let mut against: Vec<(usize, f64)> =
                group.iter().map(|one| (*one, self.belonging(*one, &group, None))).filter(|one| one.1 < 0.0).collect();
            against.sort_by(|a, b| a.1.total_cmp(&b.1));
            against.truncate(if group.len() <= PEERS { 1 } else { group.len() / AT_A_TIME });
            if against.is_empty() {
                break;
            }
            group.retain(|one| !against.iter().any(|gone| gone.0 == *one));
        }
        group
    }

    /// Nats by which `one` belongs to the rest of `group`, above what that needs.
    pub(crate) fn belonging(&self, one: usize, group: &[usize], but: Option<&str>) -> f64 {
        let others: Vec<usize> = peers(one, group).collect();
        let pairs = self.linker.between(&[one], &others);
        let mean = self.mean(pairs.iter().map(|pair| &pair.0), but);
        let looks = looks(others.len());
        self.excess(
            &mean,
            [looks; 2],
            self.joining(&[one], others.len()),
            || self.linker.pooled(&[one], &others, &pairs),
            but,
        )
    }

    fn mean<'e>(&self, pairs: impl Iterator<Item = &'e Evidence>, but: Option<&str>) -> Mean {
        let mut mean = Mean::default();
        for evidence in pairs {
            let facts = evidence.facts(but);
            mean.facts += facts;
            mean.habits += evidence.total(but) - facts;
            mean.signals += usize::from(self.signals(evidence, but));
            mean.pairs += 1;
        }
        mean
    }

    /// Nats above `threshold`, by the pairs or, where these do not suffice, by the pools. `looks` are those at facts and at habits.
    fn excess(
        &self,
        mean: &Mean,
        looks: [f64; 2],
        threshold: f64,
        pooled: impl Fn() -> Evidence,
        but: Option<&str>,
    ) -> f64 {
        let nats = (mean.facts * looks[0] + mean.habits * looks[1]) / mean.pairs.max(1) as f64 - threshold;
        // Most pairs, or the pools, must show several kinds of evidence, or one kind could carry them all.
        if 2 * mean.signals > mean.pairs && nats > 0.0 {
            return nats;
        }
        let pooled = pooled();
        let by_pools = self.signals(&pooled, but);
        let bounded = |nats: f64, enough: bool| if enough { nats } else { nats.min(-f64::EPSILON) };
        let by_pairs = bounded(nats, by_pools || 2 * mean.signals > mean.pairs);
        by_pairs.max(bounded(pooled.total(but) - threshold, by_pools))
    }
}

/// Two groups that may be merged. The surest is the greatest, and among equals the one that stands first.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Merge {
    nats: f64,
    pair: (usize, usize),
}

impl Eq for Merge {}

impl Ord for Merge {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nats.total_cmp(&other.nats).then(other.pair.cmp(&self.pair))
    }
}

impl PartialOrd for Merge {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Evidence of several pairs, summed up.
#[derive(Debug, Default)]
struct Mean {
    facts: f64,
    habits: f64,
    signals: usize,
    pairs: usize,
}

/// For each group those with which its examined pairs speak most for being of one operator.
fn neighbours(found: &[Vec<usize>], examined: &Examined) -> Vec<BTreeSet<usize>> {
    let last = found.iter().flatten().max().map_or(0, |last| last + 1);
    let mut of = vec![None; last];
    for (group, accounts) in found.iter().enumerate() {
        accounts.iter().for_each(|account| of[*account] = Some(group));
    }
    let of = |account: usize| of.get(account).copied().flatten();
    let mut drawn: Vec<BTreeMap<usize, f64>> = vec![BTreeMap::new(); found.len()];
    for (a, b, nats) in &examined.edges {
        if let (Some(a), Some(b)) = (of(*a), of(*b))
            && a != b
        {
            let nats = (nats + FAR).max(0.0);
            *drawn[a].entry(b).or_default() += nats;
            *drawn[b].entry(a).or_default() += nats;
        }
    }
    let mut near = vec![BTreeSet::new(); found.len()];
    for (group, others) in drawn.into_iter().enumerate() {
        let mut others: Vec<(usize, f64)> = others.into_iter().filter(|other| other.1 > 0.0).collect();
        others.sort_by(|x, y| y.1.total_cmp(&x.1).then(x.0.cmp(&y.0)));
        for (other, _) in others.into_iter().take(NEAREST) {
            near[group].insert(other);
            near[other].insert(group);
        }
    }
    near
}

/// What the looks of a group of `size` accounts count together: more than one look, far fewer than `size` independent ones.
fn looks(size: usize) -> f64 {
    (size.clamp(1, 9) as f64).sqrt()
}

/// The accounts that `one` is weighed against: all others, or an even choice of them in a large group.
pub(crate) fn peers(one: usize, group: &[usize]) -> impl Iterator<Item = usize> {
    let most = (PASS / group.len().max(1)).clamp(FEWEST_PEERS, PEERS);
    thin(group, most).filter(move |other| *other != one)
}

/// An even choice of at most `most` members.
pub(crate) fn thin(group: &[usize], most: usize) -> impl Iterator<Item = usize> {
    group.iter().copied().step_by(group.len().div_ceil(most).max(1))
}
