//! Outcomes that survive `kill -9` and power loss: a local, append-only log between reading a
//! final reply and settling it in the database. An outcome is appended before the next command
//! goes out on its connection, and replayed at every start until it is known to be settled.
//!
//! Knows bytes and tickets only: what an outcome says, and when a final dot may go out, is decided
//! elsewhere. Replaying an outcome that was settled already must be harmless to its reader.

mod crc32c;
mod folder;
mod record;
mod writer;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use thiserror::Error;
use tokio::sync::oneshot;

use folder::Folder;
use record::{Entry, HEADER_BYTES, Header, RECORD_BYTES};
use writer::{Command, Sealed, Writer};

/// Octets of the longest payload, in a segment that is large enough.
pub const PAYLOAD_BYTES_MAX: usize = 1 << 20;
/// Octets of the smallest segment.
pub const SEGMENT_BYTES_MIN: u64 = 1024;

/// How the journal uses the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalConfig {
    /// Octets of one segment file; two to three of them exist at most times.
    pub segment_bytes: u64,
    /// Whether an append is acknowledged only after fdatasync. Without it an outcome survives the
    /// death of the process, but not of the machine.
    pub sync: bool,
}

impl Default for JournalConfig {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            sync: true,
        }
    }
}

/// Names an appended outcome until it is settled; means nothing in another life of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

/// An outcome of a former life that is not known to be settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replayed {
    /// To say that it is settled.
    pub ticket: Ticket,
    /// What was appended.
    pub payload: Vec<u8>,
}

/// What could not be read when the journal was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Damage {
    /// Records that were overwritten or cut while later ones are intact. Their deliveries have
    /// open intents and are ambiguous.
    pub records_lost: u64,
    /// Segments whose header cannot be read; kept beside the others as `*.damaged`.
    pub segments_lost: u64,
}

/// Why the journal cannot be opened or written.
#[derive(Debug, Clone, Error)]
pub enum JournalError {
    /// The directory cannot be read, or there is no space for a first segment.
    #[error("cannot {operation} the journal in {}: it needs a writable directory with room", dir.display())]
    Open {
        /// What was tried.
        operation: &'static str,
        /// The journal's directory.
        dir: PathBuf,
        /// What the system said.
        #[source]
        source: Arc<io::Error>,
    },
    /// The configured segment is too small.
    #[error("journal segments need at least {SEGMENT_BYTES_MIN} octets, not {0}")]
    SegmentTooSmall(u64),
    /// The outcome is on no disk.
    #[error("cannot write the journal")]
    Write {
        /// What the system said.
        #[source]
        source: Arc<io::Error>,
    },
    /// The payload does not fit.
    #[error("an outcome of {bytes} octets is more than the journal takes ({max})")]
    TooLarge {
        /// Octets of the payload.
        bytes: usize,
        /// Octets allowed.
        max: usize,
    },
    /// [`Journal::close`] was called.
    #[error("the journal is closed")]
    Closed,
}

/// What the handle and the writing thread share.
#[derive(Debug, Default)]
struct Shared {
    outstanding: Mutex<BTreeSet<u64>>,
    has_room: AtomicBool,
    /// The last write failed and none has succeeded since.
    failed: AtomicBool,
}

