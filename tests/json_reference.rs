//! `docs/json.md` against the program: each schema has its section; each field that is documented is printed by some
//! run, or says what it takes. What the runs of all other tests print is held against it where they read it
//! (`Said::json`).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use flate2::read::MultiGzDecoder;
use rusqlite::Connection;
use serde_json::{Value, json};

use crate::flows::Server;
use crate::health::request;
use crate::support::reference::reference;
use crate::support::secrets::SECRET;
use crate::support::{Said, folder, mlops, postgres, root, sample};

fn sources(folder: &Path, into: &mut String) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, into);
        } else {
            into.push_str(&fs::read_to_string(path).unwrap());
        }
    }
}

fn source() -> String {
    let mut all = String::new();
    sources(&root().join("src"), &mut all);
    all
}

/// The names of commands in `command::name`, and the schemas that stand in the source.
fn schemas() -> BTreeSet<String> {
    let commands = fs::read_to_string(root().join("src/command/mod.rs")).unwrap();
    let (_, names) = commands.split_once("fn name(command: &Command)").unwrap();
    let (names, _) = names.split_once("\n}").unwrap();
    let names = names.split("=> \"").skip(1).filter_map(|rest| rest.split('"').next());
    let mut found: BTreeSet<String> = names.chain(["error"]).map(|name| format!("mlops.{name}.v1")).collect();
    assert!(found.len() > 35, "so few are not all: {found:?}");
    for text in source().split("\"mlops.").skip(1) {
        let word = text.split('"').next().unwrap_or_default();
        found.extend((word.ends_with(".v1") && !word.contains('{')).then(|| format!("mlops.{word}")));
    }
    found
}

#[test]
fn every_schema_has_its_section_and_no_section_is_of_none() {
    let documented: BTreeSet<String> = reference().names().filter(|n| n.ends_with(".v1")).map(str::to_owned).collect();
    assert_eq!(documented, schemas());
}

/// What no plain run prints is at least a name and a word that the source knows.
#[test]
fn every_field_and_word_stands_in_the_source() {
    let source = source();
    let known = |word: &str| {
        source.contains(&format!("\"{word}\"")) || source.contains(&format!("\"{}\"", word.replace('_', " ")))
    };
    let variant = |word: &str| {
        let upper = |part: &str| part[..1].to_uppercase() + &part[1..];
        source.contains(&format!("    {},\n", word.split('_').map(upper).collect::<String>()))
    };
    for section in reference().names() {
        for (path, _, words) in reference().rows(section) {
            let name = path.rsplit('.').next().unwrap().trim_end_matches("[]");
            let there = name == "*" || known(name) || source.contains(&format!("{name}: "));
            assert!(there, "{section}: nothing in the source is called {name}");
            for word in words {
                assert!(known(word) || variant(word), "{section}: {path} is never `{word}`");
            }
        }
    }
}

/// What was printed, and which fields that had.
struct Printed {
    home: tempfile::TempDir,
    seen: Mutex<BTreeMap<String, BTreeSet<String>>>,
}

impl Printed {
    fn path(&self, name: &str) -> String {
        self.home.path().join(name).to_str().unwrap().to_owned()
    }

    #[track_caller]
    fn keep(&self, section: &str, document: &Value) {
        let fields = reference().check(section, document).unwrap_or_else(|wrong| panic!("{wrong}"));
        self.seen.lock().unwrap().entry(section.to_owned()).or_default().extend(fields);
    }

    /// The document of a run.
    #[track_caller]
    fn run(&self, code: i32, arguments: &[&str]) -> Value {
        let mut command = mlops(self.home.path());
        command.env("ROLE_PASSWORD", SECRET).args(arguments).args(["--output", "json", "--progress", "none"]);
        let document = Said::of(command.output().unwrap()).expect(code).json();
        self.keep(document["schema"].as_str().unwrap(), &document);
        document["result"].clone()
    }

