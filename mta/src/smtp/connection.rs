//! One client connection: opened, secured, kept, closed. Transactions are in `transaction`.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mail::judge::Stage;
use mail::reply::Reply;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

use super::capabilities::Capabilities;
use super::config::{ConnectConfig, Deadlines};
use super::failure::{FailureKind, ProtocolFault, SmtpFailure};
use super::stream::Stream;
use super::tls::TlsMode;
use super::transcript::Transcript;
use super::wire::Wire;

/// An open SMTP connection that has been greeted.
#[derive(Debug)]
pub struct Connection {
    pub(super) wire: Wire,
    pub(super) capabilities: Capabilities,
    pub(super) deadlines: Deadlines,
    pub(super) transcript: Transcript,
    pub(super) messages_sent: u32,
    /// False while a dialogue is under way: one that is dropped halfway leaves it false.
    pub(super) usable: bool,
    /// A transaction was refused after MAIL was accepted: RSET comes before the next one.
    pub(super) needs_rset: bool,
    remote: SocketAddr,
}

impl Connection {
    /// Connects, waits for the greeting, says EHLO and sets up TLS as the mode wants.
    ///
    /// # Errors
    /// The stage and kind of failure; `retry_in_clear` when opportunistic TLS was the trouble.
    pub async fn open(config: &ConnectConfig) -> Result<Self, SmtpFailure> {
        let tcp = match timeout(config.deadlines.connect, connect(config)).await {
            Ok(Ok(tcp)) => tcp,
            Ok(Err(error)) => return Err(not_connected(FailureKind::Io(error))),
            Err(_) => return Err(not_connected(FailureKind::Timeout)),
        };
        let mut connection = Self {
            wire: Wire::new(Stream::Clear(tcp)),
            capabilities: Capabilities::default(),
            deadlines: config.deadlines,
            transcript: Transcript::default(),
            messages_sent: 0,
            usable: false,
            needs_rset: false,
            remote: config.remote,
        };
        connection.await_greeting().await?;
        connection.hello(&config.ehlo).await?;
        connection = connection.secure(config).await?;
        connection.transcript.end_opening();
        connection.usable = true;
        Ok(connection)
    }

