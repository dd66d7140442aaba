//! Accepting while connections are lost: mail is stored once, or nobody is told that it was.

use std::time::Duration;

use sqlx::{Connection, PgConnection};
use store::*;
use tokio::time::timeout;

use crate::accepting::keyed;
use crate::world::{PATIENCE, World};

/// Ends the session of whoever waits for the lock, and waits until there is one.
async fn end_waiting_session(connection: &mut PgConnection) {
    let ended = async {
        loop {
            let done: Vec<bool> = sqlx::query_scalar(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
                 WHERE datname = current_database() AND wait_event_type = 'Lock'",
            )
            .fetch_all(&mut *connection)
            .await
            .unwrap();
            if !done.is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, ended).await.unwrap();
}

/// The server goes away once and comes back: every connection is lost, those that are idle too.
#[tokio::test]
async fn mail_that_a_second_try_stored_is_never_called_refused() {
    let Some(world) = World::start().await else {
        return;
    };
    let (mut blocker, mut killer) = (world.connection().await, world.connection().await);
    let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()")
        .fetch_one(&mut blocker)
        .await
        .unwrap();
    let mut lock = blocker.begin().await.unwrap();
    sqlx::query("LOCK TABLE queue IN SHARE MODE")
        .execute(&mut *lock)
        .await
        .unwrap();
    let (acceptor, request) = (world.acceptor(), world.request(vec![world.message()]));
    world.store.default_partition_rows().await.unwrap();
    let running = tokio::spawn(async move { acceptor.accept(request).await });
    until_something_waits(&mut killer).await;
    sqlx::query(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
         WHERE datname = current_database() AND pid NOT IN (pg_backend_pid(), $1)",
    )
    .bind(pid)
    .execute(&mut killer)
    .await
    .unwrap();
    lock.rollback().await.unwrap();
    let answer = timeout(PATIENCE, running).await.unwrap().unwrap();
    assert_eq!(answer.unwrap(), Accepted::Stored);
    assert_eq!(world.queued().await.len(), 1);
}

async fn until_something_waits(connection: &mut PgConnection) {
    let waits = async {
        let count = "SELECT count(*) FROM pg_stat_activity
                     WHERE datname = current_database() AND wait_event_type = 'Lock'";
        loop {
            let count: i64 = sqlx::query_scalar(count)
                .fetch_one(&mut *connection)
                .await
                .unwrap();
            if count > 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, waits).await.unwrap();
}

#[tokio::test]
async fn a_connection_lost_in_mid_commit_is_survived_once() {
    let Some(world) = World::start().await else {
        return;
    };
    for (losses, unavailable) in [(1, false), (2, true)] {
        let (mut blocker, mut killer) = (world.connection().await, world.connection().await);
        let mut lock = blocker.begin().await.unwrap();
        sqlx::query("LOCK TABLE queue IN SHARE MODE")
            .execute(&mut *lock)
            .await
            .unwrap();
        let (acceptor, request) = (world.acceptor(), keyed(&world, losses));
        let request = AcceptRequest {
            idempotency: request.idempotency.map(|key| IdempotencyKey {
                key_hash: [losses; 32],
                ..key
            }),
            ..request
        };
        let again = request.clone();
        let running = tokio::spawn(async move { acceptor.accept(request).await });
        for _ in 0..losses {
            end_waiting_session(&mut killer).await;
        }
        lock.rollback().await.unwrap();
        let answer = timeout(PATIENCE, running).await.unwrap().unwrap();
        if unavailable {
            assert!(
                matches!(answer, Err(StoreError::CommitUnknown { .. })),
                "{answer:?}"
            );
            assert!(answer.unwrap_err().is_unavailable());
            let accepted = world.acceptor().accept(again).await.unwrap();
            assert_eq!(accepted, Accepted::Stored, "the sender may repeat it");
        } else {
            assert_eq!(answer.unwrap(), Accepted::Stored);
        }
    }
    assert_eq!(world.queued().await.len(), 2);
}
