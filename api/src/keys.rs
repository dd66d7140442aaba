//! API keys as text: made once, shown once, afterwards known by their SHA-256 only.
//! Stores nothing and knows no account.

use aws_lc_rs::digest;
use mail::ids::encode_base32;

const LIVE_PREFIX: &str = "pr_live_";
const TEST_PREFIX: &str = "pr_test_";
/// 256 bits in base32 are 52 digits; longer texts are no keys and not worth hashing.
const SECRET_DIGITS: std::ops::RangeInclusive<usize> = 43..=128;
/// How many of the last digits a hint shows.
const HINT_DIGITS: usize = 4;

/// Where a key reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyMode {
    /// The world.
    Live,
    /// The sandbox only.
    Test,
}

/// A new key.
#[derive(Clone)]
pub struct NewKey {
    /// The key itself: for its owner, shown once, never stored or logged.
    pub secret: String,
    /// What is stored instead.
    pub hash: [u8; 32],
    /// What lists show, such as `pr_live_…x4k9`.
    pub hint: String,
}

/// Makes the key of these 256 random bits.
pub fn generate(mode: KeyMode, random: [u8; 32]) -> NewKey {
    let prefix = match mode {
        KeyMode::Live => LIVE_PREFIX,
        KeyMode::Test => TEST_PREFIX,
    };
    let (high, low) = random.split_at(16);
    let digits = [high, low].map(|half| {
        encode_base32(
            half.iter()
                .fold(0, |bits: u128, octet| bits << 8 | u128::from(*octet)),
        )
    });
    let secret = format!("{prefix}{}{}", digits[0], digits[1]);
    let hint = format!("{prefix}…{}", &secret[secret.len() - HINT_DIGITS..]);
    NewKey {
        hash: sha256(secret.as_bytes()),
        secret,
        hint,
    }
}

/// The hash a key is looked up by; `None` when the text cannot be a key.
pub fn hash(text: &str) -> Option<[u8; 32]> {
    let digits = text
        .strip_prefix(LIVE_PREFIX)
        .or_else(|| text.strip_prefix(TEST_PREFIX))?;
    let is_digit = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (SECRET_DIGITS.contains(&digits.len()) && digits.bytes().all(is_digit))
        .then(|| sha256(text.as_bytes()))
}

fn sha256(octets: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, octets).as_ref());
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_key_is_found_by_its_hash() {
        let key = generate(KeyMode::Live, [0xa5; 32]);
        assert_eq!(key.secret.len(), "pr_live_".len() + 52);
        assert_eq!(hash(&key.secret), Some(key.hash));
        assert!(key.secret.ends_with(&key.hint[key.hint.len() - 4..]));
        assert_ne!(generate(KeyMode::Test, [0xa5; 32]).hash, key.hash);
        assert_ne!(generate(KeyMode::Live, [0xa6; 32]).secret, key.secret);
    }

    #[test]
    fn what_cannot_be_a_key_is_not_looked_up() {
        let secret = generate(KeyMode::Test, [7; 32]).secret;
        for text in [
            "",
            "pr_live_",
            "pr_live_short",
            &secret[3..],
            &format!("{secret} "),
        ] {
            assert_eq!(hash(text), None, "{text}");
        }
        assert_eq!(hash(&format!("pr_live_{}", "é".repeat(40))), None);
        assert_eq!(hash(&format!("pr_live_{}", "a".repeat(129))), None);
    }
}
