//! The way back: exactly what a batch deleted is made active again. MLflow brings all runs of an experiment back with
//! it; those that were deleted before are deleted again.

use std::collections::HashSet;

use futures_util::StreamExt;

use super::batch::Note;
use crate::domain::failure::Outcome;
use crate::domain::tracking::View;
use crate::engine::cancel::Cancel;
use crate::mlflow::{Client, RUNS_AT_ONCE};

/// What a batch did, as its journal tells.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Batched {
    /// Runs that were deleted, or announced and then interrupted.
    pub runs: Vec<String>,
    /// Experiments likewise.
    pub experiments: Vec<Before>,
}

/// An experiment before it was deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Before {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its runs that were deleted already.
    pub deleted_runs: Vec<String>,
    /// Whether an undo of it was begun and did not end.
    pub begun: bool,
}

impl Batched {
    /// Reads the lines of a journal. Those that are not of a batch are passed over.
    pub fn of(lines: &[String]) -> Batched {
        let mut batched = Batched::default();
        let mut announced: Vec<String> = Vec::new();
        let mut undone: HashSet<String> = HashSet::new();
        for note in lines.iter().filter_map(|line| serde_json::from_str::<Note>(line).ok()) {
            match note {
                Note::DeleteRuns { ids } => announced = ids,
                Note::Runs { deleted } => {
                    batched.runs.extend(deleted);
                    announced.clear();
                }
                Note::DeleteExperiment { id, name, deleted_runs } => {
                    batched.experiments.push(Before { id, name, deleted_runs, begun: false });
                }
                Note::Experiment { id, deleted: false } => batched.experiments.retain(|e| e.id != id),
                Note::Experiment { .. } => {}
                Note::Undo { id } => {
                    batched.experiments.iter_mut().filter(|e| e.id == id).for_each(|e| e.begun = true);
                }
                Note::Undone { ids } => undone.extend(ids),
            }
        }
        // A kill came between the announcement and the end: those that are deleted now were deleted by it.
        batched.runs.append(&mut announced);
        batched.runs.retain(|id| !undone.contains(id));
        batched.experiments.retain(|e| !undone.contains(&e.id));
        batched
    }

    /// Whether there is nothing to put back.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty() && self.experiments.is_empty()
    }
}

/// What was put back.
#[derive(Debug, Default)]
pub struct Undone {
    /// Runs that are active again.
    pub runs: Vec<String>,
    /// Experiments that are active again, with their names.
    pub experiments: Vec<(String, String)>,
    /// Runs that came back with an experiment and were deleted again.
    pub deleted_again: u64,
    /// Runs and experiments that were active already.
    pub active: u64,
    /// What could not be put back, and why.
    pub failed: Vec<(String, String)>,
}

/// Puts back what a batch deleted. `note`: writes and syncs a line of the batch's journal.
///
/// # Errors
/// The journal cannot be written; or the server does not answer at all.
pub async fn undo(
    client: &Client,
    batched: &Batched,
    jobs: usize,
    note: &mut dyn FnMut(&Note) -> Outcome<()>,
    cancel: &Cancel,
) -> Outcome<Undone> {
    let mut undone = Undone::default();
    for experiment in &batched.experiments {
        cancel.check()?;
        restore_experiment(client, experiment, jobs, note, &mut undone).await?;
    }
    for chunk in batched.runs.chunks(RUNS_AT_ONCE) {
        cancel.check()?;
        let restore = |id: String| async move {
            let now = client.run(&id).await;
            let ended = match now {
                Ok(None) => Err("it is gone for good".to_owned()),
                Ok(Some(run)) if !run.deleted => Ok(false),
                Ok(Some(_)) => client.restore_run(&id).await.map(|()| true).map_err(|t| t.failure.message),
                Err(trouble) => Err(trouble.failure.message),
            };
            (id, ended)
        };
        let ended: Vec<(String, Result<bool, String>)> =
            futures_util::stream::iter(chunk.to_vec()).map(restore).buffer_unordered(jobs.max(1)).collect().await;
        let mut back = Vec::new();
        for (id, ended) in ended {
            match ended {
                Ok(true) => back.push(id),
                Ok(false) => undone.active += 1,
                Err(why) => undone.failed.push((id, why)),
            }
        }
        note(&Note::Undone { ids: back.clone() })?;
        undone.runs.extend(back);
    }
    Ok(undone)
}

