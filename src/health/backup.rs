//! The layer *backup*: is there a complete one that is young enough, is the newest one whole, and was any of them ever
//! restored in a drill. Manifests and proofs are read, the newest first; no lock is taken and nothing is written.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::runtime::Builder;
use tokio::sync::oneshot;

use crate::artifact::{self, ArtifactStore};
use crate::backup::manifest::{Manifest, Scope};
use crate::backup::repository::Repository;
use crate::domain::artifact_address::ArtifactAddress;
use crate::domain::failure::{Failure, Kind, Outcome};
use crate::domain::health::{Bound, Limits, Reading, Unit};
use crate::domain::id;

use super::Stack;
use super::server::unset;

const PLACE: &str = "backup.place";
const AGE: &str = "backup.age";
const COMPLETE: &str = "backup.complete";
const DRILL: &str = "backup.drill";

/// A folder or a bucket that is well answers much sooner.
const ANSWER: Duration = Duration::from_secs(10);
/// Backups of every night: one that comes two hours late is one, and one that failed is a warning; two are critical.
const OLD: f64 = 26.0 * 3600.0;
const TOO_OLD: f64 = 50.0 * 3600.0;
/// A drill a month.
const UNPROVEN: f64 = 31.0 * 86_400.0;
/// Attempts that are looked at before a complete one is found, and backups whose proof is read.
const MOST: usize = 100;
/// An attempt without a manifest that was begun in this time may still be at work.
const AT_WORK: SignedDuration = SignedDuration::from_hours(24);
/// Clocks of two machines differ; by more, an age means nothing.
const SKEW: SignedDuration = SignedDuration::from_mins(5);
/// Lines of evidence.
const NAMED: usize = 5;

/// Looks at the backups, where their place is known.
pub(super) async fn look(stack: Arc<Stack>) {
    let Some(place) = stack.backups.clone().filter(|_| stack.wants(PLACE)) else { return };
    let there = match ArtifactStore::at(&place, &stack.artifacts.s3) {
        Ok(Some(store)) => store.there(stack.patience(ANSWER)).await,
        Ok(None) => Err(Failure::usage(format!("{place} is neither a folder nor s3://bucket/path"))),
        Err(failure) => Err(failure),
    };
    if let Err(failure) = there {
        let hint = match (&place, failure.hint) {
            (ArtifactAddress::S3 { .. }, Some(hint)) => hint,
            _ => "is its disk mounted, is it what `mlops backup --to` is given, and may this user read it?".to_owned(),
        };
        stack.tell(Reading::critical(PLACE, failure.message).hint(hint));
        return;
    }
    stack.tell(Reading::ok(PLACE, format!("{place} is there")));
    let (done, told) = oneshot::channel::<()>();
    // A thread of its own, with a runtime of its own: it may hang longer than the run lasts.
    std::thread::spawn(move || {
        if let Err(failure) = read(&stack, &place) {
            for id in [AGE, COMPLETE, DRILL] {
                stack.tell(unread(id, &failure));
            }
        }
        drop(done);
    });
    let _ = told.await;
}

fn unread(id: &str, failure: &Failure) -> Reading {
    let reading = Reading::unknown(id, failure.message.clone());
    match &failure.hint {
        Some(hint) => reading.hint(hint.clone()),
        None => reading,
    }
}

/// Tells what the place holds.
///
/// # Errors
/// Nothing is told yet, and why.
fn read(stack: &Stack, place: &ArtifactAddress) -> Outcome<()> {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.map_err(|e| Failure::internal(format!("no runtime: {e}")))?;
    let look = &stack.look;
    let s3 = stack.artifacts.s3.apart();
    let shelf = artifact::shelf(place, &s3, runtime.handle(), &look.work_dir, &look.cancel)?;
    let shelf = shelf.ok_or_else(|| Failure::internal(format!("{place} was there and is none")))?;
    let repository = Repository { shelf, fixed: false };
    let ids = repository.ids()?;
    if ids.is_empty() {
        stack.tell(
            Reading::critical(AGE, format!("{place} holds no backup"))
                .cause("none was made yet, the disk is not mounted, or another place is meant")
                .hint(format!("`mlops backup --to '{place}'` makes one")),
        );
        for id in [COMPLETE, DRILL] {
            stack.leave(id, "there is no backup");
        }
        return Ok(());
    }
    let seen = newest(stack, &repository, &ids)?;
    stack.tell(seen.age(stack, place));
    stack.tell(seen.complete(stack.look.now));
    if stack.wants(DRILL) {
        stack.tell(match drilled(stack, &repository, &ids) {
            Ok(drilled) => drill(stack, place, drilled, ids.len()),
            Err(failure) => unread(DRILL, &failure),
        });
    }
    Ok(())
}

/// What the newest backups are, down to the newest complete one.
#[derive(Default)]
struct Seen {
    /// The newest complete one.
    complete: Option<Manifest>,
    /// The newest of those that lack artifacts: its id, and how many with the first of them.
    partial: Option<(String, u64, Vec<String>)>,
    /// What is said of those that are damaged, the newest first.
    damaged: Vec<Failure>,
    /// The newest that has no manifest.
    unfinished: Option<String>,
    /// How many were looked at.
    number: usize,
}

fn newest(stack: &Stack, repository: &Repository, ids: &BTreeSet<String>) -> Outcome<Seen> {
    let mut seen = Seen::default();
    for id in ids.iter().rev().take(MOST) {
        stack.look.cancel.check()?;
        seen.number += 1;
        match repository.manifest(id) {
            Ok(Some(manifest)) if manifest.complete => {
                seen.complete = Some(manifest);
                break;
            }
            Ok(Some(Manifest { artifacts, .. })) if seen.partial.is_none() => {
                let named = artifacts.unread.iter().take(NAMED).map(|one| format!("{}: {}", one.address, one.reason));
                seen.partial = Some((id.clone(), artifacts.unreadable, named.collect()));
            }
            Ok(Some(_)) => {}
            Ok(None) => seen.unfinished = seen.unfinished.or_else(|| Some(id.clone())),
            Err(failure) if failure.kind == Kind::Damaged => seen.damaged.push(failure),
            Err(failure) => return Err(failure),
        }
    }
    Ok(seen)
}

