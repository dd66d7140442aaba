//! Promise: a connection is opened within its deadlines or refused for a stated reason; TLS is
//! taken when offered, never fails on a certificate, and nothing said in clear survives it.

#![allow(clippy::unwrap_used)]

mod peer;

use std::sync::Arc;
use std::time::Instant;

use mta::listener::server_tls_self_signed;
use mta::smtp::{
    Connection, FailureKind, ProtocolFault, SmtpFailure, Stage, TlsMode, WireContent,
    opportunistic_client_config, webpki_client_config,
};
use peer::{PATIENT, Peer, SHORT, config, envelope, peer};
use tokio_rustls::TlsAcceptor;

async fn open_fails(script: &'static [u8]) -> SmtpFailure {
    let (address, _server) = peer(move |mut peer| async move {
        peer.say(script).await;
        peer.rest().await
    })
    .await;
    let mut config = config(address);
    config.deadlines.greeting = SHORT;
    Connection::open(&config).await.unwrap_err()
}

#[tokio::test]
async fn greetings_that_are_none_are_refused() {
    for garbage in [
        &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
        b"\r\n",
        b"220x\r\n",
        b"220-a\r\n250 b\r\n",
        b"\0\0\0\0\r\n",
        b"999 what\r\n",
        b"-\r\n",
    ] {
        let failure = open_fails(garbage).await;
        assert_eq!(failure.stage, Stage::Greeting);
        let fault = FailureKind::Protocol(ProtocolFault::UnsafeCommand);
        assert_eq!(
            std::mem::discriminant(&failure.kind),
            std::mem::discriminant(&fault),
            "{garbage:?}: {failure:?}"
        );
    }
    let failure = open_fails(b"554 5.7.1 blocked\r\n").await;
    assert_eq!(failure.reply().unwrap().to_string(), "554 5.7.1 blocked");
    let failure = open_fails(b"250 hello\r\n").await;
    assert!(matches!(
        failure.kind,
        FailureKind::Protocol(ProtocolFault::UnexpectedCode(250))
    ));
}

#[tokio::test]
async fn replies_without_end_are_cut_off() {
    for piece in [
        &[b'2'; 4096][..],
        b"220-more\r\n",
        &[0xff; 64 * 1024],
        &[0; 64 * 1024],
    ] {
        let (address, server) = peer(move |mut peer| async move {
            loop {
                if tokio::io::AsyncWriteExt::write_all(&mut peer.stream, piece)
                    .await
                    .is_err()
                {
                    return;
                }
            }
        })
        .await;
        let failure = Connection::open(&config(address)).await.unwrap_err();
        assert!(
            matches!(failure.kind, FailureKind::Protocol(_)),
            "{failure:?}"
        );
        assert!(failure.transcript.len() <= mta::smtp::TRANSCRIPT_BYTES_MAX);
        server.await.unwrap();
    }
}

#[tokio::test]
async fn odd_bytes_in_a_reply_are_made_printable() {
    let mut reply = b"554 5.1.1 no\0 such \xff".to_vec();
    reply.extend([b'x'; 3000]);
    reply.extend(b"\r\n");
    let (address, _server) = peer(|mut peer| async move {
        peer.say(&reply).await;
        peer.rest().await
    })
    .await;
    let failure = Connection::open(&config(address)).await.unwrap_err();
    let reply = failure.reply().unwrap();
    assert!(!reply.to_string().contains('\0'));
    assert!(!failure.transcript.contains('\0'));
}

#[tokio::test]
async fn a_trickle_does_not_extend_the_deadline() {
    for opened in [false, true] {
        let (address, server) = peer(move |mut peer| async move {
            if opened {
                peer.say("220 hi\r\n").await;
                peer.line().await;
            }
            let drip = tokio::time::interval(SHORT / 10);
            tokio::pin!(drip);
            loop {
                drip.tick().await;
                if tokio::io::AsyncWriteExt::write_all(&mut peer.stream, b"2")
                    .await
                    .is_err()
                {
                    return;
                }
            }
        })
        .await;
        let mut config = config(address);
        config.deadlines.greeting = SHORT;
        config.deadlines.ehlo = SHORT;
        let began = Instant::now();
        let failure = Connection::open(&config).await.unwrap_err();
        assert!(matches!(
            failure.kind,
            FailureKind::Timeout | FailureKind::Protocol(_)
        ));
        assert_eq!(
            failure.stage,
            if opened { Stage::Ehlo } else { Stage::Greeting }
        );
        assert!(
            began.elapsed() < PATIENT / 2,
            "the drip held us for {:?}",
            began.elapsed()
        );
        server.abort();
    }
}

