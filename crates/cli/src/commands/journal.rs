//! `anbiq journal`: read, check, seal and prune a journal.

use std::path::Path;

use anbiq_domain::Entry;
use anbiq_journal::{FileReport, PublicKey, Reader, Record, Report, SealedFile, TextKeys};
use anyhow::{Context, bail};

use super::Outcome;
use crate::args::Journal;
use crate::site::{Site, text_keys};
use crate::talk::{self, Talk};

pub(crate) fn run(args: Journal, talk: Talk) -> anyhow::Result<Outcome> {
    match args {
        Journal::Verify { dir, key, json } => {
            let key = key.map(|key| key.parse::<PublicKey>()).transpose()?;
            verify(&dir, key.as_ref(), json)?;
        }
        Journal::Show { dir, from, limit, secrets } => {
            let keys = secrets.as_deref().map(text_keys);
            let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
            show(&dir, from, limit, keys.as_ref(), talk)?;
        }
        Journal::Seal { json, site } => {
            let site = Site::load(&site.config)?;
            let journal = &site.config.journal.path;
            let sealed = anbiq_journal::seal(journal, site.signer()?)
                .with_context(|| format!("cannot seal the journal `{}`", journal.display()))?;
            if json {
                talk::json(&sealed)?;
            } else {
                talk.say(&format!("sealed {}", of_files(&sealed)));
            }
        }
        Journal::Prune { dry_run, json, site } => {
            let site = Site::load(&site.config)?;
            let Some(keep) = site.config.journal.keep() else {
                bail!(
                    "the configuration keeps everything\nhint: set `keep = {{ days = 365 }}` or `bytes` under `[journal]`"
                );
            };
            let journal = &site.config.journal.path;
            let pruned = anbiq_journal::prune(journal, site.signer()?, &keep, dry_run)
                .with_context(|| format!("cannot prune the journal `{}`", journal.display()))?;
            if json {
                talk::json(&pruned)?;
            } else {
                let verb = if dry_run { "would delete" } else { "deleted" };
                talk.say(&format!("{verb} {}; entries from {} on are kept", of_files(&pruned.files), pruned.from));
            }
        }
    }
    Ok(Outcome::Fine)
}

fn verify(path: &Path, key: Option<&PublicKey>, json: bool) -> anyhow::Result<()> {
    if path.is_file() {
        let key =
            key.context("a file alone does not say whose it is\nhint: give the journal's public key with `--key`")?;
        let report = anbiq_journal::verify_file(path, key)
            .with_context(|| format!("the sealed file `{}` does not verify", path.display()))?;
        return if json { talk::json(&report) } else { talk::data(&describe_file(&report)) };
    }
    let report = anbiq_journal::verify(path, key)
        .with_context(|| format!("the journal `{}` does not verify", path.display()))?;
    if json { talk::json(&report) } else { talk::data(&describe(&report)) }
}

fn show(dir: &Path, from: u64, limit: usize, keys: Option<&TextKeys>, talk: Talk) -> anyhow::Result<()> {
    let reader = Reader::open(dir).with_context(|| format!("cannot open the journal `{}`", dir.display()))?;
    let records = reader.entries()?.filter(|record| record.as_ref().map_or(true, |record| record.index >= from));
    let mut closed = 0;
    for record in records.take(limit) {
        talk::data(&text_of(record?, keys, &mut closed)?)?;
    }
    if closed > 0 {
        talk.say(&format!("the texts of {closed} exchanges stay closed: their accounts' keys are not there"));
    }
    Ok(())
}

/// The very bytes that are hashed; or, where keys are given and one fits, the entry with its texts opened.
fn text_of(record: Record, keys: Option<&TextKeys>, closed: &mut u64) -> anyhow::Result<String> {
    if let (Some(keys), Entry::Exchange(mut exchange)) = (keys, record.entry)
        && exchange.sealed.is_some()
    {
        match keys.open(&mut exchange) {
            Ok(()) => return Ok(serde_json::to_string(&Entry::Exchange(exchange))?),
            Err(error) if error.is_absent() => *closed += 1,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(String::from_utf8_lossy(&record.payload).into_owned())
}

fn describe(report: &Report) -> String {
    let mut text = format!(
        "journal {}\n  entries          {}, in {} segments{}\n  root             {}\n  signed by        {}\n  \
         checkpoints      {}\n",
        report.id,
        report.size,
        report.segments,
        if report.sealed > 0 { format!(", {} of them sealed", report.sealed) } else { String::new() },
        report.root,
        report.public_key,
        report.checkpoints
    );
    if let Some(retained) = &report.retained {
        text.push_str(&format!(
            "  deleted          the first {} entries, {} files of {} bytes, the last on {}\n                   \
             under the signed root {}\n",
            retained.from, retained.files, retained.bytes, retained.at, retained.root
        ));
    }
    if report.is_sealed() {
        let what = if report.retained.is_some() { "every byte that is left" } else { "every byte" };
        text.push_str(&format!("{what} is whole and signed\n"));
    } else {
        text.push_str(&format!("{} entries at the end are not signed yet\n", report.unsigned));
    }
    text
}

fn describe_file(report: &FileReport) -> String {
    let last = report.first + report.count - 1;
    format!(
        "entries {} to {last} of journal {}\n  root             {}\nevery entry is whole and signed\n",
        report.first, report.journal, report.root
    )
}

fn of_files(files: &[SealedFile]) -> String {
    let (bytes, entries) =
        files.iter().fold((0, 0), |(bytes, entries), file| (bytes + file.bytes, entries + file.count));
    format!("{} files: {entries} entries in {bytes} bytes", files.len())
}
