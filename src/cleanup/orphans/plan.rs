//! What no row refers to, what rows refer to and is not there, and rows without those that they belong to.

use std::collections::BTreeMap;
use std::path::Path;

use super::{NAMED, Sum, Told};
use crate::artifact::files::Met;
use crate::backup::place::Ways;
use crate::cleanup::owners;
use crate::domain::artifact_address::ArtifactAddress;
use crate::domain::cleanup::belongings::Root;
use crate::domain::cleanup::territory;
use crate::domain::cleanup::unit::{QUARANTINE, Unit, unit};
use crate::domain::failure::{Failure, Outcome};
use crate::domain::id;
use crate::engine::cancel::Cancel;
use crate::engine::purge::{Counts, Purge, Version};
use crate::store::sqlite::docket::Docket;
use crate::store::sqlite::survey::{Found, Survey};

/// Places that are looked at together.
pub(super) const PAGE: usize = 500;

/// What an operator asks for.
#[derive(Debug, Clone)]
pub struct Request {
    /// Files that were written at or after that time, in milliseconds since 1970, are nobody's orphans yet.
    pub before: i64,
    /// The artifact root: a folder from the root of the file system on, or objects of S3. `None`: rows alone.
    pub root: Option<ArtifactAddress>,
    /// Go on although most of what is there has no row.
    pub even_most: bool,
}

/// What one run put into quarantine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The run's id.
    pub id: String,
    /// What is in it.
    pub sum: Sum,
    /// Whether it is old enough to be removed.
    pub due: bool,
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
        plan.quarantine()?;
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
        self.orphans.is_empty() && self.rows.is_empty() && !self.quarantine.iter().any(|batch| batch.due)
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
                    return Ok(());
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
                if reason.is_some() || found.unread {
                    self.known.add(found.files, found.bytes);
                } else if found.newest >= self.request.before {
                    self.young.add(found.files, found.bytes);
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

    fn quarantine(&mut self) -> Outcome<()> {
        for (id, places, files, bytes) in self.survey.batches()? {
            // A folder of such a name that is no batch of ours is left alone.
            let Some(since) = id::time(&id) else { continue };
            let due = since.as_millisecond() < self.request.before;
            self.quarantine.push(Batch { id, sum: Sum { places, files, bytes }, due });
        }
        Ok(())
    }

    /// Where most has no row, it may be another server's, or another database is meant.
    fn refusal(&self) -> Option<Failure> {
        let (orphans, known) = (self.all_orphans().places, self.known.places);
        if orphans <= known || self.request.even_most {
            return None;
        }
        let root = self.request.root.as_ref().map(ToString::to_string).unwrap_or_default();
        Some(
            Failure::refused(format!(
                "{orphans} of {} places below {root} have no row in this database: another server's artifacts may lie \
                 there, or this is not their database",
                orphans + known + self.young.places
            ))
            .hint("if only this database uses that root, --even-most goes on"),
        )
    }
}

/// Notes the place that something lies in.
pub(super) fn note(survey: &Survey, met: &Met, strangers: &mut Told) -> Outcome<()> {
    let (path, entry) = match met {
        Met::File(entry) => (&entry.path, Some(entry)),
        Met::Unreadable { path, .. } => (path, None),
    };
    let aside = path.strip_prefix(QUARANTINE).and_then(|rest| rest.strip_prefix('/')).and_then(|r| r.split_once('/'));
    let (batch, path) = aside.unwrap_or(("", path.as_str()));
    match (unit(path), entry) {
        (Some(Unit { path, kind, id }), entry) => survey.add(&Found {
            batch: batch.to_owned(),
            path: path.to_owned(),
            kind,
            id: id.to_owned(),
            files: u64::from(entry.is_some()),
            bytes: entry.map_or(0, |e| e.bytes),
            // What does not tell its age is young.
            newest: entry.map_or(i64::MIN, |e| e.modified.map_or(i64::MAX, |t| t.as_millisecond())),
            unread: entry.is_none(),
        }),
        (None, Some(_)) => {
            strangers.add(path, "");
            Ok(())
        }
        (None, None) => Ok(()),
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
        // A path that cannot be compared is never called an orphan's.
        let Some(key) = key(root, &found.path) else { return Ok(Some("its path has no common form".to_owned())) };
        owners::other(docket, &key, found.kind, "")
    };
    page.iter().map(reason).collect()
}
