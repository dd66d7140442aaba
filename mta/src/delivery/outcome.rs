//! What an attempt came to, as the settlement that records it: event, next try or end.

use std::time::{Duration, Instant};

use mail::bounce_class::{BounceClass, SuppressionRule};
use mail::event::EventType;
use mail::ids::{EventId, uuid_v7};
use mail::judge::{Failure, Outcome, Stage, judge_failure, judge_reply};
use mail::reply::Reply;
use mail::retry::{Deferral, StreamClass, next_attempt};
use mail::text::DbText;
use store::{
    AmbiguousPolicy, EventFlags, NewEvent, QueueFlags, QueueRow, Retry, Settlement, StoreError,
    StreamNo,
};
use time::OffsetDateTime;

use crate::node::Node;
use crate::queue::{Intent, Unsettled, patiently};
use crate::routing::RouteFailure;
use crate::smtp::{Extension, FailureKind, SmtpFailure};

const TRANSCRIPT_MAX_OCTETS: usize = 8 * 1024;
const AMBIGUOUS_DETAIL: &str = "the final dot was sent, its reply never arrived";

/// A finished attempt.
#[derive(Debug)]
pub(crate) struct Attempted {
    pub(crate) row: QueueRow,
    pub(crate) begun: Instant,
    pub(crate) outcome: Outcome,
    /// The final dot may have left and no reply was read.
    pub(crate) ambiguous: bool,
    pub(crate) source: Option<i32>,
    pub(crate) mx: Option<String>,
    pub(crate) tls: Option<&'static str>,
    pub(crate) reply: Option<Reply>,
    /// What happened, when no reply says so.
    pub(crate) detail: String,
    pub(crate) transcript: String,
}

impl Attempted {
    pub(crate) fn new(row: QueueRow, outcome: Outcome) -> Self {
        Self {
            row,
            begun: Instant::now(),
            outcome,
            ambiguous: false,
            source: None,
            mx: None,
            tls: None,
            reply: None,
            detail: String::new(),
            transcript: String::new(),
        }
    }

    /// The domain could not be turned into hosts.
    pub(crate) fn not_routed(row: QueueRow, failure: &RouteFailure) -> Self {
        let outcome = judge_failure(Stage::Resolve, failure.failure);
        Self {
            detail: failure.detail.clone(),
            ..Self::new(row, outcome)
        }
    }

    /// The dialogue failed.
    pub(crate) fn failed(row: QueueRow, failure: SmtpFailure) -> Self {
        let outcome = judge(&failure);
        let ambiguous = failure.dot_sent && failure.reply().is_none();
        let detail = match &failure.kind {
            FailureKind::Reply(_) => String::new(),
            _ if ambiguous => AMBIGUOUS_DETAIL.to_owned(),
            kind => format!("at {}: {}", failure.stage.as_str(), with_sources(kind)),
        };
        let reply = failure.reply().cloned();
        let transcript = failure.transcript;
        Self {
            ambiguous,
            detail,
            reply,
            transcript,
            ..Self::new(row, outcome)
        }
    }

    /// The receiver took responsibility.
    pub(crate) fn delivered(row: QueueRow, reply: Reply) -> Self {
        Self {
            reply: Some(reply),
            ..Self::new(row, Outcome::Delivered)
        }
    }

    fn reply_text(&self) -> Option<DbText> {
        match &self.reply {
            Some(reply) => Some(reply.stored_text()),
            None if self.detail.is_empty() => None,
            None => Some(DbText::from_remote(
                self.detail.as_bytes(),
                DbText::REMOTE_MAX_OCTETS,
            )),
        }
    }
}

fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// What a failed dialogue means.
pub(crate) fn judge(failure: &SmtpFailure) -> Outcome {
    let stage = failure.stage;
    let cause = match &failure.kind {
        FailureKind::Reply(reply) => return judge_reply(stage, reply),
        FailureKind::Timeout => Failure::TimedOut,
        FailureKind::Closed => Failure::ConnectionLost,
        FailureKind::Io(error) if stage == Stage::Connect => {
            if error.kind() == std::io::ErrorKind::ConnectionRefused {
                Failure::ConnectionRefused
            } else {
                Failure::Unreachable
            }
        }
        FailureKind::Io(_) => Failure::ConnectionLost,
        FailureKind::Protocol(_) | FailureKind::NotOffered(Extension::EightBitMime) => {
            Failure::BadReply
        }
        FailureKind::Tls(_) => Failure::TlsFailed,
        FailureKind::TlsNotOffered => Failure::TlsNotOffered,
        FailureKind::NotOffered(Extension::SmtpUtf8) => Failure::SmtpUtf8NotOffered,
        FailureKind::TooLarge { .. } => Failure::TooBigForServer,
    };
    judge_failure(stage, cause)
}

