//! What `mlops health` prints, form by form: exact texts for people, grammars for machines, hostile texts for all.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use jiff::tz::{Offset, TimeZone};
use jiff::{SignedDuration, Timestamp};
use mlops::domain::harmless::line;
use mlops::domain::health::{Bound, Examination, Layer, Limits, Measure, Reading, Status, Unit};
use mlops::report::health::{code, incident, json, markdown, nagios, prometheus, table, textfile};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::Value;

use crate::support::examination::{bad_day, good_day};
use crate::support::{environment, folder, root, rounds};

fn zone() -> TimeZone {
    TimeZone::fixed(Offset::constant(1))
}

/// The text without colours.
fn bare(text: &str) -> String {
    anstream::adapter::strip_str(text).to_string()
}

/// What differs from the text that is kept, where, and how to keep the new one.
fn differs(name: &str, text: &str) -> Option<String> {
    let path = root().join("tests/golden/health").join(name);
    let kept = fs::read_to_string(&path).unwrap_or_default();
    if kept == text {
        return None;
    }
    let new = std::env::temp_dir().join(format!("mlops-golden-{name}"));
    fs::write(&new, text).unwrap();
    let line = kept.lines().zip(text.lines()).take_while(|(old, new)| old == new).count();
    Some(format!(
        "{name} differs from line {} on:\n  kept: {:?}\n  now:  {:?}\nIf it is meant to be so: cp {} {}\n",
        line + 1,
        kept.lines().nth(line),
        text.lines().nth(line),
        new.display(),
        path.display()
    ))
}

#[test]
fn people_read_exactly_this() {
    let warnings = ["the state folder cannot be written: no history".to_owned()];
    let (bad, good) = (bad_day(), good_day());
    assert_eq!(incident::text(&good, &warnings), None, "all is well");
    let differences: Vec<String> = [
        ("table-bad.txt", bare(&table::text(&bad, &zone()))),
        ("table-good.txt", bare(&table::text(&good, &zone()))),
        ("markdown-bad.md", markdown::text(&bad, &warnings)),
        ("markdown-good.md", markdown::text(&good, &[])),
        ("incident-bad.md", incident::text(&bad, &warnings).unwrap()),
        ("nagios-bad.txt", nagios::text(&bad, &warnings)),
        ("prometheus-bad.prom", prometheus::text(&bad)),
    ]
    .iter()
    .filter_map(|(name, text)| differs(name, text))
    .collect();
    assert!(differences.is_empty(), "{}", differences.concat());
}

#[test]
fn one_look_tells_a_tired_person() {
    let text = bare(&table::text(&good_day(), &zone()));
    assert_eq!(text.lines().next(), Some("OK  8 checks in 214 ms"));
    let mut held = good_day();
    held.readings[0].held = Some((2, 3));
    let text = bare(&table::text(&held, &zone()));
    assert_eq!(text.lines().next(), Some("OK  8 checks in 214 ms; 1 failed, not yet often enough in a row to count"));
    assert!(text.contains("(failed 2 of 3 in a row)"), "{text}");
    let nothing = Examination { readings: Vec::new(), ..good_day() };
    let text = bare(&table::text(&nothing, &zone()));
    assert!(text.starts_with("UNKNOWN  nothing was checked, so nothing is known\n"), "{text}");
    assert!(
        table::text(&bad_day(), &zone()).starts_with("\u{1b}[1m\u{1b}[31mCRITICAL\u{1b}[0m  \u{1b}[1mdatabase.connect")
    );
}

