//! The lock of a place in S3: an object that its holder keeps changing. Who comes second watches it; one that changes
//! has a holder, and one that does not for long enough has none any more. No two clocks are compared.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutPayload, UpdateVersion, path};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::files::{LOCK, Lease};
use super::objects::{AFTERWARDS, as_target};
use super::s3::{Bucket, Refusal, Why};
use super::upload::unique;
use super::waiting::{LockPace, Waiting};
use crate::domain::failure::{Failure, Outcome};

/// For an answer about the lock: one that takes longer is no use.
const ANSWER: Duration = Duration::from_secs(8);
/// Times that the lock vanishes or appears while it is being taken.
const ROUNDS: u32 = 5;
/// Bytes of a lock.
const MOST: u64 = 16 << 10;

/// What a lock says.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct Note {
    /// For people.
    who: String,
    /// Of this holder alone.
    id: String,
    /// When it was written, by the holder's clock, for people.
    time: String,
    /// Counts the refreshes: without it the object, and so its ETag, would stay the same.
    beat: u64,
}

struct Found {
    etag: String,
    note: Note,
}

/// The lock object of a place.
#[derive(Clone)]
struct LockObject {
    bucket: Bucket,
    object: path::Path,
}

impl LockObject {
    async fn read(&self) -> Result<Option<Found>, Refusal> {
        let asked = async {
            let got = self.bucket.store().get(&self.object).await?;
            let etag = got.meta.e_tag.clone().unwrap_or_default();
            // Whatever else lies there is watched like a lock, but not read.
            let content = if got.meta.size > MOST { None } else { Some(got.bytes().await?) };
            let note = content.and_then(|c| serde_json::from_slice(&c).ok()).unwrap_or_default();
            Ok(Found { etag, note })
        };
        match self.bucket.within(ANSWER, asked).await {
            Ok(found) => Ok(Some(found)),
            Err(refusal) if refusal.why == Why::Absent => Ok(None),
            Err(refusal) => Err(refusal),
        }
    }

    /// Writes it and gives its ETag.
    async fn write(&self, note: &Note, mode: PutMode) -> Result<String, Refusal> {
        let note = Note { time: Timestamp::now().to_string(), ..note.clone() };
        let payload = PutPayload::from(serde_json::to_vec(&note).unwrap_or_default());
        let put = self.bucket.within(ANSWER, self.bucket.store().put_opts(&self.object, payload, mode.into())).await?;
        Ok(put.e_tag.unwrap_or_default())
    }

    async fn remove(&self) -> Result<(), Refusal> {
        self.bucket.within(ANSWER, self.bucket.store().delete(&self.object)).await
    }

    /// Whether the server keeps to conditions; some take no notice of them. The lock is held.
    async fn is_conditional(&self, note: &Note) -> Result<bool, Refusal> {
        for mode in [PutMode::Create, just("\"00000000000000000000000000000000\"")] {
            match self.write(note, mode).await {
                Ok(_) => return Ok(false),
                Err(refusal) if matches!(refusal.why, Why::There | Why::Another) => {}
                Err(refusal) if refusal.why == Why::Unknown => return Ok(false),
                Err(refusal) => return Err(refusal),
            }
        }
        Ok(true)
    }
}

/// Only where this one is still there.
fn just(etag: &str) -> PutMode {
    PutMode::Update(UpdateVersion { e_tag: Some(etag.to_owned()), version: None })
}

fn locked(bucket: &Bucket, who: &str) -> Failure {
    let who = if who.trim().is_empty() { "another mlops" } else { who.trim() };
    Failure::locked(format!("{bucket} is in use by {who}"))
        .hint("wait for it to end; what a run that was killed leaves of its lock counts for less than a minute")
}

/// What became of a lock that was watched.
enum Watched {
    Gone,
    Alive(String),
    Dead,
}

/// Takes the lock of a place, and keeps it until the lease is dropped.
pub(super) fn take(place: &Bucket, waiting: &Waiting, pace: LockPace, who: &str) -> Outcome<Box<dyn Lease>> {
    let bucket = place.at(LOCK);
    let Some(object) = bucket.object() else {
        return Err(Failure::target(format!("{bucket}: such a key cannot be written")));
    };
    let lock = LockObject { bucket, object };
    let note = Note { who: who.chars().take(500).collect(), id: unique(), ..Note::default() };
    // When the lock that is found in the end was sent.
    let mut sent = now();
    let mut write = |mode| {
        sent = now();
        waiting.on(lock.write(&note, mode))
    };
    for _ in 0..ROUNDS {
        let written = match waiting.on(lock.read())?.map_err(as_target)? {
            None => write(PutMode::Create)?,
            Some(found) if found.note.id == note.id => Ok(found.etag),
            Some(found) => match watch(&lock, waiting, pace, &found)? {
                Watched::Gone => continue,
                Watched::Alive(who) => return Err(locked(place, &who)),
                Watched::Dead => write(just(&found.etag))?,
            },
        };
        let etag = match written {
            Ok(etag) => etag,
            // Another was faster, or this one was and did not hear of it: the next look tells.
            Err(refusal) if matches!(refusal.why, Why::There | Why::Another | Why::Absent | Why::Silent) => {
                waiting.rest(super::waiting::pause(200))?;
                continue;
            }
            Err(refusal) if refusal.why == Why::Unknown => return Ok(Box::new(Unprotected(place.to_string()))),
            Err(refusal) => return Err(as_target(refusal)),
        };
        let conditional = waiting.on(lock.is_conditional(&note));
        if !matches!(conditional, Ok(Ok(true))) {
            waiting.afterwards(AFTERWARDS, lock.remove());
            conditional?.map_err(as_target)?;
            return Ok(Box::new(Unprotected(place.to_string())));
        }
        return Ok(Box::new(ObjectLease::keep(lock, waiting.clone(), pace, note, etag, sent)));
    }
    Err(locked(place, "others, one after the other"))
}

