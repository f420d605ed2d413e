//! The checks that there are: their ids, what each asks, and what it stands on.
//!
//! Checks of the configuration have ids of their own under the same layers: `activity.<name>.newest`,
//! `metrics.<name>.r2`, `probe.<name>`.

use super::Unit;

/// A built-in check.
#[derive(Debug)]
pub struct Check {
    /// `server.ready`.
    pub id: &'static str,
    /// The question it answers.
    pub about: &'static str,
    /// What its number counts; `None`: it has none, and limits mean nothing to it.
    pub unit: Option<Unit>,
    /// The checks without which it says nothing. One that is not part of the run (no address is known) does not count.
    pub needs: &'static [&'static str],
    /// Only asked with `--deep`: it writes.
    pub deep: bool,
}

const fn check(id: &'static str, unit: Option<Unit>, needs: &'static [&'static str], about: &'static str) -> Check {
    Check { id, about, unit, needs, deep: false }
}

const fn deep(id: &'static str, needs: &'static [&'static str], about: &'static str) -> Check {
    Check { id, about, unit: Some(Unit::Seconds), needs, deep: true }
}

const CONNECT: &[&str] = &["database.connect"];
const SCHEMA: &[&str] = &["database.connect", "database.revision"];
const LIVE: &[&str] = &["server.live"];
const READY: &[&str] = &["server.ready"];
const ROOT: &[&str] = &["artifacts.root"];
const PLACE: &[&str] = &["backup.place"];
const NONE: &[&str] = &[];
const SECONDS: Option<Unit> = Some(Unit::Seconds);
const BYTES: Option<Unit> = Some(Unit::Bytes);
const PERCENT: Option<Unit> = Some(Unit::Percent);
const COUNT: Option<Unit> = Some(Unit::Count);

/// All built-in checks, in the order of layers.
pub const CHECKS: &[Check] = &[
    check("database.connect", SECONDS, NONE, "does the database take a connection and answer"),
    check("database.revision", None, CONNECT, "is it MLflow's, and does its revision fit the server's release"),
    check("database.server", None, &["database.connect", "server.ready"], "is it the database that the server runs on"),
    check("database.schema", COUNT, SCHEMA, "errors that `mlops db doctor` finds"),
    check("database.size", BYTES, CONNECT, "size of the database"),
    check("database.growth", BYTES, &["database.connect", "database.size"], "growth of the database in 30 days"),
    check("database.connections", PERCENT, CONNECT, "PostgreSQL: connections of the most that are allowed"),
    check("database.blocked", COUNT, CONNECT, "PostgreSQL: statements that wait for a lock"),
    check("database.longest-transaction", SECONDS, CONNECT, "PostgreSQL: age of the oldest open transaction"),
    check("database.statements", SECONDS, CONNECT, "PostgreSQL: slowest statement (pg_stat_statements), mean"),
    check("database.timescaledb", None, CONNECT, "PostgreSQL: is TimescaleDB there, and of which version"),
    check("database.integrity", None, CONNECT, "SQLite: quick_check"),
    check("database.journal-mode", None, CONNECT, "SQLite: journal mode"),
    check("database.path", None, NONE, "SQLite: is the path absolute and on a disk that keeps it"),
    check("server.live", SECONDS, NONE, "does the server answer /health"),
    check("server.ready", None, &["server.live", "database.connect"], "does a search reach the database"),
    check("server.version", None, LIVE, "release of the server"),
    check("server.search-latency", SECONDS, READY, "time of a search over experiments"),
    check("server.history-latency", SECONDS, READY, "time of a metric's history"),
    check("server.certificate", SECONDS, NONE, "time until the server's certificate expires"),
    check("server.clock", SECONDS, LIVE, "difference of the server's clock to this one"),
    deep("server.write", READY, "writes a tag of the experiment mlops-probe and reads it back"),
    check("artifacts.root", None, NONE, "is the artifact root there, and can it be read"),
    check("artifacts.disk", PERCENT, ROOT, "free space of the disk below the artifact root"),
    check("artifacts.size", BYTES, ROOT, "size of all artifacts"),
    check("artifacts.growth", BYTES, &["artifacts.root", "artifacts.size"], "growth of the artifacts in 30 days"),
    check("artifacts.versions", COUNT, &["artifacts.root", "server.ready"], "model versions whose artifacts are gone"),
    deep("artifacts.write", &["artifacts.root", "server.ready"], "writes an artifact, reads it back, deletes it"),
    check("registry.versions", COUNT, READY, "model versions that are not READY"),
    check("registry.production", COUNT, READY, "models without exactly one Production version or champion alias"),
    check("activity.deleted", COUNT, READY, "runs and experiments that are deleted and not yet purged"),
    check("backup.place", None, NONE, "is the place of the backups there, and can it be read"),
    check("backup.age", SECONDS, PLACE, "age of the newest complete backup"),
    check("backup.complete", None, PLACE, "is the newest backup whole, with every artifact that was asked for"),
    check("backup.drill", SECONDS, &["backup.place", "backup.age"], "time since a backup was last restored in a drill"),
    check("security.server", None, LIVE, "does the server ask for a password, and TLS, beyond this machine"),
    check("security.admin", None, LIVE, "does the server take the password that MLflow's administrator begins with"),
    check("security.database", None, NONE, "does the database ask for a password, and TLS, beyond this machine"),
    check("security.passwords", None, NONE, "passwords of examples and manuals"),
    check("security.secrets", None, READY, "secrets that a restart of the server destroys"),
];

/// The built-in check of that id.
pub fn find(id: &str) -> Option<&'static Check> {
    CHECKS.iter().find(|c| c.id == id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::health::Layer;

    #[test]
    fn every_check_is_in_a_layer_and_stands_on_checks_that_there_are() {
        for check in CHECKS {
            assert!(Layer::of(check.id).is_some(), "{}", check.id);
            assert!(check.needs.iter().all(|n| find(n).is_some()), "{}", check.id);
        }
    }
}
