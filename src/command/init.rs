//! `mlops db init`.

use super::{Context, Ended, journal};
use crate::cli::db::Init;
use crate::domain::address::{PgAddress, StoreAddress};
use crate::domain::catalogue::Catalogue;
use crate::domain::failure::{Failure, Kind, Outcome};
use crate::report::{self, Result as Report};
use crate::store::postgres::provision::{self, Wanted};

pub(super) fn run(context: &Context, arguments: Init) -> Result<u8, Ended> {
    let wanted = wanted(context, &arguments)?;
    if arguments.print {
        return context.finish(&Report::Script(&provision::script(&wanted)), 0, &[]);
    }
    let address = administrator(context, arguments.url.as_deref().unwrap_or_default())?;
    let prepared = provision::prepare(&address, &wanted, &context.id, &context.cancel, !context.dry_run)?;
    if context.dry_run {
        let asks = prepared.plan.changes().is_some() && !context.yes;
        let exit = if asks { report::code(Kind::Refused) } else { 0 };
        return context.finish(&Report::Init(&prepared.plan), exit, &[]);
    }
    if prepared.plan.complete() {
        return context.finish(&Report::Init(&prepared.plan), 0, &[]);
    }
    let confirmed = prepared.plan.changes().map(|what| context.consent().to(&what)).transpose()?;
    let plan = &prepared.plan;
    let changed = format!("role {} and database {} of {}", plan.role, plan.database, plan.server);
    let (journal, warnings) = journal::begin(context, &changed, "what it did not come to is made now")?;
    match prepared.carry_out(confirmed.as_ref()) {
        Ok(plan) => {
            journal.close("done");
            context.finish(&Report::Init(&plan), 0, &warnings)
        }
        Err(failure) => {
            journal.close("failed");
            Err(Ended { failure, warnings })
        }
    }
}

fn wanted(context: &Context, arguments: &Init) -> Outcome<Wanted> {
    let catalogue = Catalogue::embedded()?;
    let wanted = Wanted {
        role: arguments.role.clone(),
        database: arguments.database.clone().unwrap_or_else(|| arguments.role.clone()),
        password: context.settings.password(arguments.password_env.as_deref(), arguments.password_file.as_deref())?,
        revision: arguments
            .schema
            .as_deref()
            .map(|text| catalogue.named(text))
            .transpose()
            .map_err(|f| f.on("--schema"))?,
    };
    wanted.check()?;
    Ok(wanted)
}

fn administrator(context: &Context, url: &str) -> Outcome<PgAddress> {
    match context.settings.address(url)? {
        StoreAddress::Postgres(mut address) => {
            // Every server has it, and an administrator rarely has one named like himself.
            address.database.get_or_insert_with(|| "postgres".to_owned());
            Ok(*address)
        }
        _ => Err(Failure::usage("this is not a postgresql:// address").hint(
            "an administrator's, such as postgresql://postgres@host/postgres; SQLite needs no role and no database",
        )),
    }
}
