//! The tracking server that a command asks, and what its calls run on.

use std::time::Duration;

use tokio::runtime::Runtime;

use super::Context;
use crate::domain::failure::{Failure, Outcome};
use crate::mlflow::{Bounds, Client};

/// For one call; a list of 5,000 versions takes an old server some seconds.
const PATIENCE: Bounds = Bounds { connect: Duration::from_secs(10), call: Duration::from_secs(60) };

/// The tracking server.
///
/// # Errors
/// Usage: none is named. Else what is wrong with its address or its credentials.
pub(super) fn server(context: &Context) -> Outcome<Client> {
    let connection = context.settings.tracking()?.ok_or_else(|| {
        Failure::usage("which tracking server?")
            .hint("--tracking-uri, or MLFLOW_TRACKING_URI, or tracking_uri in the configuration")
    })?;
    Client::new(&connection, PATIENCE)
}

/// The server for people and for what is remembered of it: with the workspace, as the same names stand for other things in
/// another one.
pub(super) fn called(client: &Client) -> String {
    let connection = client.connection();
    let workspace = connection.workspace.as_ref().map_or(String::new(), |name| format!(" (workspace {name})"));
    format!("{}{workspace}", connection.address)
}

/// The threads of its calls.
///
/// # Errors
/// Internal: there are none.
pub(super) fn runtime() -> Outcome<Runtime> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.map_err(|e| Failure::internal(format!("no threads: {e}")))
}
