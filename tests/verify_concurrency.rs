//! `mlops verify concurrency`: on a sound server nothing is found, on one that loses or doubles requests exactly those that
//! leave a trace.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mlops::domain::server::{Connection, ServerAddress};
use mlops::mlflow::{Bounds, Client};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::flows::Server;
use crate::promotions::shared;
use crate::support::relay::{Fate, Relay};
use crate::support::{Said, folder, mlops, postgres, wait_for};
use crate::verify_deployment::left;

fn command(home: &Path, url: &str, more: &[&str]) -> Command {
    let mut command = mlops(home);
    command.args(["verify", "concurrency", "--tracking-uri", url, "--output", "json", "--progress", "none"]).args(more);
    command
}

#[track_caller]
fn verified(home: &Path, url: &str, code: i32, more: &[&str]) -> Value {
    let document = Said::of(command(home, url, more).output().unwrap()).expect(code).json();
    assert_eq!(document["schema"], "mlops.verify.concurrency.v1");
    document["result"].clone()
}

#[track_caller]
fn all_is_there(result: &Value, writers: u64, runs: u64, metrics: u64) {
    assert_eq!((&result["verdict"], &result["findings"]), (&json!("passed"), &json!([])), "{result}");
    let counts = &result["counts"];
    // Where a hundred ask, a connection may be reset: what it carried is in doubt, and nothing is lost.
    let sure = writers < 100 || counts["errors"] == 0;
    for (name, wanted) in [
        ("writers", writers),
        ("acknowledged_runs", writers * runs),
        ("read_runs", writers * runs),
        ("acknowledged_points", writers * runs * metrics.div_ceil(2)),
        ("read_points", writers * runs * metrics),
        ("errors", 0),
    ] {
        assert!(!sure || counts[name] == wanted, "{name} is not {wanted}: {counts}");
    }
    let operations = result["figures"]["operations"].as_array().unwrap();
    let names: Vec<&str> = operations.iter().map(|o| o["operation"].as_str().unwrap()).collect();
    let all = ["create_run", "log_metric", "log_batch", "log_param", "set_tag", "search", "end_run", "all"];
    assert_eq!(names, all);
    for o in operations {
        let figure = |key: &str| o[key].as_f64().unwrap();
        let rising = [0.0, figure("p50_ms"), figure("p95_ms"), figure("p99_ms"), figure("max_ms")];
        assert!(rising.is_sorted() && figure("rate") > 0.0, "{o}");
    }
    // With the database's address all of it goes, although not one file was ever written.
    assert_eq!((&result["soft_deleted"], &result["unfinished"]), (&json!([]), &json!([])), "{result}");
}

fn sqlite(place: &Path) -> String {
    format!("sqlite:///{}", place.join("mlflow.db").display())
}

/// With MLflow's own pool of 5 + 10 connections its calls wait for each other as soon as 15 are under way (each holds one
/// and asks for a second), for 30 s and more.
const POOL: [&str; 4] =
    ["--env", "MLFLOW_SQLALCHEMYSTORE_POOL_SIZE=40", "--env", "MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW=45"];

#[test]
fn twenty_writers_on_sqlite_lose_nothing() {
    for release in ["2.9.2", "3.4.0", "3.17.2"] {
        let home = folder();
        let store = sqlite(home.path());
        let server = Server::start(release, &store, home.path(), &POOL);
        let more = ["--writers", "20", "--runs", "2", "--metrics", "21", "--backend-store-uri", &store];
        let result = verified(home.path(), &server.url, 0, &more);
        all_is_there(&result, 20, 2, 21);
        assert!(result["environment"]["watched"].as_str().unwrap().contains("SQLite"), "{result}");
        assert_eq!((left(&server.url).1, left(&server.url).2), (vec![], vec![]));
    }
}

