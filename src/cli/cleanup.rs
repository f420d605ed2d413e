//! `mlops cleanup`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::backup::Messages;

const AFTER: &str = "\
Nothing is deleted without --yes: without it the plan is printed. What is deleted can be put back with `mlops cleanup undo`
until somebody purges it.

Exit codes: 4 when something could not be deleted or put back (it is listed), 10 when another cleanup works.

Examples:
  mlops cleanup experiments --older-than 90d --name 'scratch-*'
  mlops cleanup runs --older-than 30d --experiment 'forecast-*' --status FAILED --status KILLED --yes
  mlops cleanup runs --older-than 90d --keep-best 5 --metric rmse --lower --keep-last 20 --yes
  mlops cleanup policy --yes --ping https://hc-ping.com/UUID            # one line for cron
  mlops cleanup undo 20261121T030000Z-1f2e3d4c";

const PURGE: &str = "\
Exit codes: 0 all that was to go is gone, or the plan; 4 some of it stays, the list says why; 5 the experiment of --name
is needed by something and stays; 9 no file of anything is there, so that a disk may be missing; 10 another purge is at
work.

Artifacts need --artifact-root where the server passes them on (mlflow-artifacts:), or --tracking-uri: then the server
deletes them. The file of a SQLite database does not shrink by this; `VACUUM` does that, while no server runs.

Examples:
  mlops cleanup purge --older-than 30d                       # what would go
  mlops cleanup purge --older-than 30d --backup-first purged.tar --yes
  mlops cleanup purge --name churn --yes                     # frees the name of a deleted experiment
  mlops cleanup purge --older-than 0s --experiment 12 --artifacts none --yes";

const ORPHANS: &str = "\
Exit codes: 0 done, or the plan; 4 something could not be read, moved or removed (it is listed); 9 more than a tenth of what
lies below the root has no row (see --sole-owner); 10 another purge is at work.

Examples:
  mlops cleanup orphans                                   # what is there
  mlops cleanup orphans --yes                             # into quarantine; removes what was put there a day ago or earlier
  mlops cleanup orphans --put-back 20261121T030000Z-1f2e3d4c --yes
  mlops cleanup orphans --artifacts none --yes            # rows alone";

/// Delete old experiments and runs by policy, put them back, remove what is deleted for good
#[derive(Subcommand)]
#[command(after_help = AFTER)]
pub(crate) enum Cleanup {
    /// Soft-delete experiments whose last activity is long ago
    ///
    /// The last activity is the newest of: a run's start or end, a metric, a model version, a logged model, a trace, and
    /// the experiment's own creation. Kept: the default experiment, those with a run that a model version was made of,
    /// with a run that has not ended, with the tag mlops.keep on it or on a run (see --include).
    #[command(after_help = AFTER)]
    Experiments(Experiments),
    /// Soft-delete runs whose last activity is long ago
    ///
    /// The last activity is the newest of: start, end, a metric, a model version. Children are chosen with their parents; a
    /// parent stays as long as one of its children does. Kept: runs that a model version was made of - with a stage or an
    /// alias always -, runs that have not ended, runs with the tag mlops.keep (see --include).
    #[command(after_help = AFTER)]
    Runs(Runs),
    /// Do what [[cleanup.policy]] of the configuration says, entry after entry: the line for cron
    ///
    /// Each entry is a plan of its own, made when the one before is done, and a batch of its own: runs or experiments that
    /// are deleted, a purge, orphans. Without --yes all plans are printed, and nothing is changed.
    #[command(after_help = AFTER)]
    Policy(Policy),
    /// Put back exactly what a batch deleted; without an id, list the batches
    ///
    /// MLflow brings all runs of an experiment back with it: those that were deleted before the batch are deleted again.
    Undo(Undo),
    /// Remove deleted runs, logged models and experiments for good: artifacts, then rows
    ///
    /// What goes: runs and logged models that were deleted before the limit; experiments that were, with all in them, if no
    /// run in them is active or was deleted later. What stays whatever happens: what a model version comes from, parents of
    /// active runs, what has the tag mlops.keep or a row of another application's table, the default experiment unless it is
    /// named. The other rules of `cleanup runs` do not hold here: a deleted run goes, whether pinned, tagged or unfinished. Without --yes nothing is changed: it tells what would
    /// go. Works on the live database, in short transactions that look once more whether each thing is still deleted. A
    /// place of artifacts that is not certainly one thing's own is left, and told. What could not go keeps its rows (exit
    /// code 4); the next purge finds it.
    #[command(after_help = PURGE)]
    Purge(Purge),
    /// Find what lost its other half: artifacts without a row, rows without artifacts, rows without a parent
    ///
    /// Artifacts: places below the artifact root as MLflow makes them (RUN/artifacts, models/m-ID/artifacts,
    /// traces/ID/artifacts), in a folder that the database knows, that no row refers to, and in which nothing has changed for
    /// --min-age. With --yes they are moved to .mlops-orphans/BATCH below the root; a later run with --yes removes what has
    /// been there for --min-age, and moves back what has a row by then. Files of any other shape are never touched, nor are
    /// places with such files beside the artifacts.
    ///
    /// Rows: details of runs, logged models, traces and experiments that are not there any more, as `mlflow gc` leaves them;
    /// with --yes they are written to a file in the state folder and removed. Model versions and logged models of which no
    /// file is there are listed, and nothing is done about them.
    #[command(after_help = ORPHANS)]
    Orphans(Orphans),
}

