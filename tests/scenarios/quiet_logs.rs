//! Logs tell operators what happens without telling whom somebody wrote to or what: mail full of
//! words that occur nowhere else goes through success and every failure that is cheap to reach, and
//! none of the words, keys and secrets is in a log at level info.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tests::api::Api;
use tests::dns::{Dns, Trouble};
use tests::platform::{MASTER_KEY, Platform};
use tests::receiver::{Manner, WebhookReceiver};
use tests::sink::{Asked, Sink, Verdict};
use tests::{PATIENCE, place, take_turn, until};

/// In every word of a customer; as a whole word in no program.
const MARK: &str = "zqcanary";

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_customers_write_is_in_the_logs() {
    let _turn = take_turn();
    let dns = Dns::start().await;
    dns.trouble("servfail.test", Some(Trouble::ServFail));
    let sink = Sink::options().script(by_local_part).start().await;
    let builder = Platform::builder()
        .route("customer.test", sink.address)
        .route("down.test", place::free_address())
        .nameserver(dns.address)
        .deadline_secs(3)
        .node("front", "api")
        .node("back", "mta,worker");
    let Some(mut platform) = builder.start().await else {
        return;
    };
    for node in &mut platform.nodes {
        node.kill();
        node.environment = vec![("POSTRIDER_LOG__FORMAT".to_owned(), "json".to_owned())];
        node.restart().await;
    }
    let api = platform.api(0);
    let domain = platform.tenant.domain.clone();
    let mut secrets = webhooks(&api).await;
    secrets.extend([
        platform.tenant.key.clone(),
        platform.tenant.test_key.clone(),
    ]);
    secrets.insert(STANDARD.encode(MASTER_KEY));

    every_fate(&api, &sink, &domain).await;
    refused_requests(&api, &domain).await;
    let test_api = api.with_key(&platform.tenant.test_key);
    for to in ["unknown", "greylist", "delivered"] {
        let id = test_api
            .send(&mail(&domain, &format!("{to}@{MARK}-world.test")))
            .await;
        settled(&test_api, &id).await;
    }

    // PostgreSQL goes away under requests and outcomes, and comes back.
    tokio::task::block_in_place(|| platform.cluster.kill());
    let lost = api
        .post(
            "/v1/emails",
            &mail(&domain, &format!("{MARK}-lost@customer.test")),
        )
        .await;
    assert_eq!(lost.status, StatusCode::SERVICE_UNAVAILABLE, "{lost:?}");
    tokio::task::block_in_place(|| platform.cluster.start_again());
    let back = format!("{MARK}-back@customer.test");
    let id = until("mail is accepted again", PATIENCE, || async {
        let answer = api.post("/v1/emails", &mail(&domain, &back)).await;
        (answer.status == 202).then(|| answer.json()["id"].as_str().unwrap().to_owned())
    })
    .await;
    settled(&api, &id).await;

    // A node dies with mail in its hands; the next one reads its journal.
    platform.node("back").kill();
    let id = api
        .send(&mail(&domain, &format!("{MARK}-orphan@customer.test")))
        .await;
    platform.node("back").restart().await;
    settled(&api, &id).await;
    for node in &mut platform.nodes {
        tokio::task::block_in_place(|| node.terminate(PATIENCE)).unwrap();
    }

    for node in &platform.nodes {
        check_log(&node.file.name, &node.log(), &secrets);
    }
}

fn by_local_part(asked: &Asked) -> Verdict {
    // The sink's replies are fixed texts, so these name a mailbox that is always asked for.
    match asked.local_part.trim_start_matches(MARK) {
        "-later" => Verdict::AtRcpt("451 4.7.1 <zqcanary-later@customer.test> zqcanary greylisted"),
        "-nobody" => Verdict::AtRcpt("550 5.1.1 <zqcanary-nobody@customer.test> zqcanary unknown"),
        "-spam" => Verdict::AtDot("554 5.7.1 zqcanary subject looks like spam"),
        "-blocked" => Verdict::AtRcpt("421 4.7.0 zqcanary too many connections from you"),
        _ => Verdict::Accept,
    }
}