fn on_postgresql(release: &str, version: u32, writers: u64) -> Value {
    let home = folder();
    let database = postgres(version).database(&format!("concurrency_{}_{writers}", release.replace('.', "_")));
    let server = Server::start(release, &database.sqlalchemy(), home.path(), &POOL);
    let allowed = if writers >= 100 { "5" } else { "0" };
    let (writers, store) = (writers.to_string(), database.url());
    let more = ["--runs", "2", "--metrics", "20", "--backend-store-uri", &store, "--max-errors", allowed];
    let result = verified(home.path(), &server.url, 0, &[&["--writers", &writers], &more[..]].concat());
    let watched = &result["figures"]["database"][0];
    let (peak, allowed) = (watched["peak_connections"].as_u64(), watched["allowed_connections"].as_u64());
    assert!(peak >= Some(2) && peak <= allowed, "{watched}");
    result
}

#[test]
fn twenty_and_a_hundred_writers_on_postgresql_lose_nothing() {
    for (release, version, writers) in [("2.9.2", 15, 20), ("3.4.0", 15, 20), ("3.17.2", 18, 20), ("3.17.2", 18, 100)] {
        all_is_there(&on_postgresql(release, version, writers), writers, 2, 20);
    }
}

/// An answer that nothing stands behind.
const LIE: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}";

/// What writers write.
const WRITES: [&str; 6] =
    ["runs/create", "runs/log-metric", "runs/log-batch", "runs/log-parameter", "runs/set-tag", "runs/update"];

/// What the relay did to a request: `doubled`, `lost`, `swallowed`, `lie`.
type Log = Arc<Mutex<Vec<(&'static str, &'static str, Value)>>>;

/// Every so many-th write meets the next of these fates; those that did are told.
fn strike(relay: &Relay, every: usize, fates: &'static [(&'static str, Fate)]) -> Log {
    let log = Log::default();
    let (told, mut count) = (log.clone(), 0);
    relay.judge_whole(move |head, body| {
        let line = head.lines().next().unwrap_or_default();
        let Some(route) = WRITES.iter().find(|route| line.contains(&format!("/mlflow/{route} "))) else {
            return Fate::Through;
        };
        count += 1;
        if count % every != 0 {
            return Fate::Through;
        }
        let (name, fate) = fates[(count / every) % fates.len()];
        told.lock().unwrap().push((name, route, serde_json::from_slice(body).unwrap()));
        fate
    });
    log
}

/// The author whose point this value is.
fn author(value: f64) -> String {
    let run = (value as u64) / 2 / 100_000;
    format!("writer-{:03}-run-{:05}", run / 100_000, run % 100_000)
}

/// What the log says that a store must have, or not have: fault and thing.
fn expected(log: &Log, name_of: impl Fn(&str) -> String) -> BTreeSet<(String, String)> {
    let mut wanted = BTreeSet::new();
    for (fate, route, body) in log.lock().unwrap().iter() {
        let text = |key: &str| body[key].as_str().unwrap().to_owned();
        let fault = match (*fate, *route) {
            ("doubled", "runs/create") => Some(("doubled_run", text("run_name"))),
            ("lie", "runs/log-metric") => {
                let of = author(body["value"].as_f64().unwrap());
                Some(("lost_point", format!("{of}: single step {}", body["step"])))
            }
            ("lie", "runs/log-batch") => {
                let of = author(body["metrics"][0]["value"].as_f64().unwrap());
                let batch = body["params"][0]["key"].as_str().unwrap().replace('-', " ");
                Some(("lost_batch", format!("{of}: {batch}")))
            }
            ("lie", "runs/log-parameter") => Some(("lost_param", format!("{}: param alone", &text("value")[..20]))),
            ("lie", "runs/set-tag") => Some(("lost_tag", format!("{}: tag mlops.verify.alone", &text("value")[..20]))),
            ("lie", "runs/update") => Some(("lost_update", format!("{}: its end", name_of(&text("run_id"))))),
            // Of all else MLflow's store keeps no trace: a point, a param and a tag that come twice are the same; what was
            // lost without an answer was never acknowledged.
            _ => None,
        };
        wanted.extend(fault.map(|(fault, on)| (fault.to_owned(), on)));
    }
    wanted
}

