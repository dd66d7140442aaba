//! Command line of `postrider bench`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{bail, ensure};
use clap::{Args, ValueEnum};
use reqwest::Url;

use super::content::DOMAINS_MAX;
use super::load::{Budget, Pace, Parcel};
use super::own_platform::{ALL_ROLES, NO_SENDING, Plan};
use super::scenario::Scenario;
use crate::sink::Latency;

/// Measure how much mail a platform takes in and sends.
///
/// Sends unique messages over HTTP and reports accepted messages per second and the time to each
/// answer. With --self-contained it starts a whole platform and an SMTP sink on this machine, and
/// reports as well what was delivered, how long that took, and what it cost in CPU, write-ahead log
/// and disk; beside them stands the number of RSA-2048 signatures this machine can make, the floor
/// of that cost. The bodies of all requests are made before the load begins and written to
/// keep-alive connections, so that the generator takes little from what it measures; what it did
/// take is reported too. Loopback only unless told otherwise.
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

    /// Recipient domains, 1 to 100000; more than one are subdomains of the recipients' domain
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    pub(crate) domains: u32,

    /// How messages are handed in
    #[arg(long, value_enum, default_value_t = Mode::HttpSingle)]
    pub(crate) mode: Mode,

    /// Messages in a request of http-batch
    #[arg(long, value_name = "COUNT", default_value_t = 100)]
    pub(crate) batch_size: u64,

    /// Open loop: send this many messages a second, however slowly they are answered
    #[arg(long, value_name = "PER_SECOND", conflicts_with = "concurrency")]
    pub(crate) rate: Option<f64>,

    /// Closed loop: keep this many requests under way; default 64, in batches 8
    #[arg(long, value_name = "COUNT")]
    pub(crate) concurrency: Option<usize>,

    /// Stop after this many messages
    #[arg(long, value_name = "COUNT")]
    pub(crate) messages: Option<u64>,

    /// Stop after this many seconds; 20 if neither limit is given
    #[arg(long, value_name = "SECONDS")]
    pub(crate) seconds: Option<u64>,

    /// Octets of a composed message, about; up to 10000000
    #[arg(long, value_name = "OCTETS", default_value_t = 5_120)]
    pub(crate) size: usize,

    /// Same seed, same messages
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub(crate) seed: u64,

    /// Repeat the load this often; each run is reported, then the median and spread of all
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) runs: u32,

    /// Have one webhook endpoint called for everything delivered (--self-contained)
    ///
    /// It is on this machine, keeps its connections open and does nothing but count. Its own
    /// processor time is reported apart.
    #[arg(long, conflicts_with_all = ["target", "accept_only"])]
    pub(crate) webhook: bool,

    /// Send nothing: the platform runs without the role mta and the queue grows (--self-contained)
    #[arg(long, conflicts_with = "target")]
    pub(crate) accept_only: bool,

    /// Measure after each run what one transaction for each message would give (--accept-only)
    ///
    /// For as long as the run took, the same kind of messages goes to 12 more processes of the role
    /// api on the same database, to each one at a time: no message shares a transaction with
    /// another.
    #[arg(long, requires = "accept_only")]
    pub(crate) one_by_one: bool,

    /// Ask another question than how fast (--self-contained)
    ///
    /// backlog, tarpit and accounts load two platforms by turns, one without and one with what is
    /// asked about, --pairs times each, for --seconds (default 30) each time; what counts is the
    /// median of the ratios, printed with its spread and with how far two equal runs are apart.
    /// Unless --rate or --concurrency is given, tarpit and accounts send 30 % of what the platform
    /// was found to deliver at most, backlog as much as it takes. restart kills --runs times.
    #[arg(long, value_enum, requires = "self_contained", conflicts_with_all = ["accept_only", "webhook", "messages"])]
    pub(crate) scenario: Option<Scenario>,

    /// Deliveries that wait in the queue (--scenario)
    #[arg(long, value_name = "COUNT", default_value_t = 100_000)]
    pub(crate) queued: u64,

    /// Accounts that send (--scenario accounts)
    #[arg(long, value_name = "COUNT", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) accounts: u32,

    /// How often both are loaded (--scenario)
    #[arg(long, value_name = "COUNT", default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) pairs: u32,

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

