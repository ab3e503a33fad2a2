//! A whole desk on loopback: a real ledger, a real journal, and two accounts with everything that an account may have.

#![allow(dead_code, reason = "each test file uses its own part of this")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anbiq_desk::{Administrator, Desk, DeskParts, ModelFacts, Record, Reload, ReloadError, Reloaded, Reloading};
use anbiq_domain::{
    AccountId, Administration, Clock, Conditions, Entry, Grant, GrantId, Hand, JournalId, KeyId, ManualClock, Money,
    Permission, PlanId, PriceList, Terms, TermsId, Timestamp,
};
use anbiq_journal::{Journal, Options, Reader, SigningKey};
use anbiq_ledger::{AdminRole, Ledger, NewAccount, NewAdminKey, Plan, TwinPlan, User};
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

pub(crate) const NOW: Timestamp = Timestamp::from_milliseconds(1_770_000_000_000);

/// The two accounts of every house.
pub(crate) const ACCOUNTS: [&str; 2] = ["acme", "other"];

pub(crate) struct House {
    folder: tempfile::TempDir,
    pub(crate) ledger: Ledger,
    pub(crate) clock: ManualClock,
    /// The public halves of the accounts' keys.
    pub(crate) keys: [KeyId; 2],
    pub(crate) owner: String,
    pub(crate) base: String,
    pub(crate) reload: Arc<FakeReload>,
    client: Client<HttpConnector, Full<Bytes>>,
}

/// What was answered.
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

/// A configuration that says what it is told to.
#[derive(Debug, Default)]
pub(crate) struct FakeReload {
    pub(crate) broken: AtomicBool,
}

impl Reload for FakeReload {
    fn reload(&self, _: Hand) -> Reloading<'_> {
        let broken = self.broken.load(Ordering::SeqCst);
        Box::pin(async move {
            let done = Reloaded { plans: vec!["standard".to_owned()], ..Reloaded::default() };
            if broken { Err(ReloadError::Invalid("line 3 is wrong\nhint: mend it".to_owned())) } else { Ok(done) }
        })
    }
}

pub(crate) fn terms(id: &str, version: u32) -> Terms {
    Terms::new(TermsId::new(id).unwrap(), version, "teacher", Permission::GrantRequired, "Be good.")
}

impl House {
    pub(crate) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open_file(&folder.path().join("ledger.db")).await.unwrap();
        let id = JournalId::new("test").unwrap();
        let signer = SigningKey::from_bytes([3; 32]);
        let journal = Journal::create(&folder.path().join("journal"), id, signer, Options::default()).unwrap();
        let administrator = Administrator::new(ledger.clone(), Record::Journal(journal.clone()), &[9; 32]);
        let keys = furnish(&ledger, &administrator).await;
        let clock = ManualClock::at(NOW);
        let reload = Arc::new(FakeReload::default());
        let desk = Desk::new(DeskParts {
            ledger: ledger.clone(),
            journal,
            administrator,
            models: vec![ModelFacts { model: "teacher".to_owned(), embedded: true, servers: 0 }],
            clock: Arc::new(clock.clone()) as Arc<dyn Clock>,
            reload: Arc::<FakeReload>::clone(&reload),
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, anbiq_desk::router(&desk)).await.unwrap() });
        let client = Client::builder(TokioExecutor::new()).build_http();
        let mut house = Self { folder, ledger, clock, keys, owner: String::new(), base, reload, client };
        house.owner = house.admin_key(AdminRole::Owner, None, None).await.1;
        house
    }

    /// A fresh admin key: its public half, and the whole.
    pub(crate) async fn admin_key(
        &self,
        role: AdminRole,
        account: Option<&str>,
        expires: Option<Timestamp>,
    ) -> (KeyId, String) {
        let account = account.map(|account| account.parse().unwrap());
        let new = NewAdminKey { role, account, note: None, expires };
        let (id, key) = self.ledger.issue_admin_key(&new, NOW).await.unwrap();
        (id, key.expose().clone())
    }

    pub(crate) async fn ask(
        &self,
        method: &str,
        path: &str,
        key: Option<&str>,
        headers: &[(&str, &str)],
        body: Option<String>,
    ) -> Reply {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        if let Some(key) = key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        if body.is_some() && !headers.iter().any(|(name, _)| *name == "content-type") {
            request = request.header("content-type", "application/json");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::from(body.unwrap_or_default()))).unwrap();
        let (head, body) = self.client.request(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let body = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() };
        Reply { status: head.status, headers: head.headers, body }
    }

    /// Asks as an owner of the house.
    pub(crate) async fn owner(&self, method: &str, path: &str, body: Option<Value>) -> Reply {
        let body = body.map(|body| body.to_string());
        self.ask(method, &format!("/api/v1{path}"), Some(&self.owner), &[], body).await
    }

    pub(crate) fn entries(&self) -> Vec<Entry> {
        let reader = Reader::open(&self.folder.path().join("journal")).unwrap();
        reader.entries().unwrap().map(|record| record.unwrap().entry).collect()
    }

    /// What was done by somebody with an admin key: the action and its subject.
    pub(crate) fn done(&self) -> Vec<(String, String)> {
        let by_key = |entry| match entry {
            Entry::Administered(Administration { by: Hand::AdminKey(_), action, subject, .. }) => {
                Some((action, subject))
            }
            _ => None,
        };
        self.entries().into_iter().filter_map(by_key).collect()
    }
}

