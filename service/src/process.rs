//! Small dealings with other processes: signals, who we are, whether a process still runs.
//! Through the system's own tools and /proc, because the workspace forbids `unsafe`.

use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(10);

/// Sends the signal `name` (`KILL`, `TERM`) to the process `pid`.
///
/// `kill` is a builtin of every POSIX shell; the program of that name is often not installed.
pub(crate) fn send_signal(pid: u32, name: &str) -> io::Result<()> {
    let output = Command::new("/bin/sh")
        .args(["-c", "kill -s \"$1\" \"$2\"", "sh", name, &pid.to_string()])
        .stdin(Stdio::null())
        .output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(
        String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    ))
}

/// Whether the process `pid` runs and has `dir` as its working directory. The second condition
/// keeps us from mistaking a stranger for our server after its number was given out again.
pub(crate) fn runs_in(pid: u32, dir: &Path) -> bool {
    if !Path::new("/proc/self").exists() {
        return send_signal(pid, "0").is_ok();
    }
    match (
        fs::read_link(format!("/proc/{pid}/cwd")),
        fs::canonicalize(dir),
    ) {
        (Ok(cwd), Ok(dir)) => cwd == dir,
        _ => false,
    }
}

/// Waits until `runs_in` is false; whether that happened within `patience`.
pub(crate) fn wait_until_gone(pid: u32, dir: &Path, patience: Duration) -> bool {
    wait_until(patience, || !runs_in(pid, dir))
}

/// Waits until no process at all has `dir` as its working directory; whether that happened.
/// Without /proc nobody can tell, and the answer is no.
pub(crate) fn wait_until_deserted(dir: &Path, patience: Duration) -> bool {
    let Ok(dir) = fs::canonicalize(dir) else {
        return true;
    };
    wait_until(patience, || {
        let Ok(processes) = fs::read_dir("/proc") else {
            return false;
        };
        !processes.flatten().any(|entry| {
            // Entries that are no process, or that ended meanwhile, have no such link.
            fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd == dir)
        })
    })
}

fn wait_until(patience: Duration, condition: impl Fn() -> bool) -> bool {
    let started = Instant::now();
    while !condition() {
        if started.elapsed() > patience {
            return false;
        }
        thread::sleep(POLL);
    }
    true
}

/// User id of this process.
pub(crate) fn own_uid() -> io::Result<u32> {
    let output = Command::new("id").arg("-u").stdin(Stdio::null()).output()?;
    String::from_utf8_lossy(&output.stdout)
        .trim()
        .parse()
        .map_err(|_| io::Error::other("`id -u` did not print a number"))
}

/// An unprivileged user of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// The user that root hands a database server to: `postgres` if there is one, else `nobody`.
pub(crate) fn unprivileged_user() -> io::Result<User> {
    let passwd = fs::read_to_string("/etc/passwd")?;
    ["postgres", "nobody"]
        .iter()
        .find_map(|name| find_user(&passwd, name))
        .ok_or_else(|| io::Error::other("/etc/passwd has neither `postgres` nor `nobody`"))
}

fn find_user(passwd: &str, wanted: &str) -> Option<User> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| *name == wanted)?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some(User {
            name: name.to_owned(),
            uid,
            gid,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_their_whole_name() {
        let passwd =
            "root:x:0:0::/:/bin/sh\npostgresql:x:7:8::/:\npostgres:x:101:104:a,b:/:/bin/sh\n";
        let postgres = User {
            name: "postgres".to_owned(),
            uid: 101,
            gid: 104,
        };
        assert_eq!(find_user(passwd, "postgres"), Some(postgres));
        assert_eq!(find_user(passwd, "nobody"), None);
        assert_eq!(find_user("postgres:x:many:1:", "postgres"), None);
    }

    #[test]
    fn a_process_is_known_by_its_directory_and_can_be_killed() {
        let dir = tempfile::tempdir().unwrap();
        let mut child = Command::new("sleep")
            .arg("60")
            .current_dir(dir.path())
            .spawn()
            .unwrap();
        assert!(runs_in(child.id(), dir.path()));
        assert!(!runs_in(child.id(), Path::new("/")));
        assert!(!wait_until_deserted(dir.path(), POLL));
        send_signal(child.id(), "KILL").unwrap();
        child.wait().unwrap();
        assert!(wait_until_gone(
            child.id(),
            dir.path(),
            Duration::from_secs(1)
        ));
        assert!(wait_until_deserted(dir.path(), Duration::from_secs(1)));
        assert!(send_signal(child.id(), "TERM").is_err());
    }
}
