//! `mlops cleanup experiments`, `runs`, `policy` and `undo` against real servers: the selection beside an oracle that is
//! other code in another language, and the way back as MLflow's own client sees it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};

use crate::flows::Server;
use crate::support::relay::{Fate, Relay};
use crate::support::{Killed, Said, folder, mlops, postgres, wait_for};

/// Rules for the oracle, and the same for the program.
fn policies() -> Vec<(Value, Vec<&'static str>)> {
    vec![
        (json!({"kind": "runs", "days": 30}), vec![]),
        (
            json!({"kind": "runs", "days": 90, "experiment": ["scratch-*", "2"]}),
            vec!["--experiment", "scratch-*", "--experiment", "2"],
        ),
        (
            json!({"kind": "runs", "days": 30, "status": ["FAILED", "KILLED"]}),
            vec!["--status", "failed", "--status", "KILLED"],
        ),
        (
            json!({"kind": "runs", "days": 30, "user": ["ann"], "tag": {"colour": "r"}}),
            vec!["--user", "ann", "--tag", "colour=r"],
        ),
        (
            json!({"kind": "runs", "days": 30, "name": ["t*"], "exclude": ["tune"]}),
            vec!["--name", "t*", "--exclude", "tune"],
        ),
        (json!({"kind": "runs", "days": 30, "keep_last": 2}), vec!["--keep-last", "2"]),
        (
            json!({"kind": "runs", "days": 30, "keep_best": 3, "lower": true}),
            vec!["--keep-best", "3", "--metric", "rmse", "--lower"],
        ),
        (
            json!({"kind": "runs", "days": 60, "keep_best": 1, "keep_last": 1}),
            vec!["--keep-best", "1", "--metric", "rmse", "--keep-last", "1"],
        ),
        (
            json!({"kind": "runs", "days": 30, "include": ["registered", "running", "keep", "pinned"]}),
            vec!["--include", "registered", "--include", "running", "--include", "keep", "--include", "pinned"],
        ),
        (json!({"kind": "experiments", "days": 30}), vec![]),
        (
            json!({"kind": "experiments", "days": 30, "include": ["running", "registered"]}),
            vec!["--include", "running", "--include", "registered"],
        ),
        (
            json!({"kind": "experiments", "days": 30, "name": ["scratch-*"], "tag": {"team": "red"}, "include": ["running", "keep", "pinned", "default"]}),
            vec![
                "--name",
                "scratch-*",
                "--tag",
                "team=red",
                "--include",
                "running",
                "--include",
                "keep",
                "--include",
                "pinned",
                "--include",
                "default",
            ],
        ),
        (
            json!({"kind": "experiments", "days": 20, "keep_last": 4, "include": ["running", "keep", "pinned", "registered"]}),
            vec![
                "--keep-last",
                "4",
                "--include",
                "running",
                "--include",
                "keep",
                "--include",
                "pinned",
                "--include",
                "registered",
            ],
        ),
    ]
}

struct Stack<'a> {
    server: &'a Server,
    home: &'a Path,
}

impl Stack<'_> {
    fn run(&self, arguments: &[&str]) -> Said {
        let mut command = mlops(self.home);
        command.args(["cleanup", "--tracking-uri", &self.server.url, "--output", "json"]).args(arguments);
        Said::of(command.output().unwrap())
    }

    fn state(&self) -> Value {
        self.server.script("retention.py", &["state"]).expect(0).json()
    }

    /// What the oracle says of each.
    fn oracle(&self, policies: &[(Value, Vec<&str>)]) -> Vec<BTreeSet<String>> {
        let rules: Vec<&Value> = policies.iter().map(|(rules, _)| rules).collect();
        let text = serde_json::to_string(&rules).unwrap();
        let wanted = self.server.script("retention.py", &["oracle", "--rules", &text]).expect(0).json();
        wanted.as_array().unwrap().iter().map(ids).collect()
    }

    fn selected(&self, rules: &Value, flags: &[&str]) -> BTreeSet<String> {
        let said = self.run(&self.arguments(rules, flags)).expect(0).json();
        said["result"]["candidates"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["id"].as_str().unwrap().to_owned())
            .collect()
    }

    fn arguments<'b>(&self, rules: &'b Value, flags: &[&'b str]) -> Vec<&'b str> {
        let age = match rules["days"].as_i64().unwrap() {
            20 => "20d",
            30 => "30d",
            60 => "1440h",
            _ => "90d",
        };
        [&[rules["kind"].as_str().unwrap(), "--older-than", age], flags].concat()
    }
}

fn ids(list: &Value) -> BTreeSet<String> {
    list.as_array().unwrap().iter().map(|id| id.as_str().unwrap().to_owned()).collect()
}

/// Lives of runs and experiments by id.
fn lives(state: &Value, what: &str, stage: &str) -> BTreeSet<String> {
    let all = state[what].as_object().unwrap().iter();
    all.filter(|(_, life)| life.as_str() == Some(stage)).map(|(id, _)| id.clone()).collect()
}

