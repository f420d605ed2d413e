//! The stack that the sample is of: its size, its calendar, and who depends on whom.

use super::chance::Chance;
use super::experiment::Use;
use super::row::Rows;
use super::run::Status;
use crate::domain::failure::Outcome;

/// 2025-03-03T08:00:00Z in milliseconds: the first experiment is made.
pub(super) const BEGIN: i64 = 1_740_988_800_000;
pub(super) const SECOND: i64 = 1000;
pub(super) const MINUTE: i64 = 60 * SECOND;
pub(super) const HOUR: i64 = 60 * MINUTE;
pub(super) const DAY: i64 = 24 * HOUR;
/// From the first run to the last.
pub(super) const SPAN: i64 = 340 * DAY;
/// When all runs have ended.
pub(super) const END: i64 = BEGIN + SPAN + 5 * DAY;

/// Versions of one registered model, at most.
const VERSIONS: usize = 7;

/// Everything that rows are made from.
pub(super) struct Stack {
    pub(super) revision: String,
    pub(super) experiments: u32,
    pub(super) runs: u32,
    pub(super) metric_rows: u64,
    /// The sum of the runs' weights.
    weight: u64,
    /// Per experiment: the runs whose models were registered, oldest first.
    pub(super) registered: Vec<Vec<u32>>,
    /// The experiment that traces go to, with one of its runs.
    pub(super) traced: (u32, Option<u32>),
}

impl Stack {
    pub(super) fn new(revision: &str, experiments: u32, runs: u32, metric_rows: u64) -> Stack {
        let experiments = experiments.max(1);
        let mut stack = Stack {
            revision: revision.to_owned(),
            experiments,
            runs,
            metric_rows,
            weight: 0,
            registered: vec![Vec::new(); experiments as usize],
            traced: (0, None),
        };
        stack.traced.0 = (0..experiments).find(|id| stack.experiment(*id).project.traced).unwrap_or(0);
        let mut versions_of: Vec<Vec<(Option<i64>, u32)>> = vec![Vec::new(); experiments as usize];
        for index in 0..runs {
            stack.weight += weight(index);
            let run = stack.run(index);
            if run.experiment.id == stack.traced.0 && stack.traced.1.is_none() {
                stack.traced.1 = Some(index);
            }
            let can_register = run.experiment.model().is_some() && run.deleted.is_none() && run.has_good_model();
            if let Some(versions) = versions_of.get_mut(run.experiment.id as usize).filter(|_| can_register)
                && versions.len() < VERSIONS
            {
                versions.push((run.end, index));
            }
        }
        for (versions, registered) in versions_of.iter_mut().zip(&mut stack.registered) {
            versions.sort_unstable();
            registered.extend(versions.iter().map(|(_, index)| index));
        }
        stack
    }

    /// All runs with the number of metric rows of each; the numbers add up to all metric rows.
    pub(super) fn metric_shares(&self) -> impl Iterator<Item = (u32, u64)> + '_ {
        let mut before = 0u64;
        (0..self.runs).scan(0u64, move |sum, index| {
            *sum += weight(index);
            let until = u128::from(self.metric_rows) * u128::from(*sum) / u128::from(self.weight.max(1));
            let until = u64::try_from(until).unwrap_or(u64::MAX);
            let share = until - before;
            before = until;
            Some((index, share))
        })
    }

    pub(super) fn alembic_version(&self, rows: &mut Rows<'_>) -> Outcome<()> {
        rows.add(&[("version_num", (&self.revision).into())])
    }

    pub(super) fn workspaces(&self, rows: &mut Rows<'_>) -> Outcome<()> {
        rows.add(&[("name", "default".into()), ("description", "Default workspace for legacy resources".into())])
    }

    /// What runs read and made: datasets, models.
    pub(super) fn inputs(&self, rows: &mut Rows<'_>) -> Outcome<()> {
        self.each_dataset_input(&mut |id, run, dataset, _| {
            rows.add(&[
                ("input_uuid", id.into()),
                ("source_type", "DATASET".into()),
                ("source_id", dataset.into()),
                ("destination_type", "RUN".into()),
                ("destination_id", run.into()),
                ("step", 0i64.into()),
            ])
        })?;
        for run in (0..self.runs).map(|index| self.run(index)) {
            let Some(model) = run.model() else { continue };
            rows.add(&[
                ("input_uuid", super::chance::uuid("output", u64::from(run.index)).into()),
                ("source_type", "RUN_OUTPUT".into()),
                ("source_id", run.id.into()),
                ("destination_type", "MODEL_OUTPUT".into()),
                ("destination_id", model.into()),
                ("step", 0i64.into()),
            ])?;
        }
        Ok(())
    }

    pub(super) fn input_tags(&self, rows: &mut Rows<'_>) -> Outcome<()> {
        self.each_dataset_input(&mut |id, _, _, used| {
            rows.add(&[
                ("input_uuid", id.into()),
                ("name", "mlflow.data.context".into()),
                ("value", used.word().into()),
            ])
        })
    }

    /// Calls `each` with (id of the input, id of the run, id of the dataset, its use).
    fn each_dataset_input(&self, each: &mut dyn FnMut(String, String, String, Use) -> Outcome<()>) -> Outcome<()> {
        for run in (0..self.runs).map(|index| self.run(index)).filter(|r| r.status != Status::Scheduled) {
            for used in [Use::Training, Use::Evaluation] {
                let evaluated = Chance::of("evaluated", u64::from(run.index)).below(3) == 0;
                if used == Use::Evaluation && !evaluated {
                    continue;
                }
                let Some(dataset) = run.experiment.dataset(used) else { continue };
                let index = u64::from(run.index) * 2 + u64::from(used == Use::Evaluation);
                each(super::chance::uuid("input", index), run.id.clone(), dataset.id, used)?;
            }
        }
        Ok(())
    }
}

/// How many of the metric rows a run has, compared with others. The first run has some.
fn weight(index: u32) -> u64 {
    match Status::of(index) {
        Status::Scheduled => 0,
        _ if super::run::leads(index) => 1,
        _ => 2 + Chance::of("weight", u64::from(index)).below(5),
    }
}
