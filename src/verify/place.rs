//! Where the files of a run or a logged model are written and read: as MLflow's client does it, through the server's proxy
//! or straight into the folder or the bucket that the server names.

use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

use tokio::runtime::Handle;

use crate::artifact::Waiting;
use crate::artifact::files::{Shelf, There};
use crate::backup::place::Ways;
use crate::domain::artifact_address::ArtifactAddress;
use crate::domain::failure::{Failure, Outcome};
use crate::mlflow::Client;
use crate::registry::files::{Way, direct};

/// For one file through the proxy.
const FILE: Duration = Duration::from_secs(60);
/// Folders around a place that MLflow makes for a run or a logged model: `<experiment>/<run>/artifacts`.
const AROUND: usize = 3;

enum Reach {
    Proxy(Client, String, Waiting),
    Own(Box<dyn Shelf>),
}

/// One place.
pub struct Place {
    address: ArtifactAddress,
    reach: Reach,
}

impl Place {
    /// The place that an address of the server's means. Nothing is asked yet. Not to be used within the runtime.
    ///
    /// # Errors
    /// Target: it is not reached from here. Configuration: no key for it.
    pub fn at(ways: &Ways, client: &Client, address: &str) -> Outcome<Place> {
        let address = ArtifactAddress::parse(address);
        let reach = match direct(client, &address) {
            Way::Proxy(path) => {
                Reach::Proxy(client.clone(), path, Waiting::new(ways.runtime.handle().clone(), ways.cancel.clone()))
            }
            _ => Reach::Own(own(ways, &address)?),
        };
        Ok(Place { address, reach })
    }

    /// How it is reached, for people.
    pub fn way(&self) -> &'static str {
        match (&self.reach, &self.address) {
            (Reach::Proxy(..), _) => "through the server's proxy",
            (_, ArtifactAddress::S3 { .. }) => "straight to S3",
            _ => "straight into the folder",
        }
    }

    /// Writes a file; one that is there is another's and stays.
    ///
    /// # Errors
    /// Target: the place does not take it. Interrupted.
    pub fn put(&self, path: &str, content: &[u8]) -> Outcome<()> {
        match &self.reach {
            Reach::Proxy(client, root, waiting) => {
                let sent = waiting.on(client.upload(&join(root, path), content.to_vec(), FILE))?;
                sent.map_err(|trouble| trouble.failure.on(path))
            }
            Reach::Own(shelf) => {
                let mut staged = shelf.stage()?;
                let unwritten = |e| Failure::target(format!("{}/{path}: {e}", shelf.place()));
                staged.write_all(content).map_err(unwritten)?;
                if shelf.put(staged, path, There::Stays)? {
                    return Ok(());
                }
                Err(Failure::target(format!("{}/{path}: another file is there already", shelf.place())))
            }
        }
    }

    /// Waits until all that was written lasts.
    ///
    /// # Errors
    /// Target: the disk failed.
    pub fn settle(&self) -> Outcome<()> {
        match &self.reach {
            Reach::Proxy(..) => Ok(()),
            Reach::Own(shelf) => shelf.settle(),
        }
    }

    /// Reads a file of at most so many bytes; `None`: it is not there.
    ///
    /// # Errors
    /// Source: it cannot be read, or is larger. Interrupted.
    pub fn get(&self, path: &str, most: usize) -> Outcome<Option<Vec<u8>>> {
        let large = || Failure::source(format!("{path}: it is larger than what was written"));
        let mut content = Vec::new();
        match &self.reach {
            Reach::Proxy(client, root, waiting) => {
                let mut download = match waiting.on(client.download(&join(root, path)))? {
                    Ok(download) => download,
                    Err(trouble) if trouble.is_absent() => return Ok(None),
                    Err(trouble) => return Err(trouble.failure.on(path)),
                };
                while let Some(piece) = waiting.on(download.chunk())?.map_err(|t| t.failure.on(path))? {
                    content.extend(piece);
                    if content.len() > most {
                        return Err(large());
                    }
                }
            }
            Reach::Own(shelf) => {
                let Some(opened) = shelf.open(path)? else { return Ok(None) };
                let read = opened.reader.take(most as u64 + 1).read_to_end(&mut content);
                read.map_err(|e| Failure::source(format!("{}/{path}: {e}", shelf.place())))?;
                if content.len() > most {
                    return Err(large());
                }
            }
        }
        Ok(Some(content))
    }

    /// Removes files, and the folders that this leaves empty. Through the proxy the place goes as a whole: MLflow 2.9
    /// deletes no single file there (store/artifact/local_artifact_repo.py). What is not there is removed.
    ///
    /// # Errors
    /// Target: the place does not let go of them.
    pub fn remove(&self, paths: &[String], runtime: &Handle) -> Outcome<()> {
        match &self.reach {
            Reach::Proxy(client, root, _) => {
                let client = client.clone();
                let removed = runtime.block_on(client.within(FILE).delete(root));
                let Err(trouble) = removed else { return Ok(()) };
                // 2.9 answers 500 where there is no such folder; what matters is that nothing is there.
                match runtime.block_on(client.within(FILE).proxied(root)) {
                    Ok(left) if left.is_empty() => Ok(()),
                    Err(t) if t.is_absent() => Ok(()),
                    _ => Err(trouble.failure),
                }
            }
            Reach::Own(shelf) => {
                paths.iter().try_for_each(|path| shelf.remove(path))?;
                if let ArtifactAddress::Local(folder) = &self.address {
                    // Those with something in them refuse.
                    let _ = folder.ancestors().take(AROUND).map(std::fs::remove_dir).find(Result::is_err);
                }
                Ok(())
            }
        }
    }
}

fn own(ways: &Ways, address: &ArtifactAddress) -> Outcome<Box<dyn Shelf>> {
    match address {
        ArtifactAddress::Local(path) if path.is_relative() => {
            Err(Failure::target(format!("{address} is a relative path: it means another place to each process"))
                .hint("start the server with an absolute --default-artifact-root, or with --serve-artifacts"))
        }
        ArtifactAddress::Local(_) | ArtifactAddress::S3 { .. } => {
            if let ArtifactAddress::Local(path) = address {
                reachable(path)?;
            }
            ways.shelf(&address.to_string(), false)
        }
        other => Err(Failure::target(format!("{other} is not reached from here"))),
    }
}

/// A folder that a server on another machine names may be one that this machine does not have: it would be made here, and
/// the model in it be found by nobody.
fn reachable(path: &Path) -> Outcome<()> {
    // A new server's root is made with the first file, and the folder around it is there.
    let root = path.ancestors().nth(AROUND + 2).unwrap_or(path);
    if root.is_dir() {
        return Ok(());
    }
    Err(Failure::target(format!("{}: there is no such folder on this machine", crate::domain::address::shown(root)))
        .hint("is the server on another machine? Then `mlflow server --serve-artifacts` lets clients reach its files"))
}

fn join(root: &str, path: &str) -> String {
    if root.is_empty() { path.to_owned() } else { format!("{root}/{path}") }
}
