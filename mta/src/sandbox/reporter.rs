//! Sends reports about mail that was taken, a little later, as mail of their own over SMTP. They
//! wait in memory: a stop loses those that were not sent, as it may with any receiver.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mail::address::EmailAddress;
use mail::envelope::{Envelope, ReversePath};
use rustls::ClientConfig;
use service::shutdown::Shutdown;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::time::{Instant, sleep_until};

use crate::smtp::{
    ConnectConfig, Connection, Deadlines, SmtpFailure, TlsMode, WireContent,
    opportunistic_client_config,
};

/// From the answer to the final dot to the report: what was sent is then settled.
const DELAY: Duration = Duration::from_secs(2);
/// Reports that wait; those beyond are not written.
const WAITING_MAX: usize = 256;
/// Each step of the dialogue.
const STEP_PATIENCE: Duration = Duration::from_secs(10);
/// After each try but the last.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(5)];

struct Report {
    recipient: EmailAddress,
    content: String,
    due: Instant,
}

/// Takes reports from sessions.
pub(super) struct Reporter {
    waiting: Sender<Report>,
}

/// Sends what was taken.
pub(super) struct ReportSender {
    waiting: Receiver<Report>,
    server: SocketAddr,
    host_name: String,
    tls: Arc<ClientConfig>,
}

/// A reporter, and what has to run for it. Reports go to `server`.
///
/// # Errors
/// There is no TLS.
pub(super) fn reporter(
    server: SocketAddr,
    host_name: &str,
) -> Result<(Reporter, ReportSender), rustls::Error> {
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    let sending = ReportSender {
        waiting: receiver,
        server,
        host_name: host_name.to_owned(),
        tls: opportunistic_client_config()?,
    };
    Ok((Reporter { waiting: sender }, sending))
}

impl Reporter {
    /// Sends `content` to `recipient` soon.
    pub(super) fn send(&self, recipient: EmailAddress, content: String) {
        let due = Instant::now() + DELAY;
        let report = Report {
            recipient,
            content,
            due,
        };
        if self.waiting.try_send(report).is_err() {
            tracing::warn!("too many reports of the sandbox wait; one is not sent");
        }
    }
}

impl ReportSender {
    /// Until shutdown.
    pub(super) async fn run(mut self, shutdown: &Shutdown) {
        let work = async {
            while let Some(report) = self.waiting.recv().await {
                sleep_until(report.due).await;
                self.send(&report).await;
            }
        };
        tokio::select! {
            () = work => {}
            () = shutdown.requested() => {}
        }
    }

    async fn send(&self, report: &Report) {
        for pause in PAUSES {
            match self.try_to_send(report).await {
                Ok(()) => return,
                Err(failure) if failure.reply().is_some_and(|reply| reply.is_permanent()) => {
                    return self.given_up(&failure);
                }
                Err(_) => tokio::time::sleep(pause).await,
            }
        }
        if let Err(failure) = self.try_to_send(report).await {
            self.given_up(&failure);
        }
    }

    fn given_up(&self, failure: &SmtpFailure) {
        let reason = &failure.kind;
        tracing::warn!(server = %self.server, %reason, "a report of the sandbox could not be sent");
    }

    async fn try_to_send(&self, report: &Report) -> Result<(), SmtpFailure> {
        let config = ConnectConfig {
            remote: self.server,
            host_name: self.server.ip().to_string(),
            source: None,
            ehlo: self.host_name.clone(),
            tls: TlsMode::Opportunistic(self.tls.clone()),
            deadlines: Deadlines::uniform(STEP_PATIENCE),
        };
        let mut connection = Connection::open(&config).await?;
        // A report about a report must not come about (RFC 5321 section 4.5.5).
        let envelope = Envelope::new(ReversePath::Null, report.recipient.clone());
        let parts = [report.content.as_bytes()];
        let content =
            WireContent::parse(&parts).expect("reports are ASCII and their lines end with CRLF");
        let transaction = connection.begin(&envelope, &content).await?;
        transaction.finish().await?;
        connection.quit().await;
        Ok(())
    }
}
