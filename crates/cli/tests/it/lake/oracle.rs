//! The same answers without SQL: computed in plain Rust from the entries and rows themselves, as CSV.

use std::collections::{BTreeMap, BTreeSet};

use anbiq_domain::{Entry, Imported, Keyed, Outcome, Timestamp};

const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;

/// What is known of a history.
#[derive(Default)]
pub(crate) struct History {
    exchanges: Vec<Fact>,
    /// When, whose, and with which code.
    refusals: Vec<(i64, String, Option<String>)>,
    /// When it was opened, and its means of payment.
    accounts: BTreeMap<String, (Option<i64>, Option<u64>)>,
}

/// An exchange.
struct Fact {
    imported: bool,
    index: usize,
    at: i64,
    account: String,
    model: Option<String>,
    grant: Option<String>,
    prompt: Option<u64>,
    template: Option<u64>,
    network: Option<u64>,
    address: Option<u64>,
    agent: Option<u64>,
    read: Option<u64>,
    cached: Option<u64>,
    said: Option<u64>,
    twin: Option<u64>,
    cost: Option<i64>,
    failed: bool,
}

/// What a question is asked with.
pub(crate) struct Given {
    pub(crate) since: i64,
    pub(crate) until: i64,
    pub(crate) account: &'static str,
    pub(crate) accounts: usize,
    pub(crate) holders: usize,
    pub(crate) times: usize,
}

impl Default for Given {
    fn default() -> Self {
        Self { since: 0, until: i64::MAX, account: "", accounts: 2, holders: 10, times: 2 }
    }
}

impl History {
    pub(crate) fn entries(&mut self, entries: Vec<Entry>) {
        for (index, entry) in entries.into_iter().enumerate() {
            match entry {
                Entry::AccountOpened { at, account, payment, .. } => {
                    self.open(account.as_str(), Some(at), payment);
                }
                Entry::Refused(refusal) => {
                    let account = refusal.account.as_str().to_owned();
                    self.refusals.push((refusal.at.milliseconds(), account, Some(refusal.code)));
                }
                Entry::Exchange(exchange) => self.exchanges.push(Fact {
                    imported: false,
                    index,
                    at: exchange.at.milliseconds(),
                    account: exchange.account.as_str().to_owned(),
                    model: Some(exchange.model),
                    grant: exchange.grant.map(|grant| grant.as_str().to_owned()),
                    prompt: Some(exchange.sketch.exact.0),
                    template: Some(exchange.sketch.opening.0),
                    network: Some(exchange.client.network.0),
                    address: Some(exchange.client.address.0),
                    agent: Some(exchange.client.agent.0),
                    read: Some(exchange.usage.prompt_tokens),
                    cached: Some(exchange.usage.cached_tokens),
                    said: Some(exchange.usage.completion_tokens),
                    twin: Some(exchange.usage.twin_tokens),
                    cost: Some(exchange.cost.nanos()),
                    failed: matches!(exchange.outcome, Outcome::Failed { .. }),
                }),
                _ => {}
            }
        }
    }

    pub(crate) fn imported(&mut self, rows: Vec<Imported>) {
        for (index, row) in rows.into_iter().enumerate() {
            match row {
                Imported::Account { account, opened, payment } => self.open(account.as_str(), opened, payment),
                Imported::Refused { at, account } => {
                    self.refusals.push((at.milliseconds(), account.as_str().to_owned(), None));
                }
                Imported::Exchange(row) => self.exchanges.push(Fact {
                    imported: true,
                    index,
                    at: row.at.milliseconds(),
                    account: row.account.as_str().to_owned(),
                    model: row.model,
                    grant: None,
                    prompt: row.sketch.as_ref().map(|sketch| sketch.exact.0),
                    template: row.sketch.as_ref().map(|sketch| sketch.opening.0),
                    network: row.network.map(|hash| hash.0),
                    address: row.address.map(|hash| hash.0),
                    agent: row.agent.map(|hash| hash.0),
                    read: row.usage.map(|usage| usage.prompt_tokens),
                    cached: row.usage.map(|usage| usage.cached_tokens),
                    said: row.usage.map(|usage| usage.completion_tokens),
                    twin: None,
                    cost: row.cost.map(|cost| cost.nanos()),
                    failed: row.failed,
                }),
            }
        }
    }

