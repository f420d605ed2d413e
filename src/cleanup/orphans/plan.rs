//! What no row refers to, what rows refer to and is not there, and rows without those that they belong to.

use std::collections::BTreeMap;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::{NAMED, Sum};
use crate::artifact::files::Met;
use crate::backup::place::Ways;
use crate::cleanup::list::Told;
use crate::cleanup::owners;
use crate::domain::artifact_address::ArtifactAddress;
use crate::domain::cleanup::belongings::Root;
use crate::domain::cleanup::territory;
use crate::domain::cleanup::unit::{KEPT, QUARANTINE, Unit, folder, unit};
use crate::domain::failure::{Failure, Outcome};
use crate::domain::id;
use crate::engine::cancel::Cancel;
use crate::engine::purge::{Counts, Purge, Version};
use crate::store::sqlite::docket::Docket;
use crate::store::sqlite::survey::{Found, Survey};

/// Of so many places with a row one may have none; of more, somebody has to say that it is right.
const MUCH: u64 = 10;
/// Places that are looked at together.
pub(super) const PAGE: usize = 500;

/// What an operator asks for.
#[derive(Debug, Clone)]
pub struct Request {
    /// Files that were written at or after that time, in milliseconds since 1970, are nobody's orphans yet.
    pub before: i64,
    /// The artifact root: a folder from the root of the file system on, or objects of S3. `None`: rows alone.
    pub root: Option<ArtifactAddress>,
    /// No other database has artifacts below the root: also what lies in folders of experiments that this one does not know,
    /// and although much of what is there has no row.
    pub sole_owner: bool,
}

/// What one run put into quarantine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The run's id.
    pub id: String,
    /// What there is still no row for.
    pub sum: Sum,
    /// What there is a row for by now, so that it comes back.
    pub back: Sum,
    /// Whether it is old enough to be removed.
    pub due: bool,
    /// Whether it was put there for this database; what was not is left alone.
    pub own: bool,
    /// Its folder.
    pub(super) folder: String,
}

/// What would be done.
pub struct Plan {
    /// The database, masked.
    pub database: String,
    /// Its revision, for people.
    pub revision: String,
    /// What was asked for.
    pub request: Request,
    /// What has a row.
    pub known: Sum,
    /// What has none, by kind.
    pub orphans: BTreeMap<Root, Sum>,
    /// The first of these, with their files, bytes and the newest file's time in milliseconds since 1970.
    pub first: Vec<Found>,
    /// What has none and is too young.
    pub young: Sum,
    /// What has none and lies in a folder that this database does not know, and the first of these folders.
    pub unknown: Sum,
    /// Those folders.
    pub unknown_folders: Told,
    /// What has none and is left: files of others are in it, or somebody put it back by hand.
    pub left: Sum,
    /// Files that lie in no place of MLflow's shape, which nothing is done about.
    pub strangers: Told,
    /// What could not be read.
    pub unread: Told,
    /// What is in quarantine.
    pub quarantine: Vec<Batch>,
    /// Model versions and logged models of which no file is there, with the place.
    pub gone: Told,
    /// Model versions and logged models that do not lie below the root.
    pub elsewhere: u64,
    /// Rows without those that they belong to, by table.
    pub rows: Counts,
    /// Why nothing may be done, whatever is agreed to.
    pub refused: Option<Failure>,
    pub(super) survey: Survey,
    pub(super) docket: Docket,
}

/// The key of the root, and of what is below it.
pub(super) fn key(root: &ArtifactAddress, path: &str) -> Option<String> {
    territory::key(&root.join(path), None)
}

/// Finds all of it out. Nothing is changed.
///
/// # Errors
/// Source: the root cannot be read. Target: the database failed. Configuration: no room in the work folder. Interrupted.
pub fn plan(store: &mut dyn Purge, request: Request, ways: &Ways, work_dir: &Path, cancel: &Cancel) -> Outcome<Plan> {
    let mut plan = Plan {
        database: store.address(),
        revision: store.revision(),
        known: Sum::default(),
        orphans: BTreeMap::new(),
        first: Vec::new(),
        young: Sum::default(),
        unknown: Sum::default(),
        unknown_folders: Told::default(),
        left: Sum::default(),
        strangers: Told::default(),
        unread: Told::default(),
        quarantine: Vec::new(),
        gone: Told::default(),
        elsewhere: 0,
        rows: Counts::new(),
        refused: None,
        survey: Survey::new(work_dir)?,
        docket: Docket::new(work_dir)?,
        request,
    };
    if let Some(root) = plan.request.root.clone() {
        plan.promises(store, &root)?;
        // The store first and the rows after it: what has a row when its files are seen has one when rows are read.
        plan.walk(&root, ways, cancel)?;
        owners::versions(store, &plan.docket, Some(&root))?;
        owners::places(store, &plan.docket, Some(&root))?;
        plan.judge(store, &root, cancel)?;
        plan.quarantine(store, &root, cancel)?;
        let (named, total) = plan.survey.broken_promises(NAMED)?;
        plan.gone = Told { named, total };
        plan.refused = plan.refusal();
    }
    cancel.check()?;
    plan.rows = store.parentless()?;
    Ok(plan)
}

