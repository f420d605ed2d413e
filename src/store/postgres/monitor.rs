//! What an operator asks a running PostgreSQL: how full it is, who waits for whom, what takes long. Read-only and bounded
//! by the session's limits.

use std::time::Duration;

use postgres::{Client, Error, Row};

use super::source_failure;
use crate::domain::ddl::quote;
use crate::domain::failure::Outcome;
use crate::domain::tracking::{ExperimentMark, MOST_MARKS};

/// A server and a database at a moment.
#[derive(Debug, Clone)]
pub struct Vitals {
    /// The server's version: `15.18`.
    pub version: String,
    /// Bytes of the database; `None` where the role may not ask.
    pub bytes: Option<u64>,
    /// Whether this connection is encrypted.
    pub encrypted: bool,
    /// The role of this connection.
    pub role: String,
    /// Whether the role sees what others' sessions do (`pg_read_all_stats`, part of `pg_monitor`).
    pub sees_all: bool,
    /// TimescaleDB's version, where the extension is in the database.
    pub timescaledb: Option<String>,
}

/// The use of the connections that ordinary roles may open.
#[derive(Debug, Clone, Copy)]
pub struct Connections {
    /// Sessions of clients, this one included.
    pub used: u64,
    /// `max_connections` less those that are kept for superusers and for `pg_use_reserved_connections`.
    pub allowed: u64,
}

/// A statement that waits for a lock.
#[derive(Debug, Clone)]
pub struct Blocked {
    /// Its server process.
    pub pid: i32,
    /// Its role.
    pub role: String,
    /// Seconds that it has waited; `None` where they are not shown to this role.
    pub seconds: Option<f64>,
    /// Its beginning, without literals.
    pub statement: String,
    /// The server process that it waits for.
    pub blocker: Option<i32>,
    /// The blocker's state: `idle in transaction`.
    pub blocker_state: Option<String>,
    /// The blocker's last statement, without literals.
    pub blocker_statement: Option<String>,
}

/// A transaction that is open.
#[derive(Debug, Clone)]
pub struct Transaction {
    /// Its server process.
    pub pid: i32,
    /// Its role.
    pub role: String,
    /// `active`, `idle in transaction`.
    pub state: String,
    /// Its age in seconds.
    pub seconds: f64,
    /// The last statement's beginning, without literals.
    pub statement: String,
}

/// Open transactions, the oldest first, as far as they are shown.
#[derive(Debug, Clone, Default)]
pub struct Transactions {
    /// The oldest.
    pub oldest: Vec<Transaction>,
    /// Sessions in this database of which this role may see the state.
    pub seen: u64,
    /// Those of which it may not.
    pub hidden: u64,
}

/// A statement of pg_stat_statements.
#[derive(Debug, Clone)]
pub struct Statement {
    /// Mean time in seconds.
    pub mean: f64,
    /// How often it ran.
    pub calls: i64,
    /// Its beginning, without literals.
    pub statement: String,
}

/// How much of a statement is shown.
const SHOWN: usize = 120;
/// How often a statement must have run to be a habit: one long migration is not.
const HABIT: i64 = 5;

/// What an operator asks to see who holds the connections.
pub const WHO_CONNECTS: &str =
    "SELECT usename, application_name, state, count(*) FROM pg_stat_activity GROUP BY 1, 2, 3 ORDER BY 4 DESC";

/// What an operator runs to end a session. It is shown, and never run here.
pub fn end_session(pid: i32) -> String {
    format!("SELECT pg_terminate_backend({pid})")
}

/// Limits this session: nothing is written, no statement runs longer than this, no lock is waited for longer.
///
/// # Errors
/// Source: the connection failed.
pub fn bound(client: &mut Client, limit: Duration) -> Outcome<()> {
    let ms = limit.as_millis().max(1);
    client
        .batch_execute(&format!(
            "SET default_transaction_read_only = on; SET statement_timeout = {ms}; SET lock_timeout = {ms}"
        ))
        .map_err(|e| source_failure("setting up the session", &e))
}

