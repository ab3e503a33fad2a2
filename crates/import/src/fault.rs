use serde::{Deserialize, Serialize};

/// What is wrong with a row. It never holds anything of the row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// It is no JSON, or no text.
    NotJson,
    /// It is no object, or has not as many fields as the header.
    NotAnObject,
    /// It is longer than a row may be.
    TooLong,
    /// The log ends inside it.
    EndsEarly,
    /// It has no time.
    NoTime,
    /// Its time is none.
    BadTime,
    /// It does not say whose request it was.
    NoAccount,
    /// Where a number should stand is none.
    BadNumber,
}

impl Fault {
    /// In words.
    pub const fn in_words(self) -> &'static str {
        match self {
            Self::NotJson => "is no JSON",
            Self::NotAnObject => "is no object, or has not as many fields as the header",
            Self::TooLong => "is longer than a row may be",
            Self::EndsEarly => "the log ends inside it",
            Self::NoTime => "has no time",
            Self::BadTime => "has a time that is none",
            Self::NoAccount => "does not say whose request it was",
            Self::BadNumber => "has no number where one should be",
        }
    }
}
