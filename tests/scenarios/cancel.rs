//! Mail that waits can be taken back, moved and hurried, and what was taken back never arrives:
//! whoever asks, however close to the final dot, whatever dies meanwhile.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use mail::ids::MessageId;
use reqwest::Method;
use serde_json::{Value, json};
use service::clock::Clock;
use tests::api::{Answer, Api, event_types, message};
use tests::platform::Platform;
use tests::receiver::{Call, WebhookReceiver};
use tests::sink::{Asked, Sink, Verdict};
use tests::{full, ledger, take_turn};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::task::JoinSet;

const RUN_PATIENCE: Duration = Duration::from_secs(300);

async fn cancel(api: &Api, id: &str) -> Answer {
    let path = format!("/v1/emails/{id}/cancel");
    api.ask(api.request(Method::POST, &path)).await.unwrap()
}

/// Asks for another time, so many seconds from now.
async fn move_to(api: &Api, id: &str, from_now_secs: i64) -> Answer {
    let at = Clock::system().now() + time::Duration::seconds(from_now_secs);
    let body = json!({"send_at": at.format(&Rfc3339).unwrap()});
    let request = api.request(Method::PATCH, &format!("/v1/emails/{id}"));
    api.ask(request.json(&body)).await.unwrap()
}

fn subjects(sink: &Sink) -> Vec<String> {
    let receipts = sink.receipts();
    let ids = receipts.iter().filter(|receipt| receipt.accepted);
    ids.map(|receipt| receipt.id.clone()).collect()
}

fn named(platform: &Platform, to: &str, name: &str) -> Value {
    let mut body = message(&platform.tenant.domain, to);
    body["headers"] = json!({"X-Test-Id": name});
    body
}

