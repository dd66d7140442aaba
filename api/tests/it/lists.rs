//! `GET /v1/emails` and what it leads to: content and transcripts. Strangers find nothing.

use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, Request};
use mail::event::EventType;
use mail::ids::MessageId;
use mail::text::DbText;
use serde_json::{Value, json};
use store::{EventFlags, LogCursor};
use uuid::Uuid;

use crate::platform::{Answer, Platform, email, fresh_uuid};
use crate::reading::Owner;

const PATIENCE: Duration = Duration::from_secs(20);

/// Does the worker's part until this many deliveries were written to the index.
pub(crate) async fn index(platform: &Platform, deliveries: usize) {
    let store = &platform.state.store;
    let owner = fresh_uuid();
    let mut written = 0;
    let filling = async {
        while written < deliveries {
            let lease = store.search_take(owner, PATIENCE).await.unwrap().unwrap();
            let page = store.read_search_log(lease.cursor, Uuid::nil(), 1_000);
            let page = page.await.unwrap();
            let to = LogCursor::at_horizon(page.horizon);
            // One at a time: an event of a delivery may follow another one of it.
            let mut lease = lease;
            for event in &page.events {
                let event = std::slice::from_ref(event);
                let (new, changes) = event.split_at(usize::from(event[0].is_first()));
                let rows = store.search_rows(new).await.unwrap();
                let done = store.write_search(&lease, to, &rows, changes);
                assert!(done.await.unwrap());
                lease.cursor = to;
            }
            written += page.events.len();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let lease = store.search_take(owner, PATIENCE).await.unwrap().unwrap();
        store.search_release(&lease).await.unwrap();
    };
    tokio::time::timeout(PATIENCE, filling).await.unwrap();
}

pub(crate) fn ids(answer: &Answer) -> Vec<&str> {
    assert_eq!(answer.status, 200, "{}", answer.json);
    let data = answer.json["data"].as_array().unwrap();
    data.iter()
        .map(|item| item["id"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn emails_are_listed_in_pages_newest_first() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let key = &platform.live_key;
    assert_eq!(
        platform.get(key, "/v1/emails").await.json,
        json!({"data": [], "has_more": false, "next": null})
    );
    let mut sent = Vec::new();
    for number in 0..5 {
        let mut body = email();
        body["subject"] = json!(format!("Number {number}"));
        body["tags"] = json!(["receipt"]);
        body["bcc"] = json!(["bo@example.org"]);
        sent.push(platform.accepted(key, &body).await.id().to_owned());
    }
    sent.sort_unstable();
    sent.reverse();
    index(&platform, 10).await;

    let first = platform.get(key, "/v1/emails?limit=2").await;
    assert_eq!(ids(&first), sent[..2]);
    assert_eq!(first.json["has_more"], true);
    assert_eq!(first.json["next"], sent[1]);
    let shown = &first.json["data"][0];
    let expected = json!({
        "id": sent[0], "created_at": shown["created_at"], "from": "Acme <hello@acme.test>",
        "to": ["ana@example.com", "bo@example.org"], "subject": shown["subject"],
        "stream": "transactional", "tags": ["receipt"], "status": "queued", "test": false
    });
    assert_eq!(*shown, expected);
    let second = platform
        .get(key, &format!("/v1/emails?limit=3&after={}", sent[1]))
        .await;
    assert_eq!(ids(&second), sent[2..]);
    assert_eq!(second.json["has_more"], false);
    assert_eq!(second.json["next"], Value::Null);
}

#[tokio::test]
async fn emails_are_found_by_each_parameter() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let key = &platform.live_key;
    let one = platform.accepted(key, &email()).await;
    let mut body = email();
    body["to"] = json!(["Bo <bo+1@example.org>"]);
    body["from"] = json!("news+b@acme.test");
    body["stream"] = json!("news");
    body["tags"] = json!(["a b&c"]);
    let two = platform.accepted(key, &body).await;
    let owner = Owner::of_all_shards(&platform).await;
    let id: MessageId = two.id().parse().unwrap();
    let rows = owner.queued(&platform, id).await;
    let bounced = owner.event(EventType::EmailBounced, EventFlags::FINAL, "550 5.1.1 no");
    owner.settle(&platform, &rows[0], bounced).await;
    index(&platform, 3).await;

    let both = [two.id(), one.id()];
    let mut newest_first = both;
    newest_first.sort_unstable_by(|a, b| b.cmp(a));
    let check = async |query: &str, expected: &[&str]| {
        let answer = platform.get(key, &format!("/v1/emails?{query}")).await;
        assert_eq!(ids(&answer), expected, "{query}");
    };
    check("recipient=ANA@example.com", &[one.id()]).await;
    check("recipient_domain=Example.ORG", &[two.id()]).await;
    // Written as it is, encoded, and as a form writes a space.
    for plus in ["+", "%2B", "%20"] {
        check(&format!("recipient=bo{plus}1@example.org"), &[two.id()]).await;
        check(&format!("from=news{plus}b@acme.test"), &[two.id()]).await;
    }
    check("recipient=%22bo+1%22@example.org", &[]).await;
    check("from=acme.test", &newest_first).await;
    check("from=elsewhere.test", &[]).await;
    check("tag=a%20b%26c", &[two.id()]).await;
    check("stream=news", &[two.id()]).await;
    check("status=bounced", &[two.id()]).await;
    check("status=bounced&recipient=ana@example.com", &[]).await;
    check("status=queued&stream=transactional", &[one.id()]).await;
    check("created_after=2001-01-01T00:00:00Z", &newest_first).await;
    check("created_before=2001-01-01T00:00:00%2B01:00", &[]).await;

    let stranger = platform.other_account("other.test").await;
    for query in [
        "",
        "?recipient=ana@example.com",
        "?tag=a%20b%26c",
        "?status=bounced",
    ] {
        let answer = platform.get(&stranger, &format!("/v1/emails{query}")).await;
        assert!(ids(&answer).is_empty(), "{query}");
    }
}

#[tokio::test]
async fn a_test_key_finds_test_mail_only() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let live = platform.accepted(&platform.live_key, &email()).await;
    let test = platform.accepted(&platform.test_key, &email()).await;
    index(&platform, 2).await;
    for query in [
        "",
        "?recipient=ana@example.com",
        "?stream=transactional",
        "?status=queued",
    ] {
        let path = format!("/v1/emails{query}");
        let found = platform.get(&platform.test_key, &path).await;
        assert_eq!(ids(&found), [test.id()], "{query}");
        assert_eq!(found.json["data"][0]["test"], true);
        let found = platform.get(&platform.live_key, &path).await;
        assert_eq!(ids(&found).len(), 2, "{query}");
    }
    for what in ["content", "attempts/1/transcript"] {
        platform
            .get(
                &platform.test_key,
                &format!("/v1/emails/{}/{what}", live.id()),
            )
            .await
            .refused(404, "not_found");
    }
}

#[tokio::test]
async fn wrong_parameters_are_all_named_and_nothing_breaks() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let key = &platform.live_key;
    let wrong = "recipient=a%0d%0ab@c.test&recipient_domain=a%00b&from=%3Cx@y%3E&tag=%00&stream=a%0ab\
                 &status=lost&created_after=yesterday&created_before=%F0%9F%8E%89";
    let answer = platform.get(key, &format!("/v1/emails?{wrong}")).await;
    answer.refused(422, "invalid_parameter");
    let mut named: Vec<&str> = answer
        .fields()
        .into_iter()
        .map(|(pointer, _)| pointer)
        .collect();
    named.sort_unstable();
    assert_eq!(
        named,
        [
            "/created_after",
            "/created_before",
            "/from",
            "/recipient",
            "/recipient_domain",
            "/status",
            "/stream",
            "/tag"
        ]
    );
    for query in [
        "limit=0",
        "limit=101",
        "limit=x",
        "limit=-1",
        "after=1",
        "after=msg_x",
        "subject=Hi",
        "stream=nothing",
        "tag=",
        "recipient=",
        "recipient=%FF@a.test",
        "status=queued&status=queued",
        &format!("tag={}", "x".repeat(300)),
        "from=",
        "after=dlv_01kasxq2bke9qa1bz2t0zc6801",
    ] {
        platform
            .get(key, &format!("/v1/emails?{query}"))
            .await
            .refused(422, "invalid_parameter");
    }
    // The ends of time.
    for query in [
        "created_before=0000-01-01T00:00:00Z",
        "created_after=9999-12-31T23:59:59.999999999Z",
        "created_after=0000-01-01T00:00:00Z&created_before=9999-12-31T23:59:59Z",
    ] {
        let answer = platform.get(key, &format!("/v1/emails?{query}")).await;
        assert!(ids(&answer).is_empty(), "{query}");
    }
}

