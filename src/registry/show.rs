//! One model, one version or one logged model, with all that it was made of.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::files::{self, Files, Way};
use super::find::{self, Found};
use super::metrics::{self, Origin};
use super::mlmodel;
use crate::artifact::Waiting;
use crate::backup::place::Ways;
use crate::domain::artifact_address::ArtifactAddress;
use crate::domain::failure::Outcome;
use crate::domain::signature::{FILE, MlModel};
use crate::domain::tracking::{Experiment, LoggedModel, MetricPoint, ModelVersion, Pairs, RegisteredModel, Run, value};
use crate::mlflow::Client;
use crate::mlflow::fault::Reply;

/// The tag of a logged model that names the versions made of it, as JSON (MLflow: utils/mlflow_tags.py).
const VERSIONS: &str = "mlflow.modelVersions";
/// The tag of a run that names the run it is a part of.
const PARENT: &str = "mlflow.parentRunId";
/// Versions that a logged model claims and that are looked for.
const CLAIMED: usize = 100;

/// What is looked at.
#[derive(Debug, Clone)]
pub enum Wanted {
    /// What a text names.
    Named(String),
    /// A logged model.
    Logged(String),
}

/// What was found.
#[derive(Debug, Clone)]
pub enum Shown {
    /// A model and its versions, the newest first.
    Model(Box<RegisteredModel>, Vec<ModelVersion>),
    /// A version.
    Version(Box<VersionShown>),
    /// A logged model.
    Logged(Box<LoggedShown>),
}

/// What stands behind a version or a logged model.
#[derive(Debug, Clone)]
pub struct Detail {
    /// The logged model; `None`: there is none, or it is gone.
    pub logged: Option<LoggedModel>,
    /// The run that made it; `None` likewise.
    pub run: Option<Run>,
    /// The run that this run is a part of.
    pub parent: Option<Run>,
    /// The experiment.
    pub experiment: Option<Experiment>,
    /// The newest point of each metric.
    pub metrics: Vec<(String, MetricPoint)>,
    /// What it says of itself; else why that is not known.
    pub mlmodel: Result<MlModel, String>,
    /// Where its files are; `None`: nobody knows any more.
    pub place: Option<ArtifactAddress>,
    /// Its files; else why they are not known.
    pub files: Result<Files, String>,
    /// What could not be found out, and why.
    pub unknown: Vec<String>,
}

/// A version.
#[derive(Debug, Clone)]
pub struct VersionShown {
    /// As the registry has it.
    pub version: ModelVersion,
    /// What stands behind it.
    pub detail: Detail,
    /// Other versions that the same run made, by model and number.
    pub siblings: Vec<(String, u64)>,
}

/// A logged model.
#[derive(Debug, Clone)]
pub struct LoggedShown {
    /// As the server has it.
    pub model: LoggedModel,
    /// What stands behind it.
    pub detail: Detail,
    /// The versions that were made of it.
    pub versions: Vec<ModelVersion>,
    /// Versions that it says were made of it and that are not, or not any more.
    pub gone: Vec<(String, u64)>,
}

impl Detail {
    /// Its params: the logged model's own, else the run's.
    pub fn params(&self) -> &[(String, String)] {
        let own = self.logged.as_ref().map(|m| &m.params).filter(|p| !p.is_empty());
        own.or(self.run.as_ref().map(|r| &r.params)).map_or(&[], Vec::as_slice)
    }
}

/// Looks at it.
///
/// # Errors
/// Source: it is not there. Any fault; interrupted.
pub fn show(ways: &Ways, client: &Client, wanted: &Wanted) -> Outcome<Shown> {
    let waiting = Waiting::new(ways.runtime.handle().clone(), ways.cancel.clone());
    let mut shown = waiting.on(look(client, wanted))??;
    let detail = match &mut shown {
        Shown::Model(..) => return Ok(shown),
        Shown::Version(shown) => &mut shown.detail,
        Shown::Logged(shown) => &mut shown.detail,
    };
    if let (Err(_), Some(place)) = (&detail.files, &detail.place)
        && matches!(files::direct(client, place), Way::Own(_))
    {
        detail.files = files::from_here(ways, place);
    }
    // Releases up to 3.4 at least say of a file that is not there no more than that they failed.
    if let (Err(why), Ok(files)) = (&mut detail.mlmodel, &detail.files)
        && files.whole
        && !files.files.iter().any(|(path, _)| path == FILE)
    {
        *why = mlmodel::absent();
    }
    Ok(shown)
}

