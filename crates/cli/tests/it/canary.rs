//! A canary in every secret's place, everything run, and every output searched for every one of them.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::{Arc, Mutex};

use anbiq_lab::mock::{Fault, Mock};
use base64::Engine;
use base64::prelude::{BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD};

use crate::served::{Served, ask};
use crate::support::{Done, Place};

/// A collector of OpenTelemetry that keeps every byte it is sent.
fn collector() -> (String, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let told = Arc::<Mutex<Vec<u8>>>::default();
    let notes = Arc::clone(&told);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, notes) = (stream.unwrap(), Arc::clone(&notes));
            std::thread::spawn(move || {
                let (mut seen, mut buffer) = (Vec::new(), [0; 8192]);
                while let Ok(read @ 1..) = stream.read(&mut buffer) {
                    seen.extend_from_slice(&buffer[..read]);
                    notes.lock().unwrap().extend_from_slice(&buffer[..read]);
                    let text = String::from_utf8_lossy(&seen).into_owned();
                    let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
                    if body.len() >= length.parse().unwrap() {
                        seen.clear();
                        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").unwrap();
                    }
                }
            });
        }
    });
    (address, told)
}

/// What a canary may look like: as it is, in hexadecimal, in base 64 wherever it begins, and escaped.
fn forms(canary: &[u8]) -> Vec<Vec<u8>> {
    let mut forms = vec![canary.to_vec(), hex::encode(canary).into_bytes(), hex::encode_upper(canary).into_bytes()];
    for before in 0..3 {
        let shifted = [&vec![0; before], canary].concat();
        for engine in [BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD] {
            // The letters at both ends depend on what stands around.
            let letters = engine.encode(&shifted);
            forms.push(letters.as_bytes()[(before * 8).div_ceil(6)..shifted.len() * 8 / 6].to_vec());
        }
    }
    let escaped = |byte: &u8| format!("%{byte:02X}");
    forms.push(canary.iter().map(escaped).collect::<String>().into_bytes());
    let unreserved = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
    let usual = canary.iter().map(|byte| if unreserved(byte) { char::from(*byte).to_string() } else { escaped(byte) });
    forms.push(usual.collect::<String>().into_bytes());
    forms
}

fn holds(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|window| window.first() == needle.first() && window == needle)
}

/// Every file under `folder`, but not those under its `secrets`.
fn files(folder: &Path, found: &mut BTreeMap<String, Vec<u8>>) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        if kind.is_dir() && !path.ends_with("secrets") {
            files(&path, found);
        } else if kind.is_file() {
            found.insert(path.display().to_string(), fs::read(path).unwrap());
        }
    }
}

const CONFIGURATION: &str = r#"
secrets = "secrets"
[journal]
path = "journal"
id = "canary"
[ledger]
path = "ledger.db"
[serve]
listen = "127.0.0.1:0"
admin_listen = "127.0.0.1:0"
telemetry = { otlp = "COLLECTOR", interval_ms = 50 }

[[model]]
name = "teacher"
url = "UPSTREAM"
key_env = "UPSTREAM_KEY"
prices = { input = "0.50", output = "2.00" }
[[model.upstream]]
url = "UPSTREAM"
key_file = "secrets/upstream.key"
[[model]]
name = "nowhere"
url = "http://127.0.0.1:9/v1"
key_env = "UPSTREAM_KEY"
prices = { input = "0.50", output = "2.00" }

