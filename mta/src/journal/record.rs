//! How a segment's header and its records lie on disk, and how a segment is read back. Pure.
//!
//! ```text
//! header  magic 8 · salt u32 · number u64 · first sequence u64 · CRC-32C of the former u32
//! record  payload length u32 · CRC-32C u32 · sequence u64 · kind u8 · payload
//! ```
//! All numbers are little-endian. A record's checksum begins with the segment's salt and covers
//! length, sequence, kind and payload. The salt is new each time a file is put to use, so what is
//! left of its former life never passes for a record, and no text from outside that is part of a
//! payload can be made to look like one.

use std::ops::Range;

use super::crc32c::crc32c;

const MAGIC: [u8; 8] = *b"PRJRNL01";
/// Octets of a segment's header.
pub(super) const HEADER_BYTES: usize = 32;
/// Octets of a record before its payload.
pub(super) const RECORD_BYTES: usize = 17;

/// What preallocation leaves: most of a segment at most times, and worth passing quickly.
static BLANK: [u8; 4096] = [0; 4096];

const OUTCOME: u8 = 1;
const CHECKPOINT: u8 = 2;

/// What a segment says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) salt: u32,
    pub(super) number: u64,
    pub(super) first_sequence: u64,
}

impl Header {
    pub(super) fn encode(self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        out[..8].copy_from_slice(&MAGIC);
        out[8..12].copy_from_slice(&self.salt.to_le_bytes());
        out[12..20].copy_from_slice(&self.number.to_le_bytes());
        out[20..28].copy_from_slice(&self.first_sequence.to_le_bytes());
        let crc = crc32c(0, &out[..28]);
        out[28..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// `None` when these are not the first octets of a segment.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let sound = bytes.get(..8)? == MAGIC && u32_at(bytes, 28)? == crc32c(0, &bytes[..28]);
        sound.then_some(Self {
            salt: u32_at(bytes, 8)?,
            number: u64_at(bytes, 12)?,
            first_sequence: u64_at(bytes, 20)?,
        })
    }
}

/// One record's meaning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Entry {
    /// What an attempt came to.
    Outcome(Vec<u8>),
    /// Every sequence below this one is settled.
    Checkpoint(u64),
}

/// Appends one record to `out`.
pub(super) fn encode(out: &mut Vec<u8>, salt: u32, sequence: u64, entry: &Entry) {
    let mark;
    let (kind, payload): (u8, &[u8]) = match entry {
        Entry::Outcome(payload) => (OUTCOME, payload),
        Entry::Checkpoint(below) => {
            mark = below.to_le_bytes();
            (CHECKPOINT, &mark)
        }
    };
    let length = (payload.len() as u32).to_le_bytes();
    let mut covered = [0; 9];
    covered[..8].copy_from_slice(&sequence.to_le_bytes());
    covered[8] = kind;
    let crc = crc32c(crc32c(crc32c(salt, &length), &covered), payload);
    out.extend_from_slice(&length);
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(&covered);
    out.extend_from_slice(payload);
}

/// What reading a segment back gave.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Contents {
    /// Sequence and meaning, in order.
    pub(super) entries: Vec<(u64, Entry)>,
    /// Records that must have been there, because later ones are, and cannot be read.
    pub(super) lost: u64,
}

/// Reads the records behind a segment's header.
///
/// A record that does not check out is either where writing stopped (the end of the segment, or a
/// batch cut by a power failure, which nobody was told is safe) or damage to the medium in the
/// middle of outcomes that were acknowledged. Stopping is right for the first, but would send again
/// every delivery behind the damage; so the reader looks on for the next sound record. That is
/// safe: to be taken, a record needs a checksum begun with this segment's salt and a sequence above
/// the last one and within what fits the segment, which only we can have written here; and a true
/// outcome may be settled at any time, in any order, more than once. What lies between is counted
/// as lost and its deliveries are judged ambiguous by their open intents.
pub(super) fn read(header: Header, segment: &[u8]) -> Contents {
    let mut contents = Contents::default();
    let mut next = header.first_sequence;
    let mut at = HEADER_BYTES;
    while at + RECORD_BYTES <= segment.len() {
        let furthest = next.saturating_add((segment.len() / RECORD_BYTES) as u64);
        match record_at(header.salt, segment, at, next..furthest) {
            Some((sequence, entry, bytes)) => {
                contents.lost += sequence - next;
                contents.entries.push((sequence, entry));
                next = sequence + 1;
                at += bytes;
            }
            // No record begins with a blank head, so only the last octets can belong to one.
            None if segment[at..].starts_with(&BLANK) => at += BLANK.len() - RECORD_BYTES,
            None => at += 1,
        }
    }
    contents
}

