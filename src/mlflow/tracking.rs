//! Experiments, runs, histories of metrics, logged models.

use serde_json::json;

use super::fault::{Reply, known, present};
use super::send::Ask;
use super::{Client, Pages, wire};
use crate::domain::tracking::{Experiment, LoggedModel, MetricPoint, Pairs, Run, View};

/// Which runs are asked for.
#[derive(Debug, Clone)]
pub struct Runs<'a> {
    /// Ids of their experiments.
    pub experiments: &'a [String],
    /// MLflow's filter; empty: none.
    pub filter: &'a str,
    /// Deleted or not.
    pub view: View,
    /// `attributes.start_time DESC` and the like; empty: the newest first.
    pub order_by: &'a [&'a str],
    /// Runs in a page, at most 50,000.
    pub page: u32,
}

/// Runs that are asked for by their ids in one call.
pub const RUNS_AT_ONCE: usize = 100;

/// Whether a run's id can be asked for among others. MLflow passes over ids that Python's `islower` refuses, those of
/// digits alone too (utils/search_utils.py, `_parse_run_ids`); of its own ids one in three million is like that.
fn is_plain(run: &str) -> bool {
    run.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_')
        && run.chars().any(|c| c.is_ascii_lowercase())
}

fn word(view: View) -> &'static str {
    match view {
        View::Active => "ACTIVE_ONLY",
        View::Deleted => "DELETED_ONLY",
        View::All => "ALL",
    }
}

impl Client {
    /// Experiments that a filter lets through (empty: all), so many in a page (at most 50,000).
    pub fn experiments(&self, filter: &str, view: View, page: u32) -> Pages<Experiment> {
        let body = json!({ "filter": filter, "view_type": word(view), "max_results": page });
        let open = |w: wire::Experiments| (wire::all(w.experiments), w.next_page_token);
        Pages::new(self, Ask::search("experiments/search", body), open, |e: &Experiment| e.id.clone())
    }

    /// The experiment of that name, deleted ones included; `None`: there is none.
    ///
    /// # Errors
    /// Any fault.
    pub async fn experiment_by_name(&self, name: &str) -> Reply<Option<Experiment>> {
        let ask = Ask::get("experiments/get-by-name", vec![("experiment_name", name.to_owned())]);
        let got = present(self.ask::<wire::GotExperiment>(&ask).await)?;
        Ok(got.map(|a| a.value.experiment.into()))
    }

    /// The experiment of that id; `None`: there is none.
    ///
    /// # Errors
    /// Any fault.
    pub async fn experiment(&self, id: &str) -> Reply<Option<Experiment>> {
        let ask = Ask::get("experiments/get", vec![("experiment_id", id.to_owned())]);
        let got = present(self.ask::<wire::GotExperiment>(&ask).await)?;
        Ok(got.map(|a| a.value.experiment.into()))
    }

    /// Makes an experiment; its id. Never sent twice.
    ///
    /// # Errors
    /// Any fault; `RESOURCE_ALREADY_EXISTS` where the name is taken, by a deleted one too.
    pub async fn create_experiment(&self, name: &str) -> Reply<String> {
        self.create_tagged_experiment(name, &Pairs::new()).await
    }

    /// The same with tags.
    ///
    /// # Errors
    /// As [`Client::create_experiment`].
    pub async fn create_tagged_experiment(&self, name: &str, tags: &Pairs) -> Reply<String> {
        let tags: Vec<_> = tags.iter().map(|(key, value)| json!({ "key": key, "value": value })).collect();
        let ask = Ask::change("experiments/create", json!({ "name": name, "tags": tags }));
        Ok(self.ask::<wire::MadeExperiment>(&ask).await?.value.experiment_id)
    }

    /// Brings a deleted experiment back, and its runs.
    ///
    /// # Errors
    /// Any fault.
    pub async fn restore_experiment(&self, id: &str) -> Reply<()> {
        let ask = Ask::change("experiments/restore", json!({ "experiment_id": id }));
        self.ask::<wire::Nothing>(&ask).await.map(drop)
    }

    /// Soft-deletes an experiment and all its runs. Never sent twice.
    ///
    /// # Errors
    /// Any fault; after one without an answer nobody knows whether it was done.
    pub async fn delete_experiment(&self, id: &str) -> Reply<()> {
        let ask = Ask::change("experiments/delete", json!({ "experiment_id": id }));
        self.ask::<wire::Nothing>(&ask).await.map(drop)
    }

