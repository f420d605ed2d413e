//! The layer *probe*: what the configuration asks of other services, each by itself and one against another.

mod measure;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use tokio::task::JoinSet;

use crate::domain::condition::{Condition, Operand, Unjudged};
use crate::domain::health::settings::{Amount, HealthSettings, Increase, Probe};
use crate::domain::health::{Limits, Reading, Status, Unit};

use super::Stack;
use measure::{Roots, Seen, measure, milliseconds};

/// The checks that a configuration asks for, with their questions.
pub(super) fn expected(settings: &HealthSettings) -> Vec<(String, String)> {
    settings.probes.iter().map(|probe| (id(probe), about(probe))).collect()
}

fn id(probe: &Probe) -> String {
    format!("probe.{}", probe.name)
}

/// No address stands in it: an address may hold a password.
fn about(probe: &Probe) -> String {
    let way = if probe.url.is_some() {
        "an answer over HTTP"
    } else if probe.tcp.is_some() {
        "a TCP connection"
    } else if probe.query.is_some() {
        "a query's value"
    } else if probe.command.is_some() {
        "a command's value"
    } else {
        "other probes' values"
    };
    let alarms = probe.alarm.iter().map(|a| format!("not {a}"));
    let conditions: Vec<String> = probe.expect.iter().cloned().chain(alarms).collect();
    if conditions.is_empty() { format!("is there {way}") } else { format!("{way}: {}", conditions.join(", ")) }
}

type Outcomes = BTreeMap<String, Result<Option<Seen>, Reading>>;

/// Looks at all of them at once, then judges each with the values of all.
pub(super) async fn look(stack: Arc<Stack>) {
    let probes = &stack.look.settings.probes;
    let wanted: Vec<&Probe> = probes.iter().filter(|p| stack.wants(&id(p))).collect();
    let named: Vec<String> = wanted.iter().flat_map(|p| others(p)).collect();
    let mut tasks = JoinSet::new();
    for (index, probe) in probes.iter().enumerate() {
        // One that is only spoken of is asked too: without its value the other cannot be judged.
        if !wanted.iter().any(|w| w.name == probe.name) && !named.contains(&probe.name) {
            continue;
        }
        let stack = stack.clone();
        tasks.spawn(async move {
            let probe = stack.look.settings.probes.get(index)?;
            let seen = measure(&stack, probe).await;
            // What speaks of no other is told as soon as it is known.
            if others(probe).is_empty() && stack.wants(&id(probe)) {
                let own = value_of(&seen);
                stack.tell(judge(&stack, probe, &seen, &|name| own.filter(|_| name == probe.name)));
            }
            Some((probe.name.clone(), seen))
        });
    }
    let mut outcomes = Outcomes::new();
    while let Some(done) = tasks.join_next().await {
        outcomes.extend(done.ok().flatten());
    }
    for probe in wanted.iter().filter(|p| !others(p).is_empty()) {
        let Some(seen) = outcomes.get(&probe.name) else { continue };
        let value = |name: &str| value_of(outcomes.get(name)?);
        stack.tell(judge(&stack, probe, seen, &value));
    }
}

/// Asks one service by itself, over HTTP: what was seen where all that is expected of its answer holds, else what is wrong.
/// `system` and `own`: files with authorities that are believed.
///
/// # Errors
/// A sentence for the operator.
pub async fn ask(
    probe: &Probe,
    system: Option<PathBuf>,
    own: Option<PathBuf>,
    within: Duration,
) -> Result<String, String> {
    let seen = measure::fetched(probe, Roots::new(system, own), within).await?;
    let mut findings = Findings::default();
    conditions_hold(probe, Some(&seen), &|_| None, &mut findings);
    match findings.found.into_iter().next() {
        Some((_, what)) => Err(format!("{what} ({})", seen.said)),
        None => Ok(seen.said),
    }
}

fn value_of(seen: &Result<Option<Seen>, Reading>) -> Option<f64> {
    seen.as_ref().ok()?.as_ref()?.number
}

fn conditions(texts: &[String]) -> impl Iterator<Item = Condition> {
    texts.iter().filter_map(|text| Condition::parse(text).ok())
}

/// The other probes that one speaks of.
fn others(probe: &Probe) -> Vec<String> {
    let mut names: Vec<String> = conditions(&probe.expect)
        .chain(conditions(&probe.alarm))
        .flat_map(|c| c.names().into_iter().map(str::to_owned).collect::<Vec<_>>())
        .filter(|name| *name != probe.name)
        .collect();
    names.sort();
    names.dedup();
    names
}

/// What is found of one: the worst, and the rest as evidence.
#[derive(Default)]
struct Findings {
    found: Vec<(Status, String)>,
}

impl Findings {
    fn add(&mut self, status: Status, what: String) {
        self.found.push((status, what));
    }
}

