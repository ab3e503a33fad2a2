use anbiq_domain::{PriceList, Terms};
use serde::{Deserialize, Serialize};

/// The answer to `GET /v1/models`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelList {
    /// `list`
    #[serde(default)]
    pub object: String,
    /// The models.
    pub data: Vec<ModelCard>,
}

/// A model that can be asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelCard {
    /// The name that requests use.
    pub id: String,
    /// `model`
    #[serde(default)]
    pub object: String,
    /// Since when, in seconds since 1970.
    #[serde(default)]
    pub created: i64,
    /// By whom.
    #[serde(default)]
    pub owned_by: String,
    /// What it costs: Anbiq's addition to the dialect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prices: Option<PriceList>,
    /// Its terms: Anbiq's addition to the dialect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terms: Option<Terms>,
}
