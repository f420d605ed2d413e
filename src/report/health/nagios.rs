//! What plugins of Nagios, Icinga, Naemon and their like print: the monitoring plugins' development guidelines, "Plugin
//! Output for Nagios" and "Performance data". The first line says all that is needed; what follows is long output.

use std::collections::HashSet;

use super::words::{NOTHING, counts, extent, findings, followers, loud, seen, value};
use crate::domain::failure::Failure;
use crate::domain::harmless::{line, short};
use crate::domain::health::{Bound, Examination, Measure, Reading, Status, Unit};

/// Nagios keeps 8 KiB of output in all, so lines and their number are bounded; performance data come first.
const LINE: usize = 240;
const LINES: usize = 40;
const EVIDENCE: usize = 3;

/// The whole output, for a run that ends with [`super::code`] of its status.
pub fn text(examination: &Examination, warnings: &[String]) -> String {
    let mut out = format!("MLFLOW {}: {}", loud(examination.status()), plain(&headline(examination), LINE));
    let data = performance(examination);
    if !data.is_empty() {
        out.push_str(&format!(" | {data}"));
    }
    out.push('\n');
    let lines = long_output(examination, warnings);
    let left = lines.len().saturating_sub(LINES);
    for text in lines.iter().take(LINES) {
        out.push_str(&plain(text, LINE));
        out.push('\n');
    }
    if left > 0 {
        out.push_str(&format!("and {left} more lines\n"));
    }
    out
}

/// A line without the sign that begins performance data.
/// The status line of what kept the checks from running.
pub fn failure(failure: &Failure) -> String {
    let hint = failure.hint.as_ref().map_or(String::new(), |h| format!("\n{}", plain(h, LINE)));
    format!("MLFLOW UNKNOWN: {}{hint}\n", plain(&failure.message, LINE))
}

fn plain(text: &str, most: usize) -> String {
    short(text, most).replace('|', "/")
}

fn headline(examination: &Examination) -> String {
    match examination.first_broken() {
        _ if examination.readings.is_empty() => NOTHING.to_owned(),
        None => extent(examination),
        Some(first) => {
            let what = short(&seen(first), 120);
            format!("{}: {what} ({} of {})", line(&first.id), counts(examination), extent(examination))
        }
    }
}

fn long_output(examination: &Examination, warnings: &[String]) -> Vec<String> {
    let mut lines = Vec::new();
    for reading in findings(examination) {
        let value = Some(value(reading)).filter(|v| !v.is_empty()).map_or(String::new(), |v| format!(" ({v})"));
        lines.push(format!("{} {}{value}: {}", loud(reading.status), reading.id, seen(reading)));
        lines.extend(reading.evidence.iter().take(EVIDENCE).map(|e| format!("- {}", line(e))));
        let told = [("cause", &reading.cause), ("hint", &reading.hint)];
        lines.extend(told.iter().filter_map(|(word, text)| text.as_ref().map(|t| format!("- {word}: {}", line(t)))));
    }
    for (root, list) in followers(examination) {
        let ids: Vec<&str> = list.iter().map(|r| r.id.as_str()).collect();
        lines.push(format!("UNKNOWN because of {root}: {}", ids.join(", ")));
    }
    let held = examination.readings.iter().filter(|r| r.held.is_some() && r.status == Status::Ok);
    lines.extend(held.map(|r| format!("OK {}: {}", r.id, seen(r))));
    lines.extend(warnings.iter().map(|w| format!("warning: {w}")));
    lines
}

fn performance(examination: &Examination) -> String {
    let mut used = HashSet::new();
    let mut data = vec![format!("time={}s;;;0", number(examination.took.as_secs_f64()))];
    used.insert("time".to_owned());
    for reading in &examination.readings {
        let Some(measure) = reading.measure else { continue };
        let base = label(&reading.id);
        let mut label = base.clone();
        let mut again = 1;
        while !used.insert(label.clone()) {
            again += 1;
            label = format!("{base}_{again}");
        }
        let bare = label.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
        let label = if bare { label } else { format!("'{label}'") };
        data.push(format!("{label}={}", datum(reading, &measure)));
    }
    data.join(" ")
}

/// A label may hold anything but the equals sign and the single quote, and must not end the line or the text.
fn label(id: &str) -> String {
    let label: String = line(id).chars().map(|c| if "='|".contains(c) { '_' } else { c }).collect();
    if label.is_empty() { "_".to_owned() } else { label }
}

fn datum(reading: &Reading, measure: &Measure) -> String {
    let unit = match measure.unit {
        Unit::Seconds => "s",
        Unit::Bytes => "B",
        Unit::Percent => "%",
        // "c" is for counters that only grow.
        Unit::Count | Unit::Number => "",
    };
    let value = number(measure.value);
    let unit = if value == "U" { "" } else { unit };
    let least = if from_zero(reading, measure) { "0" } else { "" };
    let most = measure.most.or((measure.unit == Unit::Percent).then_some(100.0)).map(number).filter(|n| n != "U");
    let limit = |bound: Option<Bound>| bound.map_or(String::new(), |b| range(b, !least.is_empty()));
    let (warning, critical) = (limit(measure.limits.warning), limit(measure.limits.critical));
    let datum = format!("{value}{unit};{warning};{critical};{least};{}", most.unwrap_or_default());
    datum.trim_end_matches(';').to_owned()
}

/// Whether the number is never below zero: `10` as a threshold also raises an alarm below zero, `~:10` does not.
fn from_zero(reading: &Reading, measure: &Measure) -> bool {
    let signed = reading.id.rsplit('.').next().is_some_and(|name| ["clock", "certificate", "growth"].contains(&name));
    measure.unit != Unit::Number && !signed && (measure.value >= 0.0 || measure.value.is_nan())
}

/// A threshold in range syntax: an alarm outside of it.
fn range(bound: Bound, from_zero: bool) -> String {
    let (Bound::AtMost(limit) | Bound::AtLeast(limit)) = bound;
    let text = number(limit);
    match bound {
        _ if text == "U" => String::new(),
        Bound::AtMost(limit) if from_zero && limit >= 0.0 => text,
        Bound::AtMost(_) => format!("~:{text}"),
        Bound::AtLeast(_) => format!("{text}:"),
    }
}

/// Digits and a dot, nine of them significant; `U` for what is no number, or none that graphs can hold.
fn number(value: f64) -> String {
    if !value.is_finite() || value.abs() >= 1e18 {
        return "U".to_owned();
    }
    let magnitude = if value == 0.0 { 0.0 } else { value.abs().log10().floor() };
    let text = format!("{value:.*}", (8.0 - magnitude).clamp(0.0, 15.0) as usize);
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_no_exponent() {
        for (value, text) in [
            (0.0, "0"),
            (-0.0, "0"),
            (0.25, "0.25"),
            (1e-7, "0.0000001"),
            (1e-300, "0"),
            (172_800.0, "172800"),
            (1.5e15, "1500000000000000"),
            (f64::MAX, "U"),
            (f64::NAN, "U"),
            (-2.5, "-2.5"),
        ] {
            assert_eq!(number(value), text);
        }
    }
}
