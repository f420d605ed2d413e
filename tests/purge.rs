//! `mlops cleanup purge` on real stores: what is deleted goes with all that is its own, everything else stays to the
//! cell, whoever restores, writes, kills or stands in the way meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use mlops::artifact::{S3, shelf};
use mlops::domain::artifact_address::ArtifactAddress;
use mlops::domain::catalogue::{Catalogue, Line};
use mlops::domain::mention::MENTIONS;
use mlops::engine::cancel::Cancel;
use rusqlite::Connection;
use rusqlite::types::Value as Cell;
use rustix::process::{Pid, Signal, kill_process};
use secrecy::ExposeSecret;
use serde_json::Value;

use crate::artifacts::object_store;
use crate::backups::{Stack, artifact_folders, tree};
use crate::flows::Server;
use crate::support::relay::{BUSY, Fate, Relay};
use crate::support::{
    Database, Killed, Said, folder, migrate, mlops, postgres, python, root, rounds, run, sample, wait_for,
};

pub(crate) type Row = Vec<String>;
pub(crate) type Content = BTreeMap<String, Vec<Row>>;

fn columns(connection: &Connection, table: &str) -> Vec<String> {
    let mut statement = connection.prepare("SELECT name FROM pragma_table_xinfo(?) ORDER BY cid").unwrap();
    statement.query_map([table], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
}

fn text(cell: Cell) -> String {
    match cell {
        Cell::Null => "NULL".to_owned(),
        Cell::Integer(v) => v.to_string(),
        Cell::Real(v) => format!("{:x}", v.to_bits()),
        Cell::Text(v) => v,
        Cell::Blob(v) => format!("{v:?}"),
    }
}

/// Every row of every table of a SQLite file, in which every foreign key leads somewhere.
pub(crate) fn content(file: &Path) -> Content {
    assert_eq!(number(file, "SELECT count(*) FROM pragma_foreign_key_check"), 0, "a foreign key leads nowhere");
    rows(file)
}

/// Every row of every table of a SQLite file.
pub(crate) fn rows(file: &Path) -> Content {
    let connection = Connection::open(file).unwrap();
    let mut names =
        connection.prepare("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'").unwrap();
    let names: Vec<String> = names.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap();
    let mut all = Content::new();
    for name in names {
        let count = columns(&connection, &name).len();
        let mut statement = connection.prepare(&format!("SELECT * FROM \"{name}\"")).unwrap();
        let row =
            |row: &rusqlite::Row<'_>| (0..count).map(|i| Ok(text(row.get(i)?))).collect::<rusqlite::Result<Row>>();
        let mut rows: Vec<Row> = statement.query_map([], row).unwrap().collect::<Result<_, _>>().unwrap();
        rows.sort();
        all.insert(name, rows);
    }
    all
}

const ROOTS: [(&str, &str); 4] = [
    ("runs", "run_uuid"),
    ("logged_models", "model_id"),
    ("trace_info", "request_id"),
    ("experiments", "experiment_id"),
];

fn ids(file: &Path, content: &Content, table: &str, key: &str) -> BTreeSet<String> {
    let Some(rows) = content.get(table) else { return BTreeSet::new() };
    let at = columns(&Connection::open(file).unwrap(), table).iter().position(|c| c == key).unwrap();
    rows.iter().map(|row| row[at].clone()).collect()
}

/// Rows of the first list that the second does not have.
fn without(all: &[Row], others: &[Row]) -> Vec<Row> {
    let mut left: BTreeMap<&Row, usize> = BTreeMap::new();
    for row in others {
        *left.entry(row).or_default() += 1;
    }
    let mut found = Vec::new();
    for row in all {
        match left.get_mut(row) {
            Some(count) if *count > 0 => *count -= 1,
            _ => found.push(row.clone()),
        }
    }
    found
}

/// What went is whole, and nothing else went: by another way than the program's, cell by cell. Gives what is gone of
/// each kind.
#[track_caller]
fn only_what_went(file: &Path, before: &Content, after: &Content) -> BTreeMap<&'static str, BTreeSet<String>> {
    let connection = Connection::open(file).unwrap();
    let mut gone: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (table, key) in ROOTS {
        let (was, is) = (ids(file, before, table, key), ids(file, after, table, key));
        assert!(is.is_subset(&was), "{table} has grown");
        gone.insert(table, was.difference(&is).cloned().collect());
    }
    let experiments = gone["experiments"].clone();
    let mut known: BTreeSet<String> =
        ["runs", "logged_models", "trace_info"].iter().flat_map(|table| gone[table].clone()).collect();
    let mut open: Vec<(String, Row)> = Vec::new();
    for (table, rows) in before {
        let names = columns(&connection, table);
        let mut removed = without(rows, &after[table]);
        for added in without(&after[table], rows) {
            // A row that stays and has lost a reference.
            let same = |old: &Row| old.iter().zip(&added).all(|(o, n)| o == n || n == "NULL");
            let at = removed.iter().position(same).unwrap_or_else(|| panic!("{table} has a new row {added:?}"));
            removed.remove(at);
        }
        for row in removed {
            let of_experiment = names.iter().zip(&row).any(|(name, cell)| {
                ["experiment_id", "destination_id", "resource_pattern"].contains(&name.as_str())
                    && experiments.contains(cell)
            });
            if of_experiment {
                known.extend(own_ids(&names, &row));
            } else {
                open.push((table.clone(), row));
            }
        }
    }
    loop {
        let left = open.len();
        let mut learned = Vec::new();
        open.retain(|(table, row)| {
            let reached = row.iter().any(|cell| known.contains(cell));
            if reached {
                learned.extend(own_ids(&columns(&connection, table), row));
            }
            !reached
        });
        known.extend(learned);
        if open.len() == left {
            break;
        }
    }
    assert!(open.is_empty(), "{} rows went that belong to nothing that went: {:?}", open.len(), open.first());
    nothing_refers(file, after, &gone);
    gone
}

