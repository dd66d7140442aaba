//! The published default file and the code say the same; mistakes are explained.

use super::*;
use figment::value::Value;
use std::path::PathBuf;

fn read(name: &str, text: &str) -> Result<Config, ConfigError> {
    let (config, problems) = Config::parse(name, text);
    or_problems(config, problems)
}

fn default_toml() -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../deploy/config/default.toml");
    std::fs::read_to_string(path).unwrap()
}

/// All leaf keys of a configuration, as `section.key`.
fn keys(prefix: &str, value: &Value, found: &mut Vec<(String, bool)>) {
    let tables = ["", "database", "api.rate_limits", "mta.deadlines"];
    match value {
        Value::Dict(_, dict) if SECTIONS.contains(&prefix) || tables.contains(&prefix) => {
            for (name, inner) in dict {
                let dot = if prefix.is_empty() { "" } else { "." };
                keys(&format!("{prefix}{dot}{name}"), inner, found);
            }
        }
        Value::Empty(..) => found.push((prefix.to_owned(), false)),
        _ => found.push((prefix.to_owned(), true)),
    }
}

/// The `section.key`s that a TOML text names, and whether they are set or commented out.
fn named(text: &str) -> Vec<(String, bool)> {
    let mut section = String::new();
    let mut found = Vec::new();
    for line in text.lines() {
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            section = name.to_owned();
        }
        let (set, line) = match line.strip_prefix("# ") {
            Some(comment) => (false, comment),
            None => (true, line),
        };
        let Some((key, _)) = line.split_once(" = ") else {
            continue;
        };
        if key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') {
            found.push((format!("{section}.{key}"), set));
        }
    }
    found
}

fn problems(text: &str) -> Vec<String> {
    match read("postrider.toml", text) {
        Err(ConfigError::Problems(problems)) => problems.iter().map(Problem::to_string).collect(),
        other => panic!("expected problems, got {other:?}"),
    }
}

#[test]
fn the_default_file_equals_the_defaults_and_so_does_no_file() {
    let config = read("default.toml", &default_toml()).unwrap();
    assert_eq!(config, Config::default());
    assert_eq!(read("", "").unwrap(), Config::default());
}

#[test]
fn the_default_file_names_every_key_and_no_other() {
    let mut expected = Vec::new();
    keys(
        "",
        &Value::serialize(Config::default()).unwrap(),
        &mut expected,
    );
    let mut found = named(&default_toml());
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
}

#[test]
fn the_examples_in_the_default_file_are_valid() {
    let text: Vec<String> = default_toml()
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(key) if !named(line).is_empty() => key.to_owned(),
            _ => line.to_owned(),
        })
        .collect();
    let config = read("default.toml", &text.join("\n")).unwrap();
    assert_eq!(
        config.redis.url.unwrap().with_password(),
        "redis://localhost:6379"
    );
    assert_eq!(config.mta.ehlo.unwrap().as_str(), "mta-1.example.com");
    assert!(config.test.clock_file.is_some());
}

#[test]
fn lists_and_routes_are_read() {
    let config = read(
        "",
        "[mta]\nsources = [{ address = \"192.0.2.1\", ehlo = \"A.test\" }]\n\
         routes = { \"*\" = \"127.0.0.1:25\", \"b.test\" = \"c.test:26\" }",
    )
    .unwrap();
    assert_eq!(config.mta.sources[0].ehlo.as_str(), "a.test");
    let only = RouteDomain::Only("b.test".parse().unwrap());
    assert_eq!(config.mta.routes[&only], "c.test:26".parse().unwrap());
    assert_eq!(
        config.mta.routes[&RouteDomain::Any],
        "127.0.0.1:25".parse().unwrap()
    );
}