/// How messages are handed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// One a request: POST /v1/emails.
    HttpSingle,
    /// Many a request: POST /v1/emails/batch.
    HttpBatch,
}

/// Ends a run that was given no end.
const SECONDS_DEFAULT: u64 = 20;
/// Requests under way, unless the command line says.
const CONCURRENCY_SINGLE: usize = 64;
const CONCURRENCY_BATCH: usize = 8;
/// What a batch may hold: the interface takes at most so many messages, and 50 MB.
const BATCH_MESSAGES_MAX: u64 = 1_000;
const BATCH_OCTETS_MAX: usize = 40_000_000;
const SIZE_MAX: usize = 10_000_000;

impl BenchArgs {
    pub(super) fn pace(&self) -> anyhow::Result<Pace> {
        if let Some(per_second) = self.rate {
            ensure!(
                per_second.is_finite() && (0.1..=1e6).contains(&per_second),
                "--rate must be from 0.1 to 1000000"
            );
            return Ok(Pace::Open { per_second });
        }
        let concurrency = self.concurrency.unwrap_or(match self.mode {
            Mode::HttpSingle => CONCURRENCY_SINGLE,
            Mode::HttpBatch => CONCURRENCY_BATCH,
        });
        ensure!(
            (1..=10_000).contains(&concurrency),
            "--concurrency must be from 1 to 10000"
        );
        Ok(Pace::Closed { concurrency })
    }

    /// What a request carries.
    pub(super) fn parcel(&self) -> anyhow::Result<Parcel> {
        ensure!(
            (1..=DOMAINS_MAX).contains(&self.domains),
            "--domains must be from 1 to {DOMAINS_MAX}"
        );
        ensure!(
            self.size <= SIZE_MAX,
            "--size must be at most {SIZE_MAX}: no interface takes more"
        );
        if self.mode == Mode::HttpSingle {
            return Ok(Parcel::Single);
        }
        ensure!(
            (1..=BATCH_MESSAGES_MAX).contains(&self.batch_size),
            "--batch-size must be from 1 to {BATCH_MESSAGES_MAX}"
        );
        ensure!(
            self.batch_size as usize * self.size <= BATCH_OCTETS_MAX,
            "a batch may have {BATCH_OCTETS_MAX} octets: make --batch-size or --size smaller"
        );
        Ok(Parcel::Batch(self.batch_size))
    }

    /// The platform of its own.
    pub(super) fn plan(&self) -> Plan {
        let latency = self.sink_latency.to_string();
        Plan {
            work_dir: self.work_dir.clone(),
            connections: self.connections,
            sink_options: vec!["--latency".to_owned(), latency],
            roles: if self.accept_only {
                NO_SENDING
            } else {
                ALL_ROLES
            },
            webhook: self.webhook,
            accounts: 0,
            receivers: Vec::new(),
        }
    }

    /// When a load ends.
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
        let pace = |args: &[&str]| parse(args).unwrap().pace();
        assert!(pace(&["--self-contained", "--rate", "0"]).is_err());
        let batch = ["--self-contained", "--mode", "http-batch"];
        assert!(matches!(
            pace(&batch),
            Ok(Pace::Closed {
                concurrency: CONCURRENCY_BATCH
            })
        ));
    }

    #[test]
    fn what_no_interface_takes_is_refused() {
        let parcel = |more: &[&str]| {
            let args = [&["--self-contained", "--mode", "http-batch"], more].concat();
            parse(&args).unwrap().parcel().ok()
        };
        assert_eq!(parcel(&[]), Some(Parcel::Batch(100)));
        assert_eq!(parcel(&["--batch-size", "1001"]), None);
        assert_eq!(parcel(&["--size", "500000"]), None);
        assert_eq!(parcel(&["--domains", "0"]), None);
        let wrong: [&[&str]; 3] = [
            &["--self-contained", "--one-by-one"],
            &["--self-contained", "--accept-only", "--webhook"],
            &["--target", "http://localhost", "--key", "k", "--webhook"],
        ];
        assert!(wrong.iter().all(|args| parse(args).is_err()));
    }
}
