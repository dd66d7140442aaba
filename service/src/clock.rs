//! Domain time: the system's wall clock plus an offset that tests may move.
//! The only file of the workspace that reads the wall clock. Never used for deadlines of a
//! connection or a statement: these follow the monotonic clock, which no test moves.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use tokio::sync::watch;

/// How often the clock file is read again. Short, because every process of a test must agree
/// soon after the test moved time; reading twenty bytes fifty times a second costs nothing.
const FILE_PERIOD: Duration = Duration::from_millis(20);

/// Longest single sleep. The wall clock may be stepped by the operator; sleeping in pieces lets
/// a long sleep notice it.
const SLEEP_PIECE_MAX: Duration = Duration::from_secs(60);

/// Why a clock file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ClockError {
    /// The file is not there or not readable.
    #[error("could not read the clock file {path}: create it with the content 0")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file holds something else than one integer.
    #[error(
        "the clock file {path} must hold one integer, the offset in milliseconds, not {found:?}"
    )]
    NotAnOffset {
        /// The file.
        path: PathBuf,
        /// What it holds.
        found: String,
    },
}

/// Source of domain time. Clones share one offset.
#[derive(Clone, Debug)]
pub struct Clock {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    offset_ms: watch::Sender<i64>,
    is_real: bool,
}

impl Clock {
    /// The system's clock as it is.
    pub fn system() -> Self {
        Self::new(0, true)
    }

    /// System time plus the offset held by `path`: one integer, milliseconds, may be negative.
    /// A thread reads the file again every 20 ms for as long as a clone of this clock lives.
    ///
    /// # Errors
    /// The file cannot be read or does not hold an integer now. Later trouble keeps the last good
    /// offset and is logged.
    pub fn from_file(path: impl Into<PathBuf>) -> Result<Self, ClockError> {
        let path = path.into();
        let clock = Self::new(read_offset_ms(&path)?, false);
        let shared = Arc::downgrade(&clock.shared);
        thread::spawn(move || follow_file(&path, &shared));
        Ok(clock)
    }

    fn new(offset_ms: i64, is_real: bool) -> Self {
        Self {
            shared: Arc::new(Shared {
                offset_ms: watch::Sender::new(offset_ms),
                is_real,
            }),
        }
    }

    /// Whether this is the system's time, which other machines share, and no test's.
    pub fn is_real(&self) -> bool {
        self.shared.is_real
    }

    /// Now, in UTC.
    pub fn now(&self) -> OffsetDateTime {
        let now_ns = i128::from(self.unix_ms()) * 1_000_000;
        OffsetDateTime::from_unix_timestamp_nanos(now_ns).unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }

    /// Milliseconds since 1970-01-01T00:00:00Z; negative before it.
    pub fn unix_ms(&self) -> i64 {
        system_unix_ms().saturating_add(*self.shared.offset_ms.borrow())
    }

    /// Sleeps for `duration` of domain time. Returns early when the offset moves past its end.
    pub async fn sleep(&self, duration: Duration) {
        let duration_ms = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        self.sleep_until_ms(self.unix_ms().saturating_add(duration_ms))
            .await;
    }

    /// Sleeps until domain time reaches `instant`; returns at once if it has passed.
    pub async fn sleep_until(&self, instant: OffsetDateTime) {
        // Rounded up: waking a fraction of a millisecond before the instant would let a caller
        // find that its work is not due yet.
        let instant_ms = (instant.unix_timestamp_nanos() + 999_999).div_euclid(1_000_000);
        self.sleep_until_ms(i64::try_from(instant_ms).unwrap_or(i64::MAX))
            .await;
    }

    async fn sleep_until_ms(&self, until_ms: i64) {
        let mut offset = self.shared.offset_ms.subscribe();
        loop {
            let left_ms = until_ms.saturating_sub(self.unix_ms());
            let Some(left_ms) = u64::try_from(left_ms).ok().filter(|left_ms| *left_ms > 0) else {
                return;
            };
            let piece = Duration::from_millis(left_ms).min(SLEEP_PIECE_MAX);
            tokio::select! {
                () = tokio::time::sleep(piece) => {}
                // The sender lives in `self`, so this cannot fail while we wait.
                _ = offset.changed() => {}
            }
        }
    }
}

/// The writing side of a clock file: how a test moves the time of every process that follows it.
#[derive(Clone, Debug)]
pub struct ClockFile {
    path: PathBuf,
}

impl ClockFile {
    /// Creates (or resets) the file at `path` with offset 0.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn create(path: impl Into<PathBuf>) -> io::Result<Self> {
        let file = Self { path: path.into() };
        file.write_offset_ms(0)?;
        Ok(file)
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Moves time forward by `step`. Followers see it within 20 ms and their sleepers wake.
    ///
    /// # Errors
    /// The file cannot be read or written, or was damaged by someone else.
    pub fn advance(&self, step: Duration) -> io::Result<()> {
        let offset_ms = read_offset_ms(&self.path).map_err(io::Error::other)?;
        let step_ms = i64::try_from(step.as_millis()).unwrap_or(i64::MAX);
        self.write_offset_ms(offset_ms.saturating_add(step_ms))
    }

