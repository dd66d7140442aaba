//! Promise: after a break the client knows whether the final dot may have left. Only then is the
//! outcome in doubt; in every other case nothing was delivered.

#![allow(clippy::unwrap_used)]

mod peer;

use mta::smtp::{Connection, Deadlines, FailureKind, SmtpFailure, Stage, WireContent};
use peer::{SHORT, config, envelope, peer};

const CONTENT: &[&[u8]] = &[b"Subject: x\r\n\r\n", b"hello\r\n"];
const PIPELINING: &[&str] = &["PIPELINING", "SIZE 1000000", "8BITMIME"];

async fn send(connection: &mut Connection, parts: &[&[u8]]) -> Result<String, SmtpFailure> {
    let content = WireContent::parse(parts).unwrap();
    let mut transaction = connection.begin(&envelope(), &content).await?;
    transaction.send_body().await?;
    transaction.finish().await.map(|reply| reply.to_string())
}

fn code(failure: &SmtpFailure) -> u16 {
    failure.reply().map_or(0, |reply| reply.code().get())
}

#[tokio::test]
async fn a_reply_lost_after_the_dot_leaves_the_outcome_in_doubt() {
    for answer in ["", "2", "250-half\r\n"] {
        let (address, _server) = peer(move |mut peer| async move {
            peer.welcome(PIPELINING).await;
            peer.take_envelope().await;
            peer.until(b"\r\n.\r\n").await;
            peer.say(answer).await;
        })
        .await;
        let mut connection = Connection::open(&config(address)).await.unwrap();
        let failure = send(&mut connection, CONTENT).await.unwrap_err();
        assert_eq!(failure.stage, Stage::Dot);
        assert!(matches!(failure.kind, FailureKind::Closed), "{failure:?}");
        assert!(failure.dot_sent && !failure.connection_usable);
    }
}

#[tokio::test]
async fn a_final_reply_that_never_comes_times_out_in_doubt() {
    let (address, _server) = peer(|mut peer| async move {
        peer.welcome(PIPELINING).await;
        peer.take_envelope().await;
        peer.rest().await
    })
    .await;
    let mut config = config(address);
    config.deadlines.final_dot = SHORT;
    let mut connection = Connection::open(&config).await.unwrap();
    let failure = send(&mut connection, CONTENT).await.unwrap_err();
    assert!(matches!(failure.kind, FailureKind::Timeout));
    assert!(failure.dot_sent && failure.stage == Stage::Dot);
}

#[tokio::test]
async fn a_refusal_of_the_content_is_certain_and_keeps_the_connection() {
    let (address, _server) = peer(|mut peer| async move {
        peer.welcome(PIPELINING).await;
        for reply in ["554 5.7.1 spam\r\n", "250 2.0.0 ok\r\n"] {
            peer.take_envelope().await;
            peer.until(b"\r\n.\r\n").await;
            peer.say(reply).await;
        }
    })
    .await;
    let mut connection = Connection::open(&config(address)).await.unwrap();
    let failure = send(&mut connection, CONTENT).await.unwrap_err();
    assert_eq!((failure.stage, code(&failure)), (Stage::Dot, 554));
    assert!(failure.connection_usable);
    assert_eq!(
        send(&mut connection, CONTENT).await.unwrap(),
        "250 2.0.0 ok"
    );
}

#[tokio::test]
async fn a_server_that_speaks_before_the_dot_never_gets_it() {
    for (early, expected) in [("421 4.4.2 timeout\r\n", 421), ("250 2.0.0 stray\r\n", 0)] {
        let (said, heard) = tokio::sync::oneshot::channel();
        let (address, server) = peer(move |mut peer| async move {
            peer.welcome(PIPELINING).await;
            peer.take_envelope().await;
            peer.say(early).await;
            said.send(()).unwrap();
            peer.rest().await
        })
        .await;
        let mut connection = Connection::open(&config(address)).await.unwrap();
        let content = WireContent::parse(CONTENT).unwrap();
        let mut transaction = connection.begin(&envelope(), &content).await.unwrap();
        transaction.send_body().await.unwrap();
        heard.await.unwrap();
        // The bytes are on their way through the loopback; a later finish sees them.
        tokio::time::sleep(SHORT).await;
        let failure = transaction.finish().await.unwrap_err();
        assert_eq!((failure.stage, code(&failure)), (Stage::Dot, expected));
        assert!(!failure.dot_sent && !failure.connection_usable);
        drop(connection);
        assert!(!server.await.unwrap().ends_with(b".\r\n"));
    }
}

#[tokio::test]
async fn giving_up_before_the_dot_closes_without_one() {
    for abort in [true, false] {
        let (address, server) = peer(|mut peer| async move {
            peer.welcome(PIPELINING).await;
            peer.take_envelope().await;
            peer.rest().await
        })
        .await;
        let mut connection = Connection::open(&config(address)).await.unwrap();
        let big = [b"line\r\n".repeat(5_000)];
        let parts = [big[0].as_slice()];
        let content = WireContent::parse(&parts).unwrap();
        let mut transaction = connection.begin(&envelope(), &content).await.unwrap();
        transaction.send_body().await.unwrap();
        if abort {
            transaction.abort();
        } else {
            drop(transaction);
        }
        assert!(!connection.is_usable() && connection.is_stale());
        connection.quit().await;
        assert_eq!(server.await.unwrap(), parts[0]);
    }
}

#[tokio::test]
async fn an_early_close_is_told_with_its_stage() {
    let stages = [
        (0, Stage::Greeting),
        (1, Stage::Ehlo),
        (2, Stage::Mail),
        (3, Stage::Rcpt),
        (4, Stage::Data),
        (5, Stage::Dot),
    ];
    for (replies, stage) in stages {
        let (address, _server) = peer(move |mut peer| async move {
            let script = [
                "220 hi\r\n",
                "250 peer.test\r\n",
                "250 ok\r\n",
                "250 ok\r\n",
                "354 go\r\n",
            ];
            for (number, reply) in script.iter().enumerate().take(replies) {
                if number > 0 {
                    peer.line().await;
                }
                peer.say(reply).await;
            }
            // Takes what the missing reply would answer, then goes.
            match replies {
                0 => {}
                5 => drop(peer.until(b"\r\n.\r\n").await),
                _ => drop(peer.line().await),
            }
        })
        .await;
        let failure = match Connection::open(&config(address)).await {
            Ok(mut connection) => send(&mut connection, CONTENT).await.unwrap_err(),
            Err(failure) => failure,
        };
        assert_eq!(failure.stage, stage);
        assert!(
            matches!(failure.kind, FailureKind::Closed),
            "{stage:?}: {failure:?}"
        );
        assert_eq!(failure.dot_sent, stage == Stage::Dot);
    }
}

#[tokio::test]
async fn a_server_that_stops_reading_meets_the_block_deadline() {
    let (address, server) = peer(|mut peer| async move {
        peer.welcome(&["PIPELINING"]).await;
        peer.take_envelope().await;
        std::future::pending::<()>().await;
    })
    .await;
    let mut config = config(address);
    config.deadlines = Deadlines {
        data_block: SHORT,
        ..config.deadlines
    };
    let mut connection = Connection::open(&config).await.unwrap();
    let body = b"a line\r\n".repeat(4_000_000);
    let failure = send(&mut connection, &[&body]).await.unwrap_err();
    assert!(matches!(failure.kind, FailureKind::Timeout), "{failure:?}");
    assert!(!failure.dot_sent && failure.stage == Stage::Dot);
    server.abort();
}
