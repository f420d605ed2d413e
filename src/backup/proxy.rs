//! Files behind a tracking server's proxy, where nothing but the server is known.

use std::io::{self, Read};

use crate::artifact::files::{Entry, Files, Met, Opened, is_plain};
use crate::artifact::{Clear, Cleared, Waiting};
use crate::domain::failure::{Failure, Outcome};
use crate::domain::tracking::ArtifactFile;
use crate::mlflow::{Client, Download, Trouble};

/// The most folders that a walk keeps in mind: more are not made by any client, and a list that leads in circles would.
const MOST_OPEN: usize = 1_000_000;

/// The files below a path of the proxy's root.
pub(super) struct Proxied {
    client: Client,
    path: String,
    waiting: Waiting,
}

impl Proxied {
    /// Files of a server; nothing is asked yet.
    pub(super) fn new(client: Client, path: &str, waiting: Waiting) -> Proxied {
        Proxied { client, path: path.trim_matches('/').to_owned(), waiting }
    }

    /// The path from the proxy's root.
    fn whole(&self, path: &str) -> String {
        [self.path.as_str(), path].iter().filter(|p| !p.is_empty()).copied().collect::<Vec<_>>().join("/")
    }

    fn list(&self, path: &str) -> Outcome<Vec<ArtifactFile>> {
        match self.waiting.on(self.client.proxied(&self.whole(path)))? {
            Ok(found) => Ok(found),
            Err(trouble) if trouble.is_absent() && !path.is_empty() => Ok(Vec::new()),
            Err(trouble) => Err(self.unread(path, trouble)),
        }
    }

    fn unread(&self, path: &str, trouble: Trouble) -> Failure {
        Failure::from(trouble).on(format!("{}/{path}", self.place()))
    }
}

fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

fn entry(path: String, file: &ArtifactFile) -> Entry {
    Entry { path, bytes: file.size.unwrap_or(0), changed: None, modified: None, since: None }
}

impl Files for Proxied {
    fn place(&self) -> String {
        format!("mlflow-artifacts:/{} at {}", self.path, self.client.connection().address)
    }

    fn walk(&self, below: &str, each: &mut dyn FnMut(Met) -> Outcome<()>) -> Outcome<()> {
        let first = self.list(below)?;
        if first.is_empty() && !below.is_empty() {
            return match self.stat(below)? {
                Some(own) => each(Met::File(own)),
                None => Ok(()),
            };
        }
        let mut open = Vec::new();
        let mut here = Some((below.to_owned(), first));
        while let Some((folder, listed)) = here {
            for file in &listed {
                let path = join(&folder, &file.path);
                if !is_plain(&path) {
                    each(Met::Unreadable { path, why: "the server lists a name that no file can have".to_owned() })?;
                } else if !file.folder {
                    each(Met::File(entry(path, file)))?;
                } else if open.len() < MOST_OPEN {
                    open.push(path);
                } else {
                    return Err(Failure::source(format!("{}: too many folders", self.place())));
                }
            }
            here = match open.pop() {
                Some(folder) => {
                    let listed = self.list(&folder)?;
                    Some((folder, listed))
                }
                None => None,
            };
        }
        Ok(())
    }

    fn walk_folders(&self, each: &mut dyn FnMut(&str) -> Outcome<()>) -> Outcome<()> {
        self.list("")?.iter().filter(|file| file.folder).try_for_each(|file| each(&file.path))
    }

    fn open(&self, path: &str) -> Outcome<Option<Opened>> {
        match self.waiting.on(self.client.download(&self.whole(path)))? {
            Ok(download) => {
                let entry = Entry {
                    path: path.to_owned(),
                    bytes: download.size.unwrap_or(0),
                    changed: None,
                    modified: None,
                    since: None,
                };
                let body = Body { download, waiting: self.waiting.clone(), piece: Vec::new(), at: 0 };
                Ok(Some(Opened { entry, reader: Box::new(body) }))
            }
            // Releases differ in how they say that a file is not there; its folder tells.
            Err(trouble) => match self.stat(path)? {
                Some(_) => Err(self.unread(path, trouble)),
                None => Ok(None),
            },
        }
    }

    fn stat(&self, path: &str) -> Outcome<Option<Entry>> {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        let listed = self.list(folder)?;
        Ok(listed.iter().find(|file| !file.folder && file.path == name).map(|file| entry(path.to_owned(), file)))
    }

    fn stat_is_cheap(&self) -> bool {
        false
    }
}

impl Clear for Proxied {
    fn clear(&self) -> Outcome<Cleared> {
        let mut sum = Cleared::default();
        let counted = self.walk("", &mut |met| {
            sum.files += 1;
            sum.bytes += if let Met::File(entry) = met { entry.bytes } else { 0 };
            Ok(())
        });
        match counted {
            Ok(()) if sum.files == 0 => return Ok(sum),
            Ok(()) => {}
            // Releases differ in how they say that a folder is not there; that of the folder above tells.
            Err(failure) => return if self.is_there()? { Err(failure.as_target()) } else { Ok(sum) },
        }
        let deleted = self.waiting.on(self.client.delete(&self.path))?;
        // Releases differ in what they answer, so what is there now counts.
        match (deleted, self.is_there()) {
            (Err(trouble), Ok(true)) => Err(self.unread("", trouble).as_target()),
            (Ok(()), Ok(true)) if self.holds_something()? => {
                Err(Failure::target(format!("{}: the server said that it is deleted, and it is there", self.place())))
            }
            (_, Err(failure)) => Err(failure.as_target()),
            _ => Ok(sum),
        }
    }

    fn tidy(&self, _: &[&str]) -> Outcome<()> {
        Ok(())
    }
}

impl Proxied {
    /// Whether the folder above lists this one.
    fn is_there(&self) -> Outcome<bool> {
        let (above, name) = self.path.rsplit_once('/').unwrap_or(("", &self.path));
        let listed = match self.waiting.on(self.client.proxied(above))? {
            Ok(found) => found,
            Err(trouble) if trouble.is_absent() => Vec::new(),
            // 2.9 answers 500 for a folder that is not there, and cannot be asked for the one above for ever.
            Err(trouble) => return Err(Failure::from(trouble).on(self.place())),
        };
        Ok(listed.iter().any(|file| file.path == name))
    }

    fn holds_something(&self) -> Outcome<bool> {
        Ok(!self.list("")?.is_empty())
    }
}

/// A file on its way, as a reader. Its errors carry a [`Failure`].
struct Body {
    download: Download,
    waiting: Waiting,
    piece: Vec<u8>,
    at: usize,
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at >= self.piece.len() {
            let next = self.waiting.on(self.download.chunk()).map_err(io::Error::other)?;
            match next.map_err(|trouble| io::Error::other(Failure::from(trouble)))? {
                Some(piece) => (self.piece, self.at) = (piece, 0),
                None => return Ok(0),
            }
        }
        let left = self.piece.get(self.at..).unwrap_or_default();
        let length = buffer.len().min(left.len());
        for (to, from) in buffer.iter_mut().zip(left) {
            *to = *from;
        }
        self.at += length;
        Ok(length)
    }
}
