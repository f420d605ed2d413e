//! A stage is filled, indexed and read back as one flow: as soon as a table's rows are in, its indexes are built and its
//! rows are read back for the verification, side by side and beside the loading of other tables.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::domain::ddl::{PostData, Statement};
use crate::domain::digest::TableDigest;
use crate::domain::failure::{Failure, Outcome};
use crate::domain::table::Shape;
use crate::engine::copy::{Work, check_rows, copy_part, digest_part, wanted_parts};
use crate::engine::event::{Event, Events};
use crate::engine::pool::{self, Weighed};
use crate::engine::{Part, RowSource};
use crate::source::OpenStore;
use crate::store::postgres::connect::Postgres;
use crate::store::postgres::source::PgSource;
use crate::store::postgres::stage::Stage;

/// Below this many threads a table is loaded by one of them: the server's session and this process work in parallel
/// anyway, the rows arrive in the source's order, and they can be frozen.
const THREADS_TO_SPLIT: usize = 4;

/// What is moved into which stage.
pub(super) struct Pipeline<'a> {
    pub(super) store: &'a OpenStore,
    pub(super) stage: &'a Stage<'a>,
    pub(super) postgres: &'a Arc<Postgres>,
    pub(super) shapes: &'a [Shape],
    /// Rows of each table, as the source counts them.
    pub(super) rows: &'a [u64],
    pub(super) post: &'a PostData,
    /// Whether rows are read back.
    pub(super) verify: bool,
    pub(super) work: &'a Work<'a>,
}

enum Task<'a> {
    /// The source's own check for damage.
    Check,
    Load(usize, Part),
    Index(&'a Statement, usize),
    /// Statistics, as soon as nothing is built over the table any more.
    Statistics(usize),
    ReadBack(usize, Part),
}

/// The state of one table.
#[derive(Default)]
struct Table {
    loads_left: usize,
    indexes_left: usize,
    source: TableDigest,
    target: TableDigest,
}

/// Turns rows that were gone over into rows that are done: each is loaded, indexed several times and read back, and what
/// an operator wants to see are the table's rows.
struct Passes<'a> {
    inner: &'a dyn Events,
    /// Of each table: how often its rows are gone over, how many were, how many rows were told as done.
    tables: Mutex<BTreeMap<&'a str, (u64, u64, u64)>>,
}

impl Events for Passes<'_> {
    fn event(&self, event: Event) {
        let Event::Done { table, units } = event else { return self.inner.event(event) };
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((passes, gone_over, told)) = tables.get_mut(table.as_str()) else { return };
        *gone_over += units;
        let units = *gone_over / *passes - *told;
        *told += units;
        drop(tables);
        if units > 0 {
            self.inner.event(Event::Done { table, units });
        }
    }
}

/// The digests of what was read from the source and, with verification, from the target.
pub(super) struct Loaded {
    pub(super) sources: Vec<TableDigest>,
    pub(super) targets: Option<Vec<TableDigest>>,
}

