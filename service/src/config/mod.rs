//! Configuration: one TOML file, every key of which can also be set in the environment, parsed
//! once into types. Reads nothing else and starts nothing.
//!
//! `[mta] lease_ttl_secs` is `POSTRIDER_MTA__LEASE_TTL_SECS` in the environment, which wins. Lists
//! and tables are written as in TOML: `POSTRIDER_MTA__ROUTES={"*"="127.0.0.1:2525"}`.

mod error;
mod reader;
mod sections;
mod urls;
mod values;

#[cfg(test)]
mod tests;

use std::path::Path;

use figment::Figment;
use figment::providers::{Env, Format, Toml};
use serde::{Deserialize, Serialize};

pub use error::{ConfigError, Problem};
pub use sections::{
    ApiConfig, DatabaseConfig, DeadlinesConfig, DnsConfig, LogConfig, MetricsConfig, MtaConfig,
    NodeConfig, RateLimitsConfig, RedisConfig, ReturnPathConfig, SandboxConfig, SecretsConfig,
    SourceConfig, TestConfig, WorkerConfig,
};
pub use urls::{DatabaseUrl, PublicUrl, RedisUrl};
pub use values::{Host, HostName, HostPort, Network, RouteDomain, Seconds};

use crate::clock::Clock;
use crate::telemetry;
use reader::Reader;

/// Put before every key in the environment.
pub const ENV_PREFIX: &str = "POSTRIDER_";
/// Stands between section and key in the environment.
pub const ENV_SEPARATOR: &str = "__";

/// Everything a process can be told. `Default` is what an empty file means.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// PostgreSQL.
    pub database: DatabaseConfig,
    /// Redis.
    pub redis: RedisConfig,
    /// This process among others.
    pub node: NodeConfig,
    /// The HTTP interface.
    pub api: ApiConfig,
    /// Sending.
    pub mta: MtaConfig,
    /// The MX of test keys.
    pub sandbox: SandboxConfig,
    /// Background duties.
    pub worker: WorkerConfig,
    /// Metrics and health.
    pub metrics: MetricsConfig,
    /// Bounces.
    pub return_path: ReturnPathConfig,
    /// Name servers.
    pub dns: DnsConfig,
    /// Encryption at rest.
    pub secrets: SecretsConfig,
    /// Logs.
    pub log: LogConfig,
    /// Tests only.
    pub test: TestConfig,
}

