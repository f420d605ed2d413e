//! `mlops restore`.

use std::time::Instant;

use super::backup::Found;
use super::{Context, Ended, backup, journal, migrate};
use crate::backup::{place, restore};
use crate::cli::backup::Restore;
use crate::domain::artifact_address::ArtifactAddress;
use crate::domain::failure::{Failure, Outcome};
use crate::migrate::policy::Policies;
use crate::report::{self, Result as Report};

pub(super) fn run(context: &Context, arguments: &Restore, flagged_root: Option<&str>) -> Result<u8, Ended> {
    let begun = Instant::now();
    let ways = backup::ways(context)?;
    let Found { repository, manifest, warnings: found } =
        backup::find(context, &ways, &arguments.id, &arguments.place)?;
    let root = root(arguments, flagged_root)?;
    let shelf = root.as_deref().map(|root| ways.shelf(root, false)).transpose()?;
    let settings = &context.settings;
    let request = restore::Request {
        id: context.id.clone(),
        started: report::time(context.reporter.started),
        to: settings.address(&arguments.to)?,
        auth_to: arguments.auth_to.as_deref().map(|to| settings.address(to)).transpose()?,
        artifact_root: root,
        policies: Policies {
            experiments: arguments.experiment.clone(),
            ..migrate::misfits(context, &arguments.misfits)?
        },
        replace: arguments.replace,
        work_dir: settings.work_dir(),
        survey: context.dry_run,
    };
    let work = context.work();
    let ready = restore::prepare(&request, manifest, &repository, shelf, &work)?;
    if context.dry_run {
        let unfit = !ready.database.findings.is_empty();
        let refused = ready.changes().is_some() && !context.yes;
        let exit = match (unfit, refused) {
            (true, _) => report::code(crate::domain::failure::Kind::Source),
            (false, true) => report::code(crate::domain::failure::Kind::Refused),
            (false, false) => 0,
        };
        let notes = [found, ready.database.plan.notes.clone()].concat();
        return context.finish(&Report::RestorePlan(&ready), exit, &notes);
    }
    ready.database.fits()?;
    let consents = ready.consent(&context.consent())?;
    let target = ready.database.plan.target.address.clone();
    let (journal, mut warnings) = journal::begin(context, &target, "what it left is removed")?;
    warnings.splice(0..0, found);
    // Nothing is pruned meanwhile. A place that may only be read is restored from as well, and a backup that is being made
    // beside is in nobody's way.
    let who = format!("mlops restore {} (process {})", context.id, std::process::id());
    let lease = if repository.fixed { None } else { Some(repository.shelf.lock(&who)) };
    if let Some(Err(failure)) = &lease {
        warnings.push(format!("the place of the backups was not locked, so do not prune it now: {}", failure.message));
    }
    match restore::carry_out(ready, &consents, &repository, begun, &work) {
        Ok(restored) => {
            journal.close("done");
            warnings.extend(restored.database.warnings.iter().cloned());
            let aside = restored.database.plan.applied.rows_aside() > 0;
            let exit = if aside || !restored.manifest.complete { report::PARTIAL } else { 0 };
            context.finish(&Report::Restored(&restored), exit, &warnings)
        }
        Err(failure) => {
            journal.close("failed");
            Err(Ended { failure, warnings })
        }
    }
}

/// The root in the form that the database is to hold. It is always named: a setting names the stack that runs now.
fn root(arguments: &Restore, flagged: Option<&str>) -> Outcome<Option<String>> {
    match (flagged, arguments.no_artifacts) {
        (None, true) => Ok(None),
        (Some(_), true) => Err(Failure::usage("--no-artifacts and --artifact-root exclude each other")),
        (None, false) => Err(Failure::usage("--artifact-root is needed: where the artifacts are to be")
            .hint("the same as before, or another one; --no-artifacts restores the database alone")),
        (Some(text), false) => match ArtifactAddress::parse(text) {
            ArtifactAddress::Local(path) => {
                let path = place::absolute(&path);
                let text = path.to_str().ok_or_else(|| Failure::usage("--artifact-root is no UTF-8"))?;
                // MLflow decodes what follows `%` in a path.
                Ok(Some(text.replace('%', "%25")))
            }
            other => Ok(Some(other.to_string())),
        },
    }
}
