//! The layer *metrics*: what the newest runs, or the version in production, are worth, and whether it gets worse.

use std::sync::Arc;

use tokio::task::JoinSet;

use crate::domain::condition::{Condition, Operand, Unjudged};
use crate::domain::health::settings::{Better, HealthSettings, Metric, Trend as Expected};
use crate::domain::health::{Limits, Measure, Reading, Status, Unit};
use crate::domain::tracking::{MetricPoint, Run};
use crate::domain::trend::{self, Trend};
use crate::mlflow::Client;
use crate::mlflow::fault::Reply;
use crate::registry::metrics::origin;

use super::Stack;
use super::probe::shown;
use super::registry::in_production;
use super::runs::{self, NEWEST, called, patient, told};
use super::server::unmeasured;

const READY: &str = "server.ready";
const FINISHED: &str = "attributes.status = 'FINISHED'";

fn number(metric: &Metric, index: usize) -> String {
    format!("metrics.{}.{}", metric.name, index + 1)
}

fn trend_id(metric: &Metric) -> String {
    format!("metrics.{}.trend", metric.name)
}

/// The checks that a configuration asks for, with their questions: `metrics.<name>.1` for the first of `expect`.
pub(super) fn expected(settings: &HealthSettings) -> Vec<(String, String)> {
    let of = |metric: &Metric| {
        let whose = metric.experiments.as_ref().or(metric.model.as_ref()).cloned().unwrap_or_default();
        let limits = metric.expect.iter().enumerate();
        let mut checks: Vec<(String, String)> =
            limits.map(|(index, text)| (number(metric, index), format!("{whose}: {text}"))).collect();
        if let Some(trend) = &metric.trend {
            checks.push((trend_id(metric), format!("{whose}: does {} get worse", trend.metric)));
        }
        checks
    };
    settings.metrics.iter().flat_map(of).collect()
}

/// Looks at all of them at once.
pub(super) async fn look(stack: Arc<Stack>) {
    let mut tasks = JoinSet::new();
    for metric in stack.look.settings.metrics.clone() {
        tasks.spawn(one(stack.clone(), metric));
    }
    while tasks.join_next().await.is_some() {}
}

/// Whose metrics are judged: a run, or the run of a version.
struct Judged {
    called: String,
    metrics: Vec<(String, MetricPoint)>,
}

impl Judged {
    fn value(&self, name: &str) -> Option<f64> {
        self.metrics.iter().find(|(key, _)| key == name).map(|(_, point)| point.value)
    }
}

async fn one(stack: Arc<Stack>, metric: Metric) {
    let Some((_, client)) = &stack.server else { return };
    let client = patient(&stack, client);
    let limits: Vec<(String, &String)> = metric
        .expect
        .iter()
        .enumerate()
        .map(|(i, text)| (number(&metric, i), text))
        .filter(|(id, _)| stack.wants(id))
        .collect();
    let trend = metric.trend.as_ref().filter(|_| stack.wants(&trend_id(&metric)));
    let ids: Vec<String> = limits.iter().map(|(id, _)| id.clone()).chain(trend.map(|_| trend_id(&metric))).collect();
    let Some(head) = ids.first() else { return };
    // The first tells what keeps all of them from being judged, the others stand on it.
    let nothing = |what: &str| {
        stack.tell(Reading::new(head.clone(), metric.level.status(), what).needs(READY));
        for id in ids.iter().skip(1) {
            stack.tell(Reading::unknown(id.clone(), what).needs(head.clone()));
        }
    };
    let broken = |trouble| ids.iter().for_each(|id| stack.tell(unmeasured(id, &trouble).needs(READY)));
    let experiments = match &metric.experiments {
        None => None,
        Some(pattern) => match runs::experiments(&client, pattern).await {
            Err(trouble) => return broken(trouble),
            Ok(found) if found.is_empty() => return nothing(&format!("no experiment is called {pattern}")),
            Ok(found) => Some(found),
        },
    };
    if !limits.is_empty() {
        match judged(&stack, &client, &metric, experiments.as_deref()).await {
            Err(trouble) => return broken(trouble),
            Ok(Err(what)) => return nothing(&what),
            Ok(Ok(judged)) => {
                for (id, text) in &limits {
                    stack.tell(judge(&metric, id, text, &judged).needs(READY));
                }
            }
        }
    }
    if let (Some(trend), Some(experiments)) = (trend, &experiments) {
        let id = trend_id(&metric);
        let told = match series(&client, experiments, trend).await {
            Err(trouble) => unmeasured(&id, &trouble),
            Ok(runs) => decline(&stack, &metric, &id, trend, &runs),
        };
        stack.tell(told.needs(READY));
    }
}

