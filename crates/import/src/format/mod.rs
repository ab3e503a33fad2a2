//! The formats: what their rows look like, and where in them a field stands.

mod apim;
mod bedrock;
mod cloudflare;
mod helicone;
mod kong;
mod langfuse;
mod litellm;
mod openai_usage;
mod otel;
mod plain;

use std::fmt;
use std::str::FromStr;

use anbiq_domain::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::field::Layout;
use crate::found::time;

pub(crate) use openai_usage::Bucket;

/// The format of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// OpenTelemetry's spans of generative AI: OTLP as JSON, or one span a line.
    Otel,
    /// LiteLLM's table `LiteLLM_SpendLogs`.
    Litellm,
    /// Langfuse: observations and traces.
    Langfuse,
    /// Helicone's table `request_response_rmt`.
    Helicone,
    /// Azure API Management: `ApiManagementGatewayLogs` and `ApiManagementGatewayLlmLog`.
    Apim,
    /// Invocation logs of Amazon Bedrock.
    Bedrock,
    /// Buckets of OpenAI's usage interface: sums, not exchanges.
    OpenaiUsage,
    /// Kong's AI gateway.
    Kong,
    /// Cloudflare's AI gateway.
    Cloudflare,
    /// Rows whose columns bear our names, or those that a mapping says.
    Plain,
}

/// What a row of a format turns out to be.
#[derive(Debug)]
pub(crate) enum Prepared {
    /// A request, ready to be read by the format's layout.
    Request(Map<String, Value>),
    /// Something else that such logs hold.
    Other,
    /// Part of a request of which rows with the same key hold the rest.
    Part { key: String, side: Side, row: Map<String, Value> },
    /// A sum over time.
    Bucket(Bucket),
}

/// Which part of a request that is told in several rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// Who asked.
    Caller,
    /// What was asked.
    Call,
}

impl Format {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Otel,
        Self::Litellm,
        Self::Langfuse,
        Self::Helicone,
        Self::Apim,
        Self::Bedrock,
        Self::OpenaiUsage,
        Self::Kong,
        Self::Cloudflare,
        Self::Plain,
    ];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Otel => "otel",
            Self::Litellm => "litellm",
            Self::Langfuse => "langfuse",
            Self::Helicone => "helicone",
            Self::Apim => "apim",
            Self::Bedrock => "bedrock",
            Self::OpenaiUsage => "openai-usage",
            Self::Kong => "kong",
            Self::Cloudflare => "cloudflare",
            Self::Plain => "plain",
        }
    }

    /// The names of all formats.
    pub(crate) fn known() -> String {
        Self::ALL.map(Self::name).join(", ")
    }

    /// The format of a log with such a row.
    pub(crate) fn of(row: &Map<String, Value>) -> Option<Self> {
        let is: [(Self, Test); 10] = [
            (Self::Otel, otel::is),
            (Self::Bedrock, bedrock::is),
            (Self::Litellm, litellm::is),
            (Self::Helicone, helicone::is),
            (Self::Apim, apim::is),
            (Self::OpenaiUsage, openai_usage::is),
            (Self::Kong, kong::is),
            (Self::Cloudflare, cloudflare::is),
            (Self::Langfuse, langfuse::is),
            (Self::Plain, plain::is),
        ];
        is.into_iter().find(|(_, is)| is(row)).map(|(format, _)| format)
    }

    /// Where its fields stand.
    pub(crate) fn layout(self) -> Layout {
        Layout::new(match self {
            Self::Otel => otel::FIELDS,
            Self::Litellm => litellm::FIELDS,
            Self::Langfuse => langfuse::FIELDS,
            Self::Helicone => helicone::FIELDS,
            Self::Apim => apim::FIELDS,
            Self::Bedrock => bedrock::FIELDS,
            Self::OpenaiUsage => &[],
            Self::Kong => kong::FIELDS,
            Self::Cloudflare => cloudflare::FIELDS,
            Self::Plain => plain::FIELDS,
        })
    }

    /// Do its requests stand in several rows, which may be far apart and in several files?
    pub(crate) const fn is_joined(self) -> bool {
        matches!(self, Self::Apim | Self::Langfuse)
    }

    /// Takes a row apart.
    pub(crate) fn prepare(self, row: Map<String, Value>, out: &mut Vec<Prepared>) {
        match self {
            Self::Otel => otel::prepare(row, out),
            Self::Litellm => out.push(Prepared::Request(litellm::prepare(row))),
            Self::Langfuse => langfuse::prepare(row, out),
            Self::Helicone | Self::Cloudflare | Self::Plain => out.push(Prepared::Request(row)),
            Self::Apim => out.push(apim::prepare(row)),
            Self::Bedrock => out.push(bedrock::prepare(row)),
            Self::OpenaiUsage => openai_usage::prepare(&row, out),
            Self::Kong => out.push(kong::prepare(row)),
        }
    }

    /// When a row was written, as far as rows of several logs must be read in the order of time.
    pub(crate) fn moment(row: &Map<String, Value>) -> Option<Timestamp> {
        const TIMES: [&str; 6] = ["TimeGenerated", "time", "timestamp", "startTime", "start_time", "Time"];
        TIMES.iter().find_map(|key| time(row.get(*key)?).ok())
    }

    /// The requests that rows with one key tell of, in which the order of the calls is kept.
    pub(crate) fn join(
        self,
        caller: Option<Map<String, Value>>,
        calls: Vec<Map<String, Value>>,
    ) -> Vec<Map<String, Value>> {
        match self {
            Self::Apim => apim::join(caller, calls).into_iter().collect(),
            _ => langfuse::join(caller.as_ref(), calls),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|format| format.name() == text);
        found.ok_or_else(|| format!("`{text}` is no format; known are {}", Self::known()))
    }
}

/// Does a row look like one of a format?
type Test = fn(&Map<String, Value>) -> bool;

/// Does `row` have all these keys?
fn has(row: &Map<String, Value>, keys: &[&str]) -> bool {
    keys.iter().all(|key| row.contains_key(*key))
}

/// Does `row` have any of these keys?
fn has_any(row: &Map<String, Value>, keys: &[&str]) -> bool {
    keys.iter().any(|key| row.contains_key(*key))
}
