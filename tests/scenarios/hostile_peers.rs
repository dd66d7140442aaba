//! A receiver that drips, lies, floods or goes away costs one attempt of bounded length: its
//! delivery is put off, and everybody else's goes out meanwhile.

#![allow(clippy::unwrap_used)]

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::{Duration, Instant};

use tests::api::message;
use tests::platform::Platform;
use tests::sink::Sink;
use tests::{PATIENCE, place, take_turn, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const DEADLINE_SECS: u64 = 2;
/// Each of the steps before a failing one may take its deadline; the sixth step does not come.
const ATTEMPT_MAX: Duration = Duration::from_secs(DEADLINE_SECS * 6);

type Play = Pin<Box<dyn Future<Output = Option<()>> + Send>>;
type Start = fn(TcpStream) -> Play;

/// What a receiver does with a connection, and what that is called.
const PLAYS: [(&str, Start); 11] = [
    ("drip", |peer| Box::pin(drip(peer))),
    ("silence", |peer| Box::pin(silence(peer))),
    ("garbage", |peer| Box::pin(garbage(peer))),
    ("endless-line", |peer| {
        Box::pin(endless(peer, b"aaaaaaaaaaaaaaaa"))
    }),
    ("endless-reply", |peer| {
        Box::pin(endless(peer, b"220-and on\r\n"))
    }),
    ("early-close", |peer| Box::pin(early_close(peer))),
    ("wrong-codes", |peer| Box::pin(wrong_codes(peer))),
    ("injection", |peer| Box::pin(injection(peer))),
    ("huge-reply", |peer| Box::pin(huge_reply(peer))),
    ("close-at-data", |peer| Box::pin(close_at_data(peer))),
    ("drip-after-data", |peer| Box::pin(drip_after_data(peer))),
];

#[tokio::test(flavor = "multi_thread")]
async fn hostile_receivers_are_put_off_and_harm_nobody_else() {
    let _turn = take_turn();
    let sink = Sink::options().start().await;
    let mut builder = Platform::builder().route("good.test", sink.address);
    for (name, play) in PLAYS {
        builder = builder.route(&format!("{name}.test"), start(play).await);
    }
    let Some(platform) = builder.deadline_secs(DEADLINE_SECS).start().await else {
        return;
    };
    let api = platform.api(0);
    let domain = &platform.tenant.domain;

    let sent = Instant::now();
    let mut hostile = Vec::new();
    for (name, _) in PLAYS {
        let id = api
            .send(&message(domain, &format!("user@{name}.test")))
            .await;
        hostile.push((name, id));
    }
    for number in 0..20 {
        let id = api
            .send(&message(domain, &format!("user{number}@good.test")))
            .await;
        api.becomes_within(&id, "delivered", Duration::from_secs(5))
            .await;
    }
    for (name, id) in hostile {
        let email = api
            .becomes_within(&id, "deferred", ATTEMPT_MAX + PATIENCE)
            .await;
        let attempts = email["deliveries"][0]["attempts"].as_array().unwrap();
        let duration_ms = attempts[0]["duration_ms"].as_u64().unwrap();
        eprintln!("{name}: {duration_ms} ms, {}", attempts[0]["reply"]);
        assert!(
            u128::from(duration_ms) <= ATTEMPT_MAX.as_millis(),
            "{name}: {email:#}"
        );
        let in_doubt = name == "drip-after-data";
        assert_eq!(attempts[0]["ambiguous"], in_doubt, "{name}: {email:#}");
    }
    eprintln!("all put off after {:?}", sent.elapsed());
    let node = &platform.nodes[0];
    until("nothing stays unsettled", PATIENCE, || async {
        let open = node.metric("postrider_open_intents").await;
        (open + node.metric("postrider_unsettled_outcomes").await == 0.0).then_some(())
    })
    .await;
}

async fn start(play: Start) -> SocketAddr {
    let listener = TcpListener::bind(place::free_address()).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (peer, _) = listener.accept().await.unwrap();
            tokio::spawn(play(peer));
        }
    });
    address
}

async fn say(peer: &mut TcpStream, bytes: &[u8]) -> Option<()> {
    peer.write_all(bytes).await.ok()
}