/// The record at this offset with its length, if there is a sound one with a sequence that can
/// stand here.
fn record_at(
    salt: u32,
    segment: &[u8],
    at: usize,
    expected: Range<u64>,
) -> Option<(u64, Entry, usize)> {
    let head = segment.get(at..at + RECORD_BYTES)?;
    let kind = head[16];
    let sequence = u64_at(head, 8)?;
    // Before the checksum: it rejects nearly every offset of a search at no cost.
    if (kind != OUTCOME && kind != CHECKPOINT) || !expected.contains(&sequence) {
        return None;
    }
    let length = u32_at(head, 0)? as usize;
    let payload = segment.get(at + RECORD_BYTES..)?.get(..length)?;
    let crc = crc32c(crc32c(crc32c(salt, &head[..4]), &head[8..]), payload);
    if u32_at(head, 4)? != crc {
        return None;
    }
    let entry = if kind == OUTCOME {
        Entry::Outcome(payload.to_vec())
    } else {
        Entry::Checkpoint(u64_at(payload, 0)?)
    };
    Some((sequence, entry, RECORD_BYTES + length))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEADER: Header = Header {
        salt: 0x5a17,
        number: 3,
        first_sequence: 10,
    };

    fn segment(salt: u32, first: u64, payloads: &[&[u8]]) -> Vec<u8> {
        let mut out = HEADER.encode().to_vec();
        for (sequence, payload) in (first..).zip(payloads) {
            encode(&mut out, salt, sequence, &Entry::Outcome(payload.to_vec()));
        }
        out
    }

    fn sequences(contents: &Contents) -> Vec<u64> {
        contents
            .entries
            .iter()
            .map(|(sequence, _)| *sequence)
            .collect()
    }

    #[test]
    fn a_header_is_read_back_and_damage_to_it_is_seen() {
        let bytes = HEADER.encode();
        assert_eq!(Header::decode(&bytes), Some(HEADER));
        for at in 0..HEADER_BYTES {
            let mut damaged = bytes;
            damaged[at] ^= 1;
            assert_eq!(Header::decode(&damaged), None);
        }
        assert_eq!(Header::decode(&bytes[..31]), None);
    }

    #[test]
    fn records_are_read_back_up_to_the_unused_rest() {
        let mut bytes = segment(HEADER.salt, 10, &[b"a", b"", b"ccc"]);
        encode(&mut bytes, HEADER.salt, 13, &Entry::Checkpoint(12));
        bytes.resize(4096, 0);
        let contents = read(HEADER, &bytes);
        assert_eq!(sequences(&contents), [10, 11, 12, 13]);
        assert_eq!(contents.entries[2].1, Entry::Outcome(b"ccc".to_vec()));
        assert_eq!(contents.entries[3].1, Entry::Checkpoint(12));
        assert_eq!(contents.lost, 0);
    }

    #[test]
    fn a_cut_tail_is_cut_off() {
        let whole = segment(HEADER.salt, 10, &[b"first", b"second"]);
        for length in HEADER_BYTES + RECORD_BYTES + 5..whole.len() {
            let mut bytes = whole[..length].to_vec();
            bytes.resize(1024, 0);
            let contents = read(HEADER, &bytes);
            assert_eq!(
                (sequences(&contents), contents.lost),
                (vec![10], 0),
                "cut at {length}"
            );
        }
    }

    #[test]
    fn damage_in_the_middle_costs_the_damaged_record_only() {
        let whole = segment(HEADER.salt, 10, &[b"first", b"second", b"third"]);
        let second = HEADER_BYTES + RECORD_BYTES + 5;
        for at in second..second + RECORD_BYTES + 6 {
            let mut bytes = whole.clone();
            bytes[at] ^= 0xff;
            let contents = read(HEADER, &bytes);
            assert_eq!(
                (sequences(&contents), contents.lost),
                (vec![10, 12], 1),
                "damage at {at}"
            );
        }
    }

    #[test]
    fn a_record_behind_any_number_of_blanks_is_found() {
        for blanks in (0..40).chain(4060..4140).chain(8180..8230) {
            let mut bytes = segment(HEADER.salt, 10, &[b"first"]);
            bytes.resize(bytes.len() + blanks, 0);
            encode(&mut bytes, HEADER.salt, 12, &Entry::Checkpoint(3));
            let contents = read(HEADER, &bytes);
            assert_eq!(
                (sequences(&contents), contents.lost),
                (vec![10, 12], 1),
                "{blanks} blanks"
            );
        }
    }

    #[test]
    fn records_of_a_former_life_are_not_read() {
        let former = segment(0x01d, 10, &[b"old", b"old", b"old"]);
        assert_eq!(read(HEADER, &former), Contents::default());
        // Right salt, but sequences that cannot follow.
        let behind = segment(HEADER.salt, 2, &[b"old"]);
        assert_eq!(read(HEADER, &behind), Contents::default());
        let ahead = segment(HEADER.salt, 1 << 40, &[b"old"]);
        assert_eq!(read(HEADER, &ahead), Contents::default());
    }

    proptest! {
        #[test]
        fn any_octets_are_read_without_harm(mut bytes: Vec<u8>, first: u64) {
            bytes.splice(0..0, [0; HEADER_BYTES]);
            read(Header { first_sequence: first, ..HEADER }, &bytes);
        }
    }
}
