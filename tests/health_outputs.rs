//! What `mlops health` remembers from run to run, and whom it tells: monitors, files, a dead man's switch, a chat.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use mlops::domain::health::Status;
use serde_json::{Value, json};

use crate::health::{Look, TIMEOUT, look, tells_no_secret};
use crate::health_report::{parse, prometheus_reads};
use crate::support::listener::{Answer, Asked, Listener};
use crate::support::secrets::SECRET;
use crate::support::{Said, folder, mlops, run, sample, wait_for};

/// A small stack, a SQLite file and a folder of artifacts, and a probe that a test turns on and off.
struct Small {
    home: tempfile::TempDir,
    switch: PathBuf,
    known: Vec<String>,
}

impl Small {
    fn new(more: &str) -> Small {
        let home = folder();
        let path = |name: &str| home.path().join(name);
        fs::create_dir(path("artifacts")).unwrap();
        fs::write(path("artifacts/model"), [7; 5_000]).unwrap();
        let switch = path("switch");
        let text = format!(
            "[[probe]]\nname = \"switch\"\ncommand = \"cat '{}'\"\nexpect = [\"switch > 0\"]\n{more}\n",
            switch.display()
        );
        fs::write(path("mlops.toml"), text).unwrap();
        let known = ["--config", "mlops.toml", "--artifact-root", "artifacts", "--state-dir", "state"];
        let known = known.chunks(2).flat_map(|c| [c[0].to_owned(), path(c[1]).display().to_string()]);
        let store = ["--backend-store-uri".to_owned(), sample(2_000).display().to_string()];
        let known = known.chain(store).chain(["--skip".to_owned(), "database.path".to_owned()]).collect();
        let small = Small { home, switch, known };
        small.turn(true);
        small
    }

    fn turn(&self, on: bool) {
        fs::write(&self.switch, if on { "1" } else { "0" }).unwrap();
    }

    fn path(&self, name: &str) -> String {
        self.home.path().join(name).display().to_string()
    }

    fn look(&self, more: &[&str]) -> Look {
        let arguments: Vec<&str> = self.known.iter().map(String::as_str).chain(more.iter().copied()).collect();
        look(self.home.path(), TIMEOUT, &arguments, &[])
    }

    fn json(&self) -> Look {
        self.look(&["--output", "json"])
    }
}

const BROKEN: &[(&str, &str)] = &[("probe.switch", "critical")];

#[test]
fn failures_in_a_row_count_over_runs() {
    let small = Small::new("after = 3");
    small.json().well();
    small.turn(false);
    for times in [1, 2] {
        let held = small.json().well().check("probe.switch");
        assert_eq!(held["held"], json!({"failures": times, "of": 3}), "{held:#}");
    }
    let first = small.json().turned(BROKEN, &[]).check("probe.switch")["since"].clone();
    // A time is told by the second.
    let begun: Timestamp = first.as_str().unwrap().parse().unwrap();
    let past = || (Timestamp::now().duration_since(begun) > SignedDuration::from_secs(1)).then_some(());
    wait_for("another second", Duration::from_secs(5), past);
    assert_eq!(small.json().turned(BROKEN, &[]).check("probe.switch")["since"], first, "since the first failure");
    small.turn(true);
    let well = small.json().well().check("probe.switch");
    assert_ne!(well["since"], first, "well since now");
    small.turn(false);
    small.json().well();
    // The choice of checks does not matter to the memory of one.
    let alone = small.look(&["--output", "json", "--only", "probe.*"]).well();
    assert_eq!(alone.check("probe.switch")["held"]["failures"], 2);
}

/// The one memory of the state folder.
fn memory(small: &Small) -> PathBuf {
    let files = fs::read_dir(small.path("state/health")).unwrap().map(|e| e.unwrap().path());
    let mut files = files.filter(|p| p.extension().is_some_and(|e| e == "json"));
    let file = files.next().unwrap();
    assert_eq!(files.next(), None);
    file
}

