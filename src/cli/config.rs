//! `mlops config`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

const INIT: &str = "\
Examples:
  mlops config init                                            # asks, and writes the file of this user
  mlops config init /etc/mlops/config.toml --tracking-uri http://mlflow:5000 \\
      --backend-store-uri postgresql://mlflow@db/mlflow --backup-to /backup/mlflow";

const CHECK: &str = "\
Exit codes: 0 all that is set works, 3 the file itself is wrong, 5 something that is set does not work (it is listed).

Examples:
  mlops config check
  mlops config check --config /etc/mlops/config.toml --profile production";

/// Settings: where they come from, whether they work, and a first file of them
#[derive(Subcommand)]
pub(crate) enum Config {
    /// Each setting, its value (secrets masked) and its origin
    ///
    /// Nothing is asked, and no secret is read. A flag beats an environment variable, that beats the chosen profile, that the
    /// file, that the default.
    #[command(after_help = "Examples:\n  mlops config show\n  mlops config show --profile production --output json")]
    Show,
    /// Try what is set: read the secrets, ask the server, the database, the artifact root and the place of the backups
    ///
    /// Nothing is written there, and nobody is notified. Each answer may take 20 seconds.
    #[command(after_help = CHECK)]
    Check,
    /// Write a configuration file, with every key explained in it
    ///
    /// On a terminal it asks for what no flag tells. The file can be read by its owner only, for an address may hold a
    /// password. One that is there is never replaced.
    #[command(after_help = INIT)]
    Init(Init),
}

#[derive(Args)]
pub(crate) struct Init {
    /// The file [default: /etc/mlops/config.toml for root, else ~/.config/mlops/config.toml]
    pub(crate) file: Option<PathBuf>,
    /// Where backups are kept: a folder or s3://bucket/path
    #[arg(long, value_name = "DEST")]
    pub(crate) backup_to: Option<String>,
}
