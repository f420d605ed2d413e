//! A new SQLite file as a sink: written under a temporary name beside its final one, and renamed when it was checked.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;
use rusqlite::types::{ToSqlOutput, Value, ValueRef};

use super::Explain;
use super::occupied::{self, Existing, Seen};
use crate::domain::address::shown;
use crate::domain::catalogue::TableDef;
use crate::domain::cell::{Batch, Cell};
use crate::domain::consent::Confirmed;
use crate::domain::ddl::{quote, quote_list};
use crate::domain::failure::{Failure, Outcome};
use crate::domain::fit;
use crate::domain::table::{Shape, TableShape, Type};
use crate::engine::compare::key_text;
use crate::engine::{Part, RowSink, RowWriter};
use crate::newfile::NewFile;

/// A new file with MLflow's schema. Until [`SqliteSink::publish`] nothing stands under its final name.
pub struct SqliteSink {
    connection: Mutex<Connection>,
    file: NewFile,
    target: PathBuf,
    old: Option<Old>,
    /// Values that were -0.0.
    negative_zeros: AtomicU64,
}

/// The file whose place the new one takes.
struct Old {
    seen: Option<Seen>,
    aside: PathBuf,
}

impl SqliteSink {
    /// Begins a new file that is to become `target`, with the tables of the catalogue and those of other programs.
    ///
    /// # Errors
    /// Target: the file is there already, or its folder cannot be written to.
    pub fn create(target: &Path, tables: &[Arc<TableDef>], foreign: &[Shape]) -> Outcome<SqliteSink> {
        // As SQLite itself makes files: what the umask leaves of this.
        Self::with_tables(target, NewFile::create(target, 0o666)?, None, &statements(tables, foreign))
    }

    /// Begins a new file that takes the place of the database `target` and has its permissions; that is then found under
    /// `aside`, in the same folder ([`occupied::aside`]).
    ///
    /// # Errors
    /// Target: there is no such database, it is in use, or its folder cannot be written to.
    pub fn replacing(
        target: &Path,
        aside: &Path,
        tables: &[Arc<TableDef>],
        foreign: &[Shape],
        _: &Confirmed,
    ) -> Outcome<SqliteSink> {
        let seen = Seen::of(target);
        match occupied::in_the_way(target)? {
            Existing::Data(..) | Existing::Fresh(_) => {}
            Existing::Nothing => return Err(Failure::target(format!("{} is gone", shown(target)))),
            Existing::Other(what) => return Err(Failure::refused(format!("what is there is no MLflow store: {what}"))),
        }
        let old = Some(Old { seen, aside: aside.to_owned() });
        Self::with_tables(target, NewFile::succeeding(target)?, old, &statements(tables, foreign))
    }

    /// The same with tables that enforce nothing: for rows some of which break MLflow's rules and are to be found.
    ///
    /// # Errors
    /// As [`SqliteSink::create`].
    pub fn create_lenient(target: &Path, tables: &[Arc<TableDef>], foreign: &[Shape]) -> Outcome<SqliteSink> {
        let lenient = |table: &Arc<TableDef>| {
            let columns = table.columns.iter().filter(|c| c.generated.is_none());
            let columns: Vec<String> = columns.map(|c| format!("{} {}", quote(&c.name), c.sqlite)).collect();
            format!("CREATE TABLE {} ({})", quote(&table.name), columns.join(", "))
        };
        let mut statements: Vec<String> = tables.iter().map(lenient).collect();
        statements.extend(foreign.iter().map(|shape| create_foreign_table(shape)));
        Self::with_tables(target, NewFile::create(target, 0o666)?, None, &statements)
    }

