//! `mlops cleanup orphans` on real stores: what lost its row goes into quarantine, comes back when a row comes back, and
//! is removed by a later run; rows that lost those that they belong to are kept in a file and go; nothing else is touched.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use mlops::artifact::files::{Met, There};
use mlops::artifact::{S3, shelf};
use mlops::domain::artifact_address::ArtifactAddress;
use mlops::engine::cancel::Cancel;
use rusqlite::Connection;
use secrecy::ExposeSecret;
use serde_json::Value;

use crate::artifacts::object_store;
use crate::backups::{Stack, aged, tree};
use crate::flows::Server;
use crate::purge::{content, copied, execute, number, rows};
use crate::support::relay::{BUSY, Fate, Relay};
use crate::support::{Said, folder, migrate, mlops, postgres, python, run, sample, wait_for};

const QUARANTINE: &str = ".mlops-orphans/";

fn orphans(home: &Path, store: &str, more: &[&str]) -> Said {
    let own = ["cleanup", "orphans", "--backend-store-uri", store, "--output", "json", "--progress", "none"];
    run(home, &[&own[..], more].concat())
}

/// Runs of the sample whose rows a script removes with foreign keys off, as people do: their ids.
fn removed_by_hand(file: &Path, runs: usize) -> Vec<String> {
    let connection = Connection::open(file).unwrap();
    let sql = "SELECT run_uuid FROM runs r WHERE lifecycle_stage = 'active' AND artifact_uri LIKE '%/2/%'
               AND run_uuid NOT IN (SELECT run_id FROM model_versions WHERE run_id IS NOT NULL)
               AND NOT EXISTS (SELECT 1 FROM logged_models m WHERE m.source_run_id = r.run_uuid)
               AND EXISTS (SELECT 1 FROM inputs i WHERE i.destination_id = r.run_uuid)
               ORDER BY 1 LIMIT ?";
    let mut statement = connection.prepare(sql).unwrap();
    let ids: Vec<String> = statement.query_map([runs as i64], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    assert_eq!(ids.len(), runs, "the sample has too few such runs");
    connection.execute_batch("PRAGMA foreign_keys=OFF").unwrap();
    for id in &ids {
        connection.execute("DELETE FROM runs WHERE run_uuid = ?", [id]).unwrap();
    }
    ids
}

fn live(root: &Path) -> BTreeMap<String, Vec<u8>> {
    tree(root).into_iter().filter(|(path, _)| !path.starts_with(QUARANTINE)).collect()
}

fn aside(root: &Path) -> Vec<String> {
    tree(root).into_iter().map(|(path, _)| path).filter(|path| path.starts_with(QUARANTINE)).collect()
}

/// Waits until everything there has been as it is for longer than the age that these tests ask for.
fn aging() {
    let begun = std::time::Instant::now();
    let age = Duration::from_secs(16);
    wait_for("files of that age", Duration::from_secs(60), || (begun.elapsed() > age).then_some(()));
}

#[test]
fn orphans_go_into_quarantine_come_back_with_their_rows_or_go_for_good() {
    let stack = Stack::proxied();
    let (home, file, root) = (stack.home.path(), &stack.database, &stack.root);
    let store = file.to_str().unwrap();
    let artifacts = root.to_str().unwrap();
    let sweep = |more: &[&str]| orphans(home, store, &[&["--artifact-root", artifacts], more].concat());
    aged(&root.join("2/notes/readme.txt"), b"somebody's");
    aged(&root.join("2/0123456789abcdef0123456789abcdef/part.parquet"), b"a cache of somebody's");
    let nothing = sweep(&["--min-age", "0s"]).expect(0).json()["result"].clone();
    assert_eq!((&nothing["orphans"]["places"], &nothing["rows"]), (&0.into(), &serde_json::json!({})), "{nothing}");
    assert_eq!(nothing["other_files"]["total"], 2, "{nothing}");

    let original = home.join("original.db");
    fs::copy(file, &original).unwrap();
    let ids = removed_by_hand(file, 5);
    let of = |id: &str, path: &str| path.contains(id);
    // A file of somebody's beside the artifacts: all of it is left.
    aged(&root.join("2").join(&ids[3]).join("thesis.docx"), b"years of work");
    aged(&root.join("2").join(&ids[4]).join("meta.yaml"), b"a run of a file store");
    aging();
    // One file that was just written, however old it says it is, makes its place young.
    let young = ids[2].as_str();
    let path = live(root).into_keys().find(|path| of(young, path)).unwrap();
    aged(&root.join(path), b"new");
    let (files, before) = (live(root), rows(file));

    // Its files may be older than that, but they have just come: a restore is under way, perhaps.
    let fresh = sweep(&[]).expect(0).json()["result"].clone();
    assert_eq!((&fresh["orphans"]["places"], &fresh["too_young"]["places"]), (&0.into(), &3.into()), "{fresh}");
    let plan = sweep(&["--min-age", "15s"]).expect(0).json()["result"].clone();
    assert_eq!((&plan["orphans"]["places"], &plan["too_young"]["places"]), (&2.into(), &1.into()), "{plan}");
    assert_eq!(plan["left"]["places"], 2, "{plan}");
    let dry = sweep(&["--min-age", "15s", "--yes", "--dry-run"]).expect(0).json()["result"].clone();
    assert_eq!(dry, plan, "--dry-run beats --yes");
    assert!(live(root) == files && rows(file) == before && aside(root).is_empty(), "a plan changed something");

    let done = sweep(&["--min-age", "15s", "--yes"]).expect(0).json()["result"].clone();
    assert_eq!((&done["quarantined"], &done["rows"]), (&plan["orphans"], &plan["rows"]), "{done}");
    let batch = done["batch"].as_str().unwrap().to_owned();
    let gone: Vec<&String> = files.keys().filter(|path| ids[..2].iter().any(|id| of(id, path))).collect();
    assert!(!gone.is_empty());
    let left: BTreeMap<_, _> = files.iter().filter(|(path, _)| !gone.contains(path)).collect();
    assert_eq!(live(root).iter().collect::<BTreeMap<_, _>>(), left, "what has a row, or no shape, is where it was");
    let there = aside(root);
    assert_eq!(there.len(), gone.len());
    for path in &gone {
        let mut copies = there.iter().filter(|there| there.starts_with(&format!("{QUARANTINE}{batch}.")));
        assert!(copies.any(|there| there.ends_with(path.as_str())), "{path}: {there:?}");
    }
    assert!(!root.join("2").join(&ids[0]).exists(), "an empty folder is left");
    assert_rows(file, &before, &done, &ids);

    // Too young to be removed: nothing is done.
    let again = sweep(&["--yes"]).expect(0).json()["result"].clone();
    assert_eq!((&again["done"], &again["quarantine"][0]["due"]), (&false.into(), &false.into()), "{again}");
    // Another database's batch is never removed, whatever its rows say.
    let other = home.join("other.db");
    fs::copy(file, &other).unwrap();
    let more = ["--artifact-root", artifacts, "--min-age", "0s", "--sole-owner"];
    let said = orphans(home, other.to_str().unwrap(), &more).expect(0).json()["result"].clone();
    assert_eq!((&said["quarantine"][0]["due"], &said["quarantine"][0]["own"]), (&true.into(), &false.into()), "{said}");
    // One of them gets its row back, as a restore would bring it: that is seen at any age.
    execute(
        file,
        &format!(
            "ATTACH '{}' AS o; INSERT INTO runs SELECT * FROM o.runs WHERE run_uuid = '{}'",
            original.display(),
            ids[0]
        ),
    );
    let plan = sweep(&[]).expect(0).json()["result"].clone();
    assert_eq!(
        (&plan["quarantine"][0]["come_back"]["places"], &plan["quarantine"][0]["places"]),
        (&1.into(), &1.into())
    );
    let done = sweep(&["--yes", "--min-age", "0s"]).expect(0).json()["result"].clone();
    assert_eq!((&done["put_back"]["places"], &done["removed"]["places"]), (&1.into(), &1.into()), "{done}");
    let now = live(root);
    for (path, bytes) in files.iter().filter(|(path, _)| of(&ids[0], path)) {
        assert_eq!(now.get(path), Some(bytes), "{path} did not come back");
    }
    assert!(!now.keys().any(|path| of(&ids[1], path)));
    // The one that was young went into quarantine in the same run; its batch is put back, and stays put.
    let batch = done["batch"].as_str().unwrap();
    assert!(aside(root).iter().all(|path| path.starts_with(&format!("{QUARANTINE}{batch}.")) && of(young, path)));
    sweep(&["--put-back", batch]).expect(9);
    let back = sweep(&["--put-back", batch, "--yes", "--dry-run"]).expect(0).json()["result"].clone();
    assert_eq!((&back["done"], &back["put_back"]["places"]), (&false.into(), &1.into()), "{back}");
    assert!(!live(root).keys().any(|path| of(young, path)), "a plan moved files");
    let back = sweep(&["--put-back", batch, "--yes"]).expect(0).json()["result"].clone();
    assert_eq!((&back["done"], &back["put_back"]["places"]), (&true.into(), &1.into()), "{back}");
    assert!(live(root).keys().any(|path| of(young, path)));
    let plan = sweep(&["--yes", "--min-age", "0s"]).expect(0).json()["result"].clone();
    assert_eq!((&plan["orphans"]["places"], &plan["left"]["places"]), (&0.into(), &3.into()), "{plan}");
    sweep(&["--put-back", batch, "--yes"]).expect(2);
    sweep(&["--put-back", "x", "--yes"]).expect(2);
}

/// The rows that went are those of the runs that were not there, and each of them is in the file.
#[track_caller]
fn assert_rows(file: &Path, before: &crate::purge::Content, done: &Value, ids: &[String]) {
    let after = content(file);
    let path = done["rows_file"].as_str().unwrap();
    let kept = fs::read_to_string(path).unwrap();
    let mut told: BTreeMap<String, u64> = BTreeMap::new();
    for line in kept.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        *told.entry(line["table"].as_str().unwrap().to_owned()).or_default() += 1;
        assert!(line["row"].is_object());
    }
    assert_eq!(serde_json::to_value(&told).unwrap(), done["rows"]);
    assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    for (table, rows) in before {
        let left = after.get(table).map_or(0, Vec::len) as u64;
        assert_eq!(rows.len() as u64 - left, told.get(table).copied().unwrap_or(0), "{table}");
    }
    for (table, column) in [("params", "run_uuid"), ("metrics", "run_uuid"), ("inputs", "destination_id")] {
        for id in ids {
            assert_eq!(number(file, &format!("SELECT count(*) FROM {table} WHERE {column} = '{id}'")), 0, "{table}");
        }
    }
    assert!(told.contains_key("metrics") && told.contains_key("inputs"), "{told:?}");
    assert_eq!(number(file, "SELECT count(*) FROM pragma_foreign_key_check"), 0);
}

