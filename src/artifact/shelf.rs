//! A folder as a place of files.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rustix::fs::OFlags;
use tempfile::TempDir;

use super::files::{Entry, Files, Kind, LOCK, Lease, Met, Opened, Shelf, Staged, There, is_plain};
use super::folder;
use jiff::Timestamp;

use crate::domain::address::shown;
use crate::domain::failure::{Failure, Outcome};

/// Folders within folders that are gone down into; each holds one open folder.
const DEPTH: usize = 128;
/// A time of change that is younger than this may be shared by two contents: file systems stamp with a tick.
const TICK: Duration = Duration::from_secs(2);

/// A folder whose files are read, and written where somebody says so.
pub struct Folder {
    root: PathBuf,
    /// What new files may be by others, as far as the umask leaves it.
    mode: u32,
    /// Where files are before they have a path, made when the first one is staged.
    staging: Mutex<Option<Staging>>,
}

struct Staging {
    folder: TempDir,
    /// Locked as long as this run lives.
    _owner: File,
    /// Opened before anything is written: the system tells of a write that failed only to who was there before.
    root: File,
}

/// Times that a folder is made which somebody else removes, being empty.
const TRIES: u32 = 5;
const STAGING: &str = ".mlops-staging-";
const OWNER: &str = ".owner";

impl Folder {
    /// A folder; nothing is looked at yet.
    pub fn new(root: &Path) -> Folder {
        Folder { root: root.to_owned(), mode: 0o666, staging: Mutex::default() }
    }

