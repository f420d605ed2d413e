//! `mlops cleanup`.

use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

use super::server::{called, runtime, server};
use super::{Context, Ended, backup, cleanup_orphans, cleanup_purge, journal, messages};
use crate::artifact::files::Met;
use crate::backup::place::Ways;
use crate::cleanup::batch::{Batch, Done as Deleted, Note};
use crate::cleanup::gather;
use crate::cleanup::undo::{self, Batched};
use crate::cleanup::{Cleaned, Cleanup as Done, Plan, Sizes};
use crate::cli::cleanup::{Artifacts, Cleanup, Experiments, Include, Runs, Shared, Undo};
use crate::domain::artifact_address::ArtifactAddress;
use crate::domain::cleanup::rules::{self, Kind, Protected, Rules, Written};
use crate::domain::failure::{Failure, Outcome};
use crate::mlflow::Client;
use crate::report::{self, Result as Report};
use crate::state::{self, lock};

/// How long another cleanup is waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long artifacts are measured for a plan.
const MEASURING: Duration = Duration::from_secs(20);
/// The commands whose batches `undo` puts back.
const BATCHES: [&str; 3] = ["cleanup.experiments", "cleanup.runs", "cleanup.policy"];

pub(super) fn run(context: &Context, arguments: Cleanup) -> Result<u8, Ended> {
    match arguments {
        Cleanup::Experiments(arguments) => {
            messages::told(context, &arguments.shared.messages, "mlops cleanup experiments", || {
                experiments(context, &arguments)
            })
        }
        Cleanup::Runs(arguments) => {
            messages::told(context, &arguments.shared.messages, "mlops cleanup runs", || runs(context, &arguments))
        }
        Cleanup::Policy(arguments) => {
            messages::told(context, &arguments.messages, "mlops cleanup policy", || policy(context))
        }
        Cleanup::Undo(arguments) => undo(context, &arguments),
        Cleanup::Purge(arguments) => messages::told(context, &arguments.messages, "mlops cleanup purge", || {
            let wish = cleanup_purge::Wish::of(&arguments);
            whole(context, |warnings| cleanup_purge::purge(context, &context.id, &wish, warnings))
        }),
        Cleanup::Orphans(arguments) => messages::told(context, &arguments.messages, "mlops cleanup orphans", || {
            if let Some(batch) = &arguments.put_back {
                return cleanup_orphans::put_back(context, batch);
            }
            let wish = cleanup_orphans::Wish {
                min_age: arguments.min_age.clone(),
                artifacts: arguments.artifacts == Artifacts::All,
                sole_owner: arguments.sole_owner,
            };
            whole(context, |warnings| cleanup_orphans::orphans(context, &context.id, &wish, warnings))
        }),
    }
}

fn written(shared: &Shared, name: &[String]) -> Written {
    let include = |include: &Include| match include {
        Include::Default => Protected::Default,
        Include::Registered => Protected::Registered,
        Include::Keep => Protected::Keep,
        Include::Pinned => Protected::Pinned,
        Include::Running => Protected::Running,
    };
    Written {
        older_than: Some(shared.older_than.clone()),
        name: name.to_vec(),
        exclude: shared.exclude.clone(),
        tag: shared.tag.clone(),
        keep_last: shared.keep_last,
        include: shared.include.iter().map(include).collect(),
        ..Written::default()
    }
}

fn experiments(context: &Context, arguments: &Experiments) -> Result<u8, Ended> {
    one(context, Kind::Experiments, written(&arguments.shared, &arguments.name))
}

fn runs(context: &Context, arguments: &Runs) -> Result<u8, Ended> {
    let wish = Written {
        experiment: arguments.experiment.clone(),
        status: arguments.status.clone(),
        user: arguments.user.clone(),
        keep_best: arguments.keep_best,
        metric: arguments.metric.clone(),
        lower: arguments.lower,
        ..written(&arguments.shared, &arguments.name)
    };
    one(context, Kind::Runs, wish)
}

fn one(context: &Context, kind: Kind, wish: Written) -> Result<u8, Ended> {
    let _lock = lock(context)?;
    whole(context, |warnings| Job::new(context, &wish)?.run(kind, context.id.clone(), warnings))
}

/// Does one thing, and tells how it ended.
fn whole(context: &Context, work: impl FnOnce(&mut Vec<String>) -> Outcome<(Done, u8)>) -> Result<u8, Ended> {
    let mut warnings = Vec::new();
    match work(&mut warnings) {
        Ok((done, exit)) => context.finish(&Report::Cleanup(&done), exit, &warnings),
        Err(failure) => Err(Ended { failure, warnings }),
    }
}

