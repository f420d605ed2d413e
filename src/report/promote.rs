//! Promotions, for people and for documents.

use serde_json::{Value, json};

use super::human::{BAD, BOLD, CARE, GOOD, painted};
use super::table::table;
use crate::domain::harmless::masked;
use crate::domain::promotion::gate::{Gate, Verdict};
use crate::domain::promotion::history::{Reign, Told};
use crate::domain::promotion::place::Standing;
use crate::domain::promotion::record::{Action, Record, State};
use crate::promote::audit::History;
use crate::promote::plan::Plan;
use crate::promote::switch::{Ended, Promotion};

fn verdict_word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Passed => "passed",
        Verdict::Refused => "REFUSED",
        Verdict::Skipped => "skipped",
    }
}

fn gates(gates: &[Gate]) -> String {
    let rows = gates
        .iter()
        .map(|g| vec![verdict_word(g.verdict).to_owned(), g.gate.clone(), g.asked.clone(), g.reason.clone()])
        .collect();
    table(&["verdict", "gate", "asks", "reason"], rows, &[])
}

fn steps(plan: &Plan) -> String {
    let mut out = String::new();
    let version = plan.challenger.version;
    if let Some(alias) = plan.to.alias.as_ref().filter(|_| plan.before.aliased != Some(version)) {
        let from = plan.before.aliased.map_or("nobody".to_owned(), |v| format!("version {v}"));
        out.push_str(&format!("  @{alias}: {from} -> version {version}\n"));
    }
    if let Some(stage) = plan.to.stage {
        if !plan.before.staged.contains(&version) {
            out.push_str(&format!("  version {version}: {} -> {}\n", plan.challenger.stage, stage.word()));
        }
        for other in plan.before.staged.iter().filter(|v| plan.to.archives() && **v != version) {
            out.push_str(&format!("  version {other}: {} -> Archived, in the same call\n", stage.word()));
        }
    }
    out
}

fn who(plan: &Plan) -> String {
    let made = match plan.challenger.run_id.as_str() {
        "" => "made by no run".to_owned(),
        run => format!("made by the run {run}"),
    };
    let champion = plan.champion.map_or("none yet".to_owned(), |v| format!("version {v}"));
    let reason = plan.reason.as_ref().map_or(String::new(), |reason| format!("  reason     {reason}\n"));
    format!(
        "  version    {}, in {}, {made}\n  champion   {champion}\n  by         {}\n{reason}",
        plan.challenger.version, plan.challenger.stage, plan.by
    )
}

fn title(plan: &Plan) -> String {
    format!("{} version {} to {}", plan.challenger.name, plan.challenger.version, plan.to)
}

/// The plan, and where a gate refuses, the refusal.
pub(super) fn plan(plan: &Plan, dry: bool) -> String {
    if plan.already {
        return format!("{} version {} is in {} already.\n", plan.challenger.name, plan.challenger.version, plan.to);
    }
    let verb = if plan.action == Action::Rollback { "roll back" } else { "promote" };
    let mut out =
        format!("{}\n{}\n{}\n", painted(BOLD, &format!("Plan: {verb} {}", title(plan))), who(plan), gates(&plan.gates));
    out.push_str(&steps(plan));
    let refused = plan.gates.iter().filter(|g| g.verdict == Verdict::Refused).count();
    match (refused, dry) {
        (0, true) => out.push_str(&format!(
            "\n{} every gate lets it through. Nothing was changed.\n",
            painted(GOOD, "Would pass:")
        )),
        (0, false) => {}
        (n, _) => {
            let gates = if n == 1 { "1 gate refuses".to_owned() } else { format!("{n} gates refuse") };
            out.push_str(&format!("\n{} {gates} it. Nothing was changed.\n", painted(BAD, "Refused:")));
        }
    }
    out
}

/// A verdict that was left with the version.
pub(super) fn judged(plan: &Plan, verdict: &str, written: bool) -> String {
    let style = if verdict == "passed" { GOOD } else { BAD };
    let written = if written { "Set" } else { "Would set" };
    format!(
        "{} {} version {} for {}\n{}{}{written} its tag validation_status={verdict}. Nothing was promoted.\n",
        painted(style, &format!("Validation {verdict}:")),
        plan.challenger.name,
        plan.challenger.version,
        plan.to,
        who(plan),
        gates(&plan.gates)
    )
}

pub(super) fn promoted(promotion: &Promotion) -> String {
    let plan = &promotion.plan;
    match promotion.ended {
        Ended::Already => self::plan(plan, false),
        Ended::Overtaken => format!(
            "{} {}: another client's change stands there, see the warnings\n",
            painted(BAD, "Overtaken:"),
            title(plan)
        ),
        Ended::Open => {
            format!("{} {}: see the warnings for what is known\n", painted(BAD, "Not finished:"), title(plan))
        }
        Ended::Done | Ended::Unrecorded => {
            let verb = if plan.action == Action::Rollback { "Rolled back:" } else { "Promoted:" };
            let style = if promotion.ended == Ended::Done { GOOD } else { CARE };
            let left: Vec<String> = plan.replaced().iter().map(u64::to_string).collect();
            let left = match left.as_slice() {
                [] if plan.to.is_single() => "; nobody was there before".to_owned(),
                [] => String::new(),
                left => format!("; it took the place of version {}", left.join(" and ")),
            };
            let mut out = format!("{} {} is in {}{left}.\n", painted(style, verb), version(plan), plan.to);
            if plan.action == Action::Promote && plan.former.is_some() && plan.to_champions {
                let (next, name) = (painted(BOLD, "Back:"), &plan.challenger.name);
                // A name that begins like a flag.
                let joint = if name.starts_with('-') { '=' } else { ' ' };
                let place = match (plan.to.stage, &plan.to.alias) {
                    (Some(stage), None) => format!(" --to {}", stage.word()),
                    (None, Some(alias)) => format!(" --to @{alias}"),
                    _ => " --mode both".to_owned(),
                };
                let name = super::backup::shell_word(name);
                out.push_str(&format!("{next} `mlops rollback --model{joint}{name}{place}`\n"));
            }
            out
        }
    }
}

