//! What is in a SQLite database, as far as telling MLflow's tables from others needs it.

use rusqlite::Connection;

use super::snapshot::Snapshot;
use super::{Explain, open_readonly};
use crate::domain::ddl::quote;
use crate::domain::failure::Outcome;
use crate::domain::identity::{Observed, ObservedColumn, ObservedTable};

/// Looks at every table of a snapshot.
///
/// # Errors
/// Source: SQLite could not read its own schema.
pub fn observe(snapshot: &Snapshot) -> Outcome<Observed> {
    open_readonly(&snapshot.path(), true).and_then(|connection| look(&connection)).of_source(snapshot.original())
}

pub(super) fn look(connection: &Connection) -> rusqlite::Result<Observed> {
    let mut observed = Observed { sqlite: true, ..Observed::default() };
    let mut statement = connection
        .prepare("SELECT type, name FROM sqlite_master WHERE type IN ('table', 'view', 'trigger') ORDER BY name")?;
    let objects = statement
        .query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    for (kind, name) in objects {
        match kind.as_str() {
            "table" if name.starts_with("sqlite_") => {}
            "table" => observed.tables.push(table(connection, name)?),
            _ => observed.others.push(format!("{kind} {name}")),
        }
    }
    for name in ["alembic_version", "alembic_version_auth"] {
        if observed.tables.iter().any(|t| t.name == name && t.columns.iter().any(|c| c.name == "version_num")) {
            let mut statement = connection.prepare(&format!("SELECT version_num FROM {}", quote(name)))?;
            let values = statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
            observed.versions.push((name.to_owned(), values));
        }
    }
    Ok(observed)
}

fn table(connection: &Connection, name: String) -> rusqlite::Result<ObservedTable> {
    // table_xinfo and not table_info: the latter hides generated columns (FACTS 2).
    let mut statement = connection.prepare(
        "SELECT name, type, \"notnull\", pk, hidden FROM pragma_table_xinfo(?1) WHERE hidden <> 1 ORDER BY cid",
    )?;
    let mut key: Vec<(i64, String)> = Vec::new();
    let mut columns = Vec::new();
    let mut rows = statement.query([&name])?;
    while let Some(row) = rows.next()? {
        let column = ObservedColumn {
            name: row.get(0)?,
            declared: row.get(1)?,
            not_null: row.get(2)?,
            generated: row.get::<_, i64>(4)? >= 2,
        };
        let place: i64 = row.get(3)?;
        if place > 0 {
            key.push((place, column.name.clone()));
        }
        columns.push(column);
    }
    key.sort();
    Ok(ObservedTable { name, columns, key: key.into_iter().map(|(_, name)| name).collect() })
}

/// The statements of a snapshot's schema.
///
/// # Errors
/// Source: SQLite could not read it.
pub fn statements(snapshot: &Snapshot) -> Outcome<String> {
    let look = || -> rusqlite::Result<String> {
        let connection = open_readonly(&snapshot.path(), true)?;
        let mut statement = connection
            .prepare("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY rowid")?;
        let rows = statement.query_map([], |row| row.get::<_, String>(0))?;
        let statements = rows.collect::<rusqlite::Result<Vec<_>>>()?;
        Ok(statements.iter().map(|s| format!("{s};\n")).collect())
    };
    look().of_source(snapshot.original())
}

/// Bytes of each table of a snapshot with its indexes. Reads every page, so this is for those who want to know.
///
/// # Errors
/// Source: SQLite could not read it.
pub fn table_bytes(snapshot: &Snapshot) -> Outcome<Vec<(String, u64)>> {
    let sizes = || -> rusqlite::Result<Vec<(String, u64)>> {
        let connection = open_readonly(&snapshot.path(), true)?;
        let mut statement = connection.prepare(
            "SELECT m.tbl_name, sum(s.pgsize) FROM dbstat s JOIN sqlite_master m ON m.name = s.name
             WHERE s.aggregate = TRUE GROUP BY m.tbl_name",
        )?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.unsigned_abs())))?;
        rows.collect()
    };
    sizes().of_source(snapshot.original())
}
