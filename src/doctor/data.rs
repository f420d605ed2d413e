//! What only rows show: those in the way of what is to be mended, those without their parent, and values that MLflow
//! keeps twice and that disagree.

use postgres::{Error, Transaction};

use super::finding::{Finding, Severity};
use super::keys;
use super::postgres::Case;
use crate::domain::catalogue::TableDef;
use crate::domain::count::counted;
use crate::domain::step::{Phase, Step};
use crate::store::postgres::mend;
use crate::store::postgres::rows::{self, Condition, Found};

/// Looks at the rows: what is in the way of a finding's steps becomes its reason, what is wrong by itself a finding.
pub(super) fn look(
    transaction: &mut Transaction<'_>,
    case: &Case<'_>,
    findings: &mut Vec<Finding>,
) -> Result<(), Error> {
    let mut rows = Rows { case, known: Vec::new() };
    for finding in findings.iter_mut().filter(|f| f.cannot.is_none()) {
        for guard in std::mem::take(&mut finding.guards) {
            // A comparison of types that do not compare fails; the transaction must not fail with it.
            let found = rows.find(transaction, &guard)?;
            match found {
                Ok(found) if found.rows == 0 => {}
                Ok(found) => {
                    // The keys of rows without a parent are told by the finding about them.
                    let first = if guard.what.starts_with("refer") { String::new() } else { shown(&found) };
                    finding.cannot = Some(format!("{} {}{first}", counted(found.rows, "row"), guard.what));
                }
                Err(words) => finding.cannot = Some(format!("its rows cannot be checked: {words}")),
            }
        }
    }
    for table in &case.claim.tables {
        for key in &table.postgres.foreign_keys {
            let Some(condition) = keys::dangling(case, table, key) else { continue };
            if let Ok(found) = rows.find(transaction, &condition)?
                && found.rows > 0
            {
                findings.push(orphans(transaction, table, &key.columns, &condition, &found)?);
            }
        }
        behind(transaction, case, table, findings)?;
    }
    if has(case, "metrics", &["run_uuid", "key", "step", "timestamp", "value", "is_nan"])
        && has(case, "latest_metrics", &["run_uuid", "key", "step", "timestamp", "value", "is_nan"])
    {
        // Where the types do not compare, the types are a finding already.
        if let Ok((old, extra)) = tolerated(transaction, |t| rows::latest_metrics(t))? {
            findings.extend(latest(old, extra, vec![Step::new(Phase::Rows, rows::renew_latest_metrics())]));
        }
    }
    if has(case, "runs", &["run_uuid", "experiment_id", "lifecycle_stage"])
        && has(case, "experiments", &["experiment_id", "lifecycle_stage"])
    {
        let condition = rows::active_in_deleted();
        if let Ok(found) = rows.find(transaction, &condition)? {
            findings.extend(deletion(&found));
        }
    }
    Ok(())
}

/// Sequences alone: what they would give next is compared with the end of an index.
pub(super) fn sequences(
    transaction: &mut Transaction<'_>,
    case: &Case<'_>,
    findings: &mut Vec<Finding>,
) -> Result<(), Error> {
    case.claim.tables.iter().try_for_each(|table| behind(transaction, case, table, findings))
}

fn has(case: &Case<'_>, table: &str, columns: &[&str]) -> bool {
    case.examination.table(table).is_some_and(|t| columns.iter().all(|c| t.column(c).is_some()))
}

/// Asks a question that the database may refuse - values that do not compare -, and goes on with the transaction.
fn tolerated<T>(
    transaction: &mut Transaction<'_>,
    ask: impl FnOnce(&mut Transaction<'_>) -> Result<T, Error>,
) -> Result<Result<T, String>, Error> {
    let mut savepoint = transaction.savepoint("mlops_rows")?;
    match ask(&mut savepoint) {
        Ok(answer) => {
            savepoint.commit()?;
            Ok(Ok(answer))
        }
        Err(error) => {
            savepoint.rollback()?;
            let Some(db) = error.as_db_error() else { return Err(error) };
            // Cancelled by the operator, or the server goes down: nothing about the rows.
            if db.code().code().starts_with("57") {
                return Err(error);
            }
            Ok(Err(db.message().to_owned()))
        }
    }
}

/// Questions that were asked, with their answers: a guard and a finding may ask the same.
struct Rows<'a> {
    case: &'a Case<'a>,
    known: Vec<(Condition, Result<Found, String>)>,
}

impl Rows<'_> {
    fn find(
        &mut self,
        transaction: &mut Transaction<'_>,
        condition: &Condition,
    ) -> Result<Result<Found, String>, Error> {
        if let Some((_, found)) = self.known.iter().find(|(c, _)| c == condition) {
            return Ok(found.clone());
        }
        let key = self.key(&condition.table);
        let found = tolerated(transaction, |t| rows::find(t, condition, &key))?;
        self.known.push((condition.clone(), found.clone()));
        Ok(found)
    }

    /// The columns by which a table's rows are told, as far as they are there.
    fn key(&self, table: &str) -> Vec<String> {
        let Some(there) = self.case.examination.table(table) else { return Vec::new() };
        let own = self.case.claim.tables.iter().find(|t| t.name == table);
        let key = own.and_then(|t| t.postgres.primary_key.as_ref()).map_or(Vec::new(), |k| k.columns.clone());
        let key: Vec<String> = key.into_iter().filter(|c| there.column(c).is_some()).collect();
        if key.is_empty() { there.columns.iter().take(3).map(|c| c.name.clone()).collect() } else { key }
    }
}

