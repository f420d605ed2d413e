//! A backup becomes a stack again: its files first, then the database, all or nothing.

use std::io::{self, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use crate::artifact::files::{Shelf, There};
use crate::domain::address::StoreAddress;
use crate::domain::amend::Rewrite;
use crate::domain::artifact_address::ArtifactAddress;
use crate::domain::consent::{Confirmed, Consent};
use crate::domain::failure::{Failure, Kind, Outcome};
use crate::engine::RowSource;
use crate::engine::copy::Work;
use crate::engine::event::Event;
use crate::engine::pool;
use crate::migrate::execute;
use crate::migrate::outcome::Migrated;
use crate::migrate::plan::{self, Prepared};
use crate::migrate::policy::Policies;
use crate::store::sqlite::ledger::{Ledger, LedgerFile};

use super::manifest::{Database, Manifest, Scope};
use super::object::{self, Fault};
use super::references;
use super::repository::{self, Repository};
use super::verify::Fetched;

/// What is to be restored, and to where.
pub struct Request {
    /// The id of this run.
    pub id: String,
    /// When it began, RFC 3339.
    pub started: String,
    /// The database to be made.
    pub to: StoreAddress,
    /// Basic-auth's database to be made.
    pub auth_to: Option<StoreAddress>,
    /// Where the files go, in the form that addresses in the database begin with; `None`: only the database is restored.
    pub artifact_root: Option<String>,
    /// What may be done about rows that do not fit, and the experiments to which they are confined.
    pub policies: Policies,
    /// Whether tables or a file with data may be moved aside.
    pub replace: bool,
    /// Where private copies go.
    pub work_dir: PathBuf,
    /// Whether everything is looked at for what does not fit.
    pub survey: bool,
}

/// A file that a store does not give or take at once is tried again.
const TRIES: u32 = 3;

/// Where the files of a root of the backup go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// The root, as it stands in the backup's database.
    pub from: String,
    /// What takes its place in the restored database; the same: nothing.
    pub to: String,
    /// The path of its files below the artifact root; may be empty.
    pub below: String,
}

/// What will be done with the files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FilePlan {
    /// Where they go.
    pub root: Option<String>,
    /// Root by root.
    pub moved: Vec<Moved>,
    /// Files that are not there, and their bytes.
    pub missing: (u64, u64),
    /// Files that are there with another content, and the bytes that they are to have.
    pub differing: (u64, u64),
    /// Files that are there already.
    pub there: u64,
}

/// A restore that can begin.
pub struct Ready {
    /// The backup.
    pub manifest: Manifest,
    /// What happens to files.
    pub files: FilePlan,
    /// What happens to the database.
    pub database: Prepared,
    /// The same for basic-auth's.
    pub auth: Option<Prepared>,
    shelf: Option<Box<dyn Shelf>>,
    ledger: Ledger,
    _fetched: Vec<Fetched>,
}

/// A restore that was done.
pub struct Restored {
    /// The backup.
    pub manifest: Manifest,
    /// What happened to files.
    pub files: FilePlan,
    /// What happened to the database.
    pub database: Migrated,
    /// The same for basic-auth's.
    pub auth: Option<Migrated>,
    /// From the first look to the end.
    pub took: Duration,
}

/// Looks at the backup and at both targets. Changes nothing.
///
/// # Errors
/// Damaged: the backup. Refused: the target holds data. Target: it cannot be used.
pub fn prepare(
    request: &Request,
    manifest: Manifest,
    repository: &Repository,
    shelf: Option<Box<dyn Shelf>>,
    work: &Work<'_>,
) -> Outcome<Ready> {
    let ledger = Ledger::new(&request.work_dir)?;
    let mut files = FilePlan { root: request.artifact_root.clone(), ..FilePlan::default() };
    if let Some(root) = &request.artifact_root {
        files.moved = moved(&manifest.artifacts.roots, manifest.artifacts.main, root);
        stay(&mut files.moved, &manifest, repository)?;
    }
    let mut fetched = Vec::new();
    let mut database = |database: &Database, to: &StoreAddress, rewrites: Vec<Rewrite>, experiments: &[String]| {
        repository.check_part(&manifest, &database.archive, &mut |_| work.cancel.check())?;
        let archive = Fetched::of(repository, &manifest.id, &database.archive.file, &request.work_dir)?;
        let wanted = plan::Request {
            id: request.id.clone(),
            started: request.started.clone(),
            source: StoreAddress::Archive(archive.path().to_owned()),
            target: to.clone(),
            work_dir: request.work_dir.clone(),
            include: Vec::new(),
            replace: request.replace,
            verify: true,
            policies: Policies { rewrites, experiments: experiments.to_vec(), ..request.policies.clone() },
            compression: Default::default(),
            survey: request.survey,
        };
        fetched.push(archive);
        plan::prepare(&wanted, work)
    };
    let rewrites = files.moved.iter().filter(|m| m.from != m.to);
    let rewrites = rewrites.map(|m| Rewrite { from: m.from.clone(), to: m.to.clone() }).collect();
    let main: Prepared = database(&manifest.database, &request.to, rewrites, &request.policies.experiments)?;
    let auth = match (&manifest.auth, &request.auth_to) {
        (Some(auth), Some(to)) => Some(database(auth, to, Vec::new(), &[])?),
        (None, Some(_)) => {
            return Err(Failure::usage(format!("--auth-to: the backup {} has no basic-auth database", manifest.id)));
        }
        _ => None,
    };
    if let Some(shelf) = &shelf {
        let needed = match main.plan.applied.chosen {
            Some(_) => Some(needed(main.store.source.as_ref(), &request.work_dir)?),
            None => None,
        };
        look(&manifest, repository, shelf.as_ref(), needed.as_ref(), &mut files, &ledger, work)?;
    }
    Ok(Ready { manifest, files, database: main, auth, shelf, ledger, _fetched: fetched })
}

