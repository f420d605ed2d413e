//! The files of exported versions, below one folder: `<model>/<version>/...`, and `manifest.json`, which comes last. A file
//! has its name when it is whole; one that is there and is not ours stays as it is.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::export::Taken;
use crate::TOOL;
use crate::artifact::Folder;
use crate::artifact::files::{Entry, Files, Met, Shelf, There};
use crate::backup::place::{Ways, absolute};
use crate::domain::failure::{Failure, Kind, Outcome};
use crate::engine::copy::Work;
use crate::engine::event::Event;
use crate::engine::pool;

/// The list's name.
pub const MANIFEST: &str = "manifest.json";
/// Its schema.
const SCHEMA: &str = "mlops.models.export-files.v1";
/// Bytes of a list that is read.
const MOST: u64 = 256 << 20;
/// What is read at once.
const STEP: usize = 256 << 10;
/// A file that a store does not give at once is tried again.
const TRIES: u32 = 3;

/// What lies in the folder.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Manifest {
    schema: String,
    tool: String,
    /// When, RFC 3339.
    created: String,
    /// Version by version.
    pub versions: Vec<Stored>,
}

/// The files of a version.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Stored {
    /// The model.
    pub model: String,
    /// Number.
    pub version: u64,
    /// Where the version says that they are.
    source: String,
    /// The folder, below that of the export.
    pub folder: String,
    /// Its files, by path.
    pub files: Vec<StoredFile>,
    /// Why there are not all of them; `None`: there are.
    pub fault: Option<String>,
}

/// A file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredFile {
    /// Path below the version's folder.
    pub path: String,
    /// Bytes.
    pub bytes: u64,
    /// SHA-256 of its content.
    pub sha256: String,
}

/// What was downloaded.
#[derive(Debug, Clone)]
pub struct Downloaded {
    /// The folder.
    pub folder: String,
    /// What lies there now.
    pub manifest: Manifest,
    /// Files that were written, and their bytes.
    pub written: (u64, u64),
    /// Files that were there already.
    pub kept: u64,
}

struct Job<'a> {
    ways: &'a Ways,
    shelf: &'a Folder,
    work: &'a Work<'a>,
    /// What an earlier run of the same export wrote, by path.
    earlier: BTreeMap<String, StoredFile>,
}

/// A folder that can take the files.
pub struct Prepared {
    shelf: Folder,
    earlier: Option<Manifest>,
}

/// Looks at the folder, before anything is asked.
///
/// # Errors
/// Refused, Target: a list is there that is not one of ours, or cannot be read.
pub fn prepare(folder: &Path) -> Outcome<Prepared> {
    let shelf = Folder::new(&absolute(folder));
    let Some(opened) = shelf.open(MANIFEST).map_err(Failure::as_target)? else {
        return Ok(Prepared { shelf, earlier: None });
    };
    let mut text = Vec::new();
    let read = opened.reader.take(MOST).read_to_end(&mut text);
    read.map_err(|e| Failure::target(format!("{}/{MANIFEST}: {e}", shelf.place())))?;
    let earlier: Option<Manifest> = serde_json::from_slice(&text).ok().filter(|m: &Manifest| m.schema == SCHEMA);
    match earlier {
        Some(earlier) => Ok(Prepared { shelf, earlier: Some(earlier) }),
        None => Err(another(&shelf)),
    }
}

fn another(shelf: &Folder) -> Failure {
    Failure::refused(format!("{} holds another export: its {MANIFEST} is there", shelf.place()))
        .hint("name an empty folder, or one that does not exist yet")
}

/// Downloads the files of these versions. What is wrong with one of them is told beside it.
///
/// # Errors
/// Refused: the folder holds another export. Target: the folder takes no files. Interrupted.
pub fn download(prepared: Prepared, taken: &[Taken], ways: &Ways, made: &str, work: &Work<'_>) -> Outcome<Downloaded> {
    let Prepared { shelf, earlier } = prepared;
    let (mut known, again) = (BTreeMap::new(), earlier.is_some());
    if let Some(earlier) = earlier {
        let of = |m: &Stored| (m.model.clone(), m.version, m.source.clone());
        let wanted: Vec<_> =
            taken.iter().map(|t| (t.version.name.clone(), t.version.version, shown(&t.version.source))).collect();
        if earlier.versions.iter().map(of).collect::<Vec<_>>() != wanted {
            return Err(another(&shelf));
        }
        for version in earlier.versions {
            known.extend(version.files.into_iter().map(|file| (format!("{}/{}", version.folder, file.path), file)));
        }
    }
    work.events.event(Event::Phase { name: "downloading files", total: None, unit: "bytes" });
    let job = Job { ways, shelf: &shelf, work, earlier: known };
    let done = pool::run(work.jobs, taken.iter().collect(), work.cancel, |taken| job.version(taken))?;
    let mut written = (0, 0);
    let mut kept = 0;
    let mut versions = Vec::new();
    for (stored, counts) in done {
        written = (written.0 + counts.written.0, written.1 + counts.written.1);
        kept += counts.kept;
        versions.push(stored);
    }
    let manifest = Manifest { schema: SCHEMA.to_owned(), tool: TOOL.to_owned(), created: made.to_owned(), versions };
    let mut text = serde_json::to_vec_pretty(&manifest).map_err(|e| Failure::internal(format!("{MANIFEST}: {e}")))?;
    text.push(b'\n');
    // All files last before the list says so.
    shelf.settle()?;
    let mut staged = shelf.stage()?;
    staged.write_all(&text).map_err(|e| Failure::target(format!("{}/{MANIFEST}: {e}", shelf.place())))?;
    let there = if again { There::Replaced } else { There::Stays };
    if !shelf.put(staged, MANIFEST, there)? && there == There::Stays {
        return Err(another(&shelf));
    }
    shelf.settle()?;
    Ok(Downloaded { folder: shelf.place(), manifest, written, kept })
}

