//! A journal for each run that changes something, so that a run that was killed is known to the next one.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::domain::address::shown;
use crate::domain::failure::{Failure, Outcome};

/// The journal of a running command. Its file is locked as long as the process lives.
pub struct Journal {
    file: Option<File>,
}

#[derive(Serialize, Deserialize)]
struct Head {
    id: String,
    command: String,
    target: String,
    started: String,
}

#[derive(Serialize, Deserialize)]
struct Last {
    closed: String,
}

/// A run that neither ended nor runs any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfinished {
    /// The id of the run.
    pub id: String,
    /// The command.
    pub command: String,
    /// What it worked on, masked.
    pub target: String,
    /// When it began.
    pub started: String,
    path: PathBuf,
}

fn folder(state_dir: &Path) -> PathBuf {
    state_dir.join("journal")
}

impl Journal {
    /// Begins a journal and syncs it to the disk. Where the state folder cannot be written to, the journal is empty
    /// and the second value is the warning that says so.
    pub fn begin(state_dir: &Path, id: &str, command: &str, target: &str) -> (Journal, Option<String>) {
        let head = Head {
            id: id.to_owned(),
            command: command.to_owned(),
            target: target.to_owned(),
            started: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        };
        match write_head(state_dir, &head) {
            Ok(file) => (Journal { file: Some(file) }, None),
            Err(e) => {
                let warning =
                    format!("the state folder {} cannot be written to ({e}): no history is kept", shown(state_dir));
                (Journal { file: None }, Some(warning))
            }
        }
    }

    /// Adds a line and syncs it: what is about to be changed, and from what. Where there is no journal it is not kept.
    ///
    /// # Errors
    /// Target: it cannot be written, so nothing should be changed.
    pub fn note(&mut self, line: &impl Serialize) -> Outcome<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        add(file, line).map_err(|e| Failure::target(format!("the journal cannot be written: {e}")))
    }

    /// Whether there is one.
    pub fn is_kept(&self) -> bool {
        self.file.is_some()
    }

    /// Closes the journal: the run ended, however it ended, and left nothing to be put right.
    pub fn close(mut self, how: &str) {
        if let Some(file) = &mut self.file {
            let _ = append(file, how);
        }
    }
}

fn write_head(state_dir: &Path, head: &Head) -> std::io::Result<File> {
    fs::create_dir_all(folder(state_dir))?;
    let path = folder(state_dir).join(format!("{}.jsonl", head.id));
    let mut file = OpenOptions::new().create_new(true).append(true).open(path)?;
    file.try_lock()?;
    let mut line = serde_json::to_string(head).map_err(std::io::Error::other)?;
    line.push('\n');
    file.write_all(line.as_bytes())?;
    file.sync_all()?;
    Ok(file)
}

fn append(file: &mut File, how: &str) -> std::io::Result<()> {
    add(file, &Last { closed: how.to_owned() })
}

fn add(file: &mut File, line: &impl Serialize) -> std::io::Result<()> {
    let mut line = serde_json::to_string(line).map_err(std::io::Error::other)?;
    line.push('\n');
    file.write_all(line.as_bytes())?;
    file.sync_all()
}

/// The journals that were begun and never closed, and whose process is gone.
pub fn unfinished(state_dir: &Path) -> Vec<Unfinished> {
    let Ok(entries) = fs::read_dir(folder(state_dir)) else { return Vec::new() };
    let mut found: Vec<Unfinished> = entries.flatten().filter_map(|e| look(e.path())).collect();
    found.sort_by(|a, b| a.id.cmp(&b.id));
    found
}

fn look(path: PathBuf) -> Option<Unfinished> {
    if path.extension()? != "jsonl" {
        return None;
    }
    let file = File::open(&path).ok()?;
    // Its owner is alive: it is not for us to judge.
    file.try_lock().ok()?;
    let text = fs::read_to_string(&path).ok()?;
    let mut lines = text.lines();
    let head: Head = serde_json::from_str(lines.next()?).ok()?;
    if lines.next_back().is_some_and(|last| serde_json::from_str::<Last>(last).is_ok()) {
        return None;
    }
    Some(Unfinished { id: head.id, command: head.command, target: head.target, started: head.started, path })
}

