//! The gateway's configuration: one TOML file, in which an unknown key is an error that names file and line.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anbiq_domain::{JournalId, PlanId, PriceList, TextPolicy, TwinMode};
use anbiq_journal::{Keep, Options, Seal};
use anbiq_ledger::TwinPlan;
use anbiq_lm::Precision;
use anbiq_upstream::{Reach, Unreachable};
use anbiq_watermark::{Mark, MarkError, Scheme};
use anyhow::Context;
use schemars::JsonSchema;
use serde::Deserialize;

/// All of `anbiq.toml`. Relative paths are relative to the folder of the file.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "anbiq.toml")]
pub(crate) struct Config {
    /// Where what happens is written down.
    pub(crate) journal: JournalConfig,
    /// Where stands what is owed and allowed.
    pub(crate) ledger: LedgerConfig,
    /// Folder of the signing key, the sketch key and the coin keys.
    #[serde(default = "default_secrets")]
    pub(crate) secrets: PathBuf,
    /// How it serves.
    #[serde(default)]
    pub(crate) serve: anbiq_serve::Config,
    /// The teachers.
    #[serde(rename = "model")]
    pub(crate) models: Vec<ModelConfig>,
    /// Folders of draws of canaries that chosen accounts and operators are served, as `anbiq trace canary draw --config` made them.
    #[serde(default)]
    pub(crate) canaries: Vec<PathBuf>,
    /// The limits that accounts are on.
    #[serde(default, rename = "plan")]
    pub(crate) plans: Vec<PlanConfig>,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct JournalConfig {
    /// Folder of the journal.
    pub(crate) path: PathBuf,
    /// Its name; also the origin of its checkpoints.
    pub(crate) id: JournalId,
    /// A segment is closed at this size.
    #[serde(default = "default_segment")]
    pub(crate) segment_bytes: u64,
    /// A checkpoint is signed after so many entries, besides at the end.
    #[serde(default = "default_checkpoint")]
    pub(crate) checkpoint_every: u64,
    /// A checkpoint is signed when entries have waited so long for one; 0 for by number only.
    #[serde(default = "default_checkpoint_seconds")]
    pub(crate) checkpoint_seconds: u64,
    /// When segments are closed and turned into sealed files; absent for never.
    pub(crate) seal: Option<SealConfig>,
    /// Which sealed files are kept; absent for all.
    pub(crate) keep: Option<KeepConfig>,
}

/// When a segment is closed and sealed, whichever comes first.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SealConfig {
    /// At this size.
    #[serde(default = "default_segment")]
    pub(crate) after_bytes: u64,
    /// When its first entry is so old.
    #[serde(default = "default_seal_seconds")]
    pub(crate) after_seconds: u64,
}

/// Which sealed files are kept; whichever is reached first.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeepConfig {
    /// Those whose last entry is not older.
    pub(crate) days: Option<u64>,
    /// As many of the newest as fit.
    pub(crate) bytes: Option<u64>,
}

impl JournalConfig {
    pub(crate) fn options(&self) -> Options {
        let seal = self
            .seal
            .map(|seal| Seal { after_bytes: seal.after_bytes, after: Duration::from_secs(seal.after_seconds) });
        Options {
            segment_bytes: self.segment_bytes,
            checkpoint_every: self.checkpoint_every,
            checkpoint_after: (self.checkpoint_seconds > 0).then(|| Duration::from_secs(self.checkpoint_seconds)),
            seal,
            keep: self.keep(),
            ..Options::default()
        }
    }

