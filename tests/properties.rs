//! Arbitrary values through SQLite and PostgreSQL, with PostgreSQL itself as the oracle; and any changed, missing or
//! extra cell is found and named.

use std::path::Path;

use jiff::Timestamp;
use mlops::domain::retention::{Candidate, Count, Keep, Within, select};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use rusqlite::types::Value;

use crate::support::{Database, folder, migrate, postgres, rounds, sample, verify};

/// A run with its metric, param and tag, as a hostile client might make them.
#[derive(Debug, Clone)]
struct Made {
    name: Option<String>,
    user: Option<String>,
    start: Option<i64>,
    metric: f64,
    is_nan: bool,
    step: i64,
    timestamp: i64,
    param: String,
    tag: Option<String>,
}

/// Any text that PostgreSQL can hold: no NUL, at most so many characters.
fn text(most: usize) -> impl Strategy<Value = String> {
    let hard = prop::sample::select(vec![
        "",
        " ",
        "\\N",
        "\\.",
        "NULL",
        "None",
        "a\tb\r\nc",
        "'; --",
        "\u{feff}x ",
        "\u{10ffff}",
        "e\u{301}",
        "{\"a\": NaN}",
        "\u{1}\u{7f}",
    ]);
    let any = prop::collection::vec(any::<char>().prop_filter("no NUL", |c| *c != '\0'), 0..most)
        .prop_map(|characters| characters.into_iter().collect());
    prop_oneof![1 => hard.prop_map(str::to_owned), 3 => any]
}

fn float() -> impl Strategy<Value = f64> {
    let hard = vec![
        0.0,
        -0.0,
        5e-324,
        f64::MIN_POSITIVE,
        f64::MAX,
        f64::MIN,
        f64::INFINITY,
        f64::NEG_INFINITY,
        0.1,
        1e15,
        9007199254740993.0,
    ];
    prop_oneof![
        1 => prop::sample::select(hard),
        // SQLite stores a NaN as NULL, which the column refuses; MLflow writes 0 and is_nan.
        3 => any::<u64>().prop_map(f64::from_bits).prop_filter("no NaN", |f| !f.is_nan()),
    ]
}

fn made() -> impl Strategy<Value = Made> {
    (
        prop::option::of(text(250)),
        prop::option::of(text(256)),
        prop::option::of(any::<i64>()),
        (float(), any::<bool>()),
        (any::<i64>(), any::<i64>()),
        text(500),
        prop::option::of(text(800)),
    )
        .prop_map(|(name, user, start, (metric, is_nan), (step, timestamp), param, tag)| Made {
            name,
            user,
            start,
            metric,
            is_nan,
            step,
            timestamp,
            param,
            tag,
        })
}

/// The sample's schema with just these runs in it.
fn store(path: &Path, runs: &[Made]) {
    std::fs::copy(sample(0), path).unwrap();
    let connection = rusqlite::Connection::open(path).unwrap();
    for table in ["metrics", "latest_metrics", "params", "tags"] {
        connection.execute(&format!("DELETE FROM {table}"), []).unwrap();
    }
    for (number, run) in runs.iter().enumerate() {
        let id = format!("{number:032x}");
        connection
            .execute(
                "INSERT INTO runs (run_uuid, name, user_id, start_time, status, lifecycle_stage, experiment_id) VALUES (?, ?, ?, ?, 'RUNNING', 'active', 0)",
                rusqlite::params![id, run.name, run.user, run.start],
            )
            .unwrap();
        connection
            .execute(
                "INSERT INTO metrics (key, value, timestamp, run_uuid, step, is_nan) VALUES ('m', ?, ?, ?, ?, ?)",
                rusqlite::params![run.metric, run.timestamp, id, run.step, run.is_nan],
            )
            .unwrap();
        connection.execute("INSERT INTO params (key, value, run_uuid) VALUES ('p', ?, ?)", [&run.param, &id]).unwrap();
        connection
            .execute("INSERT INTO tags (key, value, run_uuid) VALUES ('t', ?, ?)", rusqlite::params![run.tag, id])
            .unwrap();
    }
}

