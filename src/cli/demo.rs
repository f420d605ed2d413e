//! `mlops demo`.

use std::path::PathBuf;

use clap::Args;

/// Makes a sample MLflow store and migrates it
///
/// Writes a realistic, always equal MLflow 3.17 store into a SQLite file and migrates it: into the database of
/// --target, else into a private throw-away PostgreSQL if its programs are installed, else into a second SQLite file.
#[derive(Args)]
pub(crate) struct Demo {
    /// Experiments
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub(crate) experiments: u32,
    /// Runs
    #[arg(long, value_name = "N", default_value_t = 200)]
    pub(crate) runs: u32,
    /// Metric rows, up to tens of millions
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    pub(crate) metrics: u64,
    /// Write the sample to this file and keep it
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Migrate into this PostgreSQL database
    #[arg(long, value_name = "URL")]
    pub(crate) target: Option<String>,
    /// Only write the sample
    #[arg(long, requires = "file")]
    pub(crate) only_sample: bool,
}
