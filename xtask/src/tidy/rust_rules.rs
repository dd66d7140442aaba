//! Rules about one Rust file: what it says first, whose clock it reads, which crates it names,
//! and where its SQL is.

use super::Finding;
use super::layers;
use super::source::Source;
use super::sql_rules;

/// Readings of the wall clock, by the names they have in code.
const CLOCKS: [&str; 6] = [
    "SystemTime::now",
    "OffsetDateTime::now_utc",
    "OffsetDateTime::now_local",
    "UtcDateTime::now",
    "Utc::now",
    "Uuid::now_v7",
];

/// Code that no domain time passes through, and the one place that may read the clock.
const CLOCK_ALLOWED: [&str; 4] = [
    "service/src/clock.rs",
    "xtask/",
    "tests/",
    "postrider/src/bench",
];

pub(super) fn check(path: &str, text: &str) -> Vec<Finding> {
    let source = Source::parse(text);
    let mut findings = Vec::new();
    if !text.starts_with("//!") {
        let what = "the first line must be `//!` and say what the file is for and must not do";
        findings.push(Finding::new(path, 1, what));
    }
    for (index, code) in source.code.iter().enumerate() {
        let line = index + 1;
        let in_tests = line >= source.tests_from;
        if !in_tests {
            findings.extend(check_clock(path, line, code));
            findings.extend(sql_rules::check_driver(path, line, code));
        }
        findings.extend(layers::check_code(path, line, code));
    }
    for literal in source
        .literals
        .iter()
        .filter(|literal| literal.line < source.tests_from)
    {
        findings.extend(sql_rules::check_literal(path, literal));
    }
    findings
}

fn check_clock(path: &str, line: usize, code: &str) -> Option<Finding> {
    if CLOCK_ALLOWED
        .iter()
        .any(|allowed| path.starts_with(allowed))
        || is_test_file(path)
    {
        return None;
    }
    let clock = CLOCKS.iter().find(|clock| code.contains(*clock))?;
    let what =
        format!("{clock} reads the wall clock: take the time as a parameter from service::clock");
    Some(Finding::new(path, line, what))
}

/// `tests.rs`, `*_tests.rs`, and everything below a `tests` directory.
pub(super) fn is_test_file(path: &str) -> bool {
    path.ends_with("/tests.rs")
        || path.ends_with("_tests.rs")
        || path.starts_with("tests/")
        || path.contains("/tests/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(path: &str, text: &str) -> Vec<(usize, String)> {
        check(path, text)
            .into_iter()
            .map(|finding| (finding.line, finding.what))
            .collect()
    }

    #[test]
    fn a_file_says_first_what_it_is_for() {
        assert_eq!(findings("mail/src/a.rs", "use b;\n")[0].0, 1);
        assert!(findings("mail/src/a.rs", "//! A.\nuse b;\n").is_empty());
    }

    #[test]
    fn only_the_clock_reads_the_clock() {
        let text = "//! A.\n// SystemTime::now\nfn f() { let t = std::time::SystemTime::now(); }\n";
        assert_eq!(findings("mta/src/a.rs", text).len(), 1);
        assert_eq!(findings("mta/src/a.rs", text)[0].0, 3);
        for allowed in [
            "service/src/clock.rs",
            "tests/src/a.rs",
            "mta/tests/a.rs",
            "postrider/src/bench/a.rs",
        ] {
            assert!(findings(allowed, text).is_empty(), "{allowed}");
        }
        let in_tests = "//! A.\n#[cfg(test)]\nmod tests { fn f() { Uuid::now_v7(); } }\n";
        assert!(findings("mta/src/a.rs", in_tests).is_empty());
    }

    #[test]
    fn sql_stands_in_store_only() {
        let text = "//! A.\nfn f() { q(\"SELECT id FROM queue\"); }\n";
        assert!(findings("api/src/a.rs", text)[0].1.contains("SQL"));
        assert!(findings("store/src/a.rs", text).is_empty());
        let driver = "//! A.\nuse sqlx::PgPool;\n";
        assert_eq!(findings("worker/src/a.rs", driver).len(), 1);
        assert!(findings("store/src/a.rs", driver).is_empty());
    }
}
