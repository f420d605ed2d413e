//! A report as a file that others read while it is replaced: the textfile collector of node_exporter, a wiki.

use std::io::Write;
use std::path::Path;

use crate::domain::address::shown;
use crate::domain::failure::{Failure, Outcome};
use crate::newfile::NewFile;

/// Writes the file, or puts it in the place of an older one, by rename: a reader sees the old one or the new one. It is
/// readable by all (0644 whatever the umask), for a collector runs as a user of its own; until it has its name, that
/// name does not end in `.prom`.
///
/// # Errors
/// Target: the folder cannot be written to, the disk failed.
pub fn write(target: &Path, text: &str) -> Outcome<()> {
    let mut new = NewFile::replacing(target)?;
    new.file()
        .write_all(text.as_bytes())
        .map_err(|e| Failure::target(format!("{} cannot be written: {e}", shown(target))))?;
    new.replace(0o644)
}
