//! Everything that PostgreSQL's catalogue says of a schema, for the doctor.

use postgres::{Client, Error, GenericClient, IsolationLevel, Row, Transaction};

use super::connect::Postgres;
use super::target::{REPLACED, STAGE};
use super::{introspect, source_failure, target_failure};
use crate::domain::catalogue::{ForeignKey, Index, Sequence};
use crate::domain::ddl::quote;
use crate::domain::examination::{
    Column, Constraint, Examination, IndexState, Rule, SequenceState, Table, TriggerState,
};
use crate::domain::failure::{Failure, Outcome};
use crate::engine::cancel::Cancel;

const COLUMNS: &str = "
    SELECT c.relname::text, a.attname::text, format_type(a.atttypid, a.atttypmod), a.attnotnull,
           a.attidentity <> '', a.attgenerated <> '', pg_get_expr(d.adbin, d.adrelid)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
    WHERE n.nspname = $1 AND c.relkind IN ('r', 'p', 'f') ORDER BY c.relname, a.attnum";
const CONSTRAINTS: &str = "
    SELECT r.relname::text, k.contype::text, k.conname::text, k.convalidated,
           ARRAY(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY AS p(number, place)
                 JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = p.number ORDER BY p.place),
           f.relname::text,
           ARRAY(SELECT a.attname::text FROM unnest(k.confkey) WITH ORDINALITY AS p(number, place)
                 JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = p.number ORDER BY p.place),
           k.confdeltype::text, k.confupdtype::text, pg_get_expr(k.conbin, k.conrelid)
    FROM pg_constraint k JOIN pg_class r ON r.oid = k.conrelid JOIN pg_namespace n ON n.oid = r.relnamespace
    LEFT JOIN pg_class f ON f.oid = k.confrelid
    WHERE n.nspname = $1 AND k.contype IN ('p', 'u', 'f', 'c') ORDER BY r.relname, k.conname";
// The same expressions as in generate.py, so that what they give can be compared with the catalogue.
const INDEXES: &str = "
    SELECT t.relname::text, c.relname::text, i.indisunique, m.amname::text,
           ARRAY(SELECT pg_get_indexdef(i.indexrelid, p, false) FROM generate_series(1, i.indnkeyatts) p ORDER BY p),
           i.indoption::int2[]::int4[],
           ARRAY(SELECT pg_get_indexdef(i.indexrelid, p, false)
                 FROM generate_series(i.indnkeyatts + 1, i.indnatts) p ORDER BY p),
           pg_get_expr(i.indpred, i.indrelid), i.indisvalid
    FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_class t ON t.oid = i.indrelid
    JOIN pg_am m ON m.oid = c.relam JOIN pg_namespace n ON n.oid = t.relnamespace
    WHERE n.nspname = $1 AND t.relkind IN ('r', 'p')
      AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x'))
    ORDER BY t.relname, c.relname";
const TRIGGERS: &str = "
    SELECT c.relname::text, t.tgname::text, pg_get_triggerdef(t.oid), pg_get_functiondef(t.tgfoid), t.tgenabled <> 'D'
    FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = $1 AND NOT t.tgisinternal ORDER BY c.relname, t.tgname";
const SEQUENCES: &str = "
    SELECT c.relname::text, format_type(s.seqtypid, NULL), t.relname::text, a.attname::text
    FROM pg_class c JOIN pg_sequence s ON s.seqrelid = c.oid JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid
         AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i') AND d.refobjsubid > 0
    LEFT JOIN pg_class t ON t.oid = d.refobjid
    LEFT JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
    WHERE n.nspname = $1 ORDER BY c.relname";
const SCHEMAS: &str = "
    SELECT n.nspname::text, EXISTS (SELECT FROM pg_stat_activity a
               WHERE a.application_name = 'mlops/' || substr(n.nspname, length($1) + 1))
    FROM pg_namespace n WHERE left(n.nspname, length($1)) = $1 AND pg_has_role(n.nspowner, 'USAGE') ORDER BY 1";
const UNUSED_TYPES: &str = "
    SELECT t.typname::text FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
    WHERE n.nspname = $1 AND t.typtype = 'e'
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.refclassid = 'pg_type'::regclass
                      AND d.refobjid IN (t.oid, t.typarray) AND d.deptype = 'n') ORDER BY 1";

