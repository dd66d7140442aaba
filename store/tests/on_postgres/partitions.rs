//! Partitions of a day are made beside mail that is accepted, settled and read.

use sqlx::Connection;
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