/// What a journal says of its run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// The id of the run.
    pub id: String,
    /// The command.
    pub command: String,
    /// What it worked on, masked.
    pub target: String,
    /// When it began.
    pub started: String,
    /// What it noted, a JSON document each.
    pub notes: Vec<String>,
}

/// The journal of a run.
///
/// # Errors
/// Usage: there is none of that id. Locked: the run still runs. Damaged: it is not what was written.
pub fn told(state_dir: &Path, id: &str) -> Outcome<Told> {
    let path = folder(state_dir).join(format!("{id}.jsonl"));
    let plain = id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    let absent = || Failure::usage(format!("{} has no journal of a run {}", shown(state_dir), id.escape_debug()));
    let file = File::open(&path).ok().filter(|_| plain).ok_or_else(absent)?;
    if file.try_lock().is_err() {
        return Err(Failure::locked(format!("the run {id} has not ended yet")));
    }
    let damaged = |why: String| Failure::damaged(format!("{}: {why}", shown(&path)));
    let text = fs::read_to_string(&path).map_err(|e| damaged(e.to_string()))?;
    let mut lines = text.lines();
    let head: Head = serde_json::from_str(lines.next().unwrap_or_default()).map_err(|e| damaged(e.to_string()))?;
    // A kill may have cut the last line: what it was to announce was not begun then.
    let whole = |line: &&str| serde_json::from_str::<serde::de::IgnoredAny>(line).is_ok();
    let end = |line: &&str| serde_json::from_str::<Last>(line).is_ok();
    let notes = lines.filter(whole).filter(|line| !end(line)).map(str::to_owned).collect();
    Ok(Told { id: head.id, command: head.command, target: head.target, started: head.started, notes })
}

/// Ids of all runs that a journal is kept of, the oldest first.
pub fn ids(state_dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder(state_dir)) else { return Vec::new() };
    let name = |path: PathBuf| path.file_name()?.to_str()?.strip_suffix(".jsonl").map(str::to_owned);
    let mut ids: Vec<String> = entries.flatten().filter_map(|e| name(e.path())).collect();
    ids.sort();
    ids
}

/// Adds a line to the journal of a run that has ended.
///
/// # Errors
/// Internal: the file cannot be written to.
pub fn add_to(state_dir: &Path, id: &str, line: &impl Serialize) -> Outcome<()> {
    let path = folder(state_dir).join(format!("{id}.jsonl"));
    let mut file = OpenOptions::new().append(true).open(&path);
    let added = file.as_mut().map_err(|e| std::io::Error::new(e.kind(), e.to_string())).and_then(|f| add(f, line));
    added.map_err(|e| Failure::internal(format!("{}: {e}", shown(&path))))
}

/// Closes the journal of a run that was added to.
///
/// # Errors
/// Internal: the file cannot be written to.
pub fn close(state_dir: &Path, id: &str, how: &str) -> Outcome<()> {
    add_to(state_dir, id, &Last { closed: how.to_owned() })
}

impl Unfinished {
    /// Its journal.
    pub fn file(&self) -> &Path {
        &self.path
    }

    /// Closes it: what it left was put right.
    ///
    /// # Errors
    /// Internal: the file cannot be written to.
    pub fn close(&self, how: &str) -> Outcome<()> {
        OpenOptions::new()
            .append(true)
            .open(&self.path)
            .and_then(|mut file| append(&mut file, how))
            .map_err(|e| Failure::internal(format!("{}: {e}", shown(&self.path))))
    }
}

/// A new id: `YYYYMMDDTHHMMSSZ-<8 hex>`.
pub fn new_id() -> String {
    use std::hash::{BuildHasher, Hasher};
    // The standard library seeds each hasher from the system's random numbers; ids need to differ, not to be secret.
    let random = std::collections::hash_map::RandomState::new().build_hasher().finish();
    format!("{}-{:08x}", jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ"), random as u32)
}
