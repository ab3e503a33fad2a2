//! The questions that have a name, and what they are asked with.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::LakeError;

/// A question with a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Query {
    /// By which it is asked.
    pub name: &'static str,
    /// What it answers, in one line.
    pub answers: &'static str,
    /// What it can be asked with, besides [`COMMON`].
    pub parameters: &'static [Parameter],
    /// Its text. A parameter stands in it as `$name`.
    pub sql: &'static str,
}

/// What a query can be asked with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Parameter {
    /// By which it is given.
    pub name: &'static str,
    /// What it may be.
    pub kind: Kind,
    /// Where it is not given.
    pub default: &'static str,
    /// What it does, in one line.
    pub says: &'static str,
}

/// What a parameter may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A whole number that is not negative.
    Count,
    /// A moment.
    Time,
    /// Any text.
    Text,
}

/// A parameter's value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Value {
    /// Of [`Kind::Count`].
    Count(i64),
    /// Of [`Kind::Time`], in milliseconds since the epoch.
    Time(i64),
    /// Of [`Kind::Text`].
    Text(String),
}

/// A table that questions speak of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct View {
    /// Its name.
    pub name: &'static str,
    /// What a row of it is.
    pub says: &'static str,
    /// What it is made of.
    pub sql: &'static str,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    pub(crate) name: Option<&'static str>,
    pub(crate) sql: String,
    pub(crate) values: BTreeMap<&'static str, Value>,
    pub(crate) limit: Option<usize>,
}

/// What every named query can be asked with.
pub const COMMON: &[Parameter] = &[
    Parameter {
        name: "since",
        kind: Kind::Time,
        default: "1970-01-01T00:00:00Z",
        says: "only what happened from then on",
    },
    Parameter { name: "until", kind: Kind::Time, default: "9999-01-01T00:00:00Z", says: "only what happened before" },
    Parameter { name: "limit", kind: Kind::Count, default: "0", says: "so many rows at most; 0 for all" },
];

const ACCOUNTS: Parameter =
    Parameter { name: "accounts", kind: Kind::Count, default: "2", says: "only what so many accounts have in common" };
const ACCOUNT: Parameter =
    Parameter { name: "account", kind: Kind::Text, default: "", says: "only this account; all where it is empty" };

/// The tables, each made of those before it. The first one, `entries`, is the files themselves.
pub const VIEWS: &[View] = &[
    View {
        name: "exchanges",
        says: "a request that a model was asked, from the journal and from imported logs",
        sql: include_str!("views/exchanges.sql"),
    },
    View {
        name: "refusals",
        says: "a request that was refused before any model saw it",
        sql: include_str!("views/refusals.sql"),
    },
    View {
        name: "accounts",
        says: "an account, where its opening is told of",
        sql: include_str!("views/accounts.sql"),
    },
];

/// All questions that have a name, in the order of their names.
pub const QUERIES: &[Query] = &[
    Query {
        name: "accounts",
        answers: "what each account did: how much, when, with how many prompts, templates, networks, addresses and programs",
        parameters: &[ACCOUNT],
        sql: include_str!("queries/accounts.sql"),
    },
    Query {
        name: "days",
        answers: "accounts, exchanges, tokens, cost and failures of each day (UTC)",
        parameters: &[],
        sql: include_str!("queries/days.sql"),
    },
    Query {
        name: "grants",
        answers: "what each grant was used for: by whom, on which model, how many exchanges, prompts and tokens",
        parameters: &[],
        sql: include_str!("queries/grants.sql"),
    },
    Query {
        name: "handovers",
        answers: "accounts that were refused for a limit, and accounts that woke up right after it",
        parameters: &[
            Parameter {
                name: "within",
                kind: Kind::Count,
                default: "3",
                says: "seconds from the refusal to the other's exchange",
            },
            Parameter {
                name: "idle",
                kind: Kind::Count,
                default: "600",
                says: "seconds without an exchange before it",
            },
            Parameter { name: "times", kind: Kind::Count, default: "2", says: "only pairs that did so as often" },
        ],
        sql: include_str!("queries/handovers.sql"),
    },
    Query {
        name: "hours",
        answers: "exchanges of each account by the hour of the day (UTC)",
        parameters: &[ACCOUNT],
        sql: include_str!("queries/hours.sql"),
    },
    Query {
        name: "models",
        answers: "tokens and cost that each account took of each model",
        parameters: &[ACCOUNT],
        sql: include_str!("queries/models.sql"),
    },
    Query {
        name: "networks",
        answers: "networks that several accounts come from, and how much comes from them",
        parameters: &[ACCOUNTS],
        sql: include_str!("queries/networks.sql"),
    },
    Query {
        name: "openings",
        answers: "new accounts of each day, and how many means of payment they came with: bursts of sign-ups",
        parameters: &[],
        sql: include_str!("queries/openings.sql"),
    },
    Query {
        name: "payments",
        answers: "means of payment of several accounts, and what was used with them",
        parameters: &[ACCOUNTS],
        sql: include_str!("queries/payments.sql"),
    },
    Query {
        name: "repeats",
        answers: "prompts that several accounts asked, and how often: a list that is worked off, or a common application",
        parameters: &[ACCOUNTS],
        sql: include_str!("queries/repeats.sql"),
    },
    Query {
        name: "shared",
        answers: "pairs of accounts that share rare attributes: means of payment, networks, addresses, programs",
        parameters: &[Parameter {
            name: "holders",
            kind: Kind::Count,
            default: "10",
            says: "an attribute is rare if no more accounts have it",
        }],
        sql: include_str!("queries/shared.sql"),
    },
    Query {
        name: "spread",
        answers: "how many prompts were asked by one account, by two, and so on",
        parameters: &[],
        sql: include_str!("queries/spread.sql"),
    },
    Query {
        name: "templates",
        answers: "templates (prompts that open alike) by accounts, exchanges and different prompts",
        parameters: &[ACCOUNTS],
        sql: include_str!("queries/templates.sql"),
    },
    Query {
        name: "usage",
        answers: "exchanges, tokens and cost of each account on each day (UTC)",
        parameters: &[ACCOUNT],
        sql: include_str!("queries/usage.sql"),
    },
];

