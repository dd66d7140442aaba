//! The sandbox takes what the platform sends, says what a receiver would find about it, and
//! refuses the way receivers do.

#![allow(clippy::unwrap_used)]

mod sandboxed;

use std::time::Instant;

use sandboxed::{RECIPIENT, REVERSE_PATH, Sandboxed};

const UNSIGNED: &[u8] = b"From: Ana <ana@acme.test>\r\nSubject: x\r\n\r\nHello\r\n";

/// As text, to change it; composed mail is ASCII.
async fn signed(sandbox: &Sandboxed) -> String {
    String::from_utf8(sandbox.signed("Hello,\nyour order is on its way.").await).unwrap()
}

#[tokio::test]
async fn what_we_sign_passes_and_is_kept_octet_for_octet() {
    let Some(sandbox) = Sandboxed::start(|_| {}).await else {
        return;
    };
    let mail = sandbox.signed(".\nHello  Ana\n..dots\n").await;
    assert_eq!(
        sandbox.send(REVERSE_PATH, RECIPIENT, &mail).await,
        "250 2.0.0"
    );
    let kept = sandbox.kept().await;
    assert_eq!(kept.len(), 1);
    assert_eq!(kept[0].raw, mail);
    assert_eq!(kept[0].helo, "out.acme.test");
    assert_eq!(kept[0].mail_from, REVERSE_PATH);
    assert_eq!(kept[0].recipients, [RECIPIENT]);
    assert_eq!(
        kept[0].authentication_results,
        "sandbox.test; dkim=pass header.d=acme.test header.s=k1; \
         spf=none (the sandbox asks no DNS) smtp.mailfrom=b+1@bounce.acme.test; \
         dmarc=pass (by DKIM; no policy looked up) header.from=acme.test"
    );
    sandbox.stop().await;
}

#[tokio::test]
async fn what_was_changed_on_the_way_does_not_pass() {
    let Some(sandbox) = Sandboxed::start(|_| {}).await else {
        return;
    };
    let mail = signed(&sandbox).await;
    let signer = "header.d=acme.test header.s=k1";
    let body = mail.replace("your order is", "your order was");
    let expected = format!("dkim=fail (the body was changed) {signer}");
    assert_eq!(sandbox.dkim_of(body.as_bytes()).await, expected);
    let results = sandbox.kept().await[0].authentication_results.clone();
    assert!(results.contains("; dmarc=fail "), "{results}");

    let header = mail.replace("Subject: Your order", "Subject: Your prize");
    let expected =
        format!("dkim=fail (the header was changed or signed with another key) {signer}");
    assert_eq!(sandbox.dkim_of(header.as_bytes()).await, expected);

    let key = mail.replace("\ts=k1;", "\ts=k2;");
    assert_ne!(key, mail);
    let expected =
        "dkim=permerror (no such key on this platform) header.d=acme.test header.s=k2".to_owned();
    assert_eq!(sandbox.dkim_of(key.as_bytes()).await, expected);
    sandbox.stop().await;
}

#[tokio::test]
async fn mail_without_a_readable_signature_is_kept_as_well() {
    let Some(sandbox) = Sandboxed::start(|_| {}).await else {
        return;
    };
    assert_eq!(sandbox.dkim_of(UNSIGNED).await, "dkim=none");
    assert_eq!(sandbox.dkim_of(b"\r\n").await, "dkim=none");
    assert_eq!(
        sandbox.dkim_of(b"no header at all\r\n\xff\r\n").await,
        "dkim=none"
    );
    let garbage = [b"DKIM-Signature: v=1; a=rsa-sha256; b=%%; d=\r\n", UNSIGNED].concat();
    let found = sandbox.dkim_of(&garbage).await;
    assert!(found.starts_with("dkim=neutral ("), "{found}");
    sandbox.stop().await;
}

#[tokio::test]
async fn each_recipient_is_answered_by_its_local_part() {
    let Some(sandbox) = Sandboxed::start(|_| {}).await else {
        return;
    };
    for (recipient, expected) in [
        ("delivered@a.test", "250 2.0.0"),
        ("whoever@b.test", "250 2.0.0"),
        ("mailbox-full@a.test", "552 5.2.2"),
        ("unknown+7@a.test", "550 5.1.1"),
        ("tempfail@a.test", "451 4.3.0"),
        ("tempfail@a.test", "451 4.3.0"),
        ("spam-block@a.test", "554 5.7.1"),
        ("greylist@a.test", "451 4.7.1"),
        ("greylist@a.test", "250 2.0.0"),
        ("greylist@a.test", "250 2.0.0"),
        ("greylist.2@a.test", "451 4.7.1"),
        ("ana@unknown.sandbox.test", "550 5.1.1"),
        ("ana@mailbox-full.sandbox.test", "552 5.2.2"),
        ("ana@tempfail.sandbox.test", "451 4.3.0"),
        ("ana@spam-block.sandbox.test", "554 5.7.1"),
        ("ana@greylist.sandbox.test", "451 4.7.1"),
    ] {
        assert_eq!(
            sandbox.send(REVERSE_PATH, recipient, UNSIGNED).await,
            expected,
            "{recipient}"
        );
    }
    let other = sandbox
        .send("b+2@bounce.acme.test", "greylist@a.test", UNSIGNED)
        .await;
    assert_eq!(other, "451 4.7.1", "each message is greylisted for itself");
    assert_eq!(
        sandbox.kept().await.len(),
        4,
        "what was refused is not kept"
    );
    sandbox.stop().await;
}