/// What PostgreSQL's own text output says, which no code of ours had a part in.
fn oracle(database: &Database, runs: &[Made]) {
    let mut client = database.client();
    for (number, run) in runs.iter().enumerate() {
        let id = format!("{number:032x}");
        let row = client
            .query_one(
                "SELECT r.name, r.user_id, r.start_time, m.value, m.is_nan, m.step, m.timestamp, p.value, t.value
                 FROM runs r JOIN metrics m USING (run_uuid) JOIN params p USING (run_uuid) JOIN tags t USING (run_uuid)
                 WHERE run_uuid = $1",
                &[&id],
            )
            .unwrap();
        assert_eq!(row.get::<_, Option<String>>(0), run.name);
        assert_eq!(row.get::<_, Option<String>>(1), run.user);
        assert_eq!(row.get::<_, Option<i64>>(2), run.start);
        // SQLite keeps no -0.0.
        let metric = if run.metric == 0.0 { 0.0 } else { run.metric };
        assert_eq!(row.get::<_, f64>(3).to_bits(), f64::to_bits(metric));
        assert_eq!(row.get::<_, bool>(4), run.is_nan);
        assert_eq!((row.get::<_, i64>(5), row.get::<_, i64>(6)), (run.step, run.timestamp));
        assert_eq!(row.get::<_, String>(7), run.param);
        assert_eq!(row.get::<_, Option<String>>(8), run.tag);
    }
}

#[test]
fn arbitrary_values_arrive_exactly() {
    let home = folder();
    let mut runner = TestRunner::new(Config { cases: rounds(), failure_persistence: None, ..Config::default() });
    runner
        .run(&prop::collection::vec(made(), 1..40), |runs| {
            let file = home.path().join("arbitrary.db");
            store(&file, &runs);
            let database = postgres(15).database("arbitrary");
            migrate(home.path(), &file, &database.url(), &["-q"]).expect(0);
            oracle(&database, &runs);
            verify(home.path(), file.to_str().unwrap(), &database.url()).expect(0);
            Ok(())
        })
        .unwrap();
}

/// SQLite's JSON columns have NUMERIC affinity; what is left of a bare number there arrives as that number, and blobs,
/// booleans and 64-bit integers as they are.
#[test]
fn json_numbers_and_bytes_arrive_as_sqlite_kept_them() {
    let home = folder();
    let file = home.path().join("json.db");
    store(&file, &[]);
    let connection = rusqlite::Connection::open(&file).unwrap();
    let columns: Vec<(String, String)> = connection
        .prepare("SELECT m.name, c.name FROM sqlite_master m, pragma_table_info(m.name) c WHERE m.type = 'table' AND c.type = 'JSON' ORDER BY 1, 2")
        .unwrap()
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    assert!(columns.iter().any(|(t, c)| t == "evaluation_dataset_records" && c == "inputs"), "{columns:?}");
    connection
        .execute_batch("INSERT INTO evaluation_datasets (dataset_id, name, workspace) VALUES ('d-1', 'n', 'default')")
        .unwrap();
    let cases = [
        ("1.0", "1"),
        ("1.10", "1.1"),
        ("true", "true"),
        ("{\"a\":  1.0}", "{\"a\":  1.0}"),
        ("\"x\"", "\"x\""),
        ("1e400", "1e999"),
        ("-7", "-7"),
        ("123456789012345678901234567890", "1.2345678901234568e29"),
        ("null", "null"),
    ];
    for (number, (json, _)) in cases.iter().enumerate() {
        connection
            .execute(
                "INSERT INTO evaluation_dataset_records (dataset_record_id, dataset_id, inputs, input_hash) VALUES (?, 'd-1', ?, ?)",
                rusqlite::params![format!("r-{number}"), json, format!("{number:064x}")],
            )
            .unwrap();
    }
    connection
        .execute(
            "INSERT INTO secrets (secret_id, secret_name, encrypted_value, wrapped_dek, kek_version, masked_value, created_at, last_updated_at, workspace)
             VALUES ('s-1', 's', ?, ?, 1, '{}', 1, 9223372036854775807, 'default')",
            rusqlite::params![Value::Blob(vec![0, 1, 255, 0]), Value::Blob(Vec::new())],
        )
        .unwrap();
    drop(connection);
    let database = postgres(15).database("json");
    migrate(home.path(), &file, &database.url(), &["-q"]).expect(0);
    for (number, (_, arrived)) in cases.iter().enumerate() {
        let found = database.texts(&format!(
            "SELECT inputs::text FROM evaluation_dataset_records WHERE dataset_record_id = 'r-{number}'"
        ));
        assert_eq!(found, [*arrived]);
    }
    assert_eq!(database.number("SELECT count(*) FROM secrets WHERE encrypted_value = '\\x0001ff00' AND wrapped_dek = '' AND last_updated_at = 9223372036854775807"), 1);
    verify(home.path(), file.to_str().unwrap(), &database.url()).expect(0);
}

