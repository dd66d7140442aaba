//! `POST /v1/emails/batch`: each message is what it would be alone, what they say alike is stored
//! once, and one bad message is nobody else's fault.

use axum::body::Body;
use axum::http::StatusCode;
use mail::ids::MessageId;
use serde_json::{Value, json};
use store::{ContentKind, StoredMessage};

use crate::platform::{Answer, Platform, email, json_request};

pub(crate) const PATH: &str = "/v1/emails/batch";
pub(crate) const STRICT: &str = "/v1/emails/batch?mode=strict";

pub(crate) fn newsletter(messages: Value) -> Value {
    json!({
        "defaults": {
            "from": "Acme <hello@acme.test>", "subject": "News, {{ name }}", "stream": "news",
            "html": "<p>Hi {{ name }}</p>", "text": "Hi {{ name }}",
            "headers": {"X-Name": "{{ name }}"}, "variables": {"name": "friend"},
        },
        "messages": messages,
    })
}

impl Platform {
    pub(crate) async fn batch(&self, body: &Value) -> Answer {
        let answer = self.post(&self.live_key, PATH, body).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.json);
        answer
    }

    /// What was stored of the accepted messages of an answer, in their order.
    async fn stored(&self, answer: &Answer) -> Vec<StoredMessage> {
        let items = answer.json["data"].as_array().unwrap();
        let ids: Vec<MessageId> = items
            .iter()
            .filter_map(|item| item["id"].as_str()?.parse().ok())
            .collect();
        let mut stored = self.state.store.contents(&ids).await.unwrap();
        stored.sort_by_key(|message| ids.iter().position(|id| *id == message.id));
        assert_eq!(stored.len(), ids.len());
        stored
    }
}

fn contents(stored: &[StoredMessage]) -> usize {
    let mut ids: Vec<_> = stored.iter().map(|message| message.content_id).collect();
    ids.sort_unstable();
    ids.dedup();
    ids.len()
}

fn item_fields(item: &Value) -> Vec<(&str, &str)> {
    let errors = item["error"]["errors"].as_array().unwrap();
    errors
        .iter()
        .map(|e| (e["pointer"].as_str().unwrap(), e["code"].as_str().unwrap()))
        .collect()
}

#[tokio::test]
async fn messages_that_say_the_same_share_one_content() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let messages: Vec<Value> = (0..20)
        .map(|number| json!({"to": format!("ana{number}@example.com"), "tags": [number.to_string()]}))
        .collect();
    let body = json!({
        "defaults": {"from": "hello@acme.test", "subject": "News", "html": "<p>{{ no variables }}</p>"},
        "messages": messages,
    });
    let answer = platform.batch(&body).await;
    let stored = platform.stored(&answer).await;
    assert_eq!((stored.len(), contents(&stored)), (20, 1));
    for (number, message) in stored.iter().enumerate() {
        assert_eq!(message.kind, ContentKind::Entity);
        assert_eq!(message.recipients, [format!("ana{number}@example.com")]);
        let to = format!("To: ana{number}@example.com\r\n");
        assert!(message.header.contains(&to), "{}", message.header);
        assert!(message.header.ends_with("MIME-Version: 1.0\r\n"));
        let id = format!("Message-ID: <{}@acme.test>\r\n", message.id.digits());
        assert!(message.header.contains(&id));
        // Without variables, braces are just braces.
        assert!(String::from_utf8_lossy(&message.bytes).contains("{{ no variables }}"));
    }
    // In an array the same content is recognised too; another one stays alone and whole.
    let mut messages = vec![email(), email(), email()];
    messages[2]["text"] = json!("Something else.");
    let answer = platform.batch(&json!(messages)).await;
    let stored = platform.stored(&answer).await;
    assert_eq!(contents(&stored), 2);
    assert_eq!(stored[0].content_id, stored[1].content_id);
    assert_eq!(stored[2].kind, ContentKind::Message);
    assert!(stored[2].header.is_empty());
    let metrics = platform.state.registry.render();
    assert!(
        metrics.contains("postrider_accepted_messages_total 23"),
        "{metrics}"
    );
}

#[tokio::test]
async fn variables_are_filled_in_for_each_message() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let body = newsletter(json!([
        {"to": "ana@example.com", "variables": {"name": "Ana & Bo"}},
        {"to": "cy@example.com"},
        {"to": "di@example.com", "text": "Only you, {{ name }}", "variables": {"name": "Di"}},
    ]));
    let answer = platform.batch(&body).await;
    let stored = platform.stored(&answer).await;
    assert_eq!(contents(&stored), 2);
    assert!(
        stored[..2]
            .iter()
            .all(|message| message.kind == ContentKind::Template)
    );
    let read = |message: &StoredMessage| -> Value {
        serde_json::from_str(message.variables.as_deref().unwrap()).unwrap()
    };
    assert_eq!(read(&stored[0]), json!({"name": "Ana & Bo"}));
    assert_eq!(read(&stored[1]), json!({"name": "friend"}));
    assert!(stored[0].header.contains("Subject: News, Ana & Bo\r\n"));
    assert!(stored[0].header.contains("X-Name: Ana & Bo\r\n"));
    // Nobody else has this text: it is composed at once.
    assert_eq!(stored[2].kind, ContentKind::Message);
    let text = String::from_utf8_lossy(&stored[2].bytes);
    assert!(
        text.contains("Only you, Di") && text.contains("<p>Hi Di</p>"),
        "{text}"
    );
    let id = answer.json["data"][0]["id"].as_str().unwrap();
    let shown = platform
        .get(&platform.live_key, &format!("/v1/emails/{id}"))
        .await;
    assert_eq!(shown.json["subject"], "News, Ana & Bo");
    assert_eq!(shown.json["stream"], "news");
}

