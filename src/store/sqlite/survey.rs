//! What was found below an artifact root: the places of MLflow's shape, and which of the files that rows promise are
//! there. It lies in a private file of SQLite's, so that memory does not grow with the files.

use std::path::Path;

use rusqlite::{Connection, params};

use super::ledger::failed;
use crate::domain::cleanup::belongings::Root;
use crate::domain::failure::Outcome;
use crate::store::scratch::Scratch;

/// A place that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The batch that put it into quarantine; empty: none did.
    pub batch: String,
    /// Its path below the root; in quarantine the one that it had.
    pub path: String,
    /// What it is.
    pub kind: Root,
    /// The id in its path.
    pub id: String,
    /// Files in it.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// When the newest of them was written, in milliseconds since 1970.
    pub newest: i64,
    /// Something in it could not be read, or is not MLflow's.
    pub mixed: bool,
}

/// The private file.
pub struct Survey {
    connection: Connection,
    _folder: Scratch,
}

const TABLES: &str = "
    PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA cache_size=-16384; PRAGMA temp_store=FILE;
    CREATE TABLE units (batch TEXT, path TEXT, kind INTEGER, id TEXT, files INTEGER, bytes INTEGER, newest INTEGER,
                        mixed INTEGER, orphan INTEGER DEFAULT 0, PRIMARY KEY (batch, path)) WITHOUT ROWID;
    CREATE TABLE kept (path TEXT PRIMARY KEY) WITHOUT ROWID;
    CREATE TABLE promised (place TEXT, what TEXT, seen INTEGER DEFAULT 0, PRIMARY KEY (place, what)) WITHOUT ROWID;
    BEGIN;";

fn number(kind: Root) -> i64 {
    Root::ALL.iter().position(|root| *root == kind).unwrap_or_default() as i64
}

impl Survey {
    /// An empty one in a folder of its own below `work_dir`.
    ///
    /// # Errors
    /// Configuration: the folder cannot be used. The same for all that follow.
    pub fn new(work_dir: &Path) -> Outcome<Survey> {
        let folder = Scratch::new("mlops-orphans-", work_dir)?;
        let connection = Connection::open(folder.path().join("survey.db")).map_err(failed)?;
        connection.execute_batch(TABLES).map_err(failed)?;
        Ok(Survey { connection, _folder: folder })
    }

    fn execute(&self, sql: &str, values: impl rusqlite::Params) -> Outcome<usize> {
        let mut statement = self.connection.prepare_cached(sql).map_err(failed)?;
        statement.execute(values).map_err(failed)
    }

    /// Adds what was seen of a place to what is known of it.
    ///
    /// # Errors
    /// As [`Survey::new`].
    pub fn add(&self, seen: &Found) -> Outcome<()> {
        let sql = "INSERT INTO units (batch, path, kind, id, files, bytes, newest, mixed)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
                   ON CONFLICT (batch, path) DO UPDATE SET files = files + ?5, bytes = bytes + ?6,
                                                           newest = max(newest, ?7), mixed = max(mixed, ?8)";
        let (kind, files, bytes) = (number(seen.kind), seen.files as i64, seen.bytes as i64);
        let values = params![seen.batch, seen.path, kind, seen.id, files, bytes, seen.newest, seen.mixed];
        self.execute(sql, values).map(drop)
    }

