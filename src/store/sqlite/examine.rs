//! Everything that SQLite's catalogue says of a schema, for the doctor; and the schema of a revision, made in memory from
//! MLflow's own statements and read in the same way.

use std::sync::Arc;

use rusqlite::{Connection, Result};

use super::snapshot::Snapshot;
use super::{Explain, open_readonly};
use crate::domain::catalogue::{ForeignKey, Index, TableDef};
use crate::domain::examination::{Column, Constraint, Examination, IndexState, Rule, Table, TriggerState};
use crate::domain::expression;
use crate::domain::failure::{Failure, Outcome};

/// Reads what there is in a private copy.
///
/// # Errors
/// Source: SQLite could not read its own schema.
pub fn examine(snapshot: &Snapshot) -> Outcome<Examination> {
    open_readonly(&snapshot.path(), true).and_then(|connection| look(&connection)).of_source(snapshot.original())
}

/// What there is in a database that MLflow made with these tables.
///
/// # Errors
/// Internal: SQLite refuses MLflow's own statements, which a test rules out.
pub fn expected(tables: &[Arc<TableDef>]) -> Outcome<Examination> {
    let make = || -> Result<Examination> {
        let connection = Connection::open_in_memory()?;
        for table in tables {
            connection.execute_batch(&table.sqlite.create)?;
            for sql in table.sqlite.indexes.iter().chain(&table.sqlite.triggers) {
                connection.execute_batch(sql)?;
            }
        }
        look(&connection)
    };
    make().map_err(|e| Failure::internal(format!("the catalogue's SQLite statements: {e}")))
}

fn look(connection: &Connection) -> Result<Examination> {
    let mut examination = Examination::default();
    let mut statement = connection.prepare(
        "SELECT name, sql FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name",
    )?;
    let tables = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, Option<String>>(1)?)))?;
    for (name, sql) in tables.collect::<Result<Vec<_>>>()? {
        let mut table = Table { name, ..Table::default() };
        columns(connection, &mut table, sql.as_deref().unwrap_or_default())?;
        references(connection, &mut table)?;
        indexes(connection, &mut table)?;
        for check in expression::checks(sql.as_deref().unwrap_or_default()) {
            table.constraints.push(Constraint { name: String::new(), rule: Rule::Check(check), valid: true });
        }
        let mut statement =
            connection.prepare("SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = ?1")?;
        let triggers = statement.query_map([&table.name], |row| {
            Ok(TriggerState { name: row.get(0)?, definition: row.get(1)?, function: String::new(), enabled: true })
        })?;
        table.triggers = triggers.collect::<Result<_>>()?;
        examination.tables.push(table);
    }
    Ok(examination)
}

fn columns(connection: &Connection, table: &mut Table, sql: &str) -> Result<()> {
    let mut statement = connection.prepare(
        "SELECT name, type, \"notnull\", dflt_value, pk, hidden FROM pragma_table_xinfo(?1) WHERE hidden <> 1 ORDER BY cid",
    )?;
    let mut key: Vec<(i64, String)> = Vec::new();
    let mut rows = statement.query([&table.name])?;
    while let Some(row) = rows.next()? {
        let name: String = row.get(0)?;
        let place: i64 = row.get(4)?;
        if place > 0 {
            key.push((place, name.clone()));
        }
        // SQLite does not tell the expression by itself: it stands in the statement.
        let generated = (row.get::<_, i64>(5)? >= 2).then(|| expression_of(sql, &name));
        table.columns.push(Column {
            name,
            kind: row.get(1)?,
            not_null: row.get(2)?,
            default: row.get(3)?,
            generated,
            sequence: None,
        });
    }
    key.sort();
    if !key.is_empty() {
        let columns = key.into_iter().map(|(_, name)| name).collect();
        table.constraints.push(Constraint { name: String::new(), rule: Rule::Primary(columns), valid: true });
    }
    Ok(())
}

/// The line of a CREATE TABLE that declares a column, without its name.
fn expression_of(sql: &str, column: &str) -> String {
    let declares = |line: &&str| line.trim().trim_start_matches('"').starts_with(column) && line.contains("GENERATED");
    let line = sql.lines().find(declares).unwrap_or_default();
    line.split_once("AS").map_or(String::new(), |(_, rest)| rest.trim().trim_end_matches(',').to_owned())
}

fn references(connection: &Connection, table: &mut Table) -> Result<()> {
    let mut statement = connection.prepare(
        "SELECT id, \"table\", \"from\", \"to\", on_update, on_delete FROM pragma_foreign_key_list(?1) ORDER BY id, seq",
    )?;
    let mut rows = statement.query([&table.name])?;
    let mut keys: Vec<(i64, ForeignKey)> = Vec::new();
    while let Some(row) = rows.next()? {
        let id: i64 = row.get(0)?;
        let (from, to): (String, Option<String>) = (row.get(2)?, row.get(3)?);
        if let Some((_, key)) = keys.last_mut().filter(|(last, _)| *last == id) {
            key.columns.push(from);
            key.references.extend(to);
            continue;
        }
        let action = |text: String| (text != "NO ACTION").then_some(text);
        let key = ForeignKey {
            name: String::new(),
            columns: vec![from],
            table: row.get(1)?,
            references: to.into_iter().collect(),
            on_delete: action(row.get(5)?),
            on_update: action(row.get(4)?),
        };
        keys.push((id, key));
    }
    let constraint = |key| Constraint { name: String::new(), rule: Rule::Foreign(key), valid: true };
    table.constraints.extend(keys.into_iter().map(|(_, key)| constraint(key)));
    Ok(())
}

