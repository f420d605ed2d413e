//! What came of a migration.

use std::time::Duration;

use crate::domain::digest::TableDigest;
use crate::migrate::plan::Plan;

/// A migration that was done.
#[derive(Debug, Clone)]
pub struct Migrated {
    /// What was planned and done.
    pub plan: Plan,
    /// Per table, the digests of both sides.
    pub tables: Vec<MigratedTable>,
    /// Phases and how long each took.
    pub phases: Vec<(&'static str, Duration)>,
    /// From the first look to the end.
    pub took: Duration,
    /// Whether the target was read back and compared before it was published.
    pub verified: bool,
    /// What an operator should know.
    pub warnings: Vec<String>,
}

/// A table that was migrated.
#[derive(Debug, Clone)]
pub struct MigratedTable {
    /// Its name.
    pub name: String,
    /// What was read from the source.
    pub source: TableDigest,
    /// What was read back from the target; `None` without verification.
    pub target: Option<TableDigest>,
}

impl Migrated {
    /// Rows of all tables.
    pub fn rows(&self) -> u64 {
        self.tables.iter().map(|t| t.source.rows).sum()
    }

    /// Rows per second over the whole migration, verification included.
    pub fn rows_per_second(&self) -> f64 {
        self.rows() as f64 / self.took.as_secs_f64().max(0.001)
    }

    /// What to do next, in words.
    pub fn next_step(&self) -> String {
        let target = &self.plan.target.address;
        if self.plan.target.engine == "archive" {
            if !self.verified {
                return "whoever takes the archive checks it: `mlops migrate import`, or `mlops migrate verify` against the source".to_owned();
            }
            return format!(
                "`mlops migrate import {target} --target URL` makes a store of it, and so do `tar xf` and `psql -f restore.sql` without mlops"
            );
        }
        let owner = match &self.plan.owner {
            Some(role) => format!(" The tables belong to the role {role}: the server connects as it, or needs grants."),
            None => String::new(),
        };
        let (address, password) = match self.plan.target.engine {
            "SQLite" => (format!("sqlite:///{target}"), ""),
            _ => (target.clone(), " (its password instead of ***)"),
        };
        format!(
            "stop the server on the source, start it with --backend-store-uri {address}{password} and the same \
             --default-artifact-root; keep the source until you trust the new store.{owner}"
        )
    }
}
