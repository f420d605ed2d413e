//! The operator's SQLite file: read as it stands at one moment, never changed, nothing left beside it.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::{folder, run, sample};

fn beside(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().flatten().map(|e| e.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn rows(home: &Path, file: &Path, table: &str) -> u64 {
    let said = run(home, &["db", "info", "-q", "--output", "json", file.to_str().unwrap()]).expect(0).json();
    let tables = said["result"]["tables"].as_array().unwrap().clone();
    tables.iter().find(|t| t["table"] == table).unwrap()["rows"].as_u64().unwrap()
}

#[test]
fn a_wal_database_at_rest_is_not_touched() {
    let (home, place) = (folder(), folder());
    let file = place.path().join("mlflow.db");
    fs::copy(sample(2_000), &file).unwrap();
    rusqlite::Connection::open(&file).unwrap().query_row("PRAGMA journal_mode=WAL", [], |_| Ok(())).unwrap();
    assert_eq!(beside(place.path()), ["mlflow.db"]);
    let before = fs::read(&file).unwrap();
    assert_eq!(rows(home.path(), &file, "metrics"), 2_000);
    assert_eq!(beside(place.path()), ["mlflow.db"]);
    assert!(fs::read(&file).unwrap() == before);
}

#[test]
fn a_wal_database_in_use_is_read_with_its_wal() {
    let (home, place) = (folder(), folder());
    let file = place.path().join("mlflow.db");
    fs::copy(sample(2_000), &file).unwrap();
    let server = rusqlite::Connection::open(&file).unwrap();
    server.query_row("PRAGMA journal_mode=WAL", [], |_| Ok(())).unwrap();
    server.execute("INSERT INTO experiment_tags VALUES ('only in the wal', '', 0)", []).unwrap();
    let tags = rows(home.path(), &file, "experiment_tags");
    let there: u64 =
        server.query_row("SELECT count(*) FROM experiment_tags", [], |r| r.get::<_, i64>(0)).unwrap().unsigned_abs();
    assert_eq!(tags, there);
    server.execute("INSERT INTO experiment_tags VALUES ('and on', '', 0)", []).unwrap();
}

#[test]
fn a_hot_journal_is_rolled_back_in_the_copy_only() {
    let (home, place) = (folder(), folder());
    let live = place.path().join("live.db");
    fs::copy(sample(2_000), &live).unwrap();
    let writer = rusqlite::Connection::open(&live).unwrap();
    // A cache of one page makes the write reach the file before it is committed.
    writer
        .execute_batch("PRAGMA cache_size=1; BEGIN; UPDATE tags SET value = value || 'x'; DELETE FROM latest_metrics")
        .unwrap();
    let crashed = place.path().join("crashed.db");
    fs::copy(&live, &crashed).unwrap();
    fs::copy(place.path().join("live.db-journal"), place.path().join("crashed.db-journal")).unwrap();
    let before = (fs::read(&crashed).unwrap(), fs::read(place.path().join("crashed.db-journal")).unwrap());
    let names = beside(place.path());
    let whole = rows(home.path(), &sample(2_000), "latest_metrics");
    assert_eq!(rows(home.path(), &crashed, "latest_metrics"), whole);
    assert!((fs::read(&crashed).unwrap(), fs::read(place.path().join("crashed.db-journal")).unwrap()) == before);
    assert_eq!(beside(place.path()), names);
}

#[test]
fn a_damaged_file_is_refused() {
    let (home, place) = (folder(), folder());
    let file = place.path().join("mlflow.db");
    let mut bytes = fs::read(sample(2_000)).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 40_000].fill(0xa5);
    fs::write(&file, bytes).unwrap();
    let said = run(home.path(), &["db", "info", "-q", file.to_str().unwrap()]).expect(6);
    assert!(said.err.contains("is damaged:") || said.err.contains("malformed"), "{}", said.err);
}

#[test]
fn a_writer_of_mlflows_kind_goes_on_while_the_copy_is_taken() {
    let (home, place) = (folder(), folder());
    let file = place.path().join("mlflow.db");
    fs::copy(sample(100_000), &file).unwrap();
    let params = rows(home.path(), &file, "params");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let connection = rusqlite::Connection::open(&file).unwrap();
            connection.busy_timeout(Duration::from_secs(20)).unwrap();
            let run: String = connection.query_row("SELECT run_uuid FROM runs LIMIT 1", [], |r| r.get(0)).unwrap();
            let mut written = 0;
            while !stop.load(Ordering::SeqCst) || written == 0 {
                // Two rows in one transaction: a copy of one moment has both or none.
                let sql = format!(
                    "BEGIN; INSERT INTO metrics VALUES ('live', {written}, {written}, '{run}', {written}, 0);
                     INSERT INTO params VALUES ('live {written}', '', '{run}'); COMMIT"
                );
                connection.execute_batch(&sql).expect("no write of MLflow's fails");
                written += 1;
                // A server answers between two writes; on a slow disk one that never pauses would hold the lock for ever.
                std::thread::sleep(Duration::from_millis(10));
            }
            written
        });
        // Whatever fails below, the writer ends.
        let ends = Ends(&stop);
        for _ in 0..5 {
            let said =
                run(home.path(), &["db", "info", "-q", "--output", "json", file.to_str().unwrap()]).expect(0).json();
            let tables = said["result"]["tables"].as_array().unwrap().clone();
            let rows = |name: &str| tables.iter().find(|t| t["table"] == name).unwrap()["rows"].as_u64().unwrap();
            assert_eq!(rows("metrics") - 100_000, rows("params") - params, "the copy is not one moment");
        }
        drop(ends);
        assert!(writer.join().unwrap() > 0);
    });
}

struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn a_symbolic_link_finds_the_wal_beside_the_file_itself() {
    let (home, place) = (folder(), folder());
    let file = place.path().join("mlflow.db");
    fs::copy(sample(2_000), &file).unwrap();
    let server = rusqlite::Connection::open(&file).unwrap();
    server.query_row("PRAGMA journal_mode=WAL", [], |_| Ok(())).unwrap();
    server.execute("INSERT INTO experiment_tags VALUES ('only in the wal', '', 0)", []).unwrap();
    // As a crash leaves it: file and -wal, nobody has them open.
    let crashed = folder();
    for suffix in ["", "-wal"] {
        let from = place.path().join(format!("mlflow.db{suffix}"));
        fs::copy(from, crashed.path().join(format!("mlflow.db{suffix}"))).unwrap();
    }
    let there: i64 = server.query_row("SELECT count(*) FROM experiment_tags", [], |r| r.get(0)).unwrap();
    // A name that would mean something in a URI.
    let link = home.path().join("a?b#c %41 link.db");
    std::os::unix::fs::symlink(crashed.path().join("mlflow.db"), &link).unwrap();
    assert_eq!(rows(home.path(), &link, "experiment_tags"), there.unsigned_abs());
}
