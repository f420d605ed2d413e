//! What all forms for people say alike: numbers with their units, ages, counts, the headline.

use jiff::{SignedDuration, Timestamp};

use super::super::table::{bytes, counted, grouped};
use crate::domain::harmless::line;
use crate::domain::health::{Bound, Examination, Measure, Reading, Status, Unit, checks};

/// The word of a status where it must be seen.
pub(super) fn loud(status: Status) -> &'static str {
    match status {
        Status::Ok => "OK",
        Status::Unknown => "UNKNOWN",
        Status::Warning => "WARNING",
        Status::Critical => "CRITICAL",
    }
}

/// A number with its unit, with as many digits as are worth reading.
pub(in crate::report) fn amount(value: f64, unit: Unit) -> String {
    if !value.is_finite() {
        return if value.is_nan() { "NaN".to_owned() } else { if value > 0.0 { "Inf" } else { "-Inf" }.to_owned() };
    }
    let sign = if value < 0.0 { "-" } else { "" };
    let size = value.abs();
    match unit {
        Unit::Seconds => format!("{sign}{}", span(size)),
        Unit::Bytes => format!("{sign}{}", bytes(size as u64)),
        Unit::Percent if size < 10.0 && size.fract() != 0.0 => format!("{value:.1}%"),
        Unit::Percent => format!("{value:.0}%"),
        Unit::Count if size < 1e15 => format!("{sign}{}", grouped(size.round() as u64)),
        Unit::Count | Unit::Number => digits(value),
    }
}

