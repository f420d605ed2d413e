//! `mlops cleanup purge`.

use std::path::PathBuf;

use super::{Context, backup, db, journal, migrate};
use crate::backup::place::{self, Ways};
use crate::cleanup::Cleanup;
use crate::cleanup::purge::{self, Request};
use crate::cli::cleanup::{Artifacts, Purge as Arguments};
use crate::domain::address::{StoreAddress, shown};
use crate::domain::artifact_address::ArtifactAddress;
use crate::domain::cleanup::belongings::Root;
use crate::domain::consent::Consent;
use crate::domain::failure::{Failure, Kind, Outcome};
use crate::domain::span;
use crate::engine::purge::Purge;
use crate::migrate::plan;
use crate::store::postgres::connect::Postgres;
use crate::store::postgres::purge::PgPurge;
use crate::store::sqlite::purge::SqlitePurge;
use crate::{report, state};

/// The commands that may have been a purge.
const PURGES: [&str; 2] = ["cleanup.purge", "cleanup.policy"];

/// What an operator asks for, by flags or in a file.
pub(super) struct Wish {
    pub(super) older_than: Option<String>,
    pub(super) experiment: Vec<String>,
    pub(super) name: Option<String>,
    pub(super) artifacts: bool,
    pub(super) backup_first: Option<PathBuf>,
}

impl Wish {
    pub(super) fn of(arguments: &Arguments) -> Wish {
        Wish {
            older_than: arguments.older_than.clone(),
            experiment: arguments.experiment.clone(),
            name: arguments.name.clone(),
            artifacts: arguments.artifacts == Artifacts::All,
            backup_first: arguments.backup_first.clone(),
        }
    }
}

/// The ways to artifacts, with an artifact root that can be compared.
pub(super) fn ways(context: &Context) -> Outcome<Ways> {
    let mut ways = backup::ways(context)?;
    if let Some(ArtifactAddress::Local(path)) = &ways.artifact_root {
        ways.artifact_root = Some(ArtifactAddress::Local(place::absolute(path)));
    }
    Ok(ways)
}

/// Plans, and removes if that was agreed to. Gives the exit code with it.
pub(super) fn purge(context: &Context, id: &str, wish: &Wish, warnings: &mut Vec<String>) -> Outcome<(Cleanup, u8)> {
    let ways = ways(context)?;
    let really = context.yes && !context.dry_run;
    let address = db::address(context, None)?;
    let mut store = open(context, &address)?;
    if really {
        store.lock(&context.cancel)?;
    }
    if let Some(file) = wish.backup_first.as_deref().filter(|file| file.exists()) {
        return Err(Failure::refused(format!("{} is there already", shown(file))).on("--backup-first"));
    }
    // A killed purge may have left rows without artifacts: that nothing is there is right then.
    let database = store.address();
    let resumed = state::unfinished(&context.settings.state_dir()?);
    let resumed = resumed.iter().any(|run| run.target == database && PURGES.contains(&run.command.as_str()));
    let request = Request {
        before: before(context, wish.older_than.as_deref())?,
        experiments: wish.experiment.clone(),
        name: wish.name.clone(),
        artifacts: wish.artifacts,
        resumed,
        artifact_root: ways.artifact_root.clone(),
    };
    let mut plan = purge::plan(store.as_mut(), request, &ways, &context.settings.work_dir())?;
    warnings.extend(plan.remarks.iter().cloned());
    if !really || plan.is_empty() {
        plan.count(store.as_mut(), &context.cancel)?;
        if plan.request.artifacts {
            plan.measure(&ways, &context.cancel)?;
        }
        // A name that is asked for and stays taken is a no.
        let refused = plan.is_empty() && plan.request.name.is_some();
        let exit = match (refused, plan.stuck.total) {
            (true, _) => report::code(Kind::Differs),
            (false, 0) => 0,
            (false, _) => report::PARTIAL,
        };
        return Ok((Cleanup::PurgePlan(plan), exit));
    }
    let confirmed = context.consent().to("remove what is deleted, for good")?;
    let (journal, told) = journal::begin_as(context, id, &plan.database, "what it left deleted goes now")?;
    warnings.extend(told);
    let kept = match &wish.backup_first {
        Some(file) => {
            let request = plan::Request {
                target: StoreAddress::Archive(file.clone()),
                ..migrate::request(context, address.clone())
            };
            match purge::back_up(&plan, request, &context.work()) {
                Ok(kept) => Some(kept),
                Err(failure) => {
                    journal.close("nothing was removed");
                    return Err(failure.on("--backup-first"));
                }
            }
        }
        None => None,
    };
    let (mut purged, ended) = purge::carry_out(plan, store.as_mut(), &ways, &context.work(), &confirmed);
    purged.kept = kept;
    if let Err(failure) = ended {
        warnings.push(report::so_far(&Cleanup::Purged(purged)));
        // Its journal stays open: the next purge knows by it that rows may have lost their artifacts.
        return Err(failure);
    }
    journal.close("done");
    warnings.extend(permissions(context, &address, &purged)?);
    let exit = if purged.failures.total + purged.bereft.total > 0 { report::PARTIAL } else { 0 };
    Ok((Cleanup::Purged(purged), exit))
}

