//! The layer *artifacts*: is their root there, does its disk last, how much is it, do the registry's versions still
//! have theirs, and is a file taken. Each check is a question of its own with its own share of the time.

mod disk;
mod versions;
mod write;

use std::time::Duration;

pub use disk::judge;
pub use versions::{ASKED, MOST, versions};
pub use write::{EXPERIMENT, write, write_tag};

use super::Stack;
use crate::artifact::{ArtifactStore, S3};
use crate::domain::artifact_address::ArtifactAddress;
use crate::domain::count::counted;
use crate::domain::failure::{Failure, Outcome};
use crate::domain::health::{Bound, Limits, Reading, Status, Unit, checks};
use crate::engine::cancel::Cancel;
use crate::mlflow::{Client, Fault};

/// A folder or a bucket that is well answers much sooner.
const ANSWER: Duration = Duration::from_secs(10);
/// The time that counting gets where nobody has set a limit: a number that is only shown is not waited for.
const GLANCE: Duration = Duration::from_secs(5);

/// Where artifacts are, as far as it is known.
#[derive(Clone)]
pub struct Artifacts {
    /// Their root (`artifact_root`).
    pub root: Option<ArtifactAddress>,
    /// The way to S3.
    pub s3: S3,
    /// The tracking server.
    pub server: Option<Client>,
}

impl Artifacts {
    /// The root, where it is reached without the server.
    pub(super) fn store(&self) -> Outcome<Option<ArtifactStore>> {
        self.root.as_ref().map_or(Ok(None), |root| ArtifactStore::at(root, &self.s3))
    }

    /// Whether the server's proxy is the way to the root.
    fn is_proxied(&self) -> bool {
        matches!(self.root, None | Some(ArtifactAddress::Proxy { host: None, .. }))
    }
}

/// Looks at all that is wanted, at once.
pub(crate) async fn look(stack: &Stack, place: &Artifacts) {
    let tell = |id: &str, reading: Option<Reading>| match reading {
        Some(reading) => stack.tell(reading),
        None => stack.leave(id, "the artifact root is not known here: give --artifact-root"),
    };
    let limits = |id| limits(stack, id).map_err(|f| stack.tell(unknown(id, f))).ok();
    tokio::join!(
        async {
            if stack.wants("artifacts.root") {
                tell("artifacts.root", root(place, stack.patience(ANSWER)).await);
            }
        },
        async {
            if let (true, Some(limits)) = (stack.wants("artifacts.disk"), limits("artifacts.disk")) {
                tell("artifacts.disk", disk(place, limits, stack.patience(ANSWER)).await);
            }
        },
        async {
            if let (true, Some(limits)) = (stack.wants("artifacts.size"), limits("artifacts.size")) {
                let needed = ["artifacts.size", "artifacts.growth"].iter().any(|id| {
                    stack.look.settings.judgement(id).is_some_and(|j| j.warning.is_some() || j.critical.is_some())
                });
                let half = stack.patience(Duration::MAX) / 2;
                let patience = if needed { half } else { half.min(GLANCE) };
                match size(place, limits, needed, &stack.look.cancel, patience).await {
                    Some(reading) if reading.status == Status::Ok && reading.measure.is_none() => {
                        stack.leave("artifacts.size", format!("{}; a limit on it gives it more time", reading.summary));
                    }
                    reading => tell("artifacts.size", reading),
                }
            }
        },
        async {
            if let (true, Some(limits)) = (stack.wants("artifacts.versions"), limits("artifacts.versions")) {
                stack.server_is_measured().await;
                let limits = if limits == Limits::default() { NONE_GONE } else { limits };
                let asked = if stack.look.deep { MOST } else { ASKED };
                match versions(place, limits, asked, stack.patience(Duration::MAX).mul_f64(0.9)).await {
                    Some(reading) if reading.status == Status::Ok && reading.measure.is_none() => {
                        stack.leave("artifacts.versions", reading.summary);
                    }
                    reading => tell("artifacts.versions", reading),
                }
            }
        },
        async {
            if !stack.look.deep {
                return;
            }
            stack.server_is_measured().await;
            // One after the other: both may have to make the same experiment.
            if let (true, Some(limits)) = (stack.wants("server.write"), limits("server.write")) {
                tell("server.write", write_tag(place, &stack.look.id, limits, stack.patience(ANSWER)).await);
            }
            if let (true, Some(limits)) = (stack.wants("artifacts.write"), limits("artifacts.write")) {
                tell("artifacts.write", write(place, &stack.look.id, limits, stack.patience(ANSWER)).await);
            }
        },
    );
}