#[tokio::test]
async fn ehlo_refused_falls_back_to_helo() {
    let (address, server) = peer(|mut peer| async move {
        peer.say("220 old\r\n").await;
        peer.line().await;
        peer.say("502 what\r\n").await;
        let helo = peer.line().await;
        peer.say("250 old\r\n").await;
        helo
    })
    .await;
    let connection = Connection::open(&config(address)).await.unwrap();
    assert!(!connection.capabilities().pipelining);
    assert_eq!(server.await.unwrap(), "HELO out.sender.test");
}

#[tokio::test]
async fn nobody_listening_is_a_connect_failure() {
    let (address, server) = peer(|_| async {}).await;
    server.abort();
    let _ = server.await;
    let failure = Connection::open(&config(address)).await.unwrap_err();
    assert_eq!(failure.stage, Stage::Connect);
    assert_eq!(
        failure.cause(),
        Some(mail::judge::Failure::ConnectionRefused)
    );
    assert!(matches!(failure.kind, FailureKind::Io(_)), "{failure:?}");
}

#[tokio::test]
async fn the_source_address_is_bound() {
    let (address, server) = peer(|mut peer| async move {
        peer.welcome(&[]).await;
        peer.stream.peer_addr().unwrap().ip()
    })
    .await;
    let mut config = config(address);
    config.source = Some("127.0.0.7".parse().unwrap());
    Connection::open(&config).await.unwrap();
    assert_eq!(server.await.unwrap().to_string(), "127.0.0.7");
}

#[tokio::test]
async fn line_ends_in_our_own_name_never_reach_the_wire() {
    let (address, server) = peer(|mut peer| async move {
        peer.say("220 hi\r\n").await;
        peer.rest().await
    })
    .await;
    let mut config = config(address);
    config.ehlo = "a\r\nMAIL FROM:<x@y.test>".into();
    let failure = Connection::open(&config).await.unwrap_err();
    assert!(matches!(
        failure.kind,
        FailureKind::Protocol(ProtocolFault::UnsafeCommand)
    ));
    assert!(server.await.unwrap().is_empty());
}

#[tokio::test]
async fn starttls_with_a_self_signed_certificate_encrypts_and_resumes() {
    let opportunistic = opportunistic_client_config().unwrap();
    let tls = server_tls_self_signed("peer.test").unwrap();
    for handshake in ["Full", "Resumed"] {
        let tls = Arc::clone(&tls);
        let (address, server) = peer(|mut peer| async move {
            peer.welcome(&["STARTTLS", "PIPELINING"]).await;
            assert_eq!(peer.line().await, "STARTTLS");
            peer.say("220 go\r\n").await;
            let stream = TlsAcceptor::from(tls).accept(peer.stream).await.unwrap();
            let kind = stream.get_ref().1.handshake_kind().unwrap();
            let mut peer = Peer::new(stream);
            peer.answer_ehlo(&["8BITMIME"]).await;
            for reply in ["250 ok\r\n", "250 ok\r\n", "354 go\r\n"] {
                peer.line().await;
                peer.say(reply).await;
            }
            let content = peer.until(b"\r\n.\r\n").await;
            peer.say("250 ok\r\n").await;
            assert_eq!(peer.line().await, "QUIT");
            peer.say("221 bye\r\n").await;
            (format!("{kind:?}"), content)
        })
        .await;
        let mut config = config(address);
        config.tls = TlsMode::Opportunistic(Arc::clone(&opportunistic));
        let mut connection = Connection::open(&config).await.unwrap();
        assert_eq!(connection.tls_version(), Some("TLSv1.3"));
        // Only what was said inside TLS counts.
        assert!(!connection.capabilities().pipelining);
        assert!(connection.capabilities().eight_bit_mime);
        assert!(!connection.is_stale(), "session tickets are no news");
        let parts: [&[u8]; 1] = [b".hello\r\n"];
        let content = WireContent::parse(&parts).unwrap();
        let transaction = connection.begin(&envelope(), &content).await.unwrap();
        transaction.finish().await.unwrap();
        assert!(
            connection.transcript().contains("-- TLSv1.3"),
            "{}",
            connection.transcript()
        );
        connection.quit().await;
        let (kind, content) = server.await.unwrap();
        assert_eq!(content, b"..hello\r\n.\r\n");
        assert_eq!(kind, handshake);
    }
}

