//! The server process of a private cluster: made, launched, found again, stopped. Whoever calls
//! holds the lock that keeps a second starter away.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use super::binaries::Binaries;
use super::error::PgError;
use super::place::{Place, SOCKET_NAME};
use super::settings::{self, Durability};
use super::{ORPHANS_PATIENCE, SUPERUSER};
use crate::process::{runs_in, wait_until_deserted};

/// Crash recovery of a large development database may take this long.
const READY_PATIENCE: Duration = Duration::from_secs(60);
const READY_POLL: Duration = Duration::from_millis(20);
const LOG_TAIL_BYTES: usize = 2_000;

/// What `postmaster.pid` says about a running server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Server {
    pub(super) pid: u32,
    pub(super) socket_dir: PathBuf,
    pub(super) ready: bool,
}

/// Makes the cluster beside its place and moves it there when whole, so that an interrupted
/// creation is never taken for a cluster.
pub(super) fn create(
    place: &Place,
    binaries: &Binaries,
    durability: Durability,
) -> Result<(), PgError> {
    let new = place.base.join("data.new");
    let io_error = |doing, path: &Path, source| PgError::Io {
        doing,
        path: path.to_owned(),
        source,
    };
    if new.exists() {
        fs::remove_dir_all(&new).map_err(|source| io_error("remove", &new, source))?;
    }
    let mut initdb = place.command(&binaries.program("initdb"));
    initdb
        .arg("-D")
        .arg(&new)
        .args(["-U", SUPERUSER, "-A", "trust", "-E", "UTF8", "--locale=C"]);
    if durability == Durability::Fast {
        initdb.arg("--no-sync");
    }
    run(place, initdb)?;
    let conf = new.join("postgresql.conf");
    let text = fs::read_to_string(&conf).map_err(|source| io_error("read", &conf, source))?;
    fs::write(
        &conf,
        format!("{text}\ninclude_if_exists = 'postrider.conf'\n"),
    )
    .map_err(|source| io_error("write", &conf, source))?;
    fs::rename(&new, &place.data).map_err(|source| io_error("move into place", &new, source))
}

pub(super) fn launch(
    place: &Place,
    binaries: &Binaries,
    durability: Durability,
) -> Result<Server, PgError> {
    let socket_dir = place.socket_dir()?;
    let machine = settings::Machine {
        socket_dir: &socket_dir,
        memory_mb: memory_mb(),
        has_lz4: has_lz4(place, binaries),
    };
    let conf = place.data.join("postrider.conf");
    fs::write(&conf, settings::render(durability, &machine)).map_err(|source| PgError::Io {
        doing: "write",
        path: conf.clone(),
        source,
    })?;
    place.give(&conf)?;
    clear_traces_of_dead_server(place, &socket_dir)?;

    let mut pg_ctl = place.command(&binaries.program("pg_ctl"));
    pg_ctl.arg("-D").arg(&place.data).arg("-l").arg(place.log());
    pg_ctl.args(["-w", "-t", &READY_PATIENCE.as_secs().to_string(), "start"]);
    run(place, pg_ctl)?;
    let server = running_server(&place.data).ok_or_else(|| PgError::Program {
        program: binaries.program("pg_ctl"),
        output: "the server ended right after its start".to_owned(),
        log: place.log(),
    })?;
    wait_until_ready(place, server)
}

/// The server of `data`, if its postmaster is alive.
pub(super) fn running_server(data: &Path) -> Option<Server> {
    let text = fs::read_to_string(data.join("postmaster.pid")).ok()?;
    parse_pid_file(&text).filter(|server| runs_in(server.pid, data))
}

/// Lines of `postmaster.pid`: process, data directory, start time, port, socket directory, listen
/// address, shared memory key, status (PostgreSQL `miscadmin.h`, LOCK_FILE_LINE_*).
pub(super) fn parse_pid_file(text: &str) -> Option<Server> {
    let mut lines = text.lines();
    let pid = lines.next()?.trim().parse().ok()?;
    let socket_dir = lines.nth(3).unwrap_or_default().into();
    let ready = lines.nth(2).is_some_and(|status| status.trim() == "ready");
    Some(Server {
        pid,
        socket_dir,
        ready,
    })
}

/// Removes the lock files of a server that was killed. PostgreSQL itself believes them as long as
/// any process has the number in them: a stranger that was given it again, or the dead server
/// that nobody has collected yet.
///
/// Called only after `running_server` found none. The children of a killed server leave a moment
/// after it; until then the files are what keeps a second server off the data.
fn clear_traces_of_dead_server(place: &Place, socket_dir: &Path) -> Result<(), PgError> {
    let pid_file = place.data.join("postmaster.pid");
    let Ok(text) = fs::read_to_string(&pid_file) else {
        return Ok(());
    };
    if !wait_until_deserted(&place.data, ORPHANS_PATIENCE) {
        let pid = parse_pid_file(&text).map_or(0, |server| server.pid);
        return Err(PgError::NotReady {
            data: place.data.clone(),
            pid,
            log: place.log(),
        });
    }
    let socket = socket_dir.join(SOCKET_NAME);
    for path in [
        socket_dir.join(format!("{SOCKET_NAME}.lock")),
        socket,
        pid_file,
    ] {
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(PgError::Io {
                    doing: "remove",
                    path,
                    source,
                });
            }
            _ => {}
        }
    }
    Ok(())
}

pub(super) fn wait_until_ready(place: &Place, mut server: Server) -> Result<Server, PgError> {
    let started = Instant::now();
    while !server.ready || !server.socket_dir.join(SOCKET_NAME).exists() {
        if started.elapsed() > READY_PATIENCE {
            let data = place.data.clone();
            return Err(PgError::NotReady {
                data,
                pid: server.pid,
                log: place.log(),
            });
        }
        thread::sleep(READY_POLL);
        server = running_server(&place.data).unwrap_or(server);
    }
    Ok(server)
}

pub(super) fn pg_ctl_stop(place: &Place, binaries: &Binaries, mode: &str) -> Result<(), PgError> {
    let mut pg_ctl = place.command(&binaries.program("pg_ctl"));
    pg_ctl
        .arg("-D")
        .arg(&place.data)
        .args(["-m", mode, "-w", "-t", "60", "stop"]);
    run(place, pg_ctl)
}

/// Whether the server was built with lz4, which distributions do and private builds may not.
fn has_lz4(place: &Place, binaries: &Binaries) -> bool {
    let mut postgres = place.command(&binaries.program("postgres"));
    postgres.arg("-D").arg(&place.data).args([
        "-c",
        "wal_compression=lz4",
        "-C",
        "wal_compression",
    ]);
    postgres
        .output()
        .is_ok_and(|output| output.status.success())
}

fn memory_mb() -> u64 {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"));
    let kilobytes = total.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) / 1_024
}

pub(super) fn run(place: &Place, mut command: Command) -> Result<(), PgError> {
    let program = PathBuf::from(command.get_program());
    let output = command.output().map_err(|source| PgError::Io {
        doing: "run",
        path: program.clone(),
        source,
    })?;
    if output.status.success() {
        return Ok(());
    }
    Err(PgError::Program {
        program,
        output: printed(&output, &place.log()),
        log: place.log(),
    })
}

fn printed(output: &Output, log: &Path) -> String {
    let log = fs::read(log).unwrap_or_default();
    let tail = &log[log.len().saturating_sub(LOG_TAIL_BYTES)..];
    [&output.stdout, &output.stderr, tail]
        .map(|bytes| String::from_utf8_lossy(bytes).trim().to_owned())
        .join("\n")
}
