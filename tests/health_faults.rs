//! `mlops health` on stacks that break for real: the check that it concerns turns, what stands on it is unknown, nothing
//! else changes, and the command ends in its time.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use mlops::store::postgres::private::PrivateCluster;

use crate::client::relay;
use crate::flows::{Server, upgrade};
use crate::health::{Stack, request};
use crate::health_database::scram_role;
use crate::support::proxy::Proxy;
use crate::support::secrets::SECRET;
use crate::support::{Database, Said, folder, mlops, programs, wait_for};

/// What stands on a search.
const ON_SEARCH: &[&str] = &[
    "server.search-latency",
    "server.history-latency",
    "artifacts.versions",
    "registry.versions",
    "activity.deleted",
    "security.secrets",
];
/// What is asked with a search, where it is not answered.
const BY_SEARCH: &[&str] = &["security.server", "security.admin"];
const ON_DATABASE: &[&str] = &[
    "database.revision",
    "database.schema",
    "database.size",
    "database.growth",
    "database.connections",
    "database.blocked",
    "database.longest-transaction",
    "database.statements",
    "database.timescaledb",
    "database.server",
    "server.ready",
];
/// What is asked of database and server together.
const OF_BOTH: &[&str] = &["database.server"];
const ON_LIVE: &[&str] = &["server.ready", "server.version", "server.clock"];
/// For a question that is not answered.
const SHORT: u64 = 6;

/// Waits until the server answers a search again.
fn answers(url: &str) {
    wait_for("a search", Duration::from_secs(60), || {
        let body = r#"{"max_results": 1}"#;
        (request("POST", url, "/api/2.0/mlflow/experiments/search", "", body).0 == 200).then_some(())
    });
}

/// One PostgreSQL of its own, one server on it, and one thing after the other.
#[test]
fn postgresql_that_is_changed_hangs_or_stops() {
    let programs = programs(15);
    let cluster = PrivateCluster::start(&programs, &std::env::temp_dir()).unwrap();
    let database = Database { address: cluster.create_database("mlflow").unwrap(), programs };
    let (role, socket) = (database.address.user.clone().unwrap(), database.address.hosts[0].0.clone());
    let proxy = Proxy::before(database.socket());
    let through = format!("://{role}@127.0.0.1:{}/mlflow", proxy.port);
    let (backend, store) = (format!("postgresql+psycopg2{through}"), format!("postgresql{through}"));
    let stack = Stack::start("3.4.0", folder(), &backend, &store, &[]);
    let url = stack.server.url.clone();
    stack.look(&[]).well();

    // Sequences: new experiments fail.
    let default = "ALTER TABLE experiments ALTER COLUMN experiment_id";
    database.execute(&format!("{default} DROP DEFAULT"));
    let seen = stack.look(&[]).turned(&[("database.schema", "critical")], &[]);
    let check = seen.check("database.schema");
    assert!(check["evidence"].to_string().contains("experiments"), "{check:#}");
    assert!(check["hint"].as_str().unwrap().contains("mlops db doctor"), "{check:#}");
    database.execute(&format!("{default} SET DEFAULT nextval('experiments_experiment_id_seq')"));
    database.execute("SELECT setval('experiments_experiment_id_seq', 1, false)");
    stack.look(&[]).turned(&[("database.schema", "critical")], &[]);
    database.execute("SELECT setval('experiments_experiment_id_seq', (SELECT max(experiment_id) FROM experiments))");
    stack.look(&[]).well();

    // A revision that nobody knows, and one that the tables are not of.
    for (revision, status) in [("ffffffffffff", "unknown"), ("dc11669786a5", "critical")] {
        database.execute(&format!("UPDATE alembic_version SET version_num = '{revision}'"));
        let seen = stack.look(&[]);
        let seen = seen.turned(&[("database.revision", status)], &["database.schema"]);
        assert!(seen.check("database.revision").to_string().contains(revision), "{}", seen.said.out);
    }
    database.execute("UPDATE alembic_version SET version_num = '71994744cf8e'");

    // Its password: the server has its own.
    scram_role(&database, "lost");
    let wrong = format!("postgresql://lost:{SECRET}@/mlflow?host={socket}");
    let seen = stack.look(&["--backend-store-uri", &wrong]);
    let seen = seen.turned(&[("database.connect", "critical")], &[ON_DATABASE, ON_SEARCH].concat());
    assert_eq!(seen.check("database.connect")["cause"], "the password is wrong", "{}", seen.said.out);
    let example = format!("postgresql://{role}:ChangeMe1@/mlflow?host={socket}");
    let seen = stack.look(&["--backend-store-uri", &example]).turned(&[("security.passwords", "warning")], &[]);
    assert!(!seen.said.out.contains("ChangeMe1"), "{}", seen.said.out);

    // It takes connections and says nothing.
    proxy.stall();
    let seen = stack.look_as(SHORT, &[], &[]);
    let all = [ON_DATABASE, ON_SEARCH, BY_SEARCH].concat();
    seen.turned(&[("database.connect", "critical")], &all);
    proxy.flow();
    answers(&url);
    stack.look(&[]).well();
    proxy.stall();
    let blind = ["--tracking-uri", &url, "--output", "json"];
    let seen = crate::health::look(stack.home.path(), SHORT, &blind, &[]);
    // Without an artifact root of its own, that layer goes through the server, whose proxy is off.
    let seen = seen.turned(&[("server.ready", "critical")], &[ON_SEARCH, BY_SEARCH].concat());
    let ready = seen.check("server.ready");
    assert!(ready["cause"].as_str().unwrap().contains("database"), "{ready:#}");
    assert!(ready["hint"].as_str().unwrap().contains("--backend-store-uri"), "{ready:#}");
    proxy.flow();
    answers(&url);

    // The server hangs.
    stack.server.signal("STOP");
    let seen = stack.look_as(SHORT, &[], &[]);
    let seen = seen.turned(&[("server.live", "critical")], &[ON_LIVE, ON_SEARCH, BY_SEARCH, OF_BOTH].concat());
    assert!(seen.check("server.live")["cause"].as_str().unwrap().contains("hangs"), "{}", seen.said.out);
    stack.server.signal("CONT");
    answers(&url);
    stack.look(&[]).well();

    // Another MLflow upgrades its database.
    upgrade("3.17.2", &database);
    let seen = stack.look(&[]).turned(&[("database.revision", "critical")], &["database.schema"]);
    assert!(seen.check("database.revision")["summary"].as_str().unwrap().contains("newer than the server"));

    // It is stopped.
    drop(cluster);
    stack.look_as(SHORT, &[], &[]).turned(&[("database.connect", "critical")], &all);
    let seen = crate::health::look(stack.home.path(), SHORT, &blind, &[]);
    seen.turned(&[("server.ready", "critical")], &[ON_SEARCH, BY_SEARCH].concat());
}

