//! Moving things within an artifact store, so that they can be moved back.

use std::fs;
use std::path::PathBuf;

use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::ObjectStoreExt;

use super::clear::ObjectsPlace;
use super::files::is_plain;
use super::listing::Listed;
use super::s3::{Bucket, Why};
use super::waiting::{Patience, Waiting};
use crate::domain::address::shown;
use crate::domain::failure::{Failure, Outcome};

/// Objects that are copied side by side.
const COPIES: usize = 8;

/// A store within which things can be moved.
///
/// Contract: after `relocate` all that was at or below `from` is at or below `to`. Interrupted, a part of it may be in
/// both places and none of it is lost; then it can be done again. Called from plain threads.
pub trait Relocate: Send + Sync {
    /// Moves all at and below one path to another; both are below the store's root.
    ///
    /// # Errors
    /// Target: something else is at the other path, or the store failed.
    fn relocate(&self, from: &str, to: &str) -> Outcome<()>;
}

fn plain(from: &str, to: &str) -> Outcome<()> {
    match [from, to].into_iter().find(|path| !is_plain(path)) {
        Some(path) => Err(Failure::internal(format!("`{}` is no path below a root", path.escape_debug()))),
        None => Ok(()),
    }
}

/// A folder of this machine: a rename, so that nothing is copied.
pub struct FolderRoot {
    root: PathBuf,
}

impl FolderRoot {
    /// Of that folder; nothing is looked at yet.
    pub fn new(root: PathBuf) -> FolderRoot {
        FolderRoot { root }
    }
}

impl Relocate for FolderRoot {
    fn relocate(&self, from: &str, to: &str) -> Outcome<()> {
        plain(from, to)?;
        let (from, to) = (self.root.join(from), self.root.join(to));
        let failed =
            |e: std::io::Error| Failure::target(format!("{} cannot be moved to {}: {e}", shown(&from), shown(&to)));
        if fs::symlink_metadata(&to).is_ok() {
            return Err(Failure::target(format!("{} cannot be moved: {} is there", shown(&from), shown(&to)))
                .hint("look at both, and remove the one that is not wanted"));
        }
        let above = to.parent().unwrap_or(&self.root);
        fs::create_dir_all(above).map_err(failed)?;
        fs::rename(&from, &to).map_err(failed)?;
        // Both names last before the next one is moved.
        for folder in [Some(above), from.parent()].into_iter().flatten() {
            fs::File::open(folder).and_then(|f| f.sync_all()).map_err(failed)?;
        }
        Ok(())
    }
}

/// Objects of a bucket below a path: each is copied by the server, then all of the old ones are removed.
pub struct ObjectsRoot {
    bucket: Bucket,
    waiting: Waiting,
    patience: Patience,
}

impl ObjectsRoot {
    /// Of that bucket's path; nothing is asked yet.
    pub fn new(bucket: Bucket, waiting: Waiting) -> ObjectsRoot {
        ObjectsRoot { bucket, waiting, patience: Patience::default() }
    }

    async fn copy(&self, source: &Bucket, target: &Bucket, object: &Listed) -> Outcome<()> {
        let key = &object.key;
        let below = key.get(source.below_from()..).unwrap_or_default();
        let (Some(old), Some(new)) = (source.at(below).object(), target.at(below).object()) else {
            return Err(Failure::target(format!("{source}: the key `{}` cannot be asked for", key.escape_debug())));
        };
        // What an interrupted move left there is the same object; anything else is not replaced.
        match target.within(self.patience.answer, target.store().head(&new)).await {
            Ok(there) if there.size == object.bytes && there.e_tag == object.etag => return Ok(()),
            Ok(_) => {
                let what = format!("{} cannot be moved: another object is at {}", source.at(below), target.at(below));
                return Err(Failure::target(what).hint("look at both, and remove the one that is not wanted"));
            }
            Err(refusal) if refusal.why == Why::Absent => {}
            Err(refusal) => return Err(refusal.failure.as_target()),
        }
        let copied = source.within(self.patience.part, source.store().copy(&old, &new)).await;
        copied.map_err(|refusal| refusal.failure.as_target())
    }
}

impl Relocate for ObjectsRoot {
    fn relocate(&self, from: &str, to: &str) -> Outcome<()> {
        plain(from, to)?;
        let (source, target) = (self.bucket.at(from), self.bucket.at(to));
        let old = ObjectsPlace::new(source.clone(), self.waiting.clone());
        let mut token = None;
        loop {
            let page = self.waiting.on(source.list(None, token.clone(), self.patience.answer))?;
            let page = page.map_err(|refusal| refusal.failure.as_target())?;
            // What a console makes for a folder holds nothing, and stays.
            let objects = || page.objects.iter().filter(|o| o.bytes > 0 || !o.key.ends_with('/'));
            let copies = objects().map(|object| self.copy(&source, &target, object));
            self.waiting.on(stream::iter(copies).buffer_unordered(COPIES).try_collect::<Vec<()>>())??;
            // Just those: what came meanwhile has no copy.
            let copied =
                objects().filter_map(|o| source.at(o.key.get(source.below_from()..).unwrap_or_default()).object());
            let removed = self.waiting.on(old.remove(copied.collect()))?;
            removed.map_err(|refusal| refusal.failure.as_target())?;
            match page.next {
                None => return Ok(()),
                next if next == token => {
                    return Err(Failure::target(format!("{source}: the list of objects goes round in a circle")));
                }
                next => token = next,
            }
        }
    }
}
