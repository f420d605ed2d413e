//! What belongs to a run, a logged model, a trace, an experiment: the rows of other tables, as the catalogue's foreign
//! keys and the mentions tell, in an order in which they can be removed. No table is named here but where no key is.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::domain::catalogue::TableDef;
use crate::domain::failure::{Failure, Outcome};
use crate::domain::mention::{MENTIONS, Mention};
use crate::domain::table::Type;

/// What is removed as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Root {
    /// A run.
    Run,
    /// A logged model (MLflow 3).
    Model,
    /// A trace.
    Trace,
    /// An experiment without any of the others in it.
    Experiment,
}

impl Root {
    /// All of them, in the order in which they go: an experiment goes when the others have gone.
    pub const ALL: [Root; 4] = [Root::Run, Root::Model, Root::Trace, Root::Experiment];

    /// Its table.
    pub fn table(self) -> &'static str {
        match self {
            Root::Run => "runs",
            Root::Model => "logged_models",
            Root::Trace => "trace_info",
            Root::Experiment => "experiments",
        }
    }

    /// The column that names it.
    pub fn key(self) -> &'static str {
        match self {
            Root::Run => "run_uuid",
            Root::Model => "model_id",
            Root::Trace => "request_id",
            Root::Experiment => "experiment_id",
        }
    }

    /// The word for people.
    pub fn word(self) -> &'static str {
        match self {
            Root::Run => "run",
            Root::Model => "logged model",
            Root::Trace => "trace",
            Root::Experiment => "experiment",
        }
    }

    /// The word for documents.
    pub fn id(self) -> &'static str {
        match self {
            Root::Model => "logged_model",
            other => other.word(),
        }
    }
}

/// How a row refers to the row that it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Columns of the row; the second value: it holds numbers.
    pub columns: Vec<(String, bool)>,
    /// The table referred to.
    pub parent: String,
    /// Its columns.
    pub references: Vec<String>,
    /// Another column of the row, and what it says where the row refers to such a parent.
    pub when: Option<(String, String)>,
}

/// One statement: rows of a table that belong to the roots in one way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The table.
    pub table: String,
    /// Columns that are emptied, where the rows stay (ON DELETE SET NULL).
    pub clears: Option<Vec<String>>,
    /// From the rows up to the root; empty: the root itself.
    pub path: Vec<Link>,
}

/// Rows of basic-auth's that name an experiment by its id, though no key or mention says so (MLflow:
/// server/auth/db/models.py, SqlRolePermission). SQLite gives a purged experiment's id to the next one.
const GRANTS: Mention = Mention {
    table: "role_permissions",
    column: "resource_pattern",
    parent: "experiments",
    key: "experiment_id",
    when: Some(("resource_type", "experiment")),
    follows: true,
};

/// A reference into a table, and whether the referring rows stay.
struct Reference<'a> {
    child: &'a TableDef,
    link: Link,
    stays: bool,
}

/// The statements that remove roots of a kind with all that is theirs, children before parents; the last one is the
/// root's. What is a root of its own is not among them: it goes before, with a statement list of its own.
///
/// # Errors
/// Internal: references go round in a circle, which a test rules out.
pub fn belongings(root: Root, tables: &[Arc<TableDef>]) -> Outcome<Vec<Step>> {
    if !tables.iter().any(|t| t.name == root.table()) {
        return Ok(Vec::new());
    }
    let mut steps = Vec::new();
    let mut levels = BTreeMap::from([(root.table().to_owned(), 0)]);
    let mut open = vec![(root.table().to_owned(), Vec::new())];
    while let Some((table, path)) = open.pop() {
        if path.len() > tables.len() {
            return Err(Failure::internal("references go round in a circle"));
        }
        for reference in references_to(&table, tables) {
            let name = &reference.child.name;
            if Root::ALL.iter().any(|other| other.table() == name) {
                continue;
            }
            let clears = reference.stays.then(|| reference.link.columns.iter().map(|(c, _)| c.clone()).collect());
            let longer: Vec<Link> = std::iter::once(reference.link).chain(path.iter().cloned()).collect();
            let level = levels.entry(name.clone()).or_insert(0);
            *level = (*level).max(longer.len());
            if !reference.stays {
                open.push((name.clone(), longer.clone()));
            }
            let step = Step { table: name.clone(), clears, path: longer };
            if !steps.contains(&step) {
                steps.push(step);
            }
        }
    }
    steps.push(Step { table: root.table().to_owned(), clears: None, path: Vec::new() });
    // What a row refers to is never deeper than the row itself.
    steps.sort_by_key(|step| (std::cmp::Reverse(levels.get(&step.table).copied()), step.table.clone()));
    Ok(steps)
}

