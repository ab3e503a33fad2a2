//! The indicator bundle: by the rules of STIX 2.1, and without anything of anybody.

use std::collections::{BTreeMap, BTreeSet};

use anbiq_domain::{AccountId, Entry, GrantId, KeyId, Keyed, TermsId};
use anbiq_watch::{Config, analyze, indicators};
use serde_json::Value;

use crate::alarms::config;
use crate::compose::{Operator, World, world};

const CANARY: &str = "canary";

/// A world in which every name of somebody's bears the canary, and all its keyed hashes.
fn marked() -> (World, BTreeSet<Keyed>) {
    let mut world = world(1, Operator::Sloppy);
    let mut hashes = BTreeSet::new();
    let account = |id: &AccountId| AccountId::new(format!("{CANARY}-{id}")).unwrap();
    for entry in &mut world.entries {
        match entry {
            Entry::AccountOpened { account: id, payment, .. } => {
                *id = account(id);
                hashes.extend(*payment);
            }
            Entry::TermsIssued { terms, .. } => {
                terms.id = TermsId::new("canary-terms").unwrap();
                terms.teacher = "canary-teacher".to_owned();
                terms.text = "canary words".to_owned();
            }
            Entry::GrantGiven { grant } => {
                grant.account = account(&grant.account);
                grant.id = GrantId::new("canary-grant").unwrap();
            }
            Entry::Exchange(exchange) => {
                exchange.account = account(&exchange.account);
                exchange.key = KeyId::new("canary-key").unwrap();
                exchange.model = "canary-teacher".to_owned();
                if let Some(terms) = &mut exchange.terms {
                    terms.id = TermsId::new("canary-terms").unwrap();
                }
                if let Some(grant) = &mut exchange.grant {
                    *grant = GrantId::new("canary-grant").unwrap();
                }
                let (client, sketch) = (exchange.client, &exchange.sketch);
                hashes.extend([client.network, client.address, client.agent, sketch.exact, sketch.opening]);
            }
            _ => {}
        }
    }
    (world, hashes)
}

#[test]
fn nothing_of_anybody_is_in_the_bundle() {
    let (world, hashes) = marked();
    let report = analyze(world.entries.into_iter(), &config());
    let found = serde_json::to_string(&report).unwrap();
    assert_eq!(report.campaigns().count(), 1);
    assert!(found.contains("canary-terms") && found.contains("canary-user") && found.contains("canary-grant"));
    let bundle = indicators(&report).to_string();
    assert!(bundle.contains("campaign--"), "{bundle}");
    let mut secrets = vec![CANARY.to_owned(), "op-".to_owned()];
    secrets.extend(hashes.iter().flat_map(|hash| [hash.to_string(), hash.0.to_string()]));
    for (operator, _) in report.campaigns() {
        let id = operator.id.as_str().trim_start_matches("op-").to_owned();
        secrets.extend([id, operator.first.to_string(), operator.last.to_string()]);
    }
    for secret in secrets {
        assert!(!bundle.contains(&secret), "`{secret}` is in {bundle}");
    }
}

/// The rules of the standard that a program can check: what each kind of object must have, and that references lead somewhere.
#[test]
fn the_bundle_keeps_the_rules_of_stix() {
    let report = analyze(world(1, Operator::Sloppy).entries.into_iter(), &Config::default());
    let bundle = indicators(&report);
    assert_eq!(bundle, indicators(&report));
    assert_eq!(bundle["type"], "bundle");
    assert!(bundle.get("spec_version").is_none(), "only its objects have one");
    let required: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("marking-definition", &["created", "definition_type", "definition"][..]),
        ("identity", &["created", "modified", "name"]),
        ("attack-pattern", &["created", "modified", "name"]),
        ("campaign", &["created", "modified", "name", "first_seen", "last_seen"]),
        ("indicator", &["created", "modified", "pattern", "pattern_type", "valid_from", "indicator_types"]),
        ("relationship", &["created", "modified", "relationship_type", "source_ref", "target_ref"]),
    ]);
    let objects = bundle["objects"].as_array().unwrap();
    let ids: BTreeSet<&str> = objects.iter().map(|object| object["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), objects.len());
    for object in objects {
        let kind = object["type"].as_str().unwrap();
        assert_eq!(object["spec_version"], "2.1");
        assert!(is_id(object["id"].as_str().unwrap(), kind), "{object}");
        for name in required[kind] {
            assert!(!object[name].is_null(), "{kind} without {name}");
        }
        for (name, value) in object.as_object().unwrap() {
            let references = match value {
                Value::String(id) if name.ends_with("_ref") => vec![id.as_str()],
                Value::Array(all) if name.ends_with("_refs") => all.iter().map(|id| id.as_str().unwrap()).collect(),
                Value::String(at) if matches!(name.as_str(), "created" | "modified" | "first_seen" | "valid_from") => {
                    assert!(at.ends_with('Z') && at.as_bytes()[10] == b'T', "{at}");
                    vec![]
                }
                _ => vec![],
            };
            assert!(references.iter().all(|id| ids.contains(id)), "{object}");
        }
        assert!(object["modified"].is_null() || object["modified"].as_str() >= object["created"].as_str(), "{object}");
    }
    let kinds: BTreeSet<&str> = objects.iter().map(|object| object["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, required.keys().copied().collect());
}

#[test]
fn without_a_campaign_nothing_is_told_of_anybody() {
    let report = analyze(world(1, Operator::None).entries.into_iter(), &Config::default());
    let bundle = indicators(&report);
    let kinds: Vec<&str> =
        bundle["objects"].as_array().unwrap().iter().map(|object| object["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["marking-definition", "identity"]);
}

/// `kind--` and a UUID of version 5.
fn is_id(id: &str, kind: &str) -> bool {
    let Some(uuid) = id.strip_prefix(kind).and_then(|rest| rest.strip_prefix("--")) else { return false };
    let lengths: Vec<usize> = uuid.split('-').map(str::len).collect();
    let version = uuid.as_bytes()[14];
    // The standard's own marking has version 4.
    lengths == [8, 4, 4, 4, 12]
        && (version == b'5' || kind == "marking-definition")
        && b"89ab".contains(&uuid.as_bytes()[19])
}
