//! The file that a fingerprint is kept in: lines of JSON in gzip - a head, a thing per line in order, and a last line with
//! their number and the SHA-256 of all before it. Without the last line it is unfinished, with another sum damaged.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::bufread::GzDecoder;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::fingerprint::Coverage;
use super::sorted::{self, Sorter};
use crate::TOOL;
use crate::domain::address::shown;
use crate::domain::failure::{Failure, Outcome};
use crate::domain::verify::fingerprint::Entity;
use crate::domain::verify::ledger::Ledger;
use crate::newfile::NewFile;

/// The format that is written and read.
pub const SCHEMA: &str = "mlops.snapshot.v1";
/// Bytes of a line that is read: the longest are heads with all tables, and things with many keys.
const LINE: u64 = 16 << 20;

/// What a snapshot is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// [`SCHEMA`].
    pub schema: String,
    /// Who wrote it.
    pub tool: String,
    /// The run that did.
    pub id: String,
    /// When its reading began, RFC 3339.
    pub created: String,
    /// The server, masked.
    pub server: String,
    /// Its release.
    pub release: String,
    /// What was read, and how much of it.
    pub coverage: Coverage,
    /// The database, where its address was known.
    #[serde(default)]
    pub database: Option<Ledger>,
}

impl Head {
    /// The head of a snapshot that is created now.
    pub fn new(id: &str, created: &str, server: &str, release: &str) -> Head {
        Head {
            schema: SCHEMA.to_owned(),
            tool: TOOL.to_owned(),
            id: id.to_owned(),
            created: created.to_owned(),
            server: server.to_owned(),
            release: release.to_owned(),
            coverage: Coverage::default(),
            database: None,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Last {
    end: End,
}

#[derive(Serialize, Deserialize)]
struct End {
    things: u64,
    sha256: String,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

/// A snapshot in a file.
#[derive(Debug)]
pub struct Snapshot {
    path: PathBuf,
    /// What it is of.
    pub head: Head,
}

/// Writes what was gathered into a file of that name, which gets it when it is whole. Only its owner may read it.
///
/// # Errors
/// Refused: the name is taken. Target: it cannot be written.
pub(super) fn write(path: &Path, head: Head, things: Sorter) -> Outcome<Snapshot> {
    let failed = |e: std::io::Error| Failure::target(format!("{} cannot be written: {e}", shown(path)));
    let internal = |e: serde_json::Error| Failure::internal(format!("a snapshot: {e}"));
    let mut new = NewFile::create(path, 0o600)?;
    let mut out = GzEncoder::new(std::io::BufWriter::new(new.file()), Compression::fast());
    let mut hash = Sha256::new();
    let mut put = |line: &str| -> std::io::Result<()> {
        hash.update(line.as_bytes());
        hash.update(b"\n");
        out.write_all(line.as_bytes())?;
        out.write_all(b"\n")
    };
    put(&serde_json::to_string(&head).map_err(internal)?).map_err(failed)?;
    let things = things.each(|line| put(line).map_err(failed))?;
    let last = Last { end: End { things, sha256: hex(&hash.finalize()) } };
    let last = serde_json::to_string(&last).map_err(internal)?;
    let finish = || -> std::io::Result<()> {
        out.write_all(last.as_bytes())?;
        out.write_all(b"\n")?;
        out.finish()?.flush()
    };
    finish().map_err(failed)?;
    new.publish()?;
    Ok(Snapshot { path: path.to_owned(), head })
}

/// Where things are put into order on their way into a file.
pub(super) fn folder(file: &Path) -> PathBuf {
    crate::newfile::folder_of(file)
}

struct Lines {
    text: BufReader<GzDecoder<BufReader<File>>>,
    name: String,
}

impl Lines {
    fn open(path: &Path) -> Outcome<Lines> {
        let file = File::open(path).map_err(|e| {
            let failure = Failure::source(format!("{}: {e}", shown(path)));
            failure.hint("`mlops verify snapshot --file FILE` makes one")
        })?;
        Ok(Lines { text: BufReader::new(GzDecoder::new(BufReader::new(file))), name: shown(path) })
    }

    fn damaged(&self, what: impl std::fmt::Display) -> Failure {
        Failure::damaged(format!("{} is no whole snapshot: {what}", self.name)).hint(
            "make another one with `mlops verify snapshot`, if what it is to be compared with has not changed yet",
        )
    }

    /// The next line without its end; `None` after the last.
    fn next(&mut self) -> Outcome<Option<String>> {
        let mut line = Vec::new();
        let read = (&mut self.text).take(LINE).read_until(b'\n', &mut line);
        match read {
            Err(e) => Err(self.damaged(e)),
            Ok(0) => Ok(None),
            Ok(_) if line.pop() == Some(b'\n') => {
                String::from_utf8(line).map(Some).map_err(|_| self.damaged("it holds what is no UTF-8"))
            }
            Ok(_) => Err(self.damaged("its last line is cut off")),
        }
    }
}

impl Snapshot {
    /// Opens a file and reads all of it once, so that what is compared with it is whole.
    ///
    /// # Errors
    /// Source: it cannot be opened. Damaged: it is damaged, unfinished, or of a format that is not known.
    pub fn open(path: &Path) -> Outcome<Snapshot> {
        let mut lines = Lines::open(path)?;
        let first = lines.next()?.ok_or_else(|| lines.damaged("it is empty"))?;
        let told: serde_json::Value = serde_json::from_str(&first).map_err(|e| lines.damaged(e))?;
        match told.get("schema").and_then(serde_json::Value::as_str) {
            Some(SCHEMA) => {}
            Some(other) if other.starts_with("mlops.snapshot.") => {
                let failure = Failure::damaged(format!("{} is of the format {other}", lines.name));
                return Err(failure.hint(format!("this is {TOOL}, which reads {SCHEMA}: use a newer one")));
            }
            _ => return Err(lines.damaged("its head is none")),
        }
        let head: Head = serde_json::from_value(told).map_err(|e| lines.damaged(e))?;
        let (mut hash, mut things, mut held) = (Sha256::new(), 0_u64, first);
        // Each line is taken for the last until another one comes.
        while let Some(line) = lines.next()? {
            hash.update(held.as_bytes());
            hash.update(b"\n");
            things += 1;
            held = line;
        }
        let last: Last = serde_json::from_str(&held).map_err(|_| lines.damaged("it has no end"))?;
        // The head is no thing.
        if last.end.things + 1 != things || last.end.sha256 != hex(&hash.finalize()) {
            return Err(lines.damaged("its sum is another one"));
        }
        let mut rest = lines.text.into_inner().into_inner();
        if rest.fill_buf().is_ok_and(|rest| !rest.is_empty()) {
            return Err(Failure::damaged(format!("{}: something follows the end of the snapshot", shown(path))));
        }
        Ok(Snapshot { path: path.to_owned(), head })
    }

    /// Its things, in order.
    ///
    /// # Errors
    /// Source: the file is gone.
    pub fn things(&self) -> Outcome<impl Iterator<Item = Outcome<Entity>>> {
        let mut lines = Lines::open(&self.path)?;
        lines.next()?;
        let mut held = lines.next()?;
        Ok(std::iter::from_fn(move || {
            // The last line is none of them.
            let line = held.take()?;
            match lines.next() {
                Ok(next) => held = next,
                Err(failure) => return Some(Err(failure)),
            }
            held.is_some().then(|| sorted::read(&line))
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cut_and_every_flip_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let mut things = Sorter::new(folder.path());
        for n in (0..50).rev() {
            things.add(&Entity::of_history(&format!("{n:02}"), "loss", n, 7)).unwrap();
        }
        let path = folder.path().join("snapshot");
        write(&path, Head::new("i", "t", "http://h", "3.4.0"), things).unwrap();
        let ids: Vec<String> = Snapshot::open(&path).unwrap().things().unwrap().map(|e| e.unwrap().id).collect();
        assert_eq!(ids, (0..50).map(|n| format!("{n:02}/loss")).collect::<Vec<_>>());
        let whole = std::fs::read(&path).unwrap();
        let opens = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            Snapshot::open(&path).map(|s| s.head.release).map_err(|f| f.kind)
        };
        let damaged = Err(crate::domain::failure::Kind::Damaged);
        for cut in 0..whole.len() {
            assert_eq!(opens(&whole[..cut]), damaged, "{cut}");
        }
        // The head of gzip holds a time and a system, which are nobody's; so are bits of the byte before its sum and size.
        for at in (10..whole.len()).step_by(3).filter(|at| at + 9 != whole.len()) {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            assert_eq!(opens(&bytes), damaged, "{at}");
        }
        assert_eq!(opens(&[&whole[..], b"x"].concat()), damaged);
        assert_eq!(opens(&whole), Ok("3.4.0".to_owned()));
    }
}
