//! Promotions in large registries, of models with many versions, and of models with odd names.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use rusqlite::{Connection, params};
use serde_json::{Value, json};

use crate::promotions::{Registry, shared};
use crate::support::relay::{Fate, Relay};
use crate::support::{Said, folder};

const MODELS: i64 = 1_000;
const VERSIONS: i64 = 50;
const LARGE: i64 = 2_000;

/// Models and versions, straight into a file of MLflow 2.9.2's. The large model has these runs' versions at both ends.
fn fill(file: &Connection, runs: [&str; 2]) {
    file.execute_batch("BEGIN").unwrap();
    let mut model = file
        .prepare("INSERT INTO registered_models (name, creation_time, last_updated_time) VALUES (?1, 1, 1)")
        .unwrap();
    let mut version = file
        .prepare(
            "INSERT INTO model_versions (name, version, creation_time, last_updated_time, current_stage, source, run_id, \
             status) VALUES (?1, ?2, 1, 1, ?3, '/nowhere', ?4, 'READY')",
        )
        .unwrap();
    for number in 0..MODELS {
        let name = format!("model {number:04}");
        model.execute([&name]).unwrap();
        for one in 1..=VERSIONS {
            let stage = if one == VERSIONS { "Production" } else { "Archived" };
            version.execute(params![name, one, stage, runs[0]]).unwrap();
        }
    }
    model.execute(["large"]).unwrap();
    for one in 1..=LARGE {
        version.execute(params!["large", one, "None", if one == 1 { runs[0] } else { runs[1] }]).unwrap();
    }
    file.execute_batch("COMMIT").unwrap();
}

/// One promotion makes the same calls whatever the number of models and versions.
#[test]
fn the_calls_of_a_promotion_do_not_grow() {
    let registry = Registry::new("2.9.2", None, &[]);
    let port = registry.server.url.trim_end_matches('/').rsplit_once(':').unwrap().1.parse().unwrap();
    let (relay, home) = (Relay::before(port), folder());
    let counted = |arguments: &[&str]| {
        relay.judge(|_| Fate::Through);
        let begun = Instant::now();
        let mut command = registry.program(home.path(), arguments);
        command.env("MLFLOW_TRACKING_URI", format!("http://127.0.0.1:{}", relay.port)).arg("--yes");
        let said = Said::of(command.output().unwrap()).expect(0);
        (relay.asked().len(), begun.elapsed(), said)
    };
    // The first champion, the next one beside it, the way back, the history.
    let calls = |model: &str, next: &str| {
        let promote = ["promote", "--model", model, "--mode", "both", "--require", "rmse < champion", "--version"];
        let steps = [
            &[&promote[..], &["1"]].concat()[..],
            &[&promote[..], &[next]].concat(),
            &["rollback", "--model", model],
            &["models", "history", model],
        ];
        steps.map(&counted).map(|(calls, took, _)| (calls, took))
    };
    let registered = |model: &str| {
        let one = |rmse| {
            let made = registry.told(&json!({"do": "register", "model": model, "metrics": {"rmse": rmse}}));
            made["run_id"].as_str().unwrap().to_owned()
        };
        [one(0.5), one(0.4)]
    };
    let runs = registered("small");
    let small = calls("small", "2");
    let file = Connection::open(registry.place.join("mlflow.db")).unwrap();
    file.busy_timeout(Duration::from_secs(20)).unwrap();
    fill(&file, [&runs[0], &runs[1]]);
    registered("small again");
    let again = calls("small again", "2");
    let large = calls("large", &LARGE.to_string());
    println!("calls and times of promote, promote, rollback, history: {small:?}");
    println!("beside {MODELS} models of {VERSIONS} versions: {again:?}; of {LARGE} versions: {large:?}");
    let only = |all: &[(usize, Duration); 4]| all.map(|(calls, _)| calls);
    assert_eq!(only(&small), only(&again));
    assert_eq!(only(&small), only(&large));
    assert!(only(&small).iter().all(|calls| *calls <= 17), "{small:?}");
    let staged: Vec<i64> = file
        .prepare("SELECT version FROM model_versions WHERE name = 'large' AND current_stage = 'Production'")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    assert_eq!(staged, [1]);
}

/// A name is data: in paths, filters, the lock's file, commands, and what is printed.
#[test]
fn a_model_may_have_any_name() {
    let registry = shared("2.9.2");
    for model in [
        "it's a \"model\" / über 模型 🧪",
        "' OR name != '",
        "a\" b",
        "50%25 + #1?&name=x;y",
        "../../etc/passwd",
        "$(touch \"$HOME/harm\") `touch harm`",
        "--yes",
    ] {
        let home = folder();
        let home = home.path();
        let named = format!("--model={model}");
        for metric in [0.5, 0.4] {
            registry.register(model, json!({"rmse": metric}));
        }
        let run = |code: i32, arguments: &[&str]| registry.json(home, code, &[arguments, &[&named]].concat());
        let check = "printf '%s' \"$MODEL_NAME\" > \"$HOME/seen\"";
        run(0, &["promote", "--version", "1", "--mode", "both", "--check", check]);
        assert_eq!(fs::read_to_string(home.join("seen")).unwrap(), model);
        let second = ["promote", "--latest", "--require", "rmse < champion", "--yes"];
        let people = registry.mlops(home, &[&second[..], &[&named]].concat()).expect(0).out;
        // The command that is told to go back can be pasted into a shell.
        let line = people.lines().find_map(|line| line.strip_prefix("Back: `mlops ")?.strip_suffix('`'));
        let back = line.unwrap_or_else(|| panic!("{people}"));
        let view = registry.view(model);
        assert_eq!((view.in_stage("Production"), view.under("champion")), ([2].into(), Some(2)), "{model}");
        let program = registry.program(home, &[]);
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(format!("\"$0\" {back} --yes")).arg(program.get_program()).env_clear();
        shell.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
        Said::of(shell.output().unwrap()).expect(0);
        let view = registry.view(model);
        assert_eq!((view.in_stage("Production"), view.under("champion")), ([1].into(), Some(1)), "{model}");
        let elsewhere = folder();
        let history: Value = registry.json(elsewhere.path(), 0, &["models", "history", "--", model]);
        let story = history["result"]["champions"].as_array().unwrap().iter().map(|c| c["version"].as_u64().unwrap());
        assert_eq!(story.collect::<Vec<_>>(), [1, 2, 1], "{model}");
        assert!(!home.join("harm").exists());
    }
    let home = folder();
    let said = registry.mlops(home.path(), &["promote", "--model", "a\" c"]).expect(6).err;
    assert!(said.contains("no model is called `a\\\" c`"), "{said}");
}
