//! The metrics of a version: those of the logged model that it was made from, and those of the run.

use crate::domain::artifact_address::ArtifactAddress;
use crate::domain::tracking::{LoggedMetric, LoggedModel, MetricPoint, ModelVersion, Run};
use crate::mlflow::Client;
use crate::mlflow::fault::Reply;

/// Points of a history in a page, when it is looked through for one.
const PAGE: u32 = 25_000;

/// What a version was made from.
#[derive(Debug, Clone, Default)]
pub struct Origin {
    /// The run; `None`: the version names none, or it is gone.
    pub run: Option<Run>,
    /// The logged model (MLflow 3); `None` likewise.
    pub logged: Option<LoggedModel>,
    /// The newest point of each metric: see [`newest`].
    pub metrics: Vec<(String, MetricPoint)>,
}

impl Origin {
    /// The value of a metric.
    pub fn metric(&self, key: &str) -> Option<f64> {
        self.metrics.iter().find(|(name, _)| name == key).map(|(_, point)| point.value)
    }

    /// The names of a metric that was measured on several datasets, as a condition writes them.
    pub fn several(&self, key: &str) -> Option<String> {
        let names = self.metrics.iter().filter(|(name, _)| base(name) == Some(key));
        let names: Vec<String> = names.map(|(name, _)| format!("\"{name}\"")).collect();
        (!names.is_empty()).then(|| names.join(", "))
    }
}

/// A metric's name together with its dataset's: `rmse[val]`.
fn named(metric: &LoggedMetric) -> String {
    if metric.dataset.is_empty() { metric.key.clone() } else { format!("{}[{}]", metric.key, metric.dataset) }
}

/// The metric of such a name.
fn base(name: &str) -> Option<&str> {
    name.strip_suffix(']')?.split_once('[').map(|(key, _)| key)
}

/// Finds out what a version was made from.
///
/// # Errors
/// Any fault.
pub async fn origin(client: &Client, version: &ModelVersion) -> Reply<Origin> {
    let run = async {
        match version.run_id.as_str() {
            "" => Ok(None),
            id => client.run(id).await,
        }
    };
    let logged = async {
        match ArtifactAddress::parse(&version.source) {
            ArtifactAddress::LoggedModel(id) => client.logged_model(&id).await,
            _ => Ok(None),
        }
    };
    let (run, logged) = tokio::try_join!(run, logged)?;
    let metrics = newest(client, logged.as_ref(), run.as_ref()).await?;
    Ok(Origin { run, logged, metrics })
}

/// The newest point of each metric: the logged model's own where it has one, which says more of it, else the run's. One
/// that was measured on several datasets has the dataset's name beside its own, `rmse[val]`, and stands for itself only
/// then: which of them is meant nobody knows.
///
/// # Errors
/// Any fault.
pub async fn newest(
    client: &Client,
    logged: Option<&LoggedModel>,
    run: Option<&Run>,
) -> Reply<Vec<(String, MetricPoint)>> {
    let mut own: Vec<&LoggedMetric> = Vec::new();
    for metric in logged.into_iter().flat_map(|model| &model.metrics) {
        match own.iter_mut().find(|known| (&known.key, &known.dataset) == (&metric.key, &metric.dataset)) {
            Some(known) if follows(metric, known) => *known = metric,
            Some(_) => {}
            None => own.push(metric),
        }
    }
    let mut metrics: Vec<(String, MetricPoint)> = Vec::new();
    for metric in &own {
        let mut point = metric.point;
        if point.value == 0.0 && was_nan(client, metric).await? {
            point.value = f64::NAN;
        }
        let alone = own.iter().filter(|other| other.key == metric.key).count() == 1;
        metrics.push((if alone { metric.key.clone() } else { named(metric) }, point));
    }
    for (key, point) in run.into_iter().flat_map(|run| &run.metrics) {
        if !own.iter().any(|known| known.key == *key) {
            metrics.push((key.clone(), *point));
        }
    }
    Ok(metrics)
}

/// Whether a point counts instead of another: in one run as MLflow has it, by step and then by time
/// (store/tracking/sqlalchemy_store.py, `_update_latest_metric_if_necessary`); of two runs the later one measured it anew.
fn follows(metric: &LoggedMetric, known: &LoggedMetric) -> bool {
    let (new, old) = (&metric.point, &known.point);
    if metric.run_id == known.run_id {
        (new.step, new.timestamp) >= (old.step, old.timestamp)
    } else {
        new.timestamp >= old.timestamp
    }
}

/// MLflow keeps NaN as 0.0, and a logged model's metrics have no column that says so (store/tracking/dbmodels/models.py,
/// `SqlLoggedModelMetric`); the history of the run that measured it has one.
async fn was_nan(client: &Client, metric: &LoggedMetric) -> Reply<bool> {
    if metric.run_id.is_empty() {
        return Ok(false);
    }
    let mut pages = client.metric_history(&metric.run_id, &metric.key, PAGE);
    while let Some(page) = pages.next().await? {
        let same = |p: &MetricPoint| (p.timestamp, p.step) == (metric.point.timestamp, metric.point.step);
        if page.iter().any(|p| same(p) && p.value.is_nan()) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_point_is_mlflows() {
        let metric = |run: &str, timestamp, step| LoggedMetric {
            key: "rmse".to_owned(),
            run_id: run.to_owned(),
            dataset: "val".to_owned(),
            point: MetricPoint { value: 1.0, timestamp, step },
        };
        assert!(follows(&metric("a", 5, 3), &metric("a", 5, 1)));
        assert!(!follows(&metric("a", 9, 1), &metric("a", 5, 3)));
        assert!(follows(&metric("b", 9, 0), &metric("a", 5, 3)));
        assert_eq!(named(&metric("a", 1, 1)), "rmse[val]");
        assert_eq!((base("rmse[val]"), base("rmse")), (Some("rmse"), None));
    }
}
