//! Purges, for people and for documents.

use serde_json::{Value, json};

use super::human::{BAD, BOLD, CARE, GOOD, painted};
use super::table::{bytes, counted, grouped, line, seconds, table};
use crate::cleanup::list::{List, Stays};
use crate::cleanup::purge::{Plan, Purged};
use crate::domain::address::shown;
use crate::domain::cleanup::belongings::Root;
use crate::engine::purge::Counts;

/// What is listed on the terminal; all that is known stands in the document.
const LISTED: usize = 20;

fn things(all: impl IntoIterator<Item = (Root, u64)>) -> String {
    let some = all.into_iter().filter(|(_, count)| *count > 0);
    let words: Vec<String> = some.map(|(kind, count)| counted(count, kind.word())).collect();
    if words.is_empty() { "nothing".to_owned() } else { words.join(", ") }
}

fn rows(counts: &Counts) -> String {
    let lines: Vec<Vec<String>> = counts.iter().map(|(table, rows)| vec![table.clone(), grouped(*rows)]).collect();
    if lines.is_empty() { String::new() } else { format!("\n{}", table(&["table", "rows"], lines, &[1])) }
}

fn list(head: &str, list: &List<Stays>) -> String {
    if list.total == 0 {
        return String::new();
    }
    let mut out = format!("\n{head}\n");
    for one in list.named.iter().take(LISTED) {
        out.push_str(&format!("  {} {}: {}\n", one.kind.word(), line(&one.id), line(&one.why)));
    }
    let more = list.total.saturating_sub(LISTED as u64);
    if more > 0 {
        out.push_str(&format!("  and {} more: --output json\n", grouped(more)));
    }
    out
}

fn protected(plan: &Plan) -> String {
    list(&painted(CARE, &format!("Deleted, and stays ({}):", grouped(plan.protected.total))), &plan.protected)
}

/// What goes, by name.
fn named(plan: &Plan) -> String {
    if plan.named.is_empty() {
        return String::new();
    }
    let mut out = format!("\n{}\n", painted(BOLD, "To be removed:"));
    for (kind, id) in plan.named.iter().take(LISTED) {
        out.push_str(&format!("  {} {}\n", kind.word(), line(id)));
    }
    let all: u64 = plan.things.iter().filter(|(kind, _)| *kind != Root::Trace).map(|(_, count)| count).sum();
    let more = all.saturating_sub(LISTED as u64);
    if more > 0 {
        out.push_str(&format!("  and {} more: --output json\n", grouped(more)));
    }
    out
}

/// What one that ended early has removed, in a sentence.
pub(super) fn so_far(it: &Purged) -> String {
    let gone = things(it.gone.iter().map(|(k, n)| (*k, *n)));
    format!("so far {gone} are gone, with {}; the next purge goes on", counted(it.files, "file"))
}

fn head(plan: &Plan) -> String {
    format!("  database   {}\n             {}\n", plan.database, plan.revision)
}

/// The text of a plan.
pub(super) fn plan(plan: &Plan) -> String {
    let mut out = format!("{}\n{}", painted(BOLD, "Plan, nothing was changed"), head(plan));
    out.push_str(&format!("  to remove  {}\n", things(plan.things.iter().copied())));
    match (plan.request.artifacts, plan.bytes) {
        (false, _) => out.push_str("  artifacts  none: the files stay\n"),
        (true, Some((sum, whole))) => {
            let least = if whole { "" } else { "at least " };
            out.push_str(&format!("  artifacts  {least}{} of runs and logged models\n", bytes(sum)));
        }
        (true, None) => {}
    }
    out.push_str(&plan.rows.as_ref().map_or(String::new(), rows));
    out.push_str(&named(plan));
    out.push_str(&protected(plan));
    out.push_str(&list(
        &painted(
            BAD,
            &format!(
                "Would stay, for its artifacts cannot go ({}; --artifacts none: rows alone):",
                grouped(plan.stuck.total)
            ),
        ),
        &plan.stuck,
    ));
    out.push_str(if plan.is_empty() {
        "\nNothing is to be removed.\n"
    } else {
        "\nNothing was removed: --yes does it, for good.\n"
    });
    out
}

