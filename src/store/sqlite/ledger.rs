//! The ledger of a backup: what it refers to, which files that is, what of them is known already. It lies in a private
//! file of SQLite's, so that memory does not grow with the files.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::domain::failure::{Failure, Outcome};
use crate::store::scratch::Scratch;

/// A file of a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerFile {
    /// Number of its root.
    pub root: u32,
    /// Path below the root.
    pub path: String,
    /// Bytes.
    pub bytes: u64,
    /// What tells it from another content of the same size.
    pub changed: Option<String>,
    /// SHA-256 of its content, once it is known.
    pub sha256: Option<String>,
    /// Bytes that it takes in the store.
    pub stored: u64,
}

/// Sums over files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sums {
    /// Files.
    pub files: u64,
    /// Bytes of their contents.
    pub bytes: u64,
}

/// The private file.
pub struct Ledger {
    connection: Mutex<Connection>,
    _folder: Scratch,
}

const TABLES: &str = "
    PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA cache_size=-8192; PRAGMA temp_store=FILE;
    CREATE TABLE names (kind TEXT, id TEXT, address TEXT, PRIMARY KEY (kind, id)) WITHOUT ROWID;
    CREATE TABLE refs (root INTEGER, path TEXT, PRIMARY KEY (root, path)) WITHOUT ROWID;
    CREATE TABLE known (root INTEGER, path TEXT, bytes INTEGER, changed TEXT, sha256 TEXT, stored INTEGER,
                        PRIMARY KEY (root, path)) WITHOUT ROWID;
    CREATE TABLE files (root INTEGER, path TEXT, bytes INTEGER, changed TEXT, sha256 TEXT, stored INTEGER,
                        PRIMARY KEY (root, path)) WITHOUT ROWID;
    CREATE TABLE objects (sha256 TEXT PRIMARY KEY, bytes INTEGER, stored INTEGER) WITHOUT ROWID;
    CREATE TABLE pool (sha256 TEXT PRIMARY KEY, stored INTEGER) WITHOUT ROWID;
    BEGIN;";

pub(super) fn failed(error: rusqlite::Error) -> Failure {
    Failure::configuration(format!("the work folder cannot be used: {error}"))
        .hint("name another folder with --work-dir")
}

fn file(row: &Row<'_>) -> rusqlite::Result<LedgerFile> {
    Ok(LedgerFile {
        root: row.get(0)?,
        path: row.get(1)?,
        bytes: row.get::<_, i64>(2)?.unsigned_abs(),
        changed: row.get(3)?,
        sha256: row.get(4)?,
        stored: row.get::<_, Option<i64>>(5)?.unwrap_or(0).unsigned_abs(),
    })
}

pub(super) fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

