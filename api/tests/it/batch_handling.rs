//! What the messages of a batch may say beyond text: files, a time, a pool. And what becomes of
//! those whose recipients are suppressed.

use axum::body::Body;
use axum::http::StatusCode;
use mail::ids::{MessageId, PoolId};
use serde_json::{Value, json};
use store::{Cursor, PoolKind, QueueRow};
use time::Duration;
use time::format_description::well_known::Rfc3339;

use crate::batch::{PATH, STRICT, newsletter};
use crate::platform::{Answer, Platform, email, fresh_uuid, json_request};

/// The queue, also of later mail.
async fn queued(platform: &Platform) -> Vec<QueueRow> {
    let store = &platform.state.store;
    let shards = store.all_shards().await.unwrap();
    let cursors: Vec<_> = shards.iter().map(|shard| (*shard, Cursor::START)).collect();
    let until = platform.state.clock.now() + Duration::days(40);
    store.poll(&cursors, until, 10_000).await.unwrap()
}

fn ids(answer: &Answer) -> Vec<MessageId> {
    let items = answer.json["data"].as_array().unwrap();
    let id = |item: &Value| item["id"].as_str().unwrap().parse().unwrap();
    items.iter().map(id).collect()
}

/// Status of each message, or the code of its error.
fn statuses(answer: &Answer) -> Vec<&str> {
    let items = answer.json["data"].as_array().unwrap();
    let status = |item: &Value| item["status"].is_string();
    let word = |item| match status(item) {
        true => item["status"].as_str().unwrap(),
        false => item["error"]["code"].as_str().unwrap(),
    };
    items.iter().map(word).collect()
}

async fn with_key(platform: &Platform, name: &str, body: &Value) -> Answer {
    let request = json_request(&platform.live_key, PATH).header("Idempotency-Key", name);
    let request = request.body(Body::from(body.to_string())).unwrap();
    platform.send(request).await
}

#[tokio::test]
async fn files_are_shared_and_read_back_for_each_message() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let file = json!({"filename": "plan.pdf", "content": "UERGUERG"});
    let mut body = newsletter(json!([
        {"to": "ana@example.com", "variables": {"name": "Ana"}},
        {"to": "bo@example.com"},
        {"to": "cy@example.com", "attachments": [{"filename": "own.txt", "content": "b3du"}]},
    ]));
    body["defaults"]["attachments"] = json!([file]);
    let answer = platform.batch(&body).await;
    let [first, second, third] = ids(&answer)[..] else {
        panic!("{}", answer.json)
    };
    let stored = platform.state.store.contents(&[first, second]).await;
    let stored = stored.unwrap();
    assert_eq!(stored[0].content_id, stored[1].content_id);
    for (id, name, file, size) in [
        (first, "Ana", "plan.pdf", 6),
        (second, "friend", "plan.pdf", 6),
        (third, "friend", "own.txt", 3),
    ] {
        let path = format!("/v1/emails/{id}/content");
        let shown = platform.get(&platform.live_key, &path).await;
        assert_eq!(shown.status, StatusCode::OK, "{}", shown.json);
        let html = shown.json["html"].as_str().unwrap();
        assert_eq!(html.trim_end(), format!("<p>Hi {name}</p>"));
        let attached = &shown.json["attachments"];
        assert_eq!(attached.as_array().unwrap().len(), 1, "{}", shown.json);
        let told = (&attached[0]["filename"], &attached[0]["size"]);
        assert_eq!(told, (&json!(file), &json!(size)), "{}", shown.json);
    }

    // Wrong files are the fault of those that have them, told where they stand.
    body["messages"][2]["attachments"] = json!([{"filename": "../a\r\nBcc: x", "content": "!"}]);
    let answer = platform.batch(&body).await;
    assert_eq!(statuses(&answer), ["queued", "queued", "validation_failed"]);
    body["defaults"]["attachments"] = json!([{"filename": "a", "content": "!"}]);
    let answer = platform.post(&platform.live_key, PATH, &body).await;
    let expected = [
        ("/defaults/attachments/0/content", "invalid_base64"),
        ("/messages/2/attachments/0/filename", "control_character"),
        ("/messages/2/attachments/0/content", "invalid_base64"),
    ];
    assert_eq!(answer.refused(422, "validation_failed").fields(), expected);
}

