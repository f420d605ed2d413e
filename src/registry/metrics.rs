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
    /// The newest point of each metric: the logged model's own where it has one, which says more of it than the run's.
    pub metrics: Vec<(String, MetricPoint)>,
}

impl Origin {
    /// The value of a metric.
    pub fn metric(&self, key: &str) -> Option<f64> {
        self.metrics.iter().find(|(name, _)| name == key).map(|(_, point)| point.value)
    }
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

/// The newest point of each metric: the logged model's own where it has one, else the run's.
///
/// # Errors
/// Any fault.
pub async fn newest(
    client: &Client,
    logged: Option<&LoggedModel>,
    run: Option<&Run>,
) -> Reply<Vec<(String, MetricPoint)>> {
    let mut metrics: Vec<(String, MetricPoint)> = Vec::new();
    for own in logged.into_iter().flat_map(|model| &model.metrics) {
        let mut point = own.point;
        if point.value == 0.0 && was_nan(client, own).await? {
            point.value = f64::NAN;
        }
        match metrics.iter_mut().find(|(key, _)| *key == own.key) {
            Some((_, known)) if known.timestamp > point.timestamp => {}
            Some((_, known)) => *known = point,
            None => metrics.push((own.key.clone(), point)),
        }
    }
    for (key, point) in run.into_iter().flat_map(|run| &run.metrics) {
        if !metrics.iter().any(|(known, _)| known == key) {
            metrics.push((key.clone(), *point));
        }
    }
    Ok(metrics)
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
