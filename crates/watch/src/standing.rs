//! What follows for an operator: nothing, a look by a person, or an accusation.

use std::collections::BTreeMap;

use anbiq_domain::{Permission, TermsRef, Timestamp};

use crate::campaign::Desk;
use crate::gather::Tie;
use crate::grants::Grants;
use crate::lockstep::{Steps, on_a_timer};
use crate::profile::{Profile, Timeline};
use crate::purpose::spread;
use crate::report::{Archetype, Bucket, Campaign, Purpose, Standing, Survival};

/// Share of an operator's accounts that must remain linked whatever one kind of evidence is left out.
const SURVIVES: f64 = 0.5;
/// Nats by which a harvest must fit better where something honest explains much of it: that accounts openly are one customer's, or that
/// a timer starts what an account does, which over months is as even and as varied as a harvest.
const EXPLAINED: f64 = 1.0;
/// Share of the accounts of an operator that is not paid for by its usual means, up to which they openly are one customer's.
const OPENLY: f64 = 0.2;

/// What terms say of a harvest.
#[derive(Debug, PartialEq)]
pub(crate) enum Breach {
    None,
    Silent,
    Against(TermsRef, Permission, String),
}

impl Desk<'_> {
    /// What follows for linked accounts, or for one, from what they are used for, what holds them together, terms and grants.
    pub(crate) fn standing(&self, accounts: &[&Profile], purpose: &Purpose, survival: &[Survival]) -> Standing {
        let grants = Grants::of(accounts, self.world);
        if grants.explain() {
            return Standing::WithinGrant { grants: grants.held, used: grants.used, allowed: grants.allowed };
        }
        let mut why = grants.faults;
        if purpose.archetype == Archetype::Harvest {
            why.extend(grants.beyond);
        }
        let exchanges: u64 = accounts.iter().map(|account| account.exchanges).sum();
        // Who openly is one customer is one, however many accounts that are.
        let openly = spread(accounts).is_some_and(|spread| spread <= OPENLY);
        let many = accounts.len() >= self.config.min_accounts;
        let explained = if many || accounts.iter().all(|account| on_a_timer(account)) { EXPLAINED } else { 0.0 };
        match purpose.archetype {
            Archetype::Harvest if many && !openly => match self.breach(accounts) {
                Breach::None => {}
                Breach::Silent => {
                    why.push("a harvest over several accounts, but no terms that speak of it are journalled".into());
                }
                Breach::Against(terms, permission, breach) => {
                    let weak = survival.iter().filter(|one| one.linked < SURVIVES);
                    let weak: Vec<&str> = weak.map(|one| one.without.as_str()).collect();
                    if weak.is_empty() {
                        return Standing::Campaign(Box::new(started(accounts, terms, permission, breach)));
                    }
                    why.push(format!(
                        "a harvest over {} accounts, but their link breaks if any one of these signals is left out: {}",
                        accounts.len(),
                        weak.join(", ")
                    ));
                }
            },
            Archetype::Harvest
                if exchanges >= self.config.review_exchanges
                    && purpose.score >= self.config.harvest_margin + explained
                    && self.breach(accounts) != Breach::None =>
            {
                let words = if many {
                    "nearly all are paid for by one means, so nobody hides that they are one customer's"
                } else {
                    "they are too few for a campaign"
                };
                why.push(format!(
                    "looks like a harvest of {exchanges} exchanges over {} accounts, but {words}",
                    accounts.len()
                ));
            }
            Archetype::Unknown if many && !openly && exchanges >= self.config.review_exchanges => {
                why.push(format!("{} linked accounts whose use fits no known kind", accounts.len()));
            }
            _ => {}
        }
        if why.is_empty() { Standing::Unremarkable } else { Standing::Review { why } }
    }

    /// What the terms say of a harvest by some accounts.
    pub(crate) fn breach(&self, accounts: &[&Profile]) -> Breach {
        let mut accepted: BTreeMap<&TermsRef, u64> = BTreeMap::new();
        accounts
            .iter()
            .flat_map(|account| &account.terms)
            .for_each(|(terms, count)| *accepted.entry(terms).or_default() += count);
        let most = accepted.iter().max_by_key(|(_, count)| **count).map(|(terms, _)| (*terms).clone());
        let offered = || {
            accounts
                .iter()
                .flat_map(|account| account.models.keys())
                .find_map(|model| self.world.teachers.get(model))
                .cloned()
        };
        let Some(reference) = most.or_else(offered) else { return Breach::Silent };
        let Some(terms) = self.world.terms.get(&reference) else { return Breach::Silent };
        let said = format!("the terms {} (version {})", reference.id, reference.version);
        match terms.distillation {
            Permission::Allowed | Permission::Conditions => Breach::None,
            Permission::Unknown => Breach::Silent,
            Permission::Forbidden => {
                Breach::Against(reference, Permission::Forbidden, format!("{said} forbid distillation"))
            }
            Permission::GrantRequired => {
                let without = accounts.iter().filter(|account| account.granted_exchanges == 0).count();
                let breach = format!("{said} require a grant, and {without} of {} accounts have none", accounts.len());
                Breach::Against(reference, Permission::GrantRequired, breach)
            }
        }
    }
}

/// What follows for accounts that nothing links but what they ask; `None` of linked ones.
pub(crate) fn unlinked(accounts: &[&Profile], tie: Tie) -> Option<Standing> {
    let what = match tie {
        Tie::Linked => return None,
        Tie::Alike => "ask alike, and together as no honest customer does",
        Tie::Besides => {
            "talk, though not as people do, and ask besides for what people hardly ask for and no conversation goes on with"
        }
    };
    let exchanges: u64 = accounts.iter().map(|account| account.exchanges).sum();
    let why = format!(
        "{} accounts {what}, {exchanges} exchanges in all; nothing else links them, and one kind of evidence accuses nobody",
        accounts.len()
    );
    Some(Standing::Review { why: vec![why] })
}

/// Accounts that a machine paces as it does many others, if most of `group` are.
pub(crate) fn in_step(group: &[usize], steps: &Steps) -> Standing {
    let company: Vec<usize> = group.iter().filter_map(|one| steps.get(one).copied()).collect();
    let Some(most) = company.iter().max().filter(|_| 2 * company.len() >= group.len()) else {
        return Standing::Unremarkable;
    };
    let why = format!(
        "{most} accounts keep one rate, evenly and round the clock, and do not ask as applications do; nothing says whose they are, and that accuses nobody"
    );
    Standing::Review { why: vec![why] }
}

fn started(accounts: &[&Profile], terms: TermsRef, permission: Permission, breach: String) -> Campaign {
    let mut timeline = Timeline::default();
    accounts.iter().for_each(|account| timeline.merge(&account.timeline));
    let milliseconds = timeline.width;
    let bucket = |(place, (exchanges, output_tokens)): (i64, (u64, u64))| Bucket {
        from: Timestamp::from_milliseconds(place * milliseconds),
        milliseconds,
        exchanges,
        output_tokens,
    };
    Campaign {
        terms,
        permission,
        breach,
        started: accounts.iter().filter_map(|account| account.first).min().unwrap_or_default(),
        timeline: timeline.buckets.into_iter().map(bucket).collect(),
        leaked: None,
        counter: Vec::new(),
    }
}
