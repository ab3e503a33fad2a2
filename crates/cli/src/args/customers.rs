//! Administrators, accounts, keys, users and budgets.

use clap::{Args, Subcommand, ValueEnum};

use super::Site;

#[derive(Debug, Subcommand)]
pub(crate) enum Admin {
    /// Issue, list and revoke admin keys.
    #[command(subcommand)]
    Key(AdminKeys),
    /// Print the OpenAPI document of the admin API.
    Openapi,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AdminKeys {
    /// Issue an admin key; it is shown once.
    Issue {
        /// What its holder may do: `viewer`, `operator`, `steward` or `owner`.
        #[arg(long)]
        role: String,
        /// The only account that its holder sees.
        #[arg(long)]
        account: Option<String>,
        /// Whose it is, in words.
        #[arg(long)]
        note: Option<String>,
        /// Days until it expires.
        #[arg(long)]
        days: Option<u32>,
        #[command(flatten)]
        site: Site,
    },
    /// Show all admin keys, without their secrets.
    List {
        /// As JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        site: Site,
    },
    /// Revoke an admin key.
    Revoke {
        /// Its public part.
        key: String,
        #[command(flatten)]
        site: Site,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Account {
    /// Open an account.
    Open {
        /// Its name.
        account: String,
        /// The plan it is on.
        #[arg(long)]
        plan: String,
        /// How it pays, as your billing names it; only a keyed hash enters the journal.
        #[arg(long)]
        payment: Option<String>,
        /// All the money it may spend, in dollars.
        #[arg(long)]
        budget: Option<String>,
        /// The operator that it belongs to; a name that is new declares one.
        #[arg(long)]
        operator: Option<String>,
        #[command(flatten)]
        site: Site,
    },
    /// Put an account on another plan, or declare whose it is.
    Set {
        /// Which account.
        account: String,
        /// The plan it is on from now on.
        #[arg(long)]
        plan: Option<String>,
        /// The operator that it belongs to; a name that is new declares one.
        #[arg(long, conflicts_with = "no_operator")]
        operator: Option<String>,
        /// It belongs to no operator.
        #[arg(long)]
        no_operator: bool,
        #[command(flatten)]
        site: Site,
    },
    /// List accounts.
    List {
        /// Only those of this operator.
        #[arg(long)]
        operator: Option<String>,
        /// As JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        site: Site,
    },
    /// Close an account: its keys no longer hold.
    Close {
        /// Which account.
        account: String,
        #[command(flatten)]
        site: Site,
    },
    /// Set an account's budget for all time and show what is spent; `anbiq budget` knows all others.
    Budget {
        /// Which account.
        account: String,
        /// The new limit, in dollars; without it the budget is only shown.
        #[arg(long)]
        limit: Option<String>,
        #[command(flatten)]
        site: Site,
    },
    /// Destroy the key of an account's sealed texts: nobody can read them again, and the journal stays whole.
    Forget {
        /// Which account.
        account: String,
        #[command(flatten)]
        site: Site,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Key {
    /// Issue a key; it is shown once.
    Issue {
        /// For which account.
        account: String,
        /// Days until it expires.
        #[arg(long)]
        days: Option<u32>,
        /// What you call it.
        #[arg(long)]
        name: Option<String>,
        /// For which user of the account.
        #[arg(long)]
        user: Option<String>,
        /// Endpoints that it is good for, such as `chat,models`; without it for all.
        #[arg(long, value_enum, value_delimiter = ',', value_name = "ROUTES")]
        scope: Vec<Scope>,
        /// Models that it is good for; without it for all.
        #[arg(long, value_delimiter = ',', value_name = "MODELS")]
        model: Vec<String>,
        #[command(flatten)]
        site: Site,
    },
    /// Issue a key in the place of another, which holds for a while longer. Budgets go on.
    Rotate {
        /// The public part of the old one.
        key: String,
        /// How long the old one still holds, such as `24h`, `30m` or `0s`.
        #[arg(long, default_value = "24h")]
        grace: String,
        #[command(flatten)]
        site: Site,
    },
    /// List the keys of an account.
    List {
        /// Which account.
        account: String,
        /// As JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        site: Site,
    },
    /// Revoke a key.
    Revoke {
        /// Its public part.
        key: String,
        #[command(flatten)]
        site: Site,
    },
}

/// An endpoint that a key may be good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scope {
    /// `/v1/chat/completions`
    Chat,
    /// `/v1/completions`
    Completions,
    /// `/v1/embeddings`
    Embeddings,
    /// `/v1/responses`
    Responses,
    /// `/v1/models`
    Models,
}

#[derive(Debug, Subcommand)]
pub(crate) enum User {
    /// Add a user to an account.
    Add {
        /// Which account.
        account: String,
        /// The user, as you name them.
        user: String,
        /// Who that is.
        #[arg(long)]
        name: Option<String>,
        #[command(flatten)]
        site: Site,
    },
    /// Remove a user and revoke the keys of that user.
    Remove {
        /// Which account.
        account: String,
        /// Which user.
        user: String,
        #[command(flatten)]
        site: Site,
    },
    /// List the users of an account.
    List {
        /// Which account.
        account: String,
        /// As JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        site: Site,
    },
}

/// Whose budget.
#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Holder {
    /// Of this account.
    #[arg(long)]
    pub(crate) account: Option<String>,
    /// Of this key, by its public part, and of those that follow it by rotation.
    #[arg(long)]
    pub(crate) key: Option<String>,
    /// Of all accounts of this operator together.
    #[arg(long)]
    pub(crate) operator: Option<String>,
}

/// What a budget limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Unit {
    /// Money.
    Money,
    /// Tokens of prompts and answers together.
    Tokens,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Budget {
    /// Set a budget, or change its limit.
    Set {
        #[command(flatten)]
        holder: Holder,
        /// The time: `total`, `month`, `week`, `day`, or hours such as `6h`; of the calendar in UTC.
        #[arg(long, default_value = "total")]
        window: String,
        /// At most so many dollars.
        #[arg(long, required_unless_present = "tokens", conflicts_with = "tokens")]
        money: Option<String>,
        /// At most so many tokens, of prompts and answers together.
        #[arg(long)]
        tokens: Option<u64>,
        #[command(flatten)]
        site: Site,
    },
    /// Take a budget away.
    Remove {
        #[command(flatten)]
        holder: Holder,
        /// Its time.
        #[arg(long, default_value = "total")]
        window: String,
        /// What it limits.
        #[arg(long, value_enum)]
        unit: Unit,
        #[command(flatten)]
        site: Site,
    },
    /// List budgets and what is left of them.
    List {
        /// Only of this account.
        #[arg(long)]
        account: Option<String>,
        /// Only of this key.
        #[arg(long, conflicts_with = "account")]
        key: Option<String>,
        /// Only of this operator.
        #[arg(long, conflicts_with_all = ["account", "key"])]
        operator: Option<String>,
        /// As JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        site: Site,
    },
}
