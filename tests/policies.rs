//! What PostgreSQL cannot hold, and what an operator may allow to be done about it.

use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use crate::support::{Database, Said, folder, migrate, postgres, run, sample, verify};

/// A sample with something of everything that PostgreSQL cannot hold.
fn damaged(place: &Path) -> PathBuf {
    let file = place.join("mlflow.db");
    fs::copy(sample(2_000), &file).unwrap();
    let connection = Connection::open(&file).unwrap();
    connection
        .execute_batch(
            "PRAGMA foreign_keys = OFF; PRAGMA ignore_check_constraints = ON;
             UPDATE runs SET name = name || char(0) || 'x' WHERE rowid = 1;
             UPDATE runs SET experiment_id = 4711 WHERE rowid = 2;
             UPDATE runs SET status = 'GONE' WHERE rowid = 3;
             UPDATE params SET value = CAST(x'ff00fe' AS TEXT) WHERE rowid = 100;
             UPDATE metrics SET step = 'first' WHERE rowid = 1900;
             UPDATE tags SET value = replace(hex(zeroblob(4500)), '00', 'äx') WHERE rowid = 200;
             UPDATE experiments SET creation_time = 'yesterday' WHERE experiment_id = 0;
             DELETE FROM runs WHERE experiment_id = 0;",
        )
        .unwrap();
    file
}

fn count(file: &Path, sql: &str) -> i64 {
    Connection::open(file).unwrap().query_row(sql, [], |row| row.get(0)).unwrap()
}

/// Rows that stay when rows are put aside: their number, and that all of them are those of the source.
fn rest_is_equal(home: &Path, file: &Path, database: &Database, aside: u64) {
    let said = verify(home, file.to_str().unwrap(), &database.url()).expect(5);
    assert!(!said.out.contains("only in the target") && !said.out.contains("in the source, "), "{}", said.out);
    let arguments = ["migrate", "verify", "-q", "--output", "json", "--source", file.to_str().unwrap(), "--target"];
    let url = database.url();
    let json = run(home, &[&arguments[..], &[url.as_str()]].concat()).expect(5).json();
    let tables = json["result"]["tables"].as_array().unwrap();
    let sum = |key: &str| tables.iter().map(|t| t[key].as_u64().unwrap()).sum::<u64>();
    assert_eq!(sum("source_rows"), sum("target_rows") + aside);
}

#[test]
fn every_finding_is_told_at_once_and_nothing_is_written() {
    let (home, place) = (folder(), folder());
    let file = damaged(place.path());
    let database = postgres(15).database("findings");
    for more in [&[] as &[&str], &["--dry-run"]] {
        let Said { code, out, err } = migrate(home.path(), &file, &database.url(), more);
        assert_eq!(code, 6, "{out}{err}");
        let said = format!("{out}{err}");
        for words in [
            "`runs.name` contains the character NUL",
            "`runs` refers to a row of `experiments` that does not exist",
            "`runs` breaks the rule status IN",
            "`params.value` is not valid UTF-8",
            "`metrics.step` is stored as text",
            "`tags.value` is longer than the 8000 characters",
            "`experiments.creation_time` is stored as text",
            "--widen makes the column longer",
            "--bad-rows quarantine",
        ] {
            assert!(said.contains(words), "{words}: {said}");
        }
    }
    assert!(database.tables().is_empty() && database.own_schemas().is_empty());
}

