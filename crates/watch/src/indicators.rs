//! What may be told to other providers of a campaign: an indicator bundle (STIX 2.1, OASIS 2021), without personal data.
//!
//! In it are counts, shares, rates and hours, and the kinds of evidence in words. Not in it, not even hashed, are accounts, operators,
//! networks, software, payments, keys, grants, terms, models and prompts: a hash of a name can be tried out, and an hour of a
//! single exchange may be somebody's. Times are cut to the hour.
//!
//! The identifiers are UUIDs of version 5 under a namespace of our own (the one that the standard fixes is for observables, of
//! which there are none here), so that the same campaign has the same identifier in the next bundle.

use std::collections::BTreeSet;

use anbiq_domain::Timestamp;
use serde_json::{Value, json};
use sha1::{Digest as _, Sha1};

use crate::report::{Campaign, Operator, Report};

/// The namespace of our identifiers; drawn once.
const NAMESPACE: [u8; 16] =
    [0x5e, 0x0c, 0x8d, 0x9b, 0x1f, 0x43, 0x4b, 0x6e, 0x9a, 0x27, 0xd3, 0x64, 0x0b, 0xf8, 0x71, 0xc5];
/// When the objects that are the same in every bundle were first made.
const SINCE: &str = "2026-11-26T00:00:00Z";
/// TLP:GREEN as the standard defines it: for the community.
const GREEN: &str = "marking-definition--34098fce-860f-48ae-8e50-ebd3cc5e41da";
const HOUR: i64 = 3_600_000;

/// The campaigns of `report` as a bundle of STIX 2.1, marked TLP:GREEN. The same report gives the same bundle.
pub fn indicators(report: &Report) -> Value {
    let identity = id("identity", "anbiq watch");
    let pattern = id("attack-pattern", "AML.T0024.002");
    let mut objects = vec![
        json!({
            "type": "marking-definition", "spec_version": "2.1", "id": GREEN, "created": "2017-01-20T00:00:00.000Z",
            "definition_type": "tlp", "name": "TLP:GREEN", "definition": {"tlp": "green"},
        }),
        json!({
            "type": "identity", "spec_version": "2.1", "id": identity, "created": SINCE, "modified": SINCE,
            "name": "anbiq watch", "identity_class": "system", "object_marking_refs": [GREEN],
            "description": "A detector of distillation campaigns in the traffic of a language model's API.",
        }),
    ];
    let mut used = BTreeSet::new();
    for (operator, campaign) in report.campaigns() {
        let begun = hour(campaign.started);
        // Of two campaigns that begin in one hour the second has another number.
        let number = (1..).find(|number| used.insert((begun.clone(), *number))).unwrap_or(1);
        objects.extend(told(operator, campaign, &format!("{begun} {number}"), &identity, &pattern));
    }
    if !used.is_empty() {
        objects.push(json!({
            "type": "attack-pattern", "spec_version": "2.1", "id": pattern, "created": SINCE, "modified": SINCE,
            "created_by_ref": identity, "object_marking_refs": [GREEN], "name": "Extract AI Model",
            "external_references": [{
                "source_name": "mitre-atlas", "external_id": "AML.T0024.002",
                "url": "https://atlas.mitre.org/techniques/AML.T0024.002",
            }],
        }));
    }
    let all: Vec<&str> = objects.iter().filter_map(|object| object["id"].as_str()).collect();
    json!({"type": "bundle", "id": id("bundle", &format!("{} {}", hour(report.last), all.join(" "))), "objects": objects})
}

