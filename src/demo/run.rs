//! Runs with their params and tags.

use super::chance::{Chance, hex, uuid};
use super::experiment::Experiment;
use super::row::{Rows, Value};
use super::stack::{BEGIN, DAY, HOUR, MINUTE, SECOND, SPAN, Stack};
use crate::domain::failure::Outcome;

/// MLflow's states of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Scheduled,
    Running,
    Finished,
    Failed,
    Killed,
}

impl Status {
    /// The state of the run of that index.
    pub(super) fn of(index: u32) -> Status {
        match index % 20 {
            6 => Status::Killed,
            9 | 15 => Status::Failed,
            18 => Status::Running,
            19 => Status::Scheduled,
            _ => Status::Finished,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Status::Scheduled => "SCHEDULED",
            Status::Running => "RUNNING",
            Status::Finished => "FINISHED",
            Status::Failed => "FAILED",
            Status::Killed => "KILLED",
        }
    }
}

/// Of ten runs one is a sweep, and the four after it are its trials.
const SWEEP: u32 = 3;
const TRIALS: u32 = 4;

/// Whether the run of that index is a sweep with trials below it.
pub(super) fn leads(index: u32) -> bool {
    index % 10 == SWEEP
}

/// The sweep that the run belongs to, and its place there.
fn sweep_of(index: u32) -> Option<(u32, u32)> {
    let place = (index % 10).checked_sub(SWEEP + 1).filter(|p| *p < TRIALS)?;
    Some((index - place - 1, place))
}

/// One run.
pub(super) struct Run {
    pub(super) index: u32,
    pub(super) id: String,
    pub(super) experiment: Experiment,
    pub(super) status: Status,
    pub(super) start: i64,
    pub(super) end: Option<i64>,
    pub(super) deleted: Option<i64>,
    /// Its sweep, where it is a trial of one, and its place in it.
    sweep: Option<(u32, u32)>,
    pub(super) user: &'static str,
}

/// The longest that a trial takes; they are started one after the other.
const TRIAL: i64 = 25 * MINUTE;

const USERS: [&str; 6] = ["ada", "grace", "lin", "josé.garcía", "svc-airflow", "m.müller@example.com"];
const ADJECTIVES: [&str; 12] = [
    "adorable",
    "bold",
    "calm",
    "clumsy",
    "delicate",
    "enthused",
    "gifted",
    "intrigued",
    "nervous",
    "polite",
    "rare",
    "zealous",
];
const ANIMALS: [&str; 12] =
    ["ant", "bear", "crane", "dolphin", "finch", "goose", "hare", "moth", "newt", "otter", "shrike", "wolf"];

impl Run {
    /// Its name.
    pub(super) fn name(&self) -> String {
        let mut chance = Chance::of("run's name", self.index.into());
        match self.sweep {
            Some((_, place)) => format!("trial-{place}"),
            None if leads(self.index) => format!("sweep {}: learning_rate × depth", self.index / 10 + 1),
            None if self.index % 23 == 11 => format!("größeres Modell 🚀 {}", self.index),
            None => {
                format!("{}-{}-{}", chance.word(&ADJECTIVES), chance.word(&ANIMALS), chance.below(1000))
            }
        }
    }

    /// How long it took, or has taken so far.
    pub(super) fn duration(&self) -> i64 {
        self.end.map_or(HOUR, |end| end - self.start)
    }

    /// The id of the model that it logged.
    pub(super) fn model(&self) -> Option<String> {
        self.has_model().then(|| format!("m-{}", uuid("logged model", self.index.into())))
    }

    fn has_model(&self) -> bool {
        self.status == Status::Finished && self.index.is_multiple_of(4) && !leads(self.index)
    }

    /// Whether it logged a model that is whole and still there.
    pub(super) fn has_good_model(&self) -> bool {
        self.has_model() && self.index % 60 != 32 && self.index % 60 != 52 && self.index % 40 != 24
    }

    /// Where its artifacts are.
    fn artifacts(&self) -> String {
        format!("mlflow-artifacts:/{}/{}/artifacts", self.experiment.id, self.id)
    }
}

/// The id of the run of that index.
pub(super) fn run_id(index: u32) -> String {
    uuid("run", index.into())
}

