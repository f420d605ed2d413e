//! Policies: what an operator allows to be done about what PostgreSQL cannot hold, and about ids and addresses that have
//! to change on the way. Applied to an open store before anything is copied; what was done is told in the plan and in the
//! certificate.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::part::{self, Chosen};
use crate::domain::amend::{Amendments, ExperimentIds, Rewrite, small_ids};
use crate::domain::catalogue::{Catalogue, TableDef};
use crate::domain::cell::Cell;
use crate::domain::failure::{Failure, Outcome};
use crate::domain::table::{Shape, Type};
use crate::engine::Part;
use crate::engine::amend::Amended;
use crate::engine::copy::{Work, copy};
use crate::engine::event::Event;
use crate::migrate::survey::{AddressForm, Finding, Overlong, Surveyor, Taker, zeros_note};
use crate::newfile::NewFile;
use crate::source::OpenStore;
use crate::store::scratch::Scratch;
use crate::store::sqlite::quarantine::{Aside, Quarantine};
use crate::store::sqlite::sink::SqliteSink;
use crate::store::sqlite::snapshot::{COPY, Snapshot};
use crate::store::sqlite::source::SqliteSource;

/// What an operator allows.
#[derive(Debug, Clone, Default)]
pub struct Policies {
    /// Rows that PostgreSQL cannot hold are put aside, into this file.
    pub quarantine: Option<PathBuf>,
    /// Columns become longer in the target where values need it.
    pub widen: bool,
    /// Experiment ids that do not fit PostgreSQL's integer get new ones.
    pub remap_experiment_ids: bool,
    /// Prefixes of artifact addresses that change.
    pub rewrites: Vec<Rewrite>,
    /// Experiments, by name or id, to which an archive's rows are confined; empty: all.
    pub experiments: Vec<String>,
}

impl Policies {
    /// Whether there is any.
    pub fn any(&self) -> bool {
        self.quarantine.is_some()
            || self.widen
            || self.remap_experiment_ids
            || !self.rewrites.is_empty()
            || !self.experiments.is_empty()
    }
}

/// What the policies came to.
#[derive(Debug, Clone, Default)]
pub struct Applied {
    /// Columns that are longer in the target.
    pub widened: Vec<Widened>,
    /// Old and new ids of experiments.
    pub experiment_ids: ExperimentIds,
    /// How many ids are changed in each place.
    pub ids: BTreeMap<String, u64>,
    /// Prefixes of addresses.
    pub rewrites: Vec<Rewrite>,
    /// Addresses of each form in each place, and how many of them are rewritten; empty where nobody looked.
    pub addresses: BTreeMap<AddressForm, (u64, u64)>,
    /// Rows that are put aside.
    pub aside: Vec<Aside>,
    /// What stays and names a row that is put aside, in words.
    pub dangling: Vec<String>,
    /// The file that they are written to.
    pub quarantine: Option<PathBuf>,
    /// To what the rows were confined.
    pub chosen: Option<Chosen>,
    /// Whether the whole source was looked at.
    pub surveyed: bool,
    /// Sequences that go on after a higher number than the rows have: ids that were put aside are not given again.
    pub taken: BTreeMap<String, i64>,
}

impl Applied {
    /// Rows that are put aside.
    pub fn rows_aside(&self) -> u64 {
        self.aside.iter().map(|a| a.rows).sum()
    }
}

/// A column that is longer in the target than MLflow makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Widened {
    /// What made it necessary.
    pub because: Overlong,
    /// Its limit in the target, in characters.
    pub to: u32,
}

/// What is left to be told and done after the policies were applied to a store.
pub(super) struct Outcomes {
    pub(super) applied: Applied,
    /// What no policy takes care of.
    pub(super) findings: Vec<Finding>,
    pub(super) notes: Vec<String>,
    pub(super) aside: Option<NewFile>,
}

