//! `mlops backup`.

use std::path::Path;
use std::time::Duration;

use secrecy::SecretString;

use super::messages::{Telling, told};
use super::server::runtime;
use super::{Context, Ended, journal};
use crate::artifact::S3;
use crate::backup::bundle::Bundle;
use crate::backup::create::{self, Created};
use crate::backup::manifest::{MANIFEST, Manifest, Scope};
use crate::backup::place::Ways;
use crate::backup::prune;
use crate::backup::repository::{PIN, Repository, is_id};
use crate::backup::verify::{self, Subset};
use crate::cli::backup::{Backup, Command, Create, From, Keep, One, Prune, Scope as Which, Verify};
use crate::config::Settings;
use crate::domain::address::StoreAddress;
use crate::domain::artifact_address::ArtifactAddress;
use crate::domain::failure::{Failure, Kind, Outcome};
use crate::domain::retention::{self, Rule};
use crate::mlflow::{Bounds, Client};
use crate::report::{self, Result as Report};

/// For what is read through a tracking server: it may fetch a whole file itself before its first byte comes.
const PATIENCE: Bounds = Bounds { connect: Duration::from_secs(10), call: Duration::from_secs(300) };
pub(super) fn run(context: &Context, arguments: Backup) -> Result<u8, Ended> {
    match arguments.command {
        None => create(context, &arguments.create),
        Some(Command::Create(arguments)) => create(context, &arguments),
        Some(Command::List(from)) => list(context, &from),
        Some(Command::Show(one)) => show(context, &one),
        Some(Command::Verify(arguments)) => {
            told(context, &arguments.messages, "mlops backup verify", || verify(context, &arguments))
        }
        Some(Command::Prune(arguments)) => {
            told(context, &arguments.messages, "mlops backup prune", || prune(context, &arguments))
        }
        Some(Command::Pin(one)) => pin(context, &one, true),
        Some(Command::Unpin(one)) => pin(context, &one, false),
    }
}

/// The ways to folders and buckets.
pub(super) fn ways(context: &Context) -> Outcome<Ways> {
    let settings = &context.settings;
    let server = settings.tracking().and_then(|server| server.map(|server| Client::new(&server, PATIENCE)).transpose());
    Ok(Ways {
        artifact_root: settings.artifact_root().map(ArtifactAddress::parse),
        server,
        s3: S3::new(settings.s3()?),
        runtime: runtime()?,
        work_dir: settings.work_dir(),
        cancel: context.cancel.clone(),
    })
}

/// A place that holds backups.
fn repository(ways: &Ways, from: &str) -> Outcome<Repository> {
    let repository = ways.backups(from)?;
    let mut any = false;
    repository.shelf.walk_folders(&mut |_| {
        any = true;
        Ok(())
    })?;
    if any {
        return Ok(repository);
    }
    Err(Failure::source(format!("{} holds no backups", repository.shelf.place()))
        .hint("is its disk mounted, and is this the place that `mlops backup --to` was given?"))
}

/// The backup that a word means: an id or `latest` in a place, or the path of a backup that is a file or a folder.
pub(super) fn find(context: &Context, ways: &Ways, word: &str, from: &From) -> Outcome<Found> {
    let path = Path::new(word);
    let named = word == "latest" || is_id(word) || from.from.is_some();
    if !named && path.is_file() {
        let repository = ways.backups(word)?;
        let manifest = repository.only()?;
        return Ok(Found { repository, manifest, warnings: Vec::new() });
    }
    let folder = path.canonicalize().ok().filter(|path| !named && path.join(MANIFEST).is_file());
    let within = folder.as_ref().and_then(|path| Some((path.parent()?.to_str()?, path.file_name()?.to_str()?)));
    if let Some((place, id)) = within {
        let repository = ways.backups(place)?;
        let manifest = repository.find(id)?;
        return Ok(Found { repository, manifest, warnings: Vec::new() });
    }
    if !named && word.contains(['/', '.']) {
        return Err(Failure::usage(format!("there is no backup at `{}`", word.escape_debug()))
            .hint("the path of a file of `mlops backup --file`, or of a backup's folder; or an id with --from DEST"));
    }
    let repository = found(context, ways, from)?;
    let (manifest, warnings) =
        if word == "latest" { repository.latest()? } else { (repository.find(word)?, Vec::new()) };
    Ok(Found { repository, manifest, warnings })
}