/// Whether a failure is the folder's or the run's: every other file would meet it as well.
fn stops(failure: &Failure) -> bool {
    matches!(failure.kind, Kind::Target | Kind::Interrupted(_) | Kind::Internal)
}

/// A source without its password: the list is read by anybody.
fn shown(source: &str) -> String {
    crate::domain::harmless::masked(source)
}

#[derive(Default)]
struct Counts {
    written: (u64, u64),
    kept: u64,
}

impl Job<'_> {
    /// The files of a version. Only what stops the whole export is an error.
    fn version(&self, taken: &Taken) -> Outcome<(Stored, Counts)> {
        let (version, mut counts) = (&taken.version, Counts::default());
        let mut stored = Stored {
            model: version.name.clone(),
            version: version.version,
            source: shown(&version.source),
            folder: format!("{}/{}", safe(&version.name), version.version),
            files: Vec::new(),
            fault: None,
        };
        if let Err(failure) = self.all(taken, &mut stored, &mut counts) {
            if stops(&failure) {
                return Err(failure);
            }
            stored.fault = Some(failure.message);
        }
        stored.files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok((stored, counts))
    }

    fn all(&self, taken: &Taken, stored: &mut Stored, counts: &mut Counts) -> Outcome<()> {
        let gone = || Failure::source(taken.faults.join("; "));
        let place = taken.place.as_ref().ok_or_else(gone)?;
        let files = self.ways.files(place).map_err(|why| Failure::source(format!("{place}: {why}")))?;
        let (mut fault, mut stop) = (None, None);
        let walked = files.walk("", &mut |met| {
            let taken = match met {
                Met::File(entry) => self.file(files.as_ref(), &entry, &stored.folder, counts),
                Met::Unreadable { path, why } => Err(Failure::source(format!("{place}/{path}: {why}"))),
            };
            match taken {
                Ok(file) => stored.files.push(file),
                Err(failure) if stops(&failure) => {
                    stop = Some(failure.clone());
                    return Err(failure);
                }
                Err(failure) => drop(fault.get_or_insert(failure)),
            }
            Ok(())
        });
        match (stop, walked.map_err(Failure::as_source), fault) {
            (Some(stop), ..) => Err(stop),
            (None, Err(failure), _) | (None, Ok(()), Some(failure)) => Err(failure),
            (None, Ok(()), None) if stored.files.is_empty() => {
                Err(Failure::source(format!("{place}: there are no files")))
            }
            (None, Ok(()), None) => Ok(()),
        }
    }

    fn file(&self, files: &dyn Files, entry: &Entry, folder: &str, counts: &mut Counts) -> Outcome<StoredFile> {
        let target = format!("{folder}/{}", entry.path);
        let earlier = self.earlier.get(&target);
        if let Some(earlier) = earlier.filter(|e| e.bytes == entry.bytes)
            && self.holds(&target, earlier)?
        {
            counts.kept += 1;
            return Ok(earlier.clone());
        }
        let mut turn = 1;
        let (staged, file) = loop {
            self.work.cancel.check()?;
            match self.fetch(files, entry) {
                Err(failure) if turn < TRIES && matches!(failure.kind, Kind::Source | Kind::Unreachable) => {
                    tracing::info!("{failure}; once more");
                    turn += 1;
                }
                other => break other?,
            }
        };
        let there = if earlier.is_some() { There::Replaced } else { There::Stays };
        if self.shelf.put(staged, &target, there)? {
            counts.written = (counts.written.0 + 1, counts.written.1 + file.bytes);
        } else if self.holds(&target, &file)? {
            counts.kept += 1;
        } else {
            return Err(Failure::refused(format!("{}/{target}: another file is there already", self.shelf.place())));
        }
        Ok(file)
    }

    /// Whether a file is there with this content.
    fn holds(&self, target: &str, file: &StoredFile) -> Outcome<bool> {
        match self.shelf.open(target).map_err(Failure::as_target)? {
            Some(mut opened) if opened.entry.bytes == file.bytes => {
                let unread = |e| Failure::target(format!("{}/{target}: {e}", self.shelf.place()));
                Ok(hash(&mut opened.reader, |_| Ok(())).map_err(unread)?.1 == file.sha256)
            }
            _ => Ok(false),
        }
    }

    fn fetch(&self, files: &dyn Files, entry: &Entry) -> Outcome<(crate::artifact::files::Staged, StoredFile)> {
        let place = || format!("{}/{}", files.place(), entry.path);
        let gone = || Failure::source(format!("{}: it is not there any more", place()));
        let mut opened = files.open(&entry.path).map_err(Failure::as_source)?.ok_or_else(gone)?;
        let mut staged = self.shelf.stage()?;
        let unwritten = |e: io::Error| Failure::target(format!("{} cannot be written: {e}", self.shelf.place()));
        let mut lost = None;
        let read = hash(&mut opened.reader, |step| {
            self.work.cancel.check().map_err(io::Error::other)?;
            self.work.events.event(Event::Done { table: String::new(), units: step.len() as u64 });
            staged.write_all(step).inspect_err(|e| lost = Some(unwritten(io::Error::new(e.kind(), e.to_string()))))
        });
        self.work.cancel.check()?;
        let (bytes, sha256) = match (read, lost) {
            (Ok(read), _) => read,
            (Err(_), Some(lost)) => return Err(lost),
            (Err(e), None) => return Err(Failure::source(format!("{}: {e}", place()))),
        };
        staged.seek(SeekFrom::Start(0)).map_err(unwritten)?;
        let (_, back) = hash(&mut staged, |_| Ok(())).map_err(unwritten)?;
        if back != sha256 {
            return Err(Failure::target(format!(
                "{}: a file is read back otherwise than it was written",
                self.shelf.place()
            ))
            .hint("the disk or the mount loses data: look at `dmesg` now"));
        }
        Ok((staged, StoredFile { path: entry.path.clone(), bytes, sha256 }))
    }
}

