//! The sink's record: one JSON line per copy, in the file before the client hears the reply, or
//! gathered in memory for a while where that is too dear.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Context;
use serde::Serialize;

/// Octets that are gathered at most.
const GATHERED_MAX: usize = 64 * 1024;

/// One line of the record.
#[derive(Debug, Serialize)]
pub(super) struct RecordLine<'a> {
    pub(super) id: Option<&'a str>,
    pub(super) rcpt: &'a str,
    pub(super) at_ms_unix: i64,
    /// accepted, deferred, refused, dropped, or held.
    pub(super) result: &'a str,
}

/// An append-only file of lines.
#[derive(Debug)]
pub(super) struct Record {
    gathers: bool,
    file: Mutex<Gathered>,
}

#[derive(Debug)]
struct Gathered {
    file: File,
    text: Vec<u8>,
}

impl Record {
    /// Opens the file. One that gathers is written when much has come or when it is told to; a
    /// sink that is killed loses what it has gathered.
    ///
    /// # Errors
    /// It cannot be opened.
    pub(super) fn open(path: &Path, gathers: bool) -> anyhow::Result<Self> {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .with_context(|| format!("could not open the record {}", path.display()))?;
        let text = Vec::with_capacity(GATHERED_MAX + 1_024);
        Ok(Self {
            gathers,
            file: Mutex::new(Gathered { file, text }),
        })
    }

    /// Appends lines, all of them in one write.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn append<'a>(
        &self,
        lines: impl Iterator<Item = RecordLine<'a>>,
    ) -> anyhow::Result<()> {
        let mut gathered = self.lock();
        for line in lines {
            serde_json::to_writer(&mut gathered.text, &line)?;
            gathered.text.push(b'\n');
        }
        if self.gathers && gathered.text.len() < GATHERED_MAX {
            return Ok(());
        }
        gathered.write()
    }

    /// Writes what is gathered.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn flush(&self) -> anyhow::Result<()> {
        self.lock().write()
    }

    fn lock(&self) -> MutexGuard<'_, Gathered> {
        // A panic elsewhere leaves the file as usable as it was.
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gathered {
    fn write(&mut self) -> anyhow::Result<()> {
        if self.text.is_empty() {
            return Ok(());
        }
        let written = self.file.write_all(&self.text);
        self.text.clear();
        written.context("could not write to the record")
    }
}
