//! Mail finds its receiver through DNS: in the order of preference, past hosts that are down, and
//! nowhere where the domain says so.
//!
//! The MTA runs inside this process, because only here can it be given a name server and a port.

#![allow(clippy::unwrap_used)]

#[path = "../../mta/tests/dns_server/mod.rs"]
#[allow(
    dead_code,
    reason = "the questions that it counts are other tests' business"
)]
mod dns_server;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dns_server::{DnsServer, Fault, Zone};
use mail::verp::VerpKey;
use mta::journal::JournalConfig;
use mta::routing::RoutingConfig;
use mta::smtp::Deadlines;
use mta::{Dependencies, EgressSource, Mta, MtaConfig, MtaLimits, ReturnPath};
use service::clock::Clock;
use service::metrics::Metrics;
use service::shutdown::Shutdown;
use store::{SealKey, Sealer, Store, StoreOptions};
use tests::api::message;
use tests::platform::Platform;
use tests::sink::Sink;
use tests::{place, take_turn};
use tokio::task::JoinHandle;

/// Nobody is there at first.
const DOWN: &str = "127.0.0.2";

#[tokio::test(flavor = "multi_thread")]
async fn mail_goes_where_dns_says() {
    let _turn = take_turn();
    let first = Sink::options().start().await;
    let port = first.address.port();
    let second = Sink::options()
        .at(SocketAddr::new(place::second_ip(), port))
        .start()
        .await;
    let (up1, up2) = (
        first.address.ip().to_string(),
        second.address.ip().to_string(),
    );
    let dns = Zone::default()
        .a("mx1.test", &up1)
        .a("mx2.test", &up2)
        .a("down.test", DOWN)
        .mx("order.test", 10, "mx1.test")
        .mx("order.test", 20, "mx2.test")
        .mx("reversed.test", 20, "mx1.test")
        .mx("reversed.test", 10, "mx2.test")
        .mx("failover.test", 10, "down.test")
        .mx("failover.test", 20, "mx2.test")
        .mx("remembered.test", 10, "down.test")
        .mx("remembered.test", 20, "mx1.test")
        .a("implicit.test", &up1)
        .mx("null.test", 0, ".")
        .mx("broken.test", 10, "mx1.test")
        .fault("broken.test", Fault::ServFail)
        .serve()
        .await;
    let builder = Platform::builder().node("front", "api,worker");
    let Some(platform) = builder.start().await else {
        return;
    };
    let state_dir = place::directory();
    let shutdown = Shutdown::new();
    let mta = start_mta(&platform, &dns, port, state_dir.path(), shutdown.clone()).await;

    let api = platform.api(0);
    let expected = [
        ("order.test", "delivered", Some("mx1.test")),
        ("reversed.test", "delivered", Some("mx2.test")),
        ("failover.test", "delivered", Some("mx2.test")),
        ("implicit.test", "delivered", Some("implicit.test")),
        ("null.test", "bounced", None),
        ("missing.test", "bounced", None),
        ("broken.test", "deferred", None),
    ];
    for (domain, status, mx) in expected {
        let id = api
            .send(&message(&platform.tenant.domain, &format!("user@{domain}")))
            .await;
        let email = api.becomes(&id, status).await;
        let attempts = email["deliveries"][0]["attempts"].as_array().unwrap();
        assert_eq!(attempts.len(), 1, "{domain}: {email:#}");
        if let Some(mx) = mx {
            let used = attempts[0]["mx"].as_str().unwrap();
            assert!(used.contains(mx), "{domain} went to {used}");
        }
    }
    // The host that was down is back, and comes last for a while all the same.
    let back = SocketAddr::new(DOWN.parse().unwrap(), port);
    let back = Sink::options().at(back).start().await;
    let mail = message(&platform.tenant.domain, "user@remembered.test");
    let id = api.send(&mail).await;
    api.becomes(&id, "delivered").await;
    assert_eq!(back.receipts().len(), 0, "it was tried first again");

    let of = |sink: &Sink| {
        let mut recipients: Vec<_> = sink.receipts().into_iter().map(|r| r.recipient).collect();
        recipients.sort_unstable();
        recipients
    };
    assert_eq!(
        of(&first),
        [
            "user@implicit.test",
            "user@order.test",
            "user@remembered.test"
        ]
    );
    assert_eq!(of(&second), ["user@failover.test", "user@reversed.test"]);
    shutdown.request();
    tokio::time::timeout(Duration::from_secs(20), mta)
        .await
        .unwrap()
        .unwrap();
}

async fn start_mta(
    platform: &Platform,
    dns: &DnsServer,
    smtp_port: u16,
    state_dir: &Path,
    shutdown: Shutdown,
) -> JoinHandle<()> {
    let store = Store::connect(StoreOptions::new(platform.cluster.url()))
        .await
        .unwrap();
    let config = MtaConfig {
        node_name: "routed".to_owned(),
        queue_group: 0,
        state_dir: state_dir.to_owned(),
        journal: JournalConfig::default(),
        lease_ttl: Duration::from_secs(15),
        ambiguous_hold: Duration::from_secs(600),
        sources: vec![EgressSource {
            number: 0,
            address: None,
            ehlo: "routed.test".to_owned(),
        }],
        routing: RoutingConfig {
            nameservers: Some(vec![dns.address]),
            allow_private: true,
            ipv6: false,
            smtp_port,
            ..RoutingConfig::default()
        },
        sandbox: None,
        return_path: ReturnPath {
            domain: "bounce.test".parse().unwrap(),
            key: Arc::new(VerpKey::new(1, &[7; 32])),
        },
        deadlines: Deadlines::default(),
        limits: MtaLimits::default(),
        real_time: true,
    };
    let given = Dependencies {
        store,
        sealer: Arc::new(sealer()),
        clock: Clock::system(),
        metrics: Arc::new(Metrics::new()),
        shutdown,
        wake: None,
        events_committed: Arc::new(tokio::sync::Notify::new()),
    };
    tokio::spawn(Mta::open(config, given).unwrap().run())
}

/// The sealer of the platform's master key; its number is made from the key, as processes do it.
fn sealer() -> Sealer {
    let key = tests::platform::MASTER_KEY;
    let mut text = b"postrider master key number".to_vec();
    text.extend_from_slice(&key);
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &text);
    let number: [u8; 4] = hash.as_ref()[..4].try_into().unwrap();
    Sealer::new(
        SealKey::new(i32::from_be_bytes(number) & i32::MAX, key),
        Vec::new(),
    )
}
