//! The journal of a run, and what is told of earlier runs that did not finish.

use super::Context;
use crate::domain::failure::Outcome;
use crate::state::{self, Journal};
use crate::verify::markers;

/// Begins the journal of a run on `target` and tells of runs that did not finish. Those on the same target end with
/// this one; `superseded` says what that means for what they began.
pub(super) fn begin(context: &Context, target: &str, superseded: &str) -> Outcome<(Journal, Vec<String>)> {
    begin_as(context, &context.id, target, superseded)
}

/// The same for one of several parts of a run, each with an id of its own.
pub(super) fn begin_as(context: &Context, id: &str, target: &str, superseded: &str) -> Outcome<(Journal, Vec<String>)> {
    let state_dir = context.settings.state_dir()?;
    let mut warnings = Vec::new();
    for run in state::unfinished(&state_dir) {
        let what = format!("the run {} of {} ({} on {}) did not finish", run.id, run.started, run.command, run.target);
        // What a verification left is removed by the next one alone, which its journal tells what there is.
        if verifies(&run.command) {
            warnings.push(markers::elsewhere(&run));
        } else if run.target == target {
            warnings.push(format!("{what}; {superseded}"));
            let _ = run.close(&format!("superseded by {id}"));
        } else {
            warnings.push(what);
        }
    }
    let (journal, warning) = Journal::begin(&state_dir, id, context.reporter.command, target);
    warnings.extend(warning);
    Ok((journal, warnings))
}

/// Whether a command is one of `mlops verify`.
pub(super) fn verifies(command: &str) -> bool {
    command.starts_with("verify.")
}
