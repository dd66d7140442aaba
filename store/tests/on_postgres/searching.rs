//! Mail is found by what people remember of it; a page of the log gets into the index once.

use std::collections::BTreeSet;

use mail::event::{DeliveryStatus, EventType};
use mail::ids::MessageId;
use store::*;
use time::Duration;
use uuid::Uuid;

use crate::world::{NOW, PATIENCE, TTL, World, node, outcome};

/// Reads and writes like the worker until the index holds that many deliveries.
pub(crate) async fn index(world: &World, deliveries: i64) -> SearchLease {
    let filling = async {
        loop {
            let lease = lease(world).await;
            let page = page(world, &lease).await;
            let to = LogCursor::at_horizon(page.horizon);
            let (new, changes) = latest(&page.events);
            let new = world.store.search_rows(&new).await.unwrap();
            let written = world.store.write_search(&lease, to, &new, &changes);
            assert!(written.await.unwrap());
            let count = world.count("SELECT count(*) FROM email_search").await;
            if count >= deliveries {
                return self::lease(world).await;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, filling).await.unwrap()
}

/// The last word about each delivery: about new ones, and about others.
fn latest(events: &[SearchEvent]) -> (Vec<SearchEvent>, Vec<SearchEvent>) {
    let mut latest = std::collections::HashMap::new();
    let mut new = BTreeSet::new();
    for event in events {
        let delivery = (event.message, event.rcpt);
        latest.insert(delivery, *event);
        if event.is_first() {
            new.insert(delivery);
        }
    }
    latest
        .into_values()
        .partition(|event| new.contains(&(event.message, event.rcpt)))
}

pub(crate) async fn lease(world: &World) -> SearchLease {
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

pub(crate) async fn found(world: &World, filter: &EmailFilter) -> Vec<MessageId> {
    let account = world.account.no;
    let page = world
        .store
        .search_emails(account, filter, None, 100)
        .await
        .unwrap();
    assert_eq!(page.next, None);
    page.emails.into_iter().map(|email| email.id).collect()
}

pub(crate) async fn accept(world: &World, messages: Vec<NewMessage>) {
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
    assert!(!world.store.write_search(&old, to, &[], &[]).await.unwrap());
    world.store.search_release(&now_held).await.unwrap();
    let taken = world.store.search_take(other, TTL).await.unwrap().unwrap();
    assert_eq!(taken.cursor, now_held.cursor);
    assert!(taken.epoch > now_held.epoch);
    let late = world.store.write_search(&now_held, to, &[], &[]);
    assert!(!late.await.unwrap(), "who lost the lease writes nothing");
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
    let as_of = |sequence, status| SearchEvent {
        sequence,
        status,
        ..page.events[0]
    };
    let queued = as_of(1, DeliveryStatus::Queued);
    let mut lease = lease;
    let mut write = async |new: &[SearchEvent], changes: &[SearchEvent]| {
        let to = LogCursor {
            xid: lease.cursor.xid + 1,
            ..lease.cursor
        };
        let new = world.store.search_rows(new).await.unwrap();
        let written = world.store.write_search(&lease, to, &new, changes);
        assert!(written.await.unwrap());
        lease.cursor = to;
    };
    let delivered = EmailFilter {
        status: Some(DeliveryStatus::Delivered),
        ..EmailFilter::default()
    };
    write(&[], &[as_of(2, DeliveryStatus::Deferred)]).await;
    let rows = "SELECT count(*) FROM email_search";
    assert_eq!(world.count(rows).await, 0, "no row to change");
    write(&[queued], &[]).await;
    write(&[], &[as_of(3, DeliveryStatus::Delivered)]).await;
    write(&[], &[as_of(2, DeliveryStatus::Deferred)]).await;
    assert_eq!(found(&world, &delivered).await, [queued.message]);

    // Told twice, as of mail that got another time, beside what is new and what changes.
    let other = world.send().await.key.message;
    let page = page_with(&world, &self::lease(&world).await, 1).await;
    let mut events = page.events.into_iter();
    let second = events.find(|event| event.message == other).unwrap();
    write(&[queued, second], &[]).await;
    assert_eq!(found(&world, &delivered).await, [queued.message]);
    assert_eq!(world.count(rows).await, 2);
    // The last word of two with one number counts, and one that was heard writes nothing.
    let scheduled = SearchEvent {
        status: DeliveryStatus::Scheduled,
        ..second
    };
    write(&[scheduled], &[]).await;
    let version = "SELECT xmin::text::int8 FROM email_search WHERE status = 1";
    let before = world.count(version).await;
    write(&[], &[scheduled]).await;
    assert_eq!(world.count(version).await, before);
}

async fn page_with(world: &World, lease: &SearchLease, events: usize) -> SearchPage {
    let reading = async {
        loop {
            let page = page(world, lease).await;
            if page.events.len() >= events {
                return page;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.unwrap()
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
                WHERE inhparent IN ('email_search'::regclass, 'email_span'::regclass)";
    // Today, tomorrow and DEFAULT, of both.
    assert_eq!(world.count(days).await, 6);
}