/// Surveys the store and applies the policies: its source then gives the rows as they are to be, its tables are as wide
/// as the rows need.
///
/// # Errors
/// Source: it cannot be read, or is damaged. Refused: the file for rows that are put aside is there. Target: no room.
pub(super) fn apply(
    store: &mut OpenStore,
    shapes: &mut Vec<Shape>,
    policies: &Policies,
    taker: Taker,
    work_dir: &Path,
    work: &Work<'_>,
) -> Outcome<Outcomes> {
    store.check(work.cancel)?;
    let for_postgres = taker == Taker::Postgres;
    let in_a_copy = policies.quarantine.is_some() && for_postgres || !policies.experiments.is_empty();
    if in_a_copy && store.proven.is_some() {
        unpack(store, shapes, work_dir, work)?;
    }
    let chosen = match policies.experiments.as_slice() {
        [] => None,
        experiments => Some(part::choose(store, shapes, experiments)?),
    };
    let amendments = amendments(store, policies)?;
    let quarantine = match (&policies.quarantine, &store.snapshot) {
        (Some(_), Some(snapshot)) if for_postgres => Some(Mutex::new(Quarantine::begin(snapshot)?)),
        _ => None,
    };
    let surveyor = Surveyor {
        store,
        shapes,
        amendments: &amendments,
        taker,
        widen: policies.widen,
        quarantine: quarantine.as_ref(),
        work,
    };
    let survey = surveyor.run()?;
    let mut applied = Applied {
        experiment_ids: amendments.experiment_ids.clone(),
        rewrites: amendments.rewrites().to_vec(),
        ids: survey.ids,
        addresses: survey.addresses,
        chosen,
        surveyed: true,
        ..Applied::default()
    };
    let mut findings = survey.findings;
    let mut notes: Vec<String> = zeros_note(survey.negative_zeros).into_iter().collect();
    if policies.widen {
        for overlong in survey.overlong {
            let widened = widen(store, shapes, overlong);
            notes.extend(narrowed_later(store, &widened));
            applied.widened.push(widened);
        }
    }
    let mut aside = None;
    if let (Some(quarantine), Some(path)) = (quarantine, &policies.quarantine)
        && !findings.is_empty()
    {
        let quarantine = quarantine.into_inner().unwrap_or_else(PoisonError::into_inner);
        // Whole rows, secrets included: for their owner alone.
        let mut file = NewFile::create(path, 0o600)?;
        put_aside(store, shapes, quarantine, &mut file, &mut applied)?;
        notes.extend(applied.dangling.iter().cloned());
        applied.quarantine = Some(path.clone());
        aside = Some(file);
        findings.clear();
    }
    if !amendments.is_empty() {
        store.source = Arc::new(Amended::new(store.source.clone(), amendments));
        // An archive's digests are those of its rows as they are stored, and these are others from here on.
        store.proven = None;
    }
    if !applied.rewrites.is_empty() && applied.addresses.values().all(|(_, rewritten)| *rewritten == 0) {
        notes.push("no address begins with what --rewrite-artifacts names: nothing was rewritten".to_owned());
    }
    if !applied.experiment_ids.is_empty() {
        notes.push(
            "experiments have new ids: links to the old ones and a fixed MLFLOW_EXPERIMENT_ID must follow, and so must \
             permissions in a basic-auth database of its own"
                .to_owned(),
        );
    }
    Ok(Outcomes { applied, findings, notes, aside })
}

/// Turns an archive into a private SQLite file: rows that are to be put aside are found and followed there.
fn unpack(store: &mut OpenStore, shapes: &[Shape], work_dir: &Path, work: &Work<'_>) -> Outcome<()> {
    let folder = Scratch::new("mlops-snapshot-", work_dir)?;
    let rows = shapes.iter().map(|s| store.source.rows(s)).collect::<Outcome<Vec<u64>>>()?;
    work.events.event(Event::Phase { name: "unpacking the archive", total: Some(rows.iter().sum()), unit: "rows" });
    let file = folder.path().join(COPY);
    let sink = SqliteSink::create_lenient(&file, &store.identity.tables, &store.foreign(shapes))?;
    let digests = copy(store.source.as_ref(), &sink, shapes, &rows, work)?;
    store.prove(&digests)?;
    sink.finish_lenient(&store.identity.tables)?;
    sink.publish()?;
    let original = PathBuf::from(&store.address);
    store.source = Arc::new(SqliteSource::new(file, original.clone(), shapes.to_vec()));
    store.snapshot = Some(Snapshot::of_private(folder, original));
    store.proven = None;
    Ok(())
}

