//! What a tracking server holds, thing by thing, in a form that is small, says nothing secret, and tells later which thing
//! was lost or changed, and in what.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::domain::harmless;
use crate::domain::tracking::{Experiment, LoggedModel, MetricPoint, ModelVersion, Pairs, RegisteredModel, Run};

/// Keys of one group (metrics, params, tags) that are kept one by one; of more, a short hash of each is kept.
const KEYS: usize = 200;

/// What a group of more keys begins with; hashes of eight digits follow, in order.
const MANY: &str = "#many ";

/// A group of many keys.
fn all_of<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let short = |(key, value): (&str, &str)| {
        let whole = mark(format!("{key}\0{value}").as_bytes());
        whole.get(1..9).unwrap_or_default().to_owned()
    };
    let mut hashes: Vec<String> = pairs.map(short).collect();
    hashes.sort();
    format!("{MANY}{}", hashes.concat())
}

/// The hashes of a group of many keys.
fn many(text: &str) -> Option<Vec<&str>> {
    let hashes = text.strip_prefix(MANY)?;
    Some((0..hashes.len() / 8).filter_map(|n| hashes.get(n * 8..n * 8 + 8)).collect())
}

/// How many of the first, both in order, are not in the second.
fn missing(before: &[&str], after: &[&str]) -> usize {
    let mut after = after.iter().peekable();
    let mut missing = 0;
    for hash in before {
        while after.next_if(|other| *other < hash).is_some() {}
        if after.next_if(|other| *other == hash).is_none() {
            missing += 1;
        }
    }
    missing
}

/// What a thing is. The order is that of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// An experiment, by its id.
    Experiment,
    /// A run, by its id.
    Run,
    /// A registered model, by its name.
    Model,
    /// A version of one: `name/number`.
    Version,
    /// A logged model (MLflow 3), by its id.
    LoggedModel,
    /// All points of a metric: `run/key`.
    History,
    /// A file among a run's artifacts: `run/path`.
    Artifact,
}

impl Kind {
    /// All, in order.
    pub const ALL: [Kind; 7] =
        [Kind::Experiment, Kind::Run, Kind::Model, Kind::Version, Kind::LoggedModel, Kind::History, Kind::Artifact];

    /// The stable word for documents.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Experiment => "experiment",
            Kind::Run => "run",
            Kind::Model => "model",
            Kind::Version => "version",
            Kind::LoggedModel => "logged_model",
            Kind::History => "history",
            Kind::Artifact => "artifact",
        }
    }

    /// The stable word for several of them: `histories`.
    pub fn plural(self) -> &'static str {
        match self {
            Kind::Experiment => "experiments",
            Kind::Run => "runs",
            Kind::Model => "models",
            Kind::Version => "versions",
            Kind::LoggedModel => "logged_models",
            Kind::History => "histories",
            Kind::Artifact => "artifacts",
        }
    }

    /// So many of them, for people: `1 registered model`.
    pub fn counted(self, number: u64) -> String {
        let (one, several) = match self {
            Kind::Experiment => ("experiment", "experiments"),
            Kind::Run => ("run", "runs"),
            Kind::Model => ("registered model", "registered models"),
            Kind::Version => ("model version", "model versions"),
            Kind::LoggedModel => ("logged model", "logged models"),
            Kind::History => ("history of a metric", "histories of metrics"),
            Kind::Artifact => ("artifact", "artifacts"),
        };
        format!("{number} {}", if number == 1 { one } else { several })
    }
}

/// One thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entity {
    /// What it is.
    #[serde(rename = "k")]
    pub kind: Kind,
    /// By what it is known.
    #[serde(rename = "i")]
    pub id: String,
    /// What people call it; may be empty.
    #[serde(rename = "n", default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Whether somebody was at work on it: a run that had not ended.
    #[serde(rename = "o", default, skip_serializing_if = "is_false")]
    pub open: bool,
    /// `group.key` and the value: times, states and numbers as they are, all else as a hash (`#...`). What is empty is left
    /// out.
    #[serde(rename = "f")]
    pub fields: BTreeMap<String, String>,
}

