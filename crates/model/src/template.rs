//! Chat templates: Jinja, as Hugging Face tokenizers carry them.
//!
//! A template turns a conversation into the one text that a model was trained to go on with. Hugging Face renders
//! them with Jinja2 in a sandbox with `trim_blocks` and `lstrip_blocks`; [`ChatTemplate`] does the same with
//! `minijinja`, plus the few methods of Python's strings and dictionaries that published templates use.

use std::fmt;
use std::path::Path;

use anbiq_domain::{Message, ToolCall};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, ValueKind, from_args};
use minijinja::{Environment, Error, ErrorKind, State, Value};
use serde_json::Value as Json;

/// Each message as `<|role|>content<|end|>`: the template of the models that this project trains itself.
pub const PLAIN: &str = "{% for message in messages %}{{ '<|' + message.role + '|>' + message.content + '<|end|>' }}\
                         {% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}";

const NAME: &str = "chat_template";

/// A compiled chat template.
#[derive(Clone)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    source: String,
    bos: String,
    eos: String,
}

/// A chat template that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// A file that should hold the template cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// `tokenizer_config.json` is not what Hugging Face writes.
    #[error("{path} is not a tokenizer configuration: {why}")]
    Config {
        /// Which file.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// The template is not valid Jinja.
    #[error("the chat template is not valid: {0}")]
    Syntax(String),
    /// The template refuses this conversation.
    #[error("the model's chat template refuses this conversation: {0}")]
    Refused(String),
}

impl TemplateError {
    /// A stable name of what happened.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Read { .. } => "template_unreadable",
            Self::Config { .. } => "tokenizer_config_invalid",
            Self::Syntax(_) => "template_invalid",
            Self::Refused(_) => "conversation_refused",
        }
    }
}

impl ChatTemplate {
    /// Compiles `source`. `bos` and `eos` are what the template sees as `bos_token` and `eos_token`.
    ///
    /// # Errors
    /// [`TemplateError::Syntax`] where `source` is not valid Jinja.
    pub fn new(source: &str, bos: &str, eos: &str) -> Result<Self, TemplateError> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|error| TemplateError::Syntax(error.to_string()))?);
        environment.set_unknown_method_callback(python_method);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", strftime_now);
        environment.add_filter("tojson", to_json);
        environment
            .add_template_owned(NAME, source.to_owned())
            .map_err(|error| TemplateError::Syntax(error.to_string()))?;
        Ok(Self { environment, source: source.to_owned(), bos: bos.to_owned(), eos: eos.to_owned() })
    }

    /// The template of a Hugging Face folder: `chat_template.jinja`, or else `chat_template` in
    /// `tokenizer_config.json`; `None` where it has neither, as base models do.
    ///
    /// # Errors
    /// Where a file is there but cannot be read or does not hold what it should.
    pub fn load(folder: &Path) -> Result<Option<Self>, TemplateError> {
        let path = folder.join("tokenizer_config.json");
        let config = match read_if_there(&path)? {
            Some(text) => parse_config(&path, &text)?,
            None => Json::Null,
        };
        let source = match read_if_there(&folder.join("chat_template.jinja"))? {
            Some(source) => Some(source),
            None => source_in_config(&config["chat_template"]),
        };
        let Some(source) = source else { return Ok(None) };
        Self::new(&source, &token_text(&config["bos_token"]), &token_text(&config["eos_token"])).map(Some)
    }

    /// The text of `messages`; with `add_generation_prompt` it ends where the model's answer begins.
    ///
    /// # Errors
    /// [`TemplateError::Refused`] where the template raises an exception (for example: roles must alternate) or
    /// uses something that this renderer does not know.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String, TemplateError> {
        let messages: Vec<Value> = messages.iter().map(message_value).collect();
        let context = Value::from_pairs([
            ("messages", Value::from(messages)),
            ("add_generation_prompt", Value::from(add_generation_prompt)),
            ("bos_token", Value::from(self.bos.as_str())),
            ("eos_token", Value::from(self.eos.as_str())),
        ]);
        self.environment
            .get_template(NAME)
            .and_then(|template| template.render(context))
            .map_err(|error| TemplateError::Refused(reason(&error)))
    }

    /// The Jinja text.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// What the template sees as `bos_token`.
    pub fn bos(&self) -> &str {
        &self.bos
    }

    /// What the template sees as `eos_token`.
    pub fn eos(&self) -> &str {
        &self.eos
    }
}