#[tokio::test]
async fn lists_content_and_transcripts_need_a_key_that_may_read() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let sent = platform.accepted(&platform.live_key, &email()).await;
    let sender = platform.key_with(&["emails:send"]).await;
    let stranger = platform.other_account("other.test").await;
    let base = format!("/v1/emails/{}", sent.id());
    let (content, transcript) = (
        format!("{base}/content"),
        format!("{base}/attempts/1/transcript"),
    );
    for path in ["/v1/emails", &content, &transcript] {
        let request = Request::builder().method(Method::GET).uri(path);
        let bare = platform.send(request.body(Body::empty()).unwrap()).await;
        bare.refused(401, "missing_api_key");
        platform
            .get(&sender, path)
            .await
            .refused(403, "missing_scope");
    }
    let missing = MessageId::from_uuid(fresh_uuid());
    for path in [content, transcript] {
        let foreign = platform.get(&stranger, &path).await;
        let absent = path.replace(sent.id(), &missing.to_string());
        let absent = platform.get(&stranger, &absent).await;
        for answer in [&foreign, &absent] {
            answer.refused(404, "not_found");
        }
        assert_eq!(foreign.json["detail"], absent.json["detail"]);
    }
}

#[tokio::test]
async fn content_is_shown_in_parts_and_as_it_is() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let key = &platform.live_key;
    let mut body = email();
    body["subject"] = json!("Zoë");
    body["text"] = json!("Grüße");
    body["html"] = json!("<p>Grüße</p>");
    body["headers"] = json!({"X-Order": "7"});
    let sent = platform.accepted(key, &body).await;
    let path = format!("/v1/emails/{}/content", sent.id());

    let shown = platform.get(key, &path).await;
    assert_eq!(shown.status, 200, "{}", shown.json);
    assert_eq!(shown.json["id"], sent.id());
    assert_eq!(
        shown.json["text"].as_str().map(str::trim_end),
        Some("Grüße")
    );
    assert_eq!(
        shown.json["html"].as_str().map(str::trim_end),
        Some("<p>Grüße</p>")
    );
    assert_eq!(shown.json["attachments"], json!([]));
    let headers = shown.json["headers"].as_array().unwrap();
    assert!(
        headers.contains(&json!({"name": "X-Order", "value": "7"})),
        "{headers:?}"
    );
    assert!(headers.iter().any(|header| header["name"] == "Message-ID"));

    let raw = platform.get(key, &format!("{path}?format=raw")).await;
    assert_eq!(raw.status, 200);
    assert_eq!(raw.headers["content-type"], "message/rfc822");
    assert_eq!(raw.headers["x-content-type-options"], "nosniff");
    assert_eq!(raw.octets.len(), shown.json["size"]);
    assert!(raw.octets.starts_with(b"From: Acme <hello@acme.test>\r\n"));
    for query in ["format=html", "format=", "part=1"] {
        platform
            .get(key, &format!("{path}?{query}"))
            .await
            .refused(422, "invalid_parameter");
    }
}

