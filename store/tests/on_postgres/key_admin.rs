//! Keys as their account manages them: restrictions, rotation, revocation, last use, strangers.

use mail::domain_name::DomainName;
use mail::ids::ApiKeyId;
use store::*;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::world::{NOW, World};

fn new_key(account: AccountNo, test: bool) -> ApiKey {
    ApiKey {
        id: ApiKeyId::from_uuid(Uuid::new_v4()),
        account,
        test,
        scopes: vec!["emails:send".to_owned()],
        domains: Some(vec![DomainName::parse("acme.test").unwrap()]),
        networks: Some(vec!["192.0.2.0/24".to_owned()]),
        expires_at: Some(NOW + Duration::days(3)),
    }
}

async fn add(store: &Store, key: &ApiKey, hash: [u8; 32]) {
    let new = NewApiKey {
        key,
        secret_sha256: hash,
        hint: "pr_live_…abcd",
        name: "ci",
        created_at: NOW,
    };
    store.add_key(&new).await.unwrap();
}

async fn end_of(store: &Store, hash: &[u8; 32]) -> Option<Option<OffsetDateTime>> {
    let key = store.key_by_hash(hash).await.unwrap();
    key.map(|presented| presented.key.expires_at)
}

#[tokio::test]
async fn a_rotated_key_has_two_secrets_for_a_while() {
    let Some(world) = World::start().await else {
        return;
    };
    let store = &world.store;
    let key = new_key(world.account.no, false);
    let of = KeysOf {
        account: key.account,
        only_test: false,
        within_domains: None,
    };
    let (first, second, third) = ([1; 32], [2; 32], [3; 32]);
    add(store, &key, first).await;
    let presented = store.key_by_hash(&first).await.unwrap().unwrap();
    assert_eq!(*presented.key, key);

    // Asked for before it is there, found at once after.
    assert_eq!(end_of(store, &second).await, None);
    let until = NOW + Duration::days(1);
    let rotate = |hash, until| store.rotate_key(of, key.id, hash, "pr_live_…efgh", until, NOW);
    assert!(rotate(second, until).await.unwrap());
    assert_eq!(end_of(store, &first).await, Some(Some(until)));
    assert_eq!(end_of(store, &second).await, Some(key.expires_at));

    // The overlap never outlives the key; the next rotation ends an earlier one.
    assert!(rotate(third, NOW + Duration::days(9)).await.unwrap());
    assert_eq!(end_of(store, &first).await, None);
    assert_eq!(end_of(store, &second).await, Some(key.expires_at));
    let shown = store.key(of, key.id).await.unwrap().unwrap();
    assert_eq!(
        (shown.hint.as_str(), shown.name.as_str()),
        ("pr_live_…efgh", "ci")
    );
    assert_eq!(shown.key, key);

    let late = NOW + Duration::days(4);
    let expired = store.rotate_key(of, key.id, [4; 32], "x", late, late).await;
    assert!(!expired.unwrap());
    assert!(store.revoke_key(of, key.id, NOW).await.unwrap());
    assert!(store.revoke_key(of, key.id, late).await.unwrap());
    assert_eq!(end_of(store, &second).await, None);
    assert_eq!(end_of(store, &third).await, None);
    assert!(!rotate([5; 32], until).await.unwrap());
    let shown = store.key(of, key.id).await.unwrap().unwrap();
    assert_eq!(shown.revoked_at, Some(NOW));
}

#[tokio::test]
async fn strangers_and_test_keys_see_and_change_only_theirs() {
    let Some(world) = World::start().await else {
        return;
    };
    let store = &world.store;
    let (live, test) = (
        new_key(world.account.no, false),
        new_key(world.account.no, true),
    );
    add(store, &live, [1; 32]).await;
    add(store, &test, [2; 32]).await;
    let of = |account, only_test| KeysOf {
        account,
        only_test,
        within_domains: None,
    };
    let stranger = AccountNo(world.account.no.0 + 1);
    for of in [of(stranger, false), of(world.account.no, true)] {
        assert_eq!(store.key(of, live.id).await.unwrap(), None);
        assert!(!store.revoke_key(of, live.id, NOW).await.unwrap());
        let rotated = store.rotate_key(of, live.id, [9; 32], "x", NOW, NOW).await;
        assert!(!rotated.unwrap());
    }
    let ids = async |of| -> Vec<ApiKeyId> {
        let found = store.keys(of, 10, None).await.unwrap();
        found.into_iter().map(|summary| summary.key.id).collect()
    };
    assert_eq!(ids(of(stranger, false)).await, []);
    assert_eq!(ids(of(world.account.no, true)).await, [test.id]);
    let mut both = [live.id, test.id];
    both.sort_unstable();
    assert_eq!(ids(of(world.account.no, false)).await, both);
    let next = store.keys(of(world.account.no, false), 10, Some(both[0]));
    assert_eq!(next.await.unwrap()[0].key.id, both[1]);
    assert_eq!(store.count_keys(world.account.no, NOW).await.unwrap(), 2);
    let late = NOW + Duration::days(4);
    assert_eq!(store.count_keys(world.account.no, late).await.unwrap(), 0);
}

#[tokio::test]
async fn the_last_use_only_moves_forward() {
    let Some(world) = World::start().await else {
        return;
    };
    let store = &world.store;
    let key = new_key(world.account.no, false);
    add(store, &key, [1; 32]).await;
    let unknown = ApiKeyId::from_uuid(Uuid::new_v4());
    let later = NOW + Duration::minutes(5);
    let uses = [(key.id, later), (unknown, later)];
    assert_eq!(store.note_key_uses(&uses).await.unwrap(), 1);
    assert_eq!(store.note_key_uses(&[(key.id, NOW)]).await.unwrap(), 0);
    assert_eq!(store.note_key_uses(&[]).await.unwrap(), 0);
    let of = KeysOf {
        account: key.account,
        only_test: false,
        within_domains: None,
    };
    let shown = store.key(of, key.id).await.unwrap().unwrap();
    assert_eq!(shown.last_used_at, Some(later));
}