fn judge(
    stack: &Stack,
    probe: &Probe,
    seen: &Result<Option<Seen>, Reading>,
    value: &dyn Fn(&str) -> Option<f64>,
) -> Reading {
    let seen = match seen {
        Ok(seen) => seen.as_ref(),
        Err(reading) => return reading.clone(),
    };
    let mut findings = Findings::default();
    let mut limits = Limits::default();
    if let (Some(latency), Some(seen)) = (&probe.latency, seen)
        && let Ok(bounds) = latency.at_most(Unit::Seconds)
    {
        let status = bounds.judge(seen.took.as_secs_f64());
        if status != Status::Ok {
            findings.add(status, format!("the answer took {}", milliseconds(seen.took)));
        }
        limits = bounds;
    }
    conditions_hold(probe, seen, value, &mut findings);
    let mut notes = Vec::new();
    if let (Some(increase), Some(seen)) = (&probe.increase, seen) {
        notes.extend(grown(stack, probe, increase, seen, &mut findings));
    }
    findings.found.sort_by_key(|(status, _)| std::cmp::Reverse(*status));
    let mut found = findings.found.into_iter();
    let (status, summary) = match found.next() {
        Some((status, what)) => (status, what),
        None => (Status::Ok, seen.map_or_else(|| "all conditions hold".to_owned(), |s| s.said.clone())),
    };
    let mut reading = Reading::new(id(probe), status, summary);
    reading = reading.evidence(found.map(|(_, what)| what)).evidence(notes);
    if status != Status::Ok {
        reading = reading.evidence(seen.map(|s| s.said.clone()));
    }
    if let Some(seen) = seen {
        // A number of its own is what is remembered; without one, the time.
        let (value, unit, limits) = match seen.number {
            Some(number) => (number, Unit::Number, Limits::default()),
            None => (seen.took.as_secs_f64(), Unit::Seconds, limits),
        };
        let measured = Reading::measured(id(probe), value, unit, limits, "");
        reading.measure = measured.measure;
        if probe.query.is_some() && !stack.look.settings.databases.contains_key(&probe.name) {
            reading = reading.needs("database.connect");
        }
    }
    others(probe).into_iter().fold(reading, |reading, other| reading.needs(format!("probe.{other}")))
}

fn conditions_hold(probe: &Probe, seen: Option<&Seen>, value: &dyn Fn(&str) -> Option<f64>, findings: &mut Findings) {
    let level = probe.level.status();
    let document = seen.and_then(|s| s.document.as_ref());
    let operand = |operand: &Operand| match operand {
        Operand::Name(name) => value(name),
        Operand::Path(path) => document.and_then(|d| path.find(d)).and_then(measure::number),
    };
    let expected = conditions(&probe.expect).map(|c| (c, true));
    for (condition, wanted) in expected.chain(conditions(&probe.alarm).map(|c| (c, false))) {
        let numbers = |left, right| format!("{} against {}", shown(left), shown(right));
        match condition.evaluate(&operand) {
            Ok(v) if v.left.is_nan() || v.right.is_nan() => {
                findings.add(Status::Unknown, format!("{condition} cannot be judged: a side is not a number"));
            }
            Ok(v) if v.holds == wanted => {}
            Ok(v) if wanted => {
                findings.add(level, format!("{condition} does not hold: {}", numbers(v.left, v.right)));
            }
            Ok(v) => findings.add(level, format!("alarm: {condition} ({})", numbers(v.left, v.right))),
            Err(Unjudged::Missing(Operand::Path(path))) => {
                let is = document.and_then(|d| path.find(d)).map(measure::kind);
                let is = is.map_or("is not in the answer".to_owned(), |kind| format!("is no number but {kind}"));
                findings.add(level, format!("{path} {is}, and {condition} is expected"));
            }
            Err(why) => findings.add(Status::Unknown, format!("{condition} cannot be judged: {why}")),
        }
    }
}

/// Judges how much the value grew, as a counter does: one that is smaller than before began again at 0.
fn grown(stack: &Stack, probe: &Probe, increase: &Increase, seen: &Seen, findings: &mut Findings) -> Option<String> {
    let within = increase.within.in_unit(Unit::Seconds).ok()?;
    let Some(now) = seen.number else {
        findings.add(Status::Unknown, format!("`{}` is no number whose increase could be told", seen.said));
        return None;
    };
    let ago = SignedDuration::try_from_secs_f64(within).ok()?;
    let Some((then, before)) = stack.before(&id(probe), ago) else {
        return Some("no earlier run to compare with: this one is the first".to_owned());
    };
    let grown = if now >= before { now - before } else { now.max(0.0) };
    let what = format!("{} more since {then:.0}", shown(grown));
    let beyond = |limit: &Option<Amount>| {
        limit.as_ref().and_then(|l| l.in_unit(Unit::Number).ok()).is_some_and(|limit| grown >= limit)
    };
    if beyond(&increase.critical) {
        findings.add(Status::Critical, what);
    } else if beyond(&increase.warning) {
        findings.add(Status::Warning, what);
    } else {
        return Some(what);
    }
    None
}

/// A number as people write it.
pub(super) fn shown(number: f64) -> String {
    let plain = number.to_string();
    match number.abs() {
        _ if plain.len() <= 8 => plain,
        size if (0.01..1e9).contains(&size) => {
            format!("{number:.4}").trim_end_matches('0').trim_end_matches('.').to_owned()
        }
        _ => format!("{number:.3e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let numbers = [0.85, 34.0, -0.011_339_29, 1.0 / 3.0, 1e-10, 1.234_567_8e12, f64::NAN, 100_000.000_01];
        let texts = numbers.map(shown);
        assert_eq!(texts, ["0.85", "34", "-0.0113", "0.3333", "1.000e-10", "1.235e12", "NaN", "100000"]);
    }
}
