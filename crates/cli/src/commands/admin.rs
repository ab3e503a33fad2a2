//! The beginning of an installation, and what every change of one needs.

use std::fs;
use std::path::Path;

use anbiq_desk::{Administrator, Record};
use anbiq_domain::{Entry, Timestamp};
use anbiq_journal::{JournalError, Spool};
use anbiq_ledger::Ledger;
use anyhow::{Context, bail};

use super::Outcome;
use crate::args::Init;
use crate::site::Site;
use crate::talk::Talk;

const CONFIGURATION: &str = include_str!("../../files/anbiq.toml");
const TERMS: &str = include_str!("../../files/terms.json");
const DAY: i64 = 24 * 3600 * 1000;

/// Writes a configuration with its terms, and makes the keys.
pub(crate) fn init(args: &Init, talk: Talk) -> anyhow::Result<Outcome> {
    let file = args.dir.join("anbiq.toml");
    if file.exists() {
        bail!("`{}` is there already\nhint: remove it, or choose another folder", file.display());
    }
    fs::create_dir_all(&args.dir).with_context(|| format!("cannot make `{}`", args.dir.display()))?;
    write(&file, &CONFIGURATION.replace("@JOURNAL@", &args.journal))?;
    write(&args.dir.join("terms.json"), TERMS)?;
    let site = Site::load(&file)?;
    let signer = site.signer()?;
    site.sketch_key()?;
    talk.say(&format!("wrote `{}`; set your teacher, its prices and its terms there", file.display()));
    talk.say(&format!("public key of the journal: {}", signer.public()));
    talk.say(&format!("hint: anbiq serve --config {}", file.display()));
    Ok(Outcome::Fine)
}

/// Where changes are made: the ledger, and the journal or, while a gateway writes that, its spool.
pub(super) struct Office {
    pub(super) site: Site,
    pub(super) ledger: Ledger,
    record: Record,
    pub(super) administrator: Administrator,
}

impl Office {
    /// Opens the installation; plans, prices and terms of its configuration are known from here on.
    pub(super) async fn open(config: &Path) -> anyhow::Result<Self> {
        let site = Site::load(config)?;
        let ledger = site.ledger().await?;
        let record = match site.journal() {
            Ok(journal) => Record::Journal(journal),
            Err(JournalError::Locked { .. }) => Record::Spool(Spool::new(site.spool())),
            Err(error) => return Err(error.into()),
        };
        let administrator = Administrator::new(ledger.clone(), record.clone(), &site.sketch_key()?);
        site.declare(&ledger, &administrator, site.now()).await?;
        Ok(Self { site, ledger, record, administrator })
    }

    pub(super) fn now(&self) -> Timestamp {
        self.site.now()
    }

    /// Journals `entry`, or leaves it for the gateway that writes the journal.
    pub(super) async fn tell(&self, entry: &Entry) -> anyhow::Result<()> {
        match &self.record {
            Record::Journal(journal) => journal.append(entry).await.map(drop)?,
            Record::Spool(spool) => spool.leave(entry)?,
        }
        Ok(())
    }

    pub(super) async fn close(self) -> anyhow::Result<()> {
        self.ledger.close().await;
        drop(self.administrator);
        if let Record::Journal(journal) = self.record {
            tokio::task::spawn_blocking(|| journal.close()).await??;
        }
        Ok(())
    }
}

pub(super) fn in_days(now: Timestamp, days: u32) -> Timestamp {
    now.plus_milliseconds(i64::from(days) * DAY)
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write `{}`", path.display()))
}
