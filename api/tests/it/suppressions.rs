//! The suppression list: entries are made once, seen by their account only, and hold back mail.

use mail::event::EventType;
use mail::ids::{MessageId, SuppressionId};
use serde_json::{Value, json};
use store::{Cursor, ShardNo};

use crate::platform::{Answer, Platform, email, json_request};

const PATH: &str = "/v1/suppressions";

fn entry(address: &str) -> Value {
    json!({"address": address})
}

fn email_to(addresses: &[&str]) -> Value {
    let mut email = email();
    email["to"] = json!(addresses);
    email
}

/// Status of the message and of its deliveries.
fn statuses(answer: &Value) -> Vec<&str> {
    let deliveries = answer["deliveries"].as_array().unwrap();
    std::iter::once(answer)
        .chain(deliveries)
        .map(|one| one["status"].as_str().unwrap())
        .collect()
}

async fn queued(platform: &Platform) -> usize {
    let cursors: Vec<_> = (0..16)
        .map(|shard| (ShardNo(shard), Cursor::START))
        .collect();
    let now = platform.state.clock.now();
    let rows = platform.state.store.poll(&cursors, now, 1_000).await;
    rows.unwrap().len()
}

#[tokio::test]
async fn an_entry_is_made_once_and_shown() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let key = &platform.live_key;
    let made = platform.post(key, PATH, &entry("Ana@Example.com")).await;
    assert_eq!(made.status, 201, "{}", made.json);
    let location = format!("http://127.0.0.1:8080{PATH}/{}", made.id());
    assert_eq!(made.headers["location"], location);
    assert!(made.id().parse::<SuppressionId>().is_ok());
    let expected = json!({
        "id": made.id(), "address": "Ana@example.com", "reason": "manual", "stream": null,
        "created_at": made.json["created_at"], "expires_at": null, "source": null,
    });
    assert_eq!(made.json, expected);

    let again = platform.post(key, PATH, &entry("aNA@example.COM")).await;
    assert_eq!((again.status.as_u16(), &again.json), (200, &expected));
    let shown = platform.get(key, &format!("{PATH}/{}", made.id())).await;
    assert_eq!((shown.status.as_u16(), &shown.json), (200, &expected));
    let other = json!({"address": "ana@example.com", "reason": "complaint", "stream": "news"});
    let other = platform.post(key, PATH, &other).await;
    assert_eq!(other.status, 201, "another reason is another entry");
    assert_eq!(other.json["stream"], "news");
}

#[tokio::test]
async fn an_entry_can_be_deleted_and_made_again() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let key = &platform.live_key;
    let made = platform.post(key, PATH, &entry("ana@example.com")).await;
    let path = format!("{PATH}/{}", made.id());
    let gone = platform.delete(key, &path).await;
    assert_eq!((gone.status.as_u16(), gone.octets.len()), (204, 0));
    platform.delete(key, &path).await.refused(404, "not_found");
    platform.get(key, &path).await.refused(404, "not_found");
    let sent = platform.accepted(key, &email()).await;
    assert_eq!(statuses(&sent.json), ["queued", "queued"]);
    let again = platform.post(key, PATH, &entry("ana@example.com")).await;
    assert_eq!(again.status, 201);
    assert_ne!(again.id(), made.id());
}

