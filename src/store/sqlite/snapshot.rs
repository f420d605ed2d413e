//! A private copy of the operator's SQLite file: one consistent moment of it, taken without changing the file,
//! without leaving a `-wal` or `-shm` beside it and without making a write of MLflow's fail.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, ErrorCode};

use super::users::users;
use super::{Explain, open_readonly, source_failure};
use crate::domain::address::shown;
use crate::domain::failure::{Failure, Outcome};
use crate::engine::cancel::Cancel;
use crate::engine::event::{Event, Events};
use crate::store::scratch::Scratch;

/// MLflow's writers wait about 20 s for the lock (FACTS 4); a reader that holds it longer than this makes them fail.
const LONGEST_LOCK: Duration = Duration::from_secs(10);
/// How long the copy in small steps may take while writers make it begin again.
const LONGEST_STEPS: Duration = Duration::from_secs(300);
/// Words of SQLite's on a damaged file that are shown.
const SHOWN: usize = 5;
/// The name of the private copy in its folder.
pub const COPY: &str = "store.db";
const STEP_PAGES: i32 = 2_000;
/// Bytes that are copied before the clock is looked at.
const CHUNK: u64 = 32 << 20;

/// A private copy; removed when it is dropped.
pub struct Snapshot {
    folder: Scratch,
    original: PathBuf,
    /// What an operator should know about the file: a journal that was rolled back, a `-wal` that was applied.
    pub notes: Vec<String>,
    /// Bytes of the copy.
    pub bytes: u64,
    /// File and `-wal` as they were just before the copy.
    before: Vec<Option<(u64, Option<SystemTime>)>>,
}

/// What lies beside the file.
pub(super) struct Beside {
    pub(super) wal: Option<PathBuf>,
    shm: bool,
    pub(super) journal: Option<PathBuf>,
    pub(super) wal_mode: bool,
}

impl Snapshot {
    /// Takes a private copy of `original` into a new folder under `work_dir`.
    ///
    /// # Errors
    /// Source: no such file, not a SQLite database, damaged, or too busy. Target: no room in `work_dir`.
    pub fn take(original: &Path, work_dir: &Path, cancel: &Cancel, events: &dyn Events) -> Outcome<Snapshot> {
        let bytes = look_at_header(original)?;
        // SQLite keeps `-wal` and `-journal` beside the file itself, not beside a symbolic link to it.
        let original = &fs::canonicalize(original).map_err(|e| Failure::source(format!("{}: {e}", shown(original))))?;
        let beside = look_beside(original)?;
        let wal_bytes = beside.wal.as_ref().and_then(|w| w.metadata().ok()).map_or(0, |m| m.len());
        check_room(work_dir, bytes + wal_bytes)?;
        tracing::info!(file = %original.display(), bytes, wal = wal_bytes, "taking a private copy");
        let folder = Scratch::new("mlops-snapshot-", work_dir)?;
        let before = stamps(&watched(original));
        let mut snapshot = Snapshot { folder, original: original.to_owned(), notes: Vec::new(), bytes, before };
        let users = users(original);
        if !users.is_empty() {
            let users: Vec<String> = users.iter().take(5).map(|(id, name)| format!("{name} ({id})")).collect();
            snapshot.notes.push(format!(
                "{} is open in {}: a server that still runs on it; what it writes from now on is not in the copy, so stop it first",
                shown(original),
                users.join(", ")
            ));
        }
        events.event(Event::Phase { name: "taking a private copy", total: Some(bytes), unit: "bytes" });
        snapshot.fill(&beside, cancel, events)?;
        snapshot.settle()?;
        Ok(snapshot)
    }

    /// A file `store.db` that is private already, made of what messages call `original`.
    pub fn of_private(folder: Scratch, original: PathBuf) -> Snapshot {
        let before = stamps(&watched(&original));
        let mut snapshot = Snapshot { folder, original, notes: Vec::new(), bytes: 0, before };
        snapshot.bytes = fs::metadata(snapshot.path()).map_or(0, |m| m.len());
        snapshot
    }