fn is_false(open: &bool) -> bool {
    !open
}

/// A hash that stands for a text.
pub fn mark(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().take(8).fold(String::from("#"), |text, byte| format!("{text}{byte:02x}"))
}

/// A text that is no secret: as it is, but for passwords inside of addresses.
fn plain(text: &str) -> String {
    let masked = harmless::masked(text);
    if masked == text { masked } else { format!("{masked} {}", mark(text.as_bytes())) }
}

impl Entity {
    fn new(kind: Kind, id: impl Into<String>, name: &str) -> Entity {
        Entity { kind, id: id.into(), name: harmless::short(name, 80), open: false, fields: BTreeMap::new() }
    }

    /// Where it stands in a snapshot.
    pub fn place(&self) -> (Kind, &str) {
        (self.kind, &self.id)
    }

    /// What people read of it.
    pub fn shown(&self) -> String {
        let id = harmless::short(&self.id, 120);
        let word = self.kind.word().replace('_', " ");
        if self.name.is_empty() || self.name == id {
            format!("{word} {id}")
        } else {
            format!("{word} {id} ({})", self.name)
        }
    }

    fn with(mut self, field: &str, value: impl Into<String>) -> Entity {
        let value = value.into();
        if !value.is_empty() {
            self.fields.insert(format!("info.{field}"), value);
        }
        self
    }

    fn at(self, field: &str, time: Option<i64>) -> Entity {
        self.with(field, time.map_or(String::new(), |t| t.to_string()))
    }

    /// A group of keys with their values.
    fn group(mut self, group: &str, pairs: impl Iterator<Item = (String, String)>) -> Entity {
        let pairs: BTreeMap<String, String> = pairs.collect();
        if pairs.len() > KEYS {
            self.fields
                .insert(group.to_owned(), all_of(pairs.iter().map(|(key, value)| (key.as_str(), value.as_str()))));
        } else {
            self.fields.extend(pairs.into_iter().map(|(key, value)| (format!("{group}.{key}"), value)));
        }
        self
    }

    fn hashed(self, group: &str, pairs: &Pairs) -> Entity {
        self.group(group, pairs.iter().map(|(key, value)| (key.clone(), mark(value.as_bytes()))))
    }

    /// The same with those groups as one that are so in another.
    fn like(&self, other: &Entity) -> Entity {
        let mut same = self.clone();
        for group in other.fields.iter().filter(|(_, text)| many(text).is_some()).map(|(group, _)| group) {
            if same.fields.contains_key(group) {
                continue;
            }
            let prefix = format!("{group}.");
            let keys =
                self.fields.iter().filter_map(|(name, value)| Some((name.strip_prefix(&prefix)?, value.as_str())));
            same.fields.retain(|name, _| !name.starts_with(&prefix));
            same.fields.insert(group.clone(), all_of(keys));
        }
        same
    }

    /// Of an experiment.
    pub fn of_experiment(experiment: &Experiment) -> Entity {
        let state = if experiment.deleted { "deleted" } else { "active" };
        Entity::new(Kind::Experiment, &experiment.id, &experiment.name)
            .with("name", plain(&experiment.name))
            .with("artifact_location", plain(&experiment.artifact_location))
            .with("lifecycle_stage", state)
            .at("creation_time", experiment.created)
            .at(UPDATED, experiment.updated)
            .hashed("tags", &experiment.tags)
    }

    /// Of a run.
    pub fn of_run(run: &Run) -> Entity {
        let state = if run.deleted { "deleted" } else { "active" };
        let metric = |(key, point): &(String, MetricPoint)| (key.clone(), shown(point));
        let mut entity = Entity::new(Kind::Run, &run.id, &run.name)
            .with("name", plain(&run.name))
            .with("experiment_id", run.experiment_id.clone())
            .with("status", run.status.clone())
            .at("start_time", run.start)
            .at("end_time", run.end)
            .with("lifecycle_stage", state)
            .with("artifact_uri", plain(&run.artifact_uri))
            .group("metrics", run.metrics.iter().map(metric))
            .hashed("params", &run.params)
            .hashed("tags", &run.tags);
        entity.open = matches!(run.status.as_str(), "RUNNING" | "SCHEDULED");
        entity
    }

