//! Where an archive is written to: a file, which gets its name when it is complete, or a stream.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::domain::address::shown;
use crate::domain::failure::{Failure, Outcome};
use crate::newfile::NewFile;

/// What the caller asked for.
pub enum Destination {
    /// A file that must not exist yet.
    File(PathBuf),
    /// A stream, standard output as a rule, and its name for messages.
    Stream(Box<dyn Write + Send>, String),
}

/// An open destination.
pub(super) enum Output {
    File(NewFile),
    Stream { out: Box<dyn Write + Send>, name: String },
}

impl Output {
    /// Opens it. A file is made under a temporary name beside the final one.
    ///
    /// # Errors
    /// Refused: the file is there already. Target: its folder cannot be written to.
    pub(super) fn open(to: Destination) -> Outcome<Output> {
        Ok(match to {
            Destination::Stream(out, name) => Output::Stream { out, name },
            // As other files are made: what the umask leaves of this.
            Destination::File(path) => Output::File(NewFile::create(&path, 0o666)?),
        })
    }

    /// Its name for messages.
    pub(super) fn name(&self) -> String {
        match self {
            Output::File(new) => shown(new.target()),
            Output::Stream { name, .. } => name.clone(),
        }
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// Target: the disk is full, the reader of the stream is gone.
    pub(super) fn append(&mut self, bytes: &[u8]) -> Outcome<()> {
        let written = match self {
            Output::File(new) => new.file().write_all(bytes),
            Output::Stream { out, .. } => out.write_all(bytes),
        };
        written.map_err(|e| self.failed(&e))
    }

    /// Lets everything reach the disk, or the stream's reader.
    ///
    /// # Errors
    /// Target.
    pub(super) fn flush(&mut self) -> Outcome<()> {
        let flushed = match self {
            Output::File(new) => new.file().sync_all(),
            Output::Stream { out, .. } => out.flush(),
        };
        flushed.map_err(|e| self.failed(&e))
    }

    fn failed(&self, error: &io::Error) -> Failure {
        Failure::target(format!("the archive {} cannot be written: {error}", self.name()))
    }

    /// Where the unpublished file is.
    pub(super) fn path(&self) -> Option<&Path> {
        match self {
            Output::File(new) => Some(new.path()),
            Output::Stream { .. } => None,
        }
    }

    /// Gives a file its final name; a stream has none.
    ///
    /// # Errors
    /// Refused: the file appeared meanwhile. Target: the disk failed.
    pub(super) fn publish(self) -> Outcome<()> {
        match self {
            Output::File(new) => new.publish(),
            Output::Stream { .. } => Ok(()),
        }
    }
}
