//! All that a tracking server shows, read over REST: every experiment, run, model and version, and a sample of the
//! histories and the files, the same ones each time.

use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use serde::{Deserialize, Serialize};

use super::MARKER;
use super::sorted::Sorter;
use crate::domain::failure::Outcome;
use crate::domain::tracking::{Run, View, value};
use crate::domain::verify::fingerprint::{Entity, Kind, mark, point_digest};
use crate::engine::cancel::Cancel;
use crate::engine::event::{Event, Events};
use crate::mlflow::{Client, Fault, Runs, Trouble};

/// Runs in a page; one with thousands of metrics is some hundred KB.
const RUNS: u32 = 500;
/// Experiments whose runs are asked for at once.
const EXPERIMENTS: usize = 50;
/// MLflow's own bound on logged models in a page is of this order (store/tracking: SEARCH_LOGGED_MODEL_MAX_RESULTS_DEFAULT).
const LOGGED: u32 = 100;
/// Histories that are read point by point.
const HISTORIES: usize = 50;
/// Points in a page of a history, MLflow's most.
const POINTS: u32 = 25_000;
/// Points of one history that are read.
const MOST_POINTS: u64 = 500_000;
/// What REST does not show, or not without a call for each thing.
const UNREAD: &str = "traces, inputs and datasets of runs, webhooks, files of logged models: of these the digests of the \
                      database alone tell (--backend-store-uri)";
/// Runs whose files are looked for at most, those with files that are read, the files of each, the longest file, and the
/// folders that are listed for them.
const LOOKED: usize = 300;
const FILED: u64 = 30;
const FILES: usize = 5;
const BYTES: u64 = 8 << 20;
const FOLDERS: usize = 20;

/// How much was read of what.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coverage {
    /// Things of each kind, by its word; histories and artifacts are those that were read.
    pub things: BTreeMap<String, u64>,
    /// Newest values of metrics.
    pub metrics: u64,
    /// Params.
    pub params: u64,
    /// Tags of runs.
    pub tags: u64,
    /// Points of the histories that were read.
    pub points: u64,
    /// Histories that there are.
    pub histories: u64,
    /// Runs whose files were looked for.
    pub looked: u64,
    /// Those of them that have any.
    pub filed: u64,
    /// Bytes of the files that were read.
    pub bytes: u64,
    /// What was not read, a sentence each.
    pub left: Vec<String>,
}

impl Coverage {
    fn count(&mut self, kind: Kind) {
        *self.things.entry(kind.word().to_owned()).or_default() += 1;
    }

    /// Things of a kind.
    pub fn of(&self, kind: Kind) -> u64 {
        self.things.get(kind.word()).copied().unwrap_or(0)
    }
}

/// The histories and files that are read whole: run and key, run and path.
#[derive(Debug, Clone, Default)]
pub(super) struct Sample {
    /// Run and key of a metric.
    pub histories: Vec<(String, String)>,
    /// Run and path of a file.
    pub files: Vec<(String, String)>,
}

impl Sample {
    /// Those that a thing of an earlier reading stands for, where it stands for one.
    pub(super) fn take(&mut self, entity: &Entity) {
        let Some((run, rest)) = entity.id.split_once('/') else { return };
        let pair = (run.to_owned(), rest.to_owned());
        match entity.kind {
            Kind::History => self.histories.push(pair),
            Kind::Artifact => self.files.push(pair),
            _ => {}
        }
    }
}

/// The ones with the smallest hashes: as good as chance, and the same ones however the server orders them.
struct Chosen {
    most: usize,
    heap: BinaryHeap<(String, String, String)>,
}

impl Chosen {
    fn new(most: usize) -> Chosen {
        Chosen { most, heap: BinaryHeap::new() }
    }

    fn offer(&mut self, run: &str, key: &str) {
        let hash = mark(format!("{run}/{key}").as_bytes());
        if self.heap.len() < self.most || self.heap.peek().is_some_and(|(worst, ..)| hash < *worst) {
            self.heap.push((hash, run.to_owned(), key.to_owned()));
            if self.heap.len() > self.most {
                self.heap.pop();
            }
        }
    }

