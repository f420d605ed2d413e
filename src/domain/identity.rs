//! What a store is: which of MLflow's lines and revisions it holds, which of its tables MLflow owns, and why a
//! database that only looks like MLflow's is none.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::domain::catalogue::{Catalogue, Line, Revision, TableDef};
use crate::domain::failure::{Failure, Outcome};
use crate::domain::table::{Column, Shape, TableShape, Type};

/// What an adapter saw in a database.
#[derive(Debug, Default)]
pub struct Observed {
    /// Whether types are SQLite declarations, which are compared by their affinity.
    pub sqlite: bool,
    /// Ordinary tables of the schema.
    pub tables: Vec<ObservedTable>,
    /// The values of each version table there is (`alembic_version`, `alembic_version_auth`).
    pub versions: Vec<(String, Vec<String>)>,
    /// Views, and triggers on tables, by kind and name: they hold no rows and are told, not moved.
    pub others: Vec<String>,
}

/// A table as it was seen.
#[derive(Debug, Clone)]
pub struct ObservedTable {
    /// Its name.
    pub name: String,
    /// Its columns in order.
    pub columns: Vec<ObservedColumn>,
    /// The columns of its primary key.
    pub key: Vec<String>,
}

/// A column as it was seen.
#[derive(Debug, Clone)]
pub struct ObservedColumn {
    /// Its name.
    pub name: String,
    /// The declared type.
    pub declared: String,
    /// Whether its values are computed.
    pub generated: bool,
    /// NOT NULL.
    pub not_null: bool,
}

/// What a store was found to be.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The revision of each of MLflow's lines that lives here: tracking, basic-auth, or both.
    pub revisions: Vec<&'static Revision>,
    /// The definitions of MLflow's tables, in the catalogue's order.
    pub tables: Vec<Arc<TableDef>>,
    /// The shapes of MLflow's tables, in the same order.
    pub shapes: Vec<Shape>,
    /// Tables that MLflow does not own.
    pub foreign: Vec<String>,
    /// Rows of a version table that belong to another program: table and value.
    pub foreign_versions: Vec<(String, String)>,
    /// Views and triggers that MLflow does not own.
    pub others: Vec<String>,
}

impl Identity {
    /// The revision for people: `acf3f17fdcc7 (MLflow 2.8.0 to 2.12.2)`.
    pub fn revision_text(&self) -> String {
        let text = |r: &&Revision| {
            let line = if r.line == Line::Tracking { String::new() } else { format!("{} ", r.line.word()) };
            format!("{line}{} ({})", r.id, r.releases_text())
        };
        self.revisions.iter().map(text).collect::<Vec<_>>().join(", ")
    }

    /// The revision ids with their lines, for comparing two stores.
    pub fn revision_ids(&self) -> Vec<(Line, &str)> {
        self.revisions.iter().map(|r| (r.line, r.id.as_str())).collect()
    }
}

const NOT_MLFLOW: &str = "give the database that `mlflow server --backend-store-uri` names";

/// Finds out what a store is.
///
/// # Errors
/// Source, with a sentence an operator understands: not MLflow's, unknown revision, an interrupted creation or
/// upgrade, or another program's tables under MLflow's revision.
pub fn identify(observed: &Observed, catalogue: &'static Catalogue) -> Outcome<Identity> {
    let (mut versions, names) = (Versions::default(), names(observed));
    for (table, values) in &observed.versions {
        versions.add(table, values, &names, catalogue, false)?;
    }
    let Versions { mut revisions, foreign_versions, unknown, .. } = versions;
    if revisions.is_empty() {
        return Err(not_mlflow(observed, &names, &unknown, catalogue));
    }
    if let Some(value) = unknown.first() {
        return Err(Failure::source(format!("`alembic_version` holds `{value}`, which is no revision of MLflow's"))
            .hint("another program keeps its own revision there: its tables and this row must move out first"));
    }
    revisions.sort_by_key(|(r, _)| r.line);
    let mut identity = Identity {
        revisions: revisions.iter().map(|(r, _)| *r).collect(),
        tables: Vec::new(),
        shapes: Vec::new(),
        foreign: Vec::new(),
        foreign_versions,
        others: Vec::new(),
    };
    for (revision, version_table) in &revisions {
        for table in &revision.tables {
            let is_version = revision.version_tables.contains(&table.name);
            let table = own_name(revision, table, version_table);
            check_table(revision, &table, observed)?;
            let mut shape = table.shape();
            if is_version && !identity.foreign_versions.is_empty() {
                shape.only = Some(vec![revision.id.clone()]);
            }
            identity.shapes.push(Arc::new(shape));
            identity.tables.push(table);
        }
    }
    for table in &observed.tables {
        if identity.tables.iter().any(|t| t.name == table.name) {
            continue;
        }
        refuse_leftover(&table.name, &identity, catalogue)?;
        identity.foreign.push(table.name.clone());
    }
    let own: BTreeSet<String> = identity.tables.iter().flat_map(|t| owned_triggers(t)).collect();
    identity.others = observed.others.iter().filter(|o| !own.contains(*o)).cloned().collect();
    Ok(identity)
}

