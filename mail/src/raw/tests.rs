//! What becomes of finished messages, field by field and octet by octet.

use std::collections::BTreeMap;
use std::path::PathBuf;

use proptest::prelude::*;
use time::macros::datetime;

use super::*;
use crate::dkim::body_hash;
use crate::domain_name::DomainName;
use crate::ids::MessageId;

fn fields(to: &[String]) -> RawFields<'_> {
    static NO_METADATA: BTreeMap<String, String> = BTreeMap::new();
    RawFields {
        from: None,
        to,
        handling: HandlingFields {
            tags: &[],
            metadata: &NO_METADATA,
            stream: None,
            pool: None,
            send_at: None,
            expires_in: None,
            require_tls: false,
        },
    }
}

fn parse(octets: &[u8]) -> Result<RawMessage, Vec<FieldError>> {
    RawMessage::parse(octets, fields(&[]), &Limits::default())
}

fn composed(octets: &[u8]) -> (MessageSummary, Composed) {
    let domain = DomainName::parse("acme.example").unwrap();
    let context = ComposeContext {
        message_id: MessageId::from_time_and_random(1_790_000_000_000, [7; 10]),
        date: datetime!(2026-09-21 14:13:20 UTC),
        message_id_domain: &domain,
    };
    parse(octets).unwrap().compose(&context).unwrap()
}

/// Pointer, code and the octet the detail names.
fn refused(octets: &[u8]) -> (String, &'static str, Option<usize>) {
    let errors = parse(octets).unwrap_err();
    let offset = errors[0].detail.strip_prefix("octet ");
    let offset = offset.and_then(|rest| rest.split(':').next()?.parse().ok());
    (errors[0].pointer.clone(), errors[0].code, offset)
}

#[test]
fn what_is_missing_is_added_and_what_nobody_may_see_goes() {
    let raw = b"Return-Path: <x@y.example>\r\nAuthentication-Results: y.example; spf=pass\r\nFrom: =?utf-8?q?Ac?=\r\n =?utf-8?q?me?= <hello@acme.example>\r\n\
        To: Ana <ana@example.com>\r\nBcc: hidden@example.com,\r\n other@example.com\r\n\
        X-Postrider-Tag: t\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n\r\n.body\r\n  \r\n";
    let (summary, composed) = composed(raw);
    let expected = "From: =?utf-8?q?Ac?=\r\n =?utf-8?q?me?= <hello@acme.example>\r\n\
        To: Ana <ana@example.com>\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n\
        Date: Mon, 21 Sep 2026 14:13:20 +0000\r\n\
        Message-ID: <01m3250v00ew3re1r70w3ge100@acme.example>\r\n\r\n.body\r\n  \r\n";
    assert_eq!(String::from_utf8(composed.bytes.clone()).unwrap(), expected);
    assert_eq!(composed.body(), b".body\r\n  \r\n");
    assert!(composed.header_block().ends_with(b"acme.example>\r\n"));
    assert_eq!(summary.from.to_string(), "Acme <hello@acme.example>");
    assert_eq!(summary.subject.as_str(), "Grüße");
    let recipients: Vec<String> = summary.recipients.iter().map(ToString::to_string).collect();
    let expected = ["ana@example.com", "hidden@example.com", "other@example.com"];
    assert_eq!(recipients, expected);
}

#[test]
fn what_is_there_stays() {
    let raw = b"DKIM-Signature: v=1; d=other.example; b=x\r\nfrom : a@acme.example\r\nto: b@c.example\r\n\
        date: Mon, 1 Jan 2024 00:00:00 +0000\r\nMESSAGE-ID:\r\n <own@acme.example>\r\n\r\nx";
    let (_, composed) = composed(raw);
    assert_eq!(composed.bytes, raw);
    assert_eq!(composed.rfc_message_id, "<own@acme.example>");
    // The transport ends the last line; the hash is that of a body with an end.
    assert_eq!(body_hash(composed.body()), body_hash(b"x\r\n"));
}

