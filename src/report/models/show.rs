//! One model, one version or one logged model, for people.

use super::super::human::{BAD, BOLD, CARE, painted};
use super::super::json::time;
use super::super::table::{bytes, counted, grouped, seconds, table};
use super::{CELL, NAME, ago, aliases, instant, number};
use crate::domain::harmless::{line, short};
use crate::domain::signature::{Field, Signature};
use crate::domain::tracking::{LoggedModel, ModelVersion, Run, value};
use crate::registry::files::Files;
use crate::registry::show::{Detail, LoggedShown, Shown, VersionShown};

/// Versions and files that are listed; all stand in the JSON.
const LISTED: usize = 20;

pub(super) fn text(shown: &Shown) -> String {
    match shown {
        Shown::Model(model, versions) => {
            let mut out = format!("{} {}\n", painted(BOLD, "Model"), line(&model.name));
            out.push_str(&row("description", &line(&model.description)));
            out.push_str(&row("created", &when(model.created)));
            out.push_str(&row("updated", &when(model.updated)));
            out.push_str(&row("aliases", &aliases(&model.aliases)));
            out.push_str(&pairs("tags", &model.tags));
            out.push_str(&self::versions(versions));
            out
        }
        Shown::Version(shown) => version(shown),
        Shown::Logged(shown) => logged(shown),
    }
}

/// A line with its name; nothing where there is nothing to tell.
fn row(name: &str, value: &str) -> String {
    if value.is_empty() { String::new() } else { format!("  {name:<12} {value}\n") }
}

fn when(milliseconds: Option<i64>) -> String {
    instant(milliseconds).map_or(String::new(), |at| format!("{} ({} ago)", time(at), ago(milliseconds)))
}

fn pairs(name: &str, pairs: &[(String, String)]) -> String {
    if pairs.is_empty() {
        return String::new();
    }
    let rows = pairs.iter().map(|(key, value)| vec![short(key, NAME), short(value, CELL)]).collect();
    format!("\n{}", table(&[name, ""], rows, &[]))
}

fn versions(versions: &[ModelVersion]) -> String {
    if versions.is_empty() {
        return "\nIt has no versions.\n".to_owned();
    }
    let rows = versions.iter().take(LISTED).map(|v| {
        vec![
            v.version.to_string(),
            v.stage.clone(),
            short(&v.aliases.join(" "), NAME),
            v.status.clone(),
            ago(v.created),
            v.run_id.clone(),
            short(&v.source, CELL),
        ]
    });
    let head = ["version", "stage", "aliases", "status", "age", "run", "source"];
    let mut out = format!("\n{}", table(&head, rows.collect(), &[0]));
    if versions.len() > LISTED {
        let older = grouped((versions.len() - LISTED) as u64);
        out.push_str(&format!("and {older} older ones: --output json\n"));
    }
    out
}

fn run_name(run: &Run) -> String {
    let name = if run.name.is_empty() { value(&run.tags, "mlflow.runName").unwrap_or_default() } else { &run.name };
    let deleted = if run.deleted { ", DELETED" } else { "" };
    format!("{} ({}{deleted})", short(name, NAME), line(&run.id))
}

fn version(shown: &VersionShown) -> String {
    let (version, detail) = (&shown.version, &shown.detail);
    let mut out = format!("{} {} of {}\n", painted(BOLD, "Version"), version.version, short(&version.name, 2 * NAME));
    out.push_str(&row("stage", &line(&version.stage)));
    out.push_str(&row("aliases", &line(&version.aliases.join(" "))));
    let status = if version.status == "READY" { version.status.clone() } else { painted(BAD, &line(&version.status)) };
    out.push_str(&row("status", &status));
    out.push_str(&row("", &line(&version.status_message)));
    out.push_str(&row("description", &line(&version.description)));
    out.push_str(&row("created", &when(version.created)));
    out.push_str(&row("updated", &when(version.updated)));
    out.push_str(&row("source", &line(&version.source)));
    out.push_str(&run(detail, &version.run_id));
    out.push_str(&body(detail, &version.tags));
    let others: Vec<String> = shown.siblings.iter().map(|(n, v)| format!("{}/{v}", short(n, NAME))).collect();
    out.push_str(&lineage(detail, Some(version), &others));
    out
}

fn logged(shown: &LoggedShown) -> String {
    let (model, detail) = (&shown.model, &shown.detail);
    let mut out = format!("{} {} ({})\n", painted(BOLD, "Logged model"), short(&model.name, NAME), line(&model.id));
    out.push_str(&row("status", &line(&model.status)));
    out.push_str(&row("created", &when(model.created)));
    out.push_str(&row("updated", &when(model.updated)));
    out.push_str(&row("files", &line(&model.artifact_uri)));
    out.push_str(&run(detail, &model.source_run_id));
    let made: Vec<String> = shown.versions.iter().map(|v| format!("{}/{}", short(&v.name, NAME), v.version)).collect();
    out.push_str(&row("versions", if made.is_empty() { "none was made of it" } else { "" }));
    out.push_str(&row("versions", &made.join(", ")));
    let gone: Vec<String> = shown.gone.iter().map(|(n, v)| format!("{}/{v}", short(n, NAME))).collect();
    if !gone.is_empty() {
        out.push_str(&row("gone", &format!("{}: it says so, and the registry does not", gone.join(", "))));
    }
    out.push_str(&body(detail, &model.tags));
    out.push_str(&lineage(detail, None, &[]));
    out
}

