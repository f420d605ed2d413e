//! What does not belong to the revision: what an interrupted upgrade or an mlops left, and what is the operator's.

use super::finding::{Finding, Severity};
use crate::domain::catalogue::Catalogue;
use crate::domain::examination::Examination;
use crate::domain::identity::Claim;
use crate::store::postgres::mend;
use crate::store::postgres::rows::Condition;

use Severity::{Error, Note, Warning};

/// Version tables that say several things.
pub(super) fn versions(claim: &Claim) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (table, values) in &claim.several {
        findings.push(
            Finding::new(Error, "several-revisions", table)
                .what(format!("it names {} revisions: {}", values.len(), values.join(", ")))
                .breaks("no MLflow starts on it, and no upgrade begins")
                .cannot("an upgrade was interrupted or two databases were merged: restore a backup"),
        );
    }
    if let (Some(first), Some((own, table))) = (claim.fits_later.first(), claim.revisions.first()) {
        findings.push(
            Finding::new(Error, "wrong-revision", table)
                .what(format!("it names {}, and the tables are those of {} ({})", own.id, first.id, first.releases_text()))
                .breaks("the next `mlflow db upgrade` makes again what is there, and fails")
                .cannot("an upgrade was interrupted, or `alembic_version` comes from another dump than the tables: restore a backup"),
        );
    }
    for value in &claim.unknown {
        findings.push(
            Finding::new(Error, "unknown-revision", "alembic_version")
                .what(format!("it holds `{value}`, which is no revision of MLflow's"))
                .breaks("MLflow refuses to start: Can't locate revision")
                .cannot("another program keeps its own revision there: it and its tables must move out"),
        );
    }
    findings
}

/// Tables that are not the revision's. `mendable`: SQL may drop those that are empty.
pub(super) fn tables(
    examination: &Examination,
    claim: &Claim,
    catalogue: &'static Catalogue,
    mendable: bool,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut foreign: Vec<&str> = Vec::new();
    for table in &examination.tables {
        let name = table.name.as_str();
        if claim.tables.iter().any(|t| t.name == name) || name.starts_with("alembic_version") {
            continue;
        }
        let other = claim.revisions.iter().find_map(|(r, _)| Some((r, catalogue.first_with_table(r.line, name)?)));
        let finding = if let Some(of) = name.strip_prefix("_alembic_tmp_") {
            Finding::new(Error, "interrupted-upgrade", name)
                .what(format!("an upgrade of `{of}` was interrupted: alembic's temporary table is still there"))
        } else if let Some((own, other)) = other {
            Finding::new(Error, "interrupted-upgrade", name).what(format!(
                "the table comes with revision {} ({}), and the database says {}",
                other.id,
                other.releases_text(),
                own.id
            ))
        } else if mendable && name.starts_with("sqlite_") {
            // SQLite refuses such names to everybody: only a careless copy brings one here.
            findings.push(
                Finding::new(Warning, "pgloader-table", name)
                    .what("pgloader copied one of SQLite's own tables, which means nothing here")
                    .breaks("nothing; a dump and a migration carry it along")
                    .step(mend::drop_object("TABLE", name)),
            );
            continue;
        } else {
            foreign.push(name);
            continue;
        };
        let finding = finding.breaks("the next `mlflow db upgrade` fails: the table is there already");
        findings.push(if mendable {
            finding.guard([Condition::any(name)]).step(mend::drop_object("TABLE", name))
        } else {
            finding.cannot("restore the backup from before the upgrade, or let the MLflow that was upgrading finish it")
        });
    }
    // Children were made after their parents and go before them.
    findings.reverse();
    if !foreign.is_empty() {
        findings.push(
            Finding::new(Note, "extra-table", foreign.join(", "))
                .what("not MLflow's")
                .breaks("nothing; a migration leaves them behind unless --include-table names them"),
        );
    }
    findings
}

/// Schemas of mlops' own, and types that pgloader left.
pub(super) fn schemas(examination: &Examination) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (name, busy) in &examination.stages {
        findings.push(if *busy {
            Finding::new(Note, "stage-in-use", name)
                .what("an mlops is loading rows into this schema")
                .breaks("nothing: it goes when that ends")
        } else {
            Finding::new(Warning, "abandoned-stage", name)
                .what("an mlops that loaded rows into this schema was killed")
                .breaks("nothing; it takes room on the disk")
                .step(mend::drop_object("SCHEMA", name))
        });
    }
    for name in &examination.replaced {
        findings.push(
            Finding::new(Note, "replaced-schema", name)
                .what("it holds what `mlops migrate --replace` moved aside")
                .breaks("nothing; drop it by hand when it is needed no more"),
        );
    }
    for name in &examination.unused_types {
        findings.push(
            Finding::new(Note, "unused-type", name).what("an enumerated type that no column uses").breaks("nothing"),
        );
    }
    findings
}
