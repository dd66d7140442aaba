//! Webhook endpoints: made with a secret shown once, listed, deleted, never seen by others.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mail::ids::WebhookEndpointId;
use serde_json::{Value, json};

use crate::platform::Platform;

const PATH: &str = "/v1/webhooks";

fn webhook(url: &str) -> Value {
    json!({"url": url, "events": ["email.delivered", "email.bounced", "email.delivered"]})
}

#[tokio::test]
async fn a_webhook_shows_its_secret_once_and_keeps_it() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let key = &platform.live_key;
    let made = platform
        .post(key, PATH, &webhook("https://hooks.example.com/a?b=c"))
        .await;
    assert_eq!(made.status, 201, "{}", made.json);
    assert_eq!(made.headers["cache-control"], "no-store");
    let location = format!("http://127.0.0.1:8080{PATH}/{}", made.id());
    assert_eq!(made.headers["location"], location);
    assert_eq!(made.json["status"], "enabled");
    assert_eq!(
        made.json["events"],
        json!(["email.delivered", "email.bounced"])
    );
    let secret = made.json["secret"]
        .as_str()
        .unwrap()
        .strip_prefix("whsec_")
        .unwrap();
    let secret = STANDARD.decode(secret).unwrap();
    assert_eq!(secret.len(), 32);

    let id: WebhookEndpointId = made.id().parse().unwrap();
    let (store, account) = (&platform.state.store, platform.account.no);
    let no = store
        .endpoints(account)
        .await
        .unwrap()
        .iter()
        .find(|e| e.id == id)
        .unwrap()
        .no;
    let stored = store
        .endpoint(no, &platform.state.sealer)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(stored.secret, secret);

    let shown = platform.get(key, &format!("{PATH}/{id}")).await;
    let mut expected = made.json.clone();
    expected.as_object_mut().unwrap().remove("secret");
    assert_eq!(shown.json, expected);
    let listed = platform.get(key, PATH).await;
    assert_eq!(
        listed.json,
        json!({"data": [expected], "has_more": false, "next": null})
    );
}

#[tokio::test]
async fn lists_come_in_pages() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let key = &platform.live_key;
    let mut made = Vec::new();
    for number in 0..3 {
        let body = webhook(&format!("https://hooks.example.com/{number}"));
        made.push(platform.post(key, PATH, &body).await.id().to_owned());
        // Ids made in one millisecond have no order.
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    let first = platform.get(key, &format!("{PATH}?limit=2")).await;
    assert_eq!(first.json["has_more"], true);
    assert_eq!(first.json["next"], made[1].as_str());
    let next = first.json["next"].as_str().unwrap();
    let second = platform
        .get(key, &format!("{PATH}?limit=2&after={next}"))
        .await;
    assert_eq!(second.json["data"].as_array().unwrap().len(), 1);
    assert_eq!(second.json["data"][0]["id"], made[2].as_str());
    assert_eq!(second.json["next"], Value::Null);
    for query in [
        "limit=0",
        "limit=101",
        "limit=x",
        "limit=-1",
        "after=x",
        "page=2",
        "limit=1&limit=2",
    ] {
        platform
            .get(key, &format!("{PATH}?{query}"))
            .await
            .refused(422, "invalid_parameter");
    }
}