    /// The same with new files for their owner alone.
    #[must_use]
    pub fn private(self) -> Folder {
        Folder { mode: 0o600, ..self }
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn at(&self, path: &str) -> PathBuf {
        if path.is_empty() { self.root.clone() } else { self.root.join(path) }
    }

    /// Where a file is written or removed: below the root, whatever the path says.
    fn target(&self, path: &str) -> Outcome<PathBuf> {
        let no_path = || Failure::target(format!("{}: `{}` is no path of a file", self.place(), path.escape_debug()));
        is_plain(path).then(|| self.at(path)).ok_or_else(no_path)
    }

    /// Folders of this house are as private as its files.
    fn make_folder(&self, folder: &Path) -> io::Result<()> {
        use std::os::unix::fs::DirBuilderExt;
        let mode = if self.mode == 0o600 { 0o700 } else { 0o777 };
        fs::DirBuilder::new().recursive(true).mode(mode).create(folder)
    }

    fn unwritten(&self, error: &io::Error) -> Failure {
        unwritten(&self.root, error)
    }

    fn entry(&self, path: &str, metadata: &fs::Metadata) -> Entry {
        let modified: Option<Timestamp> = metadata.modified().ok().and_then(|t| t.try_into().ok());
        let itself = Timestamp::new(metadata.ctime(), i32::try_from(metadata.ctime_nsec()).unwrap_or_default()).ok();
        Entry {
            path: path.to_owned(),
            bytes: metadata.len(),
            changed: stamp(metadata),
            modified,
            since: modified.max(itself),
        }
    }

    /// The file at a path; `None`: there is none.
    fn look(&self, path: &str, file: &Path) -> Outcome<Option<Entry>> {
        if !is_plain(path) {
            return Ok(None);
        }
        match fs::symlink_metadata(file) {
            Ok(own) if own.is_file() => Ok(Some(self.entry(path, &own))),
            Ok(own) if own.is_symlink() => match self.meet(path.to_owned(), file) {
                Some(Met::File(entry)) => Ok(Some(entry)),
                Some(Met::Unreadable { why, .. }) if !fs::metadata(file).is_ok_and(|m| m.is_dir()) => {
                    Err(Failure::source(format!("{} cannot be read: {why}", shown(file))))
                }
                _ => Ok(None),
            },
            Ok(_) => Ok(None),
            Err(e) if is_absent(&e) => Ok(None),
            Err(e) => Err(unread(file, &e)),
        }
    }

    /// What a directory's entry is.
    fn meet(&self, path: String, file: &Path) -> Option<Met> {
        let unreadable = |path: String, why: String| Some(Met::Unreadable { path, why });
        let own = match fs::symlink_metadata(file) {
            Ok(own) => own,
            Err(e) if e.kind() == ErrorKind::NotFound => return None,
            Err(e) => return unreadable(path, e.to_string()),
        };
        if own.is_file() {
            return Some(Met::File(self.entry(&path, &own)));
        }
        if !own.is_symlink() {
            return unreadable(path, "it is no regular file".to_owned());
        }
        let leads = fs::canonicalize(file).and_then(|to| Ok((to, fs::canonicalize(&self.root)?)));
        match leads {
            Ok((to, root)) if !to.starts_with(&root) => {
                unreadable(path, "a symbolic link that leads out of the artifact root".to_owned())
            }
            Ok((to, _)) => match fs::metadata(&to) {
                Ok(metadata) if metadata.is_file() => Some(Met::File(self.entry(&path, &metadata))),
                Ok(_) => unreadable(path, "a symbolic link to a folder, which is not followed".to_owned()),
                Err(e) => unreadable(path, e.to_string()),
            },
            Err(_) => unreadable(path, "a symbolic link that leads nowhere".to_owned()),
        }
    }
}

/// The times of change in seconds: that of the content, which can be set, and that of the file, which cannot. `None`: so
/// young that the file may change without it.
fn stamp(metadata: &fs::Metadata) -> Option<String> {
    let now = i128::try_from(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?.as_nanos()).ok()?;
    let nanos = |seconds: i64, rest: i64| i128::from(seconds) * 1_000_000_000 + i128::from(rest);
    let content = nanos(metadata.mtime(), metadata.mtime_nsec());
    let file = nanos(metadata.ctime(), metadata.ctime_nsec());
    let tick = i128::try_from(TICK.as_nanos()).ok()?;
    let shown = |nanos: i128| format!("{}.{:09}", nanos.div_euclid(1_000_000_000), nanos.rem_euclid(1_000_000_000));
    (now - content.max(file) > tick).then(|| format!("{} {}", shown(content), shown(file)))
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

fn unread(path: &Path, error: &io::Error) -> Failure {
    Failure::source(format!("{} cannot be read: {error}", shown(path)))
}

fn unwritten(folder: &Path, error: &io::Error) -> Failure {
    match error.kind() {
        ErrorKind::StorageFull
        | ErrorKind::QuotaExceeded
        | ErrorKind::ReadOnlyFilesystem
        | ErrorKind::PermissionDenied => folder::unwritten(folder, error),
        _ => Failure::target(format!("{} cannot be written to: {error}", shown(folder))),
    }
}

impl Files for Folder {
    fn place(&self) -> String {
        shown(&self.root)
    }

    fn walk(&self, below: &str, each: &mut dyn FnMut(Met) -> Outcome<()>) -> Outcome<()> {
        if !below.is_empty() && !is_plain(below) {
            let below = below.escape_debug();
            return Err(Failure::source(format!("{}: `{below}` is no path of a folder", self.place())));
        }
        let top = self.at(below);
        match fs::metadata(&top) {
            Ok(metadata) if metadata.is_dir() => {}
            Ok(_) if below.is_empty() => return Err(Failure::source(format!("{} is no folder", self.place()))),
            Ok(_) => return self.meet(below.to_owned(), &top).map_or(Ok(()), each),
            Err(e) if is_absent(&e) => {
                if top.is_symlink() {
                    return self.meet(below.to_owned(), &top).map_or(Ok(()), each);
                }
                // Nothing below a folder is one thing; a volume that is not mounted is another.
                return match fs::metadata(&self.root) {
                    Ok(_) => Ok(()),
                    Err(e) if is_absent(&e) => Err(Failure::source(format!("{} is not there", self.place()))),
                    Err(e) => Err(unread(&self.root, &e)),
                };
            }
            Err(e) if below.is_empty() => return Err(unread(&self.root, &e)),
            Err(e) => return each(Met::Unreadable { path: below.to_owned(), why: e.to_string() }),
        }
        let open = |path: &Path| match fs::read_dir(path) {
            Ok(entries) => Ok(Some(entries)),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e.to_string()),
        };
        let mut levels = Vec::new();
        match open(&top) {
            Ok(entries) => levels.extend(entries.map(|entries| (below.to_owned(), entries))),
            Err(why) => each(Met::Unreadable { path: below.to_owned(), why })?,
        }

        while let Some((folder, entries)) = levels.last_mut() {
            let Some(entry) = entries.next() else {
                levels.pop();
                continue;
            };
            let entry = match entry {
                Ok(entry) => entry,
                Err(e) => {
                    let (path, why) = (folder.clone(), e.to_string());
                    levels.pop();
                    each(Met::Unreadable { path, why })?;
                    continue;
                }
            };
            let name = entry.file_name();
            let slash = if folder.is_empty() { "" } else { "/" };
            let path = format!("{folder}{slash}{}", name.to_string_lossy());
            if name.to_str().is_none() {
                each(Met::Unreadable { path, why: "its name is not UTF-8".to_owned() })?;
                continue;
            }
            if folder.is_empty() && path.starts_with(STAGING) {
                continue;
            }
            if !entry.file_type().is_ok_and(|t| t.is_dir()) {
                self.meet(path, &entry.path()).map_or(Ok(()), &mut *each)?;
                continue;
            }
            match open(&entry.path()) {
                _ if levels.len() >= DEPTH => {
                    each(Met::Unreadable { path, why: format!("it lies deeper than {DEPTH} folders") })?;
                }
                Ok(entries) => levels.extend(entries.map(|entries| (path, entries))),
                Err(why) => each(Met::Unreadable { path, why })?,
            }
        }
        Ok(())
    }

    fn walk_folders(&self, each: &mut dyn FnMut(&str) -> Outcome<()>) -> Outcome<()> {
        let entries = match fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(unread(&self.root, &e)),
        };
        for entry in entries {
            let entry = entry.map_err(|e| unread(&self.root, &e))?;
            if let (true, Some(name)) = (entry.file_type().is_ok_and(|t| t.is_dir()), entry.file_name().to_str()) {
                each(name)?;
            }
        }
        Ok(())
    }

