//! From a queue row to what goes on the wire: envelope, header block of this delivery, stored bytes.
//! Trouble here is our own and never counts as an attempt.

use std::sync::Arc;

use mail::address::EmailAddress;
use mail::domain_name::DomainName;
use mail::envelope::{Envelope, ReversePath};
use mail::verp;
use store::{MessageFlags, QueueRow, StoreError, StoredMessage};
use thiserror::Error;
use time::Duration;

use crate::node::Node;

/// Signatures are good for this long: retries end earlier, replays should.
const SIGNATURE_LIFE: Duration = Duration::days(14);

/// Ready to be sent.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) envelope: Envelope,
    /// Goes before the stored bytes: the DKIM signature.
    pub(crate) header_block: Vec<u8>,
    pub(crate) message: Arc<StoredMessage>,
}

impl Prepared {
    pub(crate) fn requires_tls(&self) -> bool {
        self.message.flags.contains(MessageFlags::REQUIRE_TLS)
    }

    pub(crate) fn needs_smtputf8(&self) -> bool {
        self.message.flags.contains(MessageFlags::SMTPUTF8)
    }
}

/// Why a delivery cannot even be tried.
#[derive(Debug, Error)]
pub(crate) enum OwnFault {
    /// PostgreSQL is away: the same again in a moment.
    #[error("PostgreSQL cannot be asked for the message")]
    Unavailable(#[source] StoreError),
    #[error("the message or its content is missing")]
    ContentMissing,
    #[error("a stored address cannot be read any more: {0}")]
    Address(String),
    #[error("the sender's domain has no usable DKIM key; add one and the mail goes by itself")]
    NoDkimKey,
    #[error("the DKIM key cannot be read: {0}")]
    DkimKey(#[source] StoreError),
    #[error("signing failed: {0}")]
    Signing(String),
}

impl OwnFault {
    /// The word in metrics.
    pub(crate) fn cause(&self) -> &'static str {
        match self {
            Self::Unavailable(_) => "unavailable",
            Self::ContentMissing => "content_missing",
            Self::Address(_) => "address",
            Self::NoDkimKey => "no_dkim_key",
            Self::DkimKey(_) => "dkim_key",
            Self::Signing(_) => "signing",
        }
    }
}

/// Why a delivery is not tried.
#[derive(Debug)]
pub(crate) enum NotPrepared {
    /// Its recipient was put on the suppression list since it was accepted.
    Suppressed,
    Fault(OwnFault),
}

impl From<OwnFault> for NotPrepared {
    fn from(fault: OwnFault) -> Self {
        Self::Fault(fault)
    }
}

/// Fetches, addresses and signs.
pub(crate) async fn prepare(node: &Node, row: &QueueRow) -> Result<Prepared, NotPrepared> {
    let message = node
        .contents
        .get(row.key.message)
        .await
        .map_err(OwnFault::Unavailable)?;
    let message = message.ok_or(OwnFault::ContentMissing)?;
    if message.is_suppressed(row.key.rcpt, node.clock.now()) {
        return Err(NotPrepared::Suppressed);
    }
    let domain = return_path_domain(node, row, &message).await?;
    let envelope = envelope(node, row, &message, &domain)?;
    let header_block = sign(node, &message).await?;
    Ok(Prepared {
        envelope,
        header_block,
        message,
    })
}

/// The sending domain's own subdomain, so that SPF aligns (RFC 7208 section 2.4), where it leads here
/// since before the delivery was due first; else the platform's. What is found later changes no
/// delivery that has begun.
async fn return_path_domain(
    node: &Node,
    row: &QueueRow,
    message: &StoredMessage,
) -> Result<DomainName, OwnFault> {
    let sender = node
        .store
        .sender_domain_by_no(message.domain)
        .await
        .map_err(OwnFault::Unavailable)?;
    let own = sender.and_then(|sender| sender.return_path);
    Ok(match own {
        Some(own) if own.from <= row.first_at => own.domain,
        _ => node.config.return_path.domain.clone(),
    })
}

/// The reverse-path names the delivery and stays the same over its attempts, or greylisting would
/// see a new sender each time.
fn envelope(
    node: &Node,
    row: &QueueRow,
    message: &StoredMessage,
    domain: &DomainName,
) -> Result<Envelope, OwnFault> {
    let parse = |text: &str| {
        EmailAddress::parse(text).map_err(|error| OwnFault::Address(format!("{text}: {error}")))
    };
    let recipient = message.recipients.get(usize::from(row.key.rcpt));
    let recipient = parse(recipient.ok_or(OwnFault::ContentMissing)?)?;
    let key = &node.config.return_path.key;
    let token = verp::encode(row.key.message.delivery(row.key.rcpt), key);
    let reverse_path = ReversePath::Address(parse(&format!("{token}@{domain}"))?);
    Ok(Envelope::new(reverse_path, recipient))
}

/// DKIM on the CPU pool: a 2048-bit RSA signature takes a quarter of a millisecond, too long for
/// the reactor.
async fn sign(node: &Node, message: &Arc<StoredMessage>) -> Result<Vec<u8>, OwnFault> {
    let signers = node
        .store
        .dkim_signers(message.domain, &node.sealer)
        .await
        .map_err(|error| {
            if error.is_unavailable() {
                OwnFault::Unavailable(error)
            } else {
                OwnFault::DkimKey(error)
            }
        })?;
    if signers.is_empty() {
        return Err(OwnFault::NoDkimKey);
    }
    let now = node.clock.now();
    let message = message.clone();
    let work = move || {
        let shared = message.bytes.get(..message.header_len).unwrap_or_default();
        // The empty line before the body is no header.
        let shared = match shared.strip_suffix(b"\r\n\r\n") {
            Some(fields) => &shared[..fields.len() + 2],
            None => shared,
        };
        let headers = [message.header.as_bytes(), shared].concat();
        let expires = (now + SIGNATURE_LIFE).unix_timestamp();
        signers[0].sign(
            &headers,
            &message.body_hash,
            now.unix_timestamp(),
            Some(expires),
        )
    };
    let _turn = node.signatures.acquire().await;
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(signature)) => Ok(signature.into_bytes()),
        Ok(Err(error)) => Err(OwnFault::Signing(error.to_string())),
        Err(error) => Err(OwnFault::Signing(error.to_string())),
    }
}
