//! `mlops migrate`.

use std::io::Write;
use std::path::Path;
use std::time::Instant;

use super::{Context, Ended, journal};
use crate::archive::layout::Compression;
use crate::cli::migrate::{self as cli, Amendments, BadRows, Export, Import, Misfits, SqliteToPg, Verify};
use crate::domain::address::{PgAddress, StoreAddress, shown};
use crate::domain::amend::Rewrite;
use crate::domain::failure::{Failure, Kind, Outcome};
use crate::migrate::execute::{consent, execute};
use crate::migrate::outcome::Migrated;
use crate::migrate::policy::Policies;
use crate::migrate::{plan, verify};
use crate::newfile::folder_of;
use crate::report::{self, Result as Report};
use crate::store::postgres::private::PrivateCluster;

pub(super) fn sqlite_to_pg(context: &Context, arguments: SqliteToPg) -> Result<u8, Ended> {
    let begun = Instant::now();
    let source = context.settings.address(&arguments.source)?;
    if !matches!(source, StoreAddress::Sqlite(_)) {
        return Err(Failure::usage("--source is not a SQLite file")
            .hint("this command moves SQLite to PostgreSQL")
            .into());
    }
    let policies = policies(context, Some(&arguments.misfits), &arguments.amendments)?;
    let mut private = None;
    let target = match &arguments.target {
        Some(text) => context.settings.address(text)?,
        None => StoreAddress::Postgres(Box::new(private_database(context, &mut private)?)),
    };
    if !matches!(target, StoreAddress::Postgres(_)) {
        return Err(Failure::usage("--target is not a postgresql:// address").into());
    }
    let request = plan::Request {
        target,
        include: unique(arguments.include_table),
        replace: arguments.publishing.replace,
        verify: !arguments.publishing.no_verify,
        policies,
        survey: context.dry_run || arguments.rehearse,
        ..request(context, source)
    };
    if arguments.rehearse {
        return rehearse(context, &request, begun);
    }
    carry_out(context, &request, arguments.publishing.certificate.as_deref(), begun)
}

pub(super) fn export(context: &Context, arguments: Export) -> Result<u8, Ended> {
    let begun = Instant::now();
    let source = match &arguments.source {
        Some(text) => context.settings.address(text)?,
        None => context.settings.backend_store_uri()?.ok_or_else(|| {
            Failure::usage("which store?")
                .hint("give its address, or set backend_store_uri in the configuration or MLFLOW_BACKEND_STORE_URI")
        })?,
    };
    let request = plan::Request {
        target: StoreAddress::Archive(arguments.file),
        include: unique(arguments.include_table),
        verify: !arguments.no_verify,
        policies: policies(context, None, &arguments.amendments)?,
        compression: match arguments.compression {
            cli::Compression::Gzip => Compression::Gzip,
            cli::Compression::Zstd => Compression::Zstd,
        },
        ..request(context, source)
    };
    carry_out(context, &request, arguments.certificate.as_deref(), begun)
}

pub(super) fn import(context: &Context, arguments: Import) -> Result<u8, Ended> {
    let begun = Instant::now();
    let request = plan::Request {
        target: context.settings.address(&arguments.target)?,
        include: unique(arguments.include_table),
        replace: arguments.publishing.replace,
        verify: !arguments.publishing.no_verify,
        policies: policies(context, Some(&arguments.misfits), &arguments.amendments)?,
        ..request(context, StoreAddress::Archive(arguments.archive))
    };
    carry_out(context, &request, arguments.publishing.certificate.as_deref(), begun)
}

/// A request with nothing asked for beyond the copy itself.
pub(super) fn request(context: &Context, source: StoreAddress) -> plan::Request {
    plan::Request {
        id: context.id.clone(),
        started: report::time(context.reporter.started),
        // To be named by the caller.
        target: StoreAddress::Archive("-".into()),
        source,
        work_dir: context.settings.work_dir(),
        include: Vec::new(),
        replace: false,
        verify: true,
        policies: Policies::default(),
        compression: Compression::default(),
        survey: context.dry_run,
    }
}

/// Starts a private PostgreSQL with an empty database.
fn private_database(context: &Context, cluster: &mut Option<PrivateCluster>) -> Outcome<PgAddress> {
    let programs = context.settings.postgres_programs().ok_or_else(|| {
        Failure::configuration("PostgreSQL's programs are not installed here, and a rehearsal needs them")
            .hint("install PostgreSQL (no server of it has to run), or give an empty --target database instead")
    })?;
    context.reporter.say("starting a private PostgreSQL, which is removed afterwards");
    cluster.insert(PrivateCluster::start(&programs, &context.settings.work_dir())?).create_database("mlflow")
}