impl Reply {
    /// The code of the problem that was answered.
    pub(crate) fn code(&self) -> &str {
        let code = self.body["code"].as_str().filter(|_| !self.status.is_success());
        code.unwrap_or_default()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The status, and what was said; for a request that must succeed.
    pub(crate) fn good(self) -> Value {
        assert!(self.status.is_success(), "{} {}", self.status, self.body);
        self.body
    }
}

/// The grant that each account has.
pub(crate) fn grant_of(account: &str) -> Grant {
    Grant {
        id: GrantId::new(format!("{account}-grant")).unwrap(),
        account: AccountId::new(account).unwrap(),
        terms: terms("rules", 1).reference(),
        purpose: "a small model".to_owned(),
        conditions: Conditions::default(),
        given: NOW,
        expires: None,
    }
}

/// Gives each of the accounts a key, an acceptance, a budget and a grant.
async fn furnish(ledger: &Ledger, administrator: &Administrator) -> [KeyId; 2] {
    let plan = Plan {
        twin: TwinPlan { share: 0.25, first: 3, ..TwinPlan::default() },
        ..Plan::new(PlanId::new("standard").unwrap())
    };
    administrator.put_plan(&plan, NOW).await.unwrap();
    let prices = PriceList { input: Money::from_dollars(1), output: Money::from_dollars(2), ..PriceList::default() };
    administrator.set_prices("teacher", prices, NOW).await.unwrap();
    administrator.issue_terms(&terms("rules", 1), NOW).await.unwrap();
    let mut keys = Vec::new();
    for name in ACCOUNTS {
        let id = AccountId::new(name).unwrap();
        let account = NewAccount { id: id.clone(), plan: plan.id.clone(), payment: None, opened: NOW };
        administrator.open_account(&account).await.unwrap();
        administrator.accept_terms(&id, &terms("rules", 1).reference(), NOW).await.unwrap();
        let grant = grant_of(name);
        administrator.give_grant(&grant).await.unwrap();
        ledger.set_budget(&id, Money::from_dollars(5)).await.unwrap();
        let user = User { account: id.clone(), id: "ann".parse().unwrap(), name: None, added: NOW };
        administrator.add_user(&user).await.unwrap();
        keys.push(ledger.issue_key(&id, None, NOW).await.unwrap().0);
    }
    keys.try_into().unwrap()
}

/// Is `value` of the shape that the document gives to `schema`? Patterns are not looked at.
pub(crate) fn conforms(document: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    if let Some(reference) = schema["$ref"].as_str() {
        return conforms(document, document.pointer(&reference[1..]).ok_or(reference)?, value);
    }
    if let Some(choices) = schema["anyOf"].as_array().or(schema["oneOf"].as_array()) {
        let fits = choices.iter().any(|choice| conforms(document, choice, value).is_ok());
        return if fits { Ok(()) } else { Err(format!("{value} is none of {schema}")) };
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one.as_str()],
        Value::Array(some) => some.iter().filter_map(Value::as_str).collect(),
        _ => return Err(format!("{schema} has no type")),
    };
    let is = |name: &&&str| match **name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        _ => false,
    };
    if types.iter().find(is).is_none() {
        return Err(format!("{value} is no {types:?}"));
    }
    if let Some(choices) = schema["enum"].as_array()
        && !choices.contains(value)
    {
        return Err(format!("{value} is none of {choices:?}"));
    }
    for item in value.as_array().into_iter().flatten() {
        conforms(document, &schema["items"], item)?;
    }
    let Some(fields) = value.as_object() else { return Ok(()) };
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !fields.contains_key(name) {
            return Err(format!("`{name}` is not there"));
        }
    }
    for (name, value) in fields {
        match schema["properties"].get(name) {
            Some(schema) => conforms(document, schema, value).map_err(|what| format!("`{name}`: {what}"))?,
            None if schema["additionalProperties"] == false => return Err(format!("`{name}` is not known")),
            None => {}
        }
    }
    Ok(())
}