#[test]
fn json_goes_round() {
    let examination = bad_day();
    let value = json::value(&examination);
    let text = json::inert(&serde_json::to_string_pretty(&value).unwrap());
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
    assert_eq!(value["status"], "critical");
    assert_eq!(value["first_broken"], "database.connect");
    assert_eq!(value["milliseconds"], 4215);
    assert_eq!(value["stack"]["database"], "postgresql://mlflow:***@db.example.org/mlflow");
    let total: u64 = value["counts"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum();
    assert_eq!(total as usize, examination.readings.len());
    let checks: BTreeMap<&str, &Value> =
        value["checks"].as_array().unwrap().iter().map(|c| (c["id"].as_str().unwrap(), c)).collect();
    let newest = checks["activity.nightly.newest"];
    assert_eq!(newest["warning"], serde_json::json!({"above": 86400.0}));
    assert_eq!(newest["since"], "2026-11-19T10:00:00Z");
    assert_eq!((newest["unit"].as_str(), newest["value"].as_f64()), (Some("seconds"), Some(187_200.0)));
    assert_eq!(checks["metrics.champion.r2"]["critical"], serde_json::json!({"below": 0.85}));
    assert_eq!(checks["probe.energy"]["held"], serde_json::json!({"failures": 1, "of": 3}));
    assert_eq!(checks["server.ready"]["root"], "database.connect");
    assert_eq!(checks["server.ready"]["value"], Value::Null);
    // What a terminal acts on is written out, and read back as it was.
    let hostile = serde_json::to_string(&serde_json::json!("\u{9b}2J\u{7f}\u{202e}\u{e0041}é")).unwrap();
    assert_eq!(json::inert(&hostile), "\"\\u009b2J\\u007f\\u202e\\udb40\\udc41é\"");
    assert_eq!(serde_json::from_str::<String>(&json::inert(&hostile)).unwrap(), "\u{9b}2J\u{7f}\u{202e}\u{e0041}é");
}

#[test]
fn a_textfile_is_replaced_and_readable_by_all() {
    let folder = folder();
    let file = folder.path().join("mlops.prom");
    textfile::write(&file, "old\n").unwrap();
    let mut reader = fs::File::open(&file).unwrap();
    textfile::write(&file, &prometheus::text(&bad_day())).unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), prometheus::text(&bad_day()));
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o644);
    let mut old = String::new();
    std::io::Read::read_to_string(&mut reader, &mut old).unwrap();
    assert_eq!(old, "old\n", "who reads has the old one or the new one, never half of one");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    for wrong in [folder.path().to_owned(), folder.path().join("none/mlops.prom")] {
        let failure = textfile::write(&wrong, "x").unwrap_err();
        assert_eq!(failure.kind, mlops::domain::failure::Kind::Target, "{failure}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left behind");
}

/// One datum of performance data.
#[derive(Debug, PartialEq)]
pub(crate) struct Datum {
    label: String,
    value: Option<f64>,
    unit: String,
    limits: [Option<Range>; 2],
    least: Option<f64>,
    most: Option<f64>,
}

/// A threshold: an alarm outside of it.
#[derive(Debug, PartialEq)]
struct Range {
    from: f64,
    to: f64,
}

/// `[-0-9.]`, as the guidelines say.
fn decimal(text: &str) -> f64 {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, part) = digits.split_once('.').unwrap_or((digits, "0"));
    let all = |t: &str| !t.is_empty() && t.chars().all(|c| c.is_ascii_digit());
    assert!(all(whole) && all(part), "{text:?} is no number");
    text.parse().unwrap()
}

fn range(text: &str) -> Option<Range> {
    if text.is_empty() {
        return None;
    }
    let (from, to) = text.split_once(':').unwrap_or(("0", text));
    let from = if from == "~" { f64::NEG_INFINITY } else { decimal(from) };
    let to = if to.is_empty() { f64::INFINITY } else { decimal(to) };
    assert!(from <= to, "{text:?}: a range begins before it ends");
    Some(Range { from, to })
}

