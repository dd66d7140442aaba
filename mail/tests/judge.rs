//! Replies and failures become the outcome a postmaster would expect.

#![allow(clippy::unwrap_used)]

use mail::bounce_class::{BounceClass, BounceGroup, SuppressionRule};
use mail::judge::{Failure, FailureScope, Outcome, Stage, class_of, judge_failure, judge_reply};
use mail::reply::Reply;

fn shown(outcome: Outcome) -> String {
    match outcome {
        Outcome::Delivered => "delivered".into(),
        Outcome::Deferred { class, .. } => format!("deferred: {class}"),
        Outcome::Bounced { class, .. } => format!("bounced: {class}"),
    }
}

#[track_caller]
fn check(stage: Stage, reply: &str, expected: &str) {
    let parsed = Reply::from_diagnostic(reply).unwrap();
    assert_eq!(
        shown(judge_reply(stage, &parsed)),
        expected,
        "{stage:?} {reply}"
    );
}

#[test]
fn success_is_a_2xx_to_the_final_dot_only() {
    check(Stage::Dot, "250 2.0.0 OK", "delivered");
    check(Stage::Dot, "250 spam spam spam, queued", "delivered");
    check(Stage::Data, "250 OK", "deferred: protocol_error");
    check(Stage::Dot, "354 go on", "deferred: protocol_error");
}

#[test]
fn the_first_digit_decides_about_permanence() {
    check(
        Stage::Rcpt,
        "450 4.1.1 user unknown",
        "deferred: invalid_recipient",
    );
    check(
        Stage::Rcpt,
        "421 5.7.1 blocked using zen.example",
        "deferred: reputation_block",
    );
    check(
        Stage::Rcpt,
        "550 4.2.2 mailbox full",
        "bounced: mailbox_full",
    );
    check(Stage::Dot, "421 closing", "deferred: system_error");
    check(Stage::Rcpt, "450", "deferred: system_error");
}

#[test]
fn a_full_mailbox_may_be_tried_again() {
    check(
        Stage::Rcpt,
        "452 4.2.2 mailbox full",
        "deferred: mailbox_full",
    );
    check(
        Stage::Rcpt,
        "552 5.2.2 mailbox full",
        "deferred: mailbox_full",
    );
    check(
        Stage::Rcpt,
        "552 5.2.2 mailbox is full and inactive",
        "bounced: mailbox_full",
    );
    check(
        Stage::Dot,
        "552 5.2.2 mailbox full",
        "bounced: mailbox_full",
    );
}

#[test]
fn dead_addresses_are_recognised() {
    check(
        Stage::Rcpt,
        "550 5.1.1 <a@b.test>: no such user",
        "bounced: invalid_recipient",
    );
    check(Stage::Rcpt, "550 5.1.1", "bounced: invalid_recipient");
    check(
        Stage::Rcpt,
        "550 a@b.test does not exist",
        "bounced: invalid_recipient",
    );
    check(
        Stage::Rcpt,
        "553 b.test does not exist",
        "bounced: recipient_refused",
    );
    check(
        Stage::Rcpt,
        "554 sorry (#5.1.1)",
        "bounced: invalid_recipient",
    );
    check(
        Stage::Rcpt,
        "556 5.1.10 nothing here",
        "bounced: domain_refuses_mail",
    );
    check(
        Stage::Rcpt,
        "550 5.7.1 <spam@b.test>: user unknown",
        "bounced: invalid_recipient",
    );
}

#[test]
fn refusals_of_us_are_never_laid_on_the_recipient() {
    for reply in [
        "550 5.1.1 192.0.2.1 is listed at a blocklist",
        "550 5.7.1 message rejected by policy",
        "554 5.7.1 service unavailable; client host [192.0.2.1] blocked using bl.example",
        "550 5.1.1 your IP has a poor reputation",
        "550 5.7.26 unauthenticated email is not accepted",
        "550 no",
        "550 5.7.1",
        "554",
    ] {
        for stage in [Stage::Mail, Stage::Rcpt, Stage::Data, Stage::Dot] {
            let outcome = judge_reply(stage, &Reply::from_diagnostic(reply).unwrap());
            assert!(outcome.is_final(), "{reply}");
            assert!(!outcome.is_hard_bounce(), "{stage:?} {reply} {outcome:?}");
        }
    }
}

#[test]
fn a_refused_connection_is_not_a_refused_message() {
    check(
        Stage::Greeting,
        "554 no service for you",
        "deferred: reputation_block",
    );
    check(
        Stage::Ehlo,
        "550 5.7.1 blocked using bl.example",
        "deferred: reputation_block",
    );
    check(Stage::StartTls, "454 not now", "deferred: tls_failure");
    check(
        Stage::Greeting,
        "521 host takes no mail",
        "bounced: domain_refuses_mail",
    );
}

