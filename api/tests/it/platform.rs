//! The interface under test: the real router on a database of its own, and a client for it.

use std::sync::Arc;

use api::{ApiConfig, ApiMetrics, AppParts, AppState, Callers};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use axum::response::Response;
use mail::domain_name::DomainName;
use mail::ids::{AccountId, ApiKeyId, DomainId, PoolId, StreamId, uuid_v7};
use mail::retry::StreamClass;
use serde_json::Value;
use service::clock::Clock;
use service::metrics::Metrics;
use service::pg_cluster::Binaries;
use service::resolver::Resolver;
use service::shutdown::Shutdown;
use store::{Acceptor, Account, PoolKind, SealKey, Sealer, Store, StoreOptions};
use tower::ServiceExt;

use crate::database::{Cluster, Database, database_url};

/// Everything a key may do here.
pub(crate) const ALL_SCOPES: &[&str] = &[
    "emails:send",
    "emails:read",
    "webhooks:*",
    "suppressions:*",
    "domains:*",
    "keys:*",
];

/// A running interface with one account, `acme.test` verified and `pending.test` not.
pub(crate) struct Platform {
    pub(crate) state: AppState,
    pub(crate) account: Account,
    pub(crate) live_key: String,
    pub(crate) test_key: String,
    router: Router,
    shutdown: Shutdown,
    database: Option<Arc<Cluster>>,
}

/// An answer, its body as JSON where it is JSON.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) octets: Vec<u8>,
    pub(crate) json: Value,
}

impl Platform {
    /// Starts one with the usual settings; `None`, loudly, where no PostgreSQL is installed.
    pub(crate) async fn start() -> Option<Self> {
        Self::start_with(|_| {}).await
    }

    pub(crate) async fn start_with(change: impl FnOnce(&mut ApiConfig)) -> Option<Self> {
        Self::start_on(database_url().await?, change).await
    }

    /// Starts one with a server of its own, which [`Platform::lose_database`] may stop.
    pub(crate) async fn start_alone() -> Option<Self> {
        if let Err(error) = Binaries::find() {
            eprintln!("SKIPPED: {error}");
            return None;
        }
        let cluster = Arc::new(Cluster::start());
        Self::start_on(cluster.database(), |_| {}).await
    }

    async fn start_on(
        (url, database): Database,
        change: impl FnOnce(&mut ApiConfig),
    ) -> Option<Self> {
        Store::migrate(&url).await.unwrap();
        let store = Store::connect(StoreOptions::new(url)).await.unwrap();
        let clock = Clock::system();
        let today = clock.now().date();
        store
            .make_partitions([today, today.next_day().unwrap()].into_iter())
            .await
            .unwrap();
        if store.sandbox_pool().await.unwrap().is_none() {
            let id = PoolId::from_uuid(fresh_uuid());
            store
                .create_pool(id, "sandbox", PoolKind::Sandbox)
                .await
                .unwrap();
        }
        let shutdown = Shutdown::new();
        let acceptor = start_acceptor(&store, &clock, &shutdown);
        let mut config = ApiConfig {
            sandbox_available: true,
            ..ApiConfig::default()
        };
        change(&mut config);
        let registry = Arc::new(Metrics::new());
        let state = AppState::from(AppParts {
            store: store.clone(),
            acceptor,
            sealer: Arc::new(Sealer::new(SealKey::new(1, [9; 32]), Vec::new())),
            resolver: Resolver::offline(),
            key_maker: api::KeyMaker::default(),
            callers: Callers::new(&config.rate_limits, None),
            clock,
            config: Arc::new(config),
            metrics: ApiMetrics::register(&registry).unwrap(),
            registry,
        });
        let account = new_account(&state, "acme.test").await;
        let live_key = new_key(&state, &account, api::keys::KeyMode::Live, ALL_SCOPES).await;
        let test_key = new_key(&state, &account, api::keys::KeyMode::Test, ALL_SCOPES).await;
        let router = api::router(state.clone());
        Some(Self {
            state,
            account,
            live_key,
            test_key,
            router,
            shutdown,
            database,
        })
    }

    /// From now on records of domains are looked up there.
    pub(crate) fn ask_dns(&mut self, resolver: Resolver) {
        self.state = AppState::from(AppParts {
            resolver,
            ..AppParts::clone(&self.state)
        });
        self.router = api::router(self.state.clone());
    }

    /// Stops the server as a crash would.
    pub(crate) fn lose_database(&self) {
        self.database
            .as_ref()
            .unwrap()
            .server
            .stop_immediately()
            .unwrap();
    }

    /// A second account with a live key; it has verified `domain`.
    pub(crate) async fn other_account(&self, domain: &str) -> String {
        let account = new_account(&self.state, domain).await;
        new_key(&self.state, &account, api::keys::KeyMode::Live, ALL_SCOPES).await
    }

    /// A live key of the first account with these scopes only.
    pub(crate) async fn key_with(&self, scopes: &[&str]) -> String {
        new_key(&self.state, &self.account, api::keys::KeyMode::Live, scopes).await
    }

    /// An answer whose body nobody has read yet.
    pub(crate) async fn respond(&self, request: Request<Body>) -> Response {
        self.router.clone().oneshot(request).await.unwrap()
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.respond(request).await;
        let (parts, body) = response.into_parts();
        let octets = to_bytes(body, 64 << 20).await.unwrap().to_vec();
        let json = serde_json::from_slice(&octets).unwrap_or(Value::Null);
        let answer = Answer {
            status: parts.status,
            headers: parts.headers,
            octets,
            json,
        };
        answer.check_conventions();
        answer
    }

    pub(crate) async fn get(&self, key: &str, path: &str) -> Answer {
        self.send(
            with_key(key, Method::GET, path)
                .body(Body::empty())
                .unwrap(),
        )
        .await
    }

