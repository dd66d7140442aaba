//! Every operation of the published document: closed without a key, closed to a key that lacks its
//! one scope, blind to what other accounts own, and open to a key that holds that scope and no
//! other. What stands in a path, a query or a field may be anything: the answer is a problem that
//! the document tells of, never a fault. An operation that `table.rs` does not know fails the test.

#![allow(clippy::unwrap_used)]

mod document;
mod hostile;
mod table;
mod world;

use document::{Operation, operations};
use reqwest::{RequestBuilder, header};
use serde_json::Value;
use table::{Body, Try};
use tests::api::{Answer, Api};
use tests::take_turn;
use world::World;

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_is_closed_to_strangers_and_open_to_its_scope() {
    let _turn = take_turn();
    let operations = operations();
    let Some(world) = World::start(&operations).await else {
        return;
    };
    let (mut untried, mut wrong) = (Vec::new(), Vec::new());
    for operation in &operations {
        match world.request(&operation.id).await {
            Some(request) => wrong.extend(Check::of(&world, operation, &request).await),
            None => untried.push(&operation.id),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(
        untried.is_empty(),
        "no request in table.rs succeeds for {untried:?}"
    );
    assert!(operations.len() > 40, "{}", operations.len());
}

/// One operation, tried in every way.
struct Check<'a> {
    world: &'a World,
    operation: &'a Operation,
    request: &'a Try,
    /// What was not as it has to be.
    wrong: Vec<String>,
}

impl<'a> Check<'a> {
    async fn of(world: &'a World, operation: &'a Operation, request: &'a Try) -> Vec<String> {
        let mut check = Self {
            world,
            operation,
            request,
            wrong: Vec::new(),
        };
        let path = operation.at(&request.path, &request.query);
        match &operation.scope {
            Some(scope) => check.with_keys(scope, &path).await,
            None if path.starts_with("/inbox") => check.with_token(&path).await,
            None => {
                let open = world.owner.without_key();
                let answer = check.ask(&open, &path).await;
                check.expect("without a key", &answer, request.status, None);
            }
        }
        check.wrong
    }

    /// Success comes last: it shows that nothing happened before, where it can come only once.
    async fn with_keys(&mut self, scope: &str, path: &str) {
        let world = self.world;
        let answer = self.ask(&world.owner.without_key(), path).await;
        self.expect("without a key", &answer, 401, Some("missing_api_key"));
        let answer = self.ask(&world.all_but[scope], path).await;
        self.expect("without its scope", &answer, 403, Some("missing_scope"));
        for nothing in self.request.about_nothing() {
            let nothing = self.operation.at(&nothing, &self.request.query);
            let nothing = self.ask(&world.owner, &nothing).await;
            self.expect("about nothing", &nothing, 404, Some("not_found"));
            let foreign = self.ask(&world.stranger, path).await;
            self.expect("of a stranger", &foreign, 404, Some("not_found"));
            if without_request(&foreign) != without_request(&nothing) {
                let id = &self.operation.id;
                let text = format!("{id}: foreign things show: {foreign:?}");
                self.wrong.push(text);
            }
        }
        if !self.request.path.is_empty() && !self.request.test_thing {
            let answer = self.ask(&world.tester, path).await;
            let who = "of a test key about a live thing";
            match answer.json()["code"].as_str() {
                Some("test_key_not_allowed") => self.expect(who, &answer, 403, None),
                _ => self.expect(who, &answer, 404, Some("not_found")),
            }
        }
        let answer = self.ask(&world.only[scope], path).await;
        self.expect("with its scope alone", &answer, self.request.status, None);
    }

    async fn with_token(&mut self, path: &str) {
        let inbox = self.world.inbox().await;
        let expected = self.request.status;
        for (token, status) in [("", 404), ("x", 404), (&inbox.token, expected)] {
            let answer = self.ask(&inbox.api, &format!("{path}?token={token}")).await;
            self.expect(&format!("with the token {token:?}"), &answer, status, None);
        }
        for nothing in self.request.about_nothing() {
            let nothing = self.operation.at(&nothing, "?token=") + &inbox.token;
            let answer = self.ask(&inbox.api, &nothing).await;
            self.expect("about nothing", &answer, 404, Some("not_found"));
        }
    }

    async fn ask(&self, api: &Api, path: &str) -> Answer {
        let asked = api.request(self.operation.method.clone(), path);
        let body = self.request.body.as_ref();
        api.ask(with_body(asked, body)).await.unwrap()
    }

    fn expect(&mut self, who: &str, answer: &Answer, status: u16, code: Option<&str>) {
        let found = (answer.status.as_u16(), answer.json()["code"].clone());
        let same = found.0 == status && code.is_none_or(|code| found.1 == code);
        let told = self.operation.tells(status);
        if !same || !told {
            let id = &self.operation.id;
            self.wrong.push(format!(
                "{id} {who}: expected {status} {code:?} (documented: {told}), got {answer:?}"
            ));
        }
    }
}

fn with_body(request: RequestBuilder, body: Option<&Body>) -> RequestBuilder {
    match body {
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