impl Plan {
    /// What has no row, of all kinds.
    pub fn all_orphans(&self) -> Sum {
        self.orphans.values().fold(Sum::default(), |sum, own| Sum {
            places: sum.places + own.places,
            files: sum.files + own.files,
            bytes: sum.bytes + own.bytes,
        })
    }

    /// Whether there is nothing to be done.
    pub fn is_empty(&self) -> bool {
        let waits = |batch: &Batch| batch.own && (batch.back.places > 0 || (batch.due && batch.sum.places > 0));
        self.orphans.is_empty() && self.rows.is_empty() && !self.quarantine.iter().any(waits)
    }

    fn promises(&mut self, store: &mut dyn Purge, root: &ArtifactAddress) -> Outcome<()> {
        let inside = format!("{}/", key(root, "").unwrap_or_default());
        let survey = &self.survey;
        let mut elsewhere = 0;
        let below = |address: &str| {
            territory::key(&ArtifactAddress::parse(address), Some(root)).filter(|key| key.starts_with(&inside))
        };
        store.versions(&mut |Version { name, addresses, .. }| {
            let places: Vec<String> = addresses.iter().filter_map(|address| below(address)).collect();
            elsewhere += u64::from(places.is_empty());
            places.iter().try_for_each(|place| survey.promise(place, &format!("model version {name}")))
        })?;
        store.ready_models(&mut |id, address| match below(address) {
            Some(place) => survey.promise(&place, &format!("logged model {id}")),
            None => {
                elsewhere += 1;
                Ok(())
            }
        })?;
        self.elsewhere = elsewhere;
        Ok(())
    }

    fn walk(&mut self, root: &ArtifactAddress, ways: &Ways, cancel: &Cancel) -> Outcome<()> {
        let files = ways.files(root).map_err(|why| Failure::source(format!("{root}: {why}")))?;
        let Plan { survey, strangers, unread, .. } = self;
        let mut last = String::new();
        files.walk("", &mut |met| {
            cancel.check()?;
            note(survey, &met, strangers)?;
            let path = match &met {
                Met::File(entry) => &entry.path,
                Met::Unreadable { path, why } => {
                    unread.add(path, why.as_str());
                    // What is promised there may be there.
                    return key(root, path).map_or(Ok(()), |place| survey.excuse(&place));
                }
            };
            let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
            if folder != last || folder.is_empty() {
                last = folder.to_owned();
                let Some(place) = key(root, folder) else { return Ok(()) };
                survey.keep_promise(&place)?;
                territory::above(&place).try_for_each(|above| survey.keep_promise(above))?;
            }
            Ok(())
        })
    }

    /// Which of the places have a row.
    fn judge(&mut self, store: &mut dyn Purge, root: &ArtifactAddress, cancel: &Cancel) -> Outcome<()> {
        let mut after = String::new();
        loop {
            cancel.check()?;
            let page = self.survey.found("", false, &after, PAGE)?;
            let Some(end) = page.last() else { return Ok(()) };
            after.clone_from(&end.path);
            let reasons = reasons(store, &self.docket, root, &page)?;
            for (found, reason) in page.into_iter().zip(reasons) {
                if found.files == 0 {
                    // Of no shape after all: none of its files is an artifact.
                } else if reason.is_some() {
                    self.known.add(found.files, found.bytes);
                } else if found.mixed || self.survey.is_kept(&found.path)? {
                    self.left.add(found.files, found.bytes);
                } else if found.newest >= self.request.before {
                    self.young.add(found.files, found.bytes);
                } else if !self.request.sole_owner && !self.is_known(root, &found.path)? {
                    self.unknown.add(found.files, found.bytes);
                    let folder = folder(&found.path);
                    if !self.unknown_folders.named.iter().any(|(known, _)| known == folder) {
                        self.unknown_folders.add(folder, "");
                    }
                } else {
                    self.survey.orphan(&found.path)?;
                    self.orphans.entry(found.kind).or_default().add(found.files, found.bytes);
                    if self.first.len() < NAMED {
                        self.first.push(found);
                    }
                }
            }
        }
    }

    /// Whether the folder that a place lies in is one of this database's: of an experiment, or with a place that has a row.
    fn is_known(&self, root: &ArtifactAddress, path: &str) -> Outcome<bool> {
        let Some(folder) = key(root, folder(path)) else { return Ok(false) };
        if key(root, "").as_ref() == Some(&folder) {
            return self.docket.is_place(&folder);
        }
        Ok(self.docket.is_place(&folder)? || self.docket.within(&folder, Root::Run, "")?.is_some())
    }

