//! `mlops verify persistence`, `snapshot` and `compare` on real servers that are really stopped and started: what survives
//! is said to, and every kind of loss is named.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::flows::upgrade;
use crate::support::relay::{Fate, Relay};
use crate::support::{Database, Said, folder, mlops, postgres, python, root, wait_for};

/// A server that scripts stop and start, on one port. `between` runs while it is stopped.
pub(crate) struct Stack {
    pub(crate) place: tempfile::TempDir,
    pub(crate) home: tempfile::TempDir,
    pub(crate) url: String,
    pub(crate) store: String,
    release: String,
    pub(crate) database: Option<Database>,
}

const START: &str = r#"
cd "$(dirname "$0")" && rm -f ready
"$(cat python)" SERVER --backend-store-uri "$(cat store)" --artifact-root "$(cat root)" --ready-file ready --port PORT \
    --log server.log $(cat more) < /dev/null > /dev/null 2>> start.log &
echo $! > pid
"#;
/// The web server and its workers are the one group that the minder has; it ends with them.
const STOP: &str = r#"
cd "$(dirname "$0")" || exit
read -r pid < pid
read -r child rest < "/proc/$pid/task/$pid/children"
env kill "-$(cat signal)" -- "-$child"
for turn in $(seq 600); do
    grep -qs '^State:.[^Z]' "/proc/$pid/status" || exit 0
    sleep 0.05
done
exit 1
"#;
const RESTART: &str = r#"
here="$(dirname "$0")"
sh "$here/stop.sh" || exit 1
if [ -f "$here/between.py" ]; then "$(cat "$here/python")" "$here/between.py" || exit 1; fi
sh "$here/start.sh"
"#;

impl Stack {
    pub(crate) fn new(release: &str, database: Option<Database>, more: &str) -> Stack {
        let (place, home) = (folder(), folder());
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let file = format!("sqlite:///{}", place.path().join("mlflow.db").display());
        let store = database.as_ref().map_or(file, Database::sqlalchemy);
        let url = format!("http://127.0.0.1:{port}");
        let stack = Stack { place, home, url, store, release: release.to_owned(), database };
        let start = START.replace("SERVER", root().join("tests/mlflow/server.py").to_str().unwrap());
        stack.write("start.sh", &start.replace("PORT", &port.to_string()));
        stack.write("stop.sh", STOP);
        stack.write("restart.sh", RESTART);
        stack.write("signal", "TERM");
        stack.write("more", more);
        stack.write("store", &stack.store);
        stack.write("root", stack.path("artifacts").to_str().unwrap());
        stack.run_as(release);
        stack.start();
        stack
    }

    fn sqlite(release: &str) -> Stack {
        Stack::new(release, None, "")
    }