fn indexes(connection: &Connection, table: &mut Table) -> Result<()> {
    let mut statement = connection.prepare(
        "SELECT l.name, l.\"unique\", l.origin, m.sql FROM pragma_index_list(?1) l
         LEFT JOIN sqlite_master m ON m.type = 'index' AND m.name = l.name ORDER BY l.name",
    )?;
    let mut rows = statement.query([&table.name])?;
    while let Some(row) = rows.next()? {
        let (name, unique, origin): (String, bool, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let mut statement = connection.prepare("SELECT name FROM pragma_index_info(?1) ORDER BY seqno")?;
        let keys = statement.query_map([&name], |row| row.get::<_, Option<String>>(0))?;
        let keys: Vec<String> = keys.collect::<Result<Vec<_>>>()?.into_iter().map(Option::unwrap_or_default).collect();
        match origin.as_str() {
            "u" => {
                table.constraints.push(Constraint { name: String::new(), rule: Rule::Unique(keys), valid: true });
            }
            "c" => {
                let sql: Option<String> = row.get(3)?;
                let filter = sql.and_then(|sql| Some(sql.split_once(" WHERE ")?.1.to_owned()));
                let index = Index { name, unique, method: String::new(), keys, include: Vec::new(), filter };
                table.indexes.push(IndexState { index, valid: true });
            }
            _ => {}
        }
    }
    Ok(())
}

/// Rows that were found: how many, and the keys of the first.
pub type Counted = (u64, Vec<String>);

/// The last point of each metric by MLflow's rule: the highest step, then time, then value.
const LAST: &str = "SELECT run_uuid, key, value, timestamp, step FROM (SELECT *, row_number() OVER
    (PARTITION BY run_uuid, key ORDER BY step DESC, timestamp DESC, value DESC) AS place FROM metrics) WHERE place = 1";

/// `latest_metrics` against `metrics`: rows that are missing or old, and rows of which there is no point at all.
///
/// # Errors
/// Source: SQLite could not read it.
pub fn latest_metrics(snapshot: &Snapshot) -> Outcome<(Counted, Counted)> {
    let old = format!(
        "FROM ({LAST}) t LEFT JOIN latest_metrics l ON l.run_uuid = t.run_uuid AND l.key = t.key
         WHERE l.key IS NULL OR (l.step, l.timestamp, l.value) IS NOT (t.step, t.timestamp, t.value)"
    );
    let extra = "FROM latest_metrics t WHERE NOT EXISTS
                 (SELECT 1 FROM metrics m WHERE m.run_uuid = t.run_uuid AND m.key = t.key)";
    let shown = "'run_uuid=' || t.run_uuid || ', key=' || t.key";
    Ok((counted(snapshot, &old, shown)?, counted(snapshot, extra, shown)?))
}

/// Runs that are active in a deleted experiment.
///
/// # Errors
/// Source: SQLite could not read it.
pub fn active_in_deleted(snapshot: &Snapshot) -> Outcome<Counted> {
    let from = "FROM runs t JOIN experiments e ON e.experiment_id = t.experiment_id
                WHERE t.lifecycle_stage = 'active' AND e.lifecycle_stage = 'deleted'";
    counted(snapshot, from, "'run_uuid=' || t.run_uuid")
}

/// The experiments that runs belong to and that are not there.
///
/// # Errors
/// Source: SQLite could not read it.
pub fn lost_experiments(snapshot: &Snapshot) -> Outcome<Counted> {
    let from = "FROM (SELECT DISTINCT experiment_id FROM runs WHERE experiment_id IS NOT NULL
                AND experiment_id NOT IN (SELECT experiment_id FROM experiments)) t";
    counted(snapshot, from, "t.experiment_id")
}

fn counted(snapshot: &Snapshot, from: &str, shown: &str) -> Outcome<Counted> {
    let look = || -> Result<Counted> {
        let connection = open_readonly(&snapshot.path(), true)?;
        let rows: i64 = connection.query_row(&format!("SELECT count(*) {from}"), [], |row| row.get(0))?;
        let mut statement = connection.prepare(&format!("SELECT CAST({shown} AS TEXT) {from} ORDER BY 1 LIMIT 3"))?;
        let first = statement.query_map([], |row| row.get::<_, Option<String>>(0))?;
        let first = first.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
        Ok((rows.unsigned_abs(), first))
    };
    look().of_source(snapshot.original())
}

/// The statements that make an index or a trigger are the same but for white space and quotes.
pub fn same_statement(a: &str, b: &str) -> bool {
    let bare = |sql: &str| sql.replace(['"', '`'], "").split_whitespace().collect::<Vec<_>>().join(" ");
    bare(a) == bare(b)
}