    /// Of a registered model.
    pub fn of_model(model: &RegisteredModel) -> Entity {
        let description = if model.description.is_empty() { String::new() } else { mark(model.description.as_bytes()) };
        Entity::new(Kind::Model, &model.name, "")
            .with("description", description)
            .at("creation_time", model.created)
            .at(UPDATED, model.updated)
            .group("aliases", model.aliases.iter().cloned())
            .hashed("tags", &model.tags)
    }

    /// Of a version.
    pub fn of_version(version: &ModelVersion) -> Entity {
        let hash = |text: &str| if text.is_empty() { String::new() } else { mark(text.as_bytes()) };
        // Servers write no stage as the word `None`.
        let stage = if version.stage == "None" { String::new() } else { version.stage.clone() };
        Entity::new(Kind::Version, format!("{}/{}", version.name, version.version), "")
            .with("status", version.status.clone())
            .with("stage", stage)
            .with("source", plain(&version.source))
            .with("run_id", version.run_id.clone())
            .with("description", hash(&version.description))
            .at("creation_time", version.created)
            .at(UPDATED, version.updated)
            .hashed("tags", &version.tags)
    }

    /// Of a logged model.
    pub fn of_logged_model(model: &LoggedModel) -> Entity {
        let metric = |m: &crate::domain::tracking::LoggedMetric| {
            (format!("{}@{}/{}", m.key, m.run_id, m.dataset), shown(&m.point))
        };
        let mut entity = Entity::new(Kind::LoggedModel, &model.id, &model.name)
            .with("name", plain(&model.name))
            .with("experiment_id", model.experiment_id.clone())
            .with("status", model.status.clone())
            .with("artifact_uri", plain(&model.artifact_uri))
            .with("source_run_id", model.source_run_id.clone())
            .at("creation_time", model.created)
            .at(UPDATED, model.updated)
            .group("metrics", model.metrics.iter().map(metric))
            .hashed("params", &model.params)
            .hashed("tags", &model.tags);
        entity.open = model.status == "LOGGED_MODEL_PENDING";
        entity
    }

    /// Of all points of a metric.
    pub fn of_history(run: &str, key: &str, points: u64, digest: u128) -> Entity {
        Entity::new(Kind::History, format!("{run}/{key}"), "")
            .with("points", points.to_string())
            .with("values", format!("#{digest:032x}"))
    }

    /// Of a file.
    pub fn of_artifact(run: &str, path: &str, content: &[u8]) -> Entity {
        Entity::new(Kind::Artifact, format!("{run}/{path}"), "")
            .with("bytes", content.len().to_string())
            .with("content", mark(content))
    }
}

/// A time of change moves with ordinary work: a model's with each version. It is compared where nothing may move at all.
const UPDATED: &str = "last_updated_time";

fn shown(point: &MetricPoint) -> String {
    format!("{:?} at {} step {}", point.value, point.timestamp, point.step)
}

/// What a point counts for in the digest of a history: a sum, as releases before 3 give points in no order.
pub fn point_digest(point: &MetricPoint) -> u128 {
    let hash = Sha256::digest(shown(point).as_bytes());
    u128::from_be_bytes(hash.first_chunk::<16>().copied().unwrap_or_default())
}

/// How two moments are compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rules {
    /// The stack was not in use: what is new is wrong as well.
    pub frozen: bool,
    /// What a newer release adds or fills is as it has to be.
    pub upgrade: bool,
}

/// A field that is not the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// `metrics.loss`.
    pub field: String,
    /// Before; `None`: it was not there.
    pub before: Option<String>,
    /// After.
    pub after: Option<String>,
}

