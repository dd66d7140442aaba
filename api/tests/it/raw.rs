//! `POST /v1/emails/raw`: what is taken as it is, and what is refused.

use axum::body::Body;
use axum::http::{Method, StatusCode, header};
use mail::ids::MessageId;

use crate::platform::{Answer, Platform, with_key};

const MAIL: &str = "From: Acme <hello@acme.test>\r\nTo: Ana <ana@example.com>\r\n\
    Bcc: bo@example.org\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n\r\n.Hello\r\n  \r\n";

struct Raw<'a> {
    query: &'a str,
    headers: &'a [(&'a str, &'a str)],
    mail: &'a [u8],
}

impl Default for Raw<'_> {
    fn default() -> Self {
        Self {
            query: "",
            headers: &[],
            mail: MAIL.as_bytes(),
        }
    }
}

async fn send(platform: &Platform, key: &str, raw: Raw<'_>) -> Answer {
    let path = format!("/v1/emails/raw{}", raw.query);
    let mut request =
        with_key(key, Method::POST, &path).header(header::CONTENT_TYPE, "message/rfc822");
    for (name, value) in raw.headers {
        request = request.header(*name, *value);
    }
    let body = Body::from(raw.mail.to_vec());
    platform.send(request.body(body).unwrap()).await
}

fn mail(octets: &[u8]) -> Raw<'_> {
    Raw {
        mail: octets,
        ..Raw::default()
    }
}

fn recipients(answer: &Answer) -> Vec<&str> {
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.json);
    let deliveries = answer.json["deliveries"].as_array().unwrap();
    let to = deliveries.iter().map(|delivery| delivery["to"].as_str());
    to.map(Option::unwrap).collect()
}

#[tokio::test]
async fn a_finished_message_is_kept_as_it_is() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let answer = send(&platform, &platform.live_key, Raw::default()).await;
    assert_eq!(recipients(&answer), ["ana@example.com", "bo@example.org"]);
    let id: MessageId = answer.id().parse().unwrap();
    let stored = platform.state.store.contents(&[id]).await.unwrap();
    let text = String::from_utf8(stored[0].bytes.to_vec()).unwrap();
    assert!(text.ends_with("\r\n\r\n.Hello\r\n  \r\n"), "{text}");
    assert!(
        !text.contains("Bcc") && !text.contains("bo@example.org"),
        "{text}"
    );
    let message_id = format!("Message-ID: <{}@acme.test>\r\n", id.digits());
    assert!(
        text.contains(&message_id) && text.contains("Date: "),
        "{text}"
    );
    let path = format!("/v1/emails/{id}");
    let view = platform.get(&platform.live_key, &path).await.json;
    assert_eq!(view["subject"], "Grüße");
    assert_eq!(view["from"], "Acme <hello@acme.test>");
}

#[tokio::test]
async fn the_envelope_and_the_rest_come_beside_it() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let query = "?to=x@y.example,z@y.example&tag=a&tag=b&metadata=%7B%22order%22%3A%227%22%7D\
                 &stream=news&expires_in=4h&require_tls=true&from=bounce@acme.test";
    let headers = [("X-Postrider-To", "X <x@y.example>, w@y.example")];
    let raw = Raw {
        query,
        headers: &headers,
        ..Raw::default()
    };
    let answer = send(&platform, &platform.live_key, raw).await;
    assert_eq!(
        recipients(&answer),
        ["x@y.example", "z@y.example", "w@y.example"]
    );
    let path = format!("/v1/emails/{}", answer.id());
    let view = platform.get(&platform.live_key, &path).await.json;
    assert_eq!(view["tags"], serde_json::json!(["a", "b"]));
    assert_eq!(view["metadata"]["order"], "7");
    assert_eq!(view["stream"], "news");
}

#[tokio::test]
async fn a_sender_needs_a_verified_domain_in_the_header_and_the_envelope() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let key = &platform.live_key;
    for from in [
        "a@other.test",
        "a@pending.test",
        "hello@acme.test.other.test",
    ] {
        let text = MAIL.replace("hello@acme.test", from);
        let answer = send(&platform, key, mail(text.as_bytes())).await;
        answer.refused(403, "sender_not_verified");
        let query = format!("?from={from}");
        let raw = Raw {
            query: &query,
            ..Raw::default()
        };
        send(&platform, key, raw)
            .await
            .refused(403, "sender_not_verified");
        for field in ["Sender", "Resent-From"] {
            let text = format!("{field}: {from}\r\n{MAIL}");
            let answer = send(&platform, key, mail(text.as_bytes())).await;
            answer.refused(403, "sender_not_verified");
        }
    }
    for from in [
        "hello@acme.test, evil@other.test",
        "evil@other.test <hello@acme.test> evil@other.test",
        "hello@acme.test\r\nFrom: evil@other.test",
        "undisclosed:;",
    ] {
        let text = MAIL.replace("Acme <hello@acme.test>", from);
        let answer = send(&platform, key, mail(text.as_bytes())).await;
        let answer = answer.refused(422, "validation_failed");
        assert_eq!(answer.fields()[0].0, "/headers/From", "{from}");
    }
}

