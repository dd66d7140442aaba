//! Promise: whatever a server answers in a transaction, the client knows which command it
//! answered, what left the machine, and whether the connection may go on.

#![allow(clippy::unwrap_used)]

mod peer;

use mta::smtp::{
    Connection, Extension, FailureKind, ProtocolFault, SmtpFailure, Stage, WireContent,
};
use peer::{SHORT, config, envelope, peer};

const CONTENT: &[&[u8]] = &[b"Subject: x\r\n\r\n", b"hello\r\n"];
const PIPELINING: &[&str] = &["PIPELINING", "SIZE 1000000", "8BITMIME"];

async fn send(connection: &mut Connection, parts: &[&[u8]]) -> Result<String, SmtpFailure> {
    let content = WireContent::parse(parts).unwrap();
    let mut transaction = connection.begin(&envelope(), &content).await?;
    transaction.send_body().await?;
    transaction.finish().await.map(|reply| reply.to_string())
}

async fn begin_fails(connection: &mut Connection) -> SmtpFailure {
    let content = WireContent::parse(CONTENT).unwrap();
    connection.begin(&envelope(), &content).await.err().unwrap()
}

fn code(failure: &SmtpFailure) -> u16 {
    failure.reply().map_or(0, |reply| reply.code().get())
}

#[tokio::test]
async fn the_content_arrives_to_the_byte() {
    let bodies: [&[&[u8]]; 5] = [
        CONTENT,
        &[b"h: v\r\n\r\n", b".\r\n..\r\n.x\r\na.b\r\n"],
        &[b"h: v\r\n\r\n.", b"\r\n", b".", b"end without line end"],
        &[b"h: v\r\n\r\n", b"\r\n\r\n"],
        &[b".\r\n"],
    ];
    for parts in bodies {
        let (address, server) = peer(|mut peer| async move {
            peer.welcome(PIPELINING).await;
            peer.take_envelope().await;
            let wire = peer.until(b"\r\n.\r\n").await;
            peer.say("250 2.0.0 queued\r\n").await;
            wire
        })
        .await;
        let mut connection = Connection::open(&config(address)).await.unwrap();
        assert_eq!(
            send(&mut connection, parts).await.unwrap(),
            "250 2.0.0 queued"
        );
        let mut expected = Vec::new();
        for line in parts.concat().split_inclusive(|byte| *byte == b'\n') {
            if line.starts_with(b".") {
                expected.push(b'.');
            }
            expected.extend_from_slice(line);
        }
        if !expected.ends_with(b"\r\n") {
            expected.extend_from_slice(b"\r\n");
        }
        expected.extend_from_slice(b".\r\n");
        assert_eq!(server.await.unwrap(), expected);
        assert_eq!(connection.messages_sent(), 1);
    }
}

#[tokio::test]
async fn megabytes_arrive_to_the_byte() {
    let line = b"..a line of sixty octets or so, which begins with two dots....\r\n";
    let body = line.repeat(50_000);
    let expected = [b".".as_slice(), line].concat().repeat(50_000);
    let (address, server) = peer(|mut peer| async move {
        peer.welcome(PIPELINING).await;
        peer.take_envelope().await;
        peer.say("").await;
        let mut wire = Vec::new();
        while !wire.ends_with(b"\r\n.\r\n") {
            wire.extend(peer.until(b"\n").await);
        }
        peer.say("250 ok\r\n").await;
        wire
    })
    .await;
    let mut config = config(address);
    config.deadlines.data_block = peer::PATIENT;
    let mut connection = Connection::open(&config).await.unwrap();
    assert!(begin_too_large(&mut connection, &body).await);
    // Below the limit it goes.
    let part = &body[..line.len() * 10_000];
    assert_eq!(send(&mut connection, &[part]).await.unwrap(), "250 ok");
    let wire = server.await.unwrap();
    assert_eq!(
        wire.strip_suffix(b".\r\n").unwrap(),
        &expected[..(line.len() + 1) * 10_000]
    );
}

async fn begin_too_large(connection: &mut Connection, body: &[u8]) -> bool {
    let parts = [body];
    let content = WireContent::parse(&parts).unwrap();
    let failure = connection.begin(&envelope(), &content).await.err().unwrap();
    matches!(
        failure.kind,
        FailureKind::TooLarge {
            size_max: 1_000_000
        }
    ) && failure.connection_usable
        && connection.is_usable()
}

