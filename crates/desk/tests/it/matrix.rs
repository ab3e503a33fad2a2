//! Every operation of the document, for every role, for keys of the house and of one account, on what is their own and what
//! is not, and without a key that holds. What to expect is said by one small table; an operation that is not in it fails.

use std::collections::BTreeMap;

use anbiq_domain::{Grant, Money, Window};
use anbiq_ledger::AdminRole::{self, Operator, Owner, Steward, Viewer};
use anbiq_ledger::{Budget, Holder, Measure, User};
use serde_json::{Value, json};

use crate::house::{ACCOUNTS, House, NOW, Reply, conforms, grant_of};

/// Which keys that are limited to one account reach an operation.
#[derive(Clone, Copy, PartialEq)]
enum Limited {
    /// None.
    Barred,
    /// Those of the account that it is about; for others that account is not there.
    Own,
    /// All, and each sees only its own.
    Filtered,
    /// All, and each sees the same.
    Same,
}

use Limited::{Barred, Filtered, Own, Same};

const ALL: &[AdminRole] = &[Viewer, Operator, Steward, Owner];
const OPERATE: &[AdminRole] = &[Operator, Owner];
const DECIDE: &[AdminRole] = &[Steward, Owner];
const OWN: &[AdminRole] = &[Owner];

/// Who may do what. It says again, independently, what the code says.
const RULES: &[(&str, &[AdminRole], Limited)] = &[
    ("whoAmI", ALL, Same),
    ("getOpenApi", ALL, Same),
    ("listProblems", ALL, Same),
    ("getProblem", ALL, Same),
    ("getJournal", ALL, Barred),
    ("listModels", ALL, Same),
    ("reload", OWN, Barred),
    ("listAccounts", ALL, Filtered),
    ("openAccount", OPERATE, Barred),
    ("getAccount", ALL, Own),
    ("changeAccount", OPERATE, Barred),
    ("closeAccount", OPERATE, Barred),
    ("getBudget", ALL, Own),
    ("setBudget", OPERATE, Barred),
    ("listBudgetsOfAccount", ALL, Own),
    ("listUsers", ALL, Own),
    ("addUser", OPERATE, Own),
    ("removeUser", OPERATE, Own),
    ("listAcceptances", ALL, Own),
    ("acceptTerms", OPERATE, Own),
    ("listKeys", ALL, Own),
    ("issueKey", OPERATE, Own),
    ("getKey", ALL, Own),
    ("rotateKey", OPERATE, Own),
    ("revokeKey", OPERATE, Own),
    ("listBudgets", ALL, Barred),
    ("setMoneyBudget", OPERATE, Barred),
    ("removeMoneyBudget", OPERATE, Barred),
    ("setTokenBudget", OPERATE, Barred),
    ("removeTokenBudget", OPERATE, Barred),
    ("listPlans", ALL, Barred),
    ("getPlan", ALL, Barred),
    ("putPlan", DECIDE, Barred),
    ("listPrices", ALL, Same),
    ("getPrices", ALL, Same),
    ("getPriceHistory", ALL, Same),
    ("setPrices", DECIDE, Barred),
    ("listTerms", ALL, Same),
    ("issueTerms", DECIDE, Barred),
    ("getTerms", ALL, Same),
    ("getTermsVersion", ALL, Same),
    ("listGrants", ALL, Filtered),
    ("giveGrant", DECIDE, Barred),
    ("askGrant", OPERATE, Own),
    ("getGrant", ALL, Own),
    ("approveGrant", DECIDE, Barred),
    ("refuseGrant", DECIDE, Barred),
    ("revokeGrant", DECIDE, Barred),
    ("listAdminKeys", OWN, Barred),
    ("issueAdminKey", OWN, Barred),
    ("getAdminKey", OWN, Barred),
    ("revokeAdminKey", OWN, Barred),
];

