//! The second half: the model's versions in the registry - found, downloaded, moved, tagged, searched, deleted.

use std::time::{Duration, Instant};

use super::model::{INPUTS, OUTPUTS, sha256};
use super::{Logged, Trial, Uploaded, must, right};
use crate::domain::failure::{Failure, Outcome};
use crate::domain::signature::{FILE, MOST, MlModel};
use crate::domain::tracking::{ModelVersion, View, value};
use crate::mlflow::{Fault, NewVersion, Pages, Runs, Trouble};
use crate::registry::location;
use crate::verify::MARKER;
use crate::verify::place::Place;
use crate::verify::steps::{Seen, Steps};

/// The alias that is set.
const ALIAS: &str = "mlops-verify";
/// How long it is waited for a version to be READY. MLflow's own store has it READY at once.
const READY: Duration = Duration::from_secs(30);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(250);
/// The tag that is set afterwards.
const TAG: (&str, &str) = ("mlops.verify", "a b|c ü");

/// A version that was made, and what is in it.
struct Made {
    version: ModelVersion,
    uploaded: Uploaded,
}

/// A file that is not what was uploaded.
struct Wrong {
    name: &'static str,
    on: String,
    told: String,
}

fn shown(versions: &[u64]) -> String {
    versions.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")
}

/// The body of a filter's text; ids and names of this program need no escape.
fn quotable(text: &str) -> bool {
    !text.contains(['\'', '"', '\\'])
}

