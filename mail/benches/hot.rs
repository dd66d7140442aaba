//! What each message costs in pure code, part by part: `cargo bench -p mail`. One message of
//! about 5 KB with text, HTML and a few fields of its own.

#![allow(missing_docs)]

use aws_lc_rs::digest::{SHA256, digest};
use divan::{Bencher, black_box};
use mail::compose::{ComposeContext, Composed, compose};
use mail::dkim::{Signer, SigningKey, body_hash};
use mail::dkim_canon::{parse_fields, signed_octets};
use mail::domain_name::DomainName;
use mail::ids::MessageId;
use mail::judge::{Stage, judge_reply};
use mail::message::{Limits, Message};
use mail::reply::{Reply, ReplyParser};
use mail::verp::{VerpKey, encode};
use time::macros::datetime;

const BODY_OCTETS: usize = 4_200;
const SIGNED_AT: i64 = 1_795_348_800;
/// What our signatures cover, in their order.
const SIGNED_NAMES: [&str; 12] = [
    "From",
    "From",
    "To",
    "To",
    "Cc",
    "Subject",
    "Subject",
    "Date",
    "Date",
    "Message-ID",
    "MIME-Version",
    "Content-Type",
];
const REFUSAL: &[u8] =
    b"550-5.1.1 The email account that you tried to reach does not exist. Please try\r\n\
550-5.1.1 double-checking the recipient's email address for typos or\r\n\
550-5.1.1 unnecessary spaces. For more information, go to\r\n\
550 5.1.1  https://support.example.com/mail/?p=NoSuchUser a1-20020a0562 - gsmtp\r\n";
const PIPELINED: &[u8] = b"250 2.1.0 OK\r\n250 2.1.5 OK\r\n354 Go ahead a1-20020a0562 - gsmtp\r\n";

fn main() {
    divan::main();
}

/// Words of letters that do not repeat soon, so that nothing is compressed or cached by chance.
fn words(octets: usize) -> String {
    let mut state = 0x9e37_79b9_u32;
    let mut text = String::with_capacity(octets + 2);
    while text.len() < octets {
        // Numerical Recipes' generator; its upper bits are good enough for letters.
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        match state >> 24 {
            0..40 => text.push(' '),
            40..45 => text.push_str("\r\n"),
            high => text.push(char::from(b'a' + (high % 26) as u8)),
        }
    }
    text
}

fn request() -> Vec<u8> {
    let (text, html) = (words(BODY_OCTETS / 3), words(BODY_OCTETS - BODY_OCTETS / 3));
    let request = serde_json::json!({
        "from": "Bench <bench@bench.test>",
        "to": ["user12345@sink.test"],
        "subject": "Your order number 42 is on its way",
        "text": text,
        "html": format!("<p>{html}</p>"),
        "headers": { "X-Bench-Id": "0000000001-000000000042" },
        "tags": ["bench"],
    });
    request.to_string().into_bytes()
}

fn message() -> Message {
    parsed(&request())
}

fn parsed(request: &[u8]) -> Message {
    let request = serde_json::from_slice(request).expect("our own JSON");
    Message::parse(request, &Limits::default()).expect("our own request")
}

fn composed(message: &Message, domain: &DomainName) -> Composed {
    let context = ComposeContext {
        message_id: MessageId::from_time_and_random(1_795_348_800_000, [7; 10]),
        date: datetime!(2026-11-22 12:00 UTC),
        message_id_domain: domain,
    };
    compose(message, &context).expect("our own message")
}

fn domain() -> DomainName {
    DomainName::parse("bench.test").expect("a name")
}

fn header() -> Vec<u8> {
    let composed = composed(&message(), &domain());
    composed.bytes[..composed.header_len].to_vec()
}

fn reply(octets: &[u8]) -> Reply {
    let mut parser = ReplyParser::new();
    let reply = parser.feed(octets).expect("a reply");
    reply.expect("a whole reply")
}

#[divan::bench]
fn json_decode(bencher: Bencher<'_, '_>) {
    let request = request();
    bencher.bench(|| {
        serde_json::from_slice::<mail::message_fields::SendRequest>(black_box(&request)).is_ok()
    });
}

#[divan::bench]
fn json_decode_and_message_parse(bencher: Bencher<'_, '_>) {
    let request = request();
    bencher.bench(|| parsed(black_box(&request)));
}

#[divan::bench]
fn compose_message(bencher: Bencher<'_, '_>) {
    let (message, domain) = (message(), domain());
    bencher.bench(|| composed(black_box(&message), &domain));
}

#[divan::bench]
fn dkim_body_hash(bencher: Bencher<'_, '_>) {
    let composed = composed(&message(), &domain());
    bencher.bench(|| body_hash(black_box(composed.body())));
}

#[divan::bench]
fn dkim_header_hash(bencher: Bencher<'_, '_>) {
    let header = header();
    let unsigned = "v=1; a=rsa-sha256; c=relaxed/relaxed; d=bench.test; s=pr1; b=";
    bencher.bench(|| {
        let fields = parse_fields(black_box(&header)).expect("our own header");
        digest(&SHA256, &signed_octets(&fields, &SIGNED_NAMES, unsigned))
    });
}

#[divan::bench]
fn rsa_2048_sign(bencher: Bencher<'_, '_>) {
    let key = SigningKey::generate_rsa_2048().expect("a key");
    bencher.bench(|| key.sign(black_box(b"what a signature covers")));
}

#[divan::bench]
fn ed25519_sign(bencher: Bencher<'_, '_>) {
    let key = SigningKey::generate_ed25519().expect("a key");
    bencher.bench(|| key.sign(black_box(b"what a signature covers")));
}

/// Everything of a signature, with the cheap key: what is not arithmetic of RSA.
#[divan::bench]
fn dkim_signature_field_ed25519(bencher: Bencher<'_, '_>) {
    let key = SigningKey::generate_ed25519().expect("a key");
    let signer = Signer::new(domain(), "pr1", key).expect("a selector");
    let (header, hash) = (header(), [7; 32]);
    bencher.bench(|| signer.sign(black_box(&header), &hash, SIGNED_AT, None));
}

#[divan::bench]
fn parse_a_refusal(bencher: Bencher<'_, '_>) {
    bencher.bench(|| reply(black_box(REFUSAL)));
}

#[divan::bench]
fn parse_three_pipelined_replies(bencher: Bencher<'_, '_>) {
    bencher.with_inputs(ReplyParser::new).bench_refs(|parser| {
        let first = parser.feed(black_box(PIPELINED)).is_ok();
        (
            first,
            parser.next_reply().is_ok(),
            parser.next_reply().is_ok(),
        )
    });
}

#[divan::bench]
fn judge_a_refusal(bencher: Bencher<'_, '_>) {
    let refusal = reply(REFUSAL);
    bencher.bench(|| judge_reply(Stage::Rcpt, black_box(&refusal)));
}

#[divan::bench]
fn judge_an_acceptance(bencher: Bencher<'_, '_>) {
    let taken = reply(b"250 2.0.0 OK queued as 12345\r\n");
    bencher.bench(|| judge_reply(Stage::Dot, black_box(&taken)));
}

#[divan::bench]
fn verp_encode(bencher: Bencher<'_, '_>) {
    let key = VerpKey::new(1, &[7; 32]);
    let delivery = MessageId::from_time_and_random(1_795_348_800_000, [7; 10]).delivery(0);
    bencher.bench(|| encode(black_box(delivery), &key));
}
