//! `mlops models` on real servers: every model at a glance, one in full by every form of its name, versions that are
//! registered once whatever becomes of the answer, what is in production with its files.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::flows::Server;
use crate::support::relay::{BUSY, Fate, Relay};
use crate::support::{Said, folder, mlops, run, wait_for};

/// A server with the registry of `registry.py`, and what that made.
struct Stack {
    server: Server,
    place: tempfile::TempDir,
    made: Value,
    release: &'static str,
}

impl Stack {
    fn of(release: &'static str) -> Stack {
        let place = folder();
        let store = format!("sqlite:///{}", place.path().join("mlflow.db").display());
        let server = Server::start(release, &store, place.path(), &["--serve-artifacts"]);
        let said = server.script("registry.py", &[]).expect(0);
        let made = serde_json::from_str(said.out.lines().last().unwrap()).unwrap();
        Stack { server, place, made, release }
    }

    fn has_logged_models(&self) -> bool {
        self.release != "2.9.2"
    }

    fn id(&self, what: &str) -> &str {
        self.made[what]["id"].as_str().unwrap()
    }

    fn say(&self, arguments: &[&str]) -> Said {
        run(self.place.path(), &[&["models"], arguments, &["--tracking-uri", &self.server.url]].concat())
    }

    /// The whole document.
    #[track_caller]
    fn document(&self, code: i32, arguments: &[&str]) -> Value {
        let document = self.say(&[arguments, &["--output", "json"]].concat()).expect(code).json();
        assert_eq!(document["exit"], code, "{document:#}");
        document
    }

    #[track_caller]
    fn result(&self, arguments: &[&str]) -> Value {
        self.document(0, arguments)["result"].clone()
    }

    /// What MLflow itself says of a version.
    fn version(&self, model: &str, version: u64) -> Value {
        let query = format!("name={model}&version={version}");
        self.rest(&format!("model-versions/get?{query}"))["model_version"].clone()
    }

    /// How many versions MLflow says that a model has.
    fn count(&self, model: &str) -> usize {
        let found = self.rest(&format!("model-versions/search?filter=name%3D%27{model}%27"));
        found["model_versions"].as_array().map_or(0, Vec::len)
    }

    fn rest(&self, call: &str) -> Value {
        let url = format!("{}/api/2.0/mlflow/{call}", self.server.url);
        let script = "import sys, urllib.error, urllib.request as r\n\
                      try: print(r.build_opener(r.ProxyHandler({})).open(sys.argv[1]).read().decode())\n\
                      except urllib.error.HTTPError as error: print(error.read().decode())";
        Said::of(Command::new("python3").args(["-c", script, &url]).output().unwrap()).expect(0).json()
    }

    fn port(&self) -> u16 {
        self.server.url.rsplit(':').next().unwrap().parse().unwrap()
    }
}

fn tags(version: &Value) -> BTreeMap<&str, &str> {
    let pairs = version["tags"].as_array().map_or(&[][..], Vec::as_slice);
    pairs.iter().map(|t| (t["key"].as_str().unwrap(), t["value"].as_str().unwrap())).collect()
}

fn metric<'a>(result: &'a Value, name: &str) -> &'a Value {
    let metrics = result["metrics"].as_array().unwrap();
    &metrics.iter().find(|m| m["name"] == name).unwrap_or(&Value::Null)["value"]
}

#[test]
fn mlflow_2_9_2() {
    whole(&Stack::of("2.9.2"));
}

#[test]
fn mlflow_3_4_0() {
    whole(&Stack::of("3.4.0"));
}

#[test]
fn the_newest_mlflow() {
    let stack = Stack::of("3.17.2");
    whole(&stack);
    a_look_up_is_quick(&stack);
}

fn whole(stack: &Stack) {
    lists(stack);
    shows(stack);
    what_is_not_there(stack);
    exports(stack);
    exports_files(stack);
    registers(stack);
    registers_nothing(stack);
    registers_once(stack);
}

