//! What a purge would remove, what it leaves, and why.

use std::path::Path;
use std::time::{Duration, Instant};

use super::artifacts::{holds_something, own_place};
use crate::artifact::files::Met;
use crate::backup::place::Ways;
use crate::cleanup::list::{List, Stays};
use crate::cleanup::owners;
use crate::domain::artifact_address::ArtifactAddress;
use crate::domain::cleanup::belongings::Root;
use crate::domain::cleanup::territory;
use crate::domain::failure::{Failure, Outcome};
use crate::engine::cancel::Cancel;
use crate::engine::purge::{Counts, Deleted, DeletedExperiment, Named, Purge, Selection};
use crate::store::sqlite::docket::Docket;

/// What an operator asks for.
#[derive(Debug, Clone)]
pub struct Request {
    /// Deleted before that time, in milliseconds since 1970; not asked of an experiment that is named.
    pub before: i64,
    /// Of these experiments alone, by name or id.
    pub experiments: Vec<String>,
    /// Only the deleted experiment of that name.
    pub name: Option<String>,
    /// Whether artifacts go as well.
    pub artifacts: bool,
    /// Whether a purge of this database was killed, and may have left rows without artifacts.
    pub resumed: bool,
    /// The artifact root, where it is known; a folder from the root of the file system on.
    pub artifact_root: Option<ArtifactAddress>,
}

/// What would go.
pub struct Plan {
    /// The database, masked.
    pub database: String,
    /// Its revision, for people.
    pub revision: String,
    /// What was asked for.
    pub request: Request,
    /// Things that go, by kind.
    pub things: Vec<(Root, u64)>,
    /// Rows that go, by table, where they were counted.
    pub rows: Option<Counts>,
    /// Bytes of artifacts that go, and whether that is all; where they were measured.
    pub bytes: Option<(u64, bool)>,
    /// What is deleted and stays.
    pub protected: List<Stays>,
    /// What was to go and stays, since its artifacts cannot go.
    pub stuck: List<Stays>,
    /// Ids of what goes: the first of them.
    pub named: Vec<(Root, String)>,
    /// What is to be known of the database.
    pub remarks: Vec<String>,
    pub(super) selection: Selection,
    pub(super) docket: Docket,
}

/// Things that are looked at together.
pub(super) const PAGE: usize = 1_000;
/// Places that are looked at before any is emptied.
const SAMPLE: usize = 200;
/// What is named of what goes.
const NAMED: usize = 1_000;
/// How long artifacts are measured.
const MEASURING: Duration = Duration::from_secs(10);
/// The experiment that every server begins with.
const DEFAULT: &str = "0";

struct Planning<'a> {
    store: &'a mut dyn Purge,
    request: &'a Request,
    selection: Selection,
    docket: Docket,
    protected: List<Stays>,
    stuck: List<Stays>,
    ways: &'a Ways,
    undated: u64,
}

/// Finds out what goes. Nothing is changed.
///
/// # Errors
/// Usage: no such experiment. Target: the database failed. Configuration: no room in the work folder.
pub fn plan(store: &mut dyn Purge, request: Request, ways: &Ways, work_dir: &Path) -> Outcome<Plan> {
    let selection = Selection { before: request.before, experiments: chosen(store, &request)? };
    let docket = Docket::new(work_dir)?;
    let (protected, stuck) = (List::default(), List::default());
    let mut planning = Planning { store, request: &request, selection, docket, protected, stuck, ways, undated: 0 };
    let root = request.artifact_root.as_ref();
    owners::versions(planning.store, &planning.docket, root)?;
    if request.artifacts {
        owners::places(planning.store, &planning.docket, root)?;
    }
    planning.runs()?;
    planning.models(true)?;
    planning.experiments()?;
    planning.traces()?;
    planning.models(false)?;
    if request.artifacts && !request.resumed {
        planning.somebody_has_files()?;
    }
    let Planning { selection, docket, protected, stuck, undated, .. } = planning;
    let mut remarks = store.remarks();
    if undated > 0 && remarks.is_empty() {
        let what =
            "runs do not tell when they were deleted, as an older MLflow did it: their end, or their start, decides";
        remarks.push(format!("{undated} {what}"));
    }
    match store.losers(&selection)? {
        0 => {}
        1 => remarks.push("1 logged model that is not deleted loses the metrics that deleted runs measured".to_owned()),
        n => {
            remarks.push(format!("{n} logged models that are not deleted lose the metrics that deleted runs measured"))
        }
    }
    let kinds = [Root::Run, Root::Model, Root::Experiment].into_iter().filter(|root| store.has(*root));
    let things = kinds.map(|root| Ok((root, docket.count(root)?))).collect::<Outcome<_>>()?;
    Ok(Plan {
        database: store.address(),
        revision: store.revision(),
        things,
        rows: None,
        bytes: None,
        protected,
        stuck,
        named: docket.first(NAMED)?,
        remarks,
        selection,
        docket,
        request,
    })
}

