//! However mail is spread over the spans of the index, its lists are complete and in order.

use std::collections::BTreeSet;

use mail::event::DeliveryStatus;
use mail::ids::MessageId;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use sqlx::Connection;
use store::*;
use time::Duration;
use uuid::Uuid;

use crate::searching::{accept, found, index, lease};
use crate::world::{NOW, World, unix_ms};

/// Deliveries as a sender may have them: some tags on most mail, some on hardly any.
struct Mail {
    random: StdRng,
    accounts: [AccountNo; 2],
    count: u16,
}

impl Mail {
    fn new(world: &World) -> Self {
        let seed = rand::random();
        eprintln!("seed {seed}");
        Self {
            random: StdRng::seed_from_u64(seed),
            accounts: [world.account.no, AccountNo(world.account.no.0 + 1)],
            count: 0,
        }
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.random.random_range(0..all.len())]
    }

    fn chance(&mut self, percent: f64) -> bool {
        self.random.random_bool(percent / 100.0)
    }

    /// All deliveries of a message of that time.
    fn message(&mut self, ms: u64) -> Vec<SearchRow> {
        self.count += 1;
        let [high, low] = self.count.to_be_bytes();
        let [a, b, c]: [u8; 3] = self.random.random();
        // The time does not tell the order within a millisecond.
        let message = MessageId::from_time_and_random(ms, [a, b, c, high, low, 0, 0, 0, 0, 0]);
        let mut tags = vec!["every".to_owned()];
        for (tag, percent) in [("often", 30.0), ("seldom", 2.0), ("rare", 0.2)] {
            if self.chance(percent) {
                tags.push(tag.to_owned());
            }
        }
        let account = self.accounts[usize::from(self.random.random_bool(0.2))];
        let sender = format!("S <s@{}.test>", self.one_of(&["a", "a", "a", "b", "c"]));
        let stream = StreamNo(self.one_of(&[1, 1, 2]));
        let test = self.chance(5.0);
        let recipients = match self.chance(0.5) {
            true => 300,
            false => self.one_of(&[1, 1, 1, 2, 5]),
        };
        let row = |rcpt| SearchRow {
            delivery: SearchEvent {
                account,
                message,
                rcpt,
                status: self.one_of(&[DeliveryStatus::Delivered, DeliveryStatus::Bounced]),
                sequence: 1,
            },
            stream,
            test,
            sender: sender.clone(),
            recipient: format!("{}@{}.test", rcpt % 7, self.one_of(&["x", "x", "x", "y"])),
            tags: tags.clone(),
        };
        (0..recipients).map(row).collect()
    }

    /// Any filter that some mail fits.
    fn filter(&mut self) -> EmailFilter {
        let mut filter = EmailFilter::default();
        let name = |name: &str| format!("{name}.test").parse().unwrap();
        match self.random.random_range(0..7) {
            0..3 => filter.tag = Some(self.one_of(&["every", "often", "seldom", "rare"]).into()),
            3 => filter.recipient_domain = Some(name(self.one_of(&["x", "y"]))),
            4 => {
                let from = format!("S@{}.test", self.one_of(&["a", "b"]));
                filter.from = Some(SenderFilter::Address(from.parse().unwrap()));
            }
            5 => filter.from = Some(SenderFilter::Domain(name("c"))),
            _ => filter.stream = Some(StreamNo(2)),
        }
        if self.chance(20.0) {
            filter.sender_domains = Some(vec![name("b"), name("c")]);
        }
        if self.chance(20.0) {
            filter.recipient_domain = Some(name("y"));
        }
        filter.status = self.one_of(&[None, None, Some(DeliveryStatus::Delivered)]);
        filter.test_only = self.chance(5.0);
        filter
    }
}

fn fits(row: &SearchRow, filter: &EmailFilter, account: AccountNo) -> bool {
    let is = |domain: &str, name: &mail::domain_name::DomainName| domain == name.as_str();
    let sender = row.sender.trim_start_matches("S <").trim_end_matches('>');
    let (_, sender_domain) = sender.split_once('@').unwrap();
    let (_, domain) = row.recipient.split_once('@').unwrap();
    row.delivery.account == account
        && filter.tag.as_ref().is_none_or(|tag| row.tags.contains(tag))
        && filter
            .recipient_domain
            .as_ref()
            .is_none_or(|name| is(domain, name))
        && filter.stream.is_none_or(|stream| row.stream == stream)
        && filter
            .status
            .is_none_or(|status| row.delivery.status == status)
        && (row.test || !filter.test_only)
        && filter.from.as_ref().is_none_or(|from| match from {
            SenderFilter::Address(address) => address.to_string().eq_ignore_ascii_case(sender),
            SenderFilter::Domain(name) => is(sender_domain, name),
        })
        && filter
            .sender_domains
            .as_ref()
            .is_none_or(|names| names.iter().any(|name| is(sender_domain, name)))
}

