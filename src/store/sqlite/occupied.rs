//! What is in the place that a new SQLite file is to take, and whether anybody uses it. Nothing is opened for writing, no
//! lock is taken and no file is left.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use rustix::process::{Flock, FlockOffsetType, FlockType, fcntl_getlk};

use super::snapshot::{look_at_header, look_beside};
use super::users::users;
use super::{Explain, introspect, open_readonly};
use crate::domain::address::shown;
use crate::domain::catalogue::Catalogue;
use crate::domain::ddl::quote;
use crate::domain::failure::{Failure, Outcome};
use crate::domain::identity;

/// What is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Existing {
    /// Nothing.
    Nothing,
    /// A database with rows that somebody made: how many tables it has, and a word on what they hold.
    Data(usize, String),
    /// A database of so many tables with nothing but what MLflow puts there on its first start.
    Fresh(usize),
    /// Something that is no MLflow store: never replaced.
    Other(String),
}

/// Looks at the place. Whoever replaces what is there asks [`unused`] once more right before that.
///
/// # Errors
/// Target: it is in use, or a write to it was interrupted ([`unused`]); or it cannot be read.
pub fn in_the_way(path: &Path) -> Outcome<Existing> {
    unused(path)?;
    let real = match real(path)? {
        Some(real) if real.is_file() => real,
        Some(_) => return Ok(Existing::Other("not a file".to_owned())),
        None => return Ok(Existing::Nothing),
    };
    if fs::metadata(&real).is_ok_and(|m| m.len() == 0) {
        // What an interrupted first start leaves.
        return Ok(Existing::Fresh(0));
    }
    if let Err(failure) = look_at_header(&real) {
        return Ok(Existing::Other(failure.message));
    }
    // Nobody has it open and nothing lies beside it, so the file is all there is, and it can be read without a lock.
    let connection = open_readonly(&real, true).of_target(path)?;
    contents(&connection, path)
}

fn contents(connection: &Connection, path: &Path) -> Outcome<Existing> {
    let observed = match introspect::look(connection) {
        Ok(observed) => observed,
        Err(e) => return Ok(Existing::Other(format!("{}: {}", shown(path), super::sqlite_text(&e)))),
    };
    let tables = observed.tables.len();
    if tables == 0 {
        return Ok(Existing::Fresh(0));
    }
    let identity = match identity::identify(&observed, Catalogue::embedded()?) {
        Ok(identity) => identity,
        Err(reason) => return Ok(Existing::Other(format!("{}: {}", shown(path), reason.message))),
    };
    let mut found = Vec::new();
    for table in &observed.tables {
        // What MLflow's own first start puts there (FACTS 2).
        let own = match table.name.as_str() {
            "alembic_version" | "alembic_version_auth" if identity.foreign_versions.is_empty() => "1",
            "experiments" => "CAST(experiment_id AS TEXT) = '0' AND name = 'Default'",
            "workspaces" => "name = 'default'",
            _ => "0",
        };
        let sql = format!("SELECT count(*) FROM {} WHERE ({own}) IS NOT 1", quote(&table.name));
        let rows: i64 = connection.query_row(&sql, [], |row| row.get(0)).of_target(path)?;
        if rows > 0 {
            found.push(format!("{rows} in {}", table.name));
        }
    }
    if found.is_empty() {
        return Ok(Existing::Fresh(tables));
    }
    let more = found.len().saturating_sub(6);
    found.truncate(6);
    let more = if more > 0 { format!(", and more in {more} other tables") } else { String::new() };
    Ok(Existing::Data(tables, format!("{}{more}", found.join(", "))))
}

/// Whether nobody uses the file, and no write to it is unfinished: a `-wal` or a hot `-journal` beside a name belongs to
/// whatever file SQLite finds under that name, and would be played into a new one.
///
/// # Errors
/// Target: it is open in another process, locked, or has such a file beside it.
pub fn unused(path: &Path) -> Outcome<()> {
    let real = real(path)?;
    let place = real.clone().unwrap_or_else(|| path.to_owned());
    let beside = look_beside(&place)?;
    for (left, what) in [(beside.wal, "changes that are not in the file yet"), (beside.journal, "an unfinished write")]
    {
        if let Some(left) = left {
            return Err(Failure::target(format!("{} holds {what}, so nothing takes the place of {}", shown(&left), shown(path)))
                .hint("stop the server on it; then `sqlite3 FILE 'PRAGMA wal_checkpoint(TRUNCATE)'` finishes what is unfinished, or move the files away together"));
        }
    }
    let Some(real) = real.filter(|real| real.is_file()) else { return Ok(()) };
    let users = users(&real);
    if !users.is_empty() {
        let users: Vec<String> = users.iter().take(5).map(|(id, name)| format!("{name} ({id})")).collect();
        return Err(in_use(path, &format!("is open in {}", users.join(", "))));
    }
    let file = File::open(&real).map_err(|e| Failure::target(format!("{}: {e}", shown(path))))?;
    match locked(&file) {
        Ok(None) => Ok(()),
        Ok(Some(process)) => Err(in_use(path, &format!("is locked by a process{process}"))),
        // A file system without locks; then SQLite has none on it either.
        Err(_) => Ok(()),
    }
}

fn in_use(path: &Path, how: &str) -> Failure {
    Failure::target(format!("{} {how}", shown(path)))
        .hint("stop the MLflow server on it, and whatever else has it open")
}

/// Where SQLite's locks are, and over how many bytes: pending, reserved and shared (SQLite documentation, "File Locking
/// And Concurrency"; `PENDING_BYTE` in os.h).
const LOCKS: (u64, u64) = (0x4000_0000, 512);

/// Whether another process holds one of SQLite's locks on the file, and which. Asking takes no lock.
fn locked(file: &File) -> io::Result<Option<String>> {
    let (start, length) = LOCKS;
    let asked = Flock { start, length, pid: None, typ: FlockType::WriteLock, offset_type: FlockOffsetType::Set };
    let holder = fcntl_getlk(file, &asked)?;
    // One of another machine or of another container has no number here.
    Ok(holder.map(|lock| lock.pid.map_or(String::new(), |pid| format!(" ({})", pid.as_raw_nonzero()))))
}

/// The file that a path leads to, links followed; `None`: there is nothing.
fn real(path: &Path) -> Outcome<Option<PathBuf>> {
    match fs::canonicalize(path) {
        Ok(real) => Ok(Some(real)),
        Err(_) if path.symlink_metadata().is_ok() => {
            Err(Failure::target(format!("{} is a link that leads nowhere", shown(path))).hint("remove the link"))
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Failure::target(format!("{}: {e}", shown(path)))),
    }
}

/// A file that is to be replaced, as it was seen: what happens to it until then shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    device: u64,
    number: u64,
    bytes: u64,
    changed: (i64, i64),
}

impl Seen {
    /// Looks at the file.
    pub(super) fn of(path: &Path) -> Option<Seen> {
        let there = fs::metadata(path).ok()?;
        Some(Seen {
            device: there.dev(),
            number: there.ino(),
            bytes: there.len(),
            changed: (there.mtime(), there.mtime_nsec()),
        })
    }
}

/// Where a replaced file is kept: beside its name, with the id of the run that replaced it.
pub fn aside(path: &Path, id: &str) -> PathBuf {
    let mut name = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()).into_os_string();
    name.push(format!(".mlops-replaced-{id}"));
    PathBuf::from(name)
}