impl Trial<'_> {
    pub(super) fn register(&mut self, steps: &mut Steps, logged: &Logged) -> Outcome<()> {
        let stands = [("upload", logged.old.is_some())];
        let old = steps.step("register", &stands, || {
            self.markers.will_make_model(&self.request.model)?;
            self.call(self.client.create_tagged_model(&self.request.model, &self.tags))?;
            self.markers.made_model(&self.request.model)?;
            let uploaded = logged.old.clone().ok_or_else(|| Failure::internal("nothing to register"))?;
            self.version(&uploaded.address, "", &logged.run, &uploaded)
        })?;
        let new = match &logged.new {
            None => None,
            Some((id, uploaded)) => steps.step("register logged", &[("register", old.is_some())], || {
                self.version(&format!("models:/{id}"), id, &logged.run, uploaded)
            })?,
        };
        let stands = [("register", old.is_some())];
        let all: Vec<Made> = old.into_iter().chain(new).collect();
        self.find(steps, &stands, logged, &all)?;
        self.read(steps, &stands, &all)?;
        self.change(steps, &stands, &all)?;
        self.search(steps, &stands, logged, &all)?;
        self.delete(steps, &stands, logged, &all)
    }

    fn version(&self, source: &str, model_id: &str, run_id: &str, uploaded: &Uploaded) -> Outcome<Seen<Made>> {
        let model = &self.request.model;
        let new = NewVersion { model, source, run_id, model_id, description: "by mlops verify", tags: &self.tags };
        let mut version = self.call(self.client.create_model_version(&new))?;
        let end = Instant::now() + READY;
        while version.status != "READY" && Instant::now() < end {
            self.waiting.on(tokio::time::sleep(PAUSE))?;
            let gone = || Failure::differs(format!("version {} was made and is not there", version.version));
            version = self.call(self.client.model_version(model, version.version))?.ok_or_else(gone)?;
        }
        must(version.status == "READY", || format!("after {} s it is {}", READY.as_secs(), version.status))?;
        let evidence = format!("{model} version {} of {source}", version.version);
        right(Made { version, uploaded: uploaded.clone() }, evidence)
    }

    fn find(&self, steps: &mut Steps, stands: &[(&str, bool)], logged: &Logged, all: &[Made]) -> Outcome<()> {
        let (client, model) = (self.client, &self.request.model);
        steps.step("find by name", stands, || {
            let found = self.call(client.registered_model(model))?;
            let found = found.ok_or_else(|| Failure::differs(format!("{model} was made and is not there")))?;
            let marked = value(&found.tags, MARKER) == Some(self.markers.id());
            must(found.name == *model && marked, || format!("{model} is told as {} without its tag", found.name))?;
            right((), format!("{model} with its tag"))
        })?;
        steps.step("find by version", stands, || {
            for made in all {
                let number = made.version.version;
                let gone = || Failure::differs(format!("version {number} was made and is not there"));
                let found = self.call(client.model_version(model, number))?.ok_or_else(gone)?;
                let same = found.source == made.version.source && found.run_id == logged.run;
                must(same, || {
                    let (source, run) = (&found.source, &found.run_id);
                    format!("version {number} is told to be of {source} and the run `{run}`, and was made otherwise")
                })?;
                let marked = value(&found.tags, MARKER) == Some(self.markers.id());
                must(marked && found.description == "by mlops verify", || {
                    format!("version {number} has not the tag and the description that it was made with")
                })?;
            }
            right((), format!("versions {} with source, run, tag and description", shown(&numbers(all))))
        })?;
        let alias = steps.step("find by alias", stands, || {
            let newest = numbers(all).into_iter().max().unwrap_or(0);
            match self.waiting.on(client.set_alias(model, ALIAS, newest))? {
                Err(trouble) if trouble.fault == Fault::NotFound => return Ok(self.none_of("aliases")),
                other => other.map_err(Failure::from)?,
            }
            let found = self.call(client.model_version_by_alias(model, ALIAS))?.map(|v| v.version);
            must(found == Some(newest), || {
                format!(
                    "@{ALIAS} was set to version {newest} and leads to {}",
                    found.map_or("none".to_owned(), |v| v.to_string())
                )
            })?;
            right((), format!("@{ALIAS} leads to version {newest}"))
        })?;
        steps.step("find by run", stands, || {
            let filter = format!("run_id = '{}'", logged.run);
            let found = sorted(self.pages(client.model_versions(&filter))?);
            must(found == numbers(all), || {
                format!("versions {} were made of the run, and {} are told", shown(&numbers(all)), shown(&found))
            })?;
            right((), format!("versions {} are of the run {}", shown(&found), logged.run))
        })?;
        let id = logged.new.as_ref().map(|(id, _)| id.clone());
        let begun = Instant::now();
        steps.step("find by id", &[("run", !logged.run.is_empty())], || {
            if !self.is_new() {
                return Ok(self.none_of("logged models"));
            }
            let id = id.ok_or_else(|| Failure::differs("there is no logged model to find"))?;
            let found = self.call(client.logged_model(&id))?;
            must(found.as_ref().is_some_and(|m| m.source_run_id == logged.run), || format!("{id} is not found"))?;
            let took = begun.elapsed();
            let filter = format!("source_run_id = '{}'", logged.run);
            let pages = self.call(client.logged_models(std::slice::from_ref(&logged.experiment), &filter, 10))?;
            let ids: Vec<String> = pages
                .map(|pages| self.pages(pages))
                .transpose()?
                .unwrap_or_default()
                .into_iter()
                .map(|m| m.id)
                .collect();
            must(ids == [id.clone()], || format!("a search for the run's logged models tells {}", ids.join(", ")))?;
            right((), format!("{id} in {:.0} ms, and by a search", took.as_secs_f64() * 1e3))
        })?;
        if alias.is_some() && !self.request.keep {
            steps.step("remove alias", stands, || {
                self.call(client.delete_alias(model, ALIAS))?;
                let found = self.call(client.model_version_by_alias(model, ALIAS))?;
                must(found.is_none(), || format!("@{ALIAS} was removed and still leads to a version"))?;
                right((), format!("@{ALIAS} leads nowhere"))
            })?;
        }
        Ok(())
    }

    fn read(&self, steps: &mut Steps, stands: &[(&str, bool)], all: &[Made]) -> Outcome<()> {
        let mut wrong = Vec::new();
        steps.step("download", stands, || {
            let mut files = 0;
            for made in all {
                let number = made.version.version;
                let lost = || Failure::differs(format!("where version {number} has its files is not told"));
                let place = self.call(location::resolve(self.client, &made.version))?.ok_or_else(lost)?;
                let place = Place::at(self.ways, self.client, &place.to_string())?;
                for file in &made.uploaded.files {
                    let back = place.get(&file.path, MOST)?;
                    wrong.extend(compared(number, &file.path, &file.content, back.as_deref()));
                    files += 1;
                }
            }
            must(wrong.is_empty(), || told(&wrong))?;
            right(
                (),
                format!("{files} files of versions {} have the SHA-256 of what was uploaded", shown(&numbers(all))),
            )
        })?;
        report(steps, wrong);
        let mut wrong = Vec::new();
        let mut written = Vec::new();
        steps.step("served", stands, || {
            for made in all {
                let number = made.version.version;
                let content = made.uploaded.files.iter().find(|f| f.path == FILE).map(|f| f.content.as_slice());
                let back = self.call(self.client.version_file(&self.request.model, number, FILE, MOST))?;
                wrong.extend(compared(number, FILE, content.unwrap_or_default(), Some(&back)));
                written.push((number, back));
            }
            must(wrong.is_empty(), || told(&wrong))?;
            right((), format!("the server gives {FILE} of versions {} as it was uploaded", shown(&numbers(all))))
        })?;
        report(steps, wrong);
        steps.step("signature", &[("served", !written.is_empty())], || {
            for (number, bytes) in &written {
                let text = String::from_utf8_lossy(bytes);
                MlModel::parse(bytes).map_err(Failure::differs)?;
                let whole = [INPUTS, OUTPUTS, self.markers.id()].iter().all(|part| text.contains(&format!("'{part}'")));
                must(whole, || format!("{FILE} of version {number} has another signature or other metadata"))?;
            }
            right((), format!("inputs {INPUTS}, outputs {OUTPUTS}, metadata to the byte"))
        })?;
        Ok(())
    }

    fn change(&self, steps: &mut Steps, stands: &[(&str, bool)], all: &[Made]) -> Outcome<()> {
        let (client, model) = (self.client, &self.request.model);
        let Some(number) = all.first().map(|m| m.version.version) else { return Ok(()) };
        steps.step("stage", stands, || {
            for stage in ["Staging", "Production", "None"] {
                match self.waiting.on(client.transition(model, number, stage, false))? {
                    Err(Trouble { fault: Fault::NotFound, .. }) => return Ok(self.none_of("stages")),
                    other => drop(other.map_err(Failure::from)?),
                }
                let told = self.call(client.model_version(model, number))?.map(|v| v.stage).unwrap_or_default();
                must(told == stage, || format!("version {number} was moved to {stage} and is told in `{told}`"))?;
                let latest = self.call(client.latest_versions(model, &[stage]))?.unwrap_or_default();
                must(latest.iter().any(|v| v.version == number || stage == "None"), || {
                    format!("version {number} is in {stage} and is not told as the newest there")
                })?;
            }
            right((), format!("version {number} to Staging, to Production, and back to None"))
        })?;
        steps.step("tag", stands, || {
            self.call(client.set_version_tag(model, number, TAG.0, TAG.1))?;
            self.call(client.set_model_tag(model, TAG.0, TAG.1))?;
            let version = self.call(client.model_version(model, number))?.map(|v| v.tags).unwrap_or_default();
            let own = self.call(client.registered_model(model))?.map(|m| m.tags).unwrap_or_default();
            for (what, tags) in [("the version", version), ("the model", own)] {
                let told = value(&tags, TAG.0);
                must(told == Some(TAG.1), || format!("{what} was tagged `{}` and is told with {told:?}", TAG.1))?;
            }
            right((), format!("{} on version {number} and on the model", TAG.0))
        })?;
        Ok(())
    }

    fn search(&self, steps: &mut Steps, stands: &[(&str, bool)], logged: &Logged, all: &[Made]) -> Outcome<()> {
        let (client, model) = (self.client, &self.request.model);
        steps.step("search", stands, || {
            let versions = sorted(self.pages(client.versions_of(model))?);
            must(versions == numbers(all), || {
                format!("versions {} were made, and a search tells {}", shown(&numbers(all)), shown(&versions))
            })?;
            if quotable(model) {
                let filter = format!("name = '{model}'");
                let models: Vec<String> =
                    self.pages(client.registered_models(&filter))?.into_iter().map(|m| m.name).collect();
                must(models == [model.clone()], || format!("a search for {model} tells {} models", models.len()))?;
            }
            let filter = format!("tags.`{MARKER}` = '{}'", self.markers.id());
            let experiments = std::slice::from_ref(&logged.experiment);
            let wanted = Runs { experiments, filter: &filter, view: View::Active, order_by: &[], page: 10 };
            let runs: Vec<String> = self.pages(client.runs(&wanted))?.into_iter().map(|r| r.id).collect();
            must(runs == [logged.run.clone()], || {
                format!("a search for the run by its tag tells {} runs", runs.len())
            })?;
            right((), "versions and model by name, the run by its tag, and nothing else")
        })?;
        Ok(())
    }

    fn delete(&mut self, steps: &mut Steps, stands: &[(&str, bool)], logged: &Logged, all: &[Made]) -> Outcome<()> {
        let (client, model) = (self.client, &self.request.model);
        let kept = || Ok(Seen::Skip("--keep leaves it there".to_owned()));
        steps.step("delete version", stands, || {
            let Some(number) = numbers(all).into_iter().max().filter(|_| !self.request.keep) else { return kept() };
            self.call(client.delete_model_version(model, number))?;
            let there = self.call(client.model_version(model, number))?.is_some()
                || self.pages(client.versions_of(model))?.iter().any(|v| v.version == number);
            must(!there, || format!("version {number} was deleted and is still there"))?;
            right((), format!("version {number} is gone, by number and by search"))
        })?;
        steps.step("delete model", stands, || {
            if self.request.keep {
                return kept();
            }
            self.call(client.delete_registered_model(model))?;
            self.markers.removed_model(model)?;
            let there = self.call(client.registered_model(model))?.is_some()
                || !self.pages(client.versions_of(model))?.is_empty();
            must(!there, || format!("{model} was deleted and is still there"))?;
            right((), format!("{model} is gone, by name and by search"))
        })?;
        if let Some((id, _)) = &logged.new {
            steps.step("delete logged model", &[], || {
                if self.request.keep {
                    return kept();
                }
                self.call(client.delete_logged_model(id))?;
                let there = self.call(client.logged_model(id))?.is_some();
                must(!there, || format!("{id} was deleted and is still there"))?;
                right((), format!("{id} is gone"))
            })?;
        }
        Ok(())
    }

    /// All of a list that is known to be short.
    fn pages<T: Send + 'static>(&self, mut pages: Pages<T>) -> Outcome<Vec<T>> {
        let mut all = Vec::new();
        while let Some(page) = self.call(pages.next())? {
            all.extend(page);
            if all.len() > 1_000 {
                return Err(Failure::differs("a search that means one thing tells over 1,000"));
            }
        }
        Ok(all)
    }

    fn none_of<T>(&self, what: &str) -> Seen<T> {
        Seen::Skip(format!("MLflow {} has no {what}", self.release))
    }
}