#[tokio::test]
async fn wrong_webhooks_are_refused_with_all_that_is_wrong() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let key = &platform.live_key;
    let answer = platform.post(key, PATH, &json!({})).await;
    let expected = [("/url", "required"), ("/events", "required")];
    assert_eq!(answer.refused(422, "validation_failed").fields(), expected);
    let body = json!({"url": "http://a.example/", "events": ["email.delivered", "email.lost", "email.opened"]});
    let answer = platform.post(key, PATH, &body).await;
    let expected = [
        ("/url", "invalid_url"),
        ("/events/1", "unknown_event"),
        ("/events/2", "unknown_event"),
    ];
    assert_eq!(answer.refused(422, "validation_failed").fields(), expected);
    let detail = answer.json["errors"][1]["detail"].as_str().unwrap();
    assert!(
        detail.contains("email.delivered") && !detail.contains("source.blocked"),
        "{detail}"
    );
    for url in [
        "https://127.0.0.1/",
        "https://127.1/",
        "https://[::ffff:10.0.0.1]/",
        "https://localhost/",
        "https://169.254.169.254/latest/meta-data",
        "https://user:pass@a.example/",
        "https://a.example/\0",
        "https://a.example/\r\nX-Y: z",
    ] {
        let answer = platform.post(key, PATH, &webhook(url)).await;
        assert_eq!(
            answer.refused(422, "validation_failed").fields()[0].0,
            "/url",
            "{url}"
        );
    }
    let many = json!({"url": "https://a.example/", "events": vec!["x"; 100_000]});
    let answer = platform.post(key, PATH, &many).await;
    assert_eq!(
        answer.refused(422, "validation_failed").fields(),
        [("/events", "too_many")]
    );
    let unknown = json!({"url": "https://a.example/", "events": [], "secret": "x"});
    let answer = platform.post(key, PATH, &unknown).await;
    assert_eq!(
        answer.refused(422, "validation_failed").fields(),
        [("/secret", "unknown_field")]
    );
}

#[tokio::test]
async fn a_test_key_reaches_no_webhook() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let key = &platform.test_key;
    let body = webhook("https://a.example/");
    let made = platform.post(&platform.live_key, PATH, &body).await;
    let one = format!("{PATH}/{}", made.id());
    for answer in [
        platform.post(key, PATH, &body).await,
        platform.get(key, PATH).await,
        platform.get(key, &one).await,
        platform.delete(key, &one).await,
    ] {
        answer.refused(403, "test_key_not_allowed");
    }
    assert_eq!(platform.get(&platform.live_key, &one).await.status, 200);
}

#[tokio::test]
async fn development_may_allow_plain_http_on_this_machine() {
    let change = |config: &mut api::ApiConfig| config.allow_insecure_webhooks = true;
    let Some(platform) = Platform::start_with(change).await else {
        return;
    };
    let answer = platform
        .post(&platform.live_key, PATH, &webhook("http://127.0.0.1:9/x"))
        .await;
    assert_eq!(answer.status, 201, "{}", answer.json);
}

#[tokio::test]
async fn an_account_sees_and_deletes_its_own_webhooks_only() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let stranger = platform.other_account("other.test").await;
    let made = platform
        .post(&platform.live_key, PATH, &webhook("https://a.example/"))
        .await;
    let path = format!("{PATH}/{}", made.id());
    platform
        .get(&stranger, &path)
        .await
        .refused(404, "not_found");
    platform
        .delete(&stranger, &path)
        .await
        .refused(404, "not_found");
    assert_eq!(platform.get(&stranger, PATH).await.json["data"], json!([]));
    assert_eq!(platform.get(&platform.live_key, &path).await.status, 200);
    let gone = platform.delete(&platform.live_key, &path).await;
    assert_eq!((gone.status.as_u16(), gone.octets.len()), (204, 0));
    platform
        .get(&platform.live_key, &path)
        .await
        .refused(404, "not_found");
    platform
        .delete(&platform.live_key, &path)
        .await
        .refused(404, "not_found");
}

#[tokio::test]
async fn an_account_has_a_bounded_number_of_webhooks() {
    let change = |config: &mut api::ApiConfig| config.webhook_endpoints_max = 1;
    let Some(platform) = Platform::start_with(change).await else {
        return;
    };
    let body = webhook("https://a.example/");
    assert_eq!(
        platform.post(&platform.live_key, PATH, &body).await.status,
        201
    );
    platform
        .post(&platform.live_key, PATH, &body)
        .await
        .refused(409, "too_many_webhooks");
    let other = platform.other_account("other.test").await;
    assert_eq!(platform.post(&other, PATH, &body).await.status, 201);
}