/// `'label'=value[UOM];[warn];[crit];[min];[max]`, separated by spaces.
fn performance(mut text: &str) -> Vec<Datum> {
    let mut found = Vec::new();
    while !text.is_empty() {
        let (label, rest) = match text.strip_prefix('\'') {
            Some(quoted) => quoted.split_once("'=").expect("a quoted label ends"),
            None => text.split_once('=').expect("a label"),
        };
        assert!(!label.is_empty() && !label.contains(['=', '\'']), "{label:?}");
        assert!(text.starts_with('\'') || !label.contains(' '), "{label:?} needs quotes");
        let (datum, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        text = rest;
        let fields: Vec<&str> = datum.split(';').collect();
        assert!(fields.len() <= 5, "{datum}");
        let field = |n: usize| fields.get(n).copied().unwrap_or_default();
        let end = field(0).find(|c: char| !"-0123456789.".contains(c)).unwrap_or(field(0).len());
        let (value, unit) = field(0).split_at(end);
        let (value, unit) = if field(0) == "U" { (None, "") } else { (Some(decimal(value)), unit) };
        assert!(["", "s", "B", "%", "c"].contains(&unit), "{datum}");
        let bound = |n: usize| Some(field(n)).filter(|f| !f.is_empty()).map(decimal);
        found.push(Datum {
            label: label.to_owned(),
            value,
            unit: unit.to_owned(),
            limits: [range(field(1)), range(field(2))],
            least: bound(3),
            most: bound(4),
        });
    }
    found
}

/// The status line and performance data; asserts the grammar of the whole output.
pub(crate) fn parse(output: &str, status: Status) -> (String, Vec<Datum>) {
    assert!(output.ends_with('\n') && !output.contains('\r'));
    assert!(!output.chars().any(|c| c.is_control() && c != '\n'), "{output:?}");
    let mut lines = output.lines();
    let first = lines.next().unwrap();
    assert!(lines.all(|l| !l.contains('|')), "a bar in long output begins performance data: {output}");
    let (text, data) = first.split_once(" | ").unwrap_or((first, ""));
    assert!(!text.contains('|') && !data.contains('|'), "{first}");
    let word = ["OK", "WARNING", "CRITICAL", "UNKNOWN"][usize::from(code(status))];
    assert!(text.starts_with(&format!("MLFLOW {word}: ")), "{text}");
    let data = performance(data);
    let labels: HashSet<&str> = data.iter().map(|d| d.label.as_str()).collect();
    assert_eq!(labels.len(), data.len(), "a label comes once: {first}");
    (text.to_owned(), data)
}

#[test]
fn nagios_reads_what_the_guidelines_allow() {
    let (text, data) = parse(&nagios::text(&bad_day(), &[]), Status::Critical);
    assert!(text.starts_with("MLFLOW CRITICAL: database.connect: PostgreSQL at"), "{text}");
    let of = |label: &str| data.iter().find(|d| d.label == label).unwrap();
    let newest = of("activity.nightly.newest");
    assert_eq!((newest.value, newest.unit.as_str(), newest.least), (Some(187_200.0), "s", Some(0.0)));
    assert_eq!(newest.limits, [86_400.0, 172_800.0].map(|to| Some(Range { from: 0.0, to })));
    let certificate = of("server.certificate");
    assert_eq!(certificate.limits[1], Some(Range { from: 259_200.0, to: f64::INFINITY }));
    assert_eq!(of("artifacts.size").most, Some(2e12));
    assert_eq!((of("server.clock").value, of("server.clock").least), (Some(-0.4), None));
    assert_eq!(of("time").value, Some(4.215));
    let (text, _) = parse(&nagios::text(&good_day(), &[]), Status::Ok);
    assert_eq!(text, "MLFLOW OK: 8 checks in 214 ms");
}

/// A limit in a range's words alarms exactly where it says.
fn alarms(range: &Option<Range>, value: f64) -> bool {
    range.as_ref().is_some_and(|r| value < r.from || value > r.to)
}

/// Equal, but for the last digit of a number, which serde_json's reader rounds.
fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(a, b)| same(a, b))
        }
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len() && one.iter().all(|(key, a)| other.get(key).is_some_and(|b| same(a, b)))
        }
        (Value::Number(one), Value::Number(other)) => {
            let (one, other) = (one.as_f64().unwrap(), other.as_f64().unwrap());
            (one - other).abs() <= other.abs() * 1e-15
        }
        _ => one == other,
    }
}

fn text() -> impl Strategy<Value = String> {
    let hard = prop::sample::select(vec![
        "",
        " ",
        "a|b",
        "it's",
        "a=b",
        "a\nb",
        "\r\n",
        "\u{1b}[31m",
        "```",
        "` | `",
        "\\",
        "\"",
        "<b>",
        "@all",
        "# x",
        "| --- |",
        "x\u{9b}2J",
        "\u{202e}",
        "http://u:p@h/",
        "not judged: x is broken",
        "{}",
        "東京",
        "\u{2028}",
    ]);
    let any = prop::collection::vec(any::<char>(), 0..24).prop_map(|c| c.into_iter().collect::<String>());
    prop::collection::vec(prop_oneof![2 => hard.prop_map(str::to_owned), 1 => any], 0..5).prop_map(|t| t.concat())
}

fn number() -> impl Strategy<Value = f64> {
    prop_oneof![
        prop::sample::select(vec![0.0, -0.0, 1.0, -1.0, 0.1, 1e17, 1e-9, 5e-324, f64::MAX, f64::MIN]),
        prop::sample::select(vec![f64::NAN, f64::INFINITY, f64::NEG_INFINITY]),
        any::<f64>(),
        -1e6..1e6,
    ]
}