#[test]
fn bad_rows_and_all_that_refer_to_them_are_put_aside() {
    let (home, place) = (folder(), folder());
    let file = damaged(place.path());
    let before = fs::read(&file).unwrap();
    let database = postgres(15).database("aside");
    let aside = home.path().join("aside.jsonl");
    let policy = ["--bad-rows", "quarantine", "--quarantine-file", aside.to_str().unwrap()];
    let plan = migrate(home.path(), &file, &database.url(), &[&policy[..], &["--dry-run"]].concat()).expect(4);
    assert!(plan.out.contains("rows are not copied but written whole into") && !aside.exists(), "{}", plan.out);
    let said = migrate(home.path(), &file, &database.url(), &policy).expect(4);
    assert!(said.out.contains("every row that was copied was read back"), "{}", said.out);
    let rows: Vec<serde_json::Value> =
        fs::read_to_string(&aside).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let of = |table: &str| rows.iter().filter(|r| r["table"] == table).count() as i64;
    assert_eq!(of("experiments"), 1);
    assert_eq!(of("runs"), 3);
    // What belongs to these runs went with them, nothing else of its table did.
    let sound = "(SELECT run_uuid FROM runs WHERE rowid NOT IN (1, 2, 3))";
    for table in ["params", "metrics", "tags", "latest_metrics"] {
        let followed = count(&file, &format!("SELECT count(*) FROM {table} WHERE run_uuid NOT IN {sound}"));
        let own = count(
            &file,
            &format!(
            "SELECT count(*) FROM {table} WHERE rowid = CASE '{table}' WHEN 'params' THEN 100 WHEN 'metrics' THEN 1900
             WHEN 'tags' THEN 200 ELSE -1 END AND run_uuid IN {sound}"
        ),
        );
        assert_eq!(of(table), followed + own, "{table}");
        assert!(followed > 0, "{table}: the test proves nothing");
    }
    let nul = rows.iter().find(|r| r["table"] == "runs" && r["rowid"] == 1).unwrap();
    assert!(nul["row"]["name"].as_str().unwrap().ends_with("\0x"));
    assert!(nul["reason"].as_str().unwrap().contains("NUL"));
    let bytes = rows.iter().find(|r| r["table"] == "params" && r["rowid"] == 100).unwrap();
    assert_eq!(bytes["row"]["value"]["text"], "ff00fe");
    rest_is_equal(home.path(), &file, &database, rows.len() as u64);
    assert!(fs::read(&file).unwrap() == before, "the operator's file was changed");
    // A second run does not write over the rows of the first.
    let said = migrate(home.path(), &file, &postgres(15).database("aside_2").url(), &policy).expect(9);
    assert!(said.err.contains("is there already"), "{}", said.err);
}

#[test]
fn a_store_that_fits_needs_no_policy_and_none_changes_it() {
    let home = folder();
    let file = sample(2_000);
    let database = postgres(15).database("no_need");
    let policy = ["--bad-rows", "quarantine", "--widen", "--remap-experiment-ids"];
    migrate(home.path(), &file, &database.url(), &policy).expect(0);
    verify(home.path(), file.to_str().unwrap(), &database.url()).expect(0);
    let left: Vec<_> = fs::read_dir(".").unwrap().flatten().map(|e| e.file_name()).collect();
    assert!(!left.iter().any(|n| n.to_string_lossy().starts_with("mlops-quarantine")), "{left:?}");
}

#[test]
fn artifact_addresses_are_rewritten_where_they_stand_and_nowhere_else() {
    let (home, place) = (folder(), folder());
    let file = place.path().join("mlflow.db");
    fs::copy(sample(2_000), &file).unwrap();
    Connection::open(&file)
        .unwrap()
        .execute_batch(
            "UPDATE runs SET artifact_uri = '/mnt/old/' || run_uuid WHERE rowid % 2 = 0;
             UPDATE runs SET artifact_uri = 'file:///C:/ml runs/' || run_uuid WHERE rowid % 2 = 1;
             UPDATE experiments SET artifact_location = '/mnt/older' WHERE experiment_id = 0;
             INSERT INTO tags SELECT 'note', '/mnt/old/is quoted', run_uuid FROM runs LIMIT 1;
             UPDATE datasets SET dataset_source = '{\"uri\": \"/mnt/old/data.csv\"}' WHERE rowid = 1;",
        )
        .unwrap();
    let database = postgres(15).database("rewritten");
    let rules = ["--rewrite-artifacts", "/mnt/old=s3://bucket/ml", "--rewrite-artifacts", "file:///C:/ml runs=/srv/ml"];
    let plan = migrate(home.path(), &file, &database.url(), &[&rules[..], &["--dry-run"]].concat()).expect(0);
    assert!(
        plan.out.contains("file:///C:/path") && plan.out.contains("Addresses that begin with /mnt/old"),
        "{}",
        plan.out
    );
    migrate(home.path(), &file, &database.url(), &rules).expect(0);
    assert_eq!(
        database.number("SELECT count(*) FROM runs WHERE artifact_uri LIKE '/srv/ml/%'"),
        count(&file, "SELECT count(*) FROM runs WHERE rowid % 2 = 1")
    );
    assert_eq!(
        database.number("SELECT count(*) FROM runs WHERE artifact_uri LIKE 's3://bucket/ml/%'"),
        count(&file, "SELECT count(*) FROM runs WHERE rowid % 2 = 0")
    );
    assert_eq!(database.number("SELECT count(*) FROM experiments WHERE artifact_location = '/mnt/older'"), 1);
    assert_eq!(database.number("SELECT count(*) FROM tags WHERE value = '/mnt/old/is quoted'"), 1);
    if count(&file, "SELECT count(*) FROM datasets") > 0 {
        let source = database.texts("SELECT dataset_source FROM datasets WHERE dataset_source LIKE '%data.csv%'");
        assert_eq!(source, ["{\"uri\": \"s3://bucket/ml/data.csv\"}"]);
    }
    let url = database.url();
    let arguments = ["migrate", "verify", "-q", "--source", file.to_str().unwrap(), "--target", &url];
    run(home.path(), &arguments).expect(5);
    run(home.path(), &[&arguments[..], &rules[..]].concat()).expect(0);
    for wrong in ["nothing", "=x", "/a/=/b"] {
        migrate(home.path(), &file, &url, &["--rewrite-artifacts", wrong]).expect(2);
    }
}