/// Ids that a row gives to others: long words in columns that are called so.
fn own_ids(names: &[String], row: &Row) -> Vec<String> {
    let own = names.iter().zip(row).filter(|(name, cell)| {
        (name.ends_with("_id") || name.ends_with("_uuid")) && cell.len() >= 16 && !name.starts_with("source_run")
    });
    own.map(|(_, cell)| cell.clone()).collect()
}

/// No row is left that names what is gone, in any column of the catalogue's keys and mentions.
#[track_caller]
fn nothing_refers(file: &Path, after: &Content, gone: &BTreeMap<&str, BTreeSet<String>>) {
    let connection = Connection::open(file).unwrap();
    let catalogue = Catalogue::embedded().unwrap();
    let id = &after["alembic_version"][0][0];
    let revision = catalogue.revision(Line::Tracking, id).unwrap();
    let mut looked = 0;
    for table in &revision.tables {
        let names = columns(&connection, &table.name);
        let keys = table.postgres.foreign_keys.iter().map(|k| (k.columns[0].clone(), k.table.clone(), None));
        let mentions = MENTIONS.iter().filter(|m| m.follows && m.table == table.name && m.is_in(&revision.tables));
        let mentions = mentions.map(|m| (m.column.to_owned(), m.parent.to_owned(), m.when));
        let daily = names.iter().filter(|c| *c == "experiment_id" && table.name.starts_with("sql_"));
        let daily = daily.map(|c| (c.clone(), "experiments".to_owned(), None));
        for (column, parent, when) in keys.chain(mentions).chain(daily) {
            let Some(gone) = gone.get(parent.as_str()) else { continue };
            let at = names.iter().position(|c| *c == column).unwrap();
            let when = when.map(|(column, value)| (names.iter().position(|c| c == column).unwrap(), value));
            for row in &after[&table.name] {
                if when.is_none_or(|(at, value)| row[at] == value) {
                    assert!(!gone.contains(&row[at]), "{}.{column} still names {}", table.name, row[at]);
                }
            }
            looked += 1;
        }
    }
    assert!(looked > 5, "{looked}");
}

fn purge(home: &Path, store: &str, more: &[&str]) -> Said {
    let mut arguments =
        vec!["cleanup", "purge", "--backend-store-uri", store, "--progress", "none", "--output", "json"];
    arguments.extend(more);
    run(home, &arguments)
}

pub(crate) fn execute(file: &Path, sql: &str) {
    Connection::open(file).unwrap().execute_batch(sql).unwrap();
}

pub(crate) fn number(file: &Path, sql: &str) -> i64 {
    Connection::open(file).unwrap().query_row(sql, [], |row| row.get(0)).unwrap()
}

/// A PostgreSQL database as a SQLite file.
pub(crate) fn copied(home: &Path, database: &Database, name: &str) -> PathBuf {
    let (archive, file) = (home.join(format!("{name}.tar")), home.join(format!("{name}.db")));
    let (archive, path) = (archive.to_str().unwrap(), file.to_str().unwrap());
    run(home, &["migrate", "export", "-q", &database.url(), "--file", archive]).expect(0);
    run(home, &["migrate", "import", "-q", archive, "--target", path]).expect(0);
    file
}

/// Every run, model and experiment is deleted, nothing is kept and nothing registered.
const ALL_DELETED: &str = "
    UPDATE runs SET lifecycle_stage = 'deleted', deleted_time = 1000;
    UPDATE logged_models SET lifecycle_stage = 'deleted', last_updated_timestamp_ms = 1000;
    UPDATE experiments SET lifecycle_stage = 'deleted', last_update_time = 1000 WHERE experiment_id > 0;
    DELETE FROM tags WHERE key = 'mlops.keep'; DELETE FROM experiment_tags WHERE key = 'mlops.keep';
    DELETE FROM registered_model_aliases;
    UPDATE model_versions SET current_stage = 'Deleted_Internal', run_id = 'REDACTED-RUN-ID';";

fn folder_of(stack: &Stack, address: &str) -> PathBuf {
    stack.root.join(address.trim_start_matches("mlflow-artifacts:/"))
}

#[test]
fn a_purge_removes_what_is_deleted_and_nothing_else() {
    let stack = Stack::proxied();
    let (home, file, artifacts) = (stack.home.path(), &stack.database, stack.root.to_str().unwrap());
    let store = file.to_str().unwrap();
    let (before, files) = (content(file), tree(&stack.root));
    let all = ["--older-than", "0s", "--artifact-root", artifacts];

    let plan = purge(home, store, &all).expect(0).json()["result"].clone();
    assert_eq!(plan["done"], false);
    let really = purge(home, store, &[&all[..], &["--yes", "--dry-run"]].concat()).expect(0).json();
    assert_eq!(really["result"], plan, "--dry-run beats --yes");
    assert!(content(file) == before && tree(&stack.root) == files, "a plan changed something");

    let done = purge(home, store, &[&all[..], &["--yes"]].concat()).expect(0).json()["result"].clone();
    let after = content(file);
    let gone = only_what_went(file, &before, &after);
    assert!(gone["runs"].len() > 20 && !gone["logged_models"].is_empty(), "{gone:?}");
    assert_eq!(done["runs"], gone["runs"].len() as u64);
    assert_eq!(done["runs"], plan["runs"]);
    assert_eq!(done["bytes"], plan["bytes"]);
    assert_eq!(done["protected"], plan["protected"]);
    assert!(done["protected"]["total"].as_u64().unwrap() > 0, "the sample keeps some by a tag: {done}");
    let rows: u64 = done["rows"].as_object().unwrap().values().map(|v| v.as_u64().unwrap()).sum();
    let count = |content: &Content| content.values().map(Vec::len).sum::<usize>() as u64;
    assert_eq!(rows, count(&before) - count(&after));

    let left = tree(&stack.root);
    let of_gone = |path: &str| gone["runs"].iter().chain(&gone["logged_models"]).any(|id| path.contains(id.as_str()));
    let wanted: Vec<_> = files.into_iter().filter(|(path, _)| !of_gone(path)).collect();
    assert!(left == wanted, "{} files, not {}", left.len(), wanted.len());
    let folders = Command::new("find").arg(&stack.root).args(["-type", "d"]).output().unwrap();
    let folders = String::from_utf8(folders.stdout).unwrap();
    assert!(!folders.lines().any(of_gone), "an empty folder of a run is left");

    let again = purge(home, store, &[&all[..], &["--yes"]].concat()).expect(0).json()["result"].clone();
    assert_eq!((&again["runs"], &again["logged_models"], &again["done"]), (&0.into(), &0.into(), &false.into()));
}

