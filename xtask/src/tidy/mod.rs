//! The project's own rules, checked on its files: those that no compiler or linter knows.
//! This file finds the files and reports; what a rule says is in `rust_rules`, `sql_rules` and
//! `layers`.

mod layers;
mod rust_rules;
mod source;
mod sql_rules;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use crate::shell::{Failure, Outcome, cargo, project};

/// A file longer than this hides a noun; longer than `LINES_MAX` it is refused.
const LINES_WARN: usize = 600;
const LINES_MAX: usize = 800;

/// Directories that hold nothing of ours to check.
const SKIPPED_DIRS: [&str; 3] = ["target", "node_modules", ".git"];

/// One breach of a rule.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    path: String,
    /// From 1.
    line: usize,
    /// What it is and what to do.
    what: String,
    refused: bool,
}

impl Finding {
    fn new(path: &str, line: usize, what: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            line,
            what: what.into(),
            refused: true,
        }
    }

    fn warning(path: &str, line: usize, what: impl Into<String>) -> Self {
        Self {
            refused: false,
            ..Self::new(path, line, what)
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.refused { "" } else { "warning: " };
        write!(f, "{mark}{}:{}: {}", self.path, self.line, self.what)
    }
}

/// Checks every file, prints the findings, fails if one of them is refused.
pub(crate) fn run() -> Outcome {
    let mut paths = Vec::new();
    collect(&project(), &mut paths)?;
    paths.sort();
    let mut findings = Vec::new();
    for path in &paths {
        let text = fs::read(path)
            .map_err(|error| Failure::new(format!("could not read {}: {error}", path.display())))?;
        let inside = path
            .strip_prefix(project())
            .unwrap_or(path)
            .to_string_lossy()
            .into_owned();
        findings.extend(check_file(&inside, &String::from_utf8_lossy(&text)));
    }
    findings.extend(layers::check_crypto(&cargo));
    for finding in &findings {
        println!("{finding}");
    }
    let refused = findings.iter().filter(|finding| finding.refused).count();
    println!("tidy: {} files, {refused} to correct", paths.len());
    if refused == 0 {
        Ok(())
    } else {
        Err(Failure::new(format!("{refused} findings")))
    }
}

/// All findings in one file; `path` is relative to the project.
fn check_file(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    if path.ends_with(".rs") {
        findings.extend(rust_rules::check(path, text));
        findings.extend(check_length(path, text));
    } else if path.ends_with(".sql") {
        findings.extend(sql_rules::check_sql_file(path, text));
        findings.extend(check_length(path, text));
    } else if path.ends_with("Cargo.toml") {
        findings.extend(layers::check_manifest(path, text));
    }
    findings
}

fn check_length(path: &str, text: &str) -> Option<Finding> {
    let lines = text.lines().count();
    let what = format!("{lines} lines: split the file by the noun that is hiding in it");
    if lines > LINES_MAX {
        return Some(Finding::new(
            path,
            lines,
            format!("{what} (at most {LINES_MAX})"),
        ));
    }
    (lines > LINES_WARN).then(|| Finding::warning(path, lines, what))
}

fn collect(dir: &Path, paths: &mut Vec<PathBuf>) -> Outcome {
    let entries = fs::read_dir(dir)
        .map_err(|error| Failure::new(format!("could not list {}: {error}", dir.display())))?;
    for entry in entries.flatten() {
        let path = entry.path();
        let name = entry.file_name();
        // Links are not followed: they may lead outside, or round in a circle.
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        if kind.is_dir() && !SKIPPED_DIRS.iter().any(|skipped| name == *skipped) {
            collect(&path, paths)?;
        } else if kind.is_file() {
            let ending = path.extension().unwrap_or_default();
            if ending == "rs" || ending == "sql" || name == "Cargo.toml" {
                paths.push(path);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_files_are_warned_about_then_refused() {
        let lines = |count: usize| check_length("a.rs", &"x\n".repeat(count));
        assert!(lines(600).is_none());
        assert!(!lines(601).unwrap().refused);
        assert!(lines(801).unwrap().refused);
    }

    #[test]
    fn findings_name_file_and_line() {
        let finding = Finding::warning("mail/src/a.rs", 7, "x");
        assert_eq!(finding.to_string(), "warning: mail/src/a.rs:7: x");
    }

    #[test]
    fn each_kind_of_file_has_its_rules() {
        let count = |path: &str, text: &str| check_file(path, text).len();
        assert_eq!(count("mail/src/a.rs", "fn f() {}\n"), 1); // no opening line
        assert_eq!(count("migrations/1.sql", "SELECT now();\n"), 1);
        assert_eq!(
            count(
                "mail/Cargo.toml",
                "[dependencies]\ntokio.workspace = true\n"
            ),
            1
        );
        assert_eq!(count("README.md", "now()"), 0);
    }
}
