//! A private Redis for `postrider dev` and tests: no port, nothing on disk, gone when dropped.
//! Redis holds nothing that may not be lost, so killing it is a normal thing to do here.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::process::{runs_in, send_signal, wait_until_gone};

/// Names the program to take; set by `cargo xtask` for tests.
const PROGRAM_VARIABLE: &str = "POSTRIDER_REDIS_SERVER";
/// Debian installs it outside the PATH of some users.
const USUAL_DIRS: [&str; 3] = ["/usr/bin", "/usr/sbin", "/usr/local/bin"];

const START_PATIENCE: Duration = Duration::from_secs(10);
const STOP_PATIENCE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(10);

/// Longest path of a Unix socket.
const SOCKET_PATH_MAX: usize = 107;

/// Why a private Redis cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RedisError {
    /// The machine has no `redis-server`.
    #[error(
        "found no redis-server: run `cargo xtask bootstrap`, or install it (Debian, Ubuntu: \
         apt-get install redis-server), or leave [redis] out of the configuration"
    )]
    NoServer,
    /// The directory's path is too long for a socket.
    #[error(
        "{dir} is too long a path for a socket: choose a directory of fewer than 95 characters"
    )]
    PathTooLong {
        /// As given.
        dir: PathBuf,
    },
    /// A file or process operation failed.
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
    /// The server ended or does not answer.
    #[error("redis-server did not start; its log is {log}")]
    NotReady {
        /// The log.
        log: PathBuf,
    },
}

/// A running Redis on a Unix socket. Dropping it kills the server.
#[derive(Debug)]
pub struct RedisServer {
    program: PathBuf,
    dir: PathBuf,
    child: Child,
}

impl RedisServer {
    /// The program, if this machine has it: `POSTRIDER_REDIS_SERVER`, PATH, the usual places.
    pub fn find() -> Option<PathBuf> {
        if let Some(named) = env::var_os(PROGRAM_VARIABLE).filter(|named| !named.is_empty()) {
            return Some(PathBuf::from(named)).filter(|program| program.is_file());
        }
        let path = env::var_os("PATH").unwrap_or_default();
        env::split_paths(&path)
            .chain(USUAL_DIRS.map(PathBuf::from))
            .map(|dir| dir.join("redis-server"))
            .find(|program| program.is_file())
    }

    /// Starts a server with its socket, log and process number in `dir`, which is created if
    /// missing. A server that a killed process left in `dir` is ended first.
    ///
    /// # Errors
    /// No program, no directory, or the server does not answer within 10 s.
    pub fn start(dir: &Path) -> Result<Self, RedisError> {
        let program = Self::find().ok_or(RedisError::NoServer)?;
        let io_error = |doing, source| RedisError::Io {
            doing,
            path: dir.to_owned(),
            source,
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(|source| io_error("create", source))?;
        let dir = fs::canonicalize(dir).map_err(|source| io_error("resolve", source))?;
        if socket(&dir).as_os_str().len() > SOCKET_PATH_MAX {
            return Err(RedisError::PathTooLong { dir });
        }
        end_left_over(&dir);
        let child = launch(&program, &dir)?;
        Ok(Self {
            program,
            dir,
            child,
        })
    }

    /// Connection URL.
    pub fn url(&self) -> String {
        format!("redis+unix://{}", socket(&self.dir).display())
    }

    /// Path of the socket, for `redis-cli -s`.
    pub fn socket(&self) -> PathBuf {
        socket(&self.dir)
    }

    /// Process id of the server.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`; everything it held is lost.
    ///
    /// # Errors
    /// The system refuses.
    pub fn kill(&mut self) -> Result<(), RedisError> {
        let killed = self.child.kill().and_then(|()| self.child.wait());
        killed.map(drop).map_err(|source| RedisError::Io {
            doing: "kill the server in",
            path: self.dir.clone(),
            source,
        })
    }

    /// Kills the server if it runs, and starts it empty; the URL stays the same.
    ///
    /// # Errors
    /// As [`RedisServer::start`].
    pub fn restart(&mut self) -> Result<(), RedisError> {
        self.kill()?;
        self.child = launch(&self.program, &self.dir)?;
        Ok(())
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _gone_either_way = self.kill();
    }
}

fn socket(dir: &Path) -> PathBuf {
    dir.join("redis.sock")
}

fn launch(program: &Path, dir: &Path) -> Result<Child, RedisError> {
    let log = dir.join("redis.log");
    let io_error = |doing, path: &Path, source| RedisError::Io {
        doing,
        path: path.to_owned(),
        source,
    };
    match fs::remove_file(socket(dir)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(io_error("remove", &socket(dir), error));
        }
        _ => {}
    }
    let mut child = Command::new(program)
        .args([
            "--port",
            "0",
            "--save",
            "",
            "--appendonly",
            "no",
            "--daemonize",
            "no",
        ])
        .args([OsString::from("--unixsocket"), socket(dir).into()])
        .args(["--unixsocketperm", "700"])
        .args([OsString::from("--dir"), dir.into()])
        .args([OsString::from("--logfile"), log.clone().into()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|source| io_error("run", program, source))?;
    let number = dir.join("redis.pid");
    fs::write(&number, child.id().to_string())
        .map_err(|source| io_error("write", &number, source))?;

    let started = Instant::now();
    while UnixStream::connect(socket(dir)).is_err() {
        let ended = matches!(child.try_wait(), Ok(Some(_)));
        if ended || started.elapsed() > START_PATIENCE {
            let _gone_either_way = child.kill().and_then(|()| child.wait());
            return Err(RedisError::NotReady { log });
        }
        thread::sleep(POLL);
    }
    Ok(child)
}

fn end_left_over(dir: &Path) {
    let number = fs::read_to_string(dir.join("redis.pid")).unwrap_or_default();
    if let Ok(pid) = number.trim().parse()
        && runs_in(pid, dir)
        && send_signal(pid, "KILL").is_ok()
    {
        wait_until_gone(pid, dir, STOP_PATIENCE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    fn ask(server: &RedisServer, command: &str) -> String {
        let mut stream = UnixStream::connect(server.socket()).unwrap();
        write!(stream, "{command}\r\nQUIT\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn redis_starts_forgets_everything_at_restart_and_ends_when_dropped() {
        if RedisServer::find().is_none() {
            eprintln!("SKIPPED: {}", RedisError::NoServer);
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let mut server = RedisServer::start(dir.path()).unwrap();
        assert!(ask(&server, "SET a 1").starts_with("+OK"));
        let url = server.url();
        server.restart().unwrap();
        assert!(ask(&server, "GET a").starts_with("$-1"));
        assert_eq!(server.url(), url);
        let pid = server.pid();
        drop(server);
        assert!(!runs_in(pid, dir.path()));
    }

    #[test]
    fn a_left_over_server_is_ended_before_a_new_one_starts() {
        let dir = tempfile::tempdir().unwrap();
        let mut stray = Command::new("sleep")
            .arg("60")
            .current_dir(dir.path())
            .spawn()
            .unwrap();
        fs::write(dir.path().join("redis.pid"), stray.id().to_string()).unwrap();
        let waiter = thread::spawn(move || stray.wait().unwrap());
        end_left_over(dir.path());
        assert!(!waiter.join().unwrap().success());
    }
}
