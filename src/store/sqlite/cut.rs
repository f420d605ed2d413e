//! Cutting a private copy down to what a purge removes, with what that refers to: its own store, in which keys hold.

use std::path::PathBuf;
use std::sync::Arc;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, params};

use super::Explain;
use super::snapshot::Snapshot;
use crate::domain::catalogue::TableDef;
use crate::domain::cleanup::belongings::Root;
use crate::domain::ddl::{literal, quote};
use crate::domain::failure::{Failure, Outcome};
use crate::domain::mention::MENTIONS;
use crate::domain::table::Shape;
use crate::store::removal::{Dialect, Statements};

const KEPT: &str = "mlops_kept";
/// Traces that are looked at together.
const PAGE: usize = 1_000;
/// A chain of references is no longer than there are tables.
const MOST_ROUNDS: usize = 100;
/// Tables that stay whole: rows refer to them without a key, or they say what the store is.
const WHOLE: &[&str] = &["workspaces", "alembic_version", "alembic_version_auth"];

/// A private copy that is cut down.
pub struct Cut {
    connection: Connection,
    statements: Statements,
    tables: Vec<Arc<TableDef>>,
    original: PathBuf,
}

impl Cut {
    /// Opens the private copy for changes. No other connection to it may be open.
    ///
    /// # Errors
    /// Target: the work folder is full. The same for all that follow.
    pub fn open(snapshot: &Snapshot, tables: &[Arc<TableDef>]) -> Outcome<Cut> {
        let original = snapshot.original().to_owned();
        let open = || -> rusqlite::Result<Connection> {
            let connection = Connection::open(snapshot.path())?;
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
            connection.execute_batch(&format!(
                "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA foreign_keys=OFF; PRAGMA temp_store=FILE;
                 CREATE TEMP TABLE {KEPT} (tbl TEXT, id INTEGER, PRIMARY KEY (tbl, id)) WITHOUT ROWID; BEGIN;"
            ))?;
            Ok(connection)
        };
        let connection = open().of_target(&original)?;
        let statements = Statements::new(Dialect::Sqlite, tables, Vec::new());
        Ok(Cut { connection, statements, tables: tables.to_vec(), original })
    }

    /// Keeps roots with all that belongs to them, the traces of experiments as well.
    ///
    /// # Errors
    /// As [`Cut::open`].
    pub fn keep(&self, root: Root, ids: &[String]) -> Outcome<()> {
        let list = serde_json::Value::from(ids.to_vec()).to_string();
        for step in self.statements.steps(root)?.iter().filter(|step| step.clears.is_none()) {
            let condition = self.statements.condition(root, step);
            let sql = format!(
                "INSERT OR IGNORE INTO {KEPT} SELECT {}, rowid FROM {} WHERE {condition}",
                literal(&step.table),
                quote(&step.table)
            );
            self.connection.prepare_cached(&sql).and_then(|mut s| s.execute([&list])).of_target(&self.original)?;
        }
        if root != Root::Experiment || !self.statements.has_root(Root::Trace) {
            return Ok(());
        }
        for experiment in ids {
            let mut after = String::new();
            loop {
                let traces = self.traces(experiment, &after).of_target(&self.original)?;
                let Some(last) = traces.last() else { break };
                after.clone_from(last);
                self.keep(Root::Trace, &traces)?;
            }
        }
        Ok(())
    }

    fn traces(&self, experiment: &str, after: &str) -> rusqlite::Result<Vec<String>> {
        let mut statement = self.connection.prepare_cached(&self.statements.traces(PAGE))?;
        statement.query_map(params![experiment, after], |row| row.get(0))?.collect()
    }

    /// Keeps what the kept rows refer to, and removes the rest.
    ///
    /// # Errors
    /// As [`Cut::open`].
    pub fn close(self, shapes: &[Shape]) -> Outcome<()> {
        let references = self.references();
        let mut kept = 1;
        for _ in 0..MOST_ROUNDS {
            kept = 0;
            for sql in &references {
                kept += self.connection.execute(sql, []).of_target(&self.original)?;
            }
            if kept == 0 {
                break;
            }
        }
        if kept > 0 {
            return Err(Failure::internal("references go round in a circle"));
        }
        for shape in shapes.iter().filter(|shape| !WHOLE.contains(&shape.name.as_str())) {
            let sql =
                format!("DELETE FROM {} WHERE rowid NOT IN (SELECT id FROM {KEPT} WHERE tbl = ?1)", quote(&shape.name));
            self.connection.execute(&sql, [&shape.name]).of_target(&self.original)?;
        }
        self.connection.execute_batch("COMMIT").of_target(&self.original)?;
        self.connection.close().map_err(|(_, error)| error).of_target(&self.original)
    }

    /// Statements that keep the rows that kept ones refer to.
    fn references(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut add = |child: &str, parent: &str, same: Vec<String>| {
            found.push(format!(
                "INSERT OR IGNORE INTO {KEPT} SELECT {}, p.rowid FROM {KEPT} k JOIN {} c ON c.rowid = k.id
                 JOIN {} p ON {} WHERE k.tbl = {}",
                literal(parent),
                quote(child),
                quote(parent),
                same.join(" AND "),
                literal(child)
            ));
        };
        for table in &self.tables {
            for key in &table.postgres.foreign_keys {
                let pairs = key.references.iter().zip(&key.columns);
                let same = pairs.map(|(r, c)| format!("p.{} = c.{}", quote(r), quote(c))).collect();
                add(&table.name, &key.table, same);
            }
        }
        // The datasets that a run read.
        for mention in MENTIONS.iter().filter(|m| m.follows && m.is_in(&self.tables)) {
            let is_root = Root::ALL.iter().any(|root| root.table() == mention.parent);
            if !is_root {
                let same = format!("p.{} = c.{}", quote(mention.key), quote(mention.column));
                add(mention.table, mention.parent, vec![same]);
            }
        }
        found
    }
}
