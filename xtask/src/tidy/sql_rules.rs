//! Rules about SQL: it is written in `store`, and it does not ask the database for the time.
//! Leases are the exception: their expiry is decided by one clock, the database's. So is the
//! statement that holds a caller's clock against it.

use super::Finding;
use super::rust_rules::is_test_file;
use super::source::Literal;

/// Where SQL may be written. Tests look into tables; this tool holds SQL as examples.
const SQL_ALLOWED: [&str; 4] = ["store/", "tests/", "migrations/", "xtask/"];

/// What begins a statement, and what else must be in it, so that prose is not taken for SQL.
const STATEMENTS: [(&str, &str); 12] = [
    ("SELECT ", ""),
    ("select ", " from "),
    ("INSERT INTO ", ""),
    ("insert into ", "("),
    ("UPDATE ", " SET "),
    ("update ", " set "),
    ("DELETE FROM ", ""),
    ("delete from ", " where "),
    ("WITH ", " AS ("),
    ("CREATE TABLE ", ""),
    ("ALTER TABLE ", ""),
    ("TRUNCATE ", ""),
];

/// The database's clocks.
const DATABASE_CLOCKS: [&str; 10] = [
    "now(",
    "current_timestamp",
    "clock_timestamp(",
    "statement_timestamp(",
    "transaction_timestamp(",
    "localtimestamp",
    "localtime",
    "current_date",
    "current_time",
    "timeofday(",
];

pub(super) fn check_driver(path: &str, line: usize, code: &str) -> Option<Finding> {
    let names_driver = code.contains("sqlx::") || code.contains("use sqlx");
    if !names_driver || sql_allowed(path) {
        return None;
    }
    let what = "sqlx is used outside store: add a function to `store` and call it";
    Some(Finding::new(path, line, what))
}

pub(super) fn check_literal(path: &str, literal: &Literal) -> Option<Finding> {
    if !is_statement(&literal.text) {
        return None;
    }
    if !sql_allowed(path) {
        let what = "SQL outside store: add a function to `store` and call it";
        return Some(Finding::new(path, literal.line, what));
    }
    if !path.starts_with("store/src/") || is_lease(path) {
        return None;
    }
    let (line, clock) = database_clock(&literal.text)?;
    Some(clock_finding(path, literal.line + line, clock))
}

pub(super) fn check_sql_file(path: &str, text: &str) -> Vec<Finding> {
    if is_lease(path) || path.starts_with("tests/") {
        return Vec::new();
    }
    let text = without_comments(text);
    let lines = text.lines().enumerate();
    lines
        .filter_map(|(index, line)| {
            let (_, clock) = database_clock(line)?;
            Some(clock_finding(path, index + 1, clock))
        })
        .collect()
}

fn clock_finding(path: &str, line: usize, clock: &str) -> Finding {
    let name = clock.trim_end_matches('(');
    let what =
        format!("{name} is the database's clock: pass the time as a parameter (only leases may)");
    Finding::new(path, line, what)
}

fn sql_allowed(path: &str) -> bool {
    SQL_ALLOWED.iter().any(|allowed| path.starts_with(allowed)) || is_test_file(path)
}

fn is_lease(path: &str) -> bool {
    path == "store/src/lease.rs"
        || path.starts_with("store/src/lease/")
        || path.starts_with("store/queries/lease_")
        || path == "store/queries/cancel_direct.sql"
}

fn is_statement(text: &str) -> bool {
    let text = text.trim_start_matches(|c: char| c.is_whitespace() || c == '\\');
    // A line continued with a backslash reads as one.
    let one_line = text.replace(['\n', '\\'], " ");
    STATEMENTS
        .iter()
        .any(|(first, also)| one_line.starts_with(first) && one_line.contains(also))
}

/// The first clock in the text, and the number of line ends before it.
fn database_clock(text: &str) -> Option<(usize, &'static str)> {
    let lower = text.to_ascii_lowercase();
    DATABASE_CLOCKS.iter().find_map(|clock| {
        let (at, _) = lower.match_indices(clock).find(|(at, _)| {
            let before = lower[..*at].chars().next_back();
            let after = lower[at + clock.len()..].chars().next();
            let in_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
            !before.is_some_and(in_word) && (clock.ends_with('(') || !after.is_some_and(in_word))
        })?;
        Some((lower[..at].matches('\n').count(), *clock))
    })
}

/// SQL with its comments blanked; line ends stay.
fn without_comments(text: &str) -> String {
    let mut left = text;
    let mut kept = String::new();
    while let Some(at) = left.find("--").into_iter().chain(left.find("/*")).min() {
        kept.push_str(&left[..at]);
        let comment = &left[at..];
        let length = if comment.starts_with("--") {
            comment.find('\n').unwrap_or(comment.len())
        } else {
            comment.find("*/").map_or(comment.len(), |end| end + 2)
        };
        kept.extend(comment[..length].chars().filter(|c| *c == '\n'));
        left = &comment[length..];
    }
    kept.push_str(left);
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_told_from_prose() {
        for sql in [
            "SELECT 1",
            "select a from b",
            "\\\n    INSERT INTO a VALUES (1)",
            "UPDATE a\n SET b = 1",
            "WITH a AS (SELECT 1) SELECT * FROM a",
            "DELETE FROM a",
        ] {
            assert!(is_statement(sql), "{sql}");
        }
        for prose in [
            "select a domain",
            "DELETE",
            "UPDATE the client",
            "with a view",
            "Select all",
            "",
        ] {
            assert!(!is_statement(prose), "{prose}");
        }
    }

    #[test]
    fn the_clock_of_the_database_is_for_leases_only() {
        let sql = "-- now()\nSELECT 1;\n/* now()\n */ UPDATE a SET b = NOW();\nSELECT known(1), x.now_at;\n";
        let lines = |path| {
            check_sql_file(path, sql)
                .iter()
                .map(|f| f.line)
                .collect::<Vec<_>>()
        };
        assert_eq!(lines("store/queries/settle.sql"), [4]);
        assert_eq!(lines("migrations/0001.sql"), [4]);
        assert!(lines("store/queries/lease_renew.sql").is_empty());
        let literal = Literal {
            line: 5,
            text: "UPDATE a SET\n b = current_timestamp".to_owned(),
        };
        assert_eq!(
            check_literal("store/src/queue.rs", &literal).unwrap().line,
            6
        );
        assert!(check_literal("store/src/lease.rs", &literal).is_none());
        assert!(
            check_literal("api/src/a.rs", &literal)
                .unwrap()
                .what
                .contains("outside store")
        );
    }
}
