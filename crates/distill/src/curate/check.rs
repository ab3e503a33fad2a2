//! Answers that can be checked: by a schema of JSON.

use std::path::Path;

use regex::Regex;
use serde_json::{Map, Value};

use crate::DistillError;
use crate::data::read_json;

/// A schema of JSON values: the part of JSON Schema (draft 2020-12) that is needed to check answers of a form. A keyword that is
/// not known is refused when the schema is read, since to pass over it would be to accept what it forbids.
#[derive(Debug, Clone)]
pub(super) struct Schema(Value);

/// Keywords that say nothing of a value.
const SILENT: [&str; 6] = ["$schema", "$id", "title", "description", "default", "examples"];

impl Schema {
    pub(super) fn load(path: &Path) -> Result<Self, DistillError> {
        let schema: Value = read_json(path)?;
        known(&schema).map_err(|problem| DistillError::Row { path: path.to_owned(), line: 1, problem })?;
        Ok(Self(schema))
    }

    /// Is `text` a JSON value of this form, and nothing else?
    pub(super) fn holds(&self, text: &str) -> bool {
        serde_json::from_str(text.trim()).is_ok_and(|value| fits(&self.0, &value))
    }
}

/// Is every keyword known, and used as it must be?
fn known(schema: &Value) -> Result<(), String> {
    let keywords = match schema {
        Value::Bool(_) => return Ok(()),
        Value::Object(keywords) => keywords,
        _ => return Err("a schema is an object, `true` or `false`".to_owned()),
    };
    for (keyword, value) in keywords {
        let right = match keyword.as_str() {
            "type" => value.as_str().is_some_and(is_type) || list(value, |one| one.as_str().is_some_and(is_type)),
            "enum" => value.is_array(),
            "const" => true,
            "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" => value.is_number(),
            "minLength" | "maxLength" | "minItems" | "maxItems" | "minProperties" | "maxProperties" => value.is_u64(),
            "uniqueItems" => value.is_boolean(),
            "pattern" => match value.as_str().map(Regex::new) {
                Some(Ok(_)) => true,
                Some(Err(error)) => return Err(format!("the keyword `pattern`: {error}")),
                None => false,
            },
            "required" => list(value, Value::is_string),
            "properties" => {
                for inner in value.as_object().into_iter().flat_map(Map::values) {
                    known(inner)?;
                }
                value.is_object()
            }
            "items" | "additionalProperties" | "not" => known(value).map(|()| true)?,
            "anyOf" | "allOf" | "oneOf" => {
                for inner in value.as_array().into_iter().flatten() {
                    known(inner)?;
                }
                value.is_array()
            }
            silent if SILENT.contains(&silent) => true,
            _ => return Err(format!("the keyword `{keyword}` is not supported")),
        };
        if !right {
            return Err(format!("the keyword `{keyword}` has a value that it cannot have"));
        }
    }
    Ok(())
}

fn list(value: &Value, each: impl Fn(&Value) -> bool) -> bool {
    value.as_array().is_some_and(|all| all.iter().all(each))
}

fn is_type(name: &str) -> bool {
    ["null", "boolean", "object", "array", "number", "integer", "string"].contains(&name)
}

