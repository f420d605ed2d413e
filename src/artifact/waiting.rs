//! From a plain thread into the runtime and back: every wait ends, at the latest when the command is interrupted.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::domain::failure::{Failure, Outcome};
use crate::engine::cancel::Cancel;

/// How long is waited for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// For the answer to a request that carries little.
    pub answer: Duration,
    /// For the next bytes of an object that is read.
    pub bytes: Duration,
    /// For a part of an object to be written.
    pub part: Duration,
    /// The lock of a place.
    pub lock: LockPace,
}

/// When a lock is refreshed, and when it counts as a dead run's. No two clocks are compared: who comes second watches
/// the lock for as long as `dead`, and who holds it trusts it no longer than `held`, which has to be less.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LockPace {
    /// Between two refreshes.
    pub refresh: Duration,
    /// Between two looks, and before a refresh that failed is tried again.
    pub look: Duration,
    /// Since the last refresh: the lock is trusted no longer.
    pub held: Duration,
    /// Without a refresh: its holder is dead.
    pub dead: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        let seconds = Duration::from_secs;
        let lock = LockPace { refresh: seconds(10), look: seconds(2), held: seconds(30), dead: seconds(35) };
        Patience { answer: seconds(60), bytes: seconds(60), part: seconds(300), lock }
    }
}

/// The way into the runtime.
#[derive(Clone)]
pub struct Waiting {
    runtime: Handle,
    cancel: Cancel,
    cancelled: watch::Receiver<bool>,
}

impl Waiting {
    /// Work is done there, until it is cancelled.
    pub fn new(runtime: Handle, cancel: Cancel) -> Waiting {
        let (tell, cancelled) = watch::channel(false);
        cancel.on_cancel(move || {
            tell.send_replace(true);
        });
        Waiting { runtime, cancel, cancelled }
    }

    pub(super) fn check(&self) -> Outcome<()> {
        self.cancel.check()
    }

    /// What the work gives, unless the command is interrupted before. Not to be called within the runtime.
    ///
    /// # Errors
    /// Interrupted.
    pub fn on<T>(&self, work: impl Future<Output = T>) -> Outcome<T> {
        self.check()?;
        let mut cancelled = self.cancelled.clone();
        self.runtime.block_on(async {
            tokio::select! {
                biased;
                value = work => Ok(value),
                _ = cancelled.wait_for(|told| *told) => {
                    Err(self.cancel.failure().unwrap_or_else(|| Failure::internal("cancelled by nobody")))
                }
            }
        })
    }

    pub(super) fn rest(&self, time: Duration) -> Outcome<()> {
        self.on(async { tokio::time::sleep(time).await })
    }

    /// For what tidies up: goes on though the command is interrupted, but no longer than that.
    pub(super) fn afterwards<T>(&self, most: Duration, work: impl Future<Output = T>) -> Option<T> {
        self.runtime.block_on(async { tokio::time::timeout(most, work).await }).ok()
    }

    pub(super) fn runtime(&self) -> &Handle {
        &self.runtime
    }
}

/// About so many milliseconds: many that failed together do not come back together.
pub(super) fn pause(milliseconds: u64) -> Duration {
    let part = RandomState::new().build_hasher().finish() % 1000;
    Duration::from_millis(milliseconds / 2 + milliseconds * part / 1000)
}
