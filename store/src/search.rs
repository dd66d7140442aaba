//! Finding mail by what people remember of it, newest first, from the search index (seconds behind
//! the log). Every look-up walks one index in the order of message ids and stops after 2,000
//! deliveries (1,000 messages of a tag), found or not: no question can run away. One message has
//! fewer deliveries, so that a cursor always moves on.

use mail::address::EmailAddress;
use mail::domain_name::DomainName;
use mail::event::DeliveryStatus;
use mail::ids::MessageId;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::database::Store;
use crate::error::{During, StoreError};
use crate::numbers::{AccountNo, MessageFlags, StreamNo};
use crate::search_key;

/// Ids of messages are that far apart: the rest names the recipient.
const NEXT_MESSAGE: u128 = 1 << 10;

/// Whom it is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SenderFilter {
    /// Exactly this address.
    Address(EmailAddress),
    /// Any address of exactly this domain.
    Domain(DomainName),
}

/// What to look for: all that is given has to hold. What is said about recipient, its domain and
/// status has to hold for one and the same delivery.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EmailFilter {
    /// Only mail sent with test keys.
    pub test_only: bool,
    /// To, Cc or Bcc.
    pub recipient: Option<EmailAddress>,
    /// Exactly this domain.
    pub recipient_domain: Option<DomainName>,
    /// The From field.
    pub from: Option<SenderFilter>,
    /// Only mail from these domains, exactly; none: from all.
    pub sender_domains: Option<Vec<DomainName>>,
    /// As given by the sender.
    pub tag: Option<String>,
    /// Of which kind.
    pub stream: Option<StreamNo>,
    /// Where a delivery stands.
    pub status: Option<DeliveryStatus>,
    /// Not before this time.
    pub created_after: Option<OffsetDateTime>,
    /// Before this time.
    pub created_before: Option<OffsetDateTime>,
}

/// A message as lists show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmailSummary {
    /// Carries the time.
    pub id: MessageId,
    /// The From field as given.
    pub sender: String,
    /// Addresses, by recipient number.
    pub recipients: Vec<String>,
    /// Decoded.
    pub subject: String,
    /// Name of the stream.
    pub stream: String,
    /// As given.
    pub tags: Vec<String>,
    /// Of its deliveries, in no order, as far as the index knows them.
    pub statuses: Vec<DeliveryStatus>,
    /// Sent with a test key.
    pub test: bool,
}

/// What one look-up found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmailPage {
    /// Newest first. May be short, even empty, with more to come.
    pub emails: Vec<EmailSummary>,
    /// Where to go on; none at the end.
    pub next: Option<MessageId>,
}

/// The two statements of a way into the index. Both walk down an index between `$2` (before this
/// id) and `$3` (from this id on), to an end of their own; the first one stops as soon as it has
/// found enough.
struct Statements {
    /// Ids of messages that fit, newest first.
    find: &'static str,
    /// The message at which the walk came to its end, if it did.
    walk_end: &'static str,
}

/// Finds in deliveries that come newest first: sorting them would mean to walk to the end.
macro_rules! find_in {
    ($walk:expr) => {
        concat!(
            "SELECT DISTINCT ON (s.message_id) s.message_id FROM (",
            $walk,
            ") s
             WHERE s.account = $1
               AND ($5::int8 IS NULL OR s.recipient = $5)
               AND ($6::int8 IS NULL OR s.recipient_domain = $6)
               AND ($7::int8 IS NULL OR s.sender = $7)
               AND ($8::int8 IS NULL OR s.sender_domain = $8)
               AND ($9::int8 IS NULL OR s.tags @> ARRAY[$9::int8])
               AND ($10::int4 IS NULL OR s.stream = $10)
               AND ($11::int8 IS NULL OR (s.account::int8 << 8) | s.status = $11)
               AND ($12::int8 IS NULL OR s.test)
               AND ($13::int8[] IS NULL OR s.sender_domain = ANY ($13))
             ORDER BY s.message_id DESC LIMIT $4"
        )
    };
}

