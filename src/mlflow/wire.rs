//! What travels: MLflow's protocol buffers as JSON. Fields may be missing or null, numbers may be text (int64, NaN), and
//! what is not known is passed over.

use serde::de::{Deserializer, Error, Visitor};
use serde::{Deserialize, de};

use crate::domain::tracking as told;

/// A scalar in whatever form it came.
enum Scalar {
    None,
    Text(String),
    Whole(i64),
    Real(f64),
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl Visitor<'_> for Any {
            type Value = Scalar;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("text, a number or null")
            }
            fn visit_unit<E: Error>(self) -> Result<Scalar, E> {
                Ok(Scalar::None)
            }
            fn visit_str<E: Error>(self, v: &str) -> Result<Scalar, E> {
                Ok(Scalar::Text(v.to_owned()))
            }
            fn visit_i64<E: Error>(self, v: i64) -> Result<Scalar, E> {
                Ok(Scalar::Whole(v))
            }
            fn visit_u64<E: Error>(self, v: u64) -> Result<Scalar, E> {
                Ok(i64::try_from(v).map_or(Scalar::Real(v as f64), Scalar::Whole))
            }
            fn visit_f64<E: Error>(self, v: f64) -> Result<Scalar, E> {
                Ok(Scalar::Real(v))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(match Scalar::deserialize(deserializer)? {
        Scalar::None => String::new(),
        Scalar::Text(text) => text,
        Scalar::Whole(number) => number.to_string(),
        Scalar::Real(number) => number.to_string(),
    })
}

fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    let wrong = |what: &dyn std::fmt::Display| de::Error::custom(format!("{what} is not a whole number"));
    match Scalar::deserialize(deserializer)? {
        Scalar::None => Ok(None),
        Scalar::Whole(number) => Ok(Some(number)),
        Scalar::Text(text) if text.is_empty() => Ok(None),
        Scalar::Text(text) => text.parse().map(Some).map_err(|_| wrong(&text)),
        // A proxy in another language may have written 1.7e12.
        Scalar::Real(number) if number.fract() == 0.0 && number.abs() < 9e15 => Ok(Some(number as i64)),
        Scalar::Real(number) => Err(wrong(&number)),
    }
}

fn real<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    match Scalar::deserialize(deserializer)? {
        Scalar::None => Ok(0.0),
        Scalar::Whole(number) => Ok(number as f64),
        Scalar::Real(number) => Ok(number),
        Scalar::Text(text) => text.parse().map_err(|_| de::Error::custom(format!("{text} is not a number"))),
    }
}

fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// Structs of the wire: every field may be missing or null.
macro_rules! wire {
    ($($name:ident { $($field:ident: $type:ty = $reader:literal,)* })*) => {
        $(#[derive(Deserialize, Default)]
        pub(super) struct $name {
            $(#[serde(default, deserialize_with = $reader)] pub(super) $field: $type,)*
        })*
    };
}

wire! {
    Pair { key: String = "text", value: String = "text", }
    Alias { alias: String = "text", version: String = "text", }
    Metric {
        key: String = "text", value: f64 = "real", timestamp: Option<i64> = "whole", step: Option<i64> = "whole",
        run_id: String = "text", dataset_name: String = "text",
    }
    Experiment {
        experiment_id: String = "text", name: String = "text", artifact_location: String = "text",
        lifecycle_stage: String = "text", creation_time: Option<i64> = "whole",
        last_update_time: Option<i64> = "whole", tags: Vec<Pair> = "or_default",
    }
    RunInfo {
        run_id: String = "text", run_name: String = "text", experiment_id: String = "text", status: String = "text",
        start_time: Option<i64> = "whole", end_time: Option<i64> = "whole", lifecycle_stage: String = "text",
        artifact_uri: String = "text",
    }
    RunData { metrics: Vec<Metric> = "or_default", params: Vec<Pair> = "or_default", tags: Vec<Pair> = "or_default", }
    Run { info: RunInfo = "or_default", data: RunData = "or_default", }
    ModelVersion {
        name: String = "text", version: Option<i64> = "whole", status: String = "text",
        status_message: String = "text", current_stage: String = "text", source: String = "text",
        run_id: String = "text", creation_timestamp: Option<i64> = "whole",
        last_updated_timestamp: Option<i64> = "whole", description: String = "text",
        aliases: Vec<String> = "or_default", tags: Vec<Pair> = "or_default",
    }
    RegisteredModel {
        name: String = "text", creation_timestamp: Option<i64> = "whole",
        last_updated_timestamp: Option<i64> = "whole", description: String = "text",
        latest_versions: Vec<ModelVersion> = "or_default", aliases: Vec<Alias> = "or_default",
        tags: Vec<Pair> = "or_default",
    }
    LoggedModelInfo {
        model_id: String = "text", experiment_id: String = "text", name: String = "text", status: String = "text",
        artifact_uri: String = "text", source_run_id: String = "text", creation_timestamp_ms: Option<i64> = "whole",
        last_updated_timestamp_ms: Option<i64> = "whole", tags: Vec<Pair> = "or_default",
    }
    LoggedModelData { metrics: Vec<Metric> = "or_default", params: Vec<Pair> = "or_default", }
    LoggedModel { info: LoggedModelInfo = "or_default", data: LoggedModelData = "or_default", }
    FileInfo { path: String = "text", is_dir: bool = "or_default", file_size: Option<i64> = "whole", }
    ServerInfo { store_type: String = "text", workspaces_enabled: bool = "or_default", }

    Trace { request_time: String = "text", timestamp_ms: Option<i64> = "whole", }
    Traces { traces: Vec<Trace> = "or_default", }
    GotExperiment { experiment: Experiment = "or_default", }
    MadeExperiment { experiment_id: String = "text", }
    GotRun { run: Run = "or_default", }
    GotVersion { model_version: ModelVersion = "or_default", }
    GotModel { registered_model: RegisteredModel = "or_default", }
    GotVersions { model_versions: Vec<ModelVersion> = "or_default", }
    GotLoggedModel { model: LoggedModel = "or_default", }
    Location { artifact_uri: String = "text", }
    GotFiles { files: Vec<FileInfo> = "or_default", }
    Nothing {}

    Experiments { experiments: Vec<Experiment> = "or_default", next_page_token: String = "text", }
    Runs { runs: Vec<Run> = "or_default", next_page_token: String = "text", }
    Metrics { metrics: Vec<Metric> = "or_default", next_page_token: String = "text", }
    Models { registered_models: Vec<RegisteredModel> = "or_default", next_page_token: String = "text", }
    Versions { model_versions: Vec<ModelVersion> = "or_default", next_page_token: String = "text", }
    LoggedModels { models: Vec<LoggedModel> = "or_default", next_page_token: String = "text", }
    Files { files: Vec<FileInfo> = "or_default", next_page_token: String = "text", }
}

impl Trace {
    /// When it began, in milliseconds since 1970.
    pub(super) fn begun(&self) -> Option<i64> {
        self.timestamp_ms.or_else(|| Some(self.request_time.parse::<jiff::Timestamp>().ok()?.as_millisecond()))
    }
}

fn pairs(pairs: Vec<Pair>) -> told::Pairs {
    pairs.into_iter().map(|p| (p.key, p.value)).collect()
}

fn points(metrics: Vec<Metric>) -> Vec<(String, told::MetricPoint)> {
    metrics.into_iter().map(|mut m| (std::mem::take(&mut m.key), m.into())).collect()
}

/// Converts each.
pub(super) fn all<T, U: From<T>>(wire: Vec<T>) -> Vec<U> {
    wire.into_iter().map(U::from).collect()
}

impl From<Metric> for told::MetricPoint {
    fn from(m: Metric) -> Self {
        told::MetricPoint { value: m.value, timestamp: m.timestamp.unwrap_or(0), step: m.step.unwrap_or(0) }
    }
}

impl From<Metric> for told::LoggedMetric {
    fn from(mut m: Metric) -> Self {
        let (key, run_id) = (std::mem::take(&mut m.key), std::mem::take(&mut m.run_id));
        told::LoggedMetric { key, run_id, dataset: std::mem::take(&mut m.dataset_name), point: m.into() }
    }
}

impl From<Experiment> for told::Experiment {
    fn from(e: Experiment) -> Self {
        told::Experiment {
            id: e.experiment_id,
            name: e.name,
            artifact_location: e.artifact_location,
            deleted: e.lifecycle_stage == "deleted",
            created: e.creation_time,
            updated: e.last_update_time,
            tags: pairs(e.tags),
        }
    }
}

impl From<Run> for told::Run {
    fn from(Run { info, data }: Run) -> Self {
        told::Run {
            id: info.run_id,
            name: info.run_name,
            experiment_id: info.experiment_id,
            status: info.status,
            start: info.start_time,
            end: info.end_time,
            deleted: info.lifecycle_stage == "deleted",
            artifact_uri: info.artifact_uri,
            metrics: points(data.metrics),
            params: pairs(data.params),
            tags: pairs(data.tags),
        }
    }
}

impl From<ModelVersion> for told::ModelVersion {
    fn from(v: ModelVersion) -> Self {
        told::ModelVersion {
            name: v.name,
            version: v.version.and_then(|n| u64::try_from(n).ok()).unwrap_or(0),
            status: v.status,
            status_message: v.status_message,
            stage: v.current_stage,
            source: v.source,
            run_id: v.run_id,
            created: v.creation_timestamp,
            updated: v.last_updated_timestamp,
            description: v.description,
            aliases: v.aliases,
            tags: pairs(v.tags),
        }
    }
}

impl From<RegisteredModel> for told::RegisteredModel {
    fn from(m: RegisteredModel) -> Self {
        told::RegisteredModel {
            name: m.name,
            created: m.creation_timestamp,
            updated: m.last_updated_timestamp,
            description: m.description,
            latest_versions: all(m.latest_versions),
            aliases: m.aliases.into_iter().map(|a| (a.alias, a.version)).collect(),
            tags: pairs(m.tags),
        }
    }
}

impl From<LoggedModel> for told::LoggedModel {
    fn from(LoggedModel { info, data }: LoggedModel) -> Self {
        told::LoggedModel {
            id: info.model_id,
            experiment_id: info.experiment_id,
            name: info.name,
            status: info.status,
            artifact_uri: info.artifact_uri,
            source_run_id: info.source_run_id,
            created: info.creation_timestamp_ms,
            updated: info.last_updated_timestamp_ms,
            metrics: all(data.metrics),
            params: pairs(data.params),
            tags: pairs(info.tags),
        }
    }
}

impl From<FileInfo> for told::ArtifactFile {
    fn from(f: FileInfo) -> Self {
        let size = f.file_size.and_then(|n| u64::try_from(n).ok()).filter(|_| !f.is_dir);
        told::ArtifactFile { path: f.path, folder: f.is_dir, size: if f.is_dir { None } else { size.or(Some(0)) } }
    }
}

impl From<ServerInfo> for told::ServerInfo {
    fn from(i: ServerInfo) -> Self {
        told::ServerInfo { store_type: Some(i.store_type).filter(|t| !t.is_empty()), workspaces: i.workspaces_enabled }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_may_be_missing_null_or_of_another_form() {
        let run: Run = serde_json::from_str(
            r#"{"info": {"run_id": "r", "experiment_id": 7, "start_time": "1700000000000", "end_time": null, "new": [1]},
                "data": {"metrics": [{"key": "a", "value": "NaN", "step": "-3"}, {"key": "b", "value": "-Infinity"},
                                     {"key": "c", "value": 1, "timestamp": 1.7e12}, {"key": "d", "value": 0.1}],
                         "params": null}, "outputs": {}}"#,
        )
        .unwrap();
        let run = told::Run::from(run);
        assert_eq!((run.experiment_id.as_str(), run.start, run.end), ("7", Some(1_700_000_000_000), None));
        let values: Vec<f64> = run.metrics.iter().map(|(_, p)| p.value).collect();
        assert!(values[0].is_nan());
        assert_eq!(values[1..], [f64::NEG_INFINITY, 1.0, 0.1]);
        assert_eq!((run.metrics[0].1.step, run.metrics[2].1.timestamp), (-3, 1_700_000_000_000));
        assert!(run.params.is_empty() && run.tags.is_empty());
        assert!(serde_json::from_str::<Metric>(r#"{"step": "soon"}"#).is_err());
        assert!(serde_json::from_str::<Metric>(r#"{"value": "high"}"#).is_err());
    }
}