async fn look(client: &Client, wanted: &Wanted) -> Outcome<Shown> {
    match wanted {
        Wanted::Logged(id) => {
            let id = find::logged_id(id)?;
            logged(client, id, client.logged_model(id)).await
        }
        Wanted::Named(text) => match find::find(client, text).await? {
            Found::Model(model) => Ok(self::model(client, model).await?),
            Found::Version(version) => Ok(self::version(client, version).await?),
            Found::Logged(model) => {
                let id = model.id.clone();
                logged(client, &id, async { Ok(Some(model)) }).await
            }
        },
    }
}

async fn model(client: &Client, model: RegisteredModel) -> Reply<Shown> {
    let mut versions = Vec::new();
    let mut pages = client.versions_of(&model.name);
    while let Some(page) = pages.next().await? {
        versions.extend(page);
    }
    for version in &mut versions {
        // MLflow's searches leave them empty.
        let own = |(_, number): &&(String, String)| number.parse() == Ok(version.version);
        version.aliases = model.aliases.iter().filter(own).map(|(alias, _)| alias.clone()).collect();
    }
    versions.sort_by_key(|v| std::cmp::Reverse(v.version));
    Ok(Shown::Model(Box::new(model), versions))
}

/// The value, or none and a word on why.
fn told<T: Default>(unknown: &mut Vec<String>, what: &str, reply: Reply<T>) -> T {
    reply.unwrap_or_else(|trouble| {
        unknown.push(format!("{what}: {}", trouble.failure));
        T::default()
    })
}

async fn parent(client: &Client, run: Option<&Run>) -> Reply<Option<Run>> {
    match run.and_then(|run| value(&run.tags, PARENT)) {
        Some(id) => client.run(id).await,
        None => Ok(None),
    }
}

async fn version(client: &Client, version: ModelVersion) -> Reply<Shown> {
    let (origin, mlmodel, siblings) =
        tokio::join!(metrics::origin(client, &version), mlmodel::mlmodel(client, &version), siblings(client, &version));
    let mut unknown = Vec::new();
    let origin = told(&mut unknown, "what it was made from", origin);
    let experiment = async {
        let id = origin.run.as_ref().map(|r| &r.experiment_id).or(origin.logged.as_ref().map(|m| &m.experiment_id));
        match id {
            Some(id) => client.experiment(id).await,
            None => Ok(None),
        }
    };
    let (experiment, parent, (place, files)) =
        tokio::join!(experiment, parent(client, origin.run.as_ref()), files_of(client, &version, &origin));
    let detail = Detail {
        experiment: told(&mut unknown, "the experiment", experiment),
        parent: told(&mut unknown, "the parent run", parent),
        logged: origin.logged,
        run: origin.run,
        metrics: origin.metrics,
        mlmodel,
        place,
        files,
        unknown: Vec::new(),
    };
    let siblings = told(&mut unknown, "other versions of the run", siblings);
    Ok(Shown::Version(Box::new(VersionShown { version, detail: Detail { unknown, ..detail }, siblings })))
}

async fn files_of(
    client: &Client,
    version: &ModelVersion,
    origin: &Origin,
) -> (Option<ArtifactAddress>, Result<Files, String>) {
    let (way, place) = match files::way(client, version, origin).await {
        Ok(Some(found)) => found,
        Ok(None) => return (None, Err("what its source names is not there any more".to_owned())),
        Err(trouble) => return (None, Err(trouble.failure.message)),
    };
    (Some(place), listed(client, &way).await)
}

async fn listed(client: &Client, way: &Way) -> Result<Files, String> {
    match files::listed(client, way).await {
        Ok(files) => files.ok_or_else(|| "the server does not list them".to_owned()),
        Err(trouble) => Err(trouble.failure.message),
    }
}

async fn siblings(client: &Client, version: &ModelVersion) -> Reply<Vec<(String, u64)>> {
    let run = &version.run_id;
    if run.is_empty() || !run.chars().all(|c| c.is_alphanumeric() || c == '-' || c == '_') {
        return Ok(Vec::new());
    }
    let page = client.model_versions(&format!("run_id = '{run}'")).next().await?.unwrap_or_default();
    let other = |v: &ModelVersion| (&v.name, v.version) != (&version.name, version.version);
    Ok(page.into_iter().filter(other).map(|v| (v.name, v.version)).collect())
}