/// The objects of one campaign: itself, how to know its like, and what both have to do with each other and with the technique.
fn told(operator: &Operator, campaign: &Campaign, name: &str, identity: &str, pattern: &str) -> Vec<Value> {
    let (begun, ended) = (hour(campaign.started), hour(operator.last));
    let object = |kind: &str, rest: Value| {
        let mut object = json!({
            "type": kind, "spec_version": "2.1", "id": id(kind, &format!("{name} {}", rest["relationship_type"])),
            "created": begun, "modified": ended, "created_by_ref": identity, "object_marking_refs": [GREEN],
        });
        if let (Some(object), Value::Object(rest)) = (object.as_object_mut(), rest) {
            object.extend(rest);
        }
        object
    };
    let accounts = operator.accounts.len();
    let campaign = object(
        "campaign",
        json!({
            "name": format!("Distillation over {accounts} accounts"),
            "description": describe(operator, campaign),
            "objective": "Answers of a language model, to train another one on them.",
            "first_seen": begun, "last_seen": ended,
        }),
    );
    let indicator = object(
        "indicator",
        json!({
            "name": format!("Linked accounts that harvest alike, {accounts} of them"),
            "description": "Of a group of accounts that independent kinds of evidence link; of no account alone.",
            "indicator_types": ["anomalous-activity"],
            "pattern": observable(operator), "pattern_type": "stix", "pattern_version": "2.1", "valid_from": begun,
        }),
    );
    let relation = |kind: &str, from: &str, to: &str| {
        object("relationship", json!({"relationship_type": kind, "source_ref": from, "target_ref": to}))
    };
    let name = |object: &Value| object["id"].as_str().unwrap_or_default().to_owned();
    let (of_campaign, of_indicator) = (name(&campaign), name(&indicator));
    let relations = [relation("indicates", &of_indicator, &of_campaign), relation("uses", &of_campaign, pattern)];
    [campaign, indicator].into_iter().chain(relations).collect()
}

fn describe(operator: &Operator, campaign: &Campaign) -> String {
    let mut sentences = vec![format!(
        "{} accounts of one operator (certainty {:.3}) took {} exchanges and {} output tokens.",
        operator.accounts.len(),
        operator.certainty,
        operator.exchanges,
        operator.output_tokens
    )];
    let kinds: BTreeSet<&str> =
        operator.accounts.iter().flat_map(|member| member.reasons.iter().map(|reason| reason.channel.name())).collect();
    sentences.push(format!("Linked by {}.", kinds.into_iter().collect::<Vec<_>>().join(", ")));
    if let Some(leak) = campaign.leaked {
        sentences.push(format!(
            "At the first alarm, in the hour from {}, {} exchanges and {} output tokens were gone.",
            hour(leak.by),
            leak.exchanges,
            leak.output_tokens
        ));
    }
    sentences.extend(operator.purpose.reasons.iter().map(|reason| format!("For it: {reason}.")));
    sentences.extend(operator.purpose.counter.iter().map(|reason| format!("Against it: {reason}.")));
    sentences.join(" ")
}

/// What such a group looks like, in rounded figures: its size, the pace of an account, and how much of the tokens are answers.
fn observable(operator: &Operator) -> String {
    let mut paces: Vec<f64> = operator.accounts.iter().map(|member| member.per_hour).collect();
    paces.sort_by(f64::total_cmp);
    let pace = paces.get(paces.len() * 9 / 10).copied().unwrap_or_default();
    let tokens = (operator.prompt_tokens + operator.output_tokens).max(1);
    let share = operator.output_tokens as f64 / tokens as f64;
    format!(
        "[x-llm-account-group:accounts >= {} AND x-llm-account-group:exchanges_per_account_hour <= {:.1} AND \
         x-llm-account-group:answer_token_share >= {:.2}]",
        operator.accounts.len().div_ceil(2),
        (10.0 * pace).ceil() / 10.0,
        (20.0 * share).floor() / 20.0
    )
}

/// The hour that `at` is in.
fn hour(at: Timestamp) -> String {
    Timestamp::from_milliseconds(at.milliseconds().div_euclid(HOUR) * HOUR).to_string()
}

/// An identifier of an object of `kind`: the UUID of version 5 (RFC 9562) of its `name`.
fn id(kind: &str, name: &str) -> String {
    let hash = Sha1::new().chain_update(NAMESPACE).chain_update(kind).chain_update([0]).chain_update(name).finalize();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash[..16]);
    bytes[6] = bytes[6] & 0x0f | 0x50;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{kind}--{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}
