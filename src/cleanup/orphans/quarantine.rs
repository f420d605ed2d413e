//! The quarantine below an artifact root: what no row refers to waits there, at its old path below its batch's folder.

use std::path::Path;

use super::plan::{PAGE, note, reasons};
use super::{Sum, Swept, Told};
use crate::backup::place::Ways;
use crate::domain::artifact_address::ArtifactAddress;
use crate::domain::cleanup::unit::QUARANTINE;
use crate::domain::consent::Confirmed;
use crate::domain::failure::{Failure, Outcome};
use crate::engine::copy::Work;
use crate::engine::pool;
use crate::engine::purge::Purge;
use crate::store::sqlite::survey::{Found, Survey};

/// Folders within folders that are looked into for empty ones.
const LEVELS: usize = 16;

fn place(batch: &str, path: &str) -> String {
    format!("{QUARANTINE}/{batch}/{path}")
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
    let mut after = String::new();
    loop {
        work.cancel.check()?;
        let page = swept.plan.survey.found("", true, &after, PAGE)?;
        let Some(end) = page.last() else { return Ok(()) };
        after.clone_from(&end.path);
        let reasons = reasons(store, &swept.plan.docket, &root, &page)?;
        let page = page.into_iter().zip(reasons).filter(|(_, reason)| reason.is_none()).map(|(found, _)| found);
        let batch = &swept.batch;
        let moved = each(page.collect(), work, &mut swept.failures, |found| {
            within.relocate(&found.path, &place(batch, &found.path))
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
    let batches: Vec<String> = swept.plan.quarantine.iter().map(|batch| batch.id.clone()).collect();
    let due: Vec<String> = swept.plan.quarantine.iter().filter(|b| b.due).map(|b| b.id.clone()).collect();
    for batch in batches {
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
                within.relocate(&place(&batch, &found.path), &found.path)
            })?;
            back.iter().for_each(|(found, ())| swept.back.add(found.files, found.bytes));
            if due.contains(&batch) {
                let other = other.into_iter().map(|(found, _)| found).collect();
                let gone = each(other, work, &mut swept.failures, |found| {
                    reached(ways.emptied(&root.join(&place(&batch, &found.path))), &root)?.clear()
                })?;
                gone.iter().for_each(|(_, cleared)| swept.removed.add(cleared.files, cleared.bytes));
            }
        }
    }
    let folder = root.join(QUARANTINE);
    reached(ways.emptied(&folder), &root)?.tidy(LEVELS)
}

/// Puts back all of a batch, whether there is a row for it or not.
///
/// # Errors
/// Usage: there is no such batch. Source: the root cannot be read. Interrupted.
pub fn put_back(
    root: &ArtifactAddress,
    batch: &str,
    ways: &Ways,
    work_dir: &Path,
    work: &Work<'_>,
    _: &Confirmed,
) -> Outcome<(Sum, Told)> {
    let (survey, mut failures, mut back) = (Survey::new(work_dir)?, Told::default(), Sum::default());
    let files = reached(ways.files(root), root)?;
    files.walk(&format!("{QUARANTINE}/{batch}"), &mut |met| {
        work.cancel.check()?;
        note(&survey, &met, &mut Told::default())
    })?;
    let within = reached(ways.moved_within(root), root)?;
    let mut after = String::new();
    loop {
        let page = survey.found(batch, false, &after, PAGE)?;
        let Some(end) = page.last() else { break };
        after.clone_from(&end.path);
        let moved = each(page, work, &mut failures, |found| within.relocate(&place(batch, &found.path), &found.path))?;
        moved.iter().for_each(|(found, ())| back.add(found.files, found.bytes));
    }
    if after.is_empty() {
        return Err(Failure::usage(format!("there is no batch {batch} in quarantine below {root}"))
            .hint("`mlops cleanup orphans` lists them"));
    }
    reached(ways.emptied(&root.join(QUARANTINE)), root)?.tidy(LEVELS)?;
    Ok((back, failures))
}
