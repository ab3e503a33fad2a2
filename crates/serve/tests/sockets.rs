//! What comes over a socket that no proper client would send: never two meanings, never a hang, and life goes on.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anbiq_domain::TextPolicy;
use anbiq_ledger::Plan;
use anbiq_serve::Config;
use common::{House, Mock, Setup, Step, answers, finished, hello, text, usage, with};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long a case may take until the gateway has closed its connection; the gateway is told to be quicker.
const PATIENCE: Duration = Duration::from_secs(30);

/// What must become of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    /// So many answers of 200, and no other.
    Answered(usize),
    /// At most one answer of 200, for what stands first; the connection ends then. Chunks win over a length (RFC 9112).
    AtMostOne,
    /// No answer of 200, and no model was asked.
    Refused,
}

use Expected::{Answered, AtMostOne, Refused};

const START: &str = "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nauthorization: Bearer KEY\r\n";

/// The cases: START stands for the first lines of a good request, BODY for its body, LENGTH for the length of that,
/// CHUNKS for the body in chunks, and SMUGGLED for a whole second request that must not be seen.
const CASES: &[(&str, Expected, &str)] = &[
    // What is as it should be, or may be
    ("plain", Answered(1), "STARTcontent-length: LENGTH\r\n\r\nBODY"),
    ("chunked", Answered(1), "STARTtransfer-encoding: chunked\r\n\r\nCHUNKS"),
    ("trailers", Answered(1), "STARTtransfer-encoding: chunked\r\n\r\nTAILLESSx-evil: 1\r\n\r\n"),
    ("pipelined", Answered(2), "STARTcontent-length: LENGTH\r\n\r\nBODYSTARTcontent-length: LENGTH\r\n\r\nBODY"),
    ("an empty line first", Answered(1), "\r\nSTARTcontent-length: LENGTH\r\n\r\nBODY"),
    ("expect", Answered(1), "STARTexpect: 100-continue\r\ncontent-length: LENGTH\r\n\r\nBODY"),
    ("upgrade", Answered(1), "STARTconnection: upgrade\r\nupgrade: h2c\r\ncontent-length: LENGTH\r\n\r\nBODY"),
    (
        "absolute form",
        Answered(1),
        "POST http://other/v1/chat/completions HTTP/1.1\r\nhost: a\r\nauthorization: Bearer KEY\r\ncontent-length: LENGTH\r\n\r\nBODY",
    ),
    (
        "version 1.0",
        Answered(1),
        "POST /v1/chat/completions HTTP/1.0\r\nauthorization: Bearer KEY\r\ncontent-length: LENGTH\r\n\r\nBODY",
    ),
    // Lengths
    ("two lengths", Refused, "STARTcontent-length: LENGTH\r\ncontent-length: 5\r\n\r\nBODY"),
    ("two lengths, the wrong one first", Refused, "STARTcontent-length: 5\r\ncontent-length: LENGTH\r\n\r\nBODY"),
    ("the same length twice", AtMostOne, "STARTcontent-length: LENGTH\r\ncontent-length: LENGTH\r\n\r\nBODY"),
    ("two lengths in one", Refused, "STARTcontent-length: LENGTH, 5\r\n\r\nBODY"),
    ("a length with a sign", Refused, "STARTcontent-length: +LENGTH\r\n\r\nBODY"),
    ("a negative length", Refused, "STARTcontent-length: -1\r\n\r\nBODY"),
    ("a length in hexadecimal", Refused, "STARTcontent-length: 0x20\r\n\r\nBODY"),
    ("a length that is no number", Refused, "STARTcontent-length: many\r\n\r\nBODY"),
    ("a length too large for a number", Refused, "STARTcontent-length: 99999999999999999999999\r\n\r\nBODY"),
    ("a length too large for this gateway", Refused, "STARTcontent-length: 99999999999\r\n\r\nBODY"),
    ("no length", Refused, "START\r\nBODY"),
    ("a length of nothing, and a request behind it", Refused, "STARTcontent-length: 0\r\n\r\nBODY"),
    ("a body that goes on", AtMostOne, "STARTcontent-length: LENGTH\r\n\r\nBODYand on and on\r\n\r\n"),
    ("a body that stops early", Refused, "STARTcontent-length: 9999\r\n\r\nBODY"),
    // Smuggling
    (
        "length and chunks",
        Refused,
        "STARTcontent-length: LENGTH\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nSMUGGLED",
    ),
    ("chunks and length", Refused, "STARTtransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\nSMUGGLED"),
    (
        "chunks, a length and a good body",
        AtMostOne,
        "STARTtransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\nCHUNKSSMUGGLED",
    ),
    ("an unknown encoding", Refused, "STARTtransfer-encoding: xchunked\r\ncontent-length: LENGTH\r\n\r\nBODYSMUGGLED"),
    ("chunked is not last", Refused, "STARTtransfer-encoding: chunked, identity\r\n\r\n0\r\n\r\nSMUGGLED"),
    ("identity", Refused, "STARTtransfer-encoding: identity\r\ncontent-length: LENGTH\r\n\r\nBODYSMUGGLED"),
    (
        "two encodings",
        Refused,
        "STARTtransfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n0\r\n\r\nSMUGGLED",
    ),
    (
        "a space before the colon",
        Refused,
        "STARTtransfer-encoding : chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\nSMUGGLED",
    ),
    (
        "a space before the name",
        Refused,
        "START transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\nSMUGGLED",
    ),
    (
        "a tab before the name",
        Refused,
        "START\ttransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\nSMUGGLED",
    ),
    (
        "a vertical tab in the value",
        Refused,
        "STARTtransfer-encoding: \u{b}chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\nSMUGGLED",
    ),
    (
        "a folded line",
        Refused,
        "STARTx: a\r\n transfer-encoding: chunked\r\ncontent-length: LENGTH\r\n\r\nBODYSMUGGLED",
    ),
    ("a folded encoding", Refused, "STARTtransfer-encoding:\r\n chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\nSMUGGLED"),
    (
        "an encoding in version 1.0",
        Refused,
        "POST /v1/chat/completions HTTP/1.0\r\nhost: a\r\nauthorization: Bearer KEY\r\ntransfer-encoding: chunked\r\n\r\nCHUNKS",
    ),
    (
        "a bare return ends a line",
        Refused,
        "STARTx: a\rtransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\nSMUGGLED",
    ),
    (
        "bare line feeds",
        AtMostOne,
        "POST /v1/chat/completions HTTP/1.1\nhost: a\nauthorization: Bearer KEY\ncontent-length: LENGTH\n\nBODY",
    ),
    // Chunks
    ("a chunk of no number", Refused, "STARTtransfer-encoding: chunked\r\n\r\nzz\r\nBODY\r\n0\r\n\r\n"),
    ("a chunk of a negative number", Refused, "STARTtransfer-encoding: chunked\r\n\r\n-1\r\nBODY\r\n0\r\n\r\n"),
    ("a chunk with a prefix", Refused, "STARTtransfer-encoding: chunked\r\n\r\n0x5\r\nBODY\r\n0\r\n\r\n"),
    ("a chunk without a size", Refused, "STARTtransfer-encoding: chunked\r\n\r\n\r\nBODY\r\n0\r\n\r\n"),
    (
        "a chunk larger than numbers",
        Refused,
        "STARTtransfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\nBODY\r\n0\r\n\r\n",
    ),
    (
        "a chunk larger than memory",
        Refused,
        "STARTtransfer-encoding: chunked\r\n\r\nfffffffffffffff\r\nBODY\r\n0\r\n\r\n",
    ),
    ("a chunk that is too short", Refused, "STARTtransfer-encoding: chunked\r\n\r\n3\r\nBODY\r\n0\r\n\r\n"),
    ("an extension without end", Refused, "STARTtransfer-encoding: chunked\r\n\r\n5;LONG"),
    ("a chunk that never comes", Refused, "STARTtransfer-encoding: chunked\r\n\r\n5\r\nab"),
    // Heads
    ("a large header", Refused, "STARTx: LONG\r\ncontent-length: LENGTH\r\n\r\nBODY"),
    ("a large path", Refused, "GET /LONG HTTP/1.1\r\nhost: a\r\n\r\n"),
    ("many headers", Refused, "STARTMANYcontent-length: LENGTH\r\n\r\nBODY"),
    ("a zero byte in a value", Refused, "STARTx: a\0b\r\ncontent-length: LENGTH\r\n\r\nBODY"),
    ("a zero byte in a name", Refused, "STARTx\0y: a\r\ncontent-length: LENGTH\r\n\r\nBODY"),
    (
        "a zero byte in the path",
        Refused,
        "POST /v1/chat/completions\0 HTTP/1.1\r\nhost: a\r\ncontent-length: LENGTH\r\n\r\nBODY",
    ),
    ("a line without a colon", Refused, "STARTxyz\r\ncontent-length: LENGTH\r\n\r\nBODY"),
    ("a line without a name", Refused, "START: a\r\ncontent-length: LENGTH\r\n\r\nBODY"),
    (
        "no host",
        Refused,
        "POST /v1/chat/completions HTTP/1.1\r\nauthorization: Bearer KEY\r\ncontent-length: LENGTH\r\n\r\nBODY",
    ),
    ("two hosts", Refused, "STARThost: b\r\ncontent-length: LENGTH\r\n\r\nBODY"),
    ("no head", Refused, "\r\n\r\n\r\n\r\n"),
    ("half a head", Refused, "POST /v1/chat/completions HT"),
    // First lines
    ("version 0.9", Refused, "GET /v1/models\r\n"),
    ("version 3.7", Refused, "GET /v1/models HTTP/3.7\r\nhost: a\r\n\r\n"),
    ("version 2's preface", Refused, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    ("the start of TLS", Refused, "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\u{fc}\u{3}\u{3}"),
    ("authority form", Refused, "CONNECT 169.254.169.254:80 HTTP/1.1\r\nhost: a\r\n\r\n"),
    ("asterisk form", Refused, "OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n"),
    (
        "a method in small letters",
        Refused,
        "post /v1/chat/completions HTTP/1.1\r\nhost: a\r\nauthorization: Bearer KEY\r\ncontent-length: LENGTH\r\n\r\nBODY",
    ),
    (
        "a method of odd letters",
        Refused,
        "P(ST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: LENGTH\r\n\r\nBODY",
    ),
    (
        "a space in the path",
        Refused,
        "POST /v1/chat /completions HTTP/1.1\r\nhost: a\r\ncontent-length: LENGTH\r\n\r\nBODY",
    ),
    (
        "a way round",
        Refused,
        "POST /v1/../v1/chat/completions HTTP/1.1\r\nhost: a\r\nauthorization: Bearer KEY\r\ncontent-length: LENGTH\r\n\r\nBODY",
    ),
    (
        "an escaped slash",
        Refused,
        "POST /v1/chat%2fcompletions HTTP/1.1\r\nhost: a\r\nauthorization: Bearer KEY\r\ncontent-length: LENGTH\r\n\r\nBODY",
    ),
    (
        "two slashes",
        Refused,
        "POST //v1/chat/completions HTTP/1.1\r\nhost: a\r\nauthorization: Bearer KEY\r\ncontent-length: LENGTH\r\n\r\nBODY",
    ),
    (
        "an escaped line end in the path",
        Refused,
        "GET /v1/models/a%0d%0ax-evil:%201 HTTP/1.1\r\nhost: a\r\nauthorization: Bearer KEY\r\n\r\n",
    ),
    // What could be said back
    (
        "a line end in a model's name",
        Refused,
        "STARTcontent-length: 76\r\n\r\n{\"model\": \"open\\r\\nx-evil: 1\", \"messages\": [{\"role\":\"user\",\"content\":\"hi\"}]}",
    ),
    ("a line end in an id", AtMostOne, "STARTx-request-id: a\\r\\nx-evil: 1\r\ncontent-length: LENGTH\r\n\r\nBODY"),
    (
        "an escaped line end in a key",
        AtMostOne,
        "STARTidempotency-key: a%0d%0ax-evil: 1\r\ncontent-length: LENGTH\r\n\r\nBODY",
    ),
];

fn write_out(case: &str, key: &str, number: usize) -> Vec<u8> {
    let body = with(hello(), json!({"messages": [{"role": "user", "content": format!("case {number}")}]})).to_string();
    let smuggled = with(hello(), json!({"messages": [{"role": "user", "content": "smuggled"}]})).to_string();
    let smuggled = format!("{START}content-length: {}\r\n\r\n{smuggled}", smuggled.len());
    let tailless = format!("{:x};x=1\r\n{body}\r\n0\r\n", body.len());
    let many: String = (0..200).map(|index| format!("x-{index}: 1\r\n")).collect();
    case.replace("SMUGGLED", &smuggled)
        .replace("START", START)
        .replace("KEY", key)
        .replace("CHUNKS", &format!("{tailless}\r\n"))
        .replace("TAILLESS", &tailless)
        .replace("BODY", &body)
        .replace("LENGTH", &body.len().to_string())
        .replace("MANY", &many)
        .replace("LONG", &"a".repeat(100_000))
        // One byte for each character, so that bytes that are no text can be written too.
        .chars()
        .map(|character| u8::try_from(u32::from(character)).unwrap())
        .collect()
}

/// Sends `bytes` and reads until the gateway closes the connection.
async fn send(house: &House, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(house.base.trim_start_matches("http://")).await.unwrap();
    let mut answer = Vec::new();
    let talk = async {
        // The gateway may close before it has read all.
        let _ = stream.write_all(bytes).await;
        let mut buffer = [0; 4096];
        loop {
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(read) => answer.extend_from_slice(&buffer[..read]),
            }
        }
    };
    let closed = tokio::time::timeout(PATIENCE, talk).await;
    assert!(closed.is_ok(), "the gateway does not close the connection");
    String::from_utf8_lossy(&answer).into_owned()
}