    fn open(&self, path: &str) -> Outcome<Option<Opened>> {
        let file = self.at(path);
        if self.look(path, &file)?.is_none() {
            return Ok(None);
        }
        // Where a pipe has taken the file's place by now, nobody waits for its other end.
        let unwaiting = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
        let opened = OpenOptions::new().read(true).custom_flags(unwaiting).open(&file);
        match opened.and_then(|f| Ok((f.metadata()?, f))) {
            Ok((metadata, reader)) if metadata.is_file() => {
                Ok(Some(Opened { entry: self.entry(path, &metadata), reader: Box::new(reader) }))
            }
            Ok(_) => Ok(None),
            Err(e) if is_absent(&e) => Ok(None),
            Err(e) => Err(unread(&file, &e)),
        }
    }

    fn stat(&self, path: &str) -> Outcome<Option<Entry>> {
        self.look(path, &self.at(path))
    }
}

impl Shelf for Folder {
    fn stage(&self) -> Outcome<Staged> {
        let mut staging = self.staging.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = match &*staging {
            Some(staging) => staging.folder.path().to_owned(),
            None => {
                self.make_folder(&self.root).map_err(|e| self.unwritten(&e))?;
                remove_abandoned(&self.root);
                let made = begin_staging(&self.root).map_err(|e| self.unwritten(&e))?;
                staging.insert(made).folder.path().to_owned()
            }
        };
        drop(staging);
        let made = tempfile::Builder::new()
            .permissions(Permissions::from_mode(self.mode))
            .tempfile_in(folder)
            .map_err(|e| self.unwritten(&e))?;
        let (file, path) = made.into_parts();
        Ok(Staged { kind: Kind::Beside(file, path) })
    }

    fn put(&self, staged: Staged, path: &str, there: There) -> Outcome<bool> {
        let target = self.target(path)?;
        let Kind::Beside(file, mut temporary) = staged.kind else {
            return Err(Failure::internal("a file that was staged elsewhere"));
        };
        drop(file);
        let mut tries = 0;
        loop {
            let put = match there {
                There::Replaced => temporary.persist(&target),
                There::Stays => temporary.persist_noclobber(&target),
            };
            match put {
                Ok(()) => return Ok(true),
                Err(e) if there == There::Stays && e.error.kind() == ErrorKind::AlreadyExists => return Ok(false),
                Err(e) if e.error.kind() == ErrorKind::NotFound && tries < TRIES => {
                    tries += 1;
                    temporary = e.path;
                    self.make_folder(target.parent().unwrap_or(&self.root)).map_err(|e| unwritten(&target, &e))?;
                }
                Err(e) => return Err(unwritten(&target, &e.error)),
            }
        }
    }

    fn on_this_machine(&self, path: &str) -> Option<PathBuf> {
        Some(self.at(path))
    }

