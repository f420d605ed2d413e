//! A batch: what goes is looked at once more, announced in the journal, and soft-deleted.

use futures_util::StreamExt;
use serde::{Deserialize, Serialize};

use super::gather::{self, Found, OldRun};
use crate::domain::cleanup::rules::Rules;
use crate::domain::cleanup::select::{ExperimentFacts, Fate, RunFacts};
use crate::domain::consent::Confirmed;
use crate::domain::failure::Outcome;
use crate::domain::tracking::View;
use crate::engine::cancel::Cancel;
use crate::mlflow::fault::Reply;
use crate::mlflow::{Client, RUNS_AT_ONCE, Runs};

/// A line of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "note")]
pub enum Note {
    /// These runs are about to be deleted.
    DeleteRuns {
        /// Their ids.
        ids: Vec<String>,
    },
    /// What became of the last ones that were announced.
    Runs {
        /// Those that were deleted.
        deleted: Vec<String>,
    },
    /// This experiment is about to be deleted.
    DeleteExperiment {
        /// Its id.
        id: String,
        /// Its name.
        name: String,
        /// Runs of it that are deleted already: MLflow would bring them back with it.
        deleted_runs: Vec<String>,
    },
    /// What became of it.
    Experiment {
        /// Its id.
        id: String,
        /// Whether it was deleted.
        deleted: bool,
    },
    /// This experiment is about to be brought back.
    Undo {
        /// Its id.
        id: String,
    },
    /// This experiment is back, or these runs are.
    Undone {
        /// Ids.
        ids: Vec<String>,
    },
}

/// What a batch did.
#[derive(Debug, Default)]
pub struct Done {
    /// Ids of runs or experiments that were deleted.
    pub deleted: Vec<String>,
    /// Those that were left, for they are not what the plan saw any more, and why.
    pub left: Vec<(String, String)>,
    /// Those that could not be deleted, and why.
    pub failed: Vec<(String, String)>,
}

/// Who deletes, and where it is announced.
pub struct Batch<'a> {
    /// The server.
    pub client: &'a Client,
    /// The rules, which are asked once more.
    pub rules: &'a Rules,
    /// Now, in milliseconds since 1970.
    pub now: i64,
    /// Calls at a time.
    pub jobs: usize,
    /// Writes and syncs a line of the journal.
    pub note: &'a mut dyn FnMut(&Note) -> Outcome<()>,
    /// Ends it between two chunks.
    pub cancel: &'a Cancel,
}

impl Batch<'_> {
    /// Deletes runs.
    ///
    /// # Errors
    /// The journal cannot be written; or the server does not answer at all. What was done by then is in the journal.
    pub async fn runs(&mut self, found: &Found<OldRun>, _confirmed: &Confirmed) -> Outcome<Done> {
        let registry = gather::registry(self.client).await?;
        let mut done = Done::default();
        for chunk in found.goes.chunks(RUNS_AT_ONCE) {
            self.cancel.check()?;
            let now: Vec<RunFacts> = self.look(chunk, &registry).await?;
            let mut ids = Vec::new();
            for old in chunk {
                match now.iter().find(|run| run.id == old.run.id) {
                    None => done.left.push((old.run.id.clone(), "it is not there, or not active, any more".to_owned())),
                    Some(run) => match run.fate(self.rules, self.now) {
                        Fate::Goes => ids.push(old.run.id.clone()),
                        other => done.left.push((old.run.id.clone(), why(other))),
                    },
                }
            }
            if ids.is_empty() {
                continue;
            }
            (self.note)(&Note::DeleteRuns { ids: ids.clone() })?;
            let client = self.client;
            let delete = |id: String| async move { (delete_run(client, &id).await, id) };
            let ended: Vec<(Reply<()>, String)> =
                futures_util::stream::iter(ids).map(delete).buffer_unordered(self.jobs.max(1)).collect().await;
            let mut deleted = Vec::new();
            for (reply, id) in ended {
                match reply {
                    Ok(()) => deleted.push(id),
                    Err(trouble) => done.failed.push((id, trouble.failure.message)),
                }
            }
            (self.note)(&Note::Runs { deleted: deleted.clone() })?;
            done.deleted.extend(deleted);
        }
        Ok(done)
    }

    /// These runs as they are now; those that are not active are not among them.
    async fn look(&self, chunk: &[OldRun], registry: &gather::Registry) -> Outcome<Vec<RunFacts>> {
        let mut experiments: Vec<String> = chunk.iter().map(|old| old.experiment_id.clone()).collect();
        experiments.sort();
        experiments.dedup();
        let ids: Vec<String> = chunk.iter().map(|old| old.run.id.clone()).collect();
        let now = self.client.runs_by_id(&experiments, &ids, View::Active).await?;
        Ok(now.iter().map(|run| RunFacts::of(run, registry.get(&run.id), self.rules)).collect())
    }

    /// Deletes experiments.
    ///
    /// # Errors
    /// As [`Batch::runs`].
    pub async fn experiments(&mut self, found: &Found<ExperimentFacts>, _confirmed: &Confirmed) -> Outcome<Done> {
        let registry = gather::registry(self.client).await?;
        let mut done = Done::default();
        for old in &found.goes {
            self.cancel.check()?;
            let (id, name) = (&old.experiment.id, &old.experiment.name);
            let left = |why: &str| (id.clone(), why.to_owned());
            let Some(now) = gather::again(self.client, id, &registry, self.rules).await? else {
                done.left.push(left("it is not there, or not active, any more"));
                continue;
            };
            match now.fate(self.rules, self.now) {
                Fate::Goes => {}
                other => {
                    done.left.push(left(&why(other)));
                    continue;
                }
            }
            let deleted_runs = deleted_runs(self.client, id).await?;
            (self.note)(&Note::DeleteExperiment { id: id.clone(), name: name.clone(), deleted_runs })?;
            let reply = delete_experiment(self.client, id).await;
            (self.note)(&Note::Experiment { id: id.clone(), deleted: reply.is_ok() })?;
            match reply {
                Ok(()) => done.deleted.push(id.clone()),
                Err(trouble) => done.failed.push((id.clone(), trouble.failure.message)),
            }
        }
        Ok(done)
    }
}

/// Why something is left that was to go.
fn why(fate: Fate) -> String {
    match fate {
        Fate::Stays(why) => why,
        _ => "it was used since the plan was made".to_owned(),
    }
}

/// The ids of an experiment's runs that are deleted.
async fn deleted_runs(client: &Client, id: &str) -> Outcome<Vec<String>> {
    let ids = [id.to_owned()];
    let search = Runs { experiments: &ids, filter: "", view: View::Deleted, order_by: &[], page: 1_000 };
    let (mut pages, mut found) = (client.runs(&search), Vec::new());
    while let Some(page) = pages.next().await? {
        found.extend(page.into_iter().map(|run| run.id));
    }
    Ok(found)
}

/// Deletes a run; where the answer is lost the run itself tells.
async fn delete_run(client: &Client, id: &str) -> Reply<()> {
    match client.delete_run(id).await {
        Err(trouble) if trouble.fault.leaves_open() => match client.run(id).await {
            Ok(Some(run)) if run.deleted => Ok(()),
            _ => Err(trouble),
        },
        other => other,
    }
}

async fn delete_experiment(client: &Client, id: &str) -> Reply<()> {
    match client.delete_experiment(id).await {
        Err(trouble) if trouble.fault.leaves_open() => match client.experiment(id).await {
            Ok(Some(experiment)) if experiment.deleted => Ok(()),
            _ => Err(trouble),
        },
        other => other,
    }
}