#[tokio::test]
async fn each_message_has_its_own_time_and_pool() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let store = &platform.state.store;
    let id = PoolId::from_uuid(fresh_uuid());
    let name = format!("pool {id}");
    let pool = store.create_pool(id, &name, PoolKind::Direct);
    let pool = pool.await.unwrap().no;
    let now = platform.state.clock.now();
    let at = |hours| (now + Duration::hours(hours)).format(&Rfc3339).unwrap();
    let days = [now.date(), (now + Duration::hours(3)).date()];
    store
        .make_content_partitions(days.into_iter())
        .await
        .unwrap();
    let mut defaults = email();
    defaults.as_object_mut().unwrap().remove("to");
    defaults["send_at"] = json!(at(2));
    defaults["pool"] = json!(name);
    let body = json!({"defaults": defaults, "messages": [
        {"to": "ana@example.com"},
        {"to": "bo@example.com", "send_at": at(-1)},
        {"to": "cy@example.com", "send_at": at(3), "pool": id.to_string()},
        {"to": "di@example.com", "pool": "nope"},
        {"to": "ed@example.com", "send_at": at(24 * 31), "stream": "nope"},
        {"to": "fi@example.com", "send_at": "soon", "pool": "a\0b"},
    ]});
    let answer = platform.batch(&body).await;
    let wrong = "validation_failed";
    let expected = ["scheduled", "queued", "scheduled", wrong, wrong, wrong];
    assert_eq!(statuses(&answer), expected);
    let data = &answer.json["data"];
    assert!(data[0]["send_at"].is_string() && data[1].get("send_at").is_none());
    let places = |index: usize| -> Vec<(String, String)> {
        let errors = data[index]["error"]["errors"].as_array().unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let place = |error: &Value| (text(&error["pointer"]), text(&error["code"]));
        errors.iter().map(place).collect()
    };
    let told = |list: &[(&str, &str)]| -> Vec<(String, String)> {
        let one = |(at, code): &(&str, &str)| (at.to_string(), code.to_string());
        list.iter().map(one).collect()
    };
    assert_eq!(places(3), told(&[("/messages/3/pool", "unknown_pool")]));
    let expected = [
        ("/messages/4/stream", "unknown_stream"),
        ("/messages/4/send_at", "out_of_range"),
    ];
    assert_eq!(places(4), told(&expected));
    let codes: Vec<_> = places(5).into_iter().map(|(pointer, _)| pointer).collect();
    assert_eq!(codes, ["/messages/5/pool", "/messages/5/send_at"]);

    let mut rows = queued(&platform).await;
    rows.sort_by_key(|row| row.next_at);
    assert_eq!(rows.len(), 3);
    assert!(rows.iter().all(|row| row.pool == Some(pool)));
    let in_order: Vec<MessageId> = rows.iter().map(|row| row.key.message).collect();
    assert_eq!(in_order, ids_of(data, &[1, 0, 2]));
    // A test key goes to the sandbox whatever it names.
    let mut tests = body.clone();
    tests["messages"] = json!([{"to": "ana@example.com"}, {"to": "bo@example.com"}]);
    let answer = platform.post(&platform.test_key, STRICT, &tests).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.json);
    let sandbox = store.sandbox_pool().await.unwrap().unwrap().no;
    let sent = ids(&answer);
    let rows = queued(&platform).await;
    let theirs = rows.iter().filter(|row| sent.contains(&row.key.message));
    let pools: Vec<_> = theirs.map(|row| row.pool).collect();
    assert_eq!(pools, [Some(sandbox), Some(sandbox)]);
}

fn ids_of(data: &Value, indexes: &[usize]) -> Vec<MessageId> {
    let id = |index: &usize| data[*index]["id"].as_str().unwrap().parse().unwrap();
    indexes.iter().map(id).collect()
}

#[tokio::test]
async fn suppressed_recipients_are_told_and_the_others_keep_the_content() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let key = &platform.live_key;
    let held = json!({"address": "ana@example.com"});
    let made = platform.post(key, "/v1/suppressions", &held).await;
    let body = newsletter(json!([
        {"to": "ana@example.com"},
        {"to": ["Bo@example.com", "ANA@example.com"]},
        {"to": "nobody"},
    ]));
    let first = with_key(&platform, "monday", &body).await;
    assert_eq!(first.status, StatusCode::ACCEPTED, "{}", first.json);
    let expected = ["suppressed", "queued", "validation_failed"];
    assert_eq!(statuses(&first), expected);
    let data = &first.json["data"];
    assert_eq!(data[0]["deliveries"][0]["status"], "suppressed");
    assert_eq!(data[1]["deliveries"][0]["status"], "queued");
    assert_eq!(data[1]["deliveries"][1]["status"], "suppressed");
    let rows = queued(&platform).await;
    let going = ids_of(data, &[1])[0];
    assert_eq!(rows.len(), 1);
    assert_eq!((rows[0].key.message, rows[0].key.rcpt), (going, 0));
    // The first of those that share it is sent to nobody, the second is.
    let path = format!("/v1/emails/{going}/content");
    let shown = platform.get(key, &path).await;
    assert_eq!(
        shown.json["text"].as_str().map(str::trim_end),
        Some("Hi friend")
    );

    // The same answer again, whatever became of the list since.
    let gone = format!("/v1/suppressions/{}", made.id());
    assert_eq!(platform.delete(key, &gone).await.status, 204);
    let again = with_key(&platform, "monday", &body).await;
    assert_eq!(again.headers["idempotent-replayed"], "true");
    assert_eq!(again.octets, first.octets, "to the octet");
    assert_eq!(queued(&platform).await.len(), 1);
    let none = newsletter(json!([{"to": "nobody"}]));
    with_key(&platform, "monday", &none)
        .await
        .refused(422, "validation_failed");
    let other = newsletter(json!([{"to": "ana@example.com"}]));
    with_key(&platform, "monday", &other)
        .await
        .refused(409, "idempotency_mismatch");
}

