//! Real MLflow servers: a store filled through a release's own client is migrated, and the same server on PostgreSQL
//! gives the same answers, makes new things, and is upgraded by the newest MLflow.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::support::{Database, Killed, Said, folder, migrate, postgres, python, root, verify, wait_for};

/// A tracking server of a release; it ends with its stdin.
pub(crate) struct Server {
    python: PathBuf,
    pub(crate) url: String,
    process: Killed,
}

impl Server {
    pub(crate) fn start(release: &str, store: &str, place: &Path, more: &[&str]) -> Server {
        let python = python(release);
        let ready = place.join("ready");
        let _ = fs::remove_file(&ready);
        let log = place.join("server.log");
        let process: Child = Command::new(&python)
            .arg(root().join("tests/mlflow/server.py"))
            .args(["--backend-store-uri", store, "--artifact-root"])
            .arg(place.join("artifacts"))
            .arg("--ready-file")
            .arg(&ready)
            .arg("--log")
            .arg(&log)
            .args(more)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut process = Killed(process);
        let url = wait_for("the server's answer", Duration::from_secs(150), || {
            if let Some(status) = process.0.try_wait().unwrap() {
                panic!("the server ended with {status}: {}", fs::read_to_string(&log).unwrap_or_default());
            }
            fs::read_to_string(&ready).ok()
        });
        Server { python, url: url.trim().to_owned(), process }
    }

    pub(crate) fn script(&self, name: &str, more: &[&str]) -> Said {
        let mut command = Command::new(&self.python);
        command.arg(root().join("tests/mlflow").join(name)).args(["--tracking-uri", &self.url]).args(more);
        // MLflow's client prints addresses with their passwords.
        Said::of_another(command.stdin(Stdio::null()).output().unwrap())
    }

    /// Sends a signal to the web server and its workers, and not to the process that minds them.
    pub(crate) fn signal(&self, name: &str) {
        let minder = self.process.0.id();
        let children = fs::read_to_string(format!("/proc/{minder}/task/{minder}/children")).unwrap();
        let group = children.split_whitespace().next().expect("a web server");
        let sent = Command::new("kill").args([&format!("-{name}"), "--", &format!("-{group}")]).status().unwrap();
        assert!(sent.success());
    }

    fn answers(&self, surface: &str) -> String {
        let said = self.script("answers.py", &["--surface", surface]).expect(0);
        assert!(said.out.len() > 100_000, "so short an answer is none: {}", said.out);
        said.out
    }

    /// New experiments, runs, versions and the like, read back.
    pub(crate) fn exercise(&self) {
        self.script("exercise.py", &[]).expect(0);
    }
}

#[track_caller]
fn same(before: &str, after: &str, what: &str) {
    if before != after {
        let pair = before.lines().zip(after.lines()).enumerate().find(|(_, (a, b))| a != b);
        panic!("{what}: {pair:?} ({} and {} bytes)", before.len(), after.len());
    }
}

/// A filled store and what its server said of it.
struct Filled {
    place: tempfile::TempDir,
    file: PathBuf,
    answers: String,
}

fn filled(release: &str) -> Filled {
    let place = folder();
    let file = place.path().join("mlflow.db");
    let store = format!("sqlite:///{}", file.display());
    let server = Server::start(release, &store, place.path(), &[]);
    let artifacts = place.path().join("own-artifacts");
    server.script("fill.py", &["--artifact-dir", artifacts.to_str().unwrap(), "--backend-store-uri", &store]).expect(0);
    let answers = server.answers(release);
    drop(server);
    let mut coverage = Command::new(python(release));
    coverage.arg(root().join("tests/mlflow/coverage.py")).arg("--database").arg(&file);
    let said = Said::of(coverage.output().unwrap());
    assert_eq!(said.code, 0, "a table is empty without a reason: {}", said.out);
    Filled { place, file, answers }
}

fn migrated(filled: &Filled, database: &Database) {
    migrate(filled.place.path(), &filled.file, &database.url(), &["-q"]).expect(0);
    verify(filled.place.path(), filled.file.to_str().unwrap(), &database.url()).expect(0);
}

fn a_release_lives_on(release: &str, postgresql: u32) -> (Filled, Database) {
    let filled = filled(release);
    let database = postgres(postgresql).database(&format!("flow_{release}"));
    migrated(&filled, &database);
    let server = Server::start(release, &database.sqlalchemy(), filled.place.path(), &[]);
    same(&filled.answers, &server.answers(release), release);
    server.exercise();
    drop(server);
    (filled, database)
}

#[test]
fn mlflow_2_9_2_lives_on_and_is_upgraded_by_the_newest() {
    let (filled, _) = a_release_lives_on("2.9.2", 15);
    let database = postgres(15).database("flow_upgrade");
    migrated(&filled, &database);
    let newest = "3.17.2";
    upgrade(newest, &database);
    let server = Server::start(newest, &database.sqlalchemy(), filled.place.path(), &[]);
    same(&filled.answers, &server.answers("2.9.2"), "after the upgrade");
    server.exercise();
    drop(server);
    a_wider_column_lives_on(&filled, newest);
}

