//! A wire between a node and PostgreSQL that can be cut. While cut, nothing passes and nobody is
//! told: connections stay open, as when a switch loses power.

use std::net::SocketAddr;
use std::path::PathBuf;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::place;

/// Forwards TCP connections to a Unix socket. Ends when dropped.
pub struct TcpProxy {
    /// Where it listens.
    pub address: SocketAddr,
    whole: watch::Sender<bool>,
    server: JoinHandle<()>,
}

impl TcpProxy {
    /// Starts one in front of `target`.
    pub async fn start(target: PathBuf) -> Self {
        let listener = TcpListener::bind(place::free_address()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let whole = watch::Sender::new(true);
        let state = whole.clone();
        let server = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let (target, state) = (target.clone(), state.subscribe());
                tokio::spawn(async move {
                    let mut passes = state.clone();
                    let _ = passes.wait_for(|whole| *whole).await;
                    let Ok(server) = UnixStream::connect(target).await else {
                        return;
                    };
                    let (from_client, to_client) = client.into_split();
                    let (from_server, to_server) = server.into_split();
                    // Either side's end is the end of both.
                    tokio::select! {
                        () = carry(from_client, to_server, state.clone()) => {}
                        () = carry(from_server, to_client, state) => {}
                    }
                });
            }
        });
        Self {
            address,
            whole,
            server,
        }
    }

    /// From now on nothing passes.
    pub fn cut(&self) {
        self.whole.send_replace(false);
    }

    /// What waited passes, and all that comes.
    pub fn heal(&self) {
        self.whole.send_replace(true);
    }
}

impl Drop for TcpProxy {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn carry<R, W>(mut from: R, mut to: W, mut state: watch::Receiver<bool>)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut chunk = vec![0; 32 * 1024];
    loop {
        let Ok(count @ 1..) = from.read(&mut chunk).await else {
            return;
        };
        if state.wait_for(|whole| *whole).await.is_err() {
            return;
        }
        if to.write_all(&chunk[..count]).await.is_err() {
            return;
        }
    }
}
