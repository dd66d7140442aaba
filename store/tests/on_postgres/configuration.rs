//! Accounts, keys, domains, pools, the sandbox, wake-ups.

use mail::dkim::SigningKey;
use mail::domain_name::DomainName;
use mail::ids::*;
use mail::retry::StreamClass;
use service::redis_server::RedisServer;
use store::*;
use time::Duration;
use tokio::time::timeout;
use uuid::Uuid;

use crate::world::{NOW, PATIENCE, World};

#[tokio::test]
async fn accounts_and_streams_are_found_by_name() {
    let Some(world) = World::start().await else {
        return;
    };
    let store = &world.store;
    assert_eq!(
        store.account_by_name("acme").await.unwrap().as_ref(),
        Some(&world.account)
    );
    assert_eq!(store.account_by_name("other").await.unwrap(), None);
    assert_eq!(
        store.accounts().await.unwrap(),
        std::slice::from_ref(&world.account)
    );
    let account = world.account.no;
    let found = store
        .stream(account, "transactional")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(found, world.stream);
    assert_eq!(found.ambiguous, AmbiguousPolicy::Resend);
    assert_eq!(found.expires_after.as_secs(), 432_000);

    // Looked for before it is there, found at once after.
    assert_eq!(store.stream(account, "news").await.unwrap(), None);
    let id = StreamId::from_uuid(Uuid::new_v4());
    let news = store
        .create_stream(id, account, "news", StreamClass::Broadcast)
        .await
        .unwrap();
    assert_eq!(store.stream(account, "news").await.unwrap(), Some(news));
    let id = StreamId::from_uuid(Uuid::new_v4());
    let taken = store
        .create_stream(id, account, "news", StreamClass::Broadcast)
        .await;
    assert!(
        matches!(taken, Err(StoreError::Conflict { .. })),
        "{taken:?}"
    );

    store
        .set_ambiguous_policy(found.no, AmbiguousPolicy::Hold)
        .await
        .unwrap();
    let changed = store.stream_by_no(found.no).await.unwrap().unwrap();
    assert_eq!(changed.ambiguous, AmbiguousPolicy::Hold);
}

#[tokio::test]
async fn a_revoked_key_is_let_in_no_more() {
    let Some(world) = World::start().await else {
        return;
    };
    let store = &world.store;
    let (id, hash) = (ApiKeyId::from_uuid(Uuid::new_v4()), [3; 32]);
    let scopes = ["emails:send".to_owned()];
    assert_eq!(store.key_by_hash(&hash).await.unwrap(), None);
    let expires_at = Some(NOW + Duration::days(1));
    store
        .create_key(
            id,
            world.account.no,
            hash,
            "pr_live_ab",
            false,
            &scopes,
            NOW,
            expires_at,
        )
        .await
        .unwrap();
    let key = store.key_by_hash(&hash).await.unwrap().unwrap().key;
    assert_eq!(
        (key.id, key.account, key.test),
        (id, world.account.no, false)
    );
    assert_eq!(
        (key.scopes.as_slice(), key.expires_at),
        (&scopes[..], expires_at)
    );
    let of = KeysOf {
        account: world.account.no,
        only_test: false,
        within_domains: None,
    };
    assert!(store.revoke_key(of, id, NOW).await.unwrap());
    assert_eq!(store.key_by_hash(&hash).await.unwrap(), None);
}

#[tokio::test]
async fn a_domain_is_proved_and_signs_with_its_newest_key_first() {
    let Some(world) = World::start().await else {
        return;
    };
    let (store, sealer, domain) = (&world.store, &world.sealer, &world.domain);
    let found = store
        .sender_domain(world.account.no, &domain.name)
        .await
        .unwrap()
        .unwrap();
    assert!(!found.verified);
    store.verify_domain(domain.no, NOW).await.unwrap();
    assert!(
        store
            .sender_domain(world.account.no, &domain.name)
            .await
            .unwrap()
            .unwrap()
            .verified
    );
    assert!(
        store
            .sender_domain_by_no(domain.no)
            .await
            .unwrap()
            .unwrap()
            .verified
    );

    assert!(
        store
            .dkim_signers(domain.no, sealer)
            .await
            .unwrap()
            .is_empty()
    );
    let key = SigningKey::generate_ed25519().unwrap();
    store
        .add_dkim_key(domain.no, "old", &key, sealer, NOW)
        .await
        .unwrap();
    let key = SigningKey::generate_rsa_2048().unwrap();
    store
        .add_dkim_key(domain.no, "new", &key, sealer, NOW + Duration::SECOND)
        .await
        .unwrap();
    let signers = store.dkim_signers(domain.no, sealer).await.unwrap();
    let names: Vec<_> = signers
        .iter()
        .map(|signer| (signer.domain().as_str(), signer.selector()))
        .collect();
    assert_eq!(names, [("acme.test", "new"), ("acme.test", "old")]);
    assert_eq!(
        signers[0].key().public_txt().unwrap(),
        key.public_txt().unwrap()
    );
    let records = store.dkim_records(domain.no).await.unwrap();
    assert_eq!(records[0], ("new".into(), key.public_txt().unwrap()));
    let again = store
        .add_dkim_key(domain.no, "new", &key, sealer, NOW)
        .await;
    assert!(
        matches!(again, Err(StoreError::Conflict { .. })),
        "{again:?}"
    );
}

