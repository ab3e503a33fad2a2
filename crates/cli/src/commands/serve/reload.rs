//! The configuration of a running gateway, read again: plans, prices and terms. All else holds after a restart.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anbiq_desk::{Administrator, Reload, ReloadError, Reloaded, Reloading};
use anbiq_domain::{Clock, Hand};
use anbiq_ledger::Ledger;
use anyhow::Context;
use tokio::sync::Mutex;

use crate::site::Site;

/// Where the configuration stands, and what the gateway was started with.
#[derive(Debug)]
pub(crate) struct Configuration {
    path: PathBuf,
    /// Those sections that a running gateway keeps to.
    kept: toml::Table,
    ledger: Ledger,
    administrator: Administrator,
    clock: Arc<dyn Clock>,
    /// Held while it is read again: one after the other.
    reading: Mutex<()>,
}

impl Configuration {
    pub(crate) fn of(
        site: &Site,
        ledger: &Ledger,
        administrator: &Administrator,
        clock: &Arc<dyn Clock>,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            path: site.path.clone(),
            kept: kept(&site.path)?,
            ledger: ledger.clone(),
            administrator: administrator.clone(),
            clock: Arc::clone(clock),
            reading: Mutex::default(),
        })
    }

    async fn again(&self, by: Hand) -> Result<Reloaded, ReloadError> {
        let _alone = self.reading.lock().await;
        let invalid = |error: anyhow::Error| ReloadError::Invalid(words(&error));
        let failed = |error: anyhow::Error| ReloadError::Failed(words(&error));
        let site = Site::load(&self.path).map_err(invalid)?;
        let kept = kept(&self.path).map_err(invalid)?;
        self.check(&site).await.map_err(invalid)?;
        let (now, administrator) = (self.clock.now(), self.administrator.by(by));
        let mut done = site.declare(&self.ledger, &administrator, now).await.map_err(failed)?;
        done.after_restart = different(&self.kept, &kept);
        administrator.reloaded(&describe(&done), now).await.map_err(|error| failed(error.into()))?;
        Ok(done)
    }

    /// Everything that can be wrong is looked for before anything is changed.
    async fn check(&self, site: &Site) -> anyhow::Result<()> {
        site.config.serve.check()?;
        for terms in site.terms()? {
            let issued = self.ledger.terms(&terms.id, Some(terms.version)).await?;
            if issued.is_some_and(|issued| issued != terms) {
                anyhow::bail!(
                    "terms `{}` of version {} were issued with other contents\nhint: a change is a new version",
                    terms.id,
                    terms.version
                );
            }
        }
        Ok(())
    }
}

impl Reload for Configuration {
    fn reload(&self, by: Hand) -> Reloading<'_> {
        Box::pin(self.again(by))
    }
}

/// What was changed, in a line.
pub(crate) fn describe(reloaded: &Reloaded) -> String {
    let Reloaded { plans, prices, terms, after_restart } = reloaded;
    let parts = [("plans", plans), ("prices", prices), ("terms", terms), ("after a restart", after_restart)];
    let said: Vec<String> = parts
        .into_iter()
        .filter(|(_, names)| !names.is_empty())
        .map(|(what, names)| format!("{what}: {}", names.join(", ")))
        .collect();
    if said.is_empty() {
        return "read the configuration again: nothing has changed".to_owned();
    }
    format!("read the configuration again; {}", said.join("; "))
}

/// The configuration without what is reloaded.
fn kept(path: &Path) -> anyhow::Result<toml::Table> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read the configuration `{}`", path.display()))?;
    let mut table: toml::Table = toml::from_str(&text).with_context(|| format!("`{}`", path.display()))?;
    table.remove("plan");
    let models = table.get_mut("model").and_then(toml::Value::as_array_mut);
    for model in models.into_iter().flatten().filter_map(toml::Value::as_table_mut) {
        model.remove("prices");
        model.remove("terms");
    }
    Ok(table)
}

/// Names of the sections that are not the same.
fn different(one: &toml::Table, other: &toml::Table) -> Vec<String> {
    let mut names: Vec<&String> =
        one.keys().chain(other.keys()).filter(|name| one.get(*name) != other.get(*name)).collect();
    names.sort_unstable();
    names.dedup();
    names.into_iter().cloned().collect()
}

/// An error with its causes, each said once, its hints last.
fn words(error: &anyhow::Error) -> String {
    let (mut told, mut hints) = (Vec::<String>::new(), Vec::<String>::new());
    for cause in error.chain().map(ToString::to_string) {
        let (said, hint) =
            cause.split_once("\nhint: ").map_or((cause.as_str(), None), |(said, hint)| (said, Some(hint)));
        if told.last().is_none_or(|last| !last.contains(said)) {
            told.push(said.to_owned());
        }
        hints.extend(hint.map(|hint| format!("\nhint: {hint}")));
    }
    hints.dedup();
    [told.join(", because "), hints.concat()].concat()
}
