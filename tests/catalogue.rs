//! The catalogue against MLflow's own schema, at every revision, on PostgreSQL 15 and 18.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use mlops::domain::catalogue::{Catalogue, Line, Revision};

use crate::support::{Server, folder, migrate, postgres, python, root, run};

fn oracle(server: &Server, out: &Path) {
    let status = Command::new(python("3.17.2"))
        .arg(root().join("src/domain/catalogue/schema_dumps.py"))
        .arg("--postgres-bin")
        .arg(&server.programs)
        .args(["--socket-dir", &server.socket_folder(), "--port", "5432", "--user", "mlops", "--out"])
        .arg(out)
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
}

fn word(line: Line) -> &'static str {
    match line {
        Line::Tracking => "tracking",
        Line::Auth => "auth",
    }
}

pub(crate) fn empty_store(revision: &Revision, path: &Path) {
    let connection = rusqlite::Connection::open(path).unwrap();
    for table in &revision.tables {
        connection.execute_batch(&table.sqlite.create).unwrap();
        for sql in table.sqlite.indexes.iter().chain(&table.sqlite.triggers) {
            connection.execute_batch(sql).unwrap();
        }
    }
    let version_table = revision.version_tables.iter().find(|t| revision.table(t).is_some()).unwrap();
    connection.execute(&format!("INSERT INTO {version_table} VALUES (?1)"), [&revision.id]).unwrap();
}

fn every_revision_equals_mlflows_own(version: u32) {
    let server = postgres(version);
    let home = folder();
    let dumps = home.path().join("dumps");
    oracle(&server, &dumps);
    let catalogue = Catalogue::embedded().unwrap();
    let revisions: Vec<&Revision> = catalogue.history(Line::Tracking).chain(catalogue.history(Line::Auth)).collect();
    assert_eq!(revisions.len(), fs::read_dir(&dumps).unwrap().count() / 2, "a revision is missing in the catalogue");
    for revision in revisions {
        let name = format!("{}-{}", word(revision.line), revision.id);
        let file = home.path().join(format!("{name}.db"));
        empty_store(revision, &file);
        let database = server.database("every_revision");
        migrate(home.path(), &file, &database.url(), &["-q"]).expect(0);
        let own = fs::read_to_string(dumps.join(format!("{name}.sql"))).unwrap();
        let ours = database.dump_schema();
        assert!(own == ours, "{name}: {}", first_difference(&own, &ours));
        assert!(database.own_schemas().is_empty(), "{name}");

        let mut statements: Vec<String> = Vec::new();
        for table in &revision.tables {
            statements.push(table.sqlite.create.clone());
            statements.extend(table.sqlite.indexes.iter().chain(&table.sqlite.triggers).cloned());
        }
        statements.sort();
        let ours: String = statements.iter().map(|s| format!("{s};\n")).collect();
        let own = fs::read_to_string(dumps.join(format!("{name}.sqlite.sql"))).unwrap();
        assert!(own == ours, "{name} on SQLite: {}", first_difference(&own, &ours));
    }
}

fn first_difference(a: &str, b: &str) -> String {
    let pair = a.lines().zip(b.lines()).find(|(a, b)| a != b);
    format!("{pair:?} ({} and {} lines)", a.lines().count(), b.lines().count())
}

#[test]
fn every_revision_equals_mlflows_own_on_postgresql_15() {
    every_revision_equals_mlflows_own(15);
}

#[test]
fn every_revision_equals_mlflows_own_on_postgresql_18() {
    every_revision_equals_mlflows_own(18);
}

#[test]
fn db_info_tells_revision_releases_and_rows() {
    let home = folder();
    let file = home.path().join("mlflow.db");
    let catalogue = Catalogue::embedded().unwrap();
    empty_store(catalogue.revision(Line::Tracking, "acf3f17fdcc7").unwrap(), &file);
    let said = run(home.path(), &["db", "info", file.to_str().unwrap(), "--output", "json", "-q"]).expect(0).json();
    let result = &said["result"];
    assert_eq!(said["schema"], "mlops.db.info.v1");
    assert_eq!(result["engine"], "SQLite");
    assert_eq!(result["revisions"][0]["revision"], "acf3f17fdcc7");
    let releases: Vec<&str> =
        result["revisions"][0]["releases"].as_array().unwrap().iter().flat_map(|r| r.as_str()).collect();
    assert!(releases.contains(&"2.9.2"), "{releases:?}");
    let version = result["tables"].as_array().unwrap().iter().find(|t| t["table"] == "alembic_version").unwrap();
    assert_eq!((version["rows"].as_u64(), version["bytes"].as_u64().unwrap() > 0), (Some(1), true));

    // The same of the same store on PostgreSQL, by the address in the settings.
    let database = postgres(15).database("db_info");
    migrate(home.path(), &file, &database.url(), &["-q"]).expect(0);
    let said = crate::support::mlops(home.path())
        .args(["db", "info"])
        .env("MLFLOW_BACKEND_STORE_URI", database.sqlalchemy())
        .output()
        .unwrap();
    let text = String::from_utf8(said.stdout).unwrap();
    assert!(text.contains("PostgreSQL 1") && text.contains("tracking acf3f17fdcc7 (MLflow 2.8.0 to"), "{text}");
}
