//! Why a request is not answered, in OpenAI's form.

use anbiq_domain::Timestamp;
use anbiq_journal::JournalError;
use anbiq_ledger::LedgerError;
use anbiq_model::{Fault, ModelError};
use anbiq_openai::{ApiError, ErrorEnvelope, InvalidRequest};
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};

use crate::rate::{Rate, UsedUp};

/// A request that is not answered, or an answer that could not be ended.
#[derive(Debug, Clone)]
pub(crate) struct Rejection {
    pub(crate) status: StatusCode,
    pub(crate) kind: &'static str,
    pub(crate) code: &'static str,
    pub(crate) param: Option<String>,
    pub(crate) message: String,
    pub(crate) retry_after_ms: Option<u64>,
    /// Says against the habit of clients, which try again by the status alone, whether that is of use.
    pub(crate) retry: Option<bool>,
    /// Where the account stands with its rate, where that is what refuses.
    pub(crate) rate: Option<Box<Rate>>,
    /// Did terms, grant, plan or budget refuse it? The journal keeps those, since they show what an account tried.
    pub(crate) journalled: bool,
}

/// Says with a response that it refuses, and by which code: for the metrics.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Refused(pub(crate) &'static str);

impl Rejection {
    fn new(status: StatusCode, kind: &'static str, code: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self {
            status,
            kind,
            code,
            param: None,
            message,
            retry_after_ms: None,
            retry: None,
            rate: None,
            journalled: false,
        }
    }

    /// The request makes no sense; `param` is the field at fault.
    pub(crate) fn invalid(code: &'static str, param: Option<&str>, message: impl Into<String>) -> Self {
        let whole = Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", code, message);
        Self { param: param.map(str::to_owned), ..whole }
    }

    /// A field is out of its range.
    pub(crate) fn value(param: &str, message: impl Into<String>) -> Self {
        Self::invalid("invalid_value", Some(param), message)
    }

    /// A field asks for something that this gateway does not do.
    pub(crate) fn unsupported(param: &str, message: impl Into<String>) -> Self {
        Self::invalid("unsupported_parameter", Some(param), message)
    }

    pub(crate) fn not_found(code: &'static str, param: Option<&str>, message: impl Into<String>) -> Self {
        Self { status: StatusCode::NOT_FOUND, ..Self::invalid(code, param, message) }
    }

    pub(crate) fn too_large(limit: usize) -> Self {
        let message = format!("the request body is larger than {limit} bytes");
        Self { status: StatusCode::PAYLOAD_TOO_LARGE, ..Self::invalid("request_too_large", None, message) }
    }

    pub(crate) fn too_slow() -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "timeout", "request_timeout", "the request body did not come in time")
    }

    pub(crate) fn wrong_method() -> Self {
        let message = "this address does not know this method";
        Self { status: StatusCode::METHOD_NOT_ALLOWED, ..Self::invalid("method_not_allowed", None, message) }
    }

    pub(crate) fn unauthenticated(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "invalid_request_error", code, message)
    }

    /// Terms, grant or plan forbid it.
    pub(crate) fn forbidden(code: &'static str, message: impl Into<String>) -> Self {
        let rejection = Self::new(StatusCode::FORBIDDEN, "permission_error", code, message);
        Self { journalled: true, ..rejection }
    }

    pub(crate) fn rate_limited(used_up: UsedUp) -> Self {
        let UsedUp { rate, wait_ms } = used_up;
        let (of, limit, time) = (rate.of.as_str(), rate.limit, rate.time);
        let message = format!("rate limit reached: {limit} {of} {time}; try again in {wait_ms} ms");
        let rejection = Self::new(StatusCode::TOO_MANY_REQUESTS, of, "rate_limit_exceeded", message);
        Self { retry_after_ms: Some(wait_ms), rate: Some(Box::new(rate)), ..rejection }
    }

    pub(crate) fn too_many_under_way(most: u32) -> Self {
        let message = format!("{most} requests of this account are under way, and no more may be at a time");
        let rejection = Self::new(StatusCode::TOO_MANY_REQUESTS, "requests", "concurrency_limit_exceeded", message);
        Self { retry_after_ms: Some(1000), ..rejection }
    }

    /// The request is under way already.
    pub(crate) fn repeat_in_flight() -> Self {
        let message = "the first request under this `Idempotency-Key` is under way; its answer can be had when it ends";
        Self {
            retry_after_ms: Some(1000),
            retry: Some(true),
            ..Self::named(StatusCode::CONFLICT, "idempotency_in_flight", message)
        }
    }

    /// The request was answered and charged, and the answer is gone.
    pub(crate) fn answer_forgotten() -> Self {
        let message = "the request under this `Idempotency-Key` was answered and charged, and its answer is no longer \
                       kept; ask again under another key";
        Self { retry: Some(false), ..Self::named(StatusCode::CONFLICT, "idempotency_answer_forgotten", message) }
    }

    /// Another request goes by the same key.
    pub(crate) fn key_reused() -> Self {
        let message = "another request was sent under this `Idempotency-Key`: one key is for one request";
        Self::named(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused", message)
    }

    fn named(status: StatusCode, code: &'static str, message: &str) -> Self {
        Self { status, ..Self::invalid(code, Some("Idempotency-Key"), message) }
    }

    /// Nothing is wrong with the request; a later one will be answered.
    pub(crate) fn unavailable(code: &'static str, message: impl Into<String>) -> Self {
        let rejection = Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", code, message);
        Self { retry_after_ms: Some(1000), ..rejection }
    }

    /// Nothing could be reserved for a request of the moment `at`. Where a budget has a window that will end, it says when.
    pub(crate) fn unpaid(error: LedgerError, at: Timestamp) -> Self {
        let wait = match &error {
            // What only requests under way hold comes free much sooner.
            LedgerError::InsufficientBudget(short) if !short.only_reserved() => short.resets,
            _ => None,
        };
        let wait = wait.map(|resets| u64::try_from(resets.since(at)).unwrap_or(0));
        let rejection = Self::from(error);
        Self { retry_after_ms: wait.or(rejection.retry_after_ms), ..rejection }
    }

    pub(crate) fn timeout() -> Self {
        let message = "the answer did not end in time";
        Self::new(StatusCode::GATEWAY_TIMEOUT, "server_error", "timeout", message)
    }

    pub(crate) fn envelope(&self) -> ErrorEnvelope {
        ErrorEnvelope {
            error: ApiError {
                message: self.message.clone(),
                kind: self.kind.to_owned(),
                param: self.param.clone(),
                code: Some(self.code.to_owned()),
            },
        }
    }

    pub(crate) fn body(&self) -> String {
        // Strings always have a JSON form.
        serde_json::to_string(&self.envelope()).unwrap_or_default()
    }
}

