//! Our signatures verify with another implementation, and stop doing so when mail is changed.

#![allow(clippy::unwrap_used)]

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::sync::{Arc, LazyLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use hickory_resolver::TokioResolver;
use mail::compose::{ComposeContext, Composed};
use mail::dkim::{DkimError, Signer, SigningKey, body_hash};
use mail::domain_name::DomainName;
use mail::handling::HandlingFields;
use mail::ids::MessageId;
use mail::message::Limits;
use mail::raw::{RawFields, RawMessage};
use mail_auth::common::parse::TxtRecordParser;
use mail_auth::common::verify::DomainKey;
use mail_auth::{
    AuthenticatedMessage, DkimResult, MessageAuthenticator, Parameters, ResolverCache, Txt,
};

use time::OffsetDateTime;

/// The zone of the test: every TXT record the verifier will ask for.
struct Zone(HashMap<Box<str>, Txt>);

impl ResolverCache<Box<str>, Txt> for Zone {
    fn get<Q>(&self, name: &Q) -> Option<Txt>
    where
        Box<str>: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.0.get(name).cloned()
    }

    fn remove<Q>(&self, _: &Q) -> Option<Txt>
    where
        Box<str>: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        None
    }

    fn insert(&self, _: Box<str>, _: Txt, _: Instant) {}
}

static RSA: LazyLock<Signer> = LazyLock::new(|| signer("rsa1", SigningKey::generate_rsa_2048()));
static ED25519: LazyLock<Signer> = LazyLock::new(|| signer("ed1", SigningKey::generate_ed25519()));

fn signer(selector: &str, key: Result<SigningKey, mail::dkim::DkimKeyError>) -> Signer {
    let domain = DomainName::parse("acme.example").unwrap();
    Signer::new(domain, selector, key.unwrap()).unwrap()
}

fn zone() -> Zone {
    let record = |signer: &Signer| {
        let name = format!(
            "{}._domainkey.{}.",
            signer.selector(),
            signer.domain().as_str()
        );
        let key = DomainKey::parse(signer.key().public_txt().unwrap().as_bytes()).unwrap();
        (name.into_boxed_str(), Txt::DomainKey(Arc::new(key)))
    };
    Zone(HashMap::from([record(&RSA), record(&ED25519)]))
}

/// The verifier reads the system clock, so the signatures must be of its time.
#[allow(clippy::disallowed_methods)]
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_secs()).unwrap()
}

/// The results of all signatures, top down.
fn verify(mail: &str) -> Vec<bool> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let resolver = TokioResolver::builder_tokio().unwrap().build().unwrap();
        let message = AuthenticatedMessage::parse(mail.as_bytes()).unwrap();
        let zone = zone();
        let parameters = Parameters::new(&message).with_txt_cache(&zone);
        let outputs = MessageAuthenticator(resolver).verify_dkim(parameters).await;
        outputs
            .iter()
            .map(|output| *output.result() == DkimResult::Pass)
            .collect()
    })
}

const HEADERS: &str = "List-Unsubscribe: <https://u.acme.example/x>\r\n\
    List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n\
    Feedback-ID: c:a:t:acme1\r\n\
    From: Acme <hello@acme.example>\r\n\
    To: Ana <ana@example.com>\r\n\
    Subject: A subject that is folded\r\n \tand goes   on\r\n\
    Date: Sun, 22 Nov 2026 09:00:00 +0000\r\n\
    Message-ID: <1@acme.example>\r\n\
    MIME-Version: 1.0\r\n\
    Content-Type: text/plain; charset=utf-8\r\n\
    X-Order: 7\r\n";
const BODY: &str = "Hello  Ana,\r\n\r\nsee you.\r\n";

fn signed(signer: &Signer, body: &str) -> String {
    let at = now();
    let field = signer
        .sign(
            HEADERS.as_bytes(),
            &body_hash(body.as_bytes()),
            at,
            Some(at + 604_800),
        )
        .unwrap();
    format!("{field}{HEADERS}\r\n{body}")
}

#[test]
fn both_algorithms_verify() {
    assert_eq!(verify(&signed(&RSA, BODY)), [true]);
    assert_eq!(verify(&signed(&ED25519, BODY)), [true]);
}

/// Finished messages keep their octets, so the signature has to fit whatever they are.
#[test]
fn finished_messages_verify_as_they_are() {
    for body in [
        "",
        "x",
        "x\r\n",
        ".x \t y\r\n\r\n\r\n",
        "8 bit: é\r\n",
        "\r\n\r\n",
        "a\r\n \r\nb\r\n",
    ] {
        let raw = format!(
            "Bcc: b@c.example\r\nSubject: two\r\n\tlines \r\nFrom: a@acme.example\r\n\r\n{body}"
        );
        let composed = finished(&raw);
        let block = composed.header_block();
        let signature = RSA.sign(block, &body_hash(composed.body()), now(), None);
        let mail = [signature.unwrap().as_bytes(), &composed.bytes].concat();
        assert_eq!(
            verify(std::str::from_utf8(&mail).unwrap()),
            [true],
            "{body:?}"
        );
    }
    // RFC 6376 section 3.4.4: white space lines at the end do not count. mail-auth counts them, so
    // it cannot be asked.
    let hash_of = |body: &str| {
        let composed = finished(&format!(
            "From: a@acme.example\r\nTo: b@c.example\r\n\r\n{body}"
        ));
        assert_eq!(composed.body(), body.as_bytes());
        body_hash(composed.body())
    };
    assert_eq!(hash_of("x\r\n \t\r\n\r\n  "), hash_of("x\r\n"));
}

