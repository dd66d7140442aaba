//! The thread that owns the journal's files: takes all outcomes that wait, writes them at once,
//! makes them durable at once, then tells everyone. Between batches it frees segments, writes
//! checkpoints, keeps a spare ready and finds out whether a failed disk is usable again.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use store::BatchPace;
use tokio::sync::oneshot;

use super::folder::{Folder, OpenSegment, Preparation};
use super::record::{self, Entry, Header, RECORD_BYTES};
use super::{JournalError, Shared, Ticket};

/// Between two checkpoints, and between two tries of a disk that failed.
const MAINTENANCE_PERIOD: Duration = Duration::from_secs(1);
/// A batch is closed at this many octets of payload, so that its first outcome is not kept waiting.
const BATCH_BYTES_MAX: usize = 4 << 20;
/// The longest that an outcome waits for others to join it.
const GATHERING_MAX: Duration = Duration::from_millis(5);

pub(super) type Acknowledge = oneshot::Sender<Result<Ticket, JournalError>>;

/// What the thread is asked to do.
pub(super) enum Command {
    /// Make an outcome durable.
    Append(Vec<u8>, Acknowledge),
    /// Write a last checkpoint and end.
    Close(oneshot::Sender<()>),
}

/// A segment that is no longer written.
#[derive(Debug)]
pub(super) struct Sealed {
    pub(super) path: PathBuf,
    /// Its outcomes have sequences from here ...
    pub(super) first: u64,
    /// ... to below here.
    pub(super) end: u64,
}

/// What the spare is doing.
#[derive(Debug)]
enum Spare {
    Absent,
    Growing(Preparation),
    Ready,
}

#[derive(Debug)]
pub(super) struct Writer {
    folder: Folder,
    shared: Arc<Shared>,
    sealed: Vec<Sealed>,
    /// None after a write failed, until a new segment is opened.
    current: Option<OpenSegment>,
    spare: Spare,
    next_number: u64,
    next_sequence: u64,
    /// One above the last outcome's sequence (checkpoints use up sequences too).
    outcomes_end: u64,
    checkpointed: u64,
    /// When the last checkpoint was written or a failed disk tried.
    maintained: Instant,
    /// When a spare that could not grow may be tried again.
    spare_retry: Instant,
}

impl Writer {
    /// Takes over a folder whose segments have been read, and opens a new segment in it: nothing
    /// is ever written behind what a crash may have left in an old one.
    pub(super) fn start(
        folder: Folder,
        shared: Arc<Shared>,
        sealed: Vec<Sealed>,
        next_number: u64,
        next_sequence: u64,
    ) -> io::Result<Self> {
        let spare = if folder.has_spare() {
            Spare::Ready
        } else {
            Spare::Absent
        };
        let now = Instant::now();
        let mut writer = Self {
            folder,
            shared,
            sealed,
            current: None,
            spare,
            next_number,
            next_sequence,
            outcomes_end: next_sequence,
            checkpointed: 0,
            maintained: now,
            spare_retry: now,
        };
        writer.checkpointed = writer.low_water();
        writer.free_settled();
        writer.open_segment()?;
        writer.report_room();
        Ok(writer)
    }

