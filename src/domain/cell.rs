//! Rows on their way from a source to a sink: a [`Batch`] of cells over one byte arena, so that a row costs no
//! allocation of its own.

use crate::domain::table::{Shape, Type};

/// Where a value's bytes lie in its batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    start: usize,
    len: usize,
}

/// One value. Its variant says what the store really holds: a source turns a value into its column's type where
/// that loses nothing and hands it on as it is otherwise, so that a comparison sees it and a sink can refuse it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Cell {
    /// SQL NULL.
    Null,
    /// An integer.
    Int(i64),
    /// A float.
    Float(f64),
    /// A boolean.
    Bool(bool),
    /// Text; the bytes are not yet known to be UTF-8.
    Text(Span),
    /// The text of a JSON document.
    Json(Span),
    /// Bytes.
    Bytes(Span),
}

impl Cell {
    /// Whether it is the float -0.0, which equals 0.0 and which SQLite keeps as that.
    pub fn is_negative_zero(self) -> bool {
        matches!(self, Cell::Float(value) if value == 0.0 && value.is_sign_negative())
    }
}

/// Rows of one table, row by row.
#[derive(Debug)]
pub struct Batch {
    shape: Shape,
    cells: Vec<Cell>,
    arena: Vec<u8>,
}

/// A batch is handed on when it holds this many bytes or rows: small enough for the caches, big enough that the
/// cost of handing it on vanishes.
const FULL_BYTES: usize = 256 * 1024;
const FULL_CELLS: usize = 32 * 1024;

impl Batch {
    /// An empty batch for rows of that shape.
    pub fn new(shape: Shape) -> Self {
        Batch { shape, cells: Vec::new(), arena: Vec::new() }
    }

    /// The shape of its rows.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Forgets the rows and keeps the memory, unless one huge value made that memory large.
    pub fn clear(&mut self) {
        self.cells.clear();
        self.arena.clear();
        self.arena.shrink_to(4 * FULL_BYTES);
    }

    /// Whether it is time to hand it on.
    pub fn is_full(&self) -> bool {
        self.arena.len() >= FULL_BYTES || self.cells.len() >= FULL_CELLS
    }

    /// Whether it holds no row.
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// The number of its rows.
    pub fn rows(&self) -> usize {
        match self.shape.columns.len() {
            0 => 0,
            width => self.cells.len() / width,
        }
    }

    /// Bytes of variable-length values plus eight for each fixed one: what progress counts.
    pub fn weight(&self) -> usize {
        self.arena.len() + 8 * self.cells.len()
    }

    /// The rows, each a slice as long as the shape has columns.
    pub fn iter(&self) -> impl Iterator<Item = &[Cell]> {
        self.cells.chunks_exact(self.shape.columns.len().max(1))
    }

    /// The bytes of a value of this batch.
    pub fn bytes(&self, span: Span) -> &[u8] {
        self.arena.get(span.start..span.start + span.len).unwrap_or_default()
    }

    /// Appends a cell that has no bytes.
    pub fn push(&mut self, cell: Cell) {
        self.cells.push(cell);
    }

    /// Appends a cell with bytes.
    pub fn push_bytes(&mut self, make: fn(Span) -> Cell, bytes: &[u8]) {
        let span = Span { start: self.arena.len(), len: bytes.len() };
        self.arena.extend_from_slice(bytes);
        self.cells.push(make(span));
    }

    /// Appends one row of another batch of the same shape.
    pub fn push_row(&mut self, from: &Batch, row: &[Cell]) {
        for cell in row {
            match *cell {
                Cell::Text(s) => self.push_bytes(Cell::Text, from.bytes(s)),
                Cell::Json(s) => self.push_bytes(Cell::Json, from.bytes(s)),
                Cell::Bytes(s) => self.push_bytes(Cell::Bytes, from.bytes(s)),
                plain => self.cells.push(plain),
            }
        }
    }

    /// Appends an integer as the column's type: 0 and 1 of a boolean column are booleans, integers of a float
    /// column are floats where the float is the same number, integers of a JSON column are JSON numbers (SQLite
    /// stores them so, see [`canonical_number`]).
    pub fn push_int(&mut self, kind: Type, value: i64) {
        match kind {
            Type::Bool if value == 0 || value == 1 => self.push(Cell::Bool(value == 1)),
            Type::Float if (value as f64) as i128 == i128::from(value) => self.push(Cell::Float(value as f64)),
            Type::Json => self.push_bytes(Cell::Json, value.to_string().as_bytes()),
            _ => self.push(Cell::Int(value)),
        }
    }

    /// Appends a float as the column's type; in a JSON column it is a JSON number.
    pub fn push_float(&mut self, kind: Type, value: f64) {
        match kind {
            Type::Json => self.push_bytes(Cell::Json, json_number(value).as_bytes()),
            _ => self.push(Cell::Float(value)),
        }
    }

    /// Appends text as the column's type.
    pub fn push_text(&mut self, kind: Type, bytes: &[u8]) {
        match kind {
            Type::Json => self.push_bytes(Cell::Json, bytes),
            _ => self.push_bytes(Cell::Text, bytes),
        }
    }
}

/// The JSON text of a float: integral values without a fraction, as SQLite's NUMERIC affinity keeps them, and
/// infinities as a number that overflows to them again, which is what made them (`1e999`).
pub fn json_number(value: f64) -> String {
    if value.is_infinite() {
        return if value > 0.0 { "1e999" } else { "-1e999" }.to_owned();
    }
    if value == value.trunc() && value.abs() < 9.2e18 {
        return (value as i64).to_string();
    }
    format!("{value:?}")
}

/// What stands for a JSON text in a digest. SQLite's JSON columns have NUMERIC affinity, so a document that is one
/// bare number is stored as that number there (`1.0` becomes 1, see FACTS 4): bare numbers are compared by value,
/// everything else by its bytes. `None`: the bytes themselves.
pub fn canonical_number(text: &[u8]) -> Option<String> {
    let first = *text.iter().find(|b| !b.is_ascii_whitespace())?;
    if !(first == b'-' || first.is_ascii_digit()) {
        return None;
    }
    let number = std::str::from_utf8(text).ok()?.trim_ascii();
    if let Ok(integer) = number.parse::<i64>() {
        return Some(integer.to_string());
    }
    if !number.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'-' | b'+' | b'.' | b'e' | b'E')) {
        return None;
    }
    number.parse::<f64>().ok().map(json_number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bare_json_numbers_are_compared_by_value() {
        for (text, same) in
            [("1.0", "1"), (" 1.10 ", "1.1"), ("1e400", "1e999"), ("-1e400", "-1e999"), ("1e2", "100"), ("-0.0", "0")]
        {
            assert_eq!(canonical_number(text.as_bytes()), canonical_number(same.as_bytes()), "{text}");
            assert!(canonical_number(text.as_bytes()).is_some());
        }
        for text in ["{}", "[1]", "\"1\"", "null", "true", "", " ", "1 2", "-"] {
            assert_eq!(canonical_number(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn thirty_digits_are_the_float_that_sqlite_makes_of_them() {
        assert_eq!(canonical_number(b"123456789012345678901234567890").as_deref(), Some("1.2345678901234568e29"));
    }
}
