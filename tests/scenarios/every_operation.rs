//! Every operation of the published document: closed without a key, closed to a key that lacks its
//! one scope, blind to what other accounts own, and open to a key that holds that scope and no
//! other. An operation that the table below does not know fails the test.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use reqwest::{Method, RequestBuilder, header};
use serde_json::{Value, json};
use tests::api::{Answer, Api, message};
use tests::dns::Dns;
use tests::platform::Platform;
use tests::sink::{Sink, Verdict};
use tests::take_turn;
use tests::tenant::Tenant;

/// Operations that are not tried here, and why. This list may only get shorter.
const EXCEPTIONS: [(&str, &str); 1] = [(
    "listInbox",
    "has a token of the configuration instead of keys, and is not there without one; \
     api/tests/it/sandbox.rs tries it",
)];

/// How long the slow site takes with each message: longer than the test.
const ANSWER_MS: u64 = 25_000;

/// A request that succeeds, made anew for each operation by [`World::request`].
struct Try {
    /// What the path's parameters become, in order. The first one names a thing of the account.
    path: Vec<String>,
    /// With its `?`.
    query: String,
    body: Option<Body>,
    status: u16,
    /// Whether the thing was made by a test key, so that test keys may reach it.
    test_thing: bool,
}

struct Body {
    media_type: &'static str,
    text: String,
}

impl Try {
    fn expecting(status: u16) -> Self {
        Self {
            path: Vec::new(),
            query: String::new(),
            body: None,
            status,
            test_thing: false,
        }
    }

    fn on(self, id: impl Into<String>) -> Self {
        let mut path = self.path;
        path.push(id.into());
        Self { path, ..self }
    }

    fn query(self, query: &str) -> Self {
        let query = query.to_owned();
        Self { query, ..self }
    }

    fn json(self, body: &Value) -> Self {
        let (media_type, text) = ("application/json", body.to_string());
        let body = Some(Body { media_type, text });
        Self { body, ..self }
    }

    fn test_thing(self) -> Self {
        Self {
            test_thing: true,
            ..self
        }
    }

    /// The same about another thing of the same kind, which nobody owns.
    fn about_nothing(&self) -> Vec<String> {
        let mut path = self.path.clone();
        let id = &mut path[0];
        let other = if id.ends_with('7') { '8' } else { '7' };
        id.pop();
        id.push(other);
        path
    }
}

