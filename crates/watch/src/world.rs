//! Everything that was read, summed up: all that findings follow from.

use std::collections::{BTreeMap, HashMap};

use anbiq_domain::{AccountId, ClockKind, Entry, Grant, GrantId, Imported, Terms, TermsRef, Timestamp};
use serde::{Deserialize, Serialize};

use crate::alarm::Looks;
use crate::cells::Finder;
use crate::handover::Stops;
use crate::profile::{Observed, Profile};
use crate::{Config, Report, Seen};

/// Version of a state's shape.
const FORMAT: u32 = 4;

/// What `watch` remembers of a stream: bounded for each account, whatever its traffic.
///
/// It takes what is seen one by one, and reports at any moment. Written down and read again it goes on as if nothing had
/// happened, so a history that is read at once and a journal that is followed for weeks give the same report to the byte.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct State {
    format: u32,
    config: Config,
    world: World,
}

impl State {
    /// Nothing was seen yet.
    pub fn new(config: Config) -> Self {
        Self { format: FORMAT, config, world: World::default() }
    }

    /// Can this state be gone on with under `config`? Another version's, or one under other assumptions, cannot. The number of
    /// threads is none.
    pub fn continues(&self, config: &Config) -> bool {
        self.format == FORMAT && Config { threads: config.threads, ..self.config.clone() } == *config
    }

    /// Takes in what comes next.
    pub fn take(&mut self, seen: impl Into<Seen>) {
        let seen = seen.into();
        if let Seen::Entry(Entry::Exchange(exchange)) = &seen {
            self.world.pass(exchange.at, &self.config);
        }
        match seen {
            Seen::Entry(entry) => self.world.take(entry, &self.config),
            Seen::Imported(row) => self.world.take_imported(row, &self.config),
        }
    }

    /// What is found by now. Reporting changes nothing of what is found later.
    pub fn report(&mut self) -> Report {
        self.world.settle();
        crate::campaign::report(&self.world, &self.config)
    }

    /// Accounts that are remembered.
    pub fn accounts(&self) -> usize {
        self.world.profiles.len()
    }

    /// Looks that were taken: moments at which accounts were grouped and alarms given.
    pub fn looks(&self) -> u64 {
        self.world.looks.taken
    }
}

/// The accounts, and what they are judged by.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct World {
    pub(crate) profiles: Vec<Profile>,
    #[serde(with = "crate::profile::pairs")]
    pub(crate) terms: BTreeMap<TermsRef, Terms>,
    pub(crate) teachers: BTreeMap<String, TermsRef>,
    pub(crate) grants: BTreeMap<GrantId, HeldGrant>,
    pub(crate) simulated: bool,
    pub(crate) first: Timestamp,
    pub(crate) last: Timestamp,
    pub(crate) refusals: u64,
    /// Exchanges that other systems' logs tell of.
    pub(crate) imported: u64,
    /// Those of them that came without a sketch.
    pub(crate) unsketched: u64,
    pub(crate) looks: Looks,
    finder: Finder,
    stops: Stops,
    /// Where the profile of an account stands; made anew where it is missing.
    #[serde(skip)]
    index: HashMap<AccountId, usize>,
}

/// A grant and when it was taken back.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct HeldGrant {
    pub(crate) grant: Grant,
    pub(crate) revoked: Option<Timestamp>,
}

impl World {
    /// Brings the accounts into the order in which they are judged, and says when they were active.
    pub(crate) fn settle(&mut self) {
        self.first = self.profiles.iter().filter_map(|profile| profile.first).min().unwrap_or_default();
        self.last = self.profiles.iter().filter_map(|profile| profile.last).max().unwrap_or_default();
        self.profiles.sort_by(|a, b| a.account.cmp(&b.account));
        self.index.clear();
    }

    /// The time has come to `at`: takes a look beforehand if one is due.
    fn pass(&mut self, at: Timestamp, config: &Config) {
        if let Some(alarms) = &config.alarms
            && self.looks.due(at, alarms)
        {
            self.settle();
            self.look(at, config, alarms);
        }
        self.looks.passed(at);
    }

