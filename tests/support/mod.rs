//! What tests stand on: the program in a clean environment, private PostgreSQL clusters, cached Python environments.

pub(crate) mod examination;
pub(crate) mod listener;
pub(crate) mod proxy;
pub(crate) mod reference;
pub(crate) mod relay;
pub(crate) mod secrets;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError, mpsc};
use std::time::{Duration, Instant};

use mlops::domain::address::PgAddress;
use mlops::domain::ddl::quote;
use mlops::engine::cancel::Cancel;
use mlops::store::postgres::connect::Postgres;
use mlops::store::postgres::private::PrivateCluster;

/// The root of the project.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// How many kills, cuts and generated cases a test makes.
pub(crate) fn rounds() -> u32 {
    std::env::var("MLOPS_TEST_ROUNDS").ok().and_then(|v| v.parse().ok()).unwrap_or(10)
}

/// A folder for one test, that is removed with it.
pub(crate) fn folder() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("mlops-test-").tempdir().unwrap()
}

/// The program, with nothing of this process' environment but what it needs, and with folders of its own.
pub(crate) fn mlops(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mlops"));
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.env("HOME", home).env("TMPDIR", home).env("MLOPS_STATE_DIR", home.join("state"));
    command.envs(secrets::SURROUNDINGS);
    command.stdin(Stdio::null());
    command
}

/// What a finished program said.
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    /// What it said; a secret in it fails the test. So in a run of the whole suite no command tells one.
    #[track_caller]
    pub(crate) fn of(output: Output) -> Said {
        secrets::none_in("stdout", &output.stdout);
        secrets::none_in("stderr", &output.stderr);
        Said::of_another(output)
    }

    /// The same of a program that is not mlops, where telling one is what it was run for.
    pub(crate) fn of_another(output: Output) -> Said {
        Said {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// The same, if it ended with this code.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Said {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.out, self.err);
        self
    }

    /// The document on stdout. One of ours must be as `docs/json.md` says.
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        let document = serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {}", self.out));
        reference::documented(&document);
        document
    }
}

/// Runs the program with these arguments in a home of its own. What it remembers there holds no secret either.
pub(crate) fn run(home: &Path, arguments: &[&str]) -> Said {
    let said = Said::of(mlops(home).args(arguments).output().unwrap());
    let leaks = secrets::below(&home.join("state"), &|_| false);
    assert!(leaks.is_empty(), "{leaks:#?}");
    said
}

/// `migrate sqlite-to-pg` without progress.
pub(crate) fn migrate(home: &Path, source: &Path, target: &str, more: &[&str]) -> Said {
    let mut arguments =
        vec!["migrate", "sqlite-to-pg", "--progress", "none", "--source", source.to_str().unwrap(), "--target", target];
    arguments.extend(more);
    run(home, &arguments)
}

/// `migrate verify`.
pub(crate) fn verify(home: &Path, source: &str, target: &str) -> Said {
    run(home, &["migrate", "verify", "--progress", "none", "--source", source, "--target", target])
}

/// Waits until `done` gives something, at most so long.
#[track_caller]
pub(crate) fn wait_for<T>(what: &str, at_most: Duration, mut done: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = done() {
            return value;
        }
        assert!(begun.elapsed() < at_most, "{what} did not happen within {at_most:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The folder of a cached environment of `tests/mlflow/environments.py`: `mlflow-2.9.2`, `postgres-18`.
pub(crate) fn environment(name: &str) -> PathBuf {
    cached(name).unwrap_or_else(|| panic!("the environment {name} could not be made"))
}

fn cached(name: &str) -> Option<PathBuf> {
    let output = Command::new("python3")
        .arg(root().join("tests/mlflow/environments.py"))
        .arg(name)
        .stderr(Stdio::inherit())
        .output()
        .expect("python3 runs");
    output.status.success().then(|| PathBuf::from(String::from_utf8(output.stdout).unwrap().trim()))
}

/// The programs of a PostgreSQL: 15 of the system, 18 of the PyPI wheel. Where 15 is not installed, 18 stands in.
pub(crate) fn programs(version: u32) -> PathBuf {
    cached(&format!("postgres-{version}")).unwrap_or_else(|| {
        eprintln!("PostgreSQL {version} is not installed: 18 stands in for it");
        environment("postgres-18")
    })
}

/// The Python of an MLflow release's environment.
pub(crate) fn python(release: &str) -> PathBuf {
    environment(&format!("mlflow-{release}")).join("bin/python")
}

/// Removes a folder when this process is gone, however it ends: what is shared by all tests is never dropped. Keep the
/// child, whose stdin is the sign of life.
pub(crate) fn removed_at_exit(folder: &str) -> Child {
    let script = "cat > /dev/null; sleep 1; rm -rf -- \"$1\"";
    Command::new("sh").args(["-c", script, "sh", folder]).stdin(Stdio::piped()).spawn().unwrap()
}

/// A private cluster that lives as long as the test process.
#[derive(Clone)]
pub(crate) struct Server {
    address: PgAddress,
    pub(crate) programs: PathBuf,
}

/// PostgreSQL 15 of the system, or 18 of the PyPI wheel.
pub(crate) fn postgres(version: u32) -> Server {
    static SERVERS: OnceLock<Mutex<Vec<(u32, Server)>>> = OnceLock::new();
    let mut servers = SERVERS.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, server)) = servers.iter().find(|(v, _)| *v == version) {
        return server.clone();
    }
    let programs = programs(version);
    let (send, receive) = mpsc::channel();
    let bin = programs.clone();
    // The server ends with the thread that started it, so that thread never ends by itself.
    std::thread::spawn(move || {
        let cluster = PrivateCluster::start(&bin, &std::env::temp_dir());
        let _reaper = cluster.as_ref().ok().map(|c| removed_at_exit(&c.address("postgres").hosts[0].0));
        send.send(cluster.as_ref().map(|c| c.address("postgres")).map_err(Clone::clone)).unwrap();
        loop {
            std::thread::park();
        }
    });
    let address = receive.recv().unwrap().expect("a private cluster");
    let server = Server { address, programs };
    servers.push((version, server.clone()));
    server
}