#[tokio::test]
async fn recipient_domains_get_one_number_each() {
    let Some(world) = World::start().await else {
        return;
    };
    let names: Vec<DomainName> = ["b.test", "a.test", "example.com", "b.test"]
        .map(|name| name.parse().unwrap())
        .into();
    let wanted: Vec<&DomainName> = names.iter().collect();
    let other = Store::connect(StoreOptions::new(&world.url)).await.unwrap();
    let (ours, theirs) = tokio::join!(
        world.store.recipient_domain_nos(&wanted),
        other.recipient_domain_nos(&wanted)
    );
    let ours = ours.unwrap();
    assert_eq!(ours, theirs.unwrap());
    assert_eq!((ours[0], ours[2]), (ours[3], world.recipient_domain));
    assert_ne!(ours[0], ours[1]);
    let fresh = Store::connect(StoreOptions::new(&world.url)).await.unwrap();
    assert_eq!(fresh.recipient_domain_names(&ours).await.unwrap(), names);
    assert!(
        fresh
            .recipient_domain_names(&[RecipientDomainNo(999)])
            .await
            .is_err()
    );
}

#[tokio::test]
async fn test_mail_finds_the_sandbox() {
    let Some(world) = World::start().await else {
        return;
    };
    let store = &world.store;
    assert_eq!(store.sandbox_pool().await.unwrap(), None);
    let pool = |_| PoolId::from_uuid(Uuid::new_v4());
    let direct = store
        .create_pool(pool(()), "shared", PoolKind::Direct)
        .await
        .unwrap();
    let sandbox = store
        .create_pool(pool(()), "sandbox", PoolKind::Sandbox)
        .await
        .unwrap();
    assert_eq!(store.sandbox_pool().await.unwrap(), Some(sandbox));
    assert_eq!(store.pool_by_no(direct.no).await.unwrap(), Some(direct));
}

#[tokio::test]
async fn the_sandbox_shows_the_newest_and_forgets_the_oldest() {
    let Some(world) = World::start().await else {
        return;
    };
    let store = &world.store;
    for number in 1..=5 {
        let message = SandboxMessage {
            id: InboxId::from_uuid(Uuid::from_u128(number)),
            received_at: NOW,
            helo: "client\0".into(),
            mail_from: "a@acme.test".into(),
            recipients: vec!["x@sandbox.test".into()],
            authentication_results: "sandbox; dkim=pass".into(),
            raw: vec![b'x'; 10_000],
        };
        store.add_sandbox_message(&message).await.unwrap();
    }
    let page = store.sandbox_messages(2, None).await.unwrap();
    let numbers = |page: &[SandboxSummary]| {
        page.iter()
            .map(|message| message.id.uuid().as_u128())
            .collect::<Vec<_>>()
    };
    assert_eq!(numbers(&page), [5, 4]);
    assert_eq!((page[0].head.len(), page[0].octets), (8_192, 10_000));
    let next = store.sandbox_messages(2, Some(page[1].id)).await.unwrap();
    assert_eq!(numbers(&next), [3, 2]);
    assert_eq!(store.trim_sandbox(2).await.unwrap(), 3);
    assert_eq!(
        numbers(&store.sandbox_messages(9, None).await.unwrap()),
        [5, 4]
    );
    let whole = store.sandbox_message(page[0].id).await.unwrap().unwrap();
    assert_eq!(
        (whole.raw.len(), whole.helo.as_str()),
        (10_000, "client\u{fffd}")
    );
    assert_eq!(store.sandbox_message(next[0].id).await.unwrap(), None);
}

#[tokio::test]
async fn a_wake_up_travels_over_redis() {
    if RedisServer::find().is_none() {
        eprintln!("SKIPPED: this machine has no redis-server");
        return;
    }
    let dir = tempfile::tempdir_in("/tmp").unwrap();
    let server = RedisServer::start(dir.path()).unwrap();
    let (sender, receiver) = (
        RedisWake::connect(&server.url()).unwrap(),
        RedisWake::connect(&server.url()).unwrap(),
    );
    let mut heard = receiver.subscribe();
    // A hint sent before the other side listens is lost, as hints may be: send until one is heard.
    let arrival = async {
        loop {
            sender.publish(&[ShardNo(4)]);
            if let Ok(shard) = timeout(std::time::Duration::from_millis(50), heard.recv()).await {
                return shard;
            }
        }
    };
    assert_eq!(timeout(PATIENCE, arrival).await.unwrap(), Some(ShardNo(4)));
}
