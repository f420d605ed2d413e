//! `mlops db doctor`.

use super::{Context, Ended, db, journal};
use crate::cli::db::Doctor;
use crate::doctor::{self, Diagnosis};
use crate::domain::address::StoreAddress;
use crate::domain::failure::{Failure, Kind};
use crate::report::{self, Result as Report};
use crate::store::postgres::connect::Postgres;
use crate::store::postgres::{examine, target};

pub(super) fn run(context: &Context, arguments: Doctor) -> Result<u8, Ended> {
    match db::address(context, arguments.url.as_deref())? {
        StoreAddress::Postgres(address) => {
            let postgres = Postgres::new(&address, &context.id, &context.cancel)?;
            if arguments.fix && !context.dry_run {
                return fix(context, &postgres);
            }
            finish(context, &arguments, &doctor::examine_postgres(&postgres)?)
        }
        StoreAddress::Sqlite(path) => {
            let diagnosis = doctor::examine_sqlite(&path, &context.settings.work_dir(), &context.work())?;
            finish(context, &arguments, &diagnosis)
        }
        StoreAddress::Archive(_) => Err(Failure::usage("an archive is not a database")
            .hint("mlops migrate verify compares an archive with a database")
            .into()),
    }
}

/// The exit code of what is left in a database.
fn exit(diagnosis: &Diagnosis) -> u8 {
    if diagnosis.sound() { 0 } else { report::code(Kind::Differs) }
}

/// Prints what was found, or the script. Under `--dry-run --fix` the exit code is that of what would be left.
fn finish(context: &Context, arguments: &Doctor, diagnosis: &Diagnosis) -> Result<u8, Ended> {
    if arguments.print {
        return context.finish(&Report::Mending(diagnosis), exit(diagnosis), &[]);
    }
    if arguments.fix && context.dry_run {
        let left = diagnosis.findings.iter().any(|f| f.counts() && !f.fixable());
        let exit = if left { report::code(Kind::Differs) } else { 0 };
        return context.finish(&Report::Mending(diagnosis), exit, &[]);
    }
    context.finish(&Report::Diagnosed(diagnosis), exit(diagnosis), &[])
}

fn fix(context: &Context, postgres: &Postgres) -> Result<u8, Ended> {
    let schema = examine::schema(postgres)?;
    let mut client = target::connect_locked(postgres, &schema, &context.cancel)?;
    let diagnosis = doctor::examine_postgres(postgres)?;
    let count = diagnosis.fixable().count();
    if count == 0 {
        return context.finish(&Report::Diagnosed(&diagnosis), exit(&diagnosis), &[]);
    }
    let statements = diagnosis.statements().len();
    let what = format!("{count} findings in {} are mended by {statements} SQL statements", diagnosis.address);
    let confirmed = context.consent().to(&what)?;
    let (journal, warnings) =
        journal::begin(context, &diagnosis.address, "it changed all that it was to change, or nothing")?;
    postgres.cancel_with(&client);
    match doctor::fix(&mut client, &diagnosis, &context.cancel, &confirmed) {
        Ok(mended) => {
            journal.close("done");
            context.finish(&Report::Mended(&mended), exit(&mended.left), &warnings)
        }
        Err(failure) => {
            journal.close("failed");
            Err(Ended { failure, warnings })
        }
    }
}
