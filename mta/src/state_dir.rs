//! The directory a node keeps between its lives: who it is, the highest lease epoch it has seen,
//! and its journal. Held by an exclusive lock, so that no two processes are ever the same node.
//! Knows nothing of leases or outcomes; does blocking I/O.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use mail::ids::{NodeId, uuid_v7};
use thiserror::Error;
use time::OffsetDateTime;

const LOCK_FILE: &str = "lock";
const NODE_FILE: &str = "node_id";
const EPOCH_FILE: &str = "epoch_floor";
const JOURNAL_DIR: &str = "journal";

/// Why a state directory cannot be used.
#[derive(Debug, Error)]
pub enum StateDirError {
    /// Another process is this node.
    #[error(
        "state directory {} is in use by {}: stop that process, or give this one a state \
         directory of its own",
        path.display(),
        holder_text(*.holder)
    )]
    Held {
        /// The directory.
        path: PathBuf,
        /// The process that holds the lock, where the lock file tells.
        holder: Option<u32>,
    },
    /// The operating system refused.
    #[error("cannot {operation} {}: check that this user may write there", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file of ours holds something we never write.
    #[error(
        "{} does not hold {expected}: restore it from a backup; if there is none, move the whole \
         state directory away to start as a new node",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What should be in it.
        expected: &'static str,
    },
}

fn holder_text(holder: Option<u32>) -> String {
    holder.map_or_else(
        || "another process".to_owned(),
        |pid| format!("process {pid}"),
    )
}

/// A node's state directory, locked for as long as this value lives.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    node_id: NodeId,
    epoch_floor: Mutex<i64>,
    /// Never read: the lock ends when this is closed.
    _lock: File,
}

impl StateDir {
    /// Opens `path`, creating it (mode 0700) when it is missing, and locks it. At the first open
    /// a node id is made from `now` and `random`; later opens ignore both.
    ///
    /// # Errors
    /// `Held` when another process has it, `Io` and `Damaged` as they say.
    pub fn open(path: &Path, now: OffsetDateTime, random: [u8; 10]) -> Result<Self, StateDirError> {
        create_dir(path)?;
        let lock = take_lock(path)?;
        let node_id = match read_value::<NodeId>(&path.join(NODE_FILE), "a node id")? {
            Some(node_id) => node_id,
            None => {
                let unix_ms = u64::try_from(now.unix_timestamp_nanos() / 1_000_000).unwrap_or(0);
                let node_id = NodeId::from_uuid(uuid_v7(unix_ms, random));
                write_atomically(path, NODE_FILE, &node_id.to_string())?;
                node_id
            }
        };
        let epoch_floor = read_value(&path.join(EPOCH_FILE), "a lease epoch")?.unwrap_or(0);
        create_dir(&path.join(JOURNAL_DIR))?;
        Ok(Self {
            path: path.to_owned(),
            node_id,
            epoch_floor: Mutex::new(epoch_floor),
            _lock: lock,
        })
    }

    /// Who this node is, the same at every start.
    pub fn node_id(&self) -> NodeId {
        self.node_id
    }

    /// Where the journal lives; exists.
    pub fn journal_dir(&self) -> PathBuf {
        self.path.join(JOURNAL_DIR)
    }

    /// The highest lease epoch this node ever held. A new lease must be above it, even when the
    /// database was restored from an older backup.
    pub fn epoch_floor(&self) -> i64 {
        *self
            .epoch_floor
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers `epoch` if it is above the floor; on disk when this returns.
    ///
    /// # Errors
    /// `Io`; the floor is then unchanged.
    pub fn raise_epoch_floor(&self, epoch: i64) -> Result<(), StateDirError> {
        let mut floor = self
            .epoch_floor
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if epoch > *floor {
            write_atomically(&self.path, EPOCH_FILE, &epoch.to_string())?;
            *floor = epoch;
        }
        Ok(())
    }
}

fn at<'a>(operation: &'static str, path: &'a Path) -> impl Fn(io::Error) -> StateDirError + 'a {
    move |source| StateDirError::Io {
        operation,
        path: path.to_owned(),
        source,
    }
}

/// Creates what is missing of `path`, and has each new name on disk before anything is kept in it.
fn create_dir(path: &Path) -> Result<(), StateDirError> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    create_dir(parent)?;
    DirBuilder::new()
        .mode(0o700)
        .create(path)
        .and_then(|()| File::open(parent)?.sync_all())
        .map_err(at("create", path))
}

