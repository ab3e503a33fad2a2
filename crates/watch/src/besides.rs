//! Accounts that talk, though not as people do, and ask for one thing besides.
//!
//! Whoever hides a harvest among innocent conversations shows little of it in each account: of a hundred prompts five are not enough to
//! link two of them. All of them together show it. So the accounts that converse and are strange for people, who have nights, are taken
//! as one, and in every other prompt of each it is sought for what they ask far more often than people do. What a group rests on is that
//! the other half of their prompts, which had no part in that, asks for it too, in far more accounts than people's do.
//!
//! That they are strange chose them and counts for nothing else. What they ask besides must not be talk, nor a few moulds, nor the same
//! again; and accounts that one means pays for count once, since the people of a firm share its templates.

use std::collections::{BTreeMap, BTreeSet};

use anbiq_domain::Keyed;
use anbiq_statistics::special::gammaincc;

use crate::alike::{FEW, Oddity};
use crate::campaign::Desk;
use crate::cells::tally;
use crate::fit::chance;
use crate::profile::Asked;
use crate::purpose::{FRESH, kinds};

/// Fewest accounts of people that say what people ask.
const PEOPLE: usize = 50;
/// Fewest customers that ask for a kind of prompt besides.
const ASKERS: usize = 3;
/// Nats that speak against chance from which a kind is one that people ask for less.
const STRIKING: f64 = 3.0;
/// Share of people's accounts that ask for such kinds so often that it is told from people's.
const FEW_PEOPLE: f64 = 0.2;
/// How many times as many accounts as chance gives must ask for them so often.
const TIMES: f64 = 2.0;
/// How often what they ask besides goes on with a conversation at most, as a share of how often what people have in common does.
const TALK: f64 = 0.5;
/// Nats by which what an account asks must speak for its being one of those who ask so, rather than of people.
const ONE_OF_THEM: f64 = 1.0;
/// Most of it that may be one customer's.
const ONE_CUSTOMER: f64 = 0.25;

/// The customers of some accounts: by the means of payment, or by the account where that is not known.
type Customer = (Option<Keyed>, usize);