    fn open(&mut self, account: &str, at: Option<Timestamp>, payment: Option<Keyed>) {
        let known = self.accounts.entry(account.to_owned()).or_default();
        known.0 = [known.0, at.map(Timestamp::milliseconds)].into_iter().flatten().min();
        known.1 = [known.1, payment.map(|hash| hash.0)].into_iter().flatten().min();
    }

    /// The CSV that answers the question of this name.
    pub(crate) fn answer(&self, name: &str, given: &Given) -> String {
        let (columns, rows) = match name {
            "accounts" => self.of_accounts(given),
            "days" => self.of_days(given),
            "grants" => self.of_grants(given),
            "handovers" => self.of_handovers(given),
            "hours" => self.of_hours(given),
            "models" => self.of_models(given),
            "networks" => self.of_networks(given),
            "openings" => self.of_openings(given),
            "payments" => self.of_payments(given),
            "repeats" => self.of_repeats(given),
            "shared" => self.of_shared(given),
            "spread" => self.of_spread(given),
            "templates" => self.of_templates(given),
            "usage" => self.of_usage(given),
            other => panic!("nobody has worked `{other}` out"),
        };
        let lines = rows.iter().map(|row| format!("{}\r\n", row.join(",")));
        format!("{columns}\r\n{}", lines.collect::<String>())
    }

    fn within(&self, given: &Given) -> impl Iterator<Item = &Fact> {
        let (since, until) = (given.since, given.until);
        self.exchanges.iter().filter(move |fact| (since..until).contains(&fact.at))
    }

    fn of_account<'a>(&'a self, given: &'a Given) -> impl Iterator<Item = &'a Fact> {
        self.within(given).filter(|fact| given.account.is_empty() || fact.account == given.account)
    }

    fn of_accounts(&self, given: &Given) -> Answer {
        let rows = group(self.of_account(given), |fact| fact.account.clone());
        let rows = rows.into_iter().map(|(account, facts)| {
            let opened = self.accounts.get(&account).copied().unwrap_or_default();
            let refused = self
                .refusals
                .iter()
                .filter(|(at, whose, _)| *whose == account && (given.since..given.until).contains(at));
            vec![
                account.clone(),
                moment(opened.0),
                hash(opened.1),
                moment(first(&facts)),
                moment(last(&facts)),
                facts.len().to_string(),
                refused.count().to_string(),
                different(&facts, |fact| fact.prompt).to_string(),
                different(&facts, |fact| fact.template).to_string(),
                different(&facts, |fact| fact.network).to_string(),
                different(&facts, |fact| fact.address).to_string(),
                different(&facts, |fact| fact.agent).to_string(),
                sum(&facts, |fact| fact.read),
                sum(&facts, |fact| fact.said),
                cost(&facts),
            ]
        });
        let columns = "account,opened,payment,first,last,exchanges,refused,prompts,templates,networks,addresses,agents,\
                       prompt_tokens,completion_tokens,cost_nanodollars";
        (columns, rows.collect())
    }

    fn of_days(&self, given: &Given) -> Answer {
        let rows = group(self.within(given), |fact| fact.at.div_euclid(DAY)).into_iter().map(|(date, facts)| {
            vec![
                day(date),
                accounts(&facts).to_string(),
                facts.len().to_string(),
                sum(&facts, |fact| fact.read),
                sum(&facts, |fact| fact.said),
                sum(&facts, |fact| fact.twin),
                cost(&facts),
                facts.iter().filter(|fact| fact.failed).count().to_string(),
            ]
        });
        ("day,accounts,exchanges,prompt_tokens,completion_tokens,twin_tokens,cost_nanodollars,failed", rows.collect())
    }

    fn of_grants(&self, given: &Given) -> Answer {
        let granted = self.within(given).filter(|fact| fact.grant.is_some());
        let rows = group(granted, |fact| (fact.grant.clone(), fact.account.clone(), fact.model.clone()));
        let rows = rows.into_iter().map(|((grant, account, model), facts)| {
            vec![
                grant.unwrap_or_default(),
                account,
                model.unwrap_or_default(),
                facts.len().to_string(),
                different(&facts, |fact| fact.prompt).to_string(),
                sum(&facts, |fact| fact.read),
                sum(&facts, |fact| fact.said),
                cost(&facts),
                moment(first(&facts)),
                moment(last(&facts)),
            ]
        });
        let columns =
            "grant,account,model,exchanges,prompts,prompt_tokens,completion_tokens,cost_nanodollars,first,last";
        (columns, rows.collect())
    }

