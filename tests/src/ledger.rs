//! What PostgreSQL says became of every delivery. Read only.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use mail::event::EventType;
use sqlx::PgPool;
use uuid::Uuid;

use crate::{PATIENCE, until};

/// `queue.flags`: held because an attempt was ambiguous.
const HELD: i16 = 2;

/// The events of one message with one recipient, summed up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fate {
    /// Events with `final: true`.
    pub finals: i64,
    /// Of them `email.delivered`.
    pub delivered: i64,
    /// Events that put it off after an attempt nobody knows the outcome of.
    pub in_doubt: i64,
}

/// By message id.
pub async fn fates(pool: &PgPool) -> HashMap<Uuid, Fate> {
    let rows: Vec<(Uuid, i64, i64, i64)> = sqlx::query_as(
        "SELECT subject,
                count(*) FILTER (WHERE flags & 1 <> 0),
                count(*) FILTER (WHERE flags & 1 <> 0 AND type = 3),
                count(*) FILTER (WHERE flags & 2 <> 0 AND type = 4)
         FROM event WHERE rcpt IS NOT NULL GROUP BY subject",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    let fate = |(id, finals, delivered, in_doubt)| {
        (
            id,
            Fate {
                finals,
                delivered,
                in_doubt,
            },
        )
    };
    rows.into_iter().map(fate).collect()
}

/// Messages that were stored.
pub async fn messages(pool: &PgPool) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM message")
        .fetch_one(pool)
        .await
        .unwrap()
}

/// Deliveries that are held until somebody decides.
pub async fn held(pool: &PgPool) -> Vec<Uuid> {
    sqlx::query_scalar("SELECT message_id FROM queue WHERE flags & $1 <> 0")
        .bind(HELD)
        .fetch_all(pool)
        .await
        .unwrap()
}

/// One attempt: message, recipient, attempts finished before it.
pub type Attempt = (Uuid, i16, i16);

/// Attempts whose final dot was allowed and whose outcome PostgreSQL does not know.
pub async fn open_intents(pool: &PgPool) -> HashSet<Attempt> {
    let rows: Vec<Attempt> = sqlx::query_as(
        "SELECT DISTINCT q.message_id, q.rcpt, q.attempt
         FROM queue q, attempt_intent i, unnest(i.messages, i.rcpts, i.attempts) AS u (m, r, a)
         WHERE u.m = q.message_id AND u.r = q.rcpt AND u.a = q.attempt AND i.shard = q.shard",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    rows.into_iter().collect()
}

/// The same, of a node that was just killed: what its sessions still carried out is waited for.
pub async fn open_intents_of_dead(pool: &PgPool, node: &str) -> HashSet<Attempt> {
    until("the dead node's sessions end", PATIENCE, || async {
        let sessions: i64 =
            sqlx::query_scalar("SELECT count(*) FROM pg_stat_activity WHERE application_name = $1")
                .bind(format!("postrider {node}"))
                .fetch_one(pool)
                .await
                .ok()?;
        (sessions == 0).then_some(())
    })
    .await;
    open_intents(pool).await
}

/// Attempts that ended in doubt.
pub async fn doubts(pool: &PgPool) -> HashSet<Attempt> {
    let rows: Vec<Attempt> = sqlx::query_as(
        "SELECT subject, rcpt, (attempt - 1)::int2 FROM event
         WHERE flags & 2 <> 0 AND type = 4 AND code IS NULL",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    let doubts: HashSet<Attempt> = rows.iter().copied().collect();
    assert_eq!(rows.len(), doubts.len(), "one attempt ended twice");
    doubts
}

/// Waits until nothing is queued but what is held.
pub async fn settled(pool: &PgPool, patience: Duration) {
    let count = "SELECT count(*) FROM queue WHERE flags & $1 = 0";
    until("the queue is empty", patience, || async {
        let left: i64 = sqlx::query_scalar(count)
            .bind(HELD)
            .fetch_one(pool)
            .await
            .ok()?;
        (left == 0).then_some(())
    })
    .await;
}

/// The events of a message, a line each, for the text of a failure.
pub async fn story(pool: &PgPool, message: Uuid) -> String {
    let rows: Vec<(Uuid, i16, i16, i16, i16, Option<String>)> = sqlx::query_as(
        "SELECT id, type, sequence, attempt, flags, reply FROM event WHERE subject = $1
         ORDER BY rcpt, sequence, id",
    )
    .bind(message)
    .fetch_all(pool)
    .await
    .unwrap();
    let line = |(id, kind, sequence, attempt, flags, reply): (Uuid, _, _, _, _, _)| {
        let kind = EventType::from_code(kind).map_or("?", EventType::as_str);
        let unix_ms = id.as_u128() >> 80;
        let reply: Option<String> = reply;
        format!("{unix_ms} {sequence} {kind} attempt {attempt} flags {flags} {reply:?}\n")
    };
    rows.into_iter().map(line).collect()
}