/// The lock belongs to the open file, not to its name or content: it ends with the process, however
/// that dies. The number written inside is for people.
fn take_lock(dir: &Path) -> Result<File, StateDirError> {
    let path = dir.join(LOCK_FILE);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(at("open", &path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            return Err(StateDirError::Held {
                path: dir.to_owned(),
                holder: text.trim().parse().ok(),
            });
        }
        Err(TryLockError::Error(source)) => return Err(at("lock", &path)(source)),
    }
    file.set_len(0).map_err(at("write", &path))?;
    writeln!(file, "{}", std::process::id()).map_err(at("write", &path))?;
    Ok(file)
}

fn read_value<T: FromStr>(path: &Path, expected: &'static str) -> Result<Option<T>, StateDirError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(at("read", path)(error)),
    };
    String::from_utf8_lossy(&bytes)
        .trim()
        .parse()
        .map(Some)
        .map_err(|_| StateDirError::Damaged {
            path: path.to_owned(),
            expected,
        })
}

/// All of the new text or all of the old, also after a power cut: the new file is complete on disk
/// before it takes the name, and the name is on disk before this returns.
fn write_atomically(dir: &Path, name: &str, text: &str) -> Result<(), StateDirError> {
    let path = dir.join(name);
    let draft = dir.join(format!("{name}.new"));
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&draft)?;
        writeln!(file, "{text}")?;
        file.sync_all()?;
        std::fs::rename(&draft, &path)?;
        File::open(dir)?.sync_all()
    };
    write().map_err(at("write", &path))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-03-01 12:00 UTC);

    fn open(path: &Path, random: u8) -> Result<StateDir, StateDirError> {
        StateDir::open(path, NOW, [random; 10])
    }

    #[test]
    fn a_node_keeps_its_id_and_its_epoch_floor() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("a/b");
        let first = open(&path, 1).unwrap();
        let node_id = first.node_id();
        assert_eq!(node_id.unix_ms(), 1_772_366_400_000);
        assert_eq!(first.epoch_floor(), 0);
        first.raise_epoch_floor(7).unwrap();
        first.raise_epoch_floor(5).unwrap();
        assert_eq!(first.epoch_floor(), 7);
        drop(first);

        let second = open(&path, 2).unwrap();
        assert_eq!((second.node_id(), second.epoch_floor()), (node_id, 7));
        assert!(second.journal_dir().is_dir());
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn two_processes_are_never_the_same_node() {
        let home = tempfile::tempdir().unwrap();
        let held = open(home.path(), 1).unwrap();
        let error = open(home.path(), 2).unwrap_err();
        let pid = std::process::id();
        assert!(matches!(error, StateDirError::Held { holder: Some(holder), .. } if holder == pid));
        assert!(
            error
                .to_string()
                .contains(&format!("in use by process {pid}: stop"))
        );
        drop(held);
        open(home.path(), 2).unwrap();
    }

    #[test]
    fn a_damaged_file_is_named_and_left_alone() {
        let home = tempfile::tempdir().unwrap();
        drop(open(home.path(), 1).unwrap());
        let path = home.path().join(NODE_FILE);
        std::fs::write(&path, b"\xffnonsense").unwrap();
        let error = open(home.path(), 2).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("node_id does not hold a node id"),
            "{error}"
        );
        assert_eq!(std::fs::read(&path).unwrap(), b"\xffnonsense");
    }

    #[test]
    fn a_path_that_is_no_directory_is_an_error_that_names_it() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("file");
        std::fs::write(&path, "").unwrap();
        let error = open(&path, 1).unwrap_err();
        assert!(error.to_string().contains("cannot create"), "{error}");
    }
}
