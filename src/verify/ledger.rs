//! A database as of one moment: what it is, and the digest of every table.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::domain::address::StoreAddress;
use crate::domain::cell::Cell;
use crate::domain::digest::{RowHasher, TableDigest};
use crate::domain::failure::{Failure, Outcome};
use crate::domain::table::Shape;
use crate::domain::verify::ledger::{Heaps, Ledger, OWNERS, Table, put};
use crate::engine::copy::{Work, wanted_parts};
use crate::engine::event::Event;
use crate::engine::{Part, pool};
use crate::source::{OpenStore, Opening};
use crate::store::postgres::connect::Postgres;
use crate::store::postgres::monitor;

/// Tables that say which revision a database has; an upgrade writes them and nothing else does.
const REVISIONS: [&str; 2] = ["alembic_version", "alembic_version_auth"];

/// A reading, and the store that it is of: a private copy of a SQLite file, so that rows can be named later.
pub(super) struct Reading {
    /// What was read.
    pub ledger: Ledger,
    /// Those of the experiments that were asked for that are in it.
    pub held: Vec<String>,
    /// The copy; `None` for a database that is not copied.
    pub copy: Option<OpenStore>,
}

/// Reads a database. `like`: an earlier reading, over whose columns the tables are digested. `experiments`: names that are
/// looked for.
///
/// # Errors
/// Source: it cannot be read, or is no sound store of MLflow's. Usage: an archive. Interrupted.
pub(super) fn read(
    address: &StoreAddress,
    like: Option<&Ledger>,
    experiments: &[String],
    opening: &Opening<'_>,
    work: &Work<'_>,
) -> Outcome<Reading> {
    if matches!(address, StoreAddress::Archive(_)) {
        return Err(Failure::usage("an archive is not the database of a server"));
    }
    let store = OpenStore::open(address, &[], opening)?;
    let shapes: Vec<&Shape> = store.source.shapes().iter().filter(|s| !REVISIONS.contains(&s.name.as_str())).collect();
    work.events.event(Event::Phase { name: "reading the database", total: None, unit: "rows" });
    let mut tasks = Vec::new();
    for shape in shapes {
        let earlier = like.and_then(|ledger| ledger.tables.iter().find(|t| t.name == shape.name));
        let at = |name: &str| shape.columns.iter().position(|c| c.name == name);
        let names: Vec<String> = match earlier {
            Some(table) => table.columns.clone(),
            None => shape.columns.iter().map(|c| c.name.clone()).collect(),
        };
        let (there, gone): (Vec<String>, Vec<String>) = names.into_iter().partition(|name| at(name).is_some());
        let places: Vec<usize> = there.iter().filter_map(|name| at(name)).collect();
        tasks.push((shape, there, gone, places));
    }
    let read = pool::run(work.jobs, tasks, work.cancel, |(shape, columns, gone, places)| {
        let (digest, heaps, held) = one(&store, shape, &places, experiments, work)?;
        let digest_text = digest.to_string();
        Ok((Table { name: shape.name.clone(), rows: digest.rows, digest: digest_text, columns, heaps, gone }, held))
    })?;
    let (tables, held): (Vec<Table>, Vec<Vec<String>>) = read.into_iter().unzip();
    let ledger = Ledger {
        address: store.address.clone(),
        engine: store.engine.to_owned(),
        version: store.version.clone(),
        revision: store.identity.revision_text(),
        identity: identity(address, opening)?,
        tables,
    };
    let copy = matches!(address, StoreAddress::Sqlite(_)).then_some(store);
    Ok(Reading { ledger, held: held.into_iter().flatten().collect(), copy })
}

/// The digest of a table over some of its columns, of its heaps too, and the experiments in it that were asked for.
fn one(
    store: &OpenStore,
    shape: &Shape,
    places: &[usize],
    experiments: &[String],
    work: &Work<'_>,
) -> Outcome<(TableDigest, Heaps, Vec<String>)> {
    let named = (shape.name == "experiments").then(|| shape.columns.iter().position(|c| c.name == "name")).flatten();
    let column = |name: &str| shape.columns.iter().position(|c| c.name == name);
    let owner = OWNERS.iter().find_map(|name| column(name)).or_else(|| shape.key.first().copied());
    let (mut digest, mut heaps, mut held) = (TableDigest::default(), Heaps::new(), Vec::new());
    let mut hasher = RowHasher::new(&shape.name);
    let rows = store.source.rows(shape)?;
    let parts: Vec<Part> = store.source.parts(shape, wanted_parts(rows))?;
    for part in parts {
        store.source.read(shape, part, &mut |batch| {
            work.cancel.check()?;
            for row in batch.iter() {
                let sum = hasher.cells(batch, places.iter().filter_map(|place| row.get(*place)));
                digest.add(TableDigest { rows: 1, sum });
                let owner =
                    owner.and_then(|place| row.get(place)).map(|cell| hasher.cells(batch, std::iter::once(cell)));
                put(&mut heaps, owner.unwrap_or_default(), sum);
                if let Some(Cell::Text(name)) = named.and_then(|place| row.get(place)) {
                    let name = String::from_utf8_lossy(batch.bytes(*name));
                    held.extend(experiments.iter().find(|e| **e == name).cloned());
                }
            }
            work.events.event(Event::Done { table: shape.name.clone(), units: batch.rows() as u64 });
            Ok(())
        })?;
    }
    crate::engine::copy::check_rows(store.source.as_ref(), shape, digest.rows, rows)?;
    Ok((digest, heaps, held))
}

/// What makes it this database and no other.
fn identity(address: &StoreAddress, opening: &Opening<'_>) -> Outcome<Vec<(String, String)>> {
    let pair = |name: &str, value: String| (name.to_owned(), value);
    match address {
        StoreAddress::Sqlite(path) | StoreAddress::Archive(path) => file(path),
        StoreAddress::Postgres(pg) => {
            let mut client = Postgres::new(pg, opening.id, opening.cancel)?.connect().map_err(Failure::as_source)?;
            let stand = monitor::identity(&mut client)?;
            let mut all = vec![pair("database", stand.database), pair("oid", stand.oid.to_string())];
            all.extend(stand.system.map(|system| pair("system", system)));
            Ok(all)
        }
    }
}

fn file(path: &Path) -> Outcome<Vec<(String, String)>> {
    let name = crate::domain::address::shown(path);
    let real = std::fs::canonicalize(path).map_err(|e| Failure::source(format!("{name}: {e}")))?;
    let metadata = std::fs::metadata(&real).map_err(|e| Failure::source(format!("{name}: {e}")))?;
    Ok(vec![
        ("file".to_owned(), crate::domain::address::shown(&real)),
        ("device".to_owned(), metadata.dev().to_string()),
        ("inode".to_owned(), metadata.ino().to_string()),
    ])
}
