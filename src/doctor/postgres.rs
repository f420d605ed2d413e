//! A PostgreSQL schema against its revision's entry in the catalogue: tables, columns, sequences and triggers. Keys and
//! indexes are in [`super::keys`].

use std::collections::BTreeSet;
use std::sync::Arc;

use super::finding::{Finding, Severity};
use super::keys;
use crate::domain::catalogue::{Catalogue, ColumnDef, Line, Revision, Sequence, TableDef, max_chars};
use crate::domain::examination::{Column, Examination, Table};
use crate::domain::expression::canonical;
use crate::domain::identity::Claim;
use crate::store::postgres::mend;
use crate::store::postgres::rows::{Condition, conversion};

use Severity::{Error, Note, Warning};

/// What a comparison works on.
pub(super) struct Case<'a> {
    pub(super) examination: &'a Examination,
    pub(super) claim: &'a Claim,
    pub(super) catalogue: &'static Catalogue,
    pub(super) schema: &'a str,
    /// `server_version_num`.
    pub(super) version: i32,
}

impl Case<'_> {
    /// The revision that a table belongs to.
    fn revision_of(&self, table: &str) -> Option<&'static Revision> {
        let has = |r: &&Revision| r.table(table).is_some() || r.version_tables.iter().any(|t| t == table);
        self.claim.revisions.iter().map(|(r, _)| *r).find(has)
    }

    /// The revisions after that of a table which still have the table.
    fn later(&self, table: &str) -> Vec<&'static Arc<TableDef>> {
        let Some(own) = self.revision_of(table) else { return Vec::new() };
        let history = self.catalogue.history(own.line).skip_while(|r| r.id != own.id).skip(1);
        history.filter_map(|r| r.table(table)).collect()
    }

    /// What a wrong name breaks: a later revision that no longer has it drops it by that name.
    pub(super) fn by_name(&self, table: &str, name: &str) -> (Severity, String) {
        let has = |t: &&&Arc<TableDef>| {
            let (p, named) = (&t.postgres, |n: &String| n == name);
            p.primary_key.iter().chain(&p.unique).any(|k| named(&k.name))
                || p.foreign_keys.iter().any(|k| named(&k.name))
                || p.checks.iter().any(|(n, _)| named(n))
                || p.indexes.iter().any(|i| named(&i.name))
        };
        let later = self.later(table);
        if later.iter().filter(has).count() < later.len() {
            (Error, format!("`mlflow db upgrade` drops `{name}` by its name and fails"))
        } else {
            (Warning, format!("a later `mlflow db upgrade` may look for `{name}`"))
        }
    }

    /// Text of a trigger or function without the schema's name and without white space that says nothing.
    fn bare(&self, sql: &str) -> String {
        let plain = sql.replace(&format!("\"{}\".", self.schema), "").replace(&format!("{}.", self.schema), "");
        plain.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

/// Whether any revision of MLflow's has that CHECK on that table.
pub(super) fn was_mlflows_check(catalogue: &'static Catalogue, table: &str, expression: &str) -> bool {
    let lines = [Line::Tracking, Line::Auth];
    let mut tables = lines.iter().flat_map(|l| catalogue.history(*l)).filter_map(|r| r.table(table));
    tables.any(|t| t.postgres.checks.iter().any(|(_, e)| canonical(e) == expression))
}

/// Every difference between the schema and its revision.
pub(super) fn compare(case: &Case<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for table in &case.claim.tables {
        match case.examination.table(&table.name) {
            Some(found) => compare_table(case, table, found, &mut findings),
            None => findings.push(
                Finding::new(Error, "missing-table", &table.name)
                    .what("the table is not there; mended, it is empty: its rows cannot be brought back")
                    .breaks("every request that needs it fails")
                    .steps(mend::create_table(table))
                    .gives(format!("table {}", table.name))
                    .needs(table.postgres.foreign_keys.iter().map(|k| key_of(&k.table, &k.references))),
            ),
        }
    }
    findings
}

/// What a reference needs of its parent.
pub(super) fn key_of(table: &str, columns: &[String]) -> String {
    format!("key {table} ({})", columns.join(", "))
}

fn compare_table(case: &Case<'_>, table: &TableDef, found: &Table, findings: &mut Vec<Finding>) {
    // Columns that a generated column's mending moves: what stands on them is made again by that finding.
    let mut moved: BTreeSet<String> = BTreeSet::new();
    for (place, column) in table.columns.iter().enumerate() {
        let there = found.column(&column.name);
        if let Some(expression) = &column.generated {
            let right = there.and_then(|c| c.generated.as_ref()).is_some_and(|e| canonical(e) == canonical(expression));
            if !right {
                findings.push(generated(table, place, column, found, &mut moved));
            }
            continue;
        }
        match there {
            Some(there) => compare_column(case, table, column, there, found, findings),
            None => findings.push(missing_column(case, table, column)),
        }
    }
    for column in found.columns.iter().filter(|c| !table.columns.iter().any(|d| d.name == c.name)) {
        let refuses = column.not_null && column.default.is_none() && column.generated.is_none();
        let refuses = refuses && !matches!(column.sequence, Some(Sequence::Identity(_)));
        let finding = Finding::new(
            if refuses { Error } else { Warning },
            "extra-column",
            format!("{}.{}", table.name, column.name),
        );
        findings.push(
            finding
                .what("MLflow has no such column at this revision")
                .breaks(if refuses {
                    "each insert of MLflow's fails: it has to have a value"
                } else {
                    "a later upgrade that adds a column of that name fails"
                })
                .cannot("to drop it would lose what is in it"),
        );
    }
    keys::compare(case, table, found, &moved, findings);
    triggers(case, table, found, findings);
}

fn generated(
    table: &TableDef,
    place: usize,
    column: &ColumnDef,
    found: &Table,
    moved: &mut BTreeSet<String>,
) -> Finding {
    let there = found.column(&column.name);
    let after = table.columns.iter().skip(place + 1).filter_map(|c| found.column(&c.name));
    let behind: Vec<(&str, &str)> = after.map(|c| (c.name.as_str(), c.kind.as_str())).collect();
    moved.insert(column.name.clone());
    moved.extend(behind.iter().map(|(name, _)| (*name).to_owned()));
    let expression = column.generated.as_deref().unwrap_or_default();
    let unlike =
        there.filter(|c| c.generated.is_none()).map(|_| Condition::unlike(&table.name, &column.name, expression));
    let mut finding = Finding::new(Error, keys::NOT_GENERATED, format!("{}.{}", table.name, column.name))
        .what(match there {
            None => format!("the column is not there; it is computed: {expression}"),
            Some(_) => format!("the column is not computed as {expression}"),
        })
        .breaks("its values stay empty, and what searches by it finds nothing")
        .guard(unlike)
        .steps(mend::place_generated(&table.name, column, there.is_some(), &behind));
    for (name, _) in &behind {
        let def = table.columns.iter().find(|c| c.name == *name);
        let there = found.column(name);
        if let (Some(def), Some(there)) = (def, there) {
            // The moved column is new: it has neither.
            finding.steps.extend(there.default.is_some().then(|| mend::set_default(&table.name, def)).flatten());
            if there.not_null && def.not_null {
                finding.steps.push(mend::set_not_null(&table.name, def, 0));
            }
        }
    }
    finding
}

fn missing_column(case: &Case<'_>, table: &TableDef, column: &ColumnDef) -> Finding {
    let object = format!("{}.{}", table.name, column.name);
    let mut finding = Finding::new(Error, "missing-column", &object)
        .what(format!("the column ({}) is not there; mended, its values are empty", column.postgres))
        .breaks("MLflow fails on every request that reads the table")
        .gives(format!("column {object}"));
    if column.not_null && column.default.is_none() && column.sequence.is_none() {
        finding = finding.guard([Condition::any(&table.name)]);
    }
    let mut plain = column.clone();
    if column.sequence.is_some() {
        plain.not_null = false;
        finding = finding.guard([Condition::any(&table.name)]);
        let name = column.sequence.as_ref().map_or("", |s| s.name());
        let exists = case.examination.sequences.iter().any(|s| s.name == name);
        finding.steps.extend(mend::sequence(table, column, exists, None));
        finding.steps.push(mend::set_not_null(&table.name, column, case.version));
    }
    finding.steps(mend::add_column(&table.name, &plain))
}

fn compare_column(
    case: &Case<'_>,
    table: &TableDef,
    column: &ColumnDef,
    there: &Column,
    found: &Table,
    findings: &mut Vec<Finding>,
) {
    let object = format!("{}.{}", table.name, column.name);
    if there.generated.is_some() {
        let finding = Finding::new(Error, "generated-column", &object)
            .what("the column is computed, and MLflow writes to it")
            .breaks("each insert of MLflow's that names it fails");
        findings.push(finding.cannot("nobody knows whether what it computes is what MLflow would have written"));
        return;
    }
    let changed = wrong_type(table, column, there, found, &object);
    let retyped = changed.as_ref().is_some_and(|f| !f.steps.is_empty());
    findings.extend(changed);
    if column.sequence.is_some() {
        sequence(case, table, column, there, &object, findings);
    } else {
        default(table, column, there, &object, retyped, findings);
    }
    if column.not_null && !there.not_null {
        findings.push(
            Finding::new(Warning, "missing-not-null", &object)
                .what("the column takes NULL, and MLflow's does not")
                .breaks("rows can lose a value that MLflow relies on")
                .guard([Condition::empty(&table.name, &column.name)])
                .step(mend::set_not_null(&table.name, column, case.version)),
        );
    } else if !column.not_null && there.not_null {
        findings.push(
            Finding::new(Error, "extra-not-null", &object)
                .what("the column refuses NULL, and MLflow's does not")
                .breaks("MLflow fails to write rows without a value there")
                .step(mend::set_not_null(&table.name, column, case.version)),
        );
    }
}

fn wrong_type(table: &TableDef, column: &ColumnDef, there: &Column, found: &Table, object: &str) -> Option<Finding> {
    let (want, have) = (column.postgres.as_str(), there.kind.as_str());
    if want == have {
        return None;
    }
    let what = format!("the type is {have}, and MLflow's is {want}");
    let narrow = |breaks| Finding::new(Error, "narrow-column", object).breaks(breaks);
    let wide = |breaks| Finding::new(Warning, "wrong-type", object).breaks(breaks);
    let finding = match (max_chars(want), max_chars(have)) {
        (Some(n), Some(m)) if m > n => {
            let finding = Finding::new(Note, "widened-column", object).what(what);
            return Some(finding.breaks("nothing, as long as no later upgrade narrows it"));
        }
        (Some(_), Some(_)) => narrow("MLflow fails to write values that its own schema takes"),
        (None, Some(_)) if want == "text" => narrow("MLflow fails to write values that its own schema takes"),
        (Some(_), None) if matches!(have, "text" | "character varying") => {
            wide("values get in that MLflow's own schema refuses, and a later upgrade may fail on them")
        }
        _ => match (want, have) {
            ("bigint" | "integer", "integer" | "smallint") => narrow("MLflow fails to write large numbers"),
            ("integer", "bigint") => wide("numbers get in that MLflow's own schema refuses"),
            _ => {
                Finding::new(Error, "wrong-type", object).breaks("MLflow reads or writes something else than it means")
            }
        },
    };
    let finding = finding.what(what).gives(format!("type {object}"));
    let Some(conversion) = conversion(&table.name, &column.name, have, want) else {
        return Some(finding.cannot(format!("no cast from {have} to {want} keeps every value")));
    };
    let old_default = there.default.is_some();
    let mut finding = finding.guard(conversion.unfit).steps(mend::alter_type(
        &table.name,
        column,
        conversion.using.as_deref(),
        old_default,
    ));
    // PostgreSQL would make the CHECKs on it again in other words than MLflow's.
    for (name, expression) in &table.postgres.checks {
        let words = canonical(expression);
        if words.split(' ').any(|w| w == column.name) && keys::has_check(found, name, &words) {
            finding.steps.push(mend::drop_constraint(&table.name, name, false));
            finding.steps.push(mend::add_check(&table.name, name, expression));
        }
    }
    Some(finding)
}

fn default(
    table: &TableDef,
    column: &ColumnDef,
    there: &Column,
    object: &str,
    retyped: bool,
    findings: &mut Vec<Finding>,
) {
    let (want, have) = (column.default.as_deref().map(canonical), there.default.as_deref().map(canonical));
    if want == have {
        return;
    }
    match (&column.default, &there.default) {
        (Some(own), other) => {
            let finding = Finding::new(Warning, "wrong-default", object)
                .what(match other {
                    None => format!("the column has no default, and MLflow's is {own}"),
                    Some(other) => format!("the default is {other}, and MLflow's is {own}"),
                })
                .breaks("rows that MLflow writes without that value get another, or fail");
            findings.push(finding.steps(mend::set_default(&table.name, column)));
        }
        (None, Some(other)) if !retyped => findings.push(
            Finding::new(Note, "extra-default", object)
                .what(format!("the column has a default ({other}), and MLflow's has none"))
                .breaks("nothing: MLflow writes the value itself"),
        ),
        _ => {}
    }
}

fn sequence(
    case: &Case<'_>,
    table: &TableDef,
    column: &ColumnDef,
    there: &Column,
    object: &str,
    findings: &mut Vec<Finding>,
) {
    let Some(wanted) = &column.sequence else { return };
    let state = case.examination.sequences.iter().find(|s| s.name == wanted.name());
    let used = match (wanted, &there.sequence) {
        (Sequence::Serial(own), Some(Sequence::Serial(name)))
        | (Sequence::Identity(own), Some(Sequence::Identity(name))) => own == name,
        _ => false,
    };
    let owner = (table.name.clone(), column.name.clone());
    let Some(state) = state.filter(|_| used) else {
        let other = case.examination.sequences.iter().find(|s| s.owner.as_ref() == Some(&owner));
        let other = other.map(|s| s.name.as_str()).filter(|name| *name != wanted.name());
        let mut finding = Finding::new(Error, "missing-sequence", object)
            .what(match (&there.default, state) {
                (Some(default), _) => format!("its numbers come from {default}, and MLflow's from `{}`", wanted.name()),
                (None, Some(_)) => format!("the column does not take its numbers from `{}`", wanted.name()),
                (None, None) => format!("the sequence `{}` that numbers it is not there", wanted.name()),
            })
            .breaks("MLflow cannot make new rows: experiments/create answers 400 RESOURCE_ALREADY_EXISTS or 500")
            .needs([format!("type {object}")])
            .steps(mend::sequence(table, column, state.is_some(), other));
        if matches!(wanted, Sequence::Identity(_)) && there.default.is_some() {
            finding.steps.push(mend::drop_default(&table.name, &column.name));
        }
        findings.push(finding);
        return;
    };
    if state.owner.as_ref() != Some(&owner) {
        findings.push(
            Finding::new(Warning, "sequence-not-owned", object)
                .what(format!("the sequence `{}` does not belong to the column", state.name))
                .breaks("a dump of the table alone leaves it behind; dropping the table leaves it over")
                .steps(mend::sequence(table, column, true, None)),
        );
    }
    if matches!(wanted, Sequence::Serial(_)) && state.kind != column.postgres {
        findings.push(
            Finding::new(Warning, "wrong-sequence-type", object)
                .what(format!("the sequence `{}` gives {}, and MLflow's {}", state.name, state.kind, column.postgres))
                .breaks("nothing until the numbers grow beyond the column's type")
                .step(mend::sequence_kind(&state.name, &column.postgres)),
        );
    }
}

fn triggers(case: &Case<'_>, table: &TableDef, found: &Table, findings: &mut Vec<Finding>) {
    let mut own: Vec<&str> = Vec::new();
    for trigger in &table.postgres.triggers {
        let name = trigger.definition.split_whitespace().nth(2).unwrap_or_default().trim_matches('"');
        own.push(name);
        let object = format!("{}: {name}", table.name);
        let there = found.triggers.iter().find(|t| t.name == name);
        let finding = match there {
            None => Finding::new(Error, "missing-trigger", object).what("the trigger is not there"),
            Some(there) if !there.enabled => {
                Finding::new(Error, "disabled-trigger", object).what("the trigger is switched off")
            }
            Some(there) if case.bare(&there.definition) != case.bare(&trigger.definition) => {
                Finding::new(Error, "wrong-trigger", object).what("the trigger is not MLflow's")
            }
            Some(there) if case.bare(&there.function) != case.bare(&trigger.function) => {
                Finding::new(Error, "wrong-function", object).what("the trigger's function is not MLflow's")
            }
            Some(_) => continue,
        };
        findings.push(
            finding
                .breaks("what it guards can be changed: secrets that then cannot be decrypted any more")
                .steps(mend::make_trigger(&table.name, trigger, there.map(|t| t.name.as_str()))),
        );
    }
    for trigger in found.triggers.iter().filter(|t| !own.contains(&t.name.as_str())) {
        findings.push(
            Finding::new(Note, "extra-trigger", format!("{}: {}", table.name, trigger.name))
                .what("MLflow has no such trigger")
                .breaks("what it does to MLflow's rows is not known here"),
        );
    }
}
