//! What a look at a domain's records means for the domain, and when to look again.
//! Pure: the clock and chance are parameters.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;
use time::{Duration, OffsetDateTime};

use crate::domain_records::{Outcome, RecordStatus};
use crate::event::{EventType, UnknownWord};

/// A domain that was not proved in this time has failed.
const PROOF_DUE: Duration = Duration::hours(72);
/// Scheduled checks in a row without a record until that has consequences.
const MISSES_MAX: u16 = 3;
const PENDING_PAUSE_MIN: Duration = Duration::minutes(3);
const PENDING_PAUSE_MAX: Duration = Duration::hours(6);
const VERIFIED_PAUSE: Duration = Duration::hours(24);
/// After a miss: three in a row mean that the record was away for most of a day.
const MISSED_PAUSE: Duration = Duration::hours(8);
/// After the DNS could not tell, and while a rotation waits for its record.
const SOON: Duration = Duration::minutes(30);
/// From finding the alias to using it: by then every node has heard of it, so that no delivery
/// starts with one return path and goes on with another.
const RETURN_PATH_SETTLES: Duration = Duration::seconds(30);

/// Whether a domain may be sent from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DomainStatus {
    /// Its proof was not found yet.
    Pending,
    /// It may.
    Verified,
    /// Its proof was not found in time, or was missed too often.
    Failed,
}

impl DomainStatus {
    /// The word used in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Verified => "verified",
            Self::Failed => "failed",
        }
    }
}

impl fmt::Display for DomainStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for DomainStatus {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        [Self::Pending, Self::Verified, Self::Failed]
            .into_iter()
            .find(|status| status.as_str() == word)
            .ok_or_else(|| UnknownWord(word.chars().take(64).collect()))
    }
}

/// Where a domain stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainStanding {
    /// See there.
    pub status: DomainStatus,
    /// The operator said that it is the account's: no record can be missed.
    pub vouched: bool,
    /// When its records were asked for first.
    pub registered_at: OffsetDateTime,
    /// Scheduled checks in a row that did not find the proof of a verified domain.
    pub misses: u16,
    /// Deliveries first due at this time or later return to the domain's own subdomain.
    pub return_path_from: Option<OffsetDateTime>,
    /// Scheduled checks in a row that did not find the alias.
    pub return_path_misses: u16,
}

/// Why a domain was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occasion {
    /// Somebody asked: can only do good, or impatience would cost a domain its proof.
    Asked,
    /// It was time.
    Scheduled,
}

/// What is to be written about the domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Where it stands now.
    pub standing: DomainStanding,
    /// When to look again by ourselves; none for a domain that has failed.
    pub check_at: Option<OffsetDateTime>,
    /// The selector that signs from now on, all others no more.
    pub activate: Option<String>,
    /// What to tell the account.
    pub event: Option<EventType>,
}

/// Decides. `chance` from 0 to 1 spreads the next checks.
pub fn decide(
    before: &DomainStanding,
    outcome: &Outcome,
    occasion: Occasion,
    now: OffsetDateTime,
    chance: f64,
) -> Decision {
    let mut standing = before.clone();
    let activate = outcome
        .waiting
        .as_ref()
        .filter(|(_, status)| *status == RecordStatus::Found)
        .map(|(selector, _)| selector.clone());
    let proof = match activate {
        Some(_) => RecordStatus::Found,
        None => outcome.signing,
    };
    judge_proof(&mut standing, proof, occasion, now);
    judge_return_path(&mut standing, outcome.return_path, occasion, now);
    let event = match (before.status, standing.status) {
        (DomainStatus::Pending | DomainStatus::Failed, DomainStatus::Verified) => {
            Some(EventType::DomainVerified)
        }
        (DomainStatus::Pending | DomainStatus::Verified, DomainStatus::Failed) => {
            Some(EventType::DomainFailed)
        }
        _ => None,
    };
    let rotating = outcome.waiting.is_some() && activate.is_none();
    let check_at = pause(&standing, proof, rotating, now).map(|pause| {
        // A tenth, so that what was registered together is not asked for together for ever.
        now + pause + pause * (chance.clamp(0.0, 1.0) / 10.0)
    });
    Decision {
        standing,
        check_at,
        activate,
        event,
    }
}

fn judge_proof(
    standing: &mut DomainStanding,
    proof: RecordStatus,
    occasion: Occasion,
    now: OffsetDateTime,
) {
    match (standing.status, proof) {
        (_, RecordStatus::Found) => {
            standing.status = DomainStatus::Verified;
            standing.misses = 0;
        }
        // A DNS that cannot tell takes nothing from anybody.
        (_, RecordStatus::Unknown | RecordStatus::Pending) => {}
        _ if occasion == Occasion::Asked => {}
        (DomainStatus::Pending, _) if now >= standing.registered_at + PROOF_DUE => {
            standing.status = DomainStatus::Failed;
        }
        (DomainStatus::Verified, _) if !standing.vouched => {
            standing.misses = standing.misses.saturating_add(1);
            if standing.misses >= MISSES_MAX {
                standing.status = DomainStatus::Failed;
            }
        }
        _ => {}
    }
}

/// A subdomain without its alias can take no bounce and makes receivers refuse the mail: that is
/// worse than a return path that changes between two attempts.
fn judge_return_path(
    standing: &mut DomainStanding,
    found: Option<RecordStatus>,
    occasion: Occasion,
    now: OffsetDateTime,
) {
    match found {
        Some(RecordStatus::Found) => {
            let from = standing.return_path_from;
            standing.return_path_from = from.or(Some(now + RETURN_PATH_SETTLES));
            standing.return_path_misses = 0;
        }
        Some(RecordStatus::Missing | RecordStatus::Mismatch)
            if occasion == Occasion::Scheduled && standing.return_path_from.is_some() =>
        {
            standing.return_path_misses = standing.return_path_misses.saturating_add(1);
            if standing.return_path_misses >= MISSES_MAX {
                standing.return_path_from = None;
                standing.return_path_misses = 0;
            }
        }
        _ => {}
    }
}

fn pause(
    standing: &DomainStanding,
    proof: RecordStatus,
    rotating: bool,
    now: OffsetDateTime,
) -> Option<Duration> {
    let missed = standing.misses > 0 || standing.return_path_misses > 0;
    match standing.status {
        DomainStatus::Failed => None,
        DomainStatus::Pending => {
            let age: Duration = now - standing.registered_at;
            let due = (PROOF_DUE - age).max(PENDING_PAUSE_MIN);
            Some(
                (age / 8_i32)
                    .clamp(PENDING_PAUSE_MIN, PENDING_PAUSE_MAX)
                    .min(due),
            )
        }
        DomainStatus::Verified if proof == RecordStatus::Unknown || rotating => Some(SOON),
        DomainStatus::Verified if missed => Some(MISSED_PAUSE),
        DomainStatus::Verified => Some(VERIFIED_PAUSE),
    }
}

/// When to look at a domain first after it was registered at `now`.
pub fn first_check_at(now: OffsetDateTime) -> OffsetDateTime {
    now + PENDING_PAUSE_MIN
}

#[cfg(test)]
mod tests;
