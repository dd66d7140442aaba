//! A private PostgreSQL cluster made of the machine's own server programs: for `postrider dev`,
//! for self-contained benchmarks and for tests. No configuration, no port, no trace outside its
//! base directory and one socket directory.
//!
//! Several processes may use one cluster: the first starts it, the last one to leave stops it. A
//! process that was killed leaves the server running; the next one takes it over. Blocking: call
//! it from a thread that may wait. Speaks no SQL, and never serves production.

mod binaries;
mod error;
mod place;
mod server;
mod settings;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use binaries::Binaries;
pub use error::PgError;
pub use place::default_base_dir;
pub use settings::Durability;

use crate::process::{send_signal, wait_until_gone};
use place::Place;
use server::{Server, create, launch, pg_ctl_stop, run, running_server, wait_until_ready};

/// After `kill -9` of the postmaster its children hold the shared memory for a moment.
const ORPHANS_PATIENCE: Duration = Duration::from_secs(10);

/// The superuser of the cluster.
const SUPERUSER: &str = "postgres";

/// Which cluster, and what it promises.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// Directory for data, log and locks; created if missing. As root it must be in a place
    /// that the user `postgres` (or `nobody`) may enter.
    pub base_dir: PathBuf,
    /// What a commit survives.
    pub durability: Durability,
    /// Directory of the server programs; `None` looks for them.
    pub bin_dir: Option<PathBuf>,
}

/// A running cluster. Dropping it stops the server, unless another process uses it as well.
#[derive(Debug)]
pub struct PgCluster {
    place: Place,
    binaries: Binaries,
    durability: Durability,
    server: Server,
    /// Held shared by every process that uses the cluster; `None` once we have left.
    use_lock: Option<File>,
}

impl PgCluster {
    /// Starts the cluster, making it first if there is none, or joins it if it runs.
    ///
    /// # Errors
    /// See [`PgError`]; every message says what to do next.
    pub fn start(options: ClusterOptions) -> Result<Self, PgError> {
        let place = Place::prepare(&options.base_dir)?;
        let binaries = choose_binaries(&place.data, options.bin_dir.as_deref())?;
        let _one_starter = lock(&place, "start.lock", LockKind::Exclusive)?;
        if !place.data.join("PG_VERSION").exists() {
            create(&place, &binaries, options.durability)?;
        }
        let server = match running_server(&place.data) {
            Some(server) => wait_until_ready(&place, server)?,
            None => launch(&place, &binaries, options.durability)?,
        };
        let use_lock = Some(lock(&place, "use.lock", LockKind::Shared)?);
        Ok(Self {
            place,
            binaries,
            durability: options.durability,
            server,
            use_lock,
        })
    }

    /// Connection URL of `database`, as the superuser, through the private socket.
    pub fn url(&self, database: &str) -> String {
        let host = self.server.socket_dir.to_string_lossy().replace('/', "%2F");
        format!("postgres://{SUPERUSER}@{host}:5432/{database}")
    }

    /// Directory of the socket, for `psql -h`.
    pub fn socket_dir(&self) -> &Path {
        &self.server.socket_dir
    }

    /// Process id of the postmaster.
    pub fn pid(&self) -> u32 {
        self.server.pid
    }

    /// The server's log file.
    pub fn log(&self) -> PathBuf {
        self.place.log()
    }

    /// Makes the database `name` unless it exists.
    ///
    /// # Errors
    /// The server refuses the name, or is not reachable.
    pub fn create_database(&self, name: &str) -> Result<(), PgError> {
        let mut createdb = self.place.command(&self.binaries.program("createdb"));
        createdb
            .args(["-h"])
            .arg(&self.server.socket_dir)
            .args(["-U", SUPERUSER, "--", name]);
        match run(&self.place, createdb) {
            Err(PgError::Program { output, .. }) if output.contains("already exists") => Ok(()),
            other => other,
        }
    }

    /// Stops the server as a crash would: no checkpoint, recovery at the next start. For tests;
    /// follow with [`PgCluster::start_again`].
    ///
    /// # Errors
    /// `pg_ctl` fails.
    pub fn stop_immediately(&self) -> Result<(), PgError> {
        pg_ctl_stop(&self.place, &self.binaries, "immediate")
    }

