//! The lock on a live SQLite file that keeps other mlops away from it, and nobody else.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use crate::domain::address::shown;
use crate::domain::failure::{Failure, Outcome};
use crate::engine::cancel::Cancel;
use crate::filelock;

/// File systems on which `flock` takes the locks that SQLite's are made of, so that nobody could write (Linux
/// `statfs(2)`: NFS, SMB, CIFS).
const NETWORK: &[u32] = &[0x6969, 0xfe53_4d42, 0xff53_4d42];

/// Takes it, for as long as the file is open; waits so long for the one who has it. SQLite's own locks are of another
/// kind (`fcntl`), which this one does not touch; but closing the file drops those of this process, so it is closed after
/// its connections. `None`: the file lies where there is no such lock.
///
/// # Errors
/// Locked: another mlops has it. Target: the file cannot be opened or locked. Interrupted.
pub fn hold(path: &Path, patience: Duration, cancel: &Cancel) -> Outcome<Option<File>> {
    let failed = |e: std::io::Error| Failure::target(format!("the database {} cannot be locked: {e}", shown(path)));
    if rustix::fs::statfs(path).is_ok_and(|s| NETWORK.contains(&(s.f_type as u32))) {
        return Ok(None);
    }
    let file = File::open(path).map_err(failed)?;
    filelock::wait(file, &format!("another mlops works on {}", shown(path)), patience, cancel).map(Some)
}
