//! One server session: reads commands, keeps the protocol's order, asks the handler, answers.
//!
//! Replies to pipelined commands leave together, before the next wait (RFC 2920 section 3.2).

use std::convert::Infallible;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::channel::{Channel, SessionEnd, Step};
use super::command::Command;
use super::config::ListenerConfig;
use super::data::{ContentFault, DataDecoder, Progress, has_bare_line_end};
use super::handler::{After, HandlerReply, MailFrom, Received, SessionHandler, SessionInfo};
use super::transaction::{Transaction, bad_sequence, may_open, may_send_data, too_large};
use crate::smtp::Stream;

pub(super) struct Session<H> {
    channel: Channel,
    config: Arc<ListenerConfig>,
    handler: H,
    info: SessionInfo,
    transaction: Option<Transaction>,
    errors: u32,
    idle_commands: u32,
}

impl<H: SessionHandler> Session<H> {
    pub(super) fn new(
        stream: Stream,
        info: SessionInfo,
        handler: H,
        config: Arc<ListenerConfig>,
        shutdown: CancellationToken,
    ) -> Self {
        Self {
            channel: Channel::new(stream, config.idle_timeout, shutdown),
            config,
            handler,
            info,
            transaction: None,
            errors: 0,
            idle_commands: 0,
        }
    }

    /// Serves the connection until it ends.
    pub(super) async fn run(mut self) -> SessionEnd {
        match self.serve().await {
            Err(end) => {
                self.channel.linger().await;
                end
            }
            Ok(never) => match never {},
        }
    }

    async fn serve(&mut self) -> Step<Infallible> {
        let greeting = self.handler.on_connect(&self.info).await;
        let greeting = HandlerReply {
            text: format!("{} {}", self.config.host_name, greeting.text).into(),
            ..greeting
        };
        let refused = !greeting.is_positive();
        self.answer(greeting).await?;
        if refused {
            return self.channel.close().await;
        }
        loop {
            let line = self.channel.command_line().await?;
            match Command::parse(&line) {
                Ok(command) => self.obey(command).await?,
                Err(refusal) => self.protocol_error(refusal).await?,
            }
        }
    }

    async fn obey(&mut self, command: Command) -> Step {
        match command {
            Command::Ehlo(name) => self.hello(name, true).await,
            Command::Helo(name) => self.hello(name, false).await,
            Command::StartTls => self.start_tls().await,
            Command::Mail(mail) => self.mail(mail).await,
            Command::Rcpt(recipient) => self.rcpt(recipient).await,
            Command::Data => self.data().await,
            Command::Bdat { octets, last } => self.bdat(octets, last).await,
            Command::Rset => {
                self.transaction = None;
                self.idle_command(HandlerReply::ok("Reset")).await
            }
            Command::Noop => self.idle_command(HandlerReply::ok("Ok")).await,
            Command::Vrfy => {
                let text = "Cannot VRFY, but will accept and try";
                self.idle_command(HandlerReply::new(252, Some((2, 5, 0)), text))
                    .await
            }
            Command::Help => {
                self.idle_command(HandlerReply::new(214, Some((2, 0, 0)), "See RFC 5321"))
                    .await
            }
            Command::Quit => {
                let bye = HandlerReply::new(221, Some((2, 0, 0)), "Bye");
                self.answer(bye.then_close()).await
            }
        }
    }

    async fn hello(&mut self, name: String, extended: bool) -> Step {
        self.info.helo = name;
        self.transaction = None;
        let config = &self.config;
        let mut reply = format!("250 {}\r\n", config.host_name);
        if extended {
            let starttls = config.tls.is_some() && self.info.tls.is_none();
            reply = format!(
                "250-{}\r\n250-PIPELINING\r\n250-SIZE {}\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n\
                 250-CHUNKING\r\n{}250 ENHANCEDSTATUSCODES\r\n",
                config.host_name,
                config.max_message_bytes,
                if starttls { "250-STARTTLS\r\n" } else { "" },
            );
        }
        self.channel.push_raw(reply.as_bytes());
        self.count_idle_command().await
    }

    async fn start_tls(&mut self) -> Step {
        let Some(tls) = self.config.tls.clone() else {
            let text = "STARTTLS is not offered";
            return self
                .protocol_error(HandlerReply::new(502, Some((5, 5, 1)), text))
                .await;
        };
        if self.info.tls.is_some() {
            return self
                .protocol_error(bad_sequence("TLS is already active"))
                .await;
        }
        // What was sent in clear behind STARTTLS must not count as sent inside TLS
        // (RFC 3207 section 4.2): command injection.
        if !self.channel.input.is_empty() {
            let text = "Nothing may follow STARTTLS before the handshake";
            let refusal = HandlerReply::new(554, Some((5, 5, 1)), text);
            return self.answer(refusal.then_close()).await;
        }
        self.answer(HandlerReply::new(
            220,
            Some((2, 0, 0)),
            "Ready to start TLS",
        ))
        .await?;
        self.info.tls = self.channel.secure(TlsAcceptor::from(tls)).await?;
        // Knowledge from before the handshake is void (RFC 3207 section 4.2).
        self.info.helo.clear();
        self.transaction = None;
        Ok(())
    }

