//! Batches: many requests in one file, answered within a day and for less, as OpenAI's `/files` and `/batches` have it.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method};
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::client::{Client, ClientError, ErrorKind, next_piece};

/// A batch, as its server tells of it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Batch {
    /// Its name at the server.
    pub id: String,
    /// `validating`, `in_progress`, `finalizing`, `completed`, `failed`, `expired`, `cancelling` or `cancelled`.
    pub status: String,
    /// The file of answers, where there are any.
    #[serde(default)]
    pub output_file_id: Option<String>,
    /// The file of requests that failed, where there are any.
    #[serde(default)]
    pub error_file_id: Option<String>,
    /// What was said of it when it was made.
    #[serde(default)]
    pub metadata: Option<BTreeMap<String, String>>,
    /// Why it failed as a whole.
    #[serde(default)]
    pub errors: Option<Value>,
}

impl Batch {
    /// Will nothing more come of it?
    pub fn has_ended(&self) -> bool {
        ["completed", "failed", "expired", "cancelled"].contains(&self.status.as_str())
    }

    /// Why it failed as a whole, in the server's words.
    pub fn problem(&self) -> Option<&str> {
        self.errors.as_ref()?["data"][0]["message"].as_str()
    }
}

/// A page of a server's batches, the latest first.
#[derive(Debug, Clone, Deserialize)]
pub struct Batches {
    /// The batches.
    pub data: Vec<Batch>,
    /// Are there earlier ones?
    #[serde(default)]
    pub has_more: bool,
}

/// Separates the parts of an upload. A line of JSON holds no line break, so it never begins a line of the content.
const BOUNDARY: &str = "anbiq-part-9f2c4e";

impl Client {
    /// Uploads a file of JSON lines, one request a line; gives the server's name for it.
    ///
    /// # Errors
    /// See [`ErrorKind`].
    pub async fn upload_batch(&self, lines: &[u8], headers: &[(String, String)]) -> Result<String, ClientError> {
        #[derive(Deserialize)]
        struct File {
            id: String,
        }
        let mut body = format!(
            "--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n--{BOUNDARY}\r\n\
             content-disposition: form-data; name=\"file\"; filename=\"requests.jsonl\"\r\ncontent-type: application/jsonl\r\n\r\n"
        )
        .into_bytes();
        body.extend_from_slice(lines);
        body.extend_from_slice(format!("\r\n--{BOUNDARY}--\r\n").as_bytes());
        let kind = format!("multipart/form-data; boundary={BOUNDARY}");
        let kind = HeaderValue::try_from(kind)
            .map_err(|why| ClientError::new(ErrorKind::Setup, "request_invalid", why.to_string()))?;
        let file: File = self.exchange(Method::POST, "/files", Some((Bytes::from(body), kind)), headers).await?;
        Ok(file.id)
    }

    /// Makes a batch of the chat completions in an uploaded file, to be answered within a day.
    ///
    /// # Errors
    /// See [`ErrorKind`]. After an error of the connection it may have been made all the same: [`Client::batches`] tells.
    pub async fn create_batch(
        &self,
        file: &str,
        metadata: &BTreeMap<String, String>,
        headers: &[(String, String)],
    ) -> Result<Batch, ClientError> {
        let body = json!({
            "input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h", "metadata": metadata,
        });
        let json = HeaderValue::from_static("application/json");
        self.exchange(Method::POST, "/batches", Some((Bytes::from(body.to_string()), json)), headers).await
    }

    /// Asks how far a batch is.
    ///
    /// # Errors
    /// See [`ErrorKind`].
    pub async fn batch(&self, id: &str) -> Result<Batch, ClientError> {
        self.exchange(Method::GET, &format!("/batches/{}", plain(id)?), None, &[]).await
    }

    /// Asks for up to a hundred batches, those made before `after` where it is given.
    ///
    /// # Errors
    /// See [`ErrorKind`].
    pub async fn batches(&self, after: Option<&str>) -> Result<Batches, ClientError> {
        let path = match after {
            Some(after) => format!("/batches?limit=100&after={}", plain(after)?),
            None => "/batches?limit=100".to_owned(),
        };
        self.exchange(Method::GET, &path, None, &[]).await
    }

    /// Opens a file of the server, to be read line by line.
    ///
    /// # Errors
    /// See [`ErrorKind`].
    pub async fn file(&self, id: &str) -> Result<FileLines, ClientError> {
        let path = format!("/files/{}/content", plain(id)?);
        let (body, patience, limit) = self.open(&path).await?;
        Ok(FileLines { body, patience, limit, rest: Vec::new(), begin: 0, ended: false })
    }
}

/// A server's name may stand in a path as it is, or it is none.
fn plain(id: &str) -> Result<&str, ClientError> {
    let usual = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if !id.is_empty() && id.bytes().all(usual) {
        return Ok(id);
    }
    let message = format!("the server gave `{}` as a name", id.escape_debug());
    Err(ClientError::new(ErrorKind::Malformed, "answer_malformed", message))
}

/// The lines of a server's file.
#[derive(Debug)]
pub struct FileLines {
    body: Incoming,
    patience: Duration,
    /// The longest line.
    limit: usize,
    rest: Vec<u8>,
    /// Where in `rest` the next line begins.
    begin: usize,
    ended: bool,
}

impl FileLines {
    /// The next line without its end; `None` after the last.
    ///
    /// # Errors
    /// The connection broke, or a line is too long.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, ClientError> {
        let mut looked = self.begin;
        loop {
            if let Some(end) = self.rest[looked..].iter().position(|byte| *byte == b'\n') {
                let line = self.rest[self.begin..looked + end].to_vec();
                self.begin = looked + end + 1;
                return Ok(Some(line));
            }
            self.rest.drain(..self.begin);
            self.begin = 0;
            looked = self.rest.len();
            if self.ended {
                return Ok((!self.rest.is_empty()).then(|| std::mem::take(&mut self.rest)));
            }
            if self.rest.len() > self.limit {
                let message = format!("a line of the server's file is longer than {} bytes", self.limit);
                return Err(ClientError::new(ErrorKind::Malformed, "answer_too_long", message));
            }
            match next_piece(&mut self.body, self.patience).await? {
                Some(piece) => self.rest.extend_from_slice(&piece),
                None => self.ended = true,
            }
        }
    }
}

/// A line of a batch's input.
#[derive(Debug, Serialize, Deserialize)]
pub struct BatchLine<B> {
    /// By which the answer is told from others.
    pub custom_id: String,
    /// `POST`.
    pub method: String,
    /// The path.
    pub url: String,
    /// The request.
    pub body: B,
}

/// A line of a batch's output, or of its errors.
#[derive(Debug, Clone, Deserialize)]
pub struct BatchAnswer {
    /// That of the request.
    pub custom_id: String,
    /// What was answered, where it came to that.
    #[serde(default)]
    pub response: Option<BatchResponse>,
    /// Why it did not.
    #[serde(default)]
    pub error: Option<Value>,
}

/// An answer within a batch.
#[derive(Debug, Clone, Deserialize)]
pub struct BatchResponse {
    /// The HTTP status.
    pub status_code: u16,
    /// The body.
    #[serde(default)]
    pub body: Value,
}
