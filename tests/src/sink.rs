//! An SMTP server that takes mail and remembers every final dot it saw. Written on plain sockets,
//! apart from the client under test and from its replies' parser.
//!
//! A transaction is known by the header `X-Test-Id` of its content.

use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::sink_session::serve;
use crate::{PATIENCE, place};

/// What a script looks at.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The recipient's local part.
    pub local_part: String,
    /// The reverse path.
    pub mail_from: String,
    /// How often this recipient was named before.
    pub earlier: usize,
}

/// What a script answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Take it.
    Accept,
    /// This reply to RCPT.
    AtRcpt(&'static str),
    /// This reply to the final dot.
    AtDot(&'static str),
}

type Script = Arc<dyn Fn(&Asked) -> Verdict + Send + Sync>;

/// One final dot.
#[derive(Clone)]
pub struct Receipt {
    /// `X-Test-Id` of the content.
    pub id: String,
    /// The reverse path.
    pub mail_from: String,
    /// The recipient.
    pub recipient: String,
    /// The client's EHLO name.
    pub helo: String,
    /// Whether it came over TLS.
    pub tls: bool,
    /// Whether the answer was 250.
    pub accepted: bool,
    /// When the connection was taken, before the client's first word.
    pub connected_at: Instant,
    /// When the dot was read.
    pub dot_at: Instant,
    /// When the answer was written; none if it could not be, or not yet.
    pub answered_at: Option<Instant>,
    /// The content, dots unstuffed.
    pub content: Arc<[u8]>,
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = |at: Instant| at.duration_since(self.connected_at);
        f.debug_struct("Receipt")
            .field("id", &self.id)
            .field("from", &self.mail_from)
            .field("to", &self.recipient)
            .field("helo", &self.helo)
            .field("tls", &self.tls)
            .field("accepted", &self.accepted)
            .field("dot_after", &since(self.dot_at))
            .field("answered_after", &self.answered_at.map(since))
            .finish_non_exhaustive()
    }
}

/// How the sink behaves.
pub struct SinkOptions {
    latency_ms: RangeInclusive<u64>,
    script: Script,
    starttls: bool,
    keeps_commands: bool,
    address: SocketAddr,
}

impl SinkOptions {
    /// Waits this long between the dot and its reply, at random.
    pub fn latency_ms(self, latency_ms: RangeInclusive<u64>) -> Self {
        Self { latency_ms, ..self }
    }

    /// Decides by recipient.
    pub fn script(self, script: impl Fn(&Asked) -> Verdict + Send + Sync + 'static) -> Self {
        Self {
            script: Arc::new(script),
            ..self
        }
    }

    /// Offers STARTTLS with a certificate nobody has signed.
    pub fn starttls(self) -> Self {
        Self {
            starttls: true,
            ..self
        }
    }

    /// Remembers every command, for [`Sink::commands`].
    pub fn keeps_commands(self) -> Self {
        Self {
            keeps_commands: true,
            ..self
        }
    }

    /// Listens there.
    pub fn at(self, address: SocketAddr) -> Self {
        Self { address, ..self }
    }

    /// Starts listening.
    pub async fn start(self) -> Sink {
        let listener = TcpListener::bind(self.address).await.unwrap();
        let shared = Arc::new(Shared {
            latency_ms: self.latency_ms,
            script: self.script,
            tls: self.starttls.then(tls_acceptor),
            commands: self.keeps_commands.then(Mutex::default),
            receipts: Mutex::default(),
            dots: watch::Sender::new(0),
            hanging: watch::Sender::new(None),
            unanswered: Mutex::default(),
            asked: Mutex::default(),
            random: Mutex::new(0x9e37_79b9_7f4a_7c15),
        });
        let server = tokio::spawn({
            let shared = shared.clone();
            async move {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    tokio::spawn(serve(shared.clone(), stream));
                }
            }
        });
        Sink {
            address: self.address,
            shared,
            server,
        }
    }
}

/// The running sink. Ends when dropped.
pub struct Sink {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

impl Sink {
    /// One that takes everything at once, unless told otherwise.
    pub fn options() -> SinkOptions {
        SinkOptions {
            latency_ms: 0..=0,
            script: Arc::new(|_| Verdict::Accept),
            starttls: false,
            keeps_commands: false,
            address: place::free_address(),
        }
    }

    /// Every final dot so far.
    pub fn receipts(&self) -> Vec<Receipt> {
        self.shared.receipts.lock().unwrap().clone()
    }

