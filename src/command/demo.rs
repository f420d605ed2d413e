//! `mlops demo`.

use std::time::Instant;

use super::migrate::request;
use super::{Context, Ended};
use crate::cli::demo::Demo;
use crate::demo::{self, Size};
use crate::domain::address::{StoreAddress, shown};
use crate::domain::failure::Failure;
use crate::migrate::execute::{consent, execute};
use crate::migrate::plan::{self, Request};
use crate::report::Result as Report;
use crate::store::postgres::private::PrivateCluster;
use crate::store::scratch::Scratch;

pub(super) fn run(context: &Context, arguments: Demo) -> Result<u8, Ended> {
    let work_dir = context.settings.work_dir();
    let work = context.work();
    let folder = Scratch::new("mlops-demo-", &work_dir)?;
    let file = arguments.file.clone().unwrap_or_else(|| folder.path().join("mlflow.db"));
    let size = Size { experiments: arguments.experiments, runs: arguments.runs, metric_rows: arguments.metrics };
    if context.dry_run {
        return Err(Failure::usage("demo has no --dry-run: what it makes is thrown away, unless --file or --target is given")
            .hint("leave out --dry-run; with --target, the plan of a migration of your own store is `mlops migrate sqlite-to-pg --dry-run`")
            .into());
    }
    let mut shown_result = demo::write(&file, size, &work)?;
    if arguments.file.is_some() {
        shown_result.remarks.push(format!("The sample is in {}.", shown(&file)));
    }
    let mut cluster = None;
    if !arguments.only_sample {
        let target = match &arguments.target {
            Some(text) => context.settings.address(text)?,
            None => match context.settings.postgres_programs() {
                Some(programs) => {
                    context.reporter.say("starting a private PostgreSQL, which is removed afterwards");
                    let started = cluster.insert(PrivateCluster::start(&programs, &work_dir)?);
                    let address = started.create_database("mlflow")?;
                    shown_result.remarks.push("The PostgreSQL was a private one and is gone now.".to_owned());
                    StoreAddress::Postgres(Box::new(address))
                }
                None => {
                    shown_result.remarks.push(
                        "PostgreSQL's programs are not installed here, so the target was a second SQLite file; \
                         with them, or with --target, it is a PostgreSQL."
                            .to_owned(),
                    );
                    StoreAddress::Sqlite(folder.path().join("copy.db"))
                }
            },
        };
        let begun = Instant::now();
        let request = Request { target, ..request(context, StoreAddress::Sqlite(file)) };
        let prepared = plan::prepare(&request, &work)?;
        let confirmed = consent(&prepared.plan, &context.consent())?;
        shown_result.migrated = Some(execute(prepared, confirmed.as_ref(), begun, &work)?);
        shown_result.remarks.push(
            "With your own store: mlops migrate sqlite-to-pg --source mlflow.db --target postgresql://user@host/database --dry-run"
                .to_owned(),
        );
    }
    drop(cluster);
    context.finish(&Report::Demo(&shown_result), 0, &[])
}