fn lists(stack: &Stack) {
    let document = stack.document(0, &["list", "--metric", "rmse"]);
    assert_eq!(document["schema"], "mlops.models.list.v1");
    assert_eq!(document["warnings"], json!(["2 versions of doubled are in Production"]));
    let result = &document["result"];
    assert_eq!(result["prompts"], u64::from(stack.has_logged_models()));
    let lines: BTreeMap<&str, &Value> =
        result["models"].as_array().unwrap().iter().map(|m| (m["name"].as_str().unwrap(), m)).collect();
    assert_eq!(
        lines.len(),
        stack.made["hard"].as_array().unwrap().len() + if stack.has_logged_models() { 7 } else { 5 }
    );
    let of = |name: &str, keys: &[&str]| keys.iter().map(|key| lines[name][key].clone()).collect::<Value>();
    let keys = ["versions", "production", "staging", "aliases", "newest", "champion", "metric"];
    let none = json!({"count": 0, "newest": []});
    assert_eq!(
        of("forecast", &keys),
        json!([4, {"count": 1, "newest": [3]}, {"count": 1, "newest": [4]}, {"champion": 3, "challenger": 4}, 4, 3, 0.25])
    );
    assert_eq!(of("doubled", &keys), json!([2, {"count": 2, "newest": [2, 1]}, none, {}, 2, 2, "NaN"]));
    assert_eq!(of("unused", &keys), json!([0, none, none, {}, null, null, null]));
    if stack.has_logged_models() {
        assert_eq!(of("of-logged", &["champion", "metric"]), json!([1, 0.25]));
    }
    let some = stack.result(&["list", "--name", "*doub*"]);
    assert_eq!(some["models"].as_array().unwrap().len(), 1);
    let table = stack.say(&["list", "--metric", "rmse"]).expect(0);
    assert!(table.out.contains("2, 1 (2 of them)") && table.out.contains("NaN"), "{}", table.out);
    assert!(table.out.contains("1 prompt left out") == stack.has_logged_models(), "{}", table.out);
    // Another alias, and a model that has it.
    let config = stack.place.path().join("own.toml");
    fs::write(&config, "[registry]\nalias = \"challenger\"\n").unwrap();
    let other = stack.result(&["list", "--name", "forecast", "--metric", "rmse", "--config", config.to_str().unwrap()]);
    assert_eq!((&other["models"][0]["champion"], &other["models"][0]["metric"]), (&json!(4), &json!("NaN")));
}

