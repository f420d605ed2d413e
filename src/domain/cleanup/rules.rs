//! By which rules runs and experiments are chosen, as flags and `[[cleanup.policy]]` write them.

use core::time::Duration;

use serde::Deserialize;

use crate::domain::failure::{Failure, Outcome};
use crate::domain::glob;
use crate::domain::health::sound::{Place, Sound, Wrong};
use crate::domain::span;
use crate::domain::tracking::{Pairs, value};

/// What is protected unless it is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protected {
    /// The experiment 0, which clients without one write to.
    Default,
    /// Runs behind model versions without a stage and an alias. Those with one are protected always.
    Registered,
    /// What has the tag `mlops.keep`.
    Keep,
    /// What has a tag `pinned`. The pins of MLflow's own page are kept by the browser, and no server knows them.
    Pinned,
    /// Runs that have not ended.
    Running,
}

/// What an entry of `[[cleanup.policy]]` is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Experiments are soft-deleted.
    Experiments,
    /// Runs are.
    Runs,
    /// What is deleted is removed for good.
    Purge,
    /// What lost its other half is put into quarantine, and removed by a later time.
    Orphans,
}

/// Which artifacts go with the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Artifacts {
    /// All that are their own.
    All,
    /// None: rows alone.
    None,
}

/// `[cleanup]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CleanupSettings {
    /// What `mlops cleanup policy` does, in this order.
    pub policy: Vec<Written>,
}

/// Whether `[[cleanup.policy]]` makes sense.
pub(crate) fn sound(settings: &CleanupSettings) -> Sound {
    for (index, policy) in settings.policy.iter().enumerate() {
        let at = Place::default().to("policy").to(index);
        let wrong = |failure: Failure| Wrong {
            at: at.clone(),
            failure: Failure { kind: crate::domain::failure::Kind::Configuration, ..failure },
        };
        let Some(kind) = policy.kind else {
            let kinds = "kind = \"runs\", \"experiments\", \"purge\" or \"orphans\"";
            return Err(wrong(Failure::usage("what is it about?").hint(kinds)));
        };
        policy.rules().map_err(&wrong)?;
        let bare = Written {
            kind: Some(kind),
            older_than: policy.older_than.clone(),
            artifacts: policy.artifacts,
            ..Written::default()
        };
        let fits = match kind {
            Kind::Purge => *policy == Written { experiment: policy.experiment.clone(), ..bare },
            Kind::Orphans => *policy == bare,
            Kind::Runs | Kind::Experiments => policy.artifacts.is_none(),
        };
        if !fits {
            let what = match kind {
                Kind::Purge => "a purge is told by `older_than`, `experiment` and `artifacts` alone",
                Kind::Orphans => "orphans are told by `older_than` and `artifacts` alone",
                Kind::Runs | Kind::Experiments => "`artifacts` is about purges and orphans: a deletion leaves them",
            };
            return Err(wrong(Failure::usage(what).hint("leave the other keys out")));
        }
        let of_runs = !policy.experiment.is_empty()
            || !policy.status.is_empty()
            || !policy.user.is_empty()
            || policy.keep_best.is_some();
        if kind == Kind::Experiments && of_runs {
            let what = "`experiment`, `status`, `user` and `keep_best` are about runs";
            return Err(wrong(Failure::usage(what).hint("an experiment is meant by its `name` and `tag`")));
        }
    }
    Ok(())
}

/// The rules, as they were written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Written {
    /// What they are about; in a file only.
    pub kind: Option<Kind>,
    /// The age.
    pub older_than: Option<String>,
    /// Globs of names: of experiments, or of runs.
    pub name: Vec<String>,
    /// Globs of names that are kept.
    pub exclude: Vec<String>,
    /// Globs of names, or ids, of the experiments whose runs are meant.
    pub experiment: Vec<String>,
    /// Statuses of runs.
    pub status: Vec<String>,
    /// Tags, `KEY=VALUE` or `KEY`.
    pub tag: Vec<String>,
    /// Who made the run.
    pub user: Vec<String>,
    /// How many of the newest are kept: experiments, or runs of each experiment.
    pub keep_last: Option<u64>,
    /// How many of the best runs of each experiment are kept.
    pub keep_best: Option<u64>,
    /// By which metric.
    pub metric: Option<String>,
    /// Whether less is better.
    pub lower: bool,
    /// What is not protected.
    pub include: Vec<Protected>,
    /// Which artifacts go; of a purge and of orphans only, in a file.
    pub artifacts: Option<Artifacts>,
}

