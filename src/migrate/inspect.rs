//! Inspection: every value of the source against the target's columns, and every reference, before anything is done.

use std::collections::BTreeMap;

use crate::domain::failure::{Failure, Outcome};
use crate::domain::fit::{self, Misfit};
use crate::domain::table::Shape;
use crate::engine::compare::key_text;
use crate::engine::copy::Work;
use crate::engine::event::Event;
use crate::engine::{Part, RowSource, pool};
use crate::store::open::OpenStore;
use crate::store::sqlite::introspect::{broken_checks, broken_references};

/// Something in the source that the target cannot take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The table.
    pub table: String,
    /// The column, where it is about values.
    pub column: Option<String>,
    /// What is wrong: "is longer than ...".
    pub what: String,
    /// Rows that it is true of.
    pub rows: u64,
    /// The keys of the first of them.
    pub first: Vec<String>,
}

impl Finding {
    /// One line for people.
    pub fn text(&self) -> String {
        let column = self.column.as_ref().map_or(String::new(), |c| format!(".{c}"));
        let rows = if self.rows == 1 { "1 row".to_owned() } else { format!("{} rows", self.rows) };
        format!("`{}{column}` {} ({rows}; first: {})", self.table, self.what, self.first.join("; "))
    }
}

const SHOWN: usize = 3;
const REFERENCES: usize = 10_000;

/// Reads the whole source and reports all that the target could not take.
///
/// # Errors
/// The source failed, or the interruption.
pub fn inspect(store: &OpenStore, shapes: &[Shape], work: &Work<'_>) -> Outcome<Vec<Finding>> {
    work.events.event(Event::Phase { name: "inspecting", total: None, unit: "rows" });
    let found =
        pool::run(work.jobs, shapes.iter().collect(), work.cancel, |shape| table(store.source.as_ref(), shape, work))?;
    let mut findings: Vec<Finding> = found.into_iter().flatten().collect();
    if let Some(snapshot) = &store.snapshot {
        let mut broken: BTreeMap<(String, String), Finding> = BTreeMap::new();
        for (table, rowid, parent) in broken_references(snapshot, REFERENCES)? {
            if !shapes.iter().any(|s| s.name == table) {
                continue;
            }
            let finding = broken.entry((table.clone(), parent.clone())).or_insert_with(|| Finding {
                table,
                column: None,
                what: format!("refers to rows of `{parent}` that do not exist"),
                rows: 0,
                first: Vec::new(),
            });
            finding.rows += 1;
            if finding.first.len() < SHOWN {
                finding.first.push(rowid.map_or("?".to_owned(), |id| format!("rowid={id}")));
            }
        }
        findings.extend(broken.into_values());
        for (table, expression, rows, first) in broken_checks(snapshot, &store.identity.tables)? {
            let what = format!("breaks the rule {expression}");
            findings.push(Finding { table, column: None, what, rows, first: vec![format!("rowid={first}")] });
        }
    }
    Ok(findings)
}

fn table(source: &dyn RowSource, shape: &Shape, work: &Work<'_>) -> Outcome<Vec<Finding>> {
    let mut found: BTreeMap<(usize, Misfit), Finding> = BTreeMap::new();
    source.read(shape, Part::ALL, &mut |batch| {
        work.cancel.check()?;
        for row in batch.iter() {
            for (position, (column, cell)) in shape.columns.iter().zip(row).enumerate() {
                let Err(misfit) = fit::check(column, batch, *cell) else { continue };
                let finding = found.entry((position, misfit)).or_insert_with(|| Finding {
                    table: shape.name.clone(),
                    column: Some(column.name.clone()),
                    what: misfit.describe(),
                    rows: 0,
                    first: Vec::new(),
                });
                finding.rows += 1;
                if finding.first.len() < SHOWN {
                    let key = key_text(shape, batch, row);
                    let key: Vec<String> = key.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
                    finding.first.push(key.join(", "));
                }
            }
        }
        work.events.event(Event::Done { table: shape.name.clone(), units: batch.rows() as u64 });
        Ok(())
    })?;
    Ok(found.into_values().collect())
}

/// The findings as the failure that a migration ends with.
pub fn refusal(address: &str, findings: &[Finding]) -> Failure {
    let lines: Vec<String> = findings.iter().map(|f| format!("\n  - {}", f.text())).collect();
    Failure::source(format!("{address} holds what PostgreSQL cannot keep, so nothing was migrated:{}", lines.concat()))
        .hint("mend these rows in a copy of the source and migrate that; nothing is ever cut or changed silently")
}
