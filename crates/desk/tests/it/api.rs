//! What the operations do.

use std::sync::atomic::Ordering;

use anbiq_ledger::AdminRole;
use serde_json::{Value, json};

use crate::house::{House, NOW};

#[tokio::test]
async fn the_life_of_an_account() {
    let house = House::new().await;
    let new = json!({ "id": "fresh", "plan": "standard", "payment": "card 7", "budget": "12.5" });
    let opened = house.owner("POST", "/accounts", Some(new.clone())).await;
    assert_eq!((opened.status.as_u16(), opened.header("location")), (201, "/api/v1/accounts/fresh"));
    assert_eq!(opened.body["payment"], "card 7");
    assert_eq!(house.owner("POST", "/accounts", Some(new)).await.code(), "account_exists");
    let budget = house.owner("GET", "/accounts/fresh/budget", None).await.good();
    assert_eq!(budget, json!({ "limit": "12.50", "spent": "0.00", "reserved": "0.00" }));
    let budget = house.owner("PUT", "/accounts/fresh/budget", Some(json!({ "limit": "0.000000001" }))).await.good();
    assert_eq!(budget["limit"], "0.000000001");

    let issued = house.owner("POST", "/accounts/fresh/keys", Some(json!({}))).await;
    assert_eq!(issued.header("cache-control"), "no-store");
    let issued = issued.good();
    let secret = issued["secret"].as_str().unwrap();
    let session = house.ledger.authenticate(secret, NOW).await.unwrap();
    assert_eq!(session.account.as_str(), "fresh");
    let key = format!("/accounts/fresh/keys/{}", issued["key"]["id"].as_str().unwrap());
    assert_eq!(house.owner("GET", &key, None).await.good(), issued["key"]);
    let of_other = key.replace("fresh", "acme");
    assert_eq!(house.owner("POST", &format!("{of_other}/revoke"), None).await.code(), "unknown_key");
    assert_eq!(house.owner("POST", &format!("{key}/revoke"), None).await.good()["revoked"], NOW.milliseconds());
    assert_eq!(house.ledger.authenticate(secret, NOW).await.unwrap_err().code(), "key_revoked");

    let moved = json!({ "plan": "standard", "operator": "lab" });
    assert_eq!(house.owner("PUT", "/accounts/fresh", Some(moved)).await.good()["operator"], "lab");

    let accepted =
        house.owner("POST", "/accounts/fresh/acceptances", Some(json!({ "id": "rules", "version": 1 }))).await;
    assert_eq!(accepted.good()["terms"]["id"], "rules");
    let closed = house.owner("POST", "/accounts/fresh/close", None).await.good();
    assert_eq!(closed["closed"], NOW.milliseconds());
    assert_eq!(house.owner("POST", "/accounts/fresh/keys", Some(json!({}))).await.code(), "account_closed");

    let done: Vec<String> = house.done().into_iter().map(|(action, _)| action).collect();
    let expected = [
        "account.open",
        "budget.set",
        "budget.set",
        "key.issue",
        "key.revoke",
        "account.operator",
        "terms.accept",
        "account.close",
    ];
    assert_eq!(done, expected);
    assert!(!serde_json::to_string(&house.entries()).unwrap().contains(secret), "no secret is journalled");
}

#[tokio::test]
async fn keys_have_users_and_scopes_and_are_rotated() {
    let house = House::new().await;
    let new = json!({ "name": "laptop", "user": "ann", "scopes": { "routes": ["chat"], "models": ["teacher"] } });
    let first = house.owner("POST", "/accounts/acme/keys", Some(new)).await.good();
    assert_eq!((&first["key"]["user"], &first["key"]["scopes"]["models"]), (&json!("ann"), &json!(["teacher"])));
    let nobody = house.owner("POST", "/accounts/acme/keys", Some(json!({ "user": "bob" }))).await;
    assert_eq!((nobody.code(), &nobody.body["errors"][0]["pointer"]), ("refers_to_nothing", &json!("/user")));
    let path = format!("/accounts/acme/keys/{}", first["key"]["id"].as_str().unwrap());
    let second = house.owner("POST", &format!("{path}/rotate"), Some(json!({ "grace_ms": 1000 }))).await.good();
    assert_eq!((&second["key"]["root"], &second["key"]["user"]), (&first["key"]["id"], &json!("ann")));
    let holds = async |key: &Value, at| {
        let held = house.ledger.authenticate(key["secret"].as_str().unwrap(), at).await;
        held.map_or_else(|error| error.code(), |_| "holds")
    };
    let later = NOW.plus_milliseconds(1000);
    assert_eq!((holds(&first, NOW).await, holds(&first, later).await), ("holds", "key_expired"));
    assert_eq!(holds(&second, later).await, "holds");
    let removed = house.owner("POST", "/accounts/acme/users/ann/remove", None).await.good();
    assert_eq!(removed["revoked_keys"], 2);
    assert_eq!(holds(&second, NOW).await, "key_revoked");
    let again = house.owner("POST", &format!("{path}/rotate"), Some(json!({ "grace_ms": 0 }))).await;
    assert_eq!((again.status.as_u16(), again.code()), (409, "key_revoked"));
}

