//! Files by their paths below one place, whatever the place is: a folder or objects of S3. What is read here and written
//! there goes through these two traits, on plain threads.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use tempfile::{SpooledTempFile, TempPath};

use crate::domain::address::shown;
use crate::domain::failure::{Failure, Outcome};

/// A file as its place tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Path below the place, with `/` between its segments.
    pub path: String,
    /// Bytes.
    pub bytes: u64,
    /// What is another text as soon as the file is another one: a time of change, an ETag. `None`: the place does not
    /// tell, or the file has just been written and may be written again within the clock's tick.
    pub changed: Option<String>,
    /// When it was written.
    pub modified: Option<Timestamp>,
    /// Since when it lies there as it is: of a folder's file the later one of the times of its content and of itself, for a
    /// copy keeps the first.
    pub since: Option<Timestamp>,
}

/// What a walk meets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Met {
    /// A file.
    File(Entry),
    /// Something that cannot be read, and why.
    Unreadable {
        /// Path below the place.
        path: String,
        /// The reason, for people.
        why: String,
    },
}

/// A file that is open for reading.
pub struct Opened {
    /// What it is, as of its opening.
    pub entry: Entry,
    /// Its bytes. Its errors may carry a [`Failure`](crate::domain::failure::Failure) with more to say.
    pub reader: Box<dyn Read + Send>,
}

/// Files that can be listed and read.
///
/// Contract: `walk` tells each file at or below a path once, in any order; a path that is not there has none, but a place
/// that is not there is an error. One that vanishes on the way was not there. `open` and `stat` give `None` for what is not there or is no file. A reader that
/// comes to its end without an error has given every byte. Calls are bounded in time; threads may share a place.
pub trait Files: Send + Sync {
    /// The place for messages, without a secret.
    fn place(&self) -> String;

    /// Tells every file at or below `below`; an empty path means all.
    ///
    /// # Errors
    /// Source: the place is not there or does not answer. Else what `each` failed with.
    fn walk(&self, below: &str, each: &mut dyn FnMut(Met) -> Outcome<()>) -> Outcome<()>;

    /// Tells the name of every folder that the place itself has.
    ///
    /// # Errors
    /// As [`Files::walk`]; a place that is not there has none.
    fn walk_folders(&self, each: &mut dyn FnMut(&str) -> Outcome<()>) -> Outcome<()>;

    /// Opens a file.
    ///
    /// # Errors
    /// Source: it is there and cannot be read, or the place does not answer.
    fn open(&self, path: &str) -> Outcome<Option<Opened>>;

    /// What a file is.
    ///
    /// # Errors
    /// As [`Files::open`].
    fn stat(&self, path: &str) -> Outcome<Option<Entry>>;

    /// Whether `stat` costs no more than a file's own; else it lists the whole folder.
    fn stat_is_cheap(&self) -> bool {
        true
    }
}

/// What is to happen where a file is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum There {
    /// It stays.
    Stays,
    /// It is replaced, in one step.
    Replaced,
}

/// Files that can be written.
///
/// Contract: under its path a file is whole or not there, whatever becomes of this program in between; what was put is
/// durable when `settle` has returned. (Where the whole machine stops before that, a file that was put may be shorter than
/// it was: who takes one as already written looks at its size.) What a killed run staged is removed by the next one that stages in the same place.
pub trait Shelf: Files {
    /// Begins a file that has no path yet.
    ///
    /// # Errors
    /// Target: the place, or the work folder, cannot be written to.
    fn stage(&self) -> Outcome<Staged>;

    /// Gives a staged file its path. Says whether it took it: where one is there that stays, it did not.
    ///
    /// # Errors
    /// Target: the place cannot be written to.
    fn put(&self, staged: Staged, path: &str, there: There) -> Outcome<bool>;

    /// Where the file of that path is, or would be, on this machine.
    fn on_this_machine(&self, path: &str) -> Option<PathBuf>;

    /// Removes a file; one that is not there is removed.
    ///
    /// # Errors
    /// Target: the place cannot be written to.
    fn remove(&self, path: &str) -> Outcome<()>;

    /// Waits until all that was put and removed lasts.
    ///
    /// # Errors
    /// Target: the disk failed; then nothing that was put since the last time may be relied on.
    fn settle(&self) -> Outcome<()>;

    /// Takes the place for this run alone. `who` is told to whoever comes second.
    ///
    /// # Errors
    /// Locked: another run has it. Target: the place cannot be written to.
    fn lock(&self, who: &str) -> Outcome<Box<dyn Lease>>;
}

/// The right to a place, until it is dropped. A dead holder's does not last.
pub trait Lease: Send + Sync {
    /// That it is still held: before anything is done that another run must not see half.
    ///
    /// # Errors
    /// Locked: it was lost.
    fn held(&self) -> Outcome<()>;

    /// What this right is not worth, for people; `None`: it is as good as it says.
    fn warning(&self) -> Option<String> {
        None
    }
}

/// The lock's path in a place.
pub const LOCK: &str = "lock";

/// A file without a path. It is gone when it is dropped.
pub struct Staged {
    pub(super) kind: Kind,
}

pub(super) enum Kind {
    /// Beside where it will be.
    Beside(File, TempPath),
    /// Apart from where it will be, in that folder once it is large.
    Apart(SpooledTempFile, PathBuf),
}

/// A staged file stays in memory up to so many bytes.
const IN_MEMORY: usize = 1 << 20;

impl Staged {
    /// Apart from where it will be: in memory, and below `work` when it is large, without a name there.
    ///
    /// # Errors
    /// Target: the work folder cannot be made.
    pub fn apart(work: &Path) -> Outcome<Staged> {
        fs::create_dir_all(work).map_err(|e| {
            let work = shown(work);
            Failure::target(format!("the work folder {work} failed: {e}"))
                .hint(format!("df -h {work}; --work-dir names another folder"))
        })?;
        Ok(Staged { kind: Kind::Apart(tempfile::spooled_tempfile_in(IN_MEMORY, work), work.to_owned()) })
    }
}

impl Write for Staged {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.kind {
            Kind::Beside(file, _) => file.write(bytes),
            // It is not the place that is full then.
            Kind::Apart(spool, work) => {
                spool.write(bytes).map_err(|e| io::Error::other(format!("the work folder {} failed: {e}", shown(work))))
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Staged {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.kind {
            Kind::Beside(file, _) => file.read(buffer),
            Kind::Apart(spool, _) => spool.read(buffer),
        }
    }
}

impl Seek for Staged {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        match &mut self.kind {
            Kind::Beside(file, _) => file.seek(to),
            Kind::Apart(spool, _) => spool.seek(to),
        }
    }
}

/// Whether a path can be a file's below any place: segments with something in them, none of which leads elsewhere.
pub fn is_plain(path: &str) -> bool {
    !path.is_empty() && path.split('/').all(|s| !matches!(s, "" | "." | "..")) && !path.contains('\0')
}
