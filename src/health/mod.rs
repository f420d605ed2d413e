//! `mlops health`: the whole stack looked at at once, each check bounded, and one verdict.
//!
//! Each layer is a file with one function that looks and tells what it found, check by check, as soon as it is found:
//! what hangs afterwards takes nothing of that with it.

mod access;
mod activity;
pub mod artifacts;
mod backup;
pub mod database;
mod metrics;
pub mod plan;
mod probe;
mod registry;
mod revision;
mod run;
mod runs;
pub mod security;
mod server;
mod twin;
pub mod watch;

use std::path::PathBuf;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use tokio::sync::SetOnce;

use crate::artifact::S3;
use crate::domain::address::StoreAddress;
use crate::domain::artifact_address::ArtifactAddress;
use crate::domain::failure::Outcome;
use crate::domain::health::memory::Memory;
use crate::domain::health::settings::HealthSettings;
use crate::domain::health::{Limits, Reading, Unit};
use crate::domain::server::Connection;
use crate::domain::tracking::{Experiment, ExperimentMark};
use crate::engine::cancel::Cancel;
use crate::mlflow::{Bounds, Client};

use artifacts::Artifacts;
use security::Credential;

pub use probe::ask;
pub use run::{examine, judge};

/// Between the end of the last question and that of the run.
const MARGIN: Duration = Duration::from_millis(250);
/// The longest wait for a connection to the server.
const CONNECT: Duration = Duration::from_secs(10);
/// The part of a stack that its backups are.
const BACKUPS: &str = "backups";

/// Where the parts of a stack are.
#[derive(Default)]
pub struct Places {
    /// The tracking server.
    pub server: Option<Connection>,
    /// The backend database.
    pub database: Option<StoreAddress>,
    /// The artifact root.
    pub artifacts: Option<ArtifactAddress>,
    /// Where backups are kept.
    pub backups: Option<ArtifactAddress>,
    /// The way to S3.
    pub s3: S3,
    /// Names and passwords that the stack uses, beside that of the database.
    pub credentials: Vec<Credential>,
}

impl Places {
    /// What can be looked at.
    pub fn known(&self) -> plan::Known<'_> {
        plan::Known {
            database: self.database.as_ref(),
            server: self.server.as_ref().map(|c| c.address.secure),
            artifacts: self.server.is_some() || self.artifacts.is_some(),
            folder: matches!(self.artifacts, Some(ArtifactAddress::Local(_))),
            reached: matches!(self.artifacts, Some(ArtifactAddress::Local(_) | ArtifactAddress::S3 { .. })),
            backups: self.backups.is_some(),
        }
    }

    /// The addresses, masked.
    pub fn addresses(&self) -> Vec<(&'static str, String)> {
        let server = self.server.as_ref().map(|c| ("server", c.address.to_string()));
        let database = self.database.as_ref().map(|a| ("database", a.to_string()));
        let artifacts = self.artifacts.as_ref().map(|a| ("artifacts", a.to_string()));
        let backups = self.backups.as_ref().map(|a| (BACKUPS, a.to_string()));
        server.into_iter().chain(database).chain(artifacts).chain(backups).collect()
    }

    /// What tells this stack from others between runs. Where its backups are is no part of it, so that a stack whose
    /// backups are looked at as well, or move, keeps its memory.
    pub fn key(&self) -> String {
        let mut addresses = self.addresses();
        if addresses.iter().any(|(part, _)| *part != BACKUPS) {
            addresses.retain(|(part, _)| *part != BACKUPS);
        }
        format!("{addresses:?}")
    }

    /// All that one look needs.
    ///
    /// # Errors
    /// Configuration: certificates that cannot be read.
    pub fn stack(&self, look: Look) -> Outcome<Stack> {
        let left = look.deadline.saturating_duration_since(Instant::now());
        let bounds = Bounds { connect: CONNECT.min(left), call: left };
        let client =
            |c: &Connection| -> Outcome<(Connection, Client)> { Ok((c.clone(), Client::new(c, bounds)?.once())) };
        let server = self.server.as_ref().map(client).transpose()?;
        Ok(Stack {
            database: self.database.clone(),
            artifacts: Artifacts {
                root: self.artifacts.clone(),
                s3: self.s3.clone(),
                server: server.as_ref().map(|(_, client)| client.clone()),
            },
            backups: self.backups.clone(),
            credentials: self.credentials.clone(),
            server,
            addresses: self.addresses(),
            look,
            release: OnceLock::new(),
            revision: OnceLock::new(),
            marks: OnceLock::new(),
            shown: OnceLock::new(),
            measured: SetOnce::new(),
            found: Mutex::default(),
            left: Mutex::default(),
        })
    }
}

