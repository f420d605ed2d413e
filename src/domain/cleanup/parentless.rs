//! Rows that a purge would have taken along, and whose run, logged model, trace or experiment is gone: what `mlflow gc`
//! leaves behind, and scripts that delete with foreign keys switched off.

use std::sync::Arc;

use super::belongings::{Link, Root, belongings};
use crate::domain::catalogue::TableDef;
use crate::domain::failure::Outcome;

/// A table, and how its rows refer to those that they belong to. A row without one of them is parentless.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Details {
    /// The table.
    pub table: String,
    /// The references; each of them counts by itself.
    pub links: Vec<Link>,
}

/// A column, what another one says, and the table and key that it refers to then.
type Kind = (&'static str, (&'static str, &'static str), (&'static str, &'static str));

/// What the kinds of a link's ends stand for. Of one that is not listed nobody knows whether its end is there.
/// (MLflow: store/tracking/sqlalchemy_store.py, `log_inputs`, `log_outputs`; entities/entity_type.py.)
const INPUTS: [Kind; 6] = [
    ("source_id", ("source_type", "DATASET"), ("datasets", "dataset_uuid")),
    ("source_id", ("source_type", "RUN_INPUT"), ("runs", "run_uuid")),
    ("source_id", ("source_type", "RUN_OUTPUT"), ("runs", "run_uuid")),
    ("destination_id", ("destination_type", "RUN"), ("runs", "run_uuid")),
    ("destination_id", ("destination_type", "MODEL_INPUT"), ("logged_models", "model_id")),
    ("destination_id", ("destination_type", "MODEL_OUTPUT"), ("logged_models", "model_id")),
];
const ASSOCIATIONS: [Kind; 8] = [
    ("source_id", ("source_type", "run"), ("runs", "run_uuid")),
    ("source_id", ("source_type", "trace"), ("trace_info", "request_id")),
    ("source_id", ("source_type", "experiment"), ("experiments", "experiment_id")),
    ("source_id", ("source_type", "evaluation_dataset"), ("evaluation_datasets", "dataset_id")),
    ("destination_id", ("destination_type", "run"), ("runs", "run_uuid")),
    ("destination_id", ("destination_type", "trace"), ("trace_info", "request_id")),
    ("destination_id", ("destination_type", "experiment"), ("experiments", "experiment_id")),
    ("destination_id", ("destination_type", "evaluation_dataset"), ("evaluation_datasets", "dataset_id")),
];

/// The tables whose rows may be parentless, children before parents.
///
/// # Errors
/// Internal: references go round in a circle, which a test rules out.
pub fn details(tables: &[Arc<TableDef>]) -> Outcome<Vec<Details>> {
    let mut found: Vec<Details> = Vec::new();
    for root in Root::ALL {
        for step in belongings(root, tables)?.into_iter().filter(|step| step.clears.is_none()) {
            let Some(link) = step.path.into_iter().next() else { continue };
            // A pattern of basic-auth's may stand for many experiments.
            let links = match step.table.as_str() {
                "role_permissions" => continue,
                "inputs" => links(&INPUTS, tables),
                "entity_associations" => links(&ASSOCIATIONS, tables),
                _ => vec![link],
            };
            let at = match found.iter().position(|d| d.table == step.table) {
                Some(at) => at,
                None => {
                    found.push(Details { table: step.table, links: Vec::new() });
                    found.len() - 1
                }
            };
            let Some(own) = found.get_mut(at) else { continue };
            for link in links {
                if !own.links.contains(&link) {
                    own.links.push(link);
                }
            }
        }
    }
    Ok(ordered(found))
}

fn links(kinds: &[Kind], tables: &[Arc<TableDef>]) -> Vec<Link> {
    let there = |parent: &str| tables.iter().any(|t| t.name == parent);
    let link = |(column, (by, says), (parent, key)): &Kind| Link {
        columns: vec![((*column).to_owned(), false)],
        parent: (*parent).to_owned(),
        references: vec![(*key).to_owned()],
        when: Some(((*by).to_owned(), (*says).to_owned())),
    };
    kinds.iter().filter(|(_, _, (parent, _))| there(parent)).map(link).collect()
}

/// Children before parents. Two lists in such an order, one after the other, need not be in one.
fn ordered(mut open: Vec<Details>) -> Vec<Details> {
    let mut sorted = Vec::new();
    while !open.is_empty() {
        let is_parent = |it: &Details| {
            open.iter().any(|other| other.table != it.table && other.links.iter().any(|l| l.parent == it.table))
        };
        // A circle is ruled out where the lists are made; whatever comes, this ends.
        let next = open.iter().position(|it| !is_parent(it)).unwrap_or(0);
        sorted.push(open.remove(next));
    }
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::catalogue::{Catalogue, Line};
    use crate::domain::mention::MENTIONS;

    #[test]
    fn at_every_revision_children_come_first_and_no_link_is_without_its_kind() {
        let catalogue = Catalogue::embedded().expect("the embedded catalogue");
        for revision in catalogue.history(Line::Tracking) {
            let all = details(&revision.tables).expect("no circle");
            for (at, it) in all.iter().enumerate() {
                assert!(!it.links.is_empty(), "{}: {}", revision.id, it.table);
                for link in &it.links {
                    if let Some(parent) = all.iter().position(|d| d.table == link.parent) {
                        assert!(at < parent, "{}: {} after {}", revision.id, it.table, link.parent);
                    }
                }
            }
            let mentioned = |table: &str, column: &str| {
                MENTIONS.iter().any(|m| m.table == table && m.column == column && m.follows)
            };
            for it in all.iter().filter(|d| ["inputs", "entity_associations"].contains(&d.table.as_str())) {
                for link in &it.links {
                    assert!(link.when.is_some() && mentioned(&it.table, &link.columns[0].0), "{link:?}");
                }
            }
            assert!(all.iter().any(|d| d.table == "metrics") || revision.table("metrics").is_none());
            for root in Root::ALL {
                assert!(!all.iter().any(|d| d.table == root.table()), "{}: {root:?} is no detail", revision.id);
            }
        }
    }
}
