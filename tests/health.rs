//! `mlops health` on stacks that are well: real MLflow servers on SQLite and PostgreSQL, open, with basic-auth, behind a
//! private authority, under a static prefix. And what the tests of faults and outputs stand on.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::client::relay;
use crate::flows::Server;
use crate::support::secrets::{self, SECRET};
use crate::support::{Database, Said, folder, mlops, postgres};
use crate::tls;

/// What a look waits for at most, in seconds, where a test does not say otherwise.
pub(crate) const TIMEOUT: u64 = 20;

/// One run of the command.
pub(crate) struct Look {
    pub(crate) said: Said,
}

/// `mlops health` with these arguments; it must end in its time, and tell no secret.
#[track_caller]
pub(crate) fn look(home: &Path, timeout: u64, arguments: &[&str], environment: &[(&str, &str)]) -> Look {
    let mut command = mlops(home);
    command.envs(environment.iter().copied()).args(["health", "--timeout", &format!("{timeout}s")]);
    command.args(arguments);
    let begun = Instant::now();
    let said = Said::of(command.output().unwrap());
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(timeout + 2), "{took:?}\n{}", said.out);
    tells_no_secret(home);
    Look { said }
}

/// No file below holds a secret.
#[track_caller]
pub(crate) fn tells_no_secret(folder: &Path) {
    let leaks = secrets::below(folder, &|_| false);
    assert!(leaks.is_empty(), "{leaks:#?}");
}

impl Look {
    pub(crate) fn result(&self) -> Value {
        let document = self.said.json();
        assert_eq!(document["schema"], "mlops.health.v1", "{document:#}");
        assert_eq!(document["exit"], self.said.code, "{document:#}");
        document["result"].clone()
    }

    pub(crate) fn checks(&self) -> BTreeMap<String, Value> {
        let result = self.result();
        let checks = result["checks"].as_array().unwrap_or_else(|| panic!("{}{}", self.said.out, self.said.err));
        checks.iter().map(|c| (c["id"].as_str().unwrap().to_owned(), c.clone())).collect()
    }

    #[track_caller]
    pub(crate) fn check(&self, id: &str) -> Value {
        self.checks().remove(id).unwrap_or_else(|| panic!("no {id}: {}", self.said.out))
    }

    /// Every check is fine.
    #[track_caller]
    pub(crate) fn well(self) -> Look {
        self.turned(&[], &[])
    }

    /// These checks turned, to that status, the first of them first; those that match the patterns are unknown because
    /// of it; and nothing else is anything but ok.
    #[track_caller]
    pub(crate) fn turned(self, wanted: &[(&str, &str)], follow: &[&str]) -> Look {
        let shown = &self.said.out;
        let checks = self.checks();
        let text = |c: &Value, field: &str| c[field].as_str().unwrap_or_default().to_owned();
        let found: BTreeMap<&str, String> = checks
            .iter()
            .filter(|(_, c)| c["status"] != "ok" && c["root"].is_null())
            .map(|(id, c)| (id.as_str(), text(c, "status")))
            .collect();
        let expected: BTreeMap<&str, String> = wanted.iter().map(|(id, status)| (*id, (*status).to_owned())).collect();
        assert_eq!(found, expected, "{shown}");
        let first = wanted.first().map(|(id, _)| *id);
        assert_eq!(self.result()["first_broken"].as_str(), first, "{shown}");
        for (id, check) in &checks {
            let stands = follow.iter().any(|pattern| mlops::domain::glob::matches(pattern, id));
            assert_eq!(check["root"].as_str(), first.filter(|_| stands), "{id}: {shown}");
            assert!(!stands || check["status"] == "unknown" && check["value"].is_null(), "{id}: {shown}");
        }
        for pattern in follow {
            assert!(
                checks.keys().any(|id| mlops::domain::glob::matches(pattern, id)),
                "{pattern} is no check: {shown}"
            );
        }
        let worst = ["critical", "warning", "unknown"].into_iter().find(|s| wanted.iter().any(|(_, w)| w == s));
        assert_eq!(self.result()["status"], worst.unwrap_or("ok"), "{shown}");
        let code = match worst {
            None => 0,
            Some("warning") => 1,
            Some("critical") => 2,
            Some(_) => 3,
        };
        assert_eq!(self.said.code, code, "{shown}");
        self
    }
}

/// An answer's status and text, of a request as bare as can be.
pub(crate) fn request(method: &str, url: &str, path: &str, head: &str, body: &str) -> (u16, String) {
    let authority = url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(authority).unwrap();
    let length = body.len();
    // In one piece: a server that has read enough to refuse it may be gone before a second one arrives.
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {authority}\r\nContent-Type: application/json\r\n{head}\
         Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or_else(|| panic!("{answer}"));
    (status, answer)
}

