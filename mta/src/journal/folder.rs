//! The journal's directory: which segments it holds, the spare that waits to be the next one, and
//! how files change their role. Every role is a name, and a name changes only when what it
//! promises is on disk. Knows nothing of outcomes.
//!
//! `0000000000000001.seg` a segment in use · `spare` a file of full size with nothing of value in
//! it · `spare.new` a spare being written · `*.damaged` a segment whose header cannot be read

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::record::{HEADER_BYTES, Header};

/// Octets a preparation writes at a time, so that an append never waits long for it.
const CHUNK_BYTES: u64 = 1 << 20;

/// The directory with the sizes and habits that apply to all its files.
#[derive(Debug)]
pub(super) struct Folder {
    pub(super) dir: PathBuf,
    pub(super) segment_bytes: u64,
    pub(super) sync: bool,
}

/// The segment that is being written.
#[derive(Debug)]
pub(super) struct OpenSegment {
    pub(super) header: Header,
    pub(super) path: PathBuf,
    file: File,
    /// Where the next record goes.
    end: u64,
}

/// A spare file on its way to full size.
#[derive(Debug)]
pub(super) struct Preparation {
    file: File,
    written: u64,
}

impl Folder {
    pub(super) fn segment_path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{number:016x}.seg"))
    }

    fn spare_path(&self) -> PathBuf {
        self.dir.join("spare")
    }

    fn draft_path(&self) -> PathBuf {
        self.dir.join("spare.new")
    }

    /// Numbers and paths of the segments, oldest first.
    pub(super) fn segments(&self) -> io::Result<Vec<(u64, PathBuf)>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.dir)? {
            let path = entry?.path();
            let number = path
                .file_name()
                .and_then(|name| name.to_str()?.strip_suffix(".seg"))
                .and_then(|digits| u64::from_str_radix(digits, 16).ok());
            if let Some(number) = number {
                found.push((number, path));
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Whether a spare of the right size waits.
    pub(super) fn has_spare(&self) -> bool {
        std::fs::metadata(self.spare_path())
            .is_ok_and(|meta| meta.is_file() && meta.len() == self.segment_bytes)
    }

    /// Takes a segment whose outcomes are all settled out of the log: it becomes the spare if one
    /// is missing. Its space is already ours, which a full disk cannot change.
    pub(super) fn retire(&self, path: &Path) -> io::Result<()> {
        let fits = std::fs::metadata(path)?.len() == self.segment_bytes;
        if fits && !self.has_spare() {
            std::fs::rename(path, self.spare_path())?;
        } else {
            std::fs::remove_file(path)?;
        }
        // Else the next use of the spare could meet the old name after a power cut.
        self.sync_names()
    }

    /// Moves a segment that cannot be read out of the way, for a person to look at.
    pub(super) fn set_aside(&self, path: &Path) -> io::Result<()> {
        std::fs::rename(path, path.with_extension("damaged"))
    }

    /// Begins to write a spare.
    pub(super) fn prepare(&self) -> io::Result<Preparation> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(self.draft_path())?;
        Ok(Preparation { file, written: 0 })
    }

    /// Writes one chunk more; true when the spare is ready. After an error the preparation can go
    /// on where it stopped, and keeps the space it has got.
    ///
    /// Zeros are written in full: a hole in the file would reserve nothing.
    pub(super) fn advance(&self, preparation: &mut Preparation) -> io::Result<bool> {
        let bytes = CHUNK_BYTES.min(self.segment_bytes - preparation.written);
        preparation
            .file
            .write_all_at(&vec![0; bytes as usize], preparation.written)?;
        if self.sync {
            preparation.file.sync_all()?;
        }
        preparation.written += bytes;
        let ready = preparation.written == self.segment_bytes;
        if ready {
            std::fs::rename(self.draft_path(), self.spare_path())?;
            self.sync_names()?;
        }
        Ok(ready)
    }

    /// Gives the space of an unfinished spare back. A draft that stays is overwritten by the next.
    pub(super) fn abandon_draft(&self) {
        let _ = std::fs::remove_file(self.draft_path());
    }

    /// Turns the spare into the segment of this header. The header is on disk before the file gets
    /// its name, and the name before any record is acknowledged.
    pub(super) fn activate(&self, header: Header) -> io::Result<OpenSegment> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(self.spare_path())?;
        file.write_all_at(&header.encode(), 0)?;
        if self.sync {
            file.sync_all()?;
        }
        let path = self.segment_path(header.number);
        std::fs::rename(self.spare_path(), &path)?;
        self.sync_names()?;
        Ok(OpenSegment {
            header,
            path,
            file,
            end: HEADER_BYTES as u64,
        })
    }

    fn sync_names(&self) -> io::Result<()> {
        if self.sync {
            File::open(&self.dir)?.sync_all()
        } else {
            Ok(())
        }
    }
}

impl OpenSegment {
    /// Octets that still fit.
    pub(super) fn room(&self, folder: &Folder) -> u64 {
        folder.segment_bytes.saturating_sub(self.end)
    }

    /// Writes whole records at the end; with `sync` they are on disk when this returns.
    /// After an error the segment must not be written again: what the system holds of it and what
    /// the disk holds may differ for good.
    pub(super) fn write(&mut self, records: &[u8], sync: bool) -> io::Result<()> {
        self.file.write_all_at(records, self.end)?;
        self.end += records.len() as u64;
        if sync { self.file.sync_data() } else { Ok(()) }
    }
}