impl Change {
    /// What people read of it.
    pub fn shown(&self) -> String {
        let field = harmless::short(&self.field, 100);
        let hash = |text: &str| text.starts_with('#');
        if let (Some(before), Some(after)) =
            (self.before.as_deref().and_then(many), self.after.as_deref().and_then(many))
        {
            let (gone, new) = (missing(&before, &after), missing(&after, &before));
            return format!("{field}: of {} keys {gone} are gone or have other values, {new} are new", before.len());
        }
        match (&self.before, &self.after) {
            (Some(before), None) if hash(before) => format!("{field} is gone"),
            (Some(before), None) => format!("{field} is gone (was {})", harmless::short(before, 100)),
            (None, Some(after)) if hash(after) => format!("{field} is new"),
            (None, Some(after)) => format!("{field} is new ({})", harmless::short(after, 100)),
            (Some(before), Some(after)) if hash(before) || hash(after) => format!("{field} has another value"),
            (before, after) => {
                let text = |t: &Option<String>| harmless::short(t.as_deref().unwrap_or_default(), 100);
                format!("{field}: {} -> {}", text(before), text(after))
            }
        }
    }
}

impl Change {
    /// Whether it is what people do who work with a thing: they add, and to what has not ended they log on. `open`: it had
    /// not ended.
    fn is_work(&self, open: bool) -> bool {
        let (Some(before), after) = (&self.before, &self.after) else { return true };
        let Some(after) = after else { return false };
        if let (Some(before), Some(after)) = (many(before), many(after)) {
            // Values that moved on are told from lost ones by their number alone.
            return missing(&before, &after) == 0 || open && self.field != "params" && after.len() >= before.len();
        }
        // More keys than are kept one by one.
        if many(after).is_some() {
            return true;
        }
        match self.field.split_once('.') {
            Some(("metrics", _)) => open && moment(before) <= moment(after),
            Some(("tags", _)) => open,
            Some(("info", "status" | "end_time" | "name")) => open,
            _ => false,
        }
    }
}

/// Time and step of a value that [`shown`] wrote; the later one is what a server gives as the newest (MLflow:
/// store/tracking/sqlalchemy_store.py, `_update_latest_metric_if_necessary`).
fn moment(text: &str) -> Option<(i64, i64)> {
    let (time, step) = text.rsplit_once(" at ")?.1.split_once(" step ")?;
    Some((step.parse().ok()?, time.parse().ok()?))
}

/// What became of a thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// It is gone.
    Lost,
    /// It is another one now.
    Changed(Vec<Change>),
    /// It was not there before.
    New,
}

/// A thing that is not the same at both moments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The thing, as it was; of a new one as it is.
    pub entity: Entity,
    /// What became of it.
    pub what: What,
    /// Whether that is ordinary work of a stack that is in use, and no damage.
    pub ordinary: bool,
}

/// What became of a thing; `None`: nothing.
pub fn difference(before: Option<&Entity>, after: Option<&Entity>, rules: Rules) -> Option<Difference> {
    match (before, after) {
        (None, None) => None,
        (None, Some(after)) => Some(Difference { entity: after.clone(), what: What::New, ordinary: !rules.frozen }),
        (Some(before), None) => Some(Difference { entity: before.clone(), what: What::Lost, ordinary: false }),
        (Some(before), Some(after)) => {
            let (before, after) = (&before.like(after), &after.like(before));
            let all = before.fields.keys().chain(after.fields.keys().filter(|k| !before.fields.contains_key(*k)));
            let moves = |field: &str| !rules.frozen && field == format!("info.{UPDATED}");
            let changes: Vec<Change> = all
                .filter(|field| before.fields.get(*field) != after.fields.get(*field) && !moves(field))
                .map(|field| Change {
                    field: field.clone(),
                    before: before.fields.get(field).cloned(),
                    after: after.fields.get(field).cloned(),
                })
                .filter(|change| !(rules.upgrade && is_filled(change)))
                .collect();
            if changes.is_empty() {
                return None;
            }
            let ordinary = !rules.frozen && changes.iter().all(|change| change.is_work(before.open));
            Some(Difference { entity: before.clone(), what: What::Changed(changes), ordinary })
        }
    }
}

/// Whether a newer release added it: a field of the thing itself, or one of MLflow's own tags.
fn is_filled(change: &Change) -> bool {
    change.before.is_none() && (change.field.starts_with("info.") || change.field.starts_with("tags.mlflow."))
}