/// The statuses of the answers in `text`; to continue is no answer.
fn statuses(text: &str) -> Vec<u16> {
    let lines = text.split("\r\n").filter_map(|line| line.rsplit_once("HTTP/1.").map(|(_, rest)| rest));
    lines.map(|rest| rest[2..5].parse().unwrap()).filter(|status| *status != 100).collect()
}

fn config() -> Config {
    Config { header_timeout_ms: 400, body_timeout_ms: 400, write_timeout_ms: 400, ..Config::default() }
}

#[tokio::test]
async fn nothing_is_read_in_two_ways() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let notes = Arc::clone(&asked);
    let mock = Mock::new(move |request| {
        notes.lock().unwrap().push(request.prompt.last_text().to_owned());
        answers(request)
    });
    let house = House::furnished(Setup { config: config(), mock, ..Setup::default() }).await;
    let sent = CASES.iter().enumerate().map(|(number, (_, _, case))| {
        let bytes = write_out(case, &house.key, number);
        let house = &house;
        async move { send(house, &bytes).await }
    });
    let answers = futures::future::join_all(sent).await;
    let mut offences = Vec::new();
    for (number, ((name, expected, _), answer)) in CASES.iter().zip(&answers).enumerate() {
        let statuses = statuses(answer);
        let prompt = format!("case {number}");
        let times = asked.lock().unwrap().iter().filter(|asked| **asked == prompt).count();
        let good = statuses.iter().filter(|status| **status == 200).count();
        let fits = match expected {
            Answered(count) => good == *count && statuses.len() == *count && times == *count,
            AtMostOne => good <= 1 && times == good && statuses.len() <= 2,
            // What stands behind a request without a body is a second one, and no good one either.
            Refused => good == 0 && times == 0 && statuses.len() <= 2,
        };
        if !fits || answer.to_lowercase().contains("\r\nx-evil") {
            offences.push(format!("{name}: expected {expected:?}, asked {times} times, {statuses:?}"));
        }
    }
    assert!(offences.is_empty(), "{}", offences.join("\n"));
    assert!(!asked.lock().unwrap().iter().any(|asked| asked == "smuggled"));
    assert_eq!(house.chat(&hello()).await.status, 200, "the gateway goes on");
    house.settled().await;
    assert_eq!(house.metrics("anbiq_requests_in_flight").await, ["anbiq_requests_in_flight 0"]);
}