/// Records an attempt. With an intent its outcome is journaled before this returns.
pub(crate) async fn conclude(node: &Node, attempted: Attempted, intent: Option<Intent>) {
    let seconds = attempted.begun.elapsed().as_secs_f64();
    let policy = if attempted.ambiguous {
        let Some(policy) = policy(node, attempted.row.stream).await else {
            // Nothing is written: the open intent says all that is known.
            return;
        };
        policy
    } else {
        // A reply that was read goes to the journal without asking PostgreSQL anything.
        AmbiguousPolicy::Resend
    };
    let settlement = settlement(node, &attempted, policy);
    node.metrics
        .attempts
        .with_label_values(&[settlement.event.kind.as_str()])
        .observe(seconds);
    if intent.is_none() {
        return node.settler.queue(Unsettled {
            settlement,
            ticket: None,
            intent,
        });
    }
    if let Err(error) = node.settler.submit(node, settlement, intent).await {
        tracing::error!(
            error = %error,
            "an outcome could not be journaled (no further final dots until that works again); it \
             still goes to PostgreSQL"
        );
    }
}

/// What the stream wants done about deliveries in doubt. Waits for PostgreSQL if it must: until
/// then the delivery is an open intent, which says the same. `None` if it never answers.
async fn policy(node: &Node, stream: StreamNo) -> Option<AmbiguousPolicy> {
    let stream = patiently(node, "look up a stream", || node.store.stream_by_no(stream)).await?;
    // A removed stream holds nothing up.
    Some(stream.map_or(AmbiguousPolicy::Resend, |stream| stream.ambiguous))
}

/// The settlement of an attempt.
fn settlement(node: &Node, attempted: &Attempted, policy: AmbiguousPolicy) -> Settlement {
    let now = node.clock.now();
    let row = &attempted.row;
    let retry = retry(attempted, policy, node.ownership.class_of(row.shard), now);
    let kind = match (attempted.outcome, &retry) {
        (Outcome::Delivered, _) => EventType::EmailDelivered,
        (Outcome::Bounced { .. }, _) => EventType::EmailBounced,
        (Outcome::Deferred { .. }, Some(_)) => EventType::EmailDeferred,
        (Outcome::Deferred { .. }, None) => EventType::EmailExpired,
    };
    let failed = attempted.outcome != Outcome::Delivered;
    let number = row.attempt + 1;
    let mut flags = event_flags(row, retry.is_none(), attempted.ambiguous);
    if proves_dead(attempted.outcome) {
        flags = flags.with(EventFlags::DEAD_RECIPIENT);
    }
    let event = NewEvent {
        id: event_id(now),
        kind,
        sequence: number + 1,
        attempt: number,
        flags,
        class: failed.then(|| attempted.outcome.class()),
        code: attempted.reply.as_ref().map(|reply| reply.code().get()),
        enhanced: attempted
            .reply
            .as_ref()
            .and_then(Reply::enhanced)
            .map(|code| code.to_string()),
        source: attempted.source,
        mx: attempted.mx.clone(),
        tls: attempted.tls.map(str::to_owned),
        reply: attempted.reply_text(),
        duration_ms: i32::try_from(attempted.begun.elapsed().as_millis()).ok(),
        transcript: (failed && !attempted.transcript.is_empty()).then(|| {
            DbText::from_remote_lines(attempted.transcript.as_bytes(), TRANSCRIPT_MAX_OCTETS)
        }),
    };
    Settlement {
        row: row.clone(),
        next: retry,
        event,
    }
}

/// Whether this refusal alone is enough to suppress the recipient.
fn proves_dead(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Bounced { class, .. } if class.suppression() == SuppressionRule::AtOnce)
}

