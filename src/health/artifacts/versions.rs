//! Model versions whose artifacts are gone. A version that points to nothing fails when it is loaded, which may be at
//! the next restart of what serves it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::{Artifacts, unknown};
use crate::artifact::{ArtifactStore, Presence, look_for};
use crate::domain::artifact_address::ArtifactAddress;
use crate::domain::failure::Failure;
use crate::domain::health::{Limits, Reading, Unit};
use crate::domain::tracking::{ModelVersion, PROMPT, value};
use crate::mlflow::Client;
use crate::registry::location;

/// Versions that are looked at, the newest.
pub const MOST: usize = 2000;
/// Versions that the server has to be asked about, two or more questions each, without `--deep`: a cron job asks often.
pub const ASKED: usize = 50;
/// Questions at a time: a tracking server often has as many threads.
const AT_ONCE: usize = 4;
/// Versions that are named.
const NAMED: usize = 20;

const ID: &str = "artifacts.versions";

/// Where a version's artifacts are.
enum Found {
    /// On this machine, maybe.
    Local(PathBuf),
    /// It was looked for.
    Seen(Presence),
    /// Nobody can look from here: a store that is not served, a path of another machine.
    OutOfReach,
}

/// `artifacts.versions`; the server is asked about that many versions at most. `None`: no tracking server is known.
pub async fn versions(place: &Artifacts, limits: Limits, asked: usize, patience: Duration) -> Option<Reading> {
    let server = place.server.as_ref()?;
    let end = Instant::now() + patience;
    let all = match server.within(patience).newest_model_versions(MOST).await {
        Ok(all) => all,
        Err(trouble) => return Some(unknown(ID, trouble.failure)),
    };
    let whole = all.len() < MOST;
    let mut versions: Vec<ModelVersion> = all.into_iter().filter(is_judged).collect();
    let (judged, mut left) = (versions.len(), asked);
    versions.retain(|version| match ArtifactAddress::parse(&version.source) {
        ArtifactAddress::Local(_) => true,
        _ if left == 0 => false,
        _ => {
            left -= 1;
            true
        }
    });
    let cut = !whole || versions.len() < judged;
    let mut found = look_at_all(place, server, &versions, end).await;
    settle_local(place, &mut found, end).await;

    let mut tally = Tally::default();
    for (version, found) in versions.iter().zip(found) {
        tally.add(version, found);
    }
    Some(tally.reading(versions.len(), cut, limits))
}

/// Versions that have artifacts of their own: no prompts (`mlflow.prompt.is_prompt`, source `dummy-source`), none that
/// MLflow has redacted, none that never became ready.
fn is_judged(version: &ModelVersion) -> bool {
    version.status == "READY"
        && version.stage != "Deleted_Internal"
        && value(&version.tags, PROMPT).is_none()
        && ArtifactAddress::parse(&version.source) != ArtifactAddress::Placeholder
}

/// What was found of each version, in their order; what time did not suffice for is unseen.
async fn look_at_all(place: &Artifacts, server: &Client, versions: &[ModelVersion], end: Instant) -> Vec<Found> {
    let late = || Found::Seen(Presence::Unseen("no time was left".to_owned()));
    let mut found: Vec<Found> = versions.iter().map(|_| late()).collect();
    let gate = Arc::new(Semaphore::new(AT_ONCE));
    let mut tasks = JoinSet::new();
    for (position, version) in versions.iter().enumerate() {
        if let ArtifactAddress::Local(path) = ArtifactAddress::parse(&version.source) {
            if let Some(slot) = found.get_mut(position) {
                *slot = Found::Local(path);
            }
            continue;
        }
        let (place, server, gate, version) = (place.clone(), server.clone(), gate.clone(), version.clone());
        tasks.spawn(async move {
            let _turn = gate.acquire().await;
            (position, look_at(&place, &server, &version, end).await)
        });
    }
    let deadline = tokio::time::Instant::from_std(end);
    while let Ok(Some(done)) = tokio::time::timeout_at(deadline, tasks.join_next()).await {
        if let Ok((position, seen)) = done
            && let Some(slot) = found.get_mut(position)
        {
            *slot = seen;
        }
    }
    found
}

async fn look_at(place: &Artifacts, server: &Client, version: &ModelVersion, end: Instant) -> Found {
    let server = server.within(end.saturating_duration_since(Instant::now()));
    let first = match location::resolve(&server, version).await {
        Ok(Some(address)) => seek(place, &server, address, end).await,
        Ok(None) => Found::Seen(Presence::Gone),
        Err(trouble) => unseen(trouble.failure),
    };
    let left = end.saturating_duration_since(Instant::now());
    let missing = match &first {
        Found::Seen(presence) => *presence == Presence::Gone,
        Found::Local(path) => look_for(vec![path.clone()], left).await.is_ok_and(|seen| seen == [Presence::Gone]),
        Found::OutOfReach => false,
    };
    if !missing {
        return first;
    }
    // MLflow 3 keeps a run's model apart from the run's other files.
    match location::logged_model(&server, version).await {
        Ok(Some(model)) => seek(place, &server, ArtifactAddress::parse(&model.artifact_uri), end).await,
        Ok(None) => first,
        Err(trouble) => unseen(trouble.failure),
    }
}

