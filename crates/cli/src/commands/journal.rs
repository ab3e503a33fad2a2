//! `anbiq journal`: read and check a journal.

use anbiq_journal::{PublicKey, Reader, Report};
use anyhow::Context;

use super::Outcome;
use crate::args::Journal;
use crate::talk;

pub(crate) fn run(args: Journal) -> anyhow::Result<Outcome> {
    match args {
        Journal::Verify { dir, key, json } => {
            let key = key.map(|key| key.parse::<PublicKey>()).transpose()?;
            let report = anbiq_journal::verify(&dir, key.as_ref())
                .with_context(|| format!("the journal `{}` does not verify", dir.display()))?;
            if json { talk::json(&report)? } else { talk::data(&describe(&report))? }
        }
        Journal::Show { dir, from, limit } => {
            let reader = Reader::open(&dir).with_context(|| format!("cannot open the journal `{}`", dir.display()))?;
            let wanted = |index: u64| index >= from;
            let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
            let records =
                reader.entries()?.filter(|record| record.as_ref().map_or(true, |record| wanted(record.index)));
            for record in records.take(limit) {
                // The very bytes that are hashed.
                talk::data(&String::from_utf8_lossy(&record?.payload))?;
            }
        }
    }
    Ok(Outcome::Fine)
}

fn describe(report: &Report) -> String {
    let mut text = format!(
        "journal {}\n  entries          {}, in {} segments\n  root             {}\n  signed by        {}\n  \
         checkpoints      {}\n",
        report.id, report.size, report.segments, report.root, report.public_key, report.checkpoints
    );
    if report.is_sealed() {
        text.push_str("every byte is whole and signed\n");
    } else {
        text.push_str(&format!("{} entries at the end are not signed yet\n", report.unsigned));
    }
    text
}
