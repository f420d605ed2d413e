//! Locks by files: between the runs of one machine. A dead holder's lock is gone.

use std::fs::{self, File, TryLockError};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::domain::address::shown;
use crate::domain::failure::{Failure, Outcome};
use crate::engine::cancel::Cancel;

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
    wait(file, held, patience, cancel)
}

/// Locks an open file, whatever it is.
///
/// # Errors
/// Locked: another one holds it. Target: it cannot be locked. Interrupted.
pub fn wait(file: File, held: &str, patience: Duration, cancel: &Cancel) -> Outcome<File> {
    let begun = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if begun.elapsed() < patience => {
                cancel.check()?;
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(TryLockError::WouldBlock) => return Err(Failure::locked(held).hint("wait until it has ended")),
            Err(TryLockError::Error(e)) => return Err(Failure::target(format!("the lock cannot be taken: {e}"))),
        }
    }
}
