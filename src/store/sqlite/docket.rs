//! What a purge is about: which things go, which stay and why, and whose every place of artifacts is. It lies in a
//! private file of SQLite's, so that memory does not grow with it.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::ledger::failed;
use crate::domain::cleanup::belongings::Root;
use crate::domain::failure::Outcome;
use crate::store::scratch::Scratch;

/// Something that goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its place in the order.
    pub number: i64,
    /// Its id.
    pub id: String,
    /// Its experiment.
    pub experiment: String,
    /// Where its artifacts are.
    pub address: Option<String>,
}

/// Whose a place is: a thing of the database, or a model version, by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// What it is, for people: `run`, `model version`.
    pub kind: String,
    /// Its id or name.
    pub id: String,
}

/// The private file.
pub struct Docket {
    connection: Connection,
    _folder: Scratch,
}

const TABLES: &str = "
    PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA cache_size=-16384; PRAGMA temp_store=FILE;
    CREATE TABLE entries (number INTEGER PRIMARY KEY, kind TEXT, id TEXT, experiment TEXT, address TEXT);
    CREATE INDEX entries_of ON entries (kind, id);
    CREATE TABLE versions (kind TEXT, id TEXT, name TEXT, PRIMARY KEY (kind, id)) WITHOUT ROWID;
    CREATE TABLE held (experiment TEXT PRIMARY KEY, why TEXT) WITHOUT ROWID;
    CREATE TABLE places (place TEXT, kind TEXT, id TEXT, PRIMARY KEY (place, kind, id)) WITHOUT ROWID;
    BEGIN;";

fn owner(row: &Row<'_>) -> rusqlite::Result<Owner> {
    Ok(Owner { kind: row.get(0)?, id: row.get(1)? })
}

impl Docket {
    /// An empty one in a folder of its own below `work_dir`.
    ///
    /// # Errors
    /// Configuration: the folder cannot be used. The same for all that follow.
    pub fn new(work_dir: &Path) -> Outcome<Docket> {
        let folder = Scratch::new("mlops-purge-", work_dir)?;
        let connection = Connection::open(folder.path().join("docket.db")).map_err(failed)?;
        connection.execute_batch(TABLES).map_err(failed)?;
        Ok(Docket { connection, _folder: folder })
    }

    fn execute(&self, sql: &str, values: impl rusqlite::Params) -> Outcome<usize> {
        let mut statement = self.connection.prepare_cached(sql).map_err(failed)?;
        statement.execute(values).map_err(failed)
    }

    /// Adds something that goes, at the end.
    ///
    /// # Errors
    /// As [`Docket::new`].
    pub fn add(&self, kind: Root, id: &str, experiment: &str, address: Option<&str>) -> Outcome<()> {
        let sql = "INSERT INTO entries (kind, id, experiment, address) VALUES (?, ?, ?, ?)";
        self.execute(sql, params![kind.word(), id, experiment, address]).map(drop)
    }

