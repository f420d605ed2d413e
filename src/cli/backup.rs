//! `mlops backup` and `mlops restore`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::migrate::Misfits;

const AFTER: &str = "\
Exit codes: 4 when some artifact could not be read (they are listed; such a backup is not a complete one), 10 when another
backup or prune works on the same place, 11 when a backup is damaged or was never finished.

Examples:
  mlops backup --backend-store-uri sqlite:////srv/mlflow/mlflow.db --artifact-root /srv/mlflow/artifacts --to /backup/mlflow
  mlops backup --to /backup/mlflow --prune --keep-daily 7 --keep-weekly 5 --yes    # one line for cron
  mlops backup --file /media/stick/mlflow.tar                       # one backup as one file
  mlops backup list --from /backup/mlflow
  mlops backup verify latest --from /backup/mlflow --drill
  mlops restore latest --from /backup/mlflow --to sqlite:////srv/mlflow/mlflow.db --artifact-root /srv/mlflow/artifacts";

/// Back up the database and the artifacts that it refers to, as one unit, while the stack is in use
///
/// The database is taken in one snapshot and written as the archive of `migrate export`, read back and compared; then the
/// files that this snapshot refers to are stored by their SHA-256, each content once for all backups in the place. A file
/// that has the size and time that it had in the backup before is not read again. The manifest comes last: what is
/// interrupted leaves nothing that looks like a backup, and the next one finds the files that were stored already.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true, after_help = AFTER)]
pub(crate) struct Backup {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) create: Create,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// The same as `mlops backup` alone
    Create(Create),
    /// The backups of a place: time, size, what the place grew by, runs, models, whether verified and pinned
    List(From),
    /// All that one backup says of itself
    Show(One),
    /// Check every checksum, and with --drill restore into a scratch database
    ///
    /// Reads the backup only, never the source. The scratch database is a temporary SQLite file, or with --drill-on a
    /// temporary database of a PostgreSQL server. Exit code 11 and the damaged parts, if any are.
    Verify(Verify),
    /// Remove backups that no rule keeps, and contents that no backup refers to any more
    ///
    /// The rules are restic's, by the calendar in UTC: those of the --keep flags, and where none is given the limits of
    /// [backup] in the configuration (keep_last, keep_daily, ...). Without --yes it tells what it would remove. Pinned
    /// backups stay, and so does the newest complete one. An incomplete backup is kept only as long as no complete one is
    /// newer. Contents that are younger than 24 hours stay.
    Prune(Prune),
    /// Keep a backup for ever
    Pin(One),
    /// Let the rules decide on a backup again
    Unpin(One),
}

#[derive(Args)]
pub(crate) struct Create {
    /// Where backups are kept: a folder, or s3://bucket/path [default: `to` of [backup], MLOPS_BACKUP_TO]
    #[arg(long, value_name = "DEST")]
    pub(crate) to: Option<String>,
    /// Make one self-contained file instead, which must not exist yet; `tar xf` makes a place of backups of it
    #[arg(long, value_name = "X.tar", conflicts_with_all = ["to", "prune"])]
    pub(crate) file: Option<PathBuf>,
    /// Which artifacts: all that the database refers to, those that registered models need, or none [default: all, or
    /// `artifacts` of [backup]]
    #[arg(long, value_enum)]
    pub(crate) artifacts: Option<Scope>,
    /// Read every file, also those that have the size and time that they had; what is damaged in the place is stored anew
    #[arg(long)]
    pub(crate) rehash: bool,
    /// Then prune by the --keep rules, without any by the limits of [backup]; without --yes nothing is removed
    #[arg(long)]
    pub(crate) prune: bool,
    #[command(flatten)]
    pub(crate) keep: Keep,
    #[command(flatten)]
    pub(crate) messages: Messages,
}

#[derive(Args)]
pub(crate) struct From {
    /// Where backups are kept [default: `to` of [backup] in the configuration, MLOPS_BACKUP_TO]
    #[arg(long, value_name = "DEST")]
    pub(crate) from: Option<String>,
}

#[derive(Args)]
pub(crate) struct One {
    /// The backup's id; or `latest`, the newest complete one; or the path of a file of `mlops backup --file`
    #[arg(value_name = "ID|latest|PATH")]
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) place: From,
}