fn names(url: &str) -> impl Fn(&str) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let bounds = Bounds { connect: Duration::from_secs(5), call: Duration::from_secs(60) };
    let client = Client::new(&Connection::to(ServerAddress::parse(url).unwrap()), bounds).unwrap();
    move |id: &str| runtime.block_on(client.run(id)).unwrap().unwrap().name
}

fn found(result: &Value) -> BTreeSet<(String, String)> {
    let text = |f: &Value, key: &str| f[key].as_str().unwrap().to_owned();
    let all = result["findings"].as_array().unwrap().iter();
    all.filter(|f| f["id"] != "errors").map(|f| (text(f, "id"), text(f, "object"))).collect()
}

#[track_caller]
fn exactly_what_the_relay_did_is_found(
    release: &str,
    every: usize,
    fates: &'static [(&'static str, Fate)],
    more: &[&str],
) -> usize {
    let home = folder();
    let server = Server::start(release, &sqlite(home.path()), home.path(), &[]);
    let relay = Relay::before(server.url.rsplit(':').next().unwrap().parse().unwrap());
    let log = strike(&relay, every, fates);
    let url = format!("http://127.0.0.1:{}", relay.port);
    let document = Said::of(command(home.path(), &url, &[more, &["--keep"]].concat()).output().unwrap()).json();
    let result = &document["result"];
    let wanted = expected(&log, names(&server.url));
    assert_eq!(found(result), wanted, "{log:?}");
    let log = log.lock().unwrap();
    let struck = log.len();
    let failed = log.iter().filter(|(fate, route, _)| match *fate {
        "lost" | "swallowed" => true,
        // A run without an id is no run.
        "lie" => *route == "runs/create",
        _ => false,
    });
    assert_eq!(result["counts"]["errors"], failed.count() as u64, "{result}");
    let bad = !wanted.is_empty() || result["counts"]["errors"] != 0;
    assert_eq!(document["exit"], if bad { 5 } else { 0 });
    struck
}

const ALL: &[(&str, Fate)] = &[
    ("doubled", Fate::Doubled),
    ("lost", Fate::Lost),
    ("swallowed", Fate::Swallowed),
    ("lie", Fate::Instead(LIE)),
    ("lie", Fate::Instead(LIE)),
];

#[test]
fn what_a_proxy_drops_doubles_and_lies_about_is_found_and_nothing_else() {
    for (release, every) in [("2.9.2", 13), ("3.17.2", 7)] {
        let more = ["--writers", "8", "--runs", "4", "--metrics", "20"];
        let struck = exactly_what_the_relay_did_is_found(release, every, ALL, &more);
        assert!(struck >= 30, "{struck}");
    }
}

#[test]
fn one_request_in_two_hundred_is_found() {
    let more = ["--writers", "20", "--runs", "5", "--metrics", "60"];
    let struck = exactly_what_the_relay_did_is_found("3.4.0", 200, ALL, &more);
    assert!(struck >= 15, "{struck}");
}

#[test]
fn every_run_that_is_made_twice_is_found() {
    const TWICE: &[(&str, Fate)] = &[("doubled", Fate::Doubled)];
    let more = ["--writers", "4", "--runs", "3", "--metrics", "4"];
    exactly_what_the_relay_did_is_found("3.4.0", 1, TWICE, &more);
}

