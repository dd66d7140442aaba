//! Webhook endpoints in full: how they stand, and what their calls gave.

use mail::event::EventType;
use mail::ids::{EventId, WebhookCallId, WebhookEndpointId, WebhookReplayId, uuid_v7};
use mail::text::DbText;
use store::*;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::world::{NOW, World, unix_ms};

const TYPES: &[EventType] = &[EventType::EmailQueued];

pub(crate) fn id_at(at: OffsetDateTime) -> Uuid {
    let random = *Uuid::new_v4().as_bytes();
    let mut ten = [0; 10];
    ten.copy_from_slice(&random[..10]);
    uuid_v7(unix_ms(at), ten)
}

pub(crate) fn event_at(at: OffsetDateTime) -> EventId {
    EventId::from_uuid(id_at(at))
}

/// The lowest id of this time.
pub(crate) fn floor(at: OffsetDateTime) -> EventId {
    EventId::from_uuid(Uuid::from_u128(u128::from(unix_ms(at)) << 80))
}

pub(crate) async fn endpoint(world: &World) -> (EndpointNo, WebhookEndpointId) {
    let id = WebhookEndpointId::from_uuid(Uuid::new_v4());
    let new = NewEndpoint {
        id,
        account: world.account.no,
        url: "https://hooks.acme.test/",
        types: TYPES,
        secret: b"first",
    };
    let made = world.store.create_endpoint(&new, 50, &world.sealer, NOW);
    (made.await.unwrap().unwrap(), id)
}

async fn shown(world: &World, no: EndpointNo) -> EndpointSummary {
    let all = world.store.endpoints(world.account.no).await.unwrap();
    all.into_iter().find(|one| one.no == no).unwrap()
}

#[tokio::test]
async fn the_number_of_endpoints_is_kept_when_many_are_made_at_once() {
    let Some(world) = World::start().await else {
        return;
    };
    let make = || {
        let (store, sealer, account) =
            (world.store.clone(), world.sealer.clone(), world.account.no);
        tokio::spawn(async move {
            let new = NewEndpoint {
                id: WebhookEndpointId::from_uuid(Uuid::new_v4()),
                account,
                url: "https://hooks.acme.test/",
                types: TYPES,
                secret: b"secret",
            };
            store.create_endpoint(&new, 3, &sealer, NOW).await.unwrap()
        })
    };
    let mut made = 0;
    for attempt in (0..12).map(|_| make()).collect::<Vec<_>>() {
        made += usize::from(attempt.await.unwrap().is_some());
    }
    assert_eq!(made, 3);
    assert_eq!(
        world.store.endpoints(world.account.no).await.unwrap().len(),
        3
    );
}

#[tokio::test]
async fn a_replaced_secret_signs_until_its_time_and_is_then_erased() {
    let Some(world) = World::start().await else {
        return;
    };
    let (no, id) = endpoint(&world).await;
    let (store, account) = (&world.store, world.account.no);
    let until = NOW + Duration::HOUR;
    let rotate = |secret: &'static [u8], until| {
        store.rotate_endpoint_secret(account, id, secret, &world.sealer, until)
    };
    let secrets = async |at| {
        let found = store.endpoint(no, &world.sealer).await.unwrap().unwrap();
        found.secrets(at).map(<[u8]>::to_vec).collect::<Vec<_>>()
    };
    assert_eq!(secrets(NOW).await, [b"first".to_vec()]);
    assert!(rotate(b"second", Some(until)).await.unwrap());
    assert_eq!(secrets(NOW).await, [b"second".to_vec(), b"first".to_vec()]);
    assert_eq!(secrets(until).await, [b"second".to_vec()]);
    assert!(rotate(b"third", Some(until)).await.unwrap());
    assert_eq!(secrets(NOW).await, [b"third".to_vec(), b"second".to_vec()]);
    assert_eq!(store.forget_previous_secrets(NOW).await.unwrap(), 0);
    assert_eq!(store.forget_previous_secrets(until).await.unwrap(), 1);
    let kept = "SELECT count(*) FROM webhook_endpoint WHERE previous_secret IS NOT NULL";
    assert_eq!(world.count(kept).await, 0);
    assert!(rotate(b"fourth", None).await.unwrap());
    assert_eq!(secrets(NOW).await, [b"fourth".to_vec()]);
    let foreign = store.rotate_endpoint_secret(AccountNo(9_999), id, b"x", &world.sealer, None);
    assert!(!foreign.await.unwrap());
}

