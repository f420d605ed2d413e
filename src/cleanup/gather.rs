//! What the server tells of runs, experiments and the versions that were made of them.

use std::collections::HashMap;

use crate::domain::artifact_address::ArtifactAddress;
use crate::domain::cleanup::rules::Rules;
use crate::domain::cleanup::select::{self, Behind, ExperimentFacts, Fate, RunFacts};
use crate::domain::failure::{Failure, Outcome};
use crate::domain::promotion::place::Stage;
use crate::domain::tracking::{Experiment, ModelVersion, View};
use crate::engine::cancel::Cancel;
use crate::mlflow::{Client, Runs};

/// Experiments in a page.
const EXPERIMENTS: u32 = 1_000;
/// Runs in a page: each comes with all its metrics, params and tags.
const RUNS: u32 = 1_000;
/// Experiments whose runs one search looks for.
const AT_ONCE: usize = 100;
/// Logged models in a page.
const LOGGED: u32 = 100;
/// Seconds that two clocks may differ by where days are counted.
const MOST_SKEW: i64 = 3_600;
/// Versions of a run that are named.
const NAMED: usize = 3;
/// Characters of a run's id.
const RUN_ID: usize = 32;

/// What goes and what stays of the runs, or of the experiments.
#[derive(Debug, Default)]
pub struct Found<T> {
    /// What goes.
    pub goes: Vec<T>,
    /// What stays though it is old, and why.
    pub stays: Vec<(T, String)>,
    /// How many are too young.
    pub young: u64,
}

/// A run and its experiment.
#[derive(Debug, Clone)]
pub struct OldRun {
    /// The run.
    pub run: RunFacts,
    /// Id of its experiment.
    pub experiment_id: String,
    /// Name of its experiment.
    pub experiment: String,
}

/// Runs that versions of models were made of.
pub type Registry = HashMap<String, Behind>;

/// Runs that a version's source names: `runs:/ID/...`, or a path with a run's id in it.
fn runs_of(version: &ModelVersion) -> Vec<String> {
    let mut ids: Vec<String> = Some(version.run_id.clone()).filter(|id| !id.is_empty()).into_iter().collect();
    if let ArtifactAddress::Run { id, .. } = ArtifactAddress::parse(&version.source) {
        ids.push(id);
    }
    let is_id = |part: &&str| part.len() == RUN_ID && part.chars().all(|c| c.is_ascii_hexdigit());
    ids.extend(version.source.split('/').filter(is_id).map(str::to_owned));
    ids.sort();
    ids.dedup();
    ids
}

/// Asks which runs versions of models were made of.
///
/// # Errors
/// Any fault.
pub async fn registry(client: &Client) -> Outcome<Registry> {
    let mut aliased: HashMap<String, Vec<String>> = HashMap::new();
    let mut pages = client.registered_models("");
    while let Some(page) = pages.next().await? {
        for model in page.into_iter().filter(|model| !model.aliases.is_empty()) {
            aliased.insert(model.name, model.aliases.into_iter().map(|(_, version)| version).collect());
        }
    }
    let mut registry = Registry::new();
    let mut pages = client.model_versions("");
    while let Some(page) = pages.next().await? {
        for version in page {
            let number = version.version.to_string();
            let staged = matches!(Stage::parse(&version.stage), Some(Stage::Staging | Stage::Production));
            let in_use = staged || aliased.get(&version.name).is_some_and(|versions| versions.contains(&number));
            let mut ids = runs_of(&version);
            if let (true, ArtifactAddress::LoggedModel(id)) = (ids.is_empty(), ArtifactAddress::parse(&version.source))
            {
                ids.extend(client.logged_model(&id).await?.map(|model| model.source_run_id));
            }
            for id in ids {
                let behind = registry.entry(id).or_default();
                behind.in_use |= in_use;
                behind.newest = behind.newest.max(version.created);
                if behind.versions.len() < NAMED {
                    behind.versions.push(format!("{} {number}", version.name));
                }
            }
        }
    }
    Ok(registry)
}

async fn active_experiments(client: &Client, now: i64) -> Outcome<Vec<Experiment>> {
    let (mut pages, mut all) = (client.experiments("", View::Active, EXPERIMENTS), Vec::new());
    while let Some(page) = pages.next().await? {
        all.extend(page);
    }
    // Ages are counted by our clock.
    if let Some(there) = pages.exchange().and_then(|exchange| exchange.date) {
        let ahead = (now - there.as_millisecond()) / 1_000;
        if ahead.abs() > MOST_SKEW {
            return Err(Failure::source(format!(
                "the clock of this machine and the server's differ by {ahead} s: what is old cannot be told"
            ))
            .hint("set the clocks; `mlops health` watches them (server.clock)"));
        }
    }
    Ok(all)
}