#[tokio::test]
async fn who_sends_slowly_is_not_waited_for() {
    let house = House::furnished(Setup { config: config(), ..Setup::default() }).await;
    let mut stream = TcpStream::connect(house.base.trim_start_matches("http://")).await.unwrap();
    let dripped = tokio::time::timeout(PATIENCE, async {
        for byte in b"POST /v1/chat/completions HTTP/1.1\r\nx: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" {
            tokio::time::sleep(Duration::from_millis(50)).await;
            if stream.write_all(&[*byte]).await.is_err() {
                return true;
            }
        }
        false
    });
    assert!(dripped.await.unwrap(), "a head that drips is cut off");
    let slow = write_out("STARTcontent-length: 9999\r\n\r\n{", &house.key, 0);
    assert_eq!(statuses(&send(&house, &slow).await), [408]);
    assert_eq!(house.chat(&hello()).await.status, 200);
}

#[tokio::test]
async fn who_reads_nothing_costs_a_connection_for_a_while() {
    // More than the buffers of both ends of a connection hold.
    let script = |_: &anbiq_model::Request| {
        let mut steps = vec![Step::Do(text(0, &"word ".repeat(100_000), None)); 100];
        steps.extend([Step::Do(finished(0, 9)), Step::Do(usage(1, 9))]);
        steps
    };
    let config = Config { max_connections: 1, request_timeout_ms: 500, ..config() };
    // An answer as long as this one would not fit the journal with its text.
    let plan = Plan { text_policy: TextPolicy::Off, ..Setup::default().plan };
    let house = House::furnished(Setup { config, plan, mock: Mock::new(script), ..Setup::default() }).await;
    let body = with(hello(), json!({"stream": true})).to_string();
    let head = write_out(START, &house.key, 0);
    let mut stream = TcpStream::connect(house.base.trim_start_matches("http://")).await.unwrap();
    stream.write_all(&head).await.unwrap();
    stream.write_all(format!("content-length: {}\r\n\r\n{body}", body.len()).as_bytes()).await.unwrap();
    house.exchange(1).await;
    // The only connection there may be is still open at this end: another one is taken only when it is given up.
    let second = write_out("GET /livez HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", &house.key, 0);
    assert_eq!(statuses(&send(&house, &second).await), [200]);
    drop(stream);
}

#[tokio::test]
async fn idle_connections_give_way() {
    let house =
        House::furnished(Setup { config: Config { max_connections: 200, ..config() }, ..Setup::default() }).await;
    let mut idle = Vec::new();
    for _ in 0..200 {
        idle.push(TcpStream::connect(house.base.trim_start_matches("http://")).await.unwrap());
    }
    let reply = tokio::time::timeout(PATIENCE, house.chat(&hello())).await.unwrap();
    assert_eq!(reply.status, 200, "it waited until the idle ones were closed");
    for mut connection in idle {
        assert_eq!(connection.read(&mut [0; 16]).await.unwrap_or(0), 0, "nothing is said to who says nothing");
    }
}
