//! Whether what the configuration says of health makes sense. All of it is looked at when it is read, so that a wrong
//! amount is told at the start and not when a check first fails.

use std::collections::BTreeMap;

use super::settings::{Activity, Amount, Judgement, Metric, Probe, Registry};
use super::{Layer, Unit, checks};
use crate::domain::address::StoreAddress;
use crate::domain::condition::{Condition, Operand, json_path};
use crate::domain::failure::{Failure, Outcome};
use crate::domain::trend;

/// The most runs of an experiment that one check looks at.
pub const MOST_RUNS: u32 = 1_000;

/// A place in the configuration: keys, and numbers of elements counted from 0.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place(pub Vec<String>);

impl Place {
    /// One step further.
    #[must_use]
    pub fn to(&self, step: impl ToString) -> Place {
        let mut place = self.clone();
        place.0.push(step.to_string());
        place
    }
}

/// Something wrong, and where.
#[derive(Debug)]
pub struct Wrong {
    /// Where.
    pub at: Place,
    /// What.
    pub failure: Failure,
}

/// Whether it makes sense.
pub type Sound = Result<(), Wrong>;

fn wrong(at: Place, message: impl Into<String>) -> Wrong {
    Wrong { at, failure: Failure::configuration(message) }
}

fn held<T>(at: Place, outcome: Outcome<T>) -> Result<T, Wrong> {
    outcome.map_err(|failure| Wrong { at, failure })
}

/// The word that is most like another.
pub fn nearest<'a>(word: &str, words: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    words.into_iter().max_by(|a, b| strsim::jaro_winkler(a, word).total_cmp(&strsim::jaro_winkler(b, word)))
}

/// Limits of built-in checks.
pub(crate) fn limits(limits: &BTreeMap<String, BTreeMap<String, Judgement>>) -> Sound {
    for (layer, named) in limits {
        for (name, judgement) in named {
            let (id, at) = (format!("{layer}.{name}"), Place::default().to(layer).to(name));
            let Some(check) = checks::find(&id) else {
                let known = || checks::CHECKS.iter().map(|c| c.id);
                let failure = Failure::configuration(format!("there is no check {id} whose limits could be set"));
                let like = match Layer::of(&id) {
                    Some(layer) => nearest(&id, known().filter(|k| Layer::of(k) == Some(layer))),
                    None => None,
                };
                let like = like.or_else(|| nearest(&id, known())).unwrap_or_default();
                return Err(Wrong { at, failure: failure.hint(format!("did you mean [health.{like}]?")) });
            };
            match (check.unit, judgement.warning.is_some() || judgement.critical.is_some()) {
                (None, true) => {
                    let failure = Failure::configuration(format!("{id} has no number that limits could be set for"));
                    return Err(Wrong { at, failure: failure.hint("only `after` means something here") });
                }
                (Some(unit), _) => pair(&at, unit, judgement.warning.as_ref(), judgement.critical.as_ref())?,
                (None, false) => {}
            }
        }
    }
    Ok(())
}

fn pair(at: &Place, unit: Unit, warning: Option<&Amount>, critical: Option<&Amount>) -> Sound {
    for (key, amount) in [("warning", warning), ("critical", critical)] {
        if let Some(amount) = amount {
            held(at.to(key), amount.in_unit(unit))?;
        }
    }
    Ok(())
}

/// Limits of one of the file's own checks; there, `after` stands beside the name.
fn own(at: Place, judgement: Option<&Judgement>) -> Sound {
    let Some(judgement) = judgement else { return Ok(()) };
    if judgement.after.is_some() {
        return Err(wrong(at.to("after"), "`after` holds for all of it and stands beside `name`"));
    }
    some_limit(&at, judgement.warning.as_ref(), judgement.critical.as_ref())?;
    pair(&at, Unit::Seconds, judgement.warning.as_ref(), judgement.critical.as_ref())
}

fn some_limit(at: &Place, warning: Option<&Amount>, critical: Option<&Amount>) -> Sound {
    if warning.is_none() && critical.is_none() {
        return Err(wrong(at.clone(), "neither `warning` nor `critical` is given"));
    }
    Ok(())
}

/// Names are parts of ids, and of series in Prometheus.
fn names<'a>(kind: &str, names: impl Iterator<Item = &'a str>) -> Sound {
    let mut seen: Vec<&str> = Vec::new();
    for (index, name) in names.enumerate() {
        let at = Place::default().to(index);
        if name.is_empty() {
            return Err(wrong(at, format!("a [[{kind}]] has no `name`")));
        }
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-');
        if !name.chars().all(fits) {
            let message = format!("the name `{name}` is not made of a-z, 0-9, `_` and `-`");
            return Err(wrong(at.to("name"), message));
        }
        if seen.contains(&name) {
            return Err(wrong(at.to("name"), format!("there are two [[{kind}]] called {name}")));
        }
        seen.push(name);
    }
    Ok(())
}

fn counted(at: Place, number: u32, least: u32, most: u32) -> Sound {
    if (least..=most).contains(&number) {
        return Ok(());
    }
    Err(wrong(at, format!("{number} is not a number from {least} to {most}")))
}

