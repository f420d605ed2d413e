//! Going through an archive from its first byte to its last before anything in it is believed.

use std::collections::BTreeMap;
use std::io::Read;

use sha2::{Digest as _, Sha256};

use super::about::ArchivedAbout;
use super::frame::{BLOCK, Frame};
use super::layout::{self, MAX_ENTRIES};
use super::manifest::{EntryRecord, Manifest};
use super::stored::{Stored, Stretch};
use crate::domain::failure::{Failure, Outcome};
use crate::engine::cancel::Cancel;

const AGAIN: &str = "copy it again if it came over a network; else take another copy, or export the source again";

/// An archive whose every stored byte was found to be what its manifest says.
pub(super) struct Walked {
    pub(super) about: ArchivedAbout,
    pub(super) manifest: Manifest,
    pub(super) sqlite: Option<String>,
    /// Where each entry of the manifest is stored.
    pub(super) places: Vec<u64>,
}

/// An entry as it was met.
struct Met {
    name: String,
    at: u64,
    bytes: u64,
    sha256: String,
}

/// The entries that are kept whole.
#[derive(Default)]
struct Kept {
    about: Option<ArchivedAbout>,
    sqlite: Vec<u8>,
    manifest: Vec<u8>,
    seal: Vec<u8>,
}

/// Checks everything.
///
/// # Errors
/// Damaged: anything is not as the writer writes it. Source: the bytes cannot be read. Interrupted.
pub(super) fn walk(stored: &dyn Stored, cancel: &Cancel) -> Outcome<Walked> {
    let size = stored.size().map_err(|e| Failure::source(format!("cannot be read: {e}")))?;
    let mut met: Vec<Met> = Vec::new();
    let mut kept = Kept::default();
    let mut at = 0;
    loop {
        let last = met.last().map_or("", |m| m.name.as_str());
        let block = bytes(stored, at, BLOCK as u64, cancel)?;
        if at == 0 {
            refuse_other_formats(&block)?;
        }
        if last == layout::SEAL {
            break;
        }
        if block.len() < BLOCK || block.iter().all(|b| *b == 0) {
            return Err(unfinished(last));
        }
        let frame = Frame::parse(&block).map_err(|why| if at == 0 { not_ours(&why) } else { damaged(why) })?;
        admit(&frame, &met)?;
        at += BLOCK as u64;
        let end = at.saturating_add(frame.bytes);
        if end > size {
            let message = format!("is unfinished or was cut: it ends in the middle of `{}`", frame.name);
            return Err(Failure::damaged(message).hint(AGAIN));
        }
        let sha256 = match layout::limit(&frame.name) {
            None => hash(stored, at, frame.bytes, cancel)?,
            Some(_) => {
                let content = bytes(stored, at, frame.bytes, cancel)?;
                let sha256 = layout::sha256_hex(&content);
                keep(&mut kept, &frame.name, content)?;
                sha256
            }
        };
        let padding = bytes(stored, end, frame.padding() as u64, cancel)?;
        if padding.len() < frame.padding() || padding.iter().any(|b| *b != 0) {
            return Err(damaged(format!("the padding after `{}` is not zero, or was cut", frame.name)));
        }
        at = end + frame.padding() as u64;
        met.push(Met { name: frame.name, at: end - frame.bytes, bytes: frame.bytes, sha256 });
    }
    let close = bytes(stored, at, 2 * BLOCK as u64 + 1, cancel)?;
    if close.len() != 2 * BLOCK || close.iter().any(|b| *b != 0) {
        return Err(damaged(match close.len() {
            n if n < 2 * BLOCK => "its end mark was cut".to_owned(),
            _ => "something follows its end".to_owned(),
        }));
    }
    settle(met, kept)
}

