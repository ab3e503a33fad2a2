//! One constructor, two engines.

use std::sync::Arc;
use std::time::Duration;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::{DataFusionError, ScalarValue};
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::{ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl};
use datafusion::execution::context::SQLOptions;
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};
use tokio::time::{Instant, timeout_at};

use crate::answer::Answer;
use crate::tables::{Sources, schema};
use crate::{LakeError, Question, VIEWS, Value};

/// How often a cluster is asked the same question: whenever it loses an executor the question ends.
const TRIES: usize = 5;

/// How long whoever asks again waits before.
const PAUSE: Duration = Duration::from_secs(1);

/// What runs a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Engine {
    /// DataFusion, in this process.
    Local,
    /// Ballista: a scheduler, and executors that it knows. All of them read the files by the paths that they have here, so
    /// these must be the same on each machine: a shared folder, for what is written for a question too.
    Cluster {
        /// The scheduler's, such as `df://127.0.0.1:50050`.
        url: String,
    },
}

/// How a question is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// By what.
    pub engine: Engine,
    /// Bytes that sorting, grouping and joining may hold; what is more goes to the disk. Executors have a limit of their own.
    pub memory: u64,
    /// Parts that are worked on side by side; 0 for as many as there are cores, or 16 on a cluster.
    pub parts: usize,
    /// How long an answer may take, from the question to its last row.
    pub timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { engine: Engine::Local, memory: 1 << 30, parts: 0, timeout: Duration::from_secs(3600) }
    }
}

/// Journals and imported logs that questions can be asked about.
pub struct Lake {
    context: SessionContext,
    settings: Settings,
    sources: Sources,
}

impl std::fmt::Debug for Lake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lake").field("settings", &self.settings).field("sources", &self.sources).finish_non_exhaustive()
    }
}

impl Lake {
    /// Makes `sources` tables of the engine.
    ///
    /// # Errors
    /// There is nobody to ask: the scheduler cannot be reached, or this program knows no cluster.
    pub async fn open(settings: Settings, mut sources: Sources) -> Result<Self, LakeError> {
        sources.fill()?;
        let context = match &settings.engine {
            Engine::Local => local(&settings, &sources)?,
            #[cfg(feature = "cluster")]
            Engine::Cluster { url } => crate::cluster::connect(url, settings.parts).await?,
            #[cfg(not(feature = "cluster"))]
            Engine::Cluster { .. } => return Err(LakeError::no_cluster()),
        };
        let lake = Self { context, settings, sources };
        lake.entries()?;
        for view in VIEWS {
            let frame = lake.context.sql(view.sql).await.map_err(|error| lake.failed(&error))?;
            lake.context.register_table(view.name, frame.into_view()).map_err(|error| lake.failed(&error))?;
        }
        Ok(lake)
    }

    /// What it is asked about.
    pub const fn sources(&self) -> &Sources {
        &self.sources
    }

    /// The tables and their columns, each with its type in SQL's words.
    ///
    /// # Errors
    /// The engine cannot tell.
    pub async fn tables(&self) -> Result<Vec<(&'static str, Vec<(String, String)>)>, LakeError> {
        let mut tables = Vec::new();
        for name in ["entries"].into_iter().chain(VIEWS.iter().map(|view| view.name)) {
            let frame = self.context.table(name).await.map_err(|error| self.failed(&error))?;
            let columns = frame.schema().fields().iter();
            let columns = columns.map(|field| (field.name().clone(), type_in_words(field.data_type())));
            tables.push((name, columns.collect()));
        }
        Ok(tables)
    }

    /// Asks `question`. Only what reads is allowed.
    ///
    /// # Errors
    /// It is no question that the engine understands, it would change something, or its time is up.
    pub async fn ask(&self, question: &Question) -> Result<Answer, LakeError> {
        let deadline = Instant::now() + self.settings.timeout;
        if self.settings.engine == Engine::Local {
            return self.begin(question, deadline).await;
        }
        let mut tries = 1;
        loop {
            // Whole, before anything of it is given out: a cluster may lose the executor that holds the rest.
            let whole = async {
                let file = tempfile::tempfile_in(self.sources.scratch())
                    .map_err(LakeError::io("make a file in", self.sources.scratch()))?;
                self.begin(question, deadline).await?.kept(file).await
            };
            match whole.await {
                Err(LakeError::Engine { reason }) if tries < TRIES => {
                    tracing::warn!(reason, tries, "a cluster did not come to an answer; it is asked again");
                    tries += 1;
                    tokio::time::sleep_until(deadline.min(Instant::now() + PAUSE)).await;
                }
                answer => return answer,
            }
        }
    }