    fn of_handovers(&self, given: &Given) -> Answer {
        let limits =
            ["rate_limit_exceeded", "concurrency_limit_exceeded", "account_budget_exceeded", "key_budget_exceeded"];
        let mut in_order: Vec<&Fact> = self.within(given).collect();
        in_order.sort_by_key(|fact| (fact.at, fact.imported, fact.index));
        let (mut before, mut begins) = (BTreeMap::<&str, i64>::new(), Vec::<(i64, &str)>::new());
        for fact in in_order {
            let last = before.insert(&fact.account, fact.at);
            if last.is_none_or(|last| fact.at - last >= 600_000) {
                begins.push((fact.at, &fact.account));
            }
        }
        let mut pairs = BTreeMap::<(&str, &str), BTreeSet<i64>>::new();
        for (at, stopped, code) in &self.refusals {
            let counts = code.as_ref().is_none_or(|code| limits.contains(&code.as_str()));
            if !counts || !(given.since..given.until).contains(at) {
                continue;
            }
            for (begin, began) in &begins {
                if (0..=3000).contains(&(begin - at)) && began != stopped {
                    pairs.entry((stopped, began)).or_default().insert(*begin);
                }
            }
        }
        let mut rows: Vec<_> = pairs.into_iter().filter(|(_, times)| times.len() >= given.times).collect();
        rows.sort_by_key(|(pair, times)| (std::cmp::Reverse(times.len()), *pair));
        let rows = rows.into_iter().map(|((stopped, began), times)| {
            let ends = (times.first().copied(), times.last().copied());
            vec![stopped.to_owned(), began.to_owned(), times.len().to_string(), moment(ends.0), moment(ends.1)]
        });
        ("stopped,began,times,first,last", rows.collect())
    }

    fn of_hours(&self, given: &Given) -> Answer {
        let rows = group(self.of_account(given), |fact| (fact.account.clone(), fact.at.div_euclid(HOUR) % 24));
        let rows =
            rows.into_iter().map(|((account, hour), facts)| vec![account, hour.to_string(), facts.len().to_string()]);
        ("account,hour,exchanges", rows.collect())
    }

    fn of_models(&self, given: &Given) -> Answer {
        // What is not told comes last.
        let model = |fact: &Fact| (fact.model.is_none(), fact.model.clone().unwrap_or_default());
        let rows = group(self.of_account(given), |fact| (fact.account.clone(), model(fact)));
        let rows = rows.into_iter().map(|((account, (_, model)), facts)| {
            vec![
                account,
                model,
                facts.len().to_string(),
                sum(&facts, |fact| fact.read),
                sum(&facts, |fact| fact.cached),
                sum(&facts, |fact| fact.said),
                sum(&facts, |fact| fact.twin),
                cost(&facts),
                moment(first(&facts)),
                moment(last(&facts)),
            ]
        });
        let columns = "account,model,exchanges,prompt_tokens,cached_tokens,completion_tokens,twin_tokens,cost_nanodollars,\
                       first,last";
        (columns, rows.collect())
    }

    fn of_networks(&self, given: &Given) -> Answer {
        let rows =
            common(self.within(given), |fact| fact.network, given.accounts).into_iter().map(|(network, facts)| {
                vec![
                    hash(Some(network)),
                    accounts(&facts).to_string(),
                    facts.len().to_string(),
                    sum(&facts, |fact| fact.read),
                    sum(&facts, |fact| fact.said),
                    cost(&facts),
                    moment(first(&facts)),
                    moment(last(&facts)),
                ]
            });
        ("network,accounts,exchanges,prompt_tokens,completion_tokens,cost_nanodollars,first,last", rows.collect())
    }

