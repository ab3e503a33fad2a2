use std::io;

use anbiq_domain::{AccountId, Exchange, JournalId, Refusal, Seeded, Timestamp};

use super::*;
use crate::sim::{SimDisk, Trouble};
use crate::{Bookmark, Reader, upkeep, verify};

fn key() -> SigningKey {
    SigningKey::from_bytes([9; 32])
}

fn entry(number: i64) -> Entry {
    let account = AccountId::new("a").unwrap();
    Entry::Refused(Refusal { at: Timestamp::from_milliseconds(number), account, code: "c".to_owned() })
}

fn create(dir: &Path, options: Options) -> Journal {
    Journal::create(dir, JournalId::new("j").unwrap(), key(), options).unwrap()
}

fn small() -> Options {
    Options { segment_bytes: 300, queue: 4, checkpoint_every: 3, ..Options::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_of_many_appenders_are_all_there() {
    let dir = tempfile::tempdir().unwrap();
    let journal = create(dir.path(), small());
    let appenders = (0..8).map(|appender| {
        let journal = journal.clone();
        tokio::spawn(async move {
            let mut positions = Vec::new();
            for number in 0..25 {
                positions.push(journal.append(&entry(appender * 100 + number)).await.unwrap());
            }
            positions
        })
    });
    let mut positions = Vec::new();
    for appender in appenders.collect::<Vec<_>>() {
        positions.extend(appender.await.unwrap());
    }
    let asked = journal.checkpoint().await.unwrap();
    assert_eq!(asked.size, 200);
    tokio::task::spawn_blocking(move || journal.close().unwrap()).await.unwrap();
    positions.sort_by_key(|position| position.index);
    let reader = Reader::open(dir.path()).unwrap();
    let records: Vec<_> = reader.entries().unwrap().map(Result::unwrap).collect();
    assert_eq!(records.len(), 200);
    for (record, position) in records.iter().zip(&positions) {
        assert_eq!((record.index, record.leaf), (position.index, position.leaf));
    }
    assert_eq!(reader.last_checkpoint().unwrap(), Some(asked));
    let report = verify(dir.path(), Some(&key().public())).unwrap();
    assert!(report.is_sealed() && report.segments > 10 && report.checkpoints > 1, "{report:?}");
}

#[test]
fn a_closed_journal_goes_on_where_it_ended() {
    let dir = tempfile::tempdir().unwrap();
    let journal = create(dir.path(), small());
    let clone = journal.clone();
    assert_eq!(journal.append_blocking(&entry(1)).unwrap().index, 0);
    let checkpoint = journal.close().unwrap();
    assert_eq!(clone.append_blocking(&entry(2)).unwrap_err().code(), "journal_closed");
    let (journal, recovery) = Journal::open(dir.path(), key(), small()).unwrap();
    assert_eq!((recovery.entries, recovery.truncated_bytes), (1, 0));
    assert_eq!(recovery.last_checkpoint, Some(checkpoint));
    assert_eq!(journal.append_blocking(&entry(2)).unwrap().index, 1);
    assert_eq!(journal.checkpoint_blocking().unwrap().size, 2);
}

#[test]
fn only_one_may_write() {
    let dir = tempfile::tempdir().unwrap();
    let journal = create(dir.path(), small());
    assert_eq!(Journal::open(dir.path(), key(), small()).unwrap_err().code(), "journal_locked");
    assert_eq!(Reader::open(dir.path()).unwrap().entries().unwrap().count(), 0);
    drop(journal);
    assert!(Journal::open(dir.path(), key(), small()).is_ok());
}

#[test]
fn what_cannot_be_opened_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    let told = |error: JournalError| error.to_string().replace(path.to_str().unwrap(), "DIR");
    insta::assert_snapshot!(told(Journal::open(&path, key(), small()).unwrap_err()), @"`DIR` is not a journal: it has no readable `journal.json`: No such file or directory (os error 2)");
    drop(create(&path, small()));
    let again = Journal::create(&path, JournalId::new("j").unwrap(), key(), small()).unwrap_err();
    insta::assert_snapshot!(told(again), @"
    `DIR` already holds a journal
    hint: open it instead, or choose another folder
    ");
    let stranger = SigningKey::from_bytes([1; 32]);
    assert_eq!(Journal::open(&path, stranger, small()).unwrap_err().code(), "journal_wrong_key");
    let header = std::fs::read_to_string(path.join("journal.json")).unwrap();
    std::fs::write(path.join("journal.json"), r#"{"format": 7, "something": "else"}"#).unwrap();
    let errors = [
        Journal::open(&path, key(), small()).unwrap_err(),
        verify(&path, None).unwrap_err(),
        Reader::open(&path).unwrap_err(),
    ];
    assert!(errors.iter().all(|error| error.code() == "journal_other_format"));
    insta::assert_snapshot!(told(errors[0].clone()), @"
    `DIR` is a journal of format 7; this program reads and writes format 2
    hint: read it with the version of anbiq that wrote it
    ");
    std::fs::write(path.join("journal.json"), header).unwrap();
    assert!(Journal::open(&path, key(), small()).is_ok());
}

/// Overwrites in place: ext4 makes who empties a file and writes it anew wait for the disk.
fn put(path: &Path, bytes: &[u8]) {
    use std::io::Write as _;
    let mut file = std::fs::File::options().write(true).open(path).unwrap();
    file.write_all(bytes).unwrap();
    file.set_len(bytes.len() as u64).unwrap();
}

#[test]
fn every_changed_byte_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let journal = create(dir.path(), small());
    for number in 0..7 {
        journal.append_blocking(&entry(number)).unwrap();
    }
    journal.close().unwrap();
    let is_whole = || verify(dir.path(), None).is_ok_and(|report| report.is_sealed());
    assert!(is_whole());
    let mut files = 0;
    for file in std::fs::read_dir(dir.path()).unwrap() {
        let path = file.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        files += usize::from(!bytes.is_empty());
        for position in 0..bytes.len() {
            for flip in [1, 0x20, 0xff] {
                let mut changed = bytes.clone();
                changed[position] ^= flip;
                put(&path, &changed);
                assert!(!is_whole(), "byte {position} of {} with {flip:#x}", path.display());
            }
        }
        for length in 0..bytes.len() {
            put(&path, &bytes[..length]);
            assert!(!is_whole(), "{} cut to {length} bytes", path.display());
        }
        put(&path, &bytes);
    }
    assert!(files >= 4 && is_whole(), "{files}");
}

#[test]
fn an_entry_that_could_not_be_read_back_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let journal = create(dir.path(), small());
    let long =
        Refusal { at: Timestamp::default(), account: AccountId::new("a").unwrap(), code: "x".repeat(MAX_ENTRY_BYTES) };
    assert_eq!(journal.append_blocking(&Entry::Refused(long)).unwrap_err().code(), "entry_too_large");
    // JSON knows no number that is none, and says `null`; a text may well hold that word.
    for (temperature, code) in
        [(f32::NAN, Some("entry_unreadable")), (f32::INFINITY, Some("entry_unreadable")), (0.5, None)]
    {
        let mut exchange = exchange("what is null?");
        exchange.request.temperature = temperature;
        let appended = journal.append_blocking(&Entry::Exchange(Box::new(exchange)));
        assert_eq!(appended.err().map(|error| error.code()), code, "{temperature}");
    }
    assert_eq!(journal.close().unwrap().size, 1);
}

#[tokio::test]
async fn a_full_disk_fails_all_of_a_group() {
    let disk = SimDisk::new(Seeded::new(1));
    let dir = Path::new("/journal");
    let id = JournalId::new("j").unwrap();
    drop(Store::create(dir, id, Timestamp::default(), key(), 300, disk.share()).unwrap());
    let (journal, _) = Journal::open_on(dir, key(), &small(), disk.share()).unwrap();
    for operation in 0..20 {
        disk.trouble_after(operation, Trouble::Refused(io::ErrorKind::StorageFull));
    }
    let (one, two) = (entry(1), entry(2));
    let (one, two) = tokio::join!(journal.append(&one), journal.append(&two));
    for error in [one.unwrap_err(), two.unwrap_err()] {
        assert_eq!((error.code(), error.retryable()), ("journal_disk_full", true));
    }
}

/// An exchange with everything that can stand in a column, in the form that the first journals have.
const EXCHANGE: &str = r#"{"entry":"exchange","id":"0190b5a0-0000-7000-8000-000000000001","at":1700000000123,
    "duration_ms":12,"account":"acme","key":"k1","model":"teacher","terms":{"id":"t","version":3},"grant":"g1",
    "request":{"route":"chat","stream":true,"temperature":0.5,"top_p":0.9,"max_tokens":64,"n":1,"logprobs":5,"messages":2},
    "client":{"address":"01","network":"02","agent":"ffffffffffffffff"},
    "sketch":{"exact":"0a","opening":"0b","minhash":"MINHASH","words":7,"flags":3},
    "usage":{"prompt_tokens":10,"completion_tokens":20,"twin_tokens":21},"cost":"0.000000042",
    "outcome":{"failed":{"code":"boom"}},
    "draws":{"prompt":"DIGEST","texts":["DIGEST","DIGEST"],"twinning":{"epoch":4,"served":1}},
    "texts":{"prompt":{"text":"PROMPT"},"answers":[]}}"#;

fn exchange(prompt: &str) -> Exchange {
    let text = EXCHANGE.replace("MINHASH", &"00000001".repeat(32)).replace("DIGEST", &"ab".repeat(32));
    let entry = serde_json::from_str(&text.replace("PROMPT", prompt)).unwrap();
    let Entry::Exchange(exchange) = entry else { panic!("{entry:?}") };
    *exchange
}

#[test]
fn a_sealed_file_has_typed_columns_beside_the_bytes_that_are_hashed() {
    use parquet::file::reader::{FileReader as _, SerializedFileReader};
    let dir = tempfile::tempdir().unwrap();
    let journal = create(dir.path(), small());
    journal.append_blocking(&entry(5)).unwrap();
    journal.append_blocking(&Entry::Exchange(Box::new(exchange("x")))).unwrap();
    journal.close().unwrap();
    let leaves = |reader: Reader| reader.entries().unwrap().map(|record| record.unwrap().payload).collect::<Vec<_>>();
    let before = leaves(Reader::open(dir.path()).unwrap());
    let sealed = crate::seal(dir.path(), key()).unwrap();
    assert_eq!(leaves(Reader::open(dir.path()).unwrap()), before, "the leaves are the bytes that were written");
    let file = std::fs::File::open(dir.path().join(sealed[0].name())).unwrap();
    let rows: Vec<_> =
        SerializedFileReader::new(file).unwrap().get_row_iter(None).unwrap().map(Result::unwrap).collect();
    let shown = |row: &parquet::record::Row| {
        let columns = row.get_column_iter().filter(|(_, field)| !matches!(field, parquet::record::Field::Null));
        let columns = columns.filter(|(name, _)| !["leaf", "sketch_minhash"].contains(&name.as_str()));
        columns.map(|(name, field)| format!("{name} {field}\n")).collect::<String>()
    };
    insta::assert_snapshot!(rows.iter().map(shown).collect::<Vec<_>>().join("\n"), @r#"
    index 0
    entry "refused"
    at 1970-01-01 00:00:00.005 +00:00
    account "a"
    error_code "c"

    index 1
    entry "exchange"
    at 2023-11-14 22:13:20.123 +00:00
    account "acme"
    exchange "0190b5a0-0000-7000-8000-000000000001"
    key "k1"
    model "teacher"
    route "chat"
    stream true
    duration_ms 12
    temperature 0.5
    top_p 0.9
    max_tokens 64
    n 1
    logprobs 5
    messages 2
    prompt_tokens 10
    completion_tokens 20
    twin_tokens 21
    cost_nanodollars 42
    outcome "failed"
    error_code "boom"
    terms "t"
    terms_version 3
    grant "g1"
    client_address 1
    client_network 2
    client_agent 18446744073709551615
    sketch_exact 10
    sketch_opening 11
    sketch_words 7
    sketch_flags 3
    draws 2
    twin_epoch 4
    twin_served 1
    texts "plain"
    cached_tokens 0
    "#);
}

#[test]
fn a_checkpoint_is_signed_by_time() {
    let dir = tempfile::tempdir().unwrap();
    let options =
        Options { checkpoint_every: 0, checkpoint_after: Some(Duration::from_millis(10)), ..Options::default() };
    let journal = create(dir.path(), options);
    journal.append_blocking(&entry(0)).unwrap();
    let patience = Instant::now();
    while verify(dir.path(), Some(&key().public())).unwrap().checkpoints == 0 {
        assert!(patience.elapsed() < Duration::from_secs(120), "nothing was signed");
        std::thread::sleep(Duration::from_millis(20));
    }
    journal.close().unwrap();
}

#[test]
fn a_journal_keeps_house_while_it_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        checkpoint_every: 0,
        checkpoint_after: Some(Duration::from_millis(10)),
        seal: Some(Seal { after_bytes: 300, after: Duration::from_millis(10) }),
        keep: Some(Keep { age_ms: None, bytes: Some(30_000) }),
        ..Options::default()
    };
    let journal = create(dir.path(), options);
    let reader = Reader::open(dir.path()).unwrap();
    let mut written = 0;
    let patience = Instant::now();
    // By time alone: entries are signed and sealed, and the oldest files go.
    while reader.retained().unwrap().is_none() {
        assert!(patience.elapsed() < Duration::from_secs(120), "nothing was deleted");
        for _ in 0..4 {
            assert_eq!(journal.append_blocking(&entry(written)).unwrap().index, written as u64);
            written += 1;
        }
        // Whoever reads meanwhile misses nothing but what was deleted.
        let entries = reader.entries().unwrap();
        let first = entries.before().size();
        for (index, record) in (first..).zip(entries) {
            let record = match record {
                // The file was deleted under the reader's eyes.
                Err(JournalError::Io { .. }) => break,
                record => record.unwrap(),
            };
            assert_eq!((record.index, record.entry), (index, entry(index as i64)));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    journal.close().unwrap();
    let report = verify(dir.path(), Some(&key().public())).unwrap();
    assert!(report.is_sealed() && report.size == written as u64 && report.checkpoints > 0, "{report:?}");
    let retained = report.retained.unwrap();
    assert!(retained.from > 0 && retained.files > 0 && report.sealed > 0, "{retained:?}");
    // It is opened again from what is signed of it.
    let (journal, recovery) = Journal::open(dir.path(), key(), small()).unwrap();
    assert_eq!((recovery.entries, recovery.root), (report.size, report.root));
    assert_eq!(journal.append_blocking(&entry(written)).unwrap().index, written as u64);
}

#[test]
fn every_changed_byte_of_what_is_sealed_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let journal = create(dir.path(), small());
    for number in 0..7 {
        journal.append_blocking(&entry(number)).unwrap();
    }
    journal.close().unwrap();
    crate::seal(dir.path(), key()).unwrap();
    let is_whole = || verify(dir.path(), None).is_ok_and(|report| report.is_sealed());
    assert!(is_whole());
    for name in [crate::Reader::open(dir.path()).unwrap().sealed().unwrap()[0].name(), "sealed.list".to_owned()] {
        let path = dir.path().join(name);
        let bytes = std::fs::read(&path).unwrap();
        for position in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[position] ^= 1;
            put(&path, &changed);
            assert!(!is_whole(), "byte {position} of {}", path.display());
        }
        put(&path, &bytes[..bytes.len() - 1]);
        assert!(!is_whole(), "{} is cut", path.display());
        put(&path, &bytes);
    }
    assert!(is_whole());
}