async fn restore_experiment(
    client: &Client,
    before: &Before,
    jobs: usize,
    note: &mut dyn FnMut(&Note) -> Outcome<()>,
    undone: &mut Undone,
) -> Outcome<()> {
    let failed = |why: String| (format!("experiment {} ({})", before.id, before.name), why);
    match client.experiment(&before.id).await? {
        None => {
            undone.failed.push(failed("it is gone for good".to_owned()));
            return Ok(());
        }
        Some(now) if !now.deleted && !before.begun => {
            // Somebody brought it back, and had a reason to bring back what he did.
            undone.active += 1;
            return Ok(());
        }
        Some(now) if !now.deleted => {}
        Some(_) => {
            note(&Note::Undo { id: before.id.clone() })?;
            if let Err(trouble) = client.restore_experiment(&before.id).await {
                let back = client.experiment(&before.id).await.ok().flatten().is_some_and(|e| !e.deleted);
                if !back {
                    undone.failed.push(failed(trouble.failure.message));
                    return Ok(());
                }
            }
        }
    }
    let again = active_of(client, before).await?;
    let delete = |id: String| async move { client.delete_run(&id).await };
    let ended: Vec<_> = futures_util::stream::iter(again).map(delete).buffer_unordered(jobs.max(1)).collect().await;
    undone.deleted_again += ended.iter().filter(|reply| reply.is_ok()).count() as u64;
    let left = active_of(client, before).await?;
    if left.is_empty() {
        note(&Note::Undone { ids: vec![before.id.clone()] })?;
        undone.experiments.push((before.id.clone(), before.name.clone()));
        return Ok(());
    }
    let why = ended.into_iter().find_map(Result::err).map_or(String::new(), |t| format!(": {}", t.failure.message));
    undone.failed.push(failed(format!(
        "it is active again, but {} of its runs that were deleted before came back with it and could not be deleted \
         again{why}; run this undo once more",
        left.len()
    )));
    Ok(())
}

/// Runs that were deleted before the experiment was, and are active now.
async fn active_of(client: &Client, before: &Before) -> Outcome<Vec<String>> {
    let (ids, mut found) = ([before.id.clone()], Vec::new());
    for chunk in before.deleted_runs.chunks(RUNS_AT_ONCE) {
        let active = client.runs_by_id(&ids, chunk, View::Active).await?;
        found.extend(active.into_iter().map(|run| run.id));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(notes: &[Note]) -> Vec<String> {
        notes.iter().map(|note| serde_json::to_string(note).expect("json")).collect()
    }

    #[test]
    fn the_journal_tells_what_is_to_be_put_back() {
        let ids = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
        let experiment =
            |id: &str| Note::DeleteExperiment { id: id.to_owned(), name: id.to_owned(), deleted_runs: ids(&["x"]) };
        let mut notes = vec![
            Note::DeleteRuns { ids: ids(&["a", "b"]) },
            Note::Runs { deleted: ids(&["a"]) },
            Note::DeleteRuns { ids: ids(&["c", "d"]) },
            experiment("1"),
            Note::Experiment { id: "1".to_owned(), deleted: false },
            experiment("2"),
        ];
        let batched = Batched::of(&lines(&notes));
        assert_eq!(batched.runs, ["a", "c", "d"]);
        assert_eq!(batched.experiments.iter().map(|e| e.id.as_str()).collect::<Vec<_>>(), ["2"]);
        notes.push(Note::Undo { id: "2".to_owned() });
        notes.push(Note::Undone { ids: ids(&["a"]) });
        let batched = Batched::of(&lines(&notes));
        assert_eq!((batched.runs, batched.experiments[0].begun), (ids(&["c", "d"]), true));
        notes.push(Note::Undone { ids: ids(&["2", "c", "d"]) });
        assert!(Batched::of(&lines(&notes)).is_empty());
    }
}
