//! The quarantine below an artifact root: what no row refers to waits there, at its old path below its batch's folder.

use std::path::Path;

use super::plan::{PAGE, note, owner, reasons};
use super::{Sum, Swept};
use crate::artifact::files::There;
use crate::backup::place::Ways;
use crate::cleanup::list::Told;
use crate::domain::artifact_address::ArtifactAddress;
use crate::domain::cleanup::unit::{ARTIFACTS, KEPT, QUARANTINE};
use crate::domain::consent::Confirmed;
use crate::domain::failure::{Failure, Outcome};
use crate::engine::copy::Work;
use crate::engine::pool;
use crate::engine::purge::Purge;
use crate::store::sqlite::survey::{Found, Survey};

/// What of a place is moved: all that MLflow puts there.
fn files(path: &str) -> String {
    format!("{path}/{ARTIFACTS}")
}

fn place(batch: &str, path: &str) -> String {
    format!("{QUARANTINE}/{batch}/{}", files(path))
}

/// Removes the folder of a place when nothing is in it any more.
fn tidy(ways: &Ways, root: &ArtifactAddress, path: &str) -> Outcome<()> {
    reached(ways.emptied(&root.join(path)), root)?.tidy(&[ARTIFACTS])
}

/// One thing after the other, side by side; what failed is told, an interruption ends it.
fn each<R: Send>(
    page: Vec<Found>,
    work: &Work<'_>,
    failures: &mut Told,
    act: impl Fn(&Found) -> Outcome<R> + Sync,
) -> Outcome<Vec<(Found, R)>> {
    let done = pool::run(work.jobs, page, work.cancel, |found| match act(&found) {
        Ok(result) => Ok((found, Ok(result))),
        Err(failure) => {
            work.cancel.check()?;
            Ok((found, Err(failure)))
        }
    })?;
    let mut went = Vec::new();
    for (found, result) in done {
        match result {
            Ok(result) => went.push((found, result)),
            Err(failure) => failures.add(&found.path, failure.message),
        }
    }
    Ok(went)
}

fn reached<T>(result: Result<T, String>, root: &ArtifactAddress) -> Outcome<T> {
    result.map_err(|why| Failure::target(format!("{root}: {why}")))
}

/// Puts orphans into quarantine, if there is still no row for them.
pub(super) fn fill(
    swept: &mut Swept,
    store: &mut dyn Purge,
    ways: &Ways,
    work: &Work<'_>,
    _: &Confirmed,
) -> Outcome<()> {
    let Some(root) = swept.plan.request.root.clone() else { return Ok(()) };
    let within = reached(ways.moved_within(&root), &root)?;
    let batch = format!("{}.{}", swept.batch, owner(&swept.plan.database));
    let mut after = String::new();
    loop {
        work.cancel.check()?;
        let page = swept.plan.survey.found("", true, &after, PAGE)?;
        let Some(end) = page.last() else { return Ok(()) };
        after.clone_from(&end.path);
        let reasons = reasons(store, &swept.plan.docket, &root, &page)?;
        let page = page.into_iter().zip(reasons).filter(|(_, reason)| reason.is_none()).map(|(found, _)| found);
        let moved = each(page.collect(), work, &mut swept.failures, |found| {
            within.relocate(&files(&found.path), &place(&batch, &found.path))?;
            tidy(ways, &root, &found.path)
        })?;
        moved.iter().for_each(|(found, ())| swept.aside.add(found.files, found.bytes));
    }
}