fn shows(stack: &Stack) {
    let model = stack.result(&["show", "forecast"]);
    assert_eq!((&model["kind"], &model["tags"]), (&json!("model"), &json!({"team": "a b"})));
    let versions: Vec<(u64, &Value, &Value)> = model["versions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| (v["version"].as_u64().unwrap(), &v["stage"], &v["aliases"]))
        .collect();
    let wanted =
        [(4, "Staging", json!(["challenger"])), (3, "Production", json!(["champion"])), (2, "Archived", json!([]))];
    for (seen, (number, stage, aliases)) in versions.iter().zip(&wanted) {
        assert_eq!((seen.0, seen.1, seen.2), (*number, &json!(stage), aliases));
    }
    assert_eq!(versions.len(), 4);
    for name in stack.made["hard"].as_array().unwrap().iter().map(|n| n.as_str().unwrap()) {
        let model = stack.result(&["show", name]);
        assert_eq!((&model["name"], model["versions"].as_array().unwrap().len()), (&json!(name), 2), "{name}");
        let version = stack.result(&["show", &format!("{name}/2")]);
        assert_eq!((&version["model"], &version["version"]), (&json!(name), &json!(2)), "{name}");
        assert_eq!(version["mlmodel_error"], Value::Null, "{name}");
    }

    let good = stack.id("good");
    let version = stack.result(&["show", "forecast@champion"]);
    assert_eq!(version, stack.result(&["show", "forecast/3"]));
    assert_eq!(
        (&version["kind"], &version["version"], &version["status"]),
        (&json!("version"), &json!(3), &json!("READY"))
    );
    assert_eq!((&version["description"], &version["run_id"]), (&json!("the good one"), &json!(good)));
    assert_eq!(version["tags"], json!({"approved_by": "ada"}));
    let run = &version["run"];
    assert_eq!((&run["name"], &run["status"], &run["id"]), (&json!("good"), &json!("FINISHED"), &json!(good)));
    assert_eq!(
        (&version["parent_run"]["name"], &version["parent_run"]["id"]),
        (&json!("sweep"), &stack.made["parent"])
    );
    assert_eq!(
        (&version["experiment"]["name"], &version["experiment"]["id"]),
        (&json!("registry"), &stack.made["experiment"])
    );
    assert_eq!((metric(&version, "rmse"), &version["params"]), (&json!(0.25), &json!({"depth": "7"})));
    assert_eq!(
        version["signature"],
        json!({
            "inputs": [
                {"name": "temp", "type": "double", "required": true},
                {"name": "tags", "type": "array of string", "required": false},
            ],
            "outputs": [{"name": null, "type": "tensor of float32 (-1, 24)", "required": true}],
            "params": [{"name": "horizon", "type": "long", "required": false, "default": 24}],
        })
    );
    let files = &version["artifacts"];
    let paths: Vec<(&str, u64)> = files["files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| (f["path"].as_str().unwrap(), f["bytes"].as_u64().unwrap()))
        .collect();
    assert_eq!(paths[1..], [("data/deep/it's & more+.txt", 6), ("data/weights.bin", 300_000), ("empty", 0)]);
    assert_eq!((files["count"].as_u64(), files["bytes"].as_u64()), (Some(4), Some(paths.iter().map(|p| p.1).sum())));
    let others = version["other_versions_of_the_run"].as_array().unwrap();
    assert!(others.contains(&json!({"model": "by-run", "version": 1})), "{others:?}");
    assert!(!others.contains(&json!({"model": "forecast", "version": 3})), "{others:?}");
    assert_eq!(metric(&stack.result(&["show", "doubled/2"]), "rmse"), &json!("NaN"));

    let by_run = stack.result(&["show", "by-run/1"]);
    assert_eq!((&by_run["signature"], &by_run["artifacts"]), (&version["signature"], &version["artifacts"]));
    let gone = stack.result(&["show", "gone/1"]);
    assert_eq!((&gone["mlmodel"], &gone["artifacts"]["count"]), (&Value::Null, &json!(0)));
    assert_eq!(gone["mlmodel_error"], "there is no MLmodel at its place");
    let table = stack.say(&["show", "forecast/3"]).expect(0).out;
    for part in ["tensor of float32 (-1, 24)", "default 24", "sweep", "293.0 KiB", "<- run ", "the good one"] {
        assert!(table.contains(part), "{part}: {table}");
    }
    if stack.has_logged_models() {
        shows_a_logged_model(stack);
    }
}

fn shows_a_logged_model(stack: &Stack) {
    let id = stack.id("logged");
    let shown = stack.result(&["show", id]);
    assert_eq!(shown, stack.result(&["show", "--uuid", id]));
    assert_eq!((&shown["kind"], &shown["name"], &shown["id"]), (&json!("logged_model"), &json!("net"), &json!(id)));
    assert_eq!((metric(&shown, "auc"), metric(&shown, "rmse")), (&json!("NaN"), &json!(0.25)));
    assert_eq!((&shown["params"], &shown["tags"]["colour"]), (&json!({"layers": "3"}), &json!("red")));
    assert_eq!((&shown["parent_run"]["name"], &shown["mlmodel"]["model_uuid"]), (&json!("sweep"), &json!(id)));
    let made: Vec<&Value> = shown["versions"].as_array().unwrap().iter().map(|v| &v["model"]).collect();
    assert_eq!(made, ["of-logged"]);
    assert_eq!(shown["versions_gone"], json!([{"model": "of-logged", "version": 7}]));
    assert_eq!(shown["artifacts"]["count"], 4);
    let version = stack.result(&["show", "of-logged@champion"]);
    assert_eq!((&version["logged_model"]["id"], metric(&version, "auc")), (&json!(id), &json!("NaN")));
    assert_eq!((&version["run"]["id"], &version["artifacts"]), (&json!(stack.id("good")), &shown["artifacts"]));
    let by_run = stack.result(&["show", "of-logged-by-run/1"]);
    assert_eq!((&by_run["artifacts"], &by_run["signature"]), (&shown["artifacts"], &shown["signature"]));
}

fn what_is_not_there(stack: &Stack) {
    let hint = |arguments: &[&str]| {
        let error = stack.document(6, arguments)["error"].clone();
        assert_eq!(error["kind"], "source");
        format!("{} {}", error["message"].as_str().unwrap(), error["hint"].as_str().unwrap())
    };
    for (name, part) in [
        ("forecasd", "did you mean `forecast`"),
        ("forecasd/1", "did you mean `forecast`"),
        ("forecast/9", "its newest version is 4"),
        ("unused/1", "it has no versions"),
        ("forecast@nobody", "challenger=4"),
        ("unused@nobody", "it has no aliases"),
        ("m-0123456789abcdef0123456789abcdef", "no logged model"),
    ] {
        let said = hint(&["show", name]);
        assert!(said.contains(part), "{name}: {said}");
    }
    assert!(hint(&["show", "--uuid", "m-0123456789abcdef0123456789abcdef"]).contains("no logged model"));
    stack.say(&["show", "--uuid", "forecast"]).expect(2);
    stack.say(&["show"]).expect(2);
    stack.say(&["show", ""]).expect(2);
}

/// Held against what the server takes for one plain answer at the same moment, so that a slow machine is no slow look-up.
fn a_look_up_is_quick(stack: &Stack) {
    let id = stack.id("logged");
    let path = format!("/api/2.0/mlflow/logged-models/{id}");
    wait_for("a look-up in the time of 40 plain answers", Duration::from_secs(60), || {
        let begun = Instant::now();
        let (status, answer) = crate::health::request("GET", &stack.server.url, &path, "", "");
        assert_eq!(status, 200, "{answer}");
        let plain = begun.elapsed();
        let begun = Instant::now();
        stack.say(&["show", "--uuid", id]).expect(0);
        Some(begun.elapsed()).filter(|took| *took < plain * 40)
    });
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn names(document: &Value) -> Vec<String> {
    let versions = document["result"]["versions"].as_array().unwrap();
    versions.iter().map(|v| format!("{}/{}", v["model"].as_str().unwrap(), v["version"])).collect()
}

fn exports(stack: &Stack) {
    // A document, whatever --output says.
    let said = stack.say(&["export", "--output", "table"]).expect(4);
    assert!(said.err.contains("gone version 1: "), "{}", said.err);
    let document = said.json();
    assert_eq!((&document["schema"], &document["exit"]), (&json!("mlops.models.export.v1"), &json!(4)));
    let mut wanted = vec!["by-run/1", "doubled/2", "forecast/3", "gone/1"];
    wanted.extend(stack.has_logged_models().then_some("of-logged/1"));
    assert_eq!(names(&document), wanted);
    let forecast = &document["result"]["versions"][2];
    let shown = stack.result(&["show", "forecast/3"]);
    for key in ["source", "run", "metrics", "params", "tags", "signature", "place", "aliases", "stage", "description"] {
        assert_eq!(forecast[key], shown[key], "{key}");
    }
    assert_eq!(forecast["faults"], json!([]));
    assert!(document["result"]["without"].as_array().unwrap().contains(&json!("unused")));
    let of = |code, arguments: &[&str]| names(&stack.say(&[&["export", "-q"], arguments].concat()).expect(code).json());
    assert_eq!(of(4, &["--stage", "production"]), ["by-run/1", "doubled/1", "doubled/2", "forecast/3", "gone/1"]);
    assert_eq!(of(0, &["--stage", "Staging"]), ["forecast/4"]);
    assert_eq!(of(0, &["--alias", "challenger"]), ["forecast/4"]);
    assert_eq!(of(0, &["--name", "fore*"]), ["forecast/3"]);
    assert!(of(0, &["--alias", "nobody"]).is_empty());
    stack.say(&["export", "--stage", "Live"]).expect(2);
    stack.say(&["export", "--stage", "Staging", "--alias", "x"]).expect(2);
}

fn exports_files(stack: &Stack) {
    let to = stack.place.path().join("exported");
    let export = |code: i32, more: &[&str]| {
        let arguments = [&["export", "-q", "--files", to.to_str().unwrap()], more].concat();
        stack.say(&arguments).expect(code).json()["result"].clone()
    };
    let first = export(4, &[]);
    let there: usize = if stack.has_logged_models() { 16 } else { 12 };
    assert_eq!((&first["files"]["written"], &first["files"]["kept"]), (&json!(there), &json!(0)));
    let manifest: Value = serde_json::from_slice(&fs::read(to.join("manifest.json")).unwrap()).unwrap();
    let (mut seen, artifacts) = (0, stack.place.path().join("artifacts"));
    for (version, listed) in first["versions"].as_array().unwrap().iter().zip(manifest["versions"].as_array().unwrap())
    {
        assert_eq!((&version["files"], &version["folder"]), (&listed["files"], &listed["folder"]));
        let place = version["place"].as_str().unwrap().strip_prefix("mlflow-artifacts:/").unwrap();
        for file in version["files"].as_array().unwrap() {
            let path = file["path"].as_str().unwrap();
            let ours = fs::read(to.join(version["folder"].as_str().unwrap()).join(path)).unwrap();
            assert!(ours == fs::read(artifacts.join(place).join(path)).unwrap(), "{path}");
            assert_eq!((&file["bytes"], &file["sha256"]), (&json!(ours.len()), &json!(sha256(&ours))), "{path}");
            seen += 1;
        }
    }
    assert_eq!(seen, there);
    assert_eq!(manifest["versions"][3]["model"], "gone");
    assert!(manifest["versions"][3]["fault"].as_str().unwrap().contains("there are no files"), "{manifest:#}");

    // The same again keeps what is whole, and mends what is not.
    let damaged = to.join("forecast/3/data/weights.bin");
    fs::write(&damaged, vec![0; 300_000]).unwrap();
    fs::remove_file(to.join("forecast/3/MLmodel")).unwrap();
    let again = export(4, &[]);
    assert_eq!((&again["files"]["written"], &again["files"]["kept"]), (&json!(2), &json!(there - 2)));
    assert_eq!(again["versions"], first["versions"]);
    assert!(sha256(&fs::read(&damaged).unwrap()) == first["versions"][2]["files"][2]["sha256"].as_str().unwrap());
    let left: Vec<_> = fs::read_dir(&to).unwrap().flatten().map(|e| e.file_name()).collect();
    assert!(left.iter().all(|name| !name.to_str().unwrap().starts_with('.')), "{left:?}");

    // Another export does not go into this folder, and nobody's file is replaced.
    stack.say(&["export", "-q", "--stage", "Staging", "--files", to.to_str().unwrap()]).expect(9);
    let other = stack.place.path().join("other");
    fs::create_dir_all(other.join("forecast/4")).unwrap();
    fs::write(other.join("forecast/4/empty"), "mine").unwrap();
    let stopped =
        stack.say(&["export", "-q", "--stage", "Staging", "--files", other.to_str().unwrap()]).expect(4).json();
    let fault = stopped["result"]["versions"][0]["faults"][0].as_str().unwrap().to_owned();
    assert!(fault.contains("another file is there already"), "{fault}");
    assert_eq!(fs::read(other.join("forecast/4/empty")).unwrap(), b"mine");
    assert!(other.join("forecast/4/data/weights.bin").exists());
    fs::write(other.join("manifest.json"), "{}").unwrap();
    stack.say(&["export", "-q", "--stage", "Staging", "--files", other.to_str().unwrap()]).expect(9);
    // A folder that takes no files is the target's fault.
    let file = stack.place.path().join("a-file");
    fs::write(&file, "x").unwrap();
    stack.say(&["export", "-q", "--stage", "Staging", "--files", file.join("x").to_str().unwrap()]).expect(7);
    // With the root known, the files come straight from it.
    let direct = stack.place.path().join("direct");
    let root = artifacts.to_str().unwrap();
    let arguments = ["export", "-q", "--artifact-root", root, "--files", direct.to_str().unwrap()];
    let straight = stack.say(&arguments).expect(4).json()["result"].clone();
    assert_eq!(straight["files"]["written"], there);
    assert_eq!(straight["versions"][2]["files"], first["versions"][2]["files"]);
}

fn registers(stack: &Stack) {
    let (good, uri) = (stack.id("good"), stack.made["good"]["uri"].as_str().unwrap());
    let source = format!("{uri}/model");
    let more = ["--tag", "by=nightly", "--description", "a\nb"];
    let plan = stack.result(&[&["register", "--run", good, "--name", "made", "--dry-run"], &more[..]].concat());
    assert_eq!((&plan["version"], &plan["new_model"]), (&Value::Null, &json!(true)));
    assert_eq!(stack.count("made"), 0);
    let first = stack.result(&[&["register", "--run", good, "--name", "made"], &more[..]].concat());
    assert_eq!((&first["model"], &first["version"], &first["status"]), (&json!("made"), &json!(1), &json!("READY")));
    let version = stack.version("made", 1);
    assert_eq!((&version["source"], &version["run_id"]), (&json!(source), &json!(good)));
    assert_eq!((&version["description"], &version["current_stage"]), (&json!("a\nb"), &json!("None")));
    let told = tags(&version);
    assert_eq!((told["by"], told["validation_status"]), ("nightly", "pending"));
    assert!(told["mlops.register"].len() == 25, "{told:?}");
    // Whoever says so himself has validated it.
    stack.result(&[
        "register",
        "--source",
        &format!("runs:/{good}/model/"),
        "--name",
        "made",
        "--tag",
        "validation_status=passed",
    ]);
    let second = stack.version("made", 2);
    assert_eq!((&second["source"], tags(&second)["validation_status"]), (&json!(source), "passed"));
    stack.result(&["register", "--source", &source, "--name", "made"]);
    assert_eq!(stack.version("made", 3)["run_id"], good);
    stack.result(&["register", "--source", "models:/made/3", "--name", "copied"]);
    assert_eq!(stack.version("copied", 1)["source"], "models:/made/3");
    assert_eq!(stack.result(&["show", "copied/1"])["artifacts"]["count"], 4);
    if !stack.has_logged_models() {
        return;
    }
    // MLflow's own way to name a logged model, by its id or by its run.
    let id = stack.id("logged");
    let source = format!("models:/{id}");
    for (number, arguments) in
        [(1, vec!["--uuid", id]), (2, vec!["--run", good, "--path", "net"]), (3, vec!["--source", &source])]
    {
        stack.result(&[&["register", "--name", "from-logged"], &arguments[..]].concat());
        let version = stack.version("from-logged", number);
        assert_eq!((&version["source"], &version["run_id"]), (&json!(source), &json!(good)), "{arguments:?}");
    }
    let shown = stack.result(&["show", "--uuid", id]);
    let made = shown["versions"].as_array().unwrap().iter().filter(|v| v["model"] == "from-logged").count();
    assert_eq!(made, 3);
    let tag = shown["tags"]["mlflow.modelVersions"].as_str().unwrap();
    assert!(tag.contains("from-logged"), "{tag}");
}

/// There is no model: nothing is made, not even the registered model.
fn registers_nothing(stack: &Stack) {
    let (good, uri) = (stack.id("good"), stack.made["good"]["uri"].as_str().unwrap());
    let nothing = format!("{uri}/nothing");
    let by_run = format!("runs:/{good}/nothing");
    let elsewhere = stack.place.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    for arguments in [
        vec!["--run", good, "--path", "nothing"],
        vec!["--run", good, "--path", "model/data"],
        vec!["--run", "0123456789abcdef0123456789abcdef"],
        vec!["--uuid", "m-0123456789abcdef0123456789abcdef"],
        vec!["--source", &by_run],
        vec!["--source", &nothing],
        vec!["--source", "mlflow-artifacts:/none"],
        vec!["--source", "models:/forecast/99"],
        vec!["--source", elsewhere.to_str().unwrap()],
        vec!["--source", "/there/is/nothing"],
        vec!["--source", "gs://bucket/x"],
    ] {
        stack.document(6, &[&["register", "--name", "never"], &arguments[..]].concat());
    }
    for arguments in [
        vec![],
        vec!["--path", "model"],
        vec!["--run", good, "--uuid", "m-1"],
        vec!["--uuid", "1"],
        vec!["--run", good, "--tag", "x"],
        vec!["--run", good, "--tag", "a=1", "--tag", "a=2"],
        vec!["--run", good, "--tag", "mlops.register=me"],
    ] {
        stack.say(&[&["register", "--name", "never"], &arguments[..]].concat()).expect(2);
    }
    // The server's own no.
    let said = stack.document(7, &["register", "--name", "never-tagged", "--run", good, "--tag", "a*b=1"]);
    assert!(said["error"]["message"].as_str().unwrap().contains("has no version"), "{said:#}");
    if stack.has_logged_models() {
        stack.document(7, &["register", "--name", "greeting", "--run", good]);
    }
    assert!(stack.rest("registered-models/get?name=never")["error_code"] == "RESOURCE_DOES_NOT_EXIST");
}

/// Whatever becomes of the answer: what is told is what is there, and nothing is there twice.
fn registers_once(stack: &Stack) {
    let relay = Relay::before(stack.port());
    let url = format!("http://127.0.0.1:{}", relay.port);
    let is_create = |head: &str| head.starts_with("POST /api/2.0/mlflow/model-versions/create ");
    let failed = Fate::Instead(
        "HTTP/1.1 500 Internal Server Error\r\nContent-Type: application/json\r\nContent-Length: 54\r\nConnection: \
         close\r\n\r\n{\"error_code\": \"INTERNAL_ERROR\", \"message\": \"database\"}",
    );
    for (name, fate, made) in [
        ("swallowed", Fate::Swallowed, true),
        ("cut", Fate::Cut(40), true),
        ("lost", Fate::Lost, false),
        ("busy", BUSY, false),
        ("failed", failed, false),
    ] {
        relay.judge(move |head| if is_create(head) { fate } else { Fate::Through });
        let arguments = ["models", "register", "--run", stack.id("good"), "--name", name, "--output", "json"];
        let said = run(stack.place.path(), &[&arguments[..], &["--tracking-uri", &url]].concat());
        let asked = relay.asked();
        assert_eq!(asked.iter().filter(|line| is_create(line)).count(), 1, "{name}: {asked:?}");
        if made {
            let told = said.expect(0).json()["result"].clone();
            assert_eq!((&told["version"], &told["status"]), (&json!(1), &json!("READY")), "{name}");
        } else {
            let error = said.expect(8).json()["error"].clone();
            assert!(error["message"].as_str().unwrap().ends_with("nothing was registered"), "{name}: {error}");
        }
        assert_eq!(stack.count(name), usize::from(made), "{name}");
    }
    // The server is gone before anybody can look: that is said.
    let mut gone = false;
    relay.judge(move |head| {
        gone |= is_create(head);
        if gone { Fate::Swallowed } else { Fate::Through }
    });
    let arguments = ["models", "register", "--run", stack.id("good"), "--name", "unclear", "--output", "json"];
    let error = run(stack.place.path(), &[&arguments[..], &["--tracking-uri", &url]].concat()).expect(8).json();
    assert!(error["error"]["message"].as_str().unwrap().contains("is not known"), "{error:#}");
    assert!(error["error"]["hint"].as_str().unwrap().contains("mlops.register="), "{error:#}");
    // A model that somebody else made in between is the model.
    let mut raced = false;
    let (home, direct) = (stack.place.path().to_owned(), stack.server.url.clone());
    let good = stack.id("good").to_owned();
    relay.judge(move |head| {
        if head.starts_with("POST /api/2.0/mlflow/registered-models/create ") && !raced {
            raced = true;
            let more = ["models", "register", "--run", &good, "--name", "raced", "--tracking-uri", &direct];
            run(&home, &more).expect(0);
        }
        Fate::Through
    });
    let arguments = ["models", "register", "--run", stack.id("good"), "--name", "raced", "--output", "json"];
    let told = run(stack.place.path(), &[&arguments[..], &["--tracking-uri", &url]].concat()).expect(0).json();
    assert_eq!(told["result"]["version"], 2);
}

#[test]
fn a_server_has_to_be_named() {
    let home = folder();
    for arguments in [["list", ""], ["show", "x"], ["export", ""]] {
        let arguments: Vec<&str> = ["models"].into_iter().chain(arguments).filter(|a| !a.is_empty()).collect();
        let said = run(home.path(), &arguments).expect(2);
        assert!(said.err.contains("MLFLOW_TRACKING_URI"), "{}", said.err);
    }
}

/// 1,000 models with 50 versions each, put straight into a store that a server made.
fn crowded(release: &str) -> (Server, tempfile::TempDir) {
    let place = folder();
    let file = place.path().join("mlflow.db");
    let server = Server::start(release, &format!("sqlite:///{}", file.display()), place.path(), &["--serve-artifacts"]);
    fill(&file);
    (server, place)
}

fn fill(file: &Path) {
    let mut connection = rusqlite::Connection::open(file).unwrap();
    let work = connection.transaction().unwrap();
    let columns = |table: &str| -> Vec<String> {
        let mut rows = work.prepare(&format!("SELECT name FROM pragma_table_info('{table}')")).unwrap();
        rows.query_map([], |row| row.get(0)).unwrap().flatten().collect()
    };
    let workspaces = columns("model_versions").contains(&"workspace".to_owned());
    let (column, value) = if workspaces { (", workspace", ", 'default'") } else { ("", "") };
    // One id in a form that MLflow does not find among others.
    let run = "CASE i WHEN 5 THEN printf('%032d', i) ELSE printf('a%031x', i) END";
    let numbers = "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 999), \
                   m(j) AS (SELECT 1 UNION ALL SELECT j + 1 FROM m WHERE j < 50)";
    for sql in [
        format!(
            "INSERT INTO registered_models (name, creation_time, last_updated_time, description{column}) {numbers} \
             SELECT printf('model-%04d', i), 1, 1, NULL{value} FROM n"
        ),
        format!(
            "INSERT INTO runs (run_uuid, name, source_type, source_name, entry_point_name, user_id, status, start_time, \
             end_time, source_version, lifecycle_stage, artifact_uri, experiment_id) {numbers} SELECT \
             {run}, 'r', 'LOCAL', '', '', 'u', 'FINISHED', 1, 2, '', 'active', 'mlflow-artifacts:/0/x', 0 FROM n"
        ),
        format!(
            "INSERT INTO latest_metrics (key, value, timestamp, step, is_nan, run_uuid) {numbers} \
             SELECT 'rmse', i / 10.0, 1, 0, i = 7, {run} FROM n"
        ),
        format!(
            "INSERT INTO model_versions (name, version, creation_time, last_updated_time, description, user_id, \
             current_stage, source, run_id, run_link, status, status_message, storage_location{column}) {numbers} \
             SELECT printf('model-%04d', i), j, 1700000000000 + j, 1, '', NULL, CASE j WHEN 49 THEN 'Production' WHEN 50 \
             THEN 'Staging' ELSE 'Archived' END, 'mlflow-artifacts:/0/x/model', {run}, '', 'READY', NULL, \
             NULL{value} FROM n, m"
        ),
        format!(
            "INSERT INTO registered_model_aliases (alias, version, name{column}) {numbers} \
             SELECT 'champion', 48, printf('model-%04d', i){value} FROM n WHERE i % 2 = 0"
        ),
    ] {
        work.execute(&sql, []).unwrap_or_else(|e| panic!("{e}: {sql}"));
    }
    work.commit().unwrap();
}

/// Our own processor time, and what was said.
fn measured(home: &Path, arguments: &[&str]) -> (f64, Value) {
    let script = "import resource, subprocess, sys\n\
                  before = resource.getrusage(resource.RUSAGE_CHILDREN)\n\
                  code = subprocess.run(sys.argv[1:]).returncode\n\
                  after = resource.getrusage(resource.RUSAGE_CHILDREN)\n\
                  took = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime\n\
                  print(took, file=sys.stderr)\nsys.exit(code)";
    let own = mlops(home);
    let mut command = Command::new("python3");
    command.env_clear().envs(own.get_envs().filter_map(|(key, value)| Some((key, value?))));
    let said =
        Said::of(command.args(["-c", script]).arg(own.get_program()).args(arguments).output().unwrap()).expect(0);
    (said.err.lines().last().unwrap().parse().unwrap(), said.json())
}

fn a_thousand_models(release: &str) {
    let (server, place) = crowded(release);
    let relay = Relay::before(server.url.rsplit(':').next().unwrap().parse().unwrap());
    let url = format!("http://127.0.0.1:{}", relay.port);
    let arguments = ["models", "list", "--metric", "rmse", "--output", "json", "--tracking-uri", &url];
    let (seconds, document) = measured(place.path(), &arguments);
    let asked = relay.asked();
    println!("{release}: 1,000 models, 50,000 versions: {} calls, {seconds:.2} s of our own", asked.len());
    assert!(seconds < 1.0, "{seconds} s");
    let count = |call: &str| asked.iter().filter(|line| line.contains(call)).count();
    // Each list may need one more call to see its end.
    for (call, most) in [
        ("/registered-models/search?", 3),
        ("/model-versions/search?", 11),
        ("/experiments/search", 1),
        ("/runs/search", 10),
        ("/runs/get?", 1),
    ] {
        assert!((1..=most).contains(&count(call)), "{call}: {asked:?}");
    }
    assert!(asked.len() <= 26, "{asked:?}");
    let models = document["result"]["models"].as_array().unwrap();
    assert_eq!(models.len(), 1000);
    for (number, model) in models.iter().enumerate() {
        let (champion, metric) = (if number % 2 == 0 { 48 } else { 49 }, number as f64 / 10.0);
        let metric = if number == 7 { json!("NaN") } else { json!(metric) };
        let seen = json!([model["name"], model["versions"], model["champion"], model["metric"], model["newest"]]);
        assert_eq!(seen, json!([format!("model-{number:04}"), 50, champion, metric, 50]));
    }
    assert_eq!(models[1]["staging"], json!({"count": 1, "newest": [50]}));
}

#[test]
fn a_thousand_models_with_fifty_versions_each_take_few_calls() {
    a_thousand_models("2.9.2");
    a_thousand_models("3.17.2");
}