impl fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChatTemplate").field("source", &self.source).finish_non_exhaustive()
    }
}

fn read_if_there(path: &Path) -> Result<Option<String>, TemplateError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(TemplateError::Read { path: path.display().to_string(), source }),
    }
}

fn parse_config(path: &Path, text: &str) -> Result<Json, TemplateError> {
    let invalid = |why: String| TemplateError::Config { path: path.display().to_string(), why };
    match serde_json::from_str(text) {
        Ok(config @ Json::Object(_)) => Ok(config),
        Ok(_) => Err(invalid("it is not a JSON object".to_owned())),
        Err(error) => Err(invalid(error.to_string())),
    }
}

/// One template, or a list of named ones of which `default` is meant for conversations.
fn source_in_config(template: &Json) -> Option<String> {
    match template {
        Json::String(source) => Some(source.clone()),
        Json::Array(named) => {
            let default = named.iter().find(|entry| entry["name"] == "default").or_else(|| named.first())?;
            Some(default["template"].as_str()?.to_owned())
        }
        _ => None,
    }
}

/// A special token is written as a string or as an object with `content`.
fn token_text(token: &Json) -> String {
    token.as_str().or_else(|| token["content"].as_str()).unwrap_or_default().to_owned()
}

fn message_value(message: &Message) -> Value {
    let mut fields =
        vec![("role", Value::from(message.role.as_str())), ("content", Value::from(message.content.as_str()))];
    fields.extend(message.name.as_deref().map(|name| ("name", Value::from(name))));
    fields.extend(message.tool_call_id.as_deref().map(|id| ("tool_call_id", Value::from(id))));
    if !message.tool_calls.is_empty() {
        fields.push(("tool_calls", message.tool_calls.iter().map(call_value).collect()));
    }
    Value::from_pairs(fields)
}

/// In the form that templates expect: the arguments as an object, where they are one.
fn call_value(call: &ToolCall) -> Value {
    let arguments = serde_json::from_str(&call.arguments).unwrap_or_else(|_| Json::from(call.arguments.as_str()));
    let arguments = json_value(&arguments);
    let function = Value::from_pairs([("name", Value::from(call.name.as_str())), ("arguments", arguments)]);
    Value::from_pairs([("id", Value::from(call.id.as_str())), ("type", "function".into()), ("function", function)])
}

fn json_value(json: &Json) -> Value {
    match json {
        Json::Null => Value::from(()),
        Json::Bool(truth) => Value::from(*truth),
        Json::Number(number) => match number.as_i64() {
            Some(whole) => Value::from(whole),
            None => Value::from(number.as_f64().unwrap_or_default()),
        },
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(items) => items.iter().map(json_value).collect(),
        Json::Object(fields) => {
            Value::from_pairs(fields.iter().map(|(name, value)| (name.as_str(), json_value(value))))
        }
    }
}

/// The exception's own words where the template raised one; minijinja adds file and line to them.
fn reason(error: &Error) -> String {
    match (error.kind(), error.detail()) {
        (ErrorKind::InvalidOperation, Some(detail)) => detail.to_owned(),
        _ => error.to_string(),
    }
}

fn raise_exception(message: &str) -> Result<String, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message.to_owned()))
}

/// Templates of the Llama 3 family write today's date. The same inputs must give the same bytes, so the date is
/// the one that those templates fall back to themselves where this function is missing.
fn strftime_now(format: &str) -> String {
    format.replace("%d", "26").replace("%b", "Jul").replace("%B", "July").replace("%m", "07").replace("%Y", "2024")
}

