use anbiq_domain::{AccountId, GrantId, Money, OperatorId, Permission, TermsRef, Timestamp};
use serde::{Deserialize, Serialize};

use crate::Config;
use crate::alarm::{Alarm, Leak};

/// What `watch` found. Stable JSON; everything a dossier shows of it stands here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Version of this shape.
    pub format: u32,
    /// Whether the journal's times are simulated.
    pub simulated: bool,
    /// What must be kept in mind when reading it.
    pub notes: Vec<String>,
    /// Time of the first exchange.
    pub first: Timestamp,
    /// Time of the last exchange.
    pub last: Timestamp,
    /// Accounts seen.
    pub accounts: u64,
    /// Exchanges read.
    pub exchanges: u64,
    /// Those of them that other systems' logs tell of: no journal has them, so nothing can be proved of them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub imported: u64,
    /// Requests that were refused.
    pub refusals: u64,
    /// Looks that were taken: moments at which accounts were grouped and alarms given.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub looks: u64,
    /// Nats that the evidence of a pair had to exceed.
    pub threshold: f64,
    /// Operators: campaigns first, then what needs review, then grants, then the rest by exchanges. Unremarkable ones
    /// of one account are listed up to [`Config::listed_singles`].
    pub operators: Vec<Operator>,
    /// Unremarkable operators of one account that are not listed.
    pub unlisted: u64,
    /// What was assumed.
    pub config: Config,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Report {
    /// The operators whose standing is a campaign.
    pub fn campaigns(&self) -> impl Iterator<Item = (&Operator, &Campaign)> {
        self.operators.iter().filter_map(|operator| match &operator.standing {
            Standing::Campaign(campaign) => Some((operator, campaign.as_ref())),
            _ => None,
        })
    }

    /// Operators and their accounts, as `trace` wants them.
    pub fn groups(&self) -> Vec<(OperatorId, Vec<AccountId>)> {
        let accounts = |operator: &Operator| operator.accounts.iter().map(|member| member.account.clone()).collect();
        self.operators.iter().map(|operator| (operator.id.clone(), accounts(operator))).collect()
    }
}

/// The person or firm behind one or more accounts, as inferred.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Operator {
    /// Its name: made of its first account, so that it stays when accounts join.
    pub id: OperatorId,
    /// Its accounts, sorted, and why each belongs.
    pub accounts: Vec<Member>,
    /// Mean certainty of its members.
    pub certainty: f64,
    /// The heaviest links between its accounts.
    pub edges: Vec<Edge>,
    /// What remains linked without each kind of evidence.
    pub survival: Vec<Survival>,
    /// Exchanges of all its accounts.
    pub exchanges: u64,
    /// Prompt tokens of all its accounts.
    pub prompt_tokens: u64,
    /// Tokens that it was served.
    pub output_tokens: u64,
    /// What it was charged.
    pub cost: Money,
    /// Exchanges that were drawn with a twin: what `trace` can work with.
    pub twinned: u64,
    /// Time of its first exchange.
    pub first: Timestamp,
    /// Time of its last exchange.
    pub last: Timestamp,
    /// What its stream looks like.
    pub purpose: Purpose,
    /// What follows.
    pub standing: Standing,
    /// How far things have come, and since when; absent where no looks are taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alarm: Option<Alarm>,
}

/// One account of an operator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// Which account, with its own figures.
    #[serde(flatten)]
    pub facts: Account,
    /// Mean nats that link it to the other accounts, above the threshold.
    pub weight: f64,
    /// How sure it is that it belongs: the logistic function of that weight.
    pub certainty: f64,
    /// Why it belongs, heaviest first; none for an operator of one account.
    pub reasons: Vec<Reason>,
}

impl std::ops::Deref for Member {
    type Target = Account;
    fn deref(&self) -> &Account {
        &self.facts
    }
}

/// The figures of one account.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Account {
    /// Which.
    pub account: AccountId,
    /// When it was opened, where the journal says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opened: Option<Timestamp>,
    /// Its exchanges.
    pub exchanges: u64,
    /// Tokens that it was served.
    pub output_tokens: u64,
    /// Its exchanges an hour, from its first to its last.
    pub per_hour: f64,
}

/// One piece of evidence in words.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reason {
    /// Its kind.
    pub channel: Channel,
    /// In words.
    pub words: String,
    /// Mean nats over the other accounts of the operator.
    pub weight: f64,
}

/// A kind of evidence that two accounts are of one operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Channel {
    /// A shared means of payment.
    Payment,
    /// Shared networks.
    Network,
    /// Shared client software and request settings.
    Client,
    /// Opened close together.
    SignUp,
    /// Prompts from one distribution.
    Content,
    /// Fewer common prompts than chance would give: a list is being divided.
    Queue,
    /// The same rate, spread over the day, and regularity.
    Rhythm,
    /// Where one is refused, the other goes on within seconds.
    HandOver,
    /// They went over to a new model together.
    Pivot,
}

