//! The first half: an experiment, a run, and the model's files in the artifact store.

use super::model::Model;
use super::{Logged, Trial, Uploaded, must, right};
use crate::domain::count::counted;
use crate::domain::failure::{Failure, Outcome};
use crate::domain::tracking::{MetricPoint, Run, value};
use crate::mlflow::Batch;
use crate::registry::files::{Way, listed};
use crate::verify::place::Place;
use crate::verify::steps::{Seen, Steps};
use crate::verify::{MARKER, name};

/// Where a run's model is by MLflow's own convention.
const MODEL: &str = "model";
/// What the run logs.
const METRIC: (&str, f64) = ("mlops_verify_metric", 0.25);
const PARAM: (&str, &str) = ("mlops_verify_param", "a b|c");

fn now() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

impl Trial<'_> {
    pub(super) fn log(&mut self, steps: &mut Steps) -> Outcome<Logged> {
        let mut logged = Logged::default();
        let own = name(self.markers.id());
        let experiment = steps.step("experiment", &[], || {
            self.markers.will_make_experiment(&own)?;
            let id = self.call(self.client.create_tagged_experiment(&own, &self.tags))?;
            self.markers.made_experiment(&own, &id)?;
            let by_name = self.call(self.client.experiment_by_name(&own))?;
            let by_id = self.call(self.client.experiment(&id))?;
            must(by_name == by_id && by_id.as_ref().is_some_and(|e| e.id == id && !e.deleted), || {
                format!("the experiment {id} was made, and is told otherwise by its name than by its id")
            })?;
            let marked = by_id.is_some_and(|e| value(&e.tags, MARKER) == Some(self.markers.id()));
            must(marked, || format!("the experiment {id} was made with a tag and has it not"))?;
            right(id.clone(), format!("{own} is experiment {id}"))
        })?;
        let stands = [("experiment", experiment.is_some())];
        logged.experiment = experiment.unwrap_or_default();
        let run = steps.step("run", &stands, || self.run(&logged.experiment, &own))?;
        let stands = [("run", run.is_some())];
        let made = jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M:%S.%6f").to_string();
        let model = Model {
            id: self.markers.id().to_owned(),
            mlflow: self.release.clone(),
            run: run.as_ref().map(|run| run.id.clone()).unwrap_or_default(),
            logged: None,
            made,
        };
        let artifacts = run.as_ref().map(|run| run.artifact_uri.clone()).unwrap_or_default();
        logged.run.clone_from(&model.run);
        logged.old = steps.step("upload", &stands, || {
            let address = format!("{}/{MODEL}", artifacts.trim_end_matches('/'));
            self.upload(&address, &model)
        })?;
        if let Some(old) = &logged.old {
            let way = Way::Run { id: logged.run.clone(), path: MODEL.to_owned() };
            steps.step("list", &[], || self.list(&way, old))?;
        }
        logged.new = steps.step("logged model", &stands, || self.log_model(&logged.experiment, &model))?;
        steps.step("end run", &stands, || {
            self.call(self.client.end_run(&logged.run, "FINISHED", now()))?;
            let run = self.call(self.client.run(&logged.run))?;
            let status = run.map(|run| run.status).unwrap_or_default();
            must(status == "FINISHED", || format!("the run was ended and is told as `{status}`"))?;
            right((), "FINISHED")
        })?;
        Ok(logged)
    }

    fn run(&self, experiment: &str, own: &str) -> Outcome<Seen<Run>> {
        let made = self.call(self.client.create_run(experiment, own, now(), &self.tags))?;
        let point = MetricPoint { value: METRIC.1, timestamp: now(), step: 1 };
        self.call(self.client.log_metric(&made.id, METRIC.0, &point))?;
        let param = (PARAM.0.to_owned(), PARAM.1.to_owned());
        let batch = Batch { params: vec![param], ..Batch::default() };
        self.call(self.client.log_batch(&made.id, &batch))?;
        let absent = || Failure::differs(format!("the run {} was made and is not there", made.id));
        let run = self.call(self.client.run(&made.id))?.ok_or_else(absent)?;
        let logged = run.metrics.iter().find(|(key, _)| key == METRIC.0).map(|(_, point)| *point);
        must(logged == Some(point), || format!("the metric was logged as {point:?} and is told as {logged:?}"))?;
        let param = value(&run.params, PARAM.0);
        must(param == Some(PARAM.1), || format!("the param was logged as `{}` and is told as {param:?}", PARAM.1))?;
        let marked = value(&run.tags, MARKER) == Some(self.markers.id());
        must(marked, || "the run was made with a tag and has it not".to_owned())?;
        let evidence = format!("{} with a metric, a param and a tag, told as they were logged", run.id);
        right(run, evidence)
    }

    fn upload(&mut self, address: &str, model: &Model) -> Outcome<Seen<Uploaded>> {
        let files = model.files();
        let paths: Vec<&str> = files.iter().map(|f| f.path.as_str()).collect();
        let place = Place::at(self.ways, self.client, address)?;
        self.markers.will_write(address, &paths)?;
        for file in &files {
            place.put(&file.path, &file.content)?;
        }
        place.settle()?;
        let bytes: usize = files.iter().map(|f| f.content.len()).sum();
        let evidence = format!("{}, {bytes} bytes, {} to {address}", counted(files.len(), "file"), place.way());
        right(Uploaded { address: address.to_owned(), files }, evidence)
    }

    /// That the server itself sees what was uploaded.
    fn list(&self, way: &Way, uploaded: &Uploaded) -> Outcome<Seen<()>> {
        let found = self.call(listed(self.client, way))?.unwrap_or_default();
        for file in &uploaded.files {
            let told = found.files.iter().find(|(path, _)| *path == file.path).map(|(_, bytes)| *bytes);
            must(told == Some(file.content.len() as u64), || match told {
                None => format!("{} was uploaded and the server does not list it: does it see that place?", file.path),
                Some(bytes) => {
                    format!("{} was uploaded with {} bytes and is listed with {bytes}", file.path, file.content.len())
                }
            })?;
        }
        right((), format!("the server lists {} files with their sizes", found.count))
    }

    fn log_model(&mut self, experiment: &str, model: &Model) -> Outcome<Seen<(String, Uploaded)>> {
        if !self.is_new() {
            return Ok(Seen::Skip(format!("MLflow {} has no logged models", self.release)));
        }
        let made = self.call(self.client.create_logged_model(experiment, MODEL, &model.run, &self.tags))?;
        let made = made.ok_or_else(|| Failure::target("the server has no route for logged models"))?;
        must(made.id.starts_with("m-"), || format!("the logged model's id is {}, and begins with no m-", made.id))?;
        let model = Model { logged: Some(made.id.clone()), ..model.clone() };
        let Seen::Right(uploaded, how) = self.upload(&made.artifact_uri, &model)? else {
            return Err(Failure::internal("an upload that was skipped"));
        };
        self.call(self.client.finish_logged_model(&made.id))?;
        self.call(self.client.log_output(&model.run, &made.id))?;
        let told = self.call(self.client.logged_model(&made.id))?;
        let status = told.map(|model| model.status).unwrap_or_default();
        must(status == "LOGGED_MODEL_READY", || format!("{} was finished and is told as `{status}`", made.id))?;
        self.list(&Way::Logged(made.id.clone()), &uploaded)?;
        right((made.id.clone(), uploaded), format!("{}: {how}", made.id))
    }
}
