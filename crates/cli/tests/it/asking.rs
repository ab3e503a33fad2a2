//! Captures of a vendor's answers: the prompts, the recipe, and what came of it.

use std::fmt::Write as _;

use anbiq_domain::{Money, PriceList};
use serde_json::Value;

use crate::support::Place;

/// A folder with prompts and the base of a student.
pub(crate) fn furnish(prompts: impl IntoIterator<Item = String>) -> Place {
    let place = Place::empty();
    assert_eq!(place.run("lab unpack --out teacher").code, 0);
    let mut lines = String::new();
    for prompt in prompts {
        writeln!(lines, "{{\"prompt\": \"{prompt}\"}}").unwrap();
    }
    place.write("prompts.jsonl", &lines);
    place
}

/// What stands between the braces of a recipe's `prices`, as a price list.
pub(crate) fn price_list(prices: &str) -> PriceList {
    toml::from_str(&prices.replace(", ", "\n")).unwrap()
}

/// Writes the recipe `name`, which asks at `url` and puts the answers into a file of its own name.
pub(crate) fn write_recipe(place: &Place, name: &str, url: &str, prices: &str, ask: &str) {
    let text = format!(
        r#"
out = "student"
[teacher]
name = "vendor"
basis = "a test"
prices = {{ {prices} }}
[capture]
source = "{name}.jsonl"
[capture.ask]
url = "{url}"
prompts = "prompts.jsonl"
max_tokens = 20
{ask}
[student]
name = "student"
init = "teacher"
"#
    );
    place.write(&format!("{name}.toml"), &text);
}

/// Captures as `words` say, and gives what was said of it.
pub(crate) fn capture(place: &Place, words: &str) -> Value {
    let done = place.run(&format!("distill capture {words} --json"));
    assert_eq!(done.code, 0, "{}", done.err);
    serde_json::from_str(&done.out).unwrap()
}

/// The file of shards of a capture, which has one.
pub(crate) fn shards(place: &Place, capture: &str) -> Vec<u8> {
    let names =
        std::fs::read_dir(place.path(".")).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    let own: Vec<String> =
        names.filter(|name| name.starts_with(&format!("{capture}.")) && name.contains(".told")).collect();
    assert_eq!(own.len(), 1, "{own:?}");
    let name = &own[0];
    assert!(place.read(capture).contains(name.split('.').rev().nth(1).unwrap()), "its rows name it");
    std::fs::read(place.path(name)).unwrap()
}

pub(crate) fn nanos(amount: &Value) -> i64 {
    serde_json::from_value::<Money>(amount.clone()).unwrap().nanos()
}
