//! Archives through the command line: written while nobody notices, read by anybody, trusted by nobody.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::{Killed, Said, folder, migrate, mlops, postgres, programs, rounds, run, sample, verify, wait_for};

fn export(home: &Path, source: &str, archive: &Path, more: &[&str]) -> Said {
    let arguments = ["migrate", "export", "--progress", "none", source, "--file", archive.to_str().unwrap()];
    run(home, &[&arguments[..], more].concat())
}

fn import(home: &Path, archive: &Path, target: &str, more: &[&str]) -> Said {
    let arguments = ["migrate", "import", "--progress", "none", archive.to_str().unwrap(), "--target", target];
    run(home, &[&arguments[..], more].concat())
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().flatten().map(|e| e.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn an_archive_goes_everywhere_and_stays_the_same() {
    let home = folder();
    let file = sample(20_000);
    let source = file.to_str().unwrap();
    let path = |name: &str| home.path().join(name);
    for (round, compression) in ["gzip", "zstd"].into_iter().enumerate() {
        let (archive, copy) = (path(&format!("{compression}.tar")), path(&format!("{compression}.db")));
        let certificate = path(&format!("{compression}.json"));
        let more = ["--compression", compression, "--certificate", certificate.to_str().unwrap()];
        let said = export(home.path(), source, &archive, &more).expect(0);
        assert!(said.out.contains("Exported") && said.out.contains("Verified:"), "{}", said.out);
        let certificate: serde_json::Value = serde_json::from_str(&fs::read_to_string(certificate).unwrap()).unwrap();
        assert_eq!(certificate["target"]["bytes"].as_u64().unwrap(), fs::metadata(&archive).unwrap().len());
        let database = postgres(if round == 0 { 15 } else { 18 }).database("exports");
        import(home.path(), &archive, &database.url(), &[]).expect(0);
        import(home.path(), &archive, copy.to_str().unwrap(), &[]).expect(0);
        // From PostgreSQL into an archive, and from that into SQLite.
        let (second, third) = (path(&format!("{compression}-2.tar")), path(&format!("{compression}-2.db")));
        export(home.path(), &database.url(), &second, &[]).expect(0);
        import(home.path(), &second, third.to_str().unwrap(), &[]).expect(0);
        for store in [&archive, &copy, &second, &third] {
            verify(home.path(), source, store.to_str().unwrap()).expect(0);
        }
        verify(home.path(), archive.to_str().unwrap(), &database.url()).expect(0);
        // Neither end is ever written over.
        assert!(export(home.path(), source, &archive, &[]).expect(9).err.contains("is there already"));
        assert!(import(home.path(), &archive, copy.to_str().unwrap(), &[]).expect(9).err.contains("is there already"));
        assert!(import(home.path(), &archive, &database.url(), &[]).expect(9).err.contains("holds MLflow's data"));
    }
    assert!(!names(home.path()).iter().any(|n| n.ends_with(".partial")), "{:?}", names(home.path()));
}

#[test]
fn tar_and_psql_alone_bring_a_store_back() {
    let home = folder();
    let file = sample(2_000);
    let archive = home.path().join("store.tar");
    export(home.path(), file.to_str().unwrap(), &archive, &[]).expect(0);
    let unpacked = home.path().join("unpacked");
    fs::create_dir(&unpacked).unwrap();
    let tar = Command::new("tar").arg("xf").arg(&archive).current_dir(&unpacked).output().unwrap();
    Said::of(tar).expect(0);
    for version in [15, 18] {
        let database = postgres(version).database("exports_psql");
        let psql = Command::new(programs(version).join("psql"))
            .args(["-q", "-h", &database.address.hosts[0].0, "-U", database.address.user.as_deref().unwrap()])
            .args(["-d", database.address.database.as_deref().unwrap(), "-f", "restore.sql"])
            .current_dir(&unpacked)
            .output()
            .unwrap();
        Said::of(psql).expect(0);
        verify(home.path(), file.to_str().unwrap(), &database.url()).expect(0);
    }
}

#[test]
fn an_archive_goes_through_a_pipe() {
    let home = folder();
    let file = sample(20_000);
    let database = postgres(15).database("exports_pipe");
    let mut exporting = mlops(home.path())
        .args(["migrate", "export", "-q", file.to_str().unwrap(), "--file", "-"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let importing = mlops(home.path())
        .args(["migrate", "import", "-", "-q", "--target", &database.url()])
        .stdin(exporting.stdout.take().unwrap())
        .output()
        .unwrap();
    Said::of(importing).expect(0);
    // Standard output was the archive and nothing else, so the other end would have refused a word more.
    Said::of(exporting.wait_with_output().unwrap()).expect(0);
    verify(home.path(), file.to_str().unwrap(), &database.url()).expect(0);
    // A pipe that ends too early is an unfinished archive.
    let archive = home.path().join("store.tar");
    export(home.path(), file.to_str().unwrap(), &archive, &[]).expect(0);
    let half = fs::read(&archive).unwrap();
    fs::write(&archive, &half[..half.len() / 2]).unwrap();
    let target = home.path().join("half.db");
    let importing = mlops(home.path())
        .args(["migrate", "import", "-", "-q", "--target", target.to_str().unwrap()])
        .stdin(fs::File::open(&archive).unwrap())
        .output()
        .unwrap();
    Said::of(importing).expect(11);
    assert!(!target.exists());
}

#[test]
fn a_damaged_archive_is_refused_before_anything_is_written() {
    let home = folder();
    let file = sample(2_000);
    let archive = home.path().join("store.tar");
    export(home.path(), file.to_str().unwrap(), &archive, &[]).expect(0);
    let sound = fs::read(&archive).unwrap();
    let database = postgres(15).database("exports_damaged");
    let copy = home.path().join("copy.db");
    let refused = |bytes: &[u8], what: &str| {
        fs::write(&archive, bytes).unwrap();
        for target in [&database.url(), copy.to_str().unwrap()] {
            let said = import(home.path(), &archive, target, &["--output", "json"]);
            assert_eq!(said.code, 11, "{what}: {}{}", said.out, said.err);
            assert_eq!(said.json()["error"]["kind"], "damaged", "{what}");
        }
        assert!(!copy.exists() && database.tables().is_empty() && database.own_schemas().is_empty(), "{what}");
    };
    for round in 0..rounds() as usize {
        let at = sound.len() * (2 * round + 1) / (2 * rounds() as usize);
        let mut flipped = sound.clone();
        flipped[at] ^= 1 << (round % 8);
        refused(&flipped, &format!("bit {} of byte {at}", round % 8));
        refused(&sound[..at], &format!("cut at {at}"));
    }
    refused(b"", "nothing");
    refused(&fs::read(&file).unwrap(), "a SQLite file");
    fs::write(&archive, &sound).unwrap();
    import(home.path(), &home.path().join("no-such.tar"), copy.to_str().unwrap(), &[]).expect(6);
    import(home.path(), &archive, copy.to_str().unwrap(), &[]).expect(0);
}

#[test]
fn a_killed_export_leaves_nothing_that_looks_like_an_archive() {
    let home = folder();
    let place = folder();
    let file = sample(1_000_000);
    let archive: PathBuf = place.path().join("store.tar");
    let mut child = mlops(home.path())
        .args(["migrate", "export", "-q", file.to_str().unwrap(), "--file", archive.to_str().unwrap()])
        .stdout(Stdio::null())
        .spawn()
        .map(Killed)
        .unwrap();
    wait_for("the first rows of the archive", Duration::from_secs(60), || {
        assert!(child.0.try_wait().unwrap().is_none(), "the export ended before it could be killed");
        fs::read_dir(place.path()).unwrap().flatten().find(|e| e.metadata().is_ok_and(|m| m.len() > 1 << 20))
    });
    drop(child);
    assert!(!archive.exists() && names(place.path()).len() == 1);
    export(home.path(), sample(2_000).to_str().unwrap(), &archive, &[]).expect(0);
    assert_eq!(names(place.path()), ["store.tar"]);
}

#[test]
fn a_row_that_breaks_a_rule_survives_an_archive() {
    let (home, place) = (folder(), folder());
    let file = place.path().join("mlflow.db");
    fs::copy(sample(2_000), &file).unwrap();
    rusqlite::Connection::open(&file)
        .unwrap()
        .execute_batch("PRAGMA ignore_check_constraints = ON; UPDATE runs SET status = 'ODD' WHERE rowid = 2")
        .unwrap();
    let path = |name: &str| home.path().join(name);
    let said = export(home.path(), file.to_str().unwrap(), &path("odd.tar"), &[]).expect(0);
    assert!(said.err.contains("breaks the rule status IN") && said.err.contains("--bad-rows"), "{}", said.err);
    import(home.path(), &path("odd.tar"), path("odd.db").to_str().unwrap(), &[]).expect(0);
    verify(home.path(), file.to_str().unwrap(), path("odd.db").to_str().unwrap()).expect(0);
    let database = postgres(15).database("exports_odd");
    import(home.path(), &path("odd.tar"), &database.url(), &[]).expect(6);
    let aside = path("odd.jsonl");
    let more = ["--bad-rows", "quarantine", "--quarantine-file", aside.to_str().unwrap()];
    import(home.path(), &path("odd.tar"), &database.url(), &more).expect(4);
    assert!(fs::read_to_string(&aside).unwrap().contains("\"status\":\"ODD\""));
}

#[test]
fn a_dry_run_says_what_the_run_would() {
    let home = folder();
    let file = sample(2_000);
    let nowhere = home.path().join("no/folder/store.tar");
    for more in [&[] as &[&str], &["--dry-run"]] {
        let said = export(home.path(), file.to_str().unwrap(), &nowhere, more).expect(7);
        assert!(said.err.contains("cannot be written to") && said.err.contains("hint:"), "{}", said.err);
    }
    assert_eq!(names(home.path()).iter().filter(|n| *n != "state").count(), 0);
}

#[test]
fn tables_of_another_program_survive_an_archive_with_whatever_they_hold() {
    let (home, place) = (folder(), folder());
    let file = place.path().join("mlflow.db");
    fs::copy(sample(2_000), &file).unwrap();
    rusqlite::Connection::open(&file)
        .unwrap()
        .execute_batch(
            "CREATE TABLE \"we ird.T/x\" (id INTEGER PRIMARY KEY, v TEXT, \"a b\" REAL, d DATE, b BLOB);
             INSERT INTO \"we ird.T/x\" VALUES (1, 'x', 1.5, '2026-01-01', x'00ff'), (2, NULL, 2, 5, 'text')",
        )
        .unwrap();
    let path = |name: &str| home.path().join(name);
    let more = ["--include-table", "we ird.T/x"];
    export(home.path(), file.to_str().unwrap(), &path("other.tar"), &more).expect(0);
    import(home.path(), &path("other.tar"), path("other.db").to_str().unwrap(), &more).expect(0);
    let said = run(
        home.path(),
        &[
            &["migrate", "verify", "--source", path("other.tar").to_str().unwrap(), "--target"][..],
            &[path("other.db").to_str().unwrap()],
            &more,
        ]
        .concat(),
    )
    .expect(0);
    assert!(said.out.contains("we ird.T/x"), "{}", said.out);
}

/// PostgreSQL keeps NaN, -0.0 and JSON numbers of any length; SQLite does not.
#[test]
fn what_sqlite_cannot_hold_is_named_before_anything_is_written() {
    let home = folder();
    let database = postgres(15).database("exports_to_sqlite");
    migrate(home.path(), &sample(2_000), &database.url(), &["-q"]).expect(0);
    database.execute("INSERT INTO evaluation_datasets (dataset_id, name, workspace) VALUES ('d-1', 'n', 'default')");
    let record = |id: &str, json: &str| {
        database.execute(&format!(
            "INSERT INTO evaluation_dataset_records (dataset_record_id, dataset_id, inputs, input_hash)
             VALUES ('{id}', 'd-1', '{json}', '{id}')"
        ));
    };
    let kept = [
        "{\"a\": NaN}".replace("NaN", "12345678901234567890.5"),
        "1.0".to_owned(),
        "-0.0".to_owned(),
        "-7e3".to_owned(),
        "0.30000000000000004".to_owned(),
        "9223372036854775807".to_owned(),
        "-9223372036854775808".to_owned(),
        "1e19".to_owned(),
        "5e-324".to_owned(),
        "1.7976931348623157e308".to_owned(),
        "1e400".to_owned(),
        "\"1.0\"".to_owned(),
        "null".to_owned(),
        " [1] ".to_owned(),
    ];
    for (number, json) in kept.iter().enumerate() {
        record(&format!("kept-{number}"), json);
    }
    let zeros = "(SELECT ctid FROM metrics WHERE value <> 0 ORDER BY run_uuid, key, step, timestamp LIMIT 3)";
    database.execute(&format!("UPDATE metrics SET value = '-0.0' WHERE ctid IN {zeros}"));
    let path = |name: &str| home.path().join(name);
    let to_sqlite = |archive: &str, file: &str, more: &[&str]| {
        export(home.path(), &database.url(), &path(archive), &["-q"]).expect(0);
        import(home.path(), &path(archive), path(file).to_str().unwrap(), more)
    };
    let note = "3 values are -0.0, which SQLite keeps as 0.0";
    for (number, more) in [&["--dry-run"][..], &[]].iter().enumerate() {
        let said = to_sqlite(&format!("kept-{number}.tar"), "kept.db", more).expect(0);
        assert!(said.err.contains(note), "{}{}", said.out, said.err);
    }
    verify(home.path(), &database.url(), path("kept.db").to_str().unwrap()).expect(0);

    database.execute("UPDATE metrics SET value = 'NaN' WHERE key = 'train_loss' AND step = 1");
    record("lost-1", "4307595054005657272807.14435");
    record("lost-2", "9.2e18");
    for (number, more) in [&["--dry-run"][..], &[], &["--no-verify"]].iter().enumerate() {
        let Said { code, out, err } = to_sqlite(&format!("lost-{number}.tar"), "lost.db", more);
        let said = format!("{out}{err}");
        assert_eq!(code, 6, "{said}");
        for words in [
            "SQLite cannot keep",
            "`metrics.value` is NaN, which SQLite stores as NULL",
            "key=\"train_loss\"",
            "`evaluation_dataset_records.inputs` is a JSON document of one number",
            "2 rows; first: dataset_record_id=\"lost-1\"",
        ] {
            assert!(said.contains(words), "{words}: {said}");
        }
        assert!(!said.contains("quarantine") && !path("lost.db").exists(), "{said}");
    }
    // PostgreSQL takes the same archive.
    let again = postgres(15).database("exports_to_pg_again");
    import(home.path(), &path("lost-0.tar"), &again.url(), &[]).expect(0);
    verify(home.path(), &database.url(), &again.url()).expect(0);
}