    pub(crate) async fn delete(&self, key: &str, path: &str) -> Answer {
        self.send(
            with_key(key, Method::DELETE, path)
                .body(Body::empty())
                .unwrap(),
        )
        .await
    }

    pub(crate) async fn post(&self, key: &str, path: &str, body: &Value) -> Answer {
        self.send(
            json_request(key, path)
                .body(Body::from(body.to_string()))
                .unwrap(),
        )
        .await
    }

    /// Sends an email and expects it to be taken.
    pub(crate) async fn accepted(&self, key: &str, body: &Value) -> Answer {
        let answer = self.post(key, "/v1/emails", body).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.json);
        answer
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        self.shutdown.request();
    }
}

impl Answer {
    /// What holds for every answer, whatever it says.
    fn check_conventions(&self) {
        let id = self.headers["x-request-id"].to_str().unwrap();
        assert!(id.starts_with("req_") && id.len() == 30, "{id}");
        if self.status.is_client_error() || self.status.is_server_error() {
            assert_eq!(
                self.headers[header::CONTENT_TYPE],
                "application/problem+json"
            );
            assert_eq!(self.json["request_id"], id);
            assert_eq!(self.json["status"], self.status.as_u16());
            let kind = format!("urn:postrider:problem:{}", self.code());
            assert_eq!(self.json["type"], kind);
            assert!(
                self.json["detail"]
                    .as_str()
                    .is_some_and(|detail| !detail.is_empty())
            );
        }
    }

    pub(crate) fn code(&self) -> &str {
        self.json["code"].as_str().unwrap_or_default()
    }

    /// Status and code of a refusal.
    #[track_caller]
    pub(crate) fn refused(&self, status: u16, code: &str) -> &Self {
        assert_eq!(
            (self.status.as_u16(), self.code()),
            (status, code),
            "{}",
            self.json
        );
        self
    }

    /// Pointer and code of each wrong field.
    pub(crate) fn fields(&self) -> Vec<(&str, &str)> {
        let errors = self.json["errors"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        errors
            .iter()
            .map(|e| (e["pointer"].as_str().unwrap(), e["code"].as_str().unwrap()))
            .collect()
    }

    pub(crate) fn id(&self) -> &str {
        self.json["id"].as_str().unwrap()
    }
}

pub(crate) fn with_key(key: &str, method: Method, path: &str) -> axum::http::request::Builder {
    Request::builder()
        .method(method)
        .uri(path)
        .header(header::AUTHORIZATION, format!("Bearer {key}"))
}

pub(crate) fn json_request(key: &str, path: &str) -> axum::http::request::Builder {
    with_key(key, Method::POST, path).header(header::CONTENT_TYPE, "application/json")
}

/// The smallest email that is right.
pub(crate) fn email() -> Value {
    serde_json::json!({
        "from": "Acme <hello@acme.test>",
        "to": ["Ana <ana@example.com>"],
        "subject": "Hi",
        "text": "Hello."
    })
}

pub(crate) fn fresh_uuid() -> uuid::Uuid {
    let random = *uuid::Uuid::new_v4().as_bytes();
    let mut ten = [0; 10];
    ten.copy_from_slice(&random[..10]);
    uuid_v7(u64::try_from(Clock::system().unix_ms()).unwrap(), ten)
}

fn start_acceptor(store: &Store, clock: &Clock, shutdown: &Shutdown) -> Acceptor {
    let clock = clock.clone();
    Acceptor::start(
        store.clone(),
        Arc::new(move || clock.now()),
        Arc::new(store::NoHints),
        Arc::new(store::NoObserver),
        shutdown.token(),
    )
}

async fn new_account(state: &AppState, domain: &str) -> Account {
    let (store, now) = (&state.store, state.clock.now());
    let id = AccountId::from_uuid(fresh_uuid());
    let account = store
        .create_account(id, &id.to_string(), now)
        .await
        .unwrap();
    for (name, class) in [
        ("transactional", StreamClass::Transactional),
        ("news", StreamClass::Broadcast),
    ] {
        let id = StreamId::from_uuid(fresh_uuid());
        store
            .create_stream(id, account.no, name, class)
            .await
            .unwrap();
    }
    for (name, verified) in [(domain, true), ("pending.test", false)] {
        let id = DomainId::from_uuid(fresh_uuid());
        let name = DomainName::parse(name).unwrap();
        let domain = store
            .create_domain(id, account.no, &name, now)
            .await
            .unwrap();
        if verified {
            store.verify_domain(domain.no, now).await.unwrap();
        }
    }
    account
}

async fn new_key(
    state: &AppState,
    account: &Account,
    mode: api::keys::KeyMode,
    scopes: &[&str],
) -> String {
    insert_key(state, account, mode, scopes, None).await.1
}

/// A key that may expire; with its id, to revoke it.
pub(crate) async fn insert_key(
    state: &AppState,
    account: &Account,
    mode: api::keys::KeyMode,
    scopes: &[&str],
    expires_at: Option<time::OffsetDateTime>,
) -> (ApiKeyId, String) {
    let mut random = [0; 32];
    random[..16].copy_from_slice(uuid::Uuid::new_v4().as_bytes());
    random[16..].copy_from_slice(uuid::Uuid::new_v4().as_bytes());
    let key = api::keys::generate(mode, random);
    let id = ApiKeyId::from_uuid(fresh_uuid());
    let scopes: Vec<String> = scopes.iter().map(ToString::to_string).collect();
    let test = mode == api::keys::KeyMode::Test;
    let now = state.clock.now();
    state
        .store
        .create_key(
            id, account.no, key.hash, &key.hint, test, &scopes, now, expires_at,
        )
        .await
        .unwrap();
    (id, key.secret)
}