/// Looks at a lock until it changes, or has not for so long that nobody is left to change it.
fn watch(lock: &LockObject, waiting: &Waiting, pace: LockPace, found: &Found) -> Outcome<Watched> {
    let begun = now();
    loop {
        // The last look comes after the time is over.
        let over = now().saturating_sub(begun) >= pace.dead;
        match waiting.on(lock.read())?.map_err(as_target)? {
            None => return Ok(Watched::Gone),
            Some(other) if other.etag != found.etag => return Ok(Watched::Alive(other.note.who)),
            Some(_) if over => return Ok(Watched::Dead),
            Some(_) => waiting.rest(pace.look)?,
        }
    }
}

/// A clock that goes on while the machine sleeps: others may well be awake.
fn now() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    Duration::new(time.tv_sec.try_into().unwrap_or_default(), time.tv_nsec.try_into().unwrap_or_default())
}

/// What the lease knows of itself.
struct State {
    /// When the last refresh that was answered was sent.
    refreshed: Duration,
    /// To whom it was lost.
    lost: Option<String>,
}

struct ObjectLease {
    lock: LockObject,
    waiting: Waiting,
    pace: LockPace,
    id: String,
    state: Arc<Mutex<State>>,
    stop: watch::Sender<bool>,
    refreshing: Option<JoinHandle<()>>,
}

impl ObjectLease {
    fn keep(
        lock: LockObject,
        waiting: Waiting,
        pace: LockPace,
        note: Note,
        etag: String,
        refreshed: Duration,
    ) -> ObjectLease {
        let state = Arc::new(Mutex::new(State { refreshed, lost: None }));
        let (stop, stopped) = watch::channel(false);
        let id = note.id.clone();
        let refreshing = waiting.runtime().spawn(refresh(lock.clone(), pace, note, etag, state.clone(), stopped));
        ObjectLease { lock, waiting, pace, id, state, stop, refreshing: Some(refreshing) }
    }
}

/// Changes the lock again and again, until it is told to stop or the lock is somebody else's.
async fn refresh(
    lock: LockObject,
    pace: LockPace,
    mut note: Note,
    mut etag: String,
    state: Arc<Mutex<State>>,
    mut stop: watch::Receiver<bool>,
) {
    let lose = |who: &str| state.lock().unwrap_or_else(PoisonError::into_inner).lost = Some(who.to_owned());
    let mut pause = pace.refresh;
    loop {
        tokio::select! {
            biased;
            _ = stop.wait_for(|told| *told) => return,
            () = tokio::time::sleep(pause) => {}
        }
        let begun = now();
        note.beat += 1;
        pause = pace.look;
        match lock.write(&note, just(&etag)).await {
            Ok(new) => {
                etag = new;
                state.lock().unwrap_or_else(PoisonError::into_inner).refreshed = begun;
                pause = pace.refresh;
            }
            Err(refusal) if matches!(refusal.why, Why::There | Why::Another | Why::Absent) => {
                match lock.read().await {
                    // A refresh whose answer was lost.
                    Ok(Some(found)) if found.note.id == note.id => etag = found.etag,
                    Ok(Some(other)) => return lose(&other.note.who),
                    Ok(None) => return lose("somebody who removed it"),
                    Err(_) => {}
                }
            }
            // Tried again; `held` tells when it has been too long.
            Err(_) => {}
        }
    }
}

impl Lease for ObjectLease {
    fn held(&self) -> Outcome<()> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let place = &self.lock.bucket;
        if let Some(who) = &state.lost {
            let who = if who.trim().is_empty() { "another mlops" } else { who.trim() };
            return Err(Failure::locked(format!("the lock {place} was lost to {who}")));
        }
        let age = now().saturating_sub(state.refreshed);
        if age > self.pace.held {
            return Err(Failure::locked(format!(
                "the lock {place} could not be refreshed for {} s: another run may have taken it",
                age.as_secs()
            ))
            .hint("does the object store answer?"));
        }
        Ok(())
    }
}

impl Drop for ObjectLease {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        let refreshing = self.refreshing.take();
        let state = self.state.clone();
        self.waiting.afterwards(ANSWER + AFTERWARDS, async {
            // A refresh that is under way must not come after the removal.
            if let Some(refreshing) = refreshing {
                let _ = refreshing.await;
            }
            let lost = state.lock().unwrap_or_else(PoisonError::into_inner).lost.is_some();
            let own = |found: &Found| found.note.id == self.id;
            // S3 has no conditional removal that all know; but for as long as it is held nobody takes it over.
            if !lost && matches!(lock_read(&self.lock).await, Some(found) if own(&found)) && self.held().is_ok() {
                let _ = self.lock.remove().await;
            }
        });
    }
}

async fn lock_read(lock: &LockObject) -> Option<Found> {
    lock.read().await.ok().flatten()
}

/// A place whose server knows no conditional writes.
struct Unprotected(String);

impl Lease for Unprotected {
    fn held(&self) -> Outcome<()> {
        Ok(())
    }

    fn warning(&self) -> Option<String> {
        Some(format!(
            "{}: this object store knows no conditional writes, so two runs at once would not notice each other",
            self.0
        ))
    }
}