impl Config {
    /// Reads the file at `path` (none: defaults) and the environment.
    ///
    /// # Errors
    /// The file cannot be read, is not TOML, or has problems: all of them at once, each with its
    /// key, where it stands and what to write instead.
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        let (config, problems) = Self::load_lenient(path)?;
        or_problems(config, problems)
    }

    fn load_lenient(path: Option<&Path>) -> Result<(Self, Vec<Problem>), ConfigError> {
        let text = match path {
            Some(path) => std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
                path: path.to_owned(),
                source,
            })?,
            None => String::new(),
        };
        let name = path.map_or_else(String::new, |path| path.display().to_string());
        let (mut config, mut problems) = Self::parse(&name, &text);
        problems.extend(config.database.read_password().err());
        Ok((config, problems))
    }

    /// [`Config::load`], and looks whether the files it names are there. For `--check-config`.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn check(path: Option<&Path>, test_clock: bool) -> Result<Self, ConfigError> {
        let (config, problems) = Self::inspect(path, test_clock)?;
        or_problems(config, problems)
    }

    /// Everything that is wrong, beside the configuration as it would be without the wrong keys:
    /// so that whoever knows more about it can look for more.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn inspect(
        path: Option<&Path>,
        test_clock: bool,
    ) -> Result<(Self, Vec<Problem>), ConfigError> {
        let (config, mut problems) = Self::load_lenient(path)?;
        for problem in config.check_files() {
            // A password file that cannot be read was noticed when it was read.
            if !problems.iter().any(|known| known.key == problem.key) {
                problems.push(problem);
            }
        }
        problems.extend(config.check_test_clock(test_clock).err());
        Ok((config, problems))
    }

    /// The clock this configuration asks for. `test_clock` says whether the process was started
    /// with `--test-clock`, without which no file may move time.
    ///
    /// # Errors
    /// A clock file without `--test-clock`, or one that cannot be used.
    pub fn open_clock(&self, test_clock: bool) -> Result<Clock, ConfigError> {
        self.check_test_clock(test_clock)
            .map_err(|problem| ConfigError::Problems(vec![problem]))?;
        match &self.test.clock_file {
            Some(path) => Clock::from_file(path).map_err(ConfigError::Clock),
            None => Ok(Clock::system()),
        }
    }

    /// What `text` and the environment say, without the keys that are wrong, and what is wrong
    /// with these.
    fn parse(name: &str, text: &str) -> (Self, Vec<Problem>) {
        // Variables of other tools start with our prefix too; keys always have a section.
        let environment = Env::prefixed(ENV_PREFIX)
            .filter(|key| key.as_str().contains(ENV_SEPARATOR))
            .split(ENV_SEPARATOR);
        let figment = Figment::new().merge(Toml::string(text)).merge(environment);
        let mut reader = Reader {
            figment: &figment,
            file: name,
            problems: Vec::new(),
        };
        let config = Self {
            database: reader.section("database"),
            redis: reader.section("redis"),
            node: reader.section("node"),
            api: reader.section("api"),
            mta: reader.section("mta"),
            sandbox: reader.section("sandbox"),
            worker: reader.section("worker"),
            metrics: reader.section("metrics"),
            return_path: reader.section("return_path"),
            dns: reader.section("dns"),
            secrets: reader.section("secrets"),
            log: reader.section("log"),
            test: reader.section("test"),
        };
        reader.other_sections();
        reader.problems.extend(config.contradictions());
        let problems = reader.problems;
        (config, problems)
    }

    /// Values that are right alone and wrong together.
    fn contradictions(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        // The lease is renewed at a third of its life and given up a third before its end.
        if self.mta.lease_ttl_secs.get() < 3 {
            problems.push(Problem::new(
                "mta.lease_ttl_secs",
                "is under 3: write at least 3",
            ));
        }
        if self.mta.ambiguous_hold_secs < self.mta.lease_ttl_secs {
            problems.push(Problem::new(
                "mta.ambiguous_hold_secs",
                "is shorter than mta.lease_ttl_secs: a node could not come back in time; write \
                 at least as much",
            ));
        }
        if let Err(wrong) = telemetry::check(&self.log) {
            problems.push(Problem::new("log.filter", wrong));
        }
        if self.node.group.is_empty() || self.node.group.len() > 63 {
            problems.push(Problem::new("node.group", "must have 1 to 63 characters"));
        }
        problems.extend(self.api.rate_limits.problems());
        let mut addresses: Vec<_> = self
            .mta
            .sources
            .iter()
            .map(|source| source.address)
            .collect();
        addresses.sort_unstable();
        if let Some(pair) = addresses.windows(2).find(|pair| pair[0] == pair[1]) {
            let twice = format!("names {} twice: remove one of the two", pair[0]);
            problems.push(Problem::new("mta.sources", twice));
        }
        problems
    }

    fn check_files(&self) -> Vec<Problem> {
        let named = [
            ("database.password_file", &self.database.password_file),
            ("return_path.keys_file", &self.return_path.keys_file),
            ("secrets.master_key_file", &self.secrets.master_key_file),
            ("test.clock_file", &self.test.clock_file),
        ];
        named
            .into_iter()
            .filter_map(|(key, path)| {
                let wrong = values::readable(path.as_deref()?).err()?;
                Some(Problem::new(key, wrong))
            })
            .collect()
    }

    fn check_test_clock(&self, test_clock: bool) -> Result<(), Problem> {
        if self.test.clock_file.is_some() && !test_clock {
            return Err(Problem::new(
                "test.clock_file",
                "moves time and is for tests: remove it, or start with --test-clock",
            ));
        }
        Ok(())
    }
}

fn or_problems(config: Config, problems: Vec<Problem>) -> Result<Config, ConfigError> {
    if problems.is_empty() {
        return Ok(config);
    }
    Err(ConfigError::Problems(problems))
}

const SECTIONS: [&str; 13] = [
    "database",
    "redis",
    "node",
    "api",
    "mta",
    "sandbox",
    "worker",
    "metrics",
    "return_path",
    "dns",
    "secrets",
    "log",
    "test",
];
