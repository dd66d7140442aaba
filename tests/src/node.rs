//! One process of the program: `postrider serve` with a state directory of its own. It can be
//! killed at any moment and started again on the same directory and addresses.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::node_file::NodeFile;
use crate::{PATIENCE, program, until};

/// How much of its log is shown when a test fails.
const SHOWN_LINES: usize = 60;

/// A node, running or not.
pub struct Node {
    /// What it was told.
    pub file: NodeFile,
    /// When it was started last.
    pub started_at: Instant,
    /// Its configuration file.
    pub config: PathBuf,
    /// Settings that win over the file, from the next start on.
    pub environment: Vec<(String, String)>,
    roles: String,
    log: PathBuf,
    child: Option<Child>,
}

impl Node {
    /// Writes its configuration below `dir`; starts nothing.
    pub fn prepare(file: NodeFile, roles: &str, dir: &Path) -> Self {
        let (config, log) = (
            dir.join(format!("{}.toml", file.name)),
            dir.join(format!("{}.log", file.name)),
        );
        fs::write(&config, file.render()).unwrap();
        let (roles, started_at) = (roles.to_owned(), Instant::now());
        Self {
            file,
            started_at,
            roles,
            config,
            environment: Vec::new(),
            log,
            child: None,
        }
    }

    /// Starts it and waits until it is ready.
    pub async fn restart(&mut self) {
        self.launch();
        self.ready().await;
    }

    /// Starts it without waiting.
    pub fn launch(&mut self) {
        assert!(self.child.is_none(), "{} runs already", self.file.name);
        let log = File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .unwrap();
        let mut command = Command::new(program::path());
        command
            .arg("serve")
            .arg("--config")
            .arg(&self.config)
            .args(["--roles", &self.roles]);
        if self.file.clock_file.is_some() {
            command.arg("--test-clock");
        }
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        // Settings of whoever runs the tests must not reach the node.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("POSTRIDER_") {
                command.env_remove(name);
            }
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        self.started_at = Instant::now();
        self.child = Some(command.spawn().unwrap());
    }

    /// Waits until `/readyz` says yes.
    pub async fn ready(&mut self) {
        let url = format!("http://{}/readyz", self.file.metrics);
        let child = self.child.as_mut().unwrap();
        until(&format!("{} is ready", self.file.name), PATIENCE, || {
            let ended = child.try_wait().unwrap();
            assert!(ended.is_none(), "{} ended: {ended:?}", self.file.name);
            let url = url.clone();
            async move {
                reqwest::get(url)
                    .await
                    .ok()?
                    .status()
                    .is_success()
                    .then_some(())
            }
        })
        .await;
    }

    /// `kill -9`. Returns when it is gone, and that moment.
    pub fn kill(&mut self) -> Instant {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        let status = child.wait().unwrap();
        assert_eq!(
            status.signal(),
            Some(9),
            "{} had ended before: {status}",
            self.file.name
        );
        Instant::now()
    }

    /// SIGTERM, and how it ended; none when it did not within `patience`.
    pub fn terminate(&mut self, patience: Duration) -> Option<ExitStatus> {
        let child = self.child.as_mut().unwrap();
        program::signal(child.id(), "TERM");
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if let Some(status) = child.try_wait().unwrap() {
                self.child = None;
                return Some(status);
            }
            thread::sleep(Duration::from_millis(10));
        }
        None
    }

    /// Sum of a metric over its labels; 0 if there is none.
    pub async fn metric(&self, name: &str) -> f64 {
        let url = format!("http://{}/metrics", self.file.metrics);
        let text = reqwest::get(url).await.unwrap().text().await.unwrap();
        let lines = text.lines().filter(|line| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with([' ', '{']))
        });
        lines
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _gone_either_way = child.kill().and_then(|()| child.wait());
        }
        if thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let shown = lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n");
            eprintln!("--- end of the log of {}\n{shown}\n---", self.file.name);
        }
    }
}