#[test]
fn experiment_ids_of_a_file_store_become_small_everywhere() {
    const BIG: i64 = 490_770_468_155_569_826;
    let (home, place) = (folder(), folder());
    let file = place.path().join("mlflow.db");
    fs::copy(sample(2_000), &file).unwrap();
    let connection = Connection::open(&file).unwrap();
    let mut statement = connection
        .prepare("SELECT m.name FROM sqlite_master m, pragma_table_info(m.name) c WHERE c.name = 'experiment_id'")
        .unwrap();
    let tables: Vec<String> = statement.query_map([], |r| r.get(0)).unwrap().map(Result::unwrap).collect();
    connection.execute_batch("PRAGMA foreign_keys = OFF").unwrap();
    for table in &tables {
        connection
            .execute(
                &format!("UPDATE \"{table}\" SET experiment_id = experiment_id + {BIG} WHERE experiment_id > 1"),
                [],
            )
            .unwrap();
    }
    connection
        .execute_batch(&format!(
            "INSERT OR REPLACE INTO registered_model_tags (workspace, name, key, value)
             SELECT workspace, name, '_mlflow_experiment_ids', ',1,{},' FROM registered_models LIMIT 1",
            BIG + 2
        ))
        .unwrap();
    let database = postgres(15).database("remapped");
    migrate(home.path(), &file, &database.url(), &[]).expect(6);
    let certificate = home.path().join("certificate.json");
    let policy = ["--remap-experiment-ids", "--certificate", certificate.to_str().unwrap()];
    migrate(home.path(), &file, &database.url(), &policy).expect(0);
    let certificate: serde_json::Value = serde_json::from_str(&fs::read_to_string(&certificate).unwrap()).unwrap();
    let map = certificate["policies"]["experiment_ids"].as_array().unwrap();
    assert_eq!(map[0], serde_json::json!({"old": (BIG + 2).to_string(), "new": "2"}));
    for table in &tables {
        let there = database.number(&format!("SELECT coalesce(sum(experiment_id), 0)::bigint FROM \"{table}\""));
        // As the ids would be without the great number on top of them.
        let here = count(
            &file,
            &format!(
                "SELECT coalesce(sum(experiment_id - CASE WHEN experiment_id > 1 THEN {BIG} ELSE 0 END), 0) FROM \"{table}\""
            ),
        );
        assert_eq!(there, here, "{table}");
    }
    let listed = database.texts("SELECT value FROM registered_model_tags WHERE key = '_mlflow_experiment_ids'");
    assert!(listed.contains(&",1,2,".to_owned()), "{listed:?}");
    assert_eq!(
        database.number("SELECT nextval('experiments_experiment_id_seq')"),
        database.number("SELECT max(experiment_id)::bigint FROM experiments") + 1
    );
}

#[test]
fn a_rehearsal_does_all_of_it_and_leaves_nothing() {
    let (home, place) = (folder(), folder());
    let file = place.path().join("mlflow.db");
    fs::copy(sample(2_000), &file).unwrap();
    let source = file.to_str().unwrap();
    let programs = crate::support::programs(15);
    let rehearse = |source: &str| {
        let mut command = crate::support::mlops(home.path());
        command.env("MLOPS_POSTGRES_BIN", &programs);
        command.args(["migrate", "sqlite-to-pg", "-q", "--rehearse", "--source", source]);
        Said::of(command.output().unwrap())
    };
    let said = rehearse(source).expect(0);
    assert!(said.out.contains("Verified:") && said.out.contains("Rehearsal:"), "{}", said.out);
    let left: Vec<_> = fs::read_dir(home.path()).unwrap().flatten().map(|e| e.file_name()).collect();
    assert!(left.is_empty(), "{left:?}");
    let bad = damaged(home.path());
    let said = rehearse(bad.to_str().unwrap()).expect(6);
    assert!(said.out.contains("`runs.name` contains the character NUL"), "{}", said.out);
    run(home.path(), &["migrate", "sqlite-to-pg", "--rehearse", "--source", source, "--target", "x"]).expect(2);
    run(home.path(), &["migrate", "sqlite-to-pg", "--source", source]).expect(2);
}

