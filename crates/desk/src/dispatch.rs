//! From a request to an operation and back: who asks, whether that is allowed, whether everything is known.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anbiq_domain::{AccountId, Digest, Hand, Timestamp};
use anbiq_ledger::{AdminSession, LedgerError};
use axum::Router;
use axum::body::Body;
use axum::extract::{FromRequestParts, Query, RawPathParams, Request};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, on};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_MATCH, IF_NONE_MATCH, LOCATION};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use crate::desk::Inner;
use crate::fields::Positive;
use crate::operation::{OPERATIONS, Operation, Reach, Verb};
use crate::problem::{Code, Problem};
use crate::{Administrator, Desk};

/// Where the API begins.
pub(crate) const ROOT: &str = "/api/v1";

/// Largest body, in bytes.
pub(crate) const LARGEST_BODY: usize = 1 << 20;

/// Most entries of a page, and how many it has where nobody says.
pub(crate) const LARGEST_PAGE: u32 = 200;
pub(crate) const USUAL_PAGE: u32 = 50;

/// Longest time for one request.
const PATIENCE: Duration = Duration::from_secs(30);

/// By which a request names itself, so that it is carried out once.
pub(crate) const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// The routes of `desk`, all below `/api/v1`. Every one of them needs an admin key.
pub fn router(desk: &Desk) -> Router {
    let mut routes = Router::new();
    for operation in OPERATIONS {
        let desk = desk.clone();
        let handler = move |request: Request| answer(desk.clone(), operation, request);
        routes = routes.route(operation.path, on(filter(operation.verb), handler));
    }
    let nothing = async || Problem::new(Code::UnknownUrl, "there is nothing at this address");
    let unknown = async || Problem::new(Code::MethodNotAllowed, "this address does not know this method");
    Router::new().nest(ROOT, routes.method_not_allowed_fallback(unknown).fallback(nothing))
}

const fn filter(verb: Verb) -> MethodFilter {
    match verb {
        Verb::Get => MethodFilter::GET,
        Verb::Put => MethodFilter::PUT,
        Verb::Post => MethodFilter::POST,
        Verb::Delete => MethodFilter::DELETE,
    }
}

/// What was asked for, by whom, and when.
#[derive(Debug)]
pub(crate) struct Call {
    operation: &'static Operation,
    pub(crate) caller: AdminSession,
    pub(crate) at: Timestamp,
    path: Vec<(String, String)>,
    query: BTreeMap<String, String>,
    body: Bytes,
    /// What must be there for the call to be carried out.
    wanted: Option<Tags>,
    /// What must not.
    unwanted: Option<Tags>,
}

/// A page of a list: what comes after the cursor, and one more than is shown, which says whether there is a next page.
#[derive(Debug)]
pub(crate) struct Page(pub(crate) anbiq_ledger::Page);

/// What is answered.
#[derive(Debug)]
pub(crate) struct Reply {
    body: Value,
    location: Option<String>,
}