/// The newest runs, or the one of the version in production. The inner error says what is missing.
async fn judged(
    stack: &Stack,
    client: &Client,
    metric: &Metric,
    experiments: Option<&[String]>,
) -> Reply<Result<Vec<Judged>, String>> {
    if let Some(experiments) = experiments {
        let runs = runs::first(client, experiments, FINISHED, NEWEST, metric.runs.unwrap_or(1)).await?;
        if runs.is_empty() {
            return Ok(Err("no run has finished yet".to_owned()));
        }
        let judged = |run: Run| Judged { called: told(&run, stack.look.now), metrics: run.metrics };
        return Ok(Ok(runs.into_iter().map(judged).collect()));
    }
    let model = metric.model.clone().unwrap_or_default();
    let version = match in_production(stack, client, &model).await? {
        Ok(version) => version,
        Err(what) => return Ok(Err(what)),
    };
    let mut judged = Judged { called: format!("{model} version {}", version.version), metrics: Vec::new() };
    let origin = origin(client, &version).await?;
    if let Some(run) = &origin.run {
        judged.called = format!("{}, {}", judged.called, called(run));
    }
    judged.metrics = origin.metrics;
    if judged.metrics.is_empty() {
        return Ok(Err(format!("{} has no metrics: its run is gone, or logged none", judged.called)));
    }
    Ok(Ok(vec![judged]))
}

fn judge(metric: &Metric, id: &str, text: &str, all: &[Judged]) -> Reading {
    let condition = match Condition::parse(text) {
        Ok(condition) => condition,
        Err(failure) => return super::server::unset(id, &failure),
    };
    let mut newest = None;
    let mut failing: Vec<String> = Vec::new();
    let mut unjudged: Vec<String> = Vec::new();
    for judged in all {
        let value = |operand: &Operand| match operand {
            Operand::Name(name) => judged.value(name),
            Operand::Path(_) => None,
        };
        match condition.evaluate(&value) {
            Ok(verdict) => {
                newest = newest.or(Some(verdict));
                if !verdict.holds {
                    let numbers = format!("{} against {}", shown(verdict.left), shown(verdict.right));
                    failing.push(format!("{numbers}: {}", judged.called));
                }
            }
            Err(Unjudged::Missing(operand)) => unjudged.push(format!("no metric {operand}: {}", judged.called)),
            Err(why) => unjudged.push(format!("{why}: {}", judged.called)),
        }
    }
    let of = if all.len() == 1 { String::new() } else { format!(" in {} of {} runs", failing.len(), all.len()) };
    let mut reading = if !failing.is_empty() {
        Reading::new(id, metric.level.status(), format!("{condition} does not hold{of}"))
    } else if !unjudged.is_empty() {
        Reading::unknown(id, format!("{condition} cannot be judged"))
    } else {
        let left = newest.map_or(String::new(), |v| format!(" ({})", shown(v.left)));
        Reading::ok(id, format!("{condition} holds{left}"))
    };
    reading.measure = newest.map(|verdict| number_of(verdict.left));
    if failing.is_empty() && unjudged.is_empty() {
        return reading.evidence(all.first().map(|j| j.called.clone()));
    }
    reading.evidence(failing).evidence(unjudged)
}

fn number_of(value: f64) -> Measure {
    Measure { value, unit: Unit::Number, limits: Limits::default(), most: None }
}

async fn series(client: &Client, experiments: &[String], trend: &Expected) -> Reply<Vec<Run>> {
    let mut runs = runs::first(client, experiments, FINISHED, NEWEST, trend.runs).await?;
    runs.reverse();
    Ok(runs)
}

fn decline(stack: &Stack, metric: &Metric, id: &str, expected: &Expected, runs: &[Run]) -> Reading {
    let name = &expected.metric;
    let value = |run: &Run| run.metrics.iter().find(|(key, _)| key == name).map(|(_, p)| p.value);
    let values: Vec<(f64, &Run)> = runs.iter().filter_map(|run| Some((value(run)?, run))).collect();
    let series: Vec<f64> = values.iter().map(|(value, _)| *value).collect();
    let Some(trend) = Trend::of(&series) else {
        let usable = series.iter().filter(|v| v.is_finite()).count();
        let few = format!("too few to say: {usable} runs with {name}, and {} are needed", trend::FEWEST);
        return Reading::unknown(id, few);
    };
    let (worse, chance) = match expected.better {
        Better::Higher => (trend.is_falling(), trend.falls),
        Better::Lower => (trend.is_rising(), trend.rises),
    };
    let change = trend.relative.map_or(String::new(), |r| format!(", {:+.1}% in all", 100.0 * r));
    let figures = format!("{} a run over {} runs{change} (p = {chance:.4})", shown(trend.slope), trend.points);
    let mut reading = if worse {
        Reading::new(id, metric.level.status(), format!("{name} gets worse: {figures}"))
    } else {
        Reading::ok(id, format!("{name} does not get worse: {figures}"))
    };
    reading.measure = Some(number_of(trend.slope));
    if reading.status == Status::Ok {
        return reading;
    }
    let newest = values.iter().rev().take(5);
    reading.evidence(newest.map(|(value, run)| format!("{name} = {}: {}", shown(*value), told(run, stack.look.now))))
}
