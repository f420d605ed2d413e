//! Backups and restores, for people and for documents.

use serde_json::{Value, json};

use super::human::{BAD, BOLD, CARE, GOOD, painted};
use super::json::plan_value;
use super::table::{bytes, counted, fitted, grouped, seconds, table};
use crate::backup::create::Created;
use crate::backup::manifest::{Artifacts, Database, Manifest, Scope};
use crate::backup::prune;
use crate::backup::repository::Listed;
use crate::backup::restore::{FilePlan, Ready, Restored};
use crate::backup::verify::{Subset, Verified, Wanted};
use crate::domain::retention::Rule;
use crate::migrate::part::Chosen;

/// Artifacts that are listed on the terminal; all that are known stand in the manifest.
const LISTED: usize = 20;

/// One line on a backup, for a message.
pub(super) fn line(manifest: &Manifest) -> String {
    let artifacts = &manifest.artifacts;
    let what = format!(
        "backup {}: {}, {}, {} new",
        manifest.id,
        counted(manifest.database.rows("runs"), "run"),
        counted(artifacts.files, "artifact file"),
        bytes(manifest.new_bytes())
    );
    match artifacts.unreadable {
        0 => what,
        n => format!("{what}; {n} artifacts could not be read"),
    }
}

fn unread(manifest: &Manifest) -> String {
    unread_as(manifest, "artifacts could not be read")
}

fn unread_as(manifest: &Manifest, what: &str) -> String {
    let artifacts = &manifest.artifacts;
    if artifacts.unreadable == 0 {
        return String::new();
    }
    let mut out = format!("\n{}\n", painted(BAD, &format!("{} {what}:", artifacts.unreadable)));
    for one in artifacts.unread.iter().take(LISTED) {
        out.push_str(&format!("  {}: {}\n", one.address, one.reason));
    }
    let left = artifacts.unreadable.saturating_sub(LISTED.min(artifacts.unread.len()) as u64);
    if left > 0 {
        out.push_str(&format!("  and {left} more: `mlops backup show {} --output json`\n", manifest.id));
    }
    out
}

fn database_line(database: &Database) -> String {
    format!("{} ({} {}, {})", database.address, database.engine, database.version, bytes(database.archive.bytes))
}

/// What a backup holds, line by line.
fn contents(manifest: &Manifest) -> String {
    let (artifacts, database) = (&manifest.artifacts, &manifest.database);
    let mut out = format!("  database   {}\n", database_line(database));
    out.push_str(&format!("             {}\n", database.revision_text));
    out.push_str(&format!(
        "             {}, {}, {}, {}\n",
        counted(database.rows("experiments"), "experiment"),
        counted(database.rows("runs"), "run"),
        counted(database.rows("registered_models"), "registered model"),
        counted(database.rows("model_versions"), "model version")
    ));
    if let Some(auth) = &manifest.auth {
        out.push_str(&format!("  basic-auth {}\n", database_line(auth)));
    }
    out.push_str(&format!(
        "  artifacts  {} ({}, {}; stored {})\n",
        artifacts.scope.word(),
        counted(artifacts.files, "file"),
        bytes(artifacts.bytes),
        bytes(artifacts.stored)
    ));
    for root in &artifacts.roots {
        out.push_str(&format!("             below {}\n", address(root)));
    }
    for secret in &manifest.secrets {
        out.push_str(&format!("{} a restore also needs {secret}\n", painted(CARE, "Keep apart:")));
    }
    out
}

/// A root with its password masked.
fn address(root: &str) -> String {
    // `mlflow-artifacts:` stands for its root.
    let slash = if root.ends_with(':') { "/" } else { "" };
    crate::domain::artifact_address::ArtifactAddress::parse(&format!("{root}{slash}")).to_string()
}

