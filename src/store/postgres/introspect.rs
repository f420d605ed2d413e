//! What is in a schema of a PostgreSQL database, as far as telling MLflow's tables from others needs it.

use postgres::{Client, GenericClient};

use super::connect::Postgres;
use super::source_failure;
use crate::domain::ddl::quote;
use crate::domain::failure::{Failure, Outcome};
use crate::domain::identity::{Observed, ObservedColumn, ObservedTable};

const TABLES: &str = "
    SELECT c.relname::text, c.relkind::text,
           ARRAY(SELECT a.attname::text FROM pg_index i, unnest(i.indkey) WITH ORDINALITY AS k(num, place)
                 JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.num
                 WHERE i.indrelid = c.oid AND i.indisprimary ORDER BY k.place)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = $1 AND c.relkind IN ('r', 'p', 'f', 'v', 'm') ORDER BY c.relname";
const COLUMNS: &str = "
    SELECT c.relname::text, a.attname::text, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attgenerated <> ''
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid
    WHERE n.nspname = $1 AND c.relkind IN ('r', 'p', 'f') AND a.attnum > 0 AND NOT a.attisdropped
    ORDER BY c.relname, a.attnum";
const TRIGGERS: &str = "
    SELECT t.tgname::text FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
    JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND NOT t.tgisinternal ORDER BY t.tgname";

/// Looks at every table of a schema.
///
/// # Errors
/// The database failed.
pub fn observe(client: &mut impl GenericClient, schema: &str) -> Result<Observed, postgres::Error> {
    let mut observed = Observed::default();
    for row in client.query(TABLES, &[&schema])? {
        let (name, kind): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        match kind.as_str() {
            "v" | "m" => observed.others.push(format!("view {name}")),
            _ => observed.tables.push(ObservedTable { name, columns: Vec::new(), key: row.try_get(2)? }),
        }
    }
    for row in client.query(COLUMNS, &[&schema])? {
        let table: String = row.try_get(0)?;
        let column = ObservedColumn {
            name: row.try_get(1)?,
            declared: row.try_get(2)?,
            not_null: row.try_get(3)?,
            generated: row.try_get(4)?,
        };
        if let Some(table) = observed.tables.iter_mut().find(|t| t.name == table) {
            table.columns.push(column);
        }
    }
    for row in client.query(TRIGGERS, &[&schema])? {
        observed.others.push(format!("trigger {}", row.try_get::<_, String>(0)?));
    }
    for name in ["alembic_version", "alembic_version_auth"] {
        if observed.tables.iter().any(|t| t.name == name && t.columns.iter().any(|c| c.name == "version_num")) {
            let sql = format!("SELECT version_num::text FROM {}.{}", quote(schema), quote(name));
            let values: Result<Vec<String>, _> = client.query(&sql, &[])?.iter().map(|row| row.try_get(0)).collect();
            observed.versions.push((name.to_owned(), values?));
        }
    }
    Ok(observed)
}

/// The schema that unqualified names mean, `None` where the search path names none that exists.
///
/// # Errors
/// The database failed.
pub fn current_schema(client: &mut impl GenericClient) -> Result<Option<String>, postgres::Error> {
    client.query_one("SELECT current_schema()::text", &[])?.try_get(0)
}

/// What is in the current schema of a database, and how big its tables are.
pub struct Details {
    /// The schema that was looked at.
    pub schema: String,
    /// Its tables.
    pub observed: Observed,
    /// The server's version: `15.18`.
    pub version: String,
    /// Bytes of the database.
    pub bytes: u64,
    /// Bytes of each table with its indexes.
    pub table_bytes: Vec<(String, u64)>,
}

/// Looks at the current schema.
///
/// # Errors
/// Source: the database failed, or the search path names no schema.
pub fn details(postgres: &Postgres) -> Outcome<Details> {
    let mut client = postgres.connect()?;
    let failed = |e: postgres::Error| source_failure("looking at the database", &e);
    let schema = current_schema(&mut client)
        .map_err(failed)?
        .ok_or_else(|| Failure::source(format!("the search path of {} names no schema", postgres.address())))?;
    let observed = observe(&mut client, &schema).map_err(failed)?;
    let sizes = |client: &mut Client| -> Result<_, postgres::Error> {
        let row = client.query_one(
            "SELECT split_part(current_setting('server_version'), ' ', 1), pg_database_size(current_database())",
            &[],
        )?;
        let tables = client.query(
            "SELECT c.relname::text, pg_total_relation_size(c.oid) FROM pg_class c
             JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relkind = 'r'",
            &[&schema],
        )?;
        let tables: Result<Vec<(String, u64)>, postgres::Error> =
            tables.iter().map(|r| Ok((r.try_get(0)?, r.try_get::<_, i64>(1)?.unsigned_abs()))).collect();
        Ok((row.try_get::<_, String>(0)?, row.try_get::<_, i64>(1)?, tables?))
    };
    let (version, bytes, table_bytes) = sizes(&mut client).map_err(failed)?;
    Ok(Details { schema, observed, version, bytes: bytes.unsigned_abs(), table_bytes })
}
