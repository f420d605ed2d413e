//! Is a backup still what it was: every stored byte, and that its rows have the digests that its manifest states.

use std::io;
use std::time::Instant;

use crate::archive::reader::ArchiveSource;

use crate::domain::address::{PgAddress, StoreAddress};
use crate::domain::failure::{Failure, Kind, Outcome};
use crate::engine::RowSource;
use crate::engine::copy::{Work, count, digest};
use crate::engine::event::Event;
use crate::engine::pool;
use crate::migrate::execute::execute;
use crate::migrate::plan;
use crate::migrate::policy::Policies;
use crate::store::postgres::temporary::TemporaryDatabase;
use crate::store::scratch::Scratch;
use crate::store::sqlite::ledger::Ledger;

use super::manifest::{Database, Manifest};
use super::object::{self, Fault};
use super::repository::{PROOF, Proof, Repository};

/// Which contents are read: those whose number modulo `of` is `part - 1`; of the others it is seen that they are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subset {
    /// From 1.
    pub part: u32,
    /// How many parts there are.
    pub of: u32,
}

impl Subset {
    /// All of it.
    pub const ALL: Subset = Subset { part: 1, of: 1 };

    /// Reads `1/7`.
    ///
    /// # Errors
    /// Usage: it is no such part.
    pub fn parse(text: &str) -> Outcome<Subset> {
        let parsed =
            text.split_once('/').and_then(|(n, t)| Some(Subset { part: n.parse().ok()?, of: t.parse().ok()? }));
        parsed.filter(|s| (1..=256).contains(&s.of) && (1..=s.of).contains(&s.part)).ok_or_else(|| {
            Failure::usage(format!("--read-data-subset {}: no part of a whole", text.escape_debug()))
                .hint("1/7 reads the first seventh of the contents, 2/7 the second; up to 256 parts")
        })
    }

    fn has(self, sha256: &str) -> bool {
        let first = u32::from_str_radix(sha256.get(..4).unwrap_or_default(), 16).unwrap_or(0);
        first % self.of == self.part - 1
    }
}

/// A backup that was looked at.
#[derive(Debug, Clone)]
pub struct Verified {
    /// Its id.
    pub id: String,
    /// What is wrong with it; empty: nothing.
    pub faults: Vec<String>,
    /// Contents that were read, and their stored bytes.
    pub read: (u64, u64),
    /// Contents that were seen to be there with their size.
    pub seen: u64,
    /// Why what was proven could not be noted beside it.
    pub unrecorded: Option<String>,
}

impl Verified {
    /// One of which nothing more is known than that it is damaged.
    pub fn damaged(id: String, fault: String) -> Verified {
        Verified { id, faults: vec![fault], read: (0, 0), seen: 0, unrecorded: None }
    }
}

/// What is to be looked at.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Which contents are read.
    pub subset: Subset,
    /// Whether the databases are restored into scratch ones.
    pub drill: Option<Drill>,
}

/// How a restore is tried.
#[derive(Debug, Clone)]
pub struct Drill {
    /// The id of the run.
    pub id: String,
    /// The PostgreSQL server for temporary databases; else temporary SQLite files do.
    pub server: Option<PgAddress>,
}

/// Faults that are named for one backup.
const NAMED: usize = 100;

/// Verifies backups. A content that several of them share is read once.
///
/// # Errors
/// Source: the place does not answer. Interrupted. A damaged backup is no error: it is in the result.
pub fn verify(
    repository: &Repository,
    manifests: &[Manifest],
    wanted: &Wanted,
    work_dir: &std::path::Path,
    work: &Work<'_>,
) -> Outcome<Vec<Verified>> {
    let mut out = Vec::new();
    for manifest in manifests {
        let mut verified =
            Verified { id: manifest.id.clone(), faults: Vec::new(), read: (0, 0), seen: 0, unrecorded: None };
        let mut found = Vec::new();
        let note = |outcome: Outcome<()>, found: &mut Vec<String>| match outcome {
            Err(failure) if failure.kind == Kind::Damaged => {
                found.push(failure.message);
                Ok(())
            }
            other => other,
        };
        for database in std::iter::once(&manifest.database).chain(&manifest.auth) {
            note(check_database(repository, manifest, database, work_dir, work), &mut found)?;
            if let (Some(wanted), true) = (&wanted.drill, found.is_empty()) {
                note(drill(repository, manifest, database, wanted, work_dir, work), &mut found)?;
            }
        }
        note(check_contents(repository, manifest, wanted.subset, work_dir, work, &mut verified), &mut found)?;
        verified.faults.splice(0..0, found);
        if !verified.faults.is_empty() && !repository.fixed && repository.manifest(&manifest.id)?.is_none() {
            // Pruned meanwhile.
            continue;
        }
        let proves = wanted.subset == Subset::ALL || wanted.drill.is_some();
        if verified.faults.is_empty() && proves && !repository.fixed {
            let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
            let mut proof = repository.look(&manifest.id)?.proof;
            if wanted.drill.is_some() {
                proof.drilled = Some(now.clone());
            }
            if wanted.subset == Subset::ALL {
                proof.verified = Some(now);
            }
            // Who may only read can verify as well.
            verified.unrecorded = record(repository, &manifest.id, &proof).err().map(|failure| failure.message);
        }
        out.push(verified);
    }
    Ok(out)
}

