//! Many promote one model at once, with and without a client that takes no lock: one champion is left, and the history
//! is true.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use serde_json::{Value, json};

use crate::promotions::{Registry, numbers};
use crate::support::folder;

const PROCESSES: u64 = 8;
const VERSIONS: u64 = 8;

/// How a promotion ended.
struct Ended {
    code: i32,
    version: u64,
    /// Its document.
    said: Value,
}

impl Ended {
    fn word(&self) -> &str {
        self.said["result"]["ended"].as_str().unwrap_or("failed")
    }

    fn id(&self) -> Option<&str> {
        self.said["result"]["id"].as_str()
    }
}

/// So many processes at a time, each with a state folder of its own, promote so often each.
fn promoted_at_once(registry: &Registry, model: &str, each: u64) -> Vec<Ended> {
    let one = |process: u64| {
        let home = folder();
        let turn = |turn: u64| {
            // Never the same version twice in a row, and no two processes in step.
            let version = (process * 5 + turn * 3) % VERSIONS + 1;
            let number = version.to_string();
            let own =
                ["promote", "--model", model, "--version", &number, "--mode", "both", "--yes", "--output", "json"];
            let said = registry.mlops(home.path(), &[&own[..], &["--backend-store-uri", &registry.store]].concat());
            Ended { code: said.code, version, said: said.json() }
        };
        (0..each).map(turn).collect::<Vec<_>>()
    };
    std::thread::scope(|scope| {
        let begun: Vec<_> = (0..PROCESSES).map(|process| scope.spawn(move || one(process))).collect();
        begun.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}

/// That the client sees one champion, by both marks.
#[track_caller]
fn one_champion(registry: &Registry, model: &str) -> u64 {
    let view = registry.view(model);
    let champion = view.under("champion").unwrap();
    assert_eq!(view.in_stage("Production"), [champion].into(), "{view:?}");
    champion
}

/// What was promoted, by the id of its record, as a process that knows the tags alone tells it.
fn done(history: &Value) -> BTreeMap<String, Value> {
    let records = history["records"].as_array().unwrap().iter().filter(|r| r["state"] == "done");
    records.map(|r| (r["id"].as_str().unwrap().to_owned(), r.clone())).collect()
}

fn counted(all: &[Ended], seconds: f64) -> String {
    let mut ends: BTreeMap<(i32, &str), u32> = BTreeMap::new();
    all.iter().for_each(|one| *ends.entry((one.code, one.word())).or_default() += 1);
    format!("{} promotions by {PROCESSES} processes in {seconds:.1} s: {ends:?}", all.len())
}

fn raced(registry: &Registry, name: &str) {
    for _ in 0..VERSIONS {
        registry.register("race", json!({}));
    }
    let begun = Instant::now();
    let all = promoted_at_once(registry, "race", 25);
    println!("{name}: {}", counted(&all, begun.elapsed().as_secs_f64()));
    for one in &all {
        assert!([0, 10].contains(&one.code), "{}", one.said);
        let words = one.said["error"]["message"].as_str().unwrap_or_default();
        assert!(
            one.code == 0
                || words.contains("nothing was done")
                || words.contains("promotes race")
                || words.contains("another mlops works on"),
            "{}",
            one.said
        );
    }
    let champion = one_champion(registry, "race");
    let history = registry.history("race");
    let told = done(&history);
    let promoted: BTreeSet<&str> = all.iter().filter(|one| one.word() == "done").filter_map(Ended::id).collect();
    assert_eq!(
        told.keys().map(String::as_str).collect::<BTreeSet<_>>(),
        promoted,
        "who was promoted is told, nobody else"
    );
    assert!(promoted.len() >= 10, "so few say nothing: {}", promoted.len());
    for one in all.iter().filter(|one| one.word() == "done") {
        assert_eq!(told[one.id().unwrap()]["version"], one.version);
    }
    // Each one found the one before it, under both marks.
    let in_order: Vec<&Value> =
        history["records"].as_array().unwrap().iter().filter(|r| r["state"] == "done").collect();
    assert_eq!(in_order[0]["before"], json!({}), "{history}");
    for pair in in_order.windows(2) {
        let before = &pair[1]["before"];
        assert_eq!(
            (&before["staged"], &before["aliased"]),
            (&json!([pair[0]["version"]]), &pair[0]["version"]),
            "{pair:?}"
        );
    }
    assert_eq!(in_order.last().unwrap()["version"], champion);
    let open = history["records"].as_array().unwrap().iter().filter(|r| r["state"] == "begun").count();
    assert_eq!(open, 0, "nothing is left open");
    assert_eq!(history["champions"].as_array().unwrap().len(), in_order.len());
}

/// The same beside a client that takes no lock.
fn raced_beside(registry: &Registry, name: &str) {
    for _ in 0..VERSIONS {
        registry.register("storm", json!({}));
    }
    let versions: Vec<u64> = (1..=VERSIONS).collect();
    registry.told(&json!({"do": "storm", "model": "storm", "versions": versions, "pause": 0.05}));
    let begun = Instant::now();
    let all = promoted_at_once(registry, "storm", 5);
    let seconds = begun.elapsed().as_secs_f64();
    let storm = registry.told(&json!({"do": "calm", "model": "storm"}));
    println!("{name}, beside a client without a lock ({storm}): {}", counted(&all, seconds));
    assert!(storm["done"].as_u64() > Some(10), "{storm}");
    let mut seen = 0;
    for one in &all {
        assert!([0, 4, 10].contains(&one.code), "{}", one.said);
        let warnings = one.said["warnings"].to_string();
        let error = one.said["error"]["message"].as_str().unwrap_or_default();
        seen += usize::from(warnings.contains("another client") || error.contains("another client"));
        // What is not done is never said to be, and what is open is told.
        assert!(one.word() != "open" || (one.code == 4 && one.said["warnings"][0].is_string()), "{}", one.said);
    }
    println!("{name}: the other client's changes were seen {seen} times in the same moment");
    assert!(seen > 0 || all.iter().any(|one| one.code == 10), "a storm that nobody saw proves nothing");
    let told = done(&registry.history("storm"));
    for one in &all {
        match one.word() {
            "done" | "unrecorded" => assert!(told.contains_key(one.id().unwrap()), "{}", one.said),
            "open" => assert!(!told.contains_key(one.id().unwrap()), "{}", one.said),
            _ => {}
        }
    }
    let promoted = all.iter().filter(|one| ["done", "unrecorded"].contains(&one.word())).count();
    assert_eq!(told.len(), promoted, "nobody else is told to have been champion by mlops");

    let home = folder();
    let last = ["promote", "--model", "storm", "--version", "1", "--mode", "both", "--yes", "--backend-store-uri"];
    registry.json(home.path(), 0, &[&last[..], &[&registry.store]].concat());
    assert_eq!(one_champion(registry, "storm"), 1);
    let history = registry.history("storm");
    assert_eq!(history["records"].as_array().unwrap().iter().filter(|r| r["state"] == "begun").count(), 0, "{history}");
    let now: BTreeSet<u64> = history["champions"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|c| c["ended"] == false)
        .map(|c| c["version"].as_u64().unwrap())
        .collect();
    assert_eq!(now, numbers(&json!([1])));
}

#[test]
fn eight_processes_promote_200_times_on_sqlite() {
    let registry = Registry::new("2.9.2", None, &[]);
    raced(&registry, "SQLite");
    raced_beside(&registry, "SQLite");
}

#[test]
fn eight_processes_promote_200_times_on_postgresql() {
    let registry = Registry::new("3.4.0", Some((15, "promotion_races")), &[]);
    raced(&registry, "PostgreSQL");
    raced_beside(&registry, "PostgreSQL");
}
