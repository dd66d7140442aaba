//! The byte side of a session: command lines in, replies out together when nothing more is at
//! hand (RFC 2920 section 3.2). Knows no order of commands.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;

use super::content::Content;

/// Longest wait for the client (RFC 5321 section 4.5.3.2.7: at least 5 minutes).
const IDLE_MAX: Duration = Duration::from_mins(5);
const LINE_OCTETS_MAX: usize = 4 * 1024;
const READ_OCTETS: usize = 32 * 1024;

/// Why a session ends.
#[derive(Debug)]
pub(super) enum End {
    /// As it should.
    Done,
    /// Our side stops.
    Shutdown,
    Lost,
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> Self {
        Self::Lost
    }
}

type Stream = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// A connection with what was read and not used, and what was said and not sent.
pub(super) struct Wire {
    /// Absent only while, and after a failed, TLS handshake.
    stream: Option<Stream>,
    input: BytesMut,
    output: Vec<u8>,
    shutdown: CancellationToken,
}

impl Wire {
    pub(super) fn new(tcp: TcpStream, shutdown: CancellationToken) -> Self {
        Self {
            stream: Some(Either::Left(tcp)),
            input: BytesMut::with_capacity(READ_OCTETS),
            output: Vec::with_capacity(512),
            shutdown,
        }
    }

    pub(super) fn is_tls(&self) -> bool {
        matches!(self.stream, Some(Either::Right(_)))
    }

    /// Queues a reply.
    pub(super) fn say(&mut self, reply: &str) {
        self.output.extend_from_slice(reply.as_bytes());
    }

    /// Sends what is queued.
    pub(super) async fn flush(&mut self) -> Result<(), End> {
        if self.output.is_empty() {
            return Ok(());
        }
        let stream = self.stream.as_mut().ok_or(End::Lost)?;
        let write = async {
            stream.write_all(&self.output).await?;
            stream.flush().await
        };
        timeout(IDLE_MAX, write).await.map_err(|_| End::Lost)??;
        self.output.clear();
        Ok(())
    }

    /// Waits, after what is queued was sent: replies that are ready do not wait.
    pub(super) async fn pause(&mut self, wait: Duration) -> Result<(), End> {
        self.flush().await?;
        tokio::select! {
            () = tokio::time::sleep(wait) => Ok(()),
            () = self.shutdown.cancelled() => Err(End::Shutdown),
        }
    }

    /// The next command line, without its line end.
    pub(super) async fn line(&mut self) -> Result<BytesMut, End> {
        let mut looked_at = 0;
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.input[looked_at..]) {
                let mut line = self.input.split_to(looked_at + end + 1);
                let text = line.trim_ascii_end().len();
                line.truncate(text);
                return Ok(line);
            }
            looked_at = self.input.len();
            if looked_at > LINE_OCTETS_MAX {
                self.say("500 5.5.2 Line too long\r\n");
                self.flush().await?;
                return Err(End::Done);
            }
            self.fill().await?;
        }
    }

    /// Reads the content of a message to its end.
    pub(super) async fn content(&mut self, content: &mut Content) -> Result<(), End> {
        content.begin();
        while !content.take(&mut self.input) {
            self.fill().await?;
        }
        Ok(())
    }

    /// The TLS handshake, in the place of the clear stream. What the client sent in clear behind
    /// STARTTLS must not count as sent inside TLS (RFC 3207 section 4.2).
    pub(super) async fn secure(&mut self, tls: &TlsAcceptor) -> Result<(), End> {
        self.flush().await?;
        let Some(Either::Left(tcp)) = self.stream.take() else {
            return Err(End::Lost);
        };
        if !self.input.is_empty() {
            return Err(End::Lost);
        }
        let accepted = timeout(IDLE_MAX, tls.accept(tcp)).await;
        let stream = accepted.map_err(|_| End::Lost)??;
        self.stream = Some(Either::Right(Box::new(stream)));
        Ok(())
    }

    async fn fill(&mut self) -> Result<(), End> {
        self.flush().await?;
        self.input.reserve(READ_OCTETS);
        let Self {
            stream,
            input,
            shutdown,
            ..
        } = self;
        let stream = stream.as_mut().ok_or(End::Lost)?;
        tokio::select! {
            biased;
            read = timeout(IDLE_MAX, stream.read_buf(input)) => match read {
                Ok(Ok(0)) => Err(End::Done),
                Ok(Ok(_)) => Ok(()),
                Ok(Err(_)) | Err(_) => Err(End::Lost),
            },
            () = shutdown.cancelled() => Err(End::Shutdown),
        }
    }
}
