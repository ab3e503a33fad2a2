//! Fields of a request that the gateway itself does not understand: which are handed on, and to whom.
//!
//! What becomes of each stands in the table of the crate's documentation.

use anbiq_domain::Route;
use anbiq_model::Abilities;
use serde_json::{Map, Value};

use crate::rejection::Rejection;

/// What a model must be able to do to be handed a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    /// Tools.
    Tools,
    /// Answers of a form that is demanded.
    Formats,
    /// Bending of the probabilities of tokens.
    Shapes,
    /// All of the dialect; other models are spared the field, which only advises.
    Advice,
    /// Nothing here can do it.
    Impossible,
}

/// The fields that would change an answer, each with the values that change nothing.
///
/// Leaving them out silently would give an answer other than was asked for. Fields that are not known at all are
/// ignored, as servers of this dialect do.
const FIELDS: &[(&str, Need, ChangesNothing)] = &[
    ("tools", Need::Tools, empty),
    ("tool_choice", Need::Tools, |value| value == "auto"),
    ("parallel_tool_calls", Need::Tools, |value| value == true),
    ("response_format", Need::Formats, |value| value["type"] == "text"),
    ("logit_bias", Need::Shapes, empty),
    ("frequency_penalty", Need::Shapes, zero),
    ("presence_penalty", Need::Shapes, zero),
    ("top_k", Need::Shapes, |value| value.as_i64().is_some_and(|k| k <= 0)),
    ("min_p", Need::Shapes, zero),
    ("repetition_penalty", Need::Shapes, |value| value.as_f64() == Some(1.0)),
    ("reasoning_effort", Need::Advice, |_| false),
    ("verbosity", Need::Advice, |_| false),
    ("functions", Need::Impossible, empty),
    ("modalities", Need::Impossible, |value| value.as_array().is_some_and(|all| all.iter().all(|one| one == "text"))),
    ("audio", Need::Impossible, |_| false),
    ("prediction", Need::Impossible, |_| false),
    ("web_search_options", Need::Impossible, |_| false),
    ("suffix", Need::Impossible, |value| value == ""),
];

/// Does a field's value change nothing?
pub(crate) type ChangesNothing = fn(&Value) -> bool;

/// Most tools, as OpenAI has it.
const TOOLS: usize = 128;

/// The fields of a request to `route` that are for the model, or why one of them is refused whatever the model.
pub(crate) fn handed_on(route: Route, mut other: Map<String, Value>) -> Result<Map<String, Value>, Rejection> {
    let mut handed_on = Map::new();
    for (name, need, changes_nothing) in FIELDS {
        let Some(value) = other.remove(*name).filter(|value| !changes_nothing(value)) else { continue };
        // Completions go on with a text: there is nobody to call a tool.
        let possible = match need {
            Need::Tools | Need::Formats => route != Route::Completions,
            Need::Shapes | Need::Advice => true,
            Need::Impossible => false,
        };
        if !possible {
            return Err(Rejection::unsupported(name, format!("`{name}` is not supported")));
        }
        handed_on.insert((*name).to_owned(), value);
    }
    check_tools(&mut handed_on)?;
    check_values(&handed_on)?;
    Ok(handed_on)
}

/// Can a model with `abilities` be handed all of `fields`?
pub(crate) fn check(abilities: Abilities, fields: &Map<String, Value>) -> Result<(), Rejection> {
    for (name, need, _) in FIELDS {
        if fields.contains_key(*name) && *need != Need::Advice && !need.met_by(abilities) {
            return Err(Rejection::unsupported(name, format!("`{name}` is not supported by this model")));
        }
    }
    Ok(())
}

/// Those of `fields`, all of which were checked, that a model with `abilities` knows.
pub(crate) fn known_to(abilities: Abilities, fields: &Map<String, Value>) -> Map<String, Value> {
    let known = |name: &str| FIELDS.iter().any(|(field, need, _)| *field == name && need.met_by(abilities));
    let known = fields.iter().filter(|(name, _)| known(name));
    known.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// The length of `fields` as text.
pub(crate) fn bytes(fields: &Map<String, Value>) -> u64 {
    if fields.is_empty() {
        return 0;
    }
    serde_json::to_string(fields).map_or(0, |text| text.len() as u64)
}

impl Need {
    fn met_by(self, abilities: Abilities) -> bool {
        match self {
            Self::Tools => abilities.tools,
            Self::Formats => abilities.formats,
            Self::Shapes => abilities.shapes,
            Self::Advice => abilities.dialect,
            Self::Impossible => false,
        }
    }
}

fn check_tools(fields: &mut Map<String, Value>) -> Result<(), Rejection> {
    let Some(tools) = fields.get("tools") else {
        if fields.remove("tool_choice").is_some_and(|choice| choice != "none") {
            return Err(Rejection::value("tool_choice", "`tool_choice` needs `tools`"));
        }
        fields.remove("parallel_tool_calls");
        return Ok(());
    };
    let Some(tools) = tools.as_array().filter(|tools| tools.len() <= TOOLS) else {
        return Err(Rejection::value("tools", format!("`tools` is a list of at most {TOOLS} tools")));
    };
    for (index, tool) in tools.iter().enumerate() {
        if tool["type"] != "function" {
            let field = format!("tools.[{index}].type");
            return Err(Rejection::unsupported(&field, "a tool is of the type `function`"));
        }
        if tool["function"]["name"].as_str().is_none_or(str::is_empty) {
            let field = format!("tools.[{index}].function.name");
            return Err(Rejection::value(&field, "a function has a name"));
        }
    }
    Ok(())
}

fn check_values(fields: &Map<String, Value>) -> Result<(), Rejection> {
    if let Some(format) = fields.get("response_format") {
        let kind = format["type"].as_str().unwrap_or_default();
        if !matches!(kind, "json_object" | "json_schema") {
            let message = "the type of `response_format` is `text`, `json_object` or `json_schema`";
            return Err(Rejection::value("response_format.type", message));
        }
        if kind == "json_schema" && !format["json_schema"].is_object() {
            let message = "a `response_format` of type `json_schema` has a `json_schema`";
            return Err(Rejection::value("response_format.json_schema", message));
        }
    }
    for name in ["frequency_penalty", "presence_penalty"] {
        let within = |value: &Value| value.as_f64().is_some_and(|value| (-2.0..=2.0).contains(&value));
        if fields.get(name).is_some_and(|value| !within(value)) {
            return Err(Rejection::value(name, format!("`{name}` is between -2 and 2")));
        }
    }
    if fields.get("logit_bias").is_some_and(|bias| !bias.is_object()) {
        return Err(Rejection::value("logit_bias", "`logit_bias` is an object of numbers by token"));
    }
    Ok(())
}

fn empty(value: &Value) -> bool {
    value.as_array().is_some_and(Vec::is_empty) || value.as_object().is_some_and(Map::is_empty)
}

fn zero(value: &Value) -> bool {
    value.as_f64() == Some(0.0)
}