fn is_of<'a>(kind: &'a str, id: &'a str) -> impl Fn(&Call) -> bool + 'a {
    move |call| call.kind() == kind && call.json()["data"]["message_id"] == id
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_mail_is_moved_and_cancelled_and_told_about() {
    let _turn = take_turn();
    let never = |asked: &Asked| match asked.local_part.as_str() {
        "never" => Verdict::AtRcpt("451 4.3.0 Not now"),
        _ => Verdict::Accept,
    };
    let sink = Sink::options().script(never).start().await;
    let builder = Platform::builder()
        .route("*", sink.address)
        .connections_per_site(1);
    let Some(platform) = builder.start().await else {
        return;
    };
    let api = platform.api(0);
    let receiver = WebhookReceiver::start().await;
    let kinds = ["email.cancelled", "email.scheduled", "email.delivered"];
    api.create_webhook(&receiver.url, &kinds).await;

    // The only connection waits for the answer to a dot: what comes after stands in its lane.
    sink.hang("one.test");
    let first = api
        .send(&named(&platform, "first@sink.test", "first"))
        .await;
    sink.has_dots(1).await;
    let in_lane = api.send(&named(&platform, "lane@sink.test", "lane")).await;
    let moved = api
        .send(&named(&platform, "moved@sink.test", "moved"))
        .await;
    let later = api
        .send(&named(&platform, "later@sink.test", "later"))
        .await;
    cancel(&api, &first)
        .await
        .is_problem(409, "already_sending");
    move_to(&api, &first, 3_600)
        .await
        .is_problem(409, "already_sending");
    let answer = cancel(&api, &in_lane).await;
    assert_eq!(
        (answer.status.as_u16(), &answer.json()["status"]),
        (200, &json!("cancelled"))
    );
    assert_eq!(
        cancel(&api, &in_lane).await.status,
        200,
        "cancelled is cancelled"
    );
    let mut send_at = Value::Null;
    for id in [&later, &moved] {
        let answer = move_to(&api, id, 3_600).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.json()["status"], "scheduled");
        send_at = answer.json()["send_at"].clone();
    }
    sink.answer();
    api.becomes(&first, "delivered").await;

    // Nobody can be sending what is due in an hour.
    let answer = cancel(&api, &later).await;
    assert_eq!(
        (answer.status.as_u16(), &answer.json()["status"]),
        (200, &json!("cancelled"))
    );
    let answer = move_to(&api, &moved, -10).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let email = api.becomes(&moved, "delivered").await;
    let types = [
        "email.queued",
        "email.scheduled",
        "email.queued",
        "email.delivered",
    ];
    assert_eq!(event_types(&email["deliveries"][0]), types);
    // Each move takes the place of the first event, and tells its time.
    let events = email["deliveries"][0]["events"].as_array().unwrap();
    let told: Vec<&Value> = events.iter().map(|event| &event["sequence"]).collect();
    assert_eq!(told, [1, 1, 1, 2]);
    assert_eq!(events[0].get("send_at"), None);
    assert_eq!(events[1]["send_at"], send_at);
    let now = events[2]["send_at"].as_str().unwrap();
    assert!(now < send_at.as_str().unwrap(), "{now}");
    cancel(&api, &moved)
        .await
        .is_problem(409, "already_sending");

    // Deferred mail is cancelled too, and all of it by its tag.
    let mut deferred = named(&platform, "never@sink.test", "never");
    deferred["tags"] = json!(["doomed"]);
    let (one, two) = (api.send(&deferred).await, api.send(&deferred).await);
    api.becomes(&one, "deferred").await;
    api.becomes(&two, "deferred").await;
    assert_eq!(cancel(&api, &one).await.status, 200);
    let body = json!({"action": "cancel", "filter": {"tag": "doomed", "status": "deferred"}});
    let answer = api.post("/v1/emails/actions", &body).await;
    let expected = json!({"matched": 1, "complete": true, "next": null});
    assert_eq!((answer.status.as_u16(), answer.json()), (202, expected));
    api.becomes(&two, "cancelled").await;

    let cancelled = [&in_lane, &later, &one, &two];
    let told = |calls: &[Call], id: &str| {
        calls
            .iter()
            .filter(|call| is_of("email.cancelled", id)(call))
            .count()
    };
    let calls = receiver
        .has("all was told", |calls| {
            cancelled.iter().all(|id| told(calls, id) > 0)
                && calls.iter().any(is_of("email.delivered", &moved))
        })
        .await;
    for id in cancelled {
        assert_eq!(told(&calls, id), 1, "{id}");
        let call = calls
            .iter()
            .find(|call| is_of("email.cancelled", id)(call))
            .unwrap();
        assert_eq!(call.json()["data"]["final"], true);
    }
    let call = calls
        .iter()
        .find(|call| is_of("email.scheduled", &moved)(call))
        .unwrap();
    assert_eq!(call.json()["data"]["final"], false);
    assert_eq!(call.json()["sequence"], 1);
    let told = call.json()["data"]["send_at"].as_str().unwrap().to_owned();
    let instant = |text: &str| OffsetDateTime::parse(text, &Rfc3339).unwrap();
    let apart = instant(&told) - instant(send_at.as_str().unwrap());
    // The view shows milliseconds.
    assert!(apart.abs() < time::Duration::milliseconds(1), "{told}");
    assert_eq!(
        subjects(&sink),
        ["first", "moved"],
        "nothing cancelled has arrived"
    );

    // The content is still there: one more copy, under a Message-ID of its own.
    let again = api
        .post(&format!("/v1/emails/{moved}/resend"), &json!({}))
        .await;
    assert_eq!(again.status, 202, "{again:?}");
    let again = again.json()["id"].as_str().unwrap().to_owned();
    let resent = api.becomes(&again, "delivered").await;
    assert_ne!(resent["rfc_message_id"], email["rfc_message_id"]);
    assert_eq!(subjects(&sink), ["first", "moved", "moved"]);
    let receipts = sink.receipts();
    let last = String::from_utf8(receipts.last().unwrap().content.to_vec()).unwrap();
    let field = format!(
        "Message-ID: {}\r\n",
        resent["rfc_message_id"].as_str().unwrap()
    );
    assert!(last.contains(&field), "{last}");
    sqlx::query("DELETE FROM content")
        .execute(&platform.pool)
        .await
        .unwrap();
    let gone = api
        .post(&format!("/v1/emails/{moved}/resend"), &json!({}))
        .await;
    gone.is_problem(410, "content_gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_cancelled_while_it_is_sent_is_cancelled_or_delivered_and_never_both() {
    let _turn = take_turn();
    let count = if full() { 5_000 } else { 500 };
    let sink = Sink::options().latency_ms(0..=30).start().await;
    let builder = Platform::builder()
        .route("*", sink.address)
        .connections_per_site(8);
    let Some(platform) = builder.start().await else {
        return;
    };
    let api = platform.api(0);
    let (mut senders, mut answers) = (JoinSet::new(), HashMap::new());
    for number in 0..count {
        if senders.len() >= 32 {
            let (id, answer): (String, (String, u16)) = senders.join_next().await.unwrap().unwrap();
            answers.insert(id, answer);
        }
        let (api, name) = (api.clone(), format!("t-{number}"));
        let to = format!("user{number}@d{}.sink.test", number % 3);
        let body = named(&platform, &to, &name);
        senders.spawn(async move {
            let id = api.send(&body).await;
            // Some at once, some when they may be at the gate, some when they may be over.
            tokio::time::sleep(Duration::from_millis(number % 8 * 10)).await;
            let answer = cancel(&api, &id).await;
            (id, (name, answer.status.as_u16()))
        });
    }
    while let Some(ended) = senders.join_next().await {
        let (id, answer) = ended.unwrap();
        answers.insert(id, answer);
    }
    ledger::settled(&platform.pool, RUN_PATIENCE).await;
    let fates = ledger::fates(&platform.pool).await;
    let mut arrived: HashMap<String, usize> = HashMap::new();
    for name in subjects(&sink) {
        *arrived.entry(name).or_default() += 1;
    }
    let mut tally: BTreeMap<(u16, bool), usize> = BTreeMap::new();
    for (id, (name, status)) in &answers {
        let message: MessageId = id.parse().unwrap();
        let fate = &fates[&message.uuid()];
        let copies = arrived.get(name).copied().unwrap_or_default();
        let story = ledger::story(&platform.pool, message.uuid()).await;
        assert_eq!(fate.finals, 1, "{id} answered {status}\n{story}");
        assert_eq!(
            copies as i64, fate.delivered,
            "{id} answered {status}\n{story}"
        );
        match status {
            200 => assert_eq!(copies, 0, "{id} was cancelled and arrived\n{story}"),
            409 => assert_eq!(
                copies, 1,
                "{id} was not cancelled and did not arrive\n{story}"
            ),
            202 => {}
            other => panic!("{id}: {other}"),
        }
        *tally.entry((*status, copies == 1)).or_default() += 1;
    }
    eprintln!("{count} raced, by (answer, arrived): {tally:?}");
    assert!(
        tally[&(200, false)] > 0 && tally[&(409, true)] > 0,
        "no race: {tally:?}"
    );
    let open = "SELECT count(*) FROM queue_command WHERE result IS NULL";
    let open: i64 = sqlx::query_scalar(open)
        .fetch_one(&platform.pool)
        .await
        .unwrap();
    assert_eq!(open, 0, "a command was left unanswered");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_outlives_the_node_that_was_to_carry_it_out() {
    let _turn = take_turn();
    let sink = Sink::options().start().await;
    let builder = Platform::builder().route("*", sink.address);
    let builder = builder.node("front", "api,worker").node("sender", "mta");
    let Some(mut platform) = builder.start().await else {
        return;
    };
    let api = platform.api(0);
    let receiver = WebhookReceiver::start().await;
    api.create_webhook(&receiver.url, &["email.cancelled"])
        .await;
    let sent = api.send(&named(&platform, "sent@sink.test", "sent")).await;
    api.becomes(&sent, "delivered").await;

    platform.node("sender").kill();
    let mut ids = Vec::new();
    for number in 0..20 {
        let name = format!("t-{number}");
        ids.push(api.send(&named(&platform, "ana@sink.test", &name)).await);
    }
    let mut asking = JoinSet::new();
    for id in ids.clone() {
        let api = api.clone();
        asking.spawn(async move { cancel(&api, &id).await });
    }
    while let Some(answer) = asking.join_next().await {
        let answer = answer.unwrap();
        assert_eq!(answer.status, 202, "{answer:?}");
        assert_eq!(answer.json()["status"], "cancelling");
    }
    // Once more in the middle of its work, whatever it has done by then.
    platform.node("sender").launch();
    tokio::time::sleep(Duration::from_millis(300)).await;
    platform.node("sender").kill();
    platform.node("sender").restart().await;
    for id in &ids {
        let email = api.becomes(id, "cancelled").await;
        let types = event_types(&email["deliveries"][0]);
        assert_eq!(types, ["email.queued", "email.cancelled"]);
    }
    let all = |calls: &[Call]| calls.len() >= ids.len();
    let calls = receiver.has("every cancellation is told", all).await;
    for id in &ids {
        let told = calls
            .iter()
            .filter(|call| is_of("email.cancelled", id)(call));
        assert_eq!(told.count(), 1, "{id}");
    }
    assert_eq!(
        subjects(&sink),
        ["sent"],
        "mail was sent before its command was looked at"
    );
}