/// Reads what there is in a schema.
///
/// # Errors
/// The database failed.
pub fn examine(client: &mut impl GenericClient, schema: &str) -> Result<Examination, Error> {
    let mut examination = Examination::default();
    for row in client.query(COLUMNS, &[&schema])? {
        let name: String = row.try_get(0)?;
        if examination.tables.last().is_none_or(|t| t.name != name) {
            examination.tables.push(Table { name, ..Table::default() });
        }
        if let (Some(table), Some(name)) = (examination.tables.last_mut(), row.try_get(1)?) {
            table.columns.push(column(&row, name)?);
        }
    }
    let of = |row: &Row| -> Result<Option<usize>, Error> {
        let name: String = row.try_get(0)?;
        Ok(examination.tables.iter().position(|t| t.name == name))
    };
    let mut constraints = Vec::new();
    for row in client.query(CONSTRAINTS, &[&schema])? {
        constraints.push((of(&row)?, constraint(&row)?));
    }
    let mut indexes = Vec::new();
    for row in client.query(INDEXES, &[&schema])? {
        indexes.push((of(&row)?, index(&row)?));
    }
    let mut triggers = Vec::new();
    for row in client.query(TRIGGERS, &[&schema])? {
        let trigger = TriggerState {
            name: row.try_get(1)?,
            definition: row.try_get(2)?,
            function: row.try_get(3)?,
            enabled: row.try_get(4)?,
        };
        triggers.push((of(&row)?, trigger));
    }
    for (at, constraint) in constraints {
        if let Some(table) = at.and_then(|at| examination.tables.get_mut(at)) {
            table.constraints.push(constraint);
        }
    }
    for (at, index) in indexes {
        if let Some(table) = at.and_then(|at| examination.tables.get_mut(at)) {
            table.indexes.push(index);
        }
    }
    for (at, trigger) in triggers {
        if let Some(table) = at.and_then(|at| examination.tables.get_mut(at)) {
            table.triggers.push(trigger);
        }
    }
    sequences(client, schema, &mut examination)?;
    for row in client.query(SCHEMAS, &[&STAGE])? {
        examination.stages.push((row.try_get(0)?, row.try_get(1)?));
    }
    for row in client.query(SCHEMAS, &[&REPLACED])? {
        examination.replaced.push(row.try_get(0)?);
    }
    let types = client.query(UNUSED_TYPES, &[&schema])?;
    examination.unused_types = types.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
    Ok(examination)
}

fn column(row: &Row, name: String) -> Result<Column, Error> {
    let (generated, expression): (bool, Option<String>) = (row.try_get(5)?, row.try_get(6)?);
    let (default, generated) = if generated { (None, expression) } else { (expression, None) };
    // The sequence's name is filled in from the sequences.
    let sequence = row.try_get::<_, bool>(4)?.then(|| Sequence::Identity(String::new()));
    Ok(Column { name, kind: row.try_get(2)?, not_null: row.try_get(3)?, default, generated, sequence })
}

fn constraint(row: &Row) -> Result<Constraint, Error> {
    let (kind, name, columns): (String, String, Vec<String>) = (row.try_get(1)?, row.try_get(2)?, row.try_get(4)?);
    let action = |letter: Option<String>| match letter.as_deref() {
        Some("c") => Some("CASCADE".to_owned()),
        Some("n") => Some("SET NULL".to_owned()),
        Some("d") => Some("SET DEFAULT".to_owned()),
        Some("r") => Some("RESTRICT".to_owned()),
        _ => None,
    };
    let rule = match kind.as_str() {
        "p" => Rule::Primary(columns),
        "u" => Rule::Unique(columns),
        "f" => Rule::Foreign(ForeignKey {
            name: name.clone(),
            columns,
            table: row.try_get::<_, Option<String>>(5)?.unwrap_or_default(),
            references: row.try_get(6)?,
            on_delete: action(row.try_get(7)?),
            on_update: action(row.try_get(8)?),
        }),
        _ => Rule::Check(row.try_get::<_, Option<String>>(9)?.unwrap_or_default()),
    };
    Ok(Constraint { name, rule, valid: row.try_get(3)? })
}

fn index(row: &Row) -> Result<IndexState, Error> {
    let keys: Vec<String> = row.try_get(4)?;
    let options: Vec<i32> = row.try_get(5)?;
    // pg_index.indoption: bit 0 is DESC, bit 1 is NULLS FIRST, which is DESC's default.
    let order = |option: i32| match option & 3 {
        1 => " DESC NULLS LAST",
        2 => " NULLS FIRST",
        3 => " DESC",
        _ => "",
    };
    let keys = keys.into_iter().enumerate();
    let keys = keys.map(|(i, key)| format!("{key}{}", order(options.get(i).copied().unwrap_or(0)))).collect();
    let index = Index {
        name: row.try_get(1)?,
        unique: row.try_get(2)?,
        method: row.try_get(3)?,
        keys,
        include: row.try_get(6)?,
        filter: row.try_get(7)?,
    };
    Ok(IndexState { index, valid: row.try_get(8)? })
}