/// The ids of the experiments that are named; `None`: all.
fn chosen(store: &mut dyn Purge, request: &Request) -> Outcome<Option<Vec<String>>> {
    if let Some(name) = &request.name {
        let found: Vec<Named> = store.named(name)?.into_iter().filter(|e| e.name == *name).collect();
        let deleted: Vec<&Named> = found.iter().filter(|e| e.deleted).collect();
        let shown = name.escape_debug();
        return match deleted.as_slice() {
            [one] => Ok(Some(vec![one.id.clone()])),
            [] if found.is_empty() => Err(Failure::usage(format!("there is no experiment `{shown}`"))),
            [] => Err(Failure::usage(format!("the experiment `{shown}` is not deleted"))),
            _ => {
                let ids: Vec<&str> = deleted.iter().map(|e| e.id.as_str()).collect();
                Err(Failure::usage(format!("several workspaces have a deleted experiment `{shown}`"))
                    .hint(format!("--older-than 0s --experiment ID: {}", ids.join(", "))))
            }
        };
    }
    if request.experiments.is_empty() {
        return Ok(None);
    }
    let mut ids = Vec::new();
    for word in &request.experiments {
        let found = store.named(word)?;
        if found.is_empty() {
            return Err(Failure::usage(format!("there is no experiment `{}`", word.escape_debug())));
        }
        if let [_, _, ..] = found.as_slice() {
            let ids: Vec<&str> = found.iter().map(|e| e.id.as_str()).collect();
            return Err(Failure::usage(format!(
                "`{}` is the name or the id of several experiments",
                word.escape_debug()
            ))
            .hint(format!("their ids: {}; an id that is no other's name is unmistakable", ids.join(", "))));
        }
        ids.extend(found.into_iter().map(|e| e.id));
    }
    Ok(Some(ids))
}