impl Server {
    /// The folder of its socket.
    pub(crate) fn socket_folder(&self) -> String {
        self.address.hosts[0].0.clone()
    }

    /// The database that administrators connect to.
    pub(crate) fn maintenance(&self) -> Database {
        Database { address: self.address.clone(), programs: self.programs.clone() }
    }

    /// A new, empty database of that name.
    pub(crate) fn database(&self, name: &str) -> Database {
        self.database_like(name, "template1")
    }

    /// A new database of that name, with all that is in another that nobody is connected to.
    pub(crate) fn database_like(&self, name: &str, template: &str) -> Database {
        let mut client = connect(&self.address);
        client.batch_execute(&format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", quote(name))).unwrap();
        client.batch_execute(&format!("CREATE DATABASE {} TEMPLATE {}", quote(name), quote(template))).unwrap();
        let mut address = self.address.clone();
        address.database = Some(name.to_owned());
        Database { address, programs: self.programs.clone() }
    }
}

/// A database of a private cluster.
pub(crate) struct Database {
    pub(crate) address: PgAddress,
    pub(crate) programs: PathBuf,
}

fn connect(address: &PgAddress) -> postgres::Client {
    Postgres::new(address, "test", &Cancel::new()).unwrap().connect().unwrap()
}

impl Database {
    pub(crate) fn url(&self) -> String {
        self.address.to_string()
    }

    /// The form that MLflow takes.
    pub(crate) fn sqlalchemy(&self) -> String {
        self.url().replace("postgresql://", "postgresql+psycopg2://")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        Path::new(&self.address.hosts[0].0).join(".s.PGSQL.5432")
    }

    pub(crate) fn client(&self) -> postgres::Client {
        connect(&self.address)
    }

    pub(crate) fn execute(&self, sql: &str) {
        self.client().batch_execute(sql).unwrap();
    }

    pub(crate) fn number(&self, sql: &str) -> i64 {
        self.client().query_one(sql, &[]).unwrap().get(0)
    }

    pub(crate) fn texts(&self, sql: &str) -> Vec<String> {
        self.client().query(sql, &[]).unwrap().iter().map(|row| row.get(0)).collect()
    }

    /// Tables in the schema that MLflow uses.
    pub(crate) fn tables(&self) -> Vec<String> {
        self.texts("SELECT relname::text FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY 1")
    }

    /// Schemas that mlops made.
    pub(crate) fn own_schemas(&self) -> Vec<String> {
        self.texts("SELECT nspname::text FROM pg_namespace WHERE nspname LIKE 'mlops%' ORDER BY 1")
    }

    /// `pg_dump --schema-only`, without the lines that hold a random key.
    pub(crate) fn dump_schema(&self) -> String {
        let mut command = Command::new(self.programs.join("pg_dump"));
        command.args(["--schema-only", "--no-owner", "-h", &self.address.hosts[0].0]);
        command.args(["-U", self.address.user.as_deref().unwrap(), "-d", self.address.database.as_deref().unwrap()]);
        let said = Said::of(command.output().unwrap()).expect(0);
        without_keys(&said.out)
    }
}

/// Newer versions of pg_dump write `\restrict` with a random key.
pub(crate) fn without_keys(dump: &str) -> String {
    dump.lines().filter(|l| !l.starts_with("\\restrict") && !l.starts_with("\\unrestrict")).fold(
        String::new(),
        |mut text, line| {
            text.push_str(line);
            text.push('\n');
            text
        },
    )
}

/// A sample store with so many metric rows, made once per size.
pub(crate) fn sample(metrics: u64) -> PathBuf {
    static MADE: OnceLock<Mutex<Vec<(u64, tempfile::TempDir, Child)>>> = OnceLock::new();
    let mut made = MADE.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, folder, _)) = made.iter().find(|(size, ..)| *size == metrics) {
        return folder.path().join("sample.db");
    }
    let folder = folder();
    let file = folder.path().join("sample.db");
    let rows = metrics.to_string();
    let arguments = ["demo", "--only-sample", "-q", "--metrics", &rows, "--file", file.to_str().unwrap()];
    run(folder.path(), &arguments).expect(0);
    let reaper = removed_at_exit(folder.path().to_str().unwrap());
    made.push((metrics, folder, reaper));
    file
}

/// A child that is killed and reaped when the test ends, however it ends.
pub(crate) struct Killed(pub(crate) Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