/// Writes what was proven beside the manifest.
fn record(repository: &Repository, id: &str, proof: &Proof) -> Outcome<()> {
    let proof = Proof { seal: proof.sealed(), ..proof.clone() };
    let text = serde_json::to_vec(&proof).map_err(|e| Failure::internal(e.to_string()))?;
    repository.write(&format!("{id}/{PROOF}"), &text)?;
    repository.shelf.settle()
}

/// The archive's bytes, its own checks, and the digests of its rows against the manifest's.
fn check_database(
    repository: &Repository,
    manifest: &Manifest,
    database: &Database,
    work_dir: &std::path::Path,
    work: &Work<'_>,
) -> Outcome<()> {
    let (id, name) = (&manifest.id, &database.archive.file);
    work.events.event(Event::Phase {
        name: "checking the database",
        total: Some(database.archive.bytes),
        unit: "bytes",
    });
    repository.check_part(manifest, &database.archive, &mut |bytes| {
        work.cancel.check()?;
        work.events.event(Event::Done { table: String::new(), units: bytes.len() as u64 });
        Ok(())
    })?;
    let archive = Fetched::of(repository, id, name, work_dir)?;
    let source = ArchiveSource::open(archive.path(), work.cancel)?;
    let shapes = source.shapes().to_vec();
    let rows = count(&source, &shapes, work)?;
    work.events.event(Event::Phase { name: "checking rows", total: Some(rows.iter().sum()), unit: "rows" });
    let digests = digest(&source, &shapes, &rows, work)?;
    let same = digests.len() == database.tables.len()
        && shapes.iter().zip(&digests).zip(&database.tables).all(|((shape, digest), table)| {
            shape.name == table.table && digest.rows == table.rows && digest.to_string() == table.digest
        });
    if same {
        return Ok(());
    }
    Err(Failure::damaged(format!("the backup {id} is damaged: the rows of `{name}` have other digests than it states")))
}

/// Restores a database into a scratch one, compares what is there with the manifest's digests, and throws it away.
fn drill(
    repository: &Repository,
    manifest: &Manifest,
    database: &Database,
    wanted: &Drill,
    work_dir: &std::path::Path,
    work: &Work<'_>,
) -> Outcome<()> {
    let archive = Fetched::of(repository, &manifest.id, &database.archive.file, work_dir)?;
    let scratch = Scratch::new("mlops-drill-", work_dir)?;
    let temporary = match &wanted.server {
        Some(server) => Some(TemporaryDatabase::create(server, &wanted.id, work.cancel)?),
        None => None,
    };
    let target = match &temporary {
        Some(temporary) => StoreAddress::Postgres(Box::new(temporary.address())),
        None => StoreAddress::Sqlite(scratch.path().join("drill.db")),
    };
    let request = plan::Request {
        id: wanted.id.clone(),
        started: manifest.started.clone(),
        source: StoreAddress::Archive(archive.path().to_owned()),
        target,
        work_dir: work_dir.to_owned(),
        include: Vec::new(),
        replace: false,
        verify: true,
        policies: Policies::default(),
        compression: Default::default(),
        survey: false,
    };
    let migrated = plan::prepare(&request, work).and_then(|ready| execute(ready, None, Instant::now(), work));
    // Whatever came of it, and a failure to drop it is one.
    let dropped = temporary.map(TemporaryDatabase::drop_it).transpose();
    let migrated = migrated?;
    dropped?;
    let same = migrated.tables.len() == database.tables.len()
        && migrated.tables.iter().zip(&database.tables).all(|(restored, table)| {
            let digest = restored.target.map(|d| (d.rows, d.to_string()));
            restored.name == table.table && digest == Some((table.rows, table.digest.clone()))
        });
    if same {
        return Ok(());
    }
    let (id, file) = (&manifest.id, &database.archive.file);
    Err(Failure::damaged(format!("the backup {id}: `{file}`, restored, does not have the digests of the manifest")))
}