/// What is changed in the rows of a store under these policies.
///
/// # Errors
/// Source: its experiments cannot be read.
pub(super) fn amendments(store: &OpenStore, policies: &Policies) -> Outcome<Amendments> {
    let mut ids = Vec::new();
    if policies.remap_experiment_ids
        && let Some(shape) = store.source.shapes().iter().find(|s| s.name == "experiments")
    {
        let position = shape.columns.iter().position(|c| c.name == "experiment_id");
        store.source.read(shape, Part::ALL, &mut |batch| {
            ids.extend(batch.iter().filter_map(|row| match row.get(position?) {
                Some(Cell::Int(id)) => Some(*id),
                _ => None,
            }));
            Ok(())
        })?;
    }
    Ok(Amendments::new(small_ids(ids), policies.rewrites.clone()))
}

/// Marks, writes and removes the rows that PostgreSQL cannot hold, in the private copy.
fn put_aside(
    store: &mut OpenStore,
    shapes: &[Shape],
    quarantine: Quarantine,
    file: &mut NewFile,
    applied: &mut Applied,
) -> Outcome<()> {
    let Some(snapshot) = &store.snapshot else { return Ok(()) };
    let before = shapes.iter().map(|s| store.source.rows(s)).sum::<Outcome<u64>>()?;
    // Connections that read the copy as a file that never changes must be gone before it does.
    store.source = Arc::new(SqliteSource::new(snapshot.path(), snapshot.original().to_owned(), shapes.to_vec()));
    quarantine.open_store()?;
    quarantine.follow(&store.identity.tables)?;
    applied.aside = quarantine.marked()?;
    applied.dangling = quarantine.left_dangling(&store.identity.tables)?;
    let new = applied.experiment_ids.values().max().copied();
    for table in &store.identity.tables {
        for column in &table.columns {
            let Some(sequence) = &column.sequence else { continue };
            let most = if column.kind == Type::Int4 { i64::from(i32::MAX) } else { i64::MAX };
            let highest = quarantine.highest(&table.name, &column.name, most)?;
            let new = new.filter(|_| column.name == "experiment_id");
            if let Some(highest) = highest.into_iter().chain(new).max() {
                applied.taken.insert(sequence.name().to_owned(), highest);
            }
        }
    }
    let mut out = std::io::BufWriter::new(file.file());
    quarantine.write(shapes, &mut out)?;
    std::io::Write::flush(&mut out)
        .map_err(|e| Failure::target(format!("the rows that are put aside cannot be written: {e}")))?;
    drop(out);
    quarantine.remove(shapes)?;
    let after = shapes.iter().map(|s| store.source.rows(s)).sum::<Outcome<u64>>()?;
    let rows = applied.rows_aside();
    if after + rows != before {
        return Err(Failure::internal(format!("of {before} rows {after} would be copied and {rows} put aside")));
    }
    Ok(())
}

/// Makes a column as wide as its longest value, rounded up.
fn widen(store: &mut OpenStore, shapes: &mut [Shape], because: Overlong) -> Widened {
    let to = because.longest.div_ceil(1000).saturating_mul(1000);
    for table in store.identity.tables.iter_mut().filter(|t| t.name == because.table) {
        let mut wide: TableDef = (**table).clone();
        for column in wide.columns.iter_mut().filter(|c| c.name == because.column) {
            column.postgres = format!("character varying({to})");
        }
        *table = Arc::new(wide);
    }
    for shape in shapes.iter_mut().filter(|s| s.name == because.table) {
        let mut wide = (**shape).clone();
        for column in wide.columns.iter_mut().filter(|c| c.name == because.column) {
            column.max_chars = Some(to);
        }
        *shape = Arc::new(wide);
    }
    Widened { because, to }
}

/// A later revision that sets the column's length anew stops at longer values: MLflow's own upgrade would fail.
fn narrowed_later(store: &OpenStore, widened: &Widened) -> Option<String> {
    let Overlong { table, column, limit, longest, .. } = &widened.because;
    let catalogue = Catalogue::embedded().ok()?;
    let revision = store.identity.revisions.iter().find(|r| r.table(table).is_some())?;
    let later = catalogue.history(revision.line).skip_while(|r| r.id != revision.id).skip(1);
    let limit_at = |def: &Arc<TableDef>| def.columns.iter().find(|c| c.name == *column)?.max_chars();
    let mut now = *limit;
    for other in later {
        let next = other.table(table).and_then(limit_at)?;
        if next != now && next < *longest {
            return Some(format!(
                "`mlflow db upgrade` to revision {} ({}) makes `{table}.{column}` {next} characters long, which the \
                 longest value here ({longest}) stops: to go that far, upgrade the SQLite file first and migrate it then",
                other.id,
                other.releases_text(),
            ));
        }
        now = next;
    }
    None
}