    fn remove(&self, path: &str) -> Outcome<()> {
        let file = self.target(path)?;
        match fs::remove_file(&file) {
            Err(e) if !is_absent(&e) => Err(unwritten(&file, &e)),
            _ => {
                // Folders that this leaves empty go as well, up to the root; those with something in them refuse.
                let above = file.ancestors().skip(1).take_while(|p| *p != self.root && p.starts_with(&self.root));
                let _ = above.map(fs::remove_dir).find(Result::is_err);
                Ok(())
            }
        }
    }

    fn settle(&self) -> Outcome<()> {
        let staging = self.staging.lock().unwrap_or_else(PoisonError::into_inner);
        let root = match &*staging {
            Some(staging) => staging.root.try_clone(),
            None => {
                // What is done already stages nothing, and still tidies up after the run that did it and was killed.
                remove_abandoned(&self.root);
                File::open(&self.root)
            }
        };
        let nothing = staging.is_none() && matches!(&root, Err(e) if e.kind() == ErrorKind::NotFound);
        drop(staging);
        if nothing {
            return Ok(());
        }
        let synced = root.and_then(|root| Ok(rustix::fs::syncfs(root.as_fd())?));
        synced.map_err(|e| self.unwritten(&e))
    }

    fn lock(&self, who: &str) -> Outcome<Box<dyn Lease>> {
        self.make_folder(&self.root).map_err(|e| self.unwritten(&e))?;
        let path = self.root.join(LOCK);
        let flags = i32::try_from((OFlags::NONBLOCK | OFlags::NOFOLLOW).bits()).unwrap_or_default();
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).read(true).write(true).mode(self.mode).custom_flags(flags);
        let mut file = options.open(&path).map_err(|e| self.unwritten(&e))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                let mut other = String::new();
                let _ = Read::take(&mut file, 500).read_to_string(&mut other);
                let other = if other.trim().is_empty() { "another mlops".to_owned() } else { other.trim().to_owned() };
                return Err(Failure::locked(format!("{} is in use by {other}", self.place()))
                    .hint("wait for it to end, or look for it with `ps`; what it holds ends with it"));
            }
            Err(fs::TryLockError::Error(e)) => return Err(self.unwritten(&e)),
        }
        let told = file.set_len(0).and_then(|()| file.write_all(who.as_bytes()));
        told.map_err(|e| self.unwritten(&e))?;
        remove_abandoned(&self.root);
        let lease = FolderLease { file, path };
        lease.held()?;
        Ok(Box::new(lease))
    }
}

struct FolderLease {
    file: File,
    path: PathBuf,
}

impl Lease for FolderLease {
    fn held(&self) -> Outcome<()> {
        // The kernel holds it as long as this process lives; but another file under its name is another lock.
        let named = |m: fs::Metadata| (m.dev(), m.ino());
        let (own, there) = (self.file.metadata().map(named), fs::symlink_metadata(&self.path).map(named));
        match (own, there) {
            (Ok(own), Ok(there)) if own == there => Ok(()),
            _ => Err(Failure::locked(format!("the lock {} was removed by somebody", shown(&self.path)))),
        }
    }
}

fn begin_staging(root: &Path) -> io::Result<Staging> {
    let permissions = Permissions::from_mode(0o700);
    // Between making and locking it another run may take it for abandoned and remove it: then once more.
    for _ in 0..10 {
        let folder = tempfile::Builder::new().prefix(STAGING).permissions(permissions.clone()).tempdir_in(root)?;
        let Ok(owner) = File::create(folder.path().join(OWNER)) else { continue };
        if owner.try_lock().is_ok() && folder.path().join(OWNER).exists() {
            return Ok(Staging { folder, _owner: owner, root: File::open(root)? });
        }
    }
    Err(io::Error::other("other runs remove every new folder"))
}

/// Removes what killed runs staged.
fn remove_abandoned(root: &Path) {
    let Ok(entries) = fs::read_dir(root) else { return };
    for entry in entries.flatten().filter(|e| e.file_name().to_string_lossy().starts_with(STAGING)) {
        let owner = entry.path().join(OWNER);
        if owner.exists() {
            let Ok(owner) = File::open(&owner) else { continue };
            // Kept locked until all is gone: a run that has just made the folder then sees that it lost it.
            if owner.try_lock().is_ok() {
                let _ = fs::remove_dir_all(entry.path());
            }
        } else {
            let _ = fs::remove_dir(entry.path());
        }
    }
}
