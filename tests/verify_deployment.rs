//! `mlops verify deployment` on real servers: passed where all is well, the step named where something is not, and nothing
//! left behind whatever happens.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use mlops::domain::server::{Connection, ServerAddress};
use mlops::domain::tracking::View;
use mlops::mlflow::{Bounds, Client};
use rustix::process::{Pid, Signal, kill_process};
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use crate::artifacts::{ObjectStore, object_store};
use crate::flows::Server;
use crate::promotions::shared;
use crate::support::relay::{Fate, Relay};
use crate::support::{Killed, Said, folder, mlops, postgres, wait_for};

fn command(home: &Path, url: &str, more: &[&str]) -> Command {
    let mut command = mlops(home);
    command.args(["verify", "deployment", "--tracking-uri", url, "--output", "json"]).args(more);
    command
}

#[track_caller]
fn verified(home: &Path, url: &str, code: i32, more: &[&str]) -> Value {
    let said = Said::of(command(home, url, more).output().unwrap()).expect(code);
    let document = said.json();
    assert_eq!(document["schema"], "mlops.verify.deployment.v1");
    document["result"].clone()
}

/// With `--dry-run`: the code that the real run's refusal would have.
#[track_caller]
fn verified_plan(home: &Path, url: &str, code: i32, more: &[&str]) -> Value {
    Said::of(command(home, url, &[&["--dry-run"], more].concat()).output().unwrap()).expect(code).json()
}

/// Step and verdict of those that are not this.
fn others(result: &Value, verdict: &str) -> Vec<(String, String)> {
    let steps = result["steps"].as_array().unwrap().iter();
    let text = |s: &Value, key: &str| s[key].as_str().unwrap().to_owned();
    steps.filter(|s| s["verdict"] != verdict).map(|s| (text(s, "name"), text(s, "verdict"))).collect()
}

fn step<'a>(result: &'a Value, name: &str) -> &'a Value {
    result["steps"].as_array().unwrap().iter().find(|s| s["name"] == name).unwrap_or_else(|| panic!("{name}: {result}"))
}

/// What there is of verifications: registered models, experiments that are active, those that are soft-deleted.
pub(crate) fn left(url: &str) -> (Vec<String>, Vec<String>, Vec<String>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let bounds = Bounds { connect: Duration::from_secs(5), call: Duration::from_secs(60) };
        let client = Client::new(&Connection::to(ServerAddress::parse(url).unwrap()), bounds).unwrap();
        let mut models = Vec::new();
        let mut pages = client.registered_models("name LIKE 'mlops-verify-%'");
        while let Some(page) = pages.next().await.unwrap() {
            models.extend(page.into_iter().map(|m| m.name));
        }
        let mut experiments = [Vec::new(), Vec::new()];
        for (list, view) in experiments.iter_mut().zip([View::Active, View::Deleted]) {
            let mut pages = client.experiments("name LIKE 'mlops-verify-%'", view, 1000);
            while let Some(page) = pages.next().await.unwrap() {
                list.extend(page.into_iter().map(|e| e.name));
            }
        }
        let [active, deleted] = experiments;
        (models, active, deleted)
    })
}

/// Files below a folder.
fn files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path.display().to_string()) }
    }
    found
}

#[track_caller]
fn passes_and_leaves_nothing(release: &str, url: &str, home: &Path, envs: &[(&str, String)], way: &str) {
    let mut command = command(home, url, &["--report", home.join("page.md").to_str().unwrap()]);
    let said = Said::of(command.envs(envs.iter().cloned()).output().unwrap()).expect(0);
    let result = said.json()["result"].clone();
    let old = ["logged model", "find by id"].map(|step| (step.to_owned(), "skipped".to_owned()));
    let wanted = if release.starts_with('2') { old.to_vec() } else { Vec::new() };
    assert_eq!(others(&result, "passed"), wanted, "{result}");
    assert_eq!((&result["verdict"], &result["unfinished"]), (&json!("passed"), &json!([])));
    assert!(step(&result, "upload")["evidence"].as_str().unwrap().contains(way), "{result}");
    let id = result["id"].as_str().unwrap();
    assert_eq!(result["soft_deleted"], json!([format!("mlops-verify-{id}")]));
    let page = fs::read_to_string(home.join("page.md")).unwrap();
    assert!(page.contains("**Passed:**") && page.contains(id) && page.contains(&format!("`{release}`")), "{page}");
    let (models, active, deleted) = left(url);
    assert!(!models.iter().chain(&active).any(|name| name.contains(id)), "{models:?} {active:?}");
    assert!(deleted.contains(&format!("mlops-verify-{id}")), "{deleted:?}");
}