fn finished(raw: &str) -> Composed {
    let fields = RawFields {
        from: None,
        to: &["b@c.example".to_owned()],
        handling: HandlingFields {
            tags: &[],
            metadata: &BTreeMap::new(),
            stream: None,
            pool: None,
            send_at: None,
            expires_in: None,
            require_tls: false,
        },
    };
    let message = RawMessage::parse(raw.as_bytes(), fields, &Limits::default()).unwrap();
    let context = ComposeContext {
        message_id: MessageId::from_time_and_random(1_790_000_000_000, [7; 10]),
        date: OffsetDateTime::from_unix_timestamp(now()).unwrap(),
        message_id_domain: RSA.domain(),
    };
    message.compose(&context).unwrap().1
}

#[test]
fn two_signatures_on_one_mail_both_verify() {
    let inner = signed(&RSA, BODY);
    let second = ED25519
        .sign(HEADERS.as_bytes(), &body_hash(BODY.as_bytes()), now(), None)
        .unwrap();
    assert_eq!(verify(&format!("{second}{inner}")), [true, true]);
}

#[test]
fn what_receivers_may_change_does_not_matter() {
    let mail = signed(&RSA, BODY);
    assert_eq!(verify(&mail.replace("Subject: A", "SUBJECT:  A")), [true]);
    assert_eq!(
        verify(&mail.replace("see you.\r\n", "see you. \t\r\n\r\n")),
        [true]
    );
    assert_eq!(verify(&mail.replace("X-Order: 7", "X-Order: 8")), [true]);
    assert_eq!(verify(&format!("Received: from x by y\r\n{mail}")), [true]);
}

#[test]
fn tampering_breaks_the_signature() {
    for signer in [&*RSA, &*ED25519] {
        let mail = signed(signer, BODY);
        assert_eq!(verify(&mail.replace("see you", "see me")), [false]);
        assert_eq!(verify(&mail.replace("ana@example", "eve@example")), [false]);
        assert_eq!(verify(&mail.replace("One-Click", "Two-Click")), [false]);
        assert_eq!(verify(&mail.replace("c:a:t:acme1", "c:a:t:acme2")), [false]);
        assert_eq!(verify(&format!("{mail}p.s.\r\n")), [false]);
    }
}

#[test]
fn a_second_field_of_an_oversigned_name_breaks_the_signature() {
    for added in [
        "From: eve@x.test",
        "Subject: x",
        "Cc: eve@x.test",
        "Reply-To: eve@x.test",
    ] {
        let mail = signed(&RSA, BODY);
        assert_eq!(verify(&format!("{added}\r\n{mail}")), [false], "{added}");
    }
}

/// mail-auth 0.13.3 keeps lines of white space at the end of a body, RFC 6376 section 3.4.4 and
/// every other verifier drop them; so the check goes through the body as a receiver reduces it.
#[test]
fn trailing_lines_of_white_space_do_not_matter() {
    let untidy = "hello\r\n  \r\n\t\r\n";
    let mail = signed(&RSA, untidy);
    assert_eq!(body_hash(untidy.as_bytes()), body_hash(b"hello\r\n"));
    assert_eq!(verify(&mail.replace(untidy, "hello\r\n")), [true]);
}

#[test]
fn empty_bodies_verify() {
    assert_eq!(verify(&signed(&RSA, "")), [true]);
}

#[test]
fn the_field_is_folded_and_covers_what_it_should() {
    let at = now();
    let field = RSA
        .sign(HEADERS.as_bytes(), &body_hash(b""), at, Some(at + 60))
        .unwrap();
    assert!(field.starts_with("DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed;\r\n\td="));
    assert!(field.ends_with("\r\n"));
    for line in field.trim_end().split("\r\n") {
        assert!(line.len() <= 78 && !line.contains(['\r', '\n']), "{line}");
    }
    let flat: String = field.split_whitespace().collect();
    let expected = "h=From:From:To:To:Cc:Subject:Subject:Date:Date:Reply-To:Content-Type:\
        Content-Type:Message-ID:MIME-Version:List-Unsubscribe:List-Unsubscribe-Post:Feedback-ID;";
    assert!(flat.contains(expected), "{flat}");
    assert!(!flat.contains(";l="));
    assert!(flat.contains(&format!("t={at};x={};", at + 60)));
}

#[test]
fn what_cannot_be_signed_is_refused() {
    let hash = body_hash(b"");
    let sign = |headers: &str, expires_at| RSA.sign(headers.as_bytes(), &hash, 100, expires_at);
    assert_eq!(sign("To: a@b.test\r\n", None), Err(DkimError::NoFrom));
    assert_eq!(
        sign("From: a@b.test\r\nrubbish\r\n", None),
        Err(DkimError::BadHeaderBlock { offset: 16 })
    );
    assert_eq!(
        sign("From: a@b.test\r\n", Some(100)),
        Err(DkimError::ExpiresTooEarly)
    );
    let domain = DomainName::parse("acme.example").unwrap();
    let key = SigningKey::from_ed25519_seed(&[1; 32]).unwrap();
    assert!(matches!(
        Signer::new(domain, "a;b", key),
        Err(DkimError::BadSelector(_))
    ));
}