/// Every entry of the file, each as a batch of its own. One that fails ends it: what follows may stand on it.
fn policy(context: &Context) -> Result<u8, Ended> {
    let policies = context.settings.cleanup_policy();
    if policies.is_empty() {
        return Err(Failure::configuration("there is no [[cleanup.policy]] in the configuration")
            .hint("`mlops config show` tells which file is read; config.example.toml shows how one is written")
            .into());
    }
    let _lock = lock(context)?;
    let (mut all, mut warnings, mut exit) = (Vec::new(), Vec::new(), 0);
    for policy in policies {
        let id = state::new_id();
        match entry(context, policy, &id, &mut warnings) {
            Ok((done, code)) => {
                exit = exit.max(code);
                all.push(done);
            }
            Err(failure) => {
                let batch = |done: &Done| match done {
                    Done::Old(old) if old.done.is_some() => Some(old.id.clone()),
                    _ => None,
                };
                let batches: Vec<String> = all.iter().filter_map(batch).collect();
                let batches =
                    if batches.is_empty() { String::new() } else { format!(": batches {}", batches.join(", ")) };
                warnings.push(format!("{} of {} policies were done before{batches}", all.len(), policies.len()));
                return Err(Ended { failure, warnings });
            }
        }
    }
    context.finish(&Report::CleanupByPolicy(&all), exit, &warnings)
}

fn entry(context: &Context, policy: &Written, id: &str, warnings: &mut Vec<String>) -> Outcome<(Done, u8)> {
    let artifacts = policy.artifacts != Some(rules::Artifacts::None);
    let older_than = policy.older_than.clone();
    match policy.kind.unwrap_or(Kind::Runs) {
        kind @ (Kind::Runs | Kind::Experiments) => Job::new(context, policy)?.run(kind, id.to_owned(), warnings),
        Kind::Purge => {
            let experiment = policy.experiment.clone();
            let wish = cleanup_purge::Wish { older_than, experiment, name: None, artifacts, backup_first: None };
            cleanup_purge::purge(context, id, &wish, warnings)
        }
        Kind::Orphans => {
            let min_age = older_than.unwrap_or_default();
            let wish = cleanup_orphans::Wish { min_age, artifacts, sole_owner: false };
            cleanup_orphans::orphans(context, id, &wish, warnings)
        }
    }
}

/// One cleanup at a time; a plan alone needs no lock.
fn lock(context: &Context) -> Outcome<Option<std::fs::File>> {
    if context.dry_run || !context.yes {
        return Ok(None);
    }
    hold(context).map(Some)
}

fn hold(context: &Context) -> Outcome<std::fs::File> {
    let state_dir = context.settings.state_dir()?;
    lock::hold(&state_dir, "cleanup", "another mlops cleans up", PATIENCE, &context.cancel)
}

/// One policy on one server.
struct Job<'a> {
    context: &'a Context,
    client: Client,
    runtime: Runtime,
    rules: Rules,
    /// Milliseconds since 1970.
    now: i64,
}

