//! Artifact stores: a folder of this machine, or objects of S3. Whether they are there, how much lies in them, whether
//! a thing is still in its place, whether they take a file. Every call is bounded by the caller's patience.

mod clear;
mod download;
pub mod files;
mod folder;
mod lease;
mod listing;
mod objects;
mod probe;
mod relocate;
mod s3;
mod shelf;
mod upload;
mod waiting;

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::runtime::Handle;

pub use clear::{Clear, Cleared, FolderPlace, ObjectsPlace};
pub use folder::{Disk, look_for};
pub use objects::Objects;
pub use probe::{NAME as PROBE_NAME, is_stale};
pub use relocate::{FolderRoot, ObjectsRoot, Relocate};
pub use s3::{Bucket, S3};
pub use shelf::Folder;
pub use waiting::{LockPace, Patience, Waiting};

use self::files::Shelf;
use crate::domain::artifact_address::ArtifactAddress;
use crate::domain::failure::Outcome;
use crate::engine::cancel::Cancel;

/// A store that can be asked.
#[derive(Debug, Clone)]
pub enum ArtifactStore {
    /// A folder.
    Local(PathBuf),
    /// Objects whose keys begin alike.
    S3(Bucket),
}

/// How much lies in a store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    /// Files, or objects.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Symbolic links, which are not followed: what they point to is counted where it lies, or is another place's.
    pub links: u64,
    /// Folders that could not be read.
    pub unreadable: u64,
    /// The first of them, with the reason.
    pub unreadable_names: Vec<String>,
    /// Whether all was counted; else there was no more time.
    pub whole: bool,
}

/// Whether a thing is in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Presence {
    /// A file, or a folder with something in it.
    There,
    /// Neither.
    Gone,
    /// Nobody can say from here, for that reason.
    Unseen(String),
}

/// The files at an address; `None`: the address names no place that is reached without the tracking server. `work` is
/// a folder for what is staged on its way to S3. Nothing is looked at yet; what is done later ends with `cancel`.
///
/// # Errors
/// Configuration: certificates that cannot be read, no key for a server of one's own.
pub fn shelf(
    address: &ArtifactAddress,
    s3: &S3,
    runtime: &Handle,
    work: &Path,
    cancel: &Cancel,
) -> Outcome<Option<Box<dyn Shelf>>> {
    Ok(match ArtifactStore::at(address, s3)? {
        Some(ArtifactStore::Local(path)) => Some(Box::new(Folder::new(&path))),
        Some(ArtifactStore::S3(bucket)) => Some(Box::new(Objects::new(bucket, runtime.clone(), work, cancel.clone()))),
        None => None,
    })
}

impl ArtifactStore {
    /// The store at an address; `None`: the address names none that is reached without the tracking server.
    ///
    /// # Errors
    /// Configuration: certificates that cannot be read, no key for a server of one's own.
    pub fn at(address: &ArtifactAddress, s3: &S3) -> Outcome<Option<ArtifactStore>> {
        match address {
            ArtifactAddress::Local(path) => Ok(Some(ArtifactStore::Local(path.clone()))),
            ArtifactAddress::S3 { bucket, key } => s3.bucket(bucket, key).map(ArtifactStore::S3).map(Some),
            _ => Ok(None),
        }
    }

    /// That the store is there and can be read.
    ///
    /// # Errors
    /// Source: it is gone, is no folder, may not be read. Unreachable: no answer. Configuration: no key.
    pub async fn there(&self, patience: Duration) -> Outcome<()> {
        match self {
            ArtifactStore::Local(path) => folder::there(path, patience).await,
            ArtifactStore::S3(bucket) => bucket.there(patience).await,
        }
    }

    /// How much lies in it, as far as it can be counted in that time. Nothing is kept of what is counted.
    ///
    /// # Errors
    /// As [`ArtifactStore::there`]; interrupted.
    pub async fn inventory(&self, cancel: &Cancel, patience: Duration) -> Outcome<Inventory> {
        match self {
            ArtifactStore::Local(path) => folder::inventory(path, cancel, patience).await,
            ArtifactStore::S3(bucket) => bucket.inventory(cancel, patience).await,
        }
    }

    /// Whether there is a file at this very address, or something below it.
    ///
    /// # Errors
    /// As [`ArtifactStore::there`].
    pub async fn holds_something(&self, patience: Duration) -> Outcome<Presence> {
        match self {
            ArtifactStore::Local(path) => {
                let seen = look_for(vec![path.clone()], patience).await?;
                Ok(seen.into_iter().next().unwrap_or_else(|| Presence::Unseen("no time was left".to_owned())))
            }
            ArtifactStore::S3(bucket) => bucket.holds_something(patience).await,
        }
    }

    /// Writes a small file that bears the run's id, reads it back and deletes it, and removes what killed runs left of
    /// theirs. Tells how long that took.
    ///
    /// # Errors
    /// Target: it is not taken, is not the same when it is read, cannot be removed.
    pub async fn probe(&self, id: &str, patience: Duration) -> Outcome<Duration> {
        match self {
            ArtifactStore::Local(path) => folder::probe(path, id, patience).await,
            ArtifactStore::S3(bucket) => bucket.probe(id, patience).await,
        }
    }

    /// The disk below a folder; `None` for objects.
    ///
    /// # Errors
    /// Source: the system does not tell.
    pub async fn disk(&self, patience: Duration) -> Outcome<Option<Disk>> {
        match self {
            ArtifactStore::Local(path) => folder::disk(path, patience).await.map(Some),
            ArtifactStore::S3(_) => Ok(None),
        }
    }
}