/// `[[activity]]`
pub(crate) fn activities(activities: &[Activity]) -> Sound {
    names("activity", activities.iter().map(|a| a.name.as_str()))?;
    for (index, activity) in activities.iter().enumerate() {
        let at = Place::default().to(index);
        if activity.experiments.is_empty() {
            return Err(wrong(at, format!("the activity {} names no `experiments`", activity.name)));
        }
        own(at.to("newest"), activity.newest.as_ref())?;
        own(at.to("running"), activity.running.as_ref())?;
        own(at.to("duration"), activity.duration.as_ref())?;
        if let Some(runs) = &activity.runs {
            let at = at.to("runs");
            positive(at.to("within"), &runs.within)?;
            some_limit(&at, runs.warning.as_ref(), runs.critical.as_ref())?;
            pair(&at, Unit::Count, runs.warning.as_ref(), runs.critical.as_ref())?;
            let most = f64::from(MOST_RUNS);
            for amount in [&runs.warning, &runs.critical].into_iter().flatten() {
                if held(at.clone(), amount.in_unit(Unit::Count))? > most {
                    return Err(wrong(at, format!("no more than {most} runs are counted")));
                }
            }
        }
        if let Some(failed) = &activity.failed {
            let at = at.to("failed");
            counted(at.to("of"), failed.of, 1, MOST_RUNS)?;
            some_limit(&at, failed.warning.as_ref(), failed.critical.as_ref())?;
            pair(&at, Unit::Percent, failed.warning.as_ref(), failed.critical.as_ref())?;
        }
        let asked = activity.newest.is_some() || activity.running.is_some() || activity.duration.is_some();
        if !asked && activity.runs.is_none() && activity.failed.is_none() {
            let failure = Failure::configuration(format!("the activity {} expects nothing", activity.name))
                .hint("give one of newest, runs, failed, running, duration");
            return Err(Wrong { at, failure });
        }
    }
    Ok(())
}

fn positive(at: Place, amount: &Amount) -> Sound {
    let seconds = held(at.clone(), amount.in_unit(Unit::Seconds))?;
    // More than a hundred years is a slip, and more than the calendar of times holds.
    if seconds > 0.0 && seconds < 100.0 * 366.0 * 86_400.0 {
        return Ok(());
    }
    Err(wrong(at, "this is no time to look back"))
}

/// `[[metric]]`
pub(crate) fn metrics(metrics: &[Metric]) -> Sound {
    names("metric", metrics.iter().map(|m| m.name.as_str()))?;
    for (index, metric) in metrics.iter().enumerate() {
        let (at, name) = (Place::default().to(index), &metric.name);
        if metric.experiments.is_some() == metric.model.is_some() {
            return Err(wrong(at, format!("the metric {name} takes one of `experiments` and `model`")));
        }
        if metric.expect.is_empty() && metric.trend.is_none() {
            return Err(wrong(at, format!("the metric {name} expects nothing: give `expect` or `trend`")));
        }
        for (number, text) in metric.expect.iter().enumerate() {
            let at = at.to("expect").to(number);
            let condition = held(at.clone(), Condition::parse(text))?;
            if condition.operands().iter().any(|o| matches!(o, Operand::Path(_))) {
                return Err(wrong(at, format!("`{text}`: a metric is named without a dot before it")));
            }
            if condition.names().is_empty() {
                return Err(wrong(at, format!("`{text}` names no metric")));
            }
        }
        if let Some(runs) = metric.runs {
            counted(at.to("runs"), runs, 1, 100)?;
        }
        if metric.model.is_some() && (metric.runs.is_some() || metric.trend.is_some()) {
            let key = if metric.trend.is_some() { "trend" } else { "runs" };
            return Err(wrong(at.to(key), format!("`{key}` looks at many runs, and a model's version has one")));
        }
        if let Some(trend) = &metric.trend {
            let (fewest, most) = (trend::FEWEST as u32, trend::MOST as u32);
            counted(at.to("trend").to("runs"), trend.runs, fewest, most)?;
            if trend.metric.is_empty() {
                return Err(wrong(at.to("trend"), "the trend names no metric"));
            }
        }
    }
    Ok(())
}

/// `[[probe]]`
pub(crate) fn probes(probes: &[Probe]) -> Sound {
    names("probe", probes.iter().map(|p| p.name.as_str()))?;
    let known: Vec<&str> = probes.iter().map(|p| p.name.as_str()).collect();
    for (index, probe) in probes.iter().enumerate() {
        let at = Place::default().to(index);
        looks(&at, probe)?;
        for (key, conditions) in [("expect", &probe.expect), ("alarm", &probe.alarm)] {
            for (number, text) in conditions.iter().enumerate() {
                condition(at.to(key).to(number), text, probe, probes, &known)?;
            }
        }
        own(at.to("latency"), probe.latency.as_ref())?;
        if let Some(increase) = &probe.increase {
            let at = at.to("increase");
            positive(at.to("within"), &increase.within)?;
            some_limit(&at, increase.warning.as_ref(), increase.critical.as_ref())?;
            pair(&at, Unit::Number, increase.warning.as_ref(), increase.critical.as_ref())?;
        }
    }
    Ok(())
}

