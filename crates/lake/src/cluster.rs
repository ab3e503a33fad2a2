//! Ballista: a scheduler, executors, and a client of them.
//!
//! None of them asks who is there, and nothing between them is encrypted; whoever reaches a scheduler reads every file that its
//! executors can read. So they listen on the loopback interface unless they are told otherwise.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ballista::prelude::{SessionConfigExt as _, SessionContextExt as _};
use ballista_executor::executor_process::{ExecutorProcessConfig, start_executor_process};
use ballista_scheduler::cluster::BallistaCluster;
use ballista_scheduler::config::SchedulerConfig;
use ballista_scheduler::scheduler_process::{create_scheduler, start_grpc_service_with_listener};
use datafusion::execution::SessionStateBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};
use tokio::time::timeout;

use crate::LakeError;
use crate::careful::{Careful, Server};
use crate::tables::engine;

/// How long a scheduler may take to answer a call.
const CONNECT: Duration = Duration::from_secs(5);

/// The port of a scheduler where its address names none.
const PORT: u16 = 50050;

/// Seconds between two signs of life of an executor.
const HEARTBEAT: u64 = 5;

/// Seconds after which an executor that gives none is taken for dead, and its work given to others.
const DEAD: u64 = 20;

/// Seconds between two looks for dead ones.
const LOOK: u64 = 2;

/// A scheduler to be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scheduler {
    /// Where it listens; a port of 0 for one that is free.
    pub bind: SocketAddr,
    /// By which name others find it; otherwise by its address.
    pub name: Option<String>,
    /// `GET /readyz` says that it is ready as soon as it knows so many executors.
    pub executors: usize,
}

/// An executor to be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Executor {
    /// Whom it works for.
    pub scheduler: String,
    /// Where it listens.
    pub bind: IpAddr,
    /// By which name others find it; otherwise by its address.
    pub name: Option<String>,
    /// The port for data, and the port for orders; 0 for free ones.
    pub ports: (u16, u16),
    /// Bytes that sorting, grouping and joining may hold; what is more goes to the disk.
    pub memory: u64,
    /// Parts that it works on side by side; 0 for as many as there are cores.
    pub parts: usize,
    /// The folder in which it makes one for what executors pass on to each other; otherwise the system's.
    pub folder: Option<PathBuf>,
}

/// A client of the scheduler at `url`.
pub(crate) async fn connect(url: &str, parts: usize) -> Result<SessionContext, LakeError> {
    let (host, port) = address(url)?;
    let unreachable = |reason: String| LakeError::Unreachable { url: url.to_owned(), reason };
    match timeout(CONNECT, tokio::net::TcpStream::connect((host.as_str(), port))).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => return Err(unreachable(error.to_string())),
        Err(_) => return Err(unreachable(format!("no answer within {} s", CONNECT.as_secs()))),
    }
    // Planned as it goes (Ballista 55's default), a question waits for ever after an executor died; planned beforehand it ends.
    let mut config = SessionConfig::new_with_ballista().set_bool("ballista.planner.adaptive.enabled", false);
    if parts > 0 {
        config = config.with_target_partitions(parts);
    }
    let state = SessionStateBuilder::new().with_config(config).with_default_features().build();
    let bracketed = if host.contains(':') { format!("[{host}]") } else { host };
    SessionContext::remote_with_state(&format!("df://{bracketed}:{port}"), state)
        .await
        .map_err(|error| unreachable(error.strip_backtrace()))
}