async fn answer(desk: Desk, operation: &'static Operation, request: Request) -> Response {
    let Ok(place) = Arc::clone(&desk.0.places).try_acquire_owned() else {
        return Problem::new(Code::Overloaded, Code::Overloaded.title()).into_response();
    };
    let answer = timeout(PATIENCE, handle(&desk, operation, request, place)).await;
    let slow = |_| Err(Problem::new(Code::TooSlow, "the request took too long; a change may be made all the same"));
    let mut response = answer.unwrap_or_else(slow).unwrap_or_else(IntoResponse::into_response);
    // Answers may hold secrets, and always hold what is nobody else's business.
    response.headers_mut().entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

async fn handle(
    desk: &Desk,
    operation: &'static Operation,
    request: Request,
    place: OwnedSemaphorePermit,
) -> Result<Response, Problem> {
    let (mut head, body) = request.into_parts();
    let at = desk.0.clock.now();
    let caller = authenticate(&desk.0, &head.headers, at).await?;
    allow(operation, &caller)?;
    let path = path(&mut head).await?;
    let of = path.iter().find(|(name, _)| name == "account").map(|(_, account)| account.as_str());
    if let (Some(own), Some(of)) = (&caller.account, of)
        && operation.reach == Reach::Account
        && own.as_str() != of
    {
        return Err(no_account(of));
    }
    let query = query(operation, &head)?;
    let body = read(operation, &head.headers, body).await?;
    let wanted = Tags::read(&head.headers, &IF_MATCH)?;
    let unwanted = Tags::read(&head.headers, &IF_NONE_MATCH)?;
    let name = name(operation, &head.headers, &caller)?;
    let call = Call { operation, caller, at, path, query, body, wanted, unwanted };
    if operation.verb == Verb::Get {
        let known = call.unwanted.clone();
        let reply = (operation.handler)(desk.clone(), call).await?;
        return Ok(unless_known(operation, known.as_ref(), reply));
    }
    // In a task of its own: a change that the ledger has must reach the journal, whether its client stays or not.
    let changing = tokio::spawn(change(desk.clone(), call, name, place));
    let done = changing.await.map_err(|error| {
        tracing::error!(%error, operation = operation.id, "an operation of the admin API broke off");
        Problem::new(Code::Internal, Code::Internal.title())
    })?;
    Ok(written(operation, done?))
}

/// Makes a change, alone, and under its name once.
async fn change(desk: Desk, call: Call, name: Option<String>, _place: OwnedSemaphorePermit) -> Result<Reply, Problem> {
    let _alone = desk.0.changing.lock().await;
    let ledger = &desk.0.ledger;
    if let Some(name) = &name
        && !ledger.claim(name, call.at).await?
    {
        let words = "a request under this `Idempotency-Key` was carried out already\n\
                     hint: look at what it made; a secret that was lost is replaced by a new key";
        return Err(Problem::new(Code::Repeated, words));
    }
    let done = (call.operation.handler)(desk.clone(), call).await;
    if let (Err(problem), Some(name)) = (&done, &name)
        && problem.changed_nothing()
    {
        ledger.unclaim(name).await?;
    }
    done
}

async fn authenticate(desk: &Inner, headers: &HeaderMap, at: Timestamp) -> Result<AdminSession, Problem> {
    let presented = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let Some(key) = presented.and_then(|value| value.strip_prefix("Bearer ")).map(str::trim) else {
        let words = "no admin key\nhint: send it in the header `Authorization: Bearer KEY`; \
                     `anbiq admin key issue` makes the first one";
        return Err(Problem::new(Code::NoAdminKey, words));
    };
    desk.ledger.authenticate_admin(key, at).await.map_err(|error| match error {
        LedgerError::InvalidKey => Problem::new(Code::InvalidAdminKey, Code::InvalidAdminKey.title()),
        LedgerError::KeyRevoked => Problem::new(Code::AdminKeyRevoked, Code::AdminKeyRevoked.title()),
        LedgerError::KeyExpired => Problem::new(Code::AdminKeyExpired, Code::AdminKeyExpired.title()),
        other => other.into(),
    })
}

/// Do the caller's role and account allow the operation?
fn allow(operation: &Operation, caller: &AdminSession) -> Result<(), Problem> {
    let roles = operation.need.roles();
    if !roles.contains(&caller.role) {
        let roles: Vec<_> = roles.iter().map(|role| format!("`{role}`")).collect();
        let words = format!(
            "an admin key of the role `{}` may not do this\nhint: it takes one of the role {}",
            caller.role,
            roles.join(" or ")
        );
        return Err(Problem::new(Code::RoleForbids, words));
    }
    match &caller.account {
        Some(account) if operation.reach == Reach::House => {
            let words = format!("this admin key is limited to account `{account}`, and this concerns the whole house");
            Err(Problem::new(Code::AccountForbids, words))
        }
        _ => Ok(()),
    }
}

async fn path(head: &mut Parts) -> Result<Vec<(String, String)>, Problem> {
    let nothing = |_| Problem::new(Code::UnknownUrl, "there is nothing at this address");
    let params = RawPathParams::from_request_parts(head, &()).await.map_err(nothing)?;
    Ok(params.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

fn query(operation: &Operation, head: &Parts) -> Result<BTreeMap<String, String>, Problem> {
    let wrong = |name: &str, what: &str| {
        let problem = Problem::new(Code::UnknownParameter, format!("the parameter `{name}` {what}"));
        problem.at(name, what)
    };
    let Ok(Query(pairs)) = Query::<Vec<(String, String)>>::try_from_uri(&head.uri) else {
        return Err(Problem::new(Code::InvalidParameter, "the query cannot be read"));
    };
    let mut query = BTreeMap::new();
    for (name, value) in pairs {
        let paging = operation.lists && matches!(name.as_str(), "limit" | "after");
        if !paging && !operation.query.iter().any(|(known, _)| *known == name) {
            return Err(wrong(&name, "is not known here"));
        }
        if query.insert(name.clone(), value).is_some() {
            return Err(wrong(&name, "is there twice"));
        }
    }
    Ok(query)
}

async fn read(operation: &Operation, headers: &HeaderMap, body: Body) -> Result<Bytes, Problem> {
    let large =
        |_| Problem::new(Code::BodyTooLarge, format!("the body is larger than {LARGEST_BODY} bytes, or it broke off"));
    let body = axum::body::to_bytes(body, LARGEST_BODY).await.map_err(large)?;
    if operation.takes.is_none() {
        return if body.is_empty() {
            Ok(body)
        } else {
            Err(Problem::new(Code::UnexpectedBody, "this operation takes no body"))
        };
    }
    let essence =
        headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).and_then(|text| text.split(';').next());
    if essence.is_none_or(|essence| !essence.trim().eq_ignore_ascii_case("application/json")) {
        return Err(Problem::new(Code::NotJson, "the body must be of type `application/json`"));
    }
    Ok(body)
}

/// The name under which a request is carried out once; nobody else's request has it.
fn name(operation: &Operation, headers: &HeaderMap, caller: &AdminSession) -> Result<Option<String>, Problem> {
    let Some(key) = headers.get(IDEMPOTENCY_KEY).filter(|_| operation.verb == Verb::Post) else { return Ok(None) };
    let printed = |text: &&str| (1..=255).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    let Some(key) = key.to_str().ok().filter(printed) else {
        let what = "must be 1 to 255 visible ASCII characters";
        return Err(Problem::new(Code::InvalidHeader, format!("`Idempotency-Key` {what}")).at("Idempotency-Key", what));
    };
    Ok(Some(Digest::of_parts(&[caller.key.as_str().as_bytes(), key.as_bytes()]).to_string()))
}

/// The entity tags that a conditional header names (RFC 9110, 13.1).
#[derive(Debug, Clone)]
enum Tags {
    /// Whatever there is.
    Any,
    These(Vec<String>),
}

impl Tags {
    fn read(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Self>, Problem> {
        let Some(value) = headers.get(name) else { return Ok(None) };
        let read = value.to_str().ok().and_then(|text| match text {
            "*" => Some(Self::Any),
            some => some.split(',').map(|tag| quoted(tag.trim())).collect::<Option<Vec<_>>>().map(Self::These),
        });
        let what = "must be `*` or entity tags, each in quotation marks";
        let wrong = || Problem::new(Code::InvalidHeader, format!("`{name}` {what}")).at(name.as_str(), what);
        read.map(Some).ok_or_else(wrong)
    }

    /// Is the thing with the tag `present` one of them?
    fn name(&self, present: Option<&str>) -> bool {
        match (self, present) {
            (_, None) => false,
            (Self::Any, Some(_)) => true,
            (Self::These(tags), Some(present)) => tags.iter().any(|tag| tag == present),
        }
    }
}

/// `tag` without what says that it is weak; ours are all strong, and a cache on the way may have weakened one.
fn quoted(tag: &str) -> Option<String> {
    let tag = tag.strip_prefix("W/").unwrap_or(tag);
    let inner = tag.strip_prefix('"')?.strip_suffix('"')?;
    inner.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"').then(|| tag.to_owned())
}

fn unless_known(operation: &Operation, known: Option<&Tags>, reply: Reply) -> Response {
    let tag = tag(&reply.body);
    let known = known.is_some_and(|known| known.name(Some(&tag)));
    let mut response = if known { StatusCode::NOT_MODIFIED.into_response() } else { written(operation, reply) };
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(ETAG, tag);
    }
    response
}

fn written(operation: &Operation, reply: Reply) -> Response {
    let (status, _) = operation.gives;
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    let mut response = (status, axum::Json(reply.body)).into_response();
    if let Some(Ok(location)) = reply.location.map(|location| HeaderValue::from_str(&location)) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

/// The entity tag of what is answered.
fn tag(body: &Value) -> String {
    let digest = Digest::of(body.to_string().as_bytes()).to_string();
    format!("\"{}\"", digest.get(..32).unwrap_or(&digest))
}

/// An account that is not there, or not for this caller: both look the same.
pub(crate) fn no_account(account: impl Display) -> Problem {
    Problem::new(Code::UnknownAccount, format!("there is no account `{account}`"))
}

impl Call {
    /// Who makes changes for this call.
    pub(crate) fn administrator(&self, desk: &Desk) -> Administrator {
        desk.0.administrator.by(Hand::AdminKey(self.caller.key.clone()))
    }

    /// Is the thing that a `PUT` replaces as the request's condition says? To be asked when all else is in order.
    pub(crate) async fn may_replace(&self, desk: &Desk) -> Result<(), Problem> {
        if self.wanted.is_none() && self.unwanted.is_none() {
            return Ok(());
        }
        let Some(operation) = self.operation.shown_by() else { return Ok(()) };
        let (caller, path) = (self.caller.clone(), self.path.clone());
        let (query, body, wanted, unwanted) = (BTreeMap::new(), Bytes::new(), None, None);
        let look = Self { operation, caller, at: self.at, path, query, body, wanted, unwanted };
        let present = match (operation.handler)(desk.clone(), look).await {
            Ok(reply) => Some(tag(&reply.body)),
            Err(problem) if problem.is_absence() => None,
            Err(problem) => return Err(problem),
        };
        let there = |tags: &Tags| tags.name(present.as_deref());
        if self.wanted.as_ref().is_none_or(there) && !self.unwanted.as_ref().is_some_and(there) {
            return Ok(());
        }
        let words = "it is not as the condition of this request says\n\
                     hint: read it again, and take the `ETag` of that answer";
        Err(Problem::new(Code::Changed, words))
    }

    /// The part `name` of the path; one that cannot be is not there.
    pub(crate) fn path<T: FromStr>(&self, name: &str, absent: Code) -> Result<T, Problem> {
        let text = self.path.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value.as_str());
        text.parse().map_err(|_| Problem::new(absent, absent.title()))
    }

    /// The account of the path. `dispatch` has made sure that the caller sees it.
    pub(crate) fn account(&self) -> Result<AccountId, Problem> {
        self.path("account", Code::UnknownAccount)
    }

    /// Does what is of `account` exist for the caller?
    pub(crate) fn sees(&self, account: &AccountId) -> bool {
        self.caller.account.as_ref().is_none_or(|own| own == account)
    }

    /// The parameter `name` of the query.
    pub(crate) fn parameter<T: FromStr<Err: Display>>(&self, name: &str) -> Result<Option<T>, Problem> {
        let Some(text) = self.query.get(name) else { return Ok(None) };
        text.parse().map(Some).map_err(|error: T::Err| {
            Problem::new(Code::InvalidParameter, format!("the parameter `{name}` cannot be `{text}`"))
                .at(name, error.to_string())
        })
    }

    /// Which page of a list is asked for, where `T` is the form of its cursor.
    pub(crate) fn page<T: FromStr<Err: Display>>(&self) -> Result<Page, Problem> {
        let limit = self.parameter::<Positive>("limit")?.map_or(USUAL_PAGE, |limit| limit.0);
        if !(1..=LARGEST_PAGE).contains(&limit) {
            let what = format!("must be between 1 and {LARGEST_PAGE}");
            let words = format!("the parameter `limit` {what}");
            return Err(Problem::new(Code::InvalidParameter, words).at("limit", what));
        }
        self.parameter::<T>("after")?;
        Ok(Page(anbiq_ledger::Page { after: self.query.get("after").cloned(), limit: limit + 1 }))
    }

    /// The body.
    pub(crate) fn body<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        let mut reader = serde_json::Deserializer::from_slice(&self.body);
        let read = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
            let pointer = pointer(error.path());
            let error = error.into_inner();
            if error.is_data() {
                let what = error.to_string();
                // The place is said by the pointer.
                let what = what.rsplit_once(" at line ").map_or(what.as_str(), |(what, _)| what);
                return Problem::new(Code::InvalidBody, format!("the body is not what it should be: {what}"))
                    .at(pointer, what);
            }
            Problem::new(Code::MalformedJson, format!("the body is not JSON: {error}"))
        })?;
        reader.end().map_err(|error| Problem::new(Code::MalformedJson, format!("the body is not JSON: {error}")))?;
        Ok(read)
    }
}

