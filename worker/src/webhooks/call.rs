//! One webhook call: a signed POST to a customer's endpoint, within its deadline. Judges the
//! answer and forgets it; when to call again is the caller's question.

use std::error::Error as _;
use std::time::Duration;

use bytes::Bytes;
use mail::text::DbText;
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::{Client, Response, StatusCode, redirect};
use store::CallResult;

use super::guard::{Guard, Reach, Refused};
use super::sign::Signature;

const USER_AGENT: &str = concat!("Postrider/", env!("CARGO_PKG_VERSION"));

const CONNECT_PATIENCE: Duration = Duration::from_secs(5);

/// From the first octet of the connection to the last of the answer.
pub(super) const CALL_PATIENCE: Duration = Duration::from_secs(15);

/// What is read and kept of an answer's body, in octets. An endpoint that says more loses the
/// connection, and nothing else.
const ANSWER_MAX: usize = 1_024;

/// How long the rest of an answer may take once its status is known.
const ANSWER_PATIENCE: Duration = Duration::from_secs(1);

/// Unused connections kept open to one host.
const IDLE_PER_HOST_MAX: usize = 16;

/// What came of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) result: CallResult,
    pub(super) status: Option<u16>,
    /// The beginning of the body, or why there was none.
    pub(super) said: DbText,
}

impl Answer {
    fn of_status(status: StatusCode, body: &[u8]) -> Self {
        let result = match status {
            status if status.is_success() => CallResult::Taken,
            // Standard Webhooks: the endpoint asks for no more calls at all.
            StatusCode::GONE => CallResult::Gone,
            _ => CallResult::Status,
        };
        Self {
            result,
            status: Some(status.as_u16()),
            said: DbText::from_remote(body, ANSWER_MAX),
        }
    }

    fn without(result: CallResult, why: &str) -> Self {
        Self {
            result,
            status: None,
            said: DbText::from_remote(why.as_bytes(), ANSWER_MAX),
        }
    }
}

impl From<&Refused> for Answer {
    fn from(refused: &Refused) -> Self {
        Self::without(CallResult::Refused, &refused.explain())
    }
}

/// The HTTP client of all webhook calls; connections are kept and used again.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    anywhere: Client,
    inside: Client,
    guard: Guard,
}

impl Caller {
    /// A client that reaches what the guard lets it.
    ///
    /// # Errors
    /// TLS cannot be set up, as on a machine without any root certificates.
    pub(super) fn new(guard: Guard) -> Result<Self, reqwest::Error> {
        Ok(Self {
            anywhere: client(guard.within(Reach::Anywhere))?,
            inside: client(guard.within(Reach::Inside))?,
            guard,
        })
    }

    /// Makes the call. Takes at most [`CALL_PATIENCE`].
    pub(super) async fn post(&self, url: &str, signature: &Signature, body: Bytes) -> Answer {
        let (url, reach) = match self.guard.check_url(url) {
            Ok(checked) => checked,
            Err(refused) => return Answer::from(&refused),
        };
        let client = match reach {
            Reach::Anywhere => &self.anywhere,
            Reach::Inside => &self.inside,
        };
        let json = HeaderValue::from_static("application/json");
        let mut request = client.post(url).header(CONTENT_TYPE, json).body(body);
        for (name, value) in signature.headers() {
            request = request.header(name, value);
        }
        match request.send().await {
            Ok(response) => {
                let (status, mut said) = (response.status(), Vec::new());
                // The status is the answer; failing to read the rest changes nothing.
                let reading = read(response, &mut said);
                let _read_or_not = tokio::time::timeout(ANSWER_PATIENCE, reading).await;
                Answer::of_status(status, &said)
            }
            Err(error) => failure(&error),
        }
    }
}

fn client(guard: Guard) -> Result<Client, reqwest::Error> {
    Client::builder()
        .user_agent(USER_AGENT)
        .dns_resolver(guard)
        // A redirect or a proxy would lead round the guard.
        .redirect(redirect::Policy::none())
        .no_proxy()
        .connect_timeout(CONNECT_PATIENCE)
        .timeout(CALL_PATIENCE)
        .pool_max_idle_per_host(IDLE_PER_HOST_MAX)
        .tcp_nodelay(true)
        .build()
}

async fn read(mut response: Response, said: &mut Vec<u8>) {
    while let Ok(Some(chunk)) = response.chunk().await {
        let room = ANSWER_MAX - said.len();
        said.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if chunk.len() > room {
            return;
        }
    }
}

