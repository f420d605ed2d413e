//! What only rows show: those that stand in the way of a key or a type, those without a parent, and values that MLflow
//! keeps twice and that disagree.

use postgres::{Error, GenericClient};

use crate::domain::catalogue::ForeignKey;
use crate::domain::ddl::{quote, quote_list};

/// Rows of a table that a condition is true of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// The table, known as `t` in the condition.
    pub table: String,
    /// The condition.
    pub sql: String,
    /// What it means: "have no value in `name`".
    pub what: String,
}

/// Rows that were found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// How many.
    pub rows: u64,
    /// The keys of the first of them.
    pub first: Vec<String>,
}

fn columns_of(alias: &str, columns: &[String]) -> Vec<String> {
    columns.iter().map(|c| format!("{alias}.{}", quote(c))).collect()
}

impl Condition {
    fn new(table: &str, what: String, sql: String) -> Condition {
        Condition { table: table.to_owned(), sql, what }
    }

    /// Rows without a value.
    pub fn empty(table: &str, column: &str) -> Condition {
        Condition::new(table, format!("have no value in `{column}`"), format!("t.{} IS NULL", quote(column)))
    }

    /// Rows that share their values with another; rows with a NULL among them do not count.
    pub fn duplicate(table: &str, columns: &[String]) -> Condition {
        let list = quote_list(columns.iter().map(String::as_str));
        let sql = format!(
            "({}) IN (SELECT {list} FROM {} GROUP BY {list} HAVING count(*) > 1)",
            columns_of("t", columns).join(", "),
            quote(table)
        );
        Condition::new(table, format!("have the same {} as another row", columns.join(", ")), sql)
    }

    /// Rows that break a CHECK.
    pub fn breaking(table: &str, expression: &str) -> Condition {
        Condition::new(table, format!("break the rule {expression}"), format!("NOT ({expression})"))
    }

    /// Rows whose reference finds nothing. `as_text`: the columns are of types that PostgreSQL does not compare.
    pub fn dangling(table: &str, key: &ForeignKey, as_text: bool) -> Condition {
        let cast = if as_text { "::text" } else { "" };
        let filled = columns_of("t", &key.columns).iter().map(|c| format!("{c} IS NOT NULL")).collect::<Vec<_>>();
        let pairs = columns_of("t", &key.columns).into_iter().zip(columns_of("p", &key.references));
        let same: Vec<String> = pairs.map(|(own, other)| format!("{other}{cast} = {own}{cast}")).collect();
        let sql = format!(
            "{} AND NOT EXISTS (SELECT 1 FROM {} p WHERE {})",
            filled.join(" AND "),
            quote(&key.table),
            same.join(" AND ")
        );
        Condition::new(table, format!("refer to a row of `{}` that does not exist", key.table), sql)
    }

    /// Rows whose value is not what an expression gives.
    pub fn unlike(table: &str, column: &str, expression: &str) -> Condition {
        let sql = format!("t.{0} IS NOT NULL AND t.{0} IS DISTINCT FROM ({expression})", quote(column));
        Condition::new(table, format!("have another value in `{column}` than {expression}"), sql)
    }

    /// Rows with values in all of these columns, while the table that they refer to is not there.
    pub fn filled(table: &str, key: &ForeignKey) -> Condition {
        let filled = columns_of("t", &key.columns).iter().map(|c| format!("{c} IS NOT NULL")).collect::<Vec<_>>();
        let what = format!("refer to a row of `{}`, which is not there", key.table);
        Condition::new(table, what, filled.join(" AND "))
    }

    /// Any row.
    pub fn any(table: &str) -> Condition {
        Condition::new(table, "are in it".to_owned(), "true".to_owned())
    }
}

/// How values of one type become those of another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conversion {
    /// The USING expression, where PostgreSQL wants one.
    pub using: Option<String>,
    /// Rows whose values would be lost.
    pub unfit: Option<Condition>,
}

