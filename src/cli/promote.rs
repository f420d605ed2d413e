//! `mlops promote` and `mlops rollback`.

use clap::{Args, ValueEnum};

use super::backup::Messages;

const AFTER: &str = "\
Exit codes: 0 the version is in its place (or was there already), 5 a gate refuses it, 6 there is no such model or version,
9 nobody agreed to replace the champion (--yes does), 10 somebody else is at it: nothing was done, 4 the switch or its
record is not complete, or another client's change stands in its place: the text says which.

What a lock cannot do: mlops keeps other mlops away, not a notebook that calls MLflow itself. What such a client does in the
same moment is seen when the place is read back, put right and told. A call of its that MLflow commits only after that is
not; `mlops health` (registry.production) sees what it leaves. A server that is still at a call when its answer is given up
(60 s), or 5 s after mlops was killed, may do it later: the next promotion sees and records that.

Examples:
  mlops promote --model energy --require 'rmse < champion' --require 'r2 >= 0.85' --yes
  mlops promote --model energy --version 7 --to @champion --require-tag validation_status=passed --yes
  mlops promote --model energy --latest --to Staging
  mlops promote --model energy --require 'rmse < champion' --set-validation-status   # judge only, in one step of a pipeline
  mlops promote --model energy --dry-run                                             # 0 or 5: what would be done";

const AFTER_ROLLBACK: &str = "\
Examples:
  mlops rollback --model energy --reason 'alarms since 14:00' --yes
  mlops rollback --model energy --to-version 5 --yes";

/// Put a model's challenger into production, if every gate lets it through
///
/// The challenger is the newest version in Staging, or the one under @challenger, where nothing else names one (one that
/// was rolled back from only where --version names it); it goes to Production, or to @champion, whichever way this model
/// is run today. All gates are asked and shown. Then, under a lock:
/// the champion is read once more - another one than the plan saw ends it -, the alias is set and the stage is changed by
/// MLflow's one call that archives the former champion as well, and both are read back. The versions keep the record in
/// tags mlops.promote.<id>, the state folder in promotions.jsonl: `mlops models history` and `mlops rollback` read them.
#[derive(Args)]
#[command(after_help = AFTER)]
pub(crate) struct Promote {
    /// The registered model
    #[arg(long, value_name = "NAME")]
    pub(crate) model: String,
    #[command(flatten)]
    pub(crate) which: Which,
    /// Where to: Production, Staging, Archived, None, or an alias as @champion [default: production, as it is marked today]
    #[arg(long, value_name = "STAGE|@ALIAS")]
    pub(crate) to: Option<String>,
    #[command(flatten)]
    pub(crate) mode: ModeFlag,
    #[command(flatten)]
    pub(crate) gates: Gates,
    /// Judge only, and leave the verdict with the version: tag validation_status=passed or =failed. Nothing is promoted, and
    /// what --require-tag and the configuration ask of that tag itself is left out
    #[arg(long)]
    pub(crate) set_validation_status: bool,
    #[command(flatten)]
    pub(crate) story: Story,
    #[command(flatten)]
    pub(crate) messages: Messages,
}

/// Which version.
#[derive(Args)]
#[group(multiple = false)]
pub(crate) struct Which {
    /// The version of that number
    #[arg(long, value_name = "N", help_heading = "Which version")]
    pub(crate) version: Option<u64>,
    /// The version under that alias
    #[arg(long, value_name = "A", help_heading = "Which version")]
    pub(crate) alias: Option<String>,
    /// The newest version in that stage
    #[arg(long, value_name = "STAGE", help_heading = "Which version")]
    pub(crate) stage: Option<String>,
    /// The newest version of all
    #[arg(long, help_heading = "Which version")]
    pub(crate) latest: bool,
    /// The newest version that this run made
    #[arg(long, value_name = "ID", help_heading = "Which version")]
    pub(crate) run: Option<String>,
    /// The newest version that was made from this logged model (MLflow 3)
    #[arg(long, value_name = "m-...", help_heading = "Which version")]
    pub(crate) uuid: Option<String>,
}