fn failure(error: &reqwest::Error) -> Answer {
    let mut cause = error.source();
    let mut innermost = None;
    while let Some(current) = cause {
        if let Some(refused) = current.downcast_ref::<Refused>() {
            return Answer::from(refused);
        }
        innermost = Some(current);
        cause = current.source();
    }
    if error.is_timeout() {
        return Answer::without(CallResult::Timeout, "no answer in time");
    }
    // The outer errors repeat the URL, which may hold a secret of the customer.
    let why = innermost.map_or_else(|| "unknown".to_owned(), ToString::to_string);
    Answer::without(CallResult::Connection, &why)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::task::JoinHandle;

    use super::*;

    fn caller(allowed: &[&str]) -> Caller {
        let allowed = allowed.iter().map(|network| network.parse().unwrap());
        Caller::new(Guard::new(allowed.collect(), vec![80, 443])).unwrap()
    }

    fn signature() -> Signature {
        let event = mail::ids::EventId::from_uuid(uuid::Uuid::nil());
        let at = time::OffsetDateTime::UNIX_EPOCH;
        Signature::new([b"key".as_slice()], event, at, b"{}")
    }

    /// Takes connections and answers each with these octets, some at a time, then holds them open.
    async fn server(pieces: &'static [&'static [u8]], pause: Duration) -> (u16, JoinHandle<()>) {
        let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = server.local_addr().unwrap().port();
        let serving = tokio::spawn(async move {
            let mut open = Vec::new();
            loop {
                let (mut peer, _) = server.accept().await.unwrap();
                let mut request = [0; 4_096];
                let _read = peer.read(&mut request).await.unwrap();
                for piece in pieces {
                    if peer.write_all(piece).await.is_err() {
                        break;
                    }
                    tokio::time::sleep(pause).await;
                }
                open.push(peer);
            }
        });
        (port, serving)
    }

    async fn answer(port: u16) -> Answer {
        let url = format!("http://127.0.0.1:{port}/hook");
        let caller = caller(&["127.0.0.0/8"]);
        caller.post(&url, &signature(), Bytes::new()).await
    }

    #[test]
    fn only_2xx_is_taken_and_only_410_is_final() {
        let check = |status: u16, expected: CallResult| {
            let answer = Answer::of_status(StatusCode::from_u16(status).unwrap(), b"");
            assert_eq!((answer.result, answer.status), (expected, Some(status)));
        };
        check(200, CallResult::Taken);
        check(204, CallResult::Taken);
        check(410, CallResult::Gone);
        for status in [301, 302, 303, 307, 308, 400, 404, 429, 500, 503] {
            check(status, CallResult::Status);
        }
    }

    #[tokio::test]
    async fn a_redirect_is_an_answer_and_is_not_followed() {
        let inner = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = inner.local_addr().unwrap();
        let head =
            format!("HTTP/1.1 307 Go\r\nLocation: http://{to}/\r\nContent-Length: 0\r\n\r\n");
        let head: &'static [u8] = Box::leak(head.into_bytes().into_boxed_slice());
        let (port, _serving) = server(Box::leak(Box::new([head])), Duration::ZERO).await;
        let found = answer(port).await;
        assert_eq!(
            (found.result, found.status),
            (CallResult::Status, Some(307))
        );
        let nobody = tokio::time::timeout(Duration::from_millis(50), inner.accept()).await;
        assert!(nobody.is_err());
    }

    #[tokio::test]
    async fn the_beginning_of_a_body_is_kept_however_slowly_it_comes_and_however_long_it_is() {
        const HEAD: &[u8] = b"HTTP/1.1 500 No\r\nContent-Length: 100000\r\n\r\nsorry\0 ";
        let (port, _serving) = server(&[HEAD, b"a", b"b"], Duration::from_millis(400)).await;
        let found = answer(port).await;
        assert_eq!(
            (found.result, found.status),
            (CallResult::Status, Some(500))
        );
        assert!(found.said.as_str().starts_with("sorry\\x00 "), "{found:?}");

        const LONG: &[u8] = &[b'x'; 50_000];
        const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 50000\r\n\r\n";
        let (port, _serving) = server(&[OK, LONG], Duration::ZERO).await;
        let found = answer(port).await;
        assert_eq!(
            (found.result, found.said.as_str().len()),
            (CallResult::Taken, ANSWER_MAX)
        );
    }

    #[tokio::test]
    async fn an_answer_that_is_no_http_or_has_an_endless_header_is_a_failure() {
        let (port, _serving) = server(&[b"220 mail.example ESMTP\r\n"], Duration::ZERO).await;
        assert_eq!(answer(port).await.result, CallResult::Connection);

        const FIELD: &[u8] = &[b'a'; 1 << 20];
        const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nX-A: ";
        let (port, _serving) = server(&[HEAD, FIELD, FIELD], Duration::ZERO).await;
        assert_eq!(answer(port).await.result, CallResult::Connection);
    }

    #[tokio::test]
    async fn inside_addresses_are_never_connected_to() {
        let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = server.local_addr().unwrap().port();
        let caller = Caller::new(Guard::new(Vec::new(), vec![port])).unwrap();
        for host in [
            "127.0.0.1",
            "127.1",
            "2130706433",
            "0x7f.1",
            "[::ffff:127.0.0.1]",
            "[::1]",
            "localhost",
            "LOCALHOST",
        ] {
            let url = format!("http://{host}:{port}/");
            let answer = caller
                .post(&url, &signature(), Bytes::from_static(b"{}"))
                .await;
            assert_eq!(answer.result, CallResult::Refused, "{host}: {answer:?}");
        }
        let nobody = tokio::time::timeout(Duration::from_millis(50), server.accept()).await;
        assert!(nobody.is_err());
    }

    #[tokio::test]
    async fn a_refused_connection_is_a_failure_that_does_not_tell_the_url() {
        let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = server.local_addr().unwrap().port();
        drop(server);
        let caller = caller(&["127.0.0.0/8"]);
        let url = format!("http://127.0.0.1:{port}/?token=hunter2");
        let answer = caller.post(&url, &signature(), Bytes::new()).await;
        assert_eq!(answer.result, CallResult::Connection);
        assert!(!format!("{answer:?}").contains("hunter2"));
    }
}