#[test]
fn growth_is_held_against_a_limit() {
    let small =
        Small::new("[health.artifacts.growth]\nwarning = \"1 kB\"\n[health.database.growth]\ncritical = \"1 GB\"");
    let first = small.json().well().check("artifacts.growth");
    assert!(first["value"].is_null() && first["summary"].as_str().unwrap().contains("first"), "{first:#}");
    let file = memory(&small);
    let mut kept: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let samples = kept["numbers"]["artifacts.size"].as_array_mut().unwrap();
    assert_eq!(samples.len(), 1);
    let then = Timestamp::now() - SignedDuration::from_hours(40 * 24);
    samples.insert(0, json!([then.to_string(), 1_000.0]));
    fs::write(&file, kept.to_string()).unwrap();
    let grown = small.json().turned(&[("artifacts.growth", "warning")], &[]).check("artifacts.growth");
    assert_eq!((grown["value"].as_f64(), grown["unit"].as_str()), (Some(4_000.0), Some("bytes")), "{grown:#}");
    assert!(grown["summary"].as_str().unwrap().contains("40 days"), "{grown:#}");

    // A memory that is damaged is told, and judged without.
    fs::write(&file, "{").unwrap();
    let seen = small.json().well();
    assert!(seen.said.json()["warnings"].to_string().contains("is damaged"), "{}", seen.said.out);
    assert_eq!(fs::read_to_string(&file).unwrap(), "{", "it is left for a look");
}

#[test]
fn a_state_folder_that_is_none_is_a_warning() {
    let small = Small::new("after = 2");
    fs::write(small.path("state"), "").unwrap();
    let seen = small.json().well();
    assert!(seen.said.json()["warnings"].to_string().contains("no history is kept"), "{}", seen.said.out);
    let people = small.look(&[]);
    assert_eq!(people.said.code, 0, "{}{}", people.said.out, people.said.err);
    assert!(people.said.err.contains("no history is kept"), "{}", people.said.err);
}

#[test]
fn quiet_is_silent_as_long_as_all_is_well() {
    let small = Small::new("");
    let incident = small.path("incident.md");
    let arguments = ["--quiet", "--incident", &incident];
    let seen = small.look(&arguments);
    assert_eq!((seen.said.code, seen.said.out.as_str(), seen.said.err.as_str()), (0, "", ""));
    assert!(!fs::exists(&incident).unwrap());
    small.turn(false);
    let seen = small.look(&arguments);
    assert_eq!((seen.said.code, seen.said.err.as_str()), (2, ""));
    assert!(seen.said.out.contains("CRITICAL") && seen.said.out.contains("probe.switch"), "{}", seen.said.out);
    let text = fs::read_to_string(&incident).unwrap();
    assert!(text.starts_with("# MLflow CRITICAL") && text.contains("## Now: critical"), "{text}");
    small.turn(true);
    assert_eq!(small.look(&arguments).said.out, "");
    assert_eq!(fs::read_to_string(&incident).unwrap(), text, "it is what one needs afterwards");
    // A file that cannot be written is told, also where all is well: a monitor would read the old one.
    let seen = small.look(&["--textfile", &small.path("none/mlops.prom")]);
    assert_eq!(seen.said.code, 3, "{}", seen.said.out);
    assert!(seen.said.err.contains("none cannot be written to"), "{}", seen.said.err);
}

#[test]
fn monitors_read_it() {
    let small = Small::new("");
    let nagios = |status: Status| {
        let seen = small.look(&["--output", "nagios"]);
        assert_eq!((i32::from(mlops::report::health::code(status)), seen.said.err.as_str()), (seen.said.code, ""));
        parse(&seen.said.out, status)
    };
    let (_, data) = nagios(Status::Ok);
    assert!(data.len() > 3);
    let file = small.path("mlops.prom");
    let prometheus = || {
        let seen = small.look(&["--output", "prometheus", "--textfile", &file]);
        assert_eq!(fs::read_to_string(&file).unwrap(), seen.said.out);
        let mut read = prometheus_reads(std::slice::from_ref(&seen.said.out));
        read.remove(0)
    };
    let well = prometheus();
    small.turn(false);
    let (text, _) = nagios(Status::Critical);
    assert!(text.contains("probe.switch"), "{text}");
    let broken = prometheus();
    assert!(well.len() > 10 && well != broken);
    // What keeps the checks from being made is unknown, in their own form.
    fs::write(small.path("mlops.toml"), "[health.server.live]\nwarning = \"soon\"\n").unwrap();
    let seen = small.look(&["--output", "nagios"]);
    assert_eq!(seen.said.code, 3);
    parse(&seen.said.out, Status::Unknown);
    fs::write(small.path("mlops.toml"), "no toml").unwrap();
    let seen = small.look(&["--output", "nagios"]);
    assert_eq!(seen.said.code, 3);
    parse(&seen.said.out, Status::Unknown);
}