#[derive(Args)]
pub(crate) struct Verify {
    /// The backup's id; or `latest`, the newest complete one; or the path of a file of `mlops backup --file`
    #[arg(value_name = "ID|latest|PATH", default_value = "latest", conflicts_with = "all")]
    pub(crate) id: String,
    /// Every backup of the place
    #[arg(long)]
    pub(crate) all: bool,
    /// Read only this part of the artifacts, and see of the others that they are there: 1/7 on Mondays, 2/7 on Tuesdays
    #[arg(long, value_name = "N/T")]
    pub(crate) read_data_subset: Option<String>,
    /// Also restore each database into a scratch one, compare every digest with the manifest's, and throw it away
    #[arg(long)]
    pub(crate) drill: bool,
    /// Drill on this PostgreSQL server, in a temporary database mlops_drill_<id>; the role needs CREATEDB
    #[arg(long, value_name = "URL", requires = "drill")]
    pub(crate) drill_on: Option<String>,
    #[command(flatten)]
    pub(crate) place: From,
    #[command(flatten)]
    pub(crate) messages: Messages,
}

#[derive(Args)]
pub(crate) struct Prune {
    #[command(flatten)]
    pub(crate) place: From,
    #[command(flatten)]
    pub(crate) keep: Keep,
    #[command(flatten)]
    pub(crate) messages: Messages,
}

/// Who is told.
#[derive(Args)]
pub(crate) struct Messages {
    /// Tell a dead man's switch that this ran, and how it went: URL/start, then URL or URL/fail (healthchecks.io)
    #[arg(long, value_name = "URL")]
    pub(crate) ping: Option<String>,
    /// Post a message to a Slack-compatible webhook unless it went well
    #[arg(long, value_name = "URL")]
    pub(crate) notify: Option<String>,
}

/// Which backups are kept.
#[derive(Args, Default)]
pub(crate) struct Keep {
    /// The newest N; `unlimited` for all, here and below. One of these flags puts all limits of [backup] aside
    #[arg(long, value_name = "N", help_heading = "Which backups are kept")]
    pub(crate) keep_last: Option<String>,
    /// The newest of each of the last N hours that have one
    #[arg(long, value_name = "N", help_heading = "Which backups are kept")]
    pub(crate) keep_hourly: Option<String>,
    /// The same by days
    #[arg(long, value_name = "N", help_heading = "Which backups are kept")]
    pub(crate) keep_daily: Option<String>,
    /// The same by weeks
    #[arg(long, value_name = "N", help_heading = "Which backups are kept")]
    pub(crate) keep_weekly: Option<String>,
    /// The same by months
    #[arg(long, value_name = "N", help_heading = "Which backups are kept")]
    pub(crate) keep_monthly: Option<String>,
    /// The same by years
    #[arg(long, value_name = "N", help_heading = "Which backups are kept")]
    pub(crate) keep_yearly: Option<String>,
    /// All that are at most so much older than the newest: 1y5m7d2h
    #[arg(long, value_name = "TIME", help_heading = "Which backups are kept")]
    pub(crate) keep_within: Option<String>,
}

/// Which artifacts.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scope {
    All,
    Registered,
    None,
}

/// Make a stack of a backup: its artifacts below a root, its database in SQLite or PostgreSQL
///
/// Whichever the backup came from. The artifacts come first: what is there with the right content is not written again,
/// so an interrupted restore goes on where it was. Then the database, all or nothing, verified before it is published.
/// Addresses of artifacts in the database follow when the root is another one; what lies behind the server's proxy
/// (mlflow-artifacts:) keeps its address, and the server is started with the new root as --artifacts-destination.
#[derive(Args)]
pub(crate) struct Restore {
    /// The backup's id; or `latest`, the newest complete one; or the path of a file of `mlops backup --file`
    #[arg(value_name = "ID|latest|PATH")]
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) place: From,
    /// The database to be made: a postgresql:// address or a SQLite file
    #[arg(long, value_name = "URL")]
    pub(crate) to: String,
    /// The database of basic-auth to be made, where the backup has one
    #[arg(long, value_name = "URL")]
    pub(crate) auth_to: Option<String>,
    /// Restore this experiment only, by name or id, with its runs, models, traces and files, and of the model registry the
    /// versions that came from its runs; may be given more than once
    #[arg(long, value_name = "NAME|ID")]
    pub(crate) experiment: Vec<String>,
    /// Restore the database alone: no artifact is written, no address changes
    #[arg(long)]
    pub(crate) no_artifacts: bool,
    /// Move what is there already aside: in PostgreSQL tables with data, into a schema mlops_replaced_<id>; a SQLite file
    /// that nobody uses, beside the new one
    #[arg(long)]
    pub(crate) replace: bool,
    #[command(flatten)]
    pub(crate) misfits: Misfits,
    #[command(flatten)]
    pub(crate) messages: Messages,
}