pub(crate) fn upgrade(release: &str, database: &Database) {
    let said =
        Command::new(python(release)).args(["-m", "mlflow", "db", "upgrade", &database.sqlalchemy()]).output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
}

/// A description that only SQLite takes: `--widen` makes room for it, and MLflow's own upgrade goes over it.
fn a_wider_column_lives_on(filled: &Filled, newest: &str) {
    let file = filled.place.path().join("wide.db");
    fs::copy(&filled.file, &file).unwrap();
    let connection = rusqlite::Connection::open(&file).unwrap();
    connection
        .execute("UPDATE registered_models SET description = replace(hex(zeroblob(7000)), '00', 'ä')", [])
        .unwrap();
    drop(connection);
    let database = postgres(15).database("flow_wide");
    migrate(filled.place.path(), &file, &database.url(), &["-q"]).expect(6);
    migrate(filled.place.path(), &file, &database.url(), &["-q", "--widen"]).expect(0);
    verify(filled.place.path(), file.to_str().unwrap(), &database.url()).expect(0);
    upgrade(newest, &database);
    assert_eq!(database.number("SELECT min(length(description))::bigint FROM registered_models"), 7000);
    let server = Server::start(newest, &database.sqlalchemy(), filled.place.path(), &[]);
    server.exercise();
}

#[test]
fn mlflow_3_4_0_lives_on() {
    a_release_lives_on("3.4.0", 15);
}

#[test]
fn the_newest_mlflow_lives_on_in_postgresql_and_out_of_an_archive() {
    let (filled, _) = a_release_lives_on("3.17.2", 18);
    let path = |name: &str| filled.place.path().join(name).to_str().unwrap().to_owned();
    let (archive, copy) = (path("store.tar"), path("copy.db"));
    crate::support::run(
        filled.place.path(),
        &["migrate", "export", "-q", filled.file.to_str().unwrap(), "--file", &archive],
    )
    .expect(0);
    crate::support::run(filled.place.path(), &["migrate", "import", "-q", &archive, "--target", &copy]).expect(0);
    let server = Server::start("3.17.2", &format!("sqlite:///{copy}"), filled.place.path(), &[]);
    same(&filled.answers, &server.answers("3.17.2"), "SQLite out of an archive");
    server.exercise();
    drop(server);
    a_lost_stack_lives_on_elsewhere(&filled);
}