pub(super) fn created(created: &Created, pruned: Option<(&prune::Plan, bool)>) -> String {
    let manifest = &created.manifest;
    let (style, word) = if manifest.complete { (GOOD, "Backed up") } else { (BAD, "Backed up in part") };
    let mut out = format!("{} as {} in {}\n", painted(style, word), manifest.id, created.place);
    out.push_str(&contents(manifest));
    out.push_str(&format!(
        "  read {}, stored {}; the place grew by {} in {}\n",
        counted(manifest.artifacts.read, "file"),
        counted(manifest.artifacts.new_files, "new content"),
        bytes(manifest.new_bytes()),
        seconds(created.took)
    ));
    out.push_str(&unread(manifest));
    if let Some((plan, really)) = pruned {
        out.push('\n');
        out.push_str(&self::pruned(plan, really));
    }
    let next = painted(BOLD, "Next:");
    out.push_str(&format!(
        "{next} `mlops backup verify {} --drill --from {}` proves that it can be restored\n",
        manifest.id,
        shell_word(&created.place)
    ));
    out
}

pub(super) fn created_value(created: &Created, pruned: Option<(&prune::Plan, bool)>) -> Value {
    let mut value = manifest(&created.manifest);
    super::json::merge(
        &mut value,
        json!({
            "place": created.place,
            "milliseconds": created.took.as_millis() as u64,
            "pruned": pruned.map(|(plan, really)| pruned_value(plan, really)),
        }),
    );
    value
}

fn manifest(manifest: &Manifest) -> Value {
    let mut value = serde_json::to_value(manifest).unwrap_or_default();
    let rows = |table| manifest.database.rows(table);
    let sizes = json!({
        "bytes": manifest.bytes(), "new_bytes": manifest.new_bytes(),
        "runs": rows("runs"), "models": rows("registered_models"), "versions": rows("model_versions"),
    });
    super::json::merge(&mut value, sizes);
    if let Some(Value::Array(roots)) = value.pointer_mut("/artifacts/roots") {
        for root in roots {
            *root = Value::from(address(root.as_str().unwrap_or_default()));
        }
    }
    value
}

/// The day of a time: `2026-11-22`.
fn day(time: Option<&str>) -> String {
    time.map_or("never", |time| time.get(..10).unwrap_or(time)).to_owned()
}

pub(super) fn list(listed: &[Listed]) -> String {
    let rows = listed
        .iter()
        .map(|one| {
            let yes = |yes: bool| if yes { "yes" } else { "" }.to_owned();
            let mut row = vec![one.id.clone()];
            match &one.manifest {
                Some(Ok(m)) => row.extend([
                    m.started.clone(),
                    bytes(m.bytes()),
                    bytes(m.new_bytes()),
                    grouped(m.database.rows("runs")),
                    grouped(m.database.rows("registered_models")),
                    state(m),
                    day(one.proof.verified.as_deref()),
                    day(one.proof.drilled.as_deref()),
                ]),
                other => {
                    let state = if other.is_some() { "DAMAGED" } else { "unfinished" };
                    let empty = || String::new();
                    row.extend([empty(), empty(), empty(), empty(), empty(), state.to_owned(), empty(), empty()]);
                }
            }
            row.push(yes(one.pinned));
            row
        })
        .collect();
    let head = ["backup", "started", "size", "new", "runs", "models", "state", "verified", "drilled", "pinned"];
    // The id tells the time.
    fitted(&head, rows, &[2, 3, 4, 5], &["started", "models", "runs", "new", "drilled", "verified"])
}