    /// Runs until closed or until every handle is gone.
    pub(super) fn run(mut self, commands: &Receiver<Command>) {
        let pace = BatchPace::new(Duration::ZERO, GATHERING_MAX);
        loop {
            match commands.recv_timeout(self.patience()) {
                Ok(Command::Append(payload, acknowledge)) => {
                    // As with statements: a fast disk would be asked for a sync by each outcome alone.
                    thread::sleep(pace.next().saturating_duration_since(Instant::now()));
                    let began = Instant::now();
                    pace.begun(began);
                    let (batch, close) = gather((payload, acknowledge), commands);
                    self.write_batch(batch);
                    pace.took(began.elapsed());
                    if let Some(done) = close {
                        return self.close(done);
                    }
                }
                Ok(Command::Close(done)) => return self.close(done),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.maintain();
        }
    }

    /// How long to wait for a command: not at all while a spare is to be written.
    fn patience(&self) -> Duration {
        if matches!(self.spare, Spare::Ready) || Instant::now() < self.spare_retry {
            MAINTENANCE_PERIOD
        } else {
            Duration::ZERO
        }
    }

    fn write_batch(&mut self, batch: Vec<(Vec<u8>, Acknowledge)>) {
        let mut group = Vec::with_capacity(batch.len());
        let mut buffer = Vec::new();
        for (payload, acknowledge) in batch {
            let bytes = buffer.len() + RECORD_BYTES + payload.len();
            if self.room() < bytes as u64 {
                self.commit(&mut buffer, &mut group);
                if let Err(error) = self.open_segment() {
                    let _ = acknowledge.send(Err(self.failed(error)));
                    continue;
                }
            }
            let sequence = self.take_sequence();
            self.outcomes_end = self.next_sequence;
            let salt = self.salt();
            record::encode(&mut buffer, salt, sequence, &Entry::Outcome(payload));
            group.push((sequence, acknowledge));
        }
        self.commit(&mut buffer, &mut group);
    }

    /// Writes the gathered records, and only when they are durable tells those who wait.
    fn commit(&mut self, buffer: &mut Vec<u8>, group: &mut Vec<(u64, Acknowledge)>) {
        let result = self.write(buffer, self.folder.sync);
        buffer.clear();
        match result {
            Ok(()) => {
                self.shared
                    .outstanding()
                    .extend(group.iter().map(|(sequence, _)| *sequence));
                for (sequence, acknowledge) in group.drain(..) {
                    // Whoever gave up waiting leaves an outcome that the next start replays.
                    let _ = acknowledge.send(Ok(Ticket(sequence)));
                }
            }
            Err(error) => {
                let error = self.failed(error);
                for (_, acknowledge) in group.drain(..) {
                    let _ = acknowledge.send(Err(error.clone()));
                }
            }
        }
    }

    fn write(&mut self, records: &[u8], sync: bool) -> io::Result<()> {
        if records.is_empty() {
            return Ok(());
        }
        let Some(current) = &mut self.current else {
            return Err(io::Error::other("no segment is open"));
        };
        current.write(records, sync)?;
        if self.shared.failed.swap(false, Ordering::AcqRel) {
            tracing::info!("the journal can be written again");
        }
        Ok(())
    }

    /// After a failed write the segment is left as it is: see [`OpenSegment::write`].
    fn failed(&mut self, error: io::Error) -> JournalError {
        if !self.shared.failed.swap(true, Ordering::AcqRel) {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                dir = %self.folder.dir.display(),
                "cannot write the journal: no new final dots until it can be written again"
            );
        }
        self.seal_current();
        self.report_room();
        JournalError::Write {
            source: Arc::new(error),
        }
    }

    fn take_sequence(&mut self) -> u64 {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        sequence
    }

    fn room(&self) -> u64 {
        self.current
            .as_ref()
            .map_or(0, |segment| segment.room(&self.folder))
    }

    fn salt(&self) -> u32 {
        self.current
            .as_ref()
            .map_or(0, |segment| segment.header.salt)
    }

    fn seal_current(&mut self) {
        if let Some(segment) = self.current.take() {
            self.sealed.push(Sealed {
                path: segment.path,
                first: segment.header.first_sequence,
                end: self.outcomes_end,
            });
        }
    }

    /// Makes the spare the current segment; without a spare, writes one first.
    fn open_segment(&mut self) -> io::Result<()> {
        while !matches!(self.spare, Spare::Ready) {
            self.grow_spare()?;
        }
        let segment = self.folder.activate(Header {
            salt: rand::random(),
            number: self.next_number,
            first_sequence: self.next_sequence,
        });
        // Also after an error: whether the spare has changed its name is then unknown.
        self.spare = Spare::Absent;
        let segment = segment?;
        self.seal_current();
        self.next_number += 1;
        self.current = Some(segment);
        Ok(())
    }

    fn grow_spare(&mut self) -> io::Result<()> {
        match &mut self.spare {
            Spare::Ready => {}
            Spare::Absent if self.folder.has_spare() => self.spare = Spare::Ready,
            Spare::Absent => self.spare = Spare::Growing(self.folder.prepare()?),
            Spare::Growing(preparation) => {
                if self.folder.advance(preparation)? {
                    self.spare = Spare::Ready;
                }
            }
        }
        Ok(())
    }

