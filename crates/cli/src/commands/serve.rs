//! `anbiq serve`: the gateway of an installation.

mod files;
mod reload;

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use anbiq_desk::{Administrator, Desk, DeskParts, Record, Reload};
use anbiq_domain::{Clock, Hand, SystemClock};
use anbiq_journal::{JournalError, Reader, Spool};
use anbiq_serve::{Gateway, GatewayParts, Secrets};
use anyhow::{Context, bail};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;

use self::reload::Configuration;
use super::Outcome;
use super::trace::canary::planted;
use crate::site::Site;
use crate::talk::Talk;
use crate::{args, notify};

pub(crate) async fn run(args: &args::Site, talk: Talk) -> anyhow::Result<Outcome> {
    let mut site = Site::load(&args.config)?;
    // Where the configuration names no collector, the environment may, as OpenTelemetry's convention has it.
    let collector = &mut site.config.serve.telemetry.otlp;
    if collector.is_none() {
        *collector = std::env::var("OTEL_EXPORTER_OTLP_ENDPOINT").ok().filter(|address| !address.is_empty());
    }
    let config = &mut site.config.serve;
    config.check()?;
    config.max_connections = files::connections(config.max_connections);
    let doors = Doors {
        customers: listen(config.listen).await?,
        operator: match config.admin_listen {
            Some(address) => Some(listen(address).await?),
            None => None,
        },
    };
    let signals = Signals { stop: Box::pin(interrupted()?), reload: Some(signal(SignalKind::hangup())?) };
    serve(&site, doors, Arc::new(SystemClock), signals, talk).await?;
    talk.say("stopped: every answer is journalled, the journal is sealed");
    Ok(Outcome::Fine)
}

/// Where a gateway is reached.
#[derive(Debug)]
pub(crate) struct Doors {
    /// By whoever has a key.
    pub(crate) customers: TcpListener,
    /// By whoever operates it, where that has a door of its own.
    pub(crate) operator: Option<TcpListener>,
}

/// What a running gateway listens for.
pub(crate) struct Signals {
    /// Ready when it is to stop.
    pub(crate) stop: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// Comes whenever it is to read its configuration again, where it is to do that.
    pub(crate) reload: Option<Signal>,
}

async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
}

/// Serves until it is told to stop, then lets requests under way end and seals the journal.
pub(crate) async fn serve(
    site: &Site,
    doors: Doors,
    clock: Arc<dyn Clock>,
    signals: Signals,
    talk: Talk,
) -> anyhow::Result<()> {
    let models = site.models()?;
    let ledger = site.ledger().await?;
    let journal = match site.journal() {
        Err(JournalError::Locked { .. }) => bail!(
            "another program writes the journal `{}`\nhint: stop the other gateway, or give this one its own journal",
            site.config.journal.path.display()
        ),
        other => other?,
    };
    let administrator = Administrator::new(ledger.clone(), Record::Journal(journal.clone()), &site.sketch_key()?);
    site.declare(&ledger, &administrator, clock.now()).await?;
    let configuration = Arc::new(Configuration::of(site, &ledger, &administrator, &clock)?);
    let (epoch, coin) = site.next_epoch()?;
    let gateway = Gateway::open(GatewayParts {
        config: site.config.serve.clone(),
        ledger: ledger.clone(),
        journal: journal.clone(),
        models,
        planted: planted(&site.config.canaries)?,
        secrets: Secrets { coin, epoch, sketch_key: site.sketch_key()?, texts: Some(site.text_keys()) },
        clock: Arc::clone(&clock),
        spool: Some(Spool::new(site.spool())),
    })
    .await?;
    gateway.recall(&Reader::open(&site.config.journal.path)?).await?;
    let Doors { customers, operator } = doors;
    talk.say(&format!("serving on http://{}/v1; interrupt to stop", customers.local_addr()?));
    // Dropped at the end, it closes the operator's door.
    let mut operated = JoinSet::new();
    if let Some(listener) = operator {
        talk.say(&format!("metrics, probes and the admin API on http://{}", listener.local_addr()?));
        let desk = Desk::new(DeskParts {
            ledger: ledger.clone(),
            journal: journal.clone(),
            administrator,
            models: site.model_facts(),
            clock,
            reload: Arc::<Configuration>::clone(&configuration),
        });
        operated.spawn(anbiq_serve::operate(listener, gateway.clone(), anbiq_desk::router(&desk)));
    }
    let Signals { stop, reload } = signals;
    let reloading = reload.map(|signal| tokio::spawn(reload_on(signal, configuration, talk)));
    notify::tell("READY=1");
    let stop = async {
        stop.await;
        notify::tell("STOPPING=1");
    };
    let served = anbiq_serve::run(customers, gateway, stop).await;
    if let Some(reloading) = reloading {
        reloading.abort();
        // Its parts of ledger and journal are given back before those are closed.
        let _ = reloading.await;
    }
    drop(operated);
    ledger.close().await;
    let sealed = tokio::task::spawn_blocking(|| journal.close()).await?;
    served?;
    sealed?;
    Ok(())
}

/// Reads the configuration again with every signal; what is wrong with it is told, and what held before holds on.
async fn reload_on(mut signal: Signal, configuration: Arc<Configuration>, talk: Talk) {
    while signal.recv().await.is_some() {
        match configuration.reload(Hand::Console).await {
            Ok(reloaded) => talk.say(&reload::describe(&reloaded)),
            Err(error) => tracing::error!(%error, "the configuration was not read again"),
        }
    }
}

/// Ready when the program is asked to stop, by a person or by the system.
pub(super) fn interrupted() -> anyhow::Result<impl Future<Output = ()> + Send + 'static> {
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
    })
}
