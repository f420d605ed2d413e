//! A part of a store: some of its experiments with all that belongs to them, and of the registry what came from them.

use std::sync::Arc;

use crate::domain::catalogue::TableDef;
use crate::domain::failure::{Failure, Outcome};
use crate::domain::table::Shape;
use crate::engine::copy::{Work, count};
use crate::migrate::plan::Prepared;
use crate::source::OpenStore;
use crate::store::sqlite::quarantine::Quarantine;
use crate::store::sqlite::snapshot::Snapshot;
use crate::store::sqlite::source::SqliteSource;

/// What was chosen of a store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chosen {
    /// The experiments, by name.
    pub experiments: Vec<String>,
    /// Rows that are not of them.
    pub rows_left_out: u64,
}

/// Lets `work_on` change the private copy of a store that is about to be copied, and counts its rows anew.
///
/// # Errors
/// As `work_on`. Internal: the store has no private copy.
pub fn cut(
    prepared: &mut Prepared,
    work: &Work<'_>,
    work_on: impl FnOnce(&Snapshot, &[Arc<TableDef>], &[Shape]) -> Outcome<()>,
) -> Outcome<()> {
    let (store, shapes) = (&mut prepared.store, &prepared.shapes);
    let Some(snapshot) = &store.snapshot else {
        return Err(Failure::internal("only a private copy can be cut"));
    };
    // Connections that read the copy as a file that never changes must be gone before it does.
    store.source = Arc::new(SqliteSource::new(snapshot.path(), snapshot.original().to_owned(), shapes.clone()));
    work_on(snapshot, &store.identity.tables, shapes)?;
    store.proven = None;
    let rows = count(store.source.as_ref(), shapes, work)?;
    prepared.plan.tables = shapes.iter().map(|s| s.name.clone()).zip(rows).collect();
    Ok(())
}

/// Takes everything else out of the private copy of a store.
///
/// # Errors
/// Usage: an experiment that is not there. Source: SQLite could not read it. Target: the work folder is full.
pub(super) fn choose(store: &mut OpenStore, shapes: &[Shape], experiments: &[String]) -> Outcome<Chosen> {
    let Some(snapshot) = &store.snapshot else {
        return Err(Failure::internal("experiments can be chosen in a private copy only"));
    };
    let before = shapes.iter().map(|s| store.source.rows(s)).sum::<Outcome<u64>>()?;
    let marks = Quarantine::begin(snapshot)?;
    // Connections that read the copy as a file that never changes must be gone before it does.
    store.source = Arc::new(SqliteSource::new(snapshot.path(), snapshot.original().to_owned(), shapes.to_vec()));
    marks.open_store()?;
    let names = marks.mark_other_experiments(experiments)?;
    marks.follow_references(&store.identity.tables)?;
    marks.mark_versions_of_marked_runs(&store.identity.tables)?;
    marks.follow_references(&store.identity.tables)?;
    marks.remove(shapes)?;
    let after = shapes.iter().map(|s| store.source.rows(s)).sum::<Outcome<u64>>()?;
    store.proven = None;
    Ok(Chosen { experiments: names, rows_left_out: before.saturating_sub(after) })
}
