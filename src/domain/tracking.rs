//! What a tracking server keeps, as its answers tell it. Times are milliseconds since 1970, as MLflow has them.

/// Which of the two lives of an experiment or a run is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// Those that are not deleted.
    Active,
    /// Those that are.
    Deleted,
    /// Both.
    All,
}

/// Tags, params and the like, in the server's order.
pub type Pairs = Vec<(String, String)>;

/// The value of a key.
pub fn value<'a>(pairs: &'a Pairs, key: &str) -> Option<&'a str> {
    pairs.iter().find(|(k, _)| k == key).map(|(_, value)| value.as_str())
}

/// An experiment.
#[derive(Debug, Clone, PartialEq)]
pub struct Experiment {
    /// Id: digits.
    pub id: String,
    /// Name.
    pub name: String,
    /// Where the artifacts of its runs go.
    pub artifact_location: String,
    /// Whether it is soft-deleted.
    pub deleted: bool,
    /// When it was made.
    pub created: Option<i64>,
    /// When it was changed; runs do not count.
    pub updated: Option<i64>,
    /// Tags.
    pub tags: Pairs,
}

/// What tells an experiment from one of another store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExperimentMark {
    /// Id: digits.
    pub id: String,
    /// Name.
    pub name: String,
    /// When it was made.
    pub created: Option<i64>,
}

/// Experiments of a database that are compared with a server's, the newest.
pub const MOST_MARKS: usize = 1_000;

/// A run with the newest value of each of its metrics.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// Id.
    pub id: String,
    /// Name; empty on servers before 2.0.
    pub name: String,
    /// Its experiment.
    pub experiment_id: String,
    /// `RUNNING`, `SCHEDULED`, `FINISHED`, `FAILED` or `KILLED`.
    pub status: String,
    /// When it began.
    pub start: Option<i64>,
    /// When it ended.
    pub end: Option<i64>,
    /// Whether it is soft-deleted.
    pub deleted: bool,
    /// Where its artifacts are.
    pub artifact_uri: String,
    /// The newest point of each metric.
    pub metrics: Vec<(String, MetricPoint)>,
    /// Params.
    pub params: Pairs,
    /// Tags.
    pub tags: Pairs,
}

/// One value of a metric.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MetricPoint {
    /// The value; may be NaN or infinite.
    pub value: f64,
    /// When it was measured.
    pub timestamp: i64,
    /// Step; may be negative.
    pub step: i64,
}

/// The tag of prompts, which MLflow keeps among the models.
pub const PROMPT: &str = "mlflow.prompt.is_prompt";

/// A model in the registry.
#[derive(Debug, Clone, PartialEq)]
pub struct RegisteredModel {
    /// Name.
    pub name: String,
    /// When it was made.
    pub created: Option<i64>,
    /// When it was changed.
    pub updated: Option<i64>,
    /// Its description.
    pub description: String,
    /// The newest version in each stage.
    pub latest_versions: Vec<ModelVersion>,
    /// Alias and version.
    pub aliases: Pairs,
    /// Tags.
    pub tags: Pairs,
}

/// A version of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelVersion {
    /// The model.
    pub name: String,
    /// Number.
    pub version: u64,
    /// `READY`, `PENDING_REGISTRATION` or `FAILED_REGISTRATION`.
    pub status: String,
    /// What went wrong.
    pub status_message: String,
    /// `None`, `Staging`, `Production` or `Archived`.
    pub stage: String,
    /// Where it was made from: an artifact address, `models:/m-...`, or another version.
    pub source: String,
    /// The run that made it; empty where none did.
    pub run_id: String,
    /// When it was made.
    pub created: Option<i64>,
    /// When it was changed: its stage, its description.
    pub updated: Option<i64>,
    /// Its description.
    pub description: String,
    /// Aliases that point to it; MLflow's searches leave them empty.
    pub aliases: Vec<String>,
    /// Tags.
    pub tags: Pairs,
}

/// A logged model (MLflow 3).
#[derive(Debug, Clone, PartialEq)]
pub struct LoggedModel {
    /// Id: `m-` and hex digits.
    pub id: String,
    /// Its experiment.
    pub experiment_id: String,
    /// Name.
    pub name: String,
    /// `LOGGED_MODEL_READY` and the like.
    pub status: String,
    /// Where its files are.
    pub artifact_uri: String,
    /// The run that made it; empty where none did.
    pub source_run_id: String,
    /// When it was made.
    pub created: Option<i64>,
    /// When it was changed.
    pub updated: Option<i64>,
    /// The metrics that it was judged by. A metric that was measured more than once stands there more than once.
    pub metrics: Vec<LoggedMetric>,
    /// Params.
    pub params: Pairs,
    /// Tags.
    pub tags: Pairs,
}

/// A metric of a logged model.
#[derive(Debug, Clone, PartialEq)]
pub struct LoggedMetric {
    /// Its name.
    pub key: String,
    /// The run that measured it.
    pub run_id: String,
    /// The dataset that it was measured on; empty where none was named.
    pub dataset: String,
    /// The value; MLflow keeps NaN as 0.0 here.
    pub point: MetricPoint,
}

/// A file or a folder among artifacts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArtifactFile {
    /// Path: from the run's root in a run's list, the bare name in the proxy's.
    pub path: String,
    /// Whether it is a folder.
    pub folder: bool,
    /// Size in bytes; `None` for a folder.
    pub size: Option<u64>,
}

/// What a server says of itself (later releases of MLflow 3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerInfo {
    /// `SqlStore` or `FileStore`, where it says so.
    pub store_type: Option<String>,
    /// Whether it has workspaces.
    pub workspaces: bool,
}
