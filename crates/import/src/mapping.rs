use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::ImportError;
use crate::field::{Field, Layout};
use crate::format::Format;

/// Where the fields of a log stand, as its owner says.
///
/// ```toml
/// format = "plain"                 # or another, whose places are then kept where none is named here
///
/// [columns]                        # a column, a path with dots into nested objects, or several to try in this order
/// at = "ts"
/// account = ["customer.id", "key"]
/// prompt = "body.messages"
///
/// [values]                         # what holds where no column says something
/// model = "house-7b"
/// ```
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mapping {
    /// The format whose places are changed: `plain` without it.
    #[serde(default)]
    pub format: Option<Format>,
    /// Columns by field.
    #[serde(default)]
    columns: BTreeMap<String, Columns>,
    /// Values by field.
    #[serde(default)]
    values: BTreeMap<String, Value>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
enum Columns {
    One(String),
    Several(Vec<String>),
}

impl Mapping {
    /// Reads a mapping; every field that it names must be one.
    ///
    /// # Errors
    /// It is no TOML, has keys that are not known, or names a field that is none.
    pub fn parse(text: &str) -> Result<Self, ImportError> {
        let wrong = |error: toml::de::Error| ImportError::Mapping { reason: error.to_string().trim().to_owned() };
        let mapping: Self = toml::from_str(text).map_err(wrong)?;
        for name in mapping.columns.keys().chain(mapping.values.keys()) {
            Field::named(name)?;
        }
        Ok(mapping)
    }

    pub(crate) fn apply(&self, layout: &mut Layout) -> Result<(), ImportError> {
        for (name, columns) in &self.columns {
            let columns = match columns {
                Columns::One(column) => vec![column.clone()],
                Columns::Several(columns) => columns.clone(),
            };
            layout.put(Field::named(name)?, columns);
        }
        for (name, value) in &self.values {
            layout.put_value(Field::named(name)?, value.clone());
        }
        Ok(())
    }
}
