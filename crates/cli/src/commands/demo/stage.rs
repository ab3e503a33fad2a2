//! The stage of the case: a gateway, its accounts and the traffic that they make.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anbiq_desk::{Administrator, Record};
use anbiq_distill::Recipe;
use anbiq_domain::{AccountId, Clock, Conditions, Grant, ManualClock, Money, Terms, Timestamp};
use anbiq_lab::corpus::{Corpus, Sizes};
use anbiq_lab::play::{Performance, PlayConfig, play};
use anbiq_lab::world::{Group, Scale, World};
use anbiq_ledger::NewAccount;
use anbiq_secret::Secret;
use anyhow::{Context, ensure};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::Folder;
use crate::commands::serve;
use crate::site::{Site, read_json};
use crate::talk::Talk;

const CONFIGURATION: &str = include_str!("../../../files/demo/anbiq.toml");
const TERMS: &str = include_str!("../../../files/demo/terms.json");
const RECIPE: &str = include_str!("../../../files/demo/recipe.toml");
const SUSPECT: &str = include_str!("../../../files/demo/suspect.toml");
const LICENSED: &str = include_str!("../../../files/demo/licensed.toml");

/// What every account may spend; no honest use of the demonstration comes near it.
const BUDGET: Money = Money::from_dollars(5);

/// Longest wait for the gateway to stop.
const PATIENCE: Duration = Duration::from_secs(60);

/// A gateway with its accounts, ready to be played on.
#[derive(Debug)]
pub(super) struct Stage {
    site: Site,
    keys: HashMap<AccountId, Secret<String>>,
    clock: ManualClock,
    seed: u64,
}

/// The answers that the distillers went away with.
#[derive(Debug)]
pub(super) struct Harvests {
    world: World,
    performance: Performance,
}

impl Stage {
    /// Writes teacher, corpus and configuration; opens the accounts of `world`, with keys, terms, budgets and the grant.
    pub(super) async fn set(folder: &Folder, world: &World, seed: u64, scale: Scale) -> anyhow::Result<Self> {
        anbiq_lab::teacher::write_teacher(&folder.at("teacher"))?;
        Corpus::new(seed).write_files(&folder.at("corpus"), sizes(scale))?;
        std::fs::write(folder.at("anbiq.toml"), CONFIGURATION)?;
        std::fs::write(folder.at("terms.json"), TERMS)?;
        let site = Site::load(&folder.at("anbiq.toml"))?;
        let mut stage = Self { site, keys: HashMap::new(), clock: ManualClock::at(world.start), seed };
        stage.open_accounts(folder, world).await?;
        Ok(stage)
    }

    async fn open_accounts(&mut self, folder: &Folder, world: &World) -> anyhow::Result<()> {
        let (ledger, journal) = (self.site.ledger().await?, self.site.journal()?);
        let administrator =
            Administrator::new(ledger.clone(), Record::Journal(journal.clone()), &self.site.sketch_key()?);
        // The terms stand before the first account accepts them.
        let first = world.accounts.iter().map(|account| account.opened).min().unwrap_or(world.start);
        self.site.declare(&ledger, &administrator, first).await?;
        let terms: Terms = read_json(&folder.at("terms.json"))?;
        let mut accounts: Vec<_> = world.accounts.iter().collect();
        accounts.sort_by_key(|account| account.opened);
        for spec in accounts {
            let account = NewAccount {
                id: spec.id.clone(),
                plan: spec.plan.clone(),
                payment: spec.payment.clone(),
                opened: spec.opened,
            };
            administrator.open_account(&account).await?;
            administrator.accept_terms(&spec.id, &terms.reference(), spec.opened).await?;
            ledger.set_budget(&spec.id, BUDGET).await?;
            if spec.group == Group::Licensee {
                let grant = grant(&spec.id, &terms, spec.opened)?;
                administrator.give_grant(&grant).await?;
                std::fs::write(folder.at("grant.json"), serde_json::to_vec_pretty(&grant)?)?;
            }
            let (_, key) = ledger.issue_key(&spec.id, None, spec.opened).await?;
            self.keys.insert(spec.id.clone(), key);
        }
        ledger.close().await;
        tokio::task::spawn_blocking(|| journal.close()).await??;
        Ok(())
    }