impl Ledger {
    /// An empty ledger in a folder of its own below `work_dir`.
    ///
    /// # Errors
    /// Configuration: the folder cannot be used.
    pub fn new(work_dir: &Path) -> Outcome<Ledger> {
        let folder = Scratch::new("mlops-ledger-", work_dir)?;
        let connection = Connection::open(folder.path().join("ledger.db")).map_err(failed)?;
        connection.execute_batch(TABLES).map_err(failed)?;
        Ok(Ledger { connection: Mutex::new(connection), _folder: folder })
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn execute(&self, sql: &str, values: impl rusqlite::Params) -> Outcome<()> {
        let connection = self.connection();
        let mut statement = connection.prepare_cached(sql).map_err(failed)?;
        statement.execute(values).map(drop).map_err(failed)
    }

    /// Notes the address of a thing that others name by its id.
    ///
    /// # Errors
    /// Configuration: no room in the work folder. The same for all that follow.
    pub fn name(&self, kind: &str, id: &str, address: &str) -> Outcome<()> {
        self.execute("INSERT OR REPLACE INTO names VALUES (?, ?, ?)", [kind, id, address])
    }

    /// The address of a thing by its id.
    ///
    /// # Errors
    /// As [`Ledger::name`].
    pub fn named(&self, kind: &str, id: &str) -> Outcome<Option<String>> {
        let connection = self.connection();
        let mut statement =
            connection.prepare_cached("SELECT address FROM names WHERE kind = ? AND id = ?").map_err(failed)?;
        statement.query_row([kind, id], |row| row.get(0)).optional().map_err(failed)
    }

    /// Calls `each` with every address of things of a kind, page by page.
    ///
    /// # Errors
    /// As [`Ledger::name`], or `each` failed.
    pub fn addresses(&self, kind: &str, each: &mut dyn FnMut(&str) -> Outcome<()>) -> Outcome<()> {
        let mut last = String::new();
        loop {
            let page: Vec<(String, String)> = {
                let connection = self.connection();
                let mut statement = connection
                    .prepare_cached("SELECT id, address FROM names WHERE kind = ? AND id > ? ORDER BY id LIMIT 1000")
                    .map_err(failed)?;
                let rows = statement.query_map([kind, &last], |row| Ok((row.get(0)?, row.get(1)?))).map_err(failed)?;
                rows.collect::<rusqlite::Result<_>>().map_err(failed)?
            };
            let Some((id, _)) = page.last() else { return Ok(()) };
            last.clone_from(id);
            for (_, address) in &page {
                each(address)?;
            }
        }
    }

    /// Notes that the backup refers to what is at or below a path.
    ///
    /// # Errors
    /// As [`Ledger::name`].
    pub fn refer(&self, root: u32, path: &str) -> Outcome<()> {
        let slash = if path.is_empty() { "" } else { "/" };
        self.execute("INSERT OR IGNORE INTO refs VALUES (?, ?)", params![root, format!("{path}{slash}")])
    }

    /// The next paths that the backup refers to after that one, in order, with a slash at their ends.
    ///
    /// # Errors
    /// As [`Ledger::name`].
    pub fn references(&self, after: &(u32, String), most: usize) -> Outcome<Vec<(u32, String)>> {
        let connection = self.connection();
        let mut statement = connection
            .prepare_cached("SELECT root, path FROM refs WHERE (root, path) > (?, ?) ORDER BY root, path LIMIT ?")
            .map_err(failed)?;
        let rows = statement.query_map(params![after.0, after.1, most as i64], |r| Ok((r.get(0)?, r.get(1)?)));
        rows.map_err(failed)?.collect::<rusqlite::Result<_>>().map_err(failed)
    }

    /// The root of that number or above, where the backup refers to a root as a whole: no path comes before it.
    ///
    /// # Errors
    /// As [`Ledger::name`].
    pub fn whole_root(&self, root: u32) -> Outcome<Option<(u32, String)>> {
        let connection = self.connection();
        let sql = "SELECT root, path FROM refs WHERE root = ? AND path = ''";
        connection.query_row(sql, [root], |r| Ok((r.get(0)?, r.get(1)?))).optional().map_err(failed)
    }

    /// Whether the backup refers to anything below a root.
    ///
    /// # Errors
    /// As [`Ledger::name`].
    pub fn refers_to(&self, root: u32) -> Outcome<bool> {
        let sql = "SELECT EXISTS (SELECT 1 FROM refs WHERE root = ?)";
        self.connection().query_row(sql, [root], |row| row.get(0)).map_err(failed)
    }

    /// The number of files of a root.
    ///
    /// # Errors
    /// As [`Ledger::name`].
    pub fn files_of(&self, root: u32) -> Outcome<u64> {
        let sql = "SELECT count(*) FROM files WHERE root = ?";
        let count = self.connection().query_row(sql, [root], |row| row.get::<_, i64>(0));
        count.map(i64::unsigned_abs).map_err(failed)
    }

    /// The number of paths that the backup refers to.
    ///
    /// # Errors
    /// As [`Ledger::name`].
    pub fn referenced(&self) -> Outcome<u64> {
        let connection = self.connection();
        let count = connection.query_row("SELECT count(*) FROM refs", [], |row| row.get::<_, i64>(0));
        count.map(i64::unsigned_abs).map_err(failed)
    }

    /// Notes a file of an earlier backup.
    ///
    /// # Errors
    /// As [`Ledger::name`].
    pub fn know(&self, file: &LedgerFile) -> Outcome<()> {
        self.insert("known", file)
    }

    /// Notes a file of this backup.
    ///
    /// # Errors
    /// As [`Ledger::name`].
    pub fn add(&self, file: &LedgerFile) -> Outcome<()> {
        self.insert("files", file)
    }

    fn insert(&self, table: &str, file: &LedgerFile) -> Outcome<()> {
        self.execute(
            &format!("INSERT OR REPLACE INTO {table} VALUES (?, ?, ?, ?, ?, ?)"),
            params![file.root, file.path, number(file.bytes), file.changed, file.sha256, number(file.stored)],
        )
    }

    /// Takes over what is known of files that have the size and the time of change they had; gives the sums of those.
    ///
    /// # Errors
    /// As [`Ledger::name`].
    pub fn take_over(&self) -> Outcome<Sums> {
        self.execute(
            "UPDATE files SET (sha256, stored) = (SELECT sha256, stored FROM known k WHERE k.root = files.root
             AND k.path = files.path) WHERE changed IS NOT NULL AND EXISTS (SELECT 1 FROM known k
             WHERE k.root = files.root AND k.path = files.path AND k.bytes = files.bytes
             AND k.changed = files.changed AND EXISTS (SELECT 1 FROM pool p WHERE p.sha256 = k.sha256
             AND p.stored = k.stored))",
            [],
        )?;
        self.sums("FROM files WHERE sha256 IS NOT NULL")
    }

    fn sums(&self, of: &str) -> Outcome<Sums> {
        let connection = self.connection();
        let sums = connection.query_row(&format!("SELECT count(*), coalesce(sum(bytes), 0) {of}"), [], |row| {
            Ok(Sums { files: row.get::<_, i64>(0)?.unsigned_abs(), bytes: row.get::<_, i64>(1)?.unsigned_abs() })
        });
        sums.map_err(failed)
    }