fn numbers(all: &[Made]) -> Vec<u64> {
    all.iter().map(|made| made.version.version).collect()
}

fn sorted(versions: Vec<ModelVersion>) -> Vec<u64> {
    let mut numbers: Vec<u64> = versions.into_iter().map(|v| v.version).collect();
    numbers.sort_unstable();
    numbers
}

fn compared(version: u64, path: &str, written: &[u8], back: Option<&[u8]>) -> Option<Wrong> {
    let on = format!("version {version}: {path}");
    match back {
        None => Some(Wrong { name: "missing_file", on, told: "it was uploaded and is not there".to_owned() }),
        Some(back) if back != written => {
            let at = written.iter().zip(back).position(|(a, b)| a != b).unwrap_or(written.len().min(back.len()));
            let (was, is) = (sha256(written), sha256(back));
            let told = format!(
                "{} bytes with SHA-256 {was} were uploaded, {} bytes with {is} came back; the first that differs is {at}",
                written.len(),
                back.len()
            );
            Some(Wrong { name: "changed_file", on, told })
        }
        Some(_) => None,
    }
}

fn told(wrong: &[Wrong]) -> String {
    let first = wrong.first().map_or(String::new(), |w| format!("{}: {}", w.on, w.told));
    if wrong.len() > 1 { format!("{} files are wrong; {first}", wrong.len()) } else { first }
}

fn report(steps: &mut Steps, wrong: Vec<Wrong>) {
    for Wrong { name, on, told } in wrong {
        steps.find(name, on, told, Some("look at what lies between: a proxy, a cache, a disk that loses data"));
    }
}