/// Refuses what no archive has, as early as that can be seen.
fn admit(frame: &Frame, met: &[Met]) -> Outcome<()> {
    let name = frame.name.escape_debug();
    if !layout::is_entry_name(&frame.name) {
        return Err(damaged(format!("has the entry `{name}`, which no archive has")));
    }
    if met.is_empty() && frame.name != layout::ABOUT {
        return Err(not_ours(&format!("its first entry is `{name}`")));
    }
    if met.len() >= MAX_ENTRIES {
        return Err(damaged(format!("has more than {MAX_ENTRIES} entries")));
    }
    match layout::limit(&frame.name) {
        Some(most) if frame.bytes > most => Err(damaged(format!("`{name}` is larger than {} MiB", most >> 20))),
        // The manifest finds this as well; here it keeps what is held in memory from growing.
        Some(_) if met.iter().any(|m| m.name == frame.name) => Err(damaged(format!("has `{name}` twice"))),
        _ => Ok(()),
    }
}

fn keep(kept: &mut Kept, name: &str, content: Vec<u8>) -> Outcome<()> {
    match name {
        layout::ABOUT => kept.about = Some(ArchivedAbout::parse(&content)?),
        layout::SQLITE => kept.sqlite = content,
        layout::MANIFEST => kept.manifest = content,
        layout::SEAL => kept.seal = content,
        _ => {}
    }
    Ok(())
}

/// Compares what was met with what the manifest says.
fn settle(mut met: Vec<Met>, kept: Kept) -> Outcome<Walked> {
    met.pop();
    if met.pop().is_none_or(|m| m.name != layout::MANIFEST) {
        return Err(damaged(format!("`{}` does not stand before `{}`", layout::MANIFEST, layout::SEAL)));
    }
    if kept.seal != layout::seal(&kept.manifest).as_bytes() {
        return Err(damaged(format!("`{}` is not what `{}` says", layout::MANIFEST, layout::SEAL)));
    }
    let manifest = Manifest::parse(&kept.manifest)?;
    let about = kept.about.ok_or_else(|| damaged(format!("lacks `{}`", layout::ABOUT)))?;
    for (met, entry) in met.iter().zip(&manifest.entries) {
        if met.name != entry.name {
            return Err(damaged(format!(
                "has the entry `{}` where its manifest has `{}`",
                met.name,
                entry.name.escape_debug()
            )));
        }
        if (met.bytes, &met.sha256) != (entry.bytes, &entry.sha256) {
            return Err(damaged(format!("`{}` is not what the manifest says: its SHA-256 or size differs", met.name)));
        }
    }
    if met.len() != manifest.entries.len() {
        let count = manifest.entries.len();
        return Err(damaged(format!("has {} entries, and its manifest names {count}", met.len())));
    }
    check_order(&about, &manifest)?;
    let has_sqlite = met.iter().any(|m| m.name == layout::SQLITE);
    let sqlite = if has_sqlite { Some(kept.sqlite) } else { None };
    let sqlite = sqlite.map(String::from_utf8).transpose();
    Ok(Walked {
        sqlite: sqlite.map_err(|_| damaged(format!("`{}` is not UTF-8", layout::SQLITE)))?,
        places: met.iter().map(|m| m.at).collect(),
        about,
        manifest,
    })
}

/// The manifest itself must be one that the writer writes for these tables: every entry in its place, every piece of a
/// table once, and as many rows as the table has.
fn check_order(about: &ArchivedAbout, manifest: &Manifest) -> Outcome<()> {
    let same = about.tables.len() == manifest.tables.len()
        && about.tables.iter().zip(&manifest.tables).all(|(a, m)| a.shape.name == m.name);
    if !same {
        return Err(damaged(format!("`{}` and `{}` name other tables", layout::ABOUT, layout::MANIFEST)));
    }
    let wrong = |e: &EntryRecord| damaged(format!("`{}` is not where it belongs", e.name.escape_debug()));
    // Of each table: its entries, their rows, and whether one of them has no number.
    let mut pieces: BTreeMap<&str, (usize, u64, bool)> =
        manifest.tables.iter().map(|t| (t.name.as_str(), (0, 0, false))).collect();
    let mut fixed = [layout::ABOUT, layout::TABLES, layout::POST_DATA, layout::SQLITE].into_iter().peekable();
    let mut entries = manifest.entries.iter();
    let restores = |e: &EntryRecord| e.name == layout::RESTORE && e.rows.is_none() && e.raw_bytes == e.bytes;
    if !entries.next_back().is_some_and(restores) {
        return Err(damaged(format!("`{}` is not its last entry but the manifest", layout::RESTORE)));
    }
    for entry in entries {
        let Some((table, rows)) = &entry.rows else {
            if fixed.next() != Some(entry.name.as_str()) || entry.raw_bytes != entry.bytes {
                return Err(wrong(entry));
            }
            continue;
        };
        // Data begin after the texts; that of SQLite may be missing.
        if !matches!(fixed.peek(), None | Some(&layout::SQLITE)) {
            return Err(wrong(entry));
        }
        fixed.by_ref().for_each(drop);
        let (count, sum, alone) = pieces.get_mut(table.as_str()).ok_or_else(|| wrong(entry))?;
        *count += 1;
        // The writer writes no empty piece, and a sum that overflows is no row count.
        *sum = sum.checked_add(*rows).filter(|_| *rows > 0).ok_or_else(|| wrong(entry))?;
        if entry.name == layout::piece_name(table, None, about.compression) {
            *alone = true;
        } else if entry.name != layout::piece_name(table, Some(*count), about.compression) {
            return Err(wrong(entry));
        }
    }
    for table in &manifest.tables {
        let (count, sum, alone) = pieces.get(table.name.as_str()).copied().unwrap_or_default();
        if sum != table.digest.rows || (alone && count != 1) {
            return Err(damaged(format!(
                "has {sum} rows of `{}` in {count} entries, and its manifest says {}",
                table.name.escape_debug(),
                table.digest.rows
            )));
        }
    }
    Ok(())
}

