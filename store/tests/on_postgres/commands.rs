//! Commands to queued mail: each is carried out once, by the owner, or answered as too late; nothing
//! that may have been sent is ever cancelled.

use std::time::Duration;

use mail::event::EventType;
use mail::ids::MessageId;
use store::*;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::world::{NOW, World, node, outcome};

const HOUR: Duration = Duration::from_secs(3_600);

fn command(row: &QueueRow, kind: CommandKind) -> NewCommand {
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
    async fn told(&self, message: MessageId) -> Vec<(EventType, u16, EventFlags)> {
        let events = self.store.message_events(message).await.unwrap();
        events
            .iter()
            .map(|event| (event.kind, event.sequence, event.flags))
            .collect()
    }

    /// Accepts a message due at that time; its row.
    async fn send_at(&self, due_at: OffsetDateTime) -> QueueRow {
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
async fn only_what_is_due_later_is_cancelled_directly() {
    let Some(world) = World::start().await else {
        return;
    };
    let (soon, later) = (world.send().await, world.send_at(NOW + HOUR).await);
    let place = world
        .store
        .message_place(world.account.no, later.key.message)
        .await
        .unwrap();
    let place = place.unwrap();
    assert_eq!(place.shard, later.shard);
    let due_ms = (NOW + HOUR).unix_timestamp_nanos() / 1_000_000;
    assert_eq!(
        i128::from(place.content_due_ms),
        due_ms,
        "where to look for it"
    );
    let stranger = AccountNo(world.account.no.0 + 1);
    let foreign = world
        .store
        .message_place(stranger, later.key.message)
        .await
        .unwrap();
    assert_eq!(foreign, None);

    let minute = NOW + Duration::from_secs(60);
    let mut gone = Vec::new();
    for row in [&soon, &later] {
        let (times, spans) = ([NOW + HOUR], [(NOW, NOW)]);
        let found = world
            .store
            .queued_in(row.shard, row.key.message, &times, &spans)
            .await
            .unwrap();
        assert_eq!(
            found,
            [QueuedDelivery {
                key: row.key,
                next_at: row.next_at
            }]
        );
        let cancel = async |check_clock| {
            let (store, shard) = (&world.store, row.shard);
            let cancelled = store.cancel_direct(shard, &found, minute, NOW, check_clock);
            cancelled.await.unwrap()
        };
        assert_eq!(cancel(true).await, [], "this clock is months behind");
        gone.extend(cancel(false).await);
    }
    assert_eq!(gone, [later.key]);
    assert_eq!(world.queued().await, [soon]);
    let ended = (EventType::EmailCancelled, 2, EventFlags::FINAL);
    let scheduled = (EventType::EmailScheduled, 1, EventFlags::NONE);
    assert_eq!(world.told(later.key.message).await, [scheduled, ended]);
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
async fn a_filter_notes_what_fits_and_nothing_else() {
    let Some(world) = World::start().await else {
        return;
    };
    let accept = |message: NewMessage| {
        let request = world.request(vec![message]);
        let acceptor = world.acceptor();
        async move { acceptor.accept(request).await.unwrap() }
    };
    for _ in 0..7 {
        accept(world.message()).await;
    }
    accept(NewMessage {
        tags: vec!["other".into()],
        ..world.message()
    })
    .await;
    accept(NewMessage {
        flags: MessageFlags::TEST,
        ..world.message()
    })
    .await;
    accept(NewMessage {
        due_at: NOW + HOUR,
        ..world.message()
    })
    .await;
    let stranger = NewMessage {
        account: AccountNo(world.account.no.0 + 1),
        ..world.message()
    };
    accept(stranger).await;

    let all = CommandFilter {
        account: world.account.no,
        test_only: false,
        sender_domains: None,
        stream: None,
        domain: None,
        tag: None,
        status: None,
        after: None,
        before: None,
    };
    let status = |status| CommandFilter {
        status: Some(status),
        ..all.clone()
    };
    let cancel = CommandKind::Cancel;
    let walk = async |kind, filter: &CommandFilter| {
        let mut matched = 0;
        for shard in world.store.all_shards().await.unwrap() {
            let mut place = WalkPlace {
                shard,
                cursor: Cursor::START,
            };
            loop {
                let page = world
                    .store
                    .note_matching(kind, filter, place, 3, NOW)
                    .await
                    .unwrap();
                matched += page.matched;
                let Some(last) = page.last else { break };
                place.cursor = last;
            }
        }
        // What is wanted already would not be noted again.
        let forgotten = sqlx::query("DELETE FROM queue_command");
        forgotten
            .execute(&mut world.connection().await)
            .await
            .unwrap();
        matched
    };
    assert_eq!(walk(cancel, &all).await, 10);
    assert_eq!(
        walk(
            cancel,
            &CommandFilter {
                test_only: true,
                ..all.clone()
            }
        )
        .await,
        1
    );
    assert_eq!(
        walk(
            cancel,
            &CommandFilter {
                tag: Some("other".into()),
                ..all.clone()
            }
        )
        .await,
        1
    );
    assert_eq!(walk(cancel, &status(WaitingStatus::Queued)).await, 9);
    assert_eq!(walk(cancel, &status(WaitingStatus::Scheduled)).await, 1);
    assert_eq!(walk(cancel, &status(WaitingStatus::Deferred)).await, 0);
    let retry = CommandKind::RetryNow;
    assert_eq!(walk(retry, &all).await, 0, "nothing was deferred");
    let scheduled = status(WaitingStatus::Scheduled);
    assert_eq!(walk(retry, &scheduled).await, 1, "it is what was asked for");
    let mut connection = world.connection().await;
    for flags in [0, 3] {
        sqlx::query(
            "UPDATE queue SET attempt = 1, flags = $1, next_at = $2
             WHERE ctid = (SELECT ctid FROM queue WHERE account = $3 AND attempt = 0 AND next_at <= $4 LIMIT 1)",
        )
        .bind(flags)
        .bind(NOW + HOUR)
        .bind(world.account.no.0)
        .bind(NOW)
        .execute(&mut connection)
        .await
        .unwrap();
    }
    assert_eq!(walk(retry, &all).await, 1, "what is held may have arrived");
    let stream = Some(StreamNo(world.stream.no.0 + 1));
    assert_eq!(
        walk(
            cancel,
            &CommandFilter {
                stream,
                ..all.clone()
            }
        )
        .await,
        0
    );
    let domain = Some(RecipientDomainNo(world.recipient_domain.0 + 1));
    assert_eq!(
        walk(
            cancel,
            &CommandFilter {
                domain,
                ..all.clone()
            }
        )
        .await,
        0
    );
    let before = CommandFilter {
        before: Some(NOW),
        ..all.clone()
    };
    assert_eq!(walk(cancel, &before).await, 0);
    let after = CommandFilter {
        after: Some(NOW),
        ..all.clone()
    };
    assert_eq!(walk(cancel, &after).await, 10);
    let reschedule = CommandKind::Reschedule(NOW);
    let start = WalkPlace {
        shard: ShardNo(0),
        cursor: Cursor::START,
    };
    let refused = world
        .store
        .note_matching(reschedule, &all, start, 3, NOW)
        .await;
    assert!(matches!(refused, Err(StoreError::Invalid { .. })));

    // The single command does not wait behind the many.
    let fence = world.own(node()).await;
    let row = world.queued().await.pop().unwrap();
    let single = command(&row, CommandKind::Cancel);
    world
        .store
        .note_commands(&[single], NOW + HOUR)
        .await
        .unwrap();
    let shards: Vec<ShardNo> = fence.held.iter().map(|(shard, _)| *shard).collect();
    let open = world.store.open_commands(&shards, 10, 0).await.unwrap();
    assert_eq!(open, [single]);
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
