//! One session of the sink: the order of commands, the drawn answers, and what is counted before
//! the reply goes.

use std::sync::Arc;

use tokio_rustls::TlsAcceptor;

use super::behaviour::{Behaviour, Behaviours};
use super::content::Content;
use super::reply_mix::{Refusal, RefusalStage};
use super::shared::{Fate, Shared};
use super::wire::{End, Wire};

const SENDER_OK: &str = "250 2.1.0 Sender ok\r\n";
const RECIPIENT_OK: &str = "250 2.1.5 Recipient ok\r\n";
const GO_AHEAD: &str = "354 Go ahead, end with <CRLF>.<CRLF>\r\n";
const TAKEN: &str = "250 2.0.0 Accepted and forgotten\r\n";
const NOT_NOW: &str = "503 5.5.1 Bad sequence of commands\r\n";
const NOT_UNDERSTOOD: &str = "500 5.5.1 Not understood\r\n";

/// A session, with its open transaction.
pub(super) struct Session {
    wire: Wire,
    shared: Arc<Shared>,
    content: Content,
    /// MAIL was accepted.
    is_open: bool,
    recipients: Vec<String>,
}

impl Session {
    pub(super) fn new(wire: Wire, shared: Arc<Shared>) -> Self {
        shared.stats.connected();
        Self {
            wire,
            shared,
            content: Content::default(),
            is_open: false,
            recipients: Vec::new(),
        }
    }

    /// Until the client quits, the connection is lost, or the sink stops.
    pub(super) async fn serve(mut self) {
        let shared = self.shared.clone();
        let ended = self.converse().await;
        if matches!(ended, Err(End::Shutdown)) {
            self.wire.say("421 4.3.2 The sink stops\r\n");
        }
        if !matches!(ended, Err(End::Lost)) {
            // The client may have gone already.
            let _ = self.wire.flush().await;
        }
        shared.stats.disconnected();
    }

    async fn converse(&mut self) -> Result<(), End> {
        let others = self.behaviours().others.clone();
        self.hold_back(&others).await?;
        self.wire
            .say(&format!("220 {} ESMTP sink\r\n", self.shared.host_name));
        loop {
            let line = self.wire.line().await?;
            let text = std::str::from_utf8(&line).unwrap_or_default();
            let (verb, rest) = text.split_once(' ').unwrap_or((text, ""));
            let is = |name: &str| verb.eq_ignore_ascii_case(name);
            if is("MAIL") {
                self.mail().await?;
            } else if is("RCPT") {
                self.rcpt(rest).await?;
            } else if is("DATA") {
                self.data().await?;
            } else if is("EHLO") || is("HELO") {
                self.hello(is("EHLO")).await?;
            } else if is("RSET") || is("NOOP") {
                if is("RSET") {
                    self.reset();
                }
                self.answer("250 2.0.0 Ok\r\n").await?;
            } else if is("STARTTLS") {
                self.start_tls().await?;
            } else if is("QUIT") {
                self.answer("221 2.0.0 Bye\r\n").await?;
                return Err(End::Done);
            } else {
                self.answer(NOT_UNDERSTOOD).await?;
            }
        }
    }

    async fn hello(&mut self, extended: bool) -> Result<(), End> {
        self.reset();
        let name = &self.shared.host_name;
        let reply = if extended {
            let offers_tls = self.shared.tls.is_some() && !self.wire.is_tls();
            let starttls = if offers_tls { "250-STARTTLS\r\n" } else { "" };
            format!(
                "250-{name}\r\n250-PIPELINING\r\n250-SIZE 104857600\r\n250-8BITMIME\r\n\
                 250-SMTPUTF8\r\n{starttls}250 ENHANCEDSTATUSCODES\r\n"
            )
        } else {
            format!("250 {name}\r\n")
        };
        self.answer(&reply).await
    }

    async fn start_tls(&mut self) -> Result<(), End> {
        let Some(tls) = self.shared.tls.clone().filter(|_| !self.wire.is_tls()) else {
            return self.answer(NOT_NOW).await;
        };
        self.answer("220 2.0.0 Ready to start TLS\r\n").await?;
        self.reset();
        self.wire.secure(&TlsAcceptor::from(tls)).await
    }

    async fn mail(&mut self) -> Result<(), End> {
        if self.is_open {
            return self.answer(NOT_NOW).await;
        }
        let behaviours = self.behaviours();
        self.hold_back(&behaviours.others).await?;
        if self.is_refused(RefusalStage::Mail, &behaviours.others, &[])? {
            return Ok(());
        }
        self.is_open = true;
        self.wire.say(SENDER_OK);
        Ok(())
    }

