//! Results as JSON, version 1. Fields are only ever added. Numbers of 64 bits that may exceed what JavaScript keeps
//! are counts of rows and bytes here, which stay far below that; digests are text.

use serde::Serialize;
use serde_json::{Value, json};

use super::{Reporter, Result, backup, cleanup, cleanup_orphans, config, health, init_view, models, promote, verify};
use crate::TOOL;
use crate::demo::Shown;
use crate::doctor::Diagnosis;
use crate::doctor::finding as doctor;
use crate::domain::failure::Failure;
use crate::engine::compare::{TableComparison, What};
use crate::migrate::outcome::Migrated;
use crate::migrate::plan::{End, Existing, Plan};
use crate::migrate::policy::Applied;
use crate::migrate::survey::Finding;
use crate::migrate::verify::Compared;
use crate::source::OpenStore;

#[derive(Serialize)]
struct Envelope<'a> {
    schema: String,
    tool: &'static str,
    started: String,
    finished: String,
    exit: u8,
    result: Value,
    warnings: &'a [String],
    error: Option<ErrorV1<'a>>,
}

#[derive(Serialize)]
struct ErrorV1<'a> {
    kind: &'static str,
    message: &'a str,
    hint: Option<&'a str>,
}

/// A moment as documents write it.
pub fn time(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The document of a result or a failure.
pub(super) fn document(
    reporter: &Reporter,
    result: Option<&Result<'_>>,
    exit: u8,
    warnings: &[String],
    failure: Option<&Failure>,
) -> String {
    let envelope = Envelope {
        schema: format!("mlops.{}.v1", reporter.command),
        tool: TOOL,
        started: time(reporter.started),
        finished: time(jiff::Timestamp::now()),
        exit,
        result: result.map_or(Value::Null, value),
        warnings,
        error: failure.map(|f| ErrorV1 { kind: f.kind.word(), message: &f.message, hint: f.hint.as_deref() }),
    };
    let mut text = health::json::inert(&serde_json::to_string_pretty(&envelope).unwrap_or_default());
    text.push('\n');
    text
}

fn value(result: &Result<'_>) -> Value {
    match result {
        Result::Plan(plan, findings) => {
            let mut value = plan_value(plan);
            merge(&mut value, json!({"findings": findings.iter().map(finding).collect::<Vec<_>>()}));
            value
        }
        Result::Migrated(migrated) => migrated_value(migrated),
        Result::Rehearsed(migrated) => {
            let mut value = migrated_value(migrated);
            merge(&mut value, json!({"rehearsal": true, "done": false, "next": null}));
            value
        }
        Result::Compared(compared) => compared_value(compared),
        Result::Info(store, rows, bytes) => info_value(store, rows, bytes),
        Result::Diagnosed(diagnosis) => diagnosis_value(diagnosis),
        Result::Mending(diagnosis) => {
            let mut value = diagnosis_value(diagnosis);
            merge(&mut value, json!({"script": diagnosis.script()}));
            value
        }
        Result::Mended(mended) => {
            let mut value = diagnosis_value(&mended.left);
            merge(&mut value, json!({"mended": mended.mended.iter().map(doctors).collect::<Vec<_>>()}));
            value
        }
        Result::Health(examination) => health::json::value(examination),
        Result::HealthPlan(stack, planned) => health::plan::value(stack, planned),
        Result::BackedUp(created, pruned) => backup::created_value(created, *pruned),
        Result::Backups(listed) => backup::list_value(listed),
        Result::Backup(listed) => backup::show_value(listed),
        Result::Verified(all, wanted) => backup::verified_value(all, wanted),
        Result::Pruned(plan, really) => backup::pruned_value(plan, *really),
        Result::Pinned(id, pinned) => json!({"id": id, "pinned": pinned}),
        Result::RestorePlan(ready) => backup::restore_plan_value(ready),
        Result::Restored(restored) => backup::restored_value(restored),
        Result::PromotionPlan(plan, _) => promote::plan_value(plan),
        Result::Judged(plan, verdict, written) => promote::judged_value(plan, verdict, *written),
        Result::Promoted(promotion) => promote::promoted_value(promotion),
        Result::PromotionHistory(history) => promote::history_value(history),
        Result::Models(told) => models::value(told),
        Result::Cleanup(it) => cleanup::cleanup_value(it),
        Result::PutBack(it) => cleanup_orphans::put_back_value(it),
        Result::CleanupByPolicy(all) => cleanup::by_policy_value(all),
        Result::CleanupBatches(batches) => cleanup::batches_value(batches),
        Result::CleanupUndone(id, undone) => cleanup::undone_value(id, undone),
        Result::Account(account) => verify::value(account),
        Result::Settings(settings) => config::settings_value(settings),
        Result::Tried(file, tried) => config::tried_value(*file, tried),
        Result::Drafted(file, keys, _) => json!({"file": crate::domain::address::shown(file), "set": keys}),
        Result::Demo(shown) => demo_value(shown),
        Result::Init(plan) => init_view::value(plan),
        Result::Script(script) => json!({"script": script}),
    }
}

pub(super) fn merge(into: &mut Value, more: Value) {
    if let (Value::Object(into), Value::Object(more)) = (into, more) {
        into.extend(more);
    }
}

fn end(end: &End) -> Value {
    json!({"address": end.address, "engine": end.engine, "version": end.version, "bytes": end.bytes})
}

fn revisions(list: &[(String, String)]) -> Value {
    list.iter().map(|(line, id)| json!({"line": line, "revision": id})).collect()
}

pub(super) fn plan_value(plan: &Plan) -> Value {
    let existing = match &plan.existing {
        Existing::Nothing => json!({"state": "empty"}),
        Existing::FreshServer(n) => json!({"state": "fresh_server", "tables": n}),
        Existing::MovedTo(schema, n) => json!({"state": "replaced", "tables": n, "kept_in": schema}),
    };
    json!({
        "id": plan.id,
        "done": false,
        "source": end(&plan.source),
        "target": end(&plan.target),
        "revisions": revisions(&plan.revisions),
        "existing": existing,
        "rows": plan.rows(),
        "tables": plan.tables.iter().map(|(name, rows)| json!({"table": name, "rows": rows})).collect::<Vec<_>>(),
        "left_out": plan.left_out,
        "verify": plan.verify,
        "owner": plan.owner,
        "policies": applied(&plan.applied),
    })
}

/// What the policies came to. Ids are text: they have more digits than JavaScript keeps.
fn applied(applied: &Applied) -> Value {
    let widened = applied.widened.iter().map(|w| {
        json!({
            "table": w.because.table, "column": w.because.column, "from": w.because.limit, "to": w.to,
            "longest": w.because.longest, "rows": w.because.rows,
        })
    });
    let ids = applied.experiment_ids.iter().map(|(old, new)| json!({"old": old.to_string(), "new": new.to_string()}));
    let addresses = applied.addresses.iter().map(
        |(form, (all, rewritten))| json!({"place": form.place, "form": form.form, "rows": all, "rewritten": rewritten}),
    );
    let aside = applied.aside.iter().map(|a| json!({"table": a.table, "reason": a.why, "rows": a.rows}));
    json!({
        "surveyed": applied.surveyed,
        "widened": widened.collect::<Vec<_>>(),
        "experiment_ids": ids.collect::<Vec<_>>(),
        "experiment_id_places": applied.ids.iter().map(|(place, rows)| json!({"place": place, "rows": rows})).collect::<Vec<_>>(),
        "rewrites": applied.rewrites.iter().map(|r| json!({"from": r.from, "to": r.to})).collect::<Vec<_>>(),
        "addresses": addresses.collect::<Vec<_>>(),
        "quarantine_file": applied.quarantine.as_ref().map(|f| f.display().to_string()),
        "quarantined": aside.collect::<Vec<_>>(),
        "quarantined_rows": applied.rows_aside(),
        "dangling": applied.dangling,
    })
}

fn finding(finding: &Finding) -> Value {
    json!({
        "table": finding.table, "column": finding.column, "what": finding.what,
        "rows": finding.rows, "first": finding.first, "hint": finding.advice,
    })
}

pub(super) fn migrated_value(migrated: &Migrated) -> Value {
    let mut value = plan_value(&migrated.plan);
    let tables: Vec<Value> = migrated
        .tables
        .iter()
        .map(|t| {
            json!({
                "table": t.name,
                "rows": t.source.rows,
                "source_digest": t.source.to_string(),
                "target_rows": t.target.map(|d| d.rows),
                "target_digest": t.target.map(|d| d.to_string()),
            })
        })
        .collect();
    let phases: Vec<Value> = migrated
        .phases
        .iter()
        .map(|(name, took)| json!({"phase": name, "milliseconds": took.as_millis() as u64}))
        .collect();
    merge(
        &mut value,
        json!({
            "done": true,
            "tables": tables,
            "verified": migrated.verified,
            "milliseconds": migrated.took.as_millis() as u64,
            "rows_per_second": migrated.rows_per_second() as u64,
            "phases": phases,
            "next": migrated.next_step(),
        }),
    );
    value
}

fn comparison(table: &TableComparison) -> Value {
    let differences: Vec<Value> = table
        .differences
        .iter()
        .map(|d| {
            let key: Value = d.key.iter().map(|(k, v)| (k.clone(), Value::from(v.clone()))).collect::<serde_json::Map<_, _>>().into();
            match &d.what {
                What::Missing => json!({"key": key, "what": "missing"}),
                What::Extra => json!({"key": key, "what": "extra"}),
                What::Changed(cells) => json!({
                    "key": key,
                    "what": "changed",
                    "columns": cells.iter().map(|c| json!({"column": c.column, "source": c.source, "target": c.target})).collect::<Vec<_>>(),
                }),
            }
        })
        .collect();
    json!({
        "table": table.table,
        "equal": table.equal(),
        "source_rows": table.source.rows,
        "target_rows": table.target.rows,
        "source_digest": table.source.to_string(),
        "target_digest": table.target.to_string(),
        "differing_rows": table.differing_rows,
        "counted_all": table.counted_all,
        "differences": differences,
    })
}

fn compared_value(compared: &Compared) -> Value {
    json!({
        "source": end(&compared.source),
        "target": end(&compared.target),
        "revisions": revisions(&compared.revisions),
        "equal": compared.equal(),
        "tables": compared.tables.iter().map(comparison).collect::<Vec<_>>(),
        "left_out": compared.left_out,
        "milliseconds": compared.took.as_millis() as u64,
    })
}

fn info_value(store: &OpenStore, rows: &[(String, u64)], sizes: &[(String, u64)]) -> Value {
    let tables: Vec<Value> = rows
        .iter()
        .map(|(name, rows)| {
            let size = sizes.iter().find(|(t, _)| t == name).map(|(_, b)| *b);
            json!({"table": name, "rows": rows, "bytes": size})
        })
        .collect();
    let revisions: Vec<Value> = store
        .identity
        .revisions
        .iter()
        .map(|r| json!({"line": r.line.word(), "revision": r.id, "releases": r.releases}))
        .collect();
    json!({
        "address": store.address,
        "engine": store.engine,
        "version": store.version,
        "bytes": store.bytes,
        "revisions": revisions,
        "tables": tables,
        "foreign_tables": store.identity.foreign,
        "notes": store.notes,
    })
}

fn diagnosis_value(diagnosis: &Diagnosis) -> Value {
    let revisions: Vec<Value> = diagnosis
        .revisions
        .iter()
        .map(|r| json!({"line": r.line.word(), "revision": r.id, "releases": r.releases}))
        .collect();
    json!({
        "address": diagnosis.address,
        "engine": diagnosis.engine,
        "version": diagnosis.version,
        "revision": diagnosis.revisions.first().map(|r| &r.id),
        "revisions": revisions,
        "errors": diagnosis.count(doctor::Severity::Error),
        "warnings": diagnosis.count(doctor::Severity::Warning),
        "notes": diagnosis.count(doctor::Severity::Note),
        "findings": diagnosis.findings.iter().map(doctors).collect::<Vec<_>>(),
    })
}

fn doctors(finding: &doctor::Finding) -> Value {
    json!({
        "severity": finding.severity.word(), "id": finding.id, "object": finding.object, "what": finding.what,
        "breaks": finding.breaks, "fixable": finding.fixable(), "sql": finding.sql(), "cannot": finding.cannot,
    })
}

fn demo_value(shown: &Shown) -> Value {
    json!({
        "sample": {"rows": shown.rows, "bytes": shown.bytes, "milliseconds": shown.took.as_millis() as u64},
        "migration": shown.migrated.as_ref().map(migrated_value),
        "notes": shown.remarks,
    })
}

/// The schema of a certificate.
pub const CERTIFICATE: &str = "mlops.certificate.v1";

/// The certificate of a migration: what was proven, without secrets.
pub fn certificate(migrated: &Migrated, started: jiff::Timestamp) -> String {
    let mut value = json!({
        "schema": CERTIFICATE,
        "tool": TOOL,
        "digest_encoding": crate::domain::digest::ENCODING,
        "started": time(started),
        "finished": time(jiff::Timestamp::now()),
        "warnings": migrated.warnings,
    });
    merge(&mut value, migrated_value(migrated));
    let mut text = serde_json::to_string_pretty(&value).unwrap_or_default();
    text.push('\n');
    text
}
