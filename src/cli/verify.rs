//! `mlops verify`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

const AFTER: &str = "\
Exit codes: 0 all is as it has to be, 5 the check says no (what is wrong is listed), 8 the server is not there, 4 the check
says yes but something that was made for it could not be removed.

What a check makes on the server is called mlops-verify-<id> and carries the tag mlops.marker=<id>. It is removed at the end,
also after a failure or an interrupt; what a killed run left is removed by the next one. Over REST alone
experiments and their runs are only soft-deleted: they are listed, and `mlops cleanup purge` removes them for good. With
--backend-store-uri that is done at once.";

/// Prove a tracking server by using it: restarts, upgrades and moves, a new deployment, concurrent writers
#[derive(Subcommand)]
#[command(after_help = AFTER)]
pub(crate) enum Verify {
    /// Restart the stack, and see whether all that was in it is still there
    ///
    /// Writes marker experiments, reads all experiments, runs, models and versions with a sample of histories and files, has the
    /// server restarted and sees that it really was, reads all again and compares, and writes once more. With the database's
    /// address (--backend-store-uri) every row of every table is digested before and after. Whatever is lost or changed is
    /// named; what others add or log to running runs meanwhile is noted.
    #[command(after_help = AFTER)]
    Persistence(Persistence),
    /// Write down what a stack holds, for `verify compare` after an upgrade or a move
    ///
    /// Nothing is changed. The file holds hashes of params, tags and files, and the names and numbers of all else; only its
    /// owner can read it.
    Snapshot(Snapshot),
    /// Compare a stack with a snapshot of it: what was lost, what was changed, what is new
    ///
    /// Exit code 5 where anything was lost or changed; what is new, and what went on in runs that had not ended, is noted.
    Compare(Compare),
    /// Register, find, download, move and delete a small model, step by step
    ///
    /// A valid model made by this program is logged the way MLflow's client does it (on MLflow 3 as a logged model as well),
    /// its files go to where the server keeps artifacts, and it is found again by name, version, alias and id. Each step is
    /// judged by what the server gives back; one that fails does not stop what does not stand on it.
    #[command(after_help = AFTER)]
    Deployment(Deployment),
    /// Let many writers write at the same time, and compare what is there with what the server said
    ///
    /// Each writer has connections and an experiment of its own, and one that all share. Every value tells who wrote it when:
    /// what was acknowledged and is not there is lost; what is there twice, in part, or was written by nobody is named as
    /// well. Times are told as p50, p95, p99 and max, errors by kind. With --backend-store-uri a PostgreSQL's connections and
    /// lock waits are watched meanwhile. Limits of [verify.concurrency] in the configuration hold where no flag is given.
    #[command(after_help = AFTER)]
    Concurrency(Concurrency),
}

/// What every verification takes.
#[derive(Args)]
pub(crate) struct Keeping {
    /// Leave what was made on the server, and tell its names
    #[arg(long)]
    pub(crate) keep: bool,
    /// Write the account as a Markdown page as well: procedure, checkpoints, figures, findings, verdict
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
}