impl Channel {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Payment,
        Self::Network,
        Self::Client,
        Self::SignUp,
        Self::Content,
        Self::Queue,
        Self::Rhythm,
        Self::HandOver,
        Self::Pivot,
    ];

    /// Channels of one family can be wrong for one reason, so they count as one signal.
    pub const fn family(self) -> &'static str {
        match self {
            Self::Payment => "payment",
            Self::Network => "network",
            Self::Client => "client",
            Self::SignUp => "sign-up",
            Self::Content | Self::Queue => "prompts",
            Self::Rhythm => "rhythm",
            Self::HandOver => "hand-over",
            Self::Pivot => "new model",
        }
    }

    /// The channel under which all of its family are counted.
    pub(crate) const fn head(self) -> Self {
        match self {
            Self::Queue => Self::Content,
            other => other,
        }
    }

    /// Does it speak of how an account came to be, rather than of its use? What many accounts have in common of that, one cause explains.
    pub(crate) const fn is_fact(self) -> bool {
        matches!(self, Self::Payment | Self::Network | Self::Client | Self::SignUp | Self::Pivot)
    }

    /// The name for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Content => "content",
            Self::Queue => "work queue",
            other => other.family(),
        }
    }

    /// Fewest and most nats it may give: no channel reaches far alone.
    pub(crate) const fn bounds(self) -> (f64, f64) {
        match self {
            Self::Payment => (-0.5, 6.0),
            Self::Network => (-0.5, 6.0),
            Self::Client => (-0.5, 1.5),
            Self::SignUp => (-1.5, 3.5),
            Self::Content => (-1.5, 3.0),
            Self::Queue => (-1.0, 2.0),
            // Below the minimum of a signal: people of one kind keep the same hours.
            Self::Rhythm => (-0.9, 0.9),
            Self::HandOver => (-0.5, 3.0),
            Self::Pivot => (-0.5, 2.0),
        }
    }
}

/// A link between two accounts of an operator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Edge {
    /// The one account.
    pub a: AccountId,
    /// The other.
    pub b: AccountId,
    /// Log-likelihood ratio, in nats, before the prior odds.
    pub llr: f64,
    /// What it is made of.
    pub channels: Vec<(Channel, f64)>,
}

/// What remains of an operator when one kind of evidence is left out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Survival {
    /// The kind left out.
    pub without: String,
    /// Share of the accounts that still are linked to another one.
    pub linked: f64,
    /// Share of the accounts in the largest piece.
    pub largest: f64,
}

/// A kind of use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Archetype {
    /// People in conversation.
    Chat,
    /// An application with one template.
    Template,
    /// An application with several templates.
    Templates,
    /// A fixed set of questions, asked again and again.
    Evaluation,
    /// An application that spreads its load over keys, day and night.
    Pool,
    /// Many items, short answers.
    Labelling,
    /// Answers gathered to train on.
    Harvest,
    /// Nothing known, or too little to say.
    Unknown,
}

impl Archetype {
    /// The name for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Template => "application with one template",
            Self::Templates => "application with several templates",
            Self::Evaluation => "evaluation",
            Self::Pool => "application over a pool of keys",
            Self::Labelling => "batch labelling",
            Self::Harvest => "harvest",
            Self::Unknown => "unknown",
        }
    }
}

/// What an operator's pooled stream looks like.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Purpose {
    /// The best fit.
    pub archetype: Archetype,
    /// Nats by which a harvest fits better than the best honest archetype.
    pub score: f64,
    /// How well each archetype fits, best first.
    pub fits: Vec<Fit>,
    /// What speaks for a harvest, heaviest first.
    pub reasons: Vec<String>,
    /// What speaks against it, heaviest first.
    pub counter: Vec<String>,
}

/// How well an archetype fits, in nats above a use about which nothing is known.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Fit {
    /// The archetype.
    pub archetype: Archetype,
    /// The nats.
    pub nats: f64,
}

/// What follows for an operator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "standing", rename_all = "snake_case")]
pub enum Standing {
    /// All its accounts are covered by a grant and within it.
    WithinGrant {
        /// The grants.
        grants: Vec<GrantId>,
        /// Completion tokens taken under them.
        used: u64,
        /// Completion tokens they allow, where they set a bound.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        allowed: Option<u64>,
    },
    /// A harvest over many accounts, against the terms.
    Campaign(Box<Campaign>),
    /// A person should look; nobody is accused.
    Review {
        /// Why.
        why: Vec<String>,
    },
    /// Nothing to see.
    Unremarkable,
}

impl Standing {
    /// The name for people.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::WithinGrant { .. } => "within its grant",
            Self::Campaign(_) => "campaign",
            Self::Review { .. } => "review",
            Self::Unremarkable => "unremarkable",
        }
    }
}

/// What is reported of a campaign besides the operator's figures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Campaign {
    /// The terms that are breached.
    pub terms: TermsRef,
    /// What they say about distillation.
    pub permission: Permission,
    /// The breach in words.
    pub breach: String,
    /// When it began: its first exchange.
    pub started: Timestamp,
    /// Exchanges and tokens over time.
    pub timeline: Vec<Bucket>,
    /// What was gone at the first alarm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaked: Option<Leak>,
    /// What speaks against the finding.
    pub counter: Vec<String>,
}

/// Use within one stretch of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bucket {
    /// When it begins.
    pub from: Timestamp,
    /// How long it is, in milliseconds.
    pub milliseconds: i64,
    /// Exchanges in it.
    pub exchanges: u64,
    /// Tokens served in it.
    pub output_tokens: u64,
}
