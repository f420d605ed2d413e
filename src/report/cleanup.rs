//! Clean-up, for people and for documents.

use serde_json::{Value, json};

use super::human::{BAD, BOLD, CARE, GOOD, painted};
use super::json::time;
use super::table::{bytes, counted, grouped, table};
use super::{cleanup_orphans, cleanup_purge};
use crate::cleanup::batch::Done;
use crate::cleanup::gather::OldRun;
use crate::cleanup::undo::{Batched, Undone};
use crate::cleanup::{Cleaned, Cleanup, Plan, Sizes};
use crate::domain::cleanup::select::ExperimentFacts;
use crate::domain::harmless::masked;
use crate::state::Told;

/// Lines of a list on the terminal; documents have all.
const LISTED: usize = 50;

fn at(ms: i64) -> Option<String> {
    jiff::Timestamp::from_millisecond(ms).ok().filter(|_| ms > 0).map(time)
}

fn active(ms: i64) -> String {
    at(ms).unwrap_or_else(|| "never".to_owned())
}

fn experiment_row(f: &ExperimentFacts) -> Vec<String> {
    vec![f.experiment.id.clone(), f.experiment.name.clone(), grouped(f.runs), active(f.active)]
}

fn run_row(old: &OldRun) -> Vec<String> {
    vec![
        old.run.id.clone(),
        old.run.name.clone(),
        old.experiment.clone(),
        old.run.status.clone(),
        active(old.run.active),
    ]
}

fn listed(head: &[&str], rows: Vec<Vec<String>>, numbers: &[usize]) -> String {
    let more = rows.len().saturating_sub(LISTED);
    let mut out = table(head, rows.into_iter().take(LISTED).collect(), numbers);
    if more > 0 {
        out.push_str(&format!("  and {} more: --output json has all\n", grouped(more as u64)));
    }
    out
}

type Rows = Vec<Vec<String>>;

/// What goes, and what stays and why.
fn rows(plan: &Plan) -> (Rows, Rows) {
    let with = |mut row: Vec<String>, why: &String| {
        row.push(why.clone());
        row
    };
    match plan {
        Plan::Experiments(found) => (
            found.goes.iter().map(experiment_row).collect(),
            found.stays.iter().map(|(f, why)| with(experiment_row(f), why)).collect(),
        ),
        Plan::Runs(found) => (
            found.goes.iter().map(run_row).collect(),
            found.stays.iter().map(|(old, why)| with(run_row(old), why)).collect(),
        ),
    }
}

fn head(plan: &Plan) -> (&'static [&'static str], &'static [usize], &'static str) {
    match plan {
        Plan::Experiments(_) => (&["id", "experiment", "runs", "last activity", "stays because"], &[2], "experiments"),
        Plan::Runs(_) => (&["id", "run", "experiment", "status", "last activity", "stays because"], &[], "runs"),
    }
}

fn young(plan: &Plan) -> u64 {
    match plan {
        Plan::Experiments(found) => found.young,
        Plan::Runs(found) => found.young,
    }
}

/// The text of a clean-up.
pub(super) fn cleanup(it: &Cleanup) -> String {
    match it {
        Cleanup::Old(old) => cleaned(old),
        Cleanup::PurgePlan(plan) => cleanup_purge::plan(plan),
        Cleanup::Purged(purged) => cleanup_purge::purged(purged),
        Cleanup::Orphans(plan) => cleanup_orphans::plan(plan),
        Cleanup::Swept(swept) => cleanup_orphans::swept(swept),
    }
}

/// What one that ended early has done, in a sentence.
pub(super) fn so_far(it: &Cleanup) -> String {
    match it {
        Cleanup::Purged(purged) => cleanup_purge::so_far(purged),
        Cleanup::Swept(swept) => cleanup_orphans::so_far(swept),
        Cleanup::Old(_) | Cleanup::PurgePlan(_) | Cleanup::Orphans(_) => "nothing was done".to_owned(),
    }
}