macro_rules! walk {
    ($columns:literal, $condition:literal, $end:literal) => {
        concat!(
            "SELECT ",
            $columns,
            " WHERE ",
            $condition,
            " AND s.message_id < $2 AND s.message_id >= $3
             ORDER BY s.message_id DESC ",
            $end
        )
    };
}

macro_rules! by {
    ($condition:literal) => {
        Statements {
            find: find_in!(walk!("s.* FROM email_search s", $condition, "LIMIT 2000")),
            walk_end: walk!(
                "s.message_id FROM email_search s",
                $condition,
                "OFFSET 1999 LIMIT 1"
            ),
        }
    };
}

const BY_RECIPIENT: Statements = by!("s.recipient = $5");
const BY_TEST: Statements = by!("(s.account::int8 << 8) = $12 AND s.test");
const BY_STATUS: Statements = by!("((s.account::int8 << 8) | s.status) = $11");
/// Counts messages and looks each of them up, which takes longer: so it walks less far. The id is
/// that of the tag's row, or the planner would not know the order.
const BY_TAG: Statements = Statements {
    find: find_in!(concat!(
        "SELECT t.message_id, d.account, d.recipient, d.recipient_domain, d.sender, d.sender_domain,
                d.tags, d.stream, d.status, d.test
         FROM (",
        walk!("s.message_id FROM email_tag s", "s.tag = $9", "LIMIT 1000"),
        ") t
         CROSS JOIN LATERAL (
           SELECT * FROM email_search d WHERE d.account = $1 AND d.message_id = t.message_id OFFSET 0) d"
    )),
    walk_end: walk!(
        "s.message_id FROM email_tag s",
        "s.tag = $9",
        "OFFSET 999 LIMIT 1"
    ),
};
const BY_RECIPIENT_DOMAIN: Statements = by!("s.recipient_domain = $6");
const BY_SENDER: Statements = by!("s.sender = $7");
const BY_STREAM: Statements = by!("s.stream = $10");
const BY_SENDER_DOMAIN: Statements = by!("s.sender_domain = $8");
const BY_TIME: Statements = by!("s.account = $1");

/// The filter as the statements take it.
#[derive(Debug, Default)]
struct Keys {
    recipient: Option<i64>,
    recipient_domain: Option<i64>,
    sender: Option<i64>,
    sender_domain: Option<i64>,
    tag: Option<i64>,
    stream: Option<i32>,
    status: Option<i64>,
    test: Option<i64>,
    sender_domains: Option<Vec<i64>>,
}

impl Keys {
    fn of(account: AccountNo, filter: &EmailFilter) -> Self {
        let address = |address: &EmailAddress| address.to_string();
        let in_account = i64::from(account.0) << 8;
        let by_domain =
            |domain: &DomainName| Some(search_key::sender_domain(account, domain.as_str()));
        let (sender, sender_domain) = match (&filter.from, filter.sender_domains.as_deref()) {
            // The index by domain leads to the mail of one, past none of the rest.
            (None, Some([one])) => (None, by_domain(one)),
            (None, _) => (None, None),
            (Some(SenderFilter::Address(from)), _) => {
                (Some(search_key::sender(account, &address(from))), None)
            }
            (Some(SenderFilter::Domain(domain)), _) => (None, by_domain(domain)),
        };
        Self {
            recipient: filter
                .recipient
                .as_ref()
                .map(|to| search_key::recipient(account, &address(to))),
            recipient_domain: filter
                .recipient_domain
                .as_ref()
                .map(|domain| search_key::recipient_domain(account, domain.as_str())),
            sender,
            sender_domain,
            tag: filter.tag.as_ref().map(|tag| search_key::tag(account, tag)),
            stream: filter.stream.map(|stream| stream.0),
            status: filter
                .status
                .map(|status| in_account | i64::from(status.code())),
            test: filter.test_only.then_some(in_account),
            sender_domains: filter.sender_domains.as_ref().map(|names| {
                let key = |name: &DomainName| search_key::sender_domain(account, name.as_str());
                names.iter().map(key).collect()
            }),
        }
    }

    /// The way in that most likely leads past the fewest deliveries.
    fn statements(&self, status: Option<DeliveryStatus>) -> &'static Statements {
        let is_rare = status.is_some_and(|status| status != DeliveryStatus::Delivered);
        match self {
            Self {
                recipient: Some(_), ..
            } => &BY_RECIPIENT,
            Self { test: Some(_), .. } => &BY_TEST,
            _ if is_rare => &BY_STATUS,
            Self { tag: Some(_), .. } => &BY_TAG,
            Self {
                recipient_domain: Some(_),
                ..
            } => &BY_RECIPIENT_DOMAIN,
            Self {
                sender: Some(_), ..
            } => &BY_SENDER,
            Self {
                stream: Some(_), ..
            } => &BY_STREAM,
            Self {
                sender_domain: Some(_),
                ..
            } => &BY_SENDER_DOMAIN,
            Self {
                status: Some(_), ..
            } => &BY_STATUS,
            _ => &BY_TIME,
        }
    }
}