#[test]
fn empty_fields_count_as_missing_and_a_body_may_be_too() {
    for raw in [
        &b"From: a@acme.example\r\nTo: b@c.example\r\nDate:\r\nMessage-ID: \r\n\r\n"[..],
        b"From: a@acme.example\r\nTo: b@c.example\r\n",
        b"From: a@acme.example\r\nTo: b@c.example",
    ] {
        let (summary, composed) = composed(raw);
        let text = String::from_utf8(composed.bytes.clone()).unwrap();
        assert_eq!(text.matches("Date:").count(), 1, "{text}");
        assert_eq!(text.matches("Message-ID:").count(), 1, "{text}");
        assert!(text.ends_with("\r\n\r\n"), "{text}");
        assert!(composed.body().is_empty());
        assert_eq!(summary.subject.as_str(), "");
    }
}

#[test]
fn octets_that_servers_read_differently_are_refused_with_their_place() {
    let head = "From: a@acme.example\r\nTo: b@c.example\r\n\r\n";
    let check = |body: &[u8], code: &'static str, offset: usize| {
        let raw = [head.as_bytes(), body].concat();
        let expected = (String::new(), code, Some(head.len() + offset));
        assert_eq!(refused(&raw), expected);
    };
    check(b"a\nb", "bare_lf", 1);
    check(b"a\r\r\nb", "bare_cr", 1);
    check(b"a\rb", "bare_cr", 1);
    check(b"ab\r", "bare_cr", 2);
    check(b"\r\n.\n", "bare_lf", 3);
    check(b"a\0b", "nul", 1);
    check(&[b"x\r\n", &[b'y'; 999][..]].concat(), "line_too_long", 3);
    assert!(parse(&[head.as_bytes(), &[b'y'; 998]].concat()).is_ok());
    assert!(parse(&[head.as_bytes(), "8 bit: é\r\n".as_bytes()].concat()).is_ok());
    assert_eq!(
        refused(b"From: a@b.example\nTo: c@d.example\n\nx").1,
        "bare_lf"
    );
}

#[test]
fn the_sender_is_one_mailbox_beyond_doubt() {
    let check = |from: &str, code: &'static str| {
        let raw = format!("{from}To: b@c.example\r\n\r\nx");
        let expected = ("/headers/From".to_owned(), code, None);
        assert_eq!(refused(raw.as_bytes()), expected, "{from}");
    };
    check("", "required");
    check("From:\r\n", "required");
    check("From: Team:;\r\n", "required");
    check("From: a@b.example, c@d.example\r\n", "several_senders");
    check(
        "From: a@b.example\r\nFROM : c@d.example\r\n",
        "duplicate_header",
    );
    check("From: nobody\r\n", "invalid_address");
    check(
        "From: a@b.example <c@d.example> e@f.example\r\n",
        "invalid_address",
    );
    check("From: <a@b.example\r\n", "invalid_address");
}

#[test]
fn whoever_readers_show_as_sender_is_told() {
    let senders = |fields: &str| {
        let raw = format!("From: a@b.example\r\nTo: b@c.example\r\n{fields}\r\nx");
        parse(raw.as_bytes()).map(|message| {
            let senders = message.other_senders();
            senders.map(ToString::to_string).collect::<Vec<_>>()
        })
    };
    assert_eq!(senders("").unwrap(), [""; 0]);
    assert_eq!(
        senders("Sender: Boss <ceo@bank.example>\r\n").unwrap(),
        ["ceo@bank.example"]
    );
    let resent = "Resent-From: x@y.example, v@w.example\r\nRESENT-sender: p@q.example\r\n";
    assert_eq!(
        senders(resent).unwrap(),
        ["x@y.example", "v@w.example", "p@q.example"]
    );
    let wrong = senders("Sender: nobody\r\n").unwrap_err();
    assert_eq!(
        (wrong[0].pointer.as_str(), wrong[0].code),
        ("/headers/Sender", "invalid_address")
    );
}

#[test]
fn a_header_has_a_form() {
    let check = |extra: &str, code: &'static str| {
        let raw = format!("From: a@b.example\r\nTo: c@d.example\r\n{extra}\r\nx");
        assert_eq!(refused(raw.as_bytes()).1, code, "{extra}");
    };
    check("no colon\r\n", "malformed_header");
    check("Subject: a\r\n \t \r\n", "malformed_header");
    check("Subject: a\r\nsubject: b\r\n", "duplicate_header");
    check("Subject: café\r\n", "header_not_ascii");
    check(&"X: y\r\n".repeat(600), "too_many_fields");
    check(
        &format!("{}\r\n", "X: y\r\n z\r\n".repeat(40_000).trim_end()),
        "header_too_long",
    );
    assert_eq!(refused(b"\r\nFrom: a@b.example\r\n").1, "required");
    assert_eq!(refused(b"").1, "required");
    assert_eq!(refused(&b"X: y\r\n".repeat(100_000)).1, "header_too_long");
    let raw = "From: jos\u{e9}@b.example\r\nTo: c@d.example\r\nSubject: café\r\n\r\n";
    assert!(composed(raw.as_bytes()).1.needs_smtputf8);
}