#[test]
fn a_gate_has_two_codes() {
    let small = Small::new("level = \"warning\"");
    let code = |on: bool, fail_on: &str| {
        small.turn(on);
        small.look(&["--fail-on", fail_on]).said.code
    };
    assert_eq!([code(true, "critical"), code(false, "critical"), code(false, "warning")], [0, 0, 1]);
    fs::remove_file(&small.switch).unwrap();
    let text = fs::read_to_string(small.path("mlops.toml")).unwrap().replace("\"warning\"", "\"critical\"");
    fs::write(small.path("mlops.toml"), text).unwrap();
    assert_eq!([code(true, "critical"), code(false, "critical")], [0, 1]);
    assert_eq!(small.look(&["--fail-on", "critical", "--timeout", "soon"]).said.code, 1);
}

fn lines(asked: &[Asked]) -> Vec<(String, String)> {
    let line = |a: &Asked| a.line.strip_prefix("POST /").and_then(|l| l.strip_suffix(" HTTP/1.1")).unwrap().to_owned();
    asked.iter().map(|a| line(a).split_once("?rid=").map(|(p, r)| (p.to_owned(), r.to_owned())).unwrap()).collect()
}

#[test]
fn a_dead_mans_switch_is_told_each_time() {
    let small = Small::new("");
    let listener = Listener::new(&[Answer::Says(200, "OK")]);
    let url = format!("http://127.0.0.1:{}/{SECRET}", listener.port);
    assert_eq!(small.look(&["--ping", &url, "--quiet"]).said.out, "");
    small.turn(false);
    assert_eq!(small.look(&["--ping", &url]).said.code, 2);
    let asked = listener.asked();
    let told = lines(&asked);
    let paths: Vec<&str> = told.iter().map(|(path, _)| path.strip_prefix(SECRET).unwrap()).collect();
    assert_eq!(paths, ["/start", "", "/start", "/fail"]);
    assert!(told[0].1 == told[1].1 && told[2].1 == told[3].1 && told[1].1 != told[2].1, "{told:?}");
    assert!(asked[1].body.contains("OK") && asked[3].body.contains("probe.switch"), "{asked:?}");

    // Nobody listens: a warning, without the address, and the verdict is that of the stack.
    small.turn(true);
    let seen = small.look(&["--ping", &format!("http://127.0.0.1:1/{SECRET}")]);
    assert_eq!(seen.said.code, 0, "{}", seen.said.err);
    assert!(seen.said.err.contains("ping"), "{}", seen.said.err);
    assert_eq!(small.look(&["--ping", "nowhere"]).said.code, 3);
    tells_no_secret(small.home.path());
}

#[test]
fn a_chat_is_told_of_changes_alone() {
    let small = Small::new("");
    let listener = Listener::new(&[Answer::Says(200, "ok")]);
    let url = format!("http://127.0.0.1:{}/{SECRET}", listener.port);
    let mut told = Vec::new();
    for on in [true, false, false, true] {
        small.turn(on);
        small.look(&["--notify", &url]);
        told.push(listener.asked().len());
    }
    assert_eq!(told, [0, 1, 1, 2]);
    let texts: Vec<String> = listener
        .asked()
        .iter()
        .map(|a| serde_json::from_str::<Value>(&a.body).unwrap()["text"].as_str().unwrap().to_owned())
        .collect();
    assert!(texts[0].contains("CRITICAL") && texts[0].contains("probe.switch"), "{}", texts[0]);
    assert!(texts[1].contains("CRITICAL → OK"), "{}", texts[1]);

    // What did not arrive is told by the next run.
    small.turn(false);
    let seen = small.look(&["--notify", &format!("http://127.0.0.1:1/{SECRET}")]);
    assert!(seen.said.err.contains("127.0.0.1"), "{}", seen.said.err);
    small.look(&["--notify", &url]);
    assert_eq!(listener.asked().len(), 3);
}

