//! Request bodies: malformed, mistyped, compressed, too large. Never a 500.

use std::convert::Infallible;
use std::io::Write;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::http::{Method, StatusCode, header};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::body::Frame;

use crate::platform::{Answer, Platform, email, json_request, with_key};

const MIB: usize = 1024 * 1024;

async fn post(platform: &Platform, body: impl Into<Body>) -> Answer {
    let request = json_request(&platform.live_key, "/v1/emails")
        .body(body.into())
        .unwrap();
    platform.send(request).await
}

async fn post_encoded(platform: &Platform, encoding: &str, body: Vec<u8>) -> Answer {
    let request = json_request(&platform.live_key, "/v1/emails")
        .header(header::CONTENT_ENCODING, encoding)
        .body(Body::from(body))
        .unwrap();
    platform.send(request).await
}

fn gzip(octets: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(octets).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn malformed_json_is_told_with_its_place() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    for (body, place) in [
        ("", "line 1 column 0"),
        ("{\n\"from\": }", "line 2 column 9"),
        ("{} x", "line 1 column 4"),
        ("{\"from\":\"\u{1}\"}", "line 1 column"),
        ("{\"from\":\"\\ud800\"}", "line 1 column"),
    ] {
        let answer = post(&platform, body).await;
        answer.refused(400, "malformed_json");
        let detail = answer.json["detail"].as_str().unwrap();
        assert!(detail.contains(place), "{body}: {detail}");
    }
    post(&platform, &b"\xff\xfe{}"[..])
        .await
        .refused(400, "malformed_json");
    post(&platform, vec![b'['; 100_000])
        .await
        .refused(400, "malformed_json");
    let deep = [&br#"{"to":"#[..], &[b'['; 100_000]].concat();
    post(&platform, deep)
        .await
        .refused(422, "validation_failed");
}

#[tokio::test]
async fn wrong_types_and_unknown_fields_are_named() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    for (body, pointer, code) in [
        (r#"{"form":"x"}"#, "/form", "unknown_field"),
        (r#"{"to":{"a":1}}"#, "/to", "invalid_type"),
        (r#"{"to":[["a"]]}"#, "/to/0", "invalid_type"),
        (r#"{"tags":"a"}"#, "/tags", "invalid_type"),
        (r#"{"metadata":{"n":1}}"#, "/metadata/n", "invalid_type"),
        (r#"{"from":null,"from":null}"#, "/from", "duplicate_field"),
        ("[]", "", "invalid_type"),
        ("null", "", "invalid_type"),
    ] {
        let answer = post(&platform, body).await;
        assert_eq!(
            answer.refused(422, "validation_failed").fields(),
            [(pointer, code)],
            "{body}"
        );
    }
}

#[tokio::test]
async fn a_body_must_be_called_json() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    for media_type in [
        None,
        Some("text/plain"),
        Some("application/x-www-form-urlencoded"),
    ] {
        let mut request = with_key(&platform.live_key, Method::POST, "/v1/emails");
        if let Some(media_type) = media_type {
            request = request.header(header::CONTENT_TYPE, media_type);
        }
        let request = request.body(Body::from(email().to_string())).unwrap();
        platform
            .send(request)
            .await
            .refused(415, "unsupported_media_type");
    }
    let request = with_key(&platform.live_key, Method::POST, "/v1/emails")
        .header(header::CONTENT_TYPE, "Application/JSON; charset=utf-8")
        .body(Body::from(email().to_string()))
        .unwrap();
    assert_eq!(platform.send(request).await.status, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn compressed_bodies_are_read() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let body = email().to_string();
    let answer = post_encoded(&platform, "gzip", gzip(body.as_bytes())).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.json);
    let packed = zstd::encode_all(body.as_bytes(), 3).unwrap();
    let answer = post_encoded(&platform, "zstd", packed).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.json);
}

#[tokio::test]
async fn damaged_and_unknown_compression_is_refused() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let whole = gzip(email().to_string().as_bytes());
    let cut = whole[..whole.len() / 2].to_vec();
    post_encoded(&platform, "gzip", cut)
        .await
        .refused(400, "malformed_body");
    post_encoded(&platform, "gzip", b"{}".to_vec())
        .await
        .refused(400, "malformed_body");
    post_encoded(&platform, "zstd", whole.clone())
        .await
        .refused(400, "malformed_body");
    for encoding in ["br", "deflate", "gzip, gzip", "GZIP,zstd", "x"] {
        let answer = post_encoded(&platform, encoding, whole.clone()).await;
        answer.refused(415, "unsupported_encoding");
        assert_eq!(answer.headers[header::ACCEPT_ENCODING], "gzip, zstd");
    }
}

#[tokio::test]
async fn a_body_is_bounded_before_and_after_decompression() {
    let change = |config: &mut api::ApiConfig| config.body_max_octets = MIB;
    let Some(platform) = Platform::start_with(change).await else {
        return;
    };
    let spaces = vec![b' '; 2 * MIB];
    let answer = post(&platform, spaces).await;
    answer.refused(413, "body_too_large");
    // Without a Content-Length the octets are counted as they come.
    let unannounced = Body::new(Pieces {
        left: 1_000,
        has_end: true,
    });
    post(&platform, unannounced)
        .await
        .refused(413, "body_too_large");

    let bomb = vec![0; 64 * MIB];
    let gzipped = gzip(&bomb);
    assert!(gzipped.len() < MIB);
    post_encoded(&platform, "gzip", gzipped)
        .await
        .refused(413, "body_too_large");
    let packed = zstd::encode_all(&bomb[..], 3).unwrap();
    post_encoded(&platform, "zstd", packed)
        .await
        .refused(413, "body_too_large");
}

/// A body in pieces, whose length nobody announced; without end it stops coming and stays open.
struct Pieces {
    left: usize,
    has_end: bool,
}

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left == 0 {
            return if self.has_end {
                Poll::Ready(None)
            } else {
                Poll::Pending
            };
        }
        self.left -= 1;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b' '; 4096])))))
    }
}