fn reading() -> impl Strategy<Value = Reading> {
    let units = prop::sample::select(vec![Unit::Seconds, Unit::Bytes, Unit::Percent, Unit::Count, Unit::Number]);
    let bound = || {
        prop::option::of(
            (any::<bool>(), number()).prop_map(|(up, n)| if up { Bound::AtMost(n) } else { Bound::AtLeast(n) }),
        )
    };
    let measure = (number(), units, bound(), bound(), prop::option::of(number())).prop_map(
        |(value, unit, warning, critical, most)| Measure { value, unit, limits: Limits { warning, critical }, most },
    );
    let statuses = prop::sample::select(vec![Status::Ok, Status::Unknown, Status::Warning, Status::Critical]);
    let layers = prop::sample::select(Layer::ALL.to_vec());
    let more = (
        prop::collection::vec(text(), 0..8),
        prop::option::of(text()),
        prop::option::of(text()),
        prop::option::of(0_i64..2_000_000_000),
        prop::option::of((0_u32..5, 0_u32..5)),
    );
    (layers, text(), statuses, text(), prop::option::of(measure), more).prop_map(
        |(layer, name, status, summary, measure, (evidence, cause, hint, since, held))| {
            let mut reading = Reading::new(format!("{}.{name}", layer.word()), status, summary).evidence(evidence);
            reading.measure = measure;
            reading.cause = cause;
            reading.hint = hint;
            reading.since = since.map(|s| Timestamp::from_second(s).unwrap());
            reading.held = held;
            reading
        },
    )
}

fn examinations() -> impl Strategy<Value = Examination> {
    (prop::collection::vec(reading(), 0..12), text(), 0_i64..100_000).prop_map(|(readings, address, took)| {
        Examination {
            left: Vec::new(),
            stack: vec![("server", address)],
            at: Timestamp::from_second(1_800_000_000).unwrap(),
            took: SignedDuration::from_millis(took),
            readings,
        }
    })
}

#[test]
fn hostile_texts_break_no_form() {
    let config = Config { cases: rounds() * 20, failure_persistence: None, ..Config::default() };
    let made = std::cell::RefCell::new(Vec::new());
    TestRunner::new(config)
        .run(&(examinations(), prop::collection::vec(text(), 0..3)), |(examination, warnings)| {
            let output = nagios::text(&examination, &warnings);
            let (_, data) = parse(&output, examination.status());
            let measured: Vec<Measure> = examination.readings.iter().filter_map(|r| r.measure).collect();
            assert_eq!(data.len(), measured.len() + 1);
            for (datum, measure) in data[1..].iter().zip(&measured) {
                let Some(value) = datum.value else { continue };
                // Nine digits are kept, so only a value beside its limit may be told otherwise.
                for (range, limit) in datum.limits.iter().zip([measure.limits.warning, measure.limits.critical]) {
                    let Some(Bound::AtMost(edge) | Bound::AtLeast(edge)) = limit else { continue };
                    let near = (edge - value).abs() <= 1e-6 * edge.abs().max(value.abs()).max(1.0);
                    let alarm = limit.is_some_and(|l| l.broken_by(value));
                    assert!(near || range.is_none() || alarms(range, value) == alarm, "{datum:?} of {measure:?}");
                }
            }
            let shown = table::text(&examination, &zone());
            let mut people = vec![bare(&shown), markdown::text(&examination, &warnings)];
            people.extend(incident::text(&examination, &warnings));
            for text in &people {
                assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
                assert!(!text.contains("u:p@h"), "{text}");
            }
            for colour in shown.split('\u{1b}').skip(1) {
                let code = colour.strip_prefix('[').and_then(|c| c.split_once('m')).map(|(code, _)| code);
                assert!(code.is_some_and(|c| ["0", "1", "2", "31", "32", "33", "35"].contains(&c)), "{shown:?}");
            }
            let log = incident::text(&examination, &[]).unwrap_or_default();
            for reading in examination.readings.iter().filter(|r| r.status != Status::Ok) {
                assert!(log.contains(&line(&reading.id)), "{} is not in {log}", reading.id);
            }
            let value = json::value(&examination);
            let written = json::inert(&serde_json::to_string(&value).unwrap());
            assert!(same(&serde_json::from_str(&written).unwrap(), &value), "{written}");
            assert!(!written.chars().any(char::is_control));
            made.borrow_mut().push(examination);
            Ok(())
        })
        .unwrap();
    read_by_prometheus(&made.into_inner());
}

/// `prometheus_client` reads a text per line of JSON and gives back `[[name, type, labels, value as text], ...]`.
const READER: &str = r#"
import json, sys
from prometheus_client.parser import text_string_to_metric_families
for line in sys.stdin:
    families = list(text_string_to_metric_families(json.loads(line)))
    assert len({f.name for f in families}) == len(families), "a family comes once"
    found = [[s.name, f.type, s.labels, repr(float(s.value))] for f in families for s in f.samples]
    assert all(s.timestamp is None for f in families for s in f.samples)
    assert all(f.documentation for f in families)
    print(json.dumps(found))
