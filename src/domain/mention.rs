//! References between rows of MLflow's that no foreign key stands for.

use std::sync::Arc;

use crate::domain::catalogue::TableDef;

/// A reference that no foreign key stands for.
pub struct Mention {
    /// The table of the row that refers.
    pub table: &'static str,
    /// Its column.
    pub column: &'static str,
    /// The table referred to.
    pub parent: &'static str,
    /// The column of that table.
    pub key: &'static str,
    /// Another column of the row, and what it says where the row refers to such a parent.
    pub when: Option<(&'static str, &'static str)>,
    /// Whether the row means nothing without its parent; else it stays, and is told.
    pub follows: bool,
}

const fn link(table: &'static str, column: &'static str, parent: &'static str, key: &'static str) -> Mention {
    Mention { table, column, parent, key, when: None, follows: true }
}

const fn told(table: &'static str, column: &'static str, parent: &'static str, key: &'static str) -> Mention {
    Mention { table, column, parent, key, when: None, follows: false }
}

/// Ids of runs, datasets, models and traces are unique among all of them, so a link's kind need not be asked for.
/// (MLflow: store/tracking/dbmodels/models.py, SqlInput and SqlEntityAssociation.)
pub const MENTIONS: &[Mention] = &[
    link("inputs", "source_id", "datasets", "dataset_uuid"),
    link("inputs", "source_id", "runs", "run_uuid"),
    link("inputs", "source_id", "logged_models", "model_id"),
    link("inputs", "destination_id", "runs", "run_uuid"),
    link("inputs", "destination_id", "logged_models", "model_id"),
    link("input_tags", "input_uuid", "inputs", "input_uuid"),
    link("entity_associations", "source_id", "evaluation_datasets", "dataset_id"),
    link("entity_associations", "source_id", "runs", "run_uuid"),
    link("entity_associations", "source_id", "trace_info", "request_id"),
    link("entity_associations", "destination_id", "runs", "run_uuid"),
    link("entity_associations", "destination_id", "trace_info", "request_id"),
    Mention {
        table: "entity_associations",
        column: "destination_id",
        parent: "experiments",
        key: "experiment_id",
        when: Some(("destination_type", "experiment")),
        follows: true,
    },
    Mention {
        table: "endpoint_bindings",
        column: "resource_id",
        parent: "scorers",
        key: "scorer_id",
        when: Some(("resource_type", "scorer")),
        follows: true,
    },
    told("model_versions", "run_id", "runs", "run_uuid"),
    told("logged_models", "source_run_id", "runs", "run_uuid"),
    told("logged_model_metrics", "run_id", "runs", "run_uuid"),
    told("assessments", "experiment_id", "experiments", "experiment_id"),
];

impl Mention {
    /// Whether the store's revision has both ends.
    pub fn is_in(&self, tables: &[Arc<TableDef>]) -> bool {
        let has = |table: &str, column: &str| {
            tables.iter().any(|t| t.name == table && t.columns.iter().any(|c| c.name == column))
        };
        has(self.table, self.column)
            && has(self.parent, self.key)
            && self.when.is_none_or(|(column, _)| has(self.table, column))
    }
}
