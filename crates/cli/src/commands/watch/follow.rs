//! `anbiq watch --follow`: beside a gateway, as its journal grows.
//!
//! What is remembered is written down with the place that the journal was read to, in one file that is replaced as a whole. So a
//! program that is killed goes on from there when it is started again, and finds what it would have found.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anbiq_domain::{JournalId, OperatorId};
use anbiq_journal::{Bookmark, JournalError, Reader};
use anbiq_watch::{Config, Report, Stage, State};
use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::refuse_import;
use crate::args::Watch;
use crate::commands::serve::interrupted;
use crate::talk::Talk;

/// All that is remembered, and up to where the journal was read.
#[derive(Serialize, Deserialize)]
struct Memory {
    journal: JournalId,
    bookmark: Bookmark,
    state: State,
}

/// Whether the program is to stop.
#[derive(Default)]
struct Stop {
    asked: AtomicBool,
    wake: Notify,
}

/// Follows `journal` until the program is told to stop, and says what was found by then.
pub(super) async fn run(journal: &Path, args: &Watch, config: Config, talk: Talk) -> anyhow::Result<Report> {
    refuse_import(journal)?;
    let path = args.follow.state.as_deref().context("`--follow` needs `--state`")?;
    let stop = Arc::new(Stop::default());
    let (signal, told) = (interrupted()?, Arc::clone(&stop));
    tokio::spawn(async move {
        signal.await;
        told.asked.store(true, Ordering::SeqCst);
        told.wake.notify_one();
    });
    let mut memory = Memory::open(path, journal, config)?;
    let mut stages = BTreeMap::new();
    let (mut reported, mut fresh) = (None::<Instant>, true);
    let pause = Duration::from_millis(args.follow.poll_ms);
    talk.say(&format!("following `{}` from record {} on", journal.display(), memory.bookmark.index));
    loop {
        match memory.catch_up(journal, &stop) {
            Ok(read) => fresh |= read > 0,
            // A writer at work was in the way; nothing is lost.
            Err(error) if error.retryable() => tracing::warn!(%error, "the journal is read again later"),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read the journal `{}`", journal.display()));
            }
        }
        let stopped = stop.asked.load(Ordering::SeqCst);
        let due = reported.is_none_or(|last| last.elapsed().as_secs() >= args.follow.report_seconds);
        if stopped || (fresh && due) {
            memory.save(path)?;
            let report = memory.state.report();
            tell(&report, &mut stages, talk);
            if stopped {
                talk.say(&format!("stopped at record {}", memory.bookmark.index));
                return Ok(report);
            }
            if let Some(out) = &args.output.out {
                replace(out, &serde_json::to_vec_pretty(&report)?)?;
            }
            (reported, fresh) = (Some(Instant::now()), false);
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.wake.notified() => {}
        }
    }
}

impl Memory {
    /// What was remembered of `journal` at `path`, or nothing yet.
    fn open(path: &Path, journal: &Path, config: Config) -> anyhow::Result<Self> {
        let cannot = || format!("cannot open the journal `{}`", journal.display());
        let id = Reader::open(journal).with_context(cannot)?.id().clone();
        let packed = match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Self { journal: id, bookmark: Bookmark::default(), state: State::new(config) });
            }
            read => read.with_context(|| format!("cannot read the state `{}`", path.display()))?,
        };
        let afresh = "hint: move it away to begin anew, which reads the journal from its beginning";
        let no_state = || format!("`{}` holds no state of this version\n{afresh}", path.display());
        let memory: Self = serde_json::from_reader(zstd::Decoder::new(&packed[..])?).with_context(no_state)?;
        ensure!(memory.journal == id, "`{}` remembers the journal `{}`, not `{id}`", path.display(), memory.journal);
        if !memory.state.continues(&config) {
            bail!("`{}` was made by another version or with other settings\n{afresh}", path.display());
        }
        Ok(memory)
    }

    /// Reads what is new, until the journal's end or until the program is to stop; says how many records that were.
    fn catch_up(&mut self, journal: &Path, stop: &Stop) -> Result<u64, JournalError> {
        let mut entries = Reader::open(journal)?.entries_from(self.bookmark)?;
        let mut read = 0;
        while !stop.asked.load(Ordering::Relaxed) {
            let Some(record) = entries.next() else { break };
            self.state.take(record?.entry);
            self.bookmark = entries.bookmark();
            read += 1;
        }
        Ok(read)
    }

    fn save(&self, path: &Path) -> anyhow::Result<()> {
        let packed = zstd::encode_all(&serde_json::to_vec(self)?[..], 3)?;
        let (bytes, accounts) = (packed.len(), self.state.accounts());
        tracing::info!(bytes, accounts, records = self.bookmark.index, "the state is written down");
        replace(path, &packed)
    }
}

/// Says which operators came to another stage.
fn tell(report: &Report, stages: &mut BTreeMap<OperatorId, Stage>, talk: Talk) {
    for operator in &report.operators {
        let Some(alarm) = &operator.alarm else { continue };
        let before = stages.insert(operator.id.clone(), alarm.stage).unwrap_or(Stage::Watch);
        if before != alarm.stage {
            let (accounts, exchanges) = (operator.accounts.len(), operator.exchanges);
            let (was, is) = (before.name(), alarm.stage.name());
            talk.say(&format!("{}: {was} -> {is}, {accounts} accounts, {exchanges} exchanges", operator.id));
        }
    }
}

/// Puts `bytes` at `path` as a whole or not at all; durable when it returns.
fn replace(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let write = || -> io::Result<()> {
        let draft = path.with_added_extension("new");
        let mut file = File::create(&draft)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&draft, path)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    };
    write().with_context(|| format!("cannot write `{}`", path.display()))
}
