//! Activity, metrics and registry of real MLflow servers: each thing is broken for real, and only its check turns.

use std::path::PathBuf;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use mlops::domain::health::Status;
use serde_json::{Value, json};

use crate::flows::Server;
use crate::probes::{Told, configured, look, stack};
use crate::support::folder;

const CONFIGURATION: &str = r#"
[health.activity.deleted]
warning = 8
[[activity]]
name = "nightly"
experiments = "nightly-*"
newest = { warning = "24h", critical = "48h" }
runs = { within = "7d", warning = 5, critical = 1 }
failed = { of = 10, warning = "10%", critical = "50%" }
running = { warning = "6h", critical = "24h" }
duration = { warning = "2h" }
[[metric]]
name = "forecast"
experiments = "nightly-*"
expect = ["r2 >= 0.85", '"val loss" > 0']
trend = { metric = "r2", runs = 12 }
[[metric]]
name = "champion"
model = "energy"
expect = ["r2 >= 0.85"]
level = "warning"
[registry]
production = ["energy*"]
"#;

/// A server that is talked to as a trainer does.
struct Trainer {
    place: tempfile::TempDir,
    file: PathBuf,
    server: Server,
    runtime: tokio::runtime::Runtime,
    http: reqwest::Client,
}

impl Trainer {
    fn on(release: &str) -> Trainer {
        let place = folder();
        let file = place.path().join("mlflow.db");
        let server = Server::start(release, &format!("sqlite:///{}", file.display()), place.path(), &[]);
        let tls = mlops::tls::client(None, None).unwrap();
        let http = reqwest::Client::builder().tls_backend_preconfigured(tls).no_proxy().build().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        Trainer { place, file, server, runtime, http }
    }

    #[track_caller]
    fn post(&self, call: &str, body: Value) -> Value {
        self.call(reqwest::Method::POST, call, body)
    }

    #[track_caller]
    fn call(&self, method: reqwest::Method, call: &str, body: Value) -> Value {
        let url = format!("{}/api/2.0/mlflow/{call}", self.server.url);
        self.runtime.block_on(async {
            let response = self.http.request(method, url).json(&body).send().await.unwrap();
            let (status, text) = (response.status(), response.text().await.unwrap());
            assert!(status.is_success(), "{call}: {status} {text}");
            serde_json::from_str(&text).unwrap()
        })
    }

    fn experiment(&self, name: &str) -> String {
        let made = self.post("experiments/create", json!({ "name": name }));
        made["experiment_id"].as_str().unwrap().to_owned()
    }

    /// A run that began so many minutes ago, took one, and logged these.
    fn run(&self, experiment: &str, minutes: i64, status: &str, metrics: &[(&str, f64)]) -> String {
        let start = Timestamp::now().as_millisecond() - minutes * 60_000;
        let made = self.post("runs/create", json!({ "experiment_id": experiment, "start_time": start }));
        let id = made["run"]["info"]["run_id"].as_str().unwrap().to_owned();
        let metrics: Vec<Value> = metrics
            .iter()
            .map(|(key, value)| json!({ "key": key, "value": value, "timestamp": start, "step": 0 }))
            .collect();
        self.post("runs/log-batch", json!({ "run_id": id, "metrics": metrics }));
        if status != "RUNNING" {
            self.post("runs/update", json!({ "run_id": id, "status": status, "end_time": start + 60_000 }));
        }
        id
    }

    fn delete(&self, run: &str) {
        self.post("runs/delete", json!({ "run_id": run }));
    }

    fn version(&self, run: &str) -> String {
        let body = json!({ "name": "energy", "source": "s3://models/energy", "run_id": run });
        self.post("model-versions/create", body)["model_version"]["version"].as_str().unwrap().to_owned()
    }

    fn stage(&self, version: &str, stage: &str) {
        let body = json!({ "name": "energy", "version": version, "stage": stage, "archive_existing_versions": false });
        self.post("model-versions/transition-stage", body);
    }

    fn sql(&self, statement: &str) {
        let connection = rusqlite::Connection::open(&self.file).unwrap();
        connection.busy_timeout(Duration::from_secs(20)).unwrap();
        connection.execute_batch(statement).unwrap();
    }

    /// Looks so many hours from now.
    fn look(&self, hours: i64) -> Told {
        let settings = configured(self.place.path(), CONFIGURATION);
        let only = ["activity.*", "metrics.*", "registry.*"];
        let mut stack = stack(settings, Some(&self.server.url), &only, Duration::from_secs(30));
        stack.look.now = stack.look.now.checked_add(SignedDuration::from_hours(hours)).unwrap();
        look(stack)
    }