#[tokio::test]
async fn the_transcript_of_a_failed_attempt_is_shown() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let key = &platform.live_key;
    let mut body = email();
    body["to"] = json!(["ana@example.com", "bo@example.org"]);
    let sent = platform.accepted(key, &body).await;
    let id: MessageId = sent.id().parse().unwrap();
    let owner = Owner::of_all_shards(&platform).await;
    let rows = owner.queued(&platform, id).await;
    let mut deferred = owner.event(EventType::EmailDeferred, EventFlags::NONE, "452 4.2.2 full");
    let dialogue = "S: 220 mx\nC: RCPT TO:<ana@example.com>\nS: 452 4.2.2 full\n";
    deferred.transcript = Some(DbText::from_remote_lines(dialogue.as_bytes(), 8192));
    owner.settle(&platform, &rows[0], deferred).await;
    let rows = owner.queued(&platform, id).await;
    let delivered = owner.event(EventType::EmailDelivered, EventFlags::FINAL, "250 2.0.0 OK");
    owner.settle(&platform, &rows[0], delivered).await;

    let path =
        |number: &str, query: &str| format!("/v1/emails/{id}/attempts/{number}/transcript{query}");
    let first = format!("?delivery={}", id.delivery(0));
    let shown = platform.get(key, &path("1", &first)).await;
    assert_eq!(shown.status, 200, "{}", shown.json);
    assert_eq!(shown.json["transcript"], dialogue);
    assert_eq!(shown.json["delivery_id"], id.delivery(0).to_string());
    assert_eq!(shown.json["number"], 1);

    let ask = async |number: &str, query: &str| platform.get(key, &path(number, query)).await;
    ask("1", "").await.refused(422, "invalid_parameter");
    ask("1", "?x=1").await.refused(422, "invalid_parameter");
    ask("2", &first).await.refused(404, "no_transcript");
    let other = MessageId::from_uuid(fresh_uuid());
    for (number, delivery) in [
        ("3", id.delivery(0)),
        ("0", id.delivery(0)),
        ("-1", id.delivery(0)),
        ("65536", id.delivery(0)),
        ("x", id.delivery(0)),
        ("1", id.delivery(1)),
        ("1", id.delivery(2)),
        ("1", other.delivery(0)),
    ] {
        ask(number, &format!("?delivery={delivery}"))
            .await
            .refused(404, "not_found");
    }
    ask("1", "?delivery=%00").await.refused(404, "not_found");
}
