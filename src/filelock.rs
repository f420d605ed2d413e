//! Locks on open files (`flock(2)`): a dead holder's lock is gone.

use std::fs::{File, TryLockError};
use std::time::{Duration, Instant};

use crate::domain::failure::{Failure, Outcome};
use crate::engine::cancel::Cancel;

/// Locks a file for as long as it is open; waits so long for the one who has it, of whom `held` tells.
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