/// What both take.
#[derive(Args)]
pub(crate) struct Shared {
    /// The time since the last activity: 90d, 12h
    #[arg(long, value_name = "TIME")]
    pub(crate) older_than: String,
    /// Keep names like this; may be given more than once
    #[arg(long, value_name = "GLOB")]
    pub(crate) exclude: Vec<String>,
    /// Only with this tag; without =V with any value; may be given more than once, and then all are asked for
    #[arg(long, value_name = "K=V")]
    pub(crate) tag: Vec<String>,
    /// Keep the newest N: of all experiments that are chosen, or of the runs of each experiment (a run counts with its
    /// children)
    #[arg(long, value_name = "N")]
    pub(crate) keep_last: Option<u64>,
    /// Do not protect these; may be given more than once
    #[arg(long, value_enum, value_name = "KIND")]
    pub(crate) include: Vec<Include>,
    #[command(flatten)]
    pub(crate) messages: Messages,
}

#[derive(Args)]
pub(crate) struct Experiments {
    /// Only experiments with names like this; may be given more than once
    #[arg(long, value_name = "GLOB")]
    pub(crate) name: Vec<String>,
    #[command(flatten)]
    pub(crate) shared: Shared,
}

#[derive(Args)]
pub(crate) struct Runs {
    /// Only runs with names like this; may be given more than once
    #[arg(long, value_name = "GLOB")]
    pub(crate) name: Vec<String>,
    /// Only runs of experiments with this id, or a name like this; may be given more than once
    #[arg(long, value_name = "ID|GLOB")]
    pub(crate) experiment: Vec<String>,
    /// Only with this status: FINISHED, FAILED, KILLED, RUNNING, SCHEDULED; may be given more than once
    #[arg(long, value_name = "STATUS")]
    pub(crate) status: Vec<String>,
    /// Only runs of this user; may be given more than once
    #[arg(long, value_name = "NAME")]
    pub(crate) user: Vec<String>,
    /// Keep the best N runs of each experiment by --metric
    #[arg(long, value_name = "N")]
    pub(crate) keep_best: Option<u64>,
    /// The metric of --keep-best
    #[arg(long, value_name = "NAME")]
    pub(crate) metric: Option<String>,
    /// Less of that metric is better
    #[arg(long)]
    pub(crate) lower: bool,
    #[command(flatten)]
    pub(crate) shared: Shared,
}

#[derive(Args)]
pub(crate) struct Policy {
    #[command(flatten)]
    pub(crate) messages: Messages,
}

#[derive(Args)]
pub(crate) struct Purge {
    /// Deleted so long ago or longer: 30d, 12h
    #[arg(long, value_name = "TIME", required_unless_present = "name")]
    pub(crate) older_than: Option<String>,
    /// Only in this experiment, by name or id; may be given more than once
    #[arg(long, value_name = "NAME|ID")]
    pub(crate) experiment: Vec<String>,
    /// Only the deleted experiment of that name, however lately it was deleted: its name is free after that
    #[arg(long, value_name = "EXPERIMENT", conflicts_with_all = ["older_than", "experiment"])]
    pub(crate) name: Option<String>,
    /// Whether artifacts go as well; `none`: rows alone, and the files stay for ever
    #[arg(long, value_enum, default_value = "all")]
    pub(crate) artifacts: Artifacts,
    /// Before anything goes, write an archive of just the rows that go; `mlops migrate import` brings them back into an
    /// empty database. Artifacts are not in it
    #[arg(long, value_name = "FILE.tar")]
    pub(crate) backup_first: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) messages: Messages,
}

#[derive(Args)]
pub(crate) struct Orphans {
    /// What was written later than that ago is left alone
    #[arg(long, value_name = "TIME", default_value = "24h")]
    pub(crate) min_age: String,
    /// Whether artifacts are looked at; `none`: rows alone
    #[arg(long, value_enum, default_value = "all")]
    pub(crate) artifacts: Artifacts,
    /// No other database has artifacts below that root: look at folders of experiments that this one does not know as well,
    /// and go on although more than a tenth of what is there has no row
    #[arg(long)]
    pub(crate) sole_owner: bool,
    /// Move everything of that batch back to where it was, and do nothing else; no later run takes it for an orphan
    #[arg(long, value_name = "BATCH", conflicts_with_all = ["min_age", "artifacts", "sole_owner"])]
    pub(crate) put_back: Option<String>,
    #[command(flatten)]
    pub(crate) messages: Messages,
}

#[derive(Args)]
pub(crate) struct Undo {
    /// The batch
    #[arg(value_name = "ID")]
    pub(crate) id: Option<String>,
}

/// What is protected unless it is named.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Include {
    /// The default experiment (0)
    Default,
    /// Runs behind model versions without a stage and an alias; those with one are always kept
    Registered,
    /// What has the tag mlops.keep
    Keep,
    /// What has a tag `pinned`, or one that ends in `.pinned`; the pins of MLflow's own page are kept by the browser only
    Pinned,
    /// Runs that have not ended
    Running,
}

/// Which artifacts are meant.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Artifacts {
    All,
    None,
}