    /// Every command so far, as it was written, if they are kept.
    pub fn commands(&self) -> Vec<String> {
        let commands = self.shared.commands.as_ref();
        commands.unwrap().lock().unwrap().clone()
    }

    /// Number of final dots so far.
    pub fn dots(&self) -> usize {
        *self.shared.dots.borrow()
    }

    /// Waits until there were at least this many final dots.
    pub async fn has_dots(&self, count: usize) {
        self.has_dots_within(count, PATIENCE).await;
    }

    /// Waits until there were at least this many final dots.
    pub async fn has_dots_within(&self, count: usize, patience: Duration) {
        let mut dots = self.shared.dots.subscribe();
        let waited = tokio::time::timeout(patience, dots.wait_for(|dots| *dots >= count))
            .await
            .is_ok();
        assert!(
            waited,
            "only {} of {count} dots in {patience:?}",
            self.dots()
        );
    }

    /// From now on final dots of the client with this EHLO name wait for [`Sink::answer`].
    pub fn hang(&self, helo: &str) {
        self.shared.hanging.send_replace(Some(helo.to_owned()));
    }

    /// Of the dots that wait, this one (by `X-Test-Id`) will get no answer: its connection ends.
    pub fn hang_up_on(&self, id: &str) {
        *self.shared.unanswered.lock().unwrap() = Some(id.to_owned());
    }

    /// Answers all dots that wait.
    pub fn answer(&self) {
        self.shared.hanging.send_replace(None);
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// What the connections of a sink share.
pub(crate) struct Shared {
    pub(crate) latency_ms: RangeInclusive<u64>,
    pub(crate) tls: Option<TlsAcceptor>,
    script: Script,
    commands: Option<Mutex<Vec<String>>>,
    receipts: Mutex<Vec<Receipt>>,
    dots: watch::Sender<usize>,
    hanging: watch::Sender<Option<String>>,
    unanswered: Mutex<Option<String>>,
    asked: Mutex<std::collections::HashMap<String, usize>>,
    random: Mutex<u64>,
}

impl Shared {
    pub(crate) fn judge(&self, mail_from: &str, recipient: &str) -> Verdict {
        let earlier = {
            let mut asked = self.asked.lock().unwrap();
            let count = asked.entry(recipient.to_owned()).or_default();
            *count += 1;
            *count - 1
        };
        let local_part = recipient
            .rsplit_once('@')
            .map_or(recipient, |(local, _)| local);
        (self.script)(&Asked {
            local_part: local_part.to_owned(),
            mail_from: mail_from.to_owned(),
            earlier,
        })
    }

    /// Remembers a command if that is wanted.
    pub(crate) fn heard(&self, line: &str) {
        if let Some(commands) = &self.commands {
            commands.lock().unwrap().push(line.to_owned());
        }
    }

    /// Remembers a dot; its number.
    pub(crate) fn note(&self, receipt: Receipt) -> usize {
        let mut receipts = self.receipts.lock().unwrap();
        receipts.push(receipt);
        self.dots.send_modify(|dots| *dots += 1);
        receipts.len() - 1
    }

    pub(crate) fn answered(&self, number: usize) {
        self.receipts.lock().unwrap()[number].answered_at = Some(Instant::now());
    }

    pub(crate) async fn pause(&self, helo: &str) {
        let (first, last) = (*self.latency_ms.start(), *self.latency_ms.end());
        let span = last - first + 1;
        let latency_ms = first + self.random() % span;
        if latency_ms > 0 {
            tokio::time::sleep(Duration::from_millis(latency_ms)).await;
        }
        let mut hanging = self.hanging.subscribe();
        let _ = hanging.wait_for(|name| name.as_deref() != Some(helo)).await;
    }

    /// Whether this dot is to get no answer; once.
    pub(crate) fn hangs_up_on(&self, number: usize) -> bool {
        let receipts = self.receipts.lock().unwrap();
        let mut unanswered = self.unanswered.lock().unwrap();
        unanswered
            .take_if(|id| *id == receipts[number].id)
            .is_some()
    }

    /// Xorshift with a fixed seed: any spread will do, a crypto library is not needed for it.
    fn random(&self) -> u64 {
        let mut state = self.random.lock().unwrap();
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state
    }
}

fn tls_acceptor() -> TlsAcceptor {
    let made = rcgen::generate_simple_self_signed(vec!["sink.test".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}
