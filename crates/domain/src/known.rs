use serde::{Deserialize, Serialize};

use crate::{Conditions, Judgement, Permission, Source, Student, Terms, TermsId, Timestamp};

/// What is known of the terms of a teacher that others serve or publish.
///
/// Facts, in words of our own, and no legal advice. Whatever was not read in a primary text is [`Permission::Unknown`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnownTerms {
    /// A short name.
    pub name: String,
    /// Who sets them.
    pub provider: String,
    /// Of what they speak.
    pub of: String,
    /// What they say about distillation.
    pub distillation: Permission,
    /// Under which conditions.
    #[serde(default)]
    pub conditions: Conditions,
    /// Where that was read; absent where nobody read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// What else there is to know.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

const REGISTRY: &str = include_str!("../data/known-terms.json");

/// Every entry of the built-in registry, by name.
pub fn known_terms() -> Vec<KnownTerms> {
    // A test reads it, so it can be read.
    serde_json::from_str(REGISTRY).unwrap_or_default()
}

impl KnownTerms {
    /// The entry that is called `name`, where there is one.
    pub fn find(name: &str) -> Option<Self> {
        known_terms().into_iter().find(|one| one.name.eq_ignore_ascii_case(name))
    }

    /// What they say about `student` at the moment `at`.
    ///
    /// # Errors
    ///
    /// None for entries of the registry: their names are ids of terms.
    pub fn judge(&self, student: &Student, at: Timestamp) -> Result<Judgement, crate::IdError> {
        let id = TermsId::new(self.name.clone())?;
        let terms = Terms::new(id, 1, &self.name, self.distillation, &self.note);
        Ok(Terms { conditions: self.conditions.clone(), ..terms }.judge(student, at))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::Ruling;

    #[test]
    fn the_registry_can_be_read_and_claims_only_what_was_read() {
        let all: Vec<KnownTerms> = serde_json::from_str(REGISTRY).unwrap();
        assert!(all.len() >= 20);
        assert_eq!(all.iter().map(|one| &one.name).collect::<BTreeSet<_>>().len(), all.len(), "names are unique");
        assert!(all.is_sorted_by_key(|one| &one.name));
        for one in &all {
            assert_eq!(one.source.is_some(), one.distillation != Permission::Unknown, "{}", one.name);
            assert_eq!(one.conditions == Conditions::default(), one.source.is_none(), "{}", one.name);
            if let Some(source) = &one.source {
                assert!(source.url.starts_with("https://") && source.read.len() == 10, "{}", one.name);
            }
            let student = Student { competing: Some(false), ..Student::default() };
            let judged = one.judge(&student, Timestamp::default()).unwrap();
            assert_eq!(judged.ruling == Ruling::Unknown, one.source.is_none(), "{}", one.name);
        }
        assert_eq!(KnownTerms::find("Llama-4").unwrap().conditions.name_prefix.as_deref(), Some("Llama"));
        assert_eq!(KnownTerms::find("nobody"), None);
    }
}
