//! Commands to queued mail, as the owner of their shards carries them out: read, found in the queue,
//! done and answered under the fence. The owner must keep its gate shut for a delivery meanwhile:
//! two statements of one node do not see each other.

use mail::bounce_class::BounceClass;
use mail::event::EventType;
use mail::ids::MessageId;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::command::{CommandKind, CommandResult, NewCommand, event_id};
use crate::database::Store;
use crate::decode::{signed, unsigned};
use crate::error::{During, StoreError};
use crate::numbers::{ShardNo, micros};
use crate::queue::{Cursor, DeliveryKey, Fence};

/// Keys of a shard in one statement that looks for deliveries.
const SCAN_ROWS: i64 = 20_000;

/// A command with the place its row was found at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoundCommand {
    /// The command.
    pub command: NewCommand,
    /// When the row is due; none: the delivery is not in the queue any more, or, for a command of
    /// many, not where it was seen.
    pub found_at: Option<OffsetDateTime>,
}

impl FoundCommand {
    /// Whether it is worth looking through the shard.
    fn is_sought(&self) -> bool {
        self.found_at.is_none() && !self.command.bulk
    }
}

/// An answer, as it was written with what it tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommandAnswer {
    /// Which command.
    pub id: Uuid,
    /// What it came to.
    pub result: CommandResult,
    /// Attempts finished of the row that went or moved; none if nothing had to be changed.
    pub changed: Option<u16>,
}

type OpenColumns = (
    Uuid,
    i16,
    Uuid,
    i16,
    i16,
    Option<OffsetDateTime>,
    Option<OffsetDateTime>,
    bool,
);

impl Store {
    /// Open commands of these shards, oldest first: at most `single` of those given one by one and
    /// `bulk` of the others a shard, so that nobody waits behind a thousand. A command that cannot
    /// be understood is logged and left out.
    ///
    /// # Errors
    /// Of the database.
    pub async fn open_commands(
        &self,
        shards: &[ShardNo],
        single: i64,
        bulk: i64,
    ) -> Result<Vec<NewCommand>, StoreError> {
        let rows: Vec<OpenColumns> = sqlx::query_as(
            "SELECT c.id, c.shard, c.message_id, c.rcpt, c.kind, c.due_at, c.seen_at, c.bulk
             FROM unnest($1::int2[]) AS s (shard)
             CROSS JOIN (VALUES (false, $2::int8), (true, $3::int8)) AS b (bulk, most)
             CROSS JOIN LATERAL (
               SELECT * FROM queue_command c
               WHERE c.shard = s.shard AND c.bulk = b.bulk AND c.result IS NULL
               ORDER BY c.noted_at LIMIT b.most) c
             WHERE c.rcpt IS NOT NULL",
        )
        .bind(shards.iter().map(|shard| shard.0).collect::<Vec<i16>>())
        .bind(single)
        .bind(bulk)
        .fetch_all(&self.queue)
        .await
        .during("read commands")?;
        let readable = |row: OpenColumns| {
            let id = row.0;
            command(row)
                .inspect_err(|error| tracing::error!(%error, %id, "a command is left out"))
                .ok()
        };
        Ok(rows.into_iter().filter_map(readable).collect())
    }

    /// Finds the rows of these commands: where they were seen last, or, of commands given one by one,
    /// by looking through their shards. An action's thousands must not make everybody wait for
    /// that: they are too late for a row that has moved. Only the owner may conclude anything from a
    /// row that is not found: rows of its shards move forward only, and by nobody else.
    ///
    /// # Errors
    /// Of the database.
    pub async fn find_commands(
        &self,
        commands: &[NewCommand],
    ) -> Result<Vec<FoundCommand>, StoreError> {
        let mut found: Vec<FoundCommand> = commands
            .iter()
            .map(|command| FoundCommand {
                command: *command,
                found_at: None,
            })
            .collect();
        self.find_where_seen(&mut found).await?;
        let mut shards: Vec<ShardNo> = found
            .iter()
            .filter(|one| one.is_sought())
            .map(|one| one.command.shard)
            .collect();
        shards.sort_unstable();
        shards.dedup();
        for shard in shards {
            self.find_in(shard, &mut found).await?;
        }
        Ok(found)
    }

    async fn find_where_seen(&self, found: &mut [FoundCommand]) -> Result<(), StoreError> {
        let of = |take: fn(&NewCommand) -> i16| {
            found
                .iter()
                .map(|one| take(&one.command))
                .collect::<Vec<i16>>()
        };
        let rows: Vec<(i64, OffsetDateTime)> = sqlx::query_as(
            "SELECT u.position, q.next_at
             FROM unnest($1::int2[], $2::timestamptz[], $3::uuid[], $4::int2[])
                  WITH ORDINALITY AS u (shard, next_at, message_id, rcpt, position)
             CROSS JOIN LATERAL (
               SELECT q.next_at FROM queue q
               WHERE q.shard = u.shard AND q.next_at = u.next_at AND q.message_id = u.message_id
                 AND q.rcpt = u.rcpt
               OFFSET 0) q",
        )
        .bind(of(|command| command.shard.0))
        .bind(
            found
                .iter()
                .map(|one| one.command.seen_at)
                .collect::<Vec<Option<OffsetDateTime>>>(),
        )
        .bind(
            found
                .iter()
                .map(|one| one.command.key.message.uuid())
                .collect::<Vec<Uuid>>(),
        )
        .bind(of(|command| signed(command.key.rcpt)))
        .fetch_all(&self.queue)
        .await
        .during("find deliveries where they were seen")?;
        for (position, next_at) in rows {
            mark(found, position, next_at);
        }
        Ok(())
    }

