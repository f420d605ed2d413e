//! The table model: what a table of a store is made of, as far as moving and comparing its rows goes.

use std::sync::Arc;

/// What a column holds, whatever engine stores it. Decides how a value is written, read and digested.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Type {
    /// PostgreSQL `integer`.
    Int4,
    /// PostgreSQL `bigint`.
    Int8,
    /// `double precision`.
    Float,
    /// `boolean`; 0 and 1 in SQLite.
    Bool,
    /// `character varying` or `text`.
    Text,
    /// PostgreSQL `json` (not jsonb: the text is kept).
    Json,
    /// `bytea`; BLOB in SQLite.
    Bytes,
    /// `date`; in SQLite the text `YYYY-MM-DD`, which is also how a source hands it on.
    Date,
}

impl Type {
    /// The word for this type in the catalogue's data and in messages.
    pub fn word(self) -> &'static str {
        match self {
            Type::Int4 => "int4",
            Type::Int8 => "int8",
            Type::Float => "float",
            Type::Bool => "bool",
            Type::Text => "text",
            Type::Json => "json",
            Type::Bytes => "bytes",
            Type::Date => "date",
        }
    }

    /// The type of that word.
    pub fn of_word(word: &str) -> Option<Type> {
        use Type::{Bool, Bytes, Date, Float, Int4, Int8, Json, Text};
        [Int4, Int8, Float, Bool, Text, Json, Bytes, Date].into_iter().find(|t| t.word() == word)
    }
}

/// A column whose values are moved. Generated columns have no place here: they are never copied nor digested.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name, the same on both engines.
    pub name: String,
    /// What it holds.
    pub kind: Type,
    /// The `n` of `character varying(n)`, in characters.
    pub max_chars: Option<u32>,
    /// Whether NULL is refused.
    pub not_null: bool,
}

/// The shape of a table: its name, the columns that are moved, and which of them tell its rows apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableShape {
    /// Unqualified name.
    pub name: String,
    /// The moved columns in physical order.
    pub columns: Vec<Column>,
    /// Positions in `columns` of the primary key; empty where a table has none.
    pub key: Vec<usize>,
    /// Of a version table that is shared with another program (optuna's `alembic_version`): only rows whose first
    /// column has one of these values belong to this shape. `None`: all rows.
    pub only: Option<Vec<String>>,
}

impl TableShape {
    /// The positions of the columns that tell two rows apart: the key, or all columns where there is no key.
    pub fn identifying(&self) -> Vec<usize> {
        if self.key.is_empty() { (0..self.columns.len()).collect() } else { self.key.clone() }
    }

    /// The names of the moved columns.
    pub fn column_names(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(|c| c.name.as_str())
    }
}

/// Shapes are shared between threads and batches.
pub type Shape = Arc<TableShape>;