#[tokio::test]
async fn budgets_are_for_a_time() {
    let house = House::new().await;
    let set = async |path: &str, limit: Value| {
        house.owner("PUT", &format!("/budgets/{path}"), Some(json!({ "limit": limit }))).await
    };
    let key = house.keys[0].as_str();
    set("account:acme/month/money", json!("20")).await.good();
    set(&format!("key:{key}/6h/tokens"), json!(1000)).await.good();
    assert_eq!(set("operator:nobody/day/money", json!("1")).await.code(), "unknown_operator");
    for wrong in ["account:acme/year/money", "account:acme/06h/money", "group:acme/day/money"] {
        assert_eq!(set(wrong, json!("1")).await.code(), "unknown_budget", "{wrong}");
    }
    let all = house.owner("GET", "/budgets?limit=2", None).await.good();
    assert_eq!(all["items"].as_array().unwrap().len(), 2);
    let next = all["next"].as_str().unwrap().replace(' ', "%20");
    let rest = house.owner("GET", &format!("/budgets?after={next}"), None).await.good();
    let limits: Vec<_> = [&all, &rest].iter().flat_map(|page| page["items"].as_array().unwrap()).cloned().collect();
    assert_eq!(limits.len(), 4, "two of accounts for all time, and those that were set: {limits:?}");
    let own = house.owner("GET", "/accounts/acme/budgets", None).await.good();
    assert_eq!(own["items"].as_array().unwrap().len(), 2);
    assert_eq!(own["items"][0]["limit"], json!({ "money": "20.00" }));
    house.owner("DELETE", "/budgets/account:acme/month/money", None).await.good();
    assert_eq!(house.owner("DELETE", "/budgets/account:acme/month/money", None).await.code(), "unknown_budget");
}

