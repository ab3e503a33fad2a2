use serde::{Deserialize, Serialize};

use crate::{AccountId, Digest, GrantId, Money, TermsId, Timestamp};

/// The conditions under which a teacher may be used, in a form that a program can apply.
///
/// `text` is what a lawyer reads; the other fields are what the gateway and `distill` enforce.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Terms {
    /// Which terms.
    pub id: TermsId,
    /// Counted from 1; a change of anything is a new version.
    pub version: u32,
    /// The model they speak of.
    pub teacher: String,
    /// May a student be trained on the answers?
    pub distillation: Permission,
    /// What holds where distillation is allowed or granted.
    #[serde(default)]
    pub conditions: Conditions,
    /// From when on they say nothing any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// Where the words were read, where somebody else wrote them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// The words themselves.
    pub text: String,
}

/// Where terms were read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// The address.
    pub url: String,
    /// Where in it, such as a section.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// The day on which it was read, such as `2026-11-23`.
    pub read: String,
    /// The day from which the words hold, as they say themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effective: Option<String>,
    /// The digest of all the words, where it was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Digest>,
}

impl Terms {
    /// Which terms, in which version.
    pub fn reference(&self) -> TermsRef {
        TermsRef { id: self.id.clone(), version: self.version }
    }

    /// Terms without conditions, end and source.
    pub fn new(id: TermsId, version: u32, teacher: &str, distillation: Permission, text: &str) -> Self {
        Self {
            id,
            version,
            teacher: teacher.to_owned(),
            distillation,
            conditions: Conditions::default(),
            expires: None,
            source: None,
            text: text.to_owned(),
        }
    }

    /// What they say about distillation at the moment `at`: nothing, when their end has come.
    pub fn permission(&self, at: Timestamp) -> Permission {
        if self.expires.is_some_and(|end| at >= end) { Permission::Unknown } else { self.distillation }
    }

    /// The digest of the words.
    pub fn text_digest(&self) -> Digest {
        Digest::of(self.text.as_bytes())
    }
}

/// One version of some terms.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TermsRef {
    /// Which terms.
    pub id: TermsId,
    /// Which version of them.
    pub version: u32,
}

/// What the terms say about distillation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Permission {
    /// Anybody may; the conditions, where there are any, are kept.
    Allowed,
    /// Anybody may who keeps the conditions.
    Conditions,
    /// Only with a grant.
    GrantRequired,
    /// Nobody may.
    Forbidden,
    /// The terms are silent or were not read.
    Unknown,
}

/// Conditions on a student; an absent one does not limit.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Conditions {
    /// Largest student, in parameters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_student_parameters: Option<u64>,
    /// Largest student, in percent of the teacher's parameters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_student_percent: Option<u32>,
    /// The teacher's size, in parameters, where it is told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub teacher_parameters: Option<u64>,
    /// Largest number of completion tokens that may be taken for training.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_output_tokens: Option<u64>,
    /// May the student compete with the teacher?
    pub competing_use: bool,
    /// What the student may be for; anything where none is named.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub purposes: Vec<Purpose>,
    /// What the student's card must say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attribution: Option<String>,
    /// What the student's name must begin with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name_prefix: Option<String>,
    /// What the student must come with.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<String>,
    /// The licence that the student must be under.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub licence: Option<String>,
    /// Which of the teacher's prices applies; that of distillation where it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub price_class: Option<PriceClass>,
    /// The price of a million completion tokens, where it is another than that of any class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_price: Option<Money>,
    /// Of a grant that permits more than its terms: why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beyond_terms: Option<String>,
}

/// What a student is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// To find something out and publish it.
    Research,
    /// To teach.
    Education,
    /// To sort or label things, without writing anything.
    Classification,
    /// For the own use of whoever trains it.
    Internal,
    /// To be offered to others.
    Product,
}

impl Purpose {
    /// Such as `research`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Research => "research",
            Self::Education => "education",
            Self::Classification => "classification",
            Self::Internal => "internal use",
            Self::Product => "a product",
        }
    }
}

/// What one account may distill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// Which grant.
    pub id: GrantId,
    /// Whose.
    pub account: AccountId,
    /// The terms it rests on.
    pub terms: TermsRef,
    /// What the student is for.
    pub purpose: String,
    /// What holds for this student; it may be wider or narrower than the terms' own conditions.
    pub conditions: Conditions,
    /// When it was given.
    pub given: Timestamp,
    /// From when on it no longer holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
}

/// Whether a grant holds at some moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GrantState {
    /// It is asked for, and permits nothing.
    Asked,
    /// It was asked for and refused.
    Refused,
    /// It holds.
    Active,
    /// Its end has come.
    Expired,
    /// It was taken back.
    Revoked,
    /// Its volume is used up.
    UsedUp,
}

impl Grant {
    /// The state at `now` of a grant of which `used` completion tokens were taken, and that was not revoked.
    pub fn state(&self, now: Timestamp, used: u64) -> GrantState {
        if self.expires.is_some_and(|end| now >= end) {
            GrantState::Expired
        } else if self.conditions.max_output_tokens.is_some_and(|volume| used >= volume) {
            GrantState::UsedUp
        } else {
            GrantState::Active
        }
    }
}

/// Which of a model's prices applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PriceClass {
    /// Ordinary use.
    #[default]
    Standard,
    /// Use under a distillation grant.
    Distillation,
    /// Ordinary use that need not be answered at once.
    Batch,
}

/// What the journal may keep of prompts and answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TextPolicy {
    /// Hashes and sketches only.
    #[default]
    Off,
    /// The texts of exchanges that were twinned, which a later twin test needs; of others hashes only.
    Twinned,
    /// Every text.
    Plain,
    /// As `Twinned`, but encrypted under a key of the account, which can be destroyed.
    SealedTwinned,
    /// Every text, encrypted likewise.
    Sealed,
}

/// What the journal keeps of the texts of one exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeping {
    /// Commitments only.
    Nothing,
    /// The texts as they are.
    Plain,
    /// The texts under a key of the account.
    Sealed,
}

impl TextPolicy {
    /// What is kept of an exchange that was `twinned`, or was not.
    pub const fn keeps(self, twinned: bool) -> Keeping {
        match self {
            Self::Plain => Keeping::Plain,
            Self::Sealed => Keeping::Sealed,
            Self::Twinned if twinned => Keeping::Plain,
            Self::SealedTwinned if twinned => Keeping::Sealed,
            Self::Off | Self::Twinned | Self::SealedTwinned => Keeping::Nothing,
        }
    }
}
