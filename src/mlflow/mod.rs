//! A tracking server over REST, for MLflow 2.9 to the newest: typed calls, every credential of MLflow's own client,
//! lists to their end, bounded time and bounded answers.

mod artifact;
pub mod fault;
pub mod pages;
mod registry;
mod secrets;
mod send;
mod server;
mod tracking;
mod trust;
mod wire;
mod writing;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

pub use artifact::Download;
pub use fault::{Fault, Reply, Trouble};
pub use pages::Pages;
pub use registry::NewVersion;
pub use reqwest::Body;
pub use server::{Certificate, certificate};
pub use tracking::{RUNS_AT_ONCE, Runs};
pub use writing::Batch;

use crate::domain::failure::{Failure, Outcome};
use crate::domain::server::Connection;

/// How long a client waits.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// For a connection.
    pub connect: Duration,
    /// For a call as a whole: connecting, the answer to its last byte, every try and the pauses between them. For what
    /// is downloaded, the longest silence.
    pub call: Duration,
}

/// How an answer came.
#[derive(Debug, Clone, Copy)]
pub struct Exchange {
    /// From the request to the answer's last byte, without tries before it.
    pub took: Duration,
    /// HTTP status.
    pub status: u16,
    /// The server's clock (header `Date`).
    pub date: Option<jiff::Timestamp>,
}

/// An answer and how it came.
#[derive(Debug, Clone)]
pub struct Answer<T> {
    /// What was asked for.
    pub value: T,
    /// How it came.
    pub exchange: Exchange,
}

/// A tracking server that can be asked. Clones share their connections.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    connection: Arc<Connection>,
    bounds: Bounds,
    tries: u32,
    /// Whether this server has its API below `/ajax-api/` alone.
    below_ajax: Arc<AtomicBool>,
}

impl Client {
    /// A client that asks up to three times where asking again is safe. Nothing is sent yet.
    ///
    /// # Errors
    /// Usage: an address that is none. Configuration: certificates that cannot be read, a proxy that is not served.
    pub fn new(connection: &Connection, bounds: Bounds) -> Outcome<Client> {
        let tls = trust::configure(connection, connection.insecure)?;
        let http = send::transport(connection, bounds, tls, false)?;
        Ok(Client { http, connection: Arc::new(connection.clone()), bounds, tries: 3, below_ajax: Arc::default() })
    }

    /// The same client, asking once: for measurements.
    #[must_use]
    pub fn once(&self) -> Client {
        Client { tries: 1, ..self.clone() }
    }

    /// The same client with another bound on each call.
    #[must_use]
    pub fn within(&self, call: Duration) -> Client {
        Client { bounds: Bounds { call, ..self.bounds }, ..self.clone() }
    }

    /// Whom it asks.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }
}

fn internal(what: impl std::fmt::Display) -> Failure {
    Failure::internal(format!("a request could not be made: {what}"))
}