/// A relay to an HTTP server whose answers carry another time.
fn other_time(to: &str, ahead: SignedDuration) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let to = to.strip_prefix("http://").unwrap().to_owned();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let there = TcpStream::connect(&to).unwrap();
            let (mut from, mut into) = (client.try_clone().unwrap(), there.try_clone().unwrap());
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut from, &mut into);
                let _ = into.shutdown(Shutdown::Write);
            });
            std::thread::spawn(move || shift(there, client, ahead));
        }
    });
    port
}

/// A server writes the head of an answer at once.
fn shift(mut from: TcpStream, mut to: TcpStream, ahead: SignedDuration) {
    const FIELD: &[u8] = b"\r\ndate: ";
    let mut buffer = [0; 64 * 1024];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        let piece = &mut buffer[..n];
        if let Some(at) = piece.windows(FIELD.len()).position(|w| w.eq_ignore_ascii_case(FIELD)) {
            let told = (Timestamp::now() + ahead).strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
            piece[at + FIELD.len()..][..told.len()].copy_from_slice(told.as_bytes());
        }
        if to.write_all(piece).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

/// The server, its clock and name, and its artifacts.
#[test]
fn a_server_and_its_artifacts_that_break() {
    let mut stack = Stack::on_sqlite("3.17.2", &[]);
    stack.look(&["--deep"]).well();
    artifacts(&stack);

    // Limits below what is measured: nothing is broken, and what stands on it is judged all the same.
    let slow = "[health.server.live]\ncritical = \"1 ns\"\n[health.server.search-latency]\nwarning = \"1 ns\"\n";
    let seen = stack.look(&["--config", &stack.configured(slow)]);
    let seen = seen.turned(&[("server.live", "critical"), ("server.search-latency", "warning")], &[]);
    assert!(seen.check("server.live")["value"].as_f64().unwrap() > 1e-9, "{}", seen.said.out);

    // Its clock.
    for (minutes, status) in [(20, "critical"), (-3, "warning")] {
        let port = other_time(&stack.server.url, SignedDuration::from_mins(minutes));
        let seen = stack.look(&["--tracking-uri", &format!("http://127.0.0.1:{port}")]);
        let seen = seen.turned(&[("server.clock", status)], &[]);
        let off = seen.check("server.clock")["value"].as_f64().unwrap();
        assert!((off - minutes.abs() as f64 * 60.0).abs() < 5.0, "{off}");
    }

    // A name that it does not take.
    let (_relay, port) = relay(&stack.server.url, &["--host", "127.0.0.2"]);
    let seen = stack.look(&["--tracking-uri", &format!("http://127.0.0.2:{port}")]);
    let seen = seen.turned(&[("server.ready", "critical")], &[ON_SEARCH, BY_SEARCH, OF_BOTH].concat());
    assert!(seen.check("server.ready")["hint"].as_str().unwrap().contains("--allowed-hosts"), "{}", seen.said.out);

    // A webhook whose secret only the process knew that is gone.
    let body = format!(
        r#"{{"name": "quiet", "url": "https://93.184.216.34/hook", "secret": "{SECRET}",
            "events": [{{"entity": "MODEL_VERSION_TAG", "action": "DELETED"}}]}}"#
    );
    let (status, answer) = request("POST", &stack.server.url, "/api/2.0/mlflow/webhooks", "", &body);
    assert_eq!(status, 200, "{answer}");
    stack.look(&[]).well();
    let another = "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY=YW5vdGhlci1rZXktb2YtdGhpcnR5LXR3by1ieXRlcy4=";
    stack.server = Server::start("3.17.2", &stack.store, stack.place.path(), &["--env", another]);
    let seen = stack.look(&[]).turned(&[("security.secrets", "critical")], &[]);
    assert!(seen.check("security.secrets")["cause"].as_str().unwrap().contains("ENCRYPTION_KEY"), "{}", seen.said.out);
    rusqlite::Connection::open(stack.place.path().join("mlflow.db"))
        .unwrap()
        .execute("DELETE FROM webhooks", [])
        .unwrap();
    stack.look(&[]).well();
    killed_in_the_middle(stack);
}

