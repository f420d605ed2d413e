//! A place of artifacts that is emptied: all below one folder, or all objects whose keys begin alike.

use std::collections::HashSet;
use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::path::PathBuf;

use futures_util::{StreamExt, stream};
use object_store::ObjectStore;
use object_store::aws::AmazonS3;
use object_store::path::Path;

use super::s3::{Bucket, Refusal, Why};
use super::waiting::{Patience, Waiting};
use crate::domain::address::shown;
use crate::domain::failure::{Failure, Outcome};

/// Folders within folders that are counted.
const DEPTH: usize = 128;
/// Folders above a place of artifacts, up to the root of all.
const ABOVE: usize = 4;

/// What was removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cleared {
    /// Files, or objects.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// A place that can be emptied.
///
/// Contract: after `clear` nothing is at or below the place any more, or it fails; what is not there is removed.
/// Symbolic links are removed and never followed. Called from plain threads.
pub trait Clear: Send + Sync {
    /// Removes all that is there, and the place itself.
    ///
    /// # Errors
    /// Target: something stays, or the store that the place is in is not there.
    fn clear(&self) -> Outcome<Cleared>;

    /// Removes the folder at the place, if nothing is in it but empty folders of these names, or but empty folders at all
    /// where no name is given. Objects have no folders.
    ///
    /// # Errors
    /// As [`Clear::clear`]; a folder with something in it is no error.
    fn tidy(&self, but: &[&str]) -> Outcome<()>;
}

/// A folder of this machine.
pub struct FolderPlace {
    path: PathBuf,
}

impl FolderPlace {
    /// A folder; nothing is looked at yet.
    pub fn new(path: &std::path::Path) -> FolderPlace {
        FolderPlace { path: path.to_owned() }
    }

    /// Where no folder above it is there, up to the one that experiments lie in
    /// (`ROOT/EXPERIMENT/models/ID/artifacts`), a disk is missing rather than somebody's files.
    fn is_reachable(&self) -> bool {
        self.path.ancestors().skip(1).take(ABOVE).filter(|p| p.parent().is_some()).any(std::path::Path::exists)
    }
}

fn unremoved(path: &std::path::Path, error: &io::Error) -> Failure {
    Failure::target(format!("{} cannot be removed: {error}", shown(path)))
}

/// Counts what a folder holds.
fn measure(folder: &std::path::Path, depth: usize, sum: &mut Cleared) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let own = entry.metadata()?;
        if own.is_dir() && depth < DEPTH {
            measure(&entry.path(), depth + 1, sum)?;
        } else if !own.is_dir() {
            add(sum, &own);
        }
    }
    Ok(())
}

fn add(sum: &mut Cleared, file: &Metadata) {
    sum.files += 1;
    sum.bytes += if file.is_file() { file.len() } else { 0 };
}

impl Clear for FolderPlace {
    fn clear(&self) -> Outcome<Cleared> {
        let mut sum = Cleared::default();
        // A link at the place itself is removed; one above it would lead to what may be another's.
        if let Some(link) = self.path.parent().filter(|p| p.is_symlink()) {
            return Err(Failure::target(format!(
                "{} is a symbolic link: what it leads to may be another's",
                shown(link)
            )));
        }
        let own = match fs::symlink_metadata(&self.path) {
            Ok(own) => own,
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return if self.is_reachable() {
                    Ok(sum)
                } else {
                    Err(Failure::target(format!("{} is not there, nor is a folder above it", shown(&self.path)))
                        .hint("is its disk mounted here?"))
                };
            }
            Err(e) => return Err(unremoved(&self.path, &e)),
        };
        let removed = if own.is_dir() {
            measure(&self.path, 0, &mut sum).and_then(|()| fs::remove_dir_all(&self.path))
        } else {
            add(&mut sum, &own);
            fs::remove_file(&self.path)
        };
        match removed {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(unremoved(&self.path, &e)),
            _ => Ok(sum),
        }
    }

    fn tidy(&self, but: &[&str]) -> Outcome<()> {
        if !fs::symlink_metadata(&self.path).is_ok_and(|own| own.is_dir()) {
            return Ok(());
        }
        if but.is_empty() {
            return tidy(&self.path, DEPTH).map_err(|e| unremoved(&self.path, &e));
        }
        for name in but {
            let _ = fs::remove_dir(self.path.join(name));
        }
        let _ = fs::remove_dir(&self.path);
        Ok(())
    }
}