/// Puts two snapshots side by side, both in the order of [`Entity::place`], and tells of each difference.
///
/// # Errors
/// What one of them or `each` fails with.
pub fn compare<E>(
    before: impl IntoIterator<Item = Result<Entity, E>>,
    after: impl IntoIterator<Item = Result<Entity, E>>,
    rules: Rules,
    mut each: impl FnMut(Difference) -> Result<(), E>,
) -> Result<u64, E> {
    let (mut before, mut after) = (before.into_iter(), after.into_iter());
    let (mut a, mut b) = (before.next().transpose()?, after.next().transpose()?);
    let mut compared = 0;
    while a.is_some() || b.is_some() {
        let order = match (&a, &b) {
            (Some(a), Some(b)) => a.place().cmp(&b.place()),
            (Some(_), None) => core::cmp::Ordering::Less,
            _ => core::cmp::Ordering::Greater,
        };
        let (left, right) = (a.as_ref().filter(|_| order.is_le()), b.as_ref().filter(|_| order.is_ge()));
        compared += u64::from(left.is_some());
        if let Some(difference) = difference(left, right, rules) {
            each(difference)?;
        }
        if order.is_le() {
            a = before.next().transpose()?;
        }
        if order.is_ge() {
            b = after.next().transpose()?;
        }
    }
    Ok(compared)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(id: &str, status: &str, metrics: &[(&str, f64)], tags: &[(&str, &str)]) -> Entity {
        let point = |value| MetricPoint { value, timestamp: 1, step: 0 };
        Entity::of_run(&Run {
            id: id.to_owned(),
            name: format!("run {id}"),
            experiment_id: "1".to_owned(),
            status: status.to_owned(),
            start: Some(1),
            end: None,
            deleted: false,
            artifact_uri: "ftp://u:hunter2@h/1".to_owned(),
            metrics: metrics.iter().map(|(key, value)| ((*key).to_owned(), point(*value))).collect(),
            params: Vec::new(),
            tags: tags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        })
    }

    fn differences(before: &[Entity], after: &[Entity], rules: Rules) -> Vec<Difference> {
        let mut found = Vec::new();
        let all = |entities: &[Entity]| entities.iter().cloned().map(Ok::<_, ()>).collect::<Vec<_>>();
        compare(all(before), all(after), rules, |d| {
            found.push(d);
            Ok(())
        })
        .unwrap();
        found
    }

    #[test]
    fn each_thing_that_is_lost_changed_or_new_is_told_once() {
        let nan = f64::NAN;
        let before = [
            run("a", "FINISHED", &[("loss", nan)], &[]),
            run("b", "FINISHED", &[], &[]),
            run("c", "FINISHED", &[("loss", 1.0)], &[("t", "1")]),
            run("d", "RUNNING", &[("loss", 1.0)], &[]),
        ];
        let after = [
            run("a", "FINISHED", &[("loss", nan)], &[]),
            run("c", "FINISHED", &[("loss", 2.0)], &[]),
            run("d", "FINISHED", &[("loss", 0.5)], &[]),
            run("e", "FINISHED", &[], &[]),
        ];
        let found = differences(&before, &after, Rules::default());
        let told: Vec<(&str, bool)> = found.iter().map(|d| (d.entity.id.as_str(), d.ordinary)).collect();
        assert_eq!(told, [("b", false), ("c", false), ("d", true), ("e", true)]);
        let What::Changed(changes) = &found[1].what else { panic!("{found:?}") };
        let shown: Vec<String> = changes.iter().map(Change::shown).collect();
        assert_eq!(shown, ["metrics.loss: 1.0 at 1 step 0 -> 2.0 at 1 step 0", "tags.t is gone"]);
        let frozen = differences(&before, &after, Rules { frozen: true, upgrade: false });
        assert!(frozen.iter().all(|d| !d.ordinary), "{frozen:?}");
    }

    #[test]
    fn to_what_has_not_ended_people_log_on_and_take_nothing_away() {
        let before = run("a", "RUNNING", &[("loss", 1.0)], &[("t", "1")]);
        let ordinary = |change: &dyn Fn(&mut Entity)| {
            let mut after = before.clone();
            change(&mut after);
            differences(std::slice::from_ref(&before), &[after], Rules::default())[0].ordinary
        };
        let set = |field: &'static str, value: &'static str| {
            move |e: &mut Entity| {
                e.fields.insert(field.to_owned(), value.to_owned());
            }
        };
        assert!(ordinary(&set("info.status", "FINISHED")) && ordinary(&set("metrics.loss", "2.0 at 1 step 1")));
        assert!(ordinary(&set("tags.t", "#2")) && ordinary(&set("params.new", "#1")));
        assert!(!ordinary(&set("metrics.loss", "0.5 at 0 step 0")), "a value that goes back");
        assert!(!ordinary(&set("info.start_time", "7")) && !ordinary(&set("info.artifact_uri", "/x")));
        assert!(
            !ordinary(&|e| drop(e.fields.remove("tags.t"))) && !ordinary(&|e| drop(e.fields.remove("metrics.loss")))
        );
    }

    #[test]
    fn what_an_upgrade_fills_is_right_and_what_it_changes_is_not() {
        let rules = Rules { frozen: true, upgrade: true };
        let before = run("a", "FINISHED", &[], &[("t", "1")]);
        let mut after = before.clone();
        after.fields.insert("info.end_time".to_owned(), "5".to_owned());
        after.fields.insert("tags.mlflow.new".to_owned(), "#1".to_owned());
        assert!(differences(std::slice::from_ref(&before), std::slice::from_ref(&after), rules).is_empty());
        after.fields.insert("tags.other".to_owned(), "#1".to_owned());
        assert_eq!(differences(std::slice::from_ref(&before), std::slice::from_ref(&after), rules).len(), 1);
        let changed = run("a", "FAILED", &[], &[("t", "1")]);
        assert_eq!(differences(&[before], &[changed], rules).len(), 1);
    }

    #[test]
    fn no_secret_is_kept_and_many_keys_become_one_digest() {
        let names: Vec<String> = (0..1_001).map(|n| format!("m{n}")).collect();
        let many_of = |count: usize| -> Vec<(&str, f64)> {
            names.iter().take(count).enumerate().map(|(n, name)| (name.as_str(), n as f64)).collect()
        };
        let thousand = many_of(1_000);
        let entity = run("a", "FINISHED", &thousand, &[("password", "hunter2")]);
        let text = serde_json::to_string(&entity).unwrap();
        assert!(!text.contains("hunter2") && text.len() < 9_000, "{text}");
        assert_eq!(serde_json::from_str::<Entity>(&text).unwrap(), entity);
        assert_eq!(many(&entity.fields["metrics"]).map(|hashes| hashes.len()), Some(1_000));
        let mut more = many_of(1_001);
        assert!(
            differences(&[run("a", "FINISHED", &thousand, &[])], &[run("a", "FINISHED", &more, &[])], Rules::default())
                [0]
            .ordinary
        );
        more[7].1 = -1.0;
        let few = [run("a", "FINISHED", &thousand[..150], &[])];
        assert!(differences(&few, &[run("a", "FINISHED", &thousand, &[])], Rules::default())[0].ordinary);
        assert!(!differences(&few, &[run("a", "FINISHED", &thousand[1..], &[])], Rules::default())[0].ordinary);
        let found =
            differences(&[run("a", "FINISHED", &thousand, &[])], &[run("a", "FINISHED", &more, &[])], Rules::default());
        let What::Changed(changes) = &found[0].what else { panic!("{found:?}") };
        assert!(!found[0].ordinary);
        assert_eq!(changes[0].shown(), "metrics: of 1000 keys 1 are gone or have other values, 2 are new");
    }

    #[test]
    fn the_points_of_a_history_count_in_any_order() {
        let point = |value, step| MetricPoint { value, timestamp: 5, step };
        let sum = |points: &[MetricPoint]| points.iter().map(point_digest).fold(0, u128::wrapping_add);
        let (a, b) = (point(1.0, 1), point(2.0, 2));
        assert_eq!(sum(&[a, b]), sum(&[b, a]));
        assert_ne!(sum(&[a, b]), sum(&[a, point(2.0, 3)]));
    }
}
