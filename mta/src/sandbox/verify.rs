//! Verifies DKIM signatures with the keys the platform would publish. Asks the store for them, and
//! the DNS for nothing: a name that the store does not know does not exist.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use hickory_resolver::config::{ResolverConfig, ResolverOpts};
use hickory_resolver::net::NetError;
use hickory_resolver::proto::op::ResponseCode;
use mail::domain_name::DomainName;
use mail_auth::common::parse::TxtRecordParser;
use mail_auth::common::verify::{DomainKey, VerifySignature};
use mail_auth::dkim::DkimError;
use mail_auth::{
    AuthenticatedMessage, DkimOutput, DkimResult, DnsError, Error, MessageAuthenticator,
    Parameters, ResolverCache, Txt,
};
use store::{Store, StoreError};
use tokio::runtime::Handle;

/// Keys looked up for one message; signatures beyond find no key.
const KEYS_MAX: usize = 8;
/// Signatures stand at the top: further down none is looked for, in octets.
const SIGNATURES_WITHIN: usize = 64 * 1024;

/// What the verification of one signature came to, in the words of RFC 8601 section 2.7.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Pass,
    Fail,
    Neutral,
    PermError,
    TempError,
}

/// One signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SignatureFinding {
    pub(super) verdict: Verdict,
    /// Why it did not pass.
    pub(super) reason: Option<String>,
    /// d= and s= as they stand in the message; none if the signature could not be read.
    pub(super) signer: Option<(String, String)>,
}

/// What was found in a message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Findings {
    /// Top down; empty for a message without signatures.
    pub(super) signatures: Vec<SignatureFinding>,
    /// The addresses in From.
    pub(super) from: Vec<String>,
}

/// See the module.
pub(super) struct Verifier {
    store: Store,
    authenticator: Arc<MessageAuthenticator>,
}

impl Verifier {
    /// # Errors
    /// The resolver, which has no server to ask, cannot be built.
    pub(super) fn new(store: Store) -> Result<Self, NetError> {
        let nobody = ResolverConfig::from_parts(None, Vec::new(), Vec::new());
        let authenticator = MessageAuthenticator::new(nobody, ResolverOpts::default())?;
        Ok(Self {
            store,
            authenticator: Arc::new(authenticator),
        })
    }

    /// Verifies the signatures of `raw`.
    ///
    /// # Errors
    /// Of the store.
    pub(super) async fn check(&self, raw: Bytes) -> Result<Findings, StoreError> {
        let zone = self.zone(&raw).await?;
        let authenticator = self.authenticator.clone();
        let runtime = Handle::current();
        // Hashing 50 MB takes too long for the reactor.
        let work = move || verify(&raw, &zone, &authenticator, &runtime);
        Ok(tokio::task::spawn_blocking(work)
            .await
            .unwrap_or_else(|error| {
                tracing::error!(%error, "the verification of a message in the sandbox broke off");
                Findings {
                    signatures: vec![broken_off()],
                    from: Vec::new(),
                }
            }))
    }

    /// The keys that the signatures of a message name.
    async fn zone(&self, raw: &[u8]) -> Result<Zone, StoreError> {
        let mut zone = HashMap::new();
        for (name, selector, domain) in signature_keys(raw) {
            let Some(txt) = self.store.dkim_public_txt(&selector, &domain).await? else {
                continue;
            };
            let record = match DomainKey::parse(txt.as_bytes()) {
                Ok(key) => Txt::DomainKey(Arc::new(key)),
                Err(error) => Txt::Error(error),
            };
            zone.insert(name, record);
        }
        Ok(Zone(zone))
    }
}