    /// Those that are not fine.
    #[track_caller]
    fn broken(&self, hours: i64, wanted: &[(&str, Status)]) -> Told {
        let told = self.look(hours);
        let are: Vec<(&str, Status)> =
            told.iter().filter(|(_, r)| r.status != Status::Ok).map(|(id, r)| (id.as_str(), r.status)).collect();
        assert_eq!(are, wanted, "{told:#?}");
        told
    }
}

#[track_caller]
fn says(told: &Told, id: &str, text: &str) {
    let reading = &told[id];
    let all = format!("{} {}", reading.summary, reading.evidence.join(" "));
    assert!(all.contains(text), "{text}: {reading:#?}");
}

fn each_thing_that_breaks_turns_its_own_check(release: &str) {
    use Status::{Critical, Unknown, Warning};
    let trainer = Trainer::on(release);
    let experiment = trainer.experiment("nightly-a");
    trainer.experiment("nightly-empty");
    trainer.experiment("other");
    let good = |r2: f64| [("r2", r2), ("val loss", 0.1)];
    let mut last = String::new();
    for index in 0..12_i64 {
        // Up and down: no trend.
        let r2 = if index % 2 == 0 { 0.91 } else { 0.89 };
        last = trainer.run(&experiment, (12 - index) * 60, "FINISHED", &good(r2));
    }
    trainer.post("registered-models/create", json!({ "name": "energy" }));
    let first = trainer.version(&last);
    trainer.stage(&first, "Production");
    let alias = json!({ "name": "energy", "alias": "champion", "version": first });
    trainer.post("registered-models/alias", alias.clone());
    let told = trainer.broken(0, &[]);
    assert_eq!(told.len(), 5 + 3 + 1 + 2 + 1, "{told:#?}");

    // Time goes by.
    let told = trainer.broken(30, &[("activity.nightly.newest", Warning)]);
    says(&told, "activity.nightly.newest", &last);
    trainer.broken(60, &[("activity.nightly.newest", Critical)]);
    trainer.broken(24 * 8, &[("activity.nightly.newest", Critical), ("activity.nightly.runs", Critical)]);

    // A run is stuck.
    let stuck = trainer.run(&experiment, 7 * 60, "RUNNING", &[]);
    let told = trainer.broken(0, &[("activity.nightly.running", Warning)]);
    says(&told, "activity.nightly.running", &stuck);
    trainer.delete(&stuck);
    // Runs fail.
    let failed = [trainer.run(&experiment, 5, "FAILED", &[]), trainer.run(&experiment, 4, "KILLED", &[])];
    let told = trainer.broken(0, &[("activity.nightly.failed", Warning)]);
    says(&told, "activity.nightly.failed", "2 of the newest 10");
    failed.iter().for_each(|run| trainer.delete(run));
    // One takes long.
    let long = trainer.run(&experiment, 3, "FINISHED", &good(0.9));
    let end = Timestamp::now().as_millisecond() + 3 * 3_600_000;
    trainer.post("runs/update", json!({ "run_id": long, "status": "FINISHED", "end_time": end }));
    trainer.broken(0, &[("activity.nightly.duration", Warning)]);
    trainer.delete(&long);

    // A metric is bad, is none, is missing.
    let bad = trainer.run(&experiment, 2, "FINISHED", &good(0.5));
    let told = trainer.broken(0, &[("metrics.forecast.1", Critical)]);
    says(&told, "metrics.forecast.1", "0.5 against 0.85");
    says(&told, "metrics.forecast.1", &bad);
    trainer.delete(&bad);
    let missing = trainer.run(&experiment, 2, "FINISHED", &[("val loss", 0.1)]);
    trainer.broken(0, &[("metrics.forecast.1", Unknown)]);
    trainer.delete(&missing);
    // It falls, slowly, and is still good.
    let falling: Vec<String> = (0..12_i64)
        .map(|index| trainer.run(&experiment, 40 - index, "FINISHED", &good(0.97 - 0.01 * index as f64)))
        .collect();
    let told = trainer.broken(0, &[("metrics.forecast.trend", Critical)]);
    says(&told, "metrics.forecast.trend", "r2 gets worse: -0.01 a run over 12 runs, -11.3% in all");
    // What is deleted adds up.
    falling.iter().for_each(|run| trainer.delete(run));
    let told = trainer.broken(0, &[("activity.deleted", Warning)]);
    says(&told, "activity.deleted", "18 runs and 0 experiments");
    // As `mlflow gc` would.
    for table in ["metrics", "latest_metrics", "params", "tags", "runs"] {
        let gone = "SELECT run_uuid FROM runs WHERE lifecycle_stage = 'deleted'";
        trainer.sql(&format!("DELETE FROM {table} WHERE run_uuid IN ({gone})"));
    }
    trainer.broken(0, &[]);

    // Two versions are in production, the alias disagrees, none is.
    let second = trainer.version(&last);
    trainer.stage(&second, "Production");
    let told = trainer.broken(0, &[("registry.production", Critical)]);
    says(&told, "registry.production", "2 versions of energy are in Production: 1, 2");
    trainer.stage(&first, "Archived");
    let told = trainer.broken(0, &[("registry.production", Warning)]);
    says(&told, "registry.production", "champion names version 1, in Production is version 2");
    trainer.call(reqwest::Method::DELETE, "registered-models/alias", json!({ "name": "energy", "alias": "champion" }));
    trainer.broken(0, &[]);
    trainer.stage(&second, "None");
    let told = trainer.broken(0, &[("metrics.champion.1", Warning), ("registry.production", Critical)]);
    says(&told, "registry.production", "no version of energy");
    trainer.post("registered-models/alias", alias);
    trainer.broken(0, &[]);

    // A version failed, one is not done yet, one never will be.
    let status = |status: &str| {
        let set = "UPDATE model_versions SET status_message = 'disk full', status =";
        trainer.sql(&format!("{set} '{status}' WHERE version = 2"));
    };
    status("FAILED_REGISTRATION");
    let told = trainer.broken(0, &[("registry.versions", Warning)]);
    says(&told, "registry.versions", "energy version 2: FAILED_REGISTRATION");
    says(&told, "registry.versions", "disk full");
    status("PENDING_REGISTRATION");
    trainer.broken(0, &[]);
    trainer.broken(2, &[("registry.versions", Warning)]);
    status("READY");

    // The version in production is bad; then the experiments are gone, and the model.
    let worse = trainer.run(&experiment, 60 * 24, "FINISHED", &good(0.1));
    let third = trainer.version(&worse);
    trainer.post("registered-models/alias", json!({ "name": "energy", "alias": "champion", "version": third }));
    let told = trainer.broken(0, &[("metrics.champion.1", Warning)]);
    says(&told, "metrics.champion.1", "energy version 3");
    trainer.call(reqwest::Method::DELETE, "registered-models/delete", json!({ "name": "energy" }));
    let told = trainer.broken(0, &[("metrics.champion.1", Warning), ("registry.production", Critical)]);
    says(&told, "metrics.champion.1", "no model is called energy");
    for (id, name) in [(experiment.as_str(), "gone"), ("2", "gone-too")] {
        trainer.post("experiments/update", json!({ "experiment_id": id, "new_name": name }));
    }
    let told = trainer.look(0);
    assert_eq!(told["activity.nightly.newest"].summary, "no experiment is called nightly-*");
    assert_eq!(told["activity.nightly.newest"].status, Critical);
    assert_eq!(told["activity.nightly.failed"].root(), Some("activity.nightly.newest"));
    assert_eq!(told["metrics.forecast.1"].status, Critical);
    assert_eq!(told["metrics.forecast.trend"].root(), Some("metrics.forecast.1"));
}

#[test]
fn each_thing_that_breaks_turns_its_own_check_on_mlflow_3_4_0() {
    each_thing_that_breaks_turns_its_own_check("3.4.0");
}

#[test]
fn each_thing_that_breaks_turns_its_own_check_on_mlflow_2_9_2() {
    each_thing_that_breaks_turns_its_own_check("2.9.2");
}

/// Nobody answers: nothing is fine, and nothing is told to be broken that was not seen.
#[test]
fn without_a_server_everything_is_unknown() {
    let place = folder();
    let only = ["activity.*", "metrics.*", "registry.*"];
    let told = look(stack(
        configured(place.path(), CONFIGURATION),
        Some("http://127.0.0.1:1"),
        &only,
        Duration::from_secs(10),
    ));
    assert_eq!(told.len(), 12, "{told:#?}");
    assert!(told.values().all(|r| r.status == Status::Unknown), "{told:#?}");
}
