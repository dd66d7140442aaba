//! One webhook call: a signed POST to a customer's endpoint, within its deadline. Judges the
//! answer and forgets it; when to call again is the caller's question.

use std::error::Error as _;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::{Client, Response, StatusCode, redirect};
use service::config::Network;

use super::guard::{Guard, Refused};
use super::sign::Signature;

const USER_AGENT: &str = concat!("Postrider/", env!("CARGO_PKG_VERSION"));

const CONNECT_PATIENCE: Duration = Duration::from_secs(5);

/// From the first octet of the connection to the last of the answer.
pub(super) const CALL_PATIENCE: Duration = Duration::from_secs(15);

/// What is read of an answer's body, in octets, so that its connection can be used again. An
/// endpoint that says more loses the connection, and nothing else.
const ANSWER_MAX: usize = 1_024;

/// How long the rest of an answer may take once its status is known.
const ANSWER_PATIENCE: Duration = Duration::from_secs(1);

/// Unused connections kept open to one host.
const IDLE_PER_HOST_MAX: usize = 16;

/// What came of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// 2xx: the endpoint has it.
    Taken,
    /// 410: the endpoint asks for no more of this.
    Gone,
    /// Anything else: try again later.
    Failed(Failure),
}

/// Why a call did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    #[error("the endpoint answered {0}")]
    Status(u16),
    #[error("the endpoint did not answer in time")]
    Timeout,
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("no connection: {0}")]
    Connection(String),
}

impl Answer {
    /// The word in metrics.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::Gone => "gone",
            Self::Failed(Failure::Status(_)) => "status",
            Self::Failed(Failure::Timeout) => "timeout",
            Self::Failed(Failure::Refused(_)) => "refused",
            Self::Failed(Failure::Connection(_)) => "connection",
        }
    }
}

/// The HTTP client of all webhook calls; connections are kept and used again.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    client: Client,
    guard: Guard,
}

impl Caller {
    /// A client that reaches public addresses and `allowed` ones.
    ///
    /// # Errors
    /// TLS cannot be set up, as on a machine without any root certificates.
    pub(super) fn new(allowed: Vec<Network>) -> Result<Self, reqwest::Error> {
        let guard = Guard::new(allowed);
        let client = Client::builder()
            .user_agent(USER_AGENT)
            .dns_resolver(guard.clone())
            // A redirect or a proxy would lead round the guard.
            .redirect(redirect::Policy::none())
            .no_proxy()
            .connect_timeout(CONNECT_PATIENCE)
            .timeout(CALL_PATIENCE)
            .pool_max_idle_per_host(IDLE_PER_HOST_MAX)
            .tcp_nodelay(true)
            .build()?;
        Ok(Self { client, guard })
    }

    /// Makes the call. Takes at most [`CALL_PATIENCE`].
    pub(super) async fn post(&self, url: &str, signature: &Signature, body: Bytes) -> Answer {
        let url = match self.guard.check_url(url) {
            Ok(url) => url,
            Err(refused) => return Answer::Failed(refused.into()),
        };
        let json = HeaderValue::from_static("application/json");
        let mut request = self.client.post(url).header(CONTENT_TYPE, json).body(body);
        for (name, value) in signature.headers() {
            request = request.header(name, value);
        }
        match request.send().await {
            Ok(response) => {
                let answer = judge(response.status());
                // The status is the answer; failing to read the rest changes nothing.
                let _read_or_not = tokio::time::timeout(ANSWER_PATIENCE, drain(response)).await;
                answer
            }
            Err(error) => Answer::Failed(failure(&error)),
        }
    }
}

fn judge(status: StatusCode) -> Answer {
    match status {
        status if status.is_success() => Answer::Taken,
        StatusCode::GONE => Answer::Gone,
        status => Answer::Failed(Failure::Status(status.as_u16())),
    }
}

async fn drain(mut response: Response) {
    let mut read = 0;
    while let Ok(Some(chunk)) = response.chunk().await {
        read += chunk.len();
        if read > ANSWER_MAX {
            return;
        }
    }
}

fn failure(error: &reqwest::Error) -> Failure {
    let mut cause = error.source();
    let mut innermost = None;
    while let Some(current) = cause {
        if let Some(refused) = current.downcast_ref::<Refused>() {
            return refused.clone().into();
        }
        innermost = Some(current);
        cause = current.source();
    }
    if error.is_timeout() {
        return Failure::Timeout;
    }
    // The outer errors repeat the URL, which may hold a secret of the customer.
    Failure::Connection(innermost.map_or_else(|| "unknown".to_owned(), ToString::to_string))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_2xx_is_taken_and_only_410_is_final() {
        let check = |status: u16, expected: &str| {
            let answer = judge(StatusCode::from_u16(status).unwrap());
            assert_eq!(answer.label(), expected, "{status}");
        };
        check(200, "taken");
        check(204, "taken");
        check(410, "gone");
        for status in [301, 307, 400, 404, 429, 500, 503] {
            check(status, "status");
        }
    }

    #[tokio::test]
    async fn inside_addresses_are_never_connected_to() {
        let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = server.local_addr().unwrap().port();
        let caller = Caller::new(Vec::new()).unwrap();
        let event = mail::ids::EventId::from_uuid(uuid::Uuid::nil());
        let signature = Signature::new(b"key", event, time::OffsetDateTime::UNIX_EPOCH, b"{}");
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
                .post(&url, &signature, Bytes::from_static(b"{}"))
                .await;
            assert_eq!(answer.label(), "refused", "{host}: {answer:?}");
        }
        let nobody = tokio::time::timeout(Duration::from_millis(50), server.accept()).await;
        assert!(nobody.is_err());
    }

    #[tokio::test]
    async fn a_refused_connection_is_a_failure_that_does_not_tell_the_url() {
        let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = server.local_addr().unwrap().port();
        drop(server);
        let caller = Caller::new(vec!["127.0.0.0/8".parse().unwrap()]).unwrap();
        let event = mail::ids::EventId::from_uuid(uuid::Uuid::nil());
        let signature = Signature::new(b"key", event, time::OffsetDateTime::UNIX_EPOCH, b"{}");
        let url = format!("http://127.0.0.1:{port}/?token=hunter2");
        let answer = caller.post(&url, &signature, Bytes::new()).await;
        assert_eq!(answer.label(), "connection");
        assert!(!format!("{answer:?}").contains("hunter2"));
    }
}