/// Puts pages into the index, and messages where lists look for them.
async fn write(world: &World, pages: &[Vec<SearchRow>]) {
    let rows = pages.concat();
    let messages: BTreeSet<(Uuid, i32)> = rows
        .iter()
        .map(|row| (row.delivery.message.uuid(), row.delivery.account.0))
        .collect();
    let (ids, accounts): (Vec<Uuid>, Vec<i32>) = messages.into_iter().unzip();
    sqlx::query(
        "INSERT INTO message (id, content_id, account, stream, domain, content_class, shard, flags, sender,
                              rfc_message_id, subject, recipients)
         SELECT u.id, u.id, u.account, 1, 1, 1, 0, 0, 's', 'r', 'x', '{}'
         FROM unnest($1::uuid[], $2::int4[]) AS u (id, account)",
    )
    .bind(ids)
    .bind(accounts)
    .execute(&mut world.connection().await)
    .await
    .unwrap();
    let mut lease = lease(world).await;
    for page in pages {
        let to = LogCursor {
            xid: lease.cursor.xid + 1,
            ..lease.cursor
        };
        let written = world.store.write_search(&lease, to, page, &[]);
        assert!(written.await.unwrap());
        lease.cursor = to;
    }
}

/// Follows `next` to the end. How many pages that were, too.
async fn walked(
    world: &World,
    account: AccountNo,
    filter: &EmailFilter,
    limit: usize,
) -> (Vec<MessageId>, usize) {
    let (mut found, mut after, mut pages) = (Vec::new(), None, 0);
    loop {
        let page = world.store.search_emails(account, filter, after, limit);
        let page = page.await.unwrap();
        assert!(page.emails.len() <= limit);
        found.extend(page.emails.into_iter().map(|email| email.id));
        pages += 1;
        let Some(next) = page.next else {
            return (found, pages);
        };
        assert!(after.is_none_or(|after| next < after), "it moves on");
        after = Some(next);
    }
}

async fn walks_give_what_was_written(world: &World, mail: &mut Mail, rows: &[SearchRow]) {
    for _ in 0..60 {
        let filter = mail.filter();
        let account = mail.one_of(&mail.accounts.clone());
        let limit = mail.one_of(&[1, 7, 100, 100]);
        let fitting = rows.iter().filter(|row| fits(row, &filter, account));
        let mut expected: Vec<MessageId> = fitting.map(|row| row.delivery.message).collect();
        expected.sort_unstable_by(|a, b| b.cmp(a));
        expected.dedup();
        if limit == 1 && expected.len() > 300 {
            continue;
        }
        let (found, _) = walked(world, account, &filter, limit).await;
        assert_eq!(found, expected, "{filter:?}, {limit} a page");
    }
}

/// Pages as they come: mail of the last seconds, in no order, a message's deliveries in two of them.
#[tokio::test]
async fn each_message_is_found_once_and_in_order_in_pages_that_overlap() {
    let Some(world) = World::start().await else {
        return;
    };
    let mut mail = Mail::new(&world);
    let (mut pages, mut page) = (Vec::new(), Vec::new());
    for number in 0..3_000 {
        let behind = mail.random.random_range(0..12_000);
        let late = if mail.chance(1.0) { 60_000 } else { 0 };
        for row in mail.message(unix_ms(NOW) - behind - late + number * 10) {
            page.push(row);
            if mail.chance(0.5) {
                page.shuffle(&mut mail.random);
                pages.push(std::mem::take(&mut page));
            }
        }
    }
    pages.push(page);
    write(&world, &pages).await;
    walks_give_what_was_written(&world, &mut mail, &pages.concat()).await;
}

/// A span a message: more of them than are read at once.
#[tokio::test]
async fn each_message_is_found_once_and_in_order_when_there_is_little_mail() {
    let Some(world) = World::start().await else {
        return;
    };
    let mut mail = Mail::new(&world);
    let page: Vec<SearchRow> = (0..2_600)
        .flat_map(|number| mail.message(unix_ms(NOW) - number * 10_000))
        .collect();
    write(&world, std::slice::from_ref(&page)).await;
    walks_give_what_was_written(&world, &mut mail, &page).await;
}

/// More spans over one another than are read at once.
#[tokio::test]
async fn spans_that_all_overlap_hide_nothing() {
    const SPANS: u64 = 1_100;
    let Some(world) = World::start().await else {
        return;
    };
    let mut mail = Mail::new(&world);
    mail.accounts[1] = mail.accounts[0];
    let pages: Vec<Vec<SearchRow>> = (0..SPANS)
        .map(|number| {
            let first = mail.message(unix_ms(NOW) + number);
            let last = mail.message(unix_ms(NOW) + 3_000 + number);
            [first, last].concat()
        })
        .collect();
    write(&world, &pages).await;
    walks_give_what_was_written(&world, &mut mail, &pages.concat()).await;
}