#[test]
fn failures_without_a_reply() {
    let check = |stage, failure, expected: &str| {
        assert_eq!(
            shown(judge_failure(stage, failure)),
            expected,
            "{failure:?}"
        );
    };
    check(
        Stage::Mail,
        Failure::EightBitMimeNotOffered,
        "bounced: content_rejected",
    );
    check(
        Stage::Resolve,
        Failure::NoSuchDomain,
        "bounced: invalid_domain",
    );
    check(
        Stage::Resolve,
        Failure::NullMx,
        "bounced: domain_refuses_mail",
    );
    check(
        Stage::Resolve,
        Failure::DnsTrouble,
        "deferred: network_error",
    );
    check(
        Stage::Connect,
        Failure::ConnectionRefused,
        "deferred: network_error",
    );
    check(
        Stage::Dot,
        Failure::ConnectionLost,
        "deferred: network_error",
    );
    check(Stage::Rcpt, Failure::TimedOut, "deferred: network_error");
    check(Stage::Mail, Failure::BadReply, "deferred: protocol_error");
    check(Stage::StartTls, Failure::TlsFailed, "deferred: tls_failure");
    check(
        Stage::Ehlo,
        Failure::TooBigForServer,
        "bounced: message_too_big",
    );
}

#[test]
fn the_scope_says_who_suffers() {
    let check = |reply: &str, expected| {
        let outcome = judge_reply(Stage::Rcpt, &Reply::from_diagnostic(reply).unwrap());
        assert_eq!(outcome.scope(), Some(expected), "{reply}");
    };
    check("550 5.1.1 user unknown", FailureScope::Recipient);
    check(
        "421 4.7.0 too many connections from your IP",
        FailureScope::SourceAtSite,
    );
    check(
        "421 4.7.28 unusual rate from your DKIM domain",
        FailureScope::AccountAtSite,
    );
    check(
        "450 4.2.1 the user is receiving mail at a rate",
        FailureScope::Recipient,
    );
    check("550 5.7.25 no PTR record", FailureScope::Source);
    check("550 5.7.26 DMARC", FailureScope::AccountAtSite);
    check("552 5.3.4 message too large", FailureScope::Message);
    check("550 5.1.2 no such domain", FailureScope::Domain);
}

/// Counts over the corpus; the floors are what the rules reach, so that a new rule cannot make
/// them worse unnoticed.
#[test]
fn agreement_with_the_reply_corpus() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../shared/corpora/replies/replies.jsonl"
    );
    let Ok(corpus) = std::fs::read_to_string(path) else {
        eprintln!("SKIPPED: {path} is absent");
        return;
    };
    let (mut rows, mut class_right, mut group_right, mut hard_right) = (0, 0, 0, 0);
    let (mut class_exact, mut false_hard) = (0, 0);
    for line in corpus.lines() {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        let text = row["text"].as_str().unwrap();
        let reply = Reply::from_diagnostic(text).unwrap();
        let outcome = if reply.is_positive() {
            judge_reply(Stage::Dot, &reply)
        } else {
            judge_reply(Stage::Rcpt, &reply)
        };
        let class = outcome.class();
        assert!(
            !reply.is_transient() || !outcome.is_final(),
            "4xx bounced: {text}"
        );
        let accepted = |value: &str| {
            let also = row["also_acceptable"].as_array().unwrap();
            row["class"] == value || also.iter().any(|other| other == value)
        };
        rows += 1;
        let exact = row["class"] == class.as_str();
        class_right += u32::from(accepted(class.as_str()));
        let group_fits = row["group"] == class.group().as_str() || accepted(class.as_str());
        group_right += u32::from(group_fits);
        let hard = outcome.is_hard_bounce();
        hard_right += u32::from(row["hard"] == hard);
        false_hard += u32::from(hard && row["hard"] == false);
        class_exact += u32::from(exact);
        if !accepted(class.as_str()) {
            eprintln!("{} wanted, {class} given: {text:.140}", row["class"]);
        }
    }
    let percent = |count: u32| f64::from(count) * 100.0 / f64::from(rows);
    eprintln!(
        "{rows} replies: class {:.1} % ({:.1} % exactly), group {:.1} %, hard {:.1} %, wrongly hard {false_hard}",
        percent(class_right),
        percent(class_exact),
        percent(group_right),
        percent(hard_right)
    );
    assert!(percent(class_right) >= 97.0);
    assert!(percent(group_right) >= 97.0);
    assert!(percent(hard_right) >= 99.0);
    assert_eq!(
        false_hard, 0,
        "an address must never be suppressed by mistake"
    );
}

#[test]
fn only_dead_addresses_and_complaints_suppress_at_once() {
    let reply = Reply::from_diagnostic("550 5.2.1 mailbox disabled").unwrap();
    let class = class_of(Stage::Rcpt, &reply);
    assert_eq!(class, BounceClass::InactiveMailbox);
    assert_eq!(class.group(), BounceGroup::Soft);
    assert!(matches!(
        class.suppression(),
        SuppressionRule::AfterRepeats { .. }
    ));
}
