use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};
use uuid::Uuid;

use crate::{Seeded, Timestamp};

/// A name that cannot be an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` cannot be an id: use 1 to 64 letters, digits, `.`, `_`, `-` or `:`, a letter or digit first")]
pub struct IdError(String);

/// Longest id, in bytes.
const LONGEST: usize = 64;

fn is_id(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b':');
    // Ids stand in addresses, where `.` and `..` mean something else.
    let begins = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    begins && text.len() <= LONGEST && text.bytes().all(allowed)
}

macro_rules! named_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Checks the grammar: 1 to 64 letters, digits, `.`, `_`, `-` or `:`, a letter or digit first.
            pub fn new(text: impl Into<String>) -> Result<Self, IdError> {
                let text = text.into();
                if is_id(&text) { Ok(Self(text)) } else { Err(IdError(text)) }
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._:-]{0,63}$" })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::new(text)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::new(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
            }
        }
    };
}

named_id!(
    /// A customer of the API.
    AccountId
);
named_id!(
    /// The public half of an API key.
    KeyId
);
named_id!(
    /// The permission of one account to distill.
    GrantId
);
named_id!(
    /// The conditions of a teacher, all versions of them.
    TermsId
);
named_id!(
    /// A set of limits that accounts are on.
    PlanId
);
named_id!(
    /// One journal; its name is also the origin of its signed checkpoints.
    JournalId
);
named_id!(
    /// The person or firm behind one or more accounts: as inferred by `watch`, or as declared in the ledger.
    OperatorId
);
named_id!(
    /// Somebody who uses an account, as its holder names them.
    UserId
);

/// One request and its answer. A UUID of version 7 (RFC 9562): it sorts by time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ExchangeId(Uuid);

impl ExchangeId {
    /// A fresh id for an exchange that starts at `at`; its random part comes from `random`.
    pub fn fresh(at: Timestamp, random: &mut Seeded) -> Self {
        let mut tail = [0; 10];
        random.fill(&mut tail);
        let milliseconds = u64::try_from(at.milliseconds()).unwrap_or(0);
        Self(uuid::Builder::from_unix_timestamp_millis(milliseconds, &tail).into_uuid())
    }

    /// The 16 bytes.
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl fmt::Display for ExchangeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for ExchangeId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Uuid::parse_str(text).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_a_grammar() {
        for good in ["a", "acme-7", "sk.1:x_Y", &"x".repeat(64)] {
            assert!(AccountId::new(good).is_ok(), "{good}");
        }
        for bad in ["", "a b", "é", "x\n", "../x", "..", "-a", &"x".repeat(65)] {
            assert!(AccountId::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn exchange_ids_sort_by_time() {
        let mut random = Seeded::new(1);
        let early = ExchangeId::fresh(Timestamp::from_milliseconds(1_000), &mut random);
        let late = ExchangeId::fresh(Timestamp::from_milliseconds(1_001), &mut random);
        assert!(early < late);
        assert_eq!(early.to_string().parse::<ExchangeId>().unwrap(), early);
    }
}
