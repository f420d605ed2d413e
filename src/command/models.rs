//! `mlops models`.

use super::server::server;
use super::{Context, Ended, backup, promote};
use crate::artifact::Waiting;
use crate::backup::place::Ways;
use crate::cli::models::{Export, List, Models, Register, Show};
use crate::domain::failure::{Failure, Outcome};
use crate::domain::tracking::{Pairs, value};
use crate::mlflow::Client;
use crate::registry::export::{self, Choice};
use crate::registry::overview::{self, Wish};
use crate::registry::register::{self, MARK, Material, Request};
use crate::registry::show::{self, Wanted};
use crate::registry::{download, show::Shown};
use crate::report::{self, Format, Models as Told, Reporter, Result as Report};

/// Where a run's model is by MLflow's own convention.
const MODEL: &str = "model";

pub(super) fn run(context: &Context, models: &Models) -> Result<u8, Ended> {
    let (client, ways) = (server(context)?, backup::ways(context)?);
    match models {
        Models::History(arguments) => promote::history(context, &arguments.model),
        Models::List(arguments) => list(context, &ways, &client, arguments),
        Models::Show(arguments) => show(context, &ways, &client, arguments),
        Models::Register(arguments) => register(context, &ways, &client, arguments),
        Models::Export(arguments) => export(context, &ways, &client, arguments),
    }
}

fn list(context: &Context, ways: &Ways, client: &Client, arguments: &List) -> Result<u8, Ended> {
    let alias = context.settings.champion();
    let wish = Wish { name: arguments.name.as_deref(), metric: arguments.metric.as_deref(), alias };
    let waiting = Waiting::new(ways.runtime.handle().clone(), ways.cancel.clone());
    let overview = waiting.on(overview::overview(client, &wish))?.map_err(Failure::from)?;
    let many = overview.models.iter().filter(|m| m.production.count > 1);
    let warnings: Vec<String> =
        many.map(|m| format!("{} versions of {} are in Production", m.production.count, m.name)).collect();
    context.finish(&Report::Models(Told::List(&overview)), 0, &warnings)
}

fn show(context: &Context, ways: &Ways, client: &Client, arguments: &Show) -> Result<u8, Ended> {
    let wanted = match (&arguments.uuid, &arguments.model) {
        (Some(id), _) => Wanted::Logged(id.clone()),
        (None, Some(text)) => Wanted::Named(text.clone()),
        (None, None) => return Err(Failure::usage("which model?").into()),
    };
    let shown = show::show(ways, client, &wanted)?;
    let warnings = match &shown {
        Shown::Model(..) => Vec::new(),
        Shown::Version(shown) => shown.detail.unknown.clone(),
        Shown::Logged(shown) => shown.detail.unknown.clone(),
    };
    context.finish(&Report::Models(Told::Show(&shown)), 0, &warnings)
}

/// `key=value`.
fn tags(texts: &[String]) -> Outcome<Pairs> {
    let mut tags = Pairs::new();
    for text in texts {
        let (key, own) = text.split_once('=').filter(|(key, _)| !key.is_empty()).ok_or_else(|| {
            Failure::usage(format!("--tag {}: no KEY=VALUE", text.escape_debug())).hint("--tag trained_by=nightly")
        })?;
        if key == MARK || value(&tags, key).is_some() {
            let why = if key == MARK { "is set by mlops itself" } else { "is given twice" };
            return Err(Failure::usage(format!("--tag: the tag {} {why}", key.escape_debug())));
        }
        tags.push((key.to_owned(), own.to_owned()));
    }
    Ok(tags)
}

fn register(context: &Context, ways: &Ways, client: &Client, arguments: &Register) -> Result<u8, Ended> {
    let material = match (&arguments.uuid, &arguments.source, &arguments.run) {
        (Some(id), ..) => Material::Logged(id.clone()),
        (None, Some(address), run) => Material::Source { address: address.clone(), run: run.clone() },
        (None, None, Some(id)) => {
            Material::Run { id: id.clone(), path: arguments.path.clone().unwrap_or_else(|| MODEL.to_owned()) }
        }
        (None, None, None) => return Err(Failure::usage("what is to be registered?").into()),
    };
    if arguments.name.trim().is_empty() {
        return Err(Failure::usage("--name is empty").into());
    }
    let request = Request {
        id: context.id.clone(),
        material,
        model: arguments.name.clone(),
        description: arguments.description.clone(),
        tags: tags(&arguments.tag)?,
    };
    let registered = register::register(ways, client, &request, context.dry_run)?;
    context.finish(&Report::Models(Told::Registered(&registered)), 0, &registered.warnings)
}

fn export(context: &Context, ways: &Ways, client: &Client, arguments: &Export) -> Result<u8, Ended> {
    let choice = match (&arguments.stage, &arguments.alias) {
        (Some(stage), _) => Choice::stage(stage)?,
        (None, Some(alias)) => Choice::Alias(alias.trim_start_matches('@').to_owned()),
        (None, None) => Choice::InProduction(context.settings.champion().to_owned()),
    };
    let prepared = arguments.files.as_deref().map(download::prepare).transpose()?;
    let waiting = Waiting::new(ways.runtime.handle().clone(), ways.cancel.clone());
    let mut exported =
        waiting.on(export::export(client, arguments.name.as_deref(), &choice))?.map_err(Failure::from)?;
    let made = report::time(context.reporter.started);
    let files = match prepared {
        Some(prepared) if !context.dry_run => {
            Some(download::download(prepared, &exported.versions, ways, &made, &context.work())?)
        }
        _ => None,
    };
    for stored in files.iter().flat_map(|f| &f.manifest.versions) {
        let version = exported
            .versions
            .iter_mut()
            .find(|t| (&t.version.name, t.version.version) == (&stored.model, stored.version));
        if let (Some(version), Some(fault)) = (version, &stored.fault)
            && !version.faults.contains(fault)
        {
            version.faults.push(fault.clone());
        }
    }
    let mut warnings = exported.warnings.clone();
    for taken in exported.versions.iter().filter(|t| !t.faults.is_empty()) {
        let (name, number) = (&taken.version.name, taken.version.version);
        warnings.push(format!("{name} version {number}: {}", taken.faults.join("; ")));
    }
    let whole = exported.versions.iter().all(|t| t.faults.is_empty());
    let exit = context.exit(if whole { 0 } else { report::PARTIAL });
    let reporter = Reporter { format: Format::Json, ..context.reporter.clone() };
    reporter.result(&Report::Models(Told::Exported(&exported, files.as_ref())), exit, &warnings);
    // The document holds them as well; whoever pipes it into a file reads them here.
    if context.reporter.format == Format::Table {
        warnings.iter().for_each(|warning| context.reporter.say(&format!("warning: {warning}")));
    }
    Ok(exit)
}