#[tokio::test]
async fn replies_injected_before_tls_drop_the_connection() {
    let (address, server) = peer(|mut peer| async move {
        peer.welcome(&["STARTTLS"]).await;
        peer.line().await;
        peer.say("220 go\r\n250 injected\r\n").await;
        peer.rest().await
    })
    .await;
    let mut config = config(address);
    config.tls = TlsMode::Opportunistic(opportunistic_client_config().unwrap());
    let failure = Connection::open(&config).await.unwrap_err();
    assert_eq!(failure.stage, Stage::StartTls);
    let fault = matches!(
        failure.kind,
        FailureKind::Protocol(ProtocolFault::ClearTextBeforeTls)
    );
    assert!(fault && !failure.retry_in_clear);
    assert!(
        server.await.unwrap().is_empty(),
        "not even a handshake is begun"
    );
}

#[tokio::test]
async fn a_broken_handshake_may_be_retried_in_clear_only_when_opportunistic() {
    for required in [false, true] {
        let (address, _server) = peer(|mut peer| async move {
            peer.welcome(&["STARTTLS"]).await;
            peer.line().await;
            peer.say("220 go\r\n").await;
            // After the hello, else it would count as clear text injected before TLS.
            tokio::io::AsyncReadExt::read_u8(&mut peer.stream)
                .await
                .unwrap();
            peer.say("this is no handshake").await;
        })
        .await;
        let tls = opportunistic_client_config().unwrap();
        let mut config = config(address);
        config.tls = if required {
            TlsMode::Required(tls)
        } else {
            TlsMode::Opportunistic(tls)
        };
        let failure = Connection::open(&config).await.unwrap_err();
        assert!(matches!(failure.kind, FailureKind::Tls(_)), "{failure:?}");
        assert_eq!(failure.retry_in_clear, !required);
    }
}

#[tokio::test]
async fn required_tls_refuses_an_unknown_certificate() {
    let tls = server_tls_self_signed("peer.test").unwrap();
    let (address, _server) = peer(|mut peer| async move {
        peer.welcome(&["STARTTLS"]).await;
        peer.line().await;
        peer.say("220 go\r\n").await;
        TlsAcceptor::from(tls).accept(peer.stream).await.is_ok()
    })
    .await;
    let mut config = config(address);
    config.tls = TlsMode::Required(webpki_client_config().unwrap());
    let failure = Connection::open(&config).await.unwrap_err();
    assert!(matches!(failure.kind, FailureKind::Tls(_)) && !failure.retry_in_clear);
}

#[tokio::test]
async fn starttls_refused_or_absent_goes_on_in_clear_unless_required() {
    for offered in [false, true] {
        for required in [false, true] {
            let (address, _server) = peer(move |mut peer| async move {
                peer.welcome(if offered { &["STARTTLS"] } else { &[] })
                    .await;
                peer.line().await;
                peer.say("454 4.7.0 not now\r\n").await;
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
            let opened = Connection::open(&config).await;
            assert_eq!(opened.is_err(), required);
            match opened {
                Ok(connection) => assert_eq!(connection.tls_version(), None),
                Err(failure) if offered => assert_eq!(failure.reply().unwrap().code().get(), 454),
                Err(failure) => assert!(matches!(failure.kind, FailureKind::TlsNotOffered)),
            }
        }
    }
}
