//! The HTTP interface as a customer's program uses it.

use std::net::SocketAddr;
use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};

use crate::{PATIENCE, until};

/// Longer than any answer may take.
const ANSWER_PATIENCE: Duration = Duration::from_secs(20);

/// A customer with a key. Clones share connections.
#[derive(Clone, Debug)]
pub struct Api {
    base: String,
    key: Option<String>,
    client: Client,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status line's number.
    pub status: StatusCode,
    /// Header fields.
    pub headers: HeaderMap,
    /// The body as text.
    pub text: String,
}

impl Answer {
    /// The body as JSON; null when it is something else.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or(Value::Null)
    }

    /// A header field; empty when it is not there.
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    /// Fails the test unless this is a problem (RFC 9457) of this status and code.
    #[track_caller]
    pub fn is_problem(&self, status: u16, code: &str) {
        let body = self.json();
        let media_type = self
            .header("content-type")
            .starts_with("application/problem+json");
        let same = self.status == status && body["status"] == status && body["code"] == code;
        assert!(same && media_type, "expected {status} {code}, got {self:?}");
        assert!(
            !self.header("x-request-id").is_empty(),
            "no X-Request-Id: {self:?}"
        );
    }
}

impl Api {
    /// Uses the interface at `address` with `key`.
    pub fn new(address: SocketAddr, key: &str) -> Self {
        Self::at(&format!("http://{address}"), key)
    }

    /// Uses the interface at `base` (no slash at the end) with `key`.
    pub fn at(base: &str, key: &str) -> Self {
        let client = Client::builder().timeout(ANSWER_PATIENCE).build().unwrap();
        Self {
            base: base.to_owned(),
            key: Some(key.to_owned()),
            client,
        }
    }

    /// The same interface with another key.
    pub fn with_key(&self, key: &str) -> Self {
        Self {
            key: Some(key.to_owned()),
            ..self.clone()
        }
    }

    /// The same interface without a key.
    pub fn without_key(&self) -> Self {
        Self {
            key: None,
            ..self.clone()
        }
    }

    /// The connections, for requests without a key.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The address of `path`, which begins with a slash.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// A request, for tests that put together their own.
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.client.request(method, self.url(path));
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    /// Sends a request.
    ///
    /// # Errors
    /// Nobody answers.
    pub async fn ask(&self, request: reqwest::RequestBuilder) -> Result<Answer, reqwest::Error> {
        let answer = request.send().await?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        Ok(Answer {
            status,
            headers,
            text: answer.text().await?,
        })
    }

    /// `GET`.
    pub async fn get(&self, path: &str) -> Answer {
        self.ask(self.request(Method::GET, path)).await.unwrap()
    }

    /// `POST` of JSON.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.ask(self.request(Method::POST, path).json(body))
            .await
            .unwrap()
    }

    /// Sends a message that must be accepted; its id.
    pub async fn send(&self, body: &Value) -> String {
        let answer = self.post("/v1/emails", body).await;
        assert_eq!(answer.status, 202, "{answer:?}");
        answer.json()["id"].as_str().unwrap().to_owned()
    }

    /// The message as `GET /v1/emails/{id}` shows it.
    pub async fn email(&self, id: &str) -> Value {
        let answer = self.get(&format!("/v1/emails/{id}")).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    /// Waits until the message has this status, and returns it.
    pub async fn becomes(&self, id: &str, status: &str) -> Value {
        self.becomes_within(id, status, PATIENCE).await
    }

    /// Waits until the message has this status, and returns it.
    pub async fn becomes_within(&self, id: &str, status: &str, patience: Duration) -> Value {
        let what = format!("{id} becomes {status}");
        let reached = tokio::time::timeout(patience, async {
            until(&what, patience * 2, || async {
                let email = self.email(id).await;
                (email["status"] == status).then_some(email)
            })
            .await
        });
        match reached.await {
            Ok(email) => email,
            Err(_) => panic!(
                "not within {patience:?}: {what}: {:#}",
                self.email(id).await
            ),
        }
    }

    /// Registers a webhook endpoint for these event types; its secret.
    pub async fn create_webhook(&self, url: &str, events: &[&str]) -> String {
        let answer = self
            .post("/v1/webhooks", &json!({"url": url, "events": events}))
            .await;
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.json()["secret"].as_str().unwrap().to_owned()
    }
}

/// A small message to one recipient.
pub fn message(from_domain: &str, to: &str) -> Value {
    json!({
        "from": format!("Acme <hello@{from_domain}>"),
        "to": [to],
        "subject": "Your receipt",
        "text": "Thank you.",
    })
}

/// The types of a delivery's events, in order.
pub fn event_types(delivery: &Value) -> Vec<String> {
    let events = delivery["events"].as_array().unwrap();
    events
        .iter()
        .map(|event| event["type"].as_str().unwrap().to_owned())
        .collect()
}
