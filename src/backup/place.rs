//! Where the files below an address are read, and written to.

use std::path::{Path, PathBuf};

use tokio::runtime::Runtime;

use crate::artifact::files::{Files, Shelf};
use crate::artifact::{self, Clear, Folder, FolderPlace, FolderRoot, ObjectsPlace, ObjectsRoot, Relocate, S3, Waiting};
use crate::domain::artifact_address::ArtifactAddress;
use crate::domain::failure::{Failure, Outcome};
use crate::engine::cancel::Cancel;
use crate::mlflow::Client;

use super::bundle::{self, Bundle};
use super::proxy::Proxied;
use super::repository::Repository;

const BEHIND_PROXY: &str = "it lies behind the server's proxy: name the place that the server keeps its artifacts in \
                            (--artifact-root), or the server (--tracking-uri)";

/// The ways to places.
pub struct Ways {
    /// The artifact root, as the operator names it.
    pub artifact_root: Option<ArtifactAddress>,
    /// The tracking server: the way to what lies behind its proxy, where the artifact root is not known. What is wrong
    /// with its address matters only then.
    pub server: Outcome<Option<Client>>,
    /// The way to S3.
    pub s3: S3,
    /// What calls to servers run on.
    pub runtime: Runtime,
    /// Where files are on their way to S3.
    pub work_dir: PathBuf,
    /// Ends it early.
    pub cancel: Cancel,
}

impl Ways {
    /// The files below an address of the database; else why they cannot be reached.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub fn files(&self, address: &ArtifactAddress) -> Result<Box<dyn Files>, String> {
        match address {
            ArtifactAddress::Local(path) => Ok(Box::new(Folder::new(path))),
            ArtifactAddress::Proxy { host: None, path } => match &self.artifact_root {
                Some(root @ (ArtifactAddress::Local(_) | ArtifactAddress::S3 { .. })) => self.files(&root.join(path)),
                _ => match &self.server {
                    Ok(Some(server)) => Ok(Box::new(Proxied::new(server.clone(), path, self.waiting()))),
                    Err(failure) => Err(failure.message.clone()),
                    Ok(None) => Err(BEHIND_PROXY.to_owned()),
                },
            },
            ArtifactAddress::S3 { .. } => match self.remote(address) {
                Ok(Some(files)) => Ok(files),
                Ok(None) => Err("it names no place that is reached from here".to_owned()),
                Err(failure) => Err(failure.message),
            },
            ArtifactAddress::Elsewhere { why, .. } => Err((*why).to_owned()),
            _ => Err("it names no place that is reached from here".to_owned()),
        }
    }

    /// The place at an address of the database, to be emptied; else why it cannot be reached.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub fn emptied(&self, address: &ArtifactAddress) -> Result<Box<dyn Clear>, String> {
        match address {
            ArtifactAddress::Local(path) => Ok(Box::new(FolderPlace::new(path))),
            ArtifactAddress::Proxy { host: None, path } => match &self.artifact_root {
                Some(root @ (ArtifactAddress::Local(_) | ArtifactAddress::S3 { .. })) => self.emptied(&root.join(path)),
                _ => match &self.server {
                    Ok(Some(server)) => Ok(Box::new(Proxied::new(server.clone(), path, self.waiting()))),
                    Err(failure) => Err(failure.message.clone()),
                    Ok(None) => Err(BEHIND_PROXY.to_owned()),
                },
            },
            ArtifactAddress::S3 { bucket, key } => match self.s3.bucket(bucket, key) {
                Ok(bucket) => Ok(Box::new(ObjectsPlace::new(bucket, self.waiting()))),
                Err(failure) => Err(failure.message),
            },
            ArtifactAddress::Elsewhere { why, .. } => Err((*why).to_owned()),
            _ => Err("it names no place that is reached from here".to_owned()),
        }
    }

    /// A place of artifacts that is written to; else why it cannot be.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub fn written(&self, root: &ArtifactAddress) -> Result<Box<dyn Shelf>, String> {
        match root {
            ArtifactAddress::Local(path) => Ok(Box::new(Folder::new(&absolute(path)))),
            _ => match self.remote(root) {
                Ok(Some(shelf)) => Ok(shelf),
                Ok(None) => Err("nothing can be written there from here".to_owned()),
                Err(failure) => Err(failure.message),
            },
        }
    }

    /// A place within which things are moved; else why it cannot be reached.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub fn moved_within(&self, root: &ArtifactAddress) -> Result<Box<dyn Relocate>, String> {
        match root {
            ArtifactAddress::Local(path) => Ok(Box::new(FolderRoot::new(absolute(path)))),
            ArtifactAddress::S3 { bucket, key } => match self.s3.bucket(bucket, key) {
                Ok(bucket) => Ok(Box::new(ObjectsRoot::new(bucket, self.waiting()))),
                Err(failure) => Err(failure.message),
            },
            _ => Err("nothing can be moved in it from here".to_owned()),
        }
    }

    fn waiting(&self) -> Waiting {
        Waiting::new(self.runtime.handle().clone(), self.cancel.clone())
    }

    fn remote(&self, address: &ArtifactAddress) -> Outcome<Option<Box<dyn Shelf>>> {
        artifact::shelf(address, &self.s3, self.runtime.handle(), &self.work_dir, &self.cancel)
    }

    /// The backups of a place, or the one that a file holds. Nothing is looked for in a place yet.
    ///
    /// # Errors
    /// As [`Ways::shelf`], and as [`Bundle::open`].
    pub fn backups(&self, text: &str) -> Outcome<Repository> {
        match place(text) {
            ArtifactAddress::Local(path) if bundle::is_file(&path) => {
                let bundle = Bundle::open(&absolute(&path), &self.work_dir, &self.cancel)?;
                Ok(Repository { shelf: Box::new(bundle), fixed: true })
            }
            _ => Ok(Repository { shelf: self.shelf(text, true)?, fixed: false }),
        }
    }

    /// The place of backups (`private`: for their owner alone), or of restored artifacts, at an address.
    ///
    /// # Errors
    /// Usage: no place that can be written to. Configuration: no key for it.
    pub fn shelf(&self, text: &str, private: bool) -> Outcome<Box<dyn Shelf>> {
        let address = if private { place(text) } else { ArtifactAddress::parse(text) };
        if let ArtifactAddress::Local(path) = &address
            && !text.is_empty()
        {
            let folder = Folder::new(&absolute(path));
            return Ok(Box::new(if private { folder.private() } else { folder }));
        }
        self.remote(&address)?.ok_or_else(|| {
            Failure::usage(format!("`{address}` is neither a folder nor s3://bucket/path"))
                .hint("name a folder of this machine, or s3://bucket/path")
        })
    }
}

/// The address that an operator names. A path is what it says: MLflow's decoding of `%` is for what its database holds.
fn place(text: &str) -> ArtifactAddress {
    match ArtifactAddress::parse(text) {
        ArtifactAddress::Local(_) if !text.starts_with("file:") => ArtifactAddress::Local(PathBuf::from(text)),
        other => other,
    }
}

/// A path from the root on.
pub fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
