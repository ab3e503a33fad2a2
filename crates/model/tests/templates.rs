//! Chat templates give the bytes that transformers gives. `cargo xtask parity` shows it.

#![allow(clippy::unwrap_used, reason = "a test may fail")]
#![allow(clippy::print_stdout, reason = "the table is what `cargo xtask parity` shows")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anbiq_domain::{Message, Role, ToolCall};
use anbiq_model::template::{ChatTemplate, TemplateError};
use serde::Deserialize;

/// As `render_golden.py` writes it.
#[derive(Deserialize)]
struct Golden {
    transformers: String,
    rendered: BTreeMap<String, Vec<Rendered>>,
}

/// What transformers made of one conversation.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Rendered {
    Text(String),
    /// With the template's own words, where it has some.
    Refused(Option<String>),
}

#[derive(Deserialize)]
struct Conversation {
    name: String,
    prompt: bool,
    messages: Vec<Said>,
}

/// A message in OpenAI's form, but for arguments, which are objects as templates see them.
#[derive(Deserialize)]
struct Said {
    role: Role,
    content: String,
    name: Option<String>,
    tool_call_id: Option<String>,
    #[serde(default)]
    tool_calls: Vec<Called>,
}

#[derive(Deserialize)]
struct Called {
    id: String,
    function: Function,
}

#[derive(Deserialize)]
struct Function {
    name: String,
    arguments: Box<serde_json::value::RawValue>,
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

fn conversations() -> Vec<(String, Vec<Message>, bool)> {
    let read: Vec<Conversation> =
        serde_json::from_str(&fs::read_to_string(golden().join("conversations.json")).unwrap()).unwrap();
    let message = |said: Said| Message {
        name: said.name,
        tool_call_id: said.tool_call_id,
        tool_calls: said
            .tool_calls
            .into_iter()
            .map(|Called { id, function: Function { name, arguments } }| ToolCall {
                id,
                name,
                arguments: arguments.get().to_owned(),
            })
            .collect(),
        ..Message::new(said.role, said.content)
    };
    read.into_iter().map(|read| (read.name, read.messages.into_iter().map(message).collect(), read.prompt)).collect()
}

/// Renders all conversations with all templates of `folder`; gives how many templates there are and what differs.
fn compare(folder: &Path) -> (usize, Vec<String>) {
    let read = |path: &Path| fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let golden: Golden = serde_json::from_str(&read(&folder.join("rendered.json"))).unwrap();
    let conversations = conversations();
    let mut different = Vec::new();
    for (name, expected) in &golden.rendered {
        let source = read(&folder.join(format!("{name}.jinja")));
        let template = match ChatTemplate::new(&source, "<s>", "</s>") {
            Ok(template) => template,
            Err(error) => {
                different.push(format!("{name}: {error}"));
                continue;
            }
        };
        assert_eq!(expected.len(), conversations.len());
        for ((conversation, messages, prompt), expected) in conversations.iter().zip(expected) {
            let rendered = template.render(messages, *prompt);
            let same = match (&rendered, expected) {
                (Ok(text), Rendered::Text(expected)) => text == expected,
                (Err(TemplateError::Refused(why)), Rendered::Refused(words)) => {
                    words.as_ref().is_none_or(|words| words == why)
                }
                _ => false,
            };
            if !same {
                different.push(format!("{name}, {conversation}:\n  {rendered:?}\n  {expected:?}"));
            }
        }
    }
    println!(
        "chat templates of {}: {} templates, {} conversations, {} differ from transformers {}",
        folder.display(),
        golden.rendered.len(),
        conversations.len(),
        different.len(),
        golden.transformers
    );
    (golden.rendered.len(), different)
}

#[test]
fn templates_give_the_bytes_of_transformers() {
    let (templates, different) = compare(&golden().join("templates"));
    assert!(different.is_empty(), "{}", different.join("\n"));
    assert!(templates >= 30 && conversations().len() >= 12, "{templates} templates");
}

#[test]
fn published_templates_give_the_bytes_of_transformers() {
    let Some(folder) = std::env::var_os("ANBIQ_TEMPLATES") else {
        println!("skipped: ANBIQ_TEMPLATES names no folder of published templates; see golden/README.md");
        return;
    };
    let (_, different) = compare(Path::new(&folder));
    assert!(different.is_empty(), "{}", different.join("\n"));
}