/// A word as a shell takes it.
pub(super) fn shell_word(text: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "_-./:@%+=,*".contains(c);
    if text.chars().all(plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// `complete`, `complete, registered`, `3 unread`
fn state(manifest: &Manifest) -> String {
    let Artifacts { unreadable, scope, .. } = manifest.artifacts;
    let state = if manifest.complete { "complete".to_owned() } else { format!("{unreadable} unread") };
    if scope == Scope::All { state } else { format!("{state}, {}", scope.word()) }
}

pub(super) fn list_value(listed: &[Listed]) -> Value {
    json!({"backups": listed.iter().map(one_value).collect::<Vec<_>>()})
}

fn one_value(one: &Listed) -> Value {
    let (state, mut value) = match &one.manifest {
        Some(Ok(m)) => (if m.complete { "complete" } else { "incomplete" }, manifest(m)),
        Some(Err(failure)) => ("damaged", json!({"error": failure.message})),
        None => ("unfinished", json!({})),
    };
    let known = json!({
        "id": one.id, "state": state, "pinned": one.pinned, "verified": one.proof.verified, "drilled": one.proof.drilled,
    });
    super::json::merge(&mut value, known);
    value
}

pub(super) fn show(one: &Listed) -> String {
    let Some(Ok(manifest)) = &one.manifest else { return format!("{}: no backup\n", one.id) };
    let mut out = format!("{} {}\n", painted(BOLD, "Backup"), manifest.id);
    out.push_str(&format!("  begun      {}\n  ended      {}\n", manifest.started, manifest.finished));
    out.push_str(&format!("  written by {}\n", manifest.tool));
    out.push_str(&format!("  verified   {}\n", one.proof.verified.as_deref().unwrap_or("never")));
    out.push_str(&format!("  drilled    {}\n", one.proof.drilled.as_deref().unwrap_or("never")));
    out.push_str(&format!("  pinned     {}\n", if one.pinned { "yes" } else { "no" }));
    out.push_str(&contents(manifest));
    out.push_str(&unread(manifest));
    for warning in &manifest.warnings {
        out.push_str(&format!("{} {warning}\n", painted(CARE, "warning:")));
    }
    out
}

pub(super) fn show_value(one: &Listed) -> Value {
    one_value(one)
}

pub(super) fn verified(all: &[Verified], wanted: &Wanted) -> String {
    let mut out = String::new();
    for one in all {
        if one.faults.is_empty() {
            let (contents, stored) = one.read;
            let seen =
                if one.seen > 0 { format!(", {} more seen to be there", grouped(one.seen)) } else { String::new() };
            let drill = if wanted.drill.is_some() { ", restored into a scratch database and equal there" } else { "" };
            out.push_str(&format!(
                "{} {}: database{drill}; {} read ({}){seen}\n",
                painted(GOOD, "Sound"),
                one.id,
                counted(contents, "content"),
                bytes(stored)
            ));
        } else {
            out.push_str(&format!("{} {}:\n", painted(BAD, "Damaged"), one.id));
            for fault in &one.faults {
                out.push_str(&format!("  {fault}\n"));
            }
        }
    }
    if all.iter().any(|one| !one.faults.is_empty()) {
        let next = painted(BOLD, "Next:");
        out.push_str(&format!(
            "{next} `mlops backup --rehash` stores anew what the stack still has; a damaged database needs another backup\n"
        ));
    }
    if wanted.subset != Subset::ALL {
        out.push_str(&format!(
            "Read part {} of {}: the other parts were not read.\n",
            wanted.subset.part, wanted.subset.of
        ));
    }
    out
}

pub(super) fn verified_value(all: &[Verified], wanted: &Wanted) -> Value {
    let backups: Vec<Value> = all
        .iter()
        .map(|one| {
            json!({
                "id": one.id, "sound": one.faults.is_empty(), "faults": one.faults, "contents_read": one.read.0,
                "bytes_read": one.read.1, "contents_seen": one.seen,
            })
        })
        .collect();
    json!({
        "backups": backups,
        "read_data_subset": {"part": wanted.subset.part, "of": wanted.subset.of},
        "drill": wanted.drill.is_some(),
    })
}

pub(super) fn pruned(plan: &prune::Plan, really: bool) -> String {
    let rows = plan
        .decisions
        .iter()
        .map(|d| vec![d.id.clone(), if d.kept { "kept" } else { "goes" }.to_owned(), d.reasons.join(", ")])
        .collect();
    let mut out = table(&["backup", "state", "reason"], rows, &[]);
    for id in &plan.unfinished {
        out.push_str(&format!("{id}  goes  it was never finished\n"));
    }
    out.push_str(&format!("Limits: {}\n", rules(&plan.rules)));
    let backups = plan.removed().count() + plan.unfinished.len();
    let what =
        format!("{} and {}, {}", counted(backups, "backup"), counted(plan.contents, "content"), bytes(plan.bytes));
    if really {
        out.push_str(&format!("Removed {what}.\n"));
    } else if plan.is_empty() {
        out.push_str("Nothing would be removed.\n");
    } else {
        out.push_str(&format!(
            "Would remove {what}, and the contents that only those need. Nothing was: --yes does it.\n"
        ));
    }
    out
}

/// `keep_daily 7, keep_weekly 5 (/etc/mlops/config.toml)`
fn rules(rules: &[Rule]) -> String {
    let mut origins: Vec<&str> = rules.iter().map(origin).collect();
    origins.dedup();
    let of = |from: &str| {
        let own = rules.iter().filter(|rule| origin(rule) == from);
        own.map(|rule| format!("{} {}", rule.name, rule.text)).collect::<Vec<_>>().join(", ")
    };
    let mut told: Vec<String> = Vec::new();
    for from in origins {
        let line = format!("{} ({from})", of(from));
        if !told.contains(&line) {
            told.push(line);
        }
    }
    told.join("; ")
}

fn origin(rule: &Rule) -> &str {
    rule.origin.as_deref().unwrap_or("flag")
}

pub(super) fn pruned_value(plan: &prune::Plan, really: bool) -> Value {
    let decisions: Vec<Value> =
        plan.decisions.iter().map(|d| json!({"id": d.id, "kept": d.kept, "reasons": d.reasons})).collect();
    let rule = |r: &Rule| json!({"rule": r.name, "value": r.text, "origin": origin(r)});
    let rules: Vec<Value> = plan.rules.iter().map(rule).collect();
    json!({
        "done": really, "rules": rules, "backups": decisions, "unfinished": plan.unfinished, "contents": plan.contents,
        "bytes": plan.bytes,
    })
}

fn files_text(files: &FilePlan, done: bool) -> String {
    let Some(root) = &files.root else { return "  artifacts  none\n".to_owned() };
    let (missing, differing) = (files.missing, files.differing);
    let verb = if done { "written" } else { "to be written" };
    let mut out = format!(
        "  artifacts  {root}: {} {verb} ({}), {} were there already\n",
        grouped(missing.0 + differing.0),
        bytes(missing.1 + differing.1),
        grouped(files.there)
    );
    if differing.0 > 0 {
        out.push_str(&format!("             of them {} in the place of other content\n", grouped(differing.0)));
    }
    for moved in files.moved.iter().filter(|m| m.from != m.to) {
        out.push_str(&format!("             {} becomes {}\n", address(&moved.from), address(&moved.to)));
    }
    out
}

fn files_value(files: &FilePlan) -> Value {
    let moved: Vec<Value> =
        files.moved.iter().map(|m| json!({"from": address(&m.from), "to": address(&m.to)})).collect();
    json!({
        "root": files.root, "moved": moved, "missing": files.missing.0, "missing_bytes": files.missing.1,
        "differing": files.differing.0, "differing_bytes": files.differing.1, "there": files.there,
    })
}

pub(super) fn restore_plan(ready: &Ready) -> String {
    let mut out = super::human::plan_text(&ready.database.plan, &ready.database.findings);
    out.push_str(&format!("\n{} {} of {}\n", painted(BOLD, "Backup"), ready.manifest.id, ready.manifest.started));
    out.push_str(&chosen_text(ready.database.plan.applied.chosen.as_ref()));
    out.push_str(&files_text(&ready.files, false));
    out
}

fn chosen_text(chosen: Option<&Chosen>) -> String {
    chosen.map_or(String::new(), |chosen| {
        let left_out = grouped(chosen.rows_left_out);
        format!("  only       {} ({left_out} rows of others left out)\n", chosen.experiments.join(", "))
    })
}

fn chosen_value(chosen: Option<&Chosen>) -> Value {
    chosen
        .map_or(Value::Null, |chosen| json!({"experiments": chosen.experiments, "rows_left_out": chosen.rows_left_out}))
}

pub(super) fn restore_plan_value(ready: &Ready) -> Value {
    json!({
        "done": false,
        "backup": ready.manifest.id,
        "artifacts": files_value(&ready.files),
        "chosen": chosen_value(ready.database.plan.applied.chosen.as_ref()),
        "database": plan_value(&ready.database.plan),
        "auth": ready.auth.as_ref().map(|auth| plan_value(&auth.plan)),
    })
}

pub(super) fn restored(restored: &Restored) -> String {
    let manifest = &restored.manifest;
    let target = &restored.database.plan.target;
    let all = manifest.complete && manifest.artifacts.scope == Scope::All && restored.files.root.is_some();
    let mut out = format!(
        "{} {} of {} in {}, {}\n",
        painted(GOOD, "Restored"),
        manifest.id,
        manifest.started,
        seconds(restored.took),
        if all { "every row and every file verified" } else { "what it holds verified" }
    );
    out.push_str(&format!(
        "  database   {} ({} {}), {} rows\n",
        target.address,
        target.engine,
        target.version,
        grouped(restored.database.rows())
    ));
    out.push_str(&chosen_text(restored.database.plan.applied.chosen.as_ref()));
    if let Some(auth) = &restored.auth {
        out.push_str(&format!("  basic-auth {}\n", auth.plan.target.address));
    } else if manifest.auth.is_some() {
        out.push_str("  basic-auth not restored: --auth-to names its database\n");
    }
    out.push_str(&files_text(&restored.files, true));
    if manifest.artifacts.scope != Scope::All && restored.files.root.is_some() {
        let scope = manifest.artifacts.scope.word();
        out.push_str(&format!("             the backup was made with --artifacts {scope}: it holds no others\n"));
    }
    out.push_str(&unread_as(manifest, "artifacts could not be read when the backup was made, and are not in it"));
    for secret in &manifest.secrets {
        out.push_str(&format!("{} the server needs {secret}\n", painted(CARE, "Set before the start:")));
    }
    let (address, password) = match target.engine {
        "SQLite" => (format!("sqlite:///{}", target.address), ""),
        _ => (target.address.clone(), " (its password instead of ***)"),
    };
    let proxied = restored.files.moved.iter().any(|m| m.from.starts_with("mlflow-artifacts:"));
    let flag = if proxied { "--artifacts-destination" } else { "--default-artifact-root" };
    let root = restored.files.root.as_ref().map_or(String::new(), |root| format!(" {flag} {}", shell_word(root)));
    let address = shell_word(&address);
    out.push_str(&format!(
        "{} start the server with --backend-store-uri {address}{password}{root}\n",
        painted(BOLD, "Next:")
    ));
    out
}

pub(super) fn restored_value(restored: &Restored) -> Value {
    json!({
        "done": true,
        "backup": restored.manifest.id,
        "complete": restored.manifest.complete,
        "artifacts": files_value(&restored.files),
        "chosen": chosen_value(restored.database.plan.applied.chosen.as_ref()),
        "database": super::json::migrated_value(&restored.database),
        "auth": restored.auth.as_ref().map(super::json::migrated_value),
        "secrets": restored.manifest.secrets,
        "milliseconds": restored.took.as_millis() as u64,
    })
}

pub(super) fn pinned(id: &str, pinned: bool) -> String {
    match pinned {
        true => format!("{id} is kept for ever: `mlops backup unpin` ends that\n"),
        false => format!("{id} is kept as the rules say\n"),
    }
}
