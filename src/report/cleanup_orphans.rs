//! Orphans, for people and for documents.

use serde_json::{Value, json};

use super::human::{BAD, BOLD, CARE, GOOD, painted};
use super::json::time;
use super::table::{bytes, counted, grouped, line, seconds, table};
use crate::cleanup::list::Told;
use crate::cleanup::orphans::{Plan, PutBack, Sum, Swept};
use crate::domain::address::shown;
use crate::domain::cleanup::unit::QUARANTINE;
use crate::engine::purge::Counts;
use crate::store::sqlite::survey::Found;

/// What is listed on the terminal; all that is known stands in the document.
const LISTED: usize = 20;

fn at(milliseconds: i64) -> Option<String> {
    jiff::Timestamp::from_millisecond(milliseconds).ok().map(time)
}

fn sum(sum: Sum) -> String {
    format!("{} with {}, {}", counted(sum.places, "place"), counted(sum.files, "file"), bytes(sum.bytes))
}

fn list(head: &str, told: &Told) -> String {
    if told.total == 0 {
        return String::new();
    }
    let mut out = format!("\n{head}\n");
    for (path, why) in told.named.iter().take(LISTED) {
        let why = if why.is_empty() { String::new() } else { format!(": {}", line(why)) };
        let path = if path.is_empty() { "(the root itself)".to_owned() } else { line(path) };
        out.push_str(&format!("  {path}{why}\n"));
    }
    let more = told.total.saturating_sub(LISTED as u64);
    if more > 0 {
        out.push_str(&format!("  and {} more: --output json\n", grouped(more)));
    }
    out
}

fn rows(counts: &Counts) -> String {
    let lines: Vec<Vec<String>> = counts.iter().map(|(table, rows)| vec![table.clone(), grouped(*rows)]).collect();
    if lines.is_empty() { String::new() } else { table(&["table", "rows"], lines, &[1]) }
}

fn head(plan: &Plan) -> String {
    let mut out = format!("  database    {}\n              {}\n", plan.database, plan.revision);
    match &plan.request.root {
        Some(root) => out.push_str(&format!("  artifacts   {root}\n")),
        None => out.push_str("  artifacts   not looked at\n"),
    }
    out
}

fn lost(plan: &Plan) -> String {
    let mut out = list(
        &painted(CARE, &format!("Without files ({}); nothing is done about them:", grouped(plan.gone.total))),
        &plan.gone,
    );
    out.push_str(&list(
        &painted(
            CARE,
            &format!("Of no shape that MLflow makes ({}), left alone:", counted(plan.strangers.total, "file")),
        ),
        &plan.strangers,
    ));
    let head = format!(
        "No row refers to these, and this database does not know the folders they lie in ({}; --sole-owner takes them):",
        counted(plan.unknown.places, "place")
    );
    out.push_str(&list(&painted(CARE, &head), &plan.unknown_folders));
    out.push_str(&list(&painted(BAD, &format!("Could not be read ({}):", grouped(plan.unread.total))), &plan.unread));
    if plan.elsewhere > 0 {
        let n = grouped(plan.elsewhere);
        out.push_str(&format!(
            "\nNot looked at, for they lie outside of this root: model versions and logged models, {n}.\n"
        ));
    }
    out
}

/// The text of a plan.
pub(super) fn plan(plan: &Plan) -> String {
    let mut out = format!("{}\n{}", painted(BOLD, "Plan, nothing was changed"), head(plan));
    if plan.request.root.is_some() {
        out.push_str(&format!("  with a row  {}\n", sum(plan.known)));
        out.push_str(&format!("  without     {}\n", sum(plan.all_orphans())));
        for (word, own) in [("too young", plan.young), ("unknown", plan.unknown), ("left", plan.left)] {
            if own.places > 0 {
                out.push_str(&format!("  {word:<10}  {}\n", sum(own)));
            }
        }
    }
    if !plan.first.is_empty() {
        let row = |found: &Found| {
            let newest = at(found.newest).unwrap_or_default();
            vec![line(&found.path), grouped(found.files), bytes(found.bytes), newest]
        };
        let lines = plan.first.iter().take(LISTED).map(row).collect();
        out.push_str(&format!("\n{}\n", painted(BOLD, "No row refers to these; they would go into quarantine:")));
        out.push_str(&table(&["place", "files", "bytes", "newest file"], lines, &[1, 2]));
        let more = plan.all_orphans().places.saturating_sub(LISTED as u64);
        if more > 0 {
            out.push_str(&format!("  and {} more: --output json\n", grouped(more)));
        }
    }
    if !plan.quarantine.is_empty() {
        out.push_str(&format!("\n{}\n", painted(BOLD, &format!("In quarantine ({QUARANTINE}):"))));
        for batch in &plan.quarantine {
            let what = match (batch.own, batch.due) {
                (false, _) => "of another database, left alone",
                (true, true) => "would be removed",
                (true, false) => "waits until it is old enough",
            };
            if batch.sum.places > 0 {
                out.push_str(&format!("  {}  {}; {what}\n", batch.id, sum(batch.sum)));
            }
            if batch.back.places > 0 && batch.own {
                out.push_str(&format!("  {}  {}; would come back: there is a row\n", batch.id, sum(batch.back)));
            }
        }
    }
    if !plan.rows.is_empty() {
        out.push_str(&format!("\n{}\n", painted(BOLD, "Rows of what is not there any more; they would be removed:")));
        out.push_str(&rows(&plan.rows));
    }
    out.push_str(&lost(plan));
    out.push_str(match (&plan.refused, plan.is_empty()) {
        (Some(_), _) => "\nNothing may be done as it stands.\n",
        (None, true) => "\nNothing is to be done.\n",
        (None, false) => "\nNothing was done: --yes does it.\n",
    });
    out
}