/// A backup that was found.
pub(super) struct Found {
    pub(super) repository: Repository,
    pub(super) manifest: Manifest,
    /// What is to be known of the choice.
    pub(super) warnings: Vec<String>,
}

/// Where the backups are: a flag says it, or the settings do.
pub(super) fn place<'a>(context: &'a Context, flag: &str, given: Option<&'a str>) -> Outcome<&'a str> {
    given.or_else(|| context.settings.backup_to()).ok_or_else(|| {
        Failure::usage("where are the backups?")
            .hint(format!("{flag} DEST, or MLOPS_BACKUP_TO, or `to` in [backup] of the configuration"))
    })
}

fn create(context: &Context, arguments: &Create) -> Result<u8, Ended> {
    if arguments.file.is_none() {
        place(context, "--to", arguments.to.as_deref())?;
    }
    let limits = if arguments.prune { Some(limits(&context.settings, &arguments.keep)?) } else { None };
    if limits.is_none() && !flagged(&arguments.keep).is_empty() {
        return Err(Failure::usage("--keep-* means nothing without --prune").into());
    }
    let settings = context.settings.notify()?;
    let secret = |flag: &Option<String>, setting| flag.clone().map(SecretString::from).or(setting);
    let (ping, chat) = (&arguments.messages.ping, &arguments.messages.notify);
    let telling = Telling::begin(context, secret(ping, settings.ping), secret(chat, settings.webhook))?;
    let mut warnings = Vec::new();
    let made = make(context, arguments, &mut warnings);
    // Pruning is part of what is told of.
    let pruned = match (&made, &limits) {
        (Ok(created), Some(limits)) if created.manifest.complete => Some(pruned(context, arguments, limits)),
        _ => None,
    };
    let line = |created: &Created| report::backup_line(&created.manifest);
    let (well, text) = match (&made, &pruned) {
        (Err(failure), _) => (false, format!("mlops backup failed: {}", failure.message)),
        (Ok(made), Some(Err(failure))) => (false, format!("{}\nbut pruning failed: {}", line(made), failure.message)),
        (Ok(made), _) => (made.manifest.complete, line(made)),
    };
    warnings.extend(telling.end(well, &text));
    match (made, pruned) {
        (Err(failure), _) => Err(Ended { failure, warnings }),
        (Ok(created), Some(Err(failure))) => {
            warnings.push(format!("the backup {} is made, but pruning failed", created.manifest.id));
            Err(Ended { failure, warnings })
        }
        (Ok(created), pruned) => {
            warnings.splice(0..0, created.manifest.warnings.iter().cloned());
            let exit = if created.manifest.complete { 0 } else { report::PARTIAL };
            if limits.is_some() && pruned.is_none() {
                warnings.push("nothing was pruned: this backup is not complete".to_owned());
            }
            let pruned = pruned.and_then(Result::ok);
            context.finish(
                &Report::BackedUp(&created, pruned.as_ref().map(|plan| (plan, context.yes))),
                exit,
                &warnings,
            )
        }
    }
}

