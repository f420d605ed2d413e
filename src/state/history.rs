//! The memory of health checks, a file for each stack, replaced whole by each run.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use crate::domain::address::shown;
use crate::domain::failure::Failure;
use crate::domain::health::memory::Memory;
use crate::newfile::{self, NewFile};

/// How long a run waits for another one that writes the same memory.
const PATIENCE: Duration = Duration::from_secs(2);

/// The memory of one stack on the disk. It is locked as long as this lives, so that counts in a row stay true: open it
/// when the checks are done, not before.
pub struct History {
    path: PathBuf,
    /// What was remembered; empty for a stack that is looked at for the first time.
    pub memory: Memory,
    _lock: File,
}

impl History {
    /// Opens the memory of the stack that is called `stack` (its addresses).
    ///
    /// # Errors
    /// A sentence for the operator: the folder cannot be written to, another run holds it, what is there is damaged.
    pub fn open(state_dir: &Path, stack: &str) -> Result<History, String> {
        let path = path(state_dir, stack);
        let failed =
            |e: io::Error| format!("the state folder {} cannot be used ({e}): no history is kept", shown(state_dir));
        fs::create_dir_all(newfile::folder_of(&path)).map_err(failed)?;
        let lock = File::options().create(true).append(true).open(path.with_extension("lock")).map_err(failed)?;
        wait(&lock).map_err(|e| match e {
            TryLockError::WouldBlock => {
                format!("another run holds {} for long: this run is not remembered", shown(&path))
            }
            TryLockError::Error(e) => failed(e),
        })?;
        let memory = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|e| format!("{} is damaged ({e}): no history is kept; remove it", shown(&path)))?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => Memory::default(),
            Err(e) => return Err(failed(e)),
        };
        Ok(History { path, memory, _lock: lock })
    }

    /// Writes the memory, in place of what was there.
    ///
    /// # Errors
    /// A sentence for the operator: the disk is full, the folder is gone.
    pub fn save(&self) -> Result<(), String> {
        let write = || {
            let mut new = NewFile::replacing(&self.path)?;
            serde_json::to_writer(new.file(), &self.memory).map_err(|e| Failure::target(e.to_string()))?;
            new.replace(0o600)
        };
        write().map_err(|failure: Failure| format!("{failure}: no history is kept"))
    }
}

/// What is remembered of a stack, to be looked at only; nothing where there is nothing that can be read.
pub fn peek(state_dir: &Path, stack: &str) -> Memory {
    fs::read(path(state_dir, stack)).ok().and_then(|b| serde_json::from_slice(&b).ok()).unwrap_or_default()
}

fn path(state_dir: &Path, stack: &str) -> PathBuf {
    let digest = Sha256::digest(stack.as_bytes());
    let name: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    state_dir.join("health").join(format!("{name}.json"))
}

fn wait(lock: &File) -> Result<(), TryLockError> {
    let begun = Instant::now();
    loop {
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) if begun.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(20));
            }
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::health::Reading;

    #[test]
    fn it_is_there_for_the_next_run_and_each_stack_has_its_own() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut history = History::open(folder.path(), "a").expect("new");
        history.memory.judge(&mut [Reading::ok("server.live", "200")], jiff::Timestamp::UNIX_EPOCH, |_| 1);
        history.save().expect("saved");
        let memory = history.memory.clone();
        drop(history);
        assert_eq!(peek(folder.path(), "a"), memory);
        assert_eq!(History::open(folder.path(), "a").expect("there").memory, memory);
        assert_eq!(History::open(folder.path(), "b").expect("new").memory, Memory::default());
    }

    #[test]
    fn what_is_damaged_or_cannot_be_written_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let history = History::open(folder.path(), "a").expect("new");
        history.save().expect("saved");
        let path = history.path.clone();
        drop(history);
        fs::write(&path, "{").expect("written");
        assert!(History::open(folder.path(), "a").err().is_some_and(|e| e.contains("is damaged")));
        fs::write(folder.path().join("file"), "").expect("written");
        assert!(History::open(&folder.path().join("file"), "a").err().is_some_and(|e| e.contains("cannot be used")));
    }
}