/// A file of the store on this machine.
pub(super) struct Fetched {
    path: std::path::PathBuf,
    _scratch: Option<Scratch>,
}

impl Fetched {
    /// Where the store is a folder, the file itself; else a private copy.
    pub(super) fn of(repository: &Repository, id: &str, name: &str, work_dir: &std::path::Path) -> Outcome<Fetched> {
        let at = format!("{id}/{name}");
        if let Some(path) = repository.shelf.on_this_machine(&at) {
            return Ok(Fetched { path, _scratch: None });
        }
        let scratch = Scratch::new("mlops-backup-", work_dir)?;
        let path = scratch.path().join(name);
        let failed = |e: io::Error| Failure::configuration(format!("the work folder: {e}"));
        let gone = || Failure::damaged(format!("the backup {id} is damaged: `{name}` is not there"));
        let mut opened = repository.shelf.open(&at)?.ok_or_else(gone)?;
        let mut file = std::fs::File::create(&path).map_err(failed)?;
        io::copy(&mut opened.reader, &mut file).map_err(|e| match e.get_ref() {
            // The reader's errors carry a failure, the disk's do not.
            Some(inner) if inner.is::<Failure>() => Failure::source(format!("{}/{at}: {e}", repository.shelf.place())),
            _ => failed(e),
        })?;
        Ok(Fetched { path, _scratch: Some(scratch) })
    }

    pub(super) fn path(&self) -> &std::path::Path {
        &self.path
    }
}

/// Every content of the list: read and checked, or seen.
fn check_contents(
    repository: &Repository,
    manifest: &Manifest,
    subset: Subset,
    work_dir: &std::path::Path,
    work: &Work<'_>,
    verified: &mut Verified,
) -> Outcome<()> {
    let ledger = Ledger::new(work_dir)?;
    let mut bytes = 0;
    repository.read_list(manifest, &mut |line| {
        if ledger.object(&line.sha256, line.bytes, line.stored)? && subset.has(&line.sha256) {
            bytes += line.bytes;
        }
        Ok(())
    })?;
    if ledger.stored()?.bytes != manifest.artifacts.stored {
        return Err(Failure::damaged(format!("the backup {} is damaged: its list states other sizes", manifest.id)));
    }
    work.events.event(Event::Phase { name: "checking artifacts", total: Some(bytes), unit: "bytes" });
    let cursor = std::sync::Mutex::new(String::new());
    let found = std::sync::Mutex::new(verified);
    pool::flow(work.jobs, (0..work.jobs as u64).map(|n| (n, ())).collect(), work.cancel, |()| {
        loop {
            let page = {
                let mut after = cursor.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                let page = ledger.objects(&after, 64)?;
                let Some((last, _, _)) = page.last() else { return Ok(Vec::new()) };
                after.clone_from(last);
                page
            };
            for (sha256, bytes, stored) in page {
                work.cancel.check()?;
                let read = subset.has(&sha256);
                let fault = if read {
                    check_content(repository, &sha256, (bytes, stored), work)?
                } else {
                    let seen = repository.shelf.stat(&object::path(&sha256))?;
                    (seen.map(|s| s.bytes) != Some(stored)).then(|| "is not there, or of another size".to_owned())
                };
                let mut found = found.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                match fault {
                    None if read => found.read = (found.read.0 + 1, found.read.1 + stored),
                    None => found.seen += 1,
                    Some(why) if found.faults.len() < NAMED => {
                        found.faults.push(format!("the content {sha256} {why}"));
                    }
                    Some(_) => {}
                }
            }
        }
    })
}

/// What is wrong with a content, after every byte of it was read.
fn check_content(
    repository: &Repository,
    sha256: &str,
    wanted: (u64, u64),
    work: &Work<'_>,
) -> Outcome<Option<String>> {
    let Some(mut opened) = repository.shelf.open(&object::path(sha256))? else {
        return Ok(Some("is not there".to_owned()));
    };
    let unpacked = object::unpack(&mut opened.reader, sha256, &mut io::sink(), &mut |units| {
        work.events.event(Event::Done { table: String::new(), units });
        work.cancel.check().map_err(io::Error::other)
    });
    work.cancel.check()?;
    match unpacked {
        Ok(packed) if (packed.bytes, packed.stored) == wanted => Ok(None),
        Ok(_) => Ok(Some("is of another size than the list states".to_owned())),
        Err(Fault::Damaged(why)) => Ok(Some(format!("is damaged: {why}"))),
        Err(Fault::Unread(e) | Fault::Unwritten(e)) => {
            Err(Failure::source(format!("{}: {e}", repository.shelf.place())))
        }
    }
}