fn tidy(folder: &std::path::Path, levels: usize) -> io::Result<()> {
    for entry in fs::read_dir(folder)?.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())) {
        // What cannot be looked into has something in it.
        let _ = if levels > 0 { tidy(&entry.path(), levels - 1) } else { Ok(()) };
    }
    let _ = fs::remove_dir(folder);
    Ok(())
}

/// Objects of a bucket.
pub struct ObjectsPlace {
    bucket: Bucket,
    waiting: Waiting,
    patience: Patience,
}

impl ObjectsPlace {
    /// Objects whose keys lie below the bucket's path; nothing is asked yet.
    pub fn new(bucket: Bucket, waiting: Waiting) -> ObjectsPlace {
        ObjectsPlace { bucket, waiting, patience: Patience::default() }
    }

    /// Removes objects, many with one request; those that are not there are removed. Gives the first failure.
    pub(super) async fn remove(&self, paths: Vec<Path>) -> Result<(), Refusal> {
        let (mut many, mut single): (Vec<Path>, Vec<Path>) = paths.into_iter().partition(is_simple);
        if many.len() > 1 {
            // What it did not remove, or a server that does not know how, is asked for one by one: that tells why.
            let mut left: HashSet<Path> = many.iter().cloned().collect();
            let _ = self.removed(self.bucket.many(), many, |path| _ = left.remove(path)).await;
            many = left.into_iter().collect();
        }
        single.append(&mut many);
        self.removed(self.bucket.store(), single, |_| ()).await
    }

    async fn removed(&self, store: &AmazonS3, paths: Vec<Path>, mut each: impl FnMut(&Path)) -> Result<(), Refusal> {
        let patience = self.patience.answer;
        let wanted = stream::iter(paths.into_iter().map(Ok)).boxed();
        let mut done = store.delete_stream(wanted);
        let mut first = Ok(());
        loop {
            let outcome = match tokio::time::timeout(patience, done.next()).await {
                Ok(None) => return first,
                Ok(Some(Ok(path))) => {
                    each(&path);
                    Ok(())
                }
                Ok(Some(Err(error))) => Err(self.bucket.refusal(&error)),
                // Silence: the others would be waited for as well.
                Err(_) => {
                    let silent = std::future::pending::<object_store::Result<()>>();
                    return self.bucket.within(std::time::Duration::ZERO, silent).await;
                }
            };
            match outcome {
                Err(refusal) if refusal.why == Why::Absent => {}
                Err(refusal) if first.is_ok() => first = Err(refusal),
                _ => {}
            }
        }
    }
}

/// Whether every server writes that key alike in the list of what it could not remove.
fn is_simple(path: &Path) -> bool {
    path.as_ref().bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'-' | b'_' | b'.'))
}

impl Clear for ObjectsPlace {
    fn clear(&self) -> Outcome<Cleared> {
        let mut sum = Cleared::default();
        let mut token = None;
        let mut first: Option<Failure> = None;
        loop {
            let page = self.waiting.on(self.bucket.list(None, token.clone(), self.patience.answer))?;
            let page = page.map_err(|refusal| refusal.failure.as_target())?;
            let mut paths: Vec<Path> = Vec::new();
            for object in &page.objects {
                match self.bucket.at(object.key.get(self.bucket.below_from()..).unwrap_or_default()).object() {
                    Some(path) => {
                        paths.push(path);
                        sum.files += 1;
                        sum.bytes += object.bytes;
                    }
                    // What a console makes for a folder, and cannot be asked for.
                    None if object.bytes == 0 && object.key.ends_with('/') => {}
                    None => {
                        let key = object.key.escape_debug();
                        let failure = Failure::target(format!("{}: the key `{key}` cannot be asked for", self.bucket));
                        first.get_or_insert(failure);
                    }
                }
            }
            let removed = self.waiting.on(self.remove(paths))?;
            if let Err(refusal) = removed {
                first.get_or_insert(refusal.failure.as_target());
            }
            match page.next {
                None => return first.map_or(Ok(sum), Err),
                next if next == token => {
                    return Err(Failure::target(format!(
                        "{}: the list of objects goes round in a circle",
                        self.bucket
                    )));
                }
                next => token = next,
            }
        }
    }

    fn tidy(&self, _: &[&str]) -> Outcome<()> {
        Ok(())
    }
}