    async fn rcpt(&mut self, argument: &str) -> Result<(), End> {
        let Some(recipient) = path(argument).filter(|_| self.is_open) else {
            return self.answer(NOT_NOW).await;
        };
        let behaviours = self.behaviours();
        let behaviour = behaviours.towards(recipient);
        self.hold_back(behaviour).await?;
        let recipient = recipient.to_owned();
        if !self.is_refused(
            RefusalStage::Rcpt,
            behaviour,
            std::slice::from_ref(&recipient),
        )? {
            self.recipients.push(recipient);
            self.wire.say(RECIPIENT_OK);
        }
        Ok(())
    }

    async fn data(&mut self) -> Result<(), End> {
        // The first recipient stands for all: a sink's clients send to one domain at a time.
        let Some(recipient) = self.recipients.first() else {
            return self.answer(NOT_NOW).await;
        };
        let behaviours = self.behaviours();
        let behaviour = behaviours.towards(recipient);
        self.hold_back(behaviour).await?;
        self.wire.say(GO_AHEAD);
        self.wire.content(&mut self.content).await?;
        // One that sent content early shall not miss its 354.
        self.wire.flush().await?;
        self.hang().await?;
        self.hold_back(behaviour).await?;
        if let Some(wait) = behaviour.latency.draw() {
            self.wire.pause(wait).await?;
        }
        let recipients = std::mem::take(&mut self.recipients);
        if !self.is_refused(RefusalStage::Dot, behaviour, &recipients)? {
            self.count(&recipients)?;
            self.wire.say(TAKEN);
        }
        self.reset();
        Ok(())
    }

    /// Counts and records what is going to be accepted.
    fn count(&self, recipients: &[String]) -> Result<(), End> {
        let id = self.id();
        let stats = &self.shared.stats;
        stats.accepted_content(self.content.octets(), self.wire.is_tls());
        for recipient in recipients {
            stats.accepted_copy(id, recipient);
        }
        self.write_down(id, recipients, Fate::Accepted)
    }

    /// Waits while the sink is told to hang.
    async fn hang(&mut self) -> Result<(), End> {
        if !self.behaviours().hang {
            return Ok(());
        }
        self.write_down(self.id(), &self.recipients, Fate::Held)?;
        self.shared.stats.held();
        let mut behaviours = self.shared.behaviours.subscribe();
        let go_on = tokio::select! {
            () = self.shared.shutdown.cancelled() => false,
            changed = behaviours.wait_for(|now| !now.hang) => changed.is_ok(),
        };
        self.shared.stats.released();
        // Nothing is said of it at the end: whether it was taken stays unknown.
        if go_on { Ok(()) } else { Err(End::Lost) }
    }

    /// Draws the answer of a command. True: it is refused, which is counted, recorded and said.
    fn is_refused(
        &mut self,
        stage: RefusalStage,
        behaviour: &Behaviour,
        recipients: &[String],
    ) -> Result<bool, End> {
        let Some(refusal) = behaviour.replies.draw(stage) else {
            return Ok(false);
        };
        let fate = Fate::of(refusal);
        self.shared.stats.not_accepted(fate);
        // Before the content there is no id; that of the message before is not this one's.
        let id = self.id().filter(|_| stage == RefusalStage::Dot);
        self.write_down(id, recipients, fate)?;
        match refusal {
            Refusal::Drop => Err(End::Done),
            Refusal::Reply { code, line } => {
                self.wire.say(line);
                if *code == 421 {
                    Err(End::Done)
                } else {
                    Ok(true)
                }
            }
        }
    }

    /// Of the content that came last.
    fn id(&self) -> Option<&str> {
        self.content.header_value(&self.shared.id_header)
    }

    fn write_down(&self, id: Option<&str>, recipients: &[String], fate: Fate) -> Result<(), End> {
        self.shared
            .write_down(id, recipients, fate)
            .map_err(|_incomplete| End::Lost)
    }

    /// The tarpit.
    async fn hold_back(&mut self, behaviour: &Behaviour) -> Result<(), End> {
        if behaviour.tarpit.is_zero() {
            return Ok(());
        }
        self.wire.pause(behaviour.tarpit).await
    }

    /// A reply that nothing but the tarpit for all holds back.
    async fn answer(&mut self, reply: &str) -> Result<(), End> {
        let behaviours = self.behaviours();
        self.hold_back(&behaviours.others).await?;
        self.wire.say(reply);
        Ok(())
    }

    fn reset(&mut self) {
        self.is_open = false;
        self.recipients.clear();
    }

    fn behaviours(&self) -> Arc<Behaviours> {
        self.shared.behaviours.borrow().clone()
    }
}

/// What stands between the angle brackets.
fn path(argument: &str) -> Option<&str> {
    let (_, from_bracket) = argument.split_once('<')?;
    let (path, _parameters) = from_bracket.rsplit_once('>')?;
    (!path.is_empty()).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recipient_is_between_the_brackets() {
        assert_eq!(path("TO:<a@b.test> NOTIFY=NEVER"), Some("a@b.test"));
        assert_eq!(path("to:<\"a>b\"@b.test>"), Some("\"a>b\"@b.test"));
        assert_eq!((path("TO:<>"), path("TO:a@b.test")), (None, None));
    }
}