    /// The host at the other end.
    pub fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// What the server offered in its last EHLO reply.
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// `TLSv1.2` or `TLSv1.3`; nothing in clear.
    pub fn tls_version(&self) -> Option<&'static str> {
        self.wire.stream().tls_version()
    }

    /// The cipher suite's IANA name; nothing in clear.
    pub fn tls_cipher(&self) -> Option<&'static str> {
        self.wire.stream().tls_cipher()
    }

    /// Messages the server has taken responsibility for on this connection.
    pub fn messages_sent(&self) -> u32 {
        self.messages_sent
    }

    /// True if another transaction may begin as far as we know; see [`Self::is_stale`].
    pub fn is_usable(&self) -> bool {
        self.usable
    }

    /// True if an idle connection must not be used: the server has closed it or said something
    /// unasked, such as 421. Does not wait.
    pub fn is_stale(&mut self) -> bool {
        !self.usable || self.wire.has_news()
    }

    /// The opening and the last transaction in readable form, without content; at most
    /// [`super::TRANSCRIPT_BYTES_MAX`] octets.
    pub fn transcript(&self) -> String {
        self.transcript.text()
    }

    /// Proves an idle connection alive and resets it.
    ///
    /// # Errors
    /// When the server does not answer 2xx; the connection is then useless.
    pub async fn rset(&mut self) -> Result<(), SmtpFailure> {
        self.transcript.begin_transaction();
        self.usable = false;
        let reply = self
            .command("RSET", Stage::Mail, self.deadlines.mail)
            .await?;
        if !reply.is_positive() {
            return Err(self.refused(Stage::Mail, reply));
        }
        self.needs_rset = false;
        self.usable = true;
        Ok(())
    }

    /// Says QUIT and waits briefly for the answer. Nothing depends on it, so nothing can fail.
    pub async fn quit(mut self) {
        if !self.usable {
            return;
        }
        let answered = self.command("QUIT", Stage::Mail, self.deadlines.quit).await;
        drop(answered);
    }

    async fn await_greeting(&mut self) -> Result<(), SmtpFailure> {
        let deadline = Instant::now() + self.deadlines.greeting;
        let reply = self.reply(Stage::Greeting, deadline).await?;
        match reply.code().get() {
            220 => Ok(()),
            _ => Err(self.refused(Stage::Greeting, reply)),
        }
    }

    /// EHLO, or HELO for servers that refuse it (RFC 5321 section 3.2).
    async fn hello(&mut self, name: &str) -> Result<(), SmtpFailure> {
        let limit = self.deadlines.ehlo;
        let reply = self
            .command(&format!("EHLO {name}"), Stage::Ehlo, limit)
            .await?;
        if reply.is_positive() {
            self.capabilities = Capabilities::parse(reply.lines().iter().map(String::as_str));
            return Ok(());
        }
        if !reply.is_permanent() {
            return Err(self.refused(Stage::Ehlo, reply));
        }
        self.capabilities = Capabilities::default();
        let reply = self
            .command(&format!("HELO {name}"), Stage::Ehlo, limit)
            .await?;
        if reply.is_positive() {
            Ok(())
        } else {
            Err(self.refused(Stage::Ehlo, reply))
        }
    }

    async fn secure(mut self, config: &ConnectConfig) -> Result<Self, SmtpFailure> {
        let (tls, required) = match &config.tls {
            TlsMode::Clear => return Ok(self),
            TlsMode::Opportunistic(tls) => (tls, false),
            TlsMode::Required(tls) => (tls, true),
        };
        if !self.capabilities.starttls {
            return match required {
                true => Err(self.failure(Stage::StartTls, FailureKind::TlsNotOffered)),
                false => Ok(self),
            };
        }
        let limit = self.deadlines.starttls;
        let reply = self.command("STARTTLS", Stage::StartTls, limit).await?;
        match reply.code().get() {
            220 => self.handshake(tls, required, config).await,
            // The server offers TLS and has none: opportunistic mail goes on in clear.
            code @ 400..600 if code != 421 && !required => Ok(self),
            _ => Err(self.refused(Stage::StartTls, reply)),
        }
    }

    async fn handshake(
        self,
        tls: &Arc<ClientConfig>,
        required: bool,
        config: &ConnectConfig,
    ) -> Result<Self, SmtpFailure> {
        let Self {
            wire,
            deadlines,
            mut transcript,
            remote,
            ..
        } = self;
        let fail = |kind, transcript: &Transcript| SmtpFailure {
            retry_in_clear: !required && !matches!(kind, FailureKind::Protocol(_)),
            transcript: transcript.text(),
            ..not_connected_at(Stage::StartTls, kind)
        };
        let tcp = match wire.into_idle_stream() {
            Ok(Stream::Clear(tcp)) => tcp,
            Ok(Stream::Tls(_)) => return Err(fail(FailureKind::TlsNotOffered, &transcript)),
            Err(kind) => return Err(fail(kind, &transcript)),
        };
        let connector = TlsConnector::from(Arc::clone(tls));
        let shaking = connector.connect(server_name(config), tcp);
        let stream = match timeout(deadlines.starttls, shaking).await {
            Ok(Ok(stream)) => Stream::Tls(Box::new(stream.into())),
            Ok(Err(error)) => return Err(fail(FailureKind::Tls(error), &transcript)),
            Err(_) => {
                let late = io::Error::from(io::ErrorKind::TimedOut);
                return Err(fail(FailureKind::Tls(late), &transcript));
            }
        };
        transcript.note(format_args!(
            "{} {}",
            stream.tls_version().unwrap_or("TLS"),
            stream.tls_cipher().unwrap_or_default()
        ));
        let mut secured = Self {
            wire: Wire::new(stream),
            // What was offered in clear is void (RFC 3207 section 4.2).
            capabilities: Capabilities::default(),
            deadlines,
            transcript,
            messages_sent: 0,
            usable: false,
            needs_rset: false,
            remote,
        };
        secured.hello(&config.ehlo).await?;
        Ok(secured)
    }

    /// Sends one command and reads its reply; `limit` covers both.
    pub(super) async fn command(
        &mut self,
        line: &str,
        stage: Stage,
        limit: Duration,
    ) -> Result<Reply, SmtpFailure> {
        let deadline = Instant::now() + limit;
        self.send(&[line], stage, deadline).await?;
        self.reply(stage, deadline).await
    }

    /// Writes command lines in one go.
    pub(super) async fn send(
        &mut self,
        lines: &[&str],
        stage: Stage,
        deadline: Instant,
    ) -> Result<(), SmtpFailure> {
        let mut bytes = Vec::with_capacity(lines.iter().map(|line| line.len() + 2).sum());
        for line in lines {
            // Whatever slipped through the types of our callers ends here, not on the wire.
            if line.bytes().any(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
                let fault = FailureKind::Protocol(ProtocolFault::UnsafeCommand);
                return Err(self.failure(stage, fault));
            }
            self.transcript.sent(line);
            bytes.extend_from_slice(line.as_bytes());
            bytes.extend_from_slice(b"\r\n");
        }
        match self.wire.write(&bytes, deadline).await {
            Ok(()) => Ok(()),
            Err(failed) => {
                let kind = self.last_words(failed.kind).await;
                Err(self.failure(stage, kind))
            }
        }
    }

    pub(super) async fn reply(
        &mut self,
        stage: Stage,
        deadline: Instant,
    ) -> Result<Reply, SmtpFailure> {
        match self.wire.reply(deadline).await {
            Ok(reply) => {
                self.transcript.received(&reply.to_string());
                Ok(reply)
            }
            Err(kind) => Err(self.failure(stage, kind)),
        }
    }

    /// After a failed write: a server that refuses and closes at once has often said why, and
    /// the reply tells more than the broken connection.
    pub(super) async fn last_words(&mut self, kind: FailureKind) -> FailureKind {
        const PATIENCE: Duration = Duration::from_secs(1);
        if matches!(kind, FailureKind::Timeout) {
            return kind;
        }
        match self.wire.reply(Instant::now() + PATIENCE).await {
            Ok(reply) if reply.is_transient() || reply.is_permanent() => {
                self.transcript.received(&reply.to_string());
                FailureKind::Reply(Box::new(reply))
            }
            _ => kind,
        }
    }

    /// A failure that ends the connection.
    pub(super) fn failure(&mut self, stage: Stage, kind: FailureKind) -> SmtpFailure {
        self.usable = false;
        SmtpFailure {
            transcript: self.transcript.text(),
            ..not_connected_at(stage, kind)
        }
    }

    /// A failure by a reply: a refusal if it is one, else a protocol fault. Ends the connection
    /// unless the caller restores it.
    pub(super) fn refused(&mut self, stage: Stage, reply: Reply) -> SmtpFailure {
        let kind = if reply.is_transient() || reply.is_permanent() {
            FailureKind::Reply(Box::new(reply))
        } else {
            FailureKind::Protocol(ProtocolFault::UnexpectedCode(reply.code().get()))
        };
        self.failure(stage, kind)
    }
}

fn not_connected(kind: FailureKind) -> SmtpFailure {
    not_connected_at(Stage::Connect, kind)
}

fn not_connected_at(stage: Stage, kind: FailureKind) -> SmtpFailure {
    SmtpFailure {
        stage,
        kind,
        connection_usable: false,
        dot_sent: false,
        retry_in_clear: false,
        transcript: String::new(),
    }
}

async fn connect(config: &ConnectConfig) -> io::Result<TcpStream> {
    let socket = match config.remote {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    if let Some(source) = config.source {
        socket.bind(SocketAddr::new(source, 0))?;
    }
    let stream = socket.connect(config.remote).await?;
    // Every write of ours is a complete turn of the dialogue.
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The name for SNI; the address when the host has no name a certificate could hold.
fn server_name(config: &ConnectConfig) -> ServerName<'static> {
    let name = config.host_name.trim_end_matches('.').to_owned();
    ServerName::try_from(name).unwrap_or_else(|_| ServerName::from(config.remote.ip()))
}