/// How the values of a column become `to`; `None`: by no way that keeps every value.
pub fn conversion(table: &str, column: &str, from: &str, to: &str) -> Option<Conversion> {
    let value = format!("t.{}", quote(column));
    let unfit =
        |sql: String| Some(Condition::new(table, format!("have a value in `{column}` that {to} does not hold"), sql));
    let text = |kind: &str| kind == "text" || kind.starts_with("character varying");
    let whole = |kind: &str| matches!(kind, "smallint" | "integer" | "bigint");
    let limit = |kind: &str| kind.strip_prefix("character varying(")?.strip_suffix(')')?.parse::<u32>().ok();
    let cast = Some(format!("{}::{to}", quote(column)));
    if text(from) && text(to) {
        let long = limit(to).and_then(|n| unfit(format!("char_length({value}) > {n}")));
        return Some(Conversion { using: None, unfit: long });
    }
    if (whole(from) || from.starts_with("numeric")) && whole(to) {
        let (low, high) = if to == "bigint" { (i64::MIN, i64::MAX) } else { (i32::MIN.into(), i32::MAX.into()) };
        let fraction = if whole(from) { String::new() } else { format!(" OR {value} <> trunc({value})") };
        let sql = format!("{value} NOT BETWEEN ({low}) AND ({high}){fraction}");
        return Some(Conversion { using: None, unfit: unfit(sql) });
    }
    if text(from) && whole(to) {
        let digits = if to == "bigint" { 18 } else { 9 };
        let sql = format!("{value} !~ '^-?[0-9]{{1,{digits}}}$'");
        return Some(Conversion { using: cast, unfit: unfit(sql) });
    }
    if whole(from) && to == "boolean" {
        let using = Some(format!("{} <> 0", quote(column)));
        return Some(Conversion { using, unfit: unfit(format!("{value} NOT IN (0, 1)")) });
    }
    match (from, to) {
        ("real", "double precision") => Some(Conversion { using: None, unfit: None }),
        ("jsonb", "json") | ("json" | "jsonb", "text") => Some(Conversion { using: cast, unfit: None }),
        _ => None,
    }
}

/// Counts the rows that a condition is true of and shows the first three by these columns.
///
/// # Errors
/// The database failed.
pub fn find(client: &mut impl GenericClient, condition: &Condition, key: &[String]) -> Result<Found, Error> {
    let from = format!("FROM {} t WHERE {}", quote(&condition.table), condition.sql);
    let rows: i64 = client.query_one(&format!("SELECT count(*) {from}"), &[])?.try_get(0)?;
    if rows == 0 || key.is_empty() {
        return Ok(Found { rows: rows.unsigned_abs(), first: Vec::new() });
    }
    Ok(Found { rows: rows.unsigned_abs(), first: first(client, &from, key)? })
}

fn first(client: &mut impl GenericClient, from: &str, key: &[String]) -> Result<Vec<String>, Error> {
    let shown: Vec<String> = columns_of("t", key).iter().map(|c| format!("left({c}::text, 60)")).collect();
    let list = columns_of("t", key).join(", ");
    let sql = format!("SELECT ARRAY[{}] {from} ORDER BY {list} LIMIT 3", shown.join(", "));
    let rows = client.query(&sql, &[])?;
    let mut first = Vec::new();
    for row in rows {
        let values: Vec<Option<String>> = row.try_get(0)?;
        let pairs = key.iter().zip(values).map(|(k, v)| format!("{k}={}", v.unwrap_or_else(|| "NULL".to_owned())));
        first.push(pairs.collect::<Vec<_>>().join(", "));
    }
    Ok(first)
}

/// The highest value of a column; `None` in an empty table.
///
/// # Errors
/// The database failed.
pub fn highest(client: &mut impl GenericClient, table: &str, column: &str) -> Result<Option<i64>, Error> {
    client.query_one(&format!("SELECT max({})::bigint FROM {}", quote(column), quote(table)), &[])?.try_get(0)
}

