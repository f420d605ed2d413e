//! Putting rows aside: those that PostgreSQL cannot hold, and with them those that refer to them. It is done in the
//! private copy; the operator's file stays as it is. Each row is written whole into a file of JSON lines.

use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

use rusqlite::config::DbConfig;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, params};
use serde_json::{Value, json};

use super::Explain;
use super::rules::{Rule, dangling, rules};
use super::snapshot::Snapshot;
use crate::domain::catalogue::TableDef;
use crate::domain::ddl::{literal, quote};
use crate::domain::failure::{Failure, Outcome};
use crate::domain::mention::{MENTIONS, Mention};
use crate::domain::table::Shape;

/// The marks of rows that are put aside, in a database of their own beside the private copy.
pub struct Quarantine {
    connection: Connection,
    store: PathBuf,
    original: PathBuf,
}

/// Rows of one table that were put aside for one reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aside {
    /// The table.
    pub table: String,
    /// Why.
    pub why: String,
    /// How many.
    pub rows: u64,
}

const MARKS: &str = "mlops_quarantine";
/// SQL that is true of rows `t` that refer to a marked row.
fn of_marked(mention: &Mention) -> String {
    let when =
        mention.when.map_or(String::new(), |(column, value)| format!("t.{} = {} AND ", quote(column), literal(value)));
    format!(
        "{when}CAST(t.{} AS TEXT) IN (SELECT CAST(p.{} AS TEXT) FROM {MARKS} m JOIN {} p ON p.rowid = m.id
         WHERE m.tbl = {})",
        quote(mention.column),
        quote(mention.key),
        quote(mention.parent),
        literal(mention.parent)
    )
}

/// A chain of references is no longer than there are tables; a circle would be a defect of the catalogue.
const MOST_ROUNDS: usize = 100;

impl Quarantine {
    /// Begins with no row marked.
    ///
    /// # Errors
    /// Target: the work folder is full.
    pub fn begin(snapshot: &Snapshot) -> Outcome<Quarantine> {
        let original = snapshot.original().to_owned();
        let begin = || -> rusqlite::Result<Connection> {
            let connection = Connection::open(snapshot.path().with_file_name("marks.db"))?;
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
            connection.execute_batch(&format!(
                "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA foreign_keys=OFF;
                 CREATE TABLE {MARKS} (tbl TEXT, id INTEGER, why TEXT, PRIMARY KEY (tbl, id)) WITHOUT ROWID;"
            ))?;
            Ok(connection)
        };
        Ok(Quarantine { connection: begin().of_target(&original)?, store: snapshot.path(), original })
    }

    /// Opens the private copy for changes. From here no other connection to it may be open.
    ///
    /// # Errors
    /// Source: SQLite could not open it.
    pub fn open_store(&self) -> Outcome<()> {
        let open = || -> rusqlite::Result<()> {
            self.connection.execute("ATTACH ?1 AS store", [self.store.as_os_str().as_bytes()])?;
            self.connection.execute_batch(
                "PRAGMA store.journal_mode=OFF; PRAGMA store.synchronous=OFF; PRAGMA store.cache_size=-16384; BEGIN",
            )
        };
        open().of_source(&self.original)
    }

    /// Marks one row by its rowid.
    ///
    /// # Errors
    /// Target: the work folder is full.
    pub fn mark(&self, table: &str, rowid: i64, why: &str) -> Outcome<()> {
        let mark = || {
            let sql = format!("INSERT OR IGNORE INTO {MARKS} VALUES (?1, ?2, ?3)");
            self.connection.prepare_cached(&sql)?.execute(params![table, rowid, why])
        };
        mark().of_target(&self.original).map(|_| ())
    }

    /// Marks the rows that break a rule, and then, as often as needed, those that refer to a marked one.
    ///
    /// # Errors
    /// Source: SQLite could not read it. Target: the work folder is full.
    pub fn follow(&self, tables: &[Arc<TableDef>]) -> Outcome<()> {
        let rules = rules(&self.connection, tables).of_source(&self.original)?;
        for rule in &rules {
            self.mark_where(rule, &rule.what, &rule.broken)?;
        }
        self.follow_references(tables)
    }