#[tokio::test]
async fn the_list_comes_newest_first_in_pages_and_by_filters() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let key = &platform.live_key;
    let mut made = Vec::new();
    for (address, reason, stream) in [
        ("a@example.com", "manual", None),
        ("b@example.com", "unsubscribe", Some("news")),
        ("c@example.com", "complaint", None),
        ("a@example.com", "unsubscribe", Some("news")),
        ("d+1@example.com", "hard_bounce", None),
    ] {
        let body = json!({"address": address, "reason": reason, "stream": stream});
        let answer = platform.post(key, PATH, &body).await;
        assert_eq!(answer.status, 201, "{}", answer.json);
        made.push(answer.id().to_owned());
        // Ids made in one millisecond have no order.
        let clock = &platform.state.clock;
        let made_at = clock.unix_ms();
        while clock.unix_ms() == made_at {
            tokio::task::yield_now().await;
        }
    }
    let listed = async |query: &str| {
        let answer = platform.get(key, &format!("{PATH}?{query}")).await;
        assert_eq!(answer.status, 200, "{}", answer.json);
        answer
    };
    let numbers = |answer: &Answer| -> Vec<usize> {
        let data = answer.json["data"].as_array().unwrap();
        let number = |one: &Value| made.iter().position(|id| one["id"] == id.as_str());
        data.iter().map(|one| number(one).unwrap()).collect()
    };
    assert_eq!(numbers(&listed("").await), [4, 3, 2, 1, 0]);
    assert_eq!(numbers(&listed("reason=unsubscribe").await), [3, 1]);
    assert_eq!(numbers(&listed("stream=news").await), [3, 1]);
    assert_eq!(
        numbers(&listed("stream=news&reason=manual").await),
        [] as [usize; 0]
    );
    assert_eq!(numbers(&listed("address=A%40Example.com").await), [3, 0]);
    assert_eq!(numbers(&listed("address=d+1@example.com").await), [4]);
    let both = listed("address=a%40example.com&reason=manual").await;
    assert_eq!(numbers(&both), [0]);
    let both = listed("address=a%40example.com&stream=news").await;
    assert_eq!(numbers(&both), [3]);
    assert_eq!(
        numbers(&listed("address=z%40example.com").await),
        [] as [usize; 0]
    );
    let mut seen = Vec::new();
    let mut query = "limit=2".to_owned();
    loop {
        let page = listed(&query).await;
        seen.extend(numbers(&page));
        let Some(next) = page.json["next"].as_str() else {
            break;
        };
        query = format!("limit=2&after={next}");
    }
    assert_eq!(seen, [4, 3, 2, 1, 0]);
    for query in [
        "limit=0",
        "limit=101",
        "after=x",
        "page=2",
        "address=nobody",
        "address=a%40example.com%00",
        "address=a%40example.com%0D%0A",
        "reason=bored",
        "stream=lost",
        "stream=%00",
    ] {
        let answer = platform.get(key, &format!("{PATH}?{query}")).await;
        answer.refused(422, "invalid_parameter");
    }
}

#[tokio::test]
async fn wrong_entries_are_refused_with_all_that_is_wrong() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let key = &platform.live_key;
    let check = async |body: Value, expected: &[(&str, &str)]| {
        let answer = platform.post(key, PATH, &body).await;
        answer.refused(422, "validation_failed");
        assert_eq!(answer.fields(), expected, "{body}");
    };
    check(json!({}), &[("/address", "required")]).await;
    let all = json!({"address": "nobody", "reason": "bored", "stream": "lost"});
    let expected = [
        ("/address", "invalid_address"),
        ("/reason", "unknown_reason"),
        ("/stream", "unknown_stream"),
    ];
    check(all, &expected).await;
    let unknown = json!({"address": "a@example.com", "until": "tomorrow"});
    check(unknown, &[("/until", "unknown_field")]).await;
    let long = format!("{}@example.com", "a".repeat(65));
    for address in [
        "",
        "Ana <ana@example.com>",
        "a\0@example.com",
        "a@example.com\0",
        "a@example.com\r\n",
        "a\r\nb@example.com",
        "a@b.example, c@d.example",
        &long,
    ] {
        check(entry(address), &[("/address", "invalid_address")]).await;
    }
    for stream in ["a\0b", "", "News"] {
        let body = json!({"address": "a@example.com", "stream": stream});
        check(body, &[("/stream", "unknown_stream")]).await;
    }
}

#[tokio::test]
async fn nobody_else_sees_or_changes_the_list() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let stranger = platform.other_account("other.test").await;
    let made = platform
        .post(&platform.live_key, PATH, &entry("ana@example.com"))
        .await;
    let one = format!("{PATH}/{}", made.id());
    let missing = format!("{PATH}/sup_{}", "0".repeat(26));
    for path in [&one, &missing, &format!("{PATH}/nonsense")] {
        platform
            .get(&stranger, path)
            .await
            .refused(404, "not_found");
        platform
            .delete(&stranger, path)
            .await
            .refused(404, "not_found");
    }
    assert_eq!(platform.get(&stranger, PATH).await.json["data"], json!([]));
    let mut theirs = email();
    theirs["from"] = json!("hello@other.test");
    let sent = platform.accepted(&stranger, &theirs).await;
    assert_eq!(statuses(&sent.json), ["queued", "queued"]);

    let sender = platform.key_with(&["emails:send", "emails:read"]).await;
    for (key, code) in [
        (&platform.test_key, "test_key_not_allowed"),
        (&sender, "missing_scope"),
    ] {
        for answer in [
            platform.post(key, PATH, &entry("bo@example.com")).await,
            platform.get(key, PATH).await,
            platform.get(key, &one).await,
            platform.delete(key, &one).await,
        ] {
            answer.refused(403, code);
        }
    }
    let without = axum::http::Request::post(PATH)
        .header("content-type", "application/json")
        .body(axum::body::Body::from("{}"))
        .unwrap();
    platform.send(without).await.refused(401, "missing_api_key");
    assert_eq!(platform.get(&platform.live_key, &one).await.status, 200);
}