#[tokio::test]
async fn reports_come_back_to_the_sender_and_nothing_answers_them() {
    let Some(sandbox) = Sandboxed::start(|_| {}).await else {
        return;
    };
    let mail = sandbox.signed("Hello").await;
    // The second sender is a mailbox that bounces later itself.
    for (sender, recipient) in [
        (REVERSE_PATH, "bounce-later+1@a.test"),
        ("bounce-later@b.test", "ana@complaint.sandbox.test"),
        (REVERSE_PATH, "complaint@a.test"),
    ] {
        assert_eq!(sandbox.send(sender, recipient, &mail).await, "250 2.0.0");
    }
    let mut kept = sandbox.kept_are(6).await;
    kept.reverse();
    let reports = &kept[3..];
    let expected = [
        (
            REVERSE_PATH,
            "message/delivery-status",
            "bounce-later+1@a.test",
        ),
        (
            "bounce-later@b.test",
            "message/feedback-report",
            "ana@complaint.sandbox.test",
        ),
        (REVERSE_PATH, "message/feedback-report", "complaint@a.test"),
    ];
    for (report, (sender, kind, recipient)) in reports.iter().zip(expected) {
        let text = String::from_utf8(report.raw.clone()).unwrap();
        assert_eq!(report.mail_from, "", "{text}");
        assert_eq!(report.recipients, [sender], "{text}");
        assert_eq!(report.helo, "sandbox.test");
        assert!(
            text.contains(&format!("\r\nContent-Type: {kind}\r\n")),
            "{text}"
        );
        assert!(
            text.contains(recipient) && text.contains("d=acme.test"),
            "{text}"
        );
    }
    // Reports leave one after the other: had one been answered, it would stand before this one.
    let last = sandbox.send(REVERSE_PATH, "complaint+last@a.test", &mail);
    assert_eq!(last.await, "250 2.0.0");
    let kept = sandbox.kept_are(8).await;
    let newest = String::from_utf8(kept[0].raw.clone()).unwrap();
    assert!(
        newest.contains("Original-Rcpt-To: <complaint+last@a.test>\r\n"),
        "{newest}"
    );
    sandbox.stop().await;
}

#[tokio::test]
async fn slow_mailboxes_answer_five_seconds_late() {
    let Some(sandbox) = Sandboxed::start(|_| {}).await else {
        return;
    };
    let begun = Instant::now();
    assert_eq!(
        sandbox.send(REVERSE_PATH, "slow@a.test", UNSIGNED).await,
        "250 2.0.0"
    );
    assert!(begun.elapsed().as_secs() >= 5);
    assert_eq!(sandbox.kept().await.len(), 1);
    sandbox.stop().await;
}

#[tokio::test]
async fn foreign_domains_are_refused_where_domains_are_given() {
    let ours = |config: &mut mta::sandbox::SandboxConfig| {
        config.domains = Some(vec!["sink.test".parse().unwrap()]);
    };
    let Some(sandbox) = Sandboxed::start(ours).await else {
        return;
    };
    assert_eq!(
        sandbox.send(REVERSE_PATH, "ana@Sink.Test", UNSIGNED).await,
        "250 2.0.0"
    );
    assert_eq!(
        sandbox
            .send(REVERSE_PATH, "ana@example.test", UNSIGNED)
            .await,
        "550 5.7.1"
    );
    assert_eq!(
        sandbox
            .send(REVERSE_PATH, "ana@x.sink.test", UNSIGNED)
            .await,
        "550 5.7.1"
    );
    sandbox.stop().await;
}

#[tokio::test]
async fn without_a_database_nothing_is_taken() {
    let Some(sandbox) = Sandboxed::start(|_| {}).await else {
        return;
    };
    let mail = sandbox.signed("Hello").await;
    sandbox.store.close().await;
    assert_eq!(
        sandbox.send(REVERSE_PATH, RECIPIENT, &mail).await,
        "451 4.3.0"
    );
    assert_eq!(
        sandbox.send(REVERSE_PATH, RECIPIENT, UNSIGNED).await,
        "451 4.3.0"
    );
    sandbox.stop().await;
}

#[tokio::test]
async fn only_the_newest_messages_stay() {
    let Some(sandbox) = Sandboxed::start(|config| config.keep = 2).await else {
        return;
    };
    for number in 1..=5 {
        let recipient = format!("ana+{number}@a.test");
        assert_eq!(
            sandbox.send(REVERSE_PATH, &recipient, UNSIGNED).await,
            "250 2.0.0"
        );
    }
    let kept = sandbox.kept_are(2).await;
    let recipients: Vec<_> = kept
        .iter()
        .map(|message| message.recipients[0].as_str())
        .collect();
    assert_eq!(recipients, ["ana+5@a.test", "ana+4@a.test"]);
    sandbox.stop().await;
}

#[tokio::test]
async fn a_message_of_forty_megabytes_is_taken() {
    let Some(sandbox) = Sandboxed::start(|_| {}).await else {
        return;
    };
    let body =
        b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcd\r\n".repeat(655_360);
    let mail = [UNSIGNED, &body].concat();
    assert_eq!(
        sandbox.send(REVERSE_PATH, RECIPIENT, &mail).await,
        "250 2.0.0"
    );
    assert!(sandbox.kept().await[0].raw == mail);
    sandbox.stop().await;
}