impl From<InvalidRequest> for Rejection {
    fn from(error: InvalidRequest) -> Self {
        let code = if error.param.is_some() { "invalid_value" } else { "invalid_json" };
        Self { param: error.param, ..Self::invalid(code, None, error.message) }
    }
}

impl From<LedgerError> for Rejection {
    fn from(error: LedgerError) -> Self {
        let message = error.to_string();
        match &error {
            LedgerError::InvalidKey
            | LedgerError::KeyRevoked
            | LedgerError::KeyExpired
            | LedgerError::AccountClosed => Self::unauthenticated(error.code(), message),
            LedgerError::InsufficientBudget(_) => {
                // By this name clients know that there is no money left.
                let code = if error.code() == "insufficient_budget" { "insufficient_quota" } else { error.code() };
                let refused = Self::new(StatusCode::TOO_MANY_REQUESTS, "insufficient_quota", code, message);
                Self { retry: Some(error.retryable()), journalled: true, ..refused }
            }
            LedgerError::GrantUsedUp(_) | LedgerError::GrantExpired(_) | LedgerError::GrantRevoked(_) => {
                Self::forbidden(error.code(), message)
            }
            LedgerError::OutOfRange(_) => Self::value("max_tokens", message),
            _ => {
                // What the database says is for the log, not for customers.
                tracing::error!(code = error.code(), %error, "the ledger failed");
                Self::unavailable("ledger_unavailable", "the accounts are not available; nothing was charged")
            }
        }
    }
}

impl From<JournalError> for Rejection {
    fn from(error: JournalError) -> Self {
        tracing::error!(code = error.code(), %error, "the journal failed");
        let message = "the answer could not be recorded, so it is not given; nothing was charged";
        Self { retry: Some(error.retryable()), ..Self::unavailable("journal_unavailable", message) }
    }
}

impl From<ModelError> for Rejection {
    fn from(error: ModelError) -> Self {
        let retry_after_ms = error.retry_after_ms;
        let rejection = match error.fault {
            Fault::Request => return Self::invalid(error.code, None, error.message),
            Fault::Busy => Self::unavailable(error.code, "the model is overloaded; try again later"),
            Fault::Model => {
                Self::new(StatusCode::BAD_GATEWAY, "server_error", error.code, "the model failed to answer")
            }
            Fault::Setup => {
                let message = "the model is not available";
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", error.code, message)
            }
        };
        // What a server says of its failure may repeat what it was asked, so not even the log is told more than the code.
        tracing::warn!(code = error.code, "the model failed");
        Self { retry_after_ms: retry_after_ms.or(rejection.retry_after_ms), ..rejection }
    }
}

impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        let mut response = (self.status, self.body()).into_response();
        response.extensions_mut().insert(Refused(self.code));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(wait) = self.retry_after_ms {
            headers.insert(RETRY_AFTER, wait.div_ceil(1000).into());
            headers.insert("retry-after-ms", wait.into());
        }
        if let Some(rate) = self.rate {
            rate.write(headers);
        }
        if let Some(retry) = self.retry {
            headers.insert("x-should-retry", HeaderValue::from_static(if retry { "true" } else { "false" }));
        }
        response
    }
}
