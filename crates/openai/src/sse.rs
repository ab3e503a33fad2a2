//! Server-sent events (WHATWG HTML, section 9.2), as the OpenAI dialect uses them.
//!
//! The decoder is incremental: bytes may be cut anywhere, also inside a character, and the events are the same.

use bytes::Bytes;

/// The event that ends a stream.
pub const DONE: &str = "[DONE]";

/// A comment that keeps a silent connection open.
pub const HEARTBEAT: &[u8] = b": keep-alive\n\n";

/// The bytes of an event with `data`. Line feeds in `data` become several `data:` lines; JSON holds none.
pub fn encode(data: &str) -> Bytes {
    let mut bytes = Vec::with_capacity(data.len() + 8);
    for line in data.split('\n') {
        bytes.extend_from_slice(b"data: ");
        bytes.extend_from_slice(line.as_bytes());
        bytes.push(b'\n');
    }
    bytes.push(b'\n');
    bytes.into()
}

/// The bytes of an event of the type `kind` with `data`, as [`encode`] writes it.
pub fn encode_as(kind: &str, data: &str) -> Bytes {
    [b"event: ", kind.as_bytes(), b"\n", &encode(data)].concat().into()
}

/// An event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its type, where the server gave one.
    pub event: Option<String>,
    /// Its data.
    pub data: String,
}

/// An event longer than the decoder holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event of the stream is longer than {limit} bytes")]
pub struct TooLong {
    /// The decoder's limit.
    pub limit: usize,
}

/// Reads events out of bytes.
#[derive(Debug)]
pub struct Decoder {
    limit: usize,
    line: Vec<u8>,
    data: String,
    has_data: bool,
    event: Option<String>,
    after_return: bool,
    at_start: bool,
}

impl Decoder {
    /// A decoder that refuses a line, or an event's data, of more than `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            line: Vec::new(),
            data: String::new(),
            has_data: false,
            event: None,
            after_return: false,
            at_start: true,
        }
    }

    /// Reads `bytes` and adds the events that they complete to `events`.
    ///
    /// # Errors
    /// An event is too long; the decoder is of no further use then.
    pub fn push(&mut self, bytes: &[u8], events: &mut Vec<Event>) -> Result<(), TooLong> {
        for &byte in bytes {
            match byte {
                // The second half of a line end.
                b'\n' if self.after_return => self.after_return = false,
                b'\n' | b'\r' => {
                    self.after_return = byte == b'\r';
                    self.end_line(events)?;
                }
                _ => {
                    self.after_return = false;
                    if self.line.len() >= self.limit {
                        return Err(TooLong { limit: self.limit });
                    }
                    self.line.push(byte);
                }
            }
        }
        Ok(())
    }

    fn end_line(&mut self, events: &mut Vec<Event>) -> Result<(), TooLong> {
        let bytes = std::mem::take(&mut self.line);
        let text = String::from_utf8_lossy(&bytes);
        let mut line = text.as_ref();
        if std::mem::take(&mut self.at_start) {
            line = line.strip_prefix('\u{feff}').unwrap_or(line);
        }
        if line.is_empty() {
            self.end_event(events);
            return Ok(());
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => {
                if self.data.len() + value.len() + 1 > self.limit {
                    return Err(TooLong { limit: self.limit });
                }
                if self.has_data {
                    self.data.push('\n');
                }
                self.has_data = true;
                self.data.push_str(value);
            }
            "event" => self.event = Some(value.to_owned()),
            // Comments, whose field is empty, and fields that the dialect does not use.
            _ => {}
        }
        Ok(())
    }

    fn end_event(&mut self, events: &mut Vec<Event>) {
        let event = self.event.take();
        let data = std::mem::take(&mut self.data);
        if std::mem::take(&mut self.has_data) {
            events.push(Event { event, data });
        }
    }
}