/// What is configured: free space has a lower bound, all else an upper one.
fn limits(stack: &Stack, id: &str) -> Outcome<Limits> {
    match (checks::find(id).and_then(|c| c.unit), stack.look.settings.judgement(id)) {
        (Some(Unit::Percent), Some(judgement)) => judgement.at_least(Unit::Percent),
        (Some(unit), _) => stack.at_most(id, unit),
        (None, _) => Ok(Limits::default()),
    }
}

/// The limits of `artifacts.versions` where none are set: not one may be gone.
pub const NONE_GONE: Limits = Limits { warning: None, critical: Some(Bound::AtMost(0.0)) };

/// What could not be measured, and why.
fn unknown(id: &str, failure: Failure) -> Reading {
    told(Reading::unknown(id, failure.message), failure.hint)
}

/// What is broken, and why.
fn critical(id: &str, failure: Failure) -> Reading {
    told(Reading::critical(id, failure.message), failure.hint)
}

fn told(reading: Reading, hint: Option<String>) -> Reading {
    match hint {
        Some(hint) => reading.hint(hint),
        None => reading,
    }
}

/// `artifacts.root`. `None`: nothing is known of it, and the server passes no artifacts on.
pub async fn root(place: &Artifacts, patience: Duration) -> Option<Reading> {
    const ID: &str = "artifacts.root";
    let store = match place.store() {
        Ok(store) => store,
        Err(failure) => return Some(critical(ID, failure)),
    };
    if let (Some(store), Some(root)) = (store, &place.root) {
        return Some(match store.there(patience).await {
            Ok(()) => Reading::ok(ID, format!("{root} is there")),
            Err(failure) => critical(ID, failure),
        });
    }
    if !place.is_proxied() {
        let root = place.root.as_ref()?;
        let why = match root {
            ArtifactAddress::Elsewhere { why, .. } => why,
            _ => "not a root that is reached from here",
        };
        return Some(Reading::unknown(ID, format!("{root}: {why}")).hint("`--skip 'artifacts.*'` leaves it out"));
    }
    match place.server.as_ref()?.within(patience).proxied("").await {
        Ok(_) => Some(Reading::ok(ID, "the tracking server passes artifacts on").needs("server.live")),
        Err(trouble) if trouble.fault == Fault::NotFound && place.root.is_none() => None,
        Err(trouble) => Some(critical(ID, trouble.failure).needs("server.live")),
    }
}

/// `artifacts.disk`. `None`: no folder of this machine.
pub async fn disk(place: &Artifacts, limits: Limits, patience: Duration) -> Option<Reading> {
    let store = place.store().ok().flatten()?;
    match store.disk(patience).await {
        Ok(disk) => disk.map(|disk| judge(disk, limits)),
        Err(failure) => Some(unknown("artifacts.disk", failure)),
    }
}

/// `artifacts.size`. `needed`: a limit is set that the number is held against, so not having it is a finding. `None`:
/// the root is not reached without the server.
pub async fn size(
    place: &Artifacts,
    limits: Limits,
    needed: bool,
    cancel: &Cancel,
    patience: Duration,
) -> Option<Reading> {
    const ID: &str = "artifacts.size";
    let store = place.store().ok().flatten()?;
    let seen = match store.inventory(cancel, patience).await {
        Ok(seen) => seen,
        Err(failure) => return Some(unknown(ID, failure)),
    };
    let amount = format!("{} in {}", bytes(seen.bytes), counted(seen.files, "file"));
    let mut reading = match (seen.whole, needed) {
        (true, _) => Reading::measured(ID, seen.bytes as f64, Unit::Bytes, limits, amount),
        // What is beyond a limit already needs no end.
        (false, true) if limits.judge(seen.bytes as f64) > Status::Ok => {
            let status = limits.judge(seen.bytes as f64);
            Reading::new(ID, status, format!("at least {amount}, more than the limit"))
        }
        (false, true) => Reading::unknown(ID, format!("at least {amount}; {} s were not enough", tenths(patience)))
            .hint("give it more time: --timeout"),
        // No number: a part of it in the history would look like growth.
        (false, false) => Reading::ok(ID, format!("at least {amount}: not counted to the end")),
    };
    if seen.links > 0 {
        reading.summary.push_str(&format!("; {} symbolic links not followed", seen.links));
    }
    if seen.unreadable > 0 {
        reading.summary.push_str(&format!("; {} folders not read", seen.unreadable));
        reading = reading.evidence(seen.unreadable_names);
    }
    Some(reading)
}

fn tenths(time: Duration) -> f64 {
    (time.as_secs_f64() * 10.0).round() / 10.0
}

fn bytes(count: u64) -> String {
    bytesize::ByteSize::b(count).display().iec().to_string()
}
