//! What every peer goes through: messages in by smtp-source, out to the sink, and what it cost.

use std::path::Path;
use std::time::{Duration, Instant};

use super::figures::{ACCEPTED, CPU, DELIVERED, Figures};
use super::processes::{cpu_seconds, memory_bytes};
use super::sink::Sink;
use crate::peers;
use crate::shell::{Failure, Outcome, run_to_end};

/// SMTP sessions that hand messages in.
const SESSIONS: &str = "32";
/// Domain that the messages are from, and the selector of its DKIM key.
pub(super) const SENDER_DOMAIN: &str = "bench.test";
pub(super) const SELECTOR: &str = "pr1";
/// Connections to the sink, as our own rows have.
pub(super) const CONNECTIONS: u32 = 20;
/// Octets of a message, as our own rows have.
const MESSAGE_OCTETS: usize = 5_120;
const WARM_UP_MESSAGES: u64 = 200;
/// A DKIM-Signature field of a 2048-bit key has more octets than that.
const SIGNATURE_OCTETS_MIN: f64 = 400.0;
const CHILDREN_END: Duration = Duration::from_millis(500);

/// A mail server that is ready to take messages.
pub(super) struct Peer<'a> {
    /// Where it takes them.
    pub(super) port: u16,
    /// Its processes, by the names they have in the table.
    pub(super) processes: Vec<(&'static str, u32)>,
    pub(super) sink: &'a Sink,
    /// Whose smtp-source is used.
    pub(super) peers_dir: &'a Path,
    /// Where the message is written.
    pub(super) dir: &'a Path,
}

impl Peer<'_> {
    /// Sends the messages so many times; the medians.
    pub(super) fn measure(&self, messages: u64, runs: u32) -> Outcome<Figures> {
        let message = self.dir.join("message");
        let text = message_text();
        std::fs::write(&message, &text)
            .map_err(|error| Failure::new(format!("could not write the message: {error}")))?;
        self.send(&message, WARM_UP_MESSAGES)?;
        self.sink.wait_for(WARM_UP_MESSAGES)?;
        let octets = self.sink.mean_octets()?;
        if octets < text.len() as f64 + SIGNATURE_OCTETS_MIN {
            return Err(Failure::new(format!(
                "its messages have {octets:.0} octets and went in with {}: they are not signed",
                text.len()
            )));
        }
        let runs: Outcome<Vec<_>> = (0..runs).map(|_| self.run(&message, messages)).collect();
        Ok(Figures::of_runs(&runs?))
    }

    fn run(&self, message: &Path, messages: u64) -> Outcome<Vec<(String, f64)>> {
        let before = self.sink.received()?;
        let cpu_before = self.cpu();
        let started = Instant::now();
        self.send(message, messages)?;
        let handed_in = started.elapsed().as_secs_f64();
        let received = self.sink.wait_for(before + messages)? - before;
        let seconds = started.elapsed().as_secs_f64();
        if received < messages {
            return Err(Failure::new(format!(
                "{received} of {messages} messages came"
            )));
        }
        // Those that just ended are not waited for at once.
        std::thread::sleep(CHILDREN_END);
        let per_message = |seconds: f64| seconds * 1e6 / messages as f64;
        let spent: Vec<_> = cpu_before
            .into_iter()
            .zip(self.cpu())
            .map(|((name, before), (_, after))| (name, per_message(after - before)))
            .collect();
        let mut figures = vec![
            (ACCEPTED.to_owned(), messages as f64 / handed_in),
            (DELIVERED.to_owned(), messages as f64 / seconds),
        ];
        let platform = spent.iter().filter(|(name, _)| *name != "sink");
        figures.push((CPU.to_owned(), platform.map(|(_, us)| us).sum()));
        for (name, us) in spent {
            figures.push((format!("cost.cpu_us_per_message.{name}"), us));
        }
        for (name, pid) in &self.processes {
            figures.push((format!("cost.memory_bytes.{name}"), memory_bytes(*pid)));
        }
        Ok(figures)
    }

    fn cpu(&self) -> Vec<(&'static str, f64)> {
        let own = self.processes.iter().copied();
        own.chain([("sink", self.sink.pid())])
            .map(|(name, pid)| (name, cpu_seconds(pid)))
            .collect()
    }

    fn send(&self, message: &Path, messages: u64) -> Outcome {
        let mut source = peers::program(self.peers_dir, "postfix", "usr/sbin/smtp-source")?;
        source
            .args(["-d", "-s", SESSIONS, "-m", &messages.to_string()])
            .args(["-f", &format!("bench@{SENDER_DOMAIN}")])
            .args(["-t", "user@sink.test", "-F"])
            .arg(message)
            .arg(format!("127.0.0.1:{}", self.port));
        run_to_end(&mut source)
    }
}

/// A message as our own rows send it: about as long, and as little to be compressed.
fn message_text() -> String {
    let mut text = format!(
        "From: Bench <bench@{SENDER_DOMAIN}>\nTo: user@sink.test\nSubject: Of a benchmark\n\
         Date: Sun, 22 Nov 2026 12:00:00 +0000\nMessage-ID: <1@{SENDER_DOMAIN}>\n\
         MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n\n"
    );
    let mut state = 0x9e37_79b9_u32;
    while text.len() < MESSAGE_OCTETS {
        // Numerical Recipes' generator; its upper bits are good enough for letters.
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        match state >> 24 {
            0..40 => text.push(' '),
            40..45 => text.push('\n'),
            high => text.push(char::from(b'a' + (high % 26) as u8)),
        }
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_has_a_header_and_its_length() {
        let text = message_text();
        assert!((5_100..5_200).contains(&text.len()), "{}", text.len());
        let (header, body) = text.split_once("\n\n").unwrap();
        assert!(header.lines().all(|line| line.contains(": ")), "{header}");
        assert!(body.lines().all(|line| line.len() < 998));
    }
}