/// One way to look, with what belongs to it.
fn looks(at: &Place, probe: &Probe) -> Sound {
    let ways = [
        ("url", probe.url.as_deref()),
        ("tcp", probe.tcp.as_deref()),
        ("query", probe.query.as_deref()),
        ("command", probe.command.as_deref()),
    ];
    let mut given = ways.iter().filter_map(|(key, value)| value.map(|v| (*key, v)));
    let name = &probe.name;
    let way = given.next();
    if let Some((second, _)) = given.next() {
        return Err(wrong(at.to(second), format!("the probe {name} takes one of url, tcp, query, command")));
    }
    let way = match way {
        None if probe.expect.is_empty() && probe.alarm.is_empty() => {
            let failure = Failure::configuration(format!("the probe {name} looks at nothing"))
                .hint("give url, tcp, query or command; or `expect` or `alarm` over other probes");
            return Err(Wrong { at: at.clone(), failure });
        }
        None => "",
        Some((key, value)) if value.trim().is_empty() => {
            return Err(wrong(at.to(key), format!("the `{key}` of the probe {name} is empty")));
        }
        Some((key, _)) => key,
    };
    let only = [
        ("status", probe.status.is_some(), &["url"][..]),
        ("value", probe.value.is_some(), &["url"]),
        ("database", probe.database.is_some(), &["query"]),
        ("latency", probe.latency.is_some(), &["url", "tcp", "query", "command"]),
        ("increase", probe.increase.is_some(), &["url", "query", "command"]),
    ];
    for (key, there, ways) in only {
        if there && !ways.contains(&way) {
            return Err(wrong(at.to(key), format!("`{key}` goes with {}", ways.join(", "))));
        }
    }
    if probe.increase.is_some() && way == "url" && probe.value.is_none() {
        return Err(wrong(at.to("increase"), "`increase` needs `value`: where in the answer the number stands"));
    }
    if let Some(url) = &probe.url {
        let rest = ["http://", "https://"].iter().find_map(|scheme| url.strip_prefix(scheme));
        // The address itself is not repeated: it may hold a password.
        if rest.is_none_or(|r| r.is_empty() || r.starts_with(['/', ':']) || r.contains(char::is_whitespace)) {
            return Err(wrong(at.to("url"), "this is no address: http://host:port/path"));
        }
    }
    if let Some(tcp) = &probe.tcp {
        let port = tcp.rsplit_once(':').filter(|(host, _)| !host.is_empty()).and_then(|(_, p)| p.parse::<u16>().ok());
        if port.is_none_or(|port| port == 0) {
            return Err(wrong(at.to("tcp"), format!("`{tcp}` is not host:port")));
        }
    }
    if let Some(status) = probe.status
        && !(100..=599).contains(&status)
    {
        return Err(wrong(at.to("status"), format!("{status} is no HTTP status")));
    }
    if let Some(value) = &probe.value {
        held(at.to("value"), json_path(value))?;
    }
    if let Some(database) = &probe.database {
        match held(at.to("database"), StoreAddress::parse(database))? {
            StoreAddress::Postgres(_) => {}
            _ => return Err(wrong(at.to("database"), "queries go to PostgreSQL: postgresql://user@host/database")),
        }
    }
    Ok(())
}

/// A condition speaks of this probe's answer and of other probes.
fn condition(at: Place, text: &str, probe: &Probe, all: &[Probe], known: &[&str]) -> Sound {
    let condition = held(at.clone(), Condition::parse(text))?;
    let measures = |p: &Probe| p.url.is_some() && p.value.is_some() || p.query.is_some() || p.command.is_some();
    for operand in condition.operands() {
        match operand {
            Operand::Path(path) if probe.url.is_none() => {
                return Err(wrong(at, format!("`{path}` stands in an answer, and only `url` brings one")));
            }
            Operand::Path(_) => {}
            Operand::Name(name) => match all.iter().find(|p| p.name == *name) {
                Some(named) if measures(named) => {}
                Some(_) => {
                    let failure = Failure::configuration(format!("the probe {name} has no value"))
                        .hint("query and command have one, and url with `value`");
                    return Err(Wrong { at, failure });
                }
                None => {
                    let failure = Failure::configuration(format!("there is no probe {name}"));
                    let like = nearest(name, known.iter().copied()).unwrap_or_default();
                    return Err(Wrong { at, failure: failure.hint(format!("did you mean `{like}`?")) });
                }
            },
        }
    }
    if condition.operands().is_empty() {
        return Err(wrong(at, format!("`{text}` names no probe and no place in an answer")));
    }
    Ok(())
}

/// `[registry]`
pub(crate) fn registry(registry: &Registry) -> Sound {
    if let Some(index) = registry.production.iter().position(String::is_empty) {
        return Err(wrong(Place::default().to("production").to(index), "an empty pattern matches no model"));
    }
    if registry.alias.as_deref() == Some("") {
        return Err(wrong(Place::default().to("alias"), "an alias is not empty"));
    }
    Ok(())
}
