use serde::{Deserialize, Serialize};

use anbiq_domain::{Money, Timestamp};

use crate::{Graph, GraphEdge, OperatorRow, Reason, Timeline, Tone};

/// What `watch` found, for a page of its own. Neutral, like a [`Dossier`](crate::Dossier); but it proves nothing and is not signed.
///
/// Every text is shown as it is, never as markup.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Findings {
    /// What the page is called.
    pub title: String,
    /// Whether the journal's times are simulated.
    pub simulated: bool,
    /// Figures of the whole: a name and a value each.
    pub facts: Vec<(String, String)>,
    /// The findings, a sentence each.
    pub summary: Vec<String>,
    /// What must be kept in mind.
    pub notes: Vec<String>,
    /// The accounts of those that are spoken of, and the links between them.
    pub graph: Graph,
    /// Those that are spoken of, most remarkable first.
    pub operators: Vec<FoundOperator>,
    /// All others, in a sentence.
    pub others: String,
}

/// An operator that is spoken of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FoundOperator {
    /// Its figures.
    pub row: OperatorRow,
    /// What follows, in sentences: a breach, or why a person should look.
    pub why: Vec<String>,
    /// How far things have come, in words.
    pub stage: Option<String>,
    /// When it came to which stage, and what was gone by then.
    pub stages: Vec<FoundStage>,
    /// Its use over time; empty where it is not known.
    pub timeline: Timeline,
    /// How well each kind of use fits, in nats, best first.
    pub fits: Vec<(String, f64)>,
    /// What remains linked without each kind of evidence: its name, the share of the accounts that are still linked, and the share in
    /// the largest piece.
    pub survival: Vec<(String, f64, f64)>,
    /// Its accounts, or the first of them.
    pub accounts: Vec<FoundAccount>,
    /// The heaviest of the links between them.
    pub edges: Vec<GraphEdge>,
    /// Links that the report has besides those.
    pub more_edges: u64,
}

/// A stage that an operator came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FoundStage {
    /// Its name.
    pub name: String,
    /// How it should strike the eye.
    pub tone: Tone,
    /// Since when.
    pub since: Timestamp,
    /// Accounts that belonged to the operator then.
    pub accounts: u64,
    /// Exchanges that were gone.
    pub exchanges: u64,
    /// Tokens that were gone.
    pub output_tokens: u64,
    /// What was charged for them.
    pub cost: Money,
    /// The share of its exchanges until now that this is.
    pub share: f64,
}

/// An account of an operator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FoundAccount {
    /// Its name.
    pub name: String,
    /// When it was opened, where that is known.
    pub opened: Option<Timestamp>,
    /// Its exchanges.
    pub exchanges: u64,
    /// What it was served, in tokens.
    pub output_tokens: u64,
    /// Its exchanges an hour.
    pub per_hour: f64,
    /// How sure it is that it belongs, from 0 to 1.
    pub certainty: f64,
    /// Why it belongs, heaviest first.
    pub reasons: Vec<Reason>,
}
