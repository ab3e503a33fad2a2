//! The shapes of what is asked and answered, as JSON Schemas of 2020-12. The bounds are those of `fields`.

use anbiq_ledger::{AdminRole, Scope};
use serde_json::{Map, Value, json};

use crate::fields::{LARGEST_COUNT, LAST_MOMENT, LINE, LONGEST_GRACE, TEXT};

const ID: &str = "^[A-Za-z0-9][A-Za-z0-9._:-]{0,63}$";
const MODEL: &str = "^[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,199}$";
const DOLLARS: &str = "^[0-9]{1,9}(\\.[0-9]{1,9})?$";
const VERSION: &str = "^[1-9][0-9]{0,8}$";
const HOLDER: &str = "^(account|key|operator):[A-Za-z0-9][A-Za-z0-9._:-]{0,63}$";
const PERIOD: &str = "^(total|month|week|day|[1-9][0-9]{0,3}h)$";
const BUDGET_CURSOR: &str = "^(account|key|operator):[A-Za-z0-9][A-Za-z0-9._:-]{0,63} (money|tokens) \
     (total|month|week|day|[1-9][0-9]{0,3}h)$";

/// All named schemas.
pub(crate) fn schemas() -> Value {
    let mut all = Map::new();
    for (name, schema) in words().into_iter().chain(asked()).chain(answered()) {
        all.insert(name.to_owned(), schema);
    }
    Value::Object(all)
}

/// Where the schema `name` stands in the document.
pub(crate) fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// The schema of the path's part `name`.
pub(crate) fn of_path(name: &str) -> Value {
    match name {
        "model" => reference("ModelName"),
        "holder" => reference("Holder"),
        "window" => reference("Window"),
        "version" => json!({ "type": "string", "pattern": VERSION }),
        "code" => json!({ "type": "string", "pattern": "^[a-z_]{1,64}$" }),
        _ => reference("Id"),
    }
}

/// The schema of the cursor of the list `operation`.
pub(crate) fn of_cursor(operation: &str) -> Value {
    match operation {
        "listPrices" => reference("ModelName"),
        "listBudgets" | "listBudgetsOfAccount" => json!({ "type": "string", "pattern": BUDGET_CURSOR }),
        _ => reference("Id"),
    }
}

