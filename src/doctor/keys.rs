//! Keys, references, CHECKs and indexes of one table against the catalogue. What is right but for its name is renamed,
//! not built again.

use std::collections::BTreeSet;

use super::finding::{Finding, Severity};
use super::postgres::{Case, key_of, was_mlflows_check};
use crate::domain::catalogue::{ForeignKey, Index, Key, TableDef};
use crate::domain::examination::{Constraint, IndexState, Rule, Table};
use crate::domain::expression::canonical;
use crate::store::postgres::mend;
use crate::store::postgres::rows::Condition;

use Severity::{Error, Note, Warning};

/// The finding whose mending moves columns.
pub(super) const NOT_GENERATED: &str = "not-generated";

/// What is compared of one table, and which of its indexes were found to be MLflow's.
struct Compared<'a> {
    case: &'a Case<'a>,
    table: &'a TableDef,
    found: &'a Table,
    /// Columns that move, with all that stands on them.
    moved: &'a BTreeSet<String>,
    used: BTreeSet<String>,
}

pub(super) fn compare(
    case: &Case<'_>,
    table: &TableDef,
    found: &Table,
    moved: &BTreeSet<String>,
    findings: &mut Vec<Finding>,
) {
    let mut compared = Compared { case, table, found, moved, used: BTreeSet::new() };
    for (keys, word) in [(table.postgres.primary_key.as_slice(), "PRIMARY KEY"), (&table.postgres.unique, "UNIQUE")] {
        for key in keys {
            findings.extend(compared.key(key, word));
        }
    }
    for key in &table.postgres.foreign_keys {
        findings.extend(compared.reference(key));
    }
    for (name, expression) in &table.postgres.checks {
        findings.extend(compared.check(name, expression));
    }
    for index in &table.postgres.indexes {
        let right = found.indexes.iter().any(|i| i.valid && i.index.name == index.name && same_index(&i.index, index));
        if right && compared.index_moves(index) {
            // It goes with its column and is made again: nothing is wrong with it.
            let mover = findings.iter_mut().rev().find(|f| f.id == NOT_GENERATED);
            if let Some(mover) = mover {
                mover.steps.push(mend::create_index(&table.name, index));
            }
            continue;
        }
        findings.extend(compared.index(index));
    }
    compared.extra(findings);
}

/// Whether the table has that CHECK under that name.
pub(super) fn has_check(found: &Table, name: &str, words: &str) -> bool {
    let same = |c: &&Constraint| matches!(&c.rule, Rule::Check(e) if c.name == name && canonical(e) == words);
    found.constraints.iter().any(|c| same(&c))
}

fn plain(columns: &[String]) -> Vec<String> {
    columns.iter().map(|c| c.trim_matches('"').to_owned()).collect()
}

/// The name that MLflow gave an index that pgloader copied: it puts `idx_<oid>_` before it, and PostgreSQL cuts the rest.
fn pgloaders(name: &str) -> Option<&str> {
    let (oid, base) = name.strip_prefix("idx_")?.split_once('_')?;
    (!oid.is_empty() && oid.chars().all(|c| c.is_ascii_digit())).then_some(base)
}

fn same_index(a: &Index, b: &Index) -> bool {
    let filter = |i: &Index| i.filter.as_deref().map(canonical);
    a.unique == b.unique
        && a.method == b.method
        && plain(&a.keys) == plain(&b.keys)
        && plain(&a.include) == plain(&b.include)
        && filter(a) == filter(b)
}

