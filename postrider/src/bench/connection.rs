//! One connection to an HTTP server, kept open from request to request. Driven by whoever asks:
//! no task, no pool and no second copy stand between a request and its answer, because whatever
//! the load generator costs is missing from what it measures.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use reqwest::Url;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use rustls_platform_verifier::ConfigVerifierExt;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::either::Either;

/// A request that takes longer is an error.
const PATIENCE: Duration = Duration::from_secs(30);

/// An API key, as requests carry it.
#[derive(Clone)]
pub(super) struct Authorization(HeaderValue);

impl Authorization {
    /// # Errors
    /// The text can be no key.
    pub(super) fn new(key: &str) -> anyhow::Result<Self> {
        let mut value = HeaderValue::try_from(format!("Bearer {key}"))
            .context("the key has characters that no key has")?;
        value.set_sensitive(true);
        Ok(Self(value))
    }
}

/// A server.
#[derive(Clone)]
pub(super) struct Target {
    address: (String, u16),
    tls: Option<(TlsConnector, ServerName<'static>)>,
    host: HeaderValue,
    /// Of the base URL, without a slash at its end.
    prefix: String,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoAnswer {
    #[error("no connection")]
    NotConnected,
    #[error("connection lost")]
    Lost,
    #[error("no answer in time")]
    Late,
}

/// What a server answered.
pub(super) type Answer = (StatusCode, Bytes);

impl Target {
    /// # Errors
    /// The URL cannot be used in a request.
    pub(super) fn new(base: &Url) -> anyhow::Result<Self> {
        let host = base.host_str().context("the URL names no host")?;
        let port = base.port_or_known_default().context("which port?")?;
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let tls = match base.scheme() {
            "http" => None,
            "https" => {
                let name = ServerName::try_from(bare.to_owned())
                    .with_context(|| format!("{host} cannot stand in a certificate"))?;
                let config = ClientConfig::with_platform_verifier()
                    .context("could not read the certificates this machine trusts")?;
                Some((TlsConnector::from(Arc::new(config)), name))
            }
            other => bail!("{other} is not spoken here: give an http or https URL"),
        };
        let named = base
            .port()
            .map_or_else(String::new, |port| format!(":{port}"));
        Ok(Self {
            address: (bare.to_owned(), port),
            tls,
            host: HeaderValue::try_from(format!("{host}{named}"))?,
            prefix: base.path().trim_end_matches('/').to_owned(),
        })
    }

    /// The path of a route of this server.
    ///
    /// # Errors
    /// It is none.
    pub(super) fn path(&self, route: &str) -> anyhow::Result<Uri> {
        let path = format!("{}{route}", self.prefix);
        path.parse().with_context(|| format!("{path} is no path"))
    }

    fn request(
        &self,
        method: Method,
        path: &Uri,
        key: Option<&Authorization>,
        body: Vec<u8>,
    ) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = method;
        *request.uri_mut() = path.clone();
        let headers = request.headers_mut();
        headers.insert(HOST, self.host.clone());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(Authorization(value)) = key {
            headers.insert(AUTHORIZATION, value.clone());
        }
        request
    }
}

type Driver = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>;

/// A connection to a target, made when it is needed.
pub(super) struct Connection {
    target: Target,
    open: Option<Open>,
}

struct Open {
    sender: SendRequest<Full<Bytes>>,
    driver: Driver,
}

impl Connection {
    pub(super) fn new(target: Target) -> Self {
        Self { target, open: None }
    }

    /// Posts JSON and reads the whole answer.
    ///
    /// # Errors
    /// There is none; whether the server took the request is then unknown.
    pub(super) async fn post(
        &mut self,
        path: &Uri,
        key: &Authorization,
        body: Vec<u8>,
    ) -> Result<Answer, NoAnswer> {
        let request = self.target.request(Method::POST, path, Some(key), body);
        self.ask(request).await
    }

    /// Gets JSON.
    ///
    /// # Errors
    /// There is no answer, or not this one.
    pub(super) async fn get<T: DeserializeOwned>(&mut self, path: &Uri) -> anyhow::Result<T> {
        let request = self.target.request(Method::GET, path, None, Vec::new());
        let (status, body) = self.ask(request).await?;
        serde_json::from_slice(&body).with_context(|| format!("{path} answered {status}"))
    }

    async fn ask(&mut self, request: Request<Full<Bytes>>) -> Result<Answer, NoAnswer> {
        // Taken out: a connection whose exchange was cut short is not used again.
        let exchange = async {
            let mut open = match self.open.take() {
                Some(open) => open,
                None => Open::connect(&self.target).await?,
            };
            let answer = open.exchange(request).await;
            Ok((open, answer?))
        };
        let done = tokio::time::timeout(PATIENCE, exchange).await;
        let (open, answer) = done.map_err(|_| NoAnswer::Late)??;
        self.open = (!open.sender.is_closed()).then_some(open);
        Ok(answer)
    }
}

impl Open {
    async fn connect(target: &Target) -> Result<Self, NoAnswer> {
        let (host, port) = &target.address;
        let connect = async {
            let tcp = TcpStream::connect((host.as_str(), *port)).await?;
            tcp.set_nodelay(true)?;
            match &target.tls {
                None => Ok(Either::Left(tcp)),
                Some((tls, name)) => tls.connect(name.clone(), tcp).await.map(Either::Right),
            }
        };
        let stream = connect
            .await
            .map_err(|_: std::io::Error| NoAnswer::NotConnected)?;
        let (sender, driver) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|_| NoAnswer::NotConnected)?;
        let driver = Box::pin(driver);
        Ok(Self { sender, driver })
    }

    async fn exchange(&mut self, request: Request<Full<Bytes>>) -> Result<Answer, NoAnswer> {
        let Self { sender, driver } = self;
        let exchange = async {
            sender.ready().await?;
            let response = sender.send_request(request).await?;
            let (head, body) = response.into_parts();
            Ok::<_, hyper::Error>((head.status, body.collect().await?.to_bytes()))
        };
        tokio::pin!(exchange);
        let answered = tokio::select! {
            answered = &mut exchange => answered,
            // The server closed it; what it said before that is still to be read.
            _ended = driver => exchange.await,
        };
        answered.map_err(|_| NoAnswer::Lost)
    }
}
