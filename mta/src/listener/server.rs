//! Accepts connections, bounds their number, and lets sessions finish at shutdown.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::channel::SessionEnd;
use super::config::ListenerConfig;
use super::handler::{SessionHandler, SessionInfo};
use super::session::Session;
use crate::smtp::Stream;

/// Pause after a failed accept: out of file descriptors does not pass by spinning.
const ACCEPT_RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Serves `listener` until `shutdown`, then waits for sessions as long as the configuration says.
///
/// `make_handler` is called once a connection.
pub async fn serve<H, F>(
    listener: TcpListener,
    config: ListenerConfig,
    make_handler: F,
    shutdown: CancellationToken,
) where
    H: SessionHandler + 'static,
    F: Fn(&SessionInfo) -> H,
{
    let config = Arc::new(config);
    let places = Arc::new(Semaphore::new(config.max_connections));
    let sessions = TaskTracker::new();
    let kill = CancellationToken::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => break,
        };
        let (tcp, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "could not accept a connection");
                tokio::time::sleep(ACCEPT_RETRY_PAUSE).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            turn_away(&tcp, &config.host_name);
            continue;
        };
        let Some(info) = session_info(&tcp, peer) else {
            continue;
        };
        let handler = make_handler(&info);
        let session = Session::new(
            Stream::Clear(tcp),
            info,
            handler,
            Arc::clone(&config),
            shutdown.clone(),
        );
        let kill = kill.clone();
        sessions.spawn(async move {
            if let Some(SessionEnd::Io(error)) = kill.run_until_cancelled(session.run()).await {
                tracing::debug!(%peer, %error, "session ended");
            }
            drop(place);
        });
    }
    drop(listener);
    sessions.close();
    if tokio::time::timeout(config.shutdown_grace, sessions.wait())
        .await
        .is_err()
    {
        kill.cancel();
        sessions.wait().await;
    }
}

/// One attempt to say why; a peer that cannot take 60 octets at once just sees the close.
fn turn_away(tcp: &TcpStream, host_name: &str) {
    let reply = format!("421 {host_name} 4.3.2 Too many connections\r\n");
    let _ = tcp.try_write(reply.as_bytes());
}

fn session_info(tcp: &TcpStream, peer: SocketAddr) -> Option<SessionInfo> {
    // Replies are small and awaited: Nagle's delay would cost a round trip of idling.
    tcp.set_nodelay(true).ok()?;
    let local = tcp.local_addr().ok()?;
    Some(SessionInfo {
        peer,
        local,
        tls: None,
        helo: String::new(),
    })
}