fn make(context: &Context, arguments: &Create, warnings: &mut Vec<String>) -> Outcome<Created> {
    let settings = &context.settings;
    let database = settings.backend_store_uri()?.ok_or_else(|| {
        Failure::usage("which database?").hint("--backend-store-uri, or MLFLOW_BACKEND_STORE_URI, or the configuration")
    })?;
    let ways = ways(context)?;
    let bundle = arguments.file.as_deref().map(|file| Bundle::create(file, &settings.work_dir())).transpose()?;
    let repository = match &bundle {
        Some(bundle) => Repository { shelf: Box::new(bundle.clone()), fixed: true },
        None => {
            let to = place(context, "--to", arguments.to.as_deref())?;
            Repository { shelf: ways.shelf(to, true)?, fixed: false }
        }
    };
    let request = create::Request {
        id: context.id.clone(),
        started: report::time(context.reporter.started),
        database,
        auth: settings.auth_store_uri()?,
        artifact_root: settings.artifact_root().map(str::to_owned),
        scope: match arguments.artifacts {
            Some(Which::All) => Scope::All,
            Some(Which::Registered) => Scope::Registered,
            Some(Which::None) => Scope::None,
            None => {
                let words = [Scope::All, Scope::Registered, Scope::None].map(|scope| (scope.word(), scope));
                settings.word("backup.artifacts", &words)?
            }
        },
        rehash: arguments.rehash,
        work_dir: settings.work_dir(),
    };
    if context.dry_run {
        return Err(Failure::usage(
            "--dry-run: a backup changes nothing but its own place, so there is no plan of one",
        )
        .hint("--dry-run is for `mlops restore` and `mlops backup prune`"));
    }
    let (journal, more) = journal::begin(context, &repository.shelf.place(), "what it left is removed")?;
    warnings.extend(more);
    let created = create::create(&request, &repository, &ways, &context.work())
        .and_then(|created| bundle.map_or(Ok(()), |bundle| bundle.finish()).map(|()| created));
    journal.close(if created.is_ok() { "done" } else { "failed" });
    created
}

fn pruned(context: &Context, arguments: &Create, limits: &Limits) -> Outcome<prune::Plan> {
    let ways = ways(context)?;
    let repository = repository(&ways, place(context, "--to", arguments.to.as_deref())?)?;
    remove(context, &repository, limits, context.yes)
}

fn prune(context: &Context, arguments: &Prune) -> Result<u8, Ended> {
    let limits = limits(&context.settings, &arguments.keep)?;
    let ways = ways(context)?;
    let repository = found(context, &ways, &arguments.place)?;
    let really = context.yes && !context.dry_run;
    let plan = remove(context, &repository, &limits, really)?;
    context.finish(&Report::Pruned(&plan, really), 0, &[])
}

/// Plans, and removes if that was agreed to.
fn remove(context: &Context, repository: &Repository, limits: &Limits, really: bool) -> Outcome<prune::Plan> {
    let who = format!("mlops backup prune {} (process {})", context.id, std::process::id());
    let lease = if really || repository.fixed { Some(repository.shelf.lock(&who)?) } else { None };
    if really {
        prune::resume(repository)?;
    }
    let work = context.work();
    let ledger = prune::ledger(&context.settings.work_dir())?;
    let mut plan = prune::plan(repository, &limits.keep, &ledger, jiff::Timestamp::now(), &work)?;
    plan.rules.clone_from(&limits.rules);
    if really && !plan.is_empty() {
        let confirmed = context.consent().to("remove backups")?;
        lease.as_ref().map_or(Ok(()), |lease| lease.held())?;
        prune::carry_out(repository, &plan, &ledger, &confirmed, &work)?;
    }
    Ok(plan)
}

/// Which backups are kept, and who says so.
struct Limits {
    keep: retention::Keep,
    rules: Vec<Rule>,
}

/// The rules of the flags.
fn flagged(arguments: &Keep) -> Vec<Rule> {
    let all = [
        ("keep_last", &arguments.keep_last),
        ("keep_hourly", &arguments.keep_hourly),
        ("keep_daily", &arguments.keep_daily),
        ("keep_weekly", &arguments.keep_weekly),
        ("keep_monthly", &arguments.keep_monthly),
        ("keep_yearly", &arguments.keep_yearly),
        ("keep_within", &arguments.keep_within),
    ];
    all.into_iter().filter_map(|(name, text)| Some(Rule { name, text: text.clone()?, origin: None })).collect()
}

/// The limits of the flags; where there is none, those of the settings.
fn limits(settings: &Settings, arguments: &Keep) -> Outcome<Limits> {
    let flags = flagged(arguments);
    let rules = if flags.is_empty() { settings.backup_rules() } else { flags };
    let mut keep = retention::Keep::default();
    for Rule { name, text, origin } in &rules {
        keep.set(name, text).map_err(|f| match origin {
            None => f.on(format!("--{}", name.replace('_', "-"))),
            Some(origin) => Failure { kind: Kind::Configuration, ..f.on(format!("{name} ({origin})")) },
        })?;
    }
    if keep.is_empty() {
        return Err(Failure::usage("no rule says which backups are kept").hint(
            "--keep-last 10, or --keep-daily 7 --keep-weekly 5 --keep-monthly 12; or the same in [backup] of the \
             configuration",
        ));
    }
    Ok(Limits { keep, rules })
}

