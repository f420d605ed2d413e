//! A SQLite file against its revision. Names of constraints mean nothing there, and PostgreSQL's limits are not kept.

use std::path::Path;
use std::sync::Arc;

use super::finding::{Finding, Severity};
use super::postgres::was_mlflows_check;
use super::{Depth, Diagnosis, data, leftovers};
use crate::domain::address::shown;
use crate::domain::catalogue::{Catalogue, TableDef};
use crate::domain::count::counted;
use crate::domain::examination::{Column, Rule, Table};
use crate::domain::expression::canonical;
use crate::domain::failure::Outcome;
use crate::domain::identity::{self, affinity};
use crate::domain::table::Shape;
use crate::engine::copy::Work;
use crate::store::postgres::rows::Found;
use crate::store::sqlite::snapshot::Snapshot;
use crate::store::sqlite::{examine, introspect, rules};

use Severity::{Error, Note, Warning};

/// SQLite cannot change a table in place, and the file may be in use.
const MIGRATE: &str = "mlops does not write to a SQLite file: mlops migrate makes a sound copy of its rows, in PostgreSQL or, \
                       through an archive, in a new file";

/// Looks at a private copy of a SQLite file.
///
/// # Errors
/// Source: it cannot be read, is damaged, or is no MLflow database.
pub fn examine_sqlite(path: &Path, work_dir: &Path, work: &Work<'_>) -> Outcome<Diagnosis> {
    let snapshot = Snapshot::take(path, work_dir, work.cancel, work.events)?;
    snapshot.check(work.cancel)?;
    examine_snapshot(&snapshot, path, Depth::Rows)
}

/// Looks at a private copy of the file `path` that is there already. Whether it is damaged is for [`Snapshot::check`].
///
/// # Errors
/// Source: it cannot be read, or is no MLflow database.
pub fn examine_snapshot(snapshot: &Snapshot, path: &Path, depth: Depth) -> Outcome<Diagnosis> {
    let catalogue = Catalogue::embedded()?;
    let observed = introspect::observe(snapshot)?;
    let claim = identity::claim(&observed, catalogue).map_err(|f| f.on(shown(path)))?;
    let examination = examine::examine(snapshot)?;
    let expected = examine::expected(&claim.tables)?;
    let mut findings = leftovers::versions(&claim);
    for table in &expected.tables {
        match examination.table(&table.name) {
            Some(found) => compare(catalogue, table, found, &mut findings),
            None => findings.push(
                Finding::new(Error, "missing-table", &table.name)
                    .what("the table is not there")
                    .breaks("every request that needs it fails"),
            ),
        }
    }
    findings.extend(leftovers::tables(&examination, &claim, catalogue, false));
    // What is missing cannot be asked for rows.
    let whole = |t: &&Arc<TableDef>| {
        let found = examination.table(&t.name);
        let parents = t.postgres.foreign_keys.iter().all(|k| examination.table(&k.table).is_some());
        parents && found.is_some_and(|f| t.columns.iter().all(|c| f.column(&c.name).is_some()))
    };
    let tables: Vec<Arc<TableDef>> = claim.tables.iter().filter(whole).cloned().collect();
    if depth == Depth::Rows {
        look_at_rows(snapshot, &tables, &mut findings)?;
    }
    for finding in findings.iter_mut().filter(|f| f.counts() && f.cannot.is_none()) {
        finding.cannot = Some(MIGRATE.to_owned());
    }
    let mut diagnosis = Diagnosis {
        address: shown(path),
        engine: "SQLite",
        version: rusqlite::version().to_owned(),
        revisions: claim.revisions.iter().map(|(r, _)| *r).collect(),
        findings,
    };
    diagnosis.sort();
    Ok(diagnosis)
}

