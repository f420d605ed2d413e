//! The files of a version or a logged model: listed by the server, which reaches its own stores, else from here.

use tokio::task::JoinSet;

use super::location;
use super::metrics::Origin;
use crate::artifact::files::Met;
use crate::backup::place::Ways;
use crate::domain::artifact_address::ArtifactAddress;
use crate::domain::tracking::{ArtifactFile, ModelVersion};
use crate::mlflow::Client;
use crate::mlflow::fault::Reply;

/// Files that are named; beyond them only their bytes are counted.
const NAMED: usize = 10_000;
/// Folders that the server is asked for.
const FOLDERS: usize = 1_000;
/// Questions at a time: a tracking server often has as many threads.
const AT_ONCE: usize = 4;

/// How the files of a model are reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// As those of a logged model.
    Logged(String),
    /// Among the artifacts of a run.
    Run {
        /// The run.
        id: String,
        /// Path from its root.
        path: String,
    },
    /// Through the server's proxy.
    Proxy(String),
    /// Without the server.
    Own(ArtifactAddress),
}

/// The files below a place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Files {
    /// Path and bytes, by path.
    pub files: Vec<(String, u64)>,
    /// How many there are.
    pub count: u64,
    /// Their bytes together.
    pub bytes: u64,
    /// Whether all of them were seen.
    pub whole: bool,
}

impl Files {
    fn add(&mut self, path: String, bytes: u64) {
        self.count += 1;
        self.bytes = self.bytes.saturating_add(bytes);
        if self.files.len() < NAMED {
            self.files.push((path, bytes));
        }
    }
}

/// How a version's files are reached, and where they are; `None`: what its source names is not there any more.
///
/// # Errors
/// Any fault.
pub async fn way(client: &Client, version: &ModelVersion, origin: &Origin) -> Reply<Option<(Way, ArtifactAddress)>> {
    let Some(place) = location::resolve(client, version).await? else { return Ok(None) };
    let way = match (ArtifactAddress::parse(&version.source), &origin.logged, &origin.run) {
        (ArtifactAddress::LoggedModel(_), Some(model), _) => Way::Logged(model.id.clone()),
        (ArtifactAddress::Run { id, path }, ..) => {
            // MLflow 3 keeps a run's model apart from the run's other files.
            let there = client.run_artifacts(&id, &path).next().await?.is_some();
            if !there && let Some(model) = location::logged_model(client, version).await? {
                return Ok(Some((Way::Logged(model.id), ArtifactAddress::parse(&model.artifact_uri))));
            }
            Way::Run { id, path }
        }
        (_, _, Some(run)) => match below(&ArtifactAddress::parse(&run.artifact_uri), &place) {
            Some(path) => Way::Run { id: run.id.clone(), path },
            None => direct(client, &place),
        },
        _ => direct(client, &place),
    };
    Ok(Some((way, place)))
}

/// The way to a place that is no run's and no logged model's.
pub fn direct(client: &Client, place: &ArtifactAddress) -> Way {
    let own = &client.connection().address.host;
    match place {
        ArtifactAddress::Proxy { host, path }
            if host.as_ref().is_none_or(|h| h.split(':').next() == Some(own.as_str())) =>
        {
            Way::Proxy(path.clone())
        }
        other => Way::Own(other.clone()),
    }
}

/// The path of a place from another that it lies at or below.
pub fn below(root: &ArtifactAddress, place: &ArtifactAddress) -> Option<String> {
    let (root, place) = (root.to_string(), place.to_string());
    let rest = place.strip_prefix(root.trim_end_matches('/'))?;
    (rest.is_empty() || rest.starts_with('/')).then(|| rest.trim_matches('/').to_owned())
}

/// Every file of a way that the server serves; `None`: it does not serve this one.
///
/// # Errors
/// Any fault.
pub async fn listed(client: &Client, way: &Way) -> Reply<Option<Files>> {
    if matches!(way, Way::Own(_)) {
        return Ok(None);
    }
    let mut found = Files { whole: true, ..Files::default() };
    let (mut open, mut asked, mut tasks) = (vec![String::new()], 0, JoinSet::new());
    loop {
        while tasks.len() < AT_ONCE
            && let Some(folder) = open.pop()
        {
            asked += 1;
            let (client, way) = (client.clone(), way.clone());
            tasks.spawn(async move { folder_of(&client, &way, &folder).await });
        }
        let Some(Ok(files)) = tasks.join_next().await else { break };
        for file in files? {
            match file.folder {
                true if asked + open.len() < FOLDERS => open.push(file.path),
                true => found.whole = false,
                false => found.add(file.path, file.size.unwrap_or(0)),
            }
        }
    }
    found.files.sort();
    Ok(Some(found))
}

/// What is in a folder, by paths from the way's beginning.
async fn folder_of(client: &Client, way: &Way, folder: &str) -> Reply<Vec<ArtifactFile>> {
    let join = |base: &str, path: &str| match (base, path) {
        ("", path) => path.to_owned(),
        (base, "") => base.to_owned(),
        (base, path) => format!("{base}/{path}"),
    };
    match way {
        Way::Logged(id) => Ok(client.logged_model_artifacts(id, folder).await?.unwrap_or_default()),
        Way::Run { id, path } => {
            let (mut found, mut pages) = (Vec::new(), client.run_artifacts(id, &join(path, folder)));
            while let Some(page) = pages.next().await? {
                found.extend(page.into_iter().map(|file| {
                    let own = file.path.strip_prefix(path.as_str()).map(|p| p.trim_start_matches('/').to_owned());
                    ArtifactFile { path: own.unwrap_or(file.path), ..file }
                }));
            }
            Ok(found)
        }
        Way::Proxy(path) => {
            let files = client.proxied(&join(path, folder)).await?;
            Ok(files.into_iter().map(|file| ArtifactFile { path: join(folder, &file.path), ..file }).collect())
        }
        Way::Own(_) => Ok(Vec::new()),
    }
}

/// Every file below a place that is reached from here.
///
/// # Errors
/// A sentence: why it is not.
pub fn from_here(ways: &Ways, place: &ArtifactAddress) -> Result<Files, String> {
    let files = ways.files(place)?;
    let mut found = Files { whole: true, ..Files::default() };
    let walked = files.walk("", &mut |met| {
        match met {
            Met::File(entry) => found.add(entry.path, entry.bytes),
            Met::Unreadable { .. } => found.whole = false,
        }
        Ok(())
    });
    walked.map_err(|failure| failure.message)?;
    found.files.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_below_a_root() {
        for (root, place, wanted) in [
            ("mlflow-artifacts:/1/r/artifacts", "mlflow-artifacts:/1/r/artifacts/model", Some("model")),
            ("/srv/1/r/artifacts/", "file:///srv/1/r/artifacts/a/b", Some("a/b")),
            ("s3://b/1/r", "s3://b/1/r", Some("")),
            ("s3://b/1/r", "s3://b/1/run", None),
            ("s3://b/1/r", "mlflow-artifacts:/1/r/m", None),
        ] {
            let found = below(&ArtifactAddress::parse(root), &ArtifactAddress::parse(place));
            assert_eq!(found.as_deref(), wanted, "{root} {place}");
        }
    }
}
