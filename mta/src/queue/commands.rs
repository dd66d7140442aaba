//! Carries out what is wanted of queued deliveries: cancel, retry now, expire, reschedule. Only the
//! owner of a shard does, and it shuts its gate for a delivery while it decides about it: what then
//! has no open intent was not sent, and will not be. docs/decisions/0010-commands.md.

use std::collections::{HashMap, HashSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use mail::event::EventType;
use store::{
    CommandAnswer, CommandKind, CommandResult, DeliveryKey, FoundCommand, NewCommand, ShardNo,
    StoreError,
};
use tokio::sync::{Mutex, Notify};

use crate::node::Node;

/// Commands of one shard in one round: those given one by one, and those of bulk actions.
const SINGLE_MAX: i64 = 200;
const BULK_MAX: i64 = 50;
/// Without a hint commands are looked for this often.
const POLL_PERIOD: Duration = Duration::from_secs(1);
/// Pause between two rounds, so that hints (every commit of mail may be one) cost little.
const ROUND_GAP: Duration = Duration::from_millis(50);
/// Rounds before a shard just taken is read: beyond, its mail waits no longer for its commands.
const ENTER_ROUNDS: u32 = 20;
/// A statement that was not answered may run on for as long as the server lets one (5 s), after it
/// came there late.
const UNANSWERED_BARS: Duration = Duration::from_secs(15);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Commands {
    hint: Notify,
    turn: Mutex<()>,
}

impl Commands {
    /// There may be new commands.
    pub(crate) fn wake(&self) {
        self.hint.notify_one();
    }

    /// The loop. Ends when the node stops; what is open then is the next owner's.
    pub(crate) async fn run(node: Arc<Node>) {
        while !node.shutdown.is_requested() {
            let mut hint = pin!(node.commands.hint.notified());
            // Listen before looking, so that no hint is lost.
            hint.as_mut().enable();
            let pause = match round(&node, &node.reader.shards(), BULK_MAX).await {
                Ok(true) => Duration::ZERO,
                Ok(false) => POLL_PERIOD,
                Err(error) => {
                    tracing::warn!(error = %error, "commands to queued mail cannot be carried out now");
                    POLL_PERIOD
                }
            };
            tokio::select! {
                () = hint => {}
                () = tokio::time::sleep(pause) => {}
                () = node.shutdown.requested() => return,
            }
            tokio::time::sleep(ROUND_GAP).await;
        }
    }
}

/// Carries out what was wanted of single mail in these shards before anything of it is sent: a
/// command that a lost node left is older than anything its successor could do. Those of bulk
/// actions wait for their rounds: thousands of one account must not keep everybody's mail waiting.
pub(crate) async fn carry_out_first(node: &Node, shards: &[ShardNo]) {
    for _ in 0..ENTER_ROUNDS {
        match round(node, shards, 0).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                tracing::warn!(error = %error, "commands to queued mail cannot be carried out now");
                return;
            }
        }
    }
}

/// One look at what is wanted, of bulk actions at most `bulk` commands a shard. True if another one is worth while at once.
async fn round(node: &Node, shards: &[ShardNo], bulk: i64) -> Result<bool, StoreError> {
    if shards.is_empty() {
        return Ok(false);
    }
    let _turn = node.commands.turn.lock().await;
    let mut open = node.store.open_commands(shards, SINGLE_MAX, bulk).await?;
    // The first about a delivery; the others find in later rounds what it left.
    let mut seen = HashSet::new();
    open.retain(|command| seen.insert(command.key));
    if open.is_empty() {
        return Ok(false);
    }
    carry_out(node, &open).await
}

async fn carry_out(node: &Node, open: &[NewCommand]) -> Result<bool, StoreError> {
    // Barred before they are looked for: what is found cannot begin to be sent.
    let barred = node
        .gate
        .barrier()
        .bar(open.iter().map(|command| command.key));
    let mut wanted = open.to_vec();
    wanted.retain(|command| barred.holds(command.key));
    let found = node.store.find_commands(&wanted).await?;
    let fence = node
        .ownership
        .fence(found.iter().map(|one| one.command.shard));
    let ran = node.store.run_commands(&fence, &found, node.clock.now());
    let answers = match ran.await {
        Ok(answers) => answers,
        Err(error) => {
            // Perhaps it is being carried out at this moment: a final dot now could follow it.
            tokio::spawn(async move {
                tokio::time::sleep(UNANSWERED_BARS).await;
                drop(barred);
            });
            return Err(error);
        }
    };
    conclude(node, &found, &answers);
    drop(barred);
    // Those at the gate at this moment have passed it, or not, a moment later.
    let at_gate = open.len() - wanted.len();
    Ok(!answers.is_empty() || at_gate > 0)
}

/// Memory follows the queue. Only what waits in a lane is taken out here: whoever has the delivery
/// in hand learns at the gate that its row is gone, and forgets it then. Forgetting it for him would
/// let it be read again beside him.
fn conclude(node: &Node, found: &[FoundCommand], answers: &[CommandAnswer]) {
    let commands: HashMap<_, &NewCommand> = found
        .iter()
        .map(|one| (one.command.id, &one.command))
        .collect();
    let mut changed: HashMap<DeliveryKey, (CommandKind, u16)> = HashMap::new();
    for answer in answers {
        let Some(command) = commands.get(&answer.id) else {
            continue;
        };
        let word = match answer.result {
            CommandResult::Done => "done",
            CommandResult::TooLate => "too_late",
        };
        node.metrics.commands.with_label_values(&[word]).inc();
        if let Some(attempt) = answer.changed {
            changed.insert(command.key, (command.kind, attempt));
        }
    }
    if changed.is_empty() {
        return;
    }
    let waited = match node.memory.held() {
        0 => Vec::new(),
        _ => node
            .paths
            .extract(|waiting| changed.contains_key(&waiting.row.key)),
    };
    for waiting in waited {
        match ending(changed[&waiting.row.key].0) {
            // A read that began before may still show it.
            Some(_) => node.memory.settled(waiting.row.key, waiting.row.attempt),
            None => node.memory.forget(waiting.row.key),
        }
    }
    for (kind, _) in changed.values() {
        if let Some(event) = ending(*kind) {
            let outcomes = &node.metrics.outcomes;
            outcomes.with_label_values(&[event.as_str()]).inc();
        }
    }
    node.events_committed.notify_one();
    node.reader.wake();
}

/// The event that ends a delivery by command; none when it stays.
fn ending(kind: CommandKind) -> Option<EventType> {
    match kind {
        CommandKind::Cancel => Some(EventType::EmailCancelled),
        CommandKind::Expire => Some(EventType::EmailExpired),
        CommandKind::RetryNow | CommandKind::Reschedule(_) => None,
    }
}

#[cfg(test)]
mod tests;
