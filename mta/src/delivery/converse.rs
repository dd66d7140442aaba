//! The dialogue about one delivery: envelope and gate side by side, then content and final dot.

use mail::reply::Reply;
use store::QueueRow;

use super::connect::Line;
use super::prepare::Prepared;
use crate::node::Node;
use crate::queue::{Intent, Permit};
use crate::smtp::{SmtpFailure, Stage, WireContent};

/// How the dialogue ended.
#[derive(Debug)]
pub(crate) enum Conversation {
    /// The final reply was positive.
    Delivered(Reply, Intent),
    /// It failed; with an intent the dot may have been sent.
    Failed(SmtpFailure, Option<Intent>),
    /// The delivery is not ours any more: nothing was sent.
    NotOurs,
    /// No dot may be sent now: nothing was sent.
    GateClosed(&'static str),
    /// The stored content cannot go on any wire.
    BadContent(String),
}

/// Sends one delivery over an open line. `intent` is an earlier permit for the same attempt.
pub(crate) async fn converse(
    node: &Node,
    line: &mut Line,
    row: &QueueRow,
    prepared: &Prepared,
    intent: Option<Intent>,
) -> Conversation {
    let message = &prepared.message;
    let parts: [&[u8]; 3] = [
        &prepared.header_block,
        message.header.as_bytes(),
        &message.bytes,
    ];
    let content = match WireContent::parse(&parts) {
        Ok(content) if prepared.needs_smtputf8() => content.with_utf8_headers(),
        Ok(content) => content,
        Err(error) => return Conversation::BadContent(error.to_string()),
    };
    let permit = async {
        match intent {
            Some(intent) => Permit::Granted(intent),
            None => node.gate.ask(row).await,
        }
    };
    let begun = line.connection.begin(&prepared.envelope, &content);
    let (begun, permit) = tokio::join!(begun, permit);
    let intent = match (&begun, permit) {
        (_, Permit::Granted(intent)) => intent,
        (_, Permit::Refused) => return Conversation::NotOurs,
        (Err(_), Permit::Closed(_)) => {
            // The other side refused anyway; that needs no permit.
            return match begun {
                Err(failure) => Conversation::Failed(failure, None),
                Ok(_) => Conversation::GateClosed("unreachable"),
            };
        }
        (Ok(_), Permit::Closed(reason)) => return Conversation::GateClosed(reason),
    };
    let transaction = match begun {
        Ok(transaction) => transaction,
        Err(failure) => return Conversation::Failed(failure, Some(intent)),
    };
    match transaction.finish().await {
        Ok(reply) => Conversation::Delivered(reply, intent),
        Err(failure) => Conversation::Failed(failure, Some(intent)),
    }
}

/// A connection that was fine for earlier mail and closed before this one began: no attempt was
/// made, a new connection is in order at once (some sites limit the messages of a connection so).
pub(crate) fn is_worn_out(failure: &SmtpFailure, messages_sent: u32) -> bool {
    use crate::smtp::FailureKind;
    let closed = match &failure.kind {
        FailureKind::Closed | FailureKind::Io(_) => true,
        FailureKind::Reply(reply) => reply.code().get() == 421,
        _ => false,
    };
    messages_sent > 0 && closed && failure.stage == Stage::Mail && !failure.dot_sent
}