    fn of_openings(&self, given: &Given) -> Answer {
        let mut days = BTreeMap::<i64, Vec<Option<u64>>>::new();
        for (opened, payment) in self.accounts.values() {
            if let Some(opened) = opened.filter(|opened| (given.since..given.until).contains(opened)) {
                days.entry(opened.div_euclid(DAY)).or_default().push(*payment);
            }
        }
        let rows = days.into_iter().map(|(date, payments)| {
            let known: BTreeSet<u64> = payments.iter().flatten().copied().collect();
            let with = payments.iter().flatten().count();
            vec![day(date), payments.len().to_string(), with.to_string(), known.len().to_string()]
        });
        ("day,accounts,with_payment,payments", rows.collect())
    }

    fn of_payments(&self, given: &Given) -> Answer {
        let mut payments = BTreeMap::<u64, Vec<&str>>::new();
        for (account, (_, payment)) in &self.accounts {
            payments.entry(payment.unwrap_or_default()).or_default().push(account);
        }
        payments.remove(&0);
        let mut rows: Vec<_> = payments.into_iter().filter(|(_, accounts)| accounts.len() >= given.accounts).collect();
        rows.sort_by_key(|(payment, accounts)| (std::cmp::Reverse(accounts.len()), *payment));
        let rows = rows.into_iter().map(|(payment, accounts)| {
            let facts: Vec<&Fact> =
                self.within(given).filter(|fact| accounts.contains(&fact.account.as_str())).collect();
            let opened = || accounts.iter().filter_map(|account| self.accounts[*account].0);
            vec![
                hash(Some(payment)),
                accounts.len().to_string(),
                moment(opened().min()),
                moment(opened().max()),
                facts.len().to_string(),
                sum(&facts, |fact| fact.read),
                sum(&facts, |fact| fact.said),
                cost(&facts),
            ]
        });
        let columns =
            "payment,accounts,first_opened,last_opened,exchanges,prompt_tokens,completion_tokens,cost_nanodollars";
        (columns, rows.collect())
    }

    fn of_repeats(&self, given: &Given) -> Answer {
        let rows = common(self.within(given), |fact| fact.prompt, given.accounts).into_iter().map(|(prompt, facts)| {
            let (some, times) = (accounts(&facts).to_string(), facts.len().to_string());
            vec![hash(Some(prompt)), some, times, moment(first(&facts)), moment(last(&facts))]
        });
        ("prompt,accounts,exchanges,first,last", rows.collect())
    }

    fn of_shared(&self, given: &Given) -> Answer {
        let mut holders = BTreeMap::<(usize, u64), BTreeSet<&str>>::new();
        for (account, (_, payment)) in &self.accounts {
            if let Some(payment) = payment {
                holders.entry((0, *payment)).or_default().insert(account);
            }
        }
        for fact in self.within(given) {
            for (kind, value) in [(1, fact.network), (2, fact.address), (3, fact.agent)] {
                if let Some(value) = value {
                    holders.entry((kind, value)).or_default().insert(&fact.account);
                }
            }
        }
        let mut pairs = BTreeMap::<(&str, &str), ([usize; 4], usize)>::new();
        for ((kind, _), holders) in holders.iter().filter(|(_, holders)| holders.len() <= given.holders) {
            for one in holders {
                for other in holders.iter().filter(|other| one < *other) {
                    let (kinds, rarest) = pairs.entry((one, other)).or_insert(([0; 4], usize::MAX));
                    kinds[*kind] += 1;
                    *rarest = holders.len().min(*rarest);
                }
            }
        }
        let mut rows: Vec<_> = pairs.into_iter().collect();
        let all = |kinds: &[usize; 4]| kinds.iter().sum::<usize>();
        rows.sort_by_key(|(pair, (kinds, rarest))| (std::cmp::Reverse(all(kinds)), *rarest, *pair));
        let rows = rows.into_iter().map(|((one, other), (kinds, rarest))| {
            let mut row = vec![one.to_owned(), other.to_owned(), all(&kinds).to_string()];
            row.extend(kinds.iter().map(ToString::to_string));
            row.push(rarest.to_string());
            row
        });
        ("account,other,shared,payments,networks,addresses,agents,rarest", rows.collect())
    }