#[tokio::test]
async fn what_is_wrong_is_told_with_its_place() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let key = &platform.live_key;
    let check = async |octets: &[u8], code: &str, words: &str| {
        let answer = send(&platform, key, mail(octets)).await;
        let answer = answer.refused(422, "validation_failed");
        assert_eq!(answer.fields(), [("", code)], "{words}");
        let detail = answer.json["detail"].as_str().unwrap();
        assert!(detail.contains(words), "{detail}");
    };
    let body = |body: &[u8]| [MAIL.as_bytes(), body].concat();
    let end = MAIL.len();
    check(&body(b"a\nb"), "bare_lf", &format!("octet {}:", end + 1)).await;
    check(&body(b"a\rb"), "bare_cr", &format!("octet {}:", end + 1)).await;
    check(&body(b"\0"), "nul", &format!("octet {end}:")).await;
    check(
        &body(&[b'x'; 999]),
        "line_too_long",
        &format!("octet {end}:"),
    )
    .await;
    check(
        b"From: a@acme.test\r\nno field\r\n\r\n",
        "malformed_header",
        "octet 19:",
    )
    .await;
    check(
        "From: a@acme.test\r\nTo: b@c.example\r\nSubject: é\r\n\r\n".as_bytes(),
        "header_not_ascii",
        "RFC 2047",
    )
    .await;
    assert_eq!(
        send(
            &platform,
            key,
            mail("From: a@acme.test\r\nTo: b@c.example\r\n\r\n8 bit: é".as_bytes())
        )
        .await
        .status,
        StatusCode::ACCEPTED
    );

    let raw = Raw {
        query: "?to=nobody&send_at=soon&form=1",
        ..Raw::default()
    };
    let answer = send(&platform, key, raw).await;
    assert_eq!(
        answer.refused(422, "validation_failed").fields(),
        [("/form", "unknown_field")]
    );
    let raw = Raw {
        query: "?to=nobody&send_at=soon&tag=%0d%0a&pool=",
        mail: b"To: b@c.example\r\n\r\n",
        ..Raw::default()
    };
    let answer = send(&platform, key, raw).await;
    let expected = [
        ("/to/0", "invalid_address"),
        ("/tags/0", "control_character"),
        ("/pool", "invalid_name"),
        ("/send_at", "invalid_time"),
        ("/headers/From", "required"),
    ];
    assert_eq!(answer.refused(422, "validation_failed").fields(), expected);
    let many: String = (0..51).map(|n| format!("u{n}@x.example,")).collect();
    let query = format!("?to={many}");
    let raw = Raw {
        query: &query,
        ..Raw::default()
    };
    let answer = send(&platform, key, raw).await;
    assert_eq!(answer.fields(), [("/to", "too_many_recipients")]);
    send(&platform, key, mail(b""))
        .await
        .refused(422, "validation_failed");
}

#[tokio::test]
async fn only_mail_of_those_who_may_is_taken() {
    let change = |config: &mut api::ApiConfig| config.message_max_octets = 5_000;
    let Some(platform) = Platform::start_with(change).await else {
        return;
    };
    let key = &platform.live_key;
    let reader = platform.key_with(&["emails:read"]).await;
    send(&platform, &reader, Raw::default())
        .await
        .refused(403, "missing_scope");
    send(&platform, "pr_live_x", Raw::default())
        .await
        .refused(401, "invalid_api_key");
    for media_type in ["application/json", "text/plain", ""] {
        let request = with_key(key, Method::POST, "/v1/emails/raw")
            .header(header::CONTENT_TYPE, media_type)
            .body(Body::from(MAIL));
        platform
            .send(request.unwrap())
            .await
            .refused(415, "unsupported_media_type");
    }
    let long = [MAIL.as_bytes(), &b"line\r\n".repeat(1_000)].concat();
    send(&platform, key, mail(&long))
        .await
        .refused(413, "message_too_large");
    let other = platform.other_account("other.test").await;
    send(&platform, &other, Raw::default())
        .await
        .refused(403, "sender_not_verified");
    let answer = send(&platform, &platform.test_key, Raw::default()).await;
    let view = platform
        .get(key, &format!("/v1/emails/{}", answer.id()))
        .await
        .json;
    assert_eq!(view["test"], true);
}

#[tokio::test]
async fn the_same_key_parameters_and_mail_count_once() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let key = &platform.live_key;
    let keyed = async |query: &str, to: &str, octets: &[u8]| {
        let headers = [("Idempotency-Key", "raw-7"), ("X-Postrider-To", to)];
        let raw = Raw {
            query,
            headers: &headers,
            mail: octets,
        };
        send(&platform, key, raw).await
    };
    let octets = MAIL.as_bytes();
    let first = keyed("?tag=a", "x@y.example", octets).await;
    assert_eq!(first.status, StatusCode::ACCEPTED);
    let again = keyed("?tag=a", "x@y.example", octets).await;
    assert_eq!(again.headers["idempotent-replayed"], "true");
    assert_eq!(again.octets, first.octets);
    for (query, to, octets) in [
        ("?tag=b", "x@y.example", octets),
        ("?tag=a", "z@y.example", octets),
        ("?tag=a", "x@y.example", b"From: a@acme.test\r\n\r\n"),
    ] {
        keyed(query, to, octets)
            .await
            .refused(409, "idempotency_mismatch");
    }
}