#[test]
fn another_databases_root_is_refused() {
    let stack = Stack::proxied();
    let (home, root) = (stack.home.path(), &stack.root);
    let store = home.join("other.db");
    run(home, &["demo", "--only-sample", "-q", "--metrics", "1000", "--file", store.to_str().unwrap()]).expect(0);
    execute(
        &store,
        "PRAGMA foreign_keys=OFF; DELETE FROM runs; DELETE FROM logged_models; DELETE FROM trace_info;
                     DELETE FROM model_versions;",
    );
    let (store, files) = (store.to_str().unwrap(), tree(root));
    let own = ["--artifact-root", root.to_str().unwrap(), "--yes", "--min-age", "0s"];
    // A root one level too high: the folders of another server are unknown, and are not taken.
    let high = home.join("high");
    fs::create_dir_all(high.join("other")).unwrap();
    for entry in fs::read_dir(root).unwrap().flatten() {
        let copied = Command::new("cp").arg("-a").arg(entry.path()).arg(high.join("other")).status().unwrap();
        assert!(copied.success());
    }
    let said = orphans(home, store, &["--artifact-root", high.to_str().unwrap(), "--min-age", "0s"]).expect(0).json();
    assert_eq!(said["result"]["orphans"]["places"], 0, "{said}");
    assert!(said["result"]["unknown"]["places"].as_u64().unwrap() > 20, "{said}");
    assert!(said["result"]["unknown_folders"].to_string().contains("other/2"), "{said}");
    for more in [&[][..], &["--dry-run"]] {
        let said = orphans(home, store, &[&own[..], more].concat()).expect(9).json();
        assert!(said["result"]["refused"].as_str().unwrap().contains("have no row in this database"), "{said}");
        assert!(said["warnings"].to_string().contains("--sole-owner"), "{said}");
    }
    assert!(tree(root) == files, "a refused run changed something");
    let done = orphans(home, store, &[&own[..], &["--sole-owner"]].concat()).expect(0).json()["result"].clone();
    assert!(done["quarantined"]["files"].as_u64().unwrap() > 20, "{done}");
    assert_eq!(done["quarantined"]["files"].as_u64().unwrap(), aside(root).len() as u64);
}

