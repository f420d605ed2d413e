//! Where backups are: a folder or a bucket, with a folder for each backup and one pool of contents for all.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use sha2::{Digest as _, Sha256};

use super::manifest::{AUTH, DATABASE, LIST, Line, MANIFEST, MOST, Manifest, Part, SEAL, Scope, seal};
use super::object::{self, Tally};
use crate::archive::layout::{hex, sha256_hex};
use crate::artifact::files::{Files, Met, Shelf, There};
use crate::domain::failure::{Failure, Kind, Outcome};
use crate::store::sqlite::ledger::{Ledger, LedgerFile};

/// A pin's file beside the manifest.
pub const PIN: &str = "pinned";
/// The proof of the last verifications, beside the manifest.
pub const PROOF: &str = "proof.json";
/// The most bytes of a line of a list.
const LONGEST_LINE: u64 = 64 << 10;
/// What is read at once.
const STEP: usize = 256 << 10;

/// A place of backups.
pub struct Repository {
    /// Its files.
    pub shelf: Box<dyn Shelf>,
    /// Whether it is one backup in a file, to which nothing is added.
    pub fixed: bool,
}

/// What is known of a backup without looking into it.
#[derive(Debug)]
pub struct Listed {
    /// Its id.
    pub id: String,
    /// What it says of itself; a failure: it is damaged or newer. `None`: it was never finished.
    pub manifest: Option<Outcome<Manifest>>,
    /// Whether it is kept for ever.
    pub pinned: bool,
    /// What was proven of it.
    pub proof: Proof,
}

/// What was proven of a backup, and when (RFC 3339).
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Proof {
    /// When every byte of it was last found to be what it must be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified: Option<String>,
    /// When its databases were last restored into scratch ones, besides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drilled: Option<String>,
    /// SHA-256 of these two: a proof that was damaged is none.
    #[serde(default)]
    pub seal: String,
}

impl Proof {
    /// What the seal must be.
    pub(super) fn sealed(&self) -> String {
        let part = |text: &Option<String>| text.clone().unwrap_or_default();
        sha256_hex(format!("{} {}", part(&self.verified), part(&self.drilled)).as_bytes())
    }
}

