//! `mlops db`.

use super::{Context, Ended};
use crate::cli::db::Info;
use crate::domain::address::StoreAddress;
use crate::domain::failure::{Failure, Outcome};
use crate::engine::copy::count;
use crate::report::Result as Report;
use crate::source::{OpenStore, Opening};

pub(super) fn info(context: &Context, arguments: Info) -> Result<u8, Ended> {
    let address = address(context, arguments.url.as_deref())?;
    let work_dir = context.settings.work_dir();
    let opening =
        Opening { work_dir: &work_dir, id: &context.id, cancel: &context.cancel, events: context.events.as_ref() };
    let store = OpenStore::open(&address, &[], &opening)?;
    store.check(&context.cancel)?;
    let shapes = store.source.shapes();
    let rows = count(store.source.as_ref(), shapes, &context.work())?;
    let tables: Vec<(String, u64)> = shapes.iter().map(|s| s.name.clone()).zip(rows).collect();
    context.finish(&Report::Info(&store, &tables, &store.table_bytes()?), 0, &[])
}

/// The database that was named, or that of the settings.
pub(super) fn address(context: &Context, named: Option<&str>) -> Outcome<StoreAddress> {
    match named {
        Some(text) => context.settings.address(text),
        None => context.settings.backend_store_uri()?.ok_or_else(|| {
            Failure::usage("which database?")
                .hint("give its address, or set backend_store_uri in the configuration or MLFLOW_BACKEND_STORE_URI")
        }),
    }
}