    /// The next places of a batch after that path: of those that were called orphans, or of all.
    ///
    /// # Errors
    /// As [`Survey::new`].
    pub fn found(&self, batch: &str, orphans: bool, after: &str, most: usize) -> Outcome<Vec<Found>> {
        let sql = "SELECT batch, path, kind, id, files, bytes, newest, mixed FROM units
                   WHERE batch = ?1 AND path > ?2 AND orphan >= ?3 ORDER BY path LIMIT ?4";
        let mut statement = self.connection.prepare_cached(sql).map_err(failed)?;
        let found = |row: &rusqlite::Row<'_>| {
            let kind = usize::try_from(row.get::<_, i64>(2)?).ok().and_then(|at| Root::ALL.get(at).copied());
            Ok(Found {
                batch: row.get(0)?,
                path: row.get(1)?,
                kind: kind.unwrap_or(Root::Run),
                id: row.get(3)?,
                files: row.get::<_, i64>(4)?.unsigned_abs(),
                bytes: row.get::<_, i64>(5)?.unsigned_abs(),
                newest: row.get(6)?,
                mixed: row.get(7)?,
            })
        };
        let values = params![batch, after, i64::from(orphans), most as i64];
        let rows = statement.query_map(values, found).map_err(failed)?;
        rows.collect::<rusqlite::Result<_>>().map_err(failed)
    }

    /// The folders of the batches in quarantine.
    ///
    /// # Errors
    /// As [`Survey::new`].
    pub fn batches(&self) -> Outcome<Vec<String>> {
        let sql = "SELECT DISTINCT batch FROM units WHERE batch <> ''";
        let mut statement = self.connection.prepare(sql).map_err(failed)?;
        let rows = statement.query_map([], |row| row.get(0)).map_err(failed)?;
        rows.collect::<rusqlite::Result<_>>().map_err(failed)
    }

    /// Calls a place that is not in quarantine an orphan.
    ///
    /// # Errors
    /// As [`Survey::new`].
    pub fn orphan(&self, path: &str) -> Outcome<()> {
        self.execute("UPDATE units SET orphan = 1 WHERE batch = '' AND path = ?", [path]).map(drop)
    }

    /// Notes a place that somebody put back by hand.
    ///
    /// # Errors
    /// As [`Survey::new`].
    pub fn keep(&self, path: &str) -> Outcome<()> {
        self.execute("INSERT OR IGNORE INTO kept VALUES (?)", [path]).map(drop)
    }

    /// Whether somebody put it back by hand.
    ///
    /// # Errors
    /// As [`Survey::new`].
    pub fn is_kept(&self, path: &str) -> Outcome<bool> {
        self.connection
            .prepare_cached("SELECT 1 FROM kept WHERE path = ?")
            .and_then(|mut s| s.exists([path]))
            .map_err(failed)
    }

    /// Notes that something has its files at or below a place, by its key.
    ///
    /// # Errors
    /// As [`Survey::new`].
    pub fn promise(&self, place: &str, what: &str) -> Outcome<()> {
        self.execute("INSERT OR IGNORE INTO promised (place, what) VALUES (?, ?)", [place, what]).map(drop)
    }

    /// A file is at that place, or below it.
    ///
    /// # Errors
    /// As [`Survey::new`].
    pub fn keep_promise(&self, place: &str) -> Outcome<()> {
        self.execute("UPDATE promised SET seen = 1 WHERE place = ?", [place]).map(drop)
    }

    /// What lies at that place, above it or below it may be there: it could not be looked at.
    ///
    /// # Errors
    /// As [`Survey::new`].
    pub fn excuse(&self, place: &str) -> Outcome<()> {
        let sql = "UPDATE promised SET seen = 1 WHERE place = ?1 OR (place > ?1 || '/' AND place < ?1 || '0')";
        self.execute(sql, [place]).map(drop)
    }

    /// What has none of its places with a file, the first of them, and how many.
    ///
    /// # Errors
    /// As [`Survey::new`].
    pub fn broken_promises(&self, most: usize) -> Outcome<(Vec<(String, String)>, u64)> {
        let broken = "FROM promised GROUP BY what HAVING max(seen) = 0";
        let sql = format!("SELECT what, min(place) {broken} ORDER BY what LIMIT ?");
        let mut statement = self.connection.prepare(&sql).map_err(failed)?;
        let rows = statement.query_map([most as i64], |row| Ok((row.get(0)?, row.get(1)?))).map_err(failed)?;
        let first = rows.collect::<rusqlite::Result<_>>().map_err(failed)?;
        let sql = format!("SELECT count(*) FROM (SELECT what {broken})");
        let total = self.connection.query_row(&sql, [], |row| row.get::<_, i64>(0)).map_err(failed)?;
        Ok((first, total.unsigned_abs()))
    }
}