#[test]
fn a_sound_deployment_passes_on_sqlite_and_postgresql_with_a_folder() {
    for release in ["2.9.2", "3.4.0", "3.17.2"] {
        let home = folder();
        passes_and_leaves_nothing(release, &shared(release).server.url, home.path(), &[], "into the folder");
    }
}

fn sqlite(place: &Path) -> String {
    format!("sqlite:///{}", place.join("mlflow.db").display())
}

#[test]
fn a_sound_deployment_passes_behind_the_proxy() {
    for release in ["2.9.2", "3.4.0", "3.17.2"] {
        let home = folder();
        let server = Server::start(release, &sqlite(home.path()), home.path(), &["--serve-artifacts"]);
        passes_and_leaves_nothing(release, &server.url, home.path(), &[], "proxy");
        assert_eq!(files(&home.path().join("artifacts")), Vec::<String>::new());
    }
}

#[test]
fn a_sound_deployment_passes_with_s3() {
    for (release, proxied) in [("2.9.2", false), ("3.4.0", true), ("3.17.2", false)] {
        let home = folder();
        let ObjectStore { access, _process } = object_store(home.path(), &["--empty"]);
        let objects = home.path().join("objects");
        let mut more = vec!["--object-store", objects.to_str().unwrap(), "--artifact-root", "s3://artifacts/root"];
        more.extend(proxied.then_some("--serve-artifacts"));
        let database = postgres(15).database(&format!("deployment_s3_{}", release.replace('.', "_")));
        let server = Server::start(release, &database.sqlalchemy(), home.path(), &more);
        let key = access.key.as_ref().unwrap();
        let envs = [
            ("AWS_ACCESS_KEY_ID", key.id.clone()),
            ("AWS_SECRET_ACCESS_KEY", key.secret.expose_secret().to_owned()),
            ("MLFLOW_S3_ENDPOINT_URL", access.endpoint.clone().unwrap()),
        ];
        let envs = if proxied { &envs[..0] } else { &envs[..] };
        passes_and_leaves_nothing(release, &server.url, home.path(), envs, if proxied { "proxy" } else { "to S3" });
    }
}

#[test]
fn a_model_that_is_kept_loads_and_predicts() {
    for release in ["2.9.2", "3.4.0", "3.17.2"] {
        let home = folder();
        let server = Server::start(release, &sqlite(home.path()), home.path(), &["--serve-artifacts"]);
        let result = verified(home.path(), &server.url, 0, &["--keep", "--model", "kept model"]);
        let mut wanted = vec!["delete version", "delete model"];
        wanted.extend((!release.starts_with('2')).then_some("delete logged model"));
        wanted.extend(release.starts_with('2').then_some(["logged model", "find by id"]).into_iter().flatten());
        wanted.sort_unstable();
        let mut skipped: Vec<String> = others(&result, "passed").into_iter().map(|(name, _)| name).collect();
        skipped.sort_unstable();
        assert_eq!(skipped, wanted, "{result}");
        assert!(result["kept"].to_string().contains("kept model"), "{result}");
        let said = server.script("load_model.py", &["--model", "kept model"]).expect(0);
        let told = said.json();
        let versions = if release.starts_with('2') { 1 } else { 2 };
        assert_eq!(told.as_array().unwrap().len(), versions);
        for version in told.as_array().unwrap() {
            let metadata = json!({"mlops_verify": result["id"]});
            assert_eq!(
                (&version[1], &version[2], &version[3]),
                (&json!(["x"]), &metadata, &json!([2.5, 4.5])),
                "{told}"
            );
        }
        // What was kept is nobody's to remove, and its name is taken.
        let said = Said::of(command(home.path(), &server.url, &["--model", "kept model"]).output().unwrap()).expect(9);
        assert!(said.json()["error"]["message"].as_str().unwrap().contains("there already"), "{}", said.out);
        verified_plan(home.path(), &server.url, 9, &["--model", "kept model"]);
        verified_plan(home.path(), &server.url, 0, &[]);
        server.script("load_model.py", &["--model", "kept model"]).expect(0);
    }
}

