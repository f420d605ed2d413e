//! What a check of persistence writes before a restart and reads back by value after it: experiments with runs, metrics,
//! params, tags and a file each, and a registered version.

use crate::backup::place::Ways;
use crate::domain::failure::Outcome;
use crate::domain::tracking::{MetricPoint, ModelVersion, Pairs, value};
use crate::domain::verify::account::Finding;
use crate::mlflow::{Batch, Client, Fault, NewVersion};

use super::MARKER;
use super::markers::Markers;
use super::place::Place;

/// Points of the metric of a run.
const POINTS: u32 = 20;
/// The file's path and the longest that is read back.
const FILE: &str = "marker/content.txt";
const MOST: usize = 1 << 16;
/// The alias of the version.
const ALIAS: &str = "marker";

/// A run that was written, with what it has to be like.
#[derive(Debug, Clone)]
pub(super) struct Written {
    /// Its experiment's id.
    pub experiment: String,
    /// And name.
    pub name: String,
    /// Where the experiment's files go.
    pub location: String,
    run: String,
    artifact_uri: String,
    points: Vec<MetricPoint>,
    params: Pairs,
    tags: Pairs,
    content: Option<Vec<u8>>,
}

/// All that was written.
#[derive(Debug, Clone, Default)]
pub(super) struct All {
    /// A run per experiment.
    pub runs: Vec<Written>,
    model: Option<ModelVersion>,
    /// The model's name.
    name: String,
    aliased: bool,
    /// Why no file was written; `None`: they were.
    pub without_files: Option<String>,
}

fn mark(id: &str) -> Pairs {
    vec![(MARKER.to_owned(), id.to_owned())]
}

/// Writes.
pub(super) struct Writer<'a> {
    /// The ways to files.
    pub ways: &'a Ways,
    /// The server.
    pub client: &'a Client,
    /// What all names begin with.
    pub prefix: String,
    /// The run's id.
    pub id: &'a str,
    /// Milliseconds since 1970.
    pub now: i64,
}

