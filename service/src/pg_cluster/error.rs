//! What can go wrong with a private cluster, said so that the reader knows what to do next.

use std::io;
use std::path::PathBuf;

/// Why a private PostgreSQL cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PgError {
    /// The machine has no server programs.
    #[error(
        "found no PostgreSQL server: run `cargo xtask bootstrap`, or install one \
         (Debian, Ubuntu: apt-get install postgresql), or set PG_BINDIR to the directory of initdb"
    )]
    NoServer,
    /// The named directory has no server programs.
    #[error("{dir} does not hold postgres, initdb and pg_ctl: correct PG_BINDIR, or unset it")]
    NoServerIn {
        /// As named.
        dir: PathBuf,
    },
    /// The server is too old.
    #[error("{dir} holds PostgreSQL {major}, needed is 15 or newer: install it, or set PG_BINDIR")]
    TooOld {
        /// Where it is.
        dir: PathBuf,
        /// Its version.
        major: u32,
    },
    /// The data was written by another major version.
    #[error(
        "{data} was made by PostgreSQL {needed}, but only {found} is installed: install version \
         {needed}, or move the data with pg_upgrade, or delete the directory to start empty"
    )]
    OtherMajor {
        /// The data directory.
        data: PathBuf,
        /// Version in the data directory.
        needed: String,
        /// Version of the server found.
        found: u32,
    },
    /// Root's choice of directory shuts the server's user out.
    #[error(
        "{dir} cannot be entered by the user {user}, as whom PostgreSQL runs when root starts it: \
         choose a directory that others may enter, such as /var/lib/postrider-dev, or start as a \
         normal user"
    )]
    Unreachable {
        /// The base directory.
        dir: PathBuf,
        /// The user.
        user: String,
    },
    /// No directory for the socket.
    #[error("none of {tried:?} can be a private socket directory: remove them if they are yours")]
    SocketDir {
        /// What was tried.
        tried: Vec<PathBuf>,
    },
    /// No idea where to keep data.
    #[error("HOME is not set: name the data directory")]
    NoHome,
    /// A file operation failed.
    #[error("could not {doing} {path}")]
    Io {
        /// A verb.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A PostgreSQL program failed.
    #[error("{program} failed:\n{output}\nThe server's log is {log}")]
    Program {
        /// Its path.
        program: PathBuf,
        /// What it printed, and the end of the log.
        output: String,
        /// The log.
        log: PathBuf,
    },
    /// A running server that does not become ready.
    #[error("the server in {data} runs (process {pid}) but is not ready; its log is {log}")]
    NotReady {
        /// The data directory.
        data: PathBuf,
        /// The postmaster.
        pid: u32,
        /// The log.
        log: PathBuf,
    },
}