impl Compared<'_> {
    fn object(&self, name: &str) -> String {
        format!("{}: {name}", self.table.name)
    }

    /// Whether this stands on a column that moves: it goes with it.
    fn moves<'a>(&self, texts: impl IntoIterator<Item = &'a String>) -> bool {
        texts.into_iter().any(|t| canonical(t).split(' ').any(|w| self.moved.contains(w)))
    }

    fn index_moves(&self, index: &Index) -> bool {
        self.moves(index.keys.iter().chain(&index.include).chain(&index.filter))
    }

    /// Columns of this table that are there to be looked at.
    fn there(&self, columns: &[String]) -> bool {
        columns.iter().all(|c| self.found.column(c).is_some())
    }

    fn columns_needed(&self, columns: &[String]) -> Vec<String> {
        columns.iter().map(|c| format!("column {}.{c}", self.table.name)).collect()
    }

    /// The finding that something right has a wrong name.
    fn misnamed(&self, there: &str, name: &str) -> Finding {
        let (severity, breaks) = self.case.by_name(&self.table.name, name);
        Finding::new(severity, "wrong-name", self.object(name)).what(format!("its name is `{there}`")).breaks(breaks)
    }

    fn key(&mut self, key: &Key, word: &str) -> Option<Finding> {
        let table = &self.table.name;
        let primary = word == "PRIMARY KEY";
        let columns = |c: &Constraint| match &c.rule {
            Rule::Primary(columns) if primary => Some(columns.clone()),
            Rule::Unique(columns) if !primary => Some(columns.clone()),
            _ => None,
        };
        let constraints = || self.found.constraints.iter().filter(|c| columns(c).is_some());
        let moves = self.moves(&key.columns);
        if let Some(there) = constraints().find(|c| columns(c).as_ref() == Some(&key.columns)).filter(|_| !moves) {
            let wrong = there.name != key.name;
            return wrong.then(|| {
                self.misnamed(&there.name, &key.name).step(mend::rename_constraint(table, &there.name, &key.name))
            });
        }
        let over = self.found.indexes.iter().find(|i| {
            let index = &i.index;
            let bare = index.include.is_empty() && index.filter.is_none() && index.method == "btree";
            index.unique && i.valid && bare && plain(&index.keys) == key.columns && !moves
        });
        let other = constraints().find(|c| primary || c.name == key.name).filter(|_| !moves);
        let (id, what) = match (primary, other) {
            (true, None) => ("missing-primary-key", "the primary key is not there".to_owned()),
            (false, None) => ("missing-unique", "the unique constraint is not there".to_owned()),
            (_, Some(other)) => {
                let there = columns(other).unwrap_or_default().join(", ");
                ("wrong-key", format!("it is on ({there}), and MLflow's on ({})", key.columns.join(", ")))
            }
        };
        let mut finding = Finding::new(Error, id, self.object(&key.name))
            .what(what)
            .breaks(if primary {
                "rows get in twice, references to it cannot be made, and `mlflow db upgrade` fails"
            } else {
                "rows get in twice that MLflow takes for one"
            })
            .gives(key_of(table, &key.columns))
            .needs(self.columns_needed(&key.columns));
        finding.steps.extend(other.map(|other| mend::drop_constraint(table, &other.name, false)));
        if let Some(over) = over {
            self.used.insert(over.index.name.clone());
            if over.index.name != key.name {
                finding.steps.push(mend::rename_index(&over.index.name, &key.name));
            }
        } else if self.there(&key.columns) {
            finding.guards.push(Condition::duplicate(table, &key.columns));
        }
        if primary && self.there(&key.columns) {
            let nullable = |c: &&String| self.found.column(c).is_some_and(|c| !c.not_null);
            finding.guards.extend(key.columns.iter().filter(nullable).map(|c| Condition::empty(table, c)));
        }
        Some(finding.step(mend::add_key(table, &key.name, word, &key.columns, over.is_some())))
    }

    fn reference(&self, key: &ForeignKey) -> Option<Finding> {
        let table = &self.table.name;
        let keys = || {
            self.found.constraints.iter().filter_map(|c| match &c.rule {
                Rule::Foreign(foreign) => Some((c, foreign)),
                _ => None,
            })
        };
        let moves = self.moves(&key.columns);
        let joins = |f: &ForeignKey| f.columns == key.columns && f.table == key.table && f.references == key.references;
        let same = |f: &ForeignKey| joins(f) && f.on_delete == key.on_delete && f.on_update == key.on_update;
        let right = keys().filter(|(_, f)| same(f) && !moves);
        if let Some((there, _)) = right.max_by_key(|(c, _)| c.name == key.name) {
            if there.name != key.name {
                let step = mend::rename_constraint(table, &there.name, &key.name);
                return Some(self.misnamed(&there.name, &key.name).step(step));
            }
            let invalid = Finding::new(Warning, "not-valid", self.object(&key.name))
                .what("the reference was never checked for the rows that were there before it")
                .breaks("rows without their parent may be there")
                .guard(self.dangling(key))
                .step(mend::validate(table, &key.name));
            return (!there.valid).then_some(invalid);
        }
        let other = keys().find(|(c, f)| (joins(f) || c.name == key.name) && !moves);
        let mut finding = match other {
            None => {
                Finding::new(Error, "missing-foreign-key", self.object(&key.name)).what("the reference is not there")
            }
            Some((_, there)) => Finding::new(Error, "wrong-foreign-key", self.object(&key.name))
                .what(format!("it is not MLflow's reference: {}", difference(there, key))),
        };
        finding.steps.extend(other.map(|(c, _)| mend::drop_constraint(table, &c.name, true)));
        let types = key.columns.iter().map(|c| format!("type {table}.{c}"));
        let others = key.references.iter().map(|c| format!("type {}.{c}", key.table));
        Some(
            finding
                .breaks(match key.on_delete {
                    Some(_) => "what is deleted leaves rows behind, and rows without a parent get in",
                    None => "rows without a parent get in, and a parent can be deleted from under its rows",
                })
                .guard(self.dangling(key))
                .needs(self.columns_needed(&key.columns))
                .needs([format!("table {}", key.table), key_of(&key.table, &key.references)])
                .needs(types.chain(others))
                .step(mend::add_reference(table, key)),
        )
    }

    fn dangling(&self, key: &ForeignKey) -> Option<Condition> {
        dangling(self.case, self.table, key)
    }

    fn check(&self, name: &str, expression: &str) -> Option<Finding> {
        let table = &self.table.name;
        let words = canonical(expression);
        let checks = || {
            self.found.constraints.iter().filter_map(|c| match &c.rule {
                Rule::Check(there) => Some((c, canonical(there))),
                _ => None,
            })
        };
        if let Some((there, _)) = checks().filter(|(_, e)| *e == words).max_by_key(|(c, _)| c.name == name) {
            if there.name != name {
                let step = mend::rename_constraint(table, &there.name, name);
                return Some(self.misnamed(&there.name, name).step(step));
            }
            let invalid = Finding::new(Warning, "not-valid", self.object(name))
                .what("the CHECK was never made for the rows that were there before it")
                .breaks("rows that break it may be there")
                .guard([Condition::breaking(table, expression)])
                .step(mend::validate(table, name));
            return (!there.valid).then_some(invalid);
        }
        let other = checks().find(|(c, _)| c.name == name);
        let finding = match &other {
            None => Finding::new(Warning, "missing-check", self.object(name))
                .what(format!("the CHECK is not there: {expression}"))
                .breaks("values get in that MLflow does not know, and a later upgrade that looks for it fails"),
            Some(_) => Finding::new(Error, "wrong-check", self.object(name))
                .what(format!("it is not MLflow's CHECK: {expression}"))
                .breaks("MLflow fails to write values that its own schema takes, or others get in"),
        };
        let columns: Vec<String> = self.table.columns.iter().map(|c| c.name.clone()).collect();
        let columns: Vec<String> = columns.into_iter().filter(|c| words.split(' ').any(|w| w == c)).collect();
        let guard = self.there(&columns).then(|| Condition::breaking(table, expression));
        Some(
            finding
                .guard(guard)
                .needs(self.columns_needed(&columns))
                .steps(other.map(|(c, _)| mend::drop_constraint(table, &c.name, false)))
                .step(mend::add_check(table, name, expression)),
        )
    }

    fn index(&mut self, index: &Index) -> Option<Finding> {
        let table = &self.table.name;
        let object = self.object(&index.name);
        if self.index_moves(index) {
            // Made again behind the columns that move, whatever stands there now.
            return Some(
                Finding::new(Warning, "missing-index", object)
                    .what("the index is not there, or not as MLflow's")
                    .breaks("searches that it serves read the whole table")
                    .step(mend::create_index(table, index)),
            );
        }
        let named = self.found.indexes.iter().find(|i| i.index.name == index.name);
        if let Some(named) = named {
            self.used.insert(index.name.clone());
            let (id, what) = if !same_index(&named.index, index) {
                ("wrong-index", "it is not MLflow's index of that name")
            } else if !named.valid {
                ("invalid-index", "it was never finished, and no query uses it")
            } else {
                return None;
            };
            let finding = Finding::new(if index.unique { Error } else { Warning }, id, object).what(what);
            return Some(
                finding
                    .breaks("searches that it should serve read the whole table")
                    .guard(self.doubles(index))
                    .step(mend::drop_index(&index.name))
                    .step(mend::create_index(table, index)),
            );
        }
        let taken = |name: &str| self.used.contains(name) || self.table.postgres.indexes.iter().any(|i| i.name == name);
        let same =
            self.found.indexes.iter().filter(|i| i.valid && same_index(&i.index, index) && !taken(&i.index.name));
        let closest = |i: &&IndexState| pgloaders(&i.index.name).is_some_and(|base| index.name.starts_with(base));
        // pgloader's copy of another of MLflow's indexes is not taken for this one while this one has its own.
        if let Some(there) = same.max_by_key(closest) {
            let there = there.index.name.clone();
            self.used.insert(there.clone());
            return Some(self.misnamed(&there, &index.name).step(mend::rename_index(&there, &index.name)));
        }
        let severity = if index.unique { Error } else { Warning };
        Some(
            Finding::new(severity, "missing-index", object)
                .what("the index is not there")
                .breaks(if index.unique {
                    "rows get in twice that MLflow takes for one"
                } else {
                    "searches that it serves read the whole table, and a later upgrade that drops it fails"
                })
                .guard(self.doubles(index))
                .needs(self.columns_needed(&plain(&index.keys)))
                .step(mend::create_index(table, index)),
        )
    }

    fn doubles(&self, index: &Index) -> Option<Condition> {
        let columns = plain(&index.keys);
        (index.unique && index.filter.is_none() && self.there(&columns))
            .then(|| Condition::duplicate(&self.table.name, &columns))
    }

    /// What is there beside MLflow's.
    fn extra(&self, findings: &mut Vec<Finding>) {
        let (table, own) = (&self.table.name, &self.table.postgres);
        for there in &self.found.indexes {
            let name = &there.index.name;
            let known = self.used.contains(name) || own.indexes.iter().any(|i| i.name == *name);
            if known || self.index_moves(&there.index) {
                continue;
            }
            findings.push(if pgloaders(name).is_some() {
                Finding::new(Warning, "pgloader-index", self.object(name))
                    .what("pgloader made this index, and MLflow's own does its work")
                    .breaks("every write keeps it up for nothing")
                    .step(mend::drop_index(name))
            } else {
                Finding::new(Note, "extra-index", self.object(name))
                    .what("MLflow has no such index")
                    .breaks(if there.index.unique { "rows that MLflow may write twice" } else { "nothing" })
            });
        }
        for there in &self.found.constraints {
            let object = self.object(&there.name);
            match &there.rule {
                Rule::Check(expression) => {
                    let words = canonical(expression);
                    if own.checks.iter().any(|(name, e)| canonical(e) == words || *name == there.name) {
                        continue;
                    }
                    findings.push(if was_mlflows_check(self.case.catalogue, table, &words) {
                        Finding::new(Warning, "stale-check", object)
                            .what(format!("the CHECK is that of an older revision: {expression}"))
                            .breaks("MLflow fails to write values that came later")
                            .step(mend::drop_constraint(table, &there.name, false))
                    } else {
                        Finding::new(Note, "extra-check", object)
                            .what(format!("MLflow has no such CHECK: {expression}"))
                            .breaks("what MLflow writes may be refused")
                    });
                }
                Rule::Foreign(key) => {
                    let joins = |k: &&ForeignKey| k.columns == key.columns && k.table == key.table;
                    if !own.foreign_keys.iter().any(|k| joins(&k) || k.name == there.name) {
                        findings.push(
                            Finding::new(Note, "extra-foreign-key", object)
                                .what("MLflow has no such reference")
                                .breaks("what MLflow writes or deletes may be refused"),
                        );
                    }
                }
                Rule::Unique(columns) if !own.unique.iter().any(|k| k.columns == *columns || k.name == there.name) => {
                    findings.push(
                        Finding::new(Note, "extra-unique", object)
                            .what(format!("MLflow has no such unique constraint ({})", columns.join(", ")))
                            .breaks("what MLflow writes may be refused"),
                    );
                }
                _ => {}
            }
        }
    }
}

