//! One installation: the files that a configuration points to, opened.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anbiq_desk::{Administrator, ModelFacts, Reloaded};
use anbiq_domain::{Clock, CoinKey, Digest, SystemClock, Terms, Timestamp};
use anbiq_journal::{Journal, JournalError, SigningKey, TextKeys};
use anbiq_ledger::{Ledger, Plan};
use anbiq_lm::{Local, LocalOptions, Precision};
use anbiq_model::Model;
use anbiq_secret::Secret;
use anbiq_upstream::{Dialect, Form, Member, Pool, PoolConfig, Scoring, Upstream};
use anyhow::{Context, bail};
use serde::de::DeserializeOwned;

use crate::config::{Config, DialectName, ModelConfig, UpstreamConfig};

/// An installation whose configuration was read.
#[derive(Debug, Clone)]
pub(crate) struct Site {
    /// The file that it was read from.
    pub(crate) path: PathBuf,
    pub(crate) config: Config,
}

impl Site {
    pub(crate) fn load(path: &Path) -> anyhow::Result<Self> {
        Ok(Self { path: path.to_owned(), config: Config::load(path)? })
    }

    /// The present moment; nothing that a person does at the command line happens in simulated time.
    pub(crate) fn now(&self) -> Timestamp {
        SystemClock.now()
    }

    pub(crate) async fn ledger(&self) -> anyhow::Result<Ledger> {
        let config = &self.config.ledger;
        if let Some(path) = &config.path {
            return Ledger::open_file(path)
                .await
                .with_context(|| format!("cannot open the ledger `{}`", path.display()));
        }
        // What is not Unicode would be shown by its error, so that is dropped.
        let from = |variable: &String| {
            let url = std::env::var(variable).ok().map(Secret::new);
            url.with_context(|| format!("the environment variable `{variable}` holds no URL of a ledger"))
        };
        let secret = config.url_env.as_ref().map(from).transpose()?;
        let url = secret.as_ref().map(|url| url.expose().as_str()).or(config.url.as_deref()).unwrap_or_default();
        Ledger::open(url).await.context("cannot open the ledger")
    }

    /// Opens the journal for writing, or makes it.
    pub(crate) fn journal(&self) -> Result<Journal, JournalError> {
        let config = &self.config.journal;
        let options = config.options();
        let signer = self.signer()?;
        if config.path.join("journal.json").exists() {
            Journal::open(&config.path, signer, options).map(|(journal, _)| journal)
        } else {
            Journal::create(&config.path, config.id.clone(), signer, options)
        }
    }

    /// The key that signs checkpoints and dossiers.
    pub(crate) fn signer(&self) -> Result<SigningKey, JournalError> {
        // Where the folder cannot be made, the key in it cannot either, and that error names the file.
        let _ = fs::create_dir_all(&self.config.secrets);
        SigningKey::load_or_create(&self.config.secrets.join("signing.key"))
    }

    /// The key of sketches and of everything else that is compared but not shown.
    pub(crate) fn sketch_key(&self) -> anyhow::Result<[u8; 32]> {
        secret_file(&self.config.secrets.join("sketch.key"))
    }

    /// The keys of the accounts' sealed texts.
    pub(crate) fn text_keys(&self) -> TextKeys {
        text_keys(&self.config.secrets)
    }

    /// A fresh coin key, and the number of its epoch. Every start of a gateway is an epoch of its own, so that a
    /// dossier reveals no more coins than it needs.
    pub(crate) fn next_epoch(&self) -> anyhow::Result<(u32, CoinKey)> {
        let epoch = (0..).find(|&epoch| !self.coin_path(epoch).exists()).unwrap_or_default();
        Ok((epoch, CoinKey::from_bytes(secret_file(&self.coin_path(epoch))?)))
    }

    /// The coin key of an epoch that has begun.
    pub(crate) fn coin(&self, epoch: u32) -> anyhow::Result<CoinKey> {
        let path = self.coin_path(epoch);
        if !path.exists() {
            bail!(
                "the coin key of epoch {epoch} is not at `{}`\nhint: restore the folder of secrets of this journal",
                path.display()
            );
        }
        Ok(CoinKey::from_bytes(secret_file(&path)?))
    }

    fn coin_path(&self, epoch: u32) -> PathBuf {
        self.config.secrets.join(format!("coin-{epoch:06}.key"))
    }

    /// Every teacher of the configuration, loaded or connected.
    pub(crate) fn models(&self) -> anyhow::Result<Vec<Arc<dyn Model>>> {
        self.config.models.iter().map(|model| self.model(model)).collect()
    }