/// A server with some models, and what mlops is told of it.
pub(crate) struct Stack {
    /// The home of mlops.
    pub(crate) home: tempfile::TempDir,
    /// The folder of the server.
    pub(crate) place: tempfile::TempDir,
    pub(crate) server: Server,
    pub(crate) store: String,
    /// Of model `placed` and the others: the folder or file that holds them, below the artifact root.
    pub(crate) versions: BTreeMap<String, String>,
}

impl Stack {
    /// On a SQLite file.
    pub(crate) fn on_sqlite(release: &str, more: &[&str]) -> Stack {
        let place = folder();
        let store = format!("sqlite:///{}", place.path().join("mlflow.db").display());
        Stack::start(release, place, &store, &store, more)
    }

    /// On a database of PostgreSQL 15, through its socket.
    pub(crate) fn on_postgres(release: &str, name: &str, more: &[&str]) -> (Stack, Database) {
        let database = postgres(15).database(name);
        (Stack::start(release, folder(), &database.sqlalchemy(), &database.url(), more), database)
    }

    /// `backend` is what MLflow is told of the store, `store` what mlops is.
    pub(crate) fn start(release: &str, place: tempfile::TempDir, backend: &str, store: &str, more: &[&str]) -> Stack {
        let server = Server::start(release, backend, place.path(), more);
        let user = more.iter().position(|m| *m == "--basic-auth").map(|at| format!("{}@", more[at + 1]));
        let url = server.url.replace("http://", &format!("http://{}", user.unwrap_or_default()));
        // Of two the last one counts.
        let said = server.script("versions.py", &["--tracking-uri", &url]).expect(0);
        let versions = serde_json::from_str(said.out.lines().last().unwrap()).unwrap();
        let stack = Stack { home: folder(), place, server, store: store.to_owned(), versions };
        if more.iter().all(|m| *m != "--basic-auth" && *m != "--static-prefix") {
            let url = &stack.server.url;
            let body = r#"{"experiment_ids": ["1"], "max_results": 1}"#;
            let (status, answer) = request("POST", url, "/api/2.0/mlflow/runs/search", "", body);
            assert_eq!(status, 200, "{answer}");
            let id = answer.split("\"run_id\"").nth(1).and_then(|t| t.split('"').nth(1)).unwrap().to_owned();
            let body = format!(r#"{{"run_id": "{id}", "key": "r2", "value": 0.9, "timestamp": 1, "step": 0}}"#);
            assert_eq!(request("POST", url, "/api/2.0/mlflow/runs/log-metric", "", &body).0, 200);
        }
        stack
    }

    pub(crate) fn artifacts(&self) -> PathBuf {
        self.place.path().join("artifacts")
    }

    /// A configuration of that text.
    pub(crate) fn configured(&self, text: &str) -> String {
        let file = self.home.path().join("mlops.toml");
        fs::write(&file, text).unwrap();
        file.display().to_string()
    }

    /// All that is known of it, as arguments.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let root = self.artifacts().display().to_string();
        let known =
            [("--tracking-uri", &self.server.url), ("--backend-store-uri", &self.store), ("--artifact-root", &root)];
        known.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value.clone()]).collect()
    }

    /// A look at all of it, as JSON; of flags given twice the last one counts.
    #[track_caller]
    pub(crate) fn look(&self, more: &[&str]) -> Look {
        self.look_as(TIMEOUT, &[], more)
    }

    #[track_caller]
    pub(crate) fn look_as(&self, timeout: u64, environment: &[(&str, &str)], more: &[&str]) -> Look {
        let known = self.arguments();
        let mut arguments: Vec<&str> =
            known.chunks(2).filter(|c| !more.contains(&c[0].as_str())).flatten().map(String::as_str).collect();
        // The tests' own folder is one that the system empties.
        arguments.extend(["--output", "json", "--skip", "database.path"]);
        arguments.extend(more);
        look(self.home.path(), timeout, &arguments, environment)
    }
}

/// How many rows each table has.
fn rows(store: &str, database: Option<&Database>) -> BTreeMap<String, i64> {
    if let Some(database) = database {
        let count = |table: &String| database.number(&format!("SELECT count(*) FROM \"{table}\""));
        return database.tables().into_iter().map(|table| (table.clone(), count(&table))).collect();
    }
    let file = rusqlite::Connection::open(store.strip_prefix("sqlite:///").unwrap()).unwrap();
    let mut tables = file.prepare("SELECT name FROM sqlite_master WHERE type = 'table'").unwrap();
    let tables: Vec<String> = tables.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    let count =
        |table: &str| file.query_one(&format!("SELECT count(*) FROM \"{table}\""), [], |row| row.get(0)).unwrap();
    tables.iter().map(|table| (table.clone(), count(table))).collect()
}

