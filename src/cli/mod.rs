//! The command line: clap structs and nothing else. What they mean is in [`crate::command`].

pub(crate) mod backup;
pub(crate) mod cleanup;
pub(crate) mod config;
pub(crate) mod db;
pub(crate) mod demo;
mod examples;
pub(crate) mod health;
pub(crate) mod migrate;
pub(crate) mod models;
pub(crate) mod promote;
pub(crate) mod verify;

use std::path::PathBuf;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

const AFTER: &str = "\
Exit codes:
  0  done                          6  the source failed or is unfit
  1  internal error                7  the target failed
  2  wrong arguments               8  a server is unreachable
  3  configuration                 9  refused without consent
  4  done in part, list printed   10  locked by another mlops
  5  the check says no            11  archive damaged, unfinished or too new
  130, 143  interrupted

stdout carries the result and nothing else; progress, warnings and hints go to stderr.";

/// The operator's toolkit for MLflow
///
/// Looks at the whole stack in one cron line: server, database, artifacts, registry, runs, metrics and backups. Puts models
/// into production through gates, and back. Deletes what is old by policy, and puts it back. Backs database and artifacts up as one unit while the stack is in use, proves the backups and restores them. Moves an MLflow
/// backend database from SQLite to PostgreSQL, exact to the cell and all or nothing, writes it into archives and brings it
/// back, compares any two stores, sets a PostgreSQL up for MLflow, and finds and mends what is not as MLflow makes it.
/// Works on the databases of MLflow 1.0 to 3.17 at every schema revision.
#[derive(Parser)]
#[command(name = "mlops", version, after_help = AFTER, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Move a store to another database or into an archive and back, or compare two stores
    #[command(subcommand)]
    Migrate(migrate::Migrate),
    /// Look at a backend database, mend it, or make a new one
    #[command(subcommand)]
    Db(db::Db),
    /// Look at the whole stack at once, and end with the exit code that a monitor understands
    Health(health::Health),
    Backup(Box<backup::Backup>),
    Restore(backup::Restore),
    #[command(subcommand)]
    Cleanup(cleanup::Cleanup),
    Promote(Box<promote::Promote>),
    Rollback(promote::Rollback),
    #[command(subcommand)]
    Verify(verify::Verify),
    /// Look at the model registry, register models, export what is in production, tell who was champion when
    #[command(subcommand)]
    Models(models::Models),
    /// Make a sample MLflow store and migrate it, to see what this tool does
    Demo(demo::Demo),
    #[command(subcommand)]
    Config(config::Config),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the man pages into a folder
    Man {
        /// The folder; it is made if it is not there
        folder: PathBuf,
    },
}

/// Flags that every command takes.
#[derive(Args)]
pub(crate) struct Global {
    /// Configuration file [default: MLOPS_CONFIG, ~/.config/mlops/config.toml, /etc/mlops/config.toml]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Global options")]
    pub(crate) config: Option<PathBuf>,
    /// Profile in the configuration file whose values beat the file's own [default: MLOPS_PROFILE]
    #[arg(long, global = true, value_name = "NAME", help_heading = "Global options")]
    pub(crate) profile: Option<String>,
    /// Tracking server [default: MLOPS_TRACKING_URI, MLFLOW_TRACKING_URI]
    #[arg(long, global = true, value_name = "URL", help_heading = "Global options")]
    pub(crate) tracking_uri: Option<String>,
    /// Backend database of MLflow's: a SQLite file or a postgresql:// address [default: MLOPS_BACKEND_STORE_URI,
    /// MLFLOW_BACKEND_STORE_URI]
    #[arg(long, global = true, value_name = "URL", help_heading = "Global options")]
    pub(crate) backend_store_uri: Option<String>,
    /// Where the server's artifacts are: a folder or s3://bucket/path [default: MLOPS_ARTIFACT_ROOT,
    /// MLFLOW_ARTIFACTS_DESTINATION, MLFLOW_DEFAULT_ARTIFACT_ROOT]
    #[arg(long, global = true, value_name = "ROOT", help_heading = "Global options")]
    pub(crate) artifact_root: Option<String>,
    /// Form of the result [default: table]
    #[arg(long, global = true, value_enum, help_heading = "Global options")]
    pub(crate) output: Option<Output>,
    /// Say nothing on stderr but errors
    #[arg(long, short, global = true, help_heading = "Global options")]
    pub(crate) quiet: bool,
    /// Log to stderr what is done; twice: every statement
    #[arg(long, short, global = true, action = clap::ArgAction::Count, help_heading = "Global options")]
    pub(crate) verbose: u8,
    /// Colours on the terminal [default: auto; NO_COLOR is honoured]
    #[arg(long, global = true, value_enum, help_heading = "Global options")]
    pub(crate) color: Option<Color>,
    /// Progress on stderr: bars on a terminal, else a line every few seconds [default: auto]
    #[arg(long, global = true, value_enum, help_heading = "Global options")]
    pub(crate) progress: Option<Progress>,
    /// Agree to what would be asked
    #[arg(long, global = true, help_heading = "Global options")]
    pub(crate) yes: bool,
    /// Print the plan and stop; the exit code is that of the refusal the real run would give
    #[arg(long, global = true, help_heading = "Global options")]
    pub(crate) dry_run: bool,
    /// Folder for private copies of SQLite files [default: TMPDIR or /tmp]
    #[arg(long, global = true, value_name = "DIR", help_heading = "Global options")]
    pub(crate) work_dir: Option<PathBuf>,
    /// Folder for what is remembered between runs [default: /var/lib/mlops for root, else ~/.local/state/mlops]
    #[arg(long, global = true, value_name = "DIR", help_heading = "Global options")]
    pub(crate) state_dir: Option<PathBuf>,
    /// Threads and connections that work at once [default: the number of processors]
    #[arg(long, global = true, value_name = "N", help_heading = "Global options")]
    pub(crate) jobs: Option<usize>,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Output {
    /// For people
    Table,
    /// One document
    Json,
    /// A monitoring plugin's status line and performance data (health only)
    Nagios,
    /// Prometheus' text format (health only)
    Prometheus,
    /// For a ticket or a chat (health only)
    Markdown,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Color {
    Auto,
    Always,
    Never,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Progress {
    Auto,
    Plain,
    Json,
    None,
}

/// The word of a value as it is typed.
pub(crate) fn word(value: impl ValueEnum) -> String {
    value.to_possible_value().map(|v| v.get_name().to_owned()).unwrap_or_default()
}

/// The whole command line.
pub fn definition() -> clap::Command {
    examples::shown(Cli::command())
}

/// Reads the command line of this process.
///
/// # Errors
/// What clap has to say of it: help, the version, or a complaint.
pub(crate) fn parsed() -> Result<Cli, clap::Error> {
    let matches = definition().try_get_matches()?;
    Cli::from_arg_matches(&matches)
}