"#;

type Sample = (String, String, BTreeMap<String, String>, String);

pub(crate) fn prometheus_reads(texts: &[String]) -> Vec<Vec<Sample>> {
    let python = environment("prometheus").join("bin/python");
    let mut child =
        Command::new(python).args(["-c", READER]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let lines: String = texts.iter().map(|t| format!("{}\n", Value::from(t.as_str()))).collect();
    let writer = std::thread::spawn(move || input.write_all(lines.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success(), "its parser refuses a text");
    String::from_utf8(output.stdout).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

#[track_caller]
fn read_by_prometheus(examinations: &[Examination]) {
    let texts: Vec<String> = examinations.iter().map(prometheus::text).collect();
    let read = prometheus_reads(&texts);
    assert_eq!(read.len(), examinations.len());
    for ((examination, samples), text) in examinations.iter().zip(&read).zip(&texts) {
        let series: HashSet<String> = samples.iter().map(|(name, _, labels, _)| format!("{name} {labels:?}")).collect();
        assert_eq!(series.len(), samples.len(), "each series comes once:\n{text}");
        assert!(samples.iter().all(|(name, kind, ..)| name.starts_with("mlops_health_") && kind == "gauge"));
        let ids: HashSet<&str> = examination.readings.iter().map(|r| r.id.as_str()).collect();
        let statuses = samples.iter().filter(|(name, ..)| name == "mlops_health_status").count();
        // Ids that differ only in white space are one series.
        assert!(statuses <= ids.len() && (statuses > 0) != ids.is_empty(), "{text}");
        let again: String = prometheus::text(examination);
        assert_eq!(&again, text, "the same order each time");
    }
}

#[test]
fn prometheus_reads_it_with_its_own_parser() {
    let samples = prometheus_reads(&[prometheus::text(&bad_day())]).remove(0);
    let of = |name: &str, check: &str| -> &str {
        let wanted = |s: &&Sample| s.0 == name && s.2.get("check").is_none_or(|c| c == check);
        &samples.iter().find(wanted).unwrap_or_else(|| panic!("{name} of {check}")).3
    };
    assert_eq!(of("mlops_health_up", ""), "0.0");
    assert_eq!(of("mlops_health_worst_status", ""), "2.0");
    assert_eq!(of("mlops_health_status", "server.ready"), "3.0");
    assert_eq!(of("mlops_health_status", "security.server"), "1.0");
    assert_eq!(of("mlops_health_value_seconds", "activity.nightly.newest"), "187200.0");
    assert_eq!(of("mlops_health_value_ratio", "artifacts.disk"), "0.184");
    assert_eq!(of("mlops_health_value_bytes", "artifacts.size"), "1250000000000.0");
    assert_eq!(of("mlops_health_value_items", "probe.weather"), "1204.0");
    assert_eq!(of("mlops_health_value_number", "metrics.champion.r2"), "0.8123");
    assert_eq!(of("mlops_health_failures_in_a_row", "probe.energy"), "1.0");
    assert_eq!(of("mlops_health_last_run_timestamp_seconds", ""), "1795254432.0");
    assert_eq!(of("mlops_health_duration_seconds", ""), "4.215");
    let layers: HashSet<&str> = samples.iter().filter_map(|s| s.2.get("layer")).map(String::as_str).collect();
    assert!(layers.contains("database") && layers.contains("probe"), "{layers:?}");
    let odd = |value: f64| Examination {
        readings: vec![Reading::measured("metrics.\"a\\\nb\".x", value, Unit::Number, Limits::default(), "")],
        ..good_day()
    };
    for (value, text) in [(f64::NAN, "nan"), (f64::INFINITY, "inf"), (f64::NEG_INFINITY, "-inf"), (1e-300, "1e-300")] {
        let samples = prometheus_reads(&[prometheus::text(&odd(value))]).remove(0);
        let sample = samples.iter().find(|s| s.0 == "mlops_health_value_number").unwrap();
        assert_eq!((sample.2["check"].as_str(), sample.3.as_str()), ("metrics.\"a\\ b\".x", text));
    }
    assert_eq!(
        prometheus_reads(&[prometheus::text(&good_day())])[0].iter().find(|s| s.0.ends_with("_up")).unwrap().3,
        "1.0"
    );
}
