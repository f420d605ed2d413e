//! The form of `catalogue.jsonl`: one object a line - a head, table definitions, revisions that list them.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Deserialize;

use super::{
    Catalogue, ColumnDef, ForeignKey, Index, Key, Line, PostgresDef, Revision, Sequence, SqliteDef, TableDef, Trigger,
};
use crate::domain::table::Type;

#[derive(Deserialize)]
#[serde(untagged)]
enum Entry {
    Head { format: u32, mlflow: String },
    Table(Box<WireTable>),
    Revision(WireRevision),
}

#[derive(Deserialize)]
struct WireTable {
    table: usize,
    name: String,
    columns: Vec<WireColumn>,
    postgres: WirePostgres,
    sqlite: WireSqlite,
}

#[derive(Deserialize)]
struct WireColumn {
    name: String,
    #[serde(rename = "type")]
    kind: String,
    postgres: String,
    sqlite: String,
    #[serde(default)]
    not_null: bool,
    not_null_name: Option<String>,
    default: Option<String>,
    generated: Option<String>,
    serial: Option<String>,
    identity: Option<String>,
    sequence: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WirePostgres {
    primary_key: Option<WireKey>,
    unique: Vec<WireKey>,
    foreign_keys: Vec<WireForeignKey>,
    checks: Vec<WireCheck>,
    indexes: Vec<WireIndex>,
    triggers: Vec<WireTrigger>,
}

#[derive(Deserialize)]
struct WireKey {
    name: String,
    columns: Vec<String>,
}

#[derive(Deserialize)]
struct WireForeignKey {
    name: String,
    columns: Vec<String>,
    table: String,
    references: Vec<String>,
    on_delete: Option<String>,
    on_update: Option<String>,
}

#[derive(Deserialize)]
struct WireCheck {
    name: String,
    expression: String,
}

#[derive(Deserialize)]
struct WireIndex {
    name: String,
    #[serde(default)]
    unique: bool,
    #[serde(default = "btree")]
    method: String,
    keys: Vec<String>,
    #[serde(default)]
    include: Vec<String>,
    #[serde(rename = "where")]
    filter: Option<String>,
}

fn btree() -> String {
    "btree".to_owned()
}

#[derive(Deserialize)]
struct WireTrigger {
    definition: String,
    function: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WireSqlite {
    create: String,
    indexes: Vec<String>,
    triggers: Vec<String>,
}

#[derive(Deserialize)]
struct WireRevision {
    line: String,
    revision: String,
    #[serde(default)]
    releases: Vec<String>,
    tables: Vec<usize>,
    #[serde(default)]
    version_tables: Vec<String>,
}

/// Parses the data.
///
/// # Errors
/// The line and what is wrong with it.
pub(super) fn parse(text: &str) -> Result<Catalogue, String> {
    let mut tables: HashMap<usize, Arc<TableDef>> = HashMap::new();
    let mut catalogue = Catalogue { revisions: Vec::new(), mlflow: String::new() };
    for (number, line) in text.lines().enumerate() {
        let at = |what: String| format!("line {}: {what}", number + 1);
        match serde_json::from_str::<Entry>(line).map_err(|e| at(e.to_string()))? {
            Entry::Head { format: 1, mlflow } => catalogue.mlflow = mlflow,
            Entry::Head { format, .. } => return Err(at(format!("format {format}"))),
            Entry::Table(wire) => {
                tables.insert(wire.table, Arc::new(table(*wire).map_err(at)?));
            }
            Entry::Revision(wire) => catalogue.revisions.push(revision(wire, &tables).map_err(at)?),
        }
    }
    Ok(catalogue)
}

fn revision(wire: WireRevision, tables: &HashMap<usize, Arc<TableDef>>) -> Result<Revision, String> {
    let (line, version_table) = match wire.line.as_str() {
        "tracking" => (Line::Tracking, "alembic_version"),
        "auth" => (Line::Auth, "alembic_version_auth"),
        other => return Err(format!("line of revisions {other}")),
    };
    let tables = wire.tables.iter().map(|n| tables.get(n).cloned().ok_or_else(|| format!("no table {n}")));
    let mut version_tables = wire.version_tables;
    if version_tables.is_empty() {
        version_tables.push(version_table.to_owned());
    }
    Ok(Revision {
        line,
        id: wire.revision,
        releases: wire.releases,
        tables: tables.collect::<Result<_, _>>()?,
        version_tables,
    })
}

fn table(wire: WireTable) -> Result<TableDef, String> {
    let key = |k: WireKey| Key { name: k.name, columns: k.columns };
    Ok(TableDef {
        columns: wire.columns.into_iter().map(column).collect::<Result<_, _>>()?,
        name: wire.name,
        postgres: PostgresDef {
            primary_key: wire.postgres.primary_key.map(key),
            unique: wire.postgres.unique.into_iter().map(key).collect(),
            foreign_keys: wire
                .postgres
                .foreign_keys
                .into_iter()
                .map(|f| ForeignKey {
                    name: f.name,
                    columns: f.columns,
                    table: f.table,
                    references: f.references,
                    on_delete: f.on_delete,
                    on_update: f.on_update,
                })
                .collect(),
            checks: wire.postgres.checks.into_iter().map(|c| (c.name, c.expression)).collect(),
            indexes: wire
                .postgres
                .indexes
                .into_iter()
                .map(|i| Index {
                    name: i.name,
                    unique: i.unique,
                    method: i.method,
                    keys: i.keys,
                    include: i.include,
                    filter: i.filter,
                })
                .collect(),
            triggers: wire.postgres.triggers.into_iter().map(trigger).collect::<Result<_, _>>()?,
        },
        sqlite: SqliteDef { create: wire.sqlite.create, indexes: wire.sqlite.indexes, triggers: wire.sqlite.triggers },
    })
}

fn column(wire: WireColumn) -> Result<ColumnDef, String> {
    let sequence = match (wire.serial, wire.identity, wire.sequence) {
        (Some(name), None, _) => Some(Sequence::Serial(name)),
        (None, Some(_), Some(name)) => Some(Sequence::Identity(name)),
        (None, None, None) => None,
        _ => return Err(format!("column {}: its sequence is not clear", wire.name)),
    };
    Ok(ColumnDef {
        kind: Type::of_word(&wire.kind).ok_or_else(|| format!("column {}: type {}", wire.name, wire.kind))?,
        name: wire.name,
        postgres: wire.postgres,
        sqlite: wire.sqlite,
        not_null: wire.not_null,
        not_null_name: wire.not_null_name,
        default: wire.default,
        generated: wire.generated,
        sequence,
    })
}

fn trigger(wire: WireTrigger) -> Result<Trigger, String> {
    let signature = wire
        .function
        .split_once("FUNCTION ")
        .and_then(|(_, rest)| rest.split_once(')'))
        .map(|(signature, _)| format!("{signature})"))
        .ok_or("a trigger's function has no name")?;
    Ok(Trigger { definition: wire.definition, function: wire.function, signature })
}
