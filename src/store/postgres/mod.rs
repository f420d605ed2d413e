//! PostgreSQL: connections, what is in a database, its rows, a stage that rows are loaded into and published from, and
//! private throw-away clusters.

pub mod cell;
mod certificate;
pub mod connect;
pub mod examine;
pub mod introspect;
pub mod mend;
pub mod monitor;
mod parameters;
mod password;
pub mod private;
pub mod provision;
pub mod purge;
pub mod rows;
pub mod source;
pub mod stage;
pub mod target;
pub mod temporary;
mod tls;

use std::error::Error as _;

use postgres::error::SqlState;

use crate::domain::failure::{Failure, Kind};
use crate::domain::harmless;

/// What PostgreSQL or the driver says, in one line, with SQLSTATE. Neither puts a password into an error of its own, but a
/// pooler, a trigger or a foreign table may repeat how it connected: what shows itself as one is masked.
fn text(error: &postgres::Error) -> String {
    harmless::masked(&said(error))
}

fn said(error: &postgres::Error) -> String {
    if let Some(db) = error.as_db_error() {
        let mut text = db.message().to_owned();
        // "Failing row contains (...)" would show whole rows, with whatever secrets are in them; keys are fine.
        let whole_row = *db.code() == SqlState::CHECK_VIOLATION || *db.code() == SqlState::NOT_NULL_VIOLATION;
        let detail = db.detail().filter(|_| !whole_row);
        for more in [detail, db.where_(), db.hint()].into_iter().flatten() {
            let line: String = more.lines().next().unwrap_or_default().chars().take(300).collect();
            text.push_str(&format!("; {line}"));
        }
        return format!("{text} [{}]", db.code().code());
    }
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(&format!(": {inner_text}"));
        }
        cause = inner.source();
    }
    text
}

/// A failure of PostgreSQL while `doing` something on a database that is the job's target.
fn target_failure(doing: &str, error: &postgres::Error) -> Failure {
    let failure = Failure::target(format!("{doing}: {}", text(error)));
    match error.code() {
        Some(code) if *code == SqlState::DISK_FULL => failure.hint("the database server's disk is full"),
        Some(code) if *code == SqlState::LOCK_NOT_AVAILABLE || *code == SqlState::T_R_DEADLOCK_DETECTED => {
            failure.hint("something else uses the target's tables: stop the MLflow server that runs on it")
        }
        Some(_) => failure,
        None => failure.hint("the connection to the database server was lost"),
    }
}

/// A failure while rows are loaded or keys are built over them: SQLSTATE's classes 22, 23 and 54 (a value too long for
/// an index, JSON too deep), mean that the rows themselves are what PostgreSQL refuses.
fn rows_failure(doing: &str, error: &postgres::Error) -> Failure {
    let failure = target_failure(doing, error);
    match error.code() {
        Some(code)
            if code.code().starts_with("22") || code.code().starts_with("23") || code.code().starts_with("54") =>
        {
            Failure {
                kind: Kind::Source,
                hint: Some(
                    "the source holds rows that PostgreSQL's schema of MLflow refuses: mend them there".to_owned(),
                ),
                ..failure
            }
        }
        _ => failure,
    }
}

/// The same for a database that is read.
fn source_failure(doing: &str, error: &postgres::Error) -> Failure {
    Failure::source(format!("{doing}: {}", text(error)))
}
