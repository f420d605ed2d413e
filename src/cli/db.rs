//! `mlops db`.

use clap::{Args, Subcommand};

#[derive(Subcommand)]
pub(crate) enum Db {
    /// What a database is: engine, MLflow's revision and the releases that have it, rows and bytes per table
    Info(Info),
    /// Every difference between a database and MLflow's schema at its revision, what it breaks, and the SQL that mends it
    ///
    /// Looks at tables, columns, types, keys, constraints, indexes, sequences and triggers, at what an interrupted
    /// upgrade or migration left, and at what only rows show: rows without their parent, latest_metrics that disagree
    /// with metrics, runs and experiments that disagree on deletion. Changes nothing without --fix. Ends with 0 where
    /// nothing is worse than a note, else with 5.
    Doctor(Doctor),
}

#[derive(Args)]
pub(crate) struct Info {
    /// The database: a SQLite file or a postgresql:// address [default: backend_store_uri of the settings]
    #[arg(value_name = "URL")]
    pub(crate) url: Option<String>,
}

#[derive(Args)]
pub(crate) struct Doctor {
    /// The database: a SQLite file or a postgresql:// address [default: backend_store_uri of the settings]
    #[arg(value_name = "URL")]
    pub(crate) url: Option<String>,
    /// Mend what SQL can mend without losing data, in one transaction that is checked before it is committed
    #[arg(long)]
    pub(crate) fix: bool,
    /// Print the SQL that --fix would run, as a script for psql, and change nothing
    #[arg(long, conflicts_with = "fix")]
    pub(crate) print: bool,
}