#[tokio::test]
async fn no_message_beside_templates_goes_out_with_its_braces() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let lacks = |answer: &Answer, number: usize, pointer: &str| {
        let item = &answer.json["data"][number];
        let expected = [(pointer, "undefined_variable")];
        assert_eq!(item_fields(item), expected, "{}", answer.json);
        let detail = item["error"]["errors"][0]["detail"].as_str().unwrap();
        assert!(detail.contains("`name`"), "{detail}");
        assert!(detail.contains("elsewhere in this batch"), "{detail}");
    };
    let defaults = json!({
        "from": "hello@acme.test", "subject": "News",
        "html": "<p>{{ name }}</p>", "text": "{{ title|default('friend') }}",
    });
    let ana = json!({"to": "ana@example.com", "variables": {"name": "Ana"}});
    let bo = json!({"to": "bo@example.com"});
    let cy = json!({"to": "cy@example.com", "html": "<p>you</p>"});
    // What the one gives is not the other's; who needs nothing is filled in from nothing.
    let body = json!({"defaults": defaults, "messages": [bo, ana, cy]});
    let answer = platform.batch(&body).await;
    lacks(&answer, 0, "/messages/0/variables");
    let stored = platform.stored(&answer).await;
    assert_eq!(stored.len(), 2);
    let text = String::from_utf8_lossy(&stored[1].bytes);
    assert!(text.contains("friend") && !text.contains("{{"), "{text}");
    // Variables count where they stand, even if there are none, or their message has a fault.
    let mut of_defaults = defaults.clone();
    of_defaults["variables"] = json!({});
    let faulty = json!({"to": "di@example.com", "variables": {"name": "Di"}, "subjct": "Hi"});
    for body in [
        json!({"defaults": of_defaults, "messages": [bo, cy]}),
        json!({"defaults": defaults, "messages": [bo, cy, faulty]}),
    ] {
        lacks(&platform.batch(&body).await, 0, "/messages/0/variables");
    }
    // An array is one request too: subject and headers like the body.
    let mut plain = email();
    plain["subject"] = json!("Hi {{ name }}");
    let mut filled = email();
    filled["variables"] = json!({});
    lacks(
        &platform.batch(&json!([filled, plain])).await,
        1,
        "/1/variables",
    );
    plain["subject"] = json!("Hi {% raw %}{{ name }}{% endraw %}");
    let answer = platform.batch(&json!([filled, plain])).await;
    let stored = platform.stored(&answer).await;
    assert!(stored[1].header.contains("Subject: Hi {{ name }}\r\n"));
    // Nobody uses variables: null is none.
    plain["subject"] = json!("Hi {{ name }}");
    plain["variables"] = Value::Null;
    let answer = platform.batch(&json!([plain, email()])).await;
    let stored = platform.stored(&answer).await;
    assert!(stored[0].header.contains("Subject: Hi {{ name }}\r\n"));
}

#[tokio::test]
async fn good_messages_are_sent_and_bad_ones_are_told_in_order() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let body = newsletter(json!([
        {"to": "ana@example.com"},
        {"to": ["bo@example.com", "x"], "tags": [""]},
        {"to": "cy@example.com", "form": 7},
        7,
        {"to": "di@example.com", "from": "a@pending.test"},
        {"to": "ed@example.com", "stream": "nope"},
        {"to": "fi@example.com", "subject": "{{ a.b }}"},
        {"to": "gus@example.com", "to_": 1},
        {"to": "hal@example.com"},
    ]));
    let answer = platform.batch(&body).await;
    let data = answer.json["data"].as_array().unwrap();
    assert_eq!(data.len(), 9);
    let expected = [
        (
            1,
            "validation_failed",
            vec![
                ("/messages/1/to/1", "invalid_address"),
                ("/messages/1/tags/0", "empty"),
            ],
        ),
        (
            2,
            "validation_failed",
            vec![("/messages/2/form", "unknown_field")],
        ),
        (
            3,
            "validation_failed",
            vec![("/messages/3", "invalid_type")],
        ),
        (
            4,
            "sender_not_verified",
            vec![("/messages/4/from", "sender_not_verified")],
        ),
        (
            5,
            "validation_failed",
            vec![("/messages/5/stream", "unknown_stream")],
        ),
        (
            6,
            "validation_failed",
            vec![("/messages/6/variables", "undefined_variable")],
        ),
        (
            7,
            "validation_failed",
            vec![("/messages/7/to_", "unknown_field")],
        ),
    ];
    for (index, code, fields) in expected {
        let item = &data[index];
        assert_eq!(item["error"]["code"], code, "{item}");
        assert_eq!(item_fields(item), fields, "{item}");
        assert!(item.get("id").is_none());
    }
    let stored = platform.stored(&answer).await;
    assert_eq!(stored.len(), 2);
    for (index, address) in [(0, "ana@example.com"), (8, "hal@example.com")] {
        assert_eq!(data[index]["deliveries"][0]["to"], address);
        assert_eq!(data[index]["status"], "queued");
    }
    assert!(
        data[6]["error"]["errors"][0]["detail"]
            .as_str()
            .unwrap()
            .contains("`a.b`")
    );
}