    pub(crate) fn path(&self, name: &str) -> std::path::PathBuf {
        self.place.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// From the next start on.
    fn run_as(&self, release: &str) {
        self.write("python", python(release).to_str().unwrap());
    }

    fn sh(&self, script: &str) {
        let status = Command::new("sh").arg(self.path(script)).stdin(Stdio::null()).status().unwrap();
        assert!(status.success(), "{script}: {}", fs::read_to_string(self.path("start.log")).unwrap_or_default());
    }

    pub(crate) fn start(&self) {
        self.sh("start.sh");
        wait_for("the server's answer", Duration::from_secs(150), || {
            let pid = fs::read_to_string(self.path("pid")).unwrap();
            let log = || fs::read_to_string(self.path("server.log")).unwrap_or_default();
            assert!(Path::new("/proc").join(pid.trim()).exists(), "the server ended: {}", log());
            self.path("ready").exists().then_some(())
        });
    }

    fn stop(&self) {
        self.sh("stop.sh");
    }

    /// What happens while the server is stopped, in Python; `db` runs statements on the SQLite file.
    fn between(&self, code: &str) {
        let path = self.path("mlflow.db");
        let head = format!(
            "import os, shutil, sqlite3\nPLACE, FILE = {:?}, {:?}\ndef db(*all):\n    c = sqlite3.connect(FILE)\n    \
             for one in all: assert c.execute(one).rowcount, one\n    c.commit()\n    c.close()\n",
            self.place.path().to_str().unwrap(),
            path.to_str().unwrap()
        );
        self.write("between.py", &format!("{head}{code}\n"));
    }

    fn script(&self, name: &str, more: &[&str]) {
        let mut command = Command::new(python(&self.release));
        command.arg(root().join("tests/mlflow").join(name)).args(["--tracking-uri", &self.url]).args(more);
        Said::of(command.stdin(Stdio::null()).output().unwrap()).expect(0);
    }

    /// Somebody makes an experiment, runs, a file and a version.
    fn works(&self) {
        let code = "import sys, uuid, mlflow\nmlflow.set_tracking_uri(sys.argv[1])\nc = mlflow.MlflowClient()\n\
                    name = uuid.uuid4().hex\ne = c.create_experiment(name)\nfor n in range(4):\n    \
                    r = c.create_run(e, tags={'colour': 'blue'}).info.run_id\n    \
                    for step in range(5): c.log_metric(r, 'loss', 1 / (step + 1), step=step)\n    \
                    c.log_param(r, 'depth', n)\n    c.log_text(r, name, 'notes.txt')\n    c.set_terminated(r)\n\
                    c.create_registered_model(name)\nc.create_model_version(name, c.get_run(r).info.artifact_uri, r)\n";
        let output = Command::new(python(&self.release)).args(["-c", code, &self.url]).output().unwrap();
        Said::of(output).expect(0);
    }

    fn restart_cmd(&self) -> String {
        format!("sh '{}'", self.path("restart.sh").display())
    }

    fn program(&self, arguments: &[&str]) -> Command {
        let mut command = mlops(self.home.path());
        command.args(["--output", "json", "--progress", "none", "--tracking-uri", &self.url, "verify"]).args(arguments);
        command
    }

    /// One of the three, as a document.
    #[track_caller]
    pub(crate) fn verify(&self, code: i32, arguments: &[&str]) -> Value {
        let said = Said::of(self.program(arguments).output().unwrap()).expect(code);
        said.json()
    }

    /// `persistence` by the script, with the database's address; tests lie in /tmp, which is known.
    #[track_caller]
    fn persistence(&self, code: i32, more: &[&str]) -> Seen {
        let command = self.restart_cmd();
        let known = ["persistence", "--restart-cmd", &command, "--accept", "ephemeral_path", "--experiments", "3"];
        Seen(self.verify(code, &[&known[..], &["--backend-store-uri", &self.store], more].concat()))
    }

    /// Nothing that a check made is active.
    #[track_caller]
    pub(crate) fn nothing_left(&self) {
        let mut left = Command::new(python(&self.release));
        left.arg("-c").arg(
            "import sys, mlflow\nc = mlflow.MlflowClient(sys.argv[1])\n\
             print([e.name for e in c.search_experiments() if e.name.startswith('mlops-')], \
             [m.name for m in c.search_registered_models() if m.name.startswith('mlops-')])",
        );
        let said = Said::of(left.arg(&self.url).output().unwrap()).expect(0);
        assert_eq!(said.out.trim(), "[] []");
        assert_eq!(self.files(), [""; 0]);
    }

    fn files(&self) -> Vec<String> {
        let said = Command::new("grep").args(["-rl", "mlops-verify-"]).arg(self.path("artifacts")).output().unwrap();
        String::from_utf8(said.stdout).unwrap().lines().map(str::to_owned).collect()
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        let _ = Command::new("sh").arg(self.path("stop.sh")).stderr(Stdio::null()).status();
    }
}

struct Seen(Value);

impl Seen {
    fn kinds(&self, list: &str) -> Vec<&str> {
        let mut kinds: Vec<&str> =
            self.0["result"][list].as_array().unwrap().iter().map(|f| f["id"].as_str().unwrap()).collect();
        kinds.sort_unstable();
        kinds.dedup();
        kinds
    }

    /// Exactly these kinds were found.
    #[track_caller]
    fn found(self, kinds: &[&str]) -> Seen {
        assert_eq!(self.kinds("findings"), kinds, "{:#}", self.0);
        self
    }

