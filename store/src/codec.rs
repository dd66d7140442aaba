//! How content is compressed at rest: zstd, one context a thread, plain when that is shorter.
//! PostgreSQL compresses nothing: its own methods cost three times as much. The stored codec also
//! tells what the octets are, so that a version that does not know the kind cannot send them.

use std::cell::RefCell;

use zstd::bulk::{Compressor, Decompressor};

use crate::accept::ContentKind;
use crate::error::StoreError;

const PLAIN: i16 = 0;
const ZSTD: i16 = 1;
/// Compression is the lowest bit, the kind what is above it.
const KIND_STEP: i16 = 2;
const ZSTD_LEVEL: i32 = 1;

thread_local! {
    // A new context a body costs more than compressing the body.
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Content as it is stored; `bytes` is none when the plain form is the shorter one.
#[derive(Debug)]
pub(crate) struct Packed {
    pub(crate) codec: i16,
    pub(crate) bytes: Option<Vec<u8>>,
}

fn kind_code(kind: ContentKind) -> i16 {
    match kind {
        ContentKind::Message => 0,
        ContentKind::Entity => KIND_STEP,
        ContentKind::Template => 2 * KIND_STEP,
    }
}

/// What the octets of a stored codec are.
pub(crate) fn kind_of(codec: i16) -> Result<ContentKind, StoreError> {
    match codec.div_euclid(KIND_STEP) {
        0 => Ok(ContentKind::Message),
        1 => Ok(ContentKind::Entity),
        2 => Ok(ContentKind::Template),
        _ => Err(StoreError::corrupt("content codec", codec)),
    }
}

/// Compresses, if that helps.
pub(crate) fn pack(kind: ContentKind, plain: &[u8]) -> Packed {
    let kind = kind_code(kind);
    let compressed = COMPRESSOR.with_borrow_mut(|slot| {
        if slot.is_none() {
            *slot = Compressor::new(ZSTD_LEVEL).ok();
        }
        slot.as_mut()
            .and_then(|compressor| compressor.compress(plain).ok())
    });
    match compressed {
        Some(bytes) if bytes.len() < plain.len() => Packed {
            codec: kind + ZSTD,
            bytes: Some(bytes),
        },
        _ => Packed {
            codec: kind + PLAIN,
            bytes: None,
        },
    }
}

/// The plain octets, whose number is known.
pub(crate) fn unpack(codec: i16, stored: Vec<u8>, octets: usize) -> Result<Vec<u8>, StoreError> {
    kind_of(codec)?;
    let plain = match codec.rem_euclid(KIND_STEP) {
        PLAIN => stored,
        _ => decompress(&stored, octets)?,
    };
    if plain.len() != octets {
        return Err(StoreError::corrupt(
            "content",
            format!("{} octets, not {octets}", plain.len()),
        ));
    }
    Ok(plain)
}

fn decompress(stored: &[u8], octets: usize) -> Result<Vec<u8>, StoreError> {
    let unreadable = |error: std::io::Error| StoreError::corrupt("content", error);
    DECOMPRESSOR.with_borrow_mut(|slot| match slot {
        Some(decompressor) => decompressor.decompress(stored, octets).map_err(unreadable),
        None => {
            let decompressor = slot.insert(Decompressor::new().map_err(unreadable)?);
            decompressor.decompress(stored, octets).map_err(unreadable)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(plain: &[u8]) -> i16 {
        let packed = pack(ContentKind::Message, plain);
        let stored = packed.bytes.unwrap_or_else(|| plain.to_vec());
        assert_eq!(unpack(packed.codec, stored, plain.len()).unwrap(), plain);
        packed.codec
    }

    #[test]
    fn content_comes_back_as_it_was() {
        assert_eq!(round(b""), PLAIN);
        assert_eq!(round(b"short"), PLAIN);
        assert_eq!(round("Hello, ".repeat(500).as_bytes()), ZSTD);
    }

    #[test]
    fn the_kind_is_told_by_the_codec() {
        let kinds = [
            (ContentKind::Message, 0, 1),
            (ContentKind::Entity, 2, 3),
            (ContentKind::Template, 4, 5),
        ];
        for (kind, plain, compressed) in kinds {
            assert_eq!(pack(kind, b"short").codec, plain);
            let text = "Hello, ".repeat(500);
            let packed = pack(kind, text.as_bytes());
            assert_eq!(packed.codec, compressed);
            let bytes = unpack(packed.codec, packed.bytes.unwrap(), text.len()).unwrap();
            assert_eq!(bytes, text.as_bytes());
            assert_eq!(kind_of(plain).unwrap(), kind);
            assert_eq!(kind_of(compressed).unwrap(), kind);
        }
        assert!(kind_of(6).is_err() && kind_of(-1).is_err());
    }

    #[test]
    fn damaged_content_is_an_error() {
        assert!(unpack(ZSTD, b"not zstd".to_vec(), 10).is_err());
        assert!(unpack(PLAIN, b"abc".to_vec(), 4).is_err());
        assert!(unpack(7, b"abc".to_vec(), 3).is_err());
        let packed = pack(ContentKind::Message, "Hello, ".repeat(500).as_bytes());
        assert!(unpack(packed.codec, packed.bytes.unwrap(), 10).is_err());
    }
}