/// Five significant digits, without zeros at the end.
fn digits(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let magnitude = value.abs().log10().floor();
    if !(-5.0..9.0).contains(&magnitude) {
        return format!("{value:.3e}");
    }
    let text = format!("{value:.*}", (4.0 - magnitude).max(0.0) as usize);
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// A time with its greatest one or two units.
fn span(seconds: f64) -> String {
    match seconds {
        0.0 => "0 s".to_owned(),
        s if s < 0.009_95 => format!("{:.1} ms", s * 1000.0),
        s if s < 0.999_5 => format!("{:.0} ms", s * 1000.0),
        s if s < 9.95 => format!("{s:.1} s"),
        s if s < 119.5 => format!("{s:.0} s"),
        s => {
            let minutes = (s / 60.0).round() as u64;
            match minutes {
                m if m < 60 => format!("{m} min"),
                m if m < 48 * 60 => format!("{} h {:02} min", m / 60, m % 60).replace(" 00 min", ""),
                m if m < 14 * 24 * 60 => {
                    let hours = (m + 30) / 60;
                    format!("{} d {} h", hours / 24, hours % 24).replace(" 0 h", "")
                }
                m => format!("{} d", grouped((m + 12 * 60) / (24 * 60))),
            }
        }
    }
}

/// The time between two moments.
pub(in crate::report) fn age(from: Timestamp, to: Timestamp) -> String {
    span(to.duration_since(from).as_secs_f64().max(0.0))
}

/// How long a run took.
pub(super) fn took(duration: SignedDuration) -> String {
    span(duration.as_secs_f64().max(0.0))
}

/// The number of a reading; where it is not as it should be, with the limit that it broke: `52 h > 48 h`.
pub(super) fn value(reading: &Reading) -> String {
    let Some(measure) = reading.measure else { return String::new() };
    let text = amount(measure.value, measure.unit);
    match broken(&measure) {
        Some(Bound::AtMost(limit)) => format!("{text} > {}", amount(limit, measure.unit)),
        Some(Bound::AtLeast(limit)) => format!("{text} < {}", amount(limit, measure.unit)),
        None => match measure.most {
            Some(most) if measure.unit != Unit::Percent => format!("{text} of {}", amount(most, measure.unit)),
            _ => text,
        },
    }
}

fn broken(measure: &Measure) -> Option<Bound> {
    let broken = |bound: Option<Bound>| bound.filter(|b| b.broken_by(measure.value));
    broken(measure.limits.critical).or_else(|| broken(measure.limits.warning))
}

/// `2 critical, 3 warnings, 8 unknown, 18 ok`.
pub(super) fn counts(examination: &Examination) -> String {
    let words = [
        (Status::Critical, "critical", "critical"),
        (Status::Warning, "warning", "warnings"),
        (Status::Unknown, "unknown", "unknown"),
        (Status::Ok, "ok", "ok"),
    ];
    let count = |(status, one, many)| match examination.count(status) {
        0 => None,
        1 => Some(format!("1 {one}")),
        n => Some(format!("{n} {many}")),
    };
    words.into_iter().filter_map(count).collect::<Vec<_>>().join(", ")
}

/// `31 checks in 0.2 s`.
pub(super) fn extent(examination: &Examination) -> String {
    format!("{} in {}", counted(examination.readings.len(), "check"), took(examination.took))
}

/// Why a run with nothing in it is no good news.
pub(super) const NOTHING: &str = "nothing was checked, so nothing is known";

/// What a check asks, looks at or does, where it is a built-in one.
pub(super) fn question(id: &str) -> Option<String> {
    let about = checks::find(id)?.about;
    let kind = about.split_once(": ").map_or(about, |(_, kind)| kind);
    let begins = |words: &[&str]| words.iter().any(|w| kind.starts_with(w));
    Some(match () {
        () if begins(&["does ", "is "]) => format!("It asks: {about}?"),
        () if begins(&["writes "]) => format!("It {about}."),
        () => format!("It looks at: {about}."),
    })
}

/// What was seen; with a failure that does not count yet.
pub(super) fn seen(reading: &Reading) -> String {
    let text = line(&reading.summary);
    match reading.held {
        Some((times, of)) => format!("{text} (failed {times} of {of} in a row)"),
        None => text,
    }
}

/// What was found, apart from what only follows from it.
pub(super) fn findings(examination: &Examination) -> Vec<&Reading> {
    examination.worst_first().into_iter().filter(|r| r.status != Status::Ok && r.root().is_none()).collect()
}

/// Checks that failed, but not often enough in a row to count.
pub(super) fn held(examination: &Examination) -> usize {
    examination.readings.iter().filter(|r| r.held.is_some() && r.status == Status::Ok).count()
}

/// The broken checks that others stand on, each with those.
pub(super) fn followers(examination: &Examination) -> Vec<(&str, Vec<&Reading>)> {
    let mut found: Vec<(&str, Vec<&Reading>)> = Vec::new();
    for reading in &examination.readings {
        let Some(root) = reading.root().filter(|_| reading.status != Status::Ok) else { continue };
        match found.iter_mut().find(|(id, _)| *id == root) {
            Some((_, list)) => list.push(reading),
            None => found.push((root, vec![reading])),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_worth_reading() {
        for (value, unit, text) in [
            (0.0, Unit::Seconds, "0 s"),
            (0.0042, Unit::Seconds, "4.2 ms"),
            (0.9996, Unit::Seconds, "1.0 s"),
            (-119.0, Unit::Seconds, "-119 s"),
            (3_599.0, Unit::Seconds, "1 h"),
            (187_200.0, Unit::Seconds, "2 d 4 h"),
            (7_260.0, Unit::Seconds, "2 h 01 min"),
            (2_592_000.0, Unit::Seconds, "30 d"),
            (1.5e9, Unit::Bytes, "1.4 GiB"),
            (97.04, Unit::Percent, "97%"),
            (0.5, Unit::Percent, "0.5%"),
            (12_345.0, Unit::Count, "12,345"),
            (0.812_345_67, Unit::Number, "0.81235"),
            (0.85, Unit::Number, "0.85"),
            (-1_234_567.0, Unit::Number, "-1234567"),
            (1e300, Unit::Number, "1.000e300"),
            (f64::NAN, Unit::Count, "NaN"),
            (f64::NEG_INFINITY, Unit::Bytes, "-Inf"),
        ] {
            assert_eq!(amount(value, unit), text);
        }
    }
}
