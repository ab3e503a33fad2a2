//! Questions in SQL.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum Lake {
    /// List the questions that have a name, and what each can be asked with.
    List {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// List the tables that questions speak of, and their columns.
    Tables {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print the SQL of a question that has a name.
    Show {
        /// Its name.
        name: String,
    },
    /// Ask a question that has a name.
    Run {
        /// Its name; `anbiq lake list` lists them.
        name: String,
        /// What to ask it with; may be given several times.
        #[arg(short, long, value_name = "NAME=VALUE", value_parser = pair)]
        param: Vec<(String, String)>,
        #[command(flatten)]
        asked: Asked,
    },
    /// Ask a question in SQL of one's own; it can only read.
    Sql {
        /// The question, about the tables that `anbiq lake tables` lists.
        text: String,
        #[command(flatten)]
        asked: Asked,
    },
    /// Start a scheduler, to which questions are put with `--cluster`.
    Scheduler {
        /// Where it listens. It asks nobody who they are, so this should be reached by its executors and askers only.
        #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:50050")]
        bind: SocketAddr,
        /// The name by which executors find it, where its address is not one.
        #[arg(long)]
        name: Option<String>,
        /// `GET /readyz` says that it is ready as soon as it knows so many executors.
        #[arg(long, default_value_t = 1)]
        executors: usize,
    },
    /// Start an executor, which works on questions for a scheduler.
    Executor {
        /// The scheduler's address.
        #[arg(value_name = "URL", default_value = "df://127.0.0.1:50050")]
        scheduler: String,
        /// Where it listens. It asks nobody who they are, so this should be reached by the others of its cluster only.
        #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
        bind: IpAddr,
        /// The name by which the others find it, where its address is not one.
        #[arg(long)]
        name: Option<String>,
        /// The port for data; 0 for one that is free.
        #[arg(long, default_value_t = 0)]
        port: u16,
        /// The port for the scheduler's orders; 0 for one that is free.
        #[arg(long, default_value_t = 0)]
        orders_port: u16,
        /// MiB that sorting, grouping and joining may hold; what is more goes to the disk.
        #[arg(long, value_name = "MIB", default_value_t = 1024, value_parser = clap::value_parser!(u64).range(64..))]
        memory: u64,
        /// Parts that it works on side by side; 0 for as many as there are cores.
        #[arg(long, default_value_t = 0)]
        parts: usize,
        /// Where what executors pass on to each other lies meanwhile; otherwise in the system's folder for such things.
        #[arg(long, value_name = "DIR")]
        folder: Option<PathBuf>,
    },
}

/// What a question is asked about, by what, and where the answer goes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Asked {
    /// A journal's folder, or one of its sealed files; may be given several times.
    #[arg(short, long, value_name = "DIR")]
    pub(crate) journal: Vec<PathBuf>,
    /// A folder that `anbiq import` wrote; may be given several times.
    #[arg(long, value_name = "DIR")]
    pub(crate) imported: Vec<PathBuf>,
    /// Let a cluster answer, whose scheduler is at this address. It reads the files by the paths that they have here.
    #[arg(long, value_name = "URL", env = "ANBIQ_CLUSTER")]
    pub(crate) cluster: Option<String>,
    /// MiB that sorting, grouping and joining may hold; what is more goes to the disk. Executors have a limit of their own.
    #[arg(long, value_name = "MIB", default_value_t = 1024, value_parser = clap::value_parser!(u64).range(64..))]
    pub(crate) memory: u64,
    /// Parts that are worked on side by side; 0 for as many as there are cores, or 16 on a cluster.
    #[arg(long, default_value_t = 0)]
    pub(crate) parts: usize,
    /// Seconds that an answer may take.
    #[arg(long, value_name = "SECONDS", default_value_t = 3600, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) timeout: u64,
    /// Where entries that are not sealed and imported rows are written for the question, and what does not fit the memory;
    /// for a cluster a folder that all its machines share. Otherwise the system's folder for such things.
    #[arg(long, value_name = "DIR")]
    pub(crate) scratch: Option<PathBuf>,
    /// As JSON.
    #[arg(long, group = "form")]
    pub(crate) json: bool,
    /// As CSV.
    #[arg(long, group = "form")]
    pub(crate) csv: bool,
    /// As a Parquet file, which must be absent.
    #[arg(long, value_name = "FILE", group = "form")]
    pub(crate) parquet: Option<PathBuf>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("give it as NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}
