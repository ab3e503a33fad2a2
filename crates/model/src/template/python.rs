//! The methods of Python's values that chat templates call.

use minijinja::value::{ValueKind, from_args};
use minijinja::{Error, ErrorKind, State, Value};

/// The methods of Python's `str` and `dict` that published chat templates call.
pub(super) fn python_method(
    state: &mut State<'_, '_>,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::String => string_method(value.as_str().unwrap_or_default(), method, args),
        ValueKind::Map => map_method(state, value, method, args),
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}

fn string_method(text: &str, method: &str, args: &[Value]) -> Result<Value, Error> {
    let none = || from_args::<()>(args);
    Ok(match method {
        "strip" => Value::from(trim(text, args, true, true)?),
        "lstrip" => Value::from(trim(text, args, true, false)?),
        "rstrip" => Value::from(trim(text, args, false, true)?),
        "upper" => none().map(|()| Value::from(text.to_uppercase()))?,
        "lower" => none().map(|()| Value::from(text.to_lowercase()))?,
        "capitalize" => none().map(|()| Value::from(capitalize(text)))?,
        "title" => none().map(|()| Value::from(title(text)))?,
        "splitlines" => none().map(|()| lines(text).into_iter().map(Value::from).collect())?,
        "startswith" => Value::from(affixes(args)?.iter().any(|prefix| text.starts_with(prefix))),
        "endswith" => Value::from(affixes(args)?.iter().any(|suffix| text.ends_with(suffix))),
        "find" => {
            let (needle,): (&str,) = from_args(args)?;
            let place = text.find(needle).map(|bytes| text[..bytes].chars().count());
            Value::from(place.and_then(|place| i64::try_from(place).ok()).unwrap_or(-1))
        }
        "count" => {
            let (needle,): (&str,) = from_args(args)?;
            Value::from(text.matches(needle).count())
        }
        "replace" => {
            let (old, new, most): (&str, &str, Option<usize>) = from_args(args)?;
            Value::from(most.map_or_else(|| text.replace(old, new), |most| text.replacen(old, new, most)))
        }
        "split" => {
            let (separator, most): (Option<&str>, Option<i64>) = from_args(args)?;
            Value::from(split(text, separator, most.and_then(|most| usize::try_from(most).ok())))
        }
        "rsplit" => {
            let (separator, most): (Option<&str>, Option<i64>) = from_args(args)?;
            let most = most.and_then(|most| usize::try_from(most).ok());
            Value::from(split_from_the_end(text, separator, most))
        }
        "partition" => {
            let (separator,): (&str,) = from_args(args)?;
            let (before, after) = text.split_once(separator).unwrap_or((text, ""));
            let found = if text.contains(separator) { separator } else { "" };
            [before, found, after].into_iter().map(Value::from).collect()
        }
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            Value::from(text.strip_prefix(prefix).unwrap_or(text))
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            Value::from(text.strip_suffix(suffix).unwrap_or(text))
        }
        "isdigit" => none().map(|()| Value::from(!text.is_empty() && text.chars().all(char::is_numeric)))?,
        "join" => {
            let (parts,): (&Value,) = from_args(args)?;
            let parts: Vec<String> = parts.try_iter()?.map(|part| part.to_string()).collect();
            Value::from(parts.join(text))
        }
        _ => return Err(Error::from(ErrorKind::UnknownMethod)),
    })
}

fn map_method(state: &mut State<'_, '_>, map: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    match method {
        "items" => {
            from_args::<()>(args)?;
            state.apply_filter("items", std::slice::from_ref(map))
        }
        "keys" => {
            from_args::<()>(args)?;
            Ok(Value::from(map.try_iter()?.collect::<Vec<_>>()))
        }
        "values" => {
            from_args::<()>(args)?;
            map.try_iter()?.map(|key| map.get_item(&key)).collect::<Result<Vec<_>, _>>().map(Value::from)
        }
        "get" => {
            let (key, default): (&Value, Option<&Value>) = from_args(args)?;
            let found = map.get_item(key)?;
            let default = || default.cloned().unwrap_or_else(|| Value::from(()));
            Ok(if found.is_undefined() { default() } else { found })
        }
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}

fn trim(text: &str, args: &[Value], start: bool, end: bool) -> Result<String, Error> {
    let (characters,): (Option<&str>,) = from_args(args)?;
    let goes = |c: char| characters.map_or_else(|| c.is_whitespace(), |characters| characters.contains(c));
    let text = if start { text.trim_start_matches(goes) } else { text };
    Ok(if end { text.trim_end_matches(goes) } else { text }.to_owned())
}

/// Python takes one string or a tuple of strings.
fn affixes(args: &[Value]) -> Result<Vec<String>, Error> {
    let (affix,): (&Value,) = from_args(args)?;
    match affix.as_str() {
        Some(one) => Ok(vec![one.to_owned()]),
        None => Ok(affix.try_iter()?.map(|affix| affix.to_string()).collect()),
    }
}

/// Python ends lines at more than Rust does.
fn lines(text: &str) -> Vec<&str> {
    let (mut lines, mut rest) = (Vec::new(), text);
    let ends = |c: char| {
        matches!(c, '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}')
    };
    while let Some(place) = rest.find(ends) {
        let (line, end) = rest.split_at(place);
        lines.push(line);
        let long = if end.starts_with("\r\n") { 2 } else { end.chars().next().map_or(0, char::len_utf8) };
        rest = &end[long..];
    }
    if !rest.is_empty() {
        lines.push(rest);
    }
    lines
}

fn split(text: &str, separator: Option<&str>, most: Option<usize>) -> Vec<String> {
    let owned = |parts: &mut dyn Iterator<Item = &str>| parts.map(str::to_owned).collect();
    match (separator, most) {
        (Some(separator), Some(most)) => owned(&mut text.splitn(most + 1, separator)),
        (Some(separator), None) => owned(&mut text.split(separator)),
        (None, Some(most)) => owned(&mut text.trim_start().splitn(most + 1, char::is_whitespace).map(str::trim_start)),
        (None, None) => owned(&mut text.split_whitespace()),
    }
}

fn split_from_the_end(text: &str, separator: Option<&str>, most: Option<usize>) -> Vec<String> {
    let mut parts: Vec<String> = match (separator, most) {
        (Some(separator), Some(most)) => text.rsplitn(most + 1, separator).map(str::to_owned).collect(),
        (None, Some(most)) => {
            let parts = text.trim_end().rsplitn(most + 1, char::is_whitespace);
            parts.map(|part| part.trim_end().to_owned()).collect()
        }
        (separator, None) => return split(text, separator, None),
    };
    parts.reverse();
    parts
}

fn capitalize(text: &str) -> String {
    let mut characters = text.chars();
    let first = characters.next().map(at_the_head).unwrap_or_default();
    first + &characters.as_str().to_lowercase()
}

/// A letter as it begins a word: of those that become several in upper case only the first one is.
fn at_the_head(letter: char) -> String {
    let mut upper = letter.to_uppercase();
    upper.next().into_iter().chain(upper.flat_map(char::to_lowercase)).collect()
}

fn title(text: &str) -> String {
    let mut inside = false;
    text.chars()
        .flat_map(|c| {
            let changed: String = if inside { c.to_lowercase().collect() } else { at_the_head(c) };
            inside = c.is_alphabetic();
            changed.chars().collect::<Vec<char>>()
        })
        .collect()
}