type Named = (&'static str, Value);

fn words() -> Vec<Named> {
    let line = format!("^[^\\u0000-\\u001F\\u007F]{{1,{LINE}}}$");
    vec![
        ("Anything", json!({ "type": "object" })),
        ("Id", json!({ "type": "string", "pattern": ID, "description": "a name, which never changes" })),
        ("ModelName", json!({ "type": "string", "pattern": MODEL, "description": "the name that requests use" })),
        (
            "Dollars",
            json!({ "type": "string", "pattern": DOLLARS, "examples": ["12.50"], "description": "an amount of US dollars" }),
        ),
        (
            "Money",
            json!({
                "type": "string", "pattern": "^-?[0-9]+\\.[0-9]{2,9}$",
                "description": "an amount of US dollars, to the nano-dollar",
            }),
        ),
        (
            "Moment",
            json!({
                "type": "integer", "minimum": 0, "maximum": LAST_MOMENT,
                "description": "milliseconds since 1970-01-01 UTC",
            }),
        ),
        ("Line", json!({ "type": "string", "pattern": line, "minLength": 1, "maxLength": LINE })),
        ("Text", json!({ "type": "string", "pattern": "^[^\\u0000]+$", "minLength": 1, "maxLength": TEXT })),
        ("Count", json!({ "type": "integer", "minimum": 0, "maximum": LARGEST_COUNT })),
        ("Positive", json!({ "type": "integer", "minimum": 1, "maximum": u32::MAX })),
        ("Small", json!({ "type": "integer", "minimum": 0, "maximum": u32::MAX })),
        ("Digest", json!({ "type": "string", "pattern": "^[0-9a-f]{64}$", "description": "SHA-256, in hexadecimal" })),
        ("Role", choice(AdminRole::ALL.map(AdminRole::as_str).as_slice())),
        ("Permission", choice(&["allowed", "conditions", "grant_required", "forbidden", "unknown"])),
        ("Scope", choice(Scope::ALL.map(Scope::as_str).as_slice())),
        ("Unit", choice(&["money", "tokens"])),
        ("Holder", json!({ "type": "string", "pattern": HOLDER, "examples": ["account:acme"] })),
        (
            "Window",
            json!({ "type": "string", "pattern": PERIOD, "description": "of the calendar in UTC, or so many hours" }),
        ),
        ("TextPolicy", choice(&["off", "twinned", "plain", "sealed_twinned", "sealed"])),
        ("Purpose", choice(&["research", "education", "classification", "internal", "product"])),
        ("PriceClass", choice(&["standard", "distillation", "batch"])),
        ("GrantState", choice(&["asked", "refused", "active", "expired", "revoked", "used_up"])),
    ]
}

/// What bodies of requests hold.
fn asked() -> Vec<Named> {
    let (id, dollars, line) = (reference("Id"), reference("Dollars"), reference("Line"));
    let (moment, positive, small) = (reference("Moment"), reference("Positive"), reference("Small"));
    let grant = json!({
        "id": id, "terms": reference("TermsRef"), "purpose": line, "conditions": reference("Conditions"),
        "expires": or_null(&moment),
    });
    vec![
        (
            "NewAccount",
            object(
                json!({ "id": id, "plan": id, "payment": or_null(&line), "budget": or_null(&dollars) }),
                &["id", "plan"],
            ),
        ),
        ("NewBudget", object(json!({ "limit": dollars }), &["limit"])),
        ("AccountChange", object(json!({ "plan": id, "operator": or_null(&id) }), &["plan"])),
        ("NewTokenBudget", object(json!({ "limit": reference("Count") }), &["limit"])),
        ("NewUser", object(json!({ "id": id, "name": or_null(&line) }), &["id"])),
        (
            "NewKey",
            object(
                json!({
                    "name": or_null(&line),
                    "user": or_null(&id),
                    "scopes": reference("Scopes"),
                    "expires": or_null(&moment),
                }),
                &[],
            ),
        ),
        (
            "Scopes",
            object(
                json!({
                    "routes": or_null(&array(&reference("Scope"))),
                    "models": or_null(&array(&reference("ModelName"))),
                }),
                &[],
            ),
        ),
        (
            "Rotation",
            object(json!({ "grace_ms": { "type": "integer", "minimum": 0, "maximum": LONGEST_GRACE } }), &["grace_ms"]),
        ),
        (
            "NewAdminKey",
            object(
                json!({
                    "role": reference("Role"),
                    "account": or_null(&id),
                    "note": or_null(&line),
                    "expires": or_null(&moment),
                }),
                &["role"],
            ),
        ),
        (
            "NewPlan",
            object(plan(&positive, &small), &["text_policy", "twin_share", "twin_first", "max_n", "max_tokens"]),
        ),
        (
            "Prices",
            object(
                json!({
                    "input": dollars, "cached_input": or_null(&dollars), "output": dollars,
                    "distillation_output": or_null(&dollars), "batch_percent": or_null(&percent()),
                }),
                &["input", "output"],
            ),
        ),
        ("TermsRef", object(json!({ "id": id, "version": positive }), &["id", "version"])),
        (
            "Conditions",
            object(
                json!({
                    "max_student_parameters": or_null(&reference("Count")),
                    "max_output_tokens": or_null(&reference("Count")),
                    "max_student_percent": or_null(&small),
                    "teacher_parameters": or_null(&reference("Count")),
                    "competing_use": { "type": "boolean" },
                    "purposes": { "type": "array", "items": reference("Purpose") },
                    "attribution": or_null(&line),
                    "name_prefix": or_null(&line),
                    "notices": { "type": "array", "items": line },
                    "licence": or_null(&line),
                    "price_class": or_null(&reference("PriceClass")),
                    "output_price": or_null(&dollars),
                    "beyond_terms": or_null(&line),
                }),
                &[],
            ),
        ),
        ("NewTerms", object(terms(&id, &positive), &["id", "version", "teacher", "distillation", "text"])),
        ("NewGrant", object(with_account(grant.clone(), &id), &["id", "account", "terms", "purpose"])),
        ("GrantRequest", object(grant, &["id", "terms", "purpose"])),
        ("Approval", object(json!({ "conditions": reference("Conditions"), "expires": or_null(&moment) }), &[])),
        ("Refusal", object(json!({ "reason": line }), &["reason"])),
    ]
}

/// What answers hold.
fn answered() -> Vec<Named> {
    let (id, money, moment) = (reference("Id"), reference("Money"), reference("Moment"));
    let text = json!({ "type": "string" });
    let prices = json!({
        "input": money, "cached_input": money, "output": money, "distillation_output": money,
        "batch_percent": percent(),
    });
    let measure = json!({ "oneOf": [
        object(json!({ "money": money }), &["money"]),
        object(json!({ "tokens": reference("Count") }), &["tokens"]),
    ] });
    let holder = json!({ "oneOf": [
        object(json!({ "account": id }), &["account"]),
        object(json!({ "key": id }), &["key"]),
        object(json!({ "operator": id }), &["operator"]),
    ] });
    let mut all = vec![
        (
            "Account",
            whole(json!({
                "id": id, "plan": id, "operator": or_null(&id), "payment": or_null(&text), "opened": moment, "closed": or_null(&moment),
            })),
        ),
        ("Budget", whole(json!({ "limit": or_null(&money), "spent": money, "reserved": money }))),
        ("Acceptance", whole(json!({ "terms": reference("TermsRef"), "accepted": moment }))),
        (
            "Key",
            object(
                json!({
                    "id": id, "account": id, "name": text, "user": id, "scopes": reference("Scopes"), "root": id,
                    "issued": moment, "expires": moment, "revoked": moment,
                }),
                &["id", "account", "scopes", "root", "issued"],
            ),
        ),
        (
            "User",
            object(json!({ "account": id, "id": id, "name": text, "added": moment }), &["account", "id", "added"]),
        ),
        ("RemovedUser", whole(json!({ "account": id, "user": id, "revoked_keys": reference("Count") }))),
        ("Measure", measure),
        ("BudgetHolder", holder),
        (
            "BudgetOfWindow",
            whole(json!({
                "holder": reference("BudgetHolder"), "window": reference("Window"), "limit": reference("Measure"),
            })),
        ),
        (
            "BudgetUse",
            object(
                json!({
                    "holder": reference("BudgetHolder"), "window": reference("Window"), "limit": reference("Measure"),
                    "spent": reference("Measure"), "reserved": reference("Measure"), "ends": moment,
                }),
                &["holder", "window", "limit", "spent", "reserved"],
            ),
        ),
        (
            "RemovedBudget",
            whole(json!({
                "holder": reference("BudgetHolder"), "window": reference("Window"), "unit": reference("Unit"),
            })),
        ),
        ("IssuedKey", whole(json!({ "key": reference("Key"), "secret": text }))),
        (
            "AdminKey",
            whole(json!({
                "id": id, "role": reference("Role"), "account": or_null(&id), "note": or_null(&text),
                "issued": moment, "expires": or_null(&moment), "revoked": or_null(&moment),
            })),
        ),
        ("IssuedAdminKey", whole(json!({ "key": reference("AdminKey"), "secret": text }))),
        ("Me", whole(json!({ "key": reference("AdminKey"), "now": moment }))),
        ("Plan", {
            let mut plan = plan(&reference("Small"), &reference("Small"));
            plan["id"] = id.clone();
            whole(plan)
        }),
        ("PriceList", object(prices, &["input", "output"])),
        ("PricesOfModel", whole(json!({ "model": text, "prices": reference("PriceList") }))),
        ("PricesSince", whole(json!({ "since": moment, "prices": reference("PriceList") }))),
        ("Terms", {
            let mut terms = terms(&id, &reference("Positive"));
            terms["teacher"] = text.clone();
            terms["text"] = text.clone();
            whole(terms)
        }),
        (
            "Grant",
            object(
                json!({
                    "id": id, "account": id, "terms": reference("TermsRef"), "purpose": text,
                    "conditions": reference("Conditions"), "given": moment, "expires": moment,
                    "state": reference("GrantState"), "used": reference("Count"), "reserved": reference("Count"),
                    "asked": moment, "revoked": or_null(&moment), "refused": text,
                }),
                &["id", "account", "terms", "purpose", "conditions", "given", "state", "used", "reserved", "revoked"],
            ),
        ),
        (
            "Model",
            whole(json!({
                "model": text, "embedded": { "type": "boolean" }, "servers": reference("Count"),
                "prices": or_null(&reference("PriceList")), "terms": or_null(&reference("TermsRef")),
            })),
        ),
        ("Checkpoint", whole(json!({ "size": reference("Count"), "root": reference("Digest"), "note": text }))),
        (
            "JournalState",
            whole(json!({
                "journal": text, "public_key": text, "entries": reference("Count"), "root": reference("Digest"),
                "last_checkpoint": or_null(&reference("Checkpoint")),
            })),
        ),
        ("Changes", {
            let names = json!({ "type": "array", "items": text });
            whole(json!({ "plans": names, "prices": names, "terms": names, "after_restart": names }))
        }),
        ("Reloaded", whole(json!({ "at": moment, "changed": reference("Changes") }))),
        (
            "ProblemKind",
            whole(json!({
                "type": { "type": "string", "format": "uri-reference" }, "code": text,
                "status": reference("Small"), "title": text,
            })),
        ),
        ("Fault", whole(json!({ "pointer": text, "detail": text }))),
        (
            "Problem",
            object(
                json!({
                    "type": { "type": "string", "format": "uri-reference" }, "title": text,
                    "status": reference("Small"), "code": text, "detail": text, "hint": text,
                    "errors": { "type": "array", "items": reference("Fault") },
                }),
                &["type", "title", "status", "code", "detail"],
            ),
        ),
    ];
    for (page, item) in [
        ("Accounts", "Account"),
        ("Users", "User"),
        ("Budgets", "BudgetUse"),
        ("Keys", "Key"),
        ("Plans", "Plan"),
        ("PricesOfModels", "PricesOfModel"),
        ("TermsList", "Terms"),
        ("Grants", "Grant"),
        ("AdminKeys", "AdminKey"),
    ] {
        let items = json!({ "type": "array", "items": reference(item) });
        let next = json!({ "type": ["string", "null"], "description": "`after` of the next page, where there is one" });
        all.push((page, whole(json!({ "items": items, "next": next }))));
    }
    for (list, item) in [
        ("Acceptances", "Acceptance"),
        ("PriceHistory", "PricesSince"),
        ("Models", "Model"),
        ("ProblemKinds", "ProblemKind"),
    ] {
        all.push((list, whole(json!({ "items": { "type": "array", "items": reference(item) } }))));
    }
    all
}

/// A grant with the account that it is for.
fn with_account(mut grant: Value, id: &Value) -> Value {
    grant["account"] = id.clone();
    grant
}

fn plan(positive: &Value, small: &Value) -> Value {
    json!({
        "text_policy": reference("TextPolicy"),
        "twin_mode": choice(&["together", "deferred"]),
        "twin_share": { "type": "number", "minimum": 0, "maximum": 1 },
        "twin_first": small,
        "twin_k": or_null(&json!({ "type": "integer", "minimum": 2, "maximum": 16 })),
        "twin_models": or_null(&json!({ "type": "array", "items": reference("ModelName") })),
        "max_logprobs": or_null(&json!({ "type": "integer", "minimum": 0, "maximum": u8::MAX })),
        "max_n": positive,
        "max_tokens": positive,
        "requests_per_minute": or_null(positive),
        "requests_per_day": or_null(positive),
        "tokens_per_minute": or_null(positive),
        "max_in_flight": or_null(positive),
        "max_body_bytes": or_null(positive),
    })
}

fn terms(id: &Value, positive: &Value) -> Value {
    json!({
        "id": id,
        "version": positive,
        "teacher": reference("ModelName"),
        "distillation": reference("Permission"),
        "conditions": reference("Conditions"),
        "text": reference("Text"),
    })
}

fn percent() -> Value {
    json!({ "type": "integer", "minimum": 0, "maximum": 100 })
}

fn array(items: &Value) -> Value {
    json!({ "type": "array", "items": items, "maxItems": 100 })
}

fn choice(names: &[&str]) -> Value {
    json!({ "type": "string", "enum": names })
}

fn or_null(schema: &Value) -> Value {
    json!({ "anyOf": [schema, { "type": "null" }] })
}

/// An object that holds these fields, some of them always, and no others.
fn object(properties: Value, required: &[&str]) -> Value {
    let mut schema = json!({ "type": "object", "required": required, "additionalProperties": false });
    schema["properties"] = properties;
    schema
}

/// An object that always holds all of these fields, and no others.
fn whole(properties: Value) -> Value {
    let names: Vec<String> = properties.as_object().map(|fields| fields.keys().cloned().collect()).unwrap_or_default();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    object(properties, &names)
}