impl Desk<'_> {
    /// Those of `free` accounts that ask for one thing besides their conversations, where anything shows it. Whoever is `held` by another group is
    /// none of them, and says nothing of what people ask.
    pub(crate) fn besides(&self, free: &[usize], held: &BTreeSet<usize>) -> Option<Vec<usize>> {
        let talks =
            |one: &usize| !held.contains(one) && self.profiles[*one].converses() && !self.cells.kinds[*one].is_empty();
        let is_strange = |one: &usize| self.oddities[*one] >= Oddity::Strange;
        let strange: Vec<usize> = free.iter().copied().filter(|one| is_strange(one) && talks(one)).collect();
        let people: Vec<usize> = (0..self.profiles.len()).filter(|one| !is_strange(one) && talks(one)).collect();
        if strange.len() < self.config.min_accounts || people.len() < PEOPLE {
            return None;
        }
        let sought = self.asked_more(&strange, &people);
        if self.confirmed(&sought, &strange, &people) <= (strange.len() as f64).ln() + self.config.margin {
            return None;
        }
        let found = self.who_asks(&sought, &strange, &people);
        self.is_no_talk(&sought, &found, &people).then_some(found)
    }

    /// What the samples of an account ask, each with its kind.
    fn asked(&self, one: usize) -> Vec<(usize, Asked)> {
        self.cells.kinds[one].iter().copied().zip(self.profiles[one].sketches().copied()).collect()
    }

    /// One half of the kinds of an account's prompts.
    fn half(&self, one: usize, odd: usize) -> impl Iterator<Item = usize> {
        self.cells.kinds[one].iter().copied().skip(odd).step_by(2)
    }

    fn customer(&self, one: usize) -> Customer {
        match self.profiles[one].payment {
            Some(payment) => (Some(payment), 0),
            None => (None, one),
        }
    }

    /// By kind, how many customers ask for it in the first half of their prompts, and how many prompts these halves are.
    fn askers(&self, accounts: &[usize]) -> (BTreeMap<usize, usize>, f64) {
        let mut met = BTreeSet::new();
        let mut prompts = 0;
        for one in accounts {
            let customer = self.customer(*one);
            for kind in self.half(*one, 0) {
                met.insert((kind, customer));
                prompts += 1;
            }
        }
        let askers = tally(met.into_iter().map(|(kind, _)| kind)).into_iter();
        (askers.map(|(kind, count)| (kind, count as usize)).collect(), f64::from(prompts))
    }

    /// Kinds of prompts for which the `strange` ask more than `people` do. What nobody else ever asked is no kind.
    fn asked_more(&self, strange: &[usize], people: &[usize]) -> BTreeSet<usize> {
        let ((theirs, prompts), (usual, all)) = (self.askers(strange), self.askers(people));
        let more = |(kind, askers): (usize, usize)| {
            // One more than are seen: that none was seen does not show that there are none.
            let expected = (usual.get(&kind).copied().unwrap_or(0) + 1) as f64 * prompts / all.max(1.0);
            let striking = askers >= ASKERS && chance(askers as f64, expected) >= STRIKING;
            (striking && kind < self.cells.count).then_some(kind)
        };
        theirs.into_iter().filter_map(more).collect()
    }

    /// Nats against chance that so many of the `strange` ask for the kinds that are `sought` in the other half of their prompts: so often as
    /// few people do.
    ///
    /// Chance lets each of their prompts be one of them as often as people's, and as much more of them ask often as people keep to
    /// kinds of their own.
    fn confirmed(&self, sought: &BTreeSet<usize>, strange: &[usize], people: &[usize]) -> f64 {
        let [strange, people] = [strange, people].map(|accounts| self.hits(sought, accounts));
        let sum = |of: fn(&(u32, u32)) -> u32| f64::from(1 + people.iter().map(of).sum::<u32>());
        let rate = sum(|customer| customer.0) / sum(|customer| customer.1);
        let often = |all: &[(u32, u32)], times: u32| all.iter().filter(|customer| customer.0 >= times).count() as f64;
        let by_chance = |all: &[(u32, u32)], times: u32| -> f64 {
            // Poisson: so many or more.
            all.iter().map(|customer| 1.0 - gammaincc(f64::from(times), rate * f64::from(customer.1))).sum()
        };
        let few = |times: &u32| often(&people, *times) <= FEW_PEOPLE * people.len() as f64;
        let Some(times) = (1..=self.config.samples as u32).find(few) else { return 0.0 };
        let kept_to = ((often(&people, times) + 1.0) / by_chance(&people, times)).max(1.0);
        let (seen, expected) = (often(&strange, times), kept_to * by_chance(&strange, times));
        if seen >= TIMES * expected { chance(seen, expected) } else { 0.0 }
    }

    /// For each customer how many prompts of that half ask for what is sought, and how many there are.
    fn hits(&self, sought: &BTreeSet<usize>, accounts: &[usize]) -> Vec<(u32, u32)> {
        let mut customers: BTreeMap<Customer, (u32, u32)> = BTreeMap::new();
        for one in accounts {
            let (hits, prompts) = customers.entry(self.customer(*one)).or_default();
            for kind in self.half(*one, 1) {
                *hits += u32::from(sought.contains(&kind));
                *prompts += 1;
            }
        }
        customers.into_values().collect()
    }

    /// How often one half of the prompts of some accounts asks for what is sought; never 0.
    fn rate(&self, sought: &BTreeSet<usize>, accounts: &[usize], odd: usize) -> f64 {
        let (mut hits, mut all) = (1, 1);
        for kind in accounts.iter().flat_map(|one| self.half(*one, odd)) {
            hits += u32::from(sought.contains(&kind));
            all += 1;
        }
        f64::from(hits) / f64::from(all)
    }

    /// Those of the `strange` that what they ask shows to be of those who ask for it, rather than people.
    fn who_asks(&self, sought: &BTreeSet<usize>, strange: &[usize], people: &[usize]) -> Vec<usize> {
        let rates = |accounts: &[usize]| (self.rate(sought, accounts, 0) + self.rate(sought, accounts, 1)) / 2.0;
        let (theirs, usual) = (rates(strange), rates(people));
        let asks = |one: &usize| {
            let kinds = &self.cells.kinds[*one];
            let hits = kinds.iter().filter(|kind| sought.contains(kind)).count() as f64;
            // Poisson.
            hits * (theirs / usual).ln() - (theirs - usual) * kinds.len() as f64 > ONE_OF_THEM
        };
        strange.iter().copied().filter(asks).collect()
    }

    /// How often what people have in common goes on with a conversation.
    fn talk(&self, people: &[usize]) -> f64 {
        let (mut deep, mut all) = (0, 1);
        for (kind, asked) in people.iter().flat_map(|one| self.asked(*one)) {
            let common = u32::from(kind < self.cells.count);
            deep += common * u32::from(asked.deep);
            all += common;
        }
        f64::from(deep) / f64::from(all)
    }

    /// Is what the accounts of a group ask besides of many kinds, new each time, asked by many customers, and no talk?
    fn is_no_talk(&self, sought: &BTreeSet<usize>, group: &[usize], people: &[usize]) -> bool {
        let mut all: Vec<(usize, Asked)> = Vec::new();
        let mut customers: BTreeMap<Customer, usize> = BTreeMap::new();
        for one in group {
            let before = all.len();
            all.extend(self.asked(*one).into_iter().filter(|(kind, _)| sought.contains(kind)));
            *customers.entry(self.customer(*one)).or_default() += all.len() - before;
        }
        let count = all.len() as f64;
        let deep = all.iter().filter(|(_, asked)| asked.deep).count() as f64;
        let new = all.iter().map(|(_, asked)| asked.exact).collect::<BTreeSet<_>>().len() as f64;
        let most = customers.values().max().copied().unwrap_or(0) as f64;
        customers.len() >= self.config.min_accounts
            && deep <= TALK * self.talk(people) * count
            && new >= FRESH * count
            && most <= ONE_CUSTOMER * count
            && kinds(&all.iter().map(|(kind, _)| *kind).collect::<Vec<_>>()) >= FEW
    }
}