    /// All files of this backup.
    ///
    /// # Errors
    /// As [`Ledger::name`].
    pub fn all(&self) -> Outcome<Sums> {
        self.sums("FROM files")
    }

    /// The next files after that one, in order; `unknown`: those alone whose content is not known.
    ///
    /// # Errors
    /// As [`Ledger::name`].
    pub fn files(&self, after: &(u32, String), unknown: bool, most: usize) -> Outcome<Vec<LedgerFile>> {
        let filter = if unknown { "AND sha256 IS NULL" } else { "" };
        let connection = self.connection();
        let mut statement = connection
            .prepare_cached(&format!(
                "SELECT root, path, bytes, changed, sha256, stored FROM files
                 WHERE (root, path) > (?, ?) {filter} ORDER BY root, path LIMIT ?"
            ))
            .map_err(failed)?;
        let rows = statement.query_map(params![after.0, after.1, most as i64], file).map_err(failed)?;
        rows.collect::<rusqlite::Result<_>>().map_err(failed)
    }

    /// Forgets a file of this backup.
    ///
    /// # Errors
    /// As [`Ledger::name`].
    pub fn forget(&self, root: u32, path: &str) -> Outcome<()> {
        self.execute("DELETE FROM files WHERE root = ? AND path = ?", params![root, path])
    }

    /// Notes a content that lies in the store.
    ///
    /// # Errors
    /// As [`Ledger::name`].
    pub fn pooled(&self, sha256: &str, stored: u64) -> Outcome<()> {
        self.execute("INSERT OR REPLACE INTO pool VALUES (?, ?)", params![sha256, number(stored)])
    }

    /// The next contents that lie in the store after that one.
    ///
    /// # Errors
    /// As [`Ledger::name`].
    pub fn pool_after(&self, after: &str, most: usize) -> Outcome<Vec<String>> {
        let connection = self.connection();
        let mut statement = connection
            .prepare_cached("SELECT sha256 FROM pool WHERE sha256 > ? ORDER BY sha256 LIMIT ?")
            .map_err(failed)?;
        let rows = statement.query_map(params![after, most as i64], |row| row.get(0)).map_err(failed)?;
        rows.collect::<rusqlite::Result<_>>().map_err(failed)
    }

    /// The bytes that a content takes in the store; `None`: it is not there.
    ///
    /// # Errors
    /// As [`Ledger::name`].
    pub fn in_pool(&self, sha256: &str) -> Outcome<Option<u64>> {
        let connection = self.connection();
        let mut statement = connection.prepare_cached("SELECT stored FROM pool WHERE sha256 = ?").map_err(failed)?;
        let stored = statement.query_row([sha256], |row| row.get::<_, i64>(0)).optional().map_err(failed)?;
        Ok(stored.map(i64::unsigned_abs))
    }

    /// Notes a content; whether it was not noted before.
    ///
    /// # Errors
    /// As [`Ledger::name`].
    pub fn object(&self, sha256: &str, bytes: u64, stored: u64) -> Outcome<bool> {
        let connection = self.connection();
        let mut statement =
            connection.prepare_cached("INSERT OR IGNORE INTO objects VALUES (?, ?, ?)").map_err(failed)?;
        statement.execute(params![sha256, number(bytes), number(stored)]).map(|n| n > 0).map_err(failed)
    }

    /// Whether a content was noted.
    ///
    /// # Errors
    /// As [`Ledger::name`].
    pub fn has_object(&self, sha256: &str) -> Outcome<bool> {
        let connection = self.connection();
        let mut statement = connection.prepare_cached("SELECT 1 FROM objects WHERE sha256 = ?").map_err(failed)?;
        statement.exists([sha256]).map_err(failed)
    }

    /// The next contents after that one, in order: SHA-256, bytes, stored bytes.
    ///
    /// # Errors
    /// As [`Ledger::name`].
    pub fn objects(&self, after: &str, most: usize) -> Outcome<Vec<(String, u64, u64)>> {
        let connection = self.connection();
        let mut statement = connection
            .prepare_cached("SELECT sha256, bytes, stored FROM objects WHERE sha256 > ? ORDER BY sha256 LIMIT ?")
            .map_err(failed)?;
        let unsigned = |row: &Row<'_>, at: usize| row.get::<_, i64>(at).map(i64::unsigned_abs);
        let rows = statement
            .query_map(params![after, most as i64], |row| Ok((row.get(0)?, unsigned(row, 1)?, unsigned(row, 2)?)))
            .map_err(failed)?;
        rows.collect::<rusqlite::Result<_>>().map_err(failed)
    }

    /// How many contents were noted, and the bytes that they take in the store.
    ///
    /// # Errors
    /// As [`Ledger::name`].
    pub fn stored(&self) -> Outcome<Sums> {
        self.sums("FROM (SELECT stored AS bytes FROM objects)")
    }
}