    /// One of the findings of that kind says this.
    #[track_caller]
    fn says(self, kind: &str, text: &str) -> Seen {
        let all = self.0["result"]["findings"].as_array().unwrap();
        let said = |f: &Value| f["id"] == kind && format!("{} {}", f["object"], f["what"]).contains(text);
        assert!(all.iter().any(said), "{kind} {text}: {:#}", self.0);
        self
    }

    #[track_caller]
    fn step(&self, name: &str) -> &Value {
        let steps = self.0["result"]["steps"].as_array().unwrap();
        steps.iter().find(|s| s["name"] == name).unwrap_or_else(|| panic!("{name}: {:#}", self.0))
    }

    #[track_caller]
    fn evidence(self, step: &str, text: &str) -> Seen {
        assert!(self.step(step)["evidence"].as_str().unwrap().contains(text), "{text}: {:#}", self.step(step));
        self
    }
}

/// A filled store comes out of a restart as it went in; what was made for the check is gone afterwards.
#[track_caller]
fn survives(stack: &Stack, signal: &str) {
    stack.write("signal", signal);
    let page = stack.home.path().join("page.md");
    let seen = stack.persistence(0, &["--frozen", "--report", page.to_str().unwrap()]);
    let seen = seen.found(&[]).evidence("digest the database again", "equal, table by table");
    assert_eq!(seen.0["result"]["verdict"], "passed");
    assert_eq!(seen.0["result"]["soft_deleted"].as_array().map(Vec::len), Some(0), "with the database all of it goes");
    // The new one may listen before the next look, and answer when it is ready.
    let seen = seen.evidence("restart", "another process");
    for step in seen.0["result"]["steps"].as_array().unwrap() {
        assert!(["passed", "skipped"].contains(&step["verdict"].as_str().unwrap()), "{:#}", seen.0);
    }
    let counts = &seen.0["result"]["counts"];
    // Which runs' files are read is chance.
    for kind in ["experiments", "runs", "models", "versions", "histories", "metrics", "params"] {
        assert!(counts[kind].as_u64().unwrap() > 3, "{kind}: {counts}");
    }
    let page = fs::read_to_string(page).unwrap();
    assert!(page.contains("**Passed:**") && page.contains("## Procedure") && page.contains("restart.sh"), "{page}");
    stack.nothing_left();
}

fn filled(release: &str, database: Option<Database>, more: &str) -> Stack {
    let stack = Stack::new(release, database, more);
    let artifacts = stack.path("own-artifacts");
    stack.script(
        "fill.py",
        &["--artifact-dir", artifacts.to_str().unwrap(), "--backend-store-uri", &stack.store.clone()],
    );
    stack
}

#[test]
fn mlflow_2_9_2_survives_on_both_engines() {
    survives(&filled("2.9.2", None, ""), "TERM");
    survives(&filled("2.9.2", Some(postgres(15).database("persist_2_9_2")), "--serve-artifacts"), "KILL");
}

#[test]
fn mlflow_3_4_0_survives_on_both_engines() {
    survives(&filled("3.4.0", None, "--serve-artifacts"), "KILL");
    survives(&filled("3.4.0", Some(postgres(15).database("persist_3_4_0")), ""), "TERM");
}

#[test]
fn mlflow_3_17_2_survives_on_both_engines() {
    survives(&filled("3.17.2", None, ""), "TERM");
    survives(&filled("3.17.2", Some(postgres(18).database("persist_3_17_2")), "--serve-artifacts"), "KILL");
}

/// A metric point, a tag, a file's byte that went while the server was stopped.
#[test]
fn the_smallest_loss_is_named() {
    let stack = filled("2.9.2", None, "");
    // Not the newest value, which stands in another table.
    stack.between(
        "db('DELETE FROM metrics WHERE rowid = (SELECT m.rowid FROM metrics m JOIN latest_metrics l ON l.run_uuid = \
         m.run_uuid AND l.key = m.key AND m.step < l.step JOIN runs r ON r.run_uuid = m.run_uuid AND r.status = \
         \"FINISHED\" AND r.name LIKE \"mlops-verify%\" LIMIT 1)')",
    );
    stack
        .persistence(5, &[])
        .found(&["changed_marker", "lost_rows"])
        .says("lost_rows", "table metrics")
        .says("lost_rows", "key \\\"marker\\\"")
        .says("changed_marker", "1 of 20 points");
    stack.between(
        "db('DELETE FROM tags WHERE rowid = (SELECT t.rowid FROM tags t JOIN runs r ON r.run_uuid = t.run_uuid AND r.status \
         = \"FINISHED\" WHERE t.key NOT LIKE \"mlflow.%\" AND r.name NOT LIKE \"mlops%\" LIMIT 1)')",
    );
    stack
        .persistence(5, &[])
        .found(&["changed_run", "lost_rows"])
        .says("changed_run", " is gone")
        .says("lost_rows", "table tags");
    stack.between(
        "import glob\nfor path in glob.glob(PLACE + '/artifacts/**/content.txt', recursive=True)[:1]:\n    \
         data = bytearray(open(path, 'rb').read())\n    data[7] ^= 1\n    open(path, 'wb').write(data)",
    );
    stack.persistence(5, &[]).found(&["changed_marker"]).says("changed_marker", "bytes of its file");
    fs::remove_file(stack.path("between.py")).unwrap();
    stack.persistence(0, &[]).found(&[]);
    stack.nothing_left();
}

/// The restart leads to another database, or to an empty one; to another place for artifacts.
#[test]
fn another_store_and_another_root_are_named() {
    let stack = filled("2.9.2", None, "");
    // As `mlflow server` does before it serves; two first requests at once would each make the default experiment.
    let new = "from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore\n\
               SqlAlchemyStore('sqlite:///' + NEW, PLACE + '/artifacts')";
    stack.between(&format!("NEW = PLACE + '/other.db'\n{new}\nopen(PLACE + '/store', 'w').write('sqlite:///' + NEW)"));
    let seen = stack.persistence(5, &[]).says("another_store", "shows none of them").says("lost_marker", "is gone");
    assert!(seen.kinds("findings").contains(&"lost_run"), "{:#}", seen.0);
    // Three experiments and the model are in the first file still; the other one has what was written afterwards.
    let left = seen.0["result"]["unfinished"].as_array().unwrap();
    assert!(left.len() == 4 && left.iter().all(|l| l.as_str().unwrap().contains("is not there now")), "{left:?}");
    // Whoever looks into the other file does not find them, and does not take them for removed.
    let other = stack.verify(0, &["deployment"]);
    assert!(other["warnings"].to_string().contains("is not there now"), "{other:#}");
    stack.write("store", &stack.store);
    fs::remove_file(stack.path("between.py")).unwrap();
    stack.stop();
    stack.start();
    // What the first run could not remove, as the server had the other file.
    let next = stack.persistence(0, &[]).found(&[]);
    assert!(next.0["warnings"].to_string().contains("what it left is removed"), "{:#}", next.0);
    stack.nothing_left();
    assert_eq!(stack.persistence(0, &[]).0["warnings"], serde_json::json!([]));

    stack.between("open(PLACE + '/root', 'w').write(PLACE + '/elsewhere')");
    stack.persistence(5, &[]).found(&["changed_artifact_root"]).says("changed_artifact_root", "elsewhere");

    stack.between(&format!("os.rename(FILE, PLACE + '/away.db')\nNEW = FILE\n{new}"));
    let seen = stack.persistence(5, &[]).says("another_database", "inode").says("another_store", "not one experiment");
    assert!(seen.kinds("findings").contains(&"lost_experiment"), "{:#}", seen.0);
}

/// A command that restarts nothing, one that fails, one that ends the server for good, and a kill of this program.
#[test]
fn a_restart_that_is_none_is_not_believed() {
    let stack = Stack::sqlite("2.9.2");
    stack.works();
    let verify = |code: i32, command: &str, more: &[&str]| {
        let known = ["persistence", "--accept", "ephemeral_path", "--experiments", "2", "--restart-cmd", command];
        Seen(stack.verify(code, &[&known[..], &["--restart-seen-within", "2s"], more].concat()))
    };
    verify(5, "true", &["--ready-timeout", "5s"]).found(&["restart_not_seen"]);
    stack.nothing_left();
    // What was seen until then is told, on the page as well.
    let page = stack.home.path().join("page.md");
    let report = ["--report", page.to_str().unwrap()];
    let cut = |seen: &Seen, says: &str| {
        assert!(seen.0["error"]["message"].as_str().unwrap().contains(says), "{:#}", seen.0);
        assert!(seen.0["error"]["hint"].as_str().unwrap().contains("may be stopped now"), "{:#}", seen.0);
        assert_eq!(
            (&seen.step("fingerprint")["verdict"], &seen.step("restart")["verdict"]),
            (&"passed".into(), &"failed".into())
        );
        assert_eq!(
            (&seen.0["result"]["verdict"], seen.0["result"]["soft_deleted"].as_array().unwrap().len()),
            (&"cut_short".into(), 2)
        );
        let text = fs::read_to_string(&page).unwrap();
        assert!(text.contains("**Not verified:**") && text.contains(says) && text.contains("Soft-deleted"), "{text}");
        fs::remove_file(&page).unwrap();
        stack.nothing_left();
    };
    cut(&verify(7, "echo no such unit >&2; exit 3", &report), "no such unit");
    // The shell's parent is this program.
    cut(&verify(130, "kill -INT $PPID; exec tail -f /dev/null", &report), "half-way");

    let gone = verify(8, &format!("sh '{}'", stack.path("stop.sh").display()), &["--ready-timeout", "2s"]);
    assert_eq!(gone.0["result"]["verdict"], "unreachable", "{:#}", gone.0);
    assert_eq!(gone.0["result"]["unfinished"].as_array().unwrap().len(), 3, "{:#}", gone.0);
    // What lies in a folder needs no server.
    assert_eq!(stack.files().len(), 0);
    stack.start();
    let next = verify(0, &stack.restart_cmd(), &[]);
    assert!(next.0["warnings"].to_string().contains("what it left is removed"), "{:#}", next.0);
    stack.nothing_left();

    let known = ["persistence", "--restart-cmd", "kill -9 $PPID", "--experiments", "2"];
    assert_eq!(stack.program(&known).output().unwrap().status.code(), None);
    assert_eq!(stack.files().len(), 2);
    let next = verify(0, &stack.restart_cmd(), &[]);
    assert!(next.0["warnings"].to_string().contains("what it left is removed"), "{:#}", next.0);
    stack.nothing_left();
}

/// A model whose making was not answered is found by its tag; one that lost its tag is told and stays.
#[test]
fn a_model_is_known_by_its_tag() {
    let stack = Stack::sqlite("2.9.2");
    let relay = Relay::before(stack.url.rsplit(':').next().unwrap().parse().unwrap());
    relay.judge(|head| if head.contains("registered-models/create") { Fate::Swallowed } else { Fate::Through });
    let url = format!("http://127.0.0.1:{}", relay.port);
    let known = ["persistence", "--accept", "ephemeral_path", "--experiments", "1", "--restart-cmd"];
    let mut command = mlops(stack.home.path());
    command.args(["--output", "json", "--progress", "none", "--tracking-uri", &url, "verify"]).args(known).arg("true");
    let document = Said::of(command.output().unwrap()).expect(8).json();
    assert_eq!(
        (&document["result"]["verdict"], &document["result"]["unfinished"]),
        (&"cut_short".into(), &serde_json::json!([]))
    );
    assert!(relay.asked().iter().any(|line| line.contains("registered-models/create")), "{:?}", relay.asked());
    stack.nothing_left();

    let untag = "import sys, mlflow\nc = mlflow.MlflowClient(sys.argv[1])\n[m] = c.search_registered_models()\n\
                 c.delete_registered_model_tag(m.name, 'mlops.marker')";
    let command = format!("'{}' -c \"{untag}\" {} && {}", python("2.9.2").display(), stack.url, stack.restart_cmd());
    let seen = Seen(stack.verify(5, &[&known[..], &[&command]].concat())).found(&["changed_model"]);
    let left = seen.0["result"]["unfinished"].as_array().unwrap();
    assert!(left.len() == 1 && left[0].as_str().unwrap().contains("without its tag"), "{:#}", seen.0);
}

/// Places that do not keep anything, where nobody has said that this is known.
#[test]
fn a_database_in_a_folder_for_temporary_files_is_named() {
    let stack = Stack::sqlite("2.9.2");
    let command = stack.restart_cmd();
    let known = ["persistence", "--experiments", "1", "--restart-cmd", &command, "--backend-store-uri", &stack.store];
    let seen = Seen(stack.verify(5, &known)).found(&["ephemeral_path"]);
    seen.says("ephemeral_path", "mlflow.db").says("ephemeral_path", "artifacts");
}

/// Somebody restarts it by hand; somebody else works there meanwhile.
#[test]
fn a_restart_by_hand_is_seen_and_the_work_of_others_is_theirs() {
    let stack = Stack::sqlite("2.9.2");
    let arguments =
        ["persistence", "--pause", "--accept", "ephemeral_path", "--experiments", "2", "--backend-store-uri"];
    let mut command = stack.program(&[&arguments[..], &[&stack.store, "--quiet"]].concat());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // What it waits for is asked for, whatever else it is not to say.
    let mut asked = String::new();
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut asked).unwrap();
    assert!(asked.contains(&format!("now restart {}", stack.url)), "{asked}");
    stack.works();
    stack.sh("restart.sh");
    let said = Said::of(child.wait_with_output().unwrap()).expect(0);
    let seen = Seen(said.json()).found(&[]);
    assert!(seen.kinds("noted").contains(&"new_experiment"), "{:#}", seen.0);
    assert!(seen.kinds("noted").contains(&"new_rows"), "{:#}", seen.0);
}

