//! Interruption: a flag that long work looks at, and hooks that end what cannot look (a statement that runs in the
//! database).

use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::domain::failure::{Failure, Kind, Outcome};

type Hook = Box<dyn Fn() + Send>;

/// Shared by everything that works for one command.
#[derive(Clone, Default)]
pub struct Cancel {
    signal: Arc<AtomicI32>,
    hooks: Arc<Mutex<Vec<Hook>>>,
}

impl Cancel {
    /// One that nothing has cancelled.
    pub fn new() -> Self {
        Cancel::default()
    }

    /// Cancels with that signal's number and runs the hooks. Called again it runs the hooks again, so that a
    /// statement that began in between ends as well.
    pub fn cancel(&self, signal: i32) {
        self.signal.store(signal, Ordering::SeqCst);
        for hook in self.hooks.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            hook();
        }
    }

    /// Adds something to be done on cancelling.
    pub fn on_cancel(&self, hook: impl Fn() + Send + 'static) {
        self.hooks.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(hook));
    }

    /// The failure to end with, once cancelled.
    pub fn failure(&self) -> Option<Failure> {
        match self.signal.load(Ordering::SeqCst) {
            0 => None,
            signal => Some(Failure::new(Kind::Interrupted(signal), "interrupted")),
        }
    }

    /// An error as soon as it is cancelled.
    ///
    /// # Errors
    /// Interrupted.
    pub fn check(&self) -> Outcome<()> {
        self.failure().map_or(Ok(()), Err)
    }

    /// After an interruption every error is a consequence of it; what it says stays.
    pub fn explain<T>(&self, outcome: Outcome<T>) -> Outcome<T> {
        outcome.map_err(|failure| match (self.failure(), failure.kind) {
            (None, _) | (_, Kind::Interrupted(_)) => failure,
            (Some(interrupted), _) => {
                Failure { kind: interrupted.kind, message: format!("interrupted ({})", failure.message), ..failure }
            }
        })
    }
}
