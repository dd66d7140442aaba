//! What the operator's commands see and end.

use mail::ids::*;
use store::*;
use time::Duration;
use uuid::Uuid;

use crate::world::{NOW, World, unique};

/// In the order they are made.
fn numbered() -> Uuid {
    Uuid::from_u128(u128::from(unique()))
}

async fn key(
    world: &World,
    account: AccountNo,
    ends_after: Option<Duration>,
) -> (ApiKeyId, [u8; 32]) {
    let id = ApiKeyId::from_uuid(numbered());
    let mut hash = [0; 32];
    hash[..16].copy_from_slice(id.uuid().as_bytes());
    let scopes = ["emails:send".to_owned()];
    let expires_at = ends_after.map(|after| NOW + after);
    let made = world.store.create_key(
        id,
        account,
        hash,
        "pr_live_…wxyz",
        false,
        &scopes,
        NOW,
        expires_at,
    );
    made.await.unwrap();
    (id, hash)
}

#[tokio::test]
async fn keys_are_listed_and_ended_one_by_one() {
    let Some(world) = World::start().await else {
        return;
    };
    let store = &world.store;
    let account = world.account.no;
    let other = AccountId::from_uuid(numbered());
    let other = store.create_account(other, "other", NOW).await.unwrap();
    let (first, first_hash) = key(&world, account, None).await;
    key(&world, account, Some(Duration::HOUR)).await;
    let (foreign, foreign_hash) = key(&world, other.no, None).await;

    let of_acme = store.key_records(Some(account)).await.unwrap();
    assert_eq!(of_acme.len(), 2);
    assert_eq!(
        (of_acme[0].id, of_acme[0].account.as_str()),
        (first, "acme")
    );
    assert_eq!(of_acme[1].expires_at, Some(NOW + Duration::HOUR));
    assert_eq!(store.key_records(None).await.unwrap().len(), 3);

    let counted = |at| async move {
        let records = store.account_records(at).await.unwrap();
        records.iter().map(|record| record.keys).collect::<Vec<_>>()
    };
    assert_eq!(counted(NOW).await, [2, 1]);
    assert_eq!(counted(NOW + Duration::HOUR).await, [1, 1]);

    // Remembered, and gone at once all the same.
    assert!(store.key_by_hash(&first_hash).await.unwrap().is_some());
    assert!(store.end_key(first, NOW).await.unwrap());
    assert!(!store.end_key(first, NOW).await.unwrap());
    assert!(store.key_by_hash(&first_hash).await.unwrap().is_none());
    assert_eq!(counted(NOW).await, [1, 1]);
    assert!(store.key_by_hash(&foreign_hash).await.unwrap().is_some());
    let unknown = ApiKeyId::from_uuid(numbered());
    assert!(!store.end_key(unknown, NOW).await.unwrap());
    let listed = store.key_records(Some(other.no)).await.unwrap();
    assert_eq!((listed[0].id, listed[0].revoked_at), (foreign, None));
}

#[tokio::test]
async fn an_account_is_shut_out_with_all_its_keys_and_let_in_again() {
    let Some(world) = World::start().await else {
        return;
    };
    let store = &world.store;
    let account = world.account.no;
    let other = AccountId::from_uuid(numbered());
    let other = store.create_account(other, "other", NOW).await.unwrap();
    let (_, own) = key(&world, account, None).await;
    let (_, foreign) = key(&world, other.no, None).await;
    let is_shut_out = async |hash: &[u8; 32]| {
        let presented = store.key_by_hash(hash).await.unwrap().unwrap();
        presented.account_disabled
    };
    assert!(!is_shut_out(&own).await && !is_shut_out(&foreign).await);

    // Remembered, and noticed at once all the same. The first time stays.
    for at in [NOW, NOW + Duration::HOUR] {
        let told = store.set_account_disabled(account, true, at).await.unwrap();
        assert_eq!(told, Some(NOW));
    }
    assert!(is_shut_out(&own).await && !is_shut_out(&foreign).await);
    let (_, made_meanwhile) = key(&world, account, None).await;
    assert!(is_shut_out(&made_meanwhile).await);
    let records = store.account_records(NOW).await.unwrap();
    let told: Vec<_> = records.iter().map(|record| record.disabled_at).collect();
    assert_eq!(told, [Some(NOW), None]);

    for _ in 0..2 {
        let told = store
            .set_account_disabled(account, false, NOW)
            .await
            .unwrap();
        assert_eq!(told, None);
    }
    assert!(!is_shut_out(&own).await && !is_shut_out(&made_meanwhile).await);
}

#[tokio::test]
async fn accounts_pools_and_sources_are_listed_oldest_first() {
    let Some(world) = World::start().await else {
        return;
    };
    let store = &world.store;
    let records = store.account_records(NOW).await.unwrap();
    assert_eq!(records[0].account, world.account);
    let found = store.account_by_id(world.account.id).await.unwrap();
    assert_eq!(found.as_ref(), Some(&world.account));
    let nobody = AccountId::from_uuid(numbered());
    assert_eq!(store.account_by_id(nobody).await.unwrap(), None);

    let before = store.pools().await.unwrap().len();
    let id = PoolId::from_uuid(numbered());
    let made = store
        .create_pool(id, "bulk", PoolKind::Direct)
        .await
        .unwrap();
    assert_eq!(store.pools().await.unwrap()[before..], [made]);

    let address = Some("192.0.2.7".parse().unwrap());
    store.register_source(address, "mx.example").await.unwrap();
    store.register_source(None, "mx.example").await.unwrap();
    let sources = store.sources().await.unwrap();
    let addresses: Vec<_> = sources.iter().map(|source| source.address).collect();
    assert_eq!(addresses, [address, None]);
}
