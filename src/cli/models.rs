//! `mlops models`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Subcommand)]
pub(crate) enum Models {
    /// Every registered model in a line: versions, what is in Production and Staging, aliases, a metric, age
    ///
    /// The registry is read in a few calls, however many versions there are. The version in production is that of the
    /// alias (`alias` of [registry] in the configuration, else champion), and where a model has none of it the newest in
    /// stage Production. The metric is that of this version's run; `models show` also asks its logged model, which may
    /// have one of its own. Prompts are left out, and counted.
    #[command(after_help = LIST)]
    List(List),
    /// One model, one version or one logged model: run, metrics, params, signature, tags, files, lineage
    ///
    /// A name may hold `/` and `@`: a model of the whole name goes first, else the text is split at the last one. The
    /// signature and the list of files come from the tracking server, so no key for its artifact store is needed; only
    /// what the server does not serve itself is looked for from here.
    #[command(after_help = SHOW)]
    Show(Show),
    /// Make a version of a registered model from a run's model, a logged model or an address
    ///
    /// The registered model is made if it is not there. Nothing is registered where no MLmodel is found. The version gets
    /// the tag validation_status=pending, unless --tag says otherwise, and mlops.register with the id of this run: by it
    /// the version is found when the server's answer was lost, so that what is told is what is there, and no call is made
    /// twice. It is then waited for to be READY, 2 minutes at most.
    #[command(after_help = REGISTER)]
    Register(Register),
    /// What is in production, as a JSON document, and with --files also its artifacts
    ///
    /// Without --stage and --alias: the version of the alias (`alias` of [registry] in the configuration, else champion),
    /// and where a model has none of it the newest in stage Production. The document goes to stdout whatever --output
    /// says. A model that cannot be read does not stop the others: it is listed, and the exit code is 4.
    ///
    /// --files writes DIR/<model>/<version>/..., checked as it is written, and DIR/manifest.json with the size and SHA-256
    /// of each file last. Into the same folder the same export can be made again: files that are whole are kept, and what
    /// was missing is fetched. A folder with another export in it is refused, and no file of anybody else's is replaced.
    #[command(after_help = EXPORT)]
    Export(Export),
    /// Who was champion when, as the versions' tags and the log of the state folder tell
    ///
    /// Where the registry shows a champion that no promotion by mlops put there, that is said.
    #[command(after_help = HISTORY)]
    History(History),
}

const HISTORY: &str = "\
Examples:
  mlops models history energy
  mlops models history energy --output json | jq '.result.records[] | {at, version, by, reason}'";

const LIST: &str = "\
Examples:
  mlops models list --metric rmse
  mlops models list --name 'forecast-*' --output json | jq -r '.result.models[] | select(.production.count > 1).name'";

const SHOW: &str = "\
Exit codes: 6 when it is not there; names that are alike are told.

Examples:
  mlops models show forecast@champion
  mlops models show forecast/12 --output json | jq .result.metrics
  mlops models show --uuid m-2bcb40150b55421fa6d1ea1979bc8ba5";

const REGISTER: &str = "\
Exit codes: 6 when there is no model in that place, 7 when the server refuses, 8 when the server failed: the message says
whether the version was made. --dry-run tells what would be registered.

Examples:
  mlops models register --run 8832e3d07efb4c4596312fe27d2b0609 --path model --name forecast --tag trained_by=nightly
  mlops models register --uuid m-2bcb40150b55421fa6d1ea1979bc8ba5 --name forecast --description 'with holidays'";

const EXPORT: &str = "\
Exit codes: 4 when something could not be read; it is listed, and in `faults` of its version.

Examples:
  mlops models export > in-production.json
  mlops models export --stage Production --name 'forecast-*' --files /srv/models";

#[derive(Args)]
pub(crate) struct List {
    /// Only models whose name matches: `*` stands for any characters, `?` for one
    #[arg(long, value_name = "GLOB")]
    pub(crate) name: Option<String>,
    /// Also this metric of the version in production
    #[arg(long, value_name = "NAME")]
    pub(crate) metric: Option<String>,
}

#[derive(Args)]
pub(crate) struct Show {
    /// A model's name, a version (name/3), an alias (name@champion), or a logged model's id (m-...)
    #[arg(value_name = "NAME[/VERSION|@ALIAS]|m-ID", required_unless_present = "uuid", conflicts_with = "uuid")]
    pub(crate) model: Option<String>,
    /// The logged model of that id, and nothing else that has such a name
    #[arg(long, value_name = "m-ID")]
    pub(crate) uuid: Option<String>,
}

#[derive(Args)]
pub(crate) struct Register {
    /// The registered model; it is made if it is not there
    #[arg(long, value_name = "NAME")]
    pub(crate) name: String,
    /// The run that made the model
    #[arg(long, value_name = "ID", conflicts_with = "uuid", required_unless_present_any = ["uuid", "source"])]
    pub(crate) run: Option<String>,
    /// Where the model is among the run's artifacts, or the name of a logged model of the run's [default: model]
    #[arg(long, value_name = "PATH", requires = "run", conflicts_with = "source")]
    pub(crate) path: Option<String>,
    /// A logged model
    #[arg(long, value_name = "m-ID", conflicts_with = "source")]
    pub(crate) uuid: Option<String>,
    /// An address: runs:/ID/PATH, models:/m-ID, models:/NAME/VERSION, mlflow-artifacts:/..., s3://...; --run names the run
    /// that it belongs to, where the address does not
    #[arg(long, value_name = "URI")]
    pub(crate) source: Option<String>,
    /// The version's description
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub(crate) description: String,
    /// A tag of the version; repeatable
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) tag: Vec<String>,
}

#[derive(Args)]
pub(crate) struct Export {
    /// All versions in this stage: Production, Staging, Archived or None
    #[arg(long, value_name = "STAGE", conflicts_with = "alias")]
    pub(crate) stage: Option<String>,
    /// The versions with this alias
    #[arg(long, value_name = "ALIAS")]
    pub(crate) alias: Option<String>,
    /// Only models whose name matches: `*` stands for any characters, `?` for one
    #[arg(long, value_name = "GLOB")]
    pub(crate) name: Option<String>,
    /// Also download the files of each version below this folder, which is made if it is not there
    #[arg(long, value_name = "DIR")]
    pub(crate) files: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct History {
    /// The registered model
    #[arg(value_name = "NAME")]
    pub(crate) model: String,
}
