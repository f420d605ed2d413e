//! Logged models: what runs of MLflow 3 make, with their params, tags and metrics.

use super::chance::Chance;
use super::experiment::Use;
use super::row::Rows;
use super::run::Run;
use super::stack::{SECOND, Stack};
use crate::domain::failure::Outcome;

impl Stack {
    /// Every logged model with its run.
    fn each_model(&self, each: &mut dyn FnMut(&Run, &str) -> Outcome<()>) -> Outcome<()> {
        for run in (0..self.runs).map(|index| self.run(index)) {
            if let Some(model) = run.model() {
                each(&run, &model)?;
            }
        }
        Ok(())
    }

    pub(super) fn logged_models(&self, rows: &mut Rows<'_>) -> Outcome<()> {
        self.each_model(&mut |run, model| {
            let created = run.end.unwrap_or(run.start) - 20 * SECOND;
            // MLflow's numbers: 1 pending, 2 ready, 3 failed.
            let (status, message) = match run.index % 60 {
                32 => (1i64, None),
                52 => (3, Some("the upload of model.pkl ended early: [Errno 28] No space left on device")),
                _ => (2, None),
            };
            rows.add(&[
                ("model_id", model.into()),
                ("experiment_id", run.experiment.id.into()),
                ("name", if run.index % 8 == 0 { "model" } else { "classifier" }.into()),
                ("artifact_location", model_artifacts(run, model).into()),
                ("creation_timestamp_ms", created.into()),
                ("last_updated_timestamp_ms", (created + 12 * SECOND).into()),
                ("status", status.into()),
                ("lifecycle_stage", if run.index % 40 == 24 { "deleted" } else { "active" }.into()),
                ("model_type", run.experiment.project.flavor.into()),
                ("source_run_id", (&run.id).into()),
                ("status_message", message.into()),
            ])
        })
    }

    pub(super) fn logged_model_params(&self, rows: &mut Rows<'_>) -> Outcome<()> {
        self.each_model(&mut |run, model| {
            // As the run's own params: the same chance.
            let mut chance = Chance::of("params", run.index.into());
            for (key, values) in run.experiment.project.params {
                rows.add(&[
                    ("model_id", model.into()),
                    ("experiment_id", run.experiment.id.into()),
                    ("param_key", (*key).into()),
                    ("param_value", chance.word(values).into()),
                ])?;
            }
            Ok(())
        })
    }

    pub(super) fn logged_model_tags(&self, rows: &mut Rows<'_>) -> Outcome<()> {
        self.each_model(&mut |run, model| {
            let tags = [
                ("mlflow.user", run.user),
                ("mlflow.source.name", run.experiment.project.script),
                ("mlflow.source.type", "LOCAL"),
                ("reviewed", if run.index % 8 == 0 { "yes" } else { "not yet – 後で" }),
            ];
            for (key, value) in tags {
                rows.add(&[
                    ("model_id", model.into()),
                    ("experiment_id", run.experiment.id.into()),
                    ("tag_key", key.into()),
                    ("tag_value", value.into()),
                ])?;
            }
            Ok(())
        })
    }

    /// The latest of each metric that was measured on held-out data: such metrics are logged with the model's id, and
    /// MLflow then writes them for the run and for the model.
    pub(super) fn logged_model_metrics(&self, rows: &mut Rows<'_>) -> Outcome<()> {
        self.each_series(&mut |run, series| {
            let Some(model) = run.model().filter(|_| series.key.starts_with("val_")) else { return Ok(()) };
            let Some(point) = series.latest() else { return Ok(()) };
            let (name, digest) = run.experiment.dataset(Use::Evaluation).map(|d| (d.name, d.digest)).unzip();
            rows.add(&[
                ("model_id", model.into()),
                ("metric_name", series.key.into()),
                ("metric_timestamp_ms", point.time.into()),
                ("metric_step", point.step.into()),
                ("metric_value", point.value.into()),
                ("experiment_id", run.experiment.id.into()),
                ("run_id", (&run.id).into()),
                ("dataset_name", name.into()),
                ("dataset_digest", digest.into()),
            ])
        })
    }
}

/// Where a logged model's artifacts are.
pub(super) fn model_artifacts(run: &Run, model: &str) -> String {
    format!("mlflow-artifacts:/{}/models/{model}/artifacts", run.experiment.id)
}
