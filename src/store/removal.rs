//! The SQL that finds deleted things and removes them, in the words of either engine.

use std::sync::Arc;

use crate::domain::catalogue::TableDef;
use crate::domain::cleanup::belongings::{Link, Root, Step, belongings};
use crate::domain::cleanup::parentless::{Details, details};
use crate::domain::cleanup::select::KEEP;
use crate::domain::ddl::{literal, quote, quote_list};
use crate::domain::failure::Outcome;
use crate::engine::purge::Selection;
use crate::store::parentless::{Sweep, sweep};

/// What MLflow leaves in `current_stage` of a deleted model version.
const DELETED_VERSION: &str = "Deleted_Internal";

/// Whose SQL it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    Sqlite,
    Postgres,
}

impl Dialect {
    /// True of a column whose value is one of the ids, which are the first parameter: an array, or a JSON list.
    fn one_of(self, column: &str, number: bool) -> String {
        match (self, number) {
            (Dialect::Postgres, false) => format!("{column} = ANY($1::text[])"),
            (Dialect::Postgres, true) => format!("{column} = ANY($1::text[]::bigint[])"),
            (Dialect::Sqlite, false) => format!("{column} IN (SELECT value FROM json_each(?1))"),
            (Dialect::Sqlite, true) => format!("{column} IN (SELECT CAST(value AS INTEGER) FROM json_each(?1))"),
        }
    }
}

/// The statements for one revision.
pub(super) struct Statements {
    dialect: Dialect,
    tables: Vec<Arc<TableDef>>,
    referrers: Vec<Referrer>,
}

/// A foreign key of a table that is not MLflow's.
#[derive(Debug, Clone)]
pub(super) struct Referrer {
    /// The table, as SQL writes it.
    pub(super) table: String,
    /// Its column.
    pub(super) column: String,
    /// MLflow's table that it refers to.
    pub(super) parent: String,
    /// That table's column.
    pub(super) key: String,
}

impl Statements {
    pub(super) fn new(dialect: Dialect, tables: &[Arc<TableDef>], referrers: Vec<Referrer>) -> Statements {
        Statements { dialect, tables: tables.to_vec(), referrers }
    }

    pub(super) fn has(&self, table: &str, column: &str) -> bool {
        self.tables.iter().any(|t| t.name == table && t.columns.iter().any(|c| c.name == column))
    }

    pub(super) fn has_root(&self, root: Root) -> bool {
        self.has(root.table(), root.key())
    }

    /// Tables and columns of keys to a root's table that no index serves: each row that goes has them read whole.
    pub(super) fn unserved(&self, root: Root) -> Vec<(String, String)> {
        let mut found = Vec::new();
        for table in &self.tables {
            for key in table.postgres.foreign_keys.iter().filter(|key| key.table == root.table()) {
                let own = &table.postgres;
                let indexes = own.indexes.iter().filter(|index| index.filter.is_none()).map(|index| &index.keys);
                let keys = own.primary_key.iter().chain(&own.unique).map(|key| &key.columns);
                if !keys.chain(indexes).any(|columns| columns.starts_with(&key.columns)) {
                    found.push((quote(&table.name), quote_list(key.columns.iter().map(String::as_str))));
                }
            }
        }
        found
    }

