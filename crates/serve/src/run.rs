use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anbiq_domain::Entry;
use axum::serve::ListenerExt;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::gateway::Shared;
use crate::{Gateway, ServeError, twins};

/// How often abandoned reservations are looked for.
const EXPIRY_EVERY: Duration = Duration::from_secs(10);

/// How often the spool is looked into.
const INTAKE_EVERY: Duration = Duration::from_secs(1);

/// How long requests are given to write themselves into the journal when they were told to end.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// Serves on `listener` until `shutdown` ends.
///
/// Then no new request is taken; those under way are given `drain_ms` to end, and are ended and journalled as failed
/// if they do not. Last, the journal records that the gateway closed.
///
/// # Errors
/// The listener fails, or the journal does not take the last entry.
pub async fn run(
    listener: TcpListener,
    gateway: Gateway,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ServeError> {
    let expiry = tokio::spawn(expire_reservations(Arc::clone(&gateway.0)));
    let intake = tokio::spawn(take_in_spool(Arc::clone(&gateway.0)));
    let deferred = tokio::spawn(twins::work(Arc::clone(&gateway.0)));
    let (stopping, stopped) = oneshot::channel();
    let draining = Arc::clone(&gateway.0);
    // Small writes are what a stream is made of.
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
    let service = gateway.router().into_make_service_with_connect_info::<SocketAddr>();
    let serving = axum::serve(listener, service).with_graceful_shutdown(async move {
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
    let (served, in_time) = tokio::select! {
        served = serving.into_future() => (served, true),
        () = &mut grace_over => (Ok(()), false),
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
    expiry.abort();
    // Aborting is safe anywhere: an entry leaves the spool only after the journal has it.
    intake.abort();
    gateway.take_in().await?;
    gateway.record(&Entry::Closed { at: gateway.clock.now() }).await?;
    Ok(served?)
}

/// Serves `/livez`, `/readyz` and `/metrics` of `gateway` on `listener`, until the future is dropped: who is told that
/// a gateway stops wants to see how it does.
///
/// # Errors
/// The listener fails.
pub async fn operate(listener: TcpListener, gateway: Gateway) -> Result<(), ServeError> {
    Ok(axum::serve(listener, gateway.admin_router()).await?)
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

async fn take_in_spool(gateway: Shared) {
    let mut ticks = tokio::time::interval(INTAKE_EVERY);
    loop {
        ticks.tick().await;
        if let Err(error) = gateway.take_in().await {
            tracing::error!(code = error.code(), %error, "changes of an administrator could not be journalled");
        }
    }
}
