//! `mlops promote`, `mlops rollback` and `mlops models history` on real servers: after each step MLflow's own client is
//! asked what stands in the registry.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

use serde_json::{Value, json};

use crate::flows::Server;
use crate::support::{Database, Said, folder, mlops, postgres, python, removed_at_exit, root};

/// MLflow's own client, asked one thing after the other.
struct Client {
    _child: Child,
    asks: ChildStdin,
    tells: BufReader<ChildStdout>,
}

impl Client {
    fn new(release: &str, url: &str) -> Client {
        let mut command = Command::new(python(release));
        command.arg(root().join("tests/mlflow/registry_client.py")).args(["--tracking-uri", url]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (asks, tells) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Client { _child: child, asks, tells }
    }

    fn asked(&mut self, what: &Value) -> Value {
        writeln!(self.asks, "{what}").unwrap();
        let mut line = String::new();
        self.tells.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("{what}: {e}: {line}"))
    }
}

/// A tracking server, its database and its client.
pub(crate) struct Registry {
    pub(crate) server: Server,
    /// The database, in the form that MLflow and mlops both take.
    pub(crate) store: String,
    pub(crate) database: Option<Database>,
    client: Mutex<Client>,
    pub(crate) place: PathBuf,
    _place: Option<tempfile::TempDir>,
}

impl Registry {
    /// One of its own. `postgresql`: the version and the database's name; else SQLite.
    pub(crate) fn new(release: &str, postgresql: Option<(u32, &str)>, more: &[&str]) -> Registry {
        let place = folder();
        let mut registry = Registry::at(place.path(), release, postgresql, more);
        registry._place = Some(place);
        registry
    }

    fn at(place: &Path, release: &str, postgresql: Option<(u32, &str)>, more: &[&str]) -> Registry {
        let database = postgresql.map(|(version, name)| postgres(version).database(name));
        let file = format!("sqlite:///{}", place.join("mlflow.db").display());
        let store = database.as_ref().map_or(file, Database::sqlalchemy);
        let server = Server::start(release, &store, place, more);
        let client = Mutex::new(Client::new(release, &server.url));
        Registry { server, store, database, client, place: place.to_owned(), _place: None }
    }

    /// What MLflow's client tells; a refusal fails the test.
    #[track_caller]
    pub(crate) fn told(&self, what: &Value) -> Value {
        let answer = self.client.lock().unwrap_or_else(PoisonError::into_inner).asked(what);
        answer.get("told").unwrap_or_else(|| panic!("{what}: {answer}")).clone()
    }

    /// A new version with these metrics; its number.
    #[track_caller]
    pub(crate) fn register(&self, model: &str, metrics: Value) -> u64 {
        let made = self.told(&json!({"do": "register", "model": model, "metrics": metrics}));
        made["version"].as_u64().unwrap()
    }

    #[track_caller]
    pub(crate) fn view(&self, model: &str) -> View {
        View(self.told(&json!({"do": "view", "model": model})))
    }

    #[track_caller]
    pub(crate) fn transition(&self, model: &str, version: u64, stage: &str) {
        let archive = stage == "Production";
        self.told(&json!({"do": "transition", "model": model, "version": version, "stage": stage, "archive": archive}));
    }

    #[track_caller]
    pub(crate) fn alias(&self, model: &str, alias: &str, version: u64) {
        self.told(&json!({"do": "alias", "model": model, "alias": alias, "version": version}));
    }

    #[track_caller]
    pub(crate) fn tag(&self, model: &str, version: u64, key: &str, value: &str) {
        self.told(&json!({"do": "tag", "model": model, "version": version, "key": key, "value": value}));
    }

    /// The program, pointed at this server.
    pub(crate) fn program(&self, home: &Path, arguments: &[&str]) -> Command {
        let mut command = mlops(home);
        command.env("MLFLOW_TRACKING_URI", &self.server.url).env("USER", "ann").args(arguments);
        command
    }

    pub(crate) fn mlops(&self, home: &Path, arguments: &[&str]) -> Said {
        Said::of(self.program(home, arguments).output().unwrap())
    }

    /// The document that a run ends with.
    #[track_caller]
    pub(crate) fn json(&self, home: &Path, code: i32, arguments: &[&str]) -> Value {
        let document = self.mlops(home, &[&["--output", "json"], arguments].concat()).expect(code).json();
        assert_eq!(document["exit"], code, "{document}");
        document
    }

    /// As another machine would tell it: by the tags alone.
    #[track_caller]
    pub(crate) fn history(&self, model: &str) -> Value {
        let elsewhere = folder();
        self.json(elsewhere.path(), 0, &["models", "history", model])["result"].clone()
    }
}

/// One that all tests share, each with models of its own.
pub(crate) fn shared(release: &str) -> &'static Registry {
    static MADE: [OnceLock<Registry>; 3] = [const { OnceLock::new() }; 3];
    let (made, postgresql) = match release {
        "2.9.2" => (&MADE[0], None),
        "3.4.0" => (&MADE[1], Some((15, "promotions_3_4_0"))),
        "3.17.2" => (&MADE[2], Some((18, "promotions_3_17_2"))),
        other => panic!("{other}"),
    };
    made.get_or_init(|| {
        let place = folder().keep();
        // The server is gone before its folder is.
        std::mem::forget(removed_at_exit(place.to_str().unwrap()));
        Registry::at(&place, release, postgresql, &[])
    })
}

