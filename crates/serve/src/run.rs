use std::sync::Arc;
use std::time::Duration;

use anbiq_domain::Entry;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::door;
use crate::gateway::Shared;
use crate::{Gateway, ServeError, charges, exchange, telemetry, twins};

/// How often abandoned reservations are looked for.
const EXPIRY_EVERY: Duration = Duration::from_secs(10);

/// How often the spool is looked into.
const INTAKE_EVERY: Duration = Duration::from_secs(1);

/// Most connections of whoever operates the gateway.
const OPERATORS: u32 = 64;

/// How long requests are given to write themselves into the journal when they were told to end.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// Serves on `listener` until `shutdown` ends.
///
/// Then no new request is taken; those under way are given `drain_ms` to end, and are ended and journalled as failed
/// if they do not. Last, the journal records that the gateway closed.
///
/// # Errors
/// The journal does not take the last entry.
pub async fn run(
    listener: TcpListener,
    gateway: Gateway,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ServeError> {
    let expiry = tokio::spawn(expire_reservations(Arc::clone(&gateway.0)));
    let intake = tokio::spawn(take_in_spool(Arc::clone(&gateway.0)));
    let telling = tokio::spawn(charges::keep_told(Arc::clone(&gateway.0)));
    tokio::spawn(tell_collector(Arc::clone(&gateway.0)));
    let deferred = tokio::spawn(twins::work(Arc::clone(&gateway.0)));
    let (stopping, stopped) = oneshot::channel();
    let draining = Arc::clone(&gateway.0);
    let serving = door::open(listener, gateway.router(), (&gateway.0.config).into(), async move {
        shutdown.await;
        draining.drain();
        let _ = stopping.send(());
    });
    let gateway = gateway.0;
    let grace = Duration::from_millis(gateway.config.drain_ms);
    let mut grace_over = std::pin::pin!(async move {
        // Where the sender is gone the other branch has ended.
        let _ = stopped.await;
        tokio::time::sleep(grace).await;
    });
    let in_time = tokio::select! {
        () = serving => true,
        () = &mut grace_over => false,
    };
    gateway.drain();
    deferred.abort();
    if in_time {
        // Twins that are slower than what was served have the same time: see `twins`.
        tokio::select! {
            () = gateway.twins_ended() => {}
            () = &mut grace_over => {}
        }
    }
    let _ = gateway.abort.send(true);
    if tokio::time::timeout(LAST_WORDS, gateway.in_flight.acquire_many(gateway.config.max_in_flight)).await.is_err() {
        tracing::error!("requests were still under way when the gateway stopped");
    }
    if tokio::time::timeout(LAST_WORDS, gateway.twins_ended()).await.is_err() {
        tracing::error!("twins were still under way when the gateway stopped");
    }
    if tokio::time::timeout(LAST_WORDS, gateway.uncharged.ended()).await.is_err() {
        tracing::error!("not everything was charged when the gateway stopped; the next one will do it");
    }
    expiry.abort();
    telling.abort();
    if let Some(telemetry) = &gateway.telemetry {
        telemetry.flush(telemetry::now()).await;
    }
    // Aborting is safe anywhere: an entry leaves the spool only after the journal has it.
    intake.abort();
    gateway.take_in().await?;
    gateway.record(&Entry::Closed { at: gateway.clock.now() }).await?;
    charges::tell(&gateway, 0).await;
    Ok(())
}

/// Serves `/livez`, `/readyz` and `/metrics` of `gateway` on `listener`, and `beside` them what else is for whoever
/// operates it, until the future is dropped: who is told that
/// a gateway stops wants to see how it does.
///
/// # Errors
/// None so far: a listener that fails is tried again.
pub async fn operate(listener: TcpListener, gateway: Gateway, beside: axum::Router) -> Result<(), ServeError> {
    let limits = door::Limits { connections: OPERATORS, ..(&gateway.0.config).into() };
    door::open(listener, gateway.admin_router().merge(beside), limits, std::future::pending()).await;
    Ok(())
}

async fn expire_reservations(gateway: Shared) {
    let mut ticks = tokio::time::interval(EXPIRY_EVERY);
    loop {
        ticks.tick().await;
        match gateway.ledger.expire(gateway.clock.now()).await {
            Ok(0) => {}
            Ok(count) => {
                gateway.metrics.expired(count);
                tracing::warn!(count, "abandoned reservations expired");
            }
            Err(error) => tracing::error!(code = error.code(), %error, "reservations could not be expired"),
        }
    }
}

async fn tell_collector(gateway: Shared) {
    if let Some(telemetry) = &gateway.telemetry {
        let mut abort = gateway.abort.subscribe();
        let interval = Duration::from_millis(gateway.config.telemetry.interval_ms);
        telemetry.run(interval, exchange::aborted(&mut abort)).await;
    }
}

async fn take_in_spool(gateway: Shared) {
    let mut ticks = tokio::time::interval(INTAKE_EVERY);
    loop {
        ticks.tick().await;
        if let Err(error) = gateway.take_in().await {
            tracing::error!(code = error.code(), %error, "changes of an administrator could not be journalled");
        }
    }
}