#[test]
fn what_anything_refers_to_is_no_orphan_and_what_is_gone_is_told() {
    let stack = Stack::direct();
    let (home, file, root) = (stack.home.path(), &stack.database, &stack.root);
    let ids = removed_by_hand(file, 3);
    let place = |id: &str| root.join("2").join(id).join("artifacts");
    // A model version by its address, another by its run, a logged model within a run's place.
    execute(
        file,
        &format!(
            "UPDATE model_versions SET source = '{}/model', storage_location = NULL, run_id = NULL WHERE rowid = 1;
             UPDATE model_versions SET source = 'runs:/{}/model', storage_location = NULL, run_id = NULL WHERE rowid = 2;
             UPDATE logged_models SET artifact_location = '{}/own' WHERE rowid = 1;",
            place(&ids[0]).display(),
            ids[1],
            place(&ids[2]).display(),
        ),
    );
    let own = ["--artifact-root", root.to_str().unwrap(), "--min-age", "0s"];
    let plan = orphans(home, file.to_str().unwrap(), &own).expect(0).json()["result"].clone();
    let places = plan["places"].to_string();
    assert!(ids.iter().all(|id| !places.contains(id.as_str())), "{places}");

    // A version's files are removed: it is told, and no other.
    let before = plan["without_files"].clone();
    let sql = "SELECT v.storage_location FROM model_versions v WHERE v.storage_location LIKE '/%' AND v.rowid > 2
               AND (SELECT count(*) FROM model_versions w WHERE w.storage_location = v.storage_location) = 1 LIMIT 1";
    let connection = Connection::open(file).unwrap();
    let address: String = connection.query_row(sql, [], |row| row.get(0)).unwrap();
    let name: String = connection
        .query_row("SELECT name || ' ' || version FROM model_versions WHERE storage_location = ?", [&address], |r| {
            r.get(0)
        })
        .unwrap();
    assert!(!before.to_string().contains(&format!("model version {name}\"")), "{before}");
    fs::remove_dir_all(&address).unwrap();
    let plan = orphans(home, file.to_str().unwrap(), &own).expect(0).json()["result"].clone();
    assert!(plan["without_files"].to_string().contains(&format!("model version {name}\"")), "{plan}");
}

