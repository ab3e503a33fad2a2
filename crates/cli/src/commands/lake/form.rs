//! What an answer looks like.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufWriter, Write};

use anbiq_lake::{Answer, Cell, Lake, Question, Sources};
use serde::Serialize;

use crate::talk::{self, Talk};

/// Rows that are shown to a person; more are for a program.
const SHOWN: usize = 1000;

/// A table's name and its columns, each with its type.
type Table = (&'static str, Vec<(String, String)>);

/// An answer in JSON, up to its rows.
#[derive(Debug, Serialize)]
struct Head<'a> {
    query: Option<&'a str>,
    sql: &'a str,
    engine: &'a str,
    journals: &'a [anbiq_lake::JournalSource],
    imported: &'a [anbiq_lake::ImportedSource],
    notes: &'a [String],
    columns: &'a [String],
}

/// One object: what was asked of what, and the rows as objects. They are written as they come.
pub(super) async fn json(answer: &mut Answer, question: &Question, lake: &Lake, cluster: bool) -> anyhow::Result<()> {
    let sources = lake.sources();
    let head = Head {
        query: question.name(),
        sql: question.text(),
        engine: if cluster { "cluster" } else { "local" },
        journals: &sources.journals,
        imported: &sources.imported,
        notes: &sources.notes,
        columns: answer.columns(),
    };
    let head = serde_json::to_string_pretty(&head)?;
    let names = answer.columns().iter().map(serde_json::to_string).collect::<Result<Vec<_>, _>>()?;
    let mut out = BufWriter::new(std::io::stdout());
    write!(out, "{},\n  \"rows\": [", head.trim_end_matches(['\n', '}']))?;
    let mut first = true;
    while let Some(rows) = answer.rows().await? {
        for row in rows {
            write!(out, "{}\n    {{", if first { "" } else { "," })?;
            first = false;
            for (place, (name, cell)) in names.iter().zip(&row).enumerate() {
                let comma = if place == 0 { "" } else { ", " };
                write!(out, "{comma}{name}: {}", serde_json::to_string(cell)?)?;
            }
            write!(out, "}}")?;
        }
    }
    writeln!(out, "{}]\n}}", if first { "" } else { "\n  " })?;
    Ok(out.flush()?)
}

/// RFC 4180; what is not there is an empty field.
pub(super) async fn csv(answer: &mut Answer) -> anyhow::Result<()> {
    let mut out = BufWriter::new(std::io::stdout());
    let line = |fields: Vec<String>| fields.iter().map(|field| quoted(field)).collect::<Vec<_>>().join(",");
    write!(out, "{}\r\n", line(answer.columns().to_vec()))?;
    while let Some(rows) = answer.rows().await? {
        for row in rows {
            write!(out, "{}\r\n", line(row.iter().map(ToString::to_string).collect()))?;
        }
    }
    Ok(out.flush()?)
}

fn quoted(field: &str) -> String {
    if field.contains(['"', ',', '\r', '\n']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_owned()
    }
}

/// A table for a person, its first rows where it is long.
pub(super) async fn text(answer: &mut Answer, talk: Talk) -> anyhow::Result<()> {
    let (mut shown, mut rest) = (Vec::new(), 0);
    while let Some(rows) = answer.rows().await? {
        for row in rows {
            if shown.len() < SHOWN { shown.push(row) } else { rest += 1 }
        }
    }
    talk::data(&table(answer.columns(), &shown))?;
    if rest > 0 {
        talk.say(&format!("and {rest} rows more, which `--json`, `--csv` or `--parquet` give"));
    }
    Ok(())
}

fn table(columns: &[String], rows: &[Vec<Cell>]) -> String {
    let words = |cell: &Cell| if *cell == Cell::Null { "-".to_owned() } else { cell.to_string() };
    let width = |place: usize| {
        let cells = rows.iter().map(|row| words(&row[place]).chars().count());
        cells.chain([columns[place].chars().count()]).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let is_number =
        |place: usize| rows.iter().any(|row| matches!(row[place], Cell::Whole(_) | Cell::Count(_) | Cell::Real(_)));
    let numbers: Vec<bool> = (0..columns.len()).map(is_number).collect();
    let line = |cells: Vec<String>| {
        let mut text = String::new();
        for (place, cell) in cells.iter().enumerate() {
            let width = widths[place];
            // Writing to a string cannot fail.
            let _ = if numbers[place] { write!(text, "{cell:>width$}  ") } else { write!(text, "{cell:<width$}  ") };
        }
        text.trim_end().to_owned()
    };
    let mut lines = vec![line(columns.to_vec())];
    lines.extend(rows.iter().map(|row| line(row.iter().map(words).collect())));
    lines.join("\n")
}

/// How far what was asked about goes.
pub(super) fn say_of_what(sources: &Sources, talk: Talk) {
    for journal in &sources.journals {
        talk.say(&format!(
            "over entries {} to {} of journal {}, {} of them sealed",
            journal.from,
            journal.to.saturating_sub(1),
            journal.journal,
            journal.sealed_to - journal.from
        ));
    }
    for import in &sources.imported {
        talk.say(&format!("over {} imported rows of `{}`, which nobody signed", import.rows, import.path.display()));
    }
    for note in &sources.notes {
        talk.say(&format!("note: {note}"));
    }
}

pub(super) fn tables_as_json(tables: &[Table]) -> BTreeMap<&'static str, BTreeMap<&str, &str>> {
    tables
        .iter()
        .map(|(name, columns)| (*name, columns.iter().map(|(name, kind)| (name.as_str(), kind.as_str())).collect()))
        .collect()
}

pub(super) fn tables_in_words(tables: &[Table]) -> String {
    let mut text = String::new();
    for (name, columns) in tables {
        let says =
            anbiq_lake::VIEWS.iter().find(|view| view.name == *name).map_or("every entry, as it is", |view| view.says);
        let _ = writeln!(text, "{name}: {says}");
        for (column, kind) in columns {
            let _ = writeln!(text, "  {column:<20} {kind}");
        }
    }
    text
}