impl Seen {
    /// `backup.age`
    fn age(&self, stack: &Stack, place: &ArtifactAddress) -> Reading {
        let Some(manifest) = &self.complete else {
            let reading = Reading::critical(
                AGE,
                match self.number {
                    1 => format!("the only backup in {place} is not complete"),
                    MOST => format!("none of the newest {MOST} backups in {place} is complete"),
                    n => format!("none of the {n} backups in {place} is complete"),
                },
            );
            return reading.hint(format!("`mlops backup list --from '{place}'` tells what each of them is"));
        };
        let id = &manifest.id;
        let Ok(at) = manifest.started.parse::<Timestamp>() else {
            return Reading::unknown(AGE, format!("the backup {id} states no time"));
        };
        let age = stack.look.now.duration_since(at);
        if age < -SKEW {
            let summary = format!("the newest complete backup, {id}, is of the future: {at}");
            return Reading::unknown(AGE, summary).hint("compare the clocks of the machines with `timedatectl status`");
        }
        let what = match manifest.artifacts.scope {
            Scope::All => format!("{id} is the newest complete one"),
            scope => format!("{id} is the newest complete one (artifacts: {})", scope.word()),
        };
        measured(stack, AGE, age, Limits { warning: at_most(OLD), critical: at_most(TOO_OLD) }, what)
            .hint("see why none came: `mlops backup` tells it when it is run by hand, and its --ping and --notify do")
    }

    /// `backup.complete`
    fn complete(&self, now: Timestamp) -> Reading {
        if let Some(first) = self.damaged.first() {
            let more = self.damaged.iter().skip(1).take(NAMED).map(|failure| failure.message.clone());
            let reading = Reading::critical(COMPLETE, first.message.clone()).evidence(more);
            return reading.hint(first.hint.clone().unwrap_or_else(|| {
                "make another one, and look at the disk; `mlops backup verify --all` tells what else is damaged".into()
            }));
        }
        if let Some((id, unreadable, named)) = &self.partial {
            let what = if *unreadable == 1 { "1 artifact".to_owned() } else { format!("{unreadable} artifacts") };
            return Reading::warning(COMPLETE, format!("the backup {id} lacks {what} that could not be read"))
                .evidence(named.iter().cloned())
                .hint(format!("`mlops backup show {id}` names them"));
        }
        let unfinished = self.unfinished.as_ref().map(|id| (id, id::time(id)));
        match unfinished {
            Some((id, at)) if at.is_none_or(|at| now.duration_since(at) > AT_WORK) => {
                Reading::warning(COMPLETE, format!("the backup {id} was begun and never finished"))
                    .cause("it was killed, or its machine stopped")
                    .hint("the next one takes up what it has stored; `mlops backup` run by hand tells what stops it")
            }
            Some((id, _)) => Reading::ok(COMPLETE, format!("{id} is being made, or was interrupted")),
            None => Reading::ok(COMPLETE, "everything that was asked for is in the newest one"),
        }
    }
}

fn at_most(seconds: f64) -> Option<Bound> {
    Some(Bound::AtMost(seconds))
}

/// A time that has passed, by the limits that are configured, else by these.
fn measured(stack: &Stack, id: &str, age: SignedDuration, usual: Limits, what: String) -> Reading {
    match stack.at_most(id, Unit::Seconds) {
        Ok(configured) => {
            let limits = if configured == Limits::default() { usual } else { configured };
            Reading::measured(id, age.as_secs_f64().max(0.0), Unit::Seconds, limits, what)
        }
        Err(failure) => unset(id, &failure),
    }
}

/// The last drill of any of the newest backups: of which, and when. What a clock of the future wrote is no proof.
fn drilled(stack: &Stack, repository: &Repository, ids: &BTreeSet<String>) -> Outcome<Option<(String, Timestamp)>> {
    let mut last: Option<(String, Timestamp)> = None;
    for id in ids.iter().rev().take(MOST) {
        stack.look.cancel.check()?;
        // An older backup may have been drilled later still, but the time is up.
        if last.is_some() && stack.patience(Duration::MAX).is_zero() {
            break;
        }
        let at = repository.proof(id)?.drilled.and_then(|text| text.parse::<Timestamp>().ok());
        let at = at.filter(|at| at.duration_since(stack.look.now) <= SKEW);
        if let Some(at) = at
            && last.as_ref().is_none_or(|(_, before)| at > *before)
        {
            last = Some((id.clone(), at));
        }
    }
    Ok(last)
}

/// `backup.drill`
fn drill(stack: &Stack, place: &ArtifactAddress, drilled: Option<(String, Timestamp)>, number: usize) -> Reading {
    let hint = format!("`mlops backup verify latest --drill --from '{place}'`, from cron once a week or once a month");
    let Some((id, at)) = drilled else {
        let what = match number {
            0..=MOST => "no backup was ever restored in a drill".to_owned(),
            _ => format!("none of the newest {MOST} backups was restored in a drill"),
        };
        return Reading::warning(DRILL, what).cause("what was never restored is a hope").hint(hint);
    };
    let usual = Limits { warning: at_most(UNPROVEN), critical: None };
    let age = stack.look.now.duration_since(at);
    measured(stack, DRILL, age, usual, format!("{id} was the last to be restored in a drill")).hint(hint)
}
