//! When a call that failed is made again, and when it is given up. Pure: the time and the chance
//! come in as parameters.

use std::time::Duration;

use mail::ids::EventId;
use time::OffsetDateTime;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;

/// Pauses before the calls: the first is made at once, eight are made in all.
const PAUSES_SECS: [u64; 8] = [
    0,
    5,
    5 * MINUTE,
    30 * MINUTE,
    2 * HOUR,
    5 * HOUR,
    10 * HOUR,
    10 * HOUR,
];

/// How far a pause may be off, as a share of it: calls that failed together must not return
/// together.
const JITTER_SHARE: f64 = 0.2;

/// An endpoint that hangs takes calls so slowly that its backlog outlives the schedule; after
/// this age of its event a call is given up however often it was tried.
const AGE_MAX: Duration = Duration::from_secs(72 * HOUR);

/// When to call again after `calls_made` failed calls; none when that was the last.
/// `chance` is uniform in `0.0..1.0`.
pub(super) fn next_call_at(
    calls_made: u16,
    now: OffsetDateTime,
    chance: f64,
) -> Option<OffsetDateTime> {
    let pause = Duration::from_secs(*PAUSES_SECS.get(usize::from(calls_made))?);
    let factor = 1.0 + JITTER_SHARE * (2.0 * chance.clamp(0.0, 1.0) - 1.0);
    Some(now + pause.mul_f64(factor))
}

/// Whether the event is so old that nobody should be called about it any more.
pub(super) fn is_too_old(event: EventId, now: OffsetDateTime) -> bool {
    let age_ms = now.unix_timestamp_nanos() / 1_000_000 - i128::from(event.unix_ms());
    age_ms > AGE_MAX.as_millis().cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    const NOW: OffsetDateTime = datetime!(2026-11-22 09:00 UTC);

    fn pause_secs(calls_made: u16, chance: f64) -> Option<i64> {
        next_call_at(calls_made, NOW, chance).map(|at| (at - NOW).whole_seconds())
    }

    #[test]
    fn eight_calls_are_made_over_a_day() {
        let pauses: Vec<Option<i64>> = (0..9).map(|made| pause_secs(made, 0.5)).collect();
        let expected = [0, 5, 300, 1_800, 7_200, 18_000, 36_000, 36_000].map(Some);
        assert_eq!(pauses[..8], expected);
        assert_eq!(pauses[8], None);
    }

    #[test]
    fn chance_moves_a_pause_by_a_fifth_at_most() {
        assert_eq!(
            (pause_secs(2, 0.0), pause_secs(2, 1.0)),
            (Some(240), Some(360))
        );
        assert_eq!(pause_secs(0, 1.0), Some(0));
    }

    #[test]
    fn an_event_is_too_old_after_three_days() {
        let event = |age: time::Duration| {
            let unix_ms = u64::try_from((NOW - age).unix_timestamp() * 1_000).unwrap();
            EventId::from_uuid(mail::ids::uuid_v7(unix_ms, [0; 10]))
        };
        assert!(!is_too_old(event(time::Duration::days(3)), NOW));
        assert!(is_too_old(event(time::Duration::hours(73)), NOW));
        // From a node whose clock is ahead of ours.
        assert!(!is_too_old(event(-time::Duration::hours(1)), NOW));
    }
}