#[test]
fn mistakes_in_several_sections_are_reported_together_with_key_place_and_remedy() {
    let found = problems(
        "[database]\nurl = \"mysql://x/y\"\n[api]\nlisten = \"everywhere\"\n\
         [mta]\nlease_ttl_sec = 3\n[log]\nformat = \"xml\"\n[pool]\nsize = 1\n",
    );
    let expected = [
        ("database.url (in postrider.toml)", "write postgres://"),
        ("api.listen (in postrider.toml)", "socket address"),
        (
            "mta.lease_ttl_sec (in postrider.toml)",
            "is not a key: remove it; this section has ehlo",
        ),
        ("log.format (in postrider.toml)", "write one of"),
        ("pool", "is not a section"),
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (key, remedy) in expected {
        let hit = found
            .iter()
            .any(|line| line.starts_with(key) && line.contains(remedy));
        assert!(hit, "{key}: {remedy} is not in {found:#?}");
    }
}

#[test]
fn all_mistakes_of_a_section_are_reported_and_what_is_right_is_kept() {
    let text = "[mta]\nehlo = \"mx.example.com\"\nlease_ttl_sec = 3\nmax_connections = 0\n\
                sources = [{ address = \"192.0.2.1\", ehlo = \"a\" }, { address = \"192.0.2.2\" }]\n\
                routes = { \"*\" = \"somewhere\", \"b c\" = \"x:25\", \"d\" = \"e:25\" }\n\
                [mta.deadlines]\nquit_secs = \"ten\"\nidle_secs = 0\nwait_secs = 1\n\
                [log]\nfilter = \"mta=chatty\"";
    let (config, problems) = Config::parse("postrider.toml", text);
    let found: Vec<String> = problems.iter().map(Problem::to_string).collect();
    for key in [
        "mta.lease_ttl_sec ",
        "mta.max_connections ",
        "mta.sources.1 ",
        "mta.routes.* ",
        "mta.routes",
        "mta.deadlines.quit_secs ",
        "mta.deadlines.idle_secs ",
        "mta.deadlines.wait_secs ",
        "log.filter ",
    ] {
        assert!(
            found.iter().any(|line| line.starts_with(key)),
            "{key}: {found:#?}"
        );
    }
    assert!(found.iter().any(|line| line.contains("b c")), "{found:#?}");
    assert_eq!(found.len(), 9, "{found:#?}");
    assert_eq!(config.mta.ehlo.unwrap().as_str(), "mx.example.com");
}

#[test]
fn a_password_file_fills_the_url_and_its_content_is_never_shown() {
    let dir = tempfile::tempdir().unwrap();
    let (file, secret) = (dir.path().join("postrider.toml"), dir.path().join("pw"));
    let url = "[database]\nurl = \"postgres://u@db:5432/x\"";
    std::fs::write(&file, format!("{url}\npassword_file = {secret:?}")).unwrap();
    let missing = Config::check(Some(&file), false).unwrap_err().to_string();
    assert_eq!(
        missing.matches("database.password_file").count(),
        1,
        "{missing}"
    );
    assert!(missing.contains("create it with the password"), "{missing}");
    assert!(Config::load(Some(&file)).is_err());
    std::fs::write(&secret, "hunter2 @/\n").unwrap();
    let config = Config::load(Some(&file)).unwrap();
    let whole = "postgres://u:hunter2%20%40%2F@db:5432/x";
    assert_eq!(config.database.url.with_password(), whole);
    let value = Value::serialize(&config).unwrap();
    assert!(!format!("{config:?} {value:?}").contains("hunter2"));
    for wrong in ["", "\n", "hunter2\nmore", "hunter2\0"] {
        std::fs::write(&secret, wrong).unwrap();
        let told = Config::check(Some(&file), false).unwrap_err().to_string();
        assert!(
            told.contains("is not one line") && !told.contains("hunter2"),
            "{told}"
        );
    }
}

#[test]
fn wrong_values_are_explained() {
    for (text, expected) in [
        (
            "[mta]\nlease_ttl_secs = 0",
            "write a number of seconds from 1",
        ),
        ("[mta]\nlease_ttl_secs = 2", "write at least 3"),
        (
            "[mta]\nambiguous_hold_secs = 5",
            "shorter than mta.lease_ttl_secs",
        ),
        ("[mta]\nmax_connections = 0", "nonzero"),
        (
            "[mta.deadlines]\nquit_secs = \"ten\"",
            "mta.deadlines.quit_secs (in postrider.toml)",
        ),
        (
            "[mta]\nsources = [{ address = \"192.0.2.1\" }]",
            "lacks ehlo",
        ),
        (
            "[mta]\nsources = [{ address = \"::1\", ehlo = \"a\" }, { address = \"::1\", ehlo = \"b\" }]",
            "names ::1 twice",
        ),
        (
            "[mta]\nroutes = { \"*\" = \"somewhere\" }",
            "write relay.example.com:25",
        ),
        ("[api]\npublic_url = \"https://x/y\"", "with no path"),
        ("[api]\ntrusted_proxies = [\"lb\"]", "write 10.0.0.0/8"),
        (
            "[api.rate_limits]\nkey_per_second = 100001",
            "or 0 for no limit",
        ),
        ("[api.rate_limits]\nkey_burst = 0", "nonzero"),
        ("[node]\ngroup = \"\"", "1 to 63"),
        ("mta = 3", "mta (in postrider.toml)"),
        ("[mta", "postrider.toml"),
    ] {
        let found = problems(text);
        assert_eq!(found.len(), 1, "{text}: {found:?}");
        assert!(found[0].contains(expected), "{text}: {found:?}");
    }
}

#[test]
fn a_clock_file_needs_the_flag() {
    let dir = tempfile::tempdir().unwrap();
    let clock = crate::clock::ClockFile::create(dir.path().join("clock")).unwrap();
    let file = dir.path().join("postrider.toml");
    std::fs::write(&file, format!("[test]\nclock_file = {:?}", clock.path())).unwrap();
    let config = Config::load(Some(&file)).unwrap();
    assert!(config.open_clock(true).is_ok());
    let refused = config.open_clock(false).unwrap_err().to_string();
    assert!(refused.contains("--test-clock"), "{refused}");
    assert!(Config::check(Some(&file), true).is_ok());
    assert!(Config::check(Some(&file), false).is_err());
}

#[test]
fn files_that_are_named_must_be_there_when_checked() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("postrider.toml");
    std::fs::write(&file, "[secrets]\nmaster_key_file = \"/nowhere/key\"").unwrap();
    assert!(Config::load(Some(&file)).is_ok());
    let wrong = Config::check(Some(&file), false).unwrap_err().to_string();
    assert!(
        wrong.contains("secrets.master_key_file") && wrong.contains("/nowhere/key"),
        "{wrong}"
    );
    let missing = Config::load(Some(Path::new("/nowhere/postrider.toml"))).unwrap_err();
    assert!(matches!(missing, ConfigError::Read { .. }));
}