    fn maintain(&mut self) {
        self.free_settled();
        let now = Instant::now();
        if now >= self.spare_retry
            && let Err(error) = self.grow_spare()
        {
            self.spare_retry = now + MAINTENANCE_PERIOD;
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "cannot reserve disk space for the journal"
            );
        }
        if now.duration_since(self.maintained) >= MAINTENANCE_PERIOD {
            self.maintained = now;
            if let Err(error) = self.checkpoint(false) {
                self.failed(error);
            }
        }
        self.report_room();
    }

    /// Records how far everything is settled; on a failed disk this is the try that finds out.
    fn checkpoint(&mut self, closing: bool) -> io::Result<()> {
        let failed = self.shared.failed.load(Ordering::Acquire);
        let below = self.low_water();
        if below <= self.checkpointed && !failed {
            return Ok(());
        }
        if self.room() < RECORD_BYTES as u64 + 8 {
            // Full segments are replaced by the next outcome, failed ones by this try.
            if !failed {
                return Ok(());
            }
            self.open_segment()?;
        }
        let mut record = Vec::new();
        let sequence = self.take_sequence();
        record::encode(
            &mut record,
            self.salt(),
            sequence,
            &Entry::Checkpoint(below),
        );
        // Not made durable by itself: a lost checkpoint only makes the next replay longer.
        self.write(&record, self.folder.sync && (failed || closing))?;
        self.checkpointed = below;
        Ok(())
    }

    /// Every outcome below this is settled.
    fn low_water(&self) -> u64 {
        self.shared
            .outstanding()
            .first()
            .copied()
            .unwrap_or(self.outcomes_end)
    }

    /// Takes segments without an unsettled outcome out of the log, wherever they stand in it: one
    /// outcome that waits long must not keep all that came later.
    ///
    /// What such a segment knew of checkpoints goes with it, which can only lengthen a replay.
    fn free_settled(&mut self) {
        let segments = std::mem::take(&mut self.sealed);
        let (free, kept) = {
            let outstanding = self.shared.outstanding();
            segments.into_iter().partition::<Vec<_>, _>(|segment| {
                let outcomes = segment.first..segment.end.max(segment.first);
                outstanding.range(outcomes).next().is_none()
            })
        };
        self.sealed = kept;
        for segment in free {
            if let Err(error) = self.folder.retire(&segment.path) {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    path = %segment.path.display(),
                    "cannot free a settled journal segment"
                );
            } else if !matches!(self.spare, Spare::Ready) && self.folder.has_spare() {
                self.folder.abandon_draft();
                self.spare = Spare::Ready;
            }
        }
    }

    /// Room means: whatever is in flight now can still be recorded, even if the disk gives us
    /// nothing more. Half a segment holds the outcomes of far more attempts than a node has open.
    fn report_room(&self) {
        let room = !self.shared.failed.load(Ordering::Acquire)
            && self.current.is_some()
            && (matches!(self.spare, Spare::Ready) || self.room() >= self.folder.segment_bytes / 2);
        self.shared.has_room.store(room, Ordering::Release);
    }

    fn close(mut self, done: oneshot::Sender<()>) {
        self.shared.has_room.store(false, Ordering::Release);
        if let Err(error) = self.checkpoint(true) {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "cannot write the journal's last checkpoint"
            );
        }
        let _ = done.send(());
    }
}

/// An outcome that waits to be written.
type Pending = (Vec<u8>, Acknowledge);

/// Everything that waits already, without waiting for more.
fn gather(
    first: Pending,
    commands: &Receiver<Command>,
) -> (Vec<Pending>, Option<oneshot::Sender<()>>) {
    let mut bytes = first.0.len();
    let mut batch = vec![first];
    while bytes < BATCH_BYTES_MAX {
        match commands.try_recv() {
            Ok(Command::Append(payload, acknowledge)) => {
                bytes += payload.len();
                batch.push((payload, acknowledge));
            }
            Ok(Command::Close(done)) => return (batch, Some(done)),
            Err(_) => break,
        }
    }
    (batch, None)
}
