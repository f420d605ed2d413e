//! The engine: `copy` and `compare` over any source and sink. It knows the domain and the traits of this file, not
//! what is behind them.

pub mod amend;
pub mod cancel;
pub mod compare;
pub mod copy;
pub mod event;
pub mod patience;
pub mod pool;
pub mod purge;

use crate::domain::cell::Batch;
use crate::domain::failure::Outcome;
use crate::domain::table::Shape;

/// A range of a table's rows in the source's own coordinate (SQLite: rowid, or the number of a key; PostgreSQL: block of
/// the heap; archive: piece), from `from` to before `to`; `None` on a side: no limit there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// First coordinate.
    pub from: Option<i64>,
    /// First coordinate after the part.
    pub to: Option<i64>,
    /// Whether the rows come in the order of the table's key.
    pub by_key: bool,
}

impl Part {
    /// The whole table.
    pub const ALL: Part = Part { from: None, to: None, by_key: false };

    /// A range in the order that the rows are stored in.
    pub fn range(from: Option<i64>, to: Option<i64>) -> Part {
        Part { from, to, by_key: false }
    }

    /// Whether this is the whole table.
    pub fn is_whole(&self) -> bool {
        self.from.is_none() && self.to.is_none()
    }
}

/// A store that rows come from.
///
/// Contract: what is read is one consistent moment of the store, the same for every call and every thread, however
/// long the reading takes. `parts` of a table are disjoint and cover it whole. `read` hands on each row of its part
/// exactly once, in batches of bounded size; it stops at the first error of `each` and returns that error. Memory
/// does not grow with the table. A value is handed on as its column's type where that loses nothing, else as what
/// the store holds.
pub trait RowSource: Send + Sync {
    /// The store's address for messages, without a secret.
    fn address(&self) -> String;

    /// The tables it has rows of.
    fn shapes(&self) -> &[Shape];

    /// The number of rows, asked of the store itself and not derived from reading.
    ///
    /// # Errors
    /// The store failed.
    fn rows(&self, shape: &Shape) -> Outcome<u64>;

    /// Disjoint parts that cover the table: about `wanted` of them, fewer where it is small.
    ///
    /// # Errors
    /// The store failed.
    fn parts(&self, shape: &Shape, wanted: usize) -> Outcome<Vec<Part>>;

    /// The same for whoever builds the table's key over the rows: parts that follow each other in the order of the key,
    /// and so do the rows in each, where the source can do that at no cost. Else as [`RowSource::parts`].
    ///
    /// # Errors
    /// The store failed.
    fn key_parts(&self, shape: &Shape, wanted: usize) -> Outcome<Vec<Part>> {
        self.parts(shape, wanted)
    }

    /// Reads a part.
    ///
    /// # Errors
    /// The store failed, or `each` did.
    fn read(&self, shape: &Shape, part: Part, each: &mut dyn FnMut(&Batch) -> Outcome<()>) -> Outcome<()>;
}

/// A place that rows go to.
///
/// Contract: several loads of one table may run at once, on different threads, unless the part is the
/// whole table, which says that this load is its only one. Nothing that is loaded is seen by the
/// target's users before the sink's own publishing step, which is not part of this trait: a sink that is dropped
/// before it leaves its target as it was.
pub trait RowSink: Sync {
    /// Loads rows of that shape: `fill` is called once and hands batches to the writer it is given. When this returns,
    /// the target has all of them; the result is the number that the target says it took. An error of `fill` ends the
    /// load, and none of its rows stay.
    ///
    /// # Errors
    /// Source: a value that the target cannot hold, named with table, column and key. Target: the target failed.
    /// Else what `fill` failed with.
    fn load(&self, shape: &Shape, part: Part, fill: &mut dyn FnMut(&mut dyn RowWriter) -> Outcome<()>) -> Outcome<u64>;
}

/// Takes the rows of one load.
pub trait RowWriter {
    /// Takes a batch. When this returns, the rows may still be in a buffer.
    ///
    /// # Errors
    /// As [`RowSink::load`].
    fn write(&mut self, batch: &Batch) -> Outcome<()>;
}