/// The condition that finds rows without their parent, as far as there is something to look at.
pub(super) fn dangling(case: &Case<'_>, table: &TableDef, key: &ForeignKey) -> Option<Condition> {
    let own = case.examination.table(&table.name)?;
    key.columns.iter().all(|c| own.column(c).is_some()).then_some(())?;
    let Some(parent) = case.examination.table(&key.table) else {
        return Some(Condition::filled(&table.name, key));
    };
    let all = key.references.iter().all(|c| parent.column(c).is_some());
    let whole = |kind: &str| matches!(kind, "smallint" | "integer" | "bigint");
    let differ = key.columns.iter().zip(&key.references).any(|(c, r)| {
        let pair = own.column(c).zip(parent.column(r));
        pair.is_some_and(|(c, r)| whole(&c.kind) != whole(&r.kind))
    });
    all.then(|| Condition::dangling(&table.name, key, differ))
}

fn difference(there: &ForeignKey, own: &ForeignKey) -> String {
    let words = |k: &ForeignKey| {
        let action = |event: &str, action: &Option<String>| {
            action.as_ref().map_or(String::new(), |a| format!(" ON {event} {a}"))
        };
        format!(
            "({}) to {} ({}){}{}",
            k.columns.join(", "),
            k.table,
            k.references.join(", "),
            action("DELETE", &k.on_delete),
            action("UPDATE", &k.on_update)
        )
    };
    format!("{} instead of {}", words(there), words(own))
}
