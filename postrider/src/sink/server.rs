//! Accepts the connections of a sink, bounds their number, and ends them at shutdown.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use super::session::Session;
use super::shared::Shared;
use super::wire::Wire;

/// Pause after a failed accept: out of file descriptors does not pass by spinning.
const ACCEPT_RETRY_PAUSE: Duration = Duration::from_millis(100);
/// Sessions may say their last words at shutdown.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);

/// Serves until the sink shuts down.
pub(super) async fn serve(listener: TcpListener, max_connections: usize, shared: Arc<Shared>) {
    let places = Arc::new(Semaphore::new(max_connections));
    let sessions = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shared.shutdown.cancelled() => break,
        };
        let mut tcp = match accepted {
            Ok((tcp, _)) => tcp,
            Err(error) => {
                tracing::warn!(%error, "could not accept a connection");
                tokio::time::sleep(ACCEPT_RETRY_PAUSE).await;
                continue;
            }
        };
        // Without it replies would wait for the client's acknowledgement.
        let _ = tcp.set_nodelay(true);
        match places.clone().try_acquire_owned() {
            Ok(place) => {
                let wire = Wire::new(tcp, shared.shutdown.clone());
                let session = Session::new(wire, shared.clone());
                sessions.spawn(async move {
                    session.serve().await;
                    drop(place);
                });
            }
            Err(_) => {
                // Fits into the socket's buffer, so it does not wait; the client may have gone.
                let _ = tcp.write_all(b"421 4.3.2 Too many connections\r\n").await;
            }
        }
    }
    sessions.close();
    // Those that do not end by themselves end with the runtime.
    let _ = tokio::time::timeout(SHUTDOWN_GRACE, sessions.wait()).await;
}
