use serde::{Deserialize, Serialize};

use crate::{AccountId, Keyed, Money, RequestFacts, Sketch, Timestamp, Usage};

/// One row of another system's log, in our words.
///
/// It is no [`Entry`](crate::Entry): nobody committed to it, nobody signed it, no coin chose what was served. It says what
/// a log says and nothing else, so whatever that log leaves out is absent here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "row", rename_all = "snake_case")]
pub enum Imported {
    /// What is known of an account; a later row about the same one holds.
    Account {
        /// Which.
        account: AccountId,
        /// When it was opened.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        opened: Option<Timestamp>,
        /// Keyed hash of the means of payment.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        payment: Option<Keyed>,
    },
    /// A request that reached a model.
    Exchange(Box<ImportedExchange>),
    /// A request that was refused before any model saw it.
    Refused {
        /// When.
        at: Timestamp,
        /// Whose.
        account: AccountId,
    },
}

/// A request that reached a model, as far as another system's log tells of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImportedExchange {
    /// When the request arrived.
    pub at: Timestamp,
    /// Who asked.
    pub account: AccountId,
    /// Which model was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// What was asked for, without the text, where the log has the request's parameters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<RequestFacts>,
    /// Keyed hash of the client's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Keyed>,
    /// Keyed hash of the client's network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Keyed>,
    /// Keyed hash of the client's software.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<Keyed>,
    /// What remains of the prompt, where the log had its text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sketch: Option<Sketch>,
    /// Tokens, where the log counts them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// What it cost, where the log says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<Money>,
    /// Did the model fail?
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub failed: bool,
}
