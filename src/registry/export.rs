//! What is in production: each model's version with all that it was made of, for a document.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::files;
use super::metrics::{self, Origin};
use super::mlmodel;
use crate::domain::artifact_address::ArtifactAddress;
use crate::domain::failure::{Failure, Outcome};
use crate::domain::glob;
use crate::domain::promotion::place::Stage;
use crate::domain::signature::MlModel;
use crate::domain::tracking::{ModelVersion, PROMPT, RegisteredModel, value};
use crate::mlflow::Client;
use crate::mlflow::fault::Reply;

/// Versions that are asked about at a time, some questions each: a tracking server often has as many threads.
const AT_ONCE: usize = 4;

/// Which versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// Those in a stage.
    Stage(Stage),
    /// Those with an alias.
    Alias(String),
    /// Those with that alias, and where a model has none of it the newest in Production.
    InProduction(String),
}

impl Choice {
    /// A stage by its name, in any case.
    ///
    /// # Errors
    /// Usage: there is no such stage.
    pub fn stage(name: &str) -> Outcome<Choice> {
        Stage::parse(name).map(Choice::Stage).ok_or_else(|| {
            Failure::usage(format!("MLflow has no stage `{}`", name.escape_debug()))
                .hint(format!("one of {}", Stage::ALL.map(Stage::word).join(", ")))
        })
    }

    /// In words.
    pub fn words(&self) -> String {
        match self {
            Choice::Stage(stage) => format!("stage {}", stage.word()),
            Choice::Alias(alias) => format!("alias {alias}"),
            Choice::InProduction(alias) => format!("alias {alias}, else stage {}", Stage::Production.word()),
        }
    }
}

/// A version and what stands behind it.
#[derive(Debug, Clone)]
pub struct Taken {
    /// As the registry has it, with its aliases.
    pub version: ModelVersion,
    /// What it was made from.
    pub origin: Origin,
    /// What it says of itself.
    pub mlmodel: Option<MlModel>,
    /// Where its files are.
    pub place: Option<ArtifactAddress>,
    /// What could not be read of it.
    pub faults: Vec<String>,
}

/// All of them.
#[derive(Debug, Clone, Default)]
pub struct Export {
    /// Which versions were asked for, in words.
    pub choice: String,
    /// By model and number.
    pub versions: Vec<Taken>,
    /// Models, matching the pattern, that have no such version.
    pub without: Vec<String>,
    /// What an operator should read.
    pub warnings: Vec<String>,
}

/// Looks at them: two lists to their ends, and some calls per version that is taken.
///
/// # Errors
/// Any fault of the lists. What is wrong with one version stands beside it.
pub async fn export(client: &Client, name: Option<&str>, choice: &Choice) -> Reply<Export> {
    let mut models: BTreeMap<String, RegisteredModel> = BTreeMap::new();
    let mut pages = client.registered_models("");
    while let Some(page) = pages.next().await? {
        for mut model in page {
            if name.is_none_or(|pattern| glob::matches(pattern, &model.name)) && value(&model.tags, PROMPT).is_none() {
                model.latest_versions.clear();
                models.insert(model.name.clone(), model);
            }
        }
    }
    let mut chosen: BTreeMap<(String, u64), ModelVersion> = BTreeMap::new();
    let mut several: BTreeMap<String, u64> = BTreeMap::new();
    let mut pages = client.model_versions("");
    while let Some(page) = pages.next().await? {
        for mut version in page {
            let Some(model) = models.get(&version.name) else { continue };
            let own = |(_, number): &&(String, String)| number.parse() == Ok(version.version);
            // MLflow's searches leave them empty.
            version.aliases = model.aliases.iter().filter(own).map(|(alias, _)| alias.clone()).collect();
            let stage = Stage::parse(&version.stage);
            if stage == Some(Stage::Production) {
                *several.entry(version.name.clone()).or_default() += 1;
            }
            match choice {
                Choice::Stage(wanted) if stage == Some(*wanted) => {}
                Choice::Alias(alias) if version.aliases.contains(alias) => {}
                Choice::InProduction(alias) if version.aliases.contains(alias) => {}
                Choice::InProduction(alias)
                    if stage == Some(Stage::Production) && value(&model.aliases, alias).is_none() =>
                {
                    // The newest alone: the list is in the order of numbers.
                    chosen.retain(|(name, _), _| *name != version.name);
                }
                _ => continue,
            }
            chosen.insert((version.name.clone(), version.version), version);
        }
    }
    let without = models.keys().filter(|name| !chosen.keys().any(|(model, _)| model == *name)).cloned().collect();
    let mut warnings: Vec<String> = several
        .iter()
        .filter(|(_, count)| **count > 1 && !matches!(choice, Choice::Alias(_)))
        .map(|(name, count)| format!("{count} versions of {name} are in {}", Stage::Production.word()))
        .collect();
    if chosen.is_empty() {
        warnings.push(format!("no version has what was asked for: {}", choice.words()));
    }
    let versions = look_at_all(client, chosen.into_values().collect()).await;
    Ok(Export { choice: choice.words(), versions, without, warnings })
}

async fn look_at_all(client: &Client, versions: Vec<ModelVersion>) -> Vec<Taken> {
    let (gate, mut tasks) = (Arc::new(Semaphore::new(AT_ONCE)), JoinSet::new());
    for version in versions {
        let (client, gate) = (client.clone(), gate.clone());
        tasks.spawn(async move {
            let _turn = gate.acquire().await;
            look_at(&client, version).await
        });
    }
    let mut taken = Vec::new();
    while let Some(done) = tasks.join_next().await {
        taken.extend(done);
    }
    taken.sort_by(|a, b| (&a.version.name, a.version.version).cmp(&(&b.version.name, b.version.version)));
    taken
}

async fn look_at(client: &Client, version: ModelVersion) -> Taken {
    let (origin, mlmodel) = tokio::join!(metrics::origin(client, &version), mlmodel::mlmodel(client, &version));
    let mut faults = Vec::new();
    let origin = origin.unwrap_or_else(|trouble| {
        faults.push(trouble.failure.message);
        Origin::default()
    });
    let mlmodel = mlmodel.map_err(|why| faults.push(why)).ok();
    let place = match files::way(client, &version, &origin).await {
        Ok(Some((_, place))) => Some(place),
        Ok(None) => {
            faults.push("what its source names is not there any more".to_owned());
            None
        }
        Err(trouble) => {
            faults.push(trouble.failure.message);
            None
        }
    };
    Taken { version, origin, mlmodel, place, faults }
}