/// `path` as a JSON pointer.
fn pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    let mut pointer = String::new();
    for segment in path.iter() {
        let part = match segment {
            Segment::Seq { index } => index.to_string(),
            Segment::Map { key } => key.replace('~', "~0").replace('/', "~1"),
            Segment::Enum { variant } => variant.clone(),
            Segment::Unknown => continue,
        };
        pointer.push('/');
        pointer.push_str(&part);
    }
    pointer
}

impl Reply {
    /// `value` as JSON.
    pub(crate) fn of(value: &impl serde::Serialize) -> Result<Self, Problem> {
        let body = serde_json::to_value(value).map_err(|error| {
            tracing::error!(%error, "an answer of the admin API cannot be written");
            Problem::new(Code::Internal, Code::Internal.title())
        })?;
        Ok(Self { body, location: None })
    }

    /// The same, for something that was made and is found at `location`, below the root of the API.
    pub(crate) fn at(self, location: &str) -> Self {
        Self { location: Some([ROOT, location].concat()), ..self }
    }
}

impl Page {
    /// The entries of this page; `cursor` says where the next one begins.
    pub(crate) fn reply<I: serde::Serialize>(
        &self,
        mut found: Vec<I>,
        cursor: impl FnOnce(&I) -> String,
    ) -> Result<Reply, Problem> {
        let ask = self.0.limit as usize;
        let more = found.len() >= ask;
        found.truncate(ask - 1);
        let next = found.last().filter(|_| more).map(cursor);
        Reply::of(&serde_json::json!({ "items": found, "next": next }))
    }
}
