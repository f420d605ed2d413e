//! Which checks a run makes: of those that its addresses allow, those that were asked for and what they stand on.

use std::collections::BTreeSet;

use crate::domain::address::StoreAddress;
use crate::domain::failure::{Failure, Outcome};
use crate::domain::glob;
use crate::domain::health::checks::{self, CHECKS};
use crate::domain::health::settings::HealthSettings;

use super::{activity, metrics, probe};

/// What the operator asks for.
#[derive(Debug, Clone, Default)]
pub struct Choice {
    /// Patterns of ids that are asked; none: all.
    pub only: Vec<String>,
    /// Patterns of ids that are not.
    pub skip: Vec<String>,
    /// Also those that write.
    pub deep: bool,
}

impl Choice {
    /// Whether a check of that id is asked for.
    pub fn takes(&self, id: &str) -> bool {
        let any = |patterns: &[String]| patterns.iter().any(|p| glob::matches(p, id));
        (self.only.is_empty() || any(&self.only)) && !any(&self.skip)
    }
}

/// A check that would run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// Its id.
    pub id: String,
    /// What it asks.
    pub about: String,
    /// It was not asked for, but one that was stands on it.
    pub needed: bool,
}

/// What of a stack is known.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// The backend database.
    pub database: Option<&'a StoreAddress>,
    /// The server, and whether it speaks TLS.
    pub server: Option<bool>,
    /// The artifact root, by an address of its own or through the server.
    pub artifacts: bool,
    /// The artifact root is a folder of this machine.
    pub folder: bool,
    /// It is reached without the server: a folder, or S3.
    pub reached: bool,
    /// The place of the backups.
    pub backups: bool,
}

impl Known<'_> {
    /// Whether a built-in check can be made of what is known.
    fn allows(&self, id: &str) -> bool {
        let sqlite = matches!(self.database, Some(StoreAddress::Sqlite(_)));
        let postgres = matches!(self.database, Some(StoreAddress::Postgres(_)));
        match id {
            "database.integrity" | "database.journal-mode" | "database.path" => sqlite,
            "database.connections"
            | "database.blocked"
            | "database.longest-transaction"
            | "database.statements"
            | "database.timescaledb" => postgres,
            "security.database" => sqlite || postgres,
            "security.passwords" => self.server.is_some() || self.database.is_some() || self.artifacts,
            "server.certificate" => self.server == Some(true),
            "artifacts.disk" => self.folder,
            "artifacts.size" | "artifacts.growth" => self.reached,
            "artifacts.root" | "artifacts.write" => self.artifacts,
            "database.server" => (sqlite || postgres) && self.server.is_some(),
            _ if id.starts_with("database.") => sqlite || postgres,
            _ if id.starts_with("backup.") => self.backups,
            _ if id.starts_with("artifacts.") => self.artifacts && self.server.is_some(),
            _ => self.server.is_some(),
        }
    }
}

/// The checks of a run, in the order of layers.
///
/// # Errors
/// Configuration: nothing is known of any stack. Usage: a pattern that matches no check.
pub fn checks(known: &Known<'_>, settings: &HealthSettings, choice: &Choice) -> Outcome<Vec<Planned>> {
    let parts = known.database.is_some() || known.server.is_some() || known.artifacts || known.backups;
    if !parts && settings.probes.is_empty() {
        return Err(Failure::configuration("nothing is known of the stack that is to be looked at").hint(
            "give --tracking-uri, --backend-store-uri, --artifact-root, --backup-to, or set them in the configuration or as \
             MLFLOW_TRACKING_URI, MLFLOW_BACKEND_STORE_URI",
        ));
    }
    let mut possible: Vec<Planned> = CHECKS
        .iter()
        .filter(|c| (!c.deep || choice.deep) && known.allows(c.id))
        .filter(|c| c.id != "registry.production" || !settings.registry.production.is_empty())
        .map(|c| Planned { id: c.id.to_owned(), about: c.about.to_owned(), needed: false })
        .collect();
    let mut configured = Vec::new();
    if known.server.is_some() {
        configured.extend(activity::expected(settings));
        configured.extend(metrics::expected(settings));
    }
    configured.extend(probe::expected(settings));
    possible.extend(configured.into_iter().map(|(id, about)| Planned { id, about, needed: false }));
    for pattern in choice.only.iter().chain(&choice.skip) {
        let known = |id: &str| glob::matches(pattern, id);
        if !possible.iter().any(|p| known(&p.id)) && !CHECKS.iter().any(|c| known(c.id)) {
            return Err(Failure::usage(format!("no check is called `{pattern}`"))
                .hint("`mlops health --dry-run` lists them; patterns take * and ?"));
        }
    }
    let chosen: BTreeSet<String> = possible.iter().filter(|p| choice.takes(&p.id)).map(|p| p.id.clone()).collect();
    let mut wanted = chosen.clone();
    // What a check stands on is looked at with it, to its foundations.
    let mut open: Vec<String> = chosen.iter().cloned().collect();
    while let Some(id) = open.pop() {
        for need in needs(&id) {
            if possible.iter().any(|p| p.id == need) && wanted.insert(need.clone()) {
                open.push(need);
            }
        }
    }
    possible.retain(|p| wanted.contains(&p.id));
    for planned in &mut possible {
        planned.needed = !chosen.contains(&planned.id);
    }
    if possible.is_empty() {
        return Err(Failure::usage("no check is left by --only and --skip for what is known of this stack")
            .hint("`mlops health --dry-run` without them lists the checks"));
    }
    Ok(possible)
}

fn needs(id: &str) -> Vec<String> {
    match checks::find(id) {
        Some(check) => check.needs.iter().map(|n| (*n).to_owned()).collect(),
        // What a configuration asks of runs and models comes through the server.
        None if id.starts_with("activity.") || id.starts_with("metrics.") => vec!["server.ready".to_owned()],
        None => Vec::new(),
    }
}
