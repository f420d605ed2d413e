//! Where the files of a version are.

use crate::domain::artifact_address::ArtifactAddress;
use crate::domain::tracking::{LoggedModel, ModelVersion};
use crate::mlflow::Client;
use crate::mlflow::fault::Reply;

/// The place that a version's source means; `None`: what it names is not there any more.
///
/// # Errors
/// Any fault.
pub async fn resolve(server: &Client, version: &ModelVersion) -> Reply<Option<ArtifactAddress>> {
    let mut address = ArtifactAddress::parse(&version.source);
    if matches!(address, ArtifactAddress::LoggedModel(_) | ArtifactAddress::Version { .. }) {
        let Some(location) = server.model_version_location(&version.name, version.version).await? else {
            return Ok(None);
        };
        address = ArtifactAddress::parse(&location);
    }
    match address {
        ArtifactAddress::LoggedModel(id) => {
            Ok(server.logged_model(&id).await?.map(|m| ArtifactAddress::parse(&m.artifact_uri)))
        }
        ArtifactAddress::Run { id, path } => {
            Ok(server.run(&id).await?.map(|r| ArtifactAddress::parse(&r.artifact_uri).join(&path)))
        }
        other => Ok(Some(other)),
    }
}

/// The logged model that a source `runs:/id/name` means on MLflow 3 (store/artifact/runs_artifact_repo.py).
///
/// # Errors
/// Any fault.
pub async fn logged_model(server: &Client, version: &ModelVersion) -> Reply<Option<LoggedModel>> {
    let ArtifactAddress::Run { id, path } = ArtifactAddress::parse(&version.source) else { return Ok(None) };
    let quotable = |text: &str| !text.contains(['\'', '"', '\\']);
    let Some(run) = server.run(&id).await? else { return Ok(None) };
    if path.is_empty() || !quotable(&path) || !quotable(&id) {
        return Ok(None);
    }
    let filter = format!("source_run_id = '{id}' AND name = '{path}'");
    let Some(mut pages) = server.logged_models(&[run.experiment_id], &filter, 10).await? else { return Ok(None) };
    Ok(pages.next().await?.unwrap_or_default().into_iter().next())
}