#[test]
fn the_envelope_may_be_given() {
    let raw = b"From: a@acme.example\r\nTo: this is no list\r\n\r\nx";
    assert_eq!(refused(raw).0, "/headers/To");
    let given = [
        "One <one@x.example>, two@x.example".to_owned(),
        "one@x.example".to_owned(),
    ];
    let request = RawFields {
        from: Some("bounce@acme.example"),
        ..fields(&given)
    };
    let message = RawMessage::parse(raw, request, &Limits::default()).unwrap();
    let recipients = &message.summary().recipients;
    assert_eq!(recipients.len(), 2);
    let envelope_from = message.other_senders().next().map(ToString::to_string);
    assert_eq!(envelope_from.as_deref(), Some("bounce@acme.example"));

    let wrong = ["x".to_owned(), "a@b.example\r\nDATA".to_owned()];
    let request = RawFields {
        from: Some("a@b.example, c@d.example"),
        handling: HandlingFields {
            send_at: Some("soon"),
            ..fields(&[]).handling
        },
        to: &wrong,
    };
    let errors = RawMessage::parse(b"From: x\r\n\r\n", request, &Limits::default()).unwrap_err();
    let pointers: Vec<&str> = errors.iter().map(|error| error.pointer.as_str()).collect();
    assert_eq!(
        pointers,
        ["/from", "/to/0", "/to/1", "/send_at", "/headers/From"]
    );
    let many: Vec<String> = (0..51).map(|n| format!("u{n}@x.example")).collect();
    let errors = RawMessage::parse(raw, fields(&many), &Limits::default()).unwrap_err();
    assert_eq!(errors[0].code, "too_many_recipients");
    let raw = b"From: a@acme.example\r\n\r\nx";
    assert_eq!(refused(raw), ("/to".to_owned(), "required", None));
}

#[test]
fn hostile_messages_are_taken_or_refused() {
    let folder =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpora/hostile/mime");
    let Ok(files) = std::fs::read_dir(&folder) else {
        eprintln!("SKIPPED: {} cannot be read", folder.display());
        return;
    };
    let to = ["c@d.example".to_owned()];
    let mut taken = 0;
    for file in files.map(|file| file.unwrap().path()) {
        let octets = std::fs::read(&file).unwrap();
        let mut crlf = Vec::with_capacity(octets.len());
        for line in octets.split_inclusive(|octet| *octet == b'\n') {
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            crlf.extend_from_slice(line.strip_suffix(b"\r").unwrap_or(line));
            crlf.extend_from_slice(b"\r\n");
        }
        for octets in [octets, crlf] {
            if let Ok(message) = RawMessage::parse(&octets, fields(&to), &Limits::default()) {
                let body = octets.windows(4).position(|four| four == b"\r\n\r\n");
                let body = body.map_or(&b""[..], |at| &octets[at + 4..]);
                assert!(message.octets.ends_with(body), "{}", file.display());
                taken += 1;
            }
        }
    }
    assert!(taken >= 10, "{taken}");
}

proptest! {
    #[test]
    fn a_body_is_never_changed(body in "(\r\n|\\.| |a|é|-|--b){0,60}", subject in "[ -~]{0,60}") {
        let raw = format!("From: a@acme.example\r\nSubject: {subject}\r\nTo: b@c.example\r\n\r\n{body}");
        let (_, composed) = composed(raw.as_bytes());
        prop_assert_eq!(composed.body(), body.as_bytes());
        prop_assert!(composed.header_block().is_ascii());
    }

    #[test]
    fn any_octets_are_taken_or_refused(
        octets in "(From: |To: |a@b\\.example|\r\n|\r|\n|,|<|>|\\(|\"|=\\?utf-8\\?q\\?x\\?=| |\\PC|:){0,40}",
    ) {
        let _ = parse(octets.as_bytes());
    }
}