/// Bytes and SHA-256 of what a reader gives, step by step.
fn hash(from: &mut dyn Read, mut each: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<(u64, String)> {
    let (mut hash, mut bytes, mut buffer) = (Sha256::new(), 0, vec![0; STEP]);
    loop {
        let read = match from.read(&mut buffer) {
            Ok(0) => {
                let hex = hash.finalize().iter().fold(String::new(), |mut hex, byte| {
                    let _ = write!(hex, "{byte:02x}");
                    hex
                });
                return Ok((bytes, hex));
            }
            Ok(read) => read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        let step = buffer.get(..read).unwrap_or_default();
        hash.update(step);
        bytes += read as u64;
        each(step)?;
    }
}

/// A model's name as a folder's: whatever is not plain is written as `%` and two hex digits per byte, so two names never
/// become one; a name that would be too long ends in a part of its SHA-256.
fn safe(name: &str) -> String {
    const LONGEST: usize = 200;
    let reserved = name.starts_with('.') || name == MANIFEST;
    let mut out = String::new();
    for (at, byte) in name.bytes().enumerate() {
        let plain = byte.is_ascii_alphanumeric() || b"-_ .".contains(&byte);
        if plain && !(at == 0 && reserved) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    if out.len() <= LONGEST && !out.is_empty() {
        return out;
    }
    let digest = Sha256::digest(name.as_bytes());
    let short = out.chars().take(LONGEST - 20).chain(['%']).collect::<String>();
    digest.iter().take(8).fold(short, |mut short, byte| {
        let _ = write!(short, "{byte:02x}");
        short
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_folders_of_their_own() {
        let long = "ä".repeat(256);
        let other = format!("{}ö", "ä".repeat(255));
        let names =
            ["m", "a/b", "a%2Fb", "a\\b", "..", ".", ".x", "%2Ex", MANIFEST, "%6Danifest.json", "", &long, &other];
        let mut seen = std::collections::BTreeSet::new();
        for name in names {
            let safe = safe(name);
            assert!(!safe.contains(['/', '\0', '\\']) && !safe.starts_with('.') && !safe.is_empty(), "{name}: {safe}");
            assert!(safe.len() <= 255 && safe != MANIFEST, "{name}: {safe}");
            assert!(seen.insert(safe.clone()), "{name}: {safe}");
        }
        assert_eq!(safe("team/model 1@x"), "team%2Fmodel 1%40x");
    }
}
