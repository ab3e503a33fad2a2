//! What reads the writing of strangers, and what each promises.

use std::error::Error;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use anbiq_domain::{AccountId, Entry, JournalId, Refusal, Timestamp};
use anbiq_journal::{Journal, Options, Reader, SigningKey};
use anbiq_openai::sse::{Decoder, Event, encode};
use anbiq_openai::{ChatRequest, CompletionRequest};
use serde::Serialize;
use tempfile::TempDir;

/// Looks at one input; an error says which promise it broke.
pub(crate) type Check = Box<dyn FnMut(&[u8]) -> Result<(), String>>;

/// Something that is fed.
pub(crate) struct Target {
    pub(crate) name: &'static str,
    /// Pieces that its inputs are made of.
    pub(crate) words: &'static [&'static [u8]],
    pub(crate) prepare: fn() -> Result<Check, Box<dyn Error>>,
}

/// All of them.
pub(crate) const TARGETS: &[Target] = &[
    Target {
        name: "sse",
        words: &[
            b"data: ",
            b"data:",
            b"event: ",
            b"\n",
            b"\r",
            b"\r\n",
            b"\n\n",
            b":",
            b"\xef\xbb\xbf",
            b"[DONE]",
            b"\xc3",
        ],
        prepare: || Ok(Box::new(sse)),
    },
    Target {
        name: "request",
        words: &[
            b"{",
            b"}",
            b"[",
            b"]",
            b"null",
            b"true",
            b"1e999",
            b"-0",
            b"18446744073709551616",
            b"\"\\u0000\"",
            b"\"\\ud800\"",
            b"\"messages\":",
            b"\"content\":",
            b"\"stop\":",
            b"\"stream_options\":",
            b"\"n\":",
            b"\"model\":",
            b",",
            b":",
        ],
        prepare: || Ok(Box::new(request)),
    },
    Target { name: "journal", words: &[b"\0\0\0\0", b"\xff\xff\xff\xff"], prepare: journal },
    Target {
        name: "key",
        words: &[b"sk-anbiq-", b"sk-", b"-", b"Bearer ", b"\0", b"\xc3\xa9", b"000000000000"],
        prepare: || Ok(Box::new(key)),
    },
];

/// The same, where panicking is a broken promise too.
pub(crate) fn guarded(check: &mut Check, input: &[u8]) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(|| check(input))).unwrap_or_else(|_| Err("it panicked".to_owned()))
}

/// The longest line or event that the decoder is told to take.
const LIMIT: usize = 4096;

/// However a stream is cut, its events are the same; none is longer than allowed; what is written is read again.
fn sse(input: &[u8]) -> Result<(), String> {
    let whole = decode([input]);
    if decode(input.chunks(1)) != whole {
        return Err("byte by byte there are other events than at once".to_owned());
    }
    // The input says itself where else it is cut.
    let step = usize::from(input.first().copied().unwrap_or_default()) + 2;
    if decode(input.chunks(step)) != whole {
        return Err(format!("in pieces of {step} bytes there are other events than at once"));
    }
    for event in whole.unwrap_or_default() {
        if event.data.len() > LIMIT {
            return Err(format!("an event of {} bytes was let through", event.data.len()));
        }
        let again = decode([&encode(&event.data)[..]]);
        let data = again.as_ref().map(|events| events.iter().map(|event| event.data.as_str()).collect::<Vec<_>>());
        // Written again it may be too long for a line, since what was lossy is written out.
        if data.is_ok_and(|data| data != [event.data.as_str()]) {
            return Err("what is written is not what is read again".to_owned());
        }
    }
    Ok(())
}

/// The events of `pieces`, or nothing where one is too long: which ones came before that depends on the pieces.
fn decode<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<Event>, ()> {
    let (mut decoder, mut events) = (Decoder::new(LIMIT), Vec::new());
    for piece in pieces {
        decoder.push(piece, &mut events).map_err(|_| ())?;
    }
    Ok(events)
}

/// A request that is read and written is read as the same one.
fn request(input: &[u8]) -> Result<(), String> {
    if let Ok(request) = ChatRequest::parse(input) {
        let again =
            ChatRequest::parse(&written(&request)?).map_err(|why| format!("a chat cannot be read again: {why}"))?;
        same(&request, &again)?;
    }
    if let Ok(request) = CompletionRequest::parse(input) {
        let again =
            CompletionRequest::parse(&written(&request)?).map_err(|why| format!("it cannot be read again: {why}"))?;
        same(&request, &again)?;
    }
    Ok(())
}

