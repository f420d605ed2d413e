//! The bytes of an archive where they are stored, read at any place by any thread.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::domain::address::shown;
use crate::domain::failure::{Failure, Outcome};
use crate::engine::cancel::Cancel;

/// Bytes that can be read at any place.
pub trait Stored: Send + Sync {
    /// How many there are.
    ///
    /// # Errors
    /// They cannot be asked.
    fn size(&self) -> io::Result<u64>;

    /// Reads some bytes from that place on; 0 at the end.
    ///
    /// # Errors
    /// They cannot be read.
    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize>;
}

impl Stored for File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        FileExt::read_at(self, into, at)
    }
}

impl Stored for Vec<u8> {
    fn size(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }

    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        let from = usize::try_from(at).ok().and_then(|at| self.get(at..)).unwrap_or_default();
        let len = from.len().min(into.len());
        for (to, from) in into.iter_mut().zip(from) {
            *to = *from;
        }
        Ok(len)
    }
}

/// A stretch of stored bytes as a reader.
pub(super) struct Stretch<'a> {
    stored: &'a dyn Stored,
    at: u64,
    left: u64,
}

impl<'a> Stretch<'a> {
    pub(super) fn new(stored: &'a dyn Stored, at: u64, bytes: u64) -> Self {
        Stretch { stored, at, left: bytes }
    }
}

impl Read for Stretch<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let most = into.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let read = match into.get_mut(..most) {
            Some(into) if most > 0 => self.stored.read_at(into, self.at)?,
            _ => 0,
        };
        self.at += read as u64;
        self.left -= read as u64;
        Ok(read)
    }
}

/// How much is read between two looks at the free space, and how much of it is left to others.
const STEP: usize = 1 << 20;
const RESERVE: u64 = 256 << 20;

/// Takes an archive that comes through a pipe into a private file in `folder`, because its end has to be checked before
/// its beginning is used. The file has no name and is gone with the process. Stops before the disk is full.
///
/// # Errors
/// Source: the pipe failed. Configuration: the folder cannot be written to, or has too little space. Interrupted.
pub fn spool(from: &mut dyn Read, folder: &Path, cancel: &Cancel) -> Outcome<File> {
    let unusable = |e: io::Error| {
        Failure::configuration(format!("the work folder {} cannot be used: {e}", shown(folder)))
            .hint("name another folder with --work-dir")
    };
    let mut file = tempfile::tempfile_in(folder).map_err(unusable)?;
    let mut buffer = vec![0; STEP];
    let mut taken: u64 = 0;
    loop {
        cancel.check()?;
        let read = match from.read(&mut buffer) {
            Ok(0) => return Ok(file),
            Ok(read) => read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(Failure::source(format!("the archive cannot be read from the pipe: {e}"))),
        };
        let stat = rustix::fs::fstatvfs(&file).map_err(|e| unusable(e.into()))?;
        if stat.f_bavail.saturating_mul(stat.f_frsize) < RESERVE {
            return Err(Failure::configuration(format!(
                "{} has too little space for the archive: {} MiB of it have come, and {} MiB must stay free",
                shown(folder),
                taken >> 20,
                RESERVE >> 20
            ))
            .hint("name another folder with --work-dir, or put the archive into a file yourself"));
        }
        file.write_all(buffer.get(..read).unwrap_or_default()).map_err(unusable)?;
        taken += read as u64;
    }
}
