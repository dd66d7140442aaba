//! Clients who want much at once: their statements take no connection from sending, their look-ups
//! end however popular a time is, and an action's thousands keep nobody waiting.

use std::time::Duration;

use mail::ids::MessageId;
use sqlx::{AssertSqlSafe, Connection};
use store::*;
use uuid::Uuid;

use crate::world::{NOW, PATIENCE, World, node};

const HOUR: Duration = Duration::from_secs(3_600);

fn cancel(row: &QueueRow, bulk: bool) -> NewCommand {
    NewCommand {
        id: Uuid::new_v4(),
        shard: row.shard,
        key: row.key,
        kind: CommandKind::Cancel,
        seen_at: Some(row.next_at),
        bulk,
    }
}

fn everything(world: &World) -> CommandFilter {
    CommandFilter {
        account: world.account.no,
        test_only: false,
        stream: None,
        domain: None,
        sender_domains: None,
        tag: None,
        status: None,
        after: None,
        before: None,
    }
}

impl World {
    /// Notes a command for all mail that waits; how many.
    async fn note_all(&self, kind: CommandKind) -> u64 {
        let mut matched = 0;
        for shard in self.store.all_shards().await.unwrap() {
            let place = WalkPlace {
                shard,
                cursor: Cursor::START,
            };
            let filter = everything(self);
            let page = self.store.note_matching(kind, &filter, place, 100, NOW);
            matched += page.await.unwrap().matched;
        }
        matched
    }

    async fn run(&self, statement: String) {
        sqlx::query(AssertSqlSafe(statement))
            .execute(&mut self.connection().await)
            .await
            .unwrap();
    }

    /// Statements of ours that wait for a lock.
    async fn waiting(&self) -> i64 {
        let waiting = "SELECT count(*) FROM pg_stat_activity
                       WHERE datname = current_database() AND wait_event_type = 'Lock'";
        self.count(waiting).await
    }

    /// Has all of these begun, and as many as can be wait for the lock; then sending must go on.
    async fn sending_goes_on_beside(&self, table: &str, clients: Vec<tokio::task::JoinHandle<()>>) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while self.waiting().await < 2 {
            assert!(tokio::time::Instant::now() < deadline, "{table}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        for _ in 0..20 {
            let cursors = [(ShardNo(0), Cursor::START)];
            let read = self.store.poll(&cursors, NOW, 10).await;
            assert!(read.is_ok(), "{table}: {read:?}");
        }
        clients.into_iter().for_each(|client| client.abort());
    }
}

#[tokio::test]
async fn clients_whose_statements_hang_keep_neither_sending_nor_each_other_from_working() {
    let Some(world) = World::start().await else {
        return;
    };
    let row = world.send().await;
    for table in ["queue_command", "content"] {
        let mut other = world.connection().await;
        let mut lock = other.begin().await.unwrap();
        let statement = format!("LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE");
        sqlx::query(AssertSqlSafe(statement))
            .execute(&mut *lock)
            .await
            .unwrap();
        let client = || {
            let (store, command, id) = (world.store.clone(), cancel(&row, false), row.key.message);
            async move {
                // They end with an error, or not at all.
                if table == "content" {
                    drop(store.content_to_show(id).await);
                } else {
                    drop(store.note_commands(&[command], NOW).await);
                }
            }
        };
        let clients = (0..24).map(|_| tokio::spawn(client())).collect();
        world.sending_goes_on_beside(table, clients).await;
        let found = world
            .store
            .sent_among(world.account.no, &[row.key.message])
            .await;
        assert_eq!(found.unwrap().len(), 1, "searching goes on beside {table}");
        lock.rollback().await.unwrap();
    }
}