#[tokio::test]
async fn envelope_commands_leave_in_one_write_and_small_content_with_its_dot() {
    let (address, server) = peer(|mut peer| async move {
        use tokio::io::AsyncReadExt;
        peer.welcome(PIPELINING).await;
        let mut chunk = vec![0; 4096];
        let count = peer.stream.read(&mut chunk).await.unwrap();
        let envelope = String::from_utf8(chunk[..count].to_vec()).unwrap();
        peer.say("250 ok\r\n250 ok\r\n354 go\r\n").await;
        let count = peer.stream.read(&mut chunk).await.unwrap();
        let content = String::from_utf8(chunk[..count].to_vec()).unwrap();
        peer.say("250 ok\r\n").await;
        (envelope, content)
    })
    .await;
    let mut connection = Connection::open(&config(address)).await.unwrap();
    send(&mut connection, CONTENT).await.unwrap();
    let (envelope, content) = server.await.unwrap();
    assert_eq!(
        envelope,
        "MAIL FROM:<bounce@sender.test> SIZE=21\r\nRCPT TO:<user@rcpt.test>\r\nDATA\r\n"
    );
    assert_eq!(content, "Subject: x\r\n\r\nhello\r\n.\r\n");
}

#[tokio::test]
async fn without_pipelining_each_command_waits_for_its_reply() {
    let (address, server) = peer(|mut peer| async move {
        peer.welcome(&["8BITMIME"]).await;
        for (verb, reply) in [
            ("MAIL", "250 ok"),
            ("RCPT", "251 forwarded"),
            ("DATA", "354 go"),
        ] {
            assert!(peer.line().await.starts_with(verb));
            assert!(peer.unread().is_empty(), "{verb} was not alone");
            peer.say(format!("{reply}\r\n")).await;
        }
        peer.until(b"\r\n.\r\n").await;
        peer.say("250 ok\r\n").await;
    })
    .await;
    let mut connection = Connection::open(&config(address)).await.unwrap();
    send(&mut connection, CONTENT).await.unwrap();
    server.await.unwrap();
}

#[tokio::test]
async fn a_refused_recipient_with_data_refused_keeps_the_connection() {
    let (address, server) = peer(|mut peer| async move {
        peer.welcome(PIPELINING).await;
        for _ in 0..3 {
            peer.line().await;
        }
        peer.say("250 ok\r\n550 5.1.1 unknown\r\n554 5.5.1 no valid recipients\r\n")
            .await;
        let reset = peer.line().await;
        peer.say("250 reset\r\n").await;
        peer.take_envelope().await;
        peer.until(b"\r\n.\r\n").await;
        peer.say("250 ok\r\n").await;
        reset
    })
    .await;
    let mut connection = Connection::open(&config(address)).await.unwrap();
    let failure = begin_fails(&mut connection).await;
    assert_eq!((failure.stage, code(&failure)), (Stage::Rcpt, 550));
    assert!(failure.connection_usable && !failure.dot_sent && !connection.is_stale());
    assert!(
        failure.transcript.contains("550 5.1.1 unknown"),
        "{}",
        failure.transcript
    );
    send(&mut connection, CONTENT).await.unwrap();
    assert_eq!(server.await.unwrap(), "RSET");
}

#[tokio::test]
async fn a_refused_recipient_with_354_gets_a_lone_dot_and_nothing_else() {
    let (address, server) = peer(|mut peer| async move {
        peer.welcome(PIPELINING).await;
        for _ in 0..3 {
            peer.line().await;
        }
        peer.say("250 ok\r\n451 4.7.1 greylisted\r\n354 go\r\n")
            .await;
        let dot = peer.line().await;
        peer.say("554 5.5.1 no recipients\r\n").await;
        (dot, peer.line().await)
    })
    .await;
    let mut connection = Connection::open(&config(address)).await.unwrap();
    let failure = begin_fails(&mut connection).await;
    assert_eq!((failure.stage, code(&failure)), (Stage::Rcpt, 451));
    assert!(failure.connection_usable && !failure.dot_sent);
    connection.quit().await;
    assert_eq!(server.await.unwrap(), (".".into(), "QUIT".into()));
}