    /// A file with a document a line, or with one.
    #[track_caller]
    fn file(&self, section: &str, path: impl AsRef<Path>) {
        let bytes = fs::read(path.as_ref()).unwrap();
        let mut text = String::new();
        if bytes.starts_with(&[0x1f, 0x8b]) {
            MultiGzDecoder::new(&bytes[..]).read_to_string(&mut text).unwrap();
        } else {
            text = String::from_utf8(bytes).unwrap();
        }
        let lines: Result<Vec<Value>, _> = text.lines().map(serde_json::from_str).collect();
        for document in lines.unwrap_or_else(|_| vec![serde_json::from_str(&text).unwrap()]) {
            self.keep(section, &document);
        }
    }
}

/// A migration with its file, a comparison, a look and a mending, on SQLite and PostgreSQL.
fn databases(printed: &Printed) {
    let file = printed.path("sample.db");
    fs::copy(sample(2_000), &file).unwrap();
    let databases = ["reference_a", "reference_b", "reference_c"].map(|name| postgres(15).database(name));
    let [a, b, c] = databases.each_ref().map(|d| d.url());
    let (certificate, archive) = (printed.path("certificate.json"), printed.path("store.tar"));
    let moved = ["migrate", "sqlite-to-pg", "--source", &file, "--target", &a];
    let migrate = |code, more: &[&str]| printed.run(code, &[&moved[..], more].concat());
    migrate(0, &["--dry-run"]);
    migrate(0, &["--certificate", &certificate]);
    printed.file("mlops.certificate.v1", &certificate);
    printed.run(0, &["migrate", "sqlite-to-pg", "--source", &file, "--rehearse"]);
    printed.run(0, &["migrate", "export", &file, "--file", &archive, "--dry-run"]);
    printed.run(0, &["migrate", "export", &file, "--file", &archive]);
    printed.run(0, &["migrate", "import", &archive, "--target", &b, "--dry-run"]);
    printed.run(0, &["migrate", "import", &archive, "--target", &b]);

    let bad = printed.path("bad.db");
    fs::copy(&file, &bad).unwrap();
    Connection::open(&bad)
        .unwrap()
        .execute("UPDATE params SET value = CAST(x'ff00fe' AS TEXT) WHERE rowid = 1", [])
        .unwrap();
    let aside = printed.path("aside.jsonl");
    let moved = ["migrate", "sqlite-to-pg", "--source", &bad, "--target", &c];
    let migrate = |code, more: &[&str]| printed.run(code, &[&moved[..], more].concat());
    migrate(6, &["--dry-run"]);
    migrate(4, &["--bad-rows", "quarantine", "--quarantine-file", &aside]);
    printed.file("--bad-rows quarantine", &aside);

    printed.run(0, &["db", "info", &a]);
    databases[1].execute("ALTER TABLE latest_metrics DROP CONSTRAINT latest_metric_pk");
    printed.run(5, &["db", "doctor", &b]);
    printed.run(5, &["db", "doctor", &b, "--print"]);
    printed.run(0, &["db", "doctor", &b, "--fix", "--yes"]);
    let server = postgres(15).maintenance().url();
    let names = ["--role", "reference", "--database", "reference", "--password-env", "ROLE_PASSWORD"];
    let init = |more: &[&str]| printed.run(0, &[&["db", "init", &server], &names[..], more].concat());
    init(&["--print"]);
    init(&["--schema", "3.17.2", "--yes"]);
    printed.run(0, &["config", "show"]);
    printed.run(0, &["config", "check"]);
    let first = printed.path("first.toml");
    printed.run(0, &["config", "init", &first, "--backup-to", "/backup/mlflow"]);
    printed.run(0, &["demo", "--only-sample", "--metrics", "2000", "--file", &printed.path("demo.db")]);
    let demo = postgres(15).database("reference_demo").url();
    printed.run(0, &["demo", "--metrics", "2000", "--target", &demo, "--file", &printed.path("demo2.db")]);
    printed.run(2, &["db", "info", "--no-such-flag"]);
    printed.run(3, &["completions", "bash", "--config", &printed.path("none.toml")]);
    printed.run(3, &["man", &printed.path("man"), "--config", &printed.path("none.toml")]);

    let mut command = mlops(printed.home.path());
    command.args(["migrate", "verify", "--source", &file, "--target", &a, "--progress", "json"]);
    for line in Said::of(command.output().unwrap()).expect(0).err.lines() {
        printed.keep("--progress json", &serde_json::from_str(line).unwrap());
    }
    databases[0].execute("UPDATE runs SET name = 'another' WHERE run_uuid = (SELECT min(run_uuid) FROM runs)");
    printed.run(5, &["migrate", "verify", "--source", &file, "--target", &a]);
}

