//! Prometheus' text format 0.0.4, in base units, as the textfile collector of node_exporter takes it: no time stamps,
//! each series once. Checks come in the order of their ids.

use std::collections::BTreeMap;

use super::code;
use crate::domain::harmless::line;
use crate::domain::health::{Examination, Reading, Status, Unit};

/// All families of one run.
pub fn text(examination: &Examination) -> String {
    let mut checks: BTreeMap<String, &Reading> = BTreeMap::new();
    for reading in &examination.readings {
        // A series may be there only once; of two checks of one name the worse one counts.
        checks
            .entry(line(&reading.id))
            .and_modify(|known| {
                if reading.status > known.status {
                    *known = reading;
                }
            })
            .or_insert(reading);
    }
    let mut out = String::new();
    let works = matches!(examination.status(), Status::Ok | Status::Warning);
    let single = |name, help, value| (name, help, vec![(String::new(), value)]);
    let values = |unit: Unit, scale: f64| {
        let of = |reading: &Reading| reading.measure.filter(|m| m.unit == unit).map(|m| m.value * scale);
        checks.iter().filter_map(|(id, r)| Some((check(id), of(r)?))).collect::<Vec<_>>()
    };
    let statuses = checks.iter().map(|(id, r)| {
        (format!("{{check=\"{}\",layer=\"{}\"}}", escaped(id), r.layer().word()), f64::from(code(r.status)))
    });
    let held = checks.iter().filter_map(|(id, r)| Some((check(id), f64::from(r.held?.0))));
    let started = examination.at.as_millisecond() as f64 / 1000.0;
    for (name, help, series) in [
        single(
            "up",
            "1: all checks are ok or warnings. 0: one is critical, or could not be measured.",
            f64::from(u8::from(works)),
        ),
        single(
            "worst_status",
            "The worst status of all checks: 0 ok, 1 warning, 2 critical, 3 unknown (worse than 0, better than 1).",
            f64::from(code(examination.status())),
        ),
        ("status", "Status of a check: 0 ok, 1 warning, 2 critical, 3 unknown (not measured).", statuses.collect()),
        ("value_seconds", "What a check measured, in seconds.", values(Unit::Seconds, 1.0)),
        ("value_bytes", "What a check measured, in bytes.", values(Unit::Bytes, 1.0)),
        ("value_ratio", "What a check measured, as a share of 1.", values(Unit::Percent, 0.01)),
        ("value_items", "What a check counted.", values(Unit::Count, 1.0)),
        ("value_number", "What a check measured, a number of its own kind.", values(Unit::Number, 1.0)),
        (
            "failures_in_a_row",
            "Failures of a check in a row, which do not count yet: its status is still the one before.",
            held.collect(),
        ),
        single("last_run_timestamp_seconds", "When this run began, in seconds since 1970.", started),
        single("duration_seconds", "How long this run took.", examination.took.as_secs_f64()),
    ] {
        if series.is_empty() {
            continue;
        }
        out.push_str(&format!("# HELP mlops_health_{name} {help}\n# TYPE mlops_health_{name} gauge\n"));
        for (labels, value) in series {
            out.push_str(&format!("mlops_health_{name}{labels} {}\n", number(value)));
        }
    }
    out
}

fn check(id: &str) -> String {
    format!("{{check=\"{}\"}}", escaped(id))
}

/// The value of a label. A line break is no longer in it.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}

fn number(value: f64) -> String {
    match value {
        v if v.is_nan() => "NaN".to_owned(),
        f64::INFINITY => "+Inf".to_owned(),
        f64::NEG_INFINITY => "-Inf".to_owned(),
        v if v != 0.0 && !(1e-6..1e18).contains(&v.abs()) => format!("{v:e}"),
        v => v.to_string(),
    }
}
