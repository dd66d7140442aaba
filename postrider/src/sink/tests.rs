//! Promise: the sink answers as asked, counts what it accepted, and holds back what it is told to.

#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mail::address::EmailAddress;
use mail::envelope::{Envelope, ReversePath};
use mta::smtp::{
    ConnectConfig, Connection, Deadlines, FailureKind, SmtpFailure, TlsMode, WireContent,
    opportunistic_client_config,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::http::BehaviourChange;
use super::*;

const PATIENT: Duration = Duration::from_secs(20);

async fn start(adjust: impl FnOnce(&mut SinkConfig)) -> (Sink, DropGuard) {
    let mut config = SinkConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        http: None,
        id_header: "X-Id".into(),
        latency: Latency::None,
        replies: ReplyMix::default(),
        starttls: false,
        record: None,
        max_connections: 100,
        allow_public: false,
    };
    adjust(&mut config);
    let shutdown = CancellationToken::new();
    let sink = Sink::start(config, shutdown.clone()).await.unwrap();
    (sink, shutdown.drop_guard())
}

async fn connect(remote: SocketAddr) -> Connection {
    let config = ConnectConfig {
        remote,
        host_name: "sink.localhost".into(),
        source: None,
        ehlo: "bench.test".into(),
        tls: TlsMode::Opportunistic(opportunistic_client_config().unwrap()),
        deadlines: Deadlines::uniform(PATIENT),
    };
    Connection::open(&config).await.unwrap()
}

async fn send(connection: &mut Connection, id: &str) -> Result<(), SmtpFailure> {
    let address = |text| EmailAddress::parse(text).unwrap();
    let reverse_path = ReversePath::Address(address("bounce@bench.test"));
    let envelope = Envelope::new(reverse_path, address("user@sink.test"));
    let text = format!("X-Id: {id}\r\n\r\nhello\r\n");
    let parts = [text.as_bytes()];
    let content = WireContent::parse(&parts).unwrap();
    connection
        .begin(&envelope, &content)
        .await?
        .finish()
        .await
        .map(drop)
}

#[tokio::test]
async fn copies_are_counted_recorded_and_shown() {
    let record = std::env::temp_dir().join(format!("sink-{}.jsonl", uuid::Uuid::new_v4()));
    let path = record.clone();
    let (sink, _guard) = start(move |config| {
        config.record = Some(path);
        config.starttls = true;
        config.http = Some("127.0.0.1:0".parse().unwrap());
    })
    .await;
    let mut connection = connect(sink.local_addr()).await;
    assert!(connection.tls_version().is_some());
    for id in ["1", "2", "1"] {
        send(&mut connection, id).await.unwrap();
    }
    let url = format!("http://{}/stats", sink.http_addr().unwrap());
    let shown: serde_json::Value = serde_json::from_slice(&get(&url).await).unwrap();
    for (field, expected) in [
        ("received", 3),
        ("distinct", 2),
        ("duplicates", 1),
        ("tls", 3),
    ] {
        assert_eq!(shown[field], expected, "{field}");
    }
    let written = std::fs::read_to_string(&record).unwrap();
    std::fs::remove_file(&record).unwrap();
    let first: serde_json::Value = serde_json::from_str(written.lines().next().unwrap()).unwrap();
    assert_eq!(
        (&first["id"], &first["rcpt"]),
        (&"1".into(), &"user@sink.test".into())
    );
    assert_eq!(first["result"], "accepted");
    assert_eq!(written.lines().count(), 3);
}

async fn get(url: &str) -> Vec<u8> {
    reqwest::get(url)
        .await
        .unwrap()
        .bytes()
        .await
        .unwrap()
        .to_vec()
}

#[tokio::test]
async fn refusals_are_answered_as_asked() {
    let mix = "450 4.2.1 busy=100%,dot:drop=100%";
    let (sink, _guard) = start(|config| config.replies = mix.parse().unwrap()).await;
    let mut connection = connect(sink.local_addr()).await;
    let failure = send(&mut connection, "1").await.unwrap_err();
    assert_eq!(failure.reply().unwrap().to_string(), "450 4.2.1 busy");
    let change = BehaviourChange {
        replies: Some("dot:drop=100%".into()),
        ..Default::default()
    };
    change.apply(&sink.shared).unwrap();
    let failure = send(&mut connection, "1").await.unwrap_err();
    assert!(
        matches!(failure.kind, FailureKind::Closed) && failure.dot_sent,
        "{failure:?}"
    );
    let seen = sink.shared.stats.snapshot();
    assert_eq!((seen.received, seen.deferred, seen.dropped), (0, 1, 1));
}

#[tokio::test]
async fn a_held_message_is_answered_when_released_and_never_after_shutdown() {
    for release in [true, false] {
        let (sink, guard) = start(|_| {}).await;
        let hang = |hang| BehaviourChange {
            hang: Some(hang),
            ..Default::default()
        };
        hang(true).apply(&sink.shared).unwrap();
        let mut connection = connect(sink.local_addr()).await;
        let sending = tokio::spawn(async move { send(&mut connection, "1").await });
        let shared = Arc::clone(&sink.shared);
        while shared.stats.snapshot().held == 0 {
            tokio::task::yield_now().await;
        }
        if release {
            hang(false).apply(&sink.shared).unwrap();
            sending.await.unwrap().unwrap();
            assert_eq!(shared.stats.snapshot().received, 1);
        } else {
            drop(guard);
            assert!(sending.await.unwrap().unwrap_err().dot_sent);
            sink.join().await.unwrap();
            assert_eq!(shared.stats.snapshot().received, 0);
        }
    }
}

#[tokio::test]
async fn public_addresses_must_be_allowed() {
    let mut config: SinkConfig = {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            args: SinkArgs,
        }
        let line = ["sink", "--listen", "0.0.0.0:0", "--latency", "exp:5ms"];
        let line: Line = clap::Parser::try_parse_from(line).unwrap();
        line.args.into()
    };
    let refused = Sink::start(config.clone(), CancellationToken::new())
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("--allow-public"), "{refused}");
    config.allow_public = true;
    assert!(Sink::start(config, CancellationToken::new()).await.is_ok());
}
