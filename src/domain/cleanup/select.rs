//! Which runs and experiments go, which stay, and why.

use std::collections::{HashMap, HashSet};

use super::rules::{Protected, Rules};
use crate::domain::tracking::{Experiment, Run, value};

/// The tag that keeps what has it.
pub const KEEP: &str = "mlops.keep";
/// MLflow's tags: the run that a run belongs to, and who made it.
const PARENT: &str = "mlflow.parentRunId";
const USER: &str = "mlflow.user";
/// The experiment that is there from the start.
const DEFAULT: &str = "0";

/// Versions of models that were made by a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Behind {
    /// `energy 3`, the first few.
    pub versions: Vec<String>,
    /// Whether one of them has a stage or an alias.
    pub in_use: bool,
    /// When the newest was made.
    pub newest: Option<i64>,
}

/// What counts of a run.
#[derive(Debug, Clone)]
pub struct RunFacts {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its status.
    pub status: String,
    /// Where its artifacts are.
    pub artifact_uri: String,
    /// Its last activity, in milliseconds since 1970: start, end, newest metric, newest model version.
    pub active: i64,
    start: i64,
    parent: Option<String>,
    /// Whether names, status, tags and user are those that are asked for.
    meant: bool,
    metric: Option<f64>,
    /// Why it stays, where that does not depend on other runs.
    kept: Option<String>,
}

fn pinned(tags: &[(String, String)]) -> bool {
    let pin = |key: &str| key == "pinned" || key.ends_with(".pinned");
    tags.iter().any(|(key, value)| pin(key) && !matches!(value.as_str(), "" | "0" | "false" | "False"))
}

fn kept_by_tag(tags: &Vec<(String, String)>, rules: &Rules) -> Option<String> {
    if !rules.takes(Protected::Keep) && value(tags, KEEP).is_some() {
        return Some(format!("it has the tag {KEEP}"));
    }
    (!rules.takes(Protected::Pinned) && pinned(tags)).then(|| "it is pinned".to_owned())
}

impl RunFacts {
    /// What counts of a run. `behind`: the versions that it made.
    pub fn of(run: &Run, behind: Option<&Behind>, rules: &Rules) -> RunFacts {
        let metrics = run.metrics.iter().map(|(_, point)| point.timestamp);
        let times = [run.start, run.end, behind.and_then(|b| b.newest)].into_iter().flatten();
        let metric = rules
            .keep_best
            .as_ref()
            .and_then(|(_, key, _)| run.metrics.iter().find(|(name, _)| name == key).map(|(_, point)| point.value));
        RunFacts {
            id: run.id.clone(),
            name: run.name.clone(),
            status: run.status.clone(),
            artifact_uri: run.artifact_uri.clone(),
            active: times.chain(metrics).max().unwrap_or(0),
            start: run.start.unwrap_or(0),
            parent: value(&run.tags, PARENT).map(str::to_owned),
            meant: rules.names(&run.name)
                && rules.describes(&run.status, value(&run.tags, USER))
                && rules.tagged(&run.tags),
            metric: metric.filter(|value| !value.is_nan()),
            kept: kept(run, behind, rules),
        }
    }
}

/// The newest activity that is old, in milliseconds since 1970.
fn limit(rules: &Rules, now: i64) -> i64 {
    now.saturating_sub(i64::try_from(rules.older_than.as_millis()).unwrap_or(i64::MAX))
}

fn fate(active: i64, kept: Option<&String>, rules: &Rules, now: i64) -> Fate {
    match kept {
        _ if active > limit(rules, now) => Fate::Young,
        Some(why) => Fate::Stays(why.clone()),
        None => Fate::Goes,
    }
}

impl RunFacts {
    /// Its fate, whatever becomes of others.
    pub fn fate(&self, rules: &Rules, now: i64) -> Fate {
        fate(self.active, self.kept.as_ref(), rules, now)
    }
}

impl ExperimentFacts {
    /// Its fate, whatever becomes of others.
    pub fn fate(&self, rules: &Rules, now: i64) -> Fate {
        fate(self.active, self.kept.as_ref(), rules, now)
    }
}

fn kept(run: &Run, behind: Option<&Behind>, rules: &Rules) -> Option<String> {
    let running = matches!(run.status.as_str(), "RUNNING" | "SCHEDULED");
    match behind {
        Some(behind) if behind.in_use => {
            return Some(format!("a model version in use was made of it: {}", behind.versions.join(", ")));
        }
        Some(behind) if !rules.takes(Protected::Registered) => {
            return Some(format!("a model version was made of it: {}", behind.versions.join(", ")));
        }
        _ => {}
    }
    let tagged = kept_by_tag(&run.tags, rules);
    tagged.or_else(|| (running && !rules.takes(Protected::Running)).then(|| format!("it is {}", run.status)))
}

/// What becomes of something that was meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It goes.
    Goes,
    /// It stays, for that reason.
    Stays(String),
    /// It is too young.
    Young,
}

