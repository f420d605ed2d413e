//! Results for people.

use anstyle::{AnsiColor, Style};

use super::config;
use super::table::{bytes, counted, fitted, grouped, said, seconds, table};
use super::{Result, health, init_view, models};
use super::{backup, cleanup, cleanup_orphans, doctor, promote, verify};
use crate::demo::Shown;
use crate::domain::failure::Failure;
use crate::engine::compare::TableComparison;
use crate::migrate::execute::difference_lines;
use crate::migrate::outcome::Migrated;
use crate::migrate::plan::{End, Existing, Plan};
use crate::migrate::policy::Applied;
use crate::migrate::survey::{Finding, Overlong};
use crate::migrate::verify::Compared;
use crate::source::OpenStore;

pub(super) const BOLD: Style = Style::new().bold();
pub(super) const GOOD: Style = AnsiColor::Green.on_default().bold();
pub(super) const BAD: Style = AnsiColor::Red.on_default().bold();
pub(super) const CARE: Style = AnsiColor::Yellow.on_default().bold();

pub(super) fn painted(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}

/// The text of a result.
pub(super) fn text(result: &Result<'_>) -> String {
    match result {
        Result::Plan(plan, findings) => plan_text(plan, findings),
        Result::Migrated(migrated) => {
            let next = painted(BOLD, "Next:");
            format!("{}{next} {}\n", migrated_text(migrated), migrated.next_step())
        }
        Result::Rehearsed(migrated) => rehearsed_text(migrated),
        Result::Compared(compared) => compared_text(compared),
        Result::Info(store, rows, bytes) => info_text(store, rows, bytes),
        Result::Diagnosed(diagnosis) => doctor::diagnosis(diagnosis),
        Result::Mending(diagnosis) => diagnosis.script(),
        Result::Mended(mended) => doctor::mended(mended),
        Result::Health(examination) => health::table::text(examination, &jiff::tz::TimeZone::system()),
        Result::HealthPlan(stack, planned) => health::plan::text(stack, planned),
        Result::BackedUp(created, pruned) => backup::created(created, *pruned),
        Result::Backups(listed) => backup::list(listed),
        Result::Backup(listed) => backup::show(listed),
        Result::Verified(all, wanted) => backup::verified(all, wanted),
        Result::Pruned(plan, really) => backup::pruned(plan, *really),
        Result::Pinned(id, pinned) => backup::pinned(id, *pinned),
        Result::RestorePlan(ready) => backup::restore_plan(ready),
        Result::Restored(restored) => backup::restored(restored),
        Result::PromotionPlan(plan, dry) => promote::plan(plan, *dry),
        Result::Judged(plan, verdict, written) => promote::judged(plan, verdict, *written),
        Result::Promoted(promotion) => promote::promoted(promotion),
        Result::PromotionHistory(history) => promote::history(history),
        Result::Models(told) => models::text(told),
        Result::Cleanup(it) => cleanup::cleanup(it),
        Result::PutBack(it) => cleanup_orphans::put_back(it),
        Result::CleanupByPolicy(all) => cleanup::by_policy(all),
        Result::CleanupBatches(batches) => cleanup::batches(batches),
        Result::CleanupUndone(id, undone) => cleanup::undone(id, undone),
        Result::Account(account) => verify::text(account),
        Result::Settings(settings) => config::settings_text(settings),
        Result::Tried(file, tried) => config::tried_text(*file, tried),
        Result::Drafted(file, keys, usual) => config::drafted_text(file, keys, *usual),
        Result::Demo(shown) => demo_text(shown),
        Result::Init(plan) => init_view::text(plan),
        Result::Script(script) => (*script).to_owned(),
    }
}

/// The text of a failure: what failed and what to do next.
pub(super) fn failure(failure: &Failure) -> String {
    let mut text = labelled(BAD, "error:", &failure.message);
    if let Some(hint) = &failure.hint {
        text.push_str(&labelled(BOLD, "hint:", hint));
    }
    text
}

/// A warning's line.
pub(super) fn warning(warning: &str) -> String {
    labelled(CARE, "warning:", warning)
}

fn labelled(style: anstyle::Style, label: &str, text: &str) -> String {
    said(&painted(style, label), label.len(), text)
}

fn end_text(end: &End) -> String {
    let size = end.bytes.map_or(String::new(), |b| format!(", {}", bytes(b)));
    format!("{} ({} {}{size})", end.address, end.engine, end.version)
}

fn left_out_text(left_out: &[String]) -> String {
    if left_out.is_empty() {
        return String::new();
    }
    format!("Not MLflow's, left out: {}\n", left_out.join(", "))
}

