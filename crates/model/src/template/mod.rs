//! Chat templates: Jinja, as Hugging Face tokenizers carry them.
//!
//! A template turns a conversation into the one text that a model was trained to go on with. Hugging Face renders
//! them with Jinja2 in a sandbox with `trim_blocks` and `lstrip_blocks`; [`ChatTemplate`] does the same with
//! `minijinja`, plus the few methods of Python's strings and dictionaries that published templates use.

mod json;
mod python;

use std::fmt;
use std::path::Path;

use anbiq_domain::{Message, ToolCall};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::ValueKind;
use minijinja::{Environment, Error, ErrorKind, Value};
use serde_json::Value as Json;

use json::to_json;
use python::python_method;

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
        environment.add_filter("escape", escape);
        environment.add_filter("e", escape);
        environment.add_test("iterable", is_iterable);
        environment
            .add_template_owned(NAME, as_minijinja(source))
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
            // There are none, which templates tell from a name that nobody defined.
            ("tools", Value::from(())),
            ("documents", Value::from(())),
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

/// In the form that templates expect: the arguments as an object, in the order of its names, where they are one.
fn call_value(call: &ToolCall) -> Value {
    let arguments = serde_json::from_str(&call.arguments).unwrap_or_else(|_| Value::from(call.arguments.as_str()));
    let function = Value::from_pairs([("name", Value::from(call.name.as_str())), ("arguments", arguments)]);
    Value::from_pairs([("id", Value::from(call.id.as_str())), ("type", "function".into()), ("function", function)])
}

/// The template as minijinja reads it. `{% generation %}` marks what the model says, for those who train on it, and leaves the
/// text as it is; what is set inside is not seen outside, which is what `with` does. Comments and raw blocks stay as they
/// are. Lines end as Jinja2 lets them end, whatever the file has.
fn as_minijinja(source: &str) -> String {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let (mut text, mut rest) = (String::with_capacity(source.len()), source.as_str());
    while let Some(begin) = rest.find('{') {
        let (before, tag) = rest.split_at(begin + 1);
        text.push_str(before);
        rest = match tag.as_bytes().first() {
            Some(b'#') => up_to(&mut text, tag, "#}"),
            Some(b'%') => block(&mut text, tag),
            _ => tag,
        };
    }
    text + rest
}

/// Copies a tag from its `%` on, under another name where it has to have one; gives what follows its name.
fn block<'source>(text: &mut String, tag: &'source str) -> &'source str {
    let word = tag.trim_start_matches(['%', '-', '+']).trim_start();
    let name = &word[..word.find(|c: char| !c.is_alphabetic()).unwrap_or(word.len())];
    text.push_str(&tag[..tag.len() - word.len()]);
    text.push_str(match name {
        "generation" => "with",
        "endgeneration" => "endwith",
        other => other,
    });
    let rest = &word[name.len()..];
    if name == "raw" { up_to(text, rest, "endraw") } else { rest }
}

/// Copies up to and with `end`; gives what follows.
fn up_to<'source>(text: &mut String, from: &'source str, end: &str) -> &'source str {
    let (before, after) = from.split_at(from.find(end).map_or(from.len(), |place| place + end.len()));
    text.push_str(before);
    after
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

/// Templates of the Llama 3 family and others write today's date. The same inputs must give the same bytes, so it is always the
/// one that Llama's fall back to themselves where this function is missing: the first moment of Friday, 26 July 2024. A form
/// that is not known is refused.
fn strftime_now(format: &str) -> Result<String, Error> {
    let (mut text, mut letters) = (String::with_capacity(format.len() + 8), format.chars());
    while let Some(letter) = letters.next() {
        if letter != '%' {
            text.push(letter);
            continue;
        }
        let form = letters.next();
        text.push_str(match form {
            Some('d') => "26",
            Some('b' | 'h') => "Jul",
            Some('B') => "July",
            Some('m') => "07",
            Some('Y') => "2024",
            Some('y') => "24",
            Some('A') => "Friday",
            Some('a') => "Fri",
            Some('j') => "208",
            Some('H' | 'M' | 'S') => "00",
            Some('I') => "12",
            Some('p') => "AM",
            Some('%') => "%",
            Some('F') => "2024-07-26",
            Some('T') => "00:00:00",
            _ => return Err(Error::new(ErrorKind::InvalidOperation, format!("`{format}` is no form of a date"))),
        });
    }
    Ok(text)
}

/// As markupsafe, which Jinja2 uses, writes what HTML would read otherwise.
fn escape(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    text.replace('\'', "&#39;").replace('"', "&#34;")
}

/// In Python nothing is not iterable.
fn is_iterable(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::String | ValueKind::Seq | ValueKind::Map | ValueKind::Iterable)
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
