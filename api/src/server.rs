//! Connections: takes them in, bounds how many and how slow, and lets them finish on a stop.
//! Knows nothing of routes.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use service::shutdown::Shutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::router::router;
use crate::state::AppState;

/// Pause after the system refused a connection, such as for want of file descriptors.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// Answers on `listener` until the stop is requested, then lets the requests under way finish for
/// as long as the configuration says.
pub async fn run(state: AppState, listener: TcpListener, shutdown: Shutdown) {
    let connections = shutdown.part();
    let permits = Arc::new(Semaphore::new(state.config.connections_max));
    let router = router(state.clone());
    loop {
        // A permit first: what we cannot serve waits in the backlog of the socket.
        let accepted = async {
            let permit = permits.clone().acquire_owned().await;
            (listener.accept().await, permit)
        };
        let (accepted, permit) = tokio::select! {
            accepted = accepted => accepted,
            () = connections.requested() => break,
        };
        match accepted {
            Ok((stream, _)) => {
                let serving = serve(
                    stream,
                    router.clone(),
                    state.config.header_timeout,
                    connections.clone(),
                );
                connections.spawn(async move {
                    serving.await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "could not take a connection in");
                tokio::time::sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
    drop(listener);
    let left = connections.drain(state.config.drain_timeout).await;
    if left > 0 {
        tracing::warn!(
            connections = left,
            "stopped before all requests were answered"
        );
    }
}

/// One connection, HTTP/1.1 or HTTP/2, until the client leaves or the stop is requested.
async fn serve(stream: TcpStream, router: Router, header_timeout: Duration, shutdown: Shutdown) {
    // Answers are small and complete: waiting to fill a segment only delays them.
    let _slower_if_refused = stream.set_nodelay(true);
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Some(header_timeout));
    let service = TowerToHyperService::new(router);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.requested() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        // Clients leave in the middle all the time.
        tracing::debug!(error, "a connection broke");
    }
}