    /// Soft-deletes a run. Never sent twice: the second time would be another time of deletion.
    ///
    /// # Errors
    /// As [`Client::delete_experiment`].
    pub async fn delete_run(&self, id: &str) -> Reply<()> {
        self.ask::<wire::Nothing>(&Ask::change("runs/delete", json!({ "run_id": id }))).await.map(drop)
    }

    /// Brings a deleted run back.
    ///
    /// # Errors
    /// Any fault.
    pub async fn restore_run(&self, id: &str) -> Reply<()> {
        // What is active stays active.
        let ask = Ask { repeatable: true, ..Ask::change("runs/restore", json!({ "run_id": id })) };
        self.ask::<wire::Nothing>(&ask).await.map(drop)
    }

    /// When the newest trace of an experiment began; `None`: it has none, or the release has no traces.
    ///
    /// # Errors
    /// Any fault.
    pub async fn newest_trace(&self, experiment: &str) -> Reply<Option<i64>> {
        let place = json!({ "type": "MLFLOW_EXPERIMENT", "mlflow_experiment": { "experiment_id": experiment } });
        let body = json!({ "locations": [place], "max_results": 1, "order_by": ["timestamp_ms DESC"] });
        let ask = Ask { path: "/api/3.0/mlflow/traces/search".to_owned(), ..Ask::search("", body) };
        if let Some(answer) = known(self.ask::<wire::Traces>(&ask).await)? {
            return Ok(answer.value.traces.first().and_then(wire::Trace::begun));
        }
        // Releases from 2.14 up to the third.
        let query = vec![
            ("experiment_ids", experiment.to_owned()),
            ("max_results", "1".to_owned()),
            ("order_by", "timestamp_ms DESC".to_owned()),
        ];
        let answer = known(self.ask::<wire::Traces>(&Ask::get("traces", query)).await)?;
        Ok(answer.and_then(|a| a.value.traces.first().and_then(wire::Trace::begun)))
    }

    /// Sets a tag of an experiment.
    ///
    /// # Errors
    /// Any fault.
    pub async fn set_experiment_tag(&self, id: &str, key: &str, value: &str) -> Reply<()> {
        let body = json!({ "experiment_id": id, "key": key, "value": value });
        // The same tag twice is the same tag.
        let ask = Ask { repeatable: true, ..Ask::change("experiments/set-experiment-tag", body) };
        self.ask::<wire::Nothing>(&ask).await.map(drop)
    }

    /// Runs of some experiments.
    pub fn runs(&self, runs: &Runs<'_>) -> Pages<Run> {
        let body = json!({
            "experiment_ids": runs.experiments, "filter": runs.filter, "run_view_type": word(runs.view),
            "order_by": runs.order_by, "max_results": runs.page,
        });
        let open = |w: wire::Runs| (wire::all(w.runs), w.next_page_token);
        Pages::new(self, Ask::search("runs/search", body), open, |r: &Run| r.id.clone())
    }

    /// Those of these runs that there are, [`RUNS_AT_ONCE`] at most, in one call. `experiments`: where they are looked for.
    ///
    /// # Errors
    /// Any fault.
    pub async fn runs_by_id(&self, experiments: &[String], ids: &[String], view: View) -> Reply<Vec<Run>> {
        let (plain, others): (Vec<&String>, Vec<&String>) = ids.iter().partition(|id| is_plain(id));
        let mut found = Vec::new();
        if !plain.is_empty() {
            let list: Vec<String> = plain.iter().map(|id| format!("'{id}'")).collect();
            let filter = format!("attributes.run_id IN ({})", list.join(","));
            // A page that is exactly full costs one call more.
            let page = 10 * RUNS_AT_ONCE as u32;
            let mut pages = self.runs(&Runs { experiments, filter: &filter, view, order_by: &[], page });
            while let Some(page) = pages.next().await? {
                found.extend(page);
            }
        }
        for id in others {
            let meant = |run: &Run| view == View::All || run.deleted == (view == View::Deleted);
            found.extend(self.run(id).await?.filter(meant));
        }
        Ok(found)
    }

    /// The run of that id; `None`: there is none.
    ///
    /// # Errors
    /// Any fault.
    pub async fn run(&self, id: &str) -> Reply<Option<Run>> {
        let ask = Ask::get("runs/get", vec![("run_id", id.to_owned())]);
        let got = present(self.ask::<wire::GotRun>(&ask).await)?;
        Ok(got.map(|a| a.value.run.into()))
    }

