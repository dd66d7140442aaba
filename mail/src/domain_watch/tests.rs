//! What takes a domain its proof, and what does not.

use time::macros::datetime;

use super::RecordStatus::*;
use super::*;

const NOW: OffsetDateTime = datetime!(2026-11-22 12:00 UTC);

fn standing(status: DomainStatus) -> DomainStanding {
    DomainStanding {
        status,
        vouched: false,
        registered_at: NOW - Duration::hours(1),
        misses: 0,
        return_path_from: None,
        return_path_misses: 0,
    }
}

fn outcome(signing: RecordStatus) -> Outcome {
    Outcome {
        signing,
        waiting: None,
        return_path: None,
    }
}

fn scheduled(before: &DomainStanding, signing: RecordStatus) -> Decision {
    decide(before, &outcome(signing), Occasion::Scheduled, NOW, 0.0)
}

#[test]
fn a_proof_verifies_whatever_was_before() {
    for status in [DomainStatus::Pending, DomainStatus::Failed] {
        for occasion in [Occasion::Asked, Occasion::Scheduled] {
            let decision = decide(&standing(status), &outcome(Found), occasion, NOW, 0.0);
            assert_eq!(decision.standing.status, DomainStatus::Verified);
            assert_eq!(decision.event, Some(EventType::DomainVerified));
            assert_eq!(decision.check_at, Some(NOW + Duration::hours(24)));
        }
    }
    let again = scheduled(&standing(DomainStatus::Verified), Found);
    assert_eq!(again.event, None);
}

#[test]
fn three_scheduled_misses_in_a_row_fail_a_verified_domain() {
    let mut at = standing(DomainStatus::Verified);
    for absent in [Missing, Mismatch] {
        let decision = scheduled(&at, absent);
        assert_eq!(decision.standing.status, DomainStatus::Verified);
        assert_eq!(decision.check_at, Some(NOW + Duration::hours(8)));
        at = decision.standing;
    }
    // Neither impatience nor a DNS that is down is the third.
    for decision in [
        decide(&at, &outcome(Missing), Occasion::Asked, NOW, 0.0),
        scheduled(&at, Unknown),
    ] {
        assert_eq!(decision.standing, at);
    }
    let failed = scheduled(&at, Missing);
    assert_eq!(failed.standing.status, DomainStatus::Failed);
    assert_eq!(failed.event, Some(EventType::DomainFailed));
    assert_eq!(failed.check_at, None);
    assert_eq!(scheduled(&at, Found).standing.misses, 0);
}

#[test]
fn a_dns_that_cannot_tell_fails_nobody() {
    let mut at = standing(DomainStatus::Verified);
    for _ in 0..50 {
        at = scheduled(&at, Unknown).standing;
    }
    assert_eq!(at, standing(DomainStatus::Verified));
    let mut late = standing(DomainStatus::Pending);
    late.registered_at = NOW - Duration::days(30);
    let decision = scheduled(&late, Unknown);
    assert_eq!(decision.standing.status, DomainStatus::Pending);
    assert!(decision.check_at.is_some());
}

#[test]
fn a_vouched_domain_cannot_be_failed_by_records() {
    let mut at = standing(DomainStatus::Verified);
    at.vouched = true;
    for _ in 0..9 {
        at = scheduled(&at, Missing).standing;
    }
    assert_eq!((at.status, at.misses), (DomainStatus::Verified, 0));
}

#[test]
fn a_pending_domain_is_looked_at_less_and_less_and_fails_after_three_days() {
    let mut at = standing(DomainStatus::Pending);
    (at.registered_at, at.misses) = (NOW, 0);
    let (mut now, mut checks, mut last) = (NOW, 0, Duration::ZERO);
    loop {
        let decision = decide(&at, &outcome(Missing), Occasion::Scheduled, now, 0.5);
        let Some(next) = decision.check_at else {
            assert_eq!(decision.event, Some(EventType::DomainFailed));
            break;
        };
        (last, now, checks) = (next - now, next, checks + 1);
    }
    assert!(
        now >= NOW + PROOF_DUE && now < NOW + PROOF_DUE + Duration::hours(7),
        "{now}"
    );
    assert!((20..80).contains(&checks), "{checks}");
    assert!(last <= PENDING_PAUSE_MAX * 2);
    let asked = decide(&at, &outcome(Missing), Occasion::Asked, now, 0.0);
    assert_eq!(asked.standing.status, DomainStatus::Pending);
}

#[test]
fn a_new_key_signs_once_its_record_is_there() {
    let rotating = |waiting| Outcome {
        waiting: Some(("prnew".to_owned(), waiting)),
        ..outcome(Found)
    };
    let verified = standing(DomainStatus::Verified);
    let look = |outcome: &Outcome| decide(&verified, outcome, Occasion::Scheduled, NOW, 0.0);
    let not_yet = look(&rotating(Missing));
    assert_eq!((not_yet.activate, not_yet.standing.misses), (None, 0));
    assert_eq!(not_yet.check_at, Some(NOW + Duration::minutes(30)));
    let there = look(&rotating(Found));
    assert_eq!(there.activate.as_deref(), Some("prnew"));
    // The new record proves the domain even when the old one is gone already.
    let mut moved = rotating(Found);
    moved.signing = Missing;
    assert_eq!(look(&moved).standing, verified);
}

#[test]
fn the_return_path_comes_a_little_later_and_goes_after_three_misses() {
    let with = |found| Outcome {
        return_path: Some(found),
        ..outcome(Found)
    };
    let look = |at: &DomainStanding, found, occasion| {
        decide(at, &with(found), occasion, NOW, 0.0).standing
    };
    let none = standing(DomainStatus::Verified);
    let mut at = look(&none, Found, Occasion::Asked);
    let from = at.return_path_from.unwrap();
    assert!(from > NOW);
    for (found, misses) in [
        (Missing, 1),
        (Unknown, 1),
        (Mismatch, 2),
        (Found, 0),
        (Missing, 1),
    ] {
        at = look(&at, found, Occasion::Scheduled);
        assert_eq!(
            (at.return_path_from, at.return_path_misses),
            (Some(from), misses)
        );
    }
    assert_eq!(look(&at, Missing, Occasion::Asked), at);
    at = look(&at, Missing, Occasion::Scheduled);
    at = look(&at, Missing, Occasion::Scheduled);
    assert_eq!(at, none);
    // A domain that never had one is not looked at more often for it.
    assert_eq!(look(&none, Missing, Occasion::Scheduled), none);
}

#[test]
fn words_lead_back() {
    for status in [
        DomainStatus::Pending,
        DomainStatus::Verified,
        DomainStatus::Failed,
    ] {
        assert_eq!(status.as_str().parse(), Ok(status));
    }
    assert!("lost".parse::<DomainStatus>().is_err());
}
