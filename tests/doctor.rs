//! `mlops db doctor`: sound databases are called sound, each seeded fault is found, named and mended with nothing else
//! touched, and what pgloader leaves becomes MLflow's own schema.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use mlops::domain::catalogue::{Catalogue, Line};

use crate::catalogue::empty_store;
use crate::flows::Server;
use crate::support::{Database, Said, folder, migrate, mlops, postgres, python, run, sample, verify, wait_for};

const RELEASES: [&str; 3] = ["2.9.2", "3.4.0", "3.17.2"];

fn doctor(home: &Path, store: &str, more: &[&str]) -> Said {
    let mut arguments = vec!["db", "doctor", "-q", store];
    arguments.extend(more);
    run(home, &arguments)
}

/// What was found: severity, id, object.
fn found(home: &Path, store: &str) -> Vec<(String, String, String)> {
    let said = doctor(home, store, &["--output", "json"]).json();
    assert_eq!(said["schema"], "mlops.db.doctor.v1", "{said}");
    list(&said["result"]["findings"])
}

fn list(findings: &Value) -> Vec<(String, String, String)> {
    let word = |f: &Value, key: &str| f[key].as_str().unwrap().to_owned();
    findings.as_array().unwrap().iter().map(|f| (word(f, "severity"), word(f, "id"), word(f, "object"))).collect()
}

fn found_ids(home: &Path, store: &str) -> Vec<String> {
    found(home, store).into_iter().map(|f| f.1).collect()
}

#[track_caller]
fn assert_sound(home: &Path, store: &str) {
    let findings = found(home, store);
    assert!(findings.is_empty(), "{store}: {findings:?}");
    doctor(home, store, &[]).expect(0);
}

