//! A program that runs beside us, and ends when we are done with it.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::shell::{Failure, Outcome, ask, shown};

const POLL: Duration = Duration::from_millis(50);
const START_PATIENCE: Duration = Duration::from_secs(20);
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// It is asked to end when this is dropped, and killed if it does not.
pub(super) struct Running(Child);

impl Running {
    pub(super) fn start(command: &mut Command) -> Outcome<Self> {
        let child = command.stdin(Stdio::null()).spawn();
        child.map(Self).map_err(|error| {
            let command = shown(command);
            Failure::new(format!("could not run {command}: {error}"))
        })
    }

    pub(super) fn pid(&self) -> u32 {
        self.0.id()
    }

    pub(super) fn child_mut(&mut self) -> &mut Child {
        &mut self.0
    }

    /// Waits until somebody listens on this port of this machine.
    pub(super) fn wait_for_port(&mut self, name: &str, port: u16) -> Outcome {
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if let Ok(Some(status)) = self.0.try_wait() {
                return Err(Failure::new(format!("{name} ended at once ({status})")));
            }
            if started.elapsed() > START_PATIENCE {
                return Err(Failure::new(format!("{name} does not listen on {port}")));
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let pid = self.0.id().to_string();
        // `kill` is built into every shell; the program of that name is often not installed.
        let _asked = ask(Command::new("sh").args(["-c", "kill -s TERM \"$1\"", "sh", &pid]));
        let started = Instant::now();
        while started.elapsed() < STOP_PATIENCE {
            if !matches!(self.0.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(POLL);
        }
        let _gone_either_way = self.0.kill();
        let _gone_either_way = self.0.wait();
    }
}

/// A port of this machine that is free now.
pub(super) fn free_port() -> Outcome<u16> {
    let bound = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    bound
        .map(|address| address.port())
        .map_err(|error| Failure::new(format!("no port is free: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_ends_at_once_is_not_waited_for() {
        let mut ended = Running::start(&mut Command::new("true")).unwrap();
        let failure = ended.wait_for_port("true", 1).unwrap_err().to_string();
        assert!(failure.contains("ended at once"), "{failure}");
    }

    #[test]
    fn what_runs_ends_with_its_value() {
        let running = Running::start(Command::new("sleep").arg("60")).unwrap();
        let place = format!("/proc/{}", running.pid());
        assert!(std::path::Path::new(&place).exists());
        drop(running);
        assert!(!std::path::Path::new(&place).exists());
    }
}
