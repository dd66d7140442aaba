//! Commands to queued mail: each is carried out once, by the owner, or answered as too late; nothing
//! that may have been sent is ever cancelled.

use std::time::Duration;

use mail::event::EventType;
use mail::ids::MessageId;
use store::*;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::world::{NOW, World, node, outcome};

pub(crate) const HOUR: Duration = Duration::from_secs(3_600);

pub(crate) fn command(row: &QueueRow, kind: CommandKind) -> NewCommand {
    NewCommand {
        id: Uuid::new_v4(),
        shard: row.shard,
        key: row.key,
        kind,
        seen_at: Some(row.next_at),
        bulk: false,
    }
}

impl World {
    /// Notes commands and has this owner carry out what is open.
    async fn command(&self, fence: &Fence, commands: &[NewCommand]) -> Vec<CommandAnswer> {
        self.store.note_commands(commands, NOW).await.unwrap();
        self.carry_out(fence).await
    }

    async fn carry_out(&self, fence: &Fence) -> Vec<CommandAnswer> {
        let found = self.find(fence).await;
        self.store.run_commands(fence, &found, NOW).await.unwrap()
    }

    async fn find(&self, fence: &Fence) -> Vec<FoundCommand> {
        let shards: Vec<ShardNo> = fence.held.iter().map(|(shard, _)| *shard).collect();
        let open = self.store.open_commands(&shards, 200, 50).await.unwrap();
        self.store.find_commands(&open).await.unwrap()
    }

    async fn result(&self, command: &NewCommand) -> Option<CommandResult> {
        let results = self.store.command_results(&[command.id]).await.unwrap();
        results.first().map(|(_, result)| *result)
    }

    /// Type, sequence and flags of the events of a delivery.
    pub(crate) async fn told(&self, message: MessageId) -> Vec<(EventType, u16, EventFlags)> {
        let events = self.store.message_events(message).await.unwrap();
        events
            .iter()
            .map(|event| (event.kind, event.sequence, event.flags))
            .collect()
    }

    /// Accepts a message due at that time; its row.
    pub(crate) async fn send_at(&self, due_at: OffsetDateTime) -> QueueRow {
        let message = NewMessage {
            due_at,
            ..self.message()
        };
        let id = message.id;
        self.acceptor()
            .accept(self.request(vec![message]))
            .await
            .unwrap();
        let rows = self.queued().await;
        rows.into_iter().find(|row| row.key.message == id).unwrap()
    }
}

const QUEUED: (EventType, u16, EventFlags) = (EventType::EmailQueued, 1, EventFlags::NONE);

#[tokio::test]
async fn a_cancelled_delivery_ends_once_with_its_answer() {
    let Some(world) = World::start().await else {
        return;
    };
    let (row, other) = (world.send().await, world.send().await);
    let fence = world.own(node()).await;
    let cancel = command(&row, CommandKind::Cancel);
    let again = command(&row, CommandKind::Cancel);
    let answers = world.command(&fence, &[cancel]).await;
    let done = CommandAnswer {
        id: cancel.id,
        result: CommandResult::Done,
        changed: Some(0),
    };
    assert_eq!(answers, [done]);
    assert_eq!(world.queued().await, [other]);
    let ended = (EventType::EmailCancelled, 2, EventFlags::FINAL);
    assert_eq!(world.told(row.key.message).await, [QUEUED, ended]);
    assert_eq!(world.result(&cancel).await, Some(CommandResult::Done));

    let answers = world.command(&fence, &[again, cancel]).await;
    assert_eq!(
        answers.len(),
        1,
        "noting it twice is noting it once: {answers:?}"
    );
    assert_eq!(world.result(&again).await, Some(CommandResult::TooLate));
    assert_eq!(world.told(row.key.message).await.len(), 2);
    assert!(world.carry_out(&fence).await.is_empty());
}

