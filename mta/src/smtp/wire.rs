//! Bytes out, replies in, each against an absolute deadline. Knows no order of commands.

use std::io;

use mail::reply::{Reply, ReplyParser};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};

use super::failure::{FailureKind, ProtocolFault};
use super::stream::Stream;

const READ_BYTES: usize = 4096;

/// A write that did not finish.
#[derive(Debug)]
pub(super) struct WriteFailure {
    pub(super) kind: FailureKind,
    /// Bytes of the buffer that certainly never left, counted from its end.
    pub(super) unsent: usize,
}

/// A stream with a reply parser at its receiving end.
#[derive(Debug)]
pub(super) struct Wire {
    stream: Stream,
    parser: ReplyParser,
    /// Read when nothing was expected; comes before whatever is read next.
    unasked: Vec<u8>,
}

impl Wire {
    pub(super) fn new(stream: Stream) -> Self {
        Self {
            stream,
            parser: ReplyParser::new(),
            unasked: Vec::new(),
        }
    }

    pub(super) fn stream(&self) -> &Stream {
        &self.stream
    }

    /// The bare stream for the TLS handshake, unless something was received that nobody asked for.
    pub(super) fn into_idle_stream(self) -> Result<Stream, FailureKind> {
        if self.has_unread() {
            return Err(FailureKind::Protocol(ProtocolFault::ClearTextBeforeTls));
        }
        Ok(self.stream)
    }

    /// True if the peer spoke or closed though it is our turn.
    pub(super) fn has_news(&mut self) -> bool {
        if self.has_unread() {
            return true;
        }
        let mut octets = [0_u8; READ_BYTES];
        match self.stream.try_read(&mut octets) {
            None => false,
            Some(read) => {
                // An end or an error shows again when the reply is read.
                self.unasked.extend_from_slice(&octets[..read.unwrap_or(0)]);
                true
            }
        }
    }

    fn has_unread(&self) -> bool {
        self.parser.has_unread() || !self.unasked.is_empty()
    }

    /// Writes all of `bytes`.
    pub(super) async fn write(
        &mut self,
        bytes: &[u8],
        deadline: Instant,
    ) -> Result<(), WriteFailure> {
        let mut sent = 0;
        while sent < bytes.len() {
            let written = timeout_at(deadline, self.stream.write(&bytes[sent..])).await;
            let kind = match written {
                Ok(Ok(0)) => FailureKind::Closed,
                Ok(Ok(count)) => {
                    sent += count;
                    continue;
                }
                Ok(Err(error)) => {
                    // A TLS stream may have taken and sent part of what it reports as failed.
                    let unsent = if self.stream.is_tls() {
                        0
                    } else {
                        bytes.len() - sent
                    };
                    return Err(WriteFailure {
                        kind: FailureKind::from_io(error),
                        unsent,
                    });
                }
                Err(_) => FailureKind::Timeout,
            };
            return Err(WriteFailure {
                kind,
                unsent: bytes.len() - sent,
            });
        }
        let flushed = timeout_at(deadline, self.stream.flush()).await;
        let flushed = flushed.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        flushed.map_err(|error| WriteFailure {
            kind: FailureKind::from_io(error),
            unsent: 0,
        })
    }

    /// The next reply. The deadline holds for the whole of it, however it trickles in.
    pub(super) async fn reply(&mut self, deadline: Instant) -> Result<Reply, FailureKind> {
        let unreadable = |error| FailureKind::Protocol(ProtocolFault::Reply(error));
        let unasked = std::mem::take(&mut self.unasked);
        let mut complete = self.parser.feed(&unasked).map_err(unreadable)?;
        let mut octets = [0_u8; READ_BYTES];
        loop {
            if let Some(reply) = complete {
                return Ok(reply);
            }
            // Asked here and not only by the timer: a peer that always has another byte ready
            // would keep the read from ever waiting.
            if Instant::now() >= deadline {
                return Err(FailureKind::Timeout);
            }
            let count = match timeout_at(deadline, self.stream.read(&mut octets)).await {
                Ok(Ok(0)) => return Err(FailureKind::Closed),
                Ok(Ok(count)) => count,
                Ok(Err(error)) => return Err(FailureKind::from_io(error)),
                Err(_) => return Err(FailureKind::Timeout),
            };
            complete = self.parser.feed(&octets[..count]).map_err(unreadable)?;
        }
    }
}