pub(super) fn plan_text(plan: &Plan, findings: &[Finding]) -> String {
    let existing = match &plan.existing {
        Existing::Nothing => "nothing of MLflow's is there".to_owned(),
        Existing::FreshServer(n) => format!("the {n} empty tables of a fresh server are replaced"),
        Existing::MovedTo(aside, _) if plan.target.engine == "SQLite" => {
            format!("the file that is there is replaced, and kept as {aside}")
        }
        Existing::MovedTo(schema, n) => format!("{n} tables with data are moved to the schema {schema}"),
    };
    let mut out = format!("{}\n", painted(BOLD, "Plan, nothing was changed"));
    out.push_str(&format!("  from      {}\n", end_text(&plan.source)));
    out.push_str(&format!("  to        {}\n", end_text(&plan.target)));
    out.push_str(&format!("            {existing}\n"));
    out.push_str(&format!("  revision  {}\n\n", plan.revision));
    out.push_str(&rows_table(&plan.tables));
    out.push_str(&left_out_text(&plan.left_out));
    out.push_str(&applied_text(&plan.applied));
    let check = if plan.verify { "then verified before it is published" } else { "NOT verified" };
    out.push_str(&format!("\n{} rows would be copied, {check}.\n", grouped(plan.rows())));
    if !findings.is_empty() {
        out.push_str(&format!(
            "\n{}\n",
            painted(
                BAD,
                &format!("{} cannot keep what follows, so the migration would be refused:", plan.target.engine)
            )
        ));
        for finding in findings {
            out.push_str(&format!("  - {}\n", finding.text()));
        }
    }
    out
}

/// What the policies came to, and which addresses there are.
fn applied_text(applied: &Applied) -> String {
    let mut out = String::new();
    if !applied.addresses.is_empty() {
        let rewriting = !applied.rewrites.is_empty();
        let rows = applied
            .addresses
            .iter()
            .map(|(form, (all, rewritten))| {
                let mut row = vec![form.place.clone(), form.form.to_owned(), grouped(*all)];
                row.extend(rewriting.then(|| grouped(*rewritten)));
                row
            })
            .collect();
        let mut titles = vec!["artifact addresses", "form", "rows"];
        titles.extend(rewriting.then_some("rewritten"));
        out.push_str(&format!("\n{}", table(&titles, rows, &[2, 3])));
    }
    for rewrite in &applied.rewrites {
        out.push_str(&format!("Addresses that begin with {} begin with {} in the target.\n", rewrite.from, rewrite.to));
    }
    for widened in &applied.widened {
        let Overlong { table, column, limit, longest, rows } = &widened.because;
        out.push_str(&format!(
            "Widened: {table}.{column} takes {} characters instead of {limit} ({rows} rows, the longest {longest}).\n",
            widened.to
        ));
    }
    if !applied.experiment_ids.is_empty() {
        out.push_str("New experiment ids:\n");
        for (old, new) in &applied.experiment_ids {
            out.push_str(&format!("  {old} becomes {new}\n"));
        }
        let places: Vec<String> =
            applied.ids.iter().map(|(place, rows)| format!("{place} {}", grouped(*rows))).collect();
        out.push_str(&format!("  in {}\n", places.join(", ")));
    }
    if let Some(file) = &applied.quarantine {
        let file = crate::domain::address::shown(file);
        out.push_str(&format!(
            "{}\n",
            painted(
                CARE,
                &format!("{} rows are not copied but written whole into {file}:", grouped(applied.rows_aside()))
            )
        ));
        for aside in &applied.aside {
            out.push_str(&format!("  - {} of `{}`: {}\n", grouped(aside.rows), aside.table, aside.why));
        }
    }
    out
}

fn rehearsed_text(migrated: &Migrated) -> String {
    format!(
        "{}{} the target was a private PostgreSQL that is gone again; the file is as it was. The real run needs --target.\n",
        migrated_text(migrated),
        painted(BOLD, "Rehearsal:")
    )
}

/// Tables and rows, those without rows in one line.
fn rows_table(tables: &[(String, u64)]) -> String {
    let filled = tables.iter().filter(|(_, rows)| *rows > 0);
    let rows: Vec<Vec<String>> = filled.map(|(name, rows)| vec![name.clone(), grouped(*rows)]).collect();
    let empty = tables.len() - rows.len();
    let mut out = table(&["table", "rows"], rows, &[1]);
    if empty > 0 {
        out.push_str(&format!(" and {} without rows\n", counted(empty, "table")));
    }
    out
}