const VITALS: &str = "
    SELECT split_part(current_setting('server_version'), ' ', 1),
           CASE WHEN has_database_privilege(current_database(), 'CONNECT')
                THEN pg_database_size(current_database()) END,
           coalesce((SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), false),
           current_user::text, pg_has_role(current_user, 'pg_read_all_stats', 'USAGE'),
           (SELECT extversion FROM pg_extension WHERE extname = 'timescaledb')";

/// Asks for the vitals.
///
/// # Errors
/// Source: the database failed.
pub fn vitals(client: &mut Client) -> Outcome<Vitals> {
    let ask = |client: &mut Client| -> Result<Vitals, Error> {
        let row = client.query_one(VITALS, &[])?;
        Ok(Vitals {
            version: row.try_get(0)?,
            bytes: row.try_get::<_, Option<i64>>(1)?.map(i64::unsigned_abs),
            encrypted: row.try_get(2)?,
            role: row.try_get(3)?,
            sees_all: row.try_get(4)?,
            timescaledb: row.try_get(5)?,
        })
    };
    ask(client).map_err(|e| source_failure("asking for the server's state", &e))
}

/// Sessions of clients are shown to everybody, though not what they do; workers of the server have no role, or are
/// told by their kind where that is shown. PostgreSQL 16 has `reserved_connections`.
const CONNECTIONS: &str = "
    SELECT (SELECT count(*) FROM pg_stat_activity
            WHERE datid IS NOT NULL AND usesysid IS NOT NULL AND coalesce(backend_type, 'client backend') = 'client backend'),
           current_setting('max_connections')::bigint - current_setting('superuser_reserved_connections')::bigint
               - coalesce(current_setting('reserved_connections', true)::bigint, 0)";

/// The newest experiments that are not deleted.
///
/// # Errors
/// Source: they cannot be read, or the revision is older than their creation time.
pub fn experiments(client: &mut Client, schema: &str) -> Outcome<Vec<ExperimentMark>> {
    let ask = |client: &mut Client| -> Result<Vec<ExperimentMark>, Error> {
        let sql = format!(
            "SELECT experiment_id::text, name, creation_time FROM {}.experiments WHERE lifecycle_stage = 'active'
             ORDER BY creation_time DESC NULLS LAST LIMIT {MOST_MARKS}",
            quote(schema)
        );
        let mark =
            |row: &Row| Ok(ExperimentMark { id: row.try_get(0)?, name: row.try_get(1)?, created: row.try_get(2)? });
        client.query(&sql, &[])?.iter().map(mark).collect()
    };
    ask(client).map_err(|e| source_failure("reading the experiments", &e))
}

/// What makes a database this one and no other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Its name.
    pub database: String,
    /// Its number in the cluster: a database that was dropped and made again has another one.
    pub oid: u32,
    /// The number that the cluster got when it was made; `None` where the role may not ask.
    pub system: Option<String>,
}

/// Asks which database this is.
///
/// # Errors
/// Source: the database failed.
pub fn identity(client: &mut Client) -> Outcome<Identity> {
    let ask = "SELECT current_database()::text, (SELECT oid FROM pg_database WHERE datname = current_database())";
    let read = |row: Row| Ok((row.try_get(0)?, row.try_get(1)?));
    let (database, oid) =
        client.query_one(ask, &[]).and_then(read).map_err(|e| source_failure("asking which database it is", &e))?;
    let system = client.query_one("SELECT system_identifier::text FROM pg_control_system()", &[]);
    Ok(Identity { database, oid, system: system.and_then(|row| row.try_get(0)).ok() })
}

/// Counts the sessions of the whole server.
///
/// # Errors
/// Source: the database failed.
pub fn connections(client: &mut Client) -> Outcome<Connections> {
    let ask = |client: &mut Client| -> Result<Connections, Error> {
        let row = client.query_one(CONNECTIONS, &[])?;
        let number = |i| Ok::<_, Error>(row.try_get::<_, i64>(i)?.max(0).unsigned_abs());
        Ok(Connections { used: number(0)?, allowed: number(1)? })
    };
    ask(client).map_err(|e| source_failure("counting the connections", &e))
}

