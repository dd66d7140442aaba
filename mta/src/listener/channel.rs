//! The byte side of a session: input until a line or content is complete, replies until they are
//! flushed. Knows timeouts and line ends, no order of commands.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::handler::HandlerReply;
use crate::smtp::Stream;

/// Longest command line: 512 octets and what the offered extensions add (RFC 5321 4.5.3.1.4).
const COMMAND_BYTES_MAX: usize = 1024;
const READ_BYTES: usize = 16 * 1024;
/// Replies waiting beyond this are written even if more commands are at hand.
const OUTPUT_BYTES_MAX: usize = 16 * 1024;
/// How long a closed session still reads, so that its last reply arrives.
const LINGER: Duration = Duration::from_secs(1);

/// Why a session ends; the reply, if any, has been written.
pub(super) enum SessionEnd {
    Done,
    Io(io::Error),
}

impl From<io::Error> for SessionEnd {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

pub(super) type Step<T = ()> = Result<T, SessionEnd>;

/// A stream with what was read and not used, and what was said and not sent.
pub(super) struct Channel {
    /// Absent only while, and after a failed, TLS handshake.
    stream: Option<Stream>,
    pub(super) input: BytesMut,
    output: Vec<u8>,
    idle_timeout: Duration,
    shutdown: CancellationToken,
}

impl Channel {
    pub(super) fn new(stream: Stream, idle_timeout: Duration, shutdown: CancellationToken) -> Self {
        Self {
            stream: Some(stream),
            input: BytesMut::with_capacity(READ_BYTES),
            output: Vec::with_capacity(1024),
            idle_timeout,
            shutdown,
        }
    }

    /// Queues octets that are already in reply form.
    pub(super) fn push_raw(&mut self, octets: &[u8]) {
        self.output.extend_from_slice(octets);
    }

    /// Queues a reply; writes only if very much is waiting.
    pub(super) async fn push(&mut self, reply: &HandlerReply) -> Step {
        push_reply(&mut self.output, reply);
        if self.output.len() > OUTPUT_BYTES_MAX {
            self.flush().await
        } else {
            Ok(())
        }
    }

    /// The last reply of a session.
    pub(super) async fn close_with<T>(&mut self, reply: &HandlerReply) -> Step<T> {
        push_reply(&mut self.output, reply);
        self.close().await
    }

    /// Ends the session after what is queued.
    pub(super) async fn close<T>(&mut self) -> Step<T> {
        self.flush().await?;
        Err(SessionEnd::Done)
    }

    /// The TLS handshake, in the place of the clear stream.
    pub(super) async fn secure(&mut self, tls: TlsAcceptor) -> Step<Option<&'static str>> {
        self.flush().await?;
        let Some(Stream::Clear(tcp)) = self.stream.take() else {
            return Err(SessionEnd::Done);
        };
        let deadline = Instant::now() + self.idle_timeout;
        let accepted = timeout_at(deadline, tls.accept(tcp)).await;
        let accepted = accepted.map_err(|_| SessionEnd::Io(io::ErrorKind::TimedOut.into()))??;
        let stream = Stream::Tls(Box::new(accepted.into()));
        let version = stream.tls_version();
        self.stream = Some(stream);
        Ok(version)
    }

    /// Closes our side and reads what still comes, briefly: closing with unread input makes a
    /// reset, which can overtake the last reply.
    pub(super) async fn linger(&mut self) {
        let Some(stream) = &mut self.stream else {
            return;
        };
        let closing = async {
            stream.shutdown().await?;
            let mut ignored = [0_u8; 4096];
            while stream.read(&mut ignored).await? > 0 {}
            io::Result::Ok(())
        };
        // Nothing depends on how this ends.
        let _ = timeout_at(Instant::now() + LINGER, closing).await;
    }

    pub(super) async fn flush(&mut self) -> Step {
        if self.output.is_empty() {
            return Ok(());
        }
        let Some(stream) = &mut self.stream else {
            return Err(SessionEnd::Done);
        };
        let deadline = Instant::now() + self.idle_timeout;
        let write = async {
            stream.write_all(&self.output).await?;
            stream.flush().await
        };
        timeout_at(deadline, write)
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        self.output.clear();
        Ok(())
    }

    /// Reads more input. Each read must bring something within the idle timeout, and all of them
    /// together must be done by `deadline`.
    pub(super) async fn fill(&mut self, deadline: Instant) -> Step {
        self.flush().await?;
        let Some(stream) = &mut self.stream else {
            return Err(SessionEnd::Done);
        };
        self.input.reserve(READ_BYTES);
        let deadline = deadline.min(Instant::now() + self.idle_timeout);
        match timeout_at(deadline, stream.read_buf(&mut self.input)).await {
            Ok(Ok(0)) => Err(SessionEnd::Done),
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => {
                let late = HandlerReply::new(421, Some((4, 4, 2)), "Timeout");
                self.close_with(&late).await
            }
        }
    }

    /// The next command line without its CRLF.
    pub(super) async fn command_line(&mut self) -> Step<BytesMut> {
        let deadline = Instant::now() + self.idle_timeout;
        loop {
            if let Some(lf) = self.input.iter().position(|byte| *byte == b'\n') {
                if lf == 0 || self.input[lf - 1] != b'\r' {
                    return self.refuse_line("Lines end with CRLF").await;
                }
                if lf < COMMAND_BYTES_MAX {
                    let mut line = self.input.split_to(lf + 1);
                    line.truncate(lf - 1);
                    return Ok(line);
                }
            }
            if self.input.len() >= COMMAND_BYTES_MAX {
                return self.refuse_line("Line too long").await;
            }
            // Only here, between commands, may shutdown interrupt: replies are out and no
            // transaction is half answered. Flushed first, because a write must not be cut.
            self.flush().await?;
            let shutdown = self.shutdown.clone();
            tokio::select! {
                biased;
                filled = self.fill(deadline) => filled?,
                () = shutdown.cancelled() => {
                    let text = "Service shutting down";
                    return self.close_with(&HandlerReply::new(421, Some((4, 3, 2)), text)).await;
                }
            }
        }
    }

    /// Where the next command begins is unknown now, so the connection ends.
    async fn refuse_line(&mut self, text: &'static str) -> Step<BytesMut> {
        self.close_with(&HandlerReply::new(500, Some((5, 5, 2)), text))
            .await
    }
}

fn push_reply(output: &mut Vec<u8>, reply: &HandlerReply) {
    // Handler text may quote remote data; it must not become a second reply line.
    let clean = |byte: u8| if byte.is_ascii_control() { b' ' } else { byte };
    output.extend_from_slice(reply.code.to_string().as_bytes());
    output.push(b' ');
    if let Some((class, subject, detail)) = reply.enhanced {
        output.extend_from_slice(format!("{class}.{subject}.{detail} ").as_bytes());
    }
    output.extend(reply.text.bytes().map(clean));
    output.extend_from_slice(b"\r\n");
}
