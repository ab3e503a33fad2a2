//! The engine in the process, against answers that were worked out without it.

use std::fs;

use anbiq_lake::QUERIES;
use insta::assert_snapshot;
use serde_json::Value;

use super::oracle::{Given, History};
use super::world;
use crate::import::rows;
use crate::support::Place;

/// 2026-04-23 and 2026-04-25, at their beginnings.
const SOME_DAYS: (i64, i64) = (1_776_902_400_000, 1_777_075_200_000);

/// Whatever the questions are asked with, and the words that ask it.
pub(crate) fn cases() -> Vec<(Given, &'static str)> {
    let (since, until) = SOME_DAYS;
    vec![
        (Given::default(), ""),
        (Given { since, until, ..Given::default() }, "--param since=2026-04-23 --param until=2026-04-25"),
        (Given { account: "account-07", ..Given::default() }, "--param account=account-07"),
        (Given { accounts: 4, ..Given::default() }, "--param accounts=4"),
        (Given { holders: 3, ..Given::default() }, "--param holders=3"),
        (Given { times: 1, ..Given::default() }, "--param times=1"),
    ]
}

/// Can this query be asked with these words?
pub(crate) fn takes(query: &anbiq_lake::Query, words: &str) -> bool {
    let names = words.split("--param ").filter_map(|word| word.split_once('=')).map(|(name, _)| name);
    names.into_iter().all(|name| query.all_parameters().any(|parameter| parameter.name == name))
}

/// What stands in the journal and in the import.
pub(crate) fn history(place: &Place) -> History {
    let mut history = History::default();
    history.entries(world::read(&place.path("journal")));
    history.imported(rows(place, "imported"));
    history
}

#[test]
fn every_question_is_answered_as_it_is_worked_out_by_hand() {
    let place = Place::empty();
    world::write(&place, 1500);
    let history = history(&place);
    for query in QUERIES {
        for (given, words) in cases().into_iter().filter(|(_, words)| takes(query, words)) {
            let asked =
                place.run(&format!("lake run {} --journal journal --imported imported --csv {words}", query.name));
            assert_eq!(asked.code, 0, "{} {words}: {}", query.name, asked.err);
            let expected = history.answer(query.name, &given);
            assert!(expected.lines().count() > 1, "`{}` {words} finds something", query.name);
            assert_eq!(asked.out, expected, "{} {words}", query.name);
        }
    }
}

