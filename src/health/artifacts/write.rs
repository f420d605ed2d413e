//! With `--deep`: a tag and a file are written, read back, and the file is deleted. All of it happens in one experiment
//! that stays, so that a check every hour adds no rows.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::{Artifacts, critical};
use crate::artifact::{PROBE_NAME, is_stale};
use crate::domain::artifact_address::ArtifactAddress;
use crate::domain::failure::{Failure, Outcome};
use crate::domain::health::{Limits, Reading, Unit};
use crate::domain::tracking::{Experiment, value};
use crate::mlflow::{Client, Fault};

/// The one experiment that checks write to.
pub const EXPERIMENT: &str = "mlops-probe";
/// What marks things on the server as this program's.
const MARKER: &str = "mlops.marker";
const TAG: &str = "mlops.probe";
/// For removing a probe when something else has failed.
const AFTERWARDS: Duration = Duration::from_secs(5);

/// The experiment, made once; brought back when somebody has deleted it.
async fn experiment(server: &Client) -> Outcome<(Experiment, &'static str)> {
    let mut how = "";
    if server.experiment_by_name(EXPERIMENT).await?.is_none() {
        match server.create_experiment(EXPERIMENT).await {
            Ok(id) => {
                server.set_experiment_tag(&id, MARKER, "health").await?;
                how = " (made just now)";
            }
            // Another check was faster.
            Err(trouble) if matches!(&trouble.fault, Fault::Api { code } if code == "RESOURCE_ALREADY_EXISTS") => {}
            Err(trouble) => return Err(trouble.failure.on("making the experiment mlops-probe")),
        }
    }
    let absent = || Failure::target(format!("the experiment {EXPERIMENT} was made and is not there"));
    let found = server.experiment_by_name(EXPERIMENT).await?.ok_or_else(absent)?;
    if found.deleted {
        server.restore_experiment(&found.id).await.map_err(|t| t.failure.on("restoring the experiment mlops-probe"))?;
        how = " (was deleted and is restored)";
    }
    Ok((found, how))
}

/// `server.write`. `None`: no tracking server is known.
pub async fn write_tag(place: &Artifacts, id: &str, limits: Limits, patience: Duration) -> Option<Reading> {
    const ID: &str = "server.write";
    let server = place.server.as_ref()?;
    let bounded = async {
        let server = server.within(patience);
        let (experiment, how) = experiment(&server).await?;
        let begun = Instant::now();
        server.set_experiment_tag(&experiment.id, TAG, id).await?;
        let back = server.experiment(&experiment.id).await?;
        let took = begun.elapsed();
        match back.as_ref().and_then(|e| value(&e.tags, TAG)) {
            Some(found) if found == id => Ok((took, how)),
            // Two runs at once write the same tag, and the last one wins.
            Some(other) if other > id => Ok((took, how)),
            _ => Err(Failure::target(format!("the tag {TAG} was written and is not read back"))
                .hint("does the server read from another database than it writes to?")),
        }
    };
    Some(match within(patience, server, bounded).await {
        Ok((took, how)) => {
            let summary = format!("a tag of {EXPERIMENT}{how} is written and read back");
            Reading::measured(ID, took.as_secs_f64(), Unit::Seconds, limits, summary)
        }
        Err(failure) => critical(ID, failure),
    })
}

/// `artifacts.write`. `None`: the root is not known and the server passes no artifacts on.
pub async fn write(place: &Artifacts, id: &str, limits: Limits, patience: Duration) -> Option<Reading> {
    const ID: &str = "artifacts.write";
    let store = match place.store() {
        Ok(store) => store,
        Err(failure) => return Some(critical(ID, failure)),
    };
    let outcome = match (store, &place.server) {
        (Some(store), _) => store.probe(id, patience).await,
        (None, Some(server)) if place.is_proxied() => {
            match within(patience, server, through_the_proxy(server, id, patience)).await {
                Ok(None) => return None,
                Ok(Some(took)) => Ok(took),
                Err(failure) => Err(failure),
            }
        }
        (None, _) => return None,
    };
    Some(match outcome {
        Ok(took) => {
            let by = if place.is_proxied() { " through the tracking server" } else { "" };
            let summary = format!("a file is written, read back and deleted{by}");
            Reading::measured(ID, took.as_secs_f64(), Unit::Seconds, limits, summary)
        }
        Err(failure) => critical(ID, failure),
    })
}

/// All calls together within the patience.
async fn within<T>(patience: Duration, server: &Client, work: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    match tokio::time::timeout(patience + AFTERWARDS, work).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Failure::unreachable(format!("{}: not done in {patience:?}", server.connection().address))),
    }
}

/// `None`: artifacts of this server do not go through it.
async fn through_the_proxy(server: &Client, id: &str, patience: Duration) -> Outcome<Option<Duration>> {
    let end = Instant::now() + patience;
    let server = server.within(patience);
    let (experiment, _) = experiment(&server).await?;
    let ArtifactAddress::Proxy { host: None, path: folder } = ArtifactAddress::parse(&experiment.artifact_location)
    else {
        return Ok(None);
    };
    let name = format!("{PROBE_NAME}{id}");
    // In a folder of its own, which goes as a whole: MLflow 2.9.2 deletes folders only (store/artifact/
    // local_artifact_repo.py), and answers 500 to a file.
    let path = format!("{folder}/{name}");
    let content = format!("written by `mlops health --deep`, may be deleted: {id}\n").repeat(64).into_bytes();
    sweep(&server, &folder).await;
    let begun = Instant::now();
    let seen = put_and_get(&server, &format!("{path}/file"), &content, end).await;
    let took = begun.elapsed();
    // What is written may be there even where its answer was not waited for. A proxy before an object store deletes
    // without a word what is not there; over a folder it says that it is not, which is no finding after another one.
    let removed = server.within(AFTERWARDS).delete(&path).await;
    seen?;
    removed.map_err(|t| t.failure.on(format_args!("removing {path}")))?;
    let left = server.within(AFTERWARDS).proxied(&folder).await?;
    if left.iter().any(|f| f.path == name) {
        return Err(Failure::target(format!("{path} was deleted and is still there")));
    }
    Ok(Some(took))
}

async fn put_and_get(server: &Client, path: &str, content: &[u8], end: Instant) -> Outcome<()> {
    let left = || end.saturating_duration_since(Instant::now());
    server.upload(path, content.to_vec(), left()).await.map_err(|t| t.failure.on("writing"))?;
    let mut download = server.within(left()).download(path).await.map_err(|t| t.failure.on("reading back"))?;
    let mut back = Vec::new();
    while let Some(piece) = download.chunk().await.map_err(|t| t.failure.on("reading back"))? {
        back.extend(piece);
        if back.len() > content.len() {
            break;
        }
    }
    if back != content {
        return Err(Failure::target(format!("{path}: what was written is read back otherwise")));
    }
    Ok(())
}

/// Removes what killed runs left. Not being able to is no finding of its own.
async fn sweep(server: &Client, folder: &str) {
    let now = Timestamp::now();
    for file in server.proxied(folder).await.unwrap_or_default().into_iter().filter(|f| is_stale(&f.path, now)).take(20)
    {
        let _ = server.delete(&format!("{folder}/{}", file.path)).await;
    }
}