/// A message with the mark wherever a customer may write something.
fn mail(from_domain: &str, to: &str) -> Value {
    json!({
        "from": format!("{MARK} Sender <{MARK}-hello@{from_domain}>"),
        "to": [format!("{MARK} Recipient <{to}>")],
        "reply_to": format!("{MARK}-answers@customer.test"),
        "subject": format!("{MARK} subject"),
        "text": format!("{MARK} text"),
        "html": format!("<p>{MARK} html</p>"),
        "headers": {"X-Test-Id": to, "X-Note": format!("{MARK} field")},
        "attachments": [{"filename": format!("{MARK}.pdf"), "content": STANDARD.encode(format!("{MARK} file"))}],
        "tags": [format!("{MARK}-tag")],
        "metadata": {(format!("{MARK}_key")): format!("{MARK} value")},
    })
}

/// Endpoints that take their calls, fail, hang, and are not there. Their secrets.
async fn webhooks(api: &Api) -> BTreeSet<String> {
    let events = [
        "email.queued",
        "email.delivered",
        "email.deferred",
        "email.bounced",
    ];
    let mut secrets = BTreeSet::new();
    for manner in [Manner::Status(200), Manner::Status(500), Manner::Hangs] {
        let receiver = WebhookReceiver::start().await;
        receiver.behave(manner);
        let url = format!("{}?token={MARK}", receiver.url);
        secrets.insert(api.create_webhook(&url, &events).await);
        // For as long as the test runs.
        std::mem::forget(receiver);
    }
    let nobody = format!("http://{}/{MARK}", place::free_address());
    secrets.insert(api.create_webhook(&nobody, &events).await);
    secrets
}

async fn every_fate(api: &Api, sink: &Sink, domain: &str) {
    let unanswered = format!("{MARK}-unanswered@customer.test");
    sink.hang_up_on(&unanswered);
    let mut ids = Vec::new();
    for to in [
        format!("{MARK}-ana@customer.test"),
        format!("{MARK}-later@customer.test"),
        format!("{MARK}-nobody@customer.test"),
        format!("{MARK}-spam@customer.test"),
        format!("{MARK}-blocked@customer.test"),
        unanswered,
        format!("{MARK}@down.test"),
        format!("{MARK}@servfail.test"),
        format!("{MARK}@{MARK}-nowhere.test"),
    ] {
        ids.push(api.send(&mail(domain, &to)).await);
    }
    for id in &ids {
        settled(api, id).await;
    }
    // Once more: suppressed now.
    let nobody = format!("{MARK}-nobody@customer.test");
    let id = api.send(&mail(domain, &nobody)).await;
    api.becomes(&id, "suppressed").await;
    let mut scheduled = mail(domain, &nobody.replace("nobody", "moved"));
    scheduled["send_at"] = "2199-01-01T00:00:00Z".into();
    let refused = api.post("/v1/emails", &scheduled).await;
    assert_eq!(refused.status, 422, "{refused:?}");
    let raw = format!(
        "From: {MARK}-raw@{domain}\r\nTo: {MARK}-raw@customer.test\r\nSubject: {MARK} raw\r\n\r\n{MARK}\r\n"
    );
    let path = format!("/v1/emails/raw?to={MARK}-raw@customer.test");
    let request = api
        .request(Method::POST, &path)
        .header("content-type", "message/rfc822");
    let sent = api.ask(request.body(raw)).await.unwrap();
    assert_eq!(sent.status, 202, "{sent:?}");
}

/// Waits until the first attempt is over, however it ended.
async fn settled(api: &Api, id: &str) {
    let what = format!("{id} has been tried");
    until(&what, PATIENCE, || async {
        // A connection to a PostgreSQL that is no more may be found out here.
        let email = api.get(&format!("/v1/emails/{id}")).await.json();
        let events = email["deliveries"][0]["events"].as_array()?.len();
        (events >= 2).then_some(())
    })
    .await;
}