    fn with_tables(target: &Path, file: NewFile, old: Option<Old>, statements: &[String]) -> Outcome<SqliteSink> {
        let connection = Connection::open(file.path()).of_target(target)?;
        connection
            .execute_batch(&format!(
                // The rows are those of another store, whatever they are: a CHECK that it broke is no reason to lose them.
                "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA foreign_keys=OFF;
                 PRAGMA ignore_check_constraints=ON; BEGIN; {};",
                statements.join(";\n")
            ))
            .of_target(target)?;
        Ok(SqliteSink {
            connection: Mutex::new(connection),
            file,
            target: target.to_owned(),
            old,
            negative_zeros: AtomicU64::new(0),
        })
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes indexes and triggers and commits; the file can then be read under [`SqliteSink::path`].
    ///
    /// # Errors
    /// Target: SQLite refused.
    pub fn finish_schema(&self, tables: &[Arc<TableDef>]) -> Outcome<()> {
        let mut sql = String::new();
        for statement in tables.iter().flat_map(|t| t.sqlite.indexes.iter().chain(&t.sqlite.triggers)) {
            sql.push_str(statement);
            sql.push_str(";\n");
        }
        sql.push_str("COMMIT; ANALYZE;");
        self.connection().execute_batch(&sql).of_target(&self.target)
    }

    /// Makes what finding rows by their key needs over lenient tables, and commits.
    ///
    /// # Errors
    /// Target: SQLite refused.
    pub fn finish_lenient(&self, tables: &[Arc<TableDef>]) -> Outcome<()> {
        let mut sql = String::new();
        for table in tables {
            for key in table.postgres.primary_key.iter().chain(&table.postgres.unique) {
                let columns = quote_list(key.columns.iter().map(String::as_str));
                sql.push_str(&format!(
                    "CREATE INDEX {} ON {} ({columns});\n",
                    quote(&format!("mlops {}", key.name)),
                    quote(&table.name)
                ));
            }
        }
        sql.push_str("COMMIT;");
        self.connection().execute_batch(&sql).of_target(&self.target)
    }

    /// How many of the values that were written are -0.0, which SQLite keeps as 0.0.
    pub fn negative_zeros(&self) -> u64 {
        self.negative_zeros.load(Ordering::Relaxed)
    }

    /// Where the unpublished file is.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Gives the file its final name, after it has reached the disk.
    ///
    /// # Errors
    /// Refused: the file appeared meanwhile. Target: the file that is replaced is in use, or was written to since; a
    /// `-wal` or `-journal` lies under the name; or the disk failed.
    pub fn publish(self) -> Outcome<()> {
        let connection = self.connection.into_inner().unwrap_or_else(PoisonError::into_inner);
        connection.close().map_err(|(_, e)| e).of_target(&self.target)?;
        occupied::unused(&self.target)?;
        match self.old {
            None => self.file.publish(),
            Some(old) if old.seen != Seen::of(&self.target) => Err(Failure::target(format!(
                "{} was written to meanwhile, so it was not replaced",
                shown(&self.target)
            ))
            .hint("stop whatever writes to it and run this again")),
            Some(old) => self.file.succeed(&old.aside),
        }
    }
}

fn statements(tables: &[Arc<TableDef>], foreign: &[Shape]) -> Vec<String> {
    let own = tables.iter().map(|t| t.sqlite.create.clone());
    own.chain(foreign.iter().map(|shape| create_foreign_table(shape))).collect()
}

/// A table of another program, with its primary key.
fn create_foreign_table(shape: &TableShape) -> String {
    let mut parts: Vec<String> = shape
        .columns
        .iter()
        .map(|c| {
            let kind = match c.kind {
                Type::Int4 => "INTEGER",
                Type::Int8 => "BIGINT",
                Type::Float => "FLOAT",
                Type::Bool => "BOOLEAN",
                // Without a type SQLite keeps what it is given; TEXT would turn the numbers that a column declared DATE
                // may hold into text.
                Type::Text => "",
                Type::Json => "JSON",
                Type::Bytes => "BLOB",
                Type::Date => "DATE",
            };
            let kind = if kind.is_empty() { String::new() } else { format!(" {kind}") };
            format!("{}{kind}{}", quote(&c.name), if c.not_null { " NOT NULL" } else { "" })
        })
        .collect();
    if !shape.key.is_empty() {
        let key = shape.key.iter().filter_map(|i| shape.columns.get(*i)).map(|c| c.name.as_str());
        parts.push(format!("PRIMARY KEY ({})", quote_list(key)));
    }
    format!("CREATE TABLE {} ({})", quote(&shape.name), parts.join(", "))
}

impl RowSink for SqliteSink {
    fn load(&self, shape: &Shape, _: Part, fill: &mut dyn FnMut(&mut dyn RowWriter) -> Outcome<()>) -> Outcome<u64> {
        let marks = vec!["?"; shape.columns.len()].join(", ");
        let sql = format!("INSERT INTO {} ({}) VALUES ({marks})", quote(&shape.name), quote_list(shape.column_names()));
        let mut writer = SqliteWriter { sink: self, sql, rows: 0 };
        fill(&mut writer)?;
        Ok(writer.rows)
    }
}

struct SqliteWriter<'a> {
    sink: &'a SqliteSink,
    sql: String,
    rows: u64,
}

impl RowWriter for SqliteWriter<'_> {
    fn write(&mut self, batch: &Batch) -> Outcome<()> {
        let connection = self.sink.connection();
        let mut statement = connection.prepare_cached(&self.sql).of_target(&self.sink.target)?;
        for row in batch.iter() {
            self.judge(batch, row)?;
            let values = row.iter().map(|cell| bind(batch, *cell));
            statement.execute(rusqlite::params_from_iter(values)).of_target(&self.sink.target)?;
            self.rows += 1;
        }
        Ok(())
    }
}

impl SqliteWriter<'_> {
    /// Refuses what SQLite would silently change.
    fn judge(&self, batch: &Batch, row: &[Cell]) -> Outcome<()> {
        let shape = batch.shape();
        for (column, cell) in shape.columns.iter().zip(row) {
            if let Err(misfit) = fit::check_sqlite(column, batch, *cell) {
                let key = key_text(shape, batch, row);
                let key: Vec<String> = key.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
                let place = format!("`{}.{}` of the row {}", shape.name, column.name, key.join(", "));
                return Err(Failure::source(format!("{place} {misfit}")));
            }
            if cell.is_negative_zero() {
                self.sink.negative_zeros.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(())
    }
}

fn bind(batch: &Batch, cell: Cell) -> ToSqlOutput<'_> {
    match cell {
        Cell::Null => ToSqlOutput::Owned(Value::Null),
        Cell::Int(v) => ToSqlOutput::Owned(Value::Integer(v)),
        Cell::Bool(v) => ToSqlOutput::Owned(Value::Integer(v.into())),
        Cell::Float(v) => ToSqlOutput::Owned(Value::Real(v)),
        Cell::Text(s) | Cell::Json(s) => ToSqlOutput::Borrowed(ValueRef::Text(batch.bytes(s))),
        Cell::Bytes(s) => ToSqlOutput::Borrowed(ValueRef::Blob(batch.bytes(s))),
    }
}