fn unseen(failure: Failure) -> Found {
    Found::Seen(Presence::Unseen(failure.message))
}

/// Looks for something at an address.
async fn seek(place: &Artifacts, server: &Client, address: ArtifactAddress, end: Instant) -> Found {
    let left = end.saturating_duration_since(Instant::now());
    match &address {
        ArtifactAddress::Local(path) => Found::Local(path.clone()),
        ArtifactAddress::Proxy { host, path } => {
            let own = &server.connection().address.host;
            let is_own = host.as_ref().is_none_or(|h| h.split(':').next() == Some(own.as_str()));
            if is_own { proxied(server, path).await } else { Found::OutOfReach }
        }
        ArtifactAddress::S3 { .. } => match ArtifactStore::at(&address, &place.s3) {
            Ok(Some(store)) => match store.holds_something(left).await {
                Ok(presence) => Found::Seen(presence),
                // Without a key nothing can be said of any bucket: that is no fault of the version.
                Err(_) if !place.s3.has_key() => Found::OutOfReach,
                Err(failure) => unseen(failure),
            },
            Ok(None) => Found::OutOfReach,
            // Without a key nothing can be said of any bucket: that is no fault of the version.
            Err(_) => Found::OutOfReach,
        },
        _ => Found::OutOfReach,
    }
}

/// A folder with something in it, or a file: the list of a file is empty, so its folder is asked for its name.
async fn proxied(server: &Client, path: &str) -> Found {
    let list = async |path: &str| server.proxied(path).await.map_err(Failure::from);
    match list(path).await {
        Ok(files) if !files.is_empty() => return Found::Seen(Presence::There),
        Err(failure) => return unseen(failure),
        Ok(_) => {}
    }
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    match list(folder).await {
        Ok(files) if files.iter().any(|f| !f.folder && f.path == name) => Found::Seen(Presence::There),
        Ok(_) => Found::Seen(Presence::Gone),
        Err(failure) => unseen(failure),
    }
}

/// Looks for paths of this machine, all in one go. A path that is not here may be one of the server's machine: it is
/// gone only where the root is known to be here, or where the folder that it lay in still is.
async fn settle_local(place: &Artifacts, found: &mut [Found], end: Instant) {
    let root = match &place.root {
        Some(ArtifactAddress::Local(root)) => Some(root.as_path()),
        _ => None,
    };
    let mut places = Vec::new();
    for (position, found) in found.iter().enumerate() {
        if let Found::Local(path) = found {
            places.push((position, path.clone()));
        }
    }
    if places.is_empty() {
        return;
    }
    let parents = places.iter().map(|(_, path)| path.parent().unwrap_or(Path::new("/")).to_owned());
    let paths: Vec<PathBuf> = places.iter().map(|(_, path)| path.clone()).chain(parents).collect();
    let seen = look_for(paths, end.saturating_duration_since(Instant::now())).await;
    let seen = seen.unwrap_or_else(|failure| vec![Presence::Unseen(failure.message); 2 * places.len()]);
    let (own, parents) = seen.split_at(places.len().min(seen.len()));
    for (((position, path), own), parent) in places.iter().zip(own).zip(parents) {
        let here = root.is_some_and(|root| root.is_absolute() && path.starts_with(root))
            || path.components().count() > 3 && *parent == Presence::There;
        let Some(slot) = found.get_mut(*position) else { continue };
        *slot = match own {
            Presence::Gone if !path.is_absolute() || !here => Found::OutOfReach,
            other => Found::Seen(other.clone()),
        };
    }
}

/// What was found, counted.
#[derive(Default)]
struct Tally {
    there: usize,
    gone: Vec<String>,
    out_of_reach: usize,
    /// Reasons, and how often.
    unseen: BTreeMap<String, usize>,
}

impl Tally {
    fn add(&mut self, version: &ModelVersion, found: Found) {
        match found {
            Found::Seen(Presence::There) => self.there += 1,
            Found::Seen(Presence::Gone) => {
                let place = ArtifactAddress::parse(&version.source);
                let stage = Some(version.stage.as_str()).filter(|s| !s.is_empty() && *s != "None");
                let stage = stage.map(|s| format!(" ({s})")).unwrap_or_default();
                self.gone.push(format!("{} version {}{stage}: {place}", version.name, version.version));
            }
            Found::Seen(Presence::Unseen(why)) => *self.unseen.entry(why).or_default() += 1,
            Found::OutOfReach | Found::Local(_) => self.out_of_reach += 1,
        }
    }

