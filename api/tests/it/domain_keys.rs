//! A key that is restricted to domains: to it the account has no others, and no mail from others.

use axum::body::Body;
use axum::http::{Method, header};
use mail::domain_name::DomainName;
use mail::ids::DomainId;
use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;

use crate::api_keys::{PATH as KEYS, made, one, wanted};
use crate::commands::patch;
use crate::lists::{ids, index};
use crate::platform::{ALL_SCOPES, Answer, Platform, email, fresh_uuid, with_key};
use crate::sandbox::received;

/// `shop.test`, which the first account has proved too.
async fn second_domain(platform: &Platform) -> DomainId {
    let (store, now) = (&platform.state.store, platform.state.clock.now());
    let (id, name) = (
        DomainId::from_uuid(fresh_uuid()),
        DomainName::parse("shop.test").unwrap(),
    );
    let domain = store.create_domain(id, platform.account.no, &name, now);
    let domain = domain.await.unwrap();
    store.verify_domain(domain.no, now).await.unwrap();
    id
}

/// A live key with every scope that has to do with this domain only.
async fn key_of(platform: &Platform, domain: &str) -> String {
    let mut body = wanted(ALL_SCOPES);
    body["domains"] = json!([domain]);
    made(platform, &platform.live_key, &body).await.0
}

fn from(domain: &str) -> Value {
    let mut body = email();
    body["from"] = json!(format!("Me <me@{domain}>"));
    body
}

/// For later, so that it can be changed and cancelled without an MTA.
async fn scheduled(platform: &Platform, domain: &str) -> String {
    let mut body = from(domain);
    body["send_at"] = json!(in_hours(platform, 2));
    let answer = platform.accepted(&platform.live_key, &body).await;
    answer.id().to_owned()
}

fn in_hours(platform: &Platform, hours: i64) -> String {
    let at = platform.state.clock.now() + time::Duration::hours(hours);
    at.format(&Rfc3339).unwrap()
}

async fn send_raw(platform: &Platform, key: &str, mail: String, from: &str) -> Answer {
    let request = with_key(key, Method::POST, &format!("/v1/emails/raw{from}"))
        .header(header::CONTENT_TYPE, "message/rfc822");
    platform.send(request.body(Body::from(mail)).unwrap()).await
}

#[tokio::test]
async fn it_sends_from_its_domains_in_every_way_there_is() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    second_domain(&platform).await;
    let shop = key_of(&platform, "shop.test").await;
    let answer = platform.post(&shop, "/v1/emails", &from("acme.test")).await;
    answer.refused(403, "domain_not_allowed");
    let sent = platform.accepted(&shop, &from("shop.test")).await;

    let mail = |domain| {
        format!("From: me@{domain}\r\nTo: ana@example.com\r\nSubject: Hi\r\n\r\nHello\r\n")
    };
    let answer = send_raw(&platform, &shop, mail("acme.test"), "").await;
    answer.refused(403, "domain_not_allowed");
    // An envelope of its own is a sender too.
    let answer = send_raw(&platform, &shop, mail("shop.test"), "?from=b@acme.test").await;
    answer.refused(403, "domain_not_allowed");
    let answer = send_raw(&platform, &shop, mail("shop.test"), "").await;
    assert_eq!(answer.status, 202, "{}", answer.json);

    let foreign = platform
        .accepted(&platform.live_key, &from("acme.test"))
        .await;
    let foreign = format!("/v1/emails/{}/resend", foreign.id());
    let again = platform.post(&shop, &foreign, &json!({})).await;
    again.refused(404, "not_found");
    let own = format!("/v1/emails/{}/resend", sent.id());
    let again = platform.post(&shop, &own, &json!({})).await;
    assert_eq!(again.status, 202, "{}", again.json);
}

