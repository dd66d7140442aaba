//! Sending domains are looked at until they are proved, and lose their proof only to records that
//! are missing for long: not to a DNS that is down, and not twice because two workers look.

#![allow(clippy::unwrap_used)] // a test that cannot go on says so by panicking

#[allow(dead_code, unused_imports, reason = "shared with other tests")]
mod common;
#[path = "../../tests/src/dns.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with other tests")]
mod dns;

use std::time::Duration;

use common::{PATIENCE, Platform};
use dns::{Dns, Trouble};
use mail::dkim::SigningKey;
use mail::domain_records::Purpose;
use mail::domain_watch::{DomainStatus, first_check_at};
use mail::event::EventType;
use mail::ids::{AccountId, DomainId, NodeId};
use service::resolver::Resolver;
use store::{AccountNo, NewDomain, RegisteredDomain};
use time::OffsetDateTime;
use uuid::Uuid;

const HOUR: Duration = Duration::from_secs(3_600);
/// Longer than any pause between two checks.
const NEXT_CHECK: Duration = Duration::from_secs(27 * 3_600);

async fn start(dns: &Dns) -> Option<Platform> {
    let mut platform = Platform::start().await?;
    platform.resolver = Resolver::new(&[dns.address]).unwrap();
    Some(platform)
}

/// A domain `shop.test` of an account, its key's record known but not published.
async fn register(platform: &Platform, account: AccountNo, selector: &str) -> RegisteredDomain {
    let key = SigningKey::generate_ed25519().unwrap();
    let (id, at) = (DomainId::from_uuid(Uuid::new_v4()), platform.clock.now());
    let new = NewDomain {
        id,
        account,
        name: &"shop.test".parse().unwrap(),
        selector,
        key: &key,
        at,
        check_at: first_check_at(at),
    };
    platform
        .store
        .register_domain(new, &platform.sealer)
        .await
        .unwrap();
    found(platform, account, id).await.unwrap()
}

async fn found(platform: &Platform, account: AccountNo, id: DomainId) -> Option<RegisteredDomain> {
    platform.store.registered_domain(account, id).await.unwrap()
}

fn publish(dns: &Dns, domain: &RegisteredDomain) {
    for record in domain.expected_records(None).records() {
        if record.purpose == Purpose::Dkim {
            dns.txt(&record.name, &record.value.unwrap());
        }
    }
}

fn dkim_name(domain: &RegisteredDomain) -> String {
    domain.expected_records(None).records()[0].name.clone()
}

