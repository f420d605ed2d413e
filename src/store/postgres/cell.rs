//! One value out of a query of the operator's own.

use std::time::Duration;

use postgres::error::SqlState;

use super::connect::Postgres;
use super::source_failure;
use crate::domain::failure::Outcome;

/// The first cell of the first row as text; `None`: there is no row, or the cell is NULL. In a transaction that changes
/// nothing, and bounded by the server.
///
/// # Errors
/// Source: no connection, or the query fails or takes longer.
pub fn first(database: &Postgres, query: &str, within: Duration) -> Outcome<Option<String>> {
    let ask = || "asking the query".to_owned();
    let failed = |e: &postgres::Error| {
        let failure = source_failure(&ask(), e);
        match e.code() {
            Some(code) if *code == SqlState::QUERY_CANCELED => {
                failure.hint(format!("it was given {:.1} s", within.as_secs_f64()))
            }
            Some(code) if *code == SqlState::SYNTAX_ERROR => failure.hint("it is one SELECT"),
            _ => failure,
        }
    };
    let mut client = database.connect().map_err(|f| f.as_source())?;
    let mut transaction = client.build_transaction().read_only(true).start().map_err(|e| failed(&e))?;
    let bound = format!("SET LOCAL statement_timeout = {}", within.as_millis().clamp(1, 3_600_000));
    transaction.batch_execute(&bound).map_err(|e| failed(&e))?;
    // Inside another query its first cell is text whatever its type is, and no more than a row comes. The line break
    // ends a comment at its end.
    let query = query.trim().trim_end_matches(';');
    let one = format!("SELECT cell::text FROM (\n{query}\n) AS asked(cell) LIMIT 1");
    let rows = transaction.query(&one, &[]).map_err(|e| failed(&e))?;
    match rows.first() {
        None => Ok(None),
        Some(row) => row.try_get(0).map_err(|e| failed(&e)),
    }
}