    pub(crate) fn keep(&self) -> Option<Keep> {
        const DAY_MS: u64 = 24 * 3_600_000;
        self.keep.map(|keep| Keep { age_ms: keep.days.map(|days| days.saturating_mul(DAY_MS)), bytes: keep.bytes })
    }
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LedgerConfig {
    /// A SQLite file.
    pub(crate) path: Option<PathBuf>,
    /// Or a database, such as `postgres://anbiq@db.example/ledger`; without a password.
    pub(crate) url: Option<String>,
    /// Or the environment variable that holds the URL of a database.
    pub(crate) url_env: Option<String>,
}

/// One teacher: a folder or a server.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ModelConfig {
    /// The name that requests use.
    pub(crate) name: String,
    /// A Hugging Face folder or a file `*.gguf`, answered in this process.
    pub(crate) folder: Option<PathBuf>,
    /// How the weights of a model of this process are held.
    #[serde(default)]
    pub(crate) weights: WeightsName,
    /// Marks what a model of this process answers, under `watermark.key` among the secrets, so that a student of these answers
    /// can be known (`anbiq trace watermark`). The journal names the key's commitment with every answer.
    pub(crate) watermark: Option<WatermarkConfig>,
    /// The base URL of an OpenAI-compatible server, such as `http://127.0.0.1:8000/v1`.
    pub(crate) url: Option<String>,
    /// The name that the server knows the model by, if it is another.
    pub(crate) upstream_model: Option<String>,
    /// The environment variable that holds the server's key.
    pub(crate) key_env: Option<String>,
    /// Or the file that holds it.
    pub(crate) key_file: Option<PathBuf>,
    /// How the server lays out its paths and takes its key.
    #[serde(default)]
    pub(crate) dialect: DialectName,
    /// The version of Azure's API; without one its path `/openai/v1` is used.
    pub(crate) api_version: Option<String>,
    /// Are several completions asked for in one request? Else each is a request of its own, sent at the same moment.
    #[serde(default)]
    pub(crate) several: bool,
    /// Several servers of the same model, besides or instead of `url`.
    #[serde(default, rename = "upstream")]
    pub(crate) upstreams: Vec<UpstreamConfig>,
    /// What it costs, per million tokens.
    pub(crate) prices: PriceList,
    /// Its terms, as a JSON file.
    pub(crate) terms: Option<PathBuf>,
}

/// How the weights of a model are held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum WeightsName {
    /// As 32-bit floats.
    #[default]
    F32,
    /// As 8-bit integers with a scale for each row: faster where memory is what one waits for, and a slightly other model.
    Int8,
}

impl From<WeightsName> for Precision {
    fn from(name: WeightsName) -> Self {
        match name {
            WeightsName::F32 => Self::F32,
            WeightsName::Int8 => Self::Int8,
        }
    }
}

/// A watermark of sampling.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WatermarkConfig {
    /// How tokens are nudged.
    #[serde(default)]
    pub(crate) scheme: MarkName,
    /// How many tokens before a token its nudge depends on, 1 to 8.
    #[serde(default = "default_window")]
    pub(crate) window: usize,
    /// Of `green`: the share of green tokens.
    #[serde(default = "default_share")]
    pub(crate) share: f64,
    /// Of `green`: what is added to their logits, in nats.
    #[serde(default = "default_bias")]
    pub(crate) bias: f64,
}

/// Which watermark.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum MarkName {
    /// Two keys and a coin: every answer has exactly the model's distribution.
    #[default]
    Gumbel,
    /// A green list: stronger, and changes what the model says.
    Green,
}

pub(crate) const fn default_window() -> usize {
    2
}

pub(crate) const fn default_share() -> f64 {
    0.5
}

pub(crate) const fn default_bias() -> f64 {
    2.0
}

impl WatermarkConfig {
    /// The watermark under `key`.
    pub(crate) fn mark(self, key: &[u8; 32]) -> Result<Mark, MarkError> {
        let scheme = match self.scheme {
            MarkName::Gumbel => Scheme::Gumbel,
            MarkName::Green => Scheme::Green { share: self.share, bias: self.bias },
        };
        Mark::new(scheme, self.window, key)
    }
}

