//! Whatever arrives over HTTP is answered with a clear problem or accepted whole: nothing bad is
//! stored, nothing is shown to strangers, and the mail of others goes on meanwhile.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tests::api::{Api, message};
use tests::platform::Platform;
use tests::sink::Sink;
use tests::tenant::Tenant;
use tests::{PATIENCE, ledger, take_turn, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_are_refused_and_nothing_of_them_is_stored() {
    let _turn = take_turn();
    let sink = Sink::options().start().await;
    let Some(platform) = Platform::builder().route("*", sink.address).start().await else {
        return;
    };
    let api = platform.api(0);

    requests_that_are_no_messages(&api).await;
    too_large(&platform).await;
    control_characters_in_every_field(&api).await;
    senders_and_ids_of_others(&platform, &api).await;
    assert_eq!(
        ledger::messages(&platform.pool).await,
        1,
        "only the other account's message"
    );

    repeated_keys(&api).await;
    strangers_in_the_same_batch(&api).await;
    ledger::settled(&platform.pool, PATIENCE).await;
    let fates = ledger::fates(&platform.pool).await;
    assert!(fates.values().all(|fate| fate.finals == 1), "{fates:#?}");

    revoked_keys(&platform, &api).await;
}

async fn requests_that_are_no_messages(api: &Api) {
    let post = |body: &'static str| {
        let request = api.request(Method::POST, "/v1/emails").body(body);
        let request = request.header("content-type", "application/json");
        async move { api.ask(request).await.unwrap() }
    };
    for body in [
        "",
        "{",
        "{\"from\":",
        "nonsense",
        "{} {}",
        "{\"subject\":\"\u{1}\"}",
        "{\"subject\":\"\\ud800\"}",
    ] {
        post(body).await.is_problem(400, "malformed_json");
    }
    for body in [
        "[]",
        "7",
        "null",
        "{\"to\": 7}",
        "{\"subject\": [\"a\"]}",
        "{\"headers\": []}",
    ] {
        post(body).await.is_problem(422, "validation_failed");
    }
    let answer = post("{\"form\": \"a@acme.test\"}").await;
    answer.is_problem(422, "validation_failed");
    assert!(
        answer.text.contains("form"),
        "the unknown field is not named: {}",
        answer.text
    );
    // All that is wrong is said at once.
    let answer = post("{\"from\": \"\", \"to\": [\"@\"], \"tags\": [\"\"]}").await;
    answer.is_problem(422, "validation_failed");
    assert!(
        answer.json()["errors"].as_array().unwrap().len() >= 3,
        "{}",
        answer.text
    );

    let request = api.request(Method::POST, "/v1/emails").body("{}");
    let request = request.header("content-type", "text/plain");
    api.ask(request)
        .await
        .unwrap()
        .is_problem(415, "unsupported_media_type");
    api.get("/v1/nothing").await.is_problem(404, "not_found");
    let request = api.request(Method::PUT, "/v1/emails");
    api.ask(request)
        .await
        .unwrap()
        .is_problem(405, "method_not_allowed");
    let no_key = api
        .client()
        .post(api.url("/v1/emails"))
        .json(&message("acme.test", "a@b.test"));
    let answer = api.ask(no_key).await.unwrap();
    answer.is_problem(401, "missing_api_key");
    assert!(!answer.header("www-authenticate").is_empty(), "{answer:?}");
    let unknown = format!("pr_live_{}", "0".repeat(52));
    for key in ["", "pr_live_short", &unknown, "' OR 1=1 --"] {
        let api = api.with_key(key);
        let answer = api
            .post("/v1/emails", &message("acme.test", "a@b.test"))
            .await;
        answer.is_problem(401, "invalid_api_key");
        assert!(!answer.header("www-authenticate").is_empty(), "{answer:?}");
    }
}

/// The size is refused by its announcement: nobody has to send it first.
async fn too_large(platform: &Platform) {
    let mut stream = TcpStream::connect(platform.nodes[0].file.api)
        .await
        .unwrap();
    let request = format!(
        "POST /v1/emails HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\
         Content-Type: application/json\r\nContent-Length: 600000000\r\n\r\n{{",
        platform.tenant.key
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut start = [0; 12];
    let read = stream.read_exact(&mut start);
    tokio::time::timeout(Duration::from_secs(10), read)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&start, b"HTTP/1.1 413");
}

