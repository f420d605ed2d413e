//! A backup is made: the database in one snapshot, then the files that this snapshot refers to, then the manifest.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::archive::layout::Compression;
use crate::archive::reader::ArchiveSource;
use crate::artifact::files::{Entry, Files, Met, There};
use crate::domain::address::StoreAddress;
use crate::domain::artifact_address::ArtifactAddress;
use crate::domain::failure::{Failure, Kind, Outcome};
use crate::domain::harmless;
use crate::engine::copy::Work;
use crate::engine::event::Event;
use crate::engine::pool;
use crate::migrate::execute::execute;
use crate::migrate::plan::{self, Plan};
use crate::migrate::policy::Policies;
use crate::store::scratch::Scratch;
use crate::store::sqlite::ledger::{Ledger, LedgerFile};

use super::manifest::{self, AUTH, Artifacts, DATABASE, Database, FORMAT, Manifest, Part, Scope, Table, Unread};
use super::object::{self, Fault, Packed, Side};
use super::place::Ways;
use super::references::{self, References};
use super::repository::{Listed, Repository};
use super::root::Root;
use super::secrets;

/// What is to be backed up, and how.
#[derive(Debug, Clone)]
pub struct Request {
    /// The id of this run, which becomes the backup's.
    pub id: String,
    /// When it began, RFC 3339.
    pub started: String,
    /// The backend database.
    pub database: StoreAddress,
    /// Basic-auth's database, where it is one of its own.
    pub auth: Option<StoreAddress>,
    /// The artifact root, as the operator names it.
    pub artifact_root: Option<String>,
    /// Which artifacts.
    pub scope: Scope,
    /// Whether files are read though they have the size and time that they had.
    pub rehash: bool,
    /// Where private copies go.
    pub work_dir: PathBuf,
}

/// A backup that was made.
#[derive(Debug)]
pub struct Created {
    /// What it says of itself.
    pub manifest: Manifest,
    /// Where it is.
    pub place: String,
    /// From the first look to the end.
    pub took: Duration,
}

/// Files that are asked for again when they change while they are read.
const TRIES: usize = 3;
/// Paths and files that a thread takes at once.
const PAGE: usize = 128;
/// So few files may well go.
const FEW: u64 = 10;

/// Makes a backup. When this fails, nothing in the place looks like one.
///
/// # Errors
/// Source: the database cannot be read. Target: the place cannot be written to. Locked: another run has it.
pub fn create(request: &Request, repository: &Repository, ways: &Ways, work: &Work<'_>) -> Outcome<Created> {
    let begun = Instant::now();
    let lease = repository.shelf.lock(&format!("mlops backup {} (process {})", request.id, std::process::id()))?;
    let mut warnings = remove_unfinished(repository)?;
    let request = &Request { id: repository.next_id(&request.id)?, ..request.clone() };
    warnings.extend(lease.warning());
    let made = Maker { request, repository, ways, work }.make(&mut warnings).and_then(|manifest| {
        lease.held()?;
        work.cancel.check()?;
        work.events.event(Event::Phase { name: "publishing", total: None, unit: "" });
        repository.publish(&manifest)?;
        Ok(manifest)
    });
    match work.cancel.explain(made) {
        Ok(manifest) => Ok(Created { manifest, place: repository.shelf.place(), took: begun.elapsed() }),
        Err(failure) => {
            // Files of the pool stay: the next backup finds them there.
            let _ = repository.remove(&request.id);
            Err(failure)
        }
    }
}

/// Removes what interrupted backups left: whoever holds the lock knows that they are dead.
fn remove_unfinished(repository: &Repository) -> Outcome<Vec<String>> {
    let mut warnings = Vec::new();
    for Listed { id, manifest, .. } in repository.list()? {
        let lacks_seal = !matches!(manifest, Some(Ok(_))) && repository.lacks_seal(&id)?;
        if lacks_seal && repository.finish(&id)? {
            warnings.push(format!("the backup {id} lacked nothing but its seal, and has it now"));
        } else if lacks_seal {
            warnings.push(format!("the backup {id} has no seal and is not whole; remove its folder if it is given up"));
        } else if manifest.is_none() {
            repository.remove(&id)?;
            warnings.push(format!("removed the backup {id}, which was interrupted and never finished"));
        }
    }
    Ok(warnings)
}

/// What the files of this backup were.
#[derive(Default)]
struct Tally {
    read: u64,
    new_files: u64,
    new_bytes: u64,
    unreadable: u64,
    unread: Vec<Unread>,
}