/// The repository that a flag or the settings name.
fn found(context: &Context, ways: &Ways, from: &From) -> Outcome<Repository> {
    repository(ways, place(context, "--from", from.from.as_deref())?)
}

fn list(context: &Context, from: &From) -> Result<u8, Ended> {
    let ways = ways(context)?;
    let listed = found(context, &ways, from)?.list()?;
    context.finish(&Report::Backups(&listed), 0, &[])
}

fn show(context: &Context, one: &One) -> Result<u8, Ended> {
    let ways = ways(context)?;
    let Found { repository, manifest, warnings } = find(context, &ways, &one.id, &one.place)?;
    let listed = repository.look(&manifest.id)?;
    context.finish(&Report::Backup(&listed), 0, &warnings)
}

fn verify(context: &Context, arguments: &Verify) -> Result<u8, Ended> {
    let subset = arguments.read_data_subset.as_deref().map_or(Ok(Subset::ALL), Subset::parse)?;
    let ways = ways(context)?;
    let mut damaged = Vec::new();
    let (repository, manifests, mut warnings) = if arguments.all {
        let repository = found(context, &ways, &arguments.place)?;
        let (mut whole, mut unfinished) = (Vec::new(), Vec::new());
        for listed in repository.list()? {
            match listed.manifest {
                Some(Ok(manifest)) => whole.push(manifest),
                Some(Err(failure)) => damaged.push((listed.id, failure.message)),
                None => unfinished.push(format!("{} was never finished, and is no backup", listed.id)),
            }
        }
        if whole.is_empty() && damaged.is_empty() {
            let none = Failure::usage(format!("{} holds no whole backup", repository.shelf.place()));
            return Err(Ended { failure: none, warnings: unfinished });
        }
        (repository, whole, unfinished)
    } else {
        let Found { repository, manifest, warnings } = find(context, &ways, &arguments.id, &arguments.place)?;
        (repository, vec![manifest], warnings)
    };
    let (work_dir, work) = (context.settings.work_dir(), context.work());
    let server = arguments.drill_on.as_deref().map(|text| match context.settings.address(text)? {
        StoreAddress::Postgres(address) => Ok(*address),
        other => Err(Failure::usage(format!("--drill-on {other}: no PostgreSQL server"))
            .hint("without it a drill takes a temporary SQLite file")),
    });
    let server = server.transpose()?;
    let drill = arguments.drill.then(|| verify::Drill { id: context.id.clone(), server });
    let wanted = verify::Wanted { subset, drill };
    let mut verified = verify::verify(&repository, &manifests, &wanted, &work_dir, &work)?;
    verified.extend(damaged.into_iter().map(|(id, fault)| verify::Verified::damaged(id, fault)));
    verified.sort_by(|a, b| a.id.cmp(&b.id));
    let exit = if verified.iter().all(|v| v.faults.is_empty()) { 0 } else { report::code(Kind::Damaged) };
    for (id, why) in verified.iter().filter_map(|v| Some((&v.id, v.unrecorded.as_ref()?))) {
        warnings.push(format!("that {id} was verified could not be noted beside it: {why}"));
    }
    context.finish(&Report::Verified(&verified, &wanted), exit, &warnings)
}

fn pin(context: &Context, one: &One, pinned: bool) -> Result<u8, Ended> {
    let ways = ways(context)?;
    let Found { repository, manifest, warnings } = find(context, &ways, &one.id, &one.place)?;
    let path = format!("{}/{PIN}", manifest.id);
    if pinned {
        repository.write(&path, format!("{}\n", report::time(context.reporter.started)).as_bytes())?;
    } else {
        repository.shelf.remove(&path)?;
    }
    repository.shelf.settle()?;
    context.finish(&Report::Pinned(&manifest.id, pinned), 0, &warnings)
}
