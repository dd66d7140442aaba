//! Partitions of a day are made beside mail that is accepted, settled and read.

use sqlx::Connection;
use store::StoreError;
use time::Duration;
use tokio::time::timeout;

use crate::world::{NOW, PATIENCE, World};

/// Accepting writes content, message and event in one transaction. Making their partitions must
/// neither wait for it nor, with a lock of its own on one of them, be waited for: that was a
/// deadlock once.
#[tokio::test]
async fn a_day_is_made_in_the_middle_of_a_transaction_that_writes() {
    let Some(world) = World::start().await else {
        return;
    };
    let mut connection = world.connection().await;
    let mut accepting = connection.begin().await.unwrap();
    for table in ["message", "content"] {
        let lock = format!("LOCK TABLE ONLY {table} IN ROW EXCLUSIVE MODE");
        sqlx::query(sqlx::AssertSqlSafe(lock))
            .execute(&mut *accepting)
            .await
            .unwrap();
    }

    let day = (NOW + Duration::days(40)).date();
    timeout(PATIENCE, world.store.make_partitions(std::iter::once(day)))
        .await
        .expect("waits for a transaction that writes")
        .unwrap();

    sqlx::query("LOCK TABLE ONLY event IN ROW EXCLUSIVE MODE")
        .execute(&mut *accepting)
        .await
        .unwrap();
    accepting.commit().await.unwrap();
}

/// Somebody who reads a DEFAULT partition for long keeps that table's partition from being made, no
/// other's, and keeps nobody who accepts waiting behind the attempt.
#[tokio::test]
async fn a_long_reader_delays_one_table_only() {
    let Some(world) = World::start().await else {
        return;
    };
    let mut connection = world.connection().await;
    let mut reading = connection.begin().await.unwrap();
    sqlx::query("SELECT count(*) FROM message_default")
        .execute(&mut *reading)
        .await
        .unwrap();

    let day = (NOW + Duration::days(41)).date();
    let made = timeout(PATIENCE, world.store.make_partitions(std::iter::once(day))).await;
    assert!(made.expect("gives up in time").is_err());
    assert_eq!(made_on_day(&world, "message", day).await, 0);
    assert_eq!(made_on_day(&world, "event", day).await, 1);
    assert_eq!(made_on_day(&world, "content_30", day).await, 1);

    reading.commit().await.unwrap();
    world
        .store
        .make_partitions(std::iter::once(day))
        .await
        .unwrap();
    assert_eq!(made_on_day(&world, "message", day).await, 1);
}

/// A row on its way into the DEFAULT partition is refused when its day's partition is attached
/// before it arrives there: accepting tries once more, and nobody is told.
#[tokio::test]
async fn a_day_is_made_while_its_first_mail_is_accepted() {
    let Some(world) = World::start().await else {
        return;
    };
    let day = (NOW + Duration::days(42)).date();
    let mut message = world.message();
    message.due_at = NOW + Duration::days(42);
    message.expires_at = message.due_at + Duration::days(1);
    let request = world.request(vec![message]);

    let mut connection = world.connection().await;
    let mut making = connection.begin().await.unwrap();
    sqlx::query("SELECT make_day_partition('content_7', $1)")
        .bind(day)
        .execute(&mut *making)
        .await
        .unwrap();
    let acceptor = world.acceptor();
    let accepting = tokio::spawn(async move { acceptor.accept(request).await });
    let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted
                   AND relation = 'content_7_default'::regclass";
    timeout(PATIENCE, async {
        while world.count(waiting).await == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("does not wait for the DEFAULT partition");
    making.commit().await.unwrap();

    accepting.await.unwrap().unwrap();
    let filed = "SELECT count(*) FROM content c JOIN pg_class t ON t.oid = c.tableoid
                 WHERE t.relname = 'content_7_20260421'";
    assert_eq!(world.count(filed).await, 1);
}

async fn made_on_day(world: &World, parent: &str, day: time::Date) -> i64 {
    let mut connection = world.connection().await;
    sqlx::query_scalar(
        "SELECT count(*) FROM pg_inherits
         WHERE inhparent = to_regclass($1)
           AND inhrelid = to_regclass($1 || '_' || to_char($2::date, 'YYYYMMDD'))",
    )
    .bind(parent)
    .bind(day)
    .fetch_one(&mut connection)
    .await
    .unwrap()
}

/// Mail that came while nobody made partitions keeps its day from having one, and no other.
#[tokio::test]
async fn a_day_in_the_default_partition_is_told_from_trouble() {
    let Some(world) = World::start().await else {
        return;
    };
    let (late, next) = (
        (NOW + Duration::days(43)).date(),
        (NOW + Duration::days(44)).date(),
    );
    let mut message = world.message();
    message.due_at = NOW + Duration::days(43);
    message.expires_at = message.due_at + Duration::days(1);
    let request = world.request(vec![message]);
    world.acceptor().accept(request).await.unwrap();

    let made = world.store.make_partitions([late, next].into_iter()).await;
    assert!(
        matches!(made, Err(StoreError::DayInDefault { table: "content_7", day }) if day == late),
        "{made:?}"
    );
    assert_eq!(made_on_day(&world, "content_7", late).await, 0);
    assert_eq!(made_on_day(&world, "content_30", late).await, 1);
    assert_eq!(made_on_day(&world, "content_7", next).await, 1);
}

/// What is due in weeks is filed under that day, and has a partition there.
#[tokio::test]
async fn scheduled_content_lies_in_the_partition_of_the_day_it_is_due() {
    let Some(world) = World::start().await else {
        return;
    };
    let due_at = NOW + Duration::days(30);
    let day = std::iter::once(due_at.date());
    world.store.make_content_partitions(day).await.unwrap();
    assert_eq!(made_on_day(&world, "message", due_at.date()).await, 0);
    let mut message = world.message();
    message.due_at = due_at;
    message.expires_at = due_at + Duration::days(1);
    let request = world.request(vec![message]);
    world.acceptor().accept(request).await.unwrap();

    assert_eq!(world.store.default_partition_rows().await.unwrap(), 0);
    let filed = "SELECT count(*) FROM content c JOIN pg_class t ON t.oid = c.tableoid
                 WHERE t.relname LIKE '%20260409'";
    assert_eq!(world.count(filed).await, 1);
    let told = "SELECT count(*) FROM event WHERE type = 2 AND next_at = '2026-04-09 12:00Z'";
    assert_eq!(world.count(told).await, 1);
}