impl Tally {
    fn unread(&mut self, address: String, why: String) {
        self.unreadable += 1;
        if self.unread.len() < manifest::NAMED {
            self.unread.push(Unread { address, reason: why });
        }
    }
}

/// A database's archive, as long as it is needed on this machine.
struct Archive {
    file: PathBuf,
    _scratch: Scratch,
}

struct Maker<'a> {
    request: &'a Request,
    repository: &'a Repository,
    ways: &'a Ways,
    work: &'a Work<'a>,
}

impl Maker<'_> {
    fn make(&self, warnings: &mut Vec<String>) -> Outcome<Manifest> {
        let request = self.request;
        let (database, archive) = self.database(&request.database, DATABASE, warnings)?;
        let auth = request.auth.as_ref().map(|auth| self.database(auth, AUTH, warnings)).transpose()?;
        let auth = auth.map(|(auth, _)| auth);
        let mut secrets = secrets::of(&database);
        secrets.extend(auth.as_ref().map(secrets::of).into_iter().flatten());
        let artifacts = self.artifacts(&archive.file, warnings)?;
        Ok(Manifest {
            format: FORMAT,
            tool: crate::TOOL.to_owned(),
            id: request.id.clone(),
            started: request.started.clone(),
            finished: now(),
            complete: artifacts.unreadable == 0,
            database,
            auth,
            artifacts,
            secrets,
            warnings: warnings.clone(),
        })
    }

    /// Writes a database's archive, verified, beside the manifest to be.
    fn database(&self, address: &StoreAddress, name: &str, warnings: &mut Vec<String>) -> Outcome<(Database, Archive)> {
        let request = self.request;
        let path = format!("{}/{name}", request.id);
        let scratch = Scratch::new("mlops-backup-", &request.work_dir)?;
        let here = self.repository.shelf.on_this_machine(&path);
        let file = here.clone().unwrap_or_else(|| scratch.path().join(name));
        if let Some(folder) = here.as_ref().and_then(|f| f.parent()) {
            // What will be in it is a whole store.
            let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
            made.map_err(|e| self.repository.unwritten(&e))?;
        }
        let wanted = plan::Request {
            id: request.id.clone(),
            started: request.started.clone(),
            source: address.clone(),
            target: StoreAddress::Archive(file.clone()),
            work_dir: request.work_dir.clone(),
            include: Vec::new(),
            replace: false,
            verify: true,
            policies: Policies::default(),
            compression: Compression::default(),
            survey: false,
        };
        let prepared = plan::prepare(&wanted, self.work)?;
        let migrated = execute(prepared, None, Instant::now(), self.work)?;
        warnings.extend(migrated.warnings);
        let archive = match here {
            Some(file) => {
                let private = fs::set_permissions(&file, Permissions::from_mode(0o600));
                private.map_err(|e| self.repository.unwritten(&e))?;
                self.hashed(&path, name)?
            }
            None => self.repository.take_in(&file, &request.id, name)?,
        };
        let Plan { source, revision, .. } = migrated.plan;
        let table = |t: &crate::migrate::outcome::MigratedTable| Table {
            table: t.name.clone(),
            rows: t.source.rows,
            digest: t.source.to_string(),
        };
        let database = Database {
            archive,
            address: source.address,
            engine: source.engine.to_string(),
            version: source.version,
            revision_text: revision,
            tables: migrated.tables.iter().map(table).collect(),
        };
        Ok((database, Archive { file, _scratch: scratch }))
    }

    /// The file's size and SHA-256.
    fn hashed(&self, path: &str, name: &str) -> Outcome<Part> {
        let gone = || Failure::target(format!("{}/{path} is gone", self.repository.shelf.place()));
        let mut opened = self.repository.shelf.open(path)?.ok_or_else(gone)?;
        let (bytes, sha256) =
            super::repository::hash(&mut opened.reader).map_err(|e| Failure::target(format!("{path}: {e}")))?;
        Ok(Part { file: name.to_owned(), bytes, sha256 })
    }

    fn artifacts(&self, archive: &Path, warnings: &mut Vec<String>) -> Outcome<Artifacts> {
        let request = self.request;
        let ledger = Ledger::new(&request.work_dir)?;
        let references = self.references(archive, &ledger)?;
        let open = |(number, address): (usize, &String)| {
            // `mlflow-artifacts:` stands for its root.
            let address = ArtifactAddress::parse(&format!("{address}/"));
            let main = number == references.main;
            Root::new(self.ways.files(&address), address, main)
        };
        let roots: Vec<Root> = references.roots.iter().enumerate().map(open).collect();
        let mut tally = Tally { unreadable: references.unreadable, ..Tally::default() };
        tally.unread.extend(references.unread.iter().cloned());
        let tally = Mutex::new(tally);
        let known = self.know(&references.roots, &ledger)?;
        self.walk(&roots, &ledger, &tally)?;
        self.look_for_lost(&roots, &known, &ledger, &tally, warnings)?;
        let same = if request.rehash { Default::default() } else { ledger.take_over()? };
        let all = ledger.all()?;
        let left = all.bytes.saturating_sub(same.bytes);
        self.work.events.event(Event::Phase { name: "copying artifacts", total: Some(left), unit: "bytes" });
        self.copy(&roots, &ledger, &tally)?;
        let list = self.repository.write_list(&request.id, &ledger)?;
        let tally = tally.into_inner().unwrap_or_else(PoisonError::into_inner);
        let (all, stored) = (ledger.all()?, ledger.stored()?);
        Ok(Artifacts {
            scope: request.scope,
            roots: references.roots.iter().map(|root| told(root)).collect(),
            main: references.main,
            list,
            files: all.files,
            bytes: all.bytes,
            stored: stored.bytes,
            read: tally.read,
            new_files: tally.new_files,
            new_bytes: tally.new_bytes,
            unreadable: tally.unreadable,
            unread: tally.unread,
        })
    }

    /// What the archive that was just written refers to.
    fn references(&self, file: &Path, ledger: &Ledger) -> Outcome<References> {
        let request = self.request;
        self.work.events.event(Event::Phase { name: "looking for artifacts", total: None, unit: "" });
        let archive = ArchiveSource::open(file, self.work.cancel)?;
        references::collect(&archive, request.scope, request.artifact_root.as_deref(), ledger)
    }

    /// Notes what the pool holds and what backups before knew; how many files of each root the last complete one had.
    fn know(&self, roots: &[String], ledger: &Ledger) -> Outcome<Vec<u64>> {
        let mut known = vec![0; roots.len()];
        self.repository.shelf.walk("artifacts/sha256", &mut |met| {
            if let Met::File(Entry { path, bytes, .. }) = met
                && let Some(sha256) = object::of_path(&path)
            {
                ledger.pooled(sha256, bytes)?;
            }
            Ok(())
        })?;
        let whole: Vec<Manifest> = self.repository.list()?.into_iter().filter_map(|l| l.manifest?.ok()).collect();
        // What is missing now is missed beside a backup that lacked nothing; after that the newest is known as well.
        let like = |m: &&Manifest| m.complete && [Scope::All, self.request.scope].contains(&m.artifacts.scope);
        let before = whole.iter().rev().find(like);
        let newest = whole.last().filter(|newest| before.is_none_or(|before| before.id != newest.id));
        for manifest in before.into_iter().chain(newest) {
            let counted = before.is_some_and(|before| before.id == manifest.id);
            let places: Vec<Option<usize>> =
                manifest.artifacts.roots.iter().map(|root| roots.iter().position(|r| told(r) == *root)).collect();
            let read = self.repository.read_list(manifest, &mut |mut line| {
                if let Some(Some(place)) = places.get(line.root as usize) {
                    if let Some(count) = known.get_mut(*place).filter(|_| counted) {
                        *count += 1;
                    }
                    line.root = u32::try_from(*place).unwrap_or(u32::MAX);
                    ledger.know(&LedgerFile::from(line))?;
                }
                Ok(())
            });
            match read {
                // A damaged list saves nothing, and costs nothing but time.
                Err(failure) if failure.kind != Kind::Damaged => return Err(failure),
                _ => {}
            }
        }
        Ok(known)
    }

    /// Notes every file that is referred to.
    fn walk(&self, roots: &[Root], ledger: &Ledger, tally: &Mutex<Tally>) -> Outcome<()> {
        let referenced = ledger.referenced()?;
        self.work.events.event(Event::Phase { name: "listing artifacts", total: Some(referenced), unit: "folders" });
        // The last path that was taken, and the last that was walked: what lies below it was walked with it.
        let cursor = Mutex::new(((0, String::new()), None::<(u32, String)>, true));
        pool::flow(self.work.jobs, (0..self.work.jobs as u64).map(|n| (n, ())).collect(), self.work.cancel, |()| {
            loop {
                self.work.cancel.check()?;
                let page = {
                    let mut cursor = cursor.lock().unwrap_or_else(PoisonError::into_inner);
                    let (after, walked, first) = &mut *cursor;
                    let mut page = ledger.references(after, PAGE)?;
                    // A whole root has the empty path, which nothing comes before.
                    if *first {
                        *first = false;
                        page.splice(0..0, ledger.whole_root(0)?);
                    }
                    let Some(last) = page.last() else { return Ok(Vec::new()) };
                    *after = last.clone();
                    page.retain(|next| {
                        let within = walked.as_ref().is_some_and(|w| w.0 == next.0 && next.1.starts_with(&w.1));
                        if !within {
                            *walked = Some(next.clone());
                        }
                        !within
                    });
                    page
                };
                for (number, path) in &page {
                    self.walk_one(roots, *number, path.trim_end_matches('/'), ledger, tally)?;
                }
                let units = page.len() as u64;
                self.work.events.event(Event::Done { table: String::new(), units });
            }
        })
    }

    fn walk_one(&self, roots: &[Root], number: u32, path: &str, ledger: &Ledger, tally: &Mutex<Tally>) -> Outcome<()> {
        let Some(root) = roots.get(number as usize) else { return Ok(()) };
        let note = |path: &str, why: String| {
            tally.lock().unwrap_or_else(PoisonError::into_inner).unread(root.at(path), why);
        };
        let files = match root.files() {
            Ok(files) => files,
            Err(why) => {
                note(path, why);
                return Ok(());
            }
        };
        let walked = files.walk(path, &mut |met| {
            self.work.cancel.check()?;
            match met {
                Met::File(Entry { path, bytes, changed, .. }) => {
                    ledger.add(&LedgerFile { root: number, path, bytes, changed, sha256: None, stored: 0 })
                }
                Met::Unreadable { path, why } => {
                    note(&path, why);
                    Ok(())
                }
            }
        });
        if let Err(failure) = root.heard(walked)? {
            note(path, failure.message);
        }
        Ok(())
    }

    /// A root that is empty though it had files, or should have some, is a lost mount and not a store without artifacts.
    fn look_for_lost(
        &self,
        roots: &[Root],
        known: &[u64],
        ledger: &Ledger,
        tally: &Mutex<Tally>,
        warnings: &mut Vec<String>,
    ) -> Outcome<()> {
        for (number, root) in roots.iter().enumerate() {
            let number = u32::try_from(number).unwrap_or(u32::MAX);
            let (Ok(files), true) = (root.files(), ledger.refers_to(number)?) else { continue };
            let now = ledger.files_of(number)?;
            let before = known.get(number as usize).copied().unwrap_or(0);
            let place = files.place();
            if now == 0 && before > 0 {
                let why = format!("nothing is there, and the last complete backup had {before} files of it");
                tally.lock().unwrap_or_else(PoisonError::into_inner).unread(root.at(""), why);
            } else if now == 0 {
                warnings.push(format!(
                    "no artifact was found below {} ({place}): that is right only if nothing was ever logged there; a \
                     relative address is looked for below the folder that mlops was started in",
                    root.at("")
                ));
            } else if before >= FEW && now < before / 2 {
                warnings.push(format!(
                    "below {} ({place}) are {now} files, and the last complete backup had {before}: is all of it mounted?",
                    root.at("")
                ));
            }
        }
        Ok(())
    }

    /// Reads and stores every file whose content is not known.
    fn copy(&self, roots: &[Root], ledger: &Ledger, tally: &Mutex<Tally>) -> Outcome<()> {
        let cursor = Mutex::new((0, String::new()));
        pool::flow(self.work.jobs, (0..self.work.jobs as u64).map(|n| (n, ())).collect(), self.work.cancel, |()| {
            loop {
                let page = {
                    let mut after = cursor.lock().unwrap_or_else(PoisonError::into_inner);
                    let page = ledger.files(&after, true, PAGE)?;
                    let Some(last) = page.last() else { return Ok(Vec::new()) };
                    *after = (last.root, last.path.clone());
                    page
                };
                for file in page {
                    self.work.cancel.check()?;
                    self.copy_one(roots, file, ledger, tally)?;
                }
            }
        })
    }

    fn copy_one(&self, roots: &[Root], file: LedgerFile, ledger: &Ledger, tally: &Mutex<Tally>) -> Outcome<()> {
        let Some(root) = roots.get(file.root as usize) else { return Ok(()) };
        let lock = || tally.lock().unwrap_or_else(PoisonError::into_inner);
        let stored = match root.files() {
            Ok(files) => root.heard(self.read_and_store(files, &file, ledger))?.map_err(|failure| failure.message),
            Err(why) => Err(why),
        };
        let (entry, packed, new) = match stored {
            Ok(Some(stored)) => stored,
            Ok(None) => return ledger.forget(file.root, &file.path),
            Err(why) => {
                lock().unread(root.at(&file.path), why);
                return ledger.forget(file.root, &file.path);
            }
        };
        let mut tally = lock();
        tally.read += 1;
        if new {
            tally.new_files += 1;
            tally.new_bytes += packed.stored;
        }
        drop(tally);
        ledger.add(&LedgerFile {
            bytes: packed.bytes,
            changed: entry.changed,
            sha256: Some(packed.sha256),
            stored: packed.stored,
            ..file
        })
    }

    /// `None`: the file is gone.
    fn read_and_store(
        &self,
        files: &dyn Files,
        listed: &LedgerFile,
        ledger: &Ledger,
    ) -> Outcome<Option<(Entry, Packed, bool)>> {
        let (shelf, path) = (&self.repository.shelf, listed.path.as_str());
        for turn in 1..=TRIES {
            let Some(mut opened) = files.open(path)? else { return Ok(None) };
            let mut staged = shelf.stage()?;
            let packed = object::pack(&mut opened.reader, &mut staged, &mut |units| {
                self.work.events.event(Event::Done { table: String::new(), units });
                self.work.cancel.check().map_err(io::Error::other)
            });
            // What asks for the rest of a broken download itself does not ask for the whole again.
            if matches!(packed, Err(Side::From(_))) && !files.stat_is_cheap() && turn < TRIES {
                self.work.cancel.check()?;
                continue;
            }
            let packed = packed.map_err(|side| match side {
                Side::From(e) => self
                    .work
                    .cancel
                    .failure()
                    .unwrap_or_else(|| Failure::source(format!("{}/{path} cannot be read: {e}", files.place()))),
                Side::To(e) => self.repository.unwritten(&e),
            })?;
            // One that has the size that was listed is not asked for again where that would list its whole folder.
            if files.stat_is_cheap() || packed.bytes != listed.bytes {
                let Some(after) = files.stat(path)? else { return Ok(None) };
                let before = &opened.entry;
                let same = after.bytes == packed.bytes && (before.changed.is_none() || after.changed == before.changed);
                if !same {
                    continue;
                }
            }
            if ledger.has_object(&packed.sha256)? {
                return Ok(Some((opened.entry, packed, false)));
            }
            let at = object::path(&packed.sha256);
            let there = match ledger.in_pool(&packed.sha256)? {
                // What an interrupted run left may be half on the disk, and a disk may damage what it has.
                Some(stored) => match self.check_stored(&packed.sha256)? {
                    true => {
                        ledger.object(&packed.sha256, packed.bytes, stored)?;
                        return Ok(Some((opened.entry, Packed { stored, ..packed }, false)));
                    }
                    false => There::Replaced,
                },
                None => There::Stays,
            };
            let new = shelf.put(staged, &at, there)?;
            ledger.object(&packed.sha256, packed.bytes, packed.stored)?;
            return Ok(Some((opened.entry, packed, new)));
        }
        Err(Failure::source(format!("{}/{path} changes while it is read", files.place())))
    }

    /// Whether a content of the pool is what it must be.
    fn check_stored(&self, sha256: &str) -> Outcome<bool> {
        let Some(mut opened) = self.repository.shelf.open(&object::path(sha256))? else { return Ok(false) };
        match object::unpack(&mut opened.reader, sha256, &mut io::sink(), &mut |_| Ok(())) {
            Ok(_) => Ok(true),
            Err(Fault::Damaged(_)) => Ok(false),
            Err(Fault::Unread(e) | Fault::Unwritten(e)) => {
                Err(Failure::target(format!("{} cannot be read: {e}", self.repository.shelf.place())))
            }
        }
    }
}

fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A root as the manifest names it: as the database does, for a restore looks for that there. But what opens a store that
/// is not served, or another server's, is masked: its files are not taken along, and its addresses stay.
fn told(root: &str) -> String {
    match ArtifactAddress::parse(root) {
        ArtifactAddress::Elsewhere { shown, .. } => shown,
        ArtifactAddress::Proxy { host: Some(_), .. } => harmless::masked(root),
        _ => root.to_owned(),
    }
}
