//! Sending domains: whose they are, which names may be one's own, and what is left of a removed one.

use axum::http::Method;
use serde_json::{Value, json};
use service::resolver::Resolver;

use crate::dns::Dns;
use crate::platform::{ALL_SCOPES, Answer, Platform, email, with_key};

pub(crate) const PATH: &str = "/v1/domains";
pub(crate) const TARGET: &str = "bounces.host.test";

pub(crate) async fn start(dns: &Dns) -> Option<Platform> {
    let change = |config: &mut api::ApiConfig| {
        config.return_path_domain = Some(TARGET.parse().unwrap());
        config.domains_max = 4;
    };
    let mut platform = Platform::start_with(change).await?;
    platform.ask_dns(Resolver::new(&[dns.address]).unwrap());
    Some(platform)
}

pub(crate) async fn create(platform: &Platform, key: &str, name: &str) -> Value {
    let made = platform.post(key, PATH, &json!({"name": name})).await;
    assert_eq!(made.status, 201, "{}", made.json);
    made.json
}

pub(crate) async fn verify(platform: &Platform, key: &str, domain: &Value) -> Value {
    let looked = ask_verify(platform, key, domain).await;
    assert_eq!(looked.status, 200, "{}", looked.json);
    looked.json
}

pub(crate) async fn ask_verify(platform: &Platform, key: &str, domain: &Value) -> Answer {
    let path = format!("{PATH}/{}/verify", domain["id"].as_str().unwrap());
    platform.post(key, &path, &json!({})).await
}

/// The records of a purpose, in order.
pub(crate) fn records<'a>(domain: &'a Value, purpose: &str) -> Vec<&'a Value> {
    let records = domain["records"].as_array().unwrap().iter();
    records
        .filter(|record| record["purpose"] == purpose)
        .collect()
}

pub(crate) fn status<'a>(domain: &'a Value, purpose: &str) -> &'a str {
    records(domain, purpose)[0]["status"].as_str().unwrap()
}

pub(crate) fn publish(dns: &Dns, record: &Value) {
    let text = |field: &str| record[field].as_str().unwrap();
    match text("type") {
        "TXT" => dns.txt(text("name"), text("value")),
        _ => dns.cname(text("name"), text("value")),
    }
}

pub(crate) fn from(domain: &str) -> Value {
    let mut body = email();
    body["from"] = format!("Acme <hello@{domain}>").into();
    body
}

#[tokio::test]
async fn a_removed_domain_is_gone_for_its_account_and_may_come_back() {
    let dns = Dns::start().await;
    let Some(platform) = start(&dns).await else {
        return;
    };
    let key = &platform.live_key;
    for proved in [false, true] {
        let domain = create(&platform, key, "shop.test").await;
        if proved {
            publish(&dns, records(&domain, "dkim")[0]);
            verify(&platform, key, &domain).await;
            platform.accepted(key, &from("shop.test")).await;
        }
        let own = format!("{PATH}/{}", domain["id"].as_str().unwrap());
        assert_eq!(platform.delete(key, &own).await.status, 204);
        platform.get(key, &own).await.refused(404, "not_found");
        platform.delete(key, &own).await.refused(404, "not_found");
        ask_verify(&platform, key, &domain)
            .await
            .refused(404, "not_found");
        let refused = platform.post(key, "/v1/emails", &from("shop.test")).await;
        refused.refused(403, "sender_not_verified");
    }
    create(&platform, key, "shop.test").await;
}