    fn of_spread(&self, given: &Given) -> Answer {
        let asked = self.within(given).filter(|fact| fact.prompt.is_some());
        let mut spread = BTreeMap::<usize, (usize, usize)>::new();
        for facts in group(asked, |fact| fact.prompt).values() {
            let (prompts, exchanges) = spread.entry(accounts(facts)).or_default();
            *prompts += 1;
            *exchanges += facts.len();
        }
        let rows = spread.into_iter().map(|(accounts, (prompts, exchanges))| {
            vec![accounts.to_string(), prompts.to_string(), exchanges.to_string()]
        });
        ("accounts,prompts,exchanges", rows.collect())
    }

    fn of_templates(&self, given: &Given) -> Answer {
        let rows =
            common(self.within(given), |fact| fact.template, given.accounts).into_iter().map(|(template, facts)| {
                vec![
                    hash(Some(template)),
                    accounts(&facts).to_string(),
                    facts.len().to_string(),
                    different(&facts, |fact| fact.prompt).to_string(),
                    moment(first(&facts)),
                    moment(last(&facts)),
                ]
            });
        ("template,accounts,exchanges,prompts,first,last", rows.collect())
    }

    fn of_usage(&self, given: &Given) -> Answer {
        let rows = group(self.of_account(given), |fact| (fact.account.clone(), fact.at.div_euclid(DAY)));
        let rows = rows.into_iter().map(|((account, date), facts)| {
            vec![
                account,
                day(date),
                facts.len().to_string(),
                sum(&facts, |fact| fact.read),
                sum(&facts, |fact| fact.cached),
                sum(&facts, |fact| fact.said),
                cost(&facts),
            ]
        });
        ("account,day,exchanges,prompt_tokens,cached_tokens,completion_tokens,cost_nanodollars", rows.collect())
    }
}

/// The names of the columns, and the rows.
type Answer = (&'static str, Vec<Vec<String>>);

fn group<'a, K: Ord>(facts: impl Iterator<Item = &'a Fact>, key: impl Fn(&Fact) -> K) -> BTreeMap<K, Vec<&'a Fact>> {
    let mut groups = BTreeMap::<K, Vec<&Fact>>::new();
    facts.for_each(|fact| groups.entry(key(fact)).or_default().push(fact));
    groups
}

/// What several accounts have in common, by how many and how often.
fn common<'a>(
    facts: impl Iterator<Item = &'a Fact>,
    key: impl Fn(&Fact) -> Option<u64>,
    least: usize,
) -> Vec<(u64, Vec<&'a Fact>)> {
    let groups = group(facts, key).into_iter().filter_map(|(key, facts)| Some((key?, facts)));
    let mut groups: Vec<_> = groups.filter(|(_, facts)| accounts(facts) >= least).collect();
    groups.sort_by_key(|(key, facts)| (std::cmp::Reverse((accounts(facts), facts.len())), *key));
    groups
}

fn accounts(facts: &[&Fact]) -> usize {
    facts.iter().map(|fact| &fact.account).collect::<BTreeSet<_>>().len()
}

fn different(facts: &[&Fact], of: fn(&Fact) -> Option<u64>) -> usize {
    facts.iter().filter_map(|fact| of(fact)).collect::<BTreeSet<_>>().len()
}

/// A sum; nothing where nobody tells anything.
fn sum(facts: &[&Fact], of: fn(&Fact) -> Option<u64>) -> String {
    let told: Vec<u64> = facts.iter().filter_map(|fact| of(fact)).collect();
    if told.is_empty() { String::new() } else { told.iter().sum::<u64>().to_string() }
}

fn cost(facts: &[&Fact]) -> String {
    let told: Vec<i64> = facts.iter().filter_map(|fact| fact.cost).collect();
    if told.is_empty() { String::new() } else { told.iter().sum::<i64>().to_string() }
}

fn first(facts: &[&Fact]) -> Option<i64> {
    facts.iter().map(|fact| fact.at).min()
}

fn last(facts: &[&Fact]) -> Option<i64> {
    facts.iter().map(|fact| fact.at).max()
}

fn moment(at: Option<i64>) -> String {
    at.map(|at| Timestamp::from_milliseconds(at).to_string()).unwrap_or_default()
}

fn day(number: i64) -> String {
    Timestamp::from_milliseconds(number * DAY).to_string()[..10].to_owned()
}

fn hash(value: Option<u64>) -> String {
    value.map(|value| Keyed(value).to_string()).unwrap_or_default()
}