    fn reading(self, versions: usize, cut: bool, limits: Limits) -> Reading {
        let unseen: usize = self.unseen.values().sum();
        let gone = self.gone.len();
        let judged = self.there + gone;
        let mut summary = match (judged, gone) {
            _ if versions == 0 => "no versions".to_owned(),
            (0, _) => format!("none of {versions} versions could be looked at"),
            (1, 0) => "1 version has its artifacts".to_owned(),
            (_, 0) => format!("{judged} versions have their artifacts"),
            (_, gone) => format!("{gone} of {judged} versions have lost their artifacts"),
        };
        for (count, what) in [(self.out_of_reach, "not reachable from here"), (unseen, "not seen")] {
            if count > 0 {
                summary.push_str(&format!(", {count} {what}"));
            }
        }
        if cut {
            summary.push_str(&format!(" (the newest {versions} were looked at; --deep looks at {MOST})"));
        }
        let reasons: Vec<String> = self.unseen.iter().take(5).map(|(why, count)| format!("{count} x {why}")).collect();
        if gone == 0 && unseen > 0 {
            return Reading::unknown(ID, summary).evidence(reasons);
        }
        if judged == 0 && versions > 0 {
            // Nothing is broken, and there is no number either.
            return Reading::ok(ID, summary);
        }
        let reading = Reading::measured(ID, gone as f64, Unit::Count, limits, summary);
        if gone == 0 {
            return reading;
        }
        let more = gone.saturating_sub(NAMED);
        let more = (more > 0).then(|| format!("and {more} more"));
        reading
            .evidence(self.gone.into_iter().take(NAMED).chain(more).chain(reasons))
            .cause("a folder was cleaned by hand, or `mlflow gc` removed a run whose model was in use")
            .hint("restore the files from a backup, or delete those versions: loading one fails")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::health::Status;
    use crate::health::artifacts::NONE_GONE;

    fn version(source: &str) -> ModelVersion {
        ModelVersion {
            name: "m".into(),
            version: 3,
            status: "READY".into(),
            status_message: String::new(),
            stage: "Production".into(),
            source: source.into(),
            run_id: String::new(),
            created: None,
            updated: None,
            description: String::new(),
            aliases: vec![],
            tags: vec![],
        }
    }

    fn read(found: Vec<Found>, cut: bool) -> Reading {
        let mut tally = Tally::default();
        let count = found.len();
        for found in found {
            tally.add(&version("ftp://ada:hunter2@h/x"), found);
        }
        tally.reading(count, cut, NONE_GONE)
    }

    #[test]
    fn what_is_gone_is_critical_and_what_is_not_seen_is_neither() {
        let there = || Found::Seen(Presence::There);
        let gone = || Found::Seen(Presence::Gone);
        let unseen = || Found::Seen(Presence::Unseen("no right".into()));
        for (found, status, summary) in [
            (vec![], Status::Ok, "no versions"),
            (vec![there(), there()], Status::Ok, "2 versions have their artifacts"),
            (vec![there(), gone()], Status::Critical, "1 of 2 versions have lost their artifacts"),
            (vec![there(), Found::OutOfReach], Status::Ok, "1 version has its artifacts, 1 not reachable from here"),
            (vec![Found::OutOfReach], Status::Ok, "none of 1 versions could be looked at, 1 not reachable from here"),
            (vec![there(), unseen()], Status::Unknown, "1 version has its artifacts, 1 not seen"),
            (vec![gone(), unseen()], Status::Critical, "1 of 1 versions have lost their artifacts, 1 not seen"),
        ] {
            let reading = read(found, false);
            assert_eq!((reading.status, reading.summary.as_str()), (status, summary));
            assert!(!format!("{reading:?}").contains("hunter2"));
        }
        let many = read((0..30).map(|_| gone()).collect(), true);
        assert_eq!(many.evidence.len(), NAMED + 1);
        assert!(many.summary.ends_with("(the newest 30 were looked at; --deep looks at 2000)"), "{}", many.summary);
        assert_eq!(many.evidence[0], "m version 3 (Production): ftp://ada:***@h/x");
    }

    #[test]
    fn prompts_and_redacted_versions_are_left_out() {
        assert!(is_judged(&version("/a")));
        assert!(!is_judged(&version("dummy-source")) && !is_judged(&version("REDACTED-SOURCE-PATH")));
        let prompt = ModelVersion { tags: vec![("mlflow.prompt.is_prompt".into(), "true".into())], ..version("/a") };
        assert!(!is_judged(&prompt));
        assert!(!is_judged(&ModelVersion { status: "FAILED_REGISTRATION".into(), ..version("/a") }));
    }
}