#[tokio::test]
async fn mail_from_other_domains_does_not_exist_for_it() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    second_domain(&platform).await;
    let (shop, acme) = (
        key_of(&platform, "shop.test").await,
        key_of(&platform, "acme.test").await,
    );
    let id = scheduled(&platform, "acme.test").await;
    let own = scheduled(&platform, "shop.test").await;
    let path = format!("/v1/emails/{id}");
    let unknown = "/v1/emails/msg_01kasxq2bke9qa1bz2t0zc6800";
    let later = json!({"send_at": in_hours(&platform, 3)});
    let missing = platform.get(&shop, unknown).await;
    for answer in [
        platform.get(&shop, &path).await,
        platform.get(&shop, &format!("{path}/content")).await,
        platform
            .get(&shop, &format!("{path}/attempts/1/transcript"))
            .await,
        patch(&platform, &shop, &id, later).await,
        platform
            .post(&shop, &format!("{path}/cancel"), &json!({}))
            .await,
        platform
            .post(&shop, &format!("{path}/resend"), &json!({}))
            .await,
    ] {
        answer.refused(404, "not_found");
        assert_eq!(answer.json["detail"], missing.json["detail"]);
    }
    for path in [&path, &format!("{path}/content")] {
        assert_eq!(platform.get(&acme, path).await.status, 200);
    }

    index(&platform, 2).await;
    assert_eq!(ids(&platform.get(&shop, "/v1/emails").await), [&own]);
    assert_eq!(ids(&platform.get(&acme, "/v1/emails").await), [&id]);
    for search in ["from=acme.test", "from=me@acme.test"] {
        let answer = platform.get(&shop, &format!("/v1/emails?{search}")).await;
        assert!(ids(&answer).is_empty(), "{search}: {}", answer.json);
    }
    let all = platform.get(&platform.live_key, "/v1/emails").await;
    assert_eq!(ids(&all).len(), 2);

    // An action on everything takes its own mail only.
    let everything = json!({"action": "cancel", "filter": {}});
    let answer = platform
        .post(&shop, "/v1/emails/actions", &everything)
        .await;
    assert_eq!(answer.json["matched"], 1, "{}", answer.json);
    let cancelled = platform
        .post(&acme, &format!("{path}/cancel"), &json!({}))
        .await;
    assert_eq!(cancelled.status, 200, "{}", cancelled.json);
}

#[tokio::test]
async fn nor_what_the_sandbox_received_of_it() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    second_domain(&platform).await;
    let (shop, acme) = (
        key_of(&platform, "shop.test").await,
        key_of(&platform, "acme.test").await,
    );
    let (inbox, _) = received(&platform, &platform.test_key).await;
    let path = "/v1/sandbox/messages";
    assert!(ids(&platform.get(&shop, path).await).is_empty());
    assert_eq!(ids(&platform.get(&acme, path).await), [&inbox.to_string()]);
    for path in [format!("{path}/{inbox}"), format!("{path}/{inbox}/raw")] {
        platform.get(&shop, &path).await.refused(404, "not_found");
        assert_eq!(platform.get(&acme, &path).await.status, 200);
    }
}

#[tokio::test]
async fn other_domains_do_not_exist_for_it() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let id = second_domain(&platform).await.to_string();
    let (shop, acme) = (
        key_of(&platform, "shop.test").await,
        key_of(&platform, "acme.test").await,
    );
    assert_eq!(ids(&platform.get(&shop, "/v1/domains").await), [&id]);
    assert_eq!(ids(&platform.get(&acme, "/v1/domains").await).len(), 1);
    let path = format!("/v1/domains/{id}");
    assert_eq!(platform.get(&shop, &path).await.status, 200);
    for answer in [
        platform.get(&acme, &path).await,
        platform
            .post(&acme, &format!("{path}/verify"), &json!({}))
            .await,
        platform
            .post(&acme, &format!("{path}/dkim/rotate"), &json!({}))
            .await,
        platform.delete(&acme, &path).await,
    ] {
        answer.refused(404, "not_found");
    }
    let new = json!({"name": "else.test"});
    platform
        .post(&acme, "/v1/domains", &new)
        .await
        .refused(403, "domain_not_allowed");
    assert_eq!(platform.delete(&shop, &path).await.status, 204);
    // What it had it may have again.
    let again = json!({"name": "shop.test"});
    let answer = platform.post(&shop, "/v1/domains", &again).await;
    assert_eq!(answer.status, 201, "{}", answer.json);
}

#[tokio::test]
async fn it_sees_and_revokes_only_keys_that_can_do_no_more_with_domains() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    second_domain(&platform).await;
    let owner = &platform.live_key;
    let shop = key_of(&platform, "shop.test").await;
    let mut of_both = wanted(&["emails:send"]);
    of_both["domains"] = json!(["shop.test", "acme.test"]);
    let (_, both) = made(&platform, owner, &of_both).await;
    let (_, free) = made(&platform, owner, &wanted(&["emails:send"])).await;
    let mut of_shop = wanted(&["emails:send"]);
    of_shop["domains"] = json!(["shop.test"]);
    let (_, child) = made(&platform, &shop, &of_shop).await;
    let listed = platform.get(&shop, KEYS).await;
    assert_eq!(
        ids(&listed).len(),
        2,
        "itself and its child: {}",
        listed.json
    );
    for foreign in [&both, &free] {
        for answer in [
            platform.get(&shop, &one(foreign)).await,
            platform.delete(&shop, &one(foreign)).await,
            platform
                .post(&shop, &format!("{}/rotate", one(foreign)), &json!({}))
                .await,
        ] {
            answer.refused(404, "not_found");
        }
        let kept = platform.get(owner, &one(foreign)).await;
        assert_eq!(kept.json["status"], "active");
    }
    let rotate = format!("{}/rotate", one(&child));
    let rotated = platform.post(&shop, &rotate, &json!({})).await;
    assert_eq!(rotated.status, 200, "{}", rotated.json);
    assert_eq!(platform.delete(&shop, &one(&child)).await.status, 204);
}