/// What MLflow's client sees of a model.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct View(pub(crate) Value);

impl View {
    pub(crate) fn in_stage(&self, stage: &str) -> BTreeSet<u64> {
        let versions = self.0["versions"].as_object().unwrap();
        versions.iter().filter(|(_, v)| v["stage"] == stage).map(|(number, _)| number.parse().unwrap()).collect()
    }

    pub(crate) fn under(&self, alias: &str) -> Option<u64> {
        self.0["aliases"][alias].as_u64()
    }

    pub(crate) fn tags(&self, version: u64) -> &serde_json::Map<String, Value> {
        self.0["versions"][version.to_string()]["tags"].as_object().unwrap()
    }
}

/// The numbers of a list of a document.
pub(crate) fn numbers(list: &Value) -> BTreeSet<u64> {
    list.as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).collect()
}

/// A way of marking the champion, and what the client has to see of it.
#[derive(Clone, Copy)]
struct Way {
    mode: &'static str,
    waiting: &'static str,
    stage: bool,
    alias: bool,
}

const WAYS: [Way; 3] = [
    Way { mode: "stage", waiting: "Staging", stage: true, alias: false },
    Way { mode: "alias", waiting: "@challenger", stage: false, alias: true },
    Way { mode: "both", waiting: "Staging", stage: true, alias: true },
];

impl Way {
    /// That the client sees this champion, and these versions archived, and nothing else anywhere.
    #[track_caller]
    fn champion(&self, view: &View, version: u64, archived: &[u64]) {
        let only = |version: Option<u64>| version.into_iter().collect::<BTreeSet<u64>>();
        assert_eq!(view.in_stage("Production"), only(self.stage.then_some(version)), "{view:?}");
        assert_eq!(view.under("champion"), self.alias.then_some(version), "{view:?}");
        let archived: BTreeSet<u64> = archived.iter().copied().filter(|_| self.stage).collect();
        assert_eq!(view.in_stage("Archived"), archived, "{view:?}");
    }
}