#[tokio::test]
async fn a_time_that_everybody_wants_is_not_read_through_for_one_message() {
    let Some(world) = World::start().await else {
        return;
    };
    let row = world.send().await;
    let popular = NOW + HOUR;
    // The message stands before all others of that time.
    world
        .run(format!(
            "INSERT INTO queue (next_at, first_at, expires_at, message_id, account, stream, domain,
                                shard, rcpt)
             SELECT '{popular}', '{popular}', '{popular}',
                    CASE i WHEN 0 THEN '00000000-0000-7000-8000-000000000000'
                           ELSE gen_random_uuid() END, 1, 1, 1, {}, 0
             FROM generate_series(0, 20000) i",
            row.shard.0
        ))
        .await;
    let first = MessageId::from_uuid("00000000-0000-7000-8000-000000000000".parse().unwrap());
    let find = async |message, times: &[_], spans: &[_]| {
        let found = world
            .store
            .queued_in(row.shard, message, times, spans)
            .await;
        let found = found.unwrap().into_iter();
        found.map(|one| one.next_at).collect::<Vec<_>>()
    };
    let span = (popular - HOUR, popular);
    assert_eq!(find(first, &[popular], &[]).await, [popular]);
    assert_eq!(find(first, &[popular], &[span]).await, [popular]);
    let read_through = find(first, &[], &[span]).await;
    assert!(
        read_through.is_empty(),
        "no more than the end of a span is read"
    );
    let before = (NOW - HOUR, NOW);
    assert_eq!(find(row.key.message, &[], &[before]).await, [NOW]);
}

#[tokio::test]
async fn an_action_is_too_late_for_what_moved_and_walks_through_nothing() {
    let Some(world) = World::start().await else {
        return;
    };
    let (row, fence) = (world.send().await, world.own(node()).await);
    let (many, one) = (cancel(&row, true), cancel(&row, false));
    let moves = [(row.clone(), row.shard, NOW + HOUR)];
    assert_eq!(world.store.park(&fence, &moves).await.unwrap(), [true]);
    world.store.note_commands(&[many, one], NOW).await.unwrap();
    let open = async |bulk| {
        let shards = [row.shard];
        let open = world.store.open_commands(&shards, 10, bulk);
        open.await.unwrap()
    };
    assert_eq!(open(0).await, [one], "those of actions can be left out");
    let open = open(10).await;
    assert_eq!(open.len(), 2);
    for found in world.store.find_commands(&open).await.unwrap() {
        let expected = (!found.command.bulk).then_some(NOW + HOUR);
        assert_eq!(found.found_at, expected, "{found:?}");
    }
    let found = world.store.find_commands(&[many]).await.unwrap();
    let answers = world.store.run_commands(&fence, &found, NOW).await.unwrap();
    let late = CommandAnswer {
        id: many.id,
        result: CommandResult::TooLate,
        changed: None,
    };
    assert_eq!(answers, [late]);
}

#[tokio::test]
async fn what_is_wanted_already_is_not_noted_again_and_counts_until_it_is_answered() {
    let Some(world) = World::start().await else {
        return;
    };
    for _ in 0..5 {
        world.send().await;
    }
    world
        .run("UPDATE queue SET next_at = next_at + interval '1 hour'".to_owned())
        .await;
    let open = async |account| world.store.open_bulk_commands(account, 4).await.unwrap();
    let rows = world.queued().await;
    let single = cancel(&rows[0], false);
    world.store.note_commands(&[single], NOW).await.unwrap();
    assert_eq!(
        open(world.account.no).await,
        0,
        "those given one by one do not count"
    );
    assert_eq!(world.note_all(CommandKind::Cancel).await, 4);
    assert_eq!(world.note_all(CommandKind::Cancel).await, 0);
    assert_eq!(open(world.account.no).await, 4);
    assert_eq!(
        world.note_all(CommandKind::RetryNow).await,
        5,
        "another wish"
    );
    assert_eq!(open(world.account.no).await, 4, "no further is counted");
    assert_eq!(open(AccountNo(world.account.no.0 + 1)).await, 0);

    let fence = world.own(node()).await;
    let shards: Vec<ShardNo> = fence.held.iter().map(|(shard, _)| *shard).collect();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let mut commands = world.store.open_commands(&shards, 10, 10).await.unwrap();
        if commands.is_empty() {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline);
        let mut seen = std::collections::HashSet::new();
        commands.retain(|command| seen.insert(command.key));
        let found = world.store.find_commands(&commands).await.unwrap();
        world.store.run_commands(&fence, &found, NOW).await.unwrap();
    }
    assert_eq!(open(world.account.no).await, 0);
}