    /// The next things of a kind after that number, in order.
    ///
    /// # Errors
    /// As [`Docket::new`].
    pub fn entries(&self, kind: Root, after: i64, most: usize) -> Outcome<Vec<Entry>> {
        let sql = "SELECT number, id, experiment, address FROM entries WHERE number > ? AND kind = ?
                   ORDER BY number LIMIT ?";
        let mut statement = self.connection.prepare_cached(sql).map_err(failed)?;
        let entry = |row: &Row<'_>| {
            Ok(Entry { number: row.get(0)?, id: row.get(1)?, experiment: row.get(2)?, address: row.get(3)? })
        };
        let rows = statement.query_map(params![after, kind.word(), most as i64], entry).map_err(failed)?;
        rows.collect::<rusqlite::Result<_>>().map_err(failed)
    }

    /// Whether it goes.
    ///
    /// # Errors
    /// As [`Docket::new`].
    pub fn goes(&self, kind: Root, id: &str) -> Outcome<bool> {
        let mut statement =
            self.connection.prepare_cached("SELECT 1 FROM entries WHERE kind = ? AND id = ?").map_err(failed)?;
        statement.exists([kind.word(), id]).map_err(failed)
    }

    /// Whether anything goes.
    ///
    /// # Errors
    /// As [`Docket::new`].
    pub fn any(&self) -> Outcome<bool> {
        self.connection.prepare("SELECT 1 FROM entries").and_then(|mut s| s.exists([])).map_err(failed)
    }

    /// The first things that go, experiments before all others.
    ///
    /// # Errors
    /// As [`Docket::new`].
    pub fn first(&self, most: usize) -> Outcome<Vec<(Root, String)>> {
        let sql = "SELECT kind, id FROM entries ORDER BY kind <> ?, number LIMIT ?";
        let mut statement = self.connection.prepare(sql).map_err(failed)?;
        let values = params![Root::Experiment.word(), most as i64];
        let rows = statement.query_map(values, |row| Ok((row.get::<_, String>(0)?, row.get(1)?))).map_err(failed)?;
        let rows: Vec<(String, String)> = rows.collect::<rusqlite::Result<_>>().map_err(failed)?;
        let kind = |word: &str| Root::ALL.into_iter().find(|root| root.word() == word);
        Ok(rows.into_iter().filter_map(|(word, id)| Some((kind(&word)?, id))).collect())
    }

    /// One thing does not go.
    ///
    /// # Errors
    /// As [`Docket::new`].
    pub fn remove(&self, number: i64) -> Outcome<()> {
        self.execute("DELETE FROM entries WHERE number = ?", [number]).map(drop)
    }

    /// Nothing goes any more.
    ///
    /// # Errors
    /// As [`Docket::new`].
    pub fn dismiss(&self) -> Outcome<()> {
        self.execute("DELETE FROM entries", []).map(drop)
    }

    /// How many of a kind go.
    ///
    /// # Errors
    /// As [`Docket::new`].
    pub fn count(&self, kind: Root) -> Outcome<u64> {
        let sql = "SELECT count(*) FROM entries WHERE kind = ?";
        let count = self.connection.query_row(sql, [kind.word()], |row| row.get::<_, i64>(0));
        count.map(i64::unsigned_abs).map_err(failed)
    }

    /// Notes that a model version needs a run or a logged model.
    ///
    /// # Errors
    /// As [`Docket::new`].
    pub fn needs(&self, kind: Root, id: &str, version: &str) -> Outcome<()> {
        let sql = "INSERT OR IGNORE INTO versions VALUES (?, ?, ?)";
        self.execute(sql, [kind.word(), id, version]).map(drop)
    }

    /// The model version that needs it.
    ///
    /// # Errors
    /// As [`Docket::new`].
    pub fn needed_by(&self, kind: Root, id: &str) -> Outcome<Option<String>> {
        let sql = "SELECT name FROM versions WHERE kind = ? AND id = ?";
        let mut statement = self.connection.prepare_cached(sql).map_err(failed)?;
        statement.query_row([kind.word(), id], |row| row.get(0)).optional().map_err(failed)
    }

    /// Notes why an experiment stays; the first reason counts.
    ///
    /// # Errors
    /// As [`Docket::new`].
    pub fn hold(&self, experiment: &str, why: &str) -> Outcome<()> {
        self.execute("INSERT OR IGNORE INTO held VALUES (?, ?)", [experiment, why]).map(drop)
    }

    /// Why an experiment stays, if it does.
    ///
    /// # Errors
    /// As [`Docket::new`].
    pub fn held(&self, experiment: &str) -> Outcome<Option<String>> {
        let mut statement =
            self.connection.prepare_cached("SELECT why FROM held WHERE experiment = ?").map_err(failed)?;
        statement.query_row([experiment], |row| row.get(0)).optional().map_err(failed)
    }

    /// Notes whose a place is.
    ///
    /// # Errors
    /// As [`Docket::new`].
    pub fn place(&self, place: &str, kind: &str, id: &str) -> Outcome<()> {
        self.execute("INSERT OR IGNORE INTO places VALUES (?, ?, ?)", [place, kind, id]).map(drop)
    }

    /// Some of the places of runs, logged models and model versions, taken at random.
    ///
    /// # Errors
    /// As [`Docket::new`].
    pub fn sample(&self, most: usize) -> Outcome<Vec<String>> {
        let sql = "SELECT place FROM places WHERE kind NOT IN (?, ?) ORDER BY random() LIMIT ?";
        let mut statement = self.connection.prepare(sql).map_err(failed)?;
        let values = params![Root::Experiment.word(), Root::Trace.word(), most as i64];
        let rows = statement.query_map(values, |row| row.get(0)).map_err(failed)?;
        rows.collect::<rusqlite::Result<_>>().map_err(failed)
    }

    /// Somebody else whose place is this one or lies in it.
    ///
    /// # Errors
    /// As [`Docket::new`].
    pub fn within(&self, place: &str, kind: Root, id: &str) -> Outcome<Option<Owner>> {
        // `0` comes after `/`.
        let sql = "SELECT kind, id FROM places WHERE (place = ?1 OR (place > ?1 || '/' AND place < ?1 || '0'))
                   AND NOT (kind = ?2 AND id = ?3) LIMIT 1";
        let mut statement = self.connection.prepare_cached(sql).map_err(failed)?;
        statement.query_row([place, kind.word(), id], owner).optional().map_err(failed)
    }

    /// Whether it is anybody's place.
    ///
    /// # Errors
    /// As [`Docket::new`].
    pub fn is_place(&self, place: &str) -> Outcome<bool> {
        let mut statement = self.connection.prepare_cached("SELECT 1 FROM places WHERE place = ?").map_err(failed)?;
        statement.exists([place]).map_err(failed)
    }

    /// Whether the place of an experiment is this one or lies in it.
    ///
    /// # Errors
    /// As [`Docket::new`].
    pub fn holds_experiment(&self, place: &str) -> Outcome<bool> {
        let sql = "SELECT 1 FROM places WHERE (place = ?1 OR (place > ?1 || '/' AND place < ?1 || '0')) AND kind = ?2";
        let mut statement = self.connection.prepare_cached(sql).map_err(failed)?;
        statement.exists([place, Root::Experiment.word()]).map_err(failed)
    }

    /// Somebody else whose place is exactly this one, but for experiments, in which all the others lie.
    ///
    /// # Errors
    /// As [`Docket::new`].
    pub fn owner(&self, place: &str, kind: Root, id: &str) -> Outcome<Option<Owner>> {
        let sql = "SELECT kind, id FROM places WHERE place = ?1 AND kind <> ?4 AND NOT (kind = ?2 AND id = ?3) LIMIT 1";
        let mut statement = self.connection.prepare_cached(sql).map_err(failed)?;
        statement.query_row([place, kind.word(), id, Root::Experiment.word()], owner).optional().map_err(failed)
    }
}
