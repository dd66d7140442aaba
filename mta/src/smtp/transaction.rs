//! One mail transaction: envelope, content, and the final dot as a step of its own.
//!
//! One recipient a transaction: one delivery, one outcome. After the dot the message is the
//! server's; everything before it can be tried again without a doubt.

use mail::envelope::Envelope;
use mail::judge::Stage;
use mail::reply::Reply;
use tokio::time::Instant;

use super::connection::Connection;
use super::content::{DotStuffer, WireContent};
use super::failure::{Extension, FailureKind, SmtpFailure};

/// Content up to this size waits for the dot and leaves with it in one write: it fits the first
/// congestion window (ten segments, RFC 6928), so sending it earlier would gain nothing.
const HELD_BYTES_MAX: usize = 14 * 1024;
/// Content beyond is written in blocks of this size.
const BLOCK_BYTES: usize = 64 * 1024;
const FINAL_DOT: &[u8] = b".\r\n";

impl Connection {
    /// Sends MAIL, RCPT and DATA, in one write if the server does PIPELINING, and reads each
    /// reply in order (RFC 2920). Returns once the server waits for content.
    ///
    /// # Errors
    /// The stage that refused. The connection stays usable where the protocol allows it.
    pub async fn begin<'c, 'm>(
        &'c mut self,
        envelope: &Envelope,
        content: &WireContent<'m>,
    ) -> Result<Transaction<'c, 'm>, SmtpFailure> {
        self.transcript.begin_transaction();
        if self.is_stale() {
            let kind = self.last_words(FailureKind::Closed).await;
            return Err(self.failure(Stage::Mail, kind));
        }
        self.check_extensions(envelope, content)?;
        self.usable = false;
        let mail = self.mail_command(envelope, content);
        let rcpt = format!("RCPT TO:<{}>", envelope.recipient());
        if self.capabilities.pipelining {
            self.begin_pipelined(&mail, &rcpt).await?;
        } else {
            self.begin_stepwise(&mail, &rcpt).await?;
        }
        Ok(Transaction {
            connection: self,
            content: *content,
            outgoing: Vec::new(),
            content_sent: false,
        })
    }

    /// What cannot be sent here is refused before anything is (RFC 1870 section 6.1 and kin).
    fn check_extensions(
        &mut self,
        envelope: &Envelope,
        content: &WireContent<'_>,
    ) -> Result<(), SmtpFailure> {
        let offered = &self.capabilities;
        let smtputf8 = envelope.needs_smtputf8() || content.needs_smtputf8();
        let kind = if smtputf8 && !offered.smtputf8 {
            FailureKind::NotOffered(Extension::SmtpUtf8)
        } else if content.eight_bit() && !offered.eight_bit_mime {
            FailureKind::NotOffered(Extension::EightBitMime)
        } else {
            match offered.size_max {
                Some(size_max) if content.len() as u64 > size_max => {
                    FailureKind::TooLarge { size_max }
                }
                _ => return Ok(()),
            }
        };
        let usable = self.usable;
        let failure = self.failure(Stage::Mail, kind);
        self.usable = usable;
        Err(SmtpFailure {
            connection_usable: usable,
            ..failure
        })
    }

    fn mail_command(&self, envelope: &Envelope, content: &WireContent<'_>) -> String {
        let mut command = format!("MAIL FROM:{}", envelope.reverse_path());
        if self.capabilities.size {
            command.push_str(&format!(" SIZE={}", content.len()));
        }
        if content.eight_bit() {
            command.push_str(" BODY=8BITMIME");
        }
        if envelope.needs_smtputf8() || content.needs_smtputf8() {
            command.push_str(" SMTPUTF8");
        }
        command
    }

    async fn begin_stepwise(&mut self, mail: &str, rcpt: &str) -> Result<(), SmtpFailure> {
        if self.needs_rset {
            let reply = self
                .command("RSET", Stage::Mail, self.deadlines.mail)
                .await?;
            self.expect_reset(reply)?;
        }
        let reply = self.command(mail, Stage::Mail, self.deadlines.mail).await?;
        if !reply.is_positive() {
            return Err(self.refused_in_order(Stage::Mail, reply));
        }
        self.needs_rset = true;
        let reply = self.command(rcpt, Stage::Rcpt, self.deadlines.rcpt).await?;
        if !reply.is_positive() {
            return Err(self.refused_in_order(Stage::Rcpt, reply));
        }
        let reply = self
            .command("DATA", Stage::Data, self.deadlines.data)
            .await?;
        if !reply.is_intermediate() {
            return Err(self.refused_in_order(Stage::Data, reply));
        }
        Ok(())
    }