/// One server among several of a model.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UpstreamConfig {
    /// Its base URL.
    pub(crate) url: String,
    /// The name that it knows the model by, if it is another than the others know.
    pub(crate) upstream_model: Option<String>,
    /// The environment variable that holds its key.
    pub(crate) key_env: Option<String>,
    /// Or the file that holds it.
    pub(crate) key_file: Option<PathBuf>,
    /// How it lays out its paths and takes its key.
    #[serde(default)]
    pub(crate) dialect: DialectName,
    /// The version of Azure's API; without one its path `/openai/v1` is used.
    pub(crate) api_version: Option<String>,
    /// Its share of the requests among servers of equal priority.
    #[serde(default = "default_weight")]
    pub(crate) weight: u32,
    /// Servers of the lowest number are asked, the others only where none of those answers.
    #[serde(default)]
    pub(crate) priority: u32,
}

/// Where servers of the dialect differ.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DialectName {
    /// As OpenAI does.
    #[default]
    OpenAi,
    /// As Azure does: the name of the model is that of the deployment.
    Azure,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PlanConfig {
    /// Its name.
    pub(crate) id: PlanId,
    /// What the journal keeps of texts: `off`, `twinned`, `plain`, or encrypted `sealed_twinned`, `sealed`.
    #[serde(default)]
    pub(crate) texts: TextPolicy,
    /// Which exchanges are twinned, and how.
    pub(crate) twin: Option<TwinPlanConfig>,
    /// The older name of `twin.share`.
    pub(crate) twin_share: Option<f64>,
    /// The older name of `twin.first`.
    pub(crate) twin_first: Option<u32>,
    /// Most alternatives a token; absent for no log-probabilities.
    pub(crate) max_logprobs: Option<u8>,
    /// Most answers a request.
    #[serde(default = "default_n")]
    pub(crate) max_n: u32,
    /// Longest answer, in tokens.
    #[serde(default = "default_tokens")]
    pub(crate) max_tokens: u32,
    /// Most requests a minute; absent for no limit.
    pub(crate) requests_per_minute: Option<u32>,
    /// Most requests a day, by the calendar in UTC; absent for no limit.
    pub(crate) requests_per_day: Option<u32>,
    /// Most tokens a minute, of prompts and answers together; absent for no limit.
    pub(crate) tokens_per_minute: Option<u32>,
    /// Most requests of an account under way; absent for the limit of `[serve]`.
    pub(crate) max_in_flight: Option<u32>,
    /// Largest request body, in bytes; absent for the limit of `[serve]`.
    pub(crate) max_body_bytes: Option<u64>,
}

/// Which exchanges of a plan are twinned, and how.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct TwinPlanConfig {
    /// `together` or `deferred`.
    pub(crate) mode: TwinMode,
    /// Share of exchanges that are twinned.
    pub(crate) share: f64,
    /// The first exchanges of an account, all twinned.
    pub(crate) first: u32,
    /// Completions of a twinned exchange; `serve.twin.k` where it is absent.
    pub(crate) k: Option<u8>,
    /// Only exchanges with these models; all of them where it is absent.
    pub(crate) models: Option<Vec<String>>,
}

impl PlanConfig {
    /// Which exchanges are twinned, and how, under whichever names it was said.
    pub(crate) fn twins(&self) -> TwinPlan {
        let TwinPlanConfig { mode, share, first, k, models } = self.twin.clone().unwrap_or_default();
        let (share, first) = (self.twin_share.unwrap_or(share), self.twin_first.unwrap_or(first));
        TwinPlan { mode, share, first, k, models }
    }

    fn check(&self, models: &[ModelConfig]) -> Result<(), String> {
        let wrong = |what: String| Err(format!("plan `{}`: {what}", self.id));
        if self.twin.is_some() && (self.twin_share.is_some() || self.twin_first.is_some()) {
            return wrong(
                "`twin_share` and `twin_first` are the older names of `share` and `first` in `twin`: give one or the other\n\
                 hint: write `twin = { share = 0.05, first = 300 }`"
                    .to_owned(),
            );
        }
        let twins = self.twins();
        if !(0.0..=1.0).contains(&twins.share) {
            return wrong("`twin_share`, or `share` in `twin`, is a share, between 0 and 1".to_owned());
        }
        if twins.k.is_some_and(|k| !(2..=16).contains(&k)) {
            return wrong("`k` in `twin` is a number of completions, between 2 and 16".to_owned());
        }
        for name in twins.models.iter().flatten() {
            if !models.iter().any(|model| model.name == *name) {
                return wrong(format!("`models` in `twin` names `{name}`, and there is no such `[[model]]`"));
            }
        }
        Ok(())
    }
}

