//! Hostile values in every place of every operation: each parameter of a path and a query, each
//! field of a body, and bodies that are none. Whether a value is right is not looked at here.

use std::collections::BTreeSet;

use reqwest::{RequestBuilder, header};
use serde_json::{Value, json};
use tests::api::{Answer, Api};
use tests::take_turn;

use crate::document::{Operation, operations};
use crate::table::Try;
use crate::world::World;

/// As they stand in an address.
const IN_PATHS: [&str; 9] = [
    "%00",
    "..%2f..%2fetc%2fpasswd",
    "%ff%fe",
    "%0d%0aX-Injected:%201",
    "'%20OR%201=1%20--",
    "-1",
    "99999999999999999999",
    "%F0%9F%8E%89",
    "msg_zzzzzzzzzzzzzzzzzzzzzzzzzz",
];
/// In place of a whole body.
const BODIES: [&str; 9] = [
    "",
    "{",
    "null",
    "[]",
    "7",
    "\"\\ud800\"",
    "{\"a\":1}{\"a\":1}",
    "{\"\\u0000\":1}",
    "\u{feff}{}",
];

#[tokio::test(flavor = "multi_thread")]
async fn whatever_stands_in_a_request_is_never_answered_with_a_fault() {
    let _turn = take_turn();
    let operations = operations();
    let Some(world) = World::start(&operations).await else {
        return;
    };
    let (mut tried, mut wrong) = (0, BTreeSet::new());
    for operation in &operations {
        let Some(request) = world.request(&operation.id).await else {
            panic!("no request in table.rs succeeds for {}", operation.id);
        };
        let api = match operation.path.starts_with("/inbox") {
            true => &world.inbox().await.api,
            false => &world.owner,
        };
        let mut fuzz = Fuzz {
            api,
            operation,
            request: &request,
            tried: 0,
            wrong: &mut wrong,
        };
        fuzz.paths().await;
        fuzz.queries().await;
        if request.body.is_some() {
            fuzz.bodies().await;
            fuzz.fields().await;
        }
        tried += fuzz.tried;
    }
    let wrong: Vec<String> = wrong.into_iter().collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    eprintln!("hostile requests: {tried}");
    assert!(tried > 1_000, "only {tried} hostile requests were tried");
    // It still works, and says so.
    world.sent().await;
}

struct Fuzz<'a> {
    api: &'a Api,
    operation: &'a Operation,
    request: &'a Try,
    tried: usize,
    wrong: &'a mut BTreeSet<String>,
}

impl Fuzz<'_> {
    async fn paths(&mut self) {
        for at in 0..self.request.path.len() {
            for value in IN_PATHS {
                let mut path = self.request.path.clone();
                path[at] = value.to_owned();
                let url = self.operation.at(&path, &self.request.query);
                let asked = self.good_body(self.asked(&url));
                self.ask(&format!("path {at} = {value}"), asked).await;
            }
        }
    }

    async fn queries(&mut self) {
        let unknown = "no_such_parameter".to_owned();
        let long = "9".repeat(8_000);
        let values = IN_PATHS.into_iter().chain(["", &long, "%5b%5d", "a%26b"]);
        for value in values {
            for name in self.operation.query.iter().chain([&unknown]) {
                for query in [
                    format!("?{name}={value}"),
                    format!("?{name}={value}&{name}={value}"),
                ] {
                    let url = self.operation.at(&self.request.path, &query);
                    let asked = self.good_body(self.asked(&url));
                    let shown: String = query.chars().take(60).collect();
                    self.ask(&shown, asked).await;
                }
            }
        }
    }

    async fn bodies(&mut self) {
        let url = self.operation.at(&self.request.path, &self.request.query);
        let deep = "[".repeat(20_000);
        for media_type in ["application/json", "message/rfc822", "text/plain", "\u{1}"] {
            for body in BODIES.into_iter().chain([deep.as_str()]) {
                let asked = self.asked(&url);
                let asked = match header::HeaderValue::from_str(media_type) {
                    Ok(media_type) => asked.header(header::CONTENT_TYPE, media_type),
                    Err(_) => asked,
                };
                let shown: String = body.chars().take(20).collect();
                let what = format!("{media_type:?} {shown:?}");
                self.ask(&what, asked.body(body.to_owned())).await;
            }
        }
        let body = self.request.body.as_ref().unwrap();
        for encoding in ["gzip", "zstd", "br", "gzip, gzip", "\u{e9}"] {
            let asked = self
                .asked(&url)
                .header(header::CONTENT_TYPE, body.media_type);
            let asked = asked.header(header::CONTENT_ENCODING, encoding);
            // Not compressed at all.
            self.ask(encoding, asked.body(body.text.clone())).await;
        }
    }

    async fn fields(&mut self) {
        let url = self.operation.at(&self.request.path, &self.request.query);
        let Ok(good) = serde_json::from_str::<Value>(&self.request.body.as_ref().unwrap().text)
        else {
            return;
        };
        for field in &self.operation.fields {
            for value in values() {
                let mut body = good.clone();
                body[field] = value.clone();
                let shown: String = value.to_string().chars().take(40).collect();
                let asked = self.asked(&url).json(&body);
                self.ask(&format!("{field} = {shown}"), asked).await;
            }
        }
    }

    fn asked(&self, url: &str) -> RequestBuilder {
        self.api.request(self.operation.method.clone(), url)
    }

    fn good_body(&self, asked: RequestBuilder) -> RequestBuilder {
        crate::with_body(asked, self.request.body.as_ref())
    }

    async fn ask(&mut self, what: &str, asked: RequestBuilder) {
        self.tried += 1;
        let answer = self.api.ask(asked).await.unwrap();
        if let Some(complaint) = complaint(self.operation, &answer) {
            let id = &self.operation.id;
            self.wrong
                .insert(format!("{id} {what}: {complaint}: {answer:?}"));
        }
    }
}

/// Refusals are problems of documented statuses, and nothing given becomes part of the header.
fn complaint(operation: &Operation, answer: &Answer) -> Option<&'static str> {
    let status = answer.status.as_u16();
    if status >= 500 {
        return Some("a fault");
    }
    if answer.headers.contains_key("x-injected") {
        return Some("a header was injected");
    }
    if !operation.tells(status) {
        return Some("not documented");
    }
    let is_problem = answer.header("content-type") == "application/problem+json";
    (status >= 400 && !is_problem).then_some("not a problem")
}

fn values() -> Vec<Value> {
    let mut deep = json!("a");
    for _ in 0..100 {
        deep = json!([deep]);
    }
    vec![
        Value::Null,
        json!(true),
        json!(-1),
        json!(1e308),
        json!(u64::MAX),
        json!(""),
        json!("\0"),
        json!("a\r\nBcc: victim@else.test"),
        json!("\u{202e}\u{feff}\u{10ffff}"),
        json!("{{7*7}}${7*7}<%= 7*7 %>"),
        json!("x".repeat(100_000)),
        json!([]),
        json!({}),
        json!([null, 1, [], {}]),
        json!({"\0": "\0", "a\r\nb": {}}),
        json!(vec!["a@sink.test"; 2_000]),
        deep,
    ]
}
