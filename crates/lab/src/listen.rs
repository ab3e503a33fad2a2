//! How this crate's servers listen: on a free port of this machine.

use std::net::{Ipv4Addr, SocketAddr};

use axum::Router;
use axum::serve::ListenerExt;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// The address of a server of `router`, up to and with `/v1`, and the server, which runs until it is dropped.
pub(crate) async fn listen(
    router: Router,
) -> std::io::Result<(String, impl Future<Output = std::io::Result<()>> + Send + 'static)> {
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?;
    let base_url = format!("http://{}/v1", listener.local_addr()?);
    // Small writes are what a stream is made of.
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
    Ok((base_url, axum::serve(listener, router).into_future()))
}

/// The same as a task of its own, which whoever has it must abort.
pub(crate) async fn serve(router: Router) -> std::io::Result<(String, JoinHandle<()>)> {
    let (base_url, serving) = listen(router).await?;
    let task = tokio::spawn(async move {
        if let Err(error) = serving.await {
            tracing::warn!(%error, "a server of the laboratory stopped");
        }
    });
    Ok((base_url, task))
}