#[tokio::test]
async fn mail_refused_is_the_answer_whatever_follows() {
    for (replies, usable) in [
        ("550 5.7.1 no\r\n503 need mail\r\n503 need rcpt\r\n", true),
        (
            "450 4.7.1 later\r\n503 need mail\r\n503 need rcpt\r\n",
            true,
        ),
        ("421 4.7.0 bye\r\n", false),
        ("550 5.7.1 no\r\n", false),
        ("550 5.7.1 no\r\n250 yes\r\n354 go\r\n", false),
        ("550 5.7.1 no\r\n503 no\r\n250 what\r\n", false),
    ] {
        let (address, server) = peer(move |mut peer| async move {
            peer.welcome(PIPELINING).await;
            for _ in 0..3 {
                peer.line().await;
            }
            peer.say(replies).await;
            // Half closed: nothing more to say, still listening.
            let _ = tokio::io::AsyncWriteExt::shutdown(&mut peer.stream).await;
            peer.rest().await
        })
        .await;
        let mut connection = Connection::open(&config(address)).await.unwrap();
        let failure = begin_fails(&mut connection).await;
        assert_eq!(failure.stage, Stage::Mail, "{replies}");
        assert_eq!(code(&failure).to_string(), replies[..3]);
        assert_eq!(failure.connection_usable, usable, "{replies}");
        drop(connection);
        assert!(
            server.await.unwrap().is_empty(),
            "nothing may be sent after {replies}"
        );
    }
}

#[tokio::test]
async fn farewell_in_the_middle_ends_the_connection_at_that_stage() {
    for (replies, stage) in [
        ("250 ok\r\n421 4.7.0 too many\r\n", Stage::Rcpt),
        ("250 ok\r\n250 ok\r\n421 4.3.2 down\r\n", Stage::Data),
    ] {
        let (address, _server) = peer(move |mut peer| async move {
            peer.welcome(PIPELINING).await;
            peer.line().await;
            peer.say(replies).await;
            peer.rest().await
        })
        .await;
        let mut connection = Connection::open(&config(address)).await.unwrap();
        let failure = begin_fails(&mut connection).await;
        assert_eq!((failure.stage, code(&failure)), (stage, 421));
        assert!(!failure.connection_usable && !failure.dot_sent);
    }
}

#[tokio::test]
async fn codes_that_make_no_sense_are_protocol_faults() {
    for (replies, stage, wrong) in [
        ("354 go\r\n250 ok\r\n354 go\r\n", Stage::Mail, 354),
        ("250 ok\r\n354 ok\r\n354 go\r\n", Stage::Rcpt, 354),
        ("250 ok\r\n250 ok\r\n250 thanks\r\n", Stage::Data, 250),
    ] {
        let (address, _server) = peer(move |mut peer| async move {
            peer.welcome(PIPELINING).await;
            peer.line().await;
            peer.say(replies).await;
            peer.rest().await
        })
        .await;
        let mut connection = Connection::open(&config(address)).await.unwrap();
        let failure = begin_fails(&mut connection).await;
        assert_eq!(failure.stage, stage);
        let FailureKind::Protocol(ProtocolFault::UnexpectedCode(code)) = failure.kind else {
            panic!("{failure:?}")
        };
        assert_eq!(code, wrong);
        assert!(!connection.is_usable());
    }
}

#[tokio::test]
async fn what_the_server_cannot_take_is_not_begun() {
    let (address, server) = peer(|mut peer| async move {
        peer.welcome(&["PIPELINING"]).await;
        peer.line().await
    })
    .await;
    let mut connection = Connection::open(&config(address)).await.unwrap();
    let parts: [&[u8]; 1] = [b"h: v\r\n\r\n\xe9\r\n"];
    let content = WireContent::parse(&parts).unwrap();
    let failure = connection.begin(&envelope(), &content).await.err().unwrap();
    assert!(matches!(
        failure.kind,
        FailureKind::NotOffered(Extension::EightBitMime)
    ));
    let content = WireContent::parse(CONTENT).unwrap().with_utf8_headers();
    let failure = connection.begin(&envelope(), &content).await.err().unwrap();
    assert!(matches!(
        failure.kind,
        FailureKind::NotOffered(Extension::SmtpUtf8)
    ));
    assert!(failure.connection_usable);
    connection.quit().await;
    assert_eq!(server.await.unwrap(), "QUIT");
}

#[tokio::test]
async fn an_idle_connection_knows_when_it_went_stale() {
    for farewell in ["", "421 4.4.2 idle too long\r\n"] {
        let (go, gone) = tokio::sync::oneshot::channel::<()>();
        let (address, server) = peer(move |mut peer| async move {
            peer.welcome(PIPELINING).await;
            gone.await.unwrap();
            peer.say(farewell).await;
        })
        .await;
        let mut connection = Connection::open(&config(address)).await.unwrap();
        assert!(!connection.is_stale());
        go.send(()).unwrap();
        server.await.unwrap();
        tokio::time::sleep(SHORT).await;
        assert!(connection.is_stale());
        let failure = begin_fails(&mut connection).await;
        assert!(!failure.connection_usable && !failure.dot_sent);
        assert_eq!(code(&failure), if farewell.is_empty() { 0 } else { 421 });
    }
}
