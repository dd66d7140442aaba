//! A running listener whose handler keeps what it gets, and a raw client to talk to it.

#![allow(dead_code, reason = "each test file uses its own part of this")]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mail::address::EmailAddress;
use mail::envelope::{Envelope, ReversePath};
use mta::listener::{HandlerReply, ListenerConfig, Received, SessionHandler, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) const ENVELOPE: &str =
    "EHLO c.example\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.com>\r\nDATA\r\n";

type Answer = Box<dyn Fn() -> HandlerReply + Send>;

#[derive(Default)]
struct Shared {
    received: Mutex<Vec<Received>>,
    answer: Mutex<Option<Answer>>,
    hold: Mutex<Option<Arc<Notify>>>,
}

struct Keeper(Arc<Shared>);

impl SessionHandler for Keeper {
    async fn on_rcpt(&mut self, recipient: &str) -> HandlerReply {
        if recipient.starts_with("no@") {
            return HandlerReply::new(550, Some((5, 1, 1)), "Unknown");
        }
        HandlerReply::new(250, Some((2, 1, 5)), "Recipient ok")
    }

    async fn on_data(&mut self, received: Received) -> HandlerReply {
        let hold = self.0.hold.lock().unwrap().clone();
        if let Some(reached) = hold {
            reached.notify_one();
            std::future::pending::<()>().await;
        }
        if let Some(answer) = &*self.0.answer.lock().unwrap() {
            return answer();
        }
        self.0.received.lock().unwrap().push(received);
        HandlerReply::ok("Queued")
    }
}

pub(crate) struct Served {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    shutdown: CancellationToken,
    serving: JoinHandle<()>,
}

/// Everything the server said.
pub(crate) struct Dialogue(pub(crate) String);

impl Dialogue {
    /// The code of each reply; of a reply with many lines, once.
    pub(crate) fn codes(&self) -> Vec<String> {
        let last_lines = self
            .0
            .lines()
            .filter(|line| line.as_bytes().get(3) != Some(&b'-'));
        last_lines
            .map(|line| line.chars().take(3).collect())
            .collect()
    }
}

impl Served {
    pub(crate) async fn start(adjust: impl FnOnce(&mut ListenerConfig)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut config = ListenerConfig::new("mx.test");
        adjust(&mut config);
        let shared = Arc::new(Shared::default());
        let shutdown = CancellationToken::new();
        let keep = Arc::clone(&shared);
        let until = shutdown.clone();
        let serving = tokio::spawn(async move {
            serve(listener, config, |_| Keeper(Arc::clone(&keep)), until).await;
        });
        Self {
            address,
            shared,
            shutdown,
            serving,
        }
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        self.shared.received.lock().unwrap().clone()
    }

    pub(crate) fn answer_data(&self, answer: impl Fn() -> HandlerReply + Send + 'static) {
        *self.shared.answer.lock().unwrap() = Some(Box::new(answer));
    }

    /// Never answers content again; tells when it has come.
    pub(crate) fn hold_data(&self, reached: Arc<Notify>) {
        *self.shared.hold.lock().unwrap() = Some(reached);
    }

    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        self.serving.await.unwrap();
    }

    /// Sends all of `wire` at once, closes its side, and returns all that was answered.
    pub(crate) async fn talk(&self, wire: &[u8]) -> Dialogue {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (mut from, mut to) = stream.into_split();
        let wire = wire.to_vec();
        let sending = tokio::spawn(async move {
            // The server may close before it has taken everything.
            let _ = to.write_all(&wire).await;
            let _ = to.shutdown().await;
            to
        });
        let mut heard = Vec::new();
        let reading = from.read_to_end(&mut heard);
        // A reset after the reply is how a close with unread input looks.
        let _ = tokio::time::timeout(Duration::from_secs(20), reading)
            .await
            .unwrap();
        sending.abort();
        Dialogue(String::from_utf8(heard).unwrap())
    }
}

pub(crate) fn envelope() -> Envelope {
    let address = |text| EmailAddress::parse(text).unwrap();
    Envelope::new(
        ReversePath::Address(address("bounce@sender.test")),
        address("b@example.com"),
    )
}
