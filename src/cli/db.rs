//! `mlops db`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Subcommand)]
pub(crate) enum Db {
    /// What a database is: engine, MLflow's revision and the releases that have it, rows and bytes per table
    Info(Info),
    /// Make the role and the database that MLflow needs on a PostgreSQL server, and its tables if wanted
    ///
    /// Makes what is missing and leaves what is there: run it as often as you like. The role may log in and owns its
    /// database, and has no other power on the server; the database is UTF8, and nobody else may connect to it (but
    /// superusers). A role or database that is there with other properties is changed only with consent; the SQL is
    /// shown. An interrupted run is completed by the next one.
    ///
    /// The password comes from an environment variable or a file. Only its SCRAM-SHA-256 verifier is sent, so it stands
    /// in no log of the server's. Nothing of it is special to TimescaleDB, where MLflow's tables stay ordinary tables; it was
    /// not tested there.
    ///
    /// MLflow's server makes its tables by itself when it starts on the new database; --schema makes them before that, at
    /// the release you name, as that release makes them.
    #[command(after_help = INIT_EXAMPLES)]
    Init(Init),
    /// Every difference between a database and MLflow's schema at its revision, what it breaks, and the SQL that mends it
    ///
    /// Looks at tables, columns, types, keys, constraints, indexes, sequences and triggers, at what an interrupted
    /// upgrade or migration left, and at what only rows show: rows without their parent, latest_metrics that disagree
    /// with metrics, runs and experiments that disagree on deletion. Changes nothing without --fix. Ends with 0 where
    /// nothing is worse than a note, else with 5.
    Doctor(Doctor),
}

const INIT_EXAMPLES: &str = "\
Examples:
  export MLFLOW_DB_PASSWORD=...
  mlops db init postgresql://postgres@db.example.com/ --password-env MLFLOW_DB_PASSWORD
  mlops db init postgresql://postgres@db.example.com/ --database mlflow_prod --schema 3.4.0 --dry-run
  sudo -u postgres mlops db init 'postgresql:///postgres?host=/var/run/postgresql'
  mlops db init --print --password-file mlflow.password > init.sql";

#[derive(Args)]
pub(crate) struct Info {
    /// The database: a SQLite file or a postgresql:// address [default: backend_store_uri of the settings]
    #[arg(value_name = "URL")]
    pub(crate) url: Option<String>,
}

#[derive(Args)]
pub(crate) struct Init {
    /// An administrator's address of the server: postgresql://postgres@host/postgres; the role needs CREATEROLE and
    /// CREATEDB, and its password is read from the address, PGPASSWORD or ~/.pgpass
    #[arg(value_name = "URL", required_unless_present = "print")]
    pub(crate) url: Option<String>,
    /// The role that MLflow will log in as
    #[arg(long, value_name = "NAME", default_value = "mlflow")]
    pub(crate) role: String,
    /// The database that it will own [default: named as the role]
    #[arg(long, value_name = "NAME")]
    pub(crate) database: Option<String>,
    /// The environment variable that holds the role's password [default: the role is made without a password]
    #[arg(long, value_name = "VAR", conflicts_with = "password_file")]
    pub(crate) password_env: Option<String>,
    /// The file that holds the role's password; a line end at its end is not part of it
    #[arg(long, value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,
    /// Also make MLflow's tables of a release (3.4.0) or of a revision (71994744cf8e)
    #[arg(long, value_name = "REVISION|RELEASE")]
    pub(crate) schema: Option<String>,
    /// Print a script for psql that does the same, and do nothing; no server is needed
    #[arg(long)]
    pub(crate) print: bool,
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
