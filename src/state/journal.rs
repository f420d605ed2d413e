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
    let mut line = serde_json::to_string(&Last { closed: how.to_owned() }).map_err(std::io::Error::other)?;
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

impl Unfinished {
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