fn sequences(client: &mut impl GenericClient, schema: &str, examination: &mut Examination) -> Result<(), Error> {
    for row in client.query(SEQUENCES, &[&schema])? {
        let (name, kind): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        let sql = format!(
            "SELECT last_value + CASE WHEN is_called THEN 1 ELSE 0 END FROM {}.{}",
            quote(schema),
            quote(&name)
        );
        let next: i64 = client.query_one(&sql, &[])?.try_get(0)?;
        let owner = row.try_get::<_, Option<String>>(2)?.zip(row.try_get::<_, Option<String>>(3)?);
        examination.sequences.push(SequenceState { name, owner, kind, next });
    }
    for table in &mut examination.tables {
        for column in &mut table.columns {
            let own = |s: &&SequenceState| s.owner.as_ref() == Some(&(table.name.clone(), column.name.clone()));
            let owned = examination.sequences.iter().find(own).map(|s| s.name.clone());
            let called = column.default.as_deref().and_then(nextval);
            column.sequence = match (&column.sequence, called) {
                (Some(_), _) => Some(Sequence::Identity(owned.unwrap_or_default())),
                (None, Some(name)) => Some(Sequence::Serial(name)),
                (None, None) => None,
            };
        }
    }
    Ok(())
}

/// The sequence in `nextval('name'::regclass)`.
fn nextval(default: &str) -> Option<String> {
    let name = default.strip_prefix("nextval('")?.split_once("'::regclass")?.0;
    let name = name.rsplit_once('.').map_or(name, |(_, name)| name);
    Some(name.trim_matches('"').replace("\"\"", "\"").replace("''", "'"))
}

/// A failure of the database while it is looked at.
pub fn failed(error: &Error) -> Failure {
    source_failure("looking at the database", error)
}

/// The schema that unqualified names mean.
///
/// # Errors
/// Source: the database cannot be reached, or the search path names no schema.
pub fn schema(postgres: &Postgres) -> Outcome<String> {
    let mut client = postgres.connect().map_err(Failure::as_source)?;
    introspect::current_schema(&mut client)
        .map_err(|e| failed(&e))?
        .ok_or_else(|| Failure::source(format!("the search path of {} names no schema", postgres.address())))
}

/// Looks at a database as of one moment, read-only.
///
/// # Errors
/// Source: the database failed. And what `look` gives.
pub fn at_one_moment<T>(client: &mut Client, look: impl FnOnce(&mut Transaction<'_>) -> Outcome<T>) -> Outcome<T> {
    let transaction =
        client.build_transaction().isolation_level(IsolationLevel::RepeatableRead).read_only(true).start();
    let mut transaction = transaction.map_err(|e| failed(&e))?;
    let seen = look(&mut transaction)?;
    transaction.commit().map_err(|e| failed(&e))?;
    Ok(seen)
}

/// Runs statements in one transaction, which is committed only if `check` then finds it good.
///
/// # Errors
/// Target: a statement failed. And what `check` gives. Nothing is changed then.
pub fn in_one_transaction<T>(
    client: &mut Client,
    statements: &[String],
    cancel: &Cancel,
    check: impl FnOnce(&mut Transaction<'_>) -> Outcome<T>,
) -> Outcome<T> {
    let failed = |e: Error| target_failure("mending", &e);
    let mut transaction = client.transaction().map_err(failed)?;
    transaction
        .batch_execute("SET LOCAL lock_timeout = '20s'; SET LOCAL client_min_messages = warning")
        .map_err(failed)?;
    for statement in statements {
        // An interruption cancels the statement that runs; between two there is none to cancel.
        cancel.check()?;
        tracing::debug!(sql = %statement, "mending");
        transaction.batch_execute(statement).map_err(|e| {
            let first = statement.lines().next().unwrap_or_default();
            target_failure(&format!("mending (rolled back, nothing is changed): {first}"), &e)
        })?;
    }
    let checked = check(&mut transaction)?;
    cancel.check()?;
    transaction.commit().map_err(failed)?;
    Ok(checked)
}
