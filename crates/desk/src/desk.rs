use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use anbiq_domain::{Clock, Hand};
use anbiq_journal::Journal;
use anbiq_ledger::Ledger;
use serde::Serialize;
use tokio::sync::{Mutex, Semaphore};

use crate::Administrator;

/// Most requests under way at a time; one more is refused.
const MOST: usize = 64;

/// What a desk is made of.
#[derive(Debug)]
pub struct DeskParts {
    /// What is administered.
    pub ledger: Ledger,
    /// Whose state is shown.
    pub journal: Journal,
    /// Who makes the changes.
    pub administrator: Administrator,
    /// The models that the gateway serves.
    pub models: Vec<ModelFacts>,
    /// Where the time comes from.
    pub clock: Arc<dyn Clock>,
    /// What reads the configuration again.
    pub reload: Arc<dyn Reload>,
}

/// A model that the gateway serves, as its administrator sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ModelFacts {
    /// The name that requests use.
    pub model: String,
    /// Is it computed in this process?
    pub embedded: bool,
    /// How many servers answer for it.
    pub servers: usize,
}

/// Reads the configuration of an installation again.
pub trait Reload: Send + Sync + fmt::Debug {
    /// Checks the whole configuration first; where anything is wrong with it nothing is changed.
    fn reload(&self, by: Hand) -> Reloading<'_>;
}

/// A configuration being read again.
pub type Reloading<'a> = Pin<Box<dyn Future<Output = Result<Reloaded, ReloadError>> + Send + 'a>>;

/// What a configuration that was read again changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Reloaded {
    /// Plans that were put.
    pub plans: Vec<String>,
    /// Models whose prices were set.
    pub prices: Vec<String>,
    /// Terms that were issued, as `id version N`.
    pub terms: Vec<String>,
    /// Sections that differ from those the gateway started with and that hold only after a restart.
    pub after_restart: Vec<String>,
}

/// Why a configuration was not taken; what held before holds on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReloadError {
    /// Something is wrong with it.
    #[error("{0}")]
    Invalid(String),
    /// It is right, but a part of it could not be put into the ledger or the journal.
    #[error("{0}")]
    Failed(String),
}

/// An installation that is administered over HTTP. Clones are the same desk.
#[derive(Debug, Clone)]
pub struct Desk(pub(crate) Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) ledger: Ledger,
    pub(crate) journal: Journal,
    pub(crate) administrator: Administrator,
    pub(crate) models: Vec<ModelFacts>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) reload: Arc<dyn Reload>,
    /// Held by whoever changes something: a change under a condition must not meet another between the two.
    pub(crate) changing: Mutex<()>,
    /// One permit for each request under way.
    pub(crate) places: Arc<Semaphore>,
}

impl Desk {
    /// A desk of these parts.
    pub fn new(parts: DeskParts) -> Self {
        let DeskParts { ledger, journal, administrator, mut models, clock, reload } = parts;
        models.sort_by(|one, other| one.model.cmp(&other.model));
        let (changing, places) = (Mutex::new(()), Arc::new(Semaphore::new(MOST)));
        Self(Arc::new(Inner { ledger, journal, administrator, models, clock, reload, changing, places }))
    }
}