/// The whole life of a model.
fn life(registry: &Registry, way: Way) {
    let (home, model) = (folder(), format!("life by {}", way.mode));
    let home = home.path();
    let run = |code: i32, arguments: &[&str]| {
        let document = registry.json(home, code, &[arguments, &["--model", &model]].concat());
        // What mlops says that it read back is what the client reads.
        if let Some(after) = document["result"]["after"].as_object() {
            let view = registry.view(&model);
            let (to, alias) = (&document["result"]["stage"], &document["result"]["alias"]);
            let staged = to.as_str().map(|stage| view.in_stage(stage)).unwrap_or_default();
            assert_eq!(numbers(&after["staged"]), staged, "{document}");
            assert_eq!(after["aliased"].as_u64(), alias.as_str().and_then(|a| view.under(a)), "{document}");
        }
        document["result"].clone()
    };
    let unchanged = |code: i32, arguments: &[&str]| {
        let before = registry.view(&model);
        let document = registry.mlops(home, &[arguments, &["--model", &model, "--output", "json"]].concat());
        let document = document.expect(code).json();
        assert_eq!(registry.view(&model), before, "{arguments:?} changed something");
        document
    };
    let mode = ["--mode", way.mode];
    let waits = |version: u64| {
        let result = run(0, &[&["promote", "--latest", "--yes", "--to", way.waiting], &mode[..]].concat());
        assert_eq!((&result["version"], &result["ended"]), (&json!(version), &json!("done")));
        let view = registry.view(&model);
        assert_eq!(view.in_stage("Staging").contains(&version), way.stage);
        assert_eq!(view.under("challenger"), way.alias.then_some(version));
    };

    assert_eq!(registry.register(&model, json!({"rmse": 0.5, "r2": 0.8})), 1);
    waits(1);
    let strict = ["promote", "--require", "r2 >= 0.85", "--require", "rmse < champion", "--yes"];
    let refused = unchanged(5, &[&strict, &mode[..]].concat())["result"].clone();
    assert_eq!(refused["verdict"], "refused");
    let verdicts: Vec<&str> =
        refused["gates"].as_array().unwrap().iter().map(|g| g["verdict"].as_str().unwrap()).collect();
    assert_eq!(verdicts, ["passed", "refused", "skipped"], "{refused}");
    unchanged(5, &[&strict, &mode[..], &["--dry-run"]].concat());
    let fair = ["promote", "--require", "r2 >= 0.75", "--require", "rmse < champion"];
    unchanged(0, &[&fair, &mode[..], &["--dry-run"]].concat());
    // Nobody is replaced, so nobody is asked.
    let first = run(0, &[&fair, &mode[..], &["--reason", "the first"]].concat());
    assert_eq!((&first["version"], &first["champion"], &first["replaced"]), (&json!(1), &Value::Null, &json!([])));
    way.champion(&registry.view(&model), 1, &[]);

    assert_eq!(registry.register(&model, json!({"rmse": 0.4, "r2": 0.9})), 2);
    waits(2);
    let refused = unchanged(9, &fair)["error"]["message"].as_str().unwrap().to_owned();
    assert!(refused.contains("takes the place of version 1"), "{refused}");
    unchanged(0, &[&fair[..], &["--dry-run"]].concat());
    // From here on the way is the one of today.
    let second = run(0, &[&fair[..], &["--yes"]].concat());
    assert_eq!((&second["version"], &second["former"], &second["replaced"]), (&json!(2), &json!(1), &json!([1])));
    way.champion(&registry.view(&model), 2, &[1]);
    assert_eq!(unchanged(0, &["promote", "--version", "2"])["result"]["ended"], "already");

    assert_eq!(registry.register(&model, json!({"rmse": 0.3, "r2": 0.95})), 3);
    waits(3);
    run(0, &[&fair[..], &["--yes"]].concat());
    way.champion(&registry.view(&model), 3, &[1, 2]);

    unchanged(9, &["rollback"]);
    unchanged(0, &["rollback", "--dry-run"]);
    let back = run(0, &["rollback", "--yes", "--reason", "alarms since 14:00"]);
    assert_eq!((&back["version"], &back["action"]), (&json!(2), &json!("rollback")));
    way.champion(&registry.view(&model), 2, &[1, 3]);
    run(0, &["rollback", "--yes"]);
    way.champion(&registry.view(&model), 1, &[2, 3]);
    let message = unchanged(2, &["rollback", "--yes"])["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("before version 1 is not known"), "{message}");
    run(0, &["rollback", "--yes", "--to-version", "3"]);
    way.champion(&registry.view(&model), 3, &[1, 2]);
    told_truly(registry, home, &model, way);
}

/// The history of that life, by this machine and by another one.
fn told_truly(registry: &Registry, home: &Path, model: &str, way: Way) {
    let known = registry.json(home, 0, &["models", "history", model])["result"].clone();
    let by_tags = registry.history(model);
    for (history, by_log) in [(&known, true), (&by_tags, false)] {
        let champions = history["champions"].as_array().unwrap();
        let story: Vec<u64> = champions.iter().map(|c| c["version"].as_u64().unwrap()).collect();
        assert_eq!(story, [1, 2, 3, 2, 1, 3], "{history}");
        for pair in champions.windows(2) {
            assert_eq!((&pair[0]["until"], &pair[0]["ended"]), (&pair[1]["since"], &json!(true)), "{history}");
        }
        assert_eq!(champions[5]["until"], Value::Null);
        assert_eq!(champions[5]["ended"], false);
        let place = match way.mode {
            "stage" => "Production",
            "alias" => "@champion",
            _ => "Production and @champion",
        };
        assert!(champions.iter().all(|c| c["place"] == place && c["by_mlops"] == true), "{history}");
        let records = history["records"].as_array().unwrap();
        // Three came to wait, three were promoted, three were put back.
        assert_eq!(records.len(), 9);
        assert!(records.iter().all(|r| r["state"] == "done" && r["by_tags"] == true && r["by_log"] == by_log));
        let host = records[0]["by"].as_str().unwrap();
        assert!(host.starts_with("ann@") && host.len() > 4, "{host}");
        let said: Vec<&str> = records.iter().filter_map(|r| r["reason"].as_str()).collect();
        assert_eq!(said, ["the first", "alarms since 14:00"]);
    }
    // The client finds each record with its version, and with each version that it replaced.
    let view = registry.view(model);
    for record in by_tags["records"].as_array().unwrap() {
        let key = format!("mlops.promote.{}", record["id"].as_str().unwrap());
        let own: Value =
            serde_json::from_str(view.tags(record["version"].as_u64().unwrap())[&key].as_str().unwrap()).unwrap();
        let at = record["at"].as_str().unwrap().trim_end_matches('Z');
        assert!(own["state"] == "done" && own["at"].as_str().unwrap().starts_with(at), "{own} {record}");
        if let Some(former) = record["former"]
            .as_u64()
            .filter(|_| record["to"] != way.waiting && record["to"] != "Staging and @challenger")
        {
            let other: Value = serde_json::from_str(view.tags(former)[&key].as_str().unwrap()).unwrap();
            assert_eq!(other["replaced_by"], record["version"]);
        }
    }
    let people = registry.mlops(home, &["models", "history", model]).expect(0).out;
    assert!(people.contains("alarms since 14:00") && people.contains("rollback"), "{people}");
}

#[test]
fn a_model_lives_on_mlflow_2_9_2_and_sqlite() {
    WAYS.iter().for_each(|way| life(shared("2.9.2"), *way));
}

#[test]
fn a_model_lives_on_mlflow_3_4_0_and_postgresql_15() {
    WAYS.iter().for_each(|way| life(shared("3.4.0"), *way));
}

#[test]
fn a_model_lives_on_mlflow_3_17_2_and_postgresql_18() {
    WAYS.iter().for_each(|way| life(shared("3.17.2"), *way));
}
