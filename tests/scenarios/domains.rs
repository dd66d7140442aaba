//! A customer adds a domain, publishes its records and sends from it: the mail verifies with the
//! published key, its bounces return to the domain's own subdomain, and the webhook tells when the
//! domain is proved and when its record was missed too long.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig, ResolverOpts};
use mail_auth::{AuthenticatedMessage, DkimResult, MessageAuthenticator};
use serde_json::{Value, json};
use tests::api::{Api, message};
use tests::dns::Dns;
use tests::platform::Platform;
use tests::receiver::{Call, WebhookReceiver};
use tests::sink::{Receipt, Sink, Verdict};
use tests::{PATIENCE, take_turn, until};

const HOUR: Duration = Duration::from_secs(3_600);
const OWN_PATH: &str = "@pr-bounce.shop.test";
const PLATFORM_PATH: &str = "@bounce.test";

#[tokio::test(flavor = "multi_thread")]
async fn a_domain_is_added_proved_sent_from_and_lost() {
    let _turn = take_turn();
    let dns = Dns::start().await;
    let sink = Sink::options()
        .script(|asked| match asked.local_part.as_str() {
            "later" if asked.earlier == 0 => Verdict::AtRcpt("451 4.7.1 later please"),
            _ => Verdict::Accept,
        })
        .start()
        .await;
    let builder = Platform::builder()
        .route("*", sink.address)
        .nameserver(dns.address)
        .clock();
    let Some(platform) = builder.start().await else {
        return;
    };
    let api = platform.api(0);
    let receiver = WebhookReceiver::start().await;
    let secret = api
        .create_webhook(&receiver.url, &["domain.verified", "domain.failed"])
        .await;

    let made = api.post("/v1/domains", &json!({"name": "shop.test"})).await;
    assert_eq!(made.status, 201, "{made:?}");
    let domain = made.json();
    let id = domain["id"].as_str().unwrap().to_owned();
    let refused = api
        .post("/v1/emails", &message("shop.test", "ana@sink.test"))
        .await;
    refused.is_problem(403, "sender_not_verified");

    // Proved by its key alone, bounces still return to the platform's domain.
    let dkim = record(&domain, "dkim");
    dns.txt(text(&dkim, "name"), text(&dkim, "value"));
    assert_eq!(verify(&api, &id).await["status"], "verified");
    let calls = receiver.has("it is told", |calls| !calls.is_empty()).await;
    check_call(&calls[0], &secret, "domain.verified", &id);
    let begun = api.send(&message("shop.test", "later@sink.test")).await;
    api.becomes(&begun, "deferred").await;

    // With the alias they return to its own, for mail that has not begun.
    let path = record(&domain, "return_path");
    dns.cname(text(&path, "name"), text(&path, "value"));
    let looked = verify(&api, &id).await;
    assert_eq!(
        record(&looked, "return_path")["status"],
        "found",
        "{looked:#}"
    );
    platform.clock.as_ref().unwrap().advance(HOUR).unwrap();
    api.becomes(&begun, "delivered").await;
    let sent = api.send(&message("shop.test", "ana@sink.test")).await;
    api.becomes(&sent, "delivered").await;
    let receipt = |to: &str| receipt(&sink, to);
    let (old, new) = (receipt("later@sink.test"), receipt("ana@sink.test"));
    assert!(old.mail_from.ends_with(PLATFORM_PATH), "{old:?}");
    assert!(new.mail_from.ends_with(OWN_PATH), "{new:?}");
    assert!(dkim_passes(&dns, &new).await, "{new:?}");

    // The record is withdrawn: three looks later the domain is lost.
    dns.withdraw(text(&dkim, "name"));
    for _ in 0..3 {
        missed(&platform, &api, &id).await;
    }
    let calls = receiver
        .has("it is told again", |calls| calls.len() >= 2)
        .await;
    check_call(&calls[1], &secret, "domain.failed", &id);
    let refused = api
        .post("/v1/emails", &message("shop.test", "ana@sink.test"))
        .await;
    refused.is_problem(403, "sender_not_verified");
}

fn check_call(call: &Call, secret: &str, kind: &str, id: &str) {
    assert!(call.is_signed("webhook", secret), "{call:?}");
    let event = call.json();
    assert_eq!(
        (&event["type"], &event["data"]["id"]),
        (&json!(kind), &json!(id)),
        "{event:#}"
    );
}

fn record(domain: &Value, purpose: &str) -> Value {
    let mut records = domain["records"].as_array().unwrap().iter();
    records
        .find(|record| record["purpose"] == purpose)
        .unwrap()
        .clone()
}

fn text<'a>(record: &'a Value, field: &str) -> &'a str {
    record[field].as_str().unwrap()
}

async fn verify(api: &Api, id: &str) -> Value {
    let looked = api
        .post(&format!("/v1/domains/{id}/verify"), &json!({}))
        .await;
    assert_eq!(looked.status, 200, "{looked:?}");
    looked.json()
}

fn receipt(sink: &Sink, to: &str) -> Receipt {
    let mut receipts = sink.receipts().into_iter();
    receipts.rfind(|receipt| receipt.recipient == to).unwrap()
}

/// Moves time to the next look of the worker's own, and waits for it.
async fn missed(platform: &Platform, api: &Api, id: &str) {
    let path = format!("/v1/domains/{id}");
    let before = api.get(&path).await.json()["checked_at"].clone();
    platform.clock.as_ref().unwrap().advance(27 * HOUR).unwrap();
    until("the domain was looked at", PATIENCE, || async {
        (api.get(&path).await.json()["checked_at"] != before).then_some(())
    })
    .await;
}

/// Verified as a receiver would: by another library, with the key it finds in the DNS.
async fn dkim_passes(dns: &Dns, receipt: &Receipt) -> bool {
    let mut connection = ConnectionConfig::udp();
    connection.port = dns.address.port();
    let server = NameServerConfig::new(dns.address.ip(), true, vec![connection]);
    let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
    let verifier = MessageAuthenticator::new(config, ResolverOpts::default()).unwrap();
    let mail = AuthenticatedMessage::parse(&receipt.content).unwrap();
    let outputs = verifier.verify_dkim(&mail).await;
    let of_shop = |output: &mail_auth::DkimOutput<'_>| {
        output
            .signature()
            .is_some_and(|signature| signature.d == "shop.test")
    };
    outputs
        .iter()
        .any(|output| *output.result() == DkimResult::Pass && of_shop(output))
}