fn written(request: &impl Serialize) -> Result<Vec<u8>, String> {
    serde_json::to_vec(request).map_err(|why| format!("what was read cannot be written: {why}"))
}

fn same<T: PartialEq>(one: &T, other: &T) -> Result<(), String> {
    if one == other { Ok(()) } else { Err("what is read again is another request".to_owned()) }
}

/// A key is taken apart only where it is one, and put together again it is the same.
fn key(input: &[u8]) -> Result<(), String> {
    let text = String::from_utf8_lossy(input);
    let Some(public) = anbiq_ledger::public_part(&text) else { return Ok(()) };
    let rest = text.strip_prefix("sk-anbiq-").and_then(|rest| rest.strip_prefix(public));
    let secret = rest.and_then(|rest| rest.strip_prefix('-')).ok_or("the public part is not where it must be")?;
    let base62 = |part: &str, length| part.len() == length && part.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if base62(public, 12) && base62(secret, 48) { Ok(()) } else { Err("it was taken for a key".to_owned()) }
}

/// A journal that was damaged is refused, or opens with entries that were written, from the first one on, and no other.
///
/// The input is not the journal but what is done to its bytes, four at a time: where, and what.
fn journal() -> Result<Check, Box<dyn Error>> {
    let home = tempfile::tempdir()?;
    let original = home.path().join("original");
    let signer = || SigningKey::from_bytes([5; 32]);
    let options = Options { segment_bytes: 4096, checkpoint_every: 8, ..Options::default() };
    let journal = Journal::create(&original, JournalId::new("fuzz")?, signer(), options)?;
    for number in 0..40 {
        let (at, account) = (Timestamp::from_milliseconds(number), AccountId::new(format!("account-{number}"))?);
        journal.append_blocking(&Entry::Refused(Refusal { at, account, code: "fuzz".to_owned() }))?;
    }
    // It is left as by a crash: not closed.
    let files = files(&original)?;
    drop(journal);
    let entries = entries(&original).map_err(|why| format!("the journal as written cannot be read: {why}"))?;
    let place = TempDir::new_in(home.path())?;
    Ok(Box::new(move |input| {
        // The home must stay as long as the check does.
        let _ = &home;
        let broken = |what: &dyn std::fmt::Display| what.to_string();
        let damaged = place.path().join("journal");
        let _ = fs::remove_dir_all(&damaged);
        fs::create_dir_all(&damaged).map_err(|why| broken(&why))?;
        let mut changed = false;
        for (name, bytes) in &files {
            let mut bytes = bytes.clone();
            if name.extension().is_some_and(|extension| extension == "seg") {
                changed |= damage(&mut bytes, input);
            }
            fs::write(damaged.join(name), bytes).map_err(|why| broken(&why))?;
        }
        let Ok((opened, _)) = Journal::open(&damaged, signer(), options) else {
            return if changed { Ok(()) } else { Err("a journal that was not damaged is refused".to_owned()) };
        };
        drop(opened);
        let read = self::entries(&damaged)?;
        if entries.starts_with(&read) {
            Ok(())
        } else {
            Err(format!("{} entries were read of which some were never written so", read.len()))
        }
    }))
}

/// Changes `bytes` as `input` says; true if anything is other than before.
fn damage(bytes: &mut Vec<u8>, input: &[u8]) -> bool {
    let before = bytes.clone();
    for change in input.chunks_exact(4).take(16) {
        let place = usize::from(u16::from_le_bytes([change[0], change[1]]));
        let place = place.checked_rem(bytes.len()).unwrap_or_default();
        match change[2] % 4 {
            0 => {
                if let Some(byte) = bytes.get_mut(place) {
                    *byte ^= change[3];
                }
            }
            1 => bytes.truncate(place),
            2 => bytes.insert(place, change[3]),
            _ => bytes.extend(std::iter::repeat_n(change[3], place % 64)),
        }
    }
    *bytes != before
}

/// A file's name and bytes.
type NamedBytes = (PathBuf, Vec<u8>);

fn files(folder: &std::path::Path) -> Result<Vec<NamedBytes>, Box<dyn Error>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            files.push((entry.file_name().into(), fs::read(entry.path())?));
        }
    }
    Ok(files)
}

/// The entries of a journal, as they are written for people.
fn entries(folder: &std::path::Path) -> Result<Vec<String>, String> {
    let reader = Reader::open(folder).map_err(|why| why.to_string())?;
    let records = reader.entries().map_err(|why| why.to_string())?;
    let accepted = records.map_while(Result::ok).map(|record| serde_json::to_string(&record.entry));
    accepted.collect::<Result<_, _>>().map_err(|why| why.to_string())
}
