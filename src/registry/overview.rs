//! All models at a glance. Every list is read to its end and summed up on the way: what is kept is a line per model,
//! however many versions there are.

use std::collections::{BTreeMap, HashMap};

use crate::domain::glob;
use crate::domain::promotion::place::Stage;
use crate::domain::tracking::{ModelVersion, PROMPT, Pairs, RegisteredModel, Run, View, value};
use crate::mlflow::fault::Reply;
use crate::mlflow::{Client, RUNS_AT_ONCE};

/// Versions of a stage that are named; more than a few are a mistake that a number tells as well.
const NAMED: usize = 5;
/// Experiments in a page, MLflow's own bound.
const EXPERIMENTS: u32 = 50_000;

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Wish<'a> {
    /// A pattern of names; `None`: all.
    pub name: Option<&'a str>,
    /// The metric that is shown.
    pub metric: Option<&'a str>,
    /// The alias that marks the version in production.
    pub alias: &'a str,
}

/// All models.
#[derive(Debug, Clone, Default)]
pub struct Overview {
    /// The alias that marks a version in production.
    pub alias: String,
    /// The metric that is shown.
    pub metric: Option<String>,
    /// A line per model, by name.
    pub models: Vec<Line>,
    /// Prompts, which are models to MLflow alone.
    pub prompts: usize,
}

/// A model.
#[derive(Debug, Clone, Default)]
pub struct Line {
    /// Its name.
    pub name: String,
    /// How many versions it has.
    pub versions: u64,
    /// Those in Production.
    pub production: Staged,
    /// Those in Staging.
    pub staging: Staged,
    /// Alias and version.
    pub aliases: Pairs,
    /// The newest version, and when it was made.
    pub newest: Option<(u64, Option<i64>)>,
    /// The version in production: that of the alias, else the newest in stage Production.
    pub champion: Option<u64>,
    /// That version's value of the metric, from its run.
    pub metric: Option<f64>,
    run: String,
}

/// The versions of a stage.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Staged {
    /// How many.
    pub count: u64,
    /// The newest of them, the newest first.
    pub newest: Vec<u64>,
}

impl Staged {
    fn add(&mut self, version: u64) {
        self.count += 1;
        let at = self.newest.partition_point(|v| *v > version);
        self.newest.insert(at, version);
        self.newest.truncate(NAMED);
    }
}

impl Line {
    fn new(model: RegisteredModel, alias: &str) -> Line {
        let champion = value(&model.aliases, alias).and_then(|version| version.parse().ok());
        Line { name: model.name, aliases: model.aliases, champion, ..Line::default() }
    }

    fn add(&mut self, version: &ModelVersion, alias: &str) {
        self.versions += 1;
        if self.newest.is_none_or(|(newest, _)| version.version > newest) {
            self.newest = Some((version.version, version.created));
        }
        let stage = Stage::parse(&version.stage);
        match stage {
            Some(Stage::Production) => self.production.add(version.version),
            Some(Stage::Staging) => self.staging.add(version.version),
            _ => {}
        }
        let by_alias = value(&self.aliases, alias).is_some();
        let produced = stage == Some(Stage::Production);
        let staged = produced && self.champion.is_none_or(|champion| version.version > champion);
        if (by_alias && self.champion == Some(version.version)) || (!by_alias && staged) {
            self.champion = Some(version.version);
            self.run.clone_from(&version.run_id);
        }
    }
}

/// Looks at all models: a call per 1,000 models, per 5,000 versions and, for a metric, per 100 models.
///
/// # Errors
/// Any fault.
pub async fn overview(client: &Client, wish: &Wish<'_>) -> Reply<Overview> {
    let wanted = |name: &str| wish.name.is_none_or(|pattern| glob::matches(pattern, name));
    let (models, prompts) = tokio::try_join!(models(client, wish.alias, &wanted), prompts(client, &wanted))?;
    let mut models = models;
    let mut pages = client.model_versions("");
    while let Some(page) = pages.next().await? {
        for version in page {
            if let Some(line) = models.get_mut(&version.name) {
                line.add(&version, wish.alias);
            }
        }
    }
    let mut models: Vec<Line> = models.into_values().collect();
    if let Some(metric) = wish.metric {
        measure(client, &mut models, metric).await?;
    }
    Ok(Overview { alias: wish.alias.to_owned(), metric: wish.metric.map(str::to_owned), models, prompts })
}