/// The document of a clean-up.
/// As one entry of several: with what it is.
fn entry_value(it: &Cleanup) -> Value {
    let kind = match it {
        Cleanup::Old(old) => match old.plan {
            Plan::Experiments(_) => "experiments",
            Plan::Runs(_) => "runs",
        },
        Cleanup::PurgePlan(_) | Cleanup::Purged(_) => "purge",
        Cleanup::Orphans(_) | Cleanup::Swept(_) => "orphans",
    };
    let mut value = cleanup_value(it);
    super::json::merge(&mut value, json!({"kind": kind}));
    value
}

pub(super) fn cleanup_value(it: &Cleanup) -> Value {
    match it {
        Cleanup::Old(old) => cleaned_value(old),
        Cleanup::PurgePlan(plan) => cleanup_purge::plan_value(plan),
        Cleanup::Purged(purged) => cleanup_purge::purged_value(purged),
        Cleanup::Orphans(plan) => cleanup_orphans::plan_value(plan),
        Cleanup::Swept(swept) => cleanup_orphans::swept_value(swept),
    }
}

fn cleaned(cleaned: &Cleaned) -> String {
    match &cleaned.done {
        Some(done) => self::done(&cleaned.id, &cleaned.plan, done),
        None => plan(&cleaned.plan, cleaned.sizes.unwrap_or_default()),
    }
}

pub(super) fn by_policy(all: &[Cleanup]) -> String {
    let one = |(index, one): (usize, &Cleanup)| {
        format!("{}\n{}", painted(BOLD, &format!("Policy {} of {}", index + 1, all.len())), cleanup(one))
    };
    all.iter().enumerate().map(one).collect::<Vec<_>>().join("\n")
}

fn plan(plan: &Plan, sizes: Sizes) -> String {
    let (head, numbers, what) = head(plan);
    let (goes, stays) = rows(plan);
    let (going, staying) = (goes.len() as u64, stays.len() as u64);
    let mut out = String::new();
    if going > 0 {
        let short = head.split_last().map_or(head, |(_, rest)| rest);
        out.push_str(&format!("{}\n{}\n", painted(BOLD, "Would be deleted"), listed(short, goes, numbers)));
    }
    if staying > 0 {
        out.push_str(&format!("{}\n{}\n", painted(BOLD, "Old, and kept"), listed(head, stays, numbers)));
    }
    let sized = match (sizes.bytes, sizes.uncounted) {
        (size, 0) => format!(", {} of artifacts", bytes(size)),
        (size, n) => format!(", at least {} of artifacts ({n} not counted)", bytes(size)),
    };
    out.push_str(&format!(
        "{} {what} would go{}, {} old ones stay, {} are younger. Nothing was deleted",
        grouped(going),
        if going == 0 { String::new() } else { sized },
        grouped(staying),
        grouped(young(plan))
    ));
    out.push_str(if going == 0 { ".\n" } else { ": --yes does it, and `mlops cleanup undo` puts it back.\n" });
    out
}

fn reasons(list: &[(String, String)], title: &str, style: anstyle::Style) -> String {
    if list.is_empty() {
        return String::new();
    }
    let mut out = format!("{}\n", painted(style, title));
    for (id, why) in list.iter().take(LISTED) {
        out.push_str(&format!("  {id}: {why}\n"));
    }
    if list.len() > LISTED {
        out.push_str(&format!("  and {} more: --output json has all\n", list.len() - LISTED));
    }
    out
}

fn done(id: &str, plan: &Plan, done: &Done) -> String {
    let (.., what) = head(plan);
    let style = if done.failed.is_empty() { GOOD } else { CARE };
    let mut out =
        format!("{} {} {what}, as batch {id}.\n", painted(style, "Deleted"), grouped(done.deleted.len() as u64));
    out.push_str(&reasons(&done.left, "Left, for they changed since the plan was made:", CARE));
    out.push_str(&reasons(&done.failed, "Could not be deleted:", BAD));
    out.push_str(&format!("{} `mlops cleanup undo {id}`\n", painted(BOLD, "Back:")));
    out
}

pub(super) fn batches(batches: &[(Told, Batched)]) -> String {
    if batches.is_empty() {
        return "No batch was deleted from here.\n".to_owned();
    }
    let row = |(told, batched): &(Told, Batched)| {
        let left = match (batched.experiments.len(), batched.runs.len()) {
            (0, 0) => "nothing".to_owned(),
            (0, runs) => counted(runs, "run"),
            (experiments, _) => counted(experiments, "experiment"),
        };
        vec![told.id.clone(), told.started.clone(), told.target.clone(), left]
    };
    table(&["batch", "started", "server", "can be put back"], batches.iter().map(row).collect(), &[])
}