#[test]
fn what_cannot_be_moved_or_read_is_told_and_goes_the_next_time() {
    let stack = Stack::proxied();
    let (home, file, root) = (stack.home.path(), &stack.database, &stack.root);
    let ids = removed_by_hand(file, 2);
    let own = ["--artifact-root", root.to_str().unwrap(), "--yes", "--min-age", "0s"];
    // A file where the batch would go: nothing can be moved.
    fs::write(root.join(".mlops-orphans"), b"").unwrap();
    let done = orphans(home, file.to_str().unwrap(), &own).expect(4).json()["result"].clone();
    assert_eq!((&done["failures"]["total"], &done["quarantined"]["places"]), (&2.into(), &0.into()), "{done}");
    assert!(ids.iter().all(|id| root.join("2").join(id).exists()));
    fs::remove_file(root.join(".mlops-orphans")).unwrap();
    let done = orphans(home, file.to_str().unwrap(), &own).expect(0).json()["result"].clone();
    assert_eq!(done["quarantined"]["places"], 2, "{done}");
    let dotted = format!("{}/../{}", root.display(), root.file_name().unwrap().display());
    orphans(home, file.to_str().unwrap(), &["--artifact-root", &dotted]).expect(2);
    // A root that is not there is no root without orphans.
    let away = home.join("away");
    let said = orphans(home, file.to_str().unwrap(), &["--artifact-root", away.to_str().unwrap()]).expect(6);
    assert!(said.err.contains("away") || said.out.contains("away"));
    let said = orphans(home, file.to_str().unwrap(), &[]).expect(3).json();
    assert!(said["error"]["hint"].as_str().unwrap().contains("--artifact-root"), "{said}");
}

