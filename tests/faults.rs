//! Kills, cuts and interrupts: the target is untouched or complete, the next run succeeds, nothing is left over.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::proxy::Proxy;
use crate::support::{Database, Killed, Said, folder, migrate, mlops, postgres, rounds, sample, verify, wait_for};

const MILLION: u64 = 1_000_000;

fn migration(home: &Path, source: &Path, target: &str) -> Command {
    let mut command = mlops(home);
    command.args(["migrate", "sqlite-to-pg", "--progress", "json", "--source"]).arg(source).args(["--target", target]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Waits until progress says that a phase began; the rest of stderr is drained on a thread.
pub(crate) fn wait_for_phase(child: &mut Child, phase: &str) {
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let wanted = format!("\"phase\":\"{phase}\"");
    while let Some(Ok(line)) = lines.next() {
        if line.contains(&wanted) {
            std::thread::spawn(move || lines.count());
            return;
        }
    }
    panic!("the phase {phase} did not begin");
}

/// Untouched or complete, and never anything between. Whether it is complete.
pub(crate) fn untouched_or_complete(home: &Path, file: &Path, database: &Database) -> bool {
    if database.tables().is_empty() {
        return false;
    }
    verify(home, file.to_str().unwrap(), &database.url()).expect(0);
    true
}

enum Moment {
    /// That part of a whole migration's time.
    Fraction(f64),
    /// So long after a phase began.
    Phase(&'static str, Duration),
}

#[test]
fn kill_9_at_any_moment() {
    let home = folder();
    let file = sample(MILLION);
    let database = postgres(15).database("kills");
    let begun = Instant::now();
    migrate(home.path(), &file, &database.url(), &["-q"]).expect(0);
    let whole = begun.elapsed();

    let ms = Duration::from_millis;
    let mut moments: Vec<Moment> =
        (0..rounds()).map(|i| Moment::Fraction((f64::from(i) + 0.5) / f64::from(rounds()))).collect();
    for after in [0, 700, 1200] {
        moments.push(Moment::Phase("copying, indexing, verifying", ms(after)));
    }
    moments.push(Moment::Phase("making keys", ms(50)));
    for after in [0, 2, 8, 20] {
        moments.push(Moment::Phase("publishing", ms(after)));
    }
    let mut database = postgres(15).database("kills");
    for moment in moments {
        let mut child = Killed(migration(home.path(), &file, &database.url()).spawn().unwrap());
        match moment {
            Moment::Fraction(fraction) => std::thread::sleep(whole.mul_f64(fraction)),
            Moment::Phase(phase, after) => {
                wait_for_phase(&mut child.0, phase);
                std::thread::sleep(after);
            }
        }
        drop(child);
        // A commit that was under way may still come through.
        std::thread::sleep(Duration::from_millis(100));
        if untouched_or_complete(home.path(), &file, &database) {
            database = postgres(15).database("kills");
        }
    }
    let said = migrate(home.path(), &file, &database.url(), &[]).expect(0);
    assert!(said.out.contains("Verified:"));
    assert!(database.own_schemas().is_empty(), "{:?}", database.own_schemas());
    assert!(
        said.err.is_empty() || said.err.contains("did not finish") || said.err.contains("removed the stage"),
        "{}",
        said.err
    );
    verify(home.path(), file.to_str().unwrap(), &database.url()).expect(0);
    let left: Vec<_> = std::fs::read_dir(home.path()).unwrap().flatten().map(|e| e.file_name()).collect();
    assert!(
        !left.iter().any(|n| n.to_string_lossy().starts_with("mlops-snapshot")),
        "private copies of killed runs: {left:?}"
    );
}

#[test]
fn a_killed_run_is_known_to_the_next() {
    let home = folder();
    // A copy: that another test reads the sample is told as well.
    let file = home.path().join("own.db");
    fs::copy(sample(MILLION), &file).unwrap();
    let database = postgres(15).database("known");
    let mut child = Killed(migration(home.path(), &file, &database.url()).spawn().unwrap());
    wait_for_phase(&mut child.0, "copying, indexing, verifying");
    drop(child);
    assert_eq!(database.own_schemas().len(), 1);
    let said = migrate(home.path(), &file, &database.url(), &[]).expect(0);
    assert!(said.err.contains("did not finish; what it left is removed"), "{}", said.err);
    assert!(said.err.contains("removed the stage mlops_stage_"), "{}", said.err);
    assert!(database.own_schemas().is_empty());
    // And told once only.
    let database = postgres(15).database("known");
    let said = migrate(home.path(), &file, &database.url(), &[]).expect(0);
    assert!(said.err.is_empty(), "{}", said.err);
}

#[test]
fn an_interrupt_ends_it_in_order() {
    let home = folder();
    let file = sample(MILLION);
    let database = postgres(15).database("interrupts");
    let flow = "copying, indexing, verifying";
    for (signal, code, phase, after) in
        [("-INT", 130, flow, 0), ("-TERM", 143, flow, 700), ("-INT", 130, flow, 1000), ("-INT", 130, "making keys", 0)]
    {
        let mut child = migration(home.path(), &file, &database.url()).spawn().unwrap();
        wait_for_phase(&mut child, phase);
        std::thread::sleep(Duration::from_millis(after));
        assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
        let begun = Instant::now();
        let status = child.wait().unwrap();
        assert_eq!(status.code(), Some(code), "{phase}");
        assert!(begun.elapsed() < Duration::from_secs(10), "{phase}: {:?}", begun.elapsed());
        assert!(database.tables().is_empty() && database.own_schemas().is_empty(), "{phase}");
    }
    migrate(home.path(), &file, &database.url(), &["-q"]).expect(0);
}

#[test]
fn a_cut_connection_changes_nothing() {
    let home = folder();
    let file = sample(MILLION);
    let database = postgres(15).database("cuts");
    let whole = {
        let proxy = Proxy::before(database.socket());
        let said = migrate(home.path(), &file, &through(&database, &proxy), &["-q"]).expect(0);
        assert!(said.out.contains("Verified:"));
        proxy.passed()
    };
    let mut database = postgres(15).database("cuts");
    let cuts = rounds().div_ceil(2).max(3);
    for round in 0..cuts {
        let proxy = Proxy::before(database.socket());
        let target = through(&database, &proxy);
        let child = migration(home.path(), &file, &target).spawn().unwrap();
        let at = whole * u64::from(round + 1) / u64::from(cuts + 1);
        wait_for("the bytes before the cut", Duration::from_secs(120), || (proxy.passed() >= at).then_some(()));
        proxy.cut();
        let said = Said::of(child.wait_with_output().unwrap());
        assert!([0, 7].contains(&said.code), "{}: {}", said.code, said.err);
        let complete = untouched_or_complete(home.path(), &file, &database);
        assert_eq!(complete, said.code == 0, "what was said and what is there differ: {}", said.err);
        if complete {
            database = postgres(15).database("cuts");
        }
    }
    migrate(home.path(), &file, &database.url(), &["-q"]).expect(0);
    assert!(database.own_schemas().is_empty());
}

fn through(database: &Database, proxy: &Proxy) -> String {
    let (user, name) = (database.address.user.as_deref().unwrap(), database.address.database.as_deref().unwrap());
    format!("postgresql://{user}@127.0.0.1:{}/{name}?sslmode=disable", proxy.port)
}

#[test]
fn of_two_at_once_one_is_locked_out() {
    let home = folder();
    let file = sample(MILLION);
    let database = postgres(15).database("two");
    // The lock is held by a session that stays, as a long migration's would.
    let mut holder = database.client();
    holder
        .batch_execute(
            "SET application_name = 'mlops/other'; SELECT pg_advisory_lock(hashtext('mlops'), hashtext('public'))",
        )
        .unwrap();
    let said = migrate(home.path(), &file, &database.url(), &[]).expect(10);
    assert!(said.err.contains("mlops/other"), "{}", said.err);
    assert!(database.tables().is_empty() && database.own_schemas().is_empty());
    drop(holder);
    migrate(home.path(), &file, &database.url(), &["-q"]).expect(0);
}

#[test]
fn a_full_disk_on_the_target_is_told_and_leaves_nothing() {
    let home = folder();
    let file = sample(20_000);
    let database = postgres(15).database("limits");
    // No disk to fill here: a limit on temporary files fails the same statements in the same place.
    database.execute(
        "ALTER DATABASE limits SET temp_file_limit = '64kB'; ALTER DATABASE limits SET maintenance_work_mem = '1MB'",
    );
    let file = if cfg!(target_os = "linux") { sample(MILLION) } else { file };
    // So many threads that each sort has too little memory for a million rows.
    let said = migrate(home.path(), &file, &database.url(), &["--jobs", "16"]).expect(7);
    assert!(said.err.contains("making ") && said.err.contains("temp_file_limit"), "{}", said.err);
    assert!(database.tables().is_empty() && database.own_schemas().is_empty());
}