/// Where each root goes: the artifact root's files stand below the new one as they stood below the old one; other roots
/// get a folder of their own in it. What lies behind the proxy keeps its address: the server names its root itself.
fn moved(roots: &[String], main: usize, to: &str) -> Vec<Moved> {
    let to = to.trim_end_matches('/');
    let one = |(number, from): (usize, &String)| {
        let same = |below: String| Moved { from: from.clone(), to: from.clone(), below };
        let address = ArtifactAddress::parse(&format!("{from}/"));
        match address {
            ArtifactAddress::Proxy { path, .. } => same(path),
            // The backup does not tell what opens it, so no row can be found by it.
            ArtifactAddress::Elsewhere { shown, .. } if shown.contains("***") => {
                same(format!("other-roots/{}", folder_name(from)))
            }
            _ if number == main || from == to => Moved { from: from.clone(), to: to.to_owned(), below: String::new() },
            _ => {
                let below = format!("other-roots/{}", folder_name(from));
                Moved { from: from.clone(), to: format!("{to}/{below}"), below }
            }
        }
    };
    roots.iter().enumerate().map(one).collect()
}

/// What could not be read when the backup was made has no files here: its addresses stay, as they may still lead to them.
fn stay(moved: &mut [Moved], manifest: &Manifest, repository: &Repository) -> Outcome<()> {
    let artifacts = &manifest.artifacts;
    let unread = |root: &str| {
        let shown = ArtifactAddress::parse(&format!("{root}/")).to_string();
        let lies_there =
            |address: &str| address.strip_prefix(&shown).is_some_and(|p| p.is_empty() || p.starts_with('/'));
        artifacts.unread.iter().any(|u| lies_there(&u.address))
    };
    let moves = |(number, m): &(usize, &Moved)| *number != artifacts.main && m.from != m.to && unread(&m.from);
    let mut suspects: Vec<usize> = moved.iter().enumerate().filter(moves).map(|(number, _)| number).collect();
    if suspects.is_empty() {
        return Ok(());
    }
    repository.read_list(manifest, &mut |line| {
        suspects.retain(|n| *n != line.root as usize);
        Ok(())
    })?;
    for (_, root) in moved.iter_mut().enumerate().filter(|(number, _)| suspects.contains(number)) {
        root.to.clone_from(&root.from);
    }
    Ok(())
}

/// A folder's name for an address: `s3-bucket-path`, with a number that tells alike ones apart.
fn folder_name(address: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let word: String = address.chars().map(plain).collect();
    let word: String = word.split('-').filter(|w| !w.is_empty()).collect::<Vec<_>>().join("-");
    let hash = crate::archive::layout::sha256_hex(address.as_bytes());
    let word: String = word.chars().take(60).collect();
    format!("{word}-{}", hash.get(..8).unwrap_or_default())
}

fn join(below: &str, path: &str) -> String {
    match (below, path) {
        ("", path) => path.to_owned(),
        (below, "") => below.to_owned(),
        (below, path) => format!("{below}/{path}"),
    }
}