/// Plans, asks for consent where something there is changed, and does it.
fn carry_out(
    context: &Context,
    request: &plan::Request,
    certificate: Option<&Path>,
    begun: Instant,
) -> Result<u8, Ended> {
    if let Some(file) = certificate {
        check_certificate(file)?;
    }
    let work = context.work();
    let mut prepared = plan::prepare(request, &work)?;
    prepared.stream = context.reporter.aside.then(report::stream);
    if context.dry_run {
        let exit = match (prepared.findings.is_empty(), prepared.plan.applied.rows_aside()) {
            (true, 0) => 0,
            (true, _) => report::PARTIAL,
            (false, _) => report::code(Kind::Source),
        };
        return context.finish(&Report::Plan(&prepared.plan, &prepared.findings), exit, &prepared.plan.notes);
    }
    prepared.fits()?;
    let confirmed = consent(&prepared.plan, &context.consent())?;
    let (journal, mut warnings) = journal::begin(context, &prepared.plan.target.address, "what it left is removed")?;
    match execute(prepared, confirmed.as_ref(), begun, &work) {
        Ok(mut migrated) => {
            journal.close("done");
            warnings.append(&mut migrated.warnings);
            migrated.warnings = warnings.clone();
            let written = write_certificate(certificate, &migrated, context, &mut warnings);
            let exit = if migrated.plan.applied.rows_aside() > 0 { report::PARTIAL } else { written };
            context.finish(&Report::Migrated(&migrated), exit, &warnings)
        }
        Err(failure) => {
            journal.close("failed");
            Err(Ended { failure, warnings })
        }
    }
}

/// The whole migration into a private PostgreSQL that goes away with this command.
fn rehearse(context: &Context, request: &plan::Request, begun: Instant) -> Result<u8, Ended> {
    let work = context.work();
    let mut prepared = plan::prepare(request, &work)?;
    // What rows would be put aside is told; the file itself belongs to the real run.
    prepared.aside = None;
    if !prepared.findings.is_empty() {
        let exit = report::code(Kind::Source);
        return context.finish(&Report::Plan(&prepared.plan, &prepared.findings), exit, &prepared.plan.notes);
    }
    let migrated = execute(prepared, None, begun, &work)?;
    let exit = if migrated.plan.applied.rows_aside() > 0 { report::PARTIAL } else { 0 };
    context.finish(&Report::Rehearsed(&migrated), exit, &migrated.warnings)
}

/// The policies that the arguments name.
fn policies(context: &Context, misfits: Option<&Misfits>, amendments: &Amendments) -> Outcome<Policies> {
    let rewrites = amendments.rewrite_artifacts.iter().map(|text| Rewrite::parse(text)).collect::<Outcome<_>>()?;
    let mut policies =
        Policies { rewrites, remap_experiment_ids: amendments.remap_experiment_ids, ..Policies::default() };
    let Some(misfits) = misfits else { return Ok(policies) };
    policies.widen = misfits.widen;
    match (misfits.bad_rows, &misfits.quarantine_file) {
        (BadRows::Refuse, None) => {}
        (BadRows::Refuse, Some(_)) => {
            return Err(Failure::usage("--quarantine-file means nothing without --bad-rows quarantine"));
        }
        (BadRows::Quarantine, file) => {
            let default = || format!("mlops-quarantine-{}.jsonl", context.id).into();
            policies.quarantine = Some(file.clone().unwrap_or_else(default));
        }
    }
    Ok(policies)
}

/// The policies for rows that do not fit.
pub(super) fn misfits(context: &Context, misfits: &Misfits) -> Outcome<Policies> {
    policies(context, Some(misfits), &Amendments::default())
}

/// A table that is named twice is meant once.
fn unique(mut tables: Vec<String>) -> Vec<String> {
    tables.sort();
    tables.dedup();
    tables
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
    tempfile::NamedTempFile::new_in(folder_of(file)).map(|_| ()).map_err(|e| {
        Failure::usage(format!("the certificate {} cannot be written: {e}", shown(file)))
            .hint("name a file in a folder that is there")
    })
}

/// Writes the certificate under a temporary name, syncs it and gives it its name. The migration is done by then, so a
/// failure here makes it "done in part".
fn write_certificate(file: Option<&Path>, migrated: &Migrated, context: &Context, warnings: &mut Vec<String>) -> u8 {
    let Some(file) = file else { return 0 };
    let write = || -> std::io::Result<()> {
        let mut temporary = tempfile::NamedTempFile::new_in(folder_of(file))?;
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
        policies: policies(context, None, &arguments.amendments)?,
    };
    let compared = context.cancel.explain(verify::verify(&request, &context.work()))?;
    let exit = if compared.equal() { 0 } else { report::code(Kind::Differs) };
    context.finish(&Report::Compared(&compared), exit, &compared.notes)
}