async fn logged(client: &Client, id: &str, model: impl Future<Output = Reply<Option<LoggedModel>>>) -> Outcome<Shown> {
    let way = Way::Logged(id.to_owned());
    let source = format!("source_path = 'models:/{id}'");
    let made = async { client.model_versions(&source).next().await };
    let (model, mlmodel, files, made) =
        tokio::join!(model, mlmodel::of_logged_model(client, id), listed(client, &way), made);
    let model = model?.ok_or_else(|| find::no_logged(id))?;
    let mut unknown = Vec::new();
    let mut versions = told(&mut unknown, "versions made of it", made).unwrap_or_default();
    let run = async {
        match model.source_run_id.as_str() {
            "" => Ok(None),
            run => client.run(run).await,
        }
    };
    let claimed = claims(&model.tags);
    let sought: Vec<&(String, u64)> =
        claimed.iter().filter(|(name, n)| !versions.iter().any(|v| (&v.name, v.version) == (name, *n))).collect();
    let (run, experiment, sought) =
        tokio::join!(run, client.experiment(&model.experiment_id), seek(client, &model, &sought));
    let run = told(&mut unknown, "the run", run);
    let (parent, metrics) =
        tokio::join!(parent(client, run.as_ref()), metrics::newest(client, Some(&model), run.as_ref()));
    let (more, gone) = told(&mut unknown, "versions made of it", sought);
    versions.extend(more);
    versions.sort_by(|a, b| (&a.name, a.version).cmp(&(&b.name, b.version)));
    let detail = Detail {
        logged: None,
        parent: told(&mut unknown, "the parent run", parent),
        experiment: told(&mut unknown, "the experiment", experiment),
        metrics: told(&mut unknown, "the metrics", metrics),
        run,
        mlmodel,
        place: Some(ArtifactAddress::parse(&model.artifact_uri)),
        files,
        unknown: Vec::new(),
    };
    let detail = Detail { logged: Some(model.clone()), unknown, ..detail };
    Ok(Shown::Logged(Box::new(LoggedShown { model, detail, versions, gone })))
}

#[derive(Deserialize)]
struct Claim {
    name: String,
    version: serde_json::Value,
}

/// The versions that a logged model says were made of it. The tag is written by clients as well as by the server, so a
/// version may stand there twice, its number as text or as a number.
fn claims(tags: &Pairs) -> BTreeSet<(String, u64)> {
    let claims: Vec<Claim> = value(tags, VERSIONS).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let number = |value: &serde_json::Value| value.as_u64().or_else(|| value.as_str()?.parse().ok());
    claims.into_iter().filter_map(|c| Some((c.name, number(&c.version)?))).take(CLAIMED).collect()
}

/// Which of these versions are there and were made of that logged model, and which not.
async fn seek(
    client: &Client,
    model: &LoggedModel,
    sought: &[&(String, u64)],
) -> Reply<(Vec<ModelVersion>, Vec<(String, u64)>)> {
    let mut tasks = tokio::task::JoinSet::new();
    for (name, number) in sought.iter().map(|v| (v.0.clone(), v.1)) {
        let client = client.clone();
        tasks.spawn(async move { (client.model_version(&name, number).await, (name, number)) });
    }
    let (mut there, mut gone) = (Vec::new(), Vec::new());
    while let Some(Ok((found, claim))) = tasks.join_next().await {
        // Its source may be an address below the model's own, or name the run. Any other version took the number of one
        // that was deleted with its model.
        let run = |v: &ModelVersion| !v.run_id.is_empty() && v.run_id == model.source_run_id;
        match found? {
            Some(version) if version.source.contains(&model.id) || run(&version) => there.push(version),
            _ => gone.push(claim),
        }
    }
    gone.sort();
    Ok((there, gone))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_of_a_logged_model() {
        let tags = |text: &str| vec![(VERSIONS.to_owned(), text.to_owned())];
        let text = r#"[{"name": "a", "version": "3"}, {"name": "a", "version": 3}, {"name": "b", "version": 1}]"#;
        assert_eq!(claims(&tags(text)), [("a".to_owned(), 3), ("b".to_owned(), 1)].into());
        for text in ["", "{}", "[1]", "[{\"name\": 1}]", "[{\"name\": \"a\", \"version\": \"x\"}]"] {
            assert!(claims(&tags(text)).is_empty(), "{text}");
        }
    }
}