    /// The path of the copy. Nothing changes it any more, so it may be opened as immutable by many threads.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join(COPY)
    }

    /// Whether the operator's file was written to since the copy was taken.
    pub fn is_outdated(&self) -> bool {
        stamps(&watched(&self.original)) != self.before
    }

    /// The operator's file.
    pub fn original(&self) -> &Path {
        &self.original
    }

    fn fill(&mut self, beside: &Beside, cancel: &Cancel, events: &dyn Events) -> Outcome<()> {
        // With a -wal and no -shm, or in WAL mode without a -wal, nobody has the file open, and to open it would
        // leave files beside it: the bytes are copied instead. A journal is looked at by SQLite first, because it may
        // belong to a writer that is alive.
        let nobody_has_it_open = beside.wal_mode && (beside.wal.is_none() || !beside.shm);
        if !nobody_has_it_open {
            match self.backup(beside, cancel, events) {
                Ok(()) => return Ok(()),
                Err(Stopped::ReadOnly) => {}
                Err(Stopped::Failed(failure)) => return Err(failure),
            }
        }
        self.copy_files(beside)
    }

    /// Reads over a read-only connection, whose lock says what moment it is.
    fn backup(&self, beside: &Beside, cancel: &Cancel, events: &dyn Events) -> Result<(), Stopped> {
        // Opened before SQLite's connection and closed after it: POSIX drops a process' locks on a file when any of its
        // descriptors is closed.
        let raw = File::open(&self.original)
            .map_err(|e| Stopped::Failed(Failure::source(format!("{}: {e}", shown(&self.original)))))?;
        let from = open_readonly(&self.original, false).map_err(|e| self.stopped(&e))?;
        from.busy_timeout(LONGEST_LOCK).map_err(|e| self.stopped(&e))?;
        let whole = if beside.wal_mode {
            self.backup_in_one(&from, cancel, events)?
        } else {
            self.bytes_under_lock(&raw, &from, cancel, events)?
        };
        if whole {
            return Ok(());
        }
        events.event(Event::Warning(format!(
            "{} is too big to be copied within {} s; copying in small steps between the writes",
            shown(&self.original),
            LONGEST_LOCK.as_secs()
        )));
        if self.steps(&from, &mut self.new_copy()?, cancel, events, None)? {
            return Ok(());
        }
        Err(Stopped::Failed(
            Failure::source(format!(
                "{} is written to so often that no copy of one moment could be taken",
                shown(&self.original)
            ))
            .hint("stop the MLflow server for the time of the copy, or run this when it is quiet"),
        ))
    }

    /// An empty file for the backup API to fill. A copy that is torn by a crash is thrown away, so nothing has to reach
    /// the disk.
    fn new_copy(&self) -> Result<Connection, Stopped> {
        let to = Connection::open(self.path()).map_err(|e| self.stopped(&e))?;
        to.execute_batch("PRAGMA synchronous=OFF; PRAGMA journal_mode=OFF;").map_err(|e| self.stopped(&e))?;
        Ok(to)
    }

    /// The backup API within one read transaction, which keeps the moment fixed.
    fn backup_in_one(&self, from: &Connection, cancel: &Cancel, events: &dyn Events) -> Result<bool, Stopped> {
        from.execute_batch("BEGIN").map_err(|e| self.stopped(&e))?;
        from.query_row("SELECT count(*) FROM sqlite_master", [], |_| Ok(())).map_err(|e| self.stopped(&e))?;
        let whole = self.steps(from, &mut self.new_copy()?, cancel, events, Some(LONGEST_LOCK))?;
        from.execute_batch("ROLLBACK").map_err(|e| self.stopped(&e))?;
        Ok(whole)
    }

    /// Copies the file's bytes in the kernel while a read transaction keeps writers out, which in rollback-journal mode
    /// it does (SQLite documentation, "File Locking And Concurrency": a writer needs the exclusive lock to change the
    /// file). `Ok(false)`: that took longer than the lock may be held.
    fn bytes_under_lock(
        &self,
        raw: &File,
        lock: &Connection,
        cancel: &Cancel,
        events: &dyn Events,
    ) -> Result<bool, Stopped> {
        let failed = |e: std::io::Error| match e.kind() {
            std::io::ErrorKind::StorageFull => no_room(),
            _ => Stopped::Failed(Failure::source(format!("{} cannot be copied: {e}", shown(&self.original)))),
        };
        lock.execute_batch("BEGIN").map_err(|e| self.stopped(&e))?;
        lock.query_row("SELECT count(*) FROM sqlite_master", [], |_| Ok(())).map_err(|e| self.stopped(&e))?;
        let mut to = File::create(self.path()).map_err(failed)?;
        let begun = Instant::now();
        let whole = loop {
            cancel.check().map_err(Stopped::Failed)?;
            let copied = std::io::copy(&mut raw.take(CHUNK), &mut to).map_err(failed)?;
            if copied == 0 {
                break true;
            }
            events.event(Event::Done { table: String::new(), units: copied });
            if begun.elapsed() > LONGEST_LOCK {
                break false;
            }
        };
        lock.execute_batch("ROLLBACK").map_err(|e| self.stopped(&e))?;
        if !whole {
            fs::remove_file(self.path()).map_err(failed)?;
        }
        Ok(whole)
    }

    /// Copies step by step. `Ok(false)`: it took too long.
    fn steps(
        &self,
        from: &Connection,
        to: &mut Connection,
        cancel: &Cancel,
        events: &dyn Events,
        at_most: Option<Duration>,
    ) -> Result<bool, Stopped> {
        let begun = Instant::now();
        let mut done = 0;
        let backup = Backup::new(from, to).map_err(|e| self.stopped(&e))?;
        loop {
            cancel.check().map_err(Stopped::Failed)?;
            match backup.step(STEP_PAGES).map_err(|e| self.stopped(&e))? {
                StepResult::Done => return Ok(true),
                StepResult::More => {}
                _ => std::thread::sleep(Duration::from_millis(20)),
            }
            let progress = backup.progress();
            let now = (progress.pagecount - progress.remaining).max(0) as u64 * self.bytes
                / (progress.pagecount.max(1) as u64);
            if now > done {
                events.event(Event::Done { table: String::new(), units: now - done });
                done = now;
            }
            if begun.elapsed() > at_most.unwrap_or(LONGEST_STEPS) {
                return Ok(false);
            }
        }
    }

    fn stopped(&self, error: &rusqlite::Error) -> Stopped {
        match error.sqlite_error_code() {
            // A hot journal, or a -shm that may not be written: see `copy_files`.
            Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen) => Stopped::ReadOnly,
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Stopped::Failed(
                Failure::source(format!("{} stayed locked by a writer", shown(&self.original)))
                    .hint("run this again when the long write has ended, or stop the MLflow server"),
            ),
            Some(ErrorCode::DiskFull) => no_room(),
            _ => Stopped::Failed(source_failure(&self.original, error)),
        }
    }

    /// Copies the bytes of file, `-wal` and journal together, while no connection of this process is open, and only
    /// if none of them changed meanwhile.
    fn copy_files(&mut self, beside: &Beside) -> Outcome<()> {
        tracing::info!(wal = ?beside.wal, journal = ?beside.journal, "copying the bytes, no backup API");
        let target = self.path();
        let mut sidecars = Vec::new();
        if let Some(wal) = &beside.wal {
            sidecars.push((wal.clone(), with_suffix(&target, "-wal")));
            self.notes.push(format!("committed changes were still in {}; they are part of the copy", shown(wal)));
        }
        if beside.wal_mode && beside.wal.is_none() {
            self.notes.push(format!(
                "{} is in WAL mode and has no -wal beside it: sound if the server ended well, but a file that was copied \
                 without its -wal lacks its last changes",
                shown(&self.original)
            ));
        }
        if let Some(journal) = &beside.journal {
            sidecars.push((journal.clone(), with_suffix(&target, "-journal")));
            self.notes.push(format!(
                "{} is the journal of an interrupted write; that write was rolled back in the copy, the file itself is as it was",
                shown(journal)
            ));
        }
        sidecars.push((self.original.clone(), target));
        let watched: Vec<PathBuf> = sidecars.iter().map(|(from, _)| from.clone()).collect();
        for _ in 0..3 {
            let before = stamps(&watched);
            for (from, to) in &sidecars {
                fs::copy(from, to).map_err(|e| Failure::source(format!("{} cannot be copied: {e}", shown(from))))?;
            }
            let now = look_beside(&self.original)?;
            let same_files =
                now.wal.is_some() == beside.wal.is_some() && now.journal.is_some() == beside.journal.is_some();
            if stamps(&watched) == before && same_files {
                return Ok(());
            }
        }
        Err(Failure::source(format!("{} changes while it is copied", shown(&self.original)))
            .hint("stop the MLflow server for the time of the copy"))
    }

    /// Applies the `-wal` or rolls back the journal in the copy, and leaves one plain file.
    fn settle(&mut self) -> Outcome<()> {
        let path = self.path();
        let settle = |path: &Path| -> rusqlite::Result<()> {
            let connection = Connection::open(path)?;
            connection.query_row("SELECT count(*) FROM sqlite_master", [], |_| Ok(()))?;
            connection.query_row("PRAGMA journal_mode=DELETE", [], |_| Ok(()))?;
            connection.close().map_err(|(_, error)| error)
        };
        settle(&path).map_err(|e| source_failure(&self.original, &e))?;
        self.bytes = fs::metadata(&path).map_or(self.bytes, |m| m.len());
        if self.bytes == 0 {
            return Err(Failure::source(format!(
                "{}: an interrupted first creation; with its journal rolled back the database is empty",
                shown(&self.original)
            ))
            .hint("there is nothing in it to move; the next start of MLflow makes it anew"));
        }
        Ok(())
    }

    /// `PRAGMA quick_check` on the copy.
    ///
    /// # Errors
    /// Source: the database is damaged, with SQLite's first words on it.
    pub fn check(&self, cancel: &Cancel) -> Outcome<()> {
        let connection = open_readonly(&self.path(), true).of_source(&self.original)?;
        let interrupt = connection.get_interrupt_handle();
        cancel.on_cancel(move || interrupt.interrupt());
        let check = || -> rusqlite::Result<Vec<String>> {
            let mut statement = connection.prepare(&format!("PRAGMA quick_check({})", i32::MAX))?;
            let mut rows = statement.query([])?;
            let mut findings = Vec::new();
            while let Some(row) = rows.next()? {
                let line: String = row.get(0)?;
                // Rows that break a rule are no damage; the survey names each of them.
                let rule = ["ok", "NULL value in ", "CHECK constraint failed in "];
                if !rule.iter().any(|words| line.starts_with(words)) {
                    findings.push(line);
                    if findings.len() == SHOWN {
                        break;
                    }
                }
            }
            Ok(findings)
        };
        let findings = cancel.explain(check().of_source(&self.original))?;
        if findings.is_empty() {
            return Ok(());
        }
        Err(Failure::source(format!("{} is damaged: {}", shown(&self.original), findings.join("; ")))
            .hint("restore a backup, or save what can be read with `sqlite3 FILE .recover` into a new file"))
    }
}

