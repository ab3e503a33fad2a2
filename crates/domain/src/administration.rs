use serde::{Deserialize, Serialize};

use crate::{KeyId, Timestamp};

/// What an administrator did, and who that was.
///
/// What a reader of the journal must know of the change itself has an entry of its own; this one adds the hand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Administration {
    /// When.
    pub at: Timestamp,
    /// Who.
    pub by: Hand,
    /// What was done, such as `account.open`.
    pub action: String,
    /// To what: the id of an account, a key, a grant, a model.
    pub subject: String,
    /// In which way, where the action alone does not say it; never a secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// Whose hand a change was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hand {
    /// Whoever may write the ledger's files or reach its database: at the command line, or by a signal.
    Console,
    /// Whoever held this admin key.
    AdminKey(KeyId),
}