impl Planning<'_> {
    /// Where not a single thing has a file, a wrong place is looked at, or a disk is missing.
    fn somebody_has_files(&self) -> Outcome<()> {
        if !self.docket.any()? {
            return Ok(());
        }
        let places = self.docket.sample(SAMPLE)?;
        for key in &places {
            if holds_something(self.ways, &territory::address(key))? {
                return Ok(());
            }
        }
        if places.is_empty() {
            return Ok(());
        }
        Err(Failure::refused(format!(
            "there is no file in any of the places of artifacts (looked at: {})",
            places.len()
        ))
        .hint(
            "is the disk mounted, and is --artifact-root the place that the server keeps its artifacts in? If they \
                 are really gone, or there never were any, --artifacts none removes the rows",
        ))
    }

    fn runs(&mut self) -> Outcome<()> {
        let Planning { store, selection, docket, protected, stuck, undated, request, ways } = self;
        store.runs(selection, &mut |run| {
            *undated += u64::from(!run.dated);
            let why = match protection(docket, Root::Run, &run)? {
                Some(why) => {
                    protected.add(Root::Run, &run.id, why.as_str());
                    why
                }
                None => match stuck_by(docket, request, ways, Root::Run, &run)? {
                    Some(why) => {
                        stuck.add(Root::Run, &run.id, why.as_str());
                        why
                    }
                    None => return docket.add(Root::Run, &run.id, &run.experiment, run.address.as_deref()),
                },
            };
            docket.hold(&run.experiment, &format!("the run {} in it stays: {why}", run.id))
        })
    }

    /// First what logged models hold; when it is known which experiments go, those that go.
    fn models(&mut self, holding: bool) -> Outcome<()> {
        let Planning { store, selection, docket, protected, stuck, request, ways, .. } = self;
        store.models(selection, &mut |model| {
            let kept = protection(docket, Root::Model, &model)?;
            let why = match kept {
                Some(_) => None,
                None => stuck_by(docket, request, ways, Root::Model, &model)?,
            };
            match (kept, why) {
                (None, None) if !holding && (model.itself || docket.goes(Root::Experiment, &model.experiment)?) => {
                    docket.add(Root::Model, &model.id, &model.experiment, model.address.as_deref())
                }
                (None, None) => Ok(()),
                _ if !holding => Ok(()),
                (kept, why) => {
                    let list = if kept.is_some() { &mut *protected } else { &mut *stuck };
                    let why = kept.or(why).unwrap_or_default();
                    docket.hold(&model.experiment, &format!("the logged model {} in it stays: {why}", model.id))?;
                    if model.itself {
                        list.add(Root::Model, &model.id, why);
                    }
                    Ok(())
                }
            }
        })
    }

    fn experiments(&mut self) -> Outcome<()> {
        let named = self.request.name.is_some();
        let default_named = self.selection.experiments.as_ref().is_some_and(|ids| ids.iter().any(|id| id == DEFAULT));
        let Planning { store, selection, docket, protected, .. } = self;
        store.experiments(selection, &mut |it| {
            if !it.old {
                return Ok(());
            }
            let DeletedExperiment { id, active, young, kept, guards, .. } = &it;
            let why = if id == DEFAULT && !default_named {
                Some("it is the default experiment; --experiment 0 names it".to_owned())
            } else if kept.is_some() {
                kept.clone()
            } else if *guards {
                Some("a guardrail of the gateway uses a scorer of it".to_owned())
            } else if *active > 0 {
                Some(format!("{active} runs in it are active"))
            } else if *young > 0 {
                Some(format!("{young} runs in it were deleted later"))
            } else {
                docket.held(id)?
            };
            match why {
                Some(why) => {
                    protected.add(Root::Experiment, id, format!("`{}`: {why}", it.name.escape_debug()));
                    // To free a name is the whole: without that nothing goes.
                    if named { docket.dismiss() } else { Ok(()) }
                }
                None => docket.add(Root::Experiment, id, id, it.address.as_deref()),
            }
        })
    }

    /// An experiment stays with a trace whose artifacts cannot go.
    fn traces(&mut self) -> Outcome<()> {
        if !self.request.artifacts || !self.store.has(Root::Trace) {
            return Ok(());
        }
        let mut after = 0;
        loop {
            let page = self.docket.entries(Root::Experiment, after, PAGE)?;
            let Some(last) = page.last() else { return Ok(()) };
            after = last.number;
            for experiment in &page {
                let Some(trace) = self.stuck_traces(&experiment.id)? else { continue };
                let why = format!("the trace {trace} in it stays");
                self.docket.hold(&experiment.id, &why)?;
                self.protected.add(Root::Experiment, &experiment.id, why);
                if self.request.name.is_some() {
                    return self.docket.dismiss();
                }
                self.docket.remove(experiment.number)?;
            }
        }
    }

    /// Notes the traces of an experiment whose artifacts cannot go; gives the first of them.
    fn stuck_traces(&mut self, experiment: &str) -> Outcome<Option<String>> {
        let (mut first, mut after) = (None, String::new());
        let root = self.request.artifact_root.as_ref();
        loop {
            let page = self.store.traces(experiment, &after, PAGE)?;
            let Some((last, _)) = page.last() else { return Ok(first) };
            after.clone_from(last);
            for (id, address) in &page {
                if let Some(why) = sticks(&self.docket, root, self.ways, Root::Trace, id, address.as_deref())? {
                    self.stuck.add(Root::Trace, id, why);
                    first.get_or_insert_with(|| id.clone());
                }
            }
        }
    }
}

