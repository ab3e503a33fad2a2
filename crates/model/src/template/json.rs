//! `tojson`, as transformers has it.

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, Value};
use serde_json::Value as Json;

/// `json.dumps(value, ensure_ascii=False)`: unlike minijinja's own filter it does not escape HTML.
#[expect(clippy::needless_pass_by_value, reason = "a filter of minijinja takes its options so")]
pub(super) fn to_json(value: &Value, options: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let _: Option<bool> = options.get("ensure_ascii")?;
    options.assert_all_used()?;
    let mut text = String::new();
    write_json(&mut text, value, indent, 0)?;
    Ok(text)
}

/// Writes `value` as Python does: `, ` and `: ` between the parts, or one part a line where `indent` is given.
fn write_json(text: &mut String, value: &Value, indent: Option<usize>, depth: usize) -> Result<(), Error> {
    let new_line = |text: &mut String, depth: usize| {
        if let Some(indent) = indent {
            text.push('\n');
            text.extend(std::iter::repeat_n(' ', indent * depth));
        }
    };
    let is_map = match value.kind() {
        ValueKind::Map => true,
        ValueKind::Seq | ValueKind::Iterable => false,
        ValueKind::None | ValueKind::Undefined => {
            text.push_str("null");
            return Ok(());
        }
        ValueKind::Bool => {
            text.push_str(if value.is_true() { "true" } else { "false" });
            return Ok(());
        }
        ValueKind::String => {
            text.push_str(&Json::from(value.as_str().unwrap_or_default()).to_string());
            return Ok(());
        }
        _ => {
            text.push_str(&value.to_string());
            return Ok(());
        }
    };
    text.push(if is_map { '{' } else { '[' });
    let mut empty = true;
    for item in value.try_iter()? {
        match (empty, indent) {
            (true, _) => {}
            (false, Some(_)) => text.push(','),
            (false, None) => text.push_str(", "),
        }
        empty = false;
        new_line(text, depth + 1);
        if is_map {
            text.push_str(&Json::from(item.to_string()).to_string());
            text.push_str(": ");
            write_json(text, &value.get_item(&item)?, indent, depth + 1)?;
        } else {
            write_json(text, &item, indent, depth + 1)?;
        }
    }
    if !empty {
        new_line(text, depth);
    }
    text.push(if is_map { '}' } else { ']' });
    Ok(())
}