/// What a store says that it is, whether its tables agree or not: for the doctor, who looks at them one by one.
pub struct Claim {
    /// The revision of each of MLflow's lines that lives here, with the name of its version table.
    pub revisions: Vec<(&'static Revision, String)>,
    /// The definitions of the tables that these revisions have.
    pub tables: Vec<Arc<TableDef>>,
    /// Version tables that name several of MLflow's revisions, and those.
    pub several: Vec<(String, Vec<String>)>,
    /// Values of version tables that are no revision of MLflow's.
    pub unknown: Vec<String>,
    /// Later revisions whose tables and columns are exactly those that are there, unlike those of the one that is named.
    pub fits_later: Vec<&'static Revision>,
}

/// The revision that a store claims, found by its version table and main tables alone.
///
/// # Errors
/// Source: nothing there says that it is MLflow's.
pub fn claim(observed: &Observed, catalogue: &'static Catalogue) -> Outcome<Claim> {
    let (mut versions, names) = (Versions::default(), names(observed));
    for (table, values) in &observed.versions {
        versions.add(table, values, &names, catalogue, true)?;
    }
    if versions.revisions.is_empty() {
        return Err(not_mlflow(observed, &names, &versions.unknown, catalogue));
    }
    versions.revisions.sort_by_key(|(r, _)| r.line);
    let mut tables = Vec::new();
    for (revision, version_table) in &versions.revisions {
        tables.extend(revision.tables.iter().map(|t| own_name(revision, t, version_table)));
    }
    let Versions { revisions, several, unknown, .. } = versions;
    let fits_later = revisions
        .iter()
        .filter(|(own, _)| !fits(own, observed, catalogue))
        .flat_map(|(own, _)| catalogue.history(own.line).skip_while(|r| r.id != own.id).skip(1))
        .filter(|later| fits(later, observed, catalogue))
        .collect();
    Ok(Claim { revisions, tables, several, unknown, fits_later })
}

/// Whether the tables of a line, and their columns, are those of the revision.
fn fits(revision: &Revision, observed: &Observed, catalogue: &Catalogue) -> bool {
    let known = catalogue.table_names(revision.line);
    observed.tables.iter().filter(|t| known.contains(t.name.as_str())).all(|t| {
        revision.table(&t.name).is_some_and(|own| {
            let columns: BTreeSet<&str> = t.columns.iter().map(|c| c.name.as_str()).collect();
            columns == own.columns.iter().map(|c| c.name.as_str()).collect()
        })
    }) && revision
        .tables
        .iter()
        .all(|own| !known.contains(own.name.as_str()) || observed.tables.iter().any(|t| t.name == own.name))
}

/// Whether it looks like MLflow's and names a revision that is not known here: a newer release's.
pub fn is_newer(observed: &Observed, catalogue: &'static Catalogue) -> bool {
    let names = names(observed);
    let values: Vec<(&String, &String)> =
        observed.versions.iter().flat_map(|(table, values)| values.iter().map(move |v| (table, v))).collect();
    let unknown = |(table, value): &(&String, &String)| revision_of(table, value, &names, catalogue).is_none();
    looks_like_mlflow(&names) && !values.is_empty() && values.iter().all(unknown)
}

fn names(observed: &Observed) -> BTreeSet<&str> {
    observed.tables.iter().map(|t| t.name.as_str()).collect()
}

/// What the version tables of a store say.
#[derive(Default)]
struct Versions {
    revisions: Vec<(&'static Revision, String)>,
    foreign_versions: Vec<(String, String)>,
    several: Vec<(String, Vec<String>)>,
    unknown: Vec<String>,
}

impl Versions {
    /// Takes in one version table. `lenient`: of several revisions the newest is taken whose tables are there.
    fn add(
        &mut self,
        table: &str,
        values: &[String],
        names: &BTreeSet<&str>,
        catalogue: &'static Catalogue,
        lenient: bool,
    ) -> Outcome<()> {
        let optuna = names.contains("version_info") && names.contains("trials");
        let mut found: Vec<&'static Revision> =
            values.iter().filter_map(|value| revision_of(table, value, names, catalogue)).collect();
        if found.len() > 1 && lenient {
            self.several.push((table.to_owned(), values.to_vec()));
            let age = |r: &&Revision| catalogue.history(r.line).position(|other| other.id == r.id);
            found.sort_by_key(age);
            let whole = |r: &&&'static Revision| r.tables.iter().all(|t| names.contains(t.name.as_str()));
            let chosen = found.iter().rev().find(whole).or(found.first());
            self.revisions.extend(chosen.map(|r| (*r, table.to_owned())));
            return Ok(());
        }
        match found.as_slice() {
            [] => self.unknown.extend(values.iter().cloned()),
            // An auth database of old releases that was upgraded keeps its plain `alembic_version` beside the new one.
            [one] if one.line == Line::Auth && table == "alembic_version" && names.contains("alembic_version_auth") => {
            }
            [one] => {
                self.revisions.push((*one, table.to_owned()));
                let others = values.iter().filter(|v| **v != one.id);
                if optuna {
                    self.foreign_versions.extend(others.map(|v| (table.to_owned(), v.clone())));
                } else {
                    self.unknown.extend(others.cloned());
                }
            }
            _ => {
                return Err(Failure::source(format!(
                    "`{table}` names {} revisions ({}), and a sound MLflow database has one",
                    values.len(),
                    values.join(", ")
                ))
                .hint("an `mlflow db upgrade` was interrupted or two databases were merged: restore a backup"));
            }
        }
        Ok(())
    }
}

/// The definition of a table under the name that it has in a store: the version table has had two.
fn own_name(revision: &Revision, table: &Arc<TableDef>, version_table: &str) -> Arc<TableDef> {
    if revision.version_tables.contains(&table.name) && table.name != version_table {
        Arc::new(renamed(table, version_table))
    } else {
        table.clone()
    }
}

/// What an archive says that it holds, as an identity: its revisions as the catalogue knows them, and its tables with
/// the columns that these have.
///
/// # Errors
/// Damaged: a revision that this program does not know, or tables that are not those of the revision.
pub fn archived(
    revisions: &[(Line, String)],
    tables: &[(Shape, bool)],
    catalogue: &'static Catalogue,
) -> Outcome<Identity> {
    let mut known: Vec<&'static Revision> = Vec::new();
    for (line, id) in revisions {
        let revision = catalogue.revision(*line, id).ok_or_else(|| {
            Failure::damaged(format!("the {} revision `{id}` is not one that this mlops knows", line.word()))
                .hint("a newer mlops wrote this archive: use that")
        })?;
        known.push(revision);
    }
    let mut identity = Identity {
        revisions: known,
        tables: Vec::new(),
        shapes: Vec::new(),
        foreign: Vec::new(),
        foreign_versions: Vec::new(),
        others: Vec::new(),
    };
    for (stored, foreign) in tables {
        if *foreign {
            identity.foreign.push(stored.name.clone());
            continue;
        }
        let table = identity.revisions.iter().find_map(|revision| match revision.table(&stored.name) {
            Some(table) => Some(table.clone()),
            None if revision.version_tables.contains(&stored.name) => {
                let version = revision.tables.iter().find(|t| revision.version_tables.contains(&t.name))?;
                Some(Arc::new(renamed(version, &stored.name)))
            }
            None => None,
        });
        let table = table.filter(|table| {
            let shape = table.shape();
            let of = |shape: &TableShape| shape.columns.iter().map(|c| (c.name.clone(), c.kind)).collect::<Vec<_>>();
            of(&shape) == of(stored)
        });
        let table = table
            .ok_or_else(|| Failure::damaged(format!("its table `{}` is not that of its revision", stored.name)))?;
        identity.shapes.push(Arc::new(table.shape()));
        identity.tables.push(table);
    }
    let wanted: usize = identity.revisions.iter().map(|r| r.tables.len()).sum();
    if wanted != identity.tables.len() {
        return Err(Failure::damaged(format!(
            "it holds {} of the {wanted} tables of its revision",
            identity.tables.len()
        )));
    }
    Ok(identity)
}

/// The revision that `value` in `table` means. Ids of the two lines overlap, so the tables decide: a revision's line
/// is taken only where that line's own main table is there.
fn revision_of(
    table: &str,
    value: &str,
    names: &BTreeSet<&str>,
    catalogue: &'static Catalogue,
) -> Option<&'static Revision> {
    [(Line::Tracking, "experiments"), (Line::Auth, "users")].into_iter().find_map(|(line, main)| {
        let revision = catalogue.revision(line, value)?;
        (revision.version_tables.iter().any(|t| t == table) && names.contains(main)).then_some(revision)
    })
}

fn not_mlflow(observed: &Observed, names: &BTreeSet<&str>, unknown: &[String], catalogue: &Catalogue) -> Failure {
    let known = catalogue.table_names(Line::Tracking);
    let ours: Vec<&str> = names.iter().filter(|n| known.contains(**n)).copied().collect();
    let looks_like_it = looks_like_mlflow(names);
    match unknown.first() {
        Some(value) if looks_like_it => {
            let newest = catalogue.newest(Line::Tracking).map_or("", |r| r.id.as_str());
            Failure::source(format!(
                "the revision `{value}` is not one that this mlops knows (the newest is {newest}, MLflow {})",
                catalogue.mlflow
            ))
            .hint("a newer MLflow made or upgraded this database: use a newer mlops")
        }
        Some(value) => Failure::source(format!(
            "not an MLflow database: `alembic_version` holds `{value}`, but MLflow's tables are not there"
        ))
        .hint(NOT_MLFLOW),
        None if names.is_empty() => Failure::source("not an MLflow database: it holds no tables at all")
            .hint("an interrupted first start of MLflow leaves such a file; there is nothing in it to move"),
        None if !ours.is_empty() => Failure::source(format!(
            "an interrupted creation: {} of MLflow's tables ({}), but no revision in `alembic_version`",
            ours.len(),
            some_of(&ours)
        ))
        .hint("start the MLflow release that made it once more, or restore a backup"),
        None => {
            Failure::source(format!("not an MLflow database: none of its {} tables is MLflow's", observed.tables.len()))
                .hint(NOT_MLFLOW)
        }
    }
}

fn looks_like_mlflow(names: &BTreeSet<&str>) -> bool {
    names.contains("experiments") && (names.contains("runs") || names.contains("metrics"))
}

fn some_of(names: &[&str]) -> String {
    let shown = names.iter().take(5).copied().collect::<Vec<_>>().join(", ");
    if names.len() > 5 { format!("{shown} ...") } else { shown }
}

/// Basic-auth's version table has had two names; everything else about it is the same.
fn renamed(table: &TableDef, name: &str) -> TableDef {
    let mut def = table.clone();
    def.name = name.to_owned();
    def.sqlite.create = def.sqlite.create.replace(&table.name, name);
    if let Some(key) = &mut def.postgres.primary_key {
        key.name = key.name.replace(&table.name, name);
    }
    def
}

fn owned_triggers(table: &TableDef) -> Vec<String> {
    let names = table.sqlite.triggers.iter().chain(table.postgres.triggers.iter().map(|t| &t.definition));
    names
        .filter_map(|sql| {
            let name = sql.split_whitespace().skip_while(|w| !w.eq_ignore_ascii_case("trigger")).nth(1)?;
            Some(format!("trigger {}", name.trim_matches('"')))
        })
        .collect()
}

fn check_table(revision: &Revision, table: &TableDef, observed: &Observed) -> Outcome<()> {
    let claim = || format!("revision {} ({})", revision.id, revision.releases_text());
    let Some(found) = observed.tables.iter().find(|t| t.name == table.name) else {
        return Err(Failure::source(format!("the table `{}` of {} is missing", table.name, claim()))
            .hint("an upgrade or a restore was interrupted, or another program uses MLflow's revision id"));
    };
    for column in &found.columns {
        let Some(known) = table.columns.iter().find(|c| c.name == column.name) else {
            return Err(Failure::source(format!(
                "`{}` has a column `{}` that {} does not have",
                table.name,
                column.name,
                claim()
            ))
            .hint("another program's database under MLflow's revision id (FastTrackML does this), or a changed schema; a column that is not understood is never dropped"));
        };
        if observed.sqlite && affinity(&known.sqlite) != affinity(&column.declared) {
            return Err(Failure::source(format!(
                "the column `{}.{}` is declared {}, and {} has {}",
                table.name,
                column.name,
                if column.declared.is_empty() { "without a type" } else { &column.declared },
                claim(),
                known.sqlite
            )));
        }
        if column.generated != known.generated.is_some() {
            let word = if column.generated { "is generated" } else { "is not generated" };
            return Err(Failure::source(format!(
                "the column `{}.{}` {word}, unlike that of {}",
                table.name,
                column.name,
                claim()
            )));
        }
    }
    match table.columns.iter().find(|c| !found.columns.iter().any(|f| f.name == c.name)) {
        Some(column) => {
            Err(Failure::source(format!("`{}` lacks the column `{}` of {}", table.name, column.name, claim()))
                .hint("an upgrade was interrupted, or another program uses MLflow's revision id"))
        }
        None => Ok(()),
    }
}

/// A table that MLflow has at another revision stands for an upgrade that did not end; alembic's own temporary tables
/// do as well.
fn refuse_leftover(name: &str, identity: &Identity, catalogue: &Catalogue) -> Outcome<()> {
    let hint = "restore the backup from before the upgrade, or let the MLflow that was upgrading finish it";
    if let Some(table) = name.strip_prefix("_alembic_tmp_") {
        return Err(Failure::source(format!(
            "an upgrade of `{table}` was interrupted: alembic's `{name}` is still there"
        ))
        .hint(hint));
    }
    for revision in &identity.revisions {
        if let Some(other) = catalogue.first_with_table(revision.line, name) {
            return Err(Failure::source(format!(
                "an interrupted upgrade: the table `{name}` comes with revision {} ({}), but the database says {}",
                other.id,
                other.releases_text(),
                revision.id
            ))
            .hint(hint));
        }
    }
    Ok(())
}

/// SQLite's rules for the affinity of a declared type (SQLite documentation, "Datatypes In SQLite", 3.1).
pub fn affinity(declared: &str) -> &'static str {
    let declared = declared.to_ascii_uppercase();
    let has = |words: &[&str]| words.iter().any(|w| declared.contains(w));
    if has(&["INT"]) {
        "INTEGER"
    } else if has(&["CHAR", "CLOB", "TEXT"]) {
        "TEXT"
    } else if declared.is_empty() || has(&["BLOB"]) {
        "BLOB"
    } else if has(&["REAL", "FLOA", "DOUB"]) {
        "REAL"
    } else {
        "NUMERIC"
    }
}