fn default_secrets() -> PathBuf {
    "secrets".into()
}
const fn default_segment() -> u64 {
    64 << 20
}
const fn default_checkpoint() -> u64 {
    10_000
}
const fn default_checkpoint_seconds() -> u64 {
    60
}
const fn default_seal_seconds() -> u64 {
    24 * 3600
}
const fn default_weight() -> u32 {
    1
}
const fn default_n() -> u32 {
    4
}
const fn default_tokens() -> u32 {
    4096
}

impl ModelConfig {
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.folder.is_some() == (self.url.is_some() || !self.upstreams.is_empty()) {
            problems.push("give either `folder` or `url` or `[[model.upstream]]`".to_owned());
        }
        if self.weights != WeightsName::F32 && self.folder.is_none() {
            problems.push("`weights` says how those of a `folder` are held".to_owned());
        }
        if let Some(watermark) = self.watermark {
            if self.folder.is_none() {
                problems
                    .push("`watermark` marks a model that is answered in this process: it needs `folder`".to_owned());
            }
            // Whether a watermark can be does not depend on its key.
            problems.extend(watermark.mark(&[0; 32]).err().map(|error| error.to_string()));
        }
        for server in self.servers() {
            if server.weight == 0 {
                problems.push("the `weight` of a server is at least 1".to_owned());
            }
            if server.key_env.is_some() && server.key_file.is_some() {
                problems.push("give either `key_env` or `key_file`".to_owned());
            }
            if server.api_version.is_some() && server.dialect != DialectName::Azure {
                problems.push("`api_version` is for `dialect = \"azure\"`".to_owned());
            }
        }
        problems
    }

    /// All servers of the model, the one of `url` first.
    pub(crate) fn servers(&self) -> Vec<UpstreamConfig> {
        let first = self.url.clone().map(|url| UpstreamConfig {
            url,
            upstream_model: None,
            key_env: self.key_env.clone(),
            key_file: self.key_file.clone(),
            dialect: self.dialect,
            api_version: self.api_version.clone(),
            weight: default_weight(),
            priority: 0,
        });
        first.into_iter().chain(self.upstreams.iter().cloned()).collect()
    }
}