#[test]
fn a_store_that_takes_nothing_is_named() {
    for (release, proxied) in [("2.9.2", true), ("3.17.2", false)] {
        let home = folder();
        // A file where the folder should be: nobody can write below it, root neither.
        fs::write(home.path().join("artifacts"), "").unwrap();
        let more: &[&str] = if proxied { &["--serve-artifacts"] } else { &[] };
        let server = Server::start(release, &sqlite(home.path()), home.path(), more);
        let result = verified(home.path(), &server.url, 5, &[]);
        assert_eq!(step(&result, "upload")["verdict"], "failed", "{result}");
        for (name, verdict) in ["run", "end run", "register"].into_iter().zip(["passed", "passed", "skipped"]) {
            assert_eq!(step(&result, name)["verdict"], verdict, "{result}");
        }
        assert_eq!(step(&result, "register")["evidence"], "stands on `upload`");
        assert_eq!(result["verdict"], "failed");
        assert_eq!((left(&server.url).0, left(&server.url).1), (vec![], vec![]));
    }
}

#[test]
fn a_proxy_that_is_off_is_named() {
    let home = folder();
    let more = ["--artifact-root", "mlflow-artifacts:/"];
    let server = Server::start("3.4.0", &sqlite(home.path()), home.path(), &more);
    let result = verified(home.path(), &server.url, 5, &[]);
    let upload = step(&result, "upload");
    assert_eq!(upload["verdict"], "failed");
    assert!(upload["evidence"].as_str().unwrap().contains("--no-serve-artifacts"), "{upload}");
    assert_eq!((left(&server.url).0, left(&server.url).1), (vec![], vec![]));
}

fn relayed(url: &str) -> (Relay, String) {
    let relay = Relay::before(url.rsplit(':').next().unwrap().trim_end_matches('/').parse().unwrap());
    let address = format!("http://127.0.0.1:{}", relay.port);
    (relay, address)
}

#[test]
fn a_byte_that_changes_on_the_way_is_found() {
    let home = folder();
    let server = Server::start("3.4.0", &sqlite(home.path()), home.path(), &["--serve-artifacts"]);
    let (relay, url) = relayed(&server.url);
    let of_weights = |head: &str| {
        head.starts_with("GET /api/2.0/mlflow-artifacts/artifacts/")
            && head.lines().next().unwrap().contains("weights.json")
    };
    relay.judge(move |head| if of_weights(head) { Fate::Altered } else { Fate::Through });
    let result = verified(home.path(), &url, 5, &[]);
    assert_eq!(others(&result, "passed"), [("download".to_owned(), "failed".to_owned())], "{result}");
    let findings = result["findings"].as_array().unwrap();
    let named: Vec<(&str, &str)> =
        findings.iter().map(|f| (f["id"].as_str().unwrap(), f["object"].as_str().unwrap())).collect();
    let wanted = ["version 1: data/weights.json", "version 2: data/weights.json"].map(|on| ("changed_file", on));
    assert_eq!(named, wanted);
    assert_eq!((left(&server.url).0, left(&server.url).1), (vec![], vec![]));
}