/// Removes what has been in quarantine for long enough; what there is a row for comes back.
pub(super) fn empty(
    swept: &mut Swept,
    store: &mut dyn Purge,
    ways: &Ways,
    work: &Work<'_>,
    _: &Confirmed,
) -> Outcome<()> {
    let Some(root) = swept.plan.request.root.clone() else { return Ok(()) };
    let within = reached(ways.moved_within(&root), &root)?;
    let batches: Vec<(String, bool)> =
        swept.plan.quarantine.iter().filter(|b| b.own).map(|b| (b.folder.clone(), b.due)).collect();
    for (batch, due) in batches {
        let mut after = String::new();
        loop {
            work.cancel.check()?;
            let page = swept.plan.survey.found(&batch, false, &after, PAGE)?;
            let Some(end) = page.last() else { break };
            after.clone_from(&end.path);
            let reasons = reasons(store, &swept.plan.docket, &root, &page)?;
            let (wanted, other): (Vec<_>, Vec<_>) = page.into_iter().zip(reasons).partition(|(_, r)| r.is_some());
            let wanted: Vec<Found> = wanted.into_iter().map(|(found, _)| found).collect();
            let back = each(wanted, work, &mut swept.failures, |found| {
                within.relocate(&place(&batch, &found.path), &files(&found.path))
            })?;
            back.iter().for_each(|(found, ())| swept.back.add(found.files, found.bytes));
            if due {
                let other = other.into_iter().map(|(found, _)| found).collect();
                let gone = each(other, work, &mut swept.failures, |found| {
                    reached(ways.emptied(&root.join(&place(&batch, &found.path))), &root)?.clear()
                })?;
                gone.iter().for_each(|(_, cleared)| swept.removed.add(cleared.files, cleared.bytes));
            }
        }
    }
    let folder = root.join(QUARANTINE);
    reached(ways.emptied(&folder), &root)?.tidy(&[])
}

/// What putting back a batch came to.
pub struct PutBack {
    /// The batch.
    pub batch: String,
    /// Whether it was done, and not only planned.
    pub done: bool,
    /// What came back, or would.
    pub sum: Sum,
    /// What did not.
    pub failures: Told,
}

/// Puts back all of a batch, whether there is a row for it or not; no later run takes it for an orphan. Without consent
/// that is only planned.
///
/// # Errors
/// Usage: there is no such batch. Source: the root cannot be read. Interrupted.
pub fn put_back(
    root: &ArtifactAddress,
    batch: &str,
    ways: &Ways,
    work_dir: &Path,
    work: &Work<'_>,
    confirmed: Option<&Confirmed>,
) -> Outcome<PutBack> {
    let (survey, mut failures, mut sum) = (Survey::new(work_dir)?, Told::default(), Sum::default());
    let there = reached(ways.files(root), root)?;
    there.walk(QUARANTINE, &mut |met| {
        work.cancel.check()?;
        note(&survey, &met, &mut Told::default())
    })?;
    let folders = survey.batches()?;
    let Some(folder) = folders.iter().find(|folder| folder.split('.').next() == Some(batch)) else {
        return Err(Failure::usage(format!("there is no batch {batch} in quarantine below {root}"))
            .hint("`mlops cleanup orphans` lists them"));
    };
    let (within, shelf) = (reached(ways.moved_within(root), root)?, reached(ways.written(root), root)?);
    let mut after = String::new();
    loop {
        let page = survey.found(folder, false, &after, PAGE)?;
        let Some(end) = page.last() else { break };
        after.clone_from(&end.path);
        if confirmed.is_none() {
            page.iter().for_each(|found| sum.add(found.files, found.bytes));
            continue;
        }
        let moved = each(page, work, &mut failures, |found| {
            shelf.put(shelf.stage()?, &format!("{QUARANTINE}/{KEPT}/{}", found.path), There::Stays)?;
            within.relocate(&place(folder, &found.path), &files(&found.path))
        })?;
        moved.iter().for_each(|(found, ())| sum.add(found.files, found.bytes));
    }
    if confirmed.is_some() {
        shelf.settle()?;
        reached(ways.emptied(&root.join(QUARANTINE)), root)?.tidy(&[])?;
    }
    Ok(PutBack { batch: batch.to_owned(), done: confirmed.is_some(), sum, failures })
}