async fn refused_requests(api: &Api, domain: &str) {
    let good = format!("{MARK}-ana@customer.test");
    let expect = |status: u16, answer: tests::api::Answer| {
        assert_eq!(answer.status, status, "{answer:?}");
    };
    let stranger = api.with_key(&format!("pr_live_{MARK}{}", "0".repeat(44)));
    expect(401, stranger.post("/v1/emails", &mail(domain, &good)).await);
    expect(
        403,
        api.post("/v1/emails", &mail(&format!("{MARK}-foreign.test"), &good))
            .await,
    );
    for wrong in [
        json!({"to": [format!("{MARK} not an address")]}),
        json!({"subject": format!("{MARK}\r\nBcc: {MARK}@customer.test")}),
        json!({"text": format!("{MARK}\0")}),
        json!({"pool": format!("{MARK}-pool")}),
        json!({"stream": format!("{MARK}-stream")}),
        json!({(format!("{MARK}_unknown")): 1}),
    ] {
        let mut body = mail(domain, &good);
        body.as_object_mut()
            .unwrap()
            .extend(wrong.as_object().unwrap().clone());
        expect(422, api.post("/v1/emails", &body).await);
    }
    let broken = api
        .request(Method::POST, "/v1/emails")
        .header("content-type", "application/json");
    expect(
        400,
        api.ask(broken.body(format!("{{\"from\": \"{MARK}")))
            .await
            .unwrap(),
    );
    for path in [
        format!("/v1/emails/{MARK}"),
        format!("/{MARK}?{MARK}={MARK}"),
    ] {
        expect(404, api.get(&path).await);
    }
    let search = format!("/v1/emails?recipient={MARK}-ana@customer.test");
    expect(200, api.get(&search).await);
    let key = format!("{MARK}-order");
    for (to, status) in [(good.clone(), 202), (good.replace("ana", "eva"), 409)] {
        let request = api
            .request(Method::POST, "/v1/emails")
            .header("idempotency-key", &key);
        expect(
            status,
            api.ask(request.json(&mail(domain, &to))).await.unwrap(),
        );
    }
    let entry = json!({"address": format!("{MARK}-banned@customer.test")});
    expect(201, api.post("/v1/suppressions", &entry).await);
    let name = json!({"name": format!("{MARK}-own.test")});
    expect(201, api.post("/v1/domains", &name).await);
    // A call is given 5 s before it is put off.
    tokio::time::timeout(Duration::from_secs(20), async {
        until("a webhook was called and failed", PATIENCE, || async {
            let listed = api.get("/v1/webhooks").await.json();
            let hooks = listed["data"].as_array()?.clone();
            let mut failed = false;
            for hook in hooks {
                let path = format!("/v1/webhooks/{}/calls", hook["id"].as_str()?);
                failed |= api.get(&path).await.text.contains("500");
            }
            failed.then_some(())
        })
        .await;
    })
    .await
    .unwrap();
}

fn check_log(name: &str, log: &str, secrets: &BTreeSet<String>) {
    let mut levels = BTreeSet::new();
    for line in log.lines() {
        if let Ok(entry) = serde_json::from_str::<Value>(line) {
            levels.insert(entry["level"].as_str().unwrap().to_owned());
        }
        let lower = line.to_ascii_lowercase();
        assert!(
            !lower.contains(MARK),
            "{name} logged a customer's word: {line}"
        );
        let leaked = secrets.iter().any(|secret| line.contains(secret.as_str()));
        assert!(!leaked, "{name} logged a secret: {line}");
    }
    // Otherwise nothing was tested.
    assert!(
        levels.contains("INFO") && levels.contains("WARN"),
        "{name}: {levels:?}\n{log}"
    );
}
