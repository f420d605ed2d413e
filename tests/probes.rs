//! Probes against real services: what breaks turns its own check and those that speak of it, and nothing waits for ever.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use mlops::config::environment::Environment;
use mlops::config::{Flags, Settings};
use mlops::domain::address::StoreAddress;
use mlops::domain::health::memory::Memory;
use mlops::domain::health::settings::HealthSettings;
use mlops::domain::health::{Reading, Status, Unit, follow_dependencies};
use mlops::domain::server::{Connection, ServerAddress};
use mlops::engine::cancel::Cancel;
use mlops::health::plan::{self, Choice, Known};
use mlops::health::{self, Look, Places, Stack};

use crate::support::{folder, postgres, wait_for};

/// Readings by id.
pub(crate) type Told = BTreeMap<String, Reading>;

/// What a configuration's text asks for.
pub(crate) fn configured(place: &Path, text: &str) -> HealthSettings {
    let file = place.join("config.toml");
    fs::write(&file, text).unwrap();
    let flags = Flags { file: Some(file), ..Flags::default() };
    Settings::resolve(&flags, Environment::of(&[])).and_then(|s| s.health()).unwrap_or_else(|f| panic!("{f:?}"))
}

/// A stack with these checks, to be changed and looked at.
pub(crate) fn stack(settings: HealthSettings, server: Option<&str>, only: &[&str], within: Duration) -> Stack {
    let choice = Choice { only: only.iter().map(|o| (*o).to_owned()).collect(), ..Choice::default() };
    let known = Known {
        database: None,
        server: server.map(|_| false),
        artifacts: false,
        folder: false,
        reached: false,
        backups: false,
    };
    let planned = plan::checks(&known, &settings, &choice).unwrap();
    let server = server.map(|url| Connection::to(ServerAddress::parse(url).unwrap()));
    let look = Look {
        settings,
        planned,
        deep: false,
        now: Timestamp::now(),
        deadline: Instant::now() + within,
        memory: Memory::default(),
        work_dir: std::env::temp_dir(),
        id: "test".to_owned(),
        cancel: Cancel::new(),
    };
    Places { server, ..Places::default() }.stack(look).unwrap()
}

/// Looks, and judges what stands on what.
pub(crate) fn look(stack: Stack) -> Told {
    let needed: Vec<String> = stack.look.planned.iter().filter(|p| p.needed).map(|p| p.id.clone()).collect();
    let mut readings = health::examine(stack).unwrap().readings;
    follow_dependencies(&mut readings);
    readings.into_iter().filter(|r| !needed.contains(&r.id)).map(|r| (r.id.clone(), r)).collect()
}

#[track_caller]
fn statuses(told: &Told, wanted: &[(&str, Status)]) {
    let are: Vec<(&str, Status)> = told.iter().map(|(id, r)| (id.as_str(), r.status)).collect();
    assert_eq!(are, wanted, "{told:#?}");
}

#[track_caller]
fn says(told: &Told, id: &str, text: &str) {
    let reading = &told[id];
    let all = format!("{} {}", reading.summary, reading.evidence.join(" "));
    assert!(all.contains(text), "{reading:#?}");
}

/// A small web server: a path gives a status, a body, and a time that it takes. `/hang` says nothing.
fn web() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let mut head = String::new();
                while reader.read_line(&mut head).unwrap_or(0) > 2 {}
                let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
                let (status, body) = match path.as_str() {
                    "/energy" => {
                        ("200 OK", r#"{"data": {"energy": {"found": 34, "ok": true}, "odd key": [1, "7"]}}"#.to_owned())
                    }
                    "/weather" => ("200 OK", r#"{"found": 10}"#.to_owned()),
                    "/slow" => {
                        std::thread::sleep(Duration::from_millis(300));
                        ("200 OK", "{}".to_owned())
                    }
                    "/page" => ("200 OK", "<html>".to_owned()),
                    "/large" => ("200 OK", format!("\"{}\"", "x".repeat(5 << 20))),
                    "/moved" => ("302 Found\r\nLocation: /energy", String::new()),
                    "/hang" => loop {
                        std::thread::park();
                    },
                    _ => ("503 Service Unavailable", "down".to_owned()),
                };
                let mut stream = stream;
                let length = body.len();
                let _ =
                    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
            });
        }
    });
    url
}

