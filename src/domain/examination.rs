//! What the doctor reads from a database's own catalogue: everything that a revision's entry in ours says of it, as plain
//! values.

use crate::domain::catalogue::{ForeignKey, Index, Sequence};

/// A schema as it stands.
#[derive(Debug, Default)]
pub struct Examination {
    /// Its ordinary tables.
    pub tables: Vec<Table>,
    /// Its sequences; only PostgreSQL has them.
    pub sequences: Vec<SequenceState>,
    /// Schemas that rows were loaded into by an mlops, and whether that still runs.
    pub stages: Vec<(String, bool)>,
    /// Schemas that hold what a migration replaced.
    pub replaced: Vec<String>,
    /// Enumerated types that no column uses.
    pub unused_types: Vec<String>,
}

impl Examination {
    /// The table of that name.
    pub fn table(&self, name: &str) -> Option<&Table> {
        self.tables.iter().find(|t| t.name == name)
    }
}

/// A table as it stands.
#[derive(Debug, Default)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// Its columns in order.
    pub columns: Vec<Column>,
    /// Keys, references and CHECKs.
    pub constraints: Vec<Constraint>,
    /// Indexes that no constraint owns.
    pub indexes: Vec<IndexState>,
    /// Triggers.
    pub triggers: Vec<TriggerState>,
}

impl Table {
    /// The column of that name.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|c| c.name == name)
    }
}

/// A column as it stands.
#[derive(Debug, Clone)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// PostgreSQL's `format_type`, or SQLite's declaration.
    pub kind: String,
    /// NOT NULL.
    pub not_null: bool,
    /// The default's expression.
    pub default: Option<String>,
    /// The expression of a generated column.
    pub generated: Option<String>,
    /// The sequence that its numbers come from.
    pub sequence: Option<Sequence>,
}

/// A constraint as it stands.
#[derive(Debug, Clone)]
pub struct Constraint {
    /// Its name; empty where SQLite keeps none.
    pub name: String,
    /// What it demands.
    pub rule: Rule,
    /// Whether all rows were checked against it; always true of keys.
    pub valid: bool,
}

/// What a constraint demands.
#[derive(Debug, Clone)]
pub enum Rule {
    /// PRIMARY KEY of these columns.
    Primary(Vec<String>),
    /// UNIQUE of these columns.
    Unique(Vec<String>),
    /// FOREIGN KEY; the name in it is the constraint's.
    Foreign(ForeignKey),
    /// CHECK of this expression.
    Check(String),
}

/// An index as it stands.
#[derive(Debug, Clone)]
pub struct IndexState {
    /// What it is.
    pub index: Index,
    /// Whether queries use it; false after a CREATE INDEX CONCURRENTLY that failed.
    pub valid: bool,
}

/// A trigger as it stands.
#[derive(Debug, Clone)]
pub struct TriggerState {
    /// Its name.
    pub name: String,
    /// CREATE TRIGGER.
    pub definition: String,
    /// CREATE FUNCTION of what it calls; empty on SQLite.
    pub function: String,
    /// Whether it fires.
    pub enabled: bool,
}

/// A sequence as it stands.
#[derive(Debug, Clone)]
pub struct SequenceState {
    /// Its name.
    pub name: String,
    /// The table and column that it goes with when those are dropped.
    pub owner: Option<(String, String)>,
    /// `integer` or `bigint`.
    pub kind: String,
    /// The number that it gives next.
    pub next: i64,
}
