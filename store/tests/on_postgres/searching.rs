//! Mail is found by what people remember of it; a page of the log gets into the index once.

use std::collections::BTreeSet;

use mail::event::{DeliveryStatus, EventType};
use mail::ids::MessageId;
use store::*;
use time::Duration;
use uuid::Uuid;

use crate::world::{NOW, PATIENCE, TTL, World, node, outcome, unix_ms};

/// Reads and writes like the worker until the index holds that many deliveries.
async fn index(world: &World, deliveries: i64) -> SearchLease {
    let filling = async {
        loop {
            let lease = lease(world).await;
            let page = page(world, &lease).await;
            let to = LogCursor::at_horizon(page.horizon);
            assert!(
                world
                    .store
                    .write_search(&lease, to, &latest(page.rows))
                    .await
                    .unwrap()
            );
            let count = world.count("SELECT count(*) FROM email_search").await;
            if count >= deliveries {
                return self::lease(world).await;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, filling).await.unwrap()
}

fn latest(rows: Vec<SearchRow>) -> Vec<SearchRow> {
    let mut latest = std::collections::HashMap::new();
    for row in rows {
        latest.insert((row.message, row.rcpt), row);
    }
    latest.into_values().collect()
}

async fn lease(world: &World) -> SearchLease {
    let taken = world.store.search_take(Uuid::from_u128(1), TTL).await;
    taken.unwrap().unwrap()
}

async fn page(world: &World, lease: &SearchLease) -> SearchPage {
    let page = world
        .store
        .read_search_log(lease.cursor, Uuid::nil(), 1_000)
        .await
        .unwrap();
    assert!(page.complete);
    page
}

async fn found(world: &World, filter: &EmailFilter) -> Vec<MessageId> {
    let account = world.account.no;
    let page = world
        .store
        .search_emails(account, filter, None, 100)
        .await
        .unwrap();
    assert_eq!(page.next, None);
    page.emails.into_iter().map(|email| email.id).collect()
}

async fn accept(world: &World, messages: Vec<NewMessage>) {
    let accepted = world.acceptor().accept(world.request(messages)).await;
    assert_eq!(accepted.unwrap(), Accepted::Stored);
}

#[tokio::test]
async fn each_filter_finds_its_mail_and_no_other() {
    let Some(world) = World::start().await else {
        return;
    };
    let mut first = world.message();
    first.recipients = vec![
        world.recipient("Ana@example.com"),
        world.recipient("bo@sub.example.org"),
    ];
    first.tags = vec!["receipt".into()];
    let mut second = world.message();
    second.sender = "\"Doe, J.\" <News@other.test>".into();
    second.flags = MessageFlags::TEST;
    second.tags = vec![];
    let (one, two) = (first.id, second.id);
    accept(&world, vec![first, second]).await;
    let fence = world.own(node()).await;
    let rows = world.queued().await;
    let of = |rcpt| {
        rows.iter()
            .find(|row| row.key.message == one && row.key.rcpt == rcpt)
            .unwrap()
    };
    let bounced = outcome(of(1), EventType::EmailBounced, None);
    world.store.settle(&fence, &[bounced]).await.unwrap();
    index(&world, 3).await;

    let check = async |what: &str, change: &dyn Fn(&mut EmailFilter), expected: &[MessageId]| {
        let mut filter = EmailFilter::default();
        change(&mut filter);
        assert_eq!(found(&world, &filter).await, expected, "{what}");
    };
    let address = |text: &str| Some(text.parse().unwrap());
    let domain = |text: &str| Some(SenderFilter::Domain(text.parse().unwrap()));
    let all = [two, one];
    check("nothing", &|_| {}, &all).await;
    check(
        "case",
        &|f| f.recipient = address("ana@EXAMPLE.com"),
        &[two, one],
    )
    .await;
    check(
        "second recipient",
        &|f| f.recipient = address("bo@sub.example.org"),
        &[one],
    )
    .await;
    check(
        "domain",
        &|f| f.recipient_domain = Some("sub.example.org".parse().unwrap()),
        &[one],
    )
    .await;
    check(
        "parent domain",
        &|f| f.recipient_domain = Some("example.org".parse().unwrap()),
        &[],
    )
    .await;
    let news = SenderFilter::Address("news@other.test".parse().unwrap());
    check("sender", &|f| f.from = Some(news.clone()), &[two]).await;
    check("sender's domain", &|f| f.from = domain("acme.test"), &[one]).await;
    check("tag", &|f| f.tag = Some("receipt".into()), &[one]).await;
    check("part of a tag", &|f| f.tag = Some("rec".into()), &[]).await;
    check("stream", &|f| f.stream = Some(world.stream.no), &all).await;
    check("other stream", &|f| f.stream = Some(StreamNo(77)), &[]).await;
    check(
        "status",
        &|f| f.status = Some(DeliveryStatus::Bounced),
        &[one],
    )
    .await;
    check(
        "status of the other delivery",
        &|f| f.status = Some(DeliveryStatus::Queued),
        &all,
    )
    .await;
    check("test", &|f| f.test_only = true, &[two]).await;
    check(
        "one delivery has to fit all",
        &|f| {
            f.recipient = address("ana@example.com");
            f.status = Some(DeliveryStatus::Bounced);
        },
        &[],
    )
    .await;
    check(
        "everything at once",
        &|f| {
            f.recipient = address("bo@sub.example.org");
            f.recipient_domain = Some("sub.example.org".parse().unwrap());
            f.from = domain("acme.test");
            f.tag = Some("receipt".into());
            f.stream = Some(world.stream.no);
            f.status = Some(DeliveryStatus::Bounced);
            f.created_after = Some(NOW);
            f.created_before = Some(NOW + Duration::seconds(1));
        },
        &[one],
    )
    .await;
    check("too early", &|f| f.created_before = Some(NOW), &[]).await;
    check(
        "too late",
        &|f| f.created_after = Some(NOW + Duration::milliseconds(1)),
        &[],
    )
    .await;

    let stranger = AccountNo(world.account.no.0 + 1);
    let filter = EmailFilter {
        stream: Some(world.stream.no),
        ..EmailFilter::default()
    };
    let page = world.store.search_emails(stranger, &filter, None, 10);
    assert!(page.await.unwrap().emails.is_empty());
    let shown = world
        .store
        .search_emails(world.account.no, &filter, None, 10);
    let shown = shown.await.unwrap().emails.pop().unwrap();
    let statuses: BTreeSet<_> = shown
        .statuses
        .iter()
        .map(|status| status.as_str())
        .collect();
    assert_eq!(statuses, BTreeSet::from(["bounced", "queued"]));
    assert_eq!(shown.recipients, ["Ana@example.com", "bo@sub.example.org"]);
}

#[tokio::test]
async fn a_page_is_written_once_and_only_by_the_holder() {
    let Some(world) = World::start().await else {
        return;
    };
    world.send().await;
    let old = lease(&world).await;
    let other = Uuid::from_u128(2);
    let refused = world.store.search_take(other, TTL).await.unwrap();
    assert_eq!(refused, None, "one reader at a time");
    assert_eq!(lease(&world).await, old, "a renewal changes nothing");
    let now_held = index(&world, 1).await;

    // The same page again, as after a crash between writing and noticing it.
    let to = LogCursor {
        xid: u64::MAX >> 8,
        id: Uuid::nil(),
    };
    assert!(!world.store.write_search(&old, to, &[]).await.unwrap());
    world.store.search_release(&now_held).await.unwrap();
    let taken = world.store.search_take(other, TTL).await.unwrap().unwrap();
    assert_eq!(taken.cursor, now_held.cursor);
    assert!(taken.epoch > now_held.epoch);
    let late = world.store.write_search(&now_held, to, &[]).await.unwrap();
    assert!(!late, "who lost the lease writes nothing");
    world.store.search_release(&now_held).await.unwrap();
    assert_eq!(
        world
            .store
            .search_take(Uuid::from_u128(1), TTL)
            .await
            .unwrap(),
        None,
        "nor does he give away what is another's"
    );
}

#[tokio::test]
async fn a_status_never_goes_back() {
    let Some(world) = World::start().await else {
        return;
    };
    world.send().await;
    let lease = lease(&world).await;
    let page = page_with(&world, &lease, 1).await;
    let as_of = |sequence, status| SearchRow {
        sequence,
        status,
        ..page.rows[0].clone()
    };
    let mut lease = lease;
    for row in [
        as_of(1, DeliveryStatus::Queued),
        as_of(3, DeliveryStatus::Delivered),
        as_of(2, DeliveryStatus::Deferred),
    ] {
        let to = LogCursor {
            xid: lease.cursor.xid + 1,
            ..lease.cursor
        };
        assert!(world.store.write_search(&lease, to, &[row]).await.unwrap());
        lease.cursor = to;
    }
    let filter = EmailFilter {
        status: Some(DeliveryStatus::Delivered),
        ..EmailFilter::default()
    };
    assert_eq!(found(&world, &filter).await, [page.rows[0].message]);
}

async fn page_with(world: &World, lease: &SearchLease, rows: usize) -> SearchPage {
    let reading = async {
        loop {
            let page = page(world, lease).await;
            if page.rows.len() >= rows {
                return page;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.unwrap()
}

/// Other mail in between: more than one look-up reads.
#[tokio::test]
async fn a_long_search_ends_early_and_goes_on_where_it_ended() {
    const OTHERS: u64 = 3_600;
    let Some(world) = World::start().await else {
        return;
    };
    let wanted = world.send().await.key.message;
    let lease = index(&world, 1).await;
    let row = |number: u64, rcpt: u16| SearchRow {
        message: MessageId::from_time_and_random(unix_ms(NOW) + 1 + number, [0; 10]),
        rcpt,
        status: DeliveryStatus::Queued,
        sequence: 1,
        account: world.account.no,
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
    let to = LogCursor {
        xid: lease.cursor.xid + 1,
        ..lease.cursor
    };
    assert!(world.store.write_search(&lease, to, &rows).await.unwrap());

    let filter = EmailFilter {
        from: Some(SenderFilter::Address("hello@acme.test".parse().unwrap())),
        stream: Some(world.stream.no),
        recipient_domain: None,
        status: Some(DeliveryStatus::Queued),
        ..EmailFilter::default()
    };
    let account = world.account.no;
    let page = world.store.search_emails(account, &filter, None, 10);
    let page = page.await.unwrap();
    assert!(page.emails.is_empty());
    let end = (OTHERS - 2_000) / 3;
    let next = page.next.unwrap();
    assert_eq!(next.unix_ms(), unix_ms(NOW) + 1 + end);
    assert!(next > row(end, 0).message, "that message is read again");
    let page = world.store.search_emails(account, &filter, Some(next), 10);
    let page = page.await.unwrap();
    let ids: Vec<MessageId> = page.emails.iter().map(|email| email.id).collect();
    assert_eq!((ids, page.next), (vec![wanted], None));

    // A tag leads through 1,000 messages at a time, the last one once more.
    let filter = EmailFilter {
        status: None,
        tag: Some("receipt".into()),
        ..filter
    };
    let (mut after, mut found) = (None, Vec::new());
    for pages_left in [1, 0] {
        let page = world.store.search_emails(account, &filter, after, 10);
        let page = page.await.unwrap();
        assert_eq!(page.next.is_some(), pages_left > 0, "{pages_left}");
        found.extend(page.emails.into_iter().map(|email| email.id));
        after = page.next;
    }
    assert_eq!(found, [wanted]);
}

#[tokio::test]
async fn days_of_the_index_end_with_their_mail() {
    let Some(world) = World::start().await else {
        return;
    };
    let yesterday = NOW.date().previous_day().unwrap();
    let drop = async || {
        world
            .store
            .drop_search_partitions(NOW.date())
            .await
            .unwrap()
    };
    assert_eq!(drop().await, 0, "the mail is still there");
    let mut connection = world.connection().await;
    let name = format!(
        "message_{}{:02}{:02}",
        yesterday.year(),
        u8::from(yesterday.month()),
        yesterday.day()
    );
    sqlx::query(sqlx::AssertSqlSafe(format!("DROP TABLE {name}")))
        .execute(&mut connection)
        .await
        .unwrap();
    assert_eq!(drop().await, 2);
    assert_eq!(drop().await, 0);
    let days = "SELECT count(*) FROM pg_inherits
                WHERE inhparent IN ('email_search'::regclass, 'email_tag'::regclass)";
    // Today, tomorrow and DEFAULT, of both.
    assert_eq!(world.count(days).await, 6);
}