fn shown(found: &Found) -> String {
    if found.first.is_empty() { String::new() } else { format!(" (first: {})", found.first.join("; ")) }
}

/// The finding that tells what no SQL brings back.
pub(super) const LOST_EXPERIMENTS: &str = "lost-experiments";

const LOST: &str = "an experiment's name, tags and artifact location are nowhere else and cannot be invented: bring them \
                    from the store that these runs came from (mlops migrate), or restore a backup";
const PARENTLESS: &str = "what they belong to cannot be invented, and to delete them would lose them: restore the \
                          parents from where these rows came from";

fn orphans(
    transaction: &mut Transaction<'_>,
    table: &TableDef,
    columns: &[String],
    condition: &Condition,
    found: &Found,
) -> Result<Finding, Error> {
    if let ("runs", [column]) = (table.name.as_str(), columns)
        && column == "experiment_id"
    {
        let lost = rows::different(transaction, condition, column)?;
        return Ok(lost_experiments(found, &lost));
    }
    Ok(parentless(&table.name, columns, &condition.what, found))
}

/// Runs whose experiments are gone.
pub(super) fn lost_experiments(found: &Found, lost: &Found) -> Finding {
    let more = if lost.rows > lost.first.len() as u64 { " ..." } else { "" };
    Finding::new(Severity::Error, LOST_EXPERIMENTS, "runs.experiment_id")
        .what(format!(
            "{} of `runs` belong to {} experiments that are not there (ids {}{more})",
            counted(found.rows, "row"),
            lost.rows,
            lost.first.join(", ")
        ))
        .breaks("MLflow does not show these runs, and a new experiment that is given such an id takes them over")
        .cannot(LOST)
}

/// Rows without their parent.
pub(super) fn parentless(table: &str, columns: &[String], what: &str, found: &Found) -> Finding {
    Finding::new(Severity::Error, "rows-without-parent", format!("{table}.{}", columns.join(", ")))
        .what(format!("{} {what}{}", counted(found.rows, "row"), shown(found)))
        .breaks("MLflow shows them nowhere or fails on them, and they cannot be moved to another database")
        .cannot(PARENTLESS)
}

/// `latest_metrics` that disagree with `metrics`.
pub(super) fn latest(old: Found, extra: Found, renew: Vec<Step>) -> Vec<Finding> {
    let mut findings = Vec::new();
    if old.rows > 0 {
        let finding = Finding::new(Severity::Warning, "old-latest-metrics", "latest_metrics")
            .what(format!("{} missing or not the last point of `metrics`{}", counted(old.rows, "row"), shown(&old)))
            .breaks("the run list, search and comparison show values that are not the last");
        findings.push(if renew.is_empty() {
            finding.cannot("a SQLite file is not written to here")
        } else {
            finding.steps(renew).needs(["table metrics".to_owned(), "table latest_metrics".to_owned()])
        });
    }
    if extra.rows > 0 {
        findings.push(
            Finding::new(Severity::Warning, "extra-latest-metrics", "latest_metrics")
                .what(format!("{} of which `metrics` has no point{}", counted(extra.rows, "row"), shown(&extra)))
                .breaks("the run list shows values that have no history")
                .cannot("points of `metrics` are gone, and these rows are all that is left of them"),
        );
    }
    findings
}

/// Runs that are active in a deleted experiment.
pub(super) fn deletion(found: &Found) -> Option<Finding> {
    (found.rows > 0).then(|| {
        Finding::new(Severity::Note, "active-in-deleted", "runs.lifecycle_stage")
            .what(format!("{} are active in a deleted experiment{}", counted(found.rows, "row"), shown(found)))
            .breaks("they are seen by their id only; `mlflow gc` leaves them, and their experiment with them")
            .cannot("restore the experiment or delete the runs: only you know which")
    })
}

/// Sequences that would give a number that is there already.
fn behind(
    transaction: &mut Transaction<'_>,
    case: &Case<'_>,
    table: &TableDef,
    findings: &mut Vec<Finding>,
) -> Result<(), Error> {
    for column in &table.columns {
        let Some(sequence) = &column.sequence else { continue };
        let state = case.examination.sequences.iter().find(|s| s.name == sequence.name());
        let number = case
            .examination
            .table(&table.name)
            .and_then(|t| t.column(&column.name))
            .is_some_and(|c| matches!(c.kind.as_str(), "smallint" | "integer" | "bigint"));
        let Some(state) = state.filter(|_| number) else { continue };
        let Some(highest) = rows::highest(transaction, &table.name, &column.name)? else { continue };
        if state.next <= highest {
            findings.push(
                Finding::new(Severity::Error, "sequence-behind", format!("{}.{}", table.name, column.name))
                    .what(format!("the sequence `{}` gives {} next, and {highest} is there", state.name, state.next))
                    .breaks("each new row fails until the sequence has passed the highest number")
                    .steps(mend::set_sequences(table)),
            );
        }
    }
    Ok(())
}
