//! `mlops db init` for people and as JSON.

use serde_json::{Value, json};

use super::human::{BOLD, GOOD, painted};
use super::table::table;
use crate::store::postgres::provision::{Part, Plan, State, Step};

/// What became of a step, or would.
fn word(step: &Step, done: bool) -> &'static str {
    match (step.state, done) {
        (State::There, _) => "was there",
        (State::Missing, true) => "made",
        (State::Missing, false) => "would be made",
        (State::Differs, true) => "changed",
        (State::Differs, false) => "would be changed",
    }
}

/// What comes next: lines for a shell.
fn next(plan: &Plan) -> Vec<String> {
    let server = format!("mlflow server --backend-store-uri '{}' --artifacts-destination FOLDER_OR_S3_URL", plan.store);
    let migrate = format!("mlops migrate sqlite-to-pg --source mlflow.db --target '{}'", plan.store);
    vec![server, migrate]
}

pub(super) fn text(plan: &Plan) -> String {
    let head = match (plan.done, plan.complete()) {
        (_, true) => painted(GOOD, "Everything is there already, nothing was changed"),
        (true, false) => painted(GOOD, "Done"),
        (false, false) => painted(BOLD, "Plan, nothing was changed"),
    };
    let mut out = format!("{head}\n  server    {} (PostgreSQL {})\n", plan.server, plan.version);
    if let Some((id, releases)) = &plan.revision {
        out.push_str(&format!("  revision  {id} ({releases})\n"));
    }
    let cells =
        |s: &Step| vec![s.part.word().to_owned(), s.name.clone(), word(s, plan.done).to_owned(), s.detail.clone()];
    out.push_str(&format!(
        "\n{}",
        table(&["part", "name", "state", "what it is"], plan.steps.iter().map(cells).collect(), &[])
    ));
    if !plan.done && !plan.complete() {
        out.push_str("\nThe SQL of it (--print: as a script for psql):\n");
        for sql in plan.steps.iter().filter(|s| s.state != State::There).flat_map(|s| &s.sql) {
            out.push_str(&format!("  {sql};\n"));
        }
        if plan.steps.iter().any(|s| s.part == Part::Tables && s.state == State::Missing) {
            out.push_str("  and MLflow's tables, as the role\n");
        }
    }
    for note in &plan.notes {
        out.push_str(&format!("Note: {note}\n"));
    }
    if plan.done || plan.complete() {
        let mut lines = next(plan).into_iter();
        let first = lines.next().unwrap_or_default();
        out.push_str(&format!("\n{} {first}\n", painted(BOLD, "Next:")));
        lines.for_each(|line| out.push_str(&format!("or, with a store to bring along: {line}\n")));
    }
    out
}

pub(super) fn value(plan: &Plan) -> Value {
    let steps: Vec<Value> = plan
        .steps
        .iter()
        .map(|s| {
            json!({
                "step": s.part.word(),
                "name": s.name,
                "state": word(s, plan.done).replace(' ', "_"),
                "detail": s.detail,
                "sql": if s.state == State::There { &[][..] } else { s.sql.as_slice() },
            })
        })
        .collect();
    json!({
        "server": plan.server,
        "version": plan.version,
        "role": plan.role,
        "database": plan.database,
        "revision": plan.revision.as_ref().map(|(id, _)| id),
        "complete": plan.complete() || plan.done,
        "steps": steps,
        "notes": plan.notes,
        "backend_store_uri": plan.store,
        "next": next(plan),
    })
}
