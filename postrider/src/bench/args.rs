//! Command line of `postrider bench`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{bail, ensure};
use clap::Args;
use reqwest::Url;

use super::load::{Budget, Pace};
use crate::sink::Latency;

/// Measure how much mail a platform takes in and sends.
///
/// Sends unique messages through POST /v1/emails and reports accepted messages per second and
/// the time to each answer. With --self-contained it starts a whole platform and an SMTP sink on
/// this machine, and reports as well what was delivered, how long that took, and what it cost in
/// CPU, write-ahead log and disk; beside them stands the number of RSA-2048 signatures this machine
/// can make, the floor of that cost. Loopback only unless told otherwise.
#[derive(Debug, Clone, Args)]
pub(crate) struct BenchArgs {
    /// Base URL of a running platform
    #[arg(
        long,
        value_name = "URL",
        requires = "key",
        conflicts_with = "self_contained"
    )]
    pub(crate) target: Option<Url>,

    /// API key for --target
    #[arg(
        long,
        value_name = "KEY",
        env = "POSTRIDER_BENCH_KEY",
        hide_env_values = true
    )]
    pub(crate) key: Option<String>,

    /// Start PostgreSQL, Redis (if installed), a platform and a sink of its own, and stop them after
    #[arg(long, required_unless_present = "target")]
    pub(crate) self_contained: bool,

    /// Allow a --target that is not on this machine
    ///
    /// Every message is real mail to whoever runs the target. Only for platforms of your own.
    #[arg(long)]
    pub(crate) allow_public: bool,

    /// Sender, in a verified domain of the key's account (--target)
    #[arg(long, value_name = "ADDRESS", default_value = "hello@sandbox.test")]
    pub(crate) from: String,

    /// Domain of the recipients (--target); default: the sender's
    #[arg(long, value_name = "DOMAIN")]
    pub(crate) to_domain: Option<String>,

    /// Open loop: send this many messages a second, however slowly they are answered
    #[arg(long, value_name = "PER_SECOND", conflicts_with = "concurrency")]
    pub(crate) rate: Option<f64>,

    /// Closed loop: keep this many requests under way
    #[arg(long, value_name = "COUNT", default_value_t = 64)]
    pub(crate) concurrency: usize,

    /// Stop after this many messages
    #[arg(long, value_name = "COUNT")]
    pub(crate) messages: Option<u64>,

    /// Stop after this many seconds; 20 if neither limit is given
    #[arg(long, value_name = "SECONDS")]
    pub(crate) seconds: Option<u64>,

    /// Octets of a composed message, about
    #[arg(long, value_name = "OCTETS", default_value_t = 5_120)]
    pub(crate) size: usize,

    /// Same seed, same messages
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub(crate) seed: u64,

    /// Repeat the load this often; each run is reported
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    pub(crate) runs: u32,

    /// Write the results to FILE as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,

    /// Where the self-contained platform keeps its data; default: the system's temporary directory
    ///
    /// Choose a disk: a temporary directory in memory makes commits look free.
    #[arg(long, value_name = "DIR")]
    pub(crate) work_dir: Option<PathBuf>,

    /// Connections to the sink at most (--self-contained)
    #[arg(long, value_name = "COUNT", default_value_t = 20)]
    pub(crate) connections: u32,

    /// How long the sink waits before its final reply (--self-contained); see `postrider sink`
    #[arg(long, value_name = "WAIT", default_value = "none")]
    pub(crate) sink_latency: Latency,
}

/// Ends a run that was given no end.
const SECONDS_DEFAULT: u64 = 20;

impl BenchArgs {
    pub(super) fn pace(&self) -> anyhow::Result<Pace> {
        if let Some(per_second) = self.rate {
            ensure!(
                per_second.is_finite() && (0.1..=1e6).contains(&per_second),
                "--rate must be from 0.1 to 1000000"
            );
            return Ok(Pace::Open { per_second });
        }
        ensure!(
            (1..=10_000).contains(&self.concurrency),
            "--concurrency must be from 1 to 10000"
        );
        Ok(Pace::Closed {
            concurrency: self.concurrency,
        })
    }

    pub(super) fn budget(&self) -> Budget {
        let seconds = match (self.messages, self.seconds) {
            (None, None) => Some(SECONDS_DEFAULT),
            (_, seconds) => seconds,
        };
        Budget {
            messages: self.messages,
            time: seconds.map(Duration::from_secs),
        }
    }

    /// The target, if it may be used.
    pub(super) fn checked_target(&self) -> anyhow::Result<Option<&Url>> {
        let Some(target) = &self.target else {
            return Ok(None);
        };
        if !self.allow_public && !is_loopback(target) {
            bail!(
                "{target} is not on this machine, and every message would be real mail: give \
                 --allow-public if it is a platform of your own"
            );
        }
        Ok(Some(target))
    }
}

fn is_loopback(url: &Url) -> bool {
    let Some(host) = url.host_str() else {
        return false;
    };
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || bare
            .parse()
            .is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser;

    fn parse(args: &[&str]) -> Result<BenchArgs, clap::Error> {
        let line = ["postrider", "bench"].iter().chain(args);
        match Cli::try_parse_from(line)?.command {
            Command::Bench(args) => Ok(*args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn strangers_are_not_flooded_by_mistake() {
        for (url, allowed) in [
            ("http://127.0.0.1:8025", true),
            ("http://127.1:8025", true),
            ("http://[::1]:1", true),
            ("http://localhost", true),
            ("http://10.0.0.1", false),
            ("https://mail.example.com", false),
            ("http://localhost.example.com", false),
        ] {
            let args = parse(&["--target", url, "--key", "k"]).unwrap();
            assert_eq!(args.checked_target().is_ok(), allowed, "{url}");
        }
        let public = [
            "--target",
            "https://a.example",
            "--key",
            "k",
            "--allow-public",
        ];
        assert!(parse(&public).unwrap().checked_target().is_ok());
    }

    #[test]
    fn a_run_has_an_end_and_a_pace() {
        let args = parse(&["--self-contained"]).unwrap();
        assert_eq!(
            args.budget().time,
            Some(Duration::from_secs(SECONDS_DEFAULT))
        );
        let args = parse(&["--self-contained", "--messages", "5", "--rate", "100"]).unwrap();
        assert_eq!(
            (args.budget().messages, args.budget().time),
            (Some(5), None)
        );
        assert!(matches!(args.pace(), Ok(Pace::Open { .. })));
        assert!(parse(&[]).is_err() && parse(&["--target", "http://localhost"]).is_err());
        assert!(
            parse(&["--self-contained", "--rate", "0"])
                .unwrap()
                .pace()
                .is_err()
        );
    }
}
