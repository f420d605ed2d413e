//! The SQL that finds rows without a parent and removes them, in the words of either engine.

use crate::domain::cleanup::belongings::{Link, Root};
use crate::domain::cleanup::parentless::Details;
use crate::domain::ddl::{literal, quote};
use crate::store::removal::Dialect;

/// True of the rows of a table, called `a0`, that have no parent, or one that has none itself.
fn condition(own: &Details, all: &[Details], depth: usize) -> String {
    let one = |link: &Link| {
        let (row, parent) = (format!("a{depth}"), format!("a{}", depth + 1));
        let mut parts = Vec::new();
        if let Some((column, says)) = &link.when {
            parts.push(format!("{row}.{} = {}", quote(column), literal(says)));
        }
        let mut same = Vec::new();
        for ((column, number), key) in link.columns.iter().zip(&link.references) {
            parts.push(format!("{row}.{} IS NOT NULL", quote(column)));
            // The ids of experiments are numbers, and some tables hold them as text.
            let key = match link.parent == Root::Experiment.table() && !number {
                true => format!("CAST({parent}.{} AS TEXT)", quote(key)),
                false => format!("{parent}.{}", quote(key)),
            };
            same.push(format!("{key} = {row}.{}", quote(column)));
        }
        if let Some(above) = all.iter().find(|d| d.table == link.parent) {
            same.push(format!("NOT ({})", condition(above, all, depth + 1)));
        }
        let there = format!("SELECT 1 FROM {} {parent} WHERE {}", quote(&link.parent), same.join(" AND "));
        format!("({} AND NOT EXISTS ({there}))", parts.join(" AND "))
    };
    own.links.iter().map(one).collect::<Vec<_>>().join(" OR ")
}

/// The statements about rows of a table without a parent.
pub(super) struct Sweep {
    /// The table.
    pub(super) table: String,
    /// Counts them.
    pub(super) count: String,
    /// SQLite: finds the row ids of the next of them after the first parameter, without the lock that writers wait for.
    pub(super) find: String,
    /// Removes some of them and gives them back as JSON. SQLite: those of the row ids in the first parameter, a JSON list,
    /// that are still without one.
    pub(super) remove: String,
}

/// The statements for one table, so many rows at a time.
pub(super) fn sweep(dialect: Dialect, own: &Details, columns: &[String], all: &[Details], most: usize) -> Sweep {
    let (table, condition) = (quote(&own.table), condition(own, all, 0));
    let count = format!("SELECT count(*) FROM {table} a0 WHERE {condition}");
    let find =
        format!("SELECT a0.rowid FROM {table} a0 WHERE a0.rowid > ?1 AND ({condition}) ORDER BY a0.rowid LIMIT {most}");
    let remove = match dialect {
        Dialect::Postgres => format!(
            "DELETE FROM {table} WHERE ctid = ANY(ARRAY(SELECT a0.ctid FROM {table} a0 WHERE {condition} LIMIT {most}))
             RETURNING row_to_json({table}.*)::text"
        ),
        Dialect::Sqlite => {
            // JSON has no bytes.
            let pair = |name: &String| {
                let column = quote(name);
                format!("{}, CASE typeof({column}) WHEN 'blob' THEN quote({column}) ELSE {column} END", literal(name))
            };
            let pairs: Vec<String> = columns.iter().map(pair).collect();
            format!(
                "DELETE FROM {table} AS a0 WHERE a0.rowid IN (SELECT value FROM json_each(?1)) AND ({condition})
                 RETURNING json_object({})",
                pairs.join(", ")
            )
        }
    };
    Sweep { table: own.table.clone(), count, find, remove }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::catalogue::{Catalogue, Line};
    use crate::domain::cleanup::parentless::details;

    #[test]
    fn a_row_whose_parent_is_parentless_is_parentless() {
        let newest = Catalogue::embedded().expect("the catalogue").newest(Line::Tracking).expect("a revision");
        let all = details(&newest.tables).expect("no circle");
        let sql = |table: &str| {
            let own = all.iter().find(|d| d.table == table).expect("a table");
            sweep(Dialect::Sqlite, own, &[], &all, 1).count
        };
        assert_eq!(
            sql("params"),
            r#"SELECT count(*) FROM "params" a0 WHERE (a0."run_uuid" IS NOT NULL AND NOT EXISTS (SELECT 1 FROM "runs" a1 WHERE a1."run_uuid" = a0."run_uuid"))"#
        );
        let tags = sql("input_tags");
        assert!(tags.contains(r#"a1."input_uuid" = a0."input_uuid" AND NOT ((a1."source_type" = 'DATASET'"#), "{tags}");
        let links = sql("entity_associations");
        assert!(links.contains(r#"CAST(a1."experiment_id" AS TEXT) = a0."destination_id""#), "{links}");
    }
}