    /// What is to be known of how this revision tells deletions.
    pub(super) fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        if !self.has("runs", "deleted_time") {
            remarks
                .push("this revision does not tell when a run was deleted: its end, or its start, decides".to_owned());
        }
        if !self.has("experiments", "last_update_time") {
            remarks.push(
                "this revision does not tell when an experiment was deleted: the newest of its deleted runs decides"
                    .to_owned(),
            );
        }
        remarks
    }

    /// The statements that remove roots of a kind, with their tables.
    pub(super) fn steps(&self, root: Root) -> Outcome<Vec<Step>> {
        belongings(root, &self.tables)
    }

    /// True of the rows of a step.
    pub(super) fn condition(&self, root: Root, step: &Step) -> String {
        self.along(root, &step.path)
    }

    fn along(&self, root: Root, path: &[Link]) -> String {
        let [link, rest @ ..] = path else {
            return self.dialect.one_of(&quote(root.key()), root == Root::Experiment);
        };
        let when = link.when.as_ref().map_or(String::new(), |(c, v)| format!("{} = {} AND ", quote(c), literal(v)));
        if rest.is_empty()
            && let ([(column, number)], [key]) = (link.columns.as_slice(), link.references.as_slice())
            && key == root.key()
        {
            return format!("{when}{}", self.dialect.one_of(&quote(column), *number));
        }
        if let Some(shorter) = shortened(link, rest) {
            return format!("{when}{}", self.along(root, &shorter));
        }
        let columns = quote_list(link.columns.iter().map(|(c, _)| c.as_str()));
        let references = quote_list(link.references.iter().map(String::as_str));
        let above = self.along(root, rest);
        format!("{when}({columns}) IN (SELECT {references} FROM {} WHERE {above})", quote(&link.parent))
    }

    /// The statement of a step.
    pub(super) fn statement(&self, root: Root, step: &Step) -> String {
        let (table, condition) = (quote(&step.table), self.condition(root, step));
        match &step.clears {
            None => format!("DELETE FROM {table} WHERE {condition}"),
            Some(columns) => {
                let set: Vec<String> = columns.iter().map(|c| format!("{} = NULL", quote(c))).collect();
                format!("UPDATE {table} SET {} WHERE {condition}", set.join(", "))
            }
        }
    }

    /// The number of rows that go, table by table.
    pub(super) fn counts(&self, root: Root) -> Outcome<Vec<(String, String)>> {
        let mut found: Vec<(String, Vec<String>)> = Vec::new();
        for step in self.steps(root)?.iter().filter(|s| s.clears.is_none()) {
            let condition = format!("({})", self.condition(root, step));
            match found.iter_mut().find(|(table, _)| *table == step.table) {
                Some((_, conditions)) => conditions.push(condition),
                None => found.push((step.table.clone(), vec![condition])),
            }
        }
        let sql =
            |table: &str, any: &[String]| format!("SELECT count(*) FROM {} WHERE {}", quote(table), any.join(" OR "));
        Ok(found.iter().map(|(table, conditions)| (table.clone(), sql(table, conditions))).collect())
    }

    fn when_of_run(&self) -> &'static str {
        if self.has("runs", "deleted_time") {
            "coalesce(r.deleted_time, r.end_time, r.start_time, 0)"
        } else {
            "coalesce(r.end_time, r.start_time, 0)"
        }
    }

    /// Whether a tag keeps it, or its experiment.
    fn tagged(&self, alias: &str, root: Root) -> String {
        let (tags, tag) = match root {
            Root::Run => ("tags", "key"),
            Root::Model => ("logged_model_tags", "tag_key"),
            Root::Trace => ("trace_tags", "key"),
            Root::Experiment => ("experiment_tags", "key"),
        };
        let mut any = Vec::new();
        if self.has(tags, tag) {
            any.push(format!(
                "EXISTS (SELECT 1 FROM {tags} k WHERE k.{tag} = '{KEEP}' AND k.{key} = {alias}.{key})",
                key = root.key()
            ));
        }
        if root != Root::Experiment {
            any.push(self.tagged(alias, Root::Experiment));
        }
        if any.is_empty() { "false".to_owned() } else { format!("({})", any.join(" OR ")) }
    }

    /// Why it stays, for people, or NULL.
    fn kept(&self, alias: &str, root: Root) -> String {
        let mut whens = vec![(self.tagged(alias, root), format!("the tag {KEEP} keeps it"))];
        for referrer in self.referrers.iter().filter(|r| r.parent == root.table() && r.key == root.key()) {
            let (table, column) = (&referrer.table, quote(&referrer.column));
            let there = format!("EXISTS (SELECT 1 FROM {table} x WHERE x.{column} = {alias}.{})", root.key());
            whens.push((there, format!("a row of the table {table}, which is not MLflow's, refers to it")));
        }
        if root == Root::Run {
            let children = "SELECT t.value FROM tags t JOIN runs c ON c.run_uuid = t.run_uuid
                            WHERE t.key = 'mlflow.parentRunId' AND c.lifecycle_stage = 'active'";
            let parent = format!("{alias}.run_uuid IN ({children})");
            whens.push((parent, "a run that is not deleted has it as its parent".to_owned()));
        }
        let whens: Vec<String> = whens.iter().map(|(when, why)| format!("WHEN {when} THEN {}", literal(why))).collect();
        format!("CASE {} END", whens.join(" "))
    }

    fn of_experiments(alias: &str, selection: &Selection) -> String {
        match &selection.experiments {
            None => String::new(),
            Some(ids) => {
                let ids: Vec<String> = ids.iter().map(|id| literal(id)).collect();
                format!(" AND CAST({alias}.experiment_id AS TEXT) IN ({})", ids.join(", "))
            }
        }
    }

    fn old_run(&self, selection: &Selection) -> String {
        format!("r.lifecycle_stage = 'deleted' AND {} < {}", self.when_of_run(), selection.before)
    }

    /// Id, experiment, address, whether itself, why kept, whether dated.
    pub(super) fn runs(&self, selection: &Selection) -> String {
        let dated = if self.has("runs", "deleted_time") { "r.deleted_time IS NOT NULL" } else { "false" };
        format!(
            "SELECT r.run_uuid, CAST(r.experiment_id AS TEXT), r.artifact_uri, true, {}, {dated} FROM runs r
             WHERE {}{} ORDER BY r.start_time, r.run_uuid",
            self.kept("r", Root::Run),
            self.old_run(selection),
            Self::of_experiments("r", selection)
        )
    }

    fn deleted_model(selection: &Selection) -> String {
        format!(
            "coalesce(m.lifecycle_stage = 'deleted' AND coalesce(m.last_updated_timestamp_ms, 0) < {}, false)",
            selection.before
        )
    }

    /// The same of logged models.
    pub(super) fn models(&self, selection: &Selection) -> String {
        let itself = Self::deleted_model(selection);
        format!(
            "SELECT m.model_id, CAST(m.experiment_id AS TEXT), m.artifact_location, {itself}, {}, true
             FROM logged_models m JOIN experiments e ON e.experiment_id = m.experiment_id
             WHERE ({itself} OR e.lifecycle_stage = 'deleted'){} ORDER BY m.creation_timestamp_ms, m.model_id",
            self.kept("m", Root::Model),
            Self::of_experiments("m", selection)
        )
    }

    fn guards(&self) -> &'static str {
        if self.has("guardrails", "scorer_id") && self.has("scorers", "experiment_id") {
            "EXISTS (SELECT 1 FROM guardrails g JOIN scorers s ON s.scorer_id = g.scorer_id
                     WHERE s.experiment_id = e.experiment_id)"
        } else {
            "false"
        }
    }

    /// Id, name, address, active runs, young runs, why kept, guards, old.
    pub(super) fn experiments(&self, selection: &Selection) -> String {
        let (run, before) = (self.when_of_run(), selection.before);
        let when = if self.has("experiments", "last_update_time") {
            "coalesce(e.last_update_time, x.newest, e.creation_time, 0)"
        } else {
            "coalesce(x.newest, 0)"
        };
        format!(
            "SELECT CAST(e.experiment_id AS TEXT), e.name, e.artifact_location, coalesce(x.active, 0),
                    coalesce(x.young, 0), {}, {}, {when} < {before}
             FROM experiments e LEFT JOIN (
                 SELECT r.experiment_id, sum(CASE WHEN r.lifecycle_stage = 'deleted' THEN 0 ELSE 1 END) AS active,
                        sum(CASE WHEN r.lifecycle_stage = 'deleted' AND {run} >= {before} THEN 1 ELSE 0 END) AS young,
                        max(CASE WHEN r.lifecycle_stage = 'deleted' THEN {run} END) AS newest
                 FROM runs r GROUP BY r.experiment_id) x ON x.experiment_id = e.experiment_id
             WHERE e.lifecycle_stage = 'deleted'{} ORDER BY e.experiment_id",
            self.kept("e", Root::Experiment),
            self.guards(),
            Self::of_experiments("e", selection)
        )
    }

    /// Those of the ids that may be removed; on PostgreSQL they are locked where `locked` says so.
    pub(super) fn still(&self, root: Root, selection: &Selection, locked: bool) -> String {
        let deleted = "e.lifecycle_stage = 'deleted'";
        let not_version = |column: &str, value: &str| {
            if !self.has("model_versions", column) {
                return String::new();
            }
            format!(
                " AND {value} NOT IN (SELECT v.{column} FROM model_versions v
                  WHERE v.{column} IS NOT NULL AND coalesce(v.current_stage, '') <> '{DELETED_VERSION}')"
            )
        };
        let one_of = |column: &str| self.dialect.one_of(column, root == Root::Experiment);
        let (sql, lock) = match root {
            Root::Run => (
                format!(
                    "SELECT r.run_uuid FROM runs r WHERE {} AND {} AND {} IS NULL{} ORDER BY r.run_uuid",
                    one_of("r.run_uuid"),
                    self.old_run(selection),
                    self.kept("r", root),
                    not_version("run_id", "r.run_uuid")
                ),
                "r",
            ),
            Root::Model => (
                format!(
                    "SELECT m.model_id FROM logged_models m JOIN experiments e ON e.experiment_id = m.experiment_id
                     WHERE {} AND ({} OR {deleted}) AND {} IS NULL{} ORDER BY m.model_id",
                    one_of("m.model_id"),
                    Self::deleted_model(selection),
                    self.kept("m", root),
                    not_version("source", "'models:/' || m.model_id")
                ),
                "m, e",
            ),
            Root::Trace => (
                format!(
                    "SELECT t.request_id FROM trace_info t JOIN experiments e ON e.experiment_id = t.experiment_id
                     WHERE {} AND {deleted} AND NOT {} ORDER BY t.request_id",
                    one_of("t.request_id"),
                    self.tagged("e", Root::Experiment)
                ),
                "t, e",
            ),
            Root::Experiment => {
                let mut empty = String::new();
                for inner in [Root::Run, Root::Model, Root::Trace] {
                    if self.has_root(inner) {
                        empty.push_str(&format!(
                            " AND e.experiment_id NOT IN (SELECT i.experiment_id FROM {} i WHERE i.experiment_id IS NOT NULL)",
                            inner.table()
                        ));
                    }
                }
                let when = if self.has("experiments", "last_update_time") {
                    format!(" AND coalesce(e.last_update_time, e.creation_time, 0) < {}", selection.before)
                } else {
                    String::new()
                };
                let (kept, guards) = (self.kept("e", Root::Experiment), self.guards());
                let one_of = one_of("e.experiment_id");
                (
                    format!(
                        "SELECT CAST(e.experiment_id AS TEXT) FROM experiments e WHERE {one_of} AND {deleted}{when}
                         AND {kept} IS NULL AND NOT {guards}{empty} ORDER BY e.experiment_id"
                    ),
                    "e",
                )
            }
        };
        if locked && self.dialect == Dialect::Postgres { format!("{sql} FOR UPDATE OF {lock}") } else { sql }
    }

    /// How many logged models that are not deleted lose metrics with the deleted runs that measured them.
    pub(super) fn losers(&self, selection: &Selection) -> Option<String> {
        (self.has("logged_model_metrics", "run_id") && self.has_root(Root::Model)).then(|| {
            format!(
                "SELECT count(DISTINCT l.model_id) FROM runs r JOIN logged_model_metrics g ON g.run_id = r.run_uuid
                 JOIN logged_models l ON l.model_id = g.model_id JOIN experiments e ON e.experiment_id = l.experiment_id
                 WHERE l.lifecycle_stage <> 'deleted' AND e.lifecycle_stage <> 'deleted' AND {}{}",
                self.old_run(selection),
                Self::of_experiments("r", selection)
            )
        })
    }

    /// Name for people, run, source, storage location; `None`: there is no registry yet.
    pub(super) fn versions(&self) -> Option<String> {
        let storage = if self.has("model_versions", "storage_location") { "v.storage_location" } else { "NULL" };
        self.has("model_versions", "run_id").then(|| {
            format!(
                "SELECT v.name || ' ' || CAST(v.version AS TEXT), v.run_id, v.source, CAST({storage} AS TEXT)
                 FROM model_versions v WHERE coalesce(v.current_stage, '') <> '{DELETED_VERSION}'"
            )
        })
    }

    /// Those of the ids that there are, deleted or not.
    pub(super) fn known(&self, root: Root) -> String {
        let key = root.key();
        let one_of = self.dialect.one_of(key, root == Root::Experiment);
        format!("SELECT CAST({key} AS TEXT) FROM {} WHERE {one_of}", root.table())
    }

    /// Id and address of logged models that have files: active, ready (2: entities/logged_model_status.py), and not only
    /// registered for what lies elsewhere (`mlflow.create_external_model`). `None`: there are no logged models yet.
    pub(super) fn ready_models(&self) -> Option<String> {
        self.has_root(Root::Model).then(|| {
            "SELECT m.model_id, m.artifact_location FROM logged_models m
             WHERE m.lifecycle_stage <> 'deleted' AND m.status = 2 AND m.artifact_location <> ''
               AND NOT EXISTS (SELECT 1 FROM logged_model_tags g WHERE g.model_id = m.model_id
                               AND g.tag_key = 'mlflow.model.isExternal')"
                .to_owned()
        })
    }

    /// What finds and removes rows without a parent, so many at a time, children before parents.
    pub(super) fn sweeps(&self, most: usize) -> Outcome<Vec<Sweep>> {
        let all = details(&self.tables)?;
        let one = |own: &Details| {
            let table = self.tables.iter().find(|t| t.name == own.table)?;
            let columns: Vec<String> = table.columns.iter().map(|c| c.name.clone()).collect();
            Some(sweep(self.dialect, own, &columns, &all, most))
        };
        Ok(all.iter().filter_map(one).collect())
    }

    /// Id and address of everything of a kind that has one.
    pub(super) fn places(&self, root: Root) -> Option<String> {
        let sql = match root {
            Root::Run => "SELECT run_uuid, artifact_uri FROM runs WHERE artifact_uri <> ''",
            Root::Model => "SELECT model_id, artifact_location FROM logged_models WHERE artifact_location <> ''",
            Root::Trace => "SELECT request_id, value FROM trace_tags WHERE key = 'mlflow.artifactLocation'",
            Root::Experiment => {
                "SELECT CAST(experiment_id AS TEXT), artifact_location FROM experiments WHERE artifact_location <> ''"
            }
        };
        self.has_root(root).then(|| sql.to_owned())
    }

    /// The next traces of an experiment: the experiment and the last id are bound, the number is not.
    pub(super) fn traces(&self, most: usize) -> String {
        let (experiment, after) = match self.dialect {
            Dialect::Sqlite => ("?1", "?2"),
            Dialect::Postgres => ("$1::text", "$2::text"),
        };
        format!(
            "SELECT t.request_id, (SELECT g.value FROM trace_tags g WHERE g.request_id = t.request_id
                                   AND g.key = 'mlflow.artifactLocation')
             FROM trace_info t WHERE t.experiment_id = CAST({experiment} AS INTEGER) AND t.request_id > {after}
             ORDER BY t.request_id LIMIT {most}"
        )
    }

    /// Id, name and whether deleted, of the experiments of a name or id.
    pub(super) fn named(&self) -> String {
        let word = if self.dialect == Dialect::Sqlite { "?1" } else { "$1::text" };
        format!(
            "SELECT CAST(e.experiment_id AS TEXT), e.name, e.lifecycle_stage = 'deleted' FROM experiments e
             WHERE e.name = {word} OR CAST(e.experiment_id AS TEXT) = {word} ORDER BY e.experiment_id"
        )
    }
}