#[test]
fn objects_of_s3_go_into_quarantine_and_come_back() {
    let home = folder();
    let file = home.path().join("mlflow.db");
    fs::copy(sample(20_000), &file).unwrap();
    let ids = removed_by_hand(&file, 6);
    let store = object_store(home.path(), &["--empty"]);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let whole = ArtifactAddress::parse("s3://artifacts");
    let cancel = Cancel::new();
    let objects =
        shelf(&whole, &S3::new(store.access.clone()), runtime.handle(), home.path(), &cancel).unwrap().unwrap();
    let put = |path: &str| {
        let mut staged = objects.stage().unwrap();
        std::io::Write::write_all(&mut staged, path.as_bytes()).unwrap();
        objects.put(staged, path, There::Replaced).unwrap();
    };
    let keys = || {
        let mut keys = Vec::new();
        let mut each = |met| {
            if let Met::File(entry) = met {
                keys.push(entry.path);
            }
            Ok(())
        };
        objects.walk("", &mut each).unwrap();
        keys.sort();
        keys
    };
    let kept = number_of_runs(&file, 12);
    for id in kept.iter().chain(&ids) {
        for name in ["model/MLmodel", "model/weights ü#%.bin", "x"] {
            put(&format!("root/2/{id}/artifacts/{name}"));
        }
    }
    put("root/2/notes.txt");
    let before = keys();
    let url = store.access.endpoint.clone().unwrap();
    let relay = Relay::before(url.rsplit_once(':').unwrap().1.parse().unwrap());
    let key = store.access.key.as_ref().unwrap();
    let sweep = |more: &[&str]| {
        let mut command = mlops(home.path());
        command.env("AWS_ACCESS_KEY_ID", &key.id).env("AWS_SECRET_ACCESS_KEY", key.secret.expose_secret());
        command.env("MLFLOW_S3_ENDPOINT_URL", format!("http://localhost:{}", relay.port));
        command.args([
            "cleanup",
            "orphans",
            "--min-age",
            "0s",
            "--sole-owner",
            "--progress",
            "none",
            "--output",
            "json",
        ]);
        command.args(["--artifact-root", "s3://artifacts/root", "--backend-store-uri", file.to_str().unwrap()]);
        Said::of(command.args(more).output().unwrap())
    };
    let busy = ids[3].clone();
    relay.judge(move |head| if head.starts_with("PUT ") && head.contains(&busy) { BUSY } else { Fate::Through });
    let done = sweep(&["--yes"]).expect(4).json()["result"].clone();
    assert_eq!((&done["quarantined"]["places"], &done["failures"]["total"]), (&5.into(), &1.into()), "{done}");
    assert!(done["failures"]["named"][0]["path"].as_str().unwrap().contains(&ids[3]), "{done}");
    let now = keys();
    assert_eq!(now.iter().filter(|k| k.contains(&ids[3]) && k.starts_with("root/2/")).count(), 3, "one is left whole");
    assert_eq!(now.iter().filter(|k| k.starts_with("root/.mlops-orphans/")).count(), 15);
    relay.judge(|_| Fate::Through);
    let batch = done["batch"].as_str().unwrap();
    let mut command = mlops(home.path());
    command.env("AWS_ACCESS_KEY_ID", &key.id).env("AWS_SECRET_ACCESS_KEY", key.secret.expose_secret());
    command.env("MLFLOW_S3_ENDPOINT_URL", &url);
    command.args(["cleanup", "orphans", "--put-back", batch, "--yes", "--output", "json"]);
    command.args(["--artifact-root", "s3://artifacts/root", "--backend-store-uri", file.to_str().unwrap()]);
    let back = Said::of(command.output().unwrap()).expect(0).json()["result"].clone();
    assert_eq!(back["put_back"]["files"], 15, "{back}");
    assert_eq!(keys().into_iter().filter(|key| !key.contains("/kept/")).collect::<Vec<_>>(), before);

    // What was put back stays put: its marks are taken away for the rest.
    let marks: Vec<String> = keys().into_iter().filter(|key| key.contains("/kept/")).collect();
    assert_eq!(marks.len(), 5, "{marks:?}");
    assert_eq!(sweep(&[]).expect(0).json()["result"]["left"]["places"], 5);
    marks.iter().for_each(|mark| objects.remove(mark).unwrap());
    sweep(&["--yes"]).expect(0);
    let done = sweep(&["--yes"]).expect(0).json()["result"].clone();
    assert_eq!(done["removed"]["files"], 18, "{done}");
    let wanted: Vec<String> =
        before.into_iter().filter(|key| !ids.iter().any(|id| key.contains(id.as_str()))).collect();
    assert_eq!(keys(), wanted);
    let many = relay.asked().iter().filter(|head| head.starts_with("POST ") && head.contains("?delete")).count();
    assert!(many > 0, "objects are deleted many at once");
}

