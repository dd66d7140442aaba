//! What is wrong with a configuration, said with the key, the place and the remedy.

use std::fmt;
use std::io;
use std::path::PathBuf;

use figment::Figment;
use figment::error::{Actual, Kind};

use super::{ENV_PREFIX, ENV_SEPARATOR};
use crate::clock::ClockError;

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is not there or not readable.
    #[error("could not read the configuration file {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// One or more keys are wrong; every one is listed.
    #[error("the configuration is wrong:\n{}", list(.0))]
    Problems(Vec<Problem>),
    /// The clock file of a test cannot be used.
    #[error("test.clock_file cannot be used")]
    Clock(#[source] ClockError),
}

/// One wrong key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Section and key, for example `mta.lease_ttl_secs`; empty if the file is not TOML at all.
    pub key: String,
    /// File or environment variable that holds it, if known.
    pub place: Option<String>,
    /// What is wrong and what to write instead.
    pub wrong: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.key.is_empty() {
            write!(f, "{} ", self.key)?;
        }
        if let Some(place) = &self.place {
            write!(f, "(in {place}) ")?;
        }
        f.write_str(&self.wrong)
    }
}

impl Problem {
    /// A problem with the key `key` (`section.key`), found by whoever uses its value.
    pub fn new(key: &str, wrong: impl Into<String>) -> Self {
        Self {
            key: key.to_owned(),
            place: None,
            wrong: wrong.into(),
        }
    }

    /// Puts an error of the parser into our words. `file` names the file that was read.
    pub(super) fn from_figment(
        error: figment::Error,
        section: &str,
        figment: &Figment,
        file: &str,
    ) -> Self {
        let mut key = full_key(section, &error.path);
        if let Kind::UnknownField(field, _) = &error.kind
            && key.rsplit('.').next() != Some(field)
        {
            key = format!("{key}.{field}");
        }
        let from_environment = figment
            .find_metadata(&key)
            .or(error.metadata.as_ref())
            .is_some_and(|metadata| metadata.name.contains("environment"));
        let place = if from_environment {
            Some(environment_variable(&key))
        } else {
            Some(file.to_owned()).filter(|file| !file.is_empty())
        };
        let wrong = describe(&error.kind, place.as_deref().filter(|_| from_environment));
        Self { key, place, wrong }
    }
}

/// `path` as the parser gives it may or may not begin with the section.
fn full_key(section: &str, path: &[String]) -> String {
    let inner: Vec<&str> = path
        .iter()
        .map(String::as_str)
        .filter(|part| *part != section)
        .collect();
    let section = Some(section).filter(|section| !section.is_empty());
    section
        .into_iter()
        .chain(inner)
        .collect::<Vec<_>>()
        .join(".")
}

fn environment_variable(key: &str) -> String {
    format!(
        "{ENV_PREFIX}{}",
        key.replace('.', ENV_SEPARATOR).to_uppercase()
    )
}

fn describe(kind: &Kind, variable: Option<&str>) -> String {
    match kind {
        Kind::Message(message) => message.clone(),
        Kind::UnknownField(_, known) => {
            format!(
                "is not a key: remove it; this section has {}",
                known.join(", ")
            )
        }
        Kind::UnknownVariant(found, known) => {
            format!("is {found:?}: write one of {}", known.join(", "))
        }
        Kind::MissingField(field) => format!("lacks {field}: add it"),
        Kind::InvalidType(found, expected) | Kind::InvalidValue(found, expected) => {
            let number_for_text = matches!(
                found,
                Actual::Unsigned(_) | Actual::Signed(_) | Actual::Float(_)
            ) && expected.contains("string");
            match variable {
                // The shell's quotes do not reach us, so a number looks like a number.
                Some(variable) if number_for_text => {
                    format!("is a number: quote it for us as well, {variable}='\"...\"'")
                }
                _ => format!("is {found}: write {expected}"),
            }
        }
        other => other.to_string(),
    }
}

fn list(problems: &[Problem]) -> String {
    problems
        .iter()
        .map(|problem| format!("  {problem}"))
        .collect::<Vec<_>>()
        .join("\n")
}