#[tokio::test]
async fn what_may_be_sent_is_not_touched_whoever_allowed_it() {
    let Some(world) = World::start().await else {
        return;
    };
    let (row, old) = (world.send().await, world.own(node()).await);
    assert_eq!(
        world
            .store
            .note_intents(&old, &[&row], 1, NOW)
            .await
            .unwrap(),
        [true]
    );
    let kinds = [
        CommandKind::Cancel,
        CommandKind::Expire,
        CommandKind::Reschedule(NOW + HOUR),
    ];
    for kind in kinds {
        let late = command(&row, kind);
        world.command(&old, &[late]).await;
        assert_eq!(
            world.result(&late).await,
            Some(CommandResult::TooLate),
            "{kind:?}"
        );
    }
    world.store.release(&old).await.unwrap();
    let new = world.own(node()).await;
    let late = command(&row, CommandKind::Cancel);
    world.command(&new, &[late]).await;
    assert_eq!(world.result(&late).await, Some(CommandResult::TooLate));
    assert_eq!(world.queued().await, std::slice::from_ref(&row));

    // The attempt is over and another one follows: now it can be.
    let deferred = Retry {
        next_at: NOW + HOUR,
        flags: QueueFlags::AMBIGUOUS,
    };
    let deferred = outcome(&row, EventType::EmailDeferred, Some(deferred));
    assert_eq!(world.store.settle(&new, &[deferred]).await.unwrap(), [true]);
    let cancel = command(&row, CommandKind::Cancel);
    world.command(&new, &[cancel]).await;
    assert_eq!(
        world.result(&cancel).await,
        Some(CommandResult::Done),
        "found elsewhere"
    );
    let events = world.told(row.key.message).await;
    let flags = EventFlags::FINAL | EventFlags::AMBIGUOUS;
    assert_eq!(
        events[2],
        (EventType::EmailCancelled, 3, flags),
        "the doubt is told"
    );
}

#[tokio::test]
async fn who_does_not_own_the_shard_answers_nothing() {
    let Some(world) = World::start().await else {
        return;
    };
    let row = world.send().await;
    let old = world.own(node()).await;
    let (cancel, gone) = (
        command(&row, CommandKind::Cancel),
        command(&world.send().await, CommandKind::Cancel),
    );
    world
        .store
        .note_commands(&[cancel, gone], NOW)
        .await
        .unwrap();
    let mut found = world.find(&old).await;
    found[1].found_at = None;
    world.store.release(&old).await.unwrap();
    let new = world.own(node()).await;
    let answers = world.store.run_commands(&old, &found, NOW).await.unwrap();
    assert_eq!(answers, []);
    assert_eq!(
        (world.result(&cancel).await, world.result(&gone).await),
        (None, None)
    );
    assert_eq!(
        world.carry_out(&new).await.len(),
        2,
        "its successor does it"
    );
    assert!(world.queued().await.is_empty());
}

#[tokio::test]
async fn a_row_that_moved_meanwhile_is_found_again_and_then_answered() {
    let Some(world) = World::start().await else {
        return;
    };
    let (row, fence) = (world.send().await, world.own(node()).await);
    let cancel = command(&row, CommandKind::Cancel);
    world.store.note_commands(&[cancel], NOW).await.unwrap();
    let found = world.find(&fence).await;
    let moves = [(row.clone(), row.shard, NOW + HOUR)];
    assert_eq!(world.store.park(&fence, &moves).await.unwrap(), [true]);
    let answers = world.store.run_commands(&fence, &found, NOW).await.unwrap();
    assert_eq!((answers, world.result(&cancel).await), (vec![], None));
    assert_eq!(world.carry_out(&fence).await.len(), 1);
    assert_eq!(world.result(&cancel).await, Some(CommandResult::Done));
}

#[tokio::test]
async fn a_rescheduled_delivery_lives_from_its_new_time() {
    let Some(world) = World::start().await else {
        return;
    };
    let (row, fence) = (world.send().await, world.own(node()).await);
    world
        .command(
            &fence,
            &[command(&row, CommandKind::Reschedule(NOW + HOUR))],
        )
        .await;
    let moved = QueueRow {
        next_at: NOW + HOUR,
        first_at: NOW + HOUR,
        expires_at: row.expires_at + HOUR,
        ..row.clone()
    };
    assert_eq!(world.queued().await, std::slice::from_ref(&moved));
    // A time that has passed is now.
    world
        .command(
            &fence,
            &[command(&moved, CommandKind::Reschedule(NOW - HOUR))],
        )
        .await;
    assert_eq!(world.queued().await, std::slice::from_ref(&row));
    let events = world.store.message_events(row.key.message).await.unwrap();
    let told: Vec<_> = events
        .iter()
        .map(|event| (event.kind, event.next_at))
        .collect();
    let (scheduled, queued) = (EventType::EmailScheduled, EventType::EmailQueued);
    let mut expected = vec![
        (queued, None),
        (scheduled, Some(NOW + HOUR)),
        (queued, Some(NOW)),
    ];
    assert_eq!(told.len(), 3, "{told:?}");
    expected.retain(|one| !told.contains(one));
    assert!(expected.is_empty(), "{told:?}");
    assert!(
        events.iter().all(|event| event.sequence == 1),
        "an attempt's are higher"
    );

    let retry = Retry {
        next_at: NOW + HOUR,
        flags: QueueFlags::NONE,
    };
    let deferred = outcome(&row, EventType::EmailDeferred, Some(retry));
    world.store.settle(&fence, &[deferred]).await.unwrap();
    let late = command(&row, CommandKind::Reschedule(NOW));
    world.command(&fence, &[late]).await;
    assert_eq!(world.result(&late).await, Some(CommandResult::TooLate));
}