    /// Marks, as often as needed, the rows that refer to a marked one.
    ///
    /// # Errors
    /// As [`Quarantine::follow`].
    pub fn follow_references(&self, tables: &[Arc<TableDef>]) -> Outcome<()> {
        let rules = rules(&self.connection, tables).of_source(&self.original)?;
        for _ in 0..MOST_ROUNDS {
            let mut marked = 0;
            for rule in &rules {
                let Some(key) = &rule.reference else { continue };
                let aside = format!("p.rowid NOT IN (SELECT id FROM {MARKS} WHERE tbl = {})", literal(&key.table));
                let what = format!("refers to a row of `{}` that was put aside", key.table);
                marked += self.mark_where(rule, &what, &dangling(key, &aside))?;
            }
            for mention in MENTIONS.iter().filter(|m| m.follows && m.is_in(tables)) {
                let what = format!("refers to a row of `{}` that was put aside", mention.parent);
                marked += self.mark_rows(mention.table, &what, &of_marked(mention))?;
            }
            if marked == 0 {
                return Ok(());
            }
        }
        Err(Failure::internal("references go round in a circle"))
    }

    /// Marks every experiment but those of these names or ids. Tells the names of those.
    ///
    /// # Errors
    /// Usage: one that is not there. Source: SQLite could not read it.
    pub fn mark_other_experiments(&self, wanted: &[String]) -> Outcome<Vec<String>> {
        let named = "t.name = ?1 OR CAST(t.experiment_id AS TEXT) = ?1";
        let (mut chosen, mut names) = (Vec::new(), Vec::new());
        for word in wanted {
            let sql = format!("SELECT t.rowid, t.name FROM experiments t WHERE {named}");
            let look = || -> rusqlite::Result<Vec<(i64, String)>> {
                let mut statement = self.connection.prepare(&sql)?;
                statement.query_map([word], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
            };
            let found = look().of_source(&self.original)?;
            if found.is_empty() {
                return Err(Failure::usage(format!("there is no experiment `{}` in it", word.escape_debug()))
                    .hint("an experiment's name as it was then, or its id"));
            }
            for (id, name) in found {
                if !chosen.contains(&id) {
                    chosen.push(id);
                    names.push(name);
                }
            }
        }
        let ids: Vec<String> = chosen.iter().map(i64::to_string).collect();
        self.mark_rows("experiments", "is not of what was chosen", &format!("t.rowid NOT IN ({})", ids.join(", ")))?;
        Ok(names)
    }

    /// Marks model versions whose run is marked or gone, the aliases of marked versions, and models of which no version
    /// is left.
    ///
    /// # Errors
    /// Source: SQLite could not read it.
    pub fn mark_versions_of_marked_runs(&self, tables: &[Arc<TableDef>]) -> Outcome<()> {
        let has = |table: &str| tables.iter().any(|t| t.name == table);
        if !has("model_versions") {
            return Ok(());
        }
        let marked = |table: &str| format!("SELECT id FROM {MARKS} WHERE tbl = {}", literal(table));
        let what = "is not of what was chosen";
        let left = format!("SELECT r.run_uuid FROM runs r WHERE r.rowid NOT IN ({})", marked("runs"));
        self.mark_rows("model_versions", what, &format!("coalesce(t.run_id, '') NOT IN ({left})"))?;
        let sound = format!("v.rowid NOT IN ({})", marked("model_versions"));
        if has("registered_model_aliases") {
            let gone = format!(
                "NOT EXISTS (SELECT 1 FROM model_versions v WHERE v.name = t.name AND v.version = t.version AND {sound})"
            );
            self.mark_rows("registered_model_aliases", what, &gone)?;
        }
        let gone = format!("NOT EXISTS (SELECT 1 FROM model_versions v WHERE v.name = t.name AND {sound})");
        self.mark_rows("registered_models", what, &gone).map(drop)
    }

    fn mark_where(&self, rule: &Rule, what: &str, condition: &str) -> Outcome<usize> {
        self.mark_rows(&rule.table, what, condition)
    }

    fn mark_rows(&self, table: &str, what: &str, condition: &str) -> Outcome<usize> {
        let sql =
            format!("INSERT OR IGNORE INTO {MARKS} SELECT ?1, t.rowid, ?2 FROM {} t WHERE {condition}", quote(table));
        self.connection.execute(&sql, params![table, what]).of_target(&self.original)
    }

    /// Rows that stay though they name a row that is put aside: in words, one for each kind.
    ///
    /// # Errors
    /// Source: SQLite could not read it.
    pub fn left_dangling(&self, tables: &[Arc<TableDef>]) -> Outcome<Vec<String>> {
        let mut words = Vec::new();
        for mention in MENTIONS.iter().filter(|m| !m.follows && m.is_in(tables)) {
            let sql = format!(
                "SELECT count(*) FROM {} t WHERE {} AND t.rowid NOT IN (SELECT id FROM {MARKS} WHERE tbl = ?1)",
                quote(mention.table),
                of_marked(mention)
            );
            let rows: i64 =
                self.connection.query_row(&sql, [mention.table], |row| row.get(0)).of_source(&self.original)?;
            if rows > 0 {
                words.push(format!(
                    "{rows} rows of `{}` stay, and their `{}` names a row of `{}` that is put aside",
                    mention.table, mention.column, mention.parent
                ));
            }
        }
        Ok(words)
    }

    /// The highest integer of a column, up to `most`, before rows are removed.
    ///
    /// # Errors
    /// Source: SQLite could not read it.
    pub fn highest(&self, table: &str, column: &str, most: i64) -> Outcome<Option<i64>> {
        let column = quote(column);
        let sql =
            format!("SELECT max({column}) FROM {} WHERE typeof({column}) = 'integer' AND {column} < ?1", quote(table));
        self.connection.query_row(&sql, [most], |row| row.get(0)).of_source(&self.original)
    }

    /// What is marked, by table and reason.
    ///
    /// # Errors
    /// Source: SQLite could not read it.
    pub fn marked(&self) -> Outcome<Vec<Aside>> {
        let look = || -> rusqlite::Result<Vec<Aside>> {
            let sql = format!("SELECT tbl, why, count(*) FROM {MARKS} GROUP BY tbl, why ORDER BY tbl, count(*) DESC");
            let mut statement = self.connection.prepare(&sql)?;
            let rows = statement.query_map([], |row| {
                Ok(Aside { table: row.get(0)?, why: row.get(1)?, rows: row.get::<_, i64>(2)?.unsigned_abs() })
            })?;
            rows.collect()
        };
        look().of_source(&self.original)
    }

    /// Writes each marked row as one line: table, rowid, reason, and the row with every column.
    ///
    /// # Errors
    /// Source: SQLite could not read it. Target: the file could not be written.
    pub fn write(&self, shapes: &[Shape], out: &mut dyn Write) -> Outcome<()> {
        for shape in shapes {
            let columns: Vec<String> = shape.column_names().map(|c| format!("t.{}", quote(c))).collect();
            let sql = format!(
                "SELECT m.id, m.why, {} FROM {MARKS} m JOIN {} t ON t.rowid = m.id WHERE m.tbl = ?1 ORDER BY m.id",
                columns.join(", "),
                quote(&shape.name)
            );
            let mut statement = self.connection.prepare(&sql).of_source(&self.original)?;
            let mut rows = statement.query([&shape.name]).of_source(&self.original)?;
            while let Some(row) = rows.next().of_source(&self.original)? {
                let line = || -> rusqlite::Result<Value> {
                    let mut values = serde_json::Map::new();
                    for (index, name) in shape.column_names().enumerate() {
                        values.insert(name.to_owned(), value(row.get_ref(index + 2)?));
                    }
                    let (id, why): (i64, String) = (row.get(0)?, row.get(1)?);
                    Ok(json!({"table": shape.name, "rowid": id, "reason": why, "row": values}))
                };
                let line = line().of_source(&self.original)?;
                writeln!(out, "{line}")
                    .map_err(|e| Failure::target(format!("the rows that are put aside cannot be written: {e}")))?;
            }
        }
        Ok(())
    }

    /// Removes the marked rows from the private copy.
    ///
    /// # Errors
    /// Target: the work folder is full.
    pub fn remove(self, shapes: &[Shape]) -> Outcome<()> {
        let remove = || -> rusqlite::Result<()> {
            for shape in shapes {
                let sql = format!(
                    "DELETE FROM {} WHERE rowid IN (SELECT id FROM {MARKS} WHERE tbl = ?1)",
                    quote(&shape.name)
                );
                self.connection.execute(&sql, [&shape.name])?;
            }
            self.connection.execute_batch("COMMIT")
        };
        remove().of_target(&self.original)?;
        self.connection.close().map_err(|(_, error)| error).of_target(&self.original)
    }
}

/// A value of SQLite's as JSON that says all of it: blobs and text that is not UTF-8 in hexadecimal.
fn value(value: ValueRef<'_>) -> Value {
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(v) => v.into(),
        ValueRef::Real(v) if v.is_finite() => v.into(),
        ValueRef::Real(v) => json!({"float": v.to_string()}),
        ValueRef::Text(v) => match std::str::from_utf8(v) {
            Ok(text) => text.into(),
            Err(_) => json!({"text": hex(v)}),
        },
        ValueRef::Blob(v) => json!({"blob": hex(v)}),
    }
}
