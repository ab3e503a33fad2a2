use std::collections::{BTreeMap, HashSet};

use serde::{Deserialize, Serialize};

use super::ControlsError;

/// What a model is in the question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Its origin is in question.
    Suspect,
    /// One of a candidate teacher's family.
    Teacher,
    /// Known not to be trained on answers of the family in question. Its family is a candidate as well.
    Control,
}

/// One model and what is known of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Its name in the file of answers.
    pub model: String,
    /// What it is in the question.
    pub role: Role,
    /// Models of one vendor or recipe, which are not independent of each other.
    pub family: String,
    /// What it was trained from, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
}

/// Reads roles: lines of `model`, `role` and `family`, and where known `base`, with tabulators in between. A base of `-`, empty lines
/// and lines that begin with `#` say nothing.
///
/// # Errors
///
/// A line is not such a line, or a model has two.
pub fn roles(text: &str) -> Result<Vec<Part>, ControlsError> {
    let mut seen = HashSet::new();
    let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
    let part = |(number, line): (usize, &str)| {
        let bad = |what: &str| ControlsError::Role { number, what: what.to_owned() };
        let mut fields = line.split('\t').map(str::trim);
        let mut next = |what: &str| fields.next().filter(|field| !field.is_empty()).ok_or_else(|| bad(what));
        let model = next("it names no model")?.to_owned();
        let role = match next("it names no role")? {
            "suspect" => Role::Suspect,
            "teacher" => Role::Teacher,
            "control" => Role::Control,
            other => return Err(bad(&format!("`{other}` is none of `suspect`, `teacher` and `control`"))),
        };
        let family = next("it names no family")?.to_owned();
        let base = fields.next().filter(|base| !base.is_empty() && *base != "-").map(str::to_owned);
        if !seen.insert(model.clone()) {
            return Err(bad(&format!("`{model}` has a role already")));
        }
        Ok(Part { model, role, family, base })
    };
    lines.map(part).collect()
}

/// What each model of `parts` weighs, where every family weighs the same and all weigh 1 together.
pub(crate) fn weights(parts: &[&Part]) -> Vec<f64> {
    let mut sizes = BTreeMap::<&str, usize>::new();
    parts.iter().for_each(|part| *sizes.entry(&part.family).or_default() += 1);
    parts.iter().map(|part| 1.0 / (sizes[part.family.as_str()] * sizes.len()) as f64).collect()
}
