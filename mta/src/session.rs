//! A session: one connection of a path, sending one delivery after another as long as there are
//! any. The order of an attempt is here; what the steps do is in `delivery`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mail::judge::{FailureScope, Outcome};
use store::DeliveryKey;

use crate::delivery::{
    Attempted, Conversation, Line, NoLine, NotPrepared, OwnFault, Prepared, conclude, connect,
    converse, is_worn_out, prepare,
};
use crate::lanes::{Next, Path, Waiting};
use crate::node::Node;
use crate::queue::{Intent, expire, park, suppress};

/// After trouble of our own a session waits this long before it takes the next delivery.
const OWN_FAULT_PAUSE: Duration = Duration::from_secs(1);
/// A delivery that cannot be prepared is looked at again this much later.
const BROKEN_PAUSE: Duration = Duration::from_secs(300);

/// Starts a session that the path has already counted.
pub(crate) fn spawn(node: &Arc<Node>, path: Arc<Path>) {
    let node = node.clone();
    node.clone().work.spawn(async move {
        let mut counted = Counted {
            path: &path,
            retired: false,
        };
        tokio::select! {
            () = run(&node, &path, &mut counted) => {}
            // What was sent is journaled, or an open intent.
            () = node.killed.cancelled() => {}
        }
    });
}

/// Gives the session back to the path however it ends.
struct Counted<'p> {
    path: &'p Path,
    retired: bool,
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        if !self.retired {
            self.path.session_ended();
        }
    }
}

/// A delivery between its lane and its settlement. Should the work on it panic before it could be
/// sent, the node forgets it and so reads it again; without this it would wait for a restart.
/// After that it stays as it is, an open intent: what panics once over a reply panics again.
struct InHand<'n> {
    node: &'n Node,
    key: DeliveryKey,
    may_be_sent: bool,
}

impl Drop for InHand<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() && !self.may_be_sent {
            self.node.memory.forget(self.key);
        }
    }
}

async fn run(node: &Arc<Node>, path: &Arc<Path>, counted: &mut Counted<'_>) {
    let Ok(_connection) = node.connections.acquire().await else {
        return;
    };
    let mut line: Option<Line> = None;
    while !node.shutdown.is_requested() {
        let next = tokio::select! {
            next = path.next(idle(node)) => next,
            () = node.shutdown.requested() => break,
        };
        match next {
            Next::Retire => {
                counted.retired = true;
                break;
            }
            Next::Deliver(waiting) => deliver(node, path, &mut line, *waiting).await,
        }
    }
    if let Some(line) = line {
        line.connection.quit().await;
    }
}

/// No connection idles while somebody waits for one.
fn idle(node: &Node) -> Duration {
    match node.connections.available_permits() {
        0 => Duration::ZERO,
        _ => node.config.limits.idle,
    }
}

/// One attempt, from the lane to the journal.
async fn deliver(node: &Arc<Node>, path: &Arc<Path>, line: &mut Option<Line>, waiting: Waiting) {
    let begun = Instant::now();
    let mut in_hand = InHand {
        node,
        key: waiting.row.key,
        may_be_sent: false,
    };
    let now = node.clock.now();
    if waiting.row.expires_at <= now {
        return expire(node, waiting.row, now);
    }
    tokio::select! {
        () = node.gate.opened() => {}
        () = node.shutdown.requested() => return path.put_back(waiting),
    }
    let prepared = match prepare(node, &waiting.row).await {
        Ok(prepared) => prepared,
        Err(NotPrepared::Suppressed) => return suppress(node, waiting.row),
        Err(NotPrepared::Fault(fault)) => return own_fault(node, path, waiting, fault).await,
    };
    let mut intent = None;
    loop {
        if let Err(no_line) = ready(node, path, line, &prepared).await {
            let counts = !prepared.requires_tls();
            return no_connection(node, path, waiting, no_line, begun, intent, counts).await;
        }
        let Some(open) = line.as_mut() else {
            return path.put_back(waiting);
        };
        in_hand.may_be_sent = true;
        let conversation = converse(node, open, &waiting.row, &prepared, intent).await;
        if let Conversation::Failed(failure, granted) = &conversation
            && is_worn_out(failure, open.connection.messages_sent())
        {
            intent = *granted;
            *line = None;
            continue;
        }
        return conclude_conversation(node, path, line, waiting, conversation, begun).await;
    }
}

/// Keeps or makes a connection that is fit for this delivery.
async fn ready(
    node: &Node,
    path: &Path,
    line: &mut Option<Line>,
    prepared: &Prepared,
) -> Result<(), NoLine> {
    let limits = &node.config.limits;
    let verified = prepared.requires_tls();
    let unfit = |line: &mut Line| {
        line.connection.is_stale()
            || !line.connection.is_usable()
            || line.connection.messages_sent() >= limits.messages_per_connection
            || (verified && !line.verified)
    };
    if let Some(old) = line.take_if(unfit) {
        node.work.spawn(old.connection.quit());
    }
    if line.is_none() {
        *line = Some(connect(node, path, verified).await?);
    }
    Ok(())
}