impl Config {
    /// Reads and checks `path`; makes the paths in it absolute.
    pub(crate) fn load(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| {
            format!(
                "cannot read the configuration `{}`\nhint: `anbiq init DIR` writes one; `--config FILE` names another",
                path.display()
            )
        })?;
        let mut config = Self::parse(&text).map_err(|what| anyhow::anyhow!("{}: {what}", path.display()))?;
        let folder = path.parent().unwrap_or(Path::new("."));
        config.anchor(folder);
        Ok(config)
    }

    /// Reads `text` as if it stood in `path`, with everything that makes no sense in it; an error where it cannot be read
    /// so far.
    pub(crate) fn examine(text: &str, path: &Path) -> Result<(Self, Vec<String>), String> {
        let mut config: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        let problems = config.problems();
        config.anchor(path.parent().unwrap_or(Path::new(".")));
        Ok((config, problems))
    }

    /// Reads `text`; an error says where and why, of all that is wrong as far as it can be read.
    fn parse(text: &str) -> Result<Self, String> {
        let config: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        let problems = config.problems();
        if problems.is_empty() { Ok(config) } else { Err(problems.join("\n")) }
    }

    /// Everything that makes no sense, without a look at any file.
    fn problems(&self) -> Vec<String> {
        let mut problems: Vec<String> = self.ledger.check().err().into_iter().collect();
        problems.extend(self.reach().err().map(|why| format!("serve: `upstream_allow`: {why}")));
        for model in &self.models {
            problems.extend(model.problems().into_iter().map(|why| format!("model `{}`: {why}", model.name)));
        }
        for plan in &self.plans {
            problems.extend(plan.check(&self.models).err());
        }
        if self.models.is_empty() {
            problems.push("no model: add a `[[model]]` with `name`, `folder` or `url`, and `prices`".to_owned());
        }
        problems
    }

    /// Which addresses servers of models may have.
    pub(crate) fn reach(&self) -> Result<Reach, Unreachable> {
        self.serve.upstream_allow.as_deref().map_or_else(|| Ok(Reach::default()), Reach::only)
    }

    fn anchor(&mut self, folder: &Path) {
        let models = self.models.iter_mut().flat_map(|model| {
            let keys = model.upstreams.iter_mut().map(|upstream| upstream.key_file.as_mut());
            keys.chain([model.folder.as_mut(), model.terms.as_mut(), model.key_file.as_mut()])
        });
        let fixed = [&mut self.journal.path, &mut self.secrets].into_iter().chain(&mut self.canaries);
        for path in models.flatten().chain(self.ledger.path.as_mut()).chain(fixed) {
            *path = folder.join(&*path);
        }
    }
}

impl LedgerConfig {
    fn check(&self) -> Result<(), String> {
        match (&self.path, &self.url, &self.url_env) {
            (Some(_), None, None) | (None, None, Some(_)) => Ok(()),
            // The URL is not shown: it is in the file, and what is wrong with it is that it tells too much.
            (None, Some(url), None) if holds_password(url) => Err("ledger: `url` holds a password\n\
                 hint: put the URL into an environment variable and give the name of that, `url_env = \"NAME\"`"
                .to_owned()),
            (None, Some(_), None) => Ok(()),
            _ => Err("ledger: give either `path`, `url` or `url_env`".to_owned()),
        }
    }
}