/// When a deferred delivery is tried again; `None` ends it.
fn retry(
    attempted: &Attempted,
    policy: AmbiguousPolicy,
    class: StreamClass,
    now: OffsetDateTime,
) -> Option<Retry> {
    let Outcome::Deferred { class: cause, .. } = attempted.outcome else {
        return None;
    };
    let row = &attempted.row;
    let mut flags = row.flags;
    if attempted.ambiguous {
        flags = flags.with(QueueFlags::AMBIGUOUS);
        if policy == AmbiguousPolicy::Hold {
            return Some(Retry {
                next_at: row.expires_at,
                flags: flags.with(QueueFlags::HELD),
            });
        }
    }
    let deferral = Deferral {
        class: cause,
        stream: class,
        attempts: row.attempt + 1,
        first_at: row.first_at,
        expires_at: row.expires_at,
    };
    let next_at = next_attempt(&deferral, now, rand::random())?;
    Some(Retry { next_at, flags })
}

/// A delivery whose time is over before another attempt.
pub(crate) fn expired(row: QueueRow, now: OffsetDateTime) -> Settlement {
    let event = NewEvent {
        sequence: row.attempt + 2,
        attempt: row.attempt,
        class: Some(BounceClass::Expired),
        ..plain_event(EventType::EmailExpired, event_flags(&row, true, false), now)
    };
    Settlement {
        row,
        next: None,
        event,
    }
}

/// A delivery whose recipient was suppressed before another attempt.
pub(crate) fn suppressed(row: QueueRow, now: OffsetDateTime) -> Settlement {
    let flags = event_flags(&row, true, false);
    let event = NewEvent {
        sequence: row.attempt + 2,
        attempt: row.attempt,
        ..plain_event(EventType::EmailSuppressed, flags, now)
    };
    Settlement {
        row,
        next: None,
        event,
    }
}

/// A delivery that another process (or an earlier life of this one) may have sent: counted as an
/// attempt with an unknown end, then resent at once or held, as its stream says.
///
/// # Errors
/// When the stream cannot be read.
pub(crate) async fn undecided(node: &Node, row: QueueRow) -> Result<Settlement, StoreError> {
    let now = node.clock.now();
    let stream = node.store.stream_by_no(row.stream).await?;
    let hold = stream.is_some_and(|stream| stream.ambiguous == AmbiguousPolicy::Hold);
    let flags = row.flags.with(QueueFlags::AMBIGUOUS);
    let next = if hold {
        Retry {
            next_at: row.expires_at,
            flags: flags.with(QueueFlags::HELD),
        }
    } else {
        // A millisecond later: the row needs a new place in the queue to be a new row.
        Retry {
            next_at: now.max(row.next_at + Duration::from_millis(1)),
            flags,
        }
    };
    let event = NewEvent {
        sequence: row.attempt + 2,
        attempt: row.attempt + 1,
        class: Some(BounceClass::NetworkError),
        reply: Some(DbText::from_remote(
            AMBIGUOUS_DETAIL.as_bytes(),
            DbText::REMOTE_MAX_OCTETS,
        )),
        ..plain_event(
            EventType::EmailDeferred,
            event_flags(&row, false, true),
            now,
        )
    };
    Ok(Settlement {
        row,
        next: Some(next),
        event,
    })
}

fn event_flags(row: &QueueRow, is_final: bool, ambiguous: bool) -> EventFlags {
    let mut flags = EventFlags::default();
    if is_final {
        flags = flags.with(EventFlags::FINAL);
    }
    // Once in doubt, all that is said about the delivery says so.
    if ambiguous || row.flags.contains(QueueFlags::AMBIGUOUS) {
        flags = flags.with(EventFlags::AMBIGUOUS);
    }
    flags
}

fn plain_event(kind: EventType, flags: EventFlags, now: OffsetDateTime) -> NewEvent {
    NewEvent {
        id: event_id(now),
        kind,
        sequence: 0,
        attempt: 0,
        flags,
        class: None,
        code: None,
        enhanced: None,
        source: None,
        mx: None,
        tls: None,
        reply: None,
        duration_ms: None,
        transcript: None,
    }
}

fn event_id(now: OffsetDateTime) -> EventId {
    let unix_ms = u64::try_from(now.unix_timestamp_nanos() / 1_000_000).unwrap_or_default();
    EventId::from_uuid(uuid_v7(unix_ms, rand::random()))
}
