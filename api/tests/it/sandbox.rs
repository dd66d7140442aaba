//! What the sandbox received: an account sees its own mail, the inbox shows all to its token.

use mail::ids::{InboxId, MessageId};
use serde_json::Value;
use store::SandboxMessage;

use crate::platform::{Platform, email, fresh_uuid};

const PATH: &str = "/v1/sandbox/messages";
const TOKEN: &str = "a-long-token";

/// Sends with a test key and puts the stored octets where the sandbox MX would.
pub(crate) async fn received(platform: &Platform, key: &str) -> (InboxId, MessageId) {
    received_from(platform, key, "acme.test").await
}

/// The same from another domain than that of the first account.
async fn received_from(platform: &Platform, key: &str, domain: &str) -> (InboxId, MessageId) {
    let mut body = email();
    body["from"] = format!("hello@{domain}").into();
    let sent = platform.accepted(key, &body).await;
    let message_id: MessageId = sent.id().parse().unwrap();
    let stored = platform.state.store.contents(&[message_id]).await.unwrap();
    let id = InboxId::from_uuid(fresh_uuid());
    let message = SandboxMessage {
        id,
        received_at: platform.state.clock.now(),
        helo: "node.test".to_owned(),
        mail_from: "b-token@bounce.acme.test".to_owned(),
        recipients: vec!["ana@example.com".to_owned()],
        authentication_results: "sandbox.test; dkim=pass".to_owned(),
        raw: stored[0].bytes.to_vec(),
    };
    platform
        .state
        .store
        .add_sandbox_message(&message)
        .await
        .unwrap();
    (id, message_id)
}

fn ids(list: &Value) -> Vec<&str> {
    let data = list["data"].as_array().unwrap();
    data.iter()
        .map(|message| message["id"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn an_account_sees_the_mail_it_sent_to_the_sandbox() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let stranger = platform.other_account("other.test").await;
    let (id, message_id) = received(&platform, &platform.test_key).await;
    let (foreign, _) = received_from(&platform, &stranger, "other.test").await;

    let listed = platform.get(&platform.test_key, PATH).await;
    assert_eq!(ids(&listed.json), [id.to_string()], "{}", listed.json);
    let message = &listed.json["data"][0];
    assert_eq!(message["message_id"], message_id.to_string());
    assert_eq!(message["authentication_results"], "sandbox.test; dkim=pass");
    let headers = message["headers"].as_str().unwrap();
    assert!(
        headers.contains("Subject: Hi\r\n") && !headers.contains("Hello."),
        "{headers}"
    );

    let one = platform
        .get(&platform.test_key, &format!("{PATH}/{id}"))
        .await;
    assert_eq!(one.json, *message);
    let raw = platform
        .get(&platform.test_key, &format!("{PATH}/{id}/raw"))
        .await;
    assert_eq!(raw.headers["content-type"], "message/rfc822");
    assert_eq!(raw.headers["x-content-type-options"], "nosniff");
    assert!(String::from_utf8_lossy(&raw.octets).contains("Hello."));

    for path in [
        format!("{PATH}/{foreign}"),
        format!("{PATH}/{foreign}/raw"),
        format!("{PATH}/x"),
    ] {
        platform
            .get(&platform.test_key, &path)
            .await
            .refused(404, "not_found");
    }
}

#[tokio::test]
async fn a_test_key_sees_no_live_mail_in_the_sandbox() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let (test, _) = received(&platform, &platform.test_key).await;
    let (live, _) = received(&platform, &platform.live_key).await;
    let seen = platform.get(&platform.test_key, PATH).await;
    assert_eq!(ids(&seen.json), [test.to_string()]);
    for path in [format!("{PATH}/{live}"), format!("{PATH}/{live}/raw")] {
        platform
            .get(&platform.test_key, &path)
            .await
            .refused(404, "not_found");
    }
    let seen = platform.get(&platform.live_key, PATH).await;
    assert_eq!(ids(&seen.json).len(), 2);
}

#[tokio::test]
async fn pages_go_past_the_mail_of_others() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let stranger = platform.other_account("other.test").await;
    let mut own = Vec::new();
    for _ in 0..3 {
        own.push(received(&platform, &platform.test_key).await.0.to_string());
        for _ in 0..3 {
            received_from(&platform, &stranger, "other.test").await;
        }
    }
    own.reverse();
    let first = platform
        .get(&platform.test_key, &format!("{PATH}?limit=2"))
        .await;
    assert_eq!(ids(&first.json), own[..2]);
    let next = first.json["next"].as_str().unwrap();
    let second = platform
        .get(&platform.test_key, &format!("{PATH}?limit=2&after={next}"))
        .await;
    assert_eq!(ids(&second.json), own[2..]);
    assert_eq!(second.json["has_more"], false);
}

#[tokio::test]
async fn the_inbox_opens_with_its_token_only() {
    let change = |config: &mut api::ApiConfig| config.inbox_token = Some(TOKEN.to_owned());
    let Some(platform) = Platform::start_with(change).await else {
        return;
    };
    let stranger = platform.other_account("other.test").await;
    let (own, _) = received(&platform, &platform.test_key).await;
    let (foreign, _) = received_from(&platform, &stranger, "other.test").await;
    let opened = platform
        .get("", &format!("/inbox?token={TOKEN}&limit=2"))
        .await;
    assert_eq!(ids(&opened.json), [foreign.to_string(), own.to_string()]);
    for query in ["", "?token=", "?token=a-long-tokem", "?token=a-long-token2"] {
        platform
            .get(&platform.live_key, &format!("/inbox{query}"))
            .await
            .refused(404, "not_found");
    }

    let Some(closed) = Platform::start_with(|config| config.inbox_token = None).await else {
        return;
    };
    closed
        .get("", "/inbox?token=")
        .await
        .refused(404, "not_found");
    let Some(empty) = Platform::start_with(|c| c.inbox_token = Some(String::new())).await else {
        return;
    };
    empty
        .get("", "/inbox?token=")
        .await
        .refused(404, "not_found");
}
