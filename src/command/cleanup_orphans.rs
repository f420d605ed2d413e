//! `mlops cleanup orphans`.

use std::path::Component;

use super::cleanup_purge::{ago, open, ways};
use super::{Context, Ended, db, journal};
use crate::cleanup::Cleanup;
use crate::cleanup::orphans::{self, Request};
use crate::domain::address::shown;
use crate::domain::artifact_address::ArtifactAddress;
use crate::domain::consent::Confirmed;
use crate::domain::failure::{Failure, Outcome};
use crate::domain::id;
use crate::report::{self, Result as Report};

/// What an operator asks for, by flags or in a file.
pub(super) struct Wish {
    pub(super) min_age: String,
    pub(super) artifacts: bool,
    pub(super) sole_owner: bool,
}

/// Plans, and does it if that was agreed to. Gives the exit code with it.
pub(super) fn orphans(context: &Context, run: &str, wish: &Wish, warnings: &mut Vec<String>) -> Outcome<(Cleanup, u8)> {
    let ways = ways(context)?;
    let root = if wish.artifacts { Some(root(ways.artifact_root.clone())?) } else { None };
    let before = ago(context, "--min-age", &wish.min_age)?;
    let request = Request { before, root, sole_owner: wish.sole_owner };
    let really = context.yes && !context.dry_run;
    let mut store = open(context, &db::address(context, None)?)?;
    if really {
        store.lock(&context.cancel)?;
    }
    let plan = orphans::plan(store.as_mut(), request, &ways, &context.settings.work_dir(), &context.cancel)?;
    let unread = if plan.unread.total > 0 { report::PARTIAL } else { 0 };
    if let Some(refused) = &plan.refused {
        warnings.push(
            [Some(refused.message.as_str()), refused.hint.as_deref()]
                .into_iter()
                .flatten()
                .collect::<Vec<_>>()
                .join("; "),
        );
        let exit = report::code(refused.kind);
        return Ok((Cleanup::Orphans(plan), exit));
    }
    if !really || plan.is_empty() {
        return Ok((Cleanup::Orphans(plan), unread));
    }
    let confirmed = context.consent().to("move what no row refers to, and remove rows without a parent")?;
    let (journal, told) = journal::begin_as(context, run, &plan.database, "what it left is looked at now")?;
    warnings.extend(told);
    let rows_file = context.settings.state_dir()?.join("orphans").join(format!("{run}.jsonl"));
    let (swept, ended) = orphans::carry_out(plan, run, &rows_file, store.as_mut(), &ways, &context.work(), &confirmed);
    // What is in quarantine tells by its place what it is, so the next run has nothing to put right.
    journal.close(if ended.is_ok() { "done" } else { "ended early" });
    let exit = if swept.failures.total > 0 { report::PARTIAL } else { unread };
    if let Err(failure) = ended {
        warnings.push(report::so_far(&Cleanup::Swept(swept)));
        return Err(failure);
    }
    Ok((Cleanup::Swept(swept), exit))
}

fn root(root: Option<ArtifactAddress>) -> Outcome<ArtifactAddress> {
    if let Some(ArtifactAddress::Local(path)) = &root
        && path.components().any(|part| matches!(part, Component::ParentDir))
    {
        return Err(Failure::usage(format!("the artifact root {} leads through `..`", shown(path)))
            .hint("write it as the server has it, without `..`"));
    }
    match root {
        Some(root @ (ArtifactAddress::Local(_) | ArtifactAddress::S3 { .. })) => Ok(root),
        Some(root) => Err(Failure::usage(format!("{root}: orphans are looked for in a folder or in S3")).hint(
            "--artifact-root names the place that the server keeps its artifacts in; --artifacts none: rows alone",
        )),
        None => Err(Failure::configuration("where are the artifacts?")
            .hint("--artifact-root names the place that the server keeps them in; --artifacts none: rows alone")),
    }
}

/// Moves a batch back to where it was.
pub(super) fn put_back(context: &Context, batch: &str) -> Result<u8, Ended> {
    if id::time(batch).is_none() {
        return Err(Failure::usage(format!("`{}` is no batch", batch.escape_debug()))
            .hint("`mlops cleanup orphans` lists them")
            .into());
    }
    let ways = ways(context)?;
    let root = root(ways.artifact_root.clone())?;
    let work_dir = context.settings.work_dir();
    let back =
        |confirmed: Option<&Confirmed>| orphans::put_back(&root, batch, &ways, &work_dir, &context.work(), confirmed);
    if context.dry_run {
        return context.finish(&Report::PutBack(&back(None)?), 0, &[]);
    }
    let mut store = open(context, &db::address(context, None)?)?;
    store.lock(&context.cancel)?;
    let done = back(Some(&context.consent().to("move a batch out of quarantine")?))?;
    let exit = if done.failures.total > 0 { report::PARTIAL } else { 0 };
    context.finish(&Report::PutBack(&done), exit, &[])
}