/// PostgreSQL: an older state, a sequence that starts anew.
#[test]
fn postgresql_set_back_is_named() {
    let server = postgres(15);
    let stack = Stack::new("2.9.2", Some(server.database("persist_back")), "");
    stack.works();
    let database = stack.database.as_ref().unwrap();
    let sql = |statements: &str| {
        format!(
            "import psycopg2\nc = psycopg2.connect({:?})\nc.autocommit = True\nfor one in {statements}: c.cursor().execute(one)\nc.close()",
            server.maintenance().url()
        )
    };
    // A copy of before the markers takes the database's place.
    stack.stop();
    server.database_like("persist_older", "persist_back");
    stack.start();
    stack.between(&sql("['DROP DATABASE persist_back', 'CREATE DATABASE persist_back TEMPLATE persist_older']"));
    let seen = stack.persistence(5, &[]).says("another_database", "oid").says("lost_marker", "is gone");
    let seen = seen.says("lost_rows", "table experiments").says("lost_experiment", "mlops-verify-");
    assert!(!seen.kinds("findings").contains(&"another_store"), "{:#}", seen.0);

    let own = database.url();
    stack.between(&format!(
        "import psycopg2\nc = psycopg2.connect({own:?})\nc.autocommit = True\n\
         c.cursor().execute('ALTER SEQUENCE experiments_experiment_id_seq RESTART WITH 1')\nc.close()"
    ));
    stack.persistence(5, &[]).found(&["reused_id"]).says("reused_id", "number that is taken");
}

