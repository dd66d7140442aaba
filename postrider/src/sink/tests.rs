//! Promise: the sink answers as asked, counts what it accepted, and holds back what it is told to.

#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mail::address::EmailAddress;
use mail::envelope::{Envelope, ReversePath};
use mta::smtp::{
    ConnectConfig, Connection, Deadlines, FailureKind, SmtpFailure, TlsMode, WireContent,
    opportunistic_client_config,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::http::BehaviourChange;
use super::*;

const PATIENT: Duration = Duration::from_secs(20);

async fn start(adjust: impl FnOnce(&mut SinkConfig)) -> (Sink, DropGuard) {
    let mut config = SinkConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        http: None,
        id_header: "X-Id".into(),
        behaviours: Behaviours::default(),
        starttls: false,
        record: None,
        gather_record: false,
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
    send_to(connection, "user@sink.test", id).await
}

async fn send_to(connection: &mut Connection, to: &str, id: &str) -> Result<(), SmtpFailure> {
    let address = |text| EmailAddress::parse(text).unwrap();
    let reverse_path = ReversePath::Address(address("bounce@bench.test"));
    let envelope = Envelope::new(reverse_path, address(to));
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
    for gather in [false, true] {
        let record = std::env::temp_dir().join(format!("sink-{}.jsonl", uuid::Uuid::new_v4()));
        let path = record.clone();
        let (sink, _guard) = start(move |config| {
            config.record = Some(path);
            config.gather_record = gather;
            config.starttls = true;
            config.http = Some("127.0.0.1:0".parse().unwrap());
        })
        .await;
        let mut connection = connect(sink.local_addr).await;
        assert!(connection.tls_version().is_some());
        for id in ["a-1", "a-3", "a-1"] {
            send(&mut connection, id).await.unwrap();
        }
        let url = format!("http://{}", sink.http_addr.unwrap());
        let shown = get(&format!("{url}/stats")).await;
        for (field, expected) in [
            ("received", 3),
            ("distinct", 2),
            ("duplicates", 1),
            ("missing", 2),
            ("tls", 3),
        ] {
            assert_eq!(shown[field], expected, "{field}");
        }
        let series = get(&format!("{url}/series")).await;
        assert_eq!(series["a"]["first_missing"], serde_json::json!([0, 2]));
        let written = std::fs::read_to_string(&record).unwrap();
        std::fs::remove_file(&record).unwrap();
        let first: serde_json::Value =
            serde_json::from_str(written.lines().next().unwrap()).unwrap();
        assert_eq!(
            (&first["id"], &first["rcpt"]),
            (&"a-1".into(), &"user@sink.test".into())
        );
        assert_eq!(first["result"], "accepted");
        assert_eq!(written.lines().count(), 3);
    }
}

async fn get(url: &str) -> serde_json::Value {
    let answer = reqwest::get(url).await.unwrap().bytes().await.unwrap();
    serde_json::from_slice(&answer).unwrap()
}

#[tokio::test]
async fn commands_may_come_together_and_are_answered_together() {
    let (sink, _guard) = start(|_| {}).await;
    let mut tcp = TcpStream::connect(sink.local_addr).await.unwrap();
    let all = "EHLO a.test\r\nMAIL FROM:<>\r\nRCPT TO:<a@b.test>\r\nRCPT TO:<b@b.test>\r\nDATA\r\n\
               X-Id: s-0\r\n\r\n..\r\n.\r\nMAIL FROM:<x@y.test>\r\nRSET\r\nDATA\r\nWHAT\r\nQUIT\r\n";
    tcp.write_all(all.as_bytes()).await.unwrap();
    let mut said = String::new();
    tcp.read_to_string(&mut said).await.unwrap();
    let codes: Vec<_> = said.lines().map(|line| &line[..4]).collect();
    let expected = [
        "220 ", "250-", "250-", "250-", "250-", "250-", "250 ", "250 ", "250 ", "250 ", "354 ",
        "250 ", "250 ", "250 ", "503 ", "500 ", "221 ",
    ];
    assert_eq!(codes, expected, "{said}");
    let seen = sink.shared.stats.snapshot();
    assert_eq!((seen.received, seen.distinct, seen.connections), (2, 2, 0));
}

#[tokio::test]
async fn refusals_are_answered_as_asked() {
    let mix = "450 4.2.1 busy=100%,dot:drop=100%";
    let (sink, _guard) = start(|config| {
        config.behaviours.others.replies = mix.parse().unwrap();
    })
    .await;
    let mut connection = connect(sink.local_addr).await;
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
async fn a_domain_is_treated_as_it_is_named() {
    let (sink, _guard) = start(|config| {
        config.behaviours.domains = vec![
            "slow.test=tarpit:30ms;latency:40ms".parse().unwrap(),
            "full.test=reply:452=100%".parse().unwrap(),
        ];
    })
    .await;
    let mut connection = connect(sink.local_addr).await;
    let started = Instant::now();
    let slow = send_to(&mut connection, "a@mx.slow.test", "1").await;
    slow.unwrap();
    // RCPT, DATA and the final dot are held back, the last one longer.
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(130), "{took:?}");
    let failure = send_to(&mut connection, "a@full.test", "2").await;
    let reply = failure.unwrap_err().reply().unwrap().to_string();
    assert!(reply.starts_with("452"), "{reply}");
    send_to(&mut connection, "a@other.test", "3").await.unwrap();
    let change = BehaviourChange {
        domain: Some("full.test".into()),
        replies: Some(String::new()),
        ..Default::default()
    };
    change.apply(&sink.shared).unwrap();
    send_to(&mut connection, "a@full.test", "2").await.unwrap();
    assert_eq!(sink.shared.stats.snapshot().received, 3);
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
        let mut connection = connect(sink.local_addr).await;
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
async fn connections_beyond_the_limit_are_told_so() {
    let (sink, _guard) = start(|config| config.max_connections = 1).await;
    let _first = connect(sink.local_addr).await;
    let mut second = TcpStream::connect(sink.local_addr).await.unwrap();
    let mut said = String::new();
    second.read_to_string(&mut said).await.unwrap();
    assert!(said.starts_with("421 "), "{said}");
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
    let refused = Sink::start(config.clone(), CancellationToken::new()).await;
    let refused = refused.map(|_| ()).unwrap_err();
    assert!(refused.to_string().contains("--allow-public"), "{refused}");
    config.allow_public = true;
    assert!(Sink::start(config, CancellationToken::new()).await.is_ok());
}