fn artifacts(stack: &Stack) {
    let away = stack.place.path().join("away");
    let gone = stack.artifacts().join(&stack.versions["placed"]);
    fs::rename(&gone, &away).unwrap();
    let seen = stack.look(&[]).turned(&[("artifacts.versions", "critical")], &[]);
    assert!(seen.check("artifacts.versions")["evidence"].to_string().contains("placed"), "{}", seen.said.out);
    fs::rename(&away, &gone).unwrap();

    fs::rename(stack.artifacts(), &away).unwrap();
    let below = ["artifacts.disk", "artifacts.size", "artifacts.growth", "artifacts.versions", "artifacts.write"];
    stack.look(&["--deep"]).turned(&[("artifacts.root", "critical")], &below);
    fs::rename(&away, stack.artifacts()).unwrap();

    let full = stack.configured("[health.artifacts.disk]\nwarning = \"99.9%\"\n");
    let seen = stack.look(&["--config", &full]).turned(&[("artifacts.disk", "warning")], &[]);
    assert_eq!(seen.check("artifacts.disk")["warning"]["below"], 99.9);
    let full = stack.configured("[health.artifacts.disk]\ncritical = \"99.9%\"\n");
    stack.look(&["--config", &full]).turned(&[("artifacts.disk", "critical")], &[]);
    read_only(stack);
    stack.look(&["--deep"]).well();
}

/// The folder is mounted a second time over itself, for reading; that needs a namespace.
fn read_only(stack: &Stack) {
    let made = Command::new("unshare").args(["-rm", "true"]).stderr(Stdio::null()).status();
    if !made.is_ok_and(|s| s.success()) {
        eprintln!("skipped: no namespaces here, so no folder that is read-only for root");
        return;
    }
    let script = "mount --bind \"$0\" \"$0\" && mount -o remount,bind,ro \"$0\" && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["-rm", "sh", "-c", script]).arg(stack.artifacts());
    let program = mlops(stack.home.path());
    command.arg(program.get_program()).args(["health", "--deep", "--output", "json", "--skip", "database.path"]);
    command
        .args(stack.arguments())
        .env("HOME", stack.home.path())
        .env("MLOPS_STATE_DIR", stack.home.path().join("state"));
    let said = Said::of(command.stdin(Stdio::null()).output().unwrap());
    let look = crate::health::Look { said };
    let seen = look.turned(&[("artifacts.write", "critical")], &[]);
    assert!(seen.check("artifacts.write")["summary"].as_str().unwrap().contains("read-only"), "{}", seen.said.out);
}

