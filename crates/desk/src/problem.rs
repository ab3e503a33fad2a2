//! Why something was not done, in the form of RFC 9457.

use anbiq_ledger::{LedgerError, Who};
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use serde::Serialize;

use crate::DeskError;

macro_rules! codes {
    ($($variant:ident $name:literal $status:literal $title:literal;)*) => {
        /// What happened, by a name that does not change.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Code { $($variant),* }

        impl Code {
            pub(crate) const ALL: &'static [Self] = &[$(Self::$variant),*];

            pub(crate) const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            pub(crate) const fn status(self) -> u16 {
                match self { $(Self::$variant => $status),* }
            }

            pub(crate) const fn title(self) -> &'static str {
                match self { $(Self::$variant => $title),* }
            }
        }
    };
}

codes! {
    MalformedJson "malformed_json" 400 "the body is not JSON";
    UnexpectedBody "unexpected_body" 400 "the operation takes no body";
    UnknownParameter "unknown_parameter" 400 "the operation does not know a parameter";
    InvalidParameter "invalid_parameter" 400 "a parameter has no possible value";
    InvalidHeader "invalid_header" 400 "a header has no possible value";
    NoAdminKey "no_admin_key" 401 "no admin key was given";
    InvalidAdminKey "invalid_admin_key" 401 "the admin key is not valid";
    AdminKeyRevoked "admin_key_revoked" 401 "the admin key was revoked";
    AdminKeyExpired "admin_key_expired" 401 "the admin key has expired";
    RoleForbids "role_forbids" 403 "the role of the admin key does not allow this";
    AccountForbids "account_forbids" 403 "the admin key is limited to one account, and this is not of an account";
    UnknownUrl "unknown_url" 404 "there is nothing at this address";
    UnknownAccount "unknown_account" 404 "there is no such account";
    UnknownKey "unknown_key" 404 "there is no such key";
    UnknownUser "unknown_user" 404 "the account has no such user";
    UnknownOperator "unknown_operator" 404 "there is no such operator";
    UnknownBudget "unknown_budget" 404 "there is no such budget";
    UnknownPlan "unknown_plan" 404 "there is no such plan";
    UnknownTerms "unknown_terms" 404 "there are no such terms";
    UnknownGrant "unknown_grant" 404 "there is no such grant";
    UnknownModel "unknown_model" 404 "there is no such model";
    UnknownProblem "unknown_problem" 404 "there is no such problem";
    MethodNotAllowed "method_not_allowed" 405 "the address does not know this method";
    TooSlow "request_timeout" 408 "the request took too long";
    AccountExists "account_exists" 409 "the account exists already";
    AccountClosed "account_closed" 409 "the account is closed";
    KeyRevoked "key_revoked" 409 "the key was revoked";
    KeyExpired "key_expired" 409 "the key has expired";
    UserExists "user_exists" 409 "the account has such a user";
    GrantExists "grant_exists" 409 "the grant exists already";
    GrantBeyondTerms "grant_beyond_terms" 409 "the grant permits more than its terms";
    GrantDecided "grant_not_asked" 409 "the grant was decided already";
    TermsChanged "terms_changed" 409 "these terms were issued with other contents";
    NotThere "refers_to_nothing" 409 "the body speaks of something that is not there";
    Repeated "request_repeated" 409 "the request was made already";
    Changed "changed_meanwhile" 412 "the thing is not as the condition says";
    BodyTooLarge "body_too_large" 413 "the body is too large";
    NotJson "unsupported_media_type" 415 "the body must be of type application/json";
    InvalidBody "invalid_body" 422 "the body is not what the operation takes";
    OutOfRange "amount_out_of_range" 422 "an amount is out of range";
    InvalidConfiguration "invalid_configuration" 422 "the configuration cannot be used; what held before holds on";
    Internal "internal_error" 500 "the gateway failed";
    NotJournalled "not_journalled" 500 "the change was made but not journalled";
    ReloadFailed "reload_failed" 500 "the configuration was taken in part only";
    Overloaded "overloaded" 503 "too many requests are under way";
    LedgerBusy "ledger_busy" 503 "the ledger is busy";
    LedgerFailed "ledger_failed" 503 "the ledger's database failed";
    JournalFailed "journal_failed" 503 "the journal does not answer";
}

