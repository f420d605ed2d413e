//! A tracking server proved by using it. What is made for that is called `mlops-verify-<id>`, journalled before it is made
//! and removed at the end ([`markers`]); what was seen becomes an account (`domain::verify::account`).

mod compare;
pub mod concurrency;
pub mod deployment;
pub mod docker;
mod fingerprint;
pub mod halves;
mod ledger;
pub mod markers;
pub mod persistence;
pub mod place;
mod process;
pub mod restart;
pub mod snapshot;
mod sorted;
pub mod steps;
mod written;

/// The tag that all that is made carries, with the run's id as its value.
pub const MARKER: &str = "mlops.marker";

/// What the names of all that is made begin with.
pub fn name(id: &str) -> String {
    format!("mlops-verify-{id}")
}