    /// `kill -9` of the postmaster; its children leave by themselves. For tests; follow with
    /// [`PgCluster::start_again`].
    ///
    /// # Errors
    /// The process is gone already, or not ours.
    pub fn kill(&self) -> Result<(), PgError> {
        send_signal(self.server.pid, "KILL").map_err(|source| PgError::Io {
            doing: "kill",
            path: self.place.data.clone(),
            source,
        })?;
        wait_until_gone(self.server.pid, &self.place.data, ORPHANS_PATIENCE);
        Ok(())
    }

    /// Starts the server after [`PgCluster::kill`] or [`PgCluster::stop_immediately`]; the URL
    /// stays the same. Does nothing if it runs.
    ///
    /// # Errors
    /// As [`PgCluster::start`].
    pub fn start_again(&mut self) -> Result<(), PgError> {
        let _one_starter = lock(&self.place, "start.lock", LockKind::Exclusive)?;
        self.server = match running_server(&self.place.data) {
            Some(server) => wait_until_ready(&self.place, server)?,
            None => launch(&self.place, &self.binaries, self.durability)?,
        };
        Ok(())
    }

    /// Leaves without stopping the server; the next start takes it over.
    pub fn leave_running(mut self) {
        self.use_lock = None;
    }

    /// Leaves, and stops the server if nobody else uses it. Returns whether it was stopped.
    ///
    /// # Errors
    /// The server does not stop within a minute.
    pub fn stop(mut self) -> Result<bool, PgError> {
        self.leave()
    }

    fn leave(&mut self) -> Result<bool, PgError> {
        let Some(use_lock) = self.use_lock.take() else {
            return Ok(false);
        };
        let _nobody_starts = lock(&self.place, "start.lock", LockKind::Exclusive)?;
        drop(use_lock);
        let others = open_lock(&self.place, "use.lock")?;
        if others.try_lock().is_err() {
            return Ok(false);
        }
        if running_server(&self.place.data).is_some() {
            pg_ctl_stop(&self.place, &self.binaries, "fast")?;
        }
        // Not empty only after a crash of the server, and then the next start uses it again.
        let _left_for_next_start = fs::remove_dir(&self.server.socket_dir);
        Ok(true)
    }
}

impl Drop for PgCluster {
    fn drop(&mut self) {
        if let Err(error) = self.leave() {
            tracing::warn!(%error, "left the private PostgreSQL running");
        }
    }
}

/// The programs to use for `data`: those of the version that wrote it.
fn choose_binaries(data: &Path, bin_dir: Option<&Path>) -> Result<Binaries, PgError> {
    let found = match bin_dir {
        Some(dir) => Binaries::in_dir(dir)?,
        None => Binaries::find()?,
    };
    let Ok(needed) = fs::read_to_string(data.join("PG_VERSION")) else {
        return Ok(found);
    };
    let needed = needed.trim();
    if needed == found.major.to_string() {
        return Ok(found);
    }
    needed
        .parse()
        .ok()
        .and_then(Binaries::of_major)
        .ok_or_else(|| PgError::OtherMajor {
            data: data.to_owned(),
            needed: needed.to_owned(),
            found: found.major,
        })
}

enum LockKind {
    Shared,
    Exclusive,
}

/// Waits for the lock; it ends with the returned file, or with the process.
fn lock(place: &Place, name: &str, kind: LockKind) -> Result<File, PgError> {
    let file = open_lock(place, name)?;
    match kind {
        LockKind::Shared => file.lock_shared(),
        LockKind::Exclusive => file.lock(),
    }
    .map_err(|source| PgError::Io {
        doing: "lock",
        path: place.base.join(name),
        source,
    })?;
    Ok(file)
}

fn open_lock(place: &Place, name: &str) -> Result<File, PgError> {
    let path = place.base.join(name);
    File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|source| PgError::Io {
            doing: "open",
            path,
            source,
        })
}

#[cfg(test)]
mod tests;
