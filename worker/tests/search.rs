//! The index that mail is searched with holds every delivery, as the log last spoke of it, whatever
//! happens to the workers that fill it.

#![allow(clippy::unwrap_used)] // a test that cannot go on says so by panicking

#[allow(
    dead_code,
    unused_imports,
    reason = "the tests of webhooks stand on the same, and use more of it"
)]
mod common;

use std::time::Duration;

use common::{PATIENCE, Platform};
use mail::event::{DeliveryStatus, EventType};
use mail::ids::{EventId, NodeId};
use store::EmailFilter;
use uuid::Uuid;

/// Deliveries in the index, by status.
async fn indexed(platform: &Platform, status: DeliveryStatus) -> i64 {
    let count = sqlx::query_scalar("SELECT count(*) FROM email_search WHERE status = $1");
    let count = count.bind(status.code()).fetch_one(&platform.pool);
    count.await.unwrap()
}

async fn indexed_becomes(platform: &Platform, status: DeliveryStatus, expected: i64) {
    let reached = async {
        while indexed(platform, status).await < expected {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, reached).await;
    let found = indexed(platform, status).await;
    assert!(waited.is_ok(), "{found} are {status}, not {expected}");
    assert_eq!(found, expected, "{status}");
}

/// Says that the mail of these `email.queued` events was delivered.
async fn deliver(platform: &Platform, queued: &[EventId]) {
    let ids: Vec<Uuid> = queued.iter().map(|id| id.uuid()).collect();
    sqlx::query(
        "INSERT INTO event (id, subject, account, type, rcpt, sequence, attempt, flags)
         SELECT overlay(e.id::text placing '1' from 36)::uuid, e.subject, e.account, $2, e.rcpt, 2, 1, 1
         FROM event e WHERE e.id = ANY ($1)",
    )
    .bind(ids)
    .bind(EventType::EmailDelivered.code())
    .execute(&platform.pool)
    .await
    .unwrap();
}

#[tokio::test]
async fn mail_is_in_the_index_soon_and_follows_its_status() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let worker = platform.worker();
    let sent = platform.send(3).await;
    indexed_becomes(&platform, DeliveryStatus::Queued, 3).await;
    deliver(&platform, &sent[..2]).await;
    indexed_becomes(&platform, DeliveryStatus::Delivered, 2).await;
    assert_eq!(indexed(&platform, DeliveryStatus::Queued).await, 1);
    let filter = EmailFilter {
        recipient: Some("ana@example.com".parse().unwrap()),
        tag: Some("receipt".into()),
        status: Some(DeliveryStatus::Delivered),
        ..EmailFilter::default()
    };
    let account = platform.account.no;
    let found = platform.store.search_emails(account, &filter, None, 10);
    assert_eq!(found.await.unwrap().emails.len(), 2);
    worker.shows("postrider_search_reader 1").await;
    worker.shows("postrider_search_lag_seconds 0").await;
    worker.shows("postrider_search_rows_total 5").await;
    worker.stop().await;
}

#[tokio::test]
async fn killed_workers_lose_nothing_and_write_nothing_twice() {
    const ROUNDS: i64 = 8;
    // Several pages each time.
    const BATCH: usize = 4_000;
    let Some(platform) = Platform::start().await else {
        return;
    };
    for round in 0..ROUNDS {
        let sent = platform.send(BATCH).await;
        deliver(&platform, &sent[..1_000]).await;
        let worker = platform.worker();
        // At whatever it is doing then: reading, writing, waiting.
        tokio::time::sleep(Duration::from_millis(40 * round as u64)).await;
        worker.kill().await;
    }
    let worker = platform.worker();
    indexed_becomes(&platform, DeliveryStatus::Delivered, ROUNDS * 1_000).await;
    indexed_becomes(&platform, DeliveryStatus::Queued, ROUNDS * 3_000).await;
    worker.stop().await;
    let outside = "SELECT count(*) FROM email_search s WHERE NOT EXISTS (
                     SELECT FROM email_span p
                     WHERE p.key = s.tags[1] AND s.message_id BETWEEN p.first_id AND p.last_id)";
    let twice = "SELECT count(*) - count(DISTINCT (key, last_id)) FROM email_span";
    for wrong in [outside, twice] {
        let count = sqlx::query_scalar(wrong).fetch_one(&platform.pool);
        let count: i64 = count.await.unwrap();
        assert_eq!(count, 0, "{wrong}");
    }
}

#[tokio::test]
async fn of_two_workers_one_fills_the_index_and_the_other_takes_over() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let first = platform.worker();
    first.shows("postrider_search_reader 1").await;
    let second = platform.worker_of(NodeId::from_uuid(Uuid::new_v4()));
    platform.send(100).await;
    indexed_becomes(&platform, DeliveryStatus::Queued, 100).await;
    second.shows("postrider_search_reader 0").await;
    second.shows("postrider_search_rows_total 0").await;
    first.stop().await;
    platform.send(100).await;
    second.shows("postrider_search_reader 1").await;
    indexed_becomes(&platform, DeliveryStatus::Queued, 200).await;
    second.shows("postrider_search_rows_total 100").await;
    second.stop().await;
}
