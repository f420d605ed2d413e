//! Locks by files: between the runs of one machine. A dead holder's lock is gone.

use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;

use crate::domain::address::shown;
use crate::domain::failure::{Failure, Outcome};
use crate::engine::cancel::Cancel;
use crate::filelock;

/// Takes the lock of that name in the state folder, for as long as the file is open; waits so long for the one who has
/// it, of whom `held` tells.
///
/// # Errors
/// Locked: another one holds it. Configuration: the state folder cannot be written to. Interrupted.
pub fn hold(state_dir: &Path, name: &str, held: &str, patience: Duration, cancel: &Cancel) -> Outcome<File> {
    let open = fs::create_dir_all(state_dir)
        .and_then(|()| File::options().create(true).append(true).open(state_dir.join(format!("{name}.lock"))));
    let file = open.map_err(|e| {
        Failure::configuration(format!("the state folder {} cannot be used ({e})", shown(state_dir)))
            .hint("--state-dir DIR names another one")
    })?;
    filelock::wait(file, held, patience, cancel)
}