async fn conclude_conversation(
    node: &Arc<Node>,
    path: &Arc<Path>,
    line: &mut Option<Line>,
    waiting: Waiting,
    conversation: Conversation,
    begun: Instant,
) {
    let row = waiting.row.clone();
    let (attempted, intent) = match conversation {
        Conversation::Delivered(reply, intent) => (Attempted::delivered(row, reply), Some(intent)),
        Conversation::Failed(failure, intent) => (Attempted::failed(row, failure), intent),
        Conversation::NotOurs => {
            *line = None;
            return node.memory.forget(row.key);
        }
        Conversation::GateClosed(reason) => {
            *line = None;
            tracing::warn!(
                reason,
                "a final dot was not allowed, the delivery goes back to its lane"
            );
            node.metrics
                .own_faults
                .with_label_values(&["gate_closed"])
                .inc();
            path.put_back(waiting);
            return pause(node).await;
        }
        Conversation::BadContent(detail) => {
            return own_fault(node, path, waiting, OwnFault::Signing(detail)).await;
        }
    };
    let mut attempted = Attempted {
        begun,
        source: Some(path.source.number),
        ..attempted
    };
    if let Some(open) = line {
        attempted.mx = Some(open.mx.clone());
        attempted.tls = open.connection.tls_version();
    }
    let outcome = attempted.outcome;
    // Journaled before the next command goes out on this connection.
    conclude(node, attempted, intent).await;
    if line
        .as_ref()
        .is_some_and(|open| !open.connection.is_usable())
    {
        *line = None;
    }
    match outcome.scope() {
        Some(
            FailureScope::Host
            | FailureScope::Site
            | FailureScope::SourceAtSite
            | FailureScope::Source,
        ) if !outcome.is_final() => {
            rest_if_troubled(node, path, begun).await;
        }
        _ => {
            if path.answered() {
                spawn(node, path.clone());
            }
        }
    }
}

async fn no_connection(
    node: &Arc<Node>,
    path: &Arc<Path>,
    waiting: Waiting,
    no_line: NoLine,
    begun: Instant,
    intent: Option<Intent>,
    counts: bool,
) {
    let outcome = no_line.outcome();
    let attempted = match no_line {
        NoLine::Route(failure) => Attempted::not_routed(waiting.row, &failure),
        NoLine::Smtp(failure, mx) => Attempted {
            mx: Some(mx),
            ..Attempted::failed(waiting.row, failure)
        },
    };
    let attempted = Attempted {
        begun,
        source: Some(path.source.number),
        ..attempted
    };
    conclude(node, attempted, intent).await;
    // TLS that one message asks for and the site does not offer is nobody else's trouble.
    if counts && matches!(outcome, Outcome::Deferred { .. }) {
        rest_if_troubled(node, path, begun).await;
    }
}

/// Slows the path down; if it now rests, everything that waits for it is parked.
async fn rest_if_troubled(node: &Arc<Node>, path: &Arc<Path>, begun: Instant) {
    if let Some((waiting, until)) = path.troubled(begun, node.clock.now()) {
        tracing::info!(site = %path.key.site, deliveries = waiting.len(), "the site rests after repeated trouble");
        park(
            node,
            waiting
                .into_iter()
                .map(|waiting| (waiting.row, until))
                .collect(),
        )
        .await;
    }
}

/// Trouble of our own is not an attempt.
async fn own_fault(node: &Arc<Node>, path: &Arc<Path>, waiting: Waiting, fault: OwnFault) {
    node.metrics
        .own_faults
        .with_label_values(&[fault.cause()])
        .inc();
    if let OwnFault::Unavailable(_) = fault {
        path.put_back(waiting);
        return pause(node).await;
    }
    tracing::error!(delivery = %waiting.row.key.message.delivery(waiting.row.key.rcpt), %fault, "a delivery cannot be prepared; it is tried again in five minutes");
    let until = node.clock.now() + BROKEN_PAUSE;
    park(node, vec![(waiting.row, until)]).await;
}

async fn pause(node: &Node) {
    tokio::select! {
        () = tokio::time::sleep(OWN_FAULT_PAUSE) => {}
        () = node.shutdown.requested() => {}
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use store::{QueueRow, ShardNo};

    use super::InHand;
    use crate::node::Node;
    use crate::test_bed::{LONG_HOLD, TestBed};

    const SHARD: ShardNo = ShardNo(2);

    /// Work on the delivery breaks down before or after it could be sent.
    fn break_down(node: &Node, row: &QueueRow, may_be_sent: bool) {
        let work = || {
            let _in_hand = InHand {
                node,
                key: row.key,
                may_be_sent,
            };
            panic!("on purpose");
        };
        assert!(catch_unwind(AssertUnwindSafe(work)).is_err());
    }

    #[tokio::test]
    async fn a_panic_before_the_dot_lets_the_delivery_be_read_again() {
        TestBed::run(async |bed| {
            let rows = bed.send(SHARD, 1).await;
            let sender = bed.node(10, LONG_HOLD).await;
            sender.lease().await;
            sender.admit(&rows);
            break_down(&sender.node, &rows[0], false);
            assert_eq!(sender.node.memory.held(), 0);
            assert_eq!(sender.admit(&bed.queued(SHARD).await), rows);
        })
        .await;
    }

    #[tokio::test]
    async fn after_the_dot_a_panic_leaves_an_open_intent() {
        TestBed::run(async |bed| {
            let rows = bed.send(SHARD, 1).await;
            let sender = bed.node(10, LONG_HOLD).await;
            sender.lease().await;
            sender.admit(&rows);
            sender.permit(&rows[0]).await;
            break_down(&sender.node, &rows[0], true);
            let read_again = sender.admit(&bed.queued(SHARD).await);
            assert!(read_again.is_empty(), "it would be sent twice");
            assert_eq!(sender.node.gate.open_count(), 1);
        })
        .await;
    }

    #[tokio::test]
    async fn without_a_panic_a_delivery_stays_known() {
        TestBed::run(async |bed| {
            let rows = bed.send(SHARD, 1).await;
            let sender = bed.node(10, LONG_HOLD).await;
            sender.admit(&rows);
            drop(InHand {
                node: &sender.node,
                key: rows[0].key,
                may_be_sent: false,
            });
            assert!(
                sender.admit(&rows).is_empty(),
                "its session goes on with it"
            );
        })
        .await;
    }
}