/// `json.dumps(value, ensure_ascii=False)`: unlike minijinja's own filter it does not escape HTML.
#[expect(clippy::needless_pass_by_value, reason = "a filter of minijinja takes its options so")]
fn to_json(value: &Value, options: Kwargs) -> Result<String, Error> {
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

/// The methods of Python's `str` and `dict` that published chat templates call.
fn python_method(state: &mut State<'_, '_>, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
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
        "splitlines" => none().map(|()| text.lines().map(Value::from).collect())?,
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

fn split(text: &str, separator: Option<&str>, most: Option<usize>) -> Vec<String> {
    let owned = |parts: &mut dyn Iterator<Item = &str>| parts.map(str::to_owned).collect();
    match (separator, most) {
        (Some(separator), Some(most)) => owned(&mut text.splitn(most + 1, separator)),
        (Some(separator), None) => owned(&mut text.split(separator)),
        (None, Some(most)) => owned(&mut text.trim_start().splitn(most + 1, char::is_whitespace).map(str::trim_start)),
        (None, None) => owned(&mut text.split_whitespace()),
    }
}

fn capitalize(text: &str) -> String {
    let mut characters = text.chars();
    let first = characters.next().map(|first| first.to_uppercase().collect::<String>()).unwrap_or_default();
    first + &characters.as_str().to_lowercase()
}

fn title(text: &str) -> String {
    let mut inside = false;
    text.chars()
        .flat_map(|c| {
            let changed: Vec<char> = if inside { c.to_lowercase().collect() } else { c.to_uppercase().collect() };
            inside = c.is_alphabetic();
            changed
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use anbiq_domain::Role;

    use super::*;

    const CHATML: &str = "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] \
                          + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}\
                          {{ '<|im_start|>assistant\n' }}{% endif %}";
    const LLAMA3: &str = "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = \
                          '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + \
                          message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = \
                          bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}\
                          {{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}";
    const ZEPHYR: &str = "{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>\n' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>\n' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>\n' + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}";
    const MISTRAL: &str = "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != \
                           (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}\
                           {% if message['role'] == 'user' %}{{ '[INST] ' + message['content'].strip() + ' [/INST]' }}\
                           {% else %}{{ message['content'].split('</think>')[-1].lstrip('\n') + eos_token }}\
                           {% endif %}{% endfor %}";

    fn conversation() -> Vec<Message> {
        [(Role::System, "Be brief."), (Role::User, " Hi <b> "), (Role::Assistant, "Hello"), (Role::User, "2+2?")]
            .map(|(role, content)| Message::new(role, content))
            .to_vec()
    }

    fn render(source: &str, messages: &[Message], prompt: bool) -> Result<String, String> {
        let template = ChatTemplate::new(source, "<s>", "</s>").map_err(|error| error.to_string())?;
        template.render(messages, prompt).map_err(|error| error.to_string())
    }

    #[test]
    fn templates_render_as_their_authors_meant() {
        let all = conversation();
        let cases: [(&str, &[Message], bool, &str); 6] = [
            (
                CHATML,
                &all,
                true,
                "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n Hi <b> <|im_end|>\n\
                 <|im_start|>assistant\nHello<|im_end|>\n<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n",
            ),
            (
                LLAMA3,
                &all[..2],
                true,
                "<s><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>\
                 <|start_header_id|>user<|end_header_id|>\n\nHi <b><|eot_id|>\
                 <|start_header_id|>assistant<|end_header_id|>\n\n",
            ),
            (ZEPHYR, &all[..2], true, "<|system|>\nBe brief.</s>\n<|user|>\n Hi <b> </s>\n<|assistant|>\n"),
            (ZEPHYR, &all[1..3], false, "<|user|>\n Hi <b> </s>\n<|assistant|>\nHello</s>\n"),
            (MISTRAL, &all[1..], true, "<s>[INST] Hi <b> [/INST]Hello</s>[INST] 2+2? [/INST]"),
            (PLAIN, &all[..2], true, "<|system|>Be brief.<|end|><|user|> Hi <b> <|end|><|assistant|>"),
        ];
        for (source, messages, prompt, expected) in cases {
            assert_eq!(render(source, messages, prompt).unwrap(), expected, "{source}");
        }
    }

    #[test]
    fn templates_see_tool_calls() {
        let call = |arguments: &str| ToolCall { id: "c".into(), name: "f".into(), arguments: arguments.into() };
        let calls = vec![call(r#"{"city": "Basra", "days": [1, 2.5, null, true]}"#), call("not JSON")];
        let asks = Message { tool_calls: calls, ..Message::new(Role::Assistant, "") };
        let told = Message { tool_call_id: Some("c".into()), ..Message::new(Role::Tool, "41") };
        let source = "{% for message in messages %}{% for call in message.tool_calls or [] %}\
                      {{ call.type }} {{ call.function.name }} {{ call.function.arguments | tojson }} {% endfor %}\
                      {{ message.tool_call_id or '-' }} {% endfor %}";
        let expected = r#"function f {"city": "Basra", "days": [1, 2.5, null, true]} function f "not JSON" - c "#;
        assert_eq!(render(source, &[asks, told], false).unwrap(), expected);
    }

    #[test]
    fn python_methods_do_as_python_does() {
        let cases = [
            ("' a b '.strip()", "a b"),
            ("'xxaxx'.strip('x')", "a"),
            ("'a,b,c'.split(',', 1)[1]", "b,c"),
            ("'a  b'.split() | length", "2"),
            ("'abc'.startswith(('x', 'ab'))", "True"),
            ("'abc'.endswith('x')", "False"),
            ("'aBc dE'.title()", "Abc De"),
            ("'aBc'.capitalize()", "Abc"),
            ("'aXbX'.replace('X', '-', 1)", "a-bX"),
            ("'añb'.find('b')", "2"),
            ("{'a': 1}.get('b', 7)", "7"),
            ("{'a': 1}.get('b') is none", "True"),
            ("{'a': 1}.items() | list | length", "1"),
            ("', '.join(['a', 'b'])", "a, b"),
            ("{'a': ['<b>', 1]} | tojson", r#"{"a": ["<b>", 1]}"#),
            ("{'a': [1, true], 'b': {}} | tojson(indent=2)", "{\n  \"a\": [\n    1,\n    true\n  ],\n  \"b\": {}\n}"),
            ("strftime_now('%d %b %Y')", "26 Jul 2024"),
            ("messages[1:] | length", "3"),
        ];
        for (expression, expected) in cases {
            let source = format!("{{{{ {expression} }}}}");
            assert_eq!(render(&source, &conversation(), false).unwrap(), expected, "{expression}");
        }
    }

    #[test]
    fn errors_say_what_is_wrong() {
        let starts_with_system = render(MISTRAL, &conversation(), true).unwrap_err();
        assert_eq!(starts_with_system, "the model's chat template refuses this conversation: roles must alternate");
        assert!(render("{% if %}", &[], true).unwrap_err().starts_with("the chat template is not valid:"));
        assert!(render("{{ ''.nonsense() }}", &[], true).unwrap_err().contains("nonsense"));
    }

    #[test]
    fn a_folder_gives_its_template() {
        let folder = std::env::temp_dir().join(format!("anbiq-template-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let config = folder.join("tokenizer_config.json");
        let cases = [
            ("{}", None),
            (r#"{"chat_template": "A{{ bos_token }}", "bos_token": {"content": "<s>"}}"#, Some("A<s>")),
            (
                r#"{"chat_template": [{"name": "tool", "template": "T"}, {"name": "default", "template": "D"}]}"#,
                Some("D"),
            ),
        ];
        for (text, expected) in cases {
            std::fs::write(&config, text).unwrap();
            let rendered = ChatTemplate::load(&folder).unwrap().map(|template| template.render(&[], false).unwrap());
            assert_eq!(rendered.as_deref(), expected, "{text}");
        }
        std::fs::write(&config, "[").unwrap();
        assert_eq!(ChatTemplate::load(&folder).unwrap_err().code(), "tokenizer_config_invalid");
        std::fs::write(&config, r#"{"eos_token": "</s>"}"#).unwrap();
        std::fs::write(folder.join("chat_template.jinja"), "J{{ eos_token }}").unwrap();
        assert_eq!(ChatTemplate::load(&folder).unwrap().unwrap().render(&[], false).unwrap(), "J</s>");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