fn version(plan: &Plan) -> String {
    format!("{} version {}", plan.challenger.name, plan.challenger.version)
}

fn ended(ended: Ended) -> &'static str {
    match ended {
        Ended::Already => "already",
        Ended::Done => "done",
        Ended::Unrecorded => "unrecorded",
        Ended::Overtaken => "overtaken",
        Ended::Open => "open",
    }
}

fn standing(standing: &Standing) -> Value {
    json!({"staged": standing.staged, "aliased": standing.aliased})
}

pub(super) fn plan_value(plan: &Plan) -> Value {
    json!({
        "id": plan.id,
        "action": plan.action.word(),
        "model": plan.challenger.name,
        "version": plan.challenger.version,
        "run_id": plan.challenger.run_id,
        "source": masked(&plan.challenger.source),
        "from": plan.challenger.stage,
        "to": plan.to.to_string(),
        "stage": plan.to.stage.map(|stage| stage.word()),
        "alias": plan.to.alias,
        "former": plan.former,
        "champion": plan.champion,
        "replaced": plan.replaced(),
        "before": standing(&plan.before),
        "already": plan.already,
        "verdict": if plan.passed() { "passed" } else { "refused" },
        "gates": plan.gates,
        "by": plan.by,
        "reason": plan.reason,
    })
}

pub(super) fn judged_value(plan: &Plan, verdict: &str, written: bool) -> Value {
    let mut value = plan_value(plan);
    super::json::merge(&mut value, json!({"validation_status": verdict, "written": written}));
    value
}

pub(super) fn promoted_value(promotion: &Promotion) -> Value {
    let mut value = plan_value(&promotion.plan);
    let more = json!({
        "ended": ended(promotion.ended),
        "after": promotion.after.as_ref().map(standing),
        "notes": promotion.said,
    });
    super::json::merge(&mut value, more);
    value
}

fn state(state: State) -> &'static str {
    match state {
        State::Begun => "begun, its end is not known",
        State::Done => "done",
        State::Undone => "not done",
        State::Overtaken => "overtaken by another client",
    }
}

fn known(told: &Told) -> &'static str {
    match (told.by_tags, told.by_log) {
        (true, true) => "tags and log",
        (true, false) => "tags",
        _ => "log",
    }
}

pub(super) fn history(history: &History) -> String {
    if history.told.is_empty() && history.reigns.is_empty() {
        return format!("{}: nobody was ever promoted by mlops, and nobody is in production.\n", history.model);
    }
    let time = |at: Option<jiff::Timestamp>| at.map(super::json::time);
    let reign = |r: &Reign| {
        let record = r.told.as_ref().map(|told| &told.record);
        let until = time(r.until).unwrap_or_else(|| if r.ended { "not known".to_owned() } else { "now".to_owned() });
        vec![
            r.place.clone(),
            r.version.to_string(),
            time(r.since).unwrap_or_else(|| "not known".to_owned()),
            until,
            record.map_or("not by mlops".to_owned(), |r| format!("{} by {}", r.action.word(), r.by)),
            record.and_then(|r| r.reason.clone()).unwrap_or_default(),
            r.told.as_ref().map_or("registry", known).to_owned(),
        ]
    };
    let mut out = format!("{}\n", painted(BOLD, &format!("Champions of {}", history.model)));
    let head = ["place", "version", "since", "until", "how", "reason", "told by"];
    out.push_str(&table(&head, history.reigns.iter().rev().map(reign).collect(), &[1]));
    let in_reigns =
        |told: &&Told| !history.reigns.iter().any(|r| r.told.as_ref().is_some_and(|t| t.record.id == told.record.id));
    let others: Vec<Vec<String>> =
        history.told.iter().rev().filter(in_reigns).map(|told| other(&told.record)).collect();
    if !others.is_empty() {
        out.push_str(&format!("\n{}\n", painted(BOLD, "Other moves")));
        out.push_str(&table(&["time", "version", "to", "how", "state"], others, &[1]));
    }
    out
}

fn other(record: &Record) -> Vec<String> {
    vec![
        super::json::time(record.at),
        record.version.to_string(),
        record.to.to_string(),
        format!("{} by {}", record.action.word(), record.by),
        state(record.state).to_owned(),
    ]
}

pub(super) fn history_value(history: &History) -> Value {
    let reigns: Vec<Value> = history
        .reigns
        .iter()
        .map(|r| {
            json!({
                "place": r.place, "version": r.version, "since": r.since.map(super::json::time),
                "until": r.until.map(super::json::time), "ended": r.ended,
                "id": r.told.as_ref().map(|t| &t.record.id), "by_mlops": r.told.is_some(),
            })
        })
        .collect();
    let records: Vec<Value> = history
        .told
        .iter()
        .map(|told| {
            let mut value = serde_json::to_value(&told.record).unwrap_or_default();
            super::json::merge(
                &mut value,
                json!({"at": super::json::time(told.record.at), "to": told.record.to.to_string(), "by_tags": told.by_tags, "by_log": told.by_log}),
            );
            value
        })
        .collect();
    json!({"model": history.model, "champions": reigns, "records": records})
}