/// Runs this test binary again with variables set: the environment of a process cannot be
/// changed safely while its threads run.
#[test]
fn the_environment_wins_and_is_named_in_errors() {
    if std::env::var_os("CONFIG_TEST_CHILD").is_some() {
        print_outcome();
        return;
    }
    let outcome = |variables: &[(&str, &str)]| {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args([
                "config::tests::the_environment_wins_and_is_named_in_errors",
                "--exact",
            ])
            .arg("--nocapture")
            .env("CONFIG_TEST_CHILD", "1")
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        String::from_utf8(output.stderr).unwrap()
    };
    let good = outcome(&[
        ("POSTRIDER_MTA__LEASE_TTL_SECS", "30"),
        ("POSTRIDER_MTA__ROUTES", "{\"*\"=\"127.0.0.1:2525\"}"),
        ("POSTRIDER_MTA__DEADLINES__QUIT_SECS", "3"),
        ("POSTRIDER_PG_BINDIR", "/not/a/key"),
    ]);
    assert!(
        good.contains("ttl 30 quit 3 route 127.0.0.1:2525"),
        "{good}"
    );
    let bad = outcome(&[("POSTRIDER_MTA__LEASE_TTL_SECS", "soon")]);
    assert!(
        bad.contains("mta.lease_ttl_secs (in POSTRIDER_MTA__LEASE_TTL_SECS)"),
        "{bad}"
    );
    let number = outcome(&[("POSTRIDER_NODE__GROUP", "7")]);
    assert!(
        number.contains("POSTRIDER_NODE__GROUP='\"...\"'"),
        "{number}"
    );
    let unknown = outcome(&[("POSTRIDER_MTA__LEASE", "7")]);
    assert!(
        unknown.contains("mta.lease (in POSTRIDER_MTA__LEASE) is not a key"),
        "{unknown}"
    );
}

fn print_outcome() {
    match read("postrider.toml", "[mta]\nlease_ttl_secs = 20") {
        Ok(Config { mta, .. }) => eprintln!(
            "ttl {} quit {} route {}",
            mta.lease_ttl_secs.get(),
            mta.deadlines.quit_secs.get(),
            mta.routes
                .get(&RouteDomain::Any)
                .map(HostPort::to_string)
                .unwrap_or_default(),
        ),
        Err(error) => eprintln!("{error}"),
    }
}
