//! The rules of the house: which room may know which, and what stands in every manifest.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, MetadataCommand};

/// Who may know whom. A room that is not named on the right is not known; `domain` and `secret` know nobody.
const MAY_KNOW: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("secret", &[]),
    ("openai", &["domain"]),
    ("statistics", &["domain"]),
    ("ledger", &["domain", "secret"]),
    ("journal", &["domain", "secret"]),
    ("model", &["domain", "secret"]),
    ("watermark", &["domain", "statistics"]),
    ("lm", &["domain", "model", "watermark"]),
    ("upstream", &["domain", "secret", "model", "openai"]),
    ("lake", &["domain", "journal"]),
    ("evidence", &["domain", "secret", "journal"]),
    ("serve", &["domain", "secret", "openai", "statistics", "ledger", "journal", "model"]),
    ("desk", &["domain", "secret", "ledger", "journal"]),
    ("distill", &["domain", "secret", "openai", "statistics", "model", "upstream", "lm"]),
    ("import", &["domain", "statistics"]),
    ("watch", &["domain", "statistics", "evidence"]),
    ("trace", &["domain", "model", "statistics", "watermark"]),
    ("verify", &["domain", "evidence", "journal", "trace"]),
    ("arena", &["domain", "statistics", "watch", "lab"]),
    ("lab", &["domain", "secret", "openai", "model", "upstream", "lm"]),
];

/// The binary glues everything together and is known by nobody.
const GLUE: &str = "cli";

fn rooms() -> BTreeMap<String, BTreeSet<String>> {
    let metadata = MetadataCommand::new().no_deps().exec().unwrap();
    let room = |package: &str| package.strip_prefix("anbiq-").map(str::to_owned);
    metadata
        .workspace_packages()
        .into_iter()
        .filter_map(|package| {
            let known = package
                .dependencies
                .iter()
                .filter(|dependency| dependency.kind == DependencyKind::Normal)
                .filter_map(|dependency| room(&dependency.name))
                .collect();
            Some((room(&package.name)?, known))
        })
        .collect()
}

#[test]
fn data_flows_one_way() {
    let rooms = rooms();
    let rules: BTreeMap<&str, &[&str]> = MAY_KNOW.iter().copied().collect();
    let mut offences = Vec::new();
    for (room, known) in &rooms {
        if room == GLUE {
            continue;
        }
        let Some(allowed) = rules.get(room.as_str()) else {
            offences.push(format!("`{room}` has no rule: give it a line in MAY_KNOW and in ARCHITECTURE.md"));
            continue;
        };
        for other in known {
            if !allowed.contains(&other.as_str()) {
                offences.push(format!("`{room}` must not know `{other}`"));
            }
        }
    }
    for room in rules.keys() {
        if !rooms.contains_key(*room) {
            offences.push(format!("`{room}` has a rule but no folder"));
        }
    }
    assert!(offences.is_empty(), "{}", offences.join("\n"));
}

#[test]
fn folders_and_packages_have_the_same_names() {
    let metadata = MetadataCommand::new().no_deps().exec().unwrap();
    for package in metadata.workspace_packages() {
        let folder = package.manifest_path.parent().and_then(|path| path.file_name()).unwrap();
        let name = package.name.strip_prefix("anbiq-").unwrap_or(&package.name);
        assert_eq!(folder, name);
        assert!(package.description.is_some(), "`{}` says what it is", package.name);
    }
}

#[test]
fn every_manifest_takes_the_lints_of_the_workspace() {
    let metadata = MetadataCommand::new().no_deps().exec().unwrap();
    for package in metadata.workspace_packages() {
        let manifest = std::fs::read_to_string(&package.manifest_path).unwrap();
        assert!(manifest.contains("[lints]\nworkspace = true"), "{}", package.manifest_path);
    }
}
