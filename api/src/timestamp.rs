//! Times as the API shows them: RFC 3339, UTC, milliseconds. Reads no clock.

use serde::{Serialize, Serializer};
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use time::{OffsetDateTime, UtcOffset};

const RFC3339_MS: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// An instant, shown with milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Timestamp(OffsetDateTime);

impl Timestamp {
    /// The instant an id was made at.
    pub(crate) fn of_id(unix_ms: u64) -> Self {
        let nanos = i128::from(unix_ms) * 1_000_000;
        // The 48 bits of an id reach to the year 10889; what `time` cannot hold was not made by us.
        Self(OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap_or(OffsetDateTime::UNIX_EPOCH))
    }
}

impl From<OffsetDateTime> for Timestamp {
    fn from(instant: OffsetDateTime) -> Self {
        Self(instant)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = self
            .0
            .to_offset(UtcOffset::UTC)
            .format(RFC3339_MS)
            .map_err(serde::ser::Error::custom)?;
        serializer.serialize_str(&text)
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn times_are_utc_with_milliseconds() {
        let check = |instant: Timestamp, expected: &str| {
            assert_eq!(
                serde_json::to_string(&instant).unwrap(),
                format!("\"{expected}\"")
            );
        };
        check(
            datetime!(2026-11-22 10:00 +1).into(),
            "2026-11-22T09:00:00.000Z",
        );
        check(
            datetime!(2026-11-22 09:00:00.123456 UTC).into(),
            "2026-11-22T09:00:00.123Z",
        );
        check(
            Timestamp::of_id(1_790_000_000_123),
            "2026-09-21T14:13:20.123Z",
        );
        check(Timestamp::of_id((1 << 48) - 1), "1970-01-01T00:00:00.000Z");
    }
}