struct Operation {
    id: String,
    method: String,
    path: String,
    described: Value,
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_do_what() {
    let document = anbiq_desk::openapi();
    let rules: BTreeMap<&str, (&[AdminRole], Limited)> =
        RULES.iter().map(|(id, roles, limited)| (*id, (*roles, *limited))).collect();
    let house = House::new().await;
    let mut world = World::new(&house).await;
    let operations = operations(&document);
    assert_eq!(operations.len(), rules.len(), "a rule has no operation");
    let mut asked = 0;
    for operation in &operations {
        let (roles, limited) =
            rules.get(operation.id.as_str()).unwrap_or_else(|| panic!("no rule for `{}`", operation.id));
        for target in [0, 1] {
            for (key, status, code) in world.strangers() {
                let reply = world.ask(operation, target, key.as_deref()).await;
                assert_eq!((reply.status.as_u16(), reply.code()), (status, code), "{} {key:?}", operation.id);
                assert!(reply.header("www-authenticate").starts_with("Bearer"));
                check(&document, operation, &reply);
                asked += 1;
            }
            for caller in 0..world.callers.len() {
                let Caller { role, account, key } = world.callers[caller].clone();
                let own = account.is_none_or(|account| account == target);
                let expected = match limited {
                    _ if !roles.contains(&role) => (403, "role_forbids"),
                    Barred if account.is_some() => (403, "account_forbids"),
                    Own if !own && operation.id == "getGrant" => (404, "unknown_grant"),
                    Own if !own => (404, "unknown_account"),
                    _ => (success(operation), ""),
                };
                let reply = world.ask(operation, target, Some(&key)).await;
                let met = (reply.status.as_u16(), reply.code());
                assert_eq!(met, expected, "{} by {role} of {account:?} on {target}: {}", operation.id, reply.body);
                check(&document, operation, &reply);
                if *limited == Filtered && account.is_some() {
                    assert!(!reply.body.to_string().contains(ACCOUNTS[1]), "{} {}", operation.id, reply.body);
                }
                asked += 1;
            }
        }
    }
    assert_eq!(asked, operations.len() * 2 * (8 + 5));
}

#[derive(Clone)]
struct Caller {
    role: AdminRole,
    /// The index of its only account.
    account: Option<usize>,
    key: String,
}

struct World<'a> {
    house: &'a House,
    callers: Vec<Caller>,
    expired: String,
    revoked: String,
    /// An admin key that is shown and revoked.
    spare: String,
    /// Names what is made.
    made: u32,
}

impl<'a> World<'a> {
    async fn new(house: &'a House) -> Self {
        let mut callers = Vec::new();
        for role in AdminRole::ALL {
            for account in [None, Some(0)] {
                let (_, key) = house.admin_key(role, account.map(|index: usize| ACCOUNTS[index]), None).await;
                callers.push(Caller { role, account, key });
            }
        }
        let (_, expired) = house.admin_key(Owner, None, Some(NOW)).await;
        let (id, revoked) = house.admin_key(Owner, None, None).await;
        house.ledger.revoke_admin_key(&id, NOW).await.unwrap();
        let (spare, _) = house.admin_key(Viewer, None, None).await;
        Self { house, callers, expired, revoked, spare: spare.to_string(), made: 0 }
    }

    /// Keys that do not hold, and none: what is answered to each.
    fn strangers(&self) -> Vec<(Option<String>, u16, &'static str)> {
        let wrong = format!("{}x", &self.house.owner[..self.house.owner.len() - 1]);
        vec![
            (None, 401, "no_admin_key"),
            (Some("nonsense".to_owned()), 401, "invalid_admin_key"),
            (Some(wrong), 401, "invalid_admin_key"),
            (Some(self.expired.clone()), 401, "admin_key_expired"),
            (Some(self.revoked.clone()), 401, "admin_key_revoked"),
        ]
    }

    /// Asks for `operation` on what is of the account `target`.
    async fn ask(&mut self, operation: &Operation, target: usize, key: Option<&str>) -> Reply {
        self.made += 1;
        let account = ACCOUNTS[target];
        let api_key = self.house.keys[target].as_str();
        let spare = self.spare.clone();
        let (made, asked) = (self.made, ["approveGrant", "refuseGrant"].contains(&operation.id.as_str()));
        let path = operation.path.split('/').map(|part| match part {
            "{account}" => account.to_owned(),
            "{key}" if operation.path.contains("admin-keys") => spare.clone(),
            "{key}" => api_key.to_owned(),
            "{plan}" => "standard".to_owned(),
            "{model}" => "teacher".to_owned(),
            "{terms}" => "rules".to_owned(),
            "{version}" => "1".to_owned(),
            "{grant}" if asked => format!("{account}-asked-{made}"),
            "{grant}" => format!("{account}-grant"),
            "{code}" => "unknown_url".to_owned(),
            "{user}" => "ann".to_owned(),
            "{holder}" => format!("account:{account}"),
            "{window}" => "month".to_owned(),
            part => part.to_owned(),
        });
        let path = path.collect::<Vec<_>>().join("/");
        // What is taken away must be there, each time.
        let holder = Holder::Account(account.parse().unwrap());
        match operation.id.as_str() {
            "removeUser" => {
                let user =
                    User { account: account.parse().unwrap(), id: "ann".parse().unwrap(), name: None, added: NOW };
                let _ = self.house.ledger.add_user(&user).await;
            }
            "approveGrant" | "refuseGrant" => {
                let id = format!("{account}-asked-{made}").parse().unwrap();
                let grant = Grant { id, ..grant_of(account) };
                self.house.ledger.ask_grant(&grant).await.unwrap();
            }
            "removeMoneyBudget" => {
                let limit = Measure::Money(Money::from_dollars(1));
                self.house.ledger.put_budget(&Budget { holder, window: Window::Month, limit }).await.unwrap();
            }
            "removeTokenBudget" => {
                let limit = Measure::Tokens(5);
                self.house.ledger.put_budget(&Budget { holder, window: Window::Month, limit }).await.unwrap();
            }
            _ => {}
        }
        let body = operation.described.get("requestBody").map(|_| self.body(&operation.id, account).to_string());
        self.house.ask(&operation.method, &path, key, &[], body).await
    }