#[test]
fn what_a_model_version_needs_or_a_tag_keeps_stays() {
    let home = folder();
    let file = home.path().join("mlflow.db");
    fs::copy(sample(20_000), &file).unwrap();
    execute(
        &file,
        "UPDATE runs SET lifecycle_stage = 'deleted', deleted_time = 1000;
         UPDATE logged_models SET lifecycle_stage = 'deleted', last_updated_timestamp_ms = 1000;
         UPDATE experiments SET lifecycle_stage = 'deleted', last_update_time = 1000;
         DELETE FROM tags WHERE key = 'mlops.keep';
         INSERT INTO experiment_tags (key, value, experiment_id) VALUES ('mlops.keep', '', 2);",
    );
    let versions = "SELECT count(*) FROM model_versions v JOIN runs r ON r.run_uuid = v.run_id
                    WHERE v.current_stage <> 'Deleted_Internal'";
    let models = "SELECT count(*) FROM model_versions v JOIN logged_models m ON v.source = 'models:/' || m.model_id
                  WHERE v.current_stage <> 'Deleted_Internal'";
    let (before, needed, sources) = (content(&file), number(&file, versions), number(&file, models));
    assert!(needed > 10 && sources > 10, "{needed} {sources}");
    let of_two = number(&file, "SELECT count(*) FROM runs WHERE experiment_id = 2");
    let store = file.to_str().unwrap();
    let done = purge(home.path(), store, &["--older-than", "0s", "--artifacts", "none", "--yes"]).expect(0).json();
    only_what_went(&file, &before, &content(&file));
    assert_eq!((number(&file, versions), number(&file, models)), (needed, sources));
    assert_eq!(number(&file, "SELECT count(*) FROM runs WHERE experiment_id = 2"), of_two);
    assert_eq!(number(&file, "SELECT count(*) FROM experiments WHERE experiment_id IN (0, 2)"), 2);
    let told = done["result"]["protected"].to_string();
    for why in ["the model version ", "the tag mlops.keep keeps it", "it is the default experiment", "in it stays"] {
        assert!(told.contains(why), "{why}: {told}");
    }
}

#[test]
fn an_experiment_goes_when_nothing_in_it_lives_and_its_name_is_free() {
    let home = folder();
    let file = home.path().join("mlflow.db");
    fs::copy(sample(20_000), &file).unwrap();
    execute(&file, ALL_DELETED);
    let store = file.to_str().unwrap();
    let rows = ["--artifacts", "none", "--yes"];
    // One run lives, one was deleted just now.
    let now = "CAST(strftime('%s', 'now') AS INTEGER) * 1000";
    execute(
        &file,
        &format!(
            "UPDATE runs SET lifecycle_stage = 'active', deleted_time = NULL WHERE run_uuid = (SELECT min(run_uuid) FROM runs
             WHERE experiment_id = 1);
             UPDATE runs SET deleted_time = {now} WHERE run_uuid = (SELECT min(run_uuid) FROM runs WHERE experiment_id = 2)"
        ),
    );
    let name: String = Connection::open(&file)
        .unwrap()
        .query_row("SELECT name FROM experiments WHERE experiment_id = 3", [], |row| row.get(0))
        .unwrap();
    for wrong in ["no such experiment", "Default"] {
        let said = purge(home.path(), store, &[&rows[..], &["--name", wrong]].concat()).expect(2);
        assert!(said.out.contains(wrong), "{}", said.out);
    }
    purge(home.path(), store, &rows).expect(2);
    purge(home.path(), store, &[&rows[..], &["--older-than", "soon"]].concat()).expect(2);

    let before = content(&file);
    let keep = "INSERT INTO experiment_tags (key, value, experiment_id) VALUES ('mlops.keep', '', 3)";
    execute(&file, keep);
    let no = purge(home.path(), store, &[&rows[..], &["--name", &name]].concat()).expect(5).json();
    assert!(no["result"]["protected"].to_string().contains("mlops.keep") && no["result"]["runs"] == 0, "{no}");
    execute(&file, "DELETE FROM experiment_tags WHERE key = 'mlops.keep'");
    assert!(content(&file) == before, "the name stays taken, so nothing goes");
    let done = purge(home.path(), store, &[&rows[..], &["--name", &name]].concat()).expect(0).json();
    let after = content(&file);
    let gone = only_what_went(&file, &before, &after);
    assert_eq!(gone["experiments"], BTreeSet::from(["3".to_owned()]), "{done}");
    execute(&file, &format!("INSERT INTO experiments (name, workspace) VALUES ('{name}', 'default')"));

    let before = content(&file);
    let done = purge(home.path(), store, &[&rows[..], &["--older-than", "1h"]].concat()).expect(0).json();
    let gone = only_what_went(&file, &before, &content(&file));
    let experiments: BTreeSet<String> = ["4", "5", "6", "7"].map(str::to_owned).into();
    assert_eq!(gone["experiments"], experiments, "{done}");
    let told = done["result"]["protected"].to_string();
    assert!(told.contains("1 runs in it are active") && told.contains("1 runs in it were deleted later"), "{told}");
    assert_eq!(number(&file, "SELECT count(*) FROM runs WHERE experiment_id IN (1, 2)"), 2);
    assert!(!gone["trace_info"].is_empty(), "the sample has traces");
}

