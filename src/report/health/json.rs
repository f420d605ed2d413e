//! `mlops.health.v1`. Fields are only ever added. A number that JSON cannot write is text: `"NaN"`, `"Infinity"`.

use serde_json::{Map, Value, json};

use super::super::json::time;
use crate::domain::harmless::{acts, masked};
use crate::domain::health::{Bound, Examination, Limits, Reading, Status, Unit};

/// The `result` of the document.
pub fn value(examination: &Examination) -> Value {
    let stack: Map<String, Value> =
        examination.stack.iter().map(|(part, address)| ((*part).to_owned(), masked(address).into())).collect();
    let all = [Status::Ok, Status::Warning, Status::Critical, Status::Unknown];
    let counts: Map<String, Value> =
        all.into_iter().map(|s| (s.word().to_owned(), examination.count(s).into())).collect();
    json!({
        "stack": stack,
        "status": examination.status().word(),
        "started": time(examination.at),
        "milliseconds": u64::try_from(examination.took.as_millis()).unwrap_or(0),
        "first_broken": examination.first_broken().map(|r| &r.id),
        "counts": counts,
        "checks": examination.readings.iter().map(check).collect::<Vec<_>>(),
        "skipped": examination.left.iter().map(|(id, why)| json!({"id": id, "reason": masked(why)})).collect::<Vec<_>>(),
    })
}

fn check(reading: &Reading) -> Value {
    let measure = reading.measure;
    let limits = measure.map_or(Limits::default(), |m| m.limits);
    let text = |t: &Option<String>| t.as_deref().map(masked);
    json!({
        "id": reading.id,
        "layer": reading.layer().word(),
        "status": reading.status.word(),
        "summary": masked(&reading.summary),
        "value": measure.map(|m| number(m.value)),
        "unit": measure.map(|m| unit(m.unit)),
        "warning": limits.warning.map(bound),
        "critical": limits.critical.map(bound),
        "most": measure.and_then(|m| m.most).map(number),
        "since": reading.since.map(time),
        "held": reading.held.map(|(times, of)| json!({"failures": times, "of": of})),
        "needs": reading.needs,
        "root": reading.root(),
        "evidence": reading.evidence.iter().map(|e| masked(e)).collect::<Vec<_>>(),
        "cause": text(&reading.cause),
        "hint": text(&reading.hint),
    })
}

/// `{"above": 48.0}`: a problem above that.
fn bound(bound: Bound) -> Value {
    match bound {
        Bound::AtMost(limit) => json!({"above": number(limit)}),
        Bound::AtLeast(limit) => json!({"below": number(limit)}),
    }
}

pub(in crate::report) fn number(value: f64) -> Value {
    match value {
        v if v.is_nan() => "NaN".into(),
        f64::INFINITY => "Infinity".into(),
        f64::NEG_INFINITY => "-Infinity".into(),
        v => v.into(),
    }
}

fn unit(unit: Unit) -> &'static str {
    match unit {
        Unit::Seconds => "seconds",
        Unit::Bytes => "bytes",
        Unit::Percent => "percent",
        Unit::Count => "count",
        Unit::Number => "number",
    }
}

/// The same document with those characters escaped that JSON allows and a terminal acts on (U+009B is one).
pub fn inert(document: &str) -> String {
    let mut out = String::with_capacity(document.len());
    for c in document.chars() {
        if c != '\n' && acts(c) {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            out.push(c);
        }
    }
    out
}