/// A server with a registry and its store.
struct Stack {
    server: Server,
    made: Value,
    store: PathBuf,
    all: Vec<String>,
}

impl Stack {
    fn on(home: &Path) -> Stack {
        let store = home.join("mlflow.db");
        let uri = format!("sqlite:///{}", store.display());
        let server = Server::start("3.17.2", &uri, home, &["--serve-artifacts"]);
        let said = server.script("registry.py", &[]).expect(0);
        let made = serde_json::from_str(said.out.lines().last().unwrap()).unwrap();
        let root = home.join("artifacts").display().to_string();
        let all = [
            ("--tracking-uri", server.url.clone()),
            ("--backend-store-uri", store.display().to_string()),
            ("--artifact-root", root),
        ];
        let all = all.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect();
        Stack { server, made, store, all }
    }

    fn with<'a>(&'a self, arguments: &[&'a str]) -> Vec<&'a str> {
        arguments.iter().copied().chain(self.all.iter().map(String::as_str)).collect()
    }

    fn call(&self, path: &str, body: &Value) -> Value {
        let path = format!("/api/2.0/mlflow/{path}");
        let (status, answer) = request("POST", &self.server.url, &path, "", &body.to_string());
        assert_eq!(status, 200, "{answer}");
        serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap_or(Value::Null)
    }

    /// So many runs with a file each: where only a few have one, files of nobody are nothing to be tidied away.
    fn shelved(&self, runs: usize) {
        for _ in 0..runs {
            let run = self.call("runs/create", &json!({"experiment_id": "1", "start_time": 1_000}));
            let id = run["run"]["info"]["run_id"].as_str().unwrap();
            let folder = self.store.parent().unwrap().join("artifacts/1").join(id).join("artifacts");
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("file"), "x").unwrap();
        }
    }

    /// An experiment with a run that ended long ago.
    fn old(&self, name: &str) {
        let experiment = self.call("experiments/create", &json!({"name": name}))["experiment_id"].clone();
        let run =
            self.call("runs/create", &json!({"experiment_id": experiment, "start_time": 1_000, "run_name": "old"}));
        let id = &run["run"]["info"]["run_id"];
        self.call("runs/update", &json!({"run_id": id, "status": "FINISHED", "end_time": 2_000}));
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value}"))
}