fn references_to<'a>(parent: &str, tables: &'a [Arc<TableDef>]) -> Vec<Reference<'a>> {
    let mut found = Vec::new();
    for child in tables {
        let column = |name: &String| {
            let kind = child.columns.iter().find(|c| c.name == *name).map(|c| c.kind);
            (name.clone(), matches!(kind, Some(Type::Int4 | Type::Int8)))
        };
        let mut add = |columns: &[String], references: &[String], when: Option<(&str, &str)>, stays: bool| {
            let link = Link {
                columns: columns.iter().map(column).collect(),
                parent: parent.to_owned(),
                references: references.to_vec(),
                when: when.map(|(column, value)| (column.to_owned(), value.to_owned())),
            };
            found.push(Reference { child, link, stays });
        };
        for key in child.postgres.foreign_keys.iter().filter(|key| key.table == parent) {
            let stays = matches!(key.on_delete.as_deref(), Some("SET NULL"));
            add(&key.columns, &key.references, None, stays);
        }
        for mention in MENTIONS.iter().chain([&GRANTS]) {
            if mention.table == child.name && mention.parent == parent && mention.follows && mention.is_in(tables) {
                add(&[mention.column.to_owned()], &[mention.key.to_owned()], mention.when, false);
            }
        }
        if parent == Root::Experiment.table() && is_alike(child) {
            let key = [Root::Experiment.key().to_owned()];
            add(&key, &key, None, false);
        }
    }
    found
}