/// A path without its first parent, where the columns that lead on from it are among those that the row itself has:
/// then an index of the row's own table serves.
fn shortened(link: &Link, rest: &[Link]) -> Option<Vec<Link>> {
    let [next, above @ ..] = rest else { return None };
    if next.when.is_some() {
        return None;
    }
    let own =
        |name: &String| link.references.iter().position(|r| r == name).and_then(|at| link.columns.get(at)).cloned();
    let columns = next.columns.iter().map(|(name, _)| own(name)).collect::<Option<Vec<_>>>()?;
    let link = Link { columns, when: None, ..next.clone() };
    Some(std::iter::once(link).chain(above.iter().cloned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::catalogue::{Catalogue, Line};

    fn statements(dialect: Dialect) -> Statements {
        let newest = Catalogue::embedded().expect("the catalogue").newest(Line::Tracking).expect("a revision");
        Statements::new(dialect, &newest.tables, Vec::new())
    }

    #[test]
    fn a_grandchild_is_found_by_its_own_index() {
        let it = statements(Dialect::Sqlite);
        let steps = it.steps(Root::Trace).expect("no circle");
        let metrics = steps.iter().find(|s| s.table == "span_metrics").expect("a step");
        let ids = "IN (SELECT value FROM json_each(?1))";
        assert_eq!(it.statement(Root::Trace, metrics), format!(r#"DELETE FROM "span_metrics" WHERE "trace_id" {ids}"#));
        let steps = it.steps(Root::Run).expect("no circle");
        let tags = steps.iter().find(|s| s.table == "input_tags").expect("a step");
        let sql = it.statement(Root::Run, tags);
        assert!(sql.contains(r#"("input_uuid") IN (SELECT "input_uuid" FROM "inputs" WHERE "#), "{sql}");
    }

    #[test]
    fn a_key_without_an_index_is_known() {
        let it = statements(Dialect::Sqlite);
        assert_eq!(it.unserved(Root::Run), [(r#""logged_model_metrics""#.to_owned(), r#""run_id""#.to_owned())]);
    }

    #[test]
    fn ids_of_experiments_are_numbers_where_the_column_holds_numbers() {
        let it = statements(Dialect::Postgres);
        let steps = it.steps(Root::Experiment).expect("no circle");
        let sql =
            |table: &str| it.statement(Root::Experiment, steps.iter().find(|s| s.table == table).expect("a step"));
        assert_eq!(
            sql("experiment_tags"),
            r#"DELETE FROM "experiment_tags" WHERE "experiment_id" = ANY($1::text[]::bigint[])"#
        );
        let links = sql("entity_associations");
        assert!(
            links.ends_with(r#""destination_type" = 'experiment' AND "destination_id" = ANY($1::text[])"#),
            "{links}"
        );
        assert!(sql("endpoints").starts_with(r#"UPDATE "endpoints" SET "experiment_id" = NULL WHERE"#));
    }
}