/// The archive of what goes is a store of its own, whichever the database: what is missing afterwards is in it.
#[test]
fn what_goes_is_in_an_archive_first() {
    let home = folder();
    let file = home.path().join("mlflow.db");
    fs::copy(sample(20_000), &file).unwrap();
    // Deleted experiments with all in them, and runs of others.
    execute(
        &file,
        "UPDATE runs SET lifecycle_stage = 'deleted', deleted_time = 1000 WHERE experiment_id > 4 OR run_uuid < '4';
         DELETE FROM tags WHERE key = 'mlops.keep'; DELETE FROM registered_model_aliases;
         UPDATE model_versions SET current_stage = 'Deleted_Internal', run_id = 'REDACTED-RUN-ID';
         UPDATE experiments SET lifecycle_stage = 'deleted', last_update_time = 1000 WHERE experiment_id > 4;",
    );
    let database = postgres(15).database("purge_kept");
    migrate(home.path(), &file, &database.url(), &["-q"]).expect(0);
    let before = content(&file);
    for (store, name) in [(file.to_str().unwrap().to_owned(), "sqlite"), (database.url(), "postgres")] {
        let archive = home.path().join(format!("{name}-kept.tar"));
        let all = ["--older-than", "0s", "--artifacts", "none", "--backup-first", archive.to_str().unwrap()];
        purge(home.path(), &store, &all).expect(0);
        assert!(!archive.exists(), "a plan writes nothing");
        let done = purge(home.path(), &store, &[&all[..], &["--yes"]].concat()).expect(0).json()["result"].clone();
        let after = if name == "sqlite" { content(&file) } else { content(&copied(home.path(), &database, "purged")) };
        let gone = only_what_went(&file, &before, &after);
        assert!(gone["runs"].len() > 50 && gone["experiments"].len() == 3, "{done}");
        let kept = home.path().join(format!("{name}-kept.db"));
        let import = ["migrate", "import", "-q", archive.to_str().unwrap(), "--target", kept.to_str().unwrap()];
        run(home.path(), &import).expect(0);
        // content() looks at its foreign keys as well.
        let kept = content(&kept);
        for (table, rows) in &before {
            let missing = without(&without(rows, &after[table]), &kept[table]);
            assert!(missing.is_empty(), "{name}: {table} is not whole: {:?}", missing.first());
        }
        // Metrics of a logged model come along with the runs that logged them.
        assert!(kept["runs"].len() >= gone["runs"].len() && kept["registered_models"].is_empty());
        assert!(kept["runs"].len() < before["runs"].len() && kept["metrics"].len() < before["metrics"].len());
        // It must not be there already.
        execute_on(&store, &database, "UPDATE runs SET lifecycle_stage = 'deleted', deleted_time = 1000");
        purge(home.path(), &store, &[&all[..], &["--yes"]].concat()).expect(9);
        let left = if name == "sqlite" { content(&file) } else { content(&copied(home.path(), &database, "left")) };
        assert_eq!(left["runs"].len(), after["runs"].len(), "without the archive nothing goes");
    }
}

fn execute_on(store: &str, database: &Database, sql: &str) {
    if store.starts_with("postgres") {
        database.execute(sql);
    } else {
        execute(Path::new(store), sql);
    }
}

#[test]
fn one_purge_at_a_time() {
    let home = folder();
    let file = home.path().join("mlflow.db");
    fs::copy(sample(20_000), &file).unwrap();
    let held = fs::File::open(&file).unwrap();
    held.try_lock().unwrap();
    let arguments = ["--older-than", "0s", "--artifacts", "none"];
    purge(home.path(), file.to_str().unwrap(), &arguments).expect(0);
    purge(home.path(), file.to_str().unwrap(), &[&arguments[..], &["--yes"]].concat()).expect(10);
}