type Columns = (
    Uuid,
    String,
    Vec<String>,
    String,
    String,
    Option<Vec<String>>,
    Vec<i16>,
    i16,
);

impl Store {
    /// Messages of the account that fit, newest first, at most `limit`; `after` is the `next` of the
    /// page before.
    ///
    /// # Errors
    /// Of the database.
    pub async fn search_emails(
        &self,
        account: AccountNo,
        filter: &EmailFilter,
        after: Option<MessageId>,
        limit: usize,
    ) -> Result<EmailPage, StoreError> {
        let keys = Keys::of(account, filter);
        let statements = keys.statements(filter.status);
        let bounds = Bounds::new(filter, after);
        let wanted = i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1);
        let mut found = self
            .search(statements.find, account, bounds, wanted, &keys)
            .await?;
        let next = if found.len() > limit {
            found.truncate(limit);
            found.last().copied()
        } else {
            let end = self
                .search(statements.walk_end, account, bounds, wanted, &keys)
                .await?;
            end.first().map(|end| resume_at(*end, found.last()))
        };
        Ok(EmailPage {
            emails: self.email_summaries(account, &found).await?,
            next: next.map(MessageId::from_uuid),
        })
    }

    async fn search(
        &self,
        statement: &'static str,
        account: AccountNo,
        bounds: Bounds,
        wanted: i64,
        keys: &Keys,
    ) -> Result<Vec<Uuid>, StoreError> {
        sqlx::query_scalar(statement)
            .bind(account.0)
            .bind(bounds.before)
            .bind(bounds.from)
            .bind(wanted)
            .bind(keys.recipient)
            .bind(keys.recipient_domain)
            .bind(keys.sender)
            .bind(keys.sender_domain)
            .bind(keys.tag)
            .bind(keys.stream)
            .bind(keys.status)
            .bind(keys.test)
            .bind(&keys.sender_domains)
            .fetch_all(&self.search)
            .await
            .during("search mail")
    }

    /// In the order of `ids`; those whose partition is gone are left out.
    async fn email_summaries(
        &self,
        account: AccountNo,
        ids: &[Uuid],
    ) -> Result<Vec<EmailSummary>, StoreError> {
        let rows: Vec<Columns> = sqlx::query_as(
            "SELECT u.id, m.sender, m.recipients, m.subject, coalesce(s.name, ''), m.tags,
                    coalesce(e.statuses, '{}'), m.flags
             FROM unnest($2::uuid[]) WITH ORDINALITY AS u (id, position)
             CROSS JOIN LATERAL (
               SELECT * FROM message m WHERE m.id = u.id AND m.account = $1 OFFSET 0) m
             CROSS JOIN LATERAL (
               SELECT array_agg(e.status) AS statuses FROM email_search e
               WHERE e.account = $1 AND e.message_id = u.id) e
             LEFT JOIN stream s ON s.id = m.stream
             ORDER BY u.position",
        )
        .bind(account.0)
        .bind(ids)
        .fetch_all(&self.search)
        .await
        .during("read the mail that was found")?;
        Ok(rows.into_iter().map(EmailSummary::from).collect())
    }
}