#[tokio::test]
async fn a_batch_that_comes_twice_at_once_is_sent_once() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let messages: Vec<Value> = (0..100)
        .map(|number| json!({"to": format!("a{number}@example.com")}))
        .collect();
    let body = newsletter(json!(messages));
    let (one, two, three) = tokio::join!(
        with_key(&platform, "at-once", &body),
        with_key(&platform, "at-once", &body),
        with_key(&platform, "at-once", &body),
    );
    let answers = [one, two, three];
    for answer in &answers {
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.json);
        assert_eq!(answer.octets, answers[0].octets);
    }
    let is_new = |answer: &&Answer| !answer.headers.contains_key("idempotent-replayed");
    assert_eq!(answers.iter().filter(is_new).count(), 1);
    assert_eq!(queued(&platform).await.len(), 100);
}

#[tokio::test]
async fn what_was_shared_is_shown_and_sent_once_more_in_one_piece() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let key = &platform.live_key;
    let filled_in = newsletter(json!([
        {"to": "ana@example.com", "variables": {"name": "<Ana>"}},
        {"to": "bo@example.com", "variables": {"name": "Bo"}},
    ]));
    let mut plain = filled_in.clone();
    plain["defaults"]["html"] = json!("<p>Hi all</p>");
    plain["defaults"]["text"] = json!("Hi all");
    for (body, text) in [(&filled_in, "Hi <Ana>"), (&plain, "Hi all")] {
        let answer = platform.batch(body).await;
        let id = ids(&answer)[0];
        let path = format!("/v1/emails/{id}/content");
        let shown = platform.get(key, &path).await;
        assert_eq!(shown.status, StatusCode::OK, "{}", shown.json);
        assert_eq!(shown.json["text"].as_str().map(str::trim_end), Some(text));
        let headers = shown.json["headers"].as_array().unwrap();
        for (name, value) in [("Subject", "News, <Ana>"), ("X-Name", "<Ana>")] {
            let field = json!({"name": name, "value": value});
            assert!(headers.contains(&field), "{headers:?}");
        }
        let raw = platform.get(key, &format!("{path}?format=raw")).await;
        assert!(raw.octets.starts_with(b"From: Acme <hello@acme.test>\r\n"));
        assert_eq!(raw.octets.len(), shown.json["size"]);
        let raw = String::from_utf8(raw.octets).unwrap();
        let (header, content) = raw.split_once("\r\n\r\n").unwrap();
        assert_eq!(header.matches("MIME-Version:").count(), 1, "{header}");
        assert_eq!(header.matches("Content-Type:").count(), 1, "{header}");

        let again = format!("/v1/emails/{id}/resend");
        let again = platform.post(key, &again, &json!({})).await;
        assert_eq!(again.status, StatusCode::ACCEPTED, "{}", again.json);
        let again = again.id();
        let second = platform
            .get(key, &format!("/v1/emails/{again}/content?format=raw"))
            .await;
        let second = String::from_utf8(second.octets).unwrap();
        let (new_header, new_content) = second.split_once("\r\n\r\n").unwrap();
        assert_eq!(new_content, content);
        assert!(
            new_header.contains("Subject: News, <Ana>\r\n"),
            "{new_header}"
        );
        let stamp = |text: &str| -> Vec<String> {
            let own = |line: &&str| line.starts_with("Message-ID:") || line.starts_with("Date:");
            text.lines().filter(own).map(str::to_owned).collect()
        };
        assert_eq!((stamp(header).len(), stamp(new_header).len()), (2, 2));
        let new_id = stamp(new_header).concat();
        assert!(
            new_id.contains(again.trim_start_matches("msg_")),
            "{new_id}"
        );
        // What it signs is what it has.
        let sent: MessageId = again.parse().unwrap();
        let stored = platform.state.store.contents(&[sent]).await.unwrap();
        let hash = mail::dkim::body_hash(new_content.as_bytes());
        assert_eq!(stored[0].body_hash, hash);
    }
}
