//! The header `Idempotency-Key`: what makes two requests the same request.
//! Remembers nothing: the unique row in PostgreSQL decides who was first.

use std::convert::Infallible;

use aws_lc_rs::digest;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName};

use crate::auth::Principal;
use crate::problem::{Code, Problem};

const NAME: HeaderName = HeaderName::from_static("idempotency-key");
/// Set on an answer that was given before.
pub(crate) const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
const KEY_MAX: usize = 256;

/// The header as it arrived; looked at only after the caller is known.
pub(crate) struct IdempotencyHeader(Result<Option<String>, Problem>);

impl IdempotencyHeader {
    /// The key, if one was given.
    ///
    /// # Errors
    /// Not 1 to 256 visible ASCII characters, or given twice.
    pub(crate) fn key(self) -> Result<Option<String>, Problem> {
        self.0
    }
}

impl<S: Sync> FromRequestParts<S> for IdempotencyHeader {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(parse(&parts.headers)))
    }
}

fn parse(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let refuse = |detail: &str| Problem::new(Code::InvalidIdempotencyKey, detail);
    let mut given = headers.get_all(NAME).iter();
    let Some(value) = given.next() else {
        return Ok(None);
    };
    if given.next().is_some() {
        return Err(refuse("Idempotency-Key is given more than once"));
    }
    let octets = value.as_bytes();
    if !(1..=KEY_MAX).contains(&octets.len()) || !octets.iter().all(u8::is_ascii_graphic) {
        return Err(refuse(
            "Idempotency-Key must be 1 to 256 visible ASCII characters",
        ));
    }
    Ok(Some(octets.iter().copied().map(char::from).collect()))
}

/// What is stored for a key: live and test keys of an account, and different paths, never meet.
/// The account itself is another column of the same row.
pub(crate) fn key_hash(principal: &Principal, path: &str, key: &str) -> [u8; 32] {
    let mode: &[u8] = if principal.test { b"test" } else { b"live" };
    // No part holds a NUL, so no two lists of parts read alike.
    hash(&[mode, b"\0", path.as_bytes(), b"\0", key.as_bytes()])
}

/// SHA-256 of a request body.
pub(crate) fn body_hash(body: &[u8]) -> [u8; 32] {
    hash(&[body])
}

/// SHA-256 of everything that makes a request what it is, when that is more than its body. The
/// length of each part is hashed too: no two lists of parts are alike.
pub(crate) fn request_hash(parts: &[&[u8]]) -> [u8; 32] {
    let lengths: Vec<u8> = parts
        .iter()
        .flat_map(|part| (part.len() as u64).to_be_bytes())
        .collect();
    let all: Vec<&[u8]> = std::iter::once(lengths.as_slice())
        .chain(parts.iter().copied())
        .collect();
    hash(&all)
}

fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(part);
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use store::AccountNo;

    use super::*;

    #[test]
    fn a_key_is_visible_ascii_and_given_once() {
        let check = |values: &[&[u8]], good: bool| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(NAME, HeaderValue::from_bytes(value).unwrap());
            }
            assert_eq!(parse(&headers).is_ok(), good, "{values:?}");
        };
        check(&[], true);
        check(&[b"order-7"], true);
        check(&[&[b'k'; 256]], true);
        check(&[b""], false);
        check(&[b"two words"], false);
        check(&["clé".as_bytes()], false);
        check(&[&[b'k'; 257]], false);
        check(&[b"a", b"a"], false);
    }

    #[test]
    fn no_two_lists_of_parts_are_alike() {
        let hash = request_hash;
        assert_eq!(hash(&[b"a", b"bc"]), hash(&[b"a", b"bc"]));
        assert_ne!(hash(&[b"a", b"bc"]), hash(&[b"ab", b"c"]));
        assert_ne!(hash(&[b"a", b""]), hash(&[b"", b"a"]));
    }

    #[test]
    fn modes_and_paths_have_keys_of_their_own() {
        let of = |test, path, key| key_hash(&Principal::of(AccountNo(1), test), path, key);
        assert_eq!(of(true, "/a", "k"), of(true, "/a", "k"));
        assert_ne!(of(true, "/a", "k"), of(false, "/a", "k"));
        assert_ne!(of(true, "/a", "k"), of(true, "/b", "k"));
        assert_ne!(of(true, "/a", "k"), of(true, "/a", "l"));
    }
}