/// The different values of a column among the rows that a condition is true of: how many, and the first of them.
///
/// # Errors
/// The database failed.
pub fn different(client: &mut impl GenericClient, condition: &Condition, column: &str) -> Result<Found, Error> {
    let from = format!("FROM {} t WHERE {}", quote(&condition.table), condition.sql);
    let value = format!("t.{}", quote(column));
    let rows: i64 = client.query_one(&format!("SELECT count(DISTINCT {value}) {from}"), &[])?.try_get(0)?;
    let values = client.query(&format!("SELECT DISTINCT {value}::text {from} ORDER BY 1 LIMIT 10"), &[])?;
    let first = values.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
    Ok(Found { rows: rows.unsigned_abs(), first })
}

/// The last point of each metric by MLflow's rule: the highest step, then time, then value
/// (`SqlAlchemyStore._update_latest_metrics_if_necessary`).
const LAST: &str = "SELECT DISTINCT ON (run_uuid, key) run_uuid, key, value, timestamp, step, is_nan FROM metrics
     ORDER BY run_uuid, key, step DESC, timestamp DESC, value DESC";

/// `latest_metrics` against `metrics`: rows that are missing or old, and rows of which there is no point at all.
///
/// # Errors
/// The database failed.
pub fn latest_metrics(client: &mut impl GenericClient) -> Result<(Found, Found), Error> {
    let pair = ["run_uuid".to_owned(), "key".to_owned()];
    let old = format!(
        "FROM ({LAST}) t LEFT JOIN latest_metrics l ON l.run_uuid = t.run_uuid AND l.key = t.key
         WHERE l.key IS NULL OR (l.step, l.timestamp, l.value) IS DISTINCT FROM (t.step, t.timestamp, t.value)"
    );
    let extra = "FROM latest_metrics t WHERE NOT EXISTS
                 (SELECT FROM metrics m WHERE m.run_uuid = t.run_uuid AND m.key = t.key)";
    let mut found = Vec::new();
    for from in [old.as_str(), extra] {
        let rows: i64 = client.query_one(&format!("SELECT count(*) {from}"), &[])?.try_get(0)?;
        let first = if rows > 0 { first(client, from, &pair)? } else { Vec::new() };
        found.push(Found { rows: rows.unsigned_abs(), first });
    }
    let extra = found.pop().unwrap_or_default();
    Ok((found.pop().unwrap_or_default(), extra))
}

/// The statement that writes `latest_metrics` anew where it is missing or old.
pub fn renew_latest_metrics() -> String {
    format!(
        "WITH last AS ({LAST}),\n  renewed AS (UPDATE latest_metrics l SET value = t.value, timestamp = t.timestamp, \
         step = t.step, is_nan = t.is_nan FROM last t\n    WHERE l.run_uuid = t.run_uuid AND l.key = t.key\n      \
         AND (l.step, l.timestamp, l.value) IS DISTINCT FROM (t.step, t.timestamp, t.value))\n\
         INSERT INTO latest_metrics (run_uuid, key, value, timestamp, step, is_nan)\n  SELECT t.run_uuid, t.key, t.value, \
         t.timestamp, t.step, t.is_nan FROM last t\n  WHERE NOT EXISTS (SELECT FROM latest_metrics l WHERE l.run_uuid = \
         t.run_uuid AND l.key = t.key)"
    )
}

/// Runs that are active in an experiment that is deleted.
pub fn active_in_deleted() -> Condition {
    Condition::new(
        "runs",
        "are active in a deleted experiment".to_owned(),
        "t.lifecycle_stage = 'active' AND EXISTS (SELECT 1 FROM experiments e WHERE e.experiment_id = t.experiment_id \
         AND e.lifecycle_stage = 'deleted')"
            .to_owned(),
    )
}