#[tokio::test]
async fn a_suppressed_recipient_ends_at_once_and_the_others_go() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let key = &platform.live_key;
    platform.post(key, PATH, &entry("bo@example.com")).await;
    let body = email_to(&["ana@example.com", "BO@example.com"]);
    let sent = platform.accepted(key, &body).await;
    assert_eq!(statuses(&sent.json), ["queued", "queued", "suppressed"]);
    assert_eq!(queued(&platform).await, 1);
    let shown = platform
        .get(key, &format!("/v1/emails/{}", sent.id()))
        .await;
    assert_eq!(statuses(&shown.json), ["queued", "queued", "suppressed"]);
    let events = &shown.json["deliveries"][1]["events"];
    assert_eq!(events.as_array().unwrap().len(), 1);
    assert_eq!(events[0]["type"], "email.suppressed");
    assert_eq!(
        (&events[0]["final"], &events[0]["sequence"]),
        (&json!(true), &json!(1))
    );
    let id: MessageId = sent.id().parse().unwrap();
    let stored = platform.state.store.contents(&[id]).await.unwrap();
    let now = platform.state.clock.now();
    let held: Vec<bool> = (0..2)
        .map(|rcpt| stored[0].is_suppressed(rcpt, now))
        .collect();
    assert_eq!(held, [false, true]);
}

#[tokio::test]
async fn when_all_are_suppressed_nothing_is_kept_to_be_sent() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    platform
        .post(&platform.live_key, PATH, &entry("ana@example.com"))
        .await;
    for key in [&platform.live_key, &platform.test_key] {
        let sent = platform.accepted(key, &email()).await;
        assert_eq!(statuses(&sent.json), ["suppressed", "suppressed"]);
        let id: MessageId = sent.id().parse().unwrap();
        let stored = platform.state.store.contents(&[id]).await.unwrap();
        assert!(stored.is_empty(), "content is kept for nobody");
        let events = platform.state.store.message_events(id).await.unwrap();
        let kinds: Vec<EventType> = events.iter().map(|event| event.kind).collect();
        assert_eq!(kinds, [EventType::EmailSuppressed]);
    }
    assert_eq!(queued(&platform).await, 0);
}

#[tokio::test]
async fn a_repeated_request_is_answered_as_the_first_whatever_became_of_the_list() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let key = &platform.live_key;
    let made = platform.post(key, PATH, &entry("bo@example.com")).await;
    let send = async |name: &str, body: &Value| {
        let request = json_request(key, "/v1/emails").header("idempotency-key", name);
        let body = axum::body::Body::from(body.to_string());
        platform.send(request.body(body).unwrap()).await
    };
    let mixed = email_to(&["ana@example.com", "bo@example.com"]);
    let first = send("mixed", &mixed).await;
    assert_eq!(statuses(&first.json), ["queued", "queued", "suppressed"]);
    let unheld = send("unheld", &email()).await;
    platform.delete(key, &format!("{PATH}/{}", made.id())).await;
    platform.post(key, PATH, &entry("ana@example.com")).await;
    for (name, body, first) in [("mixed", &mixed, &first), ("unheld", &email(), &unheld)] {
        let again = send(name, body).await;
        assert_eq!(again.status, 202);
        assert_eq!(again.headers["idempotent-replayed"], "true");
        assert_eq!(again.octets, first.octets, "to the octet");
    }
    assert_eq!(queued(&platform).await, 2);
}

#[tokio::test]
async fn streams_and_unsubscribes_hold_back_what_they_say() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let key = &platform.live_key;
    let suppressed = async |body: Value, stream: &str| {
        let made = platform.post(key, PATH, &body).await;
        assert_eq!(made.status, 201, "{}", made.json);
        let mut email = email();
        email["stream"] = json!(stream);
        let sent = platform.accepted(key, &email).await;
        platform.delete(key, &format!("{PATH}/{}", made.id())).await;
        statuses(&sent.json)[1] == "suppressed"
    };
    let ana = "ana@example.com";
    for reason in ["hard_bounce", "complaint", "manual"] {
        let everywhere = json!({"address": ana, "reason": reason});
        assert!(suppressed(everywhere.clone(), "news").await, "{reason}");
        assert!(suppressed(everywhere, "transactional").await, "{reason}");
        let news = json!({"address": ana, "reason": reason, "stream": "news"});
        assert!(suppressed(news.clone(), "news").await, "{reason}");
        assert!(!suppressed(news, "transactional").await, "{reason}");
    }
    for stream in [Value::Null, json!("news")] {
        let body = json!({"address": ana, "reason": "unsubscribe", "stream": stream});
        assert!(suppressed(body.clone(), "news").await);
        assert!(
            !suppressed(body, "transactional").await,
            "receipts still go"
        );
    }
    let own = json!({"address": ana, "reason": "unsubscribe", "stream": "transactional"});
    assert!(!suppressed(own, "transactional").await);
}
