//! The file `MLmodel` of a version or a logged model, read by the server's own way to its store: no credentials of ours
//! are needed, wherever the files are.

use super::location;
use crate::domain::artifact_address::ArtifactAddress;
use crate::domain::signature::{FILE, MOST, MlModel};
use crate::domain::tracking::ModelVersion;
use crate::mlflow::fault::Trouble;
use crate::mlflow::{Client, Fault};

/// What a version says of itself.
///
/// # Errors
/// A sentence: it is not there, cannot be read, or is not what MLflow writes.
pub async fn mlmodel(client: &Client, version: &ModelVersion) -> Result<MlModel, String> {
    let bytes = match ArtifactAddress::parse(&version.source) {
        ArtifactAddress::Run { id, path } => of_run(client, version, &id, &path).await?,
        ArtifactAddress::Placeholder => return Err("it has no files".to_owned()),
        _ => client.version_file(&version.name, version.version, FILE, MOST).await.map_err(|t| told(&t))?,
    };
    MlModel::parse(&bytes)
}

/// What a logged model says of itself.
///
/// # Errors
/// As [`mlmodel`].
pub async fn of_logged_model(client: &Client, id: &str) -> Result<MlModel, String> {
    match client.logged_model_file(id, FILE, MOST).await {
        Ok(Some(bytes)) => MlModel::parse(&bytes),
        Ok(None) => Err(absent()),
        Err(trouble) => Err(told(&trouble)),
    }
}

/// The server does not read `runs:/` for us where its artifacts lie behind its proxy, but it reads the run's file.
async fn of_run(client: &Client, version: &ModelVersion, run: &str, path: &str) -> Result<Vec<u8>, String> {
    let path = if path.is_empty() { FILE.to_owned() } else { format!("{path}/{FILE}") };
    let trouble = match client.run_file(run, &path, MOST).await {
        Ok(bytes) => return Ok(bytes),
        Err(trouble) => trouble,
    };
    // MLflow 3 keeps a run's model apart from the run's other files.
    let logged = location::logged_model(client, version).await.map_err(|t| told(&t))?;
    let Some(model) = logged else { return Err(told(&trouble)) };
    match client.logged_model_file(&model.id, FILE, MOST).await {
        Ok(Some(bytes)) => Ok(bytes),
        Ok(None) => Err(absent()),
        Err(trouble) => Err(told(&trouble)),
    }
}

/// That there is none.
pub(super) fn absent() -> String {
    format!("there is no {FILE} at its place")
}

/// Why it was not read.
fn told(trouble: &Trouble) -> String {
    match &trouble.fault {
        _ if trouble.is_absent() => absent(),
        // Releases up to 3.4 at least do not tell one from the other.
        Fault::Server(500) => {
            format!("there is no {FILE} at its place, or the server cannot read its store: {}", trouble.failure)
        }
        _ => format!("{FILE} could not be read: {}", trouble.failure),
    }
}
