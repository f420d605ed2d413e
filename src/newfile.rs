//! A file that gets its name when it is whole. Until then it lies beside that name under another, and goes away with
//! whoever was writing it; what a killed run left is removed by the next one that writes into the same folder.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::domain::address::shown;
use crate::domain::failure::{Failure, Outcome};

/// A file without its name. It is locked as long as it is written to, which tells it from an abandoned one.
pub struct NewFile {
    file: File,
    temporary: tempfile::TempPath,
    target: PathBuf,
}

const PREFIX: &str = ".mlops-";
const SUFFIX: &str = ".partial";

impl NewFile {
    /// Begins a file that is to become `target`, with these permissions as far as the umask leaves them.
    ///
    /// # Errors
    /// Refused: the name is taken. Target: the folder cannot be written to.
    pub fn create(target: &Path, mode: u32) -> Outcome<NewFile> {
        // A link to nothing is there as well.
        if target.symlink_metadata().is_ok() {
            return Err(taken(target));
        }
        NewFile::begin(target, mode)
    }

    /// Begins a file that is to become `target`, in the place of an older one if there is one. Nobody else can read it
    /// until [`NewFile::replace`].
    ///
    /// # Errors
    /// Target: it is a folder or a device, or the folder around it cannot be written to.
    pub fn replacing(target: &Path) -> Outcome<NewFile> {
        match fs::metadata(target) {
            Ok(there) if there.is_dir() => {
                Err(Failure::target(format!("{} is a folder", shown(target))).hint("name a file in it"))
            }
            // A device or a pipe must not become a file: `/dev/null` is needed by everybody.
            Ok(there) if !there.is_file() => {
                Err(Failure::target(format!("{} is not a file, and is not replaced by one", shown(target)))
                    .hint("name a file"))
            }
            // A link stays a link: what it leads to is replaced.
            Ok(_) => {
                let real = fs::canonicalize(target).unwrap_or_else(|_| target.to_owned());
                NewFile::begin(&real, 0o600)
            }
            Err(_) => NewFile::begin(target, 0o600),
        }
    }

    /// Begins a file that is to take the place of another, with that one's permissions and owner: whoever used the old
    /// one must be able to use the new one.
    ///
    /// # Errors
    /// Target: there is no such file, the folder cannot be written to, or the owner is another user.
    pub fn succeeding(target: &Path) -> Outcome<NewFile> {
        let failed = |e: io::Error| Failure::target(format!("{}: {e}", shown(target)));
        // A link stays a link: what it leads to is replaced.
        let real = fs::canonicalize(target).map_err(failed)?;
        let old = fs::metadata(&real).map_err(failed)?;
        let new = NewFile::begin(&real, 0o600)?;
        let mine = new.file.metadata().map_err(failed)?;
        if mine.gid() != old.gid() {
            // One who is not of that group cannot give a file to it, and then its owner still has it.
            let _ = std::os::unix::fs::fchown(&new.file, None, Some(old.gid()));
        }
        if mine.uid() != old.uid() {
            std::os::unix::fs::fchown(&new.file, Some(old.uid()), None).map_err(|e| {
                Failure::target(format!(
                    "{} belongs to user {}, and a new one would not: {e}",
                    shown(target),
                    old.uid()
                ))
                .hint("run this as that user, or as root")
            })?;
        }
        new.file.set_permissions(Permissions::from_mode(old.mode() & 0o7777)).map_err(failed)?;
        Ok(new)
    }

    fn begin(target: &Path, mode: u32) -> Outcome<NewFile> {
        let folder = folder_of(target);
        remove_abandoned(&folder);
        let make = || -> io::Result<(File, tempfile::TempPath)> {
            let made = tempfile::Builder::new()
                .prefix(PREFIX)
                .suffix(SUFFIX)
                .permissions(Permissions::from_mode(mode))
                .tempfile_in(&folder)?;
            let _ = made.as_file().try_lock();
            Ok(made.into_parts())
        };
        let (file, temporary) = make().map_err(|e| {
            Failure::target(format!("the folder {} cannot be written to: {}", shown(&folder), e.kind()))
                .hint("name a file in a folder that is there and that you may write to")
        })?;
        Ok(NewFile { file, temporary, target: target.to_owned() })
    }

    /// The file, for writing.
    pub fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Where it is now.
    pub fn path(&self) -> &Path {
        &self.temporary
    }

