//! DKIM signing keys: RSA and Ed25519, made here or brought along, and the TXT record of each.
//!
//! Keeps private keys in memory only and never prints them; encrypting them for storage is the
//! caller's duty.

use std::fmt;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256};
use aws_lc_rs::{digest, rsa};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

/// The two algorithms of RFC 8463 section 1 (rsa-sha1 is forbidden by RFC 8301).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyAlgorithm {
    /// rsa-sha256: what every receiver can verify.
    Rsa,
    /// ed25519-sha256: only beside an RSA signature, few receivers verify it.
    Ed25519,
}

impl KeyAlgorithm {
    /// The value of `a=` in a signature.
    pub fn signature_tag(self) -> &'static str {
        match self {
            Self::Rsa => "rsa-sha256",
            Self::Ed25519 => "ed25519-sha256",
        }
    }
}

/// Why a key could not be made, read or used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DkimKeyError {
    /// Neither PKCS#8 (RSA of 2048 to 8192 bits, Ed25519) nor PKCS#1.
    #[error("not an RSA key of at least 2048 bits nor an Ed25519 key, in PKCS#8 or PKCS#1")]
    Unreadable,
    /// The text between the PEM lines is not base64, or there is no such text.
    #[error("the PEM text holds no readable private key")]
    BadPem,
    /// The crypto library could not make a key.
    #[error("could not generate a key")]
    Generate,
    /// The crypto library could not write the key.
    #[error("could not encode the key")]
    Encode,
    /// The crypto library could not sign.
    #[error("could not sign")]
    Sign,
}

/// A private key that signs mail.
pub struct SigningKey(Pair);

enum Pair {
    Rsa(rsa::KeyPair),
    Ed25519(Ed25519KeyPair),
}

impl SigningKey {
    /// A new RSA key of 2048 bits: larger ones do not fit one TXT string and gain little.
    ///
    /// # Errors
    /// [`DkimKeyError::Generate`] when the library fails.
    pub fn generate_rsa_2048() -> Result<Self, DkimKeyError> {
        rsa::KeyPair::generate(rsa::KeySize::Rsa2048)
            .map(|pair| Self(Pair::Rsa(pair)))
            .map_err(|_| DkimKeyError::Generate)
    }

    /// A new Ed25519 key.
    ///
    /// # Errors
    /// [`DkimKeyError::Generate`] when the library fails.
    pub fn generate_ed25519() -> Result<Self, DkimKeyError> {
        Ed25519KeyPair::generate()
            .map(|pair| Self(Pair::Ed25519(pair)))
            .map_err(|_| DkimKeyError::Generate)
    }

    /// The Ed25519 key of this 32 octet seed (RFC 8032).
    ///
    /// # Errors
    /// [`DkimKeyError::Unreadable`] when the library refuses it.
    pub fn from_ed25519_seed(seed: &[u8; 32]) -> Result<Self, DkimKeyError> {
        Ed25519KeyPair::from_seed_unchecked(seed)
            .map(|pair| Self(Pair::Ed25519(pair)))
            .map_err(|_| DkimKeyError::Unreadable)
    }

    /// Reads a private key in PEM or DER, PKCS#8 or PKCS#1, whichever it is: tools disagree about
    /// which of them they write, so the caller cannot be asked.
    ///
    /// # Errors
    /// [`DkimKeyError::BadPem`] or [`DkimKeyError::Unreadable`].
    pub fn from_pem_or_der(bytes: &[u8]) -> Result<Self, DkimKeyError> {
        if bytes.trim_ascii_start().starts_with(b"-----BEGIN") {
            Self::from_der(&pem_to_der(bytes)?)
        } else {
            Self::from_der(bytes)
        }
    }

    fn from_der(der: &[u8]) -> Result<Self, DkimKeyError> {
        rsa::KeyPair::from_pkcs8(der)
            .or_else(|_| rsa::KeyPair::from_der(der))
            .map(Pair::Rsa)
            .or_else(|_| Ed25519KeyPair::from_pkcs8(der).map(Pair::Ed25519))
            .map(Self)
            .map_err(|_| DkimKeyError::Unreadable)
    }

