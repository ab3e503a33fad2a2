//! `anbiq serve`: the gateway of an installation.

use std::net::SocketAddr;
use std::sync::Arc;

use anbiq_domain::{Clock, SystemClock};
use anbiq_journal::{JournalError, Reader};
use anbiq_serve::admin::{Administrator, Record};
use anbiq_serve::{Gateway, GatewayParts, Secrets, Spool};
use anyhow::{Context, bail};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

use super::Outcome;
use crate::args;
use crate::site::Site;
use crate::talk::Talk;

pub(crate) async fn run(args: &args::Site, talk: Talk) -> anyhow::Result<Outcome> {
    let site = Site::load(&args.config)?;
    let config = &site.config.serve;
    config.check()?;
    let doors = Doors {
        customers: listen(config.listen).await?,
        operator: match config.admin_listen {
            Some(address) => Some(listen(address).await?),
            None => None,
        },
    };
    serve(&site, doors, Arc::new(SystemClock), interrupted()?, talk).await?;
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

async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
}

/// Serves until `stop` is ready, then lets requests under way end and seals the journal.
pub(crate) async fn serve(
    site: &Site,
    doors: Doors,
    clock: Arc<dyn Clock>,
    stop: impl Future<Output = ()> + Send + 'static,
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
    let (epoch, coin) = site.next_epoch()?;
    let gateway = Gateway::open(GatewayParts {
        config: site.config.serve.clone(),
        ledger: ledger.clone(),
        journal: journal.clone(),
        models,
        secrets: Secrets { coin, epoch, sketch_key: site.sketch_key()?, texts: Some(site.text_keys()) },
        clock,
        spool: Some(Spool::new(site.spool())),
    })
    .await?;
    gateway.recall(&Reader::open(&site.config.journal.path)?)?;
    let Doors { customers, operator } = doors;
    talk.say(&format!("serving on http://{}/v1; interrupt to stop", customers.local_addr()?));
    // Dropped at the end, it closes the operator's door.
    let mut operated = JoinSet::new();
    if let Some(listener) = operator {
        talk.say(&format!("metrics and probes on http://{}", listener.local_addr()?));
        operated.spawn(anbiq_serve::operate(listener, gateway.clone()));
    }
    let served = anbiq_serve::run(customers, gateway, stop).await;
    drop(operated);
    ledger.close().await;
    let sealed = tokio::task::spawn_blocking(|| journal.close()).await?;
    served?;
    sealed?;
    Ok(())
}

/// Ready when the program is asked to stop, by a person or by the system.
fn interrupted() -> anyhow::Result<impl Future<Output = ()> + Send + 'static> {
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
    })
}
