//! Terms and grants.

use clap::{Args, Subcommand, ValueEnum};

use super::Site;

#[derive(Debug, Subcommand)]
pub(crate) enum Terms {
    /// Print the terms of a teacher of this installation.
    Show {
        /// The teacher's name.
        model: String,
        /// As JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        site: Site,
    },
    /// Say what terms say about a student: exit code 0 where they allow it, 1 where they do not or do not say.
    Check {
        /// The teacher's name.
        teacher: String,
        /// By the built-in registry, not by this installation.
        #[arg(long)]
        known: bool,
        /// By the grants of this account as well.
        #[arg(long, conflicts_with = "known")]
        account: Option<String>,
        #[command(flatten)]
        student: Described,
        /// As JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        site: Site,
    },
    /// Record that an account accepted the present version of a teacher's terms.
    Accept {
        /// Who accepts.
        account: String,
        /// The teacher's name.
        model: String,
        #[command(flatten)]
        site: Site,
    },
    /// Print what the built-in registry knows of the terms of teachers. Facts, no legal advice.
    Known {
        /// Which of them; all without it.
        name: Option<String>,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
}

/// A student, as far as it is known.
#[derive(Debug, Clone, Args)]
pub(crate) struct Described {
    /// Its size, in parameters.
    #[arg(long)]
    pub(crate) parameters: Option<u64>,
    /// Completion tokens of the teacher that it is to be trained on.
    #[arg(long)]
    pub(crate) tokens: Option<u64>,
    /// It will compete with the teacher.
    #[arg(long, conflicts_with = "not_competing")]
    pub(crate) competing: bool,
    /// It will not compete with the teacher.
    #[arg(long)]
    pub(crate) not_competing: bool,
    /// What it is for.
    #[arg(long, value_enum)]
    pub(crate) purpose: Option<Purpose>,
    /// What it is called.
    #[arg(long)]
    pub(crate) name: Option<String>,
}

/// What a student is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Purpose {
    /// To find something out and publish it.
    Research,
    /// To teach.
    Education,
    /// To sort or label things, without writing anything.
    Classification,
    /// For the own use of whoever trains it.
    Internal,
    /// To be offered to others.
    Product,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Grant {
    /// Ask for permission to distill a teacher; it permits nothing until it is approved.
    Ask {
        /// Name of the grant.
        grant: String,
        /// For whom.
        #[arg(long)]
        account: String,
        /// Which teacher.
        #[arg(long)]
        model: String,
        /// What the student is for.
        #[arg(long)]
        purpose: String,
        #[command(flatten)]
        permits: Permits,
        #[command(flatten)]
        site: Site,
    },
    /// Approve a grant that was asked for, as it was asked for or otherwise.
    Approve {
        /// Which grant.
        grant: String,
        #[command(flatten)]
        permits: Permits,
        #[command(flatten)]
        site: Site,
    },
    /// Refuse a grant that was asked for.
    Refuse {
        /// Which grant.
        grant: String,
        /// Why; the journal keeps it.
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        site: Site,
    },
    /// Permit an account to distill a teacher.
    Give {
        /// Name of the grant.
        grant: String,
        /// For whom.
        #[arg(long)]
        account: String,
        /// Which teacher.
        #[arg(long)]
        model: String,
        /// What the student is for.
        #[arg(long)]
        purpose: String,
        #[command(flatten)]
        permits: Permits,
        #[command(flatten)]
        site: Site,
    },
    /// Take a grant back.
    Revoke {
        /// Which grant.
        grant: String,
        #[command(flatten)]
        site: Site,
    },
    /// List grants.
    List {
        /// Only those of this account.
        #[arg(long)]
        account: Option<String>,
        /// As JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        site: Site,
    },
    /// Print a grant and what became of it.
    Show {
        /// Which grant.
        grant: String,
        /// As JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        site: Site,
    },
}

/// What a grant permits; what is not said is as the terms have it.
#[derive(Debug, Clone, Args)]
pub(crate) struct Permits {
    /// Largest student, in parameters.
    #[arg(long)]
    pub(crate) max_student: Option<u64>,
    /// Largest number of completion tokens.
    #[arg(long)]
    pub(crate) max_tokens: Option<u64>,
    /// The student may compete with the teacher.
    #[arg(long)]
    pub(crate) competing: bool,
    /// Days until it expires.
    #[arg(long)]
    pub(crate) days: Option<u32>,
    /// Which of the teacher's prices applies.
    #[arg(long, value_enum)]
    pub(crate) price_class: Option<PriceClass>,
    /// A price of its own, in dollars a million completion tokens.
    #[arg(long, conflicts_with = "price_class")]
    pub(crate) price: Option<String>,
    /// Permits more than the terms do, for this reason; the journal keeps it.
    #[arg(long, value_name = "REASON")]
    pub(crate) beyond_terms: Option<String>,
}

/// Which of a teacher's prices applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PriceClass {
    /// Of ordinary use.
    Standard,
    /// Of distillation.
    Distillation,
    /// Of what need not be answered at once.
    Batch,
}
