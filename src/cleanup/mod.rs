//! Clean-up: what is old is soft-deleted by policy, over REST alone, and comes back by `undo`; what is deleted is removed
//! for good by `purge`, in the database and the artifact store.
//!
//! [`gather`] asks the server for what counts of runs and experiments; `domain::cleanup` decides; [`batch`] carries out
//! a plan and tells what it is about to change, so that [`undo`] puts back exactly that. [`orphans`] looks for what lost its
//! other half.

pub mod batch;
pub mod gather;
pub mod list;
pub mod orphans;
mod owners;
pub mod purge;
pub mod undo;

use crate::domain::cleanup::select::ExperimentFacts;
use batch::Done;
use gather::{Found, OldRun};

/// What a command, or an entry of the policy, came to.
pub enum Cleanup {
    /// What is old: planned, or deleted.
    Old(Cleaned),
    /// What a purge would remove.
    PurgePlan(purge::Plan),
    /// What a purge removed.
    Purged(purge::Purged),
    /// What lost its other half.
    Orphans(orphans::Plan),
    /// What became of it.
    Swept(orphans::Swept),
}

/// What artifacts take.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sizes {
    /// Bytes that were counted.
    pub bytes: u64,
    /// Of how many runs or experiments they could not be counted.
    pub uncounted: u64,
}

/// A plan, and what became of it.
#[derive(Debug)]
pub struct Cleaned {
    /// The id of the batch.
    pub id: String,
    /// The plan.
    pub plan: Plan,
    /// What the artifacts of what goes take; of a plan only.
    pub sizes: Option<Sizes>,
    /// What was done; `None`: nothing was to be done.
    pub done: Option<Done>,
}

/// What is to be deleted, and what stays.
#[derive(Debug)]
pub enum Plan {
    /// Of experiments.
    Experiments(Found<ExperimentFacts>),
    /// Of runs.
    Runs(Found<OldRun>),
}

impl Plan {
    /// How many go.
    pub fn goes(&self) -> usize {
        match self {
            Plan::Experiments(found) => found.goes.len(),
            Plan::Runs(found) => found.goes.len(),
        }
    }
}
