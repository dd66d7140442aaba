//! Answers the sessions of the sandbox: by behaviour, and with 250 only for what is committed.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::net::NetError;
use mail::address::EmailAddress;
use mail::domain_name::DomainName;
use mail::ids::{InboxId, uuid_v7};
use service::clock::Clock;
use service::shutdown::Shutdown;
use store::{SandboxMessage, Store, StoreError};
use tokio::sync::Notify;

use super::SandboxConfig;
use super::auth_results::{Dialogue, authentication_results};
use super::behaviour::Behaviour;
use super::greylist::Greylist;
use super::report::{self, Reported};
use super::reporter::Reporter;
use super::verify::{Findings, Verifier};
use crate::listener::{HandlerReply, MailFrom, Received, SessionHandler};

/// Between two trims; what is kept grows over the limit by what comes in this time.
const TRIM_PAUSE: Duration = Duration::from_secs(1);

/// What all sessions share.
pub(super) struct Sandbox {
    config: SandboxConfig,
    store: Store,
    clock: Clock,
    verifier: Verifier,
    greylist: Greylist,
    reporter: Reporter,
    stored: Notify,
}

impl Sandbox {
    /// # Errors
    /// The verifier cannot be set up.
    pub(super) fn new(
        config: SandboxConfig,
        store: Store,
        clock: Clock,
        reporter: Reporter,
    ) -> Result<Arc<Self>, NetError> {
        Ok(Arc::new(Self {
            config,
            verifier: Verifier::new(store.clone())?,
            store,
            clock,
            greylist: Greylist::new(),
            reporter,
            stored: Notify::new(),
        }))
    }

    /// Drops old messages after new ones have come, until shutdown.
    pub(super) async fn keep_trimmed(&self, shutdown: &Shutdown) {
        let keep = i64::try_from(self.config.keep).unwrap_or(i64::MAX);
        loop {
            tokio::select! {
                () = self.stored.notified() => {}
                () = shutdown.requested() => return,
            }
            if let Err(error) = self.store.trim_sandbox(keep).await {
                tracing::warn!(%error, "could not trim the sandbox; it grows until that works");
            }
            tokio::select! {
                () = tokio::time::sleep(TRIM_PAUSE) => {}
                () = shutdown.requested() => return,
            }
        }
    }

    fn takes_mail_for(&self, recipient: &str) -> bool {
        let Some(domains) = &self.config.domains else {
            return true;
        };
        // Every server has a postmaster (RFC 5321 section 4.5.1).
        recipient.eq_ignore_ascii_case("postmaster")
            || EmailAddress::parse(recipient)
                .is_ok_and(|address| domains.contains(address.domain()))
    }

    /// Verifies and stores; the row is committed on return.
    async fn keep(&self, received: Received) -> Result<(), StoreError> {
        let findings = self.verifier.check(received.data.clone()).await?;
        let peer = received.session.peer.ip();
        let (helo, mail_from) = (received.session.helo, received.mail_from.address);
        let dialogue = Dialogue {
            helo: &helo,
            mail_from: &mail_from,
        };
        let results = authentication_results(&self.config.host_name, dialogue, &findings);
        let message = SandboxMessage {
            id: InboxId::from_uuid(uuid_v7(self.unix_ms(), rand::random())),
            received_at: self.clock.now(),
            helo,
            mail_from,
            recipients: received.rcpts,
            authentication_results: results,
            raw: received.data.into(),
        };
        self.store.add_sandbox_message(&message).await?;
        self.stored.notify_one();
        self.report(&message, peer, &findings);
        Ok(())
    }

    /// What comes back about a message that was taken; about a report, nothing does.
    fn report(&self, message: &SandboxMessage, peer: IpAddr, findings: &Findings) {
        let Ok(sender) = EmailAddress::parse(&message.mail_from) else {
            return;
        };
        let author = match findings.from.as_slice() {
            [author] => author.rsplit_once('@').map(|(_, domain)| domain),
            _ => None,
        };
        for recipient in &message.recipients {
            let Behaviour::Accept {
                then: Some(kind), ..
            } = self.behaviour(recipient)
            else {
                continue;
            };
            let reported = Reported {
                host_name: &self.config.host_name,
                sender: &sender,
                recipient,
                author_domain: author.filter(|name| DomainName::parse_host(name).is_ok()),
                peer,
                received_at: message.received_at,
                raw: &message.raw,
            };
            let name = uuid_v7(self.unix_ms(), rand::random()).simple().to_string();
            let content = report::write(kind, &reported, &name, self.clock.now());
            self.reporter.send(sender.clone(), content);
        }
    }

    fn behaviour(&self, recipient: &str) -> Behaviour {
        Behaviour::of(recipient, &self.config.domain)
    }

    fn unix_ms(&self) -> u64 {
        u64::try_from(self.clock.unix_ms()).unwrap_or_default()
    }
}

/// One connection.
pub(super) struct SandboxHandler {
    sandbox: Arc<Sandbox>,
    reverse_path: String,
}

impl SandboxHandler {
    pub(super) fn new(sandbox: Arc<Sandbox>) -> Self {
        Self {
            sandbox,
            reverse_path: String::new(),
        }
    }
}

impl SessionHandler for SandboxHandler {
    async fn on_mail(&mut self, mail_from: &MailFrom) -> HandlerReply {
        self.reverse_path.clone_from(&mail_from.address);
        HandlerReply::new(250, Some((2, 1, 0)), "Sender ok")
    }

    async fn on_rcpt(&mut self, recipient: &str) -> HandlerReply {
        if !self.sandbox.takes_mail_for(recipient) {
            return HandlerReply::new(550, Some((5, 7, 1)), "Not a domain of this sandbox");
        }
        match self.sandbox.behaviour(recipient) {
            Behaviour::RefuseRecipient(refusal) => refusal.reply(),
            Behaviour::RefuseFirstTry(refusal)
                if self
                    .sandbox
                    .greylist
                    .is_first_try(&self.reverse_path, recipient) =>
            {
                refusal.reply()
            }
            Behaviour::RefuseFirstTry(_)
            | Behaviour::RefuseContent(_)
            | Behaviour::Accept { .. } => HandlerReply::new(250, Some((2, 1, 5)), "Recipient ok"),
        }
    }

    async fn on_data(&mut self, received: Received) -> HandlerReply {
        let mut delay = Duration::ZERO;
        for recipient in &received.rcpts {
            match self.sandbox.behaviour(recipient) {
                Behaviour::RefuseContent(refusal) => return refusal.reply(),
                Behaviour::Accept { after, .. } => delay = delay.max(after),
                Behaviour::RefuseRecipient(_) | Behaviour::RefuseFirstTry(_) => {}
            }
        }
        match self.sandbox.keep(received).await {
            Ok(()) if delay.is_zero() => HandlerReply::ok("Kept for you to look at"),
            Ok(()) => HandlerReply::ok("Kept for you to look at").after_delay(delay),
            Err(error) => {
                tracing::warn!(%error, "the sandbox could not keep a message");
                HandlerReply::new(451, Some((4, 3, 0)), "Cannot keep it now, try again later")
            }
        }
    }
}
