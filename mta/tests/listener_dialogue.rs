//! Promise: the listener keeps the protocol strictly, whatever it is sent, and hands on only
//! complete messages with a true end of data.

#![allow(clippy::unwrap_used)]

mod served;

use std::sync::Arc;
use std::time::{Duration, Instant};

use mta::listener::{HandlerReply, server_tls_self_signed};
use mta::smtp::{
    ConnectConfig, Connection, Deadlines, TlsMode, WireContent, opportunistic_client_config,
};
use served::{ENVELOPE, Served};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test]
async fn a_pipelined_session_is_answered_in_order() {
    let served = Served::start(|_| {}).await;
    let dialogue = served
        .talk(format!("{ENVELOPE}..dot\r\nend\r\n.\r\nNOOP\r\nQUIT\r\n").as_bytes())
        .await;
    let codes = ["220", "250", "250", "250", "354", "250", "250", "221"];
    assert_eq!(dialogue.codes(), codes);
    let received = served.received();
    assert_eq!(received.len(), 1);
    assert_eq!(&received[0].data[..], b".dot\r\nend\r\n");
    assert_eq!(received[0].rcpts, ["b@example.com"]);
    assert_eq!(received[0].mail_from.address, "a@example.org");
    assert_eq!(received[0].session.helo, "c.example");
}

#[tokio::test]
async fn commands_out_of_order_are_refused() {
    let served = Served::start(|_| {}).await;
    let dialogue = served
        .talk(
            b"MAIL FROM:<a@b.test>\r\nEHLO c\r\nRCPT TO:<a@b.test>\r\nDATA\r\n\
              MAIL FROM:<>\r\nMAIL FROM:<>\r\nDATA\r\nRCPT TO:<no@b.test>\r\nDATA\r\nRSET\r\n\
              DATA\r\nSTARTTLS\r\nQUIT\r\n",
        )
        .await;
    let codes = [
        "220", "503", "250", "503", "503", "250", "503", "554", "550", "554", "250", "503", "502",
        "221",
    ];
    assert_eq!(dialogue.codes(), codes);
}

#[tokio::test]
async fn chunks_are_assembled_and_never_read_as_commands() {
    let served = Served::start(|_| {}).await;
    let head = ENVELOPE.strip_suffix("DATA\r\n").unwrap();
    let wire = format!("{head}BDAT 6\r\nQUIT\r\nBDAT 5 LAST\r\n.\r\nx\nBDAT 3\r\nabcQUIT\r\n");
    let dialogue = served.talk(wire.as_bytes()).await;
    // A bare LF in the content, then a chunk without a transaction.
    assert_eq!(dialogue.codes()[4..], ["250", "550", "503", "221"]);
    let dialogue = served
        .talk(format!("{head}BDAT 6\r\nQUIT\r\nBDAT 0 LAST\r\nQUIT\r\n").as_bytes())
        .await;
    assert_eq!(dialogue.codes()[4..], ["250", "250", "221"]);
    assert_eq!(&served.received()[0].data[..], b"QUIT\r\n");
}

#[tokio::test]
async fn lines_that_are_none_end_the_session() {
    let served = Served::start(|_| {}).await;
    for bad in [
        &b"EHLO a\nMAIL FROM:<>\r\n"[..],
        &[b'x'; 5000],
        b"NOOP\nQUIT\r\n",
    ] {
        let dialogue = served.talk(bad).await;
        assert_eq!(dialogue.codes(), ["220", "500"], "{bad:?}");
    }
}

#[tokio::test]
async fn content_over_the_limit_is_refused_at_mail_or_at_its_end() {
    let served = Served::start(|config| config.max_message_bytes = 1000).await;
    let body = "x".repeat(1500);
    let wire = format!("{ENVELOPE}{body}\r\n.\r\nMAIL FROM:<> SIZE=1001\r\nQUIT\r\n");
    assert_eq!(
        served.talk(wire.as_bytes()).await.codes()[5..],
        ["552", "552", "221"]
    );
    let endless = format!("{ENVELOPE}{}", "x".repeat(100_000));
    assert_eq!(served.talk(endless.as_bytes()).await.codes()[5..], ["552"]);
    assert!(served.received().is_empty());
}

#[tokio::test]
async fn silence_and_trickling_are_ended_with_421() {
    let served = Served::start(|config| config.idle_timeout = Duration::from_millis(150)).await;
    let mut silent = TcpStream::connect(served.address).await.unwrap();
    let mut heard = String::new();
    silent.read_to_string(&mut heard).await.unwrap();
    assert!(heard.contains("\r\n421 4.4.2"), "{heard}");

    let mut trickling = TcpStream::connect(served.address).await.unwrap();
    let began = Instant::now();
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    while trickling.write_all(b"N").await.is_ok() {
        tick.tick().await;
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "trickling is let go on"
        );
    }
}