/// Finds runs that go. Only those of one experiment are held at a time, and those that go.
///
/// # Errors
/// Any fault.
pub async fn runs(client: &Client, rules: &Rules, now: i64, cancel: &Cancel) -> Outcome<Found<OldRun>> {
    let registry = registry(client).await?;
    let mut found = Found { goes: Vec::new(), stays: Vec::new(), young: 0 };
    for experiment in active_experiments(client, now).await? {
        cancel.check()?;
        if !rules.of_experiment(&experiment.id, &experiment.name) {
            continue;
        }
        let ids = [experiment.id.clone()];
        let search = Runs { experiments: &ids, filter: "", view: View::Active, order_by: &[], page: RUNS };
        let (mut pages, mut facts) = (client.runs(&search), Vec::new());
        while let Some(page) = pages.next().await? {
            facts.extend(page.iter().map(|run| RunFacts::of(run, registry.get(&run.id), rules)));
        }
        let fates = select::runs(&facts, rules, now);
        for (run, fate) in facts.into_iter().zip(fates) {
            let old = OldRun { run, experiment_id: experiment.id.clone(), experiment: experiment.name.clone() };
            match fate {
                None => {}
                Some(Fate::Young) => found.young += 1,
                Some(Fate::Stays(why)) => found.stays.push((old, why)),
                Some(Fate::Goes) => found.goes.push(old),
            }
        }
    }
    Ok(found)
}

/// Finds experiments that go.
///
/// # Errors
/// Any fault.
pub async fn experiments(client: &Client, rules: &Rules, now: i64, cancel: &Cancel) -> Outcome<Found<ExperimentFacts>> {
    let registry = registry(client).await?;
    let meant = active_experiments(client, now).await?.into_iter();
    let meant = meant.filter(|e| rules.names(&e.name) && rules.tagged(&e.tags) && rules.of_experiment(&e.id, &e.name));
    let mut facts: Vec<ExperimentFacts> = meant.map(|e| ExperimentFacts::of(e, rules)).collect();
    for some in facts.chunks_mut(AT_ONCE) {
        cancel.check()?;
        look_into(client, some, &registry, rules).await?;
    }
    let fates = select::experiments(&facts, rules, now);
    // Traces and logged models are asked for where nothing else keeps an experiment.
    for (experiment, fate) in facts.iter_mut().zip(fates) {
        if fate == Fate::Goes {
            cancel.check()?;
            other_activity(client, experiment).await?;
        }
    }
    let fates = select::experiments(&facts, rules, now);
    let mut found = Found { goes: Vec::new(), stays: Vec::new(), young: 0 };
    for (experiment, fate) in facts.into_iter().zip(fates) {
        match fate {
            Fate::Young => found.young += 1,
            Fate::Stays(why) => found.stays.push((experiment, why)),
            Fate::Goes => found.goes.push(experiment),
        }
    }
    Ok(found)
}

/// The runs of some experiments, deleted ones as well: somebody worked there.
async fn look_into(client: &Client, some: &mut [ExperimentFacts], registry: &Registry, rules: &Rules) -> Outcome<()> {
    let ids: Vec<String> = some.iter().map(|f| f.experiment.id.clone()).collect();
    let search = Runs { experiments: &ids, filter: "", view: View::All, order_by: &[], page: RUNS };
    let mut pages = client.runs(&search);
    while let Some(page) = pages.next().await? {
        for run in page {
            if let Some(facts) = some.iter_mut().find(|f| f.experiment.id == run.experiment_id) {
                facts.add(&run, registry.get(&run.id), rules);
            }
        }
    }
    Ok(())
}

async fn other_activity(client: &Client, facts: &mut ExperimentFacts) -> Outcome<()> {
    if let Some(begun) = client.newest_trace(&facts.experiment.id).await? {
        facts.made(begun);
    }
    let ids = [facts.experiment.id.clone()];
    if let Some(mut pages) = client.logged_models(&ids, "", LOGGED).await? {
        while let Some(page) = pages.next().await? {
            page.iter().filter_map(|model| model.created.max(model.updated)).for_each(|at| facts.made(at));
        }
    }
    Ok(())
}

/// Looks at an experiment once more: `None` where it is not there, or not active, any more.
///
/// # Errors
/// Any fault.
pub async fn again(client: &Client, id: &str, registry: &Registry, rules: &Rules) -> Outcome<Option<ExperimentFacts>> {
    let Some(experiment) = client.experiment(id).await?.filter(|e| !e.deleted) else { return Ok(None) };
    let mut facts = [ExperimentFacts::of(experiment, rules)];
    look_into(client, &mut facts, registry, rules).await?;
    for one in &mut facts {
        other_activity(client, one).await?;
    }
    Ok(facts.into_iter().next())
}