#[test]
fn reading_goes_on_from_any_bookmark() {
    let dir = tempfile::tempdir().unwrap();
    let journal = create(dir.path(), small());
    let read = |from: Bookmark| {
        let mut entries = Reader::open(dir.path())?.entries_from(from)?;
        let mut seen = vec![(entries.bookmark(), None)];
        while let Some(record) = entries.next() {
            seen.push((entries.bookmark(), Some(record?.entry)));
        }
        Ok::<_, JournalError>(seen)
    };
    let whole: Vec<Entry> = (0..40).map(entry).collect();
    let mut marks = Vec::new();
    for entry in &whole {
        let end = read(marks.last().copied().unwrap_or_default()).unwrap().pop().unwrap().0;
        marks.push(end);
        journal.append_blocking(entry).unwrap();
    }
    journal.close().unwrap();
    let all_are_there = |marks: &[Bookmark]| {
        for (place, mark) in marks.iter().enumerate() {
            let rest: Vec<Entry> = read(*mark).unwrap().into_iter().filter_map(|(_, entry)| entry).collect();
            assert!(rest == whole[place..], "from record {place}");
        }
    };
    all_are_there(&marks);
    // A bookmark in a segment holds when that is sealed, and when it was taken in a sealed file.
    upkeep::seal(dir.path(), key()).unwrap();
    all_are_there(&marks);
    let read_at_once = read(Bookmark::default()).unwrap();
    marks = read_at_once.into_iter().map(|(mark, _)| mark).take(whole.len()).collect();
    all_are_there(&marks);
    let beyond = Bookmark { index: 41, segment: 99, offset: 20 };
    assert!(read(beyond).is_err());
}

#[test]
fn an_exchange_is_read_as_what_any_entry_is_read_as() {
    let entry = Entry::Exchange(Box::new(exchange("hello")));
    let payload = serde_json::to_vec(&entry).unwrap();
    assert!(payload.starts_with(b"{\"entry\":\"exchange\","));
    let frame =
        |payload: Vec<u8>| crate::read::Frame { index: 3, payload, file: "segment".into(), segment: 0, offset: 9 };
    assert_eq!(frame(payload.clone()).entry().unwrap(), serde_json::from_slice::<Entry>(&payload).unwrap());
    assert_eq!(frame(payload.clone()).entry().unwrap(), entry);
    assert!(frame(payload[..payload.len() - 1].to_vec()).entry().is_err());
}
