//! What all sessions of a sink share.

use std::sync::Arc;

use rustls::ServerConfig;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::behaviour::Behaviours;
use super::record::{Record, RecordLine};
use super::reply_mix::Refusal;
use super::stats::Stats;

/// What became of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Accepted,
    Deferred,
    Refused,
    Dropped,
    Held,
}

impl Fate {
    /// Of a copy that was answered like this.
    pub(super) fn of(refusal: &Refusal) -> Self {
        match refusal {
            Refusal::Drop => Self::Dropped,
            Refusal::Reply { code, .. } if *code < 500 => Self::Deferred,
            Refusal::Reply { .. } => Self::Refused,
        }
    }

    /// As in the record.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Deferred => "deferred",
            Self::Refused => "refused",
            Self::Dropped => "dropped",
            Self::Held => "held",
        }
    }
}

/// Shared by all sessions.
pub(super) struct Shared {
    pub(super) stats: Stats,
    pub(super) behaviours: watch::Sender<Arc<Behaviours>>,
    pub(super) record: Option<Record>,
    pub(super) id_header: String,
    pub(super) host_name: &'static str,
    /// Certificate for STARTTLS; without it STARTTLS is not offered.
    pub(super) tls: Option<Arc<ServerConfig>>,
    pub(super) clock: service::clock::Clock,
    pub(super) shutdown: CancellationToken,
}

impl Shared {
    /// Writes copies into the record, if there is one. When that fails the sink stops: an
    /// incomplete record would prove things that did not happen.
    ///
    /// # Errors
    /// It failed, which has been logged.
    pub(super) fn write_down(
        &self,
        id: Option<&str>,
        recipients: &[String],
        fate: Fate,
    ) -> Result<(), Incomplete> {
        let Some(record) = &self.record else {
            return Ok(());
        };
        let at_ms_unix = self.clock.unix_ms();
        let lines = recipients.iter().map(|rcpt| RecordLine {
            id,
            rcpt,
            at_ms_unix,
            result: fate.as_str(),
        });
        self.complete(record.append(lines))
    }

    /// Writes what the record has in memory to its file.
    ///
    /// # Errors
    /// As for [`Shared::write_down`].
    pub(super) fn flush_record(&self) -> Result<(), Incomplete> {
        match &self.record {
            Some(record) => self.complete(record.flush()),
            None => Ok(()),
        }
    }

    fn complete(&self, written: anyhow::Result<()>) -> Result<(), Incomplete> {
        written.map_err(|error| {
            tracing::error!(
                error = format!("{error:#}"),
                "the record is incomplete: stopping"
            );
            self.shutdown.cancel();
            Incomplete
        })
    }
}

/// The record could not be written.
#[derive(Debug)]
pub(super) struct Incomplete;