/// Moves time, and waits until the domain was looked at by itself.
async fn next_check(
    platform: &Platform,
    domain: &RegisteredDomain,
    by: Duration,
) -> RegisteredDomain {
    let earlier: Option<OffsetDateTime> = found(platform, domain.account, domain.id)
        .await
        .unwrap()
        .checked_at;
    platform.advance(by).await;
    let looked = async {
        loop {
            let now = found(platform, domain.account, domain.id).await.unwrap();
            if now.checked_at > earlier {
                return now;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, looked).await.unwrap()
}

async fn told(platform: &Platform, domain: &RegisteredDomain) -> Vec<i16> {
    sqlx::query_scalar("SELECT type FROM event WHERE subject = $1 ORDER BY id")
        .bind(domain.id.uuid())
        .fetch_all(&platform.pool)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_domain_is_proved_by_itself_and_fails_after_three_missed_looks() {
    let dns = Dns::start().await;
    let Some(platform) = start(&dns).await else {
        return;
    };
    let domain = register(&platform, platform.account.no, "prone").await;
    let workers = [
        platform.worker(),
        platform.worker_of(NodeId::from_uuid(Uuid::new_v4())),
    ];
    let looked = next_check(&platform, &domain, Duration::from_secs(240)).await;
    assert_eq!(looked.standing.status, DomainStatus::Pending);
    publish(&dns, &domain);
    let looked = next_check(&platform, &domain, HOUR).await;
    assert_eq!(looked.standing.status, DomainStatus::Verified);

    dns.trouble(&dkim_name(&domain), Some(Trouble::ServFail));
    for _ in 0..4 {
        let looked = next_check(&platform, &domain, NEXT_CHECK).await;
        assert_eq!(looked.standing.status, DomainStatus::Verified);
        assert_eq!(looked.standing.misses, 0);
    }
    dns.trouble(&dkim_name(&domain), None);
    dns.withdraw(&dkim_name(&domain));
    for misses in [1, 2] {
        let looked = next_check(&platform, &domain, NEXT_CHECK).await;
        assert_eq!(looked.standing.status, DomainStatus::Verified);
        assert_eq!(looked.standing.misses, misses);
    }
    let looked = next_check(&platform, &domain, NEXT_CHECK).await;
    assert_eq!(looked.standing.status, DomainStatus::Failed);
    assert_eq!(looked.check_at, None);
    let expected = [EventType::DomainVerified, EventType::DomainFailed].map(EventType::code);
    assert_eq!(told(&platform, &domain).await, expected);
    for worker in workers {
        worker.stop().await;
    }
}

#[tokio::test]
async fn of_two_accounts_one_owns_the_name_and_the_other_fails_in_the_end() {
    let dns = Dns::start().await;
    let Some(platform) = start(&dns).await else {
        return;
    };
    let now = platform.clock.now();
    let other = AccountId::from_uuid(Uuid::new_v4());
    let other = platform
        .store
        .create_account(other, "Other", now)
        .await
        .unwrap();
    let first = register(&platform, platform.account.no, "prone").await;
    let second = register(&platform, other.no, "prtwo").await;
    publish(&dns, &first);
    publish(&dns, &second);
    let worker = platform.worker();
    next_check(&platform, &first, Duration::from_secs(240)).await;
    let becomes = |domain: RegisteredDomain| {
        let platform = &platform;
        async move {
            let looked = async {
                loop {
                    let now = found(platform, domain.account, domain.id).await.unwrap();
                    if now.checked_at.is_some() {
                        return now;
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            tokio::time::timeout(PATIENCE, looked).await.unwrap()
        }
    };
    let both = [becomes(first).await, becomes(second).await];
    let statuses = both.each_ref().map(|domain| domain.standing.status);
    let (owner, late) = match statuses {
        [DomainStatus::Verified, DomainStatus::Pending] => (&both[0], &both[1]),
        [DomainStatus::Pending, DomainStatus::Verified] => (&both[1], &both[0]),
        other => panic!("{other:?}"),
    };
    let failed = next_check(&platform, late, 80 * HOUR).await;
    assert_eq!(failed.standing.status, DomainStatus::Failed);
    assert_eq!(
        told(&platform, owner).await,
        [EventType::DomainVerified.code()]
    );
    assert_eq!(
        told(&platform, late).await,
        [EventType::DomainFailed.code()]
    );
    worker.stop().await;
}

#[tokio::test]
async fn a_vouched_domain_needs_no_records_and_a_removed_one_is_forgotten_in_the_end() {
    let dns = Dns::start().await;
    let Some(platform) = start(&dns).await else {
        return;
    };
    let domain = register(&platform, platform.account.no, "prone").await;
    let now = platform.clock.now();
    platform.store.verify_domain(domain.no, now).await.unwrap();
    let worker = platform.worker();
    for _ in 0..5 {
        let looked = next_check(&platform, &domain, NEXT_CHECK).await;
        assert_eq!(looked.standing.status, DomainStatus::Verified);
    }
    assert!(told(&platform, &domain).await.is_empty());

    let now = platform.clock.now();
    let removed = platform
        .store
        .remove_domain(domain.account, domain.id, now)
        .await;
    assert!(removed.unwrap());
    let keys = || async {
        let keys: i64 = sqlx::query_scalar("SELECT count(*) FROM dkim_key WHERE domain = $1")
            .bind(domain.no.0)
            .fetch_one(&platform.pool)
            .await
            .unwrap();
        keys
    };
    assert_eq!(
        keys().await,
        1,
        "mail that was accepted is still to be signed"
    );
    platform.advance(36 * 24 * HOUR).await;
    let forgotten = async {
        while keys().await > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, forgotten).await.unwrap();
    worker.stop().await;
}
