//! `mlops verify persistence`, `verify snapshot`, `verify compare`.

use std::time::Duration;

use super::verify::{Verification, account, reached, told};
use super::{Context, Ended};
use crate::cli::verify::{Compare, Persistence, Snapshot};
use crate::domain::failure::{Failure, Outcome};
use crate::domain::span;
use crate::domain::verify::fingerprint::Rules;
use crate::verify::docker::Unit;
use crate::verify::persistence::{self, Stack, Wish};
use crate::verify::restart::Way;
use crate::verify::{halves, snapshot};

fn time(flag: &str, text: &str) -> Outcome<Duration> {
    let bad = || Failure::usage(format!("{flag} {text}: no length of time")).hint("90s, 5m, 1h");
    span::parse(text).filter(|time| !time.is_zero()).ok_or_else(bad)
}

fn wish(arguments: &Persistence) -> Outcome<Wish> {
    let way = match (&arguments.restart_cmd, &arguments.restart) {
        (Some(command), _) if command.trim().is_empty() => return Err(Failure::usage("--restart-cmd is empty")),
        (Some(command), _) => Way::Command(command.clone()),
        (None, Some(unit)) => Way::Unit(Unit::parse(unit)?),
        (None, None) => Way::Hand,
    };
    if let Some(kind) = arguments.accept.iter().find(|kind| !persistence::ACCEPTABLE.contains(&kind.as_str())) {
        return Err(Failure::usage(format!("--accept {}: no finding that may be accepted", kind.escape_debug()))
            .hint(format!("one of: {}", persistence::ACCEPTABLE.join(", "))));
    }
    Ok(Wish {
        experiments: usize::from(arguments.experiments),
        way,
        command: time("--restart-timeout", &arguments.restart_timeout)?,
        seen: time("--restart-seen-within", &arguments.restart_seen_within)?,
        ready: time("--ready-timeout", &arguments.ready_timeout)?,
        rules: Rules { frozen: arguments.frozen, upgrade: false },
        accept: arguments.accept.clone(),
    })
}

pub(super) fn persistence(context: &Context, arguments: &Persistence) -> Result<u8, Ended> {
    let wish = wish(arguments)?;
    let database = context.settings.backend_store_uri()?;
    if context.dry_run {
        let procedure = persistence::procedure(&wish, database.is_some());
        let file = arguments.keeping.report.as_deref();
        return Verification::plan(context, "persistence", file, procedure, |_, _| match &wish.way {
            Way::Unit(unit) => unit.look(&context.cancel).map(drop),
            Way::Command(_) | Way::Hand => Ok(()),
        });
    }
    let mut verification = Verification::begin(context, &arguments.keeping)?;
    let mut account = verification.account("persistence");
    let stack = Stack {
        ways: &verification.ways,
        client: &verification.client,
        database: database.as_ref(),
        id: &context.id,
        work: &context.work(),
        request: &|what, most| context.reporter.request(what, most),
    };
    let outcome = persistence::verify(&stack, &wish, &mut verification.markers, &mut account);
    verification.end(outcome, account)
}

pub(super) fn snapshot(context: &Context, arguments: &Snapshot) -> Result<u8, Ended> {
    half(
        context,
        "snapshot",
        |stack, account| {
            if context.dry_run {
                account.procedure = halves::procedure(stack, halves::WRITTEN);
                return crate::newfile::NewFile::create(&arguments.file, 0o600).map(drop);
            }
            halves::snapshot(stack, &arguments.file, account)
        },
        None,
    )
}

pub(super) fn compare(context: &Context, arguments: &Compare) -> Result<u8, Ended> {
    let rules = Rules { frozen: arguments.frozen, upgrade: arguments.allow_upgrade };
    // A file that is no snapshot is known before the server is asked.
    let earlier = snapshot::Snapshot::open(&arguments.file)?;
    half(
        context,
        "a stack against its snapshot",
        |stack, account| {
            if context.dry_run {
                account.procedure = halves::procedure(stack, &halves::compared(&earlier));
                return Ok(());
            }
            halves::compare(stack, &earlier, rules, account)
        },
        arguments.report.as_deref(),
    )
}

/// A check that makes nothing on the server.
fn half(
    context: &Context,
    subject: &str,
    work: impl FnOnce(&Stack<'_>, &mut crate::domain::verify::account::Account) -> Outcome<()>,
    report: Option<&std::path::Path>,
) -> Result<u8, Ended> {
    let (client, ways) = reached(context, report)?;
    let database = context.settings.backend_store_uri()?;
    let mut account = account(context, &client, &ways.runtime, subject);
    let stack = Stack {
        ways: &ways,
        client: &client,
        database: database.as_ref(),
        id: &context.id,
        work: &context.work(),
        request: &|what, most| context.reporter.request(what, most),
    };
    account.planned = context.dry_run;
    let outcome = work(&stack, &mut account);
    told(context, report.filter(|_| !context.dry_run), outcome, account, Vec::new())
}
