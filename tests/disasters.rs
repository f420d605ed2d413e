//! Disasters: a stack is backed up while it is written to, all of it is lost, and a backup brings it back elsewhere.
//!
//! Each release meets some of the databases, places of artifacts and places of backups; together they meet all.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use mlops::archive::layout::sha256_hex;
use mlops::artifact::files::Met;
use mlops::artifact::{S3, shelf};
use mlops::domain::artifact_address::ArtifactAddress;
use mlops::engine::cancel::Cancel;
use serde_json::Value;

use crate::artifacts::{ObjectStore, object_store};
use crate::flows::Server;
use crate::support::{Database, Said, folder, mlops, postgres, python, root, wait_for};

/// Of the experiment that is written to during the backup.
const LIVE: &str = "live";

#[derive(Clone, Copy)]
enum Engine {
    Sqlite,
    Postgres(u32),
}

/// A database that a server works on.
enum Store {
    File(String),
    Database(Database),
}

impl Store {
    fn new(engine: Engine, place: &Path, name: &str) -> Store {
        match engine {
            Engine::Sqlite => Store::File(place.join(format!("{name}.db")).to_str().unwrap().to_owned()),
            Engine::Postgres(version) => Store::Database(postgres(version).database(name)),
        }
    }

    /// The form that MLflow and mlops both take.
    fn address(&self) -> String {
        match self {
            Store::File(path) => format!("sqlite:///{path}"),
            Store::Database(database) => database.sqlalchemy(),
        }
    }

    /// The form that `consistency.py` takes.
    fn plain(&self) -> String {
        match self {
            Store::File(path) => path.clone(),
            Store::Database(database) => database.url(),
        }
    }

    fn lose(self) {
        match self {
            Store::File(path) => fs::remove_file(path).unwrap(),
            Store::Database(database) => {
                let name = database.address.database.as_deref().unwrap();
                let mut address = database.address.clone();
                address.database = Some("postgres".to_owned());
                let maintenance = Database { address, programs: database.programs.clone() };
                maintenance.execute(&format!("DROP DATABASE \"{name}\" WITH (FORCE)"));
            }
        }
    }
}

/// A stack that is to be lost.
struct Case {
    name: &'static str,
    release: &'static str,
    from: Engine,
    to: Engine,
    /// Artifacts in S3, else in a folder.
    s3: bool,
    /// Artifacts behind the server's proxy, else used by clients themselves.
    proxied: bool,
    /// Backups in S3, else in a folder.
    backups_in_s3: bool,
}

struct Stack {
    case: Case,
    place: tempfile::TempDir,
    objects: Option<ObjectStore>,
}

/// What writes to a server until its stdin is closed.
struct Writing {
    child: Child,
    run: String,
}

impl Writing {
    /// What it says at its end: it wrote, and nothing that it wrote was refused.
    fn end(mut self) -> Value {
        drop(self.child.stdin.take());
        let said = Said::of(self.child.wait_with_output().unwrap()).expect(0).json();
        assert!(said["failed"] == 0 && said["written"].as_u64().unwrap() > 0, "{said}");
        said
    }
}

impl Stack {
    fn new(case: Case) -> Stack {
        let place = folder();
        let objects = (case.s3 || case.backups_in_s3).then(|| object_store(place.path(), &["--empty"]));
        Stack { case, place, objects }
    }

    fn path(&self, name: &str) -> String {
        self.place.path().join(name).to_str().unwrap().to_owned()
    }

    fn root(&self, name: &str) -> String {
        if self.case.s3 { format!("s3://artifacts/{name}") } else { self.path(name) }
    }

    fn backups(&self) -> String {
        if self.case.backups_in_s3 { "s3://artifacts/kept/backups".to_owned() } else { self.path("backups") }
    }

