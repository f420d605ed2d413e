//! `mlops migrate`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

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
    ///
    /// What PostgreSQL cannot hold is refused, with every finding at once, unless a policy below says what to do about it.
    SqliteToPg(SqliteToPg),
    /// Write a store into an archive: one file to keep, to send and to restore from
    ///
    /// A plain tar with MLflow's schema, the rows in PostgreSQL's COPY format compressed table by table, checksums of
    /// everything, and a script: `tar xf ARCHIVE` and `psql -f restore.sql` bring the store back without this program.
    /// A running server may go on writing: the archive is one moment. It is written under another name, read back and
    /// compared with the source, and only then gets its name.
    Export(Export),
    /// Make a store of an archive, in PostgreSQL or SQLite
    ///
    /// All or nothing, verified before it is published, as in sqlite-to-pg. A damaged, unfinished or newer archive is
    /// refused with exit code 11 before anything is written.
    Import(Import),
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
    #[arg(long, value_name = "URL", required_unless_present = "rehearse")]
    pub(crate) target: Option<String>,
    /// Do all of it on a private PostgreSQL that is thrown away, and tell what was found and how long it took
    #[arg(long, conflicts_with_all = ["target", "replace", "certificate"])]
    pub(crate) rehearse: bool,
    #[command(flatten)]
    pub(crate) publishing: Publishing,
    /// Also copy a table that MLflow does not own, with its primary key; may be repeated
    #[arg(long, value_name = "TABLE")]
    pub(crate) include_table: Vec<String>,
    #[command(flatten)]
    pub(crate) misfits: Misfits,
    #[command(flatten)]
    pub(crate) amendments: Amendments,
}

/// How a target is filled.
#[derive(Args)]
pub(crate) struct Publishing {
    /// Put what is in the target's place aside, where it stays: in PostgreSQL MLflow tables with data, in a schema
    /// mlops_replaced_<id>; a SQLite file that nobody uses, as FILE.mlops-replaced-<id>
    #[arg(long)]
    pub(crate) replace: bool,
    /// Write what was proven into this file, as JSON: both ends without secrets, revision, counts, digests, times
    #[arg(long, value_name = "FILE")]
    pub(crate) certificate: Option<PathBuf>,
    /// Do not read the target back before it is published
    #[arg(long)]
    pub(crate) no_verify: bool,
}

/// What to do about rows that PostgreSQL cannot hold.
#[derive(Args)]
pub(crate) struct Misfits {
    /// Rows that PostgreSQL cannot hold: refuse the migration, or put them and all that refer to them aside into a file
    /// of JSON lines and copy the rest (exit code 4)
    #[arg(long, value_enum, default_value_t = BadRows::Refuse, help_heading = "Policies")]
    pub(crate) bad_rows: BadRows,
    /// The file for rows that are put aside [default: mlops-quarantine-<id>.jsonl in the current folder]
    #[arg(long, value_name = "FILE", help_heading = "Policies")]
    pub(crate) quarantine_file: Option<PathBuf>,
    /// Make a VARCHAR column longer in the target where a value needs it
    #[arg(long, help_heading = "Policies")]
    pub(crate) widen: bool,
}

/// What changes in the rows on their way.
#[derive(Args, Default)]
pub(crate) struct Amendments {
    /// Give experiments whose ids PostgreSQL's integer cannot hold (those of former file stores have 18 digits) new small
    /// ones, in every column, tag and JSON document that holds one; addresses stay
    #[arg(long, help_heading = "Policies")]
    pub(crate) remap_experiment_ids: bool,
    /// Change artifact addresses that begin with FROM (whole segments of a path, as it stands in the store), in every
    /// column, tag and JSON document that holds one; may be repeated, the longest prefix wins; --dry-run counts what
    /// there is
    #[arg(long, value_name = "FROM=TO", help_heading = "Policies")]
    pub(crate) rewrite_artifacts: Vec<String>,
}

/// What to do about bad rows.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BadRows {
    Refuse,
    Quarantine,
}

#[derive(Args)]
pub(crate) struct Verify {
    /// One store: a SQLite file, a postgresql:// address or an archive
    #[arg(long, value_name = "STORE")]
    pub(crate) source: String,
    /// The other store
    #[arg(long, value_name = "STORE")]
    pub(crate) target: String,
    /// Also compare a table that MLflow does not own; may be repeated
    #[arg(long, value_name = "TABLE")]
    pub(crate) include_table: Vec<String>,
    #[command(flatten)]
    pub(crate) amendments: Amendments,
}

#[derive(Args)]
pub(crate) struct Export {
    /// The store: a SQLite file or a postgresql:// address [default: backend_store_uri of the settings]
    #[arg(value_name = "SOURCE")]
    pub(crate) source: Option<String>,
    /// The archive, which must not be there yet; - is standard output
    #[arg(long, value_name = "ARCHIVE")]
    pub(crate) file: PathBuf,
    /// How rows are compressed: gzip, which every machine unpacks, or zstd, which is smaller and faster
    #[arg(long, value_enum, default_value_t = Compression::Gzip)]
    pub(crate) compression: Compression,
    /// Do not read the archive back before it gets its name
    #[arg(long)]
    pub(crate) no_verify: bool,
    /// Write what was proven into this file, as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) certificate: Option<PathBuf>,
    /// Also copy a table that MLflow does not own, with its primary key; may be repeated
    #[arg(long, value_name = "TABLE")]
    pub(crate) include_table: Vec<String>,
    #[command(flatten)]
    pub(crate) amendments: Amendments,
}

/// How rows are compressed.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Compression {
    Gzip,
    Zstd,
}

#[derive(Args)]
pub(crate) struct Import {
    /// The archive; - is standard input
    #[arg(value_name = "ARCHIVE")]
    pub(crate) archive: PathBuf,
    /// The store to be made: a postgresql:// address, or a SQLite file
    #[arg(long, value_name = "URL")]
    pub(crate) target: String,
    #[command(flatten)]
    pub(crate) publishing: Publishing,
    /// Also copy a table that MLflow does not own; may be repeated
    #[arg(long, value_name = "TABLE")]
    pub(crate) include_table: Vec<String>,
    #[command(flatten)]
    pub(crate) misfits: Misfits,
    #[command(flatten)]
    pub(crate) amendments: Amendments,
}