/// Rules that SQLite itself did not hold this file to.
#[test]
fn ids_of_experiments_that_are_put_aside_are_not_given_again_and_links_go_with_them() {
    let (home, place) = (folder(), folder());
    let file = place.path().join("mlflow.db");
    fs::copy(sample(2_000), &file).unwrap();
    let connection = Connection::open(&file).unwrap();
    let highest: i64 = connection.query_row("SELECT max(experiment_id) FROM experiments", [], |r| r.get(0)).unwrap();
    connection
        .execute_batch(&format!(
            "PRAGMA ignore_check_constraints = ON;
             UPDATE experiments SET lifecycle_stage = 'odd' WHERE experiment_id = {highest}"
        ))
        .unwrap();
    drop(connection);
    let database = postgres(15).database("taken");
    let aside = home.path().join("aside.jsonl");
    let policy = ["--bad-rows", "quarantine", "--quarantine-file", aside.to_str().unwrap()];
    let said = migrate(home.path(), &file, &database.url(), &policy).expect(4);
    assert_eq!(database.number("SELECT nextval('experiments_experiment_id_seq')"), highest + 1);
    for (table, sql) in [
        ("inputs", "destination_id NOT IN (SELECT run_uuid FROM runs UNION SELECT model_id FROM logged_models)"),
        ("input_tags", "input_uuid NOT IN (SELECT input_uuid FROM inputs)"),
    ] {
        assert_eq!(database.number(&format!("SELECT count(*) FROM {table} WHERE {sql}")), 0, "{table}");
    }
    assert!(fs::read_to_string(&aside).unwrap().contains("\"table\":\"inputs\""), "the test proves nothing");
    let dangling = database
        .number("SELECT count(*) FROM model_versions WHERE run_id <> '' AND run_id NOT IN (SELECT run_uuid FROM runs)");
    let before = count(
        &file,
        "SELECT count(*) FROM model_versions WHERE run_id <> '' AND run_id NOT IN (SELECT run_uuid FROM runs)",
    );
    let words = format!("{} rows of `model_versions` stay, and their `run_id` names", dangling - before);
    assert!(dangling == before || said.err.contains(&words), "{words}: {}", said.err);
}

#[test]
fn what_a_file_breaks_of_its_own_rules_is_a_finding_and_no_damage() {
    let (home, place) = (folder(), folder());
    let file = place.path().join("mlflow.db");
    fs::copy(sample(2_000), &file).unwrap();
    let connection = Connection::open(&file).unwrap();
    connection
        .execute_batch(
            "PRAGMA writable_schema = ON;
             UPDATE sqlite_master SET sql = replace(sql, 'name VARCHAR(256) NOT NULL', 'name VARCHAR(256)')
             WHERE name = 'experiments';
             PRAGMA writable_schema = RESET;",
        )
        .unwrap();
    drop(connection);
    let connection = Connection::open(&file).unwrap();
    connection
        .execute_batch(
            "UPDATE experiments SET name = NULL WHERE experiment_id = 1;
             PRAGMA writable_schema = ON;
             UPDATE sqlite_master SET sql = replace(sql, 'name VARCHAR(256)', 'name VARCHAR(256) NOT NULL')
             WHERE name = 'experiments';
             PRAGMA writable_schema = RESET;",
        )
        .unwrap();
    let deep = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
    connection.execute("INSERT INTO evaluation_datasets (dataset_id, name) VALUES ('d-1', 'deep')", []).unwrap();
    connection
        .execute(
            "INSERT INTO evaluation_dataset_records (dataset_record_id, dataset_id, inputs, input_hash) VALUES ('r-1', 'd-1', ?1, 'x')",
            [deep],
        )
        .unwrap();
    drop(connection);
    let database = postgres(15).database("own_rules");
    for more in [&[] as &[&str], &["--dry-run"]] {
        let said = migrate(home.path(), &file, &database.url(), more).expect(6);
        let said = said.out + &said.err;
        assert!(said.contains("`experiments.name` is NULL where NULL is not allowed (1 row"), "{said}");
        assert!(said.contains("`evaluation_dataset_records.inputs` is nested deeper"), "{said}");
    }
    let aside = home.path().join("aside.jsonl");
    let policy = ["--bad-rows", "quarantine", "--quarantine-file", aside.to_str().unwrap()];
    migrate(home.path(), &file, &database.url(), &policy).expect(4);
}

#[test]
fn a_pipe_is_not_waited_for() {
    let home = folder();
    let pipe = home.path().join("pipe.db");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let said = run(home.path(), &["db", "info", pipe.to_str().unwrap()]).expect(6);
    assert!(said.err.contains("is not a file"), "{}", said.err);
}