fn run(detail: &Detail, named: &str) -> String {
    let Some(run) = &detail.run else {
        return match named {
            "" => row("run", "none is named"),
            id => row("run", &format!("{}: {}", line(id), painted(CARE, "it is gone"))),
        };
    };
    let mut out = row("run", &run_name(run));
    let took = run.start.zip(run.end).and_then(|(start, end)| u64::try_from(end - start).ok());
    let took = took.map_or(String::new(), |ms| format!(", took {}", seconds(std::time::Duration::from_millis(ms))));
    out.push_str(&row("", &format!("{}, begun {}{took}", line(&run.status), when(run.start))));
    if let Some(experiment) = &detail.experiment {
        let deleted = if experiment.deleted { ", DELETED" } else { "" };
        out.push_str(&row("experiment", &format!("{} ({}{deleted})", short(&experiment.name, NAME), experiment.id)));
    }
    out
}

/// What is alike for versions and logged models.
fn body(detail: &Detail, tags: &[(String, String)]) -> String {
    let mut out = String::new();
    if !detail.metrics.is_empty() {
        let rows = detail
            .metrics
            .iter()
            .map(|(name, point)| vec![short(name, NAME), number(point.value), point.step.to_string()]);
        out.push_str(&format!("\n{}", table(&["metric", "value", "step"], rows.collect(), &[1, 2])));
    }
    out.push_str(&pairs("param", detail.params()));
    out.push_str(&pairs("tag", tags));
    match &detail.mlmodel {
        Ok(model) => match &model.signature {
            Some(signature) => out.push_str(&self::signature(signature)),
            None => out.push_str(&format!("\n{} it has none\n", painted(CARE, "Signature:"))),
        },
        Err(why) => out.push_str(&format!("\n{} {}\n", painted(CARE, "Signature: not known:"), line(why))),
    }
    match &detail.files {
        Ok(files) => out.push_str(&self::files(files)),
        Err(why) => out.push_str(&format!("\n{} {}\n", painted(CARE, "Files: not known:"), line(why))),
    }
    out
}

fn signature(signature: &Signature) -> String {
    let part = |what: &'static str, fields: &Option<Vec<Field>>| {
        let fields = fields.as_deref().unwrap_or_default();
        let row = move |field: &Field| {
            let required = match &field.default {
                None if field.required => "required".to_owned(),
                None => "optional".to_owned(),
                Some(default) => format!("default {}", short(&default.to_string(), 40)),
            };
            let name = field.name.as_deref().map_or("-".to_owned(), |name| short(name, NAME));
            vec![what.to_owned(), name, short(&field.kind, CELL), required]
        };
        fields.iter().map(row).collect::<Vec<_>>()
    };
    let rows = [part("input", &signature.inputs), part("output", &signature.outputs), part("param", &signature.params)]
        .concat();
    if rows.is_empty() {
        return "\nThe signature is empty.\n".to_owned();
    }
    format!("\n{}", table(&["signature", "name", "type", ""], rows, &[]))
}

fn files(files: &Files) -> String {
    let mut out = String::new();
    let rows: Vec<Vec<String>> =
        files.files.iter().take(LISTED).map(|(path, size)| vec![short(path, CELL), bytes(*size)]).collect();
    if !rows.is_empty() {
        out.push_str(&format!("\n{}", table(&["file", "size"], rows, &[1])));
    }
    let least = if files.whole { "" } else { "at least " };
    out.push_str(&format!("{least}{}, {}", counted(files.count, "file"), bytes(files.bytes)));
    let more = files.count.saturating_sub(LISTED as u64);
    out.push_str(&if more > 0 { format!("; {} not shown: --output json\n", grouped(more)) } else { "\n".to_owned() });
    out
}

/// version <- logged model <- run <- parent run <- experiment
fn lineage(detail: &Detail, version: Option<&ModelVersion>, others: &[String]) -> String {
    let mut steps: Vec<String> = Vec::new();
    steps.extend(version.map(|v| format!("{}/{}", short(&v.name, NAME), v.version)));
    steps.extend(detail.logged.as_ref().map(|m: &LoggedModel| format!("logged model {}", line(&m.id))));
    steps.extend(detail.run.as_ref().map(|r| format!("run {}", line(&r.id))));
    steps.extend(detail.parent.as_ref().map(|r| format!("parent run {}", run_name(r))));
    steps.extend(detail.experiment.as_ref().map(|e| format!("experiment {}", short(&e.name, NAME))));
    let mut out = format!("\n{} {}\n", painted(BOLD, "Lineage:"), steps.join(" <- "));
    if !others.is_empty() {
        let more = others.len().saturating_sub(LISTED);
        let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
        let shown: Vec<&str> = others.iter().take(LISTED).map(String::as_str).collect();
        out.push_str(&format!("The same run also made {}{rest}.\n", shown.join(", ")));
    }
    out
}
