//! `postrider dev` as a child process, as a newcomer starts it.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::{place, program};

/// The first start makes a cluster and an RSA key, in a debug build.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// The running command; stopped in good order when dropped.
pub struct Dev {
    /// The line it printed when it was ready.
    pub ready: Value,
    /// How long that took.
    pub took: Duration,
    child: Child,
}

impl Dev {
    /// Starts it on the data directory `dir`, with these further arguments.
    pub fn start(dir: &Path, args: &[&str]) -> Self {
        let listen = place::free_address().to_string();
        let started = Instant::now();
        let mut child = Command::new(program::path())
            .args(["dev", "--json", "--listen", &listen, "--data-dir"])
            .arg(dir)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (line, lines) = mpsc::channel();
        thread::spawn(move || {
            stdout
                .lines()
                .map_while(Result::ok)
                .try_for_each(|l| line.send(l))
        });
        let Ok(first) = lines.recv_timeout(START_PATIENCE) else {
            let _gone_either_way = child.kill().and_then(|()| child.wait());
            panic!("postrider dev was not ready within {START_PATIENCE:?}");
        };
        let ready = serde_json::from_str(&first).unwrap();
        Self {
            ready,
            took: started.elapsed(),
            child,
        }
    }

    /// A field of the line.
    pub fn field(&self, name: &str) -> &str {
        self.ready[name]
            .as_str()
            .unwrap_or_else(|| panic!("no {name} in {}", self.ready))
    }

    /// `kill -9`: its PostgreSQL runs on.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            program::signal(self.child.id(), "TERM");
        }
        let _gone_either_way = self.child.wait();
    }
}