#[tokio::test]
async fn an_endpoint_is_disabled_only_while_it_fails_for_long_enough() {
    let Some(world) = World::start().await else {
        return;
    };
    let (no, id) = endpoint(&world).await;
    let (store, account) = (&world.store, world.account.no);
    let later = NOW + Duration::days(5);
    let disable = |before| {
        store.disable_endpoint(
            no,
            DisabledReason::Failing,
            Some(before),
            None,
            event_at(later),
            later,
        )
    };
    assert!(!disable(NOW).await.unwrap(), "it does not fail");
    store.note_failing(&[(no, Some(NOW))]).await.unwrap();
    store.note_failing(&[(no, Some(later))]).await.unwrap();
    assert_eq!(shown(&world, no).await.failing_since, Some(NOW));
    store.note_failing(&[(no, None)]).await.unwrap();
    assert!(!disable(later).await.unwrap(), "it has recovered");
    store.note_failing(&[(no, Some(NOW))]).await.unwrap();
    assert!(!disable(NOW - Duration::SECOND).await.unwrap(), "too early");
    assert!(disable(NOW).await.unwrap());
    assert!(!disable(NOW).await.unwrap(), "it is already");
    let found = shown(&world, no).await;
    assert!(!found.enabled);
    assert_eq!(found.disabled, Some((later, DisabledReason::Failing)));
    let told = "SELECT count(*) FROM event WHERE type = 80 AND reply = 'failing'
                AND subject = (SELECT public_id FROM webhook_endpoint)";
    assert_eq!(world.count(told).await, 1);

    let enable = EndpointChange {
        enabled: Some(true),
        ..EndpointChange::default()
    };
    let changed = store.change_endpoint(account, id, enable, later);
    let changed = changed.await.unwrap().unwrap();
    assert!(changed.enabled && changed.disabled.is_none() && changed.failing_since.is_none());
    let foreign = store.change_endpoint(AccountNo(9_999), id, enable, later);
    assert_eq!(foreign.await.unwrap(), None);
    let other_url = EndpointChange {
        url: Some("https://other.acme.test/"),
        ..EndpointChange::default()
    };
    store.note_failing(&[(no, Some(NOW))]).await.unwrap();
    let changed = store.change_endpoint(account, id, other_url, later);
    let changed = changed.await.unwrap().unwrap();
    assert_eq!(
        (changed.types.as_slice(), changed.failing_since),
        (TYPES, None)
    );
}

#[tokio::test]
async fn calls_of_a_disabled_endpoint_wait_and_a_test_goes_first() {
    let Some(world) = World::start().await else {
        return;
    };
    let (no, id) = endpoint(&world).await;
    let (store, account) = (&world.store, world.account.no);
    let call = PendingCall {
        endpoint: no,
        next_at: NOW,
        event_id: event_at(NOW),
        subject: Uuid::from_u128(100),
        attempt: 1,
        replay: None,
    };
    store.pend_calls(&[call]).await.unwrap();
    let test = event_at(NOW);
    assert!(store.test_endpoint(account, id, test).await.unwrap());
    let due = store.due_calls(NOW, 10, 10).await.unwrap();
    assert_eq!(
        due.iter().map(|call| call.event_id).collect::<Vec<_>>(),
        [test, call.event_id]
    );
    assert!(
        !store
            .test_endpoint(AccountNo(9_999), id, test)
            .await
            .unwrap()
    );

    let enabled = |enabled| EndpointChange {
        enabled: Some(enabled),
        ..EndpointChange::default()
    };
    let change = |to| store.change_endpoint(account, id, enabled(to), NOW);
    let off = change(false).await.unwrap().unwrap();
    assert_eq!(off.disabled, Some((NOW, DisabledReason::Owner)));
    assert!(store.due_calls(NOW, 10, 10).await.unwrap().is_empty());
    assert!(
        !store
            .test_endpoint(account, id, event_at(NOW))
            .await
            .unwrap()
    );
    assert_eq!(
        store.drop_calls_of_disabled(floor(NOW), 10).await.unwrap(),
        0
    );
    change(true).await.unwrap();
    assert_eq!(store.due_calls(NOW, 10, 10).await.unwrap().len(), 2);
    let tomorrow = floor(NOW + Duration::DAY);
    assert_eq!(
        store.drop_calls_of_disabled(tomorrow, 10).await.unwrap(),
        0,
        "enabled"
    );
    change(false).await.unwrap();
    assert_eq!(store.drop_calls_of_disabled(tomorrow, 1).await.unwrap(), 1);
    assert_eq!(store.drop_calls_of_disabled(tomorrow, 10).await.unwrap(), 1);
}

