//! An installation with things that two accounts own, for requests that are about them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use tempfile::TempDir;
use tests::api::{Api, message};
use tests::dev::Dev;
use tests::dns::Dns;
use tests::place;
use tests::platform::Platform;
use tests::sink::{Sink, Verdict};
use tests::tenant::Tenant;
use time::format_description::well_known::Rfc3339;
use tokio::sync::OnceCell;

use crate::document::Operation;

/// An installation with things that two accounts own.
pub(crate) struct World {
    /// A key that may do everything.
    pub(crate) owner: Api,
    /// A test key of the same account.
    pub(crate) tester: Api,
    /// A key of another account that may do everything.
    pub(crate) stranger: Api,
    /// For each scope a key that holds nothing else.
    pub(crate) only: BTreeMap<String, Api>,
    /// For each scope a key that holds all but it.
    pub(crate) all_but: BTreeMap<String, Api>,
    platform: Platform,
    inbox: OnceCell<Inbox>,
    _sink: Sink,
    _dns: Dns,
}

/// A platform with an inbox, which only `postrider dev` has.
pub(crate) struct Inbox {
    /// Without a key.
    pub(crate) api: Api,
    pub(crate) token: String,
    /// With a text, HTML and an attachment.
    pub(crate) message: String,
    _dev: Dev,
    _dir: TempDir,
}

impl World {
    /// None, and a loud line, where PostgreSQL is missing.
    pub(crate) async fn start(operations: &[Operation]) -> Option<Self> {
        let (sink, dns) = (sink().await, Dns::start().await);
        let builder = Platform::builder()
            .route("*", sink.address)
            .nameserver(dns.address);
        let platform = builder.start().await?;
        let config = platform.admin_config.clone();
        let other = tokio::task::block_in_place(|| Tenant::create(&config, "other"));
        let owner = platform.api(0);
        let scopes = operations.iter().filter_map(|one| one.scope.as_deref());
        let scopes: BTreeSet<&str> = scopes.collect();
        let (mut only, mut all_but) = (BTreeMap::new(), BTreeMap::new());
        for scope in &scopes {
            let others: Vec<&str> = scopes.iter().copied().filter(|s| s != scope).collect();
            let key = platform.tenant.add_key(&platform.pool, &[scope]).await;
            only.insert((*scope).to_owned(), owner.with_key(&key));
            let key = platform.tenant.add_key(&platform.pool, &others).await;
            all_but.insert((*scope).to_owned(), owner.with_key(&key));
        }
        Some(Self {
            tester: owner.with_key(&platform.tenant.test_key),
            stranger: owner.with_key(&other.key),
            owner,
            only,
            all_but,
            platform,
            inbox: OnceCell::new(),
            _sink: sink,
            _dns: dns,
        })
    }

    /// A small message of the account.
    pub(crate) fn mail(&self, to: &str) -> Value {
        message(&self.platform.tenant.domain, to)
    }

    /// A finished message of the account.
    pub(crate) fn finished(&self) -> String {
        let domain = &self.platform.tenant.domain;
        format!("From: hello@{domain}\r\nSubject: Finished\r\n\r\nThank you.\r\n")
    }

    /// A message that was delivered.
    pub(crate) async fn sent(&self) -> String {
        let id = self.owner.send(&self.mail("fine@sink.test")).await;
        self.owner.becomes(&id, "delivered").await;
        id
    }

    /// A message that was tried once and waits.
    pub(crate) async fn waiting(&self) -> String {
        let id = self.owner.send(&self.mail("busy@sink.test")).await;
        self.owner.becomes(&id, "deferred").await;
        id
    }

    /// A message that is to go in an hour.
    pub(crate) async fn scheduled(&self) -> String {
        let mut mail = self.mail("later@sink.test");
        mail["send_at"] = Self::in_secs(3_600).into();
        self.owner.send(&mail).await
    }

    /// What the sandbox received of a message of the test key.
    pub(crate) async fn in_sandbox(&self) -> String {
        let id = self.tester.send(&self.mail("fine@sink.test")).await;
        received(&self.tester, &id).await
    }

    pub(crate) async fn domain(&self, name: &str) -> String {
        self.made(201, "/v1/domains", &json!({"name": name})).await
    }

    pub(crate) async fn suppression(&self, address: &str) -> String {
        let body = json!({"address": address});
        self.made(201, "/v1/suppressions", &body).await
    }

    /// A key that every other one with its scope may deal with.
    pub(crate) async fn key(&self) -> String {
        self.made(201, "/v1/api-keys", &Self::key_body()).await
    }

    pub(crate) fn key_body() -> Value {
        json!({"name": "robot", "scopes": ["keys:*"]})
    }

    pub(crate) async fn webhook(&self) -> String {
        self.made(201, "/v1/webhooks", &Self::webhook_body()).await
    }

    pub(crate) fn webhook_body() -> Value {
        json!({"url": "http://127.0.0.1:9/hook", "events": ["email.delivered"]})
    }

    /// Makes a thing of the account; its id.
    pub(crate) async fn made(&self, status: u16, path: &str, body: &Value) -> String {
        let answer = self.owner.post(path, body).await;
        assert_eq!(answer.status, status, "{path}: {answer:?}");
        answer.json()["id"].as_str().unwrap().to_owned()
    }

    /// A time that far from now.
    pub(crate) fn in_secs(secs: i64) -> String {
        let now = service::clock::Clock::system().now();
        let at = now + time::Duration::seconds(secs);
        at.format(&Rfc3339).unwrap()
    }

    /// The platform with an inbox, started when it is first needed.
    pub(crate) async fn inbox(&self) -> &Inbox {
        self.inbox.get_or_init(Inbox::start).await
    }
}

impl Inbox {
    async fn start() -> Self {
        let dir = place::directory();
        let dev = tokio::task::block_in_place(|| Dev::start(dir.path(), &[]));
        let sender = Api::at(dev.field("api_url"), dev.field("api_key"));
        let domain = dev.field("sandbox_domain");
        let mut mail = message(domain, &format!("delivered@{domain}"));
        mail["html"] = "<p>Thank you.</p>".into();
        mail["attachments"] = json!([{"filename": "a.txt", "content": "aGk="}]);
        let id = sender.send(&mail).await;
        let (_, token) = dev.field("inbox_url").split_once("token=").unwrap();
        Self {
            message: received(&sender, &id).await,
            api: sender.without_key(),
            token: token.to_owned(),
            _dev: dev,
            _dir: dir,
        }
    }
}

/// What the sandbox received of this message.
async fn received(sender: &Api, id: &str) -> String {
    sender.becomes(id, "delivered").await;
    let listed = sender.get("/v1/sandbox/messages").await.json();
    let listed = listed["data"].as_array().unwrap();
    let mine = listed.iter().find(|one| one["message_id"] == id);
    mine.unwrap()["id"].as_str().unwrap().to_owned()
}

async fn sink() -> Sink {
    Sink::options()
        .script(|asked| match asked.local_part.as_str() {
            "busy" => Verdict::AtRcpt("451 4.3.0 Not now"),
            _ => Verdict::Accept,
        })
        .start()
        .await
}