/// In doubt it does: a colon before the last `@`, or a parameter that speaks of one.
fn holds_password(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let user = rest.rsplit_once('@').map_or("", |(user, _)| user);
    let parameters = rest.split_once('?').map_or("", |(_, parameters)| parameters);
    user.contains(':') || parameters.to_lowercase().contains("password")
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
[journal]
path = "journal"
id = "example"

[ledger]
path = "ledger.db"

[serve]

[[model]]
name = "teacher"
folder = "teacher"
prices = { input = "0.50", output = "2.00" }
"#;

    const LEDGER: &str = "path = \"ledger.db\"";

    #[test]
    fn a_good_configuration_is_read() {
        assert!(Config::parse(GOOD).is_ok());
        for ledger in ["url = \"postgres://anbiq@db/ledger\"", "url_env = \"ANBIQ_LEDGER\""] {
            assert!(Config::parse(&GOOD.replace(LEDGER, ledger)).is_ok());
        }
    }

    #[test]
    fn a_model_may_have_several_servers() {
        let servers = "url = \"http://one/v1\"\nkey_env = \"ONE\"";
        let more = "\n[[model.upstream]]\nurl = \"http://two/v1\"\nweight = 3\npriority = 1\n";
        let text = GOOD.replace("folder = \"teacher\"", servers) + more;
        let servers = Config::parse(&text).unwrap().models[0].servers();
        let seen = servers.iter().map(|one| (one.url.as_str(), one.key_env.as_deref(), one.weight, one.priority));
        assert_eq!(seen.collect::<Vec<_>>(), [("http://one/v1", Some("ONE"), 1, 0), ("http://two/v1", None, 3, 1)]);
        let alone = Config::parse(&(GOOD.replace("folder = \"teacher\"", "") + more)).unwrap();
        assert_eq!(alone.models[0].servers().len(), 1);
        let both = Config::parse(&(GOOD.to_owned() + more)).unwrap_err();
        assert!(both.contains("either `folder` or `url`"), "{both}");
        let weightless = Config::parse(&text.replace("weight = 3", "weight = 0")).unwrap_err();
        assert!(weightless.contains("at least 1"), "{weightless}");
    }

    #[test]
    fn a_plan_says_what_is_twinned_under_either_name() {
        let plan = |twin: &str| Config::parse(&format!("{GOOD}\n[[plan]]\nid = \"a\"\n{twin}\n"));
        let twins = |twin: &str| plan(twin).unwrap().plans[0].twins();
        let old = twins("twin_share = 0.25\ntwin_first = 7");
        assert_eq!(old, twins("twin = { share = 0.25, first = 7 }"));
        assert_eq!(old, TwinPlan { share: 0.25, first: 7, ..TwinPlan::default() });
        let whole = twins("[plan.twin]\nmode = \"deferred\"\nshare = 1.0\nk = 3\nmodels = [\"teacher\"]");
        assert_eq!((whole.mode, whole.k), (TwinMode::Deferred, Some(3)));
        assert!(whole.covers("teacher") && !whole.covers("another") && !TwinPlan::default().covers("teacher"));
        for (twin, says) in [
            ("twin_share = 0.25\ntwin = { first = 7 }", "hint: write `twin = {"),
            ("twin_share = 1.5", "between 0 and 1"),
            ("twin = { share = -0.1 }", "between 0 and 1"),
            ("twin = { k = 1 }", "between 2 and 16"),
            ("twin = { k = 17 }", "between 2 and 16"),
            ("twin = { mode = \"later\" }", "unknown variant `later`"),
            ("twin = { models = [\"gone\"] }", "no such `[[model]]`"),
            ("twin = { shares = 1 }", "unknown field `shares`"),
        ] {
            let error = plan(twin).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn a_bad_configuration_says_where_and_why() {
        for (change, with, says) in [
            ("[serve]", "[serve]\nlisen = 1", "lisen"),
            ("folder = \"teacher\"", "", "either `folder` or `url`"),
            ("\"0.50\"", "\"cheap\"", "not an amount of money"),
            ("folder = \"teacher\"", "url = \"http://h\"\nweights = \"int8\"", "of a `folder`"),
            (
                "folder = \"teacher\"",
                "url = \"http://h/v1\"\nkey_env = \"A\"\nkey_file = \"b\"",
                "either `key_env` or `key_file`",
            ),
            ("folder = \"teacher\"", "url = \"http://h\"\napi_version = \"1\"", "is for `dialect = \"azure\"`"),
            ("folder = \"teacher\"", "url = \"http://h\"\ndialect = \"bard\"", "unknown variant `bard`"),
            ("[serve]", "[serve]\nupstream_allow = [\"10.0.0.0/40\"]", "neither a host"),
            ("id = \"example\"", "id = \"a b\"", "cannot be an id"),
            ("id = \"example\"", "id = \"example\"\nkeep = { weeks = 1 }", "weeks"),
            (LEDGER, "", "either `path`, `url` or `url_env`"),
            (LEDGER, "path = \"a\"\nurl_env = \"B\"", "either `path`, `url` or `url_env`"),
            (LEDGER, "url = \"postgres://anbiq:hunter2@db/ledger\"", "hint: put the URL into an environment"),
            (LEDGER, "url = \"postgres://db/ledger?user=a&password=hunter2\"", "holds a password"),
        ] {
            let error = Config::parse(&GOOD.replace(change, with)).unwrap_err();
            assert!(error.contains(says), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
        let several = Config::parse(&GOOD.replace("folder = \"teacher\"", "").replace(LEDGER, "")).unwrap_err();
        assert_eq!(several.lines().count(), 2, "all that is wrong is said at once: {several}");
        let unknown = Config::parse(&GOOD.replace("[serve]", "[serve]\nlisen = 1")).unwrap_err();
        assert!(unknown.contains("line 10"), "{unknown}");
    }
}