/// The text of what was done.
pub(super) fn swept(it: &Swept) -> String {
    let whole = it.failures.total + it.plan.unread.total == 0;
    let word = if whole { painted(GOOD, "Done") } else { painted(BAD, "Done in part") };
    let mut out = format!("{word} in {}\n{}", seconds(it.took), head(&it.plan));
    if it.plan.request.root.is_some() {
        out.push_str(&format!("  quarantine  {}", sum(it.aside)));
        out.push_str(&if it.aside.places > 0 {
            format!(", as batch {}; back: `mlops cleanup orphans --put-back {}`\n", it.batch, it.batch)
        } else {
            "\n".to_owned()
        });
        if it.back.places > 0 {
            out.push_str(&format!("  put back    {}: there is a row for them\n", sum(it.back)));
        }
        out.push_str(&format!("  removed     {}\n", sum(it.removed)));
    }
    if !it.rows.is_empty() {
        let total: u64 = it.rows.values().sum();
        let file = it.rows_file.as_deref().map(shown).unwrap_or_default();
        out.push_str(&format!("  rows        {} removed, kept in {file}\n\n{}", grouped(total), rows(&it.rows)));
    }
    out.push_str(&lost(&it.plan));
    let head = format!("{} could not be done; the next run tries again:", grouped(it.failures.total));
    out.push_str(&list(&painted(BAD, &head), &it.failures));
    out
}

/// The text of a batch that came back.
pub(super) fn put_back(it: &PutBack) -> String {
    let word = match (it.done, it.failures.total) {
        (false, _) => painted(BOLD, "Plan, nothing was changed: would come back"),
        (true, 0) => painted(GOOD, "Put back"),
        (true, _) => painted(BAD, "Put back in part"),
    };
    let mut out = format!("{word}: {} of batch {}\n", sum(it.sum), it.batch);
    out.push_str(&list(&painted(BAD, &format!("{} stay in quarantine:", grouped(it.failures.total))), &it.failures));
    out
}

/// What one that ended early has done, in a sentence.
pub(super) fn so_far(it: &Swept) -> String {
    let rows: u64 = it.rows.values().sum();
    let kept = it.rows_file.as_deref().map_or(String::new(), |file| format!(", kept in {}", shown(file)));
    format!(
        "so far {} are in quarantine (batch {}), {} came back, {} were removed, {} rows were removed{kept}",
        sum(it.aside),
        it.batch,
        counted(it.back.places, "place"),
        counted(it.removed.places, "place"),
        grouped(rows)
    )
}

fn sum_value(sum: Sum) -> Value {
    json!({"places": sum.places, "files": sum.files, "bytes": sum.bytes})
}

fn told_value(told: &Told) -> Value {
    let named: Vec<Value> = told.named.iter().map(|(path, why)| json!({"path": path, "reason": why})).collect();
    json!({"total": told.total, "named": named})
}

/// The document of a plan.
pub(super) fn plan_value(plan: &Plan) -> Value {
    let place = |found: &Found| {
        json!({"kind": found.kind.id(), "id": found.id, "path": found.path, "files": found.files, "bytes": found.bytes,
               "newest": at(found.newest)})
    };
    let gone: Vec<Value> = plan.gone.named.iter().map(|(what, place)| json!({"what": what, "place": place})).collect();
    let batch = |batch: &crate::cleanup::orphans::Batch| {
        let mut value =
            json!({"batch": batch.id, "due": batch.due, "own": batch.own, "come_back": sum_value(batch.back)});
        super::json::merge(&mut value, sum_value(batch.sum));
        value
    };
    json!({
        "done": false,
        "database": plan.database,
        "revision_text": plan.revision,
        "artifact_root": plan.request.root.as_ref().map(ToString::to_string),
        "with_row": sum_value(plan.known),
        "orphans": sum_value(plan.all_orphans()),
        "places": plan.first.iter().map(place).collect::<Vec<_>>(),
        "too_young": sum_value(plan.young),
        "unknown": sum_value(plan.unknown),
        "unknown_folders": told_value(&plan.unknown_folders),
        "left": sum_value(plan.left),
        "quarantine": plan.quarantine.iter().map(batch).collect::<Vec<_>>(),
        "without_files": {"total": plan.gone.total, "named": gone},
        "outside_root": plan.elsewhere,
        "other_files": told_value(&plan.strangers),
        "unreadable": told_value(&plan.unread),
        "rows": plan.rows,
        "refused": plan.refused.as_ref().map(|failure| failure.message.clone()),
    })
}

/// The document of what was done.
pub(super) fn swept_value(it: &Swept) -> Value {
    let mut value = plan_value(&it.plan);
    super::json::merge(
        &mut value,
        json!({
            "done": true,
            "batch": it.batch,
            "quarantined": sum_value(it.aside),
            "put_back": sum_value(it.back),
            "removed": sum_value(it.removed),
            "rows": it.rows,
            "rows_file": it.rows_file.as_deref().map(shown),
            "failures": told_value(&it.failures),
            "milliseconds": it.took.as_millis() as u64,
        }),
    );
    value
}

/// The document of a batch that came back.
pub(super) fn put_back_value(it: &PutBack) -> Value {
    json!({"batch": it.batch, "done": it.done, "put_back": sum_value(it.sum), "failures": told_value(&it.failures)})
}