/// Why something stays, for its artifacts cannot go; where rows alone go, nothing does for that.
fn stuck_by(docket: &Docket, request: &Request, ways: &Ways, kind: Root, it: &Deleted) -> Outcome<Option<String>> {
    if !request.artifacts {
        return Ok(None);
    }
    sticks(docket, request.artifact_root.as_ref(), ways, kind, &it.id, it.address.as_deref())
}

/// Why the artifacts of something cannot go, as far as its address tells.
fn sticks(
    docket: &Docket,
    root: Option<&ArtifactAddress>,
    ways: &Ways,
    kind: Root,
    id: &str,
    address: Option<&str>,
) -> Outcome<Option<String>> {
    Ok(match own_place(docket, root, kind, id, address)? {
        Ok(Some(place)) => ways.emptied(&place.address).err(),
        Ok(None) => None,
        Err(why) => Some(why),
    })
}

fn protection(docket: &Docket, kind: Root, it: &Deleted) -> Outcome<Option<String>> {
    if it.kept.is_some() {
        return Ok(it.kept.clone());
    }
    Ok(docket.needed_by(kind, &it.id)?.map(|version| format!("the model version {version} comes from it")))
}

impl Plan {
    /// Whether nothing goes.
    pub fn is_empty(&self) -> bool {
        self.things.iter().all(|(_, count)| *count == 0)
    }

    /// Counts the rows that go.
    ///
    /// # Errors
    /// Interrupted. Target: the database failed.
    pub fn count(&mut self, store: &mut dyn Purge, cancel: &Cancel) -> Outcome<()> {
        let mut rows = Counts::new();
        let mut of_traces = 0;
        let mut add = |counts: Counts| {
            for (table, count) in counts {
                *rows.entry(table).or_default() += count;
            }
        };
        for (kind, _) in &self.things {
            let mut after = 0;
            loop {
                cancel.check()?;
                let page = self.docket.entries(*kind, after, PAGE)?;
                let Some(last) = page.last() else { break };
                after = last.number;
                let ids: Vec<String> = page.into_iter().map(|entry| entry.id).collect();
                add(store.count(*kind, &ids)?);
                if *kind != Root::Experiment || !store.has(Root::Trace) {
                    continue;
                }
                for experiment in &ids {
                    let mut last = String::new();
                    loop {
                        cancel.check()?;
                        let traces: Vec<String> =
                            store.traces(experiment, &last, PAGE)?.into_iter().map(|(id, _)| id).collect();
                        let Some(end) = traces.last() else { break };
                        last.clone_from(end);
                        of_traces += traces.len() as u64;
                        add(store.count(Root::Trace, &traces)?);
                    }
                }
            }
        }
        self.rows = Some(rows);
        if of_traces > 0 {
            self.things.push((Root::Trace, of_traces));
        }
        Ok(())
    }

    /// Measures the artifacts of runs and logged models, as far as that goes quickly.
    ///
    /// # Errors
    /// Interrupted. Configuration: the work folder failed.
    pub fn measure(&mut self, ways: &Ways, cancel: &Cancel) -> Outcome<()> {
        let end = Instant::now() + MEASURING;
        let (mut bytes, mut whole) = (0, true);
        'all: for kind in [Root::Run, Root::Model] {
            let mut after = 0;
            loop {
                let page = self.docket.entries(kind, after, PAGE)?;
                let Some(last) = page.last() else { break };
                after = last.number;
                for entry in &page {
                    cancel.check()?;
                    if Instant::now() >= end {
                        whole = false;
                        break 'all;
                    }
                    let root = self.request.artifact_root.as_ref();
                    let Some(Ok(place)) = entry.address.as_deref().map(|a| territory::removable(a, root)) else {
                        continue;
                    };
                    let Ok(files) = ways.files(&place.address) else { continue };
                    let walked = files.walk("", &mut |met| {
                        bytes += if let Met::File(file) = met { file.bytes } else { 0 };
                        Ok(())
                    });
                    if walked.is_err() {
                        cancel.check()?;
                    }
                }
            }
        }
        self.bytes = Some((bytes, whole));
        Ok(())
    }
}