#[test]
fn wrong_arguments_have_the_codes_of_monitors() {
    let home = folder();
    let file = sample(2_000).display().to_string();
    for (words, code) in [
        (&["health", "--nonsense"][..], 3),
        (&["health", "--timeout", "soon"], 3),
        (&["health", "--timeout", "0s"], 3),
        (&["health", "--every", "5s"], 3),
        (&["health", "--for", "5s", "--every", "soon"], 3),
        (&["health", "--only", "nosuch", "--backend-store-uri", &file], 3),
        (&["health", "--skip", "*", "--backend-store-uri", &file], 3),
        (&["health", "--ping", "ftp://host/x", "--backend-store-uri", &file], 3),
        (&["health", "--fail-on", "critical", "--nonsense"], 1),
        (&["db", "info", &file, "--output", "nagios"], 2),
        (&["db", "info", &file, "--output", "prometheus"], 2),
    ] {
        let said = run(home.path(), words).expect(code);
        assert!(said.out.is_empty() && !said.err.is_empty(), "{words:?}: {}{}", said.out, said.err);
    }
    let said = run(home.path(), &["health"]).expect(3);
    assert!(said.err.contains("--tracking-uri") && said.err.contains("MLFLOW_TRACKING_URI"), "{}", said.err);
    let said = run(home.path(), &["health", "--output", "nagios"]).expect(3);
    parse(&said.out, Status::Unknown);
    let said = run(home.path(), &["health", "--output", "nagios", "--timeout", "soon"]).expect(3);
    parse(&said.out, Status::Unknown);
    assert_eq!(run(home.path(), &["health", "--output", "json"]).expect(3).json()["exit"], 3);
}

#[test]
fn a_dry_run_lists_checks_and_asks_nothing() {
    let small = Small::new("");
    let listener = Listener::new(&[Answer::Says(200, "OK")]);
    let url = format!("http://127.0.0.1:{}", listener.port);
    let ping = format!("{url}/{SECRET}");
    fs::remove_file(&small.switch).unwrap();
    let more = ["--dry-run", "--tracking-uri", &url, "--ping", &ping, "--notify", &ping];
    let text = small.look(&more).said.expect(0).out;
    for id in ["server.ready", "database.connect", "artifacts.root", "probe.switch", "security.passwords"] {
        assert!(text.contains(id), "{id}: {text}");
    }
    assert!(!text.contains("server.write") && !text.contains("database.path"), "{text}");
    let deep = small.look(&[&more[..], &["--deep", "--only", "server.write", "--output", "json"]].concat());
    let checks = deep.result()["checks"].as_array().unwrap().clone();
    let asked: Vec<&str> = checks.iter().filter(|c| c["needed"] == false).map(|c| c["id"].as_str().unwrap()).collect();
    assert_eq!(asked, ["server.write"]);
    assert!(checks.iter().any(|c| c["id"] == "server.ready" && c["needed"] == true), "{checks:#?}");
    assert!(listener.asked().is_empty() && !fs::exists(small.path("state")).unwrap());
}

#[test]
fn an_interrupt_ends_a_look_that_hangs() {
    let home = folder();
    for sign in ["INT", "TERM"] {
        let listener = Listener::new(&[Answer::Hangs]);
        let url = format!("http://127.0.0.1:{}", listener.port);
        let mut command = mlops(home.path());
        command.args(["health", "--tracking-uri", &url, "--timeout", "60s"]);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        wait_for("a question", Duration::from_secs(20), || (!listener.asked().is_empty()).then_some(()));
        let begun = Instant::now();
        let sent = Command::new("kill").args([&format!("-{sign}"), &child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        let said = Said::of(child.wait_with_output().unwrap()).expect(if sign == "INT" { 130 } else { 143 });
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
        assert!(said.err.contains("interrupted") && said.out.is_empty(), "{}{}", said.out, said.err);
    }
}