    fn model(&self, config: &ModelConfig) -> anyhow::Result<Arc<dyn Model>> {
        if let Some(folder) = &config.folder {
            let model = held(folder, &config.name, config.weights.into())?;
            let Some(watermark) = config.watermark else { return Ok(Arc::new(model)) };
            let mark = watermark.mark(&secret_file(&self.config.secrets.join("watermark.key"))?)?;
            return Ok(Arc::new(model.marked(mark)));
        }
        let reach = Arc::new(self.config.reach()?);
        let mut members = Vec::new();
        for server in config.servers() {
            let (weight, priority) = (server.weight, server.priority);
            let mut upstream = self.upstream(config, server)?;
            upstream.client.reach = Arc::clone(&reach);
            upstream.client.whole_timeout = Some(Duration::from_millis(self.config.serve.request_timeout_ms));
            members.push(Member { model: Arc::new(Upstream::new(upstream)?), weight, priority });
        }
        let seed = match self.config.serve.seed {
            Some(seed) => seed,
            None => getrandom::u64().context("the operating system gives no random bytes")?,
        };
        Ok(Arc::new(Pool::new(&config.name, members, PoolConfig { seed, ..PoolConfig::default() })?))
    }

    /// How a server of `config` is reached.
    fn upstream(&self, config: &ModelConfig, server: UpstreamConfig) -> anyhow::Result<anbiq_upstream::UpstreamConfig> {
        let key = server_key(server.key_env.as_deref(), server.key_file.as_deref())?;
        let mut upstream = anbiq_upstream::UpstreamConfig::new(&config.name, server.url, key);
        if let Some(model) = server.upstream_model.or_else(|| config.upstream_model.clone()) {
            upstream.model = model;
        }
        upstream.several = config.several;
        // A connection to each request under way: those of a busy moment are there for the next one.
        upstream.client.pool = self.config.serve.max_in_flight as usize;
        if server.dialect == DialectName::Azure {
            let (deployment, api_version) = (upstream.model.clone(), server.api_version);
            upstream.client.dialect = Dialect::Azure { deployment, api_version };
        }
        Ok(upstream)
    }

    /// Every teacher of the configuration, as its administrator sees it.
    pub(crate) fn model_facts(&self) -> Vec<ModelFacts> {
        let facts = |model: &ModelConfig| ModelFacts {
            model: model.name.clone(),
            embedded: model.folder.is_some(),
            servers: model.servers().len(),
        };
        self.config.models.iter().map(facts).collect()
    }

    /// The plans as the ledger keeps them.
    pub(crate) fn plans(&self) -> Vec<Plan> {
        let plan = |config: &crate::config::PlanConfig| Plan {
            id: config.id.clone(),
            text_policy: config.texts,
            twin: config.twins(),
            max_logprobs: config.max_logprobs,
            max_n: config.max_n,
            max_tokens: config.max_tokens,
            requests_per_minute: config.requests_per_minute,
            requests_per_day: config.requests_per_day,
            tokens_per_minute: config.tokens_per_minute,
            max_in_flight: config.max_in_flight,
            max_body_bytes: config.max_body_bytes,
        };
        self.config.plans.iter().map(plan).collect()
    }

    /// Where entries wait for the gateway that writes the journal.
    pub(crate) fn spool(&self) -> PathBuf {
        self.config.secrets.with_file_name("spool")
    }

    /// Tells the ledger and the journal the plans, prices and terms of the configuration that it did not declare before,
    /// and says which those are. What was declared and then changed by an administrator is left as it is.
    pub(crate) async fn declare(
        &self,
        ledger: &Ledger,
        administrator: &Administrator,
        now: Timestamp,
    ) -> anyhow::Result<Reloaded> {
        let mut done = Reloaded::default();
        for plan in self.plans() {
            let declaration = Declaration::of("plan", plan.id.as_str(), &plan)?;
            if declaration.is_new(ledger).await? {
                if ledger.plan(&plan.id).await?.as_ref() != Some(&plan) {
                    administrator.put_plan(&plan, now).await?;
                    done.plans.push(plan.id.to_string());
                }
                declaration.remember(ledger).await?;
            }
        }
        for model in &self.config.models {
            let declaration = Declaration::of("prices", &model.name, &model.prices)?;
            if declaration.is_new(ledger).await? {
                if ledger.prices(&model.name).await? != Some(model.prices) {
                    administrator.set_prices(&model.name, model.prices, now).await?;
                    done.prices.push(model.name.clone());
                }
                declaration.remember(ledger).await?;
            }
        }
        for terms in self.terms()? {
            if ledger.terms(&terms.id, Some(terms.version)).await?.as_ref() != Some(&terms) {
                administrator.issue_terms(&terms, now).await?;
                done.terms.push(format!("{} version {}", terms.id, terms.version));
            }
        }
        Ok(done)
    }

    /// The terms that the configuration names.
    pub(crate) fn terms(&self) -> anyhow::Result<Vec<Terms>> {
        self.config.models.iter().filter_map(|model| model.terms.as_deref()).map(read_json).collect()
    }
}

/// What the configuration says of one plan or price list. It is put into the ledger when it is new, not at every start:
/// an administrator may have changed it since, by the admin API.
struct Declaration {
    what: String,
    digest: Digest,
}

impl Declaration {
    fn of(kind: &str, name: &str, value: &impl serde::Serialize) -> anyhow::Result<Self> {
        let digest = Digest::of(&serde_json::to_vec(value)?);
        Ok(Self { what: format!("{kind} {name}"), digest })
    }

