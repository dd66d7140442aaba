//! The road of commands to queued mail: look at the message, cancel what no node can be sending,
//! note the rest for the owner of its shard, wait a little for the answers. What is true is read
//! from the events afterwards; an answer only says that it is worth reading them.

use std::time::Duration;

use mail::event::{DeliveryStatus, EventType};
use mail::ids::{DeliveryId, MessageId, uuid_v7};
use serde::Serialize;
use store::{
    CommandKind, CommandResult, DeliveryKey, EventFlags, MessagePlace, MessageView, NewCommand,
    QueuedDelivery, StoredEvent,
};
use time::OffsetDateTime;
use tokio::time::{sleep, timeout};
use utoipa::ToSchema;

use crate::auth::Principal;
use crate::problem::Problem;
use crate::random;
use crate::state::AppState;

/// How long a request waits for the owner.
const ANSWER_PATIENCE: Duration = Duration::from_secs(2);
const POLL_FIRST: Duration = Duration::from_millis(5);
const POLL_MAX: Duration = Duration::from_millis(100);
/// No owner's clock is as far ahead as this, or it would not send (see the MTA's limit for clocks).
const DIRECT_AFTER: time::Duration = time::Duration::seconds(60);
/// Mail is due at most this long before its id was made, and composing takes that long at most.
const COMPOSING_MAX: time::Duration = time::Duration::seconds(15);
const MILLISECOND: time::Duration = time::Duration::milliseconds(1);

/// One recipient's copy, and how it stands.
#[derive(Serialize, ToSchema)]
pub(crate) struct CommandedDelivery {
    #[schema(value_type = String, example = "dlv_01kasxq2bke9qa1bz2t0zc6801")]
    id: DeliveryId,
    #[schema(example = "ana@example.com")]
    to: String,
    /// As in `GET /v1/emails/{id}`.
    #[schema(value_type = String, example = "cancelled")]
    status: DeliveryStatus,
}

/// A message as a command finds it.
pub(crate) struct Standing {
    pub(crate) message: MessageView,
    place: MessagePlace,
    deliveries: Vec<DeliveryStanding>,
}

/// How one delivery stands, by its events.
#[derive(Clone, Copy)]
pub(crate) struct DeliveryStanding {
    pub(crate) key: DeliveryKey,
    pub(crate) status: DeliveryStatus,
    /// Attempts that are known.
    pub(crate) attempts: u16,
    next_at: Option<OffsetDateTime>,
}

/// What the owner said in time.
pub(crate) struct Answers {
    pub(crate) done: usize,
    /// Commands without an answer yet: they are still carried out.
    pub(crate) open: usize,
}

impl Standing {
    /// Looks at a message that this key may touch.
    ///
    /// # Errors
    /// `not_found`, also for mail of others and, with a test key, for live mail.
    pub(crate) async fn of(
        state: &AppState,
        principal: &Principal,
        id: MessageId,
    ) -> Result<Self, Problem> {
        let message = state.store.message(principal.account, id).await?;
        let message = message
            .filter(|message| principal.may_see(message.test, message.sender_domain.as_ref()))
            .ok_or_else(Problem::not_found)?;
        let place = state.store.message_place(principal.account, id).await?;
        let place = place.ok_or_else(Problem::not_found)?;
        let events = state.store.message_events(id).await?;
        let deliveries = stand(&message, &events);
        Ok(Self {
            message,
            place,
            deliveries,
        })
    }

    /// Reads the events again.
    pub(crate) async fn look_again(&mut self, state: &AppState) -> Result<(), Problem> {
        let events = state.store.message_events(self.message.id).await?;
        self.deliveries = stand(&self.message, &events);
        Ok(())
    }

    /// Deliveries that have not ended.
    pub(crate) fn unfinished(&self) -> Vec<DeliveryStanding> {
        let waits = |one: &&DeliveryStanding| !one.status.is_final();
        self.deliveries.iter().filter(waits).copied().collect()
    }

    pub(crate) fn has(&self, status: DeliveryStatus) -> bool {
        self.deliveries.iter().any(|one| one.status == status)
    }

    /// That of the least finished delivery.
    pub(crate) fn status(&self) -> DeliveryStatus {
        DeliveryStatus::of_message(self.deliveries.iter().map(|one| one.status))
            .unwrap_or(DeliveryStatus::Queued)
    }

    pub(crate) fn views(&self) -> Vec<CommandedDelivery> {
        let view = |(one, to): (&DeliveryStanding, &String)| CommandedDelivery {
            id: one.key.message.delivery(one.key.rcpt),
            to: to.clone(),
            status: one.status,
        };
        let recipients = &self.message.recipients;
        self.deliveries.iter().zip(recipients).map(view).collect()
    }