/// The rules, understood.
#[derive(Debug, Clone)]
pub struct Rules {
    /// The least time since the last activity.
    pub older_than: Duration,
    name: Vec<String>,
    exclude: Vec<String>,
    /// Globs or ids of experiments.
    pub experiment: Vec<String>,
    status: Vec<String>,
    tags: Vec<(String, Option<String>)>,
    user: Vec<String>,
    /// How many of the newest are kept.
    pub keep_last: usize,
    /// How many of the best are kept, by which metric, and whether less is better.
    pub keep_best: Option<(usize, String, bool)>,
    /// What is not protected.
    pub include: Vec<Protected>,
}

/// What MLflow calls how a run stands.
const STATUSES: [&str; 5] = ["RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED"];

impl Written {
    /// Understands them.
    ///
    /// # Errors
    /// Usage: an age that is none, half a rule, a status that there is not.
    pub fn rules(&self) -> Outcome<Rules> {
        let older_than = self.older_than.as_deref().ok_or_else(|| {
            Failure::usage("how old is old?")
                .hint("--older-than 90d (older_than in a file): the time since the last activity")
        })?;
        let mut status = Vec::new();
        for word in &self.status {
            let word = word.to_ascii_uppercase();
            if !STATUSES.contains(&word.as_str()) {
                return Err(Failure::usage(format!("no run has the status {word}")).hint(STATUSES.join(", ")));
            }
            status.push(word);
        }
        let tag = |text: &String| {
            let (key, value) = text.split_once('=').map_or((text.as_str(), None), |(k, v)| (k, Some(v.to_owned())));
            (key.to_owned(), value)
        };
        let keep_best = match (self.keep_best, &self.metric) {
            (Some(count), Some(metric)) => Some((count, metric.clone(), self.lower)),
            (None, None) if !self.lower => None,
            _ => {
                return Err(Failure::usage("the best by which metric?")
                    .hint("--keep-best N and --metric NAME go together; --lower where less is better"));
            }
        };
        let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        Ok(Rules {
            older_than: span::parse(older_than).ok_or_else(|| {
                Failure::usage(format!("`{older_than}` is not a time"))
                    .hint("--older-than 90d, 12h (older_than in a file)")
            })?,
            name: self.name.clone(),
            exclude: self.exclude.clone(),
            experiment: self.experiment.clone(),
            status,
            tags: self.tag.iter().map(tag).collect(),
            user: self.user.clone(),
            keep_last: self.keep_last.map_or(0, count),
            keep_best: keep_best.map(|(n, metric, lower)| (count(n), metric, lower)),
            include: self.include.clone(),
        })
    }
}

impl Rules {
    /// Whether something of that protection is taken like anything else.
    pub fn takes(&self, protected: Protected) -> bool {
        self.include.contains(&protected)
    }

    /// Whether a name is meant, and not kept.
    pub fn names(&self, name: &str) -> bool {
        let any = |globs: &[String]| globs.iter().any(|glob| glob::matches(glob, name));
        (self.name.is_empty() || any(&self.name)) && !any(&self.exclude)
    }

    /// Whether the tags that are asked for are there.
    pub fn tagged(&self, tags: &Pairs) -> bool {
        self.tags.iter().all(|(key, wanted)| match (value(tags, key), wanted) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(found), Some(wanted)) => found == wanted,
        })
    }

    /// Whether a run of that status and user is meant.
    pub fn describes(&self, status: &str, user: Option<&str>) -> bool {
        let any = |wanted: &[String], found: Option<&str>| {
            wanted.is_empty() || found.is_some_and(|found| wanted.iter().any(|w| w == found))
        };
        any(&self.status, Some(status)) && any(&self.user, user)
    }

    /// Whether an experiment's runs are meant.
    pub fn of_experiment(&self, id: &str, name: &str) -> bool {
        self.experiment.is_empty() || self.experiment.iter().any(|word| word == id || glob::matches(word, name))
    }
}