/// Every table that clients can fill comes back out of a backup; addresses of artifacts are the only change.
fn a_lost_stack_lives_on_elsewhere(filled: &Filled) {
    let path = |name: &str| filled.place.path().join(name).to_str().unwrap().to_owned();
    let (file, artifacts, own) = (path("mlflow.db"), path("artifacts"), path("own-artifacts"));
    let (backups, to, again) = (path("backups"), path("again.db"), path("artifacts again"));
    let back_up = ["backup", "-q", "--to", &backups, "--backend-store-uri", &file, "--artifact-root", &artifacts];
    let run = |arguments: &[&str]| {
        crate::support::run(filled.place.path(), &[arguments, &["--output", "json"]].concat()).expect(4).json()
    };
    // One version lies in a bucket that there is no key for: it is named, and its address stays.
    let made = run(&back_up)["result"].clone();
    let unread = made["artifacts"]["unread"].as_array().unwrap();
    assert!(matches!(&unread[..], [one] if one["address"].as_str().unwrap().starts_with("s3://bucket/")), "{made}");
    fs::remove_file(&file).unwrap();
    fs::remove_dir_all(&artifacts).unwrap();
    fs::remove_dir_all(&own).unwrap();
    let id = made["id"].as_str().unwrap();
    let restored = run(&["restore", id, "-q", "--from", &backups, "--to", &to, "--artifact-root", &again]);
    let moved = restored["result"]["artifacts"]["moved"].as_array().unwrap();
    let manifest = fs::read_to_string(Path::new(&backups).join(id).join("manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    let roots = manifest["artifacts"]["roots"].as_array().unwrap();
    assert_eq!((roots.len(), moved.len()), (3, 3), "{moved:?}");
    let mut wanted = filled.answers.clone();
    for (root, moved) in roots.iter().zip(moved).filter(|(_, m)| m["from"] != m["to"]) {
        let (from, to) = (root.as_str().unwrap(), moved["to"].as_str().unwrap());
        assert!(wanted.contains(from), "{from}");
        wanted = wanted.replace(from, to);
    }
    assert!(!wanted.contains(&own) && !wanted.contains(&format!("{artifacts}/")), "no address is left behind");
    let server = Server::start("3.17.2", &format!("sqlite:///{to}"), filled.place.path(), &["--artifact-root", &again]);
    same(&wanted, &server.answers("3.17.2"), "out of a backup");
    server.exercise();
}

/// The sample is what people see first: the real server must find all of it in order.
#[test]
fn the_sample_is_a_store_that_mlflow_reads() {
    let place = folder();
    let file = place.path().join("mlflow.db");
    fs::copy(crate::support::sample(20_000), &file).unwrap();
    let server =
        Server::start("3.17.2", &format!("sqlite:///{}", file.display()), place.path(), &["--serve-artifacts"]);
    let before = server.answers("3.17.2");
    drop(server);
    let database = postgres(15).database("flow_sample");
    migrate(place.path(), &file, &database.url(), &["-q"]).expect(0);
    let server = Server::start("3.17.2", &database.sqlalchemy(), place.path(), &["--serve-artifacts"]);
    same(&before, &server.answers("3.17.2"), "the sample");
    server.exercise();
}

/// What PostgreSQL cannot hold of a store that began as `mlruns` folders: ids of 18 digits.
#[test]
fn a_former_file_store_lives_on_with_small_ids() {
    let release = "3.17.2";
    let place = folder();
    let path = |name: &str| place.path().join(name).to_str().unwrap().to_owned();
    let file = place.path().join("mlflow.db");
    let made = Command::new(python(release))
        .arg(root().join("tests/mlflow/filestore.py"))
        .args(["--folder", &path("files"), "--out", file.to_str().unwrap()])
        .output()
        .unwrap();
    Said::of(made).expect(0);
    let server = Server::start(release, &format!("sqlite:///{}", file.display()), place.path(), &[]);
    server.script("answers.py", &["--out", &path("before.json")]).expect(0);
    drop(server);
    let database = postgres(15).database("flow_filestore");
    let refused = migrate(place.path(), &file, &database.url(), &["-q"]).expect(6);
    assert!(refused.err.contains("--remap-experiment-ids"), "{}", refused.err);
    let policy = ["-q", "--remap-experiment-ids", "--certificate", &path("certificate.json")];
    migrate(place.path(), &file, &database.url(), &policy).expect(0);
    let certificate: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(path("certificate.json")).unwrap()).unwrap();
    let ids = certificate["policies"]["experiment_ids"].as_array().unwrap();
    let map: serde_json::Map<_, _> =
        ids.iter().map(|id| (id["old"].as_str().unwrap().to_owned(), id["new"].clone())).collect();
    assert_eq!(map.len(), 3);
    fs::write(path("map.json"), serde_json::Value::from(map).to_string()).unwrap();
    let server = Server::start(release, &database.sqlalchemy(), place.path(), &[]);
    server.script("answers.py", &["--out", &path("after.json")]).expect(0);
    let check = Command::new(python(release))
        .arg(root().join("tests/mlflow/filestore_check.py"))
        .args(["--before", &path("before.json"), "--after", &path("after.json"), "--ids", &path("map.json")])
        .output()
        .unwrap();
    Said::of(check).expect(0);
    server.exercise();
}

/// A trainer writes on while archives are taken: none of its writes fails, and each archive is one moment.
#[test]
fn a_server_is_written_to_while_it_is_exported() {
    let release = "3.17.2";
    let place = folder();
    let path = |name: &str| place.path().join(name).to_str().unwrap().to_owned();
    let file = place.path().join("mlflow.db");
    fs::copy(crate::support::sample(100_000), &file).unwrap();
    let server = Server::start(release, &format!("sqlite:///{}", file.display()), place.path(), &[]);
    let mut writer = Command::new(&server.python)
        .arg(root().join("tests/mlflow/writer.py"))
        .args(["--uri", &server.url, "--rate", "50", "--ready-file", &path("writing")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let run = wait_for("the first write", Duration::from_secs(60), || {
        fs::read_to_string(path("writing")).ok().filter(|text| !text.trim().is_empty())
    });
    let mut seen = 0;
    for turn in 0..5 {
        let (archive, copy) = (path(&format!("{turn}.tar")), path(&format!("{turn}.db")));
        crate::support::run(place.path(), &["migrate", "export", "-q", file.to_str().unwrap(), "--file", &archive])
            .expect(0);
        crate::support::run(place.path(), &["migrate", "import", "-q", &archive, "--target", &copy]).expect(0);
        let said = Command::new(&server.python)
            .arg(root().join("tests/mlflow/consistency.py"))
            .args(["--store", &copy, "--run", run.trim(), "--at-least", &seen.to_string()])
            .output()
            .unwrap();
        seen = Said::of(said).expect(0).json()["steps"].as_i64().unwrap();
    }
    assert!(seen > 0, "nothing was written: this proves nothing");
    drop(writer.stdin.take());
    let said = Said::of(writer.wait_with_output().unwrap()).expect(0).json();
    assert_eq!(said["failed"], 0, "{said}");
    assert!(said["written"].as_i64().unwrap() >= seen, "{said}");
}
