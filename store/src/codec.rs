//! How content is compressed at rest: zstd, one context a thread, plain when that is shorter.
//! PostgreSQL compresses nothing: its own methods cost three times as much.

use std::cell::RefCell;

use zstd::bulk::{Compressor, Decompressor};

use crate::error::StoreError;

const PLAIN: i16 = 0;
const ZSTD: i16 = 1;
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

/// Compresses, if that helps.
pub(crate) fn pack(plain: &[u8]) -> Packed {
    let compressed = COMPRESSOR.with_borrow_mut(|slot| {
        if slot.is_none() {
            *slot = Compressor::new(ZSTD_LEVEL).ok();
        }
        slot.as_mut()
            .and_then(|compressor| compressor.compress(plain).ok())
    });
    match compressed {
        Some(bytes) if bytes.len() < plain.len() => Packed {
            codec: ZSTD,
            bytes: Some(bytes),
        },
        _ => Packed {
            codec: PLAIN,
            bytes: None,
        },
    }
}

/// The plain octets, whose number is known.
pub(crate) fn unpack(codec: i16, stored: Vec<u8>, octets: usize) -> Result<Vec<u8>, StoreError> {
    let plain = match codec {
        PLAIN => stored,
        ZSTD => decompress(&stored, octets)?,
        other => return Err(StoreError::corrupt("content codec", other)),
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
        let packed = pack(plain);
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
    fn damaged_content_is_an_error() {
        assert!(unpack(ZSTD, b"not zstd".to_vec(), 10).is_err());
        assert!(unpack(PLAIN, b"abc".to_vec(), 4).is_err());
        assert!(unpack(7, b"abc".to_vec(), 3).is_err());
        let packed = pack("Hello, ".repeat(500).as_bytes());
        assert!(unpack(packed.codec, packed.bytes.unwrap(), 10).is_err());
    }
}