/// Waits for the next words of the client, whatever they are.
async fn hear(peer: &mut TcpStream) -> Option<Vec<u8>> {
    let mut words = vec![0; 64 * 1024];
    let count = peer.read(&mut words).await.ok()?;
    words.truncate(count);
    (count > 0).then_some(words)
}

async fn trickle(peer: &mut TcpStream, bytes: &[u8]) -> Option<()> {
    for byte in bytes.iter().cycle() {
        say(peer, &[*byte]).await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    None
}

async fn drip(mut peer: TcpStream) -> Option<()> {
    trickle(&mut peer, b"220-slow.test\r\n").await
}

async fn silence(mut peer: TcpStream) -> Option<()> {
    while hear(&mut peer).await.is_some() {}
    None
}

async fn garbage(mut peer: TcpStream) -> Option<()> {
    say(&mut peer, b"\0\xff\xfe\r\n\x80\x81 220\r\n\r\n").await?;
    silence(peer).await
}

async fn endless(mut peer: TcpStream, piece: &'static [u8]) -> Option<()> {
    let block = piece.repeat(256);
    loop {
        say(&mut peer, &block).await?;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn early_close(peer: TcpStream) -> Option<()> {
    drop(peer);
    None
}

async fn wrong_codes(mut peer: TcpStream) -> Option<()> {
    say(&mut peer, b"220 wrong.test\r\n").await?;
    loop {
        hear(&mut peer).await?;
        say(&mut peer, b"999 what\r\n").await?;
    }
}

async fn injection(mut peer: TcpStream) -> Option<()> {
    say(&mut peer, b"220 inject.test\r\n").await?;
    hear(&mut peer).await?;
    say(&mut peer, b"250-inject.test\r\n250 STARTTLS\r\n").await?;
    hear(&mut peer).await?;
    say(
        &mut peer,
        b"220 go ahead\r\n250-inject.test\r\n250 AUTH PLAIN\r\n",
    )
    .await?;
    silence(peer).await
}

async fn huge_reply(mut peer: TcpStream) -> Option<()> {
    welcome(&mut peer).await?;
    hear(&mut peer).await?;
    let mut reply = b"250 ".to_vec();
    reply.extend([0xff, 0].repeat(32 * 1024));
    reply.extend(b"\r\n");
    say(&mut peer, &reply).await?;
    silence(peer).await
}

async fn close_at_data(mut peer: TcpStream) -> Option<()> {
    welcome(&mut peer).await?;
    let mut heard = Vec::new();
    until_heard(&mut peer, &mut heard, "MAIL").await?;
    say(&mut peer, b"250 ok\r\n").await?;
    until_heard(&mut peer, &mut heard, "RCPT").await?;
    say(&mut peer, b"250 ok\r\n").await?;
    until_heard(&mut peer, &mut heard, "DATA").await
}

/// Takes a whole message and then answers one byte a second.
async fn drip_after_data(mut peer: TcpStream) -> Option<()> {
    welcome(&mut peer).await?;
    let mut heard = Vec::new();
    for (command, reply) in [
        ("MAIL", "250 ok\r\n"),
        ("RCPT", "250 ok\r\n"),
        ("DATA", "354 go\r\n"),
    ] {
        until_heard(&mut peer, &mut heard, command).await?;
        say(&mut peer, reply.as_bytes()).await?;
    }
    until_heard(&mut peer, &mut heard, "\r\n.\r\n").await?;
    trickle(&mut peer, b"250-hold on\r\n").await
}

/// Listens until the client has said `words`, among other things.
async fn until_heard(peer: &mut TcpStream, heard: &mut Vec<u8>, words: &str) -> Option<()> {
    while !heard
        .windows(words.len())
        .any(|window| window == words.as_bytes())
    {
        heard.extend(hear(peer).await?);
    }
    Some(())
}

async fn welcome(peer: &mut TcpStream) -> Option<()> {
    say(peer, b"220 peer.test\r\n").await?;
    hear(peer).await?;
    say(peer, b"250-peer.test\r\n250 8BITMIME\r\n").await
}