/// DNS name, selector and domain of the keys a message needs. Reads the header only, so that no
/// body is hashed twice.
fn signature_keys(raw: &[u8]) -> Vec<(Box<str>, String, DomainName)> {
    let top = &raw[..raw.len().min(SIGNATURES_WITHIN)];
    let header_len = top
        .windows(4)
        .position(|w| w == b"\r\n\r\n")
        .map_or(top.len(), |at| at + 4);
    let Some(message) = AuthenticatedMessage::parse(&top[..header_len]) else {
        return Vec::new();
    };
    let mut keys: Vec<(Box<str>, String, DomainName)> = Vec::new();
    for header in message.dkim_headers.iter().take(KEYS_MAX) {
        let signature = &header.header;
        let name = signature.domain_key().to_ascii_lowercase().into_boxed_str();
        let known = keys.iter().any(|(other, ..)| *other == name);
        if let (false, Ok(domain)) = (known, DomainName::parse_host(&signature.d)) {
            keys.push((name, signature.s.to_ascii_lowercase(), domain));
        }
    }
    keys
}

/// Blocking.
fn verify(
    raw: &[u8],
    zone: &Zone,
    authenticator: &MessageAuthenticator,
    runtime: &Handle,
) -> Findings {
    let Some(message) = AuthenticatedMessage::parse(raw) else {
        return Findings::default();
    };
    let parameters = Parameters::new(&message).with_txt_cache(zone);
    // Never waits: the zone answers every question.
    let outputs = runtime.block_on(authenticator.verify_dkim(parameters));
    let mut signatures: Vec<_> = outputs.iter().map(finding).collect();
    signatures.extend(unreadable(&message));
    Findings {
        signatures,
        from: message.from.clone(),
    }
}

fn finding(output: &DkimOutput<'_>) -> SignatureFinding {
    let (verdict, error) = match output.result() {
        DkimResult::Pass => (Verdict::Pass, None),
        // A changed body is the plainest of failures (RFC 8601 section 2.7.1).
        DkimResult::Neutral(error @ Error::Dkim(DkimError::FailedBodyHashMatch))
        | DkimResult::Fail(error) => (Verdict::Fail, Some(error)),
        DkimResult::Neutral(error) => (Verdict::Neutral, Some(error)),
        DkimResult::PermError(error) => (Verdict::PermError, Some(error)),
        DkimResult::TempError(error) => (Verdict::TempError, Some(error)),
        DkimResult::None => (Verdict::Neutral, None),
    };
    let reason = error.map(|error| match error {
        Error::Dns(DnsError::RecordNotFound(_)) => "no such key on this platform".to_owned(),
        Error::Dkim(DkimError::FailedBodyHashMatch) => "the body was changed".to_owned(),
        Error::Crypto(_) => "the header was changed or signed with another key".to_owned(),
        other => other.to_string(),
    });
    let signer = output
        .signature()
        .map(|signature| (signature.d.clone(), signature.s.clone()));
    SignatureFinding {
        verdict,
        reason,
        signer,
    }
}

/// Signature fields that are no list of tags: the verifier passes them over, a person who wrote
/// one wants to know.
fn unreadable(message: &AuthenticatedMessage<'_>) -> impl Iterator<Item = SignatureFinding> {
    let fields = message.errors.iter().filter(|field| {
        let reported = matches!(field.header, Error::Dkim(_));
        !reported && field.name.eq_ignore_ascii_case(b"DKIM-Signature")
    });
    fields.map(|field| SignatureFinding {
        verdict: Verdict::Neutral,
        reason: Some(format!("unreadable signature: {}", field.header)),
        signer: None,
    })
}

fn broken_off() -> SignatureFinding {
    let reason = Some("the verification broke off".to_owned());
    SignatureFinding {
        verdict: Verdict::TempError,
        reason,
        signer: None,
    }
}

/// All the DNS there is, as far as the verifier can tell.
struct Zone(HashMap<Box<str>, Txt>);

impl ResolverCache<Box<str>, Txt> for Zone {
    fn get<Q>(&self, name: &Q) -> Option<Txt>
    where
        Box<str>: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let missing = || Txt::Error(Error::Dns(DnsError::RecordNotFound(ResponseCode::NXDomain)));
        Some(self.0.get(name).cloned().unwrap_or_else(missing))
    }

    fn remove<Q>(&self, _: &Q) -> Option<Txt>
    where
        Box<str>: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        None
    }

    fn insert(&self, _: Box<str>, _: Txt, _: Instant) {}
}