fn sqlite(place: &Path) -> String {
    format!("sqlite:///{}", place.join("mlflow.db").display())
}

/// A server with a random store.
fn filled(release: &str, store: &str, place: &Path, seed: &str) -> Server {
    let server = Server::start(release, store, place, &[]);
    server.script("retention.py", &["fill", "--seed", seed, "--backend-store-uri", store]).expect(0);
    server
}

fn a_policy_means_what_the_oracle_means(release: &str, store: &str, place: &Path, seed: &str) {
    let server = filled(release, store, place, seed);
    let stack = Stack { server: &server, home: place };
    let before = stack.state();
    let policies = policies();
    let wanted = stack.oracle(&policies);
    let (mut any, mut deleted_by) = ((0, 0), 0);
    for ((rules, flags), wanted) in policies.into_iter().zip(wanted) {
        let goes = stack.selected(&rules, &flags);
        assert_eq!(goes, wanted, "{rules}");
        if goes.is_empty() {
            continue;
        }
        let kind = rules["kind"].as_str().unwrap();
        if kind == "runs" {
            any.0 += 1;
        } else {
            any.1 += 1;
        }
        // Every second one is carried out.
        deleted_by += 1;
        if deleted_by % 2 == 0 && kind == "runs" {
            continue;
        }
        let mut arguments = stack.arguments(&rules, &flags);
        arguments.push("--yes");
        let said = stack.run(&arguments).expect(0).json();
        assert_eq!(ids(&said["result"]["deleted"]), goes, "{said:#}");
        let after = stack.state();
        let gone: BTreeSet<String> =
            lives(&before, kind, "active").difference(&lives(&after, kind, "active")).cloned().collect();
        assert_eq!(gone, goes, "what MLflow's client sees, {rules}");
        if kind == "runs" {
            assert_eq!(before["experiments"], after["experiments"]);
        }
        let batch = said["result"]["batch"].as_str().unwrap();
        let undone = stack.run(&["undo", batch]).expect(0).json();
        assert_eq!(stack.state(), before, "as it was, run by run: {undone:#}");
        // Once more there is nothing to put back.
        let again = stack.run(&["undo", batch]).expect(0).json();
        assert_eq!((&again["result"]["runs"], &again["result"]["experiments"]), (&json!([]), &json!([])));
    }
    assert!(any.0 >= 5 && any.1 >= 2, "too few policies found anything: {any:?}");
}

#[test]
fn mlflow_2_9_2_on_sqlite_is_cleaned_up_as_the_oracle_says() {
    let place = folder();
    a_policy_means_what_the_oracle_means("2.9.2", &sqlite(place.path()), place.path(), "1");
}

#[test]
fn mlflow_3_4_0_on_postgresql_is_cleaned_up_as_the_oracle_says() {
    let place = folder();
    let database = postgres(15).database("cleanup_340");
    a_policy_means_what_the_oracle_means("3.4.0", &database.sqlalchemy(), place.path(), "2");
}

#[test]
fn the_newest_mlflow_is_cleaned_up_as_the_oracle_says() {
    let place = folder();
    a_policy_means_what_the_oracle_means("3.17.2", &sqlite(place.path()), place.path(), "3");
}

#[test]
fn policies_of_the_file_are_done_in_their_order_and_put_back_one_by_one() {
    let place = folder();
    let server = filled("2.9.2", &sqlite(place.path()), place.path(), "4");
    let stack = Stack { server: &server, home: place.path() };
    let before = stack.state();
    let config = place.path().join("config.toml");
    fs::write(
        &config,
        "[[cleanup.policy]]\nkind = \"runs\"\nolder_than = \"30d\"\nstatus = [\"FAILED\"]\n\
         [[cleanup.policy]]\nkind = \"experiments\"\nolder_than = \"30d\"\ninclude = [\"running\", \"registered\", \"pinned\", \"keep\"]\n",
    )
    .unwrap();
    let config = config.to_str().unwrap();
    let plan = stack.run(&["policy", "--config", config]).expect(0).json();
    assert_eq!(plan["result"]["policies"].as_array().unwrap().len(), 2);
    assert_eq!(stack.state(), before, "dry without --yes");
    let said = stack.run(&["policy", "--config", config, "--yes"]).expect(0).json();
    let batches: Vec<&str> =
        said["result"]["policies"].as_array().unwrap().iter().filter_map(|one| one["batch"].as_str()).collect();
    assert_eq!(batches.len(), 2, "{said:#}");
    assert_ne!(stack.state(), before);
    let listed = stack.run(&["undo"]).expect(0).json();
    assert_eq!(listed["result"]["batches"].as_array().unwrap().len(), 2);
    for batch in batches.into_iter().rev() {
        stack.run(&["undo", batch]).expect(0);
    }
    assert_eq!(stack.state(), before);
}

