//! What was sent is found again: in lists, by recipient, tag and status; what a host said about mail
//! it refused can be read, and so can the mail itself as long as it is kept.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tests::api::{Api, message};
use tests::platform::Platform;
use tests::sink::{Asked, Sink, Verdict};
use tests::{PATIENCE, take_turn, until};

const SENT: usize = 30;

fn receiver(asked: &Asked) -> Verdict {
    match asked.local_part.as_str() {
        "nobody" => Verdict::AtRcpt("550 5.1.1 No such user here"),
        _ => Verdict::Accept,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sent_mail_is_listed_searched_and_explained() {
    let _turn = take_turn();
    let sink = Sink::options().script(receiver).start().await;
    let builder = Platform::builder().route("*", sink.address);
    let Some(platform) = builder.start().await else {
        return;
    };
    let api = platform.api(0);
    let mut sent = BTreeSet::new();
    for number in 0..SENT - 1 {
        let to = format!("user{number}@sink.test");
        let mut body = message(&platform.tenant.domain, &to);
        body["tags"] = json!([format!("group {}", number % 3)]);
        sent.insert(api.send(&body).await);
    }
    let refused = message(&platform.tenant.domain, "nobody@sink.test");
    let refused = api.send(&refused).await;
    sent.insert(refused.clone());
    api.becomes(&refused, "bounced").await;

    let bounced = found(&api, "status=bounced", 1).await;
    assert_eq!(bounced[0]["id"], refused.as_str());
    assert_eq!(bounced[0]["status"], "bounced", "{bounced:#?}");
    found(&api, "status=delivered", SENT - 1).await;
    assert_eq!(pages(&api).await, sent);
    found(&api, "tag=group%201", 10).await;
    let one = found(&api, "recipient=USER7@sink.test", 1).await;
    assert_eq!(one[0]["to"], json!(["user7@sink.test"]));
    assert_eq!(one[0]["tags"], json!(["group 1"]));
    found(&api, "recipient=user7@sink.test&status=bounced", 0).await;
    let test_api = api.with_key(&platform.tenant.test_key);
    found(&test_api, "", 0).await;

    let path = format!("/v1/emails/{refused}/attempts/1/transcript");
    let transcript = api.get(&path).await;
    assert_eq!(transcript.status, 200, "{transcript:?}");
    let transcript = transcript.json()["transcript"].as_str().unwrap().to_owned();
    let lines: Vec<&str> = transcript.lines().collect();
    assert!(
        lines.contains(&"C: RCPT TO:<nobody@sink.test>"),
        "{transcript}"
    );
    assert!(
        lines.contains(&"S: 550 5.1.1 No such user here"),
        "{transcript}"
    );

    let path = format!("/v1/emails/{refused}/content");
    let content = api.get(&path).await.json();
    assert_eq!(
        content["text"].as_str().map(str::trim_end),
        Some("Thank you.")
    );
    let raw = api.get(&format!("{path}?format=raw")).await;
    assert_eq!(raw.header("content-type"), "message/rfc822");
    assert!(
        raw.text.contains("\r\nSubject: Your receipt\r\n"),
        "{raw:?}"
    );
    sqlx::query("DELETE FROM content")
        .execute(&platform.pool)
        .await
        .unwrap();
    api.get(&path).await.is_problem(410, "content_gone");
}

/// The emails that are found, once there are so many.
async fn found(api: &Api, query: &str, count: usize) -> Vec<Value> {
    let path = format!("/v1/emails?limit=100&{query}");
    let what = format!("{count} emails are found by {query}");
    until(&what, PATIENCE, || async {
        let answer = api.get(path.trim_end_matches('&')).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let data = answer.json()["data"].as_array().unwrap().clone();
        (data.len() == count).then_some(data)
    })
    .await
}

/// All that is listed, read page by page; none may come twice.
async fn pages(api: &Api) -> BTreeSet<String> {
    let mut listed = BTreeSet::new();
    let mut path = "/v1/emails?limit=7".to_owned();
    loop {
        let answer = api.get(&path).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let page = answer.json();
        for email in page["data"].as_array().unwrap() {
            let id = email["id"].as_str().unwrap().to_owned();
            assert!(listed.insert(id), "{email} came twice");
        }
        let Some(next) = page["next"].as_str() else {
            assert_eq!(page["has_more"], false);
            return listed;
        };
        path = format!("/v1/emails?limit=7&after={next}");
    }
}
