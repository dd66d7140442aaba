//! Signatures of webhook calls, as the Standard Webhooks specification has them, so that every
//! library that verifies those verifies ours. Pure; secrets come in opened.

use std::fmt;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mail::ids::EventId;
use time::OffsetDateTime;

/// What the text form of a secret begins with.
const SECRET_PREFIX: &str = "whsec_";

/// The header names; both families carry the same values, because most receivers in the field
/// know only the second.
const FAMILIES: [[&str; 3]; 2] = [
    ["webhook-id", "webhook-timestamp", "webhook-signature"],
    ["svix-id", "svix-timestamp", "svix-signature"],
];

/// The secret of an endpoint in the form its owner keeps: `whsec_` and base64.
pub fn secret_text(secret: &[u8]) -> String {
    format!("{SECRET_PREFIX}{}", STANDARD.encode(secret))
}

/// The values of the three signature headers of one call.
#[derive(Clone, PartialEq, Eq)]
pub struct Signature {
    id: String,
    timestamp_secs: String,
    signatures: String,
}

impl Signature {
    /// Signs `body` with each secret: base64 of HMAC-SHA256 over `id.timestamp.body`, marked as
    /// version 1. While a secret is replaced there are two: receivers take either.
    /// `at` is the time of this call and not of the event: receivers refuse what is old.
    pub fn new<'a>(
        secrets: impl IntoIterator<Item = &'a [u8]>,
        event: EventId,
        at: OffsetDateTime,
        body: &[u8],
    ) -> Self {
        Self::of_text(secrets, event.to_string(), at.unix_timestamp(), body)
    }

    fn of_text<'a>(
        secrets: impl IntoIterator<Item = &'a [u8]>,
        id: String,
        unix_secs: i64,
        body: &[u8],
    ) -> Self {
        let timestamp_secs = unix_secs.to_string();
        let pieces = [id.as_bytes(), b".", timestamp_secs.as_bytes(), b".", body];
        let sign = |secret: &[u8]| {
            let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
            let mut signed = hmac::Context::with_key(&key);
            pieces.iter().for_each(|piece| signed.update(piece));
            format!("v1,{}", STANDARD.encode(signed.sign()))
        };
        let signatures: Vec<String> = secrets.into_iter().map(sign).collect();
        let signatures = signatures.join(" ");
        Self {
            id,
            timestamp_secs,
            signatures,
        }
    }

    /// Names and values, ready for a request.
    pub fn headers(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let values = [self.id.as_str(), &self.timestamp_secs, &self.signatures];
        FAMILIES
            .into_iter()
            .flat_map(move |names| names.into_iter().zip(values))
    }
}

impl fmt::Debug for Signature {
    /// Without the signature: with it, a log line could be replayed to the endpoint.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signature")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example that the Standard Webhooks libraries test themselves with.
    const SECRET: &str = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    #[test]
    fn the_published_example_gives_the_published_signature() {
        let secret = STANDARD.decode(SECRET).unwrap();
        let body = br#"{"test": 2432232314}"#;
        let id = "msg_p5jXN8AQM9LWM0D4loKWxJek".to_owned();
        let signature = Signature::of_text([secret.as_slice()], id, 1_614_265_330, body);
        assert_eq!(
            signature.signatures,
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
        assert_eq!(secret_text(&secret), format!("whsec_{SECRET}"));
    }

    #[test]
    fn both_header_families_carry_the_same_values() {
        let event = EventId::from_uuid(uuid::Uuid::from_u128(7));
        let signature = Signature::new(
            [b"key".as_slice()],
            event,
            OffsetDateTime::UNIX_EPOCH,
            b"{}",
        );
        let headers: Vec<(&str, &str)> = signature.headers().collect();
        assert_eq!(headers.len(), 6);
        assert_eq!(headers[0], ("webhook-id", "evt_00000000000000000000000007"));
        assert_eq!(headers[1], ("webhook-timestamp", "0"));
        for (standard, svix) in headers[..3].iter().zip(&headers[3..]) {
            assert_eq!(standard.0.replace("webhook", "svix"), svix.0);
            assert_eq!(standard.1, svix.1);
        }
    }

    #[test]
    fn every_part_is_signed() {
        let at = OffsetDateTime::UNIX_EPOCH;
        let event = |bits| EventId::from_uuid(uuid::Uuid::from_u128(bits));
        let base = Signature::new([b"key".as_slice()], event(1), at, b"{}").signatures;
        let second = time::Duration::SECOND;
        for other in [
            Signature::new([b"kez".as_slice()], event(1), at, b"{}"),
            Signature::new([b"key".as_slice()], event(2), at, b"{}"),
            Signature::new([b"key".as_slice()], event(1), at + second, b"{}"),
            Signature::new([b"key".as_slice()], event(1), at, b"{ }"),
        ] {
            assert_ne!(base, other.signatures);
        }
    }

    #[test]
    fn each_secret_signs_and_a_space_is_between() {
        let event = EventId::from_uuid(uuid::Uuid::from_u128(7));
        let at = OffsetDateTime::UNIX_EPOCH;
        let of = |secrets: &[&[u8]]| {
            Signature::new(secrets.iter().copied(), event, at, b"{}").signatures
        };
        let (new, old) = (of(&[b"new"]), of(&[b"old"]));
        assert_eq!(of(&[b"new", b"old"]), format!("{new} {old}"));
    }

    #[test]
    fn a_logged_signature_cannot_be_replayed() {
        let event = EventId::from_uuid(uuid::Uuid::from_u128(7));
        let signature = Signature::new(
            [b"key".as_slice()],
            event,
            OffsetDateTime::UNIX_EPOCH,
            b"{}",
        );
        assert!(!format!("{signature:?}").contains("v1,"));
    }
}