/// The text of a purge.
pub(super) fn purged(it: &Purged) -> String {
    let whole = it.failures.total + it.bereft.total == 0;
    let word = if whole { painted(GOOD, "Removed:") } else { painted(BAD, "Removed in part:") };
    let mut out = format!("{word} {}, in {}\n", things(it.gone.iter().map(|(k, n)| (*k, *n))), seconds(it.took));
    out.push_str(&head(&it.plan));
    out.push_str(&if it.plan.request.artifacts {
        let none = match it.without_files {
            0 => String::new(),
            n => format!("; {} had no file", grouped(n)),
        };
        format!("  artifacts  {}, {}{none}\n", counted(it.files, "file"), bytes(it.bytes))
    } else {
        "  artifacts  none: the files stay\n".to_owned()
    });
    if let Some(kept) = &it.kept {
        let file = shown(&kept.file);
        out.push_str(&format!(
            "  kept       {file} ({}): `mlops migrate import` reads it\n",
            counted(kept.rows, "row")
        ));
    }
    if it.spared > 0 {
        let spared = grouped(it.spared);
        out.push_str(&format!("  left       {spared} that were restored, kept or put to use in the meantime\n"));
    }
    out.push_str(&rows(&it.rows));
    for (table, count) in &it.cleared {
        out.push_str(&format!("{} rows of {table} stay, and no longer name what is gone\n", grouped(*count)));
    }
    out.push_str(&protected(&it.plan));
    let head = format!("{} could not go, and keep their rows; the next purge tries again:", grouped(it.failures.total));
    out.push_str(&list(&painted(BAD, &head), &it.failures));
    let head = "Restored in the moment in which its artifacts were removed; these live, and their files are gone:";
    out.push_str(&list(&painted(BAD, head), &it.bereft));
    if !it.plan.database.starts_with("postgres") {
        let note = painted(CARE, "Note:");
        out.push_str(&format!(
            "\n{note} the file is as big as before, and its free pages are used again; \
             `sqlite3 FILE VACUUM` shrinks it, while no server runs\n"
        ));
    }
    out
}

fn list_value(list: &List<Stays>) -> Value {
    let named: Vec<Value> =
        list.named.iter().map(|s| json!({"kind": s.kind.id(), "id": s.id, "reason": s.why})).collect();
    json!({"total": list.total, "named": named})
}

fn things_value(all: impl IntoIterator<Item = (Root, u64)>) -> Value {
    let mut value = json!({"runs": 0, "logged_models": 0, "traces": 0, "experiments": 0});
    for (kind, count) in all {
        let key = match kind {
            Root::Run => "runs",
            Root::Model => "logged_models",
            Root::Trace => "traces",
            Root::Experiment => "experiments",
        };
        super::json::merge(&mut value, json!({key: count}));
    }
    value
}

/// The document of a plan.
pub(super) fn plan_value(plan: &Plan) -> Value {
    let mut value = json!({
        "done": false,
        "database": plan.database,
        "revision_text": plan.revision,
        "with_artifacts": plan.request.artifacts,
        "bytes": plan.bytes.map(|(bytes, _)| bytes),
        "bytes_complete": plan.bytes.map(|(_, whole)| whole),
        "rows": plan.rows,
        "protected": list_value(&plan.protected),
        "stuck": list_value(&plan.stuck),
        "named": plan.named.iter().map(|(kind, id)| json!({"kind": kind.id(), "id": id})).collect::<Vec<_>>(),
    });
    super::json::merge(&mut value, things_value(plan.things.iter().copied()));
    value
}

/// The document of a purge.
pub(super) fn purged_value(it: &Purged) -> Value {
    let mut value = plan_value(&it.plan);
    super::json::merge(
        &mut value,
        json!({
            "done": true,
            "rows": it.rows,
            "cleared": it.cleared,
            "files": it.files,
            "bytes": it.bytes,
            "bytes_complete": true,
            "failures": list_value(&it.failures),
            "restored_without_files": list_value(&it.bereft),
            "without_files": it.without_files,
            "spared": it.spared,
            "backup": it.kept.as_ref().map(|kept| json!({"file": shown(&kept.file), "rows": kept.rows})),
            "milliseconds": it.took.as_millis() as u64,
        }),
    );
    super::json::merge(&mut value, things_value(it.gone.iter().map(|(kind, count)| (*kind, *count))));
    value
}