/// The shape of a table that MLflow does not own, for `--include-table`: its columns by their declared types.
///
/// # Errors
/// Source: a column whose values PostgreSQL could not keep exactly under any fixed type.
pub fn foreign_shape(table: &ObservedTable, sqlite: bool) -> Outcome<TableShape> {
    let mut columns = Vec::new();
    for column in table.columns.iter().filter(|c| !c.generated) {
        let kind = if sqlite { of_declaration(&column.declared) } else { Some(of_format_type(&column.declared)) };
        let kind = kind.ok_or_else(|| {
            Failure::source(format!(
                "the column `{}.{}` is declared {}, for which PostgreSQL has no type that keeps every value exactly",
                table.name, column.name, column.declared
            ))
            .hint("leave this table out of --include-table")
        })?;
        columns.push(Column { name: column.name.clone(), kind, max_chars: None, not_null: column.not_null });
    }
    let key = table.key.iter().filter_map(|k| columns.iter().position(|c| c.name == *k)).collect();
    Ok(TableShape { name: table.name.clone(), columns, key, only: None })
}

/// The type for a column that SQLite declares so; `None`: NUMERIC, where one column may hold integers, floats and text.
fn of_declaration(declared: &str) -> Option<Type> {
    let declared = declared.to_ascii_uppercase();
    match affinity(&declared) {
        "INTEGER" => Some(Type::Int8),
        "REAL" => Some(Type::Float),
        "TEXT" => Some(Type::Text),
        "BLOB" => Some(Type::Bytes),
        _ if declared.starts_with("BOOL") => Some(Type::Bool),
        _ if declared == "JSON" => Some(Type::Json),
        // SQLite keeps dates as text; text is what arrives.
        _ if declared.starts_with("DATE") || declared.starts_with("TIME") => Some(Type::Text),
        _ => None,
    }
}

/// The type for a column of PostgreSQL's; what has no type here is read as its text.
fn of_format_type(format_type: &str) -> Type {
    match format_type {
        "smallint" | "integer" | "bigint" => Type::Int8,
        "real" | "double precision" => Type::Float,
        "boolean" => Type::Bool,
        "bytea" => Type::Bytes,
        "json" => Type::Json,
        _ => Type::Text,
    }
}
