//! Into the index that mail is searched with. What stands in it is derived from the event log: it
//! can be emptied and filled again.

use std::collections::HashSet;

use uuid::Uuid;

use crate::database::Store;
use crate::decode::signed;
use crate::error::{During, StoreError};
use crate::lease::SearchLease;
use crate::search_log::SearchEvent;
use crate::search_row::{KeyedRow, SearchRow};
use crate::search_span::{self, Span, Spanned};
use crate::webhook_log::LogCursor;

const OPERATION: &str = "write the search index";

impl Store {
    /// Puts new deliveries and changes of others into the index, each delivery once, and moves the
    /// cursor of the lease to `to`, all or nothing. A change of a delivery that is not there is
    /// left out; a new one that is there already changes it. False when the lease was lost: nothing
    /// was written.
    ///
    /// # Errors
    /// Of the database.
    pub async fn write_search(
        &self,
        lease: &SearchLease,
        to: LogCursor,
        new: &[SearchRow],
        changes: &[SearchEvent],
    ) -> Result<bool, StoreError> {
        let mut new = KeyedRow::of(new);
        let written = self.write(lease, to, &new, changes).await;
        let is_known = |error: &sqlx::Error| match error {
            sqlx::Error::Database(error) => error.is_unique_violation(),
            _ => false,
        };
        if !written.as_ref().is_err_and(is_known) {
            return written.during(OPERATION);
        }
        let known = self.known(&new).await.during(OPERATION)?;
        let mut changes = changes.to_vec();
        let mut position = 0;
        new.retain(|row| {
            position += 1;
            if known.contains(&position) {
                changes.push(row.row.delivery);
                return false;
            }
            true
        });
        let written = self.write(lease, to, &new, &changes).await;
        written.during(OPERATION)
    }

    async fn write(
        &self,
        lease: &SearchLease,
        to: LogCursor,
        new: &[KeyedRow<'_>],
        changes: &[SearchEvent],
    ) -> Result<bool, sqlx::Error> {
        let places: Vec<Spanned> = new.iter().map(KeyedRow::spanned).collect();
        let spans = SpanColumns::of(&search_span::of_deliveries(&places));
        let added = Columns::of(new);
        let changed = EventColumns::of(changes.iter());
        let moved: i64 = sqlx::query_scalar(include_str!("../queries/search_write.sql"))
            .bind(lease.owner)
            .bind(lease.epoch.0)
            .bind(lease.cursor.xid.to_string())
            .bind(lease.cursor.id)
            .bind(to.xid.to_string())
            .bind(to.id)
            .bind(added.of.accounts)
            .bind(added.of.messages)
            .bind(added.of.rcpts)
            .bind(added.recipients)
            .bind(added.recipient_domains)
            .bind(added.senders)
            .bind(added.sender_domains)
            .bind(added.streams)
            .bind(added.of.statuses)
            .bind(added.of.sequences)
            .bind(added.tests)
            .bind(added.tags)
            .bind(spans.keys)
            .bind(spans.lasts)
            .bind(spans.firsts)
            .bind(changed.accounts)
            .bind(changed.messages)
            .bind(changed.rcpts)
            .bind(changed.statuses)
            .bind(changed.sequences)
            .fetch_one(&self.search)
            .await?;
        Ok(moved == 1)
    }

    /// Positions, from 1, of those that are in the index.
    async fn known(&self, rows: &[KeyedRow<'_>]) -> Result<HashSet<i64>, sqlx::Error> {
        let columns = EventColumns::of(rows.iter().map(|row| &row.row.delivery));
        let known: Vec<i64> = sqlx::query_scalar(include_str!("../queries/search_known.sql"))
            .bind(columns.accounts)
            .bind(columns.messages)
            .bind(columns.rcpts)
            .fetch_all(&self.search)
            .await?;
        Ok(known.into_iter().collect())
    }
}

/// Parallel arrays, as the statements take them.
#[derive(Default)]
struct EventColumns {
    accounts: Vec<i32>,
    messages: Vec<Uuid>,
    rcpts: Vec<i16>,
    statuses: Vec<i16>,
    sequences: Vec<i16>,
}

impl EventColumns {
    fn of<'a>(events: impl Iterator<Item = &'a SearchEvent>) -> Self {
        let mut columns = Self::default();
        for event in events {
            columns.accounts.push(event.account.0);
            columns.messages.push(event.message.uuid());
            columns.rcpts.push(signed(event.rcpt));
            columns.statuses.push(event.status.code());
            columns.sequences.push(signed(event.sequence));
        }
        columns
    }
}

#[derive(Default)]
struct Columns {
    of: EventColumns,
    recipients: Vec<i64>,
    recipient_domains: Vec<i64>,
    senders: Vec<i64>,
    sender_domains: Vec<i64>,
    streams: Vec<i32>,
    tests: Vec<bool>,
    tags: Vec<Option<String>>,
}

impl Columns {
    fn of(rows: &[KeyedRow<'_>]) -> Self {
        let mut columns = Self {
            of: EventColumns::of(rows.iter().map(|row| &row.row.delivery)),
            ..Self::default()
        };
        for keyed in rows {
            columns.recipients.push(keyed.recipient.address);
            columns.recipient_domains.push(keyed.recipient.domain);
            columns.senders.push(keyed.sender.address);
            columns.sender_domains.push(keyed.sender.domain);
            columns.streams.push(keyed.row.stream.0);
            columns.tests.push(keyed.row.test);
            columns.tags.push(list(&keyed.tags));
        }
        columns
    }
}

fn list(tags: &[i64]) -> Option<String> {
    let tags: Vec<String> = tags.iter().map(i64::to_string).collect();
    (!tags.is_empty()).then(|| tags.join(","))
}

#[derive(Default)]
struct SpanColumns {
    keys: Vec<i64>,
    lasts: Vec<Uuid>,
    firsts: Vec<Uuid>,
}

impl SpanColumns {
    fn of(spans: &[Span]) -> Self {
        let mut columns = Self::default();
        for span in spans {
            columns.keys.push(span.key);
            columns.lasts.push(span.last);
            columns.firsts.push(span.first);
        }
        columns
    }
}
