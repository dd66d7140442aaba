//! Where a private cluster lives and as whom it runs: its directories, their owner, its socket.
//! Decides and prepares; starts nothing.

use std::env;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::PgError;
use crate::process::{User, own_uid, unprivileged_user};

/// Longest path of a Unix socket: `sun_path` has 108 octets with its final NUL.
const SOCKET_PATH_MAX: usize = 107;

/// Name of the socket in its directory; the port is part of it.
pub(super) const SOCKET_NAME: &str = ".s.PGSQL.5432";

/// The directories of one cluster and the user who owns them.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) base: PathBuf,
    pub(super) data: PathBuf,
    /// Whom to become for the server; none when we are not root.
    become_user: Option<User>,
    uid: u32,
}

impl Place {
    /// Makes the base directory if needed and gives it to the user the server will run as.
    pub(super) fn prepare(base: &Path) -> Result<Self, PgError> {
        let io_error = |doing, source| PgError::Io {
            doing,
            path: base.to_owned(),
            source,
        };
        let own = own_uid().map_err(|source| io_error("ask who runs this process at", source))?;
        let become_user = if own == 0 {
            // PostgreSQL refuses to run as root.
            Some(unprivileged_user().map_err(|source| io_error("choose an owner for", source))?)
        } else {
            None
        };
        fs::create_dir_all(base).map_err(|source| io_error("create", source))?;
        let base = fs::canonicalize(base).map_err(|source| io_error("resolve", source))?;
        let uid = become_user.as_ref().map_or(own, |user| user.uid);
        let place = Self {
            data: base.join("data"),
            base,
            become_user,
            uid,
        };
        place.give(&place.base)?;
        place.check_reachable()?;
        Ok(place)
    }

    pub(super) fn log(&self) -> PathBuf {
        self.base.join("postgresql.log")
    }

    /// Makes `path` private to the server's user.
    pub(super) fn give(&self, path: &Path) -> Result<(), PgError> {
        let io_error = |source| PgError::Io {
            doing: "set owner of",
            path: path.to_owned(),
            source,
        };
        if let Some(user) = &self.become_user {
            chown(path, Some(user.uid), Some(user.gid)).map_err(io_error)?;
        }
        let mode = if path.is_dir() { 0o700 } else { 0o600 };
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(io_error)
    }

    /// A program that runs as the server's user, in the base directory, untouched by `PG*`
    /// variables of whoever started us.
    pub(super) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(&self.base)
            .stdin(Stdio::null())
            .env_clear()
            .env("LC_ALL", "C");
        if let Some(path) = env::var_os("PATH") {
            command.env("PATH", path);
        }
        if let Some(user) = &self.become_user {
            command.uid(user.uid).gid(user.gid);
        }
        command
    }

    /// A directory for the socket: private, short, and the same at every start.
    pub(super) fn socket_dir(&self) -> Result<PathBuf, PgError> {
        let name = format!(
            "pr-{:016x}",
            fnv1a(self.base.as_os_str().as_encoded_bytes(), self.uid)
        );
        let mut tried = Vec::new();
        for parent in self.socket_parents() {
            let dir = parent.join(&name);
            if dir.as_os_str().len() + 1 + SOCKET_NAME.len() <= SOCKET_PATH_MAX
                && self.claim_socket_dir(&dir).is_ok()
            {
                return Ok(dir);
            }
            tried.push(dir);
        }
        Err(PgError::SocketDir { tried })
    }

    fn socket_parents(&self) -> Vec<PathBuf> {
        let private = if self.become_user.is_some() {
            Some(PathBuf::from("/run"))
        } else {
            env::var_os("XDG_RUNTIME_DIR")
                .map(PathBuf::from)
                .filter(|dir| dir.is_absolute())
        };
        private.into_iter().chain([PathBuf::from("/tmp")]).collect()
    }

    /// Everyone may write to /tmp: a directory or link that someone else put there is not taken.
    fn claim_socket_dir(&self, dir: &Path) -> Result<(), PgError> {
        let io_error = |source| PgError::Io {
            doing: "create",
            path: dir.to_owned(),
            source,
        };
        match fs::DirBuilder::new().mode(0o700).create(dir) {
            Ok(()) => return self.give(dir),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(io_error(error)),
        }
        let found = fs::symlink_metadata(dir).map_err(io_error)?;
        if found.is_dir() && found.uid() == self.uid && found.mode() & 0o077 == 0 {
            return Ok(());
        }
        Err(io_error(io::Error::from(io::ErrorKind::PermissionDenied)))
    }

    fn check_reachable(&self) -> Result<(), PgError> {
        let Some(user) = &self.become_user else {
            return Ok(());
        };
        let mut enter = self.command(Path::new("/bin/sh"));
        enter
            .current_dir("/")
            .args(["-c", "cd \"$1\"", "sh"])
            .arg(&self.base);
        match enter.output().map(|output| output.status) {
            Ok(status) if status.success() => Ok(()),
            _ => Err(PgError::Unreachable {
                dir: self.base.clone(),
                user: user.name.clone(),
            }),
        }
    }
}

/// Where `postrider dev` keeps its cluster: `/var/lib/postrider-dev` for root, whose home the
/// server's user may not enter; else `postrider-dev` in the user's data directory.
///
/// # Errors
/// Not root, and neither `XDG_DATA_HOME` nor `HOME` is set.
pub fn default_base_dir() -> Result<PathBuf, PgError> {
    if own_uid().is_ok_and(|uid| uid == 0) {
        return Ok(PathBuf::from("/var/lib/postrider-dev"));
    }
    let absolute = |name| {
        env::var_os(name)
            .map(PathBuf::from)
            .filter(|dir| dir.is_absolute())
    };
    absolute("XDG_DATA_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/share")))
        .map(|data| data.join("postrider-dev"))
        .ok_or(PgError::NoHome)
}

/// FNV-1a, 64 bits: names a directory; stable over compiler versions, unlike the std hasher.
fn fnv1a(bytes: &[u8], uid: u32) -> u64 {
    bytes
        .iter()
        .chain(&uid.to_be_bytes())
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_stays_within_its_limit_however_long_the_data_path_is() {
        let dir = tempfile::tempdir_in("/tmp").unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let place = Place::prepare(&dir.path().join("x".repeat(150))).unwrap();
        let socket_dir = place.socket_dir().unwrap();
        assert!(socket_dir.join(SOCKET_NAME).as_os_str().len() <= SOCKET_PATH_MAX);
        assert_eq!(
            place.socket_dir().unwrap(),
            socket_dir,
            "the same at every start"
        );
        fs::remove_dir(socket_dir).unwrap();
    }

    #[test]
    fn a_socket_directory_open_to_others_is_not_taken() {
        let dir = tempfile::tempdir_in("/tmp").unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let place = Place::prepare(&dir.path().join("base")).unwrap();
        let open = dir.path().join("open");
        fs::create_dir(&open).unwrap();
        place.give(&open).unwrap();
        assert!(place.claim_socket_dir(&open).is_ok());
        fs::set_permissions(&open, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(place.claim_socket_dir(&open).is_err());
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(place.base.as_path(), &link).unwrap();
        assert!(place.claim_socket_dir(&link).is_err());
    }

    #[test]
    fn a_base_that_the_server_user_cannot_enter_is_an_error_with_advice() {
        if own_uid().unwrap() != 0 {
            eprintln!("SKIPPED: only root runs the server as another user");
            return;
        }
        let dir = tempfile::tempdir_in("/tmp").unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let error = Place::prepare(&dir.path().join("base"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("cannot be entered"), "{error}");
    }
}