#[test]
fn answers_over_http_are_held_against_what_is_expected() {
    let (place, url) = (folder(), web());
    let text = format!(
        r#"
        [[probe]]
        name = "energy"
        url = "{url}/energy"
        value = ".data.energy.found"
        expect = [".data.energy.found > 0", ".data.energy.ok == 1", '.data."odd key"[1] == 7']
        latency = {{ critical = "5s" }}
        [[probe]]
        name = "weather"
        url = "{url}/weather"
        value = ".found"
        alarm = ["weather < 0.5 * energy"]
        [[probe]]
        name = "calm"
        alarm = ["weather > energy"]
        [[probe]]
        name = "few"
        url = "{url}/weather"
        expect = [".found >= 11", ".missing > 0"]
        level = "warning"
        [[probe]]
        name = "slow"
        url = "{url}/slow"
        latency = {{ warning = "100 ms", critical = "20s" }}
        [[probe]]
        name = "down"
        url = "{url}/down"
        value = ".x"
        [[probe]]
        name = "known-down"
        url = "{url}/down"
        status = 503
        [[probe]]
        name = "against-down"
        expect = ["energy > down"]
        [[probe]]
        name = "page"
        url = "{url}/page"
        value = ".x"
        [[probe]]
        name = "large"
        url = "{url}/large"
        [[probe]]
        name = "moved"
        url = "{url}/moved"
        expect = [".data.energy.found == 34"]
        [[probe]]
        name = "stays"
        url = "{url}/moved"
        status = 302
        [[probe]]
        name = "by-zero"
        expect = ["energy / (weather - 10) > 1"]
        [[probe]]
        name = "hang"
        url = "{url}/hang"
        "#
    );
    let begun = Instant::now();
    let told = look(stack(configured(place.path(), &text), None, &[], Duration::from_secs(3)));
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
    use Status::{Critical, Ok, Unknown, Warning};
    statuses(
        &told,
        &[
            ("probe.against-down", Unknown),
            ("probe.by-zero", Unknown),
            ("probe.calm", Ok),
            ("probe.down", Critical),
            ("probe.energy", Ok),
            ("probe.few", Warning),
            ("probe.hang", Critical),
            ("probe.known-down", Ok),
            ("probe.large", Critical),
            ("probe.moved", Ok),
            ("probe.page", Critical),
            ("probe.slow", Warning),
            ("probe.stays", Ok),
            ("probe.weather", Critical),
        ],
    );
    assert_eq!(told["probe.against-down"].root(), Some("probe.down"));
    assert_eq!(told["probe.energy"].measure.map(|m| (m.value, m.unit)), Some((34.0, Unit::Number)));
    assert_eq!(told["probe.slow"].measure.map(|m| m.unit), Some(Unit::Seconds));
    says(&told, "probe.weather", "weather < 0.5 * energy (10 against 17)");
    says(&told, "probe.few", ".found >= 11 does not hold: 10 against 11");
    says(&told, "probe.few", ".missing is not in the answer");
    says(&told, "probe.down", "HTTP 503");
    says(&told, "probe.page", "no JSON");
    says(&told, "probe.large", "4 MiB");
    says(&told, "probe.hang", "no answer within");
    says(&told, "probe.by-zero", "is 0");
    let only = look(stack(configured(place.path(), &text), None, &["probe.weather"], Duration::from_secs(3)));
    statuses(&only, &[("probe.weather", Critical)]);
}

#[test]
fn ports_are_open_or_not() {
    let (place, url) = (folder(), web());
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let text = format!(
        "[[probe]]\nname = \"open\"\ntcp = \"{}\"\n[[probe]]\nname = \"shut\"\ntcp = \"{free}\"\n\
         [[probe]]\nname = \"nobody\"\nurl = \"http://ada:hunter2@{free}/\"\n",
        url.trim_start_matches("http://"),
    );
    let told = look(stack(configured(place.path(), &text), None, &[], Duration::from_secs(5)));
    use Status::{Critical, Ok};
    statuses(&told, &[("probe.nobody", Critical), ("probe.open", Ok), ("probe.shut", Critical)]);
    says(&told, "probe.nobody", "no answer");
    assert!(!format!("{told:?}").contains("hunter2"));
}

