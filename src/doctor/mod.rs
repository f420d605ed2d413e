//! How a database differs from its revision's entry in the catalogue, what that breaks, and the SQL that mends it.

mod data;
pub mod finding;
mod fix;
mod keys;
mod leftovers;
mod postgres;
mod sqlite;

use ::postgres::{Client, Transaction};

use crate::domain::catalogue::{Catalogue, Revision};
use crate::domain::failure::{Failure, Outcome};
use crate::domain::identity;
use crate::domain::step::{Step, statements};
use crate::store::postgres::connect::{Postgres, server_version};
use crate::store::postgres::{examine, introspect};

use finding::{Finding, Severity, withhold};

pub use fix::{Mended, fix};
pub use sqlite::{examine_snapshot, examine_sqlite};

/// How far the doctor looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Tables, columns, keys, indexes, triggers, sequences: as quick on a billion rows as on none.
    Structure,
    /// The rows as well: minutes on millions of them.
    Rows,
}

/// What the doctor found.
#[derive(Debug)]
pub struct Diagnosis {
    /// The database's address, masked.
    pub address: String,
    /// `SQLite` or `PostgreSQL`.
    pub engine: &'static str,
    /// The engine's version.
    pub version: String,
    /// MLflow's revisions that live there.
    pub revisions: Vec<&'static Revision>,
    /// What is wrong, the worst first.
    pub findings: Vec<Finding>,
}

impl Diagnosis {
    /// How many findings are of that severity.
    pub fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|f| f.severity == severity).count()
    }

    /// Whether nothing is worse than a note.
    pub fn sound(&self) -> bool {
        !self.findings.iter().any(Finding::counts)
    }

    /// The findings that SQL mends.
    pub fn fixable(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|f| f.fixable())
    }

    /// The statements that mend what can be mended, in order.
    pub fn statements(&self) -> Vec<String> {
        let steps: Vec<Step> = self.fixable().flat_map(|f| f.steps.clone()).collect();
        statements(&steps)
    }

    /// The statements as a script for psql, with what they do not mend as comments.
    pub fn script(&self) -> String {
        let ids: Vec<&str> = self.revisions.iter().map(|r| r.id.as_str()).collect();
        let mut script = format!("-- mlops db doctor: {} at revision {}\n", self.address, ids.join(", "));
        for finding in self.findings.iter().filter(|f| f.counts() && !f.fixable()) {
            let why = finding.cannot.as_deref().unwrap_or("there is no SQL for it");
            let text = format!("not mended: {} of {}: {}: {why}", finding.id, finding.object, finding.what);
            script.push_str(&format!("-- {}\n", text.replace(['\n', '\r'], " ")));
        }
        let statements = self.statements();
        if statements.is_empty() {
            script.push_str("-- nothing to mend by SQL\n");
            return script;
        }
        script.push_str("BEGIN;\nSET LOCAL lock_timeout = '20s';\n");
        for statement in statements {
            script.push_str(&format!("{};\n", statement.trim_end().trim_end_matches(';')));
        }
        script.push_str("COMMIT;\n");
        script
    }

    fn sort(&mut self) {
        // What is lost for good comes before what can be mended.
        self.findings.sort_by_key(|f| (f.severity, f.id != data::LOST_EXPERIMENTS));
    }
}

/// Looks at the current schema of a PostgreSQL database, at one moment and without changing anything.
///
/// # Errors
/// Source: it cannot be read, or is no MLflow database.
pub fn examine_postgres(postgres: &Postgres) -> Outcome<Diagnosis> {
    let mut client = postgres.connect().map_err(Failure::as_source)?;
    examine_session(&mut client, &postgres.address(), Depth::Rows)
}

/// The same over a connection that is open, and only as far as asked; `address` is for messages. The session's limits
/// of time hold.
///
/// # Errors
/// As [`examine_postgres`].
pub fn examine_session(client: &mut Client, address: &str, depth: Depth) -> Outcome<Diagnosis> {
    let version = server_version(client)?;
    examine::at_one_moment(client, |transaction| diagnose(transaction, address, version, depth))
        .map_err(Failure::as_source)
}

/// Looks at the current schema within a transaction.
fn diagnose(transaction: &mut Transaction<'_>, address: &str, version: i32, depth: Depth) -> Outcome<Diagnosis> {
    let catalogue = Catalogue::embedded()?;
    let failed = |e: ::postgres::Error| examine::failed(&e);
    let schema = introspect::current_schema(transaction)
        .map_err(failed)?
        .ok_or_else(|| Failure::source(format!("the search path of {address} names no schema")))?;
    let observed = introspect::observe(transaction, &schema).map_err(failed)?;
    let claim = identity::claim(&observed, catalogue).map_err(|f| f.on(address))?;
    let examination = examine::examine(transaction, &schema).map_err(failed)?;
    let case = postgres::Case { examination: &examination, claim: &claim, catalogue, schema: &schema, version };
    let mut findings = leftovers::versions(&claim);
    findings.extend(postgres::compare(&case));
    findings.extend(leftovers::tables(&examination, &claim, catalogue, true));
    findings.extend(leftovers::schemas(&examination));
    match depth {
        Depth::Rows => data::look(transaction, &case, &mut findings),
        Depth::Structure => data::sequences(transaction, &case, &mut findings),
    }
    .map_err(failed)?;
    withhold(&mut findings);
    if !claim.several.is_empty() || !claim.unknown.is_empty() || !claim.fits_later.is_empty() {
        // To mend towards the wrong revision would make it worse.
        for finding in findings.iter_mut().filter(|f| f.fixable()) {
            finding.cannot = Some("it has to be known first at which revision the database is".to_owned());
        }
    }
    let mut diagnosis = Diagnosis {
        address: address.to_owned(),
        engine: "PostgreSQL",
        version: format!("{}.{}", version / 10_000, version % 10_000),
        revisions: claim.revisions.iter().map(|(r, _)| *r).collect(),
        findings,
    };
    diagnosis.sort();
    Ok(diagnosis)
}
