//! Readings of what a database is and of what the doctor finds in it: the same for both engines.

use crate::doctor::finding::{Finding, Severity};
use crate::doctor::{Depth, Diagnosis};
use crate::domain::catalogue::{Catalogue, Line};
use crate::domain::count::counted;
use crate::domain::failure::Failure;
use crate::domain::health::{Bound, Limits, Reading, Status, Unit};
use crate::domain::identity::{self, Observed};

use super::{Asker, of_failure};

const REVISION: &str = "database.revision";
const SCHEMA: &str = "database.schema";
/// Findings that are shown.
const SHOWN: usize = 5;

/// The reading of `database.revision`, and the tracking revision where it is known.
pub(super) fn revision(observed: &Observed, catalogue: &'static Catalogue) -> (Reading, Option<String>) {
    let claim = match identity::claim(observed, catalogue) {
        Ok(claim) => claim,
        Err(failure) => {
            let status = if identity::is_newer(observed, catalogue) { Status::Unknown } else { Status::Critical };
            return (of_failure(Reading::new(REVISION, status, failure.message.clone()), failure), None);
        }
    };
    let tracking = claim.revisions.iter().map(|(r, _)| *r).find(|r| r.line == Line::Tracking);
    if let Some((table, values)) = claim.several.first() {
        let reading = Reading::critical(
            REVISION,
            format!("`{table}` names {} revisions ({}), and a sound database has one", values.len(), values.join(", ")),
        )
        .cause("an `mlflow db upgrade` was interrupted, or two databases were merged")
        .hint("restore a backup of before the upgrade");
        return (reading, None);
    }
    if let Some(value) = claim.unknown.first() {
        let reading = Reading::critical(REVISION, format!("`{value}` stands beside MLflow's revision"))
            .cause("another program keeps its own revision in the same version table")
            .hint("MLflow finds two heads and does not start: move the other program's tables and this row out");
        return (reading, None);
    }
    if let Some(later) = claim.fits_later.first() {
        let named: Vec<&str> = claim.revisions.iter().map(|(r, _)| r.id.as_str()).collect();
        let reading = Reading::critical(
            REVISION,
            format!("the tables are those of {}, and the version table says {}", later.id, named.join(", ")),
        )
        .cause("an `mlflow db upgrade` was interrupted, or somebody changed the version table by hand")
        .hint("the next upgrade fails on what is there already: mlops db doctor shows the state; restore a backup");
        return (reading, None);
    }
    let Some(tracking) = tracking else {
        let reading =
            Reading::critical(REVISION, "this is basic-auth's database, and not that of runs and experiments")
                .hint("give the address that `mlflow server --backend-store-uri` has");
        return (reading, None);
    };
    let summary = format!("{} ({})", tracking.id, tracking.releases_text());
    (Reading::ok(REVISION, summary), Some(tracking.id.clone()))
}

/// The reading of `database.schema`.
pub(super) fn schema(asker: &Asker, diagnosis: &Diagnosis, depth: Depth) -> Reading {
    let (errors, warnings) = (diagnosis.count(Severity::Error), diagnosis.count(Severity::Warning));
    let rows = if depth == Depth::Rows { "" } else { "; rows are looked at with --deep" };
    let summary = match (errors, warnings) {
        (0, 0) => format!("as MLflow makes it{rows}"),
        _ => format!("{} and {} of the doctor's{rows}", counted(errors, "error"), counted(warnings, "warning")),
    };
    let none = Limits { warning: None, critical: Some(Bound::AtMost(0.0)) };
    let mut reading = asker.measured_or(SCHEMA, errors as f64, Unit::Count, none, summary);
    if warnings > 0 && !asker.has_limits(SCHEMA) {
        reading.status = reading.status.max(Status::Warning);
    }
    let line = |f: &Finding| format!("{} {} of {}: {}", f.severity.word(), f.id, f.object, f.what);
    let worst = diagnosis.findings.iter().filter(|f| f.counts());
    reading = reading.evidence(worst.clone().take(SHOWN).map(line));
    if let Some(first) = worst.clone().next() {
        reading = reading
            .cause(first.breaks.clone())
            .hint("`mlops db doctor` with the same database tells them all, and mends with --fix");
    }
    reading
}

/// The doctor could not look.
pub(super) fn no_schema(failure: Failure) -> Reading {
    of_failure(Reading::unknown(SCHEMA, failure.message.clone()), failure)
}