    /// Every point of a metric, so many in a page (at most 25,000). Releases before 3 give all in one page and in no
    /// order; the later ones by time, step and value.
    pub fn metric_history(&self, run: &str, key: &str, page: u32) -> Pages<MetricPoint> {
        let query = vec![("run_id", run.to_owned()), ("metric_key", key.to_owned()), ("max_results", page.to_string())];
        let open = |w: wire::Metrics| (wire::all(w.metrics), w.next_page_token);
        Pages::sifted(self, Ask::get("metrics/get-history", query), open, in_order())
    }

    /// The logged model of that id; `None`: there is none, or the release has none.
    ///
    /// # Errors
    /// Any fault.
    pub async fn logged_model(&self, id: &str) -> Reply<Option<LoggedModel>> {
        let ask = Ask::get(&format!("logged-models/{}", super::artifact::quoted(id)), Vec::new());
        let got = known(self.ask::<wire::GotLoggedModel>(&ask).await)?;
        Ok(got.map(|a| a.value.model.into()))
    }

    /// Logged models of some experiments; `None`: the release has none.
    ///
    /// # Errors
    /// Any fault of the first page.
    pub async fn logged_models(
        &self,
        experiments: &[String],
        filter: &str,
        page: u32,
    ) -> Reply<Option<Pages<LoggedModel>>> {
        let body = json!({ "experiment_ids": experiments, "filter": filter, "max_results": page });
        let open = |w: wire::LoggedModels| (wire::all(w.models), w.next_page_token);
        let pages = Pages::new(self, Ask::search("logged-models/search", body), open, |m: &LoggedModel| m.id.clone());
        known(pages.started().await)
    }
}

/// MLflow sorts by time, step and stored value: what does not come after the page before was told already. Nothing is
/// remembered but the edge, so that a history of any length takes no memory.
fn in_order() -> impl FnMut(&mut Vec<MetricPoint>) + Send {
    let mut edge: Vec<MetricPoint> = Vec::new();
    move |page| {
        if let Some(last) = edge.first().map(place) {
            page.retain(|p| match compare(&place(p), &last) {
                std::cmp::Ordering::Less => false,
                std::cmp::Ordering::Equal => edge.iter().all(|e| e.value.to_bits() != p.value.to_bits()),
                std::cmp::Ordering::Greater => true,
            });
        }
        let Some(last) = page.iter().map(place).max_by(compare) else { return };
        if edge.first().is_some_and(|e| compare(&place(e), &last).is_ne()) {
            edge.clear();
        }
        edge.extend(page.iter().filter(|p| compare(&place(p), &last).is_eq()));
    }
}

type Place = (i64, i64, f64);

/// Where a point stands in MLflow's order: NaN is stored as 0.0, infinities as the largest finite numbers.
fn place(p: &MetricPoint) -> Place {
    let value = if p.value.is_nan() { 0.0 } else { p.value.clamp(f64::MIN, f64::MAX) };
    (p.timestamp, p.step, value)
}

fn compare(a: &Place, b: &Place) -> std::cmp::Ordering {
    (a.0, a.1).cmp(&(b.0, b.1)).then(a.2.partial_cmp(&b.2).unwrap_or(std::cmp::Ordering::Equal))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_that_shifts_between_its_pages_is_told_once() {
        let point = |timestamp, value| MetricPoint { value, timestamp, step: 0 };
        let mut sift = in_order();
        let mut pages = [
            vec![point(1, 1.0), point(2, 0.0), point(2, f64::NAN)],
            // Two points that are older came in between, so the last two come again.
            vec![point(2, 0.0), point(2, f64::NAN), point(3, f64::INFINITY), point(3, f64::MAX)],
            vec![point(3, f64::MAX), point(4, -1.0)],
        ];
        let mut told = Vec::new();
        for page in &mut pages {
            sift(page);
            told.extend(page.iter().map(|p| (p.timestamp, p.value.to_bits())));
        }
        let wanted: Vec<_> = [(1, 1.0), (2, 0.0), (2, f64::NAN), (3, f64::INFINITY), (3, f64::MAX), (4, -1.0)]
            .map(|(t, v): (i64, f64)| (t, v.to_bits()))
            .into();
        assert_eq!(told, wanted);
    }

    #[test]
    fn a_page_without_order_stays_whole() {
        let mut page = [5, 1, 3].map(|timestamp| MetricPoint { value: 1.0, timestamp, step: 0 }).to_vec();
        in_order()(&mut page);
        assert_eq!(page.len(), 3);
    }
}