/// `--for`: the server goes away between two looks, and the one verdict says how often it was gone.
fn killed_in_the_middle(stack: Stack) {
    let known = stack.arguments();
    let mut command = mlops(stack.home.path());
    let log = stack.home.path().join("looks");
    command.args(["health", "--for", "6s", "--every", "1s", "--timeout", "5s", "--skip", "database.path"]).args(&known);
    command.stdout(Stdio::piped()).stderr(fs::File::create(&log).unwrap());
    let child = command.spawn().unwrap();
    wait_for("a look", Duration::from_secs(20), || {
        fs::read_to_string(&log).unwrap().lines().next().map(|l| assert!(l.contains(" OK"), "{l}"))
    });
    let Stack { home, place, server, store, versions } = stack;
    server.signal("KILL");
    let said = Said::of(child.wait_with_output().unwrap());
    let looks = fs::read_to_string(&log).unwrap();
    assert_eq!(said.code, 2, "{}{looks}", said.out);
    let (well, bad): (Vec<&str>, Vec<&str>) = looks.lines().partition(|l| l.contains(" OK"));
    assert!(!well.is_empty() && bad.len() > 1 && bad.iter().all(|l| l.contains("CRITICAL server.live")), "{looks}");
    let all = well.len() + bad.len();
    assert!(said.out.contains(&format!("not well in {} of {all} looks", bad.len())), "{}\n{looks}", said.out);

    let stack = Stack { home, place, server, store, versions };
    let seen = stack.look_as(SHORT, &[], &[]);
    let seen = seen.turned(&[("server.live", "critical")], &[ON_LIVE, ON_SEARCH, BY_SEARCH, OF_BOTH].concat());
    assert!(seen.check("server.live")["cause"].as_str().unwrap().contains("does not run"), "{}", seen.said.out);
}

/// Passwords of MLflow's basic-auth.
#[test]
fn passwords_that_are_wrong_or_known_to_all() {
    let stack = Stack::on_sqlite("2.9.2", &["--basic-auth", "admin:password"]);
    let admin = "Authorization: Basic YWRtaW46cGFzc3dvcmQ=\r\n";
    let body = format!(r#"{{"username": "ada", "password": "{SECRET}"}}"#);
    let (status, answer) = request("POST", &stack.server.url, "/api/2.0/mlflow/users/create", admin, &body);
    assert_eq!(status, 200, "{answer}");
    let ada = |password| [("MLFLOW_TRACKING_USERNAME", "ada"), ("MLFLOW_TRACKING_PASSWORD", password)];
    let look = |environment: &[(&str, &str)]| stack.look_as(crate::health::TIMEOUT, environment, &[]);
    let seen = look(&ada(SECRET)).turned(&[("security.admin", "critical")], &[]);
    assert!(seen.check("security.admin")["hint"].as_str().unwrap().contains("update-password"), "{}", seen.said.out);
    let known = [("MLFLOW_TRACKING_USERNAME", "admin"), ("MLFLOW_TRACKING_PASSWORD", "password")];
    look(&known).turned(&[("security.admin", "critical"), ("security.passwords", "warning")], &[]);

    let body = format!(r#"{{"username": "admin", "password": "{SECRET}"}}"#);
    let (status, answer) = request("PATCH", &stack.server.url, "/api/2.0/mlflow/users/update-password", admin, &body);
    assert_eq!(status, 200, "{answer}");
    look(&ada(SECRET)).well();
    let wrong = format!("{SECRET}-not");
    let follow = [ON_SEARCH, OF_BOTH, &["server.version"]].concat();
    let seen = look(&ada(&wrong)).turned(&[("server.ready", "critical")], &follow);
    let hint = seen.check("server.ready")["hint"].to_string();
    assert!(hint.contains("MLFLOW_TRACKING_PASSWORD"), "{hint}");
    // Nobody in particular.
    look(&[]).turned(&[("server.ready", "critical")], &follow);
}