async fn control_characters_in_every_field(api: &Api) {
    for bad in ["a\0b", "a\r\nBcc: victim@example.net", "a\nb", "a\rb"] {
        let fields = [
            ("from", json!(format!("{bad} <hello@acme.test>"))),
            ("from", json!(format!("{bad}@acme.test"))),
            ("to", json!([format!("{bad}@b.test")])),
            ("cc", json!([format!("{bad} <a@b.test>")])),
            ("bcc", json!(format!("a@{bad}.test"))),
            ("reply_to", json!([format!("{bad} <a@b.test>")])),
            ("subject", json!(bad)),
            ("headers", json!({"X-A": bad})),
            ("headers", json!({bad: "a"})),
            ("tags", json!([bad])),
            ("metadata", json!({"a": format!("\0{bad}")})),
            ("metadata", json!({format!("\0{bad}"): "a"})),
            ("stream", json!(bad)),
            ("expires_in", json!(bad)),
            ("html", json!(format!("\0{bad}"))),
            ("text", json!(format!("\0{bad}"))),
        ];
        for (field, value) in fields {
            let mut body = message("acme.test", "a@b.test");
            body[field] = value.clone();
            let answer = api.post("/v1/emails", &body).await;
            let refused = answer.status == 422 && answer.json()["code"] == "validation_failed";
            assert!(refused, "{field} = {value}: {answer:?}");
            let pointer = answer.json()["errors"][0]["pointer"]
                .as_str()
                .unwrap()
                .to_owned();
            assert!(
                pointer.starts_with(&format!("/{field}")),
                "{field}: {pointer}"
            );
        }
    }
}

async fn senders_and_ids_of_others(platform: &Platform, api: &Api) {
    for domain in ["not-verified.example", "sub.acme.test", "other.test"] {
        let answer = api.post("/v1/emails", &message(domain, "a@b.test")).await;
        answer.is_problem(403, "sender_not_verified");
        assert!(answer.text.contains(domain), "{answer:?}");
    }
    let config = platform.admin_config.clone();
    let other = tokio::task::block_in_place(|| Tenant::create(&config, "other"));
    let stranger = api.with_key(&other.key);
    let id = stranger.send(&message("other.test", "a@b.test")).await;
    stranger.becomes(&id, "delivered").await;
    let unknown = "/v1/emails/msg_01kasxq2bke9qa1bz2t0zc6800";
    let foreign = api.get(&format!("/v1/emails/{id}")).await;
    foreign.is_problem(404, "not_found");
    let without_request = |mut body: Value| {
        body["request_id"] = Value::Null;
        body.to_string()
            .replace(&id, "ID")
            .replace("msg_01kasxq2bke9qa1bz2t0zc6800", "ID")
    };
    let nowhere = without_request(api.get(unknown).await.json());
    assert_eq!(
        without_request(foreign.json()),
        nowhere,
        "foreign and unknown can be told apart"
    );
    for bad in [
        "msg_",
        "dlv_01kasxq2bke9qa1bz2t0zc6801",
        "%00",
        "..%2f..",
        "msg_!",
    ] {
        let answer = api.get(&format!("/v1/emails/{bad}")).await;
        assert!(answer.status.is_client_error(), "{bad}: {answer:?}");
    }
}

async fn repeated_keys(api: &Api) {
    let body = message("acme.test", "twice@b.test");
    let post = |body: &Value| {
        let request = api
            .request(Method::POST, "/v1/emails")
            .header("Idempotency-Key", "k-1");
        let request = request.json(body);
        async move { api.ask(request).await.unwrap() }
    };
    let (first, again) = (post(&body).await, post(&body).await);
    assert_eq!((first.status.as_u16(), again.status.as_u16()), (202, 202));
    assert_eq!(first.json(), again.json());
    assert_eq!(again.header("idempotent-replayed"), "true");
    post(&message("acme.test", "other@b.test"))
        .await
        .is_problem(409, "idempotency_mismatch");
    for key in ["", "a b", &"k".repeat(257)] {
        let request = api
            .request(Method::POST, "/v1/emails")
            .header("Idempotency-Key", key);
        let answer = api.ask(request.json(&body)).await.unwrap();
        answer.is_problem(400, "invalid_idempotency_key");
    }
}

async fn strangers_in_the_same_batch(api: &Api) {
    let sends = (0..60).map(|number| {
        let mut body = message("acme.test", &format!("stranger{number}@b.test"));
        let bad = number % 3 == 0;
        if bad {
            body["subject"] = json!("a\0b");
        }
        let api = api.clone();
        tokio::spawn(async move { (bad, api.post("/v1/emails", &body).await) })
    });
    for send in sends.collect::<Vec<_>>() {
        let (bad, answer) = send.await.unwrap();
        assert_eq!(answer.status, if bad { 422 } else { 202 }, "{answer:?}");
    }
}

/// Keys are remembered for a few seconds.
async fn revoked_keys(platform: &Platform, api: &Api) {
    platform.tenant.revoke_keys(&platform.pool).await;
    let answer = until("the revoked key is refused", PATIENCE, || async {
        let answer = api
            .post("/v1/emails", &message("acme.test", "late@b.test"))
            .await;
        (answer.status != 202).then_some(answer)
    })
    .await;
    answer.is_problem(401, "invalid_api_key");
}