    fn mlops(&self, arguments: &[&str]) -> Said {
        let mut command = mlops(self.place.path());
        if let Some(ObjectStore { access, .. }) = &self.objects {
            use secrecy::ExposeSecret;
            let key = access.key.as_ref().unwrap();
            command.env("AWS_ACCESS_KEY_ID", &key.id).env("AWS_SECRET_ACCESS_KEY", key.secret.expose_secret());
            command.env("MLFLOW_S3_ENDPOINT_URL", access.endpoint.as_deref().unwrap());
        }
        Said::of(command.args(arguments).args(["--progress", "none"]).output().unwrap())
    }

    fn server(&self, store: &Store, root: &str) -> Server {
        let objects = self.path("objects");
        let mut more = vec!["--artifact-root", root];
        if self.case.proxied {
            more.push("--serve-artifacts");
        }
        if self.case.s3 {
            more.extend(["--object-store", &objects]);
        }
        Server::start(self.case.release, &store.address(), self.place.path(), &more)
    }

    /// A client's way to the artifacts.
    fn way(&self) -> Vec<String> {
        if self.case.s3 && !self.case.proxied {
            return vec!["--object-store".to_owned(), self.path("objects")];
        }
        Vec::new()
    }

    fn script(&self, server: &Server, name: &str) -> Said {
        let way = self.way();
        server.script(name, &way.iter().map(String::as_str).collect::<Vec<_>>()).expect(0)
    }

    /// Begins to write, and waits until something is written.
    fn writing(&self, script: &str, arguments: &[&str]) -> Writing {
        let ready = self.path(&format!("{script} is ready"));
        let mut child = Command::new(python(self.case.release))
            .arg(root().join("tests/mlflow").join(script))
            .args(arguments)
            .args(["--experiment", LIVE, "--ready-file", &ready])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let run = wait_for("the first write", Duration::from_secs(60), || {
            if let Some(status) = child.try_wait().unwrap() {
                panic!("{script} ended with {status}");
            }
            fs::read_to_string(&ready).ok()
        });
        Writing { child, run: run.trim().to_owned() }
    }

    fn lose_artifacts(&self, root: &str) {
        let Some(ObjectStore { access, .. }) = self.objects.as_ref().filter(|_| self.case.s3) else {
            return fs::remove_dir_all(root).unwrap();
        };
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let address = ArtifactAddress::parse(root);
        let s3 = S3::new(access.clone());
        let place = shelf(&address, &s3, runtime.handle(), self.place.path(), &Cancel::new()).unwrap().unwrap();
        let mut names = Vec::new();
        let mut each = |met| {
            if let Met::File(entry) = met {
                names.push(entry.path);
            }
            Ok(())
        };
        place.walk("", &mut each).unwrap();
        assert!(!names.is_empty());
        names.iter().for_each(|name| place.remove(name).unwrap());
    }

