//! Promise: every message is sent once, whatever the loop and the parcel, and what is refused is
//! counted by its kind.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::routing::post;
use reqwest::Url;
use serde_json::{Value, json};
use service::shutdown::Shutdown;

use super::super::content::{Content, Correspondence};
use super::*;

const FROM_NOBODY: (StatusCode, &str) = (StatusCode::SERVICE_UNAVAILABLE, r#"{"code":"busy"}"#);

/// The answer to the request with this number.
type Answers = fn(u64) -> (StatusCode, &'static str);

/// Ids of the messages that came.
type Came = Arc<Mutex<Vec<String>>>;

async fn platform(answer: Answers) -> (Url, Came) {
    let (count, came) = (Arc::new(AtomicU64::new(0)), Came::default());
    let seen = came.clone();
    let handler = move |body: Bytes| {
        let messages = match serde_json::from_slice(&body).unwrap() {
            Value::Array(messages) => messages,
            one => vec![one],
        };
        let id = |message: &Value| {
            message["headers"]["X-Bench-Id"]
                .as_str()
                .unwrap()
                .to_owned()
        };
        seen.lock().unwrap().extend(messages.iter().map(id));
        let number = count.fetch_add(1, Ordering::Relaxed);
        async move { answer(number) }
    };
    let router = Router::new()
        .route("/base/v1/emails", post(handler.clone()))
        .route("/base/v1/emails/batch", post(handler));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/base/", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (Url::parse(&url).unwrap(), came)
}

fn key() -> Authorization {
    Authorization::new("pr_test_x").unwrap()
}

async fn load(pace: Pace, parcel: Parcel, messages: u64, answer: Answers) -> (Loaded, Came) {
    let who = Correspondence {
        from: "a@b.test".to_owned(),
        to_domain: "b.test".to_owned(),
        domains: 1,
        senders: 1,
    };
    let content = Content::new(&who, 50_000, 1, 1);
    let (url, came) = platform(answer).await;
    let (target, key) = (Target::new(&url).unwrap(), key());
    let generator = Generator::new(vec![target], vec![key], parcel, content);
    let generator = Arc::new(generator.unwrap());
    let budget = Budget {
        messages: Some(messages),
        time: Some(Duration::from_secs(20)),
    };
    (generator.run(pace, budget, &Shutdown::new()).await, came)
}

#[tokio::test]
async fn both_loops_send_each_message_once() {
    for pace in [
        Pace::Closed { concurrency: 4 },
        Pace::Open { per_second: 500.0 },
    ] {
        for parcel in [Parcel::Single, Parcel::Batch(8)] {
            let accepted = |_| (StatusCode::ACCEPTED, "{}");
            let (loaded, came) = load(pace, parcel, 50, accepted).await;
            assert_eq!(loaded.accepted(), 50, "{pace:?} {:?}", loaded.errors);
            let mut came = came.lock().unwrap().clone();
            came.sort_unstable();
            let expected: Vec<_> = (0..50)
                .map(|number| format!("0000000001-{number:012}"))
                .collect();
            assert_eq!(came, expected, "{pace:?} {parcel:?}");
        }
    }
}

#[tokio::test]
async fn refusals_are_counted_by_kind() {
    let answer = |number| match number % 2 {
        0 => (StatusCode::ACCEPTED, "{}"),
        _ => FROM_NOBODY,
    };
    let pace = Pace::Closed { concurrency: 1 };
    let (loaded, _) = load(pace, Parcel::Single, 10, answer).await;
    assert_eq!(loaded.accepted(), 5);
    let expected = BTreeMap::from([("HTTP 503 busy".to_owned(), 5)]);
    assert_eq!(loaded.errors, expected);
}

#[test]
fn messages_refused_within_a_batch_are_not_accepted() {
    let body = json!({"data": [{"id": "msg_1"}, {"error": {"code": "validation_failed"}}]});
    let answer = (StatusCode::ACCEPTED, Bytes::from(body.to_string()));
    assert_eq!(
        refused(&answer, 2),
        (1, "in a batch: validation_failed".to_owned())
    );
}

#[tokio::test]
async fn a_platform_that_is_not_there_is_an_error_for_each_message() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let target = Target::new(&Url::parse(&url).unwrap()).unwrap();
    let mut connection = Connection::new(target.clone());
    let path = target.path("/v1/emails").unwrap();
    let answer = connection.post(&path, &key(), Vec::new()).await;
    assert_eq!(answer.unwrap_err().to_string(), "no connection");
}
