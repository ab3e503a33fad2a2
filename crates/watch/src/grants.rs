//! Which grants explain what some accounts do.

use anbiq_domain::GrantId;

use crate::profile::Profile;
use crate::world::World;

/// Share of an account's exchanges that must stand under a grant for the grant to explain it.
const COVERED: f64 = 0.95;

/// What grants say about some accounts.
#[derive(Debug, Default)]
pub(crate) struct Grants {
    pub(crate) held: Vec<GrantId>,
    pub(crate) used: u64,
    pub(crate) allowed: Option<u64>,
    pub(crate) covers_all: bool,
    pub(crate) faults: Vec<String>,
    /// What speaks against it where what the accounts do looks like a harvest: use of the holder's outside of the grant, at another
    /// price, and accounts that nobody declared.
    pub(crate) beyond: Vec<String>,
}

impl Grants {
    pub(crate) fn of(accounts: &[&Profile], world: &World) -> Self {
        let mut this = Self { covers_all: true, ..Self::default() };
        let mut bounds = Vec::new();
        let mut undeclared = 0;
        for account in accounts {
            let share = account.granted_exchanges as f64 / account.exchanges.max(1) as f64;
            this.covers_all &= share >= COVERED;
            let holds = world.grants.values().any(|held| held.grant.account == account.account);
            if holds && share < COVERED {
                let (name, outside) = (&account.account, account.exchanges - account.granted_exchanges);
                let of = account.exchanges;
                this.beyond
                    .push(format!("{name} made {outside} of {of} exchanges outside of its grant, at another price"));
            }
            undeclared += usize::from(!holds);
            for held in world.grants.values().filter(|held| held.grant.account == account.account) {
                let used = account.granted_tokens.get(&held.grant.id).copied().unwrap_or(0);
                let bound = held.grant.conditions.max_output_tokens;
                this.used += used;
                this.held.push(held.grant.id.clone());
                bounds.push(bound);
                let (name, id) = (&account.account, &held.grant.id);
                if let Some(bound) = bound.filter(|bound| used > *bound) {
                    this.faults.push(format!("{name} took {used} tokens under grant {id}, which allows {bound}"));
                }
                let ends = [held.grant.expires, held.revoked].into_iter().flatten().min();
                if let Some(end) = ends.filter(|end| account.last.is_some_and(|last| last >= *end) && share < COVERED) {
                    this.faults.push(format!("{name} went on after grant {id} ended at {end}"));
                }
            }
        }
        if !this.held.is_empty() && undeclared > 0 {
            let all = accounts.len();
            this.beyond.push(format!("{undeclared} of {all} linked accounts are not declared under a grant"));
        }
        this.allowed = bounds.into_iter().collect::<Option<Vec<u64>>>().map(|bounds| bounds.iter().sum());
        this
    }

    /// Do they explain all that these accounts do?
    pub(crate) fn explain(&self) -> bool {
        !self.held.is_empty() && self.covers_all && self.faults.is_empty()
    }
}
