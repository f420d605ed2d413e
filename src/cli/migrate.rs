//! `mlops migrate`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Subcommand)]
pub(crate) enum Migrate {
    /// Move an MLflow SQLite database into PostgreSQL
    ///
    /// Takes a private copy of the file (a running server may go on writing; stop it before, so that nothing is
    /// written after the copy), loads it into a schema of its own in the target database, builds all keys and indexes,
    /// reads everything back and compares it with the source, and only then puts the tables in place in one short
    /// transaction. Every id and time stays. If anything fails, the target is as it was.
    ///
    /// The result is the schema that MLflow itself makes at the source's revision: the same server runs on it at once,
    /// and a newer one upgrades it as usual.
    SqliteToPg(SqliteToPg),
    /// Compare any two stores, table by table and cell by cell
    ///
    /// Exit code 5 and the table, key and column of what differs, if anything does.
    Verify(Verify),
}

#[derive(Args)]
pub(crate) struct SqliteToPg {
    /// The SQLite file, or its address: mlflow.db, sqlite:///mlflow.db
    #[arg(long, value_name = "FILE")]
    pub(crate) source: String,
    /// The PostgreSQL database: postgresql://user:password@host/database; SQLAlchemy's forms are fine
    #[arg(long, value_name = "URL")]
    pub(crate) target: String,
    /// Move MLflow tables with data that are in the target into a schema mlops_replaced_<id>, where they stay
    #[arg(long)]
    pub(crate) replace: bool,
    /// Write what was proven into this file, as JSON: both ends without secrets, revision, counts, digests, times
    #[arg(long, value_name = "FILE")]
    pub(crate) certificate: Option<PathBuf>,
    /// Do not read the target back before it is published
    #[arg(long)]
    pub(crate) no_verify: bool,
    /// Also copy a table that MLflow does not own, with its primary key; may be repeated
    #[arg(long, value_name = "TABLE")]
    pub(crate) include_table: Vec<String>,
}

#[derive(Args)]
pub(crate) struct Verify {
    /// One store: a SQLite file or a postgresql:// address
    #[arg(long, value_name = "STORE")]
    pub(crate) source: String,
    /// The other store
    #[arg(long, value_name = "STORE")]
    pub(crate) target: String,
    /// Also compare a table that MLflow does not own; may be repeated
    #[arg(long, value_name = "TABLE")]
    pub(crate) include_table: Vec<String>,
}
