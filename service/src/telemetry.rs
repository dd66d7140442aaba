//! Logs to standard error, as JSON for machines or as lines for people.
//! Nothing else writes to standard error; standard output belongs to the commands.

use std::io::{self, IsTerminal};

use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;

use crate::config::LogConfig;

/// Shape of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// `human` when standard error is a terminal, else `json`.
    #[default]
    Auto,
    /// One JSON object a line.
    Json,
    /// Text, with colour on a terminal.
    Human,
}

/// Why logging could not be started.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter does not parse.
    #[error(
        "log.filter {filter:?} is not a filter; write for example \"info\" or \"info,mta=debug\""
    )]
    Filter {
        /// As configured.
        filter: String,
        /// What is wrong with it.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// Something else in this process already receives the logs.
    #[error("logging was already started in this process")]
    AlreadyStarted(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Whether logging could be started so; starts nothing. The error goes well after the key's name.
///
/// # Errors
/// The filter does not parse.
pub fn check(log: &LogConfig) -> Result<(), String> {
    EnvFilter::try_new(&log.filter).map(drop).map_err(|wrong| {
        let filter = &log.filter;
        format!("{filter:?} is not a filter ({wrong}): write for example \"info,mta=debug\"")
    })
}

/// Starts logging for the whole process. To be called once, by `main`.
///
/// # Errors
/// The filter does not parse, or logging was started before.
pub fn start(log: &LogConfig) -> Result<(), TelemetryError> {
    let filter = EnvFilter::try_new(&log.filter).map_err(|source| TelemetryError::Filter {
        filter: log.filter.clone(),
        source,
    })?;
    let on_terminal = io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr);
    let json = match log.format {
        LogFormat::Auto => !on_terminal,
        LogFormat::Json => true,
        LogFormat::Human => false,
    };
    let started = if json {
        lines
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .try_init()
    } else {
        lines.with_ansi(on_terminal).try_init()
    };
    started.map_err(TelemetryError::AlreadyStarted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_filter_is_named_and_logging_starts_once() {
        let log = |filter: &str| LogConfig {
            format: LogFormat::Json,
            filter: filter.to_owned(),
        };
        let error = start(&log("mta=chatty")).unwrap_err().to_string();
        assert!(error.contains("log.filter \"mta=chatty\""), "{error}");
        start(&log("warn")).unwrap();
        assert!(matches!(
            start(&log("warn")),
            Err(TelemetryError::AlreadyStarted(_))
        ));
    }
}
