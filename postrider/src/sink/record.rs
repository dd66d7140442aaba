//! The sink's record: one JSON line per copy, in the file before the client hears the reply.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::Context;
use serde::Serialize;

/// One line of the record.
#[derive(Debug, Serialize)]
pub(crate) struct RecordLine<'a> {
    pub(crate) id: Option<&'a str>,
    pub(crate) rcpt: &'a str,
    pub(crate) at_ms_unix: i64,
    /// accepted, deferred, refused, dropped, or held.
    pub(crate) result: &'a str,
}

/// An append-only file of lines.
#[derive(Debug)]
pub(crate) struct Record {
    file: Mutex<File>,
}

impl Record {
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .with_context(|| format!("could not open the record {}", path.display()))?;
        Ok(Self {
            file: Mutex::new(file),
        })
    }

    /// Appends lines in one write: nothing is buffered here, so a killed sink loses none.
    pub(crate) fn append(&self, lines: &[RecordLine<'_>]) -> anyhow::Result<()> {
        let mut text = Vec::with_capacity(lines.len() * 128);
        for line in lines {
            serde_json::to_writer(&mut text, line)?;
            text.push(b'\n');
        }
        // A panic elsewhere leaves the file as usable as it was.
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(&text)
            .context("could not write to the record")
    }
}