#[test]
fn commands_give_values_and_nothing_of_them_stays() {
    let place = folder();
    let child = place.path().join("child");
    let text = format!(
        r#"
        [[probe]]
        name = "restarts"
        command = "echo 3; echo more"
        expect = ["restarts < 5"]
        increase = {{ within = "24h", warning = 1, critical = 3 }}
        [[probe]]
        name = "text"
        command = "echo hello"
        [[probe]]
        name = "no-number"
        command = "echo hello"
        alarm = ["no-number > 1"]
        [[probe]]
        name = "fails"
        command = "echo first >&2; echo no such container >&2; exit 3"
        [[probe]]
        name = "hangs"
        command = "sleep 1000 & echo $! > {0}; wait"
        "#,
        child.display()
    );
    use Status::{Critical, Ok, Unknown, Warning};
    let settings = configured(place.path(), &text);
    let begun = Instant::now();
    let told = look(stack(settings.clone(), None, &[], Duration::from_secs(2)));
    assert!(begun.elapsed() < Duration::from_secs(5));
    let first = [
        ("probe.fails", Critical),
        ("probe.hangs", Critical),
        ("probe.no-number", Unknown),
        ("probe.restarts", Ok),
        ("probe.text", Ok),
    ];
    statuses(&told, &first);
    says(&told, "probe.fails", "exit code 3: no such container");
    says(&told, "probe.hangs", "no end within");
    says(&told, "probe.restarts", "no earlier run");
    says(&told, "probe.text", "hello");
    let pid = fs::read_to_string(&child).unwrap().trim().to_owned();
    wait_for("the end of what a command began", Duration::from_secs(5), || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        (stat.is_empty() || stat.contains(") Z ")).then_some(())
    });
    // Restarts are counted against what an earlier run saw; a smaller number than before began again at 0.
    for (before, wanted) in [(3.0, Ok), (2.0, Warning), (0.0, Critical), (9.0, Critical)] {
        let mut later = stack(settings.clone(), None, &["probe.restarts"], Duration::from_secs(5));
        let then = later.look.now.checked_sub(SignedDuration::from_hours(25)).unwrap();
        later.look.memory.record("probe.restarts", then, before);
        statuses(&look(later), &[("probe.restarts", wanted)]);
    }
}

#[test]
fn queries_give_values_and_change_nothing() {
    let place = folder();
    let database = postgres(15).database("probe_queries");
    database.execute("CREATE SEQUENCE counter; CREATE TABLE weather AS SELECT generate_series(1, 12) AS n");
    let mut text = String::new();
    for (name, query, more) in [
        ("rows", "SELECT count(*), 'x' FROM weather -- all of them", "expect = [\"rows == 12\"]"),
        ("share", "SELECT 0.25::numeric;", "expect = [\"share < 0.3\"]"),
        ("truth", "SELECT exists(SELECT FROM weather)", "expect = [\"truth == 1\"]"),
        ("cte", "WITH w AS (SELECT n FROM weather) SELECT n FROM w ORDER BY n DESC", "expect = [\"cte == 12\"]"),
        ("below", "SELECT 3", "expect = [\"below > rows\"]"),
        ("none", "SELECT n FROM weather WHERE n > 100", ""),
        ("wrong", "SELEC 1", ""),
        ("sleeps", "SELECT pg_sleep(100)", ""),
        ("writes", "WITH gone AS (DELETE FROM weather RETURNING n) SELECT count(*) FROM gone", ""),
        ("makes", "SELECT nextval('counter')", ""),
    ] {
        text.push_str(&format!("[[probe]]\nname = \"{name}\"\nquery = '''{query}'''\n{more}\n"));
    }
    text.push_str(
        "[[probe]]\nname = \"elsewhere\"\nquery = \"SELECT 1\"\ndatabase = \"postgresql://x@127.0.0.1:1/x\"\n",
    );
    let settings = configured(place.path(), &text);
    let mut asked = stack(settings.clone(), None, &[], Duration::from_secs(4));
    asked.database = Some(StoreAddress::Postgres(Box::new(database.address.clone())));
    let begun = Instant::now();
    let told = look(asked);
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    use Status::{Critical, Ok, Unknown};
    statuses(
        &told,
        &[
            ("probe.below", Critical),
            ("probe.cte", Ok),
            ("probe.elsewhere", Critical),
            ("probe.makes", Critical),
            ("probe.none", Critical),
            ("probe.rows", Ok),
            ("probe.share", Ok),
            ("probe.sleeps", Critical),
            ("probe.truth", Ok),
            ("probe.writes", Critical),
            ("probe.wrong", Critical),
        ],
    );
    assert_eq!(told["probe.rows"].measure.map(|m| m.value), Some(12.0));
    assert!(told["probe.rows"].needs.contains(&"database.connect".to_owned()));
    assert!(!told["probe.elsewhere"].needs.contains(&"database.connect".to_owned()));
    says(&told, "probe.none", "no row");
    says(&told, "probe.wrong", "syntax error");
    assert_eq!(database.number("SELECT count(*) FROM weather"), 12);
    // Nothing of it goes on in the server.
    wait_for("the end of the sleep", Duration::from_secs(10), || {
        let running = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(100)%' AND state = 'active' \
                       AND pid <> pg_backend_pid()";
        (database.number(running) == 0).then_some(())
    });
    let nowhere = look(stack(settings, None, &["probe.rows"], Duration::from_secs(4)));
    statuses(&nowhere, &[("probe.rows", Unknown)]);
}