[[plan]]
id = "silent"
texts = "off"
twin_share = 0.5
[[plan]]
id = "open"
texts = "plain"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_leaves_its_place() {
    let mock = Mock::start().await.unwrap();
    let (otlp, told) = collector();
    let place = Place::empty();
    place.write(
        "anbiq.toml",
        &CONFIGURATION.replace("UPSTREAM\"", &format!("{}\"", mock.base_url)).replace("COLLECTOR", &otlp),
    );
    fs::create_dir(place.path("secrets")).unwrap();

    let mut canaries: BTreeMap<&str, Vec<u8>> = BTreeMap::new();
    for (name, canary) in [
        ("a key of a server in the environment", "cnry-env/Quee7ahPhoo+q"),
        ("a key of a server in a file", "cnry-file/oK4ohNgai+x"),
        ("a prompt", "cnry+prompt/Thah3ieDoo"),
        ("a system's prompt", "cnry+system/ahY9aeGhah"),
        ("a user's name", "cnry-user/ieW2eiQu8o"),
        ("a header", "cnry-header/Ooph7aiVie"),
        ("software", "cnry-agent/Xoh0aeNgoo"),
        ("an address", "203.0.113.77"),
        ("how an account pays", "cnry-payment/ohJ2aiMohb"),
        ("an idempotency key", "cnry-repeat-Eiy4oovuqu"),
        ("the password of a database", "cnrydbBa8ohDohfi"),
        ("a wrong key", "sk-anbiq-Canary000000-Chahdeevahphei2ohgh1aiSh0phohvah9oohoo6aiSheequa"),
    ] {
        canaries.insert(name, canary.as_bytes().to_vec());
    }
    for (file, name, byte) in [("sketch.key", "the key of sketches", 0xc2), ("signing.key", "the signing key", 0xc3)] {
        let bytes: Vec<u8> = (0..32).map(|place: u8| byte ^ place.wrapping_mul(37)).collect();
        place.write(&format!("secrets/{file}"), &format!("{}\n", hex::encode(&bytes)));
        canaries.insert(name, bytes);
    }
    place.write("secrets/upstream.key", &word_of(&canaries, "a key of a server in a file"));
    let mut outputs: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let payment = word_of(&canaries, "how an account pays");
    for (account, plan) in [("quiet", "silent"), ("loud", "open")] {
        let opened = run(
            &place,
            &mut outputs,
            &format!("account open {account} --plan {plan} --budget 1.00 --payment {payment}"),
        );
        assert_eq!(opened.code, 0, "{}", opened.err);
    }
    let poor = run(&place, &mut outputs, "account open poor --plan silent --budget 0.000001");
    assert_eq!(poor.code, 0);
    // A key is shown once, and that is the one place where it may stand.
    let [quiet, loud, poor] =
        ["quiet", "loud", "poor"].map(|account| place.run(&format!("key issue {account}")).out.trim().to_owned());
    canaries.insert("the key of an account", quiet.rsplit('-').next().unwrap().into());
    let admin = place.run("admin key issue --role viewer");
    assert_eq!(admin.code, 0, "{}", admin.err);
    let admin = admin.out.trim().to_owned();
    canaries.insert("the key of an administrator", admin.rsplit('-').next().unwrap().into());
    canaries.insert("the key of another account", poor.rsplit('-').next().unwrap().into());

    let environment = [
        ("UPSTREAM_KEY", word_of(&canaries, "a key of a server in the environment")),
        ("ANBIQ_LOG", "trace".to_owned()),
    ];
    let environment: Vec<(&str, &str)> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let gateway = Served::start(&place, "--log-format json serve", &environment);
    let [door, operators] = gateway.doors.clone();
    let coin = hex::decode(place.read("secrets/coin-000000.key").trim()).unwrap();
    canaries.insert("the key of the coins", coin);
    let (agent, header, address, user) = (
        word_of(&canaries, "software"),
        word_of(&canaries, "a header"),
        word_of(&canaries, "an address"),
        word_of(&canaries, "a user's name"),
    );
    let (prompt, system) = (word_of(&canaries, "a prompt"), word_of(&canaries, "a system's prompt"));
    let headers = |key: &str, more: &str| {
        format!(
            "authorization: Bearer {key}\r\ncontent-type: application/json\r\nuser-agent: {agent}\r\nx-user: {header}\r\n\
             cookie: {header}\r\nx-forwarded-for: {address}\r\nopenai-organization: {header}\r\n{more}"
        )
    };
    let chat = |model: &str, stream: bool| {
        format!(
            r#"{{"model": "{model}", "stream": {stream}, "user": "{user}", "messages": [{{"role": "system",
            "content": "{system}"}}, {{"role": "user", "content": "say {prompt} twice"}}]}}"#
        )
    };
    let line = "POST /v1/chat/completions";
    let mut answered = 0;
    let mut say = |headers: &str, body: &str| {
        let answer = ask(&door, line, headers, body);
        answered += usize::from(answer.starts_with("HTTP/1.1 200"));
        answer
    };
    for _ in 0..6 {
        say(&headers(&quiet, ""), &chat("teacher", false));
        say(&headers(&quiet, ""), &chat("teacher", true));
    }
    let repeat = format!("idempotency-key: {}\r\n", word_of(&canaries, "an idempotency key"));
    for _ in 0..2 {
        say(&headers(&quiet, &repeat), &chat("teacher", false));
    }
    let control = "control-Aephoh8sha";
    let body = format!(r#"{{"model": "teacher", "messages": [{{"role": "user", "content": "{control}"}}]}}"#);
    assert!(say(&headers(&loud, ""), &body).starts_with("HTTP/1.1 200"));

    // What goes wrong: what a customer wrote may come back to the customer, so of these answers only secrets are looked for.
    let wrong_key = word_of(&canaries, "a wrong key");
    let mut errors = vec![
        say(&headers(&wrong_key, ""), &chat("teacher", false)),
        say(&headers(&poor, ""), &chat("teacher", false)),
        say(&headers(&quiet, ""), &chat(&prompt, false)),
        say(&headers(&quiet, ""), &chat("nowhere", false)),
        say(&headers(&quiet, ""), &format!("{{\"model\": \"teacher\", {prompt}")),
        say(&headers(&quiet, ""), &format!(r#"{{"model": "teacher", "messages": "{prompt}"}}"#)),
        say(&headers(&quiet, ""), &format!(r#"{{"model": "teacher", "n": "{prompt}", "messages": []}}"#)),
        ask(&door, &format!("GET /v1/models/{}", prompt.replace('+', "%2B")), &headers(&quiet, ""), ""),
        ask(&door, &format!("GET /{prompt}"), &headers(&quiet, ""), ""),
    ];
    for fault in [
        Fault::Status { status: 500, code: "broken", retry_after: None },
        Fault::Status { status: 401, code: "invalid_api_key", retry_after: None },
        Fault::Status { status: 400, code: "bad", retry_after: None },
        Fault::Garbage,
        Fault::Cut { after: 1 },
    ] {
        mock.fail_always(Some(fault));
        for stream in [false, true] {
            errors.push(say(&headers(&quiet, ""), &chat("teacher", stream)));
        }
    }
    mock.fail_always(None);
    assert!(answered > 10, "{answered}");
    let metrics = ask(&operators, "GET /metrics", "", "");
    for key in [&admin, &quiet, &format!("{admin}x")] {
        let answer = ask(&operators, "GET /api/v1/accounts", &format!("authorization: Bearer {key}\r\n"), "");
        outputs.insert(format!("the admin API, to key {}", outputs.len()), answer.into_bytes());
    }
    assert!(metrics.contains("anbiq_upstream_requests_total"), "{metrics}");
    gateway.signal("-TERM");
    let (code, said) = gateway.ended();
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("an exchange ended") && said.contains("a request was refused"), "logs were written: {said}");

    for words in [
        "journal show journal",
        "journal verify journal",
        "account budget quiet",
        "config check",
        "config check --json",
    ] {
        run(&place, &mut outputs, words);
    }
    let database = format!("postgres://anbiq:{}@127.0.0.1:1/ledger", word_of(&canaries, "the password of a database"));
    place.write("other.toml", &place.read("anbiq.toml").replace("path = \"ledger.db\"", "url_env = \"LEDGER\""));
    let output =
        place.command("serve --config other.toml").env("LEDGER", &database).envs(environment).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    outputs.insert("a ledger that is not there".to_owned(), [output.stdout, output.stderr].concat());
    place.write(
        "wrong.toml",
        &place.read("anbiq.toml").replace("path = \"ledger.db\"", &format!("url = \"{database}\"")),
    );
    run(&place, &mut outputs, "serve --config wrong.toml");
    fs::remove_file(place.path("wrong.toml")).unwrap();

    let errors_of_customers = errors.join("\n").into_bytes();
    outputs.insert("logs and talk".to_owned(), said.into_bytes());
    outputs.insert("metrics".to_owned(), metrics.into_bytes());
    outputs.insert("what the collector was told".to_owned(), told.lock().unwrap().clone());
    files(&place.path(""), &mut outputs);
    // The search itself can find: the texts of the account whose plan keeps them.
    let journal = outputs.iter().filter(|(name, _)| name.contains("/journal/"));
    assert!(journal.clone().any(|(_, bytes)| holds(bytes, control.as_bytes())), "the control is in the journal");
    assert!(forms(b"abcd").contains(&b"YWJj".to_vec()) || forms(b"abcd").iter().any(|form| form.starts_with(b"YWJj")));
    for (told, words) in [("what the collector was told", "gen_ai.request.model"), ("logs and talk", "quiet")] {
        assert!(holds(&outputs[told], words.as_bytes()), "{told} tells something");
    }
    let mut leaks = Vec::new();
    for (name, canary) in &canaries {
        let own = ["a prompt", "a user's name", "a system's prompt"].contains(name);
        let all = outputs.iter().map(|(place, bytes)| (place.as_str(), bytes));
        for (place, bytes) in all.chain((!own).then_some(("answers that are errors", &errors_of_customers))) {
            // How an account pays is what its operator wrote down, and is for the operator to read; for nobody else.
            let kept = place.ends_with("ledger.db") || place.starts_with("the admin API");
            if *name == "how an account pays" && kept {
                continue;
            }
            for form in forms(canary) {
                if holds(bytes, &form) {
                    leaks.push(format!("{name} is in {place} as {}", String::from_utf8_lossy(&form)));
                }
            }
        }
    }
    assert!(leaks.is_empty(), "{}", leaks.join("\n"));

    // And nothing that a customer sent besides the request reached the servers.
    for request in mock.requests() {
        let seen = format!("{:?}", request.headers);
        for name in ["a header", "software", "an address", "an idempotency key", "the key of an account"] {
            assert!(!seen.contains(&word_of(&canaries, name)), "{name} was passed on: {seen}");
        }
        let names: Vec<&str> = request.headers.keys().map(http::HeaderName::as_str).collect();
        let usual = ["accept", "authorization", "content-length", "content-type", "host", "user-agent"];
        assert!(names.iter().all(|name| usual.contains(name)), "{names:?}");
    }
}

/// Runs the program and keeps what it says.
fn run(place: &Place, outputs: &mut BTreeMap<String, Vec<u8>>, words: &str) -> Done {
    let done = place.run(words);
    outputs.insert(format!("anbiq {words}"), format!("{}\n{}", done.out, done.err).into_bytes());
    done
}

fn word_of(canaries: &BTreeMap<&str, Vec<u8>>, name: &str) -> String {
    String::from_utf8_lossy(&canaries[name]).into_owned()
}