#[tokio::test]
async fn a_key_makes_a_batch_count_once() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let send = async |key: &str, path: &str, name: &str, body: &Value| {
        let request = json_request(key, path).header("Idempotency-Key", name);
        platform
            .send(request.body(Body::from(body.to_string())).unwrap())
            .await
    };
    let key = &platform.live_key;
    let body = json!([email(), {"to": "x"}, email()]);
    let first = send(key, PATH, "run-7", &body).await;
    assert_eq!(first.status, StatusCode::ACCEPTED);
    let second = send(key, PATH, "run-7", &body).await;
    assert_eq!(second.headers["idempotent-replayed"], "true");
    assert_eq!(second.octets, first.octets);
    send(key, STRICT, "run-7", &body)
        .await
        .refused(422, "validation_failed");
    let good = json!([email()]);
    send(key, PATH, "run-7", &good)
        .await
        .refused(409, "idempotency_mismatch");
    send(key, STRICT, "run-7", &good)
        .await
        .refused(409, "idempotency_mismatch");
    let single = send(key, "/v1/emails", "run-7", &email()).await;
    assert!(!single.headers.contains_key("idempotent-replayed"));
    let metrics = platform.state.registry.render();
    assert!(
        metrics.contains("postrider_accepted_messages_total 3"),
        "{metrics}"
    );
}

#[tokio::test]
async fn a_thousand_messages_are_one_commit() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let html = format!(
        "<p>Hi {{{{ name }}}}</p>{}",
        "<p>A paragraph of news.</p>\n".repeat(700)
    );
    let messages: Vec<Value> = (0..1_000)
        .map(|n| json!({"to": format!("ana{n}@d{n}.example"), "variables": {"name": n}}))
        .collect();
    let mut body = newsletter(json!(messages));
    body["defaults"]["html"] = json!(html);
    let answer = platform.batch(&body).await;
    let items = answer.json["data"].as_array().unwrap();
    assert_eq!(items.len(), 1_000);
    let stored = platform.stored(&answer).await;
    assert_eq!((stored.len(), contents(&stored)), (1_000, 1));
    assert!(
        stored
            .iter()
            .all(|m| m.bytes.as_ptr() == stored[0].bytes.as_ptr())
    );
}

/// Prints what a message costs this process, alone and in a batch; PostgreSQL's part is not in it.
#[tokio::test]
#[ignore = "a measurement: run it alone, in a release build"]
async fn cost_of_a_message_alone_and_in_a_batch() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let html = "<p>A paragraph of news, like all of them.</p>\n".repeat(450);
    let to = |n: usize| format!("ana{n}@d{}.example", n % 50);
    let fields = json!({"from": "hello@acme.test", "subject": "News", "html": html, "text": html});
    let single = |n: usize, variables: bool| {
        let mut body = fields.clone();
        body["to"] = json!(to(n));
        if variables {
            body["html"] = json!(format!("{html}{{{{ name }}}}"));
            body["variables"] = json!({"name": n});
        }
        body
    };
    let batch = |variables: bool| {
        let one = |n: usize| match variables {
            true => json!({"to": to(n), "variables": {"name": n}}),
            false => json!({"to": to(n)}),
        };
        let messages: Vec<Value> = (0..1_000).map(one).collect();
        let mut defaults = single(0, variables);
        let defaults_fields = defaults.as_object_mut().unwrap();
        defaults_fields.remove("to");
        defaults_fields.remove("variables");
        json!({"defaults": defaults, "messages": messages})
    };
    platform
        .accepted(&platform.live_key, &single(0, true))
        .await;
    for variables in [false, true] {
        let bodies: Vec<Value> = (0..1_000).map(|n| single(n, variables)).collect();
        let (started, wall) = (cpu_ms(), std::time::Instant::now());
        for body in &bodies {
            platform.accepted(&platform.live_key, body).await;
        }
        let singles = (cpu_ms() - started, wall.elapsed());
        let body = batch(variables);
        let (started, wall) = (cpu_ms(), std::time::Instant::now());
        platform.batch(&body).await;
        let together = (cpu_ms() - started, wall.elapsed());
        eprintln!(
            "variables {variables}: CPU ms and time of 1000 singles {singles:?}, of one batch {together:?}"
        );
    }
}

/// User and system time of this process (proc(5), fields 14 and 15, in hundredths of a second).
fn cpu_ms() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    ticks * 10
}