impl From<Columns> for EmailSummary {
    fn from(columns: Columns) -> Self {
        let (id, sender, recipients, subject, stream, tags, statuses, flags) = columns;
        Self {
            id: MessageId::from_uuid(id),
            sender,
            recipients,
            subject,
            stream,
            tags: tags.unwrap_or_default(),
            // A status that a newer version wrote hides the message no more than the others.
            statuses: statuses
                .into_iter()
                .filter_map(DeliveryStatus::from_code)
                .collect(),
            test: MessageFlags::from_bits(flags).contains(MessageFlags::TEST),
        }
    }
}

/// Which ids are looked at: from `from` on, below `before`.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    from: Uuid,
    before: Uuid,
}

impl Bounds {
    fn new(filter: &EmailFilter, after: Option<MessageId>) -> Self {
        let before = filter.created_before.map_or(Uuid::max(), lowest_id);
        Self {
            from: filter.created_after.map_or(Uuid::nil(), lowest_id),
            before: after.map_or(before, |after| before.min(after.uuid())),
        }
    }
}

/// The lowest id a message of this time can have.
fn lowest_id(at: OffsetDateTime) -> Uuid {
    const MS_MAX: i128 = (1 << 48) - 1;
    let nanos = at.unix_timestamp_nanos();
    let unix_ms = nanos.div_euclid(1_000_000) + i128::from(nanos.rem_euclid(1_000_000) > 0);
    let unix_ms = u128::try_from(unix_ms.clamp(0, MS_MAX)).unwrap_or(0);
    Uuid::from_u128(unix_ms << 80)
}

/// The cursor behind a walk that ended at the message `end`: deliveries of it may not have been
/// looked at, so that it is looked at again, unless it was found already.
fn resume_at(end: Uuid, last_found: Option<&Uuid>) -> Uuid {
    if last_found == Some(&end) {
        return end;
    }
    Uuid::from_u128(end.as_u128().saturating_add(NEXT_MESSAGE))
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn a_time_within_a_millisecond_begins_with_the_next() {
        let check = |at, unix_ms: u64| {
            let id = MessageId::from_uuid(lowest_id(at));
            assert_eq!(id.unix_ms(), unix_ms, "{at}");
        };
        check(datetime!(1970-01-01 00:00:01 UTC), 1_000);
        check(datetime!(1970-01-01 00:00:01.000_000_001 UTC), 1_001);
        check(datetime!(1950-01-01 00:00 UTC), 0);
    }

    #[test]
    fn a_message_half_looked_at_is_looked_at_again() {
        let (end, other) = (Uuid::from_u128(5 << 10), Uuid::from_u128(9 << 10));
        assert_eq!(resume_at(end, None), Uuid::from_u128(6 << 10));
        assert_eq!(resume_at(end, Some(&other)), Uuid::from_u128(6 << 10));
        assert_eq!(resume_at(end, Some(&end)), end);
    }

    #[test]
    fn the_rarest_filter_leads() {
        let keys = |filter: &EmailFilter| {
            let keys = Keys::of(AccountNo(1), filter);
            keys.statements(filter.status).find
        };
        let mut filter = EmailFilter {
            status: Some(DeliveryStatus::Delivered),
            ..EmailFilter::default()
        };
        assert_eq!(keys(&filter), BY_STATUS.find);
        filter.tag = Some("a".into());
        assert_eq!(keys(&filter), BY_TAG.find);
        filter.status = Some(DeliveryStatus::Bounced);
        assert_eq!(keys(&filter), BY_STATUS.find);
        filter.recipient = Some("a@b.test".parse().unwrap());
        assert_eq!(keys(&filter), BY_RECIPIENT.find);
    }
}
