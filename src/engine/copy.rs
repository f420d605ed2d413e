//! `copy`: all rows of a source into a sink, in parallel, digested on the way; and `digest`, the same reading without
//! a sink.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::domain::digest::{RowHasher, TableDigest};
use crate::domain::failure::{Failure, Outcome};
use crate::domain::table::Shape;
use crate::engine::cancel::Cancel;
use crate::engine::event::{Event, Events};
use crate::engine::pool::{self, Weighed};
use crate::engine::{Part, RowSink, RowSource};

/// How the work is done.
pub struct Work<'a> {
    /// Threads at most.
    pub jobs: usize,
    /// Ends it early.
    pub cancel: &'a Cancel,
    /// Hears of it.
    pub events: &'a dyn Events,
}

/// Rows per part: enough parts that all threads end at about the same time, few enough that a part's fixed cost is
/// nothing.
pub const ROWS_A_PART: u64 = 150_000;

/// The number of rows of each table of a source.
///
/// # Errors
/// The source failed.
pub fn count(source: &dyn RowSource, shapes: &[Shape], work: &Work<'_>) -> Outcome<Vec<u64>> {
    pool::run(work.jobs, shapes.iter().collect(), work.cancel, |shape| source.rows(shape))
}

/// Copies `shapes` from `source` to `sink` and returns the digest of what was read, per table. `rows` are the counts
/// that the source gave: a table from which another number of rows was read is an error.
///
/// # Errors
/// The source or the sink failed, a value does not fit, or the interruption.
pub fn copy(
    source: &dyn RowSource,
    sink: &dyn RowSink,
    shapes: &[Shape],
    rows: &[u64],
    work: &Work<'_>,
) -> Outcome<Vec<TableDigest>> {
    let parts = |shape: &Shape, wanted| source.key_parts(shape, wanted);
    each_part(source, shapes, rows, work, parts, |shape, part| copy_part(source, sink, shape, part, work))
}

/// Copies one part of a table and returns the digest of what was read.
///
/// # Errors
/// As [`copy`].
pub fn copy_part(
    source: &dyn RowSource,
    sink: &dyn RowSink,
    shape: &Shape,
    part: Part,
    work: &Work<'_>,
) -> Outcome<TableDigest> {
    let mut hasher = RowHasher::new(&shape.name);
    let mut digest = TableDigest::default();
    let taken = sink.load(shape, part, &mut |writer| {
        source.read(shape, part, &mut |batch| {
            work.cancel.check()?;
            digest.add(hasher.batch(batch));
            writer.write(batch)?;
            work.events.event(Event::Done { table: shape.name.clone(), units: batch.rows() as u64 });
            Ok(())
        })
    })?;
    if taken != digest.rows {
        return Err(Failure::target(format!(
            "`{}`: the target took {taken} rows of {} that were sent",
            shape.name, digest.rows
        )));
    }
    Ok(digest)
}

/// The digest of each table, from the rows as they are stored.
///
/// # Errors
/// The source failed, or the interruption.
pub fn digest(source: &dyn RowSource, shapes: &[Shape], rows: &[u64], work: &Work<'_>) -> Outcome<Vec<TableDigest>> {
    let parts = |shape: &Shape, wanted| source.parts(shape, wanted);
    each_part(source, shapes, rows, work, parts, |shape, part| digest_part(source, shape, part, work))
}

/// The digest of one part of a table.
///
/// # Errors
/// As [`digest`].
pub fn digest_part(source: &dyn RowSource, shape: &Shape, part: Part, work: &Work<'_>) -> Outcome<TableDigest> {
    let mut hasher = RowHasher::new(&shape.name);
    let mut digest = TableDigest::default();
    source.read(shape, part, &mut |batch| {
        work.cancel.check()?;
        digest.add(hasher.batch(batch));
        work.events.event(Event::Done { table: shape.name.clone(), units: batch.rows() as u64 });
        Ok(())
    })?;
    Ok(digest)
}

/// How many parts a table of so many rows is worth.
pub fn wanted_parts(rows: u64) -> usize {
    usize::try_from(rows.div_ceil(ROWS_A_PART)).unwrap_or(1).clamp(1, 256)
}

/// Whether a source gave as many rows as it counts.
///
/// # Errors
/// Source: it did not.
pub fn check_rows(source: &dyn RowSource, shape: &Shape, read: u64, counted: u64) -> Outcome<()> {
    if read == counted {
        return Ok(());
    }
    Err(Failure::source(format!(
        "`{}` of {}: {read} rows were read and the store counts {counted}",
        shape.name,
        source.address(),
    ))
    .hint("the database is damaged (an index that disagrees with its table), or it changed while it was read"))
}

/// Runs `one` on every part of every table, the biggest tables first, and adds up the digests of a table's parts.
fn each_part(
    source: &dyn RowSource,
    shapes: &[Shape],
    rows: &[u64],
    work: &Work<'_>,
    parts: impl Fn(&Shape, usize) -> Outcome<Vec<Part>>,
    one: impl Fn(&Shape, Part) -> Outcome<TableDigest> + Sync,
) -> Outcome<Vec<TableDigest>> {
    let mut tasks: Vec<Weighed<(usize, &Shape, Part)>> = Vec::new();
    for (index, (shape, rows)) in shapes.iter().zip(rows).enumerate() {
        tasks.extend(parts(shape, wanted_parts(*rows))?.into_iter().map(|part| (*rows, (index, shape, part))));
    }
    let untold: Vec<AtomicBool> = rows.iter().map(|rows| AtomicBool::new(*rows > 0)).collect();
    let digests = Mutex::new(vec![TableDigest::default(); shapes.len()]);
    pool::flow(work.jobs, tasks, work.cancel, |(index, shape, part)| {
        // Whichever part of a table is first tells of the table.
        if let (Some(untold), Some(total)) = (untold.get(index), rows.get(index))
            && untold.swap(false, Ordering::Relaxed)
        {
            work.events.event(Event::Table { table: shape.name.clone(), total: *total });
        }
        let digest = one(shape, part)?;
        if let Some(sum) = digests.lock().unwrap_or_else(PoisonError::into_inner).get_mut(index) {
            sum.add(digest);
        }
        Ok(Vec::new())
    })?;
    let digests = digests.into_inner().unwrap_or_else(PoisonError::into_inner);
    for ((shape, digest), rows) in shapes.iter().zip(&digests).zip(rows) {
        check_rows(source, shape, digest.rows, *rows)?;
    }
    Ok(digests)
}