fn fits(schema: &Value, value: &Value) -> bool {
    let Value::Object(keywords) = schema else { return schema == &Value::Bool(true) };
    let number = |limit: &Value, holds: fn(f64, f64) -> bool| {
        value.as_f64().zip(limit.as_f64()).is_none_or(|(value, limit)| holds(value, limit))
    };
    let length = value.as_str().map(|text| text.chars().count() as u64);
    let items = value.as_array().map(|items| items.len() as u64);
    let members = value.as_object().map(|members| members.len() as u64);
    let at_least =
        |size: Option<u64>, limit: &Value| size.zip(limit.as_u64()).is_none_or(|(size, limit)| size >= limit);
    let at_most = |size: Option<u64>, limit: &Value| size.zip(limit.as_u64()).is_none_or(|(size, limit)| size <= limit);
    let inner = |schemas: &Value| schemas.as_array().into_iter().flatten().filter(|one| fits(one, value)).count();
    keywords.iter().all(|(keyword, limit)| match keyword.as_str() {
        "type" => match limit {
            Value::Array(names) => names.iter().filter_map(Value::as_str).any(|name| has_type(name, value)),
            name => name.as_str().is_some_and(|name| has_type(name, value)),
        },
        "enum" => limit.as_array().is_some_and(|all| all.contains(value)),
        "const" => limit == value,
        "minimum" => number(limit, |value, limit| value >= limit),
        "maximum" => number(limit, |value, limit| value <= limit),
        "exclusiveMinimum" => number(limit, |value, limit| value > limit),
        "exclusiveMaximum" => number(limit, |value, limit| value < limit),
        "minLength" => at_least(length, limit),
        "maxLength" => at_most(length, limit),
        "minItems" => at_least(items, limit),
        "maxItems" => at_most(items, limit),
        "minProperties" => at_least(members, limit),
        "maxProperties" => at_most(members, limit),
        "uniqueItems" => limit == &Value::Bool(false) || value.as_array().is_none_or(|items| all_differ(items)),
        "pattern" => match (value.as_str(), limit.as_str().map(Regex::new)) {
            (Some(text), Some(Ok(pattern))) => pattern.is_match(text),
            (_, pattern) => !value.is_string() || pattern.is_none(),
        },
        "required" => value.as_object().is_none_or(|object| {
            limit.as_array().into_iter().flatten().filter_map(Value::as_str).all(|name| object.contains_key(name))
        }),
        "properties" => value.as_object().is_none_or(|object| {
            let named = limit.as_object().into_iter().flatten();
            named.into_iter().all(|(name, schema)| object.get(name).is_none_or(|value| fits(schema, value)))
        }),
        "additionalProperties" => value.as_object().is_none_or(|object| {
            let named = keywords.get("properties").and_then(Value::as_object);
            let others = object.iter().filter(|(name, _)| named.is_none_or(|named| !named.contains_key(*name)));
            others.into_iter().all(|(_, value)| fits(limit, value))
        }),
        "items" => value.as_array().is_none_or(|items| items.iter().all(|item| fits(limit, item))),
        "not" => !fits(limit, value),
        "anyOf" => inner(limit) > 0,
        "oneOf" => inner(limit) == 1,
        "allOf" => Some(inner(limit)) == limit.as_array().map(Vec::len),
        _ => true,
    })
}

/// Numbers differ as they are written: 1 and 1.0 do.
fn all_differ(items: &[Value]) -> bool {
    items.iter().enumerate().all(|(place, item)| !items[..place].contains(item))
}

fn has_type(name: &str, value: &Value) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        // 1.0 is an integer in JSON Schema.
        "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_schema_accepts_what_it_says() {
        let schema = Schema(json!({
            "type": "object",
            "properties": {
                "label": { "enum": ["refund", "delay"] },
                "score": { "type": "integer", "minimum": 0, "exclusiveMaximum": 10 },
                "tags": { "type": "array", "items": { "type": "string", "maxLength": 3 }, "maxItems": 2, "uniqueItems": true },
                "code": { "pattern": "^[A-Z]{2}[0-9]+$" },
            },
            "maxProperties": 3,
            "required": ["label"],
            "additionalProperties": false,
        }));
        known(&schema.0).unwrap();
        for good in [
            r#"{"label": "refund"}"#,
            r#" {"label": "delay", "score": 9.0, "tags": []}"#,
            r#"{"label": "delay", "tags": ["abc"]}"#,
            r#"{"label": "delay", "code": "AB12"}"#,
        ] {
            assert!(schema.holds(good), "{good}");
        }
        for bad in [
            "",
            "refund",
            "[]",
            r#"{"label": "other"}"#,
            r#"{"score": 1}"#,
            r#"{"label": "refund", "score": 1.5}"#,
            r#"{"label": "refund", "score": 10}"#,
            r#"{"label": "refund", "score": -1}"#,
            r#"{"label": "refund", "tags": ["abcd"]}"#,
            r#"{"label": "refund", "tags": ["a", "b", "c"]}"#,
            r#"{"label": "refund", "tags": ["a", "a"]}"#,
            r#"{"label": "refund", "code": "ab12"}"#,
            r#"{"label": "refund", "code": "AB12", "score": 1, "tags": []}"#,
            r#"{"label": "refund", "more": 1}"#,
            r#"{"label": "refund"} and so on"#,
            "```json\n{\"label\": \"refund\"}\n```",
        ] {
            assert!(!schema.holds(bad), "{bad}");
        }
        let either = Schema(json!({ "oneOf": [{ "type": ["string", "null"] }, { "const": 3 }, { "minimum": 3 }] }));
        assert!(either.holds("4") && !either.holds("3") && !either.holds("null"), "a text has no minimum to miss");
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for (schema, says) in [
            (json!({ "pattern": "(" }), "the keyword `pattern`: regex parse error"),
            (json!({ "format": "email" }), "`format` is not supported"),
            (json!({ "properties": { "a": { "$ref": "#" } } }), "`$ref` is not supported"),
            (json!({ "type": "text" }), "`type` has a value"),
            (json!({ "required": "a" }), "`required` has a value"),
            (json!([1]), "a schema is an object"),
        ] {
            let problem = known(&schema).unwrap_err();
            assert!(problem.contains(says), "{problem}");
        }
    }
}