async fn models(client: &Client, alias: &str, wanted: &impl Fn(&str) -> bool) -> Reply<BTreeMap<String, Line>> {
    let mut models = BTreeMap::new();
    let mut pages = client.registered_models("");
    while let Some(page) = pages.next().await? {
        for model in page.into_iter().filter(|m| wanted(&m.name) && value(&m.tags, PROMPT).is_none()) {
            models.insert(model.name.clone(), Line::new(model, alias));
        }
    }
    Ok(models)
}

async fn prompts(client: &Client, wanted: &impl Fn(&str) -> bool) -> Reply<usize> {
    let (mut prompts, mut pages) = (0, client.prompts());
    while let Some(page) = pages.next().await? {
        prompts += page.iter().filter(|m| wanted(&m.name)).count();
    }
    Ok(prompts)
}

/// Asks for the runs of the versions in production, many at once. What a run has measured more than once counts with its
/// newest value, as MLflow keeps it.
async fn measure(client: &Client, models: &mut [Line], metric: &str) -> Reply<()> {
    let mut runs: Vec<String> = models.iter().map(|m| m.run.clone()).filter(|run| !run.is_empty()).collect();
    runs.sort();
    runs.dedup();
    let value_of = |run: &Run| run.metrics.iter().find(|(key, _)| key == metric).map(|(_, point)| point.value);
    let mut experiments = Vec::new();
    let mut pages = client.experiments("", View::All, EXPERIMENTS);
    while !runs.is_empty()
        && let Some(page) = pages.next().await?
    {
        experiments.extend(page.into_iter().map(|e| e.id));
    }
    let mut values: HashMap<String, f64> = HashMap::new();
    for some in runs.chunks(RUNS_AT_ONCE) {
        let found = client.runs_by_id(&experiments, some, View::All).await?;
        values.extend(found.into_iter().filter_map(|run| value_of(&run).map(|value| (run.id, value))));
    }
    for model in models {
        model.metric = values.get(&model.run).copied();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(number: u64, stage: &str) -> ModelVersion {
        ModelVersion {
            name: "m".into(),
            version: number,
            status: "READY".into(),
            status_message: String::new(),
            stage: stage.into(),
            source: String::new(),
            run_id: format!("r{number}"),
            created: i64::try_from(number).ok(),
            updated: None,
            description: String::new(),
            aliases: vec![],
            tags: vec![],
        }
    }

    fn line(alias: Option<&str>, versions: &[(u64, &str)]) -> Line {
        let aliases = alias.map(|v| ("champion".to_owned(), v.to_owned())).into_iter().collect();
        let champion = alias.and_then(|v| v.parse().ok());
        let mut line = Line { aliases, champion, ..Line::default() };
        for (number, stage) in versions {
            line.add(&version(*number, stage), "champion");
        }
        line
    }

    #[test]
    fn the_alias_says_what_is_in_production_else_the_newest_in_the_stage() {
        let staged = [(2, "Production"), (7, "Production"), (3, "None"), (9, "Staging"), (1, "Production")];
        for (alias, champion, run) in [(None, Some(7), "r7"), (Some("3"), Some(3), "r3"), (Some("8"), Some(8), "")] {
            let line = line(alias, &staged);
            assert_eq!((line.champion, line.run.as_str()), (champion, run), "{alias:?}");
            assert_eq!((line.versions, line.newest), (5, Some((9, Some(9)))));
            assert_eq!(line.production, Staged { count: 3, newest: vec![7, 2, 1] });
            assert_eq!(line.staging.newest, [9]);
        }
        assert_eq!(line(None, &[(1, "None")]).champion, None);
    }

    #[test]
    fn a_stage_that_holds_many_is_counted() {
        let all: Vec<(u64, &str)> = (1..=1000).map(|n| (n * 7 % 1009, "Production")).collect();
        let line = line(None, &all);
        assert_eq!((line.production.count, line.champion), (1000, Some(1008)));
        assert_eq!(line.production.newest, [1008, 1007, 1006, 1005, 1004]);
    }
}