/// Addresses that are not certainly a run's own are left, whatever the database says.
#[test]
fn places_of_others_are_never_removed() {
    let stack = Stack::proxied();
    let (home, file) = (stack.home.path(), &stack.database);
    execute(file, ALL_DELETED);
    let outside = stack.path("outside/precious");
    fs::create_dir_all(&outside).unwrap();
    fs::write(outside.join("x"), b"x").unwrap();
    let artifacts = stack.root.to_str().unwrap();
    let alive = artifact_folders(file).into_iter().find(|a| a.starts_with("mlflow-artifacts:/1/")).unwrap();
    let addresses = [
        "/".to_owned(),
        artifacts.to_owned(),
        home.to_str().unwrap().to_owned(),
        "mlflow-artifacts:/".to_owned(),
        "mlflow-artifacts:/1".to_owned(),
        "mlflow-artifacts:/1/../../outside".to_owned(),
        format!("{artifacts}/../outside"),
        "./outside".to_owned(),
        "outside".to_owned(),
        "gs://bucket/1/x".to_owned(),
        format!("{alive}/plots"),
        alive,
    ];
    let connection = Connection::open(file).unwrap();
    let runs: Vec<String> = connection
        .prepare("SELECT run_uuid FROM runs WHERE experiment_id = 2 ORDER BY run_uuid")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    let last = runs.get(addresses.len()).unwrap();
    let link = stack.root.join(format!("9/{last}/artifacts"));
    fs::create_dir_all(link.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink(stack.path("outside"), &link).unwrap();
    for (run, address) in runs.iter().zip(&addresses) {
        connection.execute("UPDATE runs SET artifact_uri = ? WHERE run_uuid = ?", [address, run]).unwrap();
    }
    let linked = format!("{artifacts}/9/{last}/artifacts");
    connection.execute("UPDATE runs SET artifact_uri = ? WHERE run_uuid = ?", [&linked, last]).unwrap();
    drop(connection);
    let before = content(file);
    let more = ["--older-than", "0s", "--artifact-root", artifacts, "--yes", "--jobs", "2"];
    let done = purge(home, file.to_str().unwrap(), &more).expect(4).json()["result"].clone();
    only_what_went(file, &before, &content(file));
    assert!(outside.join("x").exists() && !link.is_symlink(), "a link is removed, and not what it leads to");
    let failures: BTreeSet<&str> =
        done["failures"]["named"].as_array().unwrap().iter().filter_map(|f| f["id"].as_str()).collect();
    for run in runs.iter().take(addresses.len()) {
        assert!(failures.contains(run.as_str()), "{run}: {done}");
        assert_eq!(number(file, &format!("SELECT count(*) FROM runs WHERE run_uuid = '{run}'")), 1);
    }
    let protected = done["protected"].to_string();
    assert!(protected.contains("the run ") && protected.contains(" in it stays"), "its experiment stays: {done}");
}

/// Anybody who may use the server may set a trace's place, and other applications may refer to a run.
#[test]
fn what_others_hold_is_not_taken_along() {
    let stack = Stack::proxied();
    let (home, file, artifacts) = (stack.home.path(), &stack.database, stack.root.to_str().unwrap());
    let store = file.to_str().unwrap();
    let precious = stack.path("precious/etc");
    fs::create_dir_all(&precious).unwrap();
    fs::write(precious.join("x"), b"x").unwrap();
    execute(file, ALL_DELETED);
    execute(
        file,
        &format!(
            "UPDATE trace_tags SET value = '{}' WHERE key = 'mlflow.artifactLocation' AND request_id =
                 (SELECT min(request_id) FROM trace_info);
             INSERT INTO trace_tags (key, value, request_id) SELECT 'mlflow.artifactLocation', '{}', min(request_id)
                 FROM trace_info WHERE true ON CONFLICT DO NOTHING;
             CREATE TABLE paper (id INTEGER PRIMARY KEY, run TEXT REFERENCES runs (run_uuid) ON DELETE CASCADE);
             INSERT INTO paper (run) SELECT min(run_uuid) FROM runs WHERE experiment_id = 1;
             UPDATE runs SET lifecycle_stage = 'active' WHERE run_uuid =
                 (SELECT min(t.run_uuid) FROM tags t WHERE t.key = 'mlflow.parentRunId');",
            precious.display(),
            precious.display()
        ),
    );
    let parent = text_of(
        file,
        "SELECT t.value FROM tags t JOIN runs c ON c.run_uuid = t.run_uuid
         WHERE t.key = 'mlflow.parentRunId' AND c.lifecycle_stage = 'active'",
    );
    let cited = text_of(file, "SELECT run FROM paper");
    let all = ["--older-than", "0s", "--artifact-root", artifacts];
    let plan = purge(home, store, &all).expect(4).json()["result"].clone();
    let done = purge(home, store, &[&all[..], &["--yes"]].concat()).expect(4).json()["result"].clone();
    for what in ["runs", "logged_models", "experiments", "traces"] {
        assert_eq!(plan[what], done[what], "{what} of the plan are those that went");
    }
    assert_eq!(plan["stuck"]["total"], 1, "{plan}");
    assert!(precious.join("x").exists(), "a folder that anybody named is gone");
    assert!(done["failures"].to_string().contains("is not named by the id"), "{}", done["failures"]);
    let protected = done["protected"].to_string();
    for (id, why) in [(&parent, "has it as its parent"), (&cited, "a row of the table \\\"paper\\\"")] {
        assert_eq!(number(file, &format!("SELECT count(*) FROM runs WHERE run_uuid = '{id}'")), 1, "{why}");
        assert!(protected.contains(why), "{why}: {protected}");
    }
    assert_eq!(number(file, "SELECT count(*) FROM paper"), 1);
}

fn text_of(file: &Path, sql: &str) -> String {
    Connection::open(file).unwrap().query_row(sql, [], |row| row.get(0)).unwrap()
}

#[test]
fn a_plan_says_what_will_not_go_and_a_wrong_root_stops_it() {
    let stack = Stack::proxied();
    let (home, file) = (stack.home.path(), &stack.database);
    let store = file.to_str().unwrap();
    execute(file, ALL_DELETED);
    let before = content(file);
    // A disk that is not mounted, or a root that is not this server's.
    let empty = stack.path("empty");
    fs::create_dir_all(empty.join("1")).unwrap();
    for more in [&[][..], &["--yes"]] {
        let wrong = [&["--older-than", "0s", "--artifact-root", empty.to_str().unwrap()], more].concat();
        let said = purge(home, store, &wrong).expect(9);
        assert!(said.json()["error"]["message"].as_str().unwrap().contains("there is no file in any of the places"));
    }
    assert!(content(file) == before);
    // Addresses that no purge removes are known before.
    let root = stack.root.to_str().unwrap();
    execute(file, "UPDATE runs SET artifact_uri = './mlruns/2/' || run_uuid || '/artifacts' WHERE experiment_id = 2");
    let runs = number(file, "SELECT count(*) FROM runs WHERE experiment_id = 2");
    let args = ["--older-than", "0s", "--experiment", "2", "--artifact-root", root];
    let plan = purge(home, store, &args).expect(4).json()["result"].clone();
    let kept = plan["protected"]["total"].as_i64().unwrap();
    assert!(plan["stuck"]["total"].as_i64().unwrap() + kept >= runs, "{plan}");
    assert_eq!((&plan["runs"], &plan["experiments"]), (&0.into(), &0.into()), "{plan}");
    let said = purge(home, store, &[&args[..], &["--yes"]].concat()).expect(4).json()["result"].clone();
    assert_eq!(said["runs"], 0, "{said}");
    // A word that is one experiment's id and another's name is not guessed at.
    execute(file, "UPDATE experiments SET name = '2' WHERE experiment_id = 1");
    let said = purge(home, store, &args).expect(2).json();
    assert!(said["error"]["hint"].as_str().unwrap().contains("their ids: 1, 2"), "{said}");
}

/// As an ordinary user: one folder cannot be removed, one is not there, the rest goes; then the next purge finishes.
#[test]
fn one_failure_does_not_stop_the_rest() {
    let stack = Stack::proxied();
    let (home, file) = (stack.home.path(), &stack.database);
    execute(file, ALL_DELETED);
    let addresses = artifact_folders(file);
    let of_two: Vec<&String> = addresses.iter().filter(|a| a.starts_with("mlflow-artifacts:/2/")).collect();
    let (stuck, missing) = (folder_of(&stack, of_two[3]), folder_of(&stack, of_two[4]));
    fs::remove_dir_all(&missing).unwrap();
    let is_root = rustix::process::geteuid().is_root();
    let nobody = 65_534;
    if is_root {
        let given = Command::new("chown").args(["-R", &nobody.to_string()]).arg(home).status().unwrap();
        assert!(given.success());
        chown(&stuck, Some(0), None).unwrap();
    }
    fs::set_permissions(&stuck, fs::Permissions::from_mode(0o555)).unwrap();
    let purge = || {
        let mut command = mlops(home);
        command.args(["cleanup", "purge", "--older-than", "0s", "--yes", "--progress", "none", "--output", "json"]);
        command.args(["--backend-store-uri", file.to_str().unwrap(), "--artifact-root", stack.root.to_str().unwrap()]);
        if is_root {
            command.uid(nobody);
        }
        Said::of(command.output().unwrap())
    };
    // A disk that is not there: no row goes for files that nobody sees.
    let (before, aside) = (content(file), stack.path("unmounted"));
    fs::rename(&stack.root, &aside).unwrap();
    let none = purge().expect(9).json();
    assert!(none["error"]["message"].as_str().unwrap().contains("there is no file in any of the places"), "{none}");
    assert!(content(file) == before);
    fs::rename(&aside, &stack.root).unwrap();
    let done = purge().expect(4).json()["result"].clone();
    let after = content(file);
    let gone = only_what_went(file, &before, &after);
    let named = done["failures"]["named"].as_array().unwrap();
    assert_eq!(named.len(), 2, "the run or model, and its experiment: {done}");
    assert!(named[0]["reason"].as_str().unwrap().contains(stuck.to_str().unwrap()), "{done}");
    let stays = named[0]["id"].as_str().unwrap();
    assert!(!gone["runs"].contains(stays) && !gone["logged_models"].contains(stays));
    assert!(
        tree(&stack.root)
            .iter()
            .all(|(path, _)| stuck.ends_with(path.split("/artifacts").next().unwrap().to_owned() + "/artifacts"))
    );
    fs::set_permissions(&stuck, fs::Permissions::from_mode(0o755)).unwrap();
    if is_root {
        chown(&stuck, Some(nobody), None).unwrap();
    }
    let done = purge().expect(0).json()["result"].clone();
    assert_eq!((&done["experiments"], &done["failures"]["total"]), (&1.into(), &0.into()), "{done}");
    assert!(tree(&stack.root).is_empty());
    assert_eq!(number(file, "SELECT count(*) FROM runs") + number(file, "SELECT count(*) FROM logged_models"), 0);
}

/// Begins a purge of rows, and gives it when it is about to remove the first of them.
fn begun(home: &Path, store: &str) -> Killed {
    let mut command = mlops(home);
    command.args(["cleanup", "purge", "--older-than", "0s", "--artifacts", "none", "--yes", "--output", "json"]);
    command.args(["--backend-store-uri", store, "--progress", "json"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = Killed(command.spawn().unwrap());
    crate::faults::wait_for_phase(&mut child.0, "removing");
    child
}

fn ended(mut child: Killed) -> Value {
    let mut out = String::new();
    std::io::Read::read_to_string(child.0.stdout.as_mut().unwrap(), &mut out).unwrap();
    assert_eq!(child.0.wait().unwrap().code(), Some(0), "{out}");
    serde_json::from_str::<Value>(&out).unwrap()["result"].clone()
}

#[test]
fn a_run_that_is_restored_meanwhile_survives_with_all_that_is_its_own() {
    let home = folder();
    let file = home.path().join("mlflow.db");
    fs::copy(sample(20_000), &file).unwrap();
    execute(&file, ALL_DELETED);
    let database = postgres(15).database("purge_restored");
    migrate(home.path(), &file, &database.url(), &["-q"]).expect(0);
    let mut connection = Connection::open(&file).unwrap();
    let restored: Vec<String> = connection
        .prepare("SELECT run_uuid FROM runs ORDER BY start_time, run_uuid LIMIT 3")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    let restore =
        |id: &str| format!("UPDATE runs SET lifecycle_stage = 'active', deleted_time = NULL WHERE run_uuid = '{id}'");

    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).unwrap();
    for run in &restored {
        transaction.execute_batch(&restore(run)).unwrap();
    }
    let purging = begun(home.path(), file.to_str().unwrap());
    transaction.commit().unwrap();
    drop(connection);
    let mut done = vec![(file, ended(purging))];

    let mut client = database.client();
    let mut transaction = client.transaction().unwrap();
    for run in &restored {
        transaction.batch_execute(&restore(run)).unwrap();
    }
    let purging = begun(home.path(), &database.url());
    let waiting =
        "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'mlops/2%' AND wait_event_type = 'Lock'";
    wait_for("a wait for the lock", Duration::from_secs(10), || (database.number(waiting) > 0).then_some(()));
    transaction.commit().unwrap();
    let ended = ended(purging);
    done.push((copied(home.path(), &database, "after"), ended));

    let before = content(&sample(20_000));
    for (file, done) in done {
        assert_eq!(done["runs"], 197, "{done}");
        assert!(done["spared"].as_u64().unwrap() > 3, "the runs, and their experiments: {done}");
        let after = content(&file);
        for (table, at) in [("metrics", 3), ("params", 2), ("tags", 2), ("latest_metrics", 6), ("runs", 0)] {
            for run in &restored {
                let own = |content: &Content| {
                    content[table].iter().filter(|row| row.contains(run) || row.get(at) == Some(run)).count()
                };
                assert!(own(&before) >= own(&after));
                let kept =
                    before[table].iter().filter(|r| r.contains(run) && !r.contains(&"mlops.keep".to_owned())).count();
                assert_eq!(own(&after), kept, "{table} of {run}");
            }
        }
        assert_eq!(after["runs"].len(), 3);
    }
}

#[test]
fn a_purge_that_is_killed_is_finished_by_the_next() {
    let (mut halfway, rounds) = (0, rounds());
    for round in 0..rounds {
        let stack = Stack::proxied();
        let (home, file) = (stack.home.path(), &stack.database);
        execute(file, ALL_DELETED);
        let before = content(file);
        let arguments = ["cleanup", "purge", "--older-than", "0s", "--yes", "--output", "json", "--backend-store-uri"];
        let arguments =
            [&arguments[..], &[file.to_str().unwrap(), "--artifact-root", stack.root.to_str().unwrap()]].concat();
        let signal = [Signal::KILL, Signal::TERM, Signal::INT][round as usize % 3];
        let mut command = mlops(home);
        command.args(&arguments).args(["--progress", "json"]).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = Killed(command.spawn().unwrap());
        crate::faults::wait_for_phase(&mut child.0, "removing");
        if round % 2 == 1 {
            // However slow the machine is: when the first batch is gone.
            let all = i64::try_from(before["runs"].len()).unwrap();
            wait_for("a batch that is gone", Duration::from_secs(60), || {
                let ended = child.0.try_wait().unwrap().is_some();
                (ended || number(file, "SELECT count(*) FROM runs") < all).then_some(())
            });
        } else {
            std::thread::sleep(Duration::from_millis(u64::from(round) * 400 / u64::from(rounds)));
        }
        // One that has ended needs no signal.
        let _ = kill_process(Pid::from_child(&child.0), signal);
        child.0.wait().unwrap();

        let after = content(file);
        let gone = only_what_went(file, &before, &after);
        let files = tree(&stack.root);
        for id in gone["runs"].iter().chain(&gone["logged_models"]) {
            assert!(!files.iter().any(|(path, _)| path.contains(id.as_str())), "{id} has files and no row");
        }
        halfway += usize::from(!gone["runs"].is_empty() && after["runs"].len() > 1);
        run(home, &[&arguments[..], &["-q"]].concat()).expect(0);
        only_what_went(file, &before, &content(file));
        assert_eq!(number(file, "SELECT count(*) FROM runs"), 0);
        assert!(tree(&stack.root).is_empty());
    }
    assert!(halfway > 0, "none was killed between the first batch and the last");
}

#[test]
fn objects_of_s3_go_and_those_that_fail_go_the_next_time() {
    let home = folder();
    let file = home.path().join("mlflow.db");
    fs::copy(sample(20_000), &file).unwrap();
    execute(&file, ALL_DELETED);
    for (table, column) in [
        ("runs", "artifact_uri"),
        ("logged_models", "artifact_location"),
        ("experiments", "artifact_location"),
        ("trace_tags", "value"),
    ] {
        let moved = format!("replace({column}, 'mlflow-artifacts:/', 's3://artifacts/root/')");
        execute(&file, &format!("UPDATE {table} SET {column} = {moved}"));
    }
    let store = object_store(home.path(), &["--empty"]);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let whole = ArtifactAddress::parse("s3://artifacts");
    let cancel = Cancel::new();
    let objects =
        shelf(&whole, &S3::new(store.access.clone()), runtime.handle(), home.path(), &cancel).unwrap().unwrap();
    let put = |path: &str| {
        let mut staged = objects.stage().unwrap();
        std::io::Write::write_all(&mut staged, b"content").unwrap();
        objects.put(staged, path, mlops::artifact::files::There::Replaced).unwrap();
    };
    let of_two = |address: &String| address.starts_with("s3://artifacts/root/2/");
    let addresses: Vec<String> = artifact_folders(&file).into_iter().filter(of_two).take(12).collect();
    for address in &addresses {
        for name in ["model/MLmodel", "model/weights ü#%.bin", "x"] {
            put(&format!("{}/{name}", address.trim_start_matches("s3://artifacts/")));
        }
    }
    // One whose name only begins alike, and one beside.
    let other = format!("{}-other/x", addresses[0].trim_start_matches("s3://artifacts/"));
    put(&other);
    let url = store.access.endpoint.clone().unwrap();
    let relay = Relay::before(url.rsplit_once(':').unwrap().1.parse().unwrap());
    let key = store.access.key.as_ref().unwrap();
    let purge = || {
        let mut command = mlops(home.path());
        command.env("AWS_ACCESS_KEY_ID", &key.id).env("AWS_SECRET_ACCESS_KEY", key.secret.expose_secret());
        command.env("MLFLOW_S3_ENDPOINT_URL", format!("http://localhost:{}", relay.port));
        command.args(["cleanup", "purge", "--older-than", "0s", "--yes", "--progress", "none", "--output", "json"]);
        command.args(["--backend-store-uri", file.to_str().unwrap(), "--jobs", "8"]);
        Said::of(command.output().unwrap())
    };
    let busy = addresses[5].trim_start_matches("s3://").to_owned();
    // A server that does not delete many at once is asked for one after the other.
    relay.judge(move |head| {
        let refused = head.starts_with("POST ") || (head.starts_with("DELETE ") && head.contains(&busy));
        if refused { BUSY } else { Fate::Through }
    });
    let done = purge().expect(4).json()["result"].clone();
    assert_eq!(done["failures"]["total"], 2, "one thing and its experiment: {done}");
    assert!(done["failures"]["named"][0]["reason"].as_str().unwrap().contains("SlowDown"), "{done}");
    relay.judge(|_| Fate::Through);
    let done = purge().expect(0).json()["result"].clone();
    assert_eq!((&done["failures"]["total"], &done["files"]), (&0.into(), &3.into()), "{done}");
    let mut left = Vec::new();
    objects
        .walk("", &mut |met| {
            left.push(met);
            Ok(())
        })
        .unwrap();
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(format!("{left:?}").contains("-other"), "{left:?}");
    assert_eq!(number(&file, "SELECT count(*) FROM runs"), 0);
}

/// A store of a release with a row in every table: purged while its server runs, through its proxy and by its folder.
fn a_release(release: &str) {
    let place = folder();
    let home = place.path();
    let file = home.join("mlflow.db");
    let store = format!("sqlite:///{}", file.display());
    let server = Server::start(release, &store, home, &["--serve-artifacts"]);
    let own = home.join("own-artifacts");
    server.script("fill.py", &["--artifact-dir", own.to_str().unwrap(), "--backend-store-uri", &store]).expect(0);
    drop(server);
    let database = postgres(15).database(&format!("purge_{release}"));
    migrate(home, &file, &database.url(), &["-q"]).expect(0);
    let artifacts = home.join("artifacts");
    let kept = home.join("artifacts-kept");
    assert!(Command::new("cp").arg("-a").arg(&artifacts).arg(&kept).status().unwrap().success());

    let server = Server::start(release, &store, home, &["--serve-artifacts"]);
    let path = file.to_str().unwrap();
    let proxied = ["--older-than", "0s", "--yes", "--tracking-uri", &server.url];
    purged(release, &server, home, path, &proxied, &artifacts, &mut || file.clone());
    drop(server);

    fs::remove_dir_all(&artifacts).unwrap();
    fs::rename(&kept, &artifacts).unwrap();
    let server = Server::start(release, &database.sqlalchemy(), home, &["--serve-artifacts"]);
    let direct = ["--older-than", "0s", "--yes", "--artifact-root", artifacts.to_str().unwrap()];
    let mut copies = 0;
    purged(release, &server, home, &database.url(), &direct, &artifacts, &mut || {
        copies += 1;
        copied(home, &database, &format!("copy-{copies}"))
    });
}

fn purged(
    release: &str,
    server: &Server,
    home: &Path,
    store: &str,
    more: &[&str],
    artifacts: &Path,
    look: &mut dyn FnMut() -> PathBuf,
) {
    for turn in ["what the filling deleted", "nearly all"] {
        if turn == "nearly all" {
            server.script("delete_rest.py", &[]).expect(0);
        }
        let before = content(&look());
        let done = purge(home, store, more).expect(0).json()["result"].clone();
        let file = look();
        let gone = only_what_went(&file, &before, &content(&file));
        assert!(!gone["runs"].is_empty() && !gone["experiments"].is_empty(), "{release}, {turn}: {done}");
        let files = tree(artifacts);
        for id in gone.values().flatten().filter(|id| id.len() > 8) {
            assert!(!files.iter().any(|(path, _)| path.contains(id.as_str())), "{release}: {id} has files");
        }
        let again = purge(home, store, more).expect(0).json()["result"].clone();
        assert_eq!(again["done"], false, "{release}, {turn}: a second purge finds something: {again}");
        server.exercise();
    }
}

#[test]
fn mlflow_2_9_2_is_purged_while_it_runs() {
    a_release("2.9.2");
}

#[test]
fn mlflow_3_4_0_is_purged_while_it_runs() {
    a_release("3.4.0");
}

#[test]
fn mlflow_3_17_2_is_purged_while_it_runs() {
    a_release("3.17.2");
}

/// Twenty trainers write straight into the database, by MLflow's own store; none of their writes fails.
fn crowd(home: &Path, store: &str, uri: &str) {
    let ready = home.join("crowd");
    let _ = fs::remove_file(&ready);
    let mut child = Command::new(python("3.17.2"))
        .arg(root().join("tests/mlflow/crowd.py"))
        .args(["--store", uri, "--writers", "20", "--ready-file"])
        .arg(&ready)
        .env("HOME", home)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for("the first writes", Duration::from_secs(120), || {
        fs::read_to_string(&ready).ok().filter(|t| !t.is_empty())
    });
    let done = purge(home, store, &["--older-than", "0s", "--artifacts", "none", "--yes"]).expect(0).json();
    drop(child.stdin.take());
    let said = Said::of(child.wait_with_output().unwrap()).expect(0).json();
    assert_eq!(done["result"]["runs"], 15_000, "{done}");
    println!("{} in {} ms: {said}", store, done["result"]["milliseconds"]);
    assert_eq!(said["failed"], 0, "{said}");
    assert!(said["done"].as_i64().unwrap() > 100, "{said}");
}

#[test]
fn twenty_writers_do_not_fail_while_15_000_runs_are_purged() {
    let home = folder();
    let file = home.path().join("mlflow.db");
    let arguments = ["demo", "--only-sample", "-q", "--metrics", "300000", "--runs", "15000", "--file"];
    run(home.path(), &[&arguments[..], &[file.to_str().unwrap()]].concat()).expect(0);
    execute(&file, ALL_DELETED);
    execute(&file, "UPDATE experiments SET lifecycle_stage = 'active'");
    let database = postgres(15).database("purge_crowd");
    migrate(home.path(), &file, &database.url(), &["-q"]).expect(0);
    crowd(home.path(), file.to_str().unwrap(), &format!("sqlite:///{}", file.display()));
    crowd(home.path(), &database.url(), &database.sqlalchemy());
}