fn look_at_rows(snapshot: &Snapshot, tables: &[Arc<TableDef>], findings: &mut Vec<Finding>) -> Outcome<()> {
    let found = |(rows, first): examine::Counted| Found { rows, first };
    let shapes: Vec<Shape> = tables.iter().map(|t| Arc::new(t.shape())).collect();
    let has = |names: &[&str]| names.iter().all(|n| tables.iter().any(|t| t.name == *n));
    for broken in rules::broken(snapshot, tables, &shapes, 3)? {
        let rows = Found { rows: broken.rows, first: broken.first };
        if broken.table == "runs" && broken.what.contains("`experiments`") && has(&["runs", "experiments"]) {
            findings.push(data::lost_experiments(&rows, &found(examine::lost_experiments(snapshot)?)));
        } else if broken.what.starts_with("refers") {
            findings.push(data::parentless(&broken.table, &["its parent".to_owned()], &broken.what, &rows));
        } else {
            let first = rows.first.join("; ");
            findings.push(
                Finding::new(Warning, "rows-break-rule", &broken.table)
                    .what(format!("{}: each {} (first: {first})", counted(rows.rows, "row"), broken.what))
                    .breaks("PostgreSQL refuses them")
                    .cannot("only you know what they should be"),
            );
        }
    }
    let column =
        |table: &str, name: &str| tables.iter().any(|t| t.name == table && t.columns.iter().any(|c| c.name == name));
    if has(&["metrics", "latest_metrics"]) && column("metrics", "step") && column("latest_metrics", "step") {
        let (old, extra) = examine::latest_metrics(snapshot)?;
        findings.extend(data::latest(found(old), found(extra), Vec::new()));
    }
    if has(&["runs", "experiments"]) {
        findings.extend(data::deletion(&found(examine::active_in_deleted(snapshot)?)));
    }
    Ok(())
}

fn compare(catalogue: &'static Catalogue, own: &Table, found: &Table, findings: &mut Vec<Finding>) {
    let object = |name: &str| format!("{}.{name}", own.name);
    for column in &own.columns {
        match found.column(&column.name) {
            Some(there) => compare_column(column, there, &object(&column.name), findings),
            None => findings.push(
                Finding::new(Error, "missing-column", object(&column.name))
                    .what("the column is not there")
                    .breaks("MLflow fails on every request that reads the table"),
            ),
        }
    }
    for column in found.columns.iter().filter(|c| own.column(&c.name).is_none()) {
        let refuses = column.not_null && column.default.is_none() && column.generated.is_none();
        findings.push(
            Finding::new(if refuses { Error } else { Warning }, "extra-column", object(&column.name))
                .what("MLflow has no such column at this revision")
                .breaks(if refuses { "each insert of MLflow's fails" } else { "a migration refuses the file" })
                .cannot("to drop it would lose what is in it"),
        );
    }
    constraints(catalogue, own, found, findings);
    named(own, found, findings);
}

fn compare_column(own: &Column, there: &Column, object: &str, findings: &mut Vec<Finding>) {
    if affinity(&own.kind) != affinity(&there.kind) {
        findings.push(
            Finding::new(Error, "wrong-type", object)
                .what(format!("the type is {}, and MLflow's is {}", there.kind, own.kind))
                .breaks("values are kept in another form than MLflow wrote them"),
        );
    } else if own.kind != there.kind {
        findings.push(
            Finding::new(Note, "other-type", object)
                .what(format!("the type is {}, and MLflow's is {}", there.kind, own.kind))
                .breaks("nothing: SQLite keeps the same values in both"),
        );
    }
    if own.generated.as_deref().map(canonical) != there.generated.as_deref().map(canonical) {
        findings.push(
            Finding::new(Error, "not-generated", object)
                .what("the column is not computed as MLflow's is")
                .breaks("its values are not what MLflow expects, and inserts may fail"),
        );
    }
    if own.not_null != there.not_null {
        let (severity, id) = if own.not_null { (Warning, "missing-not-null") } else { (Error, "extra-not-null") };
        findings.push(
            Finding::new(severity, id, object)
                .what(if own.not_null {
                    "the column takes NULL, and MLflow's does not"
                } else {
                    "the column refuses NULL, and MLflow's does not"
                })
                .breaks(if own.not_null {
                    "rows can lose a value that MLflow relies on"
                } else {
                    "MLflow fails to write rows without a value there"
                }),
        );
    }
    if own.default.is_some() && own.default.as_deref().map(canonical) != there.default.as_deref().map(canonical) {
        findings.push(
            Finding::new(Warning, "wrong-default", object)
                .what(format!("the default is {:?}, and MLflow's {:?}", there.default, own.default))
                .breaks("rows that MLflow writes without that value get another, or fail"),
        );
    }
}

