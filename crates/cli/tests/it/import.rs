//! `anbiq import`: logs of other systems, and what `anbiq watch` makes of them.

mod formats;
pub(crate) mod same;

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;

use anbiq_domain::Imported;
use anbiq_import::Import;
use flate2::Compression;
use flate2::write::GzEncoder;
use insta::assert_snapshot;
use serde_json::{Value, json};

use crate::support::Place;

/// A word that stands in every prompt of these tests.
pub(crate) const CANARY: &str = "spoonbill";

/// A folder with a key.
pub(crate) fn place() -> Place {
    let place = Place::empty();
    place.write("key", &"07".repeat(32));
    place
}

/// The rows of an import.
pub(crate) fn rows(place: &Place, folder: &str) -> Vec<Imported> {
    let import = Import::open_all(&[place.path(folder)]).unwrap().remove(0);
    import.rows().unwrap().map(Result::unwrap).collect()
}

/// The rows in short, one a line.
pub(crate) fn told(place: &Place, folder: &str) -> String {
    let lines = rows(place, folder).into_iter().map(|row| match row {
        Imported::Account { account, opened, payment } => {
            format!("{account} opened {} payment {}", opened.unwrap_or_default(), payment.is_some())
        }
        Imported::Refused { at, account } => format!("{at} {account} refused"),
        Imported::Exchange(exchange) => {
            let usage = exchange.usage.map_or("?".to_owned(), |usage| {
                format!("{}({})+{}", usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens)
            });
            let request = exchange.request.map_or("?".to_owned(), |request| {
                format!("{:?}/{}/{}/{}", request.route, request.temperature, request.max_tokens, request.stream)
            });
            format!(
                "{} {} {} {usage} {} {request}{}{}{}{}",
                exchange.at,
                exchange.account,
                exchange.model.unwrap_or("?".to_owned()),
                exchange.cost.map_or("?".to_owned(), |cost| cost.to_string()),
                exchange.network.map_or("", |_| " network"),
                exchange.agent.map_or("", |_| " agent"),
                exchange.sketch.map_or(String::new(), |sketch| format!(" {} words", sketch.words)),
                if exchange.failed { " failed" } else { "" },
            )
        }
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// One row of a plain log.
fn row(at: i64, account: &str) -> String {
    let prompt = format!("tell me of the {CANARY} number {at}");
    json!({"at": 1_772_409_600 + at, "account": account, "model": "m", "prompt_tokens": 9, "completion_tokens": 20, "prompt": prompt})
        .to_string()
        + "\n"
}

fn gzip(place: &Place, name: &str, text: &str) -> Vec<u8> {
    let mut file = GzEncoder::new(Vec::new(), Compression::default());
    file.write_all(text.as_bytes()).unwrap();
    let bytes = file.finish().unwrap();
    fs::write(place.path(name), &bytes).unwrap();
    bytes
}

#[test]
fn a_bad_row_is_counted_named_and_passed_over() {
    let place = place();
    let long = format!("{{\"at\": 1, \"account\": \"a\", \"prompt\": \"{}\"}}\n", CANARY.repeat(200_000));
    let bad = [
        format!("{{\"at\": 1772409600, \"account\": \"a\", \"prompt\": \"{CANARY}\n"),
        long,
        format!("[\"{CANARY}\"]\n"),
        format!("{{\"account\": \"a\", \"prompt\": \"{CANARY}\"}}\n"),
        format!("{{\"at\": \"{CANARY}\", \"account\": \"a\"}}\n"),
        format!("{{\"at\": 1772409600, \"prompt\": \"{CANARY}\"}}\n"),
        format!("{{\"at\": 1772409600, \"account\": \"a\", \"prompt_tokens\": \"{CANARY}\"}}\n"),
        "\n".to_owned(),
    ];
    let text: String = [row(1, "acme"), bad.concat(), row(2, "acme")].concat();
    place.write("log.jsonl", &text);
    let done = place.run("import log.jsonl --key key --max-row 1 -q");
    assert_snapshot!(format!("{}{}", done.told(), done.out), @r"
    exit 0
    log.jsonl: plain; 9 rows, 2 requests, 0 other, 7 bad
           1 is no JSON
           1 is no object, or has not as many fields as the header
           1 is longer than a row may be
           1 has no time
           1 has a time that is none
           1 does not say whose request it was
           1 has no number where one should be
    1 accounts, 2 exchanges of which 2 have sketches, 0 refused requests, 2026-03-02T00:00:01Z to 2026-03-02T00:00:02Z
    ");
    let manifest: Value = serde_json::from_str(&place.read("imported/import.json")).unwrap();
    let named: Vec<_> = manifest["bad"].as_array().unwrap().iter().map(|bad| bad["row"].as_u64().unwrap()).collect();
    assert_eq!(named, [2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(manifest["bad"][1], json!({"source": "log.jsonl", "row": 3, "fault": "too_long"}));
    no_text(&place, "imported", &done.out);
}

/// No text of the log is in anything that was written or said.
pub(crate) fn no_text(place: &Place, folder: &str, said: &str) {
    let written = fs::read(place.path(folder).join("rows.jsonl.zst")).unwrap();
    let written = zstd::decode_all(written.as_slice()).unwrap();
    for bytes in [written, fs::read(place.path(folder).join("import.json")).unwrap(), said.as_bytes().to_vec()] {
        assert!(!String::from_utf8_lossy(&bytes).contains(CANARY));
    }
}

#[test]
fn the_same_logs_under_the_same_key_give_the_same_bytes_however_they_are_compressed() {
    let place = place();
    let text: String = (0..200).map(|at| row(at, &format!("a-{}", at % 7))).collect();
    let bytes = |folder: &str| fs::read(place.path(folder).join("rows.jsonl.zst")).unwrap();
    fs::create_dir(place.path("plain")).unwrap();
    fs::write(place.path("plain/log"), &text).unwrap();
    gzip(&place, "log.gz", &text);
    fs::write(place.path("log.zst"), zstd::encode_all(text.as_bytes(), 1).unwrap()).unwrap();
    let all = format!("[{}]", text.trim_end().replace('\n', ",\n"));
    place.write("log.json", &all);
    place.write("wrapped.json", &format!("{{\n\"total\": 1, \"data\": {all}, \"next\": null\n}}"));
    for (out, log) in [
        ("one", "plain"),
        ("two", "plain"),
        ("gz", "log.gz"),
        ("zst", "log.zst"),
        ("json", "log.json"),
        ("wrapped", "wrapped.json"),
    ] {
        assert_eq!(place.run(&format!("import {log} --key key --out {out} -q")).code, 0, "{out}");
    }
    assert_eq!(place.read("one/import.json"), place.read("two/import.json"));
    for other in ["two", "gz", "zst", "json", "wrapped"] {
        assert!(bytes("one") == bytes(other), "{other}");
    }
    // Under another key nothing is the same.
    assert_eq!(place.run("import plain --key another --out three -q").code, 0);
    assert!(bytes("one") != bytes("three"));
    assert_eq!(fs::metadata(place.path("another")).unwrap().permissions().mode() & 0o777, 0o600);
    let refused = place.run("watch --imported one --imported three").told();
    assert_snapshot!(refused, @r"
    exit 2
    error: `three` was imported under another key than the first
    hint: hashes and sketches of one key only can be compared; import both with the same `--key`
    ");
}

#[test]
fn a_log_that_ends_early_is_an_error_unless_its_beginning_is_wanted() {
    let place = place();
    let text: String = (0..2_000).map(|at| row(at, "acme")).collect();
    let whole = gzip(&place, "log.gz", &text);
    fs::write(place.path("log.gz"), &whole[..whole.len() / 2]).unwrap();
    assert_snapshot!(place.run("import log.gz --key key -q").told(), @r"
    exit 2
    error: `log.gz` is damaged or ends early: its gzip data cannot be read further
    hint: get the file again, or take what can be read of it with `--partial`
    ");
    assert!(!place.path("imported").exists());
    let done = place.run("import log.gz --key key -q --partial");
    assert_eq!(done.code, 0, "{}", done.err);
    assert!(done.out.contains("not read to its end: its gzip data cannot be read further"), "{}", done.out);
    let read = rows(&place, "imported").len();
    assert!(read > 100 && read < 2_000, "{read}");
}

#[test]
fn what_cannot_be_imported_is_said() {
    let place = place();
    place.write("log.jsonl", &row(1, "acme"));
    place.write("other.jsonl", "{\"hello\": \"there\"}\n");
    place.write("nobody.jsonl", "{\"at\": 1772409600, \"account\": \"\"}\n");
    let refused = |words: &str| place.run(words).told();
    assert_snapshot!(refused("import nowhere.jsonl --key key"), @r"
    exit 2
    error: cannot read `nowhere.jsonl`
      because: No such file or directory (os error 2)
    ");
    assert_snapshot!(refused("import other.jsonl --key key"), @r"
    exit 2
    error: the format of `other.jsonl` could not be told from its first rows
    hint: name it with `--format`; known are otel, litellm, langfuse, helicone, apim, bedrock, openai-usage, kong, cloudflare, plain
    ");
    assert_snapshot!(refused("import nobody.jsonl --key key"), @r"
    exit 2
    error: no row of `nobody.jsonl` tells of an exchange: of 1 row each does not say whose request it was
    hint: `anbiq import --check nobody.jsonl` says what was found
    ");
    assert_eq!(place.run("import log.jsonl --key key -q").code, 0);
    assert_snapshot!(refused("import log.jsonl --key key"), @r"
    exit 2
    error: `imported` is there already
    hint: name another folder, or remove that one
    ");
    place.write("map.toml", "[columns]\nwhen = \"ts\"\n");
    assert_snapshot!(refused("import log.jsonl --mapping map.toml --out x"), @r"
    exit 2
    error: `when` is no field
    hint: fields are at, account, model, operation, status, prompt_tokens, cached_tokens, completion_tokens, cost, address, agent, payment, opened, prompt, system, request, temperature, top_p, max_tokens, n, logprobs, stream
    ");
    let rows = place.path("imported/rows.jsonl.zst");
    let mut bytes = fs::read(&rows).unwrap();
    bytes.extend(
        zstd::encode_all(&b"{\"row\":\"refused\",\"at\":\"2026-03-02T00:00:01Z\",\"account\":\"b\"}\n"[..], 1).unwrap(),
    );
    File::create(&rows).unwrap().write_all(&bytes).unwrap();
    assert_eq!(place.run("watch --imported imported").code, 2);
    assert_snapshot!(refused("watch --imported nowhere"), @r"
    exit 2
    error: `nowhere` holds no finished import: `import.json`: No such file or directory (os error 2)
    ");
}

#[test]
fn imported_logs_are_no_evidence() {
    let place = place();
    assert_eq!(place.run("init .").code, 0);
    place.write("log.jsonl", &(0..40).map(|at| row(at, "acme")).collect::<String>());
    assert_eq!(place.run("import log.jsonl --key key -q").code, 0);
    let done = place.run("watch --imported imported --out findings.json");
    assert_eq!(done.code, 0, "{}", done.err);
    assert!(done.out.contains("note: 40 exchanges rest on imported logs"), "{}", done.out);
    let refused = |words: &str| place.run(words).told();
    assert_snapshot!(refused("watch imported"), @r"
    exit 2
    error: `imported` holds imported logs, which are no journal: no twins, no commitments, no signature
    hint: only `anbiq watch` and `anbiq lake` read them, with `--imported imported`
    ");
    assert_snapshot!(refused("trace suspect --teacher teacher --journal imported"), @r"
    exit 2
    error: `imported` holds imported logs, which are no journal: no twins, no commitments, no signature
    hint: only `anbiq watch` and `anbiq lake` read them, with `--imported imported`
    ");
    let by_imported = "trace suspect --teacher teacher --journal journal --operators findings.json";
    assert_snapshot!(refused(by_imported), @r"
    exit 2
    error: `findings.json` rests on imported logs, which hold no twins and are no evidence
    hint: give the findings of `anbiq watch` on a journal
    ");
    assert_snapshot!(refused("case --watch findings.json"), @r"
    exit 2
    error: `findings.json` rests on imported logs, which hold no twins and are no evidence
    hint: give the findings of `anbiq watch` on a journal
    ");
}

#[test]
fn a_check_says_what_can_be_found() {
    let place = place();
    place.write("log.csv", "ts,customer,ip\n2026-03-02 00:00:01,a,203.0.113.7\n2026-03-02T00:00:02+01:00,b,\n");
    place.write(
        "map.toml",
        "[columns]\nat = \"ts\"\naccount = [\"org\", \"customer\"]\naddress = \"ip\"\n[values]\nmodel = \"m\"\n",
    );
    let done = place.run("import --check log.csv --mapping map.toml");
    assert_snapshot!(format!("{}{}", done.told(), done.out), @r"
    exit 0
    log.csv: plain; 2 rows, 2 requests, 0 other, 0 bad
      at                 100 %  ts
      account            100 %  customer
      model              100 %  (set by the mapping)
      address             50 %  ip

    linking accounts
      payment      no        0 %  needs how an account pays
      network      partly   50 %  needs the client's address
      client       no        0 %  needs the client's software or the request's settings
      sign-up      no        0 %  needs when an account was opened
      content      no        0 %  needs texts of prompts
      work queue   no        0 %  needs texts of prompts
      rhythm       works   100 %  needs times of requests

    judging their use
      novelty      no        0 %  needs texts of prompts
      breadth      no        0 %  needs texts of prompts
      machine      no        0 %  needs texts of prompts
      depth        no        0 %  needs texts of prompts
      elicitation  no        0 %  needs texts of prompts
      mixture      no        0 %  needs texts of prompts
      output       no        0 %  needs tokens of prompts and answers
      rhythm       works   100 %  needs times of requests
      evenness     works   100 %  needs times of requests

    accounts cannot be linked: 1 independent kinds of evidence are there, a link needs two
    without prompts it cannot be judged what accounts are used for: nobody is accused, linked accounts may come up for review
    nothing of it can be proved: logs are neither signed nor committed to, and hold no twins
    ");
    let told: Value = serde_json::from_str(&place.run("import --check log.csv --mapping map.toml --json").out).unwrap();
    assert_eq!(
        told["channels"][1],
        json!({"name": "network", "works": "partly", "share": 0.5, "needs": "the client's address"})
    );
    assert!(!place.path("imported").exists() && !place.path("import.key").exists());
    assert_eq!(place.run("import log.csv --mapping map.toml --key key -q").code, 0);
    assert_snapshot!(told_rows(&place), @r"
    2026-03-02T00:00:01Z a m ? ? ? network
    2026-03-01T23:00:02Z b m ? ? ?
    ");
}

fn told_rows(place: &Place) -> String {
    told(place, "imported")
}

#[test]
fn sums_over_time_are_added_up_and_refused() {
    let place = place();
    let result =
        |key: &str| json!({"input_tokens": 10, "output_tokens": 4, "num_model_requests": 2, "api_key_id": key});
    let bucket = json!({"object": "bucket", "start_time": 1, "end_time": 2, "results": [result("k1"), result("k2")]});
    place.write("usage.json", &json!({"object": "page", "data": [bucket, bucket]}).to_string());
    let done = place.run("import --check usage.json");
    assert!(
        done.out.contains("4 sums of 2 accounts: 8 requests, 40 tokens of prompts, 16 tokens of answers"),
        "{}",
        done.out
    );
    assert_snapshot!(place.run("import usage.json --key key").told(), @r"
    exit 2
    error: `usage.json` holds sums over time, not exchanges: watch cannot read it
    hint: `anbiq import --check usage.json` adds them up; for watch, take a log of single requests
    ");
}

#[test]
fn a_name_that_cannot_be_an_id_is_hashed_and_can_be_looked_up() {
    let place = place();
    place.write("log.jsonl", &[row(1, "ann@firm.example"), row(2, "bob"), row(3, "ann@firm.example")].concat());
    let done = place.run("import log.jsonl --key key --names names.csv -q");
    assert!(done.out.contains("1 accounts have names that cannot be ids"), "{}", done.out);
    let accounts: Vec<String> =
        told(&place, "imported").lines().map(|line| line.split(' ').nth(1).unwrap().to_owned()).collect();
    assert!(accounts[0].starts_with("id-") && accounts[1] == "bob" && accounts[2] == accounts[0], "{accounts:?}");
    assert_eq!(place.read("names.csv"), format!("account,name\n{},\"ann@firm.example\"\n", accounts[0]));
    assert_eq!(fs::metadata(place.path("names.csv")).unwrap().permissions().mode() & 0o777, 0o600);
    let written = zstd::decode_all(fs::read(place.path("imported/rows.jsonl.zst")).unwrap().as_slice()).unwrap();
    assert!(!String::from_utf8(written).unwrap().contains("firm.example"));
}
