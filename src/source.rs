//! Opening a store for reading, whatever its engine: what it is, its size, and a source of its rows.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use crate::archive::reader::ArchiveSource;
use crate::archive::{layout, stored};
use crate::domain::address::{StoreAddress, shown};
use crate::domain::catalogue::Catalogue;
use crate::domain::cell::Batch;
use crate::domain::digest::TableDigest;
use crate::domain::failure::{Failure, Outcome};
use crate::domain::identity::{self, Identity, Observed};
use crate::domain::table::Shape;
use crate::engine::cancel::Cancel;
use crate::engine::event::{Event, Events};
use crate::engine::{Part, RowSource};
use crate::store::postgres::connect::Postgres;
use crate::store::postgres::source::PgSource;
use crate::store::sqlite::snapshot::Snapshot;
use crate::store::sqlite::source::SqliteSource;
use crate::store::{postgres, sqlite};

/// A store that is open for reading.
pub struct OpenStore {
    /// Its address, masked.
    pub address: String,
    /// `SQLite`, `PostgreSQL` or `archive`.
    pub engine: &'static str,
    /// The engine's version.
    pub version: String,
    /// Bytes of the database, indexes included.
    pub bytes: u64,
    /// What it is.
    pub identity: Identity,
    /// What an operator should know about it.
    pub notes: Vec<String>,
    /// Its rows, as of one moment.
    pub source: Arc<dyn RowSource>,
    /// Bytes of each table with its indexes, where that costs nothing.
    table_bytes: Vec<(String, u64)>,
    /// The private copy behind the source of a SQLite file.
    pub snapshot: Option<Snapshot>,
    /// The digests that the rows must have, where the store says so itself: an archive does.
    pub proven: Option<Vec<TableDigest>>,
    /// About how many bytes its rows and their indexes take in a database.
    pub room: u64,
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
            StoreAddress::Sqlite(path) if looks_like_archive(path) => open_archive(path, include, opening),
            StoreAddress::Archive(path) => open_archive(path, include, opening),
            StoreAddress::Sqlite(path) => open_sqlite(path, include, opening),
            StoreAddress::Postgres(pg) => {
                let postgres = Postgres::new(pg, opening.id, opening.cancel)?;
                open_postgres(Arc::new(postgres), include).map_err(Failure::as_source)
            }
        }
    }

    /// Those of the shapes that are not MLflow's.
    pub fn foreign(&self, shapes: &[Shape]) -> Vec<Shape> {
        shapes.iter().filter(|s| !self.identity.tables.iter().any(|t| t.name == s.name)).cloned().collect()
    }

    /// Is the database sound? SQLite's `quick_check`; PostgreSQL checks its own pages.
    ///
    /// # Errors
    /// Source: it is damaged.
    pub fn check(&self, cancel: &Cancel) -> Outcome<()> {
        self.snapshot.as_ref().map_or(Ok(()), |snapshot| snapshot.check(cancel))
    }

    /// The statements that made a SQLite file, as they stand in it.
    ///
    /// # Errors
    /// Source: it cannot be read.
    pub fn sqlite_ddl(&self) -> Outcome<Option<String>> {
        self.snapshot.as_ref().map(sqlite::introspect::statements).transpose()
    }

    /// Are these the digests that the store itself says its rows have?
    ///
    /// # Errors
    /// Damaged: they are not.
    pub fn prove(&self, digests: &[TableDigest]) -> Outcome<()> {
        match &self.proven {
            Some(proven) if proven != digests => Err(Failure::damaged(format!(
                "{} is damaged: its rows do not have the digests that its manifest states",
                self.address
            ))
            .hint("use another copy of the archive")),
            _ => Ok(()),
        }
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
        notes: snapshot.notes.clone(),
        source: Arc::new(source),
        table_bytes: Vec::new(),
        proven: None,
        room: snapshot.bytes,
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
        notes: Vec::new(),
        source: Arc::new(source),
        table_bytes: details.table_bytes,
        snapshot: None,
        proven: None,
        room: details.bytes,
    })
}

/// Whether a file that was named as a store is an archive: the first entry's name is at the beginning of a tar.
fn looks_like_archive(path: &Path) -> bool {
    let mut head = [0; layout::ABOUT.len()];
    // A pipe under that name would be waited for.
    path.is_file()
        && File::open(path).and_then(|mut f| f.read_exact(&mut head)).is_ok()
        && head == *layout::ABOUT.as_bytes()
}

/// Rows take more room in a database than their text does: headers of rows, and indexes of about the same size again.
const GROWTH: u64 = 3;

fn open_archive(path: &Path, include: &[String], opening: &Opening<'_>) -> Outcome<OpenStore> {
    opening.events.event(Event::Phase { name: "checking the archive", total: None, unit: "bytes" });
    let (archive, name, bytes) = if path.as_os_str() == "-" {
        let file = stored::spool(&mut std::io::stdin().lock(), opening.work_dir, opening.cancel)?;
        let bytes = file.metadata().map_or(0, |m| m.len());
        let name = "the archive from the pipe".to_owned();
        (ArchiveSource::of(Box::new(file), name.clone(), opening.cancel)?, name, bytes)
    } else {
        (ArchiveSource::open(path, opening.cancel)?, shown(path), path.metadata().map_or(0, |m| m.len()))
    };
    let about = archive.about();
    let tables: Vec<(Shape, bool)> = about.tables.iter().map(|t| (t.shape.clone(), t.foreign)).collect();
    let identity = identity::archived(&about.revisions, &tables, Catalogue::embedded()?).map_err(|f| f.on(&name))?;
    for table in include {
        if !identity.foreign.contains(table) {
            return Err(Failure::usage(format!("--include-table {table}: the table is not in this archive")));
        }
    }
    let mut shapes = identity.shapes.clone();
    shapes.extend(tables.into_iter().filter(|(s, foreign)| *foreign && include.contains(&s.name)).map(|(s, _)| s));
    let digest_of = |shape: &Shape| archive.tables().iter().find(|t| t.name == shape.name).map(|t| t.digest);
    let proven = shapes.iter().filter_map(digest_of).collect();
    Ok(OpenStore {
        address: name,
        engine: "archive",
        version: format!("of {} {}, {}", about.engine, about.version, about.started),
        bytes,
        identity,
        notes: Vec::new(),
        proven: Some(proven),
        room: archive.raw_bytes().saturating_mul(GROWTH),
        source: Arc::new(Chosen { inner: archive, shapes }),
        table_bytes: Vec::new(),
        snapshot: None,
    })
}

/// An archive, of whose tables some were not asked for.
struct Chosen {
    inner: ArchiveSource,
    shapes: Vec<Shape>,
}

impl RowSource for Chosen {
    fn address(&self) -> String {
        self.inner.address()
    }

    fn shapes(&self) -> &[Shape] {
        &self.shapes
    }

    fn rows(&self, shape: &Shape) -> Outcome<u64> {
        self.inner.rows(shape)
    }

    fn parts(&self, shape: &Shape, wanted: usize) -> Outcome<Vec<Part>> {
        self.inner.parts(shape, wanted)
    }

    fn key_parts(&self, shape: &Shape, wanted: usize) -> Outcome<Vec<Part>> {
        self.inner.key_parts(shape, wanted)
    }

    fn read(&self, shape: &Shape, part: Part, each: &mut dyn FnMut(&Batch) -> Outcome<()>) -> Outcome<()> {
        self.inner.read(shape, part, each)
    }
}