#[tokio::test]
async fn bodies_without_room_are_asked_to_come_back() {
    let change = |config: &mut api::ApiConfig| {
        config.bodies_max_octets = MIB;
        config.body_room_timeout = std::time::Duration::from_millis(50);
        config.body_timeout = std::time::Duration::from_secs(1);
    };
    let Some(platform) = Platform::start_with(change).await else {
        return;
    };
    // Its length is unknown, so it holds all the room there is until it is given up.
    let endless = Body::new(Pieces {
        left: 3,
        has_end: false,
    });
    let second = async {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        post(&platform, email().to_string()).await
    };
    let (first, second) = tokio::join!(post(&platform, endless), second);
    second.refused(503, "unavailable");
    assert_eq!(second.headers["retry-after"], "5");
    first.refused(408, "body_timeout");
    let later = post(&platform, email().to_string()).await;
    assert_eq!(later.status, StatusCode::ACCEPTED, "{}", later.json);
}

#[tokio::test]
async fn content_beyond_the_limit_is_too_large() {
    let change = |config: &mut api::ApiConfig| config.message_limits.content_max_octets = 100_000;
    let Some(platform) = Platform::start_with(change).await else {
        return;
    };
    let mut body = email();
    body["text"] = "x".repeat(100_000).into();
    let answer = post(&platform, body.to_string()).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.json);
    body["text"] = "x".repeat(100_001).into();
    let answer = post(&platform, body.to_string()).await;
    assert_eq!(
        answer.refused(413, "message_too_large").fields(),
        [("/text", "too_long")]
    );
}

#[tokio::test]
async fn a_body_that_never_ends_is_given_up() {
    let change =
        |config: &mut api::ApiConfig| config.body_timeout = std::time::Duration::from_millis(50);
    let Some(platform) = Platform::start_with(change).await else {
        return;
    };
    let body = Body::new(Pieces {
        left: 3,
        has_end: false,
    });
    post(&platform, body).await.refused(408, "body_timeout");
}
