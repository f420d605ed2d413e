//! Folders for things that live as long as one run: private copies, private clusters. A run that was killed leaves
//! its folder behind; the next run that makes one in the same place removes it.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use crate::domain::address::shown;
use crate::domain::failure::{Failure, Outcome};

/// A folder that is removed when this is dropped.
pub struct Scratch {
    folder: tempfile::TempDir,
    /// The marker in it, locked as long as the owner lives.
    _owner: File,
}

/// Tells a folder of ours from one of the operator's that only has such a name.
const MARKER: &str = ".mlops-scratch";

impl Scratch {
    /// Makes a new folder with that prefix in `base`, after it has removed those whose owner is gone.
    ///
    /// # Errors
    /// Configuration: `base` cannot be written to.
    pub fn new(prefix: &str, base: &Path) -> Outcome<Scratch> {
        remove_abandoned(prefix, base);
        let make = || -> std::io::Result<Scratch> {
            // Between making and locking it another run may take it for abandoned and remove it: then once more.
            for _ in 0..10 {
                let folder = tempfile::Builder::new().prefix(prefix).permissions(private()).tempdir_in(base)?;
                let Ok(owner) = File::create(folder.path().join(MARKER)) else { continue };
                if owner.try_lock().is_ok() && folder.path().join(MARKER).exists() {
                    return Ok(Scratch { folder, _owner: owner });
                }
            }
            Err(std::io::Error::other("other runs remove every new folder"))
        };
        make().map_err(|e| {
            Failure::configuration(format!("the work folder {} cannot be used: {e}", shown(base)))
                .hint("name another folder with --work-dir")
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// What lies in it may be for the operator's eyes only, as the original was.
fn private() -> Permissions {
    Permissions::from_mode(0o700)
}

fn remove_abandoned(prefix: &str, base: &Path) {
    let Ok(entries) = fs::read_dir(base) else { return };
    let me = rustix::process::geteuid().as_raw();
    for entry in entries.flatten().filter(|e| e.file_name().to_string_lossy().starts_with(prefix)) {
        let path = entry.path();
        let marker = path.join(MARKER);
        // The folder may belong to another user (PostgreSQL's, when this is root); its marker never does.
        let is_ours = fs::symlink_metadata(&marker).is_ok_and(|m| m.is_file() && m.uid() == me);
        if is_ours && File::open(&marker).is_ok_and(|marker| marker.try_lock().is_ok()) {
            let _ = fs::remove_dir_all(path);
        } else if !marker.exists() {
            // Killed before it could be marked; only an empty folder is removed by this.
            let _ = fs::remove_dir(path);
        }
    }
}