fn migrated_text(migrated: &Migrated) -> String {
    let plan = &migrated.plan;
    let word = if plan.target.engine == "archive" { "Exported" } else { "Migrated" };
    let mut out = format!("{} {}\n", painted(BOLD, word), end_text(&plan.source));
    out.push_str(&format!("      to {}\n", end_text(&plan.target)));
    out.push_str(&format!("revision {}\n\n", plan.revision));
    let filled = migrated.tables.iter().filter(|t| t.source.rows > 0);
    let rows: Vec<Vec<String>> = filled
        .map(|t| {
            let verdict = match t.target {
                Some(target) if target == t.source => "equal",
                Some(_) => "DIFFERS",
                None => "not verified",
            };
            vec![t.name.clone(), grouped(t.source.rows), t.source.to_string(), verdict.to_owned()]
        })
        .collect();
    let empty = migrated.tables.len() - rows.len();
    out.push_str(&fitted(&["table", "rows", "digest", "target"], rows, &[1], &["digest"]));
    if empty > 0 {
        out.push_str(&format!(" and {} without rows\n", counted(empty, "table")));
    }
    out.push_str(&left_out_text(&plan.left_out));
    // Which addresses there are was for the plan; what was done with them is for here.
    let addresses = plan.applied.addresses.iter().filter(|(_, (_, rewritten))| *rewritten > 0);
    let addresses = addresses.map(|(form, counts)| (form.clone(), *counts)).collect();
    out.push_str(&applied_text(&Applied { addresses, ..plan.applied.clone() }));
    let phases: Vec<String> = migrated.phases.iter().map(|(name, took)| format!("{name} {}", seconds(*took))).collect();
    out.push_str(&format!(
        "\n{} rows in {} ({} rows/s): {}\n",
        grouped(migrated.rows()),
        seconds(migrated.took),
        grouped(migrated.rows_per_second() as u64),
        phases.join(", ")
    ));
    if let Existing::MovedTo(schema, n) = &plan.existing {
        out.push_str(&if plan.target.engine == "SQLite" {
            format!("The file that was there is now {schema}; remove it when you no longer need it.\n")
        } else {
            format!(
                "The {n} tables that were there are now in the schema {schema}; drop it when you no longer need it.\n"
            )
        });
    }
    out.push_str(&if migrated.verified {
        let which = if plan.applied.rows_aside() > 0 { "every row that was copied" } else { "every row" };
        format!("{} {which} was read back from the target and equals the source.\n", painted(GOOD, "Verified:"))
    } else if plan.target.engine == "archive" {
        format!("{} the archive was not read back; whoever imports it checks it.\n", painted(CARE, "Not verified:"))
    } else {
        format!(
            "{} the target was not read back; `mlops migrate verify` does it now.\n",
            painted(CARE, "Not verified:")
        )
    });
    out
}

fn compared_text(compared: &Compared) -> String {
    let mut out = format!("source   {}\n", end_text(&compared.source));
    out.push_str(&format!("target   {}\n", end_text(&compared.target)));
    out.push_str(&format!("revision {}\n\n", compared.revision));
    let worth: Vec<&TableComparison> = compared.tables.iter().filter(|t| !t.equal() || t.source.rows > 0).collect();
    let rows = worth
        .iter()
        .map(|t| {
            let verdict = if t.equal() { "equal" } else { "DIFFERS" };
            vec![
                t.table.clone(),
                grouped(t.source.rows),
                grouped(t.target.rows),
                t.source.to_string(),
                verdict.to_owned(),
            ]
        })
        .collect();
    out.push_str(&fitted(&["table", "source rows", "target rows", "digest", "verdict"], rows, &[1, 2], &["digest"]));
    let empty = compared.tables.len() - worth.len();
    if empty > 0 {
        out.push_str(&format!(" and {} without rows on both sides\n", counted(empty, "table")));
    }
    out.push_str(&left_out_text(&compared.left_out));
    let differing: String = compared.tables.iter().filter(|t| !t.equal()).map(difference_lines).collect();
    if differing.is_empty() {
        let rows: u64 = compared.tables.iter().map(|t| t.source.rows).sum();
        out.push_str(&format!(
            "\n{} {} rows are the same in both stores, to the cell ({}).\n",
            painted(GOOD, "Equal:"),
            grouped(rows),
            seconds(compared.took)
        ));
    } else {
        out.push_str(&format!("\n{}{differing}\n", painted(BAD, "Different:")));
    }
    out
}

fn info_text(store: &OpenStore, rows: &[(String, u64)], sizes: &[(String, u64)]) -> String {
    let mut out = format!("{}\n", painted(BOLD, &store.address));
    out.push_str(&format!("  engine    {} {}, {}\n", store.engine, store.version, bytes(store.bytes)));
    for revision in &store.identity.revisions {
        out.push_str(&format!("  revision  {} {} ({})\n", revision.line.word(), revision.id, revision.releases_text()));
    }
    for note in &store.notes {
        out.push_str(&format!("  note      {note}\n"));
    }
    out.push('\n');
    let lines = rows
        .iter()
        .map(|(name, rows)| {
            let size = sizes.iter().find(|(t, _)| t == name).map_or(String::new(), |(_, b)| bytes(*b));
            vec![name.clone(), grouped(*rows), size]
        })
        .collect();
    out.push_str(&table(&["table", "rows", "with indexes"], lines, &[1, 2]));
    if !store.identity.foreign.is_empty() {
        out.push_str(&format!("Not MLflow's: {}\n", store.identity.foreign.join(", ")));
    }
    out
}

fn demo_text(shown: &Shown) -> String {
    let mut out = format!(
        "{} {} rows of an MLflow store ({}) in {}\n\n",
        painted(BOLD, "Made"),
        grouped(shown.rows),
        bytes(shown.bytes),
        seconds(shown.took)
    );
    if let Some(migrated) = &shown.migrated {
        out.push_str(&migrated_text(migrated));
    }
    for line in &shown.remarks {
        out.push_str(&format!("{line}\n"));
    }
    out
}
