//! A folder of this machine. Its files are looked at on a thread of their own, whose answer is waited for and no
//! longer: a network mount whose server is gone answers nothing, and the thread stays behind.

use std::fs::{self, File, OpenOptions, ReadDir};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::{Inventory, Presence, probe};
use crate::domain::address::shown;
use crate::domain::failure::{Failure, Outcome};
use crate::engine::cancel::Cancel;

/// Folders within folders that are gone down into; each holds one open folder.
const DEPTH: usize = 128;
/// Unreadable folders that are named.
const NAMED: usize = 5;

/// Does the work on a thread of its own and waits so long for it.
async fn apart<T: Send + 'static>(
    path: &Path,
    patience: Duration,
    work: impl FnOnce(&Path) -> Outcome<T> + Send + 'static,
) -> Outcome<T> {
    let (send, receive) = tokio::sync::oneshot::channel();
    let own = path.to_owned();
    let thread = std::thread::Builder::new().name("artifacts".to_owned()).spawn(move || {
        // Nobody may be waiting any more.
        let _ = send.send(work(&own));
    });
    thread.map_err(|e| Failure::internal(format!("no thread for {}: {e}", shown(path))))?;
    match tokio::time::timeout(patience, receive).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) => Err(Failure::internal(format!("the look at {} ended without a word", shown(path)))),
        Err(_) => Err(Failure::unreachable(format!("{}: no answer within {} s", shown(path), seconds(patience)))
            .hint("a network mount whose server is gone answers nothing: see `findmnt -T` on it")),
    }
}

fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 10.0).round() / 10.0
}

pub(super) async fn there(path: &Path, patience: Duration) -> Outcome<()> {
    apart(path, patience, |path| open(path).map(drop)).await
}

/// The folder, open, its first entry read.
fn open(path: &Path) -> Outcome<ReadDir> {
    let place = shown(path);
    let metadata = fs::metadata(path).map_err(|e| unread(path, &e))?;
    if !metadata.is_dir() {
        return Err(Failure::source(format!("{place} is not a folder")));
    }
    let mut entries = fs::read_dir(path).map_err(|e| unread(path, &e))?;
    match entries.next() {
        Some(Err(e)) => Err(unread(path, &e)),
        _ => fs::read_dir(path).map_err(|e| unread(path, &e)),
    }
}

fn unread(path: &Path, error: &io::Error) -> Failure {
    let place = shown(path);
    match error.kind() {
        ErrorKind::NotFound => {
            let nearest = path.ancestors().skip(1).find(|p| !p.as_os_str().is_empty() && p.exists());
            let nearest = nearest.map(|p| format!("; the nearest folder that is there is {}", shown(p)));
            Failure::source(format!("{place} is not there{}", nearest.unwrap_or_default()))
                .hint("is its disk or volume mounted, and is the path right (artifact_root)?")
        }
        ErrorKind::NotADirectory => Failure::source(format!("{place}: a file stands where a folder should be")),
        ErrorKind::PermissionDenied => Failure::source(format!("{place} may not be read by this user"))
            .hint("run mlops as the user of the tracking server, or let its group read the folder"),
        _ => Failure::source(format!("{place} cannot be read: {error}")),
    }
}

pub(super) async fn inventory(path: &Path, cancel: &Cancel, patience: Duration) -> Outcome<Inventory> {
    let cancel = cancel.clone();
    // The walk itself ends in time; waiting longer is for a folder that does not answer at all.
    let end = Instant::now() + patience.mul_f64(0.9);
    apart(path, patience, move |path| walk(path, &cancel, end)).await
}

/// Goes through the folders one by one. What is open is one folder per level, so memory does not grow with the files;
/// what vanishes on the way was not there.
fn walk(root: &Path, cancel: &Cancel, end: Instant) -> Outcome<Inventory> {
    let mut seen = Inventory { whole: true, ..Inventory::default() };
    let mut levels = vec![open(root)?];
    let note = |seen: &mut Inventory, path: &Path, reason: &dyn std::fmt::Display| {
        seen.unreadable += 1;
        if seen.unreadable_names.len() < NAMED {
            seen.unreadable_names.push(format!("{}: {reason}", shown(path)));
        }
    };
    while let Some(level) = levels.last_mut() {
        if Instant::now() >= end {
            seen.whole = false;
            break;
        }
        cancel.check()?;
        let Some(entry) = level.next() else {
            levels.pop();
            continue;
        };
        let Ok(entry) = entry else { continue };
        // Of the entry itself: links are not followed.
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.is_symlink() {
            seen.links += 1;
        } else if metadata.is_dir() {
            match fs::read_dir(entry.path()) {
                _ if levels.len() >= DEPTH => note(&mut seen, &entry.path(), &"too deep"),
                Ok(deeper) => levels.push(deeper),
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                Err(e) => note(&mut seen, &entry.path(), &e),
            }
        } else {
            seen.files += 1;
            seen.bytes = seen.bytes.saturating_add(metadata.len());
        }
    }
    Ok(seen)
}