    async fn begin(&self, question: &Question, deadline: Instant) -> Result<Answer, LakeError> {
        let options = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        let stream = async {
            let mut frame = self.context.sql_with_options(&question.sql, options).await?;
            if !question.values.is_empty() {
                let values = question.values.iter().map(|(name, value)| (*name, scalar(value))).collect::<Vec<_>>();
                frame = frame.with_param_values(values)?;
            }
            if let Some(limit) = question.limit {
                frame = frame.limit(0, Some(limit))?;
            }
            frame.execute_stream().await
        };
        let stream =
            timeout_at(deadline, stream).await.map_err(|_| self.late())?.map_err(|error| self.failed(&error))?;
        Ok(Answer::new(stream, deadline, self.settings.clone()))
    }

    /// The table `entries`: the files themselves.
    fn entries(&self) -> Result<(), LakeError> {
        let mut paths = Vec::new();
        for file in &self.sources.files {
            let path = std::path::absolute(file).map_err(LakeError::io("find", file))?;
            paths.push(ListingTableUrl::parse(path.to_string_lossy()).map_err(|error| self.failed(&error))?);
        }
        let options = ListingOptions::new(Arc::new(ParquetFormat::default())).with_file_extension(".parquet");
        let config =
            ListingTableConfig::new_with_multi_paths(paths).with_listing_options(options).with_schema(schema()?);
        let table = ListingTable::try_new(config).map_err(|error| self.failed(&error))?;
        self.context.register_table("entries", Arc::new(table)).map_err(|error| self.failed(&error))?;
        Ok(())
    }

    fn failed(&self, error: &DataFusionError) -> LakeError {
        self.settings.failed(error)
    }

    fn late(&self) -> LakeError {
        self.settings.late()
    }
}

impl Settings {
    pub(crate) fn failed(&self, error: &DataFusionError) -> LakeError {
        let reason = error.strip_backtrace();
        match error.find_root() {
            DataFusionError::ResourcesExhausted(_) => LakeError::Memory { limit: self.memory >> 20, reason },
            DataFusionError::SQL(..)
            | DataFusionError::Plan(_)
            | DataFusionError::SchemaError(..)
            | DataFusionError::Diagnostic(..)
            | DataFusionError::NotImplemented(_) => LakeError::Sql { reason },
            _ => LakeError::Engine { reason },
        }
    }

    pub(crate) const fn late(&self) -> LakeError {
        LakeError::TimedOut { seconds: self.timeout.as_secs() }
    }
}

/// The engine in this process. It merges sorted parts to join them, since that goes to the disk where hashing what is joined cannot.
fn local(settings: &Settings, sources: &Sources) -> Result<SessionContext, LakeError> {
    let mut config = SessionConfig::new().set_bool("datafusion.optimizer.prefer_hash_join", false);
    if settings.parts > 0 {
        config = config.with_target_partitions(settings.parts);
    }
    let memory = usize::try_from(settings.memory).unwrap_or(usize::MAX);
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(FairSpillPool::new(memory)))
        .with_temp_file_path(sources.scratch())
        .build_arc()
        .map_err(|error| settings.failed(&error))?;
    Ok(SessionContext::new_with_config_rt(config, runtime))
}

fn scalar(value: &Value) -> ScalarValue {
    match value {
        Value::Count(count) => ScalarValue::Int64(Some(*count)),
        Value::Time(at) => ScalarValue::TimestampMillisecond(Some(*at), Some("UTC".into())),
        Value::Text(text) => ScalarValue::Utf8(Some(text.clone())),
    }
}

/// A column's type as SQL calls it.
fn type_in_words(kind: &DataType) -> String {
    match kind {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "text".to_owned(),
        DataType::Int64 => "bigint".to_owned(),
        DataType::UInt64 => "bigint unsigned".to_owned(),
        DataType::Float32 => "real".to_owned(),
        DataType::Boolean => "boolean".to_owned(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => "bytea".to_owned(),
        DataType::Timestamp(..) => "timestamp".to_owned(),
        other => other.to_string().to_lowercase(),
    }
}
