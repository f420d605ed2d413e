//! What a training program writes: runs, metrics, params, tags, logged models. Nothing here is sent twice unless the second
//! time changes nothing.

use reqwest::Method;
use serde_json::{Value, json};

use super::fault::{Reply, known};
use super::send::Ask;
use super::{Client, wire};
use crate::domain::tracking::{LoggedModel, MetricPoint, Pairs, Run};

/// What one call logs together. MLflow commits params, metrics and tags one after the other (store/tracking/
/// sqlalchemy_store.py, `log_batch`), so that one which failed may be there in part.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// Metrics, each with its point; at most 1,000.
    pub metrics: Vec<(String, MetricPoint)>,
    /// Params; at most 100.
    pub params: Pairs,
    /// Tags; at most 100.
    pub tags: Pairs,
}

fn pairs(pairs: &Pairs) -> Value {
    pairs.iter().map(|(key, value)| json!({ "key": key, "value": value })).collect()
}

impl Client {
    /// Begins a run; `start` in milliseconds since 1970. Never sent twice: that would be another run.
    ///
    /// # Errors
    /// Any fault; after one without an answer nobody knows whether it was done.
    pub async fn create_run(&self, experiment: &str, name: &str, start: i64, tags: &Pairs) -> Reply<Run> {
        let body = json!({
            "experiment_id": experiment, "run_name": name, "start_time": start, "tags": pairs(tags),
        });
        Ok(self.ask::<wire::GotRun>(&Ask::change("runs/create", body)).await?.value.run.into())
    }

    /// Ends a run.
    ///
    /// # Errors
    /// Any fault.
    pub async fn end_run(&self, run: &str, status: &str, end: i64) -> Reply<()> {
        let body = json!({ "run_id": run, "status": status, "end_time": end });
        // The same end twice is the same end.
        let ask = Ask { repeatable: true, ..Ask::change("runs/update", body) };
        self.ask::<wire::Nothing>(&ask).await.map(drop)
    }

    /// Logs a point of a metric. Never sent twice, though the store has the same point once only.
    ///
    /// # Errors
    /// As [`Client::create_run`].
    pub async fn log_metric(&self, run: &str, key: &str, point: &MetricPoint) -> Reply<()> {
        let body = json!({
            "run_id": run, "key": key, "value": point.value, "timestamp": point.timestamp, "step": point.step,
        });
        self.ask::<wire::Nothing>(&Ask::change("runs/log-metric", body)).await.map(drop)
    }

    /// Logs many things in one call. Never sent twice.
    ///
    /// # Errors
    /// As [`Client::create_run`].
    pub async fn log_batch(&self, run: &str, batch: &Batch) -> Reply<()> {
        let metric = |(key, point): &(String, MetricPoint)| json!({ "key": key, "value": point.value, "timestamp": point.timestamp, "step": point.step });
        let body = json!({
            "run_id": run, "metrics": batch.metrics.iter().map(metric).collect::<Vec<_>>(),
            "params": pairs(&batch.params), "tags": pairs(&batch.tags),
        });
        self.ask::<wire::Nothing>(&Ask::change("runs/log-batch", body)).await.map(drop)
    }

    /// Logs a param. Never sent twice, though the same value a second time changes nothing.
    ///
    /// # Errors
    /// As [`Client::create_run`]; MLflow refuses another value.
    pub async fn log_param(&self, run: &str, key: &str, value: &str) -> Reply<()> {
        let body = json!({ "run_id": run, "key": key, "value": value });
        self.ask::<wire::Nothing>(&Ask::change("runs/log-parameter", body)).await.map(drop)
    }

    /// Sets a tag of a run.
    ///
    /// # Errors
    /// Any fault.
    pub async fn set_run_tag(&self, run: &str, key: &str, value: &str) -> Reply<()> {
        // The same tag twice is the same tag.
        let body = json!({ "run_id": run, "key": key, "value": value });
        let ask = Ask { repeatable: true, ..Ask::change("runs/set-tag", body) };
        self.ask::<wire::Nothing>(&ask).await.map(drop)
    }

    /// Begins a logged model of a run; `None`: the release has none. Never sent twice.
    ///
    /// # Errors
    /// As [`Client::create_run`].
    pub async fn create_logged_model(
        &self,
        experiment: &str,
        name: &str,
        run: &str,
        tags: &Pairs,
    ) -> Reply<Option<LoggedModel>> {
        let body = json!({
            "experiment_id": experiment, "name": name, "source_run_id": run, "model_type": "", "tags": pairs(tags),
        });
        let got = known(self.ask::<wire::GotLoggedModel>(&Ask::change("logged-models", body)).await)?;
        Ok(got.map(|a| a.value.model.into()))
    }

    /// Says that the files of a logged model are all there.
    ///
    /// # Errors
    /// Any fault.
    pub async fn finish_logged_model(&self, id: &str) -> Reply<LoggedModel> {
        let body = json!({ "model_id": id, "status": "LOGGED_MODEL_READY" });
        let ask = Ask::change(&format!("logged-models/{}", super::artifact::quoted(id)), body);
        // The same word twice is the same word.
        let ask = Ask { method: Method::PATCH, repeatable: true, ..ask };
        Ok(self.ask::<wire::GotLoggedModel>(&ask).await?.value.model.into())
    }

    /// Says that a run made a logged model, as MLflow's client does. Never sent twice.
    ///
    /// # Errors
    /// As [`Client::create_run`].
    pub async fn log_output(&self, run: &str, model: &str) -> Reply<()> {
        let body = json!({ "run_id": run, "models": [{ "model_id": model, "step": 0 }] });
        self.ask::<wire::Nothing>(&Ask::change("runs/outputs", body)).await.map(drop)
    }

    /// Deletes a logged model; its row stays and is no longer told.
    ///
    /// # Errors
    /// Any fault.
    pub async fn delete_logged_model(&self, id: &str) -> Reply<()> {
        let ask = Ask::change(&format!("logged-models/{}", super::artifact::quoted(id)), json!({ "model_id": id }));
        let ask = Ask { method: Method::DELETE, ..ask };
        self.ask::<wire::Nothing>(&ask).await.map(drop)
    }
}