impl Scheduler {
    /// Listens, says where, and works until the process ends.
    ///
    /// # Errors
    /// The address cannot be listened on, or the scheduler fails.
    pub async fn run(self, listening: impl FnOnce(SocketAddr)) -> Result<(), LakeError> {
        let listener = tokio::net::TcpListener::bind(self.bind).await.map_err(|error| engine(&error))?;
        let address = listener.local_addr().map_err(|error| engine(&error))?;
        let config = SchedulerConfig {
            external_host: self.name.unwrap_or_else(|| address.ip().to_string()),
            bind_host: address.ip().to_string(),
            bind_port: address.port(),
            executor_timeout_seconds: DEAD,
            no_executors_grace_period_seconds: DEAD,
            expire_dead_executor_interval_seconds: LOOK,
            min_ready_executors: self.executors,
            // What cannot be fetched is not worked out anew either, see `Careful`.
            stage_max_failures: 1,
            ..SchedulerConfig::default()
        };
        config.validate().map_err(|error| engine(&error))?;
        let cluster = BallistaCluster::new_from_config(&config).await.map_err(|error| engine(&error))?;
        let server = Arc::new(OnceLock::new());
        let careful = Careful { inner: cluster.cluster_state(), server: Arc::clone(&server) };
        let cluster = BallistaCluster::new(Arc::new(careful), cluster.job_state());
        let scheduler: Server = create_scheduler(cluster, Arc::new(config)).await.map_err(|error| engine(&error))?;
        if server.set(scheduler.clone()).is_err() {
            return Err(engine(&"the scheduler was made twice"));
        }
        listening(address);
        start_grpc_service_with_listener(listener, scheduler).await.map_err(|error| engine(&error))
    }
}

impl Executor {
    /// Works for its scheduler until the process is told to end.
    ///
    /// # Errors
    /// The scheduler cannot be reached, an address cannot be listened on, or the executor fails.
    pub async fn run(self) -> Result<(), LakeError> {
        let (host, port) = address(&self.scheduler)?;
        let ports = self.ports()?;
        let mut folder = tempfile::Builder::new();
        let folder = match &self.folder {
            Some(parent) => folder.prefix("executor-").tempdir_in(parent),
            None => folder.prefix("anbiq-executor-").tempdir(),
        };
        // Held until the executor ends: what others still have to fetch lies in it.
        let folder = folder.map_err(|error| engine(&error))?;
        let config = ExecutorProcessConfig {
            bind_host: self.bind.to_string(),
            external_host: Some(self.name.clone().unwrap_or_else(|| self.bind.to_string())),
            port: ports.0,
            grpc_port: ports.1,
            scheduler_host: host,
            scheduler_port: port,
            scheduler_connect_timeout_seconds: 30,
            vcores: self.parts,
            work_dir: Some(folder.path().to_string_lossy().into_owned()),
            memory_pool_size: Some(self.memory),
            executor_heartbeat_interval_seconds: HEARTBEAT,
            ..ExecutorProcessConfig::default()
        };
        let failed = |error: ballista_core::error::BallistaError| LakeError::Unreachable {
            url: self.scheduler.clone(),
            reason: error.to_string(),
        };
        start_executor_process(Arc::new(config)).await.map_err(failed)
    }

    /// The ports that were asked for, or free ones: the engine does not say which it was given, so it is told.
    fn ports(&self) -> Result<(u16, u16), LakeError> {
        let listen = |port: u16| TcpListener::bind((self.bind, port)).map_err(|error| engine(&error));
        let (data, orders) = (listen(self.ports.0)?, listen(self.ports.1)?);
        let port = |listener: &TcpListener| listener.local_addr().map(|address| address.port());
        Ok((port(&data).map_err(|error| engine(&error))?, port(&orders).map_err(|error| engine(&error))?))
    }
}

/// The host and the port of a scheduler's address.
fn address(url: &str) -> Result<(String, u16), LakeError> {
    let wrong = || LakeError::ClusterUrl { url: url.to_owned() };
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let known = url.split_once("://").is_none_or(|(scheme, _)| matches!(scheme, "df" | "http"));
    let uri: http::Uri = rest.trim_end_matches('/').parse().map_err(|_| wrong())?;
    let authority = uri.authority().filter(|_| known).ok_or_else(wrong)?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() || !matches!(uri.path(), "" | "/") {
        return Err(wrong());
    }
    Ok((host.to_owned(), authority.port_u16().unwrap_or(PORT)))
}