impl Writer<'_> {
    fn ask<T>(&self, call: impl Future<Output = crate::mlflow::Reply<T>>) -> Outcome<T> {
        self.ways.cancel.check()?;
        Ok(self.ways.runtime.block_on(call)?)
    }

    /// An experiment with a run in it.
    ///
    /// # Errors
    /// Any fault of the server. That no file could be written is told in the second value.
    pub(super) fn run(&self, markers: &mut Markers, name: &str, files: bool) -> Outcome<(Written, Option<String>)> {
        let client = self.client;
        markers.will_make_experiment(name)?;
        let experiment = self.ask(client.create_tagged_experiment(name, &mark(self.id)))?;
        markers.made_experiment(name, &experiment)?;
        let found = self.ask(client.experiment(&experiment))?;
        let location = found.map(|e| e.artifact_location).unwrap_or_default();
        let made = self.ask(client.create_run(&experiment, &format!("{name}-run"), self.now, &mark(self.id)))?;
        // Values that no other run has, with all the digits that a float can hold.
        let seed = f64::from(name.bytes().fold(7_u32, |n, b| n.wrapping_mul(31).wrapping_add(u32::from(b))));
        let point = |step: u32| MetricPoint {
            value: (seed + 1.0) / (f64::from(step) + 3.0),
            timestamp: self.now + i64::from(step),
            step: i64::from(step),
        };
        let mut written = Written {
            experiment,
            name: name.to_owned(),
            location,
            run: made.id,
            artifact_uri: made.artifact_uri,
            points: (0..POINTS).map(point).collect(),
            params: vec![
                ("marker".to_owned(), name.to_owned()),
                ("text".to_owned(), "Zürich\n  'quoted' \"too\"".to_owned()),
            ],
            tags: vec![("mlops.marker.name".to_owned(), name.to_owned())],
            content: None,
        };
        let batch = Batch {
            metrics: written.points.iter().map(|p| ("marker".to_owned(), *p)).collect(),
            params: written.params.clone(),
            tags: written.tags.clone(),
        };
        self.ask(client.log_batch(&written.run, &batch))?;
        let mut without = None;
        if files {
            match self.file(markers, &written) {
                Ok(content) => written.content = Some(content),
                Err(failure) => without = Some(failure.message),
            }
            self.ways.cancel.check()?;
        }
        self.ask(client.end_run(&written.run, "FINISHED", self.now + i64::from(POINTS)))?;
        Ok((written, without))
    }

    fn file(&self, markers: &mut Markers, written: &Written) -> Outcome<Vec<u8>> {
        let place = Place::at(self.ways, self.client, &written.artifact_uri)?;
        markers.will_write(&written.artifact_uri, &[FILE])?;
        let content = format!("{} {}\n", written.name, written.run).repeat(50).into_bytes();
        place.put(FILE, &content)?;
        place.settle()?;
        Ok(content)
    }

    /// All of it.
    ///
    /// # Errors
    /// Any fault of the server.
    pub(super) fn all(&self, markers: &mut Markers, experiments: usize) -> Outcome<All> {
        let mut all = All { name: self.prefix.clone(), ..All::default() };
        for number in 1..=experiments {
            let name = format!("{}-{number}", self.prefix);
            let (written, without) = self.run(markers, &name, all.without_files.is_none())?;
            all.without_files = all.without_files.or(without);
            all.runs.push(written);
        }
        if let Some(first) = all.runs.first() {
            markers.will_make_model(&all.name)?;
            // With its tag in one call: without it nobody could tell later whose it is.
            self.ask(self.client.create_tagged_model(&all.name, &mark(self.id)))?;
            markers.made_model(&all.name)?;
            all.model = Some(self.version(&all.name, first)?);
            // Releases before 2.3 have no aliases.
            all.aliased = match self.ask_known(self.client.set_alias(&all.name, ALIAS, 1))? {
                Some(()) => true,
                None => false,
            };
        }
        Ok(all)
    }

    fn ask_known<T>(&self, call: impl Future<Output = crate::mlflow::Reply<T>>) -> Outcome<Option<T>> {
        self.ways.cancel.check()?;
        match self.ways.runtime.block_on(call) {
            Ok(value) => Ok(Some(value)),
            Err(trouble) if trouble.fault == Fault::NotFound => Ok(None),
            Err(trouble) => Err(trouble.into()),
        }
    }

    fn version(&self, model: &str, run: &Written) -> Outcome<ModelVersion> {
        let source = format!("{}/marker", run.artifact_uri.trim_end_matches('/'));
        let tags = mark(self.id);
        let new = NewVersion { model, source: &source, run_id: &run.run, model_id: "", description: "", tags: &tags };
        self.ask(self.client.create_model_version(&new))
    }

    /// Reads all of it back: what is wrong, and how many values were compared.
    ///
    /// # Errors
    /// A fault that is the server's and not the one thing's.
    pub(super) fn read_back(&self, all: &All) -> Outcome<(Vec<Finding>, u64)> {
        let (mut wrong, mut values) = (Vec::new(), 0);
        for run in &all.runs {
            self.one_back(run, &mut wrong, &mut values)?;
        }
        if let Some(version) = &all.model {
            let on = format!("version {}/{}", all.name, version.version);
            let tell = |name: &str, told: String| Finding::new(name, &on, told);
            values += 4;
            match self.ask(self.client.model_version(&all.name, version.version))? {
                None => wrong.push(tell("lost_marker", "it was registered before the restart, and is gone".to_owned())),
                Some(now) => {
                    let of = |v: &ModelVersion| (v.source.clone(), v.run_id.clone(), v.status.clone(), v.created);
                    if of(&now) != of(version) || value(&now.tags, MARKER) != Some(self.id) {
                        wrong.push(tell("changed_marker", "its source, run, status or tag is another one".to_owned()));
                    }
                    let alias = self.ask_known(self.client.model_version_by_alias(&all.name, ALIAS))?.flatten();
                    if all.aliased && alias.is_none_or(|a| a.version != version.version) {
                        wrong.push(tell("changed_marker", format!("its alias @{ALIAS} is gone")));
                    }
                }
            }
        }
        Ok((wrong, values))
    }

    fn one_back(&self, written: &Written, wrong: &mut Vec<Finding>, values: &mut u64) -> Outcome<()> {
        let client = self.client;
        let on = format!("experiment {} ({})", written.experiment, written.name);
        let found = self.ask(client.experiment(&written.experiment))?;
        *values += 2;
        match &found {
            None => {
                wrong.push(Finding::new("lost_marker", &on, "it was made before the restart, and is gone"));
                return Ok(());
            }
            Some(found) if found.name != written.name || found.deleted => {
                let told = format!("its number is now that of another experiment, {}", found.name);
                wrong.push(Finding::new("changed_marker", &on, told));
                return Ok(());
            }
            Some(found) if found.artifact_location != written.location => {
                let told =
                    format!("its artifacts were at {}, and are at {}", written.location, found.artifact_location);
                wrong.push(Finding::new("changed_artifact_root", &on, crate::domain::harmless::masked(&told)));
            }
            Some(_) => {}
        }
        let on = format!("run {} of {}", written.run, written.name);
        let Some(run) = self.ask(client.run(&written.run))? else {
            wrong.push(Finding::new("lost_marker", &on, "it was written before the restart, and is gone"));
            return Ok(());
        };
        let mut bad = Vec::new();
        let mut check = |right: bool, told: String| {
            *values += 1;
            if !right {
                bad.push(told);
            }
        };
        check(run.status == "FINISHED" && !run.deleted, format!("its status is {}", run.status));
        for (what, pairs, now) in [("param", &written.params, &run.params), ("tag", &written.tags, &run.tags)] {
            for (key, wanted) in pairs {
                check(value(now, key) == Some(wanted), format!("its {what} {key} is gone, or another one"));
            }
        }
        let last = run.metrics.iter().find(|(key, _)| key == "marker").map(|(_, point)| *point);
        check(last == written.points.last().copied(), "the newest value of its metric is another one".to_owned());
        let mut history = Vec::new();
        let mut pages = client.metric_history(&written.run, "marker", 1_000);
        while let Some(page) = self.ask(pages.next())? {
            history.extend(page);
        }
        history.sort_by_key(|p| p.step);
        let missing = written.points.iter().filter(|p| !history.contains(p)).count();
        check(
            history == written.points,
            format!("{missing} of {} points of its metric are gone or others", written.points.len()),
        );
        if let Some(content) = &written.content {
            match self.ways.runtime.block_on(client.run_file(&written.run, FILE, MOST)) {
                Ok(now) => check(now == *content, format!("the bytes of its file {FILE} are others")),
                Err(trouble) => {
                    check(false, format!("its file {FILE} is not read any more: {}", trouble.failure.message))
                }
            }
        }
        wrong.extend(bad.into_iter().map(|told| Finding::new("changed_marker", &on, told)));
        Ok(())
    }

    /// Writes once more: new things get new numbers and the same root. What is wrong, and how it went.
    ///
    /// # Errors
    /// Any other fault of the server.
    pub(super) fn again(
        &self,
        markers: &mut Markers,
        all: &All,
        known: &std::collections::BTreeSet<String>,
    ) -> Outcome<(Vec<Finding>, String)> {
        let mut wrong = Vec::new();
        let name = format!("{}-after", self.prefix);
        let written = match self.run(markers, &name, all.without_files.is_none()) {
            Ok((written, without)) => {
                if let Some(why) = without {
                    wrong.push(Finding::new("unwritable_artifacts", &name, why));
                }
                written
            }
            // The name is new, so what is taken is the number.
            Err(failure) if failure.message.contains("RESOURCE_ALREADY_EXISTS") => {
                let told =
                    "a new experiment was refused as one that exists: the database gives out a number that is taken";
                let hint =
                    "the sequence of experiments.experiment_id was set back: `mlops db doctor --fix` sets it right";
                wrong.push(Finding::new("reused_id", &name, told).hint(hint));
                return Ok((wrong, "nothing could be written".to_owned()));
            }
            Err(failure) => return Err(failure),
        };
        let number = |id: &String| id.parse::<u64>().ok();
        let highest = known.iter().filter_map(number).max();
        if known.contains(&written.experiment) || number(&written.experiment) <= highest {
            let told = format!(
                "a new experiment got the number {}, and {} was given out before",
                written.experiment,
                highest.unwrap_or_default()
            );
            let hint = "the database's counter of experiments was set back: runs may come to lie in an experiment that is not theirs";
            wrong.push(Finding::new("reused_id", &name, told).hint(hint));
        }
        let root = |written: &Written| {
            let location = written.location.trim_end_matches('/');
            location.strip_suffix(&written.experiment).unwrap_or(location).trim_end_matches('/').to_owned()
        };
        if let Some(before) = all.runs.first().map(root)
            && before != root(&written)
        {
            let told = format!("the files of new experiments went to {before}, and go to {}", root(&written));
            let hint = "the server was started with another --default-artifact-root or --artifacts-destination";
            let told = crate::domain::harmless::masked(&told);
            wrong.push(Finding::new("changed_artifact_root", &name, told).hint(hint));
        }
        if let Some(before) = &all.model {
            let on = format!("model {}", all.name);
            match self.version(&all.name, &written) {
                Ok(now) if now.version == before.version + 1 => {}
                Ok(now) => {
                    let told = format!("its next version got the number {}, after {}", now.version, before.version);
                    wrong.push(Finding::new("reused_id", &on, told));
                }
                Err(failure) if matches!(failure.kind, crate::domain::failure::Kind::Target) => {
                    wrong.push(Finding::new(
                        "lost_marker",
                        &on,
                        format!("it takes no further version: {}", failure.message),
                    ));
                }
                Err(failure) => return Err(failure),
            }
        }
        let mut values = 0;
        self.one_back(&written, &mut wrong, &mut values)?;
        let evidence = format!("experiment {} with a run, {values} values read back", written.experiment);
        Ok((wrong, evidence))
    }
}

impl All {
    /// Names of the experiments.
    pub(super) fn names(&self) -> Vec<String> {
        self.runs.iter().map(|r| r.name.clone()).collect()
    }

    /// Where the artifacts of the first of them are.
    pub(super) fn location(&self) -> Option<&str> {
        self.runs.first().map(|r| r.location.as_str())
    }
}

/// The failure of something that should have been there.
pub(super) fn another_store(on: &str) -> Finding {
    let what = "it holds none of the experiments that were just made through the server";
    Finding::new("another_store", on, what).hint("compare the address with the server's own --backend-store-uri")
}