fn registry(printed: &Printed, stack: &Stack) {
    let run = |code, arguments: &[&str]| printed.run(code, &stack.with(arguments));
    let (good, logged) = (text(&stack.made["good"]["id"]), text(&stack.made["logged"]["id"]));
    run(0, &["models", "list", "--metric", "rmse"]);
    for what in ["forecast", "forecast/3", logged] {
        run(0, &["models", "show", what]);
    }
    let exported = printed.path("exported");
    run(4, &["models", "export", "--files", &exported]);
    printed.file("mlops.models.export-files.v1", Path::new(&exported).join("manifest.json"));
    run(0, &["models", "register", "--run", good, "--name", "made", "--tag", "by=test", "--dry-run"]);
    run(0, &["models", "register", "--run", good, "--name", "made", "--tag", "by=test"]);
    let promote = |code, more: &[&str]| run(code, &[&["promote", "--model", "forecast"], more].concat());
    promote(5, &["--version", "4", "--require", "rmse < 0.2", "--dry-run"]);
    promote(0, &["--version", "1", "--set-validation-status"]);
    promote(0, &["--version", "1", "--reason", "because", "--yes"]);
    promote(0, &["--version", "1"]);
    run(0, &["rollback", "--model", "forecast", "--reason", "no more", "--dry-run"]);
    run(0, &["rollback", "--model", "forecast", "--reason", "no more", "--yes"]);
    run(0, &["models", "history", "forecast"]);
    printed.file("promotions.jsonl", printed.path("state/promotions.jsonl"));
}

fn backups(printed: &Printed, stack: &Stack) {
    let place = printed.path("backups");
    let made = printed.run(0, &stack.with(&["backup", "--to", &place, "--keep-last", "1", "--prune"]));
    let folder = Path::new(&place).join(text(&made["id"]));
    let run = |arguments: &[&str]| printed.run(0, &[&["backup"], arguments, &["--from", &place]].concat());
    run(&["verify", "--all", "--drill"]);
    run(&["list"]);
    for command in ["show", "pin", "unpin"] {
        run(&[command, text(&made["id"])]);
    }
    run(&["prune", "--keep-last", "1", "--dry-run"]);
    for file in ["manifest.json", "artifacts.jsonl.gz", "proof.json"] {
        printed.file(file, folder.join(file));
    }
    let (to, artifacts) = (printed.path("again.db"), printed.path("again"));
    let restore = ["restore", "latest", "--from", &place, "--to", &to, "--artifact-root", &artifacts];
    printed.run(0, &[&restore[..], &["--dry-run"]].concat());
    printed.run(0, &[&restore[..], &["--experiment", "registry"]].concat());
}

fn verifications(printed: &Printed, stack: &Stack) {
    let (snapshot, earlier) = (printed.path("a.snap"), printed.path("earlier.json"));
    printed.run(0, &stack.with(&["verify", "snapshot", "--file", &snapshot]));
    printed.file("mlops.snapshot.v1", &snapshot);
    printed.run(0, &stack.with(&["verify", "compare", "--file", &snapshot]));
    printed.run(0, &stack.with(&["verify", "deployment"]));
    let writers = ["verify", "concurrency", "--writers", "2", "--runs", "1", "--metrics", "4"];
    printed.run(0, &stack.with(&[&writers[..], &["--dry-run"]].concat()));
    let first = mlops(printed.home.path()).args(stack.with(&writers)).args(["--output", "json"]).output().unwrap();
    fs::write(&earlier, Said::of(first).expect(0).out).unwrap();
    // How fast it is is not what this is about.
    printed.run(0, &stack.with(&[&writers[..], &["--baseline", &earlier, "--worse-than", "1000"]].concat()));
}