/// One line of cron: what is old is deleted, what is deleted goes for good, and what lost its row into quarantine.
#[test]
fn a_policy_deletes_purges_and_sweeps_in_its_order() {
    let place = folder();
    let home = place.path();
    let server = filled("3.4.0", &sqlite(home), home, "5");
    let stack = Stack { server: &server, home };
    let (config, root) = (home.join("config.toml"), home.join("artifacts"));
    let orphan = format!("1/{}/artifacts/x", "0123456789abcdef".repeat(2));
    crate::backups::aged(&root.join(&orphan), b"nobody's");
    fs::write(
        &config,
        format!(
            "backend_store_uri = \"{}\"\nartifact_root = \"{}\"\n\
             [[cleanup.policy]]\nkind = \"runs\"\nolder_than = \"30d\"\nstatus = [\"FAILED\"]\n\
             [[cleanup.policy]]\nkind = \"purge\"\nolder_than = \"0s\"\n\
             [[cleanup.policy]]\nkind = \"orphans\"\nolder_than = \"0s\"\n",
            sqlite(home),
            root.display()
        ),
    )
    .unwrap();
    let config = config.to_str().unwrap();
    let before = stack.state();
    for id in lives(&before, "runs", "active").iter().take(12) {
        crate::backups::aged(&root.join(format!("1/{id}/artifacts/x")), b"of a run");
    }
    let plan = stack.run(&["policy", "--config", config]).expect(0).json()["result"]["policies"].clone();
    assert_eq!((plan.as_array().unwrap().len(), &plan[1]["done"], &plan[2]["done"]), (3, &json!(false), &json!(false)));
    assert_eq!(stack.state(), before, "dry without --yes");
    let done = stack.run(&["policy", "--config", config, "--yes"]).expect(0).json()["result"]["policies"].clone();
    assert!(done[0]["batch"].is_string() && done[0]["deleted"].as_array().is_some_and(|d| !d.is_empty()), "{done:#}");
    assert!(done[1]["runs"].as_u64().unwrap() > 0, "{done:#}");
    assert_eq!(done[2]["quarantined"]["places"], 1, "{done:#}");
    assert!(!root.join(&orphan).exists());
    server.exercise();
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_is_asked() {
    let place = folder();
    for (arguments, code, says) in [
        (&["runs", "--older-than", "soon"][..], 2, "not a time"),
        (&["runs", "--older-than", "1d", "--status", "DONE"], 2, "no run has the status DONE"),
        (&["runs", "--older-than", "1d", "--keep-best", "2"], 2, "the best by which metric"),
        (&["runs"], 2, "--older-than"),
        (&["policy"], 3, "no [[cleanup.policy]]"),
        (&["undo", "../../etc/passwd"], 2, "no journal"),
        (&["runs", "--older-than", "1d"], 2, "which tracking server"),
    ] {
        let mut command = mlops(place.path());
        let said = Said::of(command.arg("cleanup").args(arguments).output().unwrap()).expect(code);
        assert!(said.err.contains(says), "{arguments:?}: {}", said.err);
    }
}

#[test]
fn a_batch_that_is_killed_is_put_back_whole() {
    let place = folder();
    let server = filled("2.9.2", &sqlite(place.path()), place.path(), "5");
    let stack = Stack { server: &server, home: place.path() };
    let before = stack.state();
    let port = server.url.trim_end_matches('/').rsplit_once(':').unwrap().1.parse().unwrap();
    let relay = Relay::before(port);
    let address = format!("http://127.0.0.1:{}", relay.port);
    for (kind, call) in [("runs", "/runs/delete"), ("experiments", "/experiments/delete")] {
        // The server does the second one, and nobody hears of it.
        let mut met = 0;
        relay.judge(move |head| {
            met += u32::from(head.lines().next().unwrap_or_default().contains(call));
            if met == 2 { Fate::Swallowed } else { Fate::Through }
        });
        let mut command = mlops(place.path());
        command.args(["cleanup", kind, "--older-than", "30d", "--jobs", "1", "--yes", "--tracking-uri", &address]);
        command.args(["--include", "running", "--include", "registered"]);
        let mut child = Killed(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        let asked = |relay: &Relay| relay.asked().iter().filter(|line| line.contains(call)).count();
        wait_for("two deletions", Duration::from_secs(60), || (asked(&relay) >= 2).then_some(()));
        child.0.kill().unwrap();
        child.0.wait().unwrap();
        relay.judge(|_| Fate::Through);
        wait_for("the deletions", Duration::from_secs(30), || {
            let gone = lives(&before, kind, "active").difference(&lives(&stack.state(), kind, "active")).count();
            (gone >= 2).then_some(())
        });
        let run = |arguments: &[&str]| {
            let mut command = mlops(place.path());
            command.args(["cleanup", "undo", "--output", "json", "--tracking-uri", &address]).args(arguments);
            Said::of(command.output().unwrap()).expect(0).json()["result"].clone()
        };
        let listed = run(&[]);
        let batch = listed["batches"].as_array().unwrap().last().unwrap()["batch"].as_str().unwrap().to_owned();
        run(&[&batch]);
        assert_eq!(stack.state(), before, "{kind}");
    }
}
