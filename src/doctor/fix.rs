//! Mends what SQL can mend: in one transaction, that is looked at again before it is committed.

use postgres::Client;

use super::finding::Finding;
use super::{Depth, Diagnosis, diagnose};
use crate::domain::consent::Confirmed;
use crate::domain::failure::{Failure, Outcome};
use crate::engine::cancel::Cancel;
use crate::store::postgres::connect::server_version;
use crate::store::postgres::examine;

/// What mending came to.
#[derive(Debug)]
pub struct Mended {
    /// The findings that are gone.
    pub mended: Vec<Finding>,
    /// The database as it is now.
    pub left: Diagnosis,
}

/// Runs the statements of a diagnosis. `client` holds the lock on the schema.
///
/// # Errors
/// Interrupted. Target: a statement failed, or what was to be mended is not, or something new is wrong: then nothing is changed.
pub fn fix(client: &mut Client, diagnosis: &Diagnosis, cancel: &Cancel, _: &Confirmed) -> Outcome<Mended> {
    let version = server_version(client)?;
    let left = examine::in_one_transaction(client, &diagnosis.statements(), cancel, |transaction| {
        let left = diagnose(transaction, &diagnosis.address, version, Depth::Rows)?;
        let remains = diagnosis.fixable().find(|f| left.findings.iter().any(|l| l.key() == f.key()));
        if let Some(finding) = remains {
            return Err(nothing_changed(&format!("{} of {} is still there", finding.id, finding.object)));
        }
        let new = left.findings.iter().find(|l| l.counts() && !diagnosis.findings.iter().any(|f| f.key() == l.key()));
        match new {
            Some(new) => Err(nothing_changed(&format!("{} of {} came up: {}", new.id, new.object, new.what))),
            None => Ok(left),
        }
    })?;
    Ok(Mended { mended: diagnosis.fixable().cloned().collect(), left })
}

fn nothing_changed(why: &str) -> Failure {
    Failure::target(format!("after the SQL had run, {why}: it was rolled back, and nothing is changed"))
        .hint("mlops db doctor --print shows the SQL: run it statement by statement")
}