/// A constraint in words, by which two are the same; SQLite's have no names that count.
fn words(rule: &Rule) -> String {
    match rule {
        Rule::Primary(columns) => format!("primary key ({})", columns.join(", ")),
        Rule::Unique(columns) => format!("unique ({})", columns.join(", ")),
        Rule::Check(expression) => format!("check {}", canonical(expression)),
        Rule::Foreign(key) => format!(
            "reference ({}) to {} ({}) {} {}",
            key.columns.join(", "),
            key.table,
            key.references.join(", "),
            key.on_delete.as_deref().unwrap_or_default(),
            key.on_update.as_deref().unwrap_or_default()
        ),
    }
}

fn constraints(catalogue: &'static Catalogue, own: &Table, found: &Table, findings: &mut Vec<Finding>) {
    let there: Vec<String> = found.constraints.iter().map(|c| words(&c.rule)).collect();
    let expected: Vec<String> = own.constraints.iter().map(|c| words(&c.rule)).collect();
    for (constraint, text) in own.constraints.iter().zip(&expected).filter(|(_, text)| !there.contains(text)) {
        let (severity, id) = match constraint.rule {
            Rule::Primary(_) => (Error, "missing-primary-key"),
            Rule::Unique(_) => (Error, "missing-unique"),
            Rule::Foreign(_) => (Error, "missing-foreign-key"),
            // SQLAlchemy wrote one for each column of yes and no, and left off doing so.
            Rule::Check(_) if text.ends_with("= any array 0 1") => (Note, "missing-check"),
            Rule::Check(_) => (Warning, "missing-check"),
        };
        findings.push(
            Finding::new(severity, id, format!("{}: {text}", own.name))
                .what("it is not there")
                .breaks("rows get in that MLflow's own schema refuses"),
        );
    }
    for (constraint, text) in found.constraints.iter().zip(&there).filter(|(_, text)| !expected.contains(text)) {
        let stale = match &constraint.rule {
            Rule::Check(expression) => was_mlflows_check(catalogue, &own.name, &canonical(expression)),
            _ => false,
        };
        let (severity, id) = if stale { (Warning, "stale-check") } else { (Note, "extra-constraint") };
        findings.push(
            Finding::new(severity, id, format!("{}: {text}", own.name))
                .what(if stale { "the CHECK is that of an older revision" } else { "MLflow has no such rule" })
                .breaks(if stale {
                    "MLflow fails to write values that came later"
                } else {
                    "what MLflow writes may be refused"
                }),
        );
    }
}

fn named(own: &Table, found: &Table, findings: &mut Vec<Finding>) {
    let object = |name: &str| format!("{}: {name}", own.name);
    for index in &own.indexes {
        let there = found.indexes.iter().find(|i| i.index.name == index.index.name);
        let right = |i: &&crate::domain::examination::IndexState| {
            i.index.keys == index.index.keys && i.index.unique == index.index.unique
        };
        if there.filter(right).is_none() {
            findings.push(
                Finding::new(
                    Warning,
                    if there.is_some() { "wrong-index" } else { "missing-index" },
                    object(&index.index.name),
                )
                .what(format!("MLflow's index on ({}) is not there", index.index.keys.join(", ")))
                .breaks("searches that it serves read the whole table, and a later upgrade that drops it fails"),
            );
        }
    }
    for index in found.indexes.iter().filter(|i| !own.indexes.iter().any(|o| o.index.name == i.index.name)) {
        findings.push(
            Finding::new(Note, "extra-index", object(&index.index.name))
                .what("MLflow has no such index")
                .breaks("nothing"),
        );
    }
    for trigger in &own.triggers {
        let right = found
            .triggers
            .iter()
            .any(|t| t.name == trigger.name && examine::same_statement(&t.definition, &trigger.definition));
        if !right {
            findings.push(
                Finding::new(Error, "missing-trigger", object(&trigger.name))
                    .what("MLflow's trigger is not there")
                    .breaks("what it guards can be changed: secrets that then cannot be decrypted any more"),
            );
        }
    }
    for trigger in found.triggers.iter().filter(|t| !own.triggers.iter().any(|o| o.name == t.name)) {
        findings.push(
            Finding::new(Note, "extra-trigger", object(&trigger.name))
                .what("MLflow has no such trigger")
                .breaks("what it does to MLflow's rows is not known here"),
        );
    }
}
