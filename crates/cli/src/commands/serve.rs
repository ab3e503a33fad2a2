//! `anbiq serve`: the gateway of an installation.

use std::sync::Arc;

use anbiq_domain::{Clock, SystemClock};
use anbiq_journal::{JournalError, Reader};
use anbiq_serve::admin::{Administrator, Record};
use anbiq_serve::{Gateway, GatewayParts, Secrets, Spool};
use anyhow::{Context, bail};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use super::Outcome;
use crate::args;
use crate::site::Site;
use crate::talk::Talk;

pub(crate) async fn run(args: &args::Site, talk: Talk) -> anyhow::Result<Outcome> {
    let site = Site::load(&args.config)?;
    let listen = site.config.serve.listen;
    let listener = TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
    serve(&site, listener, Arc::new(SystemClock), interrupted()?, talk).await?;
    talk.say("stopped: every answer is journalled, the journal is sealed");
    Ok(Outcome::Fine)
}

/// Serves until `stop` is ready, then lets requests under way end and seals the journal.
pub(crate) async fn serve(
    site: &Site,
    listener: TcpListener,
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
        secrets: Secrets { coin, epoch, sketch_key: site.sketch_key()? },
        clock,
        spool: Some(Spool::new(site.spool())),
    })
    .await?;
    gateway.recall(&Reader::open(&site.config.journal.path)?)?;
    talk.say(&format!("serving on http://{}/v1; interrupt to stop", listener.local_addr()?));
    let served = anbiq_serve::run(listener, gateway, stop).await;
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
