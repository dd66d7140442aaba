//! Where the PostgreSQL server programs of this machine are.
//! Looks only: installing is the task of `cargo xtask`, or of whoever reads the error.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::PgError;

/// Oldest major version we support.
pub(super) const MAJOR_MIN: u32 = 15;

/// Names the directory to take; set by `cargo xtask` for tests.
const BINDIR_VARIABLES: [&str; 2] = ["POSTRIDER_PG_BINDIR", "PG_BINDIR"];

/// Debian keeps one directory a version here, and `initdb` off PATH.
const DEBIAN_VERSIONS: &str = "/usr/lib/postgresql";

const NEEDED: [&str; 3] = ["postgres", "initdb", "pg_ctl"];

/// One installation of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binaries {
    /// Directory that holds `postgres`, `initdb` and `pg_ctl`.
    pub dir: PathBuf,
    /// Major version, for example 15.
    pub major: u32,
}

impl Binaries {
    /// Finds a server: the directory in `POSTRIDER_PG_BINDIR` or `PG_BINDIR` if set, else one on
    /// PATH, else the newest below `/usr/lib/postgresql`.
    ///
    /// # Errors
    /// None found, or only older than 15. The error says what to install.
    pub fn find() -> Result<Self, PgError> {
        for variable in BINDIR_VARIABLES {
            if let Some(dir) = env::var_os(variable).filter(|dir| !dir.is_empty()) {
                return Self::in_dir(Path::new(&dir));
            }
        }
        let mut found = Self::all();
        found.sort_by_key(|binaries| std::cmp::Reverse(binaries.major));
        // A server on PATH was put there on purpose, unless it is too old.
        let on_path = on_path().filter(|binaries| binaries.major >= MAJOR_MIN);
        let best = on_path.or_else(|| found.into_iter().next());
        best.ok_or(PgError::NoServer)?.new_enough()
    }

    /// The server in `dir`.
    ///
    /// # Errors
    /// A program is missing there, or the version is older than 15.
    pub fn in_dir(dir: &Path) -> Result<Self, PgError> {
        look_into(dir)
            .ok_or_else(|| PgError::NoServerIn {
                dir: dir.to_owned(),
            })?
            .new_enough()
    }

    /// Any installation of the major version `major`, for a data directory that needs it.
    pub(super) fn of_major(major: u32) -> Option<Self> {
        Self::all()
            .into_iter()
            .find(|binaries| binaries.major == major)
    }

    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn all() -> Vec<Self> {
        let debian = fs::read_dir(DEBIAN_VERSIONS)
            .into_iter()
            .flatten()
            .flatten();
        debian
            .filter_map(|entry| look_into(&entry.path().join("bin")))
            .chain(on_path())
            .collect()
    }

    fn new_enough(self) -> Result<Self, PgError> {
        if self.major < MAJOR_MIN {
            return Err(PgError::TooOld {
                dir: self.dir,
                major: self.major,
            });
        }
        Ok(self)
    }
}

fn on_path() -> Option<Binaries> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).find_map(|dir| {
        // `initdb` on PATH is often a link into the directory that has the rest.
        let real = fs::canonicalize(dir.join("initdb")).ok()?;
        look_into(real.parent()?)
    })
}

fn look_into(dir: &Path) -> Option<Binaries> {
    if !NEEDED.iter().all(|name| dir.join(name).is_file()) {
        return None;
    }
    let output = Command::new(dir.join("postgres"))
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .ok()?;
    let major = parse_major(&String::from_utf8_lossy(&output.stdout))?;
    Some(Binaries {
        dir: dir.to_owned(),
        major,
    })
}

/// From `postgres (PostgreSQL) 15.18 (Debian ...)` or `... 18beta1`.
fn parse_major(version_line: &str) -> Option<u32> {
    let (_, version) = version_line.split_once("(PostgreSQL) ")?;
    let digits = version
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(version.len());
    version[..digits].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn major_versions_are_read() {
        for (line, major) in [
            (
                "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n",
                Some(15),
            ),
            ("postgres (PostgreSQL) 18beta1\n", Some(18)),
            ("postgres (PostgreSQL) 17", Some(17)),
            ("postgres (SomethingElse) 9", None),
            ("", None),
        ] {
            assert_eq!(parse_major(line), major, "{line}");
        }
    }

    #[test]
    fn a_directory_without_a_server_is_named() {
        let error = Binaries::in_dir(Path::new("/etc")).unwrap_err().to_string();
        assert!(error.contains("/etc"), "{error}");
    }
}