    /// All of it: what was not written to is the same, what was written to is one moment.
    fn is_lost_and_comes_back(&self) {
        let case = &self.case;
        let store = Store::new(case.from, self.place.path(), &format!("disaster_{}", case.name));
        let (root, backups) = (self.root("artifacts"), self.backups());
        let server = self.server(&store, &root);
        self.script(&server, "fill_artifacts.py");
        let before: Value = self.script(&server, "check_artifacts.py").json();

        let way = self.way();
        let mut logging = vec!["--tracking-uri", &server.url];
        logging.extend(way.iter().map(String::as_str));
        let metrics = self.writing("writer.py", &["--uri", &server.url, "--rate", "1000"]);
        let files = self.writing("logger.py", &logging);
        let database = store.address();
        let back_up = ["backup", "--backend-store-uri", &database, "--artifact-root", &root, "--to", &backups];
        let made = self.mlops(&[&back_up[..], &["--output", "json"]].concat()).expect(0).json()["result"].clone();
        assert!(made["complete"] == true, "{made}");
        let runs = [metrics.run.clone(), files.run.clone()];
        let written = metrics.end()["written"].as_i64().unwrap();
        files.end();

        drop(server);
        store.lose();
        self.lose_artifacts(&root);
        let store = Store::new(case.to, self.place.path(), &format!("disaster_{}_again", case.name));
        let (root, to) = (self.root("restored artifacts"), store.address());
        let id = made["id"].as_str().unwrap();
        self.mlops(&["restore", id, "--from", &backups, "--to", &to, "--artifact-root", &root]).expect(0);

        let at_most = written.to_string();
        let said = Command::new(python(case.release))
            .arg(crate::support::root().join("tests/mlflow/consistency.py"))
            .args(["--store", &store.plain(), "--run", &runs[0], "--at-least", "1", "--at-most", &at_most])
            .output()
            .unwrap();
        let steps = Said::of(said).expect(0).json()["steps"].as_i64().unwrap();
        assert!(steps < written, "{steps}: nothing was written after the backup's moment, so this proves nothing");
        let server = self.server(&store, &root);
        let mut after: Value = self.script(&server, "check_artifacts.py").json();
        let parts = after["files"][&runs[1]].clone();
        without_live(&mut after, &runs);
        same(&before, &after);
        for number in 0..3 {
            let content = format!("part {number}\n").repeat(500);
            let wanted = serde_json::json!([content.len(), content.len(), sha256_hex(content.as_bytes())]);
            assert_eq!(parts[format!("parts/part-{number}.txt")], wanted, "{parts}");
        }
        server.exercise();
        // A run with files, into the new place.
        let mut logging = vec!["--tracking-uri", &server.url];
        logging.extend(way.iter().map(String::as_str));
        fs::remove_file(self.path("logger.py is ready")).unwrap();
        self.writing("logger.py", &logging).end();
    }
}

/// Takes away what was being written.
fn without_live(answers: &mut Value, runs: &[String]) {
    let is_live = |key: &str| runs.iter().any(|run| key.starts_with(run));
    for (list, field) in [("experiments", "name"), ("runs", "id")] {
        let list = answers[list].as_array_mut().unwrap();
        let all = list.len();
        list.retain(|one| one[field] != LIVE && !is_live(one[field].as_str().unwrap()));
        assert!(list.len() < all, "what was being written is not there");
    }
    for map in ["history", "files"] {
        answers[map].as_object_mut().unwrap().retain(|key, _| !is_live(key));
    }
}

/// That two documents are the same text.
#[track_caller]
fn same(before: &Value, after: &Value) {
    let text = |value: &Value| serde_json::to_string_pretty(value).unwrap();
    let (before, after) = (text(before), text(after));
    assert!(before.len() > 10_000, "so short an answer is none: {before}");
    if before != after {
        let pair = before.lines().zip(after.lines()).enumerate().find(|(_, (a, b))| a != b);
        panic!("{pair:?} ({} and {} bytes)", before.len(), after.len());
    }
}

#[test]
fn a_folder_and_sqlite_come_back_in_postgresql_2_9_2() {
    let (from, to) = (Engine::Sqlite, Engine::Postgres(15));
    let case = Case { name: "folder", release: "2.9.2", from, to, s3: false, proxied: false, backups_in_s3: false };
    Stack::new(case).is_lost_and_comes_back();
}

#[test]
fn a_folder_behind_the_proxy_and_sqlite_come_back_3_4_0() {
    let (from, to) = (Engine::Sqlite, Engine::Sqlite);
    let case = Case { name: "proxied", release: "3.4.0", from, to, s3: false, proxied: true, backups_in_s3: false };
    Stack::new(case).is_lost_and_comes_back();
}

#[test]
fn s3_behind_the_proxy_and_postgresql_come_back_in_sqlite_3_4_0() {
    let (from, to) = (Engine::Postgres(18), Engine::Sqlite);
    let case = Case { name: "proxied_s3", release: "3.4.0", from, to, s3: true, proxied: true, backups_in_s3: false };
    Stack::new(case).is_lost_and_comes_back();
}

#[test]
fn s3_and_postgresql_come_back_3_17_2() {
    let (from, to) = (Engine::Postgres(15), Engine::Postgres(15));
    let case = Case { name: "s3", release: "3.17.2", from, to, s3: true, proxied: false, backups_in_s3: true };
    Stack::new(case).is_lost_and_comes_back();
}