/// Secrets that the server's environment decrypts.
#[test]
fn secrets_of_a_lost_key_are_named() {
    let stack = filled("3.17.2", None, "");
    stack.between(
        "open(PLACE + '/more', 'w').write('--env MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY=YW5vdGhlci1rZXktb2YtdGhpcnR5LXR3by1ieXRlcy4=')",
    );
    stack.persistence(5, &[]).found(&["secrets_unreadable"]).says("secrets_unreadable", "not read any more");

    // And those that are gone.
    stack.write("more", "");
    stack.between("");
    stack.stop();
    stack.start();
    stack.between("db('DELETE FROM webhook_events', 'DELETE FROM webhooks')");
    let known = ["persistence", "--accept", "ephemeral_path", "--experiments", "2", "--restart-cmd"];
    let seen = Seen(stack.verify(5, &[&known[..], &[&stack.restart_cmd()]].concat())).found(&["lost_secret"]);
    seen.says("lost_secret", "were listed before the restart, and ");
}

/// Others are at work between the halves; what is lost meanwhile is seen all the same.
#[test]
fn the_work_of_others_hides_no_loss() {
    let database = postgres(15).database("persist_busy");
    let stack = Stack::new("3.4.0", Some(database), "");
    let database = stack.database.as_ref().unwrap();
    stack.works();
    let open = Command::new(python("3.4.0"))
        .args([
            "-c",
            "import sys, mlflow\nmlflow.set_tracking_uri(sys.argv[1])\nc = mlflow.MlflowClient()\n\
             r = c.create_run('0').info.run_id\nc.log_param(r, 'depth', 1)\nc.log_metric(r, 'loss', 1.0, step=1)",
            &stack.url,
        ])
        .output()
        .unwrap();
    Said::of(open).expect(0);
    let file = stack.home.path().join("busy.snapshot");
    let file = file.to_str().unwrap();
    stack.verify(0, &["snapshot", "--file", file, "--backend-store-uri", &stack.store]);
    let compare = ["compare", "--file", file, "--backend-store-uri", &stack.store];
    stack.works();
    let seen = Seen(stack.verify(0, &compare)).found(&[]);
    assert!(seen.kinds("noted").contains(&"new_rows"), "{:#}", seen.0);
    // A point that is no newest value.
    database.execute(
        "DELETE FROM metrics WHERE step = 2 AND run_uuid = (SELECT run_uuid FROM runs WHERE status = 'FINISHED' ORDER BY \
         start_time LIMIT 1)",
    );
    stack.works();
    Seen(stack.verify(5, &compare)).says("lost_rows", "table metrics");
    let rest = ["compare", "--file", file];
    database.execute("DELETE FROM params WHERE run_uuid IN (SELECT run_uuid FROM runs WHERE status = 'RUNNING')");
    Seen(stack.verify(5, &rest)).says("changed_run", "params.depth is gone");
}

