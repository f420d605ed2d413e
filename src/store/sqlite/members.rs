//! Where the members of a file that holds many lie in it. In a private file of SQLite's, so that memory does not grow with
//! their number.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, OptionalExtension, params};

use super::ledger::{failed, number};
use crate::domain::failure::Outcome;
use crate::store::scratch::Scratch;

/// The private file.
pub struct Members {
    connection: Mutex<Connection>,
    _folder: Scratch,
}

/// Where a member's bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// The first of them, from the beginning of the file.
    pub at: u64,
    /// How many there are.
    pub bytes: u64,
}

const TABLES: &str = "
    PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA cache_size=-8192; PRAGMA temp_store=FILE;
    CREATE TABLE members (path TEXT PRIMARY KEY, at INTEGER, bytes INTEGER) WITHOUT ROWID;
    BEGIN;";

fn stretch(row: &rusqlite::Row<'_>, first: usize) -> rusqlite::Result<Stretch> {
    let at = |column| row.get::<_, i64>(column).map(i64::unsigned_abs);
    Ok(Stretch { at: at(first)?, bytes: at(first + 1)? })
}

impl Members {
    /// None yet, noted in a folder of its own below `work_dir`.
    ///
    /// # Errors
    /// Configuration: the folder cannot be used. The same for all that follow.
    pub fn new(work_dir: &Path) -> Outcome<Members> {
        let folder = Scratch::new("mlops-members-", work_dir)?;
        let connection = Connection::open(folder.path().join("members.db")).map_err(failed)?;
        connection.execute_batch(TABLES).map_err(failed)?;
        Ok(Members { connection: Mutex::new(connection), _folder: folder })
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes one. Says whether its path is new; else nothing is noted.
    ///
    /// # Errors
    /// As [`Members::new`].
    pub fn note(&self, path: &str, place: Stretch) -> Outcome<bool> {
        let connection = self.connection();
        let mut statement =
            connection.prepare_cached("INSERT OR IGNORE INTO members VALUES (?, ?, ?)").map_err(failed)?;
        statement.execute(params![path, number(place.at), number(place.bytes)]).map(|rows| rows == 1).map_err(failed)
    }

    /// Where one is.
    ///
    /// # Errors
    /// As [`Members::new`].
    pub fn find(&self, path: &str) -> Outcome<Option<Stretch>> {
        let connection = self.connection();
        let mut statement =
            connection.prepare_cached("SELECT at, bytes FROM members WHERE path = ?").map_err(failed)?;
        statement.query_row([path], |row| stretch(row, 0)).optional().map_err(failed)
    }

    /// The next of them by path, after one.
    ///
    /// # Errors
    /// As [`Members::new`].
    pub fn after(&self, path: &str) -> Outcome<Option<(String, Stretch)>> {
        let connection = self.connection();
        let sql = "SELECT path, at, bytes FROM members WHERE path > ? ORDER BY path LIMIT 1";
        let mut statement = connection.prepare_cached(sql).map_err(failed)?;
        statement.query_row([path], |row| Ok((row.get(0)?, stretch(row, 1)?))).optional().map_err(failed)
    }
}
