//! The return path of a delivery: a local part that carries the delivery id and proves that we
//! made it, so that a forged bounce can suppress nobody.
//!
//! `b-` + delivery id (26) + key number (2) + tag (16), all base32: 46 octets of `[a-z0-9-]`.
//! The same delivery and key always give the same token (greylisting compares return paths).
//! Lower case only, and read in any case: relays on the way do change it.

use std::fmt;

use aws_lc_rs::{constant_time, hmac};

use crate::ids::DeliveryId;

const PREFIX: &str = "b-";
const ID_LEN: usize = 26;
const KEY_LEN: usize = 2;
const TAG_LEN: usize = 16;
/// Octets of the HMAC that are kept: 80 bits, of which a forger guesses one in 10^24.
const TAG_OCTETS: usize = 10;
const TOKEN_LEN: usize = PREFIX.len() + ID_LEN + KEY_LEN + TAG_LEN;
/// Sets these tags apart from everything else that may be signed with the same secret.
const PURPOSE: &[u8] = b"postrider return path 1";
/// Crockford's alphabet in lower case, as in the ids.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// A numbered secret. Tokens name their key, so keys can be replaced while old bounces come in.
pub struct VerpKey {
    number: u8,
    secret: hmac::Key,
}

impl VerpKey {
    /// A key from its 32 secret octets.
    pub fn new(number: u8, secret: &[u8; 32]) -> Self {
        Self {
            number,
            secret: hmac::Key::new(hmac::HMAC_SHA256, secret),
        }
    }

    /// The number that tokens of this key carry.
    pub fn number(&self) -> u8 {
        self.number
    }

    fn tag(&self, delivery: DeliveryId) -> [u8; TAG_OCTETS] {
        let mut context = hmac::Context::with_key(&self.secret);
        context.update(PURPOSE);
        context.update(&[self.number]);
        context.update(delivery.uuid().as_bytes());
        let mut tag = [0; TAG_OCTETS];
        tag.copy_from_slice(&context.sign().as_ref()[..TAG_OCTETS]);
        tag
    }
}

impl fmt::Debug for VerpKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerpKey({})", self.number)
    }
}

/// Why a local part is not a return path of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VerpError {
    /// It has not the form of a token: mail to another address of the domain.
    #[error("not a return path token")]
    NotAToken,
    /// The key it names is not held (any more).
    #[error("the return path token names the unknown key {0}")]
    UnknownKey(u8),
    /// Form and key are right, the tag is not: forged or damaged.
    #[error("the return path token is forged")]
    Forged,
}

/// The local part of the return path of `delivery`.
pub fn encode(delivery: DeliveryId, key: &VerpKey) -> String {
    let mut token = String::with_capacity(TOKEN_LEN);
    token.push_str(PREFIX);
    token.push_str(&delivery.digits());
    push_base32(&mut token, &[key.number]);
    push_base32(&mut token, &key.tag(delivery));
    token
}

/// The delivery that a local part was made for, if one of `keys` made it.
///
/// # Errors
/// A [`VerpError`].
pub fn decode(local_part: &str, keys: &[VerpKey]) -> Result<DeliveryId, VerpError> {
    if local_part.len() != TOKEN_LEN || !local_part.is_ascii() {
        return Err(VerpError::NotAToken);
    }
    let token = local_part.to_ascii_lowercase();
    let body = token.strip_prefix(PREFIX).ok_or(VerpError::NotAToken)?;
    let (id, rest) = body.split_at(ID_LEN);
    let (number, tag) = rest.split_at(KEY_LEN);
    let delivery: DeliveryId = format!("dlv_{id}")
        .parse()
        .map_err(|_| VerpError::NotAToken)?;
    let [number] = octets_of_base32(number).ok_or(VerpError::NotAToken)?;
    let tag: [u8; TAG_OCTETS] = octets_of_base32(tag).ok_or(VerpError::NotAToken)?;
    let mut matching = keys.iter().filter(|key| key.number == number).peekable();
    if matching.peek().is_none() {
        return Err(VerpError::UnknownKey(number));
    }
    matching
        .find(|key| constant_time::verify_slices_are_equal(&key.tag(delivery), &tag).is_ok())
        .map(|_| delivery)
        .ok_or(VerpError::Forged)
}