pub(super) fn undone(id: &str, undone: &Undone) -> String {
    let style = if undone.failed.is_empty() { GOOD } else { CARE };
    let mut out = format!(
        "{} {} and {} of batch {id}",
        painted(style, "Put back"),
        counted(undone.experiments.len(), "experiment"),
        grouped(undone.runs.len() as u64)
    );
    if undone.active > 0 {
        out.push_str(&format!("; {} were active already", grouped(undone.active)));
    }
    out.push_str(".\n");
    if !undone.experiments.is_empty() {
        out.push_str("MLflow set the time of change of these experiments to now");
        if undone.deleted_again > 0 {
            out.push_str(&format!(
                ", and the time of deletion of {} runs that had been deleted before the batch",
                grouped(undone.deleted_again)
            ));
        }
        out.push_str(".\n");
    }
    out.push_str(&reasons(&undone.failed, "Could not be put back:", BAD));
    out
}

fn one_value(plan: &Plan) -> Value {
    let experiment = |f: &ExperimentFacts| {
        json!({
            "id": f.experiment.id, "name": f.experiment.name, "runs": f.runs, "last_activity": at(f.active),
            "artifact_location": masked(&f.experiment.artifact_location),
        })
    };
    let run = |old: &OldRun| {
        json!({
            "id": old.run.id, "name": old.run.name, "experiment_id": old.experiment_id, "experiment": old.experiment,
            "status": old.run.status, "last_activity": at(old.run.active),
        })
    };
    fn why(mut value: Value, why: &str) -> Value {
        super::json::merge(&mut value, json!({"reason": why}));
        value
    }
    let (goes, stays): (Vec<Value>, Vec<Value>) = match plan {
        Plan::Experiments(found) => (
            found.goes.iter().map(experiment).collect(),
            found.stays.iter().map(|(f, reason)| why(experiment(f), reason)).collect(),
        ),
        Plan::Runs(found) => (
            found.goes.iter().map(run).collect(),
            found.stays.iter().map(|(old, reason)| why(run(old), reason)).collect(),
        ),
    };
    json!({"candidates": goes, "protected": stays, "young": young(plan)})
}

fn cleaned_value(cleaned: &Cleaned) -> Value {
    let mut value = one_value(&cleaned.plan);
    let more = json!({
        "done": cleaned.done.is_some(),
        "batch": cleaned.done.as_ref().map(|_| &cleaned.id),
        "bytes": cleaned.sizes.map(|s| s.bytes),
        "uncounted": cleaned.sizes.map(|s| s.uncounted),
        "deleted": cleaned.done.as_ref().map(|done| &done.deleted),
        "left": cleaned.done.as_ref().map(|done| pairs(&done.left)),
        "failures": cleaned.done.as_ref().map(|done| pairs(&done.failed)),
    });
    super::json::merge(&mut value, more);
    value
}

pub(super) fn by_policy_value(all: &[Cleanup]) -> Value {
    json!({"policies": all.iter().map(entry_value).collect::<Vec<_>>()})
}

fn pairs(list: &[(String, String)]) -> Value {
    list.iter().map(|(id, why)| json!({"id": id, "reason": why})).collect()
}

pub(super) fn batches_value(batches: &[(Told, Batched)]) -> Value {
    let one = |(told, batched): &(Told, Batched)| {
        let experiments: Vec<Value> = batched.experiments.iter().map(|e| json!({"id": e.id, "name": e.name})).collect();
        json!({
            "batch": told.id, "started": told.started, "server": told.target, "runs": batched.runs,
            "experiments": experiments,
        })
    };
    json!({"batches": batches.iter().map(one).collect::<Vec<_>>()})
}

pub(super) fn undone_value(id: &str, undone: &Undone) -> Value {
    let experiments: Vec<Value> = undone.experiments.iter().map(|(id, name)| json!({"id": id, "name": name})).collect();
    json!({
        "batch": id, "runs": undone.runs, "experiments": experiments, "deleted_again": undone.deleted_again,
        "active": undone.active, "failures": pairs(&undone.failed),
    })
}