#[test]
fn a_changed_missing_or_extra_cell_is_found_and_named() {
    let home = folder();
    let file = sample(20_000);
    let database = postgres(15).database("differences");
    migrate(home.path(), &file, &database.url(), &["-q"]).expect(0);
    let mut client = database.client();
    let one = |client: &mut postgres::Client, sql: &str| client.query_one(sql, &[]).unwrap().get::<_, String>(0);
    let run = one(
        &mut client,
        "SELECT run_uuid FROM runs JOIN params p USING (run_uuid) JOIN metrics m USING (run_uuid)
         WHERE deleted_time IS NULL AND p.key = 'seed' AND m.key = 'train_loss' AND m.step = 1 ORDER BY 1 LIMIT 1",
    );
    let metric = format!("run_uuid = '{run}' AND key = 'train_loss' AND step = 1");
    for (change, undo, words) in [
        (
            format!("UPDATE metrics SET value = value + 1e-15 WHERE {metric}"),
            None,
            // The value is part of the key, so another value is another row.
            vec!["metrics: ".to_owned(), "only in the source".to_owned(), "only in the target".to_owned(), run.clone()],
        ),
        (
            format!("UPDATE runs SET name = name || ' ' WHERE run_uuid = '{run}'"),
            Some(format!("UPDATE runs SET name = rtrim(name) WHERE run_uuid = '{run}'")),
            vec![format!("run_uuid=\"{run}\": name: \"")],
        ),
        (
            format!("UPDATE runs SET deleted_time = 5 WHERE run_uuid = '{run}'"),
            Some(format!("UPDATE runs SET deleted_time = NULL WHERE run_uuid = '{run}'")),
            vec!["deleted_time: NULL in the source, 5 in the target".to_owned()],
        ),
        (
            format!("DELETE FROM params WHERE run_uuid = '{run}' AND key = 'seed'"),
            None,
            vec![format!("key=\"seed\", run_uuid=\"{run}\": only in the source")],
        ),
        (
            "INSERT INTO experiment_tags VALUES ('extra', NULL, 0)".to_owned(),
            Some("DELETE FROM experiment_tags WHERE key = 'extra'".to_owned()),
            vec!["key=\"extra\", experiment_id=0: only in the target".to_owned()],
        ),
        (
            "UPDATE spans SET content = content || ' ' WHERE span_id = (SELECT min(span_id) FROM spans)".to_owned(),
            None,
            vec!["spans: ".to_owned(), "content: ".to_owned()],
        ),
    ] {
        client.batch_execute("BEGIN").unwrap();
        client.batch_execute(&change).unwrap();
        client.batch_execute("COMMIT").unwrap();
        let said = verify(home.path(), file.to_str().unwrap(), &database.url()).expect(5);
        for word in words {
            assert!(said.out.contains(&word), "{change}: {word:?} not in\n{}", said.out);
        }
        if let Some(undo) = undo {
            client.batch_execute(&undo).unwrap();
        }
    }
    // JSON names them as well, and the other direction sees the same rows with the words turned round.
    let arguments = [
        "migrate",
        "verify",
        "-q",
        "--output",
        "json",
        "--source",
        &database.url(),
        "--target",
        file.to_str().unwrap(),
    ];
    let said = crate::support::run(home.path(), &arguments).expect(5).json();
    let params = said["result"]["tables"].as_array().unwrap().iter().find(|t| t["table"] == "params").unwrap().clone();
    assert_eq!(params["differences"][0]["what"], "extra");
    assert_eq!(params["differences"][0]["key"]["key"], "\"seed\"");
}