/// Who waits stands in `pg_locks`, which everybody may read; `waitstart` came with PostgreSQL 14.
fn blocked_sql(waitstart: bool) -> String {
    let since = if waitstart { "coalesce(w.since, a.query_start)" } else { "coalesce(a.query_start, w.since)" };
    let wait = if waitstart { "min(waitstart)" } else { "NULL::timestamptz" };
    format!(
        "SELECT a.pid, coalesce(a.usename::text, ''), extract(epoch FROM clock_timestamp() - {since})::float8,
                left(a.query, 1000), b.pid, b.state, left(b.query, 1000)
         FROM (SELECT pid, {wait} AS since FROM pg_locks WHERE NOT granted GROUP BY pid) w
         JOIN pg_stat_activity a ON a.pid = w.pid
         LEFT JOIN pg_stat_activity b ON b.pid = (pg_blocking_pids(w.pid))[1]
         WHERE a.datname = current_database() ORDER BY {since} NULLS LAST LIMIT 50"
    )
}

/// Statements of this database that wait for a lock, the longest first; at most 50.
///
/// # Errors
/// Source: the database failed.
pub fn blocked(client: &mut Client) -> Outcome<Vec<Blocked>> {
    let of = |row: &Row| -> Result<Blocked, Error> {
        Ok(Blocked {
            pid: row.try_get(0)?,
            role: row.try_get(1)?,
            seconds: row.try_get(2)?,
            statement: outline(&row.try_get::<_, Option<String>>(3)?.unwrap_or_default()),
            blocker: row.try_get(4)?,
            blocker_state: row.try_get(5)?,
            blocker_statement: row.try_get::<_, Option<String>>(6)?.map(|s| outline(&s)),
        })
    };
    let ask = |client: &mut Client| -> Result<Vec<Blocked>, Error> {
        let version: i32 = client.query_one("SELECT current_setting('server_version_num')::int", &[])?.try_get(0)?;
        client.query(&blocked_sql(version >= 140_000), &[])?.iter().map(of).collect()
    };
    ask(client).map_err(|e| source_failure("looking for blocked statements", &e))
}

const OTHERS: &str = "FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND usesysid IS NOT NULL
      AND coalesce(backend_type, 'client backend') = 'client backend'
      AND application_name <> current_setting('application_name')";

/// The oldest open transactions of this database, without those of this run, of replication and of autovacuum.
///
/// # Errors
/// Source: the database failed.
pub fn transactions(client: &mut Client) -> Outcome<Transactions> {
    let of = |row: &Row| -> Result<Transaction, Error> {
        Ok(Transaction {
            pid: row.try_get(0)?,
            role: row.try_get(1)?,
            state: row.try_get(2)?,
            seconds: row.try_get::<_, f64>(3)?.max(0.0),
            statement: outline(&row.try_get::<_, String>(4)?),
        })
    };
    let ask = |client: &mut Client| -> Result<Transactions, Error> {
        // To a role that may not see a session its kind is NULL, and so is the start of its transaction.
        let counts = client.query_one(
            &format!("SELECT count(*) FILTER (WHERE backend_type IS NOT NULL), count(*) FILTER (WHERE backend_type IS NULL) {OTHERS}"),
            &[],
        )?;
        let rows = client.query(
            &format!(
                "SELECT pid, coalesce(usename::text, ''), coalesce(state, ''),
                        extract(epoch FROM clock_timestamp() - xact_start)::float8, left(coalesce(query, ''), 1000)
                 {OTHERS} AND xact_start IS NOT NULL ORDER BY xact_start LIMIT 5"
            ),
            &[],
        )?;
        Ok(Transactions {
            oldest: rows.iter().map(of).collect::<Result<_, _>>()?,
            seen: counts.try_get::<_, i64>(0)?.unsigned_abs(),
            hidden: counts.try_get::<_, i64>(1)?.unsigned_abs(),
        })
    };
    ask(client).map_err(|e| source_failure("looking for long transactions", &e))
}

