//! A sample MLflow store to try everything on: realistic, always equal, of any size.

mod chance;
mod experiment;
mod metric;
mod model;
mod project;
mod registry;
mod row;
mod run;
mod sample;
mod span;
mod stack;
mod trace;

pub use sample::{Sample, Size};

use std::path::Path;
use std::time::{Duration, Instant};

use crate::domain::failure::Outcome;
use crate::engine::RowSource;
use crate::engine::copy::{Work, copy, count};
use crate::engine::event::Event;
use crate::migrate::outcome::Migrated;
use crate::store::sqlite::sink::SqliteSink;

/// What a demonstration did.
pub struct Shown {
    /// Rows of the sample.
    pub rows: u64,
    /// Bytes of its file.
    pub bytes: u64,
    /// How long it took to write.
    pub took: Duration,
    /// Its migration.
    pub migrated: Option<Migrated>,
    /// What a person should know: where things are, what was left out.
    pub remarks: Vec<String>,
}

/// Writes the sample into a new SQLite file and returns its number of rows.
///
/// # Errors
/// Target: the file is there already or cannot be written.
pub fn write(path: &Path, size: Size, work: &Work<'_>) -> Outcome<Shown> {
    let begun = Instant::now();
    let sample = Sample::new(size)?;
    let shapes = sample.shapes().to_vec();
    let rows = count(&sample, &shapes, work)?;
    let total = rows.iter().sum();
    work.events.event(Event::Phase { name: "writing the sample", total: Some(total), unit: "rows" });
    let sink = SqliteSink::create(path, sample.tables(), &[])?;
    copy(&sample, &sink, &shapes, &rows, work)?;
    work.events.event(Event::Phase { name: "indexing the sample", total: None, unit: "" });
    sink.finish_schema(sample.tables())?;
    sink.publish()?;
    let bytes = path.metadata().map_or(0, |m| m.len());
    Ok(Shown { rows: total, bytes, took: begun.elapsed(), migrated: None, remarks: Vec::new() })
}