/// Other mail in between: more than one look-up reads.
#[tokio::test]
async fn a_long_search_ends_early_and_goes_on_where_it_ended() {
    const OTHERS: u64 = 3_600;
    let Some(world) = World::start().await else {
        return;
    };
    let wanted = world.send().await.key.message;
    index(&world, 1).await;
    let row = |number: u64, rcpt: u16| SearchRow {
        delivery: SearchEvent {
            message: MessageId::from_time_and_random(unix_ms(NOW) + 1 + number, [0; 10]),
            rcpt,
            status: DeliveryStatus::Queued,
            sequence: 1,
            account: world.account.no,
        },
        stream: world.stream.no,
        test: false,
        sender: "other@acme.test".into(),
        recipient: format!("{rcpt}@many.test"),
        tags: vec!["receipt".into()],
    };
    // The 2,000th delivery is in the middle of a message.
    let rows: Vec<SearchRow> = (0..OTHERS / 3)
        .flat_map(|number| (0..3).map(move |rcpt| (number, rcpt)))
        .map(|(number, rcpt)| row(number, rcpt))
        .collect();
    write(&world, &[rows]).await;

    let from = SenderFilter::Address("hello@acme.test".parse().unwrap());
    let by_status = EmailFilter {
        from: Some(from.clone()),
        status: Some(DeliveryStatus::Queued),
        ..EmailFilter::default()
    };
    // The same mail, along spans.
    let by_tag = EmailFilter {
        from: Some(from),
        tag: Some("receipt".into()),
        ..EmailFilter::default()
    };
    for filter in [by_status, by_tag] {
        let account = world.account.no;
        let page = world.store.search_emails(account, &filter, None, 10);
        let page = page.await.unwrap();
        assert!(page.emails.is_empty());
        let end = (OTHERS - 2_000) / 3;
        let next = page.next.unwrap();
        assert_eq!(next.unix_ms(), unix_ms(NOW) + 1 + end);
        let half_looked_at = row(end, 0).delivery.message;
        assert!(next > half_looked_at, "that message is read again");
        let page = world.store.search_emails(account, &filter, Some(next), 10);
        let page = page.await.unwrap();
        let ids: Vec<MessageId> = page.emails.iter().map(|email| email.id).collect();
        assert_eq!((ids, page.next), (vec![wanted], None));
    }
}

/// What the version before had written is made again from the log.
#[tokio::test]
async fn an_index_of_the_version_before_is_made_again() {
    const TO_0008: &str = "DROP VIEW email_tag; DROP TABLE email_span, email_search, search_lease;
                           DROP FUNCTION drop_search_partition;";
    let Some(world) = World::start().await else {
        return;
    };
    let (first, second) = (world.message(), world.message());
    let ids = [second.id, first.id];
    accept(&world, vec![first, second]).await;
    let mut connection = world.connection().await;
    let filled = format!(
        "INSERT INTO email_search
         SELECT id, 1, 1, 1, 1, account, stream, 0, 2, 1, false, '{{1}}' FROM message;
         INSERT INTO email_tag SELECT 1, id FROM message;
         UPDATE search_lease SET owner = '{}', epoch = 7, expires_at = 'infinity', cursor_xid = '99999999'",
        Uuid::from_u128(9)
    );
    let statements = [
        TO_0008,
        include_str!("../../../migrations/0008_email_search.sql"),
        &filled,
        include_str!("../../../migrations/0013_search_spans.sql"),
    ];
    for statement in statements {
        let mut transaction = connection.begin().await.unwrap();
        let statement = sqlx::AssertSqlSafe(statement.to_owned());
        let done = sqlx::raw_sql(statement).execute(&mut *transaction);
        done.await.unwrap();
        transaction.commit().await.unwrap();
    }
    let days = |table: &str| {
        let count = "SELECT count(*) FROM pg_inherits WHERE inhparent = '{}'::regclass";
        sqlx::AssertSqlSafe(count.replace("{}", table))
    };
    for table in ["email_search", "email_span"] {
        let count: i64 = sqlx::query_scalar(days(table))
            .fetch_one(&mut connection)
            .await
            .unwrap();
        assert_eq!(count, 4, "{table}: three days and DEFAULT");
    }
    let filter = EmailFilter {
        tag: Some("two words".into()),
        ..EmailFilter::default()
    };
    assert_eq!(found(&world, &filter).await, []);
    index(&world, 2).await;
    assert_eq!(found(&world, &filter).await, ids);
    let in_default = world.store.default_partition_rows().await.unwrap();
    assert_eq!(in_default, 0);

    // The version before makes no days of tags, and writes none of its rows to the index.
    let day = (NOW + Duration::days(3)).date();
    let made = world.store.make_partitions(std::iter::once(day)).await;
    made.unwrap();
    let tagged =
        sqlx::query("INSERT INTO email_tag VALUES (1, gen_random_uuid()) ON CONFLICT DO NOTHING");
    assert!(tagged.execute(&mut connection).await.is_err());
    let tags = "SELECT count(*) FROM email_tag";
    assert_eq!(world.count(tags).await, 0);
}
