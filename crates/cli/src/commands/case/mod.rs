//! `anbiq case` and `anbiq verify`: findings and verdicts joined into a signed dossier, and its check.

pub(super) mod content;
mod disclose;
mod draws;
mod plans;
mod tests;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anbiq_distill::Report as Student;
use anbiq_domain::{Clock, Digest, SystemClock};
use anbiq_evidence::{Contents, Written, attachment_name, html};
use anbiq_journal::Reader;
use anbiq_trace::{AnyReport, Report as Trace};
use anbiq_watch::Report as Findings;
use anyhow::{Context, ensure};

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
    /// Reports of `trace`, each with the name of its file in the dossier.
    reports: Vec<(String, AnyReport)>,
    students: Vec<Student>,
}

impl Found {
    /// The reports on twins.
    fn traces(&self) -> impl Iterator<Item = (&str, &Trace)> {
        self.reports.iter().filter_map(|(file, report)| match report {
            AnyReport::Twins(trace) => Some((file.as_str(), trace.as_ref())),
            _ => None,
        })
    }
}

pub(crate) fn write(args: &Case, talk: Talk) -> anyhow::Result<Outcome> {
    let site = Site::load(&args.site.config)?;
    let from = Sources {
        watch: &args.watch,
        traces: &args.trace,
        calibrations: &args.calibration,
        plans: &args.plan,
        draws: &args.draw,
        students: &args.student,
    };
    let written = write_dossier(&site, &from, args.language, &args.out, talk)?;
    talk.say(&format!("wrote {} files to `{}`", written.files, args.out.display()));
    talk.say(&format!("hint: anbiq verify {}", args.out.display()));
    Ok(Outcome::Fine)
}

/// The files that a dossier is joined from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sources<'files> {
    /// Findings of `watch`.
    pub(crate) watch: &'files Path,
    /// Reports of `trace`, of any kind.
    pub(crate) traces: &'files [PathBuf],
    /// Traces of the calibration students that they name.
    pub(crate) calibrations: &'files [PathBuf],
    /// The plans that they name.
    pub(crate) plans: &'files [PathBuf],
    /// The draws of canaries that they name.
    pub(crate) draws: &'files [PathBuf],
    /// Reports of `distill`.
    pub(crate) students: &'files [PathBuf],
}

/// Joins what the files say into the dossier `out`, signed with the key of the journal of `site`.
pub(crate) fn write_dossier(
    site: &Site,
    from: &Sources<'_>,
    language: Language,
    out: &Path,
    talk: Talk,
) -> anyhow::Result<Written> {
    let reports = from.traces.iter().map(|path| report(path)).collect::<anyhow::Result<Vec<_>>>()?;
    let plans = plans::read(from.plans, &reports)?;
    let draws = draws::read(from.draws, &reports)?;
    let calibrations = calibrations(from.calibrations, &reports)?;
    let found = Found { watch: read_json(from.watch)?, reports: named(reports), students: read_all(from.students)? };
    refuse_imported(&found.watch, from.watch)?;
    let journal = &site.config.journal.path;
    let reader = Reader::open(journal).with_context(|| format!("cannot open the journal `{}`", journal.display()))?;
    let opened = disclose::open(site, &reader, &found)?;
    for closed in &opened.closed {
        talk.say(&format!("note: {}", closed.in_words()));
    }
    let dossier = content::dossier(&found, &opened, &reader, language, SystemClock.now());
    let mut attachments = vec![("watch.json".to_owned(), lines(&found.watch)?)];
    for (file, report) in &found.reports {
        attachments.push((file.clone(), lines(report)?));
    }
    attachments.extend(calibrations);
    for (name, signed) in plans.iter().chain(&draws) {
        attachments.push((name.clone(), lines(signed)?));
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
        texts: opened.texts,
        attachments,
    };
    Ok(anbiq_evidence::write(out, &contents, &site.signer()?)?)
}

pub(crate) fn verify(args: &Verify) -> anyhow::Result<Outcome> {
    let said = anbiq_verify::run(&args.dossier, args.key.as_deref(), args.json)?;
    talk::data(&said.text)?;
    Ok(Outcome::found(!said.holds))
}

/// A report whose numbers follow from it: another one would not verify.
fn report(path: &Path) -> anyhow::Result<AnyReport> {
    let report: AnyReport = read_json(path)?;
    report.recheck().with_context(|| format!("the report `{}` is not taken", path.display()))?;
    Ok(report)
}

/// Each report with a file name of its own.
fn named(reports: Vec<AnyReport>) -> Vec<(String, AnyReport)> {
    let mut named: Vec<(String, AnyReport)> = Vec::new();
    for report in reports {
        let subjects = report.subjects().join("-");
        let name = |subjects: &str| match &report {
            AnyReport::Twins(trace) if subjects == trace.protocol.suspect => file_name(trace),
            _ => attachment_name(report.kind().name(), subjects),
        };
        let names = std::iter::once(subjects.clone()).chain((2..).map(|number| format!("{number}-{subjects}")));
        let free = |name: &String| named.iter().all(|(other, _)| other != name);
        let file = names.map(|subjects| name(&subjects)).find(free).unwrap_or_default();
        named.push((file, report));
    }
    named
}

/// The traces of calibration students as they are, to the byte, since the reports name them by their digests.
fn calibrations(files: &[PathBuf], reports: &[AnyReport]) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let named: BTreeSet<Digest> = reports.iter().flat_map(AnyReport::calibrations).collect();
    let mut kept = Vec::new();
    for path in files {
        let bytes = std::fs::read(path).with_context(|| format!("cannot read `{}`", path.display()))?;
        let digest = Digest::of(&bytes);
        ensure!(
            named.contains(&digest),
            "no trace names `{}` as the trace of a calibration student\nhint: it must be the very file that was given to \
             `anbiq trace --calibration`",
            path.display()
        );
        kept.push((anbiq_verify::calibration_name(&digest), bytes));
    }
    Ok(kept)
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