/// The fate of each run of one experiment; `None`: it was not meant. `now`: milliseconds since 1970.
pub fn runs(facts: &[RunFacts], rules: &Rules, now: i64) -> Vec<Option<Fate>> {
    let index: HashMap<&str, usize> = facts.iter().enumerate().map(|(n, run)| (run.id.as_str(), n)).collect();
    let parent = |n: usize| facts.get(n).and_then(|run| index.get(run.parent.as_deref()?)).copied();
    // Up to the root; a circle ends.
    let line = |n: usize| {
        let mut seen = HashSet::from([n]);
        std::iter::successors(Some(n), move |n| parent(*n).filter(|p| seen.insert(*p)))
    };
    // Children go with their parents.
    let meant = |n: usize| line(n).any(|n| facts.get(n).is_some_and(|run| run.meant));
    let kept_of_all =
        best(facts, rules, &meant).into_iter().chain(last(facts, rules, &meant, &line)).collect::<HashMap<_, _>>();
    let mut fates: Vec<Option<Fate>> = facts
        .iter()
        .enumerate()
        .map(|(n, run)| {
            if !meant(n) {
                return None;
            }
            let reason = run.kept.as_ref().or_else(|| kept_of_all.get(&n));
            Some(fate(run.active, reason, rules, now))
        })
        .collect();
    // Parents of what stays stay, of what was not meant as well.
    for n in 0..facts.len() {
        if matches!(fates.get(n), Some(Some(Fate::Goes))) {
            continue;
        }
        let child = facts.get(n).map_or("", |run| run.id.as_str());
        for above in line(n).skip(1) {
            if let Some(fate @ Some(Fate::Goes)) = fates.get_mut(above) {
                *fate = Some(Fate::Stays(format!("its child {child} stays")));
            }
        }
    }
    fates
}

/// The best runs of an experiment.
fn best(facts: &[RunFacts], rules: &Rules, meant: &dyn Fn(usize) -> bool) -> Vec<(usize, String)> {
    let Some((count, metric, lower)) = &rules.keep_best else { return Vec::new() };
    let mut judged: Vec<(usize, f64)> =
        facts.iter().enumerate().filter(|(n, _)| meant(*n)).filter_map(|(n, run)| Some((n, run.metric?))).collect();
    judged.sort_by(|(a, x), (b, y)| {
        let order = if *lower { x.total_cmp(y) } else { y.total_cmp(x) };
        let id = |n: usize| facts.get(n).map(|run| &run.id);
        order.then_with(|| id(*a).cmp(&id(*b)))
    });
    judged.truncate(*count);
    judged.into_iter().map(|(n, value)| (n, format!("one of the best {count} by {metric} ({value})"))).collect()
}

/// The newest runs of an experiment, and what belongs to them: a run with its children counts as one.
fn last<'a, I: Iterator<Item = usize> + 'a>(
    facts: &[RunFacts],
    rules: &Rules,
    meant: &dyn Fn(usize) -> bool,
    line: &dyn Fn(usize) -> I,
) -> Vec<(usize, String)> {
    if rules.keep_last == 0 {
        return Vec::new();
    }
    let root = |n: usize| line(n).last().unwrap_or(n);
    let mut roots: Vec<usize> = (0..facts.len()).filter(|n| meant(*n) && root(*n) == *n).collect();
    roots.sort_by_key(|n| facts.get(*n).map(|run| (std::cmp::Reverse(run.start), run.id.clone())));
    roots.truncate(rules.keep_last);
    let newest: HashSet<usize> = roots.into_iter().collect();
    let why = format!("one of the last {}", rules.keep_last);
    (0..facts.len()).filter(|n| newest.contains(&root(*n))).map(|n| (n, why.clone())).collect()
}

/// What counts of an experiment.
#[derive(Debug, Clone)]
pub struct ExperimentFacts {
    /// The experiment.
    pub experiment: Experiment,
    /// Its last activity: its own creation, and those of its runs, deleted ones too, logged models and traces.
    pub active: i64,
    /// Runs that are not deleted.
    pub runs: u64,
    /// Why it stays, by what is in it.
    kept: Option<String>,
}

impl ExperimentFacts {
    /// An experiment of which no run is known yet.
    pub fn of(experiment: Experiment, rules: &Rules) -> ExperimentFacts {
        let kept = if experiment.id == DEFAULT && !rules.takes(Protected::Default) {
            Some("it is the default experiment".to_owned())
        } else {
            kept_by_tag(&experiment.tags, rules)
        };
        ExperimentFacts { active: experiment.created.unwrap_or(0), experiment, runs: 0, kept }
    }

    /// Adds a run of it.
    pub fn add(&mut self, run: &Run, behind: Option<&Behind>, rules: &Rules) {
        let facts = RunFacts::of(run, behind, rules);
        self.active = self.active.max(facts.active);
        if run.deleted {
            return;
        }
        self.runs += 1;
        if let (None, Some(why)) = (&self.kept, facts.kept) {
            self.kept = Some(format!("its run {}: {why}", run.id));
        }
    }

    /// Adds something else that was made in it.
    pub fn made(&mut self, at: i64) {
        self.active = self.active.max(at);
    }
}

/// The fate of each experiment that is meant; `now`: milliseconds since 1970.
pub fn experiments(facts: &[ExperimentFacts], rules: &Rules, now: i64) -> Vec<Fate> {
    let mut newest: Vec<&ExperimentFacts> = facts.iter().collect();
    newest.sort_by_key(|f| (std::cmp::Reverse(f.active), f.experiment.id.clone()));
    let last: HashSet<&str> = newest.iter().take(rules.keep_last).map(|f| f.experiment.id.as_str()).collect();
    let fate = |f: &ExperimentFacts| match f.fate(rules, now) {
        Fate::Goes if last.contains(f.experiment.id.as_str()) => {
            Fate::Stays(format!("one of the last {}", rules.keep_last))
        }
        other => other,
    };
    facts.iter().map(fate).collect()
}
