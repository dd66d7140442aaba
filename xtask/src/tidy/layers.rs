//! Who may depend on whom (ARCHITECTURE.md), and which crypto libraries may not be in the program.

use std::process::Command;

use super::Finding;
use crate::shell::ask;

/// A crate and what it must not name, in its manifest or in its code.
const FORBIDDEN: [(&str, &[&str]); 6] = [
    (
        "mail",
        &[
            "store",
            "service",
            "api",
            "mta",
            "worker",
            "tokio",
            "sqlx",
            "redis",
            "reqwest",
            "hickory-resolver",
        ],
    ),
    (
        "store",
        &["service", "api", "mta", "worker", "axum", "reqwest"],
    ),
    (
        "service",
        &["mail", "store", "api", "mta", "worker", "sqlx", "redis"],
    ),
    ("api", &["mta", "worker", "sqlx", "redis"]),
    ("mta", &["api", "worker", "sqlx", "redis"]),
    ("worker", &["api", "mta", "sqlx", "redis"]),
];

/// aws-lc-rs is the one crypto library.
const CRYPTO_REFUSED: [&str; 3] = ["ring", "openssl-sys", "native-tls"];

pub(super) fn check_manifest(path: &str, text: &str) -> Vec<Finding> {
    let forbidden = forbidden_in(path);
    let mut in_dependencies = false;
    let mut findings = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if let Some(section) = line.strip_prefix('[') {
            // What tests depend on does not reach the program.
            in_dependencies = section.starts_with("dependencies");
            continue;
        }
        let name = line.split(['.', '=', ' ']).next().unwrap_or_default();
        if in_dependencies && forbidden.contains(&name) {
            findings.push(breach(path, index + 1, name));
        }
    }
    findings
}

pub(super) fn check_code(path: &str, line: usize, code: &str) -> Option<Finding> {
    let name = forbidden_in(path).iter().find(|name| {
        // The driver has a rule of its own, which knows about tests.
        let name = name.replace('-', "_");
        name != "sqlx" && names_crate(code, &name)
    })?;
    Some(breach(path, line, name))
}

fn breach(path: &str, line: usize, name: &str) -> Finding {
    let own = crate_of(path);
    let what = format!("`{own}` must not depend on `{name}`: see ARCHITECTURE.md for who may");
    Finding::new(path, line, what)
}

fn crate_of(path: &str) -> &str {
    path.split('/').next().unwrap_or_default()
}

fn forbidden_in(path: &str) -> &'static [&'static str] {
    let own = crate_of(path);
    let is_source = path.contains("/src/") || path.ends_with("Cargo.toml");
    FORBIDDEN
        .iter()
        .find(|(name, _)| is_source && *name == own)
        .map_or(&[], |(_, forbidden)| *forbidden)
}

/// `use name;` or `use name::...` or `name::` at the start of a path. Modules may have the name
/// of a crate, then they are named through `crate::`, `self::` or `super::`.
fn names_crate(code: &str, name: &str) -> bool {
    let imported = code
        .trim_start()
        .trim_start_matches("pub ")
        .strip_prefix("use ");
    imported.is_some_and(|path| {
        let path = path.trim_start_matches("::");
        path.strip_prefix(name)
            .is_some_and(|rest| rest.starts_with([':', ';', ' ']))
    })
}

/// Asks cargo, because Cargo.lock also lists what no feature turns on.
pub(super) fn check_crypto(cargo: &dyn Fn() -> Command) -> Vec<Finding> {
    const TREE: [&str; 5] = ["tree", "--workspace", "--locked", "-e", "normal,build,dev"];
    let Some(tree) = ask(cargo().args(TREE).args(["--prefix", "depth"])) else {
        let what = "`cargo tree --locked` fails: run `cargo check` and commit Cargo.lock";
        return vec![Finding::new("Cargo.lock", 1, what)];
    };
    CRYPTO_REFUSED
        .iter()
        .filter_map(|name| {
            let user = user_of(&tree, name)?;
            let what = format!(
                "{name} is in the dependency tree (through {user}): turn off the feature that \
                 brings it, aws-lc-rs is the one crypto library"
            );
            Some(Finding::new("Cargo.lock", 1, what))
        })
        .collect()
}

/// Who brings in the package `name`, from lines like `2ring v0.17.14`: its depth, name, version.
fn user_of(tree: &str, name: &str) -> Option<String> {
    let split = |line: &str| -> Option<(usize, String)> {
        let digits = line.find(|c: char| !c.is_ascii_digit())?;
        let depth = line[..digits].parse().ok()?;
        Some((depth, line[digits..].split(' ').next()?.to_owned()))
    };
    let packages: Vec<_> = tree.lines().filter_map(split).collect();
    let at = packages.iter().position(|(_, package)| package == name)?;
    let depth = packages[at].0;
    let above = packages[..at]
        .iter()
        .rev()
        .find(|(other, _)| *other < depth);
    Some(above.map_or("the workspace", |(_, user)| user).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_do_not_depend_on_each_other() {
        let manifest = "[package]\nname = \"api\"\n[dependencies]\nstore.workspace = true\n\
                        mta = { path = \"../mta\" }\n[dev-dependencies]\nworker.workspace = true\n";
        let found = check_manifest("api/Cargo.toml", manifest);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].line, 5);
        assert!(check_manifest("postrider/Cargo.toml", manifest).is_empty());
    }

    #[test]
    fn imports_are_checked_and_modules_of_the_same_name_are_not() {
        let breaks = |path, code| check_code(path, 1, code).is_some();
        assert!(breaks("api/src/a.rs", "use mta::run;"));
        assert!(breaks("mail/src/a.rs", "    pub use tokio::time;"));
        assert!(!breaks("api/src/a.rs", "use crate::mta::run;"));
        assert!(!breaks("api/src/a.rs", "use mtab::run;"));
        assert!(!breaks("postrider/src/main.rs", "use mta::run;"));
        assert!(!breaks("mta/tests/a.rs", "use worker::x;"));
    }

    #[test]
    fn a_refused_library_is_found_in_what_cargo_says() {
        let tree = "0api v0.1.0 (/x/api)\n1quinn v1.0.0\n2rustls v0.23.0\n2ring v0.17.14 (*)\n";
        assert_eq!(user_of(tree, "ring").as_deref(), Some("quinn"));
        assert_eq!(user_of(tree, "openssl-sys"), None);
        let broken = check_crypto(&|| Command::new("false"));
        assert!(broken[0].what.contains("cargo tree"), "{}", broken[0].what);
        let says = || {
            let mut says = Command::new("sh");
            says.args(["-c", "printf '0a v1\\n1ring v1\\n'", "sh"]);
            says
        };
        assert!(check_crypto(&says)[0].what.contains("through a"));
    }
}
