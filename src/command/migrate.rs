//! `mlops migrate`.

use std::io::Write;
use std::path::Path;
use std::time::Instant;

use super::{Context, Ended};
use crate::cli::migrate::{SqliteToPg, Verify};
use crate::domain::address::{StoreAddress, shown};
use crate::domain::failure::{Failure, Outcome};
use crate::migrate::execute::{consent, execute};
use crate::migrate::inspect::{inspect, refusal};
use crate::migrate::outcome::Migrated;
use crate::migrate::{plan, verify};
use crate::report::{self, Result as Report};
use crate::state::{self, Journal};

pub(super) fn sqlite_to_pg(context: &Context, arguments: SqliteToPg) -> Result<u8, Ended> {
    let begun = Instant::now();
    let source = context.settings.address(&arguments.source)?;
    let target = context.settings.address(&arguments.target)?;
    if !matches!(source, StoreAddress::Sqlite(_)) {
        return Err(Failure::usage("--source is not a SQLite file")
            .hint("this command moves SQLite to PostgreSQL")
            .into());
    }
    if !matches!(target, StoreAddress::Postgres(_)) {
        return Err(Failure::usage("--target is not a postgresql:// address").into());
    }
    if let Some(file) = &arguments.certificate {
        check_certificate(file)?;
    }
    let request = plan::Request {
        id: context.id.clone(),
        source,
        target,
        work_dir: context.settings.work_dir(),
        include: unique(arguments.include_table),
        replace: arguments.replace,
        verify: !arguments.no_verify,
    };
    let work = context.work();
    let prepared = plan::prepare(&request, &work)?;
    if context.dry_run {
        prepared.store.check(&context.cancel)?;
        let findings = inspect(&prepared.store, &prepared.shapes, &work)?;
        let exit = if findings.is_empty() { 0 } else { report::code(refusal("", &findings).kind) };
        return context.finish(&Report::Plan(&prepared.plan, &findings), exit, &prepared.plan.notes);
    }
    let confirmed = consent(&prepared.plan, &context.consent())?;
    let (journal, mut warnings) = begin_journal(context, &prepared.plan.target.address)?;
    match execute(prepared, confirmed.as_ref(), begun, &work) {
        Ok(mut migrated) => {
            journal.close("done");
            warnings.append(&mut migrated.warnings);
            migrated.warnings = warnings.clone();
            let exit = write_certificate(arguments.certificate.as_deref(), &migrated, context, &mut warnings);
            context.finish(&Report::Migrated(&migrated), exit, &warnings)
        }
        Err(failure) => {
            journal.close("failed");
            Err(Ended { failure, warnings })
        }
    }
}

/// A table that is named twice is meant once.
fn unique(mut tables: Vec<String>) -> Vec<String> {
    tables.sort();
    tables.dedup();
    tables
}

/// Begins the journal of a run and tells of runs on the same target that did not finish.
fn begin_journal(context: &Context, target: &str) -> Outcome<(Journal, Vec<String>)> {
    let state_dir = context.settings.state_dir()?;
    let mut warnings = Vec::new();
    for run in state::unfinished(&state_dir) {
        if run.target == target {
            warnings.push(format!(
                "the run {} of {} ({}) did not finish; what it left is removed",
                run.id, run.started, run.command
            ));
            let _ = run.close(&format!("superseded by {}", context.id));
        } else {
            warnings.push(format!(
                "the run {} of {} ({} to {}) did not finish",
                run.id, run.started, run.command, run.target
            ));
        }
    }
    let (journal, warning) = Journal::begin(&state_dir, &context.id, context.reporter.command, target);
    warnings.extend(warning);
    Ok((journal, warnings))
}

/// The certificate is written at the end, so whether it can be is found out before any work. It takes the place of an
/// older certificate, and of nothing else.
fn check_certificate(file: &Path) -> Outcome<()> {
    if let Ok(metadata) = std::fs::symlink_metadata(file) {
        let is_certificate = metadata.is_file()
            && std::fs::read(file).is_ok_and(|bytes| {
                serde_json::from_slice::<serde_json::Value>(&bytes)
                    .is_ok_and(|value| value.get("schema").is_some_and(|s| s == report::CERTIFICATE))
            });
        if !is_certificate {
            return Err(Failure::refused(format!("{} is there and is not a certificate", shown(file)))
                .hint("name another file with --certificate"));
        }
    }
    let folder = file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    tempfile::NamedTempFile::new_in(folder).map(|_| ()).map_err(|e| {
        Failure::usage(format!("the certificate {} cannot be written: {e}", shown(file)))
            .hint("name a file in a folder that is there")
    })
}

/// Writes the certificate under a temporary name, syncs it and gives it its name. The migration is done by then, so a
/// failure here makes it "done in part".
fn write_certificate(file: Option<&Path>, migrated: &Migrated, context: &Context, warnings: &mut Vec<String>) -> u8 {
    let Some(file) = file else { return 0 };
    let folder = file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let write = || -> std::io::Result<()> {
        let mut temporary = tempfile::NamedTempFile::new_in(folder)?;
        temporary.write_all(report::certificate(migrated, context.reporter.started).as_bytes())?;
        temporary.as_file().sync_all()?;
        temporary.persist(file).map_err(|e| e.error)?;
        Ok(())
    };
    match write() {
        Ok(()) => 0,
        Err(e) => {
            warnings
                .push(format!("the migration is done, but its certificate {} could not be written: {e}", shown(file)));
            report::PARTIAL
        }
    }
}

pub(super) fn verify(context: &Context, arguments: Verify) -> Result<u8, Ended> {
    let request = verify::Request {
        id: context.id.clone(),
        source: context.settings.address(&arguments.source)?,
        target: context.settings.address(&arguments.target)?,
        work_dir: context.settings.work_dir(),
        include: unique(arguments.include_table),
    };
    let compared = context.cancel.explain(verify::verify(&request, &context.work()))?;
    let exit = if compared.equal() { 0 } else { report::code(crate::domain::failure::Kind::Differs) };
    context.finish(&Report::Compared(&compared), exit, &compared.notes)
}