    fn pairs(self) -> Vec<(String, String)> {
        self.heap.into_sorted_vec().into_iter().map(|(_, run, key)| (run, key)).collect()
    }
}

/// Reads a server.
pub(super) struct Reader<'a> {
    /// The server.
    pub client: &'a Client,
    /// What is read whole; `None`: what chance chooses.
    pub sample: Option<Sample>,
    /// Ends it early.
    pub cancel: &'a Cancel,
    /// Hears of it.
    pub events: &'a dyn Events,
}

/// What else is known after a reading.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    /// How much was read.
    pub coverage: Coverage,
    /// The ids of all experiments, deleted ones too.
    pub experiments: BTreeSet<String>,
}

impl Reader<'_> {
    /// Reads all of it into `things`.
    ///
    /// # Errors
    /// Any fault of the server, the work folder's, the interruption.
    pub(super) async fn read(&self, things: &mut Sorter) -> Outcome<Seen> {
        self.events.event(Event::Phase { name: "reading the server", total: None, unit: "things" });
        let mut seen = Seen::default();
        let mut take = |seen: &mut Seen, entity: &Entity| {
            seen.coverage.count(entity.kind);
            self.events.event(Event::Done { table: String::new(), units: 1 });
            things.add(entity)
        };
        let mut pages = self.client.experiments("", View::All, 1_000);
        while let Some(page) = pages.next().await? {
            self.cancel.check()?;
            for experiment in page {
                take(&mut seen, &Entity::of_experiment(&experiment))?;
                seen.experiments.insert(experiment.id);
            }
        }
        let (mut histories, mut filed) = (Chosen::new(HISTORIES), Chosen::new(LOOKED));
        let ids: Vec<String> = seen.experiments.iter().cloned().collect();
        for some in ids.chunks(EXPERIMENTS) {
            let search = Runs { experiments: some, filter: "", view: View::All, order_by: &[], page: RUNS };
            let mut pages = self.client.runs(&search);
            while let Some(page) = pages.next().await? {
                self.cancel.check()?;
                for run in page {
                    let entity = Entity::of_run(&run);
                    take(&mut seen, &entity)?;
                    count(&mut seen.coverage, &run);
                    // What is still written to is another one at each look; the markers are read by value anyway.
                    let ours = value(&run.tags, MARKER).is_some();
                    if !entity.open && !ours && self.sample.is_none() {
                        run.metrics.iter().for_each(|(key, _)| histories.offer(&run.id, key));
                        seen.coverage.histories += run.metrics.len() as u64;
                        filed.offer(&run.id, "");
                    }
                }
            }
        }
        for some in ids.chunks(EXPERIMENTS) {
            let Some(mut pages) = self.client.logged_models(some, "", LOGGED).await? else { break };
            while let Some(page) = pages.next().await? {
                self.cancel.check()?;
                for model in page {
                    take(&mut seen, &Entity::of_logged_model(&model))?;
                }
            }
        }
        for mut pages in [self.client.registered_models(""), self.client.prompts()] {
            while let Some(page) = pages.next().await? {
                for model in page {
                    take(&mut seen, &Entity::of_model(&model))?;
                }
            }
        }
        let mut pages = self.client.model_versions("");
        while let Some(page) = pages.next().await? {
            self.cancel.check()?;
            for version in page {
                take(&mut seen, &Entity::of_version(&version))?;
            }
        }
        let sample = match &self.sample {
            Some(sample) => sample.clone(),
            None => {
                let runs: Vec<String> = filed.pairs().into_iter().map(|(run, _)| run).collect();
                let mut files = Vec::new();
                for run in runs {
                    if seen.coverage.filed >= FILED {
                        break;
                    }
                    let found = self.some_files(&run, &mut seen.coverage).await?;
                    seen.coverage.looked += 1;
                    seen.coverage.filed += u64::from(!found.is_empty());
                    files.extend(found.into_iter().map(|file| (run.clone(), file)));
                }
                seen.coverage.left.push(UNREAD.to_owned());
                Sample { histories: histories.pairs(), files }
            }
        };
        for (run, key) in &sample.histories {
            if let Some(entity) = self.history(run, key, &mut seen.coverage).await? {
                take(&mut seen, &entity)?;
            }
        }
        for (run, path) in &sample.files {
            if let Some(entity) = self.file(run, path, &mut seen.coverage).await? {
                take(&mut seen, &entity)?;
            }
        }
        Ok(seen)
    }

    /// All points of a metric; `None`: there are none any more.
    async fn history(&self, run: &str, key: &str, coverage: &mut Coverage) -> Outcome<Option<Entity>> {
        self.cancel.check()?;
        let (mut points, mut digest) = (0_u64, 0_u128);
        let mut pages = self.client.metric_history(run, key, POINTS);
        loop {
            match pages.next().await {
                Ok(Some(page)) => {
                    points += page.len() as u64;
                    digest = page.iter().map(point_digest).fold(digest, u128::wrapping_add);
                }
                Ok(None) => break,
                Err(trouble) if trouble.is_absent() => return Ok(None),
                Err(trouble) => return Err(trouble.into()),
            }
            if points > MOST_POINTS {
                coverage.left.push(format!("the history of {key} of the run {run} after its first {points} points"));
                break;
            }
        }
        coverage.points += points;
        Ok((points > 0).then(|| Entity::of_history(run, key, points, digest)))
    }

    /// Some files of a run, by their paths.
    async fn some_files(&self, run: &str, coverage: &mut Coverage) -> Outcome<Vec<String>> {
        let (mut folders, mut files, mut listed) = (vec![String::new()], Vec::new(), 0);
        while let Some(folder) = folders.pop() {
            self.cancel.check()?;
            if listed >= FOLDERS || files.len() >= FILES {
                break;
            }
            listed += 1;
            let mut pages = self.client.run_artifacts(run, &folder);
            loop {
                match pages.next().await {
                    Ok(Some(page)) => {
                        for file in page {
                            match file.size {
                                _ if file.folder => folders.push(file.path),
                                Some(bytes) if bytes > BYTES => {}
                                _ => files.push(file.path),
                            }
                        }
                    }
                    Ok(None) => break,
                    // A place that the server itself does not reach (a disk of the client's) is nothing it can lose.
                    Err(trouble) if unread(&trouble) => {
                        coverage.left.push(format!("the files of the run {run}: {}", trouble.failure.message));
                        break;
                    }
                    Err(trouble) => return Err(trouble.into()),
                }
            }
        }
        files.sort();
        files.truncate(FILES);
        Ok(files)
    }

    /// A file; `None`: it is not there any more.
    async fn file(&self, run: &str, path: &str, coverage: &mut Coverage) -> Outcome<Option<Entity>> {
        self.cancel.check()?;
        match self.client.run_file(run, path, BYTES as usize).await {
            Ok(content) => {
                coverage.bytes += content.len() as u64;
                Ok(Some(Entity::of_artifact(run, path, &content)))
            }
            Err(trouble) if unread(&trouble) => {
                coverage.left.push(format!("the file {path} of the run {run}: {}", trouble.failure.message));
                Ok(None)
            }
            Err(trouble) => Err(trouble.into()),
        }
    }
}

/// Whether it is about the one file, and not about the server: some releases answer 500 for a file that is not there.
fn unread(trouble: &Trouble) -> bool {
    matches!(&trouble.fault, Fault::NotFound | Fault::Api { .. } | Fault::Server(500) | Fault::Malformed)
}

fn count(coverage: &mut Coverage, run: &Run) {
    coverage.metrics += run.metrics.len() as u64;
    coverage.params += run.params.len() as u64;
    coverage.tags += run.tags.len() as u64;
}