/// Reads so many bytes, fewer at the end. Memory is taken as bytes come, not as a header promises them.
fn bytes(stored: &dyn Stored, at: u64, count: u64, cancel: &Cancel) -> Outcome<Vec<u8>> {
    cancel.check()?;
    let mut bytes = Vec::new();
    Stretch::new(stored, at, count)
        .read_to_end(&mut bytes)
        .map_err(|e| Failure::source(format!("cannot be read: {e}")))?;
    Ok(bytes)
}

fn hash(stored: &dyn Stored, at: u64, count: u64, cancel: &Cancel) -> Outcome<String> {
    let mut stretch = Stretch::new(stored, at, count);
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        cancel.check()?;
        match stretch.read(&mut buffer) {
            Ok(0) => return Ok(layout::hex(&hasher.finalize())),
            Ok(read) => hasher.update(buffer.get(..read).unwrap_or_default()),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(Failure::source(format!("cannot be read: {e}"))),
        }
    }
}

fn damaged(what: impl Into<String>) -> Failure {
    Failure::damaged(format!("is damaged: {}", what.into())).hint(AGAIN)
}

fn unfinished(last: &str) -> Failure {
    let after = if last.is_empty() { "no entry of it is whole".to_owned() } else { format!("it ends after `{last}`") };
    Failure::damaged(format!("is unfinished: {after}, without a manifest"))
        .hint("whatever wrote it was interrupted, or the file was cut: export the source again")
}

fn not_ours(why: &str) -> Failure {
    Failure::damaged(format!("is no archive of mlops, or its beginning is damaged: {why}"))
        .hint("give a file that `mlops migrate export` or `mlops backup` wrote")
}

/// Files that people take for an archive.
fn refuse_other_formats(block: &[u8]) -> Outcome<()> {
    let known: [(&[u8], &str, &str); 6] = [
        (
            b"SQLite format 3\0",
            "a SQLite database",
            "give it to `mlops migrate sqlite-to-pg --source`, or export it first",
        ),
        (b"PGDMP", "a dump of pg_dump's custom format", "restore it with pg_restore"),
        (b"--\n-- PostgreSQL database", "a dump of pg_dump in SQL", "restore it with psql"),
        (b"\x1f\x8b", "compressed with gzip", "archives are compressed inside: decompress this file with gunzip"),
        (
            b"\x28\xb5\x2f\xfd",
            "compressed with zstd",
            "archives are compressed inside: decompress this file with unzstd",
        ),
        (b"\xfd7zXZ\0", "compressed with xz", "archives are compressed inside: decompress this file with unxz"),
    ];
    match known.into_iter().find(|(magic, ..)| block.starts_with(magic)) {
        Some((_, what, hint)) => Err(Failure::damaged(format!("is no archive of mlops: it is {what}")).hint(hint)),
        None => Ok(()),
    }
}