    /// Sets the offset to the system's clock, in milliseconds.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_offset_ms(&self, offset_ms: i64) -> io::Result<()> {
        // Renamed into place, so that no follower ever reads half a number.
        let next = self.path.with_extension("next");
        fs::write(&next, format!("{offset_ms}\n"))?;
        fs::rename(&next, &self.path)
    }
}

fn system_unix_ms() -> i64 {
    #[allow(clippy::disallowed_methods)] // the one reading of the wall clock
    let now = SystemTime::now();
    match now.duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
        Err(before) => -i64::try_from(before.duration().as_millis()).unwrap_or(i64::MAX),
    }
}

fn read_offset_ms(path: &Path) -> Result<i64, ClockError> {
    let text = fs::read_to_string(path).map_err(|source| ClockError::Read {
        path: path.to_owned(),
        source,
    })?;
    text.trim().parse().map_err(|_| ClockError::NotAnOffset {
        path: path.to_owned(),
        found: text,
    })
}

fn follow_file(path: &Path, shared: &Weak<Shared>) {
    let mut complained = false;
    loop {
        thread::sleep(FILE_PERIOD);
        let Some(shared) = shared.upgrade() else {
            return;
        };
        match read_offset_ms(path) {
            Ok(offset_ms) => {
                complained = false;
                shared.offset_ms.send_if_modified(|current| {
                    let moved = *current != offset_ms;
                    *current = offset_ms;
                    moved
                });
            }
            Err(error) if !complained => {
                complained = true;
                tracing::warn!(%error, "keeping the last offset of the clock file");
            }
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn file() -> (tempfile::TempDir, ClockFile) {
        let dir = tempfile::tempdir().unwrap();
        let file = ClockFile::create(dir.path().join("clock")).unwrap();
        (dir, file)
    }

    async fn reach(clock: &Clock, unix_ms: i64) {
        tokio::time::timeout(Duration::from_secs(5), async {
            while clock.unix_ms() < unix_ms {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .unwrap();
    }

    #[tokio::test]
    async fn every_follower_of_a_file_sees_time_advance() {
        let (_dir, file) = file();
        let (one, other) = (
            Clock::from_file(file.path()).unwrap(),
            Clock::from_file(file.path()).unwrap(),
        );
        let before_ms = one.unix_ms();
        file.advance(Duration::from_secs(900)).unwrap();
        reach(&one, before_ms + 900_000).await;
        reach(&other, before_ms + 900_000).await;
        assert!((one.now() - other.now()).abs() < time::Duration::SECOND);
    }

    #[tokio::test]
    async fn a_sleeper_wakes_when_time_is_moved_past_its_end() {
        let (_dir, file) = file();
        let clock = Clock::from_file(file.path()).unwrap();
        let until = clock.now() + time::Duration::hours(1);
        let started = Instant::now();
        let sleeper = tokio::spawn({
            let clock = clock.clone();
            async move { clock.sleep_until(until).await }
        });
        file.advance(Duration::from_secs(3_601)).unwrap();
        tokio::time::timeout(Duration::from_secs(5), sleeper)
            .await
            .unwrap()
            .unwrap();
        assert!(started.elapsed() < Duration::from_secs(5));
        assert!(clock.now() >= until);
    }

    #[tokio::test]
    async fn a_sleeper_does_not_wake_before_its_end() {
        let clock = Clock::system();
        let until = clock.now() + time::Duration::milliseconds(30);
        clock.sleep_until(until).await;
        assert!(clock.now() >= until);
        clock.sleep_until(until).await; // passed: returns at once
        clock.sleep(Duration::ZERO).await;
    }

    #[tokio::test]
    async fn a_damaged_file_keeps_the_last_offset() {
        let (_dir, file) = file();
        file.write_offset_ms(3_600_000).unwrap();
        let clock = Clock::from_file(file.path()).unwrap();
        fs::write(file.path(), "soon").unwrap();
        tokio::time::sleep(FILE_PERIOD * 3).await;
        assert!(clock.unix_ms() > Clock::system().unix_ms() + 3_590_000);
        assert!(matches!(
            Clock::from_file(file.path()),
            Err(ClockError::NotAnOffset { .. })
        ));
    }

    #[test]
    fn a_missing_file_is_an_error_that_says_what_to_do() {
        let error = Clock::from_file("/nowhere/clock").unwrap_err().to_string();
        assert!(error.contains("create it with the content 0"), "{error}");
    }
}
