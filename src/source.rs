//! Opening a store for reading, whatever its engine: what it is, its size, and a source of its rows.

use std::path::Path;
use std::sync::Arc;

use crate::domain::address::{StoreAddress, shown};
use crate::domain::catalogue::Catalogue;
use crate::domain::failure::{Failure, Outcome};
use crate::domain::identity::{self, Identity, Observed};
use crate::domain::table::Shape;
use crate::engine::RowSource;
use crate::engine::cancel::Cancel;
use crate::engine::event::Events;
use crate::store::postgres::connect::Postgres;
use crate::store::postgres::source::PgSource;
use crate::store::sqlite::snapshot::Snapshot;
use crate::store::sqlite::source::SqliteSource;
use crate::store::{postgres, sqlite};

/// A store that is open for reading.
pub struct OpenStore {
    /// Its address, masked.
    pub address: String,
    /// `SQLite` or `PostgreSQL`.
    pub engine: &'static str,
    /// The engine's version.
    pub version: String,
    /// Bytes of the database, indexes included.
    pub bytes: u64,
    /// What it is.
    pub identity: Identity,
    /// What was seen of its schema.
    pub observed: Observed,
    /// What an operator should know about it.
    pub notes: Vec<String>,
    /// Its rows, as of one moment.
    pub source: Arc<dyn RowSource>,
    /// Bytes of each table with its indexes, where that costs nothing.
    table_bytes: Vec<(String, u64)>,
    /// The private copy behind the source of a SQLite file.
    pub snapshot: Option<Snapshot>,
}

/// What opening needs beside the address.
pub struct Opening<'a> {
    /// Where a private copy of a SQLite file goes.
    pub work_dir: &'a Path,
    /// The id of this run.
    pub id: &'a str,
    /// Ends it early.
    pub cancel: &'a Cancel,
    /// Hears of it.
    pub events: &'a dyn Events,
}

impl OpenStore {
    /// Opens the store and finds out what it is. Tables that MLflow does not own may be added to its source by `include`.
    /// Whether a file is damaged is for [`OpenStore::check`], because that takes long and can go on beside other work.
    ///
    /// # Errors
    /// Source: it cannot be opened, or is no sound MLflow store.
    pub fn open(address: &StoreAddress, include: &[String], opening: &Opening<'_>) -> Outcome<OpenStore> {
        match address {
            StoreAddress::Sqlite(path) => open_sqlite(path, include, opening),
            StoreAddress::Postgres(pg) => {
                let postgres = Postgres::new(pg, opening.id, opening.cancel)?;
                open_postgres(Arc::new(postgres), include).map_err(Failure::as_source)
            }
        }
    }
}

impl OpenStore {
    /// Is the database sound? SQLite's `quick_check`; PostgreSQL checks its own pages.
    ///
    /// # Errors
    /// Source: it is damaged.
    pub fn check(&self, cancel: &Cancel) -> Outcome<()> {
        self.snapshot.as_ref().map_or(Ok(()), |snapshot| snapshot.check(cancel))
    }

    /// Bytes of each table with its indexes.
    ///
    /// # Errors
    /// Source: it cannot be read.
    pub fn table_bytes(&self) -> Outcome<Vec<(String, u64)>> {
        match &self.snapshot {
            Some(snapshot) => sqlite::introspect::table_bytes(snapshot),
            None => Ok(self.table_bytes.clone()),
        }
    }
}

/// The shapes of the foreign tables that were asked for.
fn included(include: &[String], identity: &Identity, observed: &Observed) -> Outcome<Vec<Shape>> {
    let mut shapes = Vec::new();
    for name in include {
        if !identity.foreign.contains(name) {
            let word = if identity.tables.iter().any(|t| t.name == *name) {
                "is one of MLflow's own tables, which are always copied"
            } else {
                "is not in this store"
            };
            return Err(Failure::usage(format!("--include-table {name}: the table {word}")));
        }
        if let Some(table) = observed.tables.iter().find(|t| t.name == *name) {
            shapes.push(Arc::new(identity::foreign_shape(table, observed.sqlite)?));
        }
    }
    Ok(shapes)
}

fn open_sqlite(path: &Path, include: &[String], opening: &Opening<'_>) -> Outcome<OpenStore> {
    let snapshot = Snapshot::take(path, opening.work_dir, opening.cancel, opening.events)?;
    let observed = sqlite::introspect::observe(&snapshot)?;
    let identity = identity::identify(&observed, Catalogue::embedded()?).map_err(|f| f.on(shown(path)))?;
    let mut shapes = identity.shapes.clone();
    shapes.extend(included(include, &identity, &observed)?);
    let source = SqliteSource::new(snapshot.path(), path.to_owned(), shapes);
    Ok(OpenStore {
        address: shown(path),
        engine: "SQLite",
        version: rusqlite::version().to_owned(),
        bytes: snapshot.bytes,
        identity,
        observed,
        notes: snapshot.notes.clone(),
        source: Arc::new(source),
        table_bytes: Vec::new(),
        snapshot: Some(snapshot),
    })
}

fn open_postgres(postgres: Arc<Postgres>, include: &[String]) -> Outcome<OpenStore> {
    let address = postgres.address();
    let details = postgres::introspect::details(&postgres)?;
    let identity = identity::identify(&details.observed, Catalogue::embedded()?).map_err(|f| f.on(&address))?;
    let mut shapes = identity.shapes.clone();
    shapes.extend(included(include, &identity, &details.observed)?);
    let source = PgSource::new(postgres, &details.schema, shapes)?;
    Ok(OpenStore {
        address,
        engine: "PostgreSQL",
        version: details.version,
        bytes: details.bytes,
        identity,
        observed: details.observed,
        notes: Vec::new(),
        source: Arc::new(source),
        table_bytes: details.table_bytes,
        snapshot: None,
    })
}