/// A batch whose answer did not come, and that arrives while it is read back: params and tags are read by then, points are
/// not.
#[test]
fn a_batch_that_comes_late_is_not_called_torn() {
    let home = folder();
    let server = Server::start("3.4.0", &sqlite(home.path()), home.path(), &[]);
    let relay = Relay::before(server.url.rsplit(':').next().unwrap().parse().unwrap());
    let mut held = false;
    relay.judge(move |head| {
        let line = head.lines().next().unwrap_or_default();
        if line.contains("runs/log-batch") && !held {
            held = true;
            return Fate::Held;
        }
        let history = line.contains("metrics/get-history") && line.contains("metric_key=batched");
        if history { Fate::Last } else { Fate::Through }
    });
    let url = format!("http://127.0.0.1:{}", relay.port);
    let more = ["--writers", "1", "--runs", "1", "--metrics", "20", "--max-errors", "1"];
    let result = verified(home.path(), &url, 0, &more);
    let counts = &result["counts"];
    for (name, wanted) in [("errors", 1), ("doubtful_batches", 1), ("read_points", 20)] {
        assert_eq!(counts[name], wanted, "{name}: {result}");
    }
    // It was seen in part: then all of it was asked for again.
    let asked = |call: &str| relay.asked().iter().filter(|line| line.contains(call)).count();
    assert_eq!((asked("runs/get?"), asked("metric_key=batched")), (1, 2), "{:?}", relay.asked());
}

/// What is known is told although the check was interrupted.
#[test]
fn an_interrupted_run_tells_what_it_did() {
    let home = folder();
    let server = Server::start("3.4.0", &sqlite(home.path()), home.path(), &[]);
    let relay = Relay::before(server.url.rsplit(':').next().unwrap().parse().unwrap());
    relay.judge(|head| if head.contains("runs/log-batch") { Fate::Silent } else { Fate::Through });
    let (url, page) = (format!("http://127.0.0.1:{}", relay.port), home.path().join("page.md"));
    let more = ["--writers", "2", "--report", page.to_str().unwrap()];
    let run = command(home.path(), &url, &more).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for("the batch", Duration::from_secs(60), || {
        relay.asked().iter().any(|line| line.contains("runs/log-batch")).then_some(())
    });
    kill_process(Pid::from_child(&run), Signal::INT).unwrap();
    let document = Said::of(run.wait_with_output().unwrap()).expect(130).json();
    let result = &document["result"];
    assert_eq!(
        (&document["error"]["kind"], &result["verdict"]),
        (&json!("interrupted"), &json!("cut_short")),
        "{document}"
    );
    let verdicts: Vec<&Value> = result["steps"].as_array().unwrap().iter().map(|step| &step["verdict"]).collect();
    assert_eq!(verdicts, [&json!("passed"), &json!("unknown")], "{result}");
    assert_eq!((result["soft_deleted"].as_array().unwrap().len(), &result["unfinished"]), (3, &json!([])), "{result}");
    let text = fs::read_to_string(&page).unwrap();
    assert!(
        text.contains("**Not verified:**") && text.contains("interrupted") && text.contains("writer-001"),
        "{text}"
    );
    assert_eq!(left(&server.url).1, Vec::<String>::new());
}