fn script(release: &str, code: &str, arguments: &[&str]) {
    let output = Command::new(python(release)).args(["-c", code]).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// MLflow's own empty schema.
fn native(release: &str, url: &str) {
    let code = "import sys, sqlalchemy as s, mlflow.store.db.utils as u
u._initialize_tables(s.create_engine(sys.argv[1]))";
    script(release, code, &[url]);
}

fn upgrade(database: &Database) {
    let mut command = Command::new(python("3.17.2"));
    let said = command.args(["-m", "mlflow", "db", "upgrade", &database.sqlalchemy()]).output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
}

/// A store of a release with a few rows in it, written by that release.
fn small_store(release: &str, file: &Path) -> String {
    let url = format!("sqlite:///{}", file.display());
    let code = "import sys
from mlflow.tracking import MlflowClient
c = MlflowClient(tracking_uri=sys.argv[1], registry_uri=sys.argv[1])
for name in ('first', 'second', 'gone'):
    e = c.create_experiment(name, artifact_location='/tmp/none', tags={'a': 'b'})
    r = c.create_run(e, tags={'t': 'v'}).info.run_id
    for step in range(5):
        c.log_metric(r, 'loss', 1.0 / (step + 1), step=step)
    c.log_metric(r, 'nan', float('nan'))
    c.log_param(r, 'p', 'x')
    c.set_terminated(r)
c.delete_experiment(e)
c.create_registered_model('model', tags={'k': 'v'}, description='')
c.create_model_version('model', '/tmp/none', r)
c.set_registered_model_alias('model', 'champion', '1')";
    script(release, code, &[&url]);
    url
}

#[test]
fn what_mlflow_made_is_sound() {
    for release in RELEASES {
        let home = folder();
        let file = home.path().join("mlflow.db");
        small_store(release, &file);
        assert_sound(home.path(), file.to_str().unwrap());
        let server = postgres(if release == "3.17.2" { 18 } else { 15 });
        let database = server.database(&format!("doctor_native_{release}"));
        native(release, &database.sqlalchemy());
        assert_sound(home.path(), &database.url());
        // The same store, moved.
        let moved = server.database(&format!("doctor_moved_{release}"));
        migrate(home.path(), &file, &moved.url(), &["-q"]).expect(0);
        assert_sound(home.path(), &moved.url());
        if release != "3.17.2" {
            upgrade(&moved);
            assert_sound(home.path(), &moved.url());
        }
    }
}

/// Revisions of both lines, as their catalogue entry makes them on both engines.
#[test]
fn empty_stores_of_all_times_are_sound() {
    let catalogue = Catalogue::embedded().unwrap();
    let home = folder();
    for line in [Line::Tracking, Line::Auth] {
        for revision in catalogue.history(line).rev().step_by(9) {
            let file = home.path().join(format!("{}.db", revision.id));
            empty_store(revision, &file);
            assert_sound(home.path(), file.to_str().unwrap());
            let database = postgres(15).database("doctor_revision");
            migrate(home.path(), &file, &database.url(), &["-q"]).expect(0);
            assert_sound(home.path(), &database.url());
        }
    }
}

#[test]
fn what_was_migrated_dumped_and_restored_is_sound() {
    let home = folder();
    assert_sound(home.path(), sample(2_000).to_str().unwrap());
    for version in [15, 18] {
        let database = postgres(version).database("doctor_migrated");
        migrate(home.path(), &sample(2_000), &database.url(), &["-q"]).expect(0);
        assert_sound(home.path(), &database.url());
        let restored = postgres(version).database("doctor_restored");
        pipe(&database, &restored, &[]);
        assert_sound(home.path(), &restored.url());
        // Once more: the CHECKs of a restored dump are printed anew.
        let again = postgres(version).database("doctor_restored_again");
        pipe(&restored, &again, &[]);
        assert_sound(home.path(), &again.url());
    }
}

fn client(database: &Database, program: &str) -> Command {
    let mut command = Command::new(database.programs.join(program));
    command.args(["-h", &database.address.hosts[0].0, "-U", database.address.user.as_deref().unwrap()]);
    command.args(["-d", database.address.database.as_deref().unwrap()]);
    command
}

/// `pg_dump | psql`.
fn pipe(from: &Database, to: &Database, more: &[&str]) {
    let mut dump = client(from, "pg_dump").args(more).stdout(Stdio::piped()).spawn().unwrap();
    let status = client(to, "psql")
        .args(["-q", "-X", "-v", "ON_ERROR_STOP=1"])
        .stdin(dump.stdout.take().unwrap())
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(dump.wait().unwrap().success() && status.success());
}

/// A restore that ended before keys, indexes and triggers, as a full disk ends it.
#[test]
fn half_a_restored_dump_is_made_whole() {
    let home = folder();
    let whole = postgres(15).database("doctor_whole");
    migrate(home.path(), &sample(2_000), &whole.url(), &["-q"]).expect(0);
    let half = postgres(15).database("doctor_half");
    pipe(&whole, &half, &["--section=pre-data", "--section=data"]);
    let findings = found_ids(home.path(), &half.url());
    for id in ["missing-primary-key", "missing-unique", "missing-foreign-key", "missing-index", "missing-trigger"] {
        assert!(findings.iter().any(|f| f == id), "{id}: {findings:?}");
    }
    doctor(home.path(), &half.url(), &["--fix", "--yes"]).expect(0);
    assert_sound(home.path(), &half.url());
    let restored = postgres(15).database("doctor_whole_restored");
    pipe(&whole, &restored, &[]);
    assert_eq!(half.dump_schema(), restored.dump_schema());
    verify(home.path(), &whole.url(), &half.url()).expect(0);
}

/// A fault: SQL that makes it, severity, id, object.
type Fault = (&'static str, &'static str, &'static str, &'static str);

const FAULTS: &[Fault] = &[
    ("ALTER TABLE metrics DROP CONSTRAINT metric_pk", "error", "missing-primary-key", "metrics: metric_pk"),
    (
        "ALTER TABLE experiments DROP CONSTRAINT uq_experiments_workspace_name",
        "error",
        "missing-unique",
        "experiments: uq_experiments_workspace_name",
    ),
    (
        "ALTER TABLE params DROP CONSTRAINT params_run_uuid_fkey",
        "error",
        "missing-foreign-key",
        "params: params_run_uuid_fkey",
    ),
    (
        "ALTER TABLE assessments DROP CONSTRAINT fk_assessments_trace_id; ALTER TABLE assessments ADD CONSTRAINT
         fk_assessments_trace_id FOREIGN KEY (trace_id) REFERENCES trace_info (request_id)",
        "error",
        "wrong-foreign-key",
        "assessments: fk_assessments_trace_id",
    ),
    (
        "ALTER TABLE tags DROP CONSTRAINT tags_run_uuid_fkey; ALTER TABLE tags ADD CONSTRAINT tags_run_uuid_fkey
         FOREIGN KEY (run_uuid) REFERENCES runs (run_uuid) NOT VALID",
        "warning",
        "not-valid",
        "tags: tags_run_uuid_fkey",
    ),
    (
        "ALTER TABLE metrics RENAME CONSTRAINT metrics_run_uuid_fkey TO metrics_runs",
        "warning",
        "wrong-name",
        "metrics: metrics_run_uuid_fkey",
    ),
    ("ALTER TABLE runs DROP CONSTRAINT runs_status_check", "warning", "missing-check", "runs: runs_status_check"),
    (
        "ALTER TABLE runs DROP CONSTRAINT runs_lifecycle_stage; ALTER TABLE runs ADD CONSTRAINT runs_lifecycle_stage
         CHECK (lifecycle_stage IN ('active', 'deleted', 'asleep'))",
        "error",
        "wrong-check",
        "runs: runs_lifecycle_stage",
    ),
    (
        "ALTER TABLE runs ADD CONSTRAINT old CHECK (status IN ('SCHEDULED', 'FAILED', 'FINISHED', 'RUNNING')) NOT VALID",
        "warning",
        "stale-check",
        "runs: old",
    ),
    ("DROP INDEX index_params_run_uuid", "warning", "missing-index", "params: index_params_run_uuid"),
    (
        "ALTER INDEX index_metrics_run_uuid RENAME TO idx_4711_index_metrics_run_uuid",
        "warning",
        "wrong-name",
        "metrics: index_metrics_run_uuid",
    ),
    (
        "DROP INDEX index_tags_run_uuid; CREATE INDEX index_tags_run_uuid ON tags (run_uuid DESC)",
        "warning",
        "wrong-index",
        "tags: index_tags_run_uuid",
    ),
    (
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'index_tags_run_uuid'::regclass",
        "warning",
        "invalid-index",
        "tags: index_tags_run_uuid",
    ),
    (
        "CREATE INDEX idx_4711_index_tags_run_uuid ON tags (run_uuid)",
        "warning",
        "pgloader-index",
        "tags: idx_4711_index_tags_run_uuid",
    ),
    ("ALTER TABLE tags RENAME CONSTRAINT tag_pk TO tags_pkey", "warning", "wrong-name", "tags: tag_pk"),
    ("ALTER TABLE tags ALTER value TYPE text", "warning", "wrong-type", "tags.value"),
    ("ALTER TABLE runs ALTER status TYPE text", "warning", "wrong-type", "runs.status"),
    ("ALTER TABLE tags ALTER key TYPE varchar(200)", "error", "narrow-column", "tags.key"),
    ("ALTER TABLE datasets ALTER experiment_id TYPE bigint", "warning", "wrong-type", "datasets.experiment_id"),
    (
        "ALTER TABLE datasets ALTER dataset_source DROP NOT NULL",
        "warning",
        "missing-not-null",
        "datasets.dataset_source",
    ),
    ("ALTER TABLE jobs ALTER job_name DROP NOT NULL", "warning", "missing-not-null", "jobs.job_name"),
    ("ALTER TABLE runs ALTER user_id SET NOT NULL", "error", "extra-not-null", "runs.user_id"),
    ("ALTER TABLE metrics ALTER step DROP DEFAULT", "warning", "wrong-default", "metrics.step"),
    ("ALTER TABLE metrics ALTER is_nan SET DEFAULT true", "warning", "wrong-default", "metrics.is_nan"),
    (
        "SELECT setval('experiments_experiment_id_seq', 1, false)",
        "error",
        "sequence-behind",
        "experiments.experiment_id",
    ),
    ("DROP SEQUENCE experiments_experiment_id_seq CASCADE", "error", "missing-sequence", "experiments.experiment_id"),
    (
        "ALTER TABLE experiments ALTER experiment_id DROP DEFAULT",
        "error",
        "missing-sequence",
        "experiments.experiment_id",
    ),
    (
        "ALTER SEQUENCE experiments_experiment_id_seq OWNED BY NONE",
        "warning",
        "sequence-not-owned",
        "experiments.experiment_id",
    ),
    (
        "ALTER SEQUENCE experiments_experiment_id_seq AS bigint",
        "warning",
        "wrong-sequence-type",
        "experiments.experiment_id",
    ),
    (
        "ALTER TABLE sql_span_cost_daily_rollups ALTER id DROP IDENTITY",
        "error",
        "missing-sequence",
        "sql_span_cost_daily_rollups.id",
    ),
    (
        "DROP TRIGGER prevent_secrets_aad_mutation ON secrets",
        "error",
        "missing-trigger",
        "secrets: prevent_secrets_aad_mutation",
    ),
    (
        "ALTER TABLE secrets DISABLE TRIGGER prevent_secrets_aad_mutation",
        "error",
        "disabled-trigger",
        "secrets: prevent_secrets_aad_mutation",
    ),
    (
        "CREATE OR REPLACE FUNCTION prevent_secrets_aad_mutation() RETURNS trigger LANGUAGE plpgsql
         AS 'BEGIN RETURN NEW; END'",
        "error",
        "wrong-function",
        "secrets: prevent_secrets_aad_mutation",
    ),
    ("ALTER TABLE spans ALTER duration_ns DROP EXPRESSION", "error", "not-generated", "spans.duration_ns"),
    ("DROP TABLE job_locks", "error", "missing-table", "job_locks"),
    ("ALTER TABLE trace_info DROP COLUMN total_cost", "error", "missing-column", "trace_info.total_cost"),
    (
        "CREATE SCHEMA mlops_stage_dead; CREATE TABLE mlops_stage_dead.t (a int)",
        "warning",
        "abandoned-stage",
        "mlops_stage_dead",
    ),
    ("CREATE TABLE sqlite_stat1 (tbl text, idx text, stat text)", "warning", "pgloader-table", "sqlite_stat1"),
    (
        "DELETE FROM latest_metrics WHERE run_uuid IN (SELECT run_uuid FROM runs ORDER BY 1 LIMIT 5)",
        "warning",
        "old-latest-metrics",
        "latest_metrics",
    ),
    ("UPDATE latest_metrics SET value = value + 1, step = step - 1", "warning", "old-latest-metrics", "latest_metrics"),
];

/// Found, named, mended, and nothing else touched.
fn each_fault_is_mended(name: &str, version: u32, faults: &[&[Fault]]) {
    let home = folder();
    let file = sample(2_000);
    let server = postgres(version);
    let base = server.database(&format!("{name}_base"));
    migrate(home.path(), &file, &base.url(), &["-q"]).expect(0);
    // A column whose values the mending cannot bring back, so there are none.
    base.execute("UPDATE trace_info SET total_cost = NULL");
    let schema = base.dump_schema();
    let archive = home.path().join("base.tar");
    let archive = archive.to_str().unwrap();
    run(home.path(), &["migrate", "export", "-q", &base.url(), "--file", archive]).expect(0);
    for faults in faults {
        let database = server.database_like(name, &format!("{name}_base"));
        for (sql, ..) in *faults {
            database.execute(sql);
        }
        let findings = found(home.path(), &database.url());
        let mut wanted: Vec<(String, String, String)> =
            faults.iter().map(|(_, s, id, o)| ((*s).to_owned(), (*id).to_owned(), (*o).to_owned())).collect();
        let mut got = findings.clone();
        wanted.sort();
        got.sort();
        assert_eq!(got, wanted, "{faults:?}");
        doctor(home.path(), &database.url(), &[]).expect(5);
        let said = doctor(home.path(), &database.url(), &["--fix", "--yes", "--output", "json"]).expect(0).json();
        assert_eq!(list(&said["result"]["mended"]).len(), wanted.len(), "{said}");
        assert_sound(home.path(), &database.url());
        let mended = database.dump_schema();
        let pair = schema.lines().zip(mended.lines()).find(|(a, b)| a != b);
        assert!(mended == schema, "{faults:?}: {pair:?}");
        verify(home.path(), archive, &database.url()).expect(0);
        // New rows get numbers that are free.
        database.execute("INSERT INTO experiments (name, workspace) VALUES ('new', 'default')");
    }
}

fn singles(faults: &'static [Fault]) -> Vec<&'static [Fault]> {
    faults.iter().map(std::slice::from_ref).collect()
}

#[test]
fn each_single_fault_is_found_named_and_mended_on_postgresql_15() {
    each_fault_is_mended("doctor_single", 15, &singles(FAULTS));
}

#[test]
fn each_single_fault_is_found_named_and_mended_on_postgresql_18() {
    let every_other: Vec<&[Fault]> = singles(FAULTS).into_iter().step_by(2).collect();
    each_fault_is_mended("doctor_single", 18, &every_other);
}

#[test]
fn several_faults_at_once_are_mended_together() {
    let mut several: Vec<&[Fault]> = FAULTS.chunks(3).take(4).collect();
    several.push(&[
        (
            "ALTER TABLE runs DROP CONSTRAINT runs_experiment_id_fkey;
             ALTER TABLE runs ALTER experiment_id TYPE text USING experiment_id::text",
            "error",
            "wrong-type",
            "runs.experiment_id",
        ),
        ("SELECT 1", "error", "missing-foreign-key", "runs: runs_experiment_id_fkey"),
    ]);
    several.push(&[
        ("ALTER TABLE metrics ALTER step DROP DEFAULT", "warning", "wrong-default", "metrics.step"),
        ("ALTER TABLE metrics ALTER step TYPE text", "error", "wrong-type", "metrics.step"),
    ]);
    each_fault_is_mended("doctor_several", 15, &several);
}

#[test]
fn what_cannot_be_mended_without_loss_is_told_and_not_touched() {
    let home = folder();
    let database = postgres(15).database("doctor_loss");
    migrate(home.path(), &sample(2_000), &database.url(), &["-q"]).expect(0);
    database.execute(
        "ALTER TABLE params DROP CONSTRAINT params_run_uuid_fkey; ALTER TABLE params DROP CONSTRAINT param_pk;
         INSERT INTO params (key, value, run_uuid) SELECT key, value, run_uuid FROM params LIMIT 2;
         INSERT INTO params (key, value, run_uuid) VALUES ('lonely', '1', repeat('0', 32));
         ALTER TABLE tags ALTER value TYPE text; UPDATE tags SET value = repeat('x', 9000) WHERE key = 'mlflow.user';
         ALTER TABLE runs DROP CONSTRAINT runs_status_check; UPDATE runs SET status = 'ASLEEP' WHERE status = 'FAILED';
         ALTER TABLE runs ADD COLUMN own text; DROP INDEX index_params_run_uuid;
         UPDATE experiments SET lifecycle_stage = 'deleted' WHERE experiment_id = 1;
         DELETE FROM metrics WHERE key = (SELECT min(key) FROM metrics)",
    );
    let rows = |table: &str| database.number(&format!("SELECT count(*) FROM {table}"));
    let before = (rows("params"), rows("tags"), rows("latest_metrics"));
    let said = doctor(home.path(), &database.url(), &["--fix", "--yes", "--output", "json"]).expect(5).json();
    let mended = list(&said["result"]["mended"]);
    assert_eq!(mended.len(), 1, "{mended:?}");
    assert_eq!(mended[0].2, "params: index_params_run_uuid");
    let left = list(&said["result"]["findings"]);
    for (id, object) in [
        ("missing-primary-key", "params: param_pk"),
        ("missing-foreign-key", "params: params_run_uuid_fkey"),
        ("rows-without-parent", "params.run_uuid"),
        ("wrong-type", "tags.value"),
        ("missing-check", "runs: runs_status_check"),
        ("extra-column", "runs.own"),
        ("extra-latest-metrics", "latest_metrics"),
        ("active-in-deleted", "runs.lifecycle_stage"),
    ] {
        assert!(left.iter().any(|(_, i, o)| i == id && o == object), "{id}: {left:?}");
    }
    let findings = said["result"]["findings"].as_array().unwrap().clone();
    assert!(findings.iter().all(|f| f["fixable"] == false && f["cannot"].is_string()), "{findings:?}");
    assert_eq!((rows("params"), rows("tags"), rows("latest_metrics")), before);
}

#[test]
fn what_is_the_operators_own_is_a_note() {
    let home = folder();
    let database = postgres(15).database("doctor_own");
    migrate(home.path(), &sample(2_000), &database.url(), &["-q"]).expect(0);
    database.execute(
        "CREATE INDEX mine ON runs (user_id); CREATE TABLE my_notes (a int); CREATE SCHEMA \"mlops_replaced_x\";
         ALTER TABLE tags ALTER value TYPE varchar(11000); CREATE VIEW active AS SELECT * FROM runs",
    );
    doctor(home.path(), &database.url(), &[]).expect(0);
    let mut ids: Vec<(String, String)> = found(home.path(), &database.url()).into_iter().map(|f| (f.0, f.1)).collect();
    ids.sort();
    let note = |id: &str| ("note".to_owned(), id.to_owned());
    assert_eq!(ids, ["extra-index", "extra-table", "replaced-schema", "widened-column"].map(note));
    let before = database.dump_schema();
    doctor(home.path(), &database.url(), &["--fix", "--yes"]).expect(0);
    assert_eq!(database.dump_schema(), before);
    // A view over a column whose type is to change: the whole is rolled back and said.
    database.execute(
        "DROP VIEW active; ALTER TABLE runs ALTER name TYPE text; DROP INDEX index_tags_run_uuid;
                      CREATE VIEW active AS SELECT name FROM runs",
    );
    let before = database.dump_schema();
    let said = doctor(home.path(), &database.url(), &["--fix", "--yes"]).expect(7);
    assert!(said.err.contains("nothing is changed") && said.err.contains("active"), "{}", said.err);
    assert_eq!(database.dump_schema(), before);
}

#[test]
fn fix_asks_first_and_print_prints_what_psql_runs() {
    let home = folder();
    let database = postgres(15).database("doctor_consent");
    migrate(home.path(), &sample(2_000), &database.url(), &["-q"]).expect(0);
    database.execute("DROP INDEX index_tags_run_uuid; ALTER TABLE metrics DROP CONSTRAINT metric_pk");
    let before = database.dump_schema();
    let said = doctor(home.path(), &database.url(), &["--fix"]).expect(9);
    assert!(said.err.contains("consent"), "{}", said.err);
    let dry = doctor(home.path(), &database.url(), &["--fix", "--dry-run", "--yes"]).expect(0);
    let script = doctor(home.path(), &database.url(), &["--print"]).expect(5);
    assert_eq!(dry.out, script.out);
    assert_eq!(database.dump_schema(), before);
    let file = home.path().join("script.sql");
    std::fs::write(&file, &script.out).unwrap();
    let psql = client(&database, "psql").args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-f"]).arg(&file).output().unwrap();
    Said::of(psql).expect(0);
    assert_sound(home.path(), &database.url());
    // The address of the settings, and a table for people.
    database.execute("DROP INDEX index_tags_run_uuid");
    let said = mlops(home.path())
        .args(["db", "doctor"])
        .env("MLFLOW_BACKEND_STORE_URI", database.sqlalchemy())
        .output()
        .unwrap();
    let said = Said::of(said).expect(5);
    assert!(said.out.contains("tags: index_tags_run_uuid") && said.out.contains("1 warning"), "{}", said.out);
    assert!(said.out.contains("--fix` mends 1 of them"), "{}", said.out);
    // Another mlops holds the lock.
    let mut other = database.client();
    other.execute("SELECT pg_advisory_lock(hashtext('mlops'), hashtext('public'))", &[]).unwrap();
    doctor(home.path(), &database.url(), &["--fix", "--yes"]).expect(10);
}

/// A server that writes holds the fix up; interrupted or killed then, it has changed nothing.
#[test]
fn an_interrupted_fix_changes_nothing() {
    let home = folder();
    let database = postgres(15).database("doctor_interrupt");
    migrate(home.path(), &sample(2_000), &database.url(), &["-q"]).expect(0);
    database.execute("ALTER TABLE metrics DROP CONSTRAINT metric_pk; DROP INDEX index_tags_run_uuid");
    let before = database.dump_schema();
    let mut writer = database.client();
    for signal in ["-INT", "-KILL"] {
        let mut writing = writer.transaction().unwrap();
        writing.batch_execute("LOCK TABLE tags IN ROW EXCLUSIVE MODE").unwrap();
        let mut command = mlops(home.path());
        command.args(["db", "doctor", "-q", &database.url(), "--fix", "--yes"]);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'mlops/2%' AND wait_event_type = 'Lock'";
        wait_for("the fix waits for the writer", Duration::from_secs(30), || {
            (database.number(waits) > 0).then_some(())
        });
        assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
        let said = Said::of(child.wait_with_output().unwrap());
        assert_eq!(said.code, if signal == "-INT" { 130 } else { -1 }, "{}", said.err);
        writing.rollback().unwrap();
        let sessions = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'mlops/2%'";
        wait_for("its sessions end", Duration::from_secs(30), || (database.number(sessions) == 0).then_some(()));
        assert_eq!(database.dump_schema(), before);
    }
    let said = doctor(home.path(), &database.url(), &["--fix", "--yes"]).expect(0);
    assert!(said.out.contains("Mended 2 findings"), "{}", said.out);
    assert_sound(home.path(), &database.url());
}

#[test]
fn what_is_not_mlflows_is_a_failure_and_an_interrupted_upgrade_a_finding() {
    let home = folder();
    let empty = postgres(15).database("doctor_empty");
    doctor(home.path(), &empty.url(), &[]).expect(6);
    doctor(home.path(), home.path().join("none.db").to_str().unwrap(), &[]).expect(6);
    let database = postgres(15).database("doctor_interrupted");
    let file = home.path().join("old.db");
    small_store("2.9.2", &file);
    migrate(home.path(), &file, &database.url(), &["-q"]).expect(0);
    database.execute("CREATE TABLE trace_info (request_id varchar(50) PRIMARY KEY, experiment_id int)");
    let error = |object: &str| ("error".to_owned(), "interrupted-upgrade".to_owned(), object.to_owned());
    assert_eq!(found(home.path(), &database.url()), [error("trace_info")]);
    doctor(home.path(), &database.url(), &["--fix", "--yes"]).expect(0);
    upgrade(&database);
    assert_sound(home.path(), &database.url());
    // Two revisions, or the wrong one: nothing is mended towards a revision that it may not be at.
    let before = database.dump_schema();
    for (sql, id) in [
        ("INSERT INTO alembic_version VALUES ('acf3f17fdcc7')", "several-revisions"),
        ("DELETE FROM alembic_version WHERE version_num <> 'acf3f17fdcc7'", "wrong-revision"),
    ] {
        database.execute(sql);
        let said = doctor(home.path(), &database.url(), &["--fix", "--yes", "--output", "json"]).expect(5).json();
        let findings = list(&said["result"]["findings"]);
        assert!(findings.iter().any(|f| f.0 == "error" && f.1 == id), "{findings:?}");
        assert_eq!(database.dump_schema(), before);
    }
}

#[test]
fn a_sqlite_file_is_looked_at_and_never_written_to() {
    let home = folder();
    let file = home.path().join("mlflow.db");
    std::fs::copy(sample(2_000), &file).unwrap();
    let connection = rusqlite::Connection::open(&file).unwrap();
    connection
        .execute_batch(
            "PRAGMA foreign_keys = OFF; DROP INDEX index_tags_run_uuid; DROP TRIGGER prevent_secrets_aad_mutation;
             ALTER TABLE runs ADD COLUMN own TEXT; CREATE INDEX mine ON runs (user_id); DROP TABLE job_locks;
             DELETE FROM latest_metrics WHERE rowid IN (SELECT rowid FROM latest_metrics LIMIT 3);
             DELETE FROM experiments WHERE experiment_id = 2; CREATE TABLE _alembic_tmp_runs (a);",
        )
        .unwrap();
    drop(connection);
    let before = std::fs::read(&file).unwrap();
    let findings = found(home.path(), file.to_str().unwrap());
    for (severity, id, object) in [
        ("error", "lost-experiments", "runs.experiment_id"),
        ("warning", "missing-index", "tags: index_tags_run_uuid"),
        ("error", "missing-trigger", "secrets: prevent_secrets_aad_mutation"),
        ("warning", "extra-column", "runs.own"),
        ("note", "extra-index", "runs: mine"),
        ("error", "missing-table", "job_locks"),
        ("warning", "old-latest-metrics", "latest_metrics"),
        ("error", "interrupted-upgrade", "_alembic_tmp_runs"),
    ] {
        let one = (severity.to_owned(), id.to_owned(), object.to_owned());
        assert!(findings.contains(&one), "{one:?}: {findings:?}");
    }
    let said = doctor(home.path(), file.to_str().unwrap(), &["--fix", "--yes"]).expect(5);
    assert!(said.out.contains("does not write to a SQLite file"), "{}", said.out);
    assert!(std::fs::read(&file).unwrap() == before);
}

/// pgloader, or a word that the test was skipped.
fn pgloader(source: &Path, target: &Database, more: &[&str]) -> bool {
    if !Path::new("/usr/bin/pgloader").exists() {
        eprintln!("skipped: pgloader is not installed");
        return false;
    }
    let (socket, port) = (&target.address.hosts[0].0, 5432);
    let url = format!("postgresql://mlops@unix:{socket}:{port}/{}", target.address.database.as_deref().unwrap());
    let home = folder();
    let mut command = Command::new("/usr/bin/pgloader");
    command.args(["--root-dir", home.path().to_str().unwrap()]).args(more);
    command.arg(format!("sqlite://{}", source.display())).arg(url).current_dir(home.path());
    let said = Said::of(command.output().unwrap());
    // "success" whatever happens.
    assert_eq!(said.code, 0, "{}{}", said.out, said.err);
    true
}

/// pgloader's default result of a release's store is mended into MLflow's own schema.
fn pgloaders_result_is_mended(release: &str, file: &Path) -> Option<(tempfile::TempDir, Database)> {
    let home = folder();
    let server = postgres(if release == "3.17.2" { 18 } else { 15 });
    let own = server.database(&format!("doctor_own_{release}"));
    let database = server.database(&format!("doctor_pgloader_{}", release.replace('.', "_")));
    if !pgloader(file, &database, &[]) {
        return None;
    }
    native(release, &own.sqlalchemy());
    let said = doctor(home.path(), &database.url(), &["--output", "json"]).expect(5).json();
    let findings = list(&said["result"]["findings"]);
    for (id, object) in
        [("missing-sequence", "experiments.experiment_id"), ("missing-primary-key", "metrics: metric_pk")]
    {
        assert!(findings.contains(&("error".to_owned(), id.to_owned(), object.to_owned())), "{findings:?}");
    }
    doctor(home.path(), &database.url(), &["--fix", "--yes"]).expect(0);
    assert_sound(home.path(), &database.url());
    let (own, mended) = (own.dump_schema(), database.dump_schema());
    let pair = own.lines().zip(mended.lines()).find(|(a, b)| a != b);
    assert!(own == mended, "{release}: {pair:?}");
    verify(home.path(), file.to_str().unwrap(), &database.url()).expect(0);
    let server = Server::start(release, &database.sqlalchemy(), home.path(), &[]);
    server.exercise();
    drop(server);
    Some((home, database))
}

#[test]
fn pgloaders_result_of_2_9_2_is_mended_and_upgraded() {
    let home = folder();
    let file = home.path().join("mlflow.db");
    small_store("2.9.2", &file);
    let Some((home, database)) = pgloaders_result_is_mended("2.9.2", &file) else { return };
    upgrade(&database);
    assert_sound(home.path(), &database.url());
}

#[test]
fn pgloaders_result_of_3_4_0_is_mended() {
    let home = folder();
    let file = home.path().join("mlflow.db");
    small_store("3.4.0", &file);
    pgloaders_result_is_mended("3.4.0", &file);
}

#[test]
fn pgloaders_result_of_the_newest_is_mended() {
    pgloaders_result_is_mended("3.17.2", &sample(2_000));
}

/// The recipe that people use: a server makes the schema, pgloader loads rows into it.
#[test]
fn what_pgloader_lost_into_a_started_server_is_told() {
    let home = folder();
    let database = postgres(15).database("doctor_recipe");
    let code = "import sys
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
SqlAlchemyStore(sys.argv[1], '/tmp')";
    script("3.17.2", code, &[&database.sqlalchemy()]);
    if !pgloader(&sample(2_000), &database, &["--with", "data only"]) {
        return;
    }
    assert_eq!(database.number("SELECT count(*) FROM experiments"), 1, "the recipe has got better");
    let runs = database.number("SELECT count(*) FROM runs WHERE experiment_id <> 0");
    let said = doctor(home.path(), &database.url(), &["--output", "json"]).expect(5).json();
    let lost = said["result"]["findings"].as_array().unwrap()[0].clone();
    assert_eq!(lost["id"], "lost-experiments");
    let what = lost["what"].as_str().unwrap();
    assert!(what.starts_with(&format!("{runs} rows of `runs` belong to")) && what.contains("ids 1, 2"), "{what}");
    assert!(lost["cannot"].as_str().unwrap().contains("cannot be invented"), "{lost}");
    let findings = list(&said["result"]["findings"]);
    assert!(findings.iter().any(|f| f.1 == "missing-foreign-key" && f.2 == "runs: runs_experiment_id_fkey"));
    let rows = database.number("SELECT count(*) FROM runs");
    doctor(home.path(), &database.url(), &["--fix", "--yes"]).expect(5);
    assert_eq!(database.number("SELECT count(*) FROM runs"), rows);
}

/// Real databases: what is wrong with each, or nothing worse than a note.
const CORPUS: &[(&str, i32, &[&str])] = &[
    ("2023ac05242__mlops-iris", 0, &[]),
    ("G-Research__fasttrackml__2", 5, &["missing-table", "extra-column"]),
    ("KarimLulu__mlops-loan-prediction", 0, &[]),
    ("Rwatana__master_thesis__2", 0, &[]),
    ("adehiles__vertebral_models", 0, &[]),
    ("afonsosousah__MLOPS-Project__3", 0, &[]),
    ("kennedyopokuasare__trotro_mlops", 0, &[]),
    ("mlopslabs02__mlopsdemo3", 6, &[]),
    ("mmmsmm16__keiiba-ai__5", 5, &["interrupted-upgrade"]),
    ("omegaml__omegaml", 5, &["stale-check"]),
    ("rdraghescu__Project_repo__4", 0, &[]),
    ("thedatadudech__hate_speech_detector", 0, &[]),
    ("tipresias__augury__2", 0, &["extra-constraint"]),
    ("wolfxweb__Kobe-Bryant", 0, &[]),
];

#[test]
fn real_databases_are_sound_or_named_rightly() {
    let Some(corpus) = std::env::var_os("MLOPS_CORPUS").filter(|v| !v.is_empty()) else {
        eprintln!("skipped: MLOPS_CORPUS names no folder with real databases");
        return;
    };
    for (name, code, ids) in CORPUS {
        let (home, place) = (folder(), folder());
        for suffix in ["", "-wal", "-journal"] {
            let from = Path::new(&corpus).join(format!("{name}.db{suffix}"));
            if from.exists() {
                std::fs::write(place.path().join(format!("{name}.db{suffix}")), std::fs::read(from).unwrap()).unwrap();
            }
        }
        let file = place.path().join(format!("{name}.db"));
        let said = doctor(home.path(), file.to_str().unwrap(), &["--output", "json"]);
        assert_eq!(said.code, *code, "{name}: {}", said.out);
        if *code != 6 {
            let found: Vec<String> = list(&said.json()["result"]["findings"]).into_iter().map(|f| f.1).collect();
            assert!(ids.iter().all(|id| found.iter().any(|f| f == id)), "{name}: {found:?}");
            assert!(*code == 5 || found.len() == ids.len(), "{name}: {found:?}");
        }
        // On PostgreSQL, under the policies for what does not fit, all that can be moved is sound.
        if *code == 0 || *name == "omegaml__omegaml" {
            let database = postgres(15).database("doctor_corpus");
            migrate(home.path(), &file, &database.url(), &["-q", "--widen", "--remap-experiment-ids"]).expect(0);
            doctor(home.path(), &database.url(), &[]).expect(0);
            let notes: Vec<String> = found_ids(home.path(), &database.url());
            let widened: &[&str] = if name.starts_with("thedatadudech") { &["widened-column"] } else { &[] };
            assert_eq!(notes, widened, "{name}");
        }
    }
}
