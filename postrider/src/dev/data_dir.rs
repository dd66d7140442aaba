//! The directory of `postrider dev`: held by one process at a time, and the keys kept in it so
//! that programs written against one start work with the next. Knows no database.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use api::keys::{self, KeyMode};
use serde::{Deserialize, Serialize};

/// Others may pass through but not look: as root, PostgreSQL runs as another user. Every file and
/// directory inside has its own, narrower mode.
const DIR_MODE: u32 = 0o711;
const KEYS_FILE: &str = "keys.json";

/// An open data directory, locked until dropped.
pub(super) struct DataDir {
    path: PathBuf,
    /// Never read: the lock ends with it.
    _lock: File,
}

/// Secrets that are the same at every start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct DevKeys {
    pub(super) api_key: String,
    pub(super) test_key: String,
    pub(super) inbox_token: String,
}

impl DataDir {
    /// Opens `path`, made if missing.
    ///
    /// # Errors
    /// Another process has it, or it cannot be written.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        DirBuilder::new()
            .recursive(true)
            .mode(DIR_MODE)
            .create(path)
            .with_context(|| format!("could not create {shown}: choose another --data-dir"))?;
        let path = path
            .canonicalize()
            .with_context(|| format!("could not resolve {shown}"))?;
        let lock_path = path.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&lock_path)
            .with_context(|| format!("could not write to {shown}: choose another --data-dir"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let holder = fs::read_to_string(&lock_path).unwrap_or_default();
                bail!(
                    "{shown} is in use by another `postrider dev` (process {}): stop that one, or \
                     give this one a --data-dir and a --listen of its own",
                    holder.trim()
                );
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("could not lock {shown}"));
            }
        }
        lock.set_len(0)
            .and_then(|()| writeln!(&lock, "{}", std::process::id()))
            .with_context(|| format!("could not write to {shown}"))?;
        Ok(Self { path, _lock: lock })
    }

    /// The directory itself.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Where PostgreSQL lives.
    pub(super) fn postgres(&self) -> PathBuf {
        self.path.join("postgres")
    }

    /// The state directory of the node.
    pub(super) fn node(&self) -> PathBuf {
        self.path.join("node")
    }

    /// The kept keys; made at the first start.
    ///
    /// # Errors
    /// The file cannot be read or written, or was damaged.
    pub(super) fn keys(&self) -> anyhow::Result<DevKeys> {
        let path = self.path.join(KEYS_FILE);
        match fs::read_to_string(&path) {
            Ok(text) => serde_json::from_str(&text).with_context(|| {
                format!(
                    "{} is damaged: delete it, and new keys are made",
                    path.display()
                )
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let keys = DevKeys::generate();
                write_private(&path, &serde_json::to_string_pretty(&keys)?)
                    .with_context(|| format!("could not write {}", path.display()))?;
                Ok(keys)
            }
            Err(error) => Err(error).with_context(|| format!("could not read {}", path.display())),
        }
    }
}

impl DevKeys {
    fn generate() -> Self {
        Self {
            api_key: keys::generate(KeyMode::Live, rand::random()).secret,
            test_key: keys::generate(KeyMode::Test, rand::random()).secret,
            inbox_token: mail::ids::encode_base32(rand::random()),
        }
    }
}

/// Written aside and renamed: an interrupted start leaves no half file.
fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let next = path.with_extension("next");
    let mut file = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(&next)?;
    writeln!(file, "{text}")?;
    file.sync_all()?;
    fs::rename(next, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn keys_stay_the_same_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        let first = DataDir::open(&path).unwrap().keys().unwrap();
        assert_eq!(DataDir::open(&path).unwrap().keys().unwrap(), first);
        assert!(first.api_key.starts_with("pr_live_") && first.test_key.starts_with("pr_test_"));
        let mode = fs::metadata(path.join(KEYS_FILE))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::write(path.join(KEYS_FILE), "{").unwrap();
        let error = DataDir::open(&path)
            .unwrap()
            .keys()
            .unwrap_err()
            .to_string();
        assert!(error.contains("keys.json is damaged"), "{error}");
    }

    #[test]
    fn one_directory_is_for_one_process() {
        let dir = tempfile::tempdir().unwrap();
        let _held = DataDir::open(dir.path()).unwrap();
        let Err(error) = DataDir::open(dir.path()) else {
            panic!("opened twice")
        };
        let own = format!("process {}", std::process::id());
        assert!(error.to_string().contains(&own), "{error}");
    }
}