/// The delivery that a local part claims to be made for, of whoever holds no key: says nothing
/// about who made it.
pub fn claimed(local_part: &str) -> Option<DeliveryId> {
    if local_part.len() != TOKEN_LEN || !local_part.is_ascii() {
        return None;
    }
    let token = local_part.to_ascii_lowercase();
    let id = token.strip_prefix(PREFIX)?.get(..ID_LEN)?;
    format!("dlv_{id}").parse().ok()
}

/// Base32, five bits a character from the top, the last character filled with zero bits.
fn push_base32(text: &mut String, octets: &[u8]) {
    let (mut bits, mut held) = (0_u32, 0_u32);
    for octet in octets {
        bits = (bits << 8) | u32::from(*octet);
        held += 8;
        while held >= 5 {
            held -= 5;
            text.push(char::from(ALPHABET[((bits >> held) & 31) as usize]));
        }
    }
    if held > 0 {
        text.push(char::from(ALPHABET[((bits << (5 - held)) & 31) as usize]));
    }
}

/// Exactly `N` octets; none when a character is foreign or filling bits are set, so that each
/// value has one spelling.
fn octets_of_base32<const N: usize>(text: &str) -> Option<[u8; N]> {
    let (mut bits, mut held) = (0_u32, 0_u32);
    let mut octets = [0; N];
    let mut filled = 0;
    for character in text.bytes() {
        let value = ALPHABET.iter().position(|known| *known == character)?;
        bits = (bits << 5) | u32::try_from(value).ok()?;
        held += 5;
        if held >= 8 {
            held -= 8;
            *octets.get_mut(filled)? = u8::try_from((bits >> held) & 255).ok()?;
            filled += 1;
        }
    }
    let filling = bits & ((1 << held) - 1);
    (filled == N && filling == 0).then_some(octets)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(number: u8) -> VerpKey {
        VerpKey::new(number, &[number; 32])
    }

    /// The last ten bits count recipients from 1: with none set it would be a message's id.
    fn delivery(bits: u128) -> DeliveryId {
        DeliveryId::from_uuid(uuid::Uuid::from_u128(bits | 1))
    }

    #[test]
    fn a_token_fits_every_mail_system_and_does_not_change() {
        let token = encode(delivery(77), &key(3));
        assert_eq!(token.len(), 46);
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        assert!(token.bytes().all(plain), "{token}");
        assert_eq!(token, encode(delivery(77), &key(3)));
        assert_ne!(token, encode(delivery(77), &key(4)));
    }

    #[test]
    fn old_keys_still_read_their_tokens() {
        let token = encode(delivery(5), &key(1));
        assert_eq!(decode(&token, &[key(2), key(1)]), Ok(delivery(5)));
        assert_eq!(decode(&token, &[key(2)]), Err(VerpError::UnknownKey(1)));
        assert_eq!(decode(&token, &[]), Err(VerpError::UnknownKey(1)));
    }

    #[test]
    fn a_key_with_the_same_number_and_another_secret_is_no_help() {
        let token = encode(delivery(5), &key(1));
        let other = VerpKey::new(1, &[9; 32]);
        assert_eq!(decode(&token, &[other]), Err(VerpError::Forged));
    }

    #[test]
    fn other_local_parts_are_not_tokens() {
        for local_part in ["", "postmaster", "b-", "dmarc-reports", &"b-".repeat(23)] {
            let read = decode(local_part, &[key(1)]);
            assert_eq!(read, Err(VerpError::NotAToken), "{local_part:?}");
        }
    }

    proptest! {
        #[test]
        fn tokens_lead_back_in_any_case(bits in any::<u128>(), number in any::<u8>()) {
            let token = encode(delivery(bits), &key(number));
            prop_assert_eq!(decode(&token, &[key(number)]), Ok(delivery(bits)));
            let shouted = token.to_ascii_uppercase();
            prop_assert_eq!(decode(&shouted, &[key(number)]), Ok(delivery(bits)));
        }

        #[test]
        fn one_changed_character_is_noticed(bits in any::<u128>(), place in 2_usize..46, by in 1_usize..32) {
            let token = encode(delivery(bits), &key(1));
            let mut bytes = token.clone().into_bytes();
            let old = ALPHABET.iter().position(|c| *c == bytes[place]).unwrap();
            bytes[place] = ALPHABET[(old + by) % 32];
            let forged = String::from_utf8(bytes).unwrap();
            prop_assert!(decode(&forged, &[key(1)]).is_err());
        }

        #[test]
        fn nothing_panics(text in "\\PC{0,60}|b-[0-9a-zA-Z]{44}") {
            let _ = decode(&text, &[key(1)]);
        }
    }
}
