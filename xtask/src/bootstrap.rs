//! The servers that `dev` and the tests need: found, else installed, else asked for.
//! Decides what is missing; how a package is installed without starting a service is `packages`.

use std::env;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::packages;
use crate::shell::{Failure, Outcome, ask, on_path};

const PG_MAJOR_MIN: u32 = 15;
const PG_DEBIAN: &str = "/usr/lib/postgresql";
const REDIS_USUAL: [&str; 2] = ["/usr/bin/redis-server", "/usr/sbin/redis-server"];

/// Where the servers are.
pub(crate) struct Tools {
    pub(crate) pg_bindir: PathBuf,
    pub(crate) redis_server: PathBuf,
}

impl Tools {
    /// Tells a program started by us where the servers are.
    pub(crate) fn name_to(&self, command: &mut Command) {
        command.env("POSTRIDER_PG_BINDIR", &self.pg_bindir);
        command.env("POSTRIDER_REDIS_SERVER", &self.redis_server);
    }
}

impl fmt::Display for Tools {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "PostgreSQL: {}", self.pg_bindir.display())?;
        write!(f, "Redis: {}", self.redis_server.display())
    }
}

/// Finds the servers, installing what is missing.
///
/// Fails, after printing the commands, where we may not install.
pub(crate) fn ensure() -> Outcome<Tools> {
    let mut missing = Vec::new();
    if find_postgres()?.is_none() {
        missing.push("postgresql");
    }
    if find_redis().is_none() {
        missing.push("redis-server");
    }
    if !missing.is_empty() {
        packages::install(&missing)?;
    }
    let still_missing = |what: &str| {
        Failure::new(format!(
            "{what} is installed but cannot be found; set PG_BINDIR or PATH"
        ))
    };
    Ok(Tools {
        pg_bindir: find_postgres()?.ok_or_else(|| still_missing("PostgreSQL 15 or newer"))?,
        redis_server: find_redis().ok_or_else(|| still_missing("redis-server"))?,
    })
}

/// Directory of a server that is new enough: PG_BINDIR, then PATH, then the newest of Debian's.
fn find_postgres() -> Outcome<Option<PathBuf>> {
    if let Some(named) = env::var_os("PG_BINDIR").filter(|named| !named.is_empty()) {
        let dir = PathBuf::from(named);
        return match major_in(&dir) {
            Some(major) if major >= PG_MAJOR_MIN => Ok(Some(dir)),
            _ => Err(Failure::new(format!(
                "PG_BINDIR={} holds no PostgreSQL {PG_MAJOR_MIN} or newer: correct or unset it",
                dir.display()
            ))),
        };
    }
    // On PATH there is often only a link into the directory that has all programs.
    let on_path = on_path("initdb")
        .and_then(|initdb| fs::canonicalize(initdb).ok())
        .and_then(|initdb| initdb.parent().map(Path::to_path_buf));
    let debian = fs::read_dir(PG_DEBIAN).into_iter().flatten().flatten();
    let mut debian: Vec<_> = debian.map(|version| version.path().join("bin")).collect();
    debian.sort_by_key(|dir| std::cmp::Reverse(major_in(dir)));
    let new_enough = |dir: &PathBuf| major_in(dir).is_some_and(|major| major >= PG_MAJOR_MIN);
    Ok(on_path.into_iter().chain(debian).find(new_enough))
}

fn find_redis() -> Option<PathBuf> {
    let usual = REDIS_USUAL
        .iter()
        .map(PathBuf::from)
        .find(|program| program.is_file());
    on_path("redis-server").or(usual)
}

fn major_in(dir: &Path) -> Option<u32> {
    let complete = ["initdb", "pg_ctl", "postgres"]
        .iter()
        .all(|name| dir.join(name).is_file());
    if !complete {
        return None;
    }
    parse_major(&ask(Command::new(dir.join("postgres")).arg("--version"))?)
}

fn parse_major(version_line: &str) -> Option<u32> {
    let (_, version) = version_line.split_once("(PostgreSQL) ")?;
    let digits = version
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(version.len());
    version[..digits].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_empty_directories_are_no_servers() {
        assert_eq!(
            parse_major("postgres (PostgreSQL) 17.2 (Debian 17.2-1)\n"),
            Some(17)
        );
        assert_eq!(parse_major("postgres (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(parse_major("mysqld 8"), None);
        assert_eq!(major_in(Path::new("/etc")), None);
    }
}
