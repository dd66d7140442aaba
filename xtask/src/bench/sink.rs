//! The sink that peers deliver to: the same program that our own rows use, asked what it counted.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::running::Running;
use crate::shell::{Failure, Outcome};

const POLL: Duration = Duration::from_millis(50);
/// A peer that delivers nothing for so long has lost what is missing.
const STILL_PATIENCE: Duration = Duration::from_secs(60);

/// A running sink.
pub(super) struct Sink {
    running: Running,
    smtp_port: u16,
    http: String,
}

impl Sink {
    /// Starts one on free ports.
    pub(super) fn start(program: &Path) -> Outcome<Self> {
        let mut command = Command::new(program);
        command
            .args(["sink", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"])
            .stderr(Stdio::piped());
        let mut running = Running::start(&mut command)?;
        let (smtp, http) = addresses(running.child_mut())
            .ok_or_else(|| Failure::new("the sink ended before it was ready"))?;
        let port = smtp
            .rsplit_once(':')
            .and_then(|(_, port)| port.parse().ok());
        Ok(Self {
            running,
            smtp_port: port.ok_or_else(|| Failure::new("the sink has no port"))?,
            http,
        })
    }

    pub(super) fn smtp_port(&self) -> u16 {
        self.smtp_port
    }

    pub(super) fn pid(&self) -> u32 {
        self.running.pid()
    }

    /// Waits until so many copies have come in all; how many there are.
    pub(super) fn wait_for(&self, wanted: u64) -> Outcome<u64> {
        let (mut received, mut moved) = (0, Instant::now());
        loop {
            let now = self.received()?;
            if now > received {
                (received, moved) = (now, Instant::now());
            }
            if now >= wanted || moved.elapsed() > STILL_PATIENCE {
                return Ok(now);
            }
            std::thread::sleep(POLL);
        }
    }

    /// Copies that have come.
    pub(super) fn received(&self) -> Outcome<u64> {
        Ok(self.stats()?["received"].as_u64().unwrap_or_default())
    }

    /// Mean octets of a message that has come.
    pub(super) fn mean_octets(&self) -> Outcome<f64> {
        let stats = self.stats()?;
        let count = |name: &str| stats[name].as_f64().unwrap_or_default();
        Ok(count("bytes") / count("received").max(1.0))
    }

    fn stats(&self) -> Outcome<Value> {
        let ask = || {
            let mut tcp = TcpStream::connect(&self.http)?;
            tcp.write_all(b"GET /stats HTTP/1.1\r\nHost: sink\r\nConnection: close\r\n\r\n")?;
            let mut said = String::new();
            tcp.read_to_string(&mut said)?;
            std::io::Result::Ok(said)
        };
        let said = ask().map_err(|error| Failure::new(format!("the sink is gone: {error}")))?;
        let body = said.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        serde_json::from_str(body)
            .map_err(|error| Failure::new(format!("the sink answers {said:?}: {error}")))
    }
}

/// Where it receives SMTP and answers HTTP. What it says later is read and thrown away: a full
/// pipe would stop it.
fn addresses(child: &mut Child) -> Option<(String, String)> {
    let mut lines = BufReader::new(child.stderr.take()?).lines();
    let mut smtp = None;
    let found = loop {
        let line = lines.next()?.ok()?;
        if let Some(address) = line.strip_prefix("sink: SMTP on ") {
            smtp = Some(address.to_owned());
        }
        let http = line.strip_prefix("sink: HTTP on http://");
        if let (Some(smtp), Some(http)) = (&smtp, http) {
            break (smtp.clone(), http.trim_end_matches("/stats").to_owned());
        }
    };
    std::thread::spawn(move || lines.for_each(drop));
    Some(found)
}