#[tokio::test]
async fn connections_over_the_limit_are_turned_away() {
    let served = Served::start(|config| config.max_connections = 1).await;
    let mut first = TcpStream::connect(served.address).await.unwrap();
    let mut greeting = [0; 3];
    first.read_exact(&mut greeting).await.unwrap();
    let mut second = TcpStream::connect(served.address).await.unwrap();
    let mut heard = String::new();
    second.read_to_string(&mut heard).await.unwrap();
    assert!(heard.starts_with("421 "), "{heard}");
    drop(first);
}

#[tokio::test]
async fn what_the_handler_says_is_one_line_with_its_code() {
    let served = Served::start(|_| {}).await;
    served.answer_data(|| HandlerReply::new(451, Some((4, 7, 1)), "a\r\n250 b"));
    let dialogue = served
        .talk(format!("{ENVELOPE}.\r\nQUIT\r\n").as_bytes())
        .await;
    assert!(
        dialogue.0.contains("\r\n451 4.7.1 a  250 b\r\n221"),
        "{}",
        dialogue.0
    );
    served.answer_data(HandlerReply::drop_connection);
    let dialogue = served
        .talk(format!("{ENVELOPE}.\r\nQUIT\r\n").as_bytes())
        .await;
    assert_eq!(dialogue.codes().last().unwrap(), "354");
}

#[tokio::test]
async fn commands_injected_behind_starttls_close_the_connection() {
    let tls = server_tls_self_signed("mx.test").unwrap();
    let served = Served::start(|config| config.tls = Some(tls)).await;
    let dialogue = served
        .talk(b"EHLO c\r\nSTARTTLS\r\nMAIL FROM:<evil@x.test>\r\n")
        .await;
    assert_eq!(dialogue.codes(), ["220", "250", "554"]);
}

#[tokio::test]
async fn our_client_delivers_through_starttls() {
    let tls = server_tls_self_signed("mx.test").unwrap();
    let served = Served::start(|config| config.tls = Some(tls)).await;
    let config = ConnectConfig {
        remote: served.address,
        host_name: "mx.test".into(),
        source: None,
        ehlo: "out.sender.test".into(),
        tls: TlsMode::Opportunistic(opportunistic_client_config().unwrap()),
        deadlines: Deadlines::uniform(Duration::from_secs(20)),
    };
    let mut connection = Connection::open(&config).await.unwrap();
    assert!(connection.tls_version().is_some() && connection.capabilities().pipelining);
    let body = b".line\r\n".repeat(100_000);
    for _ in 0..3 {
        let parts = [body.as_slice()];
        let content = WireContent::parse(&parts).unwrap();
        let transaction = connection
            .begin(&served::envelope(), &content)
            .await
            .unwrap();
        transaction.finish().await.unwrap();
    }
    connection.quit().await;
    let received = served.received();
    assert_eq!(received.len(), 3);
    assert!(received.iter().all(|received| received.data == body));
    assert_eq!(received[0].session.tls, Some("TLSv1.3"));
}

#[tokio::test]
async fn shutdown_ends_idle_sessions_and_waits_for_busy_ones_only_so_long() {
    let served = Served::start(|config| config.shutdown_grace = Duration::from_millis(200)).await;
    let mut idle = TcpStream::connect(served.address).await.unwrap();
    idle.write_all(b"EHLO c\r\n").await.unwrap();
    let mut heard = [0; 3];
    idle.read_exact(&mut heard).await.unwrap();
    let gate = Arc::new(tokio::sync::Notify::new());
    served.hold_data(Arc::clone(&gate));
    let mut busy = TcpStream::connect(served.address).await.unwrap();
    busy.write_all(format!("{ENVELOPE}.\r\n").as_bytes())
        .await
        .unwrap();
    gate.notified().await;
    served.stop().await;
    let mut heard = String::new();
    idle.read_to_string(&mut heard).await.unwrap();
    assert!(
        heard.ends_with("421 4.3.2 Service shutting down\r\n"),
        "{heard}"
    );
    let mut heard = String::new();
    busy.read_to_string(&mut heard).await.unwrap();
    assert!(
        heard.ends_with("<CRLF>.<CRLF>\r\n"),
        "no reply to the held message: {heard}"
    );
}