enum Stopped {
    ReadOnly,
    Failed(Failure),
}

fn no_room() -> Stopped {
    Stopped::Failed(Failure::target("no room left for the private copy").hint("name another folder with --work-dir"))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Length and time of change of files.
fn stamps(files: &[PathBuf]) -> Vec<Option<(u64, Option<SystemTime>)>> {
    files.iter().map(|file| file.metadata().ok().map(|m| (m.len(), m.modified().ok()))).collect()
}

/// What tells that a database was written to.
fn watched(original: &Path) -> Vec<PathBuf> {
    vec![original.to_owned(), with_suffix(original, "-wal")]
}

pub(super) fn look_beside(original: &Path) -> Outcome<Beside> {
    let filled = |suffix: &str| {
        let path = with_suffix(original, suffix);
        path.metadata().ok().filter(|m| m.len() > 0).map(|_| path)
    };
    // A journal whose header is zeroed was committed (journal_mode=PERSIST) and is not hot.
    let journal = filled("-journal").filter(|path| {
        let mut head = [0u8; 8];
        File::open(path).and_then(|mut f| f.read_exact(&mut head)).is_ok() && head != [0; 8]
    });
    let mut header = [0u8; 20];
    let _ = File::open(original).and_then(|mut f| f.read_exact(&mut header));
    Ok(Beside {
        wal: filled("-wal"),
        shm: with_suffix(original, "-shm").exists(),
        journal,
        // SQLite documentation, "Database File Format", 1.3: offset 19, the read version, is 2 in WAL mode.
        wal_mode: header.last() == Some(&2),
    })
}

/// Refuses what is no SQLite database, with a word for what it is. Returns the file's size.
pub(super) fn look_at_header(path: &Path) -> Outcome<u64> {
    let name = shown(path);
    let metadata = fs::metadata(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => Failure::source(format!("{name}: there is no such file"))
            .hint("a relative path in MLflow's sqlite:/// address is relative to the folder the server was started in"),
        _ => Failure::source(format!("{name}: {e}")),
    })?;
    if !metadata.is_file() {
        return Err(Failure::source(format!("{name} is not a file"))
            .hint("a folder `mlruns` is MLflow's file store: `mlflow migrate-filestore` turns it into a database"));
    }
    let mut head = Vec::new();
    File::open(path)
        .and_then(|f| f.take(100).read_to_end(&mut head))
        .map_err(|e| Failure::source(format!("{name}: {e}")))?;
    if head.starts_with(b"SQLite format 3\0") {
        return Ok(metadata.len());
    }
    if head.is_empty() {
        // With a journal beside it this may be a first creation that was cut; either way nothing is in it.
        return Err(Failure::source(format!("{name} is empty (0 bytes)"))
            .hint("MLflow makes such a file when its first start is cut: there is nothing in it to move"));
    }
    if head.starts_with(b"version https://git-lfs") {
        return Err(Failure::source(format!("{name} is a git-lfs pointer, not the database itself"))
            .hint("`git lfs pull` fetches the file"));
    }
    Err(Failure::source(format!("{name} is not a SQLite database"))
        .hint("the file does not begin as SQLite's files do"))
}

fn check_room(work_dir: &Path, needed: u64) -> Outcome<()> {
    let Ok(stat) = rustix::fs::statvfs(work_dir) else {
        return Err(Failure::configuration(format!("the work folder {} cannot be used", shown(work_dir)))
            .hint("name an existing folder with --work-dir"));
    };
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    if free < needed + needed / 20 {
        return Err(Failure::target(format!(
            "{} has {} MiB free and the private copy needs {}",
            shown(work_dir),
            free >> 20,
            (needed + needed / 20) >> 20
        ))
        .hint("name a folder with more room with --work-dir"));
    }
    Ok(())
}