#[test]
fn what_a_killed_run_left_is_removed_by_the_next() {
    for signal in [Signal::KILL, Signal::TERM] {
        let home = folder();
        let server = Server::start("3.4.0", &sqlite(home.path()), home.path(), &["--serve-artifacts"]);
        let (relay, url) = relayed(&server.url);
        // It hangs at the second version: model, first version, files, run and experiment are there.
        relay.judge(|head| if head.contains("registered-models/alias") { Fate::Silent } else { Fate::Through });
        let run = command(home.path(), &url, &[]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let pid = Pid::from_child(&run);
        let mut run = Killed(run);
        wait_for("the alias", Duration::from_secs(60), || {
            relay.asked().iter().any(|line| line.contains("registered-models/alias")).then_some(())
        });
        assert_eq!((left(&server.url).0.len(), left(&server.url).1.len()), (1, 1));
        kill_process(pid, signal).unwrap();
        let status = run.0.wait().unwrap();
        if signal == Signal::TERM {
            // It removes what it made before it ends.
            assert_eq!(status.code(), Some(143));
        } else {
            assert_eq!((left(&server.url).0.len(), left(&server.url).1.len()), (1, 1));
            // A run on another server says where it is removed, and leaves it.
            let said = Said::of(command(home.path(), &shared("3.4.0").server.url, &[]).output().unwrap()).expect(0);
            let warnings = said.json()["warnings"].to_string();
            assert!(warnings.contains(&format!("--tracking-uri {url} removes")), "{warnings}");
            assert!(warnings.contains("state/journal/") && left(&server.url).1.len() == 1, "{warnings}");
            // By another name of the server, and out of the database as well.
            let store = ["--backend-store-uri", &sqlite(home.path())];
            let said = Said::of(command(home.path(), &server.url, &store).output().unwrap()).expect(0);
            let warnings = said.json()["warnings"].to_string();
            assert!(warnings.contains("did not finish") && warnings.contains("what it left is removed"), "{warnings}");
            assert!(warnings.contains("removed from the database as well"), "{warnings}");
            let said = Said::of(command(home.path(), &server.url, &store).output().unwrap()).expect(0);
            assert!(!said.out.contains("did not finish"), "{}", said.out);
        }
        let (models, active, deleted) = left(&server.url);
        assert_eq!((models, active), (vec![], vec![]), "{signal:?}");
        assert_eq!(deleted.len(), usize::from(signal == Signal::TERM), "{deleted:?}");
        assert_eq!(files(&home.path().join("artifacts")), Vec::<String>::new());
    }
}

#[test]
fn other_parts_are_asked_and_a_server_that_is_not_there_is_told() {
    let home = folder();
    let url = &shared("3.17.2").server.url;
    let info = format!("info={url}/api/3.0/mlflow/server-info where .workspaces_enabled == 0");
    let wrong = format!("wrong={url}/api/3.0/mlflow/server-info where .workspaces_enabled > 0");
    let gone = format!("gone={url}/nothing");
    verified(home.path(), url, 0, &["--service", &info]);
    let result = verified(home.path(), url, 5, &["--service", &info, "--service", &wrong, "--service", &gone]);
    let wanted = ["service wrong", "service gone"].map(|name| (name.to_owned(), "failed".to_owned()));
    assert_eq!(others(&result, "passed"), wanted);
    let refused = ["verify", "deployment", "--tracking-uri", url, "--service", "x=ftp://h"];
    crate::support::run(home.path(), &refused).expect(2);
    let said = Said::of(command(home.path(), "http://127.0.0.1:1", &[]).output().unwrap()).expect(8);
    assert_eq!(said.json()["error"]["kind"], "unreachable");
    // A plan makes nothing, and refuses what the run would refuse.
    assert_eq!(verified_plan(home.path(), url, 0, &[])["result"]["done"], false);
    verified_plan(home.path(), "http://127.0.0.1:1", 8, &[]);
    verified_plan(home.path(), url, 7, &["--report", "/nowhere/page.md"]);
    assert!(
        !fs::read_dir(home.path().join("state/journal"))
            .unwrap()
            .flatten()
            .any(|e| { !fs::read_to_string(e.path()).unwrap().contains("closed") })
    );
}