    async fn begin_pipelined(&mut self, mail: &str, rcpt: &str) -> Result<(), SmtpFailure> {
        let deadline = Instant::now() + self.deadlines.mail;
        if self.needs_rset {
            self.send(&["RSET", mail, rcpt, "DATA"], Stage::Mail, deadline)
                .await?;
            let reply = self.reply(Stage::Mail, deadline).await?;
            self.expect_reset(reply)?;
        } else {
            self.send(&[mail, rcpt, "DATA"], Stage::Mail, deadline)
                .await?;
        }
        let mail_reply = self.reply(Stage::Mail, deadline).await?;
        if ends_dialogue(&mail_reply) {
            return Err(self.refused(Stage::Mail, mail_reply));
        }
        let mail_taken = mail_reply.is_positive();
        self.needs_rset = mail_taken;

        let deadline = Instant::now() + self.deadlines.rcpt;
        let rcpt_reply = match self.reply(Stage::Rcpt, deadline).await {
            Ok(reply) => reply,
            // The refusal that was read counts; that the connection then broke does not.
            Err(_) if !mail_taken => return Err(self.refused(Stage::Mail, mail_reply)),
            Err(failure) => return Err(failure),
        };
        let refused = match (mail_taken, rcpt_reply.is_positive()) {
            (true, true) => None,
            (true, false) if ends_dialogue(&rcpt_reply) => {
                return Err(self.refused(Stage::Rcpt, rcpt_reply));
            }
            (true, false) => Some((Stage::Rcpt, rcpt_reply)),
            (false, _) => Some((Stage::Mail, mail_reply)),
        };

        let deadline = Instant::now() + self.deadlines.data;
        let data_reply = self.reply(Stage::Data, deadline).await;
        let Some((stage, refusal)) = refused else {
            let data_reply = data_reply?;
            if !data_reply.is_intermediate() {
                return Err(self.refused_in_order(Stage::Data, data_reply));
            }
            return Ok(());
        };
        let synchronised = match data_reply {
            Ok(reply) if reply.is_intermediate() => self.end_without_content(mail_taken).await,
            Ok(reply) => !is_farewell(&reply) && !reply.is_positive(),
            Err(_) => false,
        };
        if synchronised {
            return Err(self.refused_in_order(stage, refusal));
        }
        Err(self.refused(stage, refusal))
    }

    /// DATA was answered 354 though nobody is there to get the message: a lone dot ends it
    /// (RFC 2920 section 3.1). True if the connection is in order after that.
    async fn end_without_content(&mut self, mail_taken: bool) -> bool {
        // A server that refused MAIL and wants content anyway might deliver the empty message.
        if !mail_taken {
            return false;
        }
        self.transcript.sent(".");
        let deadline = Instant::now() + self.deadlines.data;
        if self.wire.write(FINAL_DOT, deadline).await.is_err() {
            return false;
        }
        let reply = self.reply(Stage::Data, deadline).await;
        reply.is_ok_and(|reply| !is_farewell(&reply) && !reply.is_intermediate())
    }

    fn expect_reset(&mut self, reply: Reply) -> Result<(), SmtpFailure> {
        if !reply.is_positive() {
            return Err(self.refused(Stage::Mail, reply));
        }
        self.needs_rset = false;
        Ok(())
    }

    /// A refusal after which the dialogue is in step again: the connection stays, except after
    /// 421 (RFC 5321 section 3.8) and replies that are no refusals.
    fn refused_in_order(&mut self, stage: Stage, reply: Reply) -> SmtpFailure {
        let refusal = reply.is_transient() || reply.is_permanent();
        let stays = refusal && !is_farewell(&reply);
        let failure = self.refused(stage, reply);
        self.usable = stays;
        SmtpFailure {
            connection_usable: stays,
            ..failure
        }
    }
}