impl Shared {
    fn outstanding(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        self.outstanding
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// An open journal. One process has it open at a time, which the state directory's lock ensures.
#[derive(Debug)]
pub struct Journal {
    shared: Arc<Shared>,
    /// None only while being dropped.
    commands: Option<Sender<Command>>,
    thread: Option<JoinHandle<()>>,
    payload_bytes_max: usize,
    damage: Damage,
}

impl Journal {
    /// Opens the journal in `dir`, creating it when missing, and gives back every outcome that is
    /// not known to be settled, oldest first. Blocks: reads all segments, and at the first open
    /// writes a segment of zeros.
    ///
    /// # Errors
    /// `Open` and `SegmentTooSmall`. Unreadable records are no error: see [`Journal::damage`].
    pub fn open(dir: &Path, config: JournalConfig) -> Result<(Self, Vec<Replayed>), JournalError> {
        if config.segment_bytes < SEGMENT_BYTES_MIN {
            return Err(JournalError::SegmentTooSmall(config.segment_bytes));
        }
        let during = |operation| {
            move |source| JournalError::Open {
                operation,
                dir: dir.to_owned(),
                source: Arc::new(source),
            }
        };
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(during("create"))?;
        let folder = Folder {
            dir: dir.to_owned(),
            segment_bytes: config.segment_bytes,
            sync: config.sync,
        };
        folder.abandon_draft();
        let past = Past::read(&folder).map_err(during("read"))?;

        let shared = Arc::new(Shared::default());
        shared.outstanding().extend(past.unsettled.keys());
        let writer = Writer::start(
            folder,
            Arc::clone(&shared),
            past.sealed,
            past.next_number,
            past.next_sequence,
        )
        .map_err(during("write"))?;
        let (commands, received) = channel();
        let thread = std::thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || writer.run(&received))
            .map_err(during("start the thread of"))?;

        let segment_room = config.segment_bytes as usize - HEADER_BYTES - RECORD_BYTES;
        let journal = Self {
            shared,
            commands: Some(commands),
            thread: Some(thread),
            payload_bytes_max: PAYLOAD_BYTES_MAX.min(segment_room),
            damage: past.damage,
        };
        let replayed = past
            .unsettled
            .into_iter()
            .map(|(sequence, payload)| Replayed {
                ticket: Ticket(sequence),
                payload,
            })
            .collect();
        Ok((journal, replayed))
    }

    /// Makes an outcome durable; it is when this returns. Many callers share one fdatasync.
    ///
    /// Await it to the end: if the future is dropped the outcome may still be written, and stays
    /// unsettled until the next start replays it.
    ///
    /// # Errors
    /// `Write` with the system's error, `TooLarge`, `Closed`. The outcome must then be taken as
    /// not recorded.
    pub async fn append(&self, payload: Vec<u8>) -> Result<Ticket, JournalError> {
        if payload.len() > self.payload_bytes_max {
            return Err(JournalError::TooLarge {
                bytes: payload.len(),
                max: self.payload_bytes_max,
            });
        }
        let (acknowledge, acknowledged) = oneshot::channel();
        self.command(Command::Append(payload, acknowledge))?;
        acknowledged.await.map_err(|_| JournalError::Closed)?
    }

    /// Says that the database has this outcome. Cheap; on disk a second later or so, which is
    /// soon enough because a settled outcome may be replayed.
    pub fn settled(&self, ticket: Ticket) {
        self.shared.outstanding().remove(&ticket.0);
    }

    /// Whether the outcome of one more attempt is sure to find a place. False on a disk that is
    /// full or fails, until it can be written again; then no new final dot may go out.
    pub fn has_room(&self) -> bool {
        self.shared.has_room.load(Ordering::Acquire)
    }

    /// How many outcomes are not settled, replayed ones included.
    pub fn unsettled(&self) -> usize {
        self.shared.outstanding().len()
    }

    /// What could not be read at opening.
    pub fn damage(&self) -> Damage {
        self.damage
    }

    /// Writes what waits and a last checkpoint, and ends the thread. Later appends are `Closed`.
    pub async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.command(Command::Close(done)).is_ok() {
            // An error means that another call has closed it.
            let _ = closed.await;
        }
    }

    fn command(&self, command: Command) -> Result<(), JournalError> {
        self.commands
            .as_ref()
            .and_then(|commands| commands.send(command).ok())
            .ok_or(JournalError::Closed)
    }
}

impl Drop for Journal {
    /// Ends the thread without a checkpoint, after what it was asked already, so that nobody
    /// writes these files when the next journal is opened on them.
    fn drop(&mut self) {
        drop(self.commands.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What former lives left in the folder.
#[derive(Debug, Default)]
struct Past {
    unsettled: BTreeMap<u64, Vec<u8>>,
    sealed: Vec<Sealed>,
    next_number: u64,
    next_sequence: u64,
    damage: Damage,
}

impl Past {
    fn read(folder: &Folder) -> io::Result<Self> {
        let mut past = Self {
            next_number: 1,
            next_sequence: 1,
            ..Self::default()
        };
        for (number, path) in folder.segments()? {
            past.next_number = number + 1;
            let bytes = std::fs::read(&path)?;
            match Header::decode(&bytes).filter(|header| header.number == number) {
                Some(header) => past.take_segment(path, header, &bytes),
                None => {
                    folder.set_aside(&path)?;
                    past.damage.segments_lost += 1;
                    tracing::error!(path = %path.display(), "journal segment has no sound header");
                }
            }
        }
        Ok(past)
    }

    fn take_segment(&mut self, path: PathBuf, header: Header, bytes: &[u8]) {
        let contents = record::read(header, bytes);
        if contents.lost > 0 {
            self.damage.records_lost += contents.lost;
            tracing::error!(
                path = %path.display(),
                records = contents.lost,
                "journal segment is damaged; the deliveries of the lost outcomes are ambiguous"
            );
        }
        let mut end = header.first_sequence;
        for (sequence, entry) in contents.entries {
            end = sequence + 1;
            match entry {
                Entry::Outcome(payload) => {
                    self.unsettled.insert(sequence, payload);
                }
                Entry::Checkpoint(below) => self.unsettled = self.unsettled.split_off(&below),
            }
        }
        self.next_sequence = self.next_sequence.max(end);
        self.sealed.push(Sealed {
            path,
            first: header.first_sequence,
            end,
        });
    }
}

#[cfg(test)]
mod tests;