/// Whether there is something in each of these places, in their order; those for which no time was left are unseen.
///
/// # Errors
/// Unreachable: no answer at all.
pub async fn look_for(paths: Vec<PathBuf>, patience: Duration) -> Outcome<Vec<Presence>> {
    let end = Instant::now() + patience.mul_f64(0.9);
    let first = paths.first().cloned().unwrap_or_default();
    let look = move |path: &PathBuf| {
        if Instant::now() >= end { Presence::Unseen("no time was left".to_owned()) } else { presence(path) }
    };
    apart(&first, patience, move |_| Ok(paths.iter().map(look).collect())).await
}

fn presence(path: &Path) -> Presence {
    let first = |path: &Path| fs::read_dir(path)?.next().transpose().map(|entry| entry.is_some());
    match fs::metadata(path).and_then(|m| if m.is_dir() { first(path) } else { Ok(true) }) {
        Ok(true) => Presence::There,
        Ok(false) => Presence::Gone,
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Presence::Gone,
        Err(e) => Presence::Unseen(e.to_string()),
    }
}

/// Removes the probe when it is dropped, whatever happened in between.
struct Written(PathBuf);

impl Drop for Written {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

pub(super) async fn probe(path: &Path, id: &str, patience: Duration) -> Outcome<Duration> {
    let id = id.to_owned();
    apart(path, patience, move |folder| write_and_read(folder, &id)).await
}

fn write_and_read(folder: &Path, id: &str) -> Outcome<Duration> {
    sweep(folder);
    let file = folder.join(probe::name(id));
    let content = probe::content(id);
    let begun = Instant::now();
    let unwritten = |e: io::Error| unwritten(folder, &e);
    let mut out = OpenOptions::new().write(true).create_new(true).open(&file).map_err(unwritten)?;
    let written = Written(file.clone());
    out.write_all(&content).and_then(|()| out.sync_all()).map_err(unwritten)?;
    let mut back = Vec::new();
    let mut read = File::open(&file).map_err(|e| unread(&file, &e))?;
    // As soon as it is open it needs no name: a run that is killed from here on leaves nothing.
    fs::remove_file(&file).map_err(|e| {
        Failure::target(format!("{} was written and cannot be removed: {e}", shown(&file))).hint("remove it by hand")
    })?;
    drop(written);
    Read::take(&mut read, content.len() as u64 + 1).read_to_end(&mut back).map_err(|e| unread(&file, &e))?;
    if back != content {
        return Err(Failure::target(format!("{}: what was written is read back otherwise", shown(&file)))
            .hint("the disk or the mount loses data: look at `dmesg` now"));
    }
    Ok(begun.elapsed())
}

pub(super) fn unwritten(folder: &Path, error: &io::Error) -> Failure {
    let place = shown(folder);
    match error.kind() {
        ErrorKind::StorageFull => {
            Failure::target(format!("the disk of {place} is full")).hint(format!("df -h {place}; df -i {place}"))
        }
        ErrorKind::QuotaExceeded => Failure::target(format!("{place}: this user's quota is used up")),
        ErrorKind::ReadOnlyFilesystem => Failure::target(format!("{place} is on a file system that is read-only"))
            .hint("a disk with errors is mounted read-only: look at `dmesg`, or at the volume's mount options"),
        ErrorKind::NotFound | ErrorKind::NotADirectory => unread(folder, error).as_target(),
        ErrorKind::PermissionDenied => Failure::target(format!("{place} may not be written by this user"))
            .hint("run mlops as a user who may, for artifacts as the tracking server's"),
        _ => Failure::target(format!("{place} takes no file: {error}")),
    }
}

/// Removes what killed runs left. A root holds one folder per experiment; beyond some thousands it is not gone through.
fn sweep(folder: &Path) {
    let now = Timestamp::now();
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.take(10_000).flatten() {
        if entry.file_name().to_str().is_some_and(|name| probe::is_stale(name, now)) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// How full a disk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disk {
    /// Bytes that users other than root can have, used ones included.
    pub total: u64,
    /// Bytes that are free for them.
    pub free: u64,
    /// Files that it can hold; 0: as many as its bytes do.
    pub files: u64,
    /// Files that it can still take.
    pub free_files: u64,
}

pub(super) async fn disk(path: &Path, patience: Duration) -> Outcome<Disk> {
    apart(path, patience, |path| {
        let told = rustix::fs::statvfs(path)
            .map_err(|e| Failure::source(format!("the disk of {} does not tell its size: {e}", shown(path))))?;
        // As df counts: blocks that are kept for root are neither used nor free.
        let used = told.f_blocks.saturating_sub(told.f_bfree);
        Ok(Disk {
            total: used.saturating_add(told.f_bavail).saturating_mul(told.f_frsize),
            free: told.f_bavail.saturating_mul(told.f_frsize),
            files: told.f_files,
            free_files: told.f_favail,
        })
    })
    .await
}
