//! `mlops health`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

const AFTER: &str = "\
Checks, in layers: database, server, artifacts, registry, activity, metrics, backup, security, probe. The first one
that is broken is named; what stands on it is `unknown`, never `ok`. `--dry-run` lists the checks that would run.

Exit codes (those of a monitoring plugin):
  0  OK        1  WARNING        2  CRITICAL        3  UNKNOWN, wrong arguments, wrong configuration
  with --fail-on critical: 0, or 1 for CRITICAL and for what keeps the checks from running
  130, 143  interrupted

Examples:
  mlops health --tracking-uri http://localhost:5000 --backend-store-uri postgresql://mlflow@db/mlflow
  */5 * * * *  mlops health --quiet --ping https://hc-ping.com/UUID --incident /var/lib/mlops/incident.md
  mlops health --output nagios --only 'server.*' --only 'database.*'
  mlops health --output prometheus --textfile /var/lib/node_exporter/mlops.prom
  HEALTHCHECK CMD mlops health --only 'server.*' --timeout 10s --fail-on critical --quiet
  mlops health --for 30m --every 60s              # after a deployment: watch, then one verdict";

/// The whole stack at once: database, server, artifacts, registry, runs, metrics, security, and probes of your own
///
/// Asks everything at the same time, each question bounded, all within --timeout: a database that hangs does not hang the
/// command. It looks at what it knows the address of: the server (--tracking-uri), the database (--backend-store-uri), the
/// artifacts (--artifact-root), the backups (--backup-to). Latencies and sizes are shown; they are judged only by limits of the configuration, where
/// expectations of experiments, metrics, models and other services stand as well (config.example.toml).
///
/// Reads only, but with --deep. Remembers in the state folder since when each check is as it is, how often in a row it
/// failed, and sizes, for growth.
#[derive(Args)]
#[command(after_help = AFTER)]
pub(crate) struct Health {
    /// Only checks whose id matches: `server.*`, `activity.nightly.*`; repeatable
    #[arg(long, value_name = "PATTERN")]
    pub(crate) only: Vec<String>,
    /// No checks whose id matches; repeatable
    #[arg(long, value_name = "PATTERN")]
    pub(crate) skip: Vec<String>,
    /// Where `mlops backup` keeps its backups: a folder, or s3://bucket/path [default: `to` of [backup] in the
    /// configuration, MLOPS_BACKUP_TO]
    #[arg(long, value_name = "DEST")]
    pub(crate) backup_to: Option<String>,
    /// The time for all checks together
    #[arg(long, value_name = "TIME", default_value = "30s")]
    pub(crate) timeout: String,
    /// Also write: a tag of the experiment mlops-probe, and an artifact that is deleted again
    #[arg(long)]
    pub(crate) deep: bool,
    /// End with 0 or 1 only: 1 from this status on
    #[arg(long, value_enum, value_name = "STATUS")]
    pub(crate) fail_on: Option<FailOn>,
    /// Also write Prometheus' text format into this file, in one step, for node_exporter's textfile collector
    #[arg(long, value_name = "FILE")]
    pub(crate) textfile: Option<PathBuf>,
    /// Where something is wrong, write what was found, since when, why probably, and what helps, as Markdown
    #[arg(long, value_name = "FILE")]
    pub(crate) incident: Option<PathBuf>,
    /// Tell a dead man's switch that this ran, and how it went: URL/start, then URL or URL/fail (healthchecks.io)
    #[arg(long, value_name = "URL")]
    pub(crate) ping: Option<String>,
    /// Post a message to a Slack-compatible webhook when the verdict is another than that of the run before
    #[arg(long, value_name = "URL")]
    pub(crate) notify: Option<String>,
    /// Look again and again for so long, and give one verdict on all of it
    #[arg(long = "for", value_name = "TIME")]
    pub(crate) watch: Option<String>,
    /// The time from one look to the next, with --for
    #[arg(long, value_name = "TIME", default_value = "60s", requires = "watch")]
    pub(crate) every: String,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum FailOn {
    Warning,
    Critical,
}