impl Stack {
    /// The run of that index.
    pub(super) fn run(&self, index: u32) -> Run {
        let sweep = sweep_of(index);
        let leader = sweep.map_or(index, |(leader, _)| leader);
        let mut chance = Chance::of("run", index.into());
        let experiment = self.experiment(self.experiment_of(leader));
        let status = Status::of(index);
        let start = self.start_of(leader);
        let (start, length) = match sweep {
            Some((_, place)) => (start + 5 * SECOND + TRIAL * i64::from(place), 4 * MINUTE + chance.time(20 * MINUTE)),
            None if leads(index) => (start, 10 * SECOND + TRIAL * i64::from(TRIALS)),
            None => (start, 3 * MINUTE + chance.time(5 * HOUR)),
        };
        let end = (!matches!(status, Status::Running | Status::Scheduled)).then_some(start + length);
        let alone = (index % 17 == 5).then(|| end.unwrap_or(start) + 2 * DAY + chance.time(30 * DAY));
        Run {
            index,
            id: run_id(index),
            deleted: experiment.deleted.or(alone),
            experiment,
            status,
            start,
            end,
            sweep,
            user: chance.word(&USERS),
        }
    }

    fn experiment_of(&self, leader: u32) -> u32 {
        let mut chance = Chance::of("run's experiment", leader.into());
        match self.experiments {
            0 | 1 => 0,
            _ if chance.below(16) == 0 => 0,
            n => 1 + u32::try_from(chance.below(u64::from(n) - 1)).unwrap_or(0),
        }
    }

    fn start_of(&self, leader: u32) -> i64 {
        let jitter = Chance::of("run's start", leader.into()).time(HOUR);
        BEGIN + 2 * DAY + SPAN * i64::from(leader) / i64::from(self.runs.max(1)) + jitter
    }

    fn every_run(&self) -> impl Iterator<Item = Run> + '_ {
        (0..self.runs).map(|index| self.run(index))
    }

    pub(super) fn runs(&self, rows: &mut Rows<'_>) -> Outcome<()> {
        for run in self.every_run() {
            rows.add(&[
                ("run_uuid", (&run.id).into()),
                ("name", run.name().into()),
                ("source_type", "UNKNOWN".into()),
                ("source_name", "".into()),
                ("entry_point_name", "".into()),
                ("user_id", run.user.into()),
                ("status", run.status.word().into()),
                ("start_time", run.start.into()),
                ("end_time", run.end.into()),
                ("source_version", "".into()),
                ("lifecycle_stage", if run.deleted.is_some() { "deleted" } else { "active" }.into()),
                ("artifact_uri", run.artifacts().into()),
                ("experiment_id", run.experiment.id.into()),
                ("deleted_time", run.deleted.into()),
            ])?;
        }
        Ok(())
    }

    pub(super) fn params(&self, rows: &mut Rows<'_>) -> Outcome<()> {
        for run in self.every_run().filter(|r| r.status != Status::Scheduled) {
            let mut chance = Chance::of("params", run.index.into());
            for (key, values) in run.experiment.project.params {
                let value = chance.word(values);
                rows.add(&[("key", (*key).into()), ("value", value.into()), ("run_uuid", (&run.id).into())])?;
            }
        }
        Ok(())
    }

    pub(super) fn tags(&self, rows: &mut Rows<'_>) -> Outcome<()> {
        for run in self.every_run() {
            let project = run.experiment.project;
            let index = u64::from(run.index);
            let mut add = |key: &str, value: Value<'_>| {
                rows.add(&[("key", key.into()), ("value", value), ("run_uuid", (&run.id).into())])
            };
            add("mlflow.user", run.user.into())?;
            add("mlflow.runName", run.name().into())?;
            add("mlflow.source.name", project.script.into())?;
            add("mlflow.source.type", if run.user.starts_with("svc-") { "JOB" } else { "LOCAL" }.into())?;
            // Several runs of the same state of the code.
            add("mlflow.source.git.commit", hex("commit", index / 6, 40).into())?;
            if let Some((leader, _)) = run.sweep {
                add("mlflow.parentRunId", run_id(leader).into())?;
            }
            if !project.team.is_empty() {
                add("team", project.team.into())?;
            }
            if run.index % 13 == 2 {
                add("mlflow.note.content", NOTE.into())?;
            }
            if run.index % 29 == 8 {
                add("mlops.keep", "true".into())?;
            }
        }
        Ok(())
    }
}

const NOTE: &str =
    "Better than last week's, see `C:\\reports\\week 23`.\n\n* \"recall\" is still low\n* 次: try 2× the data\tand \\N";