/// Whether the table names its experiment without a key to it, as the daily sums and basic-auth's permissions do, and
/// is reached by nothing else. (MLflow: sqlalchemy_store.py, `_hard_delete_experiment`.)
fn is_alike(table: &TableDef) -> bool {
    let key = Root::Experiment.key();
    table.columns.iter().any(|c| c.name == key)
        && table.name != Root::Experiment.table()
        && !table.postgres.foreign_keys.iter().any(|f| f.columns.iter().any(|c| c == key))
        && !MENTIONS.iter().any(|m| m.table == table.name && m.column == key)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::domain::catalogue::{Catalogue, Line, Revision};

    fn all(revision: &Revision) -> Vec<(Root, Vec<Step>)> {
        Root::ALL.map(|root| (root, belongings(root, &revision.tables).expect("no circle"))).into()
    }

    /// Tables with a path of foreign keys to runs or experiments, found by another way: a fixed point.
    fn dependents(revision: &Revision) -> BTreeSet<&str> {
        let mut found: BTreeSet<&str> =
            ["runs", "experiments"].into_iter().filter(|t| revision.table(t).is_some()).collect();
        loop {
            let before = found.len();
            for table in &revision.tables {
                if table.postgres.foreign_keys.iter().any(|k| found.contains(k.table.as_str())) {
                    // A row that is only emptied leads no further, but it has to be emptied.
                    found.insert(&table.name);
                }
            }
            if found.len() == before {
                return found;
            }
        }
    }

    #[test]
    fn at_every_revision_all_that_depends_goes_and_children_go_first() {
        let catalogue = Catalogue::embedded().expect("the embedded catalogue");
        let mut revisions = 0;
        for revision in catalogue.history(Line::Tracking) {
            revisions += 1;
            let plans = all(revision);
            let covered: BTreeSet<&str> = plans.iter().flat_map(|(_, p)| p.iter().map(|s| s.table.as_str())).collect();
            let cleared: BTreeSet<&str> = plans
                .iter()
                .flat_map(|(_, p)| p.iter().filter(|s| s.clears.is_some()).map(|s| s.table.as_str()))
                .collect();
            for table in dependents(revision) {
                // What hangs on a row that stays, stays.
                let stays = revision.table(table).is_some_and(|t| {
                    t.postgres.foreign_keys.iter().all(|k| {
                        (cleared.contains(k.table.as_str()) || !dependents(revision).contains(k.table.as_str()))
                            && !["runs", "experiments"].contains(&k.table.as_str())
                    }) && !["runs", "experiments"].contains(&table)
                });
                assert!(covered.contains(table) || stays, "{}: {table} is forgotten", revision.id);
            }
            for mention in MENTIONS.iter().filter(|m| m.follows && m.is_in(&revision.tables)) {
                let reached = mention.parent != "evaluation_datasets";
                assert!(!reached || covered.contains(mention.table), "{}: {}", revision.id, mention.table);
            }
            for (root, plan) in &plans {
                in_order(revision, *root, plan);
            }
        }
        assert!(revisions >= 67, "{revisions}");
    }

    #[track_caller]
    fn in_order(revision: &Revision, root: Root, plan: &[Step]) {
        let last = |table: &str| plan.iter().rposition(|s| s.table == table);
        let first = |table: &str| plan.iter().position(|s| s.table == table && s.clears.is_none());
        for (at, step) in plan.iter().enumerate() {
            if let Some(link) = step.path.first() {
                let parent = first(&link.parent).expect("its parent goes as well");
                assert!(at < parent, "{} {root:?}: {} after {}", revision.id, step.table, link.parent);
            }
            // No key is left that points to what has gone, whatever path it was found by.
            for table in &revision.tables {
                for key in table.postgres.foreign_keys.iter().filter(|k| k.table == step.table && k.columns.len() == 1)
                {
                    let is_root = Root::ALL.iter().any(|r| r.table() == table.name);
                    let Some(child) = last(&table.name).filter(|_| !is_root) else { continue };
                    let parent = first(&step.table).unwrap_or(usize::MAX);
                    assert!(child < parent, "{} {root:?}: {} {}", revision.id, table.name, key.name);
                }
            }
        }
        assert_eq!(plan.last().map(|s| s.table.as_str()), plan.first().map(|_| root.table()));
    }

    fn tables_of(root: Root) -> (Vec<String>, Vec<String>) {
        let catalogue = Catalogue::embedded().expect("the embedded catalogue");
        let newest = catalogue.newest(Line::Tracking).expect("a revision");
        let steps = belongings(root, &newest.tables).expect("no circle");
        let names = |clears: bool| {
            let mut names: Vec<String> =
                steps.iter().filter(|s| s.clears.is_some() == clears).map(|s| s.table.clone()).collect();
            names.dedup();
            names
        };
        (names(false), names(true))
    }

    #[test]
    fn what_a_run_has_at_the_newest_revision() {
        let (gone, cleared) = tables_of(Root::Run);
        for table in ["metrics", "latest_metrics", "params", "tags", "logged_model_metrics", "inputs", "input_tags"] {
            assert!(gone.iter().any(|t| t == table), "{table}: {gone:?}");
        }
        assert_eq!(gone.first().map(String::as_str), Some("input_tags"), "{gone:?}");
        assert_eq!(cleared, ["issues"]);
        assert!(!gone.iter().any(|t| t == "model_versions" || t == "logged_models"), "{gone:?}");
    }

    #[test]
    fn what_an_experiment_has_at_the_newest_revision() {
        let (gone, cleared) = tables_of(Root::Experiment);
        for table in ["experiment_tags", "datasets", "issues", "scorers", "review_queue_items", "inputs"] {
            assert!(gone.iter().any(|t| t == table), "{table}: {gone:?}");
        }
        let alike: Vec<&String> = gone.iter().filter(|t| t.starts_with("sql_")).collect();
        assert_eq!(alike.len(), 4, "the daily sums have no key: {gone:?}");
        assert!(!gone.iter().any(|t| t == "assessments"), "they go with their traces");
        assert_eq!(cleared, ["endpoints"]);
    }

    #[test]
    fn permissions_go_where_basic_auth_shares_the_database() {
        let catalogue = Catalogue::embedded().expect("the embedded catalogue");
        let mut tables = catalogue.newest(Line::Tracking).expect("a revision").tables.clone();
        tables.extend(catalogue.newest(Line::Auth).expect("a revision").tables.iter().cloned());
        let steps = belongings(Root::Experiment, &tables).expect("no circle");
        for table in ["experiment_permissions", "scorer_permissions", "role_permissions"] {
            assert!(steps.iter().any(|s| s.table == table), "{table}");
        }
    }
}