    /// The private key in PKCS#8 DER, which [`Self::from_pem_or_der`] reads back.
    ///
    /// # Errors
    /// [`DkimKeyError::Encode`] when the library fails.
    pub fn to_pkcs8_der(&self) -> Result<Vec<u8>, DkimKeyError> {
        let der: Pkcs8V1Der<'static> = match &self.0 {
            Pair::Rsa(pair) => pair.as_der(),
            Pair::Ed25519(pair) => pair.as_der(),
        }
        .map_err(|_| DkimKeyError::Encode)?;
        Ok(der.as_ref().to_vec())
    }

    /// Which algorithm this key signs with.
    pub fn algorithm(&self) -> KeyAlgorithm {
        match self.0 {
            Pair::Rsa(_) => KeyAlgorithm::Rsa,
            Pair::Ed25519(_) => KeyAlgorithm::Ed25519,
        }
    }

    /// The text of the `selector._domainkey` TXT record (RFC 6376 section 3.6.1, RFC 8463
    /// section 4: RSA as SubjectPublicKeyInfo, Ed25519 as the bare 32 octets).
    ///
    /// # Errors
    /// [`DkimKeyError::Encode`] when the library fails.
    pub fn public_txt(&self) -> Result<String, DkimKeyError> {
        match &self.0 {
            Pair::Rsa(pair) => {
                let der: PublicKeyX509Der<'static> = pair
                    .public_key()
                    .as_der()
                    .map_err(|_| DkimKeyError::Encode)?;
                Ok(format!("v=DKIM1; k=rsa; p={}", BASE64.encode(der.as_ref())))
            }
            Pair::Ed25519(pair) => {
                let octets = pair.public_key().as_ref();
                Ok(format!("v=DKIM1; k=ed25519; p={}", BASE64.encode(octets)))
            }
        }
    }

    /// The raw signature of these octets. Ed25519 signs their SHA-256 (RFC 8463 section 3).
    ///
    /// # Errors
    /// [`DkimKeyError::Sign`] when the library fails.
    pub fn sign(&self, octets: &[u8]) -> Result<Vec<u8>, DkimKeyError> {
        match &self.0 {
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(
                    &RSA_PKCS1_SHA256,
                    &SystemRandom::new(),
                    octets,
                    &mut signature,
                )
                .map_err(|_| DkimKeyError::Sign)?;
                Ok(signature)
            }
            Pair::Ed25519(pair) => {
                let hash = digest::digest(&digest::SHA256, octets);
                let signature = pair.try_sign(hash.as_ref());
                Ok(signature.map_err(|_| DkimKeyError::Sign)?.as_ref().to_vec())
            }
        }
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.algorithm().signature_tag())
    }
}

/// The DER inside the first PEM block whose label ends in `PRIVATE KEY`.
fn pem_to_der(pem: &[u8]) -> Result<Vec<u8>, DkimKeyError> {
    let text = str::from_utf8(pem).map_err(|_| DkimKeyError::BadPem)?;
    let (_, after_label) = text
        .split_once("PRIVATE KEY-----")
        .ok_or(DkimKeyError::BadPem)?;
    let (inside, _) = after_label
        .split_once("-----END")
        .ok_or(DkimKeyError::BadPem)?;
    let packed: String = inside.split_ascii_whitespace().collect();
    BASE64.decode(packed).map_err(|_| DkimKeyError::BadPem)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pem(label: &str, der: &[u8]) -> String {
        let text = BASE64.encode(der);
        let lines: Vec<&str> = text
            .as_bytes()
            .chunks(64)
            .map(|chunk| str::from_utf8(chunk).unwrap())
            .collect();
        format!(
            "-----BEGIN {label}-----\r\n{}\n-----END {label}-----\n",
            lines.join("\n")
        )
    }

    /// PKCS#8 of an RSA key wraps its PKCS#1 form in an OCTET STRING: 26 octets in for 2048 bits.
    const PKCS1_OFFSET: usize = 26;

    #[test]
    fn an_rsa_key_survives_every_form_of_import() {
        let key = SigningKey::generate_rsa_2048().unwrap();
        let txt = key.public_txt().unwrap();
        assert!(txt.starts_with("v=DKIM1; k=rsa; p=MIIBIjANBg"));
        let pkcs8 = key.to_pkcs8_der().unwrap();
        let pkcs1 = &pkcs8[PKCS1_OFFSET..];
        for form in [
            pkcs8.clone(),
            pkcs1.to_vec(),
            pem("PRIVATE KEY", &pkcs8).into_bytes(),
            pem("RSA PRIVATE KEY", pkcs1).into_bytes(),
        ] {
            let read = SigningKey::from_pem_or_der(&form).unwrap();
            assert_eq!(read.algorithm(), KeyAlgorithm::Rsa);
            assert_eq!(read.public_txt().unwrap(), txt);
        }
    }

    #[test]
    fn an_ed25519_key_survives_storage() {
        let key = SigningKey::generate_ed25519().unwrap();
        let read = SigningKey::from_pem_or_der(&key.to_pkcs8_der().unwrap()).unwrap();
        assert_eq!(read.public_txt(), key.public_txt());
        assert_eq!(read.sign(b"x"), key.sign(b"x"));
    }

    #[test]
    fn rubbish_is_refused_with_its_reason() {
        let check = |bytes: &[u8]| SigningKey::from_pem_or_der(bytes).unwrap_err();
        assert_eq!(check(b""), DkimKeyError::Unreadable);
        assert_eq!(check(&[0x30; 300]), DkimKeyError::Unreadable);
        assert_eq!(
            check(b"-----BEGIN PRIVATE KEY-----\nAAAA"),
            DkimKeyError::BadPem
        );
        let public = pem("PUBLIC KEY", b"x");
        assert_eq!(check(public.as_bytes()), DkimKeyError::BadPem);
    }

    #[test]
    fn a_private_key_is_never_printed() {
        let key = SigningKey::from_ed25519_seed(&[7; 32]).unwrap();
        assert_eq!(format!("{key:?}"), "SigningKey(ed25519-sha256)");
    }
}