/// Docker is not here: a program of that name does what is asked by the scripts.
#[test]
fn a_container_is_restarted_and_its_volumes_are_looked_at() {
    let stack = Stack::sqlite("2.9.2");
    stack.works();
    let bin = stack.path("bin");
    fs::create_dir(&bin).unwrap();
    let docker = format!(
        "#!/bin/sh\nplace='{}'\ncase \"$*\" in\n\
         'compose version') exit 0 ;;\n'compose ps -q api') echo abcdef012345 ;;\n\
         'compose restart api' | 'restart mlflow') date +%s%N > $place/started; exec sh $place/restart.sh ;;\n\
         'inspect --type container mlflow' | 'inspect --type container abcdef012345') sed \"s/AT/$(cat $place/started)/\" $place/inspect ;;\n\
         *) echo \"unknown: $*\" >&2; exit 1 ;;\nesac\n",
        stack.place.path().display()
    );
    fs::File::create(bin.join("docker")).unwrap().write_all(docker.as_bytes()).unwrap();
    Command::new("chmod").arg("+x").arg(bin.join("docker")).status().unwrap();
    stack.write("started", "0");
    let inspect = |mounts: &str| {
        let text = format!(
            r#"[{{"State": {{"StartedAt": "AT"}}, "Mounts": [{mounts}], "Path": "mlflow", "Config": {{"WorkingDir": "/app"}},
                "Args": ["server", "--backend-store-uri", "sqlite:////data/mlflow.db", "--default-artifact-root", "/data/art"]}}]"#
        );
        stack.write("inspect", &text);
    };
    let verify = |code: i32, unit: &str| {
        let arguments = ["persistence", "--restart", unit, "--accept", "ephemeral_path", "--experiments", "2"];
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
        Seen(Said::of(stack.program(&arguments).env("PATH", path).output().unwrap()).expect(code).json())
    };
    inspect(r#"{"Type": "volume", "Name": "mlflow-data", "Destination": "/data"}"#);
    verify(0, "docker:mlflow").found(&[]).evidence("restart", "the container was started at");
    inspect("");
    verify(5, "compose:api").found(&["missing_volume"]).says("missing_volume", "/data/mlflow.db");
    inspect(&format!(r#"{{"Type": "volume", "Name": "{}", "Destination": "/data"}}"#, "0f".repeat(32)));
    verify(5, "docker:mlflow").found(&["anonymous_volume"]);
    let unknown = verify(7, "docker:another");
    assert!(unknown.0["error"]["message"].as_str().unwrap().contains("Docker cannot be asked"), "{:#}", unknown.0);
    stack.nothing_left();
}

/// A real upgrade over two releases between the halves, on both engines.
#[test]
fn an_upgrade_is_accepted_where_it_is_allowed_and_nothing_else() {
    let all = ["2.9.2", "3.4.0", "3.17.2"];
    let server = postgres(15);
    for (database, releases) in [
        (None, &all[..]),
        (Some(server.database("persist_upgrade")), &all[..]),
        // Traces, of which the newest moves rows elsewhere.
        (Some(server.database("persist_traces")), &all[1..]),
    ] {
        let mut stack = filled(releases[0], database, "");
        let file = stack.home.path().join("before.snapshot");
        let file = file.to_str().unwrap();
        let store = stack.store.clone();
        stack.verify(0, &["snapshot", "--file", file, "--backend-store-uri", &store]);
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
        stack.verify(9, &["snapshot", "--file", file]);
        stack.verify(9, &["snapshot", "--file", file, "--dry-run"]);
        let compare = ["compare", "--file", file, "--backend-store-uri", &store, "--frozen"];
        Seen(stack.verify(0, &compare)).found(&[]).evidence("digest the database", "rows at");
        let plan = stack.verify(0, &[&compare[..], &["--dry-run"]].concat());
        assert_eq!((&plan["result"]["done"], &plan["result"]["steps"]), (&false.into(), &serde_json::json!([])));
        for release in &releases[1..] {
            stack.stop();
            match &stack.database {
                Some(database) => upgrade(release, database),
                None => upgrade_sqlite(release, &store),
            }
            stack.run_as(release);
            stack.release = (*release).to_owned();
            stack.start();
            Seen(stack.verify(5, &compare)).says("schema_upgraded", "its revision was");
            let allowed = Seen(stack.verify(0, &[&compare[..], &["--allow-upgrade"]].concat())).found(&[]);
            assert!(allowed.kinds("noted").contains(&"release_changed"), "{:#}", allowed.0);
            assert!(releases.len() == 3 || allowed.kinds("noted").contains(&"moved_rows"), "{:#}", allowed.0);
        }
        // Over REST alone a loss is seen in the newest release as well.
        let run = "UPDATE params SET value = 'x' WHERE run_uuid = (SELECT run_uuid FROM runs WHERE status = 'FINISHED' \
                   AND run_uuid IN (SELECT run_uuid FROM params) LIMIT 1)";
        match &stack.database {
            Some(database) => database.execute(run),
            None => drop(rusqlite::Connection::open(stack.path("mlflow.db")).unwrap().execute(run, []).unwrap()),
        }
        let seen = Seen(stack.verify(5, &["compare", "--file", file, "--allow-upgrade"])).found(&["changed_run"]);
        seen.says("changed_run", "params.").says("changed_run", "has another value");
    }
}

fn upgrade_sqlite(release: &str, store: &str) {
    let said = Command::new(python(release)).args(["-m", "mlflow", "db", "upgrade", store]).output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
}

/// What a newer server does to a database by itself, and a file that is no snapshot.
#[test]
fn a_silent_upgrade_is_named_and_a_damaged_snapshot_refused() {
    let stack = Stack::sqlite("2.9.2");
    stack.works();
    stack.between(&format!("open(PLACE + '/python', 'w').write({:?})", python("3.4.0").to_str().unwrap()));
    let seen = stack.persistence(5, &[]).found(&["release_changed", "schema_upgraded"]);
    seen.says("schema_upgraded", "its revision was").says("release_changed", "it was MLflow 2.9.2, and is 3.4.0");
    stack.verify(2, &["persistence", "--restart-cmd", "true", "--accept", "lost_run"]);
    let file = stack.home.path().join("x.snapshot");
    let name = file.to_str().unwrap();
    stack.verify(0, &["snapshot", "--file", name]);
    let whole = fs::read(&file).unwrap();
    fs::write(&file, &whole[..whole.len() - 9]).unwrap();
    stack.verify(11, &["compare", "--file", name]);
    stack.verify(6, &["compare", "--file", "/nowhere"]);
}