impl<'a> Job<'a> {
    fn new(context: &'a Context, written: &Written) -> Outcome<Job<'a>> {
        let rules = written.rules()?;
        let (client, runtime) = (server(context)?, runtime()?);
        Ok(Job { context, client, runtime, rules, now: jiff::Timestamp::now().as_millisecond() })
    }

    /// Plans, and deletes if that was agreed to.
    fn run(&self, kind: Kind, id: String, warnings: &mut Vec<String>) -> Outcome<(Done, u8)> {
        let (client, rules, cancel) = (&self.client, &self.rules, &self.context.cancel);
        let plan = self.runtime.block_on(async {
            Ok::<_, Failure>(match kind {
                Kind::Experiments => Plan::Experiments(gather::experiments(client, rules, self.now, cancel).await?),
                _ => Plan::Runs(gather::runs(client, rules, self.now, cancel).await?),
            })
        })?;
        if self.context.dry_run || !self.context.yes || plan.goes() == 0 {
            let sizes = self.measure(&plan)?;
            return Ok((Done::Old(Cleaned { id, plan, sizes: Some(sizes), done: None }), 0));
        }
        let done = self.delete(&plan, &id, warnings)?;
        // What could not be deleted is listed.
        let exit = if done.failed.is_empty() { 0 } else { report::PARTIAL };
        Ok((Done::Old(Cleaned { id, plan, sizes: None, done: Some(done) }), exit))
    }

    /// The bytes of artifacts, as far as they can be counted in the time.
    fn measure(&self, plan: &Plan) -> Outcome<Sizes> {
        let addresses: Vec<&str> = match plan {
            Plan::Experiments(found) => found.goes.iter().map(|f| f.experiment.artifact_location.as_str()).collect(),
            Plan::Runs(found) => found.goes.iter().map(|old| old.run.artifact_uri.as_str()).collect(),
        };
        let ways = backup::ways(self.context)?;
        let (end, mut sizes) = (Instant::now() + MEASURING, Sizes::default());
        for address in addresses {
            self.context.cancel.check()?;
            let counted = if Instant::now() < end { size(&ways, address, end) } else { None };
            match counted {
                Some(bytes) => sizes.bytes += bytes,
                None => sizes.uncounted += 1,
            }
        }
        Ok(sizes)
    }

    fn delete(&self, plan: &Plan, id: &str, warnings: &mut Vec<String>) -> Outcome<Deleted> {
        let context = self.context;
        let confirmed = context.consent().to("delete what is old")?;
        let target = called(&self.client);
        let superseded = "`mlops cleanup undo` puts back what it deleted";
        let (mut journal, told) = journal::begin_as(context, id, &target, superseded)?;
        warnings.extend(told.into_iter().filter(|w| !warnings.contains(w)).collect::<Vec<_>>());
        if !journal.is_kept() {
            let unkept = "the state folder cannot be written to: nothing that is deleted could be put back";
            return Err(Failure::configuration(unkept).hint("--state-dir DIR names another one"));
        }
        let mut note = |note: &Note| journal.note(note);
        let mut batch = Batch {
            client: &self.client,
            rules: &self.rules,
            now: self.now,
            jobs: context.jobs,
            note: &mut note,
            cancel: &context.cancel,
        };
        let done = self.runtime.block_on(async {
            match plan {
                Plan::Experiments(found) => batch.experiments(found, &confirmed).await,
                Plan::Runs(found) => batch.runs(found, &confirmed).await,
            }
        });
        journal.close(if done.is_ok() { "done" } else { "failed" });
        done.map_err(|failure| {
            let back = format!("`mlops cleanup undo {id}` puts back what was deleted until then");
            Failure { hint: Some(back), ..failure }
        })
    }
}

/// The bytes below an address; `None` where they cannot be counted.
fn size(ways: &Ways, address: &str, end: Instant) -> Option<u64> {
    let files = ways.files(&ArtifactAddress::parse(address)).ok()?;
    let mut bytes = 0_u64;
    let mut whole = true;
    let walked = files.walk("", &mut |met| {
        match met {
            Met::File(entry) => bytes += entry.bytes,
            Met::Unreadable { .. } => whole = false,
        }
        if Instant::now() < end { Ok(()) } else { Err(Failure::internal("no time to count more")) }
    });
    match walked {
        Ok(()) if whole => Some(bytes),
        // Nothing was ever written there.
        Err(_) if bytes == 0 && Instant::now() < end => Some(0),
        _ => None,
    }
}

fn undo(context: &Context, arguments: &Undo) -> Result<u8, Ended> {
    let state_dir = context.settings.state_dir()?;
    let batch = |id: &str| -> Outcome<(state::Told, Batched)> {
        let told = state::told(&state_dir, id)?;
        if !BATCHES.contains(&told.command.as_str()) {
            return Err(Failure::usage(format!(
                "the run {id} was {}, which deletes nothing that comes back",
                told.command
            )));
        }
        let batched = Batched::of(&told.notes);
        Ok((told, batched))
    };
    let Some(id) = &arguments.id else {
        let batches: Vec<(state::Told, Batched)> =
            state::ids(&state_dir).iter().filter_map(|id| batch(id).ok()).collect();
        return context.finish(&Report::CleanupBatches(&batches), 0, &[]);
    };
    let (told, batched) = batch(id)?;
    let (client, runtime) = (server(context)?, runtime()?);
    let address = called(&client);
    if told.target != address {
        return Err(Failure::usage(format!("the batch {id} was of {}, and this is {address}", told.target))
            .hint("--tracking-uri, and where it has workspaces MLFLOW_WORKSPACE, say which server is meant")
            .into());
    }
    if context.dry_run {
        return context.finish(&Report::CleanupBatches(&[(told, batched)]), 0, &[]);
    }
    let _lock = hold(context)?;
    let mut note = |note: &Note| state::add_to(&state_dir, id, note);
    let undone = runtime.block_on(undo::undo(&client, &batched, context.jobs, &mut note, &context.cancel))?;
    state::close(&state_dir, id, "undone")?;
    let exit = if undone.failed.is_empty() { 0 } else { report::PARTIAL };
    context.finish(&Report::CleanupUndone(id, &undone), exit, &[])
}