    /// Walks a shard until everything sought in it is found, or to its end.
    async fn find_in(&self, shard: ShardNo, found: &mut [FoundCommand]) -> Result<(), StoreError> {
        let mut cursor = Cursor::START;
        loop {
            let sought: Vec<usize> = (0..found.len())
                .filter(|at| found[*at].is_sought() && found[*at].command.shard == shard)
                .collect();
            if sought.is_empty() {
                return Ok(());
            }
            let keys = || sought.iter().map(|at| found[*at].command.key);
            let rows: Vec<(OffsetDateTime, Uuid, i16, Option<i64>)> =
                sqlx::query_as(include_str!("../queries/command_scan.sql"))
                    .bind(shard.0)
                    .bind(cursor.next_at)
                    .bind(cursor.message)
                    .bind(cursor.rcpt)
                    .bind(SCAN_ROWS)
                    .bind(keys().map(|key| key.message.uuid()).collect::<Vec<Uuid>>())
                    .bind(keys().map(|key| signed(key.rcpt)).collect::<Vec<i16>>())
                    .fetch_all(&self.queue)
                    .await
                    .during("look for deliveries in a shard")?;
            for (next_at, .., position) in &rows {
                let place = position.and_then(|position| usize::try_from(position - 1).ok());
                if let Some(at) = place.and_then(|place| sought.get(place)) {
                    found[*at].found_at = Some(*next_at);
                }
            }
            // A full page ends with its last row; whatever came after that of a shorter one is behind
            // the end, and a row found twice is harmless.
            let Some((next_at, message, rcpt, _)) = rows.last().copied() else {
                return Ok(());
            };
            cursor = Cursor {
                next_at,
                message,
                rcpt,
            };
        }
    }

    /// Carries commands out and answers them, in one statement under the fence; a delivery may
    /// stand in `commands` once. Those without an answer have to be found again: their row moved.
    ///
    /// # Errors
    /// Of the database; then nothing was done, or nobody knows: reading the open commands tells.
    pub async fn run_commands(
        &self,
        fence: &Fence,
        commands: &[FoundCommand],
        now: OffsetDateTime,
    ) -> Result<Vec<CommandAnswer>, StoreError> {
        let now = micros(now);
        let of = |take: fn(&NewCommand) -> i16| {
            commands
                .iter()
                .map(|one| take(&one.command))
                .collect::<Vec<i16>>()
        };
        let wanted = || commands.iter().map(|one| &one.command);
        let rows: Vec<(Uuid, i16, Option<i16>)> =
            sqlx::query_as(include_str!("../queries/command_run.sql"))
                .bind(fence.owner.uuid())
                .bind(fence.shards())
                .bind(fence.epochs())
                .bind(wanted().map(|command| command.id).collect::<Vec<Uuid>>())
                .bind(of(|command| command.shard.0))
                .bind(
                    wanted()
                        .map(|c| c.key.message.uuid())
                        .collect::<Vec<Uuid>>(),
                )
                .bind(of(|command| signed(command.key.rcpt)))
                .bind(
                    commands
                        .iter()
                        .map(|one| one.found_at)
                        .collect::<Vec<Option<OffsetDateTime>>>(),
                )
                .bind(of(|command| command.kind.code()))
                .bind(
                    wanted()
                        .map(|c| new_time(c.kind, now))
                        .collect::<Vec<OffsetDateTime>>(),
                )
                .bind(wanted().map(|_| event_id(now)).collect::<Vec<Uuid>>())
                .bind(
                    wanted()
                        .map(|c| event_type(c.kind, now).code())
                        .collect::<Vec<i16>>(),
                )
                .bind(
                    wanted()
                        .map(|c| class(c.kind))
                        .collect::<Vec<Option<i16>>>(),
                )
                .bind(now)
                .fetch_all(&self.queue)
                .await
                .during("carry commands out")?;
        rows.into_iter()
            .map(|(id, result, attempt)| {
                Ok(CommandAnswer {
                    id,
                    result: CommandResult::from_code(result)?,
                    changed: attempt
                        .map(|attempt| unsigned("attempt number", attempt))
                        .transpose()?,
                })
            })
            .collect()
    }
}

fn command(row: OpenColumns) -> Result<NewCommand, StoreError> {
    let (id, shard, message, rcpt, kind, due_at, seen_at, bulk) = row;
    Ok(NewCommand {
        id,
        shard: ShardNo(shard),
        key: DeliveryKey {
            message: MessageId::from_uuid(message),
            rcpt: unsigned("recipient number", rcpt)?,
        },
        kind: CommandKind::from_columns(kind, due_at)?,
        seen_at,
        bulk,
    })
}

/// Statements count positions from one.
fn mark(found: &mut [FoundCommand], position: i64, next_at: OffsetDateTime) {
    let place = usize::try_from(position - 1).ok();
    if let Some(one) = place.and_then(|place| found.get_mut(place)) {
        one.found_at = Some(next_at);
    }
}

/// When a row that stays is due.
fn new_time(kind: CommandKind, now: OffsetDateTime) -> OffsetDateTime {
    match kind {
        CommandKind::Reschedule(due_at) => due_at.max(now),
        _ => now,
    }
}

/// What is told about it; a retry tells nothing before its attempt.
fn event_type(kind: CommandKind, now: OffsetDateTime) -> EventType {
    match kind {
        CommandKind::Cancel => EventType::EmailCancelled,
        CommandKind::Expire => EventType::EmailExpired,
        CommandKind::Reschedule(due_at) if due_at > now => EventType::EmailScheduled,
        CommandKind::Reschedule(_) | CommandKind::RetryNow => EventType::EmailQueued,
    }
}

fn class(kind: CommandKind) -> Option<i16> {
    (kind == CommandKind::Expire).then(|| BounceClass::Expired.code())
}
