//! The steps that mend a schema, and their order: what is wrong goes before what is right is made.

use std::fmt::Write as _;

use crate::domain::ddl::quote;

/// When a statement comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// References go first: they hold keys and tables.
    DropReference,
    /// Leftovers and what is wrong.
    Drop,
    /// Tables that are missing.
    Table,
    /// Columns that are missing, and those that move behind them.
    Column,
    /// Sequences, before the defaults that call them.
    Sequence,
    /// Types, defaults, NOT NULL.
    Alter,
    /// Names.
    Rename,
    /// Indexes and keys.
    Index,
    /// CHECKs and keys over the indexes.
    Constraint,
    /// References.
    Reference,
    /// Functions and triggers.
    Trigger,
    /// Rows, and where sequences stand.
    Rows,
}

/// One statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// When it comes.
    pub phase: Phase,
    /// The table of an ALTER TABLE, of which `sql` is one clause.
    pub alter: Option<String>,
    /// The statement, or the clause.
    pub sql: String,
}

impl Step {
    /// A whole statement.
    pub fn new(phase: Phase, sql: impl Into<String>) -> Step {
        Step { phase, alter: None, sql: sql.into() }
    }

    /// A clause of an ALTER TABLE.
    pub fn clause(phase: Phase, table: &str, sql: impl Into<String>) -> Step {
        Step { phase, alter: Some(table.to_owned()), sql: sql.into() }
    }

    /// The statement.
    pub fn statement(&self) -> String {
        match &self.alter {
            Some(table) => format!("ALTER TABLE {} {}", quote(table), self.sql),
            None => self.sql.clone(),
        }
    }
}

/// The statements of all steps in order. Clauses for one table become one ALTER TABLE, which reads its rows once.
pub fn statements(steps: &[Step]) -> Vec<String> {
    let mut steps: Vec<&Step> = steps.iter().collect();
    steps.sort_by_key(|s| s.phase);
    let mut done: Vec<(Phase, Option<&str>, String)> = Vec::new();
    let mut seen: Vec<&Step> = Vec::new();
    for step in steps {
        if seen.contains(&step) {
            continue;
        }
        seen.push(step);
        let table = step.alter.as_deref();
        let open = done.iter_mut().find(|(phase, t, _)| *phase == step.phase && t.is_some() && *t == table);
        match open {
            Some((_, _, sql)) => {
                let _ = write!(sql, ",\n  {}", step.sql);
            }
            None => done.push((step.phase, table, step.statement())),
        }
    }
    done.into_iter().map(|(_, _, sql)| sql).collect()
}