/// The questions that are asked of every stack that is well.
fn well(stack: &Stack, database: Option<&Database>, release: &str, environment: &[(&str, &str)]) {
    let plain = stack.look_as(TIMEOUT, environment, &[]).well();
    let checks = plain.checks();
    let summary = |id: &str| checks[id]["summary"].as_str().unwrap().to_owned();
    assert_eq!(summary("server.version"), format!("MLflow {release}"));
    assert!(
        summary("database.revision").contains(&format!("fits MLflow {release}")),
        "{}",
        summary("database.revision")
    );
    assert!(
        summary("artifacts.versions").contains("versions have their artifacts"),
        "{}",
        summary("artifacts.versions")
    );
    let all = 20 + if database.is_some() { 5 } else { 2 };
    assert!(checks.len() > all, "{:?}", checks.keys());
    assert!(!checks.contains_key("server.write"), "it writes only when it is told to");

    // The first deep look makes the experiment, later ones change a tag.
    stack.look_as(TIMEOUT, environment, &["--deep"]).well();
    let before = rows(&stack.store, database);
    let deep = stack.look_as(TIMEOUT, environment, &["--deep"]).well();
    assert!(deep.check("server.write")["value"].is_number() && deep.check("artifacts.write")["value"].is_number());
    assert_eq!(rows(&stack.store, database), before, "a look adds no rows");
    // Without the root, artifacts are looked for through the server, or not at all.
    let known = ["--tracking-uri", &stack.server.url];
    let arguments = [&["--output", "json", "--deep"], &known[..]].concat();
    look(stack.home.path(), TIMEOUT, &arguments, environment).well();
    assert_eq!(rows(&stack.store, database), before);
}

#[test]
fn mlflow_2_9_2_on_sqlite_is_well_with_basic_auth() {
    let stack = Stack::on_sqlite("2.9.2", &["--basic-auth", &format!("ada:{SECRET}")]);
    let environment = [("MLFLOW_TRACKING_USERNAME", "ada"), ("MLFLOW_TRACKING_PASSWORD", SECRET)];
    well(&stack, None, "2.9.2", &environment);
    // The same in the address.
    let url = stack.server.url.replace("http://", &format!("http://ada:{SECRET}@"));
    let shown = stack.look(&["--tracking-uri", &url]).well();
    assert!(shown.result()["stack"]["server"].as_str().unwrap().contains("ada:***@"), "{}", shown.said.out);
}

#[test]
fn mlflow_2_9_2_on_postgres_is_well() {
    let (stack, database) = Stack::on_postgres("2.9.2", "well_2_9_2", &[]);
    well(&stack, Some(&database), "2.9.2", &[]);
}

#[test]
fn mlflow_3_4_0_on_sqlite_is_well_and_passes_artifacts_on() {
    let stack = Stack::on_sqlite("3.4.0", &["--serve-artifacts"]);
    well(&stack, None, "3.4.0", &[]);
}

#[test]
fn mlflow_3_4_0_on_postgres_is_well_behind_a_private_authority() {
    let (stack, database) = Stack::on_postgres("3.4.0", "well_3_4_0", &[]);
    well(&stack, Some(&database), "3.4.0", &[]);
    let place = stack.place.path();
    let file = |name: &str| place.join(name).display().to_string();
    let serve = |days: u32| {
        let san = "-addext subjectAltName=DNS:localhost";
        let key = tls::NEW_KEY;
        tls::openssl(
            place,
            &format!("req -new -x509 -days {days} {key} -keyout own.key -out own.crt -subj /CN=own {san}"),
        );
        relay(&stack.server.url, &["--cert", &file("own.crt"), "--key", &file("own.key")])
    };
    let ask = |port: u16| {
        let url = format!("https://localhost:{port}");
        stack.look_as(TIMEOUT, &[("MLFLOW_TRACKING_SERVER_CERT_PATH", &file("own.crt"))], &["--tracking-uri", &url])
    };
    let (_relay, port) = serve(90);
    let days = ask(port).well().check("server.certificate")["value"].as_f64().unwrap() / 86_400.0;
    assert!((89.0..=90.0).contains(&days), "{days}");
    // It ends soon.
    let (_relay, port) = serve(10);
    ask(port).turned(&[("server.certificate", "warning")], &[]);
    let (_relay, port) = serve(2);
    ask(port).turned(&[("server.certificate", "critical")], &[]);
}

#[test]
fn the_newest_mlflow_on_sqlite_is_well_under_a_static_prefix() {
    let stack = Stack::on_sqlite("3.17.2", &["--static-prefix", "/team/ml"]);
    assert!(stack.server.url.ends_with("/team/ml"));
    well(&stack, None, "3.17.2", &[]);
}

#[test]
fn the_newest_mlflow_on_postgres_is_well_with_basic_auth() {
    let more = ["--serve-artifacts", "--basic-auth", &format!("ada:{SECRET}")];
    let (stack, database) = Stack::on_postgres("3.17.2", "well_3_17_2", &more);
    let environment = [("MLFLOW_TRACKING_USERNAME", "ada"), ("MLFLOW_TRACKING_PASSWORD", SECRET)];
    well(&stack, Some(&database), "3.17.2", &environment);
}