#[derive(Args)]
#[command(group = clap::ArgGroup::new("way").required(true).multiple(false))]
pub(crate) struct Persistence {
    /// Shell command that restarts the server; what it starts stays
    #[arg(long, value_name = "CMD", group = "way")]
    pub(crate) restart_cmd: Option<String>,
    /// Restart a container by Docker: `docker:CONTAINER`, or `compose:SERVICE` in the folder of the Compose file
    #[arg(long, value_name = "KIND:NAME", group = "way")]
    pub(crate) restart: Option<String>,
    /// Wait until somebody has restarted it by hand, 30 minutes at most; on a terminal Enter says that it is done
    #[arg(long, group = "way")]
    pub(crate) pause: bool,
    /// Experiments that are made, each with a run
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) experiments: u16,
    /// How long the server may take to answer a search again
    #[arg(long, value_name = "TIME", default_value = "120s")]
    pub(crate) ready_timeout: String,
    /// How long the restart command may take
    #[arg(long, value_name = "TIME", default_value = "5m")]
    pub(crate) restart_timeout: String,
    /// How long after the command, or after Enter, the restart may begin: one that is only asked for begins later
    #[arg(long, value_name = "TIME", default_value = "60s")]
    pub(crate) restart_seen_within: String,
    /// Nobody else uses the stack: whatever is new or went on is wrong as well
    #[arg(long)]
    pub(crate) frozen: bool,
    /// A kind of finding that is known and is no reason to fail; may be given more than once: ephemeral_path, relative_path,
    /// anonymous_volume, restart_not_seen, release_changed, secrets_unreadable_before
    #[arg(long, value_name = "KIND")]
    pub(crate) accept: Vec<String>,
    #[command(flatten)]
    pub(crate) keeping: Keeping,
}

#[derive(Args)]
pub(crate) struct Snapshot {
    /// The file, which must not be there yet
    #[arg(long, value_name = "FILE")]
    pub(crate) file: PathBuf,
}

#[derive(Args)]
pub(crate) struct Compare {
    /// The snapshot
    #[arg(long, value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Accept what an upgrade of MLflow or a move to another engine changes, and nothing else: the revision, tables and columns
    /// that are new, fields and tags of its own that a newer release fills
    #[arg(long)]
    pub(crate) allow_upgrade: bool,
    /// Nobody used the stack in between: whatever is new or went on is wrong as well
    #[arg(long)]
    pub(crate) frozen: bool,
    /// Write the account as a Markdown page as well
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct Deployment {
    /// Name of the registered model that is made and removed again [default: mlops-verify-<id>]
    #[arg(long, value_name = "NAME")]
    pub(crate) model: Option<String>,
    /// Another part of the deployment that has to answer: `gateway=http://host/health`, or with a condition on its JSON,
    /// `gateway=http://host/health where .models > 0`; may be given more than once
    #[arg(long, value_name = "NAME=URL[ where CONDITION]")]
    pub(crate) service: Vec<String>,
    #[command(flatten)]
    pub(crate) keeping: Keeping,
}

#[derive(Args)]
pub(crate) struct Concurrency {
    /// Writers at the same time
    #[arg(long, value_name = "N")]
    pub(crate) writers: u32,
    /// Runs of each writer
    #[arg(long, value_name = "N", default_value_t = 5, conflicts_with = "duration")]
    pub(crate) runs: u32,
    /// Points of each run: half of them logged one by one, half in batches
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(crate) metrics: u32,
    /// As many runs as fit in this time, one at least: 60s
    #[arg(long, value_name = "TIME")]
    pub(crate) duration: Option<String>,
    /// The document that an earlier run printed with --output json, to compare with
    #[arg(long, value_name = "FILE")]
    pub(crate) baseline: Option<PathBuf>,
    /// The longest p95 of each operation: 500ms
    #[arg(long, value_name = "TIME", help_heading = "Limits, instead of those of [verify.concurrency]")]
    pub(crate) max_p95: Option<String>,
    /// The least operations a second, all together
    #[arg(long, value_name = "N", help_heading = "Limits, instead of those of [verify.concurrency]")]
    pub(crate) min_rate: Option<f64>,
    /// Operations that may fail [default: 0]
    #[arg(long, value_name = "N", help_heading = "Limits, instead of those of [verify.concurrency]")]
    pub(crate) max_errors: Option<u64>,
    /// How many times slower than the baseline the p95 of each operation, and the rate of all, may be: 1.5
    #[arg(
        long,
        value_name = "N",
        requires = "baseline",
        help_heading = "Limits, instead of those of [verify.concurrency]"
    )]
    pub(crate) worse_than: Option<f64>,
    #[command(flatten)]
    pub(crate) keeping: Keeping,
}
