//! Where the files below an address are read, and written to.

use std::path::{Path, PathBuf};

use tokio::runtime::Runtime;

use crate::artifact::files::{Files, Shelf};
use crate::artifact::{self, Folder, S3};
use crate::domain::artifact_address::ArtifactAddress;
use crate::domain::failure::{Failure, Outcome};
use crate::engine::cancel::Cancel;

/// The ways to places.
pub struct Ways {
    /// The artifact root, as the operator names it.
    pub artifact_root: Option<ArtifactAddress>,
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
                _ => Err("it lies behind the server's proxy: name the place that the server keeps its artifacts in \
                          (--artifact-root)"
                    .to_owned()),
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

    fn remote(&self, address: &ArtifactAddress) -> Outcome<Option<Box<dyn Shelf>>> {
        artifact::shelf(address, &self.s3, self.runtime.handle(), &self.work_dir, &self.cancel)
    }

    /// The place of backups (`private`: for their owner alone), or of restored artifacts, at an address.
    ///
    /// # Errors
    /// Usage: no place that can be written to. Configuration: no key for it.
    pub fn shelf(&self, text: &str, private: bool) -> Outcome<Box<dyn Shelf>> {
        let address = ArtifactAddress::parse(text);
        if let ArtifactAddress::Local(path) = &address {
            let folder = Folder::new(&absolute(path));
            return Ok(Box::new(if private { folder.private() } else { folder }));
        }
        self.remote(&address)?.ok_or_else(|| {
            Failure::usage(format!("{address} is neither a folder nor s3://bucket/path"))
                .hint("name a folder of this machine, or s3://bucket/path")
        })
    }
}

/// A path from the root on.
pub fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