#[test]
fn limits_and_a_baseline_are_held_against_it() {
    let home = folder();
    let url = &shared("3.17.2").server.url;
    let file = home.path().join("earlier.json");
    let said = Said::of(command(home.path(), url, &with(&[])).output().unwrap()).expect(0);
    fs::write(&file, &said.out).unwrap();
    fn with<'a>(more: &[&'a str]) -> Vec<&'a str> {
        [&["--writers", "3", "--runs", "1", "--metrics", "4"][..], more].concat()
    }
    let kinds = |result: &Value| {
        let all = result["findings"].as_array().unwrap().iter();
        all.map(|f| f["id"].as_str().unwrap().to_owned()).collect::<BTreeSet<String>>()
    };
    let slow = verified(home.path(), url, 5, &with(&["--max-p95", "1us", "--min-rate", "1000000"]));
    assert_eq!(kinds(&slow), ["low_rate", "slow_operation"].map(str::to_owned).into());
    assert_eq!(
        (&slow["steps"][1]["name"], &slow["steps"][1]["verdict"]),
        (&json!("write"), &json!("failed")),
        "{slow}"
    );
    let baseline = ["--baseline", file.to_str().unwrap(), "--worse-than", "1000"];
    let same = verified(home.path(), url, 0, &with(&baseline));
    assert!(same["figures"]["operations"][0]["times_slower"].as_f64().unwrap() > 0.0, "{same}");
    // As if it had been a thousand times faster then.
    let mut earlier: Value = serde_json::from_str(&said.out).unwrap();
    for operation in earlier["result"]["figures"]["operations"].as_array_mut().unwrap() {
        for (key, times) in [("p95_ms", 1e-4), ("rate", 1e4)] {
            operation[key] = (operation[key].as_f64().unwrap() * times).into();
        }
    }
    fs::write(&file, earlier.to_string()).unwrap();
    let worse = verified(home.path(), url, 5, &with(&baseline));
    assert_eq!(kinds(&worse), ["slower_than_baseline".to_owned()].into());
    assert_eq!(worse["findings"].as_array().unwrap().len(), 8, "{worse}");
    // The file's limits hold where no flag says otherwise.
    let config = home.path().join("c.toml");
    fs::write(&config, "[verify.concurrency]\nmin_rate = 1000000\n").unwrap();
    let configured = ["--config", config.to_str().unwrap()];
    assert_eq!(kinds(&verified(home.path(), url, 5, &with(&configured))), ["low_rate".to_owned()].into());
    verified(home.path(), url, 0, &with(&[&configured[..], &["--min-rate", "0"]].concat()));
    let refused = |more: &[&str]| Said::of(command(home.path(), url, more).output().unwrap()).expect(2);
    refused(&["--writers", "0"]);
    refused(&with(&["--baseline", config.to_str().unwrap()]));
    refused(&["--writers", "1000", "--runs", "100000", "--metrics", "100000"]);
    refused(&["--writers", "1000", "--runs", "100000", "--metrics", "2"]);
    // More writers wait longer.
    for (flag, other) in
        [("writers", ["--writers", "8", "--metrics", "4"]), ("metrics", ["--writers", "3", "--metrics", "8"])]
    {
        let said = refused(&[&other[..], &baseline].concat());
        assert!(said.json()["error"]["message"].as_str().unwrap().contains(&format!("had --{flag}")), "{}", said.out);
    }
}

#[test]
fn a_time_is_kept_and_a_server_that_dies_is_told() {
    let home = folder();
    let server = Server::start("3.4.0", &sqlite(home.path()), home.path(), &[]);
    let result = verified(home.path(), &server.url, 0, &["--writers", "2", "--metrics", "10", "--duration", "3s"]);
    assert!(result["counts"]["acknowledged_runs"].as_u64().unwrap() >= 2, "{result}");
    let port = server.url.rsplit(':').next().unwrap().parse().unwrap();
    let relay = Relay::before(port);
    let mut ended = 0;
    relay.judge(move |head| {
        ended += u32::from(head.contains("runs/update"));
        if ended > 3 { Fate::Lost } else { Fate::Through }
    });
    let url = format!("http://127.0.0.1:{}", relay.port);
    let said =
        Said::of(command(home.path(), &url, &["--writers", "2", "--runs", "4", "--metrics", "4"]).output().unwrap());
    let result = said.json()["result"].clone();
    assert_eq!(result["verdict"], "failed", "{result}");
    assert!(result["away"].is_string() && result["unfinished"].as_array().unwrap().len() == 3, "{result}");
    // What could not be removed is removed by the next.
    let said = Said::of(command(home.path(), &url, &["--writers", "1"]).output().unwrap()).expect(8);
    assert!(said.out.contains("unreachable"), "{}", said.out);
    relay.judge(|_| Fate::Through);
    let said = Said::of(command(home.path(), &url, &["--writers", "1", "--runs", "1"]).output().unwrap()).expect(0);
    assert!(said.json()["warnings"].to_string().contains("is removed"), "{}", said.out);
    assert_eq!(left(&server.url).1, Vec::<String>::new());
}
