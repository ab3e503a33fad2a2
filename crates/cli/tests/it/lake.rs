//! `anbiq lake`: questions in SQL over journals and imported logs.
//!
//! What needs the engine is compiled only where it is built in: `cargo xtask prove lake` does.

#[cfg(feature = "cluster")]
mod cluster;
#[cfg(feature = "lake")]
mod local;
#[cfg(feature = "lake")]
mod oracle;
#[cfg(feature = "lake")]
mod world;

use insta::assert_snapshot;

use crate::support::Place;

#[test]
fn the_questions_can_be_listed_and_read_whatever_is_built() {
    let place = Place::empty();
    let listed = place.run("lake list");
    assert_eq!(listed.code, 0, "{}", listed.err);
    let first: Vec<&str> = listed.out.lines().take(3).collect();
    assert_snapshot!(first.join("\n"), @r#"
    accounts   what each account did: how much, when, with how many prompts, templates, networks, addresses and programs
                 account="": only this account; all where it is empty
    days       accounts, exchanges, tokens, cost and failures of each day (UTC)
    "#);
    let names: Vec<serde_json::Value> = serde_json::from_str(&place.run("lake list --json").out).unwrap();
    for query in names {
        let name = query["name"].as_str().unwrap();
        assert!(listed.out.contains(query["answers"].as_str().unwrap()), "{name}");
        let shown = place.run(&format!("lake show {name}"));
        assert!(
            shown.code == 0 && shown.out.contains("ORDER BY"),
            "`{name}` gives its rows in an order: {}",
            shown.err
        );
    }
    assert_snapshot!(place.run("lake show nobody").told(), @r"
    exit 2
    error: there is no query `nobody`
    hint: there are `accounts`, `days`, `grants`, `handovers`, `hours`, `models`, `networks`, `openings`, `payments`, `repeats`, `shared`, `spread`, `templates`, `usage`
    ");
}

#[test]
fn a_question_that_cannot_be_asked_says_why() {
    let place = Place::empty();
    assert_snapshot!(place.run("lake run nobody --journal journal").told(), @r"
    exit 2
    error: there is no query `nobody`
    hint: there are `accounts`, `days`, `grants`, `handovers`, `hours`, `models`, `networks`, `openings`, `payments`, `repeats`, `shared`, `spread`, `templates`, `usage`
    ");
    assert_snapshot!(place.run("lake run days --journal journal --param colour=red").told(), @r"
    exit 2
    error: the query `days` has no parameter `colour`
    hint: its parameters are `since`, `until`, `limit`
    ");
    assert_snapshot!(place.run("lake run days --journal journal --param since=yesterday").told(), @r"
    exit 2
    error: `yesterday` is no value for `since`, which is a time such as `2026-04-22` or `2026-04-22T08:00:00Z`
    ");
    assert_snapshot!(place.run("lake run networks --journal journal --param accounts=-1").told(), @r"
    exit 2
    error: `-1` is no value for `accounts`, which is a whole number from 0 to 4294967295
    ");
}

#[cfg(not(feature = "lake"))]
#[test]
fn a_program_without_the_engine_says_how_to_build_one() {
    let place = Place::empty();
    assert_snapshot!(place.run("lake run days --journal journal").told(), @r"
    exit 2
    error: this program was built without the engine for questions in SQL
    hint: `cargo build --release --package anbiq-cli --features lake` builds one that has it
    ");
    assert_snapshot!(place.run("lake scheduler").told(), @r"
    exit 2
    error: this program was built without the cluster
    hint: `cargo build --release --package anbiq-cli --features cluster` builds one that has it
    ");
}