/// Ids of runs that have rows.
fn number_of_runs(file: &Path, most: i64) -> Vec<String> {
    let connection = Connection::open(file).unwrap();
    let mut statement = connection.prepare("SELECT run_uuid FROM runs WHERE experiment_id = 2 LIMIT ?").unwrap();
    statement.query_map([most], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

/// What MLflow's own `gc` leaves behind is what is found, on either engine, and the server works on without it.
fn after_gc(release: &str) {
    let place = folder();
    let home = place.path();
    let file = home.join("mlflow.db");
    let store = format!("sqlite:///{}", file.display());
    let server = Server::start(release, &store, home, &["--serve-artifacts"]);
    let own = home.join("own-artifacts");
    server.script("fill.py", &["--artifact-dir", own.to_str().unwrap(), "--backend-store-uri", &store]).expect(0);
    server.script("delete_rest.py", &[]).expect(0);
    let database = postgres(15).database(&format!("orphans_{release}"));
    migrate(home, &file, &database.url(), &["-q"]).expect(0);
    let url = server.url.clone();
    for (uri, address) in [(&store, file.to_str().unwrap()), (&database.sqlalchemy(), &database.url())] {
        let only_rows = ["--artifacts", "none"];
        let before = orphans(home, address, &only_rows).expect(0).json()["result"]["rows"].clone();
        assert_eq!(before, serde_json::json!({}), "{release}: a whole store has rows without a parent");
        let gc = python(release).with_file_name("mlflow");
        let mut gc = Command::new(gc);
        gc.args(["gc", "--backend-store-uri", uri]).env("MLFLOW_TRACKING_URI", &url).env("HOME", home);
        let said = gc.output().unwrap();
        println!(
            "{release}: gc ended with {}: {}",
            said.status,
            String::from_utf8_lossy(&said.stderr).lines().last().unwrap_or("")
        );
        let plan = orphans(home, address, &only_rows).expect(0).json()["result"].clone();
        let left = plan["rows"].as_object().unwrap().clone();
        assert!(left.contains_key("inputs"), "{release}: gc left nothing? {plan}");
        let look =
            |name: &str| if address.starts_with("postgres") { copied(home, &database, name) } else { file.clone() };
        let before = content(&look("before"));
        let done = orphans(home, address, &[&only_rows[..], &["--yes"]].concat()).expect(0).json()["result"].clone();
        assert_eq!(done["rows"], plan["rows"], "{release}");
        let after = content(&look("after"));
        for (table, rows) in &before {
            let went = left.get(table).and_then(Value::as_u64).unwrap_or(0);
            assert_eq!(rows.len() as u64 - went, after.get(table).map_or(0, Vec::len) as u64, "{release}: {table}");
        }
        let again = orphans(home, address, &only_rows).expect(0).json()["result"]["rows"].clone();
        assert_eq!(again, serde_json::json!({}));
    }
    server.exercise();
}

#[test]
fn what_gc_leaves_behind_goes_on_mlflow_3_4_0() {
    after_gc("3.4.0");
}

#[test]
fn what_gc_leaves_behind_goes_on_mlflow_3_17_2() {
    after_gc("3.17.2");
}
