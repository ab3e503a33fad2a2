//! Where servers of the dialect differ: their paths, and how they take a key.

use anbiq_secret::Secret;
use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue};

use crate::client::{ClientError, ErrorKind};

/// How a server lays out its paths and takes its key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Dialect {
    /// As OpenAI does: the path after `/v1`, the key as a bearer's.
    #[default]
    OpenAi,
    /// As Azure does: the key in the header `api-key`, and either the path of a deployment with the version of the API
    /// in the query, or `/openai/v1`.
    Azure {
        /// The deployment, which stands in the path and takes the place of a model's name.
        deployment: String,
        /// The version of the API, such as `2024-10-21`. Without one the path is `/openai/v1`, which needs none.
        api_version: Option<String>,
    },
}

/// The header in which Azure takes a key.
const API_KEY: HeaderName = HeaderName::from_static("api-key");

/// The path of Azure's API that is the same in all versions.
const V1: &str = "/openai/v1";

impl Dialect {
    /// Could its parts stand in a path and in a query as they are?
    pub(crate) fn check(&self) -> Result<(), ClientError> {
        let Self::Azure { deployment, api_version } = self else { return Ok(()) };
        let plain = |text: &str| {
            let usual = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
            !text.is_empty() && text.bytes().all(usual) && !text.bytes().all(|byte| byte == b'.')
        };
        if plain(deployment) && api_version.as_deref().is_none_or(plain) {
            return Ok(());
        }
        let message = "a deployment and an `api_version` are letters, digits, `-`, `_` and `.`";
        Err(ClientError::new(ErrorKind::Setup, "dialect_invalid", message))
    }

    /// The address of `path`, such as `/chat/completions`, at the server whose address is `base`.
    pub(crate) fn uri(&self, base: &str, path: &str) -> String {
        let Self::Azure { deployment, api_version } = self else { return [base, path].concat() };
        let resource = base.strip_suffix(V1).or_else(|| base.strip_suffix("/openai")).unwrap_or(base);
        match api_version {
            None => [resource, V1, path].concat(),
            // Which models there are is no question to one of them.
            Some(version) if path == "/models" => format!("{resource}/openai{path}?api-version={version}"),
            Some(version) => format!("{resource}/openai/deployments/{deployment}{path}?api-version={version}"),
        }
    }

    /// The header that presents `key`.
    pub(crate) fn key(&self, key: &Secret<String>) -> Result<(HeaderName, HeaderValue), ClientError> {
        let (name, text) = match self {
            Self::OpenAi => (AUTHORIZATION, Secret::new(format!("Bearer {}", key.expose()))),
            Self::Azure { .. } => (API_KEY, key.clone()),
        };
        let mut value = HeaderValue::try_from(text.expose().as_str()).map_err(|_| {
            ClientError::new(ErrorKind::Setup, "key_invalid", "the key cannot be sent: it is not plain text")
        })?;
        value.set_sensitive(true);
        Ok((name, value))
    }
}