/// The addresses of artifacts that rows refer to.
fn needed(source: &dyn RowSource, work_dir: &Path) -> Outcome<Ledger> {
    let (references, needed) = (Ledger::new(work_dir)?, Ledger::new(work_dir)?);
    let found = references::collect(source, Scope::All, None, &references)?;
    let mut after = (0, String::new());
    let mut page = references.whole_root(0)?.into_iter().collect::<Vec<_>>();
    loop {
        for (root, path) in &page {
            let root = found.roots.get(*root as usize).map_or("", String::as_str);
            needed.name(NEEDED, &join(root, path.trim_end_matches('/')), "")?;
        }
        page = references.references(&after, 1000)?;
        match page.last() {
            Some(last) => after.clone_from(last),
            None => return Ok(needed),
        }
    }
}

/// The kind of these addresses in a ledger.
const NEEDED: &str = "needed";

/// Whether a file's address, or one that it lies below, is among them.
fn is_needed(needed: &Ledger, address: &str) -> Outcome<bool> {
    let ends = address.match_indices('/').map(|(end, _)| end).chain([address.len()]);
    for end in ends {
        if needed.named(NEEDED, address.get(..end).unwrap_or_default())?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Compares every file of the list with what is there, and notes what has to be written.
fn look(
    manifest: &Manifest,
    repository: &Repository,
    shelf: &dyn Shelf,
    needed: Option<&Ledger>,
    files: &mut FilePlan,
    ledger: &Ledger,
    work: &Work<'_>,
) -> Outcome<()> {
    let total = Some(manifest.artifacts.files);
    work.events.event(Event::Phase { name: "comparing artifacts", total, unit: "files" });
    let moved = files.moved.clone();
    repository.read_list(manifest, &mut |line| {
        work.cancel.check()?;
        work.events.event(Event::Done { table: String::new(), units: 1 });
        let place = moved.get(line.root as usize);
        if let (Some(needed), Some(place)) = (needed, place)
            && !is_needed(needed, &join(&place.to, &line.path))?
        {
            return Ok(());
        }
        let below = place.map_or("", |m| m.below.as_str());
        let path = join(below, &line.path);
        if !crate::artifact::files::is_plain(&path) {
            return Err(Failure::damaged(format!("the backup {} names a file without a name", manifest.id)));
        }
        let state = match shelf.open(&path).map_err(Failure::as_target)? {
            None => "missing",
            Some(opened) if opened.entry.bytes != line.bytes => "differs",
            Some(mut opened) => {
                let hash = repository::hash(&mut opened.reader);
                let (_, sha256) = hash.map_err(|e| Failure::target(format!("{}/{path}: {e}", shelf.place())))?;
                if sha256 == line.sha256 { "there" } else { "differs" }
            }
        };
        let count = match state {
            "missing" => &mut files.missing,
            "differs" => &mut files.differing,
            _ => {
                files.there += 1;
                return Ok(());
            }
        };
        *count = (count.0 + 1, count.1 + line.bytes);
        ledger.add(&LedgerFile { changed: Some(state.to_owned()), path, root: 0, ..LedgerFile::from(line) })
    })
}

impl Ready {
    /// What has to be agreed to; `None`: nothing that exists is changed.
    pub fn changes(&self) -> Option<String> {
        let (files, _) = self.files.differing;
        let root = self.files.root.as_deref().unwrap_or_default();
        (files > 0).then(|| format!("overwrite {files} files below {root} whose content differs from the backup's"))
    }

    /// Asks for consent to all that changes what exists.
    ///
    /// # Errors
    /// Refused.
    pub fn consent(&self, consent: &Consent<'_>) -> Outcome<Consents> {
        Ok(Consents {
            files: self.changes().map(|what| consent.to(&what)).transpose()?,
            database: execute::consent(&self.database.plan, consent)?,
            auth: self.auth.as_ref().map(|a| execute::consent(&a.plan, consent)).transpose()?.flatten(),
        })
    }
}

/// What an operator agreed to.
pub struct Consents {
    files: Option<Confirmed>,
    database: Option<Confirmed>,
    auth: Option<Confirmed>,
}

/// Does it: files, basic-auth's database, the database. What was written of the files stays when a later step fails, and
/// is found by the next run.
///
/// # Errors
/// Damaged: a content of the backup. Target, Differs: then the database is as it was.
pub fn carry_out(
    ready: Ready,
    consents: &Consents,
    repository: &Repository,
    begun: Instant,
    work: &Work<'_>,
) -> Outcome<Restored> {
    let Ready { manifest, files, database, auth, shelf, ledger, _fetched } = ready;
    if files.differing.0 > 0 && consents.files.is_none() {
        return Err(Failure::internal("files would be overwritten without consent"));
    }
    database.fits()?;
    if let Some(shelf) = &shelf {
        write(&manifest, repository, shelf.as_ref(), &files, &ledger, work)?;
    }
    let auth = auth.map(|auth| execute::execute(auth, consents.auth.as_ref(), Instant::now(), work)).transpose()?;
    let database = execute::execute(database, consents.database.as_ref(), Instant::now(), work)?;
    Ok(Restored { manifest, files, database, auth, took: begun.elapsed() })
}

/// Writes what has to be written: each content is checked when it is read, and again as it stands in the target, before it
/// gets its path.
fn write(
    manifest: &Manifest,
    repository: &Repository,
    shelf: &dyn Shelf,
    files: &FilePlan,
    ledger: &Ledger,
    work: &Work<'_>,
) -> Outcome<()> {
    let total = Some(files.missing.1 + files.differing.1);
    work.events.event(Event::Phase { name: "restoring artifacts", total, unit: "bytes" });
    let cursor = Mutex::new((0, String::new()));
    pool::flow(work.jobs, (0..work.jobs as u64).map(|n| (n, ())).collect(), work.cancel, |()| {
        loop {
            let page = {
                let mut after = cursor.lock().unwrap_or_else(PoisonError::into_inner);
                let page = ledger.files(&after, false, 64)?;
                let Some(last) = page.last() else { return Ok(Vec::new()) };
                *after = (last.root, last.path.clone());
                page
            };
            for file in page {
                let mut turn = 1;
                loop {
                    work.cancel.check()?;
                    match write_one(manifest, repository, shelf, &file, work) {
                        Err(failure)
                            if turn < TRIES
                                && matches!(failure.kind, Kind::Source | Kind::Target | Kind::Unreachable) =>
                        {
                            tracing::info!("{failure}; once more");
                            turn += 1;
                        }
                        other => break other?,
                    }
                }
            }
        }
    })?;
    shelf.settle()
}

fn write_one(
    manifest: &Manifest,
    repository: &Repository,
    shelf: &dyn Shelf,
    file: &LedgerFile,
    work: &Work<'_>,
) -> Outcome<()> {
    let sha256 = file.sha256.as_deref().unwrap_or_default();
    let damaged = |why: &str| {
        Failure::damaged(format!(
            "the backup {} is damaged: the content {sha256} of `{}` {why}",
            manifest.id, file.path
        ))
        .hint("`mlops backup verify` names all that is damaged; another backup may have the content")
    };
    let unwritten = |e: io::Error| Failure::target(format!("{}/{} cannot be written: {e}", shelf.place(), file.path));
    let mut opened = repository.shelf.open(&object::path(sha256))?.ok_or_else(|| damaged("is not in the store"))?;
    let mut staged = shelf.stage()?;
    let unpacked = object::unpack(&mut opened.reader, sha256, &mut staged, &mut |units| {
        work.events.event(Event::Done { table: String::new(), units });
        work.cancel.check().map_err(io::Error::other)
    });
    work.cancel.check()?;
    match unpacked {
        Ok(packed) if packed.bytes == file.bytes => {}
        Ok(_) => return Err(damaged("has another size than the list states")),
        Err(Fault::Damaged(why)) => return Err(damaged(&format!("is not what was stored: {why}"))),
        Err(Fault::Unread(e)) => return Err(Failure::source(format!("{}: {e}", repository.shelf.place()))),
        Err(Fault::Unwritten(e)) => return Err(unwritten(e)),
    }
    staged.seek(SeekFrom::Start(0)).map_err(unwritten)?;
    let (_, back) = repository::hash(&mut staged).map_err(unwritten)?;
    if back != sha256 {
        return Err(Failure::target(format!(
            "{}/{} is read back otherwise than it was written",
            shelf.place(),
            file.path
        ))
        .hint("the disk or the mount loses data: look at `dmesg` now"));
    }
    let there = if file.changed.as_deref() == Some("differs") { There::Replaced } else { There::Stays };
    if shelf.put(staged, &file.path, there)? {
        return Ok(());
    }
    Err(Failure::target(format!("{}/{} appeared while it was restored", shelf.place(), file.path))
        .hint("is a server writing there? stop it, and restore once more: what is there already is not copied again"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_go_to_places_of_their_own() {
        let roots = ["/old/ml", "s3://b/x", "mlflow-artifacts:", "s3://b.x"].map(str::to_owned);
        let moved = moved(&roots, 0, "/new/");
        let pairs: Vec<(&str, &str)> = moved.iter().map(|m| (m.to.as_str(), m.below.as_str())).collect();
        assert_eq!(pairs[0], ("/new", ""));
        assert_eq!(pairs[2], ("mlflow-artifacts:", ""));
        assert!(pairs[1].0.starts_with("/new/other-roots/s3-b-x-") && pairs[1].0.ends_with(pairs[1].1));
        assert_ne!(pairs[1], pairs[3]);
    }
}
