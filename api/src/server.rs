//! Connections: takes them in, bounds how many and how slow, and lets them finish on a stop.
//! Knows nothing of routes.

use std::io::Cursor;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::http::Request;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use service::shutdown::Shutdown;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tower::ServiceExt;

use crate::config::ApiConfig;
use crate::router::router;
use crate::state::AppState;

/// Pause after the system refused a connection, such as for want of file descriptors.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);
/// What every HTTP/2 client sends first (RFC 9113 section 3.4).
const HTTP2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Answers on `listener` until the stop is requested, then lets the requests under way finish for
/// as long as the configuration says.
pub async fn run(state: AppState, listener: TcpListener, shutdown: Shutdown) {
    let connections = shutdown.part();
    let permits = Arc::new(Semaphore::new(state.config.connections_max));
    let router = router(state.clone());
    connections.spawn(state.callers.uses.clone().write_down(
        state.store.clone(),
        state.clock.clone(),
        connections.clone(),
    ));
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
            Ok((stream, peer)) => {
                let serving = serve(
                    stream,
                    peer,
                    router.clone(),
                    state.config.clone(),
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

/// One connection, HTTP/1.1 or HTTP/2, until the client leaves, rests too long or the stop is
/// requested.
async fn serve(
    mut stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    config: Arc<ApiConfig>,
    shutdown: Shutdown,
) {
    // Answers are small and complete: waiting to fill a segment only delays them.
    let _slower_if_refused = stream.set_nodelay(true);
    // Whoever says nothing is not waited for: a silent connection would hold its permit for ever.
    let opening = tokio::select! {
        read = timeout(config.header_timeout, read_opening(&mut stream)) => read,
        () = shutdown.requested() => return,
    };
    let Ok(Ok(opening)) = opening else {
        return;
    };
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(config.header_timeout);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Some(config.header_timeout));
    // The version is known: looking for it again would have no limit of time.
    let is_http2 = opening == HTTP2_PREFACE;
    let builder = match is_http2 {
        true => builder.http2_only(),
        false => builder.http1_only(),
    };
    let (read, write) = stream.into_split();
    let stream = tokio::io::join(Cursor::new(opening).chain(read), write);
    let requests = Requests::default();
    let counted = {
        let requests = requests.clone();
        tower::service_fn(move |mut request: Request<_>| {
            request.extensions_mut().insert(ConnectInfo(peer));
            let (router, running) = (router.clone(), requests.begin());
            async move {
                let answer = router.oneshot(request).await;
                drop(running);
                answer
            }
        })
    };
    let connection =
        builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(counted));
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.requested() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
        // HTTP/1.1 has a limit of its own, for each header.
        () = requests.rest(config.header_timeout), if is_http2 => {
            connection.as_mut().graceful_shutdown();
            // Answers on their way may still arrive.
            match timeout(config.request_timeout, connection).await {
                Ok(ended) => ended,
                Err(_) => return,
            }
        }
    };
    if let Err(error) = ended {
        // Clients leave in the middle all the time.
        tracing::debug!(error, "a connection broke");
    }
}

/// Reads until it is clear whether the client speaks HTTP/2: all of its preface, or the first
/// octet that differs.
async fn read_opening(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut opening = Vec::with_capacity(HTTP2_PREFACE.len());
    while opening.len() < HTTP2_PREFACE.len() && HTTP2_PREFACE.starts_with(&opening) {
        let mut rest = [0; HTTP2_PREFACE.len()];
        let wanted = HTTP2_PREFACE.len() - opening.len();
        let read = stream.read(&mut rest[..wanted]).await?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        opening.extend_from_slice(&rest[..read]);
    }
    Ok(opening)
}

/// The requests of one connection, counted to see when it rests. Clones count together.
#[derive(Clone, Default)]
struct Requests(Arc<Count>);

#[derive(Default)]
struct Count {
    begun: AtomicU64,
    /// One more holder for each request that runs.
    running: Arc<()>,
}

impl Requests {
    fn begin(&self) -> Arc<()> {
        self.0.begun.fetch_add(1, Ordering::Relaxed);
        self.0.running.clone()
    }

    /// Returns when a whole `period` passed without a request, which is noticed within two.
    async fn rest(&self, period: Duration) {
        loop {
            let before = self.0.begun.load(Ordering::Relaxed);
            let none_before = Arc::strong_count(&self.0.running) == 1;
            tokio::time::sleep(period).await;
            if none_before && self.0.begun.load(Ordering::Relaxed) == before {
                return;
            }
        }
    }
}