#[tokio::test]
async fn lists_come_in_pages() {
    let house = House::new().await;
    for number in 0..5 {
        let new = json!({ "id": format!("page-{number}"), "plan": "standard" });
        house.owner("POST", "/accounts", Some(new)).await.good();
    }
    let (mut seen, mut after) = (Vec::new(), String::new());
    loop {
        let page = house.owner("GET", &format!("/accounts?limit=3{after}"), None).await.good();
        let items = page["items"].as_array().unwrap();
        assert!(items.len() <= 3);
        seen.extend(items.iter().map(|account| account["id"].as_str().unwrap().to_owned()));
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert_eq!(seen, ["acme", "other", "page-0", "page-1", "page-2", "page-3", "page-4"]);
    for version in [2, 10] {
        let terms = json!({
            "id": "rules", "version": version, "teacher": "teacher", "distillation": "forbidden", "text": "Do not.",
        });
        let issued = house.owner("POST", "/terms", Some(terms.clone())).await;
        assert_eq!(issued.header("location"), format!("/api/v1/terms/rules/versions/{version}"));
        let other = json!({ "text": "Do." });
        let changed = [terms, other].into_iter().fold(json!({}), |mut all: Value, some| {
            all.as_object_mut().unwrap().extend(some.as_object().unwrap().clone());
            all
        });
        assert_eq!(house.owner("POST", "/terms", Some(changed)).await.code(), "terms_changed");
    }
    let terms = house.owner("GET", "/terms", None).await.good();
    assert_eq!((terms["items"].as_array().unwrap().len(), &terms["items"][0]["version"]), (1, &json!(10)));
    assert_eq!(house.owner("GET", "/terms/rules", None).await.good()["version"], 10);
    assert_eq!(house.owner("GET", "/terms/rules/versions/3", None).await.code(), "unknown_terms");
}

#[tokio::test]
async fn a_request_is_carried_out_once() {
    let house = House::new().await;
    let ask = async |key: &str, name: &str| {
        let headers = [("idempotency-key", name)];
        house.ask("POST", "/api/v1/accounts/acme/keys", Some(key), &headers, Some("{}".to_owned())).await
    };
    assert_eq!(ask(&house.owner, "one").await.status, 201);
    let again = ask(&house.owner, "one").await;
    assert_eq!((again.status.as_u16(), again.code()), (409, "request_repeated"));
    let keys = house.owner("GET", "/accounts/acme/keys", None).await.good();
    assert_eq!(keys["items"].as_array().unwrap().len(), 2, "no second key was made");
    let (_, somebody) = house.admin_key(AdminRole::Operator, None, None).await;
    assert_eq!(ask(&somebody, "one").await.status, 201, "names of others do not matter");
    assert_eq!(ask(&house.owner, "").await.code(), "invalid_header");
    // What failed may be made again under its name.
    let open = async |plan: &str| {
        let body = json!({ "id": "fresh", "plan": plan }).to_string();
        house.ask("POST", "/api/v1/accounts", Some(&house.owner), &[("idempotency-key", "two")], Some(body)).await
    };
    assert_eq!(open("gold").await.code(), "refers_to_nothing");
    assert_eq!(open("standard").await.status, 201);
    house.clock.advance_to(NOW.plus_milliseconds(24 * 3_600_000));
    assert_eq!(ask(&house.owner, "one").await.status, 201, "a name is free after a day");
}

#[tokio::test]
async fn a_change_holds_only_under_its_condition() {
    let house = House::new().await;
    let path = "/api/v1/prices/teacher";
    let shown = house.owner("GET", "/prices/teacher", None).await;
    let tag = shown.header("etag").to_owned();
    let put = async |headers: &[(&str, &str)], input: &str| {
        let body = json!({ "input": input, "output": "2" }).to_string();
        house.ask("PUT", path, Some(&house.owner), headers, Some(body)).await
    };
    assert_eq!(put(&[("if-match", "\"00000000000000000000000000000000\"")], "3").await.code(), "changed_meanwhile");
    assert_eq!(put(&[("if-none-match", "*")], "3").await.code(), "changed_meanwhile");
    house.clock.advance_to(NOW.plus_milliseconds(1));
    assert_eq!(put(&[("if-match", &tag)], "3").await.status, 200);
    assert_eq!(put(&[("if-match", &tag)], "4").await.code(), "changed_meanwhile");
    assert_eq!(house.owner("GET", "/prices/teacher", None).await.good()["prices"]["input"], "3.00");
    let shown = house.owner("GET", "/prices/teacher", None).await;
    let known = house.ask("GET", path, Some(&house.owner), &[("if-none-match", shown.header("etag"))], None).await;
    assert_eq!((known.status.as_u16(), known.body), (304, Value::Null));
    let body = json!({ "input": "1", "output": "2" }).to_string();
    let slashed = "/api/v1/prices/maker%2Fmodel-1";
    let headers = [("if-none-match", "*")];
    let made = house.ask("PUT", slashed, Some(&house.owner), &headers, Some(body.clone())).await;
    assert_eq!(made.good()["model"], "maker/model-1");
    let headers = [("if-match", "*")];
    let absent = house.ask("PUT", "/api/v1/prices/nobody", Some(&house.owner), &headers, Some(body)).await;
    assert_eq!(absent.code(), "changed_meanwhile");
}

#[tokio::test]
async fn a_grant_is_asked_for_and_decided() {
    let house = House::new().await;
    let request = |id: &str| json!({ "id": id, "terms": { "id": "rules", "version": 1 }, "purpose": "a small model" });
    let asked = house.owner("POST", "/accounts/acme/grants", Some(request("small"))).await;
    assert_eq!(asked.header("location"), "/api/v1/grants/small");
    let asked = asked.good();
    assert_eq!((&asked["state"], &asked["account"]), (&json!("asked"), &json!("acme")));
    let twice = house.owner("POST", "/accounts/acme/grants", Some(request("small"))).await;
    assert_eq!(twice.code(), "grant_exists");
    let mut unknown = request("other");
    unknown["terms"]["id"] = json!("nothing");
    let unknown = house.owner("POST", "/accounts/acme/grants", Some(unknown)).await;
    assert_eq!((unknown.code(), &unknown.body["errors"][0]["pointer"]), ("refers_to_nothing", &json!("/terms")));

    let approval = json!({ "conditions": { "max_output_tokens": 500 }, "expires": 4_000_000_000_000_u64 });
    let approved = house.owner("POST", "/grants/small/approve", Some(approval.clone())).await;
    let grant = approved.good();
    assert_eq!((&grant["state"], &grant["conditions"]["max_output_tokens"]), (&json!("active"), &json!(500)));
    assert_eq!(grant["expires"], approval["expires"]);
    for path in ["/grants/small/approve", "/grants/small/refuse"] {
        let body = if path.ends_with("refuse") { json!({ "reason": "no" }) } else { json!({}) };
        assert_eq!(house.owner("POST", path, Some(body)).await.code(), "grant_not_asked", "{path}");
    }
    house.owner("POST", "/accounts/acme/grants", Some(request("second"))).await.good();
    let refused = house.owner("POST", "/grants/second/refuse", Some(json!({ "reason": "not this year" }))).await;
    let refused = refused.good();
    assert_eq!((&refused["state"], &refused["refused"]), (&json!("refused"), &json!("not this year")));
    for body in [json!({}), json!({ "reason": "" }), json!({ "reason": "a\nb" })] {
        assert_eq!(house.owner("POST", "/grants/second/refuse", Some(body)).await.code(), "invalid_body");
    }
    assert_eq!(house.owner("POST", "/grants/nothing/approve", Some(json!({}))).await.code(), "unknown_grant");
}

#[tokio::test]
async fn what_is_not_known_is_refused_and_named() {
    let house = House::new().await;
    let plan = json!({ "text_policy": "off", "twin_share": 0.5, "twin_first": 0, "max_n": 2, "max_tokens": 100 });
    let with = |name: &str, value: Value| {
        let mut plan = plan.clone();
        plan[name] = value;
        plan.to_string()
    };
    let grant = json!({
        "id": "g", "account": "acme", "terms": { "id": "rules", "version": 1 }, "purpose": "x",
        "conditions": { "max_student": 1 },
    });
    for (method, path, body, code, pointer) in [
        ("PUT", "/plans/p", with("colour", json!(1)), "invalid_body", "/colour"),
        ("PUT", "/plans/p", with("twin_share", json!(1.5)), "invalid_body", "/twin_share"),
        ("PUT", "/plans/p", with("max_n", json!(0)), "invalid_body", "/max_n"),
        ("PUT", "/plans/p", with("text_policy", json!("all")), "invalid_body", "/text_policy"),
        ("PUT", "/plans/p", with("twin_models", json!([""])), "invalid_body", "/twin_models/0"),
        ("PUT", "/plans/p", "{}".to_owned(), "invalid_body", ""),
        ("PUT", "/plans/p", "{".to_owned(), "malformed_json", ""),
        ("PUT", "/plans/p", String::new(), "malformed_json", ""),
        ("PUT", "/plans/p", format!("{plan} {plan}"), "malformed_json", ""),
        ("PUT", "/plans/-p", plan.to_string(), "unknown_plan", ""),
        ("POST", "/grants", grant.to_string(), "invalid_body", "/conditions/max_student"),
        ("POST", "/accounts", r#"{"id":"a b","plan":"standard"}"#.to_owned(), "invalid_body", "/id"),
        ("POST", "/accounts", r#"{"id":"a","id":"b","plan":"standard"}"#.to_owned(), "invalid_body", ""),
        ("POST", "/accounts", r#"{"id":"a","plan":"gold"}"#.to_owned(), "refers_to_nothing", "/plan"),
        ("POST", "/accounts?plan=1", r#"{"id":"a","plan":"standard"}"#.to_owned(), "unknown_parameter", "plan"),
        ("PUT", "/accounts/acme/budget", r#"{"limit":"-1"}"#.to_owned(), "invalid_body", "/limit"),
        ("PUT", "/accounts/acme/budget", r#"{"limit":12}"#.to_owned(), "invalid_body", "/limit"),
        ("PUT", "/accounts/nobody/budget", r#"{"limit":"1"}"#.to_owned(), "unknown_account", ""),
        ("POST", "/accounts/acme/close", "{}".to_owned(), "unexpected_body", ""),
        ("POST", "/accounts", "x".repeat((1 << 20) + 1), "body_too_large", ""),
        ("DELETE", "/accounts", String::new(), "method_not_allowed", ""),
        ("PUT", "/nothing", String::new(), "unknown_url", ""),
    ] {
        let url = format!("/api/v1{path}");
        let reply = house.ask(method, &url, Some(&house.owner), &[], Some(body.clone())).await;
        let shown = body.get(..100).unwrap_or(&body);
        assert_eq!(reply.code(), code, "{method} {path} {shown}: {}", reply.body);
        assert_eq!(reply.header("content-type"), "application/problem+json");
        assert_eq!(reply.body["type"], format!("/api/v1/problems/{code}"));
        assert_eq!(reply.body["status"], reply.status.as_u16());
        let named = reply.body["errors"][0]["pointer"].as_str().unwrap_or_default();
        assert_eq!(named, pointer, "{method} {path} {shown}: {}", reply.body);
    }
    for query in ["limit=0", "limit=201", "limit=%2B5", "limit=x", "limit=1&limit=2", "after=..", "colour=red"] {
        let reply = house.owner("GET", &format!("/accounts?{query}"), None).await;
        assert_eq!(reply.status, 400, "{query}: {}", reply.body);
    }
    let headers = [("content-type", "text/plain")];
    let typed = house.ask("POST", "/api/v1/accounts", Some(&house.owner), &headers, Some("{}".to_owned())).await;
    assert_eq!(typed.code(), "unsupported_media_type");
}

#[tokio::test]
async fn every_problem_is_explained() {
    let house = House::new().await;
    let kinds = house.owner("GET", "/problems", None).await.good();
    let kinds = kinds["items"].as_array().unwrap();
    assert!(kinds.len() > 30);
    for kind in kinds {
        let path = kind["type"].as_str().unwrap().strip_prefix("/api/v1").unwrap();
        assert_eq!(&house.owner("GET", path, None).await.good(), kind);
    }
    assert_eq!(house.owner("GET", "/problems/nonsense", None).await.code(), "unknown_problem");
}

#[tokio::test]
async fn admin_keys_are_made_and_end() {
    let house = House::new().await;
    let expires = NOW.milliseconds() + 1000;
    let new = json!({ "role": "operator", "account": "acme", "note": "their office", "expires": expires });
    let issued = house.owner("POST", "/admin-keys", Some(new)).await.good();
    let key = issued["secret"].as_str().unwrap();
    assert!(key.starts_with("ak-anbiq-"));
    let me = async || house.ask("GET", "/api/v1/me", Some(key), &[], None).await;
    assert_eq!(me().await.good()["key"], issued["key"]);
    assert_eq!(
        house.ledger.authenticate(key, NOW).await.unwrap_err().code(),
        "invalid_api_key",
        "no key of an account"
    );
    house.clock.advance_to(NOW.plus_milliseconds(1000));
    assert_eq!(me().await.code(), "admin_key_expired");
    let path = format!("/admin-keys/{}", issued["key"]["id"].as_str().unwrap());
    house.owner("POST", &format!("{path}/revoke"), None).await.good();
    assert_eq!(me().await.code(), "admin_key_revoked");
    let nobody = json!({ "role": "viewer", "account": "nobody" });
    assert_eq!(house.owner("POST", "/admin-keys", Some(nobody)).await.code(), "refers_to_nothing");
    assert_eq!(house.owner("POST", "/admin-keys", Some(json!({ "role": "king" }))).await.code(), "invalid_body");
    let api_key = house.ledger.issue_key(&"acme".parse().unwrap(), None, NOW).await.unwrap().1;
    let reply = house.ask("GET", "/api/v1/me", Some(api_key.expose()), &[], None).await;
    assert_eq!(reply.code(), "invalid_admin_key", "the key of an account opens no desk");
}

#[tokio::test]
async fn the_journal_says_how_far_it_is() {
    let house = House::new().await;
    let before = house.owner("GET", "/journal", None).await.good();
    assert_eq!(before["entries"], house.entries().len());
    house.owner("PUT", "/accounts/acme/budget", Some(json!({ "limit": "1" }))).await.good();
    let after = house.owner("GET", "/journal", None).await.good();
    assert_eq!(after["entries"].as_u64().unwrap(), before["entries"].as_u64().unwrap() + 1);
    assert_ne!(after["root"], before["root"]);
    assert!(after["last_checkpoint"].is_null(), "looking signs nothing");
}

#[tokio::test]
async fn a_broken_configuration_is_told() {
    let house = House::new().await;
    let reloaded = house.owner("POST", "/reload", None).await.good();
    assert_eq!(reloaded["changed"]["plans"], json!(["standard"]));
    house.reload.broken.store(true, Ordering::SeqCst);
    let refused = house.owner("POST", "/reload", None).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (422, "invalid_configuration"));
    assert_eq!((&refused.body["detail"], &refused.body["hint"]), (&json!("line 3 is wrong"), &json!("mend it")));
}
