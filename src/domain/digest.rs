//! The digest of a table: its row count and an order-independent sum over its rows, equal for the same rows in
//! SQLite, PostgreSQL and an archive.
//!
//! A row counts with the first 16 bytes of the SHA-256 of (encoding version, table name, then per cell a type tag,
//! a 64-bit length and the bytes), read as a big-endian number; a table is the sum modulo 2^128. The sum does not
//! depend on the order in which rows are read, so tables are read in parallel parts and the parts are added up.

use std::fmt;

use sha2::{Digest as _, Sha256};

use crate::domain::cell::{Batch, Cell, canonical_number};

/// Goes into each row's hash, so that digests of different encodings never look alike.
pub const ENCODING: u8 = 1;

/// The digest of a table or of a part of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TableDigest {
    /// Rows counted.
    pub rows: u64,
    /// The sum of the rows' hashes modulo 2^128.
    pub sum: u128,
}

impl TableDigest {
    /// Adds a disjoint part of the same table.
    pub fn add(&mut self, other: TableDigest) {
        self.rows += other.rows;
        self.sum = self.sum.wrapping_add(other.sum);
    }
}

impl fmt::Display for TableDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.sum)
    }
}

/// Hashes rows; keeps its scratch memory between rows.
#[derive(Debug)]
pub struct RowHasher {
    prefix: usize,
    scratch: Vec<u8>,
}

impl RowHasher {
    /// A hasher for rows of that table.
    pub fn new(table: &str) -> Self {
        let mut scratch = vec![ENCODING];
        put(&mut scratch, b'T', table.as_bytes());
        RowHasher { prefix: scratch.len(), scratch }
    }

    /// The hash of one row.
    pub fn row(&mut self, batch: &Batch, row: &[Cell]) -> u128 {
        self.cells(batch, row.iter())
    }

    /// The hash of the given cells of one row: its key, say.
    pub fn cells<'a>(&mut self, batch: &Batch, cells: impl Iterator<Item = &'a Cell>) -> u128 {
        self.scratch.truncate(self.prefix);
        for cell in cells {
            encode(&mut self.scratch, batch, *cell);
        }
        let hash = Sha256::digest(&self.scratch);
        let mut first = [0u8; 16];
        first.copy_from_slice(hash.first_chunk::<16>().unwrap_or(&[0; 16]));
        self.scratch.shrink_to(1 << 20);
        u128::from_be_bytes(first)
    }

    /// The digest of all rows of a batch.
    pub fn batch(&mut self, batch: &Batch) -> TableDigest {
        let mut digest = TableDigest::default();
        for row in batch.iter() {
            digest.add(TableDigest { rows: 1, sum: self.row(batch, row) });
        }
        digest
    }
}

fn put(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    out.push(tag);
    out.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
    out.extend_from_slice(bytes);
}

/// The unambiguous encoding of one cell: type tag, length, bytes.
pub fn encode(out: &mut Vec<u8>, batch: &Batch, cell: Cell) {
    match cell {
        Cell::Null => put(out, b'0', &[]),
        Cell::Int(v) => put(out, b'i', &v.to_be_bytes()),
        Cell::Float(v) => put(out, b'f', &float_bits(v).to_be_bytes()),
        Cell::Bool(v) => put(out, b'b', &[u8::from(v)]),
        Cell::Text(s) => put(out, b't', batch.bytes(s)),
        Cell::Bytes(s) => put(out, b'y', batch.bytes(s)),
        Cell::Json(s) => match canonical_number(batch.bytes(s)) {
            Some(number) => put(out, b'j', number.as_bytes()),
            None => put(out, b'j', batch.bytes(s)),
        },
    }
}

/// A float by its bits, but for two values that an engine cannot tell from another: SQLite stores -0.0 as 0.0, and
/// NaNs differ only in a payload that no engine promises to keep.
fn float_bits(value: f64) -> u64 {
    if value == 0.0 {
        0
    } else if value.is_nan() {
        f64::NAN.to_bits()
    } else {
        value.to_bits()
    }
}
