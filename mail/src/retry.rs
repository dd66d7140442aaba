//! When a deferred delivery is tried again. Schedules are data; times come from the caller.
//!
//! RFC 5321 section 4.5.4.1 asks for at least 30 minutes as a rule and two tries in the first
//! hour; receivers that greylist ask for 5 to 15 minutes (RFC 6647), readers of one-time codes
//! for less. When a delivery expires is the stream's policy, not decided here.

use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};

use crate::bounce_class::{BounceClass, BounceGroup};

/// How urgent a stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StreamClass {
    /// One reader waits for it: goes first, is retried sooner.
    Transactional,
    /// To many at once.
    Broadcast,
}

impl StreamClass {
    /// The word used in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Transactional => "transactional",
            Self::Broadcast => "broadcast",
        }
    }
}

/// The steps after the first attempts, then one step for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Schedule {
    /// Minutes from the first attempt to the second, from the second to the third, ...
    steps_min: &'static [u32],
    /// Minutes between all later attempts.
    then_min: u32,
    /// No attempt later than this many hours after the first one.
    give_up_after_hours: Option<u32>,
}

/// Share of a step that jitter may add or take: keeps deliveries that failed together apart.
const JITTER: f64 = 0.2;
/// 4 to 6 hours once jitter is in.
const LATER_MIN: u32 = 300;

const BROADCAST: Schedule = Schedule {
    steps_min: &[5, 15, 30, 60, 120, 240],
    then_min: LATER_MIN,
    give_up_after_hours: None,
};
const TRANSACTIONAL: Schedule = Schedule {
    steps_min: &[1, 5, 15, 30, 60, 120, 240],
    then_min: LATER_MIN,
    give_up_after_hours: None,
};
/// The first step stays within 5 to 15 minutes whatever the jitter.
const GREYLISTED: Schedule = Schedule {
    steps_min: &[8, 12, 20, 45, 90, 180],
    then_min: LATER_MIN,
    give_up_after_hours: None,
};
/// At least ten minutes of quiet even with all jitter taken (Gmail's published procedure).
const RATE_LIMITED: Schedule = Schedule {
    steps_min: &[15, 30, 60, 120, 240],
    then_min: LATER_MIN,
    give_up_after_hours: None,
};
/// A full mailbox is emptied by a person, not by patience of minutes.
const MAILBOX_FULL: Schedule = Schedule {
    steps_min: &[60, 180, 360],
    then_min: 720,
    give_up_after_hours: Some(72),
};
/// Blocks and faults of set-up need a person too, on our side.
const BLOCKED: Schedule = Schedule {
    steps_min: &[30, 60, 120, 240],
    then_min: LATER_MIN,
    give_up_after_hours: None,
};

fn schedule(class: BounceClass, stream: StreamClass) -> Schedule {
    match class {
        BounceClass::Greylisted => GREYLISTED,
        BounceClass::RateLimited => RATE_LIMITED,
        BounceClass::MailboxFull => MAILBOX_FULL,
        _ if matches!(class.group(), BounceGroup::Block | BounceGroup::Config) => BLOCKED,
        _ => match stream {
            StreamClass::Transactional => TRANSACTIONAL,
            StreamClass::Broadcast => BROADCAST,
        },
    }
}

/// What is known when an attempt was deferred.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Deferral {
    /// Why it was deferred.
    pub class: BounceClass,
    /// The stream's urgency.
    pub stream: StreamClass,
    /// Attempts made so far, this one included: 1 after the first.
    pub attempts: u16,
    /// When the first attempt was due.
    pub first_at: OffsetDateTime,
    /// When the delivery expires.
    pub expires_at: OffsetDateTime,
}