    /// Starts the gateway, plays `world` on it over HTTP, and stops it.
    pub(super) async fn play(&self, world: World, talk: Talk) -> anyhow::Result<Harvests> {
        talk.say(&format!(
            "  {} accounts, {} requests; {}",
            world.accounts.len(),
            world.calls.len(),
            world.composed_from
        ));
        let listener = TcpListener::bind(self.site.config.serve.listen).await.context("cannot listen on loopback")?;
        let base_url = format!("http://{}/v1", listener.local_addr()?);
        let (stop, stopped) = oneshot::channel::<()>();
        let until = async move {
            // A stage that is gone stops its gateway too.
            let _ = stopped.await;
        };
        let site = self.site.clone();
        let clock: Arc<dyn Clock> = Arc::new(self.clock.clone());
        let doors = serve::Doors { customers: listener, operator: None };
        let signals = serve::Signals { stop: Box::pin(until), reload: None };
        let gateway =
            tokio::spawn(async move { serve::serve(&site, doors, clock, signals, Talk::new(true, false)).await });

        let mut step = talk.step("playing the traffic over HTTP", world.calls.len() as u64);
        let config = PlayConfig::new(base_url, "still", self.keys.clone());
        let performance = play(&world, &config, &mut |progress| step.reach(progress.done as u64)).await;
        if let Some(last) = world.calls.last() {
            self.clock.advance_to(last.at.plus_milliseconds(1));
        }
        let _ = stop.send(());
        tokio::time::timeout(PATIENCE, gateway).await.context("the gateway did not stop")???;
        let performance = performance?;
        let failures = performance.failures();
        ensure!(failures.is_empty(), "requests were not answered: {failures:?}");
        step.finish("every answer journalled before it ended");
        Ok(Harvests { world, performance })
    }

    /// The recipe of the student `name`, written to the folder for whoever wants to run it again.
    pub(super) fn recipe(&self, folder: &Folder, world: &World, name: &str) -> anyhow::Result<Recipe> {
        let more = match name {
            "suspect" => SUSPECT,
            "licensed" => LICENSED,
            _ => "",
        };
        let licensee = world.group(Group::Licensee).next().map_or("", |account| account.id.as_str());
        let text = [RECIPE, more].concat();
        let text =
            text.replace("@NAME@", name).replace("@SEED@", &self.seed.to_string()).replace("@ACCOUNT@", licensee);
        let path = folder.at("recipes").join(format!("{name}.toml"));
        std::fs::write(&path, text).with_context(|| format!("cannot write `{}`", path.display()))?;
        Ok(Recipe::load(&path)?)
    }

    /// The clock of the simulated world.
    pub(super) fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(self.clock.clone())
    }
}

impl Harvests {
    /// Writes what each distiller collected as a capture.
    pub(super) fn write(&self, folder: &Folder) -> anyhow::Result<()> {
        for (group, name) in [(Group::Licensee, "licensed"), (Group::Operator, "suspect")] {
            let path = folder.at("captures").join(format!("{name}.jsonl"));
            self.performance.write_capture(&self.world, group, &path)?;
        }
        Ok(())
    }
}

/// Documents for the students, and to measure them on.
const fn sizes(scale: Scale) -> Sizes {
    match scale {
        Scale::Full => Sizes { corpus: 40_000, held_out: 500, tasks: 500 },
        Scale::Quick => Sizes { corpus: 15_000, held_out: 300, tasks: 300 },
    }
}

fn grant(account: &AccountId, terms: &Terms, given: Timestamp) -> anyhow::Result<Grant> {
    Ok(Grant {
        id: "grant-1".parse()?,
        account: account.clone(),
        terms: terms.reference(),
        purpose: "a small assistant for one classroom".to_owned(),
        conditions: Conditions { max_output_tokens: Some(500_000), ..terms.conditions.clone() },
        given,
        expires: None,
    })
}
