//! Finding mail by what people remember of it, newest first, from the search index (seconds behind
//! the log). Every look-up walks down it in the order of message ids (`search_walk.rs`) and stops
//! after 2,000 deliveries, found or not: no question can run away. One message has fewer deliveries,
//! so that a cursor always moves on.

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
use crate::search_span;
use crate::search_walk::Walk;

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
    fn walk(&self, account: AccountNo, status: Option<DeliveryStatus>) -> Walk {
        if self.recipient.is_some() {
            return Walk::Recipient;
        }
        if self.test.is_some() {
            return Walk::Test;
        }
        if status.is_some_and(Walk::is_rare) {
            return Walk::Status;
        }
        let stream = || {
            self.stream
                .map(|stream| search_key::stream(account, StreamNo(stream)))
        };
        self.tag
            .or(self.recipient_domain)
            .or(self.sender)
            .or_else(stream)
            .or(self.sender_domain)
            .map_or(Walk::Time, Walk::Span)
    }
}

/// What the statements return: a message, whether it fits, whether the walk ended at it.
type Step = (Uuid, bool, bool);

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
        let walk = keys.walk(account, filter.status);
        let bounds = Bounds::new(filter, after);
        let wanted = i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1);
        let steps = self.search(walk, account, bounds, wanted, &keys).await?;
        let (found, next) = bounds.page(&steps, limit);
        Ok(EmailPage {
            emails: self.email_summaries(account, &found).await?,
            next: next.map(MessageId::from_uuid),
        })
    }

    async fn search(
        &self,
        walk: Walk,
        account: AccountNo,
        bounds: Bounds,
        wanted: i64,
        keys: &Keys,
    ) -> Result<Vec<Step>, StoreError> {
        let mut query = sqlx::query_as(walk.statement())
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
            .bind(&keys.sender_domains);
        if let Walk::Span(key) = walk {
            query = query
                .bind(key)
                .bind(search_span::last_before(bounds.before));
        }
        query.fetch_all(&self.search).await.during("search mail")
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

    /// What was found, at most `limit`, and where to go on.
    fn page(self, steps: &[Step], limit: usize) -> (Vec<Uuid>, Option<Uuid>) {
        let mut found: Vec<Uuid> = steps
            .iter()
            .filter_map(|(message, fits, _)| fits.then_some(*message))
            .collect();
        // The message at the end may come twice: as found, and as the end.
        found.dedup();
        if found.len() > limit {
            found.truncate(limit);
            let next = found.last().copied();
            return (found, next);
        }
        let end = steps.iter().find(|(.., is_end)| *is_end);
        let next = end.map(|(end, ..)| self.resume_at(*end, found.last()));
        (found, next)
    }

    /// The cursor behind a walk that ended at the message `end`: deliveries of it may not have been
    /// looked at, so that it is looked at again, unless it was found already or all there was.
    fn resume_at(self, end: Uuid, last_found: Option<&Uuid>) -> Uuid {
        let again = Uuid::from_u128(end.as_u128().saturating_add(NEXT_MESSAGE));
        if last_found == Some(&end) || again >= self.before {
            return end;
        }
        again
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
        let id = |number: u128| Uuid::from_u128(number << 10);
        let bounds = Bounds {
            from: Uuid::nil(),
            before: id(10),
        };
        let check = |steps: &[Step], found: &[Uuid], next: Option<Uuid>| {
            assert_eq!(bounds.page(steps, 2), (found.to_vec(), next), "{steps:?}");
        };
        let (fits, end) = (|n| (id(n), true, false), |n| (id(n), false, true));
        check(&[], &[], None);
        check(&[fits(9)], &[id(9)], None);
        check(&[fits(9), fits(8), fits(7)], &[id(9), id(8)], Some(id(8)));
        check(&[end(5)], &[], Some(id(6)));
        check(&[fits(7), end(5)], &[id(7)], Some(id(6)));
        let found_at_end = (id(5), true, true);
        check(&[fits(7), found_at_end], &[id(7), id(5)], Some(id(5)));
        check(&[fits(5), found_at_end], &[id(5)], Some(id(5)));
        check(&[fits(5), end(5)], &[id(5)], Some(id(5)));
        // Nothing else is left above the end: to look at it again would go on for ever.
        check(&[end(9)], &[], Some(id(9)));
    }

    #[test]
    fn the_rarest_filter_leads() {
        let account = AccountNo(1);
        let walk = |filter: &EmailFilter| Keys::of(account, filter).walk(account, filter.status);
        let mut filter = EmailFilter {
            status: Some(DeliveryStatus::Delivered),
            ..EmailFilter::default()
        };
        assert_eq!(walk(&filter), Walk::Time);
        filter.stream = Some(StreamNo(7));
        let stream = search_key::stream(account, StreamNo(7));
        assert_eq!(walk(&filter), Walk::Span(stream));
        filter.tag = Some("a".into());
        assert_eq!(walk(&filter), Walk::Span(search_key::tag(account, "a")));
        filter.status = Some(DeliveryStatus::Bounced);
        assert_eq!(walk(&filter), Walk::Status);
        filter.recipient = Some("a@b.test".parse().unwrap());
        assert_eq!(walk(&filter), Walk::Recipient);
    }
}
