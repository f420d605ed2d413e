//! Where an archive is written to: a file, which gets its name when it is complete, or a stream.

use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::domain::address::shown;
use crate::domain::failure::{Failure, Outcome};

/// What the caller asked for.
pub enum Destination {
    /// A file that must not exist yet.
    File(PathBuf),
    /// A stream, standard output as a rule, and its name for messages.
    Stream(Box<dyn Write + Send>, String),
}

/// An open destination.
pub(super) enum Output {
    File { file: File, temporary: tempfile::TempPath, target: PathBuf },
    Stream { out: Box<dyn Write + Send>, name: String },
}

impl Output {
    /// Opens it. A file is made under a temporary name beside the final one.
    ///
    /// # Errors
    /// Refused: the file is there already. Target: its folder cannot be written to.
    pub(super) fn open(to: Destination) -> Outcome<Output> {
        let target = match to {
            Destination::Stream(out, name) => return Ok(Output::Stream { out, name }),
            Destination::File(path) => path,
        };
        // A link to nothing is there as well.
        if target.symlink_metadata().is_ok() {
            return Err(there_already(&target));
        }
        let folder = folder_of(&target);
        let (file, temporary) = tempfile::Builder::new()
            .prefix(".mlops-")
            .suffix(".partial")
            // As other files are made: what the umask leaves of this.
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(&folder)
            .map_err(|e| Failure::target(format!("{} cannot be written to: {e}", shown(&folder))))?
            .into_parts();
        Ok(Output::File { file, temporary, target })
    }

    /// Its name for messages.
    pub(super) fn name(&self) -> String {
        match self {
            Output::File { target, .. } => shown(target),
            Output::Stream { name, .. } => name.clone(),
        }
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// Target: the disk is full, the reader of the stream is gone.
    pub(super) fn append(&mut self, bytes: &[u8]) -> Outcome<()> {
        let written = match self {
            Output::File { file, .. } => file.write_all(bytes),
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
            Output::File { file, .. } => file.sync_all(),
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
            Output::File { temporary, .. } => Some(temporary),
            Output::Stream { .. } => None,
        }
    }

    /// Gives a file its final name; a stream has none.
    ///
    /// # Errors
    /// Refused: the file appeared meanwhile. Target: the disk failed.
    pub(super) fn publish(self) -> Outcome<()> {
        let Output::File { temporary, target, .. } = self else { return Ok(()) };
        let folder = folder_of(&target);
        temporary.persist_noclobber(&target).map_err(|e| match e.error.kind() {
            io::ErrorKind::AlreadyExists => there_already(&target),
            _ => Failure::target(format!("{}: {}", shown(&target), e.error)),
        })?;
        File::open(&folder).and_then(|f| f.sync_all()).map_err(|e| Failure::target(format!("{}: {e}", shown(&folder))))
    }
}

fn folder_of(target: &Path) -> PathBuf {
    target.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned()
}

fn there_already(target: &Path) -> Failure {
    Failure::refused(format!("{} is there already", shown(target))).hint("name a file that does not exist yet")
}
