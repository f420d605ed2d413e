//! Experiments, their tags and their datasets.

use super::chance::{Chance, hex, uuid};
use super::project::{DEFAULT, PROJECTS, Project, SANDBOX};
use super::row::{Rows, Value};
use super::stack::{BEGIN, DAY, END, HOUR, Stack};
use crate::domain::failure::Outcome;

/// One experiment.
pub(super) struct Experiment {
    pub(super) id: u32,
    pub(super) project: &'static Project,
    pub(super) created: i64,
    /// When it was deleted.
    pub(super) deleted: Option<i64>,
    /// How many experiments of this project there were before.
    round: usize,
}

/// What a dataset is used for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    Training,
    Evaluation,
}

impl Use {
    /// The value of the tag `mlflow.data.context`.
    pub(super) fn word(self) -> &'static str {
        match self {
            Use::Training => "training",
            Use::Evaluation => "eval",
        }
    }
}

/// A dataset of an experiment.
pub(super) struct Dataset {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) digest: String,
}

impl Experiment {
    /// Its name, or another name of its project, told apart from those of the project's earlier experiments.
    fn numbered(&self, name: &str) -> String {
        if self.round == 0 { name.to_owned() } else { format!("{name}-{}", self.round + 1) }
    }

    /// The name of its registered model; the first and the deleted experiment have none.
    pub(super) fn model(&self) -> Option<String> {
        (!self.project.model.is_empty()).then(|| self.numbered(self.project.model))
    }

    /// Its dataset for that use; the first and the deleted experiment have none.
    pub(super) fn dataset(&self, used: Use) -> Option<Dataset> {
        if self.project.model.is_empty() {
            return None;
        }
        let index = u64::from(self.id) * 2 + u64::from(used == Use::Evaluation);
        let name = self.numbered(&format!("{}-{}", self.project.team, used.word()));
        Some(Dataset { id: uuid("dataset", index), name, digest: hex("dataset digest", index, 8) })
    }
}

impl Stack {
    /// The experiment of that id.
    pub(super) fn experiment(&self, id: u32) -> Experiment {
        let last = self.experiments >= 3 && id + 1 == self.experiments;
        let place = (id as usize).saturating_sub(1);
        let project = match (id, last) {
            (0, _) => &DEFAULT,
            (_, true) => &SANDBOX,
            _ => PROJECTS.get(place % PROJECTS.len()).unwrap_or(&DEFAULT),
        };
        let round = if last { 0 } else { place / PROJECTS.len() };
        let created = BEGIN + DAY * i64::from(id) / i64::from(self.experiments);
        Experiment { id, project, created, deleted: last.then_some(END + 3 * HOUR), round }
    }

    fn every_experiment(&self) -> impl Iterator<Item = Experiment> + '_ {
        (0..self.experiments).map(|id| self.experiment(id))
    }

    pub(super) fn experiments(&self, rows: &mut Rows<'_>) -> Outcome<()> {
        for it in self.every_experiment() {
            rows.add(&[
                ("experiment_id", it.id.into()),
                ("name", it.numbered(it.project.name).into()),
                ("artifact_location", format!("mlflow-artifacts:/{}", it.id).into()),
                ("lifecycle_stage", if it.deleted.is_some() { "deleted" } else { "active" }.into()),
                ("creation_time", it.created.into()),
                ("last_update_time", it.deleted.unwrap_or(it.created).into()),
                ("workspace", "default".into()),
            ])?;
        }
        Ok(())
    }

    pub(super) fn experiment_tags(&self, rows: &mut Rows<'_>) -> Outcome<()> {
        for it in self.every_experiment().filter(|e| e.id > 0) {
            let kind = if it.project.traced { "genai_development" } else { "custom_model_development" };
            let tags =
                [("mlflow.note.content", it.project.about), ("team", it.project.team), ("mlflow.experimentKind", kind)];
            for (key, value) in tags {
                rows.add(&[("key", key.into()), ("value", value.into()), ("experiment_id", it.id.into())])?;
            }
        }
        Ok(())
    }

    pub(super) fn datasets(&self, rows: &mut Rows<'_>) -> Outcome<()> {
        for it in self.every_experiment() {
            for used in [Use::Training, Use::Evaluation] {
                let Some(dataset) = it.dataset(used) else { continue };
                let mut chance = Chance::of("dataset", u64::from(it.id));
                let (kind, source) = match chance.below(3) {
                    0 => ("s3", format!(r#"{{"uri": "s3://warehouse/{}/{}.parquet"}}"#, it.project.name, used.word())),
                    1 => ("http", format!(r#"{{"url": "https://data.example.com/{}.csv"}}"#, dataset.digest)),
                    _ => ("local", format!(r#"{{"uri": "/srv/data/{}/{}.csv"}}"#, it.project.name, used.word())),
                };
                let lines = 1000 + chance.below(900_000);
                rows.add(&[
                    ("dataset_uuid", dataset.id.into()),
                    ("experiment_id", it.id.into()),
                    ("name", dataset.name.into()),
                    ("digest", dataset.digest.into()),
                    ("dataset_source_type", kind.into()),
                    ("dataset_source", source.into()),
                    ("dataset_schema", SCHEMA.into()),
                    (
                        "dataset_profile",
                        match used {
                            Use::Training => {
                                format!(r#"{{"num_rows": {lines}, "num_elements": {}}}"#, lines * 3).into()
                            }
                            Use::Evaluation => Value::Null,
                        },
                    ),
                ])?;
            }
        }
        Ok(())
    }
}

const SCHEMA: &str = r#"{"mlflow_colspec": [{"type": "long", "name": "id", "required": true}, {"type": "double", "name": "größe", "required": false}, {"type": "string", "name": "label", "required": true}]}"#;