/// What one look is to be.
pub struct Look {
    /// Limits and configured checks.
    pub settings: HealthSettings,
    /// The checks to be made.
    pub planned: Vec<plan::Planned>,
    /// Whether it may write: `--deep`.
    pub deep: bool,
    /// The moment of the run, for ages.
    pub now: Timestamp,
    /// When all must be told. A question to another program is given the time until then.
    pub deadline: Instant,
    /// What earlier runs found.
    pub memory: Memory,
    /// Where private copies go.
    pub work_dir: PathBuf,
    /// The run's id.
    pub id: String,
    /// Interruption.
    pub cancel: Cancel,
}

/// What is looked at, and how.
pub struct Stack {
    /// The tracking server, where its address is known, and a client that never asks twice: what is measured here is
    /// how the server answers the first time.
    pub server: Option<(Connection, Client)>,
    /// The backend database, where its address is known.
    pub database: Option<StoreAddress>,
    /// What this look is to be.
    pub look: Look,
    /// Where its artifacts are.
    pub artifacts: Artifacts,
    /// Where its backups are kept, where that is known: a folder, or objects of S3.
    pub backups: Option<ArtifactAddress>,
    /// Names and passwords that it uses.
    pub credentials: Vec<Credential>,
    /// The addresses of its parts, masked.
    pub addresses: Vec<(&'static str, String)>,
    /// The server's release, once it is known.
    release: OnceLock<String>,
    /// The database's tracking revision, once it is known.
    revision: OnceLock<String>,
    /// The newest experiments of the database, and of the server, once they are known.
    marks: OnceLock<Vec<ExperimentMark>>,
    shown: OnceLock<Vec<Experiment>>,
    /// Set when the server was measured: what asks it much waits for that, so that no latency is that of our own load.
    measured: SetOnce<()>,
    found: Mutex<Vec<Reading>>,
    left: Mutex<Vec<(String, String)>>,
}

impl Stack {
    /// Whether a check of that id is part of this run.
    pub(crate) fn wants(&self, id: &str) -> bool {
        self.look.planned.iter().any(|planned| planned.id == id)
    }

    /// Waits until the server was measured, or there is none.
    pub(crate) async fn server_is_measured(&self) {
        self.measured.wait().await;
    }

    /// Tells what a check found.
    pub(crate) fn tell(&self, reading: Reading) {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).push(reading);
    }

    /// Tells that a check is not asked after all, because there is nothing to ask or the answer would cost too much. What
    /// was asked and not answered is unknown instead.
    pub(crate) fn leave(&self, id: &str, why: impl Into<String>) {
        self.left.lock().unwrap_or_else(PoisonError::into_inner).push((id.to_owned(), why.into()));
    }

    /// Whether a check is not asked after all.
    pub(crate) fn has_left(&self, id: &str) -> bool {
        self.left.lock().unwrap_or_else(PoisonError::into_inner).iter().any(|(left, _)| left == id)
    }

    /// The time that is left for a question, never more than `at_most`. It ends before the run does, so that what came
    /// of it is still heard.
    pub(crate) fn patience(&self, at_most: Duration) -> Duration {
        self.look.deadline.saturating_duration_since(Instant::now()).saturating_sub(MARGIN).min(at_most)
    }

    /// The limits of a built-in check, as upper bounds in its unit: configured, else none.
    ///
    /// # Errors
    /// Configuration: not an amount of that unit.
    pub(crate) fn at_most(&self, id: &str, unit: Unit) -> Outcome<Limits> {
        self.look.settings.judgement(id).map_or(Ok(Limits::default()), |j| j.at_most(unit))
    }

    /// The number that a check told so long ago, or the oldest there is.
    pub(crate) fn before(&self, id: &str, ago: SignedDuration) -> Option<(Timestamp, f64)> {
        self.look.memory.before(id, self.look.now, ago)
    }
}