#[tokio::test]
async fn calls_that_nobody_will_make_are_forgotten() {
    let Some(world) = World::start().await else {
        return;
    };
    let (no, _) = endpoint(&world).await;
    let store = &world.store;
    let call = |endpoint| PendingCall {
        endpoint,
        next_at: NOW,
        event_id: event_at(NOW),
        subject: Uuid::from_u128(100),
        attempt: 1,
        replay: None,
    };
    let calls = [call(no), call(EndpointNo(8_888)), call(EndpointNo(9_999))];
    store.pend_calls(&calls).await.unwrap();
    assert_eq!(store.drop_orphaned_calls().await.unwrap(), 2);
    assert_eq!(store.due_calls(NOW, 10, 10).await.unwrap(), calls[..1]);

    let row = world.send().await;
    let event = store.message_events(row.key.message).await.unwrap()[0].id;
    let id = WebhookReplayId::from_uuid(id_at(NOW));
    let account = world.account.no;
    store
        .replay_event(id, account, no, event, NOW)
        .await
        .unwrap();
    assert_eq!(store.drop_orphaned_calls().await.unwrap(), 0);
    let mut connection = world.connection().await;
    sqlx::query("UPDATE webhook_replay SET state = 3, ended_at = $1")
        .bind(NOW)
        .execute(&mut connection)
        .await
        .unwrap();
    assert_eq!(store.drop_orphaned_calls().await.unwrap(), 1);
}

#[tokio::test]
async fn calls_are_listed_newest_first_and_go_with_their_day() {
    let Some(world) = World::start().await else {
        return;
    };
    let (no, _) = endpoint(&world).await;
    let (other, _) = endpoint(&world).await;
    let store = &world.store;
    let events = [event_at(NOW), event_at(NOW)];
    let call = |endpoint, seconds, event: usize, result| CallRecord {
        id: WebhookCallId::from_uuid(id_at(NOW + Duration::seconds(seconds))),
        endpoint,
        event: events[event],
        subject: Uuid::from_u128(100),
        kind: EventType::EmailQueued,
        attempt: 1,
        result,
        status: (result == CallResult::Status).then_some(500),
        response: DbText::from_remote(b"no\0", 100),
        duration_ms: 12,
        next_at: (result != CallResult::Taken).then_some(NOW + Duration::HOUR),
        is_replay: false,
    };
    let made = [
        call(no, 1, 0, CallResult::Status),
        call(no, 2, 0, CallResult::Taken),
        call(other, 3, 0, CallResult::Taken),
        call(no, 4, 1, CallResult::Timeout),
    ];
    store.log_calls(&made).await.unwrap();
    store.log_calls(&made[..1]).await.unwrap();
    let lowest = WebhookCallId::from_uuid(floor(NOW - Duration::DAY).uuid());
    let list = async |filter, before, limit| {
        let found = store.calls(no, filter, lowest, before, limit);
        found.await.unwrap()
    };
    let all = CallFilter::default();
    let expected = [made[3].clone(), made[1].clone(), made[0].clone()];
    assert_eq!(list(all, None, 10).await, expected);
    assert_eq!(list(all, None, 2).await, expected[..2]);
    assert_eq!(list(all, Some(made[1].id), 10).await, expected[2..]);
    let filter = |taken, event| CallFilter { taken, event };
    assert_eq!(
        list(filter(Some(true), None), None, 10).await,
        expected[1..2]
    );
    assert_eq!(
        list(filter(None, Some(events[0])), None, 10).await,
        expected[1..]
    );
    let failed = filter(Some(false), Some(events[0]));
    assert_eq!(list(failed, None, 10).await, expected[2..]);
    assert_eq!(list(filter(Some(false), None), None, 10).await.len(), 2);

    assert_eq!(store.default_partition_rows().await.unwrap(), 0);
    assert_eq!(
        store.drop_calls_before(NOW.date()).await.unwrap(),
        1,
        "yesterday's"
    );
    assert_eq!(list(all, None, 10).await.len(), 3);
    store
        .drop_calls_before((NOW + Duration::DAY).date())
        .await
        .unwrap();
    assert!(list(all, None, 10).await.is_empty());
}