/// No use waiting for the replies behind this one: a farewell, or no answer to our command.
fn ends_dialogue(reply: &Reply) -> bool {
    is_farewell(reply) || reply.is_intermediate()
}

fn is_farewell(reply: &Reply) -> bool {
    reply.code().get() == 421
}

/// A transaction the server waits to get the content of.
///
/// Dropping it, like [`Transaction::abort`], leaves the connection unusable: there is no way
/// back from DATA but closing.
#[derive(Debug)]
#[must_use = "the server waits for the content"]
pub struct Transaction<'c, 'm> {
    connection: &'c mut Connection,
    content: WireContent<'m>,
    /// Stuffed content that has not been written yet.
    outgoing: Vec<u8>,
    content_sent: bool,
}

impl Transaction<'_, '_> {
    /// Writes the content, dot-stuffed, without the final dot. May run beside whatever decides
    /// about the dot. Small content is kept back to leave together with the dot.
    ///
    /// # Errors
    /// When the connection breaks or the server refuses early; the dot was not sent.
    pub async fn send_body(&mut self) -> Result<(), SmtpFailure> {
        if self.content_sent {
            return Ok(());
        }
        self.content_sent = true;
        let mut stuffer = DotStuffer::new();
        for part in self.content.parts() {
            for block in part.chunks(BLOCK_BYTES) {
                stuffer.push(block, &mut self.outgoing);
                if self.outgoing.len() >= BLOCK_BYTES {
                    self.write_outgoing().await?;
                }
            }
        }
        if !self.content.ends_with_crlf() {
            self.outgoing.extend_from_slice(b"\r\n");
        }
        if self.outgoing.len() > HELD_BYTES_MAX {
            self.write_outgoing().await?;
        }
        Ok(())
    }

    /// Sends the final dot and reads the final reply: with a positive one the message is the
    /// server's. Sends the content first if that has not happened.
    ///
    /// # Errors
    /// A refusal, or a break; `dot_sent` says whether the outcome is in doubt.
    pub async fn finish(mut self) -> Result<Reply, SmtpFailure> {
        self.send_body().await?;
        let connection = self.connection;
        // A server that has already spoken has given up (421 while we waited), or is out of step
        // with us, and then a stray 250 would be taken for the final reply.
        if connection.wire.has_news() {
            let soon = Instant::now() + connection.deadlines.data;
            let reply = connection.reply(Stage::Dot, soon).await?;
            return Err(connection.refused(Stage::Dot, reply));
        }
        self.outgoing.extend_from_slice(FINAL_DOT);
        let octets = self.content.len();
        connection
            .transcript
            .note(format_args!("{octets} octets of content, final dot"));
        let written = Instant::now() + connection.deadlines.data_block;
        if let Err(failed) = connection.wire.write(&self.outgoing, written).await {
            let kind = connection.last_words(failed.kind).await;
            let dot_sent = failed.unsent < FINAL_DOT.len();
            return Err(SmtpFailure {
                dot_sent,
                ..connection.failure(Stage::Dot, kind)
            });
        }
        let deadline = Instant::now() + connection.deadlines.final_dot;
        let reply = connection.reply(Stage::Dot, deadline).await;
        let reply = reply.map_err(|failure| SmtpFailure {
            dot_sent: true,
            ..failure
        })?;
        // With its reply the transaction is over, whichever it is (RFC 5321 section 4.1.1.4).
        connection.needs_rset = false;
        if reply.is_positive() {
            connection.messages_sent += 1;
            connection.usable = true;
            return Ok(reply);
        }
        let failure = connection.refused_in_order(Stage::Dot, reply);
        Err(SmtpFailure {
            dot_sent: true,
            ..failure
        })
    }

    /// Gives the transaction up without a dot: nothing will be delivered. The connection can
    /// only be dropped after this.
    pub fn abort(self) {
        self.connection
            .transcript
            .note(format_args!("given up before the final dot"));
    }

    async fn write_outgoing(&mut self) -> Result<(), SmtpFailure> {
        let deadline = Instant::now() + self.connection.deadlines.data_block;
        if let Err(failed) = self.connection.wire.write(&self.outgoing, deadline).await {
            let kind = self.connection.last_words(failed.kind).await;
            return Err(self.connection.failure(Stage::Dot, kind));
        }
        self.outgoing.clear();
        Ok(())
    }
}