/// The two halves of a clean-up, each planned, done, and put back where that can be.
fn cleanups(printed: &Printed, stack: &Stack) {
    let run = |arguments: &[&str]| printed.run(0, &stack.with(&[&["cleanup"], arguments].concat()));
    ["old-a", "old-b", "old-c"].iter().for_each(|name| stack.old(name));
    let of = |name| ["experiments", "--name", name, "--older-than", "0s"];
    run(&[&of("old-*")[..], &["--dry-run"]].concat());
    let batch = text(&run(&[&of("old-a")[..], &["--yes"]].concat())["batch"]).to_owned();
    run(&["undo"]);
    run(&["undo", &batch, "--yes"]);
    let runs = ["runs", "--experiment", "old-b", "--older-than", "0s"];
    run(&[&runs[..], &["--dry-run"]].concat());
    let batch = text(&run(&[&runs[..], &["--yes"]].concat())["batch"]).to_owned();
    run(&["undo", &batch, "--yes"]);
    run(&[&of("old-c")[..], &["--yes"]].concat());
    let purge = ["purge", "--older-than", "0s"];
    run(&[&purge[..], &["--dry-run"]].concat());
    run(&[&purge[..], &["--backup-first", &printed.path("purged.tar"), "--yes"]].concat());

    let orphan = |id: char| {
        let folder = printed.home.path().join("artifacts/1").join(id.to_string().repeat(32)).join("artifacts");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("file"), "x").unwrap();
        let sql = "PRAGMA foreign_keys = OFF; INSERT INTO tags (key, value, run_uuid) VALUES ('k', 'v', 'ID')";
        Connection::open(&stack.store).unwrap().execute_batch(&sql.replace("ID", &id.to_string().repeat(32))).unwrap();
    };
    orphan('a');
    let sweep = ["orphans", "--min-age", "0s", "--sole-owner"];
    run(&[&sweep[..], &["--dry-run"]].concat());
    let done = run(&[&sweep[..], &["--yes"]].concat());
    printed.file("mlops cleanup orphans", text(&done["rows_file"]));

    run(&[&sweep[..], &["--dry-run"]].concat());

    // By policy: each kind has something to do, and a batch is in quarantine.
    orphan('b');
    stack.shelved(20);
    ["old-c", "old-d"].iter().for_each(|name| stack.old(name));
    run(&[&of("old-d")[..], &["--yes"]].concat());
    let policies = ["experiments\"\nname = [\"old-a\"]", "runs\"\nexperiment = [\"old-b\"]", "purge\"", "orphans\""];
    let policies = policies.map(|kind| format!("[[cleanup.policy]]\nkind = \"{kind}\nolder_than = \"0s\"\n"));
    let file = printed.path("mlops.toml");
    fs::write(&file, policies.concat()).unwrap();
    let done = run(&["policy", "--yes", "--config", &file]);
    run(&["orphans", "--put-back", text(&done["policies"][3]["batch"]), "--yes"]);
}

#[test]
fn every_field_is_printed_or_says_what_it_takes() {
    let printed = Printed { home: folder(), seen: Mutex::default() };
    let stack = Stack::on(printed.home.path());
    printed.run(2, &stack.with(&["health", "--skip", "database.path"]));
    printed.run(0, &stack.with(&["health", "--dry-run"]));
    registry(&printed, &stack);
    backups(&printed, &stack);
    verifications(&printed, &stack);
    cleanups(&printed, &stack);
    let shared = &printed;
    std::thread::scope(|scope| {
        // It looks for a while for a restart that never comes.
        let restart = ["verify", "persistence", "--restart-cmd", "true", "--experiments", "1"];
        let url = ["--tracking-uri", &stack.server.url];
        let persistence = [&restart[..], &url].concat();
        scope.spawn(move || shared.run(5, &persistence));
        databases(&printed);
    });
    for journal in fs::read_dir(printed.home.path().join("state/journal")).unwrap().flatten() {
        let text = fs::read_to_string(journal.path()).unwrap();
        for line in [text.lines().next(), text.lines().last()].into_iter().flatten() {
            printed.keep("journal/<id>.jsonl", &serde_json::from_str(line).unwrap());
        }
    }
    let seen = printed.seen.into_inner().unwrap();
    let mut missing = Vec::new();
    for section in reference().names() {
        let none = BTreeSet::new();
        let there = seen.get(section).unwrap_or(&none);
        let rows = reference().rows(section);
        let unseen = rows.iter().filter(|(path, sometimes, _)| !sometimes && !there.contains(path));
        missing.extend(unseen.map(|(path, ..)| format!("{section}: {path}")));
    }
    assert!(
        missing.is_empty(),
        "no run printed these, and their rows do not say what it takes:\n{}",
        missing.join("\n")
    );
}
