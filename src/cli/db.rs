//! `mlops db`.

use clap::{Args, Subcommand};

#[derive(Subcommand)]
pub(crate) enum Db {
    /// What a database is: engine, MLflow's revision and the releases that have it, rows and bytes per table
    Info(Info),
}

#[derive(Args)]
pub(crate) struct Info {
    /// The database: a SQLite file or a postgresql:// address [default: backend_store_uri of the settings]
    #[arg(value_name = "URL")]
    pub(crate) url: Option<String>,
}