/// The slowest statements of this database by their mean, of those that ran a few times. `None`: pg_stat_statements is
/// not installed in it.
///
/// # Errors
/// Source: the database failed, or the module is installed and not loaded.
pub fn statements(client: &mut Client) -> Outcome<Option<Vec<Statement>>> {
    let ask = |client: &mut Client| -> Result<Option<Vec<Statement>>, Error> {
        let found = client.query_opt(
            "SELECT n.nspname::text,
                    EXISTS (SELECT FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
                            WHERE c.relnamespace = n.oid AND c.relname = 'pg_stat_statements' AND a.attname = 'mean_exec_time')
             FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'pg_stat_statements'",
            &[],
        )?;
        let Some(found) = found else { return Ok(None) };
        let (schema, new): (String, bool) = (found.try_get(0)?, found.try_get(1)?);
        // The column's name up to version 1.7 of the module (PostgreSQL 12).
        let mean = if new { "mean_exec_time" } else { "mean_time" };
        let rows = client.query(
            &format!(
                "SELECT {mean} / 1000, calls, left(coalesce(query, ''), 1000) FROM {}.pg_stat_statements
                 WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database()) AND calls >= $1
                 ORDER BY {mean} DESC LIMIT 5",
                quote(&schema)
            ),
            &[&HABIT],
        )?;
        let of = |row: &Row| -> Result<Statement, Error> {
            Ok(Statement {
                mean: row.try_get(0)?,
                calls: row.try_get(1)?,
                statement: outline(&row.try_get::<_, String>(2)?),
            })
        };
        rows.iter().map(of).collect::<Result<_, _>>().map(Some)
    };
    ask(client).map_err(|e| source_failure("reading pg_stat_statements", &e))
}

/// The beginning of a statement on one line, each literal as `'...'`: values are the users', and one may be a password.
fn outline(sql: &str) -> String {
    let mut text = String::new();
    let mut rest = sql.chars().peekable();
    // The character before the literal, and the one before that: `E'` takes backslashes, a name may end in e.
    let mut before = [' ', ' '];
    while let Some(c) = rest.next() {
        match c {
            '\'' => {
                let backslashes = matches!(before, [a, 'e' | 'E'] if !a.is_alphanumeric() && a != '_');
                text.push_str("'...'");
                while let Some(inner) = rest.next() {
                    if inner == '\\' && backslashes {
                        rest.next();
                    } else if inner == '\'' && rest.next_if_eq(&'\'').is_none() {
                        break;
                    }
                }
            }
            // A literal in dollars: nothing after it is worth the risk.
            '$' if rest.peek().is_some_and(|n| *n == '$' || n.is_alphabetic() || *n == '_') => {
                text.push_str("$...");
                break;
            }
            c if c.is_whitespace() || c.is_control() => {
                if !text.is_empty() && !text.ends_with(' ') {
                    text.push(' ');
                }
            }
            c => text.push(c),
        }
        before = [before[1], c];
    }
    let text = text.trim_end();
    if text.chars().count() <= SHOWN {
        return text.to_owned();
    }
    format!("{} ...", text.chars().take(SHOWN).collect::<String>().trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outline_holds_no_value() {
        for (sql, shown) in [
            ("ALTER ROLE x\n  PASSWORD 'hunter2'", "ALTER ROLE x PASSWORD '...'"),
            ("SELECT 'it''s', E'a\\'hunter2', 1", "SELECT '...', E'...', 1"),
            ("SELECT 'a\\', 'hunter2'", "SELECT '...', '...'"),
            ("SELECT name'hunter2'", "SELECT name'...'"),
            ("SELECT $x$hunter2$x$", "SELECT $..."),
            ("SELECT $$hunter2$$", "SELECT $..."),
            ("SELECT $1, 'hunter2", "SELECT $1, '...'"),
        ] {
            assert_eq!(outline(sql), shown);
        }
        assert_eq!(outline(&"x".repeat(500)).chars().count(), SHOWN + 4);
    }
}