/// Whether that is an id: `YYYYMMDDTHHMMSSZ-<8 hex>`.
pub fn is_id(text: &str) -> bool {
    let digits = |from: usize, to: usize| text.get(from..to).is_some_and(|t| t.bytes().all(|b| b.is_ascii_digit()));
    text.len() == 25
        && digits(0, 8)
        && text.get(8..9) == Some("T")
        && digits(9, 15)
        && text.get(15..17) == Some("Z-")
        && text.get(17..).is_some_and(|t| t.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
}

/// Reads a file whole, if it is not longer than that.
fn read_whole(files: &dyn Files, path: &str, most: u64) -> Outcome<Option<Vec<u8>>> {
    let Some(opened) = files.open(path)? else { return Ok(None) };
    let mut bytes = Vec::new();
    let read = opened.reader.take(most + 1).read_to_end(&mut bytes);
    read.map_err(|e| Failure::source(format!("{}/{path} cannot be read: {e}", files.place())))?;
    if bytes.len() as u64 > most {
        return Err(Failure::damaged(format!("{}/{path} is larger than it can be", files.place())));
    }
    Ok(Some(bytes))
}

/// How many bytes a reader gives, and their SHA-256.
///
/// # Errors
/// It fails.
pub fn hash(from: &mut dyn Read) -> std::io::Result<(u64, String)> {
    let (mut hash, mut bytes) = (Sha256::new(), 0u64);
    let mut buffer = vec![0; STEP];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok((bytes, hex(&hash.finalize()))),
            Ok(read) => {
                hash.update(buffer.get(..read).unwrap_or_default());
                bytes += read as u64;
            }
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

impl Repository {
    /// The backups there, the oldest first. `None` in the place of a manifest: it is unfinished.
    ///
    /// # Errors
    /// Source: the place does not answer.
    pub fn list(&self) -> Outcome<Vec<Listed>> {
        self.ids()?.into_iter().map(|id| self.look(&id)).collect()
    }

    /// The ids of all that was ever begun there and not removed, the oldest first.
    ///
    /// # Errors
    /// Source: the place does not answer.
    pub fn ids(&self) -> Outcome<BTreeSet<String>> {
        let mut ids = BTreeSet::new();
        self.shelf.walk_folders(&mut |name| {
            if is_id(name) {
                ids.insert(name.to_owned());
            }
            Ok(())
        })?;
        Ok(ids)
    }

    /// One backup by its id.
    ///
    /// # Errors
    /// Source: the place does not answer.
    pub fn look(&self, id: &str) -> Outcome<Listed> {
        let manifest = match self.manifest(id) {
            Ok(manifest) => manifest.map(Ok),
            Err(failure) if failure.kind == Kind::Damaged => Some(Err(failure)),
            Err(failure) => return Err(failure),
        };
        let pinned = self.shelf.stat(&format!("{id}/{PIN}"))?.is_some();
        let proof = self.proof(id)?;
        // What was pinned or proven was whole once.
        let lost = || Failure::damaged(format!("the backup {id} is damaged: its `{MANIFEST}` or `{SEAL}` is gone"));
        let manifest = manifest.or_else(|| (pinned || proof != Proof::default()).then(|| Err(lost())));
        Ok(Listed { id: id.to_owned(), manifest, pinned, proof })
    }

    /// What was proven of a backup; what is no proof proves nothing.
    ///
    /// # Errors
    /// Source: the place does not answer.
    pub fn proof(&self, id: &str) -> Outcome<Proof> {
        let proof = read_whole(self.shelf.as_ref(), &format!("{id}/{PROOF}"), MOST)?;
        let proof: Option<Proof> = proof.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        Ok(proof.filter(|proof| proof.seal == proof.sealed()).unwrap_or_default())
    }

    /// What a backup says of itself; `None`: it is unfinished, or not there.
    ///
    /// # Errors
    /// Damaged: it is not what its seal says. Source: the place does not answer.
    pub fn manifest(&self, id: &str) -> Outcome<Option<Manifest>> {
        let read = |file: &str| read_whole(self.shelf.as_ref(), &format!("{id}/{file}"), MOST);
        let (text, sealed) = match (read(MANIFEST)?, read(SEAL)?) {
            (Some(text), Some(sealed)) => (text, sealed),
            // The seal comes last and goes first.
            (None, Some(_)) => {
                return Err(Failure::damaged(format!("the backup {id} is damaged: its `{MANIFEST}` is gone")));
            }
            (_, None) => return Ok(None),
        };
        let manifest = Manifest::parse(&text, &sealed).map_err(|f| f.on(format!("the backup {id}")))?;
        if manifest.id != id {
            return Err(Failure::damaged(format!("the backup {id} says that it is {}", manifest.id)));
        }
        Ok(Some(manifest))
    }

    /// Whether a backup has a manifest and no seal to it.
    ///
    /// # Errors
    /// Source: the place does not answer.
    pub fn lacks_seal(&self, id: &str) -> Outcome<bool> {
        let there = |file: &str| Ok::<_, Failure>(self.shelf.stat(&format!("{id}/{file}"))?.is_some());
        Ok(there(MANIFEST)? && !there(SEAL)?)
    }

    /// The id of a backup that comes after all that are there: this one, or where others were begun in the same second,
    /// one that follows theirs.
    ///
    /// # Errors
    /// Source: the place does not answer. Target: no such id is left.
    pub fn next_id(&self, id: &str) -> Outcome<String> {
        let (second, own) = id.split_at_checked(17).unwrap_or((id, ""));
        let ids = self.ids()?;
        let others = ids.iter().filter_map(|other| other.strip_prefix(second));
        let last = others.filter_map(|end| u32::from_str_radix(end, 16).ok()).max();
        match last.filter(|last| u32::from_str_radix(own, 16).is_ok_and(|own| own <= *last)) {
            Some(last) => match last.checked_add(1) {
                Some(next) => Ok(format!("{second}{next:08x}")),
                None => Err(Failure::target("no id is left of this second").hint("begin once more")),
            },
            None => Ok(id.to_owned()),
        }
    }

    /// Finishes a backup that lacks nothing but its seal: all that its manifest names had reached the disk before.
    /// Whether it is one now.
    ///
    /// # Errors
    /// Source, Target: the place does not answer.
    pub fn finish(&self, id: &str) -> Outcome<bool> {
        let Some(text) = read_whole(self.shelf.as_ref(), &format!("{id}/{MANIFEST}"), MOST)? else { return Ok(false) };
        let Ok(manifest) = Manifest::parse(&text, seal(&text).as_bytes()) else { return Ok(false) };
        let databases = std::iter::once(&manifest.database).chain(&manifest.auth).map(|d| &d.archive);
        for part in databases.chain([&manifest.artifacts.list]) {
            match self.check_part(&manifest, part, &mut |_| Ok(())) {
                Err(failure) if failure.kind == Kind::Damaged => return Ok(false),
                other => other?,
            }
        }
        if manifest.id != id {
            return Ok(false);
        }
        self.write(&format!("{id}/{SEAL}"), seal(&text).as_bytes())?;
        self.shelf.settle().map(|()| true)
    }

    /// The one backup of a file.
    ///
    /// # Errors
    /// Damaged: it holds none.
    pub fn only(&self) -> Outcome<Manifest> {
        let mut listed = self.list()?.into_iter();
        match (listed.next().and_then(|l| l.manifest), listed.next()) {
            (Some(manifest), None) => manifest,
            _ => Err(Failure::damaged(format!("{} does not hold one whole backup", self.shelf.place()))),
        }
    }

    /// The newest backup that is complete, and what else it could have been meant to be, in words.
    ///
    /// # Errors
    /// Usage: there is none. Damaged: one is that is newer.
    pub fn latest(&self) -> Outcome<(Manifest, Vec<String>)> {
        let mut newest_first = self.list()?.into_iter().rev().filter_map(|listed| listed.manifest);
        let mut besides = Vec::new();
        let latest = loop {
            let Some(manifest) = newest_first.next() else {
                return Err(Failure::usage(format!("{} holds no complete backup", self.shelf.place()))
                    .hint("`mlops backup list` shows what there is"));
            };
            // One that is damaged may be the one that is meant: an older one is not taken in its place unasked.
            let newer = |f: Failure| match &f.hint {
                Some(_) => f,
                None => f.hint("an older backup has to be named: `mlops backup list` shows the ids"),
            };
            let manifest = manifest.map_err(newer)?;
            if manifest.complete {
                break manifest;
            }
            let unread = manifest.artifacts.unreadable;
            besides.push(format!("{} is newer, but incomplete: {unread} artifacts could not be read", manifest.id));
        };
        let (id, address, scope) = (&latest.id, &latest.database.address, latest.artifacts.scope);
        let older: Vec<Manifest> = newest_first.filter_map(Result::ok).collect();
        let whole = |m: &&Manifest| m.complete && m.artifacts.scope == Scope::All && m.database.address == *address;
        if let (true, Some(whole)) = (scope != Scope::All, older.iter().find(whole)) {
            let scope = scope.word();
            besides.push(format!("{id} holds artifacts: {scope}; the newest with all of them is {}", whole.id));
        }
        if older.iter().any(|m| m.database.address != *address) {
            besides.push(format!("backups of several databases are here; {id} is of {address}"));
        }
        Ok((latest, besides))
    }

    /// A backup by its id.
    ///
    /// # Errors
    /// Usage: there is none. Damaged: it is damaged or unfinished.
    pub fn find(&self, word: &str) -> Outcome<Manifest> {
        if !is_id(word) {
            return Err(Failure::usage(format!("`{}` is no backup's id", word.escape_debug()))
                .hint("`mlops backup list` shows the ids; `latest` means the newest complete one"));
        }
        match self.manifest(word)? {
            Some(manifest) => Ok(manifest),
            None if self.shelf.stat(&format!("{word}/{DATABASE}"))?.is_some() => {
                Err(Failure::damaged(format!("the backup {word} was never finished"))
                    .hint("`mlops backup list` shows which are whole"))
            }
            None => Err(Failure::usage(format!("{} holds no backup {word}", self.shelf.place()))
                .hint("`mlops backup list` shows what there is")),
        }
    }

    /// Writes a small file in one step.
    ///
    /// # Errors
    /// Target: the place cannot be written to.
    pub fn write(&self, path: &str, bytes: &[u8]) -> Outcome<()> {
        let mut staged = self.shelf.stage()?;
        staged.write_all(bytes).map_err(|e| self.unwritten(&e))?;
        self.shelf.put(staged, path, There::Replaced).map(drop)
    }

    /// What a failed write means.
    pub fn unwritten(&self, error: &std::io::Error) -> Failure {
        let place = self.shelf.place();
        match error.kind() {
            std::io::ErrorKind::StorageFull => {
                Failure::target(format!("the disk of {place} is full")).hint(format!("df -h {place}; df -i {place}"))
            }
            _ => Failure::target(format!("{place} cannot be written to: {error}")),
        }
    }

    /// Copies a file of this machine beside a backup's manifest.
    ///
    /// # Errors
    /// Target: the place cannot be written to. Source: the file cannot be read.
    pub fn take_in(&self, file: &Path, id: &str, name: &str) -> Outcome<Part> {
        let unread = |e: std::io::Error| Failure::source(format!("{}: {e}", file.display()));
        let mut from = std::fs::File::open(file).map_err(unread)?;
        let mut staged = self.shelf.stage()?;
        let mut tally = Tally::new(&mut staged);
        let mut buffer = vec![0; STEP];
        loop {
            let read = from.read(&mut buffer).map_err(unread)?;
            if read == 0 {
                break;
            }
            tally.write_all(buffer.get(..read).unwrap_or_default()).map_err(|e| self.unwritten(&e))?;
        }
        let (_, bytes, sha256) = tally.end();
        self.shelf.put(staged, &format!("{id}/{name}"), There::Replaced)?;
        Ok(Part { file: name.to_owned(), bytes, sha256 })
    }

    /// Writes the list of a backup's files out of the ledger, and notes each content there.
    ///
    /// # Errors
    /// Target: the place cannot be written to.
    pub fn write_list(&self, id: &str, ledger: &Ledger) -> Outcome<Part> {
        let mut staged = self.shelf.stage()?;
        let tally = Tally::new(&mut staged);
        let mut out = GzEncoder::new(tally, Compression::default());
        let mut after = (0, String::new());
        loop {
            let page = ledger.files(&after, false, 1000)?;
            let Some(last) = page.last() else { break };
            after = (last.root, last.path.clone());
            for file in page {
                let Some(sha256) = file.sha256 else { continue };
                ledger.object(&sha256, file.bytes, file.stored)?;
                let line = Line {
                    root: file.root,
                    path: file.path,
                    bytes: file.bytes,
                    changed: file.changed,
                    sha256,
                    stored: file.stored,
                };
                let mut text = serde_json::to_vec(&line).map_err(|e| Failure::internal(e.to_string()))?;
                text.push(b'\n');
                out.write_all(&text).map_err(|e| self.unwritten(&e))?;
            }
        }
        let tally = out.finish().map_err(|e| self.unwritten(&e))?;
        let (_, bytes, sha256) = tally.end();
        let part = Part { file: LIST.to_owned(), bytes, sha256 };
        self.shelf.put(staged, &format!("{id}/{LIST}"), There::Replaced)?;
        Ok(part)
    }

    /// Goes through the list of a backup's files. Every stored byte of it is checked, but only at its end: what was done
    /// for its lines counts when this returns.
    ///
    /// # Errors
    /// Damaged: it is not what the manifest says. Else what `each` failed with.
    pub fn read_list(&self, manifest: &Manifest, each: &mut dyn FnMut(Line) -> Outcome<()>) -> Outcome<()> {
        let path = format!("{}/{LIST}", manifest.id);
        let damaged = |why: &str| Failure::damaged(format!("the backup {} is damaged: `{LIST}` {why}", manifest.id));
        // Checked first: what follows acts on its lines.
        self.check_part(manifest, &manifest.artifacts.list, &mut |_| Ok(()))?;
        let opened = self.shelf.open(&path)?.ok_or_else(|| damaged("is not there"))?;
        let mut lines = BufReader::new(GzDecoder::new(opened.reader));
        let mut line = String::new();
        let mut count = 0;
        loop {
            line.clear();
            let read = (&mut lines).take(LONGEST_LINE).read_line(&mut line).map_err(|e| match object::is_unread(&e) {
                true => Failure::source(format!("{}/{path}: {e}", self.shelf.place())),
                false => damaged(&format!("cannot be read: {e}")),
            });
            if read? == 0 {
                break;
            }
            let line: Line =
                serde_json::from_str(&line).map_err(|e| damaged(&format!("has a line that is none: {e}")))?;
            let sound = (line.path.is_empty() || crate::artifact::files::is_plain(&line.path))
                && manifest.artifacts.roots.len() > line.root as usize
                && object::of_path(&object::path(&line.sha256)).is_some();
            if !sound {
                return Err(damaged(&format!("names a file that cannot be: `{}`", line.path.escape_debug())));
            }
            count += 1;
            each(line)?;
        }
        if count == manifest.artifacts.files { Ok(()) } else { Err(damaged("has another number of files")) }
    }

    /// Checks the SHA-256 of a file beside the manifest. `each` hears of the bytes.
    ///
    /// # Errors
    /// Damaged: it is not there, or not what the manifest says.
    pub fn check_part(
        &self,
        manifest: &Manifest,
        part: &Part,
        each: &mut dyn FnMut(&[u8]) -> Outcome<()>,
    ) -> Outcome<()> {
        let (id, name) = (&manifest.id, &part.file);
        let damaged = |why: &str| Failure::damaged(format!("the backup {id} is damaged: `{name}` {why}"));
        if ![DATABASE, AUTH, LIST].contains(&name.as_str()) {
            return Err(damaged("is a file that no backup has"));
        }
        let mut opened = self.shelf.open(&format!("{id}/{name}"))?.ok_or_else(|| damaged("is not there"))?;
        let (mut hash, mut bytes) = (Sha256::new(), 0u64);
        let mut buffer = vec![0; STEP];
        loop {
            let read = opened.reader.read(&mut buffer);
            let read = read.map_err(|e| Failure::source(format!("{}/{id}/{name}: {e}", self.shelf.place())))?;
            if read == 0 {
                break;
            }
            let step = buffer.get(..read).unwrap_or_default();
            hash.update(step);
            bytes += read as u64;
            each(step)?;
        }
        if (bytes, hex(&hash.finalize())) == (part.bytes, part.sha256.clone()) {
            Ok(())
        } else {
            Err(damaged("is not what the manifest says: its SHA-256 or size differs"))
        }
    }

    /// Makes a backup exist: its manifest is put when all else lasts.
    ///
    /// # Errors
    /// Target: the place cannot be written to.
    pub fn publish(&self, manifest: &Manifest) -> Outcome<()> {
        let text = manifest.render()?;
        self.shelf.settle()?;
        self.write(&format!("{}/{MANIFEST}", manifest.id), &text)?;
        self.shelf.settle()?;
        self.write(&format!("{}/{SEAL}", manifest.id), seal(&text).as_bytes())?;
        self.shelf.settle()
    }

    /// Removes a backup; its contents stay in the pool. First what makes it one, so that no half of it looks whole.
    ///
    /// # Errors
    /// Target: the place cannot be written to.
    pub fn remove(&self, id: &str) -> Outcome<()> {
        for file in [PROOF, SEAL, MANIFEST] {
            self.shelf.remove(&format!("{id}/{file}"))?;
            // A seal without a manifest means a loss: not even a power cut may leave one.
            self.shelf.settle()?;
        }
        let mut rest = Vec::new();
        self.shelf.walk(id, &mut |met| {
            if let Met::File(entry) = met {
                rest.push(entry.path);
            }
            Ok(())
        })?;
        rest.iter().try_for_each(|path| self.shelf.remove(path))
    }
}

impl From<Line> for LedgerFile {
    fn from(line: Line) -> LedgerFile {
        LedgerFile {
            root: line.root,
            path: line.path,
            bytes: line.bytes,
            changed: line.changed,
            sha256: Some(line.sha256),
            stored: line.stored,
        }
    }
}
