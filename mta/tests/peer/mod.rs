//! An SMTP server that does exactly what a test tells it, wrong things above all.
//! Raw TCP only: shares no code with the client it tests.

#![allow(dead_code, reason = "each test file uses its own part of this")]

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use mail::address::EmailAddress;
use mail::envelope::{Envelope, ReversePath};
use mta::smtp::{ConnectConfig, Deadlines, TlsMode};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Enough for any answer that will come; a test that needs it to pass fails in it.
pub(crate) const PATIENT: Duration = Duration::from_secs(20);
/// For deadlines that are meant to pass.
pub(crate) const SHORT: Duration = Duration::from_millis(150);

/// The server's end of one connection.
pub(crate) struct Peer<S> {
    pub(crate) stream: S,
    unread: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Peer<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self {
            stream,
            unread: Vec::new(),
        }
    }

    /// Sends bytes as they are; a client that is gone is no error here.
    pub(crate) async fn say(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref()).await;
        let _ = self.stream.flush().await;
    }

    /// Reads up to and including `end`; what came, if the client closes first.
    pub(crate) async fn until(&mut self, end: &[u8]) -> Vec<u8> {
        let mut chunk = [0; 16 * 1024];
        loop {
            if let Some(at) = self
                .unread
                .windows(end.len())
                .position(|window| window == end)
            {
                return self.unread.drain(..at + end.len()).collect();
            }
            match self.stream.read(&mut chunk).await {
                Ok(0) | Err(_) => return std::mem::take(&mut self.unread),
                Ok(count) => self.unread.extend_from_slice(&chunk[..count]),
            }
        }
    }

    /// One line without its line end; empty when the client is gone.
    pub(crate) async fn line(&mut self) -> String {
        let line = self.until(b"\r\n").await;
        String::from_utf8_lossy(&line).trim_end().to_owned()
    }

    /// Everything until the client closes.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        let mut rest = std::mem::take(&mut self.unread);
        let _ = self.stream.read_to_end(&mut rest).await;
        rest
    }

    /// What has arrived and was not asked for yet.
    pub(crate) fn unread(&self) -> &[u8] {
        &self.unread
    }

    /// Answers EHLO with these extensions.
    pub(crate) async fn answer_ehlo(&mut self, extensions: &[&str]) {
        let ehlo = self.line().await;
        assert!(ehlo.starts_with("EHLO "), "expected EHLO, got {ehlo:?}");
        let mut lines = vec!["peer.test"];
        lines.extend(extensions);
        let mut reply = String::new();
        for (number, line) in lines.iter().enumerate() {
            let separator = if number + 1 == lines.len() { ' ' } else { '-' };
            reply.push_str(&format!("250{separator}{line}\r\n"));
        }
        self.say(reply).await;
    }

    /// Greeting and EHLO.
    pub(crate) async fn welcome(&mut self, extensions: &[&str]) {
        self.say("220 peer.test ESMTP\r\n").await;
        self.answer_ehlo(extensions).await;
    }

    /// Takes MAIL, RCPT and DATA, answered together.
    pub(crate) async fn take_envelope(&mut self) -> [String; 3] {
        let lines = [self.line().await, self.line().await, self.line().await];
        self.say("250 2.1.0 ok\r\n250 2.1.5 ok\r\n354 go\r\n").await;
        lines
    }
}

/// Serves one connection with `script` and hands back what the script returns.
pub(crate) async fn peer<F, Fut, T>(script: F) -> (SocketAddr, JoinHandle<T>)
where
    F: FnOnce(Peer<TcpStream>) -> Fut + Send + 'static,
    Fut: Future<Output = T> + Send,
    T: Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        script(Peer::new(stream)).await
    });
    (address, serving)
}

/// A patient configuration without TLS.
pub(crate) fn config(remote: SocketAddr) -> ConnectConfig {
    ConnectConfig {
        remote,
        host_name: "peer.test".into(),
        source: None,
        ehlo: "out.sender.test".into(),
        tls: TlsMode::Clear,
        deadlines: Deadlines::uniform(PATIENT),
    }
}

pub(crate) fn envelope() -> Envelope {
    let address = |text| EmailAddress::parse(text).unwrap();
    let reverse_path = ReversePath::Address(address("bounce@sender.test"));
    Envelope::new(reverse_path, address("user@rcpt.test"))
}
