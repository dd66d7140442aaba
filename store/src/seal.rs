//! Secrets at rest: AES-256-GCM under numbered master keys, each value bound to its place.
//! Does not know where the keys come from, and never prints them.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use thiserror::Error;

/// Why a secret could not be sealed or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SealError {
    /// The value was sealed with a master key that is not configured any more.
    #[error("master key number {0} is not configured")]
    UnknownKey(i32),
    /// Another key of that number, another place, or damaged.
    #[error("the sealed value does not open")]
    DoesNotOpen,
    /// The crypto library failed.
    #[error("the crypto library could not seal")]
    Library,
}

/// One master key of 256 bits and the number it is stored under.
#[derive(Clone)]
pub struct SealKey {
    number: i32,
    secret: [u8; 32],
}

impl SealKey {
    /// `number` must never be given to another key.
    pub fn new(number: i32, secret: [u8; 32]) -> Self {
        Self { number, secret }
    }

    /// The number sealed values are stored with.
    pub fn number(&self) -> i32 {
        self.number
    }
}

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealKey")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

/// Seals with the current master key, opens with any it knows.
#[derive(Clone)]
pub struct Sealer {
    current: i32,
    keys: Arc<HashMap<i32, RandomizedNonceKey>>,
}

impl Sealer {
    /// Seals with `current` from now on; what `older` keys sealed stays readable.
    pub fn new(current: SealKey, older: Vec<SealKey>) -> Self {
        let number = current.number;
        let keys = older.into_iter().chain([current]).map(|key| {
            let cipher = RandomizedNonceKey::new(&AES_256_GCM, &key.secret)
                .expect("AES-256 takes any key of 32 octets");
            (key.number, cipher)
        });
        Self {
            current: number,
            keys: Arc::new(keys.collect()),
        }
    }

    /// True if what this key sealed can be opened.
    pub fn knows(&self, number: i32) -> bool {
        self.keys.contains_key(&number)
    }

    /// The sealed value (random nonce, ciphertext, tag) and the number of the key. `place` is not
    /// stored: opening needs the same, so that a value copied to another row does not open there.
    ///
    /// # Errors
    /// [`SealError::Library`].
    pub fn seal(&self, plain: &[u8], place: &[u8]) -> Result<(i32, Vec<u8>), SealError> {
        let key = self
            .keys
            .get(&self.current)
            .ok_or(SealError::UnknownKey(self.current))?;
        let mut text = plain.to_vec();
        let nonce = key
            .seal_in_place_append_tag(Aad::from(place), &mut text)
            .map_err(|_| SealError::Library)?;
        let mut sealed = nonce.as_ref().to_vec();
        sealed.append(&mut text);
        Ok((self.current, sealed))
    }

    /// What was sealed under key `number` at `place`.
    ///
    /// # Errors
    /// [`SealError::UnknownKey`] or [`SealError::DoesNotOpen`].
    pub fn open(&self, number: i32, sealed: &[u8], place: &[u8]) -> Result<Vec<u8>, SealError> {
        let key = self
            .keys
            .get(&number)
            .ok_or(SealError::UnknownKey(number))?;
        let (nonce, text) = sealed
            .split_first_chunk::<NONCE_LEN>()
            .ok_or(SealError::DoesNotOpen)?;
        let mut text = text.to_vec();
        let plain = key
            .open_in_place(Nonce::from(nonce), Aad::from(place), &mut text)
            .map_err(|_| SealError::DoesNotOpen)?;
        Ok(plain.to_vec())
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer")
            .field("current", &self.current)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: i32) -> SealKey {
        SealKey::new(number, [number as u8; 32])
    }

    #[test]
    fn a_secret_opens_only_at_its_place() {
        let sealer = Sealer::new(key(1), vec![]);
        let (number, sealed) = sealer.seal(b"secret", b"row 1").unwrap();
        assert_eq!(sealer.open(number, &sealed, b"row 1").unwrap(), b"secret");
        assert_eq!(
            sealer.open(number, &sealed, b"row 2"),
            Err(SealError::DoesNotOpen)
        );
        assert!(!sealed.windows(6).any(|window| window == b"secret"));
    }

    #[test]
    fn after_a_rotation_old_secrets_still_open() {
        let (number, sealed) = Sealer::new(key(1), vec![]).seal(b"secret", b"").unwrap();
        let rotated = Sealer::new(key(2), vec![key(1)]);
        assert_eq!(rotated.open(number, &sealed, b"").unwrap(), b"secret");
        assert_eq!(rotated.seal(b"x", b"").unwrap().0, 2);
        assert_eq!(rotated.open(3, &sealed, b""), Err(SealError::UnknownKey(3)));
        assert_eq!(rotated.open(2, &sealed, b""), Err(SealError::DoesNotOpen));
    }

    #[test]
    fn the_same_secret_is_sealed_differently_each_time() {
        let sealer = Sealer::new(key(1), vec![]);
        assert_ne!(
            sealer.seal(b"secret", b"").unwrap(),
            sealer.seal(b"secret", b"").unwrap()
        );
    }

    #[test]
    fn damage_and_shortness_are_noticed() {
        let sealer = Sealer::new(key(1), vec![]);
        let (_, mut sealed) = sealer.seal(b"secret", b"").unwrap();
        assert_eq!(
            sealer.open(1, &sealed[..5], b""),
            Err(SealError::DoesNotOpen)
        );
        assert_eq!(
            sealer.open(1, &sealed[..13], b""),
            Err(SealError::DoesNotOpen)
        );
        sealed[20] ^= 1;
        assert_eq!(sealer.open(1, &sealed, b""), Err(SealError::DoesNotOpen));
    }

    #[test]
    fn keys_are_not_printed() {
        assert_eq!(format!("{:?}", key(7)), "SealKey { number: 7, .. }");
    }
}
