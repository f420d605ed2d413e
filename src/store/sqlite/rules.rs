//! What PostgreSQL enforces on MLflow's tables and a SQLite file may break: CHECKs, unique keys, references. Rows that
//! break a rule are found by SQL in the private copy.

use std::sync::Arc;

use rusqlite::Connection;
use rusqlite::types::ValueRef;

use super::snapshot::Snapshot;
use super::{Explain, open_readonly};
use crate::domain::catalogue::{ForeignKey, TableDef};
use crate::domain::ddl::{quote, quote_list};
use crate::domain::failure::Outcome;
use crate::domain::table::Shape;

/// A rule of one table.
#[derive(Debug, Clone)]
pub struct Rule {
    /// The table.
    pub table: String,
    /// What is wrong with a row that breaks it: "refers to a row of `runs` that does not exist".
    pub what: String,
    /// SQL that is true of rows `t` that break it.
    pub(super) broken: String,
    /// Columns and referred table of a reference, whose rows may themselves be put aside.
    pub(super) reference: Option<ForeignKey>,
}

/// Rows that break a rule.
#[derive(Debug, Clone)]
pub struct Broken {
    /// The table.
    pub table: String,
    /// What is wrong with them.
    pub what: String,
    /// How many.
    pub rows: u64,
    /// The keys of the first of them.
    pub first: Vec<String>,
}

/// The rules of those tables, without unique keys that the file itself enforces.
///
/// # Errors
/// Source: SQLite could not read its schema.
pub fn rules(connection: &Connection, tables: &[Arc<TableDef>]) -> rusqlite::Result<Vec<Rule>> {
    let mut rules = Vec::new();
    for table in tables {
        let mut add = |what: String, broken: String, reference| {
            rules.push(Rule { table: table.name.clone(), what, broken, reference });
        };
        for (_, expression) in &table.postgres.checks {
            add(format!("breaks the rule {expression}"), format!("NOT ({expression})"), None);
        }
        for key in table.postgres.primary_key.iter().chain(&table.postgres.unique) {
            if enforces(connection, &table.name, &key.columns)? {
                continue;
            }
            let columns = quote_list(key.columns.iter().map(String::as_str));
            let filled: Vec<String> = key.columns.iter().map(|c| format!("t.{} IS NOT NULL", quote(c))).collect();
            let broken = format!(
                "{} AND t.rowid NOT IN (SELECT min(rowid) FROM {} GROUP BY {columns})",
                filled.join(" AND "),
                quote(&table.name)
            );
            add(format!("has the same {} as another row", key.columns.join(", ")), broken, None);
        }
        for key in &table.postgres.foreign_keys {
            let what = format!("refers to a row of `{}` that does not exist", key.table);
            add(what, dangling(key, "1"), Some(key.clone()));
        }
    }
    Ok(rules)
}

/// SQL that is true of rows `t` whose reference finds no row `p` that is `sound`.
pub(super) fn dangling(key: &ForeignKey, sound: &str) -> String {
    let filled: Vec<String> = key.columns.iter().map(|c| format!("t.{} IS NOT NULL", quote(c))).collect();
    let pairs = key.columns.iter().zip(&key.references);
    let same: Vec<String> = pairs.map(|(c, r)| format!("p.{} = t.{}", quote(r), quote(c))).collect();
    format!(
        "{} AND NOT EXISTS (SELECT 1 FROM {} p WHERE {} AND {sound})",
        filled.join(" AND "),
        quote(&key.table),
        same.join(" AND ")
    )
}

/// Whether the file has a unique index of these columns, or they are its rowid.
fn enforces(connection: &Connection, table: &str, columns: &[String]) -> rusqlite::Result<bool> {
    let mut statement = connection.prepare("SELECT name, upper(type) FROM pragma_table_info(?1) WHERE pk > 0")?;
    let key = statement
        .query_map([table], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    if let ([(name, kind)], [column]) = (key.as_slice(), columns)
        && name == column
        && kind == "INTEGER"
    {
        return Ok(true);
    }
    let mut statement = connection.prepare(
        "SELECT (SELECT group_concat(name, char(0)) FROM (SELECT name FROM pragma_index_info(l.name) ORDER BY name))
         FROM pragma_index_list(?1) l WHERE l.\"unique\" AND NOT l.partial",
    )?;
    let mut wanted = columns.to_vec();
    wanted.sort();
    let wanted = wanted.join("\0");
    let mut rows = statement.query([table])?;
    while let Some(row) = rows.next()? {
        if row.get::<_, Option<String>>(0)?.as_deref() == Some(wanted.as_str()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// All rows of a private copy that break a rule, rule by rule.
///
/// # Errors
/// Source: SQLite could not read it.
pub fn broken(snapshot: &Snapshot, tables: &[Arc<TableDef>], shapes: &[Shape], most: usize) -> Outcome<Vec<Broken>> {
    let connection = open_readonly(&snapshot.path(), true).of_source(snapshot.original())?;
    let look = || -> rusqlite::Result<Vec<Broken>> {
        let mut found = Vec::new();
        for rule in rules(&connection, tables)? {
            let table = quote(&rule.table);
            let count = format!("SELECT count(*) FROM {table} t WHERE {}", rule.broken);
            let rows = connection.query_row(&count, [], |row| row.get::<_, i64>(0))?.unsigned_abs();
            if rows == 0 {
                continue;
            }
            let names: Vec<String> = shapes
                .iter()
                .find(|s| s.name == rule.table)
                .map(|s| s.identifying().iter().filter_map(|i| Some(s.columns.get(*i)?.name.clone())).collect())
                .unwrap_or_default();
            let columns: Vec<String> = names.iter().map(|n| format!("t.{}", quote(n))).collect();
            let sql = format!("SELECT {} FROM {table} t WHERE {} LIMIT {most}", columns.join(", "), rule.broken);
            let mut statement = connection.prepare(&sql)?;
            let first = statement
                .query_map([], |row| {
                    let values = names.iter().enumerate();
                    let values = values.map(|(i, name)| Ok(format!("{name}={}", short(row.get_ref(i)?))));
                    Ok(values.collect::<rusqlite::Result<Vec<_>>>()?.join(", "))
                })?
                .collect::<rusqlite::Result<Vec<_>>>()?;
            found.push(Broken { table: rule.table, what: rule.what, rows, first });
        }
        Ok(found)
    };
    look().of_source(snapshot.original())
}

/// A value of a key, for people.
fn short(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => "NULL".to_owned(),
        ValueRef::Integer(v) => v.to_string(),
        ValueRef::Real(v) => format!("{v:?}"),
        ValueRef::Text(v) => format!("{:?}", String::from_utf8_lossy(v).chars().take(60).collect::<String>()),
        ValueRef::Blob(v) => format!("{} bytes", v.len()),
    }
}
