//! A source whose rows are changed on their way as an operator asked for. What is copied from it and what a target is
//! compared with are thus the same rows.

use std::sync::Arc;

use crate::domain::amend::{Amendments, TableAmendments};
use crate::domain::cell::Batch;
use crate::domain::failure::Outcome;
use crate::domain::table::Shape;
use crate::engine::{Part, RowSource};

/// Another source with amendments.
pub struct Amended {
    inner: Arc<dyn RowSource>,
    amendments: Amendments,
}

impl Amended {
    /// The rows of `inner`, amended.
    pub fn new(inner: Arc<dyn RowSource>, amendments: Amendments) -> Self {
        Amended { inner, amendments }
    }
}

impl RowSource for Amended {
    fn address(&self) -> String {
        self.inner.address()
    }

    fn shapes(&self) -> &[Shape] {
        self.inner.shapes()
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
        let Some(table) = TableAmendments::of(&self.amendments, shape) else {
            return self.inner.read(shape, part, each);
        };
        let mut out = Batch::new(shape.clone());
        self.inner.read(shape, part, &mut |batch| {
            for row in batch.iter() {
                table.row(batch, row, &mut out, &mut |_| {});
            }
            each(&out)?;
            out.clear();
            Ok(())
        })
    }
}