/// How a champion is marked.
#[derive(Args)]
pub(crate) struct ModeFlag {
    /// How the version in production is marked [default: the way it is marked today; the first one by its stage]
    #[arg(long, value_enum)]
    pub(crate) mode: Option<Mode>,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Mode {
    /// By the stage Production
    Stage,
    /// By the alias @champion
    Alias,
    /// By both, kept the same
    Both,
}

/// What is asked of it. That it is READY is always asked.
#[derive(Args)]
pub(crate) struct Gates {
    /// A comparison of metrics: 'rmse < champion', 'r2 >= 0.85', 'mae <= champion * 1.1', 'f1 > champion.f1 - 0.01'; may
    /// be given more than once, as may --require-tag and --check. One that compares with a champion is not asked where
    /// there is none yet
    #[arg(long, value_name = "EXPR", help_heading = "Gates, beside those of [promote.models.\"NAME\"]")]
    pub(crate) require: Vec<String>,
    /// A tag of the version; without =V any value
    #[arg(long, value_name = "K=V", help_heading = "Gates, beside those of [promote.models.\"NAME\"]")]
    pub(crate) require_tag: Vec<String>,
    /// The model has a signature
    #[arg(long, help_heading = "Gates, beside those of [promote.models.\"NAME\"]")]
    pub(crate) require_signature: bool,
    /// The version is at most so old: 30d
    #[arg(long, value_name = "TIME", help_heading = "Gates, beside those of [promote.models.\"NAME\"]")]
    pub(crate) max_age: Option<String>,
    /// It has been in Staging, or under its alias, for so long: 24h. Only what mlops put there is known; else it is refused.
    /// What another client moves out and in again is not seen
    #[arg(long, value_name = "TIME", help_heading = "Gates, beside those of [promote.models.\"NAME\"]")]
    pub(crate) soak: Option<String>,
    /// This tag of the version names who approved it
    #[arg(long, value_name = "TAG", help_heading = "Gates, beside those of [promote.models.\"NAME\"]")]
    pub(crate) approve_by_tag: Vec<String>,
    /// A command, whose exit code 0 lets it through; it finds MODEL_NAME, VERSION, RUN_ID, MODEL_URI and CHAMPION_VERSION
    /// in its environment. It is run with --dry-run, too. Its text and the last line that it says are kept in the record
    #[arg(long, value_name = "CMD", help_heading = "Gates, beside those of [promote.models.\"NAME\"]")]
    pub(crate) check: Vec<String>,
    /// The longest that each command may take [default: 5 min]
    #[arg(long, value_name = "TIME", help_heading = "Gates, beside those of [promote.models.\"NAME\"]")]
    pub(crate) check_timeout: Option<String>,
}

/// Who and why.
#[derive(Args)]
pub(crate) struct Story {
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
    /// Who, for the record [default: the user of this process]
    #[arg(long, value_name = "NAME")]
    pub(crate) by: Option<String>,
}

/// Put the former champion back into production
///
/// The champion that the present one took the place of, as the record of its promotion tells; a rollback goes back further
/// each time. Where no record tells, --to-version names it. The same lock, the same switch and the same record as
/// `mlops promote`; of the gates only that the version is READY is asked.
#[derive(Args)]
#[command(after_help = AFTER_ROLLBACK)]
pub(crate) struct Rollback {
    /// The registered model
    #[arg(long, value_name = "NAME")]
    pub(crate) model: String,
    /// The version that is put back [default: the former champion]. One that no record knows as champion is a warning
    #[arg(long, value_name = "N")]
    pub(crate) to_version: Option<u64>,
    /// The place: Production, or an alias as @champion [default: production, as it is marked today]
    #[arg(long, value_name = "STAGE|@ALIAS")]
    pub(crate) to: Option<String>,
    #[command(flatten)]
    pub(crate) mode: ModeFlag,
    #[command(flatten)]
    pub(crate) story: Story,
    #[command(flatten)]
    pub(crate) messages: Messages,
}