#[test]
fn a_table_that_differs_everywhere_is_told_in_bounded_memory() {
    let home = folder();
    let file = sample(100_000);
    let database = postgres(15).database("all_differ");
    migrate(home.path(), &file, &database.url(), &["-q"]).expect(0);
    database.execute("DELETE FROM metrics");
    let said = verify(home.path(), file.to_str().unwrap(), &database.url()).expect(5);
    assert!(said.out.contains("metrics: 100000 rows against 0, at least "), "{}", said.out);
}

fn candidates() -> impl Strategy<Value = Vec<Candidate>> {
    // Few distinct moments of some years, so that hours, days and weeks are shared and some moments are the same.
    let at = (0i64..30_000, prop::sample::select(vec![60i64, 3_600, 40_000]));
    let at = at.prop_map(|(n, scale)| Timestamp::from_second(1_700_000_000 + n * scale).unwrap());
    let one = (at, prop::bool::weighted(0.7), prop::bool::weighted(0.1));
    prop::collection::vec(one, 0..60).prop_map(|all| {
        let numbered = all.into_iter().enumerate();
        numbered
            .map(|(number, (at, complete, pinned))| Candidate { id: format!("b-{number}"), at, complete, pinned })
            .collect()
    })
}

fn keep() -> impl Strategy<Value = Keep> {
    let count =
        || prop::option::weighted(0.4, prop_oneof![4 => (0u32..6).prop_map(Count::Newest), 1 => Just(Count::All)]);
    let within = (0u32..2, 0u32..4, 0u32..40, 0u32..50);
    let within = within.prop_map(|(years, months, days, hours)| Within { years, months, days, hours });
    let counts = (count(), count(), count(), count(), count(), count());
    (counts, prop::option::weighted(0.3, within)).prop_map(
        |((last, hourly, daily, weekly, monthly, yearly), within)| Keep {
            last,
            hourly,
            daily,
            weekly,
            monthly,
            yearly,
            within,
        },
    )
}

/// The newest complete backup and all pinned ones survive any rules; incomplete ones change nothing for the others; and
/// what is kept is kept again, for the same reasons: each rule finds the newest of each of its buckets among what it
/// kept, and its count ends where it ended before.
#[test]
fn what_must_stay_stays_and_what_was_kept_is_kept_again() {
    let mut runner = TestRunner::new(Config { cases: 500, failure_persistence: None, ..Config::default() });
    runner
        .run(&(candidates(), keep()), |(candidates, keep)| {
            let decisions = select(&candidates, &keep);
            assert_eq!(decisions.len(), candidates.len());
            let kept = |id: &str| decisions.iter().any(|d| d.id == id && d.kept);
            assert!(candidates.iter().filter(|c| c.pinned).all(|c| kept(&c.id)));
            if let Some(at) = candidates.iter().filter(|c| c.complete).map(|c| c.at).max() {
                assert!(candidates.iter().any(|c| c.complete && c.at == at && kept(&c.id)));
            }
            let left: Vec<Candidate> = candidates.iter().filter(|c| kept(&c.id)).cloned().collect();
            let before: Vec<_> = decisions.iter().filter(|d| d.kept).cloned().collect();
            assert_eq!(select(&left, &keep), before);
            let complete: Vec<Candidate> = candidates.iter().filter(|c| c.complete).cloned().collect();
            let of_complete = decisions.iter().filter(|d| complete.iter().any(|c| c.id == d.id)).cloned();
            assert_eq!(select(&complete, &keep), of_complete.collect::<Vec<_>>());
            Ok(())
        })
        .unwrap();
}