/// The query of this name.
///
/// # Errors
/// There is none.
pub fn query(name: &str) -> Result<&'static Query, LakeError> {
    QUERIES.iter().find(|query| query.name == name).ok_or_else(|| {
        let names: Vec<String> = QUERIES.iter().map(|query| format!("`{}`", query.name)).collect();
        LakeError::QueryUnknown { name: name.to_owned(), known: format!("there are {}", names.join(", ")) }
    })
}

impl Query {
    /// Everything that it can be asked with.
    pub fn all_parameters(&self) -> impl Iterator<Item = &'static Parameter> {
        self.parameters.iter().chain(COMMON)
    }

    /// The question, with the parameters that are given; what is not given is as its default says.
    ///
    /// # Errors
    /// A parameter is none of this query, or a value not of its kind.
    pub fn with(&self, given: &[(String, String)]) -> Result<Question, LakeError> {
        let mut values = BTreeMap::new();
        for parameter in self.all_parameters() {
            values.insert(parameter.name, parameter.value(parameter.default)?);
        }
        for (name, text) in given {
            let parameter = self.all_parameters().find(|parameter| parameter.name == name);
            let parameter = parameter.ok_or_else(|| {
                let known: Vec<String> = self.all_parameters().map(|known| format!("`{}`", known.name)).collect();
                LakeError::ParameterUnknown { query: self.name, name: name.clone(), known: known.join(", ") }
            })?;
            values.insert(parameter.name, parameter.value(text)?);
        }
        let limit = match values.remove("limit") {
            Some(Value::Count(limit)) if limit > 0 => usize::try_from(limit).ok(),
            _ => None,
        };
        Ok(Question { name: Some(self.name), sql: self.sql.to_owned(), values, limit })
    }
}

impl Question {
    /// A question in SQL of one's own, about [`VIEWS`] and `entries`.
    pub fn sql(text: impl Into<String>) -> Self {
        Self { name: None, sql: text.into(), values: BTreeMap::new(), limit: None }
    }

    /// The name of its query, if it has one.
    pub fn name(&self) -> Option<&'static str> {
        self.name
    }

    /// Its text.
    pub fn text(&self) -> &str {
        &self.sql
    }
}

impl Parameter {
    fn value(&self, text: &str) -> Result<Value, LakeError> {
        let value = match self.kind {
            // Beyond this a sum of such numbers would not be one.
            Kind::Count => text.parse::<u32>().ok().map(|count| Value::Count(count.into())),
            Kind::Time => time(text).map(Value::Time),
            Kind::Text => Some(Value::Text(text.to_owned())),
        };
        value.ok_or_else(|| LakeError::ParameterInvalid {
            name: self.name.to_owned(),
            value: text.to_owned(),
            kind: self.kind.in_words(),
        })
    }
}

impl Kind {
    /// What a value of it must be.
    pub const fn in_words(self) -> &'static str {
        match self {
            Self::Count => "a whole number from 0 to 4294967295",
            Self::Time => "a time such as `2026-04-22` or `2026-04-22T08:00:00Z`",
            Self::Text => "a text",
        }
    }
}

/// Milliseconds since the epoch of a day, at its beginning (UTC), or of a moment.
fn time(text: &str) -> Option<i64> {
    let whole = if text.len() == "2026-04-22".len() { format!("{text}T00:00:00Z") } else { text.to_owned() };
    whole.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_millisecond)
}