    fn body(&self, operation: &str, account: &str) -> Value {
        let fresh = format!("made-{}", self.made);
        match operation {
            "openAccount" => json!({ "id": fresh, "plan": "standard", "payment": "card 1", "budget": "1.50" }),
            "setBudget" => json!({ "limit": "7.00" }),
            "acceptTerms" => json!({ "id": "rules", "version": 1 }),
            "issueKey" => json!({ "name": "laptop", "scopes": { "routes": ["chat"], "models": ["teacher"] } }),
            "rotateKey" => json!({ "grace_ms": 3_600_000 }),
            "changeAccount" => json!({ "plan": "standard", "operator": "somebody" }),
            "addUser" => json!({ "id": fresh, "name": "Ann" }),
            "setMoneyBudget" => json!({ "limit": "3.50" }),
            "setTokenBudget" => json!({ "limit": 100_000 }),
            "putPlan" => json!({
                "text_policy": "off", "twin_share": 0.5, "twin_first": 0, "max_n": 2, "max_tokens": 100,
            }),
            "setPrices" => json!({ "input": "1", "output": "2.5", "distillation_output": "6" }),
            "issueTerms" => json!({
                "id": fresh, "version": 1, "teacher": "pupil", "distillation": "allowed", "text": "Do.",
                "conditions": { "max_output_tokens": 1000 },
            }),
            "giveGrant" => json!({
                "id": fresh, "account": account, "terms": { "id": "rules", "version": 1 }, "purpose": "tests",
            }),
            "askGrant" => json!({ "id": fresh, "terms": { "id": "rules", "version": 1 }, "purpose": "tests" }),
            "approveGrant" => json!({ "conditions": { "max_output_tokens": 5, "beyond_terms": "a trial" } }),
            "refuseGrant" => json!({ "reason": "not this year" }),
            "issueAdminKey" => json!({ "role": "viewer", "account": account, "note": "a colleague" }),
            other => panic!("no body for `{other}`"),
        }
    }
}

/// All operations; last what would stand in the way of others.
fn operations(document: &Value) -> Vec<Operation> {
    let mut all = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, described) in methods.as_object().unwrap() {
            let id = described["operationId"].as_str().unwrap().to_owned();
            all.push(Operation { id, method: method.to_uppercase(), path: path.clone(), described: described.clone() });
        }
    }
    let rank = |id: &str| match id {
        "closeAccount" => 2,
        "revokeKey" => 1,
        _ => 0,
    };
    all.sort_by_key(|operation| rank(&operation.id));
    all
}

/// The status of success that the document promises.
fn success(operation: &Operation) -> u16 {
    let statuses = operation.described["responses"].as_object().unwrap().keys();
    statuses.map(|status| status.parse().unwrap()).find(|status| (200..300).contains(status)).unwrap()
}

/// Is the answer one that the document describes?
fn check(document: &Value, operation: &Operation, reply: &Reply) {
    let status = reply.status.as_str();
    let mut described = &operation.described["responses"][status];
    if let Some(reference) = described["$ref"].as_str() {
        described = document.pointer(&reference[1..]).unwrap();
    }
    let content = &described["content"][reply.header("content-type")];
    assert!(content.is_object(), "{}: {status} of {}", operation.id, reply.header("content-type"));
    if let Err(what) = conforms(document, &content["schema"], &reply.body) {
        panic!("{}: {what} in {}", operation.id, reply.body);
    }
}
