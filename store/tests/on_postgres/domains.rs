//! Sending domains: checks are claimed once, decisions from old rows change nothing, and a name has
//! one owner.

use mail::dkim::SigningKey;
use mail::domain_records::{Outcome, RecordStatus};
use mail::domain_watch::{Decision, DomainStatus, Occasion, decide};
use mail::ids::*;
use store::*;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::world::{NOW, World};

async fn register(world: &World, account: AccountNo, name: &str) -> RegisteredDomain {
    let key = SigningKey::generate_ed25519().unwrap();
    let id = DomainId::from_uuid(Uuid::new_v4());
    let new = NewDomain {
        id,
        account,
        name: &name.parse().unwrap(),
        selector: "prone",
        key: &key,
        at: NOW,
        check_at: NOW + Duration::MINUTE,
    };
    world
        .store
        .register_domain(new, &world.sealer)
        .await
        .unwrap();
    read(world, account, id).await
}

async fn read(world: &World, account: AccountNo, id: DomainId) -> RegisteredDomain {
    let found = world.store.registered_domain(account, id).await.unwrap();
    found.unwrap()
}

fn decision(domain: &RegisteredDomain, outcome: &Outcome, at: OffsetDateTime) -> Decision {
    decide(&domain.standing, outcome, Occasion::Scheduled, at, 0.0)
}

fn found(waiting: Option<&str>) -> Outcome {
    Outcome {
        signing: RecordStatus::Found,
        waiting: waiting.map(|selector| (selector.to_owned(), RecordStatus::Found)),
        return_path: Some(RecordStatus::Found),
    }
}

async fn write(world: &World, domain: &RegisteredDomain, decision: &Decision) -> Written {
    let check = CheckedDomain {
        domain,
        findings: &[],
        decision,
        event: EventId::from_uuid(Uuid::new_v4()),
        at: NOW,
    };
    world.store.write_domain_check(&check).await.unwrap()
}

#[tokio::test]
async fn a_check_is_claimed_once_and_again_when_nobody_wrote_it() {
    let Some(world) = World::start().await else {
        return;
    };
    let store = &world.store;
    for number in 0..20 {
        register(&world, world.account.no, &format!("shop{number}.test")).await;
    }
    let due = NOW + Duration::HOUR;
    let claim = |at: OffsetDateTime| store.claim_domain_checks(at, at + Duration::MINUTE, 15);
    assert!(
        store
            .claim_domain_checks(NOW, due, 15)
            .await
            .unwrap()
            .is_empty()
    );
    let (one, two) = tokio::join!(claim(due), claim(due));
    let mut claimed: Vec<DomainId> = one
        .unwrap()
        .into_iter()
        .chain(two.unwrap())
        .map(|d| d.id)
        .collect();
    claimed.extend(claim(due).await.unwrap().into_iter().map(|d| d.id));
    claimed.sort_unstable();
    let count = claimed.len();
    claimed.dedup();
    assert_eq!((count, claimed.len()), (20, 20));
    assert_eq!(claim(due + Duration::MINUTE).await.unwrap().len(), 15);
}

#[tokio::test]
async fn a_decision_from_an_old_row_changes_nothing() {
    let Some(world) = World::start().await else {
        return;
    };
    let account = world.account.no;
    let before = register(&world, account, "shop.test").await;
    let verified = decision(&before, &found(None), NOW);
    assert_eq!(write(&world, &before, &verified).await, Written::Done);
    assert_eq!(write(&world, &before, &verified).await, Written::Outdated);
    let now = read(&world, account, before.id).await;
    assert_eq!(now.standing.status, DomainStatus::Verified);
    assert_eq!((now.verified_at, now.checked_at), (Some(NOW), Some(NOW)));
    let sender = world
        .store
        .sender_domain(account, &before.name)
        .await
        .unwrap()
        .unwrap();
    let path = sender.return_path.unwrap();
    assert_eq!(path.domain.as_str(), "pr-bounce.shop.test");
    assert!(path.from > NOW);
    assert!(
        world
            .store
            .remove_domain(account, before.id, NOW)
            .await
            .unwrap()
    );
    assert_eq!(write(&world, &now, &verified).await, Written::Outdated);
    // Mail that is queued still finds its key and its return path.
    let sender = world
        .store
        .sender_domain_by_no(before.no)
        .await
        .unwrap()
        .unwrap();
    assert!(!sender.verified && sender.return_path.is_some());
    let signers = world
        .store
        .dkim_signers(before.no, &world.sealer)
        .await
        .unwrap();
    assert_eq!(signers.len(), 1);
}

#[tokio::test]
async fn two_accounts_register_a_name_and_one_owns_it() {
    let Some(world) = World::start().await else {
        return;
    };
    let other = AccountId::from_uuid(Uuid::new_v4());
    let other = world
        .store
        .create_account(other, "other", NOW)
        .await
        .unwrap();
    let mine = register(&world, world.account.no, "shop.test").await;
    let theirs = register(&world, other.no, "shop.test").await;
    let proved = |domain: &RegisteredDomain| decision(domain, &found(None), NOW);
    assert_eq!(write(&world, &mine, &proved(&mine)).await, Written::Done);
    assert_eq!(
        write(&world, &theirs, &proved(&theirs)).await,
        Written::Taken
    );
    let refused = world.store.verify_domain(theirs.no, NOW).await;
    assert!(
        matches!(refused, Err(StoreError::Conflict { .. })),
        "{refused:?}"
    );
    assert!(
        world
            .store
            .remove_domain(world.account.no, mine.id, NOW)
            .await
            .unwrap()
    );
    assert_eq!(
        write(&world, &theirs, &proved(&theirs)).await,
        Written::Done
    );
}

#[tokio::test]
async fn a_waiting_key_does_not_sign_and_then_alone_does() {
    let Some(world) = World::start().await else {
        return;
    };
    let (store, account) = (&world.store, world.account.no);
    let domain = register(&world, account, "shop.test").await;
    let key = SigningKey::generate_ed25519().unwrap();
    let times = (NOW + Duration::SECOND, NOW + Duration::MINUTE);
    let add = |domain| store.add_waiting_key(domain, "prtwo", &key, &world.sealer, times);
    assert!(add(&domain).await.unwrap());
    assert!(!add(&domain).await.unwrap(), "the row is old");
    let domain = read(&world, account, domain.id).await;
    assert!(!add(&domain).await.unwrap(), "a key waits already");
    let signing = || async {
        let signers = store.dkim_signers(domain.no, &world.sealer).await.unwrap();
        assert_eq!(signers.len(), 1);
        let line = signers[0]
            .sign(b"From: a@shop.test\r\n", &[0; 32], 1, None)
            .unwrap();
        line.replace(['\r', '\n', ' '], "")
    };
    assert!(signing().await.contains("s=prone;"));
    let rotated = decision(&domain, &found(Some("prtwo")), NOW);
    assert_eq!(write(&world, &domain, &rotated).await, Written::Done);
    assert!(signing().await.contains("s=prtwo;"));
    let (_, keys) = store
        .purge_domains(NOW, NOW + Duration::SECOND)
        .await
        .unwrap();
    assert_eq!(keys, 1);
    assert_eq!(read(&world, account, domain.id).await.keys.len(), 1);
}
