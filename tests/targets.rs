//! What the target may hold, and what happens to it; tables of others; the certificate.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use mlops::domain::address::{PgAddress, StoreAddress};
use mlops::domain::catalogue::{Catalogue, Line};
use mlops::domain::consent::Consent;
use mlops::domain::failure::Kind;
use mlops::engine::cancel::Cancel;
use mlops::store::postgres::connect::Postgres;
use mlops::store::postgres::temporary::TemporaryDatabase;
use mlops::store::sqlite::occupied::{Existing, aside, in_the_way};
use mlops::store::sqlite::sink::SqliteSink;

use crate::support::{Database, Killed, Said, folder, migrate, mlops, postgres, python, run, sample, verify, wait_for};

/// A fresh schema as MLflow's own first start makes it.
fn fresh_server(url: &str) {
    let code = "import sys, sqlalchemy as s, mlflow.store.db.utils as u
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
SqlAlchemyStore(sys.argv[1], '/tmp')";
    let output = Command::new(python("2.9.2")).args(["-c", code, url]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_fresh_servers_empty_tables_are_replaced() {
    let home = folder();
    let database = postgres(15).database("fresh");
    fresh_server(&database.sqlalchemy());
    assert_eq!(database.number("SELECT count(*) FROM experiments"), 1);
    let plan = migrate(home.path(), &sample(2_000), &database.url(), &["--dry-run"]).expect(0);
    assert!(plan.out.contains("empty tables of a fresh server are replaced"), "{}", plan.out);
    assert_eq!(database.number("SELECT count(*) FROM experiments"), 1, "a dry run changes nothing");
    migrate(home.path(), &sample(2_000), &database.url(), &[]).expect(0);
    verify(home.path(), sample(2_000).to_str().unwrap(), &database.url()).expect(0);
    assert!(database.own_schemas().is_empty());
}

#[test]
fn data_are_refused_and_moved_aside_only_when_asked_and_agreed() {
    let home = folder();
    let file = sample(2_000);
    let database = postgres(15).database("data");
    migrate(home.path(), &file, &database.url(), &[]).expect(0);
    for more in [&[][..], &["--yes"], &["--dry-run"]] {
        let said = migrate(home.path(), &file, &database.url(), more).expect(9);
        assert!(said.err.contains("holds MLflow's data already") && said.err.contains("--replace"), "{}", said.err);
    }
    let said = migrate(home.path(), &file, &database.url(), &["--replace"]).expect(9);
    assert!(said.err.contains("needs your consent"), "{}", said.err);
    let plan = migrate(home.path(), &file, &database.url(), &["--replace", "--dry-run", "--yes"]).expect(0);
    assert!(plan.out.contains("are moved to the schema mlops_replaced_"), "{}", plan.out);
    assert!(database.own_schemas().is_empty());

    database.execute("UPDATE experiments SET name = 'kept' WHERE experiment_id = 0");
    let said = migrate(home.path(), &file, &database.url(), &["--replace", "--yes"]).expect(0);
    let schemas = database.own_schemas();
    assert_eq!(schemas.len(), 1);
    assert!(said.out.contains(&schemas[0]) && schemas[0].starts_with("mlops_replaced_2"), "{} {schemas:?}", said.out);
    assert_eq!(
        database.texts(&format!("SELECT name FROM \"{}\".experiments WHERE experiment_id = 0", schemas[0])),
        ["kept"]
    );
    verify(home.path(), file.to_str().unwrap(), &database.url()).expect(0);
    // What was replaced is whole: its trigger's function went with it, and the new one works.
    assert_eq!(database.number("SELECT count(*) FROM pg_proc WHERE proname = 'prevent_secrets_aad_mutation'"), 2);
    assert_eq!(database.number("SELECT count(*) FROM pg_trigger WHERE tgname LIKE '%aad%'"), 2);
}

#[test]
fn a_target_that_may_not_be_changed_says_the_grant_that_is_missing() {
    let home = folder();
    let database = postgres(15).database("rights");
    database.execute("DROP ROLE IF EXISTS weak; CREATE ROLE weak LOGIN");
    let url = database.url().replace("mlops@", "weak@");
    let said = migrate(home.path(), &sample(2_000), &url, &[]).expect(7);
    assert!(said.err.contains("GRANT CREATE ON DATABASE \"rights\" TO \"weak\""), "{}", said.err);
    database.execute("GRANT CREATE ON DATABASE rights TO weak");
    let said = migrate(home.path(), &sample(2_000), &url, &[]).expect(7);
    assert!(said.err.contains("GRANT CREATE ON SCHEMA \"public\" TO \"weak\""), "{}", said.err);
    database.execute("GRANT CREATE ON SCHEMA public TO weak");
    migrate(home.path(), &sample(2_000), &url, &[]).expect(0);
    assert_eq!(database.texts("SELECT DISTINCT tableowner::text FROM pg_tables WHERE schemaname = 'public'"), ["weak"]);

    let latin = postgres(15).database("latin");
    latin.execute("SELECT 1");
    let other = postgres(15).database("other_encoding");
    other.execute("DROP DATABASE IF EXISTS latin1");
    other.execute("CREATE DATABASE latin1 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0");
    let said = migrate(home.path(), &sample(2_000), &other.url().replace("other_encoding", "latin1"), &[]).expect(7);
    assert!(said.err.contains("encoding LATIN1"), "{}", said.err);
}

#[test]
fn sequences_go_on_and_generated_columns_are_computed() {
    let home = folder();
    let database = postgres(15).database("sequences");
    migrate(home.path(), &sample(2_000), &database.url(), &["-q"]).expect(0);
    let highest = database.number("SELECT max(experiment_id)::bigint FROM experiments");
    let next = database.number("INSERT INTO experiments (name, lifecycle_stage, workspace) VALUES ('new', 'active', 'default') RETURNING experiment_id::bigint");
    assert_eq!(next, highest + 1);
    assert_eq!(
        database.number("SELECT count(*) FROM spans WHERE duration_ns = end_time_unix_nano - start_time_unix_nano"),
        database.number("SELECT count(*) FROM spans")
    );
    assert!(database.number("SELECT count(*) FROM spans") > 0);
}

#[test]
fn tables_of_others_are_listed_left_out_or_taken_along() {
    let (home, place) = (folder(), folder());
    let file = place.path().join("mlflow.db");
    fs::copy(sample(2_000), &file).unwrap();
    let connection = rusqlite::Connection::open(&file).unwrap();
    connection
        .execute_batch(
            "CREATE TABLE team_notes (id INTEGER PRIMARY KEY, note TEXT NOT NULL, weight REAL, raw BLOB, at DATETIME);
             INSERT INTO team_notes VALUES (5000000000, 'größer', 1.5, x'00ff', '2026-01-01 10:00:00'), (2, '', NULL, NULL, NULL);
             CREATE TABLE odd (x NUMERIC); CREATE VIEW v AS SELECT 1;",
        )
        .unwrap();
    let database = postgres(15).database("foreign");
    let said = migrate(home.path(), &file, &database.url(), &[]).expect(0);
    assert!(said.out.contains("Not MLflow's, left out: table odd, table team_notes, view v"), "{}", said.out);
    assert!(!database.tables().contains(&"team_notes".to_owned()));

    let database = postgres(15).database("foreign");
    migrate(home.path(), &file, &database.url(), &["--include-table", "team_notes"]).expect(0);
    assert_eq!(database.texts("SELECT note || '/' || weight || '/' || encode(raw, 'hex') || '/' || at FROM team_notes WHERE id = 5000000000"), ["größer/1.5/00ff/2026-01-01 10:00:00"]);
    let arguments = [
        "migrate",
        "verify",
        "-q",
        "--include-table",
        "team_notes",
        "--source",
        file.to_str().unwrap(),
        "--target",
        &database.url(),
    ];
    let said = run(home.path(), &arguments).expect(0);
    assert!(said.out.contains("team_notes"));
    for (table, code, words) in [
        ("odd", 6, "for which PostgreSQL has no type"),
        ("nothing", 2, "is not in this store"),
        ("runs", 2, "MLflow's own"),
    ] {
        let database = postgres(15).database("foreign");
        let said = migrate(home.path(), &file, &database.url(), &["--include-table", table]).expect(code);
        assert!(said.err.contains(words), "{}", said.err);
    }
}

#[test]
fn a_column_or_table_in_mlflows_place_is_refused() {
    for (change, words) in [
        ("ALTER TABLE runs ADD COLUMN mood TEXT", "`runs` has a column `mood`"),
        ("ALTER TABLE params DROP COLUMN value", "`params` lacks the column `value`"),
        ("DROP TABLE inputs", "the table `inputs` of revision dc11669786a5"),
        ("CREATE TABLE _alembic_tmp_runs (x)", "an upgrade of `runs` was interrupted"),
        ("UPDATE alembic_version SET version_num = 'acf3f17fdcc7'", "MLflow 2.8.0"),
        ("UPDATE alembic_version SET version_num = 'ffffffffffff'", "is not one that this mlops knows"),
        ("DELETE FROM alembic_version", "no revision in `alembic_version`"),
        ("INSERT INTO alembic_version VALUES ('acf3f17fdcc7')", "names 2 revisions"),
        ("INSERT INTO tags SELECT 'orphan', '', 'nobody'", "refers to a row of `runs` that does not exist"),
        (
            "UPDATE runs SET start_time = 'noon' WHERE run_uuid = (SELECT min(run_uuid) FROM runs)",
            "`runs.start_time` is stored as text",
        ),
        ("UPDATE tags SET value = 'a' || char(0) WHERE key = 'mlflow.user'", "contains the character NUL"),
        ("UPDATE runs SET name = CAST(x'ff' AS TEXT)", "`runs.name` is not valid UTF-8"),
        (
            "UPDATE runs SET status = 'WEIRD' WHERE run_uuid = (SELECT min(run_uuid) FROM runs)",
            "`runs` breaks the rule status IN",
        ),
    ] {
        let (home, place) = (folder(), folder());
        let file = place.path().join("mlflow.db");
        fs::copy(sample(2_000), &file).unwrap();
        let connection = rusqlite::Connection::open(&file).unwrap();
        connection.execute_batch("PRAGMA foreign_keys=OFF; PRAGMA ignore_check_constraints=ON").unwrap();
        connection.execute_batch(change).unwrap();
        drop(connection);
        let database = postgres(15).database("refused");
        for more in [&["--dry-run"][..], &[]] {
            let said = migrate(home.path(), &file, &database.url(), more).expect(6);
            let all = said.out + &said.err;
            assert!(all.contains(words), "{change}: {all}");
        }
        assert!(database.tables().is_empty() && database.own_schemas().is_empty(), "{change}");
    }
}

#[test]
fn a_revision_row_of_optuna_stays_with_optunas_tables() {
    let (home, place) = (folder(), folder());
    let file = place.path().join("mlflow.db");
    fs::copy(sample(2_000), &file).unwrap();
    let connection = rusqlite::Connection::open(&file).unwrap();
    connection
        .execute_batch("CREATE TABLE version_info (x INTEGER); CREATE TABLE trials (x INTEGER); INSERT INTO alembic_version VALUES ('v3.2.0.a')")
        .unwrap();
    let database = postgres(15).database("optuna");
    let said = migrate(home.path(), &file, &database.url(), &[]).expect(0);
    assert!(said.out.contains("row v3.2.0.a of alembic_version"), "{}", said.out);
    assert_eq!(database.texts("SELECT version_num::text FROM alembic_version"), ["dc11669786a5"]);
    verify(home.path(), file.to_str().unwrap(), &database.url()).expect(0);
}

#[test]
fn the_certificate_says_what_was_proven_and_no_secret() {
    let home = folder();
    let file = home.path().join("certificate.json");
    let database = postgres(15).database("certificate");
    let url = database.url().replace("mlops@", "mlops:hunter2@");
    let said = migrate(
        home.path(),
        &sample(2_000),
        &url,
        &["--certificate", file.to_str().unwrap(), "--output", "json", "-q"],
    )
    .expect(0);
    assert!(!said.out.contains("hunter2"));
    let text = fs::read_to_string(&file).unwrap();
    assert!(!text.contains("hunter2"));
    let certificate: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(certificate["schema"], "mlops.certificate.v1");
    assert_eq!(certificate["revisions"][0]["revision"], "dc11669786a5");
    assert_eq!(certificate["verified"], true);
    let metrics = certificate["tables"].as_array().unwrap().iter().find(|t| t["table"] == "metrics").unwrap();
    assert_eq!(metrics["rows"], 2_000);
    assert_eq!(metrics["source_digest"], metrics["target_digest"]);
    assert_eq!(metrics["source_digest"].as_str().unwrap().len(), 32);

    // Not verified is said, and a certificate that cannot be written is known before a row moves.
    let database = postgres(15).database("certificate");
    let said = migrate(
        home.path(),
        &sample(2_000),
        &database.url(),
        &["--no-verify", "--certificate", file.to_str().unwrap()],
    )
    .expect(0);
    assert!(said.out.contains("Not verified:"), "{}", said.out);
    let certificate: serde_json::Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!(certificate["verified"], false);
    assert!(certificate["tables"][0]["target_digest"].is_null());
    let database = postgres(15).database("certificate");
    migrate(home.path(), &sample(2_000), &database.url(), &["--certificate", "/nowhere/c.json"]).expect(2);
    // It takes the place of an older certificate and of nothing else, least of all of the source.
    let source = home.path().join("source.db");
    fs::copy(sample(2_000), &source).unwrap();
    migrate(home.path(), &source, &database.url(), &["--certificate", source.to_str().unwrap()]).expect(9);
    assert!(fs::read(&source).unwrap() == fs::read(sample(2_000)).unwrap());
    assert!(database.tables().is_empty());
}

/// Basic-auth's tables at the newest revision into an open database.
pub(crate) fn auth_store(connection: &rusqlite::Connection) {
    let newest = Catalogue::embedded().unwrap().newest(Line::Auth).unwrap();
    for table in &newest.tables {
        connection.execute_batch(&table.sqlite.create).unwrap();
    }
    connection.execute("INSERT INTO alembic_version_auth VALUES (?)", [&newest.id]).unwrap();
    connection
        .execute_batch("INSERT INTO users (id, username, password_hash, is_admin) VALUES (7, 'admin', 'scrypt:x', 1)")
        .unwrap();
}

#[test]
fn basic_auths_database_migrates_with_the_same_command() {
    let home = folder();
    let shared = home.path().join("shared.db");
    fs::copy(sample(2_000), &shared).unwrap();
    // A database of its own, and one that it shares with the tracking store, as 3.17 allows.
    for file in [home.path().join("basic_auth.db"), shared] {
        let connection = rusqlite::Connection::open(&file).unwrap();
        let newest = Catalogue::embedded().unwrap().newest(Line::Auth).unwrap();
        auth_store(&connection);
        drop(connection);
        let database = postgres(15).database("auth");
        let said = migrate(home.path(), &file, &database.url(), &[]).expect(0);
        assert!(said.out.contains(&format!("basic-auth {}", newest.id)), "{}", said.out);
        let id = "INSERT INTO users (username, password_hash, is_admin) VALUES ('b', '', false) RETURNING id::bigint";
        assert_eq!(database.number(id), 8);
        database.execute("DELETE FROM users WHERE username = 'b'");
        verify(home.path(), file.to_str().unwrap(), &database.url()).expect(0);
    }
}

/// Releases before 3.6 keep basic-auth's revision in a plain `alembic_version` in a database of its own.
#[test]
fn basic_auths_database_of_an_old_release_migrates() {
    let home = folder();
    let file = home.path().join("basic_auth.db");
    let catalogue = Catalogue::embedded().unwrap();
    let old = catalogue.history(Line::Auth).find(|r| r.version_tables.iter().any(|t| t == "alembic_version")).unwrap();
    let connection = rusqlite::Connection::open(&file).unwrap();
    for table in &old.tables {
        connection.execute_batch(&table.sqlite.create.replace("alembic_version_auth", "alembic_version")).unwrap();
    }
    connection.execute("INSERT INTO alembic_version VALUES (?)", [&old.id]).unwrap();
    connection
        .execute_batch("INSERT INTO users (id, username, password_hash, is_admin) VALUES (7, 'admin', 'pbkdf2:x', 1)")
        .unwrap();
    drop(connection);
    let database = postgres(15).database("old_auth");
    let said = migrate(home.path(), &file, &database.url(), &[]).expect(0);
    assert!(said.out.contains(&format!("basic-auth {}", old.id)), "{}", said.out);
    assert!(database.tables().contains(&"alembic_version".to_owned()));
    let keys = database.texts(
        "SELECT conname::text FROM pg_constraint WHERE conrelid = 'alembic_version'::regclass AND contype = 'p'",
    );
    assert_eq!(keys, ["alembic_version_pkc"]);
    verify(home.path(), file.to_str().unwrap(), &database.url()).expect(0);
}

#[test]
fn no_state_folder_is_a_warning_and_not_a_failure() {
    let home = folder();
    let database = postgres(15).database("stateless");
    let mut command = mlops(home.path());
    command.args(["migrate", "sqlite-to-pg", "--progress", "none", "--state-dir", "/proc/nowhere", "--source"]);
    command.arg(sample(2_000)).args(["--target", &database.url()]);
    let said = Said::of(command.output().unwrap()).expect(0);
    assert!(said.err.contains("no history is kept"), "{}", said.err);
}

#[test]
fn what_is_not_mlflows_in_its_place_is_never_touched() {
    let home = folder();
    for (made, words) in [
        (
            "CREATE TABLE alembic_version (version_num varchar(32)); INSERT INTO alembic_version VALUES ('airflow_5f2'); CREATE TABLE dag (x int)",
            "alembic_version",
        ),
        ("CREATE TABLE jobs (id bigserial, payload jsonb); CREATE TABLE params (app text)", "jobs, params"),
        ("CREATE TABLE experiments (id int); CREATE TABLE workspaces (id int, title text)", "experiments, workspaces"),
        ("CREATE VIEW runs AS SELECT 1 AS x", "runs"),
    ] {
        let database = postgres(15).database("strangers");
        database.execute(made);
        let before = database.dump_schema();
        for more in [&["--dry-run"][..], &["--replace", "--yes"], &[]] {
            let said = migrate(home.path(), &sample(2_000), &database.url(), more).expect(9);
            assert!(said.err.contains(words) && said.err.contains("no MLflow store"), "{made}: {}", said.err);
        }
        assert!(database.dump_schema() == before, "{made}");
    }
}

#[test]
fn basic_auth_goes_beside_tracking_and_never_over_its_revision() {
    let home = folder();
    let auth = home.path().join("basic_auth.db");
    let connection = rusqlite::Connection::open(&auth).unwrap();
    auth_store(&connection);
    drop(connection);
    // Either order; the trigger's function of the tracking store stays where it is.
    for auth_first in [false, true] {
        let database = postgres(15).database("beside");
        let mut files = vec![sample(2_000), auth.clone()];
        if auth_first {
            files.reverse();
        }
        for file in &files {
            migrate(home.path(), file, &database.url(), &["-q"]).expect(0);
        }
        assert_eq!(database.texts("SELECT version_num::text FROM alembic_version"), ["dc11669786a5"]);
        assert_eq!(database.number("SELECT count(*) FROM alembic_version_auth"), 1);
        assert_eq!(database.number("SELECT count(*) FROM pg_trigger WHERE tgname LIKE '%aad%'"), 1);
        // Each again: its own data are in the way, the other's are not looked at.
        for file in &files {
            let said = migrate(home.path(), file, &database.url(), &[]).expect(9);
            assert!(said.err.contains("holds MLflow's data already"), "{}", said.err);
            migrate(home.path(), file, &database.url(), &["-q", "--replace", "--yes"]).expect(0);
        }
        assert_eq!(database.number("SELECT count(*) FROM users"), 1);
        assert_eq!(database.number("SELECT count(*) FROM metrics"), 2_000);
    }
}

#[test]
fn the_role_that_owned_a_fresh_servers_tables_owns_the_new_ones() {
    let home = folder();
    let database = postgres(15).database("owners");
    database.execute("DROP ROLE IF EXISTS ml; CREATE ROLE ml LOGIN; GRANT ALL ON SCHEMA public TO ml; GRANT CREATE ON DATABASE owners TO ml");
    fresh_server(&database.sqlalchemy().replace("mlops@", "ml@"));
    database.execute("GRANT SELECT ON runs TO PUBLIC");
    let said = migrate(home.path(), &sample(2_000), &database.url(), &[]).expect(0);
    assert!(
        said.err.contains("grant them again") && said.out.contains("belong to the role ml"),
        "{}{}",
        said.err,
        said.out
    );
    let owners =
        "SELECT DISTINCT pg_get_userbyid(relowner)::text FROM pg_class WHERE relnamespace = 'public'::regnamespace";
    assert_eq!(database.texts(owners), ["ml"]);
    assert_eq!(
        database.texts("SELECT pg_get_userbyid(proowner)::text FROM pg_proc WHERE proname LIKE 'prevent_secrets%'"),
        ["ml"]
    );
    assert!(database.own_schemas().is_empty());
    database.execute("DROP OWNED BY ml CASCADE");
}

#[test]
fn names_that_are_taken_and_read_only_sessions_are_known_before_the_work() {
    let home = folder();
    for made in [
        "CREATE SEQUENCE experiments_experiment_id_seq",
        "CREATE TABLE other (x int); CREATE INDEX index_params_run_uuid ON other (x)",
        "CREATE TYPE runs AS (x int)",
    ] {
        let database = postgres(15).database("taken");
        database.execute(made);
        let said = migrate(home.path(), &sample(2_000), &database.url(), &["--dry-run"]).expect(7);
        assert!(said.err.contains("has other objects under names that MLflow needs"), "{made}: {}", said.err);
    }
    let database = postgres(15).database("readonly");
    database.execute("ALTER DATABASE readonly SET default_transaction_read_only = on");
    let said = migrate(home.path(), &sample(2_000), &database.url(), &["--dry-run"]).expect(7);
    assert!(said.err.contains("read-only"), "{}", said.err);
}

/// An archive of the sample with so many metrics.
fn archive(home: &Path, metrics: u64) -> PathBuf {
    let archive = home.join(format!("sample-{metrics}.tar"));
    let (source, file) = (sample(metrics), archive.to_str().unwrap());
    run(home, &["migrate", "export", "-q", source.to_str().unwrap(), "--file", file]).expect(0);
    archive
}

fn import(home: &Path, archive: &Path, target: &Path, more: &[&str]) -> Said {
    let target = ["migrate", "import", archive.to_str().unwrap(), "--target", target.to_str().unwrap()];
    run(home, &[&target, &["--progress", "none"][..], more].concat())
}

fn beside(place: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(place).unwrap().flatten().map(|e| e.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_sqlite_file_is_replaced_only_when_asked_and_agreed_and_is_kept() {
    let (home, place) = (folder(), folder());
    let archive = archive(home.path(), 2_000);
    let real = place.path().join("mlflow.db");
    // The server's address may be a link, which stays one.
    let file = home.path().join("link.db");
    std::os::unix::fs::symlink(&real, &file).unwrap();
    fs::copy(sample(0), &real).unwrap();
    fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
    let before = fs::read(&real).unwrap();
    for more in [&[][..], &["--yes"], &["--dry-run"]] {
        let said = import(home.path(), &archive, &file, more).expect(9);
        assert!(said.err.contains("is there already") && said.err.contains("--replace"), "{}", said.err);
    }
    let said = import(home.path(), &archive, &file, &["--replace"]).expect(9);
    assert!(said.err.contains("needs your consent"), "{}", said.err);
    let plan = import(home.path(), &archive, &file, &["--replace", "--dry-run", "--yes"]).expect(0);
    assert!(plan.out.contains("is replaced, and kept as") && plan.out.contains(".mlops-replaced-2"), "{}", plan.out);
    assert_eq!((fs::read(&real).unwrap() == before, beside(place.path()).len()), (true, 1));

    let said = import(home.path(), &archive, &file, &["--replace", "--yes"]).expect(0);
    let names = beside(place.path());
    assert!(names.len() == 2 && names[1].starts_with("mlflow.db.mlops-replaced-2"), "{names:?}");
    assert!(said.out.contains(&names[1]), "{}", said.out);
    assert!(fs::read(place.path().join(&names[1])).unwrap() == before);
    assert_eq!(fs::metadata(&real).unwrap().permissions().mode() & 0o7777, 0o640);
    assert!(fs::symlink_metadata(&file).unwrap().is_symlink());
    verify(home.path(), sample(2_000).to_str().unwrap(), file.to_str().unwrap()).expect(0);
}

#[test]
fn what_is_no_mlflow_store_is_never_replaced() {
    let (home, place) = (folder(), folder());
    let archive = archive(home.path(), 2_000);
    let at = |name: &str| place.path().join(name);
    fs::write(at("letter.txt"), "Dear reader").unwrap();
    fs::create_dir(at("folder")).unwrap();
    rusqlite::Connection::open(at("other.db")).unwrap().execute_batch("CREATE TABLE cookies (x)").unwrap();
    for name in ["letter.txt", "folder", "other.db"] {
        let said = import(home.path(), &archive, &at(name), &["--replace", "--yes"]).expect(9);
        assert!(said.err.contains("no MLflow store"), "{name}: {}", said.err);
    }
    std::os::unix::fs::symlink(at("nowhere"), at("link.db")).unwrap();
    let said = import(home.path(), &archive, &at("link.db"), &["--replace", "--yes"]).expect(7);
    assert!(said.err.contains("leads nowhere"), "{}", said.err);
    assert_eq!(beside(place.path()), ["folder", "letter.txt", "link.db", "other.db"]);
}

#[test]
fn what_stands_in_the_place_of_a_sqlite_file_is_told_apart() {
    let place = folder();
    let file = place.path().join("mlflow.db");
    assert_eq!(in_the_way(&file).unwrap(), Existing::Nothing);
    fs::write(&file, "").unwrap();
    assert_eq!(in_the_way(&file).unwrap(), Existing::Fresh(0));
    fs::copy(sample(2_000), &file).unwrap();
    let Existing::Data(tables, what) = in_the_way(&file).unwrap() else { panic!() };
    assert!(tables > 60 && what.contains("experiment") && what.contains("and more in"), "{tables} {what}");
    fs::remove_file(&file).unwrap();
    fresh_server(&format!("sqlite:///{}", file.display()));
    assert!(matches!(in_the_way(&file).unwrap(), Existing::Fresh(tables) if tables > 10));
    let change = |sql: &str| rusqlite::Connection::open(&file).unwrap().execute_batch(sql).unwrap();
    change("UPDATE experiments SET name = 'mine'");
    assert!(matches!(in_the_way(&file).unwrap(), Existing::Data(_, what) if what == "1 in experiments"));
    // Also what is another program's is somebody's.
    change("UPDATE experiments SET name = 'Default'; CREATE TABLE notes (x); INSERT INTO notes VALUES (NULL)");
    assert!(matches!(in_the_way(&file).unwrap(), Existing::Data(_, what) if what == "1 in notes"));
    change("UPDATE alembic_version SET version_num = 'ffffffffffff'");
    assert!(matches!(in_the_way(&file).unwrap(), Existing::Other(_)));
    assert_eq!(beside(place.path()), ["mlflow.db"]);
}

/// Python's sqlite3 with a file open; it does `first`, says so, and ends when it is dropped.
fn holder(file: &Path, first: &str) -> Killed {
    let code = "import sys, sqlite3
c = sqlite3.connect(sys.argv[1], isolation_level=None)
c.executescript(sys.argv[2]); c.execute('SELECT count(*) FROM sqlite_master').fetchone()
print('ready', flush=True); sys.stdin.read()";
    let mut child = Command::new("python3")
        .args(["-c", code, file.to_str().unwrap(), first])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map(Killed)
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    child
}

#[test]
fn a_sqlite_file_in_use_is_not_replaced() {
    let (home, place) = (folder(), folder());
    let archive = archive(home.path(), 2_000);
    let file = place.path().join("mlflow.db");
    let replace = || import(home.path(), &archive, &file, &["--replace", "--yes"]);
    for first in ["SELECT 1", "BEGIN IMMEDIATE; DELETE FROM tags"] {
        fs::copy(sample(0), &file).unwrap();
        let held = holder(&file, first);
        let said = replace().expect(7);
        assert!(
            said.err.contains(&format!("({})", held.0.id())) || said.err.contains("unfinished write"),
            "{first}: {}",
            said.err
        );
        assert!(said.err.contains("stop the"), "{}", said.err);
    }
    // What was only written into the -wal of a killed process is in the store, and would be played into a new file.
    fs::remove_file(&file).unwrap();
    fs::copy(sample(0), &file).unwrap();
    drop(holder(&file, "PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0; DELETE FROM tags"));
    let said = replace().expect(7);
    assert!(said.err.contains("-wal holds changes"), "{}", said.err);
    // Also when the file itself is gone.
    fs::rename(&file, place.path().join("gone.db")).unwrap();
    assert!(replace().expect(7).err.contains("-wal holds changes"));
    assert!(import(home.path(), &archive, &file, &[]).expect(7).err.contains("-wal holds changes"));
    assert!(!file.exists());
}

#[test]
fn a_file_that_is_touched_before_the_new_one_is_there_is_not_replaced() {
    let place = folder();
    let file = place.path().join("mlflow.db");
    fs::copy(sample(0), &file).unwrap();
    let confirmed = Consent { yes: true, ask: &|_| None }.to("replace it").unwrap();
    let tables = &Catalogue::embedded().unwrap().newest(Line::Tracking).unwrap().tables;
    let begin = || {
        let sink = SqliteSink::replacing(&file, &aside(&file, "test"), tables, &[], &confirmed).unwrap();
        sink.finish_schema(tables).unwrap();
        sink
    };
    let sink = begin();
    rusqlite::Connection::open(&file).unwrap().execute_batch("DELETE FROM tags").unwrap();
    let failure = sink.publish().unwrap_err();
    assert!(failure.kind == Kind::Target && failure.message.contains("written to meanwhile"), "{failure}");
    let sink = begin();
    let held = holder(&file, "SELECT 1");
    let failure = sink.publish().unwrap_err();
    assert!(failure.kind == Kind::Target && failure.message.contains("is open in"), "{failure}");
    drop(held);
    // What was kept under that name before stays.
    let sink = begin();
    fs::write(aside(&file, "test"), "older").unwrap();
    assert_eq!(sink.publish().unwrap_err().kind, Kind::Refused);
    assert_eq!(beside(place.path()), ["mlflow.db", "mlflow.db.mlops-replaced-test"]);
    fs::remove_file(aside(&file, "test")).unwrap();
    begin().publish().unwrap();
    let runs = |file: &Path| -> i64 {
        let connection = rusqlite::Connection::open(file).unwrap();
        connection.query_row("SELECT count(*) FROM runs", [], |row| row.get(0)).unwrap()
    };
    assert!(runs(&file) == 0 && runs(&aside(&file, "test")) > 0);
    assert!(matches!(in_the_way(&aside(&file, "test")).unwrap(), Existing::Data(..)));
}

#[test]
fn a_temporary_database_is_gone_with_its_owner() {
    let server = postgres(15);
    let maintenance = server.maintenance();
    let drills =
        || maintenance.texts("SELECT datname::text FROM pg_database WHERE datname LIKE 'mlops\\_drill\\_%' ORDER BY 1");
    let cancel = Cancel::new();
    let create = |address: &PgAddress, id: &str| TemporaryDatabase::create(address, id, &cancel);
    // From two databases of the server: an owner's lock counts wherever it is connected.
    let other = server.database("drill_other");
    let first = create(&maintenance.address, "20260101T000000Z-AAAAAAAA").unwrap();
    assert_eq!(first.name(), "mlops_drill_20260101t000000z-aaaaaaaa");
    let second = create(&other.address, "20260101T000000Z-bbbbbbbb").unwrap();
    assert_eq!(drills(), [first.name(), second.name()]);
    // It takes a whole store, and leftover sessions do not keep it.
    let home = folder();
    migrate(home.path(), &sample(2_000), &first.address().to_string(), &["-q"]).expect(0);
    verify(home.path(), sample(2_000).to_str().unwrap(), &first.address().to_string()).expect(0);
    let database = Database { address: first.address(), programs: server.programs };
    assert_eq!(database.texts("SHOW server_encoding"), ["UTF8"]);
    let mut leftover = database.client();
    first.drop_it().unwrap();
    assert!(leftover.simple_query("SELECT 1").is_err());
    assert_eq!(drills(), [second.name()]);
    drop(second);
    assert!(drills().is_empty());

    // The owner is killed: its database stays until the next one is made, and goes then.
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--ignored", "--nocapture", "targets::the_owner_of_a_temporary_database"])
        .env("MLOPS_TEST_DRILL", maintenance.url())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map(Killed)
        .unwrap();
    let lines = BufReader::new(owner.0.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line.ends_with("made")));
    let left = drills();
    assert_eq!(left.len(), 1);
    drop(create(&other.address, "20260101T000000Z-cccccccc").unwrap());
    assert_eq!(drills(), left, "its owner lives");
    drop(owner);
    wait_for("the next one drops it", Duration::from_secs(20), || {
        drop(create(&other.address, "20260101T000000Z-dddddddd").unwrap());
        drills().is_empty().then_some(())
    });

    // The right that is missing is named.
    maintenance.execute("DROP ROLE IF EXISTS \"no maker\"; CREATE ROLE \"no maker\" LOGIN");
    let weak = PgAddress { user: Some("no maker".to_owned()), ..maintenance.address.clone() };
    let failure = create(&weak, "20260101T000000Z-eeeeeeee").err().unwrap();
    assert_eq!(failure.kind, Kind::Target);
    assert!(failure.hint.unwrap().contains("ALTER ROLE \"no maker\" CREATEDB"));
    maintenance.execute("ALTER ROLE \"no maker\" CREATEDB");
    // A search path of its own means nothing in the new database.
    let options = vec![("options".to_owned(), "-csearch_path=nowhere".to_owned())];
    let weak = PgAddress { parameters: options, ..weak };
    let made = create(&weak, "20260101T000000Z-eeeeeeee").unwrap();
    migrate(home.path(), &sample(2_000), &made.address().to_string(), &["-q"]).expect(0);
    // Nobody else may look into it.
    maintenance.execute("DROP ROLE IF EXISTS curious; CREATE ROLE curious LOGIN");
    let curious = PgAddress { user: Some("curious".to_owned()), ..made.address() };
    assert!(Postgres::new(&curious, "test", &cancel).unwrap().connect().is_err());
    made.drop_it().unwrap();
    assert!(drills().is_empty());
}

#[test]
#[ignore = "a part of the test above, in a process of its own"]
fn the_owner_of_a_temporary_database() {
    let StoreAddress::Postgres(address) = StoreAddress::parse(&std::env::var("MLOPS_TEST_DRILL").unwrap()).unwrap()
    else {
        panic!()
    };
    let _made = TemporaryDatabase::create(&address, "20260101T000000Z-ffffffff", &Cancel::new()).unwrap();
    println!("made");
    let _ = std::io::stdin().read_line(&mut String::new());
}
