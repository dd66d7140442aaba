//! One session of the sink: draws the answer, counts, records, then lets the reply go.

use std::sync::Arc;

use mta::listener::{HandlerReply, MailFrom, Received, SessionHandler};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::behaviour::{Latency, RefusalStage, ReplyMix};
use super::record::{Record, RecordLine};
use super::stats::Stats;

/// Longest id that is kept; a longer one is cut.
const ID_BYTES_MAX: usize = 200;

/// What can be switched while the sink runs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Behaviour {
    pub(crate) latency: Latency,
    pub(crate) replies: Arc<ReplyMix>,
    /// Take content, but keep its final reply back until this is false again.
    pub(crate) hang: bool,
}

/// What all sessions share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) stats: Stats,
    pub(crate) behaviour: watch::Sender<Behaviour>,
    pub(crate) record: Option<Record>,
    pub(crate) id_header: String,
    pub(crate) clock: service::clock::Clock,
    pub(crate) shutdown: CancellationToken,
}

impl Shared {
    fn write_down(&self, id: Option<&str>, rcpts: &[String], result: &str) {
        let Some(record) = &self.record else { return };
        let at_ms_unix = self.clock.unix_ms();
        let line = |rcpt| RecordLine {
            id,
            rcpt,
            at_ms_unix,
            result,
        };
        let lines: Vec<_> = rcpts.iter().map(|rcpt| line(rcpt)).collect();
        if let Err(error) = record.append(&lines) {
            // An incomplete record would prove things that did not happen.
            tracing::error!(
                error = format!("{error:#}"),
                "the record is incomplete: stopping"
            );
            self.shutdown.cancel();
        }
    }
}

/// The handler of one connection.
#[derive(Debug)]
pub(crate) struct SinkSession {
    shared: Arc<Shared>,
    behaviour: watch::Receiver<Behaviour>,
}

impl SinkSession {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        shared.stats.connected();
        let behaviour = shared.behaviour.subscribe();
        Self { shared, behaviour }
    }

    /// The drawn refusal of a command, counted and recorded.
    fn refusal(
        &self,
        stage: RefusalStage,
        id: Option<&str>,
        rcpts: &[String],
    ) -> Option<HandlerReply> {
        let replies = Arc::clone(&self.behaviour.borrow().replies);
        let reply = replies.draw(stage)?;
        let result = match reply.code() {
            _ if reply.drops_connection() => "dropped",
            400..500 => "deferred",
            _ => "refused",
        };
        self.shared.stats.not_accepted(result);
        self.shared.write_down(id, rcpts, result);
        Some(reply)
    }

    /// Waits while the sink is told to hang. False: the sink is shutting down.
    async fn hang(&mut self, id: Option<&str>, rcpts: &[String]) -> bool {
        if !self.behaviour.borrow().hang {
            return true;
        }
        self.shared.write_down(id, rcpts, "held");
        self.shared.stats.held();
        let shared = Arc::clone(&self.shared);
        let go_on = tokio::select! {
            () = shared.shutdown.cancelled() => false,
            changed = self.behaviour.wait_for(|behaviour| !behaviour.hang) => changed.is_ok(),
        };
        self.shared.stats.released();
        go_on
    }
}

impl SessionHandler for SinkSession {
    async fn on_mail(&mut self, _mail_from: &MailFrom) -> HandlerReply {
        let refusal = self.refusal(RefusalStage::Mail, None, &[]);
        refusal.unwrap_or_else(|| HandlerReply::new(250, Some((2, 1, 0)), "Sender ok"))
    }

    async fn on_rcpt(&mut self, recipient: &str) -> HandlerReply {
        let refusal = self.refusal(RefusalStage::Rcpt, None, &[recipient.to_owned()]);
        refusal.unwrap_or_else(|| HandlerReply::new(250, Some((2, 1, 5)), "Recipient ok"))
    }

    async fn on_data(&mut self, received: Received) -> HandlerReply {
        let id = header_value(&received.data, &self.shared.id_header);
        let id = id.as_deref();
        if !self.hang(id, &received.rcpts).await {
            return HandlerReply::drop_connection();
        }
        let latency = self.behaviour.borrow().latency;
        if let Some(wait) = latency.draw() {
            tokio::time::sleep(wait).await;
        }
        if let Some(refusal) = self.refusal(RefusalStage::Dot, id, &received.rcpts) {
            return refusal;
        }
        let stats = &self.shared.stats;
        stats.accepted_content(received.data.len(), received.session.tls.is_some());
        for recipient in &received.rcpts {
            stats.accepted_copy(id, recipient);
        }
        self.shared.write_down(id, &received.rcpts, "accepted");
        HandlerReply::ok("Accepted and forgotten")
    }
}

impl Drop for SinkSession {
    fn drop(&mut self) {
        self.shared.stats.disconnected();
    }
}

/// The value of the first header with this name.
fn header_value(content: &[u8], name: &str) -> Option<String> {
    let lines = content
        .split(|byte| *byte == b'\n')
        .take_while(|line| !line.trim_ascii().is_empty());
    let value = lines.filter_map(|line| {
        let (head, value) = line.split_at_checked(name.len())?;
        let value = value.strip_prefix(b":")?;
        head.eq_ignore_ascii_case(name.as_bytes())
            .then(|| value.trim_ascii())
    });
    let value = value.into_iter().next()?;
    let value = &value[..value.len().min(ID_BYTES_MAX)];
    Some(String::from_utf8_lossy(value).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_is_found_in_the_header_only() {
        let content = b"X-Id-Not: 0\r\nx-ID:  42 \r\nX-Id: 43\r\n\r\nX-Id2: 44\r\n";
        assert_eq!(header_value(content, "X-Id").as_deref(), Some("42"));
        assert_eq!(header_value(content, "X-Id2"), None);
        assert_eq!(header_value(b"", "X-Id"), None);
    }
}