impl World {
    /// The table: how each operation succeeds. New operations get an arm here.
    async fn request(&self, operation: &str) -> Option<Try> {
        let ok = || Try::expecting(200);
        Some(match operation {
            "sendEmail" => Try::expecting(202).json(&self.mail("fine@sink.test")),
            "listEmails" => ok().query("?limit=5"),
            "getEmail" | "getEmailContent" => ok().on(self.sent().await),
            "getTranscript" => ok().on(self.waiting().await).on("1"),
            "changeEmail" => {
                let body = json!({"send_at": self.tomorrow()});
                ok().on(self.untried().await).json(&body)
            }
            "cancelEmail" => ok().on(self.waiting().await),
            "resendEmail" => Try::expecting(202).on(self.sent().await),
            "actOnEmails" => {
                let body = json!({"action": "retry_now", "filter": {"stream": "transactional"}});
                Try::expecting(202).json(&body)
            }
            "listSandboxMessages" => ok(),
            "getSandboxMessage" | "getSandboxMessageRaw" => {
                ok().on(self.in_sandbox().await).test_thing()
            }
            "listDomains" | "listWebhooks" => ok(),
            "createDomain" => Try::expecting(201).json(&json!({"name": "new.acme.test"})),
            "getDomain" => ok().on(self.domain("read.acme.test").await),
            "deleteDomain" => Try::expecting(204).on(self.domain("gone.acme.test").await),
            "verifyDomain" => ok().on(self.domain("looked.acme.test").await),
            "rotateDomainKey" => ok().on(self.domain("rotated.acme.test").await),
            "listSuppressions" => ok().query("?address=nobody%40sink.test"),
            "createSuppression" => {
                Try::expecting(201).json(&json!({"address": "new@suppressed.test"}))
            }
            "getSuppression" => ok().on(self.suppression("read@suppressed.test").await),
            "deleteSuppression" => {
                Try::expecting(204).on(self.suppression("gone@suppressed.test").await)
            }
            "createWebhook" => Try::expecting(201).json(&webhook()),
            "getWebhook" => ok().on(self.webhook().await),
            "deleteWebhook" => Try::expecting(204).on(self.webhook().await),
            _ => return None,
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_is_closed_to_strangers_and_open_to_its_scope() {
    let _turn = take_turn();
    let operations = Operation::of_the_document();
    let missed = unknown_exceptions(&operations);
    assert!(
        missed.is_empty(),
        "exceptions without operation: {missed:?}"
    );
    let Some(world) = World::start(&operations).await else {
        return;
    };
    let (mut untried, mut wrong) = (Vec::new(), Vec::new());
    for operation in &operations {
        if EXCEPTIONS.iter().any(|(id, _)| *id == operation.id) {
            continue;
        }
        match world.request(&operation.id).await {
            Some(request) => world.check(operation, &request, &mut wrong).await,
            None => untried.push(&operation.id),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(
        untried.is_empty(),
        "no request in the table of this file succeeds for {untried:?}"
    );
}

/// One operation of `openapi.yaml`.
struct Operation {
    id: String,
    method: Method,
    path: String,
    /// None: it needs no key.
    scope: Option<String>,
    /// Status codes it says it may answer with.
    statuses: BTreeSet<String>,
}

impl Operation {
    fn of_the_document() -> Vec<Self> {
        let text = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../openapi.yaml"));
        let document: Value = yaml_serde::from_str(text).unwrap();
        let mut all = Vec::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, said) in item.as_object().unwrap() {
                all.push(Self::read(path, method, said));
            }
        }
        let ids: BTreeSet<&str> = all.iter().map(|one| one.id.as_str()).collect();
        assert_eq!(ids.len(), all.len(), "an operationId stands there twice");
        all
    }

    fn read(path: &str, method: &str, said: &Value) -> Self {
        let id = said["operationId"].as_str();
        let security = said["security"].as_array();
        let security = security.unwrap_or_else(|| panic!("{path} says nothing about keys"));
        let needs = security[0]["api_key"].as_array();
        // One scope exactly, so that a key can be tried that has all but this one.
        let scope = needs.map(|scopes| match scopes.as_slice() {
            [scope] => scope.as_str().unwrap().to_owned(),
            _ => panic!("{method} {path} does not name one scope: {scopes:?}"),
        });
        let statuses = said["responses"].as_object().unwrap().keys();
        Self {
            id: id.unwrap_or_else(|| panic!("{path} has no id")).to_owned(),
            method: method.to_uppercase().parse().unwrap(),
            path: path.to_owned(),
            scope,
            statuses: statuses.cloned().collect(),
        }
    }

    /// The path with these parameters.
    fn at(&self, parameters: &[String], query: &str) -> String {
        let mut pieces = self.path.split('{');
        let mut path = pieces.next().unwrap().to_owned();
        let mut given = parameters.iter();
        for piece in pieces {
            let given = given.next();
            path += given.unwrap_or_else(|| panic!("{}: too few parameters", self.id));
            path += piece.split_once('}').unwrap().1;
        }
        assert!(given.next().is_none(), "{}: too many parameters", self.id);
        path + query
    }
}

fn unknown_exceptions(operations: &[Operation]) -> Vec<&'static str> {
    let known = |id: &str| operations.iter().any(|operation| operation.id == id);
    let ids = EXCEPTIONS.iter().map(|(id, _)| *id);
    ids.filter(|id| !known(id)).collect()
}

/// An installation with things that two accounts own.
struct World {
    owner: Api,
    tester: Api,
    stranger: Api,
    /// For each scope a key that holds nothing else.
    only: BTreeMap<String, Api>,
    /// For each scope a key that holds all but it.
    all_but: BTreeMap<String, Api>,
    platform: Platform,
    slow: Sink,
    _sink: Sink,
    _dns: Dns,
}

impl World {
    async fn start(operations: &[Operation]) -> Option<Self> {
        let (sink, dns) = (sink().await, Dns::start().await);
        let slow = Sink::options()
            .latency_ms(ANSWER_MS..=ANSWER_MS)
            .start()
            .await;
        let builder = Platform::builder()
            .route("slow.test", slow.address)
            .route("*", sink.address)
            .connections_per_site(1)
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
            slow,
            _sink: sink,
            _dns: dns,
        })
    }

    /// Tries an operation in every way; what is not as it has to be is added to `wrong`.
    async fn check(&self, operation: &Operation, request: &Try, wrong: &mut Vec<String>) {
        let judge = |who: &str, answer: &Answer, status: u16, code: Option<&str>| {
            let found = (answer.status.as_u16(), answer.json()["code"].clone());
            let same = found.0 == status && code.is_none_or(|code| found.1 == code);
            let told = operation.statuses.contains(&status.to_string());
            let id = &operation.id;
            (!same || !told).then(|| {
                format!(
                    "{id} {who}: expected {status} {code:?} (documented: {told}), got {answer:?}"
                )
            })
        };
        let mine = operation.at(&request.path, &request.query);
        let ask = async |api: &Api, path: &str| {
            let asked = api.request(operation.method.clone(), path);
            api.ask(with_body(asked, request)).await.unwrap()
        };
        let scope = operation.scope.as_ref();
        if let Some(scope) = scope {
            let client = self.owner.client();
            let keyless = client.request(operation.method.clone(), self.owner.url(&mine));
            let answer = self.owner.ask(with_body(keyless, request)).await.unwrap();
            wrong.extend(judge(
                "without a key",
                &answer,
                401,
                Some("missing_api_key"),
            ));
            let answer = ask(&self.all_but[scope], &mine).await;
            wrong.extend(judge(
                "without its scope",
                &answer,
                403,
                Some("missing_scope"),
            ));
        }
        if !request.path.is_empty() {
            let foreign = ask(&self.stranger, &mine).await;
            wrong.extend(judge("of a stranger", &foreign, 404, Some("not_found")));
            let nothing = operation.at(&request.about_nothing(), &request.query);
            let nothing = ask(&self.owner, &nothing).await;
            wrong.extend(judge("about nothing", &nothing, 404, Some("not_found")));
            if without_request(&foreign) != without_request(&nothing) {
                wrong.push(format!(
                    "{}: foreign things show: {foreign:?}",
                    operation.id
                ));
            }
            if !request.test_thing {
                let answer = ask(&self.tester, &mine).await;
                let status = answer.status.as_u16();
                let status = if status == 403 { 403 } else { 404 };
                wrong.extend(judge(
                    "of a test key about a live thing",
                    &answer,
                    status,
                    None,
                ));
            }
        }
        let api = scope.map_or(&self.owner, |scope| &self.only[scope]);
        let answer = ask(api, &mine).await;
        wrong.extend(judge("with its scope alone", &answer, request.status, None));
    }

    fn mail(&self, to: &str) -> Value {
        message(&self.platform.tenant.domain, to)
    }

    /// A message that was delivered.
    async fn sent(&self) -> String {
        let id = self.owner.send(&self.mail("fine@sink.test")).await;
        self.owner.becomes(&id, "delivered").await;
        id
    }

    /// A message that was tried once and waits.
    async fn waiting(&self) -> String {
        let id = self.owner.send(&self.mail("busy@sink.test")).await;
        self.owner.becomes(&id, "deferred").await;
        id
    }

    /// A message that was not tried yet: the only connection to its site waits for an answer.
    async fn untried(&self) -> String {
        let first = self.owner.send(&self.mail("first@slow.test")).await;
        self.slow.has_dots(1).await;
        let second = self.owner.send(&self.mail("second@slow.test")).await;
        assert_eq!(self.owner.email(&first).await["status"], "queued");
        second
    }

    /// What the sandbox received of a message of the test key.
    async fn in_sandbox(&self) -> String {
        let id = self.tester.send(&self.mail("fine@sink.test")).await;
        self.tester.becomes(&id, "delivered").await;
        let listed = self.tester.get("/v1/sandbox/messages").await.json();
        let listed = listed["data"].as_array().unwrap();
        let mine = listed.iter().find(|one| one["message_id"] == id.as_str());
        mine.unwrap()["id"].as_str().unwrap().to_owned()
    }

    async fn domain(&self, name: &str) -> String {
        self.made("/v1/domains", &json!({"name": name})).await
    }

    async fn suppression(&self, address: &str) -> String {
        self.made("/v1/suppressions", &json!({"address": address}))
            .await
    }

    async fn webhook(&self) -> String {
        self.made("/v1/webhooks", &webhook()).await
    }

    /// Makes a thing; its id.
    async fn made(&self, path: &str, body: &Value) -> String {
        let answer = self.owner.post(path, body).await;
        assert_eq!(answer.status, 201, "{path}: {answer:?}");
        answer.json()["id"].as_str().unwrap().to_owned()
    }

    /// A time to which mail can be moved.
    fn tomorrow(&self) -> String {
        let now = std::time::SystemTime::now();
        let unix = now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let at = time::OffsetDateTime::from_unix_timestamp(unix as i64 + 86_400).unwrap();
        at.format(&time::format_description::well_known::Rfc3339)
            .unwrap()
    }
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

fn webhook() -> Value {
    json!({"url": "http://127.0.0.1:9/hook", "events": ["email.delivered"]})
}

fn with_body(request: RequestBuilder, given: &Try) -> RequestBuilder {
    match &given.body {
        None => request,
        Some(Body { media_type, text }) => request
            .header(header::CONTENT_TYPE, *media_type)
            .body(text.clone()),
    }
}

fn without_request(answer: &Answer) -> Value {
    let mut body = answer.json();
    body["request_id"] = Value::Null;
    body
}