/// Removes deleted experiments that this program made itself, with all in them. Gives the names of those that are still
/// there, or that this database does not know. `empty`: their files are known to be gone; then a place of artifacts that is
/// not there, as nothing was ever written to it, keeps no row.
///
/// # Errors
/// Locked: another purge is at work. Target: the database failed.
pub(super) fn for_good(context: &Context, names: &[String], empty: bool) -> Outcome<Vec<String>> {
    let ways = ways(context)?;
    let mut store = open(context, &db::address(context, None)?)?;
    store.lock(&context.cancel)?;
    let (mut here, mut left) = (Vec::new(), Vec::new());
    for name in names {
        let known = !store.named(name)?.is_empty();
        if known { &mut here } else { &mut left }.push(name.clone());
    }
    for artifacts in [true, false].into_iter().filter(|artifacts| *artifacts || empty) {
        // None would mean all that is deleted.
        if here.is_empty() {
            break;
        }
        let request = Request {
            before: i64::MAX,
            experiments: here.clone(),
            name: None,
            artifacts,
            // Their files are removed already: that nothing is there is right.
            resumed: true,
            artifact_root: ways.artifact_root.clone(),
        };
        let plan = purge::plan(store.as_mut(), request, &ways, &context.settings.work_dir())?;
        // Nobody else's is among them, so nobody is asked.
        let confirmed = Consent { yes: true, ask: &|_| None }.to("remove our own")?;
        let (_, ended) = purge::carry_out(plan, store.as_mut(), &ways, &context.work(), &confirmed);
        ended?;
        for name in std::mem::take(&mut here) {
            if !store.named(&name)?.is_empty() {
                here.push(name);
            }
        }
    }
    left.extend(here);
    Ok(left)
}

/// The limit, in milliseconds since 1970. One who names an experiment asks for no time.
fn before(context: &Context, older_than: Option<&str>) -> Outcome<i64> {
    older_than.map_or(Ok(i64::MAX), |text| ago(context, "--older-than", text))
}

/// So long ago, in milliseconds since 1970.
pub(super) fn ago(context: &Context, flag: &str, text: &str) -> Outcome<i64> {
    let age =
        span::parse(text).ok_or_else(|| Failure::usage(format!("{flag} {text}: not a time")).hint("`30d`, `12h`"))?;
    let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
    Ok(context.reporter.started.as_millisecond().saturating_sub(age))
}

pub(super) fn open(context: &Context, address: &StoreAddress) -> Outcome<Box<dyn Purge>> {
    match address {
        StoreAddress::Postgres(address) => {
            let postgres = Postgres::new(address, &context.id, &context.cancel)?;
            Ok(Box::new(PgPurge::open(&postgres)?))
        }
        StoreAddress::Sqlite(path) => Ok(Box::new(SqlitePurge::open(path, &context.cancel)?)),
        StoreAddress::Archive(path) => Err(Failure::usage(format!("{} is no database", shown(path)))),
    }
}

/// Basic-auth's own database is not touched; SQLite gives an experiment's id away again.
fn permissions(context: &Context, address: &StoreAddress, purged: &purge::Purged) -> Outcome<Option<String>> {
    if purged.gone.get(&Root::Experiment).copied().unwrap_or(0) == 0 {
        return Ok(None);
    }
    let own = context.settings.auth_store_uri()?.filter(|auth| auth.to_string() != address.to_string());
    Ok(match (own, address) {
        (Some(auth), _) => {
            let what = "permissions on the experiments that are gone stay in";
            Some(format!("{what} {auth}: revoke them, SQLite gives ids away again"))
        }
        (None, StoreAddress::Sqlite(_)) => Some(
            "SQLite gives the ids of experiments away again: with basic-auth, revoke the permissions on those that are gone"
                .to_owned(),
        ),
        _ => None,
    })
}
