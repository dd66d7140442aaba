//! Promise: every hostile byte stream of the corpus that a client can meet ends as expected.

#![allow(clippy::unwrap_used)]

mod peer;

use std::path::{Path, PathBuf};

use mta::smtp::{
    Connection, FailureKind, Stage, TlsMode, WireContent, opportunistic_client_config,
};
use peer::{SHORT, config, envelope, peer};

fn corpus() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpora/hostile/smtp");
    if !path.is_dir() {
        eprintln!("SKIPPED: {} is not there", path.display());
        return None;
    }
    Some(path)
}

/// How RCPT ends when the server answers it with this file and then closes.
async fn rcpt_answer(octets: Vec<u8>) -> String {
    let (address, _server) = peer(move |mut peer| async move {
        peer.welcome(&[]).await;
        peer.line().await;
        peer.say("250 ok\r\n").await;
        peer.line().await;
        peer.say(&octets).await;
        let answered = peer.line().await;
        assert!(answered.is_empty() || answered == "DATA");
        peer.say("451 4.3.0 enough\r\n").await;
    })
    .await;
    let mut connection = Connection::open(&config(address)).await.unwrap();
    let content = WireContent::parse(&[]).unwrap();
    let failure = connection.begin(&envelope(), &content).await.err().unwrap();
    match (failure.stage, failure.kind) {
        (Stage::Data, _) => "accepted".into(),
        (_, FailureKind::Reply(reply)) => reply.to_string(),
        (_, kind) => format!("{kind:?}")
            .chars()
            .take_while(|c| c.is_alphabetic())
            .collect(),
    }
}

#[tokio::test]
async fn hostile_replies_end_as_expected() {
    let Some(corpus) = corpus() else { return };
    for (file, expected) in [
        ("reply-code-change.bin", "Protocol"),
        ("reply-code-only.bin", "accepted"),
        ("reply-early-close.bin", "Closed"),
        ("reply-enh-mismatch.bin", "550 4.2.2 mailbox full"),
        ("reply-html.bin", "550 5.1.1 <script>alert(1)</script>"),
    ] {
        let octets = std::fs::read(corpus.join(file)).unwrap();
        if octets.is_empty() {
            continue;
        }
        assert_eq!(rcpt_answer(octets).await, expected, "{file}");
    }
    let latin1 = rcpt_answer(std::fs::read(corpus.join("reply-latin1.bin")).unwrap()).await;
    assert!(latin1.starts_with("550 5.1.1 Bo"), "{latin1}");
}

#[tokio::test]
async fn a_reply_cut_between_packets_is_waited_for() {
    let Some(corpus) = corpus() else { return };
    let first = std::fs::read(corpus.join("crlf-split.bin")).unwrap();
    let (address, _server) = peer(move |mut peer| async move {
        peer.say("220 hi\r\n").await;
        peer.line().await;
        for piece in [&first[..], b"0 peer.test", b"\r", b"\n"] {
            peer.say(piece).await;
            tokio::task::yield_now().await;
        }
        peer.rest().await
    })
    .await;
    Connection::open(&config(address)).await.unwrap();
}

#[tokio::test]
async fn a_dripping_banner_meets_the_overall_deadline() {
    let Some(corpus) = corpus() else { return };
    let drip = std::fs::read(corpus.join("banner-slow.bin")).unwrap();
    let (address, _server) = peer(move |mut peer| async move {
        peer.say(&drip).await;
        peer.rest().await
    })
    .await;
    let mut config = config(address);
    config.deadlines.greeting = SHORT;
    let failure = Connection::open(&config).await.unwrap_err();
    assert!(matches!(failure.kind, FailureKind::Timeout) && failure.stage == Stage::Greeting);
}

#[tokio::test]
async fn no_starttls_goes_on_in_clear_unless_required() {
    let Some(corpus) = corpus() else { return };
    let ehlo = std::fs::read(corpus.join("ehlo-no-starttls-after.bin")).unwrap();
    for required in [false, true] {
        let ehlo = ehlo.clone();
        let (address, _server) = peer(move |mut peer| async move {
            peer.say("220 hi\r\n").await;
            peer.line().await;
            peer.say(&ehlo).await;
            peer.rest().await
        })
        .await;
        let tls = opportunistic_client_config().unwrap();
        let mut config = config(address);
        config.tls = if required {
            TlsMode::Required(tls)
        } else {
            TlsMode::Opportunistic(tls)
        };
        assert_eq!(Connection::open(&config).await.is_err(), required);
    }
}

/// Anything that a lax server could take for the end of data, beside the true one.
fn looks_like_an_end(wire: &[u8]) -> bool {
    let ends: [&[u8]; 9] = [
        b"\n.\n",
        b"\n.\r",
        b"\r.\r",
        b"\r.\n",
        b"\n\0.\r",
        b"\n.\0\r",
        b"\r\n.\r\n",
        b"\n.\r\n",
        b"\r.\r\n",
    ];
    ends.iter()
        .any(|end| wire.windows(end.len()).any(|window| window == *end))
}

#[tokio::test]
async fn no_stored_content_can_smuggle_a_second_message() {
    let Some(corpus) = corpus() else { return };
    let mut seen = 0;
    for entry in std::fs::read_dir(corpus).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if !name.starts_with("outbound-") {
            continue;
        }
        seen += 1;
        let octets = std::fs::read(&path).unwrap();
        let parts = [octets.as_slice()];
        // All of these hold a bare line end or a NUL: refused before anything is sent.
        assert!(WireContent::parse(&parts).is_err(), "{name}");
        // Repaired as accepting raw mail would do it, the wire must hold one end of data only.
        let repaired = repair(&octets);
        let (address, server) = peer(|mut peer| async move {
            peer.welcome(&["PIPELINING"]).await;
            peer.take_envelope().await;
            let wire = peer.until(b"\r\n.\r\n").await;
            peer.say("250 ok\r\n").await;
            (wire, peer.rest().await)
        })
        .await;
        let mut connection = Connection::open(&config(address)).await.unwrap();
        let parts = [repaired.as_slice()];
        let content = WireContent::parse(&parts).unwrap();
        let transaction = connection.begin(&envelope(), &content).await.unwrap();
        transaction.finish().await.unwrap();
        drop(connection);
        let (wire, after) = server.await.unwrap();
        let stuffed = wire.strip_suffix(b".\r\n").unwrap();
        assert!(!looks_like_an_end(stuffed), "{name}");
        assert!(
            after.is_empty(),
            "{name}: more was sent after the end of data"
        );
    }
    assert!(seen >= 6, "only {seen} files");
}

fn repair(octets: &[u8]) -> Vec<u8> {
    let text: Vec<u8> = octets.iter().copied().filter(|byte| *byte != 0).collect();
    let text = String::from_utf8(text).unwrap();
    text.replace("\r\n", "\n")
        .replace('\r', "\n")
        .replace('\n', "\r\n")
        .into_bytes()
}