    pub(crate) fn take(&mut self, entry: Entry, config: &Config) {
        match entry {
            Entry::Opened { clock, .. } => self.simulated |= clock == ClockKind::Simulated,
            Entry::TermsIssued { terms, .. } => {
                self.teachers.insert(terms.teacher.clone(), terms.reference());
                self.terms.insert(terms.reference(), terms);
            }
            Entry::AccountOpened { at, account, payment, .. } => {
                let place = self.place(&account, config);
                let profile = &mut self.profiles[place];
                // It may be written down again by whoever declares it, who knows less; it was opened once.
                profile.opened = profile.opened.or(Some(at));
                profile.payment = payment.or(profile.payment);
            }
            Entry::GrantGiven { grant } => {
                self.grants.insert(grant.id.clone(), HeldGrant { grant, revoked: None });
            }
            Entry::GrantRevoked { at, grant } => {
                if let Some(held) = self.grants.get_mut(&grant) {
                    held.revoked = Some(at);
                }
            }
            Entry::Exchange(exchange) => {
                let place = self.place(&exchange.account, config);
                let profile = &mut self.profiles[place];
                profile.uses(&exchange.model, exchange.at);
                self.stops.begin(exchange.at, profile);
                let explained = explained(&self.grants, exchange.grant.as_ref(), profile, exchange.at);
                profile.observe(&Observed::of(&exchange), explained, config.samples, &mut self.finder);
            }
            Entry::Refused(refusal) => {
                self.refusals += 1;
                if let Some(place) = self.known(&refusal.account) {
                    self.stops.refuse(&refusal, &mut self.profiles[place]);
                }
            }
            Entry::CoinsCommitted { .. }
            | Entry::PricesSet { .. }
            | Entry::TermsAccepted { .. }
            | Entry::GrantAsked { .. }
            | Entry::GrantRefused { .. }
            | Entry::Administered(_)
            | Entry::TwinsDrawn(_)
            | Entry::CanariesDrawn { .. }
            | Entry::TwinsStopped { .. }
            | Entry::TextsForgotten { .. }
            | Entry::Closed { .. } => {}
        }
    }

    fn take_imported(&mut self, row: Imported, config: &Config) {
        match row {
            Imported::Account { account, opened, payment } => {
                let place = self.place(&account, config);
                let profile = &mut self.profiles[place];
                profile.opened = opened.or(profile.opened);
                profile.payment = payment.or(profile.payment);
            }
            Imported::Exchange(exchange) => {
                self.imported += 1;
                self.unsketched += u64::from(exchange.sketch.is_none());
                let place = self.place(&exchange.account, config);
                let profile = &mut self.profiles[place];
                if let Some(model) = &exchange.model {
                    profile.uses(model, exchange.at);
                }
                profile.observe(&Observed::of_imported(&exchange), false, config.samples, &mut self.finder);
            }
            Imported::Refused { .. } => self.refusals += 1,
        }
    }

    /// Where the profile of `account` stands, if it was seen before.
    fn known(&mut self, account: &AccountId) -> Option<usize> {
        if self.index.len() != self.profiles.len() {
            self.index = self.profiles.iter().map(|profile| profile.account.clone()).zip(0..).collect();
        }
        self.index.get(account).copied()
    }

    /// Where the profile of `account` stands; it gets one where it has none.
    fn place(&mut self, account: &AccountId, config: &Config) -> usize {
        self.known(account).unwrap_or_else(|| {
            self.profiles.push(Profile::new(account.clone(), config));
            self.index.insert(account.clone(), self.profiles.len() - 1);
            self.profiles.len() - 1
        })
    }
}

/// Does a grant explain the next exchange of an account: is it under one that holds, within its volume?
fn explained(grants: &BTreeMap<GrantId, HeldGrant>, grant: Option<&GrantId>, profile: &Profile, at: Timestamp) -> bool {
    let Some(held) = grant.and_then(|grant| grants.get(grant)) else { return false };
    let used = profile.granted_tokens.get(&held.grant.id).copied().unwrap_or(0);
    let ends = [held.grant.expires, held.revoked].into_iter().flatten().min();
    held.grant.account == profile.account
        && ends.is_none_or(|end| at < end)
        && held.grant.conditions.max_output_tokens.is_none_or(|bound| used <= bound)
}
