//! The journal and the twins in it.

use std::path::PathBuf;

use clap::Subcommand;

use super::Site;

#[derive(Debug, Subcommand)]
pub(crate) enum Journal {
    /// Recompute the tree and check every signature.
    Verify {
        /// The journal's folder, or one of its sealed files, which then needs `--key`.
        dir: PathBuf,
        /// The public key that must have signed it.
        #[arg(long)]
        key: Option<String>,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print the entries, one JSON object a line.
    Show {
        /// The journal's folder.
        dir: PathBuf,
        /// From this index on.
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// At most this many.
        #[arg(long)]
        limit: Option<u64>,
        /// The gateway's folder of secrets: opens sealed texts. What is printed then is not what was hashed.
        #[arg(long, value_name = "DIR")]
        secrets: Option<PathBuf>,
    },
    /// Turn everything that is written so far into sealed Parquet files.
    Seal {
        /// As JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        site: Site,
    },
    /// Delete the sealed files that `[journal] keep` does not keep; their signed roots stay.
    Prune {
        /// Only say which.
        #[arg(long)]
        dry_run: bool,
        /// As JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        site: Site,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Twins {
    /// Sum up the twins of a journal by day and model: how many, their tokens, and their cost at the teacher's price.
    Cost {
        /// The journal's folder.
        dir: PathBuf,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
}