    /// Where the queue has these, as far as that can be known without looking through all of it:
    /// mail is queued for the time its last event names, for the time of its id, or for the time it
    /// was scheduled for. Only what a node set aside for a while is elsewhere. The events name
    /// times exactly, so that mail is also found among all that is scheduled for the same moment.
    pub(crate) async fn find(
        &self,
        state: &AppState,
        deliveries: &[DeliveryStanding],
    ) -> Result<Vec<QueuedDelivery>, Problem> {
        let accepted = of_unix_ms(self.message.id.unix_ms());
        let due = of_unix_ms(self.place.content_due_ms);
        let spans = [
            (accepted - COMPOSING_MAX, accepted + MILLISECOND),
            (due, due + MILLISECOND),
        ];
        let times: Vec<_> = deliveries.iter().filter_map(|one| one.next_at).collect();
        let (shard, id) = (self.place.shard, self.message.id);
        let mut found = state.store.queued_in(shard, id, &times, &spans).await?;
        found.retain(|row| deliveries.iter().any(|one| one.key == row.key));
        Ok(found)
    }

    /// Cancels those that are due in more than a minute; returns them.
    pub(crate) async fn cancel_direct(
        &self,
        state: &AppState,
        found: &[QueuedDelivery],
    ) -> Result<Vec<DeliveryKey>, Problem> {
        let now = state.clock.now();
        let later_than = now + DIRECT_AFTER;
        let is_later = |row: &&QueuedDelivery| row.next_at > later_than;
        let later: Vec<QueuedDelivery> = found.iter().filter(is_later).copied().collect();
        if later.is_empty() {
            return Ok(Vec::new());
        }
        let shard = self.place.shard;
        let gone = state
            .store
            .cancel_direct(shard, &later, later_than, now, state.clock.is_real())
            .await?;
        // There are events, for whoever reads them.
        state.acceptor.tell_commanded(&[shard]);
        Ok(gone)
    }

    /// Has the owner carry this out, and waits for it a little.
    pub(crate) async fn command(
        &self,
        state: &AppState,
        kind: CommandKind,
        deliveries: &[DeliveryStanding],
        found: &[QueuedDelivery],
    ) -> Result<Answers, Problem> {
        let unix_ms = u64::try_from(state.clock.unix_ms()).unwrap_or_default();
        let shard = self.place.shard;
        let commands: Vec<NewCommand> = deliveries
            .iter()
            .map(|one| NewCommand {
                id: uuid_v7(unix_ms, random::octets()),
                shard,
                key: one.key,
                kind,
                seen_at: found
                    .iter()
                    .find(|row| row.key == one.key)
                    .map(|row| row.next_at),
                bulk: false,
            })
            .collect();
        if commands.is_empty() {
            return Ok(Answers { done: 0, open: 0 });
        }
        state
            .store
            .note_commands(&commands, state.clock.now())
            .await?;
        state.acceptor.tell_commanded(&[shard]);
        answers(state, &commands).await
    }
}

/// Waits until all are answered, or as long as a client waits gladly.
async fn answers(state: &AppState, commands: &[NewCommand]) -> Result<Answers, Problem> {
    let ids: Vec<_> = commands.iter().map(|command| command.id).collect();
    let mut results = Vec::new();
    let waiting = async {
        let mut pause = POLL_FIRST;
        loop {
            results = state.store.command_results(&ids).await?;
            if results.len() == ids.len() {
                return Ok::<(), Problem>(());
            }
            sleep(pause).await;
            pause = (pause * 2).min(POLL_MAX);
        }
    };
    match timeout(ANSWER_PATIENCE, waiting).await {
        Ok(ended) => ended?,
        Err(_) => tracing::debug!("a command is not answered yet"),
    }
    let is_done = |(_, result): &&(_, CommandResult)| *result == CommandResult::Done;
    Ok(Answers {
        done: results.iter().filter(is_done).count(),
        open: ids.len() - results.len(),
    })
}

/// How every delivery of a message stands. An event of no recipient is left out.
fn stand(message: &MessageView, events: &[StoredEvent]) -> Vec<DeliveryStanding> {
    (0u16..)
        .zip(&message.recipients)
        .map(|(rcpt, _)| {
            let mut last: Option<&StoredEvent> = None;
            let mut attempts = 0;
            for event in events.iter().filter(|event| event.rcpt == Some(rcpt)) {
                attempts = attempts.max(event.attempt);
                // What comes after the end changes what is shown, not what is queued.
                let tells =
                    event.kind.status().is_some() && !event.flags.contains(EventFlags::OUT_OF_BAND);
                let is_newer =
                    last.is_none_or(|last| (last.sequence, last.id) < (event.sequence, event.id));
                if tells && is_newer {
                    last = Some(event);
                }
            }
            DeliveryStanding {
                key: DeliveryKey {
                    message: message.id,
                    rcpt,
                },
                status: last
                    .and_then(|event| EventType::status(event.kind))
                    .unwrap_or(DeliveryStatus::Queued),
                attempts,
                next_at: last.and_then(|event| event.next_at),
            }
        })
        .collect()
}

fn of_unix_ms(unix_ms: u64) -> OffsetDateTime {
    let nanos = i128::from(unix_ms) * 1_000_000;
    OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}
