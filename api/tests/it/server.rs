//! The interface on a real socket: it answers, refuses to wait for ever, and stops in order.

use std::time::Duration;

use api::keys::{KeyMode, generate};
use serde_json::Value;
use service::shutdown::Shutdown;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::platform::{Platform, email};

struct Server {
    address: std::net::SocketAddr,
    shutdown: Shutdown,
    running: JoinHandle<()>,
}

impl Server {
    async fn start(platform: &Platform) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = Shutdown::new();
        let running = tokio::spawn(api::run(platform.state.clone(), listener, shutdown.clone()));
        Self {
            address,
            shutdown,
            running,
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn stop(self) {
        self.shutdown.request();
        tokio::time::timeout(Duration::from_secs(10), self.running)
            .await
            .unwrap()
            .unwrap();
    }
}

fn send_request(key: &str) -> String {
    let body = email().to_string();
    format!(
        "POST /v1/emails HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

async fn read_all(stream: &mut TcpStream) -> String {
    let mut answer = String::new();
    let reading = stream.read_to_string(&mut answer);
    tokio::time::timeout(Duration::from_secs(10), reading)
        .await
        .unwrap()
        .unwrap();
    answer
}

#[tokio::test]
async fn it_answers_over_tcp_and_to_the_operator() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let server = Server::start(&platform).await;
    let mut stream = server.connect().await;
    stream
        .write_all(send_request(&platform.live_key).as_bytes())
        .await
        .unwrap();
    let answer = read_all(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 202 "), "{answer}");
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(serde_json::from_str::<Value>(body).unwrap()["id"].is_string());

    for (path, words) in [
        ("/healthz", "ok\n"),
        ("/readyz", "postgresql: ok\n"),
        ("/metrics", "postrider_accepted_messages_total 1"),
    ] {
        let mut stream = server.connect().await;
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = read_all(&mut stream).await;
        assert!(
            answer.starts_with("HTTP/1.1 200 ") && answer.contains(words),
            "{answer}"
        );
    }
    server.stop().await;
}

#[tokio::test]
async fn a_stop_lets_the_request_under_way_finish() {
    let Some(platform) = Platform::start().await else {
        return;
    };
    let server = Server::start(&platform).await;
    let mut idle = server.connect().await;
    let mut busy = server.connect().await;
    let request = send_request(&platform.live_key);
    let (begin, end) = request.split_at(request.len() - 10);
    busy.write_all(begin.as_bytes()).await.unwrap();
    // An answer on a third connection: by then the server has begun with the second.
    let mut probe = server.connect().await;
    probe
        .write_all(send_request(&platform.live_key).as_bytes())
        .await
        .unwrap();
    read_all(&mut probe).await;

    server.shutdown.request();
    assert_eq!(read_all(&mut idle).await, "");
    busy.write_all(end.as_bytes()).await.unwrap();
    let answer = read_all(&mut busy).await;
    assert!(answer.starts_with("HTTP/1.1 202 "), "{answer}");
    let address = server.address;
    server.stop().await;
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn without_its_database_it_says_when_to_come_back() {
    let Some(platform) = Platform::start_alone().await else {
        return;
    };
    platform.accepted(&platform.live_key, &email()).await;
    platform.lose_database();
    let body = email();
    let sending = platform.post(&platform.live_key, "/v1/emails", &body);
    let answer = tokio::time::timeout(Duration::from_secs(30), sending)
        .await
        .unwrap();
    answer.refused(503, "unavailable");
    assert_eq!(answer.headers["retry-after"], "5");
    let unknown = "/v1/emails/msg_01kasxq2bke9qa1bz2t0zc6800";
    platform
        .get(&platform.live_key, unknown)
        .await
        .refused(503, "unavailable");
    platform
        .get(&generate(KeyMode::Live, [1; 32]).secret, unknown)
        .await
        .refused(503, "unavailable");

    let server = Server::start(&platform).await;
    let mut stream = server.connect().await;
    stream
        .write_all(b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let answer = read_all(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    server.stop().await;
}

#[tokio::test]
async fn a_header_that_never_ends_is_given_up() {
    let change = |config: &mut api::ApiConfig| {
        config.header_timeout = Duration::from_millis(100);
        config.request_timeout = Duration::from_secs(1);
    };
    let Some(platform) = Platform::start_with(change).await else {
        return;
    };
    let server = Server::start(&platform).await;
    let mut slow = server.connect().await;
    slow.write_all(b"GET / HTTP/1.1\r\nX-").await.unwrap();
    read_all(&mut slow).await;
    // Neither silence, nor an opening that may become either version.
    for said in ["", "P", "PRI * HTTP/2.0\r\n"] {
        let mut silent = server.connect().await;
        silent.write_all(said.as_bytes()).await.unwrap();
        assert_eq!(read_all(&mut silent).await, "", "{said}");
    }
    // HTTP/2 without a request: its preface and empty settings (RFC 9113 section 3.4).
    let mut resting = server.connect().await;
    resting
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .await
        .unwrap();
    let mut frames = Vec::new();
    tokio::time::timeout(Duration::from_secs(10), resting.read_to_end(&mut frames))
        .await
        .unwrap()
        .unwrap();
    assert!(!frames.is_empty());
    server.stop().await;
}
