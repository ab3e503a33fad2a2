//! `anbiq case` and `anbiq verify`: findings and verdicts joined into a signed dossier, and its check.

pub(super) mod content;
mod disclose;
mod plans;

use std::path::{Path, PathBuf};

use anbiq_distill::Report as Student;
use anbiq_domain::{Clock, SystemClock};
use anbiq_evidence::{Contents, Written, attachment_name, html};
use anbiq_journal::Reader;
use anbiq_trace::Report as Trace;
use anbiq_watch::Report as Findings;
use anyhow::Context;

use super::Outcome;
use super::trace::file_name;
use super::watch::refuse_imported;
use crate::args::{Case, Language, Verify};
use crate::site::{Site, read_json};
use crate::talk::{self, Talk};

/// What the verbs found.
#[derive(Debug)]
struct Found {
    watch: Findings,
    traces: Vec<Trace>,
    students: Vec<Student>,
}

pub(crate) fn write(args: &Case, talk: Talk) -> anyhow::Result<Outcome> {
    let site = Site::load(&args.site.config)?;
    let from = Sources { watch: &args.watch, traces: &args.trace, plans: &args.plan, students: &args.student };
    let written = write_dossier(&site, &from, args.language, &args.out)?;
    talk.say(&format!("wrote {} files to `{}`", written.files, args.out.display()));
    talk.say(&format!("hint: anbiq verify {}", args.out.display()));
    Ok(Outcome::Fine)
}

/// The files that a dossier is joined from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sources<'files> {
    /// Findings of `watch`.
    pub(crate) watch: &'files Path,
    /// Verdicts of `trace`.
    pub(crate) traces: &'files [PathBuf],
    /// The plans that they name.
    pub(crate) plans: &'files [PathBuf],
    /// Reports of `distill`.
    pub(crate) students: &'files [PathBuf],
}

/// Joins what the files say into the dossier `out`, signed with the key of the journal of `site`.
pub(crate) fn write_dossier(
    site: &Site,
    from: &Sources<'_>,
    language: Language,
    out: &Path,
) -> anyhow::Result<Written> {
    let found =
        Found { watch: read_json(from.watch)?, traces: read_all(from.traces)?, students: read_all(from.students)? };
    refuse_imported(&found.watch, from.watch)?;
    let plans = plans::read(from.plans, &found.traces)?;
    let journal = &site.config.journal.path;
    let reader = Reader::open(journal).with_context(|| format!("cannot open the journal `{}`", journal.display()))?;
    let opened = disclose::open(site, &reader, &found)?;
    let dossier = content::dossier(&found, &opened, &reader, language, SystemClock.now());
    let mut attachments = vec![("watch.json".to_owned(), lines(&found.watch)?)];
    for trace in &found.traces {
        attachments.push((file_name(trace), lines(trace)?));
    }
    for (name, plan) in &plans {
        attachments.push((name.clone(), lines(plan)?));
    }
    for student in &found.students {
        attachments.push((attachment_name("student", &student.student), lines(student)?));
    }
    let contents = Contents {
        html: html::page(&dossier),
        json: dossier.to_json(),
        checkpoint: opened.checkpoint,
        records: opened.records,
        coins: opened.coins,
        attachments,
    };
    Ok(anbiq_evidence::write(out, &contents, &site.signer()?)?)
}

pub(crate) fn verify(args: &Verify) -> anyhow::Result<Outcome> {
    let said = anbiq_verify::run(&args.dossier, args.key.as_deref(), args.json)?;
    talk::data(&said.text)?;
    Ok(Outcome::found(!said.holds))
}

fn read_all<T: serde::de::DeserializeOwned>(paths: &[PathBuf]) -> anyhow::Result<Vec<T>> {
    paths.iter().map(|path| read_json(path)).collect()
}

/// Indented, so that a changed byte can be placed on a row.
fn lines(value: &impl serde::Serialize) -> anyhow::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec_pretty(value)?;
    bytes.push(b'\n');
    Ok(bytes)
}