    async fn mail(&mut self, mail: MailFrom) -> Step {
        if self.info.helo.is_empty() {
            return self.protocol_error(bad_sequence("Say EHLO first")).await;
        }
        if self.transaction.is_some() {
            return self.protocol_error(bad_sequence("Nested MAIL")).await;
        }
        if let Err(refusal) = may_open(&mail, self.config.max_message_bytes) {
            return self.protocol_error(refusal).await;
        }
        let reply = self.handler.on_mail(&mail).await;
        if reply.is_positive() {
            self.transaction = Some(Transaction::new(mail));
        }
        self.answer(reply).await
    }

    async fn rcpt(&mut self, recipient: String) -> Step {
        let Some(open) = &self.transaction else {
            return self.protocol_error(bad_sequence("Need MAIL first")).await;
        };
        if let Err(refusal) = open.may_add_recipient(&recipient, self.config.max_recipients) {
            return self.answer(refusal).await;
        }
        let reply = self.handler.on_rcpt(&recipient).await;
        if let Some(open) = &mut self.transaction
            && reply.is_positive()
        {
            open.rcpts.push(recipient);
        }
        self.answer(reply).await
    }

    async fn data(&mut self) -> Step {
        if let Err(refusal) = may_send_data(self.transaction.as_ref()) {
            return self.protocol_error(refusal).await;
        }
        self.answer(HandlerReply::new(
            354,
            None,
            "Go ahead, end with <CRLF>.<CRLF>",
        ))
        .await?;
        let deadline = Instant::now() + self.config.data_timeout;
        let mut decoder = DataDecoder::new(self.config.max_message_bytes);
        loop {
            match decoder.push(&mut self.channel.input) {
                Progress::Complete => break,
                Progress::Hopeless => return self.answer(too_large().then_close()).await,
                Progress::NeedMore => self.channel.fill(deadline).await?,
            }
        }
        self.complete(decoder.finish()).await
    }

    /// One chunk of RFC 3030. Its octets are read whatever the answer is, because they are not
    /// commands; a chunk that can never fit ends the connection unread.
    async fn bdat(&mut self, octets: u64, last: bool) -> Step {
        let held = self
            .transaction
            .as_ref()
            .and_then(|open| open.chunks.as_ref());
        let held = held.map_or(0, BytesMut::len);
        let room = self.config.max_message_bytes.saturating_sub(held);
        let Some(octets) = usize::try_from(octets)
            .ok()
            .filter(|octets| *octets <= room)
        else {
            return self.answer(too_large().then_close()).await;
        };
        let deadline = Instant::now() + self.config.data_timeout;
        while self.channel.input.len() < octets {
            self.channel.fill(deadline).await?;
        }
        let chunk = self.channel.input.split_to(octets);
        let Some(open) = self
            .transaction
            .as_mut()
            .filter(|open| !open.rcpts.is_empty())
        else {
            return self
                .protocol_error(bad_sequence("No valid recipients"))
                .await;
        };
        let chunks = open.chunks.get_or_insert_default();
        chunks.extend_from_slice(&chunk);
        if !last {
            return self.answer(HandlerReply::ok("Chunk received")).await;
        }
        let content = std::mem::take(chunks).freeze();
        let bare = has_bare_line_end(&content);
        self.complete(if bare {
            Err(ContentFault::BareLineEnd)
        } else {
            Ok(content)
        })
        .await
    }

    /// The whole content has arrived: the transaction ends here, one way or the other.
    async fn complete(&mut self, content: Result<Bytes, ContentFault>) -> Step {
        let Some(open) = self.transaction.take() else {
            return Ok(());
        };
        let data = match content {
            Ok(data) => data,
            Err(ContentFault::TooLarge) => return self.protocol_error(too_large()).await,
            Err(ContentFault::BareLineEnd) => {
                let text = "Bare CR or LF in content; lines end with CRLF";
                return self
                    .protocol_error(HandlerReply::new(550, Some((5, 6, 0)), text))
                    .await;
            }
        };
        let received = Received {
            mail_from: open.mail_from,
            rcpts: open.rcpts,
            data,
            session: self.info.clone(),
        };
        // The handler may take long; a client that sent content early shall not miss its 354.
        self.channel.flush().await?;
        let reply = self.handler.on_data(received).await;
        if reply.is_positive() {
            self.errors = 0;
            self.idle_commands = 0;
        }
        self.answer(reply).await
    }

    async fn idle_command(&mut self, reply: HandlerReply) -> Step {
        self.answer(reply).await?;
        self.count_idle_command().await
    }

    async fn count_idle_command(&mut self) -> Step {
        self.idle_commands += 1;
        if self.idle_commands <= self.config.max_idle_commands {
            return Ok(());
        }
        let text = "Too many commands without mail";
        self.answer(HandlerReply::new(421, Some((4, 7, 0)), text))
            .await
    }

    async fn protocol_error(&mut self, refusal: HandlerReply) -> Step {
        self.answer(refusal).await?;
        self.errors += 1;
        if self.errors <= self.config.max_errors {
            return Ok(());
        }
        self.answer(HandlerReply::new(421, Some((4, 7, 0)), "Too many errors"))
            .await
    }

    /// Queues a reply; waits, closes or drops the connection as it asks.
    async fn answer(&mut self, reply: HandlerReply) -> Step {
        if let Some(delay) = reply.delay {
            // Replies that are ready must not wait for one that is not.
            self.channel.flush().await?;
            tokio::time::sleep(delay).await;
        }
        match reply.after {
            After::Drop => self.channel.close().await,
            After::Close => self.channel.close_with(&reply).await,
            After::Continue if reply.code == 421 => self.channel.close_with(&reply).await,
            After::Continue => self.channel.push(&reply).await,
        }
    }
}