impl Code {
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.name() == name)
    }

    /// The address of what is said about it; the `type` of a problem.
    pub(crate) fn address(self) -> String {
        format!("/api/v1/problems/{}", self.name())
    }
}

/// A request that was not carried out.
#[derive(Debug)]
pub(crate) struct Problem {
    code: Code,
    detail: String,
    hint: Option<String>,
    errors: Vec<Fault>,
}

/// What is wrong with one place of the request.
#[derive(Debug, Serialize)]
pub(crate) struct Fault {
    /// A JSON pointer into the body (RFC 6901), or the name of a parameter or header.
    pub(crate) pointer: String,
    pub(crate) detail: String,
}

#[derive(Serialize)]
struct Body<'a> {
    r#type: String,
    title: &'static str,
    status: u16,
    code: &'static str,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
    #[serde(skip_serializing_if = "<[Fault]>::is_empty")]
    errors: &'a [Fault],
}

impl Problem {
    /// `words` may end with a line that begins `hint:`.
    pub(crate) fn new(code: Code, words: impl AsRef<str>) -> Self {
        let (detail, hint) = match words.as_ref().split_once("\nhint: ") {
            Some((detail, hint)) => (detail, Some(hint.to_owned())),
            None => (words.as_ref(), None),
        };
        Self { code, detail: detail.to_owned(), hint, errors: Vec::new() }
    }

    /// The same, and the place that is at fault.
    pub(crate) fn at(mut self, pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        self.errors.push(Fault { pointer: pointer.into(), detail: detail.into() });
        self
    }

    /// Was nothing changed, so that the same request may be made again?
    pub(crate) fn changed_nothing(&self) -> bool {
        self.code.status() < 500 || matches!(self.code, Code::Overloaded)
    }

    /// Does it say that there is no such thing?
    pub(crate) fn is_absence(&self) -> bool {
        self.code.status() == 404
    }

    /// Of something that the body names: that it is not there is then a conflict, not a wrong address.
    pub(crate) fn of_body(self, pointer: &str) -> Self {
        if !self.is_absence() {
            return self;
        }
        let detail = self.detail.clone();
        Self { code: Code::NotThere, ..self }.at(pointer, detail)
    }
}

impl From<LedgerError> for Problem {
    fn from(error: LedgerError) -> Self {
        let words = error.to_string();
        match (Code::named(error.code()), error.who()) {
            (Some(code), _) if code.status() < 500 => Self::new(code, words),
            // What the database says may name its files and its servers.
            (code, Who::Database) => {
                tracing::error!(code = error.code(), %error, "the ledger failed the admin API");
                let code = code.unwrap_or(if error.retryable() { Code::LedgerFailed } else { Code::Internal });
                Self::new(code, code.title())
            }
            _ => {
                tracing::error!(code = error.code(), %error, "the ledger refused what the admin API has no name for");
                Self::new(Code::Internal, Code::Internal.title())
            }
        }
    }
}

impl From<DeskError> for Problem {
    fn from(error: DeskError) -> Self {
        match error {
            DeskError::Ledger(error) => error.into(),
            DeskError::Texts(error) => {
                tracing::error!(code = error.code(), %error, "a key of sealed texts could not be destroyed");
                Self::new(Code::Internal, Code::Internal.title())
            }
            DeskError::Unjournalled { change, hint, source } => {
                tracing::error!(%change, %source, "a change could not be journalled");
                let words = format!("{change} is in the ledger but could not be journalled\nhint: {hint}");
                Self::new(Code::NotJournalled, words)
            }
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Self { code, detail, hint, errors } = &self;
        let body = Body {
            r#type: code.address(),
            title: code.title(),
            status: code.status(),
            code: code.name(),
            detail,
            hint: hint.as_deref(),
            errors,
        };
        let status = StatusCode::from_u16(code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, axum::Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"anbiq admin\""));
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