    /// What it is to be called.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Gives it its name and exactly these permissions, after it has reached the disk. An older file of that name is
    /// gone from then on, never before.
    ///
    /// # Errors
    /// Target: the disk failed.
    pub fn replace(self, mode: u32) -> Outcome<()> {
        let failed = |e: io::Error| Failure::target(format!("{}: {e}", shown(&self.target)));
        self.file.set_permissions(Permissions::from_mode(mode)).map_err(failed)?;
        self.file.sync_all().map_err(failed)?;
        self.temporary.persist(&self.target).map_err(|e| failed(e.error))?;
        File::open(folder_of(&self.target)).and_then(|f| f.sync_all()).map_err(failed)
    }

    /// Takes the name of the older file, which is then found under `aside`, in the same folder. At no moment is there no
    /// file under the name.
    ///
    /// # Errors
    /// Refused: `aside` is taken. Target: the disk failed, or the file system has no hard links.
    pub fn succeed(self, aside: &Path) -> Outcome<()> {
        let failed = |e: io::Error| Failure::target(format!("{}: {e}", shown(&self.target)));
        let sync = || File::open(folder_of(&self.target)).and_then(|f| f.sync_all()).map_err(failed);
        self.file.sync_all().map_err(failed)?;
        fs::hard_link(&self.target, aside).map_err(|e| match e.kind() {
            io::ErrorKind::AlreadyExists => taken(aside),
            _ => Failure::target(format!("{} cannot be kept as {}: {e}", shown(&self.target), shown(aside)))
                .hint("move the old file away by hand"),
        })?;
        // The second name of the old file is on the disk before the first one is taken from it.
        let renamed = sync().and_then(|()| self.temporary.persist(&self.target).map_err(|e| failed(e.error)));
        if let Err(failure) = renamed {
            let _ = fs::remove_file(aside);
            return Err(failure);
        }
        sync()
    }

    /// Gives it its name, after it has reached the disk.
    ///
    /// # Errors
    /// Refused: the name was taken meanwhile. Target: the disk failed.
    pub fn publish(self) -> Outcome<()> {
        let failed = |e: io::Error| Failure::target(format!("{}: {e}", shown(&self.target)));
        self.file.sync_all().map_err(failed)?;
        self.temporary.persist_noclobber(&self.target).map_err(|e| match e.error.kind() {
            io::ErrorKind::AlreadyExists => taken(&self.target),
            _ => failed(e.error),
        })?;
        File::open(folder_of(&self.target)).and_then(|f| f.sync_all()).map_err(failed)
    }
}

/// The folder that a file is or will be in.
pub fn folder_of(target: &Path) -> PathBuf {
    target.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned()
}

fn taken(target: &Path) -> Failure {
    Failure::refused(format!("{} is there already", shown(target))).hint("name a file that does not exist yet")
}

fn remove_abandoned(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let is_file = entry.file_type().is_ok_and(|t| t.is_file());
        if name.starts_with(PREFIX)
            && name.ends_with(SUFFIX)
            && is_file
            && File::open(entry.path()).is_ok_and(|file| file.try_lock().is_ok())
        {
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn it_has_its_name_when_it_is_whole_and_takes_nobody_elses() {
        let folder = tempfile::tempdir().expect("a folder");
        let names = || fs::read_dir(folder.path()).expect("readable").count();
        let target = folder.path().join("x");
        let mut new = NewFile::create(&target, 0o600).expect("new");
        new.file().write_all(b"1").expect("written");
        assert!(!target.exists());
        // Another one beside it does not take it for abandoned.
        drop(NewFile::create(&folder.path().join("y"), 0o600).expect("new"));
        let other = NewFile::create(&target, 0o600).expect("not taken yet");
        new.publish().expect("published");
        assert_eq!(fs::read(&target).expect("there"), b"1");
        assert!(other.publish().is_err() && NewFile::create(&target, 0o600).is_err());
        assert_eq!((fs::read(&target).expect("there"), names()), (b"1".to_vec(), 1));
    }

    #[test]
    fn what_a_killed_run_left_is_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join(".mlops-killed.partial"), "half").expect("written");
        drop(NewFile::create(&folder.path().join("x"), 0o600).expect("new"));
        assert_eq!(fs::read_dir(folder.path()).expect("readable").count(), 0);
    }
}