    async fn is_new(&self, ledger: &Ledger) -> anyhow::Result<bool> {
        Ok(ledger.declared(&self.what).await? != Some(self.digest))
    }

    async fn remember(&self, ledger: &Ledger) -> anyhow::Result<()> {
        Ok(ledger.declare(&self.what, self.digest).await?)
    }
}

/// The keys of the accounts' sealed texts in a folder of secrets.
pub(crate) fn text_keys(secrets: &Path) -> TextKeys {
    TextKeys::new(secrets.join("texts"))
}

/// A Hugging Face folder, answered in this process.
pub(crate) fn open_local(folder: &Path, name: &str) -> anyhow::Result<Arc<dyn Model>> {
    Ok(Arc::new(local(folder, name)?))
}

/// As [`open_local`], where more than asking is done with it.
pub(crate) fn local(folder: &Path, name: &str) -> anyhow::Result<Local> {
    held(folder, name, Precision::F32)
}

/// As [`local`], with weights that are held in some way.
fn held(folder: &Path, name: &str, weights: Precision) -> anyhow::Result<Local> {
    Local::open(folder, name, LocalOptions { weights, ..LocalOptions::default() })
        .with_context(|| format!("cannot load the model `{}`", folder.display()))
}

/// A model behind HTTP; its key comes from the environment.
pub(crate) fn open_upstream(
    url: &str,
    name: &str,
    model: &str,
    key_env: Option<&str>,
    form: Option<Form>,
) -> anyhow::Result<Arc<dyn Model>> {
    let key = server_key(key_env, None)?;
    let mut config = anbiq_upstream::UpstreamConfig::new(name, url, key);
    model.clone_into(&mut config.model);
    config.scoring = Some(Scoring::Asked(form));
    Ok(Arc::new(Upstream::new(config)?))
}

/// The key of a server, from the environment or from a file; an error does not show it.
pub(crate) fn server_key(variable: Option<&str>, file: Option<&Path>) -> anyhow::Result<Option<Secret<String>>> {
    if let Some(variable) = variable {
        // What is not Unicode would be shown by its error, so that is dropped.
        let key = std::env::var(variable).ok().filter(|key| !key.is_empty()).map(Secret::new);
        return key.with_context(|| format!("the environment variable `{variable}` holds no key")).map(Some);
    }
    let Some(path) = file else { return Ok(None) };
    let text = Secret::new(
        fs::read_to_string(path).with_context(|| format!("cannot read the key of a server in `{}`", path.display()))?,
    );
    let key = text.expose().trim();
    if key.is_empty() {
        bail!("the file `{}` holds no key", path.display());
    }
    Ok(Some(Secret::new(key.to_owned())))
}

/// Calls `each` for every line of `path` that is not blank; each must be `what`.
pub(crate) fn json_lines<T: DeserializeOwned>(
    path: &Path,
    what: &str,
    mut each: impl FnMut(T) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let name = path.display();
    let file = File::open(path).with_context(|| format!("cannot read `{name}`"))?;
    for (number, line) in (1..).zip(BufReader::new(file).lines()) {
        let line = line.with_context(|| format!("cannot read `{name}`"))?;
        if !line.trim().is_empty() {
            each(serde_json::from_str(&line).with_context(|| format!("`{name}`, line {number}: not {what}"))?)?;
        }
    }
    Ok(())
}

/// `Some` of what was read; after an error `None`, with the error put aside.
pub(crate) fn keep<T, E>(read: Result<T, E>, damage: &mut Option<E>) -> Option<T> {
    read.map_err(|error| *damage = Some(error)).ok()
}

/// Reads a JSON file; an error names it.
pub(crate) fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    Ok(read_digested(path)?.1)
}

/// Reads a JSON file once: the digest of its bytes, and what they say.
pub(crate) fn read_digested<T: serde::de::DeserializeOwned>(path: &Path) -> anyhow::Result<(Digest, T)> {
    let bytes = fs::read(path).with_context(|| format!("cannot read `{}`", path.display()))?;
    let read =
        serde_json::from_slice(&bytes).with_context(|| format!("`{}` is not what it should be", path.display()))?;
    Ok((Digest::of(&bytes), read))
}

/// Writes a file that is not there yet, and waits for the disk.
pub(crate) fn write_new(path: &Path, text: &str) -> anyhow::Result<()> {
    let written = fs::File::create_new(path).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    written.with_context(|| format!("cannot write `{}`", path.display()))
}

/// The 32 bytes in `path`; random ones, readable by the owner alone, if it is not there yet.
pub(crate) fn secret_file(path: &Path) -> anyhow::Result<[u8; 32]> {
    if let Ok(text) = fs::read_to_string(path) {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text.trim(), &mut bytes)
            .with_context(|| format!("`{}` does not hold 64 hexadecimal digits", path.display()))?;
        return Ok(bytes);
    }
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).context("the operating system gives no random bytes")?;
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot make `{}`", folder.display()))?;
    }
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("cannot write `{}`", path.display()))?;
    writeln!(file, "{}", hex::encode(bytes))?;
    file.sync_all()?;
    Ok(bytes)
}
