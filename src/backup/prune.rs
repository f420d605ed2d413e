//! Which backups are kept is for `domain::retention`; here the others are removed, and the contents that none refers to.

use std::collections::BTreeMap;
use std::path::Path;

use jiff::{SignedDuration, Timestamp};

use crate::artifact::files::{Entry, Met};
use crate::domain::consent::Confirmed;
use crate::domain::failure::{Failure, Outcome};
use crate::domain::retention::{Candidate, Decision, Keep, Rule, select};
use crate::engine::copy::Work;
use crate::engine::event::Event;
use crate::store::sqlite::ledger::Ledger;

use super::manifest::MANIFEST;
use super::object;
use super::repository::{Listed, Repository};

/// Contents that are younger may belong to a backup that has no list yet.
const YOUNG: SignedDuration = SignedDuration::from_hours(24);

/// What will be removed.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// The rules that decided, as they were given.
    pub rules: Vec<Rule>,
    /// Every backup, the newest first, with the reasons for which it stays.
    pub decisions: Vec<Decision>,
    /// Interrupted backups that nobody works on.
    pub unfinished: Vec<String>,
    /// Contents that no backup refers to then.
    pub contents: u64,
    /// Bytes that all this frees.
    pub bytes: u64,
}

impl Plan {
    /// Backups that go.
    pub fn removed(&self) -> impl Iterator<Item = &str> {
        self.decisions.iter().filter(|d| !d.kept).map(|d| d.id.as_str())
    }

    /// Whether there is anything to be done.
    pub fn is_empty(&self) -> bool {
        self.removed().next().is_none() && self.unfinished.is_empty() && self.contents == 0
    }
}

/// Makes whole what an interrupted prune began to remove: it is one more for the rules to decide on.
///
/// # Errors
/// Source, Target: the place does not answer.
pub fn resume(repository: &Repository) -> Outcome<()> {
    for listed in repository.list()?.iter().filter(|listed| !matches!(listed.manifest, Some(Ok(_)))) {
        if repository.lacks_seal(&listed.id)? {
            repository.finish(&listed.id)?;
        }
    }
    Ok(())
}

/// Finds out what would go. The contents to be removed are in the ledger.
///
/// # Errors
/// Damaged: a backup that stays cannot be read, so nobody knows what it needs. Source: the place does not answer.
pub fn plan(repository: &Repository, keep: &Keep, ledger: &Ledger, now: Timestamp, work: &Work<'_>) -> Outcome<Plan> {
    let mut plan = Plan::default();
    let mut groups = BTreeMap::new();
    let mut stored = Vec::new();
    for Listed { id, manifest, pinned, .. } in repository.list()? {
        match manifest {
            // One with a manifest may lack nothing but its seal: the next backup looks into it.
            None if repository.shelf.stat(&format!("{id}/{MANIFEST}"))?.is_some() => {}
            None => plan.unfinished.push(id),
            Some(manifest) => {
                let manifest = manifest.map_err(|f| {
                    f.hint("what it needs is not known, so nothing is removed; move its folder away if it is given up")
                })?;
                let at: Timestamp = manifest.started.parse().map_err(|_| {
                    Failure::damaged(format!("the backup {id} states no time: {}", manifest.started.escape_debug()))
                })?;
                // One that holds less than another does not stand in for it, nor does one of another database.
                let group = (manifest.database.address.clone(), manifest.artifacts.scope.word());
                let candidate = Candidate { id, at, complete: manifest.complete, pinned };
                groups.entry(group).or_insert_with(Vec::new).push(candidate);
                stored.push(manifest);
            }
        }
    }
    plan.decisions = groups.values().flat_map(|candidates| select(candidates, keep)).collect();
    plan.decisions.sort_by(|a, b| b.id.cmp(&a.id));
    work.events.event(Event::Phase { name: "looking for what is needed", total: None, unit: "" });
    for manifest in &stored {
        work.cancel.check()?;
        if plan.removed().any(|id| id == manifest.id) {
            plan.bytes += manifest.bytes() - manifest.artifacts.stored;
            continue;
        }
        repository.read_list(manifest, &mut |line| ledger.object(&line.sha256, line.bytes, line.stored).map(drop))?;
    }
    repository.shelf.walk("artifacts/sha256", &mut |met| {
        let Met::File(Entry { path, bytes, modified, .. }) = met else { return Ok(()) };
        let Some(sha256) = object::of_path(&path) else { return Ok(()) };
        let old = modified.is_some_and(|at| now.duration_since(at) > YOUNG);
        if old && !ledger.has_object(sha256)? {
            ledger.pooled(sha256, bytes)?;
            plan.contents += 1;
            plan.bytes += bytes;
        }
        Ok(())
    })?;
    Ok(plan)
}

/// Removes it: first the backups, so that none is left that lacks a content, then the contents.
///
/// # Errors
/// Target: the place cannot be written to. Interrupted: what is left is whole.
pub fn carry_out(
    repository: &Repository,
    plan: &Plan,
    ledger: &Ledger,
    _confirmed: &Confirmed,
    work: &Work<'_>,
) -> Outcome<()> {
    let total = Some(plan.contents);
    work.events.event(Event::Phase { name: "removing", total, unit: "contents" });
    for id in plan.removed().chain(plan.unfinished.iter().map(String::as_str)) {
        work.cancel.check()?;
        repository.remove(id)?;
    }
    repository.shelf.settle()?;
    let mut after = String::new();
    loop {
        work.cancel.check()?;
        let page = ledger.pool_after(&after, 256)?;
        let Some(last) = page.last() else { break };
        after.clone_from(last);
        for sha256 in &page {
            repository.shelf.remove(&object::path(sha256))?;
        }
        work.events.event(Event::Done { table: String::new(), units: page.len() as u64 });
    }
    repository.shelf.settle()
}

/// A ledger for a plan.
///
/// # Errors
/// Configuration: no room in the work folder.
pub fn ledger(work_dir: &Path) -> Outcome<Ledger> {
    Ledger::new(work_dir)
}