    fn quarantine(&mut self, store: &mut dyn Purge, root: &ArtifactAddress, cancel: &Cancel) -> Outcome<()> {
        let own = owner(&self.database);
        for folder in self.survey.batches()? {
            // A folder of such a name that is no batch of ours is left alone.
            let Some((id, of)) = folder.split_once('.') else { continue };
            let Some(since) = id::time(id) else { continue };
            let due = since.as_millisecond() < self.request.before;
            let (mut sum, mut back, mut after) = (Sum::default(), Sum::default(), String::new());
            loop {
                cancel.check()?;
                let page = self.survey.found(&folder, false, &after, PAGE)?;
                let Some(end) = page.last() else { break };
                after.clone_from(&end.path);
                let reasons = reasons(store, &self.docket, root, &page)?;
                for (found, reason) in page.iter().zip(reasons) {
                    let list = if reason.is_some() { &mut back } else { &mut sum };
                    list.add(found.files, found.bytes);
                }
            }
            let own = of == own;
            self.quarantine.push(Batch { id: id.to_owned(), sum, back, due, own, folder: folder.clone() });
        }
        Ok(())
    }

    /// Where much has no row, it may be another server's, or another database is meant.
    fn refusal(&self) -> Option<Failure> {
        let (orphans, known) = (self.all_orphans().places, self.known.places);
        if orphans.saturating_mul(MUCH) <= known || self.request.sole_owner {
            return None;
        }
        let root = self.request.root.as_ref().map(ToString::to_string).unwrap_or_default();
        Some(
            Failure::refused(format!(
                "{orphans} places below {root} have no row in this database, and only {known} have one: another server's \
                 artifacts may lie there, or this is not their database"
            ))
            .hint("if only this database has artifacts below that root, --sole-owner goes on"),
        )
    }
}

/// A word for the database in the names of its batches.
pub(super) fn owner(database: &str) -> String {
    Sha256::digest(database).iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

/// Notes the place that something lies in.
pub(super) fn note(survey: &Survey, met: &Met, strangers: &mut Told) -> Outcome<()> {
    let (path, entry) = match met {
        Met::File(entry) => (&entry.path, Some(entry)),
        Met::Unreadable { path, .. } => (path, None),
    };
    let within = format!("/{QUARANTINE}/");
    if path.contains(&within) {
        // The quarantine of a root below this one.
        return Ok(());
    }
    let aside = path.strip_prefix(QUARANTINE).and_then(|rest| rest.strip_prefix('/')).and_then(|r| r.split_once('/'));
    let (batch, path) = aside.unwrap_or(("", path.as_str()));
    if batch == KEPT {
        return survey.keep(path);
    }
    if !unit(path).is_some_and(|unit| unit.inside) && entry.is_some() {
        strangers.add(path, "");
    }
    match unit(path) {
        Some(Unit { path, kind, id, inside }) => survey.add(&Found {
            batch: batch.to_owned(),
            path: path.to_owned(),
            kind,
            id: id.to_owned(),
            files: u64::from(entry.is_some() && inside),
            bytes: entry.filter(|_| inside).map_or(0, |e| e.bytes),
            // What does not tell its age is young.
            newest: entry.map_or(i64::MIN, |e| e.since.map_or(i64::MAX, |t| t.as_millisecond())),
            mixed: entry.is_none() || !inside,
        }),
        None => Ok(()),
    }
}

/// Of each place, the row that it belongs to, for people.
pub(super) fn reasons(
    store: &mut dyn Purge,
    docket: &Docket,
    root: &ArtifactAddress,
    page: &[Found],
) -> Outcome<Vec<Option<String>>> {
    let mut known: Vec<(Root, Vec<String>)> = Vec::new();
    for kind in Root::ALL {
        let ids: Vec<String> = page.iter().filter(|f| f.kind == kind).map(|f| f.id.clone()).collect();
        if !ids.is_empty() && store.has(kind) {
            known.push((kind, store.known(kind, &ids)?));
        }
    }
    let reason = |found: &Found| -> Outcome<Option<String>> {
        if known.iter().any(|(kind, ids)| *kind == found.kind && ids.contains(&found.id)) {
            return Ok(Some(format!("there is the {} {}", found.kind.word(), found.id)));
        }
        if let Some(version) = docket.needed_by(found.kind, &found.id)? {
            return Ok(Some(format!("the model version {version} names it")));
        }
        // What cannot be compared is never called an orphan.
        let Some(key) = key(root, &found.path) else { return Ok(Some("its path cannot be compared".to_owned())) };
        owners::other(docket, &key, found.kind, "")
    };
    page.iter().map(reason).collect()
}