#[test]
fn an_answer_says_what_it_is_about_and_comes_in_several_forms() {
    let place = Place::empty();
    world::write(&place, 600);
    let ask = |words: &str| place.run(&format!("lake {words}"));
    let entries = world::read(&place.path("journal")).len();
    let shown = ask("run days --journal journal --param limit=2");
    assert_snapshot!(shown.out, @r"
    day         accounts  exchanges  prompt_tokens  completion_tokens  twin_tokens  cost_nanodollars  failed
    2026-04-22        60        632         133279             279981        25213         475969596      33
    ");
    let said = shown.err.lines().next().unwrap_or_default();
    assert!(said.starts_with(&format!("over entries 0 to {} of journal lake-test, ", entries - 1)), "{}", shown.err);

    let json: Value = serde_json::from_str(&ask("run days --journal journal --imported imported --json").out).unwrap();
    assert_eq!((&json["query"], &json["engine"]), (&Value::from("days"), &Value::from("local")));
    assert_eq!(json["journals"][0]["to"], entries as u64);
    assert!(json["journals"][0]["sealed_to"].as_u64() < json["journals"][0]["to"].as_u64(), "some are not sealed");
    assert!(json["notes"][0].as_str().unwrap().contains("under one key"), "{json}");
    let columns = json["columns"].as_array().unwrap().len();
    assert!(json["rows"].as_array().unwrap().iter().all(|row| row.as_object().unwrap().len() == columns), "{json}");

    // A table of its own, which can be asked about as any other Parquet file.
    assert_eq!(ask("run usage --journal journal --parquet usage.parquet").code, 0);
    assert!(fs::read(place.path("usage.parquet")).unwrap().starts_with(b"PAR1"));
    assert_snapshot!(ask("run usage --journal journal --parquet usage.parquet").told(), @r"
    exit 2
    error: cannot create `usage.parquet`
      because: File exists (os error 17)
    ");

    // One sealed file by itself.
    let name = fs::read_dir(place.path("journal")).unwrap().map(|item| item.unwrap().file_name());
    let name = name.filter_map(|name| name.into_string().ok()).filter(|name| name.ends_with(".parquet")).min().unwrap();
    let one = ask(&format!("sql SELECT(count(*))AS(n)FROM(entries) --journal journal/{name}"));
    assert_eq!(one.code, 2, "that is no SQL: {}", one.out);
    let mut command = place.command(&format!("lake sql --csv --journal journal/{name}"));
    let counted = command.arg("SELECT count(*) AS n, min(index) AS first FROM entries").output().unwrap();
    let counted = String::from_utf8(counted.stdout).unwrap();
    let count: u64 = name.trim_end_matches(".parquet").rsplit('-').next().unwrap().parse().unwrap();
    assert_eq!(counted, format!("n,first\r\n{count},0\r\n"));
}

#[test]
fn only_what_reads_can_be_asked() {
    let place = Place::empty();
    world::write(&place, 300);
    let ask = |sql: &str| {
        let mut command = place.command("lake sql --journal journal");
        let output = command.arg(sql).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap().lines().next().unwrap_or_default().to_owned())
    };
    for sql in [
        "CREATE TABLE mine AS SELECT * FROM entries",
        "CREATE EXTERNAL TABLE mine STORED AS CSV LOCATION '/etc/passwd'",
        "COPY entries TO 'stolen.parquet'",
        "INSERT INTO entries SELECT * FROM entries",
        "DROP TABLE entries",
        "SET datafusion.execution.batch_size = 1",
        "SELECT * FROM 'journal.json'",
        "SELECT nonsense FROM entries",
    ] {
        let (code, said) = ask(sql);
        assert_eq!(code, Some(2), "{sql}: {said}");
        assert!(said.starts_with("error: the question cannot be asked"), "{sql}: {said}");
    }
    assert!(!place.path("stolen.parquet").exists());
    assert_eq!(ask("SELECT 1").0, Some(0));
}

#[test]
fn what_is_no_journal_and_what_was_changed_is_not_read() {
    let place = Place::empty();
    world::write(&place, 300);
    assert_snapshot!(place.run("lake run days").told(), @r"
    exit 2
    error: there is nothing to ask about
    hint: name a journal with `--journal`, or an import with `--imported`
    ");
    assert_snapshot!(place.run("lake run days --journal nowhere").told(), @r"
    exit 2
    error: cannot read the journal `nowhere`
      because: `nowhere` is not a journal: it has no readable `journal.json`: No such file or directory (os error 2)
    ");
    assert_snapshot!(place.run("lake run days --journal imported").told(), @r"
    exit 2
    error: `imported` holds imported logs, which are no journal: no twins, no commitments, no signature
    hint: only `anbiq watch` and `anbiq lake` read them, with `--imported imported`
    ");
    assert_eq!(place.run("lake run usage --journal journal --parquet usage.parquet").code, 0);
    assert_snapshot!(place.run("lake run days --journal usage.parquet").told(), @r"
    exit 2
    error: cannot read the journal `usage.parquet`
      because: `usage.parquet` is no sealed file of a journal: it does not say of which journal it is
    hint: name a journal's folder, or one of the Parquet files that `anbiq journal seal` makes
    ");
    assert_snapshot!(place.run("lake run days --journal log.jsonl").told(), @r"
    exit 2
    error: cannot read the journal `log.jsonl`
      because: `log.jsonl` is no sealed file of a journal: Parquet error: Invalid Parquet file. Corrupt footer
    hint: name a journal's folder, or one of the Parquet files that `anbiq journal seal` makes
    ");
    let sealed = fs::read_dir(place.path("journal")).unwrap().map(|item| item.unwrap().path());
    let sealed = sealed.filter(|path| path.extension().is_some_and(|end| end == "parquet")).min().unwrap();
    let mut bytes = fs::read(&sealed).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&sealed, bytes).unwrap();
    let changed = place.run("lake run days --journal journal");
    assert_eq!(changed.code, 2, "{}", changed.out);
    assert!(changed.err.contains("its bytes are not those that were signed"), "{}", changed.err);
}

#[test]
fn memory_is_bounded_and_time_too() {
    let place = Place::empty();
    world::write(&place, 3000);
    let asked = place.run("lake run shared --journal journal --imported imported --csv --memory 64");
    assert_eq!((asked.code, asked.out), (0, history(&place).answer("shared", &Given::default())), "{}", asked.err);
    // A cross product of everything with itself, sorted: it goes to the disk, and ends with its time.
    let sql = "SELECT a.index, b.index, a.leaf FROM entries a CROSS JOIN entries b ORDER BY a.leaf, b.leaf";
    let mut command = place.command("lake sql --csv --journal journal --memory 64 --timeout 3");
    let output = command.arg(sql).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("no answer within 3 s") || said.contains("more than the 64 MiB"), "{said}");
}