impl Pipeline<'_> {
    /// Runs the flow to its end.
    ///
    /// # Errors
    /// Source: damaged, or a value that the target cannot hold. Target: the database failed. Interrupted.
    pub(super) fn run(&self) -> Outcome<Loaded> {
        let back = PgSource::of_stage(self.postgres.clone(), self.stage.name(), self.shapes.to_vec());
        let mut tasks: Vec<Weighed<Task<'_>>> = vec![(0, Task::Check)];
        let mut state: Vec<Table> = Vec::new();
        let name = if self.verify { "copying, indexing, verifying" } else { "copying and indexing" };
        let total = self.rows.iter().sum();
        self.work.events.event(Event::Phase { name, total: Some(total), unit: "rows" });
        for (index, (shape, rows)) in self.shapes.iter().zip(self.rows).enumerate() {
            let wanted = if self.work.jobs < THREADS_TO_SPLIT { 1 } else { wanted_parts(*rows) };
            let parts = if *rows == 0 { Vec::new() } else { self.store.source.key_parts(shape, wanted)? };
            let indexes = self.indexes(index, shape, *rows);
            state.push(Table { loads_left: parts.len(), indexes_left: indexes.len(), ..Table::default() });
            if parts.is_empty() {
                tasks.extend(indexes);
            }
            tasks.extend(parts.into_iter().map(|part| (LOADS_FIRST + rows, Task::Load(index, part))));
        }
        let passes = self.shapes.iter().map(|shape| (shape.name.as_str(), (self.passes(shape), 0, 0))).collect();
        let events = Passes { inner: self.work.events, tables: Mutex::new(passes) };
        let work = Work { jobs: self.work.jobs, cancel: self.work.cancel, events: &events };
        let state = Mutex::new(state);
        let lock = || -> MutexGuard<'_, Vec<Table>> { state.lock().unwrap_or_else(PoisonError::into_inner) };
        pool::flow(self.work.jobs, tasks, self.work.cancel, |task| match task {
            Task::Check => self.store.check(self.work.cancel).map(|()| Vec::new()),
            Task::Load(index, part) => {
                let (shape, rows) = self.table(index)?;
                if part.from.is_none() {
                    work.events.event(Event::Table { table: shape.name.clone(), total: rows });
                }
                let digest = copy_part(self.store.source.as_ref(), self.stage, shape, part, &work)?;
                let mut state = lock();
                let table = state.get_mut(index).ok_or_else(lost)?;
                table.source.add(digest);
                table.loads_left -= 1;
                let (ready, read) = (table.loads_left == 0, table.source.rows);
                drop(state);
                if ready { self.loaded(index, shape, rows, read, &back) } else { Ok(Vec::new()) }
            }
            Task::Index(statement, index) => {
                self.stage.make(statement)?;
                let (_, units) = self.table(index)?;
                work.events.event(Event::Done { table: statement.table.clone(), units });
                let mut state = lock();
                let table = state.get_mut(index).ok_or_else(lost)?;
                table.indexes_left -= 1;
                Ok(if table.indexes_left == 0 && units > 0 {
                    vec![(units, Task::Statistics(index))]
                } else {
                    Vec::new()
                })
            }
            Task::Statistics(index) => {
                let (shape, _) = self.table(index)?;
                self.stage.analyze(shape)?;
                Ok(Vec::new())
            }
            Task::ReadBack(index, part) => {
                let (shape, _) = self.table(index)?;
                let digest = digest_part(&back, shape, part, &work).map_err(Failure::as_target)?;
                if let Some(table) = lock().get_mut(index) {
                    table.target.add(digest);
                }
                Ok(Vec::new())
            }
        })?;
        let state = state.into_inner().unwrap_or_else(PoisonError::into_inner);
        let targets = self.verify.then(|| state.iter().map(|t| t.target).collect());
        Ok(Loaded { sources: state.iter().map(|t| t.source).collect(), targets })
    }

    fn table(&self, index: usize) -> Outcome<(&Shape, u64)> {
        self.shapes.get(index).zip(self.rows.get(index).copied()).ok_or_else(lost)
    }

    /// What comes after the last load of a table.
    fn loaded(
        &self,
        index: usize,
        shape: &Shape,
        rows: u64,
        read: u64,
        back: &PgSource,
    ) -> Outcome<Vec<Weighed<Task<'_>>>> {
        check_rows(self.store.source.as_ref(), shape, read, rows)?;
        let mut tasks = self.indexes(index, shape, rows);
        if tasks.is_empty() {
            tasks.push((rows, Task::Statistics(index)));
        }
        if self.verify {
            let parts = back.parts(shape, wanted_parts(rows)).map_err(Failure::as_target)?;
            tasks.extend(parts.into_iter().map(|part| (1, Task::ReadBack(index, part))));
        }
        Ok(tasks)
    }

    /// The indexes of a table, those with most columns first: they take longest.
    fn indexes(&self, table: usize, shape: &Shape, rows: u64) -> Vec<Weighed<Task<'_>>> {
        let of_table = self.post.indexes.iter().filter(|i| i.table == shape.name);
        let weight = |index: &Statement| rows.saturating_mul(index.columns).min(LOADS_FIRST - 1);
        of_table.map(|index| (weight(index), Task::Index(index, table))).collect()
    }

    /// How often the rows of a table are gone over: loaded, by every index, and read back.
    fn passes(&self, shape: &Shape) -> u64 {
        let indexes = self.post.indexes.iter().filter(|i| i.table == shape.name).count() as u64;
        1 + indexes + u64::from(self.verify)
    }
}

/// Weights above this are loads: nothing else is begun while a load waits.
const LOADS_FIRST: u64 = 1 << 60;

fn lost() -> Failure {
    Failure::internal("a table of the plan was lost")
}