#[tokio::test]
async fn a_retry_comes_at_once_and_releases_what_was_held() {
    let Some(world) = World::start().await else {
        return;
    };
    let (row, fence) = (world.send().await, world.own(node()).await);
    let due = command(&row, CommandKind::RetryNow);
    let answers = world.command(&fence, &[due]).await;
    let nothing = CommandAnswer {
        id: due.id,
        result: CommandResult::Done,
        changed: None,
    };
    assert_eq!(answers, [nothing], "it is due already");
    let held = QueueFlags::AMBIGUOUS | QueueFlags::HELD;
    let retry = Retry {
        next_at: NOW + HOUR,
        flags: held,
    };
    let deferred = outcome(&row, EventType::EmailDeferred, Some(retry));
    world.store.settle(&fence, &[deferred]).await.unwrap();
    world
        .command(&fence, &[command(&row, CommandKind::RetryNow)])
        .await;
    let expected = QueueRow {
        attempt: 1,
        flags: QueueFlags::AMBIGUOUS,
        ..row.clone()
    };
    assert_eq!(world.queued().await, std::slice::from_ref(&expected));
    assert_eq!(
        world.told(row.key.message).await.len(),
        2,
        "nothing has happened to it yet"
    );

    world
        .command(&fence, &[command(&expected, CommandKind::Expire)])
        .await;
    let events = world.store.message_events(row.key.message).await.unwrap();
    let last = events.last().unwrap();
    assert_eq!((last.kind, last.sequence), (EventType::EmailExpired, 3));
    assert_eq!(last.class, Some(mail::bounce_class::BounceClass::Expired));
}

#[tokio::test]
async fn a_command_and_an_outcome_at_once_end_a_delivery_once() {
    let Some(world) = World::start().await else {
        return;
    };
    let fence = world.own(node()).await;
    let mut rows = Vec::new();
    for _ in 0..40 {
        rows.push(world.send().await);
    }
    let cancels: Vec<NewCommand> = rows
        .iter()
        .map(|row| command(row, CommandKind::Cancel))
        .collect();
    world.store.note_commands(&cancels, NOW).await.unwrap();
    let found = world.find(&fence).await;
    let (mut settled, mut answered) = (0, 0);
    // Outcomes without an intent, as of what found no host: nothing but the row decides.
    for (rows, found) in rows.chunks(5).zip(found.chunks(5)) {
        let outcomes: Vec<Settlement> = rows
            .iter()
            .map(|row| outcome(row, EventType::EmailBounced, None))
            .collect();
        let (bounced, cancelled) = tokio::join!(
            world.store.settle(&fence, &outcomes),
            world.store.run_commands(&fence, found, NOW)
        );
        settled += bounced.unwrap().into_iter().filter(|one| *one).count();
        answered += cancelled.unwrap().len();
    }
    assert_eq!(settled + answered, 40);
    assert!(world.queued().await.is_empty());
    let finals = world
        .count("SELECT count(*) FROM event WHERE flags & 1 = 1")
        .await;
    assert_eq!(finals, 40);
    world.carry_out(&fence).await;
    for cancel in &cancels {
        assert!(world.result(cancel).await.is_some());
    }
}

#[tokio::test]
async fn answers_are_forgotten_and_open_commands_are_not() {
    let Some(world) = World::start().await else {
        return;
    };
    let fence = world.own(node()).await;
    let done = command(&world.send().await, CommandKind::Cancel);
    world.command(&fence, &[done]).await;
    let open = command(&world.send().await, CommandKind::Cancel);
    world.store.note_commands(&[open], NOW).await.unwrap();
    assert_eq!(world.store.age_out_commands(NOW).await.unwrap(), 0);
    assert_eq!(world.store.age_out_commands(NOW + HOUR).await.unwrap(), 1);
    assert_eq!(world.result(&done).await, None);
    assert_eq!(world.carry_out(&fence).await.len(), 1);
}
