//! What can be seen of a SQLite file without opening it as a database, and so without a trace.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rusqlite::{Connection, Row};

use super::snapshot::{Snapshot, look_at_header, look_beside};
use super::{Explain, open_readonly};
use crate::domain::failure::Outcome;
use crate::domain::tracking::{ExperimentMark, MOST_MARKS};

/// A file from outside.
#[derive(Debug, Clone, Copy)]
pub struct Vitals {
    /// Bytes of the file.
    pub bytes: u64,
    /// Bytes of the `-wal` beside it.
    pub wal: u64,
    /// Whether it is in WAL mode; otherwise writers keep a rollback journal.
    pub wal_mode: bool,
}

/// Looks at the file's size and header.
///
/// # Errors
/// Source: no such file, not a SQLite database, not readable.
pub fn vitals(path: &Path) -> Outcome<Vitals> {
    let bytes = look_at_header(path)?;
    let mut wal = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()).into_os_string();
    wal.push("-wal");
    Ok(Vitals { bytes, wal: fs::metadata(wal).map_or(0, |m| m.len()), wal_mode: look_beside(path)?.wal_mode })
}

/// The newest experiments of a private copy that are not deleted.
///
/// # Errors
/// Source: they cannot be read, or the revision is older than their creation time.
pub fn experiments(snapshot: &Snapshot) -> Outcome<Vec<ExperimentMark>> {
    let look = |connection: Connection| -> rusqlite::Result<Vec<ExperimentMark>> {
        let sql = format!(
            "SELECT CAST(experiment_id AS TEXT), name, creation_time FROM experiments WHERE lifecycle_stage = 'active'
             ORDER BY creation_time DESC LIMIT {MOST_MARKS}"
        );
        let mark = |row: &Row<'_>| Ok(ExperimentMark { id: row.get(0)?, name: row.get(1)?, created: row.get(2)? });
        connection.prepare(&sql)?.query_map([], mark)?.collect()
    };
    open_readonly(&snapshot.path(), true).and_then(look).of_source(snapshot.original())
}

/// Whether every user of the machine may write to the file; `None` where it is not there.
pub fn writable_by_all(path: &Path) -> Option<bool> {
    Some(fs::metadata(path).ok()?.permissions().mode() & 0o002 != 0)
}

/// Folders that are emptied by a restart or by age (Filesystem Hierarchy Standard; systemd's tmpfiles.d).
const TEMPORARY: &[&str] = &["/tmp", "/var/tmp", "/dev/shm", "/run"];
/// Linux' `statfs(2)`: TMPFS_MAGIC and RAMFS_MAGIC.
const IN_MEMORY: &[u32] = &[0x0102_1994, 0x8584_58f6];
/// OVERLAYFS_SUPER_MAGIC.
const OVERLAY: u32 = 0x794c_7630;
/// The files by which Docker and Podman tell that this is a container.
const CONTAINER: &[&str] = &["/.dockerenv", "/run/.containerenv"];

/// Why the place does not keep a file: `None` where nothing speaks against it.
pub fn fleeting(path: &Path) -> Option<String> {
    let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    if let Some(folder) = TEMPORARY.iter().find(|folder| real.starts_with(folder)) {
        return Some(format!("{folder} is for temporary files"));
    }
    let kind = rustix::fs::statfs(&real).ok()?.f_type;
    let kind = u32::try_from(u64::try_from(kind).ok()? & 0xffff_ffff).ok()?;
    if IN_MEMORY.contains(&kind) {
        return Some("it lies in memory (tmpfs)".to_owned());
    }
    let contained = kind == OVERLAY && CONTAINER.iter().any(|file| Path::new(file).exists());
    contained.then(|| "it lies in the container's own layer (overlay), which goes with the container".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn temporary_places_are_known() {
        assert!(fleeting(Path::new("/tmp/x.db")).is_some() && fleeting(Path::new("/var/tmp/x/y.db")).is_some());
        assert!(fleeting(Path::new("/dev/shm")).is_some());
        assert_eq!(fleeting(Path::new("/usr/bin")), None);
        assert_eq!(fleeting(Path::new("/tmpfiles.db")), None, "a name that begins alike");
    }
}