#[tokio::test]
async fn names_that_cannot_be_ones_own_are_refused() {
    let dns = Dns::start().await;
    let Some(platform) = start(&dns).await else {
        return;
    };
    let key = &platform.live_key;
    let long = format!("{}.test", ["a"; 95].join("."));
    for (name, code) in [
        ("", "invalid_domain"),
        ("com", "invalid_domain"),
        ("co.uk", "public_suffix"),
        ("192.0.2.1", "invalid_domain"),
        ("shop.test\r\nx: y", "invalid_domain"),
        ("sh\0p.test", "invalid_domain"),
        ("*.shop.test", "invalid_domain"),
        ("a@shop.test", "invalid_domain"),
        (long.as_str(), "too_long"),
        ("x".repeat(100_000).as_str(), "invalid_domain"),
    ] {
        let refused = platform.post(key, PATH, &json!({"name": name})).await;
        refused.refused(422, "validation_failed");
        assert_eq!(refused.fields(), [("/name", code)], "{name:?}");
    }
    let refused = platform.post(key, PATH, &json!({})).await;
    assert_eq!(refused.fields(), [("/name", "required")]);
    let refused = platform
        .post(key, PATH, &json!({"name": "shop.test", "verified": true}))
        .await;
    refused.refused(422, "validation_failed");

    // acme.test and pending.test are there already: four in all.
    create(&platform, key, "shop.test").await;
    let refused = platform
        .post(key, PATH, &json!({"name": "SHOP.test"}))
        .await;
    refused.refused(409, "conflict");
    create(&platform, key, "b.shop.test").await;
    let refused = platform.post(key, PATH, &json!({"name": "c.test"})).await;
    refused.refused(409, "too_many_domains");
}

#[tokio::test]
async fn domains_are_their_accounts_business_and_live_keys_with_the_scope() {
    let dns = Dns::start().await;
    let Some(platform) = start(&dns).await else {
        return;
    };
    let domain = create(&platform, &platform.live_key, "shop.test").await;
    let own = format!("{PATH}/{}", domain["id"].as_str().unwrap());
    let others: Vec<&str> = ALL_SCOPES
        .iter()
        .copied()
        .filter(|scope| *scope != "domains:*")
        .collect();
    let scopeless = platform.key_with(&others).await;
    let stranger = platform.other_account("other.test").await;
    for (method, path) in [
        (Method::GET, own.clone()),
        (Method::DELETE, own.clone()),
        (Method::POST, format!("{own}/verify")),
        (Method::POST, format!("{own}/dkim/rotate")),
        (Method::GET, PATH.to_owned()),
        (Method::POST, PATH.to_owned()),
    ] {
        let ask = |key: &str| {
            let request = with_key(key, method.clone(), &path);
            let request = request.header("content-type", "application/json");
            platform.send(request.body("{\"name\":\"x.test\"}".into()).unwrap())
        };
        ask(&scopeless).await.refused(403, "missing_scope");
        ask(&platform.test_key)
            .await
            .refused(403, "test_key_not_allowed");
        ask("pr_live_nonsense")
            .await
            .refused(401, "invalid_api_key");
        if path != PATH {
            ask(&stranger).await.refused(404, "not_found");
        }
    }
    let missing = format!("{PATH}/dom_00000000000000000000000000");
    platform
        .get(&platform.live_key, &missing)
        .await
        .refused(404, "not_found");
    platform
        .get(&platform.live_key, &format!("{PATH}/x"))
        .await
        .refused(404, "not_found");
    let listed = platform.get(&stranger, PATH).await.json;
    assert!(!listed.to_string().contains("shop.test"), "{listed:#}");
    assert_eq!(platform.get(&platform.live_key, &own).await.status, 200);

    // Pages, oldest first.
    let first = platform
        .get(&platform.live_key, &format!("{PATH}?limit=2"))
        .await
        .json;
    assert_eq!(
        (first["data"].as_array().unwrap().len(), &first["has_more"]),
        (2, &json!(true))
    );
    let next = first["next"].as_str().unwrap();
    let rest = platform
        .get(&platform.live_key, &format!("{PATH}?after={next}"))
        .await
        .json;
    assert_eq!(
        (rest["data"][0]["id"].clone(), &rest["has_more"]),
        (domain["id"].clone(), &json!(false))
    );
}