/// When to try again, or `None` when that would be after `expires_at` (or after the class's own
/// limit): then the delivery has expired.
///
/// `jitter` is a random number from 0 to 1 that moves the step by up to 20 % either way.
pub fn next_attempt(
    deferral: &Deferral,
    now: OffsetDateTime,
    jitter: f64,
) -> Option<OffsetDateTime> {
    let schedule = schedule(deferral.class, deferral.stream);
    let place = usize::from(deferral.attempts.saturating_sub(1));
    let step_min = schedule.steps_min.get(place).unwrap_or(&schedule.then_min);
    let jitter = if jitter.is_finite() {
        jitter.clamp(0.0, 1.0)
    } else {
        0.5
    };
    let factor = 1.0 - JITTER + 2.0 * JITTER * jitter;
    let next = now.checked_add(Duration::minutes(i64::from(*step_min)) * factor)?;
    let own_limit = schedule
        .give_up_after_hours
        .and_then(|hours| deferral.first_at.checked_add(Duration::hours(hours.into())));
    let in_time = next <= deferral.expires_at && own_limit.is_none_or(|limit| next <= limit);
    in_time.then_some(next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    const START: OffsetDateTime = datetime!(2026-11-22 09:00 UTC);

    fn deferral(class: BounceClass, stream: StreamClass, attempts: u16) -> Deferral {
        Deferral {
            class,
            stream,
            attempts,
            first_at: START,
            expires_at: START + Duration::days(5),
        }
    }

    /// Minutes to the next attempt, without jitter.
    fn wait_min(class: BounceClass, stream: StreamClass, attempts: u16) -> i64 {
        let next = next_attempt(&deferral(class, stream, attempts), START, 0.5).unwrap();
        (next - START).whole_minutes()
    }

    #[test]
    fn broadcast_follows_the_usual_steps() {
        let waits: Vec<i64> = (1..=8)
            .map(|n| wait_min(BounceClass::SystemError, StreamClass::Broadcast, n))
            .collect();
        assert_eq!(waits, [5, 15, 30, 60, 120, 240, 300, 300]);
    }

    #[test]
    fn transactional_mail_begins_sooner() {
        let waits: Vec<i64> = (1..=4)
            .map(|n| wait_min(BounceClass::NetworkError, StreamClass::Transactional, n))
            .collect();
        assert_eq!(waits, [1, 5, 15, 30]);
    }

    #[test]
    fn greylisting_is_answered_within_5_to_15_minutes() {
        for jitter in [0.0, 0.5, 1.0] {
            let first = deferral(BounceClass::Greylisted, StreamClass::Transactional, 1);
            let wait = next_attempt(&first, START, jitter).unwrap() - START;
            assert!(wait >= Duration::minutes(5) && wait <= Duration::minutes(15));
        }
    }

    #[test]
    fn a_rate_limit_is_given_ten_minutes_at_least() {
        let first = deferral(BounceClass::RateLimited, StreamClass::Transactional, 1);
        assert!(next_attempt(&first, START, 0.0).unwrap() - START >= Duration::minutes(10));
    }

    #[test]
    fn a_full_mailbox_is_tried_slowly_and_not_for_ever() {
        assert_eq!(
            wait_min(BounceClass::MailboxFull, StreamClass::Transactional, 1),
            60
        );
        let late = deferral(BounceClass::MailboxFull, StreamClass::Broadcast, 9);
        let now = START + Duration::hours(65);
        assert_eq!(next_attempt(&late, now, 0.5), None);
    }

    #[test]
    fn jitter_is_a_fifth_either_way_and_never_trusted() {
        let first = deferral(BounceClass::SystemError, StreamClass::Broadcast, 7);
        let wait = |jitter| next_attempt(&first, START, jitter).unwrap() - START;
        assert_eq!(wait(0.0), Duration::hours(4));
        assert_eq!(wait(1.0), Duration::hours(6));
        assert_eq!(wait(99.0), Duration::hours(6));
        assert_eq!(wait(f64::NAN), Duration::hours(5));
    }

    #[test]
    fn nothing_is_planned_past_expiry() {
        let mut last = deferral(BounceClass::SystemError, StreamClass::Broadcast, 1);
        last.expires_at = START + Duration::minutes(4);
        assert_eq!(next_attempt(&last, START, 0.5), None);
        last.expires_at = START + Duration::minutes(5);
        assert!(next_attempt(&last, START, 0.5).is_some());
        last.attempts = u16::MAX;
        assert_eq!(next_attempt(&last, START, 0.5), None);
    }
}
